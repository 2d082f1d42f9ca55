"""docs/contributing.md: each of its examples applies, and the commands below it do what the page says."""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import CLASSES, ROOT

from vision.ssd.weights import description_of, read_weights

#: Commands as `__main__`, one after the other in one process, which loads torch once; last comes what they returned.
RUNNER = """
import json, runpy, shlex, sys
codes = []
for line in sys.argv[1:]:
    _, *sys.argv = shlex.split(line, comments=True)
    try:
        if sys.argv[0] == "-m":
            del sys.argv[0]
            runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
        else:
            runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as stop:
        codes.append(int(stop.code or 0))
print(json.dumps(codes))
"""


def sections() -> dict[str, SimpleNamespace]:
    """Sections with an example: title -> its diff, commands."""
    page = (ROOT / "docs" / "contributing.md").read_text()
    found = {}
    for section in re.split(r"^## ", page, flags=re.MULTILINE)[1:]:
        shell = "".join(re.findall(r"^```sh\n(.*?)^```$", section, flags=re.MULTILINE | re.DOTALL))
        if example := re.search(r"\]\((examples/\w+\.diff)\)", section):
            commands = shell.replace("\\\n", "").splitlines()
            diff = (ROOT / "docs" / example[1]).read_text()
            found[section.partition("\n")[0]] = SimpleNamespace(diff=diff, commands=commands)
    return found


def check_net(root: Path, done: subprocess.CompletedProcess) -> None:
    assert description_of(read_weights(root / "models/mini/best.pth"))["net"] == "mini-ssd-lite"
    assert json.loads((root / "eval_results/metrics.json").read_text())["classes"]
    assert (root / "models/mini/mini-ssd-lite.onnx").is_file()


def check_format(root: Path, done: subprocess.CompletedProcess) -> None:
    assert "2 passed" in done.stdout, "the format itself, and that every format is compared"


def check_option(root: Path, done: subprocess.CompletedProcess) -> None:
    assert "--nesterov is of SGD with momentum" in done.stderr
    state = torch.load(root / "models/nesterov/last.state", weights_only=True)
    groups = state["training"]["optimizer"]["param_groups"]
    assert groups
    assert all(group["nesterov"] for group in groups)
    assert json.loads((root / "models/nesterov/args.json").read_text())["arguments"]["nesterov"] is True


def check_metric(root: Path, done: subprocess.CompletedProcess) -> None:
    with open(root / "models/recall/results.csv", newline="") as file:
        (row,) = csv.DictReader(file)
    recalls = {name: float(row[f"Class Highest Recall/{name}"]) for name in CLASSES}
    assert any(recall >= 0 for recall in recalls.values())
    for name, recall in recalls.items():
        assert not recall > 1
        assert f"Highest Recall {name}: {recall:.4f}" in done.stdout


def check_augmentation(root: Path, done: subprocess.CompletedProcess) -> None:
    assert json.loads((root / "models/grey/args.json").read_text())["arguments"]["augmentation"] == "grey"


CHECKS = {
    "A net": check_net,
    "A dataset format": check_format,
    "An option": check_option,
    "A metric": check_metric,
    "An augmentation": check_augmentation,
}


def test_every_section_is_checked():
    assert set(sections()) == set(CHECKS)


@pytest.fixture
def copy(tmp_path, voc_root) -> Path:
    """The code in a folder of its own, with the dataset that the commands read."""
    for name in ("vision", "tests"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for path in (*ROOT.glob("*.py"), ROOT / "pyproject.toml"):
        shutil.copy(path, tmp_path)
    shutil.copytree(voc_root, tmp_path / "data" / "fruit")
    return tmp_path


@pytest.mark.parametrize("title", CHECKS)
def test_the_example_does_what_the_page_says(copy, title):
    section = sections()[title]
    # In a folder that lies in a repository, git would take the paths for that repository's, and pass over them.
    env = {**os.environ, "GIT_CEILING_DIRECTORIES": str(copy.parent), "CUDA_VISIBLE_DEVICES": ""}
    applied = subprocess.run(
        ["git", "apply", "-"], cwd=copy, env=env, input=section.diff, capture_output=True, text=True
    )
    assert applied.returncode == 0, applied.stderr
    for rule in (["check"], ["format", "--check"]):
        obeyed = subprocess.run([sys.executable, "-m", "ruff", *rule, "."], cwd=copy, capture_output=True, text=True)
        assert obeyed.returncode == 0, obeyed.stdout + obeyed.stderr

    commands = [
        line.replace("train_ssd.py", "train_ssd.py --workers=0 --amp=off --seed=1 --no-plots")
        for line in section.commands
    ]
    ran = subprocess.run(
        [sys.executable, "-c", RUNNER, *commands], cwd=copy, env=env, capture_output=True, text=True, timeout=600
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    *_, codes = ran.stdout.splitlines()
    assert json.loads(codes) == [2 if "exit code 2" in line else 0 for line in commands], ran.stdout + ran.stderr
    CHECKS[title](copy, ran)

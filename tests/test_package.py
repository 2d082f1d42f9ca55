"""The wheel: what is in it, and that its commands are the scripts."""

import configparser
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from conftest import ROOT

import detect
import eval_ssd
import onnx_export
import open_images_downloader
import plot_logs
import train_ssd
import vision
from vision import commands
from vision.engine import bundled_weights, resume

#: Command -> function of `vision.commands`, script.
COMMANDS = {
    "ssd-train": ("train", train_ssd),
    "ssd-eval": ("evaluate", eval_ssd),
    "ssd-export": ("export", onnx_export),
    "ssd-detect": ("detect", detect),
    "ssd-plot": ("plot", plot_logs),
    "ssd-download": ("download", open_images_downloader),
}

BUILD = "import sys, setuptools.build_meta as backend; print(backend.build_wheel(sys.argv[1]))"

#: As the command's file of an installed package does, for each command in one process; prints help and exit codes.
HELP = """
import contextlib, io, json, sys
from vision import commands
from vision.engine import bundled_weights
found = {}
for command, function in json.loads(sys.argv[1]).items():
    sys.argv = [f"/somewhere/bin/{command}", "--help"]
    with contextlib.redirect_stdout(io.StringIO()) as out:
        try:
            getattr(commands, function)()
        except SystemExit as stop:
            found[command] = [stop.code, out.getvalue()]
print(json.dumps([found, str(bundled_weights.find("mb1-ssd"))]))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Build the wheel from a copy, beside files of runs in models/."""
    source, folder = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("vision", "models"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__", "bundled"))
    for path in (
        *ROOT.glob("*.py"),
        *ROOT.glob("*.txt"),
        *map(ROOT.joinpath, ("pyproject.toml", "README.md", "LICENSE")),
    ):
        shutil.copy(path, source)
    (source / "models" / "best.pth").write_bytes(b"of a run")
    built = subprocess.run([sys.executable, "-c", BUILD, folder], cwd=source, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    return folder / built.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def test_the_wheel_holds_the_code_and_the_starts(wheel, installed):
    assert wheel.name == f"ssd_retrain-{vision.__version__}-py3-none-any.whl"
    ours = {path.relative_to(ROOT) for path in [*ROOT.glob("*.py"), *(ROOT / "vision").rglob("*.py")]}
    found = {path.relative_to(installed) for path in installed.rglob("*") if path.is_file()}
    code = {path for path in found if path.suffix == ".py"}
    assert code == ours
    others = {str(path) for path in found - code if ".dist-info" not in path.parts[0]}
    starts = {
        f"vision/bundled/{net}-{bundled_weights.VOC}.{ending}"
        for net in bundled_weights.NETS
        for ending in ("pth", "txt")
    }
    assert others == starts | {"vision/bundled/LICENSE.mobilenet.Apache-2.0", "vision/py.typed"}


def test_the_wheel_requires_what_the_requirements_say(installed):
    (metadata,) = installed.glob("*.dist-info/METADATA")
    required = re.findall(r"^Requires-Dist: (\S+)$", metadata.read_text(), flags=re.MULTILINE)
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    assert required == [line for line in lines if not line.startswith("#")]


def test_installed_commands_have_the_help_of_the_scripts(installed, script, monkeypatch, tmp_path):
    (file,) = installed.glob("*.dist-info/entry_points.txt")
    entry_points = configparser.ConfigParser()
    entry_points.read(file)
    functions = {command: function for command, (function, _) in COMMANDS.items()}
    assert dict(entry_points["console_scripts"]) == {
        command: f"vision.commands:{function}" for command, function in functions.items()
    }
    monkeypatch.setenv("COLUMNS", "100")
    env = {**os.environ, "PYTHONPATH": str(installed)}
    done = subprocess.run(
        [sys.executable, "-c", HELP, json.dumps(functions)], cwd=tmp_path, env=env, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    found, start = json.loads(done.stdout)
    assert start == str(installed / "vision" / "bundled" / "mb1-ssd-voc.pth"), "checked by its size and sha256, too"
    for command, (_, module) in COMMANDS.items():
        monkeypatch.setattr(sys, "argv", [command])
        assert found[command] == [0, script(module.main, "--help").out]


def test_a_package_that_cannot_be_loaded_is_one_line(monkeypatch, capsys):
    """Of OpenCV that may be a library of the system; until the imports are over, Ctrl-C ends the process silently."""
    handlers = []

    def fail(name):
        handlers.append(signal.getsignal(signal.SIGINT))
        raise ImportError("libGL.so.1: cannot open shared object file")

    monkeypatch.setattr(commands, "import_module", fail)
    monkeypatch.setattr(sys, "argv", ["/somewhere/bin/ssd-detect"])
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(SystemExit) as stop:
            commands.detect()
    finally:
        signal.signal(signal.SIGINT, before)
    assert handlers == [signal.SIG_DFL]
    assert stop.value.code == "ssd-detect: failed: libGL.so.1: cannot open shared object file (ImportError)"


@pytest.mark.parametrize(
    ("launcher", "script", "program"),
    [
        ("python3", "train_ssd.py", "python3 train_ssd.py"),
        ("python3", "my code/train_ssd.py", "python3 'my code/train_ssd.py'"),
        ("python3", "/venv/bin/ssd-train", "ssd-train"),
        ("torchrun --nproc_per_node=2", "/venv/bin/ssd-train", "torchrun --nproc_per_node=2 --no-python ssd-train"),
    ],
)
def test_the_command_that_resumes_a_run_is_the_one_that_started_it(launcher, script, program):
    assert resume.program_of(launcher, script) == program

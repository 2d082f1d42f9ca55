"""README and docs: each command is one that its program takes, each option exists, each link leads somewhere."""

import argparse
import importlib
import re
import shlex
from pathlib import Path
from types import ModuleType

import pytest
import torch
from conftest import ROOT

import train_ssd
from benchmarks import accuracy, few_images

README = ROOT / "README.md"
DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = [README, ROOT / "CONTRIBUTING.md", *DOCS]
#: Tables that a program writes from the help of the options.
GENERATED = {"options.md"}

PROGRAMS = sorted(
    ["vision.datasets.synthetic", *(path.stem for path in ROOT.glob("*.py"))]
    + [f"benchmarks.{path.stem}" for path in (ROOT / "benchmarks").glob("*.py") if "def main(" in path.read_text()]
)

#: Options of torchrun, detectnet, docker, pip, tensorboard, pytest and pkg-config; the last one is that of an example for contributors.
FOREIGN_OPTIONS = {
    *("--nproc_per_node", "--no-python", "--max-restarts", "--input-blob", "--output-cvg", "--output-bbox"),
    *("--shm-size", "--no-deps", "--logdir", "--write-slow-list", "--cflags", "--libs", "--nesterov"),
}

COMMAND = re.compile(r"(?:[A-Z_]+=\S+ +)*(python3|torchrun|make|ssd-\w+|\.venv/bin/python) ")


class ParsedError(Exception):
    """Ends a program where its command line is parsed."""


def without_fences(text: str) -> str:
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def commands(page: Path) -> list[str]:
    """List the commands of a page, of indented blocks and of inline code. `...` stands for options."""
    text = without_fences(page.read_text()).replace("\\\n", " ")
    blocks = re.findall(r"^    (\S.*)$", text, flags=re.MULTILINE)
    inline = re.findall(r"`([^`\n]+)`", text)
    return [line for line in [*blocks, *inline] if COMMAND.match(line) and "..." not in line]


def main_with(module: ModuleType, argv: list[str], patch: pytest.MonkeyPatch) -> None:
    patch.setattr("sys.argv", [module.__name__, *argv])
    module.main(*([argv] if module.main.__code__.co_argcount else []))


def parse(module: ModuleType, argv: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a program read its command line, and do nothing else."""
    if hasattr(module, "parse_args"):
        values = module.parse_args(argv)
        if module in (accuracy, few_images):
            for _, setting in values.setting:
                train_ssd.parse_args([*values.common, *setting])
        return
    original = argparse.ArgumentParser.parse_args

    def parse_and_stop(self, *args, **kwargs):
        original(self, *args, **kwargs)
        raise ParsedError

    with monkeypatch.context() as patch, pytest.raises(ParsedError):
        patch.setattr(argparse.ArgumentParser, "parse_args", parse_and_stop)
        main_with(module, argv, patch)


def check(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Check that the program of a command takes its arguments."""
    words = [word for word in shlex.split(command, comments=True) if not re.match(r"[A-Z_]+=", word)]
    program, *argv = words[: words.index("&&")] if "&&" in words else words
    if program == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
        assert set(argv) <= set(targets)
        return
    if program == "torchrun":
        argv = [word for word in argv if word.partition("=")[0] not in FOREIGN_OPTIONS]
        if not argv:  # in prose, its options alone
            return
    name, *argv = argv[1:] if argv[0] == "-m" else argv
    if name in ("pytest", "ruff"):
        assert all((ROOT / word).exists() for word in argv if word.startswith("tests/"))
    elif name == "vision.options.page":
        assert not argv, "it has no options"
    else:
        parse(importlib.import_module(name.removesuffix(".py").replace("/", ".")), argv, monkeypatch)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_programs_take_the_commands(page, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    if page.name != "contributing.md":
        assert "```sh" not in page.read_text(), "only those of contributing.md are run, by test_contributing.py"
    for command in commands(page):
        try:
            check(command, monkeypatch)
        except SystemExit:
            pytest.fail(f"{command}\n{capsys.readouterr().err}")
    assert not list(tmp_path.iterdir())


def test_pages_have_commands():
    """Else the test above would say nothing."""
    assert [len(commands(page)) >= 5 for page in PAGES if page.name in ("README.md", "better.md")] == [True, True]
    assert {command.split()[1] for command in commands(README)} >= {
        *("train_ssd.py", "eval_ssd.py", "onnx_export.py", "detect.py", "open_images_downloader.py"),
    }


def test_a_wrong_command_is_found(monkeypatch, capsys):
    for command in (
        "python3 train_ssd.py --net=mb9",
        "python3 benchmarks/nets.py --nothing",
        "python3 benchmarks/accuracy.py --runs=r --data a=b --setting x='--epochs=many'",
        "torchrun --nproc_per_node=4 train_ssd.py --epochs=many",
    ):
        with pytest.raises(SystemExit):
            check(command, monkeypatch)
        assert capsys.readouterr().err
    with pytest.raises(AssertionError):
        check("make nothing", monkeypatch)


@pytest.fixture(scope="module")
def options() -> set[str]:
    """Names of the options of all programs."""
    parsers = []

    def stop(self, *args, **kwargs):
        parsers.append(self)
        raise ParsedError

    threads = torch.get_num_threads()
    for name in PROGRAMS:
        module = importlib.import_module(name)
        with pytest.MonkeyPatch.context() as patch, pytest.raises(ParsedError):
            patch.setattr(argparse.ArgumentParser, "parse_args", stop)
            patch.setattr(argparse.ArgumentParser, "parse_known_args", stop)
            main_with(module, [], patch)
    assert torch.get_num_threads() == threads
    assert len(parsers) == len(PROGRAMS)
    return {option for parser in parsers for action in parser._actions for option in action.option_strings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_options_exist(page, options):
    lines = (line for line in page.read_text().splitlines() if "trtexec" not in line)
    named = set(re.findall(r"(?<![\w-])--[a-zA-Z][\w-]*", "\n".join(lines))) - FOREIGN_OPTIONS
    assert {name for name in named if name.replace("_", "-") not in options} == set()


def anchors(page: Path) -> set[str]:
    """Anchors of a page's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", without_fences(page.read_text()), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    text = re.sub(r"`[^`\n]*`", "", without_fences(page.read_text()))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not target.startswith("https://"):
            name, _, anchor = target.partition("#")
            path = (page.parent / name) if name else page
            assert path.exists(), target
            assert not anchor or anchor in anchors(path), target


def test_the_readme_leads_to_every_page():
    assert {f"docs/{page.name}" for page in DOCS} <= set(re.findall(r"docs/\w+\.md", README.read_text()))


def test_the_readme_is_short():
    lines = README.read_text().splitlines()
    assert len(lines) <= 130
    assert [line for line in lines if len(line) > 120] == []


@pytest.mark.parametrize("page", [page for page in PAGES if page.name not in GENERATED], ids=lambda page: page.name)
def test_pages_are_easy_to_read(page):
    """No parentheses inside parentheses, no paragraph in a cell of a table."""
    text = re.sub(r"^    .*$", "", without_fences(page.read_text()), flags=re.MULTILINE)
    prose = re.sub(r"`[^`]*`", "code", re.sub(r"\]\([^)\s]*\)", "]", text))
    assert re.findall(r"\([^()]*\(", prose) == []
    cells = [cell for line in prose.splitlines() if line.startswith("|") for cell in line.split("|")]
    assert [cell for cell in cells if len(cell.split()) > 20] == []

"""Output that nobody reads, has no room, or does not exist; Ctrl-C before a script has begun."""

import io
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, heed_interrupts, train_argv

import train_ssd
from vision.utils.files import fit_for_name

#: Logs, prints much, and does its work.
SCRIPT = """
import logging, sys
from pathlib import Path
from vision import console
def main(argv):
    console.setup_logging()
    for number in range(3):
        logging.getLogger().info("line %d", number)
    if "print" in argv:
        print("x" * (1 << 20))
    Path(argv[0]).write_text("done")
console.run(main, sys.argv[1:])
"""


def run_script(
    out: int | None, *argv, closed: tuple[int, ...] = (), unbuffered: str = ""
) -> subprocess.CompletedProcess:
    def before():
        for descriptor in closed:
            os.close(descriptor)

    command = [sys.executable, "-c", SCRIPT, *map(str, argv)]
    options = {"cwd": ROOT, "env": {**os.environ, "PYTHONUNBUFFERED": unbuffered}, "preexec_fn": before}
    return subprocess.run(command, stdout=out, stderr=subprocess.PIPE, text=True, **options)


@pytest.fixture
def closed_pipe():
    """The writing end of a pipe that nobody reads, as after `| head`."""
    reading, writing = os.pipe()
    os.close(reading)
    yield writing
    os.close(writing)


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_log_that_nobody_reads_ends_nothing(closed_pipe, tmp_path, unbuffered):
    done = run_script(closed_pipe, tmp_path / "a", "print", unbuffered=unbuffered)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "a").read_text() == "done"


def test_what_is_printed_for_nobody_ends_a_script_without_a_word(script):
    def main(argv):
        raise BrokenPipeError(32, "Broken pipe")

    done = script(main)
    assert (done.code, done.out, done.err) == (141, "", "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_behind_the_log_is_said_at_the_end_and_ends_nothing(tmp_path):
    with open("/dev/full", "w") as full:
        done = run_script(full.fileno(), tmp_path / "a")
    assert done.returncode == 0
    assert done.stderr == "-c: not all of the output could be written: [Errno 28] No space left on device\n"
    assert (tmp_path / "a").read_text() == "done"


@pytest.mark.parametrize("closed", [(1,), (0, 1, 2)])
def test_without_standard_streams_scripts_work_and_files_are_not_taken_for_them(closed, tmp_path):
    done = run_script(subprocess.PIPE, tmp_path / "a", closed=closed)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "a").read_text() == "done"


class Unwritable(io.StringIO):
    """Standard output whose reader has gone, or whose disk is full, or in which a signal's log meets its own."""

    def __init__(self, error: Exception):
        super().__init__()
        self.error = error

    def write(self, text: str) -> int:
        raise self.error


@pytest.mark.parametrize(
    "error",
    [
        BrokenPipeError(32, "Broken pipe"),
        OSError(5, "Input/output error"),
        OSError(28, "No space left on device"),
        ValueError("I/O operation on closed file"),
        RuntimeError("reentrant call inside <_io.BufferedWriter name='<stdout>'>"),
    ],
)
def test_a_run_goes_on_though_its_log_cannot_be_written(voc_root, tmp_path, monkeypatch, error):
    monkeypatch.setattr(sys, "stdout", Unwritable(error))
    assert train_ssd.main(list(train_argv(voc_root, tmp_path, "--resolution=48", "--epochs=1", "--batch-size=6"))) == 0
    assert (tmp_path / "best.pth").is_file()


@pytest.mark.parametrize(
    "name", ["train_ssd", "eval_ssd", "onnx_export", "detect", "plot_logs", "open_images_downloader"]
)
def test_ctrl_c_during_the_imports_ends_without_a_traceback(name, tmp_path):
    for package in ("numpy", "torch", "cv2", "PIL", "tqdm", "requests"):
        (tmp_path / f"{package}.py").write_text("import os, signal; os.kill(os.getpid(), signal.SIGINT)\n")
    done = subprocess.run(
        [sys.executable, str(ROOT / f"{name}.py"), "--help"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        preexec_fn=heed_interrupts,
    )
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")


def test_ctrl_c_is_heeded_again_once_a_script_runs(script):
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        done = script(lambda argv: signal.raise_signal(signal.SIGINT))
    finally:
        signal.signal(signal.SIGINT, before)
    assert (done.code, done.out) == (130, "")
    assert done.err.endswith(": interrupted\n")


#: Writes a file whose name and content a locale without UTF-8 lacks, logs the name, and asks for a file of that name.
IN_ASCII = """
import logging, sys
from pathlib import Path
from vision import console
from vision.utils.files import fit_for_name, write_text
def main(argv):
    console.setup_logging()
    name = "Gr\\xf6\\xdfe/1"
    write_text(Path(argv[0]) / fit_for_name(name), name)
    logging.getLogger().info("%s", name)
    (Path(argv[0]) / name).read_bytes()
console.run(main, sys.argv[1:])
"""


def test_a_locale_without_utf_8_loses_no_text(tmp_path):
    locale = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(
        [sys.executable, "-c", IN_ASCII, tmp_path],
        cwd=ROOT,
        env={**os.environ, **locale},
        capture_output=True,
        text=True,
    )
    assert (tmp_path / "Gr__e_1").read_text(encoding="utf-8") == "Größe/1"
    assert done.stdout.endswith(" - Gr\\xf6\\xdfe/1\n")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and "no name of a file in this locale, whose encoding, ascii" in done.stderr
    assert "PYTHONUTF8=1" in done.stderr


def test_names_of_files_keep_what_they_can():
    assert fit_for_name("Größe: 1/2 cm") == "Größe_ 1_2 cm"

"""The scripts as commands of an installed package: `ssd-train` is `train_ssd.py`, and so on.

Everything else is loaded after the signal is set, so that Ctrl-C during the imports ends a command without a traceback.
"""

from __future__ import annotations

import signal
import sys
from importlib import import_module
from pathlib import Path
from typing import NoReturn


def train() -> NoReturn:
    """Run train_ssd.py."""
    _run("train_ssd")


def evaluate() -> NoReturn:
    """Run eval_ssd.py."""
    _run("eval_ssd")


def export() -> NoReturn:
    """Run onnx_export.py."""
    _run("onnx_export")


def detect() -> NoReturn:
    """Run detect.py."""
    _run("detect")


def plot() -> NoReturn:
    """Run plot_logs.py."""
    _run("plot_logs")


def download() -> NoReturn:
    """Run open_images_downloader.py."""
    _run("open_images_downloader")


#: Scripts whose help is shown before what takes seconds to load -> the module of their options.
_OPTIONS = {
    "train_ssd": "vision.options.training",
    "eval_ssd": "vision.options.evaluation",
    "onnx_export": "vision.options.export",
    "detect": "vision.options.detection",
}


def _run(script: str) -> NoReturn:
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # until `console.run`
    try:
        from vision import console

        if script in _OPTIONS:
            console.answer_help(import_module(_OPTIONS[script]).make_parser, sys.argv[1:])
        main = import_module(script).main
    except ImportError as err:  # OpenCV, for one, needs libraries of the system
        sys.exit(f"{Path(sys.argv[0]).name}: failed: {err} (ImportError)")
    console.run(main, sys.argv[1:])

"""Starts that come with this program: detectors, some without heads, made by `benchmarks/pretrain.py`."""

from __future__ import annotations

import contextlib
import hashlib
from pathlib import Path

from vision.ssd.choices import BUNDLED_BASE_NET_RATES as BASE_NET_RATES
from vision.ssd.choices import NET_NAMES, VOC
from vision.ssd.models import spec_of
from vision.structures import DataError

NETS = tuple(BASE_NET_RATES)

_PACKAGE = Path(__file__).resolve().parents[1]
_INSTALLED = _PACKAGE / "bundled"

#: Where they lie: in the clone in `models/`; an installed package has those files within it (pyproject.toml).
FOLDER = _INSTALLED if _INSTALLED.is_dir() else _PACKAGE.parent / "models"

_REPAIR = "install this program again" if FOLDER == _INSTALLED else "get it again (`git checkout models`)"
WAYS_OUT = f"{_REPAIR}, or start elsewhere with --pretrained-ssd=FILE, --base-net=FILE or --pretrained-ssd=none"


def net_of(net: str) -> str | None:
    """Name the net whose start suits a net: its own, else the first with the same backbone; None where there is none.

    Args:
        net: canonical name.
    """
    fitting = [name for name in NETS if spec_of(name).shares_backbone(spec_of(net))]
    return net if net in fitting else next(iter(fitting), None)


def base_net_rate_of(path: str | None) -> float | None:
    """Return the rate of the backbone that suits a file, if it is a start that wants one of its own."""
    name = "" if path is None else Path(path).name
    return next((rate for net, rate in BASE_NET_RATES.items() if name == f"{net}-{VOC}.pth"), None)


def find(net: str) -> Path:
    """Return the start that suits a net, after checking that it is the one that was made.

    Args:
        net: canonical name.

    Raises:
        DataError: no start suits it, or its file is missing or damaged.
    """
    start = net_of(net)
    if start is None:
        fitting = [name for name in NET_NAMES if net_of(name) is not None]
        raise DataError(
            f"--pretrained-ssd={VOC}: there is no start for {net}; use --net={' or '.join(fitting)}, or name a file "
            "of weights"
        )
    path = FOLDER / f"{start}-{VOC}.pth"
    with contextlib.suppress(ValueError):
        path = path.relative_to(Path.cwd())
    check(path)
    return path


def check(path: Path) -> None:
    """Compare a start with the size and sha256 in the text beside it.

    Raises:
        DataError: either is missing, or they differ.
    """
    text = path.with_suffix(".txt")
    for part in (path, text):
        if not part.is_file():
            raise DataError(f"{part}: missing, it belongs to this program; {WAYS_OUT}")
    facts = dict(line.split(": ", 1) for line in text.read_text(encoding="utf-8").splitlines() if ": " in line)
    content = path.read_bytes()
    found = (str(len(content)), hashlib.sha256(content).hexdigest())
    expected = (facts.get("bytes"), facts.get("sha256"))
    if found != expected:
        raise DataError(
            f"{path}: damaged: {found[0]} bytes with sha256 {found[1]}, expected {expected[0]} with {expected[1]} "
            f"({text.name}); {WAYS_OUT}"
        )

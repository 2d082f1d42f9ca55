"""Tiny datasets, drawn anew from a seed for each session of tests."""

from __future__ import annotations

import json
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from vision.datasets import synthetic  # noqa: E402
from vision.ssd.models import MODELS  # noqa: E402

GOLDEN = Path(__file__).parent / "golden"
SHARED = ROOT.parent / "shared"
CLASSES = ("ball", "board", "cone", "star")
PICTURE_SIZE = (96, 80)


@pytest.fixture(scope="session")
def pictures() -> dict[str, list[synthetic.Drawing]]:
    return {
        "train": synthetic.drawings(6, 1, size=PICTURE_SIZE),
        "test": synthetic.drawings(3, 2, size=PICTURE_SIZE),
    }


@pytest.fixture(scope="session")
def voc_root(tmp_path_factory, pictures) -> Path:
    root = tmp_path_factory.mktemp("voc")
    synthetic.write_voc(root, pictures)
    return root


@pytest.fixture
def own_voc(tmp_path, pictures) -> Path:
    """A VOC folder that a test may spoil."""
    root = tmp_path / "voc"
    synthetic.write_voc(root, pictures)
    return root


@pytest.fixture(scope="session")
def open_images_root(tmp_path_factory, pictures) -> Path:
    root = tmp_path_factory.mktemp("open_images")
    synthetic.write_open_images(root, pictures)
    return root


def golden_weight(key: str, shape: tuple[int, ...]) -> torch.Tensor:
    """Fill a weight by the rule the golden numbers were made with, see golden/README.md."""
    rng = np.random.default_rng(zlib.crc32(key.encode()))
    if key.endswith("num_batches_tracked"):
        return torch.zeros(shape, dtype=torch.int64)
    if key.endswith("running_var"):
        value = rng.uniform(0.5, 1.5, shape)
    elif key.endswith(("running_mean", "bias")):
        value = 0.1 * rng.standard_normal(shape)
    elif len(shape) == 1:
        value = rng.uniform(0.5, 1.5, shape)
    else:
        value = np.sqrt(2 / np.prod(shape[1:])) * rng.standard_normal(shape)
    return torch.from_numpy(value.astype(np.float32))


def golden_net(name: str, num_classes: int = 4, **options):
    net = MODELS[name].build(num_classes, **options)
    net.load_state_dict({key: golden_weight(key, tuple(value.shape)) for key, value in net.state_dict().items()})
    return net.eval()


def golden_json(name: str):
    return json.loads((GOLDEN / name).read_text())

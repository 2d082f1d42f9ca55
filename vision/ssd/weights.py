"""Reading and writing files of weights, and the description that travels inside them.

A `.pth` file is a plain state_dict. What the net is (its name, priors, normalisation, classes) lies in the
state_dict's `_metadata`, PyTorch's own place for facts about modules: it survives `torch.save` and
`torch.load(weights_only=True)`, and a strict load elsewhere ignores it. `dict(weights)` or a comprehension loses it.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vision.structures import DataError
from vision.utils.files import replacing

#: Our key in the metadata of the state_dict's root module.
METADATA_KEY = "ssd"


def read_weights(path: str | Path) -> OrderedDict[str, Tensor]:
    """Read a state_dict onto the CPU.

    Raises:
        DataError: there is no such file, or it holds no state_dict.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: no such file; expected a .pth file of weights")
    size = path.stat().st_size
    if size == 0:
        raise DataError(f"{path}: the file is empty (0 bytes), a download or copy failed; get it again")
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as err:  # the unpickler of a file that is none may stumble over anything
        raise DataError(
            f"{path}: cannot be read as PyTorch weights ({size} bytes, truncated or another kind of file?); "
            "expected a .pth file that holds a state_dict"
        ) from err
    if not isinstance(weights, dict) or not weights:
        raise DataError(f"{path}: holds a {type(weights).__name__}, expected a state_dict of weights")
    if not all(isinstance(key, str) and isinstance(value, Tensor) for key, value in weights.items()):
        raise DataError(f"{path}: holds more or other things than weights, expected a plain state_dict")
    return weights


def write_weights(weights: dict[str, Tensor], path: str | Path) -> None:
    """Write a state_dict, under a temporary name until it is complete; the same weights give the same bytes."""
    with replacing(path) as temporary, open(temporary, "wb") as file:  # a file's name would become part of it
        torch.save(weights, file)


def description_of(weights: dict[str, Tensor]) -> dict[str, Any] | None:
    """Return what the file says of its net (see `SSD.description`), or None where it was written by others."""
    for facts in getattr(weights, "_metadata", {}).values():
        if METADATA_KEY in facts:
            return facts[METADATA_KEY]
    return None


def digest_of(weights: Mapping[str, Tensor]) -> str:
    """Digest names and values of weights on the CPU."""
    digest = hashlib.blake2b(digest_size=12)
    for key, value in weights.items():
        digest.update(key.encode())
        digest.update(value.contiguous().numpy().tobytes())
    return digest.hexdigest()

"""Reading and writing files of weights, and the description that travels inside them.

A `.pth` file is a plain state_dict. What the net is (its name, priors, normalization, classes) lies in the
state_dict's `_metadata`, PyTorch's own place for facts about modules: it survives `torch.save` and
`torch.load(weights_only=True)`, and a strict load elsewhere ignores it. `dict(weights)` or a comprehension loses it.

Programs of others write more: weights beside an optimizer's state, and the names that DataParallel, torch.compile
and the like give them. `read_weights` undoes that.
"""

from __future__ import annotations

import hashlib
import re
import zipfile
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

#: Where programs put the weights in a file that holds more, the likeliest first.
_PLACES = ("state_dict", "model_state_dict", "model", "net", "weights", "state", "module")

#: Parts of names that come from wrapping a net or a part of it: parallel processing, compiling, sharding.
_WRAPPERS = {"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}

#: What a program may call the net that is a part of its own module, as Lightning's do.
_ATTRIBUTES = ("model.", "net.")

#: What AveragedModel adds to the weights of the net that it wraps.
_COUNTER = "n_averaged"

#: Keys of a file that a message names.
_LISTED = 6

#: How `torch.load` names a class of Python that it does not read.
_FOREIGN_CLASS = re.compile(r"GLOBAL (\S+)")


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """Read a state_dict onto the CPU, with the names that the net itself gives its weights.

    It may lie in a dictionary beside other things, and its names may be those of a wrapped net.

    Raises:
        DataError: there is no such file, or it holds no state_dict.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: no such file; expected a .pth file of weights")
    size = path.stat().st_size
    if size == 0:
        raise DataError(f"{path}: the file is empty (0 bytes), a download or copy failed; get it again")
    held = _load(path, size)
    weights = _weights_within(held)
    if weights is None:
        if not isinstance(held, dict):
            raise DataError(f"{path}: holds a {type(held).__name__}, expected a state_dict of weights")
        keys = ", ".join(map(str, list(held)[:_LISTED])) + (", ..." if len(held) > _LISTED else "")
        raise DataError(
            f"{path}: holds more or other things than weights ({keys or 'nothing'}), expected a plain state_dict, or "
            f"one under {', '.join(_PLACES[:3])}"
        )
    return unwrapped(weights)


class _Unread:
    """Stands for any object of a class that is not read: the settings, paths and numbers beside the weights."""

    def __init__(self, *_: object) -> None:
        """Take what a file calls the class with."""

    def __new__(cls, *_: object) -> _Unread:
        """Take what a file calls the class with."""
        return super().__new__(cls)

    def __setstate__(self, state: object) -> None:
        """Take what a file says of the object."""

    def __setitem__(self, key: object, value: object) -> None:
        """Take what a file says of the object if it is a dictionary of another class."""


def _load(path: Path, size: int) -> Any:
    """Read what a file holds, without running anything that it names.

    Raises:
        DataError: it cannot be read, or is a net itself.
    """
    found = foreign = None
    try:
        if _is_torchscript(path):
            foreign = "a TorchScript program, as torch.jit.save(net) writes it"
        else:
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as err:  # the unpickler of a file that is none may stumble over anything
        class_name = _FOREIGN_CLASS.search(str(err))
        if class_name is None:
            raise DataError(
                f"{path}: cannot be read as PyTorch weights ({size} bytes, truncated or another kind of file?); "
                "expected a .pth file that holds a state_dict"
            ) from err
        foreign = f"a pickled object of class {class_name[1]}, as torch.save(net) writes it"
        found = _load_the_rest(path)
    if _weights_within(found) is not None:
        return found
    raise DataError(
        f"{path}: holds {foreign}, which is not read since that could run code of the file; expected weights alone: "
        "open it in the program that it is from, and write them by torch.save(net.state_dict(), 'weights.pth')"
    )


def _load_the_rest(path: Path) -> Any:
    """Read a file with objects of classes that are not read as `_Unread`; None where that is not possible."""
    try:  # PyTorch before 2.6 cannot, nor can any with files in the format before 1.6
        names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
        with torch.serialization.safe_globals([(_Unread, name) for name in names]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception:
        return None


def _is_torchscript(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as file:
        return any(name.endswith("/constants.pkl") for name in file.namelist())


def _weights_within(held: Any) -> dict[str, Tensor] | None:
    """Find the state_dict that a file holds; None if there is none.

    That is all of it, or what lies in one of `_PLACES`, or in another place if there is only one such.
    """
    if not isinstance(held, dict):
        return None
    if _is_state_dict(held):
        return held
    for place in _PLACES:
        if (found := _weights_within(held.get(place))) is not None:
            return found
    others = [value for value in held.values() if _is_state_dict(value)]
    return others[0] if len(others) == 1 else None


def _is_state_dict(value: Any) -> bool:
    if not isinstance(value, dict) or not value:
        return False
    return all(isinstance(key, str) and isinstance(part, Tensor) for key, part in value.items())


def unwrapped(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Give weights of a wrapped net, and what is said of its modules, the names that the net itself gives them."""
    names = [key for key in weights if key != _COUNTER]
    attribute = next((word for word in _ATTRIBUTES if names and all(_plain(key).startswith(word) for key in names)), "")
    plain = OrderedDict((_plain(key).removeprefix(attribute), weights[key]) for key in names)
    if len(plain) < len(names) or list(plain) == list(weights):
        return weights
    metadata: dict[str, dict[str, Any]] = {}
    for name, facts in getattr(weights, "_metadata", {}).items():
        module = f"{_plain(name)}.".removeprefix(attribute).removesuffix(".")
        metadata.setdefault(module, {}).update(facts)
    plain._metadata = metadata  # type: ignore[attr-defined]  # as PyTorch does
    return plain


def _plain(name: str) -> str:
    """Leave out of a name the parts that come from wrapping."""
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS)


def write_weights(weights: dict[str, Tensor], path: str | Path) -> None:
    """Write a state_dict, under a temporary name until it is complete; the same weights give the same bytes."""
    with replacing(path) as temporary, open(temporary, "wb") as file:  # a file's name would become part of it
        torch.save(weights, file)


def description_of(weights: Mapping[str, Tensor]) -> dict[str, Any] | None:
    """Return what the file says of its net (see `vision.ssd.description`), or None where it was written by others."""
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

"""Readers of formats from outside this package, by the name of their class: `package.module:Class`."""

from __future__ import annotations

import importlib
import os
import sys

from vision.datasets.folder import DatasetReader
from vision.structures import DataError

_EXPECTED = "expected package.module:Class, a subclass of vision.datasets.folder.DatasetReader"


def is_own(dataset_type: str) -> bool:
    """Whether a dataset type names a class outside this package."""
    return ":" in dataset_type


def load_reader(dataset_type: str) -> type[DatasetReader]:
    """Import the reader that a dataset type names.

    Args:
        dataset_type: `package.module:Class`; the module is looked for as by Python's `import`, and in the current
            folder.

    Raises:
        DataError: it cannot be imported, or is no reader.
    """
    module_name, _, class_name = dataset_type.partition(":")
    if not module_name or not class_name:
        raise DataError(f"--dataset-type={dataset_type}: {_EXPECTED}")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as err:
        raise DataError(
            f"--dataset-type={dataset_type}: there is no module {err.name!r}; start in its folder, or name "
            f"that in PYTHONPATH; {_EXPECTED}"
        ) from err
    except (Exception, SystemExit) as err:  # whatever the module's own code does
        raise DataError(
            f"--dataset-type={dataset_type}: {module_name} fails when imported: {type(err).__name__}: {err}"
        ) from err
    reader = getattr(module, class_name, None)
    if not isinstance(reader, type) or not issubclass(reader, DatasetReader):
        kind = "has no such class" if reader is None else f"{class_name} is no reader"
        raise DataError(f"--dataset-type={dataset_type}: {module.__file__}: {kind}; {_EXPECTED}")
    if missing := _missing(reader):
        raise DataError(
            f"--dataset-type={dataset_type}: {module.__file__}: {class_name} lacks {', '.join(missing)}; define them"
        )
    return reader


def _missing(reader: type[DatasetReader]) -> list[str]:
    """Name the methods that a reader must define and does not; `annotated_images` is asked by `auto` alone."""
    wanted = ("listing", "all_images", "written_labels", "all_names")
    abstract = [name for name in dir(reader) if getattr(getattr(reader, name), "__isabstractmethod__", False)]
    return [name for name in wanted if getattr(reader, name) is getattr(DatasetReader, name)] + abstract

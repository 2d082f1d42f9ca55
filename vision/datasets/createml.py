"""CreateML's JSON: a list of images, each with centers and sizes of its objects in pixels."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from vision.datasets.annotated_folder import Annotated, SelfDescribedReader, not_used
from vision.datasets.defects import Defect
from vision.datasets.records import BoxFormat, RawObject
from vision.datasets.tree import Tree, as_written, load_json, try_to
from vision.datasets.writer import AnnotationWriter, WrittenImage, refuse_existing
from vision.structures import DataError
from vision.utils.files import JsonListFile

#: What the image's name and its objects are called, by version and tool.
_IMAGE_KEYS = ("image", "imagefilename", "imageFilename", "filename")
_OBJECT_KEYS = ("annotations", "annotation")


class CreatemlReader(SelfDescribedReader):
    """A dataset for CreateML, as Roboflow exports it, a file per split, or LabelImg writes it, a file per image."""

    name = "createml"
    looks_like = "a JSON file, or one for each image, that lists images with `annotations` of `label` and `coordinates`"
    form = BoxFormat()

    @classmethod
    def annotated_images(cls, tree: Tree) -> int:
        """Count the images on disk that are annotated, about."""

        def images_of(path: str) -> list[str]:
            return [str(_first(item, _IMAGE_KEYS)) for item in try_to(_load, tree.root / path) or ()]

        return tree.count_in(tree.ending(".json"), images_of)

    def annotate(self) -> Iterator[Annotated | Defect]:
        """See `SelfDescribedReader.annotate`."""
        for path in self.tree.ending(".json"):
            file = self.root / path
            try:
                content = _load(file)
            except DataError as err:
                if "createml" in path.lower():
                    yield not_used(file, err)
                continue
            for item in content:
                objects = [
                    RawObject(
                        f"object {number}", _label(one), _box(one), written=str(one.get("coordinates", "missing"))
                    )
                    for number, one in enumerate(_first(item, _OBJECT_KEYS) or [], start=1)
                ]
                image = self.image(str(_first(item, _IMAGE_KEYS) or ""), file, objects)
                yield Annotated(image, self.splits_of(path))


def _load(path: Path) -> list[dict[str, Any]]:
    content = load_json(path)
    if not isinstance(content, list) or not content or not all(_is_image(item) for item in content):
        raise DataError(f"{path}: is no list of images with annotations")
    return content


def _is_image(item: Any) -> bool:
    if not isinstance(item, dict) or _first(item, _IMAGE_KEYS) is None:
        return False
    objects = _first(item, _OBJECT_KEYS)
    return isinstance(objects, list) and all(isinstance(one, dict) and "label" in one for one in objects)


def _first(item: dict[str, Any], keys: tuple[str, ...]) -> Any:
    return next((item[key] for key in keys if key in item), None)


def _label(item: dict[str, Any]) -> str | None:
    return as_written(item.get("label")) or None


def _box(item: dict[str, Any]) -> tuple[float, float, float, float] | None:
    try:
        x, y, width, height = (float(item["coordinates"][key]) for key in ("x", "y", "width", "height"))
    except (KeyError, TypeError, ValueError):
        return None
    return x - width / 2, y - height / 2, x + width / 2, y + height / 2


class CreatemlWriter(AnnotationWriter):
    """Writes images and one `_annotations.createml.json` beside them; scores as `confidence`.

    An image of a subfolder gets that into its name: Create ML and LabelImg look for images beside the file.
    """

    name = "createml"
    images_folder = ""

    def image_path(self, name: PurePosixPath) -> Path:
        """Say where the file of an image belongs."""
        return self.root / "_".join(name.parts)

    def __enter__(self) -> AnnotationWriter:
        super().__enter__()
        path = self.root / "_annotations.createml.json"
        refuse_existing(path)
        self._list = self._contexts.enter_context(JsonListFile(path))
        return self

    def add(self, image: WrittenImage) -> None:
        """Write the objects of an image."""
        objects = []
        for name, (x1, y1, x2, y2), score in image.objects():
            center = {"x": (x1 + x2) / 2, "y": (y1 + y2) / 2, "width": x2 - x1, "height": y2 - y1}
            coordinates = {key: round(value, 2) for key, value in center.items()}
            objects.append({"label": name, "coordinates": coordinates, "confidence": round(score, 4)})
        self._list.add({"image": self.image_path(image.name).name, "annotations": objects})

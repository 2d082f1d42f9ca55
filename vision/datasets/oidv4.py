"""Text files of the OIDv4 toolkit: `train/Apple/x.jpg` with `train/Apple/Label/x.txt` of `name x1 y1 x2 y2` lines."""

from __future__ import annotations

from collections.abc import Iterator

from vision.datasets.annotated_folder import Annotated
from vision.datasets.defects import Defect
from vision.datasets.text_lines import TextLinesReader


class Oidv4Reader(TextLinesReader):
    """A dataset as the OIDv4 toolkit downloads it, a folder for each class.

    An image that lies in the folders of several classes has the objects of all of them.
    """

    name = "oidv4"
    looks_like = "folders of classes with images and `Label/*.txt` of `name x1 y1 x2 y2` lines"

    folder = "label"

    def annotate(self) -> Iterator[Annotated | Defect]:
        """Read all texts, and join those about images of one name in one split."""
        first: dict[tuple[str, frozenset[str]], Annotated] = {}
        for item in super().annotate():
            if isinstance(item, Defect):
                yield item
                continue
            key = (item.image.image_id.rpartition("/")[2], item.splits)
            before = first.get(key)
            if before is None or before.image.image_path is None or item.image.image_path is None:
                first[key if before is None else (item.image.image_id, item.splits)] = item
                continue
            known = {(one.name, one.box) for one in before.image.objects}
            more = [one for one in item.image.objects if (one.name, one.box) not in known]
            image = before.image._replace(
                objects=[*before.image.objects, *more], defects=[*before.image.defects, *item.image.defects]
            )
            first[key] = Annotated(image, item.splits)
        yield from first.values()

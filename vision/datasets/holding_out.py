"""Which images are held out for validation where a dataset does not say it."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence

from vision.datasets.records import RawImage, has_box

#: An image is told by its name and its file.
_Key = tuple[str, str]


def hold_out(
    images: Sequence[RawImage], share: float, class_names: Collection[str] = ()
) -> tuple[list[RawImage], list[RawImage]]:
    """Split images by a hash of their names.

    The answer depends on names and classes alone, not on order, folder or run. Each part gets at least one image where
    there are two. Images are ranked by the hash, and the first ones are held out. With class names, two rules join:

    - the last image of each class stays in training, so that a class of which there is one image can be learned;
    - the first other image of each class is held out, if the class's fair part of its images is at least half a one.

    Each rule looks at one image of a class, which is nearly always where it is by the hash alone. Without class names
    another image moves at most one image to the other side; with them none or one, and hardly ever two.

    Args:
        images: to split.
        share: of them that is held out.
        class_names: of the classes that are to be on both sides.

    Returns:
        the rest and the held out, both in their order.
    """
    keys = [(raw.image_id, str(raw.image_path)) for raw in images]
    ranked = sorted(set(keys), key=lambda key: (_rank(key[0]), key))
    by_class = _by_class(images, keys, ranked, class_names)
    staying = {of_class[-1] for of_class in by_class}
    ranked.sort(key=lambda key: key in staying)
    count = min(max(round(len(ranked) * share), 1), max(len(ranked) - 1, 0))
    count = min(count, max(len(ranked) - len(staying), 1))
    chosen = set(ranked[:count])
    for of_class in by_class:
        if len(of_class) * share >= 0.5:
            chosen.update([key for key in of_class if key not in staying][:1])
    pairs = list(zip(keys, images, strict=True))
    return [raw for key, raw in pairs if key not in chosen], [raw for key, raw in pairs if key in chosen]


def _by_class(
    images: Sequence[RawImage], keys: Sequence[_Key], ranked: Sequence[_Key], class_names: Collection[str]
) -> list[list[_Key]]:
    """List, for each class that is on any image, the images with an object of it that counts, as they are ranked."""
    names: dict[_Key, set[str]] = {}
    for key, raw in zip(keys, images, strict=True):
        if raw.image_path is not None and not any(defect.images for defect in raw.defects):
            counting = {item.name for item in raw.objects if item.name and not item.difficult and has_box(item)}
            names.setdefault(key, set()).update(counting.intersection(class_names))
    by_class: dict[str, list[_Key]] = {}
    for key in ranked:
        for name in names.get(key, ()):
            by_class.setdefault(name, []).append(key)
    return list(by_class.values())


def _rank(image_id: str) -> bytes:
    return hashlib.blake2b(image_id.encode(errors="surrogateescape"), digest_size=8).digest()

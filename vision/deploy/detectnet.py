"""What jetson-inference's detectNet does around an ONNX SSD: from image to input, and from output to detections.

It does not suppress. It stretches the image by picking nearest pixels, gives each prior one class, and joins boxes that
cover each other; so its detections, and with them its mAP, differ from those of suppression. All arithmetic is in
float32 and in detectNet's order, so that results are the same to the last bit; nothing but NumPy is needed.

Source of the rules: jetson-inference, `c/detectNet.cpp` and `c/tensorConvert.cu`, as of October 2025.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from vision.deploy.choices import DEFAULT_CLUSTERING, DEFAULT_THRESHOLD

#: What is subtracted from pixels in 0 ... 255, and what divides them after that.
MEAN, STD = 127.5, 127.5

#: A class of this name is never reported, by builds since March 2023.
VOID = "void"

#: The score that a class has to exceed to be a prior's best.
LOWEST_SCORE = -1000.0


class ArrayDetections(NamedTuple):
    """What detectNet reports for one image: `vision.structures.Detections` without torch, largest box first."""

    boxes: np.ndarray  # (N, 4) float32, corner form in pixels
    labels: np.ndarray  # (N,) int64, from 1
    scores: np.ndarray  # (N,) float32


def preprocess(rgb_image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Stretch an image to the net's input and normalize it, as detectNet does for ONNX SSDs.

    Args:
        rgb_image: (H, W, 3) uint8, RGB, of any size and aspect ratio.
        size: (width, height) of the net's input.

    Returns:
        (1, 3, height, width) float32, from -1 for 0 to 1 for 255.

    Raises:
        ValueError: the image is of another shape or type, or has no pixels.
    """
    if rgb_image.ndim != 3 or rgb_image.shape[2] != 3 or rgb_image.dtype != np.uint8 or not rgb_image.size:
        raise ValueError(f"rgb_image: expected (H, W, 3) uint8 with pixels, got {rgb_image.shape} {rgb_image.dtype}")
    (height, width), (net_width, net_height) = rgb_image.shape[:2], size
    rows, columns = _nearest(height, net_height), _nearest(width, net_width)
    pixels = rgb_image[rows[:, None], columns].transpose(2, 0, 1).astype(np.float32)
    # In this order: to divide by 127.5 once, or by 255 first, would round most or many of the 256 values differently.
    normalized = (pixels * (np.float32(1) / np.float32(255)) - np.float32(0.5)) / np.float32(0.5)
    return np.ascontiguousarray(normalized)[None]


def _nearest(source: int, target: int) -> np.ndarray:
    """Say which of `source` pixels each of `target` pixels (target,) shows: truncated, not from the pixels' centers."""
    # In float64 some of them would be one pixel off: 98 to 300 pixels, for one.
    scale = np.float32(source) / np.float32(target)
    return (np.arange(target, dtype=np.float32) * scale).astype(np.int64)


def postprocess(
    scores: np.ndarray,
    corner_form_boxes: np.ndarray,
    image_size: tuple[int, int],
    *,
    threshold: float = DEFAULT_THRESHOLD,
    clustering: float = DEFAULT_CLUSTERING,
    class_names: Sequence[str] | None = None,
    across_classes: bool = False,
) -> ArrayDetections:
    """Turn a net's answer for one image into what detectNet reports.

    Each prior has the class of its highest score, if that reaches the threshold. In the order of priors, each box is
    joined with the first one before it that it overlaps enough and that has its class; overlap is the intersection
    divided by the larger area. The joint box is the union, its score the higher one. What remains is sorted by area
    and then cut: left and top sides to 0, right and bottom ones to a pixel before the image's end. Nothing is dropped
    for lying outside.

    A box with a coordinate that is NaN overlaps none here and comes last; no rule of detectNet's is known for those.

    Args:
        scores: (P, C) after softmax; class 0 is the background. NaN is below every threshold.
        corner_form_boxes: (P, 4) relative, x1 <= x2 and y1 <= y2; may exceed the image.
        image_size: (width, height) in pixels of the image that was preprocessed.
        threshold: a score counts if it is this or above.
        clustering: boxes are joined if they overlap by more than this.
        class_names: BACKGROUND first; priors whose best class is called void are left out, as since March 2023. For
            older builds leave the names out. Classes without a name are kept.
        across_classes: the rule of builds before 2022-12-21, such as JetPack 4's: the first box that a box overlaps
            enough decides, whatever its class. If that is another one, the box with the higher score takes or keeps
            the place (the first at equal scores), and the other is dropped.

    Returns:
        boxes by falling area (before they are cut), of equal ones the one found first.

    Raises:
        ValueError: the shapes do not fit, or there is no class besides the background.
    """
    scores, corner_form_boxes = np.asarray(scores, np.float32), np.asarray(corner_form_boxes, np.float32)
    if scores.ndim != 2 or scores.shape[1] < 2:
        raise ValueError(f"scores: expected shape (P, C) with the background and a class, got {scores.shape}")
    if corner_form_boxes.shape != (len(scores), 4):
        raise ValueError(f"boxes: expected shape ({len(scores)}, 4) like the scores, got {corner_form_boxes.shape}")
    # Empty boxes give 0 / 0, and what overflows inf - inf: NaN, which exceeds nothing.
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        priors, labels, best = _best_classes(scores, threshold)
        if class_names is not None:
            void = [label for label, name in enumerate(class_names) if name == VOID]
            wanted = ~np.isin(labels, void)
            priors, labels, best = priors[wanted], labels[wanted], best[wanted]
        width, height = image_size
        boxes = corner_form_boxes[priors] * np.array([width, height, width, height], np.float32)
        boxes, labels, best = _join(ArrayDetections(boxes, labels, best), clustering, across_classes)
        order = np.argsort(-_areas(boxes), kind="stable")
        return ArrayDetections(_cut(boxes[order], width, height), labels[order], best[order])


def _best_classes(scores: np.ndarray, threshold: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pick the priors with a class that reaches the threshold: their indices, best labels and scores, each (N,).

    Of equal scores the first class wins.
    """
    passing = np.where(scores[:, 1:] >= np.float32(threshold), scores[:, 1:], np.float32(LOWEST_SCORE))
    labels = passing.argmax(axis=1)
    best = passing[np.arange(len(scores)), labels]
    priors = np.flatnonzero(best > np.float32(LOWEST_SCORE))
    return priors, labels[priors].astype(np.int64) + 1, best[priors]


def _areas(boxes: np.ndarray) -> np.ndarray:
    """Areas (N,) of boxes (N, 4)."""
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def _join(found: ArrayDetections, clustering: float, across_classes: bool) -> ArrayDetections:
    """Join boxes that overlap; see `postprocess` for the rules.

    A loop, as what a box overlaps depends on what those before it were joined with.
    """
    # One coordinate of all boxes after the other: the comparisons run over contiguous memory.
    sides = np.empty((4, len(found.labels)), np.float32)
    areas, labels, scores = np.empty_like(sides[0]), np.empty_like(found.labels), np.empty_like(found.scores)
    limit, nothing = np.float32(clustering), np.float32(0)
    count = 0
    for box, area, label, score in zip(found.boxes, _areas(found.boxes), found.labels, found.scores, strict=True):
        near, far = box[:2], box[2:]
        extents = np.minimum(sides[2:, :count], far[:, None]) - np.maximum(sides[:2, :count], near[:, None])
        width, height = np.maximum(extents, nothing, out=extents)
        joins = width * height / np.maximum(areas[:count], area) > limit
        if not across_classes:
            joins &= labels[:count] == label
        partners = np.flatnonzero(joins)
        at = partners[0] if len(partners) else count
        if at == count:
            count += 1
        elif labels[at] == label:
            near, far = np.minimum(sides[:2, at], near), np.maximum(sides[2:, at], far)
            area, score = np.prod(far - near), max(scores[at], score)
        elif score <= scores[at]:
            continue
        sides[:2, at], sides[2:, at] = near, far
        areas[at], labels[at], scores[at] = area, label, score
    return ArrayDetections(sides[:, :count].T, labels[:count], scores[:count])


def _cut(boxes: np.ndarray, width: int, height: int) -> np.ndarray:
    """Cut boxes (N, 4) in pixels to an image; a side that reaches the far edge comes to lie a pixel before it."""
    left, top, right, bottom = boxes.T
    limit_x, limit_y = np.float32(width), np.float32(height)
    return np.stack(
        [
            np.where(left < 0, np.float32(0), left),
            np.where(top < 0, np.float32(0), top),
            np.where(right >= limit_x, limit_x - np.float32(1), right),
            np.where(bottom >= limit_y, limit_y - np.float32(1), bottom),
        ],
        axis=1,
    )

"""Priors fitted to the boxes of a dataset.

Sides are clustered by overlap (YOLO9000, arXiv 1612.08242, section 2, "dimension clusters"), and each cluster goes to
the feature map whose cells suit it. Nothing is drawn at random: the same boxes give the same priors.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vision.boxes.priors import CellPrior, FreePriorLevel, Level, as_width_height

#: Boxes with a shorter side, in pixels of the network's input, are left out: no cell sees enough of them.
MIN_SIDE = 8.0

#: Clusters are added until boxes overlap theirs by this IoU on average, or there are this many.
MIN_IOU = 0.8
MAX_CLUSTERS = 8

#: A cluster stands for at least this many boxes, so that a single odd one does not get priors of its own.
MIN_BOXES = 5

#: Boxes that are clustered: more, of all sizes evenly, change nothing but the time.
MAX_BOXES = 4000

#: A cluster goes to the coarsest map of the backbone on which its longer side has this many cells.
CELLS_ALONG = 3.0

#: Along a side of fewer cells than this, two priors half a cell apart stand for one, so that an object between two
#: cells is overlapped enough by either.
CELLS_FOR_ONE = 2.0

#: A general-purpose prior does not stay beside a fitted one in the middle of the cell that overlaps it by so much.
SAME_OVERLAP = 0.8

_ITERATIONS = 50

#: Boxes among which clusters may start; how far apart (1 - IoU) boxes are that are the same but for rounding.
_CANDIDATES, _ALIKE = 300, 1e-6


def shape_iou(sides: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Overlaps (N, K) of boxes of sides (N, 2) with boxes of sides (K, 2) around the same center."""
    both = np.minimum(sides[:, None], others[None]).prod(axis=2)
    return both / (sides.prod(axis=1)[:, None] + others.prod(axis=1)[None] - both)


def fair_weights(sides: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Weights (N,) of boxes, with which rare classes and sizes count for more than their number.

    A class of n boxes weighs as much as sqrt(n), and of boxes whose area is alike (within a factor of two) n weigh as
    n^(3/4).

    Args:
        sides: (N, 2) in pixels.
        labels: (N,).
    """
    weights = np.ones(len(sides))
    for values, power in ((labels, 0.5), (np.floor(np.log2(sides.prod(axis=1)) / 2), 0.25)):
        _, kind, counts = np.unique(values, return_inverse=True, return_counts=True)
        weights *= counts[kind.ravel()] ** -power
    return weights / weights.sum()


def cluster_sides(sides: np.ndarray, weights: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Find the sides that boxes gather around: k-means with 1 - IoU for a distance.

    Starts from those boxes, one after the other, that bring all boxes nearest to one of them.

    Args:
        sides: (N, 2) in pixels, N at least 1.
        weights: (N,).
        count: of clusters; fewer are found where boxes are alike.

    Returns:
        the clusters' sides (K, 2), and the cluster of each box (N,).
    """
    candidates = _evenly(sides, _CANDIDATES)
    distances = 1 - shape_iou(sides, sides[candidates])
    nearest = np.ones(len(sides))
    chosen: list[int] = []
    while len(chosen) < count and nearest.max() > _ALIKE:
        best = (weights @ np.minimum(nearest[:, None], distances)).argmin()
        chosen.append(candidates[best])
        nearest = np.minimum(nearest, distances[:, best])
    centers = sides[chosen]
    for _ in range(_ITERATIONS):
        previous, owners = centers, shape_iou(sides, centers).argmax(axis=1)
        of_cluster = [owners == index for index in np.unique(owners)]
        # Sides differ by factors, so their mean is the geometric one.
        centers = np.exp([np.average(np.log(sides[own]), axis=0, weights=weights[own]) for own in of_cluster])
        if len(centers) == len(previous) and np.allclose(centers, previous):
            break
    return centers, shape_iou(sides, centers).argmax(axis=1)


def _evenly(sides: np.ndarray, most: int) -> np.ndarray:
    """Indices of a limited number of boxes of sides (N, 2), evenly over their areas."""
    by_area = np.argsort(sides.prod(axis=1), kind="stable")
    return by_area[np.linspace(0, len(sides) - 1, min(most, len(sides))).astype(int)]


def fit_sides(sides: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Choose how many clusters boxes need; returns their sides (K, 2), from small to large, K 0 without boxes.

    Args:
        sides: (N, 2) in pixels at the network's size.
        labels: (N,).
    """
    sides = np.asarray(sides, np.float64)
    seen = sides.min(axis=1, initial=np.inf) >= MIN_SIDE
    sides, labels = sides[seen], labels[seen]
    if not len(sides):
        return np.zeros((0, 2))
    chosen = _evenly(sides, MAX_BOXES)
    sides, labels = sides[chosen], labels[chosen]
    weights = fair_weights(sides, labels)
    best, _ = cluster_sides(sides, weights, 1)
    for count in range(2, MAX_CLUSTERS + 1):
        if np.average(shape_iou(sides, best).max(axis=1), weights=weights) >= MIN_IOU:
            break
        centers, owners = cluster_sides(sides, weights, count)
        if len(centers) <= len(best) or np.bincount(owners, minlength=len(centers)).min() < MIN_BOXES:
            break
        best = centers
    return best[np.argsort(best.prod(axis=1), kind="stable")]


def fit_priors(
    sides: np.ndarray, labels: np.ndarray, levels: Sequence[Level], trained_levels: int
) -> tuple[Level, ...]:
    """Fit the priors of a net's levels to boxes; levels that no box calls for stay as they are.

    Args:
        sides: (N, 2) widths and heights of the boxes in pixels at the network's size.
        labels: (N,) their classes.
        levels: of the net, with general-purpose priors, from fine to coarse.
        trained_levels: number of levels that are maps of the backbone. Fitted priors go to them, because they have seen
            images before. The extra maps have not.
    """
    steps = [as_width_height(level.shrinkage) for level in levels[:trained_levels]]
    fitted: list[list[CellPrior]] = [[] for _ in levels]
    for width, height in fit_sides(sides, labels):
        cells = [max(width / step_x, height / step_y) for step_x, step_y in steps]
        index = max((i for i, along in enumerate(cells) if along >= CELLS_ALONG), default=0)
        step_x, step_y = steps[index]
        fitted[index] += [
            CellPrior(round(float(width), 2), round(float(height), 2), offset_x, offset_y)
            for offset_y in _offsets(height / step_y)
            for offset_x in _offsets(width / step_x)
        ]
    return tuple(
        _beside_general(level, priors) if priors else level for level, priors in zip(levels, fitted, strict=True)
    )


def _offsets(cells: float) -> tuple[float, ...]:
    return (0.0,) if cells >= CELLS_FOR_ONE else (-0.25, 0.25)


def _beside_general(level: Level, fitted: list[CellPrior]) -> FreePriorLevel:
    """Add fitted priors to a level's, which stay for objects unlike those of the dataset."""
    general = level.cell_priors
    centered = [prior[:2] for prior in fitted if prior.offset_x == prior.offset_y == 0] or [(0.0, 0.0)]
    overlaps = shape_iou(np.array(general)[:, :2], np.array(centered)).max(axis=1)
    kept = [prior for prior, overlap in zip(general, overlaps, strict=True) if overlap < SAME_OVERLAP]
    return FreePriorLevel(level.feature_map_size, level.shrinkage, (*fitted, *kept))

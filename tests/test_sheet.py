"""The sheet of detections: which images it shows, where, and how large."""

import cv2
import numpy as np
import pytest
import torch

from vision.report.drawing import color_of
from vision.report.sheet import MAX_CELLS, SHEET_COLUMNS, THUMBNAIL, Sheet
from vision.structures import Detections

NAMES = ["BACKGROUND", "ball"]
NOTHING = Detections(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), torch.zeros(0))


def sheet_of(count: int) -> np.ndarray:
    """A sheet to which gray images were added, the n-th as bright as n modulo 256."""
    sheet = Sheet(NAMES)
    for number in range(count):
        sheet.add(np.full((6, 6, 3), number % 256, np.uint8), NOTHING)
    return sheet.image()


def centers(image: np.ndarray) -> list[int]:
    """Brightness in the middle of each cell, row by row."""
    return image[THUMBNAIL // 2 :: THUMBNAIL, THUMBNAIL // 2 :: THUMBNAIL, 0].flatten().tolist()


@pytest.mark.parametrize(
    ("count", "rows", "columns"), [(0, 1, 1), (1, 1, 1), (3, 1, 3), (4, 1, 4), (5, 2, 4), (16, 4, 4)]
)
def test_fewer_images_than_cells_make_a_smaller_sheet(count, rows, columns):
    image = sheet_of(count)
    assert image.shape == (rows * THUMBNAIL, columns * THUMBNAIL, 3)
    assert centers(image) == [*range(count), *[255] * (rows * columns - count)]


@pytest.mark.parametrize("count", [17, 32, 33, 34, 65, 100, 250])
def test_of_many_images_some_are_shown_evenly_spread(count):
    shown = centers(sheet_of(count))
    assert len(shown) == MAX_CELLS == 4 * SHEET_COLUMNS
    assert shown[0] == 0
    gaps = np.diff([*shown, count])
    assert (gaps > 0).all()
    assert gaps.max() <= 2.1 * count / MAX_CELLS + 1


def test_images_of_any_size_fill_their_cells_and_boxes_follow():
    sheet = Sheet(NAMES)
    for height, width in ((40, 40), (800, 1600), (1600, 800), (1, 3000)):
        # The box is the lower right quarter of the middle, whatever the size.
        box = torch.tensor([[0.5 * width, 0.5 * height, 0.75 * width, 0.75 * height]])
        image = np.zeros((height, width, 3), np.uint8)
        sheet.add(image, Detections(box, torch.tensor([1]), torch.tensor([0.9])))
        assert not image.any()
    square, wide, high, line = np.hsplit(sheet.image(), 4)
    inside = [np.argwhere((cell != 255).any(axis=2)) for cell in (square, wide, high, line)]
    height_width = [tuple(np.ptp(places, axis=0) + 1) for places in inside]
    side = height_width[0][0]
    assert 0.95 * THUMBNAIL < side < THUMBNAIL
    assert height_width == [(side, side), (side // 2, side), (side, side // 2), (1, side)]
    for cell, (height, width) in zip((square, wide, high), height_width[:3], strict=True):
        colored = np.argwhere((cell == color_of(1)).all(axis=2)) - (THUMBNAIL - np.array([height, width])) // 2
        bottom_edge = colored[colored[:, 0] == colored[:, 0].max()]  # above the box the caption may be wider
        assert bottom_edge.max(axis=0) == pytest.approx((0.75 * height, 0.75 * width), abs=2)


def test_the_file_is_the_image_in_rgb(tmp_path):
    sheet = Sheet(NAMES)
    sheet.add(np.full((10, 10, 3), (200, 100, 0), np.uint8), NOTHING)
    sheet.write(tmp_path / "sheet.png")
    written = cv2.cvtColor(cv2.imread(str(tmp_path / "sheet.png")), cv2.COLOR_BGR2RGB)
    assert (written == sheet.image()).all()
    assert tuple(written[THUMBNAIL // 2, THUMBNAIL // 2]) == (200, 100, 0)

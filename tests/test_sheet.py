"""Sheets of images: which images they show, where, how large, and what stands above and below them."""

import cv2
import numpy as np
import pytest
import torch

from vision.report.drawing import Marks, color_of, fitted_lettering
from vision.report.sheet import MAX_CELLS, SHEET_WIDTH, Cell, Sheet, contact_sheet, spread, with_all_classes
from vision.structures import Detections

NAMES = ["BACKGROUND", "ball", "cone", "star"]
NO_MARKS = Marks(np.zeros((0, 4)), [], [])


def detections(*labels: int) -> Detections:
    boxes = torch.tensor([[1.0, 1.0, 3.0, 3.0]] * len(labels)).reshape(-1, 4)
    return Detections(boxes, torch.tensor(labels, dtype=torch.int64), torch.full((len(labels),), 0.9))


def shown_by(monkeypatch, sheet: Sheet) -> list[str]:
    """Names of the images that a sheet shows."""
    laid_out = []
    monkeypatch.setattr("vision.report.sheet.contact_sheet", lambda cells, *_: laid_out.extend(cells))
    sheet.image()
    return [cell.name for cell in laid_out]


def white_share(sheet: np.ndarray) -> float:
    return float((sheet == 255).all(axis=2).mean())


@pytest.mark.parametrize("count", [1, 3, 16, 17, 33, 100, 250])
def test_of_many_images_some_are_shown_evenly_spread(monkeypatch, count):
    sheet = Sheet(NAMES, 0.5)
    for number in range(count):
        sheet.add(np.zeros((6, 6, 3), np.uint8), detections(), f"in/{number}.jpg")
    shown = [int(name.removesuffix(".jpg")) for name in shown_by(monkeypatch, sheet)]
    assert len(shown) == min(count, MAX_CELLS)
    assert shown[0] == 0
    gaps = np.diff([*shown, count])
    assert (gaps > 0).all()
    assert gaps.max() <= 2.1 * count / MAX_CELLS + 1


def test_a_class_that_is_found_once_is_on_the_sheet(monkeypatch):
    sheet = Sheet(NAMES, 0.5)
    for number in range(100):
        sheet.add(np.zeros((6, 6, 3), np.uint8), detections(*{37: [1, 2], 38: [3]}.get(number, [1])), f"{number}.jpg")
    shown = shown_by(monkeypatch, sheet)
    assert {"37.jpg", "38.jpg"} <= set(shown)
    assert len(shown) == MAX_CELLS
    assert shown == sorted(shown, key=lambda name: int(name.removesuffix(".jpg")))


def test_chosen_images_give_way_to_those_with_missing_classes_where_no_class_is_lost():
    assert spread(10, 4) == [0, 3, 6, 9]
    assert spread(2, 4) == [0, 1]
    assert spread(0, 4) == []
    labels = {number: {1} for number in range(10)} | {4: {2}, 5: {2, 3}}
    assert with_all_classes([0, 3, 6, 9], labels) == [0, 3, 5, 9], "the one with most of them, for the nearest"
    labels |= {0: {4}, 3: {5}, 6: {6}, 9: {7}}
    assert with_all_classes([0, 3, 6, 9], labels) == [0, 3, 6, 9], "there is no room"


@pytest.mark.parametrize("size", [(480, 640), (360, 640), (640, 480), (300, 300)], ids=["4:3", "16:9", "3:4", "1:1"])
def test_images_of_any_usual_shape_leave_no_white_bands(size):
    cells = [Cell.of(np.zeros((*size, 3), np.uint8), NO_MARKS, "") for _ in range(16)]
    sheet = contact_sheet(cells)
    assert abs(sheet.shape[1] - SHEET_WIDTH) < 10
    assert white_share(sheet) < 0.2


def test_images_of_mixed_shapes_fill_rows_and_keep_their_shapes():
    sizes = [(480, 640), (640, 480), (360, 640), (300, 300)] * 3
    cells = [Cell.of(np.full((*size, 3), 5 * n, np.uint8), NO_MARKS, "") for n, size in enumerate(sizes)]
    sheet = contact_sheet(cells)
    assert white_share(sheet) < 0.2
    for number, (height, width) in enumerate(sizes):
        rows, columns = np.nonzero((sheet == 5 * number).all(axis=2))
        assert np.ptp(columns) / np.ptp(rows) == pytest.approx(width / height, rel=0.02)


def test_boxes_follow_their_images():
    for height, width in ((40, 40), (800, 1600), (1600, 800), (100, 3000)):
        box = np.array([[0.5 * width, 0.5 * height, 0.75 * width, 0.75 * height]])
        cell = Cell.of(np.zeros((height, width, 3), np.uint8), Marks(box, [color_of(1)], [""]), "")
        sheet = contact_sheet([cell])
        rows, columns = np.nonzero((sheet != 255).any(axis=2))
        top, left, high, wide = rows.min(), columns.min(), np.ptp(rows), np.ptp(columns)
        assert wide / high == pytest.approx(width / height, rel=0.2 if width == 3000 else 0.02)
        rows, columns = np.nonzero((sheet == color_of(1)).all(axis=2))
        assert (rows.min() - top, rows.max() - top) == pytest.approx((0.5 * high, 0.75 * high), abs=2)
        assert (columns.min() - left, columns.max() - left) == pytest.approx((0.5 * wide, 0.75 * wide), abs=2)


def test_names_stand_below_images_and_the_legend_above():
    def rows_with_ink(name="", texts=(), key=None) -> np.ndarray:
        sheet = contact_sheet([Cell.of(np.full((300, 400, 3), 255, np.uint8), NO_MARKS, name)], texts, key or {})
        return np.flatnonzero((sheet < 100).any(axis=(1, 2)))

    assert not len(rows_with_ink())
    assert rows_with_ink(name="photo.jpg").min() > 260
    assert rows_with_ink(texts=["threshold 0.35"]).max() < 30
    assert rows_with_ink(texts=["threshold 0.35"] * 12).max() > 30, "in another line, rather than cut off"
    sheet = contact_sheet([], key={"hit": (1, 2, 3), "missed": (4, 5, 6)})
    for color in ((1, 2, 3), (4, 5, 6)):
        assert (sheet == color).all(axis=2).sum() > 100


def test_long_names_are_cut_in_the_middle():
    whole = fitted_lettering("short.jpg", 300)
    assert whole._caption == "short.jpg"
    cut = fitted_lettering("frame_of_a_rather_long_recording_2026-01-31_000123.jpg", 150)
    assert 120 < cut.size[0] <= 150
    assert cut._caption.startswith("frame_of")
    assert cut._caption.endswith("123.jpg")
    assert "..." in cut._caption


def test_the_file_is_the_image_in_rgb(tmp_path):
    sheet = Sheet(NAMES, 0.5)
    sheet.add(np.full((10, 10, 3), (200, 100, 0), np.uint8), detections())
    sheet.write(tmp_path / "sheet.png")
    written = cv2.cvtColor(cv2.imread(str(tmp_path / "sheet.png")), cv2.COLOR_BGR2RGB)
    assert (written == sheet.image()).all()
    assert tuple(written[len(written) // 2, 100]) == (200, 100, 0)

"""Captions on images: readable ink, beside what they name, and dashes for what is left out."""

import numpy as np
import pytest

from vision.report.drawing import BLACK, WHITE, color_of, contrast, draw_boxes, ink_on


@pytest.mark.parametrize(
    ("color", "ink", "ratio"),
    [
        ((0, 255, 0), BLACK, 15.3),  # bright green, of which the sum of channels is small
        ((138, 43, 226), WHITE, 5.98),  # violet, of which it is large
        ((255, 38, 255), BLACK, 6.9),
        ((0, 0, 255), WHITE, 8.59),
        ((255, 255, 0), BLACK, 19.6),
    ],
)
def test_ink_is_the_one_of_more_contrast(color, ink, ratio):
    assert ink_on(color) == ink
    assert contrast(color, ink) == pytest.approx(ratio, abs=0.1)
    assert contrast(color, ink) == max(contrast(color, BLACK), contrast(color, WHITE))


def test_captions_of_every_class_can_be_read():
    """WCAG's AA asks for 4.5 : 1."""
    assert min(contrast(color_of(label), ink_on(color_of(label))) for label in range(1, 200)) >= 4.5


def caption_area(boxes, captions, number, size=(200, 300)) -> np.ndarray:
    """Where the caption of a box lies: what changes with it."""
    colors = [(255, 255, 0)] * len(boxes)
    image = np.full((*size, 3), 7, np.uint8)
    without = [caption if place != number else "" for place, caption in enumerate(captions)]
    changed = draw_boxes(image, np.float32(boxes), colors, captions) != draw_boxes(
        image, np.float32(boxes), colors, without
    )
    rows, columns = np.nonzero(changed.any(axis=2))
    return np.array([columns.min(), rows.min(), columns.max(), rows.max()])


def shared(area, box) -> int:
    sides = np.minimum(area[2:], box[2:]) - np.maximum(area[:2], box[:2])
    return int(np.clip(sides - 1, 0, None).prod())


@pytest.mark.parametrize(
    "box", [[100, 80, 200, 150], [100, 0, 200, 150], [0, 0, 100, 199], [200, 0, 299, 199], [0, 0, 299, 150]]
)
def test_a_caption_lies_beside_its_box_where_there_is_room(box):
    assert shared(caption_area([box], ["ball 0.93"], 0), np.array(box)) == 0


def test_a_caption_lies_within_a_box_that_leaves_no_room():
    area = caption_area([[0, 0, 299, 199]], ["ball 0.93"], 0)
    assert (area >= 0).all()
    assert area[2] - area[0] > 40


def test_captions_keep_clear_of_each_other():
    boxes = [[100, 80, 200, 150], [102, 82, 202, 152], [98, 78, 198, 148]]
    areas = [caption_area(boxes, ["ball 0.9", "cone 0.8", "star 0.7"], number) for number in range(3)]
    assert [shared(areas[a], areas[b]) for a, b in ((0, 1), (0, 2), (1, 2))] == [0, 0, 0]


def test_a_box_with_dashes_has_gaps():
    def side(dashed) -> np.ndarray:
        drawn = draw_boxes(np.zeros((60, 60, 3), np.uint8), np.float32([[5, 5, 50, 50]]), [(255, 0, 0)], [""], [dashed])
        return drawn[5, 5:50, 0] > 0

    assert side(False).all()
    assert 0.4 < side(True).mean() < 0.9

"""detectNet's arithmetic: against its compiled code's answers, against slow loops, and known answers."""

import subprocess
import sys

import numpy as np
import pytest
from conftest import GOLDEN, ROOT

from vision.deploy.detectnet import postprocess, preprocess

DETECTNET = np.load(GOLDEN / "detectnet.npz")
CASES = sorted({key.split("/")[0] for key in DETECTNET.files}, key=int)
WIDTH, HEIGHT = 200, 100


def golden_case(case: str):
    scores, boxes, params, expected = (
        DETECTNET[f"{case}/{key}"] for key in ("scores", "boxes", "params", "detections")
    )
    width, height, threshold, clustering = params.tolist()
    return (scores, boxes, (int(width), int(height))), {"threshold": threshold, "clustering": clustering}, expected


def as_rows(found) -> np.ndarray:
    """Detections as rows (N, 6): class, confidence, left, top, right, bottom."""
    assert (found.boxes.dtype, found.labels.dtype, found.scores.dtype) == (np.float32, np.int64, np.float32)
    return np.column_stack([found.labels.astype(np.float32), found.scores, found.boxes])


def assert_same_bits(actual: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_array_equal(actual, expected)
    assert (actual.dtype, actual.shape, actual.tobytes()) == (expected.dtype, expected.shape, expected.tobytes())


@pytest.mark.parametrize("case", CASES)
def test_golden(case):
    given, options, expected = golden_case(case)
    assert_same_bits(as_rows(postprocess(*given, **options)), expected)


def test_the_golden_cases_tell_the_two_rules_for_other_classes_apart():
    differing = 0
    for case in CASES:
        given, options, expected = golden_case(case)
        differing += not np.array_equal(as_rows(postprocess(*given, **options, across_classes=True)), expected)
    assert differing > len(CASES) // 2


# The rules once more, one number at a time


def slow_area(box) -> np.float32:
    return (box[2] - box[0]) * (box[3] - box[1])


def slow_overlaps(one, other, clustering: np.float32) -> bool:
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    larger = max(slow_area(one), slow_area(other))
    if width <= 0 or height <= 0 or larger == 0:
        return False
    return bool(width * height / larger > clustering)


def slow_postprocess(
    scores, boxes, image_size, threshold, clustering, class_names, across_classes, events
) -> np.ndarray:
    threshold, clustering, zero, one = (np.float32(value) for value in (threshold, clustering, 0, 1))
    width, height = (np.float32(side) for side in image_size)
    kept: list[list] = []  # of [class, confidence, [left, top, right, bottom]]
    for row, (x1, y1, x2, y2) in zip(scores, boxes, strict=True):
        best, label = np.float32(-1000), 0
        for other in range(1, len(row)):
            if not row[other] >= threshold:
                continue
            if row[other] > best:
                best, label = row[other], other
        if label == 0:
            continue
        if label < len(class_names) and class_names[label] == "void":
            events.add("void")
            continue
        box = [x1 * width, y1 * height, x2 * width, y2 * height]
        for entry in kept:
            if not slow_overlaps(box, entry[2], clustering):
                continue
            if entry[0] == label:
                events.add("joined")
                joint = entry[2]
                entry[2] = [min(joint[0], box[0]), min(joint[1], box[1]), max(joint[2], box[2]), max(joint[3], box[3])]
                entry[1] = max(entry[1], best)
                break
            if across_classes:
                events.add("replaced" if best > entry[1] else "outdone")
                if best > entry[1]:
                    entry[:] = [label, best, box]
                break
        else:
            kept.append([label, best, box])
    for end in range(len(kept) - 1, 0, -1):
        for index in range(end):
            if slow_area(kept[index][2]) < slow_area(kept[index + 1][2]):
                kept[index], kept[index + 1] = kept[index + 1], kept[index]
                events.add("sorted")
    rows = np.empty((len(kept), 6), np.float32)
    for row, (label, best, (left, top, right, bottom)) in zip(rows, kept, strict=True):
        left = zero if left < 0 else left
        top = zero if top < 0 else top
        right = width - one if right >= width else right
        bottom = height - one if bottom >= height else bottom
        row[:] = label, best, left, top, right, bottom
    return rows


def random_case(rng: np.random.Generator):
    """Scores and boxes, in half of the cases on a coarse grid, where scores, areas and overlaps are often equal."""
    priors, classes = int(rng.integers(0, 28)), int(rng.integers(2, 6))
    scores = rng.uniform(0, 1, (priors, classes))
    near = rng.uniform(-0.1, 0.6, (priors, 2))
    sides = rng.uniform(0, 0.5, (priors, 2))
    if rng.random() < 0.5:
        scores = np.round(scores * 4) / 4
        near, sides = np.round(near * 8) / 8, np.round(sides * 8) / 8
    sides[rng.random((priors, 2)) < 0.05] = 0
    scores[rng.random(scores.shape) < 0.1] = np.nan
    boxes = np.concatenate([near, near + sides], axis=1)
    again = rng.random(priors) < 0.4  # the same as one before, or nearly
    boxes[again] = boxes[rng.integers(0, max(priors, 1), again.sum())] + rng.choice([0, 0.01]) * rng.normal(size=4)
    boxes[:, 2:] = np.maximum(boxes[:, :2], boxes[:, 2:])
    boxes += 0.0  # turns -0 into 0: which of the two is the smaller one is nobody's rule
    return scores.astype(np.float32), boxes.astype(np.float32), tuple(int(side) for side in rng.integers(1, 900, 2))


@pytest.mark.parametrize("across_classes", [False, True])
@pytest.mark.parametrize("clustering", [0.0, 0.3, 0.75])
def test_random_cases_are_what_the_loops_give(clustering, across_classes):
    rng, events, names = np.random.default_rng(5), set(), ("BACKGROUND", "ball", "void", "cone")
    for number in range(60):
        given = random_case(rng)
        threshold, class_names = float(rng.choice([0.2, 0.5])), names if number % 3 else ()
        expected = slow_postprocess(*given, threshold, clustering, class_names, across_classes, events)
        options = {"threshold": threshold, "clustering": clustering, "across_classes": across_classes}
        found = postprocess(*given, **options, class_names=class_names or None)
        assert_same_bits(as_rows(found), expected)
    assert events == {"void", "joined", "sorted"} | ({"replaced", "outdone"} if across_classes else set())


# Known answers


def found_in(rows, **options) -> list[list[float]]:
    """What becomes of boxes given as (class, score, left, top, right, bottom) in pixels of an image of 200 x 100."""
    scores = np.zeros((len(rows), 4), np.float32)
    boxes = np.zeros((len(rows), 4), np.float32)
    for index, (label, score, *corners) in enumerate(rows):
        scores[index, label] = score
        boxes[index] = np.float32(corners) / np.float32([WIDTH, HEIGHT, WIDTH, HEIGHT])
    return np.round(as_rows(postprocess(scores, boxes, (WIDTH, HEIGHT), **options)), 3).tolist()


def winner(*scores: float, **options) -> list[int]:
    box = np.float32([[0, 0, 0.5, 0.5]])
    return postprocess(np.float32([scores]), box, (WIDTH, HEIGHT), **options).labels.tolist()


@pytest.mark.parametrize("across_classes", [False, True])
@pytest.mark.parametrize("priors", [0, 3])
def test_nothing_found(priors, across_classes):
    scores, boxes = np.zeros((priors, 3), np.float32), np.zeros((priors, 4), np.float32)
    assert as_rows(postprocess(scores, boxes, (WIDTH, HEIGHT), across_classes=across_classes)).shape == (0, 6)


def test_a_score_counts_from_the_threshold_on():
    assert winner(0, 0.5) == [1]
    assert winner(0, np.nextafter(np.float32(0.5), np.float32(0))) == []
    assert winner(0, np.float32(0.7), threshold=0.7) == [1], "0.7 in float32 is below 0.7"


def test_of_equal_scores_the_first_class_wins_and_nan_never():
    assert winner(0, 0.6, 0.6) == [1]
    assert winner(0, np.nan, 0.6, 0.7, np.nan) == [3]
    assert winner(0, np.nan, np.nan) == []
    assert winner(0.9, 0.6) == [1], "the background does not take part"


def test_a_void_prior_does_not_fall_back_on_its_second_class():
    assert winner(0, 0.6, 0.7, class_names=("BACKGROUND", "ball", "void")) == []
    assert winner(0, 0.8, 0.7, class_names=("BACKGROUND", "ball", "void")) == [1]
    assert winner(0, 0.6, 0.7) == [2]
    assert winner(0, 0.6, 0.7, class_names=("BACKGROUND", "void")) == [2], "a class without a name stays"
    assert winner(0, 0.8, 0.7, class_names=("BACKGROUND", "void")) == []


def test_boxes_of_a_class_are_joined_by_their_union_and_higher_score():
    rows = [(1, 0.75, 10, 10, 50, 50), (1, 0.875, 12, 10, 52, 50)]
    assert found_in(rows) == found_in(rows[::-1]) == [[1, 0.875, 10, 10, 52, 50]]


def test_an_overlap_at_the_limit_joins_nothing():
    """Half of the larger box, which no rounding disturbs; as IoU it would be 0.5, too, but 0.33 for the second pair."""
    contained = [(1, 0.75, 0, 0, 100, 50), (1, 0.75, 0, 0, 50, 50)]
    shifted = [(1, 0.75, 0, 0, 100, 50), (1, 0.75, 50, 0, 150, 50)]
    for rows in (contained, shifted):
        assert len(found_in(rows, clustering=0.5)) == 2
        assert len(found_in(rows, clustering=0.4375)) == 1


def test_boxes_that_touch_and_empty_boxes_join_nothing():
    touching = [(1, 0.75, 0, 0, 50, 50), (1, 0.75, 50, 0, 100, 50)]
    empty = [(1, 0.75, 20, 20, 20, 40), (1, 0.75, 20, 20, 20, 40), (1, 0.75, 0, 0, 50, 50)]
    assert len(found_in(touching, clustering=0.0)) == 2
    assert len(found_in(empty, clustering=0.0)) == 3


def test_a_box_joins_the_first_that_it_overlaps():
    """The third overlaps both; the union then covers the second, but those that were kept are not compared again."""
    rows = [(1, 0.75, 0, 0, 40, 50), (1, 0.75, 30, 0, 80, 50), (1, 0.75, 20, 0, 60, 50)]
    assert found_in(rows, clustering=0.4) == [[1, 0.75, 0, 0, 60, 50], [1, 0.75, 30, 0, 80, 50]]


def test_classes_meet_only_across_classes():
    rows = [(1, 0.75, 10, 10, 50, 50), (2, 0.875, 10, 10, 50, 49), (3, 0.625, 10, 10, 50, 48)]
    assert found_in(rows) == [[label, score, *corners] for label, score, *corners in rows]
    assert found_in(rows, across_classes=True) == [[2, 0.875, 10, 10, 50, 49]]
    assert found_in(rows[::-1], across_classes=True) == [[2, 0.875, 10, 10, 50, 49]]
    equal = [(2, 0.75, 10, 10, 50, 49), (1, 0.75, 10, 10, 50, 50)]
    assert found_in(equal, across_classes=True) == [[2, 0.75, 10, 10, 50, 49]], "of equal scores the first stays"


def test_another_class_in_between_hides_a_partner_across_classes_only():
    rows = [
        (1, 0.75, 10, 10, 50, 50),
        (2, 0.75, 80, 10, 120, 50),
        (2, 0.625, 10, 10, 50, 50),
        (2, 0.5, 82, 10, 122, 50),
    ]
    assert found_in(rows, across_classes=True) == [[2, 0.75, 80, 10, 122, 50], [1, 0.75, 10, 10, 50, 50]]
    assert [row[0] for row in found_in(rows)] == [2, 1, 2]


def test_the_largest_comes_first_and_of_equal_ones_the_first():
    rows = [(1, 0.5, 0, 0, 10, 10), (2, 0.75, 20, 0, 40, 10), (3, 0.625, 60, 0, 80, 10), (1, 0.875, 0, 50, 50, 90)]
    assert [row[:2] for row in found_in(rows)] == [[1, 0.875], [2, 0.75], [3, 0.625], [1, 0.5]]


def test_boxes_are_sorted_before_they_are_cut():
    rows = [(1, 0.5, 0, 0, 90, 90), (2, 0.75, -300, -300, 10, 10)]
    assert found_in(rows) == [[2, 0.75, 0, 0, 10, 10], [1, 0.5, 0, 0, 90, 90]]


def test_cutting():
    assert found_in([(1, 0.5, -5, -5, WIDTH, HEIGHT)]) == [[1, 0.5, 0, 0, WIDTH - 1, HEIGHT - 1]]
    assert found_in([(1, 0.5, 0, 0, WIDTH - 0.5, HEIGHT - 0.5)]) == [[1, 0.5, 0, 0, WIDTH - 0.5, HEIGHT - 0.5]]
    # Boxes outside the image stay outside.
    assert found_in([(1, 0.5, 210, 110, 220, 120)]) == [[1, 0.5, 210, 110, WIDTH - 1, HEIGHT - 1]]
    assert found_in([(1, 0.5, -20, -20, -10, -10)]) == [[1, 0.5, 0, 0, -10, -10]]


def test_a_box_that_is_no_number_overlaps_nothing_and_comes_last():
    rows = [
        (1, 0.5, np.nan, 0, 50, 50),
        (1, 0.75, 0, 0, 50, 50),
        (1, 0.625, 0, 0, 50, 50),
        (1, 0.875, -np.inf, 0, np.inf, 50),
    ]
    assert [row[1] for row in found_in(rows)] == [0.875, 0.75, 0.5]


def test_inputs_are_not_written_to_and_may_have_another_precision():
    given, options, expected = golden_case("2")
    scores, boxes = given[0].copy(), given[1].copy()
    scores.flags.writeable = boxes.flags.writeable = False
    assert_same_bits(as_rows(postprocess(scores, boxes, given[2], **options)), expected)
    wide = as_rows(postprocess(scores.astype(np.float64), boxes.astype(np.float64), given[2], **options))
    assert_same_bits(wide, expected)


@pytest.mark.parametrize(
    ("scores", "boxes", "message"),
    [
        ((3, 1), (3, 4), r"scores: expected shape \(P, C\).*got \(3, 1\)"),
        ((1, 3, 2), (3, 4), r"scores: .*got \(1, 3, 2\)"),
        ((3, 2), (2, 4), r"boxes: expected shape \(3, 4\).*got \(2, 4\)"),
        ((3, 2), (3, 5), r"boxes: .*got \(3, 5\)"),
    ],
)
def test_shapes_that_do_not_fit(scores, boxes, message):
    with pytest.raises(ValueError, match=message):
        postprocess(np.zeros(scores), np.zeros(boxes), (WIDTH, HEIGHT))


# Pre-processing


def slow_preprocess(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    one, half, width, height = np.float32(1), np.float32(0.5), *(np.float32(side) for side in size)
    out = np.empty((1, 3, size[1], size[0]), np.float32)
    scale_x, scale_y = np.float32(image.shape[1]) / width, np.float32(image.shape[0]) / height
    for y in range(size[1]):
        for x in range(size[0]):
            pixel = image[int(np.float32(y) * scale_y), int(np.float32(x) * scale_x)]
            for channel in range(3):
                value = np.float32(pixel[channel]) * (one / np.float32(255)) + np.float32(0)
                out[0, channel, y, x] = (value - half) / half
    return out


@pytest.mark.parametrize("source", [(1, 1), (7, 31), (98, 9), (24, 40)])
@pytest.mark.parametrize("size", [(32, 24), (300, 11)])
def test_preprocessing_is_what_the_loops_give(source, size):
    width, height = source
    image = np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    assert_same_bits(preprocess(image, size), slow_preprocess(image, size))


def test_preprocessing_picks_pixels_by_float32():
    """One of the 300 columns that 98 pixels are stretched to shows another pixel than by exact arithmetic."""
    columns = np.arange(98, dtype=np.uint8)
    image = np.broadcast_to(columns[None, :, None], (1, 98, 3))
    picked = np.rint((preprocess(image, (300, 1))[0, 0, 0] + 1) * 127.5)
    exact = np.arange(300) * 98 // 300
    assert (picked != exact).sum() == 1


def test_black_is_minus_one_and_white_one():
    image = np.zeros((2, 2, 3), np.uint8)
    image[:, 1] = 255
    assert preprocess(image, (2, 1)).tolist() == [[[[-1, 1]]] * 3]


def test_channels_stay_in_order_and_images_may_be_views():
    image = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    out = preprocess(image[::-1, :, ::-1], (6, 4))
    assert out.flags.c_contiguous
    np.testing.assert_array_equal(np.rint((out[0] + 1) * 127.5), image[::-1, :, ::-1].transpose(2, 0, 1))


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        np.zeros((0, 4, 3), np.uint8),
    ],
)
def test_images_that_do_not_fit(image):
    with pytest.raises(ValueError, match="rgb_image: expected"):
        preprocess(image, (300, 300))


def test_it_leaves_torch_alone():
    code = "import sys, vision.deploy.detectnet; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("False\n", "")

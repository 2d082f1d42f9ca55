"""Augmentation: laws that hold for every draw, and each class by itself."""

import cv2
import numpy as np
import pytest
import torch

from vision.datasets.images import read_image, reductions_of
from vision.datasets.synthetic import write_image
from vision.ssd.data_preprocessing import PredictionTransform, Preprocess, TestTransform, TrainAugmentation, normalize
from vision.transforms import geometry
from vision.transforms import transforms as T
from vision.transforms.windows import Window
from vision.utils.pixels import channels_first

WIDTH, HEIGHT = 90, 60


def gradient_image(dtype=np.uint8) -> np.ndarray:
    rng = np.random.default_rng(5)
    coarse = rng.uniform(0, 255, (6, 9, 3)).astype(np.float32)
    return cv2.resize(coarse, (WIDTH, HEIGHT)).clip(0, 255).astype(dtype)


BOXES = np.float32([[10, 10, 40, 30], [50, 20, 88, 59]])
LABELS = np.int64([1, 2])

GEOMETRIC = [T.Expand((127, 127, 127)), T.RandomSampleCrop(), T.RandomMirror()]
PHOTOMETRIC = [T.RandomBrightness(), T.RandomContrast(), T.RandomLightingNoise(), T.PhotometricDistort()]
ON_HSV = [T.RandomSaturation(), T.RandomHue()]


@pytest.mark.parametrize("boxes", [BOXES, np.zeros((0, 4), np.float32)], ids=["objects", "none"])
@pytest.mark.parametrize("transform", GEOMETRIC, ids=lambda t: type(t).__name__)
def test_geometric_transforms_keep_boxes_inside(transform, boxes):
    labels = LABELS[: len(boxes)]
    changed = 0
    for seed in range(60):
        image = gradient_image()
        given = boxes.copy()
        out, moved, kept = transform(image, given, labels, rng=np.random.default_rng(seed))
        assert np.array_equal(given, boxes), "inputs are not written to"
        assert np.array_equal(image, gradient_image()), "inputs are not written to"
        assert out.dtype == np.uint8
        assert moved.shape == (len(kept), 4)
        height, width = out.shape[:2]
        assert (moved >= 0).all()
        assert (moved <= (width, height, width, height)).all()
        assert (moved[:, 2:] > moved[:, :2]).all()
        assert len(boxes) == 0 or len(kept) > 0
        changed += not np.array_equal(out, gradient_image())
    assert 5 < changed < 60


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("transform", PHOTOMETRIC + ON_HSV, ids=lambda t: type(t).__name__)
def test_photometric_transforms_change_pixels_only(transform, dtype):
    changed = 0
    for seed in range(30):
        image = gradient_image(dtype)
        source = (
            cv2.cvtColor(image / 255 if dtype == np.float32 else image, cv2.COLOR_RGB2HSV)
            if transform in ON_HSV
            else image
        )
        before = source.copy()
        out, boxes, labels = transform(source, BOXES, LABELS, rng=np.random.default_rng(seed))
        assert np.array_equal(source, before), "inputs are not written to"
        assert boxes is BOXES
        assert labels is LABELS
        assert out.shape == source.shape
        assert out.dtype == dtype
        changed += not np.array_equal(out, before)
    assert 5 < changed <= 30


def test_the_same_generator_gives_the_same_and_another_gives_another():
    augment = TrainAugmentation(64, 127, 128.0)
    one, other, third = (
        augment.resample(gradient_image(), BOXES, LABELS, np.random.default_rng(seed)) for seed in (3, 3, 4)
    )
    assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
    assert not np.array_equal(one[0], third[0])


def test_without_a_generator_numpys_global_seed_counts():
    mirror = T.RandomMirror()

    def draws() -> list[float]:
        np.random.seed(1)
        return [float(mirror(gradient_image(), BOXES, LABELS)[1][0, 0]) for _ in range(20)]

    assert draws() == draws()
    assert len(set(draws())) == 2


def crop_windows(boxes: np.ndarray, count: int = 400) -> list[Window]:
    crop = T.RandomSampleCrop()
    return [crop.plan((WIDTH, HEIGHT), boxes, np.random.default_rng(seed)) for seed in range(count)]


def test_crops_are_shaped_as_the_paper_says_and_hold_an_object():
    whole = 0
    for window in crop_windows(BOXES):
        width, height = window.size
        whole += window == Window(0, 0, WIDTH, HEIGHT)
        assert 0.3 * WIDTH - 1 <= width <= WIDTH
        assert 0.3 * HEIGHT - 1 <= height <= HEIGHT
        assert window.left >= 0
        assert window.bottom <= HEIGHT
        if window != Window(0, 0, WIDTH, HEIGHT):
            assert 0.45 < height / width < 2.1
            assert len(window.map_boxes(BOXES, LABELS)[1]) >= 1
    assert 400 / 7 * 0.6 < whole < 400 / 2


@pytest.mark.parametrize("mode", [0.3, 0.7])
def test_a_crop_is_overlapped_as_its_mode_asks(monkeypatch, mode):
    monkeypatch.setattr(geometry, "CROP_MODES", (mode,))
    cropped = [window for window in crop_windows(BOXES) if window.size != (WIDTH, HEIGHT)]
    assert cropped
    for window in cropped:
        assert T.jaccard_numpy(BOXES, np.float32(window[:4])).max() >= mode


def test_when_no_crop_is_good_the_image_stays_whole(monkeypatch):
    monkeypatch.setattr(geometry, "CROP_MODES", (0.9,))
    tiny = np.float32([[1, 1, 3, 3]])
    assert {window.size for window in crop_windows(tiny, 50)} == {(WIDTH, HEIGHT)}


def test_images_without_objects_are_cropped_freely(monkeypatch):
    monkeypatch.setattr(geometry, "CROP_MODES", (0.9,))
    assert all(window.size != (WIDTH, HEIGHT) for window in crop_windows(np.zeros((0, 4), np.float32), 50))


def test_composed_windows_are_the_windows_one_after_the_other():
    """Looking through windows in turn, or through their composition at once, moves boxes alike."""
    rng = np.random.default_rng(0)
    for _ in range(200):
        boxes, labels, window = BOXES, LABELS, Window(0, 0, WIDTH, HEIGHT)
        for transform in GEOMETRIC:
            step = transform.plan(window.size, boxes, rng)
            boxes, labels = step.map_boxes(boxes, labels)
            window = window.then(step)
        once, once_labels = window.map_boxes(BOXES, LABELS)
        kept = [label in labels for label in once_labels]
        np.testing.assert_allclose(once[kept], boxes, atol=1e-3)


def test_mirrored_windows_compose():
    mirrored = Window(0, 0, 10, 10, True).then(Window(1, 0, 4, 10))
    assert mirrored == Window(6, 0, 9, 10, True)
    assert mirrored.then(Window(0, 0, 3, 10, True)) == Window(6, 0, 9, 10, False)


def test_boxes_follow_the_pixels():
    """A white object on black is where its box says, whatever was done to the image."""
    image = np.zeros((200, 300, 3), np.uint8)
    box = np.float32([[120, 60, 190, 150]])
    image[60:150, 120:190] = 255
    augment = TrainAugmentation((160, 128), 0, 1)
    augment.photometry = None
    sizes = []
    for seed in range(100):
        out, relative, labels = augment.resample(image, box, np.int64([1]), np.random.default_rng(seed))
        assert out.shape == (128, 160, 3)
        assert labels.tolist() == [1]
        x1, y1, x2, y2 = relative[0] * (160, 128, 160, 128)
        columns, rows = np.flatnonzero(out.max(axis=(0, 2)) > 127), np.flatnonzero(out.max(axis=(1, 2)) > 127)
        assert np.abs([columns[0] - x1, columns[-1] + 1 - x2, rows[0] - y1, rows[-1] + 1 - y2]).max() < 2
        sizes.append(x2 - x1)
    assert max(sizes) > 3 * min(sizes)


def write_shape(path, size: tuple[int, int], box: tuple[int, int, int, int]) -> None:
    """Write a JPEG with a bright rectangle on darkness."""
    image = np.full((size[1], size[0], 3), 20, np.uint8)
    image[box[1] : box[3], box[0] : box[2]] = 220
    write_image(path, image)


@pytest.mark.parametrize(("kind", "expected"), [("ssd", {1, 2, 4, 8}), ("light", {1, 2, 4})])
def test_images_decoded_at_a_fraction_are_sharp_and_boxes_exact(tmp_path, kind, expected):
    size, box = (640, 480), np.float32([[250, 190, 391, 291]])
    path = tmp_path / "a.jpg"
    write_shape(path, size, box[0].astype(int).tolist())
    augment = TrainAugmentation((80, 48), 20, 1, kind)
    augment.photometry = None
    seen = set()
    for seed in range(80):
        rngs = [np.random.default_rng(seed) for _ in range(2)]
        plain = augment.plan(size, box, np.int64([1]), rngs[0])
        view = augment.plan(size, box, np.int64([1]), rngs[1], reductions_of(path, size))
        seen.add(view.reduction)
        assert plain.reduction == 1
        assert not any(side % view.reduction for side in view.window[:4])
        assert np.abs(np.subtract(view.window[:4], plain.window[:4])).max() < view.reduction
        shown = np.divide(view.window.size, view.reduction)
        assert view.reduction == 1 or min(shown / (80, 48)) > 2 - 2 / 48, "twice as many pixels as the network sees"
        assert 4 * view.reduction > min(16, min(np.divide(plain.window.size, (80, 48)))), "and not many more"
        out = augment.render(read_image(path, reduction=view.reduction), view)
        x1, y1, x2, y2 = view.boxes[0] * (80, 48, 80, 48)
        bright = out.astype(float).mean(axis=2) / 200 - 0.1
        columns, rows = bright[round((y1 + y2) / 2)], bright[:, round((x1 + x2) / 2)]
        slack = 1.0  # resampling picks among pixels, and an image has its place on a canvas in whole ones
        assert columns.sum() == pytest.approx(x2 - x1, abs=slack)
        assert rows.sum() == pytest.approx(y2 - y1, abs=slack)
        assert (columns * (np.arange(80) + 0.5)).sum() / columns.sum() == pytest.approx((x1 + x2) / 2, abs=slack)
        assert (rows * (np.arange(48) + 0.5)).sum() / rows.sum() == pytest.approx((y1 + y2) / 2, abs=slack)
    assert seen == expected


def test_colors_of_the_canvas_stay_and_the_image_changes():
    augment = TrainAugmentation((64, 64), (10, 200, 30), 1, "ssd")
    augment.geometry = augment.geometry[:1]
    grown = changed = 0
    for seed in range(60):
        view = augment.plan((WIDTH, HEIGHT), BOXES, LABELS, np.random.default_rng(seed))
        out = augment.render(gradient_image(), view)
        is_grown = view.window.size != (WIDTH, HEIGHT)
        plain = view.window.render(gradient_image(), (64, 64), augment.fill)
        canvas = (plain == (10, 200, 30)).all(axis=2)
        grown += is_grown and canvas.any()
        changed += not np.array_equal(out, plain)
        assert (out[canvas] == (10, 200, 30)).all()
    assert grown > 15
    assert changed > 40


def test_kinds_of_augmentation():
    def outcomes(kind):
        augment = TrainAugmentation((WIDTH, HEIGHT), 127, 128.0, kind)
        return [augment.resample(gradient_image(), BOXES, LABELS, np.random.default_rng(seed)) for seed in range(40)]

    plain = TestTransform((WIDTH, HEIGHT)).resample(gradient_image(), BOXES, LABELS)
    for image, boxes, labels in outcomes("none"):
        assert np.array_equal(image, plain[0])
        np.testing.assert_allclose(boxes, plain[1], atol=1e-6)
        assert np.array_equal(labels, LABELS)
    areas = {
        kind: [np.prod(boxes[0, 2:] - boxes[0, :2]) for _, boxes, _ in outcomes(kind)] for kind in ("light", "ssd")
    }
    assert min(areas["ssd"]) < 0.3 * min(areas["light"]), "only the paper's makes objects small"
    assert max(areas["light"]) > 2 * min(areas["light"])
    with pytest.raises(ValueError, match="ssd, light, none"):
        TrainAugmentation(64, kind="heavy")


def test_expansion_is_filled_with_the_mean():
    image = np.zeros((20, 20, 3), np.uint8)
    expand = T.Expand((10.0, 20.0, 30.0))
    grown = next(
        out
        for seed in range(50)
        if (out := expand(image, BOXES[:0], LABELS[:0], rng=np.random.default_rng(seed))[0]).shape[0] > 40
    )
    corners = grown[[0, 0, -1, -1], [0, -1, 0, -1]]
    assert (corners == (10, 20, 30)).all(axis=1).any()


def test_render_of_a_window_beside_the_image_is_all_fill():
    assert (Window(-20, -20, -10, -10).render(gradient_image(), (5, 5), (7, 8, 9)) == (7, 8, 9)).all()


def test_coordinates_there_and_back():
    _, relative, _ = T.ToPercentCoords()(gradient_image(), BOXES, LABELS)
    np.testing.assert_allclose(relative[0], [10 / 90, 10 / 60, 40 / 90, 30 / 60], rtol=1e-6)
    np.testing.assert_allclose(T.ToAbsoluteCoords()(gradient_image(), relative, LABELS)[1], BOXES, rtol=1e-6)


def test_small_transforms_and_compose():
    pipeline = T.Compose(
        [
            T.ConvertFromInts(),
            T.SubtractMeans((1, 2, 3)),
            T.Lambda(lambda image, boxes, labels: (image * 2, boxes, labels)),
            T.Resize(30),
            T.ToTensor(),
        ]
    )
    flat = np.full((60, 90, 3), 10, np.uint8)
    tensor, boxes, labels = pipeline(flat, BOXES, LABELS)
    assert tensor.shape == (3, 30, 30)
    assert tensor.dtype == torch.float32
    assert tensor[:, 0, 0].tolist() == [18, 16, 14]
    assert boxes is BOXES
    back = T.ToCV2Image()(tensor, boxes, labels)[0]
    assert back.shape == (30, 30, 3)
    assert T.Resize((40, 20))(flat)[0].shape == (20, 40, 3)
    assert T.SwapChannels((2, 1, 0))(back)[0, 0].tolist() == [14, 16, 18]


def test_color_conversions():
    image = gradient_image()
    hsv = T.ConvertColor("RGB", "HSV")(image)[0]
    assert np.abs(T.ConvertColor("HSV", "RGB")(hsv)[0].astype(int) - image).max() <= 6
    assert np.array_equal(T.ConvertColor("RGB", "BGR")(image)[0], image[..., ::-1])
    with pytest.raises(ValueError, match="RGB to LAB"):
        T.ConvertColor("RGB", "LAB")


@pytest.mark.parametrize(
    "make", [lambda: T.RandomContrast(2, 1), lambda: T.RandomBrightness(300), lambda: T.RandomHue(-1)]
)
def test_impossible_ranges_are_refused(make):
    with pytest.raises(ValueError, match="expected"):
        make()


def test_jaccard_of_known_boxes():
    assert T.intersect(BOXES, np.float32([0, 0, 20, 20])).tolist() == [100, 0]
    assert T.jaccard_numpy(BOXES, BOXES[0]).tolist() == pytest.approx([1, 0])
    assert T.jaccard_numpy(np.zeros((1, 4)), np.zeros(4)).tolist() == [0]


@pytest.mark.parametrize("make", [TrainAugmentation, TestTransform])
def test_triples_for_scripts(make):
    image, boxes, labels = make(48, np.array([127, 127, 127]), 128.0)(gradient_image(), BOXES, LABELS)
    assert image.shape == (3, 48, 48)
    assert image.dtype == torch.float32
    assert -1 <= float(image.min()) < float(image.max()) <= 1
    assert boxes.shape == (len(labels), 4)
    assert boxes.min() >= 0
    assert boxes.max() <= 1


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("view", [np.s_[:], np.s_[:, ::-1], np.s_[5:20, 3:-7], np.s_[..., :1]], ids=str)
def test_channels_come_first(view, dtype):
    image = gradient_image(dtype)[view]
    planes = channels_first(image)
    assert planes.flags.c_contiguous
    np.testing.assert_array_equal(planes, np.moveaxis(image, 2, 0), strict=True)


@pytest.mark.parametrize(("mean", "std"), [(127.0, 128.0), ((123.0, 117.0, 104.0), (1.0, 58.4, 57.1))])
def test_normalizing_is_the_formula_to_the_last_bit(mean, std):
    image = gradient_image()
    formula = ((image.astype(np.float32) - np.float32(mean)) / np.float32(std)).transpose(2, 0, 1)
    normalized = normalize(image, mean, std)
    assert normalized.is_contiguous()
    np.testing.assert_array_equal(normalized.numpy(), formula, strict=True)


def test_prediction_normalizes_as_the_device_does():
    image = gradient_image()
    tensor = PredictionTransform((30, 20), (123, 117, 104), 2.0)(image)
    resized = cv2.resize(image, (30, 20), interpolation=cv2.INTER_LINEAR)
    expected = (resized.astype(np.float64) - (123, 117, 104)) / 2
    np.testing.assert_allclose(tensor.numpy(), expected.transpose(2, 0, 1), rtol=1e-6)
    batch = torch.from_numpy(resized.transpose(2, 0, 1).copy())[None]
    np.testing.assert_allclose(Preprocess((123, 117, 104), 2.0)(batch)[0].numpy(), tensor.numpy(), rtol=1e-6)
    np.testing.assert_allclose(
        TestTransform((30, 20), (123, 117, 104), 2.0)(image, BOXES, LABELS)[0].numpy(), tensor.numpy()
    )

"""Augmentations on (image, boxes, labels) triples, after the SSD paper (arXiv 1512.02325, section 2.2).

Images are RGB arrays (H, W, 3), uint8 or float32 in 0 ... 255; boxes are (N, 4) corner form in pixels unless said
otherwise; inputs are never written to. Random transforms take a generator `rng`; without one they draw from
NumPy's global state, so that a script's `numpy.random.seed` counts.

Geometric transforms decide on a `Window` of the image's plane without touching pixels (`plan`). Calling one applies
it alone; a pipeline composes the windows of several and resamples the image once (`render`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, overload

import cv2
import numpy as np
import torch

from vision.boxes.priors import Size, as_width_height

Triple = tuple[np.ndarray, np.ndarray | None, np.ndarray | None]

#: Shares of each random step, and its ranges (SSD's Caffe code, `ssd_pascal.py`).
PROBABILITY = 0.5
BRIGHTNESS_DELTA = 32.0
FACTOR_RANGE = (0.5, 1.5)
HUE_DELTA_DEGREES = 18.0
MAX_EXPANSION = 4.0
CROP_TRIALS = 50
CROP_SIDES = (0.3, 1.0)
CROP_RATIOS = (0.5, 2.0)
#: "whole" keeps the image; a number is the overlap that at least one object must have with the crop.
CROP_MODES: tuple[str | float, ...] = ("whole", 0.1, 0.3, 0.5, 0.7, 0.9, 0.0)


def generator_or_global(rng: np.random.Generator | None) -> np.random.Generator:
    """Return the generator, or a new one seeded from NumPy's global state."""
    return np.random.default_rng(np.random.randint(2**31)) if rng is None else rng


def _happens(rng: np.random.Generator) -> bool:
    return rng.random() < PROBABILITY


def intersect(boxes: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Areas (N,) shared by corner-form boxes (N, 4) with one box (4,), or (..., N) with boxes (..., 1, 4)."""
    # Side by side: NumPy is slow along an axis of two.
    width = np.minimum(boxes[..., 2], box[..., 2]) - np.maximum(boxes[..., 0], box[..., 0])
    height = np.minimum(boxes[..., 3], box[..., 3]) - np.maximum(boxes[..., 1], box[..., 1])
    return np.maximum(width, 0) * np.maximum(height, 0)


def _areas(boxes: np.ndarray) -> np.ndarray:
    """Areas (...,) of corner-form boxes (..., 4)."""
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def jaccard_numpy(boxes: np.ndarray, box: np.ndarray) -> np.ndarray:
    """IoU of corner-form boxes with a box; shapes as in `intersect`; 0 where both are empty."""
    shared = intersect(boxes, box)
    union = _areas(boxes) + _areas(box) - shared
    return np.divide(shared, union, out=np.zeros_like(union, dtype=float), where=union > 0)


class Placement(NamedTuple):
    """What of an image is seen through a window, and where that comes to lie; whole pixels.

    Attributes:
        source: (left, top, right, bottom) in the image.
        target: (left, top, right, bottom) in the window's result, before it is mirrored.
    """

    source: tuple[int, int, int, int]
    target: tuple[int, int, int, int]

    @property
    def target_size(self) -> tuple[int, int]:
        """(width, height) of what the part becomes."""
        left, top, right, bottom = self.target
        return right - left, bottom - top

    @property
    def shrinkage(self) -> float:
        """Number of pixels of the part for each that it becomes."""
        left, top, right, bottom = self.source
        width, height = self.target_size
        return (right - left) * (bottom - top) / (width * height)


class Window(NamedTuple):
    """The part of an image's plane that becomes the new image: whole pixels of the old one, maybe beyond its rim."""

    left: int
    top: int
    right: int
    bottom: int
    mirrored: bool = False

    @property
    def size(self) -> tuple[int, int]:
        """(width, height)."""
        return self.right - self.left, self.bottom - self.top

    def then(self, inner: Window) -> Window:
        """Look through `inner`, which is in the coordinates of this window's image."""
        left, right = inner.left, inner.right
        if self.mirrored:
            width = self.size[0]
            left, right = width - right, width - left
        return Window(
            self.left + left,
            self.top + inner.top,
            self.left + right,
            self.top + inner.bottom,
            self.mirrored != inner.mirrored,
        )

    @overload
    def map_boxes(self, boxes: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]: ...

    @overload
    def map_boxes(
        self, boxes: np.ndarray | None, labels: np.ndarray | None
    ) -> tuple[np.ndarray | None, np.ndarray | None]: ...

    def map_boxes(
        self, boxes: np.ndarray | None, labels: np.ndarray | None
    ) -> tuple[np.ndarray | None, np.ndarray | None]:
        """Move pixel boxes (N, 4) into the window's image, clip them to it, drop those whose center is outside.

        Of objects that the loss ignores, which have negative labels, whatever is still visible is kept.
        """
        if boxes is None or len(boxes) == 0:
            return boxes, labels
        centers = (boxes[:, :2] + boxes[:, 2:]) / 2
        low = np.array([self.left, self.top, self.left, self.top], np.float32)
        high = np.array([self.right, self.bottom, self.right, self.bottom], np.float32)
        moved = np.minimum(np.maximum(boxes, low), high) - low
        inside = (centers > low[:2]) & (centers < high[:2])
        inside = inside[:, 0] & inside[:, 1]
        if labels is not None:
            inside |= labels < 0
        inside &= (moved[:, 2] > moved[:, 0]) & (moved[:, 3] > moved[:, 1])
        if self.mirrored:
            moved[:, ::2] = np.float32(self.size[0]) - moved[:, 2::-2]
        return moved[inside], None if labels is None else labels[inside]

    def within_grid(self, step: int) -> Window:
        """Look at the largest part whose sides lie on multiples of a number; in coordinates of this window's image."""
        left, top = -(-self.left // step) * step, -(-self.top // step) * step
        right, bottom = self.right // step * step, self.bottom // step * step
        if self.mirrored:
            left, right = self.left + self.right - right, self.left + self.right - left
        return Window(left - self.left, top - self.top, right - self.left, bottom - self.top)

    def divided(self, by: int) -> Window:
        """The same part of the same image with its sides divided by a number, on whose multiples the window lies."""
        return Window(self.left // by, self.top // by, self.right // by, self.bottom // by, self.mirrored)

    def placement(self, image_size: tuple[int, int], size: tuple[int, int]) -> Placement | None:
        """Work out where an image comes to lie.

        Args:
            image_size: (width, height) of the image.
            size: (width, height) of the window's result.

        Returns:
            None where nothing of the image is seen.
        """
        x1, x2 = max(0, self.left), min(image_size[0], self.right)
        y1, y2 = max(0, self.top), min(image_size[1], self.bottom)
        if x1 >= x2 or y1 >= y2:
            return None
        scale_x, scale_y = np.divide(size, self.size).tolist()
        to_x1, to_x2 = round((x1 - self.left) * scale_x), round((x2 - self.left) * scale_x)
        to_y1, to_y2 = round((y1 - self.top) * scale_y), round((y2 - self.top) * scale_y)
        to_x1, to_y1 = min(to_x1, size[0] - 1), min(to_y1, size[1] - 1)
        return Placement((x1, y1, x2, y2), (to_x1, to_y1, max(to_x2, to_x1 + 1), max(to_y2, to_y1 + 1)))

    def render(
        self,
        image: np.ndarray,
        size: tuple[int, int] | None,
        fill: Sequence[float] | np.ndarray,
        recolor: Callable[[np.ndarray], np.ndarray] | None = None,
    ) -> np.ndarray:
        """Resample the window, bilinearly and once.

        Args:
            image: (H, W, 3).
            size: (width, height) of the result; the window's own if None.
            fill: per channel, beyond the image's rim.
            recolor: changes each pixel by itself; is given the image's part where that has fewest pixels.

        Returns:
            (height, width, 3) of the image's type.
        """
        width, height = self.size if size is None else size
        placement = self.placement((image.shape[1], image.shape[0]), (width, height))
        if placement is None:
            return np.full((height, width, 3), fill, dtype=image.dtype)
        (x1, y1, x2, y2), (left, top, right, bottom) = placement
        part = image[y1:y2, x1:x2]
        shrinks = placement.shrinkage >= 1
        if recolor is not None and not shrinks:
            part = recolor(part)
        part = cv2.resize(part, placement.target_size, interpolation=cv2.INTER_LINEAR)
        if recolor is not None and shrinks:
            part = recolor(part)
        if part.shape[:2] != (height, width):
            value = np.broadcast_to(np.asarray(fill).astype(image.dtype), 3).tolist()
            beside, below = width - right, height - bottom
            part = cv2.copyMakeBorder(part, top, below, left, beside, cv2.BORDER_CONSTANT, value=value)
        return cv2.flip(part, 1) if self.mirrored else part


def whole_image(image: np.ndarray) -> Window:
    """The window that shows an image as it is."""
    return Window(0, 0, image.shape[1], image.shape[0])


class Compose:
    """Applies transforms one after the other."""

    def __init__(self, transforms: Sequence[Callable]) -> None:
        self.transforms = transforms

    def __call__(self, image, boxes=None, labels=None) -> Triple:
        """Pass the triple on from transform to transform."""
        for transform in self.transforms:
            image, boxes, labels = transform(image, boxes, labels)
        return image, boxes, labels


class Lambda:
    """Wraps a function of (image, boxes, labels)."""

    def __init__(self, function: Callable[..., Triple]) -> None:
        self.function = function

    def __call__(self, image, boxes=None, labels=None) -> Triple:
        """Call the function."""
        return self.function(image, boxes, labels)


class ConvertFromInts:
    """Makes the image float32."""

    def __call__(self, image, boxes=None, labels=None) -> Triple:
        """Convert the image."""
        return image.astype(np.float32), boxes, labels


class SubtractMeans:
    """Subtracts a mean per channel; the image becomes float32."""

    def __init__(self, mean: float | Sequence[float]) -> None:
        self.mean = np.asarray(mean, dtype=np.float32)

    def __call__(self, image, boxes=None, labels=None) -> Triple:
        """Subtract the mean."""
        return image.astype(np.float32) - self.mean, boxes, labels


def _sides(image: np.ndarray) -> np.ndarray:
    height, width = image.shape[:2]
    return np.array([width, height, width, height], np.float32)


class ToAbsoluteCoords:
    """Turns relative boxes into pixels."""

    def __call__(self, image, boxes=None, labels=None) -> Triple:
        """Multiply the boxes by the image's sides."""
        return image, None if boxes is None else boxes * _sides(image), labels


class ToPercentCoords:
    """Turns pixel boxes into relative ones, in 0 ... 1."""

    def __call__(self, image, boxes=None, labels=None) -> Triple:
        """Divide the boxes by the image's sides."""
        return image, None if boxes is None else boxes / _sides(image), labels


class Resize:
    """Resizes the image bilinearly to one number or (width, height); boxes stay as they are (relative)."""

    def __init__(self, size: Size = 300) -> None:
        self.size = as_width_height(size)

    def __call__(self, image, boxes=None, labels=None) -> Triple:
        """Resize the image."""
        return cv2.resize(image, self.size, interpolation=cv2.INTER_LINEAR), boxes, labels


def _scaled(values: np.ndarray, factor: float) -> np.ndarray:
    """Multiply by a factor; uint8 is rounded and cut to 0 ... 255."""
    if values.dtype != np.uint8:
        return (values * factor).astype(values.dtype)
    return cv2.convertScaleAbs(values, alpha=factor)


def _with_channel(image: np.ndarray, channel: int, change: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Change one channel (H, W) of an image (H, W, 3), by itself: several times as fast as in its place."""
    return cv2.insertChannel(change(cv2.extractChannel(image, channel)), image.copy(), channel)


class _Photometric(ABC):
    """A transform that changes each pixel by itself."""

    @abstractmethod
    def draw(self, rng: np.random.Generator) -> Any:
        """Decide what to do; no pixel is touched."""

    @abstractmethod
    def change(self, image: np.ndarray, drawn: Any) -> np.ndarray:
        """Do to an image (H, W, 3) what was drawn."""

    def __call__(self, image, boxes=None, labels=None, rng=None) -> Triple:
        """Draw, and change the image."""
        return self.change(image, self.draw(generator_or_global(rng))), boxes, labels


class RandomContrast(_Photometric):
    """Multiplies the image by a factor, in half of the cases."""

    def __init__(self, lower: float = FACTOR_RANGE[0], upper: float = FACTOR_RANGE[1]) -> None:
        if not 0 <= lower <= upper:
            raise ValueError(f"expected 0 <= lower <= upper, got {lower} and {upper}")
        self.lower, self.upper = lower, upper

    def draw(self, rng: np.random.Generator) -> float:
        """Draw the factor; 1 for no change."""
        return rng.uniform(self.lower, self.upper) if _happens(rng) else 1.0

    def change(self, image: np.ndarray, factor: float) -> np.ndarray:
        """Multiply an image (H, W, 3)."""
        return image if factor == 1 else _scaled(image, factor)


class RandomBrightness(_Photometric):
    """Adds a number to the image, in half of the cases."""

    def __init__(self, delta: float = BRIGHTNESS_DELTA) -> None:
        if not 0 <= delta <= 255:
            raise ValueError(f"expected 0 <= delta <= 255, got {delta}")
        self.delta = delta

    def draw(self, rng: np.random.Generator) -> float:
        """Draw the number; 0 for no change."""
        return rng.uniform(-self.delta, self.delta) if _happens(rng) else 0.0

    def change(self, image: np.ndarray, shift: float) -> np.ndarray:
        """Add to an image (H, W, 3)."""
        if shift == 0:
            return image
        if image.dtype != np.uint8:
            return (image + shift).astype(image.dtype)
        return (cv2.add if shift > 0 else cv2.subtract)(image, (round(abs(shift)),) * 4)  # type: ignore[call-overload]


class RandomSaturation(RandomContrast):
    """Multiplies the second channel of an HSV image by a factor, in half of the cases."""

    def change(self, image: np.ndarray, factor: float) -> np.ndarray:
        """Multiply the saturation of an HSV image (H, W, 3)."""
        if factor == 1:
            return image
        largest = 255 if image.dtype == np.uint8 else 1
        return _with_channel(image, 1, lambda saturation: np.minimum(_scaled(saturation, factor), largest))


class RandomHue(_Photometric):
    """Turns the first channel of an HSV image, in degrees, in half of the cases."""

    def __init__(self, delta: float = HUE_DELTA_DEGREES) -> None:
        if not 0 <= delta <= 360:
            raise ValueError(f"expected 0 <= delta <= 360, got {delta}")
        self.delta = delta

    def draw(self, rng: np.random.Generator) -> float:
        """Draw the degrees; 0 for no change."""
        return rng.uniform(-self.delta, self.delta) if _happens(rng) else 0.0

    def change(self, image: np.ndarray, turn: float) -> np.ndarray:
        """Turn the hue of an HSV image (H, W, 3); in uint8 the circle has 256 steps, see `ConvertColor`."""
        if turn == 0:
            return image
        if image.dtype == np.uint8:
            steps = np.uint8(round(turn * 256 / 360) % 256)
            return _with_channel(image, 0, lambda hue: hue + steps)  # 255 + 1 is 0 again
        return _with_channel(image, 0, lambda hue: np.mod(hue + turn, 360.0))


class SwapChannels:
    """Permutes an image's channels."""

    def __init__(self, swaps: Sequence[int]) -> None:
        self.swaps = list(swaps)

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Return the image with its channels in the new order."""
        out = np.empty(image.shape, image.dtype)
        pairs = [number for pair in zip(self.swaps, range(len(self.swaps)), strict=True) for number in pair]
        cv2.mixChannels([image], [out], pairs)  # several times as fast as picking by index
        return out


class RandomLightingNoise(_Photometric):
    """Permutes the channels at random, in half of the cases."""

    PERMUTATIONS = ((0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0))

    def draw(self, rng: np.random.Generator) -> tuple[int, int, int]:
        """Draw the permutation; the first for no change."""
        return self.PERMUTATIONS[rng.integers(len(self.PERMUTATIONS)) if _happens(rng) else 0]

    def change(self, image: np.ndarray, channels: tuple[int, int, int]) -> np.ndarray:
        """Permute the channels of an image (H, W, 3)."""
        return image if channels == self.PERMUTATIONS[0] else SwapChannels(channels)(image)


class ConvertColor:
    """Converts between the color spaces RGB, BGR and HSV; see OpenCV for the ranges of each type.

    A hue in uint8 has all of its 256 values, so that turning it past the last comes to the first by itself.
    """

    CODES = {
        ("RGB", "HSV"): cv2.COLOR_RGB2HSV_FULL,
        ("BGR", "HSV"): cv2.COLOR_BGR2HSV_FULL,
        ("HSV", "RGB"): cv2.COLOR_HSV2RGB_FULL,
        ("HSV", "BGR"): cv2.COLOR_HSV2BGR_FULL,
        ("RGB", "BGR"): cv2.COLOR_RGB2BGR,
        ("BGR", "RGB"): cv2.COLOR_BGR2RGB,
    }

    def __init__(self, current: str = "RGB", transform: str = "HSV") -> None:
        if (current, transform) not in self.CODES:
            known = ", ".join(f"{one} to {other}" for one, other in self.CODES)
            raise ValueError(f"cannot convert {current} to {transform}; known: {known}")
        self.code = self.CODES[current, transform]

    def __call__(self, image, boxes=None, labels=None) -> Triple:
        """Convert the image."""
        return cv2.cvtColor(image, self.code), boxes, labels


class ColorChange(NamedTuple):
    """What `PhotometricDistort` has drawn; as it stands, no change. In the order in which it is applied.

    Attributes:
        brightness: is added, for pixels in 0 ... 255.
        early_contrast: factor.
        saturation: factor, of HSV.
        hue: degrees, of HSV.
        late_contrast: factor.
        channels: where each channel comes from.
    """

    brightness: float = 0.0
    early_contrast: float = 1.0
    saturation: float = 1.0
    hue: float = 0.0
    late_contrast: float = 1.0
    channels: tuple[int, int, int] = (0, 1, 2)


class PhotometricDistort(_Photometric):
    """Brightness, contrast, saturation, hue and channel order, each at random; contrast comes early or late."""

    def __init__(self) -> None:
        self.brightness = RandomBrightness()
        self.contrast = RandomContrast()
        self.to_hsv = ConvertColor("RGB", "HSV")
        self.saturation = RandomSaturation()
        self.hue = RandomHue()
        self.to_rgb = ConvertColor("HSV", "RGB")
        self.noise = RandomLightingNoise()

    def draw(self, rng: np.random.Generator) -> ColorChange:
        """Draw; no pixel is touched."""
        brightness = self.brightness.draw(rng)
        contrast_first = _happens(rng)
        early = self.contrast.draw(rng) if contrast_first else 1.0
        saturation, hue = self.saturation.draw(rng), self.hue.draw(rng)
        late = 1.0 if contrast_first else self.contrast.draw(rng)
        return ColorChange(brightness, early, saturation, hue, late, self.noise.draw(rng))

    def change(self, image: np.ndarray, colors: ColorChange) -> np.ndarray:
        """Change the colors of an RGB image (H, W, 3)."""
        image = self.brightness.change(image, colors.brightness)
        image = self.contrast.change(image, colors.early_contrast)
        # The way to HSV and back costs time, and in uint8 a little color, so it is not made in vain.
        if (colors.saturation, colors.hue) != (1, 0):
            hsv = self.saturation.change(self.to_hsv(image)[0], colors.saturation)
            image = self.to_rgb(self.hue.change(hsv, colors.hue))[0]
        image = self.contrast.change(image, colors.late_contrast)
        return self.noise.change(image, colors.channels)


class _Geometric(ABC):
    """A transform that looks at another window of the image's plane."""

    fill: Sequence[float] | np.ndarray = (0.0, 0.0, 0.0)

    @abstractmethod
    def plan(self, size: tuple[int, int], boxes: np.ndarray | None, rng: np.random.Generator) -> Window:
        """Decide for an image of (width, height) with pixel boxes (N, 4); no pixel is touched."""

    def __call__(self, image, boxes=None, labels=None, rng=None) -> Triple:
        """Draw, and apply this transform alone."""
        window = self.plan((image.shape[1], image.shape[0]), boxes, generator_or_global(rng))
        if window == whole_image(image):
            return image, boxes, labels
        return window.render(image, None, self.fill), *window.map_boxes(boxes, labels)


class Expand(_Geometric):
    """Puts the image somewhere on a canvas of up to four times its sides, in half of the cases."""

    def __init__(self, mean: float | Sequence[float]) -> None:
        self.fill = np.broadcast_to(np.asarray(mean, dtype=np.float32), 3)

    def plan(self, size: tuple[int, int], boxes: np.ndarray | None, rng: np.random.Generator) -> Window:
        """Decide on the canvas."""
        width, height = size
        if not _happens(rng):
            return Window(0, 0, width, height)
        ratio = rng.uniform(1.0, MAX_EXPANSION)
        left = -int(rng.uniform(0, width * ratio - width))
        top = -int(rng.uniform(0, height * ratio - height))
        return Window(left, top, left + int(width * ratio), top + int(height * ratio))


class RandomSampleCrop(_Geometric):
    """Cuts out a part that at least one object overlaps as much as a random mode asks (Caffe's rule).

    Objects stay whose center is inside; at least one must. An image without objects is cropped freely. When no trial
    succeeds, the image stays whole.
    """

    def plan(self, size: tuple[int, int], boxes: np.ndarray | None, rng: np.random.Generator) -> Window:
        """Decide on the part."""
        width, height = size
        whole = Window(0, 0, width, height)
        mode = CROP_MODES[rng.integers(len(CROP_MODES))]
        if mode == "whole":
            return whole
        sides = rng.uniform(*CROP_SIDES, (CROP_TRIALS, 2)) * (width, height)
        corners = rng.uniform(0, 1, (CROP_TRIALS, 2)) * ((width, height) - sides)
        low = corners.astype(int)
        high = low + np.maximum(sides.astype(int), 1)
        shape = sides[:, 1] / sides[:, 0]
        good = (shape >= CROP_RATIOS[0]) & (shape <= CROP_RATIOS[1])
        if boxes is not None and len(boxes):
            centers = (boxes[:, :2] + boxes[:, 2:]) / 2
            inside = (centers > low[:, None]) & (centers < high[:, None])
            ious = jaccard_numpy(boxes[None], np.concatenate([low, high], axis=1)[:, None])
            good &= (inside[..., 0] & inside[..., 1]).any(axis=1) & (ious.max(axis=1) >= mode)
        if not good.any():
            return whole
        first = int(good.argmax())
        return Window(*low[first].tolist(), *high[first].tolist())


class RandomMirror(_Geometric):
    """Swaps left and right, in half of the cases."""

    def plan(self, size: tuple[int, int], boxes: np.ndarray | None, rng: np.random.Generator) -> Window:
        """Decide whether to."""
        return Window(0, 0, *size, mirrored=_happens(rng))


class ToCV2Image:
    """Turns a (3, H, W) tensor into an (H, W, 3) float32 array."""

    def __call__(self, tensor, boxes=None, labels=None) -> Triple:
        """Convert the image."""
        return tensor.cpu().numpy().astype(np.float32).transpose(1, 2, 0), boxes, labels


class ToTensor:
    """Turns an (H, W, 3) array into a (3, H, W) float32 tensor."""

    def __call__(self, image, boxes=None, labels=None) -> tuple:
        """Convert the image."""
        return torch.from_numpy(image.astype(np.float32).transpose(2, 0, 1).copy()), boxes, labels

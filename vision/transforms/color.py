"""Random changes of color, after the SSD paper (arXiv 1512.02325, section 2.2); each changes a pixel by itself."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np

from vision.transforms.base import Triple, generator_or_global, happens

#: Ranges of SSD's Caffe code, `ssd_pascal.py`.
BRIGHTNESS_DELTA = 32.0
FACTOR_RANGE = (0.5, 1.5)
HUE_DELTA_DEGREES = 18.0


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
        return rng.uniform(self.lower, self.upper) if happens(rng) else 1.0

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
        return rng.uniform(-self.delta, self.delta) if happens(rng) else 0.0

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
        return rng.uniform(-self.delta, self.delta) if happens(rng) else 0.0

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
        return self.PERMUTATIONS[rng.integers(len(self.PERMUTATIONS)) if happens(rng) else 0]

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
        contrast_first = happens(rng)
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

"""Augmentation of which the pixels' part runs on the net's device: loaders decide and cut out, the device renders.

What is drawn is the same as by `TrainAugmentation`, from the same seed; pixels differ by the rounding of uint8 alone.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from vision.boxes.priors import Size, as_width_height
from vision.ssd.data_preprocessing import Mean, Preprocess, SamplePlan, TrainAugmentation
from vision.structures import ImagePart, ImageParts
from vision.transforms.color import ColorChange
from vision.transforms.windows import Placement

#: Pixels that a part may have for each that it becomes; a larger one takes longer to hand over than to resize.
_MAX_HANDED_OVER = 4.0

#: Of an image of which nothing is seen.
_NOWHERE = Placement((0, 0, 0, 0), (0, 0, 0, 0))


class DeferredAugmentation:
    """Decides as a `TrainAugmentation` does, and only cuts out what is seen of an image, for an `AugmentingPreprocess`.

    Args:
        augmentation: that decides.
    """

    def __init__(self, augmentation: TrainAugmentation) -> None:
        self.size, self.plan = augmentation.size, augmentation.plan
        self._photometry = augmentation.photometry

    def render(self, image: np.ndarray, sample_plan: SamplePlan) -> ImagePart:
        """Cut out the part of an image that the window shows."""
        window = sample_plan.decoded_window
        placement = window.placement((image.shape[1], image.shape[0]), self.size) or _NOWHERE
        (x1, y1, x2, y2), (left, top, right, bottom) = placement
        if window.mirrored:
            left, right = self.size[0] - right, self.size[0] - left
        part = image[y1:y2, x1:x2]
        if part.size and placement.shrinkage > _MAX_HANDED_OVER:
            part = cv2.resize(part, placement.target_size, interpolation=cv2.INTER_LINEAR)
        colors: tuple[float, ...] = ()
        if isinstance(sample_plan.colors, ColorChange):
            colors = (*sample_plan.colors[:-1], *sample_plan.colors.channels)
        elif sample_plan.colors is not None and self._photometry is not None and part.size:
            # Of a kind that `change_colors` does not know.
            part = self._photometry.change(part, sample_plan.colors)
        return ImagePart(
            torch.from_numpy(np.array(part)),  # a copy: the image may be the cache's
            torch.tensor([*part.shape[:2], left, top, right, bottom, window.mirrored]),
            torch.tensor(colors, dtype=torch.float32),
        )


class AugmentingPreprocess(Preprocess):
    """A normalizer that first renders the parts of images that a `DeferredAugmentation` cut out.

    Args:
        size: the network's input, one number or (width, height).
        mean: per channel or one number, for pixels in 0 ... 255; also fills the canvas around expanded images.
        std: divides after that, per channel or one number.
    """

    def __init__(self, size: Size, mean: Mean, std: Mean) -> None:
        super().__init__(mean, std)
        self.size = as_width_height(size)

    def forward(self, images: Tensor | ImageParts) -> Tensor:
        """Render the batch where that is still to be done, and normalize it."""
        return super().forward(self.render(images))

    @torch.no_grad()
    def render(self, parts: Tensor | ImageParts) -> Tensor:
        """Bring parts of images to the network's size, and change their colors.

        Args:
            parts: on the device of this module, but for their places; whole images stay as they are.

        Returns:
            (B, 3, H, W) uint8 RGB.
        """
        if isinstance(parts, Tensor):
            return parts
        width, height = self.size
        images = self.mean.round().repeat(len(parts.places), 1, height, width)
        begin = 0
        for image, place in zip(images, parts.places.tolist(), strict=True):
            part_height, part_width, left, top, right, bottom, mirrored = place
            end = begin + part_height * part_width * 3
            if begin < end:
                part = parts.pixels[begin:end].view(part_height, part_width, 3).permute(2, 0, 1).float()
                part = F.interpolate(part[None], (bottom - top, right - left), mode="bilinear", align_corners=False)[0]
                image[:, top:bottom, left:right] = part.flip(-1) if mirrored else part
            begin = end
        if parts.colors.shape[1]:
            inside = self._inside(parts.places.to(images.device, non_blocking=True))
            images = torch.where(inside, change_colors(images, parts.colors), images)
        return images.round().clamp(0, 255).to(torch.uint8)

    def _inside(self, places: Tensor) -> Tensor:
        """Where parts lie on their canvases, by their places (B, 7): (B, 1, H, W)."""
        left, top, right, bottom = places[:, 2:6].T[..., None, None]
        columns = torch.arange(self.size[0], device=places.device)
        rows = torch.arange(self.size[1], device=places.device)[:, None]
        return ((left <= columns) & (columns < right) & (top <= rows) & (rows < bottom))[:, None]


def change_colors(images: Tensor, colors: Tensor) -> Tensor:
    """Change colors as `PhotometricDistort.change` does, of a whole batch.

    HSV without a detour: a color's channels are value - chroma * w(hue), with w the same for each channel but for a
    shift by a third of the circle (https://en.wikipedia.org/wiki/HSL_and_HSV#HSV_to_RGB_alternative).

    Args:
        images: (B, 3, H, W) RGB in 0 ... 255.
        colors: (B, 8), the numbers of a `ColorChange` in their order, each channel's source one by one.

    Returns:
        (B, 3, H, W) RGB in 0 ... 255.
    """
    brightness, early_contrast, saturation, hue, late_contrast = (column.view(-1, 1, 1) for column in colors[:, :5].T)
    images = (images + brightness[:, None]).clamp(0, 255)
    images = (images * early_contrast[:, None]).clamp(0, 255)
    value, least = images.amax(dim=1), images.amin(dim=1)
    chroma = value - least
    red, green, blue = images.unbind(dim=1)
    span = chroma.clamp(min=1e-6)
    sixths = torch.where(
        value == red,
        (green - blue) / span,
        torch.where(value == green, 2 + (blue - red) / span, 4 + (red - green) / span),
    )
    sixths = sixths + hue / 60
    chroma = torch.minimum(chroma * saturation, value)
    channels = []
    for shift in (5, 3, 1):
        place = (shift + sixths) % 6
        channels.append(value - chroma * torch.minimum(place, 4 - place).clamp(0, 1))
    images = (torch.stack(channels, dim=1) * late_contrast[:, None]).clamp(0, 255)
    sources = colors[:, 5:].long()[:, :, None, None].expand_as(images)
    return images.gather(1, sources)

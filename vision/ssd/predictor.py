"""From one image to its detections."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from vision.boxes.nms import (
    DEFAULT_CANDIDATES,
    DEFAULT_IOU_THRESHOLD,
    DEFAULT_SCORE_THRESHOLD,
    DEFAULT_SIGMA,
    check_method,
    multiclass_nms,
)
from vision.boxes.priors import Size
from vision.ssd.data_preprocessing import Mean, PredictionTransform
from vision.ssd.ssd import SSD, evaluating
from vision.structures import Detections


def detections_in_pixels(scores: Tensor, boxes: Tensor, image_size: tuple[int, int], **nms_options) -> Detections:
    """Pick detections among a net's answers for one image, and scale them to it.

    Args:
        scores: (P, C) after softmax.
        boxes: (P, 4) corner form, relative.
        image_size: (width, height) in pixels.
        nms_options: see `vision.boxes.nms.multiclass_nms`.

    Returns:
        detections on the CPU; boxes in pixels, not clipped.
    """
    found_boxes, labels, found_scores = multiclass_nms(scores, boxes, **nms_options)
    width, height = image_size
    scale = found_boxes.new_tensor([width, height, width, height])
    return Detections((found_boxes * scale).cpu(), labels.cpu(), found_scores.cpu())


class Predictor:
    """Runs a net on images. Holds the net itself, so weights loaded into it later count.

    Args:
        net: an `SSD`; it is put into test mode for the call and back after it.
        size: the network's input, one number or (width, height).
        mean: per channel or one number, subtracted from RGB pixels in 0 ... 255.
        std: divides after that.
        nms_method: "hard", "soft" or None for hard.
        iou_threshold: overlap above which hard suppression drops a box.
        filter_threshold: scores up to this are not looked at.
        candidate_size: candidates per class for hard suppression.
        sigma: of soft suppression.
        device: moves the net there, if given; else the net is used where it is.
    """

    def __init__(
        self,
        net: SSD,
        size: Size,
        mean: float | Sequence[float] = 0.0,
        std: Mean = 1.0,
        nms_method: str | None = None,
        iou_threshold: float = DEFAULT_IOU_THRESHOLD,
        filter_threshold: float = DEFAULT_SCORE_THRESHOLD,
        candidate_size: int = DEFAULT_CANDIDATES,
        sigma: float = DEFAULT_SIGMA,
        device: torch.device | str | None = None,
    ) -> None:
        check_method(nms_method)
        self.net = net
        self.transform = PredictionTransform(size, mean, std)
        self.nms_method = nms_method
        self.iou_threshold = iou_threshold
        self.filter_threshold = filter_threshold
        self.candidate_size = candidate_size
        self.sigma = sigma
        if device is not None:
            net.to(device)

    def predict(self, rgb_image: np.ndarray, top_k: int = -1, prob_threshold: float | None = None) -> Detections:
        """Detect objects in an image.

        Args:
            rgb_image: (H, W, 3) uint8, RGB.
            top_k: detections per class, all if not positive.
            prob_threshold: in the place of `filter_threshold`, unless None or 0.

        Returns:
            boxes (N, 4) float32 in pixels, corner form; labels (N,); scores (N,): CPU tensors, also for N = 0.
        """
        height, width = rgb_image.shape[:2]
        device = next(self.net.parameters()).device
        images = self.transform(rgb_image)[None].to(device)
        with evaluating(self.net), torch.inference_mode():
            scores, boxes = self.net(images)
        return detections_in_pixels(
            scores[0].float(),
            boxes[0].float(),
            (width, height),
            score_threshold=prob_threshold or self.filter_threshold,
            iou_threshold=self.iou_threshold,
            nms_method=self.nms_method,
            sigma=self.sigma,
            candidate_size=self.candidate_size,
            top_k=top_k,
        )

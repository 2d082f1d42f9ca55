"""Compatibility module: the box geometry under upstream's names."""

from vision.boxes.coding import convert_boxes_to_locations, convert_locations_to_boxes
from vision.boxes.forms import area_of, center_form_to_corner_form, corner_form_to_center_form, iou_of
from vision.boxes.matching import assign_priors, hard_negative_mining
from vision.boxes.nms import hard_nms, nms, soft_nms
from vision.boxes.priors import PriorLevel as SSDSpec
from vision.boxes.priors import SSDBoxSizes, generate_ssd_priors

__all__ = [
    "SSDBoxSizes",
    "SSDSpec",
    "area_of",
    "assign_priors",
    "center_form_to_corner_form",
    "convert_boxes_to_locations",
    "convert_locations_to_boxes",
    "corner_form_to_center_form",
    "generate_ssd_priors",
    "hard_negative_mining",
    "hard_nms",
    "iou_of",
    "nms",
    "soft_nms",
]

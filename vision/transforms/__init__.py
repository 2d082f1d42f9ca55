"""Augmentations on (image, boxes, labels) triples; see `base`."""

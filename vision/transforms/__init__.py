"""Augmentations on (image, boxes, labels) triples."""

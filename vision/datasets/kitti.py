"""KITTI's text files, as DIGITS and TAO have them, too: `labels/x.txt` with `Car 0.00 0 0.0 x1 y1 x2 y2 ...` lines."""

from __future__ import annotations

from vision.datasets.text_lines import TextLinesReader


class KittiReader(TextLinesReader):
    """A dataset with KITTI's lines; texts lie beside the images or in a folder of their own."""

    name = "kitti"
    looks_like = "a text file for each image with lines such as `car 0.00 0 0.0 65.0 44.2 122.7 94.0 0 0 0 0 0 0 0`"

    #: Without what is in space, with it, and with a score.
    lengths = (7, 14, 15)
    first_corner = 3
    not_counted = "DontCare"

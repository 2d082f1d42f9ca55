"""What transforms of all kinds share: triples of (image, boxes, labels), and where chance comes from.

Images are RGB arrays (H, W, 3), uint8 or float32 in 0 ... 255; boxes are (N, 4) corner form in pixels unless said
otherwise; inputs are never written to. Random transforms take a generator `rng`; without one they draw from
NumPy's global state, so that a script's `numpy.random.seed` counts.
"""

from __future__ import annotations

import numpy as np

Triple = tuple[np.ndarray, np.ndarray | None, np.ndarray | None]

#: How often a random step is taken (SSD's Caffe code, `ssd_pascal.py`).
PROBABILITY = 0.5


def generator_or_global(rng: np.random.Generator | None) -> np.random.Generator:
    """Return the generator, or a new one seeded from NumPy's global state."""
    return np.random.default_rng(np.random.randint(2**31)) if rng is None else rng


def happens(rng: np.random.Generator) -> bool:
    """Draw whether a random step is taken."""
    return rng.random() < PROBABILITY

"""Looking at unlabeled images or frames with a detector, to choose which to label next."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np

from vision.deploy.media import Frame
from vision.deploy.session import Session
from vision.deploy.torch_session import TorchSession
from vision.evaluation.choosing import MIN_SCORE, Candidate, as_candidate
from vision.ssd.features import FeatureRecorder
from vision.structures import Detections


class Looked(NamedTuple):
    """What is remembered of the images looked at, a few kilobytes each.

    Attributes:
        candidates: images to choose from.
        labeled_features: (L, D) of images that the net was trained on.
    """

    candidates: list[Candidate]
    labeled_features: np.ndarray


def look_at(
    frames: Iterable[Frame],
    session: Session,
    detect: Callable[[np.ndarray, float], Detections],
    threshold: float,
    was_trained_on: Callable[[Frame], bool],
    is_empty: bool = False,
) -> Looked:
    """Run a net on images, and remember what choosing among them needs.

    Args:
        frames: to look at, each once.
        session: of a checkpoint.
        detect: finds objects in an image (H, W, 3) uint8 RGB down to a score, with this session.
        threshold: from which detections count.
        was_trained_on: whether the net was trained on an image, which is then labeled, and no candidate.
        is_empty: whether the images are known to hold no object.
    """
    assert isinstance(session, TorchSession)  # detect.py has refused other models
    candidates, labeled = [], []
    with FeatureRecorder(session.net) as recorder:
        for frame in frames:
            found = detect(frame.image, min(MIN_SCORE, threshold))
            features = recorder.features[0].numpy()
            if was_trained_on(frame):
                labeled.append(features)
            else:
                candidates.append(
                    as_candidate(frame.name, found, features, threshold, session.num_classes - 1, is_empty)
                )
    return Looked(candidates, np.stack(labeled) if labeled else np.empty((0, 0), np.float32))

"""Laws over random annotations, boxes far outside and of any size included."""

from pathlib import Path

import numpy as np
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from vision.datasets.images import ImageInfo
from vision.datasets.records import BoxFormat, RawImage, RawObject, make_record
from vision.ssd.config.families import MOBILENETV1
from vision.ssd.data_preprocessing import AUGMENTATIONS, TrainAugmentation
from vision.ssd.ssd import MatchPrior

PRIORS = MOBILENETV1.at(96).priors
WIDTH, HEIGHT = 61, 47

# Derandomised: a test must not depend on luck. The fixture of a folder is only read.
quick = settings(
    max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)

corners = st.floats(-1e6, 1e6, allow_nan=False, width=32)
raw_boxes = st.integers(0, 6).flatmap(lambda count: arrays.arrays(np.float64, (count, 4), elements=corners))


IMAGE_INFO = ImageInfo(WIDTH, HEIGHT, 1, "PNG", "RGB", 8, None)


@given(boxes=raw_boxes, first_pixel=st.sampled_from((0, 1)), relative=st.booleans())
@quick
def test_what_readers_let_through_lies_in_the_image(boxes, first_pixel, relative):
    objects = [RawObject(f"object {number}", "thing", tuple(box)) for number, box in enumerate(boxes.tolist())]
    raw = RawImage("a", Path("a.png"), Path("a.xml"), objects)
    record, defects = make_record(raw, IMAGE_INFO, BoxFormat(relative, first_pixel))
    kept = record.boxes
    assert kept.shape[1] == 4
    assert (kept >= 0).all()
    assert (kept <= (WIDTH, HEIGHT, WIDTH, HEIGHT)).all()
    assert (kept[:, 2:] > kept[:, :2]).all()
    assert len(kept) + sum(defect.objects for defect in defects) == len(boxes), "none is lost without a word"


inner_boxes = raw_boxes.map(
    lambda boxes: np.sort(np.abs(boxes).reshape(-1, 2, 2) % (WIDTH, HEIGHT), axis=1).reshape(-1, 4)
)


@given(boxes=inner_boxes, seed=st.integers(0, 2**31), kind=st.sampled_from(AUGMENTATIONS))
@quick
def test_augmentation_and_matching_stay_finite_and_inside(boxes, seed, kind):
    boxes = boxes.astype(np.float32)
    boxes = boxes[(boxes[:, 2:] > boxes[:, :2]).all(axis=1)]
    labels = np.arange(1, len(boxes) + 1)
    image = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
    augment = TrainAugmentation(96, 127, 128.0, kind)
    out, relative, kept = augment.resample(image, boxes, labels, np.random.default_rng(seed))
    assert out.shape == (96, 96, 3)
    assert out.dtype == np.uint8
    assert relative.shape == (len(kept), 4)
    assert ((relative >= 0) & (relative <= 1)).all()
    assert (relative[:, 2:] >= relative[:, :2]).all()
    assert set(kept) <= set(labels)

    locations, matched = MatchPrior(PRIORS, 0.1, 0.2, 0.5)(relative, kept)
    assert set(matched.tolist()) <= {0, *kept.tolist()}
    of_objects = locations[matched > 0]
    solid = (relative[:, 2:] > relative[:, :2]).all()
    assert torch.isfinite(of_objects).all() or not solid
    assert solid, "no box loses its area on the way to relative numbers"

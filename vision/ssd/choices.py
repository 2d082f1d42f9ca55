"""What options may say of nets, starting weights and augmentation. Nothing in here loads torch, so that help is quick.

How a net is built stands in its row of `vision.ssd.models`.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping

#: Canonical name of each net -> other names that are accepted.
NET_ALIASES: Mapping[str, tuple[str, ...]] = {
    "mb1-ssd": ("ssd-mobilenet",),
    "mb1-ssd-lite": ("mb1-lite-ssd",),
    "mb2-ssd-lite": (),
    "mb3-ssd-lite": (),
    "mb3-large-ssd-lite": (),
    "mb3-small-ssd-lite": (),
    "sq-ssd-lite": (),
    "vgg16-ssd": (),
    "vgg16-ssd-l2": (),
    "mb1-ssd-fpnlite": (),
    "mb2-ssd-fpnlite": (),
}

#: Canonical names.
NET_NAMES: tuple[str, ...] = tuple(NET_ALIASES)
DEFAULT_NET = UPSTREAM_NET = NET_NAMES[0]

#: What a run is told that takes the default net because none was typed; the figures stand in docs/accuracy.md.
ADVICE_ON_NET = (
    "--net=mb2-ssd-fpnlite was more accurate where objects are small or various (AP on blood cells 0.578 instead of "
    "0.472, on horses 0.645 instead of 0.435) and as good on signs, and takes 0.6 of the time of mb1-ssd in onnxruntime"
)

#: Every accepted name -> the canonical one.
CANONICAL_NAMES: Mapping[str, str] = {
    accepted: name for name, aliases in NET_ALIASES.items() for accepted in (name, *aliases)
}

#: The size that published checkpoints were trained at, and their priors drawn for.
BASE_SIZE = 300

#: Width multipliers of MobileNetV2.
WIDTH_RANGE = (0.35, 1.4)

#: Nets that AdamW trains better than SGD -> rates of heads and backbone for it.
ADAMW_RATES: Mapping[str, tuple[float, float]] = {"sq-ssd-lite": (3e-3, 3e-4)}

#: What --pretrained-ssd says for random weights, and for the weights that come with this program.
SCRATCH, VOC = "none", "voc"

#: torchvision's classifiers and its whole detectors: the options that name them, and by net their weights.
IMAGENET, COCO = "imagenet", "coco"
TORCHVISION: Mapping[str, Mapping[str, str]] = {
    IMAGENET: {
        "mb2-ssd-lite": "MobileNet_V2_Weights.IMAGENET1K_V2",
        "mb2-ssd-fpnlite": "MobileNet_V2_Weights.IMAGENET1K_V2",
        "mb3-ssd-lite": "MobileNet_V3_Large_Weights.IMAGENET1K_V2",
        "sq-ssd-lite": "SqueezeNet1_1_Weights.IMAGENET1K_V1",
        "vgg16-ssd": "VGG16_Weights.IMAGENET1K_V1",
        "vgg16-ssd-l2": "VGG16_Weights.IMAGENET1K_V1",
    },
    COCO: {
        "mb3-ssd-lite": "SSDLite320_MobileNet_V3_Large_Weights.COCO_V1",
        "vgg16-ssd-l2": "SSD300_VGG16_Weights.COCO_V1",
    },
}

#: Nets whose starting weights come with this program -> rate of the backbone, by SGD, that suits them; None for the
#: optimizer's default. A backbone that has learnt detection from a hundred thousand images loses more by a high rate
#: than it gains.
BUNDLED_BASE_NET_RATES: Mapping[str, float | None] = {
    "mb1-ssd": None,
    "mb1-ssd-fpnlite": None,
    "mb2-ssd-fpnlite": 0.001,
    "mb2-ssd-lite": 0.001,
}

#: What --priors may say instead of a file: fitted to the boxes to train on; those of published checkpoints; for objects
#: as various as COCO's.
FITTED_PRIORS, UPSTREAM_PRIORS, COCO_PRIORS = PRIOR_CHOICES = ("auto", "upstream", "coco")

#: What `TrainAugmentation` can be asked for; "light" is the recipe of SSDLite (torchvision, TensorFlow).
AUGMENTATIONS = ("ssd", "light", "none")


def canonical_name(name: str) -> str:
    """Return the canonical name of a net.

    Raises:
        ValueError: there is no such net; the message names the nearest and lists all.
    """
    if name in CANONICAL_NAMES:
        return CANONICAL_NAMES[name]
    near = difflib.get_close_matches(name, CANONICAL_NAMES, n=1)
    hint = f", did you mean {near[0]}?" if near else ""
    raise ValueError(f"unknown net {name!r}{hint} (choose from {', '.join(CANONICAL_NAMES)})")

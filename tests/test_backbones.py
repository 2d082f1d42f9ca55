"""Backbones against torchvision's: the same weights give the same feature maps as far as the nets are the same."""

import pytest
import torch
import torchvision
from torch import nn

from vision.nn.mobilenet_v2 import MobileNetV2
from vision.nn.squeezenet import SqueezeNet
from vision.nn.torchvision_mobilenet_v3 import mobilenet_v3_large
from vision.nn.vgg import vgg16_reduced


def torchvision_model(name: str, **options: bool) -> nn.Module:
    """Build torchvision's classifier with random weights and statistics below `features`; the rest has no numbers.

    Made on the meta device, as the unused classifier of VGG alone takes half a gigabyte.
    """
    with torch.device("meta"):
        model = torchvision.models.get_model(name, weights=None, **options)
    model.features.to_empty(device="cpu")
    generator = torch.Generator().manual_seed(3)
    for key, value in model.features.state_dict().items():
        if key.endswith("tracked"):
            value.zero_()
        elif value.dim() == 4:  # keeps the maps' deviation from layer to layer, so that they do not fade
            value.normal_(0, (2 / value[0].numel()) ** 0.5, generator=generator)
        else:
            value.uniform_(0.1, 1, generator=generator)
    return model.eval()


@pytest.mark.parametrize(
    ("name", "ours", "size"),
    [
        ("mobilenet_v2", lambda: MobileNetV2().features, (96, 129)),
        ("mobilenet_v3_large", mobilenet_v3_large, (96, 129)),
        # Ours rounds down when it pools, torchvision's up; with these sides there is nothing to round.
        ("squeezenet1_1", lambda: SqueezeNet().features, (63, 127)),
        # Up to the last pooling, which ours does without halving; the sides of the third one are even here.
        ("vgg16", lambda: vgg16_reduced()[:30], (48, 64)),
    ],
)
def test_every_feature_map_is_torchvisions(name, ours, size):
    options = {"reduced_tail": True} if name == "mobilenet_v3_large" else {}
    theirs = torchvision_model(name, **options).features.double()
    ours = ours().double().eval()
    values = theirs[: len(ours)].state_dict().values()
    ours.load_state_dict(dict(zip(ours.state_dict(), values, strict=True)))
    mine = other = torch.randn(2, 3, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        for index, (module, their_module) in enumerate(zip(ours, theirs, strict=name != "vgg16")):
            mine, other = module(mine), their_module(other)
            assert other.std() > 1e-3, "a map without contrast would prove nothing"
            torch.testing.assert_close(mine, other, rtol=1e-9, atol=1e-9, msg=lambda text, at=index: f"{at}: {text}")


@pytest.mark.parametrize(
    ("name", "ours", "modules", "sides"),
    [("squeezenet1_1", lambda: SqueezeNet().features, 6, (36, 37)), ("vgg16", vgg16_reduced, 17, (38, 37))],
)
def test_where_poolings_round_otherwise_at_300_pixels(name, ours, modules, sides):
    """Published detectors pool 74 to 36 and 75 to 38, torchvision's classifiers to 37."""
    with torch.device("meta"):
        images = torch.empty(1, 3, 300, 300)
        features = ours(), torchvision.models.get_model(name, weights=None).features
        assert tuple(layers[:modules](images).shape[2] for layers in features) == sides

"""The table of nets: golden weights and answers, and what every row promises at every size."""

import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import GOLDEN, ROOT, golden_json, golden_net

from vision.engine.start import build_net, fitted_config, general_config
from vision.options.training import Options
from vision.ssd.choices import NET_NAMES, UPSTREAM_PRIORS
from vision.ssd.models import MODELS, build_described, describe_weights, identify, identify_base_net, spec_of
from vision.ssd.ssd import SSD, evaluating
from vision.ssd.weights import description_of, read_weights
from vision.structures import DataError

FORWARD = {**np.load(GOLDEN / "forward_300.npz"), **np.load(GOLDEN / "forward_300_mb3.npz")}
STATE_DICTS = golden_json("state_dicts.json") | golden_json("state_dicts_mb3.json")
#: Nets whose answers to these weights reach 1,800.
REACHING_FAR = ("mb3-large-ssd-lite", "mb3-small-ssd-lite")
WIDTHS = (0.35, 0.5, 0.75, 1.0, 1.25, 1.3, 1.4)


@pytest.mark.parametrize("name", STATE_DICTS)
def test_golden_state_dict(name):
    net = MODELS[name].build(4)
    own = [(key, list(value.shape)) for key, value in net.state_dict().items()]
    assert own == list(STATE_DICTS[name]["state_dict"].items())
    assert sum(parameter.numel() for parameter in net.parameters()) == STATE_DICTS[name]["parameters"]


def test_the_docs_say_which_checkpoints_upstreams_code_loads():
    """Those of its nets, with its priors: with fitted ones, the default, the heads have other sizes."""
    text = (ROOT / "docs" / "upstream.md").read_text()
    (paragraph,) = (part for part in text.split("\n\n") if part.startswith("Upstream's code loads"))
    assert set(re.findall(r"`((?:mb|sq|vgg)[-\w]+)`", paragraph)) == set(STATE_DICTS)
    assert all(option in paragraph for option in (f"--priors={UPSTREAM_PRIORS}", "--recipe=upstream"))
    assert Options().prior_choice != UPSTREAM_PRIORS, "the default"
    sides, labels = np.tile(np.float32([[20, 20], [90, 40]]), (50, 1)), np.tile([1, 2], 50)
    for name in STATE_DICTS:
        expected = {key: tuple(shape) for key, shape in STATE_DICTS[name]["state_dict"].items()}
        for priors in (None, UPSTREAM_PRIORS):
            options = Options(net=name, priors=priors)
            config = fitted_config(options, general_config(options), sides, labels)
            with torch.device("meta"):
                net = build_net(options, ("BACKGROUND", "a", "b", "c"), config)
            found = {key: tuple(value.shape) for key, value in net.state_dict().items()}
            assert (found == expected) == (priors == UPSTREAM_PRIORS), (name, priors)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-5), (torch.float32, 2e-3)])
@pytest.mark.parametrize("name", STATE_DICTS)
def test_golden_forward(name, dtype, tolerance):
    net = golden_net(name).to(dtype)
    image = np.random.default_rng(0).uniform(-1, 1, (1, 3, 300, 300)).astype(np.float32)
    with torch.inference_mode():
        raw = net(torch.from_numpy(image).to(dtype))
        net.is_test = True
        final = net(torch.from_numpy(image).to(dtype))
    for part, value in zip(("confidences", "locations", "scores", "boxes"), (*raw, *final), strict=True):
        found, expected = value.numpy(), FORWARD[f"{name}/{part}"]
        if name in REACHING_FAR:
            if part in ("scores", "boxes"):  # exponentials of hundreds
                if dtype == torch.float64:
                    np.testing.assert_allclose(found, expected, rtol=1e-6)
                continue
            largest = np.abs(expected).max()
            found, expected = found / largest, expected / largest
        np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("name", NET_NAMES)
def test_maps_are_as_large_as_the_config_says_at_every_size(name):
    """The closed forms of map sizes against the net itself, which runs without numbers on the meta device."""
    spec = MODELS[name]
    least = spec.family.minimum_side
    sides = [
        side
        for side in (
            *range(32, 97, 9),
            *range(97, 128, 7),
            128,
            129,
            267,
            268,
            299,
            300,
            301,
            511,
            512,
            640,
            1023,
            1024,
        )
        if side >= least
    ]
    with torch.device("meta"):
        net = spec.build(3).eval()
        for width, height in zip(sides, reversed(sides), strict=True):
            maps = net.feature_maps(torch.empty(1, 3, height, width))
            expected = [(m.shape[3], m.shape[2]) for m in maps]
            specs = spec.config_at((width, height)).specs
            assert [tuple(np.broadcast_to(level.feature_map_size, 2)) for level in specs] == expected


@pytest.mark.parametrize("size", [96, (128, 96)])
@pytest.mark.parametrize("name", [name for name in NET_NAMES if MODELS[name].family.minimum_side <= 96])
def test_runs_and_learns_at_a_small_size(name, size):
    net = MODELS[name].build(3, config=MODELS[name].config_at(size))
    width, height = net.config.width_height
    confidences, locations = net(torch.randn(2, 3, height, width))
    assert confidences.shape == (2, len(net.priors), 3)
    assert locations.shape == (2, len(net.priors), 4)
    (confidences.square().sum() + locations.square().sum()).backward()
    idle = [key for key, parameter in net.named_parameters() if parameter.grad is None]
    # The backbone's last module is not looked at where no tap follows it; it feeds the extras, so it learns too.
    assert idle == []


@pytest.mark.parametrize("name", NET_NAMES)
def test_activations_take_the_place_of_nothing_that_is_still_needed(name):
    size = max(96, MODELS[name].family.minimum_side)
    net = MODELS[name].build(3, config=MODELS[name].config_at(size))
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))
    inplace = [module for module in net.modules() if getattr(module, "inplace", False)]
    assert len(inplace) > 10
    gradients = []
    for wish in (True, False):
        for module in inplace:
            module.inplace = wish
        net.zero_grad()
        confidences, locations = net(images.clone())
        (confidences.square().sum() + locations.square().sum()).backward()
        gradients.append([parameter.grad for parameter in net.parameters()])
    assert all(map(torch.equal, *gradients))


@pytest.mark.parametrize("width", WIDTHS)
def test_mobilenet_v2_widths(width):
    net = MODELS["mb2-ssd-lite"].build(3, width_mult=width, config=MODELS["mb2-ssd-lite"].config_at(96)).eval()
    taps = {0.35: 198, 0.5: 288, 0.75: 432, 1.0: 576, 1.25: 720, 1.3: 744, 1.4: 804}
    with torch.inference_mode():
        maps = net.feature_maps(torch.zeros(1, 3, 96, 96))
        assert net(torch.zeros(1, 3, 96, 96))[0].shape == (1, len(net.priors), 3)
    assert maps[0].shape[1] == taps[width]
    assert maps[1].shape[1] == (int(1280 * width) if width > 1 else 1280)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("mb1-ssd", {"width_mult": 0.5}),
        ("mb2-ssd-lite", {"width_mult": 0.2}),
        ("vgg16-ssd", {"onnx_compatible": True}),
    ],
)
def test_refuses_options_it_does_not_have(name, options):
    with pytest.raises(ValueError, match="width"):
        MODELS[name].build(3, **options)


@pytest.mark.parametrize("width", [0.6, 0.87, 1.0, 1.37])
@pytest.mark.parametrize("use_batch_norm", [True, False])
def test_files_that_do_not_say_their_width_are_recognized_by_their_shapes(width, use_batch_norm):
    net = MODELS["mb2-ssd-lite"].build(5, width_mult=width, use_batch_norm=use_batch_norm)
    weights = {key: value for key, value in net.state_dict().items()}
    description = describe_weights(weights, "file.pth")
    assert (description.num_classes, description.architecture.use_batch_norm) == (5, use_batch_norm)
    assert build_described(description).load_state_dict(weights).missing_keys == []


def test_mobilenet_v2_options_change_the_layers():
    build = MODELS["mb2-ssd-lite"].build
    plain = build(3)
    assert not any(isinstance(m, torch.nn.ReLU6) for m in build(3, onnx_compatible=True).base_net.modules())
    assert any(isinstance(m, torch.nn.ReLU6) for m in plain.base_net.modules())
    without = build(3, use_batch_norm=False)
    norms = [name for name, m in without.base_net.named_modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert norms == ["0.1"]
    assert any(isinstance(m, torch.nn.BatchNorm2d) for m in without.extras.modules())


@pytest.mark.parametrize("alias", ["ssd-mobilenet", "mb1-lite-ssd"])
def test_aliases(alias):
    assert spec_of(alias).name in ("mb1-ssd", "mb1-ssd-lite")


def test_unknown_net_names_the_nearest():
    with pytest.raises(ValueError, match="did you mean mb2-ssd-lite"):
        spec_of("mb2-ssd-lit")


@pytest.mark.parametrize("name", NET_NAMES)
def test_identify_recognizes_files_without_description(name):
    weights = {key: value for key, value in MODELS[name].build(7).state_dict().items()}
    assert description_of(weights) is None
    found = identify(weights)
    assert (found.net, found.num_classes) == (name, 7)
    assert identify({"fc.weight": torch.zeros(1)}) is None


def test_a_backbone_file_is_called_one():
    weights = MODELS["sq-ssd-lite"].build(2).base_net.state_dict()
    assert identify_base_net(weights) == "sq-ssd-lite"
    with pytest.raises(DataError, match="sq-ssd-lite's backbone, which go to --base-net"):
        describe_weights(dict(weights), "file.pth")


@pytest.mark.parametrize("name", NET_NAMES)
def test_a_saved_file_describes_itself(name, tmp_path):
    spec = MODELS[name]
    options = {"width_mult": 0.5} if spec.has_width else {}
    net = spec.build(3, config=spec.config_at((320, 288)), **options).eval()
    net.class_names = ("BACKGROUND", "a", "b")
    net.save(str(tmp_path / "own.pth"))
    weights = read_weights(tmp_path / "own.pth")
    again = build_described(describe_weights(weights, "own.pth"))
    again.load(str(tmp_path / "own.pth"))
    assert again.class_names == net.class_names
    assert again.config == net.config
    again.eval()
    image = torch.randn(1, 3, 288, 320)
    with torch.inference_mode():
        for one, other in zip(net(image), again(image), strict=True):
            assert torch.equal(one, other)


def test_save_takes_an_open_file(tmp_path):
    net = MODELS["mb1-ssd-lite"].build(2)
    with open(tmp_path / "own.pth", "wb") as file:
        net.save(file)
    other = MODELS["mb1-ssd-lite"].build(2)
    other.load(str(tmp_path / "own.pth"))
    assert torch.equal(net.extras[0][0].weight, other.extras[0][0].weight)


def test_metadata_is_ignored_by_a_plain_strict_load(tmp_path):
    """As upstream's code does it: torch.load and a strict load_state_dict."""
    net = MODELS["mb1-ssd-lite"].build(2)
    net.save(str(tmp_path / "own.pth"))
    weights = torch.load(tmp_path / "own.pth", weights_only=True)
    assert list(weights) == list(net.state_dict())
    assert MODELS["mb1-ssd-lite"].build(2).load_state_dict(weights, strict=True).missing_keys == []


def test_load_refuses_another_net_in_one_line(tmp_path):
    MODELS["mb1-ssd-lite"].build(2).save(str(tmp_path / "lite.pth"))
    with pytest.raises(DataError, match="does not fit the net") as caught:
        MODELS["mb1-ssd"].build(2).load(str(tmp_path / "lite.pth"))
    assert len(str(caught.value)) < 500


def test_starting_weights(tmp_path):
    spec = MODELS["mb1-ssd"]
    source = spec.build(21)
    with torch.no_grad():
        for parameter in source.parameters():
            parameter.fill_(0.25)
    source.save(str(tmp_path / "ssd.pth"))
    torch.save(source.base_net.state_dict(), tmp_path / "base.pth")

    net = spec.build(3)
    net.init_from_pretrained_ssd(str(tmp_path / "ssd.pth"))
    assert float(net.extras[0][0].weight.detach().min()) == 0.25
    assert float(net.base_net[3][0].weight.detach().max()) == 0.25
    assert float(net.classification_headers[0].weight.detach().std()) > 0

    net = spec.build(3)
    net.init_from_base_net(str(tmp_path / "base.pth"))
    assert float(net.base_net[3][0].weight.detach().max()) == 0.25
    bound = (6 / (1024 * 1 + 256 * 1)) ** 0.5  # Xavier of the first extra's 1x1 convolution
    assert 0.9 * bound < float(net.extras[0][0].weight.detach().abs().max()) <= bound * (1 + 1e-6)

    net.init()
    assert float(net.base_net[3][0].weight.detach().std()) > 0


@pytest.mark.parametrize(("name", "gain"), [("mb1-ssd-lite", 1.0), ("sq-ssd-lite", 0.1)])
def test_heads_without_batch_norm_begin_by_letting_through_what_they_see(name, gain):
    """Drawn alone, a depthwise convolution of 512 channels makes its input several times smaller."""
    torch.manual_seed(0)
    net = MODELS[name].build(3)
    net.init()
    depthwise = net.classification_headers[0][0]
    features = torch.rand(1, depthwise.in_channels, 9, 9)
    with torch.no_grad():
        assert float((depthwise(features) - gain * features).abs().mean()) < 0.1 * gain**0.5
    assert float(net.extras[0][2][0].weight[:, :, 1, 1].detach().mean()) == pytest.approx(gain, abs=0.05)


def test_heads_with_batch_norm_are_drawn_alone():
    net = MODELS["mb2-ssd-lite"].build(3)
    net.init()
    assert float(net.classification_headers[0][0].weight.detach().abs().max()) < 0.1


def test_mode_of_test_may_be_switched_at_any_time():
    net = MODELS["mb1-ssd-lite"].build(2, config=MODELS["mb1-ssd-lite"].config_at(96)).eval()
    image = torch.zeros(1, 3, 96, 96)
    with torch.inference_mode():
        raw, _ = net(image)
        net.is_test = True
        scores, _ = net(image)
        net.is_test = False
        again, _ = net(image)
    torch.testing.assert_close(scores.sum(dim=2), torch.ones(1, len(net.priors)))
    assert torch.equal(raw, again)


def test_images_of_another_size_are_refused_in_test_mode():
    net = MODELS["mb1-ssd-lite"].build(2, is_test=True).eval()
    with pytest.raises(ValueError, match="images of 300 pixels"), torch.inference_mode():
        net(torch.zeros(1, 3, 320, 320))


def test_test_mode_puts_every_module_back():
    net = MODELS["mb1-ssd-lite"].build(2).train()
    net.base_net.eval()
    with pytest.raises(RuntimeError), evaluating(net):
        assert net.is_test
        assert not net.training
        raise RuntimeError
    assert not net.is_test
    assert net.extras.training
    assert not net.base_net.training


def test_a_config_module_of_a_scripts_own(tmp_path):
    from vision.ssd.config import mobilenetv1_ssd_config as door

    parts = MODELS["mb1-ssd"].build(3)
    parts = parts.base_net, (12, 14), parts.extras, parts.classification_headers, parts.regression_headers
    own = SimpleNamespace(image_size=300, priors=door.priors * 0.9, center_variance=0.1, size_variance=0.2)
    net = SSD(3, *parts, is_test=True, config=own).eval()
    net.save(str(tmp_path / "own.pth"))
    net.load(str(tmp_path / "own.pth"))
    with torch.inference_mode():
        assert net(torch.zeros(1, 3, 300, 300))[1].shape == (1, 3000, 4)
    assert torch.equal(net.priors, own.priors)
    with pytest.raises(ValueError, match="expected images of 300"), torch.inference_mode():
        net(torch.zeros(1, 3, 320, 320))

    net = SSD(3, *parts, config=door)
    door.set_image_size(512)
    assert net.config == MODELS["mb1-ssd"].config_at(300), "what the door shows later does not change the net"
    door.set_image_size(300)


def test_priors_move_with_the_net_and_stay_out_of_its_file():
    net = MODELS["mb1-ssd-lite"].build(2)
    assert "priors" not in net.state_dict()
    assert net.to(torch.float64).priors.dtype == torch.float64


def test_a_net_composed_by_hand_needs_no_config():
    donor = MODELS["mb1-ssd"].build(3)
    parts = donor.base_net, (12, 14), donor.extras, donor.classification_headers, donor.regression_headers
    net = SSD(3, *parts).eval()
    image = torch.randn(1, 3, 300, 300)
    with torch.inference_mode():
        assert torch.equal(net(image)[0], donor.eval()(image)[0])
    with pytest.raises(ValueError, match="without a config"):
        net.decode(torch.zeros(1, 1, 3), torch.zeros(1, 1, 4))

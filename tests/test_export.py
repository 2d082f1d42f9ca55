"""The exported file: contract, parity, and checks that reject."""

import json
import warnings

import cv2
import numpy as np
import onnx
import pytest
import torch
from conftest import golden_net

from vision.deploy import detectnet
from vision.deploy.export import DEFAULT_OPTIONS, INPUT_NORMS, ExportOptions, ExportRejected, candidate, write
from vision.deploy.jetpack import JETPACKS
from vision.deploy.session import OnnxSession, choose_providers, open_runtime, open_session
from vision.deploy.torch_session import TorchSession
from vision.deploy.verification import Parity, check_contract, image_like, verify
from vision.ssd.choices import NET_NAMES
from vision.ssd.models import MODELS
from vision.structures import DataError


def net_for(name: str, size=None):
    """A net whose answers depend on the image: with default weights any comparison would pass."""
    spec = MODELS[name]
    net = golden_net(name, config=spec.config_at(size or (300 if name.startswith("vgg16") else (160, 128))))
    # vgg's input is 128 times as large as that of the others
    if name.startswith("vgg16"):
        with torch.no_grad():
            net.base_net[0].weight /= 100
    if name.startswith(("mb3-large", "mb3-small")):  # the answers reach 1,800, and boxes are exponentials of them
        with torch.no_grad():
            for head in (*net.classification_headers, *net.regression_headers):
                for parameter in [layer for layer in head.modules() if isinstance(layer, torch.nn.Conv2d)][
                    -1
                ].parameters():
                    parameter /= 250
    net.class_names = ("BACKGROUND", "a", "b", "c")
    return net


def export(net, path, options: ExportOptions = DEFAULT_OPTIONS) -> Parity:
    """Write a file and verify it, as the script does."""
    with candidate(path) as file:
        write(net, file, options)
        return verify(file, net, options, JETPACKS["4.6"].tensorrt)


def doublings(model: onnx.ModelProto) -> int:
    """Count the Resizes; each is the one that TensorRT has taken since 7: nearest, by constant whole factors."""
    constants = {node.output[0]: node.attribute[0].t for node in model.graph.node if node.op_type == "Constant"}
    constants |= {tensor.name: tensor for tensor in model.graph.initializer}
    doubled = 0
    for node in model.graph.node:
        if node.op_type == "Resize":
            doubled += 1
            attributes = {attribute.name: attribute.s for attribute in node.attribute}
            assert attributes["mode"] == b"nearest"
            assert attributes["coordinate_transformation_mode"] == b"asymmetric"
            assert attributes["nearest_mode"] == b"floor"
            assert onnx.numpy_helper.to_array(constants[node.input[2]]).tolist() == [1, 1, 2, 2]
    return doubled


@pytest.mark.parametrize("name", NET_NAMES)
def test_every_net_exports_and_agrees_with_pytorch(name, tmp_path):
    net = net_for(name)
    parity = export(net, tmp_path / "net.onnx")
    assert parity.difference <= parity.tolerance
    assert parity.sensitivity > 0.05, "the comparison must be able to fail"
    model = onnx.load(str(tmp_path / "net.onnx"))
    assert ([entry.version for entry in model.opset_import], model.ir_version) == ([13], 7)
    assert [value.name for value in model.graph.input] == ["input_0"]
    assert [value.name for value in model.graph.output] == ["scores", "boxes"]
    assert [path.name for path in tmp_path.iterdir()] == ["net.onnx"], "one file"
    forbidden = {"Shape", "Gather", "Loop", "If", "NonZero"}
    assert not forbidden & {node.op_type for node in model.graph.node}
    assert doublings(model) == (2 if MODELS[name].pyramid_channels else 0)

    session = OnnxSession(tmp_path / "net.onnx")
    assert session.class_names == net.class_names
    assert session.net_name == name
    assert session.size == net.config.width_height
    image = np.random.default_rng(0).integers(0, 256, (90, 120, 3)).astype(np.uint8)
    ours, theirs = (answers_of(s, s.transform(image)[None]) for s in (TorchSession(net), session))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, atol=5e-3, rtol=1e-3)
    torch.testing.assert_close(theirs[0].sum(dim=2), torch.ones(theirs[0].shape[:2]), atol=1e-4, rtol=0)


@pytest.mark.parametrize("threads", [1, 2])
def test_onnxruntime_takes_the_threads_that_it_is_given(tmp_path, threads, monkeypatch):
    write(net_for("sq-ssd-lite"), tmp_path / "net.onnx")
    monkeypatch.setenv("OMP_NUM_THREADS", str(threads))
    options = open_runtime(tmp_path / "net.onnx").get_session_options()
    assert options.intra_op_num_threads == threads
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"


def test_metadata_names_net_classes_and_normalization(tmp_path):
    export(net_for("mb1-ssd-lite"), tmp_path / "net.onnx")
    facts = {entry.key: entry.value for entry in onnx.load(str(tmp_path / "net.onnx")).metadata_props}
    assert facts["net"] == "mb1-ssd-lite"
    assert json.loads(facts["classes"]) == ["BACKGROUND", "a", "b", "c"]
    assert json.loads(facts["normalisation"]) == {
        "channels": "RGB",
        "pixels": [0, 255],
        "mean": 127.5,
        "std": 127.5,
    }


def answers_of(session, images) -> tuple[torch.Tensor, torch.Tensor]:
    """What a session answers to images (B, 3, H, W), as tensors."""
    scores, boxes = session.run(np.asarray(images))
    return torch.from_numpy(scores), torch.from_numpy(boxes)


def fed_as(input_norm: str, pixels: torch.Tensor, net) -> torch.Tensor:
    """Normalize pixels (B, 3, H, W) in 0 ... 255, spelt out."""
    mean = torch.tensor(net.config.image_mean).view(1, 3, 1, 1)
    return {
        "detectnet": ((pixels / 255) - 0.5) / 0.5,
        "train": (pixels - mean) / net.config.image_std,
        "raw255": pixels,
    }[input_norm]


@pytest.mark.parametrize(
    ("name", "input_norm"), [*(("mb1-ssd-lite", norm) for norm in INPUT_NORMS), ("vgg16-ssd", "detectnet")]
)
def test_a_file_takes_the_normalization_asked_for(name, input_norm, tmp_path):
    """Pixels normalized as the runtime does give what the net gives for its own normalization."""
    net = net_for(name)
    export(net, tmp_path / "net.onnx", ExportOptions(input_norm=input_norm))
    pixels = image_like(1, net.config.width_height).float()
    session = OnnxSession(tmp_path / "net.onnx")
    expected = answers_of(TorchSession(net), fed_as("train", pixels, net))
    for one, other in zip(answers_of(session, fed_as(input_norm, pixels, net)), expected, strict=True):
        torch.testing.assert_close(one, other, atol=2e-3, rtol=1e-3)
    wrong, _ = answers_of(session, fed_as("train" if input_norm == "raw255" else "raw255", pixels, net))
    assert (wrong - expected[0]).abs().max() > 0.01, "another normalization is another input"
    image = pixels[0].permute(1, 2, 0).numpy().astype(np.uint8)
    fed = torch.from_numpy(session.transform(image))[None]
    torch.testing.assert_close(fed, fed_as(input_norm, pixels, net), atol=1e-4, rtol=1e-5)


def test_what_detectnet_feeds_reaches_a_padded_net_exactly(tmp_path):
    """The border, too: a shift folded into the first convolution would be wrong there."""
    net = net_for("vgg16-ssd")
    pixels = image_like(1, net.config.width_height)
    export(net, tmp_path / "net.onnx")
    image = np.ascontiguousarray(pixels[0].permute(1, 2, 0).numpy())
    fed = torch.from_numpy(detectnet.preprocess(image, net.config.width_height))
    exported = answers_of(OnnxSession(tmp_path / "net.onnx"), fed)
    expected = answers_of(TorchSession(net), fed_as("train", pixels.float(), net))
    for one, other in zip(exported, expected, strict=True):
        torch.testing.assert_close(one, other, atol=2e-3, rtol=1e-3)
    naive, _ = answers_of(TorchSession(net), fed)
    assert (naive.argmax(dim=2) != expected[0].argmax(dim=2)).float().mean() > 0.1, "without it another answer"


def test_a_checkpoint_and_its_export_are_alike_to_a_device(tmp_path):
    net = net_for("mb1-ssd-lite")
    export(net, tmp_path / "net.onnx")
    image = np.random.default_rng(0).integers(0, 256, (90, 120, 3)).astype(np.uint8)
    sessions = (TorchSession(net), OnnxSession(tmp_path / "net.onnx"))
    one, other = (session.detect_as_detectnet(image, threshold=0.3) for session in sessions)
    assert len(one.labels) > 0
    assert one.labels.tolist() == other.labels.tolist()
    np.testing.assert_allclose(one.boxes, other.boxes, atol=0.1, rtol=1e-3)


def test_a_training_net_is_left_as_it_was(tmp_path):
    net = net_for("mb1-ssd-lite").train()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    export(net, tmp_path / "net.onnx")
    assert net.training
    assert not net.is_test
    assert all(torch.equal(value, net.state_dict()[key]) for key, value in before.items())


def test_a_static_batch(tmp_path):
    net = net_for("mb1-ssd-lite")
    export(net, tmp_path / "net.onnx", ExportOptions(batch_size=2))
    session = OnnxSession(tmp_path / "net.onnx")
    images = torch.randn(3, 3, 128, 160).clamp(-1, 1)
    scores, _ = answers_of(session, images)
    expected, _ = answers_of(TorchSession(net), TorchSession(net).as_input(images.numpy()))
    assert scores.shape == (3, len(net.priors), 4)
    torch.testing.assert_close(scores, expected, atol=2e-3, rtol=0)


def rewritten(path, change) -> None:
    """Change a file with a function of its model."""
    model = onnx.load(str(path))
    change(model)
    onnx.save(model, str(path))


def perturb(model) -> None:
    tensor = next(tensor for tensor in model.graph.initializer if list(tensor.dims) == [32, 3, 3, 3])
    values = onnx.numpy_helper.to_array(tensor) * 1.01
    tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))


def take_softmax_away(model) -> None:
    node = next(node for node in model.graph.node if node.op_type == "Softmax")
    node.op_type = "Relu"
    del node.attribute[:]


def divide_by_zero(model) -> None:
    node = next(node for node in model.graph.node if "boxes" in node.output)
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.float32([0]), "zero"))
    node.output[0] = "unlimited"
    model.graph.node.append(onnx.helper.make_node("Div", ["unlimited", "zero"], ["boxes"]))


def rename_description(model) -> None:
    entry = next(entry for entry in model.metadata_props if entry.key == "ssd")
    entry.value = entry.value.replace("mb1-ssd-lite", "mb1-ssd")


def say_other_mean(model) -> None:
    entry = next(entry for entry in model.metadata_props if entry.key == "normalisation")
    entry.value = entry.value.replace("127.5", "127")


def use_unknown_operator(model) -> None:
    node = next(node for node in model.graph.node if node.op_type == "Exp")
    exponent, node.output[0] = node.output[0], "exponent"
    model.graph.node.insert(
        list(model.graph.node).index(node) + 1, onnx.helper.make_node("Ceil", ["exponent"], [exponent])
    )


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (perturb, "does not compute what PyTorch does"),
        (take_softmax_away, "do not add up to 1"),
        (divide_by_zero, "answers to ordinary images are not finite"),
        (rename_description, "description is .*mb1-ssd.*expected .*mb1-ssd-lite"),
        (say_other_mean, "normalization is .*127, .*expected .*127.5"),
        (use_unknown_operator, "TensorRT 8.0 does not document the operators Ceil"),
        (lambda model: setattr(model, "ir_version", 10), "IR version is 10, expected at most 8"),
        (
            lambda model: setattr(model.opset_import[0], "version", 12),
            r"opset is \[\('', 12\)\], expected \[\('', 13\)\]",
        ),
        (lambda model: setattr(model.graph.output[0], "name", "confidences"), "no valid ONNX"),
        (lambda model: model.graph.output.pop(), "outputs is .*scores.*expected .*boxes"),
        (lambda model: model.graph.node.pop(), "no valid ONNX"),
    ],
)
def test_a_file_that_is_wrong_is_rejected_and_kept_for_a_look(change, found, tmp_path):
    net = net_for("mb1-ssd-lite")
    (tmp_path / "net.onnx").write_text("an older export")
    with pytest.raises(ExportRejected, match=found) as caught, candidate(tmp_path / "net.onnx") as file:
        write(net, file)
        rewritten(file, change)
        verify(file, net, tensorrt=JETPACKS["4.6"].tensorrt)
    assert "net.onnx.rejected, do not use it" in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["net.onnx", "net.onnx.rejected"]
    assert (tmp_path / "net.onnx").read_text() == "an older export"
    assert (tmp_path / "net.onnx.rejected").stat().st_mode == (tmp_path / "net.onnx").stat().st_mode


def test_weights_in_another_file_are_found(tmp_path):
    net = net_for("mb1-ssd-lite")
    write(net, tmp_path / "net.onnx")
    model = onnx.load(str(tmp_path / "net.onnx"))
    onnx.save(model, str(tmp_path / "net.onnx"), save_as_external_data=True, location="net.data", size_threshold=0)
    with pytest.raises(ExportRejected, match="weights are in other files"):
        check_contract(tmp_path / "net.onnx", net)


def test_an_exporter_that_writes_another_opset_is_found(tmp_path, monkeypatch):
    export_as_asked = torch.onnx.export
    monkeypatch.setattr(
        torch.onnx, "export", lambda *args, **kwargs: export_as_asked(*args, **kwargs | {"opset_version": 18})
    )
    write(net_for("mb1-ssd-lite"), tmp_path / "net.onnx")
    with pytest.raises(ExportRejected, match="opset is .*18.*expected .*13"):
        check_contract(tmp_path / "net.onnx", net_for("mb1-ssd-lite"))


def test_an_exporter_that_writes_the_net_as_it_trains_is_found(tmp_path, monkeypatch):
    """With statistics of the batch instead of its own."""
    net = net_for("mb1-ssd-lite")
    export_as_asked = torch.onnx.export

    def export_training(model, *args, **kwargs):
        return export_as_asked(model.train(), *args, training=torch.onnx.TrainingMode.TRAINING, **kwargs)

    monkeypatch.setattr(torch.onnx, "export", export_training)
    with pytest.raises(ExportRejected), candidate(tmp_path / "net.onnx") as file:
        write(net, file)
        verify(file, net)


@pytest.mark.parametrize(("opset", "ir_version"), [(11, 6), (17, 8), (18, 8)])
def test_other_opsets(opset, ir_version, tmp_path):
    net = net_for("mb1-ssd-fpnlite")
    parity = export(net, tmp_path / "net.onnx", ExportOptions(opset=opset))
    assert parity.difference <= parity.tolerance
    model = onnx.load(str(tmp_path / "net.onnx"))
    assert (model.opset_import[0].version, model.ir_version) == (opset, ir_version)


def test_any_number_of_images(tmp_path):
    net = net_for("mb1-ssd-fpnlite")
    write(net, tmp_path / "net.onnx", ExportOptions(batch_size=None, input_norm="train"))
    verify(tmp_path / "net.onnx", net, ExportOptions(batch_size=None, input_norm="train"))
    session = OnnxSession(tmp_path / "net.onnx")
    assert session.batch_size is None
    images = torch.randn(3, 3, 128, 160).clamp(-1, 1)
    for part in (images, images[:1]):
        scores, _ = answers_of(session, part)
        torch.testing.assert_close(scores, answers_of(TorchSession(net), part)[0], atol=2e-3, rtol=0)


@pytest.mark.parametrize("name", ["mb1-ssd", "mb2-ssd-fpnlite"])
def test_layers_in_16_bits(name, tmp_path, caplog):
    net = net_for(name)
    parity = export(net, tmp_path / "half.onnx", ExportOptions(half=True))
    assert 0 < parity.difference <= parity.tolerance
    assert ("proves little" in caplog.text) == (parity.tolerance > 0.1) == (name == "mb2-ssd-fpnlite")
    assert next(net.parameters()).dtype == torch.float32, "the net is left as it was"
    write(net, tmp_path / "net.onnx")
    size = (tmp_path / "half.onnx").stat().st_size / (tmp_path / "net.onnx").stat().st_size
    assert 0.45 < size < 0.65
    model = onnx.load(str(tmp_path / "half.onnx"))
    half = {tensor.name for tensor in model.graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT16}
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    assert all(set(node.input[1:]) <= half for node in convolutions)
    kinds = {value.type.tensor_type.elem_type for value in (*model.graph.input, *model.graph.output)}
    assert kinds == {onnx.TensorProto.FLOAT}


def test_a_perturbed_weight_is_found_in_16_bits_too(tmp_path):
    net = net_for("mb1-ssd-lite")
    options = ExportOptions(half=True)
    write(net, tmp_path / "net.onnx", options)

    def change(model):
        tensor = next(tensor for tensor in model.graph.initializer if list(tensor.dims) == [32, 3, 3, 3])
        values = onnx.numpy_helper.to_array(tensor) * np.float16(1.5)
        tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))

    rewritten(tmp_path / "net.onnx", change)
    with pytest.raises(ExportRejected, match="does not compute what PyTorch does"):
        verify(tmp_path / "net.onnx", net, options)


@pytest.mark.parametrize(("name", "size"), [("mb3-ssd-lite", 160), ("mb1-ssd-fpnlite", (384, 96))])
def test_no_depthwise_kernel_is_wider_than_a_map_of_one_cell(name, size, tmp_path):
    """OpenCV 4 reads memory beside such a map; a net's kernels themselves stay as they are."""
    net = net_for(name, size)
    kernels = {key: value.shape for key, value in net.state_dict().items()}
    parity = export(net, tmp_path / "net.onnx")
    assert parity.difference <= parity.tolerance
    assert {key: value.shape for key, value in net.state_dict().items()} == kernels
    graph = onnx.shape_inference.infer_shapes(onnx.load(str(tmp_path / "net.onnx"))).graph
    shapes = {value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in graph.value_info}
    weights = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    found = [
        (side, weights[node.input[1]][axis])
        for node in graph.node
        if node.op_type == "Conv" and weights[node.input[1]][1] == 1
        for axis, side in ((2, shapes[node.input[0]][2]), (3, shapes[node.input[0]][3]))
    ]
    assert {kernel for side, kernel in found if side == 1} == {1}
    assert {kernel for side, kernel in found if side > 1} >= {3}


class ShiftedNet:
    """OpenCV's reading of a file, with answers that are a little off."""

    def __init__(self, path: str, change) -> None:
        self._net, self._change = read_in_opencv(path), change

    def setInput(self, images, name):
        self._net.setInput(images, name)

    def forward(self, names):
        scores, boxes = self._net.forward(names)
        return self._change(scores), boxes


read_in_opencv = cv2.dnn.readNetFromONNX


def a_prior_less(scores):
    return scores[:, 1:]


def not_finite(scores):
    return scores * np.float32(np.nan)


@pytest.mark.parametrize(
    ("change", "difference"),
    [(lambda scores: scores + np.float32(0.02), "0.02"), (a_prior_less, "inf"), (not_finite, "inf")],
)
def test_another_answer_of_opencv_is_warned_of(change, difference, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(cv2.dnn, "readNetFromONNX", lambda path: ShiftedNet(path, change))
    parity = export(net_for("mb1-ssd-lite"), tmp_path / "net.onnx")
    assert parity.in_opencv is None
    assert f"OpenCV {cv2.__version__} computes something else in its dnn" in caplog.text
    assert f"differ from PyTorch by {difference}, allowed are " in caplog.text
    assert (tmp_path / "net.onnx").is_file(), "the file itself is right"


def test_a_file_that_opencv_cannot_read_is_warned_of(tmp_path, monkeypatch, caplog):
    def refuse(path):
        return read_in_opencv(str(tmp_path / "nothing.onnx"))

    monkeypatch.setattr(cv2.dnn, "readNetFromONNX", refuse)
    parity = export(net_for("mb1-ssd-lite"), tmp_path / "net.onnx")
    assert parity.in_opencv is None
    assert f"OpenCV {cv2.__version__} cannot run the file in its dnn (OpenCV(" in caplog.text
    assert (tmp_path / "net.onnx").is_file()


@pytest.mark.parametrize("batch_size", [1, 2, None])
def test_opencv_agrees(batch_size, tmp_path, caplog):
    options = ExportOptions(batch_size=batch_size, input_norm="train")
    net = net_for("mb1-ssd-lite")
    write(net, tmp_path / "net.onnx", options)
    parity = verify(tmp_path / "net.onnx", net, options, pixels=image_like(3, net.config.width_height))
    assert 0 < parity.in_opencv <= parity.tolerance
    assert not caplog.text


def test_parity_on_images_that_are_given(tmp_path):
    net = net_for("mb1-ssd-lite")
    write(net, tmp_path / "net.onnx")
    pixels = torch.full((2, 3, 128, 160), 200, dtype=torch.uint8)
    assert verify(tmp_path / "net.onnx", net, pixels=pixels).sensitivity == 0
    assert verify(tmp_path / "net.onnx", net).sensitivity > 0.05


ALL_PROVIDERS = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]


@pytest.mark.parametrize(
    ("device", "available", "expected"),
    [
        ("auto", ALL_PROVIDERS, ALL_PROVIDERS),
        ("auto", ALL_PROVIDERS[2:], ALL_PROVIDERS[2:]),
        ("cpu", ALL_PROVIDERS, ALL_PROVIDERS[2:]),
        ("cuda:1", ALL_PROVIDERS[1:], ALL_PROVIDERS[1:]),
    ],
)
def test_the_best_provider_of_onnxruntime_comes_first(device, available, expected):
    chosen = choose_providers(device, ["AzureExecutionProvider", *available])
    assert [name for name, _ in chosen] == expected
    assert all(options == {"device_id": 1 if device == "cuda:1" else 0} for _, options in chosen[:-1])


@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_a_device_that_onnxruntime_does_not_have(device):
    with pytest.raises(DataError, match=f"--device={device}.*CPUExecutionProvider.*--device=cpu"):
        choose_providers(device, ["CPUExecutionProvider"])


def test_answers_that_are_not_finite_are_rejected(tmp_path):
    net = net_for("mb1-ssd-lite")
    with torch.no_grad():
        net.regression_headers[0][2].bias.fill_(torch.inf)
    with pytest.raises(DataError, match="not finite"):
        export(net, tmp_path / "net.onnx")


def test_an_untrained_net_is_called_one(tmp_path, caplog):
    torch.manual_seed(0)
    spec = MODELS["mb1-ssd-lite"]
    export(spec.build(3, config=spec.config_at(96)), tmp_path / "net.onnx")
    assert "looks untrained" in caplog.text


def test_a_foreign_file_is_run_with_the_usual_normalization(tmp_path, caplog):
    write(net_for("mb1-ssd-lite"), tmp_path / "net.onnx")
    model = onnx.load(str(tmp_path / "net.onnx"))
    del model.metadata_props[:]
    onnx.save(model, str(tmp_path / "net.onnx"))
    session = open_session(tmp_path / "net.onnx")
    assert session.class_names is None
    assert session.num_classes == 4
    assert "does not say its normalization" in caplog.text


def test_files_that_are_no_detector(tmp_path):
    (tmp_path / "none.onnx").write_bytes(b"not a model")
    with pytest.raises(DataError, match="none.onnx: cannot be read as an ONNX model"):
        open_session(tmp_path / "none.onnx")
    with pytest.raises(DataError, match="no such file"):
        open_session(tmp_path / "gone.onnx")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(torch.nn.Linear(2, 2), (torch.zeros(1, 2),), str(tmp_path / "linear.onnx"), dynamo=False)
    with pytest.raises(DataError, match="expected \\['input_0'\\]"):
        open_session(tmp_path / "linear.onnx")


def test_a_file_of_any_size_is_refused(tmp_path):
    net = net_for("mb1-ssd-lite")
    write(net, tmp_path / "net.onnx")
    rewritten(
        tmp_path / "net.onnx",
        lambda model: setattr(model.graph.input[0].type.tensor_type.shape.dim[2], "dim_param", "h"),
    )
    with pytest.raises(DataError, match="three fixed numbers"):
        open_session(tmp_path / "net.onnx")


def test_a_file_is_held_to_what_was_typed(tmp_path):
    net = net_for("mb1-ssd-lite")
    write(net, tmp_path / "net.onnx")
    net.save(str(tmp_path / "net.pth"))
    with pytest.raises(DataError, match="is of mb1-ssd-lite, --net is mb1-ssd"):
        open_session(tmp_path / "net.onnx", net="mb1-ssd")
    with pytest.raises(DataError, match="is a mb1-ssd-lite checkpoint, --net is ssd-mobilenet"):
        open_session(tmp_path / "net.pth", net="ssd-mobilenet")
    with pytest.raises(DataError, match="--mb2-width-mult is 0.5"):
        open_session(tmp_path / "net.onnx", width_mult=0.5)
    with pytest.raises(DataError, match="160x128 only"):
        open_session(tmp_path / "net.onnx", resolution=300)
    assert open_session(tmp_path / "net.onnx", net="mb1-lite-ssd", resolution=(160, 128)).size == (160, 128)
    assert open_session(tmp_path / "net.pth", resolution=200).size == (200, 200)

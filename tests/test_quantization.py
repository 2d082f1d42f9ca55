"""Files in eight bits: what TensorRT's parsers ask of them, and layers that stay in float."""

import warnings

import numpy as np
import onnx
import pytest
from test_export import net_for, rewritten

from vision.deploy import quantization
from vision.deploy.export import ExportRejected, write
from vision.deploy.session import INPUT, OUTPUTS, OnnxSession, open_runtime
from vision.deploy.verification import image_like


def inputs_of(path, count=4):
    session = OnnxSession(path)
    return [session.transform(image.permute(1, 2, 0).numpy())[None] for image in image_like(count, session.size)]


def quantized_files(folder, net):
    """A plain file and its quantized one."""
    write(net_for(net), folder / "plain.onnx")
    quantization.quantize(folder / "plain.onnx", folder / "int8.onnx", inputs_of(folder / "plain.onnx"))
    return folder / "plain.onnx", folder / "int8.onnx"


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The net has branches that are upsampled and added, and clipped values."""
    return quantized_files(tmp_path_factory.mktemp("int8"), "mb2-ssd-fpnlite")


def test_all_convolutions_are_quantized_by_the_rules(files):
    plain, quantized = files
    layers = quantization.layers_of(plain)
    assert quantization.check_quantized(quantized) == len(layers) == len(set(layers))
    model = onnx.load(str(quantized))
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 13)]
    assert model.ir_version == 7
    pairs = sum(node.op_type == "QuantizeLinear" for node in model.graph.node)
    assert pairs == sum(node.op_type == "DequantizeLinear" for node in model.graph.node)
    untouched = {"Softmax", "Exp"}
    feeding = {name for node in model.graph.node if node.op_type in untouched for name in node.input}
    assert not feeding & {name for node in model.graph.node if "Linear" in node.op_type for name in node.output}


def test_a_quantized_file_is_run_like_any_other(files):
    plain, quantized = files
    assert OnnxSession(quantized).class_names == OnnxSession(plain).class_names == ("BACKGROUND", "a", "b", "c")


def test_eight_bits_change_the_answer_a_little(files):
    plain, quantized = files
    image = inputs_of(plain)[1]
    one, other = (open_runtime(path).run(OUTPUTS[:1], {INPUT: image})[0] for path in (plain, quantized))
    assert 1e-5 < np.abs(one - other).mean() < 0.2


def test_layers_that_are_left_in_float(files, tmp_path):
    plain, quantized = files
    layers = quantization.layers_of(plain)
    first = quantization.matching(layers, ["base_net.0"])
    assert first[0] == layers[0]
    quantization.in_float(quantized, tmp_path / "some.onnx", first)
    assert quantization.check_quantized(tmp_path / "some.onnx", first) == len(layers) - len(first)
    with pytest.raises(ExportRejected, match="is not in eight bits"):
        quantization.check_quantized(tmp_path / "some.onnx")
    quantization.in_float(quantized, tmp_path / "all.onnx", layers)
    image = inputs_of(plain)[0]
    one, other = (open_runtime(path).run(OUTPUTS[:1], {INPUT: image})[0] for path in (plain, tmp_path / "all.onnx"))
    np.testing.assert_allclose(one, other, atol=1e-4)
    assert not any("Linear" in node.op_type for node in onnx.load(str(tmp_path / "all.onnx")).graph.node)


def test_names_of_layers():
    layers = ["/net/base_net/base_net.0/Conv", "/net/base_net/base_net.1/Conv", "/net/heads.0/Conv"]
    assert quantization.matching(layers, ["heads", "net.1/*"]) == layers[1:]
    assert quantization.matching(layers, []) == []
    with pytest.raises(ValueError, match=r"'extras' is in no layer's name; they are /net/base_net"):
        quantization.matching(layers, ["extras"])


def spoil(path, layer: str) -> None:
    """Scale a layer's input so that eight bits no longer suffice: one huge value sets the scale."""

    def change(model):
        conv = next(node for node in model.graph.node if node.name == layer)
        pair = {output: node for node in model.graph.node for output in node.output}
        scale = pair[conv.input[0]].input[1]
        tensor = next(tensor for tensor in model.graph.initializer if tensor.name == scale)
        values = onnx.numpy_helper.to_array(tensor) * np.float32(60)
        tensor.CopyFrom(onnx.numpy_helper.from_array(values, scale))

    rewritten(path, change)


@pytest.fixture(scope="module")
def files_of_few_layers(tmp_path_factory):
    """The same of a net with fewer layers: a search runs a file for each."""
    return quantized_files(tmp_path_factory.mktemp("few"), "sq-ssd-lite")


def test_the_search_leaves_the_layer_that_costs_most_in_float(files_of_few_layers, tmp_path):
    plain, quantized = files_of_few_layers
    layers = quantization.layers_of(plain)
    worst = layers[4]
    (tmp_path / "whole.onnx").write_bytes(quantized.read_bytes())
    spoil(tmp_path / "whole.onnx", worst)
    inputs = inputs_of(plain)
    errors = quantization.errors_by_layer(tmp_path / "whole.onnx", plain, inputs[:2], tmp_path / "scratch.onnx")
    assert next(iter(errors)) == worst
    assert set(errors) == set(layers)

    costs = []

    def cost(path):
        in_float = worst in {
            node.name
            for node in onnx.load(str(path)).graph.node
            if node.op_type == "Conv" and "Dequantize" not in node.input[0]
        }
        costs.append(0.0 if in_float else 0.5)
        return costs[-1]

    found = quantization.search(tmp_path / "file.onnx", tmp_path / "whole.onnx", plain, [], inputs, cost, 0.01)
    assert found == [worst]
    assert costs == [0.5, 0.0]
    assert quantization.check_quantized(tmp_path / "file.onnx", found) == len(layers) - 1


def test_the_search_ends_where_nothing_helps(files_of_few_layers, tmp_path):
    plain, quantized = files_of_few_layers
    args = (tmp_path / "file.onnx", quantized, plain, [], inputs_of(plain)[:1])
    found = quantization.search(*args, lambda path: 0.5, 0.01)
    assert len(found) == 2 ** int(np.log2(len(quantization.layers_of(plain)) - 1))
    assert quantization.search(*args, lambda path: 0.0, 0.01) == []


def first_of(model, operator):
    return next(node for node in model.graph.node if node.op_type == operator)


def constant_of(model, name):
    return next(tensor for tensor in model.graph.initializer if tensor.name == name)


def set_constant(model, name, values):
    constant_of(model, name).CopyFrom(onnx.numpy_helper.from_array(values, name))


def shift_zero_point(model):
    name = first_of(model, "QuantizeLinear").input[2]
    set_constant(model, name, np.full_like(onnx.numpy_helper.to_array(constant_of(model, name)), 3))


def use_unsigned(model):
    for node in model.graph.node:
        if "Linear" in node.op_type:
            shape = onnx.numpy_helper.to_array(constant_of(model, node.input[2])).shape
            set_constant(model, node.input[2], np.zeros(shape, np.uint8))
    del model.graph.value_info[:]


def scale_by_nothing(model):
    name = first_of(model, "QuantizeLinear").input[1]
    set_constant(model, name, np.zeros_like(onnx.numpy_helper.to_array(constant_of(model, name))))


def quantize_before_activation(model):
    """Between a convolution and its ReLU or Clip."""
    made_by = {output: node for node in model.graph.node for output in node.output}
    place, activation = next(
        (place, node)
        for place, node in enumerate(model.graph.node)
        if node.op_type in ("Relu", "Clip") and made_by[node.input[0]].op_type == "Conv"
    )
    scale = onnx.numpy_helper.from_array(np.float32(0.1), "one_scale")
    zero = onnx.numpy_helper.from_array(np.int8(0), "one_zero")
    model.graph.initializer.extend([scale, zero])
    source, activation.input[0] = activation.input[0], "around"
    make = onnx.helper.make_node
    model.graph.node.insert(place, make("DequantizeLinear", ["inside", "one_scale", "one_zero"], ["around"]))
    model.graph.node.insert(place, make("QuantizeLinear", [source, "one_scale", "one_zero"], ["inside"]))


def quantize_bias(model):
    conv = first_of(model, "Conv")
    channels = onnx.numpy_helper.to_array(constant_of(model, conv.input[2])).shape
    arrays = {"bias_q": np.zeros(channels, np.int32), "bias_s": np.float32(1), "bias_z": np.int32(0)}
    model.graph.initializer.extend(onnx.numpy_helper.from_array(np.asarray(v), k) for k, v in arrays.items())
    place = list(model.graph.node).index(conv)
    conv.input[2] = "bias"
    model.graph.node.insert(place, onnx.helper.make_node("DequantizeLinear", list(arrays), ["bias"]))


def one_scale_for_a_weight(model):
    made_by = {output: node for node in model.graph.node for output in node.output}
    last = made_by[first_of(model, "Conv").input[1]]
    for node in (last, made_by[last.input[0]]):
        del node.attribute[:]
        node.input[1:] = ["one_scale", "one_zero"]
    arrays = {"one_scale": np.float32(0.1), "one_zero": np.int8(0)}
    model.graph.initializer.extend(onnx.numpy_helper.from_array(np.asarray(v), k) for k, v in arrays.items())


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (shift_zero_point, "zero point is int8 3, expected int8 0"),
        (use_unsigned, "zero point is uint8 0, expected int8 0"),
        (scale_by_nothing, "scales are not all positive"),
        (quantize_before_activation, "scales stand between it and the convolution"),
        (quantize_bias, "zero point is int32|bias is in integers"),
        (one_scale_for_a_weight, "no scale for each of its 32 output channels"),
    ],
)
def test_rules_that_are_broken(files, change, found, tmp_path):
    (tmp_path / "broken.onnx").write_bytes(files[1].read_bytes())
    rewritten(tmp_path / "broken.onnx", change)
    with pytest.raises(ExportRejected, match=found):
        quantization.check_quantized(tmp_path / "broken.onnx")


def test_the_librarys_defaults_break_them(files, tmp_path):
    from onnxruntime.quantization import CalibrationDataReader, quantize_static

    class Reader(CalibrationDataReader):
        def __init__(self):
            self.left = iter(inputs_of(files[0], 1))

        def get_next(self):
            values = next(self.left, None)
            return None if values is None else {INPUT: values}

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of what an older library calls itself
        quantize_static(str(files[0]), str(tmp_path / "default.onnx"), Reader())
    with pytest.raises(ExportRejected):
        quantization.check_quantized(tmp_path / "default.onnx")

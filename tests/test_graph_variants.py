"""Files for other runtimes, made from an exported one."""

import configparser

import numpy as np
import onnx
import pytest
import torch
from test_export import net_for, rewritten

from vision.deploy import graph_variants
from vision.deploy.export import INPUT_NORMS, ExportOptions, ExportRejected, write
from vision.deploy.session import INPUT, OnnxSession, open_runtime
from vision.deploy.verification import image_like
from vision.structures import DataError


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    path = tmp_path_factory.mktemp("variants") / "plain.onnx"
    write(net_for("mb1-ssd-lite"), path)
    return path


def inputs_of(path, count=2):
    session = OnnxSession(path)
    images = [session.transform(image.permute(1, 2, 0).numpy()) for image in image_like(count, session.size)]
    return torch.from_numpy(np.stack(images))


def test_suppression_in_the_graph_is_torchvisions(plain, tmp_path):
    graph_variants.write_with_nms(plain, tmp_path / "nms.onnx", 0.45)
    assert graph_variants.check_with_nms(plain, tmp_path / "nms.onnx", inputs_of(plain), 0.45) > 100
    boxes, scores, labels = open_runtime(tmp_path / "nms.onnx").run(None, {INPUT: inputs_of(plain)[:1].numpy()})
    assert boxes.shape == (len(scores), 4)
    assert set(labels.tolist()) == {1, 2, 3}
    assert scores.min() > 0.01
    with pytest.raises(ExportRejected, match="with suppression keeps .* boxes, of which torchvision's keeps"):
        graph_variants.check_with_nms(plain, tmp_path / "nms.onnx", inputs_of(plain), 0.2)
    with pytest.raises(DataError, match="has inputs"):
        OnnxSession(tmp_path / "nms.onnx")


@pytest.mark.parametrize("opset", [11, 18])
def test_both_variants_at_other_opsets(opset, tmp_path):
    write(net_for("mb1-ssd-lite"), tmp_path / "plain.onnx", ExportOptions(opset=opset))
    images = inputs_of(tmp_path / "plain.onnx", 1)
    graph_variants.write_with_nms(tmp_path / "plain.onnx", tmp_path / "nms.onnx", 0.45)
    graph_variants.check_with_nms(tmp_path / "plain.onnx", tmp_path / "nms.onnx", images, 0.45)
    graph_variants.write_for_deepstream(tmp_path / "plain.onnx", tmp_path / "deepstream.onnx")
    graph_variants.check_for_deepstream(tmp_path / "plain.onnx", tmp_path / "deepstream.onnx", images)


def test_the_outputs_for_deepstream(plain, tmp_path):
    graph_variants.write_for_deepstream(plain, tmp_path / "deepstream.onnx")
    images = inputs_of(plain)
    graph_variants.check_for_deepstream(plain, tmp_path / "deepstream.onnx", images)
    boxes, scores, classes = open_runtime(tmp_path / "deepstream.onnx").run(
        ["detection_boxes", "detection_scores", "detection_classes"], {INPUT: images[:1].numpy()}
    )
    plain_scores, plain_boxes = OnnxSession(plain).run(images[:1].numpy())
    assert {array.dtype for array in (boxes, scores, classes)} == {np.dtype(np.float32)}
    np.testing.assert_allclose(boxes[0][:, [1, 0, 3, 2]], plain_boxes[0], atol=1e-4)
    np.testing.assert_allclose(scores, plain_scores[:, :, 1:].max(axis=2), atol=1e-4)
    assert set(np.unique(classes)) == {1.0, 2.0, 3.0}

    def change(model):
        gather = next(node for node in model.graph.node if "detection_boxes" in node.output)
        name = gather.input[1]
        tensor = next(tensor for tensor in model.graph.initializer if tensor.name == name)
        tensor.CopyFrom(onnx.numpy_helper.from_array(np.int64([0, 1, 2, 3]), name))

    rewritten(tmp_path / "deepstream.onnx", change)
    with pytest.raises(ExportRejected, match="for DeepStream gives other detection_boxes"):
        graph_variants.check_for_deepstream(plain, tmp_path / "deepstream.onnx", images)


@pytest.mark.parametrize("name", INPUT_NORMS)
def test_deepstream_feeds_what_the_file_expects(name):
    """Gst-nvinfer computes net-scale-factor * (pixel - offset)."""
    net = net_for("vgg16-ssd")
    norm = ExportOptions(input_norm=name).input_norm_of(net)
    text = graph_variants.deepstream_config(
        "m.onnx", "labels.txt", 4, (640, 384), norm.mean, norm.std, 0.45, 0.37, "measured"
    )
    config = configparser.ConfigParser()
    config.read_string(text)
    facts = config["property"]
    offsets = np.float64(facts["offsets"].split(";"))
    pixels = np.float64([[0, 100, 255]] * 3)
    fed = float(facts["net-scale-factor"]) * (pixels - offsets[:, None])
    expected = (pixels - np.broadcast_to(np.float64(norm.mean), 3)[:, None]) / norm.std
    np.testing.assert_allclose(fed, expected, atol=1e-12)
    assert facts["infer-dims"] == "3;384;640"
    assert facts["num-detected-classes"] == "4"
    assert (facts["onnx-file"], facts["labelfile-path"]) == ("m.onnx", "labels.txt")
    assert float(config["class-attrs-0"]["pre-cluster-threshold"]) > 1, "the background is no object"
    assert float(config["class-attrs-all"]["nms-iou-threshold"]) == 0.45
    assert float(config["class-attrs-all"]["pre-cluster-threshold"]) == 0.37
    assert "\n# measured\npre-cluster-threshold=" in text

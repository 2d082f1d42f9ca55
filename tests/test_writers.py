"""Datasets written for labelling tools: what is read back is what was written, and nothing there is written over."""

import json
import xml.etree.ElementTree as ET
from pathlib import PurePosixPath

import cv2
import numpy as np
import pytest

from vision.datasets import WRITERS, ReadingOptions, open_folder
from vision.datasets.writer import WrittenImage
from vision.options.kinds import WRITTEN_FORMATS
from vision.structures import DataError

CLASSES = ("red apple", 'R&D "box"')

#: Greatest difference of a coordinate, in pixels of images of 96 x 80: VOC has whole pixels.
TOLERANCE = {"voc": 0.5, "yolo": 1e-3}

IMAGES = (
    WrittenImage(
        PurePosixPath("one.jpg"),
        (96, 80),
        np.array([[3.25, 4.5, 40.0, 60.75], [50.0, 10.0, 95.5, 79.5]]),
        CLASSES,
        (0.875, 0.5),
    ),
    WrittenImage(PurePosixPath("below/one.jpg"), (96, 80), np.array([[10.5, 20.0, 30.0, 40.0]]), CLASSES[1:], (0.75,)),
    WrittenImage(PurePosixPath("nothing.jpg"), (96, 80), np.zeros((0, 4)), (), ()),
)


def write(root, name, images=IMAGES):
    with WRITERS[name](root, CLASSES) as writer:
        for number, image in enumerate(images):
            path = writer.image_path(image.name)
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), np.full((80, 96, 3), 40 * number + 20, np.uint8))
            writer.add(image)
    return writer


def test_options_know_the_writers():
    assert tuple(WRITERS) == WRITTEN_FORMATS


@pytest.mark.parametrize("name", WRITTEN_FORMATS)
def test_what_is_written_is_read_back(tmp_path, name):
    writer = write(tmp_path / "d", name)
    reader = open_folder("auto", tmp_path / "d", ReadingOptions(cache=False))
    assert reader.name == name
    records = reader.read(reader.listed_or_all("train")).records
    found = {record.image_path: record for record in records}
    for image in IMAGES[:2]:
        record = found[writer.image_path(image.name)]
        assert record.names == tuple(image.names)
        np.testing.assert_allclose(record.boxes, image.boxes, atol=TOLERANCE.get(name, 0.01) + 1e-3)
        assert record.size == image.size


@pytest.mark.parametrize("name", ["voc", "yolo", "labelme"])
def test_an_annotation_that_is_there_stays(tmp_path, name):
    write(tmp_path, name)
    (path,) = [path for path in tmp_path.rglob("one.*") if path.suffix != ".jpg" and path.parent.name != "below"]
    path.write_text("corrected")
    assert write(tmp_path, name).kept == 2
    assert path.read_text() == "corrected"


@pytest.mark.parametrize("name", ["coco", "cvat", "createml"])
def test_a_file_of_all_annotations_that_is_there_stays(tmp_path, name):
    write(tmp_path, name)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(DataError, match="is there already.* another --output"):
        write(tmp_path, name, IMAGES[:1])
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("name", ["voc", "yolo", "labelme"])
def test_an_image_without_findings_has_no_annotation(tmp_path, name):
    write(tmp_path, name)
    assert not [path for path in tmp_path.rglob("nothing.*") if path.suffix != ".jpg"]


@pytest.mark.parametrize("name", ["coco", "cvat", "createml"])
def test_what_was_written_before_an_error_is_kept(tmp_path, name):
    with pytest.raises(RuntimeError, match="the camera"), WRITERS[name](tmp_path, CLASSES) as writer:
        writer.add(IMAGES[0])
        raise RuntimeError("the camera is gone")
    (path,) = [path for path in tmp_path.rglob("*") if path.is_file()]
    text = path.read_text()
    assert "one.jpg" in text
    ET.fromstring(text) if path.suffix == ".xml" else json.loads(text)


def test_scores_are_where_the_format_has_room_for_them(tmp_path):
    for name in WRITTEN_FORMATS:
        write(tmp_path / name, name)
    assert [float(element.text) for element in ET.parse(tmp_path / "voc/Annotations/one.xml").iter("score")] == [
        0.875,
        0.5,
    ]
    coco = json.loads((tmp_path / "coco/annotations/instances_default.json").read_text())
    assert [entry["score"] for entry in coco["annotations"]] == [0.875, 0.5, 0.75]
    assert [shape["score"] for shape in json.loads((tmp_path / "labelme/one.json").read_text())["shapes"]] == [
        0.875,
        0.5,
    ]
    createml = json.loads((tmp_path / "createml/_annotations.createml.json").read_text())
    assert [one["confidence"] for one in createml[0]["annotations"]] == [0.875, 0.5]


@pytest.mark.parametrize(("name", "path"), [("yolo", "labels/classes.txt"), ("voc", "labels.txt")])
def test_a_list_of_other_classes_is_refused(tmp_path, name, path):
    """In YOLO's files a number would mean another class."""
    write(tmp_path, name)
    (tmp_path / path).write_text("banana\n")
    with pytest.raises(DataError, match="lists \\['banana'\\], the model knows"):
        write(tmp_path, name)
    (tmp_path / path).write_text("".join(f"{name}\n" for name in (*CLASSES, "added by a person")))
    assert write(tmp_path, name).kept == 2


def test_voc_boxes_end_within_the_image(tmp_path):
    image = WrittenImage(PurePosixPath("a.jpg"), (96, 80), np.array([[0.0, 0.0, 96.0, 80.0]]), CLASSES[:1], (0.5,))
    write(tmp_path, "voc", [image])
    box = next(ET.parse(tmp_path / "Annotations/a.xml").iter("bndbox"))
    assert [int(corner.text) for corner in box] == [1, 1, 96, 80]

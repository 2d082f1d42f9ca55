"""Formats beside VOC and Open Images, and that all of them say the same of the same pictures."""

import json

import numpy as np
import pytest
from conftest import CLASSES
from PIL import Image

from vision.datasets import DATASETS, join, open_dataset, synthetic
from vision.datasets.coco import CocoDataset
from vision.datasets.yolo import YoloDataset
from vision.structures import DataError

WRITERS = {
    "voc": synthetic.write_voc,
    "open_images": synthetic.write_open_images,
    "coco": synthetic.write_coco,
    "yolo": synthetic.write_yolo,
}


@pytest.fixture(scope="module")
def roots(tmp_path_factory):
    """The same 30 pictures in every format."""
    drawings = synthetic.drawings(30, 7, size=(120, 90))
    splits = {"train": drawings[:24], "test": drawings[24:]}
    folders = {name: tmp_path_factory.mktemp(name) for name in WRITERS}
    for name, write in WRITERS.items():
        write(folders[name], splits)
    return folders, splits


def test_every_format_is_written_here():
    assert set(WRITERS) == set(DATASETS)


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("name", WRITERS)
def test_all_formats_say_the_same(roots, name, split):
    """To a hundredth of a pixel: YOLO's six decimals are the coarsest."""
    folders, splits = roots
    for dataset_type in (name, "auto"):
        dataset = open_dataset(dataset_type, folders[name], split)
        assert type(dataset) is DATASETS[name]
        assert dataset.class_names == ("BACKGROUND", *CLASSES)
        assert len(dataset) == len(splits[split])
        assert dataset.defects == []
        for index, drawing in enumerate(splits[split]):
            annotation = dataset.annotation(index)
            np.testing.assert_allclose(annotation.boxes, drawing.boxes, atol=0.01)
            assert [dataset.class_names[label] for label in annotation.labels] == list(drawing.names)


def test_formats_can_be_mixed(roots):
    folders, splits = roots
    joined = join([open_dataset("auto", folder, "train") for folder in folders.values()])
    assert len(joined) == 4 * len(splits["train"])
    assert sum(joined.class_counts().values()) == 4 * sum(len(drawing.names) for drawing in splits["train"])
    assert joined.class_names == ("BACKGROUND", *CLASSES)


def put_image(path, size=(100, 50)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size).save(path)


def put_coco(path, **changes):
    content = {
        "images": [{"id": 5, "file_name": "a.jpg"}],
        "categories": [
            {"id": 0, "name": "things", "supercategory": "none"},
            {"id": 3, "name": "cat", "supercategory": "things"},
        ],
        "annotations": [{"image_id": 5, "category_id": 3, "bbox": [10, 5, 20, 30]}],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**content, **changes}))


@pytest.mark.parametrize(
    ("file", "picture"),
    [
        ("annotations/instances_val2017.json", "val2017/a.jpg"),
        ("annotations/instances_val2017.json", "images/val2017/a.jpg"),
        ("valid/_annotations.coco.json", "valid/a.jpg"),
        ("test.json", "images/a.jpg"),
        ("annotations/val.json", "images/val/a.jpg"),
    ],
)
def test_layouts_of_coco(tmp_path, file, picture):
    put_coco(tmp_path / file)
    put_image(tmp_path / picture)
    dataset = CocoDataset(tmp_path, "test")
    assert dataset.class_names == ("BACKGROUND", "cat"), "a category that only groups others is none"
    assert dataset.annotation(0).boxes.tolist() == [[10, 5, 30, 35]]
    assert CocoDataset.recognises(tmp_path)


def test_crowds_are_difficult_and_broken_annotations_named(tmp_path, caplog):
    crowd = {"image_id": 5, "category_id": 3, "bbox": [0, 0, 9, 9], "iscrowd": 1}
    bad = [{"image_id": 5, "category_id": 9, "bbox": [0, 0, 9, 9]}, {"image_id": 5, "category_id": 3, "bbox": []}]
    put_coco(tmp_path / "train.json", annotations=[crowd, *bad])
    put_image(tmp_path / "a.jpg")
    dataset = CocoDataset(tmp_path)
    assert dataset.annotation(0).difficult.tolist() == [True]
    assert len(dataset.defects) == 2
    assert "annotation 2 left out" in caplog.text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot be read as JSON"),
        ("[]", "lacks the lists images"),
        ('{"images": []}', "lacks the lists annotations, categories"),
    ],
)
def test_files_that_are_no_coco(tmp_path, content, message):
    (tmp_path / "train.json").write_text(content)
    with pytest.raises(DataError, match=f"train.json: {message}"):
        CocoDataset(tmp_path)


def test_coco_without_split_or_pictures(tmp_path):
    put_coco(tmp_path / "train.json")
    with pytest.raises(DataError, match="no COCO file of the split test or val"):
        CocoDataset(tmp_path, "test")
    with pytest.raises(DataError, match="none of its 1 pictures is there; first: a.jpg"):
        CocoDataset(tmp_path)


def put_yolo(root, text="0 0.5 0.5 0.2 0.4\n", image="images/train/a.jpg", config="names: [cat, dog]\n"):
    put_image(root / image)
    label = (root / image.replace("images", "labels")).with_suffix(".txt")
    label.parent.mkdir(parents=True, exist_ok=True)
    if text is not None:
        label.write_text(text)
    if config is not None:
        (root / "data.yaml").write_text(config)


@pytest.mark.parametrize(
    ("image", "config", "split"),
    [
        ("images/train/a.jpg", "names: [cat, dog]\n", "train"),
        ("train/images/a.jpg", "names:\n  1: dog\n  0: cat\ntrain: ../train/images\n", "train"),
        ("valid/images/a.jpg", "names: [cat, dog]\nval: ../valid/images\n", "test"),
        ("pictures/images/a.jpg", "path: /elsewhere\nnames: [cat, dog]\ntest: pictures/images\n", "test"),
        ("images/val/deep/a.jpg", "names: [cat, dog]\nval: images/val\n", "test"),
    ],
)
def test_layouts_of_yolo(tmp_path, image, config, split):
    put_yolo(tmp_path, image=image, config=config)
    dataset = YoloDataset(tmp_path, split)
    assert dataset.class_names == ("BACKGROUND", "cat", "dog")
    np.testing.assert_allclose(dataset.annotation(0).boxes, [[40, 15, 60, 35]], atol=1e-4)


def test_yolo_takes_names_from_a_list(tmp_path):
    put_yolo(tmp_path, config=None)
    with pytest.raises(DataError, match="no class names"):
        YoloDataset(tmp_path)
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    assert YoloDataset(tmp_path).class_names == ("BACKGROUND", "cat", "dog")


def test_polygons_become_boxes_and_broken_lines_are_named(tmp_path, caplog):
    put_yolo(
        tmp_path, "1 0.1 0.2 0.3 0.2 0.2 0.6\n\n7 0.5 0.5 0.1 0.1\ncat 0.5 0.5 0.1 0.1\n0 0.5\n0 0.5 0.5 0.2 0.4 0.9\n"
    )
    dataset = YoloDataset(tmp_path)
    np.testing.assert_allclose(dataset.annotation(0).boxes, [[10, 10, 30, 30], [40, 15, 60, 35]], atol=1e-4)
    assert dataset.annotation(0).labels.tolist() == [2, 1]
    assert len(dataset.defects) == 3
    assert "line 3 left out: '7 0.5 0.5 0.1 0.1'" in caplog.text


def test_pictures_without_text_have_no_objects(tmp_path):
    put_yolo(tmp_path, text=None)
    assert len(YoloDataset(tmp_path).annotation(0).labels) == 0


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("names: [a", "cannot be read as YAML"),
        ("- a\n", "holds no settings"),
        ("names: [a]\n", "no pictures of the split"),
    ],
)
def test_yolo_folders_that_cannot_be_read(tmp_path, config, message):
    (tmp_path / "data.yaml").write_text(config)
    with pytest.raises(DataError, match=message):
        YoloDataset(tmp_path)
    (tmp_path / "images" / "train").mkdir(parents=True)
    (tmp_path / "data.yaml").write_text("names: [a]\n")
    with pytest.raises(DataError, match="holds no picture"):
        YoloDataset(tmp_path)

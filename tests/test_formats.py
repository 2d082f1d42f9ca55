"""Formats beside VOC and Open Images, and that all of them say the same of the same images."""

import json

import dataset_writers
import numpy as np
import pytest
from conftest import CLASSES
from PIL import Image

from vision.datasets import DATASETS, DetectionDataset, join, open_dataset, open_folder, open_splits, synthetic
from vision.datasets.coco import CocoReader
from vision.datasets.records import RawObject
from vision.structures import DataError

WRITERS = {
    "camera-capture": ("voc", synthetic.write_voc),
    "labelimg": ("voc", dataset_writers.write_labelimg),
    "cvat": ("voc", dataset_writers.write_cvat),
    "roboflow": ("voc", dataset_writers.write_roboflow),
    "kaggle": ("voc", dataset_writers.write_kaggle),
    "open_images": ("open_images", dataset_writers.write_open_images),
    "coco": ("coco", dataset_writers.write_coco),
    "yolo": ("yolo", dataset_writers.write_yolo),
    "cvat images": ("cvat", dataset_writers.write_cvat_images),
    "labelme": ("labelme", dataset_writers.write_labelme),
    "createml": ("createml", dataset_writers.write_createml),
    "table": ("csv", dataset_writers.write_table),
    "kitti": ("kitti", dataset_writers.write_kitti),
    "oidv4": ("oidv4", dataset_writers.write_oidv4),
    "imglab": ("imglab", dataset_writers.write_imglab),
    "via": ("via", dataset_writers.write_via),
    "label studio": ("label_studio", dataset_writers.write_label_studio),
}
#: YOLO's six decimals are the coarsest: a hundredth of a pixel.
TOLERANCE = 0.01


@pytest.fixture(scope="module")
def roots(tmp_path_factory):
    """The same 30 images in every form."""
    drawings = synthetic.drawings(30, 7, size=(120, 90))
    splits = {"train": drawings[:24], "test": drawings[24:]}
    folders = {name: tmp_path_factory.mktemp(name) for name in WRITERS}
    for name, (_, write) in WRITERS.items():
        write(folders[name], splits)
    return folders, splits


def test_every_format_is_written_here():
    assert {name for name, _ in WRITERS.values()} == set(DATASETS)


def assert_same(dataset, drawings):
    assert dataset.class_names == ("BACKGROUND", *CLASSES)
    defects = [*dataset.defects, *dataset.class_defects()]
    assert [defect for defect in defects if defect.kind != "label-background"] == [], "CVAT always lists one"
    assert len(dataset) == len(drawings)
    numbers = {tuple(drawing.boxes.ravel().round().tolist()): number for number, drawing in enumerate(drawings)}
    found = set()
    for index in range(len(dataset)):
        annotation = dataset.annotation(index)
        number = numbers[tuple(annotation.boxes.ravel().round().tolist())]
        found.add(number)
        np.testing.assert_allclose(annotation.boxes, drawings[number].boxes, atol=TOLERANCE)
        assert [dataset.class_names[label] for label in annotation.labels] == list(drawings[number].names)
        assert np.abs(dataset.get_image(index).astype(int) - drawings[number].image).mean() < 16
    assert found == set(range(len(drawings))), "each of them once"


@pytest.mark.parametrize("name", [name for name in WRITERS if name != "kaggle"])
def test_all_forms_say_the_same(roots, name):
    folders, splits = roots
    dataset_type, _ = WRITERS[name]
    for wanted in (dataset_type, "auto"):
        assert open_folder(wanted, folders[name]).name == dataset_type
        train, validation = open_splits(wanted, [folders[name]])
        assert_same(train, splits["train"])
        assert_same(validation, splits["test"])


def test_a_form_without_lists_says_the_same_of_all_images(roots):
    folders, splits = roots
    train, validation = open_splits("auto", [folders["kaggle"]])
    assert (len(train), len(validation)) == (24, 6)
    assert_same(join([train, validation]), splits["train"] + splits["test"])


def test_forms_can_be_mixed(roots):
    folders, splits = roots
    train, validation = open_splits("auto", list(folders.values()))
    images = splits["train"] + splits["test"]
    assert len(train) + len(validation) == len(WRITERS) * len(images)
    counts = sum(train.class_counts().values()) + sum(validation.class_counts().values())
    assert counts == len(WRITERS) * sum(len(drawing.names) for drawing in images)
    assert train.class_names == validation.class_names == ("BACKGROUND", *CLASSES)


def listed(name, root, split="train"):
    """Read what a list or folder names, without holding any image out."""
    folder = open_folder(name, root)
    contents = folder.read(folder.listing(split))
    return DetectionDataset(contents.records, folder.class_names(), defects=contents.defects, **contents.origin)


def put_image(path, size=(100, 50)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size).save(path)


def put_coco(path, **changes):
    content = {
        "images": [{"id": 5, "file_name": "a.jpg", "width": 100, "height": 50}],
        "categories": [
            {"id": 0, "name": "things", "supercategory": "none"},
            {"id": 3, "name": "cat", "supercategory": "things"},
        ],
        "annotations": [{"image_id": 5, "category_id": 3, "bbox": [10, 5, 20, 30]}],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**content, **changes}))


def test_polygons_beside_boxes_are_not_kept_and_objects_made_when_they_are_looked_at(tmp_path):
    polygon = [[10, 10, 30, 10, 30, 20]]
    annotations = [
        {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 3.5, 4], "segmentation": polygon, "area": 14},
        {"id": 2, "image_id": 1, "category_id": 1, "bbox": [], "segmentation": polygon},
    ]
    content = {
        "images": [{"id": 1, "file_name": "a.jpg", "width": 40, "height": 30}],
        "annotations": annotations,
        "categories": [{"id": 1, "name": "cat"}],
    }
    (tmp_path / "instances.json").write_text(json.dumps(content))
    Image.new("RGB", (40, 30)).save(tmp_path / "a.jpg")
    reader = CocoReader(tmp_path)
    (raw,) = reader.all_images().images
    expected = [
        RawObject("annotation 1", "cat", (1.0, 2.0, 4.5, 6.0), written="[1, 2, 3.5, 4]"),
        RawObject("annotation 2", "cat", (10.0, 10.0, 30.0, 20.0), written="[]"),
    ]
    assert list(raw.objects) == [raw.objects[0], *raw.objects[1:]] == expected
    assert raw.objects == expected
    assert raw.objects != expected[:1]
    kept = json.dumps(list(reader._contents.values()))
    assert ("area" in kept, kept.count("segmentation")) == (False, 1)


@pytest.mark.parametrize(
    ("file", "image"),
    [
        ("annotations/instances_val2017.json", "val2017/a.jpg"),
        ("annotations/instances_val2017.json", "images/val2017/a.jpg"),
        ("valid/_annotations.coco.json", "valid/a.jpg"),
        ("test.json", "images/a.jpg"),
        ("annotations/val.json", "images/val/a.jpg"),
    ],
)
def test_layouts_of_coco(tmp_path, file, image):
    put_coco(tmp_path / file)
    put_image(tmp_path / image)
    dataset = open_dataset("coco", tmp_path, "test")
    assert dataset.class_names == ("BACKGROUND", "cat"), "a category that only groups others is none"
    assert dataset.annotation(0).boxes.tolist() == [[10, 5, 30, 35]]
    assert CocoReader.recognizes(tmp_path)


def test_crowds_are_difficult_and_broken_annotations_named(tmp_path):
    crowd = {"image_id": 5, "category_id": 3, "bbox": [0, 0, 9, 9], "iscrowd": 1}
    bad = [{"image_id": 5, "category_id": 9, "bbox": [0, 0, 9, 9]}, {"image_id": 5, "category_id": 3, "bbox": []}]
    put_coco(tmp_path / "train.json", annotations=[crowd, *bad])
    put_image(tmp_path / "a.jpg")
    dataset = listed("coco", tmp_path)
    assert dataset.annotation(0).difficult.tolist() == [True]
    assert [str(defect).partition("train.json: ")[2] for defect in [*dataset.defects, *dataset.class_defects()]] == [
        "annotation 3 'cat' of image a left out: its box is [], expected four numbers",
        f"1 object is left out: class 'category 9' is not in the list ['cat']; first: {tmp_path}/train.json annotation 2",
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", ": no COCO file; train.json: none of COCO's lists"),
        ('{"images": [', "train.json: cannot be read as JSON"),
        ('{"images": []}', "train.json: lacks the lists annotations, categories"),
    ],
)
def test_files_that_are_no_coco(tmp_path, content, message):
    (tmp_path / "train.json").write_text(content)
    with pytest.raises(DataError, match=message):
        open_dataset("coco", tmp_path, "train")


def test_coco_without_split_or_images(tmp_path):
    put_coco(tmp_path / "train.json")
    with pytest.raises(DataError, match="its 1 images are too few to hold some out"):
        open_dataset("coco", tmp_path, "test")
    with pytest.raises(
        DataError, match="none of its 1 images can be used; first: .*image a.jpg left out: no such file"
    ):
        listed("coco", tmp_path)


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
        ("photos/images/a.jpg", "path: /elsewhere\nnames: [cat, dog]\ntest: photos/images\n", "test"),
        ("images/val/deep/a.jpg", "names: [cat, dog]\nval: images/val\n", "test"),
    ],
)
def test_layouts_of_yolo(tmp_path, image, config, split):
    put_yolo(tmp_path, image=image, config=config)
    dataset = listed("yolo", tmp_path, split)
    assert dataset.class_names == ("BACKGROUND", "cat", "dog")
    np.testing.assert_allclose(dataset.annotation(0).boxes, [[40, 15, 60, 35]], atol=1e-4)


#: Texts that YAML 1.1 has other values for, and that may all be what somebody calls a class.
NAMES_OF_OTHER_KINDS = [
    *("on", "off", "yes", "no", "True", "y", "null", "~", "010", "0x1F", "1_000", "1.0", "1e3", ".inf", ".nan"),
    *("12:30", "2024-01-31", "2001-12-14 21:59:43", "=", "7"),
]


@pytest.mark.parametrize("by_number", [False, True])
def test_names_in_yaml_are_what_is_written_there(tmp_path, by_number):
    count = len(NAMES_OF_OTHER_KINDS)
    keys = [f"{number}:" for number in range(count)] if by_number else ["-"] * count
    names = "".join(f"  {key} {name}\n" for key, name in zip(keys, NAMES_OF_OTHER_KINDS, strict=True))
    lines = "".join(f"{number} 0.5 0.5 0.2 0.4\n" for number in range(count))
    put_yolo(tmp_path, lines, config=f"nc: {count}\ntrain: ~\nval: null\ntest:\nkpt_shape: null\nnames:\n{names}")
    dataset = listed("yolo", tmp_path)
    assert list(dataset.class_names[1:]) == NAMES_OF_OTHER_KINDS
    assert list(dataset.records[0].names) == NAMES_OF_OTHER_KINDS
    assert dataset.class_defects() == dataset.defects == []


def test_quotes_and_merged_mappings_in_yaml(tmp_path):
    put_yolo(tmp_path, config="base: &base {0: 'on', 01: \"off\"}\nnames:\n  <<: *base\n  1: no\n")
    assert listed("yolo", tmp_path).class_names[1:3] == ("on", "no")


@pytest.mark.parametrize(("label", "name"), [(0, "0"), (True, "true"), (1.0, "1.0"), ("010", "010")])
def test_names_in_json_are_what_is_written_there(tmp_path, label, name):
    put_coco(tmp_path / "coco" / "train.json", categories=[{"id": 3, "name": label}])
    shape = {"label": label, "points": [[10, 5], [30, 35]], "shape_type": "rectangle"}
    box = {"label": label, "coordinates": {"x": 20, "y": 20, "width": 20, "height": 30}}
    contents = {
        "labelme": {"imagePath": "a.jpg", "shapes": [shape]},
        "createml": [{"image": "a.jpg", "annotations": [box]}],
    }
    for kind, content in contents.items():
        (tmp_path / kind).mkdir()
        (tmp_path / kind / "a.json").write_text(json.dumps(content))
    for kind in ("coco", *contents):
        put_image(tmp_path / kind / "a.jpg")
        folder = open_folder(kind, tmp_path / kind)
        records = folder.read(folder.all_images()).records
        assert (kind, folder.class_names(), records[0].names) == (kind, ("BACKGROUND", name), (name,))


def test_yolo_takes_names_from_a_list(tmp_path):
    put_yolo(tmp_path, config=None)
    with pytest.raises(DataError, match="no class names"):
        listed("yolo", tmp_path)
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    assert listed("yolo", tmp_path).class_names == ("BACKGROUND", "cat", "dog")


def test_polygons_become_boxes_and_broken_lines_are_named(tmp_path):
    put_yolo(
        tmp_path, "1 0.1 0.2 0.3 0.2 0.2 0.6\n\n7 0.5 0.5 0.1 0.1\ncat 0.5 0.5 0.1 0.1\n0 0.5\n0 0.5 0.5 0.2 0.4 0.9\n"
    )
    dataset = listed("yolo", tmp_path)
    expected = [[10, 10, 30, 30], [45, 22.5, 55, 27.5], [40, 15, 60, 35]]
    np.testing.assert_allclose(dataset.annotation(0).boxes, expected, atol=1e-4)
    assert dataset.annotation(0).labels.tolist() == [2, 1, 1]
    assert [defect.message for defect in [*dataset.defects, *dataset.class_defects()]] == [
        "line 5 'cat' left out: its box is '0 0.5', expected four numbers",
        "1 object is left out: class 'class 7' is not in the list ['cat', 'dog']; first: "
        f"{tmp_path}/labels/train/a.txt line 3",
    ]


def test_images_without_text_have_no_objects(tmp_path):
    put_yolo(tmp_path, text=None)
    assert len(listed("yolo", tmp_path).annotation(0).labels) == 0


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("names: [a", "cannot be read as YAML"),
        ("- a\n", "holds no settings"),
        ("names: [a]\n", "holds no image"),
    ],
)
def test_yolo_folders_that_cannot_be_read(tmp_path, config, message):
    (tmp_path / "data.yaml").write_text(config)
    with pytest.raises(DataError, match=message):
        open_dataset("yolo", tmp_path, "train")
    (tmp_path / "images" / "train").mkdir(parents=True)
    (tmp_path / "data.yaml").write_text("names: [a]\n")
    with pytest.raises(DataError, match="holds no image"):
        listed("yolo", tmp_path)

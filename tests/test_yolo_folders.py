"""YOLO's folders as people have them: lists of classes, settings, images and texts in all places where tools put them."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vision.datasets import ReadingOptions, open_folder, open_splits
from vision.structures import DataError

AFRESH = ReadingOptions(cache=False)
LINE = "0 0.5 0.5 0.2 0.4"
BOX = [40, 15, 60, 35]


def put_text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def put(root: Path, images: str, texts: str | None, count: int = 3, line: str = LINE, suffix: str = ".jpg") -> None:
    """Put images, of another grey each, into a folder, with texts of one object each in another."""
    for number in range(count):
        path = root / images / f"{number}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (100, 50), (len(images) * 9 % 256, 20 * number, 0)).save(path)
        if texts is not None:
            put_text(root / texts / f"{number}.txt", f"{line}\n")


def read(root: Path, kind: str = "auto"):
    return open_splits(kind, [root], AFRESH)


def where(dataset) -> dict[str, int]:
    """Count the images of a dataset by their folder, and hold each of them to its one box."""
    counts: dict[str, int] = {}
    for index, record in enumerate(dataset.records):
        np.testing.assert_allclose(dataset.annotation(index).boxes, [BOX], atol=1e-4)
        counts[record.image_path.parent.name] = counts.get(record.image_path.parent.name, 0) + 1
    return counts


def total(splits) -> int:
    return sum(sum(where(dataset).values()) for dataset in splits)


def said(dataset, kind: str) -> list[str]:
    return [str(defect) for defect in dataset.defects if defect.kind == kind]


# Lists of classes.


@pytest.mark.parametrize("kind", ["auto", "yolo"])
@pytest.mark.parametrize(
    "place",
    [
        *("classes.txt", "predefined_classes.txt", "labels/classes.txt", "labels/train/classes.txt"),
        *("images/classes.txt", "images/train/Classes.TXT", "data/obj.names", "data/predefined_classes.txt"),
        *("birds.names", "cfg/birds.names", "labels/class_names.txt"),
    ],
)
def test_a_list_of_classes_is_found_wherever_tools_put_it(tmp_path, place, kind):
    for split in ("train", "val"):
        put(tmp_path, f"images/{split}", f"labels/{split}")
    put_text(tmp_path / place, "duck\n")
    train, validation = read(tmp_path, kind)
    assert (where(train), where(validation)) == ({"train": 3}, {"val": 3})
    assert train.class_names == ("BACKGROUND", "duck")
    assert train.defects == validation.defects == []


def test_lists_that_differ_are_refused_by_name(tmp_path):
    for split in ("train", "val"):
        put(tmp_path, f"{split}/images", f"{split}/labels")
        put_text(tmp_path / f"{split}/labels/classes.txt", "duck\n")
    assert total(read(tmp_path)) == 6, "they may be the same"
    put_text(tmp_path / "val/labels/classes.txt", "goose\nduck\n")
    named = r"lists of classes that differ: train/labels/classes.txt, val/labels/classes.txt; keep the one"
    for kind in ("auto", "yolo"):
        with pytest.raises(DataError, match=named):
            read(tmp_path, kind)
    put_text(tmp_path / "data.yaml", "train: train/images\nval: val/images\nnames: [duck]\n")
    train, _ = read(tmp_path)
    assert [text.partition(": ")[0] for text in said(train, "label-lists")] == [
        str(tmp_path / "val/labels/classes.txt")
    ]


def test_a_list_for_a_net_has_the_same_classes(tmp_path):
    put(tmp_path, "images", "labels")
    put_text(tmp_path / "classes.txt", "duck\n")
    put_text(tmp_path / "labels.txt", "BACKGROUND\nduck\n")
    assert total(read(tmp_path)) == 3


def test_lists_of_several_datasets_name_their_folders(tmp_path):
    for name in ("ducks", "geese"):
        put(tmp_path, f"{name}/images", f"{name}/labels")
        put_text(tmp_path / name / "labels/classes.txt", f"{name}\n")
    put_text(tmp_path / "README.md", "birds")
    with pytest.raises(DataError, match=f"name them one by one: --data {tmp_path}/ducks {tmp_path}/geese$"):
        read(tmp_path)


def test_settings_further_down_are_named_with_the_folder_that_works(tmp_path):
    put(tmp_path / "dataset", "train/images", "train/labels")
    put_text(tmp_path / "dataset/data.yaml", "names: [duck]\ntrain: ../train/images\n")
    put_text(tmp_path / "README.md", "birds")
    for kind in ("auto", "yolo"):
        with pytest.raises(DataError, match=f"in {tmp_path}/dataset/data.yaml; use --data={tmp_path}/dataset$"):
            read(tmp_path, kind)
    assert total(read(tmp_path / "dataset")) == 3


def test_settings_beside_the_data_are_named(tmp_path):
    put(tmp_path, "images", "labels")
    put_text(tmp_path / "config/birds.yaml", "names: [duck]\ntrain: images\n")
    with pytest.raises(DataError, match=r"config/birds.yaml has some: copy it to .*data.yaml$"):
        read(tmp_path)


@pytest.mark.parametrize(
    "names", ["names: duck\n", "names: classes/birds.txt\n", "names:\n  0: duck\n", "nc: 1\nnames: ['duck']\n"]
)
def test_names_of_settings_in_every_form(tmp_path, names):
    put(tmp_path, "images/train", "labels/train")
    put_text(tmp_path / "data.yaml", f"train: images/train\n{names}")
    put_text(tmp_path / "classes/birds.txt", "duck\n")
    assert read(tmp_path).train.class_names == ("BACKGROUND", "duck")


def test_a_number_of_classes_without_names_is_no_list(tmp_path):
    put(tmp_path, "images/train", "labels/train")
    put_text(tmp_path / "data.yaml", "train: images/train\nnc: 1\n")
    with pytest.raises(DataError, match=r"data.yaml: no class names; expected `names:`"):
        read(tmp_path)
    splits = open_splits("yolo", [tmp_path], ReadingOptions(cache=False, labels_from_data=True))
    assert splits.train.class_names == ("BACKGROUND", "class 0")


def test_an_image_may_be_called_as_a_list(tmp_path):
    put(tmp_path, "images", "labels")
    (tmp_path / "images/0.jpg").rename(tmp_path / "images/classes.jpg")
    (tmp_path / "labels/0.txt").rename(tmp_path / "labels/classes.txt")
    put_text(tmp_path / "obj.names", "duck\n")
    assert total(read(tmp_path)) == 3


# Where images and texts lie.


@pytest.mark.parametrize("kind", ["auto", "yolo"])
@pytest.mark.parametrize(
    ("images", "texts"),
    [
        *((name, "labels") for name in ("data", "JPEGImages", "img", "imgs", "frames", "image", "Images", "pics")),
        *(("images", name) for name in ("annotations", "label", "yolo", "Labels", "txt", "labels/yolo", "images")),
        *[("photos", "ann"), ("data", "data"), ("", ""), ("raw/images", "raw/bboxes/yolo"), ("cam/left", "cam/txt")],
    ],
)
def test_folders_of_any_names(tmp_path, images, texts, kind):
    put(tmp_path, images, texts)
    put_text(tmp_path / "classes.txt", "duck\n")
    splits = read(tmp_path, kind)
    assert total(splits) == 3
    assert splits.train.defects == []


@pytest.mark.parametrize(
    ("images", "texts"),
    [
        ("data/images/{}", "data/labels/{}"),
        ("photos/{}", "ann/{}"),
        ("{}/img", "{}/txt"),
        ("set/{}/JPEGImages", "set/{}/yolo"),
        ("images/{}", "yolo_{}"),
    ],
)
def test_splits_a_level_deeper_keep_their_texts_apart(tmp_path, images, texts):
    for split in ("train", "valid"):
        put(tmp_path, images.format(split), texts.format(split))
    (tmp_path / texts.format("train") / "1.txt").unlink()  # the other split has a text of that name
    put_text(tmp_path / texts.format("train") / "classes.txt", "duck\n")
    train, validation = read(tmp_path)
    assert (len(train), len(validation)) == (3, 3)
    assert [len(record.names) for record in train.records] == [1, 0, 1]
    assert sum(where(validation).values()) == 3
    assert "1 images have no text file" in said(train, "annotation-absent")[0]


def test_a_text_in_another_batch_is_no_images_text(tmp_path):
    for batch in ("batch1", "batch2"):
        put(tmp_path, batch, batch)
    (tmp_path / "batch1/0.txt").unlink()
    (tmp_path / "batch2/0.jpg").unlink()
    put_text(tmp_path / "classes.txt", "duck\n")
    train, validation = read(tmp_path)
    counts = [len(record.names) for dataset in (train, validation) for record in dataset.records]
    assert sorted(counts) == [0, 1, 1, 1, 1]
    assert [text for text in said(train, "image-missing") if "batch2/0.txt: its 1 objects left out" in text]


def test_texts_that_are_there_twice_are_said_once(tmp_path):
    put(tmp_path, "images", "labels")
    put(tmp_path, "images", "labels_old")
    put_text(tmp_path / "classes.txt", "duck\n")
    splits = read(tmp_path)
    assert total(splits) == 3
    (text,) = said(splits.train, "annotation-repeats")
    assert "3 texts are not used, images of these names have other texts: labels_old/0.txt" in text


def test_images_of_another_folder_are_no_background(tmp_path):
    put(tmp_path, "frames", "labels")
    put(tmp_path, "docs/pictures", None, count=2, suffix=".png")
    (tmp_path / "docs/pictures/0.png").rename(tmp_path / "docs/pictures/logo.png")
    put_text(tmp_path / "classes.txt", "duck\n")
    splits = read(tmp_path)
    assert total(splits) == 3
    (text,) = said(splits.train, "image-unannotated")
    assert "2 images have no annotation and are not used: docs/pictures/1.png, docs/pictures/logo.png" in text


def test_suffixes_in_capitals(tmp_path):
    put(tmp_path, "images", "labels", suffix=".JPG")
    for path in list((tmp_path / "labels").iterdir()):
        path.rename(path.with_suffix(".TXT"))
    put_text(tmp_path / "classes.txt", "duck\n")
    assert total(read(tmp_path)) == 3


# Settings and lists from elsewhere.


@pytest.mark.parametrize("kind", ["auto", "yolo"])
@pytest.mark.parametrize(
    ("path", "train"),
    [
        ("/Users/me/project/data", "train/images"),
        ("C:\\Users\\me\\train_set\\data", "train\\images"),
        ("../project/data", "train/images"),
        ("", "/content/drive/data/train/images"),
        ("", "../data/train/images"),
        ("data", "./train/images/"),
    ],
)
def test_settings_of_another_machine(tmp_path, path, train, kind):
    root = tmp_path / "mine"
    put(root, "data/train/images", "data/train/labels")
    put(root, "data/valid/images", "data/valid/labels")
    put(root, "data/all", None)
    put(tmp_path, "train/images", "train/labels", count=5)  # of somebody else
    put_text(
        root / "data.yaml", f"path: {path}\ntrain: {train}\nval: {train.replace('train', 'valid')}\nnames: [duck]\n"
    )
    train_set, validation = read(root, kind)
    assert [record.image_path.relative_to(root).parts[1] for record in train_set.records] == ["train"] * 3
    assert [record.image_path.relative_to(root).parts[1] for record in validation.records] == ["valid"] * 3
    assert said(train_set, "path-missing") == []
    (text,) = said(train_set, "image-unannotated")
    assert "3 images have no annotation and are not used: data/all/0.jpg" in text
    assert [defect.things for defect in train_set.defects if defect.kind == "image-unannotated"] == [3]


def test_what_settings_ask_for_is_never_replaced_without_a_word(tmp_path):
    put(tmp_path, "images", "labels")
    put_text(tmp_path / "data.yaml", "path: /elsewhere\ntrain: train/images\nval: valid/images\nnames: [duck]\n")
    splits = read(tmp_path)
    assert total(splits) == 3
    assert [text.partition(": ")[2] for text in said(splits.train, "path-missing")] == [
        "says that images for train are in train/images, which is not there; taken instead: all annotated images",
        "says that images for val are in valid/images, which is not there; taken instead: a share of all images",
    ]


def test_coco8_as_ultralytics_has_it(tmp_path):
    root = tmp_path / "downloads" / "coco8"
    for split in ("train", "val"):
        put(root, f"images/{split}", f"labels/{split}")
    put_text(
        root / "coco8.yaml", "path: ../datasets/coco8\ntrain: images/train\nval: images/val\ntest:\nnames:\n  0: duck\n"
    )
    train, validation = read(root)
    assert (where(train), where(validation)) == ({"train": 3}, {"val": 3})
    assert train.defects == validation.defects == []


def test_an_empty_folder_for_validation_is_none(tmp_path):
    put(tmp_path, "images/train", "labels/train")
    (tmp_path / "images/val").mkdir()
    put_text(tmp_path / "classes.txt", "duck\n")
    assert total(read(tmp_path)) == 3


def test_predictions_are_no_annotations(tmp_path):
    for images, texts in (("photos", "labels"), ("runs/detect/exp", "runs/detect/exp/labels")):
        put(tmp_path, images, texts)
    put_text(tmp_path / "classes.txt", "duck\n")
    splits = read(tmp_path)
    assert {folder for dataset in splits for folder in where(dataset)} == {"photos"}
    assert "3 annotated images lie elsewhere" in said(splits.train, "image-unlisted")[0]


def test_a_test_set_without_texts_does_not_stand_for_one_with_texts(tmp_path):
    for split in ("train", "valid"):
        put(tmp_path, f"{split}/images", f"{split}/labels")
    put(tmp_path, "test/images", None)
    put_text(
        tmp_path / "data.yaml", "train: ../train/images\nval: ../valid/images\ntest: ../test/images\nnames: [duck]\n"
    )
    validation = read(tmp_path).validation
    assert validation.source == tmp_path / "valid/images"
    assert "3 images are not used: none has a text file" in said(validation, "image-unannotated")[0]


@pytest.mark.parametrize(
    "line",
    ["data/obj/{}.jpg", "/home/me/darknet/data/obj/{}.jpg", "C:\\darknet\\data\\obj\\{}.jpg", "./obj/{}.jpg", "{}.jpg"],
)
def test_darknets_folder(tmp_path, line):
    put(tmp_path, "data/obj", "data/obj", count=5)
    for split, numbers in (("train", (0, 1, 2)), ("test", (3,))):
        put_text(tmp_path / f"data/{split}.txt", "".join(line.format(number) + "\n" for number in numbers))
    put_text(tmp_path / "data/obj.names", "duck\n")
    put_text(tmp_path / "data/coco.names", "person\nbicycle\n")
    put_text(tmp_path / "yolov4.cfg", "[net]\n")
    settings = (
        "classes = 1\ntrain  = data/train.txt\nvalid  = data/test.txt\nnames = data/obj.names\nbackup = backup/\n"
    )
    for content in (settings, None):
        if content is not None:
            put_text(tmp_path / "data/obj.data", content)
        else:
            (tmp_path / "data/obj.data").unlink()
        train, validation = read(tmp_path)
        assert sorted(record.image_path.stem for record in train.records) == ["0", "1", "2"]
        assert [record.image_path.stem for record in validation.records] == ["3"]
        assert train.class_names == ("BACKGROUND", "duck")
        assert (
            "1 annotated images are of no split, and are not used: data/obj/4.jpg" in said(train, "image-unlisted")[0]
        )


@pytest.mark.parametrize("kind", ["auto", "yolo"])
def test_listed_images_that_lie_elsewhere_are_found_by_name(tmp_path, kind):
    for number in range(4):
        part = tmp_path / f"part{number % 2}"
        put_text(part / f"{number}.txt", LINE)
        Image.new("RGB", (100, 50), (9 * number, 0, 0)).save(part / f"{number}.jpg")
    put_text(tmp_path / "train.txt", "".join(f"pics/{number}.jpg\n" for number in range(5)))
    put_text(tmp_path / "obj.names", "duck\n")
    splits = read(tmp_path, kind)
    assert total(splits) == 4
    missing = [text for dataset in splits for text in said(dataset, "image-missing")]
    assert missing == [f"{tmp_path}/train.txt: image pics/4.jpg left out: no image of that name in {tmp_path}"]


# Lines.

SEVEN = "0 0.4 0.3 0.45 0.3 0.6 0.3 0.6 0.5 0.6 0.7 0.5 0.7 0.4 0.5"


@pytest.mark.parametrize("line", [SEVEN, LINE, f"{LINE} 0.3 0.3 2"])
def test_fractions_are_never_taken_for_pixels(tmp_path, line, caplog):
    put(tmp_path, "images", "label", line=line)
    put_text(tmp_path / "classes.txt", "duck\n")
    with caplog.at_level("INFO"):
        assert open_folder("auto", tmp_path).name == "yolo"
    assert "also holds" not in caplog.text
    for other in ("kitti", "oidv4"):
        with pytest.raises(DataError, match=f"is no {other} dataset, it looks like yolo"):
            open_folder(other, tmp_path)
    if line != f"{LINE} 0.3 0.3 2":
        assert total(read(tmp_path)) == 3


@pytest.mark.parametrize("kind", ["auto", "yolo"])
def test_images_of_classes_beyond_the_list_are_left_out_and_no_background(tmp_path, kind):
    put(tmp_path, "images", "labels", count=6)
    for number in (1, 3):
        put_text(tmp_path / f"labels/{number}.txt", LINE.replace("0 ", "7 ", 1))
    put_text(tmp_path / "labels/0.txt", f"{LINE}\n{LINE.replace('0 ', '7 ', 1)}\n")
    put_text(tmp_path / "classes.txt", "duck\n")
    train, validation = read(tmp_path, kind)
    used = {record.image_path.stem for dataset in (train, validation) for record in dataset.records}
    assert used == {"0", "2", "4", "5"}
    defects = [defect for dataset in (train, validation) for defect in dataset.defects if defect.images]
    assert [(defect.kind, defect.objects, defect.images) for defect in defects] == [("class-unknown", 2, 2)]
    assert "2 images left out, all of their 2 objects are of class 7, not in the list ['duck']" in str(defects[0])
    assert train.images_listed == len(train) + 2
    everything = open_splits(kind, [tmp_path], ReadingOptions(cache=False, labels_from_data=True))
    assert sum(map(len, everything)) == 6


def test_numbers_that_count_from_one_are_refused(tmp_path):
    put(tmp_path, "images", "labels", line=LINE.replace("0 ", "1 ", 1))
    put_text(tmp_path / "classes.txt", "duck\n")
    with pytest.raises(DataError, match=r"all objects are of class 1, not in the list \['duck'\]; .* has number 0"):
        read(tmp_path)

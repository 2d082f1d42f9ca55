"""Folders as people have them: nested, doubled, mixed up, half complete. Nothing in them is lost or taken for another."""

import json
import os
import re
import shutil
import struct
import zlib
from pathlib import Path

import cv2
import dataset_writers
import numpy as np
import pytest
from conftest import SMALL, assert_refused
from PIL import Image

import eval_ssd
import train_ssd
from vision.datasets import ReadingOptions, open_folder, open_splits, synthetic
from vision.datasets.file_index import FileIndex
from vision.datasets.folder import splits_of
from vision.datasets.images import read_image, read_image_info, read_upright, try_decoding
from vision.structures import DataError

FIRST = "train_00000"


def five_and_two():
    options = {"size": (96, 80), "objects": (2, 3)}
    return {"train": synthetic.drawings(5, 21, **options), "test": synthetic.drawings(2, 22, **options)}


@pytest.fixture
def voc(tmp_path):
    synthetic.write_voc(tmp_path / "voc", five_and_two())
    return tmp_path / "voc"


@pytest.fixture
def yolo(tmp_path):
    dataset_writers.write_yolo(tmp_path / "yolo", five_and_two())
    return tmp_path / "yolo"


@pytest.fixture
def coco(tmp_path):
    dataset_writers.write_coco(tmp_path / "coco", five_and_two())
    return tmp_path / "coco"


def objects_of(drawings) -> int:
    return sum(len(drawing.names) for drawing in drawings)


def kinds(dataset) -> set[str]:
    return {defect.kind for defect in dataset.defects}


def assert_counts_add_up(dataset):
    used = sum(len(record.names) for record in dataset.records)
    assert dataset.objects_written == used + sum(defect.objects for defect in dataset.defects)
    assert dataset.images_listed == len(dataset) + sum(defect.images for defect in dataset.defects)


def move(root, *pairs):
    for source, target in pairs:
        (root / target).parent.mkdir(parents=True, exist_ok=True)
        (root / source).rename(root / target)


def write_csv(folder: Path, names, shown: str = "{}"):
    rows = [f"{shown.format(name)},ball,5,5,30,30" for name in names]
    (folder / "labels.csv").write_text("\n".join(["filename,class,xmin,ymin,xmax,ymax", *rows]) + "\n")


def write_coco(folder: Path, names):
    content = {
        "images": [{"id": number, "file_name": name} for number, name in enumerate(names)],
        "annotations": [
            {"id": number, "image_id": number, "category_id": 1, "bbox": [5, 5, 25, 25]} for number in range(len(names))
        ],
        "categories": [{"id": 1, "name": "ball"}],
    }
    (folder / "_annotations.coco.json").write_text(json.dumps(content))


def write_createml(folder: Path, names):
    coordinates = {"x": 20, "y": 20, "width": 25, "height": 25}
    content = [{"image": name, "annotations": [{"label": "ball", "coordinates": coordinates}]} for name in names]
    (folder / "_annotations.createml.json").write_text(json.dumps(content))


def write_voc_files(folder: Path, names):
    box = "<bndbox><xmin>5</xmin><ymin>5</ymin><xmax>30</xmax><ymax>30</ymax></bndbox>"
    for name in names:
        text = f"<annotation><filename>{name}</filename><object><name>ball</name>{box}</object></annotation>"
        (folder / name).with_suffix(".xml").write_text(text)


@pytest.mark.parametrize(
    ("dataset_type", "write"),
    [
        ("csv", write_csv),
        ("csv", lambda folder, names: write_csv(folder, names, folder.name + "/{}")),
        ("coco", write_coco),
        ("createml", write_createml),
        ("voc", write_voc_files),
    ],
)
def test_a_missing_image_is_not_another_splits_of_its_name(tmp_path, dataset_type, write):
    for split in ("train", "valid"):
        (tmp_path / split).mkdir()
        for number in range(3):
            Image.new("RGB", (64, 48), (40 * number, 0, 0)).save(tmp_path / split / f"{number}.jpg")
        write(tmp_path / split, [f"{number}.jpg" for number in range(3)])
    whole, _ = open_splits(dataset_type, [tmp_path])
    assert len(whole) == 3
    (tmp_path / "train" / "1.jpg").unlink()
    train_set, val_set = open_splits(dataset_type, [tmp_path])
    assert [record.image_path.parent.name for record in train_set.records] == ["train"] * 2
    assert "image-missing" in kinds(train_set)
    assert len(val_set) == 3
    assert_counts_add_up(train_set)


def test_one_annotation_file_a_split_finds_its_own_of_images_of_one_name(tmp_path):
    for split in ("train", "val"):
        (tmp_path / "images" / split).mkdir(parents=True)
        Image.new("RGB", (64, 48)).save(tmp_path / "images" / split / "1.jpg")
        write_csv(tmp_path, ["1.jpg"])
        (tmp_path / "labels.csv").rename(tmp_path / f"{split}.csv")
    for split, dataset in zip(("train", "val"), open_splits("csv", [tmp_path]), strict=True):
        assert [record.image_path.parent.name for record in dataset.records] == [split]
        assert not dataset.defects


def test_the_outermost_folder_says_the_split_and_who_is_of_none_is_told(tmp_path):
    for folder in ("train/Train", "validation/Train", "street", "harbour"):
        (tmp_path / folder / "Label").mkdir(parents=True)
        for number in range(2):
            name = f"{folder.replace('/', '_')}{number}"
            Image.new("RGB", (64, 48)).save(tmp_path / folder / f"{name}.jpg")
            (tmp_path / folder / "Label" / f"{name}.txt").write_text("Train 5 5 30 30\n")
    train_set, val_set = open_splits("oidv4", [tmp_path])
    assert (len(train_set), len(val_set)) == (2, 2), "a class may be called as a split is"
    for dataset in (train_set, val_set):
        (defect,) = dataset.defects
        assert defect.kind == "image-unlisted"
        assert "4 annotated images are of no split, and not used; annotations in harbour/Label, street/Label" in str(
            defect
        )
        assert_counts_add_up(dataset)


@pytest.mark.parametrize(
    ("path", "by_name", "expected"),
    [
        ("train/labels.csv", True, {"train"}),
        ("labels/valid.csv", True, {"valid"}),
        ("labels/valid.csv", False, set()),
        ("test_data/train.csv", True, {"train"}),
        ("train2017/a.jpg", False, {"train"}),
        ("my_train/station/a.jpg", False, {"train"}),
        ("data_train_val.csv", True, {"train", "val"}),
        ("validation/Train/a.jpg", False, {"validation"}),
        ("training/a.jpg", False, set()),
    ],
)
def test_splits_of_a_path(path, by_name, expected):
    assert splits_of(path, by_name=by_name) == expected


# Trees.


@pytest.mark.parametrize("images", ["JPEGImages", "images", "."])
@pytest.mark.parametrize("test_name", ["test", "valid"])
@pytest.mark.parametrize("wrapped", ["", "archive/data/"])
def test_splits_first_then_annotations_and_images(voc, tmp_path, images, test_name, wrapped):
    root = tmp_path / "split_first"
    for split, name in (("train", "train"), ("test", test_name)):
        for number, path in enumerate(sorted((voc / "JPEGImages").glob(f"{split}*"))):
            # The same names in both splits: only the folders tell them apart.
            image = root / wrapped / name / images / f"{number}.jpg"
            annotation = root / wrapped / name / "Annotations" / f"{number}.xml"
            for source, target in ((path, image), (voc / "Annotations" / f"{path.stem}.xml", annotation)):
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(source, target)
    expected = open_splits("voc", [voc])
    found = open_splits("auto", [root])
    for mine, other in zip(found, expected, strict=True):
        assert [r.names for r in mine.records] == [r.names for r in other.records]
        assert mine.defects == []
        for index in range(len(mine)):
            np.testing.assert_array_equal(mine.get_image(index), other.get_image(index))


def test_several_datasets_in_one_folder_are_not_chosen_from(voc, tmp_path):
    for year in ("VOC2007", "VOC2012"):
        shutil.copytree(voc, tmp_path / "VOCdevkit" / year)
    with pytest.raises(DataError, match="holds 2 datasets; name them one by one: --data .*VOC2007 .*VOC2012"):
        open_splits("voc", [tmp_path / "VOCdevkit"])


@pytest.mark.parametrize("wrapped", ["", "VOCdevkit/"])
def test_a_flat_folder_beside_datasets_does_not_make_one_of_them(voc, tmp_path, wrapped):
    root = tmp_path / "all"
    for name in (f"{wrapped}VOC2007", f"{wrapped}VOC2012"):
        shutil.copytree(voc, root / name)
    (root / "flat").mkdir()
    for folder in ("Annotations", "JPEGImages"):
        for path in (voc / folder).iterdir():
            shutil.copy(path, root / "flat")
    for kind in ("voc", "auto"):
        with pytest.raises(
            DataError, match="holds 3 datasets; name them one by one: --data .*VOC2007 .*VOC2012 .*flat"
        ):
            open_splits(kind, [root])
    shutil.rmtree(root / wrapped / "VOC2012")
    with pytest.raises(DataError, match="holds 2 datasets; name them one by one: --data .*VOC2007 .*flat"):
        open_splits("auto", [root])
    assert open_splits("auto", [root / wrapped / "VOC2007", root / "flat"]).train.records


WITH_A_BEGINNING = {
    "voc": synthetic.write_voc,
    "yolo": dataset_writers.write_yolo,
    "coco": dataset_writers.write_coco,
    "open_images": dataset_writers.write_open_images,
}


@pytest.mark.parametrize(
    "kinds",
    [(one, one) for one in WITH_A_BEGINNING] + [("voc", "coco"), ("yolo", "voc"), ("open_images", "voc", "coco")],
)
def test_several_datasets_of_any_formats_are_named(tmp_path, kinds):
    names = [f"{number}_{kind}" for number, kind in enumerate(kinds)]
    for name, kind in zip(names, kinds, strict=True):
        WITH_A_BEGINNING[kind](tmp_path / "data" / name, five_and_two())
    (tmp_path / "data" / "notes").mkdir()
    named = " ".join(f".*{name}" for name in names)
    for kind in ("auto", kinds[0]):
        with pytest.raises(DataError, match=f"holds {len(kinds)} datasets; name them one by one: --data {named}$"):
            open_splits(kind, [tmp_path / "data"])
    assert len(open_splits("auto", [tmp_path / "data" / name for name in names]).train) == 5 * len(kinds)


def test_flat_folders_alone_are_one_dataset(voc, tmp_path):
    root = tmp_path / "all"
    for number, path in enumerate(sorted((voc / "JPEGImages").iterdir())):
        folder = root / f"batch{number % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, folder)
        shutil.copy(voc / "Annotations" / f"{path.stem}.xml", folder)
    assert sum(map(len, open_splits("auto", [root]))) == len(list((voc / "JPEGImages").iterdir()))


def test_linked_folders_are_followed_once(voc, tmp_path):
    for name in ("Annotations", "JPEGImages"):
        move(voc, (name, f"elsewhere/{name}"))
        (voc / name).mkdir()
        (voc / name / "batch").symlink_to(voc / "elsewhere" / name)
        (voc / name / "loop").symlink_to(voc / name)
    move(voc, ("elsewhere", "../elsewhere"))
    for name in ("Annotations", "JPEGImages"):
        (voc / name / "batch").unlink()
        (voc / name / "batch").symlink_to(tmp_path / "elsewhere" / name)
    train_set, _ = open_splits("voc", [voc])
    assert len(train_set) == 5
    assert train_set.defects == []


def test_annotations_in_capitals(voc):
    for path in (voc / "Annotations").iterdir():
        path.rename(path.with_suffix(".XML"))
    shutil.rmtree(voc / "ImageSets")
    assert sum(map(len, open_splits("auto", [voc]))) == 7


def test_a_name_with_a_folder_is_never_another_folders_image(tmp_path):
    root = tmp_path / "cvat"
    dataset_writers.write_cvat(root, five_and_two())
    (root / "JPEGImages/train/frame_000001.jpg").unlink()
    train_set, validation = open_splits("voc", [root])
    assert len(train_set) == 4
    assert "image train/frame_000001 left out" in train_set.defects[1].message
    assert not {r.image_path for r in train_set.records} & {r.image_path for r in validation.records}
    assert_counts_add_up(train_set)


def test_names_with_dots_are_not_cut(voc):
    (voc / "ImageSets/Main/train.txt").write_text(f"{FIRST}\n{FIRST}.1\n{FIRST}.2\n")
    train_set, _ = open_splits("voc", [voc])
    assert train_set.ids == [FIRST]
    assert [defect.kind for defect in train_set.defects] == ["image-unlisted", "image-missing", "image-missing"]


@pytest.mark.parametrize(
    ("files", "name", "hint", "expected"),
    [
        (["a.jpg", "a.bmp"], "a", "a.jpg", ("a.jpg", ())),
        (["a.jpg", "a.bmp"], "a.bmp", "", ("a.bmp", ())),
        (["a.bmp", "a.jpg"], "a", "", ("a.bmp", ("a.jpg",))),
        (["x/a.jpg", "y/a.jpg"], "y/a", "", ("y/a.jpg", ())),
        (["x/a.jpg", "y/a.jpg"], "z/y/a.png", "", ("y/a.jpg", ())),
        (["x/a.jpg"], "y/a", "", ("x/a.jpg", ())),
        (["x/a.jpg", "y/b.jpg"], "y/a", "", None),
        (["a.jpg"], "/home/me/x/a.jpg", "", ("a.jpg", ())),
        (["x/a.jpg"], "C:\\data\\a.jpg", "", ("x/a.jpg", ())),
        (["A.JPG", "a.jpg"], "a", "", ("a.jpg", ())),
        (["A.JPG"], "a.jpg", "", ("A.JPG", ())),
        (["a.jpg.png"], "a.jpg", "", ("a.jpg.png", ())),
        (["a.b.jpg", "a.jpg"], "a.b", "", ("a.b.jpg", ())),
        (["a.jpg"], "b", "", None),
    ],
)
def test_what_an_index_finds(tmp_path, files, name, hint, expected):
    for path in files:
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).touch()
    found = FileIndex(tmp_path).find(name, hint)
    assert (found and (found.path.relative_to(tmp_path).as_posix(), found.others)) == expected


def test_an_index_of_one_name_in_many_folders_looks_at_few(monkeypatch, tmp_path):
    index = FileIndex(tmp_path, paths=["frame.jpg", *(f"clips/{number}/frame.jpg" for number in range(300))])
    looked_at = []
    split = index._split
    monkeypatch.setattr(index, "_split", lambda path: looked_at.append(path) or split(path))
    for name, path in (("clips/17/frame", "clips/17"), ("299/frame.jpg", "clips/299"), ("frame", "")):
        looked_at.clear()
        found = index.find(name)
        assert found.path == tmp_path / path / "frame.jpg"
        assert len(looked_at) <= (3 if path else 302), "this name; that file, and one that no folder contradicts"


def test_masks_are_not_taken_for_photographs(voc):
    shutil.rmtree(voc / "ImageSets")
    move(voc, ("JPEGImages", "photos"))
    (voc / "SegmentationClass").mkdir()
    for path in (voc / "photos").iterdir():
        Image.new("L", (96, 80)).save(voc / "SegmentationClass" / f"{path.stem}.png")
    for split in open_splits("voc", [voc]):
        assert all(record.image_path.parent.name == "photos" for record in split.records)


def test_of_several_images_the_one_that_the_xml_names_is_taken(voc):
    Image.new("RGB", (96, 80)).save(voc / "JPEGImages" / f"{FIRST}.bmp")
    train_set, _ = open_splits("voc", [voc])
    assert train_set.records[0].image_path.suffix == ".jpg"
    assert train_set.defects == []
    path = voc / "Annotations" / f"{FIRST}.xml"
    path.write_text(path.read_text().replace(f"<filename>{FIRST}.jpg</filename>", ""))
    train_set, _ = open_splits("voc", [voc])
    assert kinds(train_set) == {"image-ambiguous"}
    assert f"may be {FIRST}.bmp or {FIRST}.jpg" in train_set.defects[0].message


def test_one_annotation_is_not_used_for_two_images(voc):
    shutil.copy(voc / "JPEGImages" / f"{FIRST}.jpg", voc / "JPEGImages" / f"{FIRST}.bmp")
    path = voc / "Annotations" / f"{FIRST}.xml"
    path.write_text(path.read_text().replace(f"<filename>{FIRST}.jpg</filename>", ""))
    (voc / "ImageSets/Main/train.txt").write_text(f"{FIRST}.bmp\n{FIRST}.jpg\n")
    train_set, _ = open_splits("voc", [voc])
    assert len(train_set) == 1
    assert "annotation-repeats" in kinds(train_set)


def test_two_annotations_of_one_image_are_counted(voc):
    shutil.rmtree(voc / "ImageSets")
    (voc / "Annotations/more").mkdir()
    source = voc / "Annotations" / f"{FIRST}.xml"
    (voc / "Annotations/more" / f"{FIRST}.xml").write_text(source.read_text().replace("<difficult>0", "<difficult>1"))
    splits = open_splits("voc", [voc])
    repeats = [defect for split in splits for defect in split.defects if defect.kind == "annotation-repeats"]
    assert len(repeats) == 1
    assert repeats[0].objects == source.read_text().count("<object>")
    assert sum(map(len, splits)) == 7


@pytest.mark.parametrize(
    ("old", "new", "left_out"),
    [
        ("<annotation>", '<annotation xmlns="http://example.org/voc">', 0),
        ("<annotation>", '<?xml version="1.0" encoding="gb2312"?><annotation>', 0),
        ("<annotation>", "<html>", 1),
    ],
)
def test_roots_and_namespaces_of_xml(voc, old, new, left_out):
    path = voc / "Annotations" / f"{FIRST}.xml"
    text = path.read_text().replace(old, new)
    path.write_text(text.replace("</annotation>", "</html>") if "html" in new else text)
    expected = len(five_and_two()["train"][0].names)
    train_set, _ = open_splits("voc", [voc])
    assert len(train_set) == 5 - left_out
    if left_out:
        assert "holds <html>, expected <annotation>" in train_set.defects[0].message
    else:
        assert len(train_set.records[0].names) == expected


def test_images_without_annotation_are_counted(voc):
    for number in (1, 3):
        (voc / "Annotations" / f"train_0000{number}.xml").unlink()
    shutil.rmtree(voc / "ImageSets")
    splits = open_splits("voc", [voc])
    assert "2 images have no annotation and are not used: train_00001.jpg, train_00003.jpg" in str(
        [defect.message for split in splits for defect in split.defects]
    )


def test_images_beside_a_table_are_counted(tmp_path):
    dataset_writers.write_open_images(tmp_path, five_and_two())
    shutil.copy(tmp_path / "train/train00000.jpg", tmp_path / "train/other.jpg")
    train_set, _ = open_splits("open_images", [tmp_path])
    assert kinds(train_set) == {"image-unannotated"}


def test_the_same_folder_twice_trains_nothing_twice(voc):
    train_set, _ = open_splits("voc", [voc, voc])
    assert len(train_set) == 5
    assert kinds(train_set) == {"annotation-repeats"}
    assert_counts_add_up(train_set)


def test_a_list_of_classes_leaves_out_for_its_folder_alone(voc, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(voc, other)
    for number, path in enumerate(sorted((other / "JPEGImages").iterdir())):
        image = Image.open(path)
        image.putpixel((0, 0), (number, 0, 0))
        image.save(path)
    (voc / "labels.txt").write_text("ball\nboard\ncone\n")
    alone, _ = open_splits("voc", [other])
    joined, _ = open_splits("voc", [voc, other])
    assert joined.class_counts()["star"] == alone.class_counts()["star"] > 0
    assert_counts_add_up(joined)


def test_val_split_never_trains_on_a_test_list(voc):
    (voc / "ImageSets/Main/train.txt").unlink()
    train_set, validation = open_splits("voc", [voc], ReadingOptions(val_split=0.2, stratified=False))
    assert (len(train_set), len(validation)) == (4, 1)
    assert all(name.startswith("train") for name in [*train_set.ids, *validation.ids])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda root: (root / "ImageSets/Main/test.txt").write_text("\n"), "test.txt: lists no image; .*--val-split"),
        (
            lambda root: [
                (root / "ImageSets/Main/train.txt").unlink(),
                (root / "ImageSets/Main/test.txt").write_text("".join(f"{p.stem}\n" for p in root.glob("*/*.jpg"))),
            ],
            "names all annotated images for validation, none is left to train on",
        ),
    ],
)
def test_lists_that_leave_nothing(voc, spoil, message):
    spoil(voc)
    with pytest.raises(DataError, match=message):
        open_splits("voc", [voc])


def test_a_file_in_the_place_of_a_folder(voc):
    with pytest.raises(DataError, match="labels.txt: is a file; --data names the folder"):
        open_splits("auto", [voc / "labels.txt"])


def test_many_missing_images_are_asked_about_once(voc, monkeypatch):
    from vision.datasets import voc_dataset

    for path in (voc / "JPEGImages").iterdir():
        path.rename(path.with_suffix(".heic"))
    calls = []
    real = voc_dataset.other_suffixes
    monkeypatch.setattr(voc_dataset, "other_suffixes", lambda folder: calls.append(folder) or real(folder))
    with pytest.raises(DataError, match="which holds .heic files"):
        open_splits("voc", [voc])
    assert len(calls) == 1


# Images.


@pytest.mark.parametrize("orientation", range(1, 9))
def test_tiffs_are_turned_once(tmp_path, orientation):
    pixels = np.zeros((32, 64, 3), np.uint8)
    pixels[:16, :32] = (250, 0, 0)
    image = Image.fromarray(pixels)
    exif = image.getexif()
    exif[0x0112] = orientation
    image.save(tmp_path / "a.tif", exif=exif)
    info = read_image_info(tmp_path / "a.tif")
    found = read_image(tmp_path / "a.tif", info.orientation)
    assert info.upright_size == (found.shape[1], found.shape[0])
    from PIL import ImageOps

    with Image.open(tmp_path / "a.tif") as stored:
        np.testing.assert_array_equal(found, np.array(ImageOps.exif_transpose(stored).convert("RGB")))


def test_sixteen_bits_are_told_by_the_file_not_by_its_size(tmp_path):
    Image.new("RGB", (416, 160)).save(tmp_path / "a.jpg")
    assert read_image_info(tmp_path / "a.jpg").bits == 8
    Image.fromarray(np.full((8, 8), 40000, np.uint16)).save(tmp_path / "a.tif")
    assert read_image_info(tmp_path / "a.tif").bits == 16
    assert read_image(tmp_path / "a.tif")[0, 0].tolist() == [155, 155, 155]


@pytest.mark.parametrize(("kind", "named"), [(np.float32, "floating-point"), (np.int32, "I;32S"), (np.int16, "I;16S")])
@pytest.mark.parametrize("name", ["a.tif", "a.png"])
def test_pixels_of_no_known_range_are_refused(tmp_path, kind, named, name):
    encoded = cv2.imencode(".tif", np.full((8, 8), 9, kind))[1]
    path = tmp_path / name
    path.write_bytes(encoded.tobytes())
    error = read_image_info(path).error
    assert named in error
    assert error.endswith(", whose range nobody knows")
    with pytest.raises(DataError) as refused:
        read_upright(path)
    assert str(refused.value) == f"{path}: {error}; replace the file or take it out of the dataset"
    if path.suffix == ".tif":
        with pytest.raises(DataError, match=named):
            read_image(path)


def test_the_largest_image_is_the_same_wherever_images_are_read(tmp_path):
    """The header of a PNG is enough: what is too large is not decoded."""
    chunks = [b"IHDR" + struct.pack(">IIBBBBB", 20_000, 9_000, 1, 0, 0, 0, 0), b"IDAT"]
    path = tmp_path / "a.png"
    content = (struct.pack(">I", len(one) - 4) + one + struct.pack(">I", zlib.crc32(one)) for one in chunks)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(content))
    expected = "has more than 178 megapixels, the most that is read"
    assert read_image_info(path).error == try_decoding(path)[0] == expected
    with pytest.raises(DataError) as refused:
        read_upright(path)
    assert str(refused.value) == f"{path}: {expected}; replace the file or take it out of the dataset"


def test_damaged_images_of_all_formats_are_errors_not_exceptions(tmp_path):
    rng = np.random.default_rng(3)
    image = Image.fromarray(rng.integers(0, 255, (24, 24, 3)).astype(np.uint8))
    for suffix in ("jpg", "png", "bmp", "webp", "tif"):
        image.save(tmp_path / f"whole.{suffix}")
        content = (tmp_path / f"whole.{suffix}").read_bytes()
        for number in range(40):
            damaged = bytearray(content)
            for place in rng.integers(0, min(len(damaged), 200), 6):
                damaged[place] = rng.integers(256)
            path = tmp_path / f"damaged{number}.{suffix}"
            path.write_bytes(damaged)
            info = read_image_info(path)
            try:
                pixels = read_image(path, info.orientation)
            except DataError as err:
                assert path.name in str(err)  # noqa: PT017 - either way is right
            else:
                assert pixels.ndim == 3


def test_what_the_system_could_not_read_is_not_remembered(voc, monkeypatch):
    from vision.datasets import folder as folder_module

    def refuse(path):
        raise OSError(24, "Too many open files", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(folder_module, "read_image_info", refuse)
        with pytest.raises(DataError, match="cannot be read .Too many open files"):
            open_splits("voc", [voc])
    assert len(open_splits("voc", [voc])[0]) == 5


def test_evaluation_goes_on_after_a_damaged_image(script, voc, model_dir, tmp_path, monkeypatch):
    path = voc / "JPEGImages/test_00000.png"
    with Image.open(voc / "JPEGImages/test_00000.jpg") as image:
        image.save(path)
    (voc / "JPEGImages/test_00000.jpg").unlink()
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)
    argv = (f"--model={model_dir}", f"--data={voc}", f"--eval-dir={tmp_path / 'e'}", "--device=cpu")
    done = script(eval_ssd.main, *argv)
    assert (done.code, done.err) == (0, "")
    assert "test_00000.png: cannot be decoded" in done.out
    assert "it counts as an image on which nothing was found" in done.out


def test_evaluation_without_a_known_class_is_refused(script, voc, model_dir, tmp_path):
    for path in (voc / "Annotations").iterdir():
        path.write_text(path.read_text().replace("<name>", "<name>other "))
    argv = (f"--model={model_dir}", f"--data={voc}", f"--eval-dir={tmp_path / 'e'}", "--device=cpu")
    assert_refused(script(eval_ssd.main, *argv), "no object is of a class that the model knows", "'ball'")


def test_training_on_difficult_objects_alone_is_refused(script, voc, tmp_path):
    for path in (voc / "Annotations").iterdir():
        path.write_text(path.read_text().replace("<difficult>0", "<difficult>1"))
    done = script(train_ssd.main, "--dataset-type=voc", f"--data={voc}", f"--model-dir={tmp_path / 'm'}", *SMALL)
    assert_refused(done, "can be trained on", "all are difficult")


# COCO.


def edit_coco(root, edit, split="train"):
    path = root / "annotations" / f"instances_{split}.json"
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def test_images_of_one_name_in_several_folders(coco):
    def edit(content):
        for number, image in enumerate(content["images"]):
            move(coco, (f"train/{image['file_name']}", f"train/{'ab'[number % 2]}/{number // 2}.jpg"))
            image["file_name"] = f"{'ab'[number % 2]}/{number // 2}.jpg"

    edit_coco(coco, edit)
    train_set, _ = open_splits("coco", [coco])
    assert train_set.ids == ["a/0", "b/0", "a/1", "b/1", "a/2"]
    assert [r.names for r in train_set.records] == [drawing.names for drawing in five_and_two()["train"]]
    assert train_set.defects == []


def windows_paths(content):
    for image in content["images"]:
        image["file_name"] = "C:\\data\\" + image["file_name"]


def texts_for_ids(content):
    for image in content["images"]:
        image["id"] = str(image["id"])
    for category in content["categories"]:
        category["id"] = str(category["id"])


def crowd_as_text(content):
    for annotation in content["annotations"]:
        annotation["iscrowd"] = "0"


def sizes_as_text(content):
    for image in content["images"]:
        image["width"], image["height"] = str(image["width"]), float(image["height"])


@pytest.mark.parametrize("edit", [windows_paths, texts_for_ids, crowd_as_text, sizes_as_text])
def test_cocos_that_differ_in_form_only(coco, edit):
    edit_coco(coco, edit)
    train_set, _ = open_splits("coco", [coco])
    assert [r.names for r in train_set.records] == [drawing.names for drawing in five_and_two()["train"]]
    assert not any(hard for record in train_set.records for hard in record.difficult)
    assert train_set.defects == []


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"bbox": [10**400, 0, 1, 1]}, "box-missing"),
        ({"image_id": [1]}, "row-unreadable"),
        ({"category_id": [1]}, "class-unknown"),
        ({"bbox": "RLE"}, "box-missing"),
    ],
)
def test_cocos_with_nonsense_are_survived(coco, change, kind):
    edit_coco(coco, lambda content: content["annotations"][0].update(change))
    train_set, _ = open_splits("coco", [coco])
    assert kinds(train_set) == {kind}
    assert_counts_add_up(train_set)


def test_two_images_of_one_id_are_named(coco):
    edit_coco(coco, lambda content: content["images"][1].update(id=content["images"][0]["id"]))
    train_set, _ = open_splits("coco", [coco])
    assert "another one has its id 0" in str([defect.message for defect in train_set.defects])


def test_the_official_files_beside_instances_are_passed_over(coco):
    for name in ("captions_train.json", "person_keypoints_train.json", "image_info_test.json"):
        (coco / "annotations" / name).write_text('{"images": [], "annotations": []}')
    assert len(open_splits("auto", [coco])[0]) == 5


def test_a_file_for_everything_of_any_name(coco, tmp_path):
    root = tmp_path / "label_studio"
    (root / "images").mkdir(parents=True)
    content = json.loads((coco / "annotations/instances_train.json").read_text())
    (root / "result.json").write_text(json.dumps(content))
    for path in (coco / "train").iterdir():
        shutil.copy(path, root / "images")
    assert open_folder("auto", root).name == "coco"
    assert list(map(len, open_splits("auto", [root]))) == [3, 2], "one by the hash, and one with a class it lacks"


# YOLO.


def test_json_files_of_other_tools_are_no_coco(yolo):
    for name in ("train_args.json", "latest.json"):
        (yolo / name).write_text('{"epochs": 3}')
    assert open_folder("auto", yolo).name == "yolo"


def test_names_in_several_folders_of_yolo(yolo):
    for number, path in enumerate(sorted((yolo / "images/train").iterdir())):
        move(yolo, (f"images/train/{path.name}", f"images/train/d{number}/1.jpg"))
        move(yolo, (f"labels/train/{path.stem}.txt", f"labels/train/d{number}/1.txt"))
    shutil.rmtree(yolo / "images/test")
    (yolo / "data.yaml").write_text("names: [ball, board, cone, star]\n")
    assert list(map(len, open_splits("yolo", [yolo]))) == [4, 1]


def test_texts_without_an_image_and_images_without_a_text(yolo):
    path = yolo / "images/train/train_00000.jpg"
    path.rename(path.with_suffix(".heic"))
    (yolo / "labels/train/train_00001.txt").unlink()
    train_set, _ = open_splits("yolo", [yolo])
    assert kinds(train_set) == {"image-missing", "annotation-absent"}
    missing = next(defect for defect in train_set.defects if defect.kind == "image-missing")
    assert missing.objects == len(five_and_two()["train"][0].names)
    absent = next(defect for defect in train_set.defects if defect.kind == "annotation-absent")
    assert "1 images have no text file, taken as without objects: train_00001" in absent.message
    assert train_set.objects_written == sum(len(r.names) for r in train_set.records) + missing.objects


def test_settings_are_applied_and_typos_in_them_named(yolo):
    (yolo / "data.yaml").write_text("names: [ball, board, cone, star]\ntrain: [images/test]\nval: [images/train]\n")
    assert list(map(len, open_splits("yolo", [yolo]))) == [2, 5]
    (yolo / "data.yaml").write_text("names: [ball, board, cone, star]\ntrain: pics/tarin\n")
    train_set, _ = open_splits("yolo", [yolo])
    assert "says that images for train are in pics/tarin, which is not there" in train_set.defects[0].message


def test_lists_of_yolo_in_every_spelling(yolo, monkeypatch):
    paths = sorted((yolo / "images/train").iterdir())
    lines = [str(path) for path in paths] + [f"./images/train/{path.name}" for path in paths]
    (yolo / "train.txt").write_text("\n".join(lines))
    (yolo / "data.yaml").write_text("names: [ball, board, cone, star]\ntrain: train.txt\nval: images/test\n")
    monkeypatch.chdir(yolo)
    train_set, _ = open_splits("yolo", [yolo])
    assert len(train_set) == 5
    assert kinds(train_set) == {"list-repeats"}


def test_poses_are_boxes_with_points_behind(yolo):
    path = yolo / "labels/train/train_00000.txt"
    path.write_text("0 .5 .5 .2 .2 .9 .9 .1 .1\n")
    (yolo / "data.yaml").write_text((yolo / "data.yaml").read_text() + "kpt_shape: [2, 2]\n")
    train_set, _ = open_splits("yolo", [yolo])
    np.testing.assert_allclose(train_set.annotation(0).boxes, [[38.4, 32, 57.6, 48]], rtol=1e-5)


def test_cvats_export_for_yolo(yolo, tmp_path):
    root = tmp_path / "cvat_yolo"
    (root / "obj_train_data").mkdir(parents=True)
    for split in ("train", "test"):
        for folder in ("images", "labels"):
            for path in (yolo / folder / split).iterdir():
                shutil.copy(path, root / "obj_train_data")
    (root / "obj.names").write_text("ball\nboard\ncone\nstar\n")
    (root / "obj.data").write_text("classes = 4\ntrain = data/train.txt\nnames = data/obj.names\n")
    (root / "train.txt").write_text("".join(f"data/obj_train_data/train_0000{number}.jpg\n" for number in range(5)))
    assert open_folder("auto", root).name == "yolo"
    train_set, validation = open_splits("auto", [root])
    assert (len(train_set), len(validation)) == (4, 1)
    (defect,) = train_set.defects
    assert "2 annotated images are of no split, and are not used: obj_train_data/test_00000.jpg" in defect.message


def test_a_flat_set_below_a_folder_called_images(yolo, tmp_path):
    root = tmp_path / "images" / "mine"
    root.mkdir(parents=True)
    for folder in ("images", "labels"):
        for path in (yolo / folder / "train").iterdir():
            shutil.copy(path, root)
    (root / "classes.txt").write_text("ball\nboard\ncone\nstar\n")
    splits = open_splits("auto", [root])
    assert sum(len(r.names) for split in splits for r in split.records) == objects_of(five_and_two()["train"])


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("names: {null: star}\n", "data.yaml: `names:` has keys that are no numbers"),
        ("names: [a]\ndate: !!timestamp 2024-13-01\n", "data.yaml: cannot be read as YAML"),
        ("names: " + "[" * 400, "data.yaml: cannot be read as YAML"),
    ],
)
def test_settings_that_make_no_sense(yolo, config, message):
    (yolo / "data.yaml").write_text(config)
    with pytest.raises(DataError, match=message):
        open_splits("yolo", [yolo])


# Names.


@pytest.mark.skipif(os.name == "nt", reason="needs names that are no Unicode")
def test_file_names_that_are_no_unicode(voc, script, tmp_path):
    shutil.rmtree(voc / "ImageSets")
    for folder, suffix in (("JPEGImages", ".jpg"), ("Annotations", ".xml")):
        source = voc / folder / f"{FIRST}{suffix}"
        os.rename(os.fsencode(source), os.fsencode(voc / folder) + b"/caf\xe9" + suffix.encode())
    done = script(
        train_ssd.main,
        "--dataset-type=voc",
        f"--data={voc}",
        f"--model-dir={tmp_path / 'm'}",
        *SMALL,
        "--epochs=1",
    )
    assert done.code == 0, done.err
    audit = json.loads((tmp_path / "m/audit.json").read_text())
    assert [audit[split]["images_listed"] for split in ("train", "validation")] == [5, 2]


def test_output_that_cannot_spell_a_name(voc, tmp_path):
    import subprocess
    import sys

    from conftest import ROOT

    for path in (voc / "Annotations").iterdir():
        path.write_text(path.read_text().replace("ball", "bä☃"))
    (voc / "labels.txt").write_text("bä☃\nboard\ncone\nstar\n")
    argv = ["--dataset-type=voc", f"--data={voc}", f"--model-dir={tmp_path / 'm'}", *SMALL, "--dry-run"]
    done = subprocess.run(
        [sys.executable, str(ROOT / "train_ssd.py"), *argv],
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert b"b\\xe4\\u2603" in done.stdout


@pytest.mark.parametrize("way", ["absolute", "link", "elsewhere"])
def test_yolo_paths_that_lead_to_the_folder_by_another_way(yolo, tmp_path, monkeypatch, way):
    folder = yolo
    names = "names: [ball, board, cone, star]"
    (yolo / "data.yaml").write_text(f"path: {yolo}\ntrain: images/train\nval: {yolo}/images/test\n{names}\n")
    if way == "link":
        folder = tmp_path / "link"
        folder.symlink_to(yolo)
    elif way == "elsewhere":
        folder = tmp_path / "only"
        folder.mkdir()
        shutil.move(yolo / "data.yaml", folder)
    else:
        monkeypatch.chdir(tmp_path)
        folder = yolo.relative_to(tmp_path)
    train_set, val_set = open_splits("yolo", [folder], ReadingOptions())
    drawn = five_and_two()
    assert sum(train_set.class_counts().values()) == objects_of(drawn["train"])
    assert sum(val_set.class_counts().values()) == objects_of(drawn["test"])
    assert "annotation-absent" not in kinds(train_set) | kinds(val_set)


def test_an_image_that_one_file_lists_twice_has_the_objects_of_both(coco):
    (path,) = coco.rglob("*train*.json")
    content = json.loads(path.read_text())
    first = content["images"][0]
    own = [one for one in content["annotations"] if one["image_id"] == first["id"]]
    content["images"].append({**first, "id": 999})
    content["annotations"] += [{**own[0], "id": 998, "image_id": 999}]  # the same object again
    content["annotations"] += [{**own[0], "id": 999, "image_id": 999, "bbox": [1, 2, 30, 31]}]
    path.write_text(json.dumps(content))
    train_set, _ = open_splits("coco", [coco], ReadingOptions())
    assert len(train_set) == 5
    assert sum(train_set.class_counts().values()) == objects_of(five_and_two()["train"]) + 1
    assert "list-repeats" in kinds(train_set)


def test_ids_of_coco_may_be_written_as_fractions(coco):
    for path in coco.rglob("*.json"):
        content = json.loads(path.read_text())
        for annotation in content["annotations"]:
            annotation |= {"image_id": float(annotation["image_id"]), "category_id": float(annotation["category_id"])}
        path.write_text(json.dumps(content))
    train_set, _ = open_splits("coco", [coco], ReadingOptions())
    assert sum(train_set.class_counts().values()) == objects_of(five_and_two()["train"])


def test_objects_called_background_are_of_no_class(voc, caplog):
    path = voc / "Annotations" / f"{FIRST}.xml"
    path.write_text(re.sub("<name>.*?</name>", "<name>BACKGROUND</name>", path.read_text()))
    train_set, _ = open_splits("voc", [voc], ReadingOptions())
    assert "class 'BACKGROUND' is not in the list" in " ".join(map(str, train_set.defects))
    assert len(train_set.targets(train_set.ids.index(FIRST))[1]) == 0


def test_images_of_difficult_objects_alone_are_images_without_objects(voc):
    path = voc / "Annotations" / f"{FIRST}.xml"
    path.write_text(path.read_text().replace("<difficult>0", "<difficult>1"))
    train_set, _ = open_splits("voc", [voc], ReadingOptions())
    train_set.drop_negatives()
    assert FIRST not in train_set.ids
    assert len(train_set) == 4


def test_a_folder_whose_name_is_no_utf_8(voc):
    odd = voc.parent / os.fsdecode(b"donn\xe9es")
    voc.rename(odd)
    assert len(open_splits("voc", [odd], ReadingOptions())[0]) == 5


def test_a_user_without_a_home(voc, monkeypatch):
    def no_home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", no_home)
    assert len(open_splits("voc", [voc], ReadingOptions())[0]) == 5


def test_broken_exif_does_not_cost_the_image(tmp_path):
    Image.new("RGB", (8, 6)).save(tmp_path / "a.png", exif=b"Exif\x00\x00no tiff file at all")
    info = read_image_info(tmp_path / "a.png")
    assert (info.error, info.orientation) == (None, 1)
    assert read_upright(tmp_path / "a.png").shape == (6, 8, 3)


def test_without_any_object_it_is_not_said_that_all_are_difficult(script, voc, tmp_path):
    for path in (voc / "Annotations").iterdir():
        path.write_text(re.sub("<object>.*</object>", "", path.read_text(), flags=re.DOTALL))
    done = script(train_ssd.main, "--dataset-type=voc", f"--data={voc}", f"--model-dir={tmp_path / 'm'}", *SMALL)
    assert_refused(done, "can be trained on", "there is none")

"""Every defect of a dataset: it is named, training goes through it, and nothing is lost without a word.

Each case spoils a generated dataset in one way, trains an epoch on it, and counts the objects that reach the net.
"""

import base64
import json
import os
import re
import shutil
import sys
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path

import cv2
import dataset_writers
import numpy as np
import pytest
import torch
from conftest import CLASSES, SHARED, SMALL, assert_refused
from PIL import Image

import train_ssd
from vision.boxes.forms import center_form_to_corner_form
from vision.datasets import ReadingOptions, open_dataset, open_splits, synthetic
from vision.datasets import folder as reading
from vision.datasets.audit import make_audit
from vision.datasets.holding_out import hold_out
from vision.datasets.records import INFO, KINDS, LEFT_OUT, RawImage
from vision.datasets.voc_dataset import VocReader
from vision.engine import trainer
from vision.engine.step import TrainStep
from vision.ssd.config import MOBILENETV1
from vision.ssd.models import MODELS

TRAIN, TEST = 6, 3
FIRST = "train_00000"


@pytest.fixture(scope="module")
def templates(tmp_path_factory):
    """The same images as VOC, Open Images and YOLO, to be copied and spoilt."""
    splits = {
        "train": synthetic.drawings(TRAIN, 11, size=(96, 80), objects=(2, 3)),
        "test": synthetic.drawings(TEST, 12, size=(96, 80), objects=(2, 3)),
    }
    # Every class in every split: a class without objects is a defect of its own.
    for split in splits.values():
        split[0] = split[0]._replace(boxes=_four_boxes(), names=CLASSES)
    roots = {}
    for name, write in (
        ("voc", synthetic.write_voc),
        ("open_images", dataset_writers.write_open_images),
        ("yolo", dataset_writers.write_yolo),
        ("coco", dataset_writers.write_coco),
    ):
        roots[name] = tmp_path_factory.mktemp(name) / "data"
        write(roots[name], splits)
    return roots


def _four_boxes():
    return np.float32([[5, 5, 35, 35], [40, 5, 80, 35], [5, 40, 40, 75], [50, 40, 90, 75]])


@dataclass
class Run:
    """What one epoch on a dataset came to."""

    out: str
    audit: dict
    objects_trained: int

    def named(self, kind: str) -> list[dict]:
        return [defect for defect in self.audit["defects"] if defect["kind"] == kind]


@pytest.fixture
def train(script, tmp_path, monkeypatch):
    """Train one epoch without augmentation and count the objects that reach the net."""

    def run(root: Path, *argv: str) -> Run:
        seen = []
        step = TrainStep.step

        def counting(train_step, batches, *rest):
            seen.extend(int((batch.labels > 0).sum()) for batch in batches)
            return step(train_step, batches, *rest)

        monkeypatch.setattr(TrainStep, "step", counting)
        folder = tmp_path / "model"
        done = script(
            train_ssd.main,
            "--dataset-type=auto",
            f"--data={root}",
            f"--model-dir={folder}",
            *SMALL,
            "--epochs=1",
            "--freeze-base-net",
            "--augmentation=none",
            "--priors=upstream",  # those that `unspoilt` was looked at with
            "--no-validation-mean-ap",
            *argv,
        )
        assert (done.code, done.err) == (0, ""), done.err
        audit = json.loads((folder / "audit.json").read_text())
        for defect in audit["defects"]:
            if defect["effect"] != INFO:
                assert defect["message"] in done.out, "the log names it"
        return Run(done.out, audit, sum(seen))

    return run


def objects_on_disk(root: Path) -> int:
    """Count the objects of the training images of a VOC folder, by other means than the reader's."""
    listed = (root / "ImageSets/Main/train.txt").read_text().split()
    count = 0
    for path in (root / "Annotations").glob("*.xml"):
        if path.stem in listed:
            count += path.read_text(errors="replace").count("<object>")
    return count


@pytest.fixture
def voc(templates, tmp_path) -> Path:
    shutil.copytree(templates["voc"], tmp_path / "voc")
    return tmp_path / "voc"


# How to spoil a VOC folder. Each is named by what it makes of the first training image.


def image_path(root, name=FIRST):
    return root / "JPEGImages" / f"{name}.jpg"


def xml_path(root):
    return root / "Annotations" / f"{FIRST}.xml"


def edit_xml(*replacements):
    def spoil(root):
        text = xml_path(root).read_text()
        for old, new in replacements:
            assert re.search(old, text, re.S)
            text = re.sub(old, new, text, count=1, flags=re.S)
        xml_path(root).write_text(text)

    return spoil


def first_box(*corners):
    """Give the first object another box."""
    tags = zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True)
    box = "".join(f"<{tag}>{value}</{tag}>" for tag, value in tags)
    return edit_xml((r"<bndbox>.*?</bndbox>", f"<bndbox>{box}</bndbox>"))


def as_image(convert, **options):
    def spoil(root):
        with Image.open(image_path(root)) as image:
            changed = convert(image)
        changed.save(image_path(root), **({"format": "PNG"} | options))

    return spoil


def cut_off(root):
    content = image_path(root).read_bytes()
    image_path(root).write_bytes(content[: len(content) // 2])


def cut_off_with_an_end_mark(root, name=FIRST):
    content = image_path(root, name).read_bytes()
    image_path(root, name).write_bytes(content[: len(content) // 2] + content[-2:])


def lose_a_marker(root):
    """A JPEG with marks between its parts, one of which is of another part."""
    with Image.open(image_path(root)) as image:
        image.save(image_path(root), restart_marker_rows=1)
    content = image_path(root).read_bytes()
    image_path(root).write_bytes(content.replace(b"\xff\xd1", b"\xff\xd3", 1))


def bytes_too_many(root):
    """Bytes that belong to nothing before the end mark, as some cameras write."""
    content = image_path(root).read_bytes()
    image_path(root).write_bytes(content[:-2] + bytes(20) + content[-2:])


def sixteen_bits(root):
    image = cv2.imread(str(image_path(root))).astype(np.uint16) * 257
    cv2.imwrite(str(image_path(root).with_suffix(".png")), image)
    image_path(root).unlink()


def palette(root):
    with Image.open(image_path(root)) as image:
        image.quantize(16).save(image_path(root).with_suffix(".png"))
    image_path(root).unlink()


def transparent(root):
    with Image.open(image_path(root)) as image:
        image.convert("RGBA").save(image_path(root).with_suffix(".png"))
    image_path(root).unlink()


def turned(root):
    """An image stored lying, whose annotation was made for how it is shown."""
    with Image.open(image_path(root)) as image:
        exif = image.getexif()
        exif[0x0112] = 6
        image.transpose(Image.Transpose.ROTATE_90).save(image_path(root), exif=exif)


def turned_ignored(root):
    """An image stored lying, whose annotation was made for how it is stored."""
    with Image.open(image_path(root)) as image:
        exif = image.getexif()
        exif[0x0112] = 6
        image.copy().save(image_path(root), exif=exif)


def write_list(text, name="train", encoding="utf-8"):
    def spoil(root):
        (root / f"ImageSets/Main/{name}.txt").write_bytes(text.encode(encoding))

    return spoil


def labels(text):
    return lambda root: (root / "labels.txt").write_text(text)


ALL = "".join(f"train_{number:05d}\n" for number in range(TRAIN))

#: Kind -> how it comes about, what the line says, and how many objects and images are left out for it.
CASES = {
    "image-missing": (
        lambda root: image_path(root).unlink(),
        rf"image {FIRST} left out: no image of that name",
        4,
        1,
    ),
    "image-undecodable": (
        lambda root: image_path(root).write_bytes(b"not an image"),
        r"\.jpg: image left out: not an image of any known format \(12 bytes\)",
        4,
        1,
    ),
    "image-truncated": (cut_off, r"\.jpg: image left out: truncated after \d+ bytes", 4, 1),
    "image-doubtful": (
        bytes_too_many,
        r"\.jpg: its decoder says 'Corrupt JPEG data: \d+ extraneous bytes before marker 0xd9'; look whether",
        0,
        0,
    ),
    "image-suffix": (as_image(lambda image: image.copy()), r"\.jpg: is PNG, whatever its name says", 0, 0),
    "image-rotated": (turned, r"turned upright to 96x80, EXIF orientation 6", 0, 0),
    "image-grey": (as_image(lambda image: image.convert("L"), format="JPEG"), r"is grey, taken as RGB", 0, 0),
    "image-alpha": (transparent, r"has transparency", 0, 0),
    "image-palette": (palette, r"has a palette", 0, 0),
    "image-cmyk": (as_image(lambda image: image.convert("CMYK"), format="JPEG"), r"is CMYK", 0, 0),
    "image-16-bit": (sixteen_bits, r"has 16 bits a channel", 0, 0),
    "annotation-missing": (lambda root: xml_path(root).unlink(), rf"image {FIRST} left out: no XML in", 0, 1),
    "annotation-unreadable": (
        lambda root: xml_path(root).write_text("<annotation><size></annotation>"),
        rf"{FIRST}\.xml: image {FIRST} left out: not readable as XML \(mismatched tag",
        0,
        1,
    ),
    "size-missing": (edit_xml((r"<size>.*</size>", "")), "does not say the size of image", 0, 0),
    "size-zero": (edit_xml((r"<width>96<", "<width>0<")), r"is 0x80; it is 96x80", 0, 0),
    "size-differs": (
        edit_xml((r"<width>96<", "<width>192<")),
        r"is 192x80, it is 96x80; boxes are taken as they are",
        0,
        0,
    ),
    "name-missing": (edit_xml((r"<name>.*?</name>", "")), r"\.xml: object 1 left out: it has no name", 1, 0),
    "class-unknown": (
        edit_xml((r"<name>ball</name>", "<name>Ball </name>")),
        r"1 object is left out: class 'Ball' is not in the list .*, did you mean 'ball'\?; first: .*\.xml object 1",
        1,
        0,
    ),
    "box-missing": (
        edit_xml((r"<bndbox>.*?</bndbox>", "")),
        r"object 1 'ball' left out: its box is missing, expected four numbers",
        1,
        0,
    ),
    "box-not-finite": (
        first_box("nan", 1, 20, 30),
        r"object 1 'ball' left out: its box \[nan, 1, 20, 30\] is not finite",
        1,
        0,
    ),
    "box-no-area": (
        first_box(9, 9, 9, 30),
        r"object 1 'ball' left out: its box \[9, 9, 9, 30\] has no area within 96x80",
        1,
        0,
    ),
    "box-reversed": (
        first_box(40, 30, 10, 9),
        r"object 1 'ball' repaired: the corners of its box \[40, 30, 10, 9\]",
        0,
        0,
    ),
    "box-one-over": (first_box(50, 9, 97, 60), r"object 1 'ball' ends one pixel outside 96x80: its box is", 0, 0),
    "box-outside": (first_box(-5, 9, 97, 30), r"object 1 'ball' repaired: its box \[-5, 9, 97, 30\] is cut", 0, 0),
    "box-turned": (turned_ignored, r"boxes turned with image .*: they were made for 96x80, without its EXIF", 0, 0),
    "box-from-zero": (first_box(0, 0, 30, 40), r"object 1 'ball' has 0 in its box \[0, 0, 30, 40\]", 0, 0),
    "box-fraction": (first_box(1.5, 2.25, 30, 40), r"has fractions of pixels in its boxes: object 1", 0, 0),
    "difficult-missing": (
        edit_xml((r"<difficult>0</difficult>", "<difficult>Unspecified</difficult>")),
        r"object 1: no <difficult> of 0 or 1, taken as 0",
        0,
        0,
    ),
    "list-repeats": (write_list(ALL + f"{FIRST}\n"), rf"1 names are listed again, each counts once: {FIRST}", 0, 0),
    "label-background": (
        labels("ball\nboard\nBackground\ncone\nstar\n"),
        r"labels\.txt: lists 'Background': removed, BACKGROUND is always class 0",
        0,
        0,
    ),
    "label-repeats": (labels("ball\nboard\nball\ncone\nstar\n"), r"labels\.txt: names ball more than once", 0, 0),
    "class-empty": (
        labels("ball\nboard\ncone\nstar\ncube\n"),
        r"class 'cube' has no object in the training images",
        0,
        0,
    ),
    "label-alike": (
        lambda root: (labels("ball\nBALL\nboard\ncone\nstar\n")(root), edit_xml((r">ball<", ">BALL<"))(root)),
        r"classes \['ball', 'BALL'\] differ by case or spaces only",
        0,
        0,
    ),
    "overlap": (
        write_list(f"{FIRST}\ntest_00000\ntest_00001\ntest_00002\n", "test"),
        rf"1 of 4 validation images \(25%\) ARE TRAINING IMAGES too: .*; first: {FIRST}",
        0,
        0,
    ),
    "box-small": (first_box(10, 10, 14, 40), r"object 1 'ball' is 4\.0x36\.0 pixels at the network's size", 0, 0),
    "box-unreached": (first_box(1, 10, 96, 14), r"object 1 'ball' overlaps no prior by 0\.5", 0, 0),
}

#: Kinds that only other formats have, shown below.
ELSEWHERE = {"group", "depiction", "row-unreadable", "annotation-absent", "path-missing"}
#: Kinds that odd folders bring about, see test_odd_folders.py.
ODD = {"image-unannotated", "image-unlisted", "image-ambiguous", "annotation-repeats"}
#: Kinds that labelling tools bring about, see test_labelling_tools.py.
OF_TOOLS = {"box-relative", "name-differs", "shape-no-box"}
#: Kinds that folders bring about as they lie in public, see test_public_folders.py.
PUBLIC = {
    "image-pointer",
    "image-mostly-unannotated",
    "annotation-mostly-absent",
    "annotation-contradicts",
    "crowd-usual",
    "label-lists",
}
#: What is said of many defects together.
OF_MANY = {"negative-mark"}
#: What numbers and sizes of objects say of classes, see test_class_audit.py.
OF_CLASSES = {"class-doubtful", "class-few", "class-rare", "class-small"}

#: What comes along with a defect and cannot be told apart from it.
COMPANIONS = {
    "label-alike": {"class-empty"},
    "box-outside": {"box-unreached"},
    "box-one-over": {"box-unreached"},
    "box-small": {"box-unreached"},
    "box-unreached": {"box-small"},
    "box-turned": {"image-rotated"},
}


def test_every_kind_has_a_case():
    assert set(CASES) | ELSEWHERE | ODD | OF_TOOLS | PUBLIC | OF_MANY | OF_CLASSES == set(KINDS)


def flaws(run: Run, known: Run) -> set[str]:
    before = {(defect["kind"], defect["message"]) for defect in known.audit["defects"]}
    return {d["kind"] for d in run.audit["defects"] if (d["kind"], d["message"]) not in before}


@pytest.fixture(scope="module")
def unspoilt(templates, tmp_path_factory):
    """The audit of the dataset before anything is done to it: hardly a word."""
    train_set, validation = open_splits("voc", [templates["voc"]])
    priors = center_form_to_corner_form(MOBILENETV1.at(96).priors)
    audit = make_audit(train_set, validation, (96, 96), priors)
    return Run("", json.loads(json.dumps(audit.as_json())), 0)


def test_a_sound_dataset_has_no_defects(unspoilt, templates, train):
    assert {defect["effect"] for defect in unspoilt.audit["defects"]} <= {INFO}
    run = train(templates["voc"], "--strict")
    assert run.objects_trained == objects_on_disk(templates["voc"])


@pytest.mark.parametrize("kind", CASES)
def test_it_is_named_trained_through_and_counted(kind, voc, train, unspoilt):
    spoil, line, objects, images = CASES[kind]
    spoil(voc)
    on_disk = objects_on_disk(voc)
    run = train(voc)
    named = run.named(kind)
    assert named, f"named are {run.audit['totals']}"
    assert any(re.search(line, f"{defect['file']}: {defect['message']}") for defect in named), named
    assert flaws(run, unspoilt) <= {kind, "class-few"} | COMPANIONS.get(kind, set()), "all classes have few objects"
    assert sum(defect["objects"] for defect in run.audit["defects"]) == objects
    assert sum(defect["images"] for defect in run.audit["defects"]) == images
    assert run.objects_trained == on_disk - objects == run.audit["train"]["objects"]
    assert run.audit["train"]["objects_written"] - run.audit["train"]["objects_left_out"] == run.objects_trained


def test_annotation_and_pixels_agree_whichever_way_exif_was_applied(templates, tmp_path):
    expected = None
    for number, spoil in enumerate((lambda root: None, turned)):
        root = tmp_path / str(number)
        shutil.copytree(templates["voc"], root)
        spoil(root)
        dataset, _ = open_splits("voc", [root])
        expected = dataset.annotation(0).boxes if expected is None else expected
        assert dataset.get_image(0).shape == (80, 96, 3)
        np.testing.assert_array_equal(dataset.annotation(0).boxes, expected)
    root = tmp_path / "ignored"
    shutil.copytree(templates["voc"], root)
    turned_ignored(root)
    dataset, _ = open_splits("voc", [root])
    assert dataset.get_image(0).shape == (96, 80, 3), "a quarter turn clockwise"
    x1, y1, x2, y2 = expected.T
    np.testing.assert_array_equal(dataset.annotation(0).boxes, np.stack([80 - y2, x1, 80 - y1, x2], axis=1))


def test_copies_under_other_names_are_found(voc, train):
    shutil.copy(image_path(voc), voc / "JPEGImages" / "test_00001.jpg")
    run = train(voc)
    assert "1 of 3 validation images (33%) ARE COPIES of training images" in run.named("overlap")[0]["message"]


def test_many_defects_of_a_kind_are_cut_short_in_the_log_and_whole_in_the_file(voc, script, tmp_path):
    objects = "".join(
        f"<object><name>ball</name><difficult>0</difficult><bndbox><xmin>5</xmin><ymin>5</ymin><xmax>5</xmax><ymax>{y}</ymax></bndbox></object>"
        for y in range(10, 40)
    )
    edit_xml((r"</annotation>", f"{objects}</annotation>"))(voc)
    argv = ("--dataset-type=voc", f"--data={voc}", f"--model-dir={tmp_path / 'm'}", *SMALL, "--epochs=1")
    for more in ((), ("--dry-run",)):
        done = script(train_ssd.main, *argv, *more)
        assert done.out.count("has no area within") == 3
        assert f"... and 27 more boxes without area ({tmp_path / 'm' / 'audit.json'} has all)" in done.out
        audit = json.loads((tmp_path / "m" / "audit.json").read_text())
        assert audit["totals"]["box-no-area"]["count"] == 30
        assert sum(defect["kind"] == "box-no-area" for defect in audit["defects"]) == 30


def test_a_log_fits_a_screen_and_nothing_is_missing_in_the_file(voc, script, tmp_path):
    """Images that are listed and not there, objects of NaN alone on their images, and unknown classes, in great number."""
    listed = voc / "ImageSets" / "Main" / "train.txt"
    xml = "<annotation><size><width>96</width><height>80</height></size>{}</annotation>"
    corners = "".join(f"<{tag}>{{0}}</{tag}>" for tag in ("xmin", "ymin", "xmax", "ymax"))
    mark = f"<object><name>ball</name><difficult>0</difficult><bndbox>{corners.format('NaN')}</bndbox></object>"
    names = [f"gone_{number}" for number in range(300)]
    for number in range(120):
        name = f"marked_{number}"
        shutil.copy(image_path(voc), voc / "JPEGImages" / f"{name}.jpg")
        (voc / "Annotations" / f"{name}.xml").write_text(xml.format(mark))
        names.append(name)
    odd = "".join(
        f"<object><name>odd {number}</name><difficult>0</difficult><bndbox><xmin>-9</xmin><ymin>5</ymin><xmax>30</xmax>"
        "<ymax>40</ymax></bndbox></object>"
        for number in range(100)
    )
    edit_xml((r"</annotation>", f"{odd}</annotation>"))(voc)
    listed.write_text(listed.read_text() + "\n".join(names) + "\n")
    argv = ("--dataset-type=voc", f"--data={voc}", f"--model-dir={tmp_path / 'm'}", *SMALL, "--dry-run")
    done = script(train_ssd.main, *argv)
    assert (done.code, done.err) == (0, "")
    assert len(done.out.splitlines()) <= 60
    assert "... and 297 more images that are not there" in done.out
    assert "a way to mark images without objects: 120; first: " in done.out
    totals = json.loads((tmp_path / "m" / "audit.json").read_text())["totals"]
    counts = {kind: totals[kind]["count"] for kind in ("image-missing", "box-not-finite", "class-unknown")}
    assert counts == {"image-missing": 300, "box-not-finite": 120, "class-unknown": 100}
    assert "box-outside" not in totals, "objects that are left out are not repaired as well"


# Lists and splits.

LISTS = {
    "crlf": ALL.replace("\n", "\r\n").encode(),
    "bom": b"\xef\xbb\xbf" + ALL.encode(),
    "utf-16": ALL.encode("utf-16"),
    "blank lines": ("\n\n" + ALL.replace("\n", "  \n\n")).encode(),
    "suffixes": ALL.replace("\n", ".jpg\n").encode(),
    "other suffixes": ALL.replace("\n", ".png\n").encode(),
    "xml suffixes": ALL.replace("\n", ".xml\n").encode(),
    "paths": ALL.replace("train_", "/home/me/data/JPEGImages/train_").replace("\n", ".jpg\n").encode(),
    "windows paths": ALL.replace("train_", "C:\\data\\JPEGImages\\train_").replace("\n", ".jpg\r\n").encode(),
    "a class's column": ALL.replace("\n", "  1\n", 3).replace("3\n", "3 -1\n").encode(),
    "other case": ALL.upper().encode(),
}


@pytest.mark.parametrize("name", LISTS)
def test_lists_as_tools_write_them(voc, name):
    expected = [record.image_id for record in open_splits("voc", [voc])[0].records]
    (voc / "ImageSets/Main/train.txt").write_bytes(LISTS[name])
    train_set, _ = open_splits("voc", [voc])
    assert train_set.ids == expected
    assert train_set.defects == []


@pytest.mark.parametrize(
    "name", ["two words", "with (brackets)", "[square] 1", "dots.in.name", "naïve", "50% off", "a,b", "name 1"]
)
def test_names_with_odd_characters(voc, name):
    image_path(voc).rename(voc / "JPEGImages" / f"{name}.jpg")
    xml_path(voc).rename(voc / "Annotations" / f"{name}.xml")
    write_list(ALL.replace(FIRST, name))(voc)
    train_set, _ = open_splits("voc", [voc])
    assert train_set.ids[0] == name
    assert train_set.defects == []


def test_accents_composed_or_decomposed_are_the_same(voc):
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    image_path(voc).rename(voc / "JPEGImages" / f"{decomposed}.jpg")
    xml_path(voc).rename(voc / "Annotations" / f"{composed}.xml")
    write_list(ALL.replace(FIRST, composed))(voc)
    assert open_splits("voc", [voc])[0].defects == []


@pytest.mark.parametrize("folder", ["ImageSets/Main", "ImageSets", "imagesets/main", "."])
@pytest.mark.parametrize(
    ("names", "title"),
    [
        (("train", "val"), "train.txt"),
        (("trainval", "test"), "trainval.txt"),
        (("default", "test"), "default.txt"),
        (("ball_train", "star_train", "val"), "ball_train.txt and 1 more lists of classes"),
    ],
)
def test_lists_wherever_they_lie(voc, folder, names, title):
    texts = [ALL, "".join(f"test_{number:05d}\n" for number in range(TEST))]
    shutil.rmtree(voc / "ImageSets")
    (voc / folder).mkdir(parents=True, exist_ok=True)
    for name in names:
        text = texts[name in ("val", "test")]
        if "_" in name:
            text = text.replace("\n", " -1\n") if name.startswith("star") else text.replace("\n", " 1\n")
        (voc / folder / f"{name}.txt").write_text(text)
    train_set, validation = open_splits("voc", [voc])
    assert (len(train_set), len(validation)) == (TRAIN, TEST)
    assert train_set.title.endswith(title)
    assert train_set.defects == []


def test_without_lists_a_fifth_is_held_out_by_a_hash(voc, train):
    shutil.rmtree(voc / "ImageSets")
    first = open_splits("voc", [voc])
    again = open_splits("voc", [voc])
    assert (len(first.train), len(first.validation)) == (7, 2)
    assert [s.ids for s in first] == [s.ids for s in again]
    assert not set(first.train.ids) & set(first.validation.ids)
    out = train(voc).out
    assert re.search(r"train: all annotated images in .* \(no list found\), except the 20% kept for validation", out)
    assert re.search(r"validation: 20% of all annotated images in .* \(no list found\), chosen by a hash of the n", out)


def test_val_split_holds_out_what_it_says(voc, train):
    write_list(ALL, "test")(voc)  # validation that is training
    run = train(voc, "--val-split=0.5")
    assert (run.audit["train"]["images"], run.audit["validation"]["images"]) == (3, 3)
    assert run.named("overlap") == []
    assert "validation: 50% of " in run.out


def test_a_list_for_validation_alone_leaves_the_rest_for_training(voc):
    (voc / "ImageSets/Main/train.txt").unlink()
    train_set, validation = open_splits("voc", [voc])
    assert (len(train_set), len(validation)) == (TRAIN, TEST)
    assert not set(train_set.ids) & set(validation.ids)


@pytest.mark.parametrize(("stratified", "held_out"), [(False, 1), (True, 2)])
def test_a_list_for_training_alone_gives_a_fifth_of_it(voc, stratified, held_out):
    """Where that is one image, its classes are not all that are on three images or more."""
    (voc / "ImageSets/Main/test.txt").unlink()
    train_set, validation = open_splits("voc", [voc], ReadingOptions(stratified=stratified))
    assert (len(train_set), len(validation)) == (6 - held_out, held_out)


@pytest.mark.parametrize("share", [0.1, 0.2, 0.5])
def test_holding_out_depends_on_names_alone(share):
    images = [RawImage(f"image {number}", None, Path()) for number in range(200)]
    _, held_out = hold_out(images, share)
    assert len(held_out) == round(200 * share)
    assert {raw.image_id for raw in hold_out(images[::-1], share)[1]} == {raw.image_id for raw in held_out}
    moved = {raw.image_id for raw in held_out} ^ {raw.image_id for raw in hold_out(images[:-1], share)[1]}
    assert len(moved) <= 2, "one image less moves hardly any other"


def test_of_a_list_for_both_a_fifth_is_held_out(voc, train):
    for name in ("train", "test"):
        (voc / f"ImageSets/Main/{name}.txt").unlink()
    write_list(ALL, "default")(voc)
    run = train(voc)
    assert "ARE TRAINING IMAGES too" not in run.out
    assert re.search(r"validation: 20% of .*default\.txt, chosen by a hash of the names", run.out)
    assert [run.audit[split]["images"] for split in ("train", "validation")] == [TRAIN - 2, 2]
    assert open_dataset("voc", voc, "test").ids == open_splits("voc", [voc]).validation.ids, "evaluation takes the same"


@pytest.mark.parametrize(("train_list", "test_list"), [("default", "test"), ("default", "val"), ("train", "default")])
def test_a_default_list_beside_another_is_what_the_other_is_not(voc, train_list, test_list):
    for name, new in (("train", train_list), ("test", test_list)):
        (voc / f"ImageSets/Main/{name}.txt").rename(voc / f"ImageSets/Main/{new}.txt")
    assert tuple(map(len, open_splits("voc", [voc]))) == (TRAIN, TEST)


def test_lists_that_overlap_are_announced(voc, train):
    write_list(ALL, "test")(voc)
    run = train(voc)
    assert "6 of 6 validation images (100%) ARE TRAINING IMAGES too" in run.out
    assert "--val-split=0.2" in run.out


# Classes.


def test_labels_from_data_takes_the_names_found(voc, train):
    labels("something else\n")(voc)
    run = train(voc, "--labels-from-data")
    assert list(run.audit["train"]["objects_per_class"]) == sorted(CLASSES)
    assert run.named("class-unknown") == []


@pytest.mark.parametrize("name", ["coco", "yolo"])
def test_labels_from_data_leaves_out_classes_that_do_not_occur(templates, tmp_path, name):
    root = tmp_path / name
    shutil.copytree(templates[name], root)
    if name == "yolo":
        config = (root / "data.yaml").read_text()
        (root / "data.yaml").write_text(config.replace("star]", "star, cube]"))
    else:
        for path in (root / "annotations").glob("*.json"):
            content = json.loads(path.read_text())
            content["categories"].append({"id": 77, "name": "cube"})
            path.write_text(json.dumps(content))
    for from_data, expected in ((False, (*CLASSES, "cube")), (True, CLASSES)):
        train_set, _ = open_splits(name, [root], ReadingOptions(labels_from_data=from_data))
        assert train_set.class_names[1:] == expected


def test_no_known_class_ends_with_the_names_found(voc, script, tmp_path):
    labels("car\nbus\n")(voc)
    done = script(train_ssd.main, "--dataset-type=voc", f"--data={voc}", f"--model-dir={tmp_path / 'm'}", *SMALL)
    assert_refused(done, "no object in", "['car', 'bus']", "objects are left out: class 'ball'", "--labels-from-data")


def test_nobody_is_given_the_twenty_classes_of_voc(voc):
    (voc / "labels.txt").unlink()
    assert open_splits("voc", [voc])[0].class_names == ("BACKGROUND", *sorted(CLASSES))


# Open Images and YOLO have defects of their own.


def spoil_row(root, line, **changes):
    """Change fields of a row of the training table, lines counted from 1 with the header."""
    path = root / "sub-train-annotations-bbox.csv"
    rows = [row.split(",") for row in path.read_text().splitlines()]
    for column, value in changes.items():
        rows[line - 1][rows[0].index(column)] = value
    path.write_text("".join(",".join(row) + "\n" for row in rows))


@pytest.mark.parametrize(
    ("changes", "kind", "message", "left_out"),
    [
        ({"IsGroupOf": "1"}, "group", "image train00000: line 2 neither trained on nor counted", 0),
        ({"IsDepiction": "1"}, "depiction", "image train00000: line 2 neither trained on nor counted", 0),
        ({"XMin": "left"}, "box-missing", "line 2 'ball' of image train00000 left out", 1),
        ({"XMin": "-0.2"}, "box-outside", "line 2 'ball' of image train00000 repaired", 0),
        ({"ClassName": ""}, "name-missing", "line 2 of image train00000 left out: it has no name", 1),
        ({"ImageID": ""}, "row-unreadable", "line 2 left out: it names no image", 1),
        ({"ImageID": "gone"}, "image-missing", "image gone left out: no image of that name", 1),
    ],
)
def test_defects_of_open_images(templates, tmp_path, train, changes, kind, message, left_out):
    root = tmp_path / "open_images"
    shutil.copytree(templates["open_images"], root)
    spoil_row(root, 2, **changes)
    rows = len((root / "sub-train-annotations-bbox.csv").read_text().splitlines()) - 1
    run = train(root)
    assert message in run.named(kind)[0]["message"]
    ignored = kind in ("group", "depiction")
    assert run.objects_trained == rows - left_out - ignored
    assert run.audit["train"]["difficult"] == ignored


def test_a_short_row_is_left_out_and_named(templates, tmp_path, train):
    root = tmp_path / "open_images"
    shutil.copytree(templates["open_images"], root)
    with open(root / "sub-train-annotations-bbox.csv", "a") as file:
        file.write("train00001,only,three\n")
    run = train(root)
    assert "of image train00001 left out: it has no name" in run.named("name-missing")[0]["message"]


def test_depictions_are_trained_on_when_asked(templates, tmp_path, train):
    root = tmp_path / "open_images"
    shutil.copytree(templates["open_images"], root)
    spoil_row(root, 2, IsDepiction="1")
    without, including = train(root), train(root, "--include-depiction")
    assert including.objects_trained == without.objects_trained + 1
    assert including.named("depiction") == []


def test_a_text_of_yolo_that_cannot_be_read_is_left_out_and_named(templates, tmp_path, train):
    root = tmp_path / "yolo"
    shutil.copytree(templates["yolo"], root)
    (root / "labels/train/train_00001.txt").write_bytes(b"\xff\xfa\xfe")
    run = train(root)
    assert "image train_00001 left out" in run.named("annotation-unreadable")[0]["message"]
    assert run.audit["train"]["images"] == TRAIN - 1


# Negatives.


def test_negatives_are_kept_unless_refused(voc, train):
    edit_xml((r"<object>.*</object>", ""))(voc)
    kept = train(voc)
    assert kept.audit["train"]["images"] == TRAIN
    assert kept.audit["train"]["negatives"] == 1
    assert "Step: " not in kept.out
    refused = train(voc, "--no-negatives", "--debug-steps=1", "--batch-size=1")
    assert "1 images without objects left out, as asked; 5 are left" in refused.out
    assert f"Step: {TRAIN - 1}/{TRAIN - 1}" in refused.out


# What becomes unreadable after the start.


def test_an_image_that_goes_bad_while_training_is_named_and_stood_in_for(voc, train, monkeypatch):
    real = trainer.train_epochs

    def spoil_then_train(*args, **options):
        # Behind the audit's back, before the first epoch.
        image_path(voc).write_bytes(b"not an image")
        (voc / "JPEGImages/test_00001.jpg").unlink()
        return real(*args, **options)

    monkeypatch.setattr(trainer, "train_epochs", spoil_then_train)
    run = train(voc)
    assert f"{FIRST}.jpg: not an image of any known format (12 bytes)" in run.out
    assert "train_00001 stands for it" in run.out
    assert "Epoch: 0, 1 images could not be read" in run.out
    assert "test_00001.jpg: no such image; a blank image stands for it" in run.out
    assert "Saved model" in run.out


def test_a_run_whose_data_go_away_ends(tmp_path, script, monkeypatch):
    root = tmp_path / "many"
    synthetic.write_voc(root, {name: synthetic.drawings(14, 3, size=(64, 64)) for name in ("train", "test")})
    real = trainer.train_epochs

    def spoil_then_train(*args, **options):
        for path in sorted((root / "JPEGImages").glob("train*"))[1:]:
            path.unlink()
        return real(*args, **options)

    monkeypatch.setattr(trainer, "train_epochs", spoil_then_train)
    done = script(train_ssd.main, "--dataset-type=voc", f"--data={root}", f"--model-dir={tmp_path / 'm'}", *SMALL)
    assert_refused(done, "11 images could not be read in one epoch", "no such image")


# Dry runs.

OUTSIDE = (
    "<object><name>ball</name><difficult>0</difficult><bndbox><xmin>-20</xmin><ymin>5</ymin><xmax>40</xmax>"
    "<ymax>50</ymax></bndbox></object>"
)


def dry_run(script, root, folder, *argv):
    argv = ("--dry-run", "--dataset-type=auto", f"--data={root}", f"--model-dir={folder}", *SMALL, *argv)
    return script(train_ssd.main, *argv)


def test_a_dry_run_says_everything_and_trains_nothing(voc, script, tmp_path):
    done = dry_run(script, voc, tmp_path / "m")
    assert (done.code, done.err) == (0, "")
    for pattern in (
        r"train: 6 of 6 images used \(0 without objects\), (\d+) of \1 objects used",
        r"boxes at 96x96: \d+ of \d+ have a side below 8 pixels; \d+ are reached by no prior at IoU 0\.5, best possible",
        r"first losses: training \d+\.\d{4}, validation \d+\.\d{4}",
        r"peak so far: \d+ MiB of memory",
        r"\d\.\d{3} s per step: about \d+ s per epoch and \d+ s per validation, .* for 30 epochs",
        r"Dry run done: nothing was trained",
    ):
        assert re.search(pattern, done.out), pattern
    assert sorted(path.name for path in (tmp_path / "m").glob("[!.]*")) == ["audit.html", "audit.json", "audit.png"]
    with Image.open(tmp_path / "m" / "audit.png") as image:
        assert min(image.size) > 1000
        colors = len(np.unique(np.asarray(image.convert("RGB").resize((100, 100))).reshape(-1, 3), axis=0))
    assert colors > 500, "curves and photographs, not an empty page"


def test_a_page_shows_each_defect_with_its_images(voc, script, tmp_path):
    edit_xml((r"</annotation>", OUTSIDE + "</annotation>"))(voc)
    (voc / "ImageSets" / "Main" / "train.txt").write_text(f"{FIRST}\ntrain_00001\n<b>gone</b>\n")
    assert dry_run(script, voc, tmp_path / "m").code == 0
    page = (tmp_path / "m" / "audit.html").read_text()
    assert "images that are not there: 1 (left out)" in page
    assert "image &lt;b&gt;gone&lt;/b&gt; left out: no image of that name" in page
    sections = re.split("<h2>", page)
    outside = next(section for section in sections if section.startswith("boxes that reach out of the image"))
    assert f"{FIRST}.xml: object" in outside
    content = re.search(r'src="data:image/jpeg;base64,([^"]+)"', outside)[1]
    drawn = cv2.imdecode(np.frombuffer(base64.b64decode(content), np.uint8), cv2.IMREAD_COLOR)
    assert drawn.shape[1] == 360, "one image, drawn with its boxes"
    assert 'src="data:image/png' in sections[-1], "the drawing of all of it"


def test_a_dry_run_decodes_every_image_and_later_starts_know(voc, script, tmp_path, train):
    path = voc / "JPEGImages" / f"{FIRST}.png"
    with Image.open(image_path(voc)) as image:
        image.save(path)
    image_path(voc).unlink()
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255  # its beginning and end are as they should be
    path.write_bytes(content)
    old = path.stat().st_mtime - 100
    os.utime(path, (old, old))
    assert train(voc).audit["train"]["images"] == TRAIN
    done = dry_run(script, voc, tmp_path / "dry")
    assert done.code == 0
    assert f"{FIRST}.png: image left out: cannot be decoded" in done.out
    audit = json.loads((tmp_path / "dry" / "audit.json").read_text())
    assert audit["train"]["images"] == TRAIN - 1


@pytest.mark.parametrize("alone", [64, 0], ids=["alone", "processes"])
@pytest.mark.parametrize("damage", [cut_off_with_an_end_mark, lose_a_marker])
def test_what_libjpeg_only_warns_of_is_named_and_left_out(voc, capfd, monkeypatch, alone, damage):
    monkeypatch.setattr(reading, "_DECODED_ALONE", alone)
    damage(voc)
    train, _ = open_splits("voc", [voc], ReadingOptions(cache=False, decode=True))
    assert len(train) == TRAIN - 1
    (defect,) = train.defects
    assert (defect.source, defect.effect, defect.images) == (image_path(voc), LEFT_OUT, 1)
    assert "damaged within (Corrupt JPEG data: " in defect.message
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(("images", "pixels"), [(2, 10**9), (10**9, 2 * 96 * 80)])
def test_a_start_decodes_some_images_evenly_picked(voc, monkeypatch, images, pixels):
    monkeypatch.setattr(reading, "_MOST_DECODED", images)
    monkeypatch.setattr(reading, "_MOST_PIXELS_DECODED", pixels)
    for name in (FIRST, "train_00001", "train_00003"):
        cut_off_with_an_end_mark(voc, name)
    train, _ = open_splits("voc", [voc], ReadingOptions(cache=False))
    assert [defect.source.stem for defect in train.defects] == [FIRST, "train_00003"], "each third of six"
    train, _ = open_splits("voc", [voc], ReadingOptions(cache=False, decode=True))
    assert len(train.defects) == 3


def test_damage_that_a_start_has_not_seen_is_named_in_training(voc, train, monkeypatch):
    monkeypatch.setattr(VocReader, "_some_jpegs", lambda *_: [])
    cut_off_with_an_end_mark(voc)
    out = train(voc).out
    assert re.search(
        rf"{FIRST}\.jpg: truncated or damaged within \(Corrupt JPEG data: premature end .*stands for it", out
    )


@pytest.mark.parametrize(
    ("start", "said"),
    [
        ((), "is missing, which training would try to download first: starting from"),
        (
            (f"--pretrained-ssd={MODELS['mb1-ssd'].published_weights}",),
            "is missing: training would download it, the dry run goes on without",
        ),
    ],
)
def test_a_dry_run_downloads_nothing(voc, script, tmp_path, monkeypatch, start, said):
    monkeypatch.chdir(tmp_path)
    done = script(
        train_ssd.main,
        *start,
        "--dry-run",
        "--dataset-type=voc",
        f"--data={voc}",
        f"--model-dir={tmp_path / 'm'}",
        "--resolution=96",
        "--workers=0",
        "--device=cpu",
    )
    assert done.code == 0
    assert said in done.out
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (labels("car\n"), "no object in"),
        (lambda root: [path.unlink() for path in (root / "JPEGImages").glob("train*")], "none of its 6 images"),
    ],
)
def test_a_dry_run_of_something_senseless_is_refused(voc, script, tmp_path, spoil, message):
    spoil(voc)
    assert_refused(dry_run(script, voc, tmp_path / "m"), message)


def test_without_matplotlib_a_dry_run_goes_on(voc, script, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    done = dry_run(script, voc, tmp_path / "m")
    assert done.code == 0
    assert "audit.png: not drawn" in done.out
    assert "pip install matplotlib" in done.out


def test_a_class_name_is_no_mathematics(voc, script, tmp_path):
    """A name that matplotlib would read as a broken formula is shown as it is."""
    for path in (voc / "Annotations").glob("*.xml"):
        path.write_text(re.sub(r"<name>(\w+)</name>", r"<name>\1 $x_{$</name>", path.read_text()))
    labels = voc / "labels.txt"
    labels.write_text("".join(f"{name} $x_{{$\n" for name in labels.read_text().split() if name != "BACKGROUND"))
    done = dry_run(script, voc, tmp_path / "m")
    assert (done.code, done.err) == (0, "")
    assert (tmp_path / "m" / "audit.png").is_file()


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the shared datasets")
def test_a_real_dataset_with_objects_without_area(script, tmp_path):
    done = dry_run(script, SHARED / "datasets" / "bccd", tmp_path / "m")
    assert done.code == 0
    assert "BloodImage_00338.xml: object 13 'RBC' left out: its box [504, 337, 504, 337] has no area" in done.out
    assert "BloodImage_00343.xml: object 4 'RBC' left out: its box [181, 329, 181, 329] has no area" in done.out
    assert done.out.count("left out:") == 2


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the shared datasets")
def test_a_real_dataset_whose_validation_is_training(script, tmp_path):
    done = dry_run(script, SHARED / "datasets" / "jetbot_signs", tmp_path / "m")
    assert done.code == 0
    assert "labels.txt: lists 'background': removed, BACKGROUND is always class 0" in done.out
    assert "boxes that end one pixel outside the image and were cut (harmless; if there are many, the tool" in done.out
    assert "59 of 59 validation images (100%) ARE TRAINING IMAGES too" in done.out


def test_best_possible_recall_is_what_priors_reach():
    from vision.datasets.base import DetectionDataset
    from vision.datasets.records import Record

    priors = torch.tensor([[0.0, 0.0, 0.5, 0.5], [0.5, 0.5, 1.0, 1.0]])
    boxes = np.float32([[0, 0, 50, 50], [0, 0, 50, 40], [60, 60, 70, 66]])
    record = Record("a", Path("a.jpg"), (100, 100), boxes, ("x", "x", "y"), (False,) * 3, places=("1", "2", "3"))
    dataset = DetectionDataset([record], ("BACKGROUND", "x", "y"))
    audit = make_audit(dataset, DetectionDataset([], dataset.class_names), (100, 100), priors)
    assert (audit.boxes.boxes, audit.boxes.small, audit.boxes.unreached) == (3, 1, 1)
    assert audit.boxes.best_possible_recall == pytest.approx(2 / 3)
    assert audit.boxes.recall_per_class == {"x": 1.0, "y": 0.0}


def test_the_xml_of_the_fixture_is_what_the_tests_take_it_for(templates):
    root = ET.parse(templates["voc"] / "Annotations" / f"{FIRST}.xml").getroot()
    assert [element.findtext("name") for element in root.iter("object")] == list(CLASSES)

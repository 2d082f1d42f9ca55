"""What is said of classes that a net can hardly learn, and of pictures that are in both splits."""

import json
import logging
import re
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import SHARED, train_argv
from PIL import Image

import train_ssd
from vision.datasets import ReadingOptions, folder, open_splits, synthetic
from vision.datasets.audit import make_audit, shared_images
from vision.datasets.base import DetectionDataset, join
from vision.datasets.class_audit import frequency_defects
from vision.datasets.defects import log_defects
from vision.datasets.holding_out import hold_out
from vision.datasets.images import try_decoding
from vision.datasets.packed import Records
from vision.datasets.records import RawImage, RawObject, Record
from vision.datasets.same_pictures import find_same_pictures

PRIORS = torch.tensor([[0.0, 0.0, 1.0, 1.0]])


def dataset_of(counts, side=60, difficult=(), title="train.txt"):
    """One image of 300x300 with square objects, as many of each class as asked."""
    names = tuple(name for name, count in counts.items() for _ in range(count))
    boxes = np.tile(np.float32([[5, 5, 5 + side, 5 + side]]), (len(names), 1))
    record = Record(
        "a",
        Path("a.jpg"),
        (300, 300),
        boxes,
        names,
        tuple(name in difficult for name in names),
        source=Path("a.xml"),
        places=tuple(f"object {number}" for number in range(1, len(names) + 1)),
    )
    return DetectionDataset([record], ("BACKGROUND", *counts), title=title)


def said(defects) -> dict[str, list[str]]:
    messages: dict[str, list[str]] = {}
    for defect in defects:
        messages.setdefault(defect.kind, []).append(str(defect))
    return messages


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ({"red": 100, "blue": 11}, {}),
        ({"red": 10, "blue": 10}, {}),
        ({"red": 3000, "blue": 101}, {}),
        (
            {"red": 522, "white": 43, "plates": 41, "blue": 60},
            {"class-rare": "with at most a tenth of the 522 objects of 'red' to train on: 'plates' 41, 'white' 43; if"},
        ),
        ({"red": 9, "blue": 30}, {"class-few": "with fewer than 10 objects to train on: 'red' 9; label more of them"}),
        (
            {"red": 5, "blue": 3},
            {"class-few": "with fewer than 10 objects to train on: 'blue' 3, 'red' 5; label more of them"},
        ),
        (
            {"stop": 40, "stp": 1},
            {
                "class-doubtful": "a.xml: object 41 'stp' is the only object of its class to train on; is it "
                "a typing error for 'stop', which has 40 objects?"
            },
        ),
        (
            {"stop": 40, "stopp": 4},
            {"class-doubtful": "object 41 'stopp' is one of 4 objects of its class to train on; is it a typ"},
        ),
        (
            {"stop": 40, "tree": 1},
            {"class-doubtful": "'tree' is the only object of its class to train on; correct the name, or la"},
        ),
        ({"limit 50": 40, "limit 60": 3}, {"class-few": "'limit 60' 3"}),  # numbers tell signs apart
        ({"stop": 9, "stp": 1}, {"class-few": "'stp' 1, 'stop' 9"}),  # of few objects nobody knows
    ],
)
def test_classes_are_named_by_the_right_reason_and_once(counts, expected):
    messages = said(frequency_defects(dataset_of(counts)))
    assert messages.keys() == expected.keys()
    for kind, part in expected.items():
        assert len(messages[kind]) == 1
        assert part in messages[kind][0]


def test_difficult_objects_are_none_to_train_on():
    messages = said(frequency_defects(dataset_of({"red": 40, "blue": 40}, difficult=("blue",))))
    assert "'blue' 0" in messages["class-few"][0]


def test_a_class_of_small_objects_is_named():
    """12 pixels at the size of the net; 16 are no longer small."""
    for side, named in ((12, True), (17, False)):
        train = dataset_of({"dot": 20}, side)
        audit = make_audit(train, dataset_of({"dot": 20}, side, title="val.txt"), (300, 300), PRIORS)
        messages = said(audit.defects)
        assert ("class-small" in messages) == named
    small = "class 'dot': 20 of 20 objects are smaller than 16 pixels at 300x300"
    audit = make_audit(dataset_of({"dot": 20}, 12), dataset_of({"dot": 20}), (300, 300), PRIORS)
    assert small in said(audit.defects)["class-small"][0]


def test_a_class_without_objects_is_said_of_its_split():
    train, validation = (
        dataset_of({"red": 20, "blue": 20, "odd": 0}),
        dataset_of({"red": 20, "blue": 0, "odd": 0}, title="val.txt"),
    )
    messages = said(make_audit(train, validation, (300, 300), PRIORS).defects)["class-empty"]
    assert messages == [
        "train.txt: class 'odd' has no object in the training images",
        "val.txt: 2 classes have no object in the validation images: 'blue', 'odd'",
    ]


def test_sentences_about_classes_are_logged_whole(caplog):
    caplog.set_level(logging.INFO)
    log_defects(frequency_defects(dataset_of({"red": 100, "blue": 10})))
    (line,) = caplog.messages
    assert line.startswith("train.txt: classes with at most a tenth of the 100 objects of 'red'")


# The same picture in both splits.


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    """A picture as a camera writes it, and its variants, by name."""
    root = tmp_path_factory.mktemp("photo")
    image = synthetic.draw(np.random.default_rng(3), size=(400, 300)).image
    other = synthetic.draw(np.random.default_rng(4), size=(400, 300)).image
    moved = image.copy()
    moved[60:120, 80:140] = other[60:120, 80:140]
    picture = Image.fromarray(image)
    picture.save(root / "photo.jpg", quality=92)
    picture.save(root / "again.jpg", quality=40)
    picture.save(root / "lossless.png")
    picture.resize((200, 150)).save(root / "half.jpg", quality=85)
    picture.resize((100, 75)).save(root / "quarter.jpg", quality=85)
    picture.resize((700, 525)).save(root / "larger.webp")
    Image.fromarray(other).save(root / "other.jpg")
    Image.fromarray(moved).save(root / "moved.jpg")  # an object moved in front of a camera that stands still
    Image.fromarray(image // 32).save(root / "dark.jpg")
    Image.fromarray(other // 32).save(root / "dark_other.jpg")
    return root


def record_of(path: Path, listed_in=Path()) -> Record:
    return Record(
        path.stem,
        path,
        (400, 300),
        np.zeros((0, 4), np.float32),
        (),
        (),
        digest=path.name,
        picture=try_decoding(path).picture,
        listed_in=listed_in,
    )


@pytest.mark.parametrize(
    ("name", "is_same"),
    [
        ("again.jpg", True),
        ("lossless.png", True),
        ("half.jpg", True),
        ("quarter.jpg", True),
        ("larger.webp", True),
        ("other.jpg", False),
        ("moved.jpg", False),
    ],
)
def test_a_picture_is_known_in_another_encoding_or_size(photo, name, is_same):
    train = ["photo.jpg"] if name == "other.jpg" else ["other.jpg", "photo.jpg"]
    records = Records.of(record_of(photo / each) for each in train)
    found, compared = find_same_pictures(Records.of([record_of(photo / name)]), records)
    assert [records[other].image_id for _, other in found] == ["photo"] * is_same
    assert compared == (1, len(train))


def test_dark_pictures_and_those_not_decoded_are_like_nothing(photo):
    dark, other = (Records.of([record_of(photo / name)]) for name in ("dark.jpg", "dark_other.jpg"))
    assert find_same_pictures(dark, other) == ([], (1, 1))
    unknown = Records.of([record_of(photo / "photo.jpg")._replace(picture="")])
    assert find_same_pictures(unknown, unknown) == ([], (0, 0))


def test_no_more_pictures_are_compared_than_asked_and_it_says_so(photo):
    train = DetectionDataset([record_of(photo / "photo.jpg")] * 3, ("BACKGROUND",), title="train.txt")
    validation = DetectionDataset([record_of(photo / "half.jpg")] * 5, ("BACKGROUND",), title="val.txt")
    (some,) = shared_images(train, validation, 2)
    assert "2 of 5 validation images (40%) LOOK THE SAME AS TRAINING IMAGES" in some.message
    assert "(compared: 2 with 2 training images, --dry-run compares all)" in some.message
    (whole,) = shared_images(train, validation)
    assert whole.things == 5
    assert "compared" not in whole.message


def test_each_list_is_named_for_its_own_images(photo):
    """Of two datasets, the second one's list has a training image as the same file, a copy, and another size."""
    train = DetectionDataset([record_of(photo / name) for name in ("photo.jpg", "other.jpg")], ("BACKGROUND",))
    first, second = Path("one/test.txt"), Path("two/test.txt")
    copy = record_of(photo / "dark.jpg", second)._replace(digest="other.jpg")
    of_second = [record_of(photo / "photo.jpg", second), copy, record_of(photo / "half.jpg", second)]
    validation = join(
        [
            DetectionDataset([record_of(photo / "dark_other.jpg", first)] * 4, ("BACKGROUND",), source=first),
            DetectionDataset(of_second, ("BACKGROUND",), source=second),
        ]
    )
    defects = shared_images(train, validation)
    assert [defect.source for defect in defects] == [second] * 3
    assert all(defect.message.startswith("1 of 3 validation images (33%) ") for defect in defects)
    assert validation.source == Path("one/test.txt + two/test.txt"), "what is said of all names both"


# Faults that are put into real datasets.


def write_copy(root: Path, train_list: Path, change) -> str:
    """Put a changed training image among the validation images; returns the name of the training image."""
    name = train_list.read_text().split()[0]
    path = next((root / "JPEGImages").glob(f"{name}.*"))
    change(path, root / "JPEGImages" / "planted.jpg")
    xml = (root / "Annotations" / f"{name}.xml").read_text()
    (root / "Annotations" / "planted.xml").write_text(xml.replace(path.name, "planted.jpg"))
    test_list = train_list.with_name("test.txt")
    test_list.write_text(test_list.read_text() + "planted\n")
    return name


def encode_again(path: Path, target: Path) -> None:
    with Image.open(path) as image:
        image.convert("RGB").save(target, quality=50)


def shrink(path: Path, target: Path) -> None:
    with Image.open(path) as image:
        image.convert("RGB").resize((image.width // 2, image.height // 2)).save(target)


@pytest.fixture
def bccd(tmp_path):
    if not SHARED.is_dir():
        pytest.skip("needs the shared datasets")
    shutil.copytree(SHARED / "datasets" / "bccd", tmp_path / "bccd")
    return tmp_path / "bccd"


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (shutil.copy, "ARE COPIES of training images"),
        (encode_again, "LOOK THE SAME AS TRAINING IMAGES"),
        (shrink, "LOOK THE SAME AS TRAINING IMAGES"),
    ],
)
def test_a_leak_into_a_real_dataset_is_named(bccd, change, what):
    train_list = bccd / "ImageSets" / "Main" / "trainval.txt"
    train, validation = open_splits("voc", [bccd], ReadingOptions(cache=False))
    assert shared_images(train, validation, 2000) == []
    name = write_copy(bccd, train_list, change)
    (defect,) = shared_images(*open_splits("voc", [bccd], ReadingOptions(cache=False)), 2000)
    assert what in defect.message
    assert "planted.jpg is " in defect.message
    assert name in defect.message
    assert defect.source == train_list.with_name("test.txt")


# What is held out.


def raw(name: str, *classes: str, difficult=False) -> RawImage:
    objects = [RawObject(f"object {number}", each, (0, 0, 9, 9), difficult) for number, each in enumerate(classes)]
    return RawImage(name, Path(f"{name}.jpg"), Path(f"{name}.xml"), objects)


def many_classes(images: int, classes: int, seed: int) -> list[RawImage]:
    """One or two objects an image, of classes whose frequencies differ as they do in life."""
    rng = np.random.default_rng(seed)
    weights = 1 / np.arange(1, classes + 1)
    return [
        raw(
            f"img_{number:05d}",
            *(f"class {c}" for c in rng.choice(classes, rng.integers(1, 3), p=weights / weights.sum())),
        )
        for number in range(images)
    ]


def classes_of(images) -> Counter:
    return Counter(item.name for image in images for item in image.objects)


@pytest.mark.parametrize("seed", range(5))
def test_every_class_of_enough_images_is_on_both_sides(seed):
    images = many_classes(120, 28, seed)
    names = sorted(classes_of(images))
    on = Counter(name for image in images for name in {item.name for item in image.objects})
    kept, held_out = hold_out(images, 0.2, names)
    assert not {name for name in names if on[name] > 3} - classes_of(held_out).keys()
    assert not set(names) - classes_of(kept).keys(), "each class can be learned"
    assert 24 <= len(held_out) <= 24 + 14
    assert [image.image_id for image in kept] == sorted(image.image_id for image in kept), "in their order"
    again = hold_out(images[::-1], 0.2, names)
    assert {image.image_id for image in again[1]} == {image.image_id for image in held_out}


def test_without_rare_classes_it_is_what_the_hash_says():
    images = [raw(f"img_{number}", "red", "blue") for number in range(60)]
    plain, by_class = hold_out(images, 0.2), hold_out(images, 0.2, ["red", "blue"])
    assert len(by_class[1]) == len(plain[1]) == 12
    assert by_class == plain


def test_another_image_hardly_moves_any():
    images = many_classes(160, 28, 9)
    names = sorted(classes_of(images))
    before = {image.image_id for image in hold_out(images, 0.2, names)[1]}
    moves = []
    for place in range(len(images)):
        fewer = images[:place] + images[place + 1 :]
        held_out = {image.image_id for image in hold_out(fewer, 0.2, names)[1]}
        moves.append(len((before ^ held_out) - {images[place].image_id}))
    assert max(moves) <= 3
    assert np.mean(moves) < 1


@pytest.mark.parametrize("count", [1, 2, 3])
def test_few_images_of_one_class_each(count):
    images = [raw(f"img_{number}", f"class {number}") for number in range(count)]
    kept, held_out = hold_out(images, 0.2, [f"class {number}" for number in range(count)])
    assert (len(kept), len(held_out)) == (max(count - 1, 1), min(count - 1, 1))


def test_objects_that_do_not_count_ask_for_nothing():
    images = [raw(f"img_{number}", "red") for number in range(30)]
    plain = hold_out(images, 0.2)[1]
    kept = [image.image_id for image in hold_out(images, 0.2)[0]]
    hard = [
        image._replace(objects=raw("", "odd", difficult=image.image_id in kept[:4]).objects)
        if image.image_id in kept[:4]
        else image
        for image in images
    ]
    assert [i.image_id for i in hold_out(hard, 0.2, ["red", "odd"])[1]] == [i.image_id for i in plain]
    assert [i.image_id for i in hold_out(images, 0.2, ["other"])[1]] == [i.image_id for i in plain]


@pytest.fixture(scope="module")
def unlisted(tmp_path_factory):
    """24 images without lists, of which the plain hash holds out none with a star."""
    root = tmp_path_factory.mktemp("unlisted") / "voc"
    drawn = synthetic.drawings(24, 1, size=(48, 40), objects=(2, 3), class_names=("ball", "board", "cone"))
    synthetic.write_voc(root, {"train": drawn})
    shutil.rmtree(root / "ImageSets")
    kept = open_splits("voc", [root], ReadingOptions(stratified=False)).train.ids
    for name in kept[:5]:
        path = root / "Annotations" / f"{name}.xml"
        path.write_text(
            path.read_text().replace("<name>", "<name>star</name><was>", 1).replace("</name>\n", "</was>\n", 1)
        )
    return root


def test_a_dataset_without_lists_holds_out_each_class(unlisted):
    plain = open_splits("voc", [unlisted], ReadingOptions(stratified=False)).validation
    by_class = open_splits("voc", [unlisted]).validation
    assert plain.class_counts()["star"] == 0
    assert by_class.class_counts()["star"] > 0
    assert set(plain.ids) < set(by_class.ids)


def test_a_run_of_an_earlier_version_keeps_its_split(unlisted, tmp_path, script, monkeypatch):
    argv = ("--resolution=48", "--repeat=1", "--batch-size=8", "--no-validation-mean-ap")
    with monkeypatch.context() as earlier:
        earlier.setattr(folder, "hold_out", lambda images, share, _: hold_out(images, share))
        assert script(train_ssd.main, *train_argv(unlisted, tmp_path, "--epochs=1", *argv)).code == 0
    path = tmp_path / "last.state"
    state = torch.load(path, weights_only=True)
    del state["data_order"]["way of holding out"]
    torch.save(state, path)
    validation = json.loads((tmp_path / "args.json").read_text())["fingerprints"]["validation"]
    done = script(train_ssd.main, *train_argv(unlisted, tmp_path, "--epochs=2", *argv, "--resume"))
    assert (done.code, done.err) == (0, "")
    assert "class 'star' has no object in the validation images" in done.out
    assert json.loads((tmp_path / "args.json").read_text())["fingerprints"]["validation"] == validation
    assert torch.load(path, weights_only=True)["data_order"]["way of holding out"] is False


def test_validation_on_images_of_the_starting_weights_is_said(unlisted, tmp_path, script):
    argv = ("--resolution=48", "--repeat=1", "--batch-size=8", "--no-validation-mean-ap", "--epochs=1")
    done = script(train_ssd.main, *train_argv(unlisted, tmp_path / "a", *argv, "--val-split=0.05"))
    assert done.code == 0
    assert "the starting weights were trained on" not in done.out
    more = [word for word in train_argv(unlisted, tmp_path / "b", *argv) if not word.startswith("--pretrained-ssd")]
    done = script(train_ssd.main, *more, "--dry-run", f"--pretrained-ssd={tmp_path / 'a' / 'best.pth'}")
    assert done.code == 0
    assert re.search(
        r"\d of the \d validation images are among those that the starting weights were trained on", done.out
    )

"""Folders as data sets lie in public: what is odd about each is understood, or said in things with the fitting advice."""

import csv
import json
import logging
import math
import shutil

import pytest
from conftest import SHARED
from PIL import Image

from vision.boxes.forms import center_form_to_corner_form
from vision.datasets import ReadingOptions, open_folder, open_splits
from vision.datasets.audit import make_audit, require_objects
from vision.datasets.defects import KINDS, Defect, log_defects
from vision.ssd.config.families import MOBILENETV1
from vision.structures import CROWD, DataError

ODD = SHARED / "datasets" / "odd_folders"
AFRESH = ReadingOptions(cache=False)
PRIORS = center_form_to_corner_form(MOBILENETV1.at(96).priors)
POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'ab' * 32}\nsize 893783\n"
SIZE = (320, 240)
BOX = (80, 60, 200, 180)


def put_image(path, color=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", SIZE, (color, 255 - color, 9)).save(path)


def put_text(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def put_voc(root, count, names=("duck",), box=BOX, difficult=0):
    for number in range(count):
        put_image(root / "JPEGImages" / f"{number}.jpg", number)
        corners = "".join(
            f"<{tag}>{value}</{tag}>" for tag, value in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
        )
        objects = "".join(
            f"<object><name>{name}</name><difficult>{difficult}</difficult><bndbox>{corners}</bndbox></object>"
            for name in names
        )
        size = "<size><width>320</width><height>240</height></size>"
        text = f"<annotation><filename>{number}.jpg</filename>{size}{objects}</annotation>"
        put_text(root / "Annotations" / f"{number}.xml", text)


def put_labelme(path, shapes, image=True, color=0):
    if image:
        put_image(path.with_suffix(".jpg"), color)
    content = {"shapes": shapes, "imagePath": f"{path.stem}.jpg", "imageWidth": 320, "imageHeight": 240}
    put_text(path, json.dumps(content))


def put_yolo(root, count, line="0 0.4 0.5 0.3 0.3\n"):
    for number in range(count):
        put_image(root / "images" / f"{number}.jpg", number)
        put_text(root / "labels" / f"{number}.txt", line)
    put_text(root / "classes.txt", "duck\n")


def put_coco(path, crowds, categories=("duck",)):
    """One object an image; those whose number stands for a crowd are so marked."""
    x1, y1, x2, y2 = BOX
    content = {
        "images": [{"id": n, "file_name": f"{n}.jpg", "width": 320, "height": 240} for n in range(len(crowds))],
        "categories": [{"id": n, "name": name} for n, name in enumerate(categories)],
        "annotations": [
            {
                "id": n,
                "image_id": n,
                "category_id": n % len(categories),
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "iscrowd": crowd,
            }
            for n, crowd in enumerate(crowds)
        ],
    }
    put_text(path, json.dumps(content))
    for number in range(len(crowds)):
        put_image(path.parent.parent / "images" / f"{number}.jpg", number % 256)


RECTANGLE = {"label": "duck", "points": [[80, 60], [200, 180]], "shape_type": "rectangle"}
POINT = {"label": "beak", "points": [[100, 90]], "shape_type": "point"}
LINE = {"label": "wing", "points": [[100, 90], [120, 99]], "shape_type": "linestrip"}


def splits_of(root, kind="auto", **options):
    return open_splits(kind, [root], ReadingOptions(cache=False, **options))


def audit_of(splits):
    return make_audit(*splits, (96, 96), PRIORS)


def messages(splits, kind):
    """What is said of a kind in either split, each once."""
    defects = dict.fromkeys(defect for dataset in splits for defect in dataset.defects)
    return [str(defect) for defect in defects if defect.kind == kind]


def counts(splits):
    return [(len(dataset), dataset.class_counts()) for dataset in splits]


# Crowds.


@pytest.mark.parametrize(
    ("crowds", "categories", "taken"),
    [
        ([1] * 8, ["duck"], 8),
        ([0, 1] * 4, ["duck"], 4),
        ([1, 0, 0, 0, 0], ["duck"], 0),
        ([1] + [0] * 39, ["duck"], 0),
        ([1, 1] + [0] * 38, ["duck"], 0),
        ([1] + [0] * 20 + [1] + [0] * 18, ["duck", *(f"class {n}" for n in range(19))], 0),
        ([1] + [0] * 19 + [1] + [0] * 20, ["duck", *(f"class {n}" for n in range(19))], 2),
    ],
)
def test_a_large_share_of_crowds_is_a_way_of_exporting(tmp_path, crowds, categories, taken):
    put_coco(tmp_path / "annotations" / "instances_default.json", crowds, categories)
    splits = splits_of(tmp_path)
    found = [label for dataset in splits for index in range(len(dataset)) for label in dataset.targets(index)[1]]
    assert found.count(CROWD) == sum(crowds) - taken
    said = messages(splits, "crowd-usual")
    assert len(said) == bool(taken)
    assert all(f"{taken} of {len(crowds)} objects have `iscrowd` 1" in message for message in said)


# Images that are not there, and images of no list.


@pytest.mark.parametrize("kind", ["auto", "labelme"])
def test_images_that_are_not_there_are_named_in_each_split(tmp_path, kind):
    for number in range(10):
        folder = "photos" if number < 6 else "test"
        put_labelme(tmp_path / folder / f"{number}.json", [RECTANGLE], number not in (2, 7), number)
    splits = splits_of(tmp_path, kind)
    assert [len(dataset) for dataset in splits] == [5, 3]
    assert [dataset.images_listed for dataset in splits] == [6, 4]
    first, second = messages(splits, "image-missing")
    assert "2.json: image 2 left out" in first
    assert "7.json: image 7 left out" in second
    assert messages(splits, "image-unlisted") == []


def test_images_of_one_name_that_are_not_there_count_each(tmp_path):
    for folder in "abc":
        put_labelme(tmp_path / folder / "1.json", [RECTANGLE], image=False)
        put_labelme(tmp_path / folder / f"{folder}.json", [RECTANGLE], color=ord(folder))
    folder = open_folder("labelme", tmp_path, AFRESH)
    contents = folder.read(folder.all_images())
    assert (contents.images_listed, len(contents.records)) == (6, 3)
    assert [defect.kind for defect in contents.defects] == ["image-missing"] * 3


def test_an_image_that_a_list_for_validation_alone_names_is_missing_once(tmp_path):
    put_voc(tmp_path, 6)
    put_text(tmp_path / "ImageSets" / "Main" / "test.txt", "4\n5\n")
    for number in (1, 5):
        (tmp_path / "JPEGImages" / f"{number}.jpg").unlink()
    splits = splits_of(tmp_path)
    assert [(dataset.images_listed, len(dataset)) for dataset in splits] == [(4, 3), (2, 1)]
    assert len(messages(splits, "image-missing")) == 2


@pytest.mark.parametrize("lists", [{"trainval": "01234", "test": "56"}, {"train": "01", "val": "234", "test": "56"}])
@pytest.mark.parametrize("kind", ["auto", "voc"])
def test_annotated_images_of_no_list_are_announced(tmp_path, kind, lists):
    put_voc(tmp_path, 10)
    for name, numbers in lists.items():
        put_text(tmp_path / "ImageSets" / "Main" / f"{name}.txt", "\n".join(numbers) + "\n")
    splits = splits_of(tmp_path, kind)
    (said,) = messages(splits, "image-unlisted")
    assert "3 annotated images are of no list, and not used: 7.xml, 8.xml, 9.xml" in said
    assert audit_of(splits).as_json()["totals"]["image-unlisted"]["count"] == 3
    put_text(tmp_path / "ImageSets" / "Main" / "val.txt", "7\n8\n9\n2\n3\n4\n")
    assert messages(splits_of(tmp_path, kind), "image-unlisted") == []


def test_annotated_images_of_no_folder_or_file_of_a_split_are_announced(tmp_path):
    for folder in ("train", "valid", "more"):
        put_voc(tmp_path / "voc" / folder, 3)
    (said,) = messages(splits_of(tmp_path / "voc", "voc"), "image-unlisted")
    assert "3 annotated images are of no split, and not used: more/Annotations/0.xml" in said
    for name in ("instances_train", "instances_val", "extra", "person_keypoints_train"):
        put_coco(tmp_path / "coco" / "annotations" / f"{name}.json", [0, 0])
    content = json.loads((tmp_path / "coco/annotations/extra.json").read_text())
    for image in content["images"]:
        image["file_name"] = f"more_{image['file_name']}"
        put_image(tmp_path / "coco" / "images" / image["file_name"])
    put_text(tmp_path / "coco/annotations/extra.json", json.dumps(content))
    (said,) = messages(splits_of(tmp_path / "coco", "coco"), "image-unlisted")
    assert "extra.json: its 2 annotated images are of no split, and not used: more_0.jpg, more_1.jpg" in said


# Advice.


def points_only(root):
    for number in range(4):
        put_labelme(root / f"{number}.json", [POINT, LINE], color=number)


def difficult_only(root):
    put_voc(root, 5, difficult=1)


def classes_only(root):
    put_voc(root, 5)
    put_text(root / "labels.txt", "goose\n")


def texts_elsewhere(root):
    put_yolo(root, 5)
    shutil.rmtree(root / "labels")
    (root / "labels").mkdir()


def boxes_without_numbers(root):
    put_voc(root, 5, box=("a", "b", "c", "d"))


def points_and_a_class_that_is_not_listed(root):
    for number in range(4):
        put_labelme(root / f"{number}.json", [POINT, POINT, RECTANGLE], color=number)
    put_text(root / "labels.txt", "beak\n")


@pytest.mark.parametrize(
    ("kind", "spoil", "why", "way_out"),
    [
        ("labelme", points_only, "points and lines, which have no box", "points and lines are no boxes"),
        ("voc", difficult_only, "all are difficult", "take the mark from those that are to be found"),
        ("voc", classes_only, "class 'duck'", "correct the list of classes, or take the names found with --labels"),
        ("yolo", texts_elsewhere, "there is none", "put the text files beside the images"),
        ("voc", boxes_without_numbers, "objects without a box of four numbers", "label the objects with boxes"),
        ("labelme", points_and_a_class_that_is_not_listed, "points and lines", "label the objects with boxes"),
    ],
)
def test_the_advice_follows_from_what_most_objects_lack(tmp_path, kind, spoil, why, way_out):
    spoil(tmp_path)
    splits = splits_of(tmp_path, kind)
    audit_of(splits)
    with pytest.raises(DataError) as refused:
        require_objects(splits.train, [str(tmp_path)])
    said = str(refused.value)
    assert why in said
    assert said.index(way_out) > said.index(why)
    assert ("--labels-from-data" in said) == (spoil is classes_only)
    assert "\n" not in said


def test_images_that_are_all_missing_end_in_the_advice_to_bring_them(tmp_path):
    put_voc(tmp_path, 5)
    shutil.rmtree(tmp_path / "JPEGImages")
    (tmp_path / "JPEGImages").mkdir()
    with pytest.raises(DataError, match="can be used; first: .*; put the images into the folder, under the names"):
        splits_of(tmp_path, "voc")


# Classes.


def test_names_of_points_and_lines_are_no_classes(tmp_path):
    for number in range(5):
        put_labelme(tmp_path / "labelme" / f"{number}.json", [RECTANGLE, POINT, LINE], color=number)
    assert splits_of(tmp_path / "labelme").train.class_names == ("BACKGROUND", "duck")
    labels = "".join(
        f"<label><name>{name}</name>{more}</label>"
        for name, more in (
            ("duck", ""),
            ("goose", "<type>rectangle</type>"),
            ("beak", ""),
            ("wing", "<type>polyline</type>"),
            ("knee", "<type>points</type><parent>leg</parent>"),
            ("tagged", "<type>tag</type>"),
        )
    )
    shapes = (
        '<box label="duck" xtl="80" ytl="60" xbr="200" ybr="180"/>'
        '<points label="beak" points="9,9"/><points label="duck" points="9,9"/>'
    )
    images = "".join(f'<image id="{n}" name="{n}.jpg" width="320" height="240">{shapes}</image>' for n in range(5))
    meta = f"<meta><task><labels>{labels}</labels></task></meta>"
    put_text(tmp_path / "cvat" / "annotations.xml", f"<annotations>{meta}{images}</annotations>")
    for number in range(5):
        put_image(tmp_path / "cvat" / "images" / f"{number}.jpg", number)
    assert splits_of(tmp_path / "cvat").train.class_names == ("BACKGROUND", "duck", "goose")


def test_labels_of_all_files_of_cvat_are_classes(tmp_path):
    for name in ("duck", "goose"):
        shape = f'<box label="{name}" xtl="80" ytl="60" xbr="200" ybr="180"/>'
        images = "".join(
            f'<image id="{n}" name="{name}{n}.jpg" width="320" height="240">{shape}</image>' for n in range(3)
        )
        meta = f"<meta><job><labels><label><name>{name}</name></label></labels></job></meta>"
        put_text(tmp_path / name / "annotations.xml", f"<annotations>{meta}{images}</annotations>")
        for number in range(3):
            put_image(tmp_path / name / "images" / f"{name}{number}.jpg", number)
    splits = splits_of(tmp_path)
    assert splits.train.class_names == ("BACKGROUND", "duck", "goose")
    assert messages(splits, "class-unknown") == []


# Files that are kept elsewhere.


def test_pointers_in_the_place_of_images_are_one_line(tmp_path):
    put_voc(tmp_path, 6)
    for number in range(4):
        put_text(tmp_path / "JPEGImages" / f"{number}.jpg", POINTER)
    splits = splits_of(tmp_path, "voc", val_split=0.34)
    said = messages(splits, "image-pointer")
    assert all("Git LFS pointers in the place of images; run `git lfs pull` in the repository" in one for one in said)
    defects = [defect for dataset in splits for defect in dataset.defects if defect.kind == "image-pointer"]
    assert sum(defect.images for defect in defects) == sum(defect.objects for defect in defects) == 4
    assert all(sum(defect.kind == "image-pointer" for defect in dataset.defects) <= 1 for dataset in splits)
    for number in range(6):
        put_text(tmp_path / "JPEGImages" / f"{number}.jpg", POINTER)
    for kind in ("auto", "voc"):
        with pytest.raises(DataError) as refused:
            splits_of(tmp_path, kind)
        assert str(refused.value).count("git lfs pull") == 1
        assert "not an image of any known format" not in str(refused.value)


@pytest.mark.parametrize(
    ("kind", "file"),
    [
        ("coco", "annotations/instances_train.json"),
        ("csv", "train.csv"),
        ("voc", "Annotations/0.xml"),
        ("cvat", "annotations.xml"),
        ("imglab", "training.xml"),
        ("labelme", "0.json"),
        ("via", "via.json"),
        ("yolo", "data.yaml"),
    ],
)
def test_pointers_in_the_place_of_annotations_are_named(tmp_path, kind, file):
    for number in range(2):
        put_image(tmp_path / f"{number}.jpg")
    put_text(tmp_path / file, POINTER)
    with pytest.raises(DataError, match=r"a Git LFS pointer.*run `git lfs pull` in the repository") as refused:
        splits_of(tmp_path, "auto")
    assert "\n" not in str(refused.value)


def test_a_pointer_beside_files_of_coco_is_not_passed_over(tmp_path):
    put_coco(tmp_path / "annotations" / "instances_train.json", [0] * 6)
    put_text(tmp_path / "annotations" / "instances_val.json", POINTER)
    with pytest.raises(DataError, match=r"instances_val.json: is a Git LFS pointer .*; run `git lfs pull`"):
        splits_of(tmp_path)


def test_the_folder_in_which_a_dataset_begins_is_named(tmp_path):
    put_coco(tmp_path / "data" / "annotations" / "instances_train.json", [0] * 6)
    put_text(tmp_path / "README.md", "ducks")
    with pytest.raises(DataError, match=f"is no dataset, but {tmp_path / 'data'} in it is one of coco; name that"):
        splits_of(tmp_path)


def test_broken_xml_alone_is_named(tmp_path):
    for name in "ab":
        put_image(tmp_path / f"{name}.jpg")
        put_text(tmp_path / f"{name}.xml", "<annotation>")
    put_text(tmp_path / "b.json", "[")
    with pytest.raises(DataError, match="[ab].xml: image [ab] left out: not readable as XML"):
        splits_of(tmp_path)


def test_what_dvc_keeps_elsewhere_is_named(tmp_path):
    put_text(tmp_path / "images.dvc", "outs:\n- path: images\n")
    with pytest.raises(DataError, match="holds images.dvc in the place of data; run `dvc pull`"):
        splits_of(tmp_path)


# Counting.


def test_the_log_counts_things(caplog):
    caplog.set_level(logging.INFO)
    many = Defect("annotation-absent", "folder", "335 images have no text file", things=335)
    unknown = [Defect("class-unknown", "file", f"{n} objects are left out", objects=n, things=n) for n in range(1, 7)]
    log_defects([many, *unknown])
    assert "taken as without objects: 335; first: folder: 335 images" in caplog.text
    assert "... and 15 more objects of classes that are not in the list" in caplog.text


def test_the_audit_counts_objects_and_images(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    put_voc(tmp_path, 6, names=["duck"] * 3 + ["goose"] * 5)
    put_text(tmp_path / "labels.txt", "duck\n")
    (tmp_path / "JPEGImages" / "0.jpg").unlink()
    audit = audit_of(splits_of(tmp_path, "voc"))
    audit.log()
    assert "audit: 33 objects and 1 images left out, 0 repaired, 0 suspect, 0 noted" in caplog.text
    totals = audit.as_json()["totals"]
    assert (totals["class-unknown"]["count"], totals["left out"]) == (25, 26)


def test_copies_are_not_said_to_have_other_names(tmp_path):
    for folder in ("train", "test"):
        for number in range(3):
            put_labelme(tmp_path / folder / f"{number}.json", [RECTANGLE], color=number)
    (said,) = [str(defect) for defect in audit_of(splits_of(tmp_path)).defects if defect.kind == "overlap"]
    assert "3 of 3 validation images (100%) ARE COPIES of training images in other files" in said
    assert "other names" not in said


# Contradictions.


def test_one_picture_with_different_objects_is_suspect(tmp_path):
    other = {**RECTANGLE, "points": [[250, 190], [310, 230]]}
    near = {**RECTANGLE, "points": [[82, 62], [201, 181]]}
    shapes = {
        0: [[RECTANGLE], [other], [RECTANGLE]],
        1: [[RECTANGLE], []],
        2: [[RECTANGLE], [{**RECTANGLE, "label": "goose"}]],
        3: [[RECTANGLE], [near]],
        4: [[RECTANGLE]],
    }
    for color, copies in shapes.items():
        for number, mine in enumerate(copies):
            put_labelme(tmp_path / "train" / f"{color}_{number}.json", mine, color=color)
    put_labelme(tmp_path / "test" / "a.json", [RECTANGLE], color=200)
    (defect,) = [one for one in audit_of(splits_of(tmp_path)).defects if one.kind == "annotation-contradicts"]
    assert (defect.effect, defect.things) == ("suspect", 7)
    assert "7 of 10 training images are copies of 3 pictures with different objects in each" in defect.message


def test_more_images_without_annotation_than_with_one_are_suspect(tmp_path):
    for number in range(12):
        put_image(tmp_path / "photos" / f"{number}.jpg", number)
    rows = [["filename", "class", "xmin", "ymin", "xmax", "ymax"]]
    for kind, annotated in (("image-mostly-unannotated", 4), ("image-unannotated", 8)):
        with open(tmp_path / "labels.csv", "w", newline="") as file:
            csv.writer(file).writerows([*rows, *([f"{number}.jpg", "duck", *BOX] for number in range(annotated))])
        splits = splits_of(tmp_path)
        (said,) = messages(splits, kind)
        assert f"{12 - annotated} " in said
        assert audit_of(splits).as_json()["totals"][kind]["count"] == 12 - annotated
    assert KINDS["image-mostly-unannotated"].effect == "suspect"


def test_more_images_without_a_text_than_with_one_are_suspect(tmp_path):
    put_yolo(tmp_path, 9)
    for number in range(2):
        (tmp_path / "labels" / f"{number}.txt").unlink()
    assert messages(splits_of(tmp_path, "yolo"), "annotation-absent")
    for number in range(2, 6):
        (tmp_path / "labels" / f"{number}.txt").unlink()
    (said,) = messages(splits_of(tmp_path, "yolo"), "annotation-mostly-absent")
    assert "6 images have no text file" in said


# Images and annotations in other places.


def test_images_of_voc_may_lie_anywhere(tmp_path):
    put_voc(tmp_path, 6)
    for number in range(6):
        (tmp_path / ("part1" if number < 3 else "part2")).mkdir(exist_ok=True)
        part = tmp_path / ("part1" if number < 3 else "part2") / f"{number}.jpg"
        if number:
            (tmp_path / "JPEGImages" / f"{number}.jpg").rename(part)
    splits = splits_of(tmp_path)
    assert sum(map(len, splits)) == 6
    assert messages(splits, "image-missing") == []


def test_texts_in_another_folder_than_images_are_recognized(tmp_path):
    for number in range(5):
        put_image(tmp_path / "photos" / "train" / f"{number}.jpg", number)
        line = "duck 0.00 0 0.0 80 60 200 180 0 0 0 0 0 0 0\n"
        put_text(tmp_path / "ground_truth" / "train" / f"{number}.txt", line)
    assert open_folder("auto", tmp_path, AFRESH).name == "kitti"
    assert sum(map(len, splits_of(tmp_path))) == 5


# VIA and Label Studio.

VIA_SHAPES = (
    ({"name": "rect", "x": 80, "y": 60, "width": 120, "height": 120}, BOX),
    ({"name": "circle", "cx": 100, "cy": 90, "r": 20}, (80, 70, 120, 110)),
    ({"name": "ellipse", "cx": 100, "cy": 90, "rx": 30, "ry": 20}, (70, 70, 130, 110)),
    ({"name": "polygon", "all_points_x": [10, 60, 30], "all_points_y": [20, 40, 70]}, (10, 20, 60, 70)),
)
VIA_LINES = (
    {"name": "point", "cx": 9, "cy": 9},
    {"name": "polyline", "all_points_x": [1, 9], "all_points_y": [2, 8]},
)


def via_images(attributes, regions=list):
    shapes = [shape for shape, _ in VIA_SHAPES] + list(VIA_LINES)
    mine = [{"shape_attributes": shape, "region_attributes": attributes} for shape in shapes]
    named = {str(number): region for number, region in enumerate(mine)} if regions is dict else mine
    return {"0.jpg1": {"filename": "0.jpg", "regions": named}, "1.jpg1": {"filename": "1.jpg", "regions": regions()}}


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (via_images({"quality": "good", "class": "duck"}), "duck"),
        (via_images({"bird": "duck"}), "duck"),
        (via_images({"bird": {"goose": False, "duck": True}}), "duck"),
        (via_images({}), "object"),
        (via_images({"bird": "duck"}, dict), "duck"),
        ({"_via_settings": {}, "_via_img_metadata": via_images({"bird": "duck"})}, "duck"),
    ],
)
@pytest.mark.parametrize("kind", ["auto", "via"])
def test_vias_regions_become_boxes(tmp_path, kind, content, name):
    for number in range(2):
        put_image(tmp_path / "photos" / f"{number}.jpg", number)
    put_text(tmp_path / "via_region_data.json", json.dumps(content))
    folder = open_folder(kind, tmp_path, AFRESH)
    assert folder.name == "via"
    contents = folder.read(folder.all_images())
    assert folder.class_names() == ("BACKGROUND", name)
    assert [record.boxes.tolist() for record in contents.records] == [[list(box) for _, box in VIA_SHAPES], []]
    assert [defect.kind for defect in contents.defects] == ["shape-no-box"] * 2


@pytest.mark.parametrize("header", ["filename", "#filename"])
def test_vias_table_is_read_as_its_json(tmp_path, header):
    for number in range(2):
        put_image(tmp_path / f"{number}.jpg", number)
    columns = ["file_size", "file_attributes", "region_count", "region_id"]
    rows = [[header, *columns, "region_shape_attributes", "region_attributes"]]
    rows += [["0.jpg", 1, "{}", 4, n, json.dumps(shape), '{"bird":"duck"}'] for n, (shape, _) in enumerate(VIA_SHAPES)]
    rows.append(["1.jpg", 1, "{}", 0, 0, "{}", "{}"])
    with open(tmp_path / "via_region_data.csv", "w", newline="") as file:
        csv.writer(file).writerows(rows)
    folder = open_folder("auto", tmp_path, AFRESH)
    records = folder.read(folder.all_images()).records
    assert (folder.name, folder.class_names()) == ("via", ("BACKGROUND", "duck"))
    assert [record.boxes.tolist() for record in records] == [[list(box) for _, box in VIA_SHAPES], []]


SIDES = {"original_width": 320, "original_height": 240}
STUDIO_VALUES = (
    ({"x": 25, "y": 25, "width": 37.5, "height": 50, "rotation": 0, "rectanglelabels": ["duck"]}, BOX),
    # A quarter turn about the corner at the top left: 96 x 60 pixels become 60 x 96, to the left of it.
    ({"x": 50, "y": 25, "width": 30, "height": 25, "rotation": 90, "rectanglelabels": ["duck"]}, (100, 60, 160, 156)),
    ({"x": 50, "y": 50, "radiusX": 10, "radiusY": 25, "ellipselabels": ["duck"]}, (128, 60, 192, 180)),
    (
        {"x": 50, "y": 50, "radiusX": 10, "radiusY": 25, "rotation": 90, "ellipselabels": ["duck"]},
        (100, 88, 220, 152),
    ),
    ({"points": [[10, 10], [50, 20], [30, 50]], "polygonlabels": ["duck"]}, (32, 24, 160, 120)),
)
KEY_POINT = {"x": 50, "y": 50, "width": 0.4, "keypointlabels": ["beak"]}


def studio_tasks(address, values=tuple(value for value, _ in STUDIO_VALUES)):
    result = [{**SIDES, "type": "rectanglelabels", "value": value} for value in (*values, KEY_POINT)]
    result.append({"type": "choices", "value": {"choices": ["good"]}})
    canceled = {"was_cancelled": True, "result": []}
    return [
        {"id": 1, "data": {"image": address.format("0.jpg")}, "annotations": [canceled, {"result": result}]},
        {"id": 2, "data": {"image": address.format("1.jpg")}, "annotations": [{"result": []}, {"result": result}]},
        {"id": 3, "data": {"image": address.format("2.jpg")}, "annotations": []},
    ]


def studio_min(address):
    regions = [{**SIDES, **value} for value in (*(value for value, _ in STUDIO_VALUES), KEY_POINT)]
    return [{"id": 1, "image": address.format("0.jpg"), "label": regions, "annotator": 1}]


@pytest.mark.parametrize(
    "address",
    [
        "/data/upload/1/0123abcd-{}",
        "/data/local-files/?d=pictures/{}",
        "s3://bucket/folder/{}",
        "https://x.org/a/{}?token=1",
    ],
)
@pytest.mark.parametrize("write", [studio_tasks, studio_min])
def test_label_studios_regions_become_boxes(tmp_path, write, address):
    for number in range(3):
        put_image(tmp_path / "pictures" / f"{number}.jpg", number)
    put_text(tmp_path / "project-1-at-2024.json", json.dumps(write(address)))
    folder = open_folder("auto", tmp_path, AFRESH)
    assert folder.name == "label_studio"
    contents = folder.read(folder.all_images())
    assert folder.class_names() == ("BACKGROUND", "duck")
    found = [tuple(round(side, 2) for side in box) for box in contents.records[0].boxes.tolist()]
    assert found == [box for _, box in STUDIO_VALUES]
    kinds = [defect.kind for defect in contents.defects]
    if write is studio_tasks:
        assert [len(record.names) for record in contents.records] == [5, 0]
        assert sorted(kinds) == ["annotation-repeats", "image-unannotated", "shape-no-box"]
    else:
        assert sorted(kinds) == ["image-mostly-unannotated", "shape-no-box"]


def test_a_turned_box_of_label_studio_keeps_its_lengths(tmp_path):
    put_image(tmp_path / "0.jpg")
    value = {"x": 50, "y": 25, "width": 30, "height": 25, "rotation": 30, "rectanglelabels": ["duck"]}
    put_text(tmp_path / "project.json", json.dumps(studio_tasks("{}", [value])))
    folder = open_folder("label_studio", tmp_path, AFRESH)
    (x1, y1, x2, y2) = folder.read(folder.all_images()).records[0].boxes[0].tolist()
    cos, sin = math.cos(math.radians(30)), 0.5
    assert (x2 - x1, y2 - y1) == pytest.approx((96 * cos + 60 * sin, 96 * sin + 60 * cos), abs=0.01)


@pytest.mark.parametrize("kind", ["via", "label_studio"])
@pytest.mark.parametrize(
    "text", ["{", "[]", '{"regions": 1}', '[{"data": 1, "annotations": 2}]', '[{"image": "0.jpg"}]']
)
def test_files_that_are_neither_vias_nor_label_studios(tmp_path, kind, text):
    put_image(tmp_path / "0.jpg")
    put_text(tmp_path / "via_project.json", text)
    with pytest.raises(DataError, match=rf"no annotation of {kind}; .*; expected"):
        splits_of(tmp_path, kind)


# The small folders that public ones were drawn after.


@pytest.mark.skipif(not ODD.is_dir(), reason="needs the shared datasets")
@pytest.mark.parametrize("kind", ["auto", "by name"])
@pytest.mark.parametrize(
    ("folder", "expected"),
    [("coco_all_crowd", [6, 2]), ("labelme_absent_images", [5, 3]), ("voc_unlisted", [5, 2])],
)
def test_shared_folders_are_understood(folder, expected, kind):
    splits = splits_of(ODD / folder, "auto" if kind == "auto" else folder.partition("_")[0])
    assert counts(splits) == [(count, {"duck": count}) for count in expected]
    assert set(splits.train.objects_to_learn().record.tolist()) == set(range(expected[0]))


@pytest.mark.skipif(not ODD.is_dir(), reason="needs the shared datasets")
@pytest.mark.parametrize("kind", ["auto", "by name"])
@pytest.mark.parametrize(("folder", "why"), [("voc_lfs_pointers", "git lfs pull"), ("labelme_points_only", "no boxes")])
def test_shared_folders_are_refused_with_the_way_out(folder, why, kind):
    with pytest.raises(DataError, match=why) as refused:
        require_objects(splits_of(ODD / folder, "auto" if kind == "auto" else folder.partition("_")[0]).train, [folder])
    assert "--labels-from-data" not in str(refused.value)

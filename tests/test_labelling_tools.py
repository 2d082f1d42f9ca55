"""What labelling tools write: ten real exports, and each format's corners, defects and neighbors."""

import json
import shutil
from pathlib import Path

import dataset_writers
import numpy as np
import pytest
from conftest import SHARED
from PIL import Image

from vision.datasets import DetectionDataset, open_dataset, open_folder, open_splits, synthetic
from vision.datasets.file_index import FileIndex
from vision.datasets.folder import ReadingOptions
from vision.structures import DataError

TOOLS = SHARED / "datasets" / "labelling_tools"
CASES = {
    "cvat_images": "cvat",
    "labelme": "labelme",
    "roboflow_csv": "csv",
    "createml": "createml",
    "kitti": "kitti",
    "oidv4": "oidv4",
    "label_studio_yolo": "yolo",
    "ultralytics": "yolo",
    "voc_fractions": "voc",
    "macos_names": "voc",
}
AFRESH = ReadingOptions(cache=False)

Objects = list[tuple[str, list[float]]]


def put_image(path: Path, size: tuple[int, int] = (100, 50)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size).save(path)
    return path


def put_text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def objects_of(dataset: DetectionDataset, index: int = 0) -> Objects:
    annotation = dataset.annotation(index)
    names = [dataset.class_names[label] for label in annotation.labels]
    return [(name, box) for name, box in zip(names, annotation.boxes.tolist(), strict=True)]


def all_images(root: Path, kind: str = "auto") -> DetectionDataset:
    """All images of a folder, whatever its splits."""
    folder = open_folder(kind, root, AFRESH)
    contents = folder.read(folder.all_images())
    return DetectionDataset(contents.records, folder.class_names(), defects=contents.defects, **contents.origin)


def kinds(dataset: DetectionDataset) -> list[str]:
    return [defect.kind for defect in dataset.defects]


def assert_alike(found: Objects, expected: list, tolerance: float) -> None:
    """Hold objects to others in any order."""
    assert len(found) == len(expected)
    rest = list(expected)
    for name, box in found:
        distances = [np.abs(np.subtract(box, other[1:])).max() if other[0] == name else np.inf for other in rest]
        nearest = int(np.argmin(distances))
        assert distances[nearest] <= tolerance, (name, box)
        rest.pop(nearest)


@pytest.mark.skipif(not TOOLS.is_dir(), reason="needs the shared datasets")
@pytest.mark.parametrize("change", ["as it is", "leftovers", "bom", "crlf"])
@pytest.mark.parametrize("case", CASES)
def test_exports_of_tools_say_the_same(case, change, tmp_path):
    root = tmp_path / case
    shutil.copytree(TOOLS / case, root)
    texts = [path for path in root.rglob("*") if path.suffix in (".xml", ".json", ".csv", ".txt", ".yaml")]
    if change == "leftovers":  # of other tools, about one image or none
        image = next(path for path in sorted(root.rglob("*.jpg")))
        put_text(
            root / "old.tsv" if CASES[case] != "csv" else root / "old.backup", f"{HEADS}\n{image.name},thing,1,1,9,9\n"
        )
        put_text(root / "notes.json", '{"categories": [{"id": 0, "name": "thing"}]}')
        put_text(root / "stray.xml", "<settings/>")
    for path in texts:
        content = path.read_bytes()
        if change == "bom":
            path.write_bytes(b"\xef\xbb\xbf" + content)
        elif change == "crlf":
            path.write_bytes(content.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n"))
    expected = json.loads((TOOLS / "expected.json").read_text())
    for kind in ("auto", CASES[case]):
        assert open_folder(kind, root).name == CASES[case]
        dataset = all_images(root, kind)
        by_id = {image_id: index for index, image_id in enumerate(dataset.ids)}
        assert len(by_id) == len(expected) == 12
        # Screenshots have other names, in the same order.
        for image_id, key in zip(sorted(by_id), sorted(expected), strict=True):
            assert_alike(objects_of(dataset, by_id[image_id]), expected[key], 0.6)


@pytest.mark.skipif(not TOOLS.is_dir(), reason="needs the shared datasets")
@pytest.mark.parametrize("case", ["labelme", "kitti", "oidv4", "voc_fractions", "macos_names"])
def test_a_broken_file_costs_its_image_alone(case, tmp_path):
    root = tmp_path / case
    shutil.copytree(TOOLS / case, root)
    path = min(
        path
        for path in root.rglob("*")
        if path.suffix in (".xml", ".json", ".txt") and path.stem.endswith(("00", "PM"))
    )
    path.write_bytes(b"\xff\xfe\x00broken")
    dataset = all_images(root)
    assert len(dataset) == 11
    assert "annotation-unreadable" in kinds(dataset)
    assert any(path.name in str(defect) for defect in dataset.defects)


# CVAT.


def put_cvat(root: Path, content: str, labels: str = "") -> DetectionDataset:
    put_text(root / "annotations.xml", f"<annotations><meta>{labels}</meta>{content}</annotations>")
    return all_images(root, "cvat")


def test_cvats_shapes_become_boxes(tmp_path):
    put_image(tmp_path / "images" / "a.jpg")
    shapes = """
        <box label="a" xtl="10" ytl="20" xbr="30" ybr="40"/>
        <box label="b" xtl="40" ytl="10" xbr="60" ybr="30" rotation="45"/>
        <polygon label="c" points="1.5,2.5;20,3;7,30"/>
        <ellipse label="d" cx="50" cy="25" rx="20" ry="10" rotation="90"/>
        <mask label="e" left="3" top="4" width="10" height="20" rle="1"/>
        <points label="f" points="1,1;2,2"/>
        <polyline label="f" points="1,1;2,2"/>
        <box label="a" xtl="10" ytl="20" xbr="x" ybr="40"/>
    """
    dataset = put_cvat(tmp_path, f'<image id="0" name="a.jpg" width="100" height="50">{shapes}</image>')
    half = 20 * np.sqrt(2) / 2
    expected = [
        ("a", [10, 20, 30, 40]),
        ("b", [50 - half, 20 - half, 50 + half, 20 + half]),
        ("c", [1.5, 2.5, 20, 30]),
        ("d", [40, 5, 60, 45]),
        ("e", [3, 4, 13, 24]),
    ]
    for (name, box), (other, wanted) in zip(objects_of(dataset), expected, strict=True):
        assert name == other
        np.testing.assert_allclose(box, wanted, atol=1e-4)
    assert kinds(dataset) == ["shape-no-box", "shape-no-box", "box-missing"]
    assert "points 6 'f' of image images/a left out: a point has no area" in str(dataset.defects[0])
    assert dataset.objects_written == 8, "the balance of objects counts all of them"


def test_cvats_labels_subsets_and_missing_images(tmp_path):
    for name in ("a", "b"):
        put_image(tmp_path / f"{name}.jpg")
    labels = "<task><labels><label><name>z</name></label><label><name>a</name></label></labels></task>"
    images = "".join(
        f'<image name="sub/{name}.jpg" subset="{subset}" width="100" height="50">'
        '<box label="a" xtl="1" ytl="2" xbr="30" ybr="40"/></image>'
        for name, subset in (("a", "Train"), ("b", "Validation"), ("gone", "Train"))
    )
    assert put_cvat(tmp_path, images, labels).class_names == ("BACKGROUND", "z", "a")
    train, validation = open_splits("auto", [tmp_path], AFRESH)
    assert (train.ids, validation.ids) == (["a"], ["b"])
    assert [str(defect).partition(": ")[2] for defect in train.defects if defect.images] == [
        f"image sub/gone.jpg left out: no image of that name in {tmp_path}"
    ]


def test_cvats_tracks_are_frames_of_a_video(tmp_path):
    for number in range(3):
        put_image(tmp_path / "images" / f"frame_{number:06d}.PNG")
    track = "".join(
        f'<box frame="{frame}" outside="{outside}" xtl="{frame}" ytl="1" xbr="30" ybr="40"/>'
        for frame, outside in ((0, 0), (1, 0), (2, 1))
    )
    dataset = put_cvat(tmp_path, f'<track id="0" label="car">{track}</track>')
    assert open_folder("auto", tmp_path).name == "cvat"
    assert [objects_of(dataset, index) for index in range(2)] == [[("car", [x, 1.0, 30.0, 40.0])] for x in (0.0, 1.0)]
    assert "image-unannotated" in kinds(dataset)


def test_a_broken_cvat_file_is_named(tmp_path):
    put_image(tmp_path / "a.jpg")
    put_text(tmp_path / "annotations.xml", "<annotations><image")
    with pytest.raises(DataError, match=r"no annotation of cvat; .*annotations.xml: not used: not readable as XML"):
        open_dataset("cvat", tmp_path, "train", AFRESH)


@pytest.mark.parametrize(("kind", "name"), [("cvat", "annotations.xml"), ("labelme", "a.json")])
def test_a_folder_with_a_colon_is_no_part_of_what_is_wrong(tmp_path, kind, name):
    folder = tmp_path / "set: two"
    put_image(folder / "a.jpg")
    put_text(folder / name, "<[")
    with pytest.raises(DataError, match=r"(not used|image a left out): (not readable as XML|cannot be read as JSON)"):
        open_dataset(kind, folder, "train", AFRESH)


# LabelMe.


def put_labelme(path: Path, *shapes: dict, **facts) -> None:
    content = {"shapes": list(shapes), "imagePath": "a.jpg", "imageWidth": 100, "imageHeight": 50, **facts}
    put_text(path, json.dumps(content))


def test_labelmes_shapes_become_boxes(tmp_path):
    put_image(tmp_path / "a.jpg")
    put_labelme(
        tmp_path / "a.json",
        {"label": "box", "points": [[30, 40], [10, 20]], "shape_type": "rectangle"},
        {"label": "bounding_box", "points": [[1, 2], [20, 3], [7, 30]], "shape_type": "polygon"},
        {"label": "ring", "points": [[50, 25], [53, 29]], "shape_type": "circle", "difficult": True},
        {"label": "way", "points": [[1, 1], [9, 9]], "shape_type": "linestrip"},
        {"label": "dot", "points": [[1, 1]], "shape_type": "point"},
        {"label": "", "points": [[1, 1], [9, 9]], "shape_type": "rectangle"},
        {"label": "odd", "points": [["x", 1], [9, 9]], "shape_type": "rectangle"},
    )
    dataset = all_images(tmp_path)
    expected = [("box", [10, 20, 30, 40]), ("bounding_box", [1, 2, 20, 30]), ("ring", [45, 20, 55, 30])]
    assert objects_of(dataset) == expected
    assert dataset.annotation(0).difficult.tolist() == [False, False, True]
    assert kinds(dataset) == ["shape-no-box", "shape-no-box", "name-missing", "box-missing"]


@pytest.mark.parametrize(
    ("file", "path"),
    [("jsons/a.json", "..\\pictures\\a.jpg"), ("jsons/other.json", "a.jpg"), ("jsons/a.json", "C:\\me\\old name.jpg")],
)
def test_labelmes_files_may_lie_elsewhere(tmp_path, file, path):
    put_image(tmp_path / "pictures" / "a.jpg")
    put_labelme(tmp_path / file, {"label": "x", "points": [[1, 2], [30, 40]]}, imagePath=path)
    dataset = all_images(tmp_path)
    assert dataset.ids == ["pictures/a"]
    assert objects_of(dataset) == [("x", [1, 2, 30, 40])]


def test_images_without_shapes_are_negatives_and_those_without_a_file_unused(tmp_path):
    for name in "abc":
        put_image(tmp_path / f"{name}.jpg")
    put_labelme(tmp_path / "a.json", {"label": "x", "points": [[1, 2], [30, 40]]})
    put_labelme(tmp_path / "b.json", imagePath="b.jpg")
    dataset = all_images(tmp_path)
    assert [len(objects_of(dataset, index)) for index in range(len(dataset))] == [1, 0]
    assert "1 images have no annotation and are not used: c.jpg" in str(dataset.defects[-1])


# Tables.

HEADS = "filename,class,xmin,ymin,xmax,ymax"
TABLES = {
    "plain": f"{HEADS}\na.jpg,cat,10,20,30,40\n",
    "quoted": '"image","xmin","ymin","xmax","ymax","label"\n"a.jpg",10.0,20.0,30.0,40.0,"cat"\n',
    "semicolons and decimal commas": "Filename;Class;X1;Y1;X2;Y2\na.jpg;cat;10,0;20,0;30,0;40,0\n",
    "tabs": "image_path\tlabel\tx_min\ty_min\tx_max\ty_max\nimgs/a.jpg\tcat\t10\t20\t30\t40\n",
    "retinanet": "a.jpg,10,20,30,40,cat\n",
    "class before the corners": "a.jpg,cat,10,20,30,40\n",
    "corner and size": "image_name,bbox_x,bbox_y,bbox_width,bbox_height,label_name,image_width,image_height\n"
    "a.jpg,10,20,20,20,cat,100,50\n",
    "x y w h": "file,x,y,width,height,label\na.jpg,10,20,20,20,cat\n",
    "a box in a cell": 'image_id,width,height,bbox,class\na,100,50,"[10.0, 20.0, 20.0, 20.0]",cat\n',
    "fractions": f"{HEADS}\na.jpg,cat,0.1,0.4,0.3,0.8\n",
    "automl": "TRAIN,gs://bucket/a.jpg,cat,0.1,0.4,,,0.3,0.8,,\n",
    "sizes": "filename,width,height,class,xmin,ymin,xmax,ymax\na.jpg,100,50,cat,10,20,30,40\n",
}


@pytest.mark.parametrize("table", TABLES)
def test_tables_of_any_columns(tmp_path, table):
    put_image(tmp_path / "a.jpg")
    put_text(tmp_path / "objects.csv", TABLES[table])
    dataset = all_images(tmp_path)
    ((name, box),) = objects_of(dataset)
    assert name == "cat"
    np.testing.assert_allclose(box, [10, 20, 30, 40], atol=1e-4)
    assert kinds(dataset) == (["box-relative"] if table in ("fractions", "automl") else [])


def test_rows_of_nothing_and_of_odd_things(tmp_path):
    for name in "abc":
        put_image(tmp_path / f"{name}.jpg")
    rows = [
        "a.jpg,10,20,30,40,cat",
        "b.jpg,,,,,",
        "a.jpg,1,2,x,9,cat",
        ",1,2,3,4,cat",
        "c.jpg,1,2,30,9,",
        "d.jpg,1,2,3,4,cat",
    ]
    put_text(tmp_path / "objects.csv", "\n".join(rows) + "\n")
    dataset = all_images(tmp_path)
    assert [objects_of(dataset, index) for index in range(len(dataset))] == [[("cat", [10, 20, 30, 40])], [], []]
    said = " ".join(map(str, dataset.defects))
    assert "line 4 left out: it names no image" in said
    assert "line 3 'cat' of image a left out: its box is [1, 2, x, 9], expected four numbers" in said
    assert "line 5 of image c left out: it has no name" in said
    assert "image d.jpg left out: no image of that name" in said


def test_tables_named_as_splits(tmp_path):
    for name in ("a", "b"):
        put_image(tmp_path / "images" / f"{name}.jpg")
    put_text(tmp_path / "train_labels.csv", f"{HEADS}\na.jpg,cat,10,20,30,40\n")
    put_text(tmp_path / "test_labels.csv", f"{HEADS}\nb.jpg,cat,10,20,30,40\n")
    train, validation = open_splits("auto", [tmp_path], AFRESH)
    assert (train.ids, validation.ids) == (["images/a"], ["images/b"])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (",,,,\n,,,,\n", "empty.csv: not used: has nothing but ','"),
        (f'{HEADS}\na.jpg,"cat,1,1,20,20\na.jpg,dog,1,1,9,9\n', "empty.csv: not used: line 2: a quote begins there"),
        (
            f'{HEADS}\na.jpg,"cat,1,1,20,20\na.jpg,"dog",1,1,9,9\n',
            "empty.csv: not used: line 2: a quote begins there that does not end, or ends on a later line",
        ),
    ],
)
def test_a_spoilt_table_beside_a_good_one_is_named(tmp_path, text, said):
    rows = [HEADS]
    for name in "abcdef":
        put_image(tmp_path / f"{name}.jpg")
        rows.append(f'"{name}.jpg","cat\n(a note of two lines)",1,1,20,20')
    put_text(tmp_path / "good.csv", "\n".join(rows) + "\n")
    put_text(tmp_path / "empty.csv", text)
    for kind in ("csv", "auto"):
        train_set, val_set = open_splits(kind, [tmp_path], AFRESH)
        assert len(train_set) + len(val_set) == 6
        (defect,) = (defect for defect in train_set.defects if defect.kind == "annotation-unreadable")
        assert said in str(defect)


def test_a_table_of_something_else(tmp_path):
    put_image(tmp_path / "a.jpg")
    put_text(tmp_path / "prices.csv", "article,price\nspoon,3\n")
    with pytest.raises(DataError, match="begins with 'article,price', expected columns such as filename,class"):
        open_dataset("csv", tmp_path, "train", AFRESH)


# CreateML, KITTI, OIDv4.


def test_createmls_versions_and_negatives(tmp_path):
    for name in "ab":
        put_image(tmp_path / f"{name}.jpg")
    box = {"label": "cat", "coordinates": {"x": 20, "y": 30, "width": 20, "height": 20}}
    content = [{"imagefilename": "a.jpg", "annotation": [box, {"label": "cat"}]}, {"image": "b.jpg", "annotations": []}]
    put_text(tmp_path / "objects.json", json.dumps(content))
    dataset = all_images(tmp_path)
    assert [objects_of(dataset, index) for index in (0, 1)] == [[("cat", [10, 20, 30, 40])], []]
    assert kinds(dataset) == ["box-missing"]


def test_a_file_an_image_is_read_too(tmp_path):
    for number in range(30):
        put_image(tmp_path / "img" / f"{number}.jpg")
        box = {"label": "cat", "coordinates": {"x": 20, "y": 30, "width": 20, "height": 20}}
        content = [{"image": f"{number}.jpg", "verified": False, "annotations": [box]}]
        put_text(tmp_path / "json" / f"{number}.json", json.dumps(content))
        put_text(tmp_path / "tables" / f"{number}.csv", f"{HEADS}\n{number}.jpg,cat,10,20,30,40\n")
    for kind in ("auto", "createml", "csv"):
        dataset = all_images(tmp_path, kind)
        assert len(dataset) == 30
        assert objects_of(dataset, 7) == [("cat", [10, 20, 30, 40])]


def test_classes_of_whole_images_are_no_boxes(tmp_path):
    put_image(tmp_path / "a.jpg")
    put_text(tmp_path / "_classes.csv", "filename,a,b,c,d,e\na.jpg,1,0,0,1,0\n")
    with pytest.raises(DataError, match="names no image, class and box.; no annotation in it is read here"):
        open_folder("auto", tmp_path)


@pytest.mark.parametrize("name", ["yolo", "coco", "voc"])
def test_folders_of_archives_are_gone_through(tmp_path, name):
    write = {"yolo": dataset_writers.write_yolo, "coco": dataset_writers.write_coco, "voc": synthetic.write_voc}[name]
    write(tmp_path / "Cells v3" / "cells", {"train": synthetic.drawings(3, 0, size=(64, 64))})
    put_text(tmp_path / "__MACOSX" / "x", "")
    folder = open_folder("auto", tmp_path)
    assert (folder.name, folder.root) == (name, tmp_path / "Cells v3" / "cells")
    assert len(all_images(tmp_path)) == 3


def test_kittis_lines(tmp_path):
    put_image(tmp_path / "image_2" / "7.png")
    rest = "0.00 0 -1.57 10 20 30 40 -1 -1 -1 -1000 -1000 -1000 -10"
    lines = [f"Car {rest}", f"Person sitting {rest} 0.9", f"DontCare {rest}", "Car 0.00 0 -1.57 10 20 30"]
    put_text(tmp_path / "label_2" / "7.txt", "\n".join(lines))
    dataset = all_images(tmp_path)
    assert open_folder("auto", tmp_path).name == "kitti"
    assert objects_of(dataset) == [("Car", [10, 20, 30, 40]), ("Person sitting", [10, 20, 30, 40])]
    assert kinds(dataset) == ["group", "box-missing"]


def test_oidv4_joins_the_folders_of_classes(tmp_path):
    root = tmp_path / "OID" / "Dataset" / "train"
    for of_class, lines in (
        ("Apple", "Apple 1 2 30 40\n"),
        ("Traffic light", "Traffic light 5 6 70 45\nApple 1 2 30 40\n"),
    ):
        put_image(root / of_class / "0a.jpg")
        put_text(root / of_class / "Label" / "0a.txt", lines)
    dataset = all_images(tmp_path)
    assert open_folder("auto", tmp_path).name == "oidv4"
    assert objects_of(dataset) == [("Apple", [1, 2, 30, 40]), ("Traffic light", [5, 6, 70, 45])]
    assert kinds(dataset) == []


# VOC in fractions, and names.


def put_voc(root: Path, name: str, *boxes: tuple) -> None:
    put_image(root / "JPEGImages" / f"{name}.jpg")
    objects = "".join(
        "<object><name>cat</name><difficult>0</difficult><bndbox>"
        + "".join(f"<{tag}>{value}</{tag}>" for tag, value in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))
        + "</bndbox></object>"
        for box in boxes
    )
    size = "<size><width>100</width><height>50</height></size>"
    put_text(root / "Annotations" / f"{name}.xml", f"<annotation>{size}{objects}</annotation>")


def test_fractions_are_told_file_by_file(tmp_path):
    put_voc(tmp_path, "a", (0.1, 0.4, 0.3, 0.8), (0, 0, 1, 1))
    put_voc(tmp_path, "b", (11, 21, 31, 41), (1, 1, 2, 2))
    put_voc(tmp_path, "c", (0.5, 0.5, 30, 40))
    put_voc(tmp_path, "d", (0, 0, 1, 1))
    dataset = all_images(tmp_path, "voc")
    np.testing.assert_allclose(
        [box for _, box in objects_of(dataset, 0)], [[10, 20, 30, 40], [0, 0, 100, 50]], atol=1e-4
    )
    assert [box for _, box in objects_of(dataset, 1)] == [[10, 20, 30, 40], [0, 0, 1, 1]]
    assert [box for _, box in objects_of(dataset, 2)] == [[0, 0, 29, 39]]
    assert objects_of(dataset, 3) == [], "a pixel at the corner is no fraction, and from 1 on it has no area"
    assert kinds(dataset).count("box-relative") == 1


def test_names_are_alike_but_for_spaces(tmp_path):
    names = (
        "Shot 4.00\u202fPM.jpg",
        "two  spaces.jpg",
        "\uff21wide.jpg",
        "same\u202fname.jpg",
        "same\u00a0name.jpg",
        "x.jpg",
    )
    for name in names:
        put_image(tmp_path / name)
    index = FileIndex(tmp_path)
    for wanted, found in (("Shot 4.00 PM", 0), ("two spaces.jpg", 1), ("Awide", 2)):
        assert index.find(wanted) == (tmp_path / names[found], (), True)
    assert index.find("same name") is None, "two are called so"
    assert index.find("x") == (tmp_path / "x.jpg", (), False)


# Less usual ways to write the usual formats.


def test_polygons_of_coco_without_boxes(tmp_path):
    put_image(tmp_path / "a.jpg")
    polygons = [[10, 5, 30, 5, 20, 25], [40, 20, 50, 20, 50, 45.5]]
    annotations = [
        {"id": 1, "image_id": 1, "category_id": 1, "segmentation": polygons},
        {"id": 2, "image_id": 1, "category_id": 1, "bbox": [], "segmentation": [[1, 2, 9, 2, 9, 8]]},
        {"id": 3, "image_id": 1, "category_id": 1, "segmentation": {"counts": "x", "size": [50, 100]}},
        {"id": 4, "image_id": 1, "category_id": 1, "bbox": [1, 1, 5, 6], "segmentation": polygons},
    ]
    content = {"images": [{"id": 1, "file_name": "a.jpg", "width": 100, "height": 50}], "annotations": annotations}
    put_text(tmp_path / "x.json", json.dumps({**content, "categories": [{"id": 1, "name": "cat"}]}))
    dataset = all_images(tmp_path)
    assert objects_of(dataset) == [("cat", [10, 5, 50, 45.5]), ("cat", [1, 2, 9, 8]), ("cat", [1, 1, 6, 7])]
    assert kinds(dataset) == ["box-missing"], "masks as run lengths are no box"


def test_xml_of_labelme_counts_from_zero(tmp_path):
    """CVAT, too, writes it."""
    put_image(tmp_path / "default" / "a.jpg")
    points = "".join(f"<pt><x>{x}</x><y>{y}</y></pt>" for x, y in ((0.5, 4), (30, 4), (30, 50), (0.5, 50)))
    text = f"<object><name>cat</name><deleted>0</deleted><polygon>{points}<username/></polygon></object>"
    size = "<imagesize><nrows>50</nrows><ncols>100</ncols></imagesize>"
    put_text(tmp_path / "default" / "a.xml", f"<annotation><filename>a.jpg</filename>{size}{text}</annotation>")
    dataset = all_images(tmp_path)
    assert objects_of(dataset) == [("cat", [0.5, 4, 30, 50])]
    assert kinds(dataset) == ["difficult-missing"]


IMGLAB = """<?xml version='1.0' encoding='ISO-8859-1'?>
<?xml-stylesheet type='text/xsl' href='image_metadata_stylesheet.xsl'?>
<dataset><name>imglab dataset</name><comment>Created by imglab tool.</comment><images>
  <image file='shots/a.jpg' width='100' height='50'>
    <box top='5' left='10' width='20' height='30'>{label}<part name='00' x='12' y='9'/></box>
    <box top='1' left='2' width='8' height='7' ignore='1'/>
    <box top='x' left='2' width='8' height='7' difficult='1'>{label}</box>
  </image>
  <image file='C:\\data\\shots\\b.jpg'/>
  <image file='gone.jpg'><box top='1' left='1' width='5' height='5'/></image>
</images></dataset>"""


@pytest.mark.parametrize(
    ("label", "objects", "left_out"),
    [
        ("<label>cat</label>", [("cat", [10, 5, 30, 35])], ["name-missing", "box-missing", "image-missing"]),
        ("", [("object", [10, 5, 30, 35]), ("object", [2, 1, 10, 8])], ["box-missing", "image-missing"]),
    ],
)
def test_imglab(tmp_path, label, objects, left_out):
    put_text(tmp_path / "faces.xml", IMGLAB.replace("{label}", label))
    for name in "ab":
        put_image(tmp_path / "shots" / f"{name}.jpg")
    assert open_folder("auto", tmp_path).name == "imglab"
    dataset = all_images(tmp_path)
    assert objects_of(dataset) == objects
    assert kinds(dataset) == left_out
    assert dataset.ids == ["shots/a", "shots/b"]
    assert [record.difficult for record in dataset.records] == [(False, True)[: len(objects)], ()]


def test_imglab_without_images_and_broken(tmp_path):
    put_text(tmp_path / "faces.xml", IMGLAB)
    with pytest.raises(DataError, match="holds no image, but 1 .xml file, that look like those of dlib's imglab"):
        open_folder("auto", tmp_path)
    put_text(tmp_path / "faces.xml", "<dataset/>")
    with pytest.raises(DataError, match="faces.xml: not used: has no <dataset> with <images>; expected an XML file"):
        all_images(tmp_path, "imglab")


@pytest.mark.parametrize(
    "heads", ["", "label_name,bbox_x,bbox_y,bbox_width,bbox_height,image_name,image_width,image_height\n"]
)
def test_tables_of_makesense(tmp_path, heads):
    put_image(tmp_path / "a.jpg")
    put_text(tmp_path / "labels.csv", f"{heads}cat,60,10,30,35,a.jpg,100,50\ndog,1,2,3,4,a.jpg,100,50\n")
    dataset = all_images(tmp_path)
    assert objects_of(dataset) == [("cat", [60, 10, 90, 45]), ("dog", [1, 2, 4, 6])]
    assert kinds(dataset) == []


def test_darknet_with_a_list_of_classes_in_each_split(tmp_path):
    for split, line in (("train", "1 0.5 0.5 0.2 0.4"), ("valid", "0 0.5 0.5 0.2 0.4")):
        put_image(tmp_path / split / f"{split}.jpg")
        put_text(tmp_path / split / f"{split}.txt", line)
        put_text(tmp_path / split / "_darknet.labels", "cat\ndog\n")
    train, validation = open_splits("auto", [tmp_path], AFRESH)
    assert [(name, np.round(box).tolist()) for name, box in objects_of(train)] == [("dog", [40, 15, 60, 35])]
    assert [name for name, _ in objects_of(validation)] == ["cat"]
    assert train.class_names == validation.class_names == ("BACKGROUND", "cat", "dog")


# Which format it is.


def test_a_few_stray_files_decide_nothing(tmp_path):
    dataset_writers.write_kitti(tmp_path, {"train": synthetic.drawings(5, 0, size=(64, 64))})
    synthetic.write_voc(tmp_path / "old", {"train": synthetic.drawings(2, 1, size=(64, 64))})
    put_text(tmp_path / "notes.json", '{"categories": []}')
    assert open_folder("auto", tmp_path).name == "kitti"


def test_another_format_beside_it_is_mentioned(tmp_path, caplog):
    dataset_writers.write_kitti(tmp_path, {"train": synthetic.drawings(5, 0, size=(64, 64))})
    put_text(tmp_path / "old.csv", f"{HEADS}\ntrain_00000.jpg,cat,1,2,30,40\n")
    with caplog.at_level("INFO"):
        open_folder("auto", tmp_path)
    assert "looks like kitti" in caplog.text
    assert "annotations that look like csv, of about 1 images; --dataset-type=csv reads these" in caplog.text


UNREAD = {
    "supervisely": (
        {"ann/a.json": json.dumps({"tags": [], "objects": [], "size": {}})},
        "that look like Supervisely's",
    ),
    "via": ({"via.json": json.dumps({"_via_img_metadata": {"1": {"filename": "b.jpg", "regions": []}}})}, "VIA's"),
    "via table": ({"via.csv": "filename,region_shape_attributes\na.jpg,{}\n"}, "that look like VIA's"),
    "label studio": (
        {"x.json": json.dumps([{"annotations": [], "data": {"image": "a"}}])},
        "that look like Label Studio's",
    ),
    "labelbox": ({"x.ndjson": json.dumps({"data_row": {}, "projects": {}}) + "\n"}, "that look like Labelbox's"),
    "vott": ({"x.json": json.dumps({"asset": {}, "regions": []})}, "that look like VoTT's"),
    "datumaro": (
        {"annotations/train.json": json.dumps({"categories": {"label": {}}, "items": [{"annotations": []}]})},
        "that look like Datumaro's",
    ),
    "fiftyone": ({"labels.json": json.dumps({"classes": ["a"], "labels": {"a": []}})}, "that look like FiftyOne's"),
    "edge impulse": (
        {"bounding_boxes.labels": json.dumps({"version": 1, "boundingBoxes": {"a.jpg": []}})},
        "1 .labels file, that look like Edge Impulse's",
    ),
    "sagemaker": (
        {"output.manifest": json.dumps({"source-ref": "s3://bucket/a.jpg", "boxes": {}})},
        "1 .manifest file, that look like SageMaker Ground Truth's",
    ),
    "hugging face": (
        {"metadata.jsonl": "\n" + json.dumps({"file_name": "a.jpg", "objects": {}})},
        "1 .jsonl file, that look like Hugging Face's",
    ),
    "bdd": ({"det.json": json.dumps([{"name": "a.jpg", "labels": [{"box2d": {}}]}])}, "that look like BDD100K's"),
    "darwin": (
        {"a.json": json.dumps({"item": {}, "annotations": [{"bounding_box": {}}]})},
        "that look like V7's Darwin",
    ),
    "encord": ({"x.json": json.dumps([{"label_hash": "", "data_units": {}}])}, "that look like Encord's"),
    "hasty": ({"x.json": json.dumps({"export_format_version": "1.1", "images": []})}, "that look like Hasty's"),
    "vision language": (
        {"x.jsonl": json.dumps({"image": "a.jpg", "prefix": "", "suffix": "<loc0001>"})},
        "those of a language model with vision",
    ),
    "keras": ({"_annotations.txt": "a.jpg 1,2,30,40,0 5,6,7,8,1\n"}, "that look like YOLO's for Keras"),
    "table without classes": (
        {"train.csv": "image_id,bbox\na,[1, 2, 3, 4]\n"},
        r"\(train.csv begins with 'image_id,bbox', which names no image, class and box\)",
    ),
    "parquet": ({"train.parquet": ""}, "1 .parquet file, that look like a table of Hugging Face's"),
    "broken": ({"x.json": "{", "y.ndjson": "{", "z.labels": "["}, "1 .json file, 1 .ndjson file, 1 .labels file; no"),
    "nothing": ({}, "holds 1 images and no annotation: label them first"),
    "something": ({"a.blend": ""}, r"holds 1 images and no annotation \(besides a.blend\): label them first"),
    "archive": ({"data.zip": ""}, "data.zip: unpack the archive"),
}


@pytest.mark.parametrize("case", UNREAD)
def test_what_is_not_read_is_named(tmp_path, case):
    files, message = UNREAD[case]
    put_image(tmp_path / "img" / "a.jpg")
    for name, text in files.items():
        put_text(tmp_path / name, text)
    with pytest.raises(DataError, match=message):
        open_folder("auto", tmp_path)


def test_annotations_without_images_are_named(tmp_path):
    put_text(tmp_path / "a.json", "{}")
    with pytest.raises(DataError, match="holds no image, but 1 .json file; put the images into the folder, too"):
        open_folder("auto", tmp_path)
    put_text(tmp_path / "b.tfrecord", "")
    message = (
        "holds 1 .json file, 1 .tfrecord file, that look like TensorFlow's records; export as VOC, COCO or YOLO, with"
    )
    with pytest.raises(DataError, match=message):
        open_folder("auto", tmp_path)

"""Reading VOC and Open Images, and what is said of files that are not as they should be."""

import logging

import cv2
import dataset_writers
import numpy as np
import pytest
import torch
from conftest import CLASSES, IMAGE_SIZE, SHARED
from PIL import Image, ImageOps

from vision.datasets import images as images_module
from vision.datasets import join, open_dataset, open_folder
from vision.datasets.images import orient_boxes, read_image, read_image_info, reductions_of
from vision.datasets.loading import EpochBatches, make_loader, pad
from vision.datasets.open_images import OpenImagesDataset, OpenImagesReader
from vision.datasets.synthetic import voc_xml, write_voc
from vision.datasets.voc_dataset import VOCDataset, VocReader
from vision.ssd.data_preprocessing import TestTransform, TrainAugmentation
from vision.structures import Annotation, DataError, Sample


def assert_as_drawn(dataset, images, tolerance: float) -> None:
    assert len(dataset) == len(images)
    for index, drawing in enumerate(images):
        annotation = dataset.annotation(index)
        np.testing.assert_allclose(annotation.boxes, drawing.boxes, atol=tolerance)
        assert [dataset.class_names[label] for label in annotation.labels] == list(drawing.names)
        assert annotation.size == IMAGE_SIZE
        image = dataset.get_image(index)
        assert image.shape == drawing.image.shape
        assert image.dtype == np.uint8
        assert np.abs(image.astype(int) - drawing.image).mean() < 16, "RGB, not BGR"


def test_voc_reads_what_was_written(voc_root, images):
    assert_as_drawn(VOCDataset(voc_root), images["train"], 1e-4)
    test = VOCDataset(str(voc_root), is_test=True)
    assert_as_drawn(test, images["test"], 1e-4)
    assert test.class_names == ("BACKGROUND", *CLASSES)
    assert test.class_dict["cone"] == 3
    assert test.ids == [f"test_{number:05d}" for number in range(3)]


def test_open_images_reads_what_was_written(open_images_root, images):
    train = OpenImagesDataset(open_images_root)
    with_objects = [drawing for drawing in images["train"] if drawing.names]
    assert_as_drawn(train, with_objects, 1e-3)
    assert train.class_names == OpenImagesDataset(open_images_root, dataset_type="test").class_names


def test_items_for_scripts(voc_root):
    dataset = VOCDataset(voc_root)
    image, boxes, labels = dataset[0]
    assert image.shape == (IMAGE_SIZE[1], IMAGE_SIZE[0], 3)
    assert (boxes.dtype, labels.dtype) == (np.float32, np.int64)
    image_id, (all_boxes, all_labels, difficult) = dataset.get_annotation(0)
    assert image_id == "train_00000"
    assert len(all_boxes) == len(all_labels) == len(difficult)
    changed = VOCDataset(voc_root, lambda i, b, la: (i * 0, b * 2, la), lambda b, la: (b + 1, la + 10))[0]
    assert changed[0].max() == 0
    np.testing.assert_allclose(changed[1], boxes * 2 + 1)
    assert changed[2].tolist() == (labels + 10).tolist()


def rewrite(root, name: str, objects: str) -> None:
    size = "<size><width>96</width><height>80</height></size>"
    (root / "Annotations" / f"{name}.xml").write_text(f"<annotation>{size}{objects}</annotation>")


def voc_object(name="ball", box=(10, 10, 30, 40), more="<difficult>0</difficult>") -> str:
    corners = "".join(
        f"<{tag}>{value}</{tag}>" for tag, value in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
    )
    return f"<object><name>{name}</name>{more}<bndbox>{corners}</bndbox></object>"


def read_first(root, objects: str, caplog, **options) -> tuple[Annotation, str, VOCDataset]:
    rewrite(root, "train_00000", objects)
    with caplog.at_level(logging.WARNING):
        dataset = VOCDataset(root, **options)
    return dataset.annotation(0), caplog.text, dataset


def test_voc_counts_pixels_from_one(own_voc, caplog):
    annotation, said, _ = read_first(own_voc, voc_object(box=(1, 1, 96, 80)), caplog)
    assert annotation.boxes.tolist() == [[0, 0, 95, 79]]
    assert said == ""


def test_boxes_are_clipped_to_the_real_image(own_voc, caplog):
    annotation, said, _ = read_first(own_voc, voc_object(box=(-20, 0, 500.5, 60)), caplog)
    assert annotation.boxes.tolist() == [[0, 0, 96, 59]]
    assert "object 1 'ball' repaired: its box [-20, 0, 500.5, 60] is cut to the image's 96x80" in said


@pytest.mark.parametrize(
    "box",
    [(20, 20, 20, 40), (20, 20, 30, 20), (0, 0, 0, 0), (200, 10, 300, 20), (-30, 5, -5, 9)],
    ids=["no width", "no height", "a point", "right of the image", "left of it"],
)
def test_boxes_without_area_are_left_out_and_named(own_voc, caplog, box):
    annotation, said, dataset = read_first(own_voc, voc_object(box=box) + voc_object("star"), caplog)
    assert annotation.boxes.shape == (1, 4)
    assert [dataset.class_names[label] for label in annotation.labels] == ["star"]
    assert "train_00000.xml: object 1 'ball'" in said
    assert "no area" in said
    assert [defect.kind for defect in dataset.defects] == ["box-no-area"]


def test_swapped_corners_are_mended_and_named(own_voc, caplog):
    annotation, said, _ = read_first(own_voc, voc_object(box=(41, 10, 11, 31)), caplog)
    assert annotation.boxes.tolist() == [[10, 9, 40, 30]]
    assert "swapped" in said


@pytest.mark.parametrize(
    ("objects", "message"),
    [
        (voc_object(name=""), "object 1 left out: it has no name"),
        ("<object><name>ball</name></object>", "expected four numbers"),
        (voc_object(box=("a", 1, 2, 3)), "expected four numbers"),
        (voc_object(box=("nan", 1, 2, 3)), "not finite"),
    ],
)
def test_broken_objects_are_left_out_and_named(own_voc, caplog, objects, message):
    annotation, said, dataset = read_first(own_voc, objects, caplog)
    assert annotation.boxes.shape == (0, 4)
    assert message in said
    assert "train_00000.xml" in said
    _, boxes, labels = dataset[0]
    assert boxes.shape == (0, 4)
    assert labels.shape == (0,)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("1", True), ("0", False), ("", False), ("Unspecified", False), ("true", True)],
)
def test_difficult(own_voc, caplog, text, expected):
    annotation, _, dataset = read_first(own_voc, voc_object(more=f"<difficult>{text}</difficult>"), caplog)
    assert annotation.difficult.tolist() == [expected]
    assert len(dataset[0][1]) == (0 if expected else 1)
    assert len(VOCDataset(own_voc, keep_difficult=True)[0][1]) == 1
    assert len(dataset.get_annotation(0)[1][0]) == 1


def test_unknown_classes_are_counted_and_named(own_voc, caplog):
    annotation, said, _ = read_first(own_voc, voc_object("Ball") * 2 + voc_object(), caplog)
    assert len(annotation.labels) == 1
    assert "2 objects are left out: class 'Ball' is not in the list" in said
    assert "did you mean 'ball'?" in said


def test_without_labels_txt_the_names_found_count_in_every_split(own_voc):
    (own_voc / "labels.txt").unlink()
    found = VOCDataset(own_voc, is_test=True).class_names
    assert found == ("BACKGROUND", *sorted(CLASSES))
    assert VOCDataset(own_voc).class_names == found


def test_cvats_labelmap_is_read(own_voc):
    (own_voc / "labels.txt").rename(own_voc / "labelmap.txt")
    (own_voc / "labelmap.txt").write_text(
        "# label:color_rgb:parts:actions\nstar:1,2,3::\nbackground:0,0,0::\nball:4,5,6::\n"
    )
    assert VOCDataset(own_voc).class_names == ("BACKGROUND", "star", "ball")


def test_label_file_is_taken_in_the_place_of_labels_txt(own_voc, tmp_path):
    (tmp_path / "other.txt").write_text("star\nball\n")
    dataset = VOCDataset(own_voc, label_file=tmp_path / "other.txt")
    assert dataset.class_names == ("BACKGROUND", "star", "ball")


@pytest.mark.parametrize(
    ("present", "train", "test"),
    [
        (["trainval", "train", "test", "val", "default"], "trainval", "test"),
        (["train", "val", "default"], "train", "val"),
        (["default"], "default", "default"),
    ],
)
def test_voc_lists_come_in_order(own_voc, present, train, test):
    folder = own_voc / "ImageSets" / "Main"
    for path in folder.glob("*.txt"):
        path.unlink()
    for number, name in enumerate(present):
        (folder / f"{name}.txt").write_text(f"train_0000{number}\n")
    assert VOCDataset(own_voc).ids == [f"train_0000{present.index(train)}"]
    assert VOCDataset(own_voc, is_test=True).ids == [f"train_0000{present.index(test)}"]


@pytest.mark.parametrize("suffix", [".png", ".JPG", ".jpeg", ".bmp", ".webp"])
def test_the_usual_image_suffixes(own_voc, suffix):
    path = own_voc / "JPEGImages" / "train_00000.jpg"
    image = cv2.imread(str(path))
    path.unlink()
    other = path.with_suffix(suffix.lower())
    cv2.imwrite(str(other), image)
    other.rename(path.with_suffix(suffix))
    assert VOCDataset(own_voc).get_image(0).shape == image.shape


def test_ids_without_image_or_annotation_are_counted(own_voc, caplog):
    (own_voc / "JPEGImages" / "train_00001.jpg").unlink()
    (own_voc / "Annotations" / "train_00002.xml").unlink()
    (own_voc / "ImageSets/Main/train.txt").write_text("\ntrain_00000 \n\ntrain_00001\ntrain_00002\n")
    with caplog.at_level(logging.WARNING):
        dataset = VOCDataset(own_voc)
    assert dataset.ids == ["train_00000"]
    assert "image train_00001 left out: no image of that name" in caplog.text
    assert "image train_00002 left out: no XML" in caplog.text
    assert sum(defect.images for defect in dataset.defects) == 2


def test_names_that_differ_by_case_are_different_images(own_voc):
    folder = own_voc / "JPEGImages"
    (folder / "train_00000.jpg").rename(folder / "A.jpg")
    (folder / "train_00001.jpg").rename(folder / "a.jpg")
    for name in ("A", "a"):
        rewrite(own_voc, name, voc_object())
    (own_voc / "ImageSets/Main/train.txt").write_text("a\nA\n")
    assert [record.image_path.name for record in VOCDataset(own_voc).records] == ["a.jpg", "A.jpg"]


def test_ids_may_be_listed_with_suffix(own_voc, images):
    (own_voc / "ImageSets/Main/train.txt").write_text("train_00001.jpg\n")
    dataset = VOCDataset(own_voc)
    np.testing.assert_allclose(dataset.annotation(0).boxes, images["train"][1].boxes, atol=1e-4)


def test_annotations_in_no_list_do_not_stop_a_run(own_voc, caplog):
    (own_voc / "labels.txt").unlink()
    (own_voc / "Annotations" / "._train_00000.xml").write_bytes(b"\0")
    (own_voc / "Annotations" / "draft.xml").write_text("<annotation>")
    with caplog.at_level(logging.WARNING):
        assert VOCDataset(own_voc).class_names == ("BACKGROUND", *sorted(CLASSES))
    assert "draft.xml" in caplog.text
    assert "._train" not in caplog.text


def test_a_dataset_can_be_cut_by_its_ids(voc_root, images):
    dataset = VOCDataset(voc_root)
    dataset.ids = dataset.ids[4:]
    assert len(dataset) == 2
    np.testing.assert_allclose(dataset.annotation(0).boxes, images["train"][4].boxes, atol=1e-4)
    assert "2 images" in repr(dataset)


def spoil_images(root):
    for path in (root / "JPEGImages").iterdir():
        path.unlink()


def spoil_annotations(root):
    for path in (root / "Annotations").iterdir():
        path.unlink()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda root: root.rename(root.with_name("elsewhere")), "no such folder"),
        (lambda root: (root / "ImageSets/Main/train.txt").write_text("\n"), "lists no image"),
        (lambda root: (root / "ImageSets/Main/train.txt").write_bytes(b"\xff\xfa\xfe"), "UTF-8"),
        (spoil_images, "none of its 6 images can be used; first: .*train_00000 left out: no image of that name"),
        (spoil_annotations, "none of its 6 images can be used; first: .*train_00000 left out: no XML"),
    ],
)
def test_voc_folders_that_cannot_be_read(own_voc, spoil, message):
    spoil(own_voc)
    with pytest.raises(DataError, match=message):
        VOCDataset(own_voc)


def spoil_table(edit):
    def spoil(root):
        table = root / "sub-train-annotations-bbox.csv"
        table.write_text(edit(table.read_text()))

    return spoil


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda root: (root / "sub-train-annotations-bbox.csv").unlink(), "no such file.*found sub-test-annotations"),
        (spoil_table(lambda text: text.replace("ClassName", "Class")), "lacks the columns ClassName"),
        (spoil_table(lambda text: text + '"train00000'), "cannot be read as CSV"),
        (lambda root: [path.unlink() for path in (root / "train").iterdir()], "none of its .* images can be used"),
    ],
)
def test_open_images_folders_that_cannot_be_read(open_images_root, tmp_path, spoil, message):
    import shutil

    root = tmp_path / "open_images"
    shutil.copytree(open_images_root, root)
    spoil(root)
    with pytest.raises(DataError, match=message):
        OpenImagesDataset(root)


def test_open_images_order_of_columns_is_free_and_classes_span_splits(tmp_path):
    for split, name in (("train", "b"), ("test", "a")):
        (tmp_path / split).mkdir()
        Image.new("RGB", (100, 50)).save(tmp_path / split / "x1.jpg")
        (tmp_path / f"sub-{split}-annotations-bbox.csv").write_text(
            f"ClassName,YMax,XMax,YMin,XMin,ImageID\n{name},0.5,0.6,0.2,0.1,x1\n"
        )
    dataset = OpenImagesDataset(tmp_path)
    assert dataset.class_names == ("BACKGROUND", "a", "b")
    np.testing.assert_allclose(dataset.annotation(0).boxes, [[10, 10, 60, 25]], rtol=1e-6)
    assert dataset.annotation(0).labels.tolist() == [2]


def test_open_images_validates_on_test_else_validation(open_images_root, tmp_path):
    import shutil

    assert open_dataset("open_images", open_images_root, "test").title.endswith("sub-test-annotations-bbox.csv")
    root = tmp_path / "open_images"
    shutil.copytree(open_images_root, root)
    (root / "sub-test-annotations-bbox.csv").rename(root / "sub-validation-annotations-bbox.csv")
    (root / "test").rename(root / "validation")
    assert open_dataset("auto", root, "test").title.endswith("sub-validation-annotations-bbox.csv")


def test_auto_goes_by_what_is_there(voc_root, open_images_root, tmp_path):
    assert isinstance(open_folder("auto", voc_root), VocReader)
    assert isinstance(open_folder("auto", open_images_root), OpenImagesReader)
    with pytest.raises(DataError, match="is empty; .* formats that are read: voc, open_images, coco, yolo, cvat"):
        open_dataset("auto", tmp_path, "train")
    with pytest.raises(DataError, match="is no coco dataset, it looks like voc; use --dataset-type=auto"):
        open_dataset("coco", voc_root, "train")


def test_joined_datasets_are_merged_by_name(voc_root, open_images_root, images, tmp_path):
    (tmp_path / "two.txt").write_text("star\nball\n")
    voc = VOCDataset(voc_root, label_file=tmp_path / "two.txt")
    joined = join([voc, OpenImagesDataset(open_images_root)])
    assert joined.class_names == ("BACKGROUND", "star", "ball", "board", "cone")
    assert len(joined) == 12
    for index, drawing in enumerate(images["train"] * 2):
        names = [joined.class_names[label] for label in joined.annotation(index).labels]
        assert names == list(drawing.names)


def test_balancing_evens_out_images_per_class(tmp_path, images):
    from vision.datasets import synthetic

    many = synthetic.drawings(12, 5, size=(64, 64), class_names=("ball",), objects=(1, 1))
    few = synthetic.drawings(3, 6, size=(64, 64), class_names=("star",), objects=(1, 1))
    write_voc(tmp_path, {"train": many + few})
    dataset = VOCDataset(tmp_path)
    assert dataset.class_counts() == {"ball": 12, "board": 0, "cone": 0, "star": 3}
    dataset.balance(np.random.default_rng(0))
    assert dataset.class_counts() == {"ball": 3, "board": 0, "cone": 0, "star": 3}


def test_open_images_balances_when_asked(tmp_path):
    from vision.datasets import synthetic

    many = synthetic.drawings(6, 5, size=(64, 64), class_names=("ball",), objects=(1, 1))
    few = synthetic.drawings(2, 6, size=(64, 64), class_names=("star",), objects=(1, 1))
    dataset_writers.write_open_images(tmp_path, {"train": many + few})
    assert len(OpenImagesDataset(tmp_path)) == 8
    assert len(OpenImagesDataset(tmp_path, balance_data=True)) == 4


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_turned_upright_as_exif_says(tmp_path, orientation, suffix):
    pixels = np.zeros((32, 64, 3), np.uint8)
    pixels[:16, :32], pixels[:16, 32:], pixels[16:, :32] = (250, 0, 0), (0, 250, 0), (0, 0, 250)
    image = Image.fromarray(pixels)
    exif = image.getexif()
    exif[0x0112] = orientation
    path = tmp_path / f"turned{suffix}"
    image.save(path, exif=exif)
    info = read_image_info(path)
    assert info.orientation == orientation
    upright = read_image(path, info.orientation)
    with Image.open(path) as stored:
        expected = np.array(ImageOps.exif_transpose(stored).convert("RGB"))
    assert info.upright_size == (expected.shape[1], expected.shape[0])
    assert np.abs(upright.astype(int) - expected).mean() < 8
    red = orient_boxes(np.array([[0, 0, 32, 16]]), orientation, info.upright_size)[0]
    x, y = (red[:2] + red[2:]) // 2
    assert upright[y, x, 0] > 150
    assert upright[y, x, 1:].max() < 100


@pytest.mark.parametrize("orientation", [1, 6, 7])
@pytest.mark.parametrize("reduction", [2, 4, 8])
def test_jpegs_are_decoded_at_a_fraction(tmp_path, orientation, reduction):
    pixels = np.add.outer(np.arange(96), 2 * np.arange(64))[..., None].repeat(3, axis=2).astype(np.uint8)
    pixels[..., 1] = 90
    for mode, name in (("RGB", "a.jpg"), ("L", "grey.jpg"), ("CMYK", "cmyk.JPEG")):
        path = tmp_path / name
        Image.fromarray(pixels).convert(mode).save(path, quality=95)
        assert reductions_of(path, (64, 96)) == (1, 2, 4, 8)
        whole, small = (read_image(path, orientation, number) for number in (1, reduction))
        expected = cv2.resize(
            whole, (whole.shape[1] // reduction, whole.shape[0] // reduction), interpolation=cv2.INTER_AREA
        )
        assert small.shape == expected.shape
        assert np.abs(small.astype(int) - expected).mean() < 3


@pytest.mark.skipif(not hasattr(cv2, "IMREAD_COLOR_RGB"), reason="this OpenCV gives BGR only")
def test_older_and_newer_opencv_give_the_same(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (32, 64, 4), dtype=np.uint8)
    for mode in ("RGB", "RGBA", "L", "P", "CMYK", "1"):
        image = Image.fromarray(pixels).convert(mode)
        for suffix in (".png", ".jpg", ".bmp", ".webp"):
            path = tmp_path / f"{mode}{suffix}"
            try:
                image.save(path)
            except OSError:
                continue  # no such pair
            for reduction in reductions_of(path, image.size):
                newer = read_image(path, reduction=reduction)
                with monkeypatch.context() as patch:
                    patch.setattr(images_module, "_AS_RGB", None)
                    np.testing.assert_array_equal(read_image(path, reduction=reduction), newer)
    assert len(list(tmp_path.iterdir())) > 12
    Image.fromarray(rng.integers(0, 1 << 16, (8, 8), dtype=np.uint16)).save(tmp_path / "16.png")
    newer = read_image(tmp_path / "16.png")
    monkeypatch.setattr(images_module, "_AS_RGB", None)
    np.testing.assert_array_equal(read_image(tmp_path / "16.png"), newer)


def test_only_what_divides_a_jpeg_is_a_fraction(tmp_path):
    assert reductions_of(tmp_path / "a.png", (64, 64)) == (1,)
    assert reductions_of(tmp_path / "a.jpg", (500, 375)) == (1,)
    assert reductions_of(tmp_path / "a.jpg", (500, 332)) == (1, 2, 4)


def test_other_files_by_the_name_of_a_jpeg_have_fractions_too(tmp_path):
    Image.fromarray(np.full((32, 64, 3), 50, np.uint8)).save(tmp_path / "a.png")
    (tmp_path / "a.png").rename(tmp_path / "a.jpg")
    assert read_image(tmp_path / "a.jpg", reduction=4).shape == (8, 16, 3)


def test_an_image_that_vanished_is_named(tmp_path):
    with pytest.raises(DataError, match="no such image"):
        read_image(tmp_path / "gone.jpg")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"boxes": np.zeros((4,), np.float32)}, "shape"),
        ({"labels": np.int64([1, 2])}, "labels: expected shape"),
        ({"boxes": np.float32([[5, 0, 1, 1]])}, "x1 <= x2"),
        ({"boxes": np.float32([[0, 0, np.nan, 1]])}, "finite"),
        ({"labels": np.int64([0])}, "background"),
    ],
)
def test_annotations_refuse_nonsense(changes, message):
    good = {
        "boxes": np.float32([[0, 0, 1, 1]]),
        "labels": np.int64([1]),
        "difficult": np.array([False]),
        "size": (9, 9),
    }
    Annotation(**good)
    with pytest.raises(ValueError, match=message):
        Annotation(**{**good, **changes})


def test_padding_a_batch():
    image = torch.zeros(3, 4, 4, dtype=torch.uint8)
    samples = [
        Sample(image, torch.ones(2, 4), torch.tensor([1, 2])),
        Sample(image, torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64)),
    ]
    batch = pad(samples)
    assert batch.images.dtype == torch.uint8
    assert batch.boxes.shape == (2, 2, 4)
    assert batch.labels.tolist() == [[1, 2], [0, 0]]
    assert pad(samples[1:]).boxes.shape == (1, 0, 4)


@pytest.mark.parametrize(
    ("count", "size", "lengths"), [(9, 4, [4, 5]), (10, 4, [4, 4, 2]), (1, 4, [1]), (3, 1, [1, 1, 1])]
)
def test_a_last_batch_of_one_joins_the_one_before(count, size, lengths):
    batches = EpochBatches(count, size)
    assert [len(batch) for batch in batches] == lengths
    assert len(batches) == len(lengths)
    assert sorted(index for batch in batches for _, index in batch) == list(range(count))


def test_order_depends_on_seed_and_epoch_alone():
    one, other = EpochBatches(20, 4, seed=1), EpochBatches(20, 4, seed=1)
    assert list(one) == list(other)
    other.begin(1)
    assert list(one) != list(other)
    assert list(one) != list(EpochBatches(20, 4, seed=2))
    assert [index for batch in EpochBatches(5, 2, shuffle=False) for _, index in batch] == list(range(5))


def test_workers_change_nothing(voc_root):
    dataset = VOCDataset(voc_root)
    batches = []
    for workers in (0, 2):
        loader = make_loader(dataset, TrainAugmentation(64, 127, 128.0), EpochBatches(6, 4, 3), workers, seed=3)
        loader.batch_sampler.begin(2)
        batches.append(list(loader))
    for one, other in zip(*batches, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one[:3], other[:3], strict=True))
    assert batches[0][0].images.dtype == torch.uint8


def test_validation_comes_in_order_and_whole(voc_root):
    dataset = VOCDataset(voc_root)
    images = torch.cat(
        [batch.images for batch in make_loader(dataset, TestTransform(64), EpochBatches(6, 4, shuffle=False), 0)]
    )
    expected = cv2.resize(dataset.get_image(5), (64, 64), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_array_equal(images[5].numpy(), expected.transpose(2, 0, 1))


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the shared datasets")
def test_real_dataset_with_two_objects_without_area(caplog):
    with caplog.at_level(logging.WARNING):
        dataset = VOCDataset(SHARED / "datasets" / "bccd")
    assert "BloodImage_00338.xml: object 13 'RBC'" in caplog.text
    assert "BloodImage_00343.xml: object 4 'RBC'" in caplog.text
    assert len(dataset) == 292


def test_voc_xml_counts_from_one(images):
    drawing = images["test"][0]
    assert f"<xmin>{drawing.boxes[0, 0] + 1:g}</xmin>" in voc_xml("x.jpg", drawing)

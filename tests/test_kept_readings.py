"""A second start maps what the first has read, and reads again as soon as anything has changed."""

import logging
import multiprocessing
import os
import shutil
from pathlib import Path

import pytest
import yaml
from dataset_writers import write_coco, write_yolo
from test_formats import WRITERS
from test_packed import all_facts

from vision import datasets
from vision.datasets import ReadingOptions, file_cache, folder, kept_readings, open_dataset, open_splits
from vision.datasets.synthetic import drawings


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache folder of its own, and files that count as settled at once."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(file_cache, "_SETTLED_NS", -(10**12))
    return tmp_path / "cache" / "ssd-retrain"


@pytest.fixture
def root(tmp_path):
    write_coco(tmp_path / "data", {"train": drawings(4, 0), "val": drawings(2, 1)})
    return tmp_path / "data"


@pytest.fixture
def readings(monkeypatch):
    """Count the listings that are read."""
    calls, read = [], folder.DatasetReader.read
    monkeypatch.setattr(folder.DatasetReader, "read", lambda *args: calls.append(args[1].title) or read(*args))
    return calls


def facts_of(root: Path, kind: str = "auto", **options) -> list:
    """All that a start gets to know of a folder."""
    return [
        (
            *(split.class_names, split.title, split.source, split.images_listed, split.objects_written, split.defects),
            all_facts(split.records),
        )
        for split in open_splits(kind, [root], ReadingOptions(**options))
    ]


def kept_files(cache: Path) -> list[Path]:
    return sorted(cache.glob("*.records"))


@pytest.mark.parametrize("name", list(WRITERS))
def test_a_second_start_of_any_format_reads_nothing(name, tmp_path, readings, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    WRITERS[name][1](tmp_path / "data", {"train": drawings(4, 0), "test": drawings(2, 1)})
    first, told = facts_of(tmp_path / "data"), caplog.messages[:]
    assert readings
    readings.clear()
    caplog.clear()
    monkeypatch.setattr(datasets, "_find_reader", None)
    assert facts_of(tmp_path / "data") == first
    assert (readings, caplog.messages) == ([], told)


def change_an_annotation(root: Path) -> None:
    path = next(root.rglob("*val*.json"))
    path.write_text(path.read_text().replace("cone", "CONE"))


def change_an_annotation_within_its_time(root: Path) -> None:
    path = next(root.rglob("*val*.json"))
    before = path.stat()
    path.write_text(path.read_text().replace("cone", "CONE"))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def change_an_image(root: Path) -> None:
    path = next(root.rglob("*.jpg"))
    path.write_bytes(path.read_bytes() + b"\0")


def remove_an_image(root: Path) -> None:
    next(root.rglob("*.jpg")).unlink()


def add_an_image(root: Path) -> None:
    path = next(root.rglob("*.jpg"))
    shutil.copy(path, path.with_name("another.jpg"))


def rename_an_image(root: Path) -> None:
    path = next(root.rglob("*.jpg"))
    path.rename(path.with_name("another.jpg"))


def add_labels(root: Path) -> None:
    (root / "test").mkdir()


@pytest.mark.parametrize(
    "change",
    [
        *(change_an_annotation, change_an_annotation_within_its_time, change_an_image, remove_an_image, add_an_image),
        *(rename_an_image, add_labels),
    ],
)
def test_a_start_after_a_change_reads_again(root, readings, change):
    facts_of(root)
    change(root)
    readings.clear()
    changed = facts_of(root)
    assert readings
    assert changed == facts_of(root, cache=False)
    readings.clear()
    assert facts_of(root) == changed
    assert not readings


@pytest.mark.parametrize(
    "other",
    [{"val_split": 0.5}, {"labels_from_data": True}, {"include_depictions": True}, {"stratified": False}],
    ids=str,
)
def test_other_options_are_another_reading(root, readings, other):
    plain = facts_of(root)
    expected = facts_of(root, cache=False, **other)
    readings.clear()
    assert facts_of(root, **other) == expected
    assert readings
    assert facts_of(root) == plain


def test_what_is_asked_for_is_another_reading(root):
    train, validation = open_splits("coco", [root])
    assert all_facts(open_dataset("coco", root, "val").records) == all_facts(validation.records)
    assert all_facts(open_dataset("coco", root, "train").records) == all_facts(train.records)
    again = open_splits("coco", [root], validation_roots=[root])
    assert [len(split) for split in again] == [len(train), len(validation)]


def test_the_way_a_folder_is_named_stays_in_what_is_said(root, monkeypatch, readings):
    facts_of(root)
    monkeypatch.chdir(root.parent)
    assert open_splits("auto", ["data"]).train.source == Path("data/annotations/instances_train.json")
    monkeypatch.chdir(root)
    readings.clear()
    facts = facts_of(Path())
    assert readings
    readings.clear()
    assert facts_of(Path()) == facts
    assert not readings


def test_a_start_that_decodes_all_serves_one_that_does_not(root, readings):
    facts_of(root)
    decoded = facts_of(root, decode=True)
    assert len(readings) == 4
    assert facts_of(root) == decoded == facts_of(root, decode=True)
    assert len(readings) == 4


def test_facts_that_another_start_found_are_not_missed(root, readings):
    """What is known of files may say more than what was kept."""
    facts_of(root)
    readings.clear()
    for path in cache_jsons():
        path.write_text(path.read_text() + "\n")
    facts_of(root)
    assert readings


def cache_jsons() -> list[Path]:
    return sorted(file_cache.cache_folder().glob("*.json"))


def damage_by_cutting(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-300])


def damage_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def replace_by_another(path: Path) -> None:
    from vision.utils.array_file import write_arrays

    with open(path, "wb") as file:
        write_arrays(file, {}, {"of": "another program"})


@pytest.mark.parametrize("damage", [damage_by_cutting, damage_a_bit, empty, replace_by_another])
def test_a_damaged_file_is_made_again_in_silence(root, cache, readings, caplog, damage):
    caplog.set_level(logging.INFO)
    first = facts_of(root)
    (path,) = kept_files(cache)
    damage(path)
    caplog.clear()
    readings.clear()
    assert facts_of(root) == first
    assert readings
    assert all("looks like" in message for message in caplog.messages)
    readings.clear()
    assert facts_of(root) == first
    assert not readings


def test_another_version_reads_again(root, readings, monkeypatch):
    first = facts_of(root)
    readings.clear()
    monkeypatch.setattr(kept_readings, "VERSION", "another")
    assert facts_of(root) == first
    assert readings


def test_a_start_that_is_killed_while_it_writes_hurts_no_other(root, cache, readings, monkeypatch):
    def begin_to_write(file, arrays, about):
        file.write(b"arrays1\n")
        file.flush()
        os._exit(9)

    with monkeypatch.context() as patched:
        patched.setattr(kept_readings, "write_arrays", begin_to_write)
        process = multiprocessing.get_context("fork").Process(target=facts_of, args=(root,))
        process.start()
        process.join()
    assert process.exitcode == 9
    assert not kept_files(cache)
    assert len(list(cache.glob(".*.part"))) == 1
    first = facts_of(root)
    assert facts_of(root) == first
    assert len(kept_files(cache)) == 1
    assert not list(cache.glob(".*.part"))


def test_two_starts_at_once_are_both_right(root, cache, readings, monkeypatch):
    """A second start writes everything while the first is about to give its file a name."""
    replace, others = os.replace, []

    def replace_late(source, target):
        if str(target).endswith(".records") and not others:
            others.append(None)
            others[0] = facts_of(root)
        replace(source, target)

    monkeypatch.setattr(kept_readings.os, "replace", replace_late)
    first = facts_of(root)
    assert others == [first]
    readings.clear()
    assert facts_of(root) == first
    assert not readings


def test_a_file_that_another_start_replaces_stays_mapped(root):
    train = open_splits("coco", [root]).train
    before = all_facts(train.records)
    change_an_annotation(root)
    facts_of(root)
    assert all_facts(train.records) == before


def test_a_cache_folder_that_cannot_be_written_stops_nothing(root, cache, readings):
    cache.parent.mkdir()
    cache.write_text("a file where a folder should be")
    first = facts_of(root)
    readings.clear()
    assert facts_of(root) == first
    assert readings


def test_without_a_cache_nothing_is_kept(root, cache, readings):
    first = facts_of(root, cache=False)
    assert not cache.exists()
    facts_of(root)
    readings.clear()
    assert facts_of(root, cache=False) == first
    assert readings


def test_files_that_have_just_changed_are_not_believed(root, cache, monkeypatch):
    monkeypatch.setattr(file_cache, "_SETTLED_NS", 10**12)
    facts_of(root)
    assert not kept_files(cache)


def test_no_more_is_kept_than_allowed_and_the_latest_stays(root, cache, monkeypatch):
    monkeypatch.setattr(kept_readings, "_MOST_BYTES", 1)
    for share in (0.3, 0.4):
        facts_of(root, val_split=share)
    (path,) = kept_files(cache)
    os.utime(path, ns=(1, 1))
    monkeypatch.setattr(kept_readings, "_MOST_BYTES", 1 << 30)
    facts_of(root, val_split=0.4)
    assert path.stat().st_mtime_ns > 1
    assert [path] == kept_files(cache)


def test_a_file_that_cannot_be_read_is_tried_again(root, cache, monkeypatch):
    info, refused = folder.read_image_info, []

    def refuse_one(path):
        if not refused or path in refused:
            refused.append(path)
            raise OSError(5, "Input/output error")
        return info(path)

    monkeypatch.setattr(folder, "read_image_info", refuse_one)
    facts_of(root)
    assert refused
    assert not kept_files(cache)


def test_a_pipe_in_the_folder_hangs_nothing(root, readings):
    os.mkfifo(root / "pipe")
    first = facts_of(root)
    readings.clear()
    assert facts_of(root) == first
    assert not readings


def yolo(tmp_path: Path, **settings) -> Path:
    write_yolo(tmp_path / "data", {"train": drawings(4, 0), "val": drawings(2, 1)})
    path = tmp_path / "data" / "data.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | settings))
    return tmp_path / "data"


def test_a_folder_elsewhere_that_comes_to_be_is_noticed(tmp_path, readings):
    root = yolo(tmp_path, train="../elsewhere/images/train")
    first = facts_of(root)
    readings.clear()
    assert facts_of(root) == first
    assert not readings
    shutil.copytree(root / "images", tmp_path / "elsewhere" / "images")
    shutil.copytree(root / "labels", tmp_path / "elsewhere" / "labels")
    again = facts_of(root)
    assert readings
    assert again == facts_of(root, cache=False)


def test_a_folder_with_images_elsewhere_is_read_again(tmp_path, cache):
    root = yolo(tmp_path)
    elsewhere = tmp_path / "elsewhere"
    for kind in ("images", "labels"):
        shutil.move(root / kind / "train", elsewhere / kind / "train")
    path = root / "data.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | {"train": str(elsewhere / "images" / "train")}))
    assert facts_of(root) == facts_of(root, cache=False)
    assert not kept_files(cache)


def test_a_link_that_leads_to_another_folder_is_noticed(tmp_path):
    """Both folders come before the link, so that what is in them is looked at once, by their own names."""
    for name in ("first", "second"):
        (tmp_path / "data" / name).mkdir(parents=True)
        (tmp_path / "data" / name / "a.txt").write_text(name)
    link = tmp_path / "data" / "used"
    link.symlink_to("first")
    before = kept_readings._digest_of_files(tmp_path / "data")[0]
    assert kept_readings._digest_of_files(tmp_path / "data")[0] == before
    link.unlink()
    link.symlink_to("second")
    assert kept_readings._digest_of_files(tmp_path / "data")[0] != before

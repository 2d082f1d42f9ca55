"""What is remembered of files between runs, and when it is not believed."""

import json
import os

import pytest

from vision.datasets import ReadingOptions, file_cache, open_splits
from vision.datasets.file_cache import FileCache


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("one")
    return path


@pytest.fixture
def settled(monkeypatch):
    """Let files count as settled at once."""
    monkeypatch.setattr(file_cache, "_SETTLED_NS", -(10**12))


class Reader:
    def __init__(self):
        self.calls = 0

    def __call__(self, path):
        self.calls += 1
        return path.read_text()


def test_a_fact_is_read_once_in_a_run(file):
    cache, read = FileCache(), Reader()
    assert [cache.get("text", file, read) for _ in range(3)] == ["one"] * 3
    assert read.calls == 1
    assert cache.get("other kind", file, read) == "one"
    assert read.calls == 2


def test_a_fact_is_taken_again_by_the_next_run(file, tmp_path, settled):
    read = Reader()
    for _ in range(3):
        cache = FileCache(tmp_path / "kept" / "cache.json")
        assert cache.get("text", file, read) == "one"
        cache.save()
    assert read.calls == 1


def change_content(file):
    file.write_text("other")


def change_within_its_size(file):
    file.write_text("two")
    os.utime(file, ns=(1, 1))


def replace_by_one_as_old(file):
    """As `cp -p` and `rsync -t` do: size and time of change are those of before."""
    before = file.stat()
    other = file.with_name("other")
    other.write_text("two")
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    os.replace(other, file)


@pytest.mark.parametrize("change", [change_content, change_within_its_size, replace_by_one_as_old])
def test_a_changed_file_is_read_again(file, tmp_path, settled, change):
    read = Reader()
    cache = FileCache(tmp_path / "cache.json")
    cache.get("text", file, read)
    cache.save()
    change(file)
    assert FileCache(tmp_path / "cache.json").get("text", file, read) == file.read_text()
    assert read.calls == 2


def test_a_file_that_has_just_changed_is_not_believed_yet(file, tmp_path):
    read = Reader()
    for _ in range(2):
        cache = FileCache(tmp_path / "cache.json")
        cache.get("text", file, read)
        cache.save()
    assert read.calls == 2


@pytest.mark.parametrize("content", ["", "{", "[]", '{"version": -1, "files": {}}', '{"files": 3}'])
def test_what_cannot_be_read_is_forgotten(file, tmp_path, settled, content):
    path = tmp_path / "cache.json"
    path.write_text(content)
    cache = FileCache(path)
    assert cache.get("text", file, Reader()) == "one"
    cache.save()
    assert json.loads(path.read_text())["files"]


def test_a_cache_that_cannot_be_written_stops_nothing(file, tmp_path):
    (tmp_path / "blocked").write_text("a file where a folder should be")
    cache = FileCache(tmp_path / "blocked" / "cache.json")
    cache.get("text", file, Reader())
    cache.save()


def test_facts_of_files_that_are_gone_are_dropped_and_of_others_kept(file, tmp_path, settled):
    gone, other = tmp_path / "gone.txt", tmp_path / "other.txt"
    for path in (gone, other):
        path.write_text("x")
    cache = FileCache(tmp_path / "cache.json")
    for path in (file, gone, other):
        cache.get("text", path, Reader())
    cache.save()
    gone.unlink()
    again = FileCache(tmp_path / "cache.json")
    change_content(file)
    again.get("text", file, Reader())
    again.save()
    kept = json.loads((tmp_path / "cache.json").read_text())["files"]
    assert sorted(kept) == [f"text:{file}", f"text:{other}"]


def test_known_reads_nothing(file):
    cache = FileCache()
    assert cache.known("text", file) is None
    assert cache.known("text", file.with_name("none")) is None
    cache.get("text", file, Reader())
    assert cache.known("text", file) == "one"


def test_the_second_start_reads_no_file_again(own_voc, monkeypatch, settled):
    from vision.datasets import folder, voc_dataset

    def snapshot(options=None):
        return [
            (record.image_id, record.size, record.boxes.tolist(), record.names)
            for split in open_splits("voc", [own_voc], options)
            for record in split.records
        ]

    first = snapshot()

    def refuse(path):
        raise AssertionError(f"{path} is read again")

    monkeypatch.setattr(folder, "read_image_info", refuse)
    monkeypatch.setattr(voc_dataset, "parse_annotation", refuse)
    assert snapshot() == first
    with pytest.raises(AssertionError, match="is read again"):
        snapshot(ReadingOptions(cache=False))
    (own_voc / "Annotations" / "train_00000.xml").write_text("<annotation/>")
    with pytest.raises(AssertionError, match="train_00000.xml is read again"):
        snapshot()

"""Decoded images in memory: the same pixels, each file once, also between loader processes."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import assert_refused, train_argv

import train_ssd
from vision.datasets import image_cache, synthetic
from vision.datasets.image_cache import ImageCache, bytes_of, make_cache
from vision.datasets.images import read_image
from vision.datasets.loading import EpochBatches, end_workers, make_loader
from vision.datasets.records import Record
from vision.datasets.voc_dataset import VOCDataset
from vision.ssd.data_preprocessing import TestTransform, TrainAugmentation
from vision.ssd.weights import digest_of, read_weights
from vision.structures import DataError

MIB = 1 << 20

#: A folder that is not asked for.
NOWHERE = Path("nowhere")


@pytest.fixture
def dataset(tmp_path):
    """Six images of 120 x 80."""
    synthetic.write_voc(tmp_path / "voc", {"train": synthetic.drawings(6, 0, size=(120, 80))})
    return VOCDataset(tmp_path / "voc")


def test_the_same_pixels_and_each_file_once(dataset, monkeypatch):
    read, calls = Record.read, []
    monkeypatch.setattr(Record, "read", lambda *args: calls.append(args) or read(*args))
    dataset.repeat(2)
    cache = ImageCache(dataset.records)
    for _ in range(2):
        for index, record in enumerate(dataset.records):
            for reduction in (1, 4):
                expected = read_image(dataset.records[index].image_path, reduction=reduction)
                np.testing.assert_array_equal(cache.read(record, reduction), expected)
    assert len(calls) == 2 * 6
    with pytest.raises(ValueError, match="read-only"):
        cache.read(dataset.records[0])[0, 0, 0] = 1


def test_an_image_of_another_size_or_another_set_is_read_as_it_is(dataset):
    cache = ImageCache(dataset.records[:2])
    np.testing.assert_array_equal(cache.read(dataset.records[3]), dataset.get_image(3))
    shrunk = dataset.records[0]._replace(size=(60, 80))  # the file has changed since it was looked at
    assert ImageCache([shrunk]).read(shrunk).shape == (80, 120, 3)


def test_an_image_whose_size_has_changed_is_no_sample(dataset):
    shrunk = dataset.records[0]._replace(size=(60, 80))
    dataset.records = [shrunk, *dataset.records[1:]]
    (batch,) = make_loader(dataset, TestTransform(64), EpochBatches(6, 6, shuffle=False), 0)
    assert batch.notes[0].startswith(f"{shrunk.image_path}: is 120x80 now, was 60x80 when the run began")
    dataset.records = dataset.records[:1]
    with pytest.raises(DataError, match="is 120x80 now"):
        next(iter(make_loader(dataset, TestTransform(64), EpochBatches(1, 1, shuffle=False), 0)))


def test_pixels_that_are_half_written_are_not_taken(dataset):
    """Another process may have been killed in the middle of it."""
    cache, record = ImageCache(dataset.records), dataset.records[2]
    cache._checksums[2] = 12345
    np.testing.assert_array_equal(cache.read(record), dataset.get_image(2))
    cache._seen.clear()
    cache._pixels[2 * 3 * 120 * 80] ^= 255
    np.testing.assert_array_equal(cache.read(record), dataset.get_image(2))


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_the_same_and_files_are_read_in_the_first_epoch_only(dataset, workers):
    transform = TrainAugmentation(64, 127, 128.0, "light")  # at this size nothing is decoded at a fraction
    plain = make_loader(dataset, transform, EpochBatches(6, 2), workers)
    cached = make_loader(dataset, transform, EpochBatches(6, 2), workers, cache=ImageCache(dataset.records))
    expected = []
    for epoch in (0, 1):
        plain.batch_sampler.begin(epoch)
        expected.append(list(plain))
    end_workers(plain)
    for epoch in (0, 1):
        cached.batch_sampler.begin(epoch)
        for one, other in zip(cached, expected[epoch], strict=True):
            assert torch.equal(one.images, other.images)
            assert torch.equal(one.boxes, other.boxes)
            assert one.notes == ()
        for record in dataset.records:
            record.image_path.unlink(missing_ok=True)
    end_workers(cached)


@pytest.mark.parametrize(
    ("kind", "available", "kept", "said"),
    [
        ("off", 100 * MIB, False, "as asked"),
        ("auto", 100 * MIB, True, "kept in memory once decoded; decoded they take up to 0 MiB, 100 MiB are available"),
        ("auto", 0, False, "of which a quarter may be used"),
        ("ram", 1 * MIB, True, "kept in memory"),
        ("auto", None, False, "cannot be found out here (--cache-images=ram keeps them all the same)"),
        (
            "ram",
            None,
            True,
            "kept in memory once decoded; decoded they take up to 0 MiB, how much there is cannot",
        ),
    ],
)
def test_what_is_kept_goes_by_memory(dataset, monkeypatch, kind, available, kept, said):
    monkeypatch.setattr(image_cache, "available_memory", lambda: available)
    cache, why = make_cache(kind, dataset.records, 2, NOWHERE)
    assert (cache is not None) == kept
    assert said in why


def test_several_processes_share_the_memory_there_is(dataset, monkeypatch):
    assert (
        bytes_of(dataset.records.repeated(2))
        == bytes_of(dataset.records)
        == 6 * 3 * (120 * 80 + 60 * 40 + 30 * 20 + 15 * 10)
    )
    monkeypatch.setattr(image_cache, "available_memory", lambda: 4 * 3 * bytes_of(dataset.records))
    assert make_cache("auto", dataset.records, 0, NOWHERE, processes=3)[0] is not None
    assert make_cache("auto", dataset.records, 0, NOWHERE, processes=4)[0] is None


def test_what_cannot_be_kept(dataset, monkeypatch):
    monkeypatch.setattr(image_cache, "available_memory", lambda: 100)
    with pytest.raises(DataError, match="--cache-images=ram: decoded they take .* use --cache-images=disk or off"):
        make_cache("ram", dataset.records, 0, NOWHERE)
    monkeypatch.setattr(image_cache, "available_memory", lambda: 100 * MIB)
    monkeypatch.setattr(image_cache.multiprocessing, "get_all_start_methods", lambda: ["spawn"])
    assert make_cache("auto", dataset.records, 0, NOWHERE)[0] is not None
    assert make_cache("auto", dataset.records, 2, NOWHERE)[0] is None
    for kind in ("ram", "disk"):
        with pytest.raises(DataError, match=f"--cache-images={kind}: loader processes cannot share memory here"):
            make_cache(kind, dataset.records, 2, NOWHERE)


def test_a_disk_that_cannot_keep_them(dataset, tmp_path, monkeypatch):
    is_file = tmp_path / "file"
    is_file.touch()
    with pytest.raises(
        DataError, match="--cache-images=disk: decoded they take up to 0 MiB, .*file.*; use --cache-images=off"
    ):
        make_cache("disk", dataset.records, 0, is_file)

    def full(*args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(DataError, match="No space left on device; use --cache-images=off"):
        make_cache("disk", dataset.records, 0, tmp_path)


@pytest.mark.parametrize("reserves", [True, False])
def test_a_file_on_disk_has_room_for_all_and_no_name(dataset, tmp_path, monkeypatch, reserves):
    if not reserves:
        monkeypatch.delattr(os, "posix_fallocate")
    cache, why = make_cache("disk", dataset.records, 2, tmp_path / "run")
    assert why == f"images: kept on disk once decoded; decoded they take up to 0 MiB in {tmp_path / 'run'}"
    assert list((tmp_path / "run").iterdir()) == []
    files = [line for line in Path("/proc/self/maps").read_text().splitlines() if str(tmp_path / "run") in line]
    assert len(files) == 1
    np.testing.assert_array_equal(cache.read(dataset.records[5]), dataset.get_image(5))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_run_is_the_same_with_and_without(script, voc_root, tmp_path, workers):
    files = {}
    for kind in ("ram", "disk", "off"):
        argv = (f"--cache-images={kind}", "--epochs=2", "--batch-size=3", f"--workers={workers}", "--seed=1")
        done = script(train_ssd.main, *train_argv(voc_root, tmp_path / kind, *argv))
        assert (done.code, done.err) == (0, "")
        assert ("kept in memory once decoded" in done.out) == (kind == "ram")
        assert ("kept on disk once decoded" in done.out) == (kind == "disk")
        files[kind] = digest_of(read_weights(tmp_path / kind / "last.pth"))
    assert files["ram"] == files["disk"] == files["off"]
    assert_refused(
        script(train_ssd.main, *train_argv(voc_root, tmp_path, "--cache-images=tape")), "--cache-images", "tape"
    )

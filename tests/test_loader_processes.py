"""Loader processes that cannot hand their batches over, are blocked, or cannot be started: nothing hangs, nothing is lost."""

import ctypes
import multiprocessing
import os
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import pytest
import torch
from conftest import train_argv, write_small_voc
from test_distributed import Scripted, batch_with

import train_ssd
from vision.datasets import batch_loader, loading
from vision.datasets.loading import EpochBatches, end_workers, make_loader
from vision.datasets.voc_dataset import VOCDataset
from vision.engine import checkpoint
from vision.engine.distributed import DistributedStopSignal
from vision.engine.faults import LoaderSettings, StopRequested, StopSignal, reduced_settings
from vision.ssd.data_preprocessing import TestTransform
from vision.ssd.weights import read_weights
from vision.structures import LoaderProcessError, LoaderProcessesSilent

ARGV = ("--resolution=48", "--batch-size=3", "--no-validation-mean-ap", "--epochs=1", "--debug-steps=1")


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Nine images to train on: three steps an epoch."""
    return write_small_voc(tmp_path_factory.mktemp("nine"), 9, 2)


@pytest.fixture(scope="module")
def dataset(data) -> VOCDataset:
    return VOCDataset(data)


@pytest.fixture
def loader_of(dataset):
    """Make a loader whose processes end with the test; its tensors are as large as those of real images."""
    loaders = []

    def make(workers: int, **options):
        loaders.append(make_loader(dataset, TestTransform(160), EpochBatches(9, 3, shuffle=False), workers, **options))
        return loaders[-1]

    yield make
    for loader in loaders:
        end_workers(loader)
    assert not multiprocessing.active_children()


def assert_the_same_batches(found, expected) -> None:
    for one, other in zip(found, expected, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one[:3], other[:3], strict=True))
        assert one[3:] == other[3:]


# Handing over.


def test_batches_go_through_shared_memory_where_it_has_room(loader_of, caplog):
    assert_the_same_batches(loader_of(1), loader_of(0))
    shared, plain = (next(iter(loader)) for loader in (loader_of(1), loader_of(0)))
    assert shared.images.is_shared() and not shared.boxes.is_shared() and not plain.images.is_shared()
    assert not caplog.records


def test_without_room_in_shared_memory_they_go_through_pipes_which_is_said_once(loader_of, monkeypatch, caplog):
    monkeypatch.setattr(batch_loader, "_LEFT_SHARE", 2.0)  # nothing may be taken
    monkeypatch.setattr(batch_loader, "_LEFT_MOST", float("inf"))
    told = set()
    for _ in range(2):
        loader = loader_of(2, told=told)
        assert_the_same_batches(loader, loader_of(0))
        assert not next(iter(loader)).images.is_shared()
    (message,) = caplog.messages
    assert "/dev/shm: " in message and "--shm-size=2g" in message and "too little for another batch" in message


def test_a_temporary_folder_too_deep_for_sockets_does_not_lose_a_batch(loader_of, monkeypatch, caplog, tmp_path, capfd):
    deep = tmp_path / ("x" * 120)
    deep.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(deep))
    monkeypatch.delitem(multiprocessing.process.current_process()._config, "tempdir", raising=False)
    assert_the_same_batches(loader_of(1), loader_of(0))
    (message,) = caplog.messages
    assert f"TMPDIR={deep}: too long for the path of a socket" in message
    assert "Traceback" not in capfd.readouterr().err


def try_in_little_memory(size: str, data: Path, answers) -> None:
    """In a process of its own: give it little shared memory, and tell how batches of 0.9 MiB come."""
    commands = (["mount", "--make-rprivate", "/"], ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", "/dev/shm"])
    new_mounts = 0x20000
    if ctypes.CDLL(None).unshare(new_mounts) or any(subprocess.run(command).returncode for command in commands):
        answers.send(None)
        return
    told = set()
    order = EpochBatches(9, 3, shuffle=False)
    loader = make_loader(VOCDataset(data), TestTransform(320), order, 2, told=told)
    try:
        answers.send(([batch.indices for batch in loader], *told))
    except LoaderProcessError as err:
        answers.send((str(err),))
    end_workers(loader)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs to mount little shared memory")
@pytest.mark.parametrize("size", ["1m", "64k"])
def test_little_shared_memory(data, size, capfd):
    answers, theirs = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("fork").Process(target=try_in_little_memory, args=(size, data, theirs))
    process.start()
    theirs.close()
    answer = answers.recv()
    process.join()
    if answer is None:
        pytest.skip("mounting is not allowed here")
    assert process.exitcode == 0
    assert "Traceback" not in capfd.readouterr().err
    if size == "1m":
        assert answer[0] == [(0, 1, 2), (3, 4, 5), (6, 7, 8)]
        assert "too little for another batch of 0.9 MiB" in answer[1]
    else:
        assert answer == (
            "/dev/shm: 65536 bytes are too few for loader processes; in Docker --shm-size=2g gives it more",
        )
    assert "/dev/shm" in answer[-1] and "--shm-size" in answer[-1]


def test_processes_that_cannot_be_started_are_done_without_in_training_and_dry_runs(
    script, data, tmp_path, monkeypatch
):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(multiprocessing.synchronize.SemLock, "__init__", full)
    for more in ((), ("--dry-run",)):
        done = script(train_ssd.main, *train_argv(data, tmp_path, *ARGV, "--workers=2", *more))
        assert (done.code, done.err) == (0, "")
        (line,) = (line for line in done.out.splitlines() if "--shm-size" in line)
        assert "loader processes cannot be started" in line
        assert "going on at epoch 0, step 0 with batches of 3, 1 of them a step, and 0 loader processes" in line


# Silence.


def stop_processes(loader) -> None:
    for worker in loader._iterator._workers:
        os.kill(worker.pid, signal.SIGSTOP)


def take_till_blocked(batches) -> None:
    for _ in range(9):
        next(batches)


def test_processes_that_neither_give_nor_compute_are_noticed(loader_of, monkeypatch):
    monkeypatch.setattr(batch_loader, "_LOOK", 0.2)
    loader = loader_of(2)
    batches = iter(loader)
    stop_processes(loader)
    with pytest.raises(LoaderProcessesSilent, match="given and computed nothing for 0 seconds"):
        take_till_blocked(batches)
    end_workers(loader)
    assert not multiprocessing.active_children(), "stopped ones end as well"


def test_they_are_waited_for_where_that_is_wanted(loader_of, monkeypatch, caplog):
    monkeypatch.setattr(batch_loader, "_LOOK", 0.1)
    loader = loader_of(1, waits=True)
    batches = iter(loader)
    stop_processes(loader)

    def wake(*_):
        for worker in loader._iterator._workers:
            os.kill(worker.pid, signal.SIGCONT)

    monkeypatch.setattr(batch_loader.logger, "warning", wake)
    assert len(list(batches)) == 3


def test_a_process_that_computes_is_not_silent(monkeypatch):
    clock, ticks = iter([0.0, 10.0, 20.0, 40.0]), iter([1.0, 1.5, 1.5, 1.6])
    monkeypatch.setattr(batch_loader.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(batch_loader, "_cpu_seconds", lambda pids: next(ticks))
    silence = batch_loader._Silence([1], waits=False)
    silence.look()
    silence.look()  # a twentieth of the time
    with pytest.raises(LoaderProcessesSilent, match="for 10 seconds"):
        silence.look()
    silence.end()
    silence.look()


def test_the_time_that_processes_compute_is_read():
    before = batch_loader._cpu_seconds([os.getpid()])
    until = time.process_time() + 0.05
    while time.process_time() < until:
        pass
    assert 0.02 <= batch_loader._cpu_seconds([os.getpid()]) - before < 1
    assert batch_loader._cpu_seconds([2**22 + 1]) is None


def test_what_helps_against_silence_and_lost_processes():
    assert reduced_settings(LoaderProcessesSilent("x"), LoaderSettings(8, 1, 2)) == LoaderSettings(8, 1, 2, True)
    assert reduced_settings(LoaderProcessError("x"), LoaderSettings(8, 1, 2)) == LoaderSettings(8, 1, 0)


def test_a_run_replaces_silent_processes_and_loses_nothing(script, data, tmp_path, monkeypatch):
    argv = train_argv(data, tmp_path / "whole", *ARGV)
    assert script(train_ssd.main, *argv).code == 0
    monkeypatch.setattr(batch_loader, "_LOOK", 0.2)
    real, stopped = batch_loader.BatchLoader._watched, []

    def watched(loader, iterator):
        if not stopped:
            stopped.append(loader)
            stop_processes(loader)
        return real(loader, iterator)

    monkeypatch.setattr(batch_loader.BatchLoader, "_watched", watched)
    done = script(train_ssd.main, *train_argv(data, tmp_path / "m", *ARGV, "--workers=2"))
    assert (done.code, done.err) == (0, "")
    assert "starting new ones" in done.out.lower() and "and 2 loader processes" in done.out
    whole, found = (read_weights(tmp_path / name / "last.pth") for name in ("whole", "m"))
    assert all(torch.equal(value, found[key]) for key, value in whole.items())


# Signals.


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_signal_saves_though_the_reading_is_blocked(script, data, tmp_path, monkeypatch, workers, number):
    main, real = os.getpid(), loading._Samples._image

    def blocked(samples, record, reduction):
        if record.image_path.stem.endswith("4"):
            os.kill(main, number)
            time.sleep(1000)
        return real(samples, record, reduction)

    argv = train_argv(data, tmp_path, *ARGV, f"--workers={workers}", "--cache-images=off")
    with monkeypatch.context() as patch:
        patch.setattr(loading._Samples, "_image", blocked)
        done = script(train_ssd.main, *argv)
    assert done.code == 128 + number, done.err
    assert f"{number.name}: saving; once more" in done.out or f"{number.name}: finishing the step" in done.out
    assert "go on with: " in done.out
    assert checkpoint.load_state(tmp_path / "last.state").progress.epoch == 0
    assert not multiprocessing.active_children()
    assert script(train_ssd.main, *argv, "--resume").code == 0


def blocked_at_the_second():
    yield batch_with("one")
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(1000)


def test_a_signal_is_heeded_within_the_wait_for_a_batch():
    with StopSignal() as stop:
        batches = stop.check_between(blocked_at_the_second())
        assert next(batches).notes == ("one",)
        with pytest.raises(StopRequested):
            next(batches)
    assert stop.exit_code == 143


def test_a_signal_before_the_wait_for_a_batch_is_heeded_in_it():
    with StopSignal() as stop:
        batches = stop.check_between([batch_with(), batch_with()])
        next(batches)
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(StopRequested):
            next(batches)


def test_of_several_processes_one_that_waits_tells_the_others():
    class Items:
        def __len__(self):
            return 2

        def __iter__(self):
            return blocked_at_the_second()

    process = Scripted(2, (None, ()), (None, ()))
    with DistributedStopSignal(process) as stop:
        batches = stop.check_between(Items())
        next(batches)
        with pytest.raises(StopRequested):
            next(batches)
    assert not process.others, "took part in what the others wait in"
    assert stop.exit_code == 143

"""Runs that are stopped, killed, starved and disturbed: they go on, and end where an undisturbed run ends."""

import csv
import json
import math
import multiprocessing
import os
import re
import shlex
import signal
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import CLASSES, ROOT, assert_refused, train_argv, write_small_voc
from runs_in_parts import run_of
from train_steps import SIZE, freeze_norms, join_batches, train_step_on

import train_ssd
from vision.datasets.loading import EpochBatches, make_loader
from vision.datasets.voc_dataset import VOCDataset
from vision.engine import checkpoint, execution, loop, resume, schedule, trainer
from vision.engine.dry_run import dry_run
from vision.engine.faults import LoaderSettings, StopSignal, reduced_settings
from vision.engine.model_ema import ModelEma
from vision.engine.precision import Precision, choose_precision
from vision.engine.process import SingleProcess
from vision.engine.run import Run
from vision.engine.step import TrainingModel, TrainStep
from vision.nn.multibox_loss import MultiboxLoss
from vision.options.training import Options, ScheduleOptions
from vision.ssd.data_preprocessing import TestTransform
from vision.ssd.description import Results
from vision.ssd.models import MODELS, describe_weights
from vision.ssd.weights import read_weights
from vision.structures import Batch

#: Small, as 16 bits are slow where they are emulated.
ARGV = (
    "--resolution=48",
    "--batch-size=3",
    "--no-validation-mean-ap",
    "--epochs=3",
    "--checkpoint-steps=1",
    "--debug-steps=1",
)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Nine images to train on: three steps an epoch."""
    return write_small_voc(tmp_path_factory.mktemp("nine"), 9, 2)


@pytest.fixture(scope="module", params=["off", "bf16"])
def amp(request) -> str:
    """Each precision that a CPU knows, whichever is fast on this one."""
    return f"--amp={request.param}"


@pytest.fixture(scope="module")
def whole(data, amp, tmp_path_factory) -> dict:
    """The weights after an undisturbed run."""
    folder = tmp_path_factory.mktemp("whole")
    train_ssd.main(list(train_argv(data, folder, *ARGV, amp)))
    return read_weights(folder / "last.pth")


def assert_same(weights: dict, folder: Path) -> None:
    found = read_weights(folder / "last.pth")
    assert all(torch.equal(value, found[key]) for key, value in weights.items())


@contextmanager
def after_step(at: int, act):
    """Call something when so many steps have been taken; gives the list of steps taken."""
    taken = []
    with pytest.MonkeyPatch.context() as patch:
        step = TrainStep.step

        def watched(*args):
            losses = step(*args)
            taken.append(1)
            if len(taken) == at:
                act()
            return losses

        patch.setattr(TrainStep, "step", watched)
        yield taken


def signal_after_step(at: int, number: int):
    return after_step(at, lambda: os.kill(os.getpid(), number))


# Determinism.


@pytest.mark.parametrize("workers", [0, 2])
def test_the_same_seed_gives_the_same_bits_whatever_the_workers(script, data, amp, whole, tmp_path, workers):
    for _ in range(2 if workers else 1):
        done = script(train_ssd.main, *train_argv(data, tmp_path, *ARGV, amp, f"--workers={workers}"))
        assert done.code == 0, done.err
        assert_same(whole, tmp_path)


@pytest.mark.parametrize(
    ("amp", "stop_after", "workers"),
    [("off", 1, 0), ("off", 3, 0), ("off", 4, 0), ("off", 8, 0), ("off", 4, 2), ("bf16", 3, 0), ("bf16", 4, 2)],
    indirect=["amp"],  # where a run stops and in which precision have nothing to do with each other
)
def test_a_run_stopped_anywhere_goes_on_to_the_same_bits(script, data, amp, whole, tmp_path, workers, stop_after):
    argv = train_argv(data, tmp_path, *ARGV, amp, f"--workers={workers}")
    with signal_after_step(stop_after, signal.SIGTERM) as taken:
        done = script(train_ssd.main, *argv)
    assert done.code == 143
    assert "SIGTERM: finishing the step and saving" in done.out
    assert re.search(r"go on with: python3 \S+ .*--resume$", done.out.strip().splitlines()[-1])
    assert len(taken) == stop_after
    done = script(train_ssd.main, *argv, "--resume")
    assert done.code == 0, done.err
    assert f"epoch {stop_after // 3} goes on after step {stop_after % 3}" in done.out or stop_after % 3 == 0
    assert_same(whole, tmp_path)


@pytest.mark.parametrize("amp", ["off"], indirect=True)
def test_steps_are_not_repeated_and_losses_are_those_of_the_whole_run(script, data, amp, tmp_path):
    def lines(out):
        """Lines with losses; the pace at the end of those of steps depends on the machine."""
        return re.findall(r"Epoch: \d, (?:Step: .*(?=, \S+ images/s)|Training Loss: .*|Validation Loss: .*)", out)

    undisturbed = lines(script(train_ssd.main, *train_argv(data, tmp_path / "a", *ARGV, amp)).out)
    argv = train_argv(data, tmp_path / "b", *ARGV, amp)
    with signal_after_step(5, signal.SIGINT):
        first = script(train_ssd.main, *argv)
    assert first.code == 130
    second = script(train_ssd.main, *argv, "--resume")
    assert lines(first.out) + lines(second.out) == undisturbed


@pytest.mark.parametrize("amp", ["off"], indirect=True)
def test_stopping_while_validating_is_quick_and_loses_nothing(script, data, amp, whole, tmp_path, monkeypatch):
    argv = train_argv(data, tmp_path, *ARGV, amp)
    real = loop.validate

    def interrupted(*args, **rest):
        os.kill(os.getpid(), signal.SIGTERM)
        return real(*args, **rest)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "validate", interrupted)
        assert script(train_ssd.main, *argv).code == 143
    assert not list(tmp_path.glob("*.pth"))
    assert script(train_ssd.main, *argv, "--resume").code == 0
    assert_same(whole, tmp_path)


def test_resume_within_an_epoch_of_other_images_begins_it_anew(script, data, tmp_path):
    with signal_after_step(1, signal.SIGTERM):
        script(train_ssd.main, *train_argv(data, tmp_path, *ARGV))
    done = script(train_ssd.main, *train_argv(data, tmp_path, *ARGV), "--batch-size=2", "--resume")
    assert done.code == 0
    assert (
        "stopped in the middle of epoch 0, with other images a step, batches an epoch: that epoch starts over"
        in done.out
    )


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["--data=x"], ["--data=x", "--resume"]),
        (["--resume", "--data=x"], ["--data=x", "--resume"]),
        (["--resume=models/a b", "--data", "x"], ["--data", "x", "--resume"]),
        (["--resume", "models/a", "--data", "x y"], ["--data", "x y", "--resume"]),
        (["--auto-resume", "--data=x"], ["--auto-resume", "--data=x"]),
        (["--data=x", "--auto_resume"], ["--data=x", "--auto_resume"]),
    ],
)
def test_the_command_that_goes_on_is_one_that_can_be_given(argv, expected):
    auto_resume = train_ssd.parse_args(argv).auto_resume
    command = shlex.split(resume.resume_command("python3 train_ssd.py", argv, auto_resume=auto_resume))
    assert command[:2] == ["python3", "train_ssd.py"]
    assert command[2:] == expected
    train_ssd.parse_args(command[2:])


# Kills.


def start(data, folder, *more):
    argv = [sys.executable, str(ROOT / "train_ssd.py"), *train_argv(data, folder, *ARGV, *more)]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT)


@pytest.mark.parametrize(("amp", "number"), [("off", "SIGKILL"), ("bf16", "SIGTERM")], indirect=["amp"])
def test_a_run_that_is_killed_ends_with_the_same_bits(data, amp, whole, tmp_path, number):
    """Twice in float32; once in 16 bits, which are slow where they are emulated."""
    for step in ("Epoch: 0, Step: 2", "Epoch: 2, Step: 1")["bf16" in amp :]:
        with start(data, tmp_path, amp, "--auto-resume") as process:
            for line in process.stdout:
                if step in line:
                    process.send_signal(getattr(signal, number))
                    break
            process.stdout.read()
        assert process.returncode == (-signal.SIGKILL if number == "SIGKILL" else 143)
    with start(data, tmp_path, amp, "--auto-resume") as process:
        out = process.stdout.read()
    assert process.returncode == 0, out
    assert "Epoch: 0" not in out
    assert_same(whole, tmp_path)
    assert not list(tmp_path.glob(".*.part")) or number == "SIGKILL"


# Faults.


@pytest.mark.parametrize("amp", ["off"], indirect=True)
def test_a_loader_process_that_dies_is_done_without(script, data, amp, whole, tmp_path):
    def kill_workers():
        for child in multiprocessing.active_children():
            os.kill(child.pid, signal.SIGKILL)
            child.join()

    with after_step(1, kill_workers):
        done = script(train_ssd.main, *train_argv(data, tmp_path, *ARGV, amp, "--workers=1"))
    assert done.code == 0, done.err
    assert "DataLoader worker" in done.out
    assert "with batches of 3, 1 of them a step, and 0 loader processes" in done.out
    assert_same(whole, tmp_path)


def test_out_of_memory_is_answered_by_smaller_batches(script, data, tmp_path, monkeypatch):
    real = TrainingModel.forward

    def hungry(model, batch, *rest):
        if model.training and len(batch.images) > 3:  # more than the last batch, which takes a single image in
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return real(model, batch, *rest)

    monkeypatch.setattr(TrainingModel, "forward", hungry)
    argv = train_argv(data, tmp_path, "--epochs=1", "--batch-size=4", "--debug-steps=1")
    done = script(train_ssd.main, *argv)
    assert done.code == 0, done.err
    assert "CUDA out of memory" in done.out
    assert "going on at epoch 0, step 0 with batches of 2, 2 of them a step" in done.out
    assert "Step: 2/2" in done.out, "nine images are as many steps as before, the last batch joined"


@pytest.mark.parametrize(
    ("err", "settings", "expected"),
    [
        (torch.cuda.OutOfMemoryError("x"), LoaderSettings(8, 1, 2), LoaderSettings(4, 2, 2)),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), LoaderSettings(4, 2, 2), LoaderSettings(2, 4, 2)),
        (
            RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)"),
            LoaderSettings(30, 1, 2),
            LoaderSettings(15, 2, 2),
        ),
        (RuntimeError("CUDA error: out of memory"), LoaderSettings(15, 2, 2), LoaderSettings(5, 6, 2)),
        (MemoryError(), LoaderSettings(7, 1, 2), LoaderSettings(7, 1, 0)),
        (MemoryError(), LoaderSettings(2, 1, 2), LoaderSettings(2, 1, 0)),
        (OSError(12, "Cannot allocate memory"), LoaderSettings(3, 1, 1), LoaderSettings(3, 1, 0)),
        (
            RuntimeError("DataLoader worker (pid 3) is killed by signal"),
            LoaderSettings(8, 1, 2),
            LoaderSettings(8, 1, 0),
        ),
        (MemoryError(), LoaderSettings(2, 1, 0), None),
        (RuntimeError("DataLoader worker (pid 3) is killed by signal"), LoaderSettings(8, 1, 0), None),
        (RuntimeError("shapes"), LoaderSettings(8, 1, 2), None),
        (OSError(28, "No space left on device"), LoaderSettings(8, 1, 2), None),
    ],
)
def test_what_helps(err, settings, expected):
    assert reduced_settings(err, settings) == expected


def test_losses_that_are_not_finite_leave_the_step_out_and_name_the_images(script, data, tmp_path, monkeypatch):
    real = MultiboxLoss.forward
    calls = []

    def sometimes(self, confidence, *args):
        calls.append(1)
        return real(self, confidence * (float("nan") if len(calls) == 2 else 1), *args)

    monkeypatch.setattr(MultiboxLoss, "forward", sometimes)
    done = script(train_ssd.main, *train_argv(data, tmp_path, "--epochs=1", "--batch-size=3"))
    assert done.code == 0, done.err
    line = re.search(r"the loss is not finite at epoch 0, step 2/3: step left out; its images: (.*)", done.out)
    assert len(line[1].split(", ")) == 3
    assert all(name.startswith("train_0000") for name in line[1].split(", "))
    assert "Epoch: 0, 1 steps left out" in done.out
    assert all(torch.isfinite(value).all() for value in read_weights(tmp_path / "last.pth").values())


def test_a_step_that_is_left_out_changes_nothing(data):
    train_step, batches = train_step_on(data)
    train_step.train()
    before = {key: value.clone() for key, value in train_step.net.state_dict().items()}
    images = batches[0].images
    bad = batches[0]._replace(boxes=torch.full_like(batches[0].boxes, float("nan")))
    assert train_step.step([bad], 0, 3) is None
    after = train_step.net.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert train_step.step([batches[0]._replace(images=images)], 0, 3) is not None
    assert not all(torch.equal(before[key], after[key]) for key in before)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs to mount a small disk")
def test_a_full_disk_leaves_the_state_before(data, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=60m", "none", disk], check=False).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        with start(data, disk, "--epochs=20") as process:
            out = process.stdout.read()
        assert process.returncode == 2, out
        assert "no space left on the disk; what was there before is whole" in out.strip().splitlines()[-1]
        state = checkpoint.load_state(disk / "last.state")
        assert state.progress.epoch >= 0
    finally:
        subprocess.run(["umount", disk], check=True)


def test_a_state_that_is_cut_off_is_named_and_the_way_out(script, data, tmp_path):
    script(train_ssd.main, *train_argv(data, tmp_path, "--epochs=1"))
    content = (tmp_path / "last.state").read_bytes()
    (tmp_path / "last.state").write_bytes(content[: len(content) // 2])
    done = script(train_ssd.main, *train_argv(data, tmp_path, "--resume"))
    assert_refused(done, "last.state: cannot be read as the state of a run", "resume from", "last.pth instead")
    done = script(train_ssd.main, *train_argv(data, tmp_path, f"--resume={tmp_path / 'best.pth'}", "--epochs=1"))
    assert (done.code, done.err) == (0, "")
    assert "last.state: cannot be read" in done.out
    assert "weights only, no optimizer state of that epoch was found; starting at epoch 0" in done.out


# Steps.


def test_validation_is_of_the_set_whatever_the_batches_and_parts(data):
    train_step, batches = train_step_on(data)
    annotations = [VOCDataset(data, is_test=False).annotation(index) for index in range(9)]
    whole = loop.validate(train_step.model, [join_batches(batches)], annotations)
    in_three = loop.validate(train_step.model, batches, annotations)
    parts = [loop.validate(train_step.model, batches[place::2], annotations) for place in (0, 1)]
    assert math.isfinite(whole.losses.total)
    for other in (in_three, loop.ValidationSums.merge(parts[::-1])):
        assert other.losses == pytest.approx(whole.losses, rel=1e-5)
        assert sorted(other.detections) == list(range(9))
        for index, found in whole.detections.items():
            torch.testing.assert_close(other.detections[index].scores, found.scores)
    assert math.isnan(loop.ValidationSums().losses.total)


def test_accumulated_batches_are_one_large_batch(data):
    results = []
    for together in (False, True):
        train_step, batches = train_step_on(data)
        train_step.train()
        freeze_norms(train_step)
        losses = train_step.step([join_batches(batches)] if together else batches, 5, 3)
        results.append((losses, train_step.net.state_dict()))
    (one, one_net), (other, other_net) = results
    torch.testing.assert_close(one.total, other.total, rtol=1e-5, atol=1e-6)
    for key in one_net:
        torch.testing.assert_close(one_net[key], other_net[key], rtol=1e-4, atol=1e-6)


def test_an_average_that_begins_on_resume_begins_with_the_weights(data, caplog):
    train_step, batches = train_step_on(data)
    train_step.train()
    train_step.step(batches, 5, 3)
    state = train_step.state_dict()
    other, _ = train_step_on(data)
    other = TrainStep(other.model, other.optimizer, other.options, average=ModelEma(other.net))
    other.average.updates = 7
    with caplog.at_level("WARNING"):
        other.load_state_dict(state)
    assert "--ema: the run to go on with had none, averaging begins with its weights" in caplog.text
    assert other.average.updates == 0
    assert all(torch.equal(value, state["weights"][key]) for key, value in other.average.net.state_dict().items())


@pytest.mark.parametrize(("seconds_of_the_other", "steps"), [(0.0, 3), (1e9, 1)])
def test_a_dry_run_ends_by_the_clocks_of_all(data, monkeypatch, seconds_of_the_other, steps):
    """All processes must take as many steps; else they would wait for each other for ever."""
    monkeypatch.setattr("vision.engine.dry_run._SECONDS", 1e6)  # however slow this machine is
    train_step, _ = train_step_on(data)
    loader = make_loader(VOCDataset(data), TestTransform(SIZE), EpochBatches(9, 3), 0)
    annotations = [VOCDataset(data, is_test=True).annotation(index) for index in range(2)]
    validation = make_loader(VOCDataset(data, is_test=True), TestTransform(SIZE), EpochBatches(2, 2, shuffle=False), 0)

    class WithAnother(SingleProcess):
        def all_gather(self, value):
            return [value, seconds_of_the_other] if isinstance(value, float) else [value]

    with after_step(0, None) as taken:
        found = dry_run(run_of(train_step, annotations, WithAnother()), loader, validation)
    assert len(taken) == steps
    assert math.isfinite(found.validation.total)


def test_accumulation_counts_steps(script, data, tmp_path):
    argv = train_argv(data, tmp_path, "--epochs=1", "--batch-size=2", "--accumulate=2", "--debug-steps=1")
    done = script(train_ssd.main, *argv)
    assert re.findall(r"Step: (\d/\d)", done.out) == ["1/2", "2/2"], "four batches, the last of three"


def test_gradients_are_clipped(data):
    norms = []
    for limit in (None, 0.5):
        train_step, batches = train_step_on(data, clip_grad=limit)
        train_step.train()
        train_step.step(batches[:1], 5, 3)
        gradients = [p.grad.norm() for p in train_step.net.parameters() if p.grad is not None]
        norms.append(torch.stack(gradients).norm().item())
    assert norms[0] > 1
    assert norms[1] == pytest.approx(0.5, rel=1e-3)


@pytest.mark.parametrize(("name", "kind"), [("sgd", "SGD"), ("adam", "Adam"), ("adamw", "AdamW")])
def test_optimizers(data, name, kind):
    train_step, batches = train_step_on(data, optimizer=name, lr=1e-3)
    assert type(train_step.optimizer).__name__ == kind
    train_step.train()
    first = train_step.step(batches, 5, 3).total.item()
    for _ in range(8):
        last = train_step.step(batches, 5, 3).total.item()
    assert last < first
    state = train_step.state_dict()
    if name != "sgd":
        other, _ = train_step_on(data)
        with pytest.raises(ValueError, match="had another --optimizer"):
            other.load_state_dict(state)


def test_biases_and_norms_may_be_kept_from_decaying(data):
    train_step, _ = train_step_on(data, bias_decay=False, weight_decay=0.1)
    decays = {id(p): group["weight_decay"] for group in train_step.optimizer.param_groups for p in group["params"]}
    for name, parameter in train_step.net.named_parameters():
        assert decays[id(parameter)] == (0.1 if parameter.ndim > 1 else 0.0), name
    assert len(decays) == len(list(train_step.net.parameters()))


# Averages and precision.


def test_the_average_is_validated_saved_and_resumed(script, data, tmp_path):
    argv = train_argv(data, tmp_path, *ARGV, "--ema")
    assert script(train_ssd.main, *argv).code == 0
    state = checkpoint.load_state(tmp_path / "last.state")
    saved = read_weights(tmp_path / "last.pth")
    key = "extras.0.0.weight"
    assert torch.equal(saved[key], state.training["average"]["weights"][key])
    assert not torch.equal(saved[key], state.training["weights"][key])
    assert state.training["average"]["updates"] == 9
    done = script(train_ssd.main, *argv, "--epochs=4", "--resume")
    assert done.code == 0
    assert checkpoint.load_state(tmp_path / "last.state").training["average"]["updates"] == 12


def test_the_average_follows_the_formula():
    net = MODELS["mb1-ssd-lite"].build(2)
    average = ModelEma(net)
    key = "extras.0.0.bias"
    expected = net.state_dict()[key].clone().double()
    for step in range(1, 4):
        with torch.no_grad():
            net.state_dict()[key].add_(step)
        average.update(net)
        decay = 0.9998 * (1 - torch.exp(torch.tensor(-step / 2000.0, dtype=torch.float64)))
        expected = expected * decay + net.state_dict()[key] * (1 - decay)
    torch.testing.assert_close(average.net.state_dict()[key], expected.float(), rtol=1e-5, atol=1e-6)


def test_mixed_precision_is_near_and_keeps_weights_in_float32(data):
    losses = []
    for precision in (None, Precision("cpu", torch.bfloat16)):
        train_step, batches = train_step_on(data, precision=precision)
        train_step.train()
        losses.append(train_step.step(batches, 5, 3).total.item())
        assert all(p.dtype == torch.float32 for p in train_step.net.parameters())
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], rel=0.05)


def test_precision_choices(monkeypatch):
    from vision.engine import precision

    cpu = torch.device("cpu")
    for fast, name in ((True, "bf16"), (False, "off")):
        monkeypatch.setattr(precision, "_bfloat16_is_fast", lambda device, fast=fast: fast)
        assert choose_precision("auto", cpu)[0].name == name
    assert choose_precision("off", cpu)[0].dtype is None
    assert "emulates" in choose_precision("bf16", cpu)[1]
    assert choose_precision("auto", torch.device("cuda"))[0].name == "fp16"
    with pytest.raises(ValueError, match="--amp=fp16 needs a CUDA device"):
        choose_precision("fp16", cpu)


def test_amp_reaches_the_loop_and_a_resumed_run_keeps_it(script, data, tmp_path):
    argv = train_argv(data, tmp_path, "--resolution=48")
    assert script(train_ssd.main, *argv, "--epochs=1", "--amp=bf16").code == 0
    assert checkpoint.load_state(tmp_path / "last.state").execution.amp == "bf16"
    done = script(train_ssd.main, *argv, "--epochs=2", "--amp=auto", "--resume")
    assert "precision: bf16 mixed with float32" in done.out


@pytest.mark.parametrize(
    ("device", "amp", "kept", "expected"),
    [
        ("cpu", "off", None, True),
        ("cpu", "bf16", None, True),
        ("cuda", "off", None, False),
        ("cuda", "fp16", None, True),
        ("cpu", "off", False, False),  # a run of before there was a rule, in which a stopwatch had chosen
        ("cuda", "off", True, True),
    ],
)
def test_the_memory_format_follows_from_device_and_precision(monkeypatch, device, amp, kept, expected):
    class State:
        execution = checkpoint.ExecutionChoice(amp, kept)

    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (8, 0))
    state = None if kept is None else State
    run = Run(Options(amp=amp), ())
    run.device, run.state = torch.device(device), state
    chosen = execution.choose_execution(run)
    assert chosen.channels_last == chosen.choice.channels_last == expected


# The course of a run.


def rates(out: Path) -> list[float]:
    with open(out / "results.csv", newline="") as file:
        return [float(row["rate heads"]) for row in csv.DictReader(file)]


def factors(options: ScheduleOptions, steps: int) -> list[float]:
    return [schedule.lr_factor(iteration, steps, options) for iteration in range(options.epochs * steps)]


def test_the_presets_of_detectron():
    once = train_ssd.parse_args(["--schedule=1x"])
    assert (once.epochs, once.milestones, once.gamma) == (12, (8, 11), 0.1)
    of_run = factors(once, 100)
    assert of_run[0] == pytest.approx(1 / 3)
    assert of_run[250] == pytest.approx(2 / 3)
    assert of_run[500] == of_run[799] == 1
    assert of_run[800] == pytest.approx(0.1)
    assert of_run[1100] == of_run[1199] == pytest.approx(0.01)
    twice = train_ssd.parse_args(["--schedule=2x", "--epochs=30"])
    assert (twice.epochs, twice.milestones, twice.warmup_iters) == (30, (16, 22), 1000)


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["--warmup-iters=4", "--warmup-factor=0"], [0, 0.25, 0.5, 0.75, 1]),
        (["--warmup-epochs=0.4", "--warmup-factor=0.5"], [0.5, 0.625, 0.75, 0.875, 1]),
        (["--warmup-iters=4"], [0.2, 0.4, 0.6, 0.8, 1]),
        (["--warmup-iters=0"], [1, 1, 1, 1, 1]),
    ],
)
def test_warm_up(argv, expected):
    options = train_ssd.parse_args([*argv, "--scheduler=multi-step"])
    assert factors(options, 10)[:5] == pytest.approx(expected)


def test_cosine_ends_at_zero_with_the_run():
    of_run = factors(ScheduleOptions(epochs=30), 100)
    assert of_run[-1] < 1e-6
    assert max(of_run) > 0.95


def test_gradients_are_limited_unless_that_is_switched_off():
    limits = [train_ssd.parse_args(argv).clip_grad for argv in ([], ["--clip-grad=2.5"], ["--clip-grad=none"])]
    assert limits == [10.0, 2.5, None]


def test_the_box_loss_turns_where_it_is_told_to(data, tmp_path, script):
    losses = []
    for name, *typed in (("default",), ("same", "--smooth-l1-beta=0.3"), ("paper", "--smooth-l1-beta=1")):
        assert script(train_ssd.main, *train_argv(data, tmp_path / name, "--epochs=1", *typed)).code == 0
        with open(tmp_path / name / "results.csv", newline="") as file:
            losses.append(next(csv.DictReader(file))["Regression Loss/train"])
    assert losses[0] == losses[1]
    assert float(losses[2]) < float(losses[0]), "less by half of beta where errors are large, by more where small"


def test_auto_lr_scales_by_the_whole_batch(data, tmp_path, script):
    argv = train_argv(data, tmp_path, "--epochs=1", "--batch-size=2", "--accumulate=4", "--warmup-iters=0")
    done = script(train_ssd.main, *argv, "--auto-lr", "--lr=0.01")
    assert "--auto-lr: rates times 2 = 8 images per step (batch 2 x 4 accumulated x 1 processes) / 4" in done.out
    options = schedule.scale_rates(train_ssd.parse_args(["--auto-lr=32", "--lr=0.01", "--base-net-lr=0.001"]), 16)
    assert (options.lr, options.base_net_lr) == (0.005, 0.0005)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("--warmup-epochs=1", "--warmup-iters=5"), "leave one out"),
        (("--auto-resume", "--resume"), "contradict each other"),
        (("--clip-grad=0",), "--clip-grad"),
        (("--accumulate=0",), "--accumulate"),
        (("--repeat=0",), "--repeat: '0' is neither auto nor a whole number of at least 1"),
        (("--repeat=often",), "--repeat: 'often' is neither auto nor a whole number of at least 1"),
        (("--optimizer=adem",), "did you mean adam?"),
        (("--schedule=3x",), "choose from 1x, 2x"),
        (("--amp=int8",), "--amp"),
        (("--amp=fp16",), "--amp=fp16 needs a CUDA device"),
    ],
)
def test_options_that_are_refused(script, data, tmp_path, argv, message):
    assert_refused(script(train_ssd.main, *train_argv(data, tmp_path), *argv), message)


def test_patience_ends_a_run_that_gets_no_better(script, data, tmp_path):
    # Without rates nothing gets better than the first epoch; equal counts as better, so the loss must differ.
    argv = train_argv(data, tmp_path, "--epochs=9", "--lr=0.5", "--base-net-lr=0.5", "--patience=2")
    done = script(train_ssd.main, *argv, "--no-validation-mean-ap")
    assert done.code == 0, done.err
    epochs = len(re.findall(r"Epoch: \d, Validation Loss", done.out))
    with open(tmp_path / "results.csv", newline="") as file:
        losses = [float(row["Loss/val"]) for row in csv.DictReader(file)]
    waited = 0
    for number, loss in enumerate(losses):
        waited = 0 if loss <= min(losses[: number + 1]) else waited + 1
        assert waited < 2 or number == epochs - 1
    assert (waited == 2) == ("no better result for 2 validations" in done.out)
    assert waited == 2 or epochs == 9


def test_keep_checkpoints_keeps_the_newest(script, data, tmp_path):
    script(train_ssd.main, *train_argv(data, tmp_path, "--epochs=4", "--keep-checkpoints=2"))
    names = sorted(checkpoint.parse_name(path.name).epoch for path in tmp_path.glob("*Epoch*.pth"))
    assert names == [2, 3]
    assert (tmp_path / "best.pth").is_file()


def test_auto_resume_starts_and_goes_on(script, data, tmp_path):
    argv = train_argv(data, tmp_path, "--epochs=2", "--auto-resume")
    assert "Epoch: 0, Training Loss" in script(train_ssd.main, *argv).out
    done = script(train_ssd.main, *argv, "--epochs=3")
    assert "Epoch: 2, Training Loss" in done.out
    assert "Epoch: 1, Training Loss" not in done.out


def test_records_of_a_run(script, data, tmp_path):
    argv = train_argv(data, tmp_path, "--epochs=2", "--batch-size=3")
    assert script(train_ssd.main, *argv).code == 0
    facts = json.loads((tmp_path / "args.json").read_text())
    assert facts["seed"] == 1
    assert "--epochs=2" in facts["command"]
    assert facts["arguments"]["batch_size"] == 3
    assert facts["versions"]["torch"] == torch.__version__
    assert len(set(facts["fingerprints"].values())) == 2
    before = facts["fingerprints"]
    assert script(train_ssd.main, *argv, "--epochs=3", "--resume").code == 0
    assert json.loads((tmp_path / "args.json").read_text())["fingerprints"] == before
    with open(tmp_path / "results.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["0", "1", "2"]
    assert {f"Class Average Precision/{name}" for name in CLASSES} <= set(rows[0])
    assert rates(tmp_path)[-1] < rates(tmp_path)[0]


def test_other_classes_keep_the_rows_of_the_same_names(script, data, tmp_path):
    import shutil

    folder = tmp_path / "m"
    assert script(train_ssd.main, *train_argv(data, folder, "--epochs=1")).code == 0
    before = read_weights(folder / "last.pth")
    other = tmp_path / "other"
    shutil.copytree(data, other)
    (other / "labels.txt").write_text("star\nhat\nball\n")
    argv = (f"--resume={folder / 'last.pth'}", "--epochs=1", "--lr=0", "--base-net-lr=0", "--weight-decay=0")
    done = script(train_ssd.main, *train_argv(other, tmp_path / "n", *argv))
    assert done.code == 0, done.err
    assert "kept ['star', 'ball'], new ['hat'], dropped ['board', 'cone']" in done.out
    after = read_weights(tmp_path / "n" / "last.pth")
    key = "classification_headers.0.2.weight"
    was, now = before[key].unflatten(0, (-1, 5)), after[key].unflatten(0, (-1, 4))
    for mine, theirs in ((0, 0), (1, 4), (3, 1)):
        assert torch.equal(now[:, mine], was[:, theirs])
    assert not torch.equal(now[:, 2], was[:, 2])
    assert torch.equal(after["extras.0.0.weight"], before["extras.0.0.weight"])


def test_what_a_killed_run_left_half_is_removed(script, data, tmp_path):
    (tmp_path / ".last.state.x1y2z3w4.part").write_bytes(b"half")
    done = script(train_ssd.main, *train_argv(data, tmp_path, "--epochs=1"))
    assert "removed 1 temporary files of a run that was killed" in done.out
    assert not list(tmp_path.glob(".*.part"))


def test_a_lost_terminal_saves_however_often_it_is_told(script, data, tmp_path, monkeypatch):
    """The system and the shell both tell, and service managers send SIGTERM besides."""
    monkeypatch.setattr(signal, "getsignal", lambda number: signal.SIG_DFL)  # where the tests run under nohup
    argv = train_argv(data, tmp_path, *ARGV)

    def lose_terminal():
        for number in (signal.SIGHUP, signal.SIGHUP, signal.SIGTERM, signal.SIGHUP):
            os.kill(os.getpid(), number)

    with after_step(2, lose_terminal) as taken:
        done = script(train_ssd.main, *argv)
    assert (done.code, len(taken)) == (129, 2)
    assert done.out.count("finishing the step and saving") == 1
    assert checkpoint.load_state(tmp_path / "last.state").progress.step == 2


def test_a_lost_terminal_is_ignored_under_nohup():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopSignal() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            stop.check()
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_second_request_ends_at_once_but_not_one_after_a_lost_terminal():
    with StopSignal() as stop:
        stop._handle(signal.SIGHUP, None)
        stop._handle(signal.SIGTERM, None)
        assert stop.exit_code == 129
        with pytest.raises(KeyboardInterrupt):
            stop._handle(signal.SIGINT, None)


def test_interrupting_twice_ends_at_once(data, tmp_path):
    with start(data, tmp_path, "--epochs=500") as process:
        for line in process.stdout:
            if "Epoch: 0, Step: 1" in line:
                process.send_signal(signal.SIGINT)
            if "SIGINT: finishing" in line:
                process.send_signal(signal.SIGINT)
                break
        process.stdout.read()
    assert process.returncode in (130, 1), "500 epochs were not waited for"


def test_a_precision_that_the_device_lacks_is_chosen_anew(caplog):
    class State:
        execution = checkpoint.ExecutionChoice("fp16", channels_last=False)

    def run_with(amp: str) -> Run:
        run = Run(Options(amp=amp), ())
        run.device, run.state = torch.device("cpu"), State
        return run

    with caplog.at_level("WARNING"):
        chosen = execution.choose_execution(run_with("auto"))
    assert chosen.precision.name in ("off", "bf16")
    assert "the run was in fp16" in caplog.text
    with pytest.raises(ValueError, match="--amp=fp16 needs a CUDA device"):
        execution.choose_execution(run_with("fp16"))


def test_a_run_whose_patience_is_over_does_not_go_on(script, data, tmp_path):
    """Validations that are as good as the best are no progress; without rates all are."""
    argv = train_argv(data, tmp_path, "--epochs=9", "--lr=0", "--base-net-lr=0", "--freeze-net", "--patience=2")
    done = script(train_ssd.main, *argv)
    assert done.code == 0, done.err
    assert "Epoch: 2, no better result for 2 validations (--patience): ending" in done.out
    assert "Epoch: 3" not in done.out
    done = script(train_ssd.main, *argv, "--auto-resume")
    assert (done.code, done.err) == (0, "")
    assert "no better result for 2 validations: the run has ended; a --patience above 2 would go on" in done.out
    assert "Epoch: 3" not in done.out
    assert "Epoch: 3, no better result for 3" in script(train_ssd.main, *argv, "--patience=3", "--resume").out


def test_a_run_that_is_killed_before_its_first_epoch_ends_is_the_one_to_go_on(script, data, tmp_path, monkeypatch):
    argv = train_argv(data, tmp_path, "--epochs=1")
    assert script(train_ssd.main, *argv, "--seed=1").code == 0
    before = (tmp_path / "last.state").read_bytes()

    def killed(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(trainer, "train_epochs", killed)
    for _ in range(2):  # the second has nothing to keep of the first
        script(train_ssd.main, *argv, "--seed=2")
    monkeypatch.undo()
    assert (tmp_path / "previous.state").read_bytes() == before
    done = script(train_ssd.main, *argv, "--resume")
    assert (done.code, done.err) == (0, "")
    assert "Resume: epoch 0 goes on after step 0" in done.out
    assert "Epoch: 0, Validation Loss" in done.out


def test_the_best_of_a_run_that_moves_is_looked_for_anew(script, data, tmp_path):
    assert script(train_ssd.main, *train_argv(data, tmp_path / "a", "--epochs=1")).code == 0
    state = checkpoint.load_state(tmp_path / "a" / "last.state")

    def best(folder: str, validation: str) -> Results | None:
        return checkpoint.Checkpointer(tmp_path / folder, None, validation, state).best

    assert best("a", state.validation_fingerprint).epoch == 0
    assert (best("a", "others"), best("b", state.validation_fingerprint)) == (None, None)
    assert checkpoint.Checkpointer(tmp_path / "a", None, "x", replace(state, validation_fingerprint="")).best.epoch == 0
    argv = train_argv(data, tmp_path / "b", "--epochs=2", f"--resume={tmp_path / 'a' / 'last.state'}")
    assert script(train_ssd.main, *argv, "--lr=0", "--base-net-lr=0").code == 0
    assert (tmp_path / "b" / "best.pth").is_file()
    assert epochs_of(tmp_path / "b") == ["0", "1"]


def epochs_of(folder) -> list[str]:
    """Epochs of `results.csv`."""
    with open(folder / "results.csv", newline="") as file:
        return [row["epoch"] for row in csv.DictReader(file)]


def test_a_run_that_another_took_the_folder_of_goes_on_without_the_others_results(script, data, tmp_path):
    argv = train_argv(data, tmp_path, "--epochs=2")
    assert script(train_ssd.main, *argv).code == 0
    best = checkpoint.load_state(tmp_path / "last.state").best
    assert script(train_ssd.main, *argv, "--epochs=1", "--lr=0", "--base-net-lr=0").code == 0
    state = checkpoint.load_state(tmp_path / "previous.state")
    assert state.best == best
    done = script(train_ssd.main, *argv, f"--resume={tmp_path / 'previous.state'}", "--epochs=3")
    assert (done.code, done.err) == (0, "")
    assert f"{tmp_path / 'best.pth'}: is not this run's, whose best epoch was {best.epoch}" in done.out
    assert describe_weights(read_weights(tmp_path / "best.pth"), "best.pth").results.epoch == 2
    assert epochs_of(tmp_path) == ["2"]
    # A kill after an epoch's files and before its state leaves a best.pth of this run, one epoch ahead.
    folder = tmp_path / "killed"
    folder.mkdir()
    results = replace(best, epoch=2, ap_50_95=best.ap_50_95 + 0.1)
    checkpoint.save(MODELS["sq-ssd-lite"].build(2), [folder / "best.pth"], results)
    assert checkpoint.Checkpointer(folder, None, state.validation_fingerprint, state).best == best
    checkpoint.save(MODELS["sq-ssd-lite"].build(2), [folder / "best.pth"], replace(results, ap_50_95=-1.0))
    assert checkpoint.Checkpointer(folder, None, state.validation_fingerprint, state).best is None


def test_repeats_of_a_run_that_starts_anew_go_by_its_own_images(script, data, tmp_path):
    assert script(train_ssd.main, *train_argv(data, tmp_path / "a", "--epochs=1", "--repeat=3")).code == 0
    other = write_small_voc(tmp_path / "other", 4, 2)
    for path in (other / "Annotations").iterdir():
        path.write_text(path.read_text().replace(f"<name>{CLASSES[0]}<", "<name>zebra<"))
    (other / "labels.txt").write_text("\n".join(["zebra", *CLASSES[1:]]) + "\n")
    argv = train_argv(other, tmp_path / "b", "--epochs=1", f"--resume={tmp_path / 'a' / 'last.state'}")
    done = script(train_ssd.main, *argv)
    assert "other classes, so weights only" in done.out
    assert json.loads((tmp_path / "b" / "args.json").read_text())["repeats"] == 1


def test_an_optimizer_beside_a_recipe_has_rates_of_its_own():
    rates = [
        (args.optimizer, args.lr, args.base_net_lr)
        for args in (
            train_ssd.parse_args(["--recipe=upstream", *more])
            for more in ((), ("--optimizer=adamw",), ("--optimizer=sgd",), ("--optimizer=adamw", "--lr=0.5"))
        )
    ]
    assert rates == [("sgd", 0.01, 0.001), ("adamw", 0.001, 0.0003), ("sgd", 0.01, 0.001), ("adamw", 0.5, 0.0003)]


def test_an_image_that_is_met_again_counts_once(caplog):
    unreadable = loop._UnreadableImages(batches=4)
    batch = Batch(None, None, None, notes=("a.jpg: no such image",) * 30)
    for _ in range(3):
        unreadable.count_in(batch)
    assert unreadable.count == 1
    assert len(caplog.records) == 1

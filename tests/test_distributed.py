"""Several processes that train together: the same steps as one process takes, and one story told."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import ROOT, assert_refused, train_argv, write_small_voc
from train_steps import PRECISIONS, freeze_norms, join_batches, train_step_on

import train_ssd
from vision.datasets import synthetic
from vision.datasets.loading import EpochBatches
from vision.engine import checkpoint
from vision.engine.distributed import DistributedProcess, DistributedStopSignal, detecting_lost_peer
from vision.engine.faults import PeerProcessLost, StopRequested
from vision.engine.model_folder import LOCK, locked
from vision.evaluation.coco import FIGURE_NAMES
from vision.ssd.weights import digest_of, read_weights
from vision.structures import Batch, DataError

pytestmark = pytest.mark.network

#: Of a net without batch norm, and of samples without augmentation: images in one batch or in two are the same. Whole
#: runs are in float32; in 16 bits, which may be emulated, single steps are compared.
ARGV = (
    "--net=sq-ssd-lite",
    "--optimizer=sgd",
    "--amp=off",
    "--resolution=32",
    "--augmentation=none",
    "--debug-steps=1",
    "--epochs=2",
)
#: How near one process comes to two, relative, of losses and of weights, and absolute, of weights: in 16 bits gradients
#: of halves are rounded, and biases begin at 0 and go a few hundredths from there, so that it is a large part of them.
NEARNESS = {"off": (1e-4, 1e-3, 1e-5), "bf16": (3e-2, 1e-1, 4e-3)}
#: What torchrun itself says; its table of failures is the last of it.
TORCHRUNS = re.compile(r"^([WE]\d{4} .*|\*+|)$")


#: What torchrun gives each of several processes by itself.
ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Images for five steps of six and one of two, seven to validate."""
    return write_small_voc(tmp_path_factory.mktemp("images"), 32, 7)


def start(script, *argv, **options) -> subprocess.Popen:
    """Start two processes; what they write to standard error comes with the rest."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", str(script)]
    together = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "cwd": ROOT, "env": ONE_THREAD}
    return subprocess.Popen([*command, *map(str, argv)], **{**together, **options})


def run(script, *argv) -> tuple[int, str]:
    with start(script, *argv) as process:
        out = process.stdout.read()
    return process.returncode, out


def train(data, folder, *more) -> tuple[int, str]:
    return run(ROOT / "train_ssd.py", *train_argv(data, folder, *ARGV, *more))


def losses_of(out: str) -> list[tuple[str, float]]:
    return [(step, float(loss)) for step, loss in re.findall(r"Epoch: (\d, Step: \S+), Avg Loss: (\S+),", out)]


def rows_of(folder: Path) -> list[dict[str, str]]:
    with open(folder / "results.csv", newline="") as file:
        return list(csv.DictReader(file))


def process_of_rank(parent: int, rank: int) -> int:
    """Find the process that torchrun started as this rank."""
    for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split():
        if f"RANK={rank}" in Path(f"/proc/{pid}/environ").read_text().split("\0"):
            return int(pid)
    raise AssertionError("no such process")


def train_alone(data, folder, *more) -> str:
    """Train in one process, of one thread like each of several."""
    argv = [sys.executable, ROOT / "train_ssd.py", *train_argv(data, folder, *ARGV, *more)]
    return subprocess.run(argv, capture_output=True, text=True, check=True, env=ONE_THREAD).stdout


@pytest.fixture(scope="module", params=NEARNESS)
def amp(request) -> str:
    """Each precision that a CPU knows, whichever is fast on this one."""
    return request.param


@pytest.fixture(scope="module")
def alone(data, tmp_path_factory) -> tuple[str, Path]:
    """What one process says and leaves, with batches of six."""
    folder = tmp_path_factory.mktemp("alone")
    return train_alone(data, folder, "--batch-size=6"), folder


@pytest.fixture(scope="module")
def together(data, tmp_path_factory) -> tuple[str, Path]:
    """What two processes say and leave, with batches of three each."""
    folder = tmp_path_factory.mktemp("together")
    code, out = train(data, folder, "--batch-size=3")
    assert code == 0, out
    return out, folder


def assert_close(one: list[tuple[str, float]], other: list[tuple[str, float]]) -> None:
    assert [step for step, _ in one] == [step for step, _ in other]
    assert [loss for _, loss in one] == pytest.approx([loss for _, loss in other], rel=NEARNESS["off"][0])


def test_two_processes_take_the_steps_of_one(alone, together):
    one, other = losses_of(alone[0]), losses_of(together[0])
    assert len(one) == 12
    assert_close(one, other)
    of_losses, of_weights, of_small_weights = NEARNESS["off"]
    for mine, theirs in zip(rows_of(alone[1]), rows_of(together[1]), strict=True):
        assert mine.keys() == theirs.keys()
        for column in mine.keys() - {"seconds"}:
            slack = 20 * of_losses if "Precision" in column else of_losses / 10  # detections may change places
            values = [float(row[column] or "nan") for row in (mine, theirs)]  # empty where it is not defined
            assert values[0] == pytest.approx(values[1], rel=of_losses, abs=slack, nan_ok=True)
    weights = read_weights(together[1] / "last.pth")
    for key, value in read_weights(alone[1] / "last.pth").items():
        torch.testing.assert_close(weights[key], value, rtol=of_weights, atol=of_small_weights)


def test_the_first_process_alone_speaks_and_writes(alone, together):
    out, folder = together
    lines = [line for line in out.splitlines() if not TORCHRUNS.match(line)]
    assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d - ", line) for line in lines), "no warnings of any library"
    told = [line.partition(" - ")[2] for line in lines]
    assert "2 processes: batches of 3 in each, 6 images per step (--auto-lr scales the rates to that)" in told
    steps = [line for line in told if "Step: " in line]
    assert len(steps) == len(set(steps)) == 12
    assert {re.sub("Loss-.*", "", path.name) for path in folder.rglob("*")} >= {
        re.sub("Loss-.*", "", path.name)
        for path in alone[1].rglob("*")
        if "tfevents" not in path.name and path.is_file()
    }
    assert len(list(folder.rglob("*tfevents*"))) == 1
    assert json.loads((folder / "args.json").read_text())["processes"] == 2
    assert json.loads((alone[1] / "args.json").read_text())["processes"] == 1


def test_another_number_of_processes_goes_on_and_measures_the_same(data, together, tmp_path):
    """With rates of zero both measure the same weights on the same batches; no image may lack or count twice."""
    more = (
        "--batch-size=3",
        "--epochs=3",
        "--lr=0",
        "--base-net-lr=0",
        "--weight-decay=0",
        "--momentum=0",
        "--resume",
    )
    for folder in ("one", "two"):
        shutil.copytree(together[1], tmp_path / folder)
    told = train_alone(data, tmp_path / "one", *more)
    code, out = train(data, tmp_path / "two", *more)
    assert code == 0, out
    assert "Resume: epoch 2 goes on after step 0" in told
    assert "Resume: epoch 2 goes on after step 0" in out
    one, two = (rows_of(tmp_path / folder)[-1] for folder in ("one", "two"))
    columns = [column for column in one if column.endswith("/val") or "Precision" in column]
    assert len(columns) == 3 + 1 + len(FIGURE_NAMES) + 1 + 4
    for column in columns:
        measured = [float(row[column] or "nan") for row in (one, two)]  # a class without objects has no figure
        assert measured[1] == pytest.approx(measured[0], rel=1e-12, abs=0, nan_ok=True)
    weights = read_weights(tmp_path / "one/last.pth")
    assert all(torch.equal(value, weights[key]) for key, value in read_weights(tmp_path / "two/last.pth").items())


@pytest.mark.skipif(sys.platform != "linux", reason="finds processes in /proc")
def test_a_signal_to_one_stops_all_at_the_same_step_and_one_process_goes_on(script, data, alone, tmp_path):
    argv = train_argv(data, tmp_path, *ARGV)
    with start(ROOT / "train_ssd.py", *argv, "--batch-size=3") as process:
        first = []
        for line in process.stdout:
            first.append(line)
            if "Step: 2/6" in line:
                os.kill(process_of_rank(process.pid, 1), signal.SIGTERM)
                break
        first += process.stdout.readlines()
    out = "".join(first)
    assert re.search(r"go on with: torchrun --nproc_per_node=2 \S*train_ssd\.py .* --resume\n", out), out
    steps = len(losses_of(out))
    assert 2 <= steps < 6
    assert checkpoint.load_state(tmp_path / "last.state").progress.step == steps
    done = script(train_ssd.main, *argv, "--batch-size=6", "--resume")
    assert done.code == 0, done.err
    assert f"Resume: epoch 0 goes on after step {steps}" in done.out
    assert_close(losses_of(alone[0]), losses_of(out) + losses_of(done.out))


@pytest.mark.skipif(sys.platform != "linux", reason="finds processes in /proc")
def test_a_process_that_is_killed_ends_the_other_which_saves(data, tmp_path):
    with start(ROOT / "train_ssd.py", *train_argv(data, tmp_path, *ARGV, "--epochs=500")) as process:
        for line in process.stdout:
            if "Step: 4/" in line:
                os.kill(process_of_rank(process.pid, 1), signal.SIGKILL)
                break
        out = process.stdout.read()
    assert process.returncode == 1
    message = "train_ssd.py: failed: another process of this run has ended, its own message says why ("
    assert [line.startswith(message) for line in errors_of(out)] == [True], out
    assert re.search(r"Saved \S+last\.state; go on with: torchrun --nproc_per_node=2 ", out)
    state = checkpoint.load_state(tmp_path / "last.state")
    assert state.progress.step >= 4
    assert all(torch.isfinite(value).all() for value in state.training["weights"].values())


@pytest.fixture(scope="module")
def found(data, amp, tmp_path_factory) -> dict:
    """What two_processes.py found."""
    result = tmp_path_factory.mktemp("found") / "found.pt"
    code, out = run(ROOT / "tests" / "two_processes.py", data, result, amp)
    assert code == 0, out
    return torch.load(result, weights_only=True)


def test_what_processes_tell_each_other(found):
    assert found["ranks"] == [0, 1]
    assert found["first"] == [0, 0]
    assert found["turns"] == [False, True], "the second finds what the first has left"
    assert found["launcher"] == "torchrun --nproc_per_node=2"


@pytest.mark.parametrize(("case", "batches"), [("one each", 2), ("two each", 4)])
def test_a_step_together_is_a_step_on_all_batches(data, found, amp, case, batches):
    train_step, all_batches = train_step_on(data, 2, clip_grad=1.0, precision=PRECISIONS[amp])
    train_step.train()
    freeze_norms(train_step)
    losses = train_step.step([join_batches(all_batches[:batches])], 5, 3)
    for of_process in found[case]:
        assert of_process["losses"] == pytest.approx([part.item() for part in losses], rel=NEARNESS[amp][0] / 10)
        for key, value in train_step.net.state_dict().items():
            torch.testing.assert_close(
                of_process["weights"][key], value, rtol=NEARNESS[amp][1] / 10, atol=1e-6 if amp == "off" else 1e-4
            )


def test_a_loss_that_is_not_finite_in_one_process_leaves_the_step_out_in_all(found):
    assert all(of_process["refused"] for case in ("one each", "two each", "norms") for of_process in found[case])


def test_batch_norms_statistics_are_averaged(data, found, amp):
    states = []
    for place in range(2):
        train_step, batches = train_step_on(data, 2, precision=PRECISIONS[amp])
        train_step.train()
        train_step.step([batches[place]], 5, 3)
        states.append(train_step.net.state_dict())
    one, other = (of_process["weights"] for of_process in found["norms"])
    assert all(torch.equal(value, other[key]) for key, value in one.items()), "both nets stay the same"
    keys = [key for key in one if key.endswith(("running_mean", "running_var"))]
    assert keys
    for key in keys:
        torch.testing.assert_close(one[key], (states[0][key] + states[1][key]) / 2, rtol=1e-5, atol=1e-7)


# Errors.


def errors_of(out: str) -> list[str]:
    return [line for line in out.splitlines() if line.startswith("train_ssd.py: ")]


def test_what_all_processes_stumble_over_is_said_once(data, tmp_path):
    synthetic.write_voc(tmp_path / "one", {"train": synthetic.drawings(1, 7), "test": synthetic.drawings(1, 8)})
    for argv, expected in (
        ((data, tmp_path, "--sync-bn"), "--sync-bn: PyTorch has it for CUDA only, this is cpu; leave it out"),
        (
            (tmp_path / "one", tmp_path),
            "--data: there are fewer training images than processes; start fewer with --nproc_per_node",
        ),
    ):
        code, out = train(*argv)
        assert code == 1
        assert errors_of(out) == [f"train_ssd.py: error: {expected}"], out


def test_a_folder_that_another_run_uses_is_refused_once(data, tmp_path):
    with locked(tmp_path, ["--the-other"]):
        code, out = train(data, tmp_path)
    assert code == 1
    (line,) = errors_of(out)
    assert re.match(rf"train_ssd.py: error: --model-dir={tmp_path}: in use by another run, process .*--the-other", line)
    assert {path.name for path in tmp_path.iterdir()} == {LOCK}


def test_what_one_process_stumbles_over_ends_all_and_is_said(data, tmp_path):
    """The second has other files than the first, as on a machine of its own."""
    program = tmp_path / "train_ssd.py"
    program.write_text(
        f"import os, sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "import train_ssd; from vision import cli\n"
        "cli.run(train_ssd.main, [*sys.argv[1:], os.environ['ARGUMENT' + os.environ['RANK']]])\n"
    )
    synthetic.write_voc(tmp_path / "other", {"train": synthetic.drawings(4, 7), "test": synthetic.drawings(2, 8)})
    argv = train_argv(data, tmp_path / "m", *ARGV)
    for first, second, expected in (
        (f"--data={data}", f"--data={tmp_path / 'none'}", f"{tmp_path / 'none'}: no such folder"),
        (f"--data={data}", f"--data={tmp_path / 'other'}", " reads other images than the first; give every machine"),
    ):
        with start(program, *argv, env={**ONE_THREAD, "ARGUMENT0": first, "ARGUMENT1": second}) as process:
            out = process.stdout.read()
        assert process.returncode == 1
        (line,) = errors_of(out)
        assert re.match(r"train_ssd.py: error: process 1 on \S+", line)
        assert expected in line


def test_a_dry_run_of_several_ends_and_needs_no_batch_for_each(data, tmp_path):
    root = tmp_path / "few"
    synthetic.write_voc(root, {"train": synthetic.drawings(12, 7), "test": synthetic.drawings(2, 8)})
    code, out = train(root, tmp_path / "m", "--dry-run", "--workers=1", "--batch-size=3")
    assert code == 0, out
    assert out.count("Dry run done") == 1
    assert re.search(r"first losses: training \d+\.\d+, validation \d+\.\d+\n", out)
    assert {path.name for path in (tmp_path / "m").glob("[!.]*")} == {"audit.html", "audit.json", "audit.png"}


def test_machines_that_start_from_other_weights_are_named(several, monkeypatch):
    process = several(size=2)
    one, other = ({"a": torch.tensor([1.0, last])} for last in (2.0, 2.5))
    said = [(digest_of(one), "left"), (digest_of(other), "right")]
    monkeypatch.setattr(process, "all_gather", lambda value: said)
    with pytest.raises(DataError, match="process 1 on right starts from other weights than the first"):
        process.check_same("starts from other weights", lambda: digest_of(one))
    said[1] = (digest_of({"a": one["a"].clone()}), "right")
    process.check_same("starts from other weights", lambda: digest_of(one))


def test_batch_norm_over_processes_needs_several(script, data, tmp_path):
    done = script(train_ssd.main, *train_argv(data, tmp_path, "--sync-bn"))
    assert_refused(done, "--sync-bn: this is one process; start several with torchrun, or leave it out")


@pytest.fixture
def several(monkeypatch):
    """Give the processes that torchrun's variables speak of, not connected."""

    def make(rank=0, size=4, here=2) -> DistributedProcess:
        variables = {"RANK": rank, "WORLD_SIZE": size, "LOCAL_RANK": rank % here, "LOCAL_WORLD_SIZE": here}
        for name, value in variables.items():
            monkeypatch.setenv(name, str(value))
        return DistributedProcess()

    return make


def test_devices_that_processes_cannot_share(several, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    for device, message in (
        ("mps", "several processes can train on cpu or cuda only; use --device=cpu"),
        ("cpu", "--device: processes have cpu, cuda, in their order; choose one kind for all"),
        ("cuda:1", "torchrun gives each process a GPU of its own; use --device=cuda"),
        ("cuda", "torchrun started 2 processes on .* has 1 GPUs; start as many with --nproc_per_node"),
    ):
        process = several()
        monkeypatch.setattr(process, "all_gather", lambda value: [value, "cuda"])
        with pytest.raises(DataError, match=message):
            process.select_device(torch.device(device))


def test_the_command_names_the_machines(several):
    assert several().launcher == "torchrun --nnodes=2 --nproc_per_node=2 ..."
    assert several(size=2).launcher == "torchrun --nproc_per_node=2"


@pytest.mark.parametrize(("count", "batch_size", "size"), [(60, 3, 2), (61, 4, 3), (7, 2, 3), (23, 4, 2), (5, 1, 2)])
def test_every_image_is_in_one_part_of_one_batch(several, count, batch_size, size):
    whole = EpochBatches(count, batch_size * size, seed=3, least=2 * size)
    parts = [
        list(several(rank, size, size).shard_each_batch(EpochBatches(count, batch_size * size, 3, least=2 * size)))
        for rank in range(size)
    ]
    for batch, *of_processes in zip(whole, *parts, strict=True):
        assert [key for part in of_processes for key in part] == batch
        lengths = [len(part) for part in of_processes]
        assert max(lengths) - min(lengths) <= 1
        assert min(lengths) >= min(2, batch_size)
    validation = [
        several(rank, size, size).shard_batches(EpochBatches(count, 3, shuffle=False)) for rank in range(size)
    ]
    assert sorted(index for part in validation for batch in part for _, index in batch) == list(range(count))
    assert [len(part) for part in validation] == [len(list(part)) for part in validation]


def test_an_epoch_goes_on_within(several):
    share = several(1, 2, 2).shard_each_batch(EpochBatches(12, 4))
    whole = list(share)
    share.begin(0, 1)
    assert list(share) == whole[1:]
    assert (len(share), share.batches_of_epoch) == (2, 3)
    share.begin(1)
    assert list(share) != whole


class Scripted:
    """Processes of which the others say what they were told to."""

    def __init__(self, *others):
        self.others = list(others)

    def all_gather(self, value):
        return [value, self.others.pop(0)]


def batch_with(*notes: str) -> Batch:
    return Batch(torch.zeros(1), torch.zeros(1), torch.zeros(1), (), notes)


def test_notes_are_exchanged_and_the_shorter_waits():
    stop = DistributedStopSignal(Scripted(3, (None, ("theirs",)), (None, ()), (None, ())))
    batches = list(stop.check_between([batch_with("mine"), batch_with()]))
    assert [batch.notes for batch in batches] == [("mine", "theirs"), ()]
    assert not stop._process.others, "took part in the third batch of the other"


def test_a_signal_to_another_stops_this_one_before_its_next_batch():
    stop = DistributedStopSignal(Scripted(2, (None, ()), (signal.SIGTERM, ())))
    batches = stop.check_between([batch_with(), batch_with()])
    next(batches)
    stop.check()
    with pytest.raises(StopRequested):
        next(batches)
    assert stop.exit_code == 143
    assert stop.received is None, "a signal to this one would be its first"


def test_a_signal_to_this_one_waits_for_the_others_to_know():
    stop = DistributedStopSignal(Scripted(2, (None, ()), (None, ())))
    batches = stop.check_between([batch_with(), batch_with()])
    next(batches)
    stop.received = signal.SIGINT
    stop.check()
    with pytest.raises(StopRequested):
        next(batches)
    assert stop.exit_code == 130


def test_what_ends_the_others_does_not_cut_off_the_message_of_a_lost_process():
    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(PeerProcessLost), DistributedStopSignal(Scripted()):
            raise PeerProcessLost
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)
    with pytest.raises(StopRequested), DistributedStopSignal(Scripted()):
        raise StopRequested
    assert signal.getsignal(signal.SIGTERM) is before


def test_other_errors_are_not_taken_for_a_lost_process():
    with pytest.raises(PeerProcessLost, match="Connection closed by peer"), detecting_lost_peer():
        raise RuntimeError("[pair.cc:534] Connection closed by peer [127.0.0.1]:5")
    with pytest.raises(RuntimeError, match="shapes") as caught, detecting_lost_peer():
        raise RuntimeError("shapes do not fit")
    assert not isinstance(caught.value, PeerProcessLost)


def test_one_process_has_nothing_of_it_and_ends_its_loaders(data, tmp_path):
    code = (
        "import sys, train_ssd\n"
        f"train_ssd.main({list(train_argv(data, tmp_path, '--dry-run', '--workers=1'))})\n"
        "print('vision.engine.distributed' in sys.modules)"
    )
    environment = {**os.environ, "WORLD_SIZE": "2"}  # as some clusters set it, without torchrun
    options = {"capture_output": True, "text": True, "check": True, "timeout": 300}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, **options)
    assert done.stdout.splitlines()[-1] == "False"

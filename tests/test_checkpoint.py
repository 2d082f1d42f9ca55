"""File names, the best of a folder, and states of runs."""

import argparse
import contextlib
import copy
import os
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from vision.deploy.torch_session import load_net
from vision.engine import checkpoint, pretrained
from vision.engine.loop import TrainState
from vision.ssd.choices import NET_NAMES
from vision.ssd.description import Architecture, Results
from vision.ssd.models import MODELS, describe_weights
from vision.ssd.weights import description_of, read_weights, unwrapped
from vision.structures import DataError
from vision.utils.files import replacing
from vision.utils.progress import no_progress

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def net():
    return MODELS["mb1-ssd-lite"].build(3)


@pytest.mark.parametrize("loss", [2.41, 9.5e-05, 5.672993580500285, float("inf"), 1e22])
def test_names_are_read_as_they_were_written(loss):
    name = checkpoint.file_name("mb1-ssd", 3, loss)
    assert checkpoint.parse_name(name) == ("mb1-ssd", 3, loss)


@pytest.mark.parametrize(
    "name",
    ["best.pth", "mb1-ssd-Epoch-x-Loss-1.pth", "mb1-ssd-Epoch-1-Loss-low.pth", "a-Epoch-1-Loss-1.0.onnx"],
)
def test_other_names_are_none(name):
    assert checkpoint.parse_name(name) is None


def put(net, folder, losses, mean_aps=None):
    for epoch, loss in enumerate(losses):
        results = Results(epoch, loss, mean_aps[epoch] if mean_aps else None)
        checkpoint.save(net, [folder / checkpoint.file_name("mb1-ssd-lite", epoch, loss)], results)


def test_best_by_loss_reads_small_numbers(net, tmp_path):
    put(net, tmp_path, [2.4, 9.5e-05, 0.3, float("nan"), float("inf")])
    assert checkpoint.best_of_folder(tmp_path).name == "mb1-ssd-lite-Epoch-1-Loss-9.5e-05.pth"


def test_best_by_mean_ap_comes_before_loss(net, tmp_path):
    put(net, tmp_path, [2.4, 1.0, 3.0], mean_aps=[0.5, 0.6, 0.7])
    assert checkpoint.best_of_folder(tmp_path).name == "mb1-ssd-lite-Epoch-2-Loss-3.0.pth"


def test_best_pth_comes_first(net, tmp_path):
    put(net, tmp_path, [2.4], mean_aps=[0.9])
    checkpoint.save(net, [tmp_path / "best.pth"], Results(0, 2.4))
    assert checkpoint.best_of_folder(tmp_path).name == "best.pth"


def test_only_fitting_files_count(net, tmp_path):
    put(net, tmp_path, [2.4])
    MODELS["mb1-ssd-lite"].build(5).save(str(tmp_path / "mb1-ssd-lite-Epoch-0-Loss-0.1.pth"))
    MODELS["sq-ssd-lite"].build(3).save(str(tmp_path / "sq-ssd-lite-Epoch-0-Loss-0.2.pth"))
    (tmp_path / "mb1-ssd-lite-Epoch-0-Loss-0.001.pth").write_bytes(b"broken")
    (tmp_path / "notes.pth.txt").write_text("")
    assert checkpoint.best_of_folder(tmp_path, "mb1-ssd-lite", 3).name == "mb1-ssd-lite-Epoch-0-Loss-2.4.pth"
    assert checkpoint.best_of_folder(tmp_path, "sq-ssd-lite").name == "sq-ssd-lite-Epoch-0-Loss-0.2.pth"


def test_files_of_others_are_judged_by_their_names(net, tmp_path):
    for loss in (3.0, 2.0):
        torch.save(
            {key: value for key, value in net.state_dict().items()},
            tmp_path / f"mb1-ssd-lite-Epoch-1-Loss-{loss}.pth",
        )
    assert checkpoint.best_of_folder(tmp_path).name == "mb1-ssd-lite-Epoch-1-Loss-2.0.pth"


def test_a_damaged_best_is_refused_and_no_other_file_taken_for_it(net, tmp_path):
    put(net, tmp_path, [2.4], mean_aps=[0.9])
    checkpoint.save(net, [tmp_path / "best.pth"], Results(0, 2.4))
    content = (tmp_path / "best.pth").read_bytes()
    (tmp_path / "best.pth").write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match="best.pth: cannot be read .*; no other file is taken for .* restore it, name"):
        checkpoint.best_of_folder(tmp_path)
    assert checkpoint.find(tmp_path / checkpoint.file_name("mb1-ssd-lite", 0, 2.4)).is_file()


def test_files_of_other_runs_do_not_compete(net, tmp_path, caplog):
    """Whenever they were written: a copied folder has new times."""
    put(net, tmp_path, [0.1], mean_aps=[0.9])  # of nobody knows which run
    earlier, later = tmp_path / "mb1-ssd-lite-Epoch-1-Loss-0.2.pth", tmp_path / "mb1-ssd-lite-Epoch-2-Loss-0.3.pth"
    checkpoint.save(net, [later], Results(2, 0.3, mean_ap=0.3), "2026-01-02 03:04:05 x")
    checkpoint.save(net, [earlier], Results(1, 0.2, mean_ap=0.8), "2026-01-01 03:04:05 y")
    checkpoint.save(net, [tmp_path / "previous_best.pth"], Results(2, 0.3, mean_ap=1.0), "2026-01-02 03:04:05 x")
    assert checkpoint.best_of_folder(tmp_path) == later
    assert f"no best.pth; {later} is the best of the newest run, 2 files are of others" in caplog.text


def test_of_files_without_a_run_those_trained_as_the_newest_compete(net, tmp_path):
    put(net, tmp_path, [0.5, 0.7])
    other = tmp_path / "mb1-ssd-lite-Epoch-0-Loss-0.1.pth"
    MODELS["mb1-ssd-lite"].build(5).save(str(other))
    os.utime(other, (1, 1))
    assert checkpoint.best_of_folder(tmp_path).name == "mb1-ssd-lite-Epoch-0-Loss-0.5.pth"


def run_of(path) -> str:
    return description_of(read_weights(path))["run"]


def test_the_best_of_another_run_is_kept(net, tmp_path, caplog):
    best, previous = tmp_path / "best.pth", tmp_path / "previous_best.pth"
    first, second = checkpoint.Checkpointer(tmp_path), checkpoint.Checkpointer(tmp_path)
    assert first.run != second.run
    for epoch in range(2):
        first.save(net, Results(epoch, 1.0), is_best=True)
    assert run_of(best) == first.run and not previous.exists()
    second.save(net, Results(0, 9.0), is_best=False)
    assert run_of(best) == first.run
    caplog.set_level("INFO")
    for epoch in range(1, 3):
        second.save(net, Results(epoch, 2.0), is_best=True)
    assert (run_of(best), run_of(previous)) == (second.run, first.run)
    assert caplog.text.count("previous_best.pth from now on") == 1


def test_the_best_of_a_run_that_was_killed_before_its_state_is_no_others(net, tmp_path):
    first = checkpoint.Checkpointer(tmp_path)
    first.save(net, Results(0, 1.0), is_best=True)
    state = replace(state_of(net, 0), best=None, run=first.run)
    again = checkpoint.Checkpointer(tmp_path, state=state)
    again.save(net, Results(0, 1.0), is_best=True)
    assert again.run == first.run
    assert not (tmp_path / "previous_best.pth").exists()


def test_a_damaged_best_is_kept_as_well(net, tmp_path):
    (tmp_path / "best.pth").write_bytes(b"half")
    checkpoint.Checkpointer(tmp_path).save(net, Results(0, 1.0), is_best=True)
    assert (tmp_path / "previous_best.pth").read_bytes() == b"half"


def test_no_best_says_why(net, tmp_path):
    put(net, tmp_path, [float("inf")])
    MODELS["sq-ssd-lite"].build(3).save(str(tmp_path / "sq-ssd-lite-Epoch-0-Loss-0.2.pth"))
    with pytest.raises(DataError, match="no finite loss.*is a sq-ssd-lite checkpoint, not mb1-ssd-lite"):
        checkpoint.best_of_folder(tmp_path, "mb1-ssd-lite")
    with pytest.raises(DataError, match="no checkpoint that can be used"):
        checkpoint.best_of_folder(tmp_path, "vgg16-ssd")
    with pytest.raises(DataError, match="no such folder"):
        checkpoint.best_of_folder(tmp_path / "none")


def test_results_travel_with_the_weights(net, tmp_path):
    put(net, tmp_path, [2.4], mean_aps=[0.25])
    path = next(tmp_path.glob("*.pth"))
    assert description_of(read_weights(path))["results"] == {"epoch": 0, "loss": 2.4, "mean_ap": 0.25}


def state_of(net, epoch: int) -> checkpoint.RunState:
    return checkpoint.RunState(
        description=net.description(),
        training={"weights": net.state_dict(), "average": None},
        progress=TrainState(epoch, step=3),
        data_order=checkpoint.DataOrder("fingerprint", 7, images_per_step=8, repeats=2, batches_per_epoch=5),
        seed=7,
        best=Results(epoch - 1, 0.5, mean_ap=0.25),
        validations_since_best=2,
        random=checkpoint.random_state(CPU),
        execution=checkpoint.ExecutionChoice("off", channels_last=True, augment_on="device"),
    )


def test_states_survive(net, tmp_path):
    state = state_of(net, 4)
    checkpoint.save_state(tmp_path / "last.state", state)
    again = checkpoint.load_state(tmp_path / "last.state")
    for name in ("description", "data_order", "seed", "best", "validations_since_best", "execution", "run"):
        assert getattr(again, name) == getattr(state, name), name
    assert (again.progress.epoch, again.progress.step) == (4, 3)
    assert all(torch.equal(value, again.training["weights"][key]) for key, value in net.state_dict().items())
    (tmp_path / "cut.state").write_bytes((tmp_path / "last.state").read_bytes()[:1000])
    with pytest.raises(DataError, match="cut.state: cannot be read as the state of a run"):
        checkpoint.load_state(tmp_path / "cut.state")


def test_the_keys_of_a_state_file_stay(net, tmp_path):
    """Files of earlier versions are read, and earlier versions read those of this one."""
    path = tmp_path / "last.state"
    checkpoint.save_state(path, state_of(net, 4))
    plain = torch.load(path, weights_only=True)
    assert plain["description"] == net.state_dict()._metadata[""]["ssd"]
    assert plain["data_order"] == {
        "images": "fingerprint",
        "seed": 7,
        "images a step": 8,
        "repeats": 2,
        "batches an epoch": 5,
        "way of holding out": False,
    }
    assert plain["compute"] == {"amp": "off", "channels_last": True, "augment_on": "device"}
    assert plain["best"] == {"epoch": 3, "loss": 0.5, "mean_ap": 0.25}
    # What earlier versions did not write.
    for part, key in (
        ("data_order", "repeats"),
        ("data_order", "batches an epoch"),
        ("data_order", "way of holding out"),
        ("compute", "augment_on"),
    ):
        del plain[part][key]
    for key in ("run", "validation"):
        del plain[key]
    torch.save({**plain, "best": {}}, path)
    old = checkpoint.load_state(path)
    assert old.data_order == checkpoint.DataOrder("fingerprint", 7, images_per_step=8, repeats=1)
    assert (old.execution.augment_on, old.best, old.run, old.validation_fingerprint) == ("cpu", None, "", "")


def test_a_description_that_cannot_be_read_is_named(net, tmp_path):
    weights = net.state_dict()
    del weights._metadata[""]["ssd"]["num_classes"]
    torch.save(weights, tmp_path / "odd.pth")
    with pytest.raises(DataError, match="odd.pth: what it says of its net cannot be read .KeyError: 'num_classes'."):
        load_net(tmp_path / "odd.pth")


def test_random_states_are_restored():
    import random

    import numpy as np

    state = checkpoint.random_state(CPU)
    first = [random.random(), np.random.random(), torch.rand(1).item()]
    checkpoint.restore_random_state(state, CPU)
    assert [random.random(), np.random.random(), torch.rand(1).item()] == first


@pytest.mark.parametrize("cuda", [None, [], [torch.zeros(1)]])
def test_states_without_the_generator_of_one_gpu_are_taken(monkeypatch, cuda):
    """Those of runs on a CPU, and older ones, which hold a list."""
    calls = []
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda *args: calls.append(args))
    checkpoint.restore_random_state({**checkpoint.random_state(CPU), "cuda": cuda}, torch.device("cuda"))
    assert not calls
    own = {**checkpoint.random_state(CPU), "cuda": torch.zeros(1)}
    checkpoint.restore_random_state(own, torch.device("cuda"))
    assert [state for state, _ in calls] == [own["cuda"]]


def test_a_state_belongs_to_the_checkpoint_with_its_weights(net, tmp_path, caplog):
    older = MODELS["mb1-ssd-lite"].build(3)
    put(net, tmp_path, [2.0])
    checkpoint.save(older, [tmp_path / "mb1-ssd-lite-Epoch-0-Loss-9.0.pth"], Results(0, 9.0))
    assert checkpoint.state_beside(tmp_path / "mb1-ssd-lite-Epoch-0-Loss-2.0.pth") is None
    checkpoint.save_state(tmp_path / "last.state", state_of(net, 0))
    assert checkpoint.state_beside(tmp_path / "mb1-ssd-lite-Epoch-0-Loss-2.0.pth") == tmp_path / "last.state"
    assert checkpoint.state_beside(tmp_path / "mb1-ssd-lite-Epoch-0-Loss-9.0.pth") is None
    state = tmp_path / "last.state"
    state.write_bytes(state.read_bytes()[:1000])
    assert checkpoint.state_beside(tmp_path / "mb1-ssd-lite-Epoch-0-Loss-2.0.pth") is None, "the way out of its message"
    assert f"{state}: cannot be read as the state of a run" in caplog.text


def test_what_resume_means(net, tmp_path):
    with pytest.raises(DataError, match="nothing to resume"):
        checkpoint.resume_source("", tmp_path)
    put(net, tmp_path, [2.0, 1.0])
    newest = tmp_path / "mb1-ssd-lite-Epoch-0-Loss-2.0.pth"
    os.utime(newest, (2e9, 2e9))
    assert checkpoint.resume_source("", tmp_path) == newest
    assert checkpoint.resume_source(str(tmp_path), tmp_path / "else") == newest
    checkpoint.save_state(tmp_path / "last.state", state_of(net, 1))
    assert checkpoint.resume_source("", tmp_path) == tmp_path / "last.state"
    assert checkpoint.resume_source(str(newest), tmp_path) == newest
    assert checkpoint.resume_source(newest.name, tmp_path) == newest, "as the tutorial names it"
    with pytest.raises(
        DataError, match=rf"--resume=gone.pth: no such file; {tmp_path} has last.state, mb1-ssd-lite-Epoch-"
    ):
        checkpoint.resume_source("gone.pth", tmp_path)
    with pytest.raises(
        DataError, match=rf"--resume={tmp_path}/x/gone.pth: no such file; {tmp_path}/x has no checkpoint"
    ):
        checkpoint.resume_source(f"{tmp_path}/x/gone.pth", tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "empty"), (b"\x80\x02garbage", "cannot be read"), (b"PK\x03\x04" + b"x" * 100, "cannot be read")],
)
def test_files_that_hold_no_weights(tmp_path, content, message):
    (tmp_path / "x.pth").write_bytes(content)
    with pytest.raises(DataError, match=f"x.pth: .*{message}"):
        read_weights(tmp_path / "x.pth")


@pytest.mark.parametrize("content", [[1, 2], {"model": {"a": 1}}, {}])
def test_files_that_hold_something_else(tmp_path, content):
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(DataError, match="expected a .*state_dict"):
        read_weights(tmp_path / "x.pth")


class Holder(torch.nn.Module):
    """A module with a net in it, as Lightning's have."""

    def __init__(self, net):
        super().__init__()
        self.model = net


class Compiled(torch.nn.Module):
    """Names its net's weights as `torch.compile` does, which takes seconds to be loaded."""

    def __init__(self, net):
        super().__init__()
        self._orig_mod = net


def parallel_backbone(net):
    again = copy.deepcopy(net)
    again.base_net = torch.nn.DataParallel(again.base_net)
    return again


@pytest.fixture(scope="module")
def named_net():
    net = MODELS["mb1-ssd-lite"].build(3, config=MODELS["mb1-ssd-lite"].config_at(96))
    net.class_names = ("BACKGROUND", "cat", "dog")
    return net


def assert_read_as(path, net):
    weights = read_weights(path)
    assert list(weights) == list(net.state_dict())
    assert all(torch.equal(value, weights[key]) for key, value in net.state_dict().items())
    assert describe_weights(weights, str(path)) == net.description()
    load_net(path)


@pytest.mark.parametrize(
    "wrap",
    [
        torch.nn.DataParallel,
        Compiled,
        lambda net: torch.nn.DataParallel(Compiled(net)),
        lambda net: Compiled(torch.nn.DataParallel(net)),
        torch.optim.swa_utils.AveragedModel,
        parallel_backbone,
        Holder,
    ],
    ids=["parallel", "compiled", "parallel-compiled", "compiled-parallel", "averaged", "parallel-backbone", "held"],
)
def test_weights_of_wrapped_nets_are_read(named_net, tmp_path, wrap):
    """DistributedDataParallel, which needs several processes, gives them the names that DataParallel does."""
    weights = wrap(named_net).state_dict()
    assert list(weights) != list(named_net.state_dict())
    torch.save(weights, tmp_path / "wrapped.pth")
    assert_read_as(tmp_path / "wrapped.pth", named_net)


@pytest.mark.parametrize("place", ["state_dict", "model_state_dict", "model", "net", "best_weights"])
def test_weights_beside_other_things_are_read(named_net, tmp_path, place):
    optimizer = torch.optim.SGD(named_net.parameters(), lr=0.1, momentum=0.9)
    others = {"epoch": 3, "optimizer": optimizer.state_dict(), "loss": torch.tensor(0.5), "history": [1.0, 2.0]}
    torch.save({**others, place: torch.nn.DataParallel(named_net).state_dict()}, tmp_path / "whole.pth")
    assert_read_as(tmp_path / "whole.pth", named_net)


@pytest.mark.skipif(not hasattr(torch.serialization, "safe_globals"), reason="PyTorch cannot pass over classes")
def test_objects_beside_weights_are_passed_over(named_net, tmp_path):
    """As torchvision's training scripts save their arguments, and others NumPy's numbers and paths."""
    others = {"args": argparse.Namespace(out=Path("/out"), lr=0.1), "best": np.float64(0.5), "curve": np.zeros(3)}
    torch.save({"model": named_net.state_dict(), **others}, tmp_path / "whole.pth")
    assert_read_as(tmp_path / "whole.pth", named_net)


def test_names_alone_are_enough(named_net, tmp_path):
    """What a comprehension leaves has no description; the net is recognized by what the names become."""
    net = MODELS["mb1-ssd-lite"].build(3)
    torch.save({f"module.{key}": value for key, value in net.state_dict().items()}, tmp_path / "x.pth")
    assert load_net(tmp_path / "x.pth").architecture == net.architecture
    backbone = {f"module.{key}": value for key, value in net.base_net.state_dict().items()}
    torch.save({"state_dict": backbone}, tmp_path / "base.pth")
    net.init_from_base_net(str(tmp_path / "base.pth"))


def test_no_net_has_names_that_are_taken_for_wrapping(tmp_path):
    for name in NET_NAMES:
        with torch.device("meta"):
            weights = MODELS[name].build(3).state_dict()
        assert unwrapped(weights) is weights, name


def test_names_that_would_meet_stay(tmp_path):
    """So that no weight is lost."""
    weights = {"a.weight": torch.zeros(1), "module.a.weight": torch.ones(1)}
    torch.save(weights, tmp_path / "x.pth")
    assert read_weights(tmp_path / "x.pth") == weights


class Trap:
    """Runs code when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (self.path, "w"))


@pytest.mark.parametrize("in_new_format", [True, False])
@pytest.mark.parametrize("hold", [lambda net: net, torch.nn.DataParallel, lambda net: {"model": net, "epoch": 1}])
def test_a_pickled_net_is_called_so(named_net, tmp_path, hold, in_new_format):
    torch.save(hold(named_net), tmp_path / "net.pth", _use_new_zipfile_serialization=in_new_format)
    with pytest.raises(DataError) as caught:
        read_weights(tmp_path / "net.pth")
    text = str(caught.value)
    for part in ("net.pth: holds a pickled object of class", "torch.save(net)", "torch.save(net.state_dict(), "):
        assert part in text
    assert "truncated" not in text


def test_nothing_in_a_file_is_run(named_net, tmp_path):
    for held in (Trap(str(tmp_path / "run")), {"model": named_net.state_dict(), "x": Trap(str(tmp_path / "run"))}):
        torch.save(held, tmp_path / "trap.pth")
        with contextlib.suppress(DataError):
            read_weights(tmp_path / "trap.pth")
    assert not (tmp_path / "run").exists()


def test_a_torchscript_program_is_called_so(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.pth", "w") as file:  # what tells it apart; saving one is deprecated
        for name in ("x/constants.pkl", "x/data.pkl", "x/version"):
            file.writestr(name, b"")
    with pytest.raises(DataError, match=r"x.pth: holds a TorchScript program.*torch.save\(net.state_dict\(\), "):
        read_weights(tmp_path / "x.pth")


def test_a_failed_write_leaves_the_old_file(tmp_path):
    (tmp_path / "a.txt").write_text("old")
    with pytest.raises(RuntimeError), replacing(tmp_path / "a.txt") as temporary:
        temporary.write_text("new")
        raise RuntimeError
    assert (tmp_path / "a.txt").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def published(path, **changes) -> pretrained.PublishedFile:
    import hashlib

    data = path.read_bytes()
    facts = {"url": path.as_uri(), "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    return pretrained.PublishedFile(**{**facts, **changes})


def publish(monkeypatch, target, facts):
    monkeypatch.setitem(pretrained.PUBLISHED, target.as_posix(), facts)


def test_a_download_is_checked_and_renamed(tmp_path, monkeypatch):
    (tmp_path / "remote").write_bytes(b"weights" * 1000)
    target = tmp_path / "models" / "ssd.pth"
    publish(monkeypatch, target, published(tmp_path / "remote"))
    pretrained.fetch(target, no_progress)
    assert target.read_bytes() == b"weights" * 1000


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sha256": "0" * 64}, "not the published file"),
        ({"size": 5}, "not the published file"),
        ({"url": "file:///no/such"}, "its download failed .file:///no/such: "),
    ],
)
def test_a_bad_download_leaves_nothing_and_names_the_ways_out(tmp_path, monkeypatch, changes, message):
    (tmp_path / "remote").write_bytes(b"weights")
    target = tmp_path / "models" / "ssd.pth"
    publish(monkeypatch, target, published(tmp_path / "remote", **changes))
    with pytest.raises(DataError, match=message) as caught:
        pretrained.fetch(target, no_progress)
    for way_out in ("--pretrained-ssd=none", "--pretrained-ssd=FILE", "--base-net=FILE"):
        assert way_out in str(caught.value)
    assert list(target.parent.iterdir()) == []


def test_weights_of_another_backbone_are_called_so(net, tmp_path):
    net.save(str(tmp_path / "lite.pth"))
    others = "--net=mb1-ssd or mb1-ssd-lite or mb1-ssd-fpnlite, or another file"
    message = f"is a mb1-ssd-lite checkpoint, --net is sq-ssd-lite with another backbone; use {others}"
    with pytest.raises(DataError, match=message):
        pretrained.initialize(
            MODELS["sq-ssd-lite"].build(3), pretrained.WeightsSource(pretrained.DETECTOR, str(tmp_path / "lite.pth"))
        )
    MODELS["mb2-ssd-lite"].build(3, width_mult=0.5).save(str(tmp_path / "half.pth"))
    for name in ("mb2-ssd-lite", "mb2-ssd-fpnlite"):
        with pytest.raises(DataError, match="has width 0.5, --mb2-width-mult is 1; use --mb2-width-mult=0.5"):
            pretrained.initialize(
                MODELS[name].build(3), pretrained.WeightsSource(pretrained.DETECTOR, str(tmp_path / "half.pth"))
            )
    weights = net.state_dict()
    del weights["base_net.0.0.weight"]
    torch.save(weights, tmp_path / "damaged.pth")
    with pytest.raises(
        DataError, match=r"damaged.pth: does not fit the net: 1 weights are missing \(first: 0.0.weight"
    ):
        pretrained.initialize(
            MODELS["mb1-ssd"].build(3), pretrained.WeightsSource(pretrained.DETECTOR, str(tmp_path / "damaged.pth"))
        )


@pytest.mark.parametrize(
    ("trained", "wanted", "further"),
    [
        ("mb1-ssd", "mb1-ssd-fpnlite", set()),
        ("mb1-ssd-fpnlite", "mb1-ssd", set()),
        ("mb2-ssd-lite", "mb2-ssd-fpnlite", set()),
        ("vgg16-ssd", "vgg16-ssd-l2", {"extras"}),
    ],
)
def test_a_net_of_the_same_backbone_gives_what_fits(trained, wanted, further, tmp_path, caplog):
    torch.manual_seed(3)
    start, net = MODELS[trained].build(4), MODELS[wanted].build(3)
    for buffer in start.buffers():
        if buffer.dtype == torch.float32:
            buffer.add_(0.5)  # what training would have left in batch norm
    start.config = replace(start.config, image_mean=(1.0, 2.0, 3.0))
    start.save(str(tmp_path / "start.pth"))
    before = {key: value.clone() for key, value in net.state_dict().items()}
    with caplog.at_level("INFO"):
        pretrained.initialize(net, pretrained.WeightsSource(pretrained.DETECTOR, str(tmp_path / "start.pth")))
    for key, value in net.state_dict().items():
        part = key.partition(".")[0]
        same = start.state_dict().get(key)
        if part == "base_net" or part in further:
            assert torch.equal(value, same), key
        elif value.dim() == 4:  # convolutions start anew
            assert not torch.equal(value, before[key]), key
            assert same is None or value.shape != same.shape or not torch.equal(value, same), key
    assert net.config.image_mean == (1.0, 2.0, 3.0)
    assert net.config.specs == MODELS[wanted].config_at().specs
    first, anew, unused = caplog.messages[-3:]
    taken = sum(not key.endswith("tracked") for key in before if key.partition(".")[0] in {"base_net", *further})
    total = sum(not key.endswith("tracked") for key in before)
    assert first == f"Init from pretrained ssd {tmp_path / 'start.pth'}: {taken} of {total} weights"
    assert "base_net" not in anew
    assert "classification_headers" in anew
    assert "classification_headers" in unused


@pytest.mark.parametrize("names", [("cat", "dog", "owl"), ("dog",), ("owl", "dog", "cat"), ("fox", "dog")])
def test_classes_of_the_same_names_keep_their_rows_of_the_heads(names, tmp_path, caplog):
    torch.manual_seed(3)
    start = MODELS["mb1-ssd-lite"].build(3, config=MODELS["mb1-ssd-lite"].config_at(96))
    start.class_names = ("BACKGROUND", "cat", "dog")
    start.save(str(tmp_path / "start.pth"))
    files = pretrained.WeightsSource(pretrained.DETECTOR, str(tmp_path / "start.pth"))
    net = MODELS["mb1-ssd-lite"].build(1 + len(names), config=start.config)
    net.class_names = ("BACKGROUND", *names)
    image = torch.rand(1, 3, 96, 96)
    with caplog.at_level("INFO"), torch.no_grad():
        pretrained.initialize(net, files)
        (of_start, start_boxes), (of_net, net_boxes) = start.eval()(image), net.eval()(image)
    kept = [name for name in names if name in start.class_names]
    new = [name for name in names if name not in kept]
    assert caplog.messages[-1] == (
        f"classes that the file knows: {', '.join(kept)}; new classes, which start from its mean over classes: "
        f"{', '.join(new) or 'none'}"
    )
    torch.testing.assert_close(start_boxes, net_boxes)
    for name in ("BACKGROUND", *kept):
        ours, theirs = of_net[..., net.class_names.index(name)], of_start[..., start.class_names.index(name)]
        torch.testing.assert_close(ours, theirs)
    for name in new:
        torch.testing.assert_close(of_net[..., net.class_names.index(name)], of_start[..., 1:].mean(dim=-1))
    with caplog.at_level("INFO"), torch.no_grad():
        pretrained.initialize(net, files, new_heads=True)
        assert not torch.equal(start_boxes, net(image)[1])
    assert "classification_headers" in caplog.messages[-1]


def test_a_pyramid_goes_to_a_pyramid_and_layers_of_another_shape_start_anew(tmp_path):
    """Nets to come may have other widths: what differs is left, layer by layer."""
    torch.manual_seed(3)
    start, net = MODELS["mb1-ssd-fpnlite"].build(4), MODELS["mb1-ssd-fpnlite"].build(3)
    weights = start.state_dict()
    weights["extras.1.0.weight"] = weights["extras.1.0.weight"][:64]
    description = replace(
        start.description(), architecture=Architecture("mb1-ssd")
    )  # of another net with this backbone
    matched = pretrained.load_layers(net, weights, description, "start.pth")
    parts = {key.rpartition(".")[0].partition(".")[0] for key in matched}
    assert parts == {"base_net", "pyramid", "extras"}
    assert {key for key in matched if key.startswith("extras.0.")}
    assert not {key for key in matched if key.startswith("extras.1.")}
    for key in matched:
        assert torch.equal(net.state_dict()[key], weights[key]), key


def test_backbones_of_another_net_are_called_so(net, tmp_path):
    torch.save(MODELS["mb2-ssd-lite"].build(2, width_mult=0.75).base_net.state_dict(), tmp_path / "v2.pth")
    net.save(str(tmp_path / "whole.pth"))
    for name, message in (
        ("v2", "is the backbone of mb2-ssd-lite, --net is mb1-ssd"),
        ("whole", "goes to --pretrained-ssd"),
    ):
        with pytest.raises(DataError, match=message):
            pretrained.initialize(
                MODELS["mb1-ssd"].build(3), pretrained.WeightsSource(pretrained.BACKBONE, str(tmp_path / f"{name}.pth"))
            )


def test_the_threshold_that_suits_travels_with_the_weights(net, tmp_path):
    net.threshold = None
    assert "threshold" not in net.description().to_dict(), "nobody measured it"
    path = tmp_path / "best.pth"
    try:
        net.threshold = 0.37
        checkpoint.save(net, [path], Results(0, 1.0))
    finally:
        net.threshold = None
    assert load_net(path).threshold == load_net(path, resolution=300).threshold == 0.37
    assert load_net(path, resolution=160).threshold is None, "at another size scores are others"
    torch.save({key: value for key, value in net.state_dict().items()}, tmp_path / "upstreams.pth")
    assert load_net(tmp_path / "upstreams.pth").threshold is None

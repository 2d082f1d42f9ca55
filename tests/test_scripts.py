"""The command lines, end to end on a few small pictures: what each option reaches, files, messages, exit codes."""

import io
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import onnx
import pytest
import torch
from conftest import CLASSES, ROOT

import detect
import eval_ssd
import onnx_export
import train_ssd
from vision import cli
from vision.datasets import synthetic
from vision.deploy.media import Source
from vision.engine import checkpoint, pretrained
from vision.ssd.models import MODELS, NET_NAMES
from vision.ssd.weights import read_weights

SMALL = (
    "--net=mb1-ssd-lite",
    "--resolution=96",
    "--device=cpu",
    "--workers=0",
    "--pretrained-ssd=none",
    "--seed=1",
)


@pytest.fixture
def script(capsys):
    """Run a script's main as the shell would: gives exit code, standard output and standard error."""

    def run(main, *words) -> SimpleNamespace:
        with pytest.raises(SystemExit) as stop:
            cli.run(main, [str(word) for word in words])
        out, err = capsys.readouterr()
        return SimpleNamespace(code=stop.value.code, out=out, err=err)

    return run


def train_words(data, model_dir, *more):
    return "--dataset-type=voc", f"--data={data}", f"--model-dir={model_dir}", *SMALL, *more


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory, voc_root) -> Path:
    """A folder after two epochs and an export."""
    folder = tmp_path_factory.mktemp("run") / "new" / "model"
    for main, words in (
        (train_ssd.main, train_words(voc_root, folder, "--epochs=2", "--batch-size=3", "--debug-steps=1")),
        (onnx_export.main, (f"--model-dir={folder}",)),
    ):
        main(list(words))
    return folder


# Training.


def test_training_writes_the_documented_lines_and_files(script, voc_root, tmp_path):
    folder = tmp_path / "deep" / "model"
    done = script(train_ssd.main, *train_words(voc_root, folder, "--epochs=1", "--batch-size=3", "--debug-steps=2"))
    assert (done.code, done.err) == (0, "")
    number = r"-?\d+\.\d{4}"
    lines = [re.sub(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d - ", "", line) for line in done.out.splitlines()]
    assert lines != done.out.splitlines(), "each line begins with the date"
    for pattern in (
        rf"Epoch: 0, Step: 2/2, Avg Loss: {number}, Avg Regression Loss {number}, Avg Classification Loss: {number}",
        rf"Epoch: 0, Training Loss: {number}, Training Regression Loss {number}, Training Classification Loss: {number}",
        rf"Epoch: 0, Validation Loss: {number}, Validation Regression Loss {number}, Validation Classification Loss: {number}",
        r"Saved model .*/mb1-ssd-lite-Epoch-0-Loss-\d+\.\d+\.pth",
        r"Epoch: 0, Mean Average Precision: .*",
    ):
        assert sum(bool(re.fullmatch(pattern, line)) for line in lines) == 1, pattern
    assert lines[-1] == "Task done, exiting program."
    names = sorted(path.name for path in folder.iterdir())
    epoch = next(name for name in names if "Epoch" in name)
    assert names == sorted([epoch, "best.pth", "last.pth", "last.state", "labels.txt", "tensorboard"])
    assert (folder / "labels.txt").read_text().split() == ["BACKGROUND", *CLASSES]
    loss = float(next(line for line in lines if "Validation Loss" in line).split()[4].rstrip(","))
    assert checkpoint.parse_name(epoch).loss == pytest.approx(loss, abs=1e-4)


def test_checkpoints_are_written_at_validated_epochs_and_the_last(script, voc_root, tmp_path):
    words = ("--epochs=3", "--validation-epochs=2", "--batch-size=6", "--no-validation-mean-ap")
    done = script(train_ssd.main, *train_words(voc_root, tmp_path, *words))
    assert done.code == 0
    epochs = sorted(named.epoch for path in tmp_path.glob("*.pth") if (named := checkpoint.parse_name(path.name)))
    assert epochs == [1, 2]
    assert done.out.count("Validation Loss") == 2
    assert "Mean Average Precision" not in done.out


def test_a_progress_bar_shows_on_a_terminal_only(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    for stream, shown in ((Terminal(), True), (io.StringIO(), False)):
        monkeypatch.setattr(sys, "stderr", stream)
        assert list(cli.progress(range(3), "Epoch 7", 3)) == [0, 1, 2]
        assert ("Epoch 7" in stream.getvalue()) == shown


def scalars(folder: Path) -> dict[str, int]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (run,) = (folder / "tensorboard").iterdir()
    assert re.fullmatch(r"\d{8}_\d{6}", run.name)
    accumulator = EventAccumulator(str(run))
    accumulator.Reload()
    return {tag: len(accumulator.Scalars(tag)) for tag in accumulator.Tags()["scalars"]}


def test_tensorboard_gets_the_documented_scalars(model_dir):
    expected = {f"{part}Loss/{kind}" for part in ("", "Regression ", "Classification ") for kind in ("train", "val")}
    expected |= {"Mean Average Precision/val"} | {f"Class Average Precision/{name}" for name in CLASSES}
    found = scalars(model_dir)
    assert set(found) == expected
    assert set(found.values()) == {2}


def test_without_tensorboard_training_goes_on(script, voc_root, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    done = script(train_ssd.main, *train_words(voc_root, tmp_path, "--epochs=1", "--no-validation-mean-ap"))
    assert done.code == 0
    assert "no curves for TensorBoard" in done.out


@pytest.fixture
def reached(monkeypatch, voc_root, tmp_path):
    """Run train_ssd.py up to its loop, and give what the loop was given."""

    def run(*words, data=None):
        seen = SimpleNamespace()

        def fit(objective, train_loader, val_loader, annotations, class_names, optimizer, schedule, run, **rest):
            seen.__dict__.update(locals())
            return iter(())

        monkeypatch.setattr(train_ssd, "fit", fit)
        monkeypatch.setattr(pretrained, "fetch", lambda *args: pytest.fail("no test downloads"))
        train_ssd.main([*train_words(data or voc_root, tmp_path / "model"), *map(str, words)])
        seen.net = seen.objective.net
        seen.rates = {group["name"]: group["lr"] for group in seen.optimizer.param_groups}
        return seen

    return run


def test_rates_reach_their_parts(reached):
    assert reached().rates == {"heads": 0.01, "extra_layers": 0.01, "base_net": 0.001}
    seen = reached("--lr=0.3", "--base-net-lr=0.1", "--extra-layers-lr=0.2", "--momentum=0.5", "--weight-decay=0.25")
    assert seen.rates == {"heads": 0.3, "extra_layers": 0.2, "base_net": 0.1}
    assert {(group["momentum"], group["weight_decay"]) for group in seen.optimizer.param_groups} == {(0.5, 0.25)}
    assert reached("--learning_rate=0.4").rates["extra_layers"] == 0.4


@pytest.mark.parametrize(
    ("word", "trained"),
    [("--freeze-base-net", {"heads", "extra_layers"}), ("--freeze_net", {"heads"})],
)
def test_freezing_reaches_the_loop(reached, word, trained):
    seen = reached(word)
    assert set(seen.rates) == trained
    assert seen.net.base_net in seen.rest["frozen"]
    assert (seen.net.extras in seen.rest["frozen"]) == ("extra_layers" not in trained)


def test_schedule_options_reach_the_loop(reached):
    seen = reached("--scheduler=multi-step", "--milestones=3,5", "--gamma=0.5", "--t-max=7.5", "--num-epochs=9")
    assert vars(seen.schedule) == {
        "scheduler": "multi-step",
        "epochs": 9,
        "milestones": (3, 5),
        "gamma": 0.5,
        "t_max": 7.5,
    }
    defaults = reached().schedule
    assert (defaults.scheduler, defaults.epochs, defaults.milestones, defaults.gamma, defaults.t_max) == (
        "cosine",
        30,
        (80, 100),
        0.1,
        None,
    )


def test_run_options_reach_the_loop(reached):
    seen = reached(
        "--validation-epochs=3",
        "--debug-steps=7",
        "--no-validation-mean-ap",
        "--batch-size=2",
        "--num-workers=1",
    )
    assert vars(seen.run) == {"validation_epochs": 3, "debug_steps": 7, "mean_ap": False}
    assert (seen.train_loader.batch_sampler.batch_size, seen.train_loader.num_workers) == (2, 1)
    defaults = reached()
    assert vars(defaults.run) == {"validation_epochs": 1, "debug_steps": 10, "mean_ap": True}
    assert defaults.train_loader.batch_sampler.batch_size == 4


@pytest.mark.parametrize("words", [("--use-cuda=false",), ("--no-cuda",), ("--device=cpu",), ("--use_cuda=False",)])
def test_the_device_reaches_the_net(reached, words):
    assert next(reached(*words).net.parameters()).device.type == "cpu"


def test_device_choice(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a GPU")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert cli.choose_device("auto", True)[0].type == "cuda"
    assert cli.choose_device("auto", False)[0].type == "cpu"
    assert cli.choose_device("cuda:0", True)[0] == torch.device("cuda:0")
    for name, use_cuda, message in (("cuda:1", True, "only 1 CUDA"), ("cuda", False, "contradict")):
        with pytest.raises(ValueError, match=message):
            cli.choose_device(name, use_cuda)


@pytest.mark.parametrize("words", [(), ("--use-cuda",), ("--use-cuda=true",), ("--use-cuda=1",)])
def test_use_cuda_is_on_by_default(words):
    assert train_ssd.parse_args(words).use_cuda is True


def test_resolution_and_width_reach_the_net(reached):
    net = reached("--net=mb2-ssd-lite", "--mb2-width-mult=0.5", "--resolution=128x96").net
    assert net.architecture["net"] == "mb2-ssd-lite"
    assert net.base_net[0][0].weight.shape[0] == 16
    assert net.config.width_height == (128, 96)
    batch = next(iter(reached("--resolution=128x96").train_loader))
    assert batch.images.shape[1:] == (3, 96, 128)


def test_augmentation_reaches_the_samples(reached):
    for kind in ("ssd", "light", "none"):
        resampler = reached(f"--augmentation={kind}").train_loader.dataset.resampler
        assert [type(step).__name__ for step in resampler.geometry] == {
            "ssd": ["Expand", "RandomSampleCrop", "RandomMirror"],
            "light": ["RandomSampleCrop", "RandomMirror"],
            "none": [],
        }[kind]
        assert (resampler.photometry is None) == (kind != "ssd")


def test_balancing_reaches_the_data(reached, tmp_path):
    one = [
        synthetic.drawings(n, n, size=(64, 64), class_names=(name,), objects=(1, 1))
        for n, name in ((6, "ball"), (2, "star"))
    ]
    synthetic.write_voc(tmp_path / "data", {"train": one[0] + one[1], "test": one[1]})
    assert len(reached(data=tmp_path / "data").train_loader.dataset) == 8
    assert len(reached("--balance-data", data=tmp_path / "data").train_loader.dataset) == 4


def test_several_folders_are_merged(reached, voc_root, tmp_path):
    shutil.copytree(voc_root, tmp_path / "second")
    (tmp_path / "second" / "labels.txt").write_text("cone\nstar\nball\nboard\n")
    seen = reached("--data", voc_root, tmp_path / "second")
    assert len(seen.train_loader.dataset) == 12
    assert len(seen.annotations) == 6
    assert seen.class_names == ("BACKGROUND", *CLASSES)
    assert seen.annotations[0].labels.tolist() == seen.annotations[3].labels.tolist()
    assert reached("--datasets", voc_root).class_names == ("BACKGROUND", *CLASSES)


def test_seeds_decide(reached):
    one, other, third = reached("--seed=5"), reached("--seed=5"), reached("--seed=6")
    weights = [seen.net.base_net[0][0].weight for seen in (one, other, third)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert one.train_loader.dataset.seed == 5


@pytest.mark.parametrize(("net", "dataset_type", "epochs"), [("mb1-ssd", "open_images", 30)])
def test_defaults(net, dataset_type, epochs):
    args = train_ssd.parse_args([])
    assert (args.net, args.dataset_type, args.data, args.resolution) == (net, dataset_type, ["data"], 300)
    assert (args.epochs, args.workers, args.model_dir, args.log_level) == (epochs, 2, Path("models"), "info")
    assert train_ssd.parse_args(["--checkpoint-folder=x"]).model_dir == Path("x")


def test_log_level(script, voc_root, tmp_path):
    done = script(
        train_ssd.main,
        *train_words(voc_root, tmp_path, "--epochs=1", "--no-validation-mean-ap", "--log-level=warning"),
    )
    assert (done.code, done.out) == (0, "")


# Starting weights.


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """An empty working directory, but for a stand-in of the published checkpoint: 21 classes, weights all 0.5."""
    monkeypatch.chdir(tmp_path)
    net = MODELS["mb1-ssd"].build(21)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.fill_(0.5)
    net.save("models/mobilenet-v1-ssd-mp-0_675.pth")
    return tmp_path


def is_filled(weight) -> bool:
    return bool((weight == 0.5).all())


def test_precedence_of_starting_weights(reached, stand_in, voc_root):
    """A default file yields to --base-net; a typed one counts; heads are always new."""
    torch.save(MODELS["mb1-ssd"].build(2).base_net.state_dict(), "base.pth")
    start = train_ssd.parse_args
    try:
        # The fixture types --pretrained-ssd=none; leave it out here.
        train_ssd.parse_args = lambda argv: start(
            [w for w in argv if w not in ("--pretrained-ssd=none", "--net=mb1-ssd-lite")]
        )
        default = reached()
        assert is_filled(default.net.extras[0][0].weight)
        assert is_filled(default.net.base_net[0][0].weight)
        assert not is_filled(default.net.classification_headers[0].weight)
        based = reached("--base-net=base.pth")
        assert not is_filled(based.net.extras[0][0].weight)
        assert torch.equal(based.net.base_net[0][0].weight, torch.load("base.pth", weights_only=True)["0.0.weight"])
        typed = reached("--pretrained_ssd=models/mobilenet-v1-ssd-mp-0_675.pth")
        assert is_filled(typed.net.extras[0][0].weight)
    finally:
        train_ssd.parse_args = start
    assert not is_filled(reached("--net=mb1-ssd").net.base_net[0][0].weight), "none is from scratch"


def test_nets_without_published_weights_start_from_scratch_and_say_so(script, voc_root, tmp_path, monkeypatch):
    monkeypatch.setattr(train_ssd, "fit", lambda *args, **rest: iter(()))
    words = [word for word in train_words(voc_root, tmp_path) if word != "--pretrained-ssd=none"]
    done = script(train_ssd.main, *words)
    assert done.code == 0
    assert "no published checkpoint of mb1-ssd-lite is known" in done.out


def test_without_the_file_and_without_network_the_ways_out_are_named(script, voc_root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = MODELS["mb1-ssd"].published_weights
    monkeypatch.setitem(pretrained.PUBLISHED, path, pretrained.PublishedFile("http://127.0.0.1:9/none.pth", 1, "0"))
    for words in ((), (f"--pretrained-ssd={path}",), ("--pretrained-ssd=other.pth",)):
        done = script(train_ssd.main, "--dataset-type=voc", f"--data={voc_root}", "--device=cpu", *words)
        assert_refused(
            done, "other.pth" if "other.pth" in str(words) else path, "--pretrained-ssd=none", "--base-net=FILE"
        )
        assert ("download" in done.err) == ("other.pth" not in str(words))


@pytest.mark.parametrize("more", [("--num-workers=0", "--batch-size=4", "--epochs=100"), ()])
def test_the_tutorials_commands_run_as_printed(stand_in, pictures, more):
    synthetic.write_voc(stand_in / "data" / "drone", {"trainval": pictures["train"][:2], "test": pictures["test"][:1]})
    command = ["--dataset-type=voc", "--data=data/drone/", "--model-dir=models/drone/", "--resolution=512"]
    done = subprocess.run(
        [sys.executable, ROOT / "train_ssd.py", *command, *more, "--epochs=1"],
        cwd=stand_in,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "Init from pretrained ssd models/mobilenet-v1-ssd-mp-0_675.pth" in done.stdout
    assert len(list((stand_in / "models/drone").glob("mb1-ssd-Epoch-0-Loss-*.pth"))) == 1


# Resume.


def test_resume_goes_on_as_if_nothing_had_happened(script, voc_root, tmp_path):
    words = ("--batch-size=3", "--no-validation-mean-ap", "--epochs=3")
    whole = script(train_ssd.main, *train_words(voc_root, tmp_path / "whole", *words))
    assert whole.code == 0

    # Stop the same run after two of its three epochs.
    import itertools

    real_fit = train_ssd.fit
    train_ssd.fit = lambda *args, **rest: itertools.islice(real_fit(*args, **rest), 2)
    try:
        assert script(train_ssd.main, *train_words(voc_root, tmp_path / "cut", *words)).code == 0
    finally:
        train_ssd.fit = real_fit
    resumed = script(train_ssd.main, *train_words(voc_root, tmp_path / "cut", *words, "--resume"))
    assert resumed.code == 0
    assert "epoch 2 goes on" in resumed.out
    assert "Epoch: 0" not in resumed.out
    one, other = (read_weights(folder / "last.pth") for folder in (tmp_path / "whole", tmp_path / "cut"))
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_resume_from_a_checkpoint_that_has_no_state_takes_weights_only(script, voc_root, model_dir, tmp_path):
    source = next(model_dir.glob("*Epoch-0*.pth"))
    done = script(train_ssd.main, *train_words(voc_root, tmp_path, "--epochs=1", f"--resume={source}"))
    assert done.code == 0
    assert "weights only" in done.out
    assert "Epoch: 0" in done.out


def test_resume_of_a_finished_run_says_so(script, voc_root, model_dir, tmp_path):
    shutil.copytree(model_dir, tmp_path / "m")
    done = script(train_ssd.main, *train_words(voc_root, tmp_path / "m", "--epochs=2", "--resume"))
    assert done.code == 0
    assert "its 2 epochs are done; --epochs=4" in done.out


def test_a_refused_resume_leaves_the_labels_alone(script, own_voc, model_dir, tmp_path):
    shutil.copytree(model_dir, tmp_path / "m")
    before = (tmp_path / "m/labels.txt").read_text()
    (own_voc / "labels.txt").write_text("star\nball\nboard\ncone\n")
    done = script(train_ssd.main, *train_words(own_voc, tmp_path / "m", "--resume"))
    assert_refused(done, "was trained on", "resume with the same classes")
    assert (tmp_path / "m/labels.txt").read_text() == before


def test_what_is_better():
    assert train_ssd.is_better({"loss": 1.0}, {})
    assert train_ssd.is_better({"loss": 9.0, "mean_ap": 0.6}, {"loss": 1.0, "mean_ap": 0.5})
    assert not train_ssd.is_better({"loss": 0.1, "mean_ap": 0.4}, {"loss": 1.0, "mean_ap": 0.5})
    assert not train_ssd.is_better({"loss": 2.0}, {"loss": 1.0, "mean_ap": 0.5})


def test_a_resumed_run_knows_the_best_before_it(model_dir, tmp_path):
    assert train_ssd.best_so_far(model_dir) == checkpoint.results_of(model_dir / "best.pth") != {}
    assert train_ssd.best_so_far(tmp_path) == {}


def test_batches_too_small_for_batch_norm(script, voc_root, tmp_path):
    words = [word for word in train_words(voc_root, tmp_path / "m") if not word.startswith("--net")]
    done = script(train_ssd.main, *words, "--net=mb2-ssd-lite", "--batch-size=1")
    assert_refused(done, "--batch-size", "batch norm of mb2-ssd-lite at 96x96", "--batch-size=2")
    frozen = script(train_ssd.main, *words, "--net=mb2-ssd-lite", "--batch-size=1", "--freeze-net", "--epochs=1")
    assert frozen.code == 2, "a head has batch norm, too"
    assert script(train_ssd.main, *train_words(voc_root, tmp_path, "--batch-size=1", "--epochs=1")).code == 0


def test_what_goes_wrong_inside_is_one_line_too(script):
    def main(argv):
        raise RuntimeError("DataLoader worker (pid 5) is killed\nby signal")

    done = script(main)
    assert (done.code, done.err.count("\n")) == (1, 1)
    assert "DataLoader worker (pid 5) is killed by signal (RuntimeError)" in done.err


def test_resume_over_base_net_over_nothing(reached, model_dir):
    seen = reached(f"--resume={model_dir}", "--base-net=does-not-matter.pth")
    assert torch.equal(seen.net.extras[0][0].weight, read_weights(model_dir / "last.pth")["extras.0.0.weight"])
    assert seen.rest["first_epoch"] == 2


# Evaluation.


def test_evaluation_prints_both_aps_and_writes_reports(script, model_dir, voc_root, tmp_path):
    done = script(eval_ssd.main, f"--trained_model={model_dir}", f"--dataset={voc_root}", f"--eval-dir={tmp_path}")
    assert (done.code, done.err) == (0, "")
    assert "Average Precision Per-class:\nball: " in done.out
    assert re.search(r"^Average Precision Across All Classes: \S+$", done.out, re.M)
    assert re.search(r"class +objects +AP \(11-point\) +AP \(area\)", done.out)
    report = json.loads((tmp_path / "report.json").read_text())
    assert [entry["name"] for entry in report["classes"]] == list(CLASSES)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        ["report.json", *(f"det_test_{name}.txt" for name in CLASSES)]
    )


def headline(done) -> float:
    return float(re.search(r"Across All Classes: (\S+)", done.out)[1])


def test_evaluation_options_have_effects(script, model_dir, voc_root, tmp_path, monkeypatch):
    seen = []

    def record(self, image, **options):
        seen.append((options["nms_method"], options["iou_threshold"]))
        return type(self).detect_really(self, image, **options)

    from vision.deploy.session import TorchSession

    monkeypatch.setattr(TorchSession, "detect_really", TorchSession.detect, raising=False)
    monkeypatch.setattr(TorchSession, "detect", record)
    thresholds = []
    real = eval_ssd.evaluate

    def evaluate(found, annotations, names, iou_threshold):
        thresholds.append(iou_threshold)
        report = real(found, annotations, names, iou_threshold)
        faked = [type(c)(c.name, c.objects, 0.25, 0.75) for c in report.classes]
        return type(report)(tuple(faked))

    monkeypatch.setattr(eval_ssd, "evaluate", evaluate)
    words = (f"--model={model_dir}", f"--data={voc_root}", f"--eval-dir={tmp_path}", "--device=cpu")
    assert headline(script(eval_ssd.main, *words)) == 0.25
    assert headline(script(eval_ssd.main, *words, "--use-2007-metric=false", "--iou-threshold=0.7")) == 0.75
    assert thresholds == [0.5, 0.7]
    script(eval_ssd.main, *words, "--nms-method=soft", "--nms-iou-threshold=0.3")
    assert seen[0] == ("hard", 0.45)
    assert seen[-1] == ("soft", 0.3)


def test_the_onnx_file_scores_what_its_checkpoint_scores(script, model_dir, voc_root, tmp_path):
    maps = [
        headline(script(eval_ssd.main, f"--model={model}", f"--data={voc_root}", f"--eval-dir={tmp_path}"))
        for model in (model_dir / "best.pth", model_dir / "mb1-ssd-lite.onnx")
    ]
    assert maps[0] == pytest.approx(maps[1], abs=0.002)


def test_a_checkpoint_copied_away_alone_needs_no_options(script, model_dir, voc_root, tmp_path):
    alone = tmp_path / "alone" / "copied.pth"
    alone.parent.mkdir()
    shutil.copy(model_dir / "best.pth", alone)
    picture = next((voc_root / "JPEGImages").iterdir())
    for main, words in (
        (eval_ssd.main, (f"--model={alone}", f"--data={voc_root}", f"--eval-dir={tmp_path / 'eval'}")),
        (onnx_export.main, (f"--input={alone}",)),
        (detect.main, (f"--model={alone}", f"--input={picture}", f"--output={tmp_path / 'out'}")),
    ):
        done = script(main, *words)
        assert (done.code, done.err) == (0, "")
    assert (alone.parent / "mb1-ssd-lite.onnx").is_file()
    assert (alone.parent / "labels.txt").read_text().split() == ["BACKGROUND", *CLASSES]


def test_a_file_of_upstreams_kind_takes_labels_beside_it_or_named(script, model_dir, voc_root, tmp_path):
    weights = {key: value for key, value in read_weights(model_dir / "best.pth").items()}
    torch.save(weights, tmp_path / "plain.pth")
    words = (
        f"--model={tmp_path / 'plain.pth'}",
        f"--data={voc_root}",
        f"--eval-dir={tmp_path / 'e'}",
        "--resolution=96",
    )
    assert_refused(script(eval_ssd.main, *words), "labels.txt")
    (tmp_path / "names.txt").write_text("a\nb\n")
    assert_refused(
        script(eval_ssd.main, *words, f"--labels={tmp_path / 'names.txt'}"),
        "names 3 classes",
        "the model has 5",
    )
    shutil.copy(voc_root / "labels.txt", tmp_path / "names.txt")
    assert script(eval_ssd.main, *words, f"--label-file={tmp_path / 'names.txt'}").code == 0
    shutil.copy(model_dir / "labels.txt", tmp_path / "labels.txt")
    assert script(eval_ssd.main, *words).code == 0


def test_names_in_a_file_yield_to_those_in_the_checkpoint(script, model_dir, voc_root, tmp_path):
    (tmp_path / "names.txt").write_text("a\nb\nc\nd\n")
    done = script(
        eval_ssd.main,
        f"--model={model_dir}",
        f"--data={voc_root}",
        f"--eval-dir={tmp_path}",
        f"--labels={tmp_path / 'names.txt'}",
    )
    assert "using the model's" in done.out
    assert "\nball: " in done.out


# Export.


def test_export_takes_the_best_and_names_the_command(script, model_dir, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(model_dir, folder)
    (folder / "mb1-ssd-lite.onnx").unlink()
    (folder / "mb1-ssd-lite.onnx.1.1.8502.GPU.FP16.engine").touch()
    done = script(onnx_export.main, f"--model-dir={folder}")
    assert (done.code, done.err) == (0, "")
    assert "best checkpoint of" in done.out
    command = re.search(r"detectnet --model.*", done.out)[0]
    for word in (
        f"--model={folder}/mb1-ssd-lite.onnx",
        f"--labels={folder}/labels.txt",
        "--input-blob=input_0",
        "--output-cvg=scores",
        "--output-bbox=boxes",
    ):
        assert word in command
    assert "engine was built from an older export" in done.out


def test_labels_beside_an_export_are_those_of_the_model(script, model_dir, tmp_path):
    words = (f"--input={model_dir / 'best.pth'}", f"--output={tmp_path / 'x.onnx'}")
    (tmp_path / "labels.txt").write_text("ball\nboard\ncone\nstar\n")
    done = script(onnx_export.main, *words)
    assert done.code == 0
    assert (tmp_path / "labels.txt").read_text() == "ball\nboard\ncone\nstar\n"
    assert (tmp_path / "x.labels.txt").read_text().split() == ["BACKGROUND", *CLASSES]
    assert f"--labels={tmp_path}/x.labels.txt" in done.out


def test_the_best_of_a_folder_is_of_the_net_asked_for(script, model_dir, voc_root, tmp_path):
    shutil.copy(next(model_dir.glob("*Epoch-1*")), tmp_path / "mb1-ssd-lite-Epoch-1-Loss-9.0.pth")
    other = MODELS["mb1-ssd"].build(5, config=MODELS["mb1-ssd"].config_at(96))
    other.class_names = ("BACKGROUND", *CLASSES)
    other.save(str(tmp_path / "mb1-ssd-Epoch-0-Loss-0.1.pth"))
    for main, words in (
        (eval_ssd.main, (f"--model={tmp_path}", f"--data={voc_root}", f"--eval-dir={tmp_path / 'e'}")),
        (detect.main, (f"--model={tmp_path}", f"--input={voc_root}/JPEGImages", f"--output={tmp_path / 'o'}")),
        (onnx_export.main, (f"--input={tmp_path}",)),
    ):
        done = script(main, *words, "--net=mb1-ssd-lite")
        assert (done.code, done.err) == (0, "")


@pytest.mark.parametrize(
    ("words", "written"),
    [
        ((), "ssd-mobilenet.onnx"),
        (("--net=mb1-ssd",), "mb1-ssd.onnx"),
        (("--net=ssd-mobilenet",), "ssd-mobilenet.onnx"),
        (("--output=my.onnx",), "my.onnx"),
        (("--output=sub/my.onnx",), "../sub/my.onnx"),
    ],
)
def test_names_of_exported_files(script, tmp_path, monkeypatch, words, written):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "model"
    net = MODELS["mb1-ssd"].build(2, config=MODELS["mb1-ssd"].config_at(96))
    net.class_names = ("BACKGROUND", "a")
    net.save(str(folder / checkpoint.file_name("mb1-ssd", 0, 1.0)))
    done = script(onnx_export.main, "--model-dir=model", *words)
    assert (done.code, done.err) == (0, "")
    assert (folder / written).resolve().is_file()


def input_shape(path) -> list[int]:
    return [dim.dim_value for dim in onnx.load(str(path)).graph.input[0].type.tensor_type.shape.dim]


def test_export_options_reach_the_file(script, model_dir, tmp_path):
    source = model_dir / "best.pth"
    for words, shape in (
        ((), [1, 3, 96, 96]),
        (("--batch-size=2",), [2, 3, 96, 96]),
        (("--width=128", "--height=96"), [1, 3, 96, 128]),
        (("--resolution=128x96",), [1, 3, 96, 128]),
    ):
        done = script(onnx_export.main, f"--input={source}", f"--output={tmp_path / 'x.onnx'}", *words)
        assert (done.code, done.err) == (0, "")
        assert input_shape(tmp_path / "x.onnx") == shape
    assert "was trained at 96x96" in done.out
    done = script(
        onnx_export.main,
        "--input=best.pth",
        f"--model-dir={model_dir}",
        f"--output={tmp_path / 'y.onnx'}",
        "--net=mb1-lite-ssd",
    )
    assert done.code == 0


def test_export_passes_over_checkpoints_of_other_class_counts(script, model_dir, tmp_path):
    net = MODELS["mb1-ssd-lite"].build(3, config=MODELS["mb1-ssd-lite"].config_at(96))
    net.class_names = ("BACKGROUND", "x", "y")
    net.save(str(tmp_path / "mb1-ssd-lite-Epoch-0-Loss-5.0.pth"))
    shutil.copy(next(model_dir.glob("*Epoch-1*")), tmp_path / "mb1-ssd-lite-Epoch-1-Loss-1.0.pth")
    (tmp_path / "two.txt").write_text("x\ny\n")
    done = script(onnx_export.main, f"--model-dir={tmp_path}", "--labels=two.txt")
    assert (done.code, done.err) == (0, "")
    assert "Loss-5.0" in done.out


# Detection.


@pytest.fixture(scope="module")
def sure_model(model_dir, tmp_path_factory) -> Path:
    """The trained net with a bias that makes it see balls everywhere: something to draw."""
    from vision.deploy.session import load_net

    net = load_net(model_dir / "best.pth")
    with torch.no_grad():
        for head in net.classification_headers:
            conv = head[-1] if isinstance(head, torch.nn.Sequential) else head
            conv.bias[1 :: net.num_classes] += 9.0
            conv.bias[2 :: net.num_classes] += 8.8
    path = tmp_path_factory.mktemp("sure") / "sure.pth"
    net.save(str(path))
    return path


def test_detection_draws_and_lists(script, sure_model, voc_root, tmp_path):
    done = script(
        detect.main,
        f"--model={sure_model}",
        f"--input={voc_root}/JPEGImages/test*.jpg",
        f"--output={tmp_path}",
        "--save-txt",
        "--threshold=0.2",
    )
    assert (done.code, done.err) == (0, "")
    entries = json.loads((tmp_path / "detections.json").read_text())
    assert len(entries) == 3
    for entry in entries:
        name = Path(entry["image"]).name
        assert (entry["width"], entry["height"]) == (96, 80)
        assert entry["detections"]
        assert all(d["score"] > 0.2 and d["class"] in CLASSES and len(d["box"]) == 4 for d in entry["detections"])
        drawn, plain = (cv2.imread(str(path)) for path in (tmp_path / name, entry["image"]))
        assert drawn.shape == plain.shape
        assert np.abs(drawn.astype(int) - plain).max() > 60
        lines = (tmp_path / name).with_suffix(".txt").read_text().splitlines()
        assert len(lines) == len(entry["detections"])
        assert lines[0].split()[0] == entry["detections"][0]["class"]


def found(folder: Path) -> list[dict]:
    return [d for entry in json.loads((folder / "detections.json").read_text()) for d in entry["detections"]]


def test_detection_options_have_effects(script, sure_model, voc_root, tmp_path):
    base = (
        f"--model={sure_model}",
        f"--input={voc_root}/JPEGImages/test_00000.jpg",
        f"--output={tmp_path}",
        "--threshold=0.1",
    )

    def run(*words):
        assert script(detect.main, *base, *words).code == 0
        return found(tmp_path)

    plain = run()
    assert {d["class"] for d in plain} == {"ball", "board"}
    middle = np.median([d["score"] for d in plain])
    assert len(run(f"--threshold={middle}")) == sum(d["score"] > middle for d in plain) < len(plain)
    assert len(run("--top-k=1")) == 2
    assert {d["class"] for d in run("--classes=board, cone")} == {"board"}
    assert len(run("--nms-iou-threshold=0.1")) < len(plain) < len(run("--nms-iou-threshold=0.8"))
    soft = {d["score"] for d in run("--nms-method=soft")}
    assert soft != {d["score"] for d in plain}
    (tmp_path / "detections.json").unlink()
    assert script(detect.main, *base, "--no-save-json").code == 0
    assert not (tmp_path / "detections.json").exists()


def test_show_opens_a_window_until_q(script, sure_model, voc_root, tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr(cv2, "imshow", lambda name, image: shown.append(image.shape))
    monkeypatch.setattr(cv2, "waitKey", lambda wait: ord("q"))
    words = (f"--model={sure_model}", f"--input={voc_root}/JPEGImages", f"--output={tmp_path}")
    assert script(detect.main, *words).code == 0
    assert shown == []
    assert script(detect.main, *words, "--show").code == 0
    assert shown == [(80, 96, 3)]


@pytest.fixture
def video(tmp_path, pictures) -> Path:
    path = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10.0, (96, 80))
    for drawing in pictures["train"]:
        writer.write(cv2.cvtColor(drawing.image, cv2.COLOR_RGB2BGR))
    writer.release()
    return path


@pytest.mark.parametrize(("output", "written"), [("out", "out/clip.mp4"), ("drawn.avi", "drawn.avi")])
def test_videos_in_videos_out(script, sure_model, video, tmp_path, output, written):
    done = script(
        detect.main,
        f"--model={sure_model}",
        f"--input={video}",
        f"--output={tmp_path / output}",
        "--save-txt",
    )
    assert (done.code, done.err) == (0, "")
    capture = cv2.VideoCapture(str(tmp_path / written))
    assert capture.get(cv2.CAP_PROP_FPS) == pytest.approx(10)
    assert sum(capture.read()[0] for _ in range(10)) == 6
    capture.release()
    entries = json.loads(((tmp_path / written).parent / "detections.json").read_text())
    assert [entry["image"].rpartition("#")[2] for entry in entries] == list("012345")
    assert len(list((tmp_path / written).parent.glob("*_[0-5].txt"))) == 6


def test_cameras_are_asked_for_by_index_or_device(monkeypatch):
    asked = []

    class Camera:
        def __init__(self, target):
            asked.append(target)
            self.frames = 3

        def isOpened(self):
            return True

        def get(self, what):
            return 0.0

        def read(self):
            self.frames -= 1
            return self.frames >= 0, np.zeros((4, 4, 3), np.uint8)

        def release(self):
            pass

    monkeypatch.setattr(cv2, "VideoCapture", Camera)
    for text in ("0", "/dev/video1", "rtsp://host/stream"):
        source = Source(text)
        assert source.is_video
        assert source.total is None
        assert len(list(source)) == 3
    assert asked == [0, "/dev/video1", "rtsp://host/stream"]


def test_one_picture_to_one_file(script, sure_model, voc_root, tmp_path):
    picture = voc_root / "JPEGImages/test_00000.jpg"
    assert (
        script(detect.main, f"--model={sure_model}", f"--input={picture}", f"--output={tmp_path / 'drawn.png'}").code
        == 0
    )
    assert cv2.imread(str(tmp_path / "drawn.png")).shape == (80, 96, 3)
    done = script(
        detect.main,
        f"--model={sure_model}",
        f"--input={picture.parent}",
        f"--output={tmp_path / 'drawn.png'}",
    )
    assert_refused(done, "drawn.png", "one picture cannot take the many", "name a folder")


def test_originals_are_never_overwritten(script, sure_model, voc_root, video, tmp_path):
    picture = tmp_path / "in" / "a.jpg"
    picture.parent.mkdir()
    shutil.copy(voc_root / "JPEGImages/test_00000.jpg", picture)
    before = {path: path.read_bytes() for path in (picture, video)}
    for source, output in (
        (picture, picture),
        (picture, picture.parent),
        (picture.parent, picture.parent),
        (video, video),
    ):
        done = script(detect.main, f"--model={sure_model}", f"--input={source}", f"--output={output}")
        assert_refused(done, "would overwrite the original", "name another folder")
    assert {path: path.read_bytes() for path in before} == before


def test_pictures_of_one_name_do_not_meet(script, sure_model, voc_root, tmp_path):
    for number, folder in enumerate(("a", "b")):
        (tmp_path / folder).mkdir()
        shutil.copy(voc_root / f"JPEGImages/test_0000{number}.jpg", tmp_path / folder / "x.jpg")
    cv2.imwrite(str(tmp_path / "b" / "x.png"), cv2.imread(str(tmp_path / "b" / "x.jpg")))
    done = script(
        detect.main, f"--model={sure_model}", f"--input={tmp_path}/[ab]/*", f"--output={tmp_path / 'o'}", "--save-txt"
    )
    assert done.code == 0
    written = sorted(path.name for path in (tmp_path / "o").iterdir())
    assert written == ["detections.json", "x.jpg", "x.txt", "x_2.jpg", "x_2.txt", "x_3.png", "x_3.txt"]


# Bad input: one line that names the thing and the way out, exit code 2.


def assert_refused(done, *fragments: str) -> None:
    assert done.code == 2
    assert done.err.count("\n") == 1, done.err
    assert "Traceback" not in done.err + done.out
    assert re.match(r"\S+: error: ", done.err)
    for fragment in fragments:
        assert fragment in done.err


def test_data_that_is_not_there(script, tmp_path):
    assert_refused(
        script(train_ssd.main, *train_words(tmp_path / "none", tmp_path / "m")),
        "none: no such folder",
        "--data",
    )
    (tmp_path / "empty").mkdir()
    assert_refused(
        script(train_ssd.main, *train_words(tmp_path / "empty", tmp_path / "m")),
        "no picture set",
        "trainval.txt",
    )
    done = script(train_ssd.main, *train_words(tmp_path / "empty", tmp_path / "m"), "--dataset-type=open_images")
    assert_refused(done, "sub-train-annotations-bbox.csv", "no such file")
    done = script(train_ssd.main, *train_words(tmp_path / "empty", tmp_path / "m"), "--dataset-type=auto")
    assert_refused(done, "empty: holds no dataset of a known format")


@pytest.mark.parametrize(
    ("word", "fragments"),
    [
        ("--net=mb1-sdd", ("--net", "mb1-sdd", "did you mean mb1-ssd?")),
        ("--dataset-type=openimages", ("--dataset-type", "did you mean open_images?", "voc")),
        ("--batch-size=0", ("--batch-size", "'0'", "at least 1")),
        ("--batch-size=many", ("--batch-size", "'many'", "whole number")),
        ("--epochs=-1", ("--epochs", "at least 1")),
        ("--workers=-1", ("--workers", "at least 0")),
        ("--lr=fast", ("--lr", "'fast'", "number")),
        ("--lr=nan", ("--lr", "'nan'", "number")),
        ("--resolution=10", ("mb1-ssd-lite", "10x10", "at least 32")),
        ("--resolution=big", ("--resolution", "'big'", "512x288")),
        ("--milestones=1,x", ("--milestones", "80,100")),
        ("--scheduler=cosin", ("--scheduler", "did you mean cosine?")),
        ("--mb2-width-mult=0.5", ("width", "mb2-ssd-lite")),
        ("--mb2-width-mult=2", ("--mb2-width-mult", "at most 1.4")),
        ("--device=gpu", ("--device", "'gpu'", "cuda")),
        ("--log-level=loud", ("--log-level", "debug")),
        ("--momentum=2", ("--momentum", "at most 1")),
        ("--no-such-option", ("--no-such-option",)),
        ("--base-net=x.pth", ("--base-net and --pretrained-ssd", "leave one out")),
    ],
)
def test_options_that_make_no_sense(script, voc_root, tmp_path, word, fragments):
    assert_refused(script(train_ssd.main, *train_words(voc_root, tmp_path / "m"), word), *fragments)


def test_vgg_says_the_least_it_takes(script, voc_root, tmp_path):
    done = script(train_ssd.main, *train_words(voc_root, tmp_path / "m"), "--net=vgg16-ssd", "--resolution=256")
    assert_refused(done, "vgg16-ssd", "256x256", "268")


@pytest.mark.parametrize("option", ["--pretrained-ssd", "--resume", "--base-net"])
@pytest.mark.parametrize(
    ("content", "fragment"),
    [
        (b"", "empty"),
        (b"PK\x03\x04 cut off", "truncated"),
        (b"some text", "cannot be read"),
        (None, "no such file"),
    ],
)
def test_weights_that_are_none(script, voc_root, tmp_path, option, content, fragment):
    path = tmp_path / "x.pth"
    if content is not None:
        path.write_bytes(content)
    words = [word for word in train_words(voc_root, tmp_path / "m") if not word.startswith("--pretrained")]
    assert_refused(script(train_ssd.main, *words, f"{option}={path}"), str(path), fragment)


def test_weights_of_another_net_or_other_classes(script, voc_root, model_dir, tmp_path):
    MODELS["sq-ssd-lite"].build(5).save(str(tmp_path / "sq.pth"))
    MODELS["mb1-ssd-lite"].build(9).save(str(tmp_path / "nine.pth"))
    words = [word for word in train_words(voc_root, tmp_path / "m") if not word.startswith("--pretrained")]
    for option in ("--pretrained-ssd", "--resume"):
        done = script(train_ssd.main, *words, f"{option}={tmp_path / 'sq.pth'}")
        assert_refused(done, "sq.pth: is a sq-ssd-lite checkpoint, --net is mb1-ssd-lite")
    done = script(train_ssd.main, *words, f"--resume={tmp_path / 'nine.pth'}")
    assert_refused(done, "nine.pth: was trained on 9 classes", "--pretrained-ssd")
    done = script(train_ssd.main, *words, f"--resume={model_dir}", "--resolution=128")
    assert_refused(done, "was trained at 96x96", "add --resolution=96x96")
    for main, extra in (
        (eval_ssd.main, (f"--data={voc_root}",)),
        (detect.main, (f"--input={voc_root}/JPEGImages",)),
    ):
        done = script(main, f"--model={tmp_path / 'sq.pth'}", "--net=mb1-ssd", *extra)
        assert_refused(done, "is a sq-ssd-lite checkpoint, --net is mb1-ssd")
    torch.save(MODELS["sq-ssd-lite"].build(2).base_net.state_dict(), tmp_path / "base.pth")
    assert_refused(script(onnx_export.main, f"--input={tmp_path / 'base.pth'}"), "backbone, which go to --base-net")


def test_a_table_that_does_not_parse(script, open_images_root, tmp_path):
    shutil.copytree(open_images_root, tmp_path / "data")
    (tmp_path / "data/sub-train-annotations-bbox.csv").write_text("no,table\n1,2\n")
    done = script(train_ssd.main, *train_words(tmp_path / "data", tmp_path / "m"), "--dataset-type=open_images")
    assert_refused(done, "sub-train-annotations-bbox.csv: lacks the columns ImageID")


def test_an_xml_that_does_not_parse(script, own_voc, tmp_path):
    (own_voc / "Annotations/train_00003.xml").write_text("<annotation><object>")
    assert_refused(
        script(train_ssd.main, *train_words(own_voc, tmp_path / "m")), "train_00003.xml: not readable as XML"
    )


@pytest.mark.parametrize("workers", [0, 1])
def test_a_picture_that_does_not_decode(script, own_voc, tmp_path, workers):
    path = own_voc / "JPEGImages/train_00003.jpg"
    whole = path.read_bytes()
    path.write_bytes(b"not a picture")
    assert_refused(script(train_ssd.main, *train_words(own_voc, tmp_path / "m")), "train_00003.jpg: cannot be decoded")
    # Its header says that it is one, its pixels are gone: found when it is read.
    path.write_bytes(whole[: whole.index(b"\xff\xda")])
    done = script(train_ssd.main, *train_words(own_voc, tmp_path / "m"), f"--workers={workers}")
    assert_refused(done, "train_00003.jpg: cannot be decoded")


def test_a_picture_to_detect_in_that_does_not_decode(script, sure_model, tmp_path):
    (tmp_path / "x.jpg").write_bytes(b"not a picture")
    done = script(detect.main, f"--model={sure_model}", f"--input={tmp_path / 'x.jpg'}", f"--output={tmp_path / 'o'}")
    assert_refused(done, "x.jpg: cannot be decoded")
    for name, fragment in (
        ("none.jpg", "no such picture"),
        ("o", "holds no picture"),
        ("*.png", "no such picture"),
    ):
        (tmp_path / "o").mkdir(exist_ok=True)
        assert_refused(script(detect.main, f"--model={sure_model}", f"--input={tmp_path / name}"), name, fragment)
    (tmp_path / "x.mp4").write_bytes(b"not a video")
    assert_refused(script(detect.main, f"--model={sure_model}", f"--input={tmp_path / 'x.mp4'}"), "cannot be opened")


def test_a_model_folder_that_cannot_be_written(script, voc_root, model_dir, tmp_path):
    (tmp_path / "file").write_text("")
    below = tmp_path / "file" / "model"
    assert_refused(script(train_ssd.main, *train_words(voc_root, below)), f"--model-dir={below}", "name another folder")
    done = script(onnx_export.main, f"--input={model_dir / 'best.pth'}", f"--output={below}/x.onnx")
    assert_refused(done, str(below), "name another folder")
    done = script(eval_ssd.main, f"--model={model_dir}", f"--data={voc_root}", f"--eval-dir={below}")
    assert_refused(done, f"--eval-dir={below}", "name another folder")
    done = script(detect.main, f"--model={model_dir}", f"--input={voc_root}/JPEGImages", f"--output={below}")
    assert_refused(done, f"--output={below}", "name another folder")


@pytest.mark.skipif(torch.cuda.is_available(), reason="here CUDA is available")
def test_cuda_that_is_not_there(script, voc_root, model_dir, tmp_path):
    words = [word for word in train_words(voc_root, tmp_path) if not word.startswith("--device")]
    assert_refused(script(train_ssd.main, *words, "--device=cuda"), "--device=cuda", "--device=cpu")
    assert_refused(script(detect.main, f"--model={model_dir}", "--input=x.jpg", "--device=cuda:1"), "--device=cuda:1")
    assert_refused(script(eval_ssd.main, f"--model={model_dir}", f"--data={voc_root}", "--device=mps"), "--device=mps")


def test_an_onnx_file_that_is_none(script, voc_root, tmp_path):
    (tmp_path / "x.onnx").write_bytes(b"none")
    done = script(eval_ssd.main, f"--model={tmp_path / 'x.onnx'}", f"--data={voc_root}")
    assert_refused(done, "x.onnx: cannot be read as an ONNX model")
    done = script(detect.main, f"--model={tmp_path / 'x.onnx'}", f"--input={voc_root}/JPEGImages")
    assert_refused(done, "x.onnx: cannot be read as an ONNX model")


def test_nothing_to_export_or_resume(script, voc_root, tmp_path):
    assert_refused(script(onnx_export.main, f"--model-dir={tmp_path}"), "no checkpoint that can be used")
    assert_refused(script(onnx_export.main, f"--model-dir={tmp_path / 'none'}"), "no such folder")
    assert_refused(script(train_ssd.main, *train_words(voc_root, tmp_path, "--resume")), "nothing to resume")
    assert_refused(script(onnx_export.main, "--width=300"), "--width and --height belong together")
    assert_refused(script(onnx_export.main, "--width=300", "--height=300", "--resolution=300"), "leave one out")


def test_classes_that_the_model_does_not_have(script, sure_model, voc_root):
    done = script(detect.main, f"--model={sure_model}", f"--input={voc_root}/JPEGImages", "--classes=ball,dog")
    assert_refused(done, "dog is not among ball, board, cone, star")


def test_nothing_to_validate_on(script, pictures, tmp_path):
    synthetic.write_coco(tmp_path / "data", {"train": pictures["train"], "val": []})
    done = script(train_ssd.main, *train_words(tmp_path / "data", tmp_path / "m"), "--dataset-type=coco")
    assert_refused(done, "no picture to validate on", "validation split")


def test_no_object_of_a_known_class(script, own_voc, tmp_path):
    (own_voc / "labels.txt").write_text("fifty mph\n")
    assert_refused(script(train_ssd.main, *train_words(own_voc, tmp_path / "m")), "fifty mph", "labels.txt")


def test_a_loss_that_is_not_finite_ends_the_run_before_it_is_saved(script, voc_root, tmp_path):
    done = script(
        train_ssd.main,
        *train_words(voc_root, tmp_path, "--lr=1e20", "--base-net-lr=1e20", "--epochs=3", "--batch-size=1"),
    )
    assert_refused(done, "the loss is not finite at epoch", "--lr")
    for path in tmp_path.glob("*.pth"):
        assert all(torch.isfinite(value).all() for value in read_weights(path).values())


def test_ctrl_c_is_no_traceback(script):
    def main(argv):
        raise KeyboardInterrupt

    done = script(main)
    assert (done.code, done.err.count("\n")) == (130, 1)


def test_a_clean_run_prints_no_warnings(voc_root, tmp_path):
    command = [
        sys.executable,
        "-W",
        "default",
        ROOT / "train_ssd.py",
        *train_words(voc_root, tmp_path, "--epochs=1", "--workers=1"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "warning" not in done.stdout.lower()


@pytest.mark.parametrize(
    "parse", [train_ssd.parse_args, eval_ssd.parse_args, onnx_export.parse_args, detect.parse_args]
)
def test_help_knows_every_net(capsys, parse):
    with pytest.raises(SystemExit) as stop:
        parse(["--help"])
    assert stop.value.code == 0
    said = "".join(capsys.readouterr().out.split())
    assert [name for name in NET_NAMES if name not in said] == []

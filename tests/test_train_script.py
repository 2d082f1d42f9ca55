"""train_ssd.py end to end on a few small images: files and messages, what each option reaches, starting weights, resume."""

import io
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import CLASSES, ROOT, assert_refused, train_argv

import eval_ssd
import onnx_export
import train_ssd
from vision import cli
from vision.boxes.priors import CellPrior, FreePriorLevel
from vision.datasets import synthetic
from vision.deploy.torch_session import load_net
from vision.engine import checkpoint, devices, pretrained, trainer
from vision.evaluation.coco import FIGURE_NAMES
from vision.options.training import Options
from vision.ssd.description import Results
from vision.ssd.models import MODELS
from vision.ssd.weights import read_weights


def test_training_writes_the_documented_lines_and_files(script, voc_root, tmp_path):
    folder = tmp_path / "deep" / "model"
    argv = train_argv(voc_root, folder, "--epochs=1", "--batch-size=3", "--debug-steps=2", plots=True)
    done = script(train_ssd.main, *argv)
    assert (done.code, done.err) == (0, "")
    number = r"-?\d+\.\d{4}"
    lines = [re.sub(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d - ", "", line) for line in done.out.splitlines()]
    assert lines != done.out.splitlines(), "each line begins with the date"
    for pattern in (
        rf"Epoch: 0, Step: 2/2, Avg Loss: {number}, Avg Regression Loss {number}, Avg Classification Loss: {number}, "
        r"[\d.]+ images/s, \d+ s left",
        rf"Epoch: 0, Training Loss: {number}, Training Regression Loss {number}, Training Classification Loss: {number}",
        rf"Epoch: 0, Validation Loss: {number}, Validation Regression Loss {number}, Validation Classification Loss: {number}",
        r"Saved model .*/mb1-ssd-lite-Epoch-0-Loss-\d+\.\d+\.pth",
        r"Epoch: 0, Mean Average Precision: .*",
    ):
        assert sum(bool(re.fullmatch(pattern, line)) for line in lines) == 1, pattern
    assert lines[-1] == "Task done, exiting program."
    names = sorted(path.name for path in folder.glob("[!.]*"))
    epoch = next(name for name in names if "Epoch" in name)
    assert names == sorted(
        [
            epoch,
            "args.json",
            "audit.json",
            "results.csv",
            "best.pth",
            "last.pth",
            "last.state",
            "labels.txt",
            "log.txt",
            "priors.json",
            "results.png",
            "tensorboard",
            "train_batch.jpg",
            "val_batch.jpg",
        ]
    )
    assert (folder / "labels.txt").read_text().split() == ["BACKGROUND", *CLASSES]
    loss = float(next(line for line in lines if "Validation Loss" in line).split()[4].rstrip(","))
    assert checkpoint.parse_name(epoch).loss == pytest.approx(loss, abs=1e-4)


def test_checkpoints_are_written_at_validated_epochs_and_the_last(script, voc_root, tmp_path):
    argv = ("--epochs=3", "--validation-epochs=2", "--batch-size=6", "--no-validation-mean-ap")
    done = script(train_ssd.main, *train_argv(voc_root, tmp_path, *argv))
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


def tensorboard(folder: Path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (run,) = (folder / "tensorboard").iterdir()
    assert re.fullmatch(r"\d{8}_\d{6}", run.name)
    accumulator = EventAccumulator(str(run))
    accumulator.Reload()
    return accumulator


def test_tensorboard_gets_the_documented_scalars(model_dir):
    expected = {f"{part}Loss/{kind}" for part in ("", "Regression ", "Classification ") for kind in ("train", "val")}
    expected |= {"Mean Average Precision/val"} | {f"Class Average Precision/{name}" for name in CLASSES}
    written = tensorboard(model_dir)
    found = {tag: len(written.Scalars(tag)) for tag in written.Tags()["scalars"]}
    assert expected < set(found)
    sizes = {"small", "medium", "large"}
    with_objects = {f"COCO {name}/val" for name in FIGURE_NAMES if not sizes & set(name.split())}
    rest = {name for name in set(found) - expected - with_objects if not sizes & set(name.split("/")[0].split())}
    rates = {f"Learning Rate/{name}" for name in ("base_net", "extra_layers", "heads")}
    assert rest == {"Best Threshold/val"} | {f"Class Best F1/{name}" for name in CLASSES} | rates
    assert set(found.values()) == {2}
    assert {tag: [image.step for image in written.Images(tag)] for tag in written.Tags()["images"]} == {
        "train_batch": [0],
        "val_batch": [0, 1],
    }


def test_without_tensorboard_training_goes_on(script, voc_root, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    done = script(train_ssd.main, *train_argv(voc_root, tmp_path, "--epochs=1", "--no-validation-mean-ap"))
    assert done.code == 0
    assert "no curves for TensorBoard" in done.out


@pytest.fixture
def reached(monkeypatch, voc_root, tmp_path):
    """Run train_ssd.py up to its epochs, and give the run, with the loaders that the epochs were given."""

    def run(*argv, data=None):
        seen = SimpleNamespace()

        def train_no_epoch(run, train_loader, val_loader, **_):
            vars(seen).update(run=run, train_loader=train_loader, val_loader=val_loader)
            return iter(())

        monkeypatch.setattr(trainer, "train_epochs", train_no_epoch)
        monkeypatch.setattr(pretrained, "fetch", lambda *args: pytest.fail("no test downloads"))
        argv = list(map(str, argv))
        usual = train_argv(data or voc_root, tmp_path / "model")
        if any(re.match("--base.net(=|$)", word) for word in argv):  # which contradicts the usual start from scratch
            usual = [word for word in usual if not word.startswith("--pretrained-ssd")]
        train_ssd.main([*usual, *argv])
        seen.net, seen.class_names = seen.run.net, seen.run.net.class_names
        seen.optimizer = seen.run.train_step.optimizer
        seen.rates = {group["name"]: group["lr"] for group in seen.optimizer.param_groups}
        return seen

    return run


def test_rates_reach_their_parts(reached):
    assert reached("--lr=0.2", "--base-net-lr=0.1").rates == {"heads": 0.2, "extra_layers": 0.2, "base_net": 0.1}
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
    assert seen.net.base_net in seen.run.train_step.frozen
    assert (seen.net.extras in seen.run.train_step.frozen) == ("extra_layers" not in trained)


def test_schedule_options_reach_the_loop(reached):
    seen = reached("--scheduler=multi-step", "--milestones=3,5", "--gamma=0.5", "--t-max=7.5", "--num-epochs=9")
    schedule = seen.run.train_step.options
    assert (schedule.scheduler, schedule.epochs, schedule.milestones, schedule.gamma, schedule.t_max) == (
        "multi-step",
        9,
        (3, 5),
        0.5,
        7.5,
    )
    defaults = reached().run.train_step.options
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
    options = seen.run.options
    assert (options.validation_epochs, options.debug_steps, options.validation_mean_ap) == (3, 7, False)
    assert seen.run.settings[:3] == (2, 1, 1)
    assert (seen.train_loader.batch_sampler.batch_size, seen.train_loader.num_workers) == (2, 1)
    defaults = reached()
    options = defaults.run.options
    assert (options.validation_epochs, options.debug_steps, options.validation_mean_ap) == (1, 10, True)
    assert defaults.run.settings[:3] == (4, 1, 0)
    assert defaults.train_loader.batch_sampler.batch_size == 4


@pytest.mark.parametrize("argv", [("--use-cuda=false",), ("--no-cuda",), ("--device=cpu",), ("--use_cuda=False",)])
def test_the_device_reaches_the_net(reached, argv):
    assert next(reached(*argv).net.parameters()).device.type == "cpu"


def test_device_choice(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a GPU")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert devices.choose_device("auto", True)[0].type == "cuda"
    assert devices.choose_device("auto", False)[0].type == "cpu"
    assert devices.choose_device("cuda:0", True)[0] == torch.device("cuda:0")
    for name, use_cuda, message in (("cuda:1", True, "only 1 CUDA"), ("cuda", False, "contradict")):
        with pytest.raises(ValueError, match=message):
            devices.choose_device(name, use_cuda)


@pytest.mark.parametrize("argv", [(), ("--use-cuda",), ("--use-cuda=true",), ("--use-cuda=1",)])
def test_use_cuda_is_on_by_default(argv):
    assert train_ssd.parse_args(argv).use_cuda is True


def test_resolution_and_width_reach_the_net(reached):
    net = reached("--net=mb2-ssd-lite", "--mb2-width-mult=0.5", "--resolution=128x96").net
    assert net.architecture.net == "mb2-ssd-lite"
    assert net.base_net[0][0].weight.shape[0] == 16
    assert net.config.width_height == (128, 96)
    batch = next(iter(reached("--resolution=128x96").train_loader))
    assert batch.images.shape[1:] == (3, 96, 128)


def test_augmentation_reaches_the_samples(reached):
    for kind in ("ssd", "light", "none"):
        transform = reached(f"--augmentation={kind}").train_loader.dataset.transform
        assert [type(step).__name__ for step in transform.geometry] == {
            "ssd": ["Expand", "RandomSampleCrop", "RandomMirror"],
            "light": ["RandomSampleCrop", "RandomMirror"],
            "none": [],
        }[kind]
        assert (transform.photometry is None) == (kind != "ssd")


@pytest.mark.parametrize(
    ("argv", "times"),
    [
        (("--epochs=1",), 1),
        (("--epochs=9",), 1),
        (("--epochs=10",), 2),
        (("--epochs=30",), 6),
        (("--epochs=30", "--repeat=auto"), 6),
        (("--epochs=600", "--batch-size=6"), 2),
        (("--epochs=30", "--repeat=1"), 1),
        (("--epochs=1", "--repeat=3"), 3),
        (("--epochs=30", "--recipe=upstream"), 1),
    ],
)
def test_an_epoch_goes_through_few_images_more_than_once(reached, capsys, argv, times):
    seen = reached(*argv)
    samples = seen.train_loader.dataset
    assert len(samples) == 6 * times
    drawn = [key for batch in seen.train_loader.batch_sampler for key in batch]
    assert sorted(drawn) == [(0, index) for index in range(6 * times)]
    said = "6 images are few: each epoch goes through them" in capsys.readouterr().out
    assert said == (times > 1 and "--repeat=3" not in argv)
    if times > 1:
        assert samples.dataset.ids[0] == samples.dataset.ids[6]
        assert not torch.equal(samples[0, 0].image, samples[0, 6].image), "augmented in its own way"


def test_a_run_that_goes_on_keeps_its_repeats(script, voc_root, tmp_path, reached):
    """However many epochs it is to have now; a state that does not say is of a version that went through once."""
    state_path = tmp_path / "model" / "last.state"
    done = script(
        train_ssd.main, *train_argv(voc_root, tmp_path / "model", "--epochs=1", "--repeat=2", "--batch-size=6")
    )
    assert done.code == 0
    assert len(reached("--resume", "--epochs=40").train_loader.dataset) == 12
    assert len(reached("--resume", "--epochs=40", "--repeat=1").train_loader.dataset) == 6
    state = torch.load(state_path, weights_only=True)
    del state["data_order"]["repeats"]
    torch.save(state, state_path)
    assert len(reached("--resume", "--epochs=40").train_loader.dataset) == 6


def test_balancing_reaches_the_data(reached, tmp_path):
    one = [
        synthetic.drawings(n, n, size=(64, 64), class_names=(name,), objects=(1, 1))
        for n, name in ((6, "ball"), (2, "star"))
    ]
    synthetic.write_voc(tmp_path / "data", {"train": one[0] + one[1], "test": one[1]})
    once = "--repeat=1"
    assert len(reached(once, data=tmp_path / "data").train_loader.dataset) == 8
    assert len(reached(once, "--balance-data", data=tmp_path / "data").train_loader.dataset) == 4


def test_several_folders_are_merged(reached, voc_root, tmp_path):
    shutil.copytree(voc_root, tmp_path / "second")
    (tmp_path / "second" / "labels.txt").write_text("cone\nstar\nball\nboard\n")
    seen = reached("--repeat=1", "--data", voc_root, tmp_path / "second")
    assert len(seen.train_loader.dataset) == 12
    assert len(seen.run.annotations) == 6
    assert seen.class_names == ("BACKGROUND", *CLASSES)
    assert seen.run.annotations[0].labels.tolist() == seen.run.annotations[3].labels.tolist()
    assert reached("--datasets", voc_root).class_names == ("BACKGROUND", *CLASSES)


def test_other_folders_to_validate_on(reached, script, voc_root, images, tmp_path):
    others = {"one": {"test": images["test"][:2], "train": images["train"]}, "two": {"any": images["test"][2:]}}
    for name, splits in others.items():
        synthetic.write_voc(tmp_path / name, splits)
    shutil.rmtree(tmp_path / "two" / "ImageSets")
    (tmp_path / "one" / "labels.txt").write_text("cone\nstar\nball\nboard\nbat\n")
    seen = reached("--repeat=1", "--validation-dataset", tmp_path / "one", tmp_path / "two")
    assert len(seen.train_loader.dataset) == 6
    assert len(seen.run.annotations) == 3, "the test images of one, and all of two, which has no lists"
    assert seen.class_names == ("BACKGROUND", *CLASSES), "those that are trained"
    assert len(reached("--repeat=1", "--validation_dataset", tmp_path / "two").run.annotations) == 1
    argv = train_argv(voc_root, tmp_path / "m", f"--validation-dataset={tmp_path / 'two'}", "--val-split=0.2")
    assert_refused(script(train_ssd.main, *argv), "--validation-dataset", "--val-split", "leave one out")
    argv = train_argv(voc_root, tmp_path / "m", f"--validation-dataset={tmp_path / 'none'}")
    assert_refused(script(train_ssd.main, *argv), "none: no such folder")


#: Of the parent repository's README, but for paths, and epochs in the place of hundreds.
PARENTS_COMMANDS = {
    "mb1": "--net mb1-ssd --base_net models/mb1.pth --batch_size 24 --num_epochs 1 --scheduler cosine --lr 0.01 --t_max 200",
    "mb2": "--net mb2-ssd-lite --base_net models/mb2.pth --scheduler cosine --lr 0.01 --t_max 200 --validation_epochs 5 "
    "--num_epochs 1",
    "vgg": "--net vgg16-ssd --resolution 300 --base_net models/vgg.pth --batch_size 24 --num_epochs 1 --scheduler multi-step "
    "--milestones 120,160",
    "mb1 again": "--net mb1-ssd --pretrained_ssd models/ssd.pth --scheduler cosine --lr 0.01 --t_max 100 "
    "--validation_epochs 5 --num_epochs 1 --base_net_lr 0.001 --batch_size 5 --balance_data",
}


@pytest.mark.parametrize("command", PARENTS_COMMANDS)
def test_commands_of_the_parent_repository_run(reached, voc_root, tmp_path, command):
    net = next(name for name in ("mb1-ssd", "mb2-ssd-lite", "vgg16-ssd") if name in PARENTS_COMMANDS[command])
    whole = MODELS[net].build(5, config=MODELS[net].config_at(300))
    whole.init()
    files = {"base_net": whole.base_net.state_dict(), "pretrained_ssd": whole.state_dict()}
    words = PARENTS_COMMANDS[command].split()
    for option, weights in files.items():
        if f"--{option}" in words:
            place = words.index(f"--{option}") + 1
            torch.save(weights, tmp_path / f"{option}.pth")
            words[place] = str(tmp_path / f"{option}.pth")
    seen = reached("--datasets", voc_root, voc_root, "--validation_dataset", voc_root, *words)
    assert seen.class_names == ("BACKGROUND", *CLASSES)
    assert len(seen.run.annotations) == 3


def test_seeds_decide(reached):
    one, other, third = reached("--seed=5"), reached("--seed=5"), reached("--seed=6")
    weights = [seen.net.base_net[0][0].weight for seen in (one, other, third)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert one.train_loader.dataset.seed == 5


def test_priors_reach_the_net_and_are_written_down(reached, script, voc_root, tmp_path):
    spec = MODELS["mb1-ssd-lite"]
    assert reached("--priors=upstream").net.config == spec.config_at(96)
    assert reached("--priors=coco").net.config == spec.coco_config_at(96)
    fitted = reached().net.config
    assert fitted == reached("--priors=auto").net.config
    assert any(isinstance(level, FreePriorLevel) for level in fitted.specs)
    written = tmp_path / "model" / "priors.json"
    shutil.copy(written, tmp_path / "mine.json")
    again = reached(f"--priors={tmp_path / 'mine.json'}").net.config
    assert again == fitted
    larger = reached(f"--priors={tmp_path / 'mine.json'}", "--resolution=192").net.config
    assert larger.specs[0].cell_priors[0].width == 2 * fitted.specs[0].cell_priors[0].width


def test_a_run_that_goes_on_keeps_its_priors_whatever_is_asked_for(script, voc_root, model_dir, tmp_path):
    folder = shutil.copytree(model_dir, tmp_path / "m")
    own = load_net(folder / "last.pth").config
    argv = train_argv(voc_root, folder, "--epochs=3", "--batch-size=3", "--no-validation-mean-ap")
    for more, said in (
        (("--resume",), False),
        (("--resume", "--priors=auto"), False),
        (("--auto-resume", f"--priors={folder / 'priors.json'}"), False),
        (("--auto-resume", "--recipe=upstream"), True),
    ):
        done = script(train_ssd.main, *argv, *more)
        assert done.code == 0, done.err
        assert ("--priors=upstream is for new runs: this one goes on with its own priors" in done.out) == said
        assert load_net(folder / "last.pth").config == own


def test_priors_are_fitted_to_what_is_trained_on(reached, own_voc):
    """A difficult object is not."""
    fitted = reached(data=own_voc).net.config
    for path in (own_voc / "Annotations").glob("*.xml"):
        box = "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>95</xmax><ymax>9</ymax></bndbox>"
        odd = f"<object><name>ball</name><difficult>1</difficult>{box}</object></annotation>"
        path.write_text(path.read_text().replace("</annotation>", odd))
    assert reached(data=own_voc).net.config == fitted


def test_a_recipe_is_defaults_that_belong_together(reached):
    def steps(seen) -> list[str]:
        return [type(step).__name__ for step in seen.train_loader.dataset.transform.geometry]

    published = MODELS["mb1-ssd-lite"].config_at(96)
    seen = reached("--recipe=upstream")
    assert seen.net.config == published
    assert steps(seen) == ["Expand", "RandomSampleCrop", "RandomMirror"]
    seen = reached("--recipe=upstream", "--augmentation=none")
    assert seen.net.config == published
    assert steps(seen) == [], "what is typed counts"
    rates = train_ssd.parse_args(["--recipe=upstream"])
    assert (rates.lr, rates.base_net_lr, rates.clip_grad, rates.smooth_l1_beta) == (0.01, 0.001, None, 1.0)
    assert train_ssd.parse_args(["--recipe=upstream", "--lr=0.5"]).lr == 0.5
    seen = reached()
    assert seen.net.config != published
    assert steps(seen) == ["RandomSampleCrop", "RandomMirror"]


@pytest.mark.parametrize(
    ("argv", "optimizer", "rates"),
    [
        (("--net=sq-ssd-lite",), "adamw", (3e-3, 3e-4)),
        (("--net=sq-ssd-lite", "--weight-decay=0.1"), "adamw", (3e-3, 3e-4)),
        (("--net=sq-ssd-lite", "--optimizer=adamw"), "adamw", (3e-3, 3e-4)),
        (("--net=sq-ssd-lite", "--optimizer=adamw", "--lr=0.01"), "adamw", (0.01, 3e-4)),
        (("--net=sq-ssd-lite", "--optimizer=sgd"), "sgd", (0.03, 0.01)),
        (("--optimizer=adam",), "adam", (1e-3, 3e-4)),
        (("--optimizer=adamw", "--base-net-lr=0.01"), "adamw", (1e-3, 0.01)),
        (("--net=sq-ssd-lite", "--lr=0.02"), "sgd", (0.02, 0.01)),
        (("--net=sq-ssd-lite", "--momentum=0.8"), "sgd", (0.03, 0.01)),
        (("--net=sq-ssd-lite", "--recipe=upstream"), "sgd", (0.01, 0.001)),
        (("--net=mb1-ssd",), "sgd", (0.03, 0.01)),
    ],
)
def test_a_net_has_rates_of_its_own_where_none_are_typed(argv, optimizer, rates):
    options = train_ssd.parse_args(argv)
    assert (options.optimizer, (options.lr, options.base_net_lr)) == (optimizer, rates)
    assert options.momentum == (0.8 if "--momentum=0.8" in argv else 0.9)


def test_recall_of_fitted_priors_is_said(script, voc_root, tmp_path):
    done = script(train_ssd.main, *train_argv(voc_root, tmp_path, "--epochs=1", "--no-validation-mean-ap"))
    found = re.search(r"priors: (\d+), fitted .* recall (\S+), with --priors=upstream (\S+)\n", done.out)
    assert int(found[1]) == len(load_net(tmp_path / "last.pth").priors)
    assert float(found[2]) > float(found[3])
    assert f"best possible recall {found[2]} (" in done.out, "the audit looks at the same priors"


@pytest.mark.parametrize(("sizes", "is_said"), [((0.05, 0.08), True), ((0.6, 0.8), False)])
def test_small_objects_call_for_a_finer_net(reached, capsys, tmp_path, sizes, is_said):
    drawn = synthetic.drawings(4, 1, size=(480, 480), class_names=("ball",), objects=(1, 1), size_range=sizes)
    synthetic.write_voc(tmp_path / "data", {"train": drawn, "test": drawn})
    reached(data=tmp_path / "data")
    lines = capsys.readouterr().out.splitlines()
    ways = "100% of your objects are smaller .* may miss them. Try --net=mb1-ssd-fpnlite or --resolution=192x192"
    assert [bool(re.search(ways, line)) for line in lines if "of your objects are" in line] == [True] * is_said


@pytest.mark.parametrize(("net", "dataset_type", "epochs"), [("mb1-ssd", "auto", 30)])
def test_defaults(net, dataset_type, epochs):
    args = train_ssd.parse_args([])
    assert (args.net, args.dataset_type, args.data, args.resolution) == (net, dataset_type, ("data",), 300)
    assert (args.epochs, args.workers, args.model_dir, args.log_level) == (epochs, 2, Path("models"), "info")
    assert train_ssd.parse_args(["--checkpoint-folder=x"]).model_dir == Path("x")


def test_all_scripts_go_by_what_is_on_disk():
    assert train_ssd.parse_args([]).dataset_type == "auto"
    assert eval_ssd.parse_args(["--model=m", "--data=d"]).dataset_type == "auto"
    assert onnx_export.parse_args([]).dataset_type == "auto"


def test_defaults_of_options_and_of_the_command_line_are_the_same():
    assert train_ssd.parse_args([]) == Options(net_by_default=True)


def test_log_level(script, voc_root, tmp_path):
    done = script(
        train_ssd.main,
        *train_argv(voc_root, tmp_path, "--epochs=1", "--no-validation-mean-ap", "--log-level=error"),
    )
    assert (done.code, done.out) == (0, "")


def test_a_clean_run_prints_no_warnings(voc_root, tmp_path):
    command = [
        sys.executable,
        "-W",
        "default",
        ROOT / "train_ssd.py",
        *train_argv(voc_root, tmp_path, "--epochs=1", "--workers=1"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "warning" not in done.stdout.lower()


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


def test_nets_without_weights_of_any_kind_start_from_scratch_and_say_so(script, voc_root, tmp_path, monkeypatch):
    monkeypatch.setattr(trainer, "train_epochs", lambda *args, **rest: iter(()))
    argv = [word for word in train_argv(voc_root, tmp_path) if word != "--pretrained-ssd=none"]
    done = script(train_ssd.main, *argv, "--net=sq-ssd-lite")
    assert done.code == 0
    assert "no published checkpoint of sq-ssd-lite is known" in done.out
    assert "STARTING FROM RANDOM WEIGHTS" in done.out


def test_without_the_file_and_without_network_the_ways_out_are_named(script, voc_root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = MODELS["mb1-ssd"].published_weights
    monkeypatch.setitem(pretrained.PUBLISHED, path, pretrained.PublishedFile("http://127.0.0.1:9/none.pth", 1, "0"))
    for argv in ((f"--pretrained-ssd={path}",), ("--pretrained-ssd=other.pth",)):
        done = script(train_ssd.main, "--dataset-type=voc", f"--data={voc_root}", "--device=cpu", *argv)
        assert_refused(
            done, "other.pth" if "other.pth" in str(argv) else path, "--pretrained-ssd=none", "--base-net=FILE"
        )
        assert ("download" in done.err) == ("other.pth" not in str(argv))


@pytest.mark.parametrize("more", [("--num-workers=0", "--batch-size=4", "--epochs=100"), ()])
def test_the_tutorials_commands_run_as_printed(stand_in, images, more):
    synthetic.write_voc(stand_in / "data" / "drone", {"trainval": images["train"][:2], "test": images["test"][:1]})
    command = ["--dataset-type=voc", "--data=data/drone/", "--model-dir=models/drone/", "--resolution=512"]
    done = subprocess.run(
        [
            sys.executable,
            ROOT / "train_ssd.py",
            *command,
            *more,
            "--epochs=1",
            "--seed=1",
        ],  # one epoch, nothing measured
        cwd=stand_in,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "Init from pretrained ssd models/mobilenet-v1-ssd-mp-0_675.pth" in done.stdout
    assert len(list((stand_in / "models/drone").glob("mb1-ssd-Epoch-0-Loss-*.pth"))) == 1


def test_what_came_from_a_file_and_what_did_not_is_said_in_three_lines(script, voc_root, model_dir, tmp_path):
    argv = [word for word in train_argv(voc_root, tmp_path / "m", "--dry-run") if not word.startswith("--pretrained")]
    done = script(train_ssd.main, *argv, f"--pretrained-ssd={model_dir / 'best.pth'}", "--new-heads")
    assert done.code == 0, done.err
    lines = [line.partition(" - ")[2] for line in done.out.splitlines()]
    net = read_weights(model_dir / "best.pth")
    trained = [key for key in net if not key.endswith("tracked")]
    heads = [sum(key.startswith(part) for key in trained) for part in ("classification_headers", "regression_headers")]
    counts = f"{heads[0]} of classification_headers, {heads[1]} of regression_headers"
    at = lines.index(
        f"Init from pretrained ssd {model_dir / 'best.pth'}: {len(trained) - sum(heads)} of {len(trained)} weights"
    )
    assert lines[at + 1 : at + 3] == [
        f"newly initialized (not in the file, or of other classes): {counts}",
        f"not used of the file: {counts}",
    ]
    backbone = {key.removeprefix("base_net."): value for key, value in net.items() if key.startswith("base_net.")}
    torch.save(backbone, tmp_path / "base.pth")
    done = script(train_ssd.main, *argv, f"--base-net={tmp_path / 'base.pth'}")
    came = sum(not key.endswith("tracked") for key in backbone)
    assert f"Init from base net {tmp_path / 'base.pth'}: {came} of {len(trained)} weights\n" in done.out
    assert f"of other classes): {heads[0]} of classification_headers, " in done.out
    assert "not used of the file: nothing\n" in done.out


def test_heads_that_know_the_classes_keep_their_rows_and_priors(script, voc_root, model_dir, tmp_path):
    argv = [word for word in train_argv(voc_root, tmp_path / "m", "--dry-run") if not word.startswith("--pretrained")]
    best = model_dir / "best.pth"
    done = script(train_ssd.main, *argv, f"--pretrained-ssd={best}")
    assert done.code == 0, done.err
    total = sum(not key.endswith("tracked") for key in read_weights(best))
    assert f"Init from pretrained ssd {best}: {total} of {total} weights\n" in done.out
    assert "classes that the file knows: ball, board, cone, star; new classes" in done.out
    assert f"of {best}, whose heads know them; best possible recall" in done.out
    # Priors that are asked for take the rows of those that are like them.
    done = script(train_ssd.main, *argv, f"--pretrained-ssd={best}", "--priors=coco")
    assert f"Init from pretrained ssd {best}: {total} of {total} weights\n" in done.out
    assert f"of {best}, whose heads know them" not in done.out


def test_priors_of_known_heads_go_where_they_miss_boxes_that_others_would_reach(script, own_voc, tmp_path):
    argv = [word for word in train_argv(own_voc, tmp_path / "m", "--dry-run") if not word.startswith("--pretrained")]
    net = MODELS["mb1-ssd-lite"].build(5, config=MODELS["mb1-ssd-lite"].config_at(96))
    net.class_names = ("BACKGROUND", "ball", "board", "cone", "star")
    huge = tuple(
        FreePriorLevel(level.feature_map_size, level.shrinkage, (CellPrior(90.0, 90.0),) * level.boxes_per_location)
        for level in net.config.specs
    )
    net.config = replace(net.config, specs=huge)
    net.save(str(tmp_path / "huge.pth"))
    done = script(train_ssd.main, *argv, f"--pretrained-ssd={tmp_path / 'huge.pth'}")
    assert done.code == 0, done.err
    assert "fitted to the boxes; best possible recall" in done.out
    assert "classes that the file knows: ball, board, cone, star; new classes" in done.out


# Resume.


def test_resume_from_a_checkpoint_that_has_no_state_takes_weights_only(script, voc_root, model_dir, tmp_path):
    source = next(model_dir.glob("*Epoch-0*.pth"))
    done = script(train_ssd.main, *train_argv(voc_root, tmp_path, "--epochs=1", f"--resume={source}"))
    assert done.code == 0
    assert "weights only" in done.out
    assert "Epoch: 0" in done.out


def test_resume_of_a_finished_run_says_so(script, voc_root, model_dir, tmp_path):
    shutil.copytree(model_dir, tmp_path / "m")
    done = script(train_ssd.main, *train_argv(voc_root, tmp_path / "m", "--epochs=2", "--resume"))
    assert done.code == 0
    assert "its 2 epochs are done; --epochs=4" in done.out


def test_a_refused_resume_leaves_the_labels_alone(script, own_voc, model_dir, tmp_path):
    shutil.copytree(model_dir, tmp_path / "m")
    before = (tmp_path / "m/labels.txt").read_text()
    (own_voc / "labels.txt").write_text("star\nball\n")
    done = script(train_ssd.main, *train_argv(own_voc, tmp_path / "m", "--resume", "--resolution=128"))
    assert_refused(done, "was trained at 96x96; add --resolution=96x96")
    assert (tmp_path / "m/labels.txt").read_text() == before


def test_what_is_better():
    assert checkpoint.is_better(Results(0, 1.0), None)
    assert checkpoint.is_better(Results(1, 9.0, mean_ap=0.6), Results(0, 1.0, mean_ap=0.5))
    assert not checkpoint.is_better(Results(1, 0.1, mean_ap=0.4), Results(0, 1.0, mean_ap=0.5))
    assert not checkpoint.is_better(Results(1, 2.0), Results(0, 1.0, mean_ap=0.5))
    rough, precise = (Results(0, 1.0, mean_ap=a, ap_50_95=b) for a, b in ((0.9, 0.4), (0.8, 0.5)))
    assert checkpoint.is_better(precise, rough) and not checkpoint.is_better(rough, precise)
    earlier = Results(0, 1.0, mean_ap=0.85)  # of a state before version 0.5.0
    assert checkpoint.is_better(rough, earlier) and not checkpoint.is_better(precise, earlier)


def test_batches_too_small_for_batch_norm(script, voc_root, tmp_path):
    argv = [word for word in train_argv(voc_root, tmp_path / "m") if not word.startswith("--net")]
    done = script(train_ssd.main, *argv, "--net=mb2-ssd-lite", "--batch-size=1")
    assert_refused(done, "--batch-size", "batch norm of mb2-ssd-lite at 96x96", "--batch-size=2")
    frozen = script(train_ssd.main, *argv, "--net=mb2-ssd-lite", "--batch-size=1", "--freeze-net", "--epochs=1")
    assert frozen.code == 2, "a head has batch norm, too"
    assert script(train_ssd.main, *train_argv(voc_root, tmp_path, "--batch-size=1", "--epochs=1")).code == 0


def test_resume_over_base_net_over_nothing(reached, model_dir):
    seen = reached(f"--resume={model_dir}", "--base-net=does-not-matter.pth")
    assert torch.equal(seen.net.extras[0][0].weight, read_weights(model_dir / "last.pth")["extras.0.0.weight"])
    assert seen.run.train_state.epoch == 2


# The net where --net is not typed.


def test_the_net_that_is_not_typed_is_that_of_what_a_run_starts_from(tmp_path, model_dir, monkeypatch):
    monkeypatch.setattr(train_ssd, "DEFAULT_NET", "mb2-ssd-lite")
    backbones = {name: tmp_path / f"{name}.pth" for name in ("mb1-ssd", "sq-ssd-lite", "mb2-ssd-lite")}
    for name, path in backbones.items():
        torch.save(MODELS[name].build(2).base_net.state_dict(), path)
    best = str(model_dir / "best.pth")
    published = MODELS["mb1-ssd"].published_weights
    expected = {
        (): ("mb2-ssd-lite", True),
        ("--net=mb2-ssd-lite",): ("mb2-ssd-lite", False),
        ("--recipe=upstream",): ("mb1-ssd", False),
        ("--pretrained-ssd=none",): ("mb2-ssd-lite", True),
        (f"--pretrained-ssd={best}",): ("mb1-ssd-lite", False),
        (f"--pretrained-ssd={published}",): ("mb1-ssd", False),
        (f"--base-net={backbones['sq-ssd-lite']}",): ("sq-ssd-lite", False),
        (f"--base-net={backbones['mb1-ssd']}",): ("mb1-ssd", False),
        (f"--base-net={backbones['mb2-ssd-lite']}",): ("mb2-ssd-lite", True),
        (f"--resume={best}",): ("mb1-ssd-lite", False),
        (f"--model-dir={model_dir}", "--resume"): ("mb1-ssd-lite", False),
        (f"--model-dir={model_dir}", "--auto-resume"): ("mb1-ssd-lite", False),
        (f"--model-dir={tmp_path / 'none'}", "--auto-resume"): ("mb2-ssd-lite", True),
    }
    for argv, (name, by_default) in expected.items():
        options = train_ssd.parse_args(argv)
        assert (options.net, options.net_by_default) == (name, by_default), argv


def test_a_net_that_was_not_typed_is_exported_under_the_tutorials_name(script, voc_root, tmp_path, monkeypatch):
    monkeypatch.setattr(train_ssd, "DEFAULT_NET", "mb1-ssd-lite")
    argv = [word for word in train_argv(voc_root, tmp_path / "m", "--epochs=1") if not word.startswith("--net")]
    assert script(train_ssd.main, *argv).code == 0
    argv = [word.replace("--epochs=1", "--epochs=2") for word in argv]
    assert script(train_ssd.main, *argv, "--resume").code == 0
    done = script(onnx_export.main, f"--model-dir={tmp_path / 'm'}")
    assert (tmp_path / "m" / "ssd-mobilenet.onnx").is_file(), done.err
    script(onnx_export.main, f"--model-dir={tmp_path / 'm'}", "--net=mb1-ssd-lite")
    assert (tmp_path / "m" / "mb1-ssd-lite.onnx").is_file()

"""Bad input to the scripts: one line that names the thing and the way out, exit code 2."""

import json
import shutil

import dataset_writers
import pytest
import torch
from conftest import assert_refused, train_argv

import detect
import eval_ssd
import onnx_export
import train_ssd
from vision.ssd.choices import NET_NAMES
from vision.ssd.models import MODELS
from vision.ssd.weights import read_weights


def test_data_that_is_not_there(script, tmp_path):
    assert_refused(
        script(train_ssd.main, *train_argv(tmp_path / "none", tmp_path / "m")),
        "none: no such folder",
        "--data",
    )
    (tmp_path / "empty").mkdir()
    assert_refused(
        script(train_ssd.main, *train_argv(tmp_path / "empty", tmp_path / "m")),
        "no image set and no XML file; expected Annotations/*.xml with JPEGImages",
    )
    done = script(train_ssd.main, *train_argv(tmp_path / "empty", tmp_path / "m"), "--dataset-type=open_images")
    assert_refused(done, "sub-train-annotations-bbox.csv", "no such file")
    done = script(train_ssd.main, *train_argv(tmp_path / "empty", tmp_path / "m"), "--dataset-type=auto")
    assert_refused(done, "empty: is empty; --data names the folder of a dataset; formats that are read: voc")


@pytest.mark.parametrize("name", ["fruit.zip", "fruit.tar", "fruit.TAR.GZ", "fruit.tgz", "fruit.7z", "fruit.rar"])
@pytest.mark.parametrize("kind", ["auto", "voc"])
def test_an_archive_is_told_from_other_files(script, voc_root, tmp_path, name, kind):
    (tmp_path / name).write_bytes(b"PK")
    archive, said = tmp_path / name, f"{name}: is an archive; unpack it first, and name the folder that comes out"
    argv = (f"--model-dir={tmp_path / 'm'}", f"--dataset-type={kind}")
    assert_refused(script(train_ssd.main, *argv, f"--data={archive}"), said)
    assert_refused(script(train_ssd.main, *argv, f"--data={voc_root}", f"--validation-dataset={archive}"), said)


def test_other_files_are_no_datasets(script, tmp_path):
    (tmp_path / "notes.md").write_text("")
    done = script(train_ssd.main, f"--data={tmp_path / 'notes.md'}", f"--model-dir={tmp_path / 'm'}")
    assert_refused(done, "notes.md: is a file; --data names the folder of a dataset")
    done = script(train_ssd.main, f"--data={tmp_path / 'none.zip'}", f"--model-dir={tmp_path / 'm'}")
    assert_refused(done, "none.zip: no such folder; --data names the folder of a dataset")


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
        ("--priors=tight", ("--priors", "'tight'", "auto", "upstream", "priors.json")),
        ("--recipe=old", ("--recipe", "'old'", "upstream")),
        ("--no-such-option", ("--no-such-option",)),
        ("--new-heads", ("--new-heads", "--pretrained-ssd", "leave one of the options out")),
        ("--base-net=x.pth", ("--base-net and --pretrained-ssd", "leave one out")),
    ],
)
def test_options_that_make_no_sense(script, voc_root, tmp_path, word, fragments):
    assert_refused(script(train_ssd.main, *train_argv(voc_root, tmp_path / "m"), word), *fragments)


def test_vgg_says_the_least_it_takes(script, voc_root, tmp_path):
    done = script(train_ssd.main, *train_argv(voc_root, tmp_path / "m"), "--net=vgg16-ssd", "--resolution=256")
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
    argv = [word for word in train_argv(voc_root, tmp_path / "m") if not word.startswith("--pretrained")]
    assert_refused(script(train_ssd.main, *argv, f"{option}={path}"), str(path), fragment)


def test_files_that_hold_no_priors_for_the_net(script, voc_root, model_dir, tmp_path):
    argv = train_argv(voc_root, tmp_path / "m")
    of_run = json.loads((model_dir / "priors.json").read_text())
    empty = {**of_run, "levels": [{**of_run["levels"][0], "cell_priors": []}, *of_run["levels"][1:]]}
    flat = {**empty, "levels": [{**empty["levels"][0], "cell_priors": [[0, 5]]}, *of_run["levels"][1:]]}
    nowhere = {
        **empty,
        "levels": [{**empty["levels"][0], "cell_priors": [[5, 5, float("nan"), 0]]}, *of_run["levels"][1:]],
    }
    for text, net in (
        (json.dumps(nowhere), "mb1-ssd-lite"),
        (json.dumps({**of_run, "image_size": [0, 0]}), "mb1-ssd-lite"),
        ("[", "mb1-ssd-lite"),
        ("{}", "mb1-ssd-lite"),
        (json.dumps(empty), "mb1-ssd-lite"),
        (json.dumps(flat), "mb1-ssd-lite"),
        (json.dumps(of_run), "mb1-ssd-fpnlite"),
    ):
        (tmp_path / "priors.json").write_text(text)
        done = script(train_ssd.main, *argv, f"--priors={tmp_path / 'priors.json'}", f"--net={net}")
        assert_refused(done, f"priors.json: holds no priors for {net}", "expected a priors.json")


def test_fitted_priors_without_the_description_that_says_which(script, model_dir, voc_root, tmp_path):
    torch.save(dict(read_weights(model_dir / "best.pth")), tmp_path / "plain.pth")
    done = script(eval_ssd.main, f"--model={tmp_path / 'plain.pth'}", f"--data={voc_root}")
    assert_refused(done, "plain.pth: a mb1-ssd-lite with priors of its own", "train_ssd.py wrote it")


def test_weights_of_another_net_or_other_classes(script, voc_root, model_dir, tmp_path):
    MODELS["sq-ssd-lite"].build(5).save(str(tmp_path / "sq.pth"))
    MODELS["mb1-ssd-lite"].build(9).save(str(tmp_path / "nine.pth"))
    argv = [word for word in train_argv(voc_root, tmp_path / "m") if not word.startswith("--pretrained")]
    for option in ("--pretrained-ssd", "--resume"):
        done = script(train_ssd.main, *argv, f"{option}={tmp_path / 'sq.pth'}")
        assert_refused(done, "sq.pth: is a sq-ssd-lite checkpoint, --net is mb1-ssd-lite")
    done = script(train_ssd.main, *argv, f"--resume={tmp_path / 'nine.pth'}")
    assert_refused(done, "nine.pth: was trained on 9 classes", "--pretrained-ssd")
    done = script(train_ssd.main, *argv, f"--resume={model_dir}", "--resolution=128")
    assert_refused(done, "was trained at 96x96", "add --resolution=96x96")
    done = script(train_ssd.main, *argv, f"--resume={model_dir}", "--net=mb1-ssd-fpnlite")
    assert_refused(done, "is a mb1-ssd-lite checkpoint, --net is mb1-ssd-fpnlite")
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
    done = script(train_ssd.main, *train_argv(tmp_path / "data", tmp_path / "m"), "--dataset-type=open_images")
    assert_refused(done, "sub-train-annotations-bbox.csv: lacks the columns ImageID")


def test_strict_refuses_what_would_be_left_out(script, own_voc, tmp_path):
    argv = train_argv(own_voc, tmp_path / "m", "--epochs=1")
    assert script(train_ssd.main, *argv, "--strict").code == 0
    (own_voc / "Annotations/train_00003.xml").write_text("<annotation><object>")
    done = script(train_ssd.main, *argv, "--strict")
    assert_refused(done, "--strict: the data have 1 defects", "train_00003.xml", "not readable as XML")
    assert script(train_ssd.main, *argv).code == 0


def test_an_image_to_detect_in_that_does_not_decode(script, sure_model, tmp_path):
    (tmp_path / "x.jpg").write_bytes(b"not an image")
    done = script(detect.main, f"--model={sure_model}", f"--input={tmp_path / 'x.jpg'}", f"--output={tmp_path / 'o'}")
    assert_refused(done, "x.jpg: not an image of any known format")
    for name, fragment in (
        ("none.jpg", "no such image"),
        ("o", "holds no image"),
        ("*.png", "no such image"),
    ):
        (tmp_path / "o").mkdir(exist_ok=True)
        assert_refused(script(detect.main, f"--model={sure_model}", f"--input={tmp_path / name}"), name, fragment)
    (tmp_path / "x.mp4").write_bytes(b"not a video")
    assert_refused(script(detect.main, f"--model={sure_model}", f"--input={tmp_path / 'x.mp4'}"), "cannot be opened")


def test_a_model_folder_that_cannot_be_written(script, voc_root, model_dir, tmp_path):
    (tmp_path / "file").write_text("")
    below = tmp_path / "file" / "model"
    assert_refused(script(train_ssd.main, *train_argv(voc_root, below)), f"--model-dir={below}", "name another folder")
    done = script(onnx_export.main, f"--input={model_dir / 'best.pth'}", f"--output={below}/x.onnx")
    assert_refused(done, str(below), "name another folder")
    done = script(eval_ssd.main, f"--model={model_dir}", f"--data={voc_root}", f"--eval-dir={below}")
    assert_refused(done, f"--eval-dir={below}", "name another folder")
    done = script(detect.main, f"--model={model_dir}", f"--input={voc_root}/JPEGImages", f"--output={below}")
    assert_refused(done, f"--output={below}", "name another folder")


@pytest.mark.skipif(torch.cuda.is_available(), reason="here CUDA is available")
def test_cuda_that_is_not_there(script, voc_root, model_dir, tmp_path):
    argv = [word for word in train_argv(voc_root, tmp_path) if not word.startswith("--device")]
    assert_refused(script(train_ssd.main, *argv, "--device=cuda"), "--device=cuda", "--device=cpu")
    assert_refused(script(detect.main, f"--model={model_dir}", "--input=x.jpg", "--device=cuda:1"), "--device=cuda:1")
    assert_refused(script(eval_ssd.main, f"--model={model_dir}", f"--data={voc_root}", "--device=mps"), "--device=mps")


def test_an_onnx_file_that_is_none(script, voc_root, tmp_path):
    (tmp_path / "x.onnx").write_bytes(b"none")
    done = script(eval_ssd.main, f"--model={tmp_path / 'x.onnx'}", f"--data={voc_root}")
    assert_refused(done, "x.onnx: cannot be read as an ONNX model")
    done = script(detect.main, f"--model={tmp_path / 'x.onnx'}", f"--input={voc_root}/JPEGImages")
    assert_refused(done, "x.onnx: cannot be read as an ONNX model")


def test_a_folder_of_exports_without_checkpoint(script, voc_root, tmp_path):
    (tmp_path / "b.onnx").touch()
    (tmp_path / "a.onnx").touch()
    done = script(eval_ssd.main, f"--model={tmp_path}", f"--data={voc_root}")
    assert_refused(done, f"{tmp_path}: holds no checkpoint", f"name it itself: {tmp_path / 'a.onnx'}")


def test_nothing_to_export_or_resume(script, voc_root, tmp_path):
    assert_refused(script(onnx_export.main, f"--model-dir={tmp_path}"), "no checkpoint that can be used")
    assert_refused(script(onnx_export.main, f"--model-dir={tmp_path / 'none'}"), "no such folder")
    assert_refused(script(train_ssd.main, *train_argv(voc_root, tmp_path, "--resume")), "nothing to resume")
    assert_refused(script(onnx_export.main, "--width=300"), "--width and --height belong together")
    assert_refused(script(onnx_export.main, "--width=300", "--height=300", "--resolution=300"), "leave one out")


def test_classes_that_the_model_does_not_have(script, sure_model, voc_root):
    done = script(detect.main, f"--model={sure_model}", f"--input={voc_root}/JPEGImages", "--classes=ball,dog")
    assert_refused(done, "dog is not among ball, board, cone, star")


def test_nothing_to_validate_on(script, images, tmp_path):
    dataset_writers.write_coco(tmp_path / "data", {"train": images["train"], "val": []})
    done = script(train_ssd.main, *train_argv(tmp_path / "data", tmp_path / "m"), "--dataset-type=coco")
    assert_refused(done, "instances_val.json: names no image", "--val-split=0.2")


def test_no_object_of_a_known_class(script, own_voc, tmp_path):
    (own_voc / "labels.txt").write_text("fifty mph\n")
    assert_refused(
        script(train_ssd.main, *train_argv(own_voc, tmp_path / "m")), "fifty mph", "correct the list of classes"
    )


def test_a_loss_that_is_not_finite_ends_the_run_before_it_is_saved(script, voc_root, tmp_path):
    done = script(
        train_ssd.main,
        *train_argv(voc_root, tmp_path, "--lr=1e20", "--base-net-lr=1e20", "--epochs=3", "--batch-size=1"),
    )
    assert_refused(done, "the loss is not finite at epoch", "--lr")
    for path in tmp_path.glob("*.pth"):
        assert all(torch.isfinite(value).all() for value in read_weights(path).values())


def test_ctrl_c_is_no_traceback(script):
    def main(argv):
        raise KeyboardInterrupt

    done = script(main)
    assert (done.code, done.err.count("\n")) == (130, 1)


def test_what_goes_wrong_inside_is_one_line_too(script):
    def main(argv):
        raise RuntimeError("DataLoader worker (pid 5) is killed\nby signal")

    done = script(main)
    assert (done.code, done.err.count("\n")) == (1, 1)
    assert "DataLoader worker (pid 5) is killed by signal (RuntimeError)" in done.err


@pytest.mark.parametrize(
    "parse", [train_ssd.parse_args, eval_ssd.parse_args, onnx_export.parse_args, detect.parse_args]
)
def test_help_knows_every_net_and_says_each_default_once(capsys, parse):
    with pytest.raises(SystemExit) as stop:
        parse(["--help"])
    assert stop.value.code == 0
    said = "".join(capsys.readouterr().out.split())
    assert [name for name in NET_NAMES if name not in said] == []
    assert "(default:" in said
    assert "(default:None" not in said
    assert ")(default:" not in said


def test_help_of_a_plain_switch_says_no_default(capsys):
    with pytest.raises(SystemExit):
        train_ssd.parse_args(["--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert "biases and batch norms do not decay --base-net-lr" in said
    assert "compute mAP when validating (default: True)" in said

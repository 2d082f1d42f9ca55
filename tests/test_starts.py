"""The starts that come with the program: the files, who takes which, and the program that makes them."""

import re
import shutil

import pytest
import torch
from conftest import ROOT, SMALL, assert_refused, train_argv

import detect
import eval_ssd
import onnx_export
import train_ssd
from benchmarks import pretrain
from vision.engine import bundled_weights, checkpoint, pretrained, trainer
from vision.engine.start import better_net, find_starting_files
from vision.options.training import DEFAULT_RATES, Options
from vision.ssd.choices import ADVICE_ON_NET
from vision.ssd.models import MODELS, describe_weights
from vision.ssd.ssd import HEADS
from vision.ssd.weights import read_weights
from vision.structures import DataError

PUBLISHED = MODELS["mb1-ssd"].published_weights


@pytest.fixture
def no_network(tmp_path, monkeypatch):
    """A working folder without the published file, and an address at which nobody answers."""
    monkeypatch.chdir(tmp_path)
    nowhere = pretrained.PublishedFile("http://127.0.0.1:9/none.pth", 1, "0")
    monkeypatch.setitem(pretrained.PUBLISHED, PUBLISHED, nowhere)


@pytest.fixture
def own_starts(tmp_path, monkeypatch):
    """Copies that a test may spoil."""
    folder = tmp_path / "starts"
    shutil.copytree(
        bundled_weights.FOLDER, folder, ignore=lambda _, names: [n for n in names if bundled_weights.VOC not in n]
    )
    monkeypatch.setattr(bundled_weights, "FOLDER", folder)
    return folder


def without_start(argv):
    return [word for word in argv if not word.startswith("--pretrained-ssd")]


#: Starts that are whole detectors.
DETECTORS = tuple(net for net in bundled_weights.NETS if net.startswith("mb2"))


@pytest.mark.parametrize("net", bundled_weights.NETS)
def test_a_start_is_in_16_bits_and_says_what_it_is(net):
    path = bundled_weights.find(net)
    assert path.stat().st_size <= (8_000_000 if net in DETECTORS else 12_000_000)
    weights = read_weights(path)
    description = describe_weights(weights, str(path), with_heads=False)
    assert description.net == net
    assert description.results is None, "a model folder beside it must not take it for a run's best"
    names = description.class_names
    assert len(names) == 21 if net in DETECTORS else names is None
    like = MODELS[net].build(3)
    assert weights.keys() == {key for key in like.state_dict() if net in DETECTORS or not key.startswith(HEADS)}
    assert {value.dtype for value in weights.values() if value.dim() == 4} == {torch.float16}
    assert all(value.isfinite().all() for value in weights.values())
    text = path.with_suffix(".txt").read_text()
    for fact in ("net: ", "data: ", "command: ", "seed: ", "versions: ", "sha256: ", "AP50 ", "VOC 2007 test"):
        assert fact in text, fact


@pytest.mark.parametrize("net", bundled_weights.NETS)
def test_the_start_fills_all_but_the_heads(net):
    ssd = MODELS[net].build(2)
    ssd.class_names = ("BACKGROUND", "dog")
    path = bundled_weights.find(net)
    pretrained.initialize(ssd, pretrained.WeightsSource(pretrained.DETECTOR, str(path)))
    theirs = read_weights(path)
    for key, value in ssd.state_dict().items():
        if not key.startswith(HEADS):
            assert torch.equal(value, theirs[key].to(value.dtype)), key
            assert value.dtype in (torch.float32, torch.int64)


@pytest.mark.parametrize(("net", "start"), [*((net, net) for net in bundled_weights.NETS), ("mb1-ssd-lite", "mb1-ssd")])
@pytest.mark.parametrize("downloads", [True, False])
def test_without_the_published_file_and_the_network_the_start_of_the_net_or_of_its_backbone_is_taken(
    net, start, downloads, no_network, caplog
):
    caplog.set_level("INFO")
    files = find_starting_files(Options(net=net), downloads=downloads)
    assert files.detector == str(bundled_weights.FOLDER / f"{start}-voc.pth")
    said = caplog.messages[-1]
    assert f"starting from {files.path}, which comes with this program (--pretrained-ssd=voc)" in said
    assert (PUBLISHED in said) == (net == "mb1-ssd")
    tried = [message for message in caplog.messages if "its download failed" in message]
    assert len(tried) == (downloads and net == "mb1-ssd")
    assert not any("ways out" in message or "trying again" in message for message in caplog.messages)


def test_the_published_file_counts_before_the_starts_but_not_for_a_net_with_one_of_its_own(no_network, tmp_path):
    (tmp_path / "models").mkdir()
    (tmp_path / PUBLISHED).touch()
    found = {name: find_starting_files(Options(net=name), downloads=True).detector for name in MODELS}
    assert found["mb1-ssd"] == found["mb1-ssd-lite"] == PUBLISHED
    assert found["mb1-ssd-fpnlite"] == str(bundled_weights.FOLDER / "mb1-ssd-fpnlite-voc.pth")
    assert found["sq-ssd-lite"] is found["vgg16-ssd"] is None


def test_a_start_is_of_one_width():
    source = find_starting_files(Options(net="mb2-ssd-fpnlite", mb2_width_mult=0.5), downloads=False)
    assert source.kind == pretrained.SCRATCH


def test_the_tutorials_command_trains_and_its_dry_run_names_the_start(script, voc_root, tmp_path, no_network):
    argv = [word for word in without_start(train_argv(voc_root, "model", "--epochs=1")) if "--net=" not in word]
    dry = script(train_ssd.main, *argv, "--dry-run")
    assert (dry.code, dry.err) == (0, "")
    assert "mb1-ssd-voc.pth, which comes with this program" in dry.out
    done = script(train_ssd.main, *argv)
    assert (done.code, done.err) == (0, "")
    assert "Init from pretrained ssd" in done.out and "mb1-ssd-voc.pth: 151 of 175 weights" in done.out
    assert (tmp_path / "model" / "best.pth").is_file()


def test_a_start_beside_the_program_is_named_as_one_types_it(monkeypatch):
    monkeypatch.chdir(bundled_weights.FOLDER.parent)
    assert str(bundled_weights.find("mb1-ssd")) == "models/mb1-ssd-voc.pth"


@pytest.mark.parametrize("word", ["voc", "VOC"])
def test_voc_names_it_and_nets_without_one_are_refused(word, script, voc_root, tmp_path, monkeypatch):
    monkeypatch.setattr(trainer, "train_epochs", lambda *args, **rest: iter(()))
    argv = without_start(train_argv(voc_root, tmp_path))
    done = script(train_ssd.main, *argv, f"--pretrained-ssd={word}")
    assert done.code == 0
    assert re.search(r"mb1-ssd-voc.pth: 135 of \d+ weights", done.out), "of mb1-ssd-lite, the backbone"
    done = script(train_ssd.main, *argv, f"--pretrained-ssd={word}", "--net=sq-ssd-lite")
    assert_refused(done, "no start for sq-ssd-lite", "--net=mb1-ssd or mb1-ssd-lite or mb2-ssd-lite")


def test_a_damaged_or_missing_start_is_one_clear_line(own_starts, script, voc_root, tmp_path):
    path = own_starts / "mb1-ssd-voc.pth"
    argv = *without_start(train_argv(voc_root, tmp_path / "model")), "--pretrained-ssd=voc"
    content = path.read_bytes()
    for spoilt in (content[:-1], content[:1000] + bytes([content[1000] ^ 1]) + content[1001:]):
        path.write_bytes(spoilt)
        done = script(train_ssd.main, *argv)
        assert_refused(
            done, str(path), f"damaged: {len(spoilt)} bytes", str(len(content)), "git checkout", "--base-net"
        )
    path.write_bytes(content)
    path.with_suffix(".txt").unlink()
    assert_refused(script(train_ssd.main, *argv), str(path.with_suffix(".txt")), "missing", "git checkout")
    path.unlink()
    assert_refused(script(train_ssd.main, *argv), str(path), "missing", "git checkout")


@pytest.mark.parametrize("net", DETECTORS)
def test_a_start_with_heads_detects_and_exports(net, script, voc_root, tmp_path):
    start = bundled_weights.FOLDER / f"{net}-voc.pth"
    image = next((voc_root / "JPEGImages").glob("*.jpg"))
    done = script(detect.main, f"--model={start}", f"--input={image}", f"--output={tmp_path}", "--save-json")
    assert done.code == 0, done.err
    assert (tmp_path / image.name).is_file()
    done = script(onnx_export.main, f"--input={start}", f"--output={tmp_path}/")
    assert done.code == 0, done.err
    assert (tmp_path / f"{net}.onnx").is_file()


@pytest.mark.parametrize("net", DETECTORS)
def test_a_start_with_heads_keeps_its_rows_for_classes_of_the_same_names(net, caplog):
    caplog.set_level("INFO")
    ssd = MODELS[net].build(3)
    ssd.class_names = ("BACKGROUND", "dog", "gadget")
    pretrained.initialize(ssd, pretrained.WeightsSource(pretrained.DETECTOR, str(bundled_weights.find(net))))
    assert caplog.messages[-1] == (
        "classes that the file knows: dog; new classes, which start from its mean over classes: gadget"
    )


@pytest.mark.parametrize("net", DETECTORS)
def test_rates_follow_the_start_unless_they_are_typed(net):
    rate = bundled_weights.BASE_NET_RATES[net]
    assert bundled_weights.base_net_rate_of(f"models/{net}-voc.pth") == rate
    usual = DEFAULT_RATES["sgd"][1]
    expected = {
        (): rate,
        ("--pretrained-ssd=voc",): rate,
        ("--pretrained-ssd=none",): usual,
        ("--mb2-width-mult=0.5",): usual,
        ("--base-net-lr=0.02",): 0.02,
        ("--recipe=upstream",): 0.001,
        ("--optimizer=adamw",): DEFAULT_RATES["adamw"][1],
    }
    for argv, wanted in expected.items():
        assert train_ssd.parse_args([f"--net={net}", *argv]).base_net_lr == wanted, argv


def test_a_folder_of_starts_is_no_run(own_starts):
    with pytest.raises(DataError, match="no checkpoint that can be used"):
        checkpoint.find(own_starts)


def test_a_start_without_heads_is_no_detector(script, voc_root):
    done = script(eval_ssd.main, f"--model={bundled_weights.FOLDER / 'mb1-ssd-voc.pth'}", f"--data={voc_root}")
    assert_refused(done, "a mb1-ssd without heads", "--pretrained-ssd")
    with pytest.raises(DataError, match="without heads"):
        describe_weights(read_weights(bundled_weights.find("mb1-ssd-fpnlite")), "start")


@pytest.mark.parametrize("heads", [True, False])
def test_the_program_that_makes_starts_goes_on_and_makes_the_same_again(heads, voc_root, tmp_path, script):
    torch.save(MODELS["sq-ssd-lite"].build(2).base_net.state_dict(), tmp_path / "base.pth")
    common = " ".join(w for w in SMALL if not w.startswith(("--net", "--resolution", "--pretrained", "--seed")))
    argv = [
        *("--net=sq-ssd-lite", f"--data={voc_root}", f"--base-net={tmp_path / 'base.pth'}", "--stages", "32x1", "48x1"),
        *(f"--common={common} --batch-size=3 --no-plots", "--note=licence: none"),
        *(("--no-heads",) if not heads else ()),
    ]
    done = script(pretrain.main, *argv, f"--runs={tmp_path / 'a'}", f"--out={tmp_path / 'a.pth'}")
    assert (done.code, done.err) == (0, "")
    text = (tmp_path / "a.txt").read_text()
    assert done.out.endswith(text)
    assert text.startswith("file: a.pth\nbytes: ") and text.endswith("licence: none\n")
    assert "stages: 1 epochs at 32 pixels, 1 epochs at 48 pixels\n" in text
    bundled_weights.check(tmp_path / "a.pth")
    assert f"Init from pretrained ssd {tmp_path / 'a' / '1-32' / 'last.pth'}" in log_of(tmp_path / "a" / "2-48")
    weights = read_weights(tmp_path / "a.pth")
    assert any(key.startswith(HEADS) for key in weights) == heads
    assert ("a whole detector" in text) == heads
    description = describe_weights(weights, "a.pth", with_heads=heads)
    assert description.class_names == (("BACKGROUND", "ball", "board", "cone", "star") if heads else None)
    assert description.results is None
    last = read_weights(tmp_path / "a" / "2-48" / "last.pth")
    assert all(torch.equal(value, last[key].to(value.dtype)) for key, value in weights.items())

    shutil.copytree(tmp_path / "a" / "1-32", tmp_path / "b" / "1-32")  # as if it had been stopped there
    script(pretrain.main, *argv, f"--runs={tmp_path / 'b'}", f"--out={tmp_path / 'b.pth'}")
    assert (tmp_path / "a.pth").read_bytes() == (tmp_path / "b.pth").read_bytes()


def log_of(folder):
    return (folder / pretrain.LOG).read_text()


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (("--stages", "300"), "'300' is no stage, expected RESOLUTIONxEPOCHS such as 224x8"),
        (("--out=start.bin",), "start.bin has not the suffix .pth"),
    ],
)
def test_wrong_options_of_the_program_are_refused(argv, said, script):
    done = script(pretrain.main, "--data=d", "--base-net=b", "--runs=r", "--out=o.pth", *argv)
    assert_refused(done, said)


def test_a_stage_that_is_refused_ends_the_program_with_its_line(tmp_path, script):
    argv = [f"--data={tmp_path / 'none'}", "--base-net=b.pth", f"--runs={tmp_path}", f"--out={tmp_path / 'o.pth'}"]
    done = script(pretrain.main, *argv)
    assert_refused(done, str(tmp_path / "1-160"), str(tmp_path / "none"))
    assert not (tmp_path / "o.pth").exists()


def test_a_run_that_takes_the_default_net_is_told_of_a_better_one():
    advice = better_net(Options(net_by_default=True))
    assert advice is not None
    assert advice.startswith("--net=mb2-ssd-fpnlite ")
    assert better_net(Options()) is None, "it was typed"
    assert better_net(Options(net="mb1-ssd-lite", net_by_default=True)) is None, "something else named it"


def test_the_figures_of_that_advice_stand_in_the_docs():
    page = (ROOT / "docs" / "accuracy.md").read_text()
    figures = re.findall(r"0\.\d{3}", ADVICE_ON_NET)
    assert len(figures) == 4
    assert all(figure in page for figure in figures)

"""Options as fields: what follows from them is the same everywhere, and help comes before torch."""

import argparse
import subprocess
import sys
from dataclasses import dataclass, fields

import pytest
from conftest import ROOT, assert_refused

import detect
import eval_ssd
import onnx_export
import open_images_downloader
import plot_logs
import train_ssd
from vision.console import Parser, count
from vision.datasets import AUTO, DATASETS, folder
from vision.deploy.choices import INPUT_NORM_NAMES
from vision.deploy.export import INPUT_NORMS
from vision.options import kinds, page
from vision.options.fields import add_option, option, options_of, read_values, table_rows
from vision.options.training import DATASET_TYPES, FIRST, RECIPES, SCHEDULES, Options, make_parser
from vision.ssd.choices import ADAMW_RATES, BUNDLED_BASE_NET_RATES, NET_NAMES, TORCHVISION
from vision.ssd.models import MODELS


@dataclass(frozen=True)
class Few:
    """Some options."""

    size: int = option("--size", "--pixels", default=3, kind=count, help="of something")
    names: tuple[str, ...] = option("--names", default=("a", "b"), kind=str, nargs="+", help="of things")
    fast: bool = option("--fast", default=False, help="in less time")
    safe: bool = option("--no-safe", default=True, help="without a net")
    color: bool = option("--color", default=True, kind=bool, help="with color", off=("--no-color", "without color"))
    inner: int = 7


def few(*argv: str) -> Few:
    parser = Parser()
    for field, _ in options_of(Few):
        add_option(parser, Few, field.name)
    return read_values(Few, parser.parse_args(argv, argparse.Namespace(inner=7)))


def test_parser_and_values_follow_from_the_fields():
    assert few() == Few()
    assert few("--pixels=4", "--names", "c", "d", "--fast", "--no-safe", "--no-color") == Few(
        4, ("c", "d"), True, False, False
    )


@pytest.mark.parametrize(
    ("main", "word", "meant"),
    [
        (train_ssd.main, "--model=x", ", did you mean --model-dir?"),
        (train_ssd.main, "--model", ", did you mean --model-dir?"),
        (train_ssd.main, "-model_dir=x", ", did you mean --model-dir?"),
        (train_ssd.main, "--modle_dir=x", ", did you mean --model-dir?"),
        (train_ssd.main, "--batch=4", ", did you mean --batch-size?"),
        (train_ssd.main, "--dataset=x", ", did you mean --datasets or --dataset-type?"),
        (train_ssd.main, "--frobnicate", ""),
        (eval_ssd.main, "--trained=x", ", did you mean --trained-model?"),
        (onnx_export.main, "--model=x", ", did you mean --model-dir?"),
        (detect.main, "--thresh=0.3", ", did you mean --threshold?"),
        (plot_logs.main, "--key", ", did you mean --keys?"),
        (open_images_downloader.main, "--class=cat", ", did you mean --class-names?"),
    ],
)
def test_an_abbreviation_is_refused_and_the_option_named(script, main, word, meant):
    """Before argparse says that another is missing; `--model` would name a folder in training, and a file elsewhere."""
    done = script(main, word)
    assert_refused(done, f"unknown option {word.partition('=')[0]}{meant} (--help lists all options)\n")


def test_documented_names_and_what_is_no_name_stay():
    known = {name for action in make_parser()._actions for name in action.option_strings}
    assert {"--model-dir", "--checkpoint-folder", "--learning-rate", "--num-epochs", "--num-workers"} <= known
    assert str(train_ssd.parse_args(["--model_dir", "x"]).model_dir) == "x"
    assert str(train_ssd.parse_args(["--model-dir=--x"]).model_dir) == "--x"
    parser = Parser()
    parser.add_argument("--size", type=float)
    parser.add_argument("rest", nargs="*")
    args = parser.parse_args(["--size", "-3.5", "--", "--siz"])
    assert (args.size, args.rest) == (-3.5, ["--siz"])


def test_rows_of_a_table_follow_from_the_fields():
    assert list(table_rows(Few)) == [
        ("`--size` (`--pixels`)", "`3`", "of something"),
        ("`--names`", "`a b`", "of things"),
        ("`--fast`", "off", "in less time"),
        ("`--no-safe`", "off", "without a net"),
        ("`--color` (`--no-color`)", "on", "with color"),
    ]


def test_a_field_can_have_another_default_and_help_elsewhere():
    parser = Parser()
    add_option(parser, Few, "size", default=9, help="of something else")
    assert parser.parse_args([]).size == 9
    assert "of something else (default: 9)" in parser.format_help()


def test_the_table_of_the_options_page_is_that_of_the_options():
    text = page.PAGE.read_text()
    assert page.updated(text) == text, "make options-page"


def test_every_option_is_in_the_parser_once_and_every_value_has_a_field():
    actions = [action for action in make_parser()._actions if action.dest != "help"]
    names = [name for action in actions for name in action.option_strings]
    assert len(names) == len(set(names))
    assert {action.dest for action in actions} == {field.name for field, _ in options_of(Options)}
    assert {field.name for field in fields(Options)} - {action.dest for action in actions} == {"net_by_default"}
    assert len(FIRST) == 10


def test_presets_name_options():
    known = {field.name for field in fields(Options)}
    for preset in (*RECIPES.values(), *SCHEDULES.values()):
        assert set(preset) <= known


def test_names_that_are_known_without_torch_are_those_of_the_tables():
    assert tuple(dict.fromkeys(spec.name for spec in MODELS.values())) == NET_NAMES
    assert (*DATASETS, AUTO) == DATASET_TYPES
    for names in (ADAMW_RATES, BUNDLED_BASE_NET_RATES, *TORCHVISION.values()):
        assert set(names) <= set(NET_NAMES)


@pytest.mark.parametrize("script", ["train_ssd.py", "eval_ssd.py", "onnx_export.py", "detect.py"])
@pytest.mark.parametrize("word", ["--help", "-h"])
def test_help_comes_before_torch_is_loaded(script, word):
    code = (
        "import runpy, sys\n"
        f"sys.argv = [{script!r}, {word!r}]\n"
        "try:\n"
        f"    runpy.run_path({script!r}, run_name='__main__')\n"
        "finally:\n"
        "    print([name for name in ('torch', 'numpy', 'cv2') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    *said, loaded = done.stdout.splitlines()
    assert loaded == "[]"
    assert any(line.startswith(f"  python3 {script} --") for line in said), "an example"


def test_help_of_training_begins_with_what_people_need_first():
    text = make_parser().format_help()
    assert text.index("python3 train_ssd.py --data=data/fruit") < text.index("--dry-run") < text.index("--val-split")
    assert "docs/training.md" in text


def test_words_that_options_take_are_those_that_the_program_knows():
    assert tuple(folder.SPLITS) == kinds.SPLITS
    assert tuple(INPUT_NORMS) == INPUT_NORM_NAMES


def test_what_a_user_types_is_what_args_json_has():
    options = train_ssd.parse_args(["--no-negatives", "--no-plots", "--data", "a", "b", "--lr=0.5"])
    assert (options.no_negatives, options.plots, options.data, options.lr) == (True, False, ("a", "b"), 0.5)
    assert set(vars(options)) == {field.name for field in fields(Options)}

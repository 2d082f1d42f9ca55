"""The home folder as `~` in options that name files and folders."""

from pathlib import Path

import pytest

import detect
import eval_ssd
import onnx_export
import open_images_downloader
import plot_logs
import train_ssd
from vision import console
from vision.options import kinds

#: How each script is parsed, with what it cannot do without.
SCRIPTS = {
    train_ssd.parse_args: (),
    eval_ssd.parse_args: ("--model=m.pth", "--data=d"),
    onnx_export.parse_args: ("--data=d", "--int8"),
    detect.parse_args: ("--model=m.pth", "--input=i"),
    open_images_downloader.parse_args: ("--class-names=cat",),
    plot_logs.parse_args: ("run",),
}

#: Options with text that names no file.
NO_PATHS = {"classes", "keys", "int8_exclude"}


@pytest.fixture
def home(monkeypatch) -> str:
    monkeypatch.setenv("HOME", "/home/ann")
    return "/home/ann"


def path_actions(parse, monkeypatch) -> list:
    """All of a script's options and arguments that name files or folders."""
    parsers = []
    real = console.Parser.parse_known_args

    def remember(parser, *args, **kwargs):
        parsers.append(parser)
        return real(parser, *args, **kwargs)

    monkeypatch.setattr(console.Parser, "parse_known_args", remember)
    parse(list(SCRIPTS[parse]))
    expanding = (console.user_path, console.user_place, kinds.word_or_file)
    actions = [action for action in parsers[0]._actions if action.nargs != 0]
    unexpanded = {action.dest for action in actions if action.type in (None, str, Path)}
    assert unexpanded <= NO_PATHS, "text that may be a path needs the type user_path or user_place"
    return [action for action in actions if action.type in expanding]


@pytest.mark.parametrize("parse", SCRIPTS, ids=lambda parse: parse.__module__)
def test_every_path_of_every_script_knows_the_home_folder(parse, home, monkeypatch):
    actions = path_actions(parse, monkeypatch)
    assert actions
    for action in actions:
        argv = [f"{action.option_strings[0]}=~/a.png"] if action.option_strings else ["~/a.png"]
        required = [word for word in SCRIPTS[parse] if word.partition("=")[0] not in action.option_strings]
        found = getattr(parse([*(required if action.option_strings else ()), *argv]), action.dest)
        assert str(found[0] if isinstance(found, (list, tuple)) else found) == f"{home}/a.png", action.dest


def test_several_folders_and_patterns(home):
    assert train_ssd.parse_args(["--data", "~/a", "b", "~/c"]).data == ("/home/ann/a", "b", "/home/ann/c")
    assert plot_logs.parse_args(["~/a", "b"]).runs == [Path("/home/ann/a"), Path("b")]
    assert detect.parse_args(["--model=~/m", "--input", "~/*.jpg", "b"]).input == ["/home/ann/*.jpg", "b"]


@pytest.mark.parametrize(
    "text", ["rtsp://host/~ann/stream", "0", "/dev/video0", "a/~/b", "./~/b", "backup~", "~nobody-x/a"]
)
def test_what_does_not_begin_with_a_home_folder_stays(home, text):
    assert console.user_place(text) == text
    assert detect.parse_args(["--model=m", f"--input={text}"]).input == [text]


def test_words_in_the_place_of_files_stay(home):
    args = train_ssd.parse_args(["--pretrained-ssd=None", "--base-net=imagenet", "--priors=coco", "--resume"])
    assert (args.pretrained_ssd, args.base_net, args.priors, args.resume) == ("none", "imagenet", "coco", "")

"""Class lists."""

import pytest

from vision.datasets.labels import merge, read_labels, store_labels, with_background
from vision.structures import DataError


@pytest.mark.parametrize(
    ("content", "names"),
    [
        (b"a\nb\n", ("a", "b")),
        (b"a\r\nb\r\n\r\n", ("a", "b")),
        (b"\xef\xbb\xbfa\n\n  b c \n", ("a", "b c")),
        (b"BACKGROUND\na\nb", ("a", "b")),
        (b"background\na\n", ("a",)),
        (b"a,b, c", ("a", "b", "c")),
        (b"a\nb, c\n", ("a", "b, c")),
        (b"a\na\nb\n", ("a", "b")),
        (
            b"# label:color_rgb:parts:actions\nbackground:0,0,0::\ncat:128,0,0::\nStrain Relief (Screw):64,224,64::\n",
            ("cat", "Strain Relief (Screw)"),
        ),
        (b"12:30\nratio 1:2\n", ("12:30", "ratio 1:2")),
    ],
    ids=[
        "plain",
        "crlf and blank end",
        "bom and blanks",
        "background",
        "its case",
        "commas",
        "comma in a name",
        "repeated",
        "CVAT",
        "colons",
    ],
)
def test_reading(tmp_path, content, names):
    (tmp_path / "labels.txt").write_bytes(content)
    assert read_labels(tmp_path / "labels.txt") == ("BACKGROUND", *names)


@pytest.mark.parametrize(
    ("content", "message"), [(b"\n\n", "names no class"), (b"\xff\xfe\x00", "UTF-8"), (None, "no such file")]
)
def test_files_that_hold_no_labels(tmp_path, content, message):
    path = tmp_path / "labels.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        read_labels(path)
    assert str(path) in str(caught.value)


def test_repeated_names_are_said(tmp_path, caplog):
    (tmp_path / "labels.txt").write_text("a\nb\na\n")
    read_labels(tmp_path / "labels.txt")
    assert "labels.txt: names a more than once" in caplog.text


def test_writing(tmp_path):
    store_labels(tmp_path / "new" / "labels.txt", ["BACKGROUND", "a"])
    assert (tmp_path / "new" / "labels.txt").read_bytes() == b"BACKGROUND\na\n"


def test_merging_goes_by_name():
    assert merge([("BACKGROUND", "b", "a"), ("BACKGROUND", "c", "b")]) == ("BACKGROUND", "b", "a", "c")
    assert with_background([]) == ("BACKGROUND",)

"""--dataset-type=package.module:Class: a reader from outside the package."""

import importlib
import json
import re
import sys

import numpy as np
import pytest
from conftest import ROOT, SMALL, assert_refused

import train_ssd
from vision.datasets import open_dataset, synthetic
from vision.structures import DataError

TYPE = "my_readers:JsonLines"


@pytest.fixture
def own_module(tmp_path, monkeypatch):
    """Write `my_readers.py` in the current folder; nothing of it stays loaded."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def write(code):
        sys.modules.pop("my_readers", None)
        (tmp_path / "my_readers.py").write_text(code)
        importlib.invalidate_caches()
        return tmp_path

    yield write
    sys.modules.pop("my_readers", None)


@pytest.fixture
def json_lines(own_module, images):
    """The example of docs/contributing.md, and a dataset of its format."""
    page = (ROOT / "docs" / "contributing.md").read_text()
    section = page.split("## A dataset format without a change to the package", 1)[1].partition("\n## ")[0]
    (code,) = re.findall(r"^```python\n(.*?)^```$", section, flags=re.MULTILINE | re.DOTALL)
    assert f"--dataset-type={TYPE}" in section
    root = own_module(code) / "fruit"
    for split, drawings in images.items():
        (root / split).mkdir(parents=True)
        with open(root / split / "boxes.jsonl", "w") as file:
            for number, drawing in enumerate(drawings):
                synthetic.write_image(root / split / f"{number}.png", drawing.image)
                objects = [[name, *box] for name, box in zip(drawing.names, drawing.boxes.tolist(), strict=True)]
                file.write(json.dumps({"image": f"{number}.png", "objects": objects}) + "\n")
    return root


@pytest.mark.parametrize("inside", ["", "voc"])
def test_the_example_reads_what_was_written(json_lines, images, monkeypatch, inside):
    """The reader gets the folder as it is named, whatever else of other formats is below."""
    if inside:
        for name in ("one", "two"):
            synthetic.write_voc(json_lines / inside / name, {"train": images["train"][:1]})
    monkeypatch.syspath_prepend(json_lines.parent)
    for split, drawings in images.items():
        dataset = open_dataset(TYPE, json_lines, split)
        assert dataset.class_names[1:] == tuple(
            sorted({name for one in images.values() for drawn in one for name in drawn.names})
        )
        assert [record.names for record in dataset.records] == [drawing.names for drawing in drawings]
        for record, drawing in zip(dataset.records, drawings, strict=True):
            np.testing.assert_allclose(record.boxes, drawing.boxes, atol=1e-4)


def test_a_run_trains_on_it_and_knows_it_when_it_goes_on(json_lines, script):
    argv = (f"--dataset-type={TYPE}", f"--data={json_lines}", "--model-dir=model", *SMALL, "--no-plots")
    done = script(train_ssd.main, *argv, "--epochs=1")
    assert done.code == 0, done.err
    assert json.loads((json_lines.parent / "model" / "args.json").read_text())["arguments"]["dataset_type"] == TYPE


@pytest.mark.parametrize(
    ("code", "name", "fragments"),
    [
        ("", "no_such_readers:JsonLines", ["no module 'no_such_readers'", "PYTHONPATH", "package.module:Class"]),
        ("import no_such_package", TYPE, ["no module 'no_such_package'"]),
        ("", TYPE, ["my_readers.py", "no such class"]),
        ("JsonLines = 1", TYPE, ["my_readers.py", "is no reader", "vision.datasets.folder.DatasetReader"]),
        ("class JsonLines: pass", TYPE, ["is no reader"]),
        ("1 +", TYPE, ["my_readers fails when imported", "SyntaxError"]),
        ("import sys; sys.exit(3)", TYPE, ["my_readers fails when imported", "SystemExit"]),
        ("", ":JsonLines", ["package.module:Class"]),
        ("", "my_readers:", ["package.module:Class"]),
        (
            "from vision.datasets.folder import DatasetReader\nclass JsonLines(DatasetReader): pass",
            TYPE,
            ["lacks listing, all_images, written_labels, all_names"],
        ),
        (
            "from vision.datasets.annotated_folder import SelfDescribedReader\nclass JsonLines(SelfDescribedReader): pass",
            TYPE,
            ["lacks annotate"],
        ),
    ],
)
def test_what_is_no_reader_is_refused(own_module, script, code, name, fragments):
    own_module(code)
    assert_refused(script(train_ssd.main, f"--dataset-type={name}"), "--dataset-type", *fragments)


def test_the_library_refuses_it_too(own_module, tmp_path):
    with pytest.raises(DataError, match="no module 'no_such_readers'"):
        open_dataset("no_such_readers:Reader", tmp_path, "test")

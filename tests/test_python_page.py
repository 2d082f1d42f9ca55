"""docs/python.md: its snippets run as they stand, one after the other, but for the length of the training."""

import logging
import re
import shutil

from conftest import CLASSES, ROOT

from vision.evaluation.report import Report
from vision.structures import Detections

SHORT = '"--epochs=1", "--resolution=96", "--device=cpu", "--amp=off", "--workers=0", "--seed=1", "--no-plots"'


def snippets() -> list[str]:
    page = (ROOT / "docs" / "python.md").read_text()
    return re.findall(r"^```python\n(.*?)^```$", page, flags=re.MULTILINE | re.DOTALL)


def test_the_snippets_run(tmp_path, voc_root, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(logging.root, "handlers", [*logging.root.handlers])
    shutil.copytree(voc_root, tmp_path / "data" / "fruit")
    train, *others = snippets()
    assert '"--epochs=30"' in train
    names = {}
    for code in (train.replace('"--epochs=30"', SHORT), *others):
        exec(compile(code, "docs/python.md", "exec"), names)
    assert names["session"].class_names[1:] == CLASSES
    assert isinstance(names["found"], Detections)
    assert isinstance(names["report"], Report)
    assert (tmp_path / "found.png").is_file()
    assert (tmp_path / "models" / "fruit" / "mb2-ssd-fpnlite.onnx").is_file()
    assert "COCO's AP" in capsys.readouterr().out

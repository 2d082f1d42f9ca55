"""The audit to look at: what its page says in words and numbers, which images it shows, and how its plots are drawn."""

import base64
import itertools
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from vision.boxes.forms import center_form_to_corner_form
from vision.datasets import ReadingOptions, open_splits
from vision.datasets.audit import make_audit
from vision.datasets.defects import KINDS, Defect
from vision.report import audit_page
from vision.report.drawing import FALSE
from vision.ssd.models import MODELS

CONFIG = MODELS["mb1-ssd-lite"].config_at(96)
BOX = "<bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox>"
OBJECTS = {
    "box-no-area": f"<object><name>ball</name>{BOX.format(50, 40, 50, 40)}</object>",
    "class-unknown": f"<object><name>cat</name>{BOX.format(60, 50, 85, 75)}</object>",
    "name-missing": f"<object><name></name>{BOX.format(10, 50, 40, 75)}</object>",
}


def audit_of(root: Path):
    train, validation = open_splits("voc", [root], ReadingOptions(cache=False))
    return train, make_audit(train, validation, (96, 96), center_form_to_corner_form(CONFIG.priors))


def page_of(root: Path, folder: Path) -> str:
    train, audit = audit_of(root)
    audit_page.save_audit_page(folder / "audit.png", train, audit, (96, 96), CONFIG.priors)
    return (folder / "audit.html").read_text()


def add_objects(root: Path, *objects: str, image: str = "train_00000") -> None:
    path = root / "Annotations" / f"{image}.xml"
    path.write_text(path.read_text().replace("</annotation>", "".join(objects) + "</annotation>"))


def pictures_of(html: str) -> list[np.ndarray]:
    found = re.findall(r'src="data:image/\w+;base64,([^"]+)"', html)
    return [
        cv2.cvtColor(cv2.imdecode(np.frombuffer(base64.b64decode(content), np.uint8), 1), cv2.COLOR_BGR2RGB)
        for content in found
    ]


def near(image: np.ndarray, color) -> np.ndarray:
    return np.abs(image.astype(int) - color).sum(axis=2) < 60


def test_things_are_counted_by_what_they_are():
    source = Path("list.txt")
    defects = [
        Defect("image-missing", source, "", things=3),
        Defect("image-truncated", source, ""),
        Defect("class-unknown", source, "", things=7),
        Defect("class-empty", source, "", things=2),
    ]
    assert audit_page._things(defects) == "7 objects\n4 images\n2 classes"
    assert audit_page._things(defects[1:2]) == "1 image"
    assert audit_page._things([]) == "nothing"


@pytest.mark.parametrize("kind", OBJECTS)
def test_what_is_left_out_is_drawn_with_dashes_and_its_reason(own_voc, tmp_path, kind):
    add_objects(own_voc, OBJECTS[kind])
    train, _ = audit_of(own_voc)
    marks = audit_page._all_marks(train, 0)
    assert sum(marks.dashed) == 1
    assert marks.captions[-1].endswith(audit_page._REASONS[kind])
    (x1, y1, x2, y2) = marks.boxes[-1]
    assert min(x2 - x1, y2 - y1) >= 0.03 * 96
    assert min(x1, y1) >= 0
    assert (x2, y2) <= (96, 80)
    html = page_of(own_voc, tmp_path / "m")
    title = KINDS[kind].title
    section = next(part for part in re.split("<h3>", html) if part.startswith(title[:1].upper() + title[1:]))
    assert ": 1 object</h3>" in section
    assert near(pictures_of(section)[0], FALSE).sum() > 50


def test_without_anything_left_out_nothing_is_drawn_so(own_voc):
    train, _ = audit_of(own_voc)
    assert not any(audit_page._all_marks(train, 0).dashed)


def test_the_page_says_what_it_shows_and_fits_a_telephone(own_voc, tmp_path):
    (own_voc / "ImageSets/Main/train.txt").write_text("train_00000\ntrain_00001\n<b>gone</b>\n")
    html = page_of(own_voc, tmp_path / "m")
    headings = re.findall(r"<h[123]>(.*?)</h[123]>", html)
    assert headings[:3] == [
        "What is in the dataset",
        "Objects of each class, and their sizes",
        "Training images with their objects",
    ]
    assert "Images that are not there: 1 image" in headings
    assert "<div>Left out<b>1 image</b></div>" in html
    assert '<meta name="viewport" content="width=device-width' in html
    assert len(pictures_of(html)) >= 2


def test_the_sheet_shows_each_image_once_and_every_class(own_voc, tmp_path, monkeypatch):
    shown = []
    sheet = audit_page.contact_sheet
    monkeypatch.setattr(audit_page, "contact_sheet", lambda cells, *rest: shown.append(cells) or sheet(cells, *rest))
    train, audit = audit_of(own_voc)
    train.repeat(3)
    audit_page.save_audit_page(tmp_path / "audit.png", train, audit, (96, 96), CONFIG.priors)
    names = [cell.name for cell in shown[0]]
    assert names == sorted({record.image_path.name for record in train.records})


def draw(classes: int) -> Figure:
    """The plots of a set of so many classes, of which the first has one object, the second two and so on."""
    figure = Figure(figsize=(14, 8), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    names = [f"a class with a long name, number {number}" for number in range(classes)]
    labels = np.repeat(np.arange(1, classes + 1), np.arange(1, classes + 1))
    sides = np.random.default_rng(0).uniform(9, 200, (len(labels), 2))
    counts = {split: {name: number + 1 for number, name in enumerate(names)} for split in ("train", "validation")}
    audit_page._draw_counts(left, counts, names)
    audit_page._draw_sizes(right, sides, labels, np.array([[30.0, 40.0]]), (300, 300), ["BACKGROUND", *names])
    figure.canvas.draw()
    return figure


@pytest.mark.parametrize("classes", [1, 3, 28, 80])
def test_plots_can_be_read_with_any_number_of_classes(classes):
    figure = draw(classes)
    left, right = figure.axes
    renderer = figure.canvas.get_renderer()
    for axis in (right.xaxis, right.yaxis):
        shown = [tick.get_text() for tick in axis.get_ticklabels()]
        assert {"32", "64"} <= set(shown)
        assert all(float(text) == 2 ** round(np.log2(float(text))) for text in shown)
    for axes in (left, right):
        legend = axes.get_legend().get_window_extent(renderer)
        assert not legend.overlaps(axes.get_window_extent(renderer)), "no legend lies over data"
    names = [tick.get_window_extent(renderer) for tick in left.get_yticklabels()]
    assert not any(one.overlaps(other) for one, other in itertools.pairwise(names))
    assert len(names) == min(classes, 30)
    texts = " ".join(text.get_text() for text in right.get_legend().get_texts())
    assert ("other classes" in texts) == (classes > 8)
    assert ("50 classes between are left out" in left.get_title()) == (classes == 80)

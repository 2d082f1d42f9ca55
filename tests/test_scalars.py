"""TensorBoard's folder of a run: one for the run and what goes on with it, with curves and pictures."""

import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from vision.engine.loop import EpochResult, MeanLosses
from vision.report.pace import Pace
from vision.report.records import ResultsTable, RunRecorder, Scalars


def read(folder: Path) -> EventAccumulator:
    accumulator = EventAccumulator(str(folder))
    accumulator.Reload()
    return accumulator


def values(folder: Path, name: str) -> dict[int, float]:
    return {event.step: event.value for event in read(folder).Scalars(name)}


def record(folder: Path, epochs: range, value: float, earlier: Path | None = None) -> Path:
    with Scalars(folder, earlier, epochs.start) as scalars:
        for epoch in epochs:
            scalars.write(epoch, {"Loss/val": value})
    return scalars.folder


def test_a_run_that_goes_on_has_one_folder_without_what_was_trained_again(tmp_path):
    first = record(tmp_path, range(4), 1.0)
    assert re.fullmatch(r"\d{8}_\d{6}", first.name)
    assert record(tmp_path, range(2, 5), 2.0, tmp_path) == first
    assert [path.name for path in tmp_path.iterdir()] == [first.name]
    assert values(first, "Loss/val") == {0: 1.0, 1: 1.0, 2: 2.0, 3: 2.0, 4: 2.0}


def test_a_run_that_goes_on_elsewhere_takes_its_curves_along(tmp_path):
    first = record(tmp_path / "a", range(2), 1.0)
    second = record(tmp_path / "b", range(2, 3), 2.0, tmp_path / "a")
    assert second == tmp_path / "b" / first.name
    assert values(second, "Loss/val") == {0: 1.0, 1: 1.0, 2: 2.0}
    assert values(first, "Loss/val") == {0: 1.0, 1: 1.0}, "what was there before is left as it was"


def test_the_newest_folder_is_that_of_the_run_that_goes_on(tmp_path):
    for name in ("20260101_000000", "20260102_000000", "notes"):
        (tmp_path / name).mkdir()
    assert Scalars(tmp_path, tmp_path, 1).folder.name == "20260102_000000"
    assert Scalars(tmp_path / "new", tmp_path / "none", 1).folder.name > "20260102_000000"
    assert Scalars(tmp_path).folder.name > "20260102_000000", "a run that begins has a folder of its own"


def test_pictures_are_kept_as_they_are(tmp_path):
    path = tmp_path / "val_batch.jpg"
    cv2.imwrite(str(path), np.full((30, 40, 3), 90, np.uint8))
    with Scalars(tmp_path / "t") as scalars:
        for epoch in (3, 7):
            scalars.write_picture(epoch, path)
        scalars.write_picture(3, tmp_path / "absent.jpg")
    images = read(scalars.folder).Images("val_batch")
    assert [(image.step, image.width, image.height) for image in images] == [(3, 40, 30), (7, 40, 30)]
    assert images[0].encoded_image_string == path.read_bytes()
    assert read(scalars.folder).Tags()["images"] == ["val_batch"]


class Pictures:
    """Stands for `RunPictures`: writes a picture where it would draw one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def draw(self, result, rows):
        cv2.imwrite(str(self.folder / "val_batch.jpg"), np.zeros((8, 8, 3), np.uint8))


@pytest.mark.parametrize("first_epoch", [0, 3])
def test_a_recorder_writes_rates_and_the_training_batch_of_a_run_that_begins(tmp_path, first_epoch):
    cv2.imwrite(str(tmp_path / "train_batch.jpg"), np.zeros((8, 8, 3), np.uint8))
    (tmp_path / "results.csv").write_text("epoch,Loss/train\n0,4.0\n1,3.0\n2,2.0\n")
    losses = MeanLosses(1.0, 2.0)
    table = ResultsTable(tmp_path / "results.csv", tmp_path / "results.csv", first_epoch)
    scalars, pace = Scalars(tmp_path / "tensorboard"), Pace(4, 1, 4)
    with RunRecorder(table, scalars, pace, pictures=Pictures(tmp_path)) as recorder:
        recorder.write(EpochResult(first_epoch, losses, None, None, learning_rates={"heads": 0.01}), is_best=True)
    (folder,) = (tmp_path / "tensorboard").iterdir()
    assert values(folder, "Learning Rate/heads") == {first_epoch: pytest.approx(0.01)}
    assert read(folder).Tags()["images"] == (["train_batch"] if first_epoch == 0 else [])

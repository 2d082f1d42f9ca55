"""Augmentation whose pixels are the device's work: the same samples as from the loaders, but for rounding."""

import json

import numpy as np
import pytest
import torch
from conftest import train_argv

import train_ssd
from vision.datasets import synthetic
from vision.datasets.image_cache import ImageCache
from vision.datasets.loading import EpochBatches, end_workers, make_loader
from vision.datasets.voc_dataset import VOCDataset
from vision.engine.checkpoint import ExecutionChoice
from vision.engine.execution import choose_execution
from vision.engine.run import Run
from vision.engine.step import to_device
from vision.options.training import Options
from vision.ssd import device_augmentation
from vision.ssd.data_preprocessing import AUGMENTATIONS, TrainAugmentation
from vision.ssd.device_augmentation import AugmentingPreprocess, DeferredAugmentation, change_colors
from vision.structures import Batch, ImageParts
from vision.transforms.color import ColorChange, PhotometricDistort, RandomContrast

SIZE, MEAN = (96, 64), (127, 100, 60)


@pytest.fixture
def dataset(tmp_path):
    """Twelve images of 160 x 120, four of them without objects."""
    synthetic.write_voc(tmp_path / "voc", {"train": synthetic.drawings(12, 0, size=(160, 120))})
    made = VOCDataset(tmp_path / "voc")
    made.records = [*(record.only([]) for record in made.records[:4]), *made.records[4:]]
    return made


def by_the_loader(kind: str) -> TrainAugmentation:
    return TrainAugmentation(SIZE, MEAN, 128.0, kind)


def by_the_device(kind: str) -> DeferredAugmentation:
    return DeferredAugmentation(by_the_loader(kind))


def batches_of(dataset, transform, workers: int = 0, epochs: int = 1, cache=None) -> list[Batch]:
    order = EpochBatches(len(dataset), 6)
    loader = make_loader(dataset, transform, order, workers, cache=cache)
    batches = []
    for epoch in range(epochs):
        order.begin(epoch)
        batches += list(loader)
    end_workers(loader)
    return batches


def rendered(batches: list[Batch]) -> torch.Tensor:
    normalizer = AugmentingPreprocess(SIZE, MEAN, 128.0)
    return torch.cat([normalizer.render(to_device(batch, torch.device("cpu")).images) for batch in batches])


def test_the_same_seed_gives_the_same_samples_but_for_rounding(dataset):
    seen = {"mirrored": 0, "smaller": 0, "nowhere": 0}
    for kind in AUGMENTATIONS:
        deferred = batches_of(dataset, by_the_device(kind), epochs=10)
        plain = batches_of(dataset, by_the_loader(kind), epochs=10)
        for one, other in zip(deferred, plain, strict=True):
            assert torch.equal(one.boxes, other.boxes)
            assert torch.equal(one.labels, other.labels)
            assert one.indices == other.indices
            assert isinstance(one.images, ImageParts)
            for height, _, left, _, right, _, mirrored in one.images.places.tolist():
                seen["mirrored"] += mirrored
                seen["smaller"] += 0 < right - left < SIZE[0]
                seen["nowhere"] += height == 0
        images, expected = rendered(deferred), rendered(plain)
        assert images.dtype == torch.uint8
        off = (images.int() - expected.int()).abs()
        if kind == "ssd":  # uint8 has hues in steps of two degrees, and enlarged parts are colored before they are
            assert (off > 12).float().mean() < 1e-3
        else:
            assert off.max() <= 1
        assert off.float().mean() < (0.5 if kind == "ssd" else 0.15)
        assert (images.float().mean() - expected.float().mean()).abs() < 0.3
    assert min(seen.values()) > 0, seen


def test_other_seeds_give_the_same_distribution(dataset):
    """Of what cannot be compared one by one: channels' means and deviations over many samples."""
    deferred = rendered(batches_of(dataset, by_the_device("ssd"), epochs=60)).float()
    dataset.records = dataset.records[::-1]  # seeds go by the index
    plain = rendered(batches_of(dataset, by_the_loader("ssd"), epochs=60)).float()
    assert len(deferred) == len(plain) == 12 * 60
    for statistic in (lambda images: images.mean(dim=(0, 2, 3)), lambda images: images.std(dim=(0, 2, 3))):
        torch.testing.assert_close(statistic(deferred), statistic(plain), rtol=0.06, atol=0)


@pytest.mark.parametrize(
    "change",
    [
        ColorChange(),
        ColorChange(brightness=-31.5),
        ColorChange(brightness=30.25),
        ColorChange(early_contrast=1.4),
        ColorChange(late_contrast=0.6),
        ColorChange(saturation=1.45),
        ColorChange(saturation=0.5),
        ColorChange(hue=17.5),
        ColorChange(hue=-17.5),
        ColorChange(channels=(2, 0, 1)),
        ColorChange(20, 1, 1.3, -12, 1.2, (1, 2, 0)),
        ColorChange(-20, 1.3, 0.7, 9, 1, (0, 2, 1)),
    ],
)
def test_each_color_change_is_that_of_the_loaders(change):
    rng = np.random.default_rng(0)
    image = np.concatenate([rng.integers(0, 256, (40, 50, 3)), np.full((2, 50, 3), 77)]).astype(np.uint8)
    image[0], image[1] = 0, 255
    expected = PhotometricDistort().change(image, change).astype(int)
    numbers = torch.tensor([*change[:-1], *change.channels]).float()[None]
    batch = torch.from_numpy(image.transpose(2, 0, 1))[None].float()
    found = change_colors(batch, numbers)[0].numpy().transpose(1, 2, 0)
    turns = (change.saturation, change.hue) != (1, 0)
    assert np.abs(found - expected).max() <= (12 if turns else 1)
    assert np.abs(found - expected).mean() < (1.6 if turns else 0.5)
    assert np.array_equal(expected, image) == (change == ColorChange())


def test_colors_of_one_image_are_not_those_of_another():
    images = torch.full((3, 3, 2, 2), 100.0)
    numbers = [[*change[:-1], *change.channels] for change in (ColorChange(), ColorChange(7), ColorChange(0, 2))]
    assert change_colors(images, torch.tensor(numbers).float())[:, 0, 0, 0].tolist() == [100, 107, 200]


def test_colors_of_a_kind_that_the_device_does_not_know(dataset):
    """They are changed before: here half of the images get another contrast, and nothing else."""
    contrast = by_the_loader("light")
    contrast.photometry = RandomContrast()
    found, plain, unchanged = (
        rendered(batches_of(dataset, transform)).int()
        for transform in (DeferredAugmentation(contrast), contrast, by_the_loader("light"))
    )
    assert (found - plain).abs().float().mean() < 0.5
    assert (found - unchanged).abs().float().mean() > 5


def test_parts_that_are_large_are_resized_before_they_are_handed_over(dataset, monkeypatch):
    whole = batches_of(dataset, by_the_device("light"))
    monkeypatch.setattr(device_augmentation, "_MAX_HANDED_OVER", 1.5)
    small = batches_of(dataset, by_the_device("light"))
    assert sum(len(batch.images.pixels) for batch in small) < sum(len(batch.images.pixels) for batch in whole)
    most = 1.5 * 3 * SIZE[0] * SIZE[1]
    assert all((batch.images.places[:, :2].prod(dim=1) * 3).max() <= most for batch in small)
    assert (rendered(small).int() - rendered(whole).int()).abs().max() <= 1


@pytest.mark.parametrize("workers", [0, 2])
def test_samples_do_not_depend_on_workers_or_the_cache(dataset, workers):
    expected = batches_of(dataset, by_the_device("ssd"), epochs=2)
    cached = batches_of(dataset, by_the_device("ssd"), workers, epochs=2, cache=ImageCache(dataset.records))
    for one, other in zip(cached, expected, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one.images, other.images, strict=True))


@pytest.mark.parametrize(
    ("asked", "device", "kept", "expected"),
    [
        ("auto", "cpu", None, "cpu"),
        ("auto", "cuda", None, "device"),
        ("cpu", "cuda", None, "cpu"),
        ("device", "cpu", None, "device"),
        ("auto", "cpu", {"augment_on": "device"}, "device"),
        ("auto", "cuda", {}, "cpu"),  # a run of before there was a choice
        ("device", "cuda", {"augment_on": "cpu"}, "device"),
    ],
)
def test_who_augments(monkeypatch, asked, device, kept, expected):
    class State:
        execution = ExecutionChoice(**{"amp": "off", "channels_last": False, **(kept or {})})

    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (8, 0))
    state = None if kept is None else State
    run = Run(Options(amp="off", augment_on=asked, seed=1), ())
    run.device, run.state = torch.device(device), state
    execution = choose_execution(run)
    assert execution.augment_on == expected
    assert execution.choice.augment_on == expected


def test_a_run_that_augments_on_its_device_and_one_that_goes_on(script, voc_root, tmp_path):
    weights = {}
    for where in ("auto", "device"):
        argv = train_argv(
            voc_root, tmp_path / where, f"--augment-on={where}", "--epochs=2", "--batch-size=3", plots=True
        )
        done = script(train_ssd.main, *argv, "--augmentation=ssd", "--workers=0", "--device=cpu")
        assert (done.code, done.err) == (0, "")
        assert ("images: augmented on cpu (--augment-on)" in done.out) == (where == "device")
        assert (
            json.loads((tmp_path / where / "args.json").read_text())["augment_on"]
            == ("cpu", "device")[where == "device"]
        )
        assert (tmp_path / where / "train_batch.jpg").stat().st_size > 1000
        weights[where] = (tmp_path / where / "last.pth").read_bytes()
    assert weights["auto"] != weights["device"], "they differ by rounding"
    done = script(
        train_ssd.main,
        *train_argv(voc_root, tmp_path / "device", "--resume", "--epochs=3", "--batch-size=3", "--workers=0"),
    )
    assert done.code == 0
    assert "images: augmented on cpu" in done.out, "a run goes on as it began"

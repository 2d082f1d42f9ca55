"""Groups, freezing and schedules."""

import pytest
import torch
from runs_in_parts import run_of
from train_steps import train_step_on

from vision.datasets.loading import EpochBatches
from vision.engine import loop
from vision.engine.batch_norm import trains_batch_norm
from vision.engine.optim import freeze, make_optimizer, param_groups, restore
from vision.engine.schedule import lr_factor, set_learning_rates
from vision.options.training import OptimOptions, Options, ScheduleOptions
from vision.report.lines import log_epoch
from vision.ssd.models import MODELS
from vision.structures import DataError


@pytest.fixture(scope="module")
def spec():
    return MODELS["mb1-ssd-lite"]


def test_every_parameter_is_in_one_group(spec):
    net = MODELS["vgg16-ssd"].build(3)
    groups = param_groups(net, OptimOptions(lr=0.3, base_net_lr=0.1, extra_layers_lr=0.2))
    assert {group["name"]: group["lr"] for group in groups} == {
        "heads": 0.3,
        "extra_layers": 0.2,
        "base_net": 0.1,
    }
    ids = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(ids) == sorted(id(parameter) for parameter in net.parameters())


def test_extra_layers_follow_lr_unless_told_otherwise(spec):
    groups = param_groups(spec.build(3), OptimOptions(lr=0.3))
    assert {group["name"]: group["lr"] for group in groups}["extra_layers"] == 0.3


@pytest.mark.parametrize(
    ("options", "trained"),
    [
        ({}, {"base_net", "extra_layers", "heads"}),
        ({"freeze_base_net": True}, {"extra_layers", "heads"}),
        ({"freeze_net": True}, {"heads"}),
        ({"freeze_net": True, "freeze_base_net": True}, {"heads"}),
    ],
)
def test_freezing(spec, options, trained):
    net = spec.build(3)
    options = OptimOptions(**options)
    frozen = freeze(net, options)
    assert {group["name"] for group in param_groups(net, options)} == trained
    assert (net.base_net in frozen) == ("base_net" not in trained)
    assert (net.extras in frozen) == ("extra_layers" not in trained)
    assert net.base_net[0][0].weight.requires_grad == ("base_net" in trained)
    assert net.classification_headers[0][0].weight.requires_grad


def test_make_optimizer_takes_its_options(spec):
    group = make_optimizer(spec.build(3), OptimOptions(momentum=0.7, weight_decay=0.01)).param_groups[0]
    assert (group["momentum"], group["weight_decay"]) == (0.7, 0.01)


def factors(steps: int = 100, **options) -> list[float]:
    schedule = ScheduleOptions(**options)
    return [lr_factor(iteration, steps, schedule) for iteration in range(steps * schedule.epochs)]


def test_cosine_warms_up_and_ends_at_zero():
    values = factors(epochs=30)
    peak = values.index(max(values))
    assert values[0] < 0.01
    assert values[: peak + 1] == sorted(values[: peak + 1])
    assert 250 <= peak <= 350, "a tenth of the run"
    assert values[peak:] == sorted(values[peak:], reverse=True)
    assert values[-1] < 1e-6
    assert values[1500] == pytest.approx(0.5)


def test_warm_up_is_short_in_long_runs():
    values = factors(steps=2000, epochs=30)
    assert values.index(max(values)) <= 500


def test_t_max_is_the_period_of_cosine():
    values = factors(epochs=10, t_max=100)
    assert values[-1] == pytest.approx(0.976, abs=0.01)


def test_multi_step_follows_milestones_and_gamma():
    values = factors(steps=10, epochs=10, scheduler="multi-step", milestones=(4, 8), gamma=0.3)
    assert values[39] == 1
    assert values[40] == pytest.approx(0.3)
    assert values[79] == pytest.approx(0.3)
    assert values[80] == pytest.approx(0.09)


def test_unknown_scheduler():
    with pytest.raises(ValueError, match="cosine, multi-step"):
        factors(scheduler="linear")


def test_rates_are_set_in_proportion(spec):
    optimizer = make_optimizer(spec.build(3), OptimOptions(lr=0.2, base_net_lr=0.1))
    set_learning_rates(optimizer, 0.5)
    set_learning_rates(optimizer, 0.5)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.1, 0.1, 0.05])


def test_a_restored_optimizer_keeps_its_memory_and_takes_the_new_options(spec):
    net = spec.build(3)
    old = make_optimizer(net, OptimOptions(lr=0.1))
    sum(parameter.sum() for parameter in net.parameters()).backward()
    old.step()
    new = make_optimizer(net, OptimOptions(lr=0.7, momentum=0.3, weight_decay=0.2))
    restore(new, old.state_dict())
    group = new.param_groups[0]
    assert (group["initial_lr"], group["momentum"], group["weight_decay"]) == (0.7, 0.3, 0.2)
    parameter = group["params"][0]
    assert torch.equal(new.state[parameter]["momentum_buffer"], old.state[parameter]["momentum_buffer"])
    frozen = OptimOptions(freeze_net=True)
    with pytest.raises(DataError, match="trained heads, extra_layers, base_net, this one heads; .*--freeze-net"):
        restore(make_optimizer(net, frozen), old.state_dict())


def test_what_takes_its_statistics_from_batches():
    net = MODELS["mb1-ssd-lite"].build(3)
    assert trains_batch_norm(net, freeze(net, OptimOptions()))
    assert not trains_batch_norm(net, freeze(net, OptimOptions(freeze_base_net=True))), "all of it is in the backbone"
    net = MODELS["mb2-ssd-lite"].build(3)
    assert trains_batch_norm(net, freeze(net, OptimOptions(freeze_base_net=True)))
    assert not trains_batch_norm(MODELS["sq-ssd-lite"].build(3), ())


def test_frozen_batch_norm_stands_still(voc_root):
    """Through the loop itself: neither weights nor statistics of a frozen backbone move, those of the rest do."""
    from vision.datasets.loading import make_loader
    from vision.datasets.voc_dataset import VOCDataset
    from vision.engine.loop import train_epochs
    from vision.engine.step import TrainingModel, TrainStep
    from vision.nn.multibox_loss import MultiboxLoss
    from vision.ssd.data_preprocessing import Preprocess, TestTransform

    dataset = VOCDataset(voc_root)
    spec = MODELS["mb2-ssd-lite"]
    for options, moving in (
        (OptimOptions(freeze_base_net=True), "extras.0.conv.1"),
        (OptimOptions(freeze_net=True), "classification_headers.0.1"),
    ):
        net = spec.build(len(dataset.class_names), config=spec.config_at(96))
        before = {key: value.clone() for key, value in net.state_dict().items()}
        frozen = freeze(net, options)
        loader = make_loader(dataset, TestTransform(96), EpochBatches(len(dataset), 3), 0)
        model = TrainingModel(net, Preprocess(127, 128.0), MultiboxLoss())
        train_step = TrainStep(model, make_optimizer(net, options), Options(epochs=1, clip_grad=None), frozen=frozen)
        list(train_epochs(run_of(train_step, epochs=1), loader))
        after = net.state_dict()
        still = ("base_net", "extras") if options.freeze_net else ("base_net",)
        assert all(torch.equal(before[key], after[key]) for key in before if key.startswith(still))
        assert not torch.equal(before[f"{moving}.running_mean"], after[f"{moving}.running_mean"])
        assert not torch.equal(before["regression_headers.5.weight"], after["regression_headers.5.weight"])


@pytest.mark.parametrize(("seconds_a_batch", "said"), [(3.0, "waited 75% of the time for images"), (0.1, None)])
def test_a_run_says_that_it_waits_for_images(voc_root, monkeypatch, caplog, seconds_a_batch, said):
    """By a clock that a batch and a step move on: nothing here depends on real time."""
    clock = [0.0]
    monkeypatch.setattr(loop, "perf_counter", lambda: clock[0])
    train_step, batches = train_step_on(voc_root, epochs=1)

    class SlowLoader:
        batch_sampler = EpochBatches(sum(len(batch.images) for batch in batches), 3, shuffle=False)

        def __len__(self):
            return len(batches)

        def __iter__(self):
            for batch in batches:
                clock[0] += seconds_a_batch
                yield batch

    caplog.set_level("INFO")
    for result in loop.train_epochs(run_of(train_step, epochs=1), SlowLoader()):
        clock[0] += 1.0
        if isinstance(result, loop.EpochResult):
            log_epoch(result)
    lines = [record.getMessage() for record in caplog.records if "waited" in record.getMessage()]
    assert len(lines) == (said is not None)
    assert said is None or (said in lines[0] and "--workers" in lines[0])
    assert result.waiting == pytest.approx(seconds_a_batch / (1 + seconds_a_batch))

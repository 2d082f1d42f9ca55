"""Small step trainers and batches for tests of single steps."""

from pathlib import Path

import torch

from vision.datasets import open_splits
from vision.datasets.loading import EpochBatches, make_loader
from vision.engine import optim
from vision.engine.precision import Precision
from vision.engine.process import SingleProcess
from vision.engine.step import TrainingModel, TrainStep
from vision.nn.multibox_loss import MultiboxLoss
from vision.options.training import Options
from vision.ssd.data_preprocessing import Preprocess, TestTransform
from vision.ssd.models import MODELS
from vision.structures import Batch

#: Of the input, in pixels: small, as 16 bits are slow where they are emulated.
SIZE = 64

#: Those that a CPU knows, by their --amp.
PRECISIONS = {"off": Precision("cpu"), "bf16": Precision("cpu", torch.bfloat16)}


def train_step_on(
    data: Path, batch_size: int = 3, precision: Precision | None = None, process: SingleProcess | None = None, **options
) -> tuple[TrainStep, list[Batch]]:
    """Make a small net, always with the same weights, and the batches of a VOC folder in their order."""
    torch.manual_seed(4)
    train_set, _ = open_splits("voc", [data])
    spec = MODELS["mb1-ssd-lite"]
    config = spec.config_at(SIZE)
    net = spec.build(len(train_set.class_names), config=config)
    net.init()
    order = EpochBatches(len(train_set), batch_size, shuffle=False)
    batches = list(make_loader(train_set, TestTransform(SIZE), order, 0))
    model = TrainingModel(net, Preprocess(127, 128.0), MultiboxLoss(), precision)
    chosen = Options(**{"epochs": 4, "clip_grad": None, **options})
    return TrainStep(model, optim.make_optimizer(net, chosen), chosen, process=process), batches


def freeze_norms(train_step: TrainStep) -> None:
    """Let batch norm stand still."""
    for module in train_step.net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()


def join_batches(batches: list[Batch]) -> Batch:
    """Make one batch of several."""
    most = max(batch.boxes.shape[1] for batch in batches)
    pad = torch.nn.functional.pad
    return Batch(
        torch.cat([batch.images for batch in batches]),
        torch.cat([pad(batch.boxes, (0, 0, 0, most - batch.boxes.shape[1])) for batch in batches]),
        torch.cat([pad(batch.labels, (0, most - batch.labels.shape[1])) for batch in batches]),
        tuple(index for batch in batches for index in batch.indices),
    )

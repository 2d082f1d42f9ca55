"""Going on with a run: finding it, loading its weights, and putting training where it was."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vision.engine import checkpoint, pretrained
from vision.ssd.config.ssd_config import SSDConfig
from vision.ssd.description import Description
from vision.ssd.models import describe_weights, spec_of
from vision.ssd.ssd import SSD, load_strictly
from vision.ssd.weights import read_weights
from vision.structures import DataError

if TYPE_CHECKING:
    from vision.engine.run import Run

logger = logging.getLogger(__name__)

#: What `train_ssd.py` is called where the package is installed (pyproject.toml).
INSTALLED_COMMAND = "ssd-train"


def find_run(resume: str | None, model_dir: Path) -> tuple[Path | None, checkpoint.RunState | None]:
    """Find what --resume names: the file, and the state of the run it belongs to where there is one.

    Args:
        resume: a file or folder, "" for the newest of `model_dir`, None for no run.
        model_dir: of the run that begins.

    Raises:
        DataError: there is nothing to resume, or its state cannot be read.
    """
    if resume is None:
        return None, None
    source = checkpoint.resume_source(resume, model_dir)
    state_path = source if source.suffix == ".state" else checkpoint.state_beside(source)
    return source, checkpoint.load_state(state_path) if state_path else None


def describe_run(resume: str, model_dir: Path) -> Description:
    """Describe the net of the run that --resume names, see `describe_weights`.

    Args:
        resume: a file or folder, "" for the newest of `model_dir`.
        model_dir: of the run that begins.

    Raises:
        DataError: there is nothing to resume, or its file cannot be read.
    """
    source = checkpoint.resume_source(resume, model_dir)
    if source.suffix == ".state":
        return checkpoint.load_state(source).description
    return describe_weights(read_weights(source), str(source))


def config_of_run(
    source: Path, state: checkpoint.RunState | None, net: str, width_height: tuple[int, int]
) -> SSDConfig | None:
    """Read the config that a run was trained with; None where its file does not say, as upstream's do not.

    Args:
        source: a file of weights, or of the state.
        state: of the run, where there is one.
        net: name or alias of the net that is asked for; None for a run of another.
        width_height: of its input in pixels; None for a run of another size.

    Raises:
        DataError: the file cannot be read, or is not of a net known here.
    """
    description = state.description if state else describe_weights(read_weights(source), str(source))
    config = description.config
    if description.net != spec_of(net).name or config is None:
        return None
    return config if config.width_height == width_height else None


def load_weights(net: SSD, source: Path, state: checkpoint.RunState | None) -> bool:
    """Load the weights to go on with, after checking that they are of this net.

    Args:
        net: with its class names.
        source: a file of weights, or of the state.
        state: of the run, where there is one.

    Returns:
        whether the run goes on; else only the weights were taken, and it starts at epoch 0.

    Raises:
        DataError: they are of another net, of another resolution, or of classes that nobody knows.
    """
    weights = state.training["weights"] if state else read_weights(source)
    description = state.description if state else describe_weights(weights, str(source))
    pretrained.expect_net(description, net, source)
    net.trained_on = description.trained_on
    names = description.class_names
    if names is None and description.num_classes != net.num_classes:
        raise DataError(
            f"{source}: was trained on {description.num_classes} classes whose names it does not know, the data "
            f"have {list(net.known_class_names)}; resume with the same classes, or begin a run from it with "
            "--pretrained-ssd"
        )
    if description.config is not None:
        width, height = description.config.width_height
        if (width, height) != net.config.width_height:
            raise DataError(f"{source}: was trained at {width}x{height}; add --resolution={width}x{height}")
    if names not in (None, net.class_names):
        kept = pretrained.load_classes(net, weights, names)
        pretrained.load_normalization(net, description)
        new = [name for name in net.known_class_names[1:] if name not in kept]
        dropped = [name for name in names[1:] if name not in kept]
        logger.warning(
            "Resume from %s: other classes, so weights only, starting at epoch 0; kept %s, new %s, dropped %s",
            source,
            kept,
            new,
            dropped,
        )
        return False
    load_strictly(net, weights, str(source))
    pretrained.load_normalization(net, description)
    if state is None:
        logger.warning(
            "Resume from %s: weights only, no optimizer state of that epoch was found; starting at epoch 0", source
        )
        return False
    logger.info("Resume from %s: optimizer and schedule go on", source)
    return True


def restore(run: Run) -> None:
    """Put training where the state of a run left it, if there is one.

    Args:
        run: with state, data order and train step; gets its train state.

    Raises:
        DataError: the state is of another optimizer, or of other frozen parts.
    """
    state, epochs = run.state, run.options.epochs
    if state is None:
        return
    run.train_step.load_state_dict(state.training)
    checkpoint.restore_random_state(state.random, run.train_step.device)
    train_state = run.train_state = state.progress
    if train_state.step and run.data_order != state.data_order:
        changed = ", ".join(run.data_order.differences(state.data_order))
        logger.warning(
            "Resume: stopped in the middle of epoch %d, with other %s: that epoch starts over",
            train_state.epoch,
            changed,
        )
        train_state.begin_epoch(train_state.epoch)
    logger.info("Resume: epoch %d goes on after step %d", train_state.epoch, train_state.step)
    if train_state.epoch >= epochs:
        more = 2 * train_state.epoch
        logger.warning("Resume: its %d epochs are done; --epochs=%d would add more", train_state.epoch, more)


def program_of(launcher: str, script: str) -> str:
    """Return what starts the training script, as a shell reads it.

    Args:
        launcher: what runs a script, such as `python3`.
        script: `sys.argv[0]`: the file, or the command of an installed package.
    """
    name = Path(script).name
    if name != INSTALLED_COMMAND:
        return f"{launcher} {shlex.quote(script)}"
    return f"{launcher} --no-python {name}" if launcher.startswith("torchrun") else name


def resume_command(program: str, argv: Sequence[str], *, auto_resume: bool) -> str:
    """Write the command that resumes a run; with --auto-resume that is the same command again.

    Args:
        program: what starts the script, as a shell reads it.
        argv: arguments that the run was started with.
        auto_resume: whether they have --auto-resume.
    """
    if auto_resume:
        return f"{program} {shlex.join(argv)}"
    kept, has_value = [], False
    for argument in argv:
        if argument.partition("=")[0] == "--resume":
            has_value = argument == "--resume"
            continue
        if not has_value or argument.startswith("-"):
            kept.append(argument)
        has_value = False
    return f"{program} {shlex.join([*kept, '--resume'])}"

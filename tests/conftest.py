"""What the tests share: tiny datasets drawn anew from a seed for each session, a model trained on them, helpers."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import sys
import zlib
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import dataset_writers  # noqa: E402

import onnx_export  # noqa: E402
import train_ssd  # noqa: E402
from vision import cli  # noqa: E402
from vision.datasets import synthetic  # noqa: E402
from vision.ssd.models import MODELS  # noqa: E402

GOLDEN = Path(__file__).parent / "golden"
SHARED = ROOT.parent / "shared"
CLASSES = ("ball", "board", "cone", "star")
IMAGE_SIZE = (96, 80)
SMALL = (
    "--net=mb1-ssd-lite",
    "--resolution=96",
    "--device=cpu",
    "--amp=off",
    "--workers=0",
    "--pretrained-ssd=none",
    "--lr=0.01",
    "--base-net-lr=0.001",
    "--seed=1",
)


#: Files that take long, the longest first. A worker that begins one last works alone at the end.
LONG = (
    "test_runs.py",
    "test_distributed.py",
    "test_models.py",
    "test_export_script.py",
    "test_audit.py",
    "test_export.py",
)


#: Tests that `make test-fast` leaves out, `<file>::<function>` a line; --write-slow-list measures them again.
SLOW_LIST = Path(__file__).parent / "slow.txt"

#: Processor seconds of all cases of a test, with its fixtures and processes that they start, from which it is slow.
#: They depend little on what else runs.
SLOW_SECONDS = 0.8

_SECONDS = pytest.StashKey[Counter[str]]()
_SHARED_SECONDS = pytest.StashKey[Counter[str]]()


def pytest_addoption(parser):
    parser.addoption("--write-slow-list", action="store_true", help=f"measure the tests, and write {SLOW_LIST.name}")


def pytest_configure(config):
    config.stash[_SECONDS] = Counter()
    config.stash[_SHARED_SECONDS] = Counter()


def function_of(item) -> str:
    return f"{item.path.name}::{item.originalname}"


def processor_seconds() -> float:
    return sum(os.times()[:4])


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_protocol(item):
    """Measure a test with its own fixtures, and with those of its module, whichever test they were made for."""
    seconds, shared = item.config.stash[_SECONDS], item.config.stash[_SHARED_SECONDS]
    before, shared[""] = processor_seconds(), 0.0
    yield
    own = processor_seconds() - before - shared.pop("")
    of_module = sum(shared[f"{item.path.name}::{name}"] for name in item.fixturenames)
    seconds[function_of(item)] = max(seconds[function_of(item)] + own, of_module)


@pytest.hookimpl(hookwrapper=True)
def pytest_fixture_setup(fixturedef, request):
    before = processor_seconds()
    yield
    if fixturedef.scope != "function":
        shared, used = request.config.stash[_SHARED_SECONDS], processor_seconds() - before
        shared[""] += used
        if fixturedef.scope == "module":
            shared[f"{request.path.name}::{fixturedef.argname}"] += used


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node):
    """Take over what a process of pytest-xdist has measured."""
    node.config.stash[_SECONDS] += Counter(getattr(node, "workeroutput", {}).get("seconds", {}))


def pytest_sessionfinish(session):
    """Write the list where that is asked for; tests that did not run stay as they were."""
    seconds = session.config.stash[_SECONDS]
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["seconds"] = dict(seconds)
    elif session.config.getoption("--write-slow-list"):
        others = [name for name in SLOW_LIST.read_text().split() if name not in seconds]
        slow = [name for name, used in seconds.items() if used > SLOW_SECONDS]
        SLOW_LIST.write_text("".join(f"{name}\n" for name in sorted({*others, *slow})))


def pytest_collection_modifyitems(items):
    """Mark what is slow, and put the longest files first; the others stay in their order."""
    slow = set(SLOW_LIST.read_text().split())
    for item in items:
        if function_of(item) in slow:
            item.add_marker(pytest.mark.slow)
    items.sort(key=lambda item: LONG.index(item.path.name) if item.path.name in LONG else len(LONG))


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """Keep what tests remember of files out of the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def images() -> dict[str, list[synthetic.Drawing]]:
    return {
        "train": synthetic.drawings(6, 1, size=IMAGE_SIZE),
        "test": synthetic.drawings(3, 2, size=IMAGE_SIZE),
    }


@pytest.fixture(scope="session")
def voc_root(tmp_path_factory, images) -> Path:
    root = tmp_path_factory.mktemp("voc")
    synthetic.write_voc(root, images)
    return root


@pytest.fixture
def own_voc(tmp_path, images) -> Path:
    """A VOC folder that a test may spoil."""
    root = tmp_path / "voc"
    synthetic.write_voc(root, images)
    return root


@pytest.fixture(scope="session")
def open_images_root(tmp_path_factory, images) -> Path:
    root = tmp_path_factory.mktemp("open_images")
    dataset_writers.write_open_images(root, images)
    return root


def write_small_voc(root: Path, train: int, test: int) -> Path:
    """Draw a VOC folder of so many images with one to three objects each."""
    options = {"size": IMAGE_SIZE, "objects": (1, 3)}
    splits = {"train": synthetic.drawings(train, 5, **options), "test": synthetic.drawings(test, 6, **options)}
    synthetic.write_voc(root, splits)
    return root


def golden_weight(key: str, shape: tuple[int, ...]) -> torch.Tensor:
    """Fill a weight by the rule the golden numbers were made with, see golden/README.md."""
    rng = np.random.default_rng(zlib.crc32(key.encode()))
    if key.endswith("num_batches_tracked"):
        return torch.zeros(shape, dtype=torch.int64)
    if key.endswith("running_var"):
        value = rng.uniform(0.5, 1.5, shape)
    elif key.endswith(("running_mean", "bias")):
        value = 0.1 * rng.standard_normal(shape)
    elif len(shape) == 1:
        value = rng.uniform(0.5, 1.5, shape)
    else:
        value = np.sqrt(2 / np.prod(shape[1:])) * rng.standard_normal(shape)
    return torch.from_numpy(value.astype(np.float32))


def golden_net(name: str, num_classes: int = 4, **options):
    net = MODELS[name].build(num_classes, **options)
    net.load_state_dict({key: golden_weight(key, tuple(value.shape)) for key, value in net.state_dict().items()})
    return net.eval()


def golden_json(name: str):
    return json.loads((GOLDEN / name).read_text())


@pytest.fixture
def script(capsys):
    """Run a script's main as the shell would: gives exit code, standard output and standard error."""

    def run(main, *argv) -> SimpleNamespace:
        with pytest.raises(SystemExit) as stop:
            cli.run(main, [str(argument) for argument in argv])
        out, err = capsys.readouterr()
        return SimpleNamespace(code=stop.value.code, out=out, err=err)

    return run


def train_argv(data, model_dir, *more, plots=False):
    """Options of a tiny run; it takes about as long again where it draws."""
    drawn = () if plots else ("--no-plots",)
    return "--dataset-type=voc", f"--data={data}", f"--model-dir={model_dir}", *SMALL, *drawn, *more


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory, voc_root) -> Path:
    """A folder after two epochs and an export."""
    folder = tmp_path_factory.mktemp("run") / "new" / "model"
    for main, argv in (
        (train_ssd.main, train_argv(voc_root, folder, "--epochs=2", "--batch-size=3", "--debug-steps=1", plots=True)),
        (onnx_export.main, (f"--model-dir={folder}",)),
    ):
        main(list(argv))
    return folder


@pytest.fixture(scope="session")
def sure_model(model_dir, tmp_path_factory) -> Path:
    """The trained net with a bias that makes it see balls everywhere: something to draw."""
    from vision.deploy.torch_session import load_net

    net = load_net(model_dir / "best.pth")
    with torch.no_grad():
        for head in net.classification_headers:
            conv = head[-1] if isinstance(head, torch.nn.Sequential) else head
            conv.bias[1 :: net.num_classes] += 9.0
            conv.bias[2 :: net.num_classes] += 8.8
    path = tmp_path_factory.mktemp("sure") / "sure.pth"
    net.save(str(path))
    return path


def heed_interrupts() -> None:
    """In a new process, before its program: what a shell starts in the background ignores SIGINT, and so do its children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def assert_refused(done, *fragments: str) -> None:
    assert done.code == 2
    assert done.err.count("\n") == 1, done.err
    assert "Traceback" not in done.err + done.out
    assert re.match(r"\S+: error: ", done.err)
    for fragment in fragments:
        assert fragment in done.err


@pytest.fixture
def figures_of(monkeypatch):
    """Have a module's `figure_file` keep the figures that are drawn; call it with the module, it gives the list."""

    def keep(module) -> list:
        figures: list = []
        enter = module.figure_file.__wrapped__

        @contextlib.contextmanager
        def keeping(*args):
            for figure in enter(*args):
                figures.append(figure)
                yield figure

        monkeypatch.setattr(module, "figure_file", keeping)
        return figures

    return keep

"""How much memory there is, and that a process on a CPU keeps what it frees."""

import argparse
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from conftest import SMALL

import eval_ssd
import train_ssd
from vision import cli
from vision.deploy import torch_session
from vision.engine import devices
from vision.utils import memory

#: Fills a block of 64 MiB some times, freeing it each time; prints whether it keeps freed memory, and the pages that
#: the system had to give for it.
FILLS = """
import ctypes, resource, sys
from vision.utils.memory import keep_freed_memory
kept = sys.argv[1] == "keep" and keep_freed_memory()
def fill(times):
    for _ in range(times):
        ctypes.create_string_buffer(64 << 20)
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
fill(1)
before = faults()
fill(10)
print(kept, faults() - before)
"""


def test_memory_that_is_available(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "_MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(memory, "_CGROUPS", tmp_path)
    monkeypatch.setattr(memory, "_OWN_CGROUPS", tmp_path / "none")
    limit, used, statistics = tmp_path / "memory.max", tmp_path / "memory.current", tmp_path / "memory.stat"
    statistics.write_text("file 400\n")
    assert memory.available_memory() is None
    (tmp_path / "meminfo").write_text("MemTotal:  9000 kB\nMemAvailable:   2000 kB\n")
    assert memory.available_memory() == 2000 * 1024
    used.write_text("500\n")
    limit.write_text("max\n")
    assert memory.available_memory() == 2000 * 1024
    limit.write_text("1500\n")
    assert memory.available_memory() == 1000
    statistics.unlink()
    assert memory.available_memory() == 1000, "without it the limit counts all the same"
    statistics.write_text("file 400\ninactive_file 250\nactive_file 150\n")
    assert memory.available_memory() == 1250, "what was read from files can be dropped"
    limit.write_text("200\n")
    assert memory.available_memory() == 0


@pytest.mark.parametrize(
    ("own", "folder", "names"),
    [
        ("0::/jobs/{}\n", "jobs/{}", ("memory.max", "memory.current")),
        ("4:cpu:/x\n7:memory,hugetlb:/jobs/{}\n", "memory/jobs/{}", ("memory.limit_in_bytes", "memory.usage_in_bytes")),
    ],
)
def test_the_least_of_a_job_and_what_it_is_in_counts(tmp_path, monkeypatch, own, folder, names):
    for name, path in (("_MEMINFO", "meminfo"), ("_CGROUPS", "."), ("_OWN_CGROUPS", "own")):
        monkeypatch.setattr(memory, name, tmp_path / path)
    (tmp_path / "meminfo").write_text("MemAvailable:   2000 kB\n")
    for job, limit in ((".", 900), ("7", 700), ("8", 1100)):
        (tmp_path / folder.format(job)).mkdir(parents=True, exist_ok=True)
        for name, value in zip(names, (limit, 100), strict=True):
            (tmp_path / folder.format(job) / name).write_text(f"{value}\n")
    found = []
    for job in ("7", "8", "gone", "../8"):
        (tmp_path / "own").write_text(own.format(job))
        found.append(memory.available_memory())
    assert found == [600, 800, 800, 2000 * 1024]


def test_freed_memory_is_used_again():
    found = {}
    for wish in ("keep", "leave"):
        done = subprocess.run([sys.executable, "-c", FILLS, wish], capture_output=True, text=True, check=True)
        kept, faults = done.stdout.split()
        found[wish] = kept == "True", int(faults)
    if not found["keep"][0]:
        pytest.skip("this C library's malloc is not glibc's")
    assert found["keep"][1] < found["leave"][1] / 10, "pages are taken from the system once"
    assert not found["leave"][0]


def test_another_c_library_is_left_alone(monkeypatch):
    class Library:
        """Without mallopt."""

    for library in (lambda _: Library(), lambda _: (_ for _ in ()).throw(TypeError)):
        monkeypatch.setattr(memory.ctypes, "CDLL", library)
        assert memory.keep_freed_memory() is False


def test_scripts_on_a_cpu_ask_for_it(script, voc_root, model_dir, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(train_ssd, "keep_freed_memory", lambda: asked.append("train_ssd"))
    monkeypatch.setattr(cli, "keep_freed_memory", lambda: asked.append("cli"))
    done = script(
        train_ssd.main, "--dataset-type=voc", f"--data={voc_root}", f"--model-dir={tmp_path}", "--dry-run", *SMALL
    )
    assert (done.code or 0, asked) == (0, ["train_ssd"])
    evaluate = (f"--data={voc_root}", f"--eval-dir={tmp_path}", "--no-plots", "--device=cpu")
    assert script(eval_ssd.main, f"--model={model_dir / 'mb1-ssd-lite.onnx'}", *evaluate).err == ""
    assert asked == ["train_ssd"], "onnxruntime has an arena of its own"
    assert script(eval_ssd.main, f"--model={model_dir / 'best.pth'}", *evaluate).err == ""
    assert asked == ["train_ssd", "cli"]


def test_on_a_gpu_nothing_asks_for_it(model_dir, monkeypatch):
    """Where a host's memory and the GPU's are the same, as on a Jetson, what is freed belongs to the GPU."""
    monkeypatch.setattr(devices, "choose_device", lambda *_: (torch.device("cuda"), "device: cuda"))
    monkeypatch.setattr(cli, "keep_freed_memory", lambda: pytest.fail("asked"))
    monkeypatch.setattr(train_ssd, "keep_freed_memory", lambda: pytest.fail("asked"))

    class Opened(Exception):
        """As far as this goes."""

    def open_net(_, device):
        raise Opened(device.type)

    monkeypatch.setattr(torch_session, "TorchSession", open_net)
    options = argparse.Namespace(net=None, device="auto", use_cuda=True, mb2_width_mult=1.0, resolution=None)
    with pytest.raises(Opened, match="cuda"):
        cli.open_model(model_dir / "best.pth", None, options)
    process = SimpleNamespace(select_device=lambda device: device, world_size=1)
    chosen = train_ssd.choose_device(SimpleNamespace(options=options, process=process))
    assert chosen.type == "cuda"

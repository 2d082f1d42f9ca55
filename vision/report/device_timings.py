"""What a device takes for an image, from the logs of `trtexec` and of `detect.py --benchmark`. Loads no torch."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath

UNKNOWN = "-"

_TRTEXEC = re.compile(r"TensorRT\.trtexec \[TensorRT v(\d+)\] # (.*)")
_MODEL = re.compile(r"--(?:onnx|loadEngine)=(\S+)")
_PRECISIONS = ("int8", "fp16", "fp8", "bf16", "best")
_DEVICE = re.compile(r"Selected Device: (.+)")
_THROUGHPUT = re.compile(r"[Tt]hroughput: ([\d.]+) qps")
#: TensorRT 8.2 and newer: a line a quantity.
_MEDIANS = re.compile(r"\] (Latency|GPU Compute Time): min = .*?median = ([\d.]+) ms")
#: Older ones: a title, then a line a figure.
_TITLE, _MEDIAN = re.compile(r"\] (Host Latency|GPU Compute|Enqueue Time)\s*$"), re.compile(r"\] median: ([\d.]+) ms")

_OUR_MODEL = re.compile(r" - model: (.+) \((.+), (\d+x\d+), classes ")
_OUR_DEVICE = re.compile(r" - device: (.+)")
_OUR_NETWORK = re.compile(r"^network +([\d.]+) ms ", re.MULTILINE)
_OUR_RATE = re.compile(r"^\d+ (?:image|frame)s? in [\d.]+ s, ([\d.]+) (?:image|frame)s/s; ", re.MULTILINE)


@dataclass(frozen=True)
class DeviceTiming:
    """What a log says.

    Attributes:
        log: its name.
        model: file of the model.
        runtime: with its version or device.
        precision: that was asked for.
        network: median milliseconds of the network alone; None where the log does not say.
        latency: median milliseconds with copies to and from the device; None where the log does not say.
        rate: images per second, of `detect.py` with reading, drawing and writing; None where the log does not say.
    """

    log: str
    model: str
    runtime: str
    precision: str
    network: float | None
    latency: float | None
    rate: float | None


def read_timing(log: str, text: str) -> DeviceTiming | None:
    """Read a log; None if it is neither of `trtexec` nor of `detect.py --benchmark`.

    Args:
        log: its name.
        text: what it holds.
    """
    if found := _TRTEXEC.search(text):
        return _of_trtexec(log, text, *found.groups())
    if rate := _OUR_RATE.search(text):
        return _of_detect(log, text, float(rate[1]))
    return None


def _of_trtexec(log: str, text: str, version: str, command: str) -> DeviceTiming:
    medians: dict[str, float] = {}
    title = ""
    for line in text.splitlines():
        if found := _MEDIANS.search(line):
            medians[found[1]] = float(found[2])
        elif found := _TITLE.search(line):
            title = found[1]
        elif title and (found := _MEDIAN.search(line)):
            medians[title] = float(found[1])
    model, device, rate = _MODEL.search(command), _DEVICE.search(text), _THROUGHPUT.search(text)
    network = medians.get("GPU Compute Time", medians.get("GPU Compute"))
    # Old versions measure a throughput of 0 where they were given no batch size.
    per_second = float(rate[1]) if rate and float(rate[1]) else None
    runtime = f"TensorRT {version_of(version)}" + (f", {device[1].strip()}" if device else "")
    precision = "+".join(name for name in _PRECISIONS if re.search(rf"--{name}\b", command))
    latency = medians.get("Latency", medians.get("Host Latency"))
    return DeviceTiming(
        log, PurePath(model[1]).name if model else UNKNOWN, runtime, precision or "fp32", network, latency, per_second
    )


def version_of(digits: str) -> str:
    """Write TensorRT's version: 8502 is 8.5.2, 100300 is 10.3.0."""
    number, scale = int(digits), 10_000 if int(digits) >= 100_000 else 1000
    return f"{number // scale}.{number % scale // 100}.{number % 100}"


def _of_detect(log: str, text: str, rate: float) -> DeviceTiming:
    model, device, network = _OUR_MODEL.search(text), _OUR_DEVICE.search(text), _OUR_NETWORK.search(text)
    return DeviceTiming(
        log,
        f"{PurePath(model[1]).name} ({model[2]}, {model[3]})" if model else UNKNOWN,
        device[1].partition(" (")[0] if device else UNKNOWN,
        UNKNOWN,
        float(network[1]) if network else None,
        None,
        rate,
    )


def timings_table(timings: Sequence[DeviceTiming]) -> str:
    """Write timings as a table in Markdown, the fastest network first."""
    rows = [["log", "model", "runtime", "precision", "network, ms", "with copies, ms", "images/s"]]
    for timing in sorted(timings, key=lambda timing: (timing.network is None, timing.network)):
        figures = (timing.network, timing.latency, timing.rate)
        numbers = [UNKNOWN if figure is None else f"{figure:.2f}" for figure in figures]
        rows.append([timing.log, timing.model, timing.runtime, timing.precision, *numbers])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rows.insert(1, ["-" * width for width in widths])
    return "\n".join("| " + " | ".join(map(str.ljust, row, widths)) + " |" for row in rows)

#!/usr/bin/env python3
"""One runtime with one exported file, in a process of its own; `benchmarks/runtimes.py` starts it.

It needs NumPy and the runtime, nothing else, so that any Python that has these can run it. Messages are pickled: images
come in, answers with the seconds that they took go out: of the processor on one thread, as other programs have little
influence on these, else of the clock. `--list` prints the runtimes that this Python has, as JSON.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import pickle
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

INPUT, OUTPUTS = "input_0", ("scores", "boxes")

Answers = tuple[np.ndarray, np.ndarray]
Run = Callable[[np.ndarray], Answers]


def open_onnxruntime(path: Path, threads: int) -> Run:
    """Open a file in onnxruntime, on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda images: tuple(session.run(list(OUTPUTS), {INPUT: images}))


def open_opencv(path: Path, threads: int) -> Run:
    """Open a file in OpenCV's dnn."""
    import cv2

    cv2.setNumThreads(threads)
    net = cv2.dnn.readNetFromONNX(str(path))

    def run(images: np.ndarray) -> Answers:
        net.setInput(images, INPUT)
        return tuple(np.array(answer) for answer in net.forward(list(OUTPUTS)))

    return run


def open_openvino(path: Path, threads: int, precision: str | None = "f32") -> Run:
    """Open a file in OpenVINO, on the CPU; None leaves the precision to OpenVINO."""
    import openvino

    settings = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
    if precision is not None:
        settings["INFERENCE_PRECISION_HINT"] = precision
    request = openvino.Core().compile_model(str(path), "CPU", settings).create_infer_request()

    def run(images: np.ndarray) -> Answers:
        found = request.infer({INPUT: images})
        return tuple(np.array(found[name]) for name in OUTPUTS)

    return run


def open_openvino_as_it_is(path: Path, threads: int) -> Run:
    """Open a file in OpenVINO, in the precision that it chooses for this CPU."""
    return open_openvino(path, threads, None)


def open_ncnn(path: Path, threads: int) -> Run:
    """Convert a file by pnnx, and open it in ncnn, in 32 bits."""
    import ncnn

    net = ncnn.Net()
    net.opt.num_threads = threads
    for option in ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic", "use_bf16_storage"):
        setattr(net.opt, option, False)
    # The package's Python side loads torch, the program in it needs none.
    converter = Path(importlib.util.find_spec("pnnx").origin).with_name("pnnx")
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "net.onnx"
        copy.write_bytes(path.read_bytes())
        subprocess.run([converter, copy.name, "fp16=0"], cwd=folder, check=True, stdout=subprocess.DEVNULL)
        net.load_param(str(copy.with_suffix(".ncnn.param")))
        net.load_model(str(copy.with_suffix(".ncnn.bin")))

    def run(images: np.ndarray) -> Answers:
        extractor = net.create_extractor()
        extractor.input("in0", ncnn.Mat(images[0]))
        return tuple(np.array(extractor.extract(name)[1])[None] for name in ("out0", "out1"))

    return run


#: Name -> what opens a file on so many threads, the module that it imports, and further packages that it needs.
RUNTIMES: Mapping[str, tuple[Callable[[Path, int], Run], str, tuple[str, ...]]] = {
    "onnxruntime": (open_onnxruntime, "onnxruntime", ()),
    "OpenCV": (open_opencv, "cv2", ()),
    "OpenVINO": (open_openvino, "openvino", ()),
    "OpenVINO, own precision": (open_openvino_as_it_is, "openvino", ()),
    "ncnn": (open_ncnn, "ncnn", ("pnnx",)),
}


def versions() -> dict[str, str]:
    """List the runtimes that this Python has, with the version of each."""
    return {
        name: importlib.import_module(module).__version__.partition("-")[0]
        for name, (_, module, others) in RUNTIMES.items()
        if all(importlib.util.find_spec(needed) for needed in (module, *others))
    }


def serve() -> None:
    """Answer images until there are no more."""
    if sys.argv[1] == "--list":
        print(json.dumps(versions()))
        return
    name, path, threads = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print must not get between the messages

    def send(*message: object) -> None:
        pickle.dump(message, answers)
        answers.flush()

    try:
        run = RUNTIMES[name][0](path, threads)
        clock = time.process_time if threads == 1 else time.perf_counter
        send("ready")
        with contextlib.suppress(EOFError):
            while True:
                images = pickle.load(sys.stdin.buffer)
                began = clock()
                found = run(images)
                send("answer", found, clock() - began)
    except Exception as err:  # whatever a runtime raises is its answer
        send("error", f"{type(err).__name__}: {' '.join(str(err).split())}")


if __name__ == "__main__":
    serve()

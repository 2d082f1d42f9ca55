"""What NVIDIA's systems for Jetsons can parse: opsets, operators and trtexec, release by release.

The figures are those that NVIDIA and the parser's repository (onnx/onnx-tensorrt: operators.md, Changelog.md) document;
no file was parsed on a device. docs/deploying.md has the whole table with its sources.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

TRTEXEC = "/usr/src/tensorrt/bin/trtexec"


class JetPack(NamedTuple):
    """One line of releases, by its oldest member that can be had.

    Attributes:
        tensorrt: (major, minor) of its TensorRT.
        opset: the newest that its parser documents.
        trtexec_options: that building an engine needs besides files and precision.
        joins_across_classes: whether its builds of jetson-inference, those before December 2022, join boxes whatever
            their class.
    """

    tensorrt: tuple[int, int]
    opset: int
    trtexec_options: tuple[str, ...] = ()
    joins_across_classes: bool = False


#: From old to new. trtexec 8.0 gives itself 16 MiB to build with unless it is told otherwise.
JETPACKS: Mapping[str, JetPack] = {
    "4.6": JetPack((8, 0), 13, ("--workspace=2048",), joins_across_classes=True),
    "5": JetPack((8, 4), 17),
    "6": JetPack((8, 6), 17),
    "7": JetPack((10, 13), 24),
}

#: What every JetPack since 4.6 parses.
OPSET = 13

#: What may be asked for, from JetPack 4.4's opset to the newest that PyTorch's TorchScript exporter writes with IR 8.
OPSETS = range(11, 19)

_SINCE_8_0 = """
    Abs Add ArgMax BatchNormalization Cast Clip Concat Constant Conv DequantizeLinear Div Exp Expand Gather
    GlobalAveragePool HardSigmoid Identity MaxPool Mul QuantizeLinear ReduceL2 ReduceMax Relu Reshape Resize Shape Slice
    Softmax Squeeze Sub TopK Transpose Unsqueeze
"""

#: The TensorRT from which each operator is documented, of those that our nets and their variants come to.
OPERATORS: Mapping[str, tuple[int, int]] = {
    **dict.fromkeys(_SINCE_8_0.split(), (8, 0)),
    "GatherND": (8, 2),
    "HardSwish": (8, 5),
    "NonMaxSuppression": (8, 5),  # before that experimental, and padded
}


def spell_release(tensorrt: tuple[int, int]) -> str:
    """Write a TensorRT's number as NVIDIA does: 8.5."""
    return ".".join(map(str, tensorrt))


def unparsed_opset(opset: int) -> list[str]:
    """Name the JetPacks whose parser does not document an opset."""
    return [name for name, jetpack in JETPACKS.items() if jetpack.opset < opset]


def unparsed_operators(operators: Iterable[str], tensorrt: tuple[int, int]) -> list[str]:
    """Name the operators that a TensorRT does not document, or that are in no list of ours."""
    return sorted({name for name in operators if OPERATORS.get(name, (99, 0)) > tensorrt})


def missing_operators(opset: int, operators: Iterable[str]) -> dict[str, list[str]]:
    """Look up what each JetPack that parses the opset does not document of the operators; often nothing."""
    unparsed, operators = unparsed_opset(opset), set(operators)
    return {
        name: unparsed_operators(operators, jetpack.tensorrt)
        for name, jetpack in JETPACKS.items()
        if name not in unparsed
    }


def trtexec_command(jetpack: JetPack, model: str, engine: str, precision: str | None = "fp16") -> str:
    """Write the command that builds an engine.

    Args:
        jetpack: where it is run.
        model: the ONNX file.
        engine: the file to write.
        precision: "fp16", or "int8" for a file that says its scales itself; None for the file's own.
    """
    flags = {"fp16": ("--fp16",), "int8": ("--int8", "--fp16"), None: ()}[precision]
    return " ".join([TRTEXEC, f"--onnx={model}", *flags, *jetpack.trtexec_options, f"--saveEngine={engine}"])

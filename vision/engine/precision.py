"""In which precision a net computes: float32, or mixed with a 16-bit type where the device is fast at it."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

AMP_CHOICES = ("auto", "off", "bf16", "fp16")

#: What a CPU must have for bfloat16 to be faster than float32.
_CPU_FLAGS = ("avx512_bf16", "amx_bf16", "bf16")

#: What operating systems call processors whose depthwise kernels have been measured.
_X86 = ("x86_64", "AMD64")


def kernel_exceeds_map(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | str | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> bool:
    """Whether a 2-d convolution's kernel, dilation included, is wider or higher than the map it goes over.

    Some of its weights then see nothing but padding. Arguments are those of `torch.nn.functional.conv2d`.
    """
    dilations = (dilation, dilation) if isinstance(dilation, int) else dilation
    return any(
        1 + (kernel - 1) * step > side
        for kernel, step, side in zip(weight.shape[-2:], dilations, input.shape[-2:], strict=True)
    )


def is_depthwise(input: Tensor, weight: Tensor) -> bool:
    """Whether a 2-d convolution looks at each channel by itself."""
    return weight.shape[1] == 1 < input.shape[1]


def is_slow_in_16_bits(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    *rest: Any,
    **options: Any,
) -> bool:
    """Whether a CPU is faster at a 2-d convolution in float32 than in bfloat16; arguments as of `conv2d`.

    That is so of depthwise ones, but for x86's 3x3 kernels with a stride of 1, which take as long either way and spare
    converting the maps before and behind them (`benchmarks/depthwise.py`). Of other processors nothing is known.
    """
    if not is_depthwise(input, weight):
        return False
    is_plain = tuple(weight.shape[-2:]) == (3, 3) and stride in (1, (1, 1), [1, 1])
    return not (is_plain and platform.machine() in _X86)


class _SomeConvolutionsInFloat32(TorchFunctionMode):
    """Computes convolutions in float32, whatever autocast says, where PyTorch's 16-bit CPU kernels are slow or wrong.

    Depthwise ones are slow: with a stride of 2 bfloat16 took 4 to 10 times as long as float32, forward and backward
    together, with 5x5 kernels 3 to 8 times. Where a kernel exceeds its map, weight gradients stay uninitialized of
    weights that see nothing but padding (seen with a stride of 2 over 1x1 maps).
    """

    def __torch_function__(
        self, function: Callable, types: Sequence[type], args: Sequence = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if function is not torch.conv2d or not (
            is_slow_in_16_bits(*args, **kwargs) or kernel_exceeds_map(*args, **kwargs)
        ):
            return function(*args, **kwargs)

        def in_float32(input: Tensor, *rest: Any, **options: Any) -> Tensor:
            with torch.autocast("cpu", enabled=False):
                return function(input.float(), *rest, **options)

        return in_float32(*args, **kwargs)


@dataclass(frozen=True)
class Precision:
    """How the forward pass computes; matching, decoding and the loss are always in float32.

    Attributes:
        device_type: "cpu", "cuda", "mps".
        dtype: torch.bfloat16 or torch.float16 for mixed precision, None for float32.
    """

    device_type: str
    dtype: torch.dtype | None = None

    @contextmanager
    def autocast(self) -> Iterator[None]:
        """Context for the forward pass; one that does nothing for float32: not every device knows autocast."""
        if self.dtype is None:
            yield
        elif self.device_type != "cpu":
            with torch.autocast(self.device_type, dtype=self.dtype):
                yield
        else:
            with torch.autocast("cpu", dtype=self.dtype), _SomeConvolutionsInFloat32():
                yield

    @property
    def name(self) -> str:
        """How it is called on the command line."""
        return {torch.bfloat16: "bf16", torch.float16: "fp16", None: "off"}[self.dtype]


def choose_precision(amp: str, device: torch.device) -> tuple[Precision, str]:
    """Turn --amp into a precision, and a line that says why.

    Raises:
        ValueError: the device cannot compute so.
    """
    bfloat16_is_fast = _bfloat16_is_fast(device)
    if amp == "auto":
        if bfloat16_is_fast:
            return Precision(
                device.type, torch.bfloat16
            ), "precision: bf16 mixed with float32 (the device is made for it)"
        if device.type == "cuda":
            return Precision(device.type, torch.float16), "precision: fp16 mixed with float32 (the GPU has no bf16)"
        return Precision(device.type), "precision: float32 (no 16-bit type is faster on this device)"
    if amp == "off":
        return Precision(device.type), "precision: float32"
    if amp == "fp16":
        if device.type != "cuda":
            raise ValueError(f"--amp=fp16 needs a CUDA device, this is {device.type}; use --amp=bf16 or --amp=off")
        return Precision(device.type, torch.float16), "precision: fp16 mixed with float32"
    slow = "" if bfloat16_is_fast else ", which this device only emulates: slower than float32"
    return Precision(device.type, torch.bfloat16), f"precision: bf16 mixed with float32{slow}"


def _bfloat16_is_fast(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type != "cpu":
        return False
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    flags = next((line for line in text.splitlines() if line.startswith(("flags", "Features"))), "").split()
    return any(flag in flags for flag in _CPU_FLAGS)

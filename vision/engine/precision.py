"""In which precision a net computes: float32, or mixed with a 16-bit type where the device is fast at it."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch

AMP_CHOICES = ("auto", "off", "bf16", "fp16")

#: What a CPU must have for bfloat16 to be faster than float32.
_CPU_FLAGS = ("avx512_bf16", "amx_bf16", "bf16")


@dataclass(frozen=True)
class Precision:
    """How the forward pass computes; matching, decoding and the loss are always in float32.

    Attributes:
        device_type: "cpu", "cuda", "mps".
        dtype: torch.bfloat16 or torch.float16 for mixed precision, None for float32.
    """

    device_type: str
    dtype: torch.dtype | None = None

    def autocast(self) -> AbstractContextManager:
        """Give a context for the forward pass; one that does nothing for float32: not every device knows autocast."""
        return nullcontext() if self.dtype is None else torch.autocast(self.device_type, dtype=self.dtype)

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

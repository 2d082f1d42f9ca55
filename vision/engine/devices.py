"""Choosing where PyTorch computes."""

from __future__ import annotations

import torch

from vision.options.common import check_cuda_wanted


def choose_device(name: str, use_cuda: bool) -> tuple[torch.device, str]:
    """Turn --device and --use-cuda into a device, and a line that says why.

    Raises:
        ValueError: a device was asked for that is not there.
    """
    version = f"torch {torch.__version__}"
    if name == "auto":
        if not use_cuda:
            return torch.device("cpu"), f"device: cpu (CUDA switched off, {version})"
        if torch.cuda.is_available():
            return torch.device("cuda"), f"device: cuda ({torch.cuda.get_device_name()}, {version})"
        if torch.backends.mps.is_available():
            return torch.device("mps"), f"device: mps ({version})"
        return torch.device("cpu"), f"device: cpu ({_why_no_cuda()}, {version})"
    device = torch.device(name)
    if device.type == "cuda":
        check_cuda_wanted(name, use_cuda)
        if not torch.cuda.is_available():
            raise ValueError(f"--device={name}: {_why_no_cuda()} ({version}); use --device=cpu, or auto")
        if (device.index or 0) >= torch.cuda.device_count():
            raise ValueError(f"--device={name}: there are only {torch.cuda.device_count()} CUDA devices, from cuda:0")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ValueError(f"--device=mps: no Apple GPU here ({version}); use --device=cpu, or auto")
    return device, f"device: {name} ({version})"


def _why_no_cuda() -> str:
    return "this torch was built without CUDA" if torch.version.cuda is None else "no CUDA device found"

"""What a net's heads see of an image, as one vector."""

from __future__ import annotations

from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn

from vision.ssd.ssd import SSD


class FeatureRecorder:
    """A context in which the feature maps of the last batch of a net are kept, each as its mean over the image.

    Args:
        net: to listen to; it computes what it computed before.
    """

    def __init__(self, net: SSD) -> None:
        self._heads = net.classification_headers
        self._means: dict[int, Tensor] = {}
        self._hooks: list[Any] = []

    def __enter__(self) -> FeatureRecorder:
        for level, head in enumerate(self._heads):
            self._hooks.append(head.register_forward_pre_hook(self._hook(level)))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()

    def _hook(self, level: int) -> Any:
        def keep(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            self._means[level] = inputs[0].float().mean(dim=(2, 3)).cpu()

        return keep

    @property
    def features(self) -> Tensor:
        """(B, D) float32: of each level its channels' means as a unit vector, all levels behind each other."""
        levels = [self._means[level] for level in range(len(self._heads))]
        return torch.cat([nn.functional.normalize(means, dim=1) for means in levels], dim=1)

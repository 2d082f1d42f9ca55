"""An average of a net's weights over the steps of a run."""

from __future__ import annotations

import copy
import math
from typing import Any

import torch

from vision.engine.optim import freeze_net_layers
from vision.ssd.ssd import SSD


class ModelEma:
    """An exponential moving average of a net's weights and batch-norm statistics.

    The decay rises to `DECAY`, so that the first weights are soon forgotten.

    Args:
        net: whose weights are averaged.
    """

    DECAY = 0.9998
    RAMP = 2000.0

    def __init__(self, net: SSD) -> None:
        self.net = copy.deepcopy(net).eval()
        freeze_net_layers(self.net)
        self.updates = 0

    @torch.no_grad()
    def update(self, net: SSD) -> None:
        """Take in the net's weights as they are now."""
        self.updates += 1
        weight = 1 - self.DECAY * (1 - math.exp(-self.updates / self.RAMP))
        averages, weights = self.net.state_dict(), net.state_dict()
        floating = [key for key, value in averages.items() if value.is_floating_point()]
        torch._foreach_lerp_([averages[key] for key in floating], [weights[key] for key in floating], weight)
        for key in averages.keys() - set(floating):
            averages[key].copy_(weights[key])

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs."""
        return {"weights": self.net.state_dict(), "updates": self.updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where that state was made."""
        self.net.load_state_dict(state["weights"])
        self.updates = state["updates"]

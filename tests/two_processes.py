"""What torchrun starts twice for test_distributed.py; the first process writes what was found.

torchrun --nproc_per_node=2 tests/two_processes.py DATA RESULT
"""

import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from learners import freeze_norms, learner_on  # noqa: E402

from vision.engine.processes import Alone, open_processes  # noqa: E402


def step(processes: Alone, data: Path, batches: list[int], frozen: bool) -> dict:
    """Take one step on some of the folder's batches of two, and give what came of it in each process."""
    learner, all_batches = learner_on(data, 2, processes.make_learner, clip_grad=1.0)
    learner.train()
    if frozen:
        freeze_norms(learner)
    losses = learner.step([all_batches[place] for place in batches], 5, 3)
    weights = {key: value.clone() for key, value in learner.net.state_dict().items()}
    before = {key: value.clone() for key, value in weights.items()}
    broken = all_batches[0]._replace(boxes=torch.full_like(all_batches[0].boxes, float("nan")))
    refused = learner.step([broken if processes.rank else all_batches[0]], 6, 3)
    after = learner.net.state_dict()
    return {
        "losses": [part.item() for part in losses],
        "weights": weights,
        "refused": refused is None and all(torch.equal(before[key], after[key]) for key in before),
    }


def main(data: Path, result: Path) -> None:
    """Try what processes do together."""
    with open_processes() as processes:
        rank, trace = processes.rank, result.with_suffix(".trace")

        def leave_a_trace() -> bool:
            found = trace.exists()
            time.sleep(0 if found else 0.2)
            trace.touch()
            return found

        found = {
            "ranks": processes.everyone(rank),
            "launcher": processes.launcher,
            "first": processes.everyone(processes.from_first(lambda: rank)),
            "turns": processes.everyone(processes.in_turn(leave_a_trace)),
            "one each": processes.everyone(step(processes, data, [rank], frozen=True)),
            "two each": processes.everyone(step(processes, data, [rank, 2 + rank], frozen=True)),
            "norms": processes.everyone(step(processes, data, [rank], frozen=False)),
        }
        if processes.is_first:
            torch.save(found, result)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

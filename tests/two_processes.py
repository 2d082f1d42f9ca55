"""What torchrun starts twice for test_distributed.py; the first process writes what was found.

torchrun --nproc_per_node=2 tests/two_processes.py DATA RESULT AMP
"""

import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from train_steps import PRECISIONS, freeze_norms, train_step_on

from vision.engine.process import SingleProcess, current_process


def step(process: SingleProcess, data: Path, amp: str, batches: list[int], frozen: bool) -> dict:
    """Take one step on some of the folder's batches of two, and give what came of it in each process."""
    train_step, all_batches = train_step_on(data, 2, process=process, clip_grad=1.0, precision=PRECISIONS[amp])
    train_step.train()
    if frozen:
        freeze_norms(train_step)
    losses = train_step.step([all_batches[place] for place in batches], 5, 3)
    weights = {key: value.clone() for key, value in train_step.net.state_dict().items()}
    before = {key: value.clone() for key, value in weights.items()}
    broken = all_batches[0]._replace(boxes=torch.full_like(all_batches[0].boxes, float("nan")))
    refused = train_step.step([broken if process.rank else all_batches[0]], 6, 3)
    after = train_step.net.state_dict()
    return {
        "losses": [part.item() for part in losses],
        "weights": weights,
        "refused": refused is None and all(torch.equal(before[key], after[key]) for key in before),
    }


def main(data: Path, result: Path, amp: str) -> None:
    """Try what processes do together."""
    with current_process() as process:
        rank, trace = process.rank, result.with_suffix(".trace")

        def leave_a_trace() -> bool:
            found = trace.exists()
            time.sleep(0 if found else 0.2)
            trace.touch()
            return found

        def look_in_turn() -> bool:
            with process.main_process_first():
                return leave_a_trace()

        found = {
            "ranks": process.all_gather(rank),
            "launcher": process.launcher,
            "first": process.all_gather(process.broadcast_from_main(lambda: rank)),
            "turns": process.all_gather(look_in_turn()),
            "one each": process.all_gather(step(process, data, amp, [rank], frozen=True)),
            "two each": process.all_gather(step(process, data, amp, [rank, 2 + rank], frozen=True)),
            "norms": process.all_gather(step(process, data, amp, [rank], frozen=False)),
        }
        if process.is_main_process:
            torch.save(found, result)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])

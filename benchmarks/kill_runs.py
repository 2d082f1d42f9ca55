#!/usr/bin/env python3
"""Kill a run at random moments, resume it each time, and compare its last weights with those of an undisturbed run.

python3 benchmarks/kill_runs.py --kills=30 --signal=SIGKILL
python3 benchmarks/kill_runs.py --kills=30 --signal=SIGTERM --workers=2 --blocked
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402

from vision.datasets import synthetic  # noqa: E402
from vision.engine import checkpoint  # noqa: E402
from vision.ssd.weights import read_weights  # noqa: E402

IMAGES = 24

#: For how long loader processes are stopped before the signal.
BLOCKED_SECONDS = 1.0


def command(data: Path, folder: Path, args: argparse.Namespace) -> list[str]:
    """Return the command of a small run that saves its state every other step."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={args.processes}"]
    return [
        sys.executable,
        *(torchrun if args.processes > 1 else []),
        str(ROOT / "train_ssd.py"),
        "--dataset-type=voc",
        f"--data={data}",
        f"--model-dir={folder}",
        "--net=mb1-ssd-lite",
        "--resolution=96",
        "--pretrained-ssd=none",
        "--seed=1",
        "--device=cpu",
        f"--amp={args.amp}",
        f"--epochs={args.epochs}",
        f"--batch-size={4 // args.processes}",
        "--checkpoint-steps=2",
        "--keep-checkpoints=2",
        "--auto-resume",
        f"--workers={args.workers}",
    ]


def victim(process: subprocess.Popen, rng: random.Random) -> int:
    """Choose the process to signal: of those that torchrun has started one, else the run itself."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    ranks = [pid for pid in children if b"\0RANK=" in Path(f"/proc/{pid}/environ").read_bytes()]
    return int(rng.choice(ranks)) if ranks else process.pid


def block_loaders(pid: int) -> list[int]:
    """Stop the loader processes of a run, as if what they read did not answer; gives their ids."""
    children = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    for child in children:
        os.kill(child, signal.SIGSTOP)
    time.sleep(BLOCKED_SECONDS)  # until the batches that lie ready are used up
    return children


def kill_all(pids: list[int]) -> None:
    """Kill what a run that was killed left behind."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def same_weights(one: Path, other: Path) -> bool:
    """Compare the last weights of two runs, bit for bit."""
    mine, theirs = read_weights(one / "last.pth"), read_weights(other / "last.pth")
    return mine.keys() == theirs.keys() and all(torch.equal(mine[key], theirs[key]) for key in mine)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--signal", default="SIGKILL", choices=("SIGKILL", "SIGTERM", "SIGINT", "SIGHUP"))
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--blocked", action="store_true", help="stop the loader processes a second before; one process")
    parser.add_argument(
        "--processes", type=int, default=1, choices=(1, 2), help="2: by torchrun, of which one is killed"
    )
    parser.add_argument("--amp", default="off", choices=("off", "bf16"))
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    args = parser.parse_args()
    rng = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        options = {"size": (96, 80), "objects": (1, 3)}
        splits = {"train": synthetic.drawings(IMAGES, 1, **options), "test": synthetic.drawings(4, 2, **options)}
        synthetic.write_voc(root / "data", splits)
        whole, folder = root / "whole", root / "killed"
        began = time.monotonic()
        subprocess.run(command(root / "data", whole, args), check=True, capture_output=True)
        duration = time.monotonic() - began
        print(f"undisturbed: {duration:.1f} s")
        kills = finished = equal = unloadable = 0
        slowest = 0.0
        codes: dict[int, int] = {}
        while kills < args.kills or (folder / checkpoint.STATE).exists():
            argv = command(root / "data", folder, args)
            with open(root / "log", "w") as log:
                process = subprocess.Popen(argv, stdout=log, stderr=subprocess.STDOUT)
            moment = rng.uniform(0, duration / 2) if kills < args.kills else 10 * duration
            try:
                process.wait(moment)
            except subprocess.TimeoutExpired:
                loaders = block_loaders(process.pid) if args.blocked else []
                if process.poll() is None:
                    os.kill(victim(process, rng), getattr(signal, args.signal))
                began = time.monotonic()
                code = process.wait()
                slowest = max(slowest, time.monotonic() - began)
                kill_all(loaders)
                kills += 1
                codes[code] = codes.get(code, 0) + 1
                if (folder / checkpoint.STATE).is_file():
                    try:
                        checkpoint.load_state(folder / checkpoint.STATE)
                    except ValueError:
                        unloadable += 1
                continue
            finished += 1
            if process.returncode:
                print(f"exit code {process.returncode}: {(root / 'log').read_text().splitlines()[-1:]}")
            equal += process.returncode == 0 and same_weights(whole, folder)
            shutil.rmtree(folder, ignore_errors=True)  # one that ended with an error may have none
        print(
            f"{kills} times {args.signal}, exit codes {codes}; states that could not be read afterwards: {unloadable}"
        )
        print(f"from the signal to the end at most {slowest:.1f} s")
        print(f"runs that came to their end: {finished}, with the weights of the undisturbed run: {equal}")


if __name__ == "__main__":
    main()

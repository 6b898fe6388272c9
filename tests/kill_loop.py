"""``pulseline train`` killed at random times and resumed until it is done: nothing may show.

    python tests/kill_loop.py [--runs N] [--seed S]

A run starts the command with --checkpoint and --resume, waits, sends SIGKILL and starts it again,
until it ends by itself. One kill in four comes at any time of the start, the others after the
first epoch of that start, within another: so every start leaves one epoch more behind. Under
``dist`` the processes are started as torchrun does it, but without its agent: if one rank is
killed in training, the others have to end by themselves; early kills take all. Then:

- stdout (accuracy, clock cycles, digest) is that of a run without checkpoints or kills;
- the directory holds the newest two checkpoints and nothing else, TMPDIR holds nothing.

Times of kills are a function of the seed and the run; where they hit is not.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from subprocess import Popen
from typing import NamedTuple

import launch

EPOCHS = 8
WORDS = ("train", "--samples", "80", "--batch-size", "4", "--epochs", str(EPOCHS))
KEPT = 2  # checkpoints
STARTS = 3 * EPOCHS  # of one run, far more than it needs


class Kind(NamedTuple):
    """How one run is made."""

    executor: str
    schedule: str
    stages: int
    world: int = 1

    @property
    def words(self) -> tuple[str, ...]:
        schedule = ("--schedule", self.schedule)
        return *WORDS, "--executor", self.executor, "--stages", str(self.stages), *schedule


KINDS = (
    Kind("sim", "async", 4),
    Kind("threads", "async", 4),
    Kind("dist", "async", 2, 2),
    Kind("sim", "sync", 4),
    Kind("threads", "sync", 4),
    Kind("dist", "sync", 2, 2),
)


class Failed(Exception):
    """What is not as it should be."""


def start(kind: Kind, *more: str, **env: str) -> list[Popen[str]]:
    """The processes of one start."""
    words = ("-m", "pulseline", *kind.words, *more)
    if kind.world == 1:
        return [launch.start(*words, **env)]
    return launch.start_ranks(kind.world, *words, env=env)


def newest(root: Path) -> int:
    """Epochs of the newest checkpoint; 0: none."""
    return max((int(path.stem.split("-")[1]) for path in root.glob("*.json")), default=0)


def hit(processes: list[Popen[str]], root: Path, draw: random.Random, whole_s: float) -> bool:
    """Wait, then SIGKILL one rank or all; whether anything was there to be killed."""
    before = newest(root)
    early, part, one = draw.random() < 0.25, draw.random(), draw.choice([*processes, None])
    one = None if early else one
    deadline = time.monotonic() + (part * whole_s if early else launch.LIMIT_S)
    while time.monotonic() < deadline and processes[0].poll() is None:
        if not early and newest(root) > before:
            time.sleep(part * whole_s / EPOCHS)
            break
        time.sleep(0.005)
    victims = [p for p in processes if one in (p, None) and p.poll() is None]
    for process in victims:
        process.kill()
    return bool(victims)


def want(kind: Kind) -> tuple[str, float]:
    """What the undisturbed command prints, and its seconds."""
    begin = time.monotonic()
    done = launch.finish(start(kind))
    if any(one.code for one in done):
        raise Failed(f"{kind}: the undisturbed run failed: {done}")
    return done[0].out, time.monotonic() - begin


def run(kind: Kind, number: int, seed: int, out: str, whole_s: float) -> tuple[int, int]:
    """Kill and resume until the end; (kills, starts that continued from a checkpoint).

    Raises:
        Failed: other output, files left over, or a start that failed by itself.
    """
    draw = random.Random(f"{seed} {number}")
    kills = resumed = 0
    name = f"run {number} ({kind.executor}, {kind.schedule})"
    with tempfile.TemporaryDirectory() as place:
        root, scratch = Path(place, "checkpoints"), Path(place, "scratch")
        scratch.mkdir()
        for _ in range(STARTS):
            resumed += newest(root) > 0
            more = ("--checkpoint", str(root), "--resume")
            # torch keeps a folder of its own beside.
            env = {"TMPDIR": str(scratch), "TORCHINDUCTOR_CACHE_DIR": str(Path(place, "torch"))}
            processes = start(kind, *more, **env)
            killed = hit(processes, root, draw, whole_s)
            done = launch.finish(processes)
            if not any(one.code for one in done):
                break
            if not killed:
                raise Failed(f"{name} failed by itself: {done}")
            kills += 1
        else:
            raise Failed(f"{name} did not end in {STARTS} starts")
        if done[0].out != out:
            raise Failed(f"{name} printed\n{done[0].out}and undisturbed it prints\n{out}")
        left = sorted(path.name for path in scratch.iterdir())
        files = sorted(path.name for path in root.iterdir())
        epochs = [int(file.split(".")[0].split("-")[1]) for file in files]
        if left or sorted(set(epochs)) != [EPOCHS - 1, EPOCHS]:
            raise Failed(f"{name} left {left} in TMPDIR and {files}")
        if len(files) != KEPT * (kind.stages + 1):
            raise Failed(f"{name} left {files}")
    print(f"{name}: {kills} kills, {resumed} resumed, same output", flush=True)
    return kills, resumed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=len(KINDS), help="kinds take turns")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    kinds = [KINDS[n % len(KINDS)] for n in range(args.runs)]
    try:
        wanted = {kind: want(kind) for kind in dict.fromkeys(kinds)}
        with ThreadPoolExecutor(2) as pool:
            runs = [
                pool.submit(run, kind, n, args.seed, *wanted[kind]) for n, kind in enumerate(kinds)
            ]
            counts = [one.result() for one in runs]
    except Failed as failure:
        sys.exit(str(failure))
    kills, resumed = (sum(column) for column in zip(*counts, strict=True))
    print(
        f"{len(counts)} runs, {kills} kills, {resumed} starts from a checkpoint, seed {args.seed}"
    )
    if not resumed:
        sys.exit("no start continued from a checkpoint: nothing was tested")


if __name__ == "__main__":
    main()

"""Is the new version slower than the old one? Two wheels in turn, twelve cells, paired ratios.

Each side runs in processes of its own, with its own installed wheel, and is told over a pipe what
to run: imports and warm-up are not timed. Pairs go old new, new old, .. with all cells in every
round; after a few rounds fresh processes take over, because where a process lies in memory moves a
cell by some percent. On one thread the time is that of the processor, so that other work on the
machine hardly counts; on more it is wall-clock time. Judged by the median of new / old and its
distribution-free interval (``paired.py``): a cell fails if the whole interval lies above 1.03.

    python bench/ab.py --revisions HEAD~5 HEAD      build both wheels with the same flags, compare
    python bench/ab.py --old DIR --new DIR          wheels, or where pip install --target put them
    python bench/ab.py --self --old DIR             the same wheel on both sides: must pass

Exit status 1: a cell is slower. ``--handicap 0.1`` gives the new side 10 % more to do.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from fractions import Fraction
from math import ceil
from pathlib import Path
from typing import Any

from ab_cells import CELLS
from paired import LIMIT, interval, order, slower

HERE = Path(__file__).resolve().parent
SIDES = ("old", "new")


class Worker:
    """A process with one version of pulseline."""

    def __init__(self, directory: Path, threads: int) -> None:
        words = [sys.executable, str(HERE / "ab_cells.py"), str(directory), str(threads)]
        self._process = subprocess.Popen(
            words,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": str(threads)},
        )
        self._machine: dict[str, str] = {}

    def machine(self) -> dict[str, str]:
        """Where it runs; waits until it does."""
        self._machine = self._machine or self._answer()
        return self._machine

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            sys.exit(f"a worker ended with status {self._process.wait()}; see above")
        return json.loads(line)

    def ask(self, **command: Any) -> Any:
        """Send a command, wait for the answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


@contextmanager
def workers(where: dict[str, Path], threads: int) -> Iterator[dict[str, Worker]]:
    """One process per side, for a few rounds."""
    made: dict[str, Worker] = {}
    try:
        for side, directory in where.items():
            made[side] = Worker(directory, threads)
        for worker in made.values():  # they start together
            worker.machine()
        yield made
    finally:
        for worker in made.values():
            worker.close()


def compare(where: dict[str, Path], args: argparse.Namespace) -> dict[str, list[dict[str, float]]]:
    """Seconds per run of both sides, for every cell and pair."""
    found: dict[str, list[dict[str, float]]] = {cell: [] for cell in args.cells}
    for start in range(0, args.pairs, args.rounds):
        with workers(where, args.threads) as side:
            if start == 0:
                print("  ".join(f"{k} {v}" for k, v in side["new"].machine().items()), flush=True)
            repeats = {cell: _repeats(side, cell, args) for cell in args.cells}
            for pair in range(start, min(start + args.rounds, args.pairs)):
                for cell in args.cells:
                    times: dict[str, float] = {}
                    for name in order(pair):
                        extra = args.handicap if name == "new" else 0
                        count = repeats[cell] + int(repeats[cell] * extra)
                        seconds = side[name].ask(cell=cell, repeats=count)
                        times[name] = seconds / repeats[cell]
                    found[cell].append(times)
    return found


def _repeats(side: dict[str, Worker], cell: str, args: argparse.Namespace) -> int:
    """Runs per measurement, the same on both sides; a handicap must be a whole number of them."""
    least = max(side[name].ask(cell=cell, seconds=args.seconds) for name in SIDES)
    unit = args.handicap.denominator
    return unit * ceil(least / unit)


def report(found: dict[str, list[dict[str, float]]]) -> int:
    """The table; 1 if a cell is slower."""
    ratios = {cell: [t["new"] / t["old"] for t in times] for cell, times in found.items()}
    worse = slower(ratios)
    first = interval(next(iter(ratios.values())))
    level = f"{first.confidence:.1%} interval"
    print(f"{'cell':24s}{'old us':>11s}{'new / old':>11s}{level:>18s}")
    for cell, values in ratios.items():
        one = interval(values)
        old = sorted(t["old"] for t in found[cell])[len(values) // 2] * 1e6
        mark = "  SLOWER" if cell in worse else "  faster" if one.high < 1 / LIMIT else ""
        print(f"{cell:24s}{old:11.1f}{one.median:11.3f}{one.low:10.3f} to {one.high:.3f}{mark}")
    if worse:
        print(f"slower than {LIMIT}: {', '.join(worse)}")
    return int(bool(worse))


# ---- wheels ----


def pip(*words: str) -> None:
    """Run pip quietly."""
    subprocess.run([sys.executable, "-m", "pip", *words, "-q"], check=True, stdout=sys.stderr)


def installed(path: Path, into: Path) -> Path:
    """The directory that holds the package: ``path``, or where its wheel went."""
    if path.suffix == ".whl":
        pip("install", "--no-deps", "--target", str(into), str(path))
        return into
    if not (path / "pulseline").is_dir():
        sys.exit(f"{path} holds no pulseline; use a wheel or what pip install --target made of one")
    return path.resolve()


def built(revision: str, temporary: Path) -> Path:
    """The wheel of a revision, from a worktree that is gone afterwards, without CUDA kernels."""
    git = ["git", "-C", str(HERE)]
    tree, wheels = temporary / "tree", temporary / "wheel"
    subprocess.run([*git, "worktree", "add", "-q", "--detach", str(tree), revision], check=True)
    try:
        options = ["--no-deps", "--no-build-isolation", "-Ccmake.define.PULSELINE_CUDA=OFF"]
        pip("wheel", *options, "-w", str(wheels), str(tree))
    finally:
        subprocess.run([*git, "worktree", "remove", "--force", str(tree)], check=True)
    (wheel,) = wheels.glob("*.whl")
    return wheel


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--old", type=Path, metavar="PATH", help="wheel or directory of the old version")
    p.add_argument("--new", type=Path, metavar="PATH", help="the same of the new one")
    p.add_argument("--revisions", nargs=2, metavar=("OLD", "NEW"), help="build both of git's")
    p.add_argument("--self", action="store_true", help="the old version on both sides")
    p.add_argument("--pairs", type=int, default=25, help="at least 15")
    p.add_argument("--rounds", type=int, default=5, help="pairs before fresh processes")
    p.add_argument("--seconds", type=float, default=0.02, help="least time per measurement")
    p.add_argument("--threads", type=int, default=1)
    p.add_argument("--cell", action="append", choices=CELLS, dest="cells", help="only these")
    p.add_argument("--json", metavar="FILE", help="write all times there")
    p.add_argument("--handicap", type=Fraction, default=Fraction(0), help=argparse.SUPPRESS)
    args = p.parse_args()
    args.cells = args.cells or CELLS
    if args.pairs < 15:
        p.error(f"--pairs is {args.pairs}; use at least 15")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # worktrees and wheels go away
    with ExitStack() as stack:
        if args.revisions:
            given = {}
            for side, revision in zip(SIDES, args.revisions, strict=True):
                folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
                given[side] = built(revision, folder)
        elif args.old and (args.self or args.new):
            given = {"old": args.old, "new": args.old if args.self else args.new}
        else:
            p.error("say what to compare: --revisions OLD NEW, --old PATH --new PATH, --self --old")
        where = {}
        for side, path in given.items():
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            where[side] = installed(path, folder)
        start = time.monotonic()
        found = compare(where, args)
        status = report(found)
        print(f"{args.pairs} pairs, {time.monotonic() - start:.0f} s")
        if args.json:
            Path(args.json).write_text(json.dumps(found, indent=1) + "\n")
    sys.exit(status)


if __name__ == "__main__":
    main()

"""The ``demo`` command: the digits under all three schedules, a table and two figures.

A second arm trains devices of 20 states whose reference is off by a quarter of their range, where
plain pulsed SGD fails, and an algorithm does not.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from .. import train as training
from ..algorithms import MixedPrecision, Rule
from ..data import DataSet, load_digits
from ..models import WIDTHS, network
from ..train import EPOCHS, Recipe, Run
from . import plots
from .arguments import directory, folder, seed_number, whole, writing
from .parser import add_command
from .train import window
from .train_logs import bar

__all__ = ["ARMS", "MICRO_BATCHES", "STAGES", "Arm", "add_parser", "run"]

STAGES, MICRO_BATCHES = 4, 8


class Arm(NamedTuple):
    """What is trained: a device by name, with settings, under a schedule, by an algorithm."""

    device: str
    schedule: str
    settings: Mapping[str, Any] = MappingProxyType({})
    algorithm: Rule | None = None


# A pulse moves a weight by a twentieth of its range; 0 lies where the reference was written.
_FEW_STATES = {
    "dw_min": 0.1,
    "up_down_dtod": 0.1,
    "subtract_symmetry_point": True,
    "reference_std": 0.25,
}
ARMS = {
    "digital sequential": Arm("digital", "sequential"),
    "analog sequential": Arm("soft_bounds", "sequential"),
    "analog synchronous": Arm("soft_bounds", "sync"),
    "analog asynchronous": Arm("soft_bounds", "async"),
    "20 states, SGD": Arm("soft_bounds_reference", "async", _FEW_STATES),
    "20 states, mixed precision": Arm(
        "soft_bounds_reference", "async", _FEW_STATES, MixedPrecision(every=32, units="samples")
    ),
}


def add_parser(commands: Any) -> None:
    """Add the command to the parser."""
    demo = add_command(
        commands,
        "demo",
        "train the digits under all three schedules: a table and two figures",
        """pulseline demo
        pulseline demo --epochs 2 --seeds 1 --out figures""",
    )
    demo.set_defaults(run=run)
    demo.add_argument(
        "--out",
        type=folder,
        default=Path("pulseline-demo"),
        metavar="DIR",
        help="directory of accuracy.png and schedules.png",
    )
    demo.add_argument(
        "--epochs",
        type=whole(1),
        default=EPOCHS,
        metavar="N",
        help="passes over the training images",
    )
    demo.add_argument(
        "--seed", type=seed_number, default=0, metavar="S", help="the first, of data order, devices"
    )
    demo.add_argument(
        "--seeds",
        type=whole(1, 100),
        default=3,
        metavar="N",
        help="seeds, one after the other, of which means and bands are drawn",
    )


def run(args: argparse.Namespace) -> None:
    """Train, print the table, draw."""
    out = directory(args.out)
    data = load_digits()
    seeds = range(args.seed, args.seed + args.seeds)
    which = f"seed {seeds[0]}" if len(seeds) == 1 else f"seeds {seeds[0]} to {seeds[-1]}"
    print(
        f"{len(data.x_train) + len(data.x_test):,} handwritten digits, tanh network "
        f"{'-'.join(map(str, WIDTHS))}, {STAGES} stages, {args.epochs} epochs, {which}",
        flush=True,
    )
    runs: dict[str, list[Run]] = {}
    for seed in seeds:
        for name, arm in ARMS.items():
            one = _train(data, name, arm, Recipe(args.epochs, seed=seed))
            runs.setdefault(name, []).append(one)
            print(f"{name}, seed {seed}: {one.accuracy:.1f} % in {one.wall_s:.1f} s", flush=True)
    print(_table(runs))
    image = 100 / len(data.x_test)
    print(
        f"test accuracy: {window(args.epochs)}, mean over seeds (lowest-highest), one digit is "
        f"{image:.1f} %;\nsynchronous: {MICRO_BATCHES} micro-batches per update; speed-up in clock "
        "cycles at equal samples; wall time: all seeds;\n20 states: asynchronous, on devices whose "
        "reference is off by a quarter of their range"
    )
    analog = {name: seeds[0] for name, seeds in runs.items() if name.startswith("analog")}
    with writing(out):
        plots.accuracy_figure(runs, out / "accuracy.png")
        plots.gantt_figure(analog, out / "schedules.png")
    print(f"wrote {out / 'accuracy.png'} and {out / 'schedules.png'}")


def _train(data: DataSet, name: str, arm: Arm, recipe: Recipe) -> Run:
    """One run of one seed, with its accuracy before training."""
    with warnings.catch_warnings():  # clipped weights: those devices are meant to be bad
        warnings.simplefilter("ignore" if arm.settings else "default", UserWarning)
        model = network(arm.device, recipe.seed, arm.settings, algorithm=arm.algorithm)
    pipe = training.pipeline(model, STAGES, schedule=arm.schedule, micro_batches=MICRO_BATCHES)
    start = training.accuracy(pipe, data.x_test, data.y_test)
    with bar(f"{name}, seed {recipe.seed}", recipe.epochs * len(data.x_train)) as progress:
        found = training.train(pipe, data, recipe, progress=progress)
    found.start = start
    return found


def _table(seeds: dict[str, list[Run]]) -> str:
    """Means over the seeds; accuracy also from the lowest to the highest."""
    rows = [
        (
            "schedule",
            "test accuracy",
            "samples",
            "clock cycles",
            "computation density",
            "speed-up over sequential",
            "wall time",
        )
    ]
    for name, runs in seeds.items():
        run, right = runs[0], [one.accuracy for one in runs]
        several = f" ({min(right):.1f}-{max(right):.1f})" if len(runs) > 1 else ""
        rows.append(
            (
                name,
                f"{sum(right) / len(right):.1f} %{several}",
                f"{run.epochs[-1].samples:,}",
                f"{run.cycles:,}",
                f"{run.density:.3f}",
                f"{run.speedup:.2f}",
                f"{sum(one.wall_s for one in runs):.1f} s",
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join(cells))
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])

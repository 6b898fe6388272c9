"""Rows of aihwkit beside ours (``--compare aihwkit``), when it can be imported: its AnalogTile with
the same device, one call as its user would make it. Its CPU update runs on one thread."""

from __future__ import annotations

import argparse
import importlib.util
import statistics
from collections.abc import Callable
from typing import Any

import torch
from common import Row, race, show, spread

import pulseline as pl

DEVICES = {
    "constant_step": "ConstantStepDevice",
    "linear_step": "LinearStepDevice",
    "soft_bounds": "SoftBoundsDevice",
    "exp_step": "ExpStepDevice",
}


def arguments(p: argparse.ArgumentParser) -> argparse.Namespace:
    """What ``common.parser`` was told, done: the instruction set, and whether rows are added."""
    args = p.parse_args()
    args.compare = available(args.compare)
    if args.isa:
        pl.ops.use_isa(args.isa)
    return args


def available(name: str | None) -> bool:
    """Whether to add its rows; says so if it is not there."""
    if name is None:
        return False
    if name != "aihwkit":
        raise SystemExit(f"--compare {name}: only aihwkit is known")
    if importlib.util.find_spec(name) is None:
        print("--compare aihwkit: it cannot be imported here, its rows are left out")
        return False
    return True


def tile(device: str, rows: int, cols: int, perfect: bool = False) -> Any:
    """Its tile of (rows, cols) with its defaults for the device."""
    from aihwkit.simulator.configs import SingleRPUConfig
    from aihwkit.simulator.configs import devices as theirs
    from aihwkit.simulator.tiles.analog import AnalogTile

    config = SingleRPUConfig(device=getattr(theirs, DEVICES[device])())
    config.forward.is_perfect = config.backward.is_perfect = perfect
    return AnalogTile(rows, cols, config)


def measure(
    names: tuple[str, str, str, str],
    shape: tuple[int, int, int],
    call: Callable[[], object],
    baseline: Callable[[], object],
    seconds: float,
) -> Row:
    """One row; there is no error to print: its draws are not ours."""
    a, b = race(call, baseline, seconds)
    t, t0 = statistics.median(a), statistics.median(b)
    work = shape[0] * shape[1] * shape[2]
    op, device, fidelity, profile = names
    threads = torch.get_num_threads()
    row = Row(
        *(f"{op}/peer", device, fidelity, profile),
        *(*shape, threads, "aihwkit", t, t0, t / t0, work / t, None, spread(a), spread(b)),
    )
    show(row)
    return row

"""A population of devices from sweeps: ranges, curves and noise, each from the other two."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import ConfigError
from ..piecewise_step import MOST_NODES, PiecewiseStep
from .estimate import Curves, Floats, Steps, fit_curves
from .noise import Noise, fit_noise
from .summary import MeasuredFit, mean_steps, reads_of_states, summarise
from .sweeps import Sweep, read_sweeps

__all__ = ["fit_measurements", "from_measurements"]

_ROUNDS = 4  # of ranges, curves and noise, each from the other two
_REST = 3 / math.sqrt(2)  # read noises from the end within which a device rests
_REACH = 3.5  # read noises by which the largest of many reads may miss its state


def fit_measurements(path: str | Path, nodes: int = 8) -> MeasuredFit:
    """Fit a population of devices to measured potentiation and depression curves.

    Args:
        path: a table of measurements as :func:`pulseline.devices.from_measurements` takes it.
        nodes: 2 to 16 nodes of the mean curves.

    Returns:
        The device and what it was made from.

    Raises:
        ConfigError: as for :func:`pulseline.devices.from_measurements`.
    """
    if not isinstance(nodes, int) or not 2 <= nodes <= MOST_NODES:
        raise ConfigError(f"nodes is {nodes}; use an integer from 2 to {MOST_NODES}")
    path = Path(path)
    sweeps = read_sweeps(path)
    names = sorted({sweep.device for sweep in sweeps})
    number = {name: n for n, name in enumerate(names)}
    _check(path, sweeps)
    noise, unit = Noise(), 1.0
    for _ in range(_ROUNDS):
        ends = _ranges(sweeps, number, math.sqrt(noise.read) * unit)
        low, high = ends.mean(0)
        if not high > low:
            raise ConfigError(f"{path}: conductances do not change; give response curves")
        centre, unit = (low + high) / 2, (high - low) / 2
        bounds = (ends - centre) / unit
        weights = [
            s._replace(values=(s.values - centre) / unit, scatter=s.scatter / unit**2)
            for s in sweeps
        ]
        within, share, _ = reads_of_states(weights)
        up = fit_curves(_steps(path, weights, number, bounds, True, noise), nodes, noise)
        down = fit_curves(_steps(path, weights, number, bounds, False, noise), nodes, noise)
        noise = fit_noise([up.residuals, down.residuals], within * share, noise)
    _check_reads(path, weights, up, down)
    for word, steps in zip(("up", "down"), mean_steps((up, down)), strict=True):
        if not steps.sum() > 0 or not steps[(nodes - 1) // 2 : nodes // 2 + 1].all():
            raise ConfigError(
                f"{path}: the mean {word} step at mid range comes out as 0; measure more pulses, "
                "so that sweeps cross it, or more cycles"
            )
    return summarise(weights, bounds, (float(centre), float(unit)), (up, down), noise)


def from_measurements(path: str | Path, nodes: int = 8, **other: Any) -> PiecewiseStep:
    """A :class:`PiecewiseStep` population fitted to measured potentiation and depression curves.

    The file is a table with a head line, in UTF-8, UTF-16 or Latin-1, separated by commas,
    semicolons, tabs or bars, with decimal points or commas::

        device,cycle,direction,pulse,conductance
        A1,1,up,0,2.13
        A1,1,up,1,2.31

    - ``conductance`` (or G): any unit, which the name may give: ``G (uS)``.
    - ``direction``: up or down, LTP or LTD, potentiation or depression, set or reset, + or -.
    - ``pulse``: number of pulses given so far; counts on, or restarts with a cycle or a direction.
      Rows of one number are repeated reads of one state.
    - ``cycle``, if there are several: any name. Without it, rows of pulses that restart must be in
      the order of time; otherwise any order will do.
    - ``device``, if there are several: any name.

    The mean range of the devices becomes the weights -1 to 1. Cycle and read noise are told apart,
    and spreads between devices are freed of what the noise of their own fits adds. Equations and
    sources are in ``devices.measured.estimate``, bias and spread on devices of known response in
    ``bench/results/measured_curves.md``. Read noise is the instrument's and that of reads
    (``ReadConfig.w_noise``): it is not in the device; :func:`fit_measurements` gives it.

    Args:
        path: the file.
        nodes: 2 to 16 nodes of the mean curves.
        other: fields of :class:`PiecewiseStep` that replace fitted ones.

    Returns:
        The population.

    Raises:
        ConfigError: the file cannot be understood, or a device lacks a direction, moves against
            it, or has too few points; says where and what to change.
    """
    return replace(fit_measurements(path, nodes).device, **other)


def _check(path: Path, sweeps: list[Sweep]) -> None:
    """Every device has both directions and moves along them."""
    for name in sorted({sweep.device for sweep in sweeps}):
        who = f"device {name!r}" if name else "the device"
        for up in (True, False):
            word = "up" if up else "down"
            mine = [s for s in sweeps if s.device == name and s.up is up]
            if not any(len(s.pulses) >= 3 for s in mine):
                where = f", line {mine[0].line}" if mine else ""
                raise ConfigError(
                    f"{path}{where}: {who} has fewer than 3 {word} points in a sweep; measure more "
                    "or leave it out"
                )
            moved = sum(_travel(s) for s in mine)
            if not (moved > 0 if up else moved < 0):
                start, end = mine[0].values[0], mine[0].values[-1]
                raise ConfigError(
                    f"{path}, line {mine[0].line}: {who} does not move {word} (from {start:g} to "
                    f"{end:g}); leave it out, or exchange the names of its directions"
                )


def _travel(sweep: Sweep) -> float:
    """From the mean of the first fifth of a sweep to that of the last."""
    part = max(len(sweep.values) // 5, 1)
    return float(sweep.values[-part:].mean() - sweep.values[:part].mean())


def _ranges(sweeps: list[Sweep], number: dict[str, int], rho: float) -> Floats:
    """Ends (devices, 2) of the states that were reached.

    The highest running mean of an up sweep, over as many states as read noise needs and its end
    allows, and no less than the highest read less what read noise may add. Without read noise, the
    extremes.
    """
    ends = np.full((len(number), 2), -np.inf)
    for sweep in sweeps:
        for side, sign in enumerate((-1.0, 1.0)):
            y = sign * sweep.values
            top = y.max() - _REACH * rho
            if sweep.up is (sign > 0):
                window = _window(y, rho)
                top = max(top, np.convolve(y, np.full(window, 1 / window), "valid").max())
            n = number[sweep.device]
            ends[n, side] = max(ends[n, side], top)
    return ends * (-1.0, 1.0)


def _window(y: Floats, rho: float) -> int:
    """States to average: noise rho / sqrt(m) against half the path m e / 2, e the last step."""
    part = max(len(y) // 4, 1)
    if rho == 0 or len(y) < 8:
        return 1
    last = abs(y[-part:].mean() - y[-2 * part : -part].mean()) / part
    return int(np.clip(round((2 * rho / max(last, 1e-9 * rho)) ** (2 / 3)), 1, part))


def _steps(
    path: Path, sweeps: list[Sweep], number: dict[str, int], bounds: Floats, up: bool, noise: Noise
) -> Steps:
    """Steps of one direction; a device that rests at the end of its range says nothing of them."""
    sign = 1.0 if up else -1.0
    ends = bounds if up else -bounds[:, ::-1]
    margin = _REST * math.sqrt(noise.read)
    device, pulses, change, middle, linked = [], [], [], [], []
    for sweep in sweeps:
        if sweep.up is not up or len(sweep.pulses) < 2:
            continue
        y, n = sign * sweep.values, number[sweep.device]
        centre = (y[1:] + y[:-1]) / 2
        kept = np.nonzero(_calm(centre, noise) < ends[n, 1] - margin)[0]
        device.append(np.full(len(kept), n))
        pulses.append(np.diff(sweep.pulses)[kept])
        change.append(np.diff(y)[kept])
        middle.append(centre[kept])
        linked.append(np.append(np.diff(kept) == 1, False)[: len(kept)])
    steps = Steps(
        np.concatenate(device),
        np.concatenate(pulses),
        np.concatenate(change),
        np.concatenate(middle),
        np.concatenate(linked),
        ends[:, 0],
        ends[:, 1] - ends[:, 0],
    )
    found = np.bincount(steps.device, minlength=len(number))
    for name, n in number.items():
        if found[n] < 2:
            raise ConfigError(
                f"{path}: device {name!r} has fewer than 2 {'up' if up else 'down'} steps above "
                "its read noise; measure more or leave it out"
            )
    return steps


def _calm(centre: Floats, noise: Noise) -> Floats:
    """A running median of up to 17, which keeps the corner where a hard bound is met.

    Steps chosen by single reads would be chosen by their noise.
    """
    half = min(8, len(centre) // 8)
    if noise.read == 0 or half == 0:
        return centre
    padded = np.pad(centre, half, mode="reflect", reflect_type="odd")
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * half + 1)
    found: Floats = np.median(windows, axis=1)
    return found


def _check_reads(path: Path, sweeps: list[Sweep], up: Curves, down: Curves) -> None:
    """Reads of one state cannot differ by more than successive states do."""
    spread, share, _ = reads_of_states(sweeps)
    steps = float(np.concatenate([up.residuals.u, down.residuals.u]).var())
    if spread * share > steps:  # expected: less than half
        raise ConfigError(
            f"{path}: rows of one pulse number differ by {math.sqrt(spread):.3g} of half the range "
            f"and successive ones by {math.sqrt(steps):.3g}, so they are cycles and not reads of "
            "one state; add a column cycle"
        )

"""A device from one's own measurements: PiecewiseStep fitted to response curves of many devices.

Every device d, direction by direction, gets a curve P_d through equidistant nodes of its own range
(least squares over its steps per pulse, with a weak pull towards straight lines). The population is

    M = mean of P_d             nodes: M / dw_min, dw_min the mean of M_up and M_down at mid range
    P_d = a_d M (1 + tilt_d z)  least squares over the nodes, z from -1 to 1
    gain = (a_up + a_down) / 2, bias = (a_up - a_down) / 2: their spreads are dw_min_dtod and
    up_down_dtod; the spread of tilt_d is tilt_dtod; that of the ends of the ranges w_*_dtod
    sigma^2 = sum (step - n P_d)^2 / sum n P_d^2 over all steps of n pulses: cycle-to-cycle noise
"""

from __future__ import annotations

import csv
import itertools
import math
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

from ..errors import ConfigError
from .piecewise_step import MOST_NODES, PiecewiseStep

_COLUMNS = ("device", "direction", "pulse", "conductance")
_STIFFNESS = 1e-4  # pull towards straight lines, relative to the data

Curves = dict[tuple[str, str], list[tuple[float, float]]]  # (device, direction): pulse, conductance
Step = tuple[float, float, float]  # place in the range, pulses, change of the weight


def from_measurements(path: str | Path, nodes: int = 8, **other: Any) -> PiecewiseStep:
    """A :class:`PiecewiseStep` population fitted to measured potentiation and depression curves.

    Args:
        path: CSV file with a head line and the columns ``device`` (any name), ``direction`` (up or
            down), ``pulse`` (number of pulses given so far) and ``conductance`` (any unit). The
            mean range of the devices becomes the weights -1 to 1.
        nodes: 2 to 16 nodes of the curves.
        other: fields of :class:`PiecewiseStep` that replace fitted ones.

    Raises:
        ConfigError: a column is missing, a value is no number, or a device lacks a direction, moves
            against it on average, or has too few points.
    """
    if not 2 <= nodes <= MOST_NODES:
        raise ConfigError(f"nodes is {nodes}; use an integer from 2 to {MOST_NODES}")
    curves = _read(Path(path))
    names = sorted({name for name, _ in curves})
    ends: list[tuple[float, float]] = []
    for name in names:
        for direction in ("up", "down"):
            if len(curves.get((name, direction), ())) < 3:
                raise ConfigError(f"{path}: device {name!r} has fewer than 3 {direction} points")
        values = [g for way in ("up", "down") for _, g in curves[name, way]]
        ends.append((min(values), max(values)))
    low, high = fmean(e[0] for e in ends), fmean(e[1] for e in ends)
    if not high > low:
        raise ConfigError(f"{path}: conductances do not change; give response curves")
    centre, half = (high + low) / 2, (high - low) / 2
    fits: dict[str, list[list[float]]] = {"up": [], "down": []}
    misfit = power = 0.0
    for name, end in zip(names, ends, strict=True):
        for sign, direction in ((1.0, "up"), (-1.0, "down")):
            steps = _steps(sorted(curves[name, direction]), end, half, sign)
            curve = _fit(steps, nodes)
            if not fmean(curve) > 0:
                raise ConfigError(f"{path}: device {name!r} does not move {direction}")
            fits[direction].append(curve)
            for place, pulses, change in steps:
                expected = _value(curve, place)
                misfit += (change - pulses * expected) ** 2
                power += pulses * expected**2
    bounds = [((a - centre) / half, (b - centre) / half) for a, b in ends]
    return _population(fits, bounds, math.sqrt(misfit / power), other)


def _population(
    fits: dict[str, list[list[float]]],
    bounds: list[tuple[float, float]],
    sigma: float,
    other: dict[str, Any],
) -> PiecewiseStep:
    mean = {way: [max(fmean(v), 0.0) for v in zip(*fits[way], strict=True)] for way in fits}
    dw_min = (_value(mean["up"], 0.5) + _value(mean["down"], 0.5)) / 2
    scales: dict[str, list[float]] = {}
    tilts: dict[str, float] = {}
    for way in fits:
        pairs = [_decompose(curve, mean[way]) for curve in fits[way]]
        scales[way] = [a for a, _ in pairs]
        tilts[way] = math.sqrt(fmean(b * b for _, b in pairs))
    both = list(zip(scales["up"], scales["down"], strict=True))
    values: dict[str, Any] = {
        "dw_min": dw_min,
        "dw_min_dtod": pstdev([(a + b) / 2 for a, b in both]),
        "dw_min_std": sigma,
        "up_down_dtod": pstdev([(a - b) / 2 for a, b in both]),
        "w_max": 1.0,
        "w_min": -1.0,
        "w_max_dtod": pstdev([b for _, b in bounds]),
        "w_min_dtod": pstdev([a for a, _ in bounds]),
        "tilt_up_dtod": tilts["up"],
        "tilt_down_dtod": tilts["down"],
        "piecewise_up": tuple(v / dw_min for v in mean["up"]),
        "piecewise_down": tuple(v / dw_min for v in mean["down"]),
    }
    return PiecewiseStep(**{**values, **other})


def _read(path: Path) -> Curves:
    curves: Curves = defaultdict(list)
    try:
        text = path.read_text()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
    table = csv.DictReader(text.splitlines(), skipinitialspace=True)
    missing = [c for c in _COLUMNS if c not in (table.fieldnames or ())]
    if missing:
        raise ConfigError(f"{path} has no column {missing[0]!r}; use {', '.join(_COLUMNS)}")
    for row in table:
        where = f"{path}, line {table.line_num}"
        if row["direction"] not in ("up", "down"):
            raise ConfigError(f"{where}: direction is {row['direction']!r}; use up or down")
        try:
            pulse, conductance = float(row["pulse"]), float(row["conductance"])
        except (TypeError, ValueError):
            raise ConfigError(f"{where}: pulse and conductance must be numbers") from None
        if not (math.isfinite(pulse) and math.isfinite(conductance)):
            raise ConfigError(f"{where}: pulse and conductance must be finite")
        curves[row["device"], row["direction"]].append((pulse, conductance))
    if not curves:
        raise ConfigError(f"{path} holds no measurement")
    return curves


def _steps(
    curve: Sequence[tuple[float, float]], end: tuple[float, float], half: float, sign: float
) -> list[Step]:
    """Steps between points, at the middle of the two, as positive changes.

    A device that rests at the end of its range says nothing about steps.
    """
    steps = []
    limit = end[1] if sign > 0 else end[0]
    for (n0, g0), (n1, g1) in itertools.pairwise(curve):
        if n1 > n0 and g0 != limit:
            place = ((g0 + g1) / 2 - end[0]) / (end[1] - end[0]) if end[1] > end[0] else 0.5
            steps.append((place, n1 - n0, sign * (g1 - g0) / half))
    return steps


def _hats(place: float, nodes: int) -> tuple[int, float]:
    t = min(max(place, 0.0), 1.0) * (nodes - 1)
    left = min(int(t), nodes - 2)
    return left, t - left


def _value(curve: Sequence[float], place: float) -> float:
    left, part = _hats(place, len(curve))
    return curve[left] + part * (curve[left + 1] - curve[left])


def _fit(steps: Sequence[Step], nodes: int) -> list[float]:
    """Least squares of changes by pulses times the curve: normal equations, eliminated."""
    a = [[0.0] * nodes for _ in range(nodes)]
    b = [0.0] * nodes
    for place, pulses, change in steps:
        left, part = _hats(place, nodes)
        for i, u in ((left, 1 - part), (left + 1, part)):
            b[i] += u * change  # weight 1 / pulses: the variance grows with them
            for j, v in ((left, 1 - part), (left + 1, part)):
                a[i][j] += u * v * pulses
    pull = _STIFFNESS * max(sum(a[i][i] for i in range(nodes)), 1e-300)
    for first in range(nodes - 2):
        for i, u in enumerate((1.0, -2.0, 1.0)):
            for j, v in enumerate((1.0, -2.0, 1.0)):
                a[first + i][first + j] += pull * u * v
    for i in range(nodes):
        a[i][i] += 1e-12 * pull
    for i in range(nodes):  # positive definite: no pivoting
        for k in range(i + 1, nodes):
            factor = a[k][i] / a[i][i]
            b[k] -= factor * b[i]
            a[k] = [x - factor * y for x, y in zip(a[k], a[i], strict=True)]
    for i in reversed(range(nodes)):
        b[i] = (b[i] - sum(a[i][k] * b[k] for k in range(i + 1, nodes))) / a[i][i]
    return b


def _decompose(curve: Sequence[float], mean: Sequence[float]) -> tuple[float, float]:
    """a and tilt of ``curve = a mean (1 + tilt z)``, least squares."""
    last = len(mean) - 1
    tilted = [m * (2 * i / last - 1) for i, m in enumerate(mean)]
    mm = sum(m * m for m in mean)
    mt = sum(m * t for m, t in zip(mean, tilted, strict=True))
    tt = sum(t * t for t in tilted)
    ym = sum(y * m for y, m in zip(curve, mean, strict=True))
    yt = sum(y * t for y, t in zip(curve, tilted, strict=True))
    determinant = mm * tt - mt * mt
    if not determinant > 1e-12 * mm * tt:
        return (ym / mm, 0.0)
    a, b = (ym * tt - yt * mt) / determinant, (yt * mm - ym * mt) / determinant
    return a, b / a if a else 0.0

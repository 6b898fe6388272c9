"""``pulseline device TABLE``: measured curves beside what the fitted population does."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from ..devices import MeasuredFit
from .pulser import pulse, pulser

__all__ = ["BINS", "TABLES", "Floats", "Sweeps", "compare"]

Floats = npt.NDArray[np.floating]
TABLES = (".csv", ".tsv", ".tab", ".txt", ".dat", ".asc")
BINS = 24  # of the range, for measured steps


class Sweeps(NamedTuple):
    """One direction, measured and simulated; weights over pulses since a sweep began.

    Attributes:
        measured: of each sweep, pulses and weights.
        pulses: 0 to the longest sweep.
        mean: of the simulated devices.
        low, high: their 5th and 95th percentiles.
        places: weights at the middle of bins of the range.
        steps: measured steps of one pulse, mean of each bin, NaN where there are fewer than three.
        errors: their standard errors.
        curve: fitted mean step at the nodes.
    """

    measured: list[tuple[Floats, Floats]]
    pulses: Floats
    mean: Floats
    low: Floats
    high: Floats
    places: Floats
    steps: Floats
    errors: Floats
    curve: Floats


def compare(fit: MeasuredFit, up: bool, count: int, seed: int) -> Sweeps:
    """What was measured in one direction beside ``count`` simulated devices of the fit.

    Simulated sweeps begin in states spread as the measured first ones, freed of read noise, and are
    read with the fit's read noise.
    """
    mine = [s for s in fit.measured if s.up is up]
    length = int(max(s.pulses[-1] - s.pulses[0] for s in mine))
    random = np.random.default_rng(seed)
    starts = np.array([s.values[0] for s in mine])
    spread = float(starts.var())
    kept = np.sqrt(max(1 - fit.read_noise**2 / spread, 0.0)) if spread > 0 else 0.0
    drawn = starts.mean() + kept * (random.choice(starts, count) - starts.mean())
    array = pulser(fit.device, count, seed, "strict")
    start = torch.from_numpy(drawn.astype(np.float32))[:, None]
    array.program(start.clamp(*array.bounds))
    weights = [array.weight.data[:, 0].clone()]
    for _ in range(length):
        pulse(array, fit.device, up)
        weights.append(array.weight.data[:, 0].clone())
    simulated = torch.stack(weights).double().numpy()
    simulated = simulated + fit.read_noise * random.standard_normal(simulated.shape)
    low, high = np.percentile(simulated, [5, 95], axis=1)
    curve = fit.device.piecewise_up if up else fit.device.piecewise_down
    return Sweeps(
        [(s.pulses - s.pulses[0], s.values) for s in mine],
        np.arange(length + 1.0),
        simulated.mean(1),
        low,
        high,
        *_binned(fit, up),
        fit.device.dw_min * np.array(curve),
    )


def _binned(fit: MeasuredFit, up: bool) -> tuple[Floats, Floats, Floats]:
    """Measured steps of one pulse by the middle of their two reads: places, means, errors."""
    sign = 1.0 if up else -1.0
    mine = [s for s in fit.measured if s.up is up and len(s.values) > 1]
    middle = np.concatenate([(s.values[1:] + s.values[:-1]) / 2 for s in mine])
    step = np.concatenate([sign * np.diff(s.values) / np.diff(s.pulses) for s in mine])
    edges = np.linspace(-1, 1, BINS + 1)
    bins = np.clip(np.digitize(middle, edges) - 1, 0, BINS - 1)
    count = np.bincount(bins, minlength=BINS)
    few = count < 3
    count = np.maximum(count, 1)
    mean = np.bincount(bins, step, BINS) / count
    error = np.sqrt(np.bincount(bins, (step - mean[bins]) ** 2, BINS)) / count
    mean[few] = np.nan
    return (edges[1:] + edges[:-1]) / 2, mean, error

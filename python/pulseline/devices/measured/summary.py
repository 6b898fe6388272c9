"""What measurements say of a population: the device and its figures."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np

from ..piecewise_step import PiecewiseStep
from .estimate import Curves, Floats, hats
from .noise import Noise
from .sweeps import Sweep

__all__ = ["MeasuredFit", "mean_steps", "reads_of_states", "summarise"]


@dataclass(frozen=True)
class MeasuredFit:
    """What measurements say of a population of devices.

    Weights run from -1 to 1 over the mean range of the devices; noise and steps are in that unit
    unless stated otherwise.

    Attributes:
        device: the population, for :func:`pulseline.nn.to_analog` and everything else.
        devices, sweeps, points: how much was measured; a point is a state, read once or more.
        states: pulses of the mean size that the range holds, 2 / dw_min.
        asymmetry: (up - down) / (up + down) of the mean steps at mid range.
        symmetry_point: weight at which the mean up and down steps are equal, or None where none
            stands out of two standard errors of the curves.
        c2c: cycle-to-cycle noise of a step, relative to it.
        d2d: device-to-device spread of a step, relative to it.
        read_noise: standard deviation of a single read of one state. Where states were read once
            it holds the device's write noise too, for nothing tells the two apart.
        write_noise: what all reads of a state share and the next state does not. 0 unless states
            were read repeatedly.
        dw_min_error, asymmetry_error, c2c_error, read_noise_error: standard errors, the first two
            with the spread of the devices. Noise of 0 was too small to be seen; its error says how
            large it may be.
        centre, half_range: conductance = centre + half_range weight.
        measured: the sweeps in weights, for figures.
    """

    device: PiecewiseStep
    devices: int
    sweeps: int
    points: int
    states: float
    asymmetry: float
    symmetry_point: float | None
    c2c: float
    d2d: float
    read_noise: float
    write_noise: float
    dw_min_error: float
    asymmetry_error: float
    c2c_error: float
    read_noise_error: float
    centre: float
    half_range: float
    measured: tuple[Sweep, ...] = field(repr=False)

    def summary(self) -> str:
        """Some lines to print."""
        point = "none" if self.symmetry_point is None else f"{self.symmetry_point:+.3f}"
        lines = [
            f"{self.devices} devices, {self.sweeps} sweeps, {self.points:,} states measured; "
            f"weight = (conductance - {self.centre:.6g}) / {self.half_range:.6g}",
            f"states in the range   {self.states:.1f} (dw_min {self.device.dw_min:.4g} "
            f"+- {self.dw_min_error:.2g})",
            f"asymmetry             {self.asymmetry:+.3f} (up against down step at mid range)",
            f"symmetry point        {point}",
            f"cycle to cycle        {self.c2c:.3f} +- {self.c2c_error:.2g} of a step",
            f"device to device      {self.d2d:.3f} of a step, ranges "
            f"{self.device.w_min_dtod:.3f} and {self.device.w_max_dtod:.3f}",
            f"read noise            {50 * self.read_noise:.3g} % of the range "
            f"+- {50 * self.read_noise_error:.2g} %, {self.read_noise / self.device.dw_min:.2f} "
            "steps",
        ]
        if self.write_noise:
            lines.append(f"write noise           {50 * self.write_noise:.3g} % of the range")
        return "\n".join(lines)


def summarise(
    sweeps: list[Sweep],
    ends: Floats,
    scale: tuple[float, float],
    curves: tuple[Curves, Curves],
    noise: Noise,
) -> MeasuredFit:
    """The fit in words of a device.

    Args:
        sweeps: in weights.
        ends: of the range of each device, (devices, 2), in weights.
        scale: conductance of weight 0, and of weight 1 less that.
        curves: up and down, the latter mirrored.
        noise: of both.
    """
    device, asymmetry = _population(ends, curves, noise)
    dw_min, count = device.dw_min, len(ends)
    middle = hats(np.array([0.5]), len(curves[0].nodes))[0][0]
    variance = sum(max(float(middle @ c.nodes_covariance @ middle), 0.0) for c in curves) / 4
    ranges = (device.w_max_dtod**2 + device.w_min_dtod**2) / 4
    within, share, freedom = reads_of_states(sweeps)
    error = math.sqrt(float(noise.covariance[1, 1]))
    write = noise.read - within * share
    if not within or write < 2 * error:
        write = 0.0
    read = within or noise.read
    return MeasuredFit(
        device=replace(device, write_noise_std=math.sqrt(write) / dw_min),
        devices=count,
        sweeps=len(sweeps),
        points=sum(len(s.values) for s in sweeps),
        states=2 / dw_min,
        asymmetry=asymmetry,
        symmetry_point=_crossing(curves),
        c2c=device.dw_min_std,
        d2d=device.dw_min_dtod,
        read_noise=math.sqrt(read),
        write_noise=math.sqrt(write),
        dw_min_error=math.sqrt(variance + dw_min**2 * (device.dw_min_dtod**2 + ranges) / count),
        asymmetry_error=math.sqrt(variance / dw_min**2 + device.up_down_dtod**2 / count),
        c2c_error=_root_error(noise.cycle, math.sqrt(float(noise.covariance[0, 0]))),
        read_noise_error=_root_error(read, math.sqrt(2 / freedom) * within if within else error),
        centre=scale[0],
        half_range=scale[1],
        measured=tuple(sweeps),
    )


def _population(
    ends: Floats, curves: tuple[Curves, Curves], noise: Noise
) -> tuple[PiecewiseStep, float]:
    """The device, and (up - down) / (up + down) at mid range."""
    up, down = curves
    rises, falls = mean_steps(curves)
    last = len(rises) - 1
    middles = [(nodes[last // 2] + nodes[last - last // 2]) / 2 for nodes in (rises, falls)]
    dw_min = float(sum(middles)) / 2
    error = float((up.gain_error**2 + down.gain_error**2).mean()) / 4
    tilt_errors = [float((c.tilt_error**2).mean()) for c in curves]
    device = PiecewiseStep(
        dw_min=dw_min,
        dw_min_dtod=_spread((up.gain + down.gain) / 2, error),
        dw_min_std=math.sqrt(noise.cycle),
        up_down_dtod=_spread((up.gain - down.gain) / 2, error),
        w_max=1.0,
        w_min=-1.0,
        w_max_dtod=_spread(ends[:, 1], 0.0),
        w_min_dtod=_spread(ends[:, 0], 0.0),
        tilt_up_dtod=_spread(up.tilt, tilt_errors[0]),
        tilt_down_dtod=_spread(down.tilt, tilt_errors[1]),
        piecewise_up=tuple(float(v) for v in rises / dw_min),
        piecewise_down=tuple(float(v) for v in falls / dw_min),
    )
    return device, float(middles[0] - middles[1]) / (2 * dw_min)


def mean_steps(curves: tuple[Curves, Curves]) -> tuple[Floats, Floats]:
    """Mean up and down steps at the nodes, from the low end to the high one."""
    up, down = curves
    return np.maximum(up.nodes, 0.0), np.maximum(down.nodes[::-1], 0.0)


def reads_of_states(sweeps: list[Sweep]) -> tuple[float, float, float]:
    """Variance of a read about its state's mean, mean of 1 / reads, degrees of freedom."""
    freedom = sum(float((s.reads - 1).sum()) for s in sweeps)
    scatter = sum(float(s.scatter.sum()) for s in sweeps)
    share = float(np.concatenate([1 / s.reads for s in sweeps]).mean())
    return (scatter / freedom if freedom else 0.0), share, freedom


def _root_error(variance: float, error: float) -> float:
    """Standard error of the root of a variance; of 0, what it may be."""
    return error / (2 * math.sqrt(variance)) if variance > 0 else math.sqrt(error)


def _spread(values: Floats, error: float) -> float:
    """Standard deviation of devices, less the variance of their own fits."""
    if len(values) < 2:
        return 0.0
    return math.sqrt(max(float(values.var(ddof=1)) - error, 0.0))


def _crossing(curves: tuple[Curves, Curves]) -> float | None:
    """Weight at which the up step falls below the down step, both linear between nodes.

    None if no node before it has a larger up step, or none behind it a larger down step, by two
    standard errors.
    """
    rises, falls = mean_steps(curves)
    variances = [c.nodes_covariance.diagonal() for c in curves]
    error = np.sqrt(np.maximum(variances[0] + variances[1][::-1], 0))
    difference = rises - falls
    for n in np.nonzero((difference[:-1] > 0) & (difference[1:] <= 0))[0]:
        above, below = difference[: n + 1] > 2 * error[: n + 1], difference < -2 * error
        if above.any() and below[n + 1 :].any():
            part = float(difference[n] / (difference[n] - difference[n + 1]))
            return 2 * (int(n) + part) / (len(difference) - 1) - 1
    return None

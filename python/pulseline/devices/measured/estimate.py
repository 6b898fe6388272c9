"""Curves, spreads and noise of measured steps.

Model of device d, in one direction, n pulses between two reads of its weight (what is read: y)::

    w' = w + n P_d(w) + sqrt(n) sigma P_d(w) xi      P_d = a_d M(z) (1 + tilt_d z)
    y  = w + rho eps                                 xi, eps independent standard normals

M is linear between equidistant nodes of a device's own range, over which z runs from -1 to 1.

**Curves.** Least squares of the changes y' - y (weight 1 / n) by n P_d, in turn over M (all
devices) and over a_d, tilt_d (each device). A step is looked up half of itself before the middle of
its two reads: rho (eps + eps') / 2 is uncorrelated with the change's rho (eps' - eps), which the
first read is not (an instrument: Fuller, Measurement Error Models, 1987, section 1.4). A weak pull
towards straight lines is what a normal prior of second differences makes of the steps' noise.

Steps of both directions then tell cycle and read noise apart: ``noise.py``.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from .noise import Noise, Residuals

__all__ = [
    "BENT",
    "LEAST_CYCLE",
    "STIFFNESS",
    "Bools",
    "Curves",
    "Floats",
    "Ints",
    "Steps",
    "fit_curves",
    "hats",
]

Floats = npt.NDArray[np.floating[Any]]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

STIFFNESS = 1e-4  # least pull of curves towards straight lines, relative to the data
LEAST_CYCLE = 0.01  # sigma^2 that is reckoned with there: few steps may fit any curve exactly
BENT = 0.25  # second differences of M, relative to its mean, that are taken as likely
_ROUNDS = 6  # of M against a_d, tilt_d; measured: the fifth moves M by less than 1e-4


class Steps(NamedTuple):
    """Changes of one direction, counted along it: ``up`` as they are, ``down`` mirrored.

    Attributes:
        device: number of the device.
        pulses: pulses given.
        change: of the weight that is read.
        middle: mean of the weights before and after.
        linked: whether the next entry begins with the state in which this one ends.
        low, width: range of the device, one each.
    """

    device: Ints
    pulses: Floats
    change: Floats
    middle: Floats
    linked: Bools
    low: Floats
    width: Floats


class Curves(NamedTuple):
    """A fit of one direction.

    Attributes:
        nodes: M.
        nodes_covariance: what noise of the steps makes of it.
        gain, tilt: a_d and tilt_d.
        gain_error, tilt_error: their standard errors.
        residuals: what the curves leave, for :func:`pulseline.devices.measured.noise.fit_noise`.
    """

    nodes: Floats
    nodes_covariance: Floats
    gain: Floats
    tilt: Floats
    gain_error: Floats
    tilt_error: Floats
    residuals: Residuals


def hats(place: Floats, nodes: int) -> tuple[Floats, Floats]:
    """Piecewise linear interpolation, which goes on beyond the ends.

    Args:
        place: (n,), 0 to 1 over the range.
        nodes: how many.

    Returns:
        Weights of the nodes (n, nodes), and their derivatives by the place.
    """
    left = np.clip(place * (nodes - 1), 0, nodes - 2).astype(np.int64)
    part = place * (nodes - 1) - left
    row = np.arange(len(place))
    weights, slopes = np.zeros((2, len(place), nodes))
    weights[row, left], weights[row, left + 1] = 1 - part, part
    slopes[row, left], slopes[row, left + 1] = 1 - nodes, nodes - 1
    return weights, slopes


def fit_curves(steps: Steps, nodes: int, noise: Noise) -> Curves:
    """M, a_d and tilt_d of one direction.

    Args:
        steps: of all devices.
        nodes: of M.
        noise: as found so far; with none, that of the residuals.
    """
    devices = len(steps.low)
    low, width = steps.low[steps.device], steps.width[steps.device]
    middle = (steps.middle - low) / width
    gain: Floats = np.ones(devices)
    tilt: Floats = np.zeros(devices)
    step = np.zeros_like(middle)
    strength = 0.0
    for _ in range(_ROUNDS):
        place = middle - step / width / 2
        x, dx = hats(place, nodes)
        z = 2 * place - 1
        scale = steps.pulses * gain[steps.device] * (1 + tilt[steps.device] * z)
        a = _normal_matrix(scale[:, None] * x, steps, strength)
        mean: Floats = np.linalg.solve(a, (scale / steps.pulses * steps.change) @ x)
        m, dm = x @ mean, dx @ mean
        strength = _strength(scale[:, None] * x, steps, m * gain[steps.device], noise, mean)
        g = steps.pulses[:, None] * np.stack([m, m * z], 1)
        small = _device_matrices(g, steps)
        if devices > 1:
            gain, tilt = _device_fits(small, g, steps)
        step = gain[steps.device] * (1 + tilt[steps.device] * z) * m
        tilted = gain[steps.device] * (
            (1 + tilt[steps.device] * z) * dm + 2 * tilt[steps.device] * m
        )
    x *= scale[:, None]
    inverse: Floats = np.linalg.inv(a)
    inverses: Floats = np.linalg.inv(small)
    residuals = Residuals(
        steps.change - steps.pulses * step,
        steps.pulses,
        steps.pulses * step**2,
        np.clip(steps.pulses * tilted / width, -1.5, 1.5),
        steps.linked,
        [(x, inverse[None], np.zeros_like(steps.device))],
    )
    if devices > 1:
        share = 1 - 1 / devices  # the mean of the devices is in the common curve
        residuals.fits.append((g, share * inverses, steps.device))
    cycle = max(noise.cycle, float(np.sqrt(noise.covariance[0, 0])))  # 0 is not known to be 0
    white = cycle * residuals.power
    spread = _covariance(x, white, steps, noise)
    spreads = _covariances(g, white, steps, noise)
    errors = np.sqrt(np.maximum(np.einsum("dij,djk,dki->di", inverses, spreads, inverses), 0))
    return Curves(
        mean, inverse @ spread @ inverse, gain, tilt, errors[:, 0], errors[:, 1] / gain, residuals
    )


def _strength(x: Floats, steps: Steps, step: Floats, noise: Noise, mean: Floats) -> float:
    """Of the pull towards straight lines, from the noise in the sums of the normal equations.

    The variance of a white noise that would make as much of it, over that of second differences of
    M under a prior: BENT of the mean step.
    """
    u = steps.change - steps.pulses * step
    white = max(noise.cycle, LEAST_CYCLE) * steps.pulses * step**2
    if not (noise.cycle or noise.read):  # not known yet
        white = np.full_like(u, (u**2).mean())
    sums = _covariance(x, white, steps, noise)
    size = ((x / steps.pulses[:, None]) * x).sum()
    prior = BENT * float(abs(mean).mean())
    return float(sums.trace() / size) / max(prior, 1e-300) ** 2


def _normal_matrix(x: Floats, steps: Steps, strength: float) -> Floats:
    """Of all steps, and the pull."""
    nodes = x.shape[1]
    full: Floats = (x / steps.pulses[:, None]).T @ x
    bend = np.diff(np.eye(nodes), 2, axis=0)
    least = STIFFNESS * max(float(full.diagonal().max()), 1e-300)
    pulled: Floats = full + max(strength, least) * bend.T @ bend + 1e-12 * least * np.eye(nodes)
    return pulled


def _device_matrices(g: Floats, steps: Steps) -> Floats:
    """Normal matrices of (a, a tilt), (devices, 2, 2); a tilt that nothing shows is held at 0."""
    devices = len(steps.low)
    found = np.empty((devices, 2, 2))
    for i, j in np.ndindex(2, 2):
        entries = g[:, i] * g[:, j] / steps.pulses
        found[:, i, j] = np.bincount(steps.device, entries, devices)
    determinant = found[:, 0, 0] * found[:, 1, 1] - found[:, 0, 1] ** 2
    flat = ~(determinant > 1e-3 * found[:, 0, 0] ** 2)
    found[:, 0, 0] = np.maximum(found[:, 0, 0], 1e-300)
    found[flat, 0, 1] = found[flat, 1, 0] = 0
    found[flat, 1, 1] = 1e12 * found[flat, 0, 0]
    return found


def _device_fits(matrices: Floats, g: Floats, steps: Steps) -> tuple[Floats, Floats]:
    """a and tilt of each device, about means of 1 and 0."""
    devices = len(steps.low)
    b = [np.bincount(steps.device, c * steps.change / steps.pulses, devices) for c in g.T]
    a, tilted = np.linalg.solve(matrices, np.stack(b, 1)[..., None])[..., 0].T
    gain = np.maximum(a, 1e-3 * abs(a).max() + 1e-300)
    tilt = np.clip(tilted / gain, -1, 1)
    return gain / gain.mean(), tilt - tilt.mean()


def _covariance(x: Floats, white: Floats, steps: Steps, noise: Noise) -> Floats:
    """Of sum x_t u_t / n_t over all steps: white noise beside read noise, which telescopes."""
    x = x / steps.pulses[:, None]
    after = np.where(steps.linked[:-1], noise.read, 0.0)
    across = (x[:-1] * after[:, None]).T @ x[1:]
    found: Floats = (x * (white + 2 * noise.read)[:, None]).T @ x - across - across.T
    return found


def _covariances(x: Floats, white: Floats, steps: Steps, noise: Noise) -> Floats:
    """The same for the steps of each device, (devices, 2, 2)."""
    x = x / steps.pulses[:, None]
    own = white + 2 * noise.read
    after = np.where(steps.linked[:-1], noise.read, 0.0)
    found = np.empty((len(steps.low), 2, 2))
    for i, j in np.ndindex(2, 2):
        entries = own * x[:, i] * x[:, j]
        entries[:-1] -= after * (x[:-1, i] * x[1:, j] + x[1:, i] * x[:-1, j])
        found[:, i, j] = np.bincount(steps.device, entries, len(steps.low))
    return found

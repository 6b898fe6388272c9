"""Cycle noise and read noise, told apart in what fitted curves leave of measured steps.

A residual u_t holds the step's cycle noise and the read noise of its two states. Over k steps the
former adds up and the latter stays that of two reads, so with S = u_t + .. + u_t+k-1::

    E S^2 = sigma^2 (sum n P^2 f - h) + rho^2 (2 + (k - 1/2) c^2)      f = (1 - c/2)^2 e^(c - c/n)

a line in k whose slope is cycle noise and whose intercept is read noise (the nugget of a variogram,
Cressie, Statistics for Spatial Data, 1993, section 2.4; over k = 1 and 2 it says that neighbouring
residuals have the covariance -rho^2). c = n dP/dw: the middle of two reads, where P is looked up,
holds half of the step's own noise and a mean of two read noises, and pulses after the first of n
answer to the noise of those before. h is what the fit took out,
sum_ij h_ij n_j P_j^2 of its hat matrix; read noise telescopes there and loses nothing.

k = 1, 2, 4, .. up to four times the ratio of read noise to steps, over all stretches, which
overlap. The two unknowns follow by least squares weighted with 1 / (k variance^2) under the last
estimate, until they stay. Where rho^2 is less than two standard errors above what repeated reads
alone show (0 without any), it is that. Errors are those of sums over blocks of twice the longest
stretch, shorter where that makes fewer than 16 blocks.

Measured on known devices (``bench/results/measured_curves.md``): from one cycle of 100 pulses of 8
devices a c2c of .30 is found with a bias of .005, -.003, -.005, .012, .075 and a deviation of .008,
.027, .057, .12, .23 at read noise 0, .5, 1, 2, 4 % of the range; the bias of read noise itself is
below 1 %.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["LONGEST", "Bools", "Floats", "Ints", "Noise", "Residuals", "fit_noise"]

Floats = npt.NDArray[np.floating[Any]]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

LONGEST = 32  # steps of a stretch
_BLOCK = 16  # least steps of a block, if there are many
_BLOCKS = 16  # least blocks, if there are few
_ROUNDING = 1e-28  # of the squares of what is left, in units of the range: below there is no noise
_FLOOR = 0.1  # of the mean variance: at the ends of a range steps vanish, the curves' errors do not


class Noise(NamedTuple):
    """Variances of cycle noise (relative to a step) and of what is read, and their covariance."""

    cycle: float = 0.0
    read: float = 0.0
    covariance: Floats = np.zeros((2, 2))


class Residuals(NamedTuple):
    """What the curves of one direction leave, a row for each step.

    Attributes:
        u: residual.
        pulses: n.
        power: n P^2.
        slope: c.
        linked: whether the next row begins with the state in which this one ends.
        fits: regressors, inverse normal matrices (weight 1 / n), and which of these is the row's.
    """

    u: Floats
    pulses: Floats
    power: Floats
    slope: Floats
    linked: Bools
    fits: list[tuple[Floats, Floats, Ints]]


class _Stretches(NamedTuple):
    """S^2, its design, cycle part of its variance, k, and the block it begins in."""

    square: Floats
    design: Floats
    power: Floats
    length: Floats
    block: Ints


def fit_noise(parts: list[Residuals], least: float, before: Noise) -> Noise:
    """sigma^2 and rho^2.

    Args:
        parts: residuals of each direction.
        least: the part of rho^2 that repeated reads show, 0 without any.
        before: an earlier estimate, which says how long stretches should be.
    """
    typical = max(float(np.mean([p.power.mean() for p in parts])), 1e-300)
    ratio = 4 * np.sqrt(before.read / typical)
    longest = int(np.clip(2 ** np.ceil(np.log2(max(ratio, 2))), 2, LONGEST))
    steps = sum(len(part.u) for part in parts)
    size = max(min(max(_BLOCK, 2 * longest), steps // _BLOCKS), 1)
    found, blocks = [], 0
    for part in parts:
        block = blocks + np.arange(len(part.u)) // size
        blocks = int(block[-1]) + 1
        k = 1
        while k <= min(longest, len(part.u)):
            found.append(_stretches(part, k, block))
            k *= 2
    all_ = _Stretches(*(np.concatenate(column) for column in zip(*found, strict=True)))
    scale = float(all_.square[all_.length == 1].mean())
    power = float(all_.power[all_.length == 1].mean())
    if not scale > _ROUNDING or not power > 0:
        return Noise(0.0, least)
    noise = Noise(scale / power / 2, scale / 4)
    for _ in range(30):
        last, noise = noise, _round(all_, noise, least)
        if np.allclose(noise[:2], last[:2], rtol=1e-6, atol=1e-12 * scale):
            break
    return noise


def _stretches(p: Residuals, k: int, block: Ints) -> _Stretches:
    """All stretches of k steps."""
    broken = np.concatenate([[0], np.cumsum(~p.linked)])[:-1]  # number of the run of each step
    first = np.nonzero(broken[: len(broken) - k + 1] == broken[k - 1 :])[0]

    def total(x: Floats) -> Floats:
        sums = np.concatenate([np.zeros((1, *x.shape[1:])), np.cumsum(x, 0)])
        return np.asarray(sums[first + k] - sums[first])

    power = p.power * (1 - p.slope / 2) ** 2 * np.exp(p.slope * (1 - 1 / p.pulses))
    taken = np.zeros(len(first))
    for x, inverses, which in p.fits:
        ahead = total(x * (power / p.pulses)[:, None])
        taken += np.einsum("ti,tij,tj->t", total(x), inverses[which[first]], ahead)
    cycle = total(power)
    design = np.stack(
        [np.maximum(cycle - taken, 0.0), 2 + (k - 0.5) * (total(p.slope) / k) ** 2], 1
    )
    return _Stretches(total(p.u) ** 2, design, cycle, np.full(len(first), float(k)), block[first])


def _round(s: _Stretches, noise: Noise, least: float) -> Noise:
    """One solution with the weights of the noise before."""
    v = noise.cycle * s.power + 2 * noise.read
    v = np.maximum(v, _FLOOR * max(float(v.mean()), 1e-300))
    weight = 1 / s.length / v**2
    found, covariance = _solve(s.square, s.design, weight, s.block)
    if not found[1] > least + 2 * np.sqrt(covariance[1, 1]):
        square = s.square - least * s.design[:, 1]
        only, error = _solve(square, s.design[:, :1], weight, s.block)
        return Noise(max(float(only[0]), 0.0), least, np.diag([error[0, 0], covariance[1, 1]]))
    if not found[0] > 0:
        only, error = _solve(s.square, s.design[:, 1:], weight, s.block)
        return Noise(0.0, max(float(only[0]), least), np.diag([covariance[0, 0], error[0, 0]]))
    return Noise(float(found[0]), float(found[1]), covariance)


def _solve(y: Floats, x: Floats, weight: Floats, block: Ints) -> tuple[Floats, Floats]:
    """Weighted least squares and the covariance of its result."""
    xw = x * weight[:, None]
    scale = 1 / np.sqrt(np.maximum((xw * x).sum(0), 1e-300))
    inverse = np.linalg.pinv((xw.T @ x) * scale * scale[:, None]) * scale * scale[:, None]
    solution = inverse @ (xw.T @ y)
    scores = xw * (y - x @ solution)[:, None]
    sums = np.stack([np.bincount(block, s) for s in scores.T], 1)
    few = len(sums) / max(len(sums) - x.shape[1], 1)
    return solution, few * inverse @ (sums.T @ sums) @ inverse

"""The law of a noisy update: one sample pulsed R times from the same weight, only k differs.

Coincidences n_ij of BL slots are Binomial(BL, P = p_x p_d) with lr |x d| = g BL P (nothing clips),
a ConstantStep moves by dw (n + sigma sqrt(n) xi). Hence, in units of dw,

    mean      m = BL P
    variance  v + sigma^2 m                                   v = BL P (1 - P)
    4th       E(N-m)^4 + 6 sigma^2 E[(N-m)^2 N] + 3 sigma^4 E N^2
              = 3 v^2 + v (1 - 6 P (1-P)) + 6 sigma^2 (v (1 - 2P) + m v) + 3 sigma^4 (v + m^2)

A sample mean has variance var/R, a sample variance (4th - var^2 (R-3)/(R-1))/R; every crosspoint
gets 5 of these standard errors (300 crosspoints exceed that by chance once in 5,000 runs; seeds are
fixed). Trains are shared: crosspoints of a row see the same d train, so
cov(n_ij, n_ij') = BL p_xj p_xj' p_di (1 - p_di), of a column likewise, and 0 across both. Sample
covariances get 5.5 of the standard errors estimated from the products themselves. The 16-bit
rounding of p and the imperfect xi (KS .005) are far below these tolerances.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from operators import replaced, update_arguments
from pulseline import ops, reference
from pulseline.configs import UpdateConfig
from pulseline.devices import ConstantStep, ExpStep, PulsedDevice, SoftBounds
from pulseline.reference import Crosspoints

QUIET: dict[str, Any] = {
    "dw_min_dtod": 0.0,
    "up_down_dtod": 0.0,
    "w_max_dtod": 0.0,
    "w_min_dtod": 0.0,
}
STEP = 2.0**-10  # a bf16 number: the stored step is the nominal one
SIGMA = 0.5
REPEATS = 500
ROWS, COLS = 12, 25
fidelities = pytest.mark.parametrize("fidelity", ["exact", "strict"])
lengths = pytest.mark.parametrize("bl", [5, 10, 31])


class Law(NamedTuple):
    """Probabilities of one sample's lines and the update that has them."""

    x: Tensor
    d: Tensor
    lr: float
    bl: int

    @property
    def p(self) -> Tensor:
        return (self.lr / (STEP * self.bl)) * self.d.abs()[:, None] * self.x.abs()

    @property
    def p_d(self) -> Tensor:
        """Row probabilities; update management gives the largest x and d the same."""
        return self.d.abs() / self.d.abs().max() * self.p.max().sqrt()

    @property
    def p_x(self) -> Tensor:
        return self.x.abs() / self.x.abs().max() * self.p.max().sqrt()


def law(bl: int) -> Law:
    """Inputs and errors of both signs; the most probable crosspoint fires in 80 % of the slots."""
    x = torch.linspace(0.2, 1, COLS).double() * torch.tensor([1.0, -1.0, 1.0, 1.0, -1.0]).repeat(5)
    d = torch.linspace(0.5, 0.1, ROWS).double() * torch.tensor([1.0, -1.0, -1.0]).repeat(4)
    return Law(x, d, 0.8 * bl * STEP / 0.5, bl)


def repeated(
    device: PulsedDevice, sample: Law, fidelity: str, repeats: int, weight: float = 0.0
) -> Tensor:
    """Increments (repeats, rows, cols) in float64, each with a counter of its own."""
    x, d = sample.x.float()[None], sample.d.float()[None]
    shape = (d.shape[1], x.shape[1])
    stored = reference.construct(device, shape[0], shape[1], 7, 1)
    config = UpdateConfig(sample.bl, update_bl_management=False, fidelity=fidelity)
    start = torch.full(shape, weight)
    result = torch.empty(repeats, *shape)
    for k in range(repeats):
        w = start.clone()
        arguments = update_arguments(w, stored, x, d, device, config, sample.lr, (7, 1, k))
        ops.update_(*replaced(arguments, ops.PulseSettings, granularity=STEP))  # of every device
        result[k] = w
    return result.double() - start.double()


def constant(sigma: float = SIGMA) -> ConstantStep:
    return ConstantStep(dw_min=STEP, dw_min_std=sigma, w_max=1.0, w_min=-1.0, **QUIET)


def test_nothing_clips() -> None:
    """The premise of this file: nothing clips, neither weights nor probabilities."""
    c = Crosspoints.unpack(reference.construct(constant(), 2, 2))
    for bl in (5, 10, 31):
        sample = law(bl)
        assert sample.p_x.max() < 1
        assert sample.p_d.max() < 1
        assert torch.allclose(sample.p_d[:, None] * sample.p_x, sample.p)
        assert (bl * STEP * (1 + 5 * SIGMA) < c.hi).all()


# ---- one crosspoint ----


@fidelities
@lengths
def test_mean_and_variance(bl: int, fidelity: str) -> None:
    sample = law(bl)
    steps = repeated(constant(), sample, fidelity, REPEATS) / STEP
    mean = -sample.lr * sample.d[:, None] * sample.x / STEP  # E[dW] = -lr d x
    p, s2 = sample.p, SIGMA**2
    m, v = bl * p, bl * p * (1 - p)
    assert torch.allclose(mean.abs(), m)
    variance = v + s2 * m
    fourth = (
        3 * v**2
        + v * (1 - 6 * p * (1 - p))
        + 6 * s2 * (v * (1 - 2 * p) + m * v)
        + 3 * s2**2 * (v + m**2)
    )
    error = (steps.mean(0) - mean) / (variance / REPEATS).sqrt()
    assert error.abs().max() < 5
    spread = ((fourth - variance**2 * (REPEATS - 3) / (REPEATS - 1)) / REPEATS).sqrt()
    assert ((steps.var(0) - variance) / spread).abs().max() < 5
    # 300 correlated errors: their mean square is near 1
    assert 0.5 < (error**2).mean() < 2


@fidelities
def test_noise_alone(fidelity: str) -> None:
    """Every line fires in all 31 slots: dw (31 + sigma sqrt(31) xi), independent crosspoints.

    Of 150,000 normals: 5 standard errors of mean, variance and fourth moment.
    """
    sample = Law(torch.ones(COLS).double(), -torch.ones(ROWS).double(), 31 * STEP, 31)
    steps = repeated(constant(), sample, fidelity, REPEATS) / STEP
    xi = (steps - 31) / (SIGMA * math.sqrt(31))
    root = math.sqrt(xi.numel())
    assert abs(xi.mean()) < 5 / root
    assert abs((xi**2).mean() - 1) < 5 * math.sqrt(2) / root
    assert abs((xi**4).mean() - 3) < 5 * math.sqrt(96) / root
    assert abs((xi[:, :, 1:] * xi[:, :, :-1]).mean()) < 5 / root
    assert abs((xi[:, 1:] * xi[:, :-1]).mean()) < 5 / root
    assert abs((xi[1:] * xi[:-1]).mean()) < 5 / root


@fidelities
def test_counts_are_binomial(fidelity: str) -> None:
    """Without noise the histogram of counts is the binomial law, BL = 5."""
    sample = law(5)
    counts = (repeated(constant(0.0), sample, fidelity, REPEATS) / STEP).abs().round()
    for n in range(6):
        p = math.comb(5, n) * sample.p**n * (1 - sample.p) ** (5 - n)
        error = (counts == n).double().mean(0) - p
        # a rare count is Poisson: one more event than 5 standard errors
        assert (error.abs() <= 5 * (p * (1 - p) / REPEATS).sqrt() + 1 / REPEATS).all()


def test_small_inputs_are_not_lost() -> None:
    """p = 5e-6 is a third of 2^-16: 4,095 such columns fire 31 x 500 x p each on average."""
    x = torch.full((4096,), 5e-6).double()
    x[0] = 1.0
    sample = Law(x, torch.ones(1).double(), 31 * STEP, 31)
    steps = repeated(constant(0.0), sample, "exact", REPEATS) / STEP
    assert (steps[:, 0, 0] == -31).all()
    count, expected = -steps[:, 0, 1:].sum(), 31 * REPEATS * 4095 * 5e-6
    assert abs(count - expected) < 5 * math.sqrt(expected)


@pytest.mark.parametrize("additive", [False, True])
def test_expected_is_the_mean_of_exact(additive: bool) -> None:
    device = SoftBounds(
        dw_min=STEP, dw_min_std=SIGMA, mult_noise=not additive, w_max=0.75, w_min=-0.5, **QUIET
    )
    steps = repeated(device, law(10), "exact", REPEATS, weight=0.25)
    expected = repeated(device, law(10), "expected", 1, weight=0.25)[0]
    error = (steps.mean(0) - expected) / (steps.std(0) / math.sqrt(REPEATS))
    assert error.abs().max() < 5


# ---- shared trains ----


@fidelities
@lengths
def test_coincidences_correlate_along_rows_and_columns(bl: int, fidelity: str) -> None:
    repeats = 2000
    sample = law(bl)
    steps = repeated(constant(), sample, fidelity, repeats).abs() / STEP
    centred = steps - bl * sample.p

    def check(a: Tensor, b: Tensor, covariance: Tensor | float) -> None:
        product = a * b
        error = (product.mean(0) - covariance) / (product.std(0) / math.sqrt(repeats))
        assert error.abs().max() < 5.5

    p_x, p_d = sample.p_x, sample.p_d[:, None]
    for lag in (1, 2, 16):
        shared = bl * p_x[lag:] * p_x[:-lag] * p_d * (1 - p_d)
        check(centred[:, :, lag:], centred[:, :, :-lag], shared)
    for lag in (1, 4):
        shared = bl * p_d[lag:] * p_d[:-lag] * p_x * (1 - p_x)
        check(centred[:, lag:], centred[:, :-lag], shared)
    check(centred[:, 1:, 1:], centred[:, :-1, :-1], 0.0)


def row_variance(sample: Law, sigma: float) -> tuple[Tensor, Tensor]:
    """Variance of sum_j |step_ij|: with shared trains, and if crosspoints were independent."""
    p, bl = sample.p, sample.bl
    p_x, p_d = sample.p_x, sample.p_d
    alone = (bl * p * (1 - p) + sigma**2 * bl * p).sum(1)
    pairs = p_x.sum() ** 2 - (p_x**2).sum()
    return alone + bl * p_d * (1 - p_d) * pairs, alone


@lengths
def test_row_sums_vary_as_shared_trains_do(bl: int) -> None:
    """exact == strict == the law, and many times what independent crosspoints would give.

    Row sums are nearly normal: 5 sqrt(2/R) relative, and a row of excess kurtosis below 1 adds
    less than a fifth: 6 sqrt(2/R).
    """
    repeats = 2000
    sample = law(bl)
    shared, alone = row_variance(sample, SIGMA)
    slack = 6 * math.sqrt(2 / repeats)
    variances = {}
    for fidelity in ("exact", "strict"):
        steps = repeated(constant(), sample, fidelity, repeats).abs() / STEP
        variances[fidelity] = steps.sum(2).var(0)
        assert (variances[fidelity] / shared - 1).abs().max() < slack
    assert (variances["exact"] / variances["strict"] - 1).abs().max() < slack
    assert (shared / alone).max() > 5


def test_relaxation_of_exact_against_strict() -> None:
    """SoftBounds, 100 samples at BL 10, noise off: the same trains, steps taken once per sample.

    Slope and spread agree within .3 % (physics.md section 5).
    """
    g = torch.Generator().manual_seed(0)
    x, d = torch.rand(100, 65, generator=g), -torch.rand(100, 33, generator=g)
    device = SoftBounds(dw_min=0.001, dw_min_std=0.0)
    stored = reference.construct(device, 33, 65)
    moved = {}
    for fidelity in ("exact", "strict"):
        w = torch.zeros(33, 65)
        rest = (x, d, device, UpdateConfig(10, fidelity=fidelity), 0.005, (0, 0, 0))
        ops.update_(*update_arguments(w, stored, *rest))
        moved[fidelity] = w.double()
    exact, strict = moved["exact"], moved["strict"]
    assert strict.mean() > 0.05  # 8 % of the range and more
    assert abs(exact.mean() / strict.mean() - 1) < 0.003
    assert abs(exact.std() / strict.std() - 1) < 0.003
    assert not torch.equal(exact, strict)


# ---- a published device ----

RERAM_ES: dict[str, Any] = {  # physics.md section 3; write noise is not modelled
    "dw_min": 0.00135,
    "dw_min_dtod": 0.2,
    "dw_min_std": 5.0,
    "up_down": 0.259359,
    "up_down_dtod": 0.05,
    "w_max": 1.0,
    "w_min": -1.0,
    "a_up": -1.18445,
    "a_down": -0.081404,
    "gamma_up": 5.0,
    "gamma_down": 5.0,
    "a": -0.5,
    "b": -0.5,
}
GOLDEN_UP, GOLDEN_DOWN = 0.0014813, 0.0019914


def test_reram_golden_steps() -> None:
    """Five digits from the unrounded formula; one pulse within the rounding to bf16 (2^-8)."""
    device = ExpStep(**RERAM_ES)
    up, down = device.nominal_steps()
    assert (round(up, 7), round(down, 7)) == (GOLDEN_UP, GOLDEN_DOWN)
    silent = ExpStep(**{**RERAM_ES, **QUIET, "dw_min_std": 0.0})
    one = Law(torch.ones(3).double(), torch.ones(2).double(), silent.granularity, 1)
    for d, golden in ((-1.0, GOLDEN_UP), (1.0, -GOLDEN_DOWN)):
        pulse = one._replace(d=one.d * d, lr=STEP)  # k = 1: every line fires once
        steps = repeated(silent, pulse, "strict", 1)
        assert (steps / golden - 1).abs().max() < 2**-8


def test_reram_population() -> None:
    """Mean and spread of the first pulse over 8,192 crosspoints, 5 standard errors.

    up = golden (1 + .2 xi + .05 xi'): relative spread .2062, positive at 4.8 sigma. Down has the
    same spread over .7406. With sigma 5 the mean stays and the variance gains 25 E[step^2].
    """
    count = 64 * 128
    for sigma in (0.0, 5.0):
        device = ExpStep(**{**RERAM_ES, "dw_min_std": sigma})
        for sign, golden, spread in (
            (-1.0, GOLDEN_UP, math.hypot(0.2, 0.05)),
            (1.0, -GOLDEN_DOWN, math.hypot(0.2, 0.05) / 0.740641),
        ):
            ones = torch.ones(128).double(), torch.full((64,), sign).double()
            steps = repeated(device, Law(*ones, STEP, 1), "strict", 1)[0] / golden
            variance = spread**2 + sigma**2 * (1 + spread**2)
            assert abs(steps.mean() - 1) < 5 * math.sqrt(variance / count)
            # products of normals: kurtosis below 9 / 3 of a normal's, so sqrt(8/N) for the variance
            assert abs(steps.var() / variance - 1) < 5 * math.sqrt(8 / count)

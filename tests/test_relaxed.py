"""The updates that forget the order of pulses: equal bits of reference, every instruction set, 1
and 2 threads; the rule of groups; closed forms of noise-free pulses. Statistics: the file beside.

One group of n pulses of one direction on an affine device, f the step at w, slope l, B = n l:

    w_n = w + n f psi,    psi = ((1 + l)^n - 1) / (n l)            in exact arithmetic
    w_n = w + n f phi (1 - l phi / 2),    phi = (e^B - 1) / B      what the method aims at

Both agree to second order in n and l together; psi falls short by l^2/3 of itself at small B and
by |l| B^2/24 at B of order 1 (checked on a grid below). The kernel takes phi from a series,
relative error B^4/120/phi < B^4/90 up to |B| = 1/2, and as 1 / D, D = 1 - B/2 + B^2/12, beyond:
B/2 coth(B/2) is enveloped by its series, so D errs by at most B^4/720 and the move by
B^4/(720 D), relative.
Rounding, u = 2^-24: step, counts, sums and phi take ten operations on relative terms, the last sum
one on w: less than u (|w| + |w_n| + 12 |w_n - w|). Later groups contract earlier errors.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from conftest import Kernels
from device_cases import LAST, QUIET, SILENT
from operators import update_arguments
from pulseline import ops, reference
from pulseline.configs import UpdateConfig
from pulseline.devices import ConstantStep, ExpStep, LinearStep, SoftBounds
from pulseline.reference import Crosspoints
from pulseline.reference.relax import group_sizes
from pulseline.reference.rng import Stream
from pulseline.reference.trains import Train, manage, sample_trains
from test_update import (
    MODELS,
    SEED,
    TILE_ID,
    K,
    Problem,
    bits,
    closed_form,
    problem,
    pulses,
)

FIDELITIES = ("grouped", "moments")
fidelities = pytest.mark.parametrize("fidelity", FIDELITIES)
AFFINE = {name: device for name, device in SILENT.items() if device.affine}
SIZES = (0, 1, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 129, 257)
BATCHES = (3, 70, 1, 2, 64, 40, 33, 5, 31, 0, 13, 65, 7, 32)
SHAPES = [
    (rows, SIZES[(n + 7) % len(SIZES)], batch)
    for n, (rows, batch) in enumerate(zip(SIZES, BATCHES, strict=True))
]
U = 2.0**-24


def kernel(p: Problem) -> Tensor:
    """Run the kernels in use: one call, with what only groups need."""
    w = p.weight.clone()
    rest = (p.x, p.d, p.device, p.config, p.lr, (SEED, TILE_ID, K))
    ops.update_(*update_arguments(w, p.stored, *rest))
    return w


def check(kernels: Kernels, p: Problem) -> Tensor:
    """Reference == every instruction set, 1 and 2 threads; returns the new weights."""
    expected = p.reference()
    for isa, threads in kernels.each():
        wrong = int((bits(kernel(p)) != bits(expected)).sum())
        assert wrong == 0, f"{isa}, {threads} threads: {wrong} differ"
    return expected


def sizes(p: Problem) -> list[int]:
    """Samples of each group."""
    x, d = p.x.abs().amax(1), p.d.abs().amax(1)
    return group_sizes(x, d, p.device, p.config, p.lr)


# ---- equal bits ----


@fidelities
@pytest.mark.parametrize(("rows", "cols", "batch"), SHAPES)
def test_sizes(kernels: Kernels, rows: int, cols: int, batch: int, fidelity: str) -> None:
    models = list(MODELS.values())
    device = models[(SIZES.index(rows) + 4 * FIDELITIES.index(fidelity)) % len(models)]
    p = problem(rows, cols, batch, device, fidelity)
    after = check(kernels, p)
    assert after.shape == (rows, cols)
    assert batch < 5 or rows * cols == 0 or not torch.equal(after, p.weight)


@fidelities
@pytest.mark.parametrize("model", MODELS)
def test_models(kernels: Kernels, model: str, fidelity: str) -> None:
    """Every model; 204,750 crosspoint samples, so that two threads share the rows."""
    p = problem(70, 65, 45, MODELS[model], fidelity)
    after = check(kernels, p)
    c = Crosspoints.unpack(p.stored)
    assert ((after >= c.lo) & (after <= c.hi)).all()
    assert (after != p.weight).float().mean() > 0.5


@fidelities
@pytest.mark.parametrize("batch", [255, 256, 257, 300])
def test_more_samples_than_a_group(kernels: Kernels, batch: int, fidelity: str) -> None:
    p = problem(3, 33, batch, MODELS["SoftBounds"], fidelity, lr=2e-4)
    assert len(sizes(p)) == (1 if batch <= 256 else 2)
    check(kernels, p)


@fidelities
@pytest.mark.parametrize(("desired_bl", "batch"), [(32, 9), (62, 9), (63, 9), (150, 9), (70, 300)])
def test_long_trains(kernels: Kernels, desired_bl: int, batch: int, fidelity: str) -> None:
    """Words that are sub-samples of their own; 256 samples of 3 exceed the slice of 512."""
    settings = {"desired_bl": desired_bl, "update_bl_management": False}
    p = problem(5, 17, batch, MODELS["SoftBounds"], fidelity, lr=5e-5, **settings)
    assert sizes(p) == ([256, 44] if batch == 300 else [9])
    check(kernels, p)


@pytest.mark.parametrize("lr", [2e-4, 0.02])
@pytest.mark.parametrize("group_size", [1, 7, 0])
def test_group_sizes(kernels: Kernels, group_size: int, lr: float) -> None:
    p = problem(17, 40, 30, MODELS["SoftBounds"], "grouped", lr, group_size=group_size)
    full = group_size or 30
    rest = [30 % full] if 30 % full else []
    assert lr > 0.001 or sizes(p) == [full] * (30 // full) + rest
    check(kernels, p)


@fidelities
@pytest.mark.parametrize("density", [0.02, 1.0])
@pytest.mark.parametrize("desired_bl", [1, 3, 31])
def test_densities(kernels: Kernels, density: float, desired_bl: int, fidelity: str) -> None:
    """Words are laid out by measured density; the bits are the same."""
    p = problem(33, 65, 40, MODELS["SoftBounds"], fidelity, 0.02, desired_bl=desired_bl)
    g = torch.Generator().manual_seed(desired_bl)
    x, d = p.x + 0.1, p.d + 0.01
    if density < 1:
        x, d = (v * (torch.rand(v.shape, generator=g) < density**0.5) for v in (p.x, p.d))
    check(kernels, p._replace(x=x, d=d))


@fidelities
def test_silent_samples(kernels: Kernels, fidelity: str) -> None:
    """The noise of a group belongs to its first sample, silent or not; silent groups draw none."""
    p = problem(9, 33, 20, MODELS["SoftBounds"], fidelity, 2e-4, group_size=7)
    p.x[[0, 7, 8]] = 0
    p.d[14:] = 0
    assert fidelity == "moments" or sizes(p) == [7, 7, 6]
    assert not torch.equal(check(kernels, p), p.weight)
    silent = p._replace(x=torch.zeros_like(p.x))
    assert torch.equal(bits(check(kernels, silent)), bits(p.weight))


# ---- the rule of groups ----


def test_groups_close_before_they_travel_too_far() -> None:
    """k of every sample is 1 and a = .001 / 1.2, so 359 samples would fit; 256 may."""
    device = SoftBounds()
    one = torch.ones(600)
    for lr, group_size, answer in (
        (0.001, 0, [256, 256, 88]),
        (0.001, 7, [7] * 85 + [5]),
        (0.0101, 0, [35] * 17 + [5]),  # 35 x 10.1 a = .295
        (0.0101, 20, [20] * 30),
        (0.37, 0, [1] * 600),  # a single sample may exceed the rule
    ):
        config = UpdateConfig(fidelity="grouped", group_size=group_size)
        assert group_sizes(one, one, device, config, lr) == answer
        moments = dataclasses.replace(config, fidelity="moments")
        assert group_sizes(one, one, device, moments, lr) == [256, 256, 88]


# ---- what is not pulsed stays, what is pulsed stays within its bounds ----


@fidelities
@pytest.mark.parametrize("model", MODELS)
def test_untouched_crosspoints_keep_their_bits(isa: str, model: str, fidelity: str) -> None:
    """n = 0: A + B w, B and the variance are sums of products with 0, exactly 0; the quotient is 0,
    the sum w, the clip w. Weights at and between the bounds, in touched blocks and others."""
    p = problem(5, 70, 30, MODELS[model], fidelity)
    c = Crosspoints.unpack(p.stored)
    p.weight[:, ::3], p.weight[:, 1::3] = (c.hi + 0.0)[:, ::3], (c.lo + 0.0)[:, 1::3]
    touched = torch.zeros(5, 70, dtype=torch.bool)
    touched[[[1], [4]], [3, 40]] = True
    x, d = p.x * touched[1], p.d * touched[:, 3]
    after = kernel(p._replace(x=x, d=d))
    assert torch.equal(bits(after)[~touched], bits(p.weight)[~touched])
    assert (after != p.weight)[touched].any()


@fidelities
@pytest.mark.parametrize("model", LAST)
def test_bounds_hold_under_noise(isa: str, model: str, fidelity: str) -> None:
    device = dataclasses.replace(LAST[model], dw_min=0.02, dw_min_std=5.0)
    p = problem(17, 65, 40, device, fidelity, lr=0.5)
    c = Crosspoints.unpack(p.stored)
    after = kernel(p)
    assert ((after >= c.lo) & (after <= c.hi)).all()


@fidelities
def test_signs(isa: str, fidelity: str) -> None:
    """Equal signs of x and d lower the weight, opposite signs raise it, zero moves nothing."""
    device = SoftBounds(dw_min_std=0.0, dw_min_dtod=0.0)
    stored = reference.construct(device, 3, 3, SEED, TILE_ID)
    signs = torch.tensor([[1.0, -1.0, 0.0]])
    config = UpdateConfig(fidelity=fidelity)
    p = Problem(torch.zeros(3, 3), stored, signs, signs, device, config, 0.02)
    assert torch.equal(kernel(p).sign(), -signs.t() * signs)


# ---- closed forms ----


def rates(p: Problem, up: bool) -> tuple[Tensor, Tensor]:
    """Step and slope of every crosspoint in one direction, float64."""
    c = Crosspoints.of(p.device, p.stored)
    step, slope = (c.up, c.slope_up) if up else (c.down, c.slope_down)
    return step.double(), slope.double()


def slack(p: Problem, n: int, up: bool) -> Tensor:
    """The bound in this file's header, summed over the groups of n single pulses."""
    step, slope = rates(p, up)
    total = torch.zeros_like(step)
    done = 0
    for size in sizes(p):
        w, later = closed_form(p, done, up), closed_form(p, done + size, up)
        b = size * slope
        phi = torch.where(b.abs() <= 0.5, b**4 / 90, b**4 / (720 * (1 - b / 2 + b**2 / 12)))
        method = slope**2 / 3 + slope.abs() * b**2 / 24
        total += (method + phi) * (later - w).abs()
        total += U * (w.abs() + later.abs() + 12 * (later - w).abs())
        done += size
    assert done == n
    return total


def test_the_method_and_its_stated_error() -> None:
    """The header's claim about psi, in double precision, without any kernel."""
    slope = -torch.logspace(-4, -0.3, 60).double()[:, None]
    n = torch.arange(1, 2000)[None].double()
    b = slope * n
    psi, phi = torch.expm1(n * torch.log1p(slope)) / b, torch.expm1(b) / b
    error = (phi * (1 - slope * phi / 2) / psi - 1).abs()
    near = b.abs() <= 4
    assert (error <= slope**2 / 3 + slope.abs() * b**2 / 24 + 1e-12)[near].all()
    assert (error[:, 0] > slope[:, 0] ** 2 / 5).all()


@fidelities
@pytest.mark.parametrize("up", [True, False])
@pytest.mark.parametrize("n", [1, 31, 200, 620])
@pytest.mark.parametrize("model", AFFINE)
def test_one_direction_follows_the_closed_form(model: str, n: int, up: bool, fidelity: str) -> None:
    """620 pulses are 3 groups."""
    p = pulses(SILENT[model], n, up, fidelity)
    expected, got = closed_form(p, n, up), kernel(p)
    c = Crosspoints.unpack(p.stored)
    free = p.weight < c.hi if up else p.weight > c.lo
    assert ((got - p.weight).sign() == (1 if up else -1))[free].float().mean() > 0.95
    bound = slack(p, n, up)
    assert ((got.double() - expected).abs() <= bound).all()
    assert isinstance(p.device, ConstantStep) or n > 31 or bound.median() < 3 * U


@pytest.mark.parametrize("up", [True, False])
@pytest.mark.parametrize("group_size", [1, 7])
def test_small_groups_follow_the_closed_form(group_size: int, up: bool) -> None:
    p = pulses(SILENT["SoftBounds"], 200, up, "grouped")
    p = p._replace(config=dataclasses.replace(p.config, group_size=group_size))
    assert ((kernel(p).double() - closed_form(p, 200, up)).abs() <= slack(p, 200, up)).all()


@pytest.mark.parametrize("n", [1, 2, 4])
@pytest.mark.parametrize("dw_min", [0.05, 0.2, 0.35])
def test_steep_slopes(dw_min: float, n: int) -> None:
    """Slopes down to -.6, where the error of the method is what shows."""
    device = SoftBounds(
        dw_min=dw_min, dw_min_dtod=0, dw_min_std=0, up_down_dtod=0, w_max_dtod=0, w_min_dtod=0
    )
    p = pulses(device, n, True, "moments")
    error = (kernel(p).double() - closed_form(p, n, True)).abs()
    assert (error <= slack(p, n, True)).all()
    if dw_min == 0.35:
        assert (error > 100 * U).all()


@fidelities
@pytest.mark.parametrize("up", [True, False])
@pytest.mark.parametrize("n", [1, 31, 100])
def test_exponential_steps(n: int, up: bool, fidelity: str) -> None:
    """f = s (1 - E) with E = A e^(+-g z), whose logarithm has slope r = 2 a g / (hi - lo) in w.

    The flow replaces single pulses: relative error |f'|/2 < s r/2. The step is of second order: it
    errs by f'' f n^2 / 24 < (n s r)^2 / 96. Twice both for the orders left out, and the rounding.
    """
    p = pulses(ExpStep(**QUIET), n, up, fidelity)
    e, c = p.device, Crosspoints.unpack(p.stored)
    r = 2 * e.a * (e.gamma_up if up else e.gamma_down) / (c.hi - c.lo).double()
    step = rates(p, up)[0].abs()
    expected = closed_form(p, n, up)
    relative = 2 * (step * r / 2 + (n * step * r) ** 2 / 96)
    bound = relative * (expected - p.weight).abs() + (n + 9) * U
    assert relative.median() < 0.02
    assert ((kernel(p).double() - expected).abs() <= bound).all()


def order_average(w: Tensor, up: int, down: int, step: float, slope: float) -> Tensor:
    """Mean weight over all orders of ``up`` and ``down`` pulses, by the last pulse of each order.

    Steps are affine, so the mean after a pulse is the pulse of the mean, and affine in w.
    """
    row: list[tuple[float, float]] = []  # means gain w + offset after (i, 0), (i, 1), ... pulses
    for i in range(up + 1):
        above, row = row, []
        for j in range(down + 1):
            terms = []
            if i:
                terms.append((i, step, above[j]))
            if j:
                terms.append((j, -step, row[j - 1]))
            gain = sum(n * (1 - slope) * m[0] for n, _, m in terms) / max(i + j, 1)
            offset = sum(n * ((1 - slope) * m[1] + s) for n, s, m in terms) / max(i + j, 1)
            row.append((gain, offset) if terms else (1.0, 0.0))
    return row[down][0] * w.double() + row[down][1]


@fidelities
def test_mixed_directions_against_the_average_order(fidelity: str) -> None:
    """300 up and 100 down at slope .002 in one group, from w = 0: within .1 step.

    Further from the fixed point the error of D (header) shows: B = -.78, up to .16 of 420 steps.
    """
    still: dict[str, Any] = {"gamma_up_dtod": 0, "gamma_down_dtod": 0, "up_down_dtod": 0}
    still |= {"dw_min_dtod": 0, "dw_min_std": 0, "w_max_dtod": 0, "w_min_dtod": 0}
    step = 2.0**-10  # with its slope a bf16 number
    device = LinearStep(dw_min=step, w_max=1.0, w_min=-1.0, gamma_up=2, gamma_down=2, **still)
    x, d = torch.ones(20, 33), torch.ones(20, 1)
    d[torch.randperm(20, generator=torch.Generator().manual_seed(0))[:15]] = -1
    weight = torch.linspace(-0.5, 0.5, 33)[None]
    config = UpdateConfig(20, True, False, False, fidelity)  # 20 slots a sample, all fire
    stored = reference.construct(device, 1, 33)
    p = Problem(weight, stored, x, d, device, config, 20 * step * 1.001)
    assert sizes(p) == [20]
    expected = order_average(weight, 300, 100, step, 2 * step)
    error = (kernel(p) - expected).abs()
    assert error[0, 16] < 0.1 * step
    b = 400 * math.log1p(-2 * step)
    truncation = (expected - weight).abs() * b**4 / (720 * (1 - b / 2 + b**2 / 12))
    assert (error < truncation + 0.02 * step).all()


@pytest.mark.parametrize("model", AFFINE)
def test_groups_of_one_are_close_to_exact(model: str) -> None:
    """Same trains, no noise. A sample of n pulses: n f in ``exact``, f ((1 + l)^n - 1) / l here, at
    most f |l| n (n - 1) / 2 apart; both contract what came before."""
    p = problem(12, 33, 60, SILENT[model], "grouped", 0.005, group_size=1)
    exact = p._replace(config=dataclasses.replace(p.config, fidelity="exact")).kernel()
    x_max, d_max = p.x.abs().amax(1), p.d.abs().amax(1)
    train = manage(x_max, d_max, p.lr, p.device.granularity, p.config)
    bound, most = torch.zeros(12, 33).double(), torch.zeros(())
    (up, slope_up), (down, slope_down) = rates(p, True), rates(p, False)
    c = Crosspoints.unpack(p.stored)
    f = torch.maximum(up + slope_up * c.lo, -down - slope_down * c.hi)  # at the far bounds
    slope = torch.minimum(slope_up, slope_down).abs()
    for b in range(60):
        one = Train(*(v[b] for v in train))
        for fires_x, fires_d in sample_trains(p.x[b], p.d[b], one, Stream(SEED, TILE_ID), K + b):
            n = fires_d.double().t() @ fires_x.double()
            bound += f * slope * n * (n - 1) / 2
            most = torch.maximum(most, n.max())
    assert most > 5
    assert ((kernel(p) - exact).abs() <= bound + 60 * 4 * U).all()
    assert (slope == 0).all() or not torch.equal(kernel(p), exact)

"""The update: equal bits of reference, every instruction set, 1 and 2 threads, and any cut of a
batch; closed forms of noise-free pulses; bounds, signs and refusals.

Closed forms and their slack: closed_forms.py. Models, with all their kinds of noise: the examples
of every dataclass.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

import closed_forms
from conftest import Kernels
from device_cases import EXAMPLES, QUIET, SILENT
from operators import update_arguments
from pulseline import ops, reference
from pulseline.configs import UpdateConfig
from pulseline.devices import ConstantStep, Ideal, LinearStep, SoftBounds
from pulseline.errors import ConfigError
from pulseline.reference import Crosspoints, Stored

SEED, TILE_ID, K = 0x123456789ABC, 5, 2**32 - 20  # k crosses 32 bits inside a batch
MODELS: dict[str, Any] = {
    **EXAMPLES,
    # Additive noise of no size: its branch without its draws.
    "LinearStep-silent": LinearStep(gamma_up=0.2, mult_noise=False, dw_min_std=0.0),
}
FIDELITIES = ("exact", "strict", "expected")
# Each size once per axis, small beside large; a call of fewer than 200,000 crosspoint samples runs
# on one thread whatever is asked, so large products take large batches.
SIZES = (0, 1, 15, 16, 17, 31, 32, 33, 127, 128, 129, 255, 256, 257)
BATCHES = (3, 70, 1, 2, 64, 40, 33, 5, 31, 0, 47, 65, 63, 32)
SHAPES = [
    (rows, SIZES[(n + 7) % len(SIZES)], batch)
    for n, (rows, batch) in enumerate(zip(SIZES, BATCHES, strict=True))
]


class Problem(NamedTuple):
    """What one update call needs."""

    weight: Tensor
    stored: Stored
    x: Tensor
    d: Tensor
    device: Any
    config: UpdateConfig
    lr: float

    def kernel(self, cuts: tuple[int, ...] = ()) -> Tensor:
        """Run the kernels in use, the batch cut after these samples."""
        w = self.weight.clone()
        edges = (0, *cuts, len(self.x))
        for first, last in itertools.pairwise(edges):
            key = (SEED, TILE_ID, K + first)
            pair = (self.x[first:last], self.d[first:last])
            rest = (self.device, self.config, self.lr, key)
            ops.update_(*update_arguments(w, self.stored, *pair, *rest))
        return w

    def reference(self) -> Tensor:
        arguments = (self.weight, self.stored, self.x, self.d, self.device, self.config)
        return reference.update(*arguments, lr=self.lr, seed=SEED, tile_id=TILE_ID, k=K)


def problem(
    rows: int,
    cols: int,
    batch: int,
    device: Any,
    fidelity: str = "exact",
    lr: float = 0.02,
    **config: Any,
) -> Problem:
    """Samples of very different size, some lines and one whole sample zero; weights in bounds."""
    g = torch.Generator().manual_seed(1000 * rows + cols)
    x, d = torch.randn(batch, cols, generator=g), torch.randn(batch, rows, generator=g)
    x *= (torch.rand(batch, cols, generator=g) > 0.2) * 10 ** (torch.rand(batch, 1, generator=g))
    d *= (torch.rand(batch, rows, generator=g) > 0.1) * 10 ** -(
        2 * torch.rand(batch, 1, generator=g)
    )
    if batch > 3:
        x[1], d[2], x[3, : cols // 2] = 0, 0, -0.0
    stored = reference.construct(device, rows, cols, SEED, TILE_ID)
    c = Crosspoints.unpack(stored)
    weight = c.lo + (c.hi - c.lo) * torch.rand(rows, cols, generator=g) + 0.0
    return Problem(weight, stored, x, d, device, UpdateConfig(fidelity=fidelity, **config), lr)


def bits(t: Tensor) -> Tensor:
    return t.view(torch.int32)


def check(kernels: Kernels, p: Problem) -> Tensor:
    """Reference == every ISA, 1 and 2 threads, whole and in pieces; returns the new weights."""
    expected = p.reference()
    batch = len(p.x)
    cuts = tuple(sorted({n for n in (1, 2, 7, batch // 2, batch - 1) if 0 < n < batch}))
    for isa, threads in kernels.each():
        for pieces in ((), cuts):
            got = p.kernel(pieces)
            wrong = int((bits(got) != bits(expected)).sum())
            assert wrong == 0, f"{isa}, {threads} threads, cut at {pieces}: {wrong} differ"
    return expected


# ---- equal bits ----


@pytest.mark.parametrize("fidelity", FIDELITIES)
@pytest.mark.parametrize(("rows", "cols", "batch"), SHAPES)
def test_sizes(kernels: Kernels, rows: int, cols: int, batch: int, fidelity: str) -> None:
    models = list(MODELS.values())
    device = models[(SIZES.index(rows) + 3 * FIDELITIES.index(fidelity)) % len(models)]
    batch = min(batch, 12) if fidelity == "strict" and rows * cols > 4000 else batch
    p = problem(rows, cols, batch, device, fidelity)
    after = check(kernels, p)
    assert after.shape == (rows, cols)
    assert batch < 5 or rows * cols == 0 or not torch.equal(after, p.weight)


@pytest.mark.parametrize("fidelity", FIDELITIES)
@pytest.mark.parametrize("model", MODELS)
def test_models(kernels: Kernels, model: str, fidelity: str) -> None:
    """Every model in every fidelity; two threads share the rows."""
    batch = 8 if fidelity == "strict" else 70
    p = problem(70, 65, batch, MODELS[model], fidelity)
    after = check(kernels, p)
    c = Crosspoints.unpack(p.stored)
    assert ((after >= c.lo) & (after <= c.hi)).all()
    assert (after != p.weight).float().mean() > 0.5


def test_strict_with_threads(kernels: Kernels) -> None:
    check(kernels, problem(129, 65, 30, MODELS["SoftBounds"], "strict", lr=0.004))


def test_more_samples_than_a_slice(kernels: Kernels) -> None:
    """Trains are drawn for 512 sub-samples at a time; wide matrices are walked in strips."""
    check(kernels, problem(3, 257, 600, MODELS["SoftBounds"], "exact"))
    check(kernels, problem(5, 33, 520, MODELS["LinearStep-1"], "strict", lr=1e-4))


@pytest.mark.parametrize("fidelity", ["exact", "strict"])
@pytest.mark.parametrize("desired_bl", [31, 32, 62, 63, 150])
def test_long_trains(kernels: Kernels, fidelity: str, desired_bl: int) -> None:
    """More than 31 slots: words that are sub-samples of their own."""
    check(
        kernels, problem(17, 40, 9, MODELS["SoftBounds"], fidelity, lr=0.5, desired_bl=desired_bl)
    )
    # 9 samples of up to 125 words each cross the slice of 512 inside a sample
    if desired_bl == 150 and fidelity == "exact":
        check(kernels, problem(3, 5, 9, MODELS["SoftBounds"], fidelity, lr=20.0, desired_bl=3875))


@pytest.mark.parametrize("management", [False, True])
@pytest.mark.parametrize("bl_management", [False, True])
@pytest.mark.parametrize("fixed_bl", [False, True])
@pytest.mark.parametrize("lr", [0.01, 0.08])
def test_management(
    kernels: Kernels, management: bool, bl_management: bool, fixed_bl: bool, lr: float
) -> None:
    """Both managements on and off, with a learning rate below and above what BL slots can do."""
    settings: dict[str, Any] = {
        "update_management": management,
        "update_bl_management": bl_management,
        "fixed_bl": fixed_bl,
    }
    check(kernels, problem(17, 35, 12, MODELS["SoftBounds"], "exact", lr=lr, **settings))


@pytest.mark.parametrize("fidelity", ["exact", "strict"])
def test_clipped_probabilities(kernels: Kernels, fidelity: str) -> None:
    """A learning rate so large that lines fire in every slot and weights reach their bounds."""
    p = problem(17, 35, 12, MODELS["ConstantStep"], fidelity, lr=50.0)
    after = check(kernels, p)
    c = Crosspoints.unpack(p.stored)
    assert ((after == c.lo) | (after == c.hi)).any()


def test_draws_depend_on_seed_tile_and_counter() -> None:
    p = problem(9, 33, 8, MODELS["SoftBounds"])
    arguments = (p.weight, p.stored, p.x, p.d, p.device, p.config)
    keys = [(1, 2, 3), (2, 2, 3), (1, 3, 3), (1, 2, 4)]
    results = [reference.update(*arguments, lr=p.lr, seed=s, tile_id=t, k=k) for s, t, k in keys]
    for n, a in enumerate(results):
        for b in results[n + 1 :]:
            assert not torch.equal(a, b)


# ---- closed forms of noise-free pulses ----


def pulses(device: Any, n: int, up: bool, fidelity: str, weight: float = 0.1) -> Problem:
    """n pulses of one sign at every crosspoint: all probabilities are 1.

    ``strict`` fires 31 slots a sample, ``exact`` one, so n must be a multiple of 31 for strict.
    """
    bl = 31 if fidelity == "strict" else 1
    assert n % bl == 0
    stored = reference.construct(device, 16, 33, SEED, TILE_ID)
    c = Crosspoints.unpack(stored)
    w = torch.minimum(torch.maximum(torch.full((16, 33), weight), c.lo), c.hi)
    x, d = torch.ones(n // bl, 33), torch.full((n // bl, 16), -1.0 if up else 1.0)
    config = UpdateConfig(bl, True, False, False, fidelity)
    return Problem(w, stored, x, d, device, config, bl * device.granularity * 1.001)


def closed_form(p: Problem, n: int, up: bool) -> Tensor:
    """Weights after n pulses in float64, from the stored values."""
    c = Crosspoints.of(p.device, p.stored)
    return closed_forms.closed_form(p.device, c, p.weight, n, up)[0]


@pytest.mark.parametrize("fidelity", ["strict", "exact"])
@pytest.mark.parametrize("up", [True, False])
@pytest.mark.parametrize("n", [31, 310, 3100])
@pytest.mark.parametrize("model", SILENT)
def test_pulses_follow_the_closed_form(model: str, n: int, up: bool, fidelity: str) -> None:
    p = pulses(SILENT[model], n, up, fidelity)
    c = Crosspoints.of(p.device, p.stored)
    expected, slack = closed_forms.closed_form(p.device, c, p.weight, n, up)
    got = p.kernel()
    free = p.weight < c.hi if up else p.weight > c.lo
    assert ((got - p.weight).sign() == (1 if up else -1))[free].float().mean() > 0.95
    assert ((got.double() - expected).abs() <= slack).all()


def test_soft_bounds_golden() -> None:
    """w_n = hi - (hi - w_0)(1 - s / hi)^n up to the rounding of the stored slope.

    The slope is within 2^-8 of s / hi, so the exponent n s / hi errs by 2^-8 of itself at most:
    the difference is below 2^-8 max(t e^-t) (hi - w_0), plus as much again where the fixed point
    lies off the bound, (hi - w_0) 2^-8 and a clip.
    """
    p = pulses(SoftBounds(**QUIET), 620, True, "strict")
    c = Crosspoints.unpack(p.stored)
    hi, w = c.hi.double(), p.weight.double()
    expected = hi - (hi - w) * (1 - c.up / hi) ** 620
    slack = 2.0**-8 * (math.exp(-1) * (hi - w) + hi)
    assert ((p.kernel() - expected).abs() <= slack + 620 * 2.0**-24).all()


@pytest.mark.parametrize("up", [True, False])
def test_fixed_points(up: bool) -> None:
    """Long trains end where the step vanishes (W/gamma of LinearStep) or at the bound.

    A step below half an ulp stalls: |slope| gap < 2^-24 for |w| < 2; 9,300 pulses of slope .005
    leave e^-46 of the distance.
    """
    quiet: dict[str, Any] = {**QUIET, "dw_min": 0.01}
    for device in (
        ConstantStep(**quiet),
        SoftBounds(**quiet),
        LinearStep(gamma_up=2.0, gamma_down=4.0, w_max_dtod=0.1, w_min_dtod=0.1, **quiet),
    ):
        p = pulses(device, 9300, up, "strict")
        c = Crosspoints.unpack(p.stored)
        expected = (c.hi if up else c.lo).double()
        slack = torch.zeros_like(expected)
        if not isinstance(device, ConstantStep):
            slope, step = (c.slope_up, c.up) if up else (c.slope_down, c.down)
            assert (slope < -0.005).all()
            fixed = -step.double() / slope
            expected = torch.where(fixed.abs() < expected.abs(), fixed, expected)
            slack = 2.0**-24 / -slope
        assert ((p.kernel() - expected).abs() <= slack).all()
        if isinstance(device, LinearStep):
            assert (expected.abs() < 0.8 * (c.hi if up else c.lo).abs()).all()


def test_constant_steps_are_exact() -> None:
    """Without noise, unclipped, n coincidences are n pulses: strict == exact, every bit.

    Steps have 8 bits and lie above 2^-12, so sums below 1 fit into the 24 bits of a weight.
    """
    device = ConstantStep(dw_min=0.001, dw_min_dtod=0.1, dw_min_std=0.0, w_max_dtod=0, w_min_dtod=0)
    p = problem(33, 65, 40, device, lr=0.01)
    p = p._replace(weight=torch.zeros_like(p.weight), x=p.x * 0.3)
    exact = p.kernel()
    strict = p._replace(config=dataclasses.replace(p.config, fidelity="strict")).kernel()
    assert exact.abs().max() < 0.5
    assert (exact != 0).float().mean() > 0.9
    assert torch.equal(bits(exact), bits(strict))


@pytest.mark.parametrize("model", SILENT)
def test_expected_update(model: str) -> None:
    """W + dW F - |dW| G (Wu et al. 2024), the response functions from the steps; one sample."""
    device = SILENT[model]
    p = problem(17, 33, 1, device, "expected", lr=5 * device.granularity)  # none is sure
    c = Crosspoints.of(device, p.stored)
    step = reference.DEVICES[device.name].step
    yes = torch.ones_like(p.weight, dtype=torch.bool)
    up, down = (step(device, c, p.weight, m).double() / device.granularity for m in (yes, ~yes))
    delta = -p.lr * p.d[0].double()[:, None] * p.x[0].double()
    moved = p.weight + delta * (up - down) / 2 - delta.abs() * (-down - up) / 2
    expected = torch.minimum(torch.maximum(moved, c.lo.double()), c.hi.double())
    # one rounding of the weight; a handful of the increment
    size = torch.maximum(p.weight.abs(), expected.abs()).clamp(min=1)
    slack = 2.0**-24 * size + 8 * 2.0**-24 * delta.abs() * torch.maximum(up, -down)
    assert ((p.kernel() - expected).abs() <= slack).all()


# ---- properties ----


@pytest.mark.parametrize("fidelity", ["exact", "strict"])
@pytest.mark.parametrize("model", MODELS)
def test_bounds_hold_under_noise(isa: str, model: str, fidelity: str) -> None:
    """Noise of five steps and a large learning rate cannot push a weight over a bound."""
    device = dataclasses.replace(MODELS[model], dw_min=0.02, dw_min_std=5.0)
    p = problem(17, 65, 40, device, fidelity, lr=0.5)
    c = Crosspoints.unpack(p.stored)
    after = p.kernel()
    assert ((after >= c.lo) & (after <= c.hi)).all()


def test_stored_weights_are_never_negative_zero(isa: str) -> None:
    """Up and down by the same step returns to +0; so does a clip at a zero bound."""
    device = ConstantStep(
        w_min=0.0, dw_min_dtod=0, dw_min_std=0, up_down_dtod=0, w_max_dtod=0, w_min_dtod=0
    )
    stored = reference.construct(device, 3, 33, SEED, TILE_ID)
    for fidelity in FIDELITIES:
        config = UpdateConfig(1, True, False, False, fidelity)
        x, d = torch.ones(3, 33), torch.tensor([[1.0], [-1.0], [1.0]]).expand(3, 3)
        p = Problem(torch.full((3, 33), -0.0), stored, x, d, device, config, device.granularity)
        assert (bits(p.kernel()) == 0).all()


@pytest.mark.parametrize("fidelity", FIDELITIES)
def test_signs(isa: str, fidelity: str) -> None:
    """Equal signs of x and d lower the weight, opposite signs raise it, zero moves nothing."""
    device = SoftBounds(dw_min_std=0.0, dw_min_dtod=0.0)
    stored = reference.construct(device, 3, 3, SEED, TILE_ID)
    signs = torch.tensor([[1.0, -1.0, 0.0]])
    config = UpdateConfig(fidelity=fidelity)
    p = Problem(torch.zeros(3, 3), stored, signs, signs, device, config, 0.02)
    assert torch.equal(p.kernel().sign(), -signs.t() * signs)


def test_nothing_to_do(isa: str) -> None:
    """lr = 0, x = 0, d = 0 and an empty batch leave every bit."""
    p = problem(17, 33, 6, MODELS["SoftBounds"])
    for idle in (
        p._replace(lr=0.0),
        p._replace(x=torch.zeros_like(p.x)),
        p._replace(d=torch.zeros_like(p.d)),
        p._replace(x=p.x[:0], d=p.d[:0]),
    ):
        for fidelity in FIDELITIES:
            config = dataclasses.replace(p.config, fidelity=fidelity)
            assert torch.equal(bits(idle._replace(config=config).kernel()), bits(p.weight))


def test_strided_inputs(isa: str) -> None:
    p = problem(17, 33, 8, MODELS["SoftBounds"])
    strided = p._replace(x=p.x.t().contiguous().t(), d=torch.stack([p.d, p.d], 2)[:, :, 0])
    assert not strided.x.is_contiguous()
    assert torch.equal(strided.kernel(), p.kernel())


# ---- the ideal device ----


@pytest.mark.parametrize(("rows", "cols", "batch"), SHAPES)
def test_ideal(kernels: Kernels, rows: int, cols: int, batch: int) -> None:
    """One fma per sample in order, on every instruction set; float64 within bounds.

    n samples: n roundings, each 2^-24 of sums below |w| + lr sum |d x|, and one per lr d.
    """
    g = torch.Generator().manual_seed(rows)
    w = torch.randn(rows, cols, generator=g)
    x, d = torch.randn(batch, cols, generator=g), torch.randn(batch, rows, generator=g)
    lr = 0.03
    expected = reference.update(w, None, x, d, Ideal(), UpdateConfig(), lr=lr)
    exact = w.double() - lr * d.double().t() @ x.double()
    size = w.double().abs() + lr * d.double().abs().t() @ x.double().abs()
    for _ in kernels.each():
        got = w.clone()
        for first, last in ((0, batch // 3), (batch // 3, batch)):
            pair = (x[first:last], d[first:last])
            rest = (Ideal(), UpdateConfig(), lr, (0, 0, 0))
            ops.update_(*update_arguments(got, None, *pair, *rest))
        assert torch.equal(bits(got), bits(expected))
    assert ((expected - exact).abs() <= (batch + 2) * 2.0**-24 * size).all()


# ---- refusals: one sentence that names the value, weights untouched ----


def refused(p: Problem, match: str) -> None:
    w = p.weight.clone()
    rest = (p.x, p.d, p.device, p.config, p.lr, (0, 0, 0))
    with pytest.raises(ConfigError, match=match):
        ops.update_(*update_arguments(w, p.stored, *rest))
    assert torch.equal(bits(w), bits(p.weight))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", [(0, 0), (5, 16), (11, 32)])
def test_values_that_are_not_finite(isa: str, value: float, place: tuple[int, int]) -> None:
    p = problem(33, 33, 12, MODELS["SoftBounds"])
    for name in ("x", "d"):
        t = getattr(p, name).clone()
        t[place] = value
        refused(p._replace(**{name: t}), rf"^{name}\[{place[0]}\] holds a NaN or an infinity; ")
        ideal = p._replace(**{name: t})
        w = p.weight.clone()
        rest = (ideal.x, ideal.d, Ideal(), UpdateConfig(), 0.1, (0, 0, 0))
        with pytest.raises(ConfigError, match=rf"^{name}\[{place[0]}\]"):
            ops.update_(*update_arguments(w, None, *rest))
        assert torch.equal(w, p.weight)


def test_bad_arguments() -> None:
    p = problem(5, 7, 3, MODELS["SoftBounds"])
    for lr in (-0.1, math.nan, math.inf):
        refused(p._replace(lr=lr), rf"^lr is {lr}; ")
    refused(p._replace(x=p.x[:, :6]), r"^x has shape \(3, 6\); use \(samples, 7\)")
    refused(p._replace(d=p.d[0]), r"^d has shape \(5,\); use \(samples, 5\)")
    refused(p._replace(x=p.x.double()), r"^x has dtype torch\.float64; ")
    refused(p._replace(d=p.d[:2]), r"^x has 3 samples and d has 2; ")
    narrow = Stored(*(pair[:, :6] for pair in p.stored))
    refused(p._replace(stored=narrow), r"^step has shape \(5, 6\) and dtype ")
    half = p.weight.half()
    rest = (p.x, p.d, p.device, p.config, p.lr, (0, 0, 0))
    with pytest.raises(ConfigError, match=r"^weight has dtype torch\.float16 "):
        ops.update_(*update_arguments(half, p.stored, *rest))

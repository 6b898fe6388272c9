"""Devices of the zoo: closed forms, fixed points, noise of n pulses, properties, measurements.

Closed forms use stored (bf16) values. Tolerances: n pulses round n times, 2^-24 each for |w| < 2
(PowStep and PiecewiseStep: n (2^-24 + 4e-7 s) for the polynomial powers and interpolation). Sampled
means and variances of N crosspoints get 5 standard errors; a noise of KS .005 is far below them.
"""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from device_cases import EXAMPLES, silent, still
from operators import update_arguments
from pulseline import ops, reference
from pulseline.configs import UpdateConfig
from pulseline.devices import (
    DEVICES,
    ExpStep,
    PiecewiseStep,
    PowStep,
    PowStepReference,
    PulsedDevice,
    SoftBounds,
    SoftBoundsPmax,
    SoftBoundsReference,
    from_measurements,
)
from pulseline.errors import ConfigError
from pulseline.reference import Crosspoints, Stored
from pulseline.reference.devices import additive_noise

SAME: dict[str, Any] = {  # no device-to-device variation
    "dw_min_dtod": 0.0,
    "up_down_dtod": 0.0,
    "w_max_dtod": 0.0,
    "w_min_dtod": 0.0,
}
QUIET: dict[str, Any] = {"dw_min_std": 0.0, "dw_min_dtod": 0.1}


def pulsed(
    device: PulsedDevice,
    stored: Stored,
    weight: Tensor,
    n: int,
    up: bool,
    fidelity: str = "strict",
    k: int = 0,
) -> Tensor:
    """Weights after n pulses of one direction at every crosspoint: all probabilities are 1."""
    w = weight.clone()
    rows, cols = w.shape
    x, d = torch.ones(n, cols), torch.full((n, rows), -1.0 if up else 1.0)
    config = UpdateConfig(1, True, False, False, fidelity)
    rest = (x, d, device, config, device.granularity * 1.001, (3, 4, k))
    ops.update_(*update_arguments(w, stored, *rest))
    return w


def at(stored: Stored, part: float) -> Tensor:
    """Weights at a part of every crosspoint's range."""
    c = Crosspoints.unpack(stored)
    return c.lo + part * (c.hi - c.lo) + 0.0


# ---- closed forms and fixed points ----


@pytest.mark.parametrize("up", [True, False])
@pytest.mark.parametrize("n", [1, 40, 900])
def test_soft_bounds_reference(n: int, up: bool) -> None:
    """w_n = fixed - (fixed - w_0)(1 + slope)^n; the fixed point is the shifted bound (2^-7)."""
    device = SoftBoundsReference(
        up_down=0.3, reference_std=0.1, subtract_symmetry_point=True, **QUIET
    )
    stored = reference.construct(device, 16, 33, 1, 2)
    c = Crosspoints.of(device, stored)
    step, slope = (c.up.double(), c.slope_up.double()) if up else (c.down, c.slope_down)
    w = at(stored, 0.5)
    fixed = -step / slope
    expected = fixed - (fixed - w) * (1 + slope) ** n
    expected = torch.minimum(torch.maximum(expected, c.lo.double()), c.hi.double())
    assert (pulsed(device, stored, w, n, up) - expected).abs().max() <= n * 2.0**-24
    bound, span = (c.hi if up else c.lo), c.hi - c.lo
    assert ((fixed - bound).abs() <= 2.0**-6 * span).all()


def test_the_reference_moves_the_symmetry_point_to_zero() -> None:
    """Up and down steps at w = 0 agree within the rounding of the stored values (2^-8 each)."""
    quiet: dict[str, Any] = {"reference_std": 0.0, "up_down": 0.4, "w_max": 0.5, "w_min": -0.9}
    for device in (
        SoftBoundsReference(subtract_symmetry_point=True, **quiet),
        PowStepReference(subtract_symmetry_point=True, pow_gamma=1.6, **quiet),
    ):
        c = Crosspoints.of(device, reference.construct(device, 30, 40))
        zero, yes = torch.zeros(30, 40), torch.ones(30, 40, dtype=torch.bool)
        step = reference.DEVICES[device.name].step
        up, down = step(device, c, zero, yes), -step(device, c, zero, ~yes)
        slack = 2.0**-5 * torch.maximum(c.up, -c.down)
        inside = (c.hi > 0.05) & (c.lo < -0.05)
        assert ((up - down).abs() <= slack)[inside].all()
        assert device.nominal_steps()[0] == pytest.approx(device.nominal_steps()[1], rel=1e-6)


@pytest.mark.parametrize("up", [True, False])
@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
def test_pow_step(gamma: float, up: bool) -> None:
    """gamma 1: (1 - s/R)^n of the distance to the bound; else the recursion in float64."""
    device = PowStep(pow_gamma=gamma, pow_gamma_dtod=0.0, dw_min=0.004, **QUIET)
    stored = reference.construct(device, 16, 33, 1, 2)
    c = Crosspoints.of(device, stored)
    step, power = (c.up.double(), c.slope_up.double()) if up else (-c.down, c.slope_down)
    reach = (c.hi - c.lo).double()
    w, n = at(stored, 0.5), 300
    distance = ((c.hi - w) if up else (w - c.lo)).double()
    if gamma == 1.0:
        distance = distance * (1 - step / reach) ** n
    else:
        for _ in range(n):
            distance = (distance - step * (distance / reach) ** power).clamp(min=0)
    expected = c.hi - distance if up else c.lo + distance
    slack = n * (2.0**-24 + 4e-6 * step)
    assert ((pulsed(device, stored, w, n, up) - expected).abs() <= slack).all()


def test_pow_step_with_power_one_is_soft_bounds_between_the_bounds() -> None:
    """Golden of physics.md: w_n = w_max - (w_max - w_0)(1 - dw/R)^n."""
    device = PowStep(
        dw_min=2.0**-9, w_max=0.75, w_min=-0.25, pow_gamma_dtod=0, dw_min_std=0, **SAME
    )
    stored = reference.construct(device, 2, 3)
    expected = 0.75 - 0.75 * (1 - 2.0**-9) ** 200
    got = pulsed(device, stored, torch.zeros(2, 3), 200, True)
    assert (got - expected).abs().max() < 200 * (2.0**-24 + 4e-6 * 2.0**-9)


def test_pow_reference_is_pow_within_shifted_bounds() -> None:
    device = PowStepReference(reference_mean=0.125, w_max=0.5, w_min=-0.5, **SAME)
    c = Crosspoints.unpack(reference.construct(device, 2, 3))
    assert (c.hi == 0.375).all()
    assert (c.lo == -0.625).all()


@pytest.mark.parametrize("up", [True, False])
def test_piecewise_step(up: bool) -> None:
    """One pulse at nodes and between them: interpolation times tilt, in float64."""
    nodes = {"piecewise_up": (1.5, 1.0, 0.25, 0.125), "piecewise_down": (0.2, 2.0)}
    device = PiecewiseStep(tilt_up_dtod=0.4, tilt_down_dtod=0.3, **nodes, **QUIET)
    stored = reference.construct(device, 16, 33, 1, 2)
    c = Crosspoints.of(device, stored)
    curve = torch.tensor(nodes["piecewise_up" if up else "piecewise_down"]).double()
    step, tilt = (c.up, c.slope_up) if up else (c.down, c.slope_down)
    for part in (0.1, 1 / 3, 0.5, 0.77):
        w = at(stored, part)
        place = ((w - c.lo).double() / (c.hi - c.lo).double()) * (len(curve) - 1)
        left = place.long()
        value = curve[left] + (place - left) * (curve[left + 1] - curve[left])
        z = 2 * place / (len(curve) - 1) - 1
        expected = w + step.double() * (value * (1 + tilt.double() * z)).clamp(min=0)
        expected = torch.minimum(torch.maximum(expected, c.lo.double()), c.hi.double())
        assert (pulsed(device, stored, w, 1, up) - expected).abs().max() <= 2.0**-23


def test_flat_curves_are_constant_steps() -> None:
    flat = PiecewiseStep(piecewise_up=(1.0,) * 16, piecewise_down=(1.0, 1.0, 1.0))
    stored = reference.construct(flat, 9, 33)
    constant = DEVICES["ConstantStep"]()
    w = at(stored, 0.4)
    for up in (True, False):
        got = pulsed(flat, stored, w, 50, up)
        assert torch.equal(got, pulsed(constant, stored, w, 50, up))


@pytest.mark.parametrize("range_min", [-0.5, -1.5])
@pytest.mark.parametrize("p_max", [800, 2000])
def test_soft_bounds_pmax_follows_its_curve(p_max: int, range_min: float) -> None:
    """Golden: every pulse from 0 to p_max, up from the lowest state and back down.

    alpha = -ln(1 - 2^-9) and b = 2 make every stored value a bfloat16 number, so that only the
    rounding of the weight is left: n 2^-24.
    """
    alpha, b = -math.log1p(-(2.0**-9)), 2.0
    range_max = range_min + b * -math.expm1(-alpha * p_max)
    device = SoftBoundsPmax(p_max, alpha, range_min, range_max, dw_min_std=0.0, **SAME)
    stored = reference.construct(device, 1, 3)
    w, n = torch.full((1, 3), range_min), torch.arange(p_max + 1).double()
    up, down = [w], []
    for _ in range(p_max):
        up.append(pulsed(device, stored, up[-1], 1, True))
    down.append(up[-1])
    for _ in range(p_max):
        down.append(pulsed(device, stored, down[-1], 1, False))
    part = range_max - range_min
    curve = range_min + part * torch.expm1(-alpha * n) / math.expm1(-alpha * p_max)
    back = range_min + part * torch.exp(-alpha * n)
    for weights, expected in ((up, curve), (down, back)):
        got = torch.cat(weights).double()
        assert ((got - expected[:, None]).abs() <= (n[:, None] + p_max) * 2.0**-24).all()
    assert up[-1][0, 0].item() == pytest.approx(range_max, abs=p_max * 2.0**-24)


def test_soft_bounds_pmax_defaults() -> None:
    """Derived values; p pulses up from range_min: the curve within the rounding of the stored
    rate (2^-8 of alpha p exp(-alpha p) b) and bound (2^-7)."""
    device = SoftBoundsPmax(**SAME, dw_min_std=0.0)
    assert isinstance(device, SoftBounds)
    b = 2 / (1 - math.exp(-0.5))
    assert (device.w_min, device.w_max) == (-1.0, pytest.approx(b - 1))
    up, down = device.nominal_steps()
    steps = ((1 - math.exp(-5e-4)) * (b - 1), 1 - math.exp(-5e-4))
    assert (up, down) == pytest.approx(steps, rel=2.0**-9)  # the nearest bf16 is what is stored
    stored = reference.construct(device, 1, 2)
    w = torch.full((1, 2), -1.0)
    for p in (1, 200, 1000):
        expected = -1 + b * (1 - math.exp(-5e-4 * p))
        slack = 2.0**-8 * 5e-4 * p * b + 2.0**-7 * (b - 1) * (1 - math.exp(-5e-4 * p))
        assert (pulsed(device, stored, w, p, True) - expected).abs().max() <= slack
    assert pulsed(device, stored, w, 1000, False).eq(w).all()


def test_soft_bounds_pmax_refusals() -> None:
    for wrong in ({"p_max": 0.0}, {"alpha": -1.0}, {"range_min": 0.1}, {"w_max": 1.0}):
        with pytest.raises(ConfigError, match=r"^SoftBoundsPmax: "):
            SoftBoundsPmax(**wrong)


# ---- pulses joined in one step ----


@pytest.mark.parametrize("fidelity", ["grouped", "moments"])
@pytest.mark.parametrize("name", DEVICES)
def test_fidelity_notes(name: str, fidelity: str) -> None:
    """Affine: 64 pulses of one direction within the error that test_relaxed.py derives, slope^2/3
    + |slope| B^2/24 + B^4/90 of the travel (B = 64 slopes), and 64 2^-24; not affine: off by more
    in one of the examples, but in each by less than 1 % of the travel (third order of a step that
    changes by half on its way).
    """
    population: dict[str, Any] = {"dw_min": 0.004, "w_max": 1.0, "w_min": -1.0}
    population |= {"w_max_dtod": 0.3, "w_min_dtod": 0.3}
    worst = [
        joined_error(dataclasses.replace(silent(device), **population), fidelity)
        for device in DEVICES[name].examples()
    ]
    note, affine = DEVICES[name]().fidelity_note, DEVICES[name].affine
    if affine:
        assert "closed form of its affine step" in note or name == "ConstantStep"
    else:
        assert max(worst) > 2e-4
        assert max(worst) < 0.01
        assert "second-order step" in note
    assert not note.endswith(".")


def joined_error(device: PulsedDevice, fidelity: str) -> float:
    """Of 64 pulses joined, relative to their travel: the 95th percentile, the worse direction."""
    stored = reference.construct(device, 8, 33)
    c = Crosspoints.of(device, stored)
    worst = 0.0
    for up in (True, False):
        w = at(stored, 0.4 if up else 0.6)
        strict, joined = (pulsed(device, stored, w, 64, up, f) for f in ("strict", fidelity))
        inside = (strict - w).abs() > 0.05  # some stand at a bound or hardly move
        error = ((joined - strict).abs() / (strict - w).abs())[inside]
        worst = max(worst, float(error.quantile(0.95)))
        if device.affine:
            slope = (c.slope_up if up else c.slope_down).abs()[inside]
            b = 64 * slope
            bound = slope**2 / 3 + slope * b**2 / 24 + b**4 / 90 + 64 * 2.0**-24 / 0.05
            assert (error <= bound)[b <= 0.5].all()
            assert (b <= 0.5).float().mean() > 0.8
    return worst


# ---- noise of n pulses: mean and variance at three weights ----

SIGMA = 0.5
STEP = 2.0**-12
NOISY: dict[str, PulsedDevice] = {}
for _name, _device in EXAMPLES.items():
    _noisy = still(_device, dw_min=STEP, dw_min_std=SIGMA, w_max=0.75, w_min=-0.75)
    if _noisy not in NOISY.values():
        NOISY[_name] = _noisy


@pytest.mark.parametrize("fidelity", ["strict", "exact"])
@pytest.mark.parametrize("part", [0.25, 0.5, 0.7])
@pytest.mark.parametrize("name", NOISY)
def test_noise_of_n_pulses(name: str, part: float, fidelity: str) -> None:
    """n = 12 pulses move a weight by .2 % of the range: mean n f, variance n (sigma e)^2.

    f is the step there, e = |f| or what additive noise scales with; they change by less than 1 %.
    """
    device, additive = NOISY[name], additive_noise(NOISY[name])
    stored = reference.construct(device, 64, 128)
    c, n = Crosspoints.of(device, stored), 12
    w = at(stored, part)
    yes = torch.ones_like(w, dtype=torch.bool)
    model = reference.DEVICES[device.name]
    f = model.step(device, c, w, yes).double()
    e = model.noise(device, c, w, yes, f.float()).double() if additive else f.abs()
    moved = (pulsed(device, stored, w, n, True, fidelity) - w).double()
    count = moved.numel()
    deviation = math.sqrt(n) * SIGMA * float(e.mean())
    assert abs(moved.mean() / (n * f.mean()) - 1) < 0.01 + 5 * deviation / math.sqrt(count) / (
        n * float(f.mean())
    )
    assert abs(moved.std() / deviation - 1) < 0.01 + 5 / math.sqrt(2 * count)


def test_complex_noise_scales_as_stated() -> None:
    """sigma (|f| + add + slope |w|) at w = .5, against the same without."""
    quiet: dict[str, Any] = {
        "dw_min": STEP,
        "dw_min_std": SIGMA,
        "w_max": 1.0,
        "w_min": -1.0,
        **SAME,
    }
    device = ExpStep(dw_min_std_add=0.002, dw_min_std_slope=0.004, **quiet)
    stored = reference.construct(device, 64, 128)
    w = torch.full((64, 128), 0.5)
    c = Crosspoints.of(device, stored)
    f = reference.DEVICES["ExpStep"].step(device, c, w, torch.ones_like(w, dtype=torch.bool))
    std = (pulsed(device, stored, w, 1, True) - w).double().std()
    assert std / (SIGMA * (f[0, 0] + 0.004)) == pytest.approx(1, abs=5 / math.sqrt(2 * w.numel()))


# ---- properties over parameters ----

unit = st.floats(0, 1)
populations = st.fixed_dictionaries(
    {
        "dw_min": st.floats(1e-5, 0.2),
        "dw_min_dtod": st.floats(0, 2),
        "up_down": st.floats(-0.9, 0.9),
        "w_max": st.floats(0.05, 2),
        "w_min": st.floats(-2, -0.05),
        "w_max_dtod": st.floats(0, 1.5),
        "w_min_dtod": st.floats(0, 1.5),
        "corrupt_devices_prob": unit,
    }
)
OWN: dict[str, Any] = {  # wider ranges of the model's own fields; else those of its examples
    "LinearStep": {  # beyond W/gamma a step turns round: stay below
        "gamma_up": st.floats(0, 0.7),
        "gamma_down": st.floats(0, 0.7),
        "mean_bound_reference": st.just(False),
    },
    "SoftBounds": {"mult_noise": st.booleans()},
    "ExpStep": {"dw_min_std_add": unit, "dw_min_std_slope": unit},
    "SoftBoundsReference": {
        "reference_std": unit,
        "slope_up_dtod": st.floats(0, 3),
        "slope_down_dtod": st.floats(0, 3),
        "mult_noise": st.booleans(),
    },
    "PowStep": {"pow_gamma": st.floats(0.05, 20), "pow_up_down": st.floats(-0.9, 0.9)},
    "PowStepReference": {"pow_gamma": st.floats(0.05, 20), "reference_std": unit},
    "PiecewiseStep": {
        "tilt_up_dtod": st.floats(0, 3),
        "tilt_down_dtod": st.floats(0, 3),
        "piecewise_up": st.lists(st.floats(0.01, 5), min_size=2, max_size=16),
    },
}


@pytest.mark.parametrize("name", DEVICES)
@settings(max_examples=25)
@given(data=st.data())
def test_bounds_direction_and_numbers(name: str, data: st.DataObject) -> None:
    """Weights stay finite and in bounds under noise; without it each pulse goes its way."""
    values = {**data.draw(populations), **data.draw(st.fixed_dictionaries(OWN.get(name, {})))}
    device = dataclasses.replace(data.draw(st.sampled_from(DEVICES[name].examples())), **values)
    sigma = data.draw(st.floats(0, 5))
    stored = reference.construct(device, 5, 37, data.draw(st.integers(0, 99)))
    c = Crosspoints.of(device, stored)
    for t in (c.up, c.hi, -c.down, -c.lo):
        assert torch.isfinite(t).all()
        assert (t >= 0).all()
    w = at(stored, data.draw(unit)).clamp(c.lo, c.hi)
    for up in (True, False):
        noisy = dataclasses.replace(device, dw_min_std=sigma)
        silent = dataclasses.replace(device, dw_min_std=0.0)
        for fidelity in ("strict", "exact", "grouped", "moments"):
            got = pulsed(noisy, stored, w, 5, up, fidelity)
            assert ((got >= c.lo) & (got <= c.hi)).all(), fidelity
        moved = pulsed(silent, stored, w, 5, up) - w
        slack = 2.0**-6 * (c.hi - c.lo)  # a stored fixed point may lie off its bound
        assert (moved >= -slack).all() if up else (moved <= slack).all()


# ---- a device from measurements ----


def measure(path: Path, device: PulsedDevice, count: int, pulses: int) -> None:
    """Response curves of a simulated population, in microsiemens from 5 to 25."""
    stored = reference.construct(device, 1, count, 5, 6)
    lines = ["device,direction,pulse,conductance"]
    w = at(stored, 0.0)
    for direction, up in (("up", True), ("down", False)):
        for n in range(pulses + 1):
            if n:
                w = pulsed(device, stored, w, 1, up, k=n + pulses * up)
            values = (15 + 10 * w[0]).tolist()
            lines += [f"cell{j},{direction},{n},{g!r}" for j, g in enumerate(values)]
    path.write_text("\n".join(lines))


def test_measurements_give_back_the_population(tmp_path: Path) -> None:
    """Fit of a known population of 60 devices: spreads within 4 standard errors of 60 samples and
    the curve within 6 % (devices that do not span their range in the pulses given shorten it)."""
    truth = PiecewiseStep(
        dw_min=0.02,
        dw_min_dtod=0.15,
        dw_min_std=0.1,
        up_down_dtod=0.0,
        w_max=1.0,
        w_min=-1.0,
        w_max_dtod=0.05,
        w_min_dtod=0.05,
        piecewise_up=(1.6, 1.2, 0.8, 0.5),
        piecewise_down=(0.5, 0.8, 1.2, 1.6),
    )
    file = tmp_path / "curves.csv"
    measure(file, truth, 60, 250)
    fitted = from_measurements(file, nodes=4)
    assert fitted.w_max == 1.0
    assert fitted.dw_min / 0.02 == pytest.approx(1.0, abs=0.06 + 4 * 0.15 / math.sqrt(60))
    assert fitted.dw_min_dtod == pytest.approx(0.15, abs=4 * 0.15 / math.sqrt(120) + 0.02)
    assert fitted.dw_min_std == pytest.approx(0.1, abs=0.03)
    for mine, theirs in (
        (fitted.piecewise_up, truth.piecewise_up),
        (fitted.piecewise_down, truth.piecewise_down),
    ):
        inner = [a / b for a, b in zip(mine[1:3], theirs[1:3], strict=True)]
        assert inner == pytest.approx([1.0, 1.0], abs=0.1)
    assert from_measurements(file, w_max=0.5).w_max == 0.5


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SoftBoundsReference(reference_mean=0.7), "reference_mean is 0.7"),
        (lambda: SoftBoundsReference(w_min=0.0), "w_min is 0.0"),
        (lambda: PowStep(pow_gamma=0.0), "pow_gamma is 0.0"),
        (lambda: PowStep(pow_up_down=1.0), "pow_up_down is 1.0"),
        (lambda: PowStepReference(reference_mean=-0.7), "reference_mean is -0.7"),
        (lambda: PiecewiseStep(piecewise_up=(1.0,)), "piecewise_up is"),
        (lambda: PiecewiseStep(piecewise_down=(1.0, -1.0)), "piecewise_down is"),
        (lambda: PiecewiseStep(piecewise_up=(0.0, 0.0)), "piecewise_up is"),
        (lambda: ExpStep(dw_min_std_add=-1.0), "dw_min_std_add is -1.0"),
        (lambda: SoftBounds(corrupt_devices_prob=1.5), "corrupt_devices_prob is 1.5"),
    ],
)
def test_bad_values(make: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()

"""Device populations: the lists agree, and every crosspoint is the function that physics says.

Tolerances: a bf16 value rounded to nearest is within 2^-8 of the unrounded one, relative, toward
zero within 2^-7; 2e-6 is added for float32 arithmetic and the polynomials. Sampled moments get
5 standard errors of N independent normals.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from conftest import Kernels
from device_cases import EXAMPLES
from pulseline import _cpu, devices, ops, reference
from pulseline.devices import (
    ConstantStep,
    ExpStep,
    LinearStep,
    PulsedDevice,
    SoftBounds,
    SoftBoundsReference,
    pulsed,
)
from pulseline.errors import ConfigError
from pulseline.reference import Crosspoints, Stored, rng
from pulseline.reference.devices.model import affine_step

QUIET: dict[str, Any] = {
    "dw_min_dtod": 0.0,
    "dw_min_std": 0.0,
    "up_down_dtod": 0.0,
    "w_max_dtod": 0.0,
    "w_min_dtod": 0.0,
}
variants = pytest.mark.parametrize("device", EXAMPLES.values(), ids=EXAMPLES.keys())


def construct(device: PulsedDevice, rows: int, cols: int, seed: int, tile_id: int) -> Stored:
    pairs = ops.construct(device.name, device.parameters(), rows, cols, seed, tile_id)
    return Stored(*pairs)


def unpacked(device: PulsedDevice, rows: int = 129, cols: int = 257) -> Crosspoints:
    return Crosspoints.unpack(construct(device, rows, cols, 1, 2))


# ---- the lists ----


def test_lists_agree() -> None:
    """Compiled models, dataclasses and reference: the same names, fields and order."""
    compiled = {name: (fields, affine) for name, fields, affine, _ in _cpu.DEVICES}
    assert list(compiled) == list(devices.DEVICES) == list(reference.DEVICES)
    assert set(ops.FIELDS) == set(compiled)
    for name, cls in devices.DEVICES.items():
        assert cls.__name__ == name == cls().name
        assert cls.field_names() == ops.FIELDS[name]
        assert cls.affine is bool(compiled[name][1])
        declared = {field.name for field in dataclasses.fields(cls)}
        between = {*pulsed.RETENTION, "batch", "write_noise_std"}
        assert declared - set(ops.FIELDS[name]) == between


@pytest.mark.parametrize("cls", devices.DEVICES.values(), ids=devices.DEVICES.keys())
def test_examples(cls: type[PulsedDevice]) -> None:
    """Two or three instances, the defaults first; each kind of noise and every field of the model's
    own occurs in one of them."""
    examples = cls.examples()
    assert examples[0] == cls()
    assert len(set(examples)) == len(examples) in (2, 3)
    assert all(type(device) is cls for device in examples)
    assert examples == cls.examples()
    for field in set(cls.field_names()) - set(PulsedDevice.field_names()):
        if isinstance(getattr(cls(), field), bool):
            assert {getattr(device, field) for device in examples} == {False, True}, field


@variants
def test_affine_models_have_affine_steps(device: PulsedDevice) -> None:
    """``step + slope w``, every bit: fidelities that join pulses rely on it."""
    c = Crosspoints.of(device, construct(device, 9, 33, 1, 2))
    step = reference.DEVICES[device.name].step
    for part in (0.0, 0.3, 1.0):
        w = c.lo + part * (c.hi - c.lo)
        for up in (torch.ones_like(w, dtype=torch.bool), torch.zeros_like(w, dtype=torch.bool)):
            same = torch.equal(step(device, c, w, up), affine_step(device, c, w, up))
            assert same or not device.affine


# ---- construction ----


@variants
@pytest.mark.parametrize(
    ("rows", "cols", "seed", "tile_id"),
    [(129, 257, 2**62 + 12345, 0), (33, 1, 0, 2**32 - 1), (1, 31, 7, 3), (0, 5, 0, 0)],
)
def test_reference_constructs_the_same_bits(
    kernels: Kernels, device: PulsedDevice, rows: int, cols: int, seed: int, tile_id: int
) -> None:
    expected = reference.construct(device, rows, cols, seed, tile_id)
    for _ in kernels.each():
        for pair, answer in zip(
            construct(device, rows, cols, seed, tile_id), expected, strict=True
        ):
            assert pair.dtype is torch.int32
            assert torch.equal(pair, answer)


@variants
def test_a_crosspoint_does_not_depend_on_the_matrix(device: PulsedDevice) -> None:
    small, large = construct(device, 10, 20, 5, 6), construct(device, 70, 90, 5, 6)
    for a, b in zip(small, large, strict=True):
        assert torch.equal(a, b[..., :10, :20])
    other = construct(device, 10, 20, 5, 7)
    assert (small.step != other.step).float().mean() > 0.9


@variants
def test_signs(device: PulsedDevice) -> None:
    """Up raises, down lowers, the bounds enclose zero; a zero lower bound is stored as -0."""
    c = unpacked(device)
    assert (c.up >= 0).all()
    assert (c.down <= 0).all()
    assert (c.hi >= 0).all()
    assert (c.lo <= 0).all()
    assert torch.signbit(c.lo).all()
    assert not torch.signbit(c.hi).any()


CANCELLATION = 3e-7  # 1 + dtod xi near zero: float32 keeps its absolute, not relative, accuracy


def close(stored: Tensor, exact: Tensor, bits: int, unit: float = 0.0) -> bool:
    """Within 2^-bits of the exact value; ``unit`` is the nominal value of a sum that may cancel."""
    slack = (2.0**-bits + 2e-6) * exact.abs() + CANCELLATION * unit
    return bool(((stored.double() - exact).abs() <= slack).all())


@pytest.mark.parametrize("log_normal", [False, True])
@pytest.mark.parametrize("up_down", [0.0, 0.4, -0.4])
def test_steps_and_bounds_follow_the_formula(log_normal: bool, up_down: float) -> None:
    """physics.md section 2 in float64 on the drawn normals."""
    device = ConstantStep(
        dw_min=0.002,
        dw_min_dtod_log_normal=log_normal,
        up_down=up_down,
        up_down_dtod=0.1,
        w_max=0.8,
        w_min=-0.5,
    )
    draws = rng.ParameterDraws(rng.Stream(1, 2), 129, 257)
    a, b, c, d = (draws.normal(n).double() for n in range(4))
    hi, lo = 0.8 * (1 + 0.3 * a), -0.5 * (1 + 0.3 * b)
    hi, lo = torch.maximum(hi, lo).abs(), -torch.minimum(hi, lo).abs()
    gain = torch.exp(0.3 * c) if log_normal else 1 + 0.3 * c
    up = (gain + min(up_down, 0) + 0.1 * d).abs() * 0.002
    down = (gain - max(up_down, 0) - 0.1 * d).abs() * 0.002
    x = unpacked(device)
    assert close(x.up, up, 8, unit=0.002)
    assert close(x.down, -down, 8, unit=0.002)
    assert close(x.hi, hi, 8, unit=0.8)
    assert close(x.lo, lo, 8, unit=0.5)


def test_without_variation_all_crosspoints_are_nominal() -> None:
    c = unpacked(SoftBounds(dw_min=0.003, up_down=0.25, w_max=0.75, w_min=-0.5, **QUIET))
    nominal = {"up": 0.003, "down": -0.003 * 0.75, "hi": 0.75, "lo": -0.5}
    for field, value in nominal.items():
        bf16 = torch.tensor(value).to(torch.bfloat16).float()
        assert (getattr(c, field) == bf16).all(), field


@pytest.mark.parametrize(("up_down", "up", "down"), [(0.3, 1.0, 0.7), (-0.3, 0.7, 1.0)])
def test_up_down_weakens_one_direction(up_down: float, up: float, down: float) -> None:
    c = unpacked(ConstantStep(dw_min=0.001, up_down=up_down, **QUIET), 2, 2)
    assert c.up[0, 0].item() == pytest.approx(0.001 * up, rel=2**-8)
    assert c.down[0, 0].item() == pytest.approx(-0.001 * down, rel=2**-8)


def test_population_moments() -> None:
    """Means, spreads and (absence of) correlations of 33,153 crosspoints."""
    quiet = ConstantStep(dw_min=1.0, dw_min_dtod=0.1, up_down_dtod=0.05, w_max=1.0, w_min=-1.0)
    c = unpacked(dataclasses.replace(quiet, w_max_dtod=0.2, w_min_dtod=0.1))
    gain, bias = (c.up - c.down) / 2, (c.up + c.down) / 2
    root = math.sqrt(gain.numel())
    normals = []
    for value, mean, std in (
        (gain, 1.0, 0.1),
        (bias, 0.0, 0.05),
        (c.hi, 1.0, 0.2),
        (c.lo, -1.0, 0.1),
    ):
        assert abs(value.mean() - mean) < 5 * std / root
        # rounding adds at most (2^-8)^2 / 3 to the variance
        assert abs(value.var() / std**2 - 1) < 5 * math.sqrt(2) / root + 2**-16 / 3 / std**2
        normals.append((value - value.mean()) / value.std())
    for n, a in enumerate(normals):
        for b in normals[n + 1 :]:
            assert abs((a * b).mean()) < 5 / root
        assert abs((a[:, 1:] * a[:, :-1]).mean()) < 5 / root
        assert abs((a[1:] * a[:-1]).mean()) < 5 / root


def test_slopes() -> None:
    """Soft bounds: -s / own bound. Linear: -gamma s / mean or own bound."""
    c = unpacked(SoftBounds(w_min=-0.3))
    assert close(c.slope_up, -c.up.double() / c.hi, 8)
    assert close(c.slope_down, c.down.double() / -c.lo, 8)
    fixed: dict[str, Any] = {
        "gamma_up": 0.3,
        "gamma_down": 0.6,
        "gamma_up_dtod": 0.0,
        "gamma_down_dtod": 0.0,
    }
    c = unpacked(LinearStep(w_min=-0.3, **fixed))
    assert close(c.slope_up, -0.3 * c.up.double() / 0.6, 8)
    assert close(c.slope_down, 0.6 * c.down.double() / 0.3, 8)
    c = unpacked(LinearStep(w_min=-0.3, mean_bound_reference=False, **fixed))
    assert close(c.slope_up, -0.3 * c.up.double() / c.hi, 8)
    assert close(c.slope_down, 0.6 * c.down.double() / -c.lo, 8)
    assert (unpacked(ConstantStep()).slope_up == 0).all()


def test_linear_slopes_vary() -> None:
    c = unpacked(LinearStep(gamma_up=1.0, gamma_down=1.0, gamma_up_dtod=0.2, w_max=1, w_min=-1))
    relative = (-c.slope_up / c.up).double()
    root = math.sqrt(relative.numel())
    assert abs(relative.mean() - 1) < 5 * 0.2 / root
    assert abs(relative.std() / 0.2 - 1) < 5 / math.sqrt(2) / root + 0.01  # two roundings


def test_initial_normals(kernels: Kernels) -> None:
    expected = reference.initial_normals(129, 257, seed=3, tile_id=4)
    for _ in kernels.each():
        drawn = ops.initial_normals(129, 257, 3, 4)
        assert torch.equal(drawn.view(torch.int32), expected.view(torch.int32))
    root = math.sqrt(drawn.numel())
    assert abs(drawn.mean()) < 5 / root
    assert abs(drawn.var() - 1) < 5 * math.sqrt(2) / root


# ---- configuration ----


def test_granularity() -> None:
    assert SoftBounds(dw_min=0.004).granularity == 0.004
    assert ConstantStep(dw_min=0.004, up_down=0.5).granularity == pytest.approx(0.003)
    # Without variation every crosspoint keeps the same steps, and a pulse counts as one of them.
    for dw_min in (0.001, 2 / 1200, 0.004):
        c = unpacked(SoftBounds(dw_min=dw_min, up_down=0.2, **QUIET), 1, 1)
        assert SoftBounds(dw_min=dw_min, up_down=0.2, **QUIET).granularity == (c.up - c.down) / 2
    device = SoftBoundsReference(reference_mean=0.07, up_down=0.2, **QUIET)
    c = Crosspoints.of(device, construct(device, 1, 1, 1, 2))
    step = reference.DEVICES[device.name].step
    zero, yes = torch.zeros(1, 1), torch.ones(1, 1, dtype=torch.bool)
    mean = (step(device, c, zero, yes) - step(device, c, zero, ~yes)) / 2
    assert device.granularity == pytest.approx(float(mean), rel=2**-22)  # its two roundings
    exp = ExpStep(dw_min=0.01)
    up = 0.01 * (1 - 0.00081 * math.exp(12.44625 * 0.2425))
    down = 0.01 * (1 - 0.36833 * math.exp(-12.78785 * 0.2425))
    assert exp.nominal_steps() == pytest.approx((up, down))
    assert exp.granularity == pytest.approx((up + down) / 2)


def test_coarse_devices_default_to_strict() -> None:
    assert SoftBounds(dw_min=0.001, w_max=1, w_min=-1).default_fidelity == "exact"
    assert SoftBounds(dw_min=0.1, w_max=1, w_min=-1).default_fidelity == "strict"


@pytest.mark.parametrize(
    ("cls", "field", "value"),
    [
        (ConstantStep, "dw_min", 0.0),
        (ConstantStep, "dw_min", math.nan),
        (ConstantStep, "dw_min_dtod", -0.1),
        (ConstantStep, "dw_min_std", math.inf),
        (ConstantStep, "w_max", -0.1),
        (ConstantStep, "w_min", 0.1),
        (ConstantStep, "up_down", 1.0),
        (SoftBounds, "w_max", 0.0),
        (LinearStep, "w_min", 0.0),
        (LinearStep, "gamma_up", math.nan),
        (ExpStep, "a_up", 10.0),
        (ExpStep, "gamma_up", 1e4),
    ],
)
def test_bad_values_are_refused(cls: type[PulsedDevice], field: str, value: float) -> None:
    """One sentence that names the model, the field and the value."""
    arguments: dict[str, Any] = {field: value}
    with pytest.raises(ConfigError, match=rf"^{cls.__name__}: {field} is {value}; .+$"):
        cls(**arguments)

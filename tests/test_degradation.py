"""Between pulses: corrupt devices, decay, drift, diffusion, resets, write noise.

Equal bits of reference and kernels; closed forms from the stored (bf16) rates, each float32 step
rounding twice (2^-23 of |w| <= 1); sampled moments within 5 standard errors.
"""

from __future__ import annotations

import copy
import dataclasses
import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import pulseline as pl
from conftest import Kernels
from device_cases import LAST
from operators import counted
from pulseline import Array, ops, presets, reference
from pulseline.configs import IOConfig, UpdateConfig
from pulseline.devices import ConstantStep, Ideal, SoftBounds
from pulseline.digest import digest
from pulseline.errors import ConfigError
from pulseline.reference import Crosspoints, Stored
from pulseline.reference import retention as spec

ROWS, COLS = 65, 97
AGEING: dict[str, Any] = {
    "lifetime": 40.0,
    "lifetime_dtod": 0.3,
    "reset": 0.05,
    "reset_dtod": 0.02,
    "diffusion": 0.004,
    "diffusion_dtod": 0.5,
    "drift_nu": 0.06,
    "drift_nu_dtod": 0.3,
    "corrupt_devices_prob": 0.1,
}


def tile(device: Any, rows: int = ROWS, cols: int = COLS, **options: Any) -> Array:
    made = Array(rows, cols, device, io=IOConfig.perfect(), seed=7, tile_id=3, **options)
    made.program(normals(rows, cols) * 0.3)
    return made


def normals(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def stored(t: Array) -> Stored:
    cells = t.crosspoints
    assert cells.step is not None
    assert cells.bound is not None
    slope = torch.zeros_like(cells.step) if cells.slope is None else cells.slope
    return Stored(cells.step, slope, cells.bound)


# ---- corrupt devices ----


@pytest.mark.parametrize("name", LAST)
def test_corrupt_devices_are_stuck(name: str) -> None:
    """A part of prob, uniform within the range; programming, pulses and time leave them."""
    options = {**AGEING, "corrupt_devices_prob": 0.25, "corrupt_devices_range": 0.4}
    t = tile(dataclasses.replace(LAST[name], **options))
    c = Crosspoints.unpack(stored(t))
    stuck = (c.up == 0) & (c.down == 0)
    count = stuck.numel()
    assert abs(stuck.float().mean() - 0.25) < 5 * math.sqrt(0.25 * 0.75 / count)
    values = t.weight.data[stuck].double()
    assert (values.abs() <= 0.4 * (1 + 2.0**-9)).all()  # as the nearest bf16
    assert abs(values.mean()) < 5 * 0.4 / math.sqrt(3 * len(values))
    assert values.var() == pytest.approx(0.4**2 / 3, rel=5 / math.sqrt(len(values)))
    before = t.weight.data.clone()
    for _ in range(3):
        t.pulse(normals(20, COLS), normals(20, ROWS, seed=1), 0.1)
    t.reset()
    assert torch.equal(t.weight.data[stuck], before[stuck])
    assert (t.weight.data != before)[~stuck].float().mean() > 0.9
    t.program(torch.full((ROWS, COLS), 5.0))
    assert torch.equal(t.weight.data[stuck], before[stuck])


def test_all_devices_corrupt() -> None:
    t = tile(SoftBounds(corrupt_devices_prob=1.0, corrupt_devices_range=0.0))
    t.pulse(normals(20, COLS), normals(20, ROWS), 0.1)
    assert (t.weight.data == 0).all()


# ---- equal bits ----


@pytest.mark.parametrize(("rows", "cols"), [(ROWS, COLS), (1, 1), (0, 5), (31, 33)])
def test_reference_and_kernels(kernels: Kernels, rows: int, cols: int) -> None:
    device = SoftBounds(**AGEING)
    pairs = reference.construct(device, rows, cols, 7, 3)
    r = spec.retention(device, rows, cols, 7, 3)
    c = Crosspoints.unpack(pairs)
    w = torch.minimum(torch.maximum(normals(rows, cols), c.lo), c.hi)
    k, drift = 2**33 + 5, ops.drift_log2(3)
    aged = spec.age(w, pairs, r, drift, k, 7, 3)
    fresh = spec.reset(w, pairs, r, 0.02, k, 7, 3)
    noisy = spec.disturb(w, pairs, 0.01, k, 7, 3)
    for _ in kernels.each():
        words = ops.construct_retention(device.retention(), rows, cols, 7, 3)
        got = w.clone()
        ops.retain_(got, pairs.step, pairs.bound, words, drift, k, ops.DrawKey(7, 3))
        assert torch.equal(got, aged)
        ops.reset_(got, pairs.step, pairs.bound, words, 0.02, k, ops.DrawKey(7, 3))
        assert torch.equal(got, torch.where((c.up == 0) & (c.down == 0), w, fresh))
        ops.disturb_(got, w, pairs.step, 0.01, counted(k), ops.DrawKey(7, 3))
        assert torch.equal(got, noisy)


@pytest.mark.parametrize("desired_bl", [1, 31, 70])
def test_write_noise_follows_the_pulses(kernels: Kernels, desired_bl: int) -> None:
    """Reference == kernels, whole and in pieces: the last sample that reaches a cell counts."""
    device = SoftBounds(write_noise_std=5.0, corrupt_devices_prob=0.1)
    config = UpdateConfig(desired_bl=desired_bl, fidelity="exact")
    x, d = normals(30, COLS), normals(30, ROWS, seed=1) * 0.02
    start = tile(device, update=config)
    assert start.hidden is not None
    hidden = reference.update(
        start.hidden, stored(start), x, d, device, config, lr=0.02, seed=7, tile_id=3
    )
    visible = spec.redraw(
        start.weight.data,
        hidden,
        stored(start),
        x,
        d,
        device,
        config,
        lr=0.02,
        deviation=5.0 * 0.001,
        seed=7,
        tile_id=3,
    )
    untouched = visible == start.weight.data
    assert 0.01 < untouched.float().mean() < 0.99
    for _ in kernels.each():
        for cuts in ((0, 30), (0, 1, 13, 30)):
            t = copy.deepcopy(start)
            for a, b in itertools.pairwise(cuts):
                t.pulse(x[a:b], d[a:b], 0.02)
            assert t.hidden is not None
            assert torch.equal(t.hidden, hidden)
            assert torch.equal(t.weight.data, visible)


# ---- closed forms ----

FINE: dict[str, Any] = {"w_max": 1.0, "w_min": -1.0, "w_max_dtod": 0.0, "w_min_dtod": 0.0}


def aged(device: Any, events: int) -> tuple[Tensor, Tensor]:
    t = tile(device)
    before = t.weight.data.clone()
    t.age(events)
    assert t.age_count == events
    return before.double(), t.weight.data.double()


def test_decay() -> None:
    """w -> b + (w - b)(1 - 1/T)^n; 1/T stored as bf16: 2^-9 of the exponent."""
    before, after = aged(ConstantStep(lifetime=64.0, reset=0.25, **FINE), 50)
    assert (after - (0.25 + (before - 0.25) * (1 - 1 / 64) ** 50)).abs().max() < 50 * 2.0**-23
    before, after = aged(ConstantStep(lifetime=50.0, **FINE), 1)
    assert (after / (before * (1 - 1 / 50)) - 1).abs().max() < 2.0**-9 / 49 + 2.0**-22


def test_drift() -> None:
    """w t^-nu with t = 1 + events; nu = 1/16 is a bf16 number."""
    before, after = aged(ConstantStep(drift_nu=0.0625, **FINE), 40)
    assert (after / (before * 41**-0.0625) - 1).abs().max() < 40 * 4e-7
    for t in (1, 2, 1000, 10**9):
        assert ops.drift_log2(t) == pytest.approx(math.log1p(1 / t) / math.log(2), rel=1e-14)


def test_drift_counts_events_of_the_tile() -> None:
    """A weight written after 9 of them loses (11 / 10)^-nu with the next one: pulses and
    programming do not restart the clock, which is the number of samples seen."""
    t = tile(ConstantStep(drift_nu=0.0625, batch=2, **FINE))
    t.age(18)
    t.program(torch.full((ROWS, COLS), 0.5))
    t.pulse(torch.ones(1, COLS), torch.ones(1, ROWS), 0.001)
    before = t.weight.data.clone().double()
    t.age(1)
    assert (t.weight.data / (before * (11 / 10) ** -0.0625) - 1).abs().max() < 4e-7


def test_diffusion() -> None:
    """n steps of deviation D: mean 0, variance n D^2, neighbours independent."""
    d, n = 2.0**-8, 16
    before, after = aged(ConstantStep(diffusion=d, w_max=8.0, w_min=-8.0), n)
    steps = (after - before) / (d * math.sqrt(n))
    root = math.sqrt(steps.numel())
    assert abs(steps.mean()) < 5 / root
    assert abs(steps.var() - 1) < 5 * math.sqrt(2) / root
    assert abs((steps[:, 1:] * steps[:, :-1]).mean()) < 5 / root
    assert abs((steps[1:] * steps[:-1]).mean()) < 5 / root


def test_reset() -> None:
    t = tile(ConstantStep(reset=0.125, reset_std=0.02, w_max=8.0, w_min=-8.0))
    before = t.weight.data.clone()
    t.reset(torch.tensor([0, 5]))
    changed = (t.weight.data != before).all(0)
    assert changed.nonzero().flatten().tolist() == [0, 5]
    t.reset()
    xi = (t.weight.data.double() - 0.125) / 0.02
    root = math.sqrt(xi.numel())
    assert abs(xi.mean()) < 5 / root
    assert abs(xi.var() - 1) < 5 * math.sqrt(2) / root
    with pytest.raises(ConfigError, match="device is Ideal"):
        Array(2, 2, Ideal()).reset()


def test_spread_of_lifetimes() -> None:
    r = spec.retention(SoftBounds(lifetime=100.0, lifetime_dtod=0.1, drift_nu=0.1), 60, 70)
    times = 1 / r.rate.double()
    root = math.sqrt(times.numel())
    assert abs(times.mean() / 100 - 1) < 5 * 0.1 / root + 2.0**-9
    assert abs(times.std() / 10 - 1) < 5 / math.sqrt(2) / root + 0.01
    assert (r.nu == torch.tensor(0.1).to(torch.bfloat16).float()).all()
    short = spec.retention(SoftBounds(lifetime=2.0, lifetime_dtod=5.0), 60, 70)
    assert (short.rate <= 1).all()


def test_write_noise_statistics() -> None:
    """Visible minus hidden: mean 0, deviation write_noise_std dw_min, fresh with every write."""
    t = tile(SoftBounds(dw_min=0.001, write_noise_std=30.0))
    noises = []
    for n in range(3):
        assert t.hidden is not None
        noises.append(((t.weight.data - t.hidden) / 0.03).double())
        t.pulse(torch.ones(1, COLS), torch.ones(1, ROWS), 0.05 + n)
    root = math.sqrt(ROWS * COLS)
    for xi in noises:
        assert abs(xi.mean()) < 5 / root
        assert abs(xi.var() - 1) < 5 * math.sqrt(2) / root
    assert abs((noises[0] * noises[1]).mean()) < 5 / root
    assert abs((noises[1] * noises[2]).mean()) < 5 / root


def test_expected_writes_without_noise() -> None:
    t = tile(SoftBounds(write_noise_std=30.0), update=UpdateConfig(fidelity="expected"))
    t.pulse(torch.ones(1, COLS), torch.ones(1, ROWS), 0.05)
    assert t.hidden is not None
    assert torch.equal(t.weight.data, t.hidden)


def test_devices_without_options_do_not_age() -> None:
    t = tile(SoftBounds())
    before = t.weight.data.clone()
    t.age(100)
    assert t.age_count == 0
    assert t.hidden is None
    assert torch.equal(t.weight.data, before)


# ---- training and state ----


def network(device: Any, seed: int | None = 1) -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(9, 7), nn.Tanh(), nn.Linear(7, 3))
    return pl.nn.to_analog(model, device=device, seed=seed)


def train(model: nn.Module, steps: int, seed: int) -> None:
    model.train()
    optimizer = pl.optim.AnalogSGD(model.parameters(), lr=0.05)
    for n in range(steps):
        optimizer.zero_grad()
        model(normals(4, 9, seed=seed + n)).square().sum().backward()
        optimizer.step()


@pytest.mark.parametrize("assign", [False, True])
@pytest.mark.parametrize("device", [SoftBounds(**AGEING, write_noise_std=8.0), presets.ReRamES])
def test_state_continues_bit_for_bit(device: Any, assign: bool) -> None:
    original, fresh = network(device), network(device, seed=None)
    train(original, 3, 0)
    assert "0.cell.arrays.0.hidden" in original.state_dict()
    before = digest(original.state_dict())
    fresh.load_state_dict(copy.deepcopy(original.state_dict()), assign=assign)
    assert digest(fresh.state_dict()) == before
    for model in (original, fresh, copied := copy.deepcopy(original)):
        train(model, 3, 9)
    assert digest(fresh.state_dict()) == digest(original.state_dict()) != before
    assert digest(copied.state_dict()) == digest(original.state_dict())


def test_the_digest_covers_the_hidden_weight() -> None:
    model = network(presets.ReRamES)
    before = digest(model.state_dict())
    tile_ = model[0].cell.array  # type: ignore[index]
    tile_.hidden[0, 0] += 0.001
    assert digest(model.state_dict()) != before

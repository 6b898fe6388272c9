"""Closed forms of algorithms: symmetry points by pulses, write and verify, limits of transfers."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

import pulseline as pl
from algorithm_cases import cell_of, normals
from device_cases import still
from pulseline import ConfigError
from pulseline import algorithms as al

PERFECT = pl.configs.IOConfig.perfect()


@pytest.mark.parametrize("cyclic", [True, False])
@pytest.mark.parametrize(("tau", "dw", "sigma"), [(0.5, 1 / 256, 0.3), (1.0, 1 / 32, 0.3)])
def test_zero_shifting(cyclic: bool, tau: float, dw: float, sigma: float) -> None:
    """Mean and spread behind N pulses on soft bounds +-tau; bounds and steps exact in bfloat16.

    Cycle noise has mean 0, so that the mean follows ``w (1 - dw / tau) +- dw`` exactly, and with
    random signs ``w (1 - dw / tau)``: e_0 exp(-N dw / tau) to first order. Variance in the steady
    state, from the square of the same step: sigma^2 dw tau / 2 alternating, (1 + sigma^2) of
    dw tau / 2 with random signs, to first order in dw / tau. 65,536 crosspoints: 6 standard errors
    are .023 of the spread for a mean, and .017 for a standard deviation, to which the first order
    adds dw / tau.
    """
    device = still(pl.devices.SoftBounds(dw_min=dw, w_max=tau, w_min=-tau, dw_min_std=sigma))
    array = pl.Array(256, 256, device, seed=3)
    array.program(torch.full((256, 256), 0.5 * tau))
    half = round(tau / dw * math.log(2))
    mean = 0.5 * tau
    spread = math.sqrt(dw * tau * (sigma**2 if cyclic else 1 + sigma**2) / 2)
    for pulses in (half, 10 * half):
        found = al.find_symmetry_point(array, pulses, cyclic=cyclic)
        for n in range(pulses):
            mean = mean * (1 - dw / tau) + (dw * (-1) ** n if cyclic else 0.0)
        assert abs(float(found.mean()) - mean) < 0.025 * spread
    assert abs(mean) < dw  # at the symmetry point, but for the last step
    assert abs(float(found.std()) / spread - 1) < 0.02 + dw / tau


def test_a_reference_pair_begins_at_the_symmetry_point() -> None:
    """Steps up and down are unequal at 0 and equal where the pair reads 0."""
    device = still(
        pl.devices.SoftBounds(dw_min=2**-6, up_down=0.3, w_max=0.5, w_min=-0.5, dw_min_std=0.0)
    )
    up, down = 2**-6, 0.7 * 2**-6
    point = (up - down) / (up / 0.5 + down / 0.5)
    cell = cell_of(al.ReferencePair(pulses=2000), device=device, io=PERFECT)
    found = cell.other.held
    # alternating steps end half a step below; bfloat16 rounds the down step by at most 2^-9
    assert float((found - point).abs().max()) < up / 2 + 2**-9
    cell.program(torch.zeros(7, 5))
    assert float(cell.effective_weight().abs().max()) == 0.0


@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_write_and_verify(noise: float) -> None:
    device = pl.devices.SoftBounds(
        dw_min=2**-8, dw_min_dtod=0.1, w_max_dtod=0.0, w_min_dtod=0.0, dw_min_std=noise
    )
    array = pl.Array(40, 30, pl.Crossbar(device, io=PERFECT), seed=4)
    target = (normals(40, 30) * 0.15).clamp(-0.4, 0.4)
    (done,) = al.write_verify(array, target, tolerance=2**-7, rounds=30)
    assert done.within == 1.0
    assert float((array.held - target).abs().max()) <= 2**-7
    assert (
        done.pulses >= float((target / 2**-8).abs().sum()) / 3
    )  # steps vary by 10 %, and shrink to 1/3 at .4
    (again,) = al.write_verify(array, target, tolerance=2**-7, rounds=30)
    assert again == (1, 0, 1.0, done.error)


def test_write_and_verify_of_a_model() -> None:
    model: Any = pl.to_analog(
        torch.nn.Sequential(torch.nn.Linear(9, 8), torch.nn.Linear(8, 3)),
        pl.devices.ConstantStep(dw_min_dtod=0.1),
        seed=1,
        io=PERFECT,
    )
    before = [layer.cell.array.held.clone() for layer in model]
    done = al.write_verify(model, tolerance=0.004)
    assert len(done) == 2
    for layer, old in zip(model, before, strict=True):
        error = (layer.cell.array.held - old).abs()
        assert 0 < float(error.max()) <= 0.004
    with pytest.raises(ConfigError, match="weights have shape"):
        al.write_verify(model, torch.zeros(8, 9))
    with pytest.raises(ConfigError, match="target is a Linear without arrays"):
        al.write_verify(torch.nn.Linear(3, 2))
    wrong = {"tolerance": 0, "rounds": 2.5, "max_pulses": 0.3, "read": "x"}
    for name, value in wrong.items():
        with pytest.raises(ConfigError, match=f"{name} is"):
            al.write_verify(model, **{name: value})
    for weights in (torch.full((8, 9), float("nan")), [1]):
        with pytest.raises(ConfigError, match=r"weights (hold a NaN|are \[1\])"):
            al.write_verify(model[0].cell, weights)  # type: ignore[arg-type]


@pytest.mark.parametrize("most", [1, 3])
def test_a_sweep_moves_the_slow_array_by_at_most_its_pulses(most: int) -> None:
    """``max_pulses`` steps a column and sweep, however large the fast array's gradient is."""
    device = still(pl.devices.ConstantStep(dw_min=2**-10, w_max=1.0, w_min=-1.0, dw_min_std=0.0))
    rule = al.TikiTaka2(max_pulses=most, lr_fast=0.3, lr_transfer=100.0)
    cell = cell_of(rule, device=device, io=PERFECT)
    cell.program(torch.zeros(7, 5))
    x, d = torch.ones(20, 5), torch.full((20, 7), -1.0)  # 4 sweeps of 5 columns
    cell.update(x, d, 0.1)
    assert torch.equal(cell.slow.held, torch.full((7, 5), 4 * most * 2**-10))


def test_choppers_undo_an_offset() -> None:
    """Nothing but an offset of A: TTv2 integrates it, with choppers its sign averages out."""
    device = still(pl.devices.SoftBounds(dw_min=2**-10, dw_min_std=0.0))
    moved = {}
    for rule in (al.TikiTaka2(), al.ChoppedTikiTaka2(chop=0.5), al.AGAD(chop=0.25)):
        cell = cell_of(rule, device=device, io=PERFECT)
        cell.program(torch.zeros(7, 5))
        cell.fast.write(torch.full((7, 5), 0.1))
        cell.update(torch.zeros(400, 5), torch.zeros(400, 7), 0.01)
        moved[type(rule)] = float(cell.slow.held.abs().mean())
    assert moved[al.TikiTaka2] > 0.05  # 80 reads of .1 at a rate of .01
    assert moved[al.ChoppedTikiTaka2] < moved[al.TikiTaka2] / 3
    assert moved[al.AGAD] < moved[al.TikiTaka2] / 3


def test_warm_starts_go_from_coarse_to_fine() -> None:
    rule = al.MultiTile(arrays=4, every=1, lr_fast=0.3, warm_start=True)
    cell = cell_of(rule)
    x, d = normals(40, 5), normals(40, 7, seed=1)
    for phase in range(3):
        before = [array.held.clone() for array in cell.arrays]
        cell.update(x, d, 0.1)
        moved = [not torch.equal(a.held, b) for a, b in zip(cell.arrays, before, strict=True)]
        assert moved == [phase in (0, 2), phase in (1, 2), phase == 2, True]
        assert al.advance(torch.nn.ModuleList([cell])) == (1 if phase == 0 else 0)
    with pytest.raises(ConfigError, match="no cell with warm_start"):
        al.advance(torch.nn.Linear(2, 2))


def test_one_sided_pairs_are_refreshed() -> None:
    """Both sides of a pair only rise, until a refresh empties them and keeps the difference."""
    device = still(
        pl.devices.ConstantStep(dw_min=2**-7, w_max=1.0, w_min=0.0, dw_min_std=0.0, reset_std=0.0)
    )
    x, d = normals(400, 5), normals(400, 7, seed=1)
    full = cell_of(al.OneSided(), device=device, io=PERFECT)
    lo = full.array.held.clone()
    full.update(x, d, 0.05)
    assert bool((full.array.held >= lo).all())
    assert float(torch.minimum(full.array.held, full.other.held).max()) > 0.5
    rule = al.OneSided(refresh_every=10, full=0.4, both=0.2)
    fresh = cell_of(rule, device=device, io=PERFECT)
    fresh.update(x, d, 0.05)
    both = torch.minimum(fresh.array.held, fresh.other.held)
    assert float(both.max()) < 0.4  # .2, and what ten samples add
    # a refresh by itself changes the weight by less than a step, rounded to whole pulses
    held = fresh.effective_weight()
    fresh._refresh_pairs()
    fresh.refresh()
    assert float((fresh.effective_weight() - held).abs().max()) <= 2**-8

"""What the algorithms reach: bars on the digits, under stale weights, on a toy, in programming.

Means of three seeds. The bars are about twice the deviation of such a mean away from what was
measured (``pulseline lab algorithms``, ``lab staleness-algorithms``, docs/algorithms.md), and every
algorithm must pass where its rival must not: an algorithm that did nothing special would fail.
Micro-batches of 16 samples: rates are per sample, and 8 to 64 gave the same within a point.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch

import pulseline as pl
from pulseline import algorithms as al
from pulseline.data import DataSet, load_digits
from pulseline.lab.nets import DEEP, Course, accuracy
from pulseline.lab.target import PROGRAMMERS, error
from pulseline.lab.tuned import Tuned, crossbar_of, states, tuned

SEEDS = (1, 2, 3)
RATES = (0.001, 0.002, 0.005, 0.01, 0.02)


@cache
def digits() -> DataSet:
    return load_digits()


def small(one: Tuned, crossbar: pl.Crossbar) -> float:
    """Mean accuracy on 64-36-10."""
    found = [accuracy(crossbar, one.lr, Course(), digits(), seed) for seed in SEEDS]
    return sum(found) / len(found)


def on_default(name: str, lr: float | None = None) -> float:
    one = tuned("default")[name]
    one = one if lr is None else one._replace(lr=lr)
    return small(one, crossbar_of(one, pl.devices.SoftBounds()))


def far(name: str) -> float:
    """At 20 states, the reference of the array that takes the gradient off by .5 of the bounds."""
    one = tuned("20")[name]
    return small(one, crossbar_of(one, states(20, 0.5), states(20)))


# ---- the default device: 1200 states, bounds +-.6 ----


def test_plain_pulses_stay_low() -> None:
    """The asymmetry pulls weights to 0, at any rate: the best of five gave 89.9; digital 98."""
    found = {lr: on_default("SGD", lr) for lr in RATES}
    assert max(found.values()) <= 92.5, found
    assert max(found.values()) >= 80.0, found  # the bar is not passed by doing nothing


@pytest.mark.parametrize(
    "name",
    [
        *("TTv1", "residual v1", "TTv2", "AGAD"),
        *(pytest.param(name, marks=pytest.mark.full) for name in ("residual v2", "c-TTv2")),
    ],
)
def test_transfers_recover(name: str) -> None:
    """97.3 to 97.8: what the slow array takes was averaged where the fast one is symmetric."""
    assert on_default(name) >= 95.5


def test_mixed_precision_recovers() -> None:
    """96.0: steps of C are asymmetric still, but each was asked for in full."""
    assert on_default("mixed") >= 94.0


# ---- 20 states, offset .5 ----


@pytest.mark.parametrize("name", ["AGAD", "E-RIDER"])
def test_measured_references_bear_offsets(name: str) -> None:
    """97.7 and 97.6: where A rests is measured, not trusted."""
    assert far(name) >= 96.0


def test_choppers_bear_offsets_less_well() -> None:
    """95.5: the offset averages out over flips, and adds to the noise of H meanwhile."""
    assert far("c-TTv2") >= 93.0


def test_without_either_the_offset_is_learned() -> None:
    """TTv2 transfers the offset again and again: 87.8; plain pulses 80.9."""
    assert far("TTv2") <= 92.0
    assert far("SGD") <= 86.0


# ---- programming a matrix ----


def programmed(name: str, offset: float) -> float:
    one = PROGRAMMERS[name]
    crossbar = crossbar_of(one, states(20, offset), states(20))
    return float(np.mean([error(one, crossbar, 32, 20_000, 16, seed) for seed in SEEDS]))


def test_programming() -> None:
    """At offset .25 TTv2 is 5 times worse; AGAD's error is that of its noise at every offset."""
    agad = {offset: programmed("AGAD", offset) for offset in (0.0, 0.25, 0.5)}
    assert programmed("TTv2", 0.25) > 4 * max(programmed("c-TTv2", 0.25), agad[0.25])
    assert max(agad.values()) < 1.1 * min(agad.values()), agad


# ---- stale weights ----


@cache
def deep(name: str, stages: int, batch: int, epochs: int, chop: float | None = None) -> float:
    """Mean accuracy on 64-128-128-64-10."""
    one = tuned("deep")[name]
    if chop is not None:
        one = one._replace(rule=replace(one.rule, chop=chop))
    crossbar = crossbar_of(one, pl.devices.SoftBounds())
    course = Course(DEEP, stages, batch, epochs)
    return float(np.mean([accuracy(crossbar, one.lr, course, digits(), seed) for seed in SEEDS]))


def lost(name: str, batch: int, epochs: int, chop: float | None = None) -> float:
    """Points that asynchronous training at M = 4 lies below sequential."""
    return deep(name, 1, batch, epochs, chop) - deep(name, 4, batch, epochs, chop)


NEARLY = ["TTv1", "residual v1", "TTv2", "residual v2", "c-TTv2", "AGAD", "E-RIDER", "mixed"]


@pytest.mark.full
@pytest.mark.parametrize("name", [*NEARLY, "multi-tile"])
def test_weights_that_are_a_little_stale_cost_nothing(name: str) -> None:
    """Micro-batches of 8: 24 samples stale; .7 points at most."""
    assert lost(name, 8, 10) <= 1.5


def test_stale_weights_break_plain_pulses() -> None:
    """Micro-batches of 32, 96 samples stale: 92.2 -> 73.8."""
    assert lost("SGD", 32, 15) >= 8.0


@pytest.mark.parametrize("name", ["TTv2"])
def test_slow_arrays_do_not_mind(name: str) -> None:
    """Two low passes in series: staleness is short against both; .7 points at most."""
    assert lost(name, 32, 15) <= 2.0


@pytest.mark.full
@pytest.mark.parametrize("name", ["TTv1", "residual v1", "residual v2", "mixed"])
def test_others_do_not_mind_either(name: str) -> None:
    """As above."""
    assert lost(name, 32, 15) <= 2.0


@pytest.mark.full
def test_slow_choppers_bear_stale_weights() -> None:
    """A period of 53 times the staleness; at 13 times seeds scatter by 6 points, so no bar there:
    three seeds lost 3.0 here and 7.6 in a sketch."""
    assert lost("AGAD", 32, 15, 0.0125) <= 2.0


# ---- the bias of a pulsed update, and what removes it ----


def toy(rule: al.Rule | None, lr: float, steps: int = 3000, seed: int = 0) -> float:
    """Mean f of the last fifth: f(w) = |A w - y|^2 / 200, A 100 x 40, on soft bounds of tau = 1.

    ``expected`` updates: w + D - |D| w / tau. Gradients have noise of .1; y = A w*, w* ~ .45 N.
    """
    draw = np.random.default_rng(seed)
    a, w = draw.standard_normal((100, 40)), 0.45 * draw.standard_normal(40)
    y = a @ w
    device = pl.devices.SoftBounds(
        dw_min=1e-4,
        w_max=1.0,
        w_min=-1.0,
        dw_min_dtod=0.0,
        dw_min_std=0.0,
        up_down_dtod=0.0,
        w_max_dtod=0.0,
        w_min_dtod=0.0,
    )
    update = pl.configs.UpdateConfig(desired_bl=1 << 20, fidelity="expected")
    crossbar = pl.Crossbar(device, update=update, algorithm=rule)
    cell = pl.nn.AnalogLinear(40, 1, bias=False, crossbar=crossbar, seed=seed, tile_id=0).cell
    cell.program(torch.zeros(1, 40))
    one, found = torch.ones(1, 1), []
    for _ in range(steps):
        miss = a @ cell.effective_weight()[0].double().numpy() - y
        found.append(float(miss @ miss) / 200)
        gradient = a.T @ miss / 100 + 0.1 * draw.standard_normal(40)
        cell.update(torch.tensor(gradient[None], dtype=torch.float32), one, lr)
    return float(np.mean(found[-steps // 5 :]))


def test_residual_learning_removes_the_bias() -> None:
    """.0044 against .074 in a sketch of the same recursions."""
    read = pl.configs.ReadConfig.perfect()
    residual = al.Residual1(
        reads=40, lr_fast=0.01, lr_transfer=0.01, scale_transfer=False, gamma=0.4, read=read
    )
    plain = toy(None, 0.01)
    assert 0.03 < plain < 0.15
    assert toy(residual, 0.01) * 10 <= plain

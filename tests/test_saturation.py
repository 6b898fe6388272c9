"""Trains that saturate: counted exactly, said once, and only where they are more than 1 %."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor

import pulseline as pl
from operators import update_arguments
from pulseline import ops
from pulseline.configs import UpdateConfig
from pulseline.devices import ConstantStep, Ideal
from pulseline.reference.trains import manage

ROWS, COLS, SAMPLES = 10, 64, 64
WORDS = "more than 1 % of the pulse trains saturate at lr 0.05, .* desired_bl above 31"
FINE = ConstantStep(dw_min=1e-4)
pytestmark = pytest.mark.filterwarnings("error:more than 1 %")


def pairs(samples: int = SAMPLES, size: float = 1.0) -> tuple[Tensor, Tensor]:
    """Inputs below 1 and normal errors."""
    g = torch.Generator().manual_seed(0)
    return torch.rand(samples, COLS, generator=g), size * torch.randn(samples, ROWS, generator=g)


RAW = {"update_management": False, "update_bl_management": False}
CONFIGS: list[dict[str, Any]] = [
    {},
    {"desired_bl": 7},
    {"update_management": False},
    {"update_bl_management": False},
    RAW,
    {**RAW, "fixed_bl": False, "desired_bl": 3},
    *({"fidelity": name} for name in ("strict", "grouped", "moments", "expected")),
]


@pytest.mark.parametrize("config", CONFIGS, ids=map(str, CONFIGS))
@pytest.mark.parametrize("lr", [1e-4, 0.005, 0.05])
def test_the_number_of_saturated_lines_is_that_of_the_formula(
    config: dict[str, Any], lr: float
) -> None:
    """A line saturates where scale |value| > 1.001; the reference manages trains by itself."""
    update = UpdateConfig(**config)
    x, d = pairs()
    d[3], x[5] = 0.0, 0.0  # silent samples
    train = manage(x.abs().amax(1), d.abs().amax(1), lr, FINE.granularity, update)
    want = 0
    for value, scale in ((x, train.scale_x), (d, train.scale_d)):
        over = scale[:, None] * value.abs() > torch.tensor(1.001)
        want += int((over & (train.bl > 0)[:, None]).sum())
    stored = ops.construct(FINE.name, FINE.parameters(), ROWS, COLS, 1, 2)
    weight = torch.zeros(ROWS, COLS)
    arguments = update_arguments(weight, stored, x, d, FINE, update, lr, (1, 2, 0))
    assert ops.update_(*arguments) == want
    assert want > 0 or lr < 0.05


def test_with_both_managements_only_more_pulses_than_slots_saturate() -> None:
    """k = lr max|x| max|d| / granularity; at k = 31 every probability is at most 1."""
    x, d = torch.ones(1, COLS), torch.full((1, ROWS), 0.5)
    d[0, 0] = 1.0
    stored = ops.construct(FINE.name, FINE.parameters(), ROWS, COLS, 1, 2)

    def lines(k: float) -> int:
        lr = k * FINE.granularity
        rest = (x, d, FINE, UpdateConfig(), lr, (1, 2, 0))
        return ops.update_(*update_arguments(torch.zeros(ROWS, COLS), stored, *rest))

    # Beyond 31 the largest d is cut to 31 / k, from 62 on the halves are as well.
    assert [lines(k) for k in (1, 30, 31, 32, 60, 63)] == [0, 0, 0, 1, 1, ROWS]


@pytest.mark.parametrize("cut", [1, 7, 64])
@pytest.mark.parametrize("fidelity", ["exact", "expected"])
def test_it_is_said_once_from_64_samples_on(cut: int, fidelity: str) -> None:
    array = pl.Array(ROWS, COLS, FINE, seed=0, update=UpdateConfig(fidelity=fidelity))
    x, d = pairs()
    *first, last = (slice(n, n + cut) for n in range(0, 64, cut))
    for part in first:
        array.pulse(x[part], d[part], 0.05)
    with pytest.warns(UserWarning, match=WORDS):
        array.pulse(x[last], d[last], 0.05)
    for told in (array, copy.deepcopy(array)):
        told.pulse(*pairs(), 0.05)
    # The counter, not the cut, decides what was seen.
    assert array.counts().update == 128


def test_less_than_one_percent_is_not_said() -> None:
    """One sample in a hundred whose largest error saturates is 1 of 7400 lines."""
    array = pl.Array(ROWS, COLS, FINE, seed=0)
    x, d = pairs(100, 0.01)
    d[50, 0] = 4.0
    for _ in range(3):
        array.pulse(x, d, 0.05)


def test_a_run_that_turns_bad_is_told_however_long_it_was_good() -> None:
    array = pl.Array(ROWS, COLS, FINE, seed=0)
    for _ in range(20):
        array.pulse(*pairs(size=0.01), 0.05)
    array.pulse(*pairs(), 0.05)  # a window that holds all the good samples
    with pytest.warns(UserWarning, match=WORDS):
        array.pulse(*pairs(), 0.05)


def test_an_older_state_begins_again() -> None:
    array = pl.Array(ROWS, COLS, FINE, seed=0)
    state = array.state()
    for _ in range(20):
        array.pulse(*pairs(size=0.01), 0.05)
    array.pulse(*pairs(1), 0.05)
    array.load_state(state)
    with pytest.warns(UserWarning, match=WORDS):
        array.pulse(*pairs(), 0.05)


def test_ideal_devices_and_layers_in_units_of_their_own() -> None:
    ideal = pl.Array(ROWS, COLS, Ideal())
    ideal.pulse(*pairs(), 10.0)
    scaled = pl.Array(ROWS, COLS, FINE, seed=0, mapping=pl.configs.Mapping(omega=0.1))
    scaled.program(torch.full((ROWS, COLS), 0.2))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        scaled.pulse(*pairs(), 0.1)
    assert ["lr 0.1," in str(one.message) for one in said] == [True]  # the user's, not half of it


def test_what_arrives_falls_short_where_it_is_said() -> None:
    """lr d x^T of 640 products, FINE without spreads: the mean is that of ``expected``.

    Without saturation the whole of it arrives; the case of the warning loses a fifth and more.
    """
    device = ConstantStep(
        dw_min=1e-4, dw_min_dtod=0.0, up_down_dtod=0.0, w_max_dtod=0.0, w_min_dtod=0.0
    )
    found = []
    for lr in (0.001, 0.05):
        array = pl.Array(ROWS, COLS, device, seed=0, update=UpdateConfig(fidelity="expected"))
        x, d = pairs(1)
        array.pulse(x, d, lr)
        want = -lr * d.T @ x
        found.append(float((array.weight.data * want).sum() / want.square().sum()))
    # The granularity is the nearest bfloat16 of dw_min: 2^-9 relative.
    assert found[0] == pytest.approx(1.0, abs=2**-9)
    assert found[1] < 0.8

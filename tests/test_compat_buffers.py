"""Compounds of aihwkit that count what they read in a buffer: TTv2, c-TTv2, AGAD."""

from __future__ import annotations

import types
from typing import Any

import pytest

import pulseline as pl
from aihwkit_presets import (
    BufferedTransferCompound,
    ChoppedTransferCompound,
    DynamicTransferCompound,
)
from aihwkit_standins import UpdateParameters
from pulseline.algorithms import ChoppedTikiTaka2, Residual2, TikiTaka2
from pulseline.errors import ConfigError
from test_compat_transfers import TRANSFERS, changed, rule

pytestmark = pytest.mark.filterwarnings("ignore:aihwkit")


@pytest.mark.parametrize("kind", TRANSFERS[1:])
def test_what_buffers_share(kind: Any) -> None:
    assert changed(kind, momentum=0.5) == {"momentum": 0.5}
    assert changed(kind, forget_buffer=False) == {"forget": False}
    trains = UpdateParameters(desired_bl=7, update_management=False)
    assert changed(kind, transfer_update=trains) == {"max_pulses": 7}
    with pytest.raises(ConfigError, match=r"unit_cell_devices is \[.*\], which .*; give 2 devices"):
        rule(kind, arrays=3)


def test_thresholds() -> None:
    assert changed(BufferedTransferCompound, thres_scale=0.8) == {"threshold": 0.8}
    for kind in TRANSFERS[2:]:
        assert changed(kind, buffer_granularity=0.5) == {"threshold": 0.5}
        assert changed(kind, buffer_granularity=0.0) == {}
        assert changed(kind, auto_granularity=1000) == {"auto_granularity": 1000.0}
        # the period is what is written there, 2.5, also where it is 3 samples here
        found = changed(kind, auto_granularity=1000, transfer_every=2.5)
        assert found == {"auto_granularity": 1200.0, "every": 3}


def test_the_threshold_of_auto_granularity() -> None:
    """Rate per unit read: lr (cols N) / (g dA), whatever units N has."""
    step, cols = pl.devices.SoftBounds().granularity, 512
    array = types.SimpleNamespace(device=types.SimpleNamespace(granularity=step))
    cell = types.SimpleNamespace(shape=(256, cols), fast=array, granularity=step)
    for every, batches, batch in ((2.0, False, 8), (2.0, True, 8), (0.5, True, 8)):
        found = rule(
            ChoppedTransferCompound,
            batch,
            auto_granularity=1000,
            transfer_every=every,
            units_in_mbatch=batches,
        )
        wanted = 0.1 * cols * every / (1000 * step)
        assert found.transfer_rate(cell, 0.1) == pytest.approx(wanted, rel=1e-12)


def test_choppers() -> None:
    kind = ChoppedTransferCompound
    assert changed(kind, in_chop_prob=0.05) == {"chop": 0.05}
    assert changed(kind, in_chop_random=False) == {"regular_chop": True}
    assert changed(kind, out_chop_prob=0.02) == {"chop_rows": 0.02}
    assert changed(kind, no_buffer=True) == {"leak": 1.0}
    rows = rule(kind, in_chop_prob=0.0, out_chop_prob=0.02, in_chop_random=False)
    assert type(rows) is ChoppedTikiTaka2
    assert (rows.chop, rows.chop_rows, rows.regular_chop) == (0.0, 0.02, False)
    plain = rule(kind, in_chop_prob=0.0)
    assert type(plain) is TikiTaka2
    assert plain.granularity == "fast"
    assert type(rule(kind, in_chop_prob=0.0, gamma=0.5)) is Residual2


@pytest.mark.parametrize(("chop", "period"), [(0.1, 10), (0.05, 20), (0.3, 4), (0.9, 2)])
def test_warm_up(chop: float, period: int) -> None:
    """There is no pulse while the number of sweeps is not above a period."""
    found = rule(DynamicTransferCompound, in_chop_prob=chop, tail_weightening=3.0)
    assert (found.period, found.warm_up, found.tail) == (period, period + 1, 3.0)
    assert found.waits(period)
    assert not found.waits(period + 1)


@pytest.mark.parametrize("kind", TRANSFERS[2:])
def test_rates_that_scale_themselves(kind: Any) -> None:
    found = changed(kind, 8, auto_scale=True, auto_momentum=0.96)
    assert found == {"auto_scale": True, "auto_momentum": 1 - (1 - 0.96) / 8}
    assert changed(kind, auto_scale=True, fast_lr=0.0) == {"scale_fast": True}
    with pytest.raises(ConfigError, match=r"^batch is None, but device\.auto_scale is True, which"):
        rule(kind, auto_scale=True)


@pytest.mark.parametrize("kind", TRANSFERS[2:])
def test_corrected_magnitudes(kind: Any) -> None:
    """Over the fast rate, in slow steps: where both scale with lr it drops out."""
    values = {"correct_gradient_magnitudes": True, "fast_lr": 0.25, "transfer_lr": 0.5}
    found = rule(kind, **values)
    assert (found.granularity, found.lr_transfer, found.scale_transfer) == ("slow", 2.0, True)
    found = rule(kind, **values, scale_fast_lr=True)
    assert (found.granularity, found.lr_transfer, found.scale_transfer) == ("slow", 2.0, False)
    message = r"^aihwkit: device\.correct_gradient_magnitudes is True, which has no counterpart"
    for more in ({"auto_scale": True}, {"scale_fast_lr": True, "scale_transfer_lr": False}):
        with pytest.raises(ConfigError, match=message):
            rule(kind, 8, **values, **more)


def test_the_cap_of_a_buffer() -> None:
    """There it acts only where the buffer is not forgotten."""
    kind = DynamicTransferCompound
    assert changed(kind, buffer_cap=2.0) == {}
    with pytest.raises(ConfigError, match=r"^aihwkit: device\.buffer_cap is 2\.0, which has no c"):
        rule(kind, buffer_cap=2.0, forget_buffer=False)

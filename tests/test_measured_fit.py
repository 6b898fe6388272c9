"""Fits of measured curves give back devices that are known, within the errors that they state.

An error is that of one fit; five of them are exceeded by chance in fewer than 1e-6 of the numbers
compared. ``tests/synthetic_curves.py`` prints bias and spread over many repeats.
"""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from pulseline import ConfigError
from pulseline.devices import fit_measurements, from_measurements
from synthetic_curves import GRID, Truth, found, measure, stated, true, write


@pytest.mark.parametrize("truth", GRID.values(), ids=GRID.keys())
def test_known_devices_are_found(truth: Truth, tmp_path: Path) -> None:
    for seed in (101, 102):
        fit = fit_measurements(write(tmp_path / "curves.csv", measure(truth, seed)))
        mine, theirs, error = found(fit), true(truth, fit), stated(fit)
        for name, slack in error.items():
            assert mine[name] == pytest.approx(theirs[name], abs=5 * slack), name
        assert fit.devices == truth.devices
        assert fit.sweeps == 2 * truth.cycles * truth.devices


def test_stated_errors_are_those_of_repeats(tmp_path: Path) -> None:
    """The deviation of n = 24 fits is known to 1 / sqrt(2 (n - 1)) = 15 %; 4 of these and 15 %."""
    truth = Truth(cycles=3, read=0.02)
    path = tmp_path / "curves.csv"
    fits = [fit_measurements(write(path, measure(truth, seed))) for seed in range(24)]
    for name in stated(fits[0]):
        off = np.array([found(fit)[name] - true(truth, fit)[name] for fit in fits])
        ratio = off.std(ddof=1) / np.mean([stated(fit)[name] for fit in fits])
        assert 0.4 < ratio < 1.75, name
        assert abs(off.mean()) < 5 * off.std(ddof=1) / 24**0.5 + 0.5 * off.std(ddof=1), name


@pytest.mark.parametrize("skew", [0.0, 0.2])
def test_every_form_of_one_measurement_is_one_device(skew: float, tmp_path: Path) -> None:
    """Three cycles of two reads, numbers that count on or restart, rows in any order: one fit."""
    truth = Truth(devices=4, cycles=3, pulses=60, reads=2, skew=skew, read=0.02)
    path = tmp_path / "curves.csv"
    on, restart = measure(truth, 5), measure(truth, 5, restart=True)
    once = fit_measurements(write(path, on))
    mixed = random.Random(0).sample(on, len(on))
    restarted = random.Random(0).sample(restart, len(restart))
    for reads, cycle in ((mixed, False), (mixed, True), (on, True)):
        again = fit_measurements(write(path, reads, cycle))
        assert again.device == once.device
        assert again.summary() == once.summary()
    # other numbers, another order of the sweeps: sums differ in their last bits
    for reads, cycle in ((restart, False), (restarted, True), (restart, True)):
        again = fit_measurements(write(path, reads, cycle))
        assert again.device.parameters() == pytest.approx(once.device.parameters(), rel=1e-9)


def test_a_symmetric_device_is_symmetric(tmp_path: Path) -> None:
    """Up and down curves mirror each other about the middle, nodes within four errors.

    Without noise, devices start where they end: 200 pulses leave (1 - .03)^200 = .002 of the way.
    """
    truth = Truth(devices=2, cycles=3, pulses=200, c2c=0.0)
    fit = fit_measurements(write(tmp_path / "curves.csv", measure(truth, 0)))
    up, down = np.array(fit.device.piecewise_up), np.array(fit.device.piecewise_down)
    assert up == pytest.approx(down[::-1], abs=0.01)
    assert up == pytest.approx(np.linspace(2, 0, 8), abs=0.02)
    assert fit.symmetry_point == pytest.approx(0.0, abs=0.005)
    assert (fit.c2c, fit.read_noise, fit.d2d) == pytest.approx((0, 0, 0), abs=0.01)


def test_write_noise_is_what_reads_of_a_state_share(tmp_path: Path) -> None:
    truth = Truth(cycles=3, reads=4, read=0.02, write=0.03)
    fit = fit_measurements(write(tmp_path / "curves.csv", measure(truth, 3)))
    unit = fit.half_range / 5
    assert fit.read_noise * unit == pytest.approx(0.02, abs=5 * fit.read_noise_error * unit)
    # rho^2 of 4,848 states: relative error about sqrt(2 / 4848) times 2 for the noise of neighbours
    assert fit.write_noise * unit == pytest.approx(0.03, rel=5 * 2 * (2 / 4848) ** 0.5 / 2)
    assert fit.device.write_noise_std == pytest.approx(fit.write_noise / fit.device.dw_min)
    assert "write noise" in fit.summary()
    once = fit_measurements(write(tmp_path / "curves.csv", measure(Truth(write=0.03), 3)))
    assert once.write_noise == 0.0  # one read of a state: nothing tells the two apart


def test_cycles_without_order_are_not_reads(tmp_path: Path) -> None:
    reads = measure(Truth(devices=2, cycles=3), 0, restart=True)
    path = write(tmp_path / "curves.csv", sorted(reads, key=lambda row: row[3]))
    with pytest.raises(ConfigError, match="they are cycles and not reads of one state; add a col"):
        from_measurements(path)


def test_a_device_rests_at_a_hard_bound(tmp_path: Path) -> None:
    """Constant steps to a bound that 60 of 100 pulses push against: its range, and no softer end.

    A running mean of 25 rests has noise rho / 5, the highest of many three of it; nodes of 2 x 2 x
    16 sweeps' noise of 1 % of a step stay within a tenth but at the end, a step wide itself.
    """
    truth = Truth(cycles=2, step=0.05, bend=0.0, read=0.02)
    for seed in range(3):
        fit = fit_measurements(write(tmp_path / "curves.csv", measure(truth, seed)))
        assert fit.half_range / 5 == pytest.approx(1.0, abs=3 * 0.02 / 5)
        assert fit.device.piecewise_up[1:7] == pytest.approx([1.0] * 6, abs=0.1)
        assert fit.device.piecewise_down[1:7] == pytest.approx([1.0] * 6, abs=0.1)
        assert fit.device.piecewise_up[7] > 0.5


def test_spreads_are_freed_of_the_noise_of_fits(tmp_path: Path) -> None:
    """Equal devices: the spread that is found, squared, is small on average.

    Root means over these fits are .010 and .048; without the correction .030 and .145, the noise of
    a fit of one device.
    """
    truth = Truth(devices=24, read=0.04)
    path = tmp_path / "curves.csv"
    fits = [fit_measurements(write(path, measure(truth, seed))) for seed in range(6)]
    assert np.mean([fit.d2d**2 for fit in fits]) < 0.02**2
    assert np.mean([fit.device.tilt_up_dtod**2 for fit in fits]) < 0.06**2


def test_steps_of_many_pulses(tmp_path: Path) -> None:
    """Every tenth state: 8 x 10 x 2 x 10 steps, so c2c is known to 1 / sqrt(2 x 1,600) = 1.8 %.

    In a step of 10 pulses of 3 % noise of earlier ones fades by a quarter: 13 % of c2c.
    """
    truth = Truth(cycles=10, every=10)
    fit = fit_measurements(write(tmp_path / "curves.csv", measure(truth, 0)))
    assert fit.c2c == pytest.approx(0.3, rel=4 * 0.018)
    assert fit.device.dw_min * fit.half_range / 5 == pytest.approx(0.03, abs=5 * fit.dw_min_error)


def test_fields_may_be_replaced(tmp_path: Path) -> None:
    path = write(tmp_path / "curves.csv", measure(Truth(pulses=20), 0))
    assert from_measurements(path, w_max=0.5, write_noise_std=2.0).w_max == 0.5
    with pytest.raises(ConfigError, match="w_max is -1"):
        from_measurements(path, w_max=-1)


@pytest.mark.parametrize("points", [3, 4, 5, 9])
@pytest.mark.parametrize("devices", [1, 2])
def test_few_points_make_a_device(points: int, devices: int, tmp_path: Path) -> None:
    """Down sweeps must cross the middle: 3 points are steps of .4 of the way."""
    read = 0.01 if points > 3 else 0.0  # two steps tell nothing of their noise
    truth = Truth(devices=devices, pulses=points - 1, step=1.2 / points, c2c=0.1, read=read)
    for seed in range(5):
        path = write(tmp_path / "curves.csv", measure(truth, seed))
        assert 0.5 < from_measurements(path).dw_min * points < 5


def test_sweeps_that_miss_the_middle_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "curves.csv", measure(Truth(devices=2, pulses=2, step=0.2), 0))
    with pytest.raises(ConfigError, match="mean down step at mid range comes out as 0; measure"):
        from_measurements(path)

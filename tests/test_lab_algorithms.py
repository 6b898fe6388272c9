"""The experiments on algorithms: their broken twins, their ratios, their fit."""

from __future__ import annotations

import math
import warnings
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from torch import nn

from pulseline import algorithms as al
from pulseline.devices import SoftBounds
from pulseline.errors import ConfigError
from pulseline.lab.algorithms import Algorithms
from pulseline.lab.broken import broken
from pulseline.lab.claims_of_algorithms import exchanged
from pulseline.lab.claims_of_staleness import CHOPPED
from pulseline.lab.mutants import Row
from pulseline.lab.nets import DEEP, network
from pulseline.lab.stale_algorithms import chop_of, settles
from pulseline.lab.statistics import resampled
from pulseline.lab.tuned import NAMES, STATES, crossbar_of, states, tuned
from pulseline.optim import AnalogSGD
from pulseline.pipeline import Pipeline
from pulseline.pipeline.cautions import LEAST_PERIODS


def test_every_device_has_all_algorithms() -> None:
    """By the same names, each of its kind, and only what a device asks for differs."""
    kinds = {name: type(one.rule) for name, one in tuned("default").items()}
    for device in ("default", "deep", *map(str, STATES)):
        assert {name: type(one.rule) for name, one in tuned(device).items()} == kinds
        assert tuple(tuned(device)) == NAMES
    with pytest.raises(ConfigError, match="states holds 30; use some of 20, 50, 100, 1200"):
        Algorithms(states=(20, 30))


@pytest.mark.parametrize("count", STATES)
def test_devices_have_that_many_states(count: int) -> None:
    device = states(count, 0.25)
    assert (device.w_max - device.w_min) / device.dw_min == pytest.approx(count)
    assert device.reference_std == 0.25  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["TTv2", "c-TTv2", "AGAD", "E-RIDER", "mixed"])
def test_broken_twins_differ_by_their_error_alone(name: str) -> None:
    one = tuned("20")[name]
    words, twin = broken(name, one)
    assert words.startswith(f"{name} ")
    assert (twin.lr, twin.bl) == (one.lr, one.bl)
    assert isinstance(twin.rule, type(one.rule))
    changed = {
        key: value
        for key, value in twin.rule.settings().items()
        if one.rule.settings()[key] != value
    }  # type: ignore[union-attr]
    assert changed == ({"chop": 0.0} if name == "c-TTv2" else {})


def test_exchanged_is_its_own_inverse() -> None:
    rows: list[Row] = [
        {"a": v, "b": b, "n": n}
        for n, (v, b) in enumerate([("x", 1), ("y", 1), ("x", 2), ("z", 1)])
    ]
    bend = exchanged("a", "x", "y", b=1)
    copies = [dict(row) for row in rows]
    for row in copies:
        bend(row)
    assert [row["a"] for row in copies] == ["y", "x", "x", "z"]
    for row in copies:
        bend(row)
    assert copies == rows


@pytest.mark.parametrize("name", CHOPPED)
@pytest.mark.parametrize("batch", [16, 32])
def test_ratios_are_those_that_pipelines_warn_of(name: str, batch: int) -> None:
    """Below LEAST_PERIODS the pipeline of the experiment warns, just above it does not.

    Below by a sweep and more: regular choppers flip behind whole ones.
    """
    for ratio, warned in ((0.95, True), (1.01, False)):
        one = tuned("deep")[name]
        assert isinstance(one.rule, al.Transfer)
        rule = replace(one.rule, chop=chop_of(one, batch, ratio * LEAST_PERIODS))
        crossbar = crossbar_of(one._replace(rule=rule), SoftBounds())
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            Pipeline(
                network(DEEP, crossbar, 0),
                4,
                "async",
                optimizer=partial(AnalogSGD, lr=0.1),
                loss=nn.functional.cross_entropy,
                micro_batch_size=batch,
            )
        assert any("samples stale" in str(one.message) for one in found) is warned


def test_settles_is_where_the_last_cell_above_falls() -> None:
    """Halfway in log x between 4 and 16 at y = 3, 1: 8; a dip before does not count."""
    x = (1.0, 4.0, 16.0, 64.0)
    assert settles(x, (9.0, 3.0, 1.0, 0.0), 2.0) == pytest.approx(8.0)
    assert settles(x, (0.0, 3.0, 1.0, 0.0), 2.0) == pytest.approx(8.0)
    assert settles(x, (1.0, 1.0, 1.0, 1.0), 2.0) == 1.0
    assert settles(x, (9.0, 9.0, 9.0, 9.0), 2.0) == 64.0


def test_resampling_knows_a_mean() -> None:
    """95 % of a bootstrap of means of 400 normals: +-1.96 / 20 of their deviation, within 10 %
    (2,000 draws: the quantiles' own error is 4 %), and the same at every call."""
    values = np.random.default_rng(1).standard_normal((1, 400))
    found = resampled(values, lambda means: means[0])
    assert found.mean == pytest.approx(values.mean())
    half = 1.96 * values.std() / math.sqrt(400)
    assert found.high - found.low == pytest.approx(2 * half, rel=0.1)
    assert found == resampled(values, lambda means: means[0])

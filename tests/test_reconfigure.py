"""reconfigure: other converters, pulses and tiles under the same weights, devices and counters."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

import pulseline as pl
from pulseline.configs import IOConfig, Mapping, ReadConfig, UpdateConfig
from pulseline.errors import ConfigError
from pulseline.nn import AnalogLinear, reconfigure
from tiki_taka import TikiTaka
from twin_modules import numbers

COARSE = IOConfig(ReadConfig(out_res=1 / 6), ReadConfig(inp_res=1 / 6))
SHORT = UpdateConfig(desired_bl=5, fidelity="strict")
SMALL = Mapping(tile_in=3, tile_out=2)


def layer(**options: Any) -> AnalogLinear:
    options.setdefault("device", "soft_bounds")
    made = AnalogLinear(7, 5, seed=3, **options)
    made.cell.program(numbers(5, 7) / 4)
    return made


def train(model: nn.Module, steps: int) -> None:
    optimizer = pl.optim.AnalogSGD(model.parameters(), lr=0.1)
    for n in range(steps):
        optimizer.zero_grad()
        model(numbers(3, 7, seed=n)).square().mean().backward()
        optimizer.step()
    optimizer.zero_grad()


SETTINGS: dict[str, dict[str, Any]] = {
    "io": {"io": COARSE},
    "update": {"update": SHORT},
    "mapping": {"mapping": SMALL},
    "all": {"io": COARSE, "update": SHORT, "mapping": SMALL},
}


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS.keys())
@pytest.mark.parametrize("algorithm", [None, TikiTaka], ids=["single", "two arrays"])
def test_as_if_made_with_these_settings(settings: dict[str, Any], algorithm: Any) -> None:
    """Weights, devices and counters stay: bit for bit a layer that always had the settings."""
    one = layer(algorithm=algorithm)
    before = [a.state()["counters"] for a in one.cell.arrays]
    weights = [a.held.clone() for a in one.cell.arrays]
    assert reconfigure(one, **settings) is one
    assert [a.state()["counters"] for a in one.cell.arrays] == before
    for array, held in zip(one.cell.arrays, weights, strict=True):
        assert torch.equal(array.held, held)
    other = layer(algorithm=algorithm, **settings)
    assert pl.digest(one.state_dict()) == pl.digest(other.state_dict())
    assert (one.cell.io, one.cell.update_config) == (other.cell.io, other.cell.update_config)
    for model in (one, other):
        train(model, 3)
    assert pl.digest(one.state_dict()) == pl.digest(other.state_dict())
    x = numbers(4, 7)
    assert torch.equal(one.eval()(x), other.eval()(x))


def test_there_and_back_changes_no_bit() -> None:
    one, other = layer(), layer()
    train(one, 2)
    train(other, 2)
    reconfigure(one, io=COARSE, update=SHORT, mapping=SMALL)
    one.eval()(numbers(4, 7))
    reconfigure(one, io=IOConfig(), update=UpdateConfig(), mapping=Mapping())
    one.train()
    assert pl.digest(one.state_dict()) == pl.digest(other.state_dict())


def test_a_sweep_in_three_lines() -> None:
    """Coarser converters, larger errors, of one trained model."""
    model = pl.to_analog(nn.Sequential(nn.Linear(7, 5), nn.Tanh(), nn.Linear(5, 3)), seed=0)
    x = numbers(200, 7)
    model.requires_grad_(False)
    perfect = reconfigure(model, io=IOConfig.perfect()).eval()(x)
    errors = []
    for levels in (256.0, 1024.0, 4096.0):  # 4 times finer: 16 times less noise of rounding
        io = IOConfig(ReadConfig(out_res=levels, inp_res=0, out_noise=0.0))
        errors.append(float((reconfigure(model, io=io).eval()(x) - perfect).square().mean()))
    assert errors[0] > 4 * errors[1] > 16 * errors[2]


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"io": COARSE}, r"io\.forward\.out_res"),
        ({"update": SHORT}, r"update\.desired_bl"),
        ({"mapping": SMALL}, r"mapping\.tile_in"),
    ],
)
def test_a_state_of_other_settings(settings: dict[str, Any], field: str) -> None:
    """Refused by the name of the field, loaded behind reconfigure, and then anything again."""
    state = layer(**settings).state_dict()
    one = layer()
    with pytest.raises(ConfigError, match=rf"{field} was saved as .*reconfigure before it is"):
        one.load_state_dict(state)
    reconfigure(one, **settings).load_state_dict(state)
    default = {"io": IOConfig(), "update": UpdateConfig(), "mapping": Mapping()}
    reconfigure(one, **{name: default[name] for name in settings})
    assert pl.digest(one.state_dict()) == pl.digest(layer().state_dict())


def test_an_update_that_waits_is_refused() -> None:
    model = nn.Sequential(layer(), nn.Tanh(), AnalogLinear(5, 2, seed=9))
    optimizer = pl.optim.AnalogSGD(model.parameters(), lr=0.1)
    model(numbers(3, 7)).sum().backward()
    before = pl.digest(model.state_dict())
    words = "an update of matrix 0 is pending, which other settings would change; call step"
    with pytest.raises(ConfigError, match=words):
        reconfigure(model, io=COARSE)
    assert pl.digest(model.state_dict()) == before
    optimizer.step()
    reconfigure(model, io=COARSE)  # what a step has pulsed does not wait


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "nothing": ({}, "reconfigure is given no settings"),
    "type": ({"io": SHORT}, "io is UpdateConfig.*use an instance of IOConfig"),
    "noise": ({"update": UpdateConfig(noise="lowrank")}, "lowrank"),
}


@pytest.mark.parametrize(("settings", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_refused_changes_nothing(settings: dict[str, Any], words: str) -> None:
    model = nn.Sequential(layer(), layer(device="reram_array_om"))  # whose default is strict
    before = copy.deepcopy([m.cell.crossbar for m in model])
    with pytest.raises(ConfigError, match=words):
        reconfigure(model, **settings)
    assert [m.cell.crossbar for m in model] == before


def test_a_digital_model_is_refused() -> None:
    with pytest.raises(ConfigError, match="Tanh has no analog layer; convert it by to_analog"):
        reconfigure(nn.Tanh(), io=COARSE)


@pytest.mark.parametrize("name", ["io", "update_config", "mapping"])
def test_an_assignment_says_how(name: str) -> None:
    one = layer()
    for owner in (one, one.cell, one.cell.array):
        with pytest.raises(ConfigError, match=rf"{name} of .* is assigned .*; pulseline\.nn\.rec"):
            setattr(owner, name, None)

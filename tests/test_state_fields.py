"""Every field of every setting in a state: saved, compared, and inert where a state lacks it."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import nn

import pulseline as pl
from pulseline.configs import IOConfig, Mapping, ReadConfig, UpdateConfig
from pulseline.devices import DEVICES, Ideal, PiecewiseStep, SoftBounds
from pulseline.digest import digest
from pulseline.errors import ConfigError
from pulseline.nn import AnalogLinear
from pulseline.ops import ReadSettings
from pulseline.settings import inert_values, saved_fields, setting
from test_nn import network
from test_state import saved

KINDS: list[type] = [*DEVICES.values(), Ideal, ReadConfig, UpdateConfig, Mapping]
# Fields for which no value stands for "there was no such thing".
NEEDED = {
    "PulsedDevice": {"dw_min", "w_max", "w_min", "corrupt_devices_range"},
    "SoftBounds": {"mult_noise"},
    "LinearStep": {"mult_noise", "mean_bound_reference"},
    "SoftBoundsReference": {"mult_noise"},
    "ExpStep": {"a_up", "a_down", "gamma_up", "gamma_down", "a", "b"},
    "PowStep": {"pow_gamma"},
    "PowStepReference": {"pow_gamma"},
    "PiecewiseStep": {"piecewise_up", "piecewise_down"},
    "ReadConfig": {"nm_decay", "ir_tolerance"},
    "UpdateConfig": {"desired_bl", "fixed_bl", "fidelity"},
    "Mapping": {"tile_in", "tile_out"},
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_field_says_what_its_absence_means(kind: type) -> None:
    """A new field has to say so too: it is inert, or it joins NEEDED with a new format."""
    needed = set(NEEDED.get(kind.__name__, ()))
    if kind in DEVICES.values():
        needed |= NEEDED["PulsedDevice"]
    assert {one.name for one in saved_fields(kind)} - set(inert_values(kind)) == needed


def test_inert_reads_are_perfect_and_inert_devices_alike() -> None:
    """The values are not made up: together they leave nothing of what they switch off."""
    config = ReadConfig(**inert_values(ReadConfig))
    plain = IOConfig(config, config)
    assert config.plain
    assert ReadSettings.of(config) == ReadSettings.of(ReadConfig.perfect())
    for kind in DEVICES.values():
        device = kind(**inert_values(kind))
        tile = pl.Array(6, 7, device, io=plain)
        lo, hi = tile.bounds
        assert len(lo.unique()) == len(hi.unique()) == 1
        assert tile.hidden is None
        assert not device.ages
        assert device.up_down == device.dw_min_std == device.reset_std == 0
        assert tile.crosspoints.step is not None
        assert len(tile.crosspoints.step.unique()) == 1


def tile_of(kind: type, **values: Any) -> pl.Array:
    """A tile with this setting; the backward read is the other direction's default."""
    one = kind(**values)
    if isinstance(one, ReadConfig):
        return pl.Array(2, 3, io=IOConfig(one))
    where = {UpdateConfig: "update", Mapping: "mapping"}.get(kind, "device")
    return pl.Array(2, 3, **{where: one})


SECTION = {ReadConfig: "forward", UpdateConfig: "update", Mapping: "mapping"}


@pytest.mark.parametrize("kind", KINDS)
def test_a_state_without_a_field_has_its_inert_value(kind: type) -> None:
    inert, section = inert_values(kind), SECTION.get(kind, "device")
    old, default = tile_of(kind, **inert), tile_of(kind)
    for one in saved_fields(kind):
        state = old.state()
        del state[section][one.name]
        if one.name not in inert:
            with pytest.raises(ConfigError, match=rf"\.{one.name} is not in the state"):
                old.load_state(state)
            continue
        old.load_state(state)
        assert old.state()[section][one.name] == inert[one.name]
        # Never today's default: a tile of that refuses, unless the two are equal.
        state = default.state()
        del state[section][one.name]
        if getattr(kind(), one.name) == inert[one.name]:
            default.load_state(state)
        else:
            with pytest.raises(ConfigError, match=rf"\.{one.name} \(not in the state\) was"):
                default.load_state(state)


@pytest.mark.parametrize("kind", KINDS)
def test_every_field_is_saved_and_compared(kind: type) -> None:
    section, tile = SECTION.get(kind, "device"), tile_of(kind)
    assert list(tile.state()[section]) == [one.name for one in saved_fields(kind)]
    for name, value in tile.state()[section].items():
        state = copy.deepcopy(tile.state())
        state[section][name] = "other" if isinstance(value, str) else 77
        with pytest.raises(ConfigError, match=rf"\.{name} was saved as ('other'|77) and is"):
            tile.load_state(state)
    tile.load_state(tile.state())


def test_floats_come_back_exactly_and_equal_numbers_are_equal_settings() -> None:
    third, tiny = 1 / 3, 5e-324
    device = PiecewiseStep(dw_min=third, up_down=tiny, piecewise_up=(0.1, third, 1))
    layer = nn.Sequential(AnalogLinear(3, 2, device=device))
    state = saved(layer)["0.cell._extra_state"]["arrays"][0]["device"]
    assert (state["dw_min"], state["up_down"]) == (third, tiny)
    assert state["piecewise_up"] == [0.1, third, 1.0]
    layer.load_state_dict(saved(layer))
    a = network(device=SoftBounds(w_max=1, w_min=-1, up_down=-0.0, mult_noise=1))  # type: ignore[arg-type]
    b = network(device=SoftBounds(w_max=1.0, w_min=-1.0, up_down=0.0, mult_noise=True))
    assert digest(a.state_dict()) == digest(b.state_dict())
    b.load_state_dict(saved(a))


def test_a_field_that_is_no_physics_is_in_no_state() -> None:
    @dataclass(frozen=True)
    class Crossbar(Mapping):
        products: str = setting("torch", physics=False)

    tile = pl.Array(2, 3, mapping=Crossbar(products="fused"))
    assert tile.state() == pl.Array(2, 3, seed=tile.identity).state()
    tile.load_state(pl.Array(2, 3).state())


def test_how_it_is_computed_is_no_part_of_the_state() -> None:
    threads = torch.get_num_threads()
    model = network()
    state = saved(model)
    try:
        torch.set_num_threads(2)
        model.load_state_dict(state)
        assert digest(model.state_dict()) == digest(state)
    finally:
        torch.set_num_threads(threads)

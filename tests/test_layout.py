"""Names across the seam: what a compiled module exports is what Python packs, or nothing loads."""

from __future__ import annotations

import dataclasses
import types
from pathlib import Path

import pytest

from emulated import Emulated, build
from pulseline import _cpu, ops
from pulseline.configs import ReadConfig, UpdateConfig
from pulseline.devices import Ideal, SoftBounds
from pulseline.devices.pulsed import RETENTION
from pulseline.errors import ConfigError
from pulseline.ops import layout


def test_compiled_names() -> None:
    assert layout.LAYOUT == _cpu.LAYOUT
    assert _cpu.LAYOUT["RetentionSettings"] == ", ".join(RETENTION)
    assert SoftBounds(lifetime=9.0).retention()[RETENTION.index("lifetime")] == 9.0


def test_names_of_the_cuda_module(pytestconfig: pytest.Config) -> None:
    assert pytestconfig.cache is not None
    emulated = Emulated(build(Path(pytestconfig.cache.mkdir("emulator"))))
    assert emulated.module.LAYOUT == layout.LAYOUT


@pytest.mark.parametrize("kind", layout.LAYOUT)
def test_another_layout_does_not_load(kind: str) -> None:
    """Of the same length, one field later than another; longer; missing."""
    first, *fields = layout.LAYOUT[kind].split(", ")
    swapped = ", ".join((fields[0], first, *fields[1:]))
    for text in (swapped, f"{layout.LAYOUT[kind]}, more", None):
        found = dict(layout.LAYOUT)
        if text is None:
            del found[kind]
        else:
            found[kind] = text
        module = types.SimpleNamespace(__name__="_cpu", LAYOUT=found)
        with pytest.raises(ImportError, match=rf"^_cpu takes {kind} as .*; build both again$"):
            layout.check_layout(module)


def test_settings_of_another_length_reach_no_kernel() -> None:
    pulses = ops.PulseSettings.of(UpdateConfig(), SoftBounds())
    assert _cpu.core.manage(0.1, pulses, 1.0, 1.0)[0] == 31
    with pytest.raises(ConfigError, match="PulseSettings has 7 numbers; use its 8 fields: granu"):
        _cpu.core.manage(0.1, pulses[:-1], 1.0, 1.0)
    with pytest.raises(ConfigError, match="PulseSettings has 9 numbers"):
        _cpu.core.manage(0.1, (*pulses, 0.0), 1.0, 1.0)
    with pytest.raises(ConfigError, match="noise is 'iid'; use a whole number from 0 to 1"):
        _cpu.core.manage(0.1, (*pulses[:-1], "iid"), 1.0, 1.0)


def test_defaults_are_a_plain_read() -> None:
    """Whatever the options' own strengths are, no option is on."""
    packed = ops.ConverterSettings.of(ReadConfig())
    off = ops.ConverterSettings(nm_decay=0.001, advance=1.0)
    assert packed == off
    assert ReadConfig().plain
    assert not ReadConfig(out_sto_round=True).plain


def test_fields_follow_the_configuration() -> None:
    read = ReadConfig(out_nonlinearity=0.6, out_bound=3.0, bound_management="none", inp_res=0.0)
    packed = ops.ReadSettings.of(dataclasses.replace(read, inp_bound=-1.0), out_scale=2.0)
    assert (packed.inp_bound, packed.max_rounds, packed.out_scale) == (0.0, 0.0, 2.0)
    assert ops.ConverterSettings.of(read).nonlinearity == 0.6 / 3.0
    assert ops.ConverterSettings.of(read, advance=False).advance == 0.0
    device = SoftBounds(dw_min=0.002)
    pulses = ops.PulseSettings.of(UpdateConfig(desired_bl=7, noise="lowrank"), device)
    assert (pulses.desired_bl, pulses.noise, pulses.granularity) == (7.0, 1.0, device.granularity)
    assert pulses.coarseness == device.granularity / (device.w_max - device.w_min)
    ideal = ops.PulseSettings.of(UpdateConfig(), Ideal())
    assert (ideal.granularity, ideal.coarseness) == (1.0, 1.0)

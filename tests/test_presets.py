"""Presets: all of physics.md section 3 but the one-sided cell, and what they draw."""

from __future__ import annotations

import pytest
import torch

from pulseline import presets, reference
from pulseline.devices import ExpStep, LinearStep, PulsedDevice, SoftBoundsReference
from pulseline.errors import ConfigError
from pulseline.reference import Crosspoints

NAMES = (
    "gokmen_vlasov",
    "idealized",
    "reram_es",
    "reram_sb",
    "capacitor",
    "ecram",
    "ecram_mo",
    "reram_array_om",
    "reram_array_hfo2",
)


def test_list() -> None:
    assert presets.list() == NAMES
    assert presets.get("reram_es") is presets.ReRamES
    with pytest.raises(ConfigError, match=r"^preset is 'xyz'; use one of gokmen_vlasov, "):
        presets.get("xyz")
    with pytest.raises(ConfigError, match=r"^preset is 'rram_es'; did you mean reram_es or reram"):
        presets.get("rram_es")


@pytest.mark.parametrize("name", NAMES)
def test_every_preset_builds_a_population(name: str) -> None:
    device = presets.get(name)
    assert isinstance(device, PulsedDevice)
    c = Crosspoints.unpack(reference.construct(device, 40, 50))
    for value in (c.up, c.hi, -c.down, -c.lo):
        assert (value >= 0).all()
        assert torch.isfinite(value).all()
    assert abs(device.w_max - c.hi.mean()) < 0.25 * device.w_max


def test_published_values() -> None:
    """A few numbers of each paper's table, and the model each belongs to."""
    assert isinstance(presets.ReRamES, ExpStep)
    up, down = presets.ReRamES.nominal_steps()
    assert (round(up, 7), round(down, 7)) == (0.0014813, 0.0019914)
    assert isinstance(presets.ReRamSB, SoftBoundsReference)
    assert not presets.ReRamSB.mult_noise
    assert isinstance(presets.Capacitor, LinearStep)
    assert (presets.Capacitor.lifetime, presets.Capacitor.mult_noise) == (1e6, False)
    assert (presets.EcRam.gamma_up, presets.EcRam.gamma_down) == (0.1153, 0.5085)
    assert presets.EcRamMO.dw_min_std == 2.0
    assert presets.Idealized.up_down_dtod == 0.0
    for device in (presets.ReRamArrayOM, presets.ReRamArrayHfO2):
        assert device.dw_min_dtod_log_normal
        assert device.subtract_symmetry_point
        assert device.default_fidelity == "strict"


def test_ecram_is_symmetric_at_zero() -> None:
    """The range is shifted so that up and down are equal at w = 0."""
    for device in (presets.EcRam, presets.EcRamMO):
        up, down = device.nominal_steps()
        assert up == down

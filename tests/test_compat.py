"""aihwkit's configurations, seen through stand-ins that have its attribute names and defaults."""

from __future__ import annotations

import dataclasses
import math
import sys
from dataclasses import dataclass
from typing import Any

import pytest
import torch

import aihwkit_standins
import pulseline as pl
from aihwkit_presets import UnitCell
from aihwkit_standins import (
    AnalogMVType,
    BoundManagementType,
    DriftParameter,
    ExpStepDevice,
    IdealDevice,
    IOParameters,
    MappingParameter,
    ModifierType,
    NoiseManagementType,
    Part,
    PulseType,
    ReRamESPresetDevice,
    SingleRPUConfig,
    SoftBoundsDevice,
    SoftBoundsPmaxDevice,
    UpdateParameters,
    WeightNoiseType,
)
from pulseline.compat import from_aihwkit
from pulseline.compat.single import MODELS, OFF_DEVICE
from pulseline.configs import IOConfig, Mapping, ReadConfig, UpdateConfig
from pulseline.errors import ConfigError

# What differs is said by warnings; test_compat_differences.py reads them.
pytestmark = pytest.mark.filterwarnings("ignore:aihwkit")


def test_defaults() -> None:
    """Both sides have the same defaults; a weight noise without type is none."""
    device, io, update, mapping, algorithm, fast = from_aihwkit(SingleRPUConfig())
    assert algorithm is None
    assert fast is None
    # theirs are the values of PulsedDevice, whatever further fields ours has
    assert isinstance(device, pl.devices.ConstantStep)
    assert device.dw_min == 0.001
    assert device.w_max == 0.6
    assert io.forward == dataclasses.replace(ReadConfig(), max_rounds=5)  # .25 x 126 < 2^5
    assert io.backward == dataclasses.replace(io.forward, bound_management="none")
    assert update == UpdateConfig()
    assert mapping == Mapping()
    noisy = SingleRPUConfig(forward=IOParameters(w_noise=0.1))
    assert from_aihwkit(noisy).io.forward.w_noise == 0.0


def test_it_is_not_imported() -> None:
    from_aihwkit(SingleRPUConfig())
    assert not any(name.split(".")[0] == "aihwkit" for name in sys.modules)


def test_a_preset_is_its_model() -> None:
    """Found by the names of its classes; fields by name, whatever their case."""
    device = from_aihwkit(SingleRPUConfig(device=ReRamESPresetDevice(up_down=0.25))).device
    assert isinstance(device, pl.devices.ExpStep)
    assert (device.dw_min, device.a_up, device.up_down, device.b) == (
        0.00135,
        -1.18445,
        0.25,
        0.2425,
    )
    soft = from_aihwkit(SingleRPUConfig(device=SoftBoundsDevice(mult_noise=False))).device
    assert isinstance(soft, pl.devices.SoftBounds)
    assert not soft.mult_noise
    assert from_aihwkit(SingleRPUConfig(device=IdealDevice())).device == pl.devices.Ideal()


CHANGED: dict[str, Any] = {  # one setting of each model, so that a default cannot pass for it
    "ConstantStep": {"dw_min": 0.004},
    "LinearStep": {"gamma_up": 0.25, "mult_noise": False},
    "SoftBounds": {"mult_noise": False},
    "SoftBoundsReference": {"reference_std": 0.125},
    "ExpStep": {"gamma_up": 10.0},
    "PowStep": {"pow_gamma": 1.5},
    "PowStepReference": {"reference_mean": 0.25},
    "PiecewiseStep": {"piecewise_up": (2.0, 1.0, 0.5)},
}


@pytest.mark.parametrize("name", CHANGED)
def test_every_single_device(name: str) -> None:
    """Its values become those of our model of the same name, and it takes pulses."""
    values = {key: list(v) if isinstance(v, tuple) else v for key, v in CHANGED[name].items()}
    device = from_aihwkit(
        SingleRPUConfig(device=getattr(aihwkit_standins, f"{name}Device")(**values))
    ).device
    assert type(device).__name__ == name
    for key, value in {**CHANGED[name], "w_max_dtod": 0.3, "up_down_dtod": 0.01}.items():
        assert getattr(device, key) == value
    tile = pl.Array(3, 4, device)
    tile.pulse(torch.ones(2, 4), torch.ones(2, 3), 0.01)
    assert (tile.weight.data < 0).any()


def test_every_known_class_is_tested() -> None:
    """What aihwkit has decides; a model that it lacks asks for nothing here."""
    assert {f"{name}Device" for name in CHANGED} | {"SoftBoundsPmaxDevice"} == set(MODELS)


def test_what_switches_off_is_asked() -> None:
    """A field that our models have too goes over and never comes to the list of what is off."""
    ours = {field.name for field in dataclasses.fields(pl.devices.PulsedDevice)}
    assert not ours & set(OFF_DEVICE)


def test_a_curve_between_two_weights() -> None:
    """Bounds and steps follow from the curve, whatever the derived fields say."""
    theirs = SoftBoundsPmaxDevice(p_max=500, alpha=1e-3, dw_min_std=0.1)
    device = from_aihwkit(SingleRPUConfig(device=theirs)).device
    ours = pl.devices.SoftBoundsPmax(500, 1e-3, -1.0, 1.0, dw_min_std=0.1)
    for name in ("w_min", "w_max", "dw_min", "up_down", "dw_min_std"):
        assert getattr(device, name) == getattr(ours, name)


def test_a_cell_of_no_kind_is_refused() -> None:
    """What there is only the base of cells says nothing."""
    message = (
        r"^aihwkit: device is 'UnitCell', which has no counterpart here; use one of .*Compound"
    )
    with pytest.raises(ConfigError, match=message):
        from_aihwkit(SingleRPUConfig(device=UnitCell([ExpStepDevice(), ExpStepDevice()])))


def test_reads() -> None:
    forward = IOParameters(
        mv_type=AnalogMVType.POS_NEG_SEPARATE_DIGITAL_SUM,
        inp_asymmetry=0.1,
        inp_sto_round=True,
        out_bound=math.inf,
        out_res=0.0,
        noise_management=NoiseManagementType.CONSTANT,
        nm_thres=2.0,
        w_noise=0.01,
        w_noise_type=WeightNoiseType.PCM_READ,
        ir_drop=2.0,
        ir_drop_g_ratio=4000.0,
        max_bm_factor=64,
        max_bm_res=0.0,
    )
    got = from_aihwkit(SingleRPUConfig(forward=forward)).io.forward
    assert got == ReadConfig(
        mv_type="pos_neg_separate_digital_sum",
        inp_asymmetry=0.1,
        inp_sto_round=True,
        out_bound=0.0,
        out_res=0.0,
        noise_management="constant",
        nm_thres=2.0,
        w_noise=0.01,
        w_noise_type="pcm_read",
        ir_drop="approx",
        wire_resistance=5e-4,
        max_rounds=7,
    )
    perfect = SingleRPUConfig(
        forward=IOParameters(is_perfect=True, out_scale=3.0),
        backward=IOParameters(mv_type=AnalogMVType.IDEAL),
    )
    assert from_aihwkit(perfect).io == IOConfig.perfect()
    asymmetric = SingleRPUConfig(forward=IOParameters(out_asymmetry=0.3))  # one pass: no effect
    assert from_aihwkit(asymmetric).io.forward.out_asymmetry == 0.0


def test_update_and_mapping() -> None:
    config = SingleRPUConfig(
        update=UpdateParameters(desired_bl=10, update_management=False, fixed_bl=False),
        mapping=MappingParameter(max_input_size=256, max_output_size=0, weight_scaling_omega=0.6),
    )
    update, mapping = from_aihwkit(config)[2:4]
    assert update == UpdateConfig(desired_bl=10, update_management=False, fixed_bl=False)
    assert mapping == Mapping(tile_in=256, tile_out=1 << 30, omega=0.6)


def test_the_result_works() -> None:
    """A layer of it reads and steps."""
    device, io, update, mapping = from_aihwkit(SingleRPUConfig(device=SoftBoundsDevice()))[:4]
    tile = pl.Array(3, 4, device, io=io, update=update, mapping=mapping)
    tile.initialise()
    before = tile.weight.data.clone()
    tile.pulse(torch.ones(2, 4), torch.ones(2, 3), 0.01)
    assert not torch.equal(tile.weight.data, before)


def io(**values: Any) -> SingleRPUConfig:
    return SingleRPUConfig(forward=IOParameters(**values))


def device(**values: Any) -> SingleRPUConfig:
    return SingleRPUConfig(device=SoftBoundsDevice(**values))


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("device", SingleRPUConfig(device=UnitCell())),
        ("device.reverse_up", device(reverse_up=True)),
        ("device.perfect_bias", device(perfect_bias=True)),
        ("device.construction_seed", device(construction_seed=5)),
        ("device.drift.nu", device(drift=DriftParameter(nu=0.1))),
        ("device.lifetime", SingleRPUConfig(device=IdealDevice(lifetime=10.0))),
        ("forward.out_scale", io(out_scale=2.0)),
        ("forward.v_offset_std", io(v_offset_std=0.1)),
        ("forward.r_series", io(r_series=0.1)),
        ("forward.noise_management", io(noise_management=NoiseManagementType.ABS_MAX_NP_SUM)),
        ("forward.bound_management", io(bound_management=BoundManagementType.SHIFT)),
        ("backward.out_scale", SingleRPUConfig(backward=IOParameters(out_scale=2.0))),
        (
            "update.pulse_type",
            SingleRPUConfig(update=UpdateParameters(pulse_type=PulseType.MEAN_COUNT)),
        ),
        ("update.res", SingleRPUConfig(update=UpdateParameters(res=0.01))),
        ("update.um_grad_scale", SingleRPUConfig(update=UpdateParameters(um_grad_scale=0.5))),
        ("mapping.digital_bias", SingleRPUConfig(mapping=MappingParameter(digital_bias=False))),
        (
            "mapping.learn_out_scaling",
            SingleRPUConfig(mapping=MappingParameter(learn_out_scaling=True)),
        ),
        ("modifier.type", SingleRPUConfig(modifier=Part(ModifierType.ADD_NORMAL))),
    ],
)
def test_no_counterpart(name: str, config: SingleRPUConfig) -> None:
    with pytest.raises(ConfigError, match=rf"^aihwkit: {name} is .+, which has no counterpart"):
        from_aihwkit(config)


def test_a_bad_value_is_refused_by_ours() -> None:
    with pytest.raises(ConfigError, match=r"^SoftBounds: dw_min is -1; use a step > 0$"):
        from_aihwkit(device(dw_min=-1))


def test_an_unknown_field_is_refused() -> None:
    @dataclass
    class More(IOParameters):
        out_surprise: float = 0.0

    with pytest.raises(ConfigError, match=r"^aihwkit: forward\.out_surprise is 0\.0, which"):
        from_aihwkit(SingleRPUConfig(forward=More()))

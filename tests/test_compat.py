"""aihwkit's configurations, seen through stand-ins that have its attribute names and defaults."""

from __future__ import annotations

import dataclasses
import enum
import math
import sys
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch

import pulseline as pl
from pulseline.compat import from_aihwkit
from pulseline.compat.aihwkit import _OFF_DEVICE, MODELS
from pulseline.configs import IOConfig, Mapping, ReadConfig, UpdateConfig
from pulseline.errors import ConfigError

# What differs is said by warnings; test_compat_differences.py reads them.
pytestmark = pytest.mark.filterwarnings("ignore:aihwkit")


class NoiseManagementType(enum.Enum):
    NONE = "None"
    ABS_MAX = "AbsMax"
    ABS_MAX_NP_SUM = "AbsMaxNPSum"
    CONSTANT = "Constant"
    AVERAGE_ABS_MAX = "AverageAbsMax"


class BoundManagementType(enum.Enum):
    NONE = "None"
    ITERATIVE = "Iterative"
    SHIFT = "Shift"


class WeightNoiseType(enum.Enum):
    NONE = "None"
    ADDITIVE_CONSTANT = "AdditiveConstant"
    PCM_READ = "PCMRead"


class AnalogMVType(enum.Enum):
    IDEAL = "Ideal"
    ONE_PASS = "OnePass"
    POS_NEG_SEPARATE = "PosNegSeparate"
    POS_NEG_SEPARATE_DIGITAL_SUM = "PosNegSeparateDigitalSum"


class PulseType(enum.Enum):
    STOCHASTIC_COMPRESSED = "StochasticCompressed"
    MEAN_COUNT = "MeanCount"


class ModifierType(enum.Enum):
    NONE = "None"
    ADD_NORMAL = "AddNormal"


@dataclass
class IOParameters:
    is_perfect: bool = False
    mv_type: AnalogMVType = AnalogMVType.ONE_PASS
    inp_bound: float = 1.0
    inp_noise: float = 0.0
    inp_res: float = 1 / 126
    inp_sto_round: bool = False
    inp_asymmetry: float = 0.0
    out_bound: float = 12.0
    out_noise: float = 0.06
    out_noise_std: float = 0.0
    out_res: float = 1 / 510
    out_sto_round: bool = False
    out_scale: float = 1.0
    out_asymmetry: float = 0.0
    bound_management: BoundManagementType = BoundManagementType.ITERATIVE
    noise_management: NoiseManagementType = NoiseManagementType.ABS_MAX
    w_noise: float = 0.0
    w_noise_type: WeightNoiseType = WeightNoiseType.NONE
    ir_drop: float = 0.0
    ir_drop_g_ratio: float = 1.0 / 0.35 / 5e-6
    out_nonlinearity: float = 0.0
    out_nonlinearity_std: float = 0.0
    slope_calibration: float = 0.0
    v_offset_std: float = 0.0
    v_offset_w_min: float = -1.0
    r_series: float = 0.0
    w_read_asymmetry_dtod: float = 0.0
    max_bm_factor: int = 1000
    max_bm_res: float = 0.25
    bm_test_negative_bound: bool = True
    nm_thres: float = 0.0


@dataclass
class UpdateParameters:
    desired_bl: int = 31
    fixed_bl: bool = True
    pulse_type: PulseType = PulseType.STOCHASTIC_COMPRESSED
    res: float = 0
    x_res_implicit: float = 0
    d_res_implicit: float = 0
    d_sparsity: bool = False
    sto_round: bool = False
    update_bl_management: bool = True
    update_management: bool = True
    um_grad_scale: float = 1.0


@dataclass
class MappingParameter:
    digital_bias: bool = True
    weight_scaling_omega: float = 0.0
    weight_scaling_columnwise: bool = False
    weight_scaling_lr_compensation: bool = False
    learn_out_scaling: bool = False
    out_scaling_columnwise: bool = False
    max_input_size: int = 512
    max_output_size: int = 512


@dataclass
class DriftParameter:
    nu: float = 0.0
    t_0: float = 1.0


@dataclass
class PulsedDevice:
    bindings_class = "PulsedResistiveDeviceParameter"
    construction_seed: int = 0
    corrupt_devices_prob: float = 0.0
    corrupt_devices_range: int = 1000
    diffusion: float = 0.0
    diffusion_dtod: float = 0.0
    drift: DriftParameter = field(default_factory=DriftParameter)
    dw_min: float = 0.001
    dw_min_dtod: float = 0.3
    dw_min_dtod_log_normal: bool = False
    dw_min_std: float = 0.3
    enforce_consistency: bool = True
    lifetime: float = 0.0
    lifetime_dtod: float = 0.0
    perfect_bias: bool = False
    reset: float = 0.01
    reset_dtod: float = 0.0
    reset_std: float = 0.01
    up_down: float = 0.0
    up_down_dtod: float = 0.01
    w_max: float = 0.6
    w_max_dtod: float = 0.3
    w_min: float = -0.6
    w_min_dtod: float = 0.3
    count_pulses: bool = False

    def as_bindings(self) -> None:
        raise AssertionError("nobody calls this")


@dataclass
class ConstantStepDevice(PulsedDevice):
    pass


@dataclass
class SoftBoundsDevice(PulsedDevice):
    mult_noise: bool = True
    write_noise_std: float = 0.0
    apply_write_noise_on_set: bool = True
    reverse_up: bool = False
    reverse_down: bool = False
    reverse_offset: float = 0.01


@dataclass
class ExpStepDevice(PulsedDevice):
    A_up: float = 0.00081
    A_down: float = 0.36833
    gamma_up: float = 12.44625
    gamma_down: float = 12.78785
    a: float = 0.244
    b: float = 0.2425
    write_noise_std: float = 0.0


@dataclass
class ReRamESPresetDevice(ExpStepDevice):
    dw_min: float = 0.00135
    A_up: float = -1.18445


@dataclass
class IdealDevice:
    construction_seed: int = 0
    diffusion: float = 0.0
    lifetime: float = 0.0
    reset_std: float = 0.01


@dataclass
class LinearStepDevice(PulsedDevice):
    gamma_up: float = 0.0
    gamma_down: float = 0.0
    gamma_up_dtod: float = 0.05
    gamma_down_dtod: float = 0.05
    allow_increasing: bool = False
    mean_bound_reference: bool = True
    mult_noise: bool = True
    write_noise_std: float = 0.0
    reverse_up: bool = False
    reverse_down: bool = False
    reverse_offset: float = 0.01


@dataclass
class SoftBoundsPmaxDevice(SoftBoundsDevice):
    p_max: int = 1000
    alpha: float = 0.0005
    range_min: float = -1.0
    range_max: float = 1.0
    # derived there, whatever they say
    w_min: float = 99.0
    w_max: float = -99.0
    dw_min: float = -1.0
    up_down: float = 7.0


@dataclass
class SoftBoundsReferenceDevice(PulsedDevice):
    slope_up_dtod: float = 0.0
    slope_down_dtod: float = 0.0
    reference_mean: float = 0.0
    reference_std: float = 0.05
    subtract_symmetry_point: bool = False
    mult_noise: bool = False
    write_noise_std: float = 0.0


@dataclass
class PowStepDevice(PulsedDevice):
    pow_gamma: float = 1.0
    pow_gamma_dtod: float = 0.1
    pow_up_down: float = 0.0
    pow_up_down_dtod: float = 0.0
    write_noise_std: float = 0.0


@dataclass
class PowStepReferenceDevice(PowStepDevice):
    reference_mean: float = 0.0
    reference_std: float = 0.05
    subtract_symmetry_point: bool = False
    n_estimation_steps: int = -1


@dataclass
class PiecewiseStepDevice(PulsedDevice):
    piecewise_up: list[float] = field(default_factory=lambda: [1])
    piecewise_down: list[float] = field(default_factory=lambda: [1])
    write_noise_std: float = 0.0


@dataclass
class OneSidedUnitCell:
    unit_cell_devices: tuple[Any, ...] = ()
    refresh_every: int = 0


@dataclass
class PCMPresetDevice(OneSidedUnitCell):
    pass


@dataclass
class TransferCompound:
    unit_cell_devices: tuple[Any, ...] = ()


@dataclass
class Part:
    type: ModifierType = ModifierType.NONE


@dataclass
class SingleRPUConfig:
    device: Any = field(default_factory=ConstantStepDevice)
    forward: IOParameters = field(default_factory=IOParameters)
    backward: IOParameters = field(default_factory=IOParameters)
    update: UpdateParameters = field(default_factory=UpdateParameters)
    mapping: MappingParameter = field(default_factory=MappingParameter)
    modifier: Part = field(default_factory=Part)
    clip: Part = field(default_factory=Part)


def test_defaults() -> None:
    """Both sides have the same defaults; a weight noise without type is none."""
    device, io, update, mapping = from_aihwkit(SingleRPUConfig())
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
    device = from_aihwkit(SingleRPUConfig(device=globals()[f"{name}Device"](**values))).device
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
    assert not ours & set(_OFF_DEVICE)


def test_a_curve_between_two_weights() -> None:
    """Bounds and steps follow from the curve, whatever the derived fields say."""
    theirs = SoftBoundsPmaxDevice(p_max=500, alpha=1e-3, dw_min_std=0.1)
    device = from_aihwkit(SingleRPUConfig(device=theirs)).device
    ours = pl.devices.SoftBoundsPmax(500, 1e-3, -1.0, 1.0, dw_min_std=0.1)
    for name in ("w_min", "w_max", "dw_min", "up_down", "dw_min_std"):
        assert getattr(device, name) == getattr(ours, name)


def test_a_phase_change_cell_is_refused() -> None:
    """It is a pair of one-sided devices, which has no counterpart yet."""
    pair = PCMPresetDevice(unit_cell_devices=(ExpStepDevice(), ExpStepDevice()))
    message = r"^aihwkit: device is 'PCMPresetDevice', which has no counterpart here; use one of "
    with pytest.raises(ConfigError, match=message):
        from_aihwkit(SingleRPUConfig(device=pair))


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
    _, _, update, mapping = from_aihwkit(config)
    assert update == UpdateConfig(desired_bl=10, update_management=False, fixed_bl=False)
    assert mapping == Mapping(tile_in=256, tile_out=1 << 30, omega=0.6)


def test_the_result_works() -> None:
    """A layer of it reads and steps."""
    device, io, update, mapping = from_aihwkit(SingleRPUConfig(device=SoftBoundsDevice()))
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
        ("device", SingleRPUConfig(device=TransferCompound())),
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

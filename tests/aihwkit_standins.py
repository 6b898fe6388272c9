"""Stand-ins for configurations of aihwkit 1.2.0: its attribute names and defaults, no code."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Any


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
    corrupt_devices_range: float = 0.1
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
    reset: float = 0.0
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
    dw_min_std_add: float = 0.0
    dw_min_std_slope: float = 0.0
    write_noise_std: float = 0.0


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
class ReRamESPresetDevice(ExpStepDevice):
    dw_min: float = 0.00135
    A_up: float = -1.18445


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

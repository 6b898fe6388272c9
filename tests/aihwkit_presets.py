"""Stand-ins for the compounds and the 52 presets of aihwkit 1.2.0: names and numbers, no code."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from aihwkit_standins import (
    BoundManagementType,
    ConstantStepDevice,
    ExpStepDevice,
    IOParameters,
    LinearStepDevice,
    NoiseManagementType,
    SingleRPUConfig,
    SoftBoundsReferenceDevice,
    UpdateParameters,
)


class VectorUnitCellUpdatePolicy(enum.Enum):
    ALL = "All"
    SINGLE_FIXED = "SingleFixed"
    SINGLE_SEQUENTIAL = "SingleSequential"
    SINGLE_RANDOM = "SingleRandom"


def one_pulse() -> UpdateParameters:
    """What transfers that count are written with."""
    return UpdateParameters(desired_bl=1, update_bl_management=False, update_management=False)


@dataclass
class UnitCell:
    unit_cell_devices: list[Any] = field(default_factory=list)
    construction_seed: int = 0


@dataclass
class VectorUnitCell(UnitCell):
    update_policy: VectorUnitCellUpdatePolicy = VectorUnitCellUpdatePolicy.ALL
    first_update_idx: int = 0
    gamma_vec: list[float] = field(default_factory=list)


@dataclass
class ReferenceUnitCell(UnitCell):
    update_policy: VectorUnitCellUpdatePolicy = VectorUnitCellUpdatePolicy.SINGLE_FIXED
    first_update_idx: int = 0
    gamma_vec: list[float] = field(default_factory=lambda: [1.0, -1.0])


@dataclass
class OneSidedUnitCell(UnitCell):
    refresh_every: int = 0
    units_in_mbatch: bool = True
    refresh_upper_thres: float = 0.75
    refresh_lower_thres: float = 0.25
    refresh_forward: IOParameters = field(default_factory=IOParameters)
    refresh_update: UpdateParameters = field(default_factory=UpdateParameters)
    copy_inverted: bool = False


@dataclass
class TransferCompound(UnitCell):
    gamma: float = 0.0
    gamma_vec: list[float] = field(default_factory=list)
    transfer_every: float = 1.0
    no_self_transfer: bool = True
    transfer_every_vec: list[float] = field(default_factory=list)
    units_in_mbatch: bool = True
    n_reads_per_transfer: int = 1
    transfer_columns: bool = True
    with_reset_prob: float = 0.0
    random_selection: bool = False
    fast_lr: float = 1.0
    transfer_lr: float = 1.0
    transfer_lr_vec: list[float] = field(default_factory=list)
    scale_transfer_lr: bool = True
    scale_fast_lr: bool = True
    transfer_forward: IOParameters = field(default_factory=IOParameters)
    transfer_update: UpdateParameters = field(default_factory=UpdateParameters)


@dataclass
class BufferedTransferCompound(TransferCompound):
    thres_scale: float = 1.0
    step: float = 1.0
    momentum: float = 0.1
    forget_buffer: bool = True
    transfer_update: UpdateParameters = field(default_factory=one_pulse)


@dataclass
class ChoppedTransferCompound(TransferCompound):
    in_chop_prob: float = 0.1
    in_chop_random: bool = True
    out_chop_prob: float = 0.0
    buffer_granularity: float = 1.0
    auto_granularity: float = 0.0
    step: float = 1.0
    momentum: float = 0.0
    forget_buffer: bool = True
    no_buffer: bool = False
    units_in_mbatch: bool = False
    auto_scale: bool = False
    auto_momentum: float = 0.99
    correct_gradient_magnitudes: bool = False
    scale_fast_lr: bool = False
    transfer_update: UpdateParameters = field(default_factory=one_pulse)


@dataclass
class DynamicTransferCompound(ChoppedTransferCompound):
    in_chop_random: bool = False
    experimental_correct_accumulation: bool = False
    buffer_cap: float = 0.0
    tail_weightening: float = 5.0


@dataclass
class MixedPrecisionCompound:
    device: Any = field(default_factory=VectorUnitCell)
    construction_seed: int = 0
    transfer_every: int = 1
    n_rows_per_transfer: int = -1
    random_row: bool = False
    granularity: float = 0.0
    transfer_lr: float = 1.0
    n_x_bins: int = 0
    n_d_bins: int = 0
    stoc_round_x: bool = True
    stoc_round_d: bool = True


# ---- presets ----


def _reram_es() -> Any:
    return ExpStepDevice(
        dw_min=0.00135,
        up_down=0.259359,
        w_max=1.0,
        w_min=-1.0,
        a=-0.5,
        b=-0.5,
        gamma_up=5.0,
        gamma_down=5.0,
        A_up=-1.18445,
        A_down=-0.081404,
        dw_min_dtod=0.2,
        up_down_dtod=0.05,
        dw_min_std=5.0,
        write_noise_std=75.0,
    )


def _reram_sb(subtracted: bool = False) -> Any:
    return SoftBoundsReferenceDevice(
        dw_min=0.002,
        w_max=1.25,
        w_min=-0.75,
        reference_std=0.0,
        w_max_dtod=0.3 / 1.25,
        w_min_dtod=0.3 / 0.75,
        dw_min_std=3.75,
        write_noise_std=56,
        subtract_symmetry_point=subtracted,
    )


def _capacitor() -> Any:
    return LinearStepDevice(
        dw_min=0.005,
        w_max=1.0,
        w_min=-1.0,
        mult_noise=False,
        gamma_up=0.05,
        gamma_down=0.05,
        dw_min_dtod=0.1,
        up_down_dtod=0.06,
        w_max_dtod=0.07,
        w_min_dtod=0.07,
        gamma_up_dtod=0.01,
        gamma_down_dtod=0.01,
        lifetime=1.0e6,
        lifetime_dtod=0.3,
    )


def _ecram() -> Any:
    return LinearStepDevice(
        dw_min=0.002,
        w_max=1.1724,
        w_min=-0.8276,
        gamma_up=0.1153,
        gamma_down=0.5085,
        dw_min_dtod=0.1,
        w_max_dtod=0.05,
        w_min_dtod=0.05,
    )


def _ecram_mo() -> Any:
    return LinearStepDevice(
        dw_min=2.8214e-4,
        w_max=1.1714,
        w_min=-0.8286,
        gamma_up=0.4152,
        gamma_down=0.7342,
        dw_min_dtod=0.1,
        w_max_dtod=0.05,
        w_min_dtod=0.05,
        dw_min_std=2.0,
    )


def _idealized() -> Any:
    return ConstantStepDevice(dw_min=0.0002, up_down_dtod=0.0, w_max=1.0, w_min=-1.0)


def _gokmen_vlasov() -> Any:
    return ConstantStepDevice(dw_min=0.0016, w_max=1.0, w_min=-1.0)


def _pcm() -> Any:
    device = ExpStepDevice(
        dw_min=0.01,
        w_max=2.0,
        w_min=0.0,
        a=-1.0,
        b=0.0,
        gamma_up=2.5,
        gamma_down=2.5,
        A_up=-27.235,
        A_down=-2.235,
        dw_min_dtod=0.2,
        up_down_dtod=0.05,
        w_max_dtod=0.1,
        w_min_dtod=0.0,
        dw_min_std=0.6,
        dw_min_std_add=0.042,
        dw_min_std_slope=0.108,
        reset=0.01,
        reset_dtod=0.02,
    )
    return OneSidedUnitCell([device, device], refresh_every=1, refresh_forward=_io())


_SINGLE = {
    "ReRamES": _reram_es,
    "ReRamSB": _reram_sb,
    "Capacitor": _capacitor,
    "EcRam": _ecram,
    "EcRamMO": _ecram_mo,
    "Idealized": _idealized,
    "GokmenVlasov": _gokmen_vlasov,
}
# (fast_lr, auto_granularity, desired_bl) of TTv2; the same and in_chop_prob of c-TTv2; the same and
# tail_weightening of AGAD.
_TTV2 = {
    "ReRamES": (0.5, 1000, 31),
    "ReRamSB": (0.5, 1000, 31),
    "Capacitor": (0.1, 1000, 31),
    "EcRam": (0.1, 500, 100),
    "EcRamMO": (0.1, 500, 100),
    "Idealized": (0.1, 500, 100),
}
_CHOPPED = {
    "ReRamES": (0.5, 1000, 31, 0.01),
    "ReRamSB": (0.5, 1000, 31, 0.01),
    "Capacitor": (0.1, 1000, 31, 0.01),
    "EcRam": (1.0, 500, 100, 0.01),
    "EcRamMO": (0.1, 500, 100, 0.001),
    "Idealized": (0.1, 500, 100, 0.001),
}
_AGAD = {
    "ReRamES": (0.5, 1000, 31, 0.02, 5.0),
    "ReRamSB": (0.5, 1000, 31, 0.02, 5.0),
    "Capacitor": (0.1, 1000, 31, 0.01, 20.0),
    "EcRam": (0.1, 750, 31, 0.005, 50.0),
    "EcRamMO": (0.1, 500, 100, 0.005, 50.0),
    "Idealized": (0.1, 500, 100, 0.005, 50.0),
}


def _io(managed: bool = True) -> IOParameters:
    found = IOParameters(out_bound=20.0, out_noise=0.1)
    if not managed:
        found.noise_management = NoiseManagementType.NONE
        found.bound_management = BoundManagementType.NONE
    return found


def _config(device: Any, desired_bl: int = 31) -> SingleRPUConfig:
    return SingleRPUConfig(device, _io(), _io(), UpdateParameters(desired_bl=desired_bl))


def _two(name: str) -> list[Any]:
    return [_reram_sb(True) if name == "ReRamSB" else _SINGLE[name]() for _ in range(2)]


def presets() -> Iterator[tuple[str, SingleRPUConfig]]:
    """(name, configuration) of all 52."""
    for name, device in _SINGLE.items():
        yield f"{name}Preset", _config(device())
        yield f"MixedPrecision{name}Preset", _config(MixedPrecisionCompound(device()))
    yield "PCMPreset", _config(_pcm())
    yield "MixedPrecisionPCMPreset", _config(MixedPrecisionCompound(_pcm()))
    for name in _TTV2:
        policy = VectorUnitCellUpdatePolicy.SINGLE_RANDOM
        for count in (2, 4):
            several = [_SINGLE[name]() for _ in range(count)]
            yield f"{name}{count}Preset", _config(VectorUnitCell(several, update_policy=policy))
        yield from _transfers(name)


def _transfers(name: str) -> Iterator[tuple[str, SingleRPUConfig]]:
    shared: dict[str, Any] = {"unit_cell_devices": _two(name), "transfer_forward": _io(False)}
    yield f"TikiTaka{name}Preset", _config(TransferCompound(**shared))
    shared["auto_scale"] = True
    rows: tuple[tuple[str, type, tuple[float, ...]], ...] = (
        ("TTv2", ChoppedTransferCompound, (*_TTV2[name], 0.0)),
        ("ChoppedTTv2", ChoppedTransferCompound, _CHOPPED[name]),
        ("AGAD", DynamicTransferCompound, _AGAD[name]),
    )
    for start, kind, (lr, auto, desired_bl, chop, *tail) in rows:
        values = {"fast_lr": lr, "auto_granularity": auto, "in_chop_prob": chop}
        device = kind(**shared, **values, **({"tail_weightening": tail[0]} if tail else {}))
        yield f"{start}{name}Preset", _config(device, int(desired_bl))

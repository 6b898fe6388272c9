"""Reads, pulse trains and mapping of aihwkit in terms of this package."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import fields
from typing import Any

from ..configs import IOConfig, Mapping, ReadConfig, UpdateConfig
from .fields import attributes, choice, plain, refusal, same

__all__ = ["column_read", "io", "mapping", "update"]

_NOISE_MANAGEMENT = {
    "None": "none",
    "AbsMax": "abs_max",
    "Constant": "constant",
    "AverageAbsMax": "average_abs_max",
}
_BOUND_MANAGEMENT = {"None": "none", "Iterative": "iterative"}
_MV_TYPE = {
    "OnePass": "one_pass",
    "PosNegSeparate": "pos_neg_separate",
    "PosNegSeparateDigitalSum": "pos_neg_separate_digital_sum",
}
_WEIGHT_NOISE = {
    "None": "none",
    "AdditiveConstant": "additive_constant",
    "PCMRead": "pcm_read",
}
_OFF_IO: dict[str, Collection[Any] | None] = {
    "out_scale": (1,),
    "slope_calibration": (0,),
    "v_offset_std": (0,),
    "v_offset_w_min": None,
    "r_series": (0,),
    "w_read_asymmetry_dtod": (0,),
    "bm_test_negative_bound": (True,),
    "nm_assumed_wmax": None,
    "is_perfect": None,
    "max_bm_factor": None,
    "max_bm_res": None,
    "ir_drop_g_ratio": None,
}
_OFF_UPDATE: dict[str, Collection[Any] | None] = {
    "pulse_type": ("StochasticCompressed",),
    "res": (0, -1),
    "sto_round": (False,),
    "x_res_implicit": None,
    "d_res_implicit": None,
    "d_sparsity": None,
    "um_grad_scale": (1,),
}
_OFF_MAPPING: dict[str, Collection[Any] | None] = {
    "digital_bias": (True,),
    "learn_out_scaling": (False,),
    "out_scaling_columnwise": None,
    "weight_scaling_columnwise": (False,),
    "weight_scaling_lr_compensation": None,
}


def io(forward: object | None, backward: object | None) -> IOConfig:
    """Both directions of a read.

    Args:
        forward, backward: of their configuration; None: perfect.

    Raises:
        ConfigError: a field has no counterpart.
    """
    # bound management never acts in backward, there as here
    return IOConfig(_read(forward, "forward"), _read(backward, "backward", ("bound_management",)))


def column_read(theirs: object | None, name: str, *, managed: bool) -> ReadConfig:
    """The read of a single column, by an input of 1, which needs no management.

    Args:
        theirs: its settings; None: perfect. name: of them, for messages.
        managed: whether they act there: bounds cannot matter, and the only scale that leaves an
            input of 1 alone is its largest magnitude.

    Raises:
        ConfigError: a field has no counterpart.
    """
    found = _read(theirs, name, ("noise_management", "bound_management"))
    if managed and found != ReadConfig.perfect():
        choice(theirs, name, "noise_management", {"None": "none", "AbsMax": "abs_max"})
    if found.ir_drop != "none":
        drop = getattr(theirs, "ir_drop", None)
        raise refusal(f"{name}.ir_drop", drop, "set it to 0")
    return found


def _read(theirs: object | None, name: str, idle: Collection[str] = ()) -> ReadConfig:
    """Settings of one direction; ``idle``: managements that never act in it."""
    ideal = plain(getattr(theirs, "mv_type", None)) == "Ideal"
    if theirs is None or ideal or getattr(theirs, "is_perfect", False):
        return ReadConfig.perfect()
    ours = {field.name for field in fields(ReadConfig)}
    ours -= {"ir_drop", "wire_resistance", "ir_tolerance", "max_rounds"}
    drop = getattr(theirs, "ir_drop", 0.0)
    off = {**_OFF_IO, "ir_drop": None}
    if not drop:  # what else belongs to it does nothing
        off |= dict.fromkeys(f for f in attributes(theirs) if f.startswith("ir_drop"))
    values = same(theirs, name, ours, off)
    for field, known in (
        ("noise_management", _NOISE_MANAGEMENT),
        ("bound_management", _BOUND_MANAGEMENT),
        ("mv_type", _MV_TYPE),
        ("w_noise_type", _WEIGHT_NOISE),
    ):
        if field in idle:
            values[field] = "none"
            continue
        found = choice(theirs, name, field, known)
        if found is not None:
            values[field] = found
    if values.get("w_noise_type", "none") == "none":
        values |= {"w_noise": 0.0, "w_noise_type": "additive_constant"}
    if values.get("mv_type", "one_pass") == "one_pass":  # asymmetries act on the second pass
        values |= {"inp_asymmetry": 0.0, "out_asymmetry": 0.0}
    for bound in ("inp_bound", "out_bound"):
        if math.isinf(values.get(bound, 0.0)):
            values[bound] = 0.0
    if drop:
        ratio = getattr(theirs, "ir_drop_g_ratio", 1.0 / 0.35 / 5e-6)
        values |= {"ir_drop": "approx", "wire_resistance": drop / ratio}
    values["max_rounds"] = _rounds(theirs, values.get("inp_res", ReadConfig.inp_res))
    return ReadConfig(**values)


def _rounds(theirs: object, inp_res: float) -> int:
    """Doublings of beta: the first beta above max_bm_factor or max_bm_res / inp_res still runs."""
    most = float(getattr(theirs, "max_bm_factor", 1000))
    coarsest = float(getattr(theirs, "max_bm_res", 0.25))
    resolution = 1 / inp_res if inp_res > 1 else inp_res
    if resolution > 0 and coarsest > 0:
        most = min(most, coarsest / resolution)
    return max(1, min(15, math.floor(math.log2(most)) + 1)) if most > 0 else 0


def update(theirs: object | None, name: str = "update") -> UpdateConfig:
    """Pulse trains.

    Args:
        theirs: settings; None: the defaults. name: of them, for messages.

    Raises:
        ConfigError: a field has no counterpart.
    """
    if theirs is None:
        return UpdateConfig()
    ours = ("desired_bl", "fixed_bl", "update_management", "update_bl_management")
    return UpdateConfig(**same(theirs, name, ours, _OFF_UPDATE))


def mapping(theirs: object | None) -> Mapping:
    """Physical tiles.

    Args:
        theirs: settings; None: the defaults.

    Raises:
        ConfigError: a field has no counterpart.
    """
    if theirs is None:
        return Mapping()
    names = {"max_input_size": "tile_in", "max_output_size": "tile_out"}
    names["weight_scaling_omega"] = "omega"
    off = dict(_OFF_MAPPING)
    if not getattr(theirs, "weight_scaling_omega", 0):
        off["weight_scaling_columnwise"] = None
    values = {names[f]: v for f, v in same(theirs, "mapping", tuple(names), off).items()}
    for size in ("tile_in", "tile_out"):
        if values.get(size) == 0:  # no limit
            values[size] = 1 << 30
    return Mapping(**values)

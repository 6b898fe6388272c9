"""Settings of IBM's aihwkit in terms of this package, by attribute names and without importing it.

A field of the same name goes over as it is. A field that has no counterpart is refused by name,
unless it has the value that switches it off.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
import warnings
from collections.abc import Callable, Collection
from collections.abc import Mapping as Table
from typing import Any, NamedTuple

from .. import devices
from ..configs import IOConfig, Mapping, ReadConfig, UpdateConfig
from ..errors import ConfigError

__all__ = ["MODELS", "Configuration", "differences", "from_aihwkit"]

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

# The classes of aihwkit that are known, by their names there, and what takes their fields here.
MODELS: dict[str, Callable[..., devices.PulsedDevice]] = {
    "ConstantStepDevice": devices.ConstantStep,
    "LinearStepDevice": devices.LinearStep,
    "SoftBoundsDevice": devices.SoftBounds,
    "SoftBoundsPmaxDevice": devices.SoftBoundsPmax,
    "SoftBoundsReferenceDevice": devices.SoftBoundsReference,
    "ExpStepDevice": devices.ExpStep,
    "PowStepDevice": devices.PowStep,
    "PowStepReferenceDevice": devices.PowStepReference,
    "PiecewiseStepDevice": devices.PiecewiseStep,
}

# Values at which a field without counterpart does nothing; None: it does nothing by itself.
_OFF_DEVICE: dict[str, Collection[Any] | None] = {
    "construction_seed": (0,),
    "enforce_consistency": (True,),
    "perfect_bias": (False,),
    "count_pulses": None,
    "apply_write_noise_on_set": None,
    "allow_increasing": (False,),
    "reverse_up": (False,),
    "reverse_down": (False,),
    "reverse_offset": None,
    "n_estimation_steps": (-1, 0),  # of the symmetry point, which is found by bisection here
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
_DERIVED = ("w_min", "w_max", "dw_min", "up_down")
# Parts of a whole configuration that must be switched off: attribute, then what says so.
_OFF_PARTS = {"modifier": "type", "clip": "type", "remap": "type"}


class Configuration(NamedTuple):
    """The first fields of a :class:`pulseline.Crossbar`: ``Crossbar(*configuration)`` is one."""

    device: devices.Device
    io: IOConfig
    update: UpdateConfig
    mapping: Mapping


def from_aihwkit(rpu_config: object, batch: int | None = None) -> Configuration:
    """(device, io, update, mapping) of a single-device ``rpu_config`` of aihwkit.

    ``ir_drop`` becomes the closed form (``ir_drop="approx"``) with a wire resistance of
    ``ir_drop / ir_drop_g_ratio``; the limits ``max_bm_factor`` and ``max_bm_res`` become rounds.
    What means something else here although it has the same name comes as a warning each: see
    :func:`differences`.

    Args:
        rpu_config: a configuration of a single device.
        batch: samples of a mini-batch in the training that it is for; needed where weights decay or
            diffuse, which happens once per mini-batch there and per ``batch`` samples here.

    Returns:
        What they are here; ``pl.Crossbar(*found)`` is what layers and models take.

    Raises:
        ConfigError: a field has no counterpart here (the message names it), or its value is bad.
    """
    theirs = getattr(rpu_config, "device", None)
    if theirs is None:
        raise _refusal("device", None, "pass a configuration of a single device")
    device = _device(theirs)
    if isinstance(device, devices.PulsedDevice) and device.ages:
        if batch is None:
            raise ConfigError(
                "batch is None, but weights of this device decay or diffuse once per mini-batch; "
                "pass its number of samples"
            )
        device = dataclasses.replace(device, batch=batch)
    for part, word in _OFF_PARTS.items():
        kind = getattr(getattr(rpu_config, part, None), word, None)
        if kind is not None and _plain(kind) != "None":
            raise _refusal(f"{part}.{word}", kind, "switch it off")
    ranges = getattr(getattr(rpu_config, "pre_post", None), "input_range", None)
    if getattr(ranges, "enable", False):
        raise _refusal("pre_post.input_range.enable", True, "switch it off")
    if getattr(rpu_config, "noise_model", None) is not None:
        raise _refusal("noise_model", rpu_config.noise_model, "this is no model of inference")  # type: ignore[attr-defined]
    io = IOConfig(
        _read(getattr(rpu_config, "forward", None), "forward"),
        _read(getattr(rpu_config, "backward", None), "backward"),
    )
    found = Configuration(
        device,
        io,
        _update(getattr(rpu_config, "update", None)),
        _mapping(getattr(rpu_config, "mapping", None)),
    )
    for sentence in differences(found, type(theirs).__name__):
        warnings.warn(f"aihwkit: {sentence}", stacklevel=2)
    return found


def differences(configuration: Configuration, name: str = "") -> list[str]:
    """Where the same numbers mean something else here, one sentence each; measured side by side.

    Args:
        configuration: what :func:`from_aihwkit` made.
        name: the class of their device.

    Returns:
        The sentences; none where all means the same.
    """
    found = []
    device, io = configuration.device, configuration.io
    if isinstance(device, devices.PulsedDevice):
        odd = _LR_UNIT.get(device.name)
        pmax = name.startswith("SoftBoundsPmax")  # its up_down follows from its curve
        if odd is None and not pmax and device.up_down:
            odd = f"dw_min = {device.dw_min:g}"
        if odd:
            found.append(
                f"the learning rate is in units of another step: there {odd}, here the mean of up "
                f"and down step at w = 0, {device.granularity:.4g}; scale it by their quotient"
            )
    if name.startswith("SoftBoundsPmax"):
        found.append(
            "SoftBoundsPmax reaches range_max at p_max pulses here, as its formula says; there a "
            "curve of range_max 1.0 reached 1.356"
        )
    for direction, read in (("forward", io.forward), ("backward", io.backward)):
        if read.out_asymmetry:
            found.append(
                f"out_asymmetry ({direction}) scales the pass of negative inputs here, as "
                "documented there; the code there scales negative outputs (up to 9 % of full scale "
                "at .05)"
            )
    return found


# Their unit of the learning rate where it is not the step at w = 0.
_LR_UNIT = {
    "PowStep": "dw_min / 2^gamma",
    "PowStepReference": "dw_min / 2^gamma",
    "PiecewiseStep": "dw_min times the middle node",
    "ExpStep": "the down step alone (updates of the ReRamES preset are .87 of the request)",
}


def _refusal(field: str, value: object, fix: str) -> ConfigError:
    return ConfigError(f"aihwkit: {field} is {value!r}, which has no counterpart here; {fix}")


def _plain(value: object) -> Any:
    """The value of an enumeration's member; other values as they are."""
    return getattr(value, "value", value)


def _attributes(part: object) -> dict[str, Any]:
    """Public settings: of a dataclass, or whatever classes and instance hold."""
    if dataclasses.is_dataclass(part) and not isinstance(part, type):
        return {f.name: getattr(part, f.name) for f in dataclasses.fields(part)}
    names = {name for cls in type(part).__mro__[:-1] for name in vars(cls)} | set(vars(part))
    skipped = ("bindings_class", "bindings_module", "bindings_ignore")
    found = {n: getattr(part, n) for n in sorted(names) if n[0] != "_" and n not in skipped}
    return {name: value for name, value in found.items() if not callable(value)}


def _same(
    part: object, name: str, ours: Collection[str], off: Table[str, Collection[Any] | None]
) -> dict[str, Any]:
    """Fields that we have too, under our spelling; refuses what we lack and is not off."""
    spelling = {field.lower(): field for field in ours}
    result = {}
    for field, value in _attributes(part).items():
        if value is None:
            continue  # derived from other fields
        if field.lower() in spelling:
            result[spelling[field.lower()]] = _plain(value)
        elif field not in off:
            raise _refusal(f"{name}.{field}", value, "leave it out")
        else:
            values = off[field]
            if values is not None and _plain(value) not in values:
                known = " or ".join(map(str, values))
                raise _refusal(f"{name}.{field}", value, f"set it to {known}")
    return result


def _device(theirs: object) -> devices.Device:
    for cls in type(theirs).__mro__:
        name = cls.__name__
        if name in ("IdealDevice", "FloatingPointDevice"):
            for field in ("diffusion", "lifetime"):
                if getattr(theirs, field, 0):
                    raise _refusal(f"device.{field}", getattr(theirs, field), "set it to 0")
            return devices.Ideal()
        if name in MODELS:
            break
    else:
        known = ", ".join(sorted(MODELS))
        raise _refusal("device", type(theirs).__name__, f"use one of {known} or IdealDevice")
    model = MODELS[name]
    drift = getattr(theirs, "drift", None)
    if getattr(drift, "nu", 0):
        raise _refusal("device.drift.nu", drift.nu, "set it to 0 and give our device drift_nu")  # type: ignore[union-attr]
    off: dict[str, Collection[Any] | None] = {**_OFF_DEVICE, "drift": None}
    ours = set(inspect.signature(model).parameters)
    if model is devices.SoftBoundsPmax:  # bounds and steps follow from its curve
        off |= dict.fromkeys(_DERIVED)
        ours |= {field.name for field in dataclasses.fields(devices.SoftBounds)} - set(_DERIVED)
    values = _same(theirs, "device", ours, off)
    for field, nodes in values.items():
        if isinstance(nodes, (list, tuple)):  # one node: a constant, which needs two here
            values[field] = tuple(nodes) * (2 if len(nodes) == 1 else 1)
    device: devices.Device = model(**values)
    return device


def _choice(part: object, name: str, field: str, known: Table[str, str]) -> str | None:
    value = getattr(part, field, None)
    if value is None:
        return None
    if _plain(value) not in known:
        raise _refusal(f"{name}.{field}", value, f"use one of {', '.join(known)}")
    return known[_plain(value)]


def _read(theirs: object | None, name: str) -> ReadConfig:
    ideal = _plain(getattr(theirs, "mv_type", None)) == "Ideal"
    if theirs is None or ideal or getattr(theirs, "is_perfect", False):
        return ReadConfig.perfect()
    fields = {field.name for field in dataclasses.fields(ReadConfig)}
    ours = fields - {"ir_drop", "wire_resistance", "ir_tolerance", "max_rounds"}
    drop = getattr(theirs, "ir_drop", 0.0)
    off = {**_OFF_IO, "ir_drop": None}
    if not drop:  # what else belongs to it does nothing
        off |= dict.fromkeys(f for f in _attributes(theirs) if f.startswith("ir_drop"))
    values = _same(theirs, name, ours, off)
    for field, known in (
        ("noise_management", _NOISE_MANAGEMENT),
        ("bound_management", _BOUND_MANAGEMENT),
        ("mv_type", _MV_TYPE),
        ("w_noise_type", _WEIGHT_NOISE),
    ):
        if field == "bound_management" and name == "backward":
            values[field] = "none"  # never in backward, there as here
            continue
        choice = _choice(theirs, name, field, known)
        if choice is not None:
            values[field] = choice
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


def _update(theirs: object | None) -> UpdateConfig:
    if theirs is None:
        return UpdateConfig()
    ours = ("desired_bl", "fixed_bl", "update_management", "update_bl_management")
    return UpdateConfig(**_same(theirs, "update", ours, _OFF_UPDATE))


def _mapping(theirs: object | None) -> Mapping:
    if theirs is None:
        return Mapping()
    names = {"max_input_size": "tile_in", "max_output_size": "tile_out"}
    names["weight_scaling_omega"] = "omega"
    off = dict(_OFF_MAPPING)
    if not getattr(theirs, "weight_scaling_omega", 0):
        off["weight_scaling_columnwise"] = None
    values = {names[f]: v for f, v in _same(theirs, "mapping", tuple(names), off).items()}
    for size in ("tile_in", "tile_out"):
        if values.get(size) == 0:  # no limit
            values[size] = 1 << 30
    return Mapping(**values)

"""Compounds of aihwkit that transfer columns, as rules of :mod:`pulseline.algorithms`.

The first of their devices is fast, the others are slow; here array 0 is the last of the chain.
Numbers that say how far something moves are resolved with the flags that scale them::

    fast_lr > 0: scale_fast_lr tells whether times lr; fast_lr = 0: lr itself
    periods with units_in_mbatch: steps of the optimizer, or ceil(N batch) samples of a fraction
    correct_gradient_magnitudes: in units of the slow step, over the rate of the fast array
"""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any

from .. import algorithms
from .compounds import Compound, devices_of, geometric, make, minibatch
from .fields import Off, refusal, same
from .periphery import column_read, update

__all__ = ["buffered", "chain", "chopped", "dynamic"]

# Of all of them: what each field is where an object lacks it.
_SHARED: dict[str, Any] = {
    "unit_cell_devices": (),
    "gamma": 0.0,
    "gamma_vec": (),
    "transfer_every": 1.0,
    "transfer_every_vec": (),
    "units_in_mbatch": False,
    "n_reads_per_transfer": 1,
    "fast_lr": 0.0,
    "scale_fast_lr": False,
    "transfer_lr": 1.0,
    "transfer_lr_vec": (),
    "scale_transfer_lr": True,
    "transfer_forward": None,
    "transfer_update": None,
}
_OFF: dict[str, Collection[Any] | None] = {
    "construction_seed": (0,),
    "no_self_transfer": (True,),
    "transfer_columns": (True,),
    "with_reset_prob": (0,),
    "random_selection": (False,),
}
_BUFFER = {"momentum": 0.0, "forget_buffer": True}
_CHOPPED = {
    **_BUFFER,
    "in_chop_prob": 0.0,
    "in_chop_random": True,
    "out_chop_prob": 0.0,
    "buffer_granularity": 1.0,
    "auto_granularity": 0.0,
    "no_buffer": False,
    "auto_scale": False,
    "auto_momentum": 0.99,
    "correct_gradient_magnitudes": False,
}


def _fields(theirs: object, more: dict[str, Any], off: Off) -> dict[str, Any]:
    own = {**_SHARED, **more}
    return {**own, **same(theirs, "device", tuple(own), {**_OFF, **off})}


# ---- what all rules have ----


def _periods(v: dict[str, Any], arrays: int, batch: int | None) -> tuple[list[int], str]:
    """Periods of all transfers of a chain, the fast array's first, and their units."""
    field, given = "device.transfer_every_vec", list(v["transfer_every_vec"])
    if given and len(given) != arrays:
        raise refusal(field, given, f"give {arrays} numbers")
    if not given:
        if arrays > 2:  # there they follow from the rows of each matrix
            raise refusal(field, given, f"give {arrays} periods, the last of them 0")
        field, given = "device.transfer_every", [v["transfer_every"], 0]
    asked, units = given[:-1], "samples"
    if not v["units_in_mbatch"]:
        found = [math.floor(one + 0.5) for one in asked]
    elif all(float(one).is_integer() for one in asked):
        found, units = [int(one) for one in asked], "batches"
    else:
        samples = minibatch(batch, field, asked[0])
        found = [math.ceil(round(one * samples, 6)) for one in asked]
    if min(found) < 1:
        raise refusal(field, asked if arrays > 2 else asked[0], "set it to 1 or more")
    return found, units


def _gamma(v: dict[str, Any], arrays: int) -> float:
    """The weight of the array before the last; that of the last is 1."""
    given, field = [float(one) for one in v["gamma_vec"]], "device.gamma_vec"
    if not given:
        return float(v["gamma"])
    if len(given) != arrays:
        raise refusal(field, given, f"give {arrays} numbers")
    if given[-1] != 1:
        raise refusal(field, given, "give weights of which the last is 1")
    geometric(field, given[::-1])
    return given[-2]


def _transfer_lrs(v: dict[str, Any], arrays: int) -> list[float]:
    given = list(v["transfer_lr_vec"])
    if given and len(given) != arrays:
        raise refusal("device.transfer_lr_vec", given, f"give {arrays} numbers")
    return given[:-1] or [v["transfer_lr"]] * (arrays - 1)


def _periodic(v: dict[str, Any], periods: list[int], units: str) -> dict[str, Any]:
    """Fields of :class:`pulseline.algorithms.Periodic`."""
    arrays = len(periods) + 1
    own = v["fast_lr"] > 0
    return {
        "every": periods[0],
        "units": units,
        "reads": int(v["n_reads_per_transfer"]),
        "lr_fast": float(v["fast_lr"]) if own else 1.0,
        "scale_fast": bool(v["scale_fast_lr"]) if own else True,
        "lr_transfer": float(_transfer_lrs(v, arrays)[0]),
        "scale_transfer": bool(v["scale_transfer_lr"]),
        "gamma": _gamma(v, arrays),
        "read": column_read(v["transfer_forward"], "device.transfer_forward", managed=False),
    }


# ---- trains from array to array ----


def chain(theirs: object, batch: int | None) -> Compound:
    """TTv1: a ``TransferCompound`` of two arrays or more.

    Args:
        theirs: the compound. batch: samples of a mini-batch, or None.

    Raises:
        ConfigError: a field has no counterpart.
    """
    v = _fields(theirs, {}, {})
    given, names = devices_of(theirs, batch, range(2, 255))
    arrays, fast, slow = len(given), given[0], given[1]  # all slow ones there are as the first
    periods, units = _periods(v, arrays, batch)
    every = geometric("device.transfer_every_vec", periods)
    if not every.is_integer():
        raise refusal("device.transfer_every_vec", periods, "give whole multiples of the first")
    lrs = _transfer_lrs(v, arrays)
    values = {
        **_periodic(v, periods, units),
        "arrays": arrays,
        "every_factor": int(every),
        "lr_transfer_factor": geometric("device.transfer_lr_vec", lrs),
        "transfer_update": update(v["transfer_update"], "device.transfer_update"),
    }
    rules = (algorithms.Residual1, algorithms.MultiTile)
    kind = rules[arrays > 2] if values["gamma"] else algorithms.TikiTaka1
    return make(slow, fast, kind(**values), (names[1], names[0]))


# ---- whole pulses out of a buffer ----


def _counted(theirs: object, v: dict[str, Any], batch: int | None) -> tuple[Any, dict[str, Any]]:
    """Devices, and fields that rules with a buffer have in common."""
    given, names = devices_of(theirs, batch, (2,))
    periods, units = _periods(v, 2, batch)
    values = {
        **_periodic(v, periods, units),
        "max_pulses": update(v["transfer_update"], "device.transfer_update").desired_bl,
        "momentum": float(v["momentum"]),
        "forget": bool(v["forget_buffer"]),
    }
    return (given, names), values


def _made(of: Any, rule: type[algorithms.Rule], values: dict[str, Any]) -> Compound:
    (fast, slow), names = of
    return make(slow, fast, rule(**values), names[::-1])


def buffered(theirs: object, batch: int | None) -> Compound:
    """TTv2: a ``BufferedTransferCompound`` of two arrays.

    Args:
        theirs: the compound. batch: samples of a mini-batch, or None.

    Raises:
        ConfigError: a field has no counterpart.
    """
    v = _fields(theirs, {**_BUFFER, "thres_scale": 1.0}, {"step": (1,)})
    of, values = _counted(theirs, v, batch)
    values["threshold"] = float(v["thres_scale"])
    rule = algorithms.Residual2 if values["gamma"] else algorithms.TikiTaka2
    return _made(of, rule, values)


def _chopped(
    theirs: object, batch: int | None, more: dict[str, Any], off: Off
) -> tuple[dict[str, Any], Any, dict[str, Any]]:
    """Fields there, devices, and what c-TTv2 and AGAD share here."""
    used = {field: value for field, value in {**_CHOPPED, **more}.items() if field not in off}
    v = _fields(theirs, used, {"step": (1,), **off})
    of, values = _counted(theirs, v, batch)
    own = v["buffer_granularity"]
    values |= {
        "chop": float(v["in_chop_prob"]),
        "threshold": float(own) if own > 0 else 1.0,
        "granularity": "fast",
    }
    if v["auto_granularity"] > 0:  # over the period as it is written there, whatever its units
        if not v["transfer_every"]:
            raise refusal("device.transfer_every", v["transfer_every"], "set it to 1 or more")
        period = abs(v["transfer_every"])
        values["auto_granularity"] = v["auto_granularity"] * (values["every"] / period)
    if v["auto_scale"] and v["fast_lr"] > 0:  # there it needs a rate of its own
        samples = minibatch(batch, "device.auto_scale", True)
        values |= {"auto_scale": True, "auto_momentum": 1 - (1 - v["auto_momentum"]) / samples}
    if v["correct_gradient_magnitudes"]:
        values |= _corrected(values)
    return v, of, values


def _corrected(values: dict[str, Any]) -> dict[str, Any]:
    """``correct_gradient_magnitudes``: the transfer's rate over that of the fast array."""
    if values.get("auto_scale"):
        raise refusal("device.correct_gradient_magnitudes", True, "set it to False")
    if values["scale_fast"] and not values["scale_transfer"]:
        fix = "set it to False, or scale_transfer_lr to True"
        raise refusal("device.correct_gradient_magnitudes", True, fix)
    return {
        "granularity": "slow",
        "lr_transfer": values["lr_transfer"] / values["lr_fast"],
        "scale_transfer": not values["scale_fast"] and values["scale_transfer"],
    }


def chopped(theirs: object, batch: int | None) -> Compound:
    """c-TTv2: a ``ChoppedTransferCompound``; TTv2 where nothing chops.

    Args:
        theirs: the compound. batch: samples of a mini-batch, or None.

    Raises:
        ConfigError: a field has no counterpart.
    """
    v, of, values = _chopped(theirs, batch, {}, {})
    values |= {
        "chop_rows": float(v["out_chop_prob"]),
        "regular_chop": values["chop"] > 0 and not v["in_chop_random"],
        "leak": 1.0 if v["no_buffer"] else 0.0,  # nothing stays from read to read
    }
    if values["chop"] or values["chop_rows"]:
        return _made(of, algorithms.ChoppedTikiTaka2, values)
    return _made(of, algorithms.Residual2 if values["gamma"] else algorithms.TikiTaka2, values)


def dynamic(theirs: object, batch: int | None) -> Compound:
    """AGAD: a ``DynamicTransferCompound``, whose first period + 1 sweeps pulse nothing.

    Args:
        theirs: the compound. batch: samples of a mini-batch, or None.

    Raises:
        ConfigError: a field has no counterpart.
    """
    forgets = getattr(theirs, "forget_buffer", True)
    off: dict[str, Collection[Any] | None] = {
        "in_chop_random": (False,),  # there columns then flip in step too
        "out_chop_prob": (0,),  # there rows never flip
        "no_buffer": (False,),
        "experimental_correct_accumulation": (False,),
        "buffer_cap": None if forgets else (0,),
    }
    v, of, values = _chopped(theirs, batch, {"tail_weightening": 5.0}, off)
    if values["gamma"]:
        field = "device.gamma_vec" if v["gamma_vec"] else "device.gamma"
        fix = "set it to 0, or take pulseline.algorithms.ERIDER, which also subtracts the reference"
        raise refusal(field, v[field.split(".")[1]], fix)
    values |= {"regular_chop": True, "tail": float(v["tail_weightening"])}
    rule = algorithms.AGAD(**values)
    return _made(of, algorithms.AGAD, {**values, "warm_up": rule.period + 1})

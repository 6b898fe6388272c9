"""Compounds of aihwkit that sum gradients in digital memory, or several devices in one weight."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any

from .. import algorithms
from ..configs import UpdateConfig
from .compounds import Compound, devices_of, make, minibatch
from .fields import choice, refusal, same
from .periphery import column_read, update
from .single import pulsed_device

__all__ = ["mixed_precision", "one_sided", "reference", "vector"]

_OFF: dict[str, Collection[Any] | None] = {"construction_seed": (0,)}
_POLICIES = {
    "All": "all",
    "SingleFixed": "first",
    "SingleSequential": "sequential",
    "SingleRandom": "random",
}


def mixed_precision(theirs: Any, batch: int | None, trains: UpdateConfig) -> Compound:
    """A ``MixedPrecisionCompound`` on one device a crosspoint.

    A count there stands for ``granularity`` and is written as ``granularity transfer_lr`` by trains
    of at most ``desired_bl``; here each count is one pulse.

    Args:
        theirs: the compound. batch: samples of a mini-batch, or None. trains: of the configuration.

    Raises:
        ConfigError: a field has no counterpart.
    """
    v: dict[str, Any] = {
        "transfer_every": 1,
        "granularity": 0.0,
        "transfer_lr": 1.0,
        "n_x_bins": 0,
        "n_d_bins": 0,
        "stoc_round_x": False,
        "stoc_round_d": False,
    }
    off = {**_OFF, "n_rows_per_transfer": (-1,), "random_row": None}  # of all rows none is first
    v |= same(theirs, "device", ("device", *v), off)
    device = pulsed_device(v["device"], batch, "device.device")
    unit = v["granularity"] or device.granularity
    one = device.granularity / unit
    if not math.isclose(v["transfer_lr"], one, rel_tol=1e-6):
        raise refusal("device.transfer_lr", v["transfer_lr"], f"set it to {one:g}, a pulse a count")
    every, units = v["transfer_every"], "batches"
    if not float(every).is_integer():
        every, units = every * minibatch(batch, "device.transfer_every", every), "samples"
    if every < 1:
        raise refusal("device.transfer_every", v["transfer_every"], "set it to 1 or more")
    rule = algorithms.MixedPrecision(
        every=int(every),
        units=units,
        max_pulses=trains.desired_bl,
        threshold=1 / one,
        bins_x=_bins(v, "x"),
        bins_d=_bins(v, "d"),
    )
    return make(device, device, rule, [type(v["device"]).__name__])


def _bins(v: dict[str, Any], letter: str) -> int:
    """Levels of a sample: there half of them, rounded down, lie on each side of 0."""
    bins, rounding = v[f"n_{letter}_bins"], f"stoc_round_{letter}"
    if bins <= 0:
        return 0
    if bins == 1:
        raise refusal(f"device.n_{letter}_bins", bins, "set it to 0, or 2 or more")
    if v[rounding]:
        raise refusal(f"device.{rounding}", True, "set it to False")
    return int(bins) // 2 * 2


def one_sided(theirs: Any, batch: int | None) -> Compound:
    """A ``OneSidedUnitCell``, whose second device is as its first, there as here.

    Args:
        theirs: the cell. batch: samples of a mini-batch, or None.

    Raises:
        ConfigError: a field has no counterpart.
    """
    v: dict[str, Any] = {
        "refresh_every": 0,
        "units_in_mbatch": True,
        "refresh_forward": None,
        "refresh_upper_thres": 0.75,
        "refresh_lower_thres": 0.25,
        "refresh_update": None,
    }
    used = ("unit_cell_devices", *v)
    v |= same(theirs, "device", used, {**_OFF, "copy_inverted": (False,)})
    given, names = devices_of(theirs, batch, (1, 2))
    every = max(0, v["refresh_every"])
    read = None
    if every:
        read = column_read(v["refresh_forward"], "device.refresh_forward", managed=True)
        update(v["refresh_update"], "device.refresh_update")  # refuses what pulses otherwise
        if v["units_in_mbatch"]:
            every *= minibatch(batch, "device.refresh_every", every)
    rule = algorithms.OneSided(
        refresh_every=every,
        full=v["refresh_upper_thres"],
        both=v["refresh_lower_thres"],
        read=read,
    )
    return make(given[0], given[0], rule, names)


def _vector_fields(theirs: object) -> tuple[dict[str, Any], str]:
    v: dict[str, Any] = {"update_policy": "All", "first_update_idx": 0, "gamma_vec": ()}
    v |= same(theirs, "device", ("unit_cell_devices", *v), _OFF)
    return v, choice(theirs, "device", "update_policy", _POLICIES) or "all"


def reference(theirs: Any, batch: int | None) -> Compound:
    """A ``ReferenceUnitCell``: the first device is pulsed, the second, 0 at first, subtracted.

    Args:
        theirs: the cell. batch: samples of a mini-batch, or None.

    Raises:
        ConfigError: a field has no counterpart.
    """
    v, policy = _vector_fields(theirs)
    if policy != "first":
        raise refusal("device.update_policy", v["update_policy"], "set it to SingleFixed")
    if v["first_update_idx"]:
        raise refusal("device.first_update_idx", v["first_update_idx"], "set it to 0")
    if list(v["gamma_vec"]) != [1, -1]:
        raise refusal("device.gamma_vec", list(v["gamma_vec"]), "set it to [1, -1]")
    given, names = devices_of(theirs, batch)
    given, names = (given * 2)[:2], (names * 2)[:2]  # one is taken twice, more than two are left
    return make(given[0], given[1], algorithms.ReferencePair(), names)


def vector(theirs: Any, batch: int | None) -> Compound:
    """A ``VectorUnitCell``: the array that is pulsed first becomes array 0.

    Args:
        theirs: the cell. batch: samples of a mini-batch, or None.

    Raises:
        ConfigError: a field has no counterpart.
    """
    v, policy = _vector_fields(theirs)
    given, names = devices_of(theirs, batch)
    count, first = len(given), v["first_update_idx"]
    if not 0 <= first < count:
        raise refusal("device.first_update_idx", first, f"set it to 0 to {count - 1}")
    weights = [float(weight) for weight in v["gamma_vec"]]
    if weights and len(weights) != count:
        raise refusal("device.gamma_vec", weights, f"give {count} numbers")
    if weights and not math.isclose(sum(weights), 1, rel_tol=1e-6):
        raise refusal("device.gamma_vec", weights, "give weights whose sum is 1")
    if policy in ("first", "sequential"):  # there a sequence steps on before it pulses
        start = (first + (policy == "sequential")) % count
        given, names = given[start:] + given[:start], names[start:] + names[:start]
        weights = weights[start:] + weights[:start]
    others = given[1:] or given
    if any(other != others[0] for other in others):
        fix = "give equal devices, at least all but the one that is pulsed first"
        raise refusal("device.unit_cell_devices", names, fix)
    rule = algorithms.Vector(arrays=count, weights=tuple(weights), pulsed=policy)
    return make(given[0], others[0], rule, (names * 2)[:2])

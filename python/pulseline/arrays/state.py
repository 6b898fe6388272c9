"""What an array saves beside its weights: plain values by name, so that the state can grow.

A state holds the identity, the counters, and every field of every setting. On loading:

- what decides the random numbers (draw numbering, device, rows, columns, array) must be equal; seed
  and id must be where somebody asked for them, else the saved ones are taken over,
- settings must be equal; one that the state lacks counts as its inert value (``settings``),
- one that this version does not know is refused: nobody here can tell what it did.

How an array is computed (threads, executor, fields that are no physics) is no part of it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import Field, dataclass, replace
from typing import Any

from ..errors import ConfigError
from ..identity import Identity
from ..settings import inert_values, saved_fields

__all__ = ["FORMAT", "Saved", "check", "pack", "values_of"]

FORMAT = 2
# How a user calls the settings of a section.
_SECTIONS = {
    "device": "device",
    "forward": "io.forward",
    "backward": "io.backward",
    "update": "update",
    "mapping": "mapping",
}
_BUILD = "build the model as it was when saved"
_RECONFIGURE = f"{_BUILD}, or take its settings by pulseline.nn.reconfigure before it is loaded"
_OTHERS = ("format", "numbering", "identity", "counters", "out_scale", "averages")


@dataclass(frozen=True)
class Saved:
    """What, beside the weights, continues a run.

    Args:
        numbering: of the draws.
        shape: (rows, cols) of the matrix.
        identity: whose draws.
        settings: the dataclasses of device, forward and backward reads, update and mapping.
        counters: vectors read and updates done so far, by name.
        out_scale: of every read.
        averages: running averages of the inputs, forward and backward; 0: none yet.
    """

    numbering: int
    shape: tuple[int, ...]
    identity: Identity
    settings: tuple[Any, ...]
    counters: Mapping[str, int]
    out_scale: float
    averages: list[float]


def _plain(field: Field[Any], value: Any) -> Any:
    """1, 1.0 and True are one setting, as are 0.0 and -0.0."""
    if isinstance(value, (tuple, list)):
        return [float(entry) + 0.0 for entry in value]
    if isinstance(value, str):
        return "".join(value)
    if field.type == "bool" and value in (0, 1):
        return bool(value)
    return int(value) if field.type == "int" else float(value) + 0.0


def values_of(settings: Any) -> dict[str, Any]:
    """Every field of a settings dataclass as a plain value."""
    return {one.name: _plain(one, getattr(settings, one.name)) for one in saved_fields(settings)}


def pack(saved: Saved) -> dict[str, Any]:
    """The state: nothing but dicts, lists, strings and numbers."""
    one = saved.identity
    return {
        "format": FORMAT,
        "numbering": saved.numbering,
        "identity": {
            "device": type(saved.settings[0]).__name__,
            "rows": saved.shape[0],
            "cols": saved.shape[1],
            "seed": one.seed,
            "tile_id": one.tile_id,
            "array": one.array,
        },
        **{name: values_of(one) for name, one in zip(_SECTIONS, saved.settings, strict=True)},
        "counters": dict(saved.counters),
        "out_scale": saved.out_scale,
        "averages": list(saved.averages),
    }


def check(state: object, own: Saved, name: str) -> Saved:
    """What a state holds, if an array can continue from it.

    Args:
        state: of :func:`pack`, or anything.
        own: what the array itself would save.
        name: what the user calls the array.

    Raises:
        ConfigError: it is no state, of another format or numbering, of other devices or settings,
            or damaged; the sentence names the field and both values.
    """
    if not isinstance(state, dict) or "format" not in state:
        raise ConfigError(f"{name}: a {type(state).__name__} is no array's state; load another")
    found, here = (state["format"], state.get("numbering")), (FORMAT, own.numbering)
    if found != here:
        raise ConfigError(
            f"{name}: its state has format {found[0]!r} and draw numbering {found[1]!r}; "
            f"this version reads {FORMAT} and {own.numbering}"
        )
    present = pack(own)
    _refuse_unknown(state, (*_SECTIONS, *_OTHERS), name)
    for section in ("identity", *_SECTIONS, "counters"):
        if not isinstance(state.get(section), dict):
            raise _damaged(name, section, state.get(section))
    identity = _identity(state["identity"], present["identity"], own.identity, name)
    for (section, label), kind in zip(_SECTIONS.items(), map(type, own.settings), strict=True):
        _compare(state[section], present[section], inert_values(kind), f"{name}: {label}")
    return replace(
        own,
        identity=identity,
        counters=_counters(state["counters"], own.counters, name),
        out_scale=_out_scale(state, name),
        averages=_averages(state, name),
    )


def _damaged(name: str, field: str, value: object) -> ConfigError:
    text = f"{name}: its state has {field} = {value!r:.60}"
    return ConfigError(f"{text}; it is damaged, load an intact one")


def _refuse_unknown(saved: Mapping[Any, Any], known: Any, name: str) -> None:
    for field in saved:
        if field not in known:
            raise ConfigError(
                f"{name}: its state has {field} = {saved[field]!r:.60}, which this version does "
                "not know; load it with the version that wrote it"
            )


def _equal(saved: object, present: object) -> bool:
    plain = isinstance(saved, (bool, int, float, str, list, tuple))
    return plain and (list(saved) if isinstance(saved, tuple) else saved) == present


def _must_equal(saved: object, present: object, label: str, remedy: str = _BUILD) -> None:
    if not _equal(saved, present):
        raise ConfigError(
            f"{label} was saved as {saved!r:.60} and is {present!r:.60} here; {remedy}"
        )


def _compare(
    saved: Mapping[str, Any], present: Mapping[str, Any], inert: Mapping[str, Any], label: str
) -> None:
    _refuse_unknown(saved, present, label)
    remedy = _BUILD if label.endswith("device") else _RECONFIGURE
    for field, value in present.items():
        if field in saved:
            _must_equal(saved[field], value, f"{label}.{field}", remedy)
        elif field in inert:
            _must_equal(inert[field], value, f"{label}.{field} (not in the state)", remedy)
        else:
            raise ConfigError(f"{label}.{field} is not in the state; load an intact one")


def _identity(
    saved: Mapping[str, Any], present: Mapping[str, Any], own: Identity, name: str
) -> Identity:
    _refuse_unknown(saved, present, f"{name}: identity")
    for field, value in present.items():
        if field not in saved:
            raise _damaged(name, field, None)
        if field not in ("seed", "tile_id"):
            _must_equal(saved[field], value, f"{name}: {field}")
        elif field in own.requested and saved[field] != value:
            raise ConfigError(
                f"{name}: {field} was saved as {saved[field]!r:.60} and is {value!r} here; build "
                "the model with the saved one, or without seed= and tile_id= to take it over"
            )
    try:
        return Identity(saved["seed"], saved["tile_id"], own.array, own.requested)
    except ConfigError as error:
        raise ConfigError(f"{name}: its state is damaged ({error}); load another") from None


def _counters(saved: Mapping[str, Any], own: Mapping[str, int], name: str) -> dict[str, int]:
    """A counter that the state lacks has not counted anything."""
    _refuse_unknown(saved, own, f"{name}: counters")
    for field, value in saved.items():
        if type(value) is not int or not 0 <= value < 1 << 63:
            raise _damaged(name, f"counters.{field}", value)
    return {field: saved.get(field, 0) for field in own}


def _out_scale(state: Mapping[str, Any], name: str) -> float:
    scale = state.get("out_scale")
    if not isinstance(scale, float) or not 0 < scale < math.inf:
        raise _damaged(name, "out_scale", scale)
    return scale


def _averages(state: Mapping[str, Any], name: str) -> list[float]:
    """A state without any has not averaged yet."""
    values = state.get("averages", [0.0, 0.0])
    ok = isinstance(values, list) and len(values) == 2
    if not ok or not all(isinstance(v, float) and 0 <= v < math.inf for v in values):
        raise _damaged(name, "averages", values)
    return list(values)

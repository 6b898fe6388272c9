"""One stage in a checkpoint: what its file holds, and what a file must hold to be taken over."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..arrays import Array
from .manifest import is_count
from .stage import Stage

__all__ = ["Misfit", "arrays_of", "check", "content", "pack", "take", "unpack"]

_FIELDS = ("version", "state", "optimizer", "fired")
_COUNTS = (3, 5)  # numbers of pulses that an array counts: of updates, and of writes too


class Misfit(ValueError):
    """A file holds what the stage cannot take over."""


def arrays_of(stage: Stage) -> dict[str, Array]:
    """The arrays of a stage under their names in the whole model."""
    return {
        stage.full_name(name): module
        for name, module in stage.module.named_modules()
        if isinstance(module, Array)
    }


def content(stage: Stage) -> dict[str, Any]:
    """What continues a stage, pulses that its arrays have counted included."""
    fired = {name: array.fired for name, array in arrays_of(stage).items()}
    return {
        "version": stage.version,
        "state": stage.state(),
        "optimizer": stage.optimizer.state_dict(),
        "fired": {name: None if n is None else n.tolist() for name, n in fired.items()},
    }


def take(stage: Stage, saved: Mapping[str, Any]) -> None:
    """Take over a content; what the modules raise, they raise half way.

    Args:
        stage: that continues. saved: :func:`content` of such a one.

    Raises:
        Misfit: an array is to have counted pulses, which it cannot.
    """
    stage.load(saved["state"])
    stage.optimizer.load_state_dict(saved["optimizer"])
    stage.version = saved["version"]
    for name, array in arrays_of(stage).items():
        counted = saved["fired"][name]
        array.fired = None
        if counted is not None:
            array.count_pulses()
            if array.fired is None:
                raise Misfit(f"fired is {counted} for {name}, which counts no pulses")
            array.fired[: len(counted)] = torch.tensor(counted, dtype=torch.int64, device="cpu")


def pack(stage: Stage) -> bytes:
    """The file of a stage."""
    buffer = io.BytesIO()
    torch.save(content(stage), buffer)
    return buffer.getvalue()


def unpack(stage: Stage, data: bytes) -> dict[str, Any]:
    """What the file of a stage holds, once its sha256 is known to be right.

    Args:
        stage: that is to take it over; nothing of it is changed. data: the file.

    Raises:
        Misfit: it is nothing that this stage could take over.
        Exception: whatever torch raises for what it cannot load.
    """
    saved = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    check(stage, saved)
    return dict(saved)


def check(stage: Stage, saved: Any) -> None:
    """Refuse what is no :func:`content` of such a stage.

    Args:
        stage: that is to take it over; nothing of it is changed. saved: anything.

    Raises:
        Misfit: it names the first thing that is wrong.
    """
    if not isinstance(saved, dict):
        raise Misfit(f"it holds a {type(saved).__name__}, no stage")
    _refuse_others("it", saved, _FIELDS)
    _require(is_count(saved["version"]), "version", saved["version"])
    own = stage.state()
    _require(isinstance(saved["state"], dict), "state", saved["state"])
    _refuse_others("its state", saved["state"], own)
    for name, held in own.items():
        value = saved["state"][name]
        if isinstance(held, Tensor):
            same = isinstance(value, Tensor) and (value.shape, value.dtype) == (
                held.shape,
                held.dtype,
            )
            _require(same, name, value)
    _check_optimizer(saved["optimizer"], stage.optimizer.state_dict())
    _require(isinstance(saved["fired"], dict), "fired", saved["fired"])
    _refuse_others("its fired", saved["fired"], arrays_of(stage))
    for name, counted in saved["fired"].items():
        several = isinstance(counted, list) and len(counted) in _COUNTS
        whole = several and all(map(is_count, counted))
        _require(counted is None or whole, f"fired of {name}", counted)


def _check_optimizer(saved: Any, own: Mapping[str, Any]) -> None:
    """Groups must be like the optimizer's own; what it keeps per parameter is its own affair."""
    _require(isinstance(saved, dict), "optimizer", saved)
    _refuse_others("its optimizer", saved, own)
    _require(_is_state(saved.get("state")), "optimizer.state", saved.get("state"))
    groups = saved["param_groups"]
    count = len(own["param_groups"])
    _require(isinstance(groups, list) and len(groups) == count, "param_groups", groups)
    for group, like in zip(groups, own["param_groups"], strict=True):
        _require(isinstance(group, dict) and {*like} <= {*group}, "param_groups", group)
        _require(group["params"] == like["params"], "param_groups.params", group["params"])
        for name, value in group.items():
            # a scheduler of learning rates adds numbers of its own
            _require(_is_like(value, like.get(name, value)), f"param_groups.{name}", value)
        if "lr" in group:
            _require(float(group["lr"]) >= 0, "param_groups.lr", group["lr"])


def _is_state(value: Any) -> bool:
    return isinstance(value, dict) and all(
        type(key) is int and isinstance(held, dict) and all(isinstance(name, str) for name in held)
        for key, held in value.items()
    )


def _is_like(value: Any, like: Any) -> bool:
    """Whether a setting is of the kind of another, and finite if that is."""
    if like is None or isinstance(like, bool):
        return value is None or isinstance(value, bool)
    if isinstance(like, (int, float)):
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return number and (math.isfinite(value) or not math.isfinite(like) or value is like)
    if isinstance(like, Tensor):
        same = isinstance(value, Tensor) and value.shape == like.shape
        return same and bool(torch.isfinite(value).all())
    if isinstance(like, (list, tuple)):
        same = isinstance(value, (list, tuple)) and len(value) == len(like)
        return same and all(map(_is_like, value, like))
    return isinstance(value, type(like))


def _refuse_others(what: str, saved: Mapping[Any, Any], own: Any) -> None:
    for name in own:
        if name not in saved:
            raise Misfit(f"{what} lacks {name}")
    for name in saved:
        if name not in own:
            raise Misfit(f"{what} has {name!r:.60}, which nothing here is called")


def _require(right: bool, name: str, value: Any) -> None:
    if not right:
        kind = tuple(value.shape) if isinstance(value, Tensor) else f"{value!r:.60}"
        raise Misfit(f"{name} is {kind}")

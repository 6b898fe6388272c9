"""Processes of one pipeline must have built the same: one checksum, and names where it differs.

Every process builds the whole pipeline and keeps one stage of it, so a process with another seed,
learning rate or schedule would train on without a word. At construction each lists what its
pipeline is made of; the sha256 of the lists are compared, and only where they differ the lists.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
from collections.abc import Callable, Iterable
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor, nn

from .. import ops
from ..arrays import arrays_of
from ..digest import digest
from ..errors import ConfigError
from .executors.apart import is_apart
from .executors.calls import groups_named
from .options import Options
from .stage import Stage

__all__ = ["Share", "agree", "facts"]

Share = Callable[[Any], list[Any]]


def facts(options: Options, schedule: object, stages: list[Stage]) -> dict[str, str]:
    """What a pipeline is made of, by name, apart from the values of weights.

    Args:
        options, schedule, stages: of the pipeline.
    """
    version = importlib.metadata.version("pulseline")
    found = {
        "pulseline's version": f"{version}, draw numbering {ops.NUMBERING}",
        "torch's version": torch.__version__,
        "schedule": repr(schedule),
        **{one.name: _option(getattr(options, one.name)) for one in fields(options)},
    }
    for stage in stages:
        of = f"of stage {stage.index}"
        found[f"layers {of}"] = ", ".join(_layers(stage.module))
        for name, parameter in stage.module.named_parameters():
            kind = str(parameter.dtype).removeprefix("torch.")
            trained = "" if parameter.requires_grad else " frozen"
            shape = f"{tuple(parameter.shape)} {kind}{trained}"
            found[f"parameter {stage.full_name(name)}"] = shape
        for name, array in arrays_of(stage.module.named_parameters()):
            who = array.identity
            layer = stage.full_name(name).rstrip(".")
            found[f"identity of layer {layer}"] = f"seed {who.seed}, id {who.tile_id}"
        found[f"optimizer {of}"] = type(stage.optimizer).__qualname__
        for number, group in enumerate(stage.optimizer.param_groups):
            for name, value in group.items():
                if name != "params":
                    found[f"{name} of the optimizer {of}, group {number}"] = _plain(value)
        if stage.loss is not None:
            found["loss"] = _callable(stage.loss)
    return found


def agree(options: Options, schedule: object, stages: list[Stage], share: Share) -> None:
    """Refuse a pipeline that another process has built in another way.

    Args:
        options, schedule, stages: of the pipeline. share: gives a value of every process, by rank.

    Raises:
        ConfigError: in all processes; it names what differs first, and where.
    """
    mine = facts(options, schedule, stages)
    apart = [stage.index for stage in stages if is_apart(stage.module)]
    shared = share((_checksum(mine.items()), apart))
    if len(shared) == 1:
        return
    if len({checksum for checksum, _ in shared}) > 1:
        _refuse(share(mine))
    trained = {index for _, indices in shared for index in indices}
    values = {}
    for stage in stages:
        if stage.index not in trained:
            for name, value in stage.state().items():
                values[f"value of {name}"] = _bits(name, value)
    if len({*share(_checksum(values.items()))}) > 1:
        _refuse(share(values))


def _refuse(all_facts: list[dict[str, str]]) -> None:
    names = dict.fromkeys(name for one in all_facts for name in one)
    for name in names:
        values = [one.get(name, "none") for one in all_facts]
        if len({*values}) > 1:
            short = [value if len(value) <= 200 else f"{value[:197]}..." for value in values]
            if len({*short}) < len({*values}):
                short = [f"{hashlib.sha256(value.encode()).hexdigest()[:8]}.." for value in values]
            raise ConfigError(
                f"the {name} is {groups_named(short)}; build the same pipeline in each process"
            )


def _checksum(items: Iterable[tuple[str, str]]) -> str:
    return hashlib.sha256(repr(list(items)).encode()).hexdigest()


def _bits(name: str, value: object) -> str:
    try:
        return f"sha256 {digest({name: value})[:16]}"
    except ConfigError:  # a state of a user's own, of any type
        return type(value).__qualname__


def _layers(module: nn.Module) -> list[str]:
    """Names, types and plain settings of a module's parts."""
    found = []
    for name, part in module.named_modules():
        if not name:
            continue
        kind = type(part)
        told = ""
        if kind.__module__.startswith("torch.nn."):
            known = ((key, value) for key, value in vars(part).items() if key[0] != "_")
            plain = [f"{k}={v!r}" for k, v in known if _is_plain(v) and k != "training"]
            told = f"({', '.join(plain)})" if plain else ""
        found.append(f"{name} {kind.__qualname__}{told}")
    return found


def _is_plain(value: object) -> bool:
    if isinstance(value, tuple):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, (bool, int, float, str))


def _option(value: object) -> str:
    return _callable(value) if callable(value) else repr(value)


def _plain(value: object) -> str:
    if isinstance(value, Tensor):
        return repr(value.tolist())
    return repr(value) if _is_plain(value) else type(value).__qualname__


def _callable(loss: object) -> str:
    """A name that is the same in every process."""
    if isinstance(loss, nn.Module):
        return f"{type(loss).__qualname__} {', '.join(_layers(nn.Sequential(loss)))}"
    inner = getattr(loss, "func", loss)  # of a functools.partial
    return str(getattr(inner, "__qualname__", type(inner).__qualname__))

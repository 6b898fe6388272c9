"""Whose checkpoints a directory holds: what must be equal to continue, or to write more there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from ..errors import ConfigError
from ..settings import inert_values
from .manifest import Damaged, manifest_path, read, steps
from .pipeline import Pipeline
from .shard import arrays_of
from .stage import Stage

__all__ = ["Owner", "as_json", "manifests", "of"]

# Sections of a manifest: run (stages, schedule), config (the caller's), model, seeds.
Owner = Mapping[str, Mapping[str, Any]]


def as_json(name: str, value: Mapping[str, Any]) -> dict[str, Any]:
    """As JSON gives it back, so that what is read compares equal.

    Args:
        name: for the message. value: of strings, numbers, lists and dicts.

    Raises:
        ConfigError: it is something else.
    """
    try:
        return dict(json.loads(json.dumps(value)))
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigError(
            f"{name} cannot be JSON ({error}); use numbers, strings, lists and mappings"
        ) from None


def of(pipe: Pipeline, config: Mapping[str, Any] | None) -> Owner:
    """What must be equal; all processes call it.

    Args:
        pipe: of the run. config: the caller's.

    Raises:
        ConfigError: config is no JSON.
    """
    run = {"stages": len(pipe.stages), "micro_batch_size": pipe.micro_batch_size}
    mine = [(_model_of(stage), _seeds_of(stage)) for stage in pipe.local]
    parts = [part for process in pipe.share(mine) for part in process]
    return {
        "run": as_json("schedule", run | pipe.schedule.described()),
        "config": as_json("config", config or {}),
        "model": as_json("model", {name: one for part, _ in parts for name, one in part.items()}),
        "seeds": {"seed": pipe.seed, **{name: n for _, part in parts for name, n in part.items()}},
    }


def manifests(root: Path, own: Owner, seeds: bool = True) -> list[dict[str, Any] | str]:
    """Manifests in a directory, newest first, or what is wrong with them.

    Args:
        root: directory. own: what they must have.
        seeds: those too; False where the run is about to take seeds over.

    Raises:
        ConfigError: one is of another version, of something else, or of another run.
    """
    sections = ("run", "config", "model", "seeds") if seeds else ("run", "config", "model")
    found: list[dict[str, Any] | str] = []
    for step in steps(root):
        path = manifest_path(root, step)
        try:
            body = read(path, step)
        except Damaged as damage:
            found.append(str(damage))
            continue
        for section in sections:
            _compare(path, body[section], own[section])
        found.append(body)
    return found


def _compare(path: Path, saved: Mapping[str, Any], own: Mapping[str, Any]) -> None:
    for name in sorted({*own, *saved}):
        was, now = saved.get(name), own.get(name)
        if was != now:
            raise ConfigError(
                f"{path} was written with {name}={was!r:.60} and this run has {now!r:.60}; use the "
                "same, or another directory"
            )


def _model_of(stage: Stage) -> dict[str, Any]:
    """Names and shapes, every array's device, the optimizer's class: what a run cannot change.

    A setting of a device counts where it is not the inert one, so that later versions may add some.
    """
    found: dict[str, Any] = {
        name: f"{' x '.join(map(str, value.shape))} {value.dtype}"
        for name, value in stage.state().items()
        if isinstance(value, Tensor)
    }
    found[f"optimizer of stage {stage.index}"] = type(stage.optimizer).__name__
    for name, array in arrays_of(stage).items():
        device = array.state()["device"]
        inert = inert_values(array.crossbar.device)
        found[f"{name}.device"] = type(array.crossbar.device).__name__
        for field, value in device.items():
            if field not in inert or value != inert[field]:
                found[f"{name}.device.{field}"] = value
    return found


def _seeds_of(stage: Stage) -> dict[str, int]:
    """Whose random numbers the arrays draw."""
    found = {}
    for name, array in arrays_of(stage).items():
        found[f"{name}.seed"] = array.identity.seed
        found[f"{name}.tile_id"] = array.identity.tile_id
    return found

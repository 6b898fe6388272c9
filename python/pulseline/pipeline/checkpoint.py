"""Checkpoints: the whole training state at a flush point, on disk so that a crash cannot harm it.

A checkpoint of step n is one shard per stage and a manifest::

    checkpoint-000003-stage2.pt     state of stage 2: weights, counters, optimizer, version
    checkpoint-000003.json          everything else, and the sha256 of every shard

Each file is written under a temporary name, brought to the disk and renamed; the manifest comes
last, when all shards are there. Whatever is killed when, the newest manifest whose shards all
verify is a complete checkpoint. It does not depend on the executor: what "dist" has written,
"sim" reads, and the other way round. Under "dist" all processes make the same calls.
"""

from __future__ import annotations

import copy
import hashlib
import io
import json
import pickle
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch

from ..errors import BackendError, ConfigError
from .manifest import Damaged, manifest_path, read, sealed, shard_path, steps, write
from .pipeline import Pipeline
from .stage import Stage

__all__ = ["Loaded", "load", "save", "steps"]

T = TypeVar("T")


class Loaded(NamedTuple):
    """What :func:`load` found.

    Attributes:
        step: of the checkpoint. state: the caller's, as it was saved.
        skipped: what is wrong with newer checkpoints, one sentence each.
    """

    step: int
    state: dict[str, Any]
    skipped: tuple[str, ...]


def save(
    pipe: Pipeline,
    directory: str | Path,
    step: int,
    *,
    config: Mapping[str, Any] | None = None,
    state: Mapping[str, Any] | None = None,
    keep: int = 2,
) -> Path:
    """Write a checkpoint of a pipeline that stands at a flush point.

    Args:
        pipe: to be saved. directory: made if need be. step: number of the checkpoint, >= 0.
        config: what a run must share to continue this one (seed, data, ...), as JSON.
        state: what the caller needs to continue, as JSON.
        keep: newest checkpoints that stay.

    Returns:
        The manifest's path.

    Raises:
        ConfigError: micro-batches are in flight, ``step`` is no integer >= 0, or the directory
            holds checkpoints of another run or version, or of a later step; nothing was written.
        BackendError: a file cannot be written; the previous checkpoint is still whole.
    """
    pipe.check_flushed("a checkpoint")
    if isinstance(step, bool) or not isinstance(step, int) or step < 0:
        raise ConfigError(f"step is {step!r}; use an integer >= 0")
    root, run = Path(directory), _run(pipe, config)
    kept = _json("state", state or {})
    _together(pipe, lambda: _prepare(pipe, root, step, run))
    shards: dict[str, str] = {}
    lrs: dict[str, float] = {}
    for part in _together(pipe, lambda: [_write_shard(root, step, s) for s in pipe.local]):
        for index, sha, lr in part:
            shards[str(index)], lrs[str(index)] = sha, lr
    body = {
        "step": step,
        "run": run,
        "micro_batches": pipe.micro_batches,
        "cycles": pipe.cycles,
        "seed": pipe.seed,
        "lr": lrs,
        "state": kept,
        "shards": shards,
    }
    path = manifest_path(root, step)
    pipe.once(lambda: write(path, sealed(body)))
    _prune(pipe, root, keep)
    return path


def load(
    pipe: Pipeline, directory: str | Path, *, config: Mapping[str, Any] | None = None
) -> Loaded | None:
    """Continue from the newest complete checkpoint.

    Damaged manifests that are newer than the one taken get the ending ``.damaged``.

    Args:
        pipe: at a flush point; takes over weights, counters, optimizers, versions and seed.
        directory: of the checkpoints. config: as in :func:`save`.

    Returns:
        What was found; None: nothing is there.

    Raises:
        ConfigError: a checkpoint was written by another version or run (stages, schedule,
            micro-batch size, ``config``), or none is complete; nothing was changed.
    """
    pipe.check_flushed("loading a checkpoint")
    root, run = Path(directory), _run(pipe, config)
    manifests, skipped = pipe.once(lambda: _candidates(root, run))
    for body in manifests:
        damage = [text for text in pipe.share(_damage(pipe, root, body)) if text]
        if not damage:
            _apply(pipe, root, body)
            if pipe.rank == 0:
                _set_aside(root, body["step"])
            return Loaded(body["step"], body["state"], tuple(skipped))
        skipped += damage
    if skipped:
        raise ConfigError(
            f"no checkpoint in {root} is complete ({skipped[0]}); use another directory"
        )
    return None


def _together(pipe: Pipeline, work: Callable[[], T]) -> list[T]:
    """Do ``work`` in every process; its results by rank, or the first error in all of them."""
    result: Any = None
    error: Exception | None = None
    try:
        result = work()
    except (ConfigError, BackendError) as caught:
        error = caught
    shared = pipe.share((result, error))
    for _, failure in shared:
        if failure is not None:
            raise failure
    return [value for value, _ in shared]


# ---- writing ----


def _json(name: str, value: Mapping[str, Any]) -> dict[str, Any]:
    """As JSON gives it back, so that what is read compares equal."""
    try:
        return dict(json.loads(json.dumps(value)))
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"{name} cannot be JSON ({error}); use numbers, strings, lists and mappings"
        ) from None


def _run(pipe: Pipeline, config: Mapping[str, Any] | None) -> dict[str, Any]:
    """What must be equal to continue."""
    run = {"stages": len(pipe.stages), "micro_batch_size": pipe.micro_batch_size}
    return _json("config", {**run, **asdict(pipe.schedule), **(config or {})})


def _prepare(pipe: Pipeline, root: Path, step: int, run: dict[str, Any]) -> None:
    """Make the directory; refuse one with checkpoints of another run, or of a later step."""
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{root} cannot be a directory ({error.strerror}); use another") from None
    if pipe.rank == 0:
        _candidates(root, run)
        if (there := steps(root)) and there[0] > step:
            raise ConfigError(
                f"{root} holds the later step {there[0]}; load it, or use another directory"
            )


def _write_shard(root: Path, step: int, stage: Stage) -> tuple[int, str, float]:
    """Write one stage; its number, the sha256 of its file, its learning rate."""
    buffer = io.BytesIO()
    torch.save(_content(stage), buffer)
    data = buffer.getvalue()
    write(shard_path(root, step, stage.index), data)
    lr = float(stage.optimizer.param_groups[0].get("lr", 0.0))
    return stage.index, hashlib.sha256(data).hexdigest(), lr


def _prune(pipe: Pipeline, root: Path, keep: int) -> None:
    """Delete all but the newest checkpoints, each manifest before its shards."""
    old = pipe.once(lambda: steps(root)[max(keep, 1) :])
    for step in old:
        if pipe.rank == 0:
            manifest_path(root, step).unlink(missing_ok=True)
    pipe.share(None)
    for step in old:
        for stage in pipe.local:
            shard_path(root, step, stage.index).unlink(missing_ok=True)


# ---- reading ----


def _candidates(root: Path, run: dict[str, Any]) -> tuple[list[dict[str, Any]], list[str]]:
    """Readable manifests, newest first, and what is wrong with the others.

    Raises ConfigError for one of a newer version, of something else, or of another run.
    """
    found, damaged = [], []
    for step in steps(root):
        path = manifest_path(root, step)
        try:
            body = read(path)
        except Damaged as damage:
            damaged.append(str(damage))
            continue
        for name in sorted({*run, *body["run"]}):
            was, now = body["run"].get(name), run.get(name)
            if was != now:
                raise ConfigError(
                    f"{path} was written with {name}={was!r} and this run has {now!r}; use the "
                    "same, or another directory"
                )
        found.append(body)
    return found, damaged


def _set_aside(root: Path, step: int) -> None:
    """Rename the manifests that are newer than ``step``."""
    for later in steps(root):
        if later > step:
            path = manifest_path(root, later)
            path.replace(path.with_name(path.name + ".damaged"))


def _damage(pipe: Pipeline, root: Path, body: dict[str, Any]) -> str:
    """What is wrong with this process's shards; empty if nothing is."""
    for stage in pipe.local:
        path = shard_path(root, body["step"], stage.index)
        total = hashlib.sha256()
        try:
            with path.open("rb") as file:
                while data := file.read(1 << 20):
                    total.update(data)
        except OSError as error:
            return f"{path.name} cannot be read ({error.strerror})"
        if total.hexdigest() != body["shards"].get(str(stage.index)):
            return f"{path.name} is damaged"
    return ""


def _apply(pipe: Pipeline, root: Path, body: dict[str, Any]) -> None:
    """Take over a verified checkpoint, in all processes or in none."""
    before = [(s, copy.deepcopy(_content(s))) for s in pipe.local]

    def take() -> None:
        for stage in pipe.local:
            path = shard_path(root, body["step"], stage.index)
            try:
                _take(stage, torch.load(path, weights_only=True))
            except (RuntimeError, ValueError, KeyError, pickle.UnpicklingError) as error:
                text = str(error).splitlines()[0]
                raise ConfigError(
                    f"{path} does not fit stage {stage.index} ({text}); use the model that it was "
                    "saved from"
                ) from None

    try:
        _together(pipe, take)
    except BaseException:
        for stage, content in before:
            _take(stage, content)
        raise
    pipe.restore(body["micro_batches"], body["cycles"], body["seed"])


def _content(stage: Stage) -> dict[str, Any]:
    return {
        "version": stage.version,
        "state": stage.state(),
        "optimizer": stage.optimizer.state_dict(),
    }


def _take(stage: Stage, content: dict[str, Any]) -> None:
    stage.load(content["state"])
    stage.optimizer.load_state_dict(content["optimizer"])
    stage.version = content["version"]

"""Checkpoints: the whole training state at a flush point, on disk so that a crash cannot harm it.

A checkpoint of step n is one shard per stage and a manifest::

    checkpoint-000003-stage2.pt     stage 2: weights, counters, pulses, optimizer, version
    checkpoint-000003.json          everything else, and the sha256 of every shard and of itself

Each file is written under a random temporary name, brought to the disk and renamed; the manifest
comes last, when all shards are there. Whatever is killed when, the newest manifest whose shards all
verify is a complete checkpoint. No byte is interpreted before its sha256 is right, so one that was
damaged costs no more than its checkpoint. It does not depend on the executor: what "dist" has
written, "sim" reads, and the other way round. Under "dist" all processes make the same calls.

A directory belongs to one run: names and shapes, devices, seeds, schedule, ``config``.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
from collections.abc import Callable, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from .. import schedules
from ..errors import BackendError, ConfigError, os_failure
from . import owner, shard
from .manifest import (
    Damaged,
    content_of,
    leftovers,
    manifest_path,
    sealed,
    shard_path,
    steps,
    write,
)
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
        pipe: to be saved. directory: made if need be.
        step: number of the checkpoint, higher than that of any other there.
        config: what a run must share to continue this one (data, recipe, ...), as JSON.
        state: what the caller needs to continue, as JSON.
        keep: newest checkpoints that stay.

    Returns:
        The manifest's path.

    Raises:
        ConfigError: micro-batches are in flight, ``step`` or ``keep`` is out of its range, or the
            directory holds checkpoints of another run, model or version, or this step or a later
            one; nothing was written.
        BackendError: a file cannot be written; the previous checkpoint is still whole.
    """
    pipe.check_flushed("a checkpoint")
    _check_whole("step", step, 0)
    _check_whole("keep", keep, 1)
    root, own = _root(directory), owner.of(pipe, config)
    kept = owner.as_json("state", state or {})
    _together(pipe, lambda: _prepare(pipe, root, step, own))
    try:
        written = _together(pipe, lambda: [_write_shard(root, step, one) for one in pipe.local])
        body = {
            "step": step,
            **own,
            "micro_batches": pipe.micro_batches,
            "cycles": pipe.cycles,
            "segments": [[len([*same]), *one] for one, same in groupby(pipe.segments)],
            "seed": pipe.seed,
            "state": kept,
            "shards": {str(index): sha for part in written for index, sha in part},
        }
        path = pipe.once(lambda: _publish(root, step, own, body))
    except BackendError:
        _abandon(pipe, root, step)
        raise
    _prune(pipe, root, keep, own)
    return path


def load(
    pipe: Pipeline,
    directory: str | Path,
    *,
    config: Mapping[str, Any] | None = None,
    accept: Callable[[int, dict[str, Any]], object] | None = None,
) -> Loaded | None:
    """Continue from the newest complete checkpoint.

    Damaged manifests that are newer than the one taken get the ending ``.damaged``.

    Args:
        pipe: at a flush point; takes over weights, counters, optimizers, versions, seeds, finished
            segments and counted pulses (where the run counted some, else nothing is counted).
        directory: of the checkpoints. config: as in :func:`save`.
        accept: called with step and state before anything is changed; raises what refuses them.

    Returns:
        What was found; None: nothing is there.

    Raises:
        ConfigError: a checkpoint was written by another version, run or model, or does not hold
            what it should, or none is complete; nothing was changed.
    """
    pipe.check_flushed("loading a checkpoint")
    root, own = _root(directory), owner.of(pipe, config)
    skipped: list[str] = []
    for body in pipe.once(lambda: owner.manifests(root, own, seeds=False)):
        if isinstance(body, str):
            skipped.append(body)
            continue
        shards, wrong = _read_shards(pipe, root, body)
        if damaged := [text for text in pipe.share(wrong) if text]:
            skipped += damaged
            continue
        step, state = body["step"], body["state"]
        if accept is not None:
            accept(step, state)
        _apply(pipe, root, body, shards)
        if pipe.rank == 0:
            _set_aside(root, step)
        return Loaded(step, state, tuple(skipped))
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


def _check_whole(name: str, value: object, least: int) -> None:
    if type(value) is not int or not least <= value < 1 << 63:
        raise ConfigError(f"{name} is {value!r:.60}; use an integer >= {least}")


def _root(directory: str | Path) -> Path:
    if directory == "":
        raise ConfigError("directory is ''; name one, or use '.'")
    return Path(directory)


# ---- writing ----


def _prepare(pipe: Pipeline, root: Path, step: int, own: owner.Owner) -> None:
    """Make the directory; refuse one with checkpoints of another run, or of a later step."""
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise os_failure(f"{root} cannot be a directory", error) from None
    except ValueError as error:  # a null byte
        raise ConfigError(f"{str(root)!r} cannot be a directory ({error}); use another") from None
    if pipe.rank == 0:
        _refuse_others(root, step, own)


def _refuse_others(root: Path, step: int, own: owner.Owner) -> None:
    """Nothing that is there is written over: not another run's, not a step of this one."""
    owner.manifests(root, own)
    if (there := steps(root)) and there[0] >= step:
        which = "step" if there[0] == step else "the later step"
        raise ConfigError(f"{root} holds {which} {there[0]}; load it, or use another directory")


def _write_shard(root: Path, step: int, stage: Stage) -> tuple[int, str]:
    """Write one stage; its number, the sha256 of its file."""
    data = shard.pack(stage)
    write(shard_path(root, step, stage.index), data)
    return stage.index, hashlib.sha256(data).hexdigest()


def _publish(root: Path, step: int, own: owner.Owner, body: Mapping[str, Any]) -> Path:
    """Write the manifest, unless another run has come meanwhile."""
    _refuse_others(root, step, own)
    path = manifest_path(root, step)
    write(path, sealed(body))
    return path


def _abandon(pipe: Pipeline, root: Path, step: int) -> None:
    """Give the space of shards back that got no manifest."""
    if not pipe.once(lambda: manifest_path(root, step).exists()):
        for stage in pipe.local:
            _remove(shard_path(root, step, stage.index))


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)


def _prune(pipe: Pipeline, root: Path, keep: int, own: owner.Owner) -> None:
    """Delete all but the newest checkpoints, each manifest before its shards; then what is lost.

    One that is damaged does not count and stays.
    """

    def unlist() -> tuple[list[int], list[int]]:
        whole = [body["step"] for body in owner.manifests(root, own) if not isinstance(body, str)]
        for step in whole[keep:]:
            _remove(manifest_path(root, step))
        return whole[keep:], steps(root)

    old, kept = pipe.once(unlist)
    for step in old:
        for stage in pipe.local:
            _remove(shard_path(root, step, stage.index))
    owned = {stage.index for stage in pipe.local} | ({0} if pipe.rank == 0 else set())
    for path in leftovers(root, owned, kept):
        _remove(path)


# ---- reading ----


def _set_aside(root: Path, step: int) -> None:
    """Rename the manifests that are newer than ``step``, where the directory can be written."""
    for later in steps(root):
        if later > step:
            path = manifest_path(root, later)
            with contextlib.suppress(OSError):
                path.replace(path.with_name(path.name + ".damaged"))


def _read_shards(pipe: Pipeline, root: Path, body: dict[str, Any]) -> tuple[list[bytes], str]:
    """The bytes of this process's shards, and what is wrong with them; empty if nothing is."""
    found = []
    for stage in pipe.local:
        path = shard_path(root, body["step"], stage.index)
        try:
            data = content_of(path)
        except Damaged as damage:
            return [], str(damage)
        if hashlib.sha256(data).hexdigest() != body["shards"].get(str(stage.index)):
            return [], f"{path.name} is damaged"
        found.append(data)
    return found, ""


def _apply(pipe: Pipeline, root: Path, body: dict[str, Any], shards: list[bytes]) -> None:
    """Take over a verified checkpoint, in all processes or in none."""
    ready: list[tuple[Stage, dict[str, Any]]] = []
    before: list[tuple[Stage, dict[str, Any]]] = []

    def each(work: Callable[[Stage, Any], T], parts: list[tuple[Stage, Any]]) -> list[T]:
        done = []
        for stage, part in parts:
            try:
                done.append(work(stage, part))
            except Exception as error:
                path = shard_path(root, body["step"], stage.index)
                text = (str(error) or type(error).__name__).splitlines()[0]
                raise ConfigError(
                    f"{path} does not fit stage {stage.index} ({text}); use the model that it was "
                    "saved from"
                ) from None
        return done

    def unpack() -> None:
        parts = each(shard.unpack, [*zip(pipe.local, shards, strict=True)])
        ready.extend(zip(pipe.local, parts, strict=True))

    def take() -> None:
        each(shard.take, ready)

    _together(pipe, unpack)
    before += [(stage, copy.deepcopy(shard.content(stage))) for stage in pipe.local]
    try:
        _together(pipe, take)
    except BaseException:
        for stage, content in before:
            shard.take(stage, content)
        raise
    segments = [
        schedules.Segment(size, cycles)
        for times, size, cycles in body["segments"]
        for _ in range(times)
    ]
    pipe.restore(body["micro_batches"], body["cycles"], body["seed"], segments)

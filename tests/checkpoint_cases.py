"""The small run of the checkpoint tests, and ways to spoil its files."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch

import delayed
import executor_cases as cases
from pulseline.cost import count
from pulseline.errors import ConfigError
from pulseline.pipeline import Pipeline, checkpoint
from pulseline.schedules import Schedule, asynchronous

STAGES, STEPS, PER_STEP = 3, 4, 5
CONFIG = {"seed": 1}


def train(pipe: Pipeline, root: Path | None, first: int = 0, last: int = STEPS) -> None:
    """Steps ``first`` to ``last`` of a run, PER_STEP micro-batches each; a checkpoint each."""
    x, y = delayed.samples(STEPS * PER_STEP, cases.SIZE)
    size = PER_STEP * cases.SIZE
    for step in range(first, last):
        pipe.set_lr(cases.LR * 0.9**step)
        part = slice(step * size, (step + 1) * size)
        pipe.step(x[part], y[part])
        pipe.drain()
        if root is not None:
            checkpoint.save(pipe, root, step + 1, config=CONFIG, state={"done": step + 1})


def fresh(plan: Schedule | None = None, **options: Any) -> Pipeline:
    return cases.build(STAGES, plan or asynchronous(), **options)


def whole() -> tuple[str, int]:
    """Digest and cycles of the run that nothing interrupts."""
    pipe = fresh()
    train(pipe, None)
    return pipe.digest(), pipe.cycles


def resumed(root: Path, **options: Any) -> tuple[str, int]:
    """... of one that continues from the newest checkpoint."""
    with fresh(**options) as pipe:
        loaded = checkpoint.load(pipe, root, config=CONFIG)
        done = 0 if loaded is None else loaded.state["done"]
        assert done == (0 if loaded is None else loaded.step)
        train(pipe, root, done)
        return pipe.digest(), pipe.cycles


def content(root: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in root.iterdir()}


def damage(root: Path, name: str, keep: float = 0.5) -> None:
    data = (root / name).read_bytes()
    (root / name).write_bytes(data[: int(len(data) * keep)])


def flip(path: Path, byte: int, bit: int) -> None:
    """Flip one bit of a file."""
    data = bytearray(path.read_bytes())
    data[byte] ^= 1 << bit
    path.write_bytes(data)


def seal(body: str) -> bytes:
    """A manifest of that text, an object, as somebody with write access may make it."""
    rest = body[1:].encode()
    return b'{"sha256": "%s",' % hashlib.sha256(rest).hexdigest().encode() + rest


def body_of(path: Path) -> dict[str, Any]:
    """What a manifest holds, without its seal."""
    body: dict[str, Any] = json.loads(path.read_text())
    del body["sha256"]
    return body


def reseal(root: Path, step: int, changes: dict[str, Any]) -> None:
    """Change fields of a manifest and seal it again."""
    path = root / f"checkpoint-{step:06d}.json"
    path.write_bytes(seal(json.dumps({**body_of(path), **changes})))


def replace_shard(root: Path, step: int, stage: int, value: Any) -> None:
    """Another shard, with its sha256 in a sealed manifest; bytes as they are, the rest saved."""
    buffer = io.BytesIO()
    if not isinstance(value, bytes):
        torch.save(value, buffer)
    data = value if isinstance(value, bytes) else buffer.getvalue()
    (root / f"checkpoint-{step:06d}-stage{stage}.pt").write_bytes(data)
    shas = body_of(root / f"checkpoint-{step:06d}.json")["shards"]
    reseal(root, step, {"shards": {**shas, str(stage): hashlib.sha256(data).hexdigest()}})


def shard_of(root: Path, step: int, stage: int) -> dict[str, Any]:
    """What a shard holds."""
    path = root / f"checkpoint-{step:06d}-stage{stage}.pt"
    return dict(torch.load(path, weights_only=True))


def look(pipe: Pipeline) -> tuple[Any, ...]:
    """All that a refused checkpoint must leave alone."""
    groups = [
        {name: value for name, value in group.items() if name != "params"}
        for stage in pipe.stages
        for group in stage.optimizer.param_groups
    ]
    versions = [stage.version for stage in pipe.stages]
    fired = count(stage.module for stage in pipe.stages)
    done = pipe.micro_batches, pipe.cycles, pipe.segments
    return pipe.digest(), *done, pipe.seed, versions, groups, fired


def refused(root: Path, message: str, pipe: Pipeline | None = None) -> None:
    """Loading gives one sentence, and changes neither pipeline nor files."""
    pipe = pipe or fresh()
    before, files = look(pipe), content(root)
    with pytest.raises(ConfigError, match=message) as error:
        checkpoint.load(pipe, root, config=CONFIG)
    assert "\n" not in str(error.value)
    assert look(pipe) == before
    assert content(root) == files

"""What the executors are compared on: networks, schedules, whole runs. Noise is on."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

import delayed
from pulseline.pipeline import Pipeline
from pulseline.schedules import Event, Schedule, Segment, asynchronous, sequential, synchronous

SIZE = 4
COUNT = 20
LR = 0.05

SCHEDULES: dict[str, Schedule] = {
    "async": asynchronous(),
    "full duplex": asynchronous(full_duplex=True),
    "flush": asynchronous(flush_every=6),
    "warm-up": asynchronous(warmup=5, micro_batches=3),
    "1f1b": synchronous(7),
    "gpipe": synchronous(7, "gpipe"),
    "sequential": sequential(),
}


def deeper(stages: int) -> Schedule:
    """One more micro-batch in flight everywhere but at the end."""
    return asynchronous(inflight=[*range(stages + 1, 2, -1), 1])


class Outcome(NamedTuple):
    """All that must not depend on the executor."""

    digest: str
    cycles: int
    segments: list[Segment]
    losses: list[float]
    events: list[Event]
    output: list[list[float]]


def build(stages: int, plan: Schedule, kind: Any = None, **options: Any) -> Pipeline:
    """One layer per stage, on noisy SoftBounds tiles unless ``kind`` says otherwise."""
    kind = kind or delayed.Analog()
    return Pipeline(
        delayed.network(kind, stages),
        stages,
        optimizer=lambda parameters: kind.optimizer(parameters, LR),
        loss=nn.functional.mse_loss,
        schedule=plan,
        micro_batch_size=SIZE,
        **options,
    )


def feed(pipe: Pipeline, x: Tensor, y: Tensor, cut: int = 6) -> Tensor:
    """Train on all samples, ``cut`` micro-batches per step; the losses."""
    losses = []
    for inputs, targets in zip(x.split(cut * SIZE), y.split(cut * SIZE), strict=True):
        losses.append(pipe.step(inputs, targets))
    losses.append(pipe.drain())
    return torch.cat(losses)


def outcome(pipe: Pipeline, count: int = COUNT) -> Outcome:
    """Train, evaluate, and look at everything."""
    x, y = delayed.samples(count, SIZE)
    losses = feed(pipe, x, y).tolist()
    output = pipe.eval(x[:3]).tolist()
    return Outcome(pipe.digest(), pipe.cycles, pipe.segments, losses, pipe.events(), output)

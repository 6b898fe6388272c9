"""Where to cut a model so that its stages take equal wall time here: measured, not modelled.

Every layer with parameters becomes a stage of its own of a copy of the model, which trains a few
micro-batches on one thread of torch; medians of its F, B and U are what a stage of several is the
sum of. What the modelled hardware would take is another matter: :func:`pulseline.cost.balance`.
"""

from __future__ import annotations

import copy
import statistics
from collections.abc import Sequence
from typing import Any

from torch import nn

from ..errors import ConfigError
from ..hardware import Balance
from ..hardware.balance import balance
from .build import OptimizerFactory
from .pipeline import Pipeline
from .split import units
from .stage import Loss

__all__ = ["measured_balance"]


def measured_balance(
    model: nn.Module,
    stages: int,
    x: Any,
    y: Any,
    *,
    optimizer: OptimizerFactory,
    loss: Loss,
    micro_batch_size: int = 1,
    inputs: Sequence[str] | None = None,
) -> Balance:
    """Stages of ``model`` balanced by the time that they take here.

    Args:
        model: to be cut; it is left as it is. stages: how many.
        x, y: samples of some micro-batches, the first of which warms up; see
            :meth:`pulseline.Pipeline.step`.
        optimizer, loss, micro_batch_size, inputs: as for the pipeline that is to run.

    Returns:
        For ``Pipeline(balance=)``: layers of every stage, and their seconds per micro-batch.

    Raises:
        ConfigError: the model cannot be cut, or there are fewer than two micro-batches.
    """
    layers = len(units(model, stages, inputs))
    with Pipeline(
        copy.deepcopy(model),
        layers,
        "sequential",
        optimizer=optimizer,
        loss=loss,
        inputs=inputs,
        micro_batch_size=micro_batch_size,
        measure=True,
        stage_threads=1,
    ) as pipe:
        pipe.step(x, y)
        pipe.drain()
        if pipe.micro_batches < 2:
            raise ConfigError("x holds one micro-batch; use several, of which the first warms up")
        took: dict[tuple[int, str], list[float]] = {}
        for span in pipe.spans():
            if span.mb:
                took.setdefault((span.stage, span.kind), []).append(span.end - span.start)
    times = [sum(statistics.median(took[m, kind]) for kind in "FBU") for m in range(1, layers + 1)]
    return balance(times, stages)

"""Our stages under torch.distributed.pipelining, for comparison and for its own schedules.

Metadata are static: torch's dynamic inference would run every tile once more, on uninitialised
memory. Never use torch's tracing front end ``pipeline()`` with analog layers: it copies the
weights into a graph and bypasses backward and update of the tile without a word.

``ScheduleGPipe`` and ``Schedule1F1B`` accumulate gradients in the order of our synchronous
schedules; with ``scale_grads=True`` and one ``optimizer.step()`` after each ``step`` they leave
the bits of ``synchronous(B, update="averaged")``, with ``scale_grads=False`` those of "pulsed".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..errors import ConfigError
from ..nn.traced import refuse_graphs
from .stage import evaluating

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup
    from torch.distributed.pipelining import PipelineStage

__all__ = ["to_torch_stage"]


def to_torch_stage(
    modules: Sequence[nn.Module],
    rank: int,
    example: Tensor,
    group: ProcessGroup | None = None,
    **options: Any,
) -> PipelineStage:
    """One of our modules as torch's PipelineStage of its rank.

    Args:
        modules: all stages' modules, as ``[stage.module for stage in pipe.stages]``; every rank
            holds them, only its own is trained.
        rank: of the module, from 0.
        example: one micro-batch of the first stage's input; all micro-batches have its shape.
        group: processes; None: all.
        options: of PipelineStage.

    Raises:
        ConfigError: the rank is out of range, or a module is traced.
    """
    from torch.distributed.pipelining import PipelineStage

    if not 0 <= rank < len(modules):
        raise ConfigError(f"rank is {rank}; use 0 to {len(modules) - 1}, one stage per rank")
    for module in modules:
        refuse_graphs(module)
    x = y = example
    with evaluating(modules), torch.no_grad():
        for module in modules[: rank + 1]:
            x, y = y, module(y)
    return PipelineStage(
        modules[rank],
        rank,
        len(modules),
        example.device,
        input_args=torch.zeros_like(x, requires_grad=rank > 0),
        output_args=torch.zeros_like(y, requires_grad=True),
        group=group,
        **options,
    )

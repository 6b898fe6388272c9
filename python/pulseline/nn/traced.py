"""Models that are graphs already: traces and pipelines of torch, whose calls go past crossbars.

A graph holds the operations of its modules and not the modules, so that what is converted in it, or
trained through it, is left out of reads, backward passes and updates without a word.
"""

from __future__ import annotations

import torch
from torch import nn

from ..ops import refuse_traced

__all__ = ["refuse_graphs"]


def refuse_graphs(model: nn.Module) -> None:
    """Refuse a model that is, or holds, a traced or scripted graph or torch's Pipe.

    Raises:
        ConfigError: it does.
    """
    for name, part in model.named_modules():
        kind = type(part)
        graph = isinstance(part, (torch.fx.GraphModule, torch.jit.ScriptModule))
        if graph or (  # recognised without importing its package
            kind.__name__ == "Pipe" and kind.__module__.startswith("torch.distributed.pipelining")
        ):
            called = f"module {name!r}" if name else "the model"
            refuse_traced(f"{called} is a traced {kind.__name__}", "give the original module")

"""Cut an ``nn.Sequential`` into stages that hold whole layers."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import nn

from ..errors import ConfigError

__all__ = ["Balance", "has_parameters", "refuse_traced", "split"]

# Parameterised layers per stage; None: equal numbers.
Balance = Sequence[int] | None


def has_parameters(module: nn.Module) -> bool:
    """Whether the module holds anything that could be trained."""
    return next(module.parameters(), None) is not None


def _is_torch_pipe(model: nn.Module) -> bool:
    """torch.distributed.pipelining.Pipe, recognised without importing its package."""
    kind = type(model)
    return kind.__name__ == "Pipe" and kind.__module__.startswith("torch.distributed.pipelining")


def refuse_traced(model: nn.Module) -> None:
    """Refuse a model that bypasses its tiles in backward.

    Raises:
        ConfigError: it, or a part of it, is a traced graph or torch's Pipe.
    """
    for name, part in model.named_modules():
        if isinstance(part, torch.fx.GraphModule) or _is_torch_pipe(part):
            raise ConfigError(
                f"{name or 'model'} is a traced {type(part).__name__}, which bypasses the tiles in "
                "backward; give the original module"
            )


def split(model: nn.Module, stages: int, balance: Balance = None) -> list[nn.Sequential]:
    """Consecutive parts of ``model``, sharing its layers; a part ends before a layer's weights.

    Layers without parameters stay with the layer before them.

    Args:
        model: an nn.Sequential. stages: how many parts.
        balance: parameterised layers per stage, such as ``pulseline.cost.balance(model,
            stages).counts``; None: equal numbers, the first stages take the rest.

    Raises:
        ConfigError: the model is not a Sequential or traced, or counts do not fit.
    """
    refuse_traced(model)
    if not isinstance(model, nn.Sequential):
        raise ConfigError(
            f"model is a {type(model).__name__}; use an nn.Sequential, which can be cut into "
            "stages, or build Stage objects by hand"
        )
    if isinstance(stages, bool) or not isinstance(stages, int) or stages < 1:
        raise ConfigError(f"stages is {stages!r}; use an integer >= 1")
    layers = list(model)  # a layer used twice counts twice, unlike in children()
    starts = [i for i, layer in enumerate(layers) if has_parameters(layer)]
    if isinstance(balance, str):
        raise ConfigError(
            f"balance is {balance!r}; use layers per stage, such as "
            "pulseline.cost.balance(model, stages).counts"
        )
    counts = _counts(len(starts), stages, balance)
    firsts = [0]
    for count in counts[:-1]:
        firsts.append(firsts[-1] + count)
    cuts = [0, *(starts[first] for first in firsts[1:]), len(layers)]
    return [nn.Sequential(*layers[a:b]) for a, b in pairwise(cuts)]


def _counts(layers: int, stages: int, balance: Sequence[int] | None) -> list[int]:
    """Parameterised layers of each stage."""
    if balance is None:
        if stages > layers:
            raise ConfigError(
                f"stages is {stages}, more than the {layers} layers with parameters; use fewer"
            )
        each, rest = divmod(layers, stages)
        return [each + (m < rest) for m in range(stages)]
    counts = list(balance)
    if len(counts) != stages or sum(counts) != layers or min(counts) < 1:
        raise ConfigError(
            f"balance is {counts}; give each of {stages} stages at least one of the {layers} "
            "layers with parameters, and use all of them"
        )
    return counts

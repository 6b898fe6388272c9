"""Cut a model into stages: by number, by names of submodules; a part ends before a layer's weights.

An ``nn.Sequential`` with enough children is cut between them, everything else on the graph of its
modules (:mod:`.graph`), where a residual block may be cut in its middle.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate, islice, pairwise
from typing import NamedTuple

from torch import nn

from ..errors import ConfigError
from ..hardware import Balance as BalancedBy
from ..nn.traced import refuse_graphs
from .graph import trace
from .segment import segments, starts_at
from .segment import units as units_of

__all__ = ["Balance", "Stages", "has_parameters", "names", "split", "units"]

# Parameterised layers per stage, or what holds them as counts; None: equal numbers.
Balance = Sequence[int] | BalancedBy | None
# How many, or names of the submodules with which the second, third, .. begin.
Stages = int | Sequence[str]


def has_parameters(module: nn.Module) -> bool:
    """Whether the module holds anything that could be trained."""
    return next(module.parameters(), None) is not None


def _children(model: nn.Module) -> dict[str, nn.Module] | None:
    """Children of a Sequential in order, one that is used twice twice; None: it is none."""
    if type(model).forward is not nn.Sequential.forward:
        return None
    return {name: child for name, child in model._modules.items() if child is not None}


def _between_children(model: nn.Module, stages: int) -> bool:
    children = _children(model)
    if children is None:
        return False
    layers = sum(map(has_parameters, children.values()))
    deeper = any(child._modules for child in children.values())
    return stages <= layers or not deeper


def units(model: nn.Module, stages: int, inputs: Sequence[str] | None = None) -> list[str]:
    """Names of the layers with parameters that :func:`split` counts, in order.

    Args:
        model: to be cut. stages: how many. inputs: see :func:`split`.
    """
    if _between_children(model, stages):
        children = _children(model) or {}
        return [name for name, child in children.items() if has_parameters(child)]
    return [name for _, name in units_of(trace(model, inputs))]


def split(
    model: nn.Module,
    stages: Stages,
    balance: Balance = None,
    inputs: Sequence[str] | None = None,
) -> list[nn.Module]:
    """Consecutive parts of ``model``, sharing its layers; their states have its :func:`names`.

    Layers without parameters stay with the layer before them.

    Args:
        model: an nn.Sequential, or any module whose forward torch.fx can follow.
        stages: how many parts, or names of the submodules with which the second, third, .. begin.
        balance: parameterised layers per stage, such as ``pulseline.cost.balance(model, stages)``;
            None: equal numbers, the first stages take the rest.
        inputs: arguments of the model's forward that a micro-batch brings; None: those without a
            default.

    Raises:
        ConfigError: the model cannot be cut, or cannot be cut there.
    """
    refuse_graphs(model)
    if isinstance(balance, str):
        raise ConfigError(
            f"balance is {balance!r}; use layers per stage, such as "
            "pulseline.cost.balance(model, stages)"
        )
    if not isinstance(stages, (int, str)) and isinstance(stages, Sequence):
        if balance is not None:
            raise ConfigError("balance belongs to a number of stages; leave one of them out")
        return _split_by_names(model, list(stages), inputs)
    if isinstance(stages, bool) or not isinstance(stages, int) or stages < 1:
        raise ConfigError(
            f"stages is {stages!r}; use an integer >= 1, or a list of names of submodules"
        )
    if stages == 1 and balance is None and _children(model) is None:
        return [model]
    if _between_children(model, stages):
        children = _children(model) or {}
        starts = [n for n, child in enumerate(children.values()) if has_parameters(child)]
        firsts = _firsts(_counts(len(starts), stages, balance))
        return _split_children(model, [starts[first] for first in firsts])
    traced = trace(model, inputs)
    found = units_of(traced)
    firsts = _firsts(_counts(len(found), stages, balance))
    return [*segments(traced, [found[first][0] for first in firsts])]


def names(model: nn.Module, parts: Sequence[nn.Module]) -> list[Callable[[str], str]]:
    """What entries of each part's state are called in the model.

    Args:
        model: that was cut. parts: as :func:`split` gave them.
    """
    sequentials = [part for part in parts if type(part) is nn.Sequential]
    if len(sequentials) < len(parts) or parts[0] is model:
        return [str] * len(parts)
    children = iter(_children(model) or {})
    taken = ([*islice(children, len(part))] for part in sequentials)
    return [_Renaming(some).name for some in taken]


class _Renaming(NamedTuple):
    """Children of a part are numbered from 0; in the model they have names."""

    children: list[str]

    def name(self, name: str) -> str:
        child, _, rest = name.partition(".")
        return f"{self.children[int(child)]}.{rest}"


def _split_by_names(
    model: nn.Module, firsts: list[str], inputs: Sequence[str] | None
) -> list[nn.Module]:
    children = _children(model)
    if children is not None and {*firsts} <= {*children}:
        places = [[*children].index(name) for name in firsts]
        if all(a < b for a, b in pairwise([0, *places])):
            return _split_children(model, places)
    traced = trace(model, inputs)
    return [*segments(traced, starts_at(traced, firsts))]


def _split_children(model: nn.Module, starts: Sequence[int]) -> list[nn.Module]:
    """Sequentials of consecutive children."""
    children = [*(_children(model) or {}).values()]
    return [nn.Sequential(*children[a:b]) for a, b in pairwise([0, *starts, len(children)])]


def _firsts(counts: Sequence[int]) -> list[int]:
    """Layers with which the second, third, .. stage begin."""
    return [*accumulate(counts)][:-1]


def _counts(layers: int, stages: int, balance: Balance) -> list[int]:
    """Parameterised layers of each stage."""
    if balance is None:
        if stages > layers:
            raise ConfigError(
                f"stages is {stages}, more than the {layers} layers with parameters; use fewer"
            )
        each, rest = divmod(layers, stages)
        return [each + (m < rest) for m in range(stages)]
    counts = list(balance.counts if isinstance(balance, BalancedBy) else balance)
    if len(counts) != stages or sum(counts) != layers or min(counts) < 1:
        raise ConfigError(
            f"balance is {counts}; give each of {stages} stages at least one of the {layers} "
            "layers with parameters, and use all of them"
        )
    return counts

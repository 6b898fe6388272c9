"""Segments: consecutive runs of a model's graph, as modules that hold the model's own parts.

A segment's ``state_dict`` has the names of the whole model. What a later segment needs rides in the
messages of all cuts between: a skip is received and passed on. Parameters and buffers are read
where they are used.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ConfigError
from .graph import Traced, changes_in_place, path_of
from .messages import changed

__all__ = ["Segment", "segments", "starts_at", "units"]


class _Holder(nn.Module):
    """A module of the model's tree whose forward is in the graph."""


class Segment(_Holder):
    """One run of a graph; its children are the model's parts, under their names.

    Args:
        graph: of this run alone; its inputs are what the message brings, its output what is sent.
        first: takes the model's own inputs: a tensor, a tuple of arguments, a dict of them by name.
        single: the message is one value. fresh: the run writes into what it is given.
    """

    def __init__(self, graph: torch.fx.Graph, first: bool, single: bool, fresh: bool) -> None:
        super().__init__()
        code = graph.python_code("self")
        space = dict(code.globals)
        exec(compile(code.src, "<pulseline segment>", "exec"), space)
        self.__dict__["_run"] = space["forward"]
        self.__dict__["_how"] = (first, single, fresh)

    def forward(self, value: Any) -> Any:
        """Run it.

        Args:
            value: the message of the segment before, or the model's inputs.
        """
        first, single, fresh = self.__dict__["_how"]
        if fresh:
            value = changed(value, Tensor.clone)
        run = self.__dict__["_run"]
        if first and isinstance(value, dict):
            return run(self, **value)
        if isinstance(value, tuple) and (first or not single):
            return run(self, *value)
        return run(self, value)


# ---- where a graph may be cut ----


def units(traced: Traced) -> list[tuple[int, str]]:
    """Layers with parameters in order of their first use: (number of the node, name).

    A parameter of a module that is not called as a whole is a layer of its own.
    """
    found, seen = [], set()
    for n, node in enumerate(traced.graph.nodes):
        target = str(node.target)
        if node.op == "call_module":
            part: Any = traced.model.get_submodule(target)
            counts = next(part.parameters(), None) is not None
        elif node.op == "get_attr":
            part = traced.value(target)
            counts = isinstance(part, nn.Parameter)
        else:
            continue
        if counts and id(part) not in seen:
            seen.add(id(part))
            found.append((n, target))
    return found


def starts_at(traced: Traced, names: Sequence[str]) -> list[int]:
    """First nodes of submodules.

    Args:
        traced: the graph. names: of submodules, in the order in which they are used.

    Raises:
        ConfigError: there is no such submodule, it is inside a module that stays whole, or they
            come in another order.
    """
    found: list[int] = []
    known = {name for name, _ in traced.model.named_modules() if name}
    nodes = list(traced.graph.nodes)
    for name in names:
        if name not in known:
            raise ConfigError(
                f"stages names {name!r}, which the model has not; use names of its submodules"
            )
        where = [n for n, node in enumerate(nodes) if f"{path_of(node)}.".startswith(f"{name}.")]
        if not where:
            raise ConfigError(
                f"stages names {name!r}, which is not called, or is inside a module that stays "
                "whole; name another one"
            )
        found.append(where[0])
    inputs = sum(node.op == "placeholder" for node in nodes)
    if any(b <= a for a, b in pairwise([inputs, *found])):
        raise ConfigError(
            f"stages is {list(names)}; name the first submodules of the second, third, .. stage in "
            "the order in which the model uses them"
        )
    return found


# ---- cutting ----


def segments(traced: Traced, starts: Sequence[int]) -> list[Segment]:
    """The model as consecutive segments.

    Args:
        traced: its graph. starts: numbers of the nodes with which the second, third, .. begin.

    Raises:
        ConfigError: two of them would share parameters or buffers.
    """
    stage_of, stage = {}, 0
    for n, node in enumerate(traced.graph.nodes):
        stage += stage < len(starts) and n == starts[stage]
        stage_of[node] = stage
    runs = [_graph_of(traced, stage_of, m, len(starts)) for m in range(len(starts) + 1)]
    owners = _owners(traced, stage_of)
    for m, run in enumerate(runs):
        _fill(run, traced, owners, m)
    return runs


def _live(traced: Traced, stage_of: dict[torch.fx.Node, int], m: int) -> list[torch.fx.Node]:
    """What crosses the cut before stage m."""
    return [
        node
        for node in traced.graph.nodes
        if node.op not in ("get_attr", "output")
        and stage_of[node] < m
        and any(stage_of[user] >= m for user in node.users)
    ]


def _graph_of(traced: Traced, stage_of: dict[torch.fx.Node, int], m: int, last: int) -> Segment:
    """The run of stage m, without its parts."""
    graph, own = torch.fx.Graph(), [node for node, stage in stage_of.items() if stage == m]
    made: dict[torch.fx.Node, torch.fx.Node] = {}
    received = _live(traced, stage_of, m) if m else []
    for node in received:
        made[node] = graph.placeholder(node.name)

    def here(node: torch.fx.Node) -> torch.fx.Node:
        if node not in made:  # a parameter or buffer, read where it is used
            made[node] = graph.node_copy(node)
        return made[node]

    for node in own:
        if node.op == "output":
            graph.output(torch.fx.node.map_arg(node.args[0], here))
        elif node.op != "get_attr":
            made[node] = graph.node_copy(node, here)
    if m < last:
        sent = tuple(made[node] for node in _live(traced, stage_of, m + 1))
        graph.output(sent[0] if len(sent) == 1 else sent)
    fresh = any(changes_in_place(node, traced) for node in own)
    run = Segment(graph, not m, len(received) == 1, fresh)
    for name, op in (("_calls", "call_module"), ("_reads", "get_attr")):
        run.__dict__[name] = {str(node.target) for node in graph.nodes if node.op == op}
    return run


def _owners(traced: Traced, stage_of: dict[torch.fx.Node, int]) -> dict[int, int]:
    """id of a module, parameter or buffer -> stage that holds it."""
    found: dict[int, int] = {}

    def own(name: str, part: object, m: int) -> None:
        if found.setdefault(id(part), m) != m:
            one, other = sorted((found[id(part)], m))
            raise ConfigError(
                f"{name} is used in stages {one + 1} and {other + 1}, and a stage has its own; cut "
                "so that one stage has all its uses, or give it copies"
            )

    for node, m in stage_of.items():
        target = str(node.target)
        if node.op == "call_module":
            module = traced.model.get_submodule(target)
            tensors = [*module.named_parameters(), *module.named_buffers()]
            for name, tensor in tensors:
                own(f"{target}.{name}", tensor, m)
            if tensors:
                own(target, module, m)
            else:
                found.setdefault(id(module), m)
        elif node.op == "get_attr":
            value = traced.value(target)
            for user in node.users:
                if isinstance(value, nn.Parameter):
                    own(target, value, stage_of[user])
                else:
                    found.setdefault(id(value), stage_of[user])
    return found


def _fill(run: Segment, traced: Traced, owners: dict[int, int], m: int) -> None:
    """Give a segment its parts: what it uses, and what nobody uses beside it.

    Args:
        run: of stage m. traced: the whole. owners: see :func:`_owners`.
    """
    latest = 0  # stage of the part before: what nobody uses stays with it

    def mine(*parts: object) -> bool:
        nonlocal latest
        known = [owners[id(part)] for part in parts if id(part) in owners]
        latest = known[0] if known else latest
        return latest == m

    def fill(made: nn.Module, module: nn.Module, path: str) -> nn.Module:
        for name, parameter in module._parameters.items():
            if parameter is not None and mine(parameter):
                made.register_parameter(name, parameter)
        for name, buffer in module._buffers.items():
            if buffer is not None and mine(buffer):
                made.register_buffer(name, buffer, name not in module._non_persistent_buffers_set)
        for name, child in module._modules.items():
            if child is None:
                continue
            whole = f"{path}{name}"
            if whole in traced.leaves:
                inner = [*child.parameters(), *child.buffers()]
                if mine(child, *inner) or (not inner and _called(run, whole)):
                    made.add_module(name, child)
                continue
            holder = fill(_Holder(), child, f"{whole}.")
            if holder._parameters or holder._buffers or holder._modules:
                made.add_module(name, holder)
        return made

    fill(run, traced.model, "")
    for target in run.__dict__["_reads"]:
        _attach(run, target, traced.value(target))


def _called(run: Segment, name: str) -> bool:
    return name in run.__dict__["_calls"]


def _attach(module: Any, target: str, value: object) -> None:
    """Let a segment read what is no part of its state: constants, buffers of other stages."""
    *path, last = target.split(".")
    for name in path:
        if name not in module._modules:
            module.add_module(name, _Holder())
        module = module._modules[name]
    if getattr(module, last, None) is not value:
        module.__dict__[last] = value

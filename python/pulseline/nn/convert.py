"""to_analog: a digital model whose matrices move onto crossbars.

Everything is looked at before anything is made: places of matrices, their crossbars by the rules,
what cannot be converted. Then one module after the other gets its counterpart, so that a large
model is never held a third time, and a model converted in place not even twice.
"""

from __future__ import annotations

import warnings
from contextlib import nullcontext
from dataclasses import replace
from typing import Any, Literal, NamedTuple, overload

import torch
from torch import Tensor, nn

from ..arrays import Budget, arrays_of, on_meta
from ..cells import Cell
from ..errors import ConfigError
from ..identity import Identity, identify, refuse_twins, upcoming
from .base import AnalogLayer
from .composite import rename_digital
from .exchange import Exchange
from .places import Matrices, find
from .registry import Builder, builder_of, missing
from .report import Clipping, ConversionReport, LayerReport, keep, tiles_of
from .rules import Choice, Rules
from .traced import refuse_graphs

__all__ = ["to_analog"]


class _Plan(NamedTuple):
    """A module with matrices and what becomes of it; no builder: it stays digital."""

    matrices: Matrices
    choice: Choice
    builder: Builder | None


@overload
def to_analog(
    model: nn.Module,
    rules: Any = ...,
    *,
    seed: int | None = ...,
    include: Any = ...,
    exclude: Any = ...,
    inplace: bool = ...,
    dry_run: Literal[False] = ...,
    **settings: Any,
) -> nn.Module: ...
@overload
def to_analog(
    model: nn.Module,
    rules: Any = ...,
    *,
    seed: int | None = ...,
    include: Any = ...,
    exclude: Any = ...,
    inplace: bool = ...,
    dry_run: Literal[True],
    **settings: Any,
) -> ConversionReport: ...
def to_analog(
    model: nn.Module,
    rules: Any = None,
    *,
    seed: int | None = None,
    include: Any = None,
    exclude: Any = None,
    inplace: bool = False,
    dry_run: bool = False,
    **settings: Any,
) -> nn.Module | ConversionReport:
    """``model`` with its matrices on crossbars: linear, convolutional, recurrent, attention layers.

    Weights are programmed, which clips what exceeds a crosspoint's bounds (see
    ``Mapping(omega="auto")``); biases and all other modules stay digital. ``tile_id`` is the number
    of the matrix in the digital model (:func:`pulseline.nn.tile_ids`), whatever stays digital and
    however the model is cut later. Subclasses of these layers stay digital: what owns them
    (nn.MultiheadAttention) reads their weights itself. :func:`pulseline.nn.conversion` of the
    result says what became of each matrix; norms clipped by more than 10 % and what stays digital
    unasked are warnings. If a layer cannot take its part of a state_dict, nothing is loaded.

    Args:
        model: float32, on the CPU.
        rules: a :class:`pulseline.Crossbar` or a device (itself, its class or its name) for all, or
            a mapping of patterns of names (``"blocks.*.head"``) and classes of modules to one of
            them or to None, which keeps digital. The first that fits the module, one of its
            parameters or a module around it wins; what none fits stays digital.
        seed: of all layers: a request for certain devices, the same ones when asked again, which a
            state_dict must then be of. None: the next of the process, see
            :func:`pulseline.manual_seed`; a state_dict's identities are then taken over.
        include, exclude: patterns or classes, one or several: what is not included or is excluded
            stays digital, whatever the rules say.
        inplace: replace layers in ``model`` itself; one that is such a layer comes back new.
        dry_run: return the report of the next call, nothing else. Of a model on the meta device,
            which takes no memory, it says all but what would be clipped or scaled.
        settings: fields of all crossbars by name, see :class:`pulseline.Crossbar`.

    Returns:
        The converted model; with ``dry_run`` a :class:`ConversionReport`.

    Raises:
        ConfigError: nothing can become analog, a rule is about no module with a matrix or about one
            without analog counterpart, a weight is not finite float32, no parameter or also another
            module's, the model was traced, or two layers would be one device. Nothing is changed.
    """
    plans = _plans(model, Rules(rules, settings, include, exclude), dry_run)
    _refuse_twins(model, plans, _first(seed, keep=True))
    if dry_run:
        first = _first(seed, keep=True)
        with Budget.plan():  # layers are freed at once, but count as if they stayed
            return ConversionReport(tuple(_convert(one, first)[1] for one in plans), first.seed)
    _refuse_empty(plans)
    first = _first(seed)
    converted, report = _apply(model, plans, first, inplace)
    keep(converted, report, _check_state)
    for sentence in report.warnings():
        warnings.warn(sentence, stacklevel=2)
    return converted


def _first(seed: int | None, keep: bool = False) -> Identity:
    """Seed of the new layers; ``keep``: without drawing it."""
    if seed is None:
        return Identity(upcoming() if keep else identify(None).seed)
    return identify(seed)


# ---- what is to be done ----


def _plans(model: nn.Module, rules: Rules, dry_run: bool) -> list[_Plan]:
    """What becomes of each module with matrices; refuses what cannot be."""
    refuse_graphs(model)
    found = list(find(model))
    rules.refuse_idle(one.place for one in found)
    plans = []
    for one in found:
        choice, builder = rules.choose(one.place), builder_of(one.place.module)
        if choice.crossbar is None or one.cells:
            builder = None
        elif builder is not None:
            _refuse_unfit(one, dry_run)
        plans.append(_Plan(one, choice, builder))
    _refuse_in_vain(plans)
    _refuse_shared(model, plans)
    return plans


def _refuse_in_vain(plans: list[_Plan]) -> None:
    """A class that is given a crossbar although none of its modules can be on one."""
    asked = [plan for plan in plans if plan.choice.crossbar and isinstance(plan.choice.key, type)]
    served = {plan.choice.key for plan in asked if plan.builder or plan.matrices.cells}
    for plan in asked:
        if plan.choice.key not in served:
            kind = type(plan.matrices.place.module).__name__
            raise ConfigError(
                f"rules give {plan.matrices.called} a crossbar, but there is no analog layer for "
                f"{kind}; give it None, or register a builder by pulseline.nn.register"
            )


def _refuse_unfit(one: Matrices, dry_run: bool) -> None:
    """What a builder could not take over as it is; a dry run takes weights without values."""
    if one.computed:
        raise ConfigError(
            f"the weight of {one.place.names[0] or 'model'!r} is computed from others (pruning, "
            "weight_norm, spectral_norm); make it a parameter first, as prune.remove does, or keep "
            f"it digital by exclude={one.place.names[0]!r}"
        )
    for name in missing(one.place.module):
        raise ConfigError(
            f"{name} of {one.called} is no parameter of its own: it is computed from others "
            "(pruning, weight_norm) or the same twice; make it one first, or exclude the layer"
        )
    if "forward" in vars(one.place.module):
        raise ConfigError(
            f"the forward of {one.called} was replaced on the object, which a crossbar would "
            "bypass; restore it, or exclude the layer"
        )
    for name, weight in one.parameters.items():
        if dry_run and one.valueless and weight.dtype is torch.float32:
            continue
        if weight.dtype is not torch.float32 or weight.device.type != "cpu":
            raise ConfigError(
                f"{name} of {one.called} is {weight.dtype} on {weight.device}; "
                "convert a float32 model on the CPU"
            )
        if not torch.isfinite(weight).all():
            raise ConfigError(
                f"{name} of {one.called} holds a NaN or an infinity; convert finite weights"
            )


def _refuse_empty(plans: list[_Plan]) -> None:
    """A model of which nothing becomes analog, unless somebody asked for just that."""
    if any(plan.builder or plan.matrices.cells for plan in plans):
        return
    left = [plan for plan in plans if plan.choice.crossbar is not None]
    if plans and not left:
        return
    kinds = sorted({type(plan.matrices.place.module).__name__ for plan in left})
    but = f" but {', '.join(kinds)}" if kinds else ""
    raise ConfigError(f"model has no layer that can be analog{but}; give one that has")


def _refuse_shared(model: nn.Module, plans: list[_Plan]) -> None:
    """A parameter of a layer that becomes analog and of another module would be untied."""
    owners: dict[int, list[tuple[str, nn.Module]]] = {}
    for name, module in model.named_modules():
        for parameter in module._parameters.values():
            if parameter is not None:
                owners.setdefault(id(parameter), []).append((name, module))
    for plan in plans:
        if plan.builder is None:
            continue
        inside = set(map(id, plan.matrices.place.module.modules()))
        for name, parameter in plan.matrices.place.module.named_parameters():
            for other, module in owners[id(parameter)]:
                if id(module) not in inside:
                    raise ConfigError(
                        f"{plan.matrices.called} shares its {name} with {other or 'model'!r}, which"
                        " a crossbar would untie; share the layer instead, or keep it digital by "
                        f"exclude={plan.matrices.place.names[0]!r}"
                    )


def _refuse_twins(model: nn.Module, plans: list[_Plan], first: Identity) -> None:
    held = [(f"layer {name}", one.identity) for name, one in arrays_of(model.named_parameters())]
    made = [
        (plan.matrices.called, identity)
        for plan in plans
        if plan.builder
        for identity in _identities(plan.matrices, first).values()
    ]
    refuse_twins([*held, *made])


# ---- doing it ----


def _identities(one: Matrices, first: Identity) -> dict[str, Identity]:
    return {name: replace(first, tile_id=part.first) for name, part in one.ids.items()}


def _convert(plan: _Plan, first: Identity) -> tuple[nn.Module | None, LayerReport]:
    """The counterpart of a module, if it gets one, and what is to be said of it."""
    one, crossbar, builder = plan.matrices, plan.choice.crossbar, plan.builder
    said = LayerReport(
        one.place.names[0],
        type(one.place.module).__name__,
        one.shapes,
        min(part.first for part in one.ids.values()),
    )
    if one.cells:
        return None, _described(said, one.cells, {})
    if builder is None or crossbar is None:
        asked = crossbar is None or one.lookup
        why = plan.choice.why if crossbar is None else one.why
        return None, replace(said, why=why, asked=asked)
    with on_meta() if one.valueless else nullcontext():
        analog = builder(one.place.module, crossbar, _identities(one, first))
    cells = [module for module in analog.modules() if isinstance(module, Cell)]
    return analog, _described(said, cells, {} if one.valueless else one.targets())


def _described(said: LayerReport, cells: list[Cell], targets: dict[int, Tensor]) -> LayerReport:
    """``said`` of an analog layer with these cells, programmed with the matrices of these ids."""
    tiles = room = 0
    for cell in cells:
        mapping, number = cell.crossbar.mapping, tiles_of(cell)
        tiles += number
        room += number * mapping.tile_out * mapping.tile_in
    pairs = [(_oriented(targets.get(cell.identity.tile_id), cell), cell) for cell in cells]
    known = [(w, cell) for w, cell in pairs if w is not None]
    plain = len(cells) == len(said.shapes) and all(len(shape) == 2 for shape in said.shapes)
    held = [*(p for c in cells for p in c.parameters()), *(b for c in cells for b in c.buffers())]
    return replace(
        said,
        shapes=tuple(tuple(cell.shape) for cell in cells) if plain else said.shapes,
        device=", ".join(dict.fromkeys(cell.crossbar.device.name for cell in cells)),
        tiles=tiles,
        utilisation=said.weights / room if room else 0.0,
        bytes=sum(t.numel() * t.element_size() for t in held),
        out_scale=max((cell.array.out_scale for cell in cells), default=1.0),
        clipping=Clipping.of(known),
    )


def _oriented(target: Tensor | None, cell: Cell) -> Tensor | None:
    """A matrix as a cell holds it, transposed if need be; None: it holds another."""
    if target is None:
        return None
    both = [w for w in (target, target.mT) if w.shape == cell.weight.shape]
    if not both[1:] or target.dim() > 2:
        return both[0] if both else None
    held = cell.effective_weight()
    return min(both, key=lambda w: float((w - held).square().sum()))


def _apply(
    model: nn.Module, plans: list[_Plan], first: Identity, inplace: bool
) -> tuple[nn.Module, ConversionReport]:
    """Do what is planned, and forget each plan when it is done."""
    said: list[LayerReport] = []
    exchange = Exchange(model, inplace)
    del model
    plans.reverse()
    while plans:  # taken from the list, so that in place nobody holds what was replaced
        plan = plans.pop()
        analog, layer = _convert(plan, first)
        said.append(layer)
        if analog is not None:
            exchange.put(plan.matrices.place.module, analog)
        del plan
    return exchange.finish(), ConversionReport(tuple(said), first.seed)


def _check_state(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Before anything is loaded: every layer finds its part, under torch's names or its own."""
    rename_digital(module, state, prefix)
    for name, layer in module.named_modules():
        if isinstance(layer, AnalogLayer):
            layer.check_state(state, f"{prefix}{name}." if name else prefix)

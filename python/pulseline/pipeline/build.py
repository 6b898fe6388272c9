"""Stages from a model, and what stages of one pipeline must not share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import nn

from ..errors import ConfigError
from ..optim import AnalogSGD
from .split import Balance, Stages, has_parameters, names, split
from .stage import Loss, Stage

__all__ = [
    "OptimizerFactory",
    "check_stages",
    "cut",
    "made_of",
    "staged",
]

OptimizerFactory = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]


def cut(
    model: nn.Module,
    stages: Stages | None,
    optimizer: OptimizerFactory | None,
    loss: Loss | None,
    balance: Balance,
    inputs: Sequence[str] | None,
) -> list[Stage]:
    """Stages of consecutive parts of the model.

    Args:
        model: to be cut. stages: how many, or where, see :func:`.split.split`.
        optimizer: makes each stage's optimizer from its parameters.
        loss: of the last stage. balance, inputs: see :func:`.split.split`.

    Returns:
        The stages, see :func:`staged`.

    Raises:
        ConfigError: an argument is missing, the optimizer is made already, or the model cannot be
            cut, see :func:`.split.split`.
    """
    given = {"stages": stages, "optimizer": optimizer, "loss": loss}
    for name, value in given.items():
        if value is None:
            raise ConfigError(f"{name} is missing; a model needs stages=, optimizer= and loss=")
    _check_makers(optimizer, loss)
    parts = split(model, 0 if stages is None else stages, balance, inputs)
    return staged(parts, optimizer, loss, names(model, parts))


def staged(
    parts: Sequence[nn.Module],
    optimizer: OptimizerFactory | None,
    loss: Loss | None,
    names: Sequence[Callable[[str], str] | None] | None = None,
) -> list[Stage]:
    """Stages of modules.

    Args:
        parts: first one first. optimizer: makes each stage's optimizer from its parameters.
        loss: of the last stage. names: of each stage, see :class:`.stage.Stage`.

    Returns:
        The stages, first one first; one with nothing to train gets an AnalogSGD that does nothing.

    Raises:
        ConfigError: an argument is missing, the optimizer is made already, or a part has no
            parameters.
    """
    _check_makers(optimizer, loss)
    assert optimizer is not None
    made = []
    for m, part in enumerate(parts, start=1):
        _check_parameters(m, part)
        trained = any(p.requires_grad for p in part.parameters())
        steps = optimizer(part.parameters()) if trained else AnalogSGD(part.parameters(), lr=0.0)
        last = loss if m == len(parts) else None
        made.append(Stage(part, steps, last, names=names[m - 1] if names else None))
    return made


def _check_parameters(m: int, module: nn.Module) -> None:
    if not has_parameters(module):
        raise ConfigError(f"stage {m} has no parameters; give it at least one layer to train")


def _check_makers(optimizer: OptimizerFactory | None, loss: Loss | None) -> None:
    for name, value in (("optimizer", optimizer), ("loss", loss)):
        if value is None:
            raise ConfigError(f"{name} is missing; modules need optimizer= and loss=")
    if not callable(loss):
        raise ConfigError(
            f"loss is {loss!r:.60}; use a function of output and target, such as "
            "torch.nn.functional.mse_loss"
        )
    if isinstance(optimizer, torch.optim.Optimizer) or not callable(optimizer):
        raise ConfigError(
            f"optimizer is a {type(optimizer).__name__}; use a function of a stage's parameters, "
            "such as lambda p: pulseline.optim.AnalogSGD(p, lr=0.1)"
        )


def made_of(
    model: nn.Module | Sequence[nn.Module] | Sequence[Stage],
    stages: Stages | None,
    optimizer: OptimizerFactory | None,
    loss: Loss | None,
    balance: Balance,
    inputs: Sequence[str] | None,
) -> list[Stage]:
    """Stages of whatever a pipeline is given; arguments: see :class:`.pipeline.Pipeline`.

    Args:
        model: to be cut, or modules, or stages. stages, balance, inputs: for a model.
        optimizer, loss: for a model and modules.

    Returns:
        The stages, first one first.

    Raises:
        ConfigError: an argument is missing or belongs to another kind of model.
    """
    if isinstance(model, nn.Module):
        return cut(model, stages, optimizer, loss, balance, inputs)
    _refuse_model_arguments(stages=stages, balance=balance, inputs=inputs)
    modules = [one for one in model if isinstance(one, nn.Module)]
    if modules and len(modules) == len(model):
        return staged(modules, optimizer, loss)
    _refuse_model_arguments(optimizer=optimizer, loss=loss)
    return _all_stages(model)


def _all_stages(given: Iterable[Any]) -> list[Stage]:
    stages = list(given)
    for one in stages:
        if not isinstance(one, Stage):
            raise ConfigError(f"stages hold a {type(one).__name__} beside a Stage; use one kind")
    return stages


def _refuse_model_arguments(**given: Any) -> None:
    """Refuse what only a model takes beside stages that are made."""
    for name, value in given.items():
        if value is not None:
            raise ConfigError(f"{name} belongs to a model; stages that are made have their own")


def check_stages(stages: list[Stage]) -> None:
    """Refuse stages that cannot be one pipeline.

    Raises:
        ConfigError: there is none, one has no parameters, two share a parameter or an optimizer, or
            not the last one alone has a loss, or an optimizer moves what is not in its stage.
    """
    if not stages:
        raise ConfigError("stages is empty; give at least one Stage")
    for m, stage in enumerate(stages, start=1):
        if (stage.loss is not None) != (m == len(stages)):
            raise ConfigError(
                f"stage {m} of {len(stages)} has {'a' if stage.loss else 'no'} loss; give one to "
                "the last stage and to no other"
            )
        _check_parameters(m, stage.module)
        if not hasattr(stage.optimizer, "param_groups"):
            raise ConfigError(
                f"the optimizer of stage {m} is a {type(stage.optimizer).__name__}; use one of "
                "torch's kind, such as pulseline.optim.AnalogSGD"
            )
    parameters = [id(p) for stage in stages for p in stage.module.parameters()]
    optimizers = [id(stage.optimizer) for stage in stages]
    if len({*parameters}) < len(parameters) or len({*optimizers}) < len(optimizers):
        raise ConfigError("two stages share a parameter or an optimizer; give each stage its own")
    for m, stage in enumerate(stages, start=1):
        _check_optimizer(m, stage)


def _check_optimizer(m: int, stage: Stage) -> None:
    """An optimizer moves parameters of its own stage, and some if there are any to train."""
    moved = {id(p) for group in stage.optimizer.param_groups for p in group["params"]}
    own = list(stage.module.parameters())
    if moved - {id(p) for p in own}:
        raise ConfigError(
            f"the optimizer of stage {m} holds parameters of other stages or models; make it from "
            "the parameters that it is given"
        )
    if not moved & {id(p) for p in own if p.requires_grad} and any(p.requires_grad for p in own):
        raise ConfigError(
            f"the optimizer of stage {m} moves nothing of it; give it the stage's parameters, or "
            "freeze them"
        )

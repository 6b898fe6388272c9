"""AnalogSGD: pulses the tiles, moves digital parameters by plain SGD."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from .arrays import AnalogParameter, cells_of, check_lr, refuse_dense, refuse_twin_arrays
from .devices import Ideal
from .errors import ConfigError
from .identity import changes
from .ops import Batch
from .torch_private import PlainTensors, grad_in_slot

__all__ = ["AnalogSGD", "average_pending", "check_averaging"]

# What groups of other optimizers ask for; labels and what schedulers keep there are nobody's.
_FOREIGN = frozenset(
    ("weight_decay", "momentum", "nesterov", "maximize", "betas", "alpha", "rho", "lambd", "etas")
)


def _check_group(group: dict[str, Any]) -> None:
    """Raise ConfigError if a group asks for what pulses do not do."""
    for key, value in group.items():
        if key in _FOREIGN and value:
            raise ConfigError(
                f"{key} is {value!r:.60} in a group of AnalogSGD, which is plain SGD; leave it out"
            )


class AnalogSGD(torch.optim.Optimizer):
    """Stochastic gradient descent on crossbars.

    ``step()`` pulses the pairs (x, d) that backward left on each tile, in order, and moves every
    other parameter by ``p <- p - lr grad`` through ``.data``: autograd does not see the change, so
    a step between forward and backward of another micro-batch is legal and nothing is stashed.
    Pairs are what torch sees as the gradient of a weight: they stay until ``zero_grad()``, of this
    optimizer or of the model, and who scales the gradient scales them.

    Args:
        params: as for torch optimizers; parameters of analog layers are recognised.
        lr: learning rate >= 0; torch's lr schedulers apply.

    Raises:
        ConfigError: lr is negative or not finite, two tiles are the same devices (equal seed and
            id), or see :meth:`step`.
    """

    _compared = -1  # identity.changes() when the tiles were last compared

    def __init__(self, params: Iterable[Any], lr: float = 0.01) -> None:
        check_lr(lr)
        super().__init__(params, {"lr": lr})

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """As torch's; refuses tiles that are the same devices as others, nothing added then."""
        _check_group(param_group)
        super().add_param_group(param_group)
        try:
            self._refuse_twins()
            self._refuse_shares()
        except ConfigError:
            self.param_groups.pop()
            raise

    def _refuse_twins(self) -> None:
        now = changes()
        refuse_twin_arrays(self._named())
        self._compared = now

    def _refuse_shares(self) -> None:
        """The arrays of a cell are moved together, at one learning rate: that of the first one."""
        for g, group in enumerate(self.param_groups):
            analog = [p for p in group["params"] if isinstance(p, AnalogParameter)]
            whole = {id(p.cell) for p in analog if p.read}
            for p in analog:
                if id(p.cell) not in whole:
                    raise ConfigError(
                        f"group {g} holds an array behind the first of matrix "
                        f"{p.cell.identity.tile_id} without that one; an algorithm moves them "
                        "together, put all parameters of the layer into one group"
                    )

    def _named(self) -> Iterator[tuple[str, Tensor]]:
        """(name, parameter) of all groups; without names, what it is and where."""
        for g, group in enumerate(self.param_groups):
            names = group.get("param_names")
            for n, p in enumerate(group["params"]):
                text = f"parameter {n} of group {g} ({' x '.join(map(str, p.shape))})"
                yield (f"layer {names[n]}" if names else text), p

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Apply all pending updates; returns the closure's loss, if there is one."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for before in self._optimizer_step_pre_hooks.values():
            before(self, (), {})
        if self._compared != changes():  # a state was loaded, or a tile reseeded
            self._refuse_twins()
        rates = []
        for group in self.param_groups:
            rates.append(check_lr(group["lr"]))
            if len(group) > 2:
                _check_group(group)
        with PlainTensors():
            for group in self.param_groups:  # before anything is moved
                for p in group["params"]:
                    if isinstance(p, AnalogParameter):
                        if grad_in_slot(p) is not None:
                            refuse_dense(p)
                        p.cell.check_updates(wait=False)
        with Batch() as batch:  # arrays on a GPU share launches
            for group, lr in zip(self.param_groups, rates, strict=True):
                for p in group["params"]:
                    if isinstance(p, AnalogParameter):
                        if p.read:  # the arrays of a cell are moved together
                            p.cell.apply_pending(lr, batch)
                    elif p.grad is not None:
                        p.data.sub_(p.grad, alpha=lr)
        for after in self._optimizer_step_post_hooks.values():
            after(self, (), {})
        return loss

    # torch wraps `step` in a profiler scope that costs more than a small update; this mark says
    # that hooks are taken care of above.
    step.hooked = True  # type: ignore[attr-defined]

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget gradients and pending pairs."""
        with PlainTensors():
            for group in self.param_groups:
                for p in group["params"]:
                    if isinstance(p, AnalogParameter):
                        p.forget()
                    elif set_to_none:
                        p.grad = None
                    elif p.grad is not None:
                        p.grad.zero_()


def check_averaging(parameters: Iterable[Tensor]) -> None:
    """Refuse parameters whose updates cannot be averaged: those on tiles that are not Ideal.

    A crossbar cannot hold the mean of n updates back and pulse it once: it pulses each of them.

    Raises:
        ConfigError: one of them is.
    """
    for p in parameters:
        if isinstance(p, AnalogParameter) and not isinstance(p.cell.crossbar.device, Ideal):
            raise ConfigError(
                f"update='averaged' is not possible on matrix {p.cell.identity.tile_id} of device "
                f"{p.cell.crossbar.device.name}; use update='pulsed', Ideal devices or digital "
                "layers"
            )


def average_pending(parameters: Iterable[Tensor], micro_batches: float) -> None:
    """Turn what backward passes left, a sum, into their mean; ``step()`` follows.

    Gradients of digital parameters and errors pending on Ideal tiles are divided in place, as
    torch's pipelines do with ``scale_grads=True``. Costs nothing where it is not called.

    Args:
        parameters: of the stage. micro_batches: passes, short ones by their share.
    """
    parameters = list(parameters)
    for cell in cells_of(parameters):
        cell.forget([(x, d / micro_batches) for x, d in cell.pending])
    for p in parameters:
        if not isinstance(p, AnalogParameter) and p.grad is not None:
            p.grad.div_(micro_batches)

"""One pipeline stage: a module, its optimizer, and what is in flight between F and B.

Order of Analog-SGD-AP: F of micro-batch k uses the weights of that moment; B of k, later, uses
the weights of *its* moment (an analog tile holds one version, so nothing is stashed); U then
moves the weights. Which versions were used is recorded, not assumed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..errors import ConfigError, StageFailed
from ..nn.traced import refuse_graphs
from ..ops import is_finite
from ..optim import average_pending
from ..schedules import Span
from ..torch_private import run_backward
from .draws import Draws, may_draw
from .messages import Bundle, Message, errors, pack, packed, tensors_of
from .past import Past

__all__ = ["Loss", "Record", "Stage", "Update", "evaluating", "is_finite"]

Loss = Callable[[Any, Any], Tensor]


class Record(NamedTuple):
    """One micro-batch at one stage: weight versions of F and B, and when each of them ran.

    Attributes:
        mb: micro-batch. version_f, version_b: updates made before F and before B.
        time_f, time_b: clock cycles.
    """

    mb: int
    version_f: int
    version_b: int
    time_f: int
    time_b: int


class Update(NamedTuple):
    """One update of one stage.

    Attributes:
        mb: last micro-batch applied. version: updates made before it. time: clock cycle.
    """

    mb: int
    version: int
    time: int


@contextmanager
def evaluating(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Modules in eval mode, where no training counter moves; afterwards each as it was."""
    modules = list(modules)
    modes = [(layer, layer.training) for module in modules for layer in module.modules()]
    try:
        for module in modules:
            module.eval()
        yield
    finally:
        for layer, mode in modes:
            layer.training = mode


class Stage:
    """A module, the optimizer of its parameters, and what is in flight.

    The pipeline sets ``index`` (from 1), ``first``, ``averaged`` (an update applies the mean of its
    micro-batches instead of their sum), ``weights``, ``draws`` and ``rates`` (learning rates of
    micro-batches that were not applied yet; with ``factors``: of what their group has as
    "initial_lr") and ``past`` (for delayed forward passes); the executor sets ``time`` before each
    operation.

    Args:
        module: of one argument, the message of the stage before (the first: an input), which
            returns the message to the next: a tensor, or tuples, lists and dicts of tensors and
            plain values, see :mod:`.messages`. What it only passes on rides along.
        optimizer: its ``step()`` must move parameters without telling autograd, as ``AnalogSGD``
            does: F of later micro-batches has already run on them.
        loss: of the last stage; ``loss(output, target)`` is a scalar, the mean over the
            micro-batch.
        keep: records that are held, the newest ones.
        names: what an entry of the module's state is called in the whole model, for :meth:`state`;
            None: the stage's number stands in front.

    Raises:
        ConfigError: the module is, or holds, a traced graph.
    """

    finite: Callable[[Tensor], bool] = staticmethod(is_finite)

    def __init__(
        self,
        module: nn.Module,
        optimizer: torch.optim.Optimizer,
        loss: Loss | None = None,
        keep: int = 65536,
        names: Callable[[str], str] | None = None,
    ) -> None:
        refuse_graphs(module)
        self.module = module
        self.optimizer = optimizer
        self.loss = loss
        self.names = names
        self.averaged = False
        self.spans: deque[Span] | None = None
        self.index = 1
        self.first = True
        self.weights: Mapping[int, float] = {}  # of micro-batches that are shorter than others
        self.rates: deque[tuple[int, float]] = deque()
        self.factors = False
        self.past: Past | None = None
        self.draws: Draws | None = None
        self._draws_numbers: bool | None = None  # not known before the first F
        self.time = 0
        self.version = 0
        self.peak = 0
        self._parameters = list(module.parameters())
        # plain tuples: one is made per operation
        self._records: deque[tuple[int, int, int, int, int]] = deque(maxlen=keep)
        self._updates: deque[tuple[int, int, int]] = deque(maxlen=keep)
        # micro-batch, what collects gradients, what gets them, version, time
        self._saved: deque[tuple[int, Any, Any, int, int]] = deque()
        self._seed_grad: Tensor | None = None
        self._unapplied = 0.0

    @property
    def in_flight(self) -> int:
        """Micro-batches between their F and their B."""
        return len(self._saved)

    @property
    def records(self) -> list[Record]:
        """Micro-batches that went through F and B, newest last."""
        return [Record(*record) for record in self._records]

    @property
    def updates(self) -> list[Update]:
        """Updates so far, newest last."""
        return [Update(*update) for update in self._updates]

    @property
    def open_records(self) -> list[Record]:
        """Micro-batches in flight; version and time of their B are -1."""
        return [Record(k, version, -1, time, -1) for k, _, _, version, time in self._saved]

    def forward(self, k: int, x: Any, target: Any = None) -> Message:
        """F of micro-batch k.

        Args:
            k: micro-batch. x: (samples, ...) input, or the message of the stage before.
            target: (samples, ...), of the last stage.

        Returns:
            The detached output, at the last stage the detached loss.

        Raises:
            StageFailed: a part of it that takes gradients is not finite.
            ConfigError: the module gives what stages do not pass on, the loss no scalar.
        """
        if self.past is None:
            return self._forward(k, x, target, self.version)
        back = self.past.back()
        with self.past.at(back):
            return self._forward(k, x, target, self.version - back)

    def _forward(self, k: int, x: Any, target: Any, version: int) -> Message:
        leaves: Any = x
        if type(x) is Bundle:
            x, leaves = x.open()
        elif not self.first:
            x.requires_grad_()
        if self.draws is None or self._draws_numbers is False:
            out = self._compute(x, target)
        else:
            out = self._compute_seeded(self.draws, k, x, target)
        message: Message
        one: Tensor
        if (type(out) is not Tensor or not out.requires_grad) and packed(out):
            message, out = pack(out)
            finite = all(self.finite(message.tensors[n]) for n in message.takes)
        else:
            message = one = out.detach()
            if not one.is_contiguous():  # as other executors would send it
                message = one = one.contiguous()
            finite = self.finite(one)
        if not finite:
            raise StageFailed(self.index, "F", k, "its output is NaN or infinite")
        self._saved.append((k, leaves, out, version, self.time))
        if len(self._saved) > self.peak:
            self.peak = len(self._saved)
        return message

    def _compute(self, x: Any, target: Any) -> Any:
        out = self.module(x)
        if self.loss is None:
            return out
        if target is None:
            raise ConfigError("target is missing; the last stage needs one to compute its loss")
        out = self.loss(out, target)
        if not isinstance(out, Tensor) or out.dim():
            shaped = isinstance(out, Tensor)
            what = f"shape {tuple(out.shape)}" if shaped else f"a {type(out).__name__}"
            raise ConfigError(
                f"loss returns {what}; return a scalar, the mean over the micro-batch"
            )
        return out

    def _compute_seeded(self, draws: Draws, k: int, x: Any, target: Any) -> Any:
        device = (tensors_of(x) or self._parameters)[0].device
        with draws.of(self.index, k, device) as drew:
            out = self._compute(x, target)
        if self._draws_numbers is None:
            self._draws_numbers = drew[0] or may_draw(self.module)
            draws.any = draws.any or self._draws_numbers
        return out

    def backward(self, k: int, grad: Message | None = None) -> Message | None:
        """B of micro-batch k; weight gradients (pulses) stay pending until :meth:`update`.

        Args:
            k: micro-batch, the oldest in flight.
            grad: dL/d(output); the last stage starts from its own loss and takes none.

        Returns:
            dL/d(input), None at stage 1. A stage before which and in which nothing is trained does
            nothing.

        Raises:
            StageFailed: the result is not finite, or the message is not the one that is due.
        """
        if not self._saved or self._saved[0][0] != k:
            raise StageFailed(self.index, "B", k, "its forward pass is not the oldest in flight")
        _, x, out, version, time = self._saved.popleft()
        outs: tuple[Tensor, ...] = (out,)
        grads: Any = (grad,)
        if self.loss is not None:
            grads = (self._loss_grad(k, out),)
        elif type(out) is tuple:
            outs, grads = self._matched(k, out, grad)
        elif not isinstance(grad, Tensor) or grad.shape != out.shape:
            got = tuple(grad.shape) if isinstance(grad, Tensor) else None
            raise StageFailed(self.index, "B", k, f"grad is {got}, not of shape {tuple(out.shape)}")
        if outs and outs[0].requires_grad:
            self._run_backward(outs, grads)
        elif not self.first and (type(x) is not tuple or x):
            raise StageFailed(
                self.index, "B", k, "its output does not depend on its input, it is detached"
            )
        self._unapplied += self.weights.get(k, 1.0)
        self._records.append((k, version, self.version, time, self.time))
        if self.first:
            return None
        message: Any = errors(x) if type(x) is tuple else x.grad
        if type(x) is tuple:
            good = all(map(self.finite, message.tensors)) and (message.tensors or not x)
        else:
            good = message is not None and self.finite(message)
        if not good:
            raise StageFailed(self.index, "B", k, "its input gradient is missing, NaN or infinite")
        return message  # type: ignore[no-any-return]

    def _matched(
        self, k: int, outs: tuple[Tensor, ...], grad: Message | None
    ) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Outputs of several that were used further on, and their gradients."""
        if type(grad) is Bundle and all(n < len(outs) for n in grad.takes):
            used = tuple(outs[n] for n in grad.takes)
            if all(one.shape == g.shape for one, g in zip(used, grad.tensors, strict=True)):
                return used, grad.tensors
        got = [tuple(g.shape) for g in grad.tensors] if type(grad) is Bundle else type(grad)
        want = [tuple(one.shape) for one in outs]
        raise StageFailed(self.index, "B", k, f"gradients are {got}, not of shapes {want}")

    def _loss_grad(self, k: int, out: Tensor) -> Tensor:
        """dL/dL of a micro-batch: its share of a full one's samples."""
        if self._seed_grad is None:
            self._seed_grad = torch.ones_like(out)
        weight = self.weights.get(k)
        return self._seed_grad if weight is None else self._seed_grad * weight

    def _run_backward(self, outs: tuple[Tensor, ...], grads: tuple[Tensor, ...]) -> None:
        if self.draws is not None and self.draws.any:
            with self.draws.turn:
                run_backward(outs, grads)
        else:
            run_backward(outs, grads)

    def update(self, k: int) -> None:
        """U: apply everything pending, up to micro-batch k, as one step of the optimizer."""
        if self.averaged:
            average_pending(self._parameters, self._unapplied)
        if self.rates:
            self._take_rate(k)
        if self.past is not None:
            self.past.keep()
        self.optimizer.step()
        self._unapplied = 0.0
        for parameter in self._parameters:
            parameter.grad = None
        self._updates.append((k, self.version, self.time))
        self.version += 1

    def _take_rate(self, k: int) -> None:
        """Bring every group to the learning rate of micro-batch k; those before it are over."""
        rate = None
        while self.rates and self.rates[0][0] <= k:
            _, rate = self.rates.popleft()
        if rate is not None:
            for group in self.optimizer.param_groups:
                group["lr"] = group["initial_lr"] * rate if self.factors else rate

    def multiply_rates(self, factors: bool) -> None:
        """Say whether rates of micro-batches are factors of what every group has now."""
        self.factors = factors
        for group in self.optimizer.param_groups if factors else ():
            group.setdefault("initial_lr", group["lr"])

    def set_lr(self, lr: float) -> None:
        """Set the learning rate of every group, or what factors of it multiply."""
        for group in self.optimizer.param_groups:
            group["initial_lr" if self.factors else "lr"] = lr

    def abandon(self) -> None:
        """Forget everything in flight and pending; weights stay as they are."""
        self._saved.clear()
        self.rates.clear()
        if self.past is not None:
            self.past.clear()
        self._unapplied = 0.0
        self.optimizer.zero_grad()

    def state(self) -> dict[str, Any]:
        """The module's ``state_dict()`` under the names of the whole model.

        A stage without ``names`` puts its number in front.
        """
        return {self.full_name(name): value for name, value in self.module.state_dict().items()}

    def load(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`state` gave; raises what ``load_state_dict`` raises."""
        short = {self.full_name(name): name for name in self.module.state_dict()}
        self.module.load_state_dict({short.get(name, name): v for name, v in state.items()})

    def full_name(self, name: str) -> str:
        """What an entry of the module is called in the whole model."""
        return f"{self.index}.{name}" if self.names is None else self.names(name)

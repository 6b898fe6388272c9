"""One pipeline stage: a module, its optimizer, and what is in flight between F and B.

Order of Analog-SGD-AP: F of micro-batch k uses the weights of that moment; B of k, later, uses
the weights of *its* moment (an analog tile holds one version, so nothing is stashed); U then
moves the weights. Which versions were used is recorded, not assumed.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..errors import ConfigError, StageFailed
from ..optim import average_pending
from ..schedules import Span

Loss = Callable[[Tensor, Tensor], Tensor]

# torch.autograd.backward spends 16 us on argument checks before it calls this; a stage's B on a
# small layer takes about 40 us in all. The shape check that matters is done in Stage.backward.
_run_backward = torch.autograd.Variable._execution_engine.run_backward


class Record(NamedTuple):
    """One micro-batch at one stage: weight versions of F and B, and when each of them ran."""

    mb: int
    version_f: int
    version_b: int
    time_f: int
    time_b: int


class Update(NamedTuple):
    """One update of one stage: last micro-batch applied, version before it, when it ran."""

    mb: int
    version: int
    time: int


def is_finite(tensor: Tensor) -> bool:
    """No NaN and no infinity; the sum decides unless it overflows by itself."""
    return math.isfinite(tensor.sum().item()) or bool(torch.isfinite(tensor).all())


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
    """``module`` and the ``optimizer`` of its parameters; the last stage also has a ``loss``.

    ``loss(output, target)`` returns a scalar, the mean over the micro-batch. ``optimizer.step()``
    must move parameters without telling autograd (``AnalogSGD`` does): F of later micro-batches
    has already run on them. ``index`` (from 1) and ``first`` are set by the pipeline, ``time`` is
    set by the executor before each operation. The newest ``keep`` records are held. ``names``:
    what the module's children are called in the whole model, for :meth:`state`. ``averaged``: an
    update applies the mean of its micro-batches instead of their sum; set by the pipeline.
    """

    finite: Callable[[Tensor], bool] = staticmethod(is_finite)

    def __init__(
        self,
        module: nn.Module,
        optimizer: torch.optim.Optimizer,
        loss: Loss | None = None,
        keep: int = 65536,
        names: Sequence[str] | None = None,
    ) -> None:
        if isinstance(module, torch.fx.GraphModule):
            raise ConfigError(
                "module is a traced torch.fx.GraphModule, which bypasses the tiles in backward: "
                "give the original nn.Module"
            )
        self.module = module
        self.optimizer = optimizer
        self.loss = loss
        self.names = names
        self.averaged = False
        self.spans: deque[Span] | None = None
        self.index = 1
        self.first = True
        self.time = 0
        self.version = 0
        self.peak = 0
        self._parameters = list(module.parameters())
        # plain tuples: one is made per operation
        self._records: deque[tuple[int, int, int, int, int]] = deque(maxlen=keep)
        self._updates: deque[tuple[int, int, int]] = deque(maxlen=keep)
        self._saved: deque[tuple[int, Tensor, Tensor, int, int]] = deque()
        self._seed_grad: Tensor | None = None
        self._unapplied = 0

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

    def forward(self, k: int, x: Tensor, target: Tensor | None = None) -> Tensor:
        """F of micro-batch k: the detached output, at the last stage the detached loss.

        Raises StageFailed when the result is not finite.
        """
        if not self.first:
            x.requires_grad_()
        out: Tensor = self.module(x)
        if self.loss is not None:
            if target is None:
                raise ConfigError("target is missing: the last stage needs one to compute its loss")
            out = self.loss(out, target)
            if out.dim():
                raise ConfigError(
                    f"loss must return a scalar, the mean over the micro-batch, got shape "
                    f"{tuple(out.shape)}"
                )
        message = out.detach()
        if not self.finite(message):
            raise StageFailed(self.index, "F", k, "its output is NaN or infinite")
        self._saved.append((k, x, out, self.version, self.time))
        if len(self._saved) > self.peak:
            self.peak = len(self._saved)
        return message

    def backward(self, k: int, grad: Tensor | None = None) -> Tensor | None:
        """B of micro-batch k from ``grad`` = dL/d(output): dL/d(input), None at stage 1.

        The last stage starts from its own loss and takes no ``grad``. Weight gradients (pulses)
        stay pending until :meth:`update`. Raises StageFailed when the result is not finite.
        """
        if not self._saved or self._saved[0][0] != k:
            raise StageFailed(self.index, "B", k, "its forward pass is not the oldest in flight")
        _, x, out, version, time = self._saved.popleft()
        if self.loss is not None:
            if self._seed_grad is None:
                self._seed_grad = torch.ones_like(out)
            grad = self._seed_grad
        elif grad is None or grad.shape != out.shape:
            got = None if grad is None else tuple(grad.shape)
            raise StageFailed(self.index, "B", k, f"grad is {got}, not of shape {tuple(out.shape)}")
        _run_backward(
            (out,), (grad,), False, False, (), allow_unreachable=True, accumulate_grad=True
        )
        self._unapplied += 1
        self._records.append((k, version, self.version, time, self.time))
        if self.first:
            return None
        message = x.grad
        if message is None or not self.finite(message):
            raise StageFailed(self.index, "B", k, "its input gradient is missing, NaN or infinite")
        return message

    def update(self, k: int) -> None:
        """U: apply everything pending, up to micro-batch k, as one step of the optimizer."""
        if self.averaged:
            average_pending(self._parameters, self._unapplied)
        self.optimizer.step()
        self._unapplied = 0
        for parameter in self._parameters:
            parameter.grad = None
        self._updates.append((k, self.version, self.time))
        self.version += 1

    def abandon(self) -> None:
        """Forget everything in flight and pending; weights stay as they are."""
        self._saved.clear()
        self._unapplied = 0
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
        if self.names is None:
            return f"{self.index}.{name}"
        child, _, rest = name.partition(".")
        return f"{self.names[int(child)]}.{rest}"

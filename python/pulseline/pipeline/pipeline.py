"""The pipeline: stages, a schedule and an executor behind one small interface."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ConfigError
from .clock import Event
from .schedule import Schedule, named
from .simulate import Segment, Simulator
from .split import has_parameters, split
from .stage import Loss, Stage, is_finite

EXECUTORS = ("sim",)

OptimizerFactory = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]


class Pipeline:
    """Train ``stages`` under a schedule: :meth:`step`, :meth:`drain`, :meth:`eval`.

    ``schedule``: "async" (Analog-SGD-AP), "sync" (1F1B, one update per ``micro_batches``),
    "sequential", or a ``Schedule``. ``micro_batch_size``: samples per micro-batch. A synchronous
    update is one ``optimizer.step()`` for all pending micro-batches: that many pulse updates in a
    row on tiles, the summed gradient on digital parameters. Loss = mean over the micro-batch.
    """

    def __init__(
        self,
        stages: Sequence[Stage],
        schedule: str | Schedule = "async",
        *,
        executor: str = "sim",
        micro_batch_size: int = 1,
        micro_batches: int = 8,
    ) -> None:
        self.stages = list(stages)
        _check_stages(self.stages)
        if executor not in EXECUTORS:
            raise ConfigError(f"executor {executor!r} does not exist: use one of {EXECUTORS}")
        if (
            isinstance(micro_batch_size, bool)
            or not isinstance(micro_batch_size, int)
            or micro_batch_size < 1
        ):
            raise ConfigError(f"micro_batch_size must be an integer >= 1, got {micro_batch_size!r}")
        if isinstance(schedule, str):
            schedule = named(schedule, micro_batches)
        schedule.check_stages(len(self.stages))
        self.schedule = schedule
        self.micro_batch_size = micro_batch_size
        for index, stage in enumerate(self.stages, start=1):
            stage.index, stage.first = index, index == 1
            stage.module.train()
        self._executor = Simulator(self.stages, schedule)

    @classmethod
    def from_model(
        cls,
        model: nn.Module,
        stages: int = 4,
        balance: Sequence[int] | None = None,
        *,
        optimizer: OptimizerFactory,
        loss: Loss,
        **options: Any,
    ) -> Pipeline:
        """Cut ``model`` (an nn.Sequential) into ``stages`` that hold whole layers; see ``split``.

        ``optimizer`` makes each stage's optimizer from its parameters; ``options`` are those of
        the constructor.
        """
        parts = split(model, stages, balance)
        last = len(parts) - 1
        return cls(
            [
                Stage(part, optimizer(part.parameters()), loss if m == last else None)
                for m, part in enumerate(parts)
            ],
            **options,
        )

    def step(self, x: Tensor, *, target: Tensor, losses: list[Tensor] | None = None) -> None:
        """Feed ``x``, cut into micro-batches, and run every clock cycle that is decided.

        The asynchronous pipeline stays filled: the last micro-batches finish in a later ``step``
        or in ``drain``. ``x`` and ``target`` share their first dimension; a rest shorter than
        ``micro_batch_size`` becomes a short micro-batch. ``losses`` receives the losses computed
        during this call. Raises ConfigError before anything runs, StageFailed from a stage.
        """
        if x.dim() == 0 or target.dim() == 0 or len(x) != len(target):
            raise ConfigError(
                f"x {tuple(x.shape)} and target {tuple(target.shape)} must have the same number of "
                "samples in their first dimension"
            )
        if len(x) == 0:
            return
        if not is_finite(x) or not is_finite(target):
            raise ConfigError("x and target must be finite: remove NaN and infinity from the batch")
        size = self.micro_batch_size
        for inputs, targets in zip(
            torch.split(x.detach(), size), torch.split(target, size), strict=True
        ):
            self._executor.feed(inputs, targets)
        self._executor.advance(losses)

    def drain(self, losses: list[Tensor] | None = None) -> None:
        """Flush: finish everything in flight, with a short last mini-batch if need be."""
        self._executor.advance(losses, drain=True)

    def eval(self, x: Tensor) -> Tensor:
        """The network's output for ``x``, modules in eval mode; at a flush point only."""
        self.check_flushed("eval")
        try:
            for stage in self.stages:
                stage.module.eval()
            with torch.no_grad():
                for stage in self.stages:
                    x = stage.module(x)
        finally:
            for stage in self.stages:
                stage.module.train()
        return x

    def set_lr(self, lr: float) -> None:
        """Set the learning rate of every stage; at a flush point only."""
        self.check_flushed("set_lr")
        for stage in self.stages:
            for group in stage.optimizer.param_groups:
                group["lr"] = lr

    def check_flushed(self, what: str) -> None:
        """Raise ConfigError while micro-batches are in flight."""
        if not self.flushed:
            raise ConfigError(f"{what} needs a flush point: call drain() first")

    @property
    def flushed(self) -> bool:
        """True when no micro-batch is in flight."""
        return self._executor.flushed

    @property
    def cycles(self) -> int:
        """Clock cycles so far."""
        return self._executor.cycles

    @property
    def micro_batches(self) -> int:
        """Micro-batches fed so far."""
        return self._executor.micro_batches

    @property
    def segments(self) -> list[Segment]:
        """Finished segments, newest last: micro-batches and clock cycles of each."""
        return list(self._executor.segments)

    def events(self, before: int | None = None) -> list[Event]:
        """What ran, with the weight versions, in order (of cycles < ``before``)."""
        found: list[tuple[int, int, int, Event]] = []
        for stage in self.stages:
            m = stage.index
            for k, v_f, v_b, t_f, t_b in (*stage.records, *stage.open_records):
                found.append((t_f, m, 0, Event(t_f, m, "F", k, v_f)))
                if t_b >= 0:
                    found.append((t_b, m, 1, Event(t_b, m, "B", k, v_b)))
            for k, version, time in stage.updates:
                found.append((time, m, 2, Event(time, m, "U", k, version)))
        found.sort()
        return [event for *_, event in found if before is None or event.cycle < before]


def _check_stages(stages: list[Stage]) -> None:
    if not stages:
        raise ConfigError("stages is empty: give at least one Stage")
    for m, stage in enumerate(stages, start=1):
        if (stage.loss is not None) != (m == len(stages)):
            raise ConfigError(
                f"stage {m} of {len(stages)} {'has a' if stage.loss else 'needs a'} loss: the last "
                "stage and no other computes it"
            )
        if not has_parameters(stage.module):
            raise ConfigError(f"stage {m} has no parameters: give it at least one layer to train")
    parameters = [id(p) for stage in stages for p in stage.module.parameters()]
    optimizers = [id(stage.optimizer) for stage in stages]
    if len({*parameters}) < len(parameters) or len({*optimizers}) < len(optimizers):
        raise ConfigError("two stages share a parameter or an optimizer: give each stage its own")

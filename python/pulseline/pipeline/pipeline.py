"""The pipeline: stages, a schedule and an executor behind one small interface."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ..arrays import arrays_of, check_lr
from ..digest import digest
from ..errors import ConfigError
from ..identity import refuse_twins
from ..optim import check_averaging
from ..schedules import Event, Planner, Schedule, Segment, Span, named
from ..schedules.plan import one_of
from .executors import EXECUTORS, make
from .split import Balance, has_parameters, split
from .stage import Loss, Stage, is_finite

# Micro-batches that one call of the executor gets at most; cutting changes no result.
_CHUNK = 1024

T = TypeVar("T")
OptimizerFactory = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]


class Pipeline:
    """Train ``stages`` under a schedule: :meth:`step`, :meth:`drain`, :meth:`eval`.

    ``schedule``: "async" (Analog-SGD-AP), "sync" (1F1B, one update per ``micro_batches``),
    "sequential", or a ``Schedule``. ``micro_batch_size``: samples per micro-batch. A synchronous
    update is one ``optimizer.step()`` for all pending micro-batches: that many pulse updates in a
    row on tiles, the summed gradient on digital parameters. Loss = mean over the micro-batch.

    ``executor``: "sim" (one thread), "threads" (one per stage), "dist" (one process per stage,
    under torchrun), "streams" (CUDA). They run the same operations in the same order per stage:
    the same bits, as far as the matrix products run on tiles. ``timeout``: seconds that a stage
    of "threads" or "dist" waits for another. ``measure``: keep wall-clock times, see
    :meth:`spans`. Under "dist" every process builds the whole pipeline and makes the same calls;
    only the stage of its rank lives there (:attr:`local`). Layers that are the same devices (equal
    seed and id), in any stages and processes, raise ConfigError.
    """

    def __init__(
        self,
        stages: Sequence[Stage],
        schedule: str | Schedule = "async",
        *,
        executor: str = "sim",
        micro_batch_size: int = 1,
        micro_batches: int = 8,
        timeout: float = 60.0,
        measure: bool = False,
    ) -> None:
        self.stages = list(stages)
        _check_stages(self.stages)
        one_of("executor", executor, EXECUTORS)
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
            stage.averaged = schedule.update == "averaged"
            if stage.averaged:
                check_averaging(stage.module.parameters())
            stage.spans = deque(maxlen=65536) if measure else None
        self._planner = Planner(schedule, len(self.stages))
        self._executor = make(executor, self.stages, schedule, timeout)
        try:
            self._refuse_twins()
        except ConfigError:
            self.close()
            raise

    def _refuse_twins(self) -> None:
        """Refuse arrays of the same devices, in the stages of all processes."""
        mine = []
        for stage in self.local:
            named = ((stage.full_name(name), p) for name, p in stage.module.named_parameters())
            for name, array in arrays_of(named):
                mine.append((f"layer {name} of stage {stage.index}", array.identity))
        refuse_twins(one for part in self.share(mine) for one in part)

    @classmethod
    def from_model(
        cls,
        model: nn.Module,
        stages: int = 4,
        balance: Balance = None,
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
        names = iter(model._modules)  # split keeps the order, so each part takes its share
        made = []
        for m, part in enumerate(parts, start=1):
            mine = loss if m == len(parts) else None
            taken = tuple(islice(names, len(part)))
            made.append(Stage(part, optimizer(part.parameters()), mine, names=taken))
        return cls(made, **options)

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
        x, target = x.detach().clone(), target.clone()  # in flight when the caller reuses a buffer
        for inputs, targets in zip(
            torch.split(x, size * _CHUNK),
            torch.split(target, size * _CHUNK),
            strict=True,
        ):
            first = self._planner.micro_batches
            parts = zip(torch.split(inputs, size), torch.split(targets, size), strict=True)
            for k, (one, its_target) in enumerate(parts, start=first):
                self._executor.feed(k, one, its_target)
                self._planner.feed()
            self._advance(losses)

    def drain(self, losses: list[Tensor] | None = None) -> None:
        """Flush: finish everything in flight, with a short last mini-batch if need be.

        Under "dist" this call, not :meth:`step`, hands out the losses since the last flush, to
        every process.
        """
        self._advance(losses, drain=True)

    def _advance(self, losses: list[Tensor] | None, drain: bool = False) -> None:
        try:
            self._executor.run(self._planner.advance(drain), losses, drain)
        except BaseException:
            self._planner.abandon()
            self._executor.abandon()
            raise

    def eval(self, x: Tensor) -> Tensor:
        """The network's output for ``x``, modules in eval mode; at a flush point only."""
        self.check_flushed("eval")
        try:
            for stage in self.stages:
                stage.module.eval()
            return self._executor.eval(x)
        finally:
            for stage in self.stages:
                stage.module.train()

    def set_lr(self, lr: float) -> None:
        """Set the learning rate of every stage; at a flush point only.

        Raises ConfigError for a rate that is negative or not finite.
        """
        check_lr(lr)
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
        return self._planner.flushed

    @property
    def cycles(self) -> int:
        """Clock cycles so far."""
        return self._planner.cycles

    @property
    def micro_batches(self) -> int:
        """Micro-batches fed so far."""
        return self._planner.micro_batches

    @property
    def segments(self) -> list[Segment]:
        """Finished segments, newest last: micro-batches and clock cycles of each."""
        return list(self._planner.segments)

    @property
    def rank(self) -> int:
        """Number of this process under "dist", else 0."""
        return self._executor.rank

    @property
    def local(self) -> list[Stage]:
        """The stages that live in this process: all but under "dist"."""
        return self._executor.local

    def share(self, value: T) -> list[T]:
        """``value`` of every process, by rank; under "dist" all of them must call it."""
        return self._executor.share(value)

    def once(self, work: Callable[[], T]) -> T:
        """What ``work()`` gives or raises in the process of rank 0, in every process."""
        mine: tuple[Any, Exception | None] = (None, None)
        if self.rank == 0:
            try:
                mine = (work(), None)
            except Exception as error:
                mine = (None, error)
        value: T
        value, failure = self.share(mine)[0]
        if failure is not None:
            raise failure
        return value

    def state_dict(self) -> dict[str, Any]:
        """State of all stages under the names of the whole model; at a flush point only.

        Under "dist" all processes must call it, as :meth:`digest`, :meth:`events` and
        :meth:`spans`; all get the whole.
        """
        self.check_flushed("state_dict")
        mine = {name: value for stage in self.local for name, value in stage.state().items()}
        return {name: value for part in self.share(mine) for name, value in part.items()}

    def digest(self) -> str:
        """sha256 of :meth:`state_dict`, in order of names: equal if and only if all bits are."""
        return digest(self.state_dict())

    def events(self, before: int | None = None) -> list[Event]:
        """What ran, with the weight versions, in order (of cycles < ``before``)."""
        found: list[tuple[int, int, int, Event]] = []
        for stage in self.local:
            m = stage.index
            for k, v_f, v_b, t_f, t_b in (*stage.records, *stage.open_records):
                found.append((t_f, m, 0, Event(t_f, m, "F", k, v_f)))
                if t_b >= 0:
                    found.append((t_b, m, 1, Event(t_b, m, "B", k, v_b)))
            for k, version, time in stage.updates:
                found.append((time, m, 2, Event(time, m, "U", k, version)))
        if before is not None:
            found = [one for one in found if one[0] < before]
        merged = sorted(one for part in self.share(found) for one in part)
        return [event for *_, event in merged]

    def spans(self) -> list[Span]:
        """Wall-clock times of the operations (``measure=True``), by start, in seconds.

        The clock is that of ``time.perf_counter``: common to the processes of one machine.
        """
        mine = [span for stage in self.local for span in stage.spans or ()]
        return sorted(
            (span for part in self.share(mine) for span in part), key=lambda span: span.start
        )

    def restore(self, micro_batches: int, cycles: int) -> None:
        """Count on from a flush point of an earlier run: see ``checkpoint``."""
        self.check_flushed("restore")
        self._planner.restore(micro_batches, cycles)

    def close(self) -> None:
        """Give threads and connections back; the stages keep their weights."""
        self._executor.close()

    def __enter__(self) -> Pipeline:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


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

"""The pipeline: stages, a schedule and an executor behind one small interface."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ..arrays import arrays_of, check_lr
from ..digest import digest
from ..errors import ConfigError
from ..identity import refuse_twins
from ..optim import check_averaging
from ..schedules import Delayed, Event, Schedule, Segment, Span, named
from .agreement import agree
from .build import OptimizerFactory, check_stages, made_of
from .cautions import caution_choppers
from .draws import Draws
from .events import events_of
from .executors import make
from .executors.execute import autocasts, casting, computing
from .messages import changed, check_samples, is_usable, split, tensors_of
from .options import Options
from .past import Past
from .split import Balance, Stages
from .stage import Loss, Stage
from .step_rates import StepRates

__all__ = ["Pipeline"]

# Micro-batches that one call of the executor gets at most; cutting changes no result.
_CHUNK = 1024

T = TypeVar("T")


def _copied(one: Tensor) -> Tensor:
    return one.detach().clone()


def _first(one: Tensor) -> Tensor:
    return one[:1].clone()


class Pipeline:
    """Train a model in stages under a schedule: :meth:`step`, :meth:`drain`, :meth:`eval`.

    A synchronous update is one ``optimizer.step()`` for all pending micro-batches: that many pulse
    updates in a row on tiles, the summed gradient on digital parameters. Where an update covers
    several micro-batches, one that is shorter than the others counts by its samples. Under "dist"
    every process builds the whole pipeline and makes the same calls; only the stage of its rank
    lives there (:attr:`local`).

    Args:
        model: to be cut, or the modules of the stages, or the stages; modules of stages take one
            argument, what the stage before returns, see :class:`Stage`.
        stages: how many, for a model, or names of the submodules with which the second, third, ..
            begin; each holds whole layers, see :func:`pulseline.pipeline.split.split`.
        schedule: "async" (Analog-SGD-AP), "sync" (1F1B, one update per ``micro_batches``),
            "sequential", "gpipe", "duplex", or a :class:`pulseline.schedules.Schedule`.
        optimizer: for modules: makes each stage's optimizer from its parameters.
        loss: for modules: ``loss(output, target)``, the mean over a micro-batch.
        balance: for a model: parameterised layers per stage, such as
            ``pulseline.cost.balance(model, stages)``; None: equal numbers.
        inputs: for a model: arguments of its forward that ``x`` holds; None: those without a
            default.
        options: fields of :class:`pulseline.pipeline.Options` by name.

    Raises:
        ConfigError: an argument is wrong, or layers in any stages and processes are the same
            devices (equal seed and id).
    """

    def __init__(
        self,
        model: nn.Module | Sequence[nn.Module] | Sequence[Stage],
        stages: Stages | None = None,
        schedule: str | Schedule = "async",
        *,
        optimizer: OptimizerFactory | None = None,
        loss: Loss | None = None,
        balance: Balance = None,
        inputs: Sequence[str] | None = None,
        **options: Any,
    ) -> None:
        self.options = Options.of(options)
        self.stages = made_of(model, stages, optimizer, loss, balance, inputs)
        check_stages(self.stages)
        if isinstance(schedule, str):
            schedule = named(schedule, self.options.micro_batches)
        if not isinstance(schedule, Schedule):
            raise ConfigError(
                f"schedule is a {type(schedule).__name__}; use a name such as 'async' or a Schedule"
            )
        schedule.check_stages(len(self.stages))
        self.schedule = schedule
        self.example: Any = None  # the first sample that was fed, for the cost model
        self._weights: dict[int, float] = {}
        self._losses: list[Tensor] = []  # that finished and were not returned yet
        self._rates = self._step_rates()
        self._turn = threading.Lock()
        self._planner = schedule.planner(len(self.stages))
        for index, stage in enumerate(self.stages, start=1):
            self._take(stage, index)
        self._executor = make(
            *(self.options.executor, self.stages, schedule, float(self.options.timeout)),
            self.options.stage_threads,
        )
        try:
            agree(self.options, schedule, self.stages, self.share)
            self._seed()
            self._refuse_twins()
            caution_choppers(self.stages, schedule, self.micro_batch_size)
        except ConfigError:
            self.close()
            raise

    def _take(self, stage: Stage, index: int) -> None:
        stage.index, stage.first = index, index == 1
        stage.module.train()
        stage.averaged = self.schedule.update == "averaged"
        if stage.averaged:
            check_averaging(stage.module.parameters())
        stage.spans = deque(maxlen=65536) if self.options.measure else None
        stage.weights = self._weights
        plan = self.schedule
        stage.past = Past(stage.module, plan.longest) if isinstance(plan, Delayed) else None
        stage.rates.clear()

    def _step_rates(self) -> StepRates | None:
        """Rates of micro-batches, where a function gives them; factors multiply today's rates."""
        for stage in self.stages:
            stage.multiply_rates(False)
        for name in ("lr", "lr_factor"):
            if (function := getattr(self.options, name)) is not None:
                for stage in self.stages:
                    stage.multiply_rates(name == "lr_factor")
                return StepRates(name, function, len(self.stages))
        return None

    def _seed(self) -> None:
        """Take the seed of the options, or that of torch at rank 0, in every process."""
        seed = self.options.seed
        self._draws = Draws(self.share(torch.initial_seed())[0] if seed is None else seed)
        for stage in self.stages:
            stage.draws = self._draws

    @property
    def seed(self) -> int:
        """Of what torch draws in the stages."""
        return self._draws.seed

    @property
    def micro_batch_size(self) -> int:
        """Samples per micro-batch."""
        return self.options.micro_batch_size

    def _refuse_twins(self) -> None:
        """Refuse arrays of the same devices in any stages; processes agree on identities."""
        mine = []
        for stage in self.stages:
            named = ((stage.full_name(name), p) for name, p in stage.module.named_parameters())
            for name, array in arrays_of(named):
                mine.append((f"layer {name} of stage {stage.index}", array.identity))
        refuse_twins(mine)

    def step(self, x: Any, y: Any) -> Tensor:
        """Feed samples, cut into micro-batches, and run every clock cycle that is decided.

        The asynchronous pipeline stays filled: the last micro-batches finish in a later call.

        Args:
            x: (samples, ...) inputs, or a tuple or dict of them: arguments of a model that was cut,
                by order or name; what the first module takes of stages by hand. Masks in them may
                hold -inf.
            y: (samples, ...) targets, or a tuple, list or dict of them. A rest shorter than
                ``micro_batch_size`` becomes a short micro-batch.

        Returns:
            (finished,) losses of the consecutive micro-batches that finished since the last
            return, possibly none; after a failure those that had finished before it come first.
            Under "dist" :meth:`drain` returns them, to every process.

        Raises:
            ConfigError: before anything runs.
            StageFailed: from a stage.
        """
        count = check_samples("x", x)
        if check_samples("y", y) != count:
            shapes = [[tuple(one.shape) for one in tensors_of(value)] for value in (x, y)]
            told = [one[0] if len(one) == 1 else one for one in shapes]
            raise ConfigError(
                f"x has shape {told[0]} and y {told[1]}; use as many samples of each in the first "
                "dimension"
            )
        if count and not (is_usable(x) and is_usable(y)):
            raise ConfigError(
                "x or y holds a NaN or an infinity; remove such samples from the batch"
            )
        if torch.is_inference_mode_enabled():
            raise ConfigError("step came in inference mode, where nothing can be trained; leave it")
        with self._alone("step"):
            # in flight when a buffer is used again
            self._feed(changed(x, _copied), changed(y, _copied), count)
            return self._hand_over()

    def _feed(self, x: Any, y: Any, count: int) -> None:
        size = self.micro_batch_size
        self._note("step", *tensors_of(x), *tensors_of(y), *self._announce(-(-count // size)))
        if self.flushed:
            self._weights.clear()
        chunk = size * _CHUNK
        for inputs, targets in zip(split(x, chunk), split(y, chunk), strict=True):
            first = self._planner.micro_batches
            parts = zip(split(inputs, size), split(targets, size), strict=True)
            for k, (one, its_target) in enumerate(parts, start=first):
                samples = min(count, size)
                if not samples:
                    return
                if samples < size and self.schedule.shares_update(k):
                    self._weights[k] = samples / size
                count -= samples
                if self.example is None:
                    self.example = changed(one, _first)
                self._executor.feed(k, one, its_target)
                self._planner.feed()
            self._advance()

    def _announce(self, count: int) -> list[Tensor]:
        """Queue what functions give for the next micro-batches; processes must agree on it."""
        first, plan = self._planner.micro_batches, self.schedule
        rates = self._rates.of(first, count) if self._rates else []
        delays = plan.of(len(self.stages), first, count) if isinstance(plan, Delayed) else []
        for stage in self.local:
            m = stage.index - 1
            stage.rates.extend((first + n, of_all[m]) for n, of_all in enumerate(rates))
            if stage.past is not None:
                stage.past.delays.extend(of_all[m] for of_all in delays)
        given = [one for one in (rates, delays) if one]
        return [torch.tensor(one, dtype=torch.float64, device="cpu") for one in given]

    def _note(self, name: str, *arguments: Tensor | float) -> None:
        """Count a call that every process must make."""
        if self._executor.calls is not None:
            self._executor.calls.add(name, *arguments)

    def drain(self) -> Tensor:
        """Flush: finish everything in flight, with a short last mini-batch if need be.

        Returns:
            (finished,) losses, see :meth:`step`.

        Raises:
            StageFailed: from a stage.
        """
        with self._alone("drain"):
            self._advance(drain=True)
            return self._hand_over()

    def _hand_over(self) -> Tensor:
        """The losses that nobody was given yet, in order of micro-batches."""
        losses, self._losses = self._losses, []
        if losses:
            return torch.cat(losses)
        return torch.zeros(0, dtype=torch.float32, device="cpu")

    @contextmanager
    def _alone(self, what: str) -> Iterator[None]:
        """One call at a time: neither another thread's nor one from inside a stage."""
        if not self._turn.acquire(blocking=False):
            raise ConfigError(
                f"{what} came while another call is at work on this pipeline; call it from one "
                "thread, and not from its loss or its modules"
            )
        try:
            yield
        finally:
            self._turn.release()

    def _advance(self, drain: bool = False) -> None:
        try:
            with torch.enable_grad(), casting(autocasts()), computing(self.options.stage_threads):
                self._executor.run(self._planner.advance(drain), self._losses, drain)
        except BaseException:
            self._planner.abandon()
            self._executor.abandon()
            raise
        for stage in self.local if drain else ():
            if stage.past is not None:
                stage.past.clear()

    def eval(self, x: Any, drain: bool = True, snapshot: bool = False) -> Any:
        """The network's output, modules in eval mode, where every loss that finished is kept.

        Args:
            x: (samples, ...) inputs, see :meth:`step`.
            drain: finish first what is in flight, which ends a segment; False: refuse then.
            snapshot: read the weights of the moment, of every stage after as many updates as it has
                made; what is in flight goes on afterwards as if nothing had been.

        Returns:
            (samples, ...) outputs, detached.

        Raises:
            ConfigError: micro-batches are in flight and ``drain`` is False.
            StageFailed: from a stage.
        """
        with self._alone("eval"):
            if drain and not (snapshot or self.flushed):
                self._advance(drain=True)
            if not snapshot:
                self.check_flushed("eval(drain=False)")
            try:
                for stage in self.stages:
                    stage.module.eval()
                with computing(self.options.stage_threads):
                    return self._executor.eval(x)
            finally:
                for stage in self.stages:
                    stage.module.train()

    def set_lr(self, lr: float) -> None:
        """Set the learning rate of every stage; at a flush point only.

        Raises:
            ConfigError: it is negative or not finite, micro-batches are in flight, or the rate is a
                function of the micro-batch.
        """
        check_lr(lr)
        self.check_flushed("set_lr")
        self.check_free("set_lr")
        self._note("set_lr", float(lr))
        for stage in self.stages:
            stage.set_lr(lr)

    def check_flushed(self, what: str) -> None:
        """Refuse what may not happen while micro-batches are in flight.

        Args:
            what: is about to happen, for the message.

        Raises:
            ConfigError: some are.
        """
        if not self.flushed:
            raise ConfigError(f"{what} needs a flush point; call drain() first")

    def check_free(self, what: str) -> None:
        """Refuse what sets a learning rate where a function gives it.

        Args:
            what: is about to happen, for the message.

        Raises:
            ConfigError: ``lr`` is a function.
        """
        if self.options.lr is not None:
            raise ConfigError(f"{what} came where lr is a function; let that give the new rate")

    @property
    def flushed(self) -> bool:
        """True when no micro-batch is in flight, and no delay reaches behind this moment."""
        return self._planner.flushed and not any(stage.past for stage in self.local)

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
        """``value`` of every process, by rank; under "dist" all of them must call it.

        Returns:
            One entry per process.

        Raises:
            BackendError: the pipeline is closed.
            StageFailed: a process was lost.
        """
        return self._executor.share(value)

    def once(self, work: Callable[[], T]) -> T:
        """What ``work()`` gives or raises in the process of rank 0, in every process.

        Args:
            work: takes nothing; the other processes get a copy of its result.
        """
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

        Raises:
            ConfigError: micro-batches are in flight.
        """
        self.check_flushed("state_dict")
        mine = {name: value for stage in self.local for name, value in stage.state().items()}
        return {name: value for part in self.share(mine) for name, value in part.items()}

    def digest(self) -> str:
        """sha256 of :meth:`state_dict`, in order of names: equal if and only if all bits are.

        Raises:
            ConfigError: micro-batches are in flight.
        """
        return digest(self.state_dict())

    def events(self, before: int | None = None) -> list[Event]:
        """What ran, with the weight versions, in order.

        Args:
            before: clock cycle at which to stop; None: everything that the stages still hold.
        """
        found = events_of(self.local)
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

    def restore(
        self,
        micro_batches: int,
        cycles: int,
        seed: int | None = None,
        segments: Iterable[Segment] = (),
    ) -> None:
        """Count on from a flush point of an earlier run: see ``checkpoint``.

        Args:
            micro_batches, cycles: of that run so far. seed: its :attr:`seed`; None: this one's.
            segments: that it has finished.

        Raises:
            ConfigError: micro-batches are in flight.
        """
        self.check_flushed("restore")
        self._planner.restore(micro_batches, cycles, segments)
        if seed is not None:
            self._draws.seed = seed

    def close(self) -> None:
        """Give threads and connections back; the stages keep their weights."""
        self._executor.close()

    def __enter__(self) -> Pipeline:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

"""How a pipeline runs, apart from what it trains."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from ..errors import ConfigError, require
from .executors import EXECUTORS
from .step_rates import StepRate

__all__ = ["Options"]


@dataclass(frozen=True)
class Options:
    """Fields of :class:`pulseline.Pipeline` by name.

    Attributes:
        executor: "sim" (one thread), "threads" (one per stage), "dist" (one process per stage,
            under torchrun), "streams" (CUDA). They run the same operations in the same order per
            stage: the same bits on crossbars, and in digital layers with ``stage_threads``.
        micro_batch_size: samples per micro-batch.
        micro_batches: micro-batches per update, of schedules "sync" and "gpipe".
        timeout: seconds that a stage of "threads" or "dist" waits for another.
        measure: keep wall-clock times, see :meth:`pulseline.Pipeline.spans`.
        seed: of what torch draws in stages (dropout); None: ``torch.initial_seed()``.
        stage_threads: of torch, on which a stage computes. Convolutions, normalisations and means
            have other last bits on another number; with one that is given here, every executor
            gives the same. None: those of the process, shared out among the stages by "threads".
        lr: learning rate as a function of the micro-batch's number, from 0: the update of
            micro-batch k takes that of k, in every parameter group. It gives a number, or a list
            with one per stage; see :mod:`.step_rates`, and :func:`.step_rates.torch_lr` for
            schedulers of torch. None: what the optimizers say.
        lr_factor: the same for a factor, as that of torch's LambdaLR: every group takes its own
            rate times the factor.

    Raises:
        ConfigError: a value out of its range.
    """

    executor: str = "sim"
    micro_batch_size: int = 1
    micro_batches: int = 8
    timeout: float = 60.0
    measure: bool = False
    seed: int | None = None
    stage_threads: int | None = None
    lr: StepRate | None = None
    lr_factor: StepRate | None = None

    def __post_init__(self) -> None:
        known = ", ".join(EXECUTORS)
        require(self.executor in EXECUTORS, self, "executor", f"use one of {known}")
        for name in ("micro_batch_size", "micro_batches"):
            value = getattr(self, name)
            whole = isinstance(value, int) and not isinstance(value, bool) and value >= 1
            require(whole, self, name, "use an integer >= 1")
        threads = self.stage_threads
        whole = threads is None or (type(threads) is int and threads >= 1)
        require(whole, self, "stage_threads", "use an integer >= 1, or leave it out")
        number = isinstance(self.timeout, (int, float)) and self.timeout > 0
        require(number, self, "timeout", "use a positive number of seconds")
        whole = isinstance(self.seed, int) and not isinstance(self.seed, bool)
        require(self.seed is None or whole, self, "seed", "use an integer, or leave it out")
        for name in ("lr", "lr_factor"):
            value = getattr(self, name)
            known = "use a function of the micro-batch's number; a fixed one belongs to optimizer="
            require(value is None or callable(value), self, name, known)
        if self.lr is not None and self.lr_factor is not None:
            raise ConfigError("lr and lr_factor are both given; use one of them")

    @classmethod
    def of(cls, given: dict[str, Any]) -> Options:
        """Options by name.

        Raises:
            ConfigError: there is no such option, or a value is out of its range.
        """
        known = [one.name for one in fields(cls)]
        for name in given:
            if name not in known:
                raise ConfigError(f"{name} is no option of a pipeline; use {', '.join(known)}")
        return cls(**given)

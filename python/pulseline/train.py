"""Training in a pipeline, a classifier or a model of text: epochs, learning rates, checkpoints.

Recipe of the digits: micro-batches of one sample, lr .01 x .8 per epoch, 10 epochs. Accuracy is the
mean over the last three epochs. (lr .01 x .88 ends in the same place after 12.)
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from .data import DataSet, as_input
from .errors import ConfigError
from .optim import AnalogSGD
from .pipeline import Pipeline, checkpoint
from .schedules import Event

__all__ = [
    "EPOCHS",
    "LR",
    "LR_DECAY",
    "Epoch",
    "Notice",
    "Progress",
    "Recipe",
    "Run",
    "Saving",
    "accuracy",
    "evaluate",
    "loss_of",
    "pipeline",
    "train",
]

LR = 0.01
LR_DECAY = 0.8
EPOCHS = 10
# Test samples that one evaluation takes: a bound on memory; converters draw the same noise in each.
_EVALUATED = 1000

Progress = Callable[[int, str], None]
Notice = Callable[[str], None]


@dataclass(frozen=True)
class Recipe:
    """Passes over the training images with learning rate ``lr decay^epoch``.

    Attributes:
        epochs: how many passes. lr, decay: of the rate.
        seed: of the numpy Generator that orders the images.
    """

    epochs: int = EPOCHS
    lr: float = LR
    decay: float = LR_DECAY
    seed: int = 0


class Epoch(NamedTuple):
    """State at an epoch's end.

    Attributes:
        samples, cycles: trained samples and clock cycles so far.
        accuracy: of the test labels, or next tokens, in percent. loss: mean over the epoch.
        test_loss: mean cross entropy of the test samples, in nats per label or token.
    """

    samples: int
    cycles: int
    accuracy: float
    loss: float
    test_loss: float


@dataclass(frozen=True)
class Saving:
    """Checkpoints of a run.

    Attributes:
        directory: of the checkpoints. every: epochs between two; there is one at the end too.
        resume: continue from the newest one, or start where there is none.
        config: what a run must share to continue this one, see ``checkpoint.save``.
    """

    directory: Path
    every: int = 1
    resume: bool = False
    config: dict[str, Any] = field(default_factory=dict)


@dataclass
class Run:
    """What a training run leaves.

    Attributes:
        epochs: state at the end of each. wall_s: wall time in seconds.
        stages, micro_batches: of the pipeline. events: of the first clock cycles.
        start: test accuracy in percent before training; None: nobody looked.
    """

    epochs: list[Epoch] = field(default_factory=list)
    wall_s: float = 0.0
    stages: int = 1
    micro_batches: int = 0
    events: list[Event] = field(default_factory=list)
    start: float | None = None

    @property
    def accuracy(self) -> float:
        """Test accuracy in percent, mean over the last three epochs."""
        last = [epoch.accuracy for epoch in self.epochs[-3:]]
        return sum(last) / len(last)

    @property
    def cycles(self) -> int:
        """Clock cycles of the whole run."""
        return self.epochs[-1].cycles

    @property
    def density(self) -> float:
        """Share of the clock cycles in which a stage computes."""
        return 2 * self.micro_batches / self.cycles

    @property
    def speedup(self) -> float:
        """Clock cycles of the sequential schedule, 2 M K, over those of this run."""
        return 2 * self.stages * self.micro_batches / self.cycles


def pipeline(model: nn.Module, stages: int, lr: float = LR, **options: Any) -> Pipeline:
    """A pipeline trained by AnalogSGD on the cross entropy, see :func:`loss_of`.

    Args:
        model: to be cut. stages: how many. lr: of all of them.
        options: of :class:`pulseline.Pipeline`.

    Raises:
        ConfigError: see :class:`pulseline.Pipeline`.
    """
    return Pipeline(
        model,
        stages,
        optimizer=lambda parameters: AnalogSGD(parameters, lr=lr),
        loss=loss_of,
        **options,
    )


def loss_of(output: Tensor, target: Tensor) -> Tensor:
    """Mean cross entropy of every label, or of every next token.

    Args:
        output: (samples, classes) or (samples, length, tokens). target: without the last dimension.
    """
    return nn.functional.cross_entropy(output.flatten(0, -2), target.flatten())


def accuracy(pipe: Pipeline, x: Tensor, y: Tensor) -> float:
    """Percent of the labels, or next tokens, that the network gives most weight.

    Args:
        pipe: with the network. x: (n, ...) samples. y: (n,) labels, or (n, length) tokens.
    """
    return evaluate(pipe, x, y)[0]


def evaluate(pipe: Pipeline, x: Tensor, y: Tensor) -> tuple[float, float]:
    """Accuracy in percent, and the mean cross entropy in nats; see :func:`accuracy`.

    Args:
        pipe: with the network. x, y: samples and what they are.
    """
    right, loss = 0, 0.0
    parts = zip(torch.split(x, _EVALUATED), torch.split(y, _EVALUATED), strict=True)
    for some, labels in parts:
        out = pipe.eval(as_input(some))
        right += int((out.argmax(dim=-1) == labels).sum())
        loss += float(loss_of(out.float(), labels).double()) * labels.numel()
    return 100.0 * right / y.numel(), loss / y.numel()


def train(
    pipe: Pipeline,
    data: DataSet,
    recipe: Recipe,
    *,
    progress: Progress = lambda *_: None,
    notice: Notice = lambda _: None,
    saving: Saving | None = None,
    finished: Callable[[Run], None] = lambda _: None,
    timeline_cycles: int = 48,
) -> Run:
    """Train by the recipe; drain and test after each epoch. Under "dist" all processes call it.

    Args:
        pipe: to be trained. data: samples and labels. recipe: epochs and learning rates.
        progress: called with (samples, note) as work is done.
        notice: called with a sentence when a checkpoint is continued.
        saving: checkpoints of the run.
        finished: called after each epoch that was trained, once it is tested, with the run so far.
        timeline_cycles: clock cycles whose events the run keeps.

    Returns:
        What the run leaves, resumed epochs included.

    Raises:
        ConfigError: the directory holds checkpoints of another run, or some and ``resume`` is off.
        StageFailed: from a stage.
    """
    epochs, samples = recipe.epochs, len(data.x_train)
    run = Run(stages=len(pipe.stages))
    if saving is not None:
        _resume(pipe, run, saving, epochs, notice)
    before = run.wall_s
    order = np.random.default_rng(recipe.seed)
    chunk = pipe.micro_batch_size * max(1, 64 // pipe.micro_batch_size)
    start = time.perf_counter()
    note = ""
    for epoch in range(epochs):
        shuffled = torch.from_numpy(order.permutation(samples))
        if epoch < len(run.epochs):
            progress(samples, note)
            continue
        pipe.set_lr(recipe.lr * recipe.decay**epoch)
        losses: list[Tensor] = []
        for part in torch.split(shuffled, chunk):
            losses.append(pipe.step(as_input(data.x_train[part]), data.y_train[part]))
            progress(len(part), f"{note}loss {_newest(losses[-1]):.3f}")
        losses.append(pipe.drain())
        if epoch == 0:
            run.events = pipe.events(before=timeline_cycles)
        right, test_loss = evaluate(pipe, data.x_test, data.y_test)
        loss = torch.cat(losses).mean().item()
        run.epochs.append(Epoch((epoch + 1) * samples, pipe.cycles, right, loss, test_loss))
        note = f"{right:.1f} %, "
        run.wall_s = before + time.perf_counter() - start
        finished(run)
        if saving is not None and ((epoch + 1) % saving.every == 0 or epoch + 1 == epochs):
            _save(pipe, run, saving)
    run.micro_batches = pipe.micro_batches
    return run


def _newest(losses: Tensor) -> float:
    return losses.mean().item() if len(losses) else math.nan


def _save(pipe: Pipeline, run: Run, saving: Saving) -> None:
    state = {"epochs": [list(epoch) for epoch in run.epochs], "wall_s": run.wall_s}
    step = len(run.epochs)
    checkpoint.save(pipe, saving.directory, step, config=saving.config, state=state)


def _resume(pipe: Pipeline, run: Run, saving: Saving, epochs: int, notice: Notice) -> None:
    """Bring pipeline and run to where the newest checkpoint left them."""
    root = saving.directory
    if not saving.resume:
        if pipe.once(lambda: checkpoint.steps(root)):
            raise ConfigError(
                f"{root} holds a checkpoint; add --resume to continue from it, or use another "
                "directory"
            )
        return
    if any(step > epochs for step in pipe.once(lambda: checkpoint.steps(root))):
        raise ConfigError(
            f"{root} holds a checkpoint of a later epoch than {epochs}; raise --epochs, or use "
            "another directory"
        )
    loaded = checkpoint.load(pipe, root, config=saving.config, accept=_passed)
    if loaded is None:
        notice(f"no checkpoint in {root}: starting with epoch 1")
        return
    run.epochs, run.wall_s = _passed(loaded.step, loaded.state)
    passed = f" ({'; '.join(loaded.skipped)})" if loaded.skipped else ""
    notice(f"resumed after epoch {loaded.step}{passed}")


def _passed(step: int, state: dict[str, Any]) -> tuple[list[Epoch], float]:
    """Epochs and wall time that :func:`_save` wrote; ConfigError for what it would not write."""
    found, wall_s = state.get("epochs"), state.get("wall_s")
    rows = found if isinstance(found, list) else []
    numbers = [wall_s, *(value for row in rows if isinstance(row, list) for value in row)]
    fits = len(rows) == step and all(
        isinstance(row, list) and len(row) == len(Epoch._fields) for row in rows
    )
    if not fits or not all(type(value) in (int, float) for value in numbers):
        raise ConfigError(
            f"the checkpoint of step {step} holds state = {state!r:.60}, no {step} epochs of a "
            "training run; use another directory"
        )
    return [Epoch(*row) for row in rows], float(wall_s or 0.0)

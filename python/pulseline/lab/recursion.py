"""The recursions of the theory, many runs at once in float64: what the pipeline does, by formula.

Run r trains an L-layer network on samples of its own, one sample after the other ::

    W <- clip(W - s - |s| / tau .* W, +-tau)        s = a d x^T, tau = inf: digital SGD

``d`` and ``x`` of sample k are taken

* sequential: at W_k;
* synchronous: at the weights of the last multiple of B, the B updates follow one by one;
* asynchronous, one stage per layer: forward pass of layer m at W_{k-(L-m)}, backward pass at W_k.

The tests compare it with pipelines of ``expected`` tiles on the same samples.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .teacher import Teacher

__all__ = ["Array", "Block", "Fleet", "Look", "drawn", "full", "move"]

Array = NDArray[np.float64]


class Block(NamedTuple):
    """Runs with step ``a`` over so many samples, looked at before every ``every``-th."""

    a: float
    samples: int
    every: int


class Look(NamedTuple):
    """Block n of ``Fleet.blocks`` before sample k: |grad f|^2, f and |W|, (streams,) each."""

    n: int
    k: int
    gradient2: Array
    loss: Array
    norm: Array


def move(w: Array, step: Array, tau: float, out: Array) -> None:
    """One mean update of asymmetric linear devices; ``step``, which symmetric ones would move, is
    destroyed. Weights within +-tau stay there while |step| <= tau.
    """
    if math.isinf(tau):
        np.subtract(w, step, out=out)
        return
    pull = np.abs(step)
    pull *= 1 / tau
    pull *= w
    step += pull
    np.subtract(w, step, out=out)


def drawn(problem: Teacher, streams: Sequence[int], count: int) -> tuple[Array, Array]:
    """Inputs and noisy targets of each stream, (streams, count, d) each."""
    found = [problem.samples(count, stream) for stream in streams]
    x, target = (np.stack([pair[n].double().numpy() for pair in found]) for n in range(2))
    return x, target


class Fleet:
    """Runs of every block with every stream of samples, under one schedule.

    Args:
        problem: network, first weights and the full gradient.
        samples: inputs and targets of every stream; every block sees the same.
        blocks: steps and lengths.
        tau: in weight units, inf for digital training.
        stale: forward passes with old weights, as the asynchronous pipeline has them.
        batch: B of the synchronous schedule; 1 updates after every sample.
        questions: inputs over which full gradients are taken.
    """

    def __init__(
        self,
        problem: Teacher,
        samples: tuple[Array, Array],
        blocks: list[Block],
        tau: float = math.inf,
        *,
        stale: bool = False,
        batch: int = 1,
        questions: int = 256,
    ) -> None:
        self.streams, self.tau, self.batch = len(samples[0]), tau, batch
        self.blocks = sorted(blocks, key=lambda block: -block.samples)
        self._x, self._target = samples
        start = np.stack([w.double().numpy() for w in problem.matrices()[1]])
        runs = len(blocks) * self.streams
        self.weights = np.repeat(start[:, None], runs, axis=1)  # (layers, runs, d, d)
        self._a = np.repeat([block.a for block in self.blocks], self.streams)[:, None]
        self._questions = tuple(q.numpy() for q in problem.questions(questions))
        # The newest last; the next one takes the place of the oldest.
        self._old = [self.weights.copy() for _ in range(problem.layers if stale else 1)]
        self.weights = self._old[-1]
        self._step = np.empty_like(self.weights)

    def run(self) -> Iterator[Look]:
        """Train; the looks of each block at samples 0, every, 2 every, .. below its length."""
        size, k, left = self.streams, 0, len(self.blocks)
        while left:
            for n, block in enumerate(self.blocks[:left]):
                if k % block.every == 0:
                    yield self._look(n, k, self.weights[:, n * size : (n + 1) * size])
            self._advance(slice(k, k + self.batch), left)
            k += self.batch
            while left and self.blocks[left - 1].samples <= k:
                left -= 1
            if self.weights.shape[1] > left * size:
                self._a = self._a[: left * size]
                self._old = [w[:, : left * size] for w in self._old]
                self._step = self._step[:, : left * size]
                self.weights = self._old[-1]

    def _look(self, n: int, k: int, w: Array) -> Look:
        gradient2, loss = full(w, *self._questions)
        return Look(n, k, gradient2, loss, np.sqrt(np.square(w).sum(axis=(0, 2, 3))))

    def _advance(self, samples: slice, blocks: int) -> None:
        x = np.tile(self._x[:, samples], (blocks, 1, 1))
        target = np.tile(self._target[:, samples], (blocks, 1, 1))
        inputs, errors = self._passes(x, target)
        before, after = self.weights, self._old[0]
        for n in range(x.shape[1]):
            scaled = self._a * errors[:, :, n]
            np.multiply(scaled[..., :, None], inputs[:, :, n, None, :], out=self._step)
            move(before, self._step, self.tau, out=after)
            before = after
        self._old = [*self._old[1:], after]
        self.weights = after

    def _passes(self, x: Array, target: Array) -> tuple[Array, Array]:
        """Inputs and errors of every layer, (layers, runs, batch, d)."""
        layers = len(self.weights)
        held = [x]
        for m in range(layers):  # layer m, from 0, sees W_{k-(L-1-m)}
            old = self._old[m] if len(self._old) == layers else self._old[-1]
            held.append(np.tanh(held[-1] @ old[m].swapaxes(1, 2)))
        error = (held[-1] - target) * (1 - np.square(held[-1]))
        errors = [error]
        for m in range(layers - 1, 0, -1):
            error = (error @ self.weights[m]) * (1 - np.square(held[m]))
            errors.append(error)
        return np.stack(held[:-1]), np.stack(errors[::-1])


def full(w: Array, x: Array, target: Array) -> tuple[Array, Array]:
    """|grad f|^2 and f of runs with weights (layers, runs, d, d) over inputs x (n, d)."""
    held = [x[None]]
    for layer in w:
        held.append(np.tanh(held[-1] @ layer.swapaxes(1, 2)))
    away = held[-1] - target
    error = away * (1 - np.square(held[-1]))
    gradient2 = np.zeros(w.shape[1])
    for m in range(len(w) - 1, -1, -1):
        gradient2 += np.square(error.swapaxes(1, 2) @ held[m] / len(x)).sum(axis=(1, 2))
        if m:
            error = (error @ w[m]) * (1 - np.square(held[m]))
    return gradient2, 0.5 * np.square(away).sum(axis=2).mean(axis=1)

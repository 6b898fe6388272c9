"""Staleness bias of a running pipeline: e_k = (gradient it applies) - (gradient at W_k).

Right before each update a hook takes the pairs (x, d) that wait on the tiles and a copy of the
weights, which are version k there. When all stages have passed micro-batch k, its true gradient
at W_k = (W^1_k, .., W^M_k) is worked out in float64 and compared. Nothing is assumed about which
versions the forward pass saw.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..arrays import cells_of
from ..pipeline import Pipeline, Stage
from .teacher import pairs_of_gradient

__all__ = ["Bias", "Probe", "rms"]


class Bias(NamedTuple):
    """Frobenius norms over all layers of one micro-batch: |e_k| and |gradient at W_k|."""

    bias: float
    gradient: float


class Probe:
    """Watches a pipeline of analog layers under AnalogSGD, micro-batches of one sample.

    ``wanted(k)``: whether to look at micro-batch k, counted from :meth:`restart`.
    """

    def __init__(self, pipe: Pipeline, wanted: Callable[[int], bool]) -> None:
        self._wanted = wanted
        self._start = [stage.version for stage in pipe.stages]
        self._seen: dict[int, dict[int, list[tuple[Tensor, Tensor, Tensor]]]] = {}
        self._stages = pipe.stages
        for stage in pipe.stages:
            stage.optimizer.register_step_pre_hook(self._hook(stage))

    def restart(self) -> None:
        """Count from the next micro-batch; at a flush point."""
        self._start = [stage.version for stage in self._stages]
        self._seen.clear()

    def _hook(self, stage: Stage) -> Any:
        cells = list(cells_of(stage.module.parameters()))

        def look(*_: Any) -> None:
            k = stage.version - self._start[stage.index - 1]
            if self._wanted(k):
                held = []
                for cell in cells:
                    ((x, d),) = cell.pending
                    held.append((cell.weight.detach().double(), x, d))
                self._seen.setdefault(k, {})[stage.index] = held

        return look

    def biases(self, x: Tensor, target: Tensor) -> list[Bias]:
        """Of every micro-batch seen; x, target: (n, d), the samples since :meth:`restart`."""
        found = []
        for k, by_stage in sorted(self._seen.items()):
            layers = [layer for _, held in sorted(by_stage.items()) for layer in held]
            weights = [w for w, _, _ in layers]
            true = pairs_of_gradient(weights, x[k : k + 1].double(), target[k : k + 1].double())
            bias = gradient = 0.0
            for (_, x_stale, d_stale), (inputs, errors) in zip(layers, true, strict=True):
                g = errors.t() @ inputs
                bias += float((d_stale.double().t() @ x_stale.double() - g).square().sum())
                gradient += float(g.square().sum())
            found.append(Bias(bias**0.5, gradient**0.5))
        return found


def rms(values: list[float]) -> float:
    """Root mean square."""
    return float(torch.tensor(values, dtype=torch.float64).square().mean().sqrt())

"""The problem of the theory experiments: a tanh network learns from another one, with noise.

Student and teacher have the same layers, d x d without bias, tanh after each::

    f(W) = E 1/2 |student(x; W) - teacher(x)|^2        x ~ N(0, 1), targets + noise N(0, sigma^2)

The teacher's matrices are 0.9 x orthogonal, the student starts ``distance`` away from them. Full
gradients are taken over a fixed set of inputs with noiseless targets, whose minimum is 0. Analog
students live on asymmetric linear devices (SoftBounds, w in [-tau, tau], no variation) with
perfect converters: ``expected`` updates are the recursion of Analog-SGD-AP (arXiv 2410.15155) ::

    W <- W - a d x^T - (a / tau) |d x^T| .* W

and ``exact`` ones its pulse trains, dw_min = 2 tau / 1024.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from ..configs import IOConfig, UpdateConfig
from ..devices import SoftBounds
from ..nn import to_analog
from ..optim import AnalogSGD
from ..pipeline import Pipeline

__all__ = [
    "STATES",
    "Teacher",
    "gradients_along",
    "half_square",
    "linear_device",
    "pairs_of_gradient",
    "squared_gradient",
    "weights_of",
]

STATES = 1024  # steps of dw_min from one bound to the other; 2^n, so that steps are stored exactly


def linear_device(tau: float) -> SoftBounds:
    """The asymmetric linear device: soft bounds at +-tau, all crosspoints alike, no noise."""
    return SoftBounds(
        w_max=tau,
        w_min=-tau,
        dw_min=2 * tau / STATES,
        dw_min_dtod=0.0,
        dw_min_std=0.0,
        up_down_dtod=0.0,
        w_max_dtod=0.0,
        w_min_dtod=0.0,
    )


def half_square(out: Tensor, target: Tensor) -> Tensor:
    """1/2 |out - target|^2, mean over the samples."""
    return 0.5 * (out - target).square().sum(dim=1).mean()


def pairs_of_gradient(
    weights: Sequence[Tensor], x: Tensor, target: Tensor
) -> list[tuple[Tensor, Tensor]]:
    """(inputs, errors) of every layer for ``half_square`` summed: the gradient is errors^T inputs.

    weights: (d, d) each; x, target: (n, d). In the precision of ``weights``.
    """
    inputs = [x]
    for w in weights:
        inputs.append((inputs[-1] @ w.mT).tanh())
    error = (inputs[-1] - target) * (1 - inputs[-1].square())
    found = []
    for layer in reversed(range(len(weights))):
        found.append((inputs[layer], error))
        if layer:
            error = (error @ weights[layer]) * (1 - inputs[layer].square())
    return found[::-1]


@dataclass(frozen=True)
class Teacher:
    """One instance: ``layers`` matrices d x d, drawn from ``seed``; sigma = ``noise``."""

    layers: int = 8
    width: int = 8
    noise: float = 0.3
    distance: float = 0.25
    seed: int = 0

    def matrices(self) -> tuple[list[Tensor], list[Tensor]]:
        """Teacher's and student's first weights, (d, d) float32 each."""
        teacher, student = _matrices(self)
        return [w.clone() for w in teacher], [w.clone() for w in student]

    def answers(self, x: Tensor) -> Tensor:
        """What the teacher says to x (n, d), without noise."""
        for w in _matrices(self)[0]:
            x = (x @ w.t().to(x.dtype)).tanh()
        return x

    def samples(self, count: int, stream: int = 0) -> tuple[Tensor, Tensor]:
        """Inputs and noisy targets, (count, d) each; another ``stream``, other samples."""
        generator = torch.Generator().manual_seed(1_000_003 * (stream + 1) + self.seed)
        x = torch.randn(count, self.width, generator=generator)
        noise = torch.randn(count, self.width, generator=generator)
        return x, self.answers(x) + self.noise * noise

    def questions(self, count: int = 256) -> tuple[Tensor, Tensor]:
        """The fixed set of full gradients: inputs and noiseless targets, float64."""
        generator = torch.Generator().manual_seed(7_000_000 + self.seed)
        x = torch.randn(count, self.width, generator=generator, dtype=torch.float64)
        return x, self.answers(x)

    def model(self, kind: str, tau: float = 2.0) -> nn.Sequential:
        """The student: "digital", "expected" or "exact" (pulse trains)."""
        layers: list[nn.Module] = []
        for start in _matrices(self)[1]:
            layer = nn.Linear(self.width, self.width, bias=False)
            layer.weight.data.copy_(start)
            layers += [layer, nn.Tanh()]
        model = nn.Sequential(*layers)
        if kind == "digital":
            return model
        update = UpdateConfig(fidelity=kind)
        found = to_analog(
            model, linear_device(tau), io=IOConfig.perfect(), update=update, seed=1000 + self.seed
        )
        assert isinstance(found, nn.Sequential)
        return found

    def pipeline(self, model: nn.Sequential, stages: int, lr: float, **options: Any) -> Pipeline:
        """``model`` in stages under AnalogSGD."""
        return Pipeline(
            model,
            stages,
            optimizer=lambda parameters: AnalogSGD(parameters, lr=lr),
            loss=half_square,
            **options,
        )


@lru_cache(maxsize=64)
def _matrices(problem: Teacher) -> tuple[list[Tensor], list[Tensor]]:
    generator = torch.Generator().manual_seed(1000 + problem.seed)
    size = (problem.width, problem.width)
    teacher, student = [], []
    for _ in range(problem.layers):
        q, _ = torch.linalg.qr(torch.randn(size, generator=generator, dtype=torch.float64))
        step = torch.randn(size, generator=generator, dtype=torch.float64)
        teacher.append((0.9 * q).float())
        student.append((0.9 * q + problem.distance / problem.width**0.5 * step).float())
    return teacher, student


def weights_of(model: nn.Sequential) -> list[Tensor]:
    """The matrices as they are now, float64 copies."""
    return [parameter.detach().double() for parameter in model.parameters()]


def squared_gradient(weights: Sequence[Tensor], questions: tuple[Tensor, Tensor]) -> float:
    """|grad f|^2 over all layers, float64."""
    x, target = questions
    total = 0.0
    for inputs, errors in pairs_of_gradient(weights, x, target):
        total += float((errors.t() @ inputs / len(x)).square().sum())
    return total


def gradients_along(
    problem: Teacher,
    pipe: Pipeline,
    model: nn.Sequential,
    count: int,
    every: int = 10,
    stream: int = 0,
) -> Iterator[tuple[int, float]]:
    """Train on ``count`` samples; before every so many of them: (samples so far, |grad f|^2).

    The pipeline stays filled: the weights are those that the stages hold at one clock cycle.
    """
    x, target = problem.samples(count, stream)
    questions = problem.questions()
    for k in range(0, count, every):
        yield k, squared_gradient(weights_of(model), questions)
        pipe.step(x[k : k + every], target[k : k + every])

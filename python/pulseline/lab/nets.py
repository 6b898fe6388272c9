"""The digits on small networks of any algorithm: what the experiments on algorithms train.

tanh layers with digital biases, weights uniform with variance 1 / n_in, softmax. The loss is the
sum over a micro-batch, so that a rate means the same for micro-batches of any size. Accuracy is the
mean of the tests behind the last three epochs.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import numpy as np
import torch
from torch import nn

from .. import train as training
from ..configs import Crossbar
from ..data import DataSet
from ..nn import to_analog
from ..optim import AnalogSGD
from ..pipeline import Pipeline
from ..schedules import Schedule, asynchronous, sequential

__all__ = ["DEEP", "SMALL", "Course", "accuracy", "network"]

SMALL = (64, 36, 10)
DEEP = (64, 128, 128, 64, 10)
_TESTS = 3  # of the last epochs


@dataclass(frozen=True)
class Course:
    """How a network is trained.

    Attributes:
        widths: of the layers. stages: 1: sequential, more: asynchronous, equal numbers of layers.
        batch: samples of a micro-batch. epochs: passes over the training images.
    """

    widths: Sequence[int] = SMALL
    stages: int = 1
    batch: int = 16
    epochs: int = 20

    def schedule(self) -> Schedule:
        """Of its pipeline."""
        return sequential() if self.stages == 1 else asynchronous()


def network(widths: Sequence[int], crossbar: Crossbar | None, seed: int) -> nn.Module:
    """The network; weights and devices are functions of ``seed``.

    Args:
        widths: of the layers. crossbar: of its matrices; None: they stay digital.
        seed: of both.
    """
    generator = torch.Generator().manual_seed(seed)
    layers: list[nn.Module] = []
    for n_in, n_out in pairwise(widths):
        layer = nn.Linear(n_in, n_out)
        bound = math.sqrt(3.0 / n_in)
        with torch.no_grad():
            layer.weight.uniform_(-bound, bound, generator=generator)
            layer.bias.zero_()
        layers += [layer, nn.Tanh()]
    model = nn.Sequential(*layers[:-1])
    return model if crossbar is None else to_analog(model, crossbar, seed=seed)


def accuracy(
    crossbar: Crossbar | None, lr: float, course: Course, data: DataSet, seed: int
) -> float:
    """Percent of the test images that a trained network recognises.

    What it warns of, trains that saturate and choppers on stale gradients, is what is measured.

    Args:
        crossbar: of the matrices; None: digital. lr: of the optimizer, per sample.
        course: widths, stages, epochs. data: images. seed: of weights, devices, order.
    """
    order = np.random.default_rng(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        pipe = Pipeline(
            network(course.widths, crossbar, seed),
            course.stages,
            course.schedule(),
            optimizer=lambda parameters: AnalogSGD(parameters, lr=lr),
            loss=partial(nn.functional.cross_entropy, reduction="sum"),
            micro_batch_size=course.batch,
        )
        found = []
        for epoch in range(course.epochs):
            shuffled = torch.from_numpy(order.permutation(len(data.x_train)))
            pipe.step(data.x_train[shuffled], data.y_train[shuffled])
            pipe.drain()
            if epoch >= course.epochs - _TESTS:
                found.append(training.accuracy(pipe, data.x_test, data.y_test))
    return sum(found) / len(found)

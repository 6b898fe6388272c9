"""The digits on an 8-layer network: what ``accuracy``, ``speedup`` and ``cliff`` train.

tanh 64-64-64-64-64-64-64-64-10 without bias, init std 1.5 / sqrt(n_in), on SoftBounds crosspoints
with w in [-3, 3], dw_min = .003, the default variation and cycle noise, default converters. The
step a is per sample: with b samples in a micro-batch, whose loss is their mean, lr = a b.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from .. import train as training
from ..configs import IOConfig
from ..data import DataSet
from ..devices import Device, SoftBounds
from ..errors import ConfigError
from ..nn import to_analog
from ..pipeline import Pipeline

__all__ = [
    "DEVICE",
    "GAIN",
    "WIDTHS",
    "Point",
    "check_stages",
    "network",
    "parts",
    "pipeline",
    "train",
]

WIDTHS = (64,) * 8 + (10,)
GAIN = 1.5
DEVICE = SoftBounds(w_max=3.0, w_min=-3.0, dw_min=0.003)


def check_stages(name: str, stages: Iterable[int]) -> None:
    """Refuse stages that the network cannot be cut into.

    Args:
        name: of the setting. stages: numbers of them.

    Raises:
        ConfigError: a number is below 1 or above that of the layers.
    """
    for m in stages:
        if not 1 <= m < len(WIDTHS):
            raise ConfigError(f"{name} holds {m}; use 1 to {len(WIDTHS) - 1}, the layers there are")


class Point(NamedTuple):
    """At a flush: samples and clock cycles so far, test accuracy in percent, training loss.

    Both are evaluations with the weights of that moment, the loss over all training images.
    """

    samples: int
    cycles: int
    accuracy: float
    loss: float


def network(seed: int, device: Device = DEVICE, io: IOConfig | None = None) -> nn.Sequential:
    """The 8 layers on crossbars; weights and devices are functions of ``seed``."""
    generator = torch.Generator().manual_seed(seed)
    layers: list[nn.Module] = []
    for n_in, n_out in pairwise(WIDTHS):
        layer = nn.Linear(n_in, n_out, bias=False)
        with torch.no_grad():
            layer.weight.normal_(0.0, GAIN / math.sqrt(n_in), generator=generator)
        layers += [layer, nn.Tanh()]
    found = to_analog(nn.Sequential(*layers[:-1]), device, io=io, seed=seed)
    assert isinstance(found, nn.Sequential)
    return found


def pipeline(model: nn.Module, stages: int, a: float, batch: int, schedule: Any) -> Pipeline:
    """The network in stages, trained with step a per sample."""
    return training.pipeline(model, stages, a * batch, schedule=schedule, micro_batch_size=batch)


def parts(data: DataSet, seed: int, epochs: int, per_epoch: int) -> Iterator[Tensor]:
    """Indices of the training images between two evaluations, a new order every epoch."""
    draw = np.random.default_rng(seed)
    for _ in range(epochs):
        order = torch.from_numpy(draw.permutation(len(data.x_train)))
        yield from torch.tensor_split(order, per_epoch)


def train(
    pipe: Pipeline,
    data: DataSet,
    seed: int,
    epochs: int,
    per_epoch: int,
    before: Callable[[], None] = lambda: None,
) -> Iterator[Point]:
    """Train, drain and evaluate ``per_epoch`` times an epoch; ``before``: called ahead of each."""
    samples = 0
    for part in parts(data, seed, epochs, per_epoch):
        before()
        pipe.step(data.x_train[part], data.y_train[part])
        pipe.drain()
        samples += len(part)
        right = training.accuracy(pipe, data.x_test, data.y_test)
        loss = nn.functional.cross_entropy(pipe.eval(data.x_train), data.y_train).item()
        yield Point(samples, pipe.cycles, right, loss)

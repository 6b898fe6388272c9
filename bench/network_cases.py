"""The networks that ``networks.py`` trains: data, sizes, and rates chosen on few samples."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import pulseline as pl


@dataclass(frozen=True)
class Case:
    """A network, its data, and rates that were chosen on few samples.

    Attributes:
        name: of the network. model, data: see `pulseline train`. sizes: of the network, by name.
        samples, test: of the data, the first ones. context: bytes of a sample of text.
        batch: samples per micro-batch. epochs: at most. lr: largest rate. every: micro-batches
            between two writes of mixed precision.
        bar: points below digital that are allowed; None: there is no bar, or the bigram line.
        warm: micro-batches over which the rate rises. stages: of the asynchronous pipeline.
        share: of the seconds that others take.
    """

    name: str
    model: str
    data: str
    samples: int
    test: int
    batch: int
    epochs: int
    lr: float
    bar: float | None = None
    every: int = 1
    context: int = 128
    sizes: tuple[tuple[str, int], ...] = ()
    warm: int = 0
    stages: int = 4
    share: float = 1.0

    def rule(self) -> pl.algorithms.Rule:
        """Of every crossbar."""
        return pl.algorithms.MixedPrecision(every=self.every)

    def rate(self, count: int) -> Callable[[int], float]:
        """Rates of micro-batches: up for ``warm`` of them, then linearly to 0 at ``count``."""
        return lambda k: self.lr * min(1.0, (k + 1) / (self.warm + 1)) * max(0.0, 1 - k / count)


def mlp() -> Case:
    """784-256-128-10 with tanh."""
    # three layers: at most three stages
    return Case("mlp", "mlp", "mnist", 60000, 10000, 8, 4, 0.1, 1.0, every=2, stages=3)


def lenet() -> Case:
    """LeNet-5."""
    return Case("lenet", "lenet", "mnist", 60000, 10000, 8, 2, 0.1, 1.0, every=2)


def resnet() -> Case:
    """Ten layers with batch statistics."""
    sizes = (("width", 8),)
    return Case("resnet", "resnet", "cifar10", 10000, 1000, 16, 6, 0.1, sizes=sizes)


def gpt() -> Case:
    """A GPT of bytes."""
    sizes = (("width", 128), ("layers", 6), ("heads", 4))
    case = Case("gpt", "gpt", "text", 15000, 500, 4, 4, 0.25, sizes=sizes)
    return replace(case, context=64, warm=50, share=2.7)


CASES = {make.__name__: make for make in (mlp, lenet, resnet, gpt)}

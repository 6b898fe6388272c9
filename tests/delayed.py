"""Training written out by hand: the delayed-gradient reference of the pipeline tests.

No queues, no autograd, no stages: an explicit history of weights per layer, versions chosen by
the formula, products written as they are (on tiles: the tile's own reads and updates, on copies
of its weights). One layer (linear without bias, then tanh) per stage; loss = mean squared error
over the micro-batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pulseline.devices import SoftBounds
from pulseline.digest import digest
from pulseline.nn import AnalogLinear
from pulseline.optim import AnalogSGD
from pulseline.pipeline import Stage

WIDTH = 16


class PlainSGD(torch.optim.Optimizer):
    """p <- p - lr g, in place and unseen by autograd, as Analog-SGD-AP needs it."""

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float) -> None:
        super().__init__(parameters, {"lr": lr})

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    p.data.sub_(p.grad, alpha=group["lr"])


class StashingSGD(PlainSGD):
    """The mutant: new storage for new weights, so autograd's graph keeps those of F."""

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                p.data = p.data.sub(p.grad, alpha=group["lr"])


class Digital:
    """nn.Linear and plain SGD."""

    def linear(self, m: int) -> nn.Module:
        """Layer m of the test network, always with the same initial weights."""
        layer = nn.Linear(WIDTH, WIDTH, bias=False)
        generator = torch.Generator().manual_seed(m)
        layer.weight.data.normal_(0.0, WIDTH**-0.5, generator=generator)
        return layer

    def optimizer(self, parameters: Iterable[nn.Parameter], lr: float) -> torch.optim.Optimizer:
        return PlainSGD(parameters, lr)

    def stashing_stage(self, module: nn.Module, lr: float, loss: Any) -> Stage:
        """A stage whose B uses the weights of its F."""
        return Stage(module, StashingSGD(module.parameters(), lr), loss)

    def weights(self, layer: Any) -> Tensor:
        """A copy of the weights, shape (out, in)."""
        return layer.weight.detach().clone()  # type: ignore[no-any-return]

    def read(self, layer: Any, w: Tensor, x: Tensor) -> Tensor:
        """w x of each row of x, shape (b, out)."""
        return nn.functional.linear(x, w)

    def read_transposed(self, layer: Any, w: Tensor, d: Tensor) -> Tensor:
        """w^T d of each row of d, shape (b, in)."""
        return d.mm(w)

    def moved(self, layer: Any, w: Tensor, x: Tensor, d: Tensor, lr: float) -> Tensor:
        """w - lr d^T x, a new tensor."""
        return w.clone().sub_(d.t().mm(x), alpha=lr)


class StashingStage(Stage):
    """The mutant on tiles: B reads a copy of the weights that F read."""

    def forward(self, k: int, x: Tensor, target: Tensor | None = None) -> Tensor:
        tile = self.module[0].cell.array  # type: ignore[index]
        self.copies = {**getattr(self, "copies", {}), k: tile.held.clone()}
        return super().forward(k, x, target)

    def backward(self, k: int, grad: Tensor | None = None) -> Tensor | None:
        tile = self.module[0].cell.array  # type: ignore[index]
        now = tile.held.clone()
        tile.held.copy_(self.copies.pop(k))
        try:
            return super().backward(k, grad)
        finally:
            tile.held.copy_(now)


class Analog:
    """AnalogLinear on SoftBounds crosspoints: converters, all noise and pulses on."""

    def linear(self, m: int) -> nn.Module:
        device = SoftBounds(w_max=1.0, w_min=-1.0, dw_min=0.002)
        return AnalogLinear(WIDTH, WIDTH, bias=False, device=device, seed=5, tile_id=m)

    def optimizer(self, parameters: Iterable[nn.Parameter], lr: float) -> torch.optim.Optimizer:
        return AnalogSGD(parameters, lr)

    def stashing_stage(self, module: nn.Module, lr: float, loss: Any) -> Stage:
        return StashingStage(module, AnalogSGD(module.parameters(), lr), loss)

    def weights(self, layer: Any) -> Tensor:
        return layer.cell.array.held.clone()  # type: ignore[no-any-return]

    def read(self, layer: Any, w: Tensor, x: Tensor) -> Tensor:
        layer.cell.array.held.copy_(w)
        return layer.cell.array.read(x)  # type: ignore[no-any-return]

    def read_transposed(self, layer: Any, w: Tensor, d: Tensor) -> Tensor:
        layer.cell.array.held.copy_(w)
        return layer.cell.array.read(d, True)  # type: ignore[no-any-return]

    def moved(self, layer: Any, w: Tensor, x: Tensor, d: Tensor, lr: float) -> Tensor:
        layer.cell.array.held.copy_(w)
        layer.cell.array.pulse(x, d, lr)
        return self.weights(layer)


def network(kind: Any, stages: int) -> nn.Sequential:
    """One linear layer and a tanh per stage."""
    layers: list[nn.Module] = []
    for m in range(stages):
        layers += [kind.linear(m), nn.Tanh()]
    return nn.Sequential(*layers)


def samples(count: int, size: int) -> tuple[Tensor, Tensor]:
    """``count`` micro-batches of ``size`` inputs and targets, shape (count * size, WIDTH)."""
    generator = torch.Generator().manual_seed(99)
    x, y = torch.randn(2, count * size, WIDTH, generator=generator)
    return x, y.tanh()


def weights_digest(kind: Any, model: nn.Sequential) -> str:
    """sha256 of all weights."""
    return digest({str(m): kind.weights(model[m]) for m in range(0, len(model), 2)})


def delayed_gradients(
    kind: Any,
    stages: int,
    x: Tensor,
    y: Tensor,
    size: int,
    lr: float | Callable[[int, int], float],
    stale: Callable[[int], int],
    flush_every: int | None = None,
) -> str:
    """Digest after training with F on version max(last flush, k - stale(m)) and B on version k.

    ``stale(m)`` for stage m = 1..stages; ``lr`` may be a function of stage and micro-batch.
    """
    layers = [kind.linear(m) for m in range(stages)]
    history = [[kind.weights(layer)] for layer in layers]
    xs, ys = x.split(size), y.split(size)
    every = flush_every or len(xs)
    for start in range(0, len(xs), every):
        end = min(start + every, len(xs))
        outputs: dict[tuple[int, int], Tensor] = {}
        done = [start] * stages
        for k in range(start, end):
            for m in range(stages):
                while done[m] <= min(k + stale(m + 1), end - 1):
                    j = done[m]
                    w = history[m][max(start, j - stale(m + 1))]
                    x_in = outputs[j, m - 1] if m else xs[j]
                    outputs[j, m] = kind.read(layers[m], w, x_in).tanh()
                    done[m] += 1
            out = outputs[k, stages - 1]
            one = torch.ones(())
            error = torch.ops.aten.mse_loss_backward(one, out, ys[k], 1)
            for m in reversed(range(stages)):
                w = history[m][k]
                d = torch.ops.aten.tanh_backward(error, outputs[k, m])
                if m:
                    error = kind.read_transposed(layers[m], w, d)
                x_in = outputs[k, m - 1] if m else xs[k]
                rate = lr(m + 1, k) if callable(lr) else lr
                history[m].append(kind.moved(layers[m], w, x_in, d, rate))
    return digest({str(2 * m): history[m][-1] for m in range(stages)})


def plain_training(
    kind: Any, stages: int, x: Tensor, y: Tensor, size: int, lr: float, per_update: int = 1
) -> str:
    """Digest after ordinary training: autograd, one update per ``per_update`` micro-batches."""
    model = network(kind, stages)
    optimizer = kind.optimizer(model.parameters(), lr)
    pairs: Sequence[tuple[Tensor, Tensor]] = list(zip(x.split(size), y.split(size), strict=True))
    for i, (inputs, targets) in enumerate(pairs, start=1):
        nn.functional.mse_loss(model(inputs), targets).backward()  # type: ignore[no-untyped-call]
        if i % per_update == 0 or i == len(pairs):
            optimizer.step()
            optimizer.zero_grad()
    return weights_digest(kind, model)

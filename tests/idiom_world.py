"""Where idioms of torch are tried: the same code on an analog model and on its digital twin.

An idiom is a function of a :class:`World`; it is run on a bare layer, on a converted model and on a
model whose layers are stages of a pipeline, each analog and digital.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

import pulseline as pl
from pulseline.nn.base import AnalogLayer

HOSTS = ("bare", "converted", "staged", "convolution")
LR = 0.1
ORACLE = pl.Crossbar(pl.devices.Ideal(), io=pl.configs.IOConfig.perfect())
SCALED = pl.Crossbar(
    pl.devices.Ideal(), io=pl.configs.IOConfig.perfect(), mapping=pl.configs.Mapping(omega=0.3)
)
NOISY = pl.Crossbar(pl.devices.SoftBounds(w_max=0.6, w_min=-0.6, dw_min=0.001))


def numbers(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).clamp(-2, 2)


class Pairs(nn.Module):
    """Rows of 8 as images of 2 channels."""

    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(-1, 2, 4)


def digital(host: str) -> nn.Module:
    """The model of a host, the same one every time."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if host == "bare":
            return nn.Linear(8, 3)
        if host == "convolution":
            back = nn.ConvTranspose1d(2, 1, 2, padding=1, output_padding=0, dilation=2)
            front = nn.Conv1d(2, 2, 2)
            return nn.Sequential(Pairs(), front, nn.Tanh(), back, nn.Flatten())
        return nn.Sequential(nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 3))


def analog(host: str, crossbar: pl.Crossbar) -> nn.Module:
    model = digital(host)
    if host != "bare":
        return pl.to_analog(model, crossbar, seed=0)
    layer = pl.nn.AnalogLinear(8, 3, crossbar=crossbar, seed=0)
    layer.cell.program(model.weight.detach())
    layer.bias.data.copy_(model.bias.detach())
    return layer


class World:
    """A model, its optimizers and how it is trained.

    Args:
        host: one of HOSTS.
        crossbar: None: the digital twin.
    """

    def __init__(self, host: str, crossbar: pl.Crossbar | None) -> None:
        self.host, self.crossbar = host, crossbar
        self.x, self.y = numbers(6, 8, seed=1), numbers(6, 3, seed=2)
        self.adopt(self.fresh())

    def fresh(self) -> nn.Module:
        """The model as it was at the beginning."""
        return digital(self.host) if self.crossbar is None else analog(self.host, self.crossbar)

    def adopt(self, net: nn.Module) -> None:
        """Train another model from now on."""
        self.net = net
        self.pipe: Any = None
        if self.host == "staged":
            made: list[Any] = []

            def optimizer(parameters: Iterable[Any]) -> Any:
                made.append(self.sgd(parameters))
                return made[-1]

            self.pipe = pl.Pipeline(
                net,
                2,
                "sequential",
                micro_batch_size=len(self.x),
                optimizer=optimizer,
                loss=mse_loss,
            )
            self.optimizers = made
        else:
            self.optimizers = [self.sgd(net.parameters())]

    def sgd(self, parameters: Iterable[Any], lr: float = LR) -> Any:
        kind = torch.optim.SGD if self.crossbar is None else pl.optim.AnalogSGD
        return kind(parameters, lr=lr)

    @property
    def layers(self) -> list[Any]:
        kinds = (nn.Linear, nn.Conv1d, nn.ConvTranspose1d, AnalogLayer)
        return [m for m in self.net.modules() if isinstance(m, kinds)]

    @property
    def layer(self) -> Any:
        return self.layers[0]

    @property
    def weights(self) -> list[Any]:
        return [layer.weight for layer in self.layers]

    @property
    def parameters(self) -> list[Any]:
        """Weights, then biases: in one order whatever layers they are of."""
        return sorted(self.net.parameters(), key=lambda p: -p.dim())

    def loss(self) -> Tensor:
        return mse_loss(self.net(self.x), self.y)

    def step(self) -> None:
        for optimizer in self.optimizers:
            optimizer.step()

    def zero_grad(self) -> None:
        for optimizer in self.optimizers:
            optimizer.zero_grad()

    def train(self, steps: int = 2, between: Callable[[list[Any]], object] | None = None) -> None:
        """Steps of training; ``between`` backward and update it gets an optimizer's parameters."""

        def call(optimizer: Any, *_: object) -> None:
            if between is not None:
                held = [p for group in optimizer.param_groups for p in group["params"]]
                between(sorted(held, key=lambda p: -p.dim()))

        handles = [one.register_step_pre_hook(call) for one in self.optimizers]
        for _ in range(steps):
            if self.pipe is not None:
                self.pipe.step(self.x, self.y)
                self.pipe.drain()
            else:
                self.zero_grad()
                self.loss().backward()
                self.step()
        for handle in handles:
            handle.remove()

    def left(self) -> list[Tensor]:
        """Weights and biases in the units of the layers, and a read in evaluation."""
        found = []
        for layer in self.layers:
            held = layer.weight if self.crossbar is None else in_units(layer)
            found += [held.detach().clone(), layer.bias.detach().clone()]
        self.net.eval()
        with torch.no_grad():
            found.append(self.net(self.x))
        self.net.train()
        return found


def in_units(layer: Any) -> Tensor:
    """Weights in the units of the layer, as torch sees them."""
    array = layer.cell.array
    return array.seen(array.effective_weight())


Idiom = Callable[[World], Any]


@dataclass(frozen=True)
class Row:
    """An idiom and what is expected of it.

    Attributes:
        run: the idiom; what it returns is compared too.
        own: on noisy devices, the package's own road to the same bits; None: there is none to
            compare with, the weights stay within their bounds.
        refused: it is answered by one ConfigError.
        atol: of the oracle, if it is not that of the test.
        hosts: on which it makes sense.
    """

    name: str
    run: Idiom
    own: Idiom | None
    refused: bool
    atol: float | None
    hosts: tuple[str, ...]


ROWS: dict[str, Row] = {}


def plain(w: World) -> None:
    """The package's own road of most idioms: two steps."""
    w.train(2)


def row(
    own: Idiom | None = None,
    *,
    refused: bool = False,
    atol: float | None = None,
    hosts: tuple[str, ...] = HOSTS,
) -> Callable[[Idiom], Idiom]:
    """Enter an idiom into the table."""

    def enter(run: Idiom) -> Idiom:
        name = run.__name__  # type: ignore[attr-defined]
        assert name not in ROWS, name
        ROWS[name] = Row(name, run, own, refused, atol, hosts)
        return run

    return enter


def refused(run: Idiom) -> Idiom:
    """Enter an idiom that is answered by a sentence."""
    return row(refused=True)(run)

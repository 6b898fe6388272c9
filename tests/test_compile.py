"""torch.compile of analog models: no graph break, the bits of eager runs, torch's meaning.

With the backend "aot_eager" digital operations are torch's own, so that all bits are equal;
inductor makes others of its own, which are compared where they are exact: maxima, one sum.
"""

from __future__ import annotations

import copy
import gc
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, scaled_dot_product_attention

import pulseline as pl
from pulseline.cells import cell_of
from pulseline.errors import ConfigError
from twin_modules import ORACLE, numbers

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # in torch itself
NOISY = pl.Crossbar("soft_bounds")


class Block(nn.Module):
    """A block of a GPT: causal attention and two layers, pre-norm."""

    def __init__(self, width: int = 16, heads: int = 2) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        parts = self.qkv(self.norm1(x)).chunk(3, -1)
        q, k, v = (t.view(batch, length, self.heads, -1).transpose(1, 2) for t in parts)
        y = scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(y.transpose(1, 2).reshape(batch, length, width))
        return x + self.down(gelu(self.up(self.norm2(x))))


def mlp() -> nn.Module:
    return nn.Sequential(
        nn.Linear(7, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 3)
    )


class Recurrent(nn.Module):
    """A sequence to one answer."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(5, 6, bidirectional=True), nn.Linear(12, 2)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(self.lstm(x)[0][-1])
        return y


MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "mlp": (mlp, (6, 7)),
    "block": (Block, (2, 5, 16)),
    "recurrent": (Recurrent, (4, 3, 5)),
    "encoder": (lambda: nn.TransformerEncoderLayer(16, 2, 24, 0.0, batch_first=True), (2, 5, 16)),
}


def made(make: Callable[[], nn.Module], crossbar: pl.Crossbar = NOISY) -> nn.Module:
    torch.compiler.reset()
    torch.manual_seed(0)
    return pl.to_analog(make(), crossbar, seed=0)


def train(model: nn.Module, call: Any, x: Tensor, steps: int = 3) -> str:
    optimizer = pl.optim.AnalogSGD(model.parameters(), lr=0.1)
    for _ in range(steps):
        optimizer.zero_grad()
        call(x).square().mean().backward()
        optimizer.step()
    return pl.digest(model.state_dict())


@pytest.mark.parametrize(("make", "shape"), MODELS.values(), ids=MODELS.keys())
def test_no_graph_break_and_the_bits_of_an_eager_run(
    make: Callable[[], nn.Module], shape: tuple[int, ...]
) -> None:
    x = numbers(*shape)
    eager, model = made(make), made(make)
    assert torch._dynamo.explain(model)(x).graph_break_count == 0
    torch.compiler.reset()
    model = made(make)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    assert train(model, compiled, x) == train(eager, eager, x)
    for grad in (True, False):
        with torch.set_grad_enabled(grad):
            assert torch.equal(compiled.eval()(x), eager.eval()(x))


def test_inductor() -> None:
    """Sums and maxima that it computes are exact; the products are ours."""

    def bare() -> nn.Module:  # a bias has a gradient, which inductor sums in its own order
        return nn.Sequential(nn.Linear(7, 16, False), nn.ReLU(), nn.Linear(16, 3, False))

    x = numbers(6, 7)
    eager, model = made(bare), made(bare)
    compiled = torch.compile(model, fullgraph=True)
    assert torch.equal(compiled(x), eager(x))
    assert train(model, compiled, x) == train(eager, eager, x)


def test_what_backward_passes_leave() -> None:
    """Pairs pile up as gradients do; other gradients and frozen layers leave none."""
    x = numbers(6, 7)
    model = made(mlp, ORACLE)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    layers = [m for m in model if isinstance(m, pl.nn.AnalogLinear)]
    leaf = x.clone().requires_grad_()
    (g,) = torch.autograd.grad(compiled(leaf).sum(), leaf)
    assert g.shape == x.shape
    assert [len(m.cell.pending) for m in layers] == [0, 0, 0]
    for _ in range(2):
        compiled(x).sum().backward()
    assert [len(m.cell.pending) for m in layers] == [2, 2, 2]
    assert all(m.weight.grad is not None for m in layers)
    model.zero_grad()
    layers[1].requires_grad_(False)
    compiled(x).sum().backward()
    assert [len(m.cell.pending) for m in layers] == [1, 0, 1]
    with torch.no_grad():
        assert not compiled(x).requires_grad


def test_equal_reads_are_not_one() -> None:
    """Noise and counters: two calls with one input are two reads."""
    layer = pl.nn.AnalogLinear(7, 3, seed=0)
    torch.compiler.reset()
    compiled = torch.compile(lambda x: (layer(x), layer(x)), fullgraph=True)
    first, second = compiled(numbers(4, 7))
    assert (first != second).any()
    assert layer.cell.counts()[0].forward == 8
    compiled(numbers(4, 7))[0].sum().backward()
    assert layer.cell.counts()[0].forward == 16


def test_equal_layers_share_a_graph_and_copies_are_themselves() -> None:
    torch.compiler.reset()
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    layers = [pl.nn.AnalogLinear(7, 3, seed=n) for n in range(12)]
    layers += [copy.deepcopy(layers[0])]
    x = numbers(4, 7)
    call = torch.compile(lambda layer, x: layer(x), backend=counter, fullgraph=True)
    for layer in layers:
        twin = copy.deepcopy(layer)
        assert torch.equal(call(layer, x), twin(x))
        assert layer.cell.counts()[0].forward == 4
    assert counter.frame_count == 1
    number = layers[0].cell.number
    assert cell_of(number) is layers[0].cell
    del layer, layers
    torch.compiler.reset()
    gc.collect()
    with pytest.raises(ConfigError, match="a compiled graph reads an analog layer that is gone"):
        cell_of(number)


def test_settings_and_states_are_of_the_cell_not_of_the_graph() -> None:
    x = numbers(6, 7)
    eager, model = made(mlp), made(mlp)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    compiled(x)
    io = pl.configs.IOConfig(pl.configs.ReadConfig(out_noise=0.5))
    state = mlp().state_dict()
    for one in (eager, model):
        pl.nn.reconfigure(one, io=io)
        one.load_state_dict(state)
    assert torch.equal(compiled.eval()(x), eager.eval()(x))


def test_bad_input_is_the_same_sentence() -> None:
    model = made(mlp)
    compiled = torch.compile(model, backend="aot_eager")
    compiled(numbers(6, 7))
    with pytest.raises(ConfigError, match=r"x\[1\] holds a NaN"):
        compiled(torch.full((3, 7), float("nan")).index_fill(0, torch.tensor([0]), 0.0))


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # torch looks, at a break
def test_a_hook_on_the_weight_still_sees_pairs() -> None:
    model = made(mlp, ORACLE)
    seen: list[Tensor] = []
    model[0].weight.register_hook(lambda g: seen.append(g + 0))
    torch.compile(model, backend="aot_eager")(numbers(6, 7)).sum().backward()
    assert len(seen) == 1

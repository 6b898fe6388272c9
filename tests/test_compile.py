"""torch.compile of analog models: no graph break, the bits of eager runs, torch's meaning.

With the backend "aot_eager" digital operations are torch's own, so that all bits are equal;
inductor makes others of its own, which are compared where they are exact: maxima, one sum.
"""

from __future__ import annotations

import copy
import gc
import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch._dynamo.testing
from torch import Tensor, nn
from torch.nn.functional import gelu, scaled_dot_product_attention

import pulseline as pl
from pulseline.cells import cell_of
from pulseline.errors import ConfigError
from pulseline.nn.windows import PADDINGS, Windows
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


def conv() -> nn.Module:
    """Strides, padding, groups, a pool, and a linear layer."""
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(4, 4, 3, padding=1, groups=2, padding_mode="reflect", bias=False),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(16, 3),
    )


def kinds() -> nn.Module:
    """One, two and three dimensions, transposed ones among them."""
    return nn.Sequential(
        nn.Conv1d(4, 4, 3, padding="same", dilation=2, padding_mode="circular"),
        nn.ConvTranspose1d(4, 3, 3, stride=2, padding=1, output_padding=1),
        nn.Unflatten(1, (1, 3)),
        nn.ConvTranspose2d(1, 2, 2, stride=(1, 2), groups=1),
        nn.Unflatten(1, (1, 2)),
        nn.Conv3d(1, 2, 2, padding_mode="replicate", padding=(1, 0, 1)),
        nn.ConvTranspose3d(2, 1, (1, 2, 1), bias=False),
    )


MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "mlp": (mlp, (6, 7)),
    "block": (Block, (2, 5, 16)),
    "recurrent": (Recurrent, (4, 3, 5)),
    "conv": (conv, (3, 2, 8, 8)),
    "kinds": (kinds, (2, 4, 5)),
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


def bare() -> nn.Module:
    """Without a bias, whose gradient inductor sums in its own order."""
    return nn.Sequential(nn.Linear(7, 16, False), nn.ReLU(), nn.Linear(16, 3, False))


def images() -> nn.Module:
    two = nn.Conv2d(2, 4, 3, bias=False), nn.Conv2d(4, 1, 2, stride=2, bias=False)
    return nn.Sequential(two[0], nn.ReLU(), two[1])


@pytest.mark.parametrize(("bare", "shape"), [(bare, (6, 7)), (images, (3, 2, 8, 8))])
def test_inductor(bare: Callable[[], nn.Module], shape: tuple[int, ...]) -> None:
    """Sums and maxima that it computes are exact; the products are ours."""
    x = numbers(*shape)
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


def test_sizes_of_a_transposed_convolution() -> None:
    """Each gets a graph of its own, and what an eager call gives."""
    torch.compiler.reset()
    layers = [pl.nn.AnalogConvTranspose2d(2, 3, 3, stride=2, seed=0) for _ in range(2)]
    call = torch.compile(layers[1], backend="aot_eager", fullgraph=True)
    x = numbers(2, 2, 4, 4)
    for size in ([9, 9], [10, 9], [9, 10]):
        assert torch.equal(call(x, size), layers[0](x, size))
    with pytest.raises(ConfigError, match=r"output_size is \(12, 9\); use sizes from"):
        torch.compile(layers[1], backend="aot_eager")(x, [12, 9])


def test_batches_and_images_of_any_size() -> None:
    """Dynamic shapes: one graph for the rest, of the batch; sizes of images are its own."""
    torch.compiler.reset()
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    eager, layer = (pl.nn.AnalogConv2d(2, 3, 3, seed=0) for _ in range(2))
    call = torch.compile(layer, backend=counter, fullgraph=True)
    for samples in (2, 3, 4, 5):
        x = numbers(samples, 2, 6, 6)
        assert torch.equal(call(x), eager(x))
    assert counter.frame_count == 2
    x = numbers(2, 2, 5, 7)
    assert torch.equal(call(x), eager(x))
    assert call(x[0]).shape == (3, 3, 5)


def test_convolutions_share_a_graph_where_their_windows_are_equal() -> None:
    """Outputs of these paddings have one shape."""
    torch.compiler.reset()
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    x = numbers(2, 2, 6)
    call = torch.compile(lambda layer, x: layer(x), backend=counter, fullgraph=True)
    for graphs, mode in enumerate(("zeros", "circular", "replicate"), 1):
        for seed in range(2):
            layer = pl.nn.AnalogConv1d(2, 3, 3, padding=1, padding_mode=mode, seed=seed)
            twin = copy.deepcopy(layer)
            assert torch.equal(call(layer, x), twin(x))
        assert counter.frame_count == graphs


def test_the_least_image_of_windows_is_the_least_that_is_taken() -> None:
    """Graphs compare with it; all options of one dimension that matter, on every size."""
    for mode, transposed in (*((m, False) for m in PADDINGS), ("zeros", True)):
        for kernel, stride, pad, dilation, extra in itertools.product(
            (1, 3), (1, 2), (0, 1, 3), (1, 2), (0, 1)
        ):
            padding = ((pad, min(pad, 2)),)
            more = (mode, transposed, (extra,))
            one = Windows(1, 1, (kernel,), (stride,), (dilation,), padding, *more)
            taken = []
            for size in range(8):
                try:
                    one.shape((size,))
                    taken.append(size)
                except ConfigError:
                    pass
            assert taken == list(range(one.least[0], 8)), one
            assert Windows.of(one.text) == one


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ((2, 3, 6, 6), r"x has shape \(2, 3, 6, 6\); use \(samples, 2, height, width\)"),
        ((2, 2, 2, 6), "leaves no output position under a kernel of 3"),
    ],
)
def test_images_that_do_not_fit_are_the_same_sentence(shape: tuple[int, ...], words: str) -> None:
    torch.compiler.reset()
    layer = pl.nn.AnalogConv2d(2, 3, 3, seed=0)
    with pytest.raises(ConfigError, match=words):
        torch.compile(layer, backend="aot_eager")(numbers(*shape))
    assert layer.cell.counts()[0].forward == 0


def test_bad_input_is_the_same_sentence() -> None:
    model = made(mlp)
    compiled = torch.compile(model, backend="aot_eager")
    compiled(numbers(6, 7))
    with pytest.raises(ConfigError, match=r"x\[1\] holds a NaN"):
        compiled(torch.full((3, 7), float("nan")).index_fill(0, torch.tensor([0]), 0.0))


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # torch looks, at a break
@pytest.mark.parametrize(("make", "shape"), [(mlp, (6, 7)), (conv, (3, 2, 8, 8))])
def test_a_hook_on_the_weight_still_sees_pairs(
    make: Callable[[], nn.Module], shape: tuple[int, ...]
) -> None:
    model = made(make, ORACLE)
    seen: list[Tensor] = []
    model[0].weight.register_hook(lambda g: seen.append(g + 0))
    torch.compile(model, backend="aot_eager")(numbers(*shape)).sum().backward()
    assert len(seen) == 1


def test_a_read_that_nobody_uses_counts() -> None:
    torch.compiler.reset()
    layer = pl.nn.AnalogLinear(7, 3, seed=0)

    def unused(x: Tensor) -> Tensor:
        layer(x)
        return x + 1

    torch.compile(unused, backend="aot_eager", fullgraph=True)(numbers(4, 7))
    assert layer.cell.counts()[0].forward == 4


def test_second_derivatives_are_refused() -> None:
    """By torch behind AOT; a graph that is run as it is has none either, rather than zeros."""
    model, x = made(bare, ORACLE), numbers(6, 7).requires_grad_()
    for backend in ("aot_eager", "eager"):
        y = torch.compile(model, backend=backend)(x).square().sum()
        with pytest.raises((ConfigError, RuntimeError), match=r"twice|double backward"):
            torch.autograd.grad(y, x, create_graph=True)[0].sum().backward()

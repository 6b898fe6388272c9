"""Fused reads of CUDA tensors, without a GPU: the kernel runs in the emulator, whose tensor cores
ignore what hardware ignores and cut off as much as hardware ever does.

Exact: weights and inputs on coarse grids make sums exact in every order, and then every option
gives the bits of the CPU backend. Otherwise, u = 2^-24, S = sum |w q| over the n inputs of a tile:
fused sums are within (48 + ceil(n / 16)) u S (derived in csrc/cuda/read_fused.h), the CPU's chain
of fma within n u S. Adding s segments up costs another s u S. So without an ADC two reads differ by
at most (48 + n + n / 16 + 2 s + 2) u S; with one, only where a sum lies that close to the middle
between two steps, and by one step.
"""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

import pulseline as pl
from conftest import ISAS, Kernels
from emulated import Emulated
from pulseline import ops
from pulseline.configs import Mapping, ReadConfig
from pulseline.errors import ConfigError
from pulseline.ops.cuda import module
from pulseline.ops.cuda import read as cuda_read
from pulseline.reference import rng
from test_converters import K, Problem, bits, problem
from test_cuda_read import in_order

FMA = [name for name in ISAS if name != "baseline"]
U = 2.0**-24
OPEN = ReadConfig(out_res=0, out_bound=0, out_noise=0.0, bound_management="none")
DIGITAL = "pos_neg_separate_digital_sum"
# A DAC of steps of 1/64 and gains of eighths: what lines carry is on a grid of 2^-9.
GRID: dict[str, Any] = {"inp_res": 1 / 128, "inp_bound": 1.0}
TWO: dict[str, Any] = {"inp_asymmetry": 0.125, "out_asymmetry": -0.25}
EXACT = {
    "plain": ReadConfig(**GRID),
    "no noise": ReadConfig(**GRID, out_noise=0.0),
    "open": dataclasses.replace(OPEN, **GRID),
    "constant": ReadConfig(**GRID, noise_management="constant", nm_thres=1.7),
    "average": ReadConfig(**GRID, noise_management="average_abs_max", nm_decay=0.2),
    "weight noise": ReadConfig(**GRID, w_noise=0.02, bound_management="none"),
    "saturated": ReadConfig(**GRID, w_noise=0.02, out_bound=1.5),
    "always saturated": ReadConfig(**GRID, out_bound=0.01, max_rounds=3),
    "stochastic": ReadConfig(**GRID, inp_sto_round=True, out_sto_round=True, w_noise=0.02),
    "analog sum": ReadConfig(**GRID, **TWO, mv_type="pos_neg_separate", w_noise=0.02),
    "digital sum": ReadConfig(**GRID, **TWO, mv_type=DIGITAL, out_bound=1.0),
    "lines": ReadConfig(**GRID, out_noise_std=0.3, out_nonlinearity=0.4, out_nonlinearity_std=0.2),
    "everything": ReadConfig(
        **GRID,
        **TWO,
        out_bound=2.0,
        w_noise=0.05,
        noise_management="average_abs_max",
        nm_decay=0.3,
        nm_thres=2.0,
        inp_sto_round=True,
        out_sto_round=True,
        mv_type=DIGITAL,
        out_noise_std=0.3,
        out_nonlinearity=0.2,
        out_nonlinearity_std=0.2,
    ),
}


@pytest.fixture(autouse=True)
def _with_fma(kernels: Kernels) -> None:
    if not FMA:
        pytest.skip("this machine sums without fma")
    kernels.use(FMA[-1])


@pytest.fixture
def backend(emulated: Emulated, monkeypatch: pytest.MonkeyPatch) -> Emulated:
    """Fused reads on the emulator; torch's product must not be asked; new memory holds NaN."""

    def refused(*_: Any) -> Tensor:
        raise AssertionError("torch multiplied")

    monkeypatch.setattr(module, "kernels", lambda: emulated.module)
    monkeypatch.setattr(torch, "mm", refused)
    new_empty = Tensor.new_empty

    def poisoned(t: Tensor, *size: Any, **options: Any) -> Tensor:
        return new_empty(t, *size, **options).fill_(float("nan"))

    monkeypatch.setattr(Tensor, "new_empty", poisoned)
    return emulated


def fused(p: Problem, *sizes: int, products: str = "fused") -> Tensor:
    """What CUDA tensors would give, the batch cut into ``sizes``."""
    p = p._replace(mapping=dataclasses.replace(p.mapping, cuda_products=products))
    average, pieces = torch.tensor([p.average]), []
    starts = itertools.accumulate((0, *sizes))
    for x, first in zip(p.x.split(list(sizes) or [len(p.x)]), starts, strict=False):
        pieces.append(cuda_read.read(*p.arguments(x, average, K + first)))
    return torch.cat(pieces)


def with_product(p: Problem, product: Any) -> Tensor:
    """The same with another product in place of torch's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "mm", product)
        return fused(p, products="torch")


def in_double(q: Tensor, w: Tensor) -> Tensor:
    return (q.double() @ w.double()).float()


def magnitude(p: Problem) -> Tensor:
    """sum |w q| of every output, in its units: what the read would give of absolute values."""
    return with_product(p, lambda q, w: in_double(q.abs(), w.abs())).abs()


def on_grid(p: Problem) -> Problem:
    """Weights on a grid of 2^-7 below 1: products on 2^-16, sums of 100 exact in 24 bits."""
    weight = (p.weight * 128).round().clamp(-127, 127) / 128
    return p._replace(weight=weight)


def same(p: Problem) -> None:
    p = on_grid(p)
    wrong = int((bits(fused(p)) != bits(p.kernel())).sum())
    assert wrong == 0, f"{wrong} outputs of {len(p.x)} samples differ"


def close(p: Problem) -> None:
    """To the CPU, and to sums in double."""
    assert p.config.out_res == p.config.out_bound == p.config.out_noise == 0
    ins = p.weight.shape[0 if p.transposed else 1]
    tile = p.mapping.tile_out if p.transposed else p.mapping.tile_in
    n, segments = min(ins, tile), -(-ins // tile)
    got, size = fused(p), magnitude(p)
    ours, chain = 48 + -(-n // 16) + segments + 2, n + segments
    exact = with_product(p, in_double)
    assert ((got - exact).abs() <= (ours + segments + 1) * U * size).all()
    assert ((got - p.kernel()).abs() <= (ours + chain) * U * size).all()


# ---- exact sums: equal bits ----


@pytest.mark.parametrize("config", EXACT.values(), ids=EXACT.keys())
@pytest.mark.parametrize("transposed", [False, True])
def test_equal_bits(backend: Emulated, config: ReadConfig, transposed: bool) -> None:
    """Ragged tiles of 20 outputs and 32 inputs; copies of 16 bytes where both sizes allow them."""
    for rows, cols in ((33, 50), (72, 80)):
        for mapping in (Mapping(tile_in=32, tile_out=20), Mapping(tile_in=25, tile_out=7)):
            same(problem(rows, cols, 40, config, transposed=transposed, mapping=mapping))


SIZES = [1, 2, 3, 4, 7, 8, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", ["saturated", "everything", "plain"])
def test_sizes(backend: Emulated, name: str, size: int) -> None:
    for transposed in (False, True):
        for rows, cols, batch in ((size, 7, 3), (7, min(size, 100), 3), (8, 12, size)):
            same(problem(rows, cols, batch, EXACT[name], transposed=transposed and rows < 100))


@pytest.mark.parametrize("size", SIZES)
def test_lengths_of_a_segment(backend: Emulated, size: int) -> None:
    """Steps of 16 inputs end where the segment does, whatever lies behind."""
    for transposed in (False, True):
        tiles = (64, size) if transposed else (size, 64)
        shape = (100, 36) if transposed else (36, 100)
        same(problem(*shape, 9, EXACT["plain"], transposed=transposed, mapping=Mapping(*tiles)))


def test_empty(backend: Emulated) -> None:
    for rows, cols, batch in ((0, 7, 3), (7, 0, 3), (7, 9, 0)):
        p = problem(rows, cols, batch, EXACT["plain"])
        assert torch.equal(fused(p), p.kernel())


@pytest.mark.parametrize("purpose", [rng.BACKWARD, rng.EVALUATION])
def test_purposes_draw_for_themselves(backend: Emulated, purpose: int) -> None:
    same(problem(18, 40, 5, EXACT["everything"], purpose=purpose, average=0.9))


@pytest.mark.parametrize("offset", [1, 2, 4])
@pytest.mark.parametrize("transposed", [False, True])
def test_weights_anywhere_in_memory(backend: Emulated, transposed: bool, offset: int) -> None:
    p = on_grid(problem(24, 48, 9, EXACT["plain"], transposed=transposed))
    memory = torch.zeros(24 * 48 + offset)
    memory[offset:] = p.weight.flatten()
    moved = p._replace(weight=memory[offset:].view(24, 48))
    assert torch.equal(bits(fused(moved)), bits(p.kernel()))


def test_saturated_samples_alone_are_repeated(backend: Emulated) -> None:
    """Bound management touches what saturates, which is some samples here."""
    p = on_grid(problem(40, 60, 50, ReadConfig(**GRID, out_bound=2.0, out_noise=0.0)))
    once = dataclasses.replace(p.config, bound_management="none")
    free, clipped = fused(p), p._replace(config=once).kernel()
    differ = (free != clipped).any(1)
    assert 0 < int(differ.sum()) < 50
    assert torch.equal(bits(free), bits(p.kernel()))


# ---- sums that round ----

LONG = [1, 7, 16, 100, 333, 1025]


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("size", LONG)
def test_sums_are_as_good_as_float32(backend: Emulated, size: int, transposed: bool) -> None:
    """Without any converter; a long segment, and several."""
    shape = (size, 65) if transposed else (65, size)
    for tile in (100, 2048):
        mapping = Mapping(tile, tile)
        perfect = ReadConfig.perfect()
        close(problem(*shape, 33, perfect, transposed=transposed, mapping=mapping))


def test_one_part_of_a_factor_is_not_enough(backend: Emulated) -> None:
    """The limit of `close` would not let pass what plain tf32 or one low part gives."""
    p = problem(65, 20, 33, ReadConfig.perfect())
    exact, size = with_product(p, in_double), magnitude(p).clamp_min(1e-30)

    def cut(x: Tensor) -> Tensor:
        return ((x.view(torch.int32) + 0x1000) & ~0x1FFF).view(torch.float32)

    products = (
        lambda q, w: in_double(cut(q), cut(w)),
        lambda q, w: in_double(cut(q), w),
        lambda q, w: in_double(q, cut(w)),
    )
    for product in products:
        wrong = (with_product(p, product) - exact).abs() / (U * size)
        assert wrong.max() > 2 * (48 + 2 + 5)


def test_the_bound_is_not_idle(backend: Emulated) -> None:
    """Terms of one sign are cut off, never rounded up: the error shows, at a part of the bound."""
    p = problem(33, 512, 20, ReadConfig.perfect())
    p = p._replace(weight=p.weight.abs(), x=p.x.abs())
    error = (fused(p) - with_product(p, in_double)) / (U * magnitude(p)).clamp_min(1e-30)
    assert -80 < float(error.min()) < -4


@pytest.mark.parametrize(
    "options",
    [
        {"inp_noise": 0.02},  # every row of tiles has inputs of its own
        {"mv_type": DIGITAL, "inp_asymmetry": 0.1, "out_asymmetry": 0.2},
        {"ir_drop": "approx", "wire_resistance": 1e-4},
        {"inp_sto_round": True, "mv_type": "pos_neg_separate"},
    ],
)
@pytest.mark.parametrize("transposed", [False, True])
def test_options_whose_sums_round(
    backend: Emulated, options: dict[str, Any], transposed: bool
) -> None:
    config = dataclasses.replace(OPEN, **options)
    close(problem(70, 90, 33, config, transposed=transposed, mapping=Mapping(40, 36)))


@pytest.mark.parametrize("transposed", [False, True])
def test_converted_outputs(backend: Emulated, transposed: bool) -> None:
    """Steps of the ADC differ only where the sum lies in the middle of two, to within the bound."""
    config = ReadConfig(out_noise=0.0, bound_management="none", out_bound=2.0, out_res=2.0**-11)
    p = problem(65, 90, 129, config, transposed=transposed)
    plain = dataclasses.replace(config, out_res=0, out_bound=0)
    free = p._replace(config=plain)
    scale = p.x.abs().amax(1, keepdim=True) * 1.7  # of an output in the ADC's units
    scale = torch.where(scale > 0, scale, 1.0)
    step = 2 * config.out_bound * config.out_res
    sums, size = (t.double() / scale / step for t in (free.kernel(), magnitude(free)))
    middle = (sums.floor() + 0.5 - sums).abs()
    unsure = middle <= (48 + 6 + 2 * 90 + 8) * U * size
    differ = bits(fused(p)) != bits(p.kernel())
    assert not (differ & ~unsure).any()
    assert unsure.double().mean() < 0.1
    assert ((fused(p) - p.kernel()).abs() <= 1.01 * step * scale).all()


@pytest.mark.parametrize("name", ["saturated", "everything", "plain"])
def test_batch_cuts_do_not_show(backend: Emulated, name: str) -> None:
    """Sums that round have the same bits alone and in any company."""
    p = problem(33, 150, 140, EXACT[name], mapping=Mapping(tile_in=70, tile_out=20))
    whole = fused(p)
    for sizes in ((1, 139), (64, 13, 63), (129, 11)):
        assert torch.equal(bits(fused(p, *sizes)), bits(whole))


# ---- which reads ----


def test_which_reads_take_it(emulated: Emulated, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def counted(q: Tensor, w: Tensor) -> Tensor:
        calls.append(len(q))
        return in_order(q, w)

    monkeypatch.setattr(module, "kernels", lambda: emulated.module)
    monkeypatch.setattr(torch, "mm", counted)
    plain = on_grid(problem(9, 20, 5, EXACT["plain"]))
    pcm = problem(9, 20, 5, ReadConfig(w_noise=0.02, w_noise_type="pcm_read"))
    assert torch.equal(bits(fused(plain, products="torch")), bits(plain.kernel()))
    assert calls == [5]
    assert torch.equal(bits(fused(plain)), bits(plain.kernel()))
    assert calls == [5]
    assert torch.equal(bits(fused(pcm)), bits(pcm.kernel()))
    assert calls == [5] * 3  # products and squares: torch's


def test_layers_say_which(emulated: Emulated, monkeypatch: pytest.MonkeyPatch) -> None:
    """By their mapping; forward, backward and evaluation; the state does not know."""
    monkeypatch.setattr(module, "kernels", lambda: emulated.module)
    products: list[int] = []

    def counted(q: Tensor, w: Tensor) -> Tensor:
        products.append(len(q))
        return in_order(q, w)

    monkeypatch.setattr(torch, "mm", counted)
    monkeypatch.setattr(ops, "direct", lambda _: False)
    monkeypatch.setattr(ops, "read_", cuda_read.read)
    results, states = [], []
    for kind, calls in (("torch", 3), ("fused", 0)):
        tile = pl.Array(5, 7, mapping=Mapping(cuda_products=kind), seed=3)
        tile.program((torch.ones(5, 7) / 8).clamp(max=0.5))
        x, d = torch.ones(2, 7), torch.ones(2, 5)
        products.clear()
        results.append([tile.read(x), tile.read(d, True), tile.evaluate(x)])
        assert len(products) == calls
        states.append(tile.state())
    assert all(torch.equal(bits(a), bits(b)) for a, b in zip(*results, strict=True))
    assert states[0] == states[1]


def test_an_unknown_product_is_refused() -> None:
    message = r"^Mapping: cuda_products is 'tf32'; use one of torch, fused$"
    with pytest.raises(ConfigError, match=message):
        Mapping(cuda_products="tf32")


# ---- faults ----


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", ["plain", "saturated", "constant"])
def test_values_that_are_not_finite(backend: Emulated, name: str, value: float) -> None:
    """Such a sample comes out as NaN; the others keep their bits."""
    p = on_grid(problem(33, 50, 6, EXACT[name], mapping=Mapping(tile_in=32, tile_out=20)))
    x = p.x.clone()
    x[2, 40] = value
    got, without = fused(p._replace(x=x)), torch.tensor([0, 1, 3, 4, 5])
    assert got[2].isnan().all()
    assert torch.equal(bits(got[without]), bits(p.kernel()[without]))


@pytest.mark.parametrize("name", ["everything", "saturated", "weight noise"])
def test_order_of_threads_and_copies_does_not_show(backend: Emulated, name: str) -> None:
    p = problem(70, 50, 140, EXACT[name], mapping=Mapping(tile_in=32, tile_out=20))
    for opposite in (False, True):
        for eager in (False, True):
            with backend.settings(reverse=opposite, eager=eager):
                same(p)


FAULTS = {
    "first barrier": {"skip": 0},
    "barriers of steps": {"skip": 2, "every": 2},
    "barriers of lookups": {"skip": 1, "every": 2},
    "barriers that let copies go ahead": {"skip": 1, "every": 1, "eager": True},
    "a wait too short": {"early": 1},
}


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("fault", FAULTS)
def test_injected_bugs_show(backend: Emulated, fault: str, transposed: bool) -> None:
    """In the second launch; a segment is one step: a barrier for it, one for lookups.

    Without bound management, which would repeat what became NaN.
    """
    mapping = Mapping(tile_in=16, tile_out=16)
    p = problem(96, 96, 100, EXACT["weight noise"], transposed=transposed, mapping=mapping)
    p = on_grid(p)
    assert torch.equal(bits(fused(p)), bits(p.kernel()))
    with backend.settings(**FAULTS[fault], launch=1):  # type: ignore[arg-type]
        got = fused(p)
    assert not torch.equal(bits(got), bits(p.kernel()))

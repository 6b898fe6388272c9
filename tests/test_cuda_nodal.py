"""Reads of CUDA tensors through wires that are solved, without a GPU: the kernels run in the
emulator and must give the bits of the CPU backend, however many samples a block takes.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

from conftest import ISAS, Kernels
from emulated import Emulated
from operators import chain_arguments
from pulseline import nn, ops
from pulseline.configs import IOConfig, Mapping, ReadConfig
from pulseline.devices import Ideal
from pulseline.errors import ConfigError
from pulseline.ops.cuda import module
from pulseline.ops.cuda import read as cuda_read
from pulseline.reference import rng
from test_converters import CONFIGS, SEED, TILE_ID, Problem, bits, problem

FUSED = [name for name in ISAS if name != "baseline"]
WIRES: dict[str, Any] = {"ir_drop": "exact", "wire_resistance": 5e-3}
PERFECT = dataclasses.replace(ReadConfig.perfect(), **WIRES)
READS = {
    "perfect": PERFECT,
    "plain": ReadConfig(**WIRES),
    "no bound": ReadConfig(bound_management="none", w_noise=0.01, **WIRES),
    "saturated": ReadConfig(inp_noise=0.01, w_noise=0.02, out_bound=1.0, **WIRES),
    "always saturated": ReadConfig(out_bound=0.01, max_rounds=3, **WIRES),
    "tight": dataclasses.replace(PERFECT, ir_tolerance=1e-11),
    "loose": dataclasses.replace(PERFECT, ir_tolerance=0.5),
    "strong": dataclasses.replace(PERFECT, wire_resistance=2.0),
    "weak": dataclasses.replace(PERFECT, wire_resistance=1e-9),
    "average": dataclasses.replace(CONFIGS["average"], **WIRES),
    "everything": dataclasses.replace(CONFIGS["everything"], **WIRES),
    "pcm": dataclasses.replace(CONFIGS["pcm"], out_bound=1.0, **WIRES),
    "analog sum": dataclasses.replace(CONFIGS["analog sum"], **WIRES),
}


@pytest.fixture(autouse=True)
def _fused(kernels: Kernels) -> None:
    """What surrounds the double arithmetic sums by fma."""
    if not FUSED:
        pytest.skip("this machine sums without fma")
    kernels.use(FUSED[-1])


@pytest.fixture
def backend(emulated: Emulated, monkeypatch: pytest.MonkeyPatch) -> Emulated:
    """CUDA's functions run on the emulator; no product is torch's; new memory holds NaN."""
    monkeypatch.setattr(module, "kernels", lambda: emulated.module)
    monkeypatch.setattr(torch, "mm", None)
    empty = torch.empty

    def poisoned(*size: Any, **options: Any) -> Tensor:
        t = empty(*size, **options)
        return t.fill_(0xFF) if t.dtype is torch.uint8 else t

    monkeypatch.setattr(torch, "empty", poisoned)
    return emulated


def gpu(p: Problem) -> Tensor:
    return cuda_read.read(*p.arguments(p.x, torch.tensor([p.average])))


def same(p: Problem) -> Tensor:
    want = p.kernel()
    wrong = int((bits(gpu(p)) != bits(want)).sum())
    assert wrong == 0, f"{wrong} outputs of {len(p.x)} samples differ"
    return want


# ---- equal bits ----

# (blocks wanted, bytes they may take): with 3 rows of tiles and 11 samples so many samples a block,
# in turn where memory is for one block alone.
CUTS = {
    "8": (6, 1 << 31),
    "4": (9, 1 << 31),
    "2": (18, 1 << 31),
    "1": (1 << 40, 1 << 31),
    "8 in turn": (0, 1),
    "1 in turn": (1, 1),
}
RAGGED = Mapping(tile_in=20, tile_out=10)


@pytest.mark.parametrize("config", READS.values(), ids=READS.keys())
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("cut", ["8", "1"])
def test_equal_bits(
    backend: Emulated,
    monkeypatch: pytest.MonkeyPatch,
    config: ReadConfig,
    transposed: bool,
    cut: str,
) -> None:
    """23 x 30 on tiles of 10 outputs and 20 inputs, 11 samples: all ragged; one sample is zero."""
    monkeypatch.setattr(cuda_read, "_NODAL", CUTS[cut])
    same(problem(23, 30, 11, config, transposed=transposed, mapping=RAGGED))


@pytest.mark.parametrize("cut", CUTS)
def test_samples_of_a_block(backend: Emulated, monkeypatch: pytest.MonkeyPatch, cut: str) -> None:
    """Any number of them, blocks at the same time or in turn, both orders of threads."""
    monkeypatch.setattr(cuda_read, "_NODAL", CUTS[cut])
    p = problem(23, 30, 11, READS["saturated"], mapping=RAGGED)
    want = same(p)
    with backend.settings(reverse=True):
        same(p)
    ideal = dataclasses.replace(p.config, ir_drop="none")
    assert (want != p._replace(config=ideal).kernel()).float().mean() > 0.5  # wires matter


@pytest.mark.parametrize("size", [1, 2, 15, 16, 17, 33, 65])
def test_sizes(backend: Emulated, size: int) -> None:
    for rows, cols, batch in ((size, 3, 2), (3, size, 2), (3, 4, size)):
        for transposed in (False, True):
            same(problem(rows, cols, batch, READS["no bound"], transposed=transposed))


def test_more_lines_than_threads(backend: Emulated, monkeypatch: pytest.MonkeyPatch) -> None:
    """70 lines of 8 samples for 512 threads."""
    monkeypatch.setattr(cuda_read, "_NODAL", (0, 1 << 31))
    for transposed in (False, True):
        same(problem(70, 75, 9, READS["perfect"], transposed=transposed))


def test_empty(backend: Emulated) -> None:
    for rows, cols, batch in ((0, 7, 3), (7, 0, 3), (7, 9, 0)):
        p = problem(rows, cols, batch, READS["plain"])
        assert torch.equal(gpu(p), p.kernel())


@pytest.mark.parametrize("sign", [1.0, -1.0, 0.0])
def test_one_array_alone(backend: Emulated, sign: float) -> None:
    """The CPU leaves an array without conductances out; here it adds nothing."""
    p = problem(9, 12, 5, READS["perfect"])
    same(p._replace(weight=sign * p.weight.abs()))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite(backend: Emulated, value: float) -> None:
    """Such a sample comes out as NaN; its neighbours keep their bits."""
    p = problem(23, 30, 6, READS["saturated"], mapping=RAGGED)
    want = p.kernel()
    p.x[2, 25] = value
    got = gpu(p)
    assert got[2].isnan().all()
    others = torch.tensor([0, 1, 3, 4, 5])
    assert torch.equal(bits(got[others]), bits(want[others]))


@pytest.mark.parametrize("purpose", [rng.BACKWARD, rng.EVALUATION])
def test_purposes_draw_for_themselves(backend: Emulated, purpose: int) -> None:
    same(problem(9, 12, 5, READS["everything"], purpose=purpose, average=0.9))


# Of the first array: before its first pass, between the passes until x stands, and of a step.
BARRIERS = (8, 9, 10, 13, 17, 18, 19, 20)


@pytest.mark.parametrize("barrier", BARRIERS)
def test_a_missing_barrier_shows(backend: Emulated, barrier: int) -> None:
    """In one order of threads or the other."""
    p = problem(40, 40, 8, dataclasses.replace(PERFECT, wire_resistance=0.05))
    want, differs = same(p), False
    for opposite in (False, True):
        with backend.settings(skip=barrier, launch=2, reverse=opposite):
            differs |= not torch.equal(bits(gpu(p)), bits(want))
    assert differs


# ---- refusals, layers ----


def test_a_tile_that_is_too_large(backend: Emulated) -> None:
    """Offsets of the kernel are 32 bits wide: said before anything is read, or touched."""
    weight = torch.empty(1 << 16, 1 << 15)  # addresses only: no page of it is ever used
    arguments = chain_arguments(
        torch.zeros(1, 1 << 15),
        weight,
        None,
        PERFECT,
        (SEED, TILE_ID, 0),
        mapping=Mapping(1 << 15, 1 << 16),
    )
    with pytest.raises(ConfigError, match=r"^a tile has 2147483648 crosspoints, .*Mapping of smal"):
        cuda_read.read(*arguments)


def test_layers_read_to_the_same_bits(backend: Emulated, monkeypatch: pytest.MonkeyPatch) -> None:
    """Forward, backward through autograd, evaluation."""

    def read() -> list[Tensor]:
        io = IOConfig(READS["saturated"], READS["no bound"])
        layer = nn.AnalogLinear(20, 9, device=Ideal(), io=io, mapping=Mapping(16, 16), seed=1)
        x = torch.randn(5, 20, generator=torch.Generator().manual_seed(0), requires_grad=True)
        y = layer(x)
        y.square().sum().backward()
        assert x.grad is not None
        return [y.detach(), x.grad, layer.eval()(x).detach()]

    on_cpu = read()
    monkeypatch.setattr(ops, "direct", lambda _: False)
    monkeypatch.setattr(ops, "read_chain_", cuda_read.read)
    for a, b in zip(on_cpu, read(), strict=True):
        assert torch.equal(bits(a), bits(b))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("bound", ["none", "iterative"])
def test_what_does_not_converge_is_nan(backend: Emulated, bound: str) -> None:
    """The CPU refuses such a read; here the host does not wait, so the sample says it."""
    config = ReadConfig(
        ir_drop="exact", wire_resistance=1e4, ir_tolerance=1e-12, bound_management=bound
    )
    p = problem(96, 96, 2, config)
    p.x[1] = 0.0
    with pytest.raises(ConfigError, match="which the nodal equations do not reach"):
        p.kernel()
    y = gpu(p)
    assert y[0].isnan().all()
    assert not y[1].any()

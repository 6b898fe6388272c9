"""Reads of CUDA tensors, without a GPU: the kernels run in the emulator (tests/emulator), torch's
product is replaced by the CPU's summation order, and then a read has the bits of the CPU backend
(AVX2 or AVX-512). With torch's own product the sums differ by at most 2 n 2^-24 sum |w q|; after a
converter that is one step of the ADC at most.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

from conftest import ISAS, Kernels
from emulated import Emulated
from pulseline import nn, ops, optim
from pulseline.configs import IOConfig, Mapping, ReadConfig, UpdateConfig
from pulseline.devices import SoftBounds
from pulseline.errors import BackendError, ConfigError
from pulseline.ops import update
from pulseline.ops.cuda import module
from pulseline.ops.cuda import read as cuda_read
from pulseline.reference import rng
from pulseline.reference.arithmetic import fma
from test_converters import CONFIGS, Problem, bits, problem

FUSED = [name for name in ISAS if name != "baseline"]
READS = {
    **{name: config for name, config in CONFIGS.items() if config.ir_drop != "exact"},
    "plain": ReadConfig(),
    "perfect": ReadConfig.perfect(),
    "noisy": ReadConfig(inp_noise=0.02, w_noise=0.01, bound_management="none"),
    "saturated": ReadConfig(inp_noise=0.01, w_noise=0.02, out_bound=1.5),
    "always saturated": ReadConfig(out_bound=0.01, max_rounds=3),
    "two passes": ReadConfig(
        mv_type="pos_neg_separate_digital_sum", w_noise=0.02, out_bound=1.0, out_sto_round=True
    ),
    "pcm and wires": ReadConfig(
        w_noise=0.03,
        w_noise_type="pcm_read",
        ir_drop="approx",
        wire_resistance=1e-3,
        out_bound=1.0,
        mv_type="pos_neg_separate",
        out_asymmetry=0.1,
    ),
}


@pytest.fixture(autouse=True)
def _fused(kernels: Kernels) -> None:
    if not FUSED:
        pytest.skip("this machine sums without fma")
    kernels.use(FUSED[-1])


def in_order(q: Tensor, w: Tensor) -> Tensor:
    """(samples, inputs) times (inputs, outputs): inputs in order from zero, by fma."""
    y = torch.zeros(q.shape[0], w.shape[1])
    for i in range(q.shape[1]):
        y = fma(q[:, i : i + 1], w[i], y)
    return y


@pytest.fixture
def backend(emulated: Emulated, monkeypatch: pytest.MonkeyPatch) -> Emulated:
    """CUDA's functions run on the emulator; products sum in order; new memory holds NaN."""
    monkeypatch.setattr(module, "kernels", lambda: emulated.module)
    monkeypatch.setattr(torch, "mm", in_order)
    new_empty = Tensor.new_empty

    def poisoned(t: Tensor, *size: Any, **options: Any) -> Tensor:
        return new_empty(t, *size, **options).fill_(float("nan"))

    monkeypatch.setattr(Tensor, "new_empty", poisoned)
    return emulated


def gpu(p: Problem, x: Tensor | None = None) -> Tensor:
    """What CUDA tensors would give."""
    average = torch.tensor([p.average])
    return cuda_read.read(*p.arguments(p.x if x is None else x, average))


def same(p: Problem) -> None:
    wrong = int((bits(gpu(p)) != bits(p.kernel())).sum())
    assert wrong == 0, f"{wrong} outputs of {len(p.x)} samples differ"


# ---- equal bits ----


@pytest.mark.parametrize("config", READS.values(), ids=READS.keys())
@pytest.mark.parametrize("transposed", [False, True])
def test_equal_bits(backend: Emulated, config: ReadConfig, transposed: bool) -> None:
    """33 x 50 on tiles of 20 outputs and 32 inputs, 40 samples: all ragged; one sample is zero."""
    mapping = Mapping(tile_in=32, tile_out=20)
    same(problem(33, 50, 40, config, transposed=transposed, mapping=mapping))


@pytest.mark.parametrize("size", [1, 15, 16, 17, 31, 32, 33, 63, 65, 127, 128, 129, 257])
@pytest.mark.parametrize("name", ["saturated", "everything", "plain"])
def test_sizes(backend: Emulated, name: str, size: int) -> None:
    for rows, cols, batch in ((size, 7, 3), (7, size, 3), (7, 9, size)):
        same(problem(rows, cols, batch, READS[name]))


def test_empty(backend: Emulated) -> None:
    for rows, cols, batch in ((0, 7, 3), (7, 0, 3), (7, 9, 0)):
        p = problem(rows, cols, batch, READS["plain"])
        assert torch.equal(gpu(p), p.kernel())


@pytest.mark.parametrize("purpose", [rng.BACKWARD, rng.EVALUATION])
def test_purposes_draw_for_themselves(backend: Emulated, purpose: int) -> None:
    same(problem(18, 40, 5, READS["everything"], purpose=purpose, average=0.9))


@pytest.mark.parametrize("batch", [1, 31, 33, 70])
def test_running_average(backend: Emulated, batch: int) -> None:
    """The average is one chain over the samples; it is moved, by evaluation it is not."""
    config = ReadConfig(noise_management="average_abs_max", nm_decay=0.3, nm_thres=4.0)
    for purpose in (rng.FORWARD, rng.EVALUATION):
        p = problem(9, 20, batch, config, purpose=purpose, average=0.4)
        same(p)
        ours, theirs = torch.tensor([0.4]), torch.tensor([0.4])
        cuda_read.read(*p.arguments(p.x, ours))
        ops.read_chain_(*p.arguments(p.x, theirs))
        assert torch.equal(ours, theirs)
        assert bool(ours != 0.4) == (purpose == rng.FORWARD)


def test_saturated_samples_alone_are_repeated(
    backend: Emulated, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bound management touches what saturates: all others keep the sums of torch's product."""
    config = ReadConfig(out_bound=2.0, out_noise=0.0)
    p = problem(40, 60, 50, config)
    calls: list[int] = []

    def counted(q: Tensor, w: Tensor) -> Tensor:
        calls.append(len(q))
        return in_order(q, w)

    monkeypatch.setattr(torch, "mm", counted)
    once = dataclasses.replace(config, bound_management="none")
    free, clipped = gpu(p), p._replace(config=once).kernel()
    assert calls == [50]  # the repeats are the kernel's own
    differ = (free != clipped).any(1)
    assert 0 < int(differ.sum()) < 50
    assert torch.equal(bits(free), bits(p.kernel()))


def test_torch_products_are_close(backend: Emulated, monkeypatch: pytest.MonkeyPatch) -> None:
    """cuBLAS sums in another order: before the ADC within 2 n 2^-24 sum |w q|, see the header."""
    monkeypatch.setattr(torch, "mm", torch.matmul)
    config = ReadConfig(out_res=0, out_bound=0, out_noise=0.0, bound_management="none")
    p = problem(70, 90, 33, config)
    largest = p.x.abs().amax(1, keepdim=True)
    q = (p.x / torch.where(largest > 0, largest, 1.0)).clamp(-1, 1)
    size = (q.abs() + 1 / 126) @ p.weight.t().abs() * largest * 1.7
    error = (gpu(p) - p.kernel()).abs()
    assert (error <= (2 * 90 + 4) * 2.0**-24 * size).all()
    coarse = problem(70, 90, 33, ReadConfig(bound_management="none"))
    step = 2 * 12 / 510 * 1.7 * largest
    assert ((gpu(coarse) - coarse.kernel()).abs() <= 1.01 * step).all()


def test_autocast_and_autograd_stay_outside(
    backend: Emulated, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Products are float32 inside autocast, and a weight that wants gradients records nothing."""
    p = problem(33, 50, 9, READS["plain"])
    kinds: list[tuple[torch.dtype, bool]] = []

    def product(q: Tensor, w: Tensor) -> Tensor:
        sums = torch.matmul(q, w)  # what autocast would turn into bfloat16
        kinds.append((sums.dtype, sums.requires_grad))
        return sums

    monkeypatch.setattr(torch, "mm", product)
    expected = gpu(p)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(gpu(p._replace(weight=torch.nn.Parameter(p.weight))), expected)
    assert kinds == [(torch.float32, False)] * 2


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", ["plain", "average", "everything", "saturated", "constant"])
def test_values_that_are_not_finite(backend: Emulated, name: str, value: float) -> None:
    """Such a sample comes out as NaN; the others keep their bits, and so does the average."""
    p = problem(33, 50, 6, READS[name], mapping=Mapping(tile_in=32, tile_out=20))
    x = p.x.clone()
    x[2, 40] = value
    got = gpu(p, x=x)
    assert got[2].isnan().all()
    without = torch.tensor([0, 1, 3, 4, 5])
    if name in ("average", "everything"):  # the chain of averages goes on without it
        assert torch.isfinite(got[without]).all()
        before = gpu(p)
        assert torch.equal(bits(got[:2]), bits(before[:2]))
    else:
        assert torch.equal(bits(got[without]), bits(p.kernel()[without]))


@pytest.mark.parametrize("name", ["everything", "saturated", "noisy"])
def test_order_of_threads_does_not_show(backend: Emulated, name: str) -> None:
    p = problem(33, 50, 40, READS[name], mapping=Mapping(tile_in=32, tile_out=20))
    with backend.settings(reverse=True):
        same(p)


@pytest.mark.parametrize("barrier", [0, 1, 2, 3])
def test_a_missing_barrier_shows(backend: Emulated, barrier: int) -> None:
    """Number 0: largest magnitude, norms and keys; the others: the stages of a repeat."""
    config = dataclasses.replace(READS["saturated"], out_bound=1.8)  # most tiles do not saturate
    p = problem(140, 50, 40, config, mapping=Mapping(tile_in=25))
    with backend.settings(skip=barrier):
        got = gpu(p)
    assert not torch.equal(bits(got), bits(p.kernel()))


# ---- refusals ----


def test_refusals(backend: Emulated) -> None:
    p = problem(5, 7, 3, READS["plain"])

    def refused(
        match: str, x: Tensor, weight: Tensor, average: Tensor | None, transposed: bool
    ) -> None:
        kept = torch.zeros(1) if average is None else average
        arguments = p._replace(weight=weight, transposed=transposed).arguments(x, kept)
        with pytest.raises(ConfigError, match=match):
            cuda_read.read(*arguments)

    refused(r"^x has shape \(3, 6\); use \(samples, 7\)", p.x[:, :6], p.weight, None, False)
    refused(r"^d has shape \(3, 7\); use \(samples, 5\)", p.x, p.weight, None, True)
    refused(r"^x has dtype torch\.float64; ", p.x.double(), p.weight, None, False)
    refused(r"^weight has dtype torch\.float16 ", p.x, p.weight.half(), None, False)
    refused(
        r"^x is on meta and the weight on the CPU; move it", p.x.to("meta"), p.weight, None, False
    )
    refused(r"^average has shape \(2,\)", p.x, p.weight, torch.zeros(2), False)


def test_without_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    p = problem(5, 7, 3, READS["plain"])
    module.kernels.cache_clear()
    monkeypatch.setattr(module, "load", lambda: (None, "this build has no CUDA kernels"))
    with pytest.raises(BackendError, match=r"^a CUDA tensor came in, but this build has no CUDA"):
        gpu(p)


# ---- layers ----


@pytest.mark.parametrize("noise", ["iid", "lowrank"])
@pytest.mark.parametrize("fidelity", ["exact", "grouped"])
def test_layers_train_to_the_same_bits(
    backend: Emulated, monkeypatch: pytest.MonkeyPatch, fidelity: str, noise: str
) -> None:
    """Two layers, three steps: reads of both directions and updates, on the CPU and as CUDA."""

    def trained() -> list[Tensor]:
        torch.manual_seed(0)
        io = IOConfig(
            ReadConfig(inp_noise=0.01, out_bound=2.0), ReadConfig(bound_management="none")
        )
        options: dict[str, Any] = {"device": SoftBounds(), "io": io, "mapping": Mapping(16, 16)}
        options["update"] = UpdateConfig(fidelity=fidelity, noise=noise)
        layers = [nn.AnalogLinear(20, 33, seed=1, **options)]
        layers.append(nn.AnalogLinear(33, 5, seed=1, tile_id=1, **options))
        model = torch.nn.Sequential(layers[0], torch.nn.Tanh(), layers[1])
        optimizer = optim.AnalogSGD(model.parameters(), lr=0.1)
        for n in range(3):
            x = torch.randn(9, 20, generator=torch.Generator().manual_seed(n))
            optimizer.zero_grad()
            (model(x) - 1).square().mean().backward()
            optimizer.step()
        return [p.detach().clone() for p in model.parameters()]

    on_cpu = trained()
    monkeypatch.setattr(ops, "read_", cuda_read.read)
    monkeypatch.setattr(ops, "read_chain_", cuda_read.read)
    monkeypatch.setattr(ops, "direct", lambda _: False)
    monkeypatch.setattr(ops, "update_", update.update_cuda)
    on_gpu = trained()
    for a, b in zip(on_cpu, on_gpu, strict=True):
        assert torch.equal(bits(a), bits(b))

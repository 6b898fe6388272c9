"""Reads of CUDA tensors, without a GPU: the kernels run in the emulator (tests/emulator), torch's
product is replaced by the CPU's summation order, and then a read has the bits of the CPU backend
(AVX2 or AVX-512; the emulated host code uses the same arithmetic). With torch's own product the
sums differ by at most 2 n 2^-24 sum |w q|; after a converter that is one step of the ADC at most.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from conftest import ISAS, Kernels
from pulseline import ops, ops_read_cuda
from pulseline.errors import BackendError, ConfigError
from pulseline.io import Mapping, ReadConfig
from pulseline.reference import rng
from pulseline.reference.arithmetic import fma
from test_converters import CONFIGS, SEED, TILE_ID, K, Problem, bits, problem

ROOT = Path(__file__).resolve().parents[1]
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


MAIN = """
#include "bind/cuda.h"
#include "emulator.h"
PYBIND11_MODULE(_emulated_read, m) {
  pulseline::bind::bind_read(m);
  m.def("inject", [](bool reversed, int64_t barrier) {
    emulator::settings().reversed = reversed;
    emulator::settings().skip_barrier = barrier;
  });
}
"""


def compile_emulated(folder: Path) -> Path:
    """csrc/cuda/mvm.cu and its binding, unmodified, as a module that runs on this CPU."""
    pybind11 = pytest.importorskip("pybind11")
    compiler = shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        pytest.skip("no C++ compiler for the emulator")
    main = folder / "main.cpp"
    main.write_text(MAIN)
    out = folder / f"_emulated_read{sysconfig.get_config_var('EXT_SUFFIX')}"
    emulator, csrc = ROOT / "tests" / "emulator", ROOT / "csrc"
    includes = [emulator, csrc, pybind11.get_include(), sysconfig.get_path("include")]
    sources = [csrc / "cuda" / "mvm.cu", csrc / "bind" / "cuda_mvm.cpp"]
    flags = ["-std=gnu++17", "-O1", "-shared", "-fPIC", "-fvisibility=hidden"]
    flags += ["-ffp-contract=off", "-Wno-unknown-pragmas", "-Wno-attributes"]
    subprocess.run(
        [compiler, *flags, *(f"-I{path}" for path in includes), "-x", "c++"]
        + [str(path) for path in (*sources, emulator / "emulator.cpp", main)]
        + ["-o", str(out)],
        check=True,
        capture_output=True,
        text=True,
    )
    return out


@pytest.fixture(scope="module")
def emulated(tmp_path_factory: pytest.TempPathFactory) -> Any:
    path = compile_emulated(tmp_path_factory.mktemp("emulated"))
    spec = importlib.util.spec_from_file_location("_emulated_read", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@contextlib.contextmanager
def injected(module: Any, reverse: bool = False, skip_barrier: int = -1) -> Iterator[None]:
    """Threads in reverse, or without one of their barriers."""
    module.inject(reverse, skip_barrier)
    try:
        yield
    finally:
        module.inject(False, -1)


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


def poisoned(multiply: Any) -> Any:
    """Products into memory that held NaN before."""

    def product(q: Tensor, w: Tensor) -> Tensor:
        out = torch.full((q.shape[0], w.shape[1]), float("nan"))
        return out.copy_(multiply(q, w))

    return product


def gpu(module: Any, p: Problem, multiply: Any = in_order, x: Tensor | None = None) -> Tensor:
    """What CUDA tensors would give."""
    tiles = (p.mapping.tile_in, p.mapping.tile_out)
    tiles = tiles[::-1] if p.transposed else tiles
    values, chain = p.config.values(1.7), p.config.chain()
    if chain and p.purpose == rng.EVALUATION:
        chain = (*chain[:2], 0.0, *chain[3:])
    average = torch.tensor([p.average])
    x, key = p.x if x is None else x, (SEED, TILE_ID, K, p.purpose, *tiles)
    ops_read_cuda.check(x, p.weight, average, p.transposed, chain)
    arguments = (x, p.weight, average, p.transposed, key, values, chain, module, 0)
    return ops_read_cuda.compose(*arguments, poisoned(multiply))


def same(module: Any, p: Problem) -> None:
    wrong = int((bits(gpu(module, p)) != bits(p.kernel())).sum())
    assert wrong == 0, f"{wrong} of {p.x.shape[0]} samples' outputs differ"


# ---- equal bits ----


@pytest.mark.parametrize("config", READS.values(), ids=READS.keys())
@pytest.mark.parametrize("transposed", [False, True])
def test_equal_bits(emulated: Any, config: ReadConfig, transposed: bool) -> None:
    """33 x 50 on tiles of 20 outputs and 32 inputs, 40 samples: all ragged; one sample is zero."""
    mapping = Mapping(tile_in=32, tile_out=20)
    same(emulated, problem(33, 50, 40, config, transposed=transposed, mapping=mapping))


@pytest.mark.parametrize("size", [1, 15, 16, 17, 31, 32, 33, 63, 65, 127, 128, 129, 257])
@pytest.mark.parametrize("name", ["saturated", "everything", "plain"])
def test_sizes(emulated: Any, name: str, size: int) -> None:
    for rows, cols, batch in ((size, 7, 3), (7, size, 3), (7, 9, size)):
        same(emulated, problem(rows, cols, batch, READS[name]))


def test_empty(emulated: Any) -> None:
    for rows, cols, batch in ((0, 7, 3), (7, 0, 3), (7, 9, 0)):
        p = problem(rows, cols, batch, READS["plain"])
        assert torch.equal(gpu(emulated, p), p.kernel())


@pytest.mark.parametrize("purpose", [rng.BACKWARD, rng.EVALUATION])
def test_purposes_draw_for_themselves(emulated: Any, purpose: int) -> None:
    same(emulated, problem(18, 40, 5, READS["everything"], purpose=purpose, average=0.9))


@pytest.mark.parametrize("batch", [1, 31, 33, 70])
def test_running_average(emulated: Any, batch: int) -> None:
    """The average is one chain over the samples; it is moved, by evaluation it is not."""
    config = ReadConfig(noise_management="average_abs_max", nm_decay=0.3, nm_thres=4.0)
    for purpose in (rng.FORWARD, rng.EVALUATION):
        p = problem(9, 20, batch, config, purpose=purpose, average=0.4)
        same(emulated, p)
        chain = config.chain()
        chain = (*chain[:2], float(purpose == rng.FORWARD), *chain[3:])
        key = (SEED, TILE_ID, K, purpose, 512, 512)
        ours, theirs = torch.tensor([0.4]), torch.tensor([0.4])
        job = (p.weight, ours, False, key, config.values(1.0), chain)
        ops_read_cuda.compose(p.x, *job, emulated, 0, in_order)
        ops.read_chain_(p.x, p.weight, theirs, *job[2:])
        assert torch.equal(ours, theirs)
        assert bool(ours != 0.4) == (purpose == rng.FORWARD)


def test_saturated_samples_alone_are_repeated(emulated: Any) -> None:
    """Bound management touches what saturates: all others keep the sums of torch's product."""
    config = ReadConfig(out_bound=2.0, out_noise=0.0)
    p = problem(40, 60, 50, config)
    calls: list[int] = []

    def counted(q: Tensor, w: Tensor) -> Tensor:
        calls.append(len(q))
        return in_order(q, w)

    once = dataclasses.replace(config, bound_management="none")
    free, clipped = gpu(emulated, p, counted), p._replace(config=once).kernel()
    assert calls == [50]  # the repeats are the kernel's own
    differ = (free != clipped).any(1)
    assert 0 < int(differ.sum()) < 50
    assert torch.equal(bits(free), bits(p.kernel()))


def test_torch_products_are_close(emulated: Any) -> None:
    """cuBLAS sums in another order: before the ADC within 2 n 2^-24 sum |w q|, see the header."""
    config = ReadConfig(out_res=0, out_bound=0, out_noise=0.0, bound_management="none")
    p = problem(70, 90, 33, config)
    largest = p.x.abs().amax(1, keepdim=True)
    q = (p.x / torch.where(largest > 0, largest, 1.0)).clamp(-1, 1)
    size = (q.abs() + 1 / 126) @ p.weight.t().abs() * largest * 1.7
    error = (gpu(emulated, p, torch.mm) - p.kernel()).abs()
    assert (error <= (2 * 90 + 4) * 2.0**-24 * size).all()
    coarse = problem(70, 90, 33, ReadConfig(bound_management="none"))
    step = 2 * 12 / 510 * 1.7 * largest
    assert ((gpu(emulated, coarse, torch.mm) - coarse.kernel()).abs() <= 1.01 * step).all()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", ["plain", "average", "everything", "saturated", "constant"])
def test_values_that_are_not_finite(emulated: Any, name: str, value: float) -> None:
    """Such a sample comes out as NaN; the others keep their bits, and so does the average."""
    p = problem(33, 50, 6, READS[name], mapping=Mapping(tile_in=32, tile_out=20))
    x = p.x.clone()
    x[2, 40] = value
    got = gpu(emulated, p, x=x)
    assert got[2].isnan().all()
    without = torch.tensor([0, 1, 3, 4, 5])
    if name in ("average", "everything"):  # the chain of averages goes on without it
        assert torch.isfinite(got[without]).all()
        before = gpu(emulated, p, x=p.x)
        assert torch.equal(bits(got[:2]), bits(before[:2]))
    else:
        assert torch.equal(bits(got[without]), bits(p.kernel()[without]))


@pytest.mark.parametrize("name", ["everything", "saturated", "noisy"])
def test_order_of_threads_does_not_show(emulated: Any, name: str) -> None:
    p = problem(33, 50, 40, READS[name], mapping=Mapping(tile_in=32, tile_out=20))
    with injected(emulated, reverse=True):
        same(emulated, p)


@pytest.mark.parametrize("barrier", [0, 1, 2, 3])
def test_a_missing_barrier_shows(emulated: Any, barrier: int) -> None:
    """Number 0: largest magnitude, norms and keys; the others: the stages of a repeat."""
    config = dataclasses.replace(READS["saturated"], out_bound=1.8)  # most tiles do not saturate
    p = problem(140, 50, 40, config, mapping=Mapping(tile_in=25))
    with injected(emulated, skip_barrier=barrier):
        got = gpu(emulated, p)
    assert not torch.equal(bits(got), bits(p.kernel()))


# ---- refusals ----


def test_refusals() -> None:
    p = problem(5, 7, 3, READS["plain"])

    def refused(match: str, *arguments: Any) -> None:
        with pytest.raises(ConfigError, match=match):
            ops_read_cuda.check(*arguments)

    refused(r"^x has shape \(3, 6\); use \(samples, 7\)", p.x[:, :6], p.weight, None, False, ())
    refused(r"^d has shape \(3, 7\); use \(samples, 5\)", p.x, p.weight, None, True, ())
    refused(r"^x has dtype torch\.float64; ", p.x.double(), p.weight, None, False, ())
    refused(r"^weight has dtype torch\.float16 ", p.x, p.weight.half(), None, False, ())
    refused(r"^x is on meta; move it to cpu", p.x.to("meta"), p.weight, None, False, ())
    refused(r"^average has shape \(2,\)", p.x, p.weight, torch.zeros(2), False, ())
    wired = ReadConfig(ir_drop="exact", wire_resistance=1e-3).chain()
    refused(r'^ir_drop="exact" is solved on the CPU alone', p.x, p.weight, None, False, wired)


def test_load_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the module, and with one that finds no GPU."""
    monkeypatch.setitem(sys.modules, "pulseline._cuda", None)
    with pytest.raises(BackendError, match=r"this build has no CUDA kernels .* PULSELINE_CUDA=ON"):
        ops_read_cuda.load()

"""What the compiler made of the CUDA kernels: every architecture is there, no kernel spills, and
the loops that decide the speed keep their instruction budgets, counted in the code of sm_90.

Counts are per crosspoint-sample: instructions of a warp's way through the loop's densest block,
divided by the crosspoints of a lane (and the samples of a step). Budgets are measured values of
nvcc 13.0 plus 5 % for other versions.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import sass
from pulseline import _cpu

try:
    from pulseline import _cuda
except ImportError:
    _cuda = None  # type: ignore[assignment]

needs_kernels = pytest.mark.skipif(
    _cuda is None,
    reason="this build has no CUDA kernels (PULSELINE_CUDA=ON builds them where nvcc is)",
)
ARCH = "sm_90"
DEVICES = [name for name, *_ in _cpu.DEVICES]


def test_kernels_load_at_first_use() -> None:
    code = "import sys, pulseline; assert 'pulseline._cuda' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@needs_kernels
def test_import_needs_no_driver() -> None:
    """And the module was built from the sources that the CPU's was."""
    assert isinstance(_cuda.reason(), str)
    assert (_cuda.DEVICES, _cuda.NUMBERING) == (_cpu.DEVICES, _cpu.NUMBERING)


@pytest.fixture(scope="module")
def tool() -> str:
    found = sass.find_tool("cuobjdump")
    if found is None or shutil.which("nvdisasm", path=str(Path(found).parent)) is None:
        pytest.skip("no cuobjdump and nvdisasm (packages nvidia-cuda-cuobjdump, -nvdisasm)")
    return found


@pytest.fixture(scope="module")
def module(tool: str) -> Path:
    assert _cuda.__file__ is not None
    return Path(_cuda.__file__)


@pytest.fixture(scope="module")
def usages(module: Path, tool: str) -> dict[tuple[str, str], sass.Usage]:
    return sass.usages(module, tool)


@pytest.fixture(scope="module")
def kernels(module: Path, tool: str) -> list[sass.Kernel]:
    return list(sass.kernels(module, ARCH, tool))


def named(kernels: list[sass.Kernel], stem: str) -> Iterator[tuple[str, sass.Kernel]]:
    """(device model, kernel) of one family."""
    for kernel in kernels:
        if f"{len(stem)}{stem}I" in kernel.name:
            (model,) = (d for d in DEVICES if f"{len(d)}{d}E" in kernel.name)
            yield model, kernel


@needs_kernels
def test_every_architecture_has_every_kernel(usages: dict[tuple[str, str], sass.Usage]) -> None:
    by_arch: dict[str, set[str]] = {}
    for arch, name in usages:
        by_arch.setdefault(arch, set()).add(name)
    assert set(by_arch) == {f"sm_{arch}" for arch in _cuda.ARCHS.split()}
    assert len({frozenset(names) for names in by_arch.values()}) == 1
    tapped = ("exact_tapped", "exact_ranks_tapped", "rare_tapped")
    for stem in ("exact", "exact_ranks", "rare", "grouped", "moments", *tapped):
        family = f"{stem}_kernel"
        for names in by_arch.values():
            found = [n for n in names if f"{len(family)}{family}I" in n]
            assert len(found) == len(DEVICES), family


@needs_kernels
def test_no_kernel_spills(usages: dict[tuple[str, str], sass.Usage]) -> None:
    spilled = {key: use for key, use in usages.items() if use.stack or use.local}
    assert not spilled
    # Two blocks of 128 threads a multiprocessor at least; 100 KB of shared memory (sm_86) hold two.
    for key, use in usages.items():
        assert use.registers <= 255, key
        assert use.shared <= 49 * 1024, key


# Per sample the way through the noise of all 16 crosspoints of a lane; per chunk its copies. Those
# with taps ask before each sample whether one is due.
EXACT_BUDGET = {
    "exact_kernel": {"ConstantStep": 22.3, "LinearStep": 25.2, "SoftBounds": 25.2},
    "exact_tapped_kernel": {"ConstantStep": 23.6, "LinearStep": 25.7, "SoftBounds": 25.7},
}
EXACT_CHUNK, RANKS_CHUNK = 16, 8  # samples


@needs_kernels
@pytest.mark.skipif(_cuda is not None and "90" not in _cuda.ARCHS.split(), reason="no sm_90 here")
@pytest.mark.parametrize("stem", EXACT_BUDGET)
def test_exact_budget(kernels: list[sass.Kernel], stem: str) -> None:
    """16 crosspoints a lane and sample: 16 counts, 16 from the noise's bits."""
    seen, budget = set(), EXACT_BUDGET[stem]
    for model, kernel in named(kernels, stem):
        if model in budget:
            block = kernel.largest(lambda b: b.count("POPC", "SHFL"))
            assert kernel.blocks[block].count("POPC") >= 32
            per_sample = kernel.round_through(block) / 16
            per_sample += least_round(kernel, "LDGSTS", 6) / (16 * EXACT_CHUNK)
            assert per_sample <= budget[model], f"{model}: {per_sample}"
            seen.add(model)
    assert seen == set(budget)


EXACT_RANKS_BUDGET = {
    "exact_ranks_kernel": {"ConstantStep": 13.7, "LinearStep": 15.5, "SoftBounds": 15.5},
    "exact_ranks_tapped_kernel": {"ConstantStep": 15.2, "LinearStep": 16.1, "SoftBounds": 16.1},
}


@needs_kernels
@pytest.mark.skipif(_cuda is not None and "90" not in _cuda.ARCHS.split(), reason="no sm_90 here")
@pytest.mark.parametrize("stem", EXACT_RANKS_BUDGET)
def test_exact_budget_of_low_rank_noise(kernels: list[sass.Kernel], stem: str) -> None:
    """Straight through four tiles of four crosspoints a lane."""
    seen, budget = set(), EXACT_RANKS_BUDGET[stem]
    for model, kernel in named(kernels, stem):
        if model in budget:
            per_sample = least_round(kernel, "HMMA", 4) / 16
            per_sample += least_round(kernel, "LDGSTS", 8) / (16 * RANKS_CHUNK)
            assert per_sample <= budget[model], f"{model}: {per_sample}"
            seen.add(model)
    assert seen == set(budget)


# grouped(8), 31 slots a sample: two steps of four words and one relaxation of 16 crosspoints a
# lane, by the way through the noise of one kind (hash of every crosspoint, low rank), and half of
# the copies of a stage of four steps.
GROUPED_BUDGET = {"ConstantStep": (6.2, 3.5), "LinearStep": (7.3, 4.4), "SoftBounds": (7.3, 4.4)}


@needs_kernels
@pytest.mark.skipif(_cuda is not None and "90" not in _cuda.ARCHS.split(), reason="no sm_90 here")
def test_grouped_budget(kernels: list[sass.Kernel]) -> None:
    seen = set()
    for model, kernel in named(kernels, "grouped_kernel"):
        if model not in GROUPED_BUDGET:
            continue
        step, copies = least_round(kernel, "BMMA", 8), least_round(kernel, "LDGSTS", 7)
        for budget, noise, times in zip(
            GROUPED_BUDGET[model], ("IDP", "HMMA"), (16, 4), strict=True
        ):
            # The way around by a relaxation has one step in it.
            group = least_round(kernel, noise, times) + step + copies / 2
            assert group / (16 * 8) <= budget, f"{model}, {noise}: {group / (16 * 8)}"
        seen.add(model)
    assert seen == set(GROUPED_BUDGET)


# A step of 32 samples with trains of one slot and with longer ones; a relaxation of 16 crosspoints
# a lane every 256 samples, with a step in it.
MOMENTS_BUDGET = {"ConstantStep": (94, 205, 1090), "SoftBounds": (94, 205, 1304)}


@needs_kernels
@pytest.mark.skipif(_cuda is not None and "90" not in _cuda.ARCHS.split(), reason="no sm_90 here")
def test_moments_budget(kernels: list[sass.Kernel]) -> None:
    seen = set()
    for model, kernel in named(kernels, "moments_kernel"):
        if model not in MOMENTS_BUDGET:
            continue
        steps = [at for at, block in kernel.blocks.items() if block.count("HMMA") == 16]
        short, long = sorted(kernel.round_through(at) for at in steps)
        found = (short, long, least_round(kernel, "IDP", 16))
        assert all(n <= budget for n, budget in zip(found, MOMENTS_BUDGET[model], strict=True)), (
            model,
            found,
        )
        seen.add(model)
    assert seen == set(MOMENTS_BUDGET)


def least_round(kernel: sass.Kernel, opcode: str, times: int) -> float:
    """Instructions of the cheapest round of a loop that executes an opcode ``times`` times."""
    found = [at for at, block in kernel.blocks.items() if block.count(opcode) == times]
    return min(kernel.round_through(at) for at in found)

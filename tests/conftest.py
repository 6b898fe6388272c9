"""Fixtures: instruction sets and threads, restored afterwards; hypothesis without a clock."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
import torch

import pulseline as pl
from emulated import Emulated, build
from lab_quick import Lab, run_all
from pulseline import _cpu

hypothesis.settings.register_profile(
    "fixed", deadline=None, derandomize=True, database=None, max_examples=60
)
hypothesis.settings.load_profile("fixed")

torch.set_num_threads(1)  # tests are small; those about threads ask for two
ISAS = _cpu.isas()


class Kernels:
    """Runs what follows on one instruction set with some threads."""

    def __init__(self) -> None:
        self.isas = list(ISAS)
        self.fused = [name for name in ISAS if name != "baseline"]  # reads sum by fma

    def use(self, isa: str, threads: int = 1) -> None:
        pl.ops.use_isa(isa)
        torch.set_num_threads(threads)

    def each(self, isas: list[str] | None = None) -> Iterator[tuple[str, int]]:
        """Every instruction set with 1 and 2 threads, in use while the loop's body runs."""
        for isa in self.isas if isas is None else isas:
            for threads in (1, 2):
                self.use(isa, threads)
                yield isa, threads


@pytest.fixture(autouse=True)
def _seeds() -> None:
    """What is made without a seed does not depend on the tests that ran before."""
    pl.manual_seed(0)


@pytest.fixture
def kernels() -> Iterator[Kernels]:
    """A switch between instruction sets and thread counts."""
    isa, threads = str(pl.ops.info()["isa"]), torch.get_num_threads()
    yield Kernels()
    pl.ops.use_isa(isa)
    torch.set_num_threads(threads)


@pytest.fixture(params=ISAS)
def isa(request: pytest.FixtureRequest, kernels: Kernels) -> str:
    """The test runs once on every instruction set of this machine."""
    kernels.use(request.param)
    return str(request.param)


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """The quick runs of every experiment, once per session (minutes)."""
    return run_all(tmp_path_factory.mktemp("lab"))


@pytest.fixture(scope="module")
def emulated(pytestconfig: pytest.Config) -> Emulated:
    """CUDA's functions without a GPU: built once, kept in pytest's cache."""
    assert pytestconfig.cache is not None
    return Emulated(build(Path(pytestconfig.cache.mkdir("emulator"))))

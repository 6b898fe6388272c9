"""Benchmarks call what the package has: every section runs once, small, on the CPU.

What they compare is then the CPU with itself, so that all they check must hold. Of ``gpu.py`` the
sections that need no CUDA streams; times mean nothing here.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.append(str(Path(__file__).parents[1] / "bench"))

import compiled
import gpu
import gpu_reads
import read
import update

import pulseline as pl


@pytest.fixture(autouse=True)
def settings() -> Any:
    """Benchmarks choose threads and instruction sets."""
    threads, isa = torch.get_num_threads(), str(pl.ops.info()["isa"])
    yield
    torch.set_num_threads(threads)
    pl.ops.use_isa(isa)


@pytest.mark.parametrize("script", [read, update])
def test_rows_of_the_cpu(
    script: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--sizes", "16", "--batches", "2", "--threads", "1", "--seconds", "0.001"]
    monkeypatch.setattr(sys, "argv", ["bench", *arguments])
    script.main()
    rows = [line for line in capsys.readouterr().out.splitlines() if "16x16" in line]
    assert len(rows) == 4  # both directions with and without converters; four profiles


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # in torch itself
def test_rows_of_compiled_steps(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Behind AOT every digital operation is torch's own: outputs are equal, convolutions too."""
    arguments = ["--backend", "aot_eager", "--batches", "1", "--seconds", "0.001"]
    monkeypatch.setattr(sys, "argv", ["compiled.py", *arguments])
    monkeypatch.setattr(compiled, "BLOCK", 1)
    compiled.main()
    rows = [line for line in capsys.readouterr().out.splitlines() if "compiled / eager" in line]
    assert len(rows) == 2 * len(compiled.MODELS)
    assert all(row.endswith("error 0.0e+00") for row in rows)


def test_reads_and_steps_of_a_gpu(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--device", "cpu", "--tiny", "--seconds", "0.001"]
    monkeypatch.setattr(sys, "argv", ["gpu_reads.py", *arguments])
    assert gpu_reads.main() == 0
    assert "training step" in capsys.readouterr().out


def test_equality_of_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "GPU", "cpu")
    found: list[dict[str, Any]] = []
    gpu.equality(True, found)
    kinds = {row.get("read") or row["device"] for row in found}
    assert {"ageing", "solved wires", *gpu.EXACT_READS} < kinds
    assert [row for row in found if not row["ok"]] == []


@pytest.mark.parametrize("case", [gpu.shared_launches, gpu.default_device])
def test_behaviour_of_a_gpu(monkeypatch: pytest.MonkeyPatch, case: Any) -> None:
    monkeypatch.setattr(gpu, "GPU", "cpu")
    assert case()

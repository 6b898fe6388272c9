"""``bench/networks.py`` trains all four networks, tiny, on data that is made here."""

from __future__ import annotations

import json
import struct
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

sys.path.append(str(Path(__file__).parents[1] / "bench"))

import network_cases
import networks

TINY: dict[str, dict[str, Any]] = {
    "mlp": {},
    "lenet": {},
    "resnet": {"sizes": (("width", 4),)},
    "gpt": {"sizes": (("width", 16), ("layers", 2), ("heads", 2)), "context": 8, "warm": 0},
}


def _idx(path: Path, values: np.ndarray) -> None:
    head = struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape)
    path.write_bytes(head + values.astype(np.uint8).tobytes())


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """MNIST, CIFAR-10 and a text of a few samples."""
    draw = np.random.default_rng(0)
    for folder in ("mnist", "cifar10", "text"):
        (tmp_path / folder).mkdir()
    for part in ("train", "t10k"):
        images = draw.integers(256, size=(40, 28, 28))
        _idx(tmp_path / "mnist" / f"{part}-images-idx3-ubyte", images)
        _idx(tmp_path / "mnist" / f"{part}-labels-idx1-ubyte", np.arange(40) % 10)
    for name in ("data_batch_1.bin", "test_batch.bin"):
        records = draw.integers(256, size=(40, 3073))
        records[:, 0] %= 10
        (tmp_path / "cifar10" / name).write_bytes(records.astype(np.uint8).tobytes())
    words = b"to be or not to be, that is the question; "
    (tmp_path / "text" / "input.txt").write_bytes(words * 40)
    return tmp_path


@pytest.mark.parametrize("name", list(network_cases.CASES))
def test_networks(
    name: str, root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    case = replace(network_cases.CASES[name](), batch=2, **TINY[name])
    monkeypatch.setitem(networks.CASES, name, lambda: case)
    threads, file = torch.get_num_threads(), root / "found.json"
    arguments = ["--root", str(root), "--only", name, "--seconds", "0.01", "--json", str(file)]
    monkeypatch.setattr(sys, "argv", ["networks.py", *arguments])
    try:
        networks.main()
    finally:
        torch.set_num_threads(threads)
    (found,) = json.loads(file.read_text())
    assert [row["arm"] for row in found["rows"]] == ["digital", "sequential", "async"]
    for row in found["rows"]:
        assert row["error"] < 1e-5  # of float32 sums in other orders
        # the arms take the same samples, and enough of them to fill the pipeline
        assert row["points"][-1]["samples"] == 2 * found["micro_batches"]
    digital, sequential, pipelined = found["rows"]
    assert digital["ratio"] == 1.0
    assert pipelined["cycles"] < sequential["cycles"]
    said = capsys.readouterr().out
    assert said.count("ms/step") == 3
    assert ("nats to the bigram line" in said) == (name == "gpt")

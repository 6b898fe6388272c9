"""Counted pulses and converters of CUDA tensors, without a GPU: the kernels run in the emulator
(see test_cuda_update.py) and must give the bits of the CPU backend, in both orders of threads.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from emulated import Emulated
from pulseline import ops
from pulseline.configs import ReadConfig
from pulseline.devices import Ideal, SoftBounds
from pulseline.errors import ConfigError
from pulseline.ops import transfer
from test_cuda_update import install
from test_transfer import IN_ORDER, KEY, generator, numbers_of
from test_transfer_converters import READS
from test_update import MODELS, K, Problem, bits, problem


@pytest.fixture
def backend(emulated: Emulated, monkeypatch: pytest.MonkeyPatch) -> Emulated:
    """CUDA's functions run on the emulator."""
    install(emulated, monkeypatch)
    return emulated


def call(p: Problem, columns: list[int], counts: Tensor, fidelity: str, drawn: bool) -> list[Any]:
    """Arguments of ``pulse_`` behind the weight."""
    ideal = isinstance(p.device, Ideal)
    stored = (None, None, None) if drawn or ideal else p.stored
    parameters = (0.125,) if ideal else p.device.parameters()
    key = ops.UpdateKey(*KEY, ops.FIDELITY_INDEX[fidelity])
    lines = torch.tensor(columns, dtype=torch.int32)
    return [*stored, lines, counts, K, p.device.name, parameters, key]


def check_counted(
    backend: Emulated, p: Problem, columns: list[int], counts: Tensor, fidelity: str = "exact"
) -> None:
    """Weights, what is read and counts."""

    def run(operator: Any, drawn: bool) -> tuple[Tensor, ...]:
        w, visible = p.weight.clone(), p.weight + 1.0
        fired = torch.ones(2, dtype=torch.int64)
        rest = call(p, columns, counts, fidelity, drawn)
        written = None if isinstance(p.device, Ideal) else visible
        operator(w, *rest, fired, written, 0.07)
        return w, visible, fired

    want = run(ops.pulse_, False)
    for opposite in (False, True):
        with backend.settings(reverse=opposite):
            for drawn in (False, True):
                for got, one in zip(run(transfer.pulse_cuda, drawn), want, strict=True):
                    assert torch.equal(bits(got), bits(one)), (opposite, drawn)


@pytest.mark.parametrize("fidelity", IN_ORDER)
@pytest.mark.parametrize("model", MODELS)
def test_counted_models(backend: Emulated, model: str, fidelity: str) -> None:
    p = problem(11, 40, 0, MODELS[model], fidelity)
    check_counted(backend, p, [*range(30, 40), 3, 1], numbers_of(11, 12, 70), fidelity)


@pytest.mark.parametrize(
    ("rows", "cols", "lines"), [(0, 3, 3), (3, 2, 0), (1, 1, 1), (9, 33, 33), (8, 32, 32)]
)
def test_counted_sizes(backend: Emulated, rows: int, cols: int, lines: int) -> None:
    p = problem(rows, cols, 0, SoftBounds(corrupt_devices_prob=0.2))
    check_counted(backend, p, list(range(lines)), numbers_of(rows, lines, 40))


def test_counted_pulses_of_the_ideal_device(backend: Emulated) -> None:
    p = problem(9, 33, 0, MODELS["SoftBounds"])._replace(device=Ideal())
    check_counted(backend, p, list(range(33)), numbers_of(9, 33, 40))


def test_weights_that_are_nan_keep_their_bits(backend: Emulated) -> None:
    p = problem(9, 33, 0, MODELS["SoftBounds"])
    p.weight[2, 3] = float("nan")
    n = torch.ones(9, 33)
    w = p.weight.clone()
    transfer.pulse_cuda(w, *call(p, list(range(33)), n, "exact", False))
    assert torch.equal(bits(w[2, 3:4]), bits(p.weight[2, 3:4]))
    assert int(w.isnan().sum()) == 1


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0.5, 2.0**21])
def test_bad_counts(backend: Emulated, value: float) -> None:
    p, n = problem(4, 7, 0, MODELS["SoftBounds"]), torch.ones(4, 2)
    n[3, 1] = value
    w = p.weight.clone()
    with pytest.raises(
        ConfigError, match=r"^counts\[3, 1\] is .*; use a whole number from -1048576"
    ):
        transfer.pulse_cuda(w, *call(p, [0, 1], n, "exact", False))
    with pytest.raises(ConfigError, match=r"^columns\[1\] is 2 as an earlier one"):
        transfer.pulse_cuda(w, *call(p, [2, 2], torch.ones(4, 2), "exact", False))
    assert torch.equal(w, p.weight)


@pytest.mark.parametrize("config", READS.values(), ids=READS.keys())
@pytest.mark.parametrize(("rows", "reads"), [(0, 3), (3, 0), (1, 1), (9, 33), (70, 31)])
def test_converters(backend: Emulated, rows: int, reads: int, config: ReadConfig) -> None:
    values = 0.4 * torch.randn(rows, reads, generator=generator())
    settings = (ops.ReadSettings.of(config), ops.ConverterSettings.of(config))
    rest = (values, K, ops.DrawKey(*KEY), *settings)
    want = ops.convert(*rest)
    for opposite in (False, True):
        with backend.settings(reverse=opposite):
            assert torch.equal(bits(transfer.convert_cuda(*rest)), bits(want))

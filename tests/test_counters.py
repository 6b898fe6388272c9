"""Counters live beside the array and are advanced by its operators, on the CPU and on a GPU (in the
emulator), where a launch that is repeated as it was goes on where the last one ended.
"""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

import pulseline as pl
from emulated import Emulated
from operators import counted, read_arguments, update_arguments
from pulseline import ops
from pulseline.configs import ReadConfig, UpdateConfig
from pulseline.devices import SoftBounds
from pulseline.errors import ConfigError
from pulseline.ops import update
from pulseline.ops.cuda import module
from pulseline.ops.cuda import read as cuda_read
from pulseline.ops.cuda.launch import Update
from pulseline.reference import rng
from test_update import MODELS, SEED, TILE_ID, K, bits, problem

PURPOSES = {"forward": rng.FORWARD, "backward": rng.BACKWARD, "evaluation": rng.EVALUATION}


@pytest.fixture
def backend(emulated: Emulated, monkeypatch: pytest.MonkeyPatch) -> Emulated:
    monkeypatch.setattr(module, "kernels", lambda: emulated.module)
    return emulated


def names(counters: Tensor) -> ops.Counters:
    return ops.Counters(*counters.tolist())


@pytest.mark.parametrize("purpose", PURPOSES)
def test_reads_advance_their_own(backend: Emulated, purpose: str) -> None:
    x, w = torch.ones(3, 7), torch.zeros(5, 7)
    for read in (ops.read_, torch.ops.pulseline.read_.default, cuda_read.read):
        *head, counters, key, settings = read_arguments(
            x, w, ReadConfig(), (1, 2, 4), purpose=PURPOSES[purpose]
        )
        read(*head, counters, key, settings)
        assert names(counters) == ops.Counters(4, 4, 4, 4)._replace(**{purpose: 7})


@pytest.mark.parametrize("shape", [(0, 7), (5, 0)])
def test_empty_matrices_count_too(backend: Emulated, shape: tuple[int, int]) -> None:
    x, w = torch.ones(3, shape[1]), torch.zeros(shape)
    for read in (ops.read_, cuda_read.read):
        arguments = read_arguments(x, w, ReadConfig(), (1, 2, 4))
        read(*arguments)
        assert names(arguments[3]).forward == 7
    stored = [torch.zeros(shape, dtype=torch.int32)] * 3
    rest = (w, stored, x, torch.ones(3, shape[0]), SoftBounds(), UpdateConfig(), 0.1, (1, 2, 4))
    for operator in (ops.update_, update.update_cuda):
        given = update_arguments(*rest)
        operator(*given)
        assert names(given[10]) == ops.Counters(4, 4, 4, 7)


@pytest.mark.parametrize("fidelity", ["exact", "strict", "expected", "grouped", "moments"])
def test_a_repeated_launch_goes_on(backend: Emulated, fidelity: str) -> None:
    """As a CUDA graph replays it: the same arguments, the next samples."""
    p = problem(9, 7, 5, MODELS["SoftBounds"], fidelity)
    got, want, counters = p.weight.clone(), p.weight.clone(), counted(K)
    pulses = ops.PulseSettings.of(p.config, p.device)
    key = ops.UpdateKey(SEED, TILE_ID, ops.FIDELITY_INDEX[fidelity])
    model = (ops.DEVICE_INDEX["SoftBounds"], p.device.parameters())
    one = Update(got, tuple(p.stored), p.x, p.d, p.lr, *model, pulses, counters, key, None)
    memory = torch.empty(backend.module.update_workspace(one.task(0)), dtype=torch.uint8)
    task = one.task(memory.data_ptr())
    for n in range(3):
        backend.module.update([task], model[0], 0, 0)
        rest = (p.x, p.d, p.device, p.config, p.lr, (SEED, TILE_ID, K + 5 * n))
        update.update_cuda(*update_arguments(want, p.stored, *rest))
        assert torch.equal(bits(got), bits(want))
        assert names(counters) == ops.Counters(K, K, K, K + 5 * (n + 1))


def test_what_is_refused_does_not_count(backend: Emulated) -> None:
    p = problem(9, 7, 5, MODELS["SoftBounds"])
    p.x[2, 1] = float("nan")
    for operator in (ops.update_, update.update_cuda):
        given = update_arguments(
            p.weight.clone(), p.stored, p.x, p.d, p.device, p.config, p.lr, (0, 0, 4)
        )
        with pytest.raises(ConfigError, match=r"x\[2\] h"):
            operator(*given)
        assert names(given[10]) == ops.Counters(4, 4, 4, 4)
    given = read_arguments(p.x, p.weight, ReadConfig(), (0, 0, 4))
    with pytest.raises(ConfigError, match=r"x\[2\] holds"):
        ops.read_(*given)
    assert names(given[3]) == ops.Counters(4, 4, 4, 4)


@pytest.mark.parametrize(
    "counters", [torch.zeros(4), torch.zeros(3, dtype=torch.int64), counted(0, "meta")]
)
def test_other_buffers_are_refused(counters: Tensor) -> None:
    """C++ would write there."""
    x, w = torch.ones(3, 7), torch.zeros(5, 7)
    x_at, w_at, transposed, _, key, settings = read_arguments(x, w, ReadConfig(), (1, 2, 4))
    with pytest.raises(ConfigError, match=r"^counters (has shape|is on meta)"):
        ops.read_(x_at, w_at, transposed, counters, key, settings)


def test_looking_changes_nothing() -> None:
    """A state between two steps: the same bits as without, and a copy counts for itself."""
    plain = pl.nn.AnalogLinear(7, 5, device=SoftBounds(), seed=3)
    watched = copy.deepcopy(plain)

    def step(layer: Any, look: bool) -> Tensor:
        y = layer(torch.ones(2, 7))
        if look:
            layer.state_dict()
        y.square().sum().backward()
        layer.cell.update_pending(0.1)
        if look:
            layer.state_dict()
            assert layer.cell.array.counts().forward == layer.cell.array.counts().update
        return torch.cat([y.detach().flatten(), layer.weight.detach().flatten()])

    for _ in range(3):
        assert torch.equal(bits(step(plain, False)), bits(step(watched, True)))
    assert plain.cell.array.counts() == watched.cell.array.counts() == ops.Counters(6, 0, 0, 6)
    watched.eval()(torch.ones(3, 7))
    assert watched.cell.array.counts().evaluation == 3
    assert plain.cell.array.counts().evaluation == 0
    assert watched.eval().cell.array.counts().evaluation == 0

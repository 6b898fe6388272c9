"""Crosspoints that are drawn anew on a GPU, in the emulator: kernels that construct them have the
bits of the CPU's, and every operator then has those of stored ones.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

from emulated import Emulated
from operators import counted, redraw_arguments, update_arguments
from pulseline import ops
from pulseline.configs.update import FIDELITIES
from pulseline.devices import SoftBounds
from pulseline.ops import retention as between
from pulseline.ops import update
from pulseline.ops.crosspoints import DEVICE_INDEX
from pulseline.ops.cuda.batch import Batch
from pulseline.ops.cuda.launch import pairs_anew
from test_cuda_retention import ALL, SHAPES
from test_cuda_update import install
from test_update import MODELS, SEED, TILE_ID, K, Problem, bits, problem

NONE = (None, None, None)
DRAWS = ops.DrawKey(SEED, TILE_ID)


@pytest.fixture
def backend(emulated: Emulated, monkeypatch: pytest.MonkeyPatch) -> Emulated:
    """CUDA's functions run on the emulator; new memory holds NaN."""
    install(emulated, monkeypatch)
    return emulated


@pytest.mark.parametrize("name", MODELS)
def test_construct(backend: Emulated, name: str) -> None:
    device = dataclasses.replace(MODELS[name], **ALL)
    for rows, cols in SHAPES if name == "SoftBounds" else [(9, 33)]:
        want = ops.construct(device.name, device.parameters(), rows, cols, SEED, TILE_ID)
        weight, model = torch.zeros(rows, cols), DEVICE_INDEX[device.name]
        for opposite in (False, True):
            with backend.settings(reverse=opposite):
                got = pairs_anew(weight, model, device.parameters(), DRAWS)
            for a, b in zip(got, want, strict=True):
                assert a is not None
                assert torch.equal(a, b)


def moved(p: Problem, stored: Any, batch: Batch | None = None) -> Tensor:
    weight = p.weight.clone()
    rest = (p.x, p.d, p.device, p.config, p.lr, (SEED, TILE_ID, K))
    update.update_cuda(*update_arguments(weight, stored, *rest), batch=batch)
    return weight


@pytest.mark.parametrize("fidelity", FIDELITIES)
@pytest.mark.parametrize("name", MODELS)
def test_updates(backend: Emulated, name: str, fidelity: str) -> None:
    p = problem(33, 65, 20, MODELS[name], fidelity, group_size=8)
    assert torch.equal(bits(moved(p, NONE)), bits(moved(p, p.stored)))


def test_shared_launches(backend: Emulated) -> None:
    """Arrays with and without stored pairs in one launch."""
    problems = [problem(9, 33, 5, SoftBounds(), lr=0.01 * n) for n in (1, 2, 3)]
    want = [moved(p, p.stored) for p in problems]
    with Batch() as batch:
        got = [moved(p, NONE if n % 2 else p.stored, batch) for n, p in enumerate(problems)]
    for a, b in zip(got, want, strict=True):
        assert torch.equal(bits(a), bits(b))


@pytest.mark.parametrize("name", MODELS)
def test_between_pulses(backend: Emulated, name: str) -> None:
    device = dataclasses.replace(MODELS[name], **ALL, corrupt_devices_prob=0.2)
    p = problem(9, 33, 6, device)
    step, _, bound = p.stored
    words = ops.construct_retention(device.retention(), 9, 33, SEED, TILE_ID)
    anew = (device.name, device.parameters())
    for act in (between.retain_cuda, between.reset_cuda):
        found = []
        for stored in ((step, bound, words), NONE):
            weight = p.weight.clone()
            more = () if stored is not NONE else (*anew, device.retention())
            act(weight, *stored, 0.1, 5, DRAWS, *more)
            found.append(weight)
        assert torch.equal(bits(found[0]), bits(found[1]))
        assert not torch.equal(found[0], p.weight)


@pytest.mark.parametrize("fidelity", ["exact", "expected"])
@pytest.mark.parametrize("name", MODELS)
def test_write_noise(backend: Emulated, name: str, fidelity: str) -> None:
    device = dataclasses.replace(MODELS[name], corrupt_devices_prob=0.2)
    p = problem(9, 33, 6, device, fidelity)
    step, anew = p.stored[0], (device.name, device.parameters())
    hidden, written, changed = p.kernel(), [], []
    for stored, more in ((step, ()), (None, anew)):
        visible = torch.zeros_like(hidden)
        between.disturb_cuda(visible, hidden, stored, 0.1, counted(K), DRAWS, *more)
        written.append(visible.clone())
        rest = (p.x, p.d, device, p.config, p.lr, 0.1, (SEED, TILE_ID, K))
        arguments = redraw_arguments(visible, hidden, step, *rest)
        between.redraw_cuda(*arguments[:2], stored, *arguments[3:], *more)
        changed.append(visible)
    assert torch.equal(bits(written[0]), bits(written[1]))
    assert torch.equal(bits(changed[0]), bits(changed[1]))
    assert not torch.equal(changed[0], written[0])

"""Crosspoints that are drawn anew give the bits of stored ones: every device with all its kinds of
noise, every fidelity, instruction set and thread count, whatever acts between pulses; a state moves
from one to the other.
"""

from __future__ import annotations

import copy
import dataclasses
import gc
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import pulseline as pl
from conftest import Kernels
from device_cases import EXAMPLES, LAST
from pulseline import Array, ops
from pulseline.arrays import Budget
from pulseline.arrays import crosspoints as module
from pulseline.configs import IOConfig, Mapping, UpdateConfig
from pulseline.configs.update import FIDELITIES
from pulseline.devices import ConstantStep, Ideal, LinearStep, PulsedDevice, SoftBounds
from pulseline.errors import ConfigError
from test_degradation import AGEING
from test_update import MODELS, SHAPES, Problem, bits, problem

STORED, DRAWN = Mapping(crosspoints="stored"), Mapping(crosspoints="drawn")
NONE: Any = None  # no stored words


def anew(p: Problem) -> Problem:
    return p._replace(stored=(NONE, NONE, NONE))  # type: ignore[arg-type]


def same(kernels: Kernels, p: Problem) -> Tensor:
    """On all instruction sets; returns the new weights."""
    want = p.kernel()
    for isa, threads in kernels.each():
        got = anew(p).kernel()
        wrong = int((bits(got) != bits(want)).sum())
        assert wrong == 0, f"{isa}, {threads} threads: {wrong} differ"
    return want


# ---- pulses ----


@pytest.mark.parametrize("fidelity", FIDELITIES)
@pytest.mark.parametrize("name", MODELS)
def test_updates(kernels: Kernels, name: str, fidelity: str) -> None:
    device = MODELS[name]
    p = problem(37, 131, 40, device, fidelity, lr=0.002)
    assert (same(kernels, p) != p.weight).float().mean() > 0.1


@pytest.mark.parametrize("fidelity", ["exact", "grouped"])
@pytest.mark.parametrize("name", LAST)
def test_low_rank_noise(kernels: Kernels, name: str, fidelity: str) -> None:
    same(kernels, problem(37, 131, 40, LAST[name], fidelity, lr=0.002, noise="lowrank"))


@pytest.mark.parametrize("fidelity", FIDELITIES)
@pytest.mark.parametrize(("rows", "cols", "batch"), SHAPES)
def test_sizes(kernels: Kernels, rows: int, cols: int, batch: int, fidelity: str) -> None:
    same(kernels, problem(rows, cols, batch, SoftBounds(), fidelity, lr=0.002))


@pytest.mark.parametrize("fidelity", ["exact", "strict", "grouped"])
def test_few_pulses(kernels: Kernels, fidelity: str) -> None:
    """Most blocks are met by nothing, which draws nothing; several slices of train words."""
    p = problem(70, 300, 1, SoftBounds(), fidelity, lr=1e-4)
    assert 0 < (same(kernels, p) != p.weight).float().mean() < 0.2
    same(kernels, problem(40, 70, 1100, SoftBounds(), fidelity, lr=1e-4))


# ---- an array's whole life ----


def array(device: Any, mapping: Mapping, rows: int = 33, cols: int = 70, **options: Any) -> Array:
    made = Array(rows, cols, device, io=IOConfig(), seed=7, tile_id=3, mapping=mapping, **options)
    made.initialise()
    return made


def live(t: Array) -> list[Tensor]:
    """Everything that reads the crosspoints; what is left behind."""
    g = torch.Generator().manual_seed(1)
    rows, cols = t.shape
    left = [*t.bounds]
    for n in range(3):
        x, d = torch.randn(7, cols, generator=g), torch.randn(7, rows, generator=g)
        t.pulse(x, d, 0.01)
        left += [t.pulsed.clone(), t.held.clone(), t.read(x), t.column(n)]
        if isinstance(t.crossbar.device, PulsedDevice):
            t.age(3)
            t.reset(torch.tensor([n, cols - 1]))
        t.clip()
        left += [t.pulsed.clone(), t.held.clone()]
    t.program(torch.randn(rows, cols, generator=g))
    left.append(t.held.clone())
    t.reset()
    return [*left, t.held.clone(), t.pulsed.clone()]


LIVES: dict[str, dict[str, Any]] = {
    "plain": {},
    "ages": AGEING,
    "write noise": {"write_noise_std": 2.0},
    "both": {**AGEING, "write_noise_std": 2.0, "batch": 3},
}


@pytest.mark.parametrize("life", LIVES)
@pytest.mark.parametrize("name", EXAMPLES)
def test_lives(kernels: Kernels, name: str, life: str) -> None:
    device = dataclasses.replace(EXAMPLES[name], **LIVES[life])
    want = live(array(device, STORED))
    for isa, threads in kernels.each():
        got = live(array(device, DRAWN))
        for n, (a, b) in enumerate(zip(got, want, strict=True)):
            if a.dtype is torch.float32 and n < 2:
                assert torch.equal(a, b), f"{isa}, {threads} threads: bounds"
        weights = [(a, b) for a, b in zip(got, want, strict=True) if a.shape == (33, 70)]
        assert all(torch.equal(bits(a), bits(b)) for a, b in weights), f"{isa}, {threads} threads"


@pytest.mark.parametrize("fidelity", FIDELITIES)
def test_block_diagonal_matrices(kernels: Kernels, fidelity: str) -> None:
    device = dataclasses.replace(SoftBounds(), **LIVES["both"])
    update = UpdateConfig(fidelity=fidelity)
    made = [array(device, mapping, 36, 60, blocks=3, update=update) for mapping in (STORED, DRAWN)]
    for _, threads in kernels.each():
        del threads
        for t in made:
            t.pulse(torch.ones(5, 60), torch.ones(5, 36), 0.01)
            t.age(3)
        for name in ("held", "pulsed"):
            assert torch.equal(*(bits(getattr(t, name)) for t in made))


@pytest.mark.parametrize("omega", [0.0, 0.6, "auto"])
def test_programming_in_parts(monkeypatch: pytest.MonkeyPatch, omega: float | str) -> None:
    """Parts of rows have the bits of the whole, drawn and stored."""
    device = SoftBounds(corrupt_devices_prob=0.1, write_noise_std=1.0)
    target = torch.randn(33, 70, generator=torch.Generator().manual_seed(2))
    found = []
    for at_once in (1 << 20, 1000, 1):
        monkeypatch.setattr(module, "_AT_ONCE", at_once)
        for mapping in (STORED, DRAWN):
            t = array(device, dataclasses.replace(mapping, omega=omega))
            t.program(target)
            found.append((t.held.clone(), t.pulsed.clone(), *t.bounds))
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            assert torch.equal(a, b)


def test_rows_are_the_rows_of_the_whole(isa: str) -> None:
    del isa
    device = LAST["SoftBoundsReference"]
    whole = ops.construct(device.name, device.parameters(), 50, 37, 5, 6)
    part = ops.construct(device.name, device.parameters(), 13, 37, 5, 6, 29)
    assert all(torch.equal(a[29:42], b) for a, b in zip(whole, part, strict=True))
    normals = ops.initial_normals(50, 37, 5, 6)
    assert torch.equal(normals[29:42], ops.initial_normals(13, 37, 5, 6, 29))


# ---- what holds what ----


def test_what_is_stored() -> None:
    for device, names in (
        (ConstantStep(), {"step", "bound"}),
        (SoftBounds(), {"step", "slope", "bound"}),
        (LinearStep(**AGEING), {"step", "slope", "bound", "words"}),
        (Ideal(), set()),
    ):
        stored, drawn = array(device, STORED) if names else Array(3, 4, device), None
        held = {name for name, t in stored.crosspoints.named_buffers()}
        assert held == names
        size = sum(t.nbytes for t in stored.crosspoints.buffers())
        assert stored.crosspoints.stored_bytes == size
        if names:
            drawn = array(device, DRAWN)
            assert not list(drawn.crosspoints.buffers())


def test_auto_is_about_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of all arrays that live; copies and what was freed count too."""
    gc.collect()
    before = Budget.held()
    monkeypatch.setattr(Budget, "most", before + 25 * 12 * 2)
    one = Array(5, 5, SoftBounds(), seed=1)
    two = Array(5, 5, SoftBounds(), seed=2)
    three = Array(5, 5, SoftBounds(), seed=3)
    assert [t.crosspoints.stored for t in (one, two, three)] == [True, True, False]
    assert Budget.held() == before + 600
    copied = copy.deepcopy(two)
    again = pickle.loads(pickle.dumps(one))
    assert Budget.held() == before + 1200
    del one, two, copied, again
    gc.collect()
    assert Budget.held() == before
    assert Array(5, 5, SoftBounds(), seed=3).crosspoints.stored
    assert Array(5, 5, SoftBounds(), seed=4, mapping=STORED).crosspoints.stored


def test_states_move_between_them() -> None:
    """The one field of a mapping that a state lacks and may differ."""
    x, d = torch.randn(5, 9), torch.randn(5, 7)

    def layer(mapping: Mapping) -> pl.nn.AnalogLinear:
        return pl.nn.AnalogLinear(9, 7, device=SoftBounds(**AGEING), mapping=mapping)

    first, second = layer(STORED), layer(DRAWN)
    first.cell.update(x, d, 0.05)
    state = copy.deepcopy(first.state_dict())
    assert "crosspoints" not in str(state)
    second.load_state_dict(state)
    third = layer(STORED)
    third.load_state_dict(copy.deepcopy(second.state_dict()))
    for one in (first, second, third):
        one.cell.update(x, d, 0.05)
    assert pl.digest(first.state_dict()) == pl.digest(second.state_dict())
    assert pl.digest(first.state_dict()) == pl.digest(third.state_dict())


def test_reseeding_draws_others() -> None:
    made = [array(SoftBounds(), mapping) for mapping in (STORED, DRAWN)]
    for t in made:
        t.reseed(99)
    assert torch.equal(made[0].bounds[0], made[1].bounds[0])
    assert torch.equal(*(t.held for t in made))


def test_training_and_its_copies() -> None:
    """A network, its deep copy and its pickle, trained on: the digest of the stored one."""

    def train(net: nn.Module) -> str:
        opt = pl.optim.AnalogSGD(net.parameters(), lr=0.1)
        x = torch.randn(8, 6, generator=torch.Generator().manual_seed(3))
        for _ in range(3):
            opt.zero_grad()
            net(x).square().sum().backward()
            opt.step()
        return pl.digest(net.state_dict())

    torch.manual_seed(0)
    digital = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 2))
    said = []
    for mapping in (STORED, DRAWN):
        net = pl.to_analog(digital, SoftBounds(), seed=1, mapping=mapping)
        copies = [net, copy.deepcopy(net), pickle.loads(pickle.dumps(net))]
        said += [train(one) for one in copies]
    assert len(set(said)) == 1


# ---- what is refused ----


def test_half_of_the_pairs() -> None:
    p = problem(3, 4, 2, SoftBounds())
    with pytest.raises(ConfigError, match=r"^device 'SoftBounds' lacks its slope; build it with"):
        p._replace(stored=(p.stored[0], NONE, p.stored[2])).kernel()  # type: ignore[arg-type]
    step, _, bound = p.stored
    words = ops.construct_retention(SoftBounds().retention(), 3, 4, 0, 0)
    draws = ops.DrawKey(0, 0)
    with pytest.raises(ConfigError, match=r"^words is None; give all of step, bound, words, or"):
        ops.retain_(p.weight, step, bound, NONE, 0.5, 0, draws)
    with pytest.raises(ConfigError, match=r"^device is '' with 0 parameters; use one of"):
        ops.retain_(p.weight, NONE, NONE, NONE, 0.5, 0, draws)
    del words


def test_how_is_one_of_three() -> None:
    with pytest.raises(ConfigError, match=r"crosspoints.*use one of auto, stored, drawn"):
        Mapping(crosspoints="often")


def test_models_without_slopes_store_none(isa: str) -> None:
    del isa
    p = problem(33, 70, 9, ConstantStep(), lr=0.002)
    step, _, bound = p.stored
    flat = p._replace(stored=(step, NONE, bound))  # type: ignore[arg-type]
    assert torch.equal(flat.kernel(), p.kernel())
    assert UpdateConfig().fidelity

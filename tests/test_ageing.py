"""Age is counted in samples of the array's own: decay, drift and diffusion under any cut.

Event n falls behind sample n ``batch``, between two samples of a call, so that nothing depends on
how samples are cut into calls, on the optimizer's list or on who froze a weight. The equations of
an event: tests/test_degradation.py.
"""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import pulseline as pl
from pulseline import reference
from pulseline.devices import ConstantStep, LinearStep, SoftBounds
from pulseline.ops import drift_log2
from pulseline.reference import retention as spec

AGES: dict[str, Any] = {
    "lifetime": 30.0,
    "lifetime_dtod": 0.2,
    "reset_dtod": 0.05,
    "diffusion": 0.004,
    "drift_nu": 0.05,
}
ROWS, COLS, SAMPLES = 5, 7, 23
CUTS = [(23,), (1,) * 23, (8, 8, 7), (3, 0, 20), (22, 1), (10, 13)]


def numbers(count: int, size: int, seed: int) -> Tensor:
    return torch.randn(count, size, generator=torch.Generator().manual_seed(seed))


X, D = numbers(SAMPLES, COLS, 1), numbers(SAMPLES, ROWS, 2) * 0.1


def tile(device: pl.devices.Device, fidelity: str = "auto") -> pl.Array:
    t = pl.Array(ROWS, COLS, device, update=pl.configs.UpdateConfig(fidelity=fidelity), seed=3)
    t.initialise()
    return t


def pieces(cuts: tuple[int, ...]) -> list[slice]:
    edges = list(itertools.accumulate(cuts, initial=0))
    return [slice(a, b) for a, b in itertools.pairwise(edges)]


@pytest.mark.parametrize("cuts", CUTS, ids=str)
@pytest.mark.parametrize("batch", [1, 4, 8, 23, 100])
@pytest.mark.parametrize("write_noise", [0.0, 5.0])
def test_updates_under_any_cut(batch: int, cuts: tuple[int, ...], write_noise: float) -> None:
    """Bits of pulses sample by sample and the reference's event behind every multiple of it."""
    device = SoftBounds(batch=batch, write_noise_std=write_noise, **AGES)
    by_hand = tile(SoftBounds(write_noise_std=write_noise))  # the same devices, which do not age
    pairs = reference.construct(device, ROWS, COLS, 3, 0)
    drawn = spec.retention(device, ROWS, COLS, 3, 0)
    for n in range(SAMPLES):
        by_hand.pulse(X[n : n + 1], D[n : n + 1], 0.05)
        if (n + 1) % batch == 0:
            event, cells = n // batch, by_hand.pulsed.clone()
            aged = spec.age(cells, pairs, drawn, drift_log2(event + 1), event, 3, 0)
            by_hand.pulsed.copy_(aged)
            if by_hand.hidden is not None:  # the noise of the last write stays
                by_hand.held.add_(aged - cells)
    cut = tile(device)
    for part in pieces(cuts):
        cut.pulse(X[part], D[part], 0.05)
    assert cut.age_count == SAMPLES
    assert torch.equal(cut.weight.data, by_hand.weight.data)
    assert torch.equal(cut.pulsed, by_hand.pulsed)


@pytest.mark.parametrize("cuts", CUTS, ids=str)
def test_a_frozen_weight_ages_with_its_reads(cuts: tuple[int, ...]) -> None:
    """In no optimizer's list; reads of later samples see the older weight, under any cut."""
    device = LinearStep(batch=4, **AGES)

    def layer() -> pl.nn.AnalogLinear:
        made = pl.nn.AnalogLinear(COLS, ROWS, device=device, seed=3)
        made.weight.requires_grad_(False)
        return made

    whole, cut = layer(), layer()
    start = whole.weight.detach().clone()
    y = whole(X)
    assert torch.equal(torch.cat([cut(X[part]) for part in pieces(cuts)]), y)
    assert torch.equal(cut.weight, whole.weight)
    assert not torch.equal(whole.weight, start)
    assert whole.cell.array.age_count == SAMPLES
    # The same weights as five events by hand; the first four samples saw none of them.
    by_hand = layer()
    assert torch.equal(by_hand.cell.array._forward(X[:4]), y[:4].detach() - whole.bias.detach())
    by_hand.cell.array.age(20)
    assert torch.equal(by_hand.weight, whole.weight)


def test_what_does_not_age() -> None:
    """Evaluation, reads of a trained weight, devices without age, zero samples."""
    trained = pl.nn.AnalogLinear(COLS, ROWS, device=LinearStep(**AGES), seed=3)
    before = trained.weight.detach().clone()
    trained(X)
    with torch.no_grad():
        trained(X)
    trained.eval()
    trained.weight.requires_grad_(False)
    trained(X)
    trained.train()
    trained(X[:0])
    assert torch.equal(trained.weight, before)
    assert trained.cell.array.age_count == 0
    t = tile(ConstantStep())
    t.pulse(X, D, 0.1)
    assert t.age_count == 0


def test_optimizers_list_does_not_matter() -> None:
    """A frozen first layer ages the same inside and outside of the optimizer's list."""

    def run(listed: bool) -> list[Tensor]:
        torch.manual_seed(0)
        digital = nn.Sequential(nn.Linear(COLS, 6), nn.Tanh(), nn.Linear(6, ROWS))
        net = pl.nn.to_analog(digital, SoftBounds(batch=3, **AGES), seed=1)
        net[0].requires_grad_(False)
        chosen = net.parameters() if listed else net[2].parameters()
        optimizer = pl.optim.AnalogSGD(chosen, lr=0.1)
        for part in pieces((8, 8, 7)):
            optimizer.zero_grad()
            net(X[part]).square().sum().backward()
            optimizer.step()
        return [p.detach().clone() for p in net.parameters()]

    for a, b in zip(run(True), run(False), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("at", [2, 9, 22])
@pytest.mark.parametrize("which", ["x", "d"])
def test_a_bad_sample_leaves_everything(which: str, at: int) -> None:
    """The call is cut in six, and still nothing is written before all of it is checked."""
    t = tile(SoftBounds(batch=4, write_noise_std=2.0, **AGES))
    before = [t.weight.data.clone(), t.pulsed.clone()]
    x, d = X.clone(), D.clone()
    (x if which == "x" else d)[at, 1] = float("nan")
    with pytest.raises(pl.ConfigError, match=rf"{which}\[{at}\] holds a NaN"):
        t.pulse(x, d, 0.1)
    with pytest.raises(pl.ConfigError, match="use as many of each"):
        t.pulse(X, D[:-1], 0.1)
    assert torch.equal(t.weight.data, before[0])
    assert torch.equal(t.pulsed, before[1])
    assert (t.counts().update, t.age_count) == (0, 0)


def test_state_continues_between_two_events() -> None:
    device = SoftBounds(batch=10, **AGES)
    whole, first = tile(device), tile(device)
    whole.pulse(X, D, 0.05)
    first.pulse(X[:13], D[:13], 0.05)
    second = tile(device)
    second.weight.data.copy_(first.weight.data)
    second.load_state(first.state())
    assert second.age_count == 13
    second.pulse(X[13:], D[13:], 0.05)
    assert torch.equal(second.weight.data, whole.weight.data)


def test_resets_draw_by_age() -> None:
    t = tile(ConstantStep(reset_std=0.02, lifetime=1e6, w_max=8.0, w_min=-8.0))
    drawn = []
    for samples in (0, 0, 1):
        t.age(samples)
        t.reset()
        drawn.append(t.weight.data.clone())
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


@pytest.mark.parametrize("batch", [0, -1, 1.5, True])
def test_bad_batch(batch: Any) -> None:
    with pytest.raises(pl.ConfigError, match=r"batch is .* use a whole number of samples"):
        SoftBounds(batch=batch)
    with pytest.raises(pl.ConfigError, match="samples is -1"):
        tile(SoftBounds()).age(-1)

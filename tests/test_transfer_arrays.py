"""Taps, counted pulses and converters of arrays: every device, ageing and write noise included; any
cut, any backend of the values, states in the middle.
"""

from __future__ import annotations

import copy
import dataclasses
import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor

import pulseline as pl
from device_cases import EXAMPLES
from pulseline import ops
from pulseline.configs import FIDELITIES, IOConfig, Mapping, ReadConfig, UpdateConfig
from pulseline.devices import Ideal, SoftBounds
from pulseline.errors import ConfigError
from pulseline.reference.read import convert_column
from pulseline.reference.transfer import pulse_counted

ROWS, COLS, SAMPLES = 9, 37, 20
LR = 0.05
AGEING: dict[str, Any] = {
    "ageing": {"lifetime": 30.0, "drift_nu": 0.05, "diffusion": 0.01, "batch": 3},
    "write noise": {"write_noise_std": 2.0},
    "both": {"write_noise_std": 2.0, "lifetime": 30.0, "batch": 4},
}
DEVICES: dict[str, Any] = {
    **EXAMPLES,
    "Ideal": Ideal(),
    **{name: SoftBounds(**options) for name, options in AGEING.items()},
}


def normals(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def array(device: Any, fidelity: str = "auto", **settings: Any) -> pl.Array:
    update = UpdateConfig(fidelity=fidelity)
    made = pl.Array(ROWS, COLS, device, update=update, seed=3, tile_id=1, **settings)
    made.initialise()
    return made


def batch() -> tuple[Tensor, Tensor]:
    return normals(SAMPLES, COLS, seed=1), 0.1 * normals(SAMPLES, ROWS, seed=2)


def taps() -> Tensor:
    g = torch.Generator().manual_seed(0)
    at = torch.randint(SAMPLES, (15,), generator=g).sort().values
    at[0], at[-2:] = 0, SAMPLES - 1
    return torch.stack((at, torch.randint(COLS, (15,), generator=g)), 1).to(torch.int32)


def cut(one: pl.Array, x: Tensor, d: Tensor, at: Tensor) -> Tensor:
    """Updates that end behind the tapped samples."""
    values, first = torch.full((ROWS, len(at)), math.nan), 0
    for t, (sample, column) in enumerate(at.tolist()):
        if sample >= first:
            one.pulse(x[first : sample + 1], d[first : sample + 1], LR)
            first = sample + 1
        values[:, t] = one.held[:, column]
    if first < len(x):
        one.pulse(x[first:], d[first:], LR)
    return values


def same(a: pl.Array, b: pl.Array) -> bool:
    weights = torch.equal(a.held, b.held) and torch.equal(a.pulsed, b.pulsed)
    return weights and a.state() == b.state()


# ---- taps ----


@pytest.mark.parametrize("fidelity", ["auto", *FIDELITIES])
@pytest.mark.parametrize("device", DEVICES)
def test_taps_are_a_cut_batch(device: str, fidelity: str) -> None:
    one, other = (array(DEVICES[device], fidelity) for _ in range(2))
    values = one.pulse_tapped(*batch(), LR, taps())
    assert torch.equal(values, cut(other, *batch(), taps()))
    assert same(one, other)


def test_taps_of_drawn_crosspoints() -> None:
    one, other = (array(SoftBounds(), mapping=Mapping(crosspoints=c)) for c in ("stored", "drawn"))
    assert torch.equal(*(a.pulse_tapped(*batch(), LR, taps()) for a in (one, other)))
    assert torch.equal(one.held, other.held)


@pytest.mark.parametrize("device", ["SoftBounds", "both", "Ideal"])
def test_taps_without_samples_or_rate(device: str) -> None:
    one = array(DEVICES[device])
    before = one.held.clone()
    x, d = batch()
    values = one.pulse_tapped(x, d, 0.0, taps())
    if device != "both":  # which ages
        assert torch.equal(values, before[:, taps()[:, 1].long()])
    none = one.pulse_tapped(x[:0], d[:0], LR, taps()[:0])
    assert none.shape == (ROWS, 0)
    assert one.counts().update == SAMPLES


@pytest.mark.parametrize("fidelity", ["exact", "grouped"])
@pytest.mark.parametrize("device", ["SoftBounds", "both", "Ideal"])
def test_refused_taps(device: str, fidelity: str) -> None:
    """All or nothing, in the words of a pulse."""
    one = array(DEVICES[device], fidelity)
    held, state = one.held.clone(), one.state()
    x, d = batch()
    late = x.clone()
    late[-1, 3] = math.nan
    for match, call in (
        (rf"^x\[{SAMPLES - 1}\] holds a NaN", (late, d, LR, taps())),
        ("^lr is -1", (x, d, -1.0, taps())),
        (r"^x has shape \(20, 36\)", (x[:, 1:], d, LR, taps())),
        (r"^d has dtype torch\.float64", (x, d.double(), LR, taps())),
        ("^x has 20 samples and d has 19", (x, d[1:], LR, taps())),
        (r"^taps\[0\] is sample 0, column 37 of 20 samples", (x, d, LR, taps() + 37 * (1 - 0))),
        (r"behind a later sample; sort taps", (x, d, LR, taps().flip(0))),
        (r"^taps have dtype torch\.int64", (x, d, LR, taps().long())),
        ("^an argument is a list", (x, d, LR, taps().tolist())),
    ):
        if "column 37" in match:
            call = (x, d, LR, torch.tensor([[0, 37]], dtype=torch.int32))
        with pytest.raises(ConfigError, match=match):
            one.pulse_tapped(*call)
        assert torch.equal(one.held, held)
        assert one.state() == state


def test_blocks_are_refused() -> None:
    one = pl.Array(4, 6, SoftBounds(), seed=0, blocks=2)
    none = torch.empty(0, 2, dtype=torch.int32)
    with pytest.raises(
        ConfigError, match=r"^columns are tapped of a matrix of 2 blocks; use a lay"
    ):
        one.pulse_tapped(torch.ones(1, 6), torch.ones(1, 4), LR, none)
    with pytest.raises(ConfigError, match=r"^single crosspoints of a matrix of 2 blocks"):
        one.step(torch.zeros(1, dtype=torch.int32), torch.ones(4, 1))


# ---- counted pulses ----


def counts(lines: int, seed: int = 0) -> Tensor:
    return (3 * normals(ROWS, lines, seed=seed)).round()


LINES = torch.tensor([35, 36, 0, 1, 2, 20], dtype=torch.int32)


@pytest.mark.parametrize("device", DEVICES)
def test_steps(device: str) -> None:
    """As the reference; any cut into calls; hidden weights move, visible ones follow."""
    one, other = (array(DEVICES[device]) for _ in range(2))
    n, cells, kind = counts(6), one.crosspoints, one.crossbar.device
    pairs = (
        None
        if cells.step is None
        else ops.construct(kind.name, kind.parameters(), ROWS, COLS, *one.identity.key)
    )
    stored = None if pairs is None else pl.reference.Stored(*pairs)
    want = pulse_counted(
        *(one.pulsed.clone(), stored, LINES, n, kind, "exact"),
        number=0,
        seed=one.identity.key[0],
        tile_id=one.identity.key[1],
    )
    before = one.held.clone()
    one.step(LINES, n)
    assert torch.equal(one.pulsed, want)
    assert one.stepped == 6
    for part in (slice(0, 4), slice(4, 4), slice(4, 6)):
        other.step(LINES[part], n[:, part].contiguous())
    assert same(one, other)
    came = torch.zeros(ROWS, COLS, dtype=torch.bool)
    came[:, LINES.long()] = n != 0
    assert torch.equal(one.held[~came], before[~came])
    if one.hidden is not None:
        noise = (one.held - one.hidden)[came] / one._deviation
        assert abs(noise.var() - 1) < 5 * math.sqrt(2 / int(came.sum()))


def test_write_noise_of_steps_is_new() -> None:
    """The same step twice draws twice, and nothing that updates or programming draw."""
    one = array(SoftBounds(write_noise_std=2.0, dw_min_std=0.0))
    ones, seen = torch.ones(ROWS, 1), []
    for _ in range(2):
        one.step(LINES[:1], ones)
        seen.append((one.held - one.pulsed)[:, 35])
    one.program(one.pulsed)
    seen.append((one.held - one.pulsed)[:, 35])
    assert all((a - b).abs().min() > 0 for a, b in itertools.pairwise(seen))


def test_steps_are_counted() -> None:
    one = array(SoftBounds())
    one.step(LINES, counts(6))
    one.count_pulses()
    one.step(LINES, counts(6))
    assert one.fired is not None
    n = counts(6).abs()
    assert one.fired.tolist() == [n.sum(), 0, 0, n.amax(0).sum(), n.shape[1]]


def test_what_was_written_is_programmed_first() -> None:
    one, other = array(SoftBounds()), array(SoftBounds())
    target = 0.1 * normals(ROWS, COLS)
    with torch.no_grad():
        one.weight.copy_(target)
    one.step(LINES, counts(6))
    other.program(target)
    other.step(LINES, counts(6))
    assert same(one, other)


def test_refused_steps_are_not_counted() -> None:
    one = array(SoftBounds())
    held = one.held.clone()
    for columns, n in ((LINES[:2], torch.full((ROWS, 2), 0.5)), (LINES[:2] * 0, counts(2))):
        with pytest.raises(ConfigError):
            one.step(columns, n)
    assert one.stepped == 0
    assert torch.equal(one.held, held)


# ---- converters ----


def test_converters() -> None:
    """Of the forward reads by default; any cut; numbers go on."""
    read = ReadConfig(out_noise=0.03, w_noise=0.02)
    one, other = (array(SoftBounds(), io=IOConfig(forward=read)) for _ in range(2))
    values = 0.3 * normals(ROWS, 7)
    got = one.convert(values)
    key = {"seed": one.identity.key[0], "tile_id": one.identity.key[1]}
    assert torch.equal(got, convert_column(values, read, number=0, **key))
    parts = [other.convert(values[:, :3]), other.convert(values[:, 3:])]
    assert torch.equal(torch.cat(parts, 1), got)
    assert one.transferred == 7
    assert torch.equal(one.convert(values), convert_column(values, read, number=7, **key))
    coarse = ReadConfig(out_noise=0.0, out_res=0.25, out_bound=1.0)
    assert set(one.convert(values, coarse).unique().tolist()) <= {-1.0, -0.5, 0.0, 0.5, 1.0}
    assert one.convert(values, ReadConfig.perfect()) is values
    assert one.transferred == 28


def test_wires_are_refused() -> None:
    one = array(SoftBounds())
    with pytest.raises(ConfigError, match=r"^ir_drop is on, where a crosspoint depends on all"):
        one.convert(normals(ROWS, 2), ReadConfig(ir_drop="approx", wire_resistance=0.01))
    assert one.transferred == 0


# ---- states ----


def everything(one: pl.Array) -> list[Tensor]:
    values = one.pulse_tapped(*batch(), LR, taps())
    one.step(LINES, counts(6))
    return [values, one.convert(values), one.held.clone(), one.pulsed.clone()]


@pytest.mark.parametrize("device", ["SoftBounds", "both", "Ideal"])
def test_states_go_on(device: str) -> None:
    one, other = array(DEVICES[device]), array(DEVICES[device])
    everything(one)
    state, weights = one.state(), copy.deepcopy(one.state_dict())
    assert (state["counters"]["stepped"], state["counters"]["transferred"]) == (6, 15)
    twin = copy.deepcopy(one)
    want = everything(one)
    other.load_state_dict(weights)
    other.load_state(state)
    for again in (other, twin):
        assert all(torch.equal(a, b) for a, b in zip(everything(again), want, strict=True))
    old = {name: n for name, n in state["counters"].items() if name in ("update", "age")}
    other.load_state({**state, "counters": old})
    assert (other.stepped, other.transferred) == (0, 0)


def test_another_seed_counts_anew() -> None:
    one = array(SoftBounds())
    everything(one)
    one.reseed(7)
    assert (one.stepped, one.transferred) == (0, 0)
    assert dataclasses.asdict(one.identity)["seed"] == 7

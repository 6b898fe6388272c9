"""Arrays and cells of one: programming, bounds, counters, pending pairs, state. Equal bits."""

from __future__ import annotations

import copy
import pickle
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import pulseline as pl
from pulseline import Cell
from pulseline.arrays import AnalogParameter
from pulseline.cells import make_cell
from pulseline.configs import IOConfig, Mapping, UpdateConfig
from pulseline.devices import ConstantStep, Ideal, SoftBounds
from pulseline.errors import ConfigError

ROWS, COLS = 5, 7
PLAIN = ConstantStep(w_max=1.0, w_min=-1.0, w_max_dtod=0.0, w_min_dtod=0.0)  # bounds are +-1


def tile(**options: object) -> pl.Array:
    made = pl.Array(ROWS, COLS, **{"seed": 0, **options})  # type: ignore[arg-type]
    made.initialise()
    return made


def cell(**options: object) -> Cell:
    crossbar = pl.Crossbar.of(**options)  # type: ignore[arg-type]
    made = make_cell(ROWS, COLS, crossbar, pl.Identity(0))
    made.initialise()
    return made


def normals(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# ---- programming ----


def test_programmed_weights_lie_within_the_bounds_of_each_crosspoint() -> None:
    t = pl.Array(40, 50, SoftBounds(w_max_dtod=0.5, w_min_dtod=0.5), seed=3)
    lo, hi = t.bounds
    assert lo.dtype == hi.dtype == torch.float32
    assert (lo <= 0).all()
    assert (hi >= 0).all()
    assert hi.unique().numel() > 100  # each crosspoint has its own
    t.program(torch.full((40, 50), 9.0))
    assert torch.equal(t.weight.data, hi)
    t.program(torch.full((40, 50), -9.0))
    assert torch.equal(t.weight.data, lo)
    target = normals(40, 50)
    t.program(target)
    assert torch.equal(t.weight.data, target.clamp(lo, hi))


def test_ideal_tile_has_no_bounds() -> None:
    t = pl.Array(ROWS, COLS, Ideal())
    target = 1e6 * normals(ROWS, COLS)
    t.program(target)
    assert torch.equal(t.weight.data, target)
    assert t.crosspoints.step is None


def test_clip_leaves_no_negative_zero() -> None:
    t = pl.Array(ROWS, COLS, PLAIN)
    t.program(torch.full((ROWS, COLS), -0.0))
    assert not torch.signbit(t.weight.data).any()


def test_omega_scales_the_largest_weight_to_omega() -> None:
    t = pl.Array(ROWS, COLS, PLAIN, mapping=Mapping(omega=0.5))
    target = 8 * normals(ROWS, COLS)
    t.program(target)
    largest = float(target.abs().max())
    assert t.out_scale == largest / 0.5
    # One division and one product, each rounded once: 2 ulp of the value.
    torch.testing.assert_close(t.effective_weight(), target, rtol=2 * 2**-23, atol=0.0)
    assert abs(float(t.held.abs().max()) - 0.5) <= 2**-24


def test_omega_scales_reads_and_updates() -> None:
    """out_scale W x with lr / out_scale is what the unscaled matrix does (powers of two: exact)."""
    target = normals(ROWS, COLS)
    target[0, 0] = 8.0
    scaled = pl.Array(ROWS, COLS, Ideal(), io=IOConfig.perfect(), mapping=Mapping(omega=0.5))
    plain = pl.Array(ROWS, COLS, Ideal(), io=IOConfig.perfect())
    scaled.program(target)
    plain.program(target)
    assert scaled.out_scale == 16.0
    x, d = normals(3, COLS, seed=1), normals(3, ROWS, seed=2)
    for _ in range(2):
        assert torch.equal(scaled.read(x), plain.read(x))
        assert torch.equal(scaled.read(d, True), plain.read(d, True))
        scaled.pulse(x, d, 0.25)
        plain.pulse(x, d, 0.25)
        assert torch.equal(scaled.effective_weight(), plain.weight.data)


def test_zero_matrix_with_omega() -> None:
    t = pl.Array(ROWS, COLS, PLAIN, mapping=Mapping(omega=0.5))
    t.program(torch.zeros(ROWS, COLS))
    assert t.out_scale == 1.0


def test_identity_decides_devices_and_weights() -> None:
    same, other_seed, other_id = tile(seed=1), tile(seed=2), tile(seed=1, tile_id=1)
    again = tile(seed=1)
    assert torch.equal(same.weight.data, again.weight.data)
    for this in ("step", "slope", "bound"):
        assert torch.equal(*(getattr(a.crosspoints, this) for a in (same, again)))
    for t in (other_seed, other_id):
        assert not torch.equal(same.weight.data, t.weight.data)
        assert not torch.equal(same.bounds[1], t.bounds[1])


def test_torch_random_state_is_neither_used_nor_moved() -> None:
    before = torch.get_rng_state()
    torch.manual_seed(1)
    a = tile()
    ya = a.read(torch.ones(2, COLS))
    torch.manual_seed(2)
    state = torch.get_rng_state()
    b = tile()
    assert torch.equal(b.read(torch.ones(2, COLS)), ya)
    b.pulse(torch.ones(2, COLS), torch.ones(2, ROWS), 0.1)
    assert torch.equal(torch.get_rng_state(), state)
    torch.set_rng_state(before)


# ---- counters ----


def test_counters_count_samples() -> None:
    t = tile()
    t.read(normals(3, COLS))
    t.read(normals(4, ROWS), True)
    t.pulse(normals(2, COLS), normals(2, ROWS), 0.1)
    t.pulse(normals(6, COLS), normals(6, ROWS), 0.1)
    assert (t.counts().forward, t.counts().backward, t.counts().update, t.age_count) == (3, 4, 8, 0)


@pytest.mark.parametrize("cuts", [(5,), (1, 4), (2, 0, 3), (1, 1, 1, 1, 1)])
def test_cutting_a_batch_changes_no_bit(cuts: tuple[int, ...]) -> None:
    x, d = normals(5, COLS, seed=1), normals(5, ROWS, seed=2)
    whole, cut = tile(), tile()
    y, g = whole.read(x), whole.read(d, True)
    whole.pulse(x, d, 0.05)
    assert torch.equal(torch.cat([cut.read(part) for part in x.split(cuts)]), y)
    assert torch.equal(torch.cat([cut.read(part, True) for part in d.split(cuts)]), g)
    for x_part, d_part in zip(x.split(cuts), d.split(cuts), strict=True):
        cut.pulse(x_part, d_part, 0.05)
    assert torch.equal(cut.weight.data, whole.weight.data)


def test_evaluation_is_reproducible_and_free() -> None:
    t = tile()
    x, d = normals(6, COLS), normals(6, ROWS)
    before = t.state()
    y = t.evaluate(x)
    assert not torch.equal(t.evaluate(x), y)  # fresh noise within one evaluation
    t.begin_evaluation()
    assert torch.equal(torch.cat([t.evaluate(part) for part in x.split((1, 3, 2))]), y)
    t.evaluate(d, transposed=True)
    assert t.state() == before
    assert not torch.equal(t.read(x), y)  # training reads have other draws


# ---- pending pairs ----


def pairs() -> list[tuple[Tensor, Tensor]]:
    return [(normals(n, COLS, seed=n), normals(n, ROWS, seed=10 + n)) for n in (3, 1, 2)]


@pytest.mark.parametrize("fidelity", ["strict", "exact"])
def test_pending_pairs_are_one_concatenated_update(fidelity: str) -> None:
    update = UpdateConfig(fidelity=fidelity)
    together, one_by_one = tile(update=update), tile(update=update)
    left = cell(update=update)
    start = together.weight.data.clone()
    together.pulse(torch.cat([x for x, _ in pairs()]), torch.cat([d for _, d in pairs()]), 0.05)
    for x, d in pairs():
        one_by_one.pulse(x, d, 0.05)
        left.pending.append((x, d))
    left.update_pending(0.05)
    assert not torch.equal(together.weight.data, start)
    assert torch.equal(one_by_one.weight.data, together.weight.data)
    assert torch.equal(left.weight.data, together.weight.data)
    assert left.array.counts().update == 6
    assert not left.pending


def test_no_pending_pair_no_update() -> None:
    t = cell()
    before = t.weight.data.clone(), t.get_extra_state()
    t.update_pending(0.1)
    assert torch.equal(t.weight.data, before[0])
    assert t.get_extra_state() == before[1]


def test_lr_zero_moves_nothing_but_counts() -> None:
    t = tile()
    before = t.weight.data.clone()
    t.pulse(normals(3, COLS), normals(3, ROWS), 0.0)
    assert torch.equal(t.weight.data, before)
    assert t.counts().update == 3


# ---- copies and state ----


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda t: pickle.loads(pickle.dumps(t))])
def test_parameters_lead_to_the_cell_of_their_copy(clone: object) -> None:
    original = cell()
    original.pending.append((normals(1, COLS), normals(1, ROWS)))
    copied: Cell = clone(original)  # type: ignore[operator]
    assert isinstance(copied.weight, AnalogParameter)
    assert copied.weight.cell is copied is not original
    assert not copied.pending  # as a copied parameter has no gradient
    copied.update(normals(1, COLS), normals(1, ROWS), 0.1)
    assert not torch.equal(copied.weight.data, original.weight.data)
    assert len(original.pending) == 1


def worked(**options: object) -> pl.Array:
    t = tile(**options)
    t.read(normals(2, COLS))
    t.read(normals(3, ROWS), True)
    t.pulse(normals(4, COLS), normals(4, ROWS), 0.05)
    return t


def continued(t: pl.Array) -> tuple[list[Tensor], dict[str, object]]:
    y, g = t.read(normals(2, COLS, seed=5)), t.read(normals(2, ROWS, seed=6), True)
    t.pulse(normals(3, COLS, seed=7), normals(3, ROWS, seed=8), 0.05)
    return [y, g, t.weight.data.clone()], t.state()


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda t: pickle.loads(pickle.dumps(t))])
def test_copies_are_independent_and_continue_equally(clone: object) -> None:
    original = worked(seed=4, mapping=Mapping(tile_in=3))
    copied: pl.Array = clone(original)  # type: ignore[operator]
    before = original.weight.data.clone()
    results, state = continued(copied)
    assert torch.equal(original.weight.data, before)
    theirs, their_state = continued(original)
    assert all(map(torch.equal, results, theirs))
    assert state == their_state


def test_state_moves_identity_devices_and_counters() -> None:
    original, other = worked(seed=4, tile_id=9), tile(seed=None)
    other.load_state(original.state())
    other.weight.data.copy_(original.weight.data)
    assert torch.equal(other.bounds[0], original.bounds[0])
    (results, state), (theirs, their_state) = continued(original), continued(other)
    assert all(map(torch.equal, results, theirs))
    assert state == their_state


def test_state_carries_out_scale() -> None:
    original, other = (pl.Array(ROWS, COLS, PLAIN, mapping=Mapping(omega=0.3)) for _ in range(2))
    original.program(normals(ROWS, COLS))
    other.load_state(original.state())
    assert other.out_scale == original.out_scale != 1.0


def test_auto_fidelity_is_strict_for_coarse_devices() -> None:
    """One step above 1 % of the range: strict; the same tile asked for strict gives equal bits."""
    coarse = SoftBounds(dw_min=0.05)
    assert coarse.default_fidelity == "strict"
    auto, strict = tile(device=coarse), tile(device=coarse, update=UpdateConfig(fidelity="strict"))
    exact = tile(device=coarse, update=UpdateConfig(fidelity="exact"))
    for t in (auto, strict, exact):
        t.pulse(normals(20, COLS), normals(20, ROWS, seed=1), 0.1)
    assert torch.equal(auto.weight.data, strict.weight.data)
    assert not torch.equal(auto.weight.data, exact.weight.data)


@pytest.mark.parametrize("shape", [(0, 0), (0, 4), (4, 0), (1, 1)])
@pytest.mark.parametrize("device", [SoftBounds(), Ideal()], ids=["SoftBounds", "Ideal"])
def test_sizes_zero_and_one(shape: tuple[int, int], device: SoftBounds | Ideal) -> None:
    t = pl.Array(*shape, device, io=IOConfig.perfect())
    t.initialise()
    for batch in (0, 1, 2):
        x, d = normals(batch, shape[1]), normals(batch, shape[0])
        y, g = t.read(x), t.read(d, True)
        torch.testing.assert_close(y, x @ t.weight.data.T, rtol=2**-22, atol=0.0)
        torch.testing.assert_close(g, d @ t.weight.data, rtol=2**-22, atol=0.0)
        t.pulse(x, d, 0.1)
    assert t.counts().update == 3


@pytest.mark.filterwarnings("always:fidelity is")
@pytest.mark.parametrize(
    ("device", "slots", "word"),
    [
        (pl.devices.PowStep(), 31, "too far"),
        (pl.devices.ExpStep(), 31, "too short"),
        (pl.devices.SoftBounds(), 64, "too short"),
        (pl.devices.SoftBounds(), 31, ""),
        (pl.devices.ConstantStep(), 64, ""),
    ],
)
def test_moments_outside_its_domain_is_said(device: Any, slots: int, word: str) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        pl.Array(2, 2, device, update=pl.configs.UpdateConfig(desired_bl=slots, fidelity="moments"))
        pl.Array(2, 2, device, update=pl.configs.UpdateConfig(desired_bl=slots, fidelity="grouped"))
    assert len(caught) == bool(word)
    assert all(word in str(one.message) and "grouped" in str(one.message) for one in caught)
    assert all(one.filename == __file__ for one in caught)


# ---- memory that moves under an array ----


def test_what_is_exchanged_under_an_array_is_seen() -> None:
    """Addresses are kept from call to call: storage, buffers and devices that move are noticed."""
    device = SoftBounds(dw_min=0.01)
    x, d = torch.ones(1, 4), torch.full((1, 3), -1.0)

    def after(move: Callable[[pl.Array], None]) -> Tensor:
        array = pl.Array(3, 4, device, seed=1)
        array.pulse(x, d, 0.1)
        move(array)
        array.pulse(x, d, 0.1)
        return array.held.clone()

    def grow(array: pl.Array) -> None:
        storage = array.crosspoints.step.untyped_storage()  # type: ignore[union-attr]
        storage.resize_(2 * storage.nbytes())

    def renew(array: pl.Array) -> None:
        for name, held in list(array.crosspoints.named_buffers()):
            setattr(array.crosspoints, name, held.clone())
            held.fill_(0)
        array.counters = array.counters.clone()

    def moved(array: pl.Array) -> None:
        array.to(torch.float32).cpu()
        array._apply(torch.clone)

    want = after(lambda _: None)
    for move in (grow, renew, moved):
        assert torch.equal(after(move), want), move
    array = pl.Array(3, 4, device, seed=1)
    array.pulse(x, d, 0.1)
    other = copy.deepcopy(array)
    array.held.fill_(0)
    array.counters.fill_(0)
    other.pulse(x, d, 0.1)
    assert torch.equal(other.held, want)


@pytest.mark.parametrize("name", ["step", "bound"])
def test_memory_that_is_gone_is_refused(name: str) -> None:
    array = pl.Array(3, 4, SoftBounds(dw_min=0.01), seed=1)
    x, d = torch.ones(1, 4), torch.ones(1, 3)
    array.pulse(x, d, 0.1)
    array.crosspoints.get_buffer(name).untyped_storage().resize_(0)
    with pytest.raises(ConfigError, match=f"{name} has no memory"):
        array.pulse(x, d, 0.1)
    array = pl.Array(3, 4, SoftBounds(dw_min=0.01), seed=1)
    array.read(x)
    array.counters.untyped_storage().resize_(0)
    with pytest.raises(ConfigError, match="counters has no memory"):
        array.read(x)

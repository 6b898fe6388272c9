"""Taps of updates and counted pulses: the bits of a batch that is cut, of the reference, of every
instruction set and of 1 and 2 threads.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from conftest import Kernels
from operators import replaced, update_arguments
from pulseline import ops, reference
from pulseline.devices import Ideal, SoftBounds
from pulseline.errors import ConfigError
from pulseline.reference import rng
from pulseline.reference.transfer import pulse_counted
from test_update import MODELS, SEED, TILE_ID, K, Problem, bits, problem

IN_ORDER = ("exact", "strict", "expected")
KEY = (SEED, TILE_ID)
NAN, INF = math.nan, math.inf


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# ---- taps ----


def arguments(p: Problem, w: Tensor, first: int, last: int, drawn: bool) -> tuple[Any, ...]:
    """Of ``update_`` on some samples."""
    pair, key = (p.x[first:last], p.d[first:last]), (*KEY, K + first)
    stored = None if drawn else p.stored
    return update_arguments(w, stored, *pair, p.device, p.config, p.lr, key)


def tapped(p: Problem, taps: Tensor, drawn: bool = False) -> tuple[Tensor, Tensor]:
    """Weights after the whole batch, and the values of its taps."""
    w, values = p.weight.clone(), torch.full((len(p.weight), len(taps)), NAN)
    ops.update_(*arguments(p, w, 0, len(p.x), drawn), taps=taps, tapped=values)
    return w, values


def cut(p: Problem, taps: Tensor) -> tuple[Tensor, Tensor]:
    """The same of a batch that ends behind every tapped sample."""
    w, values, first = p.weight.clone(), torch.full((len(p.weight), len(taps)), NAN), 0
    for t, (sample, column) in enumerate(taps.tolist()):
        if sample >= first:
            ops.update_(*arguments(p, w, first, sample + 1, False))
            first = sample + 1
        values[:, t] = w[:, column]
    if first < len(p.x):
        ops.update_(*arguments(p, w, first, len(p.x), False))
    return w, values


def some(samples: int, columns: int, count: int, seed: int = 0) -> Tensor:
    """Random taps, several of a sample and duplicates among them; first and last sample too."""
    g = generator(seed)
    if samples * columns == 0:
        return torch.empty(0, 2, dtype=torch.int32)
    at = torch.randint(samples, (count,), generator=g)
    at[:2], at[2:4] = 0, samples - 1
    columns_at = torch.randint(columns, (count,), generator=g)
    columns_at[1], columns_at[-1] = columns_at[0], columns - 1
    return torch.stack((at.sort().values, columns_at), 1).to(torch.int32)


def sweep(samples: int, columns: int, first: int = 3) -> Tensor:
    """Every column once, from ``first`` on, spread over the samples: several behind each."""
    t = torch.arange(columns)
    return torch.stack((t * samples // columns, (first + t) % columns), 1).to(torch.int32)


def check_taps(kernels: Kernels, p: Problem, taps: Tensor, drawn: bool = True) -> Tensor:
    kernels.use("baseline")
    want = cut(p, taps)
    for isa, threads in kernels.each():
        for anew in (False, True) if drawn else (False,):
            got = tapped(p, taps, anew)
            for one, other in zip(got, want, strict=True):
                assert torch.equal(bits(one), bits(other)), (isa, threads, anew)
    return want[1]


@pytest.mark.parametrize("fidelity", IN_ORDER)
@pytest.mark.parametrize("model", MODELS)
def test_taps_of_models(kernels: Kernels, model: str, fidelity: str) -> None:
    p = problem(37, 75, 20, MODELS[model], fidelity)
    values = check_taps(kernels, p, some(20, 75, 40))
    assert (values != p.weight[:, some(20, 75, 40)[:, 1].long()]).any()


@pytest.mark.parametrize("fidelity", IN_ORDER)
@pytest.mark.parametrize(
    ("rows", "cols", "batch"),
    [(0, 5, 3), (1, 1, 1), (3, 15, 5), (16, 16, 7), (33, 17, 9), (5, 31, 2), (130, 129, 33)],
)
def test_taps_of_sizes(kernels: Kernels, rows: int, cols: int, batch: int, fidelity: str) -> None:
    p = problem(rows, cols, batch, MODELS["SoftBounds"], fidelity)
    for count in (5, 3 * batch):
        check_taps(kernels, p, some(batch, cols, count))


@pytest.mark.parametrize("fidelity", IN_ORDER)
@pytest.mark.parametrize("model", MODELS)
def test_taps_of_columns_once(kernels: Kernels, model: str, fidelity: str) -> None:
    """More of them than samples, and fewer; weights that are NaN, lines that nobody touches."""
    for batch, columns in ((20, 75), (90, 40)):
        p = problem(37, columns, batch, MODELS[model], fidelity)
        values = check_taps(kernels, p, sweep(batch, columns))
        assert (values != p.weight[:, sweep(batch, columns)[:, 1].long()]).any()
    p.weight[2, 3], p.weight[5, 33], p.weight[5, 34] = NAN, NAN, 0.1
    p.x[:, 32:], p.d[:, 7] = 0, 0
    assert check_taps(kernels, p, sweep(90, 40)).isnan().any()


def test_taps_of_columns_once_under_low_rank_noise(kernels: Kernels) -> None:
    p = problem(33, 65, 20, MODELS["SoftBounds"], noise="lowrank")
    check_taps(kernels, p, sweep(20, 65), drawn=False)


@pytest.mark.parametrize("rows", [33, 400])
def test_taps_of_the_ideal_device(kernels: Kernels, rows: int) -> None:
    """400 rows: those of a thread, and a rest."""
    p = problem(rows, 75, 20, MODELS["SoftBounds"])._replace(device=Ideal())
    check_taps(kernels, p, some(20, 75, 40), drawn=False)


@pytest.mark.parametrize(("desired_bl", "lr"), [(31, 0.5), (63, 0.5), (3875, 20.0)])
def test_taps_of_long_trains(kernels: Kernels, desired_bl: int, lr: float) -> None:
    """Words beyond the first, and samples of 125 words cut by a slice of 512."""
    p = problem(9, 40, 9, MODELS["SoftBounds"], lr=lr, desired_bl=desired_bl)
    check_taps(kernels, p, some(9, 40, 20), drawn=False)


def test_taps_of_several_slices(kernels: Kernels) -> None:
    """600 samples are two slices; a tap every sample, and none in the first slice."""
    p = problem(5, 33, 600, MODELS["SoftBounds"])
    every = torch.stack((torch.arange(600), torch.arange(600) % 33), 1).to(torch.int32)
    check_taps(kernels, p, every, drawn=False)
    check_taps(kernels, p, every[590:], drawn=False)


def test_taps_under_low_rank_noise(kernels: Kernels) -> None:
    p = problem(33, 65, 20, MODELS["SoftBounds"], noise="lowrank")
    check_taps(kernels, p, some(20, 65, 40), drawn=False)


@pytest.mark.parametrize("fidelity", IN_ORDER)
def test_taps_where_nothing_moves(kernels: Kernels, fidelity: str) -> None:
    """Behind the last pulse, in blocks that nobody touches, without a learning rate, of silence."""
    p = problem(33, 129, 12, MODELS["SoftBounds"], fidelity)
    p.x[6:], p.x[:, 40:] = 0, 0
    for idle in (p, p._replace(lr=0.0), p._replace(x=torch.zeros_like(p.x))):
        check_taps(kernels, idle, some(12, 129, 60))


@pytest.mark.parametrize("fidelity", IN_ORDER)
def test_taps_of_weights_that_are_nan(kernels: Kernels, fidelity: str) -> None:
    p = problem(9, 40, 12, MODELS["SoftBounds"], fidelity)
    p.weight[2, 3], p.weight[5, 33], p.weight[5, 34] = NAN, NAN, 0.1
    values = check_taps(kernels, p, some(12, 40, 60))
    assert values.isnan().any()


def test_taps_through_the_dispatcher() -> None:
    p, taps = problem(9, 40, 12, MODELS["SoftBounds"]), some(12, 40, 20)
    w, values = p.weight.clone(), torch.empty(9, 20)
    torch.ops.pulseline.update_(*arguments(p, w, 0, 12, False), taps, values)
    assert torch.equal(values, tapped(p, taps)[1])


def refused(p: Problem, taps: Any, values: Any, match: str, **key: int) -> None:
    w = p.weight.clone()
    before = None if values is None else values.clone()
    call = arguments(p, w, 0, len(p.x), False)
    with pytest.raises(ConfigError, match=match):
        ops.update_(*replaced(call, ops.UpdateKey, **key), taps=taps, tapped=values)
    assert torch.equal(bits(w), bits(p.weight))
    assert before is None or torch.equal(values, before)


def test_bad_taps() -> None:
    p, room = problem(6, 7, 4, MODELS["SoftBounds"]), torch.zeros(6, 2)

    def at(*pairs: tuple[int, int]) -> Tensor:
        return torch.tensor(pairs, dtype=torch.int32)

    refused(p, at((0, 0), (4, 0)), room, r"^taps\[1\] is sample 4, column 0 of 4 samples and 7 ")
    refused(p, at((0, 0), (-1, 0)), room, r"^taps\[1\] is sample -1, column 0 of 4 samples")
    refused(p, at((0, 7), (1, 0)), room, r"^taps\[0\] is sample 0, column 7 of 4 samples and 7 ")
    refused(
        p, at((2, 0), (1, 0)), room, r"^taps\[1\] is sample 1, column 0 behind a later sample; "
    )
    refused(p, at((0, 0), (1, 0)).long(), room, r"^taps have dtype torch\.int64 and shape \(2, 2\)")
    refused(p, at((0, 0), (1, 0))[:, :1], room, r"^taps have dtype torch\.int32 and shape \(2, 1\)")
    refused(p, at((0, 0)), room, r"^tapped has shape \(6, 2\) and dtype torch\.float32; use a ")
    refused(p, at((0, 0), (1, 0)), None, r"^tapped is None and taps is given; use both or none")
    refused(p, None, room, r"^taps is None and tapped is given; use both or none")
    blocks = r"^taps are given of a matrix of 2 blocks; use a layer of one group"
    refused(p._replace(x=torch.zeros(4, 14)), at((0, 0), (1, 0)), room, blocks, block_rows=3)
    for fidelity in ("grouped", "moments"):
        which = ops.FIDELITY_INDEX[fidelity]
        joins = rf"^fidelity is {which}, which joins samples; cut the update at taps"
        refused(p, at((0, 0), (1, 0)), room, joins, fidelity=which)
    nan = p._replace(x=torch.full_like(p.x, NAN))
    refused(nan, at((0, 0), (1, 0)), room, r"^x\[0\] holds a NaN")
    refused(p, at((0, 0), (1, 0)), p.weight[:, :2].contiguous()[:, :1], "^tapped has shape")


# ---- counted pulses ----


def numbers_of(rows: int, lines: int, most: int, seed: int = 0) -> Tensor:
    """Signed counts, a third of them 0, and a line without any."""
    g = generator(seed)
    n = torch.randint(-most, most + 1, (rows, lines), generator=g).float()
    n *= torch.rand(rows, lines, generator=g) < 0.7
    if lines > 2:
        n[:, 1] = 0
    return n


def counted(
    p: Problem,
    columns: Tensor,
    counts: Tensor,
    fidelity: str,
    drawn: bool = False,
    **rest: Any,
) -> Tensor:
    """Weights after counted pulses."""
    w, ideal = p.weight.clone(), isinstance(p.device, Ideal)
    stored = (None, None, None) if drawn or ideal else p.stored
    parameters = (0.125,) if ideal else p.device.parameters()
    key = ops.UpdateKey(*KEY, ops.FIDELITY_INDEX[fidelity])
    number = rest.pop("number", K)
    ops.pulse_(w, *stored, columns, counts, number, p.device.name, parameters, key, **rest)
    return w


def check_counted(
    kernels: Kernels, p: Problem, columns: list[int], counts: Tensor, fidelity: str
) -> Tensor:
    lines = torch.tensor(columns, dtype=torch.int32)
    want = pulse_counted(
        *(p.weight, p.stored, lines, counts, p.device, fidelity),
        number=K,
        seed=SEED,
        tile_id=TILE_ID,
        granularity=0.125,
    )
    half = len(columns) // 2
    for isa, threads in kernels.each():
        for drawn in (False, True):
            got = counted(p, lines, counts, fidelity, drawn)
            assert torch.equal(bits(got), bits(want)), (isa, threads, drawn)
        first = p._replace(weight=counted(p, lines[:half], counts[:, :half].contiguous(), fidelity))
        rest = (lines[half:], counts[:, half:].contiguous(), fidelity)
        assert torch.equal(bits(counted(first, *rest, number=K + half)), bits(want)), isa
    still = torch.ones_like(p.weight, dtype=torch.bool)
    still[:, lines.long()] = counts == 0
    assert torch.equal(bits(want[still]), bits(p.weight[still]))
    return want


@pytest.mark.parametrize("fidelity", IN_ORDER)
@pytest.mark.parametrize("model", MODELS)
def test_counted_models(kernels: Kernels, model: str, fidelity: str) -> None:
    p = problem(23, 75, 0, MODELS[model], fidelity)
    columns = [*range(60, 75), *range(20)]  # around the edge
    want = check_counted(kernels, p, columns, numbers_of(23, 35, 40), fidelity)
    assert (want != p.weight).float().mean() > 0.2


@pytest.mark.parametrize(
    ("rows", "cols", "lines"),
    [
        (0, 3, 3),
        (3, 1, 0),
        (1, 1, 1),
        (5, 15, 15),
        (37, 3, 1),
        (9, 16, 16),
        (3, 17, 17),
        (2, 33, 33),
        (99, 300, 300),
    ],
)
def test_counted_sizes(kernels: Kernels, rows: int, cols: int, lines: int) -> None:
    p = problem(rows, cols, 0, MODELS["SoftBounds"])
    check_counted(kernels, p, list(range(lines)), numbers_of(rows, lines, 5), "exact")


def test_counted_columns_in_any_order(kernels: Kernels) -> None:
    p = problem(9, 75, 0, MODELS["SoftBounds"])
    columns = torch.randperm(75, generator=generator())[:40].tolist()
    check_counted(kernels, p, columns, numbers_of(9, 40, 40), "exact")


@pytest.mark.parametrize(("fidelity", "most"), [("exact", 5000), ("strict", 90)])
def test_many_counted_pulses(kernels: Kernels, fidelity: str, most: int) -> None:
    """More draws than keys are held of, in several passes; of strict more than a word."""
    p = problem(3, 20, 0, MODELS["SoftBounds"])
    check_counted(kernels, p, [3, 4, 5, 19], numbers_of(3, 4, most), fidelity)


def test_counted_pulses_that_join_samples_are_exact() -> None:
    p, lines = problem(9, 33, 0, MODELS["SoftBounds"]), torch.arange(33, dtype=torch.int32)
    n = numbers_of(9, 33, 40)
    want = counted(p, lines, n, "exact")
    for fidelity in ("grouped", "moments"):
        assert torch.equal(counted(p, lines, n, fidelity), want)


def test_counted_pulses_of_the_ideal_device(kernels: Kernels) -> None:
    p = problem(9, 33, 0, MODELS["SoftBounds"])._replace(device=Ideal())
    p.weight[0, 0] = -0.0
    n = numbers_of(9, 33, 40)
    n[0, 0] = 0
    check_counted(kernels, p, list(range(33)), n, "exact")


def test_counted_signs_and_nan(isa: str) -> None:
    """Up for n > 0; a weight that is NaN keeps its bits, one that is not pulsed keeps -0."""
    device = SoftBounds(dw_min_std=0.0)
    p = problem(3, 3, 0, device)
    p.weight[:], p.weight[0, 2], p.weight[1, 1] = 0.0, -0.0, NAN
    n = torch.tensor([[1.0, -1.0, 0.0], [2.0, 3.0, -40.0], [0.0, 1.0, 0.0]])
    got = counted(p, torch.arange(3, dtype=torch.int32), n, "exact")
    assert torch.equal(bits(got[0, 2:]), bits(p.weight[0, 2:]))
    assert torch.equal(bits(got[1, 1:2]), bits(p.weight[1, 1:2]))
    n[1, 1] = 0
    assert torch.equal(got.nan_to_num(0).sign(), n.sign())


def test_counted_is_counted() -> None:
    p, fired = problem(3, 4, 0, MODELS["SoftBounds"]), torch.ones(3, dtype=torch.int64)
    n = torch.tensor([[1.0, -40.0], [-2.0, 0.0], [0.0, 3.0]])
    counted(p, torch.tensor([3, 1], dtype=torch.int32), n, "exact", fired=fired)
    assert fired.tolist() == [47, 43, 1]


@pytest.mark.parametrize("drawn", [False, True])
def test_write_noise_of_counted_pulses(kernels: Kernels, drawn: bool) -> None:
    """hidden + deviation xi where a pulse came and the crosspoint moves; one line, one key."""
    p, deviation = problem(9, 33, 0, SoftBounds(corrupt_devices_prob=0.3)), 0.07
    n = numbers_of(9, 33, 5)
    lines = torch.randperm(33, generator=generator()).to(torch.int32)
    noise = torch.empty(9, 33)
    place = torch.arange(9)[:, None] * rng.ROW_STRIDE
    for t, j in enumerate(lines.tolist()):
        key = rng.draw_keys(rng.Stream(*KEY), rng.COUNTED_PULSES, K + t, rng.WRITTEN)
        noise[:, j] = rng.byte_sum_normal(rng.hash32(place + j * rng.COLUMN_STRIDE, key))[:, 0]
    stuck, came = (p.stored[0] & 0x7FFF7FFF) == 0, torch.empty(9, 33, dtype=torch.bool)
    came[:, lines.long()] = n != 0
    before = torch.randn(9, 33, generator=generator(1))
    for _ in kernels.each():
        visible = before.clone()
        w = counted(p, lines, n, "exact", drawn, visible=visible, deviation=deviation)
        fresh = reference.arithmetic.fma(torch.tensor(deviation), noise, w)
        assert torch.equal(visible, torch.where(came & ~stuck, fresh, before))
    assert (came & ~stuck).any()
    assert (came & stuck).any()


@pytest.mark.parametrize("value", [NAN, INF, -INF, 0.5, -(2.0**21)])
def test_bad_counts_of_a_single_line(kernels: Kernels, value: float) -> None:
    """Whose rows are neighbours: a vector holds many of them."""
    p, lines = problem(37, 3, 0, MODELS["SoftBounds"]), torch.tensor([1], dtype=torch.int32)
    for row in (0, 15, 16, 36):
        counts = torch.zeros(37, 1)
        counts[row] = value
        for _ in kernels.each():
            with pytest.raises(ConfigError, match=rf"^counts\[{row}, 0\] is "):
                counted(p, lines, counts, "exact")


def test_bad_counted_pulses() -> None:
    p = problem(4, 7, 0, MODELS["SoftBounds"])
    one, n = torch.tensor([2, 3], dtype=torch.int32), torch.ones(4, 2)

    def bad(match: str, columns: Any = one, counts: Any = n, q: Problem = p, **rest: Any) -> None:
        fired, kept = torch.zeros(2, dtype=torch.int64), q.weight.clone()
        w = q.weight
        key = rest.pop("key", ops.UpdateKey(*KEY, 1))
        call = {"number": 0, "device": q.device.name, "params": q.device.parameters(), "key": key}
        with pytest.raises(ConfigError, match=match):
            ops.pulse_(w, *q.stored, columns, counts, **{**call, "fired": fired, **rest})
        assert torch.equal(bits(w), bits(kept))
        assert not fired.any()

    for value, said in ((NAN, "nan"), (INF, "inf"), (0.5, r"0\.5"), (2.0**21, "2097152")):
        counts = n.clone()
        counts[3, 1] = value
        bad(
            rf"^counts\[3, 1\] is {said}; use a whole number from -1048576 to 1048576",
            counts=counts,
        )
    bad(r"^columns\[1\] is 2 as an earlier one; use every column once", one.clone().fill_(2))
    bad(r"^columns\[0\] is 7 of 7 columns; use one that there is", one + 5)
    bad(r"^columns\[0\] is -1 of 7 columns; ", one - 3)
    bad(r"^columns have dtype torch\.int64 and shape \(2,\); use int32", one.long())
    bad(r"^counts has shape \(4, 1\) and dtype ", counts=n[:, :1].contiguous())
    bad(r"^number is -1; use that of the first line", number=-1)
    bad(r"^single crosspoints of a matrix of 2 blocks", key=ops.UpdateKey(*KEY, 1, 2))
    bad(r"^deviation is -1; ", visible=torch.zeros(4, 7), deviation=-1.0)
    bad(r"^visible shares memory with weight, which is written", visible=p.weight)
    bad(
        r"^device is 'Ideal' with 0 parameters; use one, the granularity", device="Ideal", params=()
    )
    bad(r"^device is 'nobody' with ", device="nobody")

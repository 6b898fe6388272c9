"""Taps of updates of CUDA tensors, without a GPU: the kernels run in the emulator (see
test_cuda_update.py) and must give the weights, counters and tapped columns of the CPU, in both
orders of threads; arrays and cells whose updates take that way must end as those on the CPU do.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import pulseline as pl
from algorithm_cases import RULES, network, train
from emulated import Emulated, Serial
from pulseline import _cpu, ops
from pulseline.arrays.transfers import Transfers
from pulseline.configs import UpdateConfig
from pulseline.devices import Ideal, SoftBounds
from pulseline.errors import ConfigError
from pulseline.ops import transfer, update
from pulseline.ops.cuda import module
from test_cuda_threads import as_cuda
from test_cuda_update import FAULTS, SHAPES, install
from test_transfer import IN_ORDER, NAN, arguments, some, sweep
from test_transfer_arrays import DEVICES, LR, SAMPLES, array, batch, cut, same, taps
from test_update import MODELS, Problem, bits, problem

COUNTERS = 10  # place among the arguments of ``update_``
WAYS: dict[str, dict[str, Any]] = {
    **{name: {"fidelity": name} for name in IN_ORDER},
    "lowrank": {"fidelity": "exact", "noise": "lowrank"},
}


@pytest.fixture
def backend(emulated: Emulated, monkeypatch: pytest.MonkeyPatch) -> Emulated:
    """CUDA's functions run on the emulator."""
    install(emulated, monkeypatch)
    return emulated


@pytest.fixture
def serial(emulated: Emulated, monkeypatch: pytest.MonkeyPatch) -> Serial:
    """The same, counting calls; arrays and cells take CUDA's way from :func:`routed` on."""
    kernels = Serial(emulated.module)
    monkeypatch.setattr(module, "kernels", lambda: kernels)
    return kernels


def routed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Operators on CPU tensors are those of CUDA tensors, but for reads."""
    as_cuda(monkeypatch)
    monkeypatch.setattr(ops, "pulse_", transfer.pulse_cuda)
    monkeypatch.setattr(ops, "convert", transfer.convert_cuda)


def run(
    operator: Any, p: Problem, at: Tensor, drawn: bool = False, **rest: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """Weights, counters and values behind one call."""
    w, values = p.weight.clone(), torch.full((len(p.weight), len(at)), NAN)
    call = arguments(p, w, 0, len(p.x), drawn)
    operator(*call, taps=at, tapped=values, **rest)
    return w, call[COUNTERS], values


def check(backend: Emulated, p: Problem, at: Tensor) -> Tensor:
    want = run(ops.update_, p, at)
    for opposite in (False, True):
        with backend.settings(reverse=opposite, eager=opposite):
            for drawn in (False, True):
                for got, one in zip(run(update.update_cuda, p, at, drawn), want, strict=True):
                    assert torch.equal(bits(got), bits(one)), (opposite, drawn)
    return want[-1]


def moved(p: Problem, at: Tensor, values: Tensor) -> bool:
    """Whether taps see more than what was there before."""
    return bool((values != p.weight[:, at[:, 1].long()]).any())


# ---- the operator ----


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("model", MODELS)
def test_models(backend: Emulated, model: str, way: str) -> None:
    p, at = problem(33, 65, 12, MODELS[model], **WAYS[way]), some(12, 65, 40)
    assert moved(p, at, check(backend, p, at))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("rows", "cols", "batch"), SHAPES)
def test_sizes(backend: Emulated, rows: int, cols: int, batch: int, way: str) -> None:
    """Edges of lanes, warps and blocks; more taps than samples, 32 and 33 at once."""
    for bl_management in (True, False):
        p = problem(
            *(rows, cols, batch, MODELS["SoftBounds"]),
            **WAYS[way],
            update_bl_management=bl_management,
        )
        for count in (5, 33, 3 * batch + 4):
            check(backend, p, some(batch, cols, count))


def pairs(samples: Tensor, columns: Tensor) -> Tensor:
    return torch.stack((samples, columns), 1).to(torch.int32)


SAMPLE = torch.arange(40)
PATTERNS = {
    "every sample": pairs(SAMPLE, SAMPLE * 7 % 131),
    "every third": pairs(SAMPLE[::3], SAMPLE[::3]),
    "each column once": sweep(40, 131),
    "all columns behind one sample": pairs(torch.full((131,), 9), torch.arange(131)),
    "a column again and again": pairs(SAMPLE, torch.full((40,), 77)),
    "a column of one sample twice": pairs(torch.tensor([5, 5, 5]), torch.tensor([3, 130, 3])),
    "the last sample": pairs(torch.tensor([39]), torch.tensor([64])),
    "none": pairs(SAMPLE[:0], SAMPLE[:0]),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("pattern", PATTERNS)
def test_patterns(backend: Emulated, pattern: str, way: str) -> None:
    p = problem(18, 131, 40, MODELS["SoftBounds"], **WAYS[way])
    check(backend, p, PATTERNS[pattern])


@pytest.mark.parametrize("way", WAYS)
def test_where_nothing_moves(backend: Emulated, way: str) -> None:
    """Behind the last pulse, in lines that nobody touches, without a learning rate, of silence."""
    p = problem(33, 129, 12, MODELS["SoftBounds"], **WAYS[way])
    p.x[6:], p.x[:, 40:], p.d[:, 16:] = 0, 0, 0
    for idle in (p, p._replace(lr=0.0), p._replace(x=torch.zeros_like(p.x))):
        check(backend, idle, some(12, 129, 60))


@pytest.mark.parametrize("way", WAYS)
def test_several_slices(backend: Emulated, way: str) -> None:
    """A tap every sample, none in the first slices, none in the last ones."""
    p = problem(5, 33, 1030, MODELS["SoftBounds"], lr=0.002, **WAYS[way])
    every = pairs(torch.arange(1030), torch.arange(1030) % 33)
    for at in (every, every[-3:], every[510:514], every[:3]):
        assert moved(p, at, check(backend, p, at))


@pytest.mark.parametrize("way", ["exact", "strict", "lowrank"])
@pytest.mark.parametrize(("desired_bl", "lr"), [(63, 0.5), (3875, 20.0), (18600, 20.0)])
def test_long_trains(backend: Emulated, desired_bl: int, lr: float, way: str) -> None:
    """Several words a sample; a slice of four samples of 125 words, one of a sample of 600."""
    p = problem(
        *(9, 40, 9, MODELS["SoftBounds"]),
        lr=lr,
        desired_bl=desired_bl,
        update_bl_management=desired_bl < 10000,
        **WAYS[way],
    )
    assert moved(p, some(9, 40, 20), check(backend, p, some(9, 40, 20)))


@pytest.mark.parametrize("way", WAYS)
def test_empty(backend: Emulated, way: str) -> None:
    for rows, cols, samples in ((0, 5, 3), (3, 5, 0), (3, 0, 4)):
        p = problem(rows, cols, samples, MODELS["SoftBounds"], **WAYS[way])
        check(backend, p, some(samples, cols, 7))


def test_fired_pulses_are_counted(backend: Emulated) -> None:
    p, at = problem(33, 65, 530, MODELS["SoftBounds"], lr=0.002), sweep(530, 65)
    counted = []
    for operator in (ops.update_, update.update_cuda):
        fired, w = torch.tensor([3, 5, 7]), p.weight.clone()
        call = (*arguments(p, w, 0, 530, False)[:-1], fired)
        operator(*call, taps=at, tapped=torch.empty(33, len(at)))
        counted.append(fired)
    assert counted[0][0] > 1000
    assert torch.equal(*counted)


@pytest.mark.parametrize("way", WAYS)
def test_taps_of_a_refused_update(backend: Emulated, way: str) -> None:
    """Columns as they stay, in every slice: who launched it goes on before the GPU says so."""
    p = problem(9, 33, 600, MODELS["SoftBounds"], **WAYS[way])
    p.x[599, 3] = NAN
    at, w = pairs(torch.arange(600), torch.arange(600) % 33), p.weight.clone()
    values = torch.full((9, 600), NAN)
    with pytest.raises(ConfigError, match=r"^x\[599\] held a NaN .*; that update wrote nothing"):
        update.update_cuda(*arguments(p, w, 0, 600, False), taps=at, tapped=values)
    assert torch.equal(bits(w), bits(p.weight))
    assert torch.equal(bits(values), bits(p.weight[:, at[:, 1].long()]))


def test_bad_taps(backend: Emulated) -> None:
    """In the CPU's words; nothing is written."""
    p, room = problem(6, 7, 4, MODELS["SoftBounds"]), torch.zeros(6, 2)
    late, good = torch.tensor([[0, 0], [4, 0]], dtype=torch.int32), some(4, 7, 2)
    cases: list[tuple[Problem, Any, Any]] = [
        (p, late, room),
        (p, late - 4, room),
        (p, torch.tensor([[2, 0], [1, 0]], dtype=torch.int32), room),
        (p, torch.tensor([[0, 7], [1, 0]], dtype=torch.int32), room),
        (p, late.long(), room),
        (p, late.tolist(), room),
        (p, good, None),
        (p, None, room),
        (p, good, room[:, :1]),
        (p, good, p.x[:2].view(7, 2)[:6]),
        (p, good, p.weight.view(-1)[:12].view(6, 2)),
        (problem(6, 7, 4, MODELS["SoftBounds"], "grouped"), good, room),
        (problem(6, 7, 4, MODELS["SoftBounds"], "moments"), good, room),
    ]
    for q, at, values in cases:
        said = []
        for operator in (ops.update_, update.update_cuda):
            w, before = q.weight, (q.weight.clone(), room.clone(), q.x.clone())
            with pytest.raises(ConfigError) as error:
                operator(*arguments(q, w, 0, 4, False), taps=at, tapped=values)
            said.append(str(error.value))
            assert all(torch.equal(a, b) for a, b in zip((w, room, q.x), before, strict=True))
        assert said[0] == said[1]
    with pytest.raises(ConfigError, match=r"^there are 2147483648 taps; use at most 1073741824 "):
        _cpu.check_tapped((1,) * 9, (6, 7, 4), (0, 0, 1, 0, -1), 0, 1, 2**31, 1)


def test_the_ideal_device_is_cut(backend: Emulated) -> None:
    p = problem(6, 7, 4, MODELS["SoftBounds"])._replace(device=Ideal())
    w = p.weight.clone()
    with pytest.raises(ConfigError, match=r"^device is 'Ideal' with taps on a GPU, .*; cut the up"):
        run(update.update_cuda, p._replace(weight=w), some(4, 7, 5))
    assert torch.equal(w, p.weight)
    none = torch.empty(0, 2, dtype=torch.int32)
    assert run(update.update_cuda, p, none)[-1].shape == (6, 0)


def test_a_batch_keeps_the_order(backend: Emulated) -> None:
    """What it holds of the array comes first, what it holds of others may wait."""
    p, other = (problem(n, 65, 12, MODELS["SoftBounds"]) for n in (33, 20))
    at, wants, gots = some(12, 65, 40), [p.weight.clone()], [p.weight.clone()]
    ops.update_(*arguments(p, wants[0], 0, 12, False))
    want = run(ops.update_, p._replace(weight=wants[0]), at)
    waiting, values = other.weight.clone(), torch.empty(33, 40)
    with ops.Batch() as together:
        update.update_cuda(*arguments(other, waiting, 0, 12, False), batch=together)
        alone = run(update.update_cuda, p, at, batch=together)
        assert torch.equal(waiting, other.weight)
        update.update_cuda(*arguments(p, gots[0], 0, 12, False), batch=together)
        call = arguments(p, gots[0], 0, 12, False)
        update.update_cuda(*call, taps=at, tapped=values, batch=together)
        assert torch.equal(bits(values), bits(want[-1]))
        assert torch.equal(bits(gots[0]), bits(want[0]))
        update.update_cuda(*arguments(p, gots[0], 0, 12, False), batch=together)
    assert torch.equal(bits(alone[-1]), bits(run(ops.update_, p, at)[-1]))
    ops.update_(*arguments(p, want[0], 0, 12, False))
    assert torch.equal(bits(gots[0]), bits(want[0]))
    ops.update_(*arguments(other, other.weight, 0, 12, False))
    assert torch.equal(bits(waiting), bits(other.weight))


@pytest.mark.parametrize("way", ["exact", "lowrank"])
@pytest.mark.parametrize("fault", FAULTS)
def test_injected_bugs_show(backend: Emulated, fault: str, way: str) -> None:
    """In the kernel that pulses and taps."""
    p = problem(33, 65, 40, MODELS["SoftBounds"], update_bl_management=False, **WAYS[way])
    at = some(40, 65, 60)
    want = run(update.update_cuda, p, at)
    launch = 3 + (way == "lowrank")  # behind begin, plan, trains and factors
    with backend.settings(**FAULTS[fault], launch=launch):  # type: ignore[arg-type]
        got = run(update.update_cuda, p, at)
    assert not torch.equal(bits(got[-1]), bits(want[-1]))


def test_fake_tensors_take_taps_of_the_cpu() -> None:
    """Where everything else is on a GPU, or nowhere."""
    p = problem(6, 7, 4, MODELS["SoftBounds"])
    call = [a.to("meta") if isinstance(a, Tensor) else a for a in arguments(p, p.weight, 0, 4, 0)]
    values = torch.empty(6, 5, device="meta")
    torch.ops.pulseline.update_(*call, some(4, 7, 5), values)
    with pytest.raises(ConfigError, match=r"^argument 14 is on cpu and the weight on meta; move"):
        torch.ops.pulseline.update_(*call, some(4, 7, 5), torch.empty(6, 5))


# ---- arrays ----


@pytest.mark.parametrize("fidelity", ["exact", "strict", "expected", "grouped"])
@pytest.mark.parametrize("device", [name for name in DEVICES if name != "Ideal"])
def test_arrays(
    serial: Serial, monkeypatch: pytest.MonkeyPatch, device: str, fidelity: str
) -> None:
    """On the way where nothing but pulses happens, else cut: as on the CPU."""
    one, two, three = (array(DEVICES[device], fidelity) for _ in range(3))
    want = one.pulse_tapped(*batch(), LR, taps())
    routed(monkeypatch)
    assert torch.equal(bits(two.pulse_tapped(*batch(), LR, taps())), bits(want))
    on_the_way = fidelity != "grouped" and device not in ("ageing", "write noise", "both")
    assert serial.calls["update_tapped"] == on_the_way
    with ops.Batch() as together:
        values = three.pulse_tapped(*batch(), LR, taps(), together)
        assert torch.equal(bits(values), bits(want))
    assert same(one, two)
    assert same(one, three)


@pytest.mark.parametrize("device", ["SoftBounds", "Ideal"])
def test_arrays_whose_bits_are_the_gpus(
    serial: Serial, monkeypatch: pytest.MonkeyPatch, device: str
) -> None:
    """``moments`` and the ideal device: those of a cut batch there."""
    routed(monkeypatch)
    if device == "Ideal":
        assert not array(Ideal()).to("meta")._taps_on_the_way
        assert array(SoftBounds(), "exact").to("meta")._taps_on_the_way
        monkeypatch.setattr(Transfers, "_taps_on_the_way", False)
    one, other = (array(DEVICES[device], "moments") for _ in range(2))
    values = one.pulse_tapped(*batch(), LR, taps())
    assert torch.equal(bits(values), bits(cut(other, *batch(), taps())))
    assert same(one, other)
    assert serial.calls["update_tapped"] == 0


@pytest.mark.usefixtures("serial")
def test_refused_taps_of_arrays(monkeypatch: pytest.MonkeyPatch) -> None:
    one = array(SoftBounds(), "exact")
    held, state = one.held.clone(), one.state()
    routed(monkeypatch)
    x, d = batch()
    late = x.clone()
    late[-1, 3] = NAN
    for match, call in (
        (rf"^x\[{SAMPLES - 1}\] held a NaN", (late, d, LR, taps())),
        ("^lr is -1", (x, d, -1.0, taps())),
        (r"^x has shape \(20, 36\)", (x[:, 1:], d, LR, taps())),
        ("^x has 20 samples and d has 19", (x, d[1:], LR, taps())),
        (r"behind a later sample; sort taps", (x, d, LR, taps().flip(0))),
        (r"^taps have dtype torch\.int64", (x, d, LR, taps().long())),
    ):
        with pytest.raises(ConfigError, match=match):
            one.pulse_tapped(*call)
        assert torch.equal(one.held, held)
        assert one.state() == state


# ---- cells ----


@pytest.mark.parametrize("fidelity", ["exact", "strict", "expected", "grouped"])
@pytest.mark.parametrize(
    "rule",
    [
        *("TikiTaka1", "TikiTaka1 trains", "MultiTile", "Residual1"),
        *("TikiTaka2", "ChoppedTikiTaka2 scaled", "AGAD", "AGAD random", "ERIDER"),
    ],
)
def test_cells(serial: Serial, monkeypatch: pytest.MonkeyPatch, rule: str, fidelity: str) -> None:
    """Networks trained by an optimizer, whose layers share a batch."""

    def trained() -> str:
        model = network(RULES[rule], update=UpdateConfig(fidelity=fidelity))
        train(model)
        return pl.digest(model.state_dict())

    want = trained()
    routed(monkeypatch)
    assert trained() == want
    assert (serial.calls["update_tapped"] > 0) == (fidelity != "grouped")

"""The CUDA update on a machine without a GPU: the kernels' own sources run in the emulator and must
give the bits of the CPU backend, in both orders of threads, with copies that arrive as late and as
early as they may; injected bugs must show.

``moments`` takes its four count sums from tensor cores. Factors are rounded to 11 bits twice, so
that each count has a relative error below 2^-10: with n pulses a weight is off by 2^-10 n steps,
and by 2^-10 of its noise, which is below 5 (sigma + 1/2) sqrt(n) steps (the variance of a count is
at most n / 4). Sums of 256 terms in another order add 256 2^-24 of that. Where a count is 0 on one
side and a rounding error on the other, the gaussian's share is sigma step sqrt(error): counts of
1e-6 give 1e-3 steps a group.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import pulseline as pl
from device_cases import LAST
from emulated import Emulated, build
from operators import update_arguments
from pulseline import ops
from pulseline.configs import UpdateConfig
from pulseline.devices import Ideal
from pulseline.errors import BackendError, ConfigError
from pulseline.ops import update
from pulseline.ops.cuda import module
from pulseline.ops.cuda.outcomes import Outcome, Outcomes
from pulseline.reference.devices import DEVICES, Crosspoints
from pulseline.reference.relax import moments_counts
from pulseline.reference.rng import Stream
from pulseline.reference.trains import Train, manage
from test_update import MODELS, SEED, TILE_ID, K, Problem, bits, problem

POISON = 0xFF


@pytest.fixture(scope="module")
def without_tensor_cores(pytestconfig: pytest.Config) -> Emulated:
    """Compiled as for sm_100 and later, which lack the instruction that counts bits."""
    assert pytestconfig.cache is not None
    folder = Path(pytestconfig.cache.mkdir("emulator"))
    return Emulated(build(folder, ("PL_NATIVE_BIT_MMA=0",)))


@pytest.fixture
def backend(emulated: Emulated, monkeypatch: pytest.MonkeyPatch) -> Emulated:
    """``update.update_cuda`` runs on the emulator; new memory holds NaN."""
    install(emulated, monkeypatch)
    return emulated


def install(emulated: Emulated, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "kernels", lambda: emulated.module)
    empty = torch.empty

    def poisoned(*size: Any, **options: Any) -> Tensor:
        t = empty(*size, **options)
        return t.fill_(POISON) if t.dtype is torch.uint8 else t

    monkeypatch.setattr(torch, "empty", poisoned)


def arguments(p: Problem, weight: Tensor, fired: Tensor | None = None) -> tuple[Any, ...]:
    rest = (p.x, p.d, p.device, p.config, p.lr, (SEED, TILE_ID, K), fired)
    return update_arguments(weight, p.stored, *rest)


def on_cpu(p: Problem, fired: Tensor | None = None) -> Tensor:
    weight = p.weight.clone()
    ops.update_(*arguments(p, weight, fired))
    return weight


def on_cuda(p: Problem, fired: Tensor | None = None, outcomes: Outcomes | None = None) -> Tensor:
    weight = p.weight.clone()
    update.update_cuda(*arguments(p, weight, fired), outcomes=outcomes)
    return weight


def check(backend: Emulated, p: Problem) -> None:
    want = on_cpu(p)
    for opposite in (False, True):
        with backend.settings(reverse=opposite, eager=opposite):
            got = on_cuda(p)
        wrong = int((bits(got) != bits(want)).sum())
        assert wrong == 0, f"{wrong} of {want.numel()} differ, reversed {opposite}"


def moves(p: Problem) -> None:
    assert (on_cpu(p) != p.weight).float().mean() > 0.1


# ---- equal bits ----

# One below and above lane, warp, block and padding; both sides of a slice of 512 words.
SHAPES = [
    (1, 1, 1),
    (31, 33, 33),
    (33, 31, 2),
    (63, 65, 16),
    (65, 63, 17),
    (16, 129, 31),
    (129, 16, 7),
]


@pytest.mark.parametrize("fidelity", ["exact", "strict", "expected", "grouped"])
@pytest.mark.parametrize("name", MODELS)
def test_models(backend: Emulated, name: str, fidelity: str) -> None:
    p = problem(33, 65, 33, MODELS[name], fidelity, group_size=8)
    moves(p)
    check(backend, p)


@pytest.mark.parametrize("fidelity", ["exact", "grouped"])
@pytest.mark.parametrize("name", MODELS)
def test_low_rank_noise(backend: Emulated, name: str, fidelity: str) -> None:
    """Sums of products by tensor cores, across slices where there are many samples."""
    p = problem(33, 65, 33, MODELS[name], fidelity, group_size=8, noise="lowrank")
    iid = p._replace(config=dataclasses.replace(p.config, noise="iid"))
    assert MODELS[name].dw_min_std == 0 or not torch.equal(on_cpu(p), on_cpu(iid))
    check(backend, p)
    if name == "SoftBounds":
        check(backend, problem(17, 70, 530, MODELS[name], fidelity, group_size=5, noise="lowrank"))
        config = {"desired_bl": 70, "update_bl_management": False}  # three words a sample
        check(backend, problem(31, 5, 20, MODELS[name], fidelity, noise="lowrank", **config))


@pytest.mark.parametrize("fidelity", ["exact", "strict", "expected", "grouped"])
@pytest.mark.parametrize(("rows", "cols", "batch"), SHAPES)
def test_sizes(backend: Emulated, rows: int, cols: int, batch: int, fidelity: str) -> None:
    for bl_management in (True, False):
        p = problem(
            *(rows, cols, batch, MODELS["SoftBounds"], fidelity),
            group_size=5,
            update_bl_management=bl_management,
        )
        check(backend, p)


EMPTY = [(0, 3, 4), (3, 0, 4), (3, 4, 0), (0, 0, 4), (0, 0, 0)]


@pytest.mark.parametrize("fidelity", ["exact", "strict", "expected", "grouped", "moments"])
@pytest.mark.parametrize(("rows", "cols", "batch"), EMPTY)
def test_empty(backend: Emulated, rows: int, cols: int, batch: int, fidelity: str) -> None:
    p = problem(rows, cols, batch, MODELS["SoftBounds"], fidelity)
    for fired in (None, torch.zeros(3, dtype=torch.int64)):
        assert torch.equal(on_cuda(p, fired), p.weight)
        assert fired is None or fired[0] == 0


@pytest.mark.parametrize("fidelity", ["exact", "strict", "expected", "grouped", "moments"])
def test_without_a_rate_nothing_is_clipped(backend: Emulated, fidelity: str) -> None:
    """Weights outside their bounds, -0 and NaN: an update at lr = 0 does not look at them."""
    p = problem(33, 65, 9, MODELS["SoftBounds"], fidelity, lr=0.0)
    p.weight[0, :3] = torch.tensor([9.0, -0.0, float("nan")])
    check(backend, p)
    assert torch.equal(bits(on_cpu(p)), bits(p.weight))


@pytest.mark.parametrize("fidelity", ["exact", "strict", "grouped"])
def test_more_than_one_slice(backend: Emulated, fidelity: str) -> None:
    check(backend, problem(17, 33, 1030, MODELS["SoftBounds"], fidelity, lr=0.002, group_size=7))


@pytest.mark.parametrize("fidelity", ["exact", "strict", "grouped"])
@pytest.mark.parametrize(
    ("lr", "config"),
    [
        (0.02, {"desired_bl": 70, "update_bl_management": False}),  # three words a sample
        (0.02, {"desired_bl": 3, "fixed_bl": False, "update_bl_management": False}),  # 20 slots
        (0.1, {"desired_bl": 3, "fixed_bl": False, "update_bl_management": False}),  # 100 slots
        (0.02, {"update_management": False}),
        (0.02, {"desired_bl": 1}),
        (0.0, {}),
    ],
)
def test_trains(backend: Emulated, lr: float, config: dict[str, Any], fidelity: str) -> None:
    check(backend, problem(20, 37, 40, MODELS["SoftBounds"], fidelity, lr, group_size=16, **config))


@pytest.mark.parametrize(
    ("group_size", "lr"), [(1, 0.02), (2, 0.5), (0, 2e-4), (256, 1e-5), (100, 0.02)]
)
def test_groups(backend: Emulated, group_size: int, lr: float) -> None:
    """Closed by number and by travel, across slices, with many trains or one in a word."""
    p = problem(20, 37, 700, MODELS["SoftBounds"], "grouped", lr, group_size=group_size)
    check(backend, p)


@pytest.mark.parametrize("name", ["SoftBounds", "ConstantStep", "PowStep-1"])
def test_counting_without_tensor_cores(
    without_tensor_cores: Emulated, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    install(without_tensor_cores, monkeypatch)
    p = problem(33, 65, 70, MODELS[name], "grouped", group_size=8)
    moves(p)
    check(without_tensor_cores, p)


def largest_step(p: Problem) -> float:
    """Of any crosspoint at any weight."""
    model, c = DEVICES[p.device.name], Crosspoints.of(p.device, p.stored)
    up = torch.ones_like(c.hi, dtype=torch.bool)
    weights = (c.lo + (c.hi - c.lo) * t for t in torch.linspace(0, 1, 33))
    steps = [model.step(p.device, c, w, m).abs() for w in weights for m in (up, ~up)]
    return float(torch.stack(steps).max())


def check_moments(p: Problem) -> None:
    """See the header; the number of pulses is the reference's."""
    x_max, d_max = p.x.abs().amax(1), p.d.abs().amax(1)
    train = manage(x_max, d_max, p.lr, p.device.granularity, p.config)
    n, groups = torch.zeros_like(p.weight), range(0, len(p.x), 256)
    for first in groups:
        part = slice(first, first + 256)
        some = Train(*(v[part] for v in train))
        counts = moments_counts(p.x[part], p.d[part], some, Stream(SEED, TILE_ID), K + first)
        if counts is not None:
            n += counts.up + counts.down
    noise = 5 * (p.device.dw_min_std + 0.5) * n.sqrt()
    limit = (2.0**-10 * (n + noise) + 1e-3 * len(groups)) * largest_step(p) + 2.0**-22
    got, want = on_cuda(p), on_cpu(p)
    assert ((got - want).abs() <= limit).all()


@pytest.mark.parametrize("name", LAST)
def test_moments(backend: Emulated, name: str) -> None:
    """One of each: all kinds of noise are among them, and test_models has the rest of the step."""
    p = problem(33, 65, 300, LAST[name], "moments", lr=0.002)
    moves(p)
    check_moments(p)


@pytest.mark.parametrize("bl", [1, 2, 70, 300, 5000])
def test_moments_of_trains_of_any_length(backend: Emulated, bl: int) -> None:
    p = problem(
        9, 70, 40, MODELS["SoftBounds"], "moments", desired_bl=bl, update_bl_management=False
    )
    moves(p)
    check_moments(p)


def test_moments_of_many_samples(backend: Emulated) -> None:
    """More than a slice of 8192, the last group not full."""
    check_moments(problem(2, 3, 8500, MODELS["SoftBounds"], "moments", lr=0.002))


@pytest.mark.parametrize("fidelity", ["exact", "strict", "grouped", "moments"])
def test_fired(backend: Emulated, fidelity: str) -> None:
    p = problem(33, 65, 530, MODELS["SoftBounds"], fidelity, lr=0.002, group_size=8)
    want, got = (torch.tensor([3, 5, 7]) for _ in range(2))
    on_cpu(p, want)
    on_cuda(p, got)
    assert want[0] > 1000
    assert torch.equal(got, want)


def test_several_tiles_share_a_launch(backend: Emulated) -> None:
    """More than fit one launch, of different sizes, one of them twice."""
    sizes = [(17 * n + 3, 70 - 9 * n, 11 * n + 1) for n in range(7)]
    problems = [
        problem(*size, MODELS["SoftBounds"]) for size in [*sizes, (40, 3, 9), (0, 2, 3), (5, 5, 0)]
    ]
    problems.append(problem(33, 33, 5, MODELS["LinearStep-1"]))
    launched: list[int] = []
    launch = backend.module.update
    weights = [p.weight.clone() for p in problems]

    def counted(tasks: list[Any], *rest: Any) -> None:
        launched.append(len(tasks))
        launch(tasks, *rest)

    with pytest.MonkeyPatch.context() as patch, ops.Batch() as batch:
        patch.setattr(backend.module, "update", counted)
        for p, weight in zip(problems, weights, strict=True):
            update.update_cuda(*arguments(p, weight), batch=batch)
        update.update_cuda(*arguments(problems[0], weights[0]), batch=batch)
        batch.launch()
    assert launched == [8, 2, 1, 1]
    wants = [on_cpu(p) for p in problems]
    ops.update_(*arguments(problems[0], wants[0]))
    for got, want in zip(weights, wants, strict=True):
        assert torch.equal(bits(got), bits(want))


@pytest.mark.parametrize("fidelity", ["exact", "strict", "expected", "grouped", "moments"])
def test_a_tile_without_samples_shares_a_launch(backend: Emulated, fidelity: str) -> None:
    """First and last; uninitialised integers are -1 or large."""
    problems = [
        problem(*size, MODELS["SoftBounds"], fidelity) for size in [(5, 5, 0), (20, 37, 40)]
    ]
    alone = [on_cuda(p) for p in problems]
    moves(problems[1])
    for order in ((0, 1), (1, 0)):
        weights = [problems[n].weight.clone() for n in order]
        with backend.settings(reverse=order[0] == 1), ops.Batch() as batch:
            for n, weight in zip(order, weights, strict=True):
                update.update_cuda(*arguments(problems[n], weight), batch=batch)
        for n, weight in zip(order, weights, strict=True):
            assert torch.equal(bits(weight), bits(alone[n]))


def test_ideal(backend: Emulated) -> None:
    """The product of torch; error at most batch 2^-24 times the sum of magnitudes."""
    g = torch.Generator().manual_seed(1)
    x, d = torch.randn(40, 33, generator=g), torch.randn(40, 17, generator=g)
    weight = torch.randn(17, 33, generator=g)
    got, want = weight.clone(), weight.clone()
    rest = (x, d, Ideal(), UpdateConfig(), 0.1, (SEED, TILE_ID, K))
    update.update_cuda(*update_arguments(got, None, *rest))
    ops.update_(*update_arguments(want, None, *rest))
    scale = weight.abs() + 0.1 * d.abs().T @ x.abs()
    assert ((got - want).abs() <= 41 * 2.0**-24 * scale).all()


# ---- refusals ----


@pytest.mark.parametrize("fidelity", ["exact", "strict", "expected", "grouped", "moments", "ideal"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_values_that_are_not_finite(backend: Emulated, fidelity: str, value: float) -> None:
    p = problem(33, 65, 70, MODELS["SoftBounds"], "exact" if fidelity == "ideal" else fidelity)
    p.d[5, 32] = p.x[5, 64] = p.d[6, 0] = value
    weight = p.weight.clone()
    a = arguments(p, weight)
    if fidelity == "ideal":
        a = arguments(p._replace(device=Ideal(), config=UpdateConfig()), weight)
    with pytest.raises(ConfigError, match=r"x\[5\] held a NaN or an infinity.*wrote nothing"):
        update.update_cuda(*a)
    assert torch.equal(bits(weight), bits(p.weight))
    p.x[5, 64] = 0
    with pytest.raises(ConfigError, match=r"d\[5\] held"):
        update.update_cuda(*a)


class _Ended:
    """An event that has happened; counts how often it is asked."""

    asked = 0

    def query(self) -> bool:
        self.asked += 1
        return True

    def synchronize(self) -> None:
        self.asked += 1


def test_no_event_is_queried_during_a_capture(
    backend: Emulated, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CUDA forbids it. What updates before the capture held is said by the first one after it."""
    capturing, event = [True], _Ended()
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: capturing[0])
    outcomes = Outcomes()
    outcomes.add(Outcome(torch.tensor(5), event))
    p = problem(3, 4, 2, MODELS["SoftBounds"])
    assert torch.equal(bits(on_cuda(p, outcomes=outcomes)), bits(on_cpu(p)))
    assert event.asked == 0
    capturing[0] = False
    with pytest.raises(ConfigError, match=r"d\[2\] held a NaN"):
        on_cuda(p, outcomes=outcomes)
    assert event.asked == 1


def test_a_refused_update_is_not_saved() -> None:
    """The last update of a run has nobody after it to say so: the state does, once."""
    tile = pl.Array(3, 4, MODELS["SoftBounds"])
    assert len(tile.state()) > 0
    tile._outcomes.add(Outcome(torch.tensor(5), _Ended()))
    with pytest.raises(ConfigError, match=r"d\[2\] held a NaN"):
        tile.state()


def test_reasons(monkeypatch: pytest.MonkeyPatch) -> None:
    """Why CUDA cannot be used is one clause of one sentence."""
    module.kernels.cache_clear()
    monkeypatch.setattr(module.importlib, "import_module", _missing)
    assert ops.info()["cuda"] is False
    assert "PULSELINE_CUDA=ON" in str(ops.info()["cuda_reason"])
    p = problem(3, 3, 2, MODELS["SoftBounds"])
    with pytest.raises(BackendError, match=r"no CUDA kernels.*move it to the CPU"):
        on_cuda(p)


def _missing(name: str, package: str | None = None) -> None:
    raise ModuleNotFoundError(name)


def test_too_many_lines(backend: Emulated) -> None:
    p = problem(1, 1, 1, MODELS["SoftBounds"])
    pairs = [torch.zeros(1048561, 1, dtype=torch.int32)] * 3
    stored = type(p.stored)(*pairs)
    p = p._replace(weight=torch.zeros(1048561, 1), stored=stored, d=torch.zeros(1, 1048561))
    with pytest.raises(ConfigError, match="1048560 rows"):
        on_cuda(p)


def test_moved_tiles_keep_their_bits() -> None:
    """Parameters are built on the CPU and copied; what a tile counts moves along."""
    layer = pl.nn.AnalogLinear(5, 3, device=MODELS["SoftBounds"], seed=4)
    layer.cell.array.count_pulses()
    layer.to("meta")
    tile = layer.cell.array
    held = (
        tile.weight,
        tile.crosspoints.step,
        tile.crosspoints.slope,
        tile.crosspoints.bound,
        tile.fired,
    )
    assert all(t is not None and t.is_meta for t in held)


# ---- the emulator is worth something ----

FAULTS = {
    "first barrier": {"skip": 0},
    "all barriers before use": {"skip": 0, "every": 2},
    "all barriers after use": {"skip": 1, "every": 2, "eager": True},
    "a wait too short": {"early": 1},
}
PULSES = {"exact": 3, "grouped": 4, "moments": 3}  # number of the launch that pulses


@pytest.mark.parametrize("fidelity", PULSES)
@pytest.mark.parametrize("fault", FAULTS)
def test_injected_bugs_show(backend: Emulated, fault: str, fidelity: str) -> None:
    """In the kernel that pulses: words that are not there yet or no more move weights astray.

    Where lanes read other ends of groups than their neighbours, they no longer meet.
    """
    p = problem(
        33, 65, 200, MODELS["SoftBounds"], fidelity, group_size=8, update_bl_management=False
    )
    want = on_cuda(p)
    with backend.settings(**FAULTS[fault], launch=PULSES[fidelity]):  # type: ignore[arg-type]
        got, complaint = None, ""
        try:
            got = on_cuda(p)
        except RuntimeError as error:
            complaint = str(error)
    if got is None:
        assert fidelity == "grouped"
        assert "wait for ever" in complaint
    else:
        assert not torch.equal(bits(got), bits(want))


def test_a_bug_of_the_plan_shows(backend: Emulated) -> None:
    """Without its barrier a sample's maximum is that of some other memory: not finite."""
    p = problem(33, 65, 20, MODELS["SoftBounds"])
    with backend.settings(skip=0, launch=1), pytest.raises(ConfigError, match="held a NaN"):
        on_cuda(p)

"""The ``sim`` executor against training written out by hand: equality of all bits.

Mutants (weight stashing, one more or one fewer in flight) must fail the same equality; that needs
M >= 3, since with one layer a stage stashing cannot be seen at M = 2.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import delayed
from pulseline.pipeline import Pipeline, Stage
from pulseline.schedules import Event, Schedule, asynchronous, sequential, synchronous

SIZE = 4
COUNT = 24
LR = 0.05
STAGES = (1, 2, 3, 4, 6)
KINDS = {"digital": delayed.Digital(), "analog": delayed.Analog()}


@pytest.fixture(params=KINDS.values(), ids=KINDS.keys())
def kind(request: pytest.FixtureRequest) -> Any:
    return request.param


def build(kind: Any, stages: int, plan: str | Schedule, **options: Any) -> Pipeline:
    return Pipeline(
        delayed.network(kind, stages),
        stages,
        optimizer=lambda parameters: kind.optimizer(parameters, LR),
        loss=nn.functional.mse_loss,
        schedule=plan,
        micro_batch_size=SIZE,
        **options,
    )


def trained(pipe: Pipeline, x: Tensor, y: Tensor, cut: int | None = None) -> Pipeline:
    """Feed all samples, ``cut`` micro-batches per step, and drain."""
    part = (cut or COUNT) * SIZE
    for inputs, targets in zip(x.split(part), y.split(part), strict=True):
        pipe.step(inputs, targets)
    pipe.drain()
    return pipe


def sorted_events(plan: Schedule, stages: int) -> list[Event]:
    """The clock's events of a whole run, in the order of ``Pipeline.events``."""
    return sorted(plan.events(stages, COUNT), key=lambda e: (e.cycle, e.stage, "FBU".index(e.kind)))


def weights(kind: Any, pipe: Pipeline) -> str:
    return delayed.weights_digest(
        kind, nn.Sequential(*(layer for stage in pipe.stages for layer in stage.module.children()))
    )


def reference(kind: Any, stages: int, plan: Schedule, x: Tensor, y: Tensor) -> str:
    def stale(m: int) -> int:
        return 2 * (stages - m) if plan.full_duplex else stages - m

    if plan.depths is not None:
        depths = plan.depths

        def stale(m: int) -> int:
            return depths[m - 1] - 1

    return delayed.delayed_gradients(kind, stages, x, y, SIZE, LR, stale, plan.flush_every)


@pytest.mark.parametrize("stages", STAGES)
def test_asynchronous_equals_delayed_gradients(kind: Any, stages: int) -> None:
    x, y = delayed.samples(COUNT, SIZE)
    want = reference(kind, stages, asynchronous(), x, y)
    assert weights(kind, trained(build(kind, stages, "async"), x, y)) == want


@pytest.mark.parametrize("cut", [1, 2, 5, 7])
def test_cutting_into_steps_changes_nothing(kind: Any, cut: int) -> None:
    x, y = delayed.samples(COUNT, SIZE)
    for plan in (asynchronous(), synchronous(8), synchronous(5, "gpipe"), sequential(7)):
        for stages in (1, 3):
            whole = trained(build(kind, stages, plan), x, y)
            parts = trained(build(kind, stages, plan), x, y, cut)
            assert parts.events() == whole.events() == sorted_events(plan, stages)
            assert weights(kind, parts) == weights(kind, whole)


@pytest.mark.parametrize(
    "plan",
    [
        asynchronous(flush_every=5),
        asynchronous(full_duplex=True),
        asynchronous(full_duplex=True, flush_every=7),
        asynchronous(inflight=[7, 4, 2]),
        asynchronous(inflight=[3, 3, 3]),
        asynchronous(inflight=[1, 1, 1]),
    ],
    ids=str,
)
def test_variants_equal_delayed_gradients(kind: Any, plan: Schedule) -> None:
    x, y = delayed.samples(COUNT, SIZE)
    want = reference(kind, 3, plan, x, y)
    assert weights(kind, trained(build(kind, 3, plan), x, y)) == want
    assert weights(kind, trained(build(kind, 3, plan), x, y, cut=5)) == want


@pytest.mark.parametrize("stages", STAGES)
def test_flush_after_every_sample_is_sgd(kind: Any, stages: int) -> None:
    x, y = delayed.samples(COUNT, SIZE)
    want = delayed.plain_training(kind, stages, x, y, SIZE, LR)
    assert weights(kind, trained(build(kind, stages, asynchronous(flush_every=1)), x, y)) == want
    assert weights(kind, trained(build(kind, stages, "sequential"), x, y)) == want
    assert weights(kind, trained(build(kind, stages, synchronous(1)), x, y)) == want
    by_hand = build(kind, stages, "async")
    for inputs, targets in zip(x.split(SIZE), y.split(SIZE), strict=True):
        by_hand.step(inputs, targets)
        by_hand.drain()
    assert weights(kind, by_hand) == want
    if stages == 1:
        assert weights(kind, trained(build(kind, 1, "async"), x, y)) == want


@pytest.mark.parametrize("stages", STAGES)
def test_synchronous_equals_accumulated_sequential(kind: Any, stages: int) -> None:
    """COUNT is no multiple of 7: the last mini-batch is short."""
    x, y = delayed.samples(COUNT, SIZE)
    want = delayed.plain_training(kind, stages, x, y, SIZE, LR, per_update=7)
    for plan in (synchronous(7), synchronous(7, "gpipe"), sequential(7)):
        assert weights(kind, trained(build(kind, stages, plan), x, y)) == want


@pytest.mark.parametrize("stages", range(1, 9))
def test_recorded_events_equal_the_schedule(stages: int) -> None:
    """Cycles, versions, order and peak in flight, as recorded, against the schedule's own."""
    kind = delayed.Digital()
    x, y = delayed.samples(COUNT, SIZE)
    for plan in (
        asynchronous(),
        asynchronous(full_duplex=True),
        asynchronous(flush_every=5),
        asynchronous(inflight=[stages + 1, *range(stages, 1, -1)]),
        synchronous(7),
        synchronous(7, "gpipe"),
        sequential(),
    ):
        pipe = trained(build(kind, stages, plan), x, y)
        events = pipe.events()
        assert events == sorted_events(plan, stages)
        assert pipe.cycles == plan.cycles(stages, COUNT)
        assert [n for n, _ in pipe.segments] == plan.segments(COUNT)
        for n, cycles in pipe.segments:
            assert cycles == plan.segment_cycles(stages, n)
        for stage, program in zip(pipe.stages, plan.ops(stages, COUNT), strict=True):
            m = stage.index
            order = [(e.kind, e.mb) for e in events if e.stage == m]
            assert order == [(op.kind, op.mb) for op in program if op.kind != "flush"]
            assert stage.peak == plan.inflight(stages, m, COUNT)
            assert stage.in_flight == 0
            for record in stage.records:
                used = (record.version_f, record.version_b)
                assert used == plan.versions(stages, m, record.mb)


def test_versions_after_flushes_follow_the_rule() -> None:
    """F uses max(version at the last flush, k - (M - m)), whoever asked for the flush."""
    pipe = build(delayed.Digital(), 4, "async")
    x, y = delayed.samples(COUNT, SIZE)
    flushes = []
    for inputs, targets in zip(x.split(9 * SIZE), y.split(9 * SIZE), strict=True):
        flushes.append(pipe.micro_batches)
        pipe.step(inputs, targets)
        pipe.drain()
    assert flushes == [0, 9, 18]
    assert pipe.cycles == 2 * (9 + 3) + 2 * (9 + 3) + 2 * (6 + 3)
    for stage in pipe.stages:
        for record in stage.records:
            k = record.mb
            assert record.version_f == max(k - k % 9, k - (4 - stage.index))
            assert record.version_b == k


def test_step_runs_what_is_decided_and_no_more() -> None:
    x, y = delayed.samples(COUNT, SIZE)
    pipe = build(delayed.Digital(), 4, "async")
    for k in range(5):
        pipe.step(x[k * SIZE : (k + 1) * SIZE], y[k * SIZE : (k + 1) * SIZE])
        assert pipe.cycles == 2 * (k + 1)
    assert [stage.in_flight for stage in pipe.stages] == [3, 3, 1, 1]
    assert not pipe.flushed
    opened = [event for event in pipe.events() if event.stage == 1]
    assert [(e.kind, e.mb) for e in opened if e.kind != "U"] == [
        *(("F", k) for k in range(4)),
        ("B", 0),
        ("F", 4),
        ("B", 1),
    ]
    pipe.drain()
    pipe.drain()
    assert pipe.flushed
    assert pipe.cycles == 2 * (5 + 3)


def test_losses_arrive_once_and_in_order(kind: Any) -> None:
    """At lr 0 they equal those of the network without a pipeline, noise included."""
    x, y = delayed.samples(COUNT, SIZE)
    pipe = build(kind, 4, "async")
    pipe.set_lr(0.0)
    some = []
    for inputs, targets in zip(x.split(5 * SIZE), y.split(5 * SIZE), strict=True):
        some.append(pipe.step(inputs, targets))
    assert 0 < len(torch.cat(some)) < COUNT
    losses = torch.cat([*some, pipe.drain()])
    assert losses.shape == (COUNT,)
    assert pipe.drain().shape == (0,)
    model = delayed.network(kind, 4)
    for k, (inputs, targets) in enumerate(zip(x.split(SIZE), y.split(SIZE), strict=True)):
        assert torch.equal(losses[k], nn.functional.mse_loss(model(inputs), targets).detach())


def test_short_last_micro_batch_counts_as_one() -> None:
    kind = delayed.Digital()
    x, y = delayed.samples(3, SIZE)
    pipe = build(kind, 2, "async")
    pipe.step(x[:10], y[:10])
    pipe.drain()
    assert pipe.micro_batches == 3
    assert weights(kind, pipe) == reference(kind, 2, asynchronous(), x[:10], y[:10])


def _stashing(kind: Any, stages: int) -> Pipeline:
    layers = list(delayed.network(kind, stages).children())
    parts = [nn.Sequential(*layers[2 * m : 2 * m + 2]) for m in range(stages)]
    last = nn.functional.mse_loss
    return Pipeline(
        [
            kind.stashing_stage(part, LR, last if m == stages - 1 else None)
            for m, part in enumerate(parts)
        ],
        micro_batch_size=SIZE,
    )


def _one_more(kind: Any, stages: int) -> Pipeline:
    return build(kind, stages, asynchronous(inflight=[*range(stages + 1, 2, -1), 1]))


def _one_fewer(kind: Any, stages: int) -> Pipeline:
    return build(kind, stages, asynchronous(inflight=[*range(stages - 1, 0, -1), 1]))


@pytest.mark.parametrize("stages", [3, 4, 6])
@pytest.mark.parametrize("mutant", [_stashing, _one_more, _one_fewer])
def test_mutants_differ(kind: Any, stages: int, mutant: Callable[[Any, int], Pipeline]) -> None:
    x, y = delayed.samples(COUNT, SIZE)
    want = reference(kind, stages, asynchronous(), x, y)
    assert weights(kind, trained(mutant(kind, stages), x, y)) != want


def test_stages_by_hand_equal_from_model(kind: Any) -> None:
    x, y = delayed.samples(COUNT, SIZE)
    layers = list(delayed.network(kind, 3).children())
    parts = [nn.Sequential(*layers[:2]), nn.Sequential(*layers[2:4]), nn.Sequential(*layers[4:])]
    stages = [
        Stage(part, kind.optimizer(part.parameters(), LR), nn.functional.mse_loss if last else None)
        for part, last in zip(parts, (False, False, True), strict=True)
    ]
    pipe = trained(Pipeline(stages, micro_batch_size=SIZE), x, y)
    assert weights(kind, pipe) == weights(kind, trained(build(kind, 3, "async"), x, y))

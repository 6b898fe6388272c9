"""Schedules in time: periods and depths against brute force, run lengths against closed forms."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import pairwise

import pytest

from clock import parse
from pulseline.errors import ConfigError
from pulseline.hardware import asynchronous_ns, sequential_ns, synchronous_ns
from pulseline.schedules import Schedule, Times, asynchronous, sequential, synchronous
from pulseline.schedules.timing import auto_depths, loop_time, modelled_spans, run_time, timed

EQUAL = (1.0, 1.0, 0.0)
FORWARD_FIRST = [parse(text) for text in ("1F0", "1B0", "1F1", "1B1")]
NEEDS_BOTH = [parse(text) for text in ("2F0", "2F1", "2B0", "2B1")]


def period(times: Sequence[Times], depths: Sequence[int], latency: float = 0.0) -> float:
    """Steady-state time per micro-batch of the asynchronous order with those depths: the closed
    form of the module's text, over all loops."""
    slowest = 0.0
    for i in range(len(times)):
        for j in range(i, len(times)):
            slowest = max(slowest, loop_time(times, i, j, latency) / (depths[i] - depths[j] + 1))
    return slowest


def measured_period(times: list[Times], depths: list[int], latency: float, count: int) -> float:
    """Time per micro-batch in the second half of a timed run."""
    spans = modelled_spans(asynchronous(inflight=depths), times, count, latency)
    ends = [span.end for span in spans if (span.stage, span.kind) == (1, "B")]
    half = count // 2
    return (ends[count - 1] - ends[half - 1]) / (count - half)


@pytest.mark.parametrize(
    ("stage", "latency", "depths", "default"),
    [
        (EQUAL, 0.0, (4, 3, 2, 1), 2.0),
        ((1.0, 2.0, 0.0), 0.0, (4, 3, 2, 1), 3.0),
        ((1.0, 1.0, 4.0), 0.0, (4, 3, 2, 1), 6.0),
        (EQUAL, 0.5, (7, 5, 3, 1), 2.75),
        (EQUAL, 1.0, (7, 5, 3, 1), 3.5),
        (EQUAL, 3.0, (13, 9, 5, 1), 6.5),
    ],
)
def test_depths_found_by_search(
    stage: Times, latency: float, depths: tuple[int, ...], default: float
) -> None:
    """The least depths of an exhaustive search over a timed simulator, four equal stages."""
    times = [stage] * 4
    assert auto_depths(times, latency) == depths
    assert period(times, depths, latency) == sum(stage)
    assert period(times, (4, 3, 2, 1), latency) == default
    plan = asynchronous(inflight="auto", times=times, latency=latency)
    assert plan.depths == depths
    assert plan.staleness(4, 1) == depths[0] - 1


def test_period_is_that_of_the_timed_clock() -> None:
    draw = random.Random(1)
    for _ in range(40):
        stages = draw.randint(1, 5)
        times = [
            (draw.randint(1, 5), draw.randint(1, 5), draw.randint(0, 9)) for _ in range(stages)
        ]
        depths = sorted((draw.randint(1, 8) for _ in range(stages)), reverse=True)
        latency = draw.choice((0.0, 0.5, 2.0))
        count = 240
        got = measured_period(times, depths, latency, count)
        want = period(times, depths, latency)
        # a periodic regime may repeat after several micro-batches only: less than one such round
        assert abs(got - want) <= 8 * want / (count / 2), (times, depths, latency)


def test_automatic_depths_are_enough_and_the_least() -> None:
    draw = random.Random(2)
    for _ in range(60):
        stages = draw.randint(2, 6)
        times = [
            (draw.randint(1, 5), draw.randint(1, 5), draw.randint(0, 9)) for _ in range(stages)
        ]
        latency = draw.choice((0.0, 0.25, 3.0))
        depths = auto_depths(times, latency)
        best = max(map(sum, times))
        assert period(times, depths, latency) == best
        for m, depth in enumerate(depths):
            fewer = [*depths[:m], depth - 1, *depths[m + 1 :]]
            if depth > 1 and all(a >= b for a, b in pairwise(fewer)):
                assert period(times, fewer, latency) > best


@pytest.mark.parametrize("stages", [1, 2, 3, 8, 48])
def test_closed_forms_of_equal_stages(stages: int) -> None:
    t_f, t_b, t_u = 130.0, 110.0, 310.0
    times = [(t_f, t_b, t_u)] * stages
    count = 16
    total = run_time(sequential(), times, [1] * count)
    assert total / count == pytest.approx(sequential_ns(stages, t_f, t_b, t_u))
    for order in ("1f1b", "gpipe"):
        total = run_time(synchronous(8, order), times, [8, 8])
        assert total / count == pytest.approx(synchronous_ns(stages, 8, t_f, t_b, t_u))
    averaged = run_time(synchronous(8, update="averaged"), times, [8, 8])
    assert total - averaged == pytest.approx(2 * 7 * t_u)
    longer = run_time(asynchronous(), times, [200]) - run_time(asynchronous(), times, [100])
    assert longer / 100 == pytest.approx(asynchronous_ns(times))


def test_published_example() -> None:
    """48 stages, 130 ns reads, BL 31, 5 ns pulses: 12.8 us, 2.1 us (B = 8) and 0.57 us."""
    t = (130.0, 130.0, 2 * 31 * 5.0)
    assert sequential_ns(48, *t) == pytest.approx(12_790)
    assert synchronous_ns(48, 8, *t) == pytest.approx(2_097.5)
    assert asynchronous_ns([t] * 48) == pytest.approx(570)


def test_unit_times_give_clock_cycles() -> None:
    plans = (sequential(), synchronous(5), synchronous(5, "gpipe"), asynchronous())
    for plan in (*plans, asynchronous(flush_every=4), asynchronous(warmup=6, micro_batches=4)):
        for stages in (1, 2, 3, 6):
            spans = modelled_spans(plan, [EQUAL] * stages, 13)
            assert max(span.end for span in spans) == plan.cycles(stages, 13), (plan, stages)
            assert run_time(plan, [EQUAL] * stages, plan.segments(13)) == plan.cycles(stages, 13)


def test_spans_keep_versions_and_order() -> None:
    times = [(1.0, 2.0, 3.0), (2.0, 1.0, 0.5), (1.0, 1.0, 1.0)]
    for plan in (asynchronous(), synchronous(4), asynchronous(warmup=5, micro_batches=3)):
        spans = modelled_spans(plan, times, 12, 0.5)
        assert len(spans) == sum(
            op.kind != "flush" for program in plan.ops(3, 12) for op in program
        )
        for m in (1, 2, 3):
            own = [span for span in spans if span.stage == m]
            assert all(a.end <= b.start for a, b in pairwise(own))
        for span in spans:
            if span.kind != "U":
                versions = plan.versions(3, span.stage, span.mb)
                assert span.version == versions[span.kind == "B"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: asynchronous(inflight="auto"), "inflight is 'auto'"),
        (lambda: asynchronous(True, "auto", times=[EQUAL]), "use half duplex"),
        (lambda: asynchronous(inflight="deep"), "use 'auto' or one number per stage"),
        (lambda: auto_depths([(1.0, -1.0, 0.0)]), "times of stage 1 are"),
        (lambda: auto_depths([(0.0, 0.0, 0.0)] * 2), "every stage; use at least one that is > 0"),
        (lambda: auto_depths([EQUAL], float("nan")), "latency is nan"),
        (lambda: timed([FORWARD_FIRST, NEEDS_BOTH], [EQUAL] * 2), "waiting at 1B0, 2F1"),
    ],
)
def test_errors_are_one_sentence(make, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ConfigError, match=message):
        make()


def test_a_schedule_with_automatic_depths_is_plain_data() -> None:
    plan = asynchronous(inflight="auto", times=[EQUAL] * 3, latency=1.0)
    assert plan == Schedule("asynchronous", depths=(5, 3, 1))


def test_a_stage_without_matrices_takes_no_time() -> None:
    """Embeddings alone, say: the others' times are what they were."""
    nothing = (0.0, 0.0, 0.0)
    alone = modelled_spans(asynchronous(), [EQUAL, EQUAL], 5)
    beside = modelled_spans(asynchronous(inflight=[2, 2, 1]), [nothing, EQUAL, EQUAL], 5)
    moved = [(s.stage - 1, *s[1:]) for s in beside if s.stage > 1]
    assert sorted(moved) == sorted(tuple(s) for s in alone)
    assert auto_depths([nothing, EQUAL, EQUAL])[1:] == auto_depths([EQUAL, EQUAL])

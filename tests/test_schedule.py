"""Schedules as data: closed forms against the clock and against a longest-path calculation."""

from __future__ import annotations

import random

import pytest

from clock import clock, parse
from clock import events as clock_events
from pulseline.errors import ConfigError
from pulseline.schedules import Op, Schedule, asynchronous, named, sequential, synchronous

STAGES = range(1, 9)
COUNTS = (1, 2, 3, 7, 8, 13, 24)
SCHEDULES = {
    "sequential": sequential(),
    "sequential_of_3": sequential(3),
    "sync_1f1b_1": synchronous(1),
    "sync_1f1b_8": synchronous(8),
    "sync_gpipe_5": synchronous(5, "gpipe"),
    "sync_gpipe_8": synchronous(8, "gpipe"),
    "async": asynchronous(),
    "async_flush_5": asynchronous(flush_every=5),
    "duplex": asynchronous(full_duplex=True),
    "duplex_flush_4": asynchronous(full_duplex=True, flush_every=4),
    "warmup_6": asynchronous(warmup=6, micro_batches=4),
    "warmup_duplex": asynchronous(True, flush_every=5, warmup=3, micro_batches=3),
}
CLOSED = {name: plan for name, plan in SCHEDULES.items() if not plan.warmup}


@pytest.fixture(params=SCHEDULES.values(), ids=SCHEDULES.keys())
def plan(request: pytest.FixtureRequest) -> Schedule:
    found: Schedule = request.param
    return found


@pytest.fixture(params=CLOSED.values(), ids=CLOSED.keys())
def closed(request: pytest.FixtureRequest) -> Schedule:
    """A schedule whose cycles have closed forms."""
    found: Schedule = request.param
    return found


def longest_path(plan: Schedule, stages: int, count: int) -> dict[tuple[str, int, int], int]:
    """Start cycle of every F and B as the longest path to it, by relaxation until nothing moves.

    Edges: the order inside a stage (one cycle apart; full duplex: an F and the B after it may
    share a cycle), messages (one cycle), entry into stage 1 every ``interval`` cycles, flushes.
    """
    start: dict[tuple[str, int, int], int] = {}
    moved = True
    while moved:
        moved = False
        for program in plan.ops(stages, count):
            before: tuple[str, int] | None = None
            used: set[str] = set()
            for op in program:
                if op.kind in ("U", "flush"):
                    continue
                m, k = op.stage, op.mb
                earliest = 0
                if before is not None:
                    share = plan.full_duplex and op.kind not in used
                    earliest = start.get((before[0], m, before[1]), 0) + (0 if share else 1)
                if op.kind == "F" and m > 1:
                    earliest = max(earliest, start.get(("F", m - 1, k), 0) + 1)
                if op.kind == "F" and m == 1:
                    first = k - k % plan.segment if plan.segment else 0
                    flush = start.get(("B", 1, first - 1), -1) + 1
                    earliest = max(earliest, flush + plan.interval * (k - first))
                if op.kind == "B" and m < stages:
                    earliest = max(earliest, start.get(("B", m + 1, k), 0) + 1)
                if start.get((op.kind, m, k), -1) < earliest:
                    start[op.kind, m, k] = earliest
                    moved = True
                same = before is not None and start[op.kind, m, k] == start[before[0], m, before[1]]
                used = {*used, op.kind} if same else {op.kind}
                before = (op.kind, k)
    return start


def test_closed_forms_equal_clock(closed: Schedule) -> None:
    plan = closed
    for stages in STAGES:
        for count in COUNTS:
            events = clock_events(plan, stages, count)
            assert plan.events(stages, count) == events
            passes = [event for event in events if event.kind in ("F", "B")]
            assert len(passes) == 2 * stages * count
            for event in passes:
                op = Op(event.stage, event.kind, event.mb)
                assert plan.cycle(stages, op, count) == event.cycle, (stages, count, str(op))
            assert plan.cycles(stages, count) == max(event.cycle for event in events) + 1


def test_clock_equals_longest_path(closed: Schedule) -> None:
    plan = closed
    for stages in STAGES:
        count = 13
        brute = longest_path(plan, stages, count)
        events = plan.events(stages, count)
        clocked = {(e.kind, e.stage, e.mb): e.cycle for e in events if e.kind in ("F", "B")}
        assert clocked == brute


def test_cycle_formulas() -> None:
    for m in STAGES:
        for k in COUNTS:
            assert sequential().cycles(m, k) == 2 * m * k
            assert asynchronous().cycles(m, k) == 2 * (k + m - 1)
            assert asynchronous(full_duplex=True).cycles(m, k) == k + 2 * m - 2
            whole, rest = divmod(k, 8)
            short = 2 * (m + rest - 1) if rest else 0
            for order in ("1f1b", "gpipe"):
                assert synchronous(8, order).cycles(m, k) == whole * 2 * (m + 7) + short
            assert sequential().speedup(m, k) == 1
            assert asynchronous().density(m, k) == k / (k + m - 1)
            assert sequential().density(m, k) == 1 / m
    for plan in SCHEDULES.values():
        assert plan.cycles(4, 0) == 0


def test_published_synchronous_bars() -> None:
    """arXiv 2410.15155, speed-up chart: 8M/(M+7) at B = 8."""
    for m, bar in ((2, 1.78), (4, 2.91), (8, 4.27), (12, 5.05), (16, 5.57)):
        assert synchronous(8).speedup(m, 800) == pytest.approx(8 * m / (m + 7))
        assert abs(synchronous(8).speedup(m, 800) - bar) < 0.006


@pytest.mark.parametrize("stages", range(1, 17))
def test_table_of_clock_cycles(stages: int) -> None:
    """M = 1..16: what the clock counts, the closed forms of AP, and the published 8M/(M+7)."""
    count = 40
    table = {
        sequential(): 2 * stages * count,
        synchronous(8): 2 * (stages + 7) * count // 8,
        synchronous(8, "gpipe"): 2 * (stages + 7) * count // 8,
        asynchronous(): 2 * (count + stages - 1),
        asynchronous(full_duplex=True): count + 2 * stages - 2,
    }
    for plan, cycles in table.items():
        clocked = max(event.cycle for event in plan.events(stages, count)) + 1
        assert clocked == cycles == plan.cycles(stages, count)
        assert plan.speedup(stages, count) == 2 * stages * count / cycles
    assert synchronous(8).speedup(stages, count) == pytest.approx(8 * stages / (stages + 7))
    assert asynchronous().density(stages, count) == count / (count + stages - 1)


def test_no_stage_does_two_passes_in_a_cycle(plan: Schedule) -> None:
    for stages in STAGES:
        seen = set()
        for event in plan.events(stages, 13):
            if event.kind in ("F", "B"):
                slot = (event.cycle, event.stage, event.kind if plan.full_duplex else "")
                assert slot not in seen
                seen.add(slot)


def test_versions_and_peak_in_flight(plan: Schedule) -> None:
    count = 24
    for stages in STAGES:
        flight = [0] * stages
        peak = [0] * stages
        for event in plan.events(stages, count):
            m = event.stage
            if event.kind == "U":
                continue
            expected = plan.versions(stages, m, event.mb)[event.kind == "B"]
            assert event.version == expected, (stages, event)
            flight[m - 1] += 1 if event.kind == "F" else -1
            peak[m - 1] = max(peak[m - 1], flight[m - 1])
        assert peak == [plan.inflight(stages, m, count) for m in range(1, stages + 1)]
        assert flight == [0] * stages


def test_staleness_and_inflight_formulas() -> None:
    for stages in STAGES:
        for m in range(1, stages + 1):
            assert asynchronous().staleness(stages, m) == stages - m
            assert asynchronous().inflight(stages, m) == stages - m + 1
            assert asynchronous(full_duplex=True).staleness(stages, m) == 2 * (stages - m)
            assert asynchronous(full_duplex=True).inflight(stages, m) == 2 * (stages - m) + 1
            assert synchronous(8).inflight(stages, m) == min(8, stages - m + 1)
            assert synchronous(8, "gpipe").inflight(stages, m) == 8
            assert sequential().inflight(stages, m) == 1
            assert synchronous(8).staleness(stages, m) == sequential().staleness(stages, m) == 0
    assert asynchronous(inflight=[5, 3, 3, 1]).staleness(4, 1) == 4
    assert asynchronous(flush_every=5).versions(4, 1, 11) == (10, 11)


def test_sequential_is_the_asynchronous_order_at_depth_one() -> None:
    for stages in STAGES:
        same = asynchronous(inflight=[1] * stages)
        passes = [e for e in sequential().events(stages, 9) if e.kind != "U"]
        assert [e for e in same.events(stages, 9) if e.kind != "U"] == passes
        assert same.cycles(stages, 9) == sequential().cycles(stages, 9)


def test_every_program_finishes(plan: Schedule) -> None:
    """No deadlock: the clock raises if there is one."""
    for stages in STAGES:
        for count in COUNTS:
            assert len(plan.ops(stages, count)) == stages
            plan.events(stages, count)


def test_random_depths_finish_and_are_stale_by_depth_less_one() -> None:
    draw = random.Random(0)
    for _ in range(60):
        stages = draw.randint(1, 8)
        depths = sorted((draw.randint(1, 9) for _ in range(stages)), reverse=True)
        plan = asynchronous(full_duplex=draw.random() < 0.3, inflight=depths)
        events = plan.events(stages, 20)
        for event in events:
            if event.kind != "U":
                assert (
                    event.version == plan.versions(stages, event.stage, event.mb)[event.kind == "B"]
                )
        assert plan.cycles(stages, 20) == max(event.cycle for event in events) + 1


def test_clock_finds_deadlocks() -> None:
    forward_first = [parse(text) for text in ("1F0", "1B0", "1F1", "1B1")]
    needs_both = [parse(text) for text in ("2F0", "2F1", "2B0", "2B1")]
    with pytest.raises(ConfigError, match="deadlocks in cycle 2, waiting at 1B0, 2F1"):
        clock([forward_first, needs_both])


def test_text_form() -> None:
    ops = asynchronous(flush_every=2).ops(2, 2)
    assert " ".join(map(str, ops[0])) == "1F0 1F1 1B0 1U0 1B1 1U1 1flush1"
    assert " ".join(map(str, ops[1])) == "2F0 2B0 2U0 2F1 2B1 2U1 2flush1"
    assert " ".join(map(str, synchronous(2, "gpipe").ops(1, 3)[0])) == (
        "1F0 1F1 1B0 1B1 1U1 1flush1 1F2 1B2 1U2 1flush2"
    )
    for program in ops:
        for op in program:
            assert parse(str(op)) == op


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: synchronous(0), "micro_batches is 0; use an integer >= 1"),
        (lambda: synchronous(True), "micro_batches is True; use"),
        (lambda: synchronous(8, "2f2b"), "order is '2f2b'; use one of"),
        (lambda: Schedule("fast"), "schedule is 'fast'; use"),
        (lambda: Schedule("synchronous", full_duplex=True), "use them with 'asynchronous'"),
        (lambda: asynchronous(flush_every=0), "flush_every is 0; use"),
        (lambda: asynchronous(inflight=[2, 3]), "do not grow towards the last stage"),
        (lambda: asynchronous(inflight=[2, 0]), "every entry of inflight"),
        (lambda: asynchronous(inflight=[2, 1]).ops(3, 4), "2 entries for 3 stages"),
        (lambda: asynchronous().ops(0, 4), "stages is 0; use an integer >= 1"),
        (lambda: asynchronous().ops(2, -1), "micro_batches is -1; use an integer >= 0"),
        (lambda: asynchronous().staleness(2, 3), "stage is 3; use 1 to 2"),
        (lambda: asynchronous().cycle(2, Op(1, "U", 0), 4), "no closed form"),
        (
            lambda: asynchronous().cycle(2, Op(1, "F", 4), 4),
            "is not part of the run; use micro-batches below 4",
        ),
        (lambda: synchronous(8, update="mean"), "update is 'mean'; use one of"),
        (lambda: Schedule("asynchronous", update="averaged"), "without mini-batches to average"),
        (lambda: Schedule("synchronous", warmup=4), "use them with 'asynchronous'"),
        (lambda: asynchronous(warmup=-1), "warmup is -1; use an integer >= 0"),
        (
            lambda: asynchronous(warmup=4, micro_batches=0),
            "micro_batches is 0; use an integer >= 1",
        ),
        (lambda: asynchronous(warmup=4).cycle(2, Op(1, "F", 0), 4), "no closed form"),
        (lambda: named("fast"), "schedule is 'fast'; use one of async"),
    ],
)
def test_errors_are_one_sentence(make, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ConfigError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)

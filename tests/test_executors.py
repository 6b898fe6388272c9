"""All executors do the same: ``sim`` against ``threads``, digest by digest; their failures.

The argument is that stages are a Kahn process network; these tests try to refute it with noise,
random sleeps and a thread switch after every microsecond.
"""

from __future__ import annotations

import faulthandler
import random
import signal
import sys
import threading
import time
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import delayed
import executor_cases as cases
from pulseline.digest import digest
from pulseline.errors import BackendError, ConfigError, StageFailed
from pulseline.pipeline import Pipeline
from pulseline.pipeline.executors.link import Link, LinkFailed
from pulseline.schedules import Planner, Schedule, asynchronous, synchronous
from test_pipeline_errors import Poison


@pytest.fixture(autouse=True)
def _watchdog() -> Iterator[None]:
    """A deadlock ends the whole test run after 20 s, with the stack of every thread."""
    faulthandler.dump_traceback_later(20, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()


@pytest.fixture
def _hasty() -> Iterator[None]:
    """Threads change places whenever they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


class Jitter(nn.Module):
    """Passes its input on, and its gradient back, after a random while."""

    def forward(self, x: Tensor) -> Tensor:
        time.sleep(random.random() * 2e-3)
        if x.requires_grad:
            x = x * 1
            x.register_hook(lambda _: time.sleep(random.random() * 2e-3))  # type: ignore[no-untyped-call]
        return x


@pytest.mark.usefixtures("_hasty")
@pytest.mark.parametrize("stages", [1, 3, 4, 6])
@pytest.mark.parametrize("plan", [*cases.SCHEDULES, "deeper"])
def test_threads_equal_sim(stages: int, plan: str) -> None:
    schedule = cases.SCHEDULES.get(plan) or cases.deeper(stages)
    for kind in (delayed.Analog(), delayed.Digital()):
        want = cases.outcome(cases.build(stages, schedule, kind))
        with cases.build(stages, schedule, kind, executor="threads") as pipe:
            assert cases.outcome(pipe) == want


@pytest.mark.usefixtures("_hasty")
@pytest.mark.parametrize("plan", [asynchronous(), synchronous(7, "gpipe")], ids=["async", "gpipe"])
def test_random_sleeps_change_nothing(plan: Schedule) -> None:
    want = cases.outcome(cases.build(4, plan))
    for _ in range(2):
        pipe = cases.build(4, plan, executor="threads")
        for stage in pipe.stages:
            stage.module = nn.Sequential(*stage.module.children(), Jitter())
        with pipe:
            assert cases.outcome(pipe) == want


def test_plans_need_no_tensors() -> None:
    """The planner's operations are those of the schedule, whatever the steps it is fed in."""
    for plan in (*cases.SCHEDULES.values(), cases.deeper(4)):
        for cut in (1, 3, 20):
            planner = Planner(plan, 4)
            found = []
            for k in range(20):
                planner.feed()
                if (k + 1) % cut == 0:
                    found += list(planner.advance())
            found += list(planner.advance(drain=True))
            want = [(e.cycle, e.stage - 1, e.kind, e.mb) for e in plan.events(4, 20)]
            assert sorted(found) == sorted(want)
            for m, program in enumerate(plan.ops(4, 20)):
                order = [(kind, k) for _, stage, kind, k in found if stage == m]
                assert order == [(op.kind, op.mb) for op in program if op.kind != "flush"]


def test_measured_spans_follow_the_plan() -> None:
    for executor in ("sim", "threads"):
        with cases.build(3, asynchronous(), executor=executor, measure=True) as pipe:
            cases.outcome(pipe)
            spans = pipe.spans()
        assert sorted((s.stage, s.kind, s.mb, s.version) for s in spans) == sorted(
            (e.stage, e.kind, e.mb, e.version) for e in pipe.events()
        )
        for stage in (1, 2, 3):
            mine = [span for span in spans if span.stage == stage]
            assert all(span.end >= span.start for span in mine)
            for before, after in pairwise(mine):
                assert after.start >= before.end


def test_state_dict_has_the_names_of_the_model() -> None:
    kind = delayed.Analog()
    tanh = nn.Tanh()  # one module in two places
    model = nn.Sequential()
    for name, layer in (("in", kind.linear(0)), ("a", tanh), ("out", kind.linear(1)), ("b", tanh)):
        model.add_module(name, layer)
    pipe = Pipeline(
        model,
        2,
        optimizer=lambda parameters: kind.optimizer(parameters, 0.1),
        loss=nn.functional.mse_loss,
    )
    assert [len(stage.module) for stage in pipe.stages] == [2, 2]  # type: ignore[arg-type]
    x, y = delayed.samples(3, 1)
    cases.feed(pipe, x, y)
    assert pipe.state_dict().keys() == model.state_dict().keys()
    assert pipe.digest() == digest(model.state_dict())


def _spoiled(stage: int, module: nn.Module, **options: Any) -> Pipeline:
    pipe = cases.build(4, asynchronous(), executor="threads", **options)
    part = pipe.stages[stage - 1].module
    pipe.stages[stage - 1].module = nn.Sequential(module, *part.children())
    return pipe


class Raises(nn.Module):
    """Fails at its ``n``-th call."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.left = n

    def forward(self, x: Tensor) -> Tensor:
        self.left -= 1
        if not self.left:
            raise RuntimeError("the roof is on fire")
        return x


@pytest.mark.parametrize("stage", [1, 2, 3, 4])
def test_an_exception_stops_all_threads(stage: int) -> None:
    """... at once, is raised as StageFailed, and leaves a pipeline that works."""
    pipe = _spoiled(stage, Raises(7))
    x, y = delayed.samples(cases.COUNT, cases.SIZE)
    start = time.monotonic()
    with pipe, pytest.raises(StageFailed, match="the roof is on fire") as caught:
        cases.feed(pipe, x, y)
    assert time.monotonic() - start < 5
    assert (caught.value.stage, caught.value.op, caught.value.k) == (stage, "F", 6)
    assert isinstance(caught.value.__cause__, RuntimeError)


def test_threads_work_on_after_a_failure() -> None:
    """NaN in an error: nothing of that micro-batch was applied at the stage; the rest goes on."""
    pipe = _spoiled(2, Poison(5, in_backward=True))
    x, y = delayed.samples(cases.COUNT, cases.SIZE)
    with pipe:
        with pytest.raises(StageFailed, match=r"stage 2 failed at operation B4: .*NaN"):
            cases.feed(pipe, x, y)
        assert pipe.flushed
        assert all(stage.in_flight == 0 for stage in pipe.stages)
        assert all(update.mb < 4 for update in pipe.stages[1].updates)
        before = [stage.version for stage in pipe.stages]
        pipe.drain()  # what had finished before
        losses = cases.feed(pipe, x, y)
        assert len(losses) == cases.COUNT
        assert [s.version for s in pipe.stages] == [v + cases.COUNT for v in before]
    assert all(torch.isfinite(p).all() for s in pipe.stages for p in s.module.parameters())


def test_sim_after_a_failure_counts_on() -> None:
    pipe = cases.build(3, asynchronous())
    part = pipe.stages[1].module
    pipe.stages[1].module = nn.Sequential(Raises(3), *part.children())
    x, y = delayed.samples(cases.COUNT, cases.SIZE)
    with pytest.raises(StageFailed):
        cases.feed(pipe, x, y)
    cycles = pipe.cycles
    fed = pipe.micro_batches
    cases.feed(pipe, x, y)
    assert pipe.cycles == cycles + 2 * (cases.COUNT + 2)
    assert pipe.micro_batches == fed + cases.COUNT
    assert next(event.mb for event in pipe.events() if event.cycle >= cycles) == fed


class Sleeps(nn.Module):
    """Takes its time at the ``n``-th call."""

    def __init__(self, n: int, seconds: float) -> None:
        super().__init__()
        self.left, self.seconds = n, seconds

    def forward(self, x: Tensor) -> Tensor:
        self.left -= 1
        if not self.left:
            time.sleep(self.seconds)
        return x


def test_a_stage_that_hangs_closes_the_pipeline() -> None:
    pipe = _spoiled(3, Sleeps(3, 2.0), timeout=0.2)
    x, y = delayed.samples(cases.COUNT, cases.SIZE)
    start = time.monotonic()
    with pytest.raises(StageFailed, match=r"no message came for 0\.2 s"):
        cases.feed(pipe, x, y)
    assert time.monotonic() - start < 1.5
    with pytest.raises(BackendError, match="the pipeline is closed"):
        cases.feed(pipe, x, y)


def test_an_interrupt_stops_all_threads() -> None:
    main = threading.main_thread().ident
    assert main is not None

    class Interrupts(nn.Module):
        left = 5

        def forward(self, x: Tensor) -> Tensor:
            self.left -= 1
            if not self.left:
                signal.pthread_kill(main, signal.SIGINT)
                time.sleep(0.2)
            return x

    x, y = delayed.samples(cases.COUNT, cases.SIZE)
    # A process that was started in the background ignores the signal.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with _spoiled(2, Interrupts()) as pipe:
            with pytest.raises(KeyboardInterrupt):
                cases.feed(pipe, x, y)
            assert pipe.flushed
            pipe.drain()  # what had finished before
            assert len(cases.feed(pipe, x, y)) == cases.COUNT
    finally:
        signal.signal(signal.SIGINT, before)


def test_workers_end_with_their_pipeline() -> None:
    def alive() -> int:
        return sum(t.name.startswith("pulseline stage") for t in threading.enumerate())

    def settled(count: int) -> bool:
        for _ in range(200):
            if alive() == count:
                return True
            time.sleep(0.01)
        return False

    assert settled(0)
    pipe = cases.build(3, asynchronous(), executor="threads")
    assert alive() == 3
    pipe.close()
    assert settled(0)
    with pytest.raises(BackendError, match="the pipeline is closed"):
        cases.outcome(pipe)
    pipe = cases.build(2, asynchronous(), executor="threads")
    cases.outcome(pipe)
    del pipe
    assert settled(0)


def test_workers_share_the_threads_of_torch() -> None:
    seen: list[tuple[int, bool]] = []

    class Spy(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            seen.append((torch.get_num_threads(), torch.is_grad_enabled()))
            return x

    torch.set_num_threads(8)
    try:
        with torch.no_grad(), _spoiled(2, Spy()) as pipe:  # grad mode is not the caller's
            x, y = delayed.samples(2, cases.SIZE)
            cases.feed(pipe, x, y)
        assert torch.get_num_threads() == 8
    finally:
        torch.set_num_threads(1)
    assert seen == [(2, True)] * 2


def test_a_link_knows_what_is_due() -> None:
    link = Link()
    with pytest.raises(LinkFailed, match="missing"):
        link.get(0)
    link.put(3, torch.zeros(1))
    with pytest.raises(LinkFailed, match="micro-batch 3 came in place of that of 2"):
        link.get(2)


@pytest.mark.skipif(torch.cuda.is_available(), reason="streams run where CUDA is")
def test_streams_need_cuda() -> None:
    with pytest.raises(BackendError, match="needs CUDA") as caught:
        cases.build(2, asynchronous(), executor="streams")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"executor": "dist"}, "start it with torchrun --nproc-per-node 2"),
        ({"executor": "gpu"}, "executor is 'gpu'; use one of sim, threads"),
        ({"executor": "threads", "timeout": 0}, "timeout is 0; use a positive number"),
    ],
)
def test_executor_errors(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        cases.build(2, asynchronous(), **options)

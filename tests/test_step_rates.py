"""Learning rates per micro-batch: training written out by hand, executors, resume, groups."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, ReduceLROnPlateau

import delayed
import executor_cases as cases
import launch
import pulseline as pl
from pulseline.errors import ConfigError
from pulseline.nn import AnalogLinear
from pulseline.optim import AnalogSGD
from pulseline.pipeline import Pipeline, checkpoint, torch_lr
from pulseline.pipeline.rates import Rates, set_stage_lrs
from pulseline.schedules import Schedule, asynchronous, synchronous

SIZE, COUNT = 4, 24
KINDS = {"digital": delayed.Digital(), "analog": delayed.Analog()}
SCRIPT = str(Path(__file__).with_name("dist_rank.py"))


def rate(k: int) -> float:
    """Another one for every micro-batch."""
    return 0.08 / (1 + k)


def build(kind: Any, stages: int, plan: str | Schedule = "async", **options: Any) -> Pipeline:
    return Pipeline(
        delayed.network(kind, stages),
        stages,
        optimizer=lambda parameters: kind.optimizer(parameters, 0.05),
        loss=nn.functional.mse_loss,
        schedule=plan,
        micro_batch_size=SIZE,
        **options,
    )


def trained(pipe: Pipeline, cut: int = COUNT) -> str:
    """Digest after all samples, ``cut`` micro-batches per step."""
    x, y = delayed.samples(COUNT, SIZE)
    for inputs, targets in zip(x.split(cut * SIZE), y.split(cut * SIZE), strict=True):
        pipe.step(inputs, targets)
    pipe.drain()
    layers = (layer for stage in pipe.stages for layer in stage.module.children())
    return delayed.weights_digest(
        delayed.Analog() if analog(pipe) else delayed.Digital(), nn.Sequential(*layers)
    )


def analog(pipe: Pipeline) -> bool:
    return isinstance(pipe.stages[0].module[0], AnalogLinear)  # type: ignore[index]


@pytest.fixture(params=KINDS.values(), ids=KINDS.keys())
def kind(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.mark.parametrize("cut", [1, 5, COUNT])
def test_the_update_of_a_micro_batch_takes_its_rate(kind: Any, cut: int) -> None:
    """In every stage, whenever the update comes: equal to training written out by hand."""
    x, y = delayed.samples(COUNT, SIZE)

    def by_hand(shift: int) -> str:
        return delayed.delayed_gradients(
            *(kind, 4, x, y, SIZE), lambda m, k: rate(k + shift * (4 - m)), lambda m: 4 - m
        )

    assert trained(build(kind, 4, lr=rate), cut) == by_hand(0)
    assert by_hand(1) != by_hand(0)  # the mutant: a stage takes the rate of what it reads now


def test_a_rate_per_stage(kind: Any) -> None:
    """Of a list, and of the package's own rescheduling, at every update instead of at flushes."""
    x, y = delayed.samples(COUNT, SIZE)
    plan, rates = asynchronous(), Rates(anneal=10, warmup=3)
    want = delayed.delayed_gradients(
        *(kind, 3, x, y, SIZE),
        lambda m, k: 0.05 * rates.factors(plan, 3, k)[m - 1],
        lambda m: 3 - m,
    )
    listed = build(kind, 3, lr=lambda k: [0.05 * f for f in rates.factors(plan, 3, k)])
    assert trained(listed) == want
    factors = build(kind, 3, lr_factor=lambda k: rates.factors(plan, 3, k))
    assert trained(factors, 5) == want


def test_an_update_of_several_takes_the_rate_of_the_last(kind: Any) -> None:
    """Synchronous, mini-batches of 7; the last one is short."""
    got = trained(build(kind, 3, synchronous(7), lr=rate))
    model = delayed.network(kind, 3)
    x, y = delayed.samples(COUNT, SIZE)
    optimizer = kind.optimizer(model.parameters(), 1.0)
    for k, (one, other) in enumerate(zip(x.split(SIZE), y.split(SIZE), strict=True)):
        nn.functional.mse_loss(model(one), other).backward()  # type: ignore[no-untyped-call]
        if k % 7 == 6 or k == COUNT - 1:
            optimizer.param_groups[0]["lr"] = rate(k)
            optimizer.step()
            optimizer.zero_grad()
    assert got == delayed.weights_digest(kind, model)


@pytest.mark.parametrize("name", ["lr", "lr_factor"])
def test_threads_leave_the_bits_of_sim(name: str) -> None:
    for plan in (*cases.SCHEDULES.values(), cases.deeper(3)):
        want = cases.outcome(cases.build(3, plan, **{name: rate}))
        with cases.build(3, plan, executor="threads", **{name: rate}) as pipe:
            assert cases.outcome(pipe) == want


def test_processes_leave_the_bits_of_sim() -> None:
    """Each rank asks the function itself; one that differs is noticed at the next flush."""
    done = launch.ranks(2, SCRIPT, "step_rates")
    assert [rank.code for rank in done] == [0, 0], done


def test_a_resumed_run_goes_on_where_it_was(kind: Any, tmp_path: Path) -> None:
    """The count of micro-batches decides; no state of a schedule is saved."""
    x, y = delayed.samples(COUNT, SIZE)
    half = 10 * SIZE

    def halves(pipe: Pipeline, parts: Iterable[int]) -> Pipeline:
        for part in parts:
            pipe.step(*((x[:half], y[:half]), (x[half:], y[half:]))[part])
            pipe.drain()
        return pipe

    for name in ("lr", "lr_factor"):
        whole = halves(build(kind, 3, **{name: rate}), (0, 1)).digest()
        root = tmp_path / name
        checkpoint.save(halves(build(kind, 3, **{name: rate}), (0,)), root, 1)
        resumed = build(kind, 3, **{name: rate})
        assert checkpoint.load(resumed, root) is not None
        assert halves(resumed, (1,)).digest() == whole


def test_parameter_groups() -> None:
    """A rate is that of all groups; a factor multiplies what each has, as torch's LambdaLR does."""

    def model() -> nn.Sequential:
        layers = [AnalogLinear(16, 16, seed=3, tile_id=n, device="soft_bounds") for n in range(3)]
        return nn.Sequential(*layers)

    def optimizer(parameters: Iterable[nn.Parameter]) -> AnalogSGD:
        weight, bias = parameters
        return AnalogSGD([{"params": [weight], "lr": 0.04}, {"params": [bias], "lr": 0.2}])

    def pipeline(**options: Any) -> Pipeline:
        return Pipeline(
            model(),
            3,
            "sequential",
            optimizer=optimizer,
            loss=nn.functional.mse_loss,
            micro_batch_size=SIZE,
            **options,
        )

    x, y = delayed.samples(COUNT, SIZE)
    by_hand = model()
    groups = [
        {"params": [p for p in by_hand.parameters() if p.dim() == n], "lr": lr}
        for n, lr in ((2, 0.04), (1, 0.2))
    ]
    steps = AnalogSGD(groups)
    scheduler = LambdaLR(steps, lambda k: 1 / (1 + k))
    for one, other in zip(x.split(SIZE), y.split(SIZE), strict=True):
        nn.functional.mse_loss(by_hand(one), other).backward()  # type: ignore[no-untyped-call]
        steps.step()
        steps.zero_grad()
        scheduler.step()
    pipe = pipeline(lr_factor=lambda k: 1 / (1 + k))
    pipe.step(x, y)
    assert pipe.digest() == pl.digest(by_hand.state_dict())
    last = [[group["lr"] for group in stage.optimizer.param_groups] for stage in pipe.stages]
    assert last == [[0.04 * (1 / COUNT), 0.2 * (1 / COUNT)]] * 3
    pipe.set_lr(0.5)  # of what factors multiply
    pipe.step(x[:SIZE], y[:SIZE])
    assert pipe.stages[1].optimizer.param_groups[1]["lr"] == 0.5 * (1 / (COUNT + 1))
    pipe = pipeline(lr=rate)
    pipe.step(x, y)
    last = [[group["lr"] for group in stage.optimizer.param_groups] for stage in pipe.stages]
    assert last == [[rate(COUNT - 1)] * 2] * 3


def test_schedulers_of_torch() -> None:
    given = torch_lr(lambda optimizer: CosineAnnealingLR(optimizer, 50, eta_min=0.01), 0.1)
    assert [given(k) for k in (30, 0, 50)] == [
        pytest.approx(0.01 + 0.09 * (1 + math.cos(math.pi * k / 50)) / 2) for k in (30, 0, 50)
    ]
    want = trained(build(KINDS["digital"], 2, lr=[given(k) for k in range(COUNT)].__getitem__))
    assert trained(build(KINDS["digital"], 2, lr=given)) == want
    with pytest.raises(ConfigError, match=r"make gives a ReduceLROnPlateau .*; use a scheduler"):
        torch_lr(ReduceLROnPlateau, 0.1)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (lambda k: -0.1, "lr gives -0.1 for micro-batch 7; use a finite number >= 0"),
        (lambda k: math.nan, "lr gives nan for micro-batch 7; use a finite number >= 0"),
        (lambda k: math.inf, "lr gives inf for micro-batch 7"),
        (lambda k: 1e39, "lr gives 1e[+]39 for micro-batch 7"),
        (lambda k: "0.1", "lr gives '0.1' for micro-batch 7"),
        (lambda k: True, "lr gives True for micro-batch 7"),
        (lambda k: None, "lr gives NoneType for micro-batch 7"),
        (lambda k: torch.ones(2), "lr gives Tensor for micro-batch 7"),
        (lambda k: [0.1, 0.2], "lr gives 2 numbers for micro-batch 7 and there are 3 stages"),
        (lambda k: [0.1, 0.2, -1], "lr gives -1 for micro-batch 7"),
        (lambda k: 1 / (k - 7), "lr raises ZeroDivisionError .division by zero. for micro-batch 7"),
    ],
)
def test_nonsense_is_refused_before_anything_moves(kind: Any, wrong: Any, told: str) -> None:
    """What is in flight goes on to the bits of a run in which nothing wrong was ever given."""
    given = [rate]
    pipe = build(kind, 3, lr=lambda k: wrong(k) if k == 7 and len(given) > 1 else rate(k))
    x, y = delayed.samples(COUNT, SIZE)
    pipe.step(x[: 5 * SIZE], y[: 5 * SIZE])
    given.append(wrong)
    with pytest.raises(ConfigError, match=told):
        pipe.step(x[5 * SIZE :], y[5 * SIZE :])
    assert (pipe.micro_batches, pipe.flushed) == (5, False)
    given.pop()
    pipe.step(x[5 * SIZE :], y[5 * SIZE :])
    pipe.drain()
    whole = build(kind, 3, lr=rate)
    whole.step(x, y)
    whole.drain()
    assert pipe.digest() == whole.digest()


def test_wrong_options_are_refused() -> None:
    kind = KINDS["digital"]
    with pytest.raises(ConfigError, match=r"Options: lr is 0\.1; use a function of the micro-batc"):
        build(kind, 2, lr=0.1)
    with pytest.raises(ConfigError, match="lr and lr_factor are both given; use one of them"):
        build(kind, 2, lr=rate, lr_factor=rate)
    pipe = build(kind, 2, lr=rate)
    for call in (lambda: pipe.set_lr(0.1), lambda: set_stage_lrs(pipe, [0.1, 0.1])):
        with pytest.raises(ConfigError, match="came where lr is a function; let that give"):
            call()

"""Learning rates that follow staleness: closed form, and what the stages get."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import delayed
from pulseline.errors import ConfigError
from pulseline.pipeline import Pipeline
from pulseline.pipeline.rates import Rates, set_rates, set_stage_lrs
from pulseline.schedules import Schedule, asynchronous, sequential, synchronous

KIND = delayed.Digital()


def build(plan: Schedule, stages: int = 4) -> Pipeline:
    return Pipeline(
        delayed.network(KIND, stages),
        stages,
        optimizer=lambda parameters: KIND.optimizer(parameters, 0.1),
        loss=nn.functional.mse_loss,
        schedule=plan,
        micro_batch_size=2,
    )


def lrs(pipe: Pipeline) -> list[float]:
    return [stage.optimizer.param_groups[0]["lr"] for stage in pipe.stages]


@pytest.mark.parametrize("t", [0, 1, 25, 50, 99, 100, 1000])
@pytest.mark.parametrize("plan", [asynchronous(), asynchronous(full_duplex=True)], ids=str)
def test_rescheduling_closed_form(plan: Schedule, t: int) -> None:
    """lr / tau^(1 - min(t/T, 1)) with tau = staleness >= 1."""
    stages, anneal = 5, 100
    factors = Rates(anneal=anneal).factors(plan, stages, t)
    for m, factor in enumerate(factors, start=1):
        tau = max(plan.staleness(stages, m), 1)
        assert factor == pytest.approx(tau ** -(1 - min(t / anneal, 1)))
    assert factors == sorted(factors)
    assert factors[-1] == 1


def test_nothing_happens_without_staleness_or_time() -> None:
    for plan in (sequential(), synchronous(8), asynchronous(inflight=[1, 1, 1])):
        assert Rates(anneal=100).factors(plan, 3, 5) == [1, 1, 1]
    assert Rates().factors(asynchronous(), 4, 0) == [1, 1, 1, 1]


def test_warm_up_rises_linearly() -> None:
    rates = Rates(warmup=4)
    got = [rates.factors(sequential(), 1, t)[0] for t in range(6)]
    assert got == [0.25, 0.5, 0.75, 1, 1, 1]
    both = Rates(anneal=10, warmup=4).factors(asynchronous(), 3, 1)
    assert both == [pytest.approx(0.5 * 2**-0.9), 0.5, 0.5]


def test_annealing_starts_after_a_synchronous_warm_up() -> None:
    plan = asynchronous(warmup=20, micro_batches=4)
    rates = Rates(anneal=10)
    assert rates.factors(plan, 3, 19) == [1, 1, 1]
    assert rates.factors(plan, 3, 20) == [0.5, 1, 1]
    assert rates.factors(plan, 3, 25) == [pytest.approx(2**-0.5), 1, 1]
    assert rates.factors(plan, 3, 30) == [1, 1, 1]


def test_stages_get_their_rates_at_flush_points() -> None:
    pipe = build(asynchronous())
    assert set_rates(pipe, 0.2, Rates(anneal=40)) == lrs(pipe)
    assert lrs(pipe) == [pytest.approx(0.2 / 3), 0.1, 0.2, 0.2]
    x, y = delayed.samples(20, 2)
    pipe.step(x, y)
    with pytest.raises(ConfigError, match="setting learning rates needs a flush point"):
        set_rates(pipe, 0.2, Rates())
    pipe.drain()
    set_rates(pipe, 0.2, Rates(anneal=40))
    assert lrs(pipe) == [pytest.approx(0.2 / 3**0.5), pytest.approx(0.2 / 2**0.5), 0.2, 0.2]
    assert set_stage_lrs(pipe, [4.0, 3.0, 2.0, 1.0]) == lrs(pipe) == [4, 3, 2, 1]


def test_a_run_uses_the_rates() -> None:
    """Staler stages move less at first: the same as training each stage with its own optimizer."""
    x, y = delayed.samples(12, 2)
    pipe = build(asynchronous(), 3)
    set_rates(pipe, 0.1, Rates(anneal=1000))
    pipe.step(x, y)
    pipe.drain()
    network = delayed.network(KIND, 3)
    rates = iter([0.05, 0.1, 0.1])
    by_hand = Pipeline(
        network,
        3,
        optimizer=lambda parameters: KIND.optimizer(parameters, next(rates)),
        loss=nn.functional.mse_loss,
        micro_batch_size=2,
    )
    by_hand.step(x, y)
    by_hand.drain()
    for one, other in zip(pipe.stages, by_hand.stages, strict=True):
        pairs = zip(one.module.parameters(), other.module.parameters(), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Rates(anneal=-1), "anneal is -1; use an integer >= 0"),
        (lambda: Rates(warmup=0.5), "warmup is 0.5; use an integer >= 0"),  # type: ignore[arg-type]
        (lambda: set_stage_lrs(build(asynchronous()), [0.1]), "1 entries for 4 stages"),
    ],
)
def test_errors(make, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ConfigError, match=message):
        make()

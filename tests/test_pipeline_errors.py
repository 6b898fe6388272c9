"""What the pipeline refuses, what a failing stage leaves behind, how models are cut."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import delayed
from pulseline.digest import digest
from pulseline.errors import ConfigError, StageFailed
from pulseline.pipeline import Pipeline, Stage
from pulseline.pipeline.split import split
from pulseline.pipeline.stage import is_finite
from pulseline.schedules import Schedule, asynchronous

SIZE = 2
KIND = delayed.Digital()


class Poison(nn.Module):
    """Passes its input on; at the ``n``-th call the output, or its gradient, turns infinite."""

    def __init__(self, n: int, in_backward: bool) -> None:
        super().__init__()
        self.left = n
        self.in_backward = in_backward

    def forward(self, x: Tensor) -> Tensor:
        self.left -= 1
        if self.left:
            return x
        if not self.in_backward:
            return x / 0
        x = x * 1
        x.register_hook(lambda grad: grad / 0)  # type: ignore[no-untyped-call]
        return x


def build(stages: int = 3, schedule: str | Schedule = "async", **options: Any) -> Pipeline:
    return Pipeline(
        delayed.network(KIND, stages),
        stages,
        optimizer=lambda parameters: delayed.PlainSGD(parameters, 0.05),
        loss=nn.functional.mse_loss,
        schedule=schedule,
        micro_batch_size=SIZE,
        **options,
    )


def run(pipe: Pipeline, x: Tensor, y: Tensor) -> None:
    pipe.step(x, y)
    pipe.drain()


def state(pipe: Pipeline) -> str:
    return digest({str(s.index): digest(s.module.state_dict()) for s in pipe.stages})


@pytest.mark.parametrize("schedule", ["async", "sync", "sequential"])
@pytest.mark.parametrize(("stage", "kind"), [(1, "F"), (2, "F"), (3, "F"), (2, "B"), (3, "B")])
def test_non_finite_message_stops_before_the_update(stage: int, kind: str, schedule: str) -> None:
    pipe = build(schedule=schedule)
    x, y = delayed.samples(12, SIZE)
    part = pipe.stages[stage - 1]
    assert isinstance(part.module, nn.Sequential)
    in_backward = kind == "B"
    poison = Poison(5, in_backward)
    part.module.insert(0 if in_backward else 2, poison)  # next to the message that it spoils
    pipe.step(x[: 3 * SIZE], y[: 3 * SIZE])
    with pytest.raises(StageFailed, match=f"stage {stage} failed at operation {kind}4") as caught:
        run(pipe, x[3 * SIZE :], y[3 * SIZE :])
    assert (caught.value.stage, caught.value.op, caught.value.k) == (stage, kind, 4)
    assert all(update.mb < 4 for update in part.updates)
    for parameter in part.module.parameters():
        assert torch.isfinite(parameter).all()
        assert parameter.grad is None or not parameter.grad.any()
    assert pipe.flushed
    assert all(other.in_flight == 0 for other in pipe.stages)
    pipe.step(x, y)
    pipe.drain()
    assert pipe.flushed
    assert all(torch.isfinite(p).all() for s in pipe.stages for p in s.module.parameters())


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_non_finite_input_runs_nothing(bad: float) -> None:
    pipe = build()
    x, y = delayed.samples(4, SIZE)
    before = state(pipe)
    x[5, 3] = bad
    with pytest.raises(ConfigError, match="x or y holds a NaN or an infinity; remove"):
        pipe.step(x, y)
    with pytest.raises(ConfigError, match="x or y holds a NaN or an infinity; remove"):
        pipe.step(y, x)
    assert state(pipe) == before
    assert (pipe.cycles, pipe.micro_batches) == (0, 0)


def test_a_large_finite_message_is_no_failure() -> None:
    assert is_finite(torch.full((4,), 3e38))
    assert is_finite(torch.zeros(0))
    assert not is_finite(torch.tensor([3e38, 3e38, float("nan")]))


def test_an_in_place_optimizer_cannot_be_asynchronous() -> None:
    """torch.optim.SGD tells autograd, which then refuses B of what is in flight."""
    pipe = Pipeline(
        delayed.network(KIND, 3),
        3,
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.1),
        loss=nn.functional.mse_loss,
    )
    x, y = delayed.samples(8, 1)
    with pytest.raises(StageFailed, match="use AnalogSGD"):
        pipe.step(x, y)


def test_wrong_shapes_name_stage_and_operation() -> None:
    pipe = build()
    before = state(pipe)
    with pytest.raises(StageFailed, match="stage 1 failed at operation F0"):
        pipe.step(torch.randn(2, 3), torch.randn(2, delayed.WIDTH))
    assert state(pipe) == before
    with pytest.raises(ConfigError, match="use as many samples of each"):
        pipe.step(torch.randn(2, 3), torch.randn(3, 3))
    pipe.step(torch.randn(0, delayed.WIDTH), torch.randn(0, delayed.WIDTH))
    assert pipe.micro_batches == 1
    assert pipe.flushed


def test_loss_must_be_a_scalar() -> None:
    pipe = Pipeline(
        delayed.network(KIND, 2),
        2,
        optimizer=lambda parameters: delayed.PlainSGD(parameters, 0.1),
        loss=lambda out, target: out - target,
    )
    x, y = delayed.samples(1, 1)
    with pytest.raises(StageFailed, match=r"loss returns shape \(.*\); return a scalar"):
        run(pipe, x, y)


def test_eval_at_flush_points_only() -> None:
    pipe = build()
    x, y = delayed.samples(6, SIZE)
    pipe.step(x, y)
    for call in (lambda: pipe.eval(x, drain=False), lambda: pipe.set_lr(0.1)):
        with pytest.raises(ConfigError, match=r"needs a flush point; call drain\(\) first"):
            call()
    pipe.drain()
    before = state(pipe)
    out = pipe.eval(x)
    whole = nn.Sequential(*(stage.module for stage in pipe.stages))
    assert torch.equal(out, whole(x).detach())
    assert not out.requires_grad
    assert state(pipe) == before
    for wrong in (-0.1, float("nan"), float("inf")):
        with pytest.raises(ConfigError, match="use a finite learning rate >= 0"):
            pipe.set_lr(wrong)
    pipe.set_lr(0.5)
    assert {g["lr"] for s in pipe.stages for g in s.optimizer.param_groups} == {0.5}


def test_eval_switches_modes() -> None:
    seen: list[bool] = []

    class Spy(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(self.training)
            return x

    model = nn.Sequential(nn.Linear(3, 3), Spy())
    model.eval()
    pipe = Pipeline(
        model,
        1,
        optimizer=lambda parameters: delayed.PlainSGD(parameters, 0.1),
        loss=nn.functional.mse_loss,
    )
    x = torch.randn(1, 3)
    pipe.step(x, x)
    pipe.drain()
    pipe.eval(x)
    pipe.step(x, x)
    assert seen == [True, False, True]


def test_split_keeps_whole_layers() -> None:
    model = nn.Sequential(
        nn.Flatten(), nn.Linear(2, 2), nn.Tanh(), nn.Linear(2, 2), nn.Linear(2, 2), nn.ReLU()
    )
    for stages, balance, sizes in (
        (1, None, [6]),
        (2, None, [4, 2]),
        (3, None, [3, 1, 2]),
        (2, [1, 2], [3, 3]),
    ):
        parts = split(model, stages, balance)
        assert [len(part) for part in parts] == sizes
        assert [id(layer) for part in parts for layer in part] == [id(layer) for layer in model]


@pytest.mark.filterwarnings("ignore")  # torch's own, from its tracing
def test_traced_models_are_refused() -> None:
    from torch.distributed.pipelining import SplitPoint, pipeline

    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    traced = pipeline(model, mb_args=(torch.randn(2, 3),), split_spec={"1": SplitPoint.BEGINNING})
    sgd = delayed.PlainSGD(model.parameters(), 0.1)
    with pytest.raises(ConfigError, match="the model is a traced Pipe, which would bypass"):
        split(traced, 2)
    with pytest.raises(ConfigError, match=r"the model is a traced .*GraphModule, which would"):
        split(traced.split_gm, 2)
    with pytest.raises(ConfigError, match=r"the model is a traced .*GraphModule, which would"):
        Stage(traced.get_stage_module(0), sgd)
    with pytest.raises(ConfigError, match=r"module '1' is a traced \w+, which would bypass"):
        Stage(nn.Sequential(model, torch.fx.symbolic_trace(model)), sgd)


def _stages(count: int, loss_at: int) -> list[Stage]:
    stages = []
    for m in range(1, count + 1):
        layer = nn.Linear(2, 2)
        loss = nn.functional.mse_loss if m == loss_at else None
        stages.append(Stage(layer, delayed.PlainSGD(layer.parameters(), 0.1), loss))
    return stages


def _sharing() -> list[Stage]:
    first, second = _stages(2, 2)
    return [first, Stage(second.module, first.optimizer, second.loss)]


def _bare() -> list[Stage]:
    first, second = _stages(2, 2)
    return [Stage(nn.Tanh(), first.optimizer), second]


def _two(schedule: Any = "async", **options: Any) -> Pipeline:
    return Pipeline(_stages(2, 2), schedule=schedule, **options)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Pipeline([]), "stages is empty"),
        (lambda: Pipeline(_stages(2, 0)), "stage 2 of 2 has no loss; give"),
        (lambda: Pipeline(_stages(2, 1)), "stage 1 of 2 has a loss"),
        (lambda: Pipeline(_sharing()), "share a parameter or an optimizer"),
        (lambda: Pipeline(_bare()), "stage 1 has no parameters"),
        (lambda: _two("fast"), "schedule is 'fast'; use one of"),
        (
            lambda: _two(executor="gpu"),
            "Options: executor is 'gpu'; use one of sim",
        ),
        (
            lambda: _two(micro_batch_size=0),
            "micro_batch_size is 0; use an integer >= 1",
        ),
        (lambda: _two("sync", micro_batches=0), "micro_batches is 0"),
        (
            lambda: _two(asynchronous(inflight=[3, 2, 1])),
            "3 entries for 2",
        ),
        (lambda: split(nn.Linear(2, 2), 3), "stages is 3, more than the 2 layers"),
        (lambda: split(nn.Sequential(nn.Linear(2, 2)), 2), "stages is 2, more than the 1 layers"),
        (lambda: split(nn.Sequential(nn.Linear(2, 2)), 0), "stages is 0; use an integer >= 1"),
        (lambda: split(nn.Sequential(nn.Linear(2, 2)), 1, [2]), r"balance is \[2\]; give each"),
        (lambda: digest({"a": [1, 2j]}), r"state entry a\.1 is a complex"),
    ],
)
def test_errors_are_one_sentence(make, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ConfigError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_digest_sees_names_types_shapes_and_bytes() -> None:
    base: dict[str, Any] = {"a": torch.zeros(2, 3), "b": {"n": 1}}
    changes: list[dict[str, Any]] = [
        {"a": torch.zeros(3, 2), "b": {"n": 1}},
        {"a": torch.zeros(2, 3, dtype=torch.float64), "b": {"n": 1}},
        {"c": torch.zeros(2, 3), "b": {"n": 1}},
        {"a": -torch.zeros(2, 3), "b": {"n": 1}},
        {"a": torch.zeros(2, 3), "b": {"n": 2}},
        {"a": torch.zeros(2, 3), "b": {"n": "1"}},
    ]
    assert len({digest(state) for state in (base, *changes)}) == 1 + len(changes)
    reordered = {"b": {"n": 1}, "a": torch.zeros(3, 2).t()}
    assert digest(reordered) == digest(base)

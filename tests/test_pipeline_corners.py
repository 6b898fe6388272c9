"""What torch code does to models before and while they train in a pipeline.

Oracle: Ideal devices with perfect reads, or digital layers, against the same network trained by
torch alone; where only one micro-batch is in flight the numbers are torch's. Tolerances: float32
sums of at most 16 terms in another order, 16 x 2^-24 relative to numbers of order one, times the
number of steps.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import pulseline as pl
from pulseline.errors import ConfigError, StageFailed
from pulseline.optim import AnalogSGD
from pulseline.pipeline import Pipeline, Stage, checkpoint
from pulseline.schedules import Schedule, asynchronous, sequential, synchronous

LR = 0.1
NOTHING: Any = None
SCHEDULES = ["async", "sync", "sequential", "gpipe", "duplex"]


def network(dropout: float = 0.0) -> nn.Sequential:
    generator = torch.Generator().manual_seed(3)
    layers: list[nn.Module] = []
    for size in ((6, 8), (8, 8), (8, 3)):
        layer = nn.Linear(*size)
        for p in layer.parameters():
            p.data.normal_(0, 0.4, generator=generator)
        layers += [layer, nn.Tanh(), nn.Dropout(dropout)]
    return nn.Sequential(*layers[:-2])


def samples(count: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(4)
    return torch.randn(count, 6, generator=generator), torch.randn(count, 3, generator=generator)


def analog(model: nn.Module) -> nn.Module:
    return pl.to_analog(model, device=pl.devices.Ideal(), io=pl.configs.IOConfig.perfect(), seed=0)


def build(model: nn.Module, schedule: str | Schedule = "async", **options: Any) -> Pipeline:
    return Pipeline(
        model,
        3,
        schedule,
        optimizer=lambda parameters: AnalogSGD(parameters, lr=LR),
        loss=nn.functional.mse_loss,
        **options,
    )


def trained(pipe: Pipeline, x: Tensor, y: Tensor, cut: int = 5) -> Tensor:
    losses = [pipe.step(a, b) for a, b in zip(x.split(cut), y.split(cut), strict=True)]
    return torch.cat([*losses, pipe.drain()])


def by_torch(model: nn.Module, x: Tensor, y: Tensor, size: int) -> None:
    """Plain SGD, a mini-batch of ``size`` at a time."""
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=LR)
    for a, b in zip(x.split(size), y.split(size), strict=True):
        optimizer.zero_grad()
        nn.functional.mse_loss(model(a), b).backward()
        optimizer.step()


def close(model: nn.Module, twin: nn.Module, steps: int) -> None:
    """Outputs of both on inputs of their own agree to rounding."""
    x, _ = samples(7)
    with torch.no_grad():
        model.eval(), twin.eval()
        assert torch.allclose(model(x), twin(x), rtol=0, atol=steps * 16 * 2.0**-24)


# ---- frozen stages ----


@pytest.mark.parametrize("kind", ["digital", "analog"])
@pytest.mark.parametrize("frozen", [(0,), (1,), (2,), (0, 1), (0, 1, 2)])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_frozen_stages(schedule: str, frozen: tuple[int, ...], kind: str) -> None:
    """They stay as they are, the others train; one micro-batch at a time as in torch."""
    model = network() if kind == "digital" else analog(network())
    layers = [m for m in model if next(m.parameters(), None) is not None]
    for n in frozen:
        layers[n].requires_grad_(False)
    before = [copy.deepcopy(layer.state_dict()) for layer in layers]
    twin = copy.deepcopy(network())
    x, y = samples(12)
    pipe = build(model, schedule, micro_batches=4)
    losses = trained(pipe, x, y)
    assert losses.shape == (12,)
    for n, (layer, was) in enumerate(zip(layers, before, strict=True)):
        now = layer.state_dict()
        same = all(torch.equal(now[k], was[k]) for k in was if isinstance(was[k], Tensor))
        assert same == (n in frozen)
    if schedule == "sequential":
        parts = [m for m in twin if isinstance(m, nn.Linear)]
        for n in frozen:
            parts[n].requires_grad_(False)
        if len(frozen) < 3:
            by_torch(twin, x, y, 1)
        close(model, twin, 12)


def test_an_optimizer_of_what_is_trained_may_be_empty() -> None:
    model = network()
    model[0].requires_grad_(False)
    pipe = Pipeline(
        model,
        3,
        optimizer=lambda ps: AnalogSGD([p for p in ps if p.requires_grad], lr=LR),
        loss=nn.functional.mse_loss,
    )
    assert trained(pipe, *samples(6)).shape == (6,)


def test_an_output_that_depends_on_nothing() -> None:
    class Detached(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x).detach()

    model = nn.Sequential(nn.Linear(6, 6), Detached(6, 6), nn.Linear(6, 3))
    with pytest.raises(StageFailed, match="stage 2 failed at operation B0: its output does not"):
        trained(build(model), *samples(3))


# ---- short micro-batches ----


@pytest.mark.parametrize("kind", ["digital", "analog"])
@pytest.mark.parametrize("samples_in_all", [8, 9, 11, 12])
def test_short_micro_batch_counts_by_its_samples(samples_in_all: int, kind: str) -> None:
    """An averaged update is that of the whole mini-batch in torch, however short its last part."""
    x, y = samples(samples_in_all)
    model = network() if kind == "digital" else analog(network())
    pipe = build(model, synchronous(3, update="averaged"), micro_batch_size=4)
    trained(pipe, x, y, cut=100)
    twin = network()
    by_torch(twin, x, y, samples_in_all)
    close(model, twin, 1)


def test_a_summed_update_counts_by_samples_too() -> None:
    """3 micro-batches of 4, 4 and 1 samples: 9/4 of the whole batch's mean gradient."""
    x, y = samples(9)
    model, twin = network(), network()
    trained(build(model, synchronous(3), micro_batch_size=4), x, y, cut=100)
    optimizer = torch.optim.SGD(twin.parameters(), lr=LR * 9 / 4)
    nn.functional.mse_loss(twin(x), y).backward()
    optimizer.step()
    close(model, twin, 1)


@pytest.mark.parametrize("schedule", [sequential(), asynchronous(inflight=[1, 1, 1])])
def test_a_mini_batch_of_its_own_is_a_mean(schedule: Schedule) -> None:
    """As torch with drop_last=False: the short one takes a whole step."""
    x, y = samples(10)
    model, twin = network(), network()
    trained(build(model, schedule, micro_batch_size=4), x, y, cut=100)
    by_torch(twin, x, y, 4)
    close(model, twin, 3)


def test_short_micro_batches_in_a_warm_up() -> None:
    x, y = samples(9)
    model, twin = network(), network()
    plan = asynchronous(warmup=3, micro_batches=3)
    trained(build(model, plan, micro_batch_size=4), x, y, cut=100)
    optimizer = torch.optim.SGD(twin.parameters(), lr=LR * 9 / 4)
    nn.functional.mse_loss(twin(x), y).backward()
    optimizer.step()
    close(model, twin, 1)


# ---- losses and evaluation ----


def test_eval_drains_and_no_loss_is_lost() -> None:
    x, y = samples(10)
    pipe, plain = build(network()), build(network())
    first = pipe.step(x[:6], y[:6])
    assert len(first) < 6
    out = pipe.eval(x)
    assert pipe.flushed
    assert [segment.micro_batches for segment in pipe.segments] == [6]
    rest = pipe.step(x[6:], y[6:])
    losses = torch.cat([first, rest, pipe.drain()])
    want = [plain.step(x[:6], y[:6]), plain.drain()]
    assert torch.equal(plain.eval(x), out)
    want += [plain.step(x[6:], y[6:]), plain.drain()]
    assert torch.equal(losses, torch.cat(want))
    assert pipe.digest() == plain.digest()


def test_losses_before_a_failure_come_with_the_next_return() -> None:
    x, y = samples(8)
    pipe = build(network(), "sequential")
    pipe.step(x[:2], y[:2])
    bad = y.clone()
    bad[5] = 3e38  # its square overflows
    with pytest.raises(StageFailed):
        pipe.step(x[2:], bad[2:])
    assert pipe.drain().shape == (3,)


# ---- what stages pass on ----


class Pair(nn.Linear):
    def forward(self, x: Tensor) -> Any:
        y = super().forward(x)
        return y, y


@pytest.mark.parametrize("executor", ["sim", "threads"])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_several_outputs_are_passed_on_as_they_are(place: int, executor: str) -> None:
    """... and the next layer, or the loss, says that it wants one."""
    layers = [nn.Linear(6, 6) for _ in range(3)]
    layers[place] = Pair(6, 6)
    with build(nn.Sequential(*layers), executor=executor) as pipe:
        message = rf"stage {min(place + 2, 3)} failed at operation F0: \w+: .*tuple"
        with pytest.raises(StageFailed, match=message):
            trained(pipe, torch.randn(2, 6), torch.randn(2, 6))


def test_a_loss_of_several_parts_gets_a_sentence() -> None:
    pipe = Pipeline(
        network(),
        3,
        optimizer=lambda p: AnalogSGD(p, lr=LR),
        loss=lambda out, y: {"loss": nn.functional.mse_loss(out, y)},  # type: ignore[arg-type]
    )
    with pytest.raises(StageFailed, match=r"loss returns a dict; return a scalar"):
        trained(pipe, *samples(2))


# ---- what torch draws ----


class Functional(nn.Linear):
    """Draws without a module that could be recognised."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.dropout(super().forward(x), 0.3, self.training)


def dropping() -> nn.Sequential:
    torch.manual_seed(11)
    return nn.Sequential(
        *(nn.Linear(6, 8), nn.Dropout(0.4), nn.Tanh()),
        *(Functional(8, 8), nn.Tanh(), nn.Linear(8, 8), nn.Dropout(0.2), nn.Linear(8, 3)),
    )


def run_dropping(executor: str, cut: int, **options: Any) -> tuple[list[float], str]:
    x, y = samples(40)
    with build(dropping(), executor=executor, **options) as pipe:
        return trained(pipe, x, y, cut).tolist(), pipe.digest()


def test_dropout_is_a_function_of_seed_stage_and_micro_batch() -> None:
    losses, digest = run_dropping("sim", 40)
    for repeat in range(3):
        torch.rand(17 * repeat)  # the caller's draws do not matter
        assert run_dropping("threads", 40 if repeat else 7) == (losses, digest)
    assert run_dropping("sim", 3)[1] == digest
    assert run_dropping("sim", 40, seed=5)[1] != digest
    assert run_dropping("sim", 40, seed=5) == run_dropping("threads", 9, seed=5)


def test_dropout_drops() -> None:
    """Masks differ between micro-batches and stages, at the rate asked for."""
    seen: list[Tensor] = []

    class Watched(nn.Dropout):
        def forward(self, x: Tensor) -> Tensor:
            y = super().forward(torch.ones_like(x))
            seen.append(y == 0)
            return y * x

    model = nn.Sequential(
        *(nn.Linear(6, 200), Watched(0.25), nn.Linear(200, 200), Watched(0.25), nn.Linear(200, 3))
    )
    pipe = build(model)
    pipe.set_lr(0.001)
    trained(pipe, *samples(50))
    masks = torch.cat(seen)
    assert len(masks) == 100
    assert len({tuple(mask.tolist()) for mask in masks}) == 100
    # 20,000 independent draws: 5 standard errors of 20,000 x .25
    assert abs(masks.float().mean() - 0.25) < 5 * (0.25 * 0.75 / 20_000) ** 0.5


def test_the_callers_generator_stands_where_it_stood() -> None:
    pipe = build(dropping())
    torch.manual_seed(5)
    want = torch.rand(3)
    torch.manual_seed(5)
    trained(pipe, *samples(10))
    assert torch.equal(torch.rand(3), want)


def test_a_resumed_run_drops_the_same(tmp_path: Path) -> None:
    x, y = samples(20)
    whole = build(dropping())
    trained(whole, x[:10], y[:10], 10)
    trained(whole, x[10:], y[10:], 10)
    torch.manual_seed(1)
    first = build(dropping())
    trained(first, x[:10], y[:10], 10)
    checkpoint.save(first, tmp_path, 1)
    second = build(dropping(), seed=77)
    assert checkpoint.load(second, tmp_path) is not None
    assert second.seed == first.seed
    trained(second, x[10:], y[10:], 10)
    assert second.digest() == whole.digest()


@pytest.mark.parametrize("executor", ["sim", "threads"])
def test_recomputed_dropout_is_the_same(executor: str) -> None:
    """torch.utils.checkpoint draws again in B what it drew in F."""
    from torch.utils.checkpoint import checkpoint as recompute

    class Recomputed(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            return recompute(super().forward, x, use_reentrant=False)

    def digest(kind: type[nn.Sequential], executor: str) -> str:
        parts = [nn.Sequential(*dropping()[:3]), nn.Sequential(*dropping()[3:])]
        model = nn.Sequential(kind(*parts[0]), kind(*parts[1]))
        x, y = samples(12)
        with Pipeline(
            model,
            2,
            optimizer=lambda p: AnalogSGD(p, lr=LR),
            loss=nn.functional.mse_loss,
            executor=executor,
        ) as pipe:
            trained(pipe, x, y)
            return pipe.digest()

    want = digest(nn.Sequential, "sim")
    # a stage whose F holds no draw of a later version of the weights: nothing is in flight
    assert len(want) == 64
    assert digest(Recomputed, executor) == digest(Recomputed, "sim")


# ---- the front door ----


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Pipeline(network()), "stages is missing; a model needs stages="),
        (lambda: Pipeline(network(), 3), "optimizer is missing"),
        (lambda: build(network(), micro_batch=3), "micro_batch is no option of a pipeline; use"),
        (lambda: build(network(), timeout=0), "timeout is 0; use a positive number of seconds"),
        (lambda: build(network(), seed=0.5), "seed is 0.5; use an integer"),
        (
            lambda: Pipeline(
                network(),
                3,
                optimizer=AnalogSGD(network().parameters()),  # type: ignore[arg-type]
                loss=nn.functional.mse_loss,
            ),
            "use a function of a stage's parameters",
        ),
        (
            lambda: Pipeline(
                [Stage(network(), AnalogSGD(network().parameters()), nn.functional.mse_loss)], 1
            ),
            "stages belongs to a model",
        ),
        (lambda: build(network(), NOTHING), "schedule is a NoneType; use a name"),
        (
            lambda: Pipeline(
                network(), 3, optimizer=lambda p: NOTHING, loss=nn.functional.mse_loss
            ),
            "the optimizer of stage 1 is a NoneType",
        ),
        (
            lambda: Pipeline(network(), 3, optimizer=AnalogSGD, loss="mse"),  # type: ignore[arg-type]
            "loss is 'mse'; use a function",
        ),
        (
            lambda: Pipeline(
                network(),
                3,
                optimizer=lambda p: AnalogSGD(network().parameters()),
                loss=nn.functional.mse_loss,
            ),
            "the optimizer of stage 1 holds parameters of other stages or models",
        ),
        (
            lambda: build(network()).step([1.0], torch.zeros(1)),
            r"x\[0\] is a float; stack",
        ),
    ],
)
def test_arguments_get_one_sentence(make: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_names_of_schedules() -> None:
    assert build(network(), "asynchronous").schedule == build(network(), "async").schedule
    assert build(network(), "synchronous").schedule == build(network(), "sync").schedule

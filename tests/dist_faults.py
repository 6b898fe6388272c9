"""One rank of the tests of what must not go wrong silently: ``dist_faults.py CASE...``.

As ``dist_rank.py``: each case checks what it can and raises; what the other side must check is
printed as ``CASE: text``.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import delayed
import executor_cases as cases
from pulseline.errors import BackendError, ConfigError, StageFailed
from pulseline.nn import AnalogLinear
from pulseline.optim import AnalogSGD
from pulseline.pipeline import Pipeline
from pulseline.pipeline.executors import dist as distributed
from pulseline.pipeline.executors import processes, shared
from pulseline.schedules import asynchronous

RANK, WORLD = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
ODD = RANK == WORLD - 1
WAIT_S = 2.5
MANY, WIDE = 64, 32768  # 8 MB a message
SLACK_S = 15.0  # for a machine with more work than cores


def network(width: int = 3, layers: int = 0, cell: Callable[..., nn.Module] = nn.Tanh) -> nn.Module:
    """Digital layers with certain weights."""
    generator = torch.Generator().manual_seed(0)
    parts: list[nn.Module] = []
    for _ in range(WORLD + layers):
        layer = nn.Linear(width, width)
        with torch.no_grad():
            layer.weight.copy_(torch.randn(width, width, generator=generator))
            layer.bias.zero_()
        parts += [layer, cell()]
    return nn.Sequential(*parts)


def build(model: nn.Module | None = None, lr: float = 0.1, **more: Any) -> Pipeline:
    """A small pipeline."""
    settings: dict[str, Any] = {"optimizer": lambda p: AnalogSGD(p, lr=lr), "timeout": WAIT_S * 10}
    settings |= {"loss": nn.functional.mse_loss, "executor": "dist", **more}
    return Pipeline(model or network(), WORLD, **settings)


def spoiled() -> nn.Module:
    """Other weights."""
    model = network()
    with torch.no_grad():
        next(model.parameters())[0, 0] += 1e-7
    return model


def first_analog(seed: int) -> Pipeline:
    """On devices of that seed."""
    return build(nn.Sequential(*(AnalogLinear(3, 3, seed=seed + m) for m in range(WORLD))))


# What the last rank builds in another way: how, and what all are told.
OTHERS: dict[str, tuple[Callable[[], Pipeline], str]] = {
    "lr": (lambda: build(lr=0.2), r"lr of the optimizer of stage 1, group 0 is 0\.1 on .* 0\.2 on"),
    "schedule": (lambda: build(schedule="sync"), "the schedule is "),
    "parameters of the schedule": (
        lambda: build(schedule=asynchronous(flush_every=5)),
        r"the schedule is Schedule\(.*",
    ),
    "depth": (lambda: build(network(layers=1)), "the layers of stage 1 is "),
    "width": (lambda: build(network(width=4)), "the layers of stage 1 is .*features=3"),
    "activation": (lambda: build(network(cell=nn.ReLU)), "the layers of stage 1 is .*Tanh.*ReLU"),
    "micro-batch size": (lambda: build(micro_batch_size=2), "the micro_batch_size is 1 on"),
    "micro_batches": (lambda: build(micro_batches=9), "the micro_batches is 8 on .* and 9 on"),
    "seed": (lambda: build(seed=3), "the seed is None on .* and 3 on"),
    "weights": (lambda: build(spoiled()), r"the value of 0\.weight is sha256 .* on rank 0"),
    "dtype": (lambda: build(network().double()), "the parameter .* float32 on .* float64 on"),
    "loss": (lambda: build(loss=nn.functional.l1_loss), "the loss is mse_loss on .* l1_loss on"),
    "optimizer": (
        lambda: build(optimizer=lambda p: torch.optim.Adam(p, lr=0.1)),
        "the optimizer of stage 1 is AnalogSGD on .* Adam on",
    ),
    "timeout": (lambda: build(timeout=30), "the timeout is "),
}


def differs() -> None:
    """Every rank refuses what one has built in another way, and says what and where."""
    for name, (other, want) in OTHERS.items():
        with pytest.raises(ConfigError, match=want) as refusal:
            (other if ODD else build)()
        ranks = "rank 0" if WORLD == 2 else f"ranks {', '.join(map(str, range(WORLD - 1)))}"
        assert f"on {ranks} and " in str(refusal.value), (name, refusal.value)
        assert f"on rank {WORLD - 1}; " in str(refusal.value), (name, refusal.value)
    with pytest.raises(
        ConfigError, match=r"the identity of layer 0 is seed 20, id 0 on .* seed 30, id 0 on"
    ):
        first_analog(30 if ODD else 20)
    original = distributed.Distributed
    link = "gloo" if ODD else "free"
    distributed.Distributed = lambda *args: original(*args, link)  # type: ignore[assignment, misc]
    try:
        with pytest.raises(ConfigError, match="link is free on rank 0"):
            build()
    finally:
        distributed.Distributed = original  # type: ignore[misc]
    model = network()
    for _ in range(2):  # trained apart: rank 0 has not seen the last stage move, and need not
        with build(model) as pipe:
            pipe.step(*delayed_samples())
            pipe.drain()


def delayed_samples(count: int = 6) -> tuple[Tensor, Tensor]:
    """Inputs and targets."""
    x = torch.randn(2, count, 3, generator=torch.Generator().manual_seed(count))
    return x[0], x[1]


def calls() -> None:
    """What one rank is fed in another way is named at the flush."""
    x, y = delayed_samples()

    def fed(x: Tensor, y: Tensor, lr: float = 0.1) -> Pipeline:
        pipe = build()
        pipe.set_lr(lr)
        pipe.step(x, y)
        return pipe

    swapped = torch.stack([x[1], x[0], *x[2:]])
    for other, want in (
        (lambda: fed(x + ODD, y), r"values in call 2, step\(.*\), differ between rank"),
        (lambda: fed(swapped if ODD else x, y), r"values in call 2, step\(float32, \(6, 3\), "),
        (lambda: fed(x, y + ODD), r"values in call 2, step\(.*\), differ between rank"),
        (lambda: fed(x, y, 0.2 if ODD else 0.1), r"call 1 is set_lr\(0\.1\) on .*set_lr\(0\.2\)"),
    ):
        pipe = other()
        with pytest.raises(ConfigError, match=want):
            pipe.drain()
        with pytest.raises(BackendError, match="the pipeline is closed"):
            pipe.drain()
        pipe.close()
    with fed(x, y) as pipe:
        pipe.drain()
        with pytest.raises(ConfigError, match=r"values in call 4, eval\(.*\), differ between"):
            pipe.eval(x + ODD)


def counts() -> None:
    """Ranks that make other calls wait for each other, then say which."""
    x, y = delayed_samples()

    def steps(pipe: Pipeline, *sizes: int, drain: bool = True) -> None:
        for size in sizes:
            pipe.step(x[:size], y[:size])
        if drain:
            pipe.drain()
            return
        pipe.step(x, y)

    for mine, odd, want in (
        ([6], [4], r"call 1 is step\(.*\(6, 3\)\) on rank 0 and step\(.*\(4, 3\)\) on rank 1"),
        ([3, 3], [3], r"call 2 is step\(.*\) on rank 0 and drain\(\) on rank 1"),
        ([6], [6, 0], r"call 2 is drain\(\) on rank 0 and step\(.*\) on rank 1"),
    ):
        pipe = build(timeout=WAIT_S)
        start = time.monotonic()
        with pytest.raises((StageFailed, ConfigError), match=f"not called alike: {want}"):
            steps(pipe, *(odd if ODD else mine), drain=not (ODD and odd[-1] == 0))
        assert time.monotonic() - start < 2 * WAIT_S + SLACK_S
        pipe.close()


def descriptors() -> None:
    """Closed pipelines keep nothing open, whether they ran or not."""
    x, y = delayed_samples()
    before = len(os.listdir("/proc/self/fd"))
    for trains in (False, True, False, True):
        pipe = build()
        if trains:
            pipe.step(x, y)
            pipe.drain()
        pipe.close()
        del pipe
    assert len(os.listdir("/proc/self/fd")) == before


def late() -> None:
    """One rank never comes."""
    if not ODD:
        start = time.monotonic()
        want = f"rank {WORLD - 1} did not come within .* s; start all {WORLD} processes"
        with pytest.raises(BackendError, match=want):
            build(timeout=WAIT_S)
        assert time.monotonic() - start < 2 * WAIT_S + SLACK_S
    time.sleep(2 * WAIT_S)


def start() -> None:
    """Only tries to start."""
    try:
        build(timeout=float(os.environ["WAIT_S"])).close()
        print("start: done", flush=True)
    except (BackendError, ConfigError) as error:
        print(f"start: {type(error).__name__}: {error}", flush=True)


def killed_at_start() -> None:
    """The last rank is killed when all have come and before they are connected."""
    if ODD:
        processes.connect = distributed.connect = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
    with pytest.raises(
        BackendError, match=f"the process of rank {WORLD - 1} ended at the start"
    ) as e:
        build(timeout=60)
    print(f"killed_at_start: {e.value}", flush=True)


class Signals(nn.Module):
    """Sends its own process a signal at a forward pass."""

    def __init__(self, number: int, at: int = 5) -> None:
        super().__init__()
        self.number, self.left = number, at

    def forward(self, x: Tensor) -> Tensor:
        self.left -= 1
        if not self.left:
            if self.number == signal.SIGSTOP:  # a stopped process needs somebody to wake it
                words = f"sleep {3 * WAIT_S}; kill -CONT {os.getpid()}"
                subprocess.Popen(["sh", "-c", words], start_new_session=True)
            os.kill(os.getpid(), self.number)
        return x


def _signalled(name: str, stage: int, number: int, pipe: Pipeline | None = None) -> None:
    x, y = delayed.samples(cases.COUNT, cases.SIZE)
    if pipe is None:
        pipe = cases.build(WORLD, asynchronous(), executor="dist", timeout=WAIT_S)
    else:
        x = y = torch.rand(20 * MANY, WIDE, generator=torch.Generator().manual_seed(1))
    part = pipe.stages[stage - 1]
    part.module = nn.Sequential(Signals(number), *part.module.children())
    start = time.monotonic()
    with pytest.raises(StageFailed) as failure:
        cases.feed(pipe, x, y, 6 * pipe.micro_batch_size // cases.SIZE)
    mine = stage - 1 == RANK  # it lay still
    assert time.monotonic() - start < 2 * WAIT_S + SLACK_S + (3 * WAIT_S if mine else 0)
    print(f"{name}: {failure.value}", flush=True)


def stopped_first() -> None:
    """The first rank, which holds the store, stops answering."""
    _signalled("stopped_first", 1, signal.SIGSTOP)
    build(timeout=60).close()


def stopped_last() -> None:
    """The last rank stops answering."""
    _signalled("stopped_last", WORLD, signal.SIGSTOP)
    build(timeout=60).close()


def killed_first() -> None:
    """The first rank is killed, and the store with it."""
    _signalled("killed_first", 1, signal.SIGKILL)


def full() -> None:
    """The last rank stops, and messages of 8 MB fill all that lies between: memory, then gloo."""
    for name, possible in (("full_memory", shared.possible), ("full_gloo", lambda: False)):
        shared.possible = possible
        parts = [layer for _ in range(WORLD) for layer in (nn.LayerNorm(WIDE), nn.Tanh())]
        pipe = build(nn.Sequential(*parts), timeout=WAIT_S, micro_batch_size=MANY)
        _signalled(name, WORLD, signal.SIGSTOP, pipe)
        build(timeout=60).close()


def forgotten() -> None:
    """Trains, drains, and ends without close()."""
    pipe = cases.build(max(WORLD, 2), asynchronous(), executor=os.environ["EXECUTOR"])
    globals()["left"] = pipe
    print(f"forgotten: {cases.outcome(pipe).digest}", flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    if sys.argv[1] not in ("forgotten", "start", "killed_at_start"):
        build(timeout=60).close()  # imports end at very different times
    for case in sys.argv[1:]:
        faulthandler.dump_traceback_later(80, exit=True)
        globals()[case]()
    faulthandler.cancel_dump_traceback_later()
    print("done", flush=True)

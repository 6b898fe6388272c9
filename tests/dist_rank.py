"""One rank of the distributed tests: ``dist_rank.py CASE...``, started once per rank.

Each case checks what it can and raises; what the other side must check is printed as
``CASE: text``. A case that outlasts 60 s ends the process with every thread's stack.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
import time
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

import algorithm_cases
import delayed
import executor_cases as cases
import families
from pulseline.errors import BackendError, ConfigError, StageFailed
from pulseline.nn import AnalogLinear
from pulseline.optim import AnalogSGD
from pulseline.pipeline import Pipeline, checkpoint, staleness
from pulseline.pipeline.executors import dist as distributed
from pulseline.pipeline.executors import processes, shared
from pulseline.pipeline.stage import Stage
from pulseline.schedules import Delayed, asynchronous, from_ops
from test_pipeline_errors import Poison

RANK, WORLD = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])


def equal(link: str | None = None) -> None:
    """Every schedule against ``sim`` in this very process: all that must not differ."""
    original = distributed.Distributed
    if link:
        distributed.Distributed = lambda *args: original(*args, link)  # type: ignore[assignment, misc]
    try:
        for plan in (*cases.SCHEDULES.values(), cases.deeper(WORLD)):
            want = cases.outcome(cases.build(WORLD, plan))
            with cases.build(WORLD, plan, executor="dist", measure=True) as pipe:
                assert [stage.index for stage in pipe.local] == [RANK + 1]
                assert pipe.rank == RANK
                got = cases.outcome(pipe)
                assert got == want, f"{plan}: {got} is not {want}"
                assert len(pipe.spans()) == len(got.events)
    finally:
        distributed.Distributed = original  # type: ignore[misc]


def lockstep() -> None:
    """The same with one exchange per clock tick, as on NCCL."""
    equal("lockstep")


def gloo() -> None:
    """From here on no process finds that it could share memory."""
    shared.possible = lambda: False
    equal()


def family(name: str, link: str | None = None) -> None:
    """A model cut on its graph: messages of several tensors against ``sim``."""
    original = distributed.Distributed
    distributed.Distributed = lambda *args: original(*args, link)  # type: ignore[assignment, misc]
    try:
        want = families.outcome(families.build(name, WORLD), name)
        moments: list[Any] = []  # what sim, whose snapshots are those of the model itself, reads
        families.outcome(families.build(name, WORLD), name, moments)
        with families.build(name, WORLD, executor="dist") as pipe:
            seen: list[Any] = []
            got = families.outcome(pipe, name, seen)
            assert got == want, f"{name}: {got} is not {want}"
            assert seen == moments
            assert len({str(one) for one in seen}) == len(seen) > 1  # the weights have moved
    finally:
        distributed.Distributed = original  # type: ignore[misc]


def step_rates() -> None:
    """A learning rate for every micro-batch, a lambda in each process; then two that differ."""
    for name in ("lr", "lr_factor"):
        given = {name: lambda k: [0.05 / (1 + k)] * (WORLD - 1) + [0.04]}
        for plan in cases.SCHEDULES.values():
            want = cases.outcome(cases.build(WORLD, plan, **given))
            with cases.build(WORLD, plan, executor="dist", **given) as pipe:
                assert cases.outcome(pipe) == want
    x, y = delayed.samples(3, cases.SIZE)
    pipe = cases.build(WORLD, asynchronous(), executor="dist", lr=lambda k: 0.1 + k * RANK)
    pipe.step(x, y)
    with pytest.raises(ConfigError, match=r"the values in call 1, step.*differ between rank 0 and"):
        pipe.drain()


def own_schedules() -> None:
    """A list of operations and delays that vary, through memory and in lock-step."""
    listed = from_ops(["F0 F1 F2 B0 U0 B1 F3 U1 B2 B3 U3", "F0 B0 F1 B1 U1 F2 B2 U2 F3 B3 U3"])
    plans = [listed, Delayed(lambda m, k: (5 * k + 3 * m) % 7)]
    _same(plans, None)
    _same(plans, "lockstep")


def _same(plans: list[Any], link: str | None) -> None:
    original = distributed.Distributed
    distributed.Distributed = lambda *args: original(*args, link)  # type: ignore[assignment, misc]
    try:
        for plan in plans:
            want = cases.outcome(cases.build(WORLD, plan))
            with cases.build(WORLD, plan, executor="dist") as pipe:
                assert cases.outcome(pipe) == want
                assert staleness(pipe)
    finally:
        distributed.Distributed = original  # type: ignore[misc]


def algorithms() -> None:
    """Every algorithm of several arrays against ``sim``."""
    for name, rule in algorithm_cases.RULES.items():
        want, got = (
            algorithm_cases.pipelined(rule, executor, WORLD) for executor in ("sim", "dist")
        )
        assert got == want, name


def all_families() -> None:
    """Through memory, by gloo, in lock-step."""
    for name in families.FAMILIES:
        family(name)
    family("gpt", "gloo")
    family("gpt", "lockstep")


def family_saved() -> None:
    """Saves in the middle, goes on, and is killed."""
    pipe = families.build("gpt", WORLD, executor="dist")
    families.trained(pipe, "gpt")
    checkpoint.save(pipe, os.environ["SAVED"], 1)
    x, y = families.samples("gpt", 4)
    pipe.step(x, y)
    os.kill(os.getpid(), signal.SIGKILL)


def family_resumed() -> None:
    """Continues from there, and ends with the bits of a run that nobody killed."""
    whole = families.build("gpt", WORLD)
    with families.build("gpt", WORLD, executor="dist") as pipe:
        checkpoint.load(pipe, os.environ["SAVED"])
        assert pipe.micro_batches == 8
        losses = families.trained(pipe, "gpt")
        families.trained(whole, "gpt")
        assert families.trained(whole, "gpt") == losses
        assert whole.digest() == pipe.digest()


def memory() -> None:
    """On one machine messages pass through memory, of any size, or all fall back to gloo."""
    x = torch.randn(6, cases.SIZE, generator=torch.Generator().manual_seed(3))
    group = dist.group.WORLD
    places: list[Any] = [None] * WORLD
    dist.all_gather_object(places, processes.place())
    peers = processes.Peers(places, RANK)
    neighbours = shared.Neighbours(group, RANK, peers)
    cpu = torch.device("cpu")
    below, above = RANK - 1, RANK + 1
    sizes = (1, 6, 0, 2, 5)
    first = sizes[0]
    if above < WORLD:
        down = neighbours.channel(above, "F", True, group, above, "F", 8, 20.0, cpu)
        assert isinstance(down, shared.SharedChannel) == shared.possible()
        for k, n in enumerate((first, *sizes)):
            down.put(k, x[:n])
        down.flush()
    if below >= 0:
        up = neighbours.channel(below, "F", False, group, below, "F", 8, 20.0, cpu)
        for k, n in enumerate((first, *sizes)):
            assert torch.equal(up.get(k), x[:n])
    dist.barrier()


def sleeps() -> None:
    """Ranks of different speed."""

    class Slow(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            time.sleep(0.004 * (RANK % 2))
            return x

    want = cases.outcome(cases.build(WORLD, asynchronous()))
    with cases.build(WORLD, asynchronous(), executor="dist") as pipe:
        for stage in pipe.local:
            stage.module = nn.Sequential(*stage.module.children(), Slow())
        assert cases.outcome(pipe) == want


def refuses() -> None:
    """Not as many processes as stages; what only rank 0 finds out."""
    with pytest.raises(ConfigError, match=f"stages is {WORLD + 1} and there are {WORLD} processes"):
        cases.build(WORLD + 1, asynchronous(), executor="dist")

    def complain() -> None:
        raise ConfigError("no such file here")

    with cases.build(WORLD, asynchronous(), executor="dist") as pipe:
        with pytest.raises(ConfigError, match="no such file here"):
            pipe.once(complain)
        assert pipe.once(lambda: RANK) == 0
        assert pipe.share(RANK) == list(range(WORLD))


def twins() -> None:
    """Layers that are the same devices only from one process to the next."""
    layers = [AnalogLinear(3, 3, seed=0 if m == RANK else m + 1) for m in range(WORLD)]
    with pytest.raises(
        ConfigError,
        match=r"the identity of layer 0 is seed 0, id 0 on rank 0 and seed 1, id 0 on rank",
    ):
        Pipeline(
            nn.Sequential(*layers),
            WORLD,
            optimizer=AnalogSGD,
            loss=nn.functional.mse_loss,
            executor="dist",
        )
    cases.build(WORLD, asynchronous(), executor="dist").close()


def _spoil(stage: int, module: nn.Module, timeout: float = 60.0) -> Pipeline:
    pipe = cases.build(WORLD, asynchronous(), executor="dist", timeout=timeout)
    part: Stage = pipe.stages[stage - 1]
    part.module = nn.Sequential(module, *part.module.children())
    return pipe


def _failure(pipe: Pipeline) -> str:
    x, y = delayed.samples(cases.COUNT, cases.SIZE)
    start = time.monotonic()
    with pytest.raises(StageFailed) as failure:
        cases.feed(pipe, x, y)
    assert time.monotonic() - start < 10
    with pytest.raises(BackendError, match="the pipeline is closed"):
        pipe.eval(x)
    return str(failure.value)


def nan() -> None:
    """An infinite error in stage 2: every rank says so, and a new pipeline works."""
    print(f"nan: {_failure(_spoil(2, Poison(5, in_backward=True)))}", flush=True)
    sleeps()


def exception() -> None:
    """An exception in the last stage."""

    class Raises(nn.Module):
        left = 7

        def forward(self, x: Tensor) -> Tensor:
            self.left -= 1
            if not self.left:
                raise ValueError("the roof is on fire")
            return x

    print(f"exception: {_failure(_spoil(WORLD, Raises()))}", flush=True)


def stall() -> None:
    """The last stage takes longer than the timeout."""

    class Stalls(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            time.sleep(3.0)
            return x

    print(f"stall: {_failure(_spoil(WORLD, Stalls(), timeout=1.5))}", flush=True)
    time.sleep(3.0)  # rank 0 holds the store, where the others look up why they are alone


def killed() -> None:
    """The last rank is killed in the middle."""

    class Dies(nn.Module):
        left = 8

        def forward(self, x: Tensor) -> Tensor:
            self.left -= 1
            if not self.left:
                os.kill(os.getpid(), signal.SIGKILL)
            return x

    print(f"killed: {_failure(_spoil(WORLD, Dies()))}", flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    for name in sys.argv[1:]:
        faulthandler.dump_traceback_later(60, exit=True)
        globals()[name]()
    faulthandler.cancel_dump_traceback_later()
    print("done", flush=True)

"""Threads on the CUDA path, without a GPU: what stages gather and hear belongs to each of them.

Updates, write noise and ageing of pipelines with executor ``threads`` run through the launches for
CUDA tensors, on the emulator of test_cuda_update.py; the bits are those of ``sim`` on the CPU.
"""

from __future__ import annotations

import copy
import itertools
import pickle
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import pulseline as pl
from emulated import Emulated, Serial
from pulseline import ops
from pulseline.devices import SoftBounds
from pulseline.errors import ConfigError
from pulseline.ops import retention, update
from pulseline.ops.cuda import module
from pulseline.ops.cuda.outcomes import Outcome
from pulseline.pipeline import Pipeline, Stage
from pulseline.schedules import asynchronous, synchronous
from test_cuda_update import arguments, on_cpu
from test_update import MODELS, bits, problem

SCHEDULES = {"async": asynchronous(), "sync": synchronous(4)}
DEVICES = {
    "pulses": SoftBounds(),
    "write noise and ageing": SoftBounds(write_noise_std=5.0, lifetime=40.0, diffusion=0.004),
}


@pytest.fixture
def serial(emulated: Emulated, monkeypatch: pytest.MonkeyPatch) -> Serial:
    """The kernels for several threads, one call at a time; Python between the calls interleaves."""
    kernels = Serial(emulated.module)
    monkeypatch.setattr(module, "kernels", lambda: kernels)
    return kernels


@pytest.fixture
def _often() -> Iterator[None]:
    """Threads change after every few instructions."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


def network(device: SoftBounds) -> list[nn.Sequential]:
    """Four stages of two layers each."""
    sizes = [9, 20, 17, 12, 9, 11, 8, 6, 4]
    layers = [
        pl.nn.AnalogLinear(a, b, device=device, seed=5, tile_id=n)
        for n, (a, b) in enumerate(itertools.pairwise(sizes))
    ]
    parts = zip(layers[::2], layers[1::2], strict=True)
    return [nn.Sequential(a, nn.Tanh(), b) for a, b in parts]


def trained(device: SoftBounds, schedule: str, executor: str) -> list[Tensor]:
    modules, loss = network(device), nn.functional.cross_entropy
    stages = [
        Stage(m, pl.optim.AnalogSGD(m.parameters(), lr=0.1), loss if m is modules[-1] else None)
        for m in modules
    ]
    pipe = Pipeline(stages, schedule=SCHEDULES[schedule], micro_batch_size=2, executor=executor)
    generator = torch.Generator().manual_seed(1)
    x, y = torch.randn(24, 9, generator=generator), torch.arange(24) % 4
    for part in torch.arange(24).split(8):
        pipe.step(x[part], y[part])
    pipe.drain()
    states = [value for m in modules for value in m.state_dict().values()]
    return [bits(t).clone() for t in states if isinstance(t, Tensor)]


def as_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """Operators that write CPU tensors are those of CUDA tensors. Reads have sums of their own."""
    monkeypatch.setattr(ops, "direct", lambda _: False)
    monkeypatch.setattr(ops, "update_", update.update_cuda)
    for name in ("retain", "reset", "disturb", "redraw"):
        monkeypatch.setattr(ops, f"{name}_", getattr(retention, f"{name}_cuda"))


@pytest.mark.usefixtures("_often")
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("device", DEVICES)
def test_threads_equal_sim(
    serial: Serial, monkeypatch: pytest.MonkeyPatch, device: str, schedule: str
) -> None:
    want = trained(DEVICES[device], schedule, "sim")
    as_cuda(monkeypatch)
    for _ in range(2):
        got = trained(DEVICES[device], schedule, "threads")
        assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))
    assert serial.calls["update"] >= 2 * 4 * 3
    assert device == "pulses" or serial.calls["redraw"] == serial.calls["update"]


def test_who_leaves_launches_what_it_gathered(serial: Serial) -> None:
    """One thread inside a batch while another comes and goes: neither sees the other's."""
    problems = [problem(9, 5, 4, MODELS["SoftBounds"]), problem(5, 9, 3, MODELS["SoftBounds"])]
    weights = [p.weight.clone() for p in problems]
    inside, gone = threading.Event(), threading.Event()

    def first() -> None:
        with ops.Batch() as batch:
            update.update_cuda(*arguments(problems[0], weights[0]), batch=batch)
            inside.set()
            assert gone.wait(60)

    thread = threading.Thread(target=first)
    thread.start()
    assert inside.wait(60)
    with ops.Batch() as batch:
        update.update_cuda(*arguments(problems[1], weights[1]), batch=batch)
    assert torch.equal(bits(weights[1]), bits(on_cpu(problems[1])))
    assert torch.equal(weights[0], problems[0].weight)
    gone.set()
    thread.join()
    assert torch.equal(bits(weights[0]), bits(on_cpu(problems[0])))


# ---- what the GPU says later ----


@pytest.fixture(autouse=True)
def _no_capture(monkeypatch: pytest.MonkeyPatch) -> None:
    """A torch without CUDA cannot say."""
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)


class Said:
    """An event that others are asked about while it is asked."""

    def __init__(self, happened: bool = True) -> None:
        self.happened = happened
        self.barrier: threading.Barrier | None = None

    def query(self) -> bool:
        if self.barrier is not None:
            with pytest.raises(threading.BrokenBarrierError):
                self.barrier.wait(0.2)  # nobody else gets here while this thread asks
        return self.happened

    def synchronize(self) -> None:
        self.happened = True


NAN = r"^d\[2\] held a NaN or an infinity; that update wrote nothing"


def test_one_of_two_threads_takes_an_outcome() -> None:
    outcomes, event = ops.Outcomes(), Said()
    event.barrier = threading.Barrier(2)
    outcomes.add(Outcome(torch.tensor(5), event))
    found: list[BaseException | None] = []

    def ask() -> None:
        try:
            outcomes.check(wait=False)
        except BaseException as error:
            found.append(error)
        else:
            found.append(None)

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (error,) = [e for e in found if e is not None]
    assert isinstance(error, ConfigError)
    assert len(found) == 2
    assert not outcomes


def test_what_has_not_ended_is_asked_again() -> None:
    outcomes, event = ops.Outcomes(), Said(happened=False)
    outcomes.add(Outcome(torch.tensor(5), event))
    outcomes.check(wait=False)
    assert len(outcomes) == 1
    with pytest.raises(ConfigError, match=NAN):
        outcomes.check()
    outcomes.check()


def test_copies_begin_without_outcomes() -> None:
    """Events stay with the process and the tile that recorded them."""
    tile = pl.nn.AnalogLinear(4, 3).cell.array
    tile._outcomes.add(Outcome(torch.tensor(-1), Said()))
    for copied in (copy.deepcopy(tile), pickle.loads(pickle.dumps(tile))):
        assert not copied._outcomes
    assert len(tile._outcomes) == 1


def test_an_old_refusal_comes_before_anything_moves(
    serial: Serial, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Said once, at the beginning of a step; the pairs wait for the next one."""
    as_cuda(monkeypatch)
    layers = [pl.nn.AnalogLinear(4, 4, device=MODELS["SoftBounds"], tile_id=n) for n in range(3)]
    model = nn.Sequential(*layers)
    model(torch.ones(2, 4)).sum().backward()
    before = [layer.weight.detach().clone() for layer in layers]
    layers[2].cell.array._outcomes.add(Outcome(torch.tensor(5), Said()))
    optimizer = pl.optim.AnalogSGD(model.parameters(), lr=0.1)
    with pytest.raises(ConfigError, match=NAN):
        optimizer.step()
    assert all(torch.equal(a, b.weight) for a, b in zip(before, layers, strict=True))
    assert [len(layer.cell.pending) for layer in layers] == [1, 1, 1]
    optimizer.step()
    assert not any(torch.equal(a, b.weight) for a, b in zip(before, layers, strict=True))
    optimizer.zero_grad()
    assert not any(layer.cell.pending for layer in layers)


def test_a_refused_update_stops_no_other(serial: Serial) -> None:
    """The first of a launch holds a NaN; the others of it and of later launches are done."""
    names = ("SoftBounds", "LinearStep")
    problems = [problem(n + 3, 5, 4, MODELS[name]) for n, name in enumerate(names)]
    problems.insert(1, problem(9, 7, 4, MODELS["SoftBounds"]))
    problems[0].d[2, 1] = float("nan")
    weights = [p.weight.clone() for p in problems]
    batch = ops.Batch()
    for p, weight in zip(problems, weights, strict=True):
        update.update_cuda(*arguments(p, weight), batch=batch)
    with pytest.raises(ConfigError, match=NAN):
        batch.launch()
    assert torch.equal(weights[0], problems[0].weight)
    for p, weight in zip(problems[1:], weights[1:], strict=True):
        assert torch.equal(bits(weight), bits(on_cpu(p)))


def test_a_block_that_fails_launches_what_it_gathered(serial: Serial) -> None:
    """As on the CPU, where what came before the error is done; the error is the block's."""
    p, bad = problem(9, 5, 4, MODELS["SoftBounds"]), problem(5, 9, 3, MODELS["SoftBounds"])
    bad.x[0, 0] = float("inf")
    weights = [one.weight.clone() for one in (p, bad)]

    def block() -> None:
        with ops.Batch() as batch:
            update.update_cuda(*arguments(p, weights[0]), batch=batch)
            update.update_cuda(*arguments(bad, weights[1]), batch=batch)
            raise KeyError("of the block")

    with pytest.raises(KeyError, match="of the block"):
        block()
    assert torch.equal(bits(weights[0]), bits(on_cpu(p)))
    assert torch.equal(weights[1], bad.weight)


def test_batches_are_nobody_elses() -> None:
    fields: Any = (vars(ops.Batch()), vars(ops.Batch()))
    for a, b in zip(*(f.values() for f in fields), strict=True):
        assert a is not b

"""A ResNet, a GPT and an LSTM classifier cut into stages: equal bits, audited staleness."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import families
import launch
from families import FAMILIES, SIZE
from pulseline.digest import digest
from pulseline.pipeline.split import split

SCRIPT = str(Path(__file__).with_name("dist_rank.py"))

NAMES = [*FAMILIES]
CUTS = [2, 4, "names"]


def where(name: str, cut: Any) -> Any:
    return [*FAMILIES[name].names] if cut == "names" else cut


@pytest.mark.parametrize("cut", [*CUTS, 8])
@pytest.mark.parametrize("name", NAMES)
def test_parts_are_the_model(name: str, cut: Any) -> None:
    """Same outputs; every entry of the state exactly once, under its name."""
    if (name, cut) == ("lstm", 8):
        pytest.skip("four layers")
    model = families.analog(name).eval()
    x, _ = families.samples(name, 2)
    want = model(**x) if isinstance(x, dict) else model(x)
    inputs = [*x] if isinstance(x, dict) else None
    parts = split(model, where(name, cut), inputs=inputs)
    assert len(parts) == (4 if cut == "names" else cut)
    entries = [entry for part in parts for entry in part.state_dict()]
    assert sorted(entries) == sorted(model.state_dict())
    model.eval()  # draws of evaluation begin anew
    value = x
    with torch.no_grad():
        for part in parts:
            value = part.eval()(value)
    assert torch.equal(value, want)


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("name", NAMES)
def test_asynchronous_training_keeps_its_staleness(name: str, cut: Any) -> None:
    """F on W_{k-(M-m)}, B on W_k, depths; threads leave the bits of sim, dropout included."""
    with families.build(name, where(name, cut)) as pipe:
        want = families.outcome(pipe, name)
        stages = len(pipe.stages)
        for stage in pipe.stages:
            stale = stages - stage.index
            for k, version_f, version_b, _, _ in stage.records:
                assert (version_f, version_b) == (max(0, k - stale), k)
            assert len(stage.records) == 8
            assert stage.peak == stale + 1
    with families.build(name, where(name, cut), executor="threads") as pipe:
        assert families.outcome(pipe, name) == want


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("name", NAMES)
def test_sequential_training_is_that_of_the_whole_model(name: str, cut: Any) -> None:
    """Bit for bit, dropout off: nothing is lost at cuts, and errors meet as autograd adds them."""
    model = _without_dropout(families.analog(name))
    x, y = families.samples(name, 5)
    optimizer = families.optimizer(model.parameters())
    for at in range(0, len(y), SIZE):
        some = families.taken(x, slice(at, at + SIZE))
        out = model(**some) if isinstance(some, dict) else model(some)
        FAMILIES[name].loss(out, y[at : at + SIZE]).backward()
        optimizer.step()
        optimizer.zero_grad()
    other = _without_dropout(families.analog(name))
    with families.build(name, where(name, cut), other, schedule="sequential") as pipe:
        pipe.step(x, y)
        assert pipe.digest() == digest(model.state_dict())
        assert pipe.state_dict().keys() == model.state_dict().keys()
    assert digest(other.state_dict()) == digest(model.state_dict())


def _without_dropout(model: nn.Module) -> nn.Module:
    for part in model.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.0
        if isinstance(part, families.Attention):
            part.register_buffer("eval_only", None)
            part.forward = _still(part)  # type: ignore[method-assign]
    return model


def _still(part: Any) -> Any:
    def forward(x: Any, mask: Any) -> Any:
        was, part.training = part.training, False
        try:
            return type(part).forward(part, x, mask)
        finally:
            part.training = was

    return forward


@pytest.mark.parametrize("executor", ["sim", "threads"])
@pytest.mark.parametrize("name", NAMES)
def test_snapshots_disturb_nothing(name: str, executor: str) -> None:
    """They read the weights of the moment, statistics of batches too; training goes on."""
    x, y = families.samples(name, 8)
    want = families.build(name, 4)
    families.trained(want, name)
    model = families.analog(name)
    with families.build(name, 4, model, executor=executor) as pipe:
        for at in range(0, len(y), 3 * SIZE):
            pipe.step(families.taken(x, slice(at, at + 3 * SIZE)), y[at : at + 3 * SIZE])
            assert not pipe.flushed
            seen = pipe.eval(x, snapshot=True)
            assert not pipe.flushed
            model.eval()
            with torch.no_grad():
                assert torch.equal(model(**x) if isinstance(x, dict) else model(x), seen)
            model.train()
        pipe.drain()
        assert pipe.digest() == want.digest()
        assert pipe.segments == want.segments


@pytest.mark.parametrize("world", [2, 4])
def test_processes_leave_the_bits_of_sim(world: int) -> None:
    """Through memory, by gloo and in lock-step."""
    done = launch.ranks(world, SCRIPT, "all_families")
    assert [rank.code for rank in done] == [0] * world, done


def test_killed_and_resumed(tmp_path: Path) -> None:
    """A GPT in two processes; dropout and messages of several tensors go on where they were."""
    env = {"SAVED": str(tmp_path)}
    done = launch.ranks(2, SCRIPT, "family_saved", env=env)
    assert [rank.code for rank in done] == [-9, -9], done
    done = launch.ranks(2, SCRIPT, "family_resumed", env=env)
    assert [rank.code for rank in done] == [0, 0], done

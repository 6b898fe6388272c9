"""Who may call a pipeline when, and what interrupts and the modes of a thread do to it."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pulseline.errors import ConfigError, StageFailed
from pulseline.optim import AnalogSGD
from pulseline.pipeline import Pipeline

HERE = Path(__file__).parent


def build(loss: Any = nn.functional.mse_loss, **options: Any) -> Pipeline:
    torch.manual_seed(0)
    return Pipeline(
        nn.Sequential(*(nn.Linear(4, 4) for _ in range(3))),
        3,
        optimizer=lambda parameters: AnalogSGD(parameters, lr=0.1),
        loss=loss,
        **options,
    )


def samples(count: int = 8) -> tuple[Tensor, Tensor]:
    x, y = torch.randn(2, count, 4, generator=torch.Generator().manual_seed(1))
    return x, y


@pytest.mark.parametrize("times", [(0.2,), (0.2, 0.4), (0.2, 0.25, 0.3, 0.5, 0.55)])
def test_interrupts_leave_a_pipeline_that_trains(times: tuple[float, ...]) -> None:
    """Or one that says that it is closed; never one that returns as if it had trained."""
    command = [sys.executable, str(HERE / "interrupted.py"), *map(str, times)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["seen"] >= 1
    if found["closed"]:
        assert "closed" in found["closed"]
    else:
        assert found["losses"] == 12
        assert found["digest"] == found["expected"]


@pytest.mark.parametrize("executor", ["sim", "threads"])
def test_two_threads_get_one_sentence(executor: str) -> None:
    entered, leave = threading.Event(), threading.Event()

    class Waits(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            entered.set()
            leave.wait(20)
            return super().forward(x)

    pipe = Pipeline(
        nn.Sequential(Waits(4, 4), nn.Linear(4, 4)),
        2,
        optimizer=lambda parameters: AnalogSGD(parameters, lr=0.1),
        loss=nn.functional.mse_loss,
        executor=executor,
    )
    x, y = samples()
    losses: list[Tensor] = []
    other = threading.Thread(target=lambda: losses.append(pipe.step(x, y)))
    other.start()
    assert entered.wait(20)
    for call in (lambda: pipe.step(x, y), pipe.drain, lambda: pipe.eval(x)):
        with pytest.raises(ConfigError, match="another call is at work on this pipeline"):
            call()
    leave.set()
    other.join(20)
    losses.append(pipe.drain())
    assert len(torch.cat(losses)) == len(x)
    pipe.close()


@pytest.mark.parametrize("executor", ["sim", "threads"])
@pytest.mark.parametrize("what", ["drain", "step", "eval"])
def test_a_loss_that_calls_its_pipeline_gets_one_sentence(executor: str, what: str) -> None:
    x, y = samples()

    def loss(out: Tensor, target: Tensor) -> Tensor:
        {"drain": pipe.drain, "step": lambda: pipe.step(x, y), "eval": lambda: pipe.eval(x)}[what]()
        return nn.functional.mse_loss(out, target)

    pipe = build(loss, executor=executor, timeout=20)
    with pytest.raises(StageFailed, match=f"{what} came while another call is at work"):
        pipe.step(x, y)
    pipe.close()


def test_modes_of_the_calling_thread_are_those_of_all_stages() -> None:
    x, y = samples()
    digests = {}
    modes: dict[str, Any] = {
        "none": torch.enable_grad(),
        "autocast": torch.autocast("cpu", torch.bfloat16),
        "no_grad": torch.no_grad(),
    }
    for mode in modes:
        for executor in ("sim", "threads"):
            with build(executor=executor) as pipe:
                with modes[mode]:
                    pipe.step(x, y)
                    pipe.drain()
                digests[mode, executor] = pipe.digest()
    for mode in ("none", "autocast", "no_grad"):
        assert digests[mode, "sim"] == digests[mode, "threads"]
    assert digests["none", "sim"] == digests["no_grad", "sim"]  # step is there to train
    assert digests["none", "sim"] != digests["autocast", "sim"]


def test_inference_mode_gets_a_sentence() -> None:
    x, y = samples()
    with torch.inference_mode(), pytest.raises(ConfigError, match="inference mode"):
        build().step(x, y)


def test_losses_are_one_tensor_a_call() -> None:
    """Whatever the executor kept in between: 4 bytes a loss."""
    x, y = samples(64)
    for executor in ("sim", "threads"):
        with build(executor=executor) as pipe:
            found = pipe.step(x, y)
            assert found.dtype == torch.float32
            assert found.shape == (63,)  # half way through F and B of the last one
            assert not found.requires_grad
            assert found.untyped_storage().nbytes() == 63 * 4
            assert pipe.drain().shape == (1,)

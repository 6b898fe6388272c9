"""Digital layers whose bits depend on torch's number of threads: ``stage_threads`` names it.

Found by running every layer of torch.nn on 1 to 4 threads: the weight gradients of convolutions and
LayerNorm, all of BatchNorm1d, means, and Sigmoid and SiLU where rows do not divide evenly. At a
fixed number all of them give the same bits again.
"""

from __future__ import annotations

import functools

import pytest
import torch
from torch import Tensor, nn

import pulseline as pl
from pulseline.errors import ConfigError

MICRO_BATCH, SAMPLES = 32, 128


@functools.cache
def samples() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return (
        torch.randn(SAMPLES, 4, 16, 16, generator=generator),
        torch.randn(SAMPLES, 10, generator=generator),
    )


def model() -> nn.Sequential:
    torch.manual_seed(0)
    parts = [
        *(nn.Conv2d(4, 8, 3), nn.SiLU(), nn.Flatten(), nn.Linear(8 * 14 * 14, 257)),
        *(nn.LayerNorm(257), nn.Linear(257, 128), nn.BatchNorm1d(128), nn.Sigmoid()),
        nn.Linear(128, 10),
    ]
    return nn.Sequential(*parts)


def trained(executor: str, threads: int, stage_threads: int | None) -> str:
    """The digest of a run in a process of so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        net = pl.to_analog(model(), {nn.Linear: "soft_bounds"}, seed=1)
        with pl.Pipeline(
            net,
            stages=3,
            optimizer=lambda p: pl.optim.AnalogSGD(p, lr=0.1),
            loss=nn.functional.mse_loss,
            micro_batch_size=MICRO_BATCH,
            executor=executor,
            stage_threads=stage_threads,
            seed=1,
        ) as pipe:
            pipe.step(*samples())
            pipe.drain()
            pipe.eval(samples()[0])
            assert torch.get_num_threads() == threads
            return pipe.digest()
    finally:
        torch.set_num_threads(before)


@pytest.mark.filterwarnings("ignore:.*stay digital")
@pytest.mark.parametrize("stage_threads", [1, 2])
def test_every_executor_has_the_same_bits(stage_threads: int) -> None:
    found = {
        trained(executor, threads, stage_threads)
        for executor in ("sim", "threads")
        for threads in (1, 3)
    }
    assert len(found) == 1


@pytest.mark.filterwarnings("ignore:.*stay digital")
def test_the_layers_depend_on_threads() -> None:
    """Else the test above says nothing."""
    assert trained("sim", 1, None) == trained("sim", 3, 1) != trained("sim", 3, None)


@pytest.mark.parametrize("value", [0, -1, True, 1.0, "2"])
def test_bad_numbers(value: object) -> None:
    with pytest.raises(ConfigError, match=r"stage_threads is .*; use an integer >= 1"):
        pl.pipeline.Options(stage_threads=value)  # type: ignore[arg-type]

"""The partitioner against brute force, and networks cut by modelled time."""

from __future__ import annotations

import random
from itertools import combinations, pairwise, product

import pytest
import torch
from torch import nn

from pulseline import cost
from pulseline.cost import stage_costs
from pulseline.errors import ConfigError
from pulseline.hardware import PRESETS, Balance, balance
from pulseline.hardware.balance import LayerTime
from pulseline.nn import to_analog
from pulseline.optim import AnalogSGD
from pulseline.pipeline import Pipeline
from pulseline.pipeline.split import split


def brute_force(times: list[LayerTime], stages: int, replicate: int) -> float:
    """Least slowest stage over all cuts and all ways to hand out at most ``replicate`` copies."""
    parts = [(t[0] + t[1], t[2]) if isinstance(t, tuple) else (t, 0.0) for t in times]
    best = float("inf")
    for extra in product(range(replicate + 1), repeat=len(times)):
        if sum(extra) > replicate:
            continue
        own = [shared / (1 + e) + rest for (shared, rest), e in zip(parts, extra, strict=True)]
        for inner in combinations(range(1, len(times)), stages - 1):
            cuts = (0, *inner, len(times))
            best = min(best, max(sum(own[a:b]) for a, b in pairwise(cuts)))
    return best


def check(found: Balance, times: list[LayerTime], replicate: int) -> None:
    """A Balance says of itself what is true."""
    assert sum(found.counts) == len(times) == len(found.copies)
    assert min(found.counts) >= 1
    assert min(found.copies) >= 1
    assert sum(found.copies) - len(times) <= replicate
    first = 0
    for count, stage_time in zip(found.counts, found.stage_times, strict=True):
        total = 0.0
        for t, copies in zip(
            times[first : first + count], found.copies[first : first + count], strict=True
        ):
            shared, rest = (t[0] + t[1], t[2]) if isinstance(t, tuple) else (t, 0.0)
            total += shared / copies + rest
        assert stage_time == pytest.approx(total)
        first += count
    mean = sum(found.stage_times) / len(found.stage_times)
    assert found.imbalance == pytest.approx(found.slowest / mean)


def test_optimal_against_brute_force() -> None:
    draw = random.Random(3)
    for _ in range(150):
        layers = draw.randint(1, 7)
        stages = draw.randint(1, layers)
        times: list[LayerTime] = [float(draw.randint(1, 20)) for _ in range(layers)]
        found = balance(times, stages)
        check(found, times, 0)
        assert found.slowest == brute_force(times, stages, 0)
        assert set(found.copies) == {1}


def test_optimal_with_copies_against_brute_force() -> None:
    draw = random.Random(4)
    for _ in range(60):
        layers = draw.randint(1, 5)
        stages = draw.randint(1, layers)
        times: list[LayerTime] = [
            (float(draw.randint(0, 9)), float(draw.randint(1, 9)), float(draw.randint(0, 4)))
            for _ in range(layers)
        ]
        replicate = draw.randint(0, 4)
        found = balance(times, stages, replicate)
        check(found, times, replicate)
        assert found.slowest == pytest.approx(brute_force(times, stages, replicate))


def test_copies_do_not_divide_updates() -> None:
    found = balance([(6.0, 6.0, 3.0), (1.0, 1.0, 1.0)], 2, replicate=3)
    assert found.stage_times == (12 / 4 + 3, 3.0)
    assert found.copies == (4, 1)
    assert balance([(0.0, 0.0, 3.0)], 1, replicate=5).copies == (1,)


def test_a_deep_network_is_quick() -> None:
    times: list[LayerTime] = [(64.0 / (1 + i // 4), 64.0 / (1 + i // 4), 1.0) for i in range(40)]
    found = balance(times, 16, 32)
    check(found, times, 32)
    assert found.slowest < balance(times, 16).slowest


def test_text_prints_the_imbalance_it_leaves() -> None:
    text = str(balance([6.0, 2.0, 2.0, 2.0], 2))
    assert text.splitlines() == [
        "stage 1: layer 1, 6",
        "stage 2: layers 2-4, 6",
        "imbalance 1.000 (slowest stage over mean)",
    ]
    text = str(balance([(8.0, 0.0, 0.0), (2.0, 0.0, 0.0)], 2, 1))
    assert "stage 1: layer 1, 4, copies 2" in text
    assert "imbalance 1.333" in text
    assert balance([0.0, 0.0], 2).imbalance == 1.0


@pytest.mark.parametrize(
    ("times", "stages", "replicate", "message"),
    [
        ([1.0, 2.0], 3, 0, "stages is 3; use 1 to 2, the number of layers"),
        ([1.0], 0, 0, "stages is 0; use"),
        ([], 1, 0, "stages is 1; use 1 to 0"),
        ([1.0], 1, -1, "replicate is -1; use"),
        ([1.0, -1.0], 1, 0, "times hold -1.0; use finite numbers >= 0"),
        ([float("nan")], 1, 0, "times hold nan; use finite"),
    ],
)
def test_errors(times: list[LayerTime], stages: int, replicate: int, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        balance(times, stages, replicate)


def cnn() -> nn.Sequential:
    """Output positions 256, 64 and 16, then two products of vectors."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, stride=2, padding=1),
        nn.Flatten(),
        nn.Linear(128, 32),
        nn.ReLU(),
        nn.Linear(32, 10),
    )


def test_a_convolution_costs_its_output_positions() -> None:
    example = torch.zeros(2, 3, 16, 16)
    costs = stage_costs(list(cnn()), "pcm_14nm", example)
    per_position = PRESETS["pcm_14nm"].forward_ns(8)
    assert [costs[i].forward_ns / per_position for i in (0, 2, 4)] == [256, 64, 16]
    found = cost.balance(cnn(), 3, example=example)
    assert found.counts == (1, 1, 3)
    assert found.imbalance > 2
    replicated = cost.balance(cnn(), 3, example=example, replicate=8)
    assert replicated.slowest < found.slowest
    assert replicated.copies[0] > 1


def test_split_by_modelled_time() -> None:
    example = torch.zeros(2, 3, 16, 16)
    parts = split(cnn(), 3, cost.balance(cnn(), 3, example=example).counts)
    assert [len(part) for part in parts] == [2, 2, 5]
    assert [len(part) for part in split(cnn(), 3)] == [4, 4, 1]
    deep = nn.Sequential(*(nn.Linear(n, n) for n in (8, 8, 8, 8, 8, 8)))
    assert [len(part) for part in split(deep, 3, cost.balance(deep, 3).counts)] == [2, 2, 2]
    with pytest.raises(ConfigError, match="balance is 'fair'; use layers per stage, such as"):
        split(deep, 3, "fair")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="stages is 7; use 1 to 6, the number of layers"):
        cost.balance(deep, 7)
    with pytest.raises(ConfigError, match="give an example input"):
        cost.balance(cnn(), 3)


def test_pipeline_from_a_model_balanced_by_time() -> None:
    """700 outputs share the converters of 128 lines: the first layer stays alone."""
    sizes = [(16, 700), (700, 8), (8, 8), (8, 4)]
    net = to_analog(nn.Sequential(*(nn.Linear(*size) for size in sizes)))
    pipe = Pipeline(
        net,
        2,
        balance=cost.balance(net, 2, "reram_32nm").counts,
        optimizer=lambda parameters: AnalogSGD(parameters, 0.01),
        loss=nn.functional.mse_loss,
    )
    best = cost.balance(net, 2, "reram_32nm")
    assert tuple(len(list(stage.module.children())) for stage in pipe.stages) == best.counts
    assert best.counts == (1, 3)

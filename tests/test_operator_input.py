"""The operators refuse settings and tensors that no configuration holds: one sentence, weights
untouched, nothing reaches a kernel, on either backend.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from pulseline import ops
from pulseline.errors import ConfigError
from test_update import MODELS, bits, problem

TRAIN = (0.01, 0.001, 31.0, 1.0, 1.0, 1.0, 0.0, 0.001, 0.0)
SETTINGS: dict[str, tuple[dict[int, float], tuple[int, ...], str]] = {
    "no slots": ({2: 0.0}, (0, 0, 0, 1), "desired_bl is 0"),
    "slots that are no number": ({2: math.nan}, (0, 0, 0, 1), "desired_bl is nan"),
    "slots beyond the counter": ({2: 1e12}, (0, 0, 0, 1), "desired_bl is 1000000000000"),
    "granularity": ({1: math.nan}, (0, 0, 0, 1), "granularity is nan"),
    "group": ({6: -4.0}, (0, 0, 0, 3), "group_size is -4"),
    "noise": ({8: 7.0}, (0, 0, 0, 1), "the number of the noise is 7"),
    "fidelity": ({}, (0, 0, 0, 9), "the number of the fidelity is 9"),
    "seed": ({}, (-1, 0, 0, 1), "seed is -1"),
    "tile": ({}, (0, 1 << 40, 0, 1), "tile_id is 1099511627776"),
    "k": ({}, (0, 0, -3, 1), "k is -3"),
    "short key": ({}, (0, 0, 0), "key 3"),
}


@pytest.mark.parametrize("operator", [ops._update_cpu, ops._update_cuda])
@pytest.mark.parametrize("name", SETTINGS)
def test_settings_out_of_range(operator: Any, name: str) -> None:
    changes, key, match = SETTINGS[name]
    p = problem(5, 7, 3, MODELS["soft"])
    train = [changes.get(i, value) for i, value in enumerate(TRAIN)]
    w = p.weight.clone()
    with pytest.raises(ConfigError, match=match):
        operator(w, *p.stored, p.x, p.d, "SoftBounds", p.device.parameters(), train, key)
    assert torch.equal(bits(w), bits(p.weight))


@pytest.mark.parametrize("operator", [ops._update_cpu, ops._update_cuda])
def test_tensors_that_do_not_fit(operator: Any) -> None:
    p = problem(5, 7, 3, MODELS["soft"])
    rest = (p.x, p.d, "SoftBounds", p.device.parameters(), TRAIN, (0, 0, 0, 1))
    with pytest.raises(ConfigError, match=r"^weight has .* shape \(35,\)"):
        operator(p.weight.flatten(), *p.stored, *rest)
    for fired in (torch.zeros(1, dtype=torch.int64), torch.zeros(3), torch.zeros(6).int()[::2]):
        with pytest.raises(ConfigError, match=r"^fired has dtype .*; use two int64 or more"):
            operator(p.weight.clone(), *p.stored, *rest, fired)

"""The operators refuse settings and tensors that no configuration holds: one sentence, weights
untouched, nothing reaches a kernel, on either backend.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from operators import replaced, update_arguments
from pulseline import ops
from pulseline.errors import ConfigError
from pulseline.ops import update
from test_update import MODELS, Problem, bits, problem

PULSES, KEY = ops.PulseSettings, ops.UpdateKey
SETTINGS: dict[str, tuple[type, dict[str, float], str]] = {
    "no slots": (PULSES, {"desired_bl": 0.0}, "desired_bl is 0"),
    "slots that are no number": (PULSES, {"desired_bl": math.nan}, "desired_bl is nan"),
    "slots beyond the counter": (PULSES, {"desired_bl": 1e12}, "desired_bl is 1000000000000"),
    "granularity": (PULSES, {"granularity": math.nan}, "granularity is nan"),
    "group": (PULSES, {"group_size": -4.0}, "group_size is -4"),
    "noise": (PULSES, {"noise": 7.0}, "noise is 7"),
    "fidelity": (KEY, {"fidelity": 9}, "fidelity is 9"),
    "seed": (KEY, {"seed": -1}, "seed is -1"),
    "tile": (KEY, {"tile_id": 1 << 40}, "tile_id is 1099511627776"),
}


def arguments(p: Problem, w: Tensor) -> tuple[Any, ...]:
    return update_arguments(w, p.stored, p.x, p.d, p.device, p.config, p.lr, (0, 0, 0))


@pytest.mark.parametrize("operator", [update.update_cpu, update.update_cuda])
@pytest.mark.parametrize("name", SETTINGS)
def test_settings_out_of_range(operator: Any, name: str) -> None:
    kind, changes, match = SETTINGS[name]
    p = problem(5, 7, 3, MODELS["SoftBounds"])
    w = p.weight.clone()
    with pytest.raises(ConfigError, match=match):
        operator(*replaced(arguments(p, w), kind, **changes))
    assert torch.equal(bits(w), bits(p.weight))


@pytest.mark.parametrize("operator", [update.update_cpu, update.update_cuda])
@pytest.mark.parametrize("kind", [PULSES, KEY])
def test_settings_of_another_length(operator: Any, kind: type) -> None:
    """Lists come in through torch.ops; their names come back by their number."""
    p = problem(5, 7, 3, MODELS["SoftBounds"])
    w = p.weight.clone()
    short = [list(a)[:-1] if isinstance(a, kind) else a for a in arguments(p, w)]
    count = len(kind._fields)  # type: ignore[attr-defined]
    with pytest.raises(
        ConfigError, match=rf"{kind.__name__} has {count - 1} numbers; use its {count} "
    ):
        operator(*short)
    assert torch.equal(bits(w), bits(p.weight))


@pytest.mark.parametrize("operator", [update.update_cpu, update.update_cuda])
def test_tensors_that_do_not_fit(operator: Any) -> None:
    p = problem(5, 7, 3, MODELS["SoftBounds"])
    with pytest.raises(ConfigError, match=r"^weight has .* shape \(35,\)"):
        operator(*arguments(p, p.weight.flatten()))
    for fired in (torch.zeros(1, dtype=torch.int64), torch.zeros(3), torch.zeros(6).int()[::2]):
        with pytest.raises(ConfigError, match=r"^fired has dtype .*; use two int64 or more"):
            operator(*arguments(p, p.weight.clone())[:-1], fired)

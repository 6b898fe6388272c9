"""What from_aihwkit says about settings that mean something else here."""

from __future__ import annotations

from typing import Any

import pytest

from pulseline.compat import differences, from_aihwkit
from test_compat import (
    AnalogMVType,
    IOParameters,
    PowStepDevice,
    ReRamESPresetDevice,
    SingleRPUConfig,
    SoftBoundsDevice,
    SoftBoundsPmaxDevice,
)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (
            lambda: SingleRPUConfig(device=ReRamESPresetDevice()),
            ("learning rate", "down step alone"),
        ),
        (lambda: SingleRPUConfig(device=PowStepDevice()), ("learning rate", "dw_min / 2^gamma")),
        (
            lambda: SingleRPUConfig(device=SoftBoundsDevice(up_down=0.5)),
            ("learning rate", "dw_min ="),
        ),
        (lambda: SingleRPUConfig(device=SoftBoundsPmaxDevice()), ("range_max", "1.356")),
        (
            lambda: SingleRPUConfig(
                forward=IOParameters(mv_type=AnalogMVType.POS_NEG_SEPARATE, out_asymmetry=0.05)
            ),
            ("out_asymmetry (forward)", "negative inputs"),
        ),
    ],
)
def test_it_says_what_differs(config: Any, words: tuple[str, ...]) -> None:
    with pytest.warns(UserWarning, match="^aihwkit: ") as caught:
        from_aihwkit(config())
    (said,) = [str(one.message) for one in caught]
    assert all(word in said for word in words), said


def test_it_says_nothing_where_nothing_differs() -> None:
    for config in (SingleRPUConfig(), SingleRPUConfig(device=SoftBoundsDevice())):
        found = from_aihwkit(config)
        assert differences(found, type(config.device).__name__) == []


@pytest.mark.filterwarnings("ignore:aihwkit")
def test_the_quotient_scales_the_learning_rate() -> None:
    """up_down .5 makes the down step half as large: the mean step at 0 is .75 dw_min."""
    found = from_aihwkit(SingleRPUConfig(device=SoftBoundsDevice(up_down=0.5)))
    (said,) = differences(found)
    assert f"there dw_min = {found.device.dw_min:g}" in said
    assert f"{found.device.granularity:.4g}" in said

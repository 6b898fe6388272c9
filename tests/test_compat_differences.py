"""What from_aihwkit says about settings that mean something else here."""

from __future__ import annotations

from typing import Any

import pytest

from aihwkit_presets import (
    BufferedTransferCompound,
    ChoppedTransferCompound,
    DynamicTransferCompound,
    MixedPrecisionCompound,
    OneSidedUnitCell,
    ReferenceUnitCell,
    TransferCompound,
    VectorUnitCell,
)
from aihwkit_standins import (
    AnalogMVType,
    IOParameters,
    PowStepDevice,
    ReRamESPresetDevice,
    SingleRPUConfig,
    SoftBoundsDevice,
    SoftBoundsPmaxDevice,
    UpdateParameters,
)
from pulseline.compat import differences, from_aihwkit


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


def two(kind: Any, first: Any = None, **values: Any) -> SingleRPUConfig:
    devices = [first or SoftBoundsDevice(), SoftBoundsDevice()]
    return SingleRPUConfig(device=kind(unit_cell_devices=devices, **values))


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (
            two(TransferCompound, SoftBoundsDevice(dw_min=0.004)),
            ("steps by 0.001 and fast_device by 0.004", ".55"),
        ),
        (
            SingleRPUConfig(device=TransferCompound([ReRamESPresetDevice()] * 2)),
            ("the learning rate is in", "down step alone"),
        ),
        (
            SingleRPUConfig(device=BufferedTransferCompound([ReRamESPresetDevice()] * 2)),
            ("the learning rate and what a count stands for are in", "down step alone"),
        ),
        (
            two(BufferedTransferCompound, transfer_update=UpdateParameters(desired_bl=7)),
            ("up to 7 pulses", "on average"),
        ),
        (two(ChoppedTransferCompound, gamma=0.5), ("gamma", "on a CPU")),
        (
            SingleRPUConfig(device=MixedPrecisionCompound(device=SoftBoundsDevice())),
            ("one sample later", "exceeds 31"),
        ),
        (
            two(OneSidedUnitCell, refresh_every=2, units_in_mbatch=False),
            ("refresh", "desired_bl"),
        ),
        (two(VectorUnitCell), ("see the same trains",)),
    ],
)
def test_it_says_what_differs_in_compounds(config: Any, words: tuple[str, ...]) -> None:
    with pytest.warns(UserWarning, match="^aihwkit: ") as caught:
        from_aihwkit(config)
    said = " ".join(str(one.message) for one in caught)
    assert len(caught) == 1, said
    assert all(word in said for word in words), said


@pytest.mark.filterwarnings("error:aihwkit")
def test_it_says_nothing_of_compounds_that_are_the_same() -> None:
    for kind in (TransferCompound, BufferedTransferCompound, ChoppedTransferCompound):
        from_aihwkit(two(kind))
    from_aihwkit(two(DynamicTransferCompound))
    from_aihwkit(two(OneSidedUnitCell))
    from_aihwkit(two(ReferenceUnitCell))
    from_aihwkit(two(TransferCompound, gamma=0.5))


@pytest.mark.parametrize("kind", [TransferCompound, BufferedTransferCompound])
def test_it_knows_which_device_is_which(kind: Any) -> None:
    """A curve says nothing of the learning rate, and only of the array that it is in."""
    with pytest.warns(UserWarning, match="^aihwkit: ") as caught:
        from_aihwkit(two(kind, SoftBoundsPmaxDevice()))
    said = [str(one.message) for one in caught]
    assert sum("range_max" in one for one in said) == 1
    assert not any("learning rate" in one for one in said)

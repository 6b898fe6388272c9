"""Compounds of aihwkit that transfer columns: every field, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

import pulseline as pl
from aihwkit_presets import (
    BufferedTransferCompound,
    ChoppedTransferCompound,
    DynamicTransferCompound,
    TransferCompound,
)
from aihwkit_standins import (
    AnalogMVType,
    BoundManagementType,
    ConstantStepDevice,
    IdealDevice,
    IOParameters,
    NoiseManagementType,
    PulseType,
    SingleRPUConfig,
    SoftBoundsDevice,
    UpdateParameters,
)
from pulseline.algorithms import (
    AGAD,
    ChoppedTikiTaka2,
    MultiTile,
    Residual1,
    Residual2,
    TikiTaka1,
    TikiTaka2,
)
from pulseline.compat import from_aihwkit
from pulseline.compat.aihwkit import Configuration
from pulseline.configs import ReadConfig, UpdateConfig
from pulseline.errors import ConfigError

pytestmark = pytest.mark.filterwarnings("ignore:aihwkit")

TRANSFERS: tuple[type, ...] = (
    TransferCompound,
    BufferedTransferCompound,
    ChoppedTransferCompound,
    DynamicTransferCompound,
)
# Theirs by default: 7 and 9 bits, at most 5 rounds, managements forced off; see test_compat.
READ = ReadConfig(noise_management="none", bound_management="none", max_rounds=5)


def convert(kind: Any, batch: int | None = None, arrays: int = 2, **values: Any) -> Configuration:
    given = {"unit_cell_devices": [SoftBoundsDevice() for _ in range(arrays)], **values}
    return from_aihwkit(SingleRPUConfig(device=kind(**given)), batch)


def rule(kind: Any, batch: int | None = None, arrays: int = 2, **values: Any) -> Any:
    return convert(kind, batch, arrays, **values).algorithm


def test_defaults_of_all() -> None:
    """Their numbers, not ours: fast arrays at 1, one pulse a transfer, remainders forgotten."""
    assert rule(TransferCompound) == TikiTaka1(
        lr_fast=1.0, scale_fast=True, units="batches", read=READ, transfer_update=UpdateConfig()
    )
    buffer: dict[str, Any] = {"lr_fast": 1.0, "max_pulses": 1, "forget": True, "read": READ}
    assert rule(BufferedTransferCompound) == TikiTaka2(
        scale_fast=True, units="batches", momentum=0.1, **buffer
    )
    assert rule(ChoppedTransferCompound) == ChoppedTikiTaka2(chop=0.1, granularity="fast", **buffer)
    assert rule(DynamicTransferCompound) == AGAD(
        chop=0.1, regular_chop=True, tail=5.0, warm_up=11, granularity="fast", **buffer
    )


def changed(kind: Any, batch: int | None = None, **values: Any) -> dict[str, Any]:
    """The fields of the rule that differ from those of the defaults."""
    before, after = rule(kind).settings(), rule(kind, batch, **values).settings()
    assert before.keys() == after.keys()
    return {name: value for name, value in after.items() if value != before[name]}


@pytest.mark.parametrize("kind", TRANSFERS)
def test_what_all_share(kind: Any) -> None:
    scaled = kind().scale_fast_lr
    assert changed(kind, fast_lr=0.25) == {"lr_fast": 0.25}
    assert changed(kind, scale_fast_lr=not scaled) == {"scale_fast": not scaled}
    own = changed(kind, fast_lr=0.0, scale_fast_lr=False)  # 0: as that of the optimizer
    assert own == ({} if scaled else {"scale_fast": True})
    assert changed(kind, transfer_lr=0.5) == {"lr_transfer": 0.5}
    assert changed(kind, transfer_lr_vec=[0.5, 9.0]) == {"lr_transfer": 0.5}
    assert changed(kind, scale_transfer_lr=False) == {"scale_transfer": False}
    assert changed(kind, transfer_every=3.0) == {"every": 3}
    assert changed(kind, transfer_every=8, transfer_every_vec=[3.0, 0.0]) == {"every": 3}
    batches = kind().units_in_mbatch
    other = {"units": "samples" if batches else "batches"}
    assert changed(kind, units_in_mbatch=not batches) == other
    assert changed(kind, n_reads_per_transfer=2) == {"reads": 2}


@pytest.mark.parametrize("kind", TRANSFERS)
def test_periods_that_are_not_whole(kind: Any) -> None:
    """Samples are rounded, parts of a mini-batch rounded up; .07 x 100 is 7, not 8."""
    for every, found in ((2.4, 2), (2.5, 3), (0.5, 1)):
        assert rule(kind, units_in_mbatch=False, transfer_every=every).every == found
    for every, batch, found in ((0.5, 10, 5), (0.25, 10, 3), (1.5, 10, 15), (0.07, 100, 7)):
        got = rule(kind, batch, units_in_mbatch=True, transfer_every=every)
        assert (got.every, got.units) == (found, "samples")
    message = r"^batch is None, but device\.transfer_every is 0\.5, which counts in mini-batches; "
    with pytest.raises(ConfigError, match=message):
        rule(kind, units_in_mbatch=True, transfer_every=0.5)


def test_the_read_of_a_transfer() -> None:
    """Managements never act in it, whatever they are; an ideal one is perfect."""
    theirs = IOParameters(
        out_noise=0.25,
        inp_res=0.0,
        noise_management=NoiseManagementType.ABS_MAX_NP_SUM,
        bound_management=BoundManagementType.SHIFT,
    )
    for kind in TRANSFERS:
        read = rule(kind, transfer_forward=theirs).read
        assert (read.out_noise, read.inp_res) == (0.25, 0.0)
        assert (read.noise_management, read.bound_management) == ("none", "none")
        perfect = rule(kind, transfer_forward=IOParameters(mv_type=AnalogMVType.IDEAL)).read
        assert perfect == ReadConfig.perfect()


def test_what_is_seen_by_reads() -> None:
    for values in ({"gamma": 0.5}, {"gamma_vec": [0.5, 1.0]}):
        for kind, ours in (
            (TransferCompound, Residual1),
            (BufferedTransferCompound, Residual2),
            (ChoppedTransferCompound, ChoppedTikiTaka2),
        ):
            found = rule(kind, **values)
            assert type(found) is ours
            assert found.gamma == 0.5
        with pytest.raises(ConfigError, match=r"^aihwkit: device\.gamma(_vec)? is .*ERIDER"):
            rule(DynamicTransferCompound, **values)
    assert type(rule(TransferCompound, gamma_vec=[0, 1])) is TikiTaka1


def test_devices() -> None:
    """The first takes the gradient: it is fast_device, where it is another one."""
    fast, slow = ConstantStepDevice(), SoftBoundsDevice()
    for kind in TRANSFERS:
        found = convert(kind, unit_cell_devices=[fast, slow])
        assert isinstance(found.device, pl.devices.SoftBounds)
        assert isinstance(found.fast_device, pl.devices.ConstantStep)
        crossbar = pl.Crossbar(*found)
        assert (crossbar.device, crossbar.fast_device) == (found.device, found.fast_device)
        assert crossbar.algorithm is found.algorithm
        assert convert(kind).fast_device is None
        with pytest.raises(ConfigError, match=r"unit_cell_devices\[0\] is 'IdealDevice', which"):
            convert(kind, unit_cell_devices=[IdealDevice(), slow])
        decaying = [SoftBoundsDevice(lifetime=100.0), slow]
        assert convert(kind, 8, unit_cell_devices=decaying).fast_device.batch == 8  # type: ignore[union-attr]
        with pytest.raises(ConfigError, match=r"^batch is None, but weights of this device decay"):
            convert(kind, unit_cell_devices=decaying)


# ---- chains ----


def test_trains_of_a_transfer() -> None:
    found = rule(TransferCompound, transfer_update=UpdateParameters(desired_bl=10))
    assert found.transfer_update == UpdateConfig(desired_bl=10)


def test_a_chain_of_three() -> None:
    values: dict[str, Any] = {
        "transfer_every_vec": [2, 10, 0],
        "transfer_lr_vec": [0.1, 0.12, 7],
        "scale_transfer_lr": False,
        "gamma": 0.5,
        "units_in_mbatch": False,
    }
    found = rule(TransferCompound, arrays=3, **values)
    assert type(found) is MultiTile
    assert (found.arrays, found.every, found.every_factor, found.gamma) == (3, 2, 5, 0.5)
    assert (found.lr_transfer, found.scale_transfer) == (0.1, False)
    assert found.lr_transfer_factor == pytest.approx(1.2, rel=1e-15)  # a quotient of doubles
    vec = rule(TransferCompound, arrays=3, **{**values, "gamma_vec": [0.25, 0.5, 1.0]})
    assert vec == found
    devices = [ConstantStepDevice(), SoftBoundsDevice(), SoftBoundsDevice()]
    mixed = convert(TransferCompound, unit_cell_devices=devices, **values)
    cell: Any = pl.cells.make_cell(7, 5, pl.Crossbar(*mixed), pl.Identity(0))
    assert [one.device.name for one in cell.arrays] == ["SoftBounds", "SoftBounds", "ConstantStep"]
    hidden = rule(TransferCompound, arrays=3, **{**values, "gamma": 0.0})
    assert type(hidden) is TikiTaka1
    assert hidden.arrays == 3


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("transfer_every_vec", {}),  # follow from the rows of each matrix there
        ("transfer_every_vec", {"transfer_every_vec": [2, 10]}),
        ("transfer_every_vec", {"transfer_every_vec": [2, 3, 0]}),
        ("transfer_every_vec", {"transfer_every_vec": [2, 0, 0]}),
        ("gamma_vec", {"gamma_vec": [0.3, 0.5, 1]}),
        ("gamma_vec", {"gamma_vec": [0.25, 0.5, 2]}),
        ("gamma_vec", {"gamma_vec": [0.5, 1]}),
        ("transfer_lr_vec", {"transfer_lr_vec": [1.0, 1.0]}),
    ],
)
def test_chains_that_have_no_counterpart(field: str, values: dict[str, Any]) -> None:
    if field != "transfer_every_vec":
        values = {"transfer_every_vec": [2, 10, 0], **values}
    with pytest.raises(ConfigError, match=rf"^aihwkit: device\.{field} is \[.*\], which has no c"):
        rule(TransferCompound, arrays=3, **values)


def test_a_chain_of_four_needs_one_factor() -> None:
    every = [2, 10, 50, 0]
    assert rule(TransferCompound, arrays=4, transfer_every_vec=every).every_factor == 5
    for field, bad in (("transfer_every_vec", [2, 10, 40, 0]), ("transfer_lr_vec", [1, 2, 3, 0])):
        values = {"transfer_every_vec": every, field: bad}
        with pytest.raises(ConfigError, match=rf"^aihwkit: device\.{field} is .* the same mult"):
            rule(TransferCompound, arrays=4, **values)


REFUSED = [
    *((kind, field, value) for kind in TRANSFERS for field, value in (
        ("construction_seed", 5),
        ("no_self_transfer", False),
        ("transfer_columns", False),
        ("with_reset_prob", 0.5),
        ("random_selection", True),
        ("transfer_every", 0.0),
        ("transfer_every", -1.0),
        ("transfer_forward.ir_drop", IOParameters(ir_drop=1.0)),
        ("transfer_forward.r_series", IOParameters(r_series=1.0)),
        ("transfer_update.pulse_type", UpdateParameters(pulse_type=PulseType.MEAN_COUNT)),
        ("unit_cell_devices", []),
        ("unit_cell_devices", [SoftBoundsDevice()]),
        ("unit_cell_devices[1]", [SoftBoundsDevice(), TransferCompound()]),
        ("unit_cell_devices[0].reverse_up", [SoftBoundsDevice(reverse_up=True)] * 2),
        ("transfer_every_vec", [1.0]),
        ("transfer_lr_vec", [1.0, 2.0, 3.0]),
        ("gamma_vec", [0.5, 2.0]),
    )),
    *((kind, "step", 2.0) for kind in TRANSFERS[1:]),
    (DynamicTransferCompound, "in_chop_random", True),
    (DynamicTransferCompound, "out_chop_prob", 0.1),
    (DynamicTransferCompound, "no_buffer", True),
    (DynamicTransferCompound, "experimental_correct_accumulation", True),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "field", "value"), REFUSED)
def test_no_counterpart(kind: Any, field: str, value: Any) -> None:
    given = {field.split(".")[0].split("[")[0]: value}
    start = f"aihwkit: device.{field} is "
    with pytest.raises(ConfigError) as caught:
        rule(kind, **given)
    assert str(caught.value).startswith(start), caught.value
    assert ", which has no counterpart here; " in str(caught.value)


def test_an_unknown_field_is_refused() -> None:
    class More(TransferCompound):
        pass

    theirs = More(unit_cell_devices=[SoftBoundsDevice()] * 2)
    assert from_aihwkit(SingleRPUConfig(device=theirs)).algorithm == rule(TransferCompound)
    plain = type("TransferCompound", (), {**vars(theirs), "surprise": 1})()
    with pytest.raises(ConfigError, match=r"^aihwkit: device\.surprise is 1, which has no"):
        from_aihwkit(SingleRPUConfig(device=plain))


def test_values_out_of_range_are_refused_by_ours() -> None:
    with pytest.raises(ConfigError, match=r"^AGAD: chop is 0\.0; use a probability > 0$"):
        rule(DynamicTransferCompound, in_chop_prob=0.0)
    with pytest.raises(ConfigError, match=r"^TikiTaka1: lr_transfer is -1\.0; use a number >= 0$"):
        rule(TransferCompound, transfer_lr=-1.0)

"""Compounds of aihwkit beside transfers: mixed precision, one-sided, vector and reference cells."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

import pulseline as pl
from aihwkit_presets import (
    MixedPrecisionCompound,
    OneSidedUnitCell,
    ReferenceUnitCell,
    VectorUnitCell,
    VectorUnitCellUpdatePolicy,
)
from aihwkit_standins import (
    ConstantStepDevice,
    IdealDevice,
    IOParameters,
    NoiseManagementType,
    PulseType,
    SingleRPUConfig,
    SoftBoundsDevice,
    UpdateParameters,
)
from pulseline.algorithms import MixedPrecision, OneSided, ReferencePair, Vector
from pulseline.compat import from_aihwkit
from pulseline.compat.aihwkit import Configuration
from pulseline.configs import ReadConfig
from pulseline.errors import ConfigError

pytestmark = pytest.mark.filterwarnings("ignore:aihwkit")

READ = ReadConfig(noise_management="none", bound_management="none", max_rounds=5)
CELLS: tuple[type, ...] = (VectorUnitCell, ReferenceUnitCell, OneSidedUnitCell)


def convert(device: Any, batch: int | None = None, **rest: Any) -> Configuration:
    found = from_aihwkit(SingleRPUConfig(device=device, **rest), batch)
    pl.Crossbar(*found)
    return found


def mixed(batch: int | None = None, desired_bl: int = 31, **values: Any) -> Any:
    given = {"device": SoftBoundsDevice(), **values}
    update = UpdateParameters(desired_bl=desired_bl)
    return convert(MixedPrecisionCompound(**given), batch, update=update).algorithm


def cell(kind: Any, batch: int | None = None, arrays: int = 2, **values: Any) -> Any:
    given = {"unit_cell_devices": [SoftBoundsDevice() for _ in range(arrays)], **values}
    return convert(kind(**given), batch).algorithm


# ---- mixed precision ----


def test_mixed_precision() -> None:
    assert mixed() == MixedPrecision()
    assert mixed(transfer_every=3) == MixedPrecision(every=3)
    assert mixed(8, transfer_every=0.5) == MixedPrecision(every=4, units="samples")
    assert mixed(desired_bl=10) == MixedPrecision(max_pulses=10)
    assert mixed(random_row=True) == MixedPrecision()  # of all rows none is first
    found = convert(MixedPrecisionCompound(device=ConstantStepDevice()))
    assert isinstance(found.device, pl.devices.ConstantStep)
    assert found.fast_device is None


def test_bins_are_even() -> None:
    for bins, found in ((6, 6), (7, 6), (2, 2), (0, 0)):
        settings = mixed(n_x_bins=bins, n_d_bins=4, stoc_round_x=False, stoc_round_d=False)
        assert settings == MixedPrecision(bins_x=found, bins_d=4)
    assert mixed(stoc_round_x=True, stoc_round_d=True) == MixedPrecision()  # without bins


def test_the_granularity_of_counts() -> None:
    """A count is a pulse if granularity times transfer_lr is a step, .001."""
    for unit, lr in ((0.002, 0.5), (0.0005, 2.0), (0.001, 1.0)):
        found = mixed(granularity=unit, transfer_lr=lr)
        assert found.threshold == pytest.approx(unit / 0.001, rel=1e-12)
    with pytest.raises(ConfigError, match=r"device\.transfer_lr is 1\.0, which .*; set it to 0\.5"):
        mixed(granularity=0.002)


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("device", {"device": OneSidedUnitCell([SoftBoundsDevice()])}),
        ("device", {"device": VectorUnitCell([SoftBoundsDevice()])}),
        ("device", {"device": IdealDevice()}),
        ("device.reverse_up", {"device": SoftBoundsDevice(reverse_up=True)}),
        ("transfer_every", {"transfer_every": 0}),
        ("transfer_every", {"transfer_every": -1}),
        ("n_rows_per_transfer", {"n_rows_per_transfer": 5}),
        ("transfer_lr", {"transfer_lr": 2.0}),
        ("n_x_bins", {"n_x_bins": 1}),
        ("stoc_round_x", {"n_x_bins": 6}),
        ("stoc_round_d", {"n_d_bins": 6}),
        ("construction_seed", {"construction_seed": 3}),
    ],
)
def test_mixed_precision_without_counterpart(field: str, values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=rf"^aihwkit: device\.{field} is .+, which has no count"):
        mixed(**values)


def test_mixed_precision_in_parts_of_a_batch() -> None:
    with pytest.raises(ConfigError, match=r"^batch is None, but device\.transfer_every is 0\.5"):
        mixed(transfer_every=0.5)


# ---- one-sided ----


def test_one_sided() -> None:
    assert cell(OneSidedUnitCell) == OneSided()
    found = cell(OneSidedUnitCell, refresh_every=4, units_in_mbatch=False)
    assert found == OneSided(refresh_every=4, read=READ)
    values = {"refresh_upper_thres": 0.5, "refresh_lower_thres": 0.125}
    assert cell(OneSidedUnitCell, **values) == OneSided(full=0.5, both=0.125)
    assert cell(OneSidedUnitCell, 8, refresh_every=4) == OneSided(refresh_every=32, read=READ)
    with pytest.raises(ConfigError, match=r"^batch is None, but device\.refresh_every is 4, which"):
        cell(OneSidedUnitCell, refresh_every=4)


def test_the_second_of_a_pair_is_as_the_first() -> None:
    for devices in ([SoftBoundsDevice()], [SoftBoundsDevice(), SoftBoundsDevice(dw_min=0.1)]):
        found = convert(OneSidedUnitCell(devices))
        assert found.device.dw_min == 0.001  # type: ignore[union-attr]
        assert found.fast_device is None


# ---- vector and reference ----


def test_vectors() -> None:
    policy = VectorUnitCellUpdatePolicy
    for theirs, ours in (
        (policy.ALL, "all"),
        (policy.SINGLE_FIXED, "first"),
        (policy.SINGLE_SEQUENTIAL, "sequential"),
        (policy.SINGLE_RANDOM, "random"),
    ):
        found = cell(VectorUnitCell, arrays=3, update_policy=theirs)
        assert found == Vector(arrays=3, pulsed=ours)
    assert cell(VectorUnitCell, gamma_vec=[0.25, 0.75]) == Vector(2, (0.25, 0.75))
    assert cell(VectorUnitCell, arrays=1) == Vector(1)


def test_whose_turn_comes_first() -> None:
    """The array that sample 0 pulses is array 0: there a sequence steps on before it pulses."""
    policy = VectorUnitCellUpdatePolicy
    for first, kind in itertools.product(range(3), (policy.SINGLE_FIXED, policy.SINGLE_SEQUENTIAL)):
        start = (first + (kind is policy.SINGLE_SEQUENTIAL)) % 3
        devices = [SoftBoundsDevice() for _ in range(3)]
        devices[start] = SoftBoundsDevice(dw_min=0.004)
        weights = [0.125, 0.25, 0.625]
        found = convert(VectorUnitCell(devices, 0, kind, first, weights))
        assert found.device.dw_min == 0.004  # type: ignore[union-attr]
        assert found.fast_device.dw_min == 0.001  # type: ignore[union-attr]
        assert found.algorithm.weights == (*weights[start:], *weights[:start])  # type: ignore[union-attr]


def test_reference_pairs() -> None:
    assert cell(ReferenceUnitCell) == ReferencePair()
    pulsed, other, more = (SoftBoundsDevice(dw_min=dw) for dw in (0.001, 0.002, 0.003))
    for devices, second in (
        ([pulsed], None),
        ([pulsed, other], 0.002),
        ([pulsed, other, more], 0.002),
    ):
        found = convert(ReferenceUnitCell(devices))
        assert found.device.dw_min == 0.001  # type: ignore[union-attr]
        fast = found.fast_device
        assert (None if fast is None else fast.dw_min) == second  # type: ignore[union-attr]


POLICY = VectorUnitCellUpdatePolicy.ALL
REFUSED: list[tuple[Any, str, dict[str, Any]]] = [
    *((kind, "construction_seed", {"construction_seed": 3}) for kind in CELLS),
    *((kind, "unit_cell_devices", {"unit_cell_devices": []}) for kind in CELLS),
    *((k, "unit_cell_devices[0]", {"unit_cell_devices": [IdealDevice()]}) for k in CELLS),
    (VectorUnitCell, "first_update_idx", {"first_update_idx": 2}),
    (VectorUnitCell, "gamma_vec", {"gamma_vec": [1.0]}),
    (VectorUnitCell, "gamma_vec", {"gamma_vec": [1.0, 1.0]}),
    (
        VectorUnitCell,
        "unit_cell_devices",
        {"unit_cell_devices": [SoftBoundsDevice(), SoftBoundsDevice(), ConstantStepDevice()]},
    ),
    (ReferenceUnitCell, "gamma_vec", {"gamma_vec": [1.0, -0.5]}),
    (ReferenceUnitCell, "gamma_vec", {"gamma_vec": []}),
    (ReferenceUnitCell, "first_update_idx", {"first_update_idx": 1}),
    (ReferenceUnitCell, "update_policy", {"update_policy": POLICY}),
    (OneSidedUnitCell, "copy_inverted", {"copy_inverted": True}),
    (
        OneSidedUnitCell,
        "refresh_forward.noise_management",
        {
            "refresh_every": 1,
            "refresh_forward": IOParameters(noise_management=NoiseManagementType.CONSTANT),
        },
    ),
    (
        OneSidedUnitCell,
        "refresh_update.pulse_type",
        {
            "refresh_every": 1,
            "refresh_update": UpdateParameters(pulse_type=PulseType.MEAN_COUNT),
        },
    ),
]


@pytest.mark.parametrize(("kind", "field", "values"), REFUSED)
def test_no_counterpart(kind: Any, field: str, values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        cell(kind, 8, **values)
    assert str(caught.value).startswith(f"aihwkit: device.{field} is "), caught.value
    assert ", which has no counterpart here; " in str(caught.value)


def test_weights_below_zero_are_refused_by_ours() -> None:
    with pytest.raises(ConfigError, match=r"^Vector: weights is \(2\.0, -1\.0\); use 2 numbers"):
        cell(VectorUnitCell, gamma_vec=[2.0, -1.0])

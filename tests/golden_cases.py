"""The runs whose bits are golden: devices, updates, reads, schedules, networks, and which meet.

Every device meets every kind of update: that is the grid. Reads, schedules and networks take turns
along its rows and columns, so that every pair of device, update, read, schedule and network occurs
(``test_golden.py`` counts them). Settings are written out: a new default changes no run. What is
left out is inert.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import pulseline as pl
from pulseline.configs import IOConfig, Mapping, ReadConfig, UpdateConfig

_BOUNDS = {"w_max": 0.6, "w_min": -0.6, "w_max_dtod": 0.3, "w_min_dtod": 0.3}
_STEPS = {"dw_min": 0.004, "dw_min_dtod": 0.3, "dw_min_std": 0.3, "up_down_dtod": 0.01}
_VARIED: dict[str, Any] = {**_BOUNDS, **_STEPS, "up_down": 0.0}
_EXACT: dict[str, Any] = {**dict.fromkeys(_VARIED, 0.0), "dw_min": 2**-8, "w_max": 1, "w_min": -1}
_WRITTEN: dict[str, Any] = {**_VARIED, "write_noise_std": 1.5}
_EXP: dict[str, Any] = {"a_up": 0.00081, "a_down": 0.36833, "gamma_up": 12.44625}
_EXP |= {"gamma_down": 12.78785, "a": 0.244, "b": 0.2425}
_LINEAR: dict[str, Any] = {"gamma_up": 0.5, "gamma_down": 0.3}
_LINEAR |= {"gamma_up_dtod": 0.05, "gamma_down_dtod": 0.1}
_POW: dict[str, Any] = {"pow_gamma": 1.5, "pow_gamma_dtod": 0.1}
_CURVE = (1.5, 1.25, 1.0, 0.5, 0.25)
_LONG_CURVE = tuple((20 - i) / 16 for i in range(16))


_AGES = {
    "lifetime": 500.0,
    "lifetime_dtod": 0.2,
    "reset": 0.05,
    "reset_dtod": 0.02,
    "diffusion": 2.0**-10,
    "diffusion_dtod": 0.3,
    "drift_nu": 0.02,
    "drift_nu_dtod": 0.2,
}


def devices() -> dict[str, Any]:
    """Every model twice or more. A new device goes to the end: no other run changes."""
    d = pl.devices
    return {
        "Ideal": d.Ideal(),
        "ConstantStep": d.ConstantStep(**_VARIED),
        "ConstantStep coarse, stuck, written": d.ConstantStep(
            **_WRITTEN | {"dw_min": 0.03, "up_down": 0.2},
            corrupt_devices_prob=0.05,
            corrupt_devices_range=0.4,
        ),
        "LinearStep": d.LinearStep(
            **_VARIED, **_LINEAR, mult_noise=True, mean_bound_reference=True
        ),
        "LinearStep additive, own bounds, written": d.LinearStep(
            **_WRITTEN, **_LINEAR, mult_noise=False, mean_bound_reference=False
        ),
        "SoftBounds": d.SoftBounds(**_VARIED, mult_noise=True),
        "SoftBounds without variation": d.SoftBounds(**_EXACT, mult_noise=True),
        "SoftBounds additive, log-normal, written": d.SoftBounds(
            **_WRITTEN | {"up_down": -0.1}, dw_min_dtod_log_normal=True, mult_noise=False
        ),
        "SoftBoundsReference": d.SoftBoundsReference(
            **_VARIED,
            mult_noise=True,
            slope_up_dtod=0.1,
            slope_down_dtod=0.2,
            reference_mean=0.05,
            reference_std=0.05,
        ),
        "SoftBoundsReference additive, symmetric, written": d.SoftBoundsReference(
            **_WRITTEN | {"up_down": 0.1}, mult_noise=False, subtract_symmetry_point=True
        ),
        "ExpStep": d.ExpStep(**_VARIED, **_EXP),
        "ExpStep more noise, written": d.ExpStep(
            **_WRITTEN, **_EXP, dw_min_std_add=0.5, dw_min_std_slope=0.25
        ),
        "PowStep": d.PowStep(**_VARIED, **_POW),
        "PowStep asymmetric, written": d.PowStep(
            **_WRITTEN, **_POW, pow_up_down=-0.2, pow_up_down_dtod=0.05
        ),
        "PowStepReference": d.PowStepReference(
            **_VARIED, **_POW, reference_mean=0.05, reference_std=0.05
        ),
        "PowStepReference symmetric, written": d.PowStepReference(
            **_WRITTEN | {"up_down": 0.1}, **_POW, subtract_symmetry_point=True
        ),
        **_curves(),
    }


def _curves() -> dict[str, Any]:
    d = pl.devices
    return {
        "PiecewiseStep": d.PiecewiseStep(
            **_VARIED, piecewise_up=_CURVE, piecewise_down=_CURVE[::-1][1:]
        ),
        "PiecewiseStep tilted, written": d.PiecewiseStep(
            **_WRITTEN,
            tilt_up_dtod=0.2,
            tilt_down_dtod=0.1,
            piecewise_up=_LONG_CURVE,
            piecewise_down=(0.5, 2.0),
        ),
        "SoftBounds that ages": d.SoftBounds(**_VARIED, **_AGES, batch=3, mult_noise=True),
        "LinearStep that ages, written": d.LinearStep(
            **_WRITTEN, **_LINEAR, **_AGES, batch=64, mult_noise=True, mean_bound_reference=True
        ),
    }


def updates() -> dict[str, Any]:
    """Every fidelity, and what else can be set of an update."""
    managed = {"desired_bl": 31, "fixed_bl": True, "group_size": 0, "noise": "iid"}
    managed |= {"update_management": True, "update_bl_management": True}
    plain = {name: {**managed, "fidelity": name} for name in FIDELITIES}
    raw = {"desired_bl": 7, "update_management": False, "update_bl_management": False}
    low = {**managed, "noise": "lowrank"}
    options = {
        **plain,
        "strict in long trains": {**plain["strict"], **raw, "fixed_bl": False},  # to 125 slots
        "exact unmanaged, low-rank": {**low, **raw, "fidelity": "exact"},
        "grouped by three, low-rank": {
            **low,
            "desired_bl": 40,
            "update_bl_management": False,
            "group_size": 3,
            "fidelity": "grouped",
        },
    }
    return {name: UpdateConfig(**value) for name, value in options.items()}


FIDELITIES = ("strict", "exact", "grouped", "moments", "expected")

_PERFECT: dict[str, Any] = {"inp_res": 0, "inp_bound": 0, "out_res": 0, "out_bound": 0}
_PERFECT |= {"out_noise": 0, "noise_management": "none", "bound_management": "none"}
_CONVERTED: dict[str, Any] = {"inp_res": 1 / 126, "inp_bound": 1.0, "inp_noise": 0.0}
_CONVERTED |= {"out_res": 1 / 510, "out_bound": 12.0, "out_noise": 0.06, "w_noise": 0.0}
_CONVERTED |= {"noise_management": "abs_max", "bound_management": "iterative", "max_rounds": 10}
_EVERY_OPTION: dict[str, Any] = {
    **_CONVERTED,
    "inp_noise": 0.01,
    "w_noise": 0.02,
    "noise_management": "average_abs_max",
    "nm_decay": 0.1,
    "inp_sto_round": True,
    "out_sto_round": True,
    "mv_type": "pos_neg_separate",
    "inp_asymmetry": 0.02,
    "out_asymmetry": 0.03,
    "w_noise_type": "pcm_read",
    "out_noise_std": 0.2,
    "out_nonlinearity": 0.1,
    "out_nonlinearity_std": 0.3,
    "ir_drop": "approx",
    "wire_resistance": 2e-4,
}
_READS: dict[str, tuple[dict[str, Any], tuple[int, int, float]]] = {  # with tile sizes, omega
    "perfect": (_PERFECT, (512, 512, 0.0)),
    "converters": (_CONVERTED, (512, 512, 0.0)),
    "every option, tiles, omega": (_EVERY_OPTION, (16, 8, 0.5)),
    "exact wires, tiles": (
        {**_CONVERTED, "ir_drop": "exact", "wire_resistance": 1e-3, "ir_tolerance": 1e-3},
        (33, 17, 0.0),
    ),
    "saturating, tiles": (
        {**_CONVERTED, "out_bound": 0.5, "max_rounds": 1, "w_noise": 0.02, "nm_thres": 0.75},
        (7, 64, 0.0),
    ),
    "two passes, constant, exact wires": (
        {
            **_CONVERTED,
            "noise_management": "constant",
            "nm_thres": 0.75,
            "mv_type": "pos_neg_separate_digital_sum",
            "ir_drop": "exact",
            "wire_resistance": 1e-3,
            "ir_tolerance": 1e-6,
        },
        (65, 65, 0.0),
    ),
    "unmanaged, tiles": (
        {**_CONVERTED, "noise_management": "none", "bound_management": "none"},
        (128, 1, 0.25),
    ),
}


def _of_errors(read: dict[str, Any]) -> dict[str, Any]:
    """The same for a backward read, whose inputs are smaller."""
    return {**read, "nm_thres": read["nm_thres"] / 64} if "nm_thres" in read else read


def reads() -> dict[str, tuple[Any, Any]]:
    """Converters of both directions, and how a matrix lies on physical tiles."""
    return {
        name: (
            IOConfig(ReadConfig(**read), ReadConfig(**_of_errors(read))),
            Mapping(tile_in=sizes[0], tile_out=sizes[1], omega=sizes[2]),
        )
        for name, (read, sizes) in _READS.items()
    }


SCHEDULES = {
    "sequential": {"schedule": "sequential"},
    "synchronous": {"schedule": "sync", "micro_batches": 4},
    "asynchronous": {"schedule": "async"},
}


class Network(NamedTuple):
    """Widths of four layers, samples per micro-batch, largest initial weight, learning rate."""

    widths: tuple[int, int, int, int, int]
    samples: int
    scale: float
    lr: float


NETWORKS = {
    "7x5": Network((5, 7, 8, 7, 1), 1, 0.5, 1.0),
    "33x17": Network((17, 33, 15, 9, 4), 20, 0.375, 0.5),
    "129": Network((129, 33, 65, 16, 8), 3, 0.1875, 0.5),
    "300 samples": Network((6, 5, 4, 3, 2), 300, 0.5, 4.0),
}


class Case(NamedTuple):
    """One run, all by name."""

    device: str
    update: str
    read: str
    schedule: str
    network: str

    def __str__(self) -> str:
        return " | ".join(self)


def grid() -> list[Case]:
    """Every device with every update; what else there is takes turns along the rows and columns."""
    read, schedule, network = list(_READS), list(SCHEDULES), list(NETWORKS)
    return [
        Case(
            device,
            update,
            read[(i + j) % 7],
            schedule[(i + j + j // 3) % 3],
            network[(i + 2 * j) % 3],
        )
        for i, device in enumerate(devices())
        for j, update in enumerate(list(updates())[:8])
    ]


def more() -> list[Case]:
    """Beside the grid: groups that a batch fills and overflows (256 samples), on every model.

    What is added to updates, reads, schedules or networks later gets its runs here.
    """
    return [
        Case(device, update, "converters", list(SCHEDULES)[(i + j) % 3], "300 samples")
        for i, device in enumerate(("Ideal", *pl.devices.DEVICES))
        if device in devices()
        for j, update in enumerate(("grouped", "moments"))
    ]


def cases() -> list[Case]:
    """All runs, in the order of the file."""
    return grid() + more()

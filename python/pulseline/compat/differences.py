"""Where settings of aihwkit mean something else here although they have the same name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from .. import algorithms, devices

__all__ = ["sentences"]

# Their unit of the learning rate where it is not the step at w = 0.
_LR_UNIT = {
    "PowStep": "dw_min / 2^gamma",
    "PowStepReference": "dw_min / 2^gamma",
    "PiecewiseStep": "dw_min times the middle node",
    "ExpStep": "the down step alone (updates of the ReRamES preset are .87 of the request)",
}


def sentences(configuration: Any, names: Sequence[str]) -> Iterator[str]:
    """All of them.

    Args:
        configuration: device, io, algorithm and fast_device. names: the classes of both devices
            there, the first at least.
    """
    given = (configuration.device, configuration.fast_device)
    counts = isinstance(configuration.algorithm, (algorithms.Transfer, algorithms.MixedPrecision))
    for device, name in zip(given, (*names, "", "")[:2], strict=True):
        if isinstance(device, devices.PulsedDevice):
            yield from _of_device(device, name, counts)
    io = configuration.io
    for direction, read in (("forward", io.forward), ("backward", io.backward)):
        if read.out_asymmetry:
            yield (
                f"out_asymmetry ({direction}) scales the pass of negative inputs here, as "
                "documented there; the code there scales negative outputs (up to 9 % of full scale "
                "at .05)"
            )
    if configuration.fast_device is not None:
        yield from _of_steps(*given)
    if configuration.algorithm is not None:
        yield from _of_algorithm(configuration.algorithm)


def _of_device(device: devices.PulsedDevice, name: str, counts: bool) -> Iterator[str]:
    odd = _LR_UNIT.get(device.name)
    pmax = name.startswith("SoftBoundsPmax")  # its up_down follows from its curve
    if odd is None and not pmax and device.up_down:
        odd = f"dw_min = {device.dw_min:g}"
    if odd:
        what, it = "the learning rate is", "it"
        if counts:
            what, it = "the learning rate and what a count stands for are", "both"
        yield (
            f"{what} in units of another step: there {odd}, here the mean of up "
            f"and down step at w = 0, {device.granularity:.4g}; scale {it} by their quotient"
        )
    if pmax:
        yield (
            "SoftBoundsPmax reaches range_max at p_max pulses here, as its formula says; there a "
            "curve of range_max 1.0 reached 1.356"
        )


def _of_steps(device: devices.PulsedDevice, fast: devices.PulsedDevice) -> Iterator[str]:
    if abs(device.granularity - fast.granularity) > 1e-6 * fast.granularity:
        yield (
            f"device steps by {device.granularity:.4g} and fast_device by {fast.granularity:.4g}; "
            "here trains count in steps of the array that they pulse, there in the mean of all (at "
            ".004 beside .01 an array moved by .55 of the request)"
        )


def _of_algorithm(rule: Any) -> Iterator[str]:
    if isinstance(rule, algorithms.Transfer):
        if rule.max_pulses > 1:
            yield (
                f"up to {rule.max_pulses} pulses of a transfer are exactly as many as were counted "
                "here; there they are a train of that many on average"
            )
        if rule.gamma and (rule.chop or rule.chops_rows):
            yield (
                "gamma shows the fast array with the signs of its choppers here; the code there "
                "mixes rows and columns of them on a CPU (weights were off by .2 to .4)"
            )
    elif isinstance(rule, algorithms.MixedPrecision):
        yield (
            f"mixed precision writes behind its mini-batch, and what exceeds {rule.max_pulses} "
            "pulses waits here; there one sample later, by trains of as many pulses on average, "
            "and the excess is lost"
        )
    elif isinstance(rule, algorithms.OneSided) and rule.refresh_every:
        yield (
            "a refresh writes the difference back by counted pulses, as many as it takes, here; "
            "there by one train of at most refresh_update.desired_bl"
        )
    elif isinstance(rule, algorithms.Vector) and rule.arrays > 1 and rule.pulsed == "all":
        yield (
            "arrays draw their pulse trains each by itself here, so that their noise averages out "
            "too; there all of them see the same trains"
        )

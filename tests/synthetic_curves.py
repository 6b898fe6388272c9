"""Measured curves of devices that are known, written as people write them.

    python tests/synthetic_curves.py [--repeats 40]

prints, over a grid of cycles, reads of a state and read noise, the mean and the standard deviation
of what :func:`pulseline.devices.fit_measurements` finds, beside the mean of the error it states.
"""

from __future__ import annotations

import argparse
import csv
import io
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import pulseline as pl


@dataclass(frozen=True)
class Truth:
    """Devices whose steps are ``s (1 + bend z)`` up and ``s (1 - bend z)`` down in range -1 to 1.

    bend -1: soft bounds, symmetric about 0. skew: the up step is larger by it, the down step
    smaller. d2d and ranges are spreads of gains and of half the range; read is the noise of a read,
    write that which all reads of a state share, both in halves of the range.
    """

    devices: int = 8
    cycles: int = 1
    pulses: int = 100
    every: int = 1
    reads: int = 1
    step: float = 0.03
    bend: float = -1.0
    skew: float = 0.0
    c2c: float = 0.3
    d2d: float = 0.0
    ranges: float = 0.0
    read: float = 0.0
    write: float = 0.0


Read = tuple[str, str, str, int, float]  # device, cycle, direction, pulse, conductance


def measure(truth: Truth, seed: int, restart: bool = False) -> list[Read]:
    """Reads in the order of time. Pulses count on, or restart with each sweep."""
    random = np.random.default_rng(seed)
    n = truth.devices
    gain = 1 + truth.d2d * random.standard_normal(n)
    half = 1 + truth.ranges * random.standard_normal(n)
    w, found, count = -half, [], 0
    for cycle in range(truth.cycles):
        for up, sign in (("up", 1.0), ("down", -1.0)):
            count = 0 if restart else count
            for k in range(truth.pulses + 1):
                if k:
                    z = sign * w / half
                    step = truth.step * gain * (1 + sign * truth.skew) * (1 + truth.bend * z)
                    w = w + sign * step * (1 + truth.c2c * random.standard_normal(n))
                    w = np.clip(w, -half, half)
                    count += 1
                if k % truth.every:
                    continue
                state = w + truth.write * random.standard_normal(n)
                for _ in range(truth.reads):
                    y = state + truth.read * random.standard_normal(n)
                    found += [
                        (f"D{d}", str(cycle), up, count, 10 + 5 * float(g)) for d, g in enumerate(y)
                    ]
    return found


def write(path: Path, reads: Sequence[Read], cycle: bool = False) -> Path:
    """As a plain CSV file."""
    out = io.StringIO()
    rows = csv.writer(out)
    names = ["device", "cycle", "direction", "pulse", "conductance"]
    keep = [n for n, name in enumerate(names) if cycle or name != "cycle"]
    rows.writerows([[row[n] for n in keep] for row in (names, *reads)])
    path.write_text(out.getvalue())
    return path


GRID: dict[str, Truth] = {
    "1 cycle": Truth(),
    "1 cycle, read .5 %": Truth(read=0.01),
    "1 cycle, read 1 %": Truth(read=0.02),
    "1 cycle, read 2 %": Truth(read=0.04),
    "1 cycle, read 4 %": Truth(read=0.08),
    "3 cycles": Truth(cycles=3),
    "3 cycles, read .5 %": Truth(cycles=3, read=0.01),
    "3 cycles, read 2 %": Truth(cycles=3, read=0.04),
    "10 cycles, read 2 %": Truth(cycles=10, read=0.04),
    "3 reads, read 2 %": Truth(reads=3, read=0.04),
    "3 cycles of 3 reads, read 2 %": Truth(cycles=3, reads=3, read=0.04),
    "skew .2, read 1 %": Truth(cycles=3, skew=0.2, read=0.02),
    "d2d .2, read 1 %": Truth(devices=24, cycles=3, d2d=0.2, ranges=0.05, read=0.02),
    "long tail, read 1 %": Truth(pulses=500, read=0.02),
    "every 5 pulses, read 1 %": Truth(cycles=3, every=5, read=0.02),
    "constant step, read 1 %": Truth(cycles=3, bend=0.0, step=0.02, read=0.02),
    "20 states, read 1 %": Truth(cycles=5, pulses=40, step=0.1, read=0.02),
    "no c2c, read 1 %": Truth(c2c=0.0, read=0.02),
}


def found(fit: pl.devices.MeasuredFit) -> dict[str, float]:
    """What was found, in the units of :class:`Truth`.

    The mean of the up and the down step at one place is ``step`` wherever that place is.
    """
    unit = fit.half_range / 5
    return {
        "step": fit.device.dw_min * unit,
        "asymmetry": fit.asymmetry,
        "c2c": fit.c2c,
        "read": fit.read_noise * unit,
        "d2d": fit.d2d,
    }


def stated(fit: pl.devices.MeasuredFit) -> dict[str, float]:
    """The errors that the fit states, in the same units."""
    unit = fit.half_range / 5
    return {
        "step": fit.dw_min_error * unit,
        "asymmetry": fit.asymmetry_error,
        "c2c": fit.c2c_error,
        "read": fit.read_noise_error * unit,
    }


def true(truth: Truth, fit: pl.devices.MeasuredFit) -> dict[str, float]:
    """What should be found; up (1 + k) (1 + b z) against down (1 - k) (1 - b z) at mid range."""
    z = truth.bend * (fit.centre - 10) / 5
    k = truth.skew
    return {
        "step": truth.step * (1 + k * z),
        "asymmetry": (k + z) / (1 + k * z),
        "c2c": truth.c2c,
        "read": truth.read,
        "d2d": truth.d2d,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=40)
    repeats = parser.parse_args().repeats
    print("bias +- standard deviation (mean of the stated errors)")
    with tempfile.TemporaryDirectory() as folder:
        for name, truth in GRID.items():
            path = Path(folder) / "curves.csv"
            fits = [
                pl.devices.fit_measurements(write(path, measure(truth, seed)))
                for seed in range(repeats)
            ]
            parts = []
            for column in found(fits[0]):
                off = np.array([found(fit)[column] - true(truth, fit)[column] for fit in fits])
                note = ""
                if column != "d2d":
                    note = f" ({np.mean([stated(fit)[column] for fit in fits]):.4f})"
                parts.append(f"{column} {off.mean():+.4f} +- {off.std(ddof=1):.4f}{note}")
            print(f"{name:30s} " + "  ".join(parts), flush=True)


if __name__ == "__main__":
    main()

"""``devices``: how good a crossbar must be before training notices.

The digits on tanh 64-36-10, one property of the crossbar at a time made worse, sequential and
asynchronous (M = 2) training. The baseline has symmetric constant steps in w in [-2, 2] without
variation, 4,000 of them from bound to bound, and perfect converters. Properties:

* ``states``: steps from bound to bound;
* ``slope``: LinearStep, up and down steps 1 -+ slope w / 2 (1: soft bounds);
* ``asymmetry``: a down step weaker than the up step by this part (``up_down``), everywhere;
* ``variation``: device-to-device spread of the step, relative;
* ``cycle_noise``: noise of every pulse, relative to its step;
* ``read_noise``: output noise of both read directions, in units of the largest input.

The threshold is the value at which accuracy has dropped ``allowed`` points below the baseline.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from ..devices import Device, LinearStep
from ..io import IOConfig, ReadConfig
from ..nn import to_analog
from . import digits
from .draw import new_figure
from .engine import Experiment, Row, Rows, Summary
from .report import table
from .rows import by_seed, mean, number, select
from .statistics import Interval, Verdict, crossing, every, interval

WIDTHS = (64, 36, 10)
BOUND = 2.0
STATES = 4000

BASELINE = {
    "states": float(STATES),
    "slope": 0.0,
    "asymmetry": 0.0,
    "variation": 0.0,
    "cycle_noise": 0.0,
    "read_noise": 0.0,
}
SWEEPS: dict[str, tuple[float, ...]] = {
    "states": (1000.0, 700.0, 400.0, 120.0, 30.0),
    "slope": (0.3, 0.6, 1.0, 1.7, 3.0),
    "asymmetry": (0.02, 0.05, 0.1, 0.3, 0.7),
    "variation": (0.3, 0.6, 1.0, 1.5, 2.0),
    "cycle_noise": (1.0, 2.0, 5.0, 10.0, 20.0),
    "read_noise": (0.05, 0.1, 0.2, 0.5, 1.0),
}
SCHEDULES = {"sequential": 1, "async": 2}


def crossbar(name: str, value: float) -> tuple[Device, IOConfig]:
    """The baseline with one property set."""
    device = LinearStep(
        w_max=BOUND,
        w_min=-BOUND,
        dw_min=2 * BOUND / STATES,
        dw_min_dtod=0.0,
        dw_min_std=0.0,
        up_down_dtod=0.0,
        w_max_dtod=0.0,
        w_min_dtod=0.0,
        gamma_up_dtod=0.0,
        gamma_down_dtod=0.0,
    )
    io = IOConfig.perfect()
    if name == "states":
        device = replace(device, dw_min=2 * BOUND / value)
    elif name == "slope":
        device = replace(device, gamma_up=value, gamma_down=value)
    elif name == "asymmetry":
        device = replace(device, up_down=value)
    elif name == "variation":
        device = replace(device, dw_min_dtod=value)
    elif name == "cycle_noise":
        device = replace(device, dw_min_std=value)
    else:
        noisy = replace(ReadConfig.perfect(), out_noise=value, noise_management="abs_max")
        io = IOConfig(noisy, noisy)
    return device, io


@dataclass(frozen=True)
class Devices:
    """``a``: step per sample, ``batch``: samples per micro-batch; ``allowed``: points.

    ``every``: 2 takes every other value of the sweeps.
    """

    a: float = 0.01
    batch: int = 4
    epochs: int = 20
    allowed: float = 3.0
    every: int = 1

    name = "devices"
    title = "Device requirements: thresholds of a crossbar's imperfections"
    seeded = True

    def quick(self) -> Devices:
        """Fewer epochs and values, larger micro-batches."""
        return replace(self, epochs=5, batch=8, every=2)

    @property
    def source(self) -> Experiment:
        return self

    def sweeps(self) -> dict[str, tuple[float, ...]]:
        """The values of each property."""
        return {name: values[:: self.every] for name, values in SWEEPS.items()}

    def steps(self) -> int:
        return len(SCHEDULES) * (1 + sum(map(len, self.sweeps().values())))

    def run(self, seed: int) -> Iterator[Row]:
        data = digits.load()
        yield from self._rows(data, seed, "baseline", "states", BASELINE["states"])
        for name, values in self.sweeps().items():
            for value in values:
                yield from self._rows(data, seed, name, name, value)

    def _rows(
        self, data: digits.Digits, seed: int, label: str, name: str, value: float
    ) -> Iterator[Row]:
        device, io = crossbar(name, value)
        lr = self.a * self.batch
        for schedule, stages in SCHEDULES.items():
            model = to_analog(digits.mlp(seed, WIDTHS), device, io, seed=seed)
            pipe = digits.pipeline(
                model, stages, lr, schedule=schedule, micro_batch_size=self.batch
            )
            run = digits.train(pipe, data, self.epochs, lr=lr, decay=1.0, seed=seed)
            yield {
                "property": label,
                "value": value,
                "schedule": schedule,
                "accuracy": run.accuracy,
                "loss": run.epochs[-1].loss,
            }

    def _drop(self, rows: Rows, name: str, value: float, schedule: str) -> Interval:
        """Points of accuracy below the baseline of the same seed and schedule."""
        found = []
        for one in by_seed(select(rows, schedule=schedule)):
            (base,) = select(one, property="baseline")
            (mine,) = select(one, property=name, value=value)
            found.append(number(base, "accuracy") - number(mine, "accuracy"))
        return interval(found)

    def _gap(self, rows: Rows, name: str, value: float) -> Interval:
        """Points by which asynchronous training is worse than sequential."""
        found = []
        for one in by_seed(select(rows, property=name, value=value)):
            plain, stale = (mean(select(one, schedule=s), "accuracy") for s in SCHEDULES)
            found.append(plain - stale)
        return interval(found)

    def _threshold(self, rows: Rows, name: str, schedule: str) -> str:
        """Value at which the mean drop reaches ``allowed``, linear between the values."""
        values = [BASELINE[name], *self.sweeps()[name]]
        drops = [0.0, *(self._drop(rows, name, v, schedule).mean for v in self.sweeps()[name])]
        found = crossing(values, [-drop for drop in drops], -self.allowed)
        last = self.sweeps()[name][-1]
        if found is None:
            return f"{'below' if last < values[0] else 'above'} {last:g}"
        return f"{found:.3g}"

    def summarise(self, rows: Rows) -> Summary:
        base = {s: select(rows, property="baseline", schedule=s) for s in SCHEDULES}
        cells = [
            [name, f"{value:g}", *(self._drop(rows, name, value, s) for s in SCHEDULES)]
            for name, values in self.sweeps().items()
            for value in values
        ]
        thresholds = [
            [name, *(self._threshold(rows, name, s) for s in SCHEDULES)] for name in SWEEPS
        ]
        means = ", ".join(f"{s} {mean(one, 'accuracy'):.1f} %" for s, one in base.items())
        text = "\n\n".join(
            [
                f"Test accuracy of the baseline: {means} (mean of the last three epochs).",
                f"Threshold of each property, at which {self.allowed:g} points are lost:",
                table(["property", *SCHEDULES], thresholds),
                "Points of accuracy lost:",
                table(["property", "value", *SCHEDULES], cells),
                "Tiki-Taka, which relaxes the demand on symmetry, is not part of this version.",
            ]
        )
        return Summary(text, self._verdicts(rows))

    def _verdicts(self, rows: Rows) -> list[Verdict]:
        lost = {name: self._drop(rows, name, value, "async") for name, value in ENOUGH.items()}
        felt = {name: self._drop(rows, name, value, "async") for name, value in TOO_MUCH.items()}
        gaps = [self._gap(rows, name, value) for name, value in ENOUGH.items()]
        points = self.allowed
        return [
            Verdict(
                "enough",
                f"each of these costs asynchronous training less than {points:g} points: "
                + _listed(ENOUGH),
                every(one.within(-100.0, points) for one in lost.values()),
                ", ".join(f"{name} {one}" for name, one in lost.items()),
            ),
            Verdict(
                "too_much",
                f"each of these costs it more: {_listed(TOO_MUCH)}",
                every(one.within(points, 100.0) for one in felt.values()),
                ", ".join(f"{name} {one}" for name, one in felt.items()),
            ),
            Verdict(
                "same",
                f"asynchronous training asks for no better devices: within {points:g} points of "
                "sequential training at the first list",
                every(gap.within(-points, points) for gap in gaps),
                f"differences {min(g.mean for g in gaps):.2f} to {max(g.mean for g in gaps):.2f}",
            ),
        ]

    def figure(self, rows: Rows) -> Any:
        figure, axes = new_figure(
            "What a crossbar may do wrong before accuracy notices", panels=len(SWEEPS) // 2, rows=2
        )
        for one, (name, values) in zip(axes, self.sweeps().items(), strict=True):
            for schedule, style in zip(SCHEDULES, ("o--", "x-"), strict=True):
                mine = select(rows, schedule=schedule)
                base = mean(select(mine, property="baseline"), "accuracy")
                means = [
                    mean(select(mine, property=name, value=value), "accuracy") for value in values
                ]
                one.plot(range(len(values) + 1), [base, *means], style, label=schedule)
            one.axhline(base - self.allowed, color="0.6", linewidth=1, linestyle=":")
            one.set_xticks(range(len(values) + 1), [f"{v:g}" for v in (BASELINE[name], *values)])
            one.set_xlabel(UNITS[name])
            one.set_ylabel("test accuracy (%)")
        axes[0].legend()
        return figure


# What the claims name: values that still do, values that no longer do.
ENOUGH = {
    "states": 400.0,
    "slope": 1.0,
    "asymmetry": 0.1,
    "variation": 1.0,
    "cycle_noise": 5.0,
    "read_noise": 0.2,
}
TOO_MUCH = {"slope": 3.0, "cycle_noise": 20.0, "read_noise": 1.0}
UNITS = {
    "states": "states (steps from bound to bound)",
    "slope": "slope (1: soft bounds)",
    "asymmetry": "asymmetry (part of the down step lost)",
    "variation": "device-to-device spread of the step",
    "cycle_noise": "cycle noise (in steps)",
    "read_noise": "read noise (in units of the largest input)",
}


def _listed(values: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:g}" for name, value in values.items())

"""``devices``: how good a crossbar must be before training notices, stale or not.

The digits on the 8-layer network of ``deep.py``, one property of the crossbar at a time made
worse, sequential and asynchronous (M = 8) training. The baseline has symmetric constant steps in
w in [-1, 1] without variation, 4,000 of them from bound to bound, and perfect converters.
Properties:

* ``states``: steps from bound to bound;
* ``slope``: LinearStep, up and down steps 1 -+ slope w (1: soft bounds);
* ``asymmetry``: a down step weaker than the up step by this part (``up_down``), everywhere;
* ``imbalance``: device-to-device spread of that asymmetry, with mean 0;
* ``cycle_noise``: noise of every pulse, relative to its step;
* ``read_noise``: output noise of both read directions, in units of the largest input.

A spread of the step alone (``dw_min_dtod``), which up and down share, only scales learning rates:
200 % of it cost nothing, so it is not among them.

Test accuracy is a mean over the tests of the second half of a run, by seed less that of the
baseline or of the other schedule.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from ..configs import IOConfig, ReadConfig
from ..data import DataSet, load_digits
from ..devices import Device, LinearStep
from ..schedules import asynchronous, sequential
from . import deep
from .draw import bars, new_figure
from .engine import Seeds, Settings, Summary
from .mutants import Mutant, Row, Rows, plus
from .report import table
from .rows import column, mean, select
from .statistics import Cell, Verdict, crossing, decide, interval

__all__ = ["BASELINE", "BOUND", "SCHEDULES", "STATES", "SWEEPS", "UNITS", "Devices", "crossbar"]

BOUND = 1.0
STATES = 4000

BASELINE = {
    "states": float(STATES),
    "slope": 0.0,
    "asymmetry": 0.0,
    "imbalance": 0.0,
    "cycle_noise": 0.0,
    "read_noise": 0.0,
}
# The first values still do, the last no longer do.
SWEEPS: dict[str, tuple[float, ...]] = {
    "states": (1000.0, 200.0, 30.0),
    "slope": (0.3, 1.0, 3.0),
    "asymmetry": (0.02, 0.1, 0.5),
    "imbalance": (0.05, 0.2, 0.8),
    "cycle_noise": (1.0, 5.0, 25.0),
    "read_noise": (0.02, 0.1, 0.5),
}
SCHEDULES = {"sequential": 1, "async": 8}
UNITS = {
    "states": "states (steps from bound to bound)",
    "slope": "slope (1: soft bounds)",
    "asymmetry": "asymmetry (part of the down step lost)",
    "imbalance": "device-to-device spread of the asymmetry",
    "cycle_noise": "cycle noise (in steps)",
    "read_noise": "read noise (in units of the largest input)",
}


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
    elif name == "imbalance":
        device = replace(device, up_down_dtod=value)
    elif name == "cycle_noise":
        device = replace(device, dw_min_std=value)
    else:
        noisy = replace(ReadConfig.perfect(), out_noise=value, noise_management="abs_max")
        io = IOConfig(noisy, noisy)
    return device, io


@dataclass(frozen=True)
class Devices(Settings):
    """``a``: step per sample, ``batch``: samples per micro-batch; ``allowed``: points.

    ``same``: largest difference of the schedules, points. ``every``: 2 takes every other value.
    """

    seeds: Seeds = 6
    a: float = 0.001
    batch: int = 8
    epochs: int = 3
    per_epoch: int = 8
    allowed: float = 3.0
    same: float = 2.0
    every: int = 1

    name: ClassVar[str] = "devices"
    title: ClassVar[str] = "What a crossbar may do wrong, on one stage and on eight"

    def quick(self) -> Devices:
        """Three seeds, fewer epochs and values."""
        return replace(self, seeds=3, a=0.002, epochs=1, every=2)

    def sweeps(self) -> dict[str, tuple[float, ...]]:
        """The values of each property."""
        return {name: values[:: self.every] for name, values in SWEEPS.items()}

    def steps(self) -> int:
        return len(SCHEDULES) * (1 + sum(map(len, self.sweeps().values())))

    def run(self, seeds: Sequence[int]) -> Iterator[Row]:
        data = load_digits()
        for seed in seeds:
            yield from self._rows(data, seed, "baseline", "states", BASELINE["states"])
            for name, values in self.sweeps().items():
                for value in values:
                    yield from self._rows(data, seed, name, name, value)

    def _rows(self, data: DataSet, seed: int, label: str, name: str, value: float) -> Iterator[Row]:
        device, io = crossbar(name, value)
        for schedule, stages in SCHEDULES.items():
            plan = sequential() if stages == 1 else asynchronous()
            model = deep.network(seed, device, io)
            pipe = deep.pipeline(model, stages, self.a, self.batch, plan)
            points = list(deep.train(pipe, data, seed, self.epochs, self.per_epoch))
            last = points[len(points) // 2 :]
            yield {
                "seed": seed,
                "property": label,
                "value": value,
                "schedule": schedule,
                "accuracy": sum(point.accuracy for point in last) / len(last),
                "loss": sum(point.loss for point in last) / len(last),
            }

    def _drop(self, rows: Rows, name: str, value: float, schedule: str) -> list[float]:
        """Points of accuracy below the baseline, by seed."""
        mine = select(rows, schedule=schedule)
        base = column(select(mine, property="baseline"), "accuracy")
        worse = column(select(mine, property=name, value=value), "accuracy")
        return [b - w for b, w in zip(base, worse, strict=True)]

    def _gap(self, rows: Rows, name: str, value: float) -> list[float]:
        """Points by which asynchronous training is worse than sequential, by seed."""
        mine = select(rows, property=name, value=value)
        pair = (column(select(mine, schedule=s), "accuracy") for s in SCHEDULES)
        return [plain - stale for plain, stale in zip(*pair, strict=True)]

    def _threshold(self, rows: Rows, name: str, schedule: str) -> str:
        """Value at which the mean drop reaches ``allowed``, linear between the values."""
        values = [BASELINE[name], *self.sweeps()[name]]
        drops = [self._drop(rows, name, v, schedule) for v in self.sweeps()[name]]
        means = [0.0, *(sum(one) / len(one) for one in drops)]
        found = crossing(values, [-drop for drop in means], -self.allowed)
        last = self.sweeps()[name][-1]
        if found is None:
            return f"{'below' if last < values[0] else 'above'} {last:g}"
        return f"{found:.3g}"

    def summarise(self, rows: Rows) -> Summary:
        base = {s: select(rows, property="baseline", schedule=s) for s in SCHEDULES}
        cells = [
            [
                name,
                f"{value:g}",
                *(interval(self._drop(rows, name, value, s)) for s in SCHEDULES),
                interval(self._gap(rows, name, value)),
            ]
            for name, values in self.sweeps().items()
            for value in values
        ]
        thresholds = [
            [name, *(self._threshold(rows, name, s) for s in SCHEDULES)] for name in SWEEPS
        ]
        means = ", ".join(f"{s} {interval(column(one, 'accuracy'))} %" for s, one in base.items())
        gap = interval(self._gap(rows, "baseline", BASELINE["states"]))
        text = "\n\n".join(
            [
                f"Test accuracy of the baseline: {means}; asynchronous worse by {gap} points "
                f"(a (M-1) b = {self.a * (SCHEDULES['async'] - 1) * self.batch:.3g}).",
                f"Threshold of each property, at which {self.allowed:g} points are lost:",
                table(["property", *SCHEDULES], thresholds),
                "Points of accuracy lost against the baseline of the same schedule, and points "
                "that asynchronous training lies below sequential:",
                table(["property", "value", *SCHEDULES, "sequential - async"], cells),
            ]
        )
        return Summary(text, self._verdicts(rows))

    def _first(self) -> dict[str, float]:
        return {name: values[0] for name, values in self.sweeps().items()}

    def _last(self) -> dict[str, float]:
        return {name: values[-1] for name, values in self.sweeps().items()}

    def _verdicts(self, rows: Rows) -> list[Verdict]:
        def lost(values: dict[str, float]) -> list[Cell]:
            return [
                Cell(f"{name} {value:g}", self._drop(rows, name, value, "async"))
                for name, value in values.items()
            ]

        first, last = self._first(), self._last()
        base = self._gap(rows, "baseline", BASELINE["states"])
        more = [
            Cell(
                f"{name} {value:g}",
                [g - b for g, b in zip(self._gap(rows, name, value), base, strict=True)],
            )
            for name, value in first.items()
        ]
        points = self.allowed
        return [
            decide(
                "enough",
                f"each of these costs asynchronous training less than {points:g} points: "
                + _listed(first),
                lost(first),
                high=points,
            ),
            decide(
                "too_much",
                f"each of these costs it more: {_listed(last)}",
                lost(last),
                points,
            ),
            decide(
                "same",
                "asynchronous training asks for no better devices: at the first list it loses at "
                f"most {self.same:g} points more than sequential training does",
                more,
                high=self.same,
            ),
        ]

    def mutants(self) -> Sequence[Mutant]:
        def stale(name: str, values: dict[str, float]) -> dict[str, Any]:
            return {"property": name, "value": values[name], "schedule": "async"}

        first, last = self._first(), self._last()
        by = 2 * self.same
        return (
            Mutant(
                "enough", "slope costs 6 points", plus("accuracy", -6.0, **stale("slope", first))
            ),
            Mutant(
                "too_much", "slope costs nothing", plus("accuracy", 90.0, **stale("slope", last))
            ),
            Mutant(
                "same",
                f"asynchronous accuracy - {by:g} points at one property",
                plus("accuracy", -by, **stale("imbalance", first)),
            ),
        )

    def figure(self, rows: Rows) -> Any:
        figure, axes = new_figure("What a crossbar may do wrong", len(SWEEPS) // 2, 2)
        for one, (name, values) in zip(axes, self.sweeps().items(), strict=True):
            for schedule, style in zip(SCHEDULES, ("o--", "x-"), strict=True):
                mine = select(rows, schedule=schedule)
                base = select(mine, property="baseline")
                each = [base, *(select(mine, property=name, value=v) for v in values)]
                found = [interval(column(cell, "accuracy")) for cell in each]
                label = f"{schedule}, M = {SCHEDULES[schedule]}"
                bars(one, list(range(len(found))), found, style, label=label)
            level = mean(base, "accuracy") - self.allowed
            one.axhline(level, color="0.6", linewidth=1, linestyle=":")
            one.set_xticks(range(len(values) + 1), [f"{v:g}" for v in (BASELINE[name], *values)])
            one.set_xlabel(UNITS[name])
            one.set_ylabel("test accuracy (%)")
        axes[0].legend()
        return figure


def _listed(values: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:g}" for name, value in values.items())

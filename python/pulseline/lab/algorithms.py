"""``algorithms``: which algorithm survives which device.

The digits on 64-36-10, for devices of 20 to 1200 states whose symmetry points were subtracted with
an error, the offset (standard deviation, in units of the bounds; on the array that takes the
gradient), and for the default device; rates of ``tuned.py``. And a 32 x 32 matrix programmed by
gradients, at 20 states (``target.py``). Beside them the same with an error in the algorithm
(``broken.py``), and a plain array of constant steps: what the verdicts must notice.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from ..configs import Crossbar, UpdateConfig
from ..data import DataSet, load_digits
from ..devices import ConstantStep, PulsedDevice, SoftBounds
from ..errors import ConfigError
from . import claims_of_algorithms as claims
from .broken import broken
from .draw import bars, new_figure
from .engine import Seeds, Settings, Summary
from .mutants import Mutant, Row, Rows, Value
from .nets import Course, accuracy
from .report import table
from .rows import column, select
from .statistics import interval
from .target import PROGRAMMERS, error
from .tuned import NAMES, STATES, Tuned, crossbar_of, states, tuned

__all__ = ["Algorithms"]

_CONSTANT = ConstantStep(  # what plain pulses need: no asymmetry, no spread
    dw_min=2 / 1200,
    w_max=1.0,
    w_min=-1.0,
    dw_min_dtod=0.0,
    dw_min_std=0.0,
    up_down_dtod=0.0,
    w_max_dtod=0.0,
    w_min_dtod=0.0,
)


@dataclass(frozen=True)
class Algorithms(Settings):
    """``rates``: of SGD, each tried. ``samples``: of a programming, ``size``: of its matrix.

    ``batch``: samples of a micro-batch in both; ``images``: to train with.

    Raises:
        ConfigError: a number is negative or not finite, or there are no rates for so many states.
    """

    seeds: Seeds = 5
    states: tuple[int, ...] = (20, 50, 100, 1200)
    offsets: tuple[float, ...] = (0.0, 0.1, 0.25, 0.5)
    rates: tuple[float, ...] = (0.001, 0.002, 0.005, 0.01, 0.02)
    epochs: int = 20
    images: int = 1437
    batch: int = 16
    samples: int = 20_000
    size: int = 32

    name: ClassVar[str] = "algorithms"
    title: ClassVar[str] = "Which algorithm survives which device"

    def __post_init__(self) -> None:
        super().__post_init__()
        for count in self.states:
            if count not in STATES:
                raise ConfigError(
                    f"states holds {count}; use some of {', '.join(map(str, STATES))}"
                )

    def quick(self) -> Algorithms:
        """Two seeds, one number of states, three offsets, one epoch of some images."""
        return replace(
            self,
            seeds=2,
            states=self.states[:1],
            offsets=(0.0, 0.25, 0.5),
            rates=self.rates[1:4:2],
            epochs=1,
            images=320,
            samples=320,
        )

    def devices(self) -> list[tuple[str, float]]:
        """(states, offset) of the table, and the default device."""
        grid = [(str(count), offset) for count in self.states for offset in self.offsets]
        return [*grid, ("default", 0.0)]

    def steps(self) -> int:
        each = len(NAMES) - 1 + len(self.rates)
        programmed = (len(PROGRAMMERS) + 2) * len(self.offsets)
        return len(self.devices()) * each + sum(1 for _ in self._controls()) + programmed

    def run(self, seeds: Sequence[int]) -> Iterator[Row]:
        data = load_digits(self.images)
        for seed in seeds:
            for device, offset in self.devices():
                for name, one in tuned(device).items():
                    for each in self._at_rates(one):
                        yield self._trained(data, seed, device, offset, name, each)
            for device, offset, name, one in self._controls():
                yield self._trained(data, seed, device, offset, name, one)
            for offset in self.offsets:
                for name, one in self._programmers():
                    yield self._programmed(seed, offset, name, one)

    def _at_rates(self, one: Tuned) -> list[Tuned]:
        return [one] if one.rule else [one._replace(lr=lr) for lr in self.rates]

    def _controls(self) -> Iterator[tuple[str, float, str, Tuned]]:
        """What stands beside the table: errors, constant steps, no crossbar at all."""
        default = tuned("default")
        yield "default", 0.0, "digital", Tuned(None, 0.05)
        for name in ("TTv2", "mixed"):
            yield ("default", 0.0, *broken(name, default[name]))
        for place in (("default", 0.0), (str(self.states[0]), self.offsets[-1])):
            for each in self._at_rates(default["SGD"]):
                yield *place, "SGD, constant steps", each
        for count in self.states:
            for name in ("AGAD", "E-RIDER"):
                yield str(count), self.offsets[-1], *broken(name, tuned(str(count))[name])
        for count in self.states[:1]:
            one = tuned(str(count))
            yield str(count), self.offsets[-1], *broken("c-TTv2", one["c-TTv2"])

    @staticmethod
    def _programmers() -> Iterator[tuple[str, Tuned]]:
        for name, one in PROGRAMMERS.items():
            yield name, one
            if name in ("AGAD", "c-TTv2"):
                yield broken(name, one)

    def _trained(
        self, data: DataSet, seed: int, device: str, offset: float, name: str, one: Tuned
    ) -> Row:
        course = Course(batch=self.batch, epochs=self.epochs)
        found = accuracy(_crossbar(device, offset, name, one), one.lr, course, data, seed)
        row = _row(seed, "accuracy", device, offset, name)
        return {**row, "lr": one.lr, "accuracy": found, "error": None}

    def _programmed(self, seed: int, offset: float, name: str, one: Tuned) -> Row:
        crossbar = _crossbar("20", offset, name, one)
        found = error(one, crossbar, self.size, self.samples, self.batch, seed)  # type: ignore[arg-type]
        row = _row(seed, "programming", "20", offset, name)
        return {**row, "lr": one.lr, "accuracy": None, "error": found}

    # ---- what they say ----

    def best(self, rows: Rows, device: str, offset: float, name: str) -> list[float]:
        """Accuracy by seed, at the rate whose mean is best."""
        where: dict[str, Value] = {"device": claims.label(device), "offset": offset}
        mine = select(rows, part="accuracy", algorithm=name, **where)
        rates = sorted({row["lr"] for row in mine})  # type: ignore[type-var]
        found = [column(select(mine, lr=lr), "accuracy") for lr in rates]
        return max(found, key=sum, default=[])

    def summarise(self, rows: Rows) -> Summary:
        digital = interval(self.best(rows, "default", 0.0, "digital"))
        parts = [
            f"Test accuracy (%), mean of the last three of {self.epochs} epochs, micro-batches of "
            f"{self.batch}, by states and offset; digital: {digital}. SGD: at its best rate of "
            f"{', '.join(f'{lr:g}' for lr in self.rates)}.",
        ]
        for count in self.states:
            trained = [
                [name, *(interval(self.best(rows, str(count), o, name)) for o in self.offsets)]
                for name in NAMES
            ]
            head = [f"{count} states", *(f"offset {o:g}" for o in self.offsets)]
            parts.append(table(head, trained))
        trained = [[name, interval(self.best(rows, "default", 0.0, name))] for name in NAMES]
        parts.append(table(["default device", "accuracy"], trained))
        parts.append(
            f"Standard deviation of W - T, a {self.size} x {self.size} matrix programmed with "
            f"{self.samples:,} samples at 20 states:"
        )
        programmed = select(rows, part="programming")
        cells: list[list[object]] = []
        for name, _ in self._programmers():
            mine = [select(programmed, algorithm=name, offset=o) for o in self.offsets]
            cells.append([name, *(interval(column(one, "error")) for one in mine)])
        parts.append(table(["", *(f"offset {o:g}" for o in self.offsets)], cells))
        parts.append("With an error in the algorithm, or without one in the device (accuracy, %):")
        names = {(d, o, name) for d, o, name, _ in self._controls()}
        parts.append(
            table(
                ["device", "offset", "algorithm", "accuracy"],
                [[*key, interval(self.best(rows, *key))] for key in sorted(names)],
            )
        )
        return Summary("\n\n".join(parts), claims.verdicts(self, rows))

    def mutants(self) -> Sequence[Mutant]:
        return claims.mutants(self)

    def figure(self, rows: Rows) -> Any:
        figure, axes = new_figure("Accuracy over the offset of the reference", len(self.states))
        for axis, count in zip(axes, self.states, strict=True):
            for n, name in enumerate(NAMES):
                found = [interval(self.best(rows, str(count), o, name)) for o in self.offsets]
                style = f"C{n}{'o-' if name in ('AGAD', 'E-RIDER', 'mixed') else 'x--'}"
                bars(axis, list(self.offsets), found, style, label=name)
            axis.set_title(f"{count} states")
            axis.set_xlabel("offset, in units of the bounds")
            axis.set_ylabel("test accuracy (%)")
        axes[0].legend(fontsize=7)
        return figure


def _row(seed: int, part: str, device: str, offset: float, name: str) -> dict[str, Value]:
    where: dict[str, Value] = {"device": claims.label(device), "offset": offset}
    return {"seed": seed, "part": part, **where, "algorithm": name}


def _crossbar(device: str, offset: float, name: str, one: Tuned) -> Crossbar | None:
    """Of an algorithm on a device; the offset is that of the array that takes the gradient."""
    if name == "digital":
        return None
    if name == "SGD, constant steps":
        return Crossbar(_CONSTANT, update=UpdateConfig(desired_bl=one.bl))
    if device == "default":
        return crossbar_of(one, SoftBounds())
    fast: PulsedDevice = states(int(device), offset)
    return crossbar_of(one, fast, states(int(device)))

"""What all rules have in common: a rule describes an algorithm and makes its cells."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, ClassVar

from torch import Tensor

from ..cells import Cell
from ..configs import Crossbar, ReadConfig
from ..devices import PulsedDevice
from ..errors import ConfigError, require
from ..identity import Identity

__all__ = ["Periodic", "Rule", "plain", "refuse_unpulsed", "whole_pulses"]


def plain(value: Any) -> Any:
    """A setting as a state holds it: a number, a text, or such by name."""
    if is_dataclass(value):
        return {one.name: plain(getattr(value, one.name)) for one in fields(value)}
    return list(value) if isinstance(value, tuple) else value


@dataclass(frozen=True)
class Rule:
    """Base of all algorithms: a frozen description, which holds no array.

    Given as ``algorithm=`` of a :class:`pulseline.Crossbar` it is called once per matrix. The cell
    that it makes asks it what to do; all that changes is in the cell.
    """

    makes: ClassVar[type[Cell]]

    def __call__(self, rows: int, cols: int, crossbar: Crossbar, identity: Identity) -> Cell:
        """The cell of one matrix.

        Args:
            rows, cols: of the matrix. crossbar: its settings. identity: whose draws.
        """
        made: Any = getattr(self, "makes", None)
        if made is None:
            raise ConfigError(
                f"algorithm is {self.name}(), a base of rules that makes no cell; use a rule such "
                "as TikiTaka2(), or derive one from Transfer"
            )
        cell: Cell = made(rows, cols, crossbar, identity, self)
        return cell

    @property
    def name(self) -> str:
        """What a state calls it."""
        return type(self).__name__

    def settings(self) -> Mapping[str, Any]:
        """Its fields as plain values."""
        return {one.name: plain(getattr(self, one.name)) for one in fields(self)}

    # ---- checks of fields, one sentence each ----

    def _whole(self, *names: str, least: int = 1) -> None:
        for name in names:
            value = getattr(self, name)
            ok = isinstance(value, int) and not isinstance(value, bool) and value >= least
            require(ok, self, name, f"use a whole number >= {least}")

    def _positive(self, *names: str, zero: bool = False) -> None:
        for name in names:
            value = getattr(self, name)
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            ok = number and (0 if zero else 1e-30) <= value < 1e30
            require(ok, self, name, f"use a number {'>= 0' if zero else '> 0'}")

    def _probability(self, *names: str) -> None:
        for name in names:
            value = getattr(self, name)
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            require(number and 0 <= value <= 1, self, name, "use a probability, from 0 to 1")

    def _flags(self, *names: str) -> None:
        for name in names:
            require(isinstance(getattr(self, name), bool), self, name, "use True or False")

    def _one_of(self, name: str, known: tuple[str, ...]) -> None:
        require(getattr(self, name) in known, self, name, f"use one of {', '.join(known)}")

    def _read(self, name: str = "read") -> None:
        value = getattr(self, name)
        ok = value is None or (isinstance(value, ReadConfig) and value.ir_drop == "none")
        require(ok, self, name, "use a ReadConfig with ir_drop 'none', or None for the forward one")


def refuse_unpulsed(arrays: Iterable[Any], rule: Rule) -> None:
    """Refuse devices without pulses.

    Args:
        arrays: of the cell. rule: that counts them.

    Raises:
        ConfigError: one is Ideal.
    """
    for array in arrays:
        if not isinstance(array.device, PulsedDevice):
            raise ConfigError(
                f"device is {array.device.name}, which has no pulses for {rule.name} to count; "
                "use a pulsed one, ConstantStep without spreads for the plainest"
            )


def whole_pulses(rule: Rule, pulses: Any, read: Tensor) -> Tensor:
    """What a rule returned, as the slow array takes it.

    Args:
        rule: that was asked. pulses: its answer. read: (rows, columns) that it was asked about.

    Raises:
        ConfigError: it is no (rows, columns) tensor of numbers.
    """
    ok = isinstance(pulses, Tensor) and pulses.shape == read.shape and not pulses.is_complex()
    if not ok:
        what = f"a {tuple(pulses.shape)} tensor" if isinstance(pulses, Tensor) else repr(pulses)
        raise ConfigError(
            f"{rule.name}.transfer returned {what:.60}; return a {tuple(read.shape)} tensor of "
            "whole pulses, a row of z a row"
        )
    made: Tensor = pulses.to(read.dtype).contiguous()
    return made


@dataclass(frozen=True)
class Periodic(Rule):
    """Base of rules that move columns from a fast array on, one after the other.

    Attributes:
        every: samples, or steps of the optimizer with ``units="batches"``, from one transfer to the
            next.
        reads: columns of a transfer.
        lr_fast: rate of the fast array; with ``scale_fast`` times the optimizer's lr.
        lr_transfer: rate of the next array, times lr; without ``scale_transfer`` alone.
        gamma: weight of the fast array in forward and backward reads.
        units: "samples" or "batches".
        order: "sequential": sweeps start at column 0; "random": at one drawn for each.
        read: converters of transfer reads, without noise or bound management; None: those of the
            forward read.

    Raises:
        ConfigError: a value out of range.
    """

    every: int = 1
    reads: int = 1
    lr_fast: float = 0.05
    scale_fast: bool = False
    lr_transfer: float = 1.0
    scale_transfer: bool = True
    gamma: float = 0.0
    units: str = "samples"
    order: str = "sequential"
    read: ReadConfig | None = None

    def __post_init__(self) -> None:
        self._whole("every", "reads")
        self._positive("lr_fast", "lr_transfer", "gamma", zero=True)
        self._flags("scale_fast", "scale_transfer")
        self._one_of("units", ("samples", "batches"))
        self._one_of("order", ("sequential", "random"))
        self._read()

    def fast_rate(self, lr: float) -> float:
        """Rate of the fast array.

        Args:
            lr: of the optimizer; 0: nothing moves.
        """
        return self.lr_fast * (lr if self.scale_fast else bool(lr))

    def columns_read(self, step: float, every: int | None = None) -> float:
        """Columns that transfers read per sample, in the long run.

        Args:
            step: samples per step of the optimizer. every: samples or steps from one transfer to
                the next; None: the rule's.
        """
        period = every or self.every
        return self.reads / (period if self.units == "samples" else period * step)

    def slow_rate(self, lr: float) -> float:
        """What the next array moves by per unit that was read.

        Args:
            lr: of the optimizer.
        """
        return self.lr_transfer * (lr if self.scale_transfer else bool(lr))

"""Sweeps: the points of one direction in one cycle of one device, from rows in any order.

Where a column ``cycle`` says which rows belong together, or pulse numbers count on from sweep to
sweep, the order of rows does not matter. Where pulse numbers restart without that column, rows are
read in time: a sweep begins where the direction changes or the number falls back.
Rows of one sweep with one pulse number are repeated reads of one state.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ...errors import ConfigError
from . import text as table

__all__ = ["Floats", "Row", "Sweep", "read_rows", "read_sweeps"]

Floats = npt.NDArray[np.floating[Any]]

_WORDS = {
    True: "up ltp potentiation potentiate potentiating pot set increase inc positive pos +",
    False: "down ltd depression depress depressing dep reset decrease dec negative neg -",
}
_UP = {word: up for up, words in _WORDS.items() for word in words.split()}


class Row(NamedTuple):
    """One read. ``cycle`` is empty without such a column."""

    line: int
    device: str
    cycle: str
    up: bool
    pulse: float
    conductance: float


class Sweep(NamedTuple):
    """States that pulses of one direction went through.

    Attributes:
        device: its name.
        up: direction.
        line: first line in the file.
        pulses: numbers of pulses, ascending, each once.
        values: mean conductance that was read of each state.
        reads: how often each state was read.
        scatter: sum of squared differences of the reads of each state from their mean.
    """

    device: str
    up: bool
    line: int
    pulses: Floats
    values: Floats
    reads: Floats
    scatter: Floats


def read_sweeps(path: Path) -> list[Sweep]:
    """All sweeps of a file, in an order that the rows have no part in.

    Raises:
        ConfigError: the file cannot be understood; says the line and what to change.
    """
    devices: dict[str, list[Row]] = defaultdict(list)
    for row in read_rows(path):
        devices[row.device].append(row)
    sweeps = [_sweep(run) for rows in devices.values() for run in _runs(rows)]
    return sorted(sweeps, key=lambda s: (s.device, s.pulses[0], not s.up, tuple(s.values)))


def read_rows(path: Path) -> list[Row]:
    """Every read of a file, in its order.

    Raises:
        ConfigError: as for :func:`read_sweeps`.
    """
    text = table.load(path)
    head = table.find_head(path, text)
    places = head.places
    names: list[tuple[int, str, str, bool]] = []
    cells: list[tuple[int, str, str]] = []
    for line, record in table.records(path, text, head):
        fields = {role: record[place].strip() for role, place in places.items()}
        up = _direction(fields["direction"])
        if up is None:
            raise ConfigError(
                f"{path}, line {line}: direction is {fields['direction']!r}; use up or down (or "
                "LTP and LTD, potentiation and depression, set and reset, + and -)"
            )
        names.append((line, fields.get("device", ""), fields.get("cycle", ""), up))
        cells.append((line, fields["pulse"], fields["conductance"]))
    if not cells:
        raise ConfigError(f"{path} holds no measurement below its head line; add rows")
    numbers = table.points(path, head, cells)
    return [Row(*who, *what) for who, what in zip(names, numbers, strict=True)]


def _direction(word: str) -> bool | None:
    word = word.casefold().replace("\u2212", "-")
    try:
        number = float(word.replace(",", "."))
    except ValueError:
        return _UP.get(word)
    return None if number == 0 or number != number else number > 0


def _runs(rows: Sequence[Row]) -> Iterator[list[Row]]:
    """Rows of one device, parted into sweeps."""
    if any(row.cycle for row in rows):
        groups: dict[tuple[str, bool], list[Row]] = defaultdict(list)
        for row in rows:
            groups[row.cycle, row.up].append(row)
        yield from groups.values()
        return
    in_time, by_number = _cut(rows), _cut(_by_number(rows))
    ways = [in_time] if _long(in_time) and _in_time(in_time) else []
    ways += [by_number] if _long(by_number) else []
    if not ways:  # numbers restart with the direction
        ways = [[[r for r in rows if r.up is up] for up in (True, False)]]
    # where both will do, one may join what the other parts
    yield from (run for run in max(ways, key=len) if run)


def _pulse(row: Row) -> float:
    return row.pulse


def _by_number(rows: Sequence[Row]) -> list[Row]:
    """Rows by pulse; of those with one number, the direction of the row before comes first."""
    found: list[Row] = []
    for _, same in itertools.groupby(sorted(rows, key=_pulse), key=_pulse):
        before = found[-1].up if found else True
        found += sorted(same, key=lambda row: row.up is not before)
    return found


def _cut(rows: Sequence[Row]) -> list[list[Row]]:
    """Stretches of one direction in which the number of pulses does not fall."""
    runs: list[list[Row]] = []
    for row in rows:
        last = runs[-1][-1] if runs else None
        if last is None or last.up is not row.up or row.pulse < last.pulse:
            runs.append([])
        runs[-1].append(row)
    return runs


def _in_time(runs: Sequence[Sequence[Row]]) -> bool:
    """Whether every run begins where its direction does, or counts on from the run before."""
    starts = {
        up: min((run[0].pulse for run in runs if run[0].up is up), default=0.0)
        for up in (True, False)
    }
    end = float("inf")
    for run in runs:
        if run[0].pulse != starts[run[0].up] and run[0].pulse < end:
            return False
        end = run[-1].pulse
    return True


def _long(runs: Sequence[Sequence[Row]]) -> bool:
    """Whether half of the runs have three states or more: directions do not merely interleave."""
    return bool(np.median([len({row.pulse for row in run}) for run in runs]) >= 3)


def _sweep(run: Sequence[Row]) -> Sweep:
    run = sorted(run, key=lambda row: (row.pulse, row.conductance))
    numbers = np.array([r.pulse for r in run])
    pulses, place = np.unique(numbers, return_inverse=True)
    reads = np.bincount(place).astype(np.float64)
    g = np.array([r.conductance for r in run])
    values = np.bincount(place, g) / reads
    scatter = np.bincount(place, (g - values[place]) ** 2).astype(np.float64)
    line = min(r.line for r in run)
    return Sweep(run[0].device, run[0].up, line, pulses, values, reads, scatter)

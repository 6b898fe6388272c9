"""Text of a file of measurements: its encoding, separator, columns and decimal sign."""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from ...errors import ConfigError

__all__ = ["NAMES", "REQUIRED", "Head", "find_head", "load", "points", "records", "role"]

REQUIRED = ("direction", "pulse", "conductance")
# What columns are called, without case, spaces, signs and unit; a later group where no earlier is.
NAMES = {
    "device": (
        "device deviceid devicename devicenumber deviceno deviceindex dev devid cell cellid",
        "name",
    ),
    "cycle": ("cycle cycles cycleid cyclenumber cycleno cycleindex", "loop", "sweep", "run"),
    "direction": (
        "direction dir ltp ltpltd up updown set setreset pot potdep potentiation",
        "polarity sign",
        "type operation process",
    ),
    "pulse": (
        "pulse pulses pulseid pulsenumber pulseno pulsenr pulseindex pulsecount npulse npulses "
        "numberofpulses noofpulses",
        "n number",
    ),
    "conductance": ("conductance g gread cond meanconductance", "current i iread", "weight"),
}
_ROLES = {
    word: (role, group)
    for role, groups in NAMES.items()
    for group, words in enumerate(groups)
    for word in words.split()
}
_UNIT = re.compile(r"\(.*\)|\[.*\]|/.*|(?:[_ ]|\bin )[fpnuµμmk]?(?:s|siemens|a|amp|ampere)$")
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before utf-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_GROUPED = re.compile(r"[+-]?[1-9]\d{0,2}(,\d{3})+(\.\d*)?")  # 1,000 as an English thousand


class Head(NamedTuple):
    """The head line: its number, the separator, what each field is called, where each role is."""

    line: int
    separator: str
    fields: tuple[str, ...]
    places: dict[str, int]


def load(path: Path) -> str:
    """Text of a file in UTF-8, UTF-16, UTF-32 or Latin-1, lines ended by a line feed.

    Raises:
        ConfigError: the file cannot be read, or is no text.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror}); use another path") from None
    encoding = next((name for mark, name in _MARKS if data.startswith(mark)), None)
    if encoding is None and b"\0" in data[:200]:
        encoding = "utf-16-be" if data[:1] == b"\0" else "utf-16-le"
    try:
        text = data.decode(encoding or "utf-8")
    except UnicodeDecodeError:
        # what has no mark and is no UTF-8 has one byte a letter; only their units differ
        text = data.decode("latin-1") if encoding is None else "\0"
    if re.search(r"[\0-\x08\x0e-\x1f]", text):
        raise ConfigError(f"{path} is no text; export the table as CSV in UTF-8")
    return text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")


def role(name: str) -> tuple[str, int] | None:
    """What a column holds by its name: a key of NAMES and a group of its names, or None."""
    bare = _UNIT.sub("", name.strip().lstrip("#").strip().casefold())
    return _ROLES.get(re.sub(r"[\W_]", "", bare))


def find_head(path: Path, text: str) -> Head:
    """The first line with at least two known columns, under the separator that knows most.

    Args:
        path: the file, for messages.
        text: what it holds.

    Raises:
        ConfigError: there is none, a column is missing, or two columns are one role.
    """
    best, known, first = None, 1, ""
    for number, line in enumerate(text.split("\n")[:200], 1):
        first = first or line.strip()
        for separator in (",", ";", "\t", "|"):
            names = tuple(
                next(csv.reader([line[:9999]], delimiter=separator, skipinitialspace=True), ())
            )
            count = len({found[0] for found in map(role, names) if found})
            if count > known:
                best, known = (number, separator, names), count
        if best is not None:
            break
    if best is None:
        what = f"its first line is {first[:80]!r}" if first else "it is empty"
        raise ConfigError(
            f"{path} has no head line, {what}; begin with a line such as "
            "device,cycle,direction,pulse,conductance"
        )
    number, separator, names = best
    return Head(number, separator, names, _places(path, number, names))


def _places(path: Path, line: int, names: Sequence[str]) -> dict[str, int]:
    roles = [role(name) for name in names]
    places: dict[str, int] = {}
    for wanted in NAMES:
        groups = [found[1] for found in roles if found and found[0] == wanted]
        if not groups:
            continue
        first, *others = (n for n, found in enumerate(roles) if found == (wanted, min(groups)))
        if others:
            raise ConfigError(
                f"{path}, line {line}: columns {names[first]!r} and {names[others[0]]!r} both mean "
                f"{wanted}; rename the one that does not"
            )
        places[wanted] = first
    for needed in REQUIRED:
        if needed not in places:
            raise ConfigError(
                f"{path}, line {line}: no column {needed!r} among {', '.join(map(repr, names))}; "
                "use direction, pulse, conductance, and device and cycle if there are several"
            )
    return places


def records(path: Path, text: str, head: Head) -> Iterator[tuple[int, list[str]]]:
    """Number and fields of each line below the head; empty lines and ``#`` comments are left out.

    Args:
        path: the file, for messages.
        text: what it holds.
        head: its head line.

    Raises:
        ConfigError: a line has too few or too many fields, or a quote does not end.
    """
    body = text.split("\n", head.line)[head.line :]
    rows = csv.reader(
        io.StringIO("".join(body)), delimiter=head.separator, skipinitialspace=True, strict=True
    )
    width, start = len(head.fields), head.line + 1
    try:
        for row in rows:
            number, start = start, head.line + rows.line_num + 1
            while len(row) > width and not row[-1].strip():
                row.pop()
            if not any(field.strip() for field in row):
                continue
            if row[0].startswith("#") and len(row) != width:
                continue
            if len(row) != width:
                hint = " (a decimal comma needs another separator, or quotes)"
                raise ConfigError(
                    f"{path}, line {number}: {len(row)} fields under a head line of {width}; give "
                    f"one a column{hint if len(row) > width and head.separator == ',' else ''}"
                )
            yield number, row
    except csv.Error as error:
        raise ConfigError(f"{path}, line {start}: {error}; close the quote or remove it") from None


def points(
    path: Path, head: Head, cells: Sequence[tuple[int, str, str]]
) -> list[tuple[float, ...]]:
    """Pulse and conductance of each line as floats, whichever decimal sign the file has.

    Args:
        path: the file, for messages.
        head: its head line.
        cells: number of the line, pulse, conductance.

    Raises:
        ConfigError: a cell is empty, no number, or not finite, or the decimal sign is ambiguous.
    """
    sign = _decimal_sign(path, head, cells)
    found = []
    for line, *texts in cells:
        values = []
        for name, cell in zip(("pulse", "conductance"), texts, strict=True):
            plain = cell.replace("\u2212", "-").replace(",", "." if sign == "," else "")
            try:
                value = float(plain)
            except ValueError:
                what = repr(cell) if cell else "empty"
                raise ConfigError(f"{path}, line {line}: {name} is {what}; use a number") from None
            if not abs(value) < float("inf"):
                raise ConfigError(f"{path}, line {line}: {name} is {cell}; use a finite number")
            values.append(value)
        found.append(tuple(values))
    return found


def _decimal_sign(path: Path, head: Head, cells: Sequence[tuple[int, str, str]]) -> str:
    """``,`` or ``.``; with ``.`` a comma parts thousands."""
    commas = [(line, c, n == 0) for line, *two in cells for n, c in enumerate(two) if "," in c]
    if not commas:
        return "."
    dots = [(line, c) for line, *two in cells for c in two if "." in c]
    if all(_GROUPED.fullmatch(cell) for _, cell, _ in commas):
        if dots:
            return "."
        if head.separator == "," or any(pulse for _, _, pulse in commas):
            line, cell, _ = commas[0]
            raise ConfigError(
                f"{path}, line {line}: {cell} is a thousand or a decimal comma; leave thousands "
                "unparted, or use decimal points"
            )
    if dots:
        raise ConfigError(
            f"{path}, line {commas[0][0]}: {commas[0][1]} has a decimal comma and line "
            f"{dots[0][0]} a point, {dots[0][1]}; use one of them"
        )
    return ","

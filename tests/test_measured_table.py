"""Tables of measurements: every way of writing one is read as the same sweeps, or refused."""

from __future__ import annotations

import contextlib
import random
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pulseline import ConfigError
from pulseline.devices.measured import fit_measurements, from_measurements
from pulseline.devices.measured.sweeps import Sweep, read_sweeps

WORDS = [
    ("up", "down"),
    ("Up", "DOWN"),
    ("LTP", "LTD"),
    ("potentiation", "depression"),
    ("SET", "Reset"),
    ("+", "-"),
    ("+1", "\u22121"),
    ("1.2", "-0.9"),
]
NAMES = {
    "device": ["device", "Device ID", "cell", "DEV_ID"],
    "cycle": ["cycle", "Cycle #", "Cycle_number"],
    "direction": ["direction", "Polarity", "LTP/LTD", "DIR"],
    "pulse": ["pulse", "Pulse Number", "pulses", "N", "# pulses"],
    "conductance": ["conductance", "G (uS)", "Conductance [nS]", "G_µS", "I (A)", "G/μS"],
}


class Dialect(NamedTuple):
    separator: str
    comma: bool
    encoding: str
    newline: str
    names: tuple[str, ...]
    words: tuple[str, str]
    quote: bool
    preamble: str
    minus: str


@st.composite
def dialects(draw: st.DrawFn) -> Dialect:
    separator = draw(st.sampled_from([",", ";", "\t", "|"]))
    comma = draw(st.booleans())
    names = tuple(draw(st.sampled_from(NAMES[key])) for key in NAMES)
    encodings = ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"]
    words = draw(st.sampled_from(WORDS))
    if words[1] != "\u22121" and "μ" not in names[-1]:
        encodings.append("latin-1")
    if comma and words[0] == "1.2":
        words = ("1,2", "-0,9")
    return Dialect(
        separator,
        comma,
        draw(st.sampled_from(encodings)),
        draw(st.sampled_from(["\n", "\r\n", "\r"])),
        names,
        words,
        draw(st.booleans()) or (comma and separator == ","),
        draw(st.sampled_from(["", "# measured on a Tuesday\n", "sep={}\n", "\n"])),
        "-" if "latin-1" in encodings else "\u2212",
    )


class Layout(NamedTuple):
    """Which columns there are and how pulses are numbered."""

    devices: int
    cycles: int
    reads: int
    numbers: str  # on: counts on; cycle: restarts with a cycle; sweep: restarts with a sweep
    column: bool
    shuffle: bool


@st.composite
def layouts(draw: st.DrawFn) -> Layout:
    numbers = draw(st.sampled_from(["on", "cycle", "sweep"]))
    cycles = draw(st.integers(1, 3))
    column = draw(st.booleans())
    free = column or numbers == "on" or cycles == 1  # rows say by themselves where they belong
    return Layout(
        draw(st.integers(0, 2)),
        cycles,
        draw(st.integers(1, 3)),
        numbers,
        column,
        draw(st.booleans()) and free,
    )


POINTS = 5
Row = tuple[str, str, bool, int, float]  # device, cycle, up, pulse, conductance


def rows_of(layout: Layout, seed: int) -> tuple[list[Row], list[Sweep]]:
    """Rows in the order of time, and the sweeps that they are."""
    dice = random.Random(seed)
    rows, sweeps = [], []
    for device in [f"D{n}" for n in range(layout.devices)] or [""]:
        number = 0
        for cycle in range(layout.cycles):
            if layout.numbers == "cycle":
                number = 0
            for up in (True, False):
                if layout.numbers == "sweep":
                    number = 0
                states = []
                for k in range(POINTS):
                    number += k > 0
                    reads = [round(dice.uniform(-9, 9), 4) + 0.00001 for _ in range(layout.reads)]
                    rows += [(device, f"c{cycle}", up, number, g) for g in reads]
                    states.append((number, np.mean(reads)))
                pulses, values = np.array(states).T
                reads_of = np.full(POINTS, float(layout.reads))
                sweeps.append(Sweep(device, up, 0, pulses, values, reads_of, reads_of))
    if layout.shuffle:
        dice.shuffle(rows)
    return rows, sweeps


def text_of(dialect: Dialect, layout: Layout, rows: Sequence[Row]) -> bytes:
    def line(fields: Sequence[str]) -> str:
        keep = [f for f, n in zip(fields, range(5), strict=True) if shown[n]]
        return dialect.separator.join(f'"{f}"' if dialect.quote else f for f in keep) + "\n"

    shown = (layout.devices > 0, layout.column, True, True, True)
    text = dialect.preamble.format(dialect.separator) + line(dialect.names)
    for device, cycle, up, pulse, g in rows:
        number = f"{g:.5f}".replace("-", dialect.minus)
        number = number.replace(".", ",") if dialect.comma else number
        text += line((device, cycle, dialect.words[not up], str(pulse), number))
    return text.replace("\n", dialect.newline).encode(dialect.encoding)


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(dialects(), layouts(), st.integers(0, 2**32))
def test_what_is_written_is_read(
    tmp_path: Path, dialect: Dialect, layout: Layout, seed: int
) -> None:
    rows, sweeps = rows_of(layout, seed)
    path = tmp_path / "curves.csv"
    path.write_bytes(text_of(dialect, layout, rows))
    found = read_sweeps(path)
    assert len(found) == len(sweeps)

    def order(s: Sweep) -> tuple[str, float, bool, float]:
        return s.device, s.pulses[0], s.up, round(float(s.values[0]), 9)

    for mine, true in zip(sorted(found, key=order), sorted(sweeps, key=order), strict=True):
        assert (mine.device, mine.up) == (true.device, true.up)
        assert np.array_equal(mine.pulses, true.pulses)
        assert np.array_equal(mine.reads, true.reads)
        assert mine.values == pytest.approx(true.values, abs=1e-12)  # a mean of up to 3 reads


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda t: t.encode("utf-8", "ignore")))
def test_anything_else_is_read_or_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "curves.csv"
    for start in (b"", b"direction,pulse,conductance\n", b"direction;pulse;G\nup;0;1\n"):
        path.write_bytes(start + data)
        with contextlib.suppress(ConfigError):
            read_sweeps(path)


def test_grouped_by_direction(tmp_path: Path) -> None:
    """All up sweeps, then all down sweeps, numbers counting on: parted where they jump."""
    path = tmp_path / "curves.csv"
    lines = ["direction,pulse,G"]
    for way, starts in (("up", (0, 20)), ("down", (10, 30))):
        lines += [f"{way},{s + k},{k}" for s in starts for k in range(11)]
    path.write_text("\n".join(lines))
    sweeps = read_sweeps(path)
    assert [(s.up, s.pulses[0], len(s.pulses)) for s in sweeps] == [
        (True, 0, 11),
        (False, 10, 11),
        (True, 20, 11),
        (False, 30, 11),
    ]


HEAD = "device,direction,pulse,conductance"
BAD = {
    "empty": ("", "no head line, it is empty; begin with a line such as device,"),
    "no head": ("0.1,0.2\n0.3,0.4", "no head line, its first line is '0.1,0.2'"),
    "no column": ("device,direction,pulse\na,up,0", "line 1: no column 'conductance' among"),
    "resistance": ("direction,pulse,R (ohm)\nup,0,1", "no column 'conductance' among"),
    "twice": (
        "direction,pulse,G (uS),G (nS)\n",
        r"'G \(uS\)' and 'G \(nS\)' both mean conductance",
    ),
    "direction": (f"{HEAD}\na,left,0,1", "line 2: direction is 'left'; use up or down"),
    "no direction": (f"{HEAD}\na,0,0,1", "line 2: direction is '0'; use up or down"),
    "number": (f"{HEAD}\na,up,0,x", "line 2: conductance is 'x'; use a number"),
    "none": (f"{HEAD}\na,up,,1", "line 2: pulse is empty; use a number"),
    "infinite": (f"{HEAD}\na,up,0,inf", "line 2: conductance is inf; use a finite number"),
    "few": (f"{HEAD}\n\na,up,0", "line 3: 3 fields under a head line of 4; give one a column"),
    "many": (f"{HEAD}\na,up,0,1,5", "line 2: 5 fields .* decimal comma needs another separator"),
    "quote": (f'{HEAD}\na,up,0,1\n"a,up,1,2', "line 3: unexpected end of data; close the quote"),
    "rows": (f"{HEAD}\n", "holds no measurement below its head line"),
    "thousand": (f'{HEAD}\na,up,"1,000",2', "1,000 is a thousand or a decimal comma"),
    "mixed": ("dir;n;g\nup;0;1,5\nup;1;1.75", "line 2: 1,5 has a decimal comma and line 3 a point"),
    "binary": ("PK\x03\x04", "is no text; export the table as CSV"),
    "short": (f"{HEAD}\na,up,0,1\na,up,1,2", "'a' has fewer than 3 up points in a sweep"),
    "one way": (
        f"{HEAD}\na,up,0,1\na,up,1,2\na,up,2,3",
        "'a' has fewer than 3 down points in a sweep",
    ),
    "wrong way": (
        "dir,n,g\nup,0,3\nup,1,2\nup,2,1\ndown,0,3\ndown,1,2\ndown,2,1",
        r"line 2: the device does not move up \(from 3 to 1\); leave it out, or exchange",
    ),
    "constant": (
        "dir,n,g\nup,0,1\nup,1,1\nup,2,1\ndown,0,1\ndown,1,1\ndown,2,1",
        "does not move up",
    ),
}


@pytest.mark.parametrize(("text", "message"), BAD.values(), ids=BAD.keys())
def test_bad_measurements_are_refused(tmp_path: Path, text: str, message: str) -> None:
    """One sentence with file, line where there is one, what is wrong, and the remedy."""
    path = tmp_path / "curves.csv"
    path.write_bytes(text.encode())
    with pytest.raises(ConfigError, match=message) as refused:
        from_measurements(path)
    assert str(path) in str(refused.value)
    assert "\n" not in str(refused.value)
    assert ";" in re.sub(re.escape(str(path)), "", str(refused.value)) or "add" in str(
        refused.value
    )


def test_bad_arguments(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.csv cannot be read \(No such file"):
        fit_measurements(tmp_path / "none.csv")
    with pytest.raises(ConfigError, match="nodes is 17; use an integer from 2 to 16"):
        fit_measurements(tmp_path / "none.csv", nodes=17)

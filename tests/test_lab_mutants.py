"""Planted errors: they touch copies alone, and every verdict must turn by one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pulseline.lab.experiments import perform
from pulseline.lab.mutants import Mutant, Row, Rows, planted, plus, times
from test_lab import Counting


def test_mutants_touch_copies_only(tmp_path: Path) -> None:
    """Rows, files and verdicts are the same with and without mutants."""

    @dataclass(frozen=True)
    class Tame(Counting):
        def mutants(self) -> tuple[Mutant, ...]:
            return ()

    for experiment in (Counting(), Tame()):
        (report,) = perform([experiment], tmp_path / type(experiment).__name__)
        assert [verdict.holds for verdict in report.verdicts] == [True]
        assert [trial.planted.holds for trial in report.trials] == [False] * len(report.trials)
    files = [(tmp_path / name / "counting.csv").read_bytes() for name in ("Counting", "Tame")]
    assert files[0] == files[1]
    rows: Rows = [{"seed": 0, "n": 0, "value": 1.0}]
    bent = planted(rows, Counting().mutants()[0])
    assert (rows[0]["value"], bent[0]["value"]) == (1.0, 1e6 + 1.0)
    assert (
        "values + 1e6 | low | holds | DOES NOT HOLD"
        in (tmp_path / "Counting" / "counting.md").read_text()
    )


def test_an_error_must_turn_its_verdict(tmp_path: Path) -> None:
    """Away from "does not hold" too: larger values turn one that holds, smaller ones that."""

    @dataclass(frozen=True)
    class High(Counting):
        shift: float = 0.0

        def run(self, seeds: range) -> Iterator[Row]:
            for row in super().run(seeds):
                yield {**row, "value": float(row["value"] or 0) + self.shift}

        def mutants(self) -> tuple[Mutant, ...]:
            return (
                Mutant("low", "more", plus("value", 1e6)),
                Mutant("low", "less", plus("value", -1e6)),
            )

    for shift, blind in ((0.0, "less"), (1e5, "more")):
        (report,) = perform([High(shift=shift)], tmp_path / blind)
        assert [verdict.holds for verdict in report.verdicts] == [shift == 0.0]
        assert [trial.what for trial in report.blind] == [blind]


def test_bends_are_what_they_say() -> None:
    row: Row = {"method": "a", "x": 3.0, "y": None}
    times(("x", "y"), 2.0, 2.0, method="a")(row)
    assert row == {"method": "a", "x": 18.0, "y": None}
    times("x", 5.0, method="b")(row)
    plus("x", 1.0, method="b")(row)
    assert row["x"] == 18.0
    plus("x", 1.0)(row)
    assert row["x"] == 19.0

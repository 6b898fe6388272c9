"""From rows to files: CSV, figure and Markdown of one experiment, and the index page."""

from __future__ import annotations

import csv
import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from .. import __version__, ops
from .engine import Experiment, Summary
from .mutants import Rows, Value, planted
from .statistics import WORDS, Verdict

__all__ = [
    "FORMATS",
    "Report",
    "Trial",
    "machine",
    "page",
    "read",
    "table",
    "tried",
    "versions",
    "write",
    "write_index",
]

FORMATS = ("png", "pdf", "svg")  # of figures


class Trial(NamedTuple):
    """What a verdict says with an error planted in its rows."""

    verdict: str
    what: str
    planted: Verdict


class Report(NamedTuple):
    """What an experiment left: its verdicts, how they took planted errors, the files it wrote."""

    name: str
    title: str
    verdicts: list[Verdict]
    trials: list[Trial]
    paths: list[Path]

    @property
    def blind(self) -> list[Trial]:
        """Trials whose error did not turn its verdict, to "does not hold" or away from it."""
        fails = {verdict.name: verdict.holds is False for verdict in self.verdicts}
        return [one for one in self.trials if (one.planted.holds is False) == fails[one.verdict]]


def table(head: Sequence[object], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *([*row, *[""] * (len(head) - len(row))] for row in rows)]
    cells = [[str(cell).replace("|", "\\|") for cell in line] for line in lines]
    return "\n".join("| " + " | ".join(line) + " |" for line in cells)


def machine() -> dict[str, str]:
    """What the numbers depend on."""
    return {
        "processor": platform.processor() or platform.machine(),
        "cores": str(os.cpu_count()),
        "isa": str(ops.info()["isa"]),
        "pulseline": __version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "date": date.today().isoformat(),
    }


def versions() -> str:
    """The same in one line."""
    m = machine()
    return (
        f"pulseline {m['pulseline']}, torch {m['torch']}, numpy {m['numpy']}, "
        f"Python {m['python']}, kernels {m['isa']}, {m['date']}"
    )


def tried(experiment: Experiment, rows: Rows) -> list[Trial]:
    """Every mutant of the experiment, on copies of the rows."""
    found = []
    for mutant in experiment.mutants():
        verdicts = experiment.summarise(planted(rows, mutant)).verdicts
        (verdict,) = [one for one in verdicts if one.name == mutant.verdict]
        found.append(Trial(mutant.verdict, mutant.what, verdict))
    return found


def write(
    experiment: Experiment, rows: Rows, command: str, out: Path, picture: str = "png"
) -> Report:
    """NAME.csv, NAME.png (or another of FORMATS), NAME.md and NAME.machine.json in ``out``."""
    name = experiment.name
    paths = [out / f"{name}.{kind}" for kind in ("csv", picture, "md", "machine.json")]
    with paths[0].open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows({key: _number(value) for key, value in row.items()} for row in rows)
    experiment.figure(rows).savefig(paths[1], dpi=56)
    summary = experiment.summarise(rows)
    trials = tried(experiment, rows)
    paths[2].write_text(page(experiment, summary, trials, command, picture))
    facts = {**machine(), "seeds": experiment.source.seeds, "command": command}
    paths[3].write_text(json.dumps(facts, indent=1) + "\n")
    return Report(name, experiment.title, summary.verdicts, trials, paths)


def read(path: Path) -> Rows:
    """The rows of a NAME.csv: empty cells are None, what reads as a number is one."""
    with path.open(newline="") as file:
        return [{key: _value(text) for key, text in row.items()} for row in csv.DictReader(file)]


def _value(text: str) -> Value:
    if not text:
        return None
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text


def _number(value: object) -> object:
    return f"{value:.6g}" if isinstance(value, float) else value


def page(
    experiment: Experiment,
    summary: Summary,
    trials: Sequence[Trial],
    command: str,
    picture: str = "png",
) -> str:
    """The Markdown summary of one experiment."""
    name, seeds = experiment.name, experiment.source.seeds
    used = f"0 to {seeds - 1}" if isinstance(seeds, int) else ", ".join(map(str, seeds))
    used = used if seeds else "none needed"
    settings = ", ".join(f"{key} {_short(value)}" for key, value in _settings(experiment).items())
    before = {verdict.name: WORDS[verdict.holds] for verdict in summary.verdicts}
    power = table(
        ["planted error", "verdict", "without it", "with it"],
        [[t.what, t.verdict, before[t.verdict], WORDS[t.planted.holds]] for t in trials],
    )
    parts = [
        f"# {name}: {experiment.title}",
        "\n".join(f"- {verdict.name} {verdict}" for verdict in summary.verdicts),
        f"![{name}]({name}.{picture})",
        summary.text,
        "## What the verdicts would notice" if trials else "",
        f"Errors planted in copies of the rows:\n\n{power}" if trials else "",
        "Intervals are 95 % over seeds (Student's t). A verdict over several cells holds if each "
        "interval fits, and does not if one of level 1 - .05 / cells lies outside. "
        f"Rows: `{name}.csv`.",
        f"Settings: {settings}.",
        f"Seeds: {used}. {versions()}.",
        f"```\n{command}\n```\n",
    ]
    return "\n\n".join(part for part in parts if part)


def _settings(experiment: Experiment) -> dict[str, object]:
    settings: dict[str, object] = asdict(experiment.source)  # type: ignore[call-overload]
    settings.pop("seeds")
    return settings


def _short(value: object) -> str:
    if isinstance(value, (tuple, list)):
        return "/".join(_short(one) for one in value)
    if isinstance(value, dict):
        return "(" + ", ".join(f"{key} {_short(one)}" for key, one in value.items()) + ")"
    return f"{value:g}" if isinstance(value, float) else str(value)


def write_index(reports: Sequence[Report], command: str, out: Path, picture: str = "png") -> Path:
    """``index.md``: every claim with its verdict and with its planted errors, every figure."""
    claims = []
    for report in reports:
        for verdict in report.verdicts:
            words = [WORDS[t.planted.holds] for t in report.trials if t.verdict == verdict.name]
            link = f"[{report.name}]({report.name}.md)"
            cells = [verdict.claim, WORDS[verdict.holds], ", ".join(words) or "-"]
            claims.append([link, *cells])
    head = ["experiment", "claim", "verdict", "with an error planted"]
    parts = ["# The convergence lab", table(head, claims)]
    for report in reports:
        parts.append(f"## [{report.name}]({report.name}.md): {report.title}")
        parts.append(f"[![{report.name}]({report.name}.{picture})]({report.name}.md)")
    path = out / "index.md"
    path.write_text("\n\n".join([*parts, f"{versions()}.", f"```\n{command}\n```\n"]))
    return path

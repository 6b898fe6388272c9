"""From rows to files: CSV, figure and Markdown of one experiment, and the index page."""

from __future__ import annotations

import csv
import platform
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from .. import __version__, ops
from .engine import Experiment, Rows, Summary
from .statistics import Verdict


class Report(NamedTuple):
    """What an experiment left: its verdicts and the files it wrote."""

    name: str
    title: str
    verdicts: list[Verdict]
    paths: list[Path]


def table(head: Sequence[object], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def versions() -> str:
    """What the numbers depend on, in one line."""
    return (
        f"pulseline {__version__}, torch {torch.__version__}, numpy {np.__version__}, "
        f"Python {platform.python_version()}, kernels {ops.info()['isa']}"
    )


def write(experiment: Experiment, rows: Rows, seeds: int, command: str, out: Path) -> Report:
    """NAME.csv, NAME.png and NAME.md in ``out``."""
    name = experiment.name
    paths = [out / f"{name}.{kind}" for kind in ("csv", "png", "md")]
    with paths[0].open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    experiment.figure(rows).savefig(paths[1], dpi=130)
    summary = experiment.summarise(rows)
    paths[2].write_text(page(experiment, summary, seeds, command))
    return Report(name, experiment.title, summary.verdicts, paths)


def page(experiment: Experiment, summary: Summary, seeds: int, command: str) -> str:
    """The Markdown summary of one experiment."""
    name = experiment.name
    used = ", ".join(map(str, range(seeds))) if experiment.source.seeded else "none needed"
    settings = ", ".join(f"{key} {_short(value)}" for key, value in _settings(experiment).items())
    verdicts = "\n".join(f"- {verdict}" for verdict in summary.verdicts)
    return "\n\n".join(
        [
            f"# {name}: {experiment.title}",
            verdicts,
            f"![{name}]({name}.png)",
            summary.text,
            f"Intervals are 95 % over seeds (Student's t). Rows: `{name}.csv`.",
            f"Settings: {settings}.",
            f"Seeds: {used}. {versions()}.",
            f"```\n{command}\n```\n",
        ]
    )


def _settings(experiment: Experiment) -> dict[str, object]:
    settings: dict[str, object] = asdict(experiment.source)  # type: ignore[call-overload]
    return settings


def _short(value: object) -> str:
    if isinstance(value, (tuple, list)):
        return "/".join(_short(one) for one in value)
    if isinstance(value, dict):
        return "(" + ", ".join(f"{key} {_short(one)}" for key, one in value.items()) + ")"
    return f"{value:g}" if isinstance(value, float) else str(value)


def write_index(reports: Sequence[Report], command: str, out: Path) -> Path:
    """``index.md``: every claim with its verdict, every figure."""
    words = {True: "holds", False: "DOES NOT HOLD", None: "undecided"}
    claims = [
        [f"[{report.name}]({report.name}.md)", verdict.claim, words[verdict.holds]]
        for report in reports
        for verdict in report.verdicts
    ]
    parts = ["# The convergence lab", table(["experiment", "claim", "verdict"], claims)]
    for report in reports:
        parts.append(f"## [{report.name}]({report.name}.md): {report.title}")
        parts.append(f"[![{report.name}]({report.name}.png)]({report.name}.md)")
    path = out / "index.md"
    path.write_text("\n\n".join([*parts, f"{versions()}.", f"```\n{command}\n```\n"]))
    return path

"""The tables of docs/algorithms.md from the committed rows: ``python tests/algorithm_page.py``.

A block stands between ``<!-- NAME -->`` and ``<!-- end -->``; a test holds the page to the rows.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from pulseline.lab.claims_of_staleness import CHOPPED
from pulseline.lab.experiments import EXPERIMENTS
from pulseline.lab.mutants import Rows
from pulseline.lab.report import read, table
from pulseline.lab.rows import column, mean, select
from pulseline.lab.statistics import interval
from pulseline.lab.target import PROGRAMMERS
from pulseline.lab.tuned import NAMES

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "algorithms.md"
RESULTS = ROOT / "bench" / "results" / "lab"
BLOCK = re.compile(r"(<!-- (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def _mean(values: list[float], digits: int = 1) -> str:
    return f"{sum(values) / len(values):.{digits}f}"


def _lost(values: list[float]) -> str:
    found = interval(values)
    return f"{found.mean:.1f} ± {found.high - found.mean:.1f}"


def _accuracy(rows: Rows) -> str:
    one: Any = EXPERIMENTS["algorithms"]
    parts = []
    for count in ("default", *one.states):
        offsets = (0.0,) if count == "default" else one.offsets
        cells = [
            [name, *(_mean(one.best(rows, str(count), o, name)) for o in offsets)] for name in NAMES
        ]
        if count == "default":
            digital = _mean(one.best(rows, "default", 0.0, "digital"))
            parts.append(table(["default device", "%"], [*cells, ["digital", digital]]))
        else:
            head = [f"{count} states", *(f"offset {o:g}" for o in offsets)]
            parts.append(table(head, cells))
    return "\n\n".join(parts)


def _programming(rows: Rows) -> str:
    offsets = EXPERIMENTS["algorithms"].offsets  # type: ignore[attr-defined]
    mine = select(rows, part="programming")
    cells = [
        [name, *(f"{mean(select(mine, algorithm=name, offset=o), 'error'):.3f}" for o in offsets)]
        for name in PROGRAMMERS
    ]
    return table(["20 states", *(f"offset {o:g}" for o in offsets)], cells)


def _stale(rows: Rows) -> str:
    one: Any = EXPERIMENTS["staleness-algorithms"]
    cells = []
    for name in NAMES:
        line: list[object] = [name]
        for b in one.batches:
            mine = select(rows, algorithm=name, batch=b, ratio=None)
            ends = [
                _mean(column(select(mine, schedule=s), "accuracy")) for s in ("sequential", "async")
            ]
            line.append(f"{ends[0]} → {ends[1]} ({_lost(one.loss(rows, name, b))})")
        cells.append(line)
    stale = [f"micro-batch {b} ({3 * b} stale)" for b in one.batches]
    return table(["algorithm", *stale], cells)


def _chop(rows: Rows) -> str:
    one: Any = EXPERIMENTS["staleness-algorithms"]
    cells = [
        [
            f"{name}, {3 * b} stale",
            *(_lost(one.loss(rows, name, b, r)) for r in one.ratios),
            one.least(rows, name, b),
        ]
        for name in CHOPPED
        for b in one.swept
    ]
    head = ["points lost at period / staleness", *(f"{r:g}" for r in one.ratios)]
    return table([*head, f"at most {one.allowed:g} from"], cells)


def _origin() -> str:
    lines = []
    for name in ("algorithms", "staleness-algorithms"):
        facts = json.loads((RESULTS / f"{name}.machine.json").read_text())
        seeds = facts["seeds"]
        many = seeds if isinstance(seeds, int) else len(seeds)
        machine = f"{facts['processor']}, kernels {facts['isa']}, torch {facts['torch']}"
        lines.append(
            f"- `pulseline lab {name} --out DIR --seeds {many}` ({machine}, {facts['date']})"
        )
    return "\n".join(lines)


def blocks() -> dict[str, str]:
    """Every table by the name of its block."""
    rows = read(RESULTS / "algorithms.csv")
    stale = read(RESULTS / "staleness-algorithms.csv")
    return {
        "accuracy": _accuracy(rows),
        "programming": _programming(rows),
        "stale": _stale(stale),
        "chop": _chop(stale),
        "origin": _origin(),
    }


def filled(text: str) -> str:
    """The page with every block as the rows have it."""
    found = blocks()
    return BLOCK.sub(lambda m: f"{m[1]}{found[m[2]]}\n{m[3]}", text)


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text()))

"""The claims of the convergence lab: on the committed full-size rows, and on ``--quick`` runs.

``bench/results/lab`` holds rows and pages of full-size runs. Here the verdicts are made once more
from those rows, and errors are planted in them: every verdict that holds must turn. A verdict that
cannot fail proves nothing.
"""

from __future__ import annotations

import json
import math
import re
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

import algorithm_page
from lab_quick import Lab
from pulseline.lab.engine import Experiment
from pulseline.lab.experiments import EXPERIMENTS
from pulseline.lab.mutants import Rows
from pulseline.lab.report import read, tried
from pulseline.lab.rows import number, select
from pulseline.lab.statistics import WORDS

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "bench" / "results" / "lab"
PAGES = sorted(path.stem for path in RESULTS.glob("*.md"))


def committed(name: str) -> tuple[Experiment, Rows]:
    """An experiment with the seeds of its committed rows, and these rows."""
    experiment = EXPERIMENTS[name]
    rows = read(RESULTS / f"{experiment.source.name}.csv")
    facts = json.loads((RESULTS / f"{name}.machine.json").read_text())
    return experiment.with_seeds(facts["seeds"]), rows


def test_every_experiment_has_a_page() -> None:
    assert sorted(EXPERIMENTS) == PAGES


@pytest.mark.parametrize("name", PAGES)
def test_committed_rows_give_the_verdicts_of_the_page(name: str) -> None:
    experiment, rows = committed(name)
    page = (RESULTS / f"{name}.md").read_text()
    stated = dict(re.findall(r"^- (.+?) \*\*(.+?)\*\*:", page, re.MULTILINE))
    found = {one.name: WORDS[one.holds] for one in experiment.summarise(rows).verdicts}
    assert stated == found
    assert len(rows) == max(1, experiment.seeds) * experiment.steps()
    for file in RESULTS.glob(f"{name}.*"):
        assert file.stat().st_size < 200_000


@pytest.mark.parametrize("name", [name for name in PAGES if name != "clock"])  # which is exact
def test_every_panel_shows_how_sure_its_means_are(name: str) -> None:
    containers = pytest.importorskip("matplotlib.container")
    experiment, rows = committed(name)
    for axes in experiment.figure(rows).axes:
        found = [one for one in axes.containers if isinstance(one, containers.ErrorbarContainer)]
        lengths = [np.ptp(path, axis=0).max() for one in found for path in one[2][0].get_segments()]
        assert lengths, axes.get_xlabel()
        assert max(lengths) > 0, axes.get_xlabel()


@pytest.mark.parametrize("name", PAGES)
def test_planted_errors_turn_the_verdicts(name: str) -> None:
    """On full-size rows: what holds does not hold any more, and nothing starts to hold."""
    experiment, rows = committed(name)
    before = {one.name: one.holds for one in experiment.summarise(rows).verdicts}
    trials = tried(experiment, rows)
    assert {trial.verdict for trial in trials} == set(before)
    for trial in trials:
        if before[trial.verdict]:
            assert trial.planted.holds is False, f"{trial.what}: {trial.planted}"
        else:
            assert not trial.planted.holds, f"{trial.what}: {trial.planted}"


def test_the_readme_quotes_the_pages() -> None:
    """Numbers of the section Evidence that stand in a page, with its name in the same line."""
    text = (ROOT / "README.md").read_text()
    evidence = text[text.index("## Evidence") : text.index("## Speed")]
    quoted = re.findall(r"^- `(\w+)`[^:]*: (.+?)(?=\n- |\n\n)", evidence, re.MULTILINE | re.DOTALL)
    assert len(quoted) >= 5
    for name, sentence in quoted:
        page = (RESULTS / f"{name}.md").read_text()
        for value in re.findall(r"(?<![\w.-])-?\d+\.\d{2,}", sentence):
            assert value in page, f"{name}: {value}"


# ---- quick runs ----

HOLDS = {
    "clock": ("sync", "async", "clock", "published"),
    "staleness": ("window", "floor", "digital"),
    "floor": ("law", "prediction", "falls"),
    "complexity": ("exponent", "lower_order", "extra", "shrinking", "grid"),
}


@pytest.mark.parametrize(("name", "claim"), [(n, c) for n, claims in HOLDS.items() for c in claims])
def test_quick_runs_hold_and_notice(lab: Lab, name: str, claim: str) -> None:
    """Three to 32 seeds suffice for these, with their planted errors."""
    verdict = lab.verdict(name, claim)
    assert verdict.holds is True, str(verdict)
    trials = [trial for trial in lab.reports[name].trials if trial.verdict == claim]
    assert trials
    for trial in trials:
        assert trial.planted.holds is False, f"{trial.what}: {trial.planted}"


ALGORITHMS = ("algorithms", "staleness-algorithms")


@pytest.mark.parametrize("name", ["accuracy", "speedup", "cliff", "devices", *ALGORITHMS])
def test_what_few_seeds_leave_open_is_said(lab: Lab, name: str) -> None:
    """Three seeds of short trainings decide little: then the verdict names the seeds it needs."""
    for verdict in lab.reports[name].verdicts:
        assert verdict.cell, str(verdict)
        assert "decide" in verdict.cell


# The headline figures once more from the rows, without the experiments' own arithmetic.


def test_synchronous_speedup_is_exact(lab: Lab) -> None:
    rows = lab.rows("clock")
    for m in range(1, 17):
        sequential, sync = (
            int(number(select(rows, schedule=s, stages=m)[0], "cycles"))
            for s in ("sequential", "sync")
        )
        assert Fraction(sequential, sync) == Fraction(8 * m, m + 7)


def test_exponents_agree(lab: Lab) -> None:
    """At common steps a ~ eps, chosen here by the mean K of analog training; slopes of means."""
    rows = lab.rows("complexity")
    steps = sorted({number(row, "a") for row in rows}, reverse=True)
    levels = sorted(int(name[1:]) for name in rows[0] if re.fullmatch(r"k\d", name))

    def means(method: str, first: int) -> list[float]:
        found = []
        for level in levels:
            mine = select(rows, method=method, a=steps[first + level])
            known = [row[f"k{level}"] for row in mine]
            if any(k is None for k in known):
                return [math.inf]
            found.append(sum(float(k) for k in known if k is not None) / len(known))
        return found

    firsts = range(len(steps) - len(levels) + 1)
    first = min(firsts, key=lambda n: float(np.log(means("analog", n)).sum()))
    slopes = {
        method: np.polyfit(levels, np.log(means(method, first)), 1)[0] / (math.log(2) / 2)
        for method in ("analog", "synchronous", "asynchronous")
    }
    assert max(slopes.values()) - min(slopes.values()) < 0.1
    assert all(1.5 < slope < 2.5 for slope in slopes.values())


def test_time_takes_the_slots_that_the_run_counted(lab: Lab) -> None:
    """Update management shortens trains of 31 slots to one or two: t_U = 2 x slots x 5 ns."""
    times = [number(row, "t_u") for row in lab.rows("accuracy")]
    assert min(times) >= 10.0
    assert max(times) < 30.0


def test_the_page_of_algorithms_shows_the_rows() -> None:
    """docs/algorithms.md; ``python tests/algorithm_page.py`` writes its tables anew."""
    text = algorithm_page.PAGE.read_text()
    named = [name for _, name, _ in algorithm_page.BLOCK.findall(text)]
    assert sorted(named) == sorted(algorithm_page.blocks())
    assert algorithm_page.filled(text) == text

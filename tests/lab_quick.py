"""All experiments of the lab with ``--quick``, run once for the tests that judge them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from pulseline.lab.engine import Experiment, rows_of
from pulseline.lab.experiments import QUICK, perform
from pulseline.lab.mutants import Rows
from pulseline.lab.report import Report
from pulseline.lab.statistics import Verdict

COMMAND = "pulseline lab all --out DIR --quick"


class Lab(NamedTuple):
    """What ``pulseline lab all --quick`` left."""

    out: Path
    reports: dict[str, Report]

    def experiment(self, name: str) -> Experiment:
        return QUICK[name]

    def rows(self, name: str) -> Rows:
        return rows_of(QUICK[name], self.out)

    def verdict(self, name: str, claim: str) -> Verdict:
        (found,) = [one for one in self.reports[name].verdicts if one.name == claim]
        return found


def run_all(out: Path) -> Lab:
    jobs = min(2, os.cpu_count() or 1)
    reports = perform(list(QUICK.values()), out, jobs=jobs, command=COMMAND)
    return Lab(out, {report.name: report for report in reports})

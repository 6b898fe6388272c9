"""The ``lab`` command: rerun the evidence."""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any

from ..lab.experiments import EXPERIMENTS, named, perform
from ..lab.report import Report
from ..lab.statistics import WORDS
from .arguments import directory, folder, whole, writing

__all__ = ["add_parser", "run"]


def add_parser(commands: Any) -> None:
    """Add the command to the parser."""
    lab = commands.add_parser("lab", help="rerun the convergence experiments")
    lab.set_defaults(run=run)
    lab.add_argument("name", choices=("all", *EXPERIMENTS), metavar="NAME", help=_names())
    lab.add_argument("--out", type=folder, required=True, metavar="DIR")
    lab.add_argument("--seeds", type=whole(1, 1000), default=None, help="seeds 0, 1, ..")
    lab.add_argument("--quick", action="store_true", help="small settings: minutes for all")
    lab.add_argument("--jobs", type=whole(1, 1024), default=None, help="processes (default: cores)")


def _names() -> str:
    return f"all or one of {', '.join(EXPERIMENTS)}"


def run(args: argparse.Namespace) -> None:
    """Compute, write, and print every verdict; finished seeds in --out are not run again."""
    out = directory(args.out)
    experiments = named([args.name], args.quick)
    command = f"pulseline lab {args.name} --out DIR{' --quick' if args.quick else ''}"
    if args.seeds is not None:
        experiments = [one.with_seeds(args.seeds) for one in experiments]
        command += f" --seeds {args.seeds}"
    with writing(out):
        perform(
            experiments,
            out,
            jobs=args.jobs or os.cpu_count() or 1,
            command=command,
            notice=_notice,
            finished=_print,
        )
    if args.name == "all":
        print(f"wrote {out / 'index.md'}")


def _print(report: Report) -> None:
    print(f"{report.name}: {report.title}")
    for verdict in report.verdicts:
        print(f"  {WORDS[verdict.holds]}: {verdict.claim} ({verdict.measured})")
    blind = [trial for trial in report.trials if trial.planted.holds is not False]
    for trial in blind:
        print(f"  no power here: {trial.verdict} does not notice: {trial.what}")
    print(f"  wrote {', '.join(map(str, report.paths))}")


def _notice(text: str) -> None:
    print(f"pulseline: {text}", file=sys.stderr, flush=True)

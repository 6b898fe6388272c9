"""The ``lab`` command: rerun the evidence."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from ..lab.engine import Experiment, Run, seeds_of
from ..lab.experiments import EXPERIMENTS, QUICK, left, named, perform, seconds
from ..lab.report import FORMATS, Report
from ..lab.statistics import WORDS
from .arguments import directory, folder, seed_numbers, whole, writing
from .parser import add_command, add_set
from .settings import changes
from .train_logs import say

__all__ = ["add_parser", "run"]


def add_parser(commands: Any) -> None:
    """Add the command to the parser."""
    lab = add_command(
        commands,
        "lab",
        "rerun the convergence experiments: rows, figure and a page with verdicts for each",
        """pulseline lab all --out lab --quick
        pulseline lab speedup --out lab --seed-list 101,102,103 --format pdf
        pulseline lab cliff --out lab --set stages=1,4,8 epochs=1""",
        _times(),
    )
    lab.set_defaults(run=run)
    lab.add_argument("name", choices=("all", *EXPERIMENTS), metavar="NAME", help=_names())
    lab.add_argument(
        "--out",
        type=folder,
        required=True,
        metavar="DIR",
        help="directory of results and finished runs, which are not computed again",
    )
    which = lab.add_mutually_exclusive_group()
    which.add_argument(
        "--seeds",
        type=whole(1, 1000),
        default=None,
        metavar="N",
        help="seeds 0 to N-1 (default: each experiment's own number)",
    )
    which.add_argument(
        "--seed-list",
        type=seed_numbers,
        default=None,
        metavar="S,S,..",
        help="these seeds (default: --seeds)",
    )
    lab.add_argument("--quick", action="store_true", help="small settings: minutes for all")
    add_set(lab, "one experiment, such as stages=1,4,8 (its page lists them)")
    lab.add_argument(
        "--jobs",
        type=whole(1, 1024),
        default=None,
        metavar="N",
        help="processes at a time (default: the number of cores)",
    )
    lab.add_argument("--format", choices=FORMATS, default="png", help="of the figures")


def _names() -> str:
    return f"all or one of {', '.join(EXPERIMENTS)}"


def _times() -> str:
    """What the experiments take at full size and quick."""
    cells, width = [], max(map(len, EXPERIMENTS)) + 2
    for name in EXPERIMENTS:
        whole, short = (
            _text(seconds(one, quick) * -(-len(seeds_of(one)) // one.source.group))
            for one, quick in ((EXPERIMENTS[name], False), (QUICK[name], True))
        )
        cells.append(f"  {name:{width}s}{whole:>7s}  quick {short:>7s}")
    head = "On one core, divided by --jobs where there are several seeds, about:"
    return "\n".join([head, *cells, "speedup uses the runs of accuracy."])


def _text(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def run(args: argparse.Namespace) -> None:
    """Compute, write, and print every verdict; finished seeds in --out are not run again.

    Raises:
        ConfigError: settings or seeds that cannot be, or with which no claim can be judged.
    """
    experiments = _asked(args)
    out = directory(args.out)
    jobs = args.jobs or os.cpu_count() or 1
    total = _announce(experiments, args.quick, jobs, out)
    with writing(out):
        try:
            perform(
                experiments,
                out,
                jobs=jobs,
                command=_command(args),
                notice=_notice,
                ran=_runs(total),
                finished=_print,
                picture=args.format,
            )
        except (ArithmeticError, LookupError, TypeError, ValueError) as error:
            if isinstance(error, ConfigError) or not args.set:
                raise
            raise ConfigError(
                f"the claims of {args.name} cannot be judged with --set {' '.join(args.set)} "
                f"({type(error).__name__}: {error}); its rows are in "
                f"{out / args.name}.csv, change the setting for a page"
            ) from error
    if args.name == "all":
        print(f"wrote {out / 'index.md'}")


def _asked(args: argparse.Namespace) -> list[Experiment]:
    """The experiments with the seeds and settings of the command line."""
    experiments = named([args.name], args.quick)
    if args.set:
        if args.name == "all":
            raise ConfigError("--set comes with all; name the experiment whose settings they are")
        (one,) = experiments
        experiments = [one.with_settings(changes(args.set, one.source))]
    seeds = args.seeds if args.seed_list is None else args.seed_list
    return experiments if seeds is None else [one.with_seeds(seeds) for one in experiments]


def _command(args: argparse.Namespace) -> str:
    """The command line that the pages name."""
    words = ["pulseline lab", args.name, "--out DIR"]
    words += ["--quick"] if args.quick else []
    words += [] if args.seeds is None else [f"--seeds {args.seeds}"]
    words += [] if args.seed_list is None else [f"--seed-list {','.join(map(str, args.seed_list))}"]
    words += [f"--set {' '.join(args.set)}"] if args.set else []
    words += [] if args.format == "png" else [f"--format {args.format}"]
    return " ".join(words)


def _announce(experiments: Sequence[Experiment], quick: bool, jobs: int, out: Path) -> int:
    """Say what there is to compute and about how long it takes; runs to compute."""
    total, sources = 0, set()
    for one in experiments:
        if one.source.name in sources:
            continue
        sources.add(one.source.name)
        runs = left(one, out)
        total += runs
        if runs:
            at_once = min(jobs, runs)
            time = seconds(one, quick) * -(-runs // at_once)
            say(
                f"{one.source.name}: {runs} run{'s' if runs > 1 else ''} to compute, about "
                f"{_text(time)} on {at_once} core{'s' if at_once > 1 else ''}"
            )
    return total


def _runs(total: int) -> Callable[[Run], None]:
    """What says each run in a line that stays, on a terminal and elsewhere."""
    start, done = time.perf_counter(), 0

    def ran(run: Run) -> None:
        nonlocal done
        done += 1
        first, last = run.seeds[0], run.seeds[-1]
        which = f"seed {first}" if first == last else f"seeds {first} to {last}"
        spent = time.perf_counter() - start
        say(f"{run.experiment.name} {which}: run {done} of {total} done after {spent:.0f} s")

    return ran


def _print(report: Report) -> None:
    print(f"{report.name}: {report.title}")
    for verdict in report.verdicts:
        print(f"  {WORDS[verdict.holds]}: {verdict.claim} ({verdict.measured})")
    for trial in report.blind:
        print(f"  no power here: {trial.verdict} does not notice: {trial.what}")
    print(f"  wrote {', '.join(map(str, report.paths))}")


def _notice(text: str) -> None:
    print(f"pulseline: {text}", file=sys.stderr, flush=True)

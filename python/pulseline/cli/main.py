"""The ``pulseline`` command: demo, train, lab, schedule, device, read, convert,
hardware, info.

Exit codes: 0 done, 1 a stage, a kernel or a disk failed, 2 bad arguments, 130 interrupted.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from .. import __version__, ops
from .. import train as training
from ..data import load_digits
from ..errors import BackendError, ConfigError, StageFailed, os_failure
from ..models import WIDTHS, network
from ..train import EPOCHS, Recipe, Run
from . import plots
from .arguments import directory, folder, seed_number, whole, writing
from .convert import add_parser as add_convert
from .device import add_parser as add_device
from .hardware import add_parser as add_hardware
from .lab import add_parser as add_lab
from .parser import Parser, add_command
from .schedule import add_parser as add_schedule
from .train import add_parser as add_train
from .train import bar, window

__all__ = ["LAB_PACKAGES", "build_parser", "main"]

LAB_PACKAGES = ("sklearn", "matplotlib", "tqdm")


def build_parser() -> Parser:
    """All commands with their options."""
    parser = Parser(
        prog="pulseline",
        description="Training on simulated analog crossbars, in a pipeline of stages.",
        epilog="pulseline COMMAND --help says more, with examples. Begin with: pulseline demo",
    )
    parser.add_argument("--version", action="version", version=f"pulseline {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    demo = add_command(
        commands,
        "demo",
        "train the digits under all three schedules: a table and two figures",
        """pulseline demo
        pulseline demo --epochs 2 --out figures""",
    )
    demo.set_defaults(run=_demo)
    demo.add_argument(
        "--out",
        type=folder,
        default=Path("pulseline-demo"),
        metavar="DIR",
        help="directory of accuracy.png and schedules.png",
    )
    demo.add_argument(
        "--epochs",
        type=whole(1),
        default=EPOCHS,
        metavar="N",
        help="passes over the training images",
    )
    demo.add_argument(
        "--seed", type=seed_number, default=0, metavar="S", help="of data order and devices"
    )
    for add in (add_train, add_lab, add_schedule, add_device, add_convert, add_hardware):
        add(commands)
    info = add_command(
        commands,
        "info",
        "print version, instruction set, threads, cores, load and CUDA",
        """pulseline info
        pulseline info --json""",
    )
    info.set_defaults(run=_info)
    info.add_argument("--json", action="store_true", help="print JSON instead of text")
    return parser


def _table(runs: dict[str, Run]) -> str:
    rows = [
        (
            "schedule",
            "test accuracy",
            "samples",
            "clock cycles",
            "computation density",
            "speed-up over sequential",
            "wall time",
        )
    ]
    for name, run in runs.items():
        rows.append(
            (
                name,
                f"{run.accuracy:.1f} %",
                f"{run.epochs[-1].samples:,}",
                f"{run.cycles:,}",
                f"{run.density:.3f}",
                f"{run.speedup:.2f}",
                f"{run.wall_s:.1f} s",
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join(cells))
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def _demo(args: argparse.Namespace) -> None:
    out = directory(args.out)
    epochs = args.epochs
    stages, micro_batches = 4, 8
    data = load_digits()
    print(
        f"{len(data.x_train) + len(data.x_test):,} handwritten digits, tanh network "
        f"{'-'.join(map(str, WIDTHS))}, {stages} stages, {epochs} epochs, seed {args.seed}"
    )
    runs: dict[str, Run] = {}
    for name, device, schedule in (
        ("digital sequential", "digital", "sequential"),
        ("analog sequential", "soft_bounds", "sequential"),
        ("analog synchronous", "soft_bounds", "sync"),
        ("analog asynchronous", "soft_bounds", "async"),
    ):
        model = network(device, args.seed)
        pipe = training.pipeline(model, stages, schedule=schedule, micro_batches=micro_batches)
        with bar(name, epochs * len(data.x_train)) as progress:
            runs[name] = training.train(
                pipe, data, Recipe(epochs, seed=args.seed), progress=progress
            )
    print(_table(runs))
    print(
        f"test accuracy: {window(epochs)}; synchronous: {micro_batches} "
        "micro-batches per update; speed-up in clock cycles at equal samples"
    )
    analog = {name: run for name, run in runs.items() if name.startswith("analog")}
    with writing(out):
        plots.accuracy_figure(runs, out / "accuracy.png")
        plots.gantt_figure(analog, out / "schedules.png")
    print(f"wrote {out / 'accuracy.png'} and {out / 'schedules.png'}")


def _info(args: argparse.Namespace) -> None:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    facts = {"version": __version__, **ops.info(), "cores": cores or 1, "load": os.getloadavg()[0]}
    facts["advice"] = _crowded(int(str(facts["threads"])), cores or 1, os.getloadavg()[0])
    if args.json:
        print(json.dumps(facts, indent=2))
        return
    for name, value in facts.items():
        text = ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else value
        print(f"{name}: {text}")


def _crowded(threads: int, cores: int, load: float) -> str:
    """What to do where more threads want to compute than there are cores; "" if they do not."""
    if threads > cores:
        what = f"{threads} threads on {cores} cores"
    elif load > cores + 0.5:
        what = f"{load:.1f} threads want to run on {cores} cores (load of the last minute)"
    else:
        return ""
    return f"{what}: torch's threads wait for each other; OMP_NUM_THREADS=1 is often much faster"


def _refused(error: OSError) -> int:
    """One sentence where the system refuses a file; without a name it is standard output."""
    if error.filename is None:
        with contextlib.suppress(OSError):  # what is left in its buffer would fail again at exit
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if isinstance(error, BrokenPipeError):  # whoever reads has seen enough
        return 0
    name = error.filename or "standard output"
    failure = os_failure(f"{name} cannot be read or written", error, "use another")
    print(f"pulseline: error: {failure}", file=sys.stderr)
    return 2 if isinstance(failure, ConfigError) else 1


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; bad arguments give one sentence on stderr and exit code 2."""
    try:
        ops.check_environment()
        parser = build_parser()
        args = parser.parse_args(argv)
        if args.command is None:
            parser.print_help()
        else:
            args.run(args)
        sys.stdout.flush()
    except (ConfigError, BackendError, StageFailed) as error:
        print(f"pulseline: error: {error}", file=sys.stderr)
        return 2 if isinstance(error, ConfigError) else 1
    except OSError as error:
        return _refused(error)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in LAB_PACKAGES:
            raise
        print(
            f"pulseline: error: {error.name} is missing: pip install 'pulseline[lab]'",
            file=sys.stderr,
        )
        return 2
    except KeyboardInterrupt:
        print("pulseline: interrupted", file=sys.stderr)
        return 130
    return 0

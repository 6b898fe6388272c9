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

from .. import __version__, ops
from ..errors import BackendError, ConfigError, StageFailed, os_failure
from .convert import add_parser as add_convert
from .demo import add_parser as add_demo
from .device import add_parser as add_device
from .hardware import add_parser as add_hardware
from .lab import add_parser as add_lab
from .parser import Parser, add_command
from .schedule import add_parser as add_schedule
from .train import add_parser as add_train

__all__ = ["PACKAGES", "build_parser", "main"]

# Packages that are imported where they are used -> extra that installs them.
PACKAGES = {"sklearn": "lab", "matplotlib": "lab", "tqdm": "lab", "tensorboard": "tensorboard"}


def build_parser() -> Parser:
    """All commands with their options."""
    parser = Parser(
        prog="pulseline",
        description="Training on simulated analog crossbars, in a pipeline of stages.",
        epilog="pulseline COMMAND --help says more, with examples. Begin with: pulseline demo",
    )
    parser.add_argument("--version", action="version", version=f"pulseline {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    add_demo(commands)
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
        name = (error.name or "").partition(".")[0]
        if name not in PACKAGES:
            raise
        print(
            f"pulseline: error: {error.name} is missing: pip install 'pulseline[{PACKAGES[name]}]'",
            file=sys.stderr,
        )
        return 2
    except KeyboardInterrupt:
        print("pulseline: interrupted", file=sys.stderr)
        return 130
    return 0

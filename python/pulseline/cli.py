"""The ``pulseline`` command: demo, train, schedule, info.

Exit codes: 0 done, 1 a stage or a kernel failed, 2 bad arguments, 130 interrupted.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from . import __version__, ops, plots
from .digest import digest
from .errors import BackendError, ConfigError, StageFailed
from .lab import digits
from .lab.digits import Progress, Run
from .pipeline import timeline
from .pipeline.schedule import NAMES, named

LAB_PACKAGES = ("sklearn", "matplotlib", "tqdm")


class _Parser(argparse.ArgumentParser):
    """Errors are one line, without the usage text."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"pulseline: error: {message}\n")


def _whole(least: int) -> Callable[[str], int]:
    """Converter for integers from ``least`` to 2^63 - 1."""

    def convert(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if not least <= value < 1 << 63:
            raise argparse.ArgumentTypeError(f"must be an integer >= {least}, got {text!r}")
        return value

    return convert


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise argparse.ArgumentTypeError(f"must be a positive number, got {text!r}")
    return value


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="pulseline", description="Training on simulated analog crossbars.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")

    demo = commands.add_parser("demo", help="train the digits under all three schedules")
    demo.set_defaults(run=_demo)
    demo.add_argument("--out", type=Path, default=Path("pulseline-demo"), metavar="DIR")
    demo.add_argument("--epochs", type=_whole(1), default=None)
    demo.add_argument("--seed", type=_whole(0), default=0)

    train = commands.add_parser("train", help="train once and print the digest of the state")
    train.set_defaults(run=_train)
    train.add_argument("--data", choices=("digits",), default="digits")
    train.add_argument("--model", choices=("mlp",), default="mlp")
    train.add_argument("--stages", type=_whole(1), default=4)
    train.add_argument("--schedule", choices=NAMES, default="async")
    train.add_argument("--device", choices=digits.DEVICES, default="soft_bounds")
    train.add_argument("--epochs", type=_whole(1), default=5)
    train.add_argument("--seed", type=_whole(0), default=0)
    train.add_argument("--lr", type=_positive, default=None, help="learning rate of epoch 1")
    train.add_argument("--batch-size", type=_whole(1), default=1, help="samples per micro-batch")
    train.add_argument(
        "--micro-batches", type=_whole(1), default=8, help="micro-batches per update (sync only)"
    )
    train.add_argument("--out", type=Path, default=None, metavar="DIR")

    show = commands.add_parser("schedule", help="print a schedule as a text grid")
    show.set_defaults(run=_schedule)
    show.add_argument("--schedule", choices=NAMES, default="async")
    show.add_argument("--stages", type=_whole(1), default=4)
    show.add_argument("--micro-batches", type=_whole(1), default=8)

    info = commands.add_parser("info", help="print version, instruction set, threads and CUDA")
    info.set_defaults(run=_info)
    info.add_argument("--json", action="store_true")
    return parser


@contextmanager
def _bar(label: str, samples: int) -> Iterator[Progress]:
    """A progress bar on a terminal, nothing elsewhere."""
    from tqdm import tqdm

    with tqdm(total=samples, desc=label, unit=" samples", disable=None, leave=False) as bar:

        def progress(done: int, note: str) -> None:
            bar.set_postfix_str(note, refresh=False)
            bar.update(done)

        yield progress


def _directory(path: Path) -> Path:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--out {path} cannot be a directory: {error.strerror}") from None
    return path


def _window(epochs: int) -> str:
    """What ``Run.accuracy`` is an average over."""
    return f"mean of the last {min(3, epochs)} epochs" if epochs > 1 else "after 1 epoch"


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
    out = _directory(args.out)
    epochs = args.epochs or digits.EPOCHS
    stages, micro_batches = 4, 8
    data = digits.load()
    print(
        f"{len(data.x_train) + len(data.x_test):,} handwritten digits, tanh network "
        f"{'-'.join(map(str, digits.WIDTHS))}, {stages} stages, {epochs} epochs, seed {args.seed}"
    )
    runs: dict[str, Run] = {}
    for name, device, schedule in (
        ("digital sequential", "digital", "sequential"),
        ("analog sequential", "soft_bounds", "sequential"),
        ("analog synchronous", "soft_bounds", "sync"),
        ("analog asynchronous", "soft_bounds", "async"),
    ):
        model = digits.network(device, args.seed)
        pipe = digits.pipeline(model, stages, schedule=schedule, micro_batches=micro_batches)
        with _bar(name, epochs * len(data.x_train)) as progress:
            runs[name] = digits.train(pipe, data, epochs, seed=args.seed, progress=progress)
    print(_table(runs))
    print(
        f"test accuracy: {_window(epochs)}; synchronous: {micro_batches} "
        "micro-batches per update; speed-up in clock cycles at equal samples"
    )
    analog = {name: run for name, run in runs.items() if name.startswith("analog")}
    plots.accuracy_figure(runs, out / "accuracy.png")
    plots.gantt_figure(analog, out / "schedules.png")
    print(f"wrote {out / 'accuracy.png'} and {out / 'schedules.png'}")


def _train(args: argparse.Namespace) -> None:
    lr = digits.LR if args.lr is None else args.lr
    out = None if args.out is None else _directory(args.out)
    model = digits.network(args.device, args.seed)
    pipe = digits.pipeline(
        model,
        args.stages,
        lr,
        schedule=args.schedule,
        micro_batch_size=args.batch_size,
        micro_batches=args.micro_batches,
    )
    data = digits.load()
    with _bar(f"{args.device} {args.schedule}", args.epochs * len(data.x_train)) as progress:
        run = digits.train(pipe, data, args.epochs, lr=lr, seed=args.seed, progress=progress)
    total = digest(model.state_dict())
    print(f"test accuracy: {run.accuracy:.2f} % ({_window(args.epochs)})")
    print(f"clock cycles: {run.cycles}")
    print(f"digest: {total}")
    if out is not None:
        _write_run(out, args, lr, run, total)


def _write_run(out: Path, args: argparse.Namespace, lr: float, run: Run, total: str) -> None:
    names = ("data", "model", "stages", "schedule", "device", "epochs", "seed", "batch_size")
    result = {
        "options": {name: getattr(args, name) for name in (*names, "micro_batches")} | {"lr": lr},
        "digest": total,
        "accuracy_percent": run.accuracy,
        "clock_cycles": run.cycles,
        "wall_s": run.wall_s,
        "epochs": [epoch._asdict() for epoch in run.epochs],
    }
    (out / "result.json").write_text(json.dumps(result, indent=2) + "\n")
    plots.accuracy_figure({f"{args.device} {args.schedule}": run}, out / "accuracy.png")
    print(f"wrote {out / 'result.json'} and {out / 'accuracy.png'}")


def _schedule(args: argparse.Namespace) -> None:
    plan = named(args.schedule, args.micro_batches)
    shape = args.stages, args.micro_batches
    print(timeline.text_grid(plan.events(*shape)))
    print(
        f"{plan.cycles(*shape)} clock cycles, computation density {plan.density(*shape):.3f}, "
        f"speed-up {plan.speedup(*shape):.2f} (* = update)"
    )


def _info(args: argparse.Namespace) -> None:
    facts = {"version": __version__, **ops.info()}
    if args.json:
        print(json.dumps(facts, indent=2))
        return
    for name, value in facts.items():
        text = ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else value
        print(f"{name}: {text}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; bad arguments give one sentence on stderr and exit code 2."""
    try:
        args = _parser().parse_args(argv)
        args.run(args)
    except (ConfigError, BackendError, StageFailed) as error:
        print(f"pulseline: error: {error}", file=sys.stderr)
        return 2 if isinstance(error, ConfigError) else 1
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

"""The ``train`` command: one training run, in one process or under torchrun."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from . import plots
from .cli_arguments import directory, positive, seed_number, whole
from .errors import ConfigError
from .hardware import RunReport
from .hardware.presets import DEFAULT, PRESETS
from .lab import digits
from .lab.digits import Progress, Run, Saving
from .pipeline import Pipeline, modelled
from .pipeline.schedule import NAMES
from .pipeline.timeline import write_timelines

EXECUTORS = ("sim", "threads", "dist")


def add(commands: Any) -> None:
    """Add the command to the parser."""
    train = commands.add_parser("train", help="train once and print the digest of the state")
    train.set_defaults(run=run_train)
    train.add_argument("--data", choices=("digits",), default="digits")
    train.add_argument("--samples", type=whole(1), default=None, help="training images to use")
    train.add_argument("--model", choices=("mlp",), default="mlp")
    train.add_argument(
        "--stages", type=whole(1), default=None, help="default 4; dist: the number of processes"
    )
    train.add_argument("--schedule", choices=NAMES, default="async")
    train.add_argument(
        "--executor",
        choices=EXECUTORS,
        default="sim",
        help="one thread, one per stage, or one process per stage (start with torchrun)",
    )
    train.add_argument(
        "--device",
        default="soft_bounds",
        metavar="NAME",
        help="a model or a preset, such as exp_step or reram_sb; ideal or digital",
    )
    train.add_argument("--epochs", type=whole(1), default=5)
    train.add_argument("--seed", type=seed_number, default=0)
    train.add_argument("--lr", type=positive, default=None, help="learning rate of epoch 1")
    train.add_argument(
        "--batch-size", type=whole(1, 1 << 31), default=1, help="samples per micro-batch"
    )
    train.add_argument(
        "--micro-batches",
        type=whole(1, 1 << 31),
        default=8,
        help="micro-batches per update (sync only)",
    )
    train.add_argument("--checkpoint", type=Path, default=None, metavar="DIR")
    train.add_argument(
        "--checkpoint-every", type=whole(1), default=None, metavar="N", help="epochs (default 1)"
    )
    train.add_argument(
        "--resume", action="store_true", help="continue from the newest checkpoint, if any"
    )
    train.add_argument(
        "--hardware", choices=tuple(PRESETS), default=DEFAULT, help="whose time and energy to model"
    )
    train.add_argument(
        "--timeline", action="store_true", help="write measured and modelled timelines to --out"
    )
    train.add_argument("--out", type=Path, default=None, metavar="DIR")


@contextmanager
def bar(label: str, samples: int, show: bool = True) -> Iterator[Progress]:
    """A progress bar on a terminal, nothing elsewhere."""
    from tqdm import tqdm

    hidden = None if show else True
    with tqdm(total=samples, desc=label, unit=" samples", disable=hidden, leave=False) as line:

        def progress(done: int, note: str) -> None:
            line.set_postfix_str(note, refresh=False)
            line.update(done)

        yield progress


def window(epochs: int) -> str:
    """What ``Run.accuracy`` is an average over."""
    return f"mean of the last {min(3, epochs)} epochs" if epochs > 1 else "after 1 epoch"


def run_train(args: argparse.Namespace) -> None:
    """Train, print accuracy, clock cycles and digest; under torchrun only rank 0 prints."""
    if args.checkpoint is None and (args.resume or args.checkpoint_every):
        name = "--resume" if args.resume else "--checkpoint-every"
        raise ConfigError(f"{name} needs --checkpoint DIR")
    if args.timeline and args.out is None:
        raise ConfigError("--timeline needs --out DIR")
    args.device = digits.device_name(args.device)
    args.lr = digits.LR if args.lr is None else args.lr
    args.stages = args.stages or _default_stages(args.executor)
    out = None if args.out is None else directory(args.out)
    with digits.pipeline(
        digits.network(args.device, args.seed),
        args.stages,
        args.lr,
        schedule=args.schedule,
        executor=args.executor,
        micro_batch_size=args.batch_size,
        micro_batches=args.micro_batches,
        measure=args.timeline,
    ) as pipe:
        for array in modelled.arrays(stage.module for stage in pipe.stages):
            array.count_pulses()
        data = pipe.once(lambda: digits.load(args.samples))
        first = pipe.rank == 0
        total = args.epochs * len(data.x_train)
        with bar(f"{args.device} {args.schedule}", total, first) as progress:
            run = digits.train(
                pipe,
                data,
                args.epochs,
                lr=args.lr,
                seed=args.seed,
                progress=progress,
                notice=_notice if first else None,
                saving=_saving(args, len(data.x_train)),
            )
        total_digest = pipe.digest()
        spans = pipe.spans() if args.timeline else []
        report = _hardware_report(pipe, args.hardware)
    if not first:
        return
    print(f"test accuracy: {run.accuracy:.2f} % ({window(args.epochs)})")
    print(f"clock cycles: {run.cycles}")
    print(report, file=sys.stderr)  # of this process: a resumed run reports its own part
    print(f"digest: {total_digest}")
    if out is not None:
        _write_run(out, args, run, total_digest, report)
    if out is not None and args.timeline:
        plan = modelled.timeline(pipe, args.hardware)
        for path in write_timelines(out, spans, plan, args.hardware):
            print(f"wrote {path}")


def _hardware_report(pipe: Pipeline, hardware: str) -> RunReport:
    """Modelled time and energy of the run; counts of pulses come from all processes."""
    mine = modelled.arrays(stage.module for stage in pipe.local)
    found = pipe.share([(array.identity.key, array.fired) for array in mine])
    counts = {key: fired for part in found for key, fired in part}
    for array in modelled.arrays(stage.module for stage in pipe.stages):
        array.fired = counts[array.identity.key]
    return modelled.report(pipe, hardware)


def _default_stages(executor: str) -> int:
    if executor != "dist":
        return 4
    from .pipeline.processes import world_size

    return world_size() or 4


def _saving(args: argparse.Namespace, samples: int) -> Saving | None:
    if args.checkpoint is None:
        return None
    names = ("data", "model", "device", "seed", "lr")
    config = {name: getattr(args, name) for name in names} | {"samples": samples}
    return Saving(args.checkpoint, args.checkpoint_every or 1, args.resume, config)


def _notice(text: str) -> None:
    print(f"pulseline: {text}", file=sys.stderr, flush=True)


def _write_run(
    out: Path, args: argparse.Namespace, run: Run, total: str, report: RunReport
) -> None:
    names = ("data", "model", "stages", "schedule", "device", "epochs", "seed", "batch_size")
    more = ("micro_batches", "executor", "samples", "lr")
    result = {
        "options": {name: getattr(args, name) for name in (*names, *more)},
        "digest": total,
        "accuracy_percent": run.accuracy,
        "clock_cycles": run.cycles,
        "wall_s": run.wall_s,
        "modelled": report.as_dict(),
        "epochs": [epoch._asdict() for epoch in run.epochs],
    }
    (out / "result.json").write_text(json.dumps(result, indent=2) + "\n")
    plots.accuracy_figure({f"{args.device} {args.schedule}": run}, out / "accuracy.png")
    print(f"wrote {out / 'result.json'} and {out / 'accuracy.png'}")

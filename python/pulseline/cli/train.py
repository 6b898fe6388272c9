"""The ``train`` command: one training run, in one process or under torchrun."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from .. import cost
from .. import train as training
from ..data import load_digits
from ..errors import ConfigError
from ..hardware.presets import DEFAULT, PRESETS
from ..models import device_name, network
from ..pipeline.manifest import write
from ..schedules import NAMES, write_timelines
from ..train import Progress, Recipe, Saving
from . import plots
from .arguments import directory, folder, positive, seed_number, whole, writing

__all__ = ["EXECUTORS", "TrainOptions", "add_parser", "bar", "run_train", "window"]

EXECUTORS = ("sim", "threads", "dist")


def add_parser(commands: Any) -> None:
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
    train.add_argument("--checkpoint", type=folder, default=None, metavar="DIR")
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
    train.add_argument("--out", type=folder, default=None, metavar="DIR")


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


@dataclass(frozen=True)
class TrainOptions:
    """What ``pulseline train`` was asked for, every default resolved."""

    data: str
    samples: int | None
    model: str
    device: str
    stages: int
    schedule: str
    executor: str
    epochs: int
    seed: int
    lr: float
    batch_size: int
    micro_batches: int
    checkpoint: Path | None
    checkpoint_every: int
    resume: bool
    hardware: str
    timeline: bool
    out: Path | None

    @classmethod
    def of(cls, args: argparse.Namespace) -> TrainOptions:
        """The options of a parsed command line.

        Raises:
            ConfigError: options that need each other, or a name that is none.
        """
        if args.checkpoint is None and (args.resume or args.checkpoint_every):
            name = "--resume" if args.resume else "--checkpoint-every"
            raise ConfigError(f"{name} comes without a directory; add --checkpoint DIR")
        if args.timeline and args.out is None:
            raise ConfigError("--timeline comes without a directory; add --out DIR")
        given = {one.name: getattr(args, one.name) for one in fields(cls)}
        for name in ("checkpoint", "out"):
            if given[name] is not None:
                directory(given[name], f"--{name}")
        return cls(
            **given
            | {
                "device": device_name(args.device),
                "lr": training.LR if args.lr is None else args.lr,
                "stages": args.stages or _default_stages(args.executor),
                "checkpoint_every": args.checkpoint_every or 1,
            }
        )

    def saving(self, samples: int) -> Saving | None:
        """Checkpoints of the run on so many training images."""
        if self.checkpoint is None:
            return None
        names = ("data", "model", "device", "seed", "lr")
        config = {name: getattr(self, name) for name in names} | {"samples": samples}
        return Saving(self.checkpoint, self.checkpoint_every, self.resume, config)

    def result(self) -> dict[str, Any]:
        """What a result file says of them: what decides the numbers, not where things lie."""
        files = ("checkpoint", "checkpoint_every", "resume", "hardware", "timeline", "out")
        return {name: value for name, value in asdict(self).items() if name not in files}


def run_train(args: argparse.Namespace) -> None:
    """Train, print accuracy, clock cycles and digest; under torchrun only rank 0 prints."""
    options = TrainOptions.of(args)
    label = f"{options.device} {options.schedule}"
    with training.pipeline(
        network(options.device, options.seed),
        options.stages,
        options.lr,
        schedule=options.schedule,
        executor=options.executor,
        micro_batch_size=options.batch_size,
        micro_batches=options.micro_batches,
        measure=options.timeline,
    ) as pipe:
        for array in cost.arrays(stage.module for stage in pipe.stages):
            array.count_pulses()
        data = pipe.once(lambda: load_digits(options.samples))
        first = pipe.rank == 0
        with bar(label, options.epochs * len(data.x_train), first) as progress:
            run = training.train(
                pipe,
                data,
                Recipe(options.epochs, options.lr, seed=options.seed),
                progress=progress,
                notice=_notice if first else None,
                saving=options.saving(len(data.x_train)),
            )
        total_digest = pipe.digest()
        spans = pipe.spans() if options.timeline else []
        report = cost.report(pipe, options.hardware)
    if not first:
        return
    print(f"test accuracy: {run.accuracy:.2f} % ({window(options.epochs)})")
    print(f"clock cycles: {run.cycles}")
    print(report, file=sys.stderr)
    print(f"digest: {total_digest}")
    out = options.out
    if out is None:
        return
    result = {
        "options": options.result(),
        "digest": total_digest,
        "accuracy_percent": run.accuracy,
        "clock_cycles": run.cycles,
        "wall_s": run.wall_s,
        "modelled": report.as_dict(),
        "epochs": [epoch._asdict() for epoch in run.epochs],
    }
    write(out / "result.json", (json.dumps(result, indent=2) + "\n").encode())
    with writing(out / "accuracy.png"):
        plots.accuracy_figure({label: run}, out / "accuracy.png")
    print(f"wrote {out / 'result.json'} and {out / 'accuracy.png'}")
    if options.timeline:
        plan = cost.timeline(pipe, options.hardware)
        with writing(out / "timeline.json"):
            paths = write_timelines(out, spans, plan, options.hardware)
        for path in paths:
            print(f"wrote {path}")


def _default_stages(executor: str) -> int:
    if executor != "dist":
        return 4
    from ..pipeline.executors.processes import world_size

    return world_size() or 4


def _notice(text: str) -> None:
    print(f"pulseline: {text}", file=sys.stderr, flush=True)

"""The ``train`` command: one training run, in one process or under torchrun."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from .. import cost, hardware
from .. import train as training
from ..data import Digits, load_digits
from ..errors import ConfigError
from ..hardware import Hardware, RunReport
from ..hardware.presets import DEFAULT
from ..models import converters, crosspoint, device_name, network
from ..pipeline.manifest import write
from ..schedules import NAMES, Span, write_timelines
from ..train import Epoch, Progress, Recipe, Run, Saving
from . import plots
from .arguments import directory, folder, positive, seed_number, whole, writing
from .parser import add_command, add_set
from .remedies import POOR, remedies
from .settings import changes

__all__ = ["EXECUTORS", "TrainOptions", "add_parser", "bar", "run_train", "say", "window"]

EXECUTORS = ("sim", "threads", "dist")


def add_parser(commands: Any) -> None:
    """Add the command to the parser."""
    train = add_command(
        commands,
        "train",
        "train the digits once and print accuracy, clock cycles and the digest of the state",
        """pulseline train --schedule sync --micro-batches 16
        pulseline train --device reram_es --lr 0.03 --set write_noise_std=0
        pulseline train --set up_down=0.3 dw_min=0.01 --io out_res=64 --json
        pulseline train --device mine.json --hardware mine.toml --out run --timeline
        pulseline train --epochs 20 --checkpoint ck --resume
        torchrun --nproc-per-node 4 -m pulseline train --executor dist""",
        "Results go to standard output; a line per epoch, and what the modelled hardware needs,"
        "\nto standard error. Equal arguments give equal digests.",
    )
    train.set_defaults(run=run_train)
    _add_what(train)
    _add_how(train)
    _add_files(train)


def _add_what(train: Any) -> None:
    train.add_argument("--data", choices=("digits",), default="digits", help="training images")
    train.add_argument(
        "--samples",
        type=whole(1),
        default=None,
        metavar="N",
        help="training images to use, the first ones (default: all 1,437)",
    )
    train.add_argument(
        "--model", choices=("mlp",), default="mlp", help="tanh network 64-128-128-64-10"
    )
    train.add_argument(
        "--device",
        default="soft_bounds",
        metavar="NAME",
        help="crosspoints: a model or a preset, such as exp_step or reram_sb; ideal or digital; a "
        "device file (.json)",
    )
    add_set(train, "the device, such as dw_min=0.01 (weights in [-1, 1])")
    add_set(train, "the converters of both directions, such as out_res=64 (levels)", "--io")
    train.add_argument(
        "--hardware",
        default=DEFAULT,
        metavar="NAME",
        help="whose time and energy to model: a preset (pulseline hardware lists them) or a file "
        "(.toml, .json)",
    )


def _add_how(train: Any) -> None:
    train.add_argument(
        "--stages",
        type=whole(1),
        default=None,
        metavar="M",
        help="stages of the pipeline, at most the 4 layers (default: 4; dist: the number of "
        "processes)",
    )
    train.add_argument("--schedule", choices=NAMES, default="async", help="of the stages' passes")
    train.add_argument(
        "--executor",
        choices=EXECUTORS,
        default="sim",
        help="one thread, one per stage, or one process per stage (start with torchrun); the same "
        "digest",
    )
    train.add_argument(
        "--epochs", type=whole(1), default=5, metavar="N", help="passes over the training images"
    )
    train.add_argument(
        "--seed", type=seed_number, default=0, metavar="S", help="of weights, devices, data order"
    )
    train.add_argument(
        "--lr",
        type=positive,
        default=training.LR,
        metavar="RATE",
        help="learning rate of epoch 1, weight per unit of gradient; x 0.8 every epoch",
    )
    train.add_argument(
        "--batch-size",
        type=whole(1, 1 << 31),
        default=1,
        metavar="N",
        help="samples per micro-batch",
    )
    train.add_argument(
        "--micro-batches",
        type=whole(1, 1 << 31),
        default=8,
        metavar="B",
        help="micro-batches per update (sync and gpipe only)",
    )


def _add_files(train: Any) -> None:
    train.add_argument(
        "--checkpoint",
        type=folder,
        default=None,
        metavar="DIR",
        help="directory of checkpoints (default: none are written)",
    )
    train.add_argument(
        "--checkpoint-every",
        type=whole(1),
        default=None,
        metavar="N",
        help="epochs between two checkpoints (default: 1)",
    )
    train.add_argument(
        "--resume", action="store_true", help="continue from the newest checkpoint, if any"
    )
    train.add_argument(
        "--out",
        type=folder,
        default=None,
        metavar="DIR",
        help="directory of result.json and accuracy.png (default: nothing is written)",
    )
    train.add_argument(
        "--timeline", action="store_true", help="write measured and modelled timelines to --out"
    )
    train.add_argument(
        "--json", action="store_true", help="print what result.json holds instead of text"
    )


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


def say(text: str) -> None:
    """A line on standard error that stays, above a progress bar if there is one."""
    from tqdm import tqdm

    tqdm.write(text, file=sys.stderr)
    sys.stderr.flush()


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
    set: dict[str, Any]
    io: dict[str, Any]
    json: bool
    checkpoint: Path | None
    checkpoint_every: int
    resume: bool
    hardware: Hardware
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
        device = device_name(args.device)
        return cls(
            **given
            | {
                "device": device,
                "set": changes(args.set, crosspoint(device)) if args.set else {},
                "io": changes(args.io, converters(device), "--io") if args.io else {},
                "hardware": hardware.find(args.hardware),
                "stages": args.stages or _default_stages(args.executor),
                "checkpoint_every": args.checkpoint_every or 1,
            }
        )

    def saving(self, samples: int) -> Saving | None:
        """Checkpoints of the run on so many training images."""
        if self.checkpoint is None:
            return None
        names = ("data", "model", "device", "set", "io", "seed", "lr")
        config = {name: getattr(self, name) for name in names} | {"samples": samples}
        return Saving(self.checkpoint, self.checkpoint_every, self.resume, config)

    def result(self) -> dict[str, Any]:
        """What a result file says of them: what decides the numbers, not where things lie."""
        files = ("checkpoint", "checkpoint_every", "resume", "hardware", "timeline", "out", "json")
        return {name: value for name, value in asdict(self).items() if name not in files}


def run_train(args: argparse.Namespace) -> None:
    """Train, print accuracy, clock cycles and digest; under torchrun only rank 0 prints."""
    options = TrainOptions.of(args)
    label = f"{options.device} {options.schedule}"
    with training.pipeline(
        network(options.device, options.seed, options.set, options.io),
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
                notice=_notice if first else lambda _: None,
                saving=options.saving(len(data.x_train)),
                finished=_epochs(options.epochs, data) if first else lambda _: None,
            )
        total_digest = pipe.digest()
        spans = pipe.spans() if options.timeline else []
        report = cost.report(pipe, options.hardware, data.x_train[:1])
    if first:
        plan = (
            cost.timeline(pipe, options.hardware, example=data.x_train[:1])
            if options.timeline
            else []
        )
        _tell(options, run, report, total_digest)
        _write(options, {label: [run]}, _result(options, run, report, total_digest), (spans, plan))


def _result(options: TrainOptions, run: Run, report: RunReport, digest: str) -> dict[str, Any]:
    return {
        "options": options.result(),
        "digest": digest,
        "accuracy_percent": run.accuracy,
        "clock_cycles": run.cycles,
        "wall_s": run.wall_s,
        "modelled": report.as_dict(),
        "epochs": [epoch._asdict() for epoch in run.epochs],
    }


def _tell(options: TrainOptions, run: Run, report: RunReport, digest: str) -> None:
    """Results to standard output, the rest to standard error."""
    if options.json:
        print(json.dumps(_result(options, run, report, digest), indent=2))
    else:
        print(f"test accuracy: {run.accuracy:.2f} % ({window(options.epochs)})")
        print(f"clock cycles: {run.cycles}")
    print(report, file=sys.stderr)
    if run.accuracy < POOR and options.device != "digital":
        device = replace(crosspoint(options.device), **options.set)
        _notice(remedies(device, options.lr, run.accuracy))
    if not options.json:
        print(f"digest: {digest}")


def _write(
    options: TrainOptions,
    runs: dict[str, list[Run]],
    result: dict[str, Any],
    timelines: tuple[list[Span], list[Span]],
) -> None:
    out = options.out
    if out is None:
        return
    write(out / "result.json", (json.dumps(result, indent=2) + "\n").encode())
    with writing(out / "accuracy.png"):
        plots.accuracy_figure(runs, out / "accuracy.png")
    said = sys.stderr if options.json else sys.stdout
    print(f"wrote {out / 'result.json'} and {out / 'accuracy.png'}", file=said)
    if options.timeline:
        spans, plan = timelines
        with writing(out / "timeline.json"):
            paths = write_timelines(out, spans, plan, options.hardware.name)
        for path in paths:
            print(f"wrote {path}", file=said)


def _epochs(epochs: int, data: Digits) -> Callable[[Epoch], None]:
    """What says each epoch in a line that stays, on a terminal and elsewhere."""
    start, samples = time.perf_counter(), len(data.x_train)

    def finished(epoch: Epoch) -> None:
        say(
            f"epoch {epoch.samples // samples} of {epochs}: loss {epoch.loss:.4f}, test accuracy "
            f"{epoch.accuracy:.2f} %, {epoch.samples:,} samples, {epoch.cycles:,} clock cycles, "
            f"{time.perf_counter() - start:.1f} s"
        )

    return finished


def _default_stages(executor: str) -> int:
    if executor != "dist":
        return 4
    from ..pipeline.executors.processes import world_size

    return world_size() or 4


def _notice(text: str) -> None:
    print(f"pulseline: {text}", file=sys.stderr, flush=True)

"""The ``train`` command: one training run, in one process or under torchrun."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from .. import cost
from .. import train as training
from ..data import DataSet, as_input
from ..hardware import RunReport
from ..models import crosspoint, on_crossbars
from ..pipeline import Pipeline
from ..pipeline.manifest import write
from ..schedules import Span, write_timelines
from ..train import Epoch, Recipe, Run
from . import plots
from .arguments import writing
from .parser import add_command
from .remedies import POOR, remedies
from .runfile import toml
from .train_logs import bar, board, epochs_said, table
from .train_options import TrainOptions, add_options, loaded

__all__ = ["add_parser", "run_train", "window"]


def add_parser(commands: Any) -> None:
    """Add the command to the parser."""
    train = add_command(
        commands,
        "train",
        "train a network once and print accuracy, clock cycles and the digest of the state",
        """pulseline train --schedule sync --micro-batches 16
        pulseline train --device reram_es --lr 0.03 --set write_noise_std=0
        pulseline train --set up_down=0.3 dw_min=0.01 --io out_res=64 --json
        pulseline train --device mine.json --hardware mine.toml --out run --timeline
        pulseline train --epochs 20 --checkpoint ck --resume
        pulseline train --data mnist --root ~/data --model lenet --batch-size 8 --csv run.csv
        pulseline train --data book.txt --layers 6 --width 256 --batch-size 4 --tensorboard tb
        pulseline train --data cifar10 --model net.py:Net --samples 5000
        pulseline train --config run/run.toml --seed 1
        torchrun --nproc-per-node 4 -m pulseline train --executor dist""",
        "Results go to standard output; a line per epoch, and what the modelled hardware needs,"
        "\nto standard error. Equal arguments give equal digests.",
    )
    train.set_defaults(run=run_train)
    add_options(train)


def window(epochs: int) -> str:
    """What ``Run.accuracy`` is an average over."""
    return f"mean of the last {min(3, epochs)} epochs" if epochs > 1 else "after 1 epoch"


def run_train(args: argparse.Namespace) -> None:
    """Train, print accuracy, clock cycles and digest; under torchrun only rank 0 prints."""
    data, model = loaded(args)
    options = TrainOptions.of(args, data, model)
    label = f"{options.device} {options.schedule}"
    given = (options.device, options.seed, options.set, options.io, options.made_rule)
    with training.pipeline(
        on_crossbars(model, *given),
        options.stages,
        options.lr,
        schedule=options.schedule,
        executor=options.executor,
        micro_batch_size=options.batch_size,
        micro_batches=options.micro_batches,
        measure=options.timeline,
        seed=options.seed,
    ) as pipe:
        for array in cost.arrays(stage.module for stage in pipe.stages):
            array.count_pulses()
        run = _trained(pipe, options, data, label)
        total_digest = pipe.digest()
        spans = pipe.spans() if options.timeline else []
        example = as_input(data.x_train[:1])
        report = cost.report(pipe, options.hardware, example)
    if pipe.rank == 0:
        plan = cost.timeline(pipe, options.hardware, example=example) if options.timeline else []
        result = _result(options, run, report, total_digest)
        _tell(options, data, run, report, result)
        _write(options, {label: [run]}, result, (spans, plan))


def _trained(pipe: Pipeline, options: TrainOptions, data: DataSet, label: str) -> Run:
    """Train; only rank 0 says and writes anything."""
    first, samples = pipe.rank == 0, len(data.x_train)
    with (
        bar(label, options.epochs * samples, first) as progress,
        board(options.tensorboard if first else None, samples) as point,
    ):
        told: list[Callable[[Epoch], object]] = []
        if first:
            told = [epochs_said(options.epochs, data), point]

        def finished(run: Run) -> None:
            for one in told:
                one(run.epochs[-1])
            if first and options.csv is not None:
                table(options.csv, run.epochs, samples)

        return training.train(
            pipe,
            data,
            Recipe(options.epochs, options.lr, options.lr_decay, options.seed),
            progress=progress,
            notice=_notice if first else lambda _: None,
            saving=options.saving(samples),
            finished=finished,
        )


def _result(options: TrainOptions, run: Run, report: RunReport, digest: str) -> dict[str, Any]:
    return {
        "options": options.result(),
        "digest": digest,
        "accuracy_percent": run.accuracy,
        "test_loss": run.epochs[-1].test_loss,
        "clock_cycles": run.cycles,
        "wall_s": run.wall_s,
        "modelled": report.as_dict(),
        "epochs": [epoch._asdict() for epoch in run.epochs],
    }


def _tell(
    options: TrainOptions, data: DataSet, run: Run, report: RunReport, result: dict[str, Any]
) -> None:
    """Results to standard output, the rest to standard error."""
    if options.json:
        print(json.dumps(result, indent=2))
    else:
        print(f"test accuracy: {run.accuracy:.2f} % ({window(options.epochs)})")
        if data.is_text:
            lines = ", ".join(f"{name} {nats:.3f}" for name, nats in data.references)
            print(f"test loss: {run.epochs[-1].test_loss:.4f} nats per byte ({lines})")
        print(f"clock cycles: {run.cycles}")
    print(report, file=sys.stderr)
    if run.accuracy < POOR and options.device != "digital" and not data.is_text:
        device = replace(crosspoint(options.device), **options.set)
        _notice(remedies(device, options.lr, run.accuracy, options.algorithm))
    if not options.json:
        print(f"digest: {result['digest']}")


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
    write(out / "run.toml", toml(options.run_file()).encode())
    with writing(out / "accuracy.png"):
        plots.accuracy_figure(runs, out / "accuracy.png")
    said = sys.stderr if options.json else sys.stdout
    files = [out / name for name in ("result.json", "run.toml", "accuracy.png")]
    print(f"wrote {', '.join(map(str, files[:-1]))} and {files[-1]}", file=said)
    if options.timeline:
        spans, plan = timelines
        with writing(out / "timeline.json"):
            paths = write_timelines(out, spans, plan, options.hardware.name)
        for path in paths:
            print(f"wrote {path}", file=said)


def _notice(text: str) -> None:
    print(f"pulseline: {text}", file=sys.stderr, flush=True)

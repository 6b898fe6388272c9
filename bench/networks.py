"""Networks trained on crossbars against the same ones in plain torch: results and time.

An MLP and LeNet-5 on MNIST, a ResNet of ten layers on CIFAR-10 and a GPT of bytes, three times
each: digital, on crossbars sequentially, and on crossbars by the asynchronous pipeline (four
stages; the MLP has layers for three). The arms of a network take the same samples in the same
order with the same learning rates: as many as the slowest trains within ``--seconds`` (the GPT: in
2.7 times that) by its step before the run, at most ``epochs``. Rates fall linearly to 0 over them:
a smaller budget is a shorter run, not a torn one.

Checked first: on the ideal device with perfect converters a few asynchronous micro-batches leave
the digital parameters to rounding (error column), and every arm lowers the loss of a few samples.
Steps are timed before training, in turn; ratios are those to the digital step. Lines of n-grams are
counted on the whole training text and read on the test samples that are taken.

    python bench/networks.py --root DIR --json FILE           # all of it, 30 minutes on one core
    python bench/networks.py --root DIR --only gpt --seconds 600
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import spread, write_results
from network_cases import CASES, Case
from torch import nn

import pulseline as pl
from pulseline.data import DataSet, as_input, load, ngrams
from pulseline.models import Sizes, crosspoint, digital
from pulseline.train import evaluate, loss_of

DEVICE = "soft_bounds"  # as `pulseline train` takes it: weights in [-1, 1], dw_min .001
POINTS = 5  # evaluations of a run
# (name, on crossbars, schedule)
ARMS = (
    ("digital", False, "sequential"),
    ("sequential", True, "sequential"),
    ("async", True, "async"),
)


def read(case: Case, root: Path) -> DataSet:
    """Its data, images as vectors for the MLP; n-grams read on the test samples that are taken."""
    data = load(case.data, root, context=case.context)
    whole, test = data.x_train, slice(case.test)
    data = data._replace(
        x_train=whole[: case.samples],
        y_train=data.y_train[: case.samples],
        x_test=data.x_test[test],
        y_test=data.y_test[test],
    )
    if data.is_text:
        lines = ngrams(whole.flatten().numpy(), data.x_test.flatten().numpy())
        names = [name for name, _ in data.references]
        data = data._replace(references=tuple(zip(names, lines, strict=True)))
    return data.flat() if case.model == "mlp" else data


def model(case: Case, data: DataSet, crossbar: pl.Crossbar | None) -> nn.Module:
    """The network, always with the same weights; on crossbars if there is one."""
    made = digital(case.model, 1, Sizes(data.shape, data.classes, **dict(case.sizes)))
    return made if crossbar is None else pl.to_analog(made, crossbar, seed=1)


def pipeline(
    case: Case, data: DataSet, crossbar: pl.Crossbar | None, schedule: str, count: int
) -> pl.Pipeline:
    """The network in stages, with rates for ``count`` micro-batches."""
    return pl.Pipeline(
        model(case, data, crossbar),
        case.stages,
        schedule,
        optimizer=pl.optim.AnalogSGD,
        loss=loss_of,
        micro_batch_size=case.batch,
        lr=case.rate(count),
        seed=0,
    )


def arms(case: Case, data: DataSet, count: int) -> dict[str, pl.Pipeline]:
    """A fresh pipeline of every arm."""
    fitting = pl.configs.Mapping(omega="auto")  # nothing of the first weights is clipped
    crossbar = pl.Crossbar(crosspoint(DEVICE), mapping=fitting, algorithm=case.rule())
    return {
        name: pipeline(case, data, crossbar if analog else None, schedule, count)
        for name, analog, schedule in ARMS
    }


def ideal_error(case: Case, data: DataSet) -> float:
    """Largest difference of a parameter, ideal crossbars to plain torch, after a few updates."""
    crossbar = pl.Crossbar(pl.devices.Ideal(), pl.configs.IOConfig.perfect())
    found = []
    for one in (None, crossbar):
        pipe = pipeline(case, data, one, "async", 1000)
        some = slice(4 * case.batch)
        pipe.step(as_input(data.x_train[some]), data.y_train[some])
        pipe.drain()
        modules = [stage.module for stage in pipe.stages]
        found.append([p.detach() for part in modules for p in part.parameters()])
    return max(float((a - b).abs().max()) for a, b in zip(*found, strict=True))


def learns(case: Case, data: DataSet) -> dict[str, tuple[float, float]]:
    """Mean loss of the first and the last of 40 passes over two small micro-batches, by arm."""
    case = replace(case, batch=min(case.batch, 4))
    some = slice(2 * case.batch)
    x, y = as_input(data.x_train[some]), data.y_train[some]
    found = {}
    for name, pipe in arms(case, data, 160).items():
        losses = torch.cat([*(pipe.step(x, y) for _ in range(40)), pipe.drain()])
        found[name] = (float(losses[:2].mean()), float(losses[-2:].mean()))
        if not found[name][1] < 0.9 * found[name][0]:
            raise SystemExit(f"{case.name}, {name}: loss goes from %.3f to %.3f" % found[name])
    return found


def times(case: Case, data: DataSet, seconds: float) -> dict[str, list[float]]:
    """Seconds per micro-batch of every arm, in turn."""
    pipes = arms(case, data, 10**9)
    count = 8
    some = slice(count * case.batch)
    x, y = as_input(data.x_train[some]), data.y_train[some]
    found: dict[str, list[float]] = {name: [] for name in pipes}
    for pipe in pipes.values():
        pipe.step(x, y)
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(found["digital"]) < 5:
        for name, pipe in pipes.items():
            start = time.perf_counter()
            pipe.step(x, y)
            found[name].append((time.perf_counter() - start) * case.batch / len(x))
    return found


def run(case: Case, data: DataSet, name: str, count: int) -> dict[str, Any]:
    """Train one arm on ``count`` micro-batches."""
    pipe = arms(case, data, count)[name]
    order, draw = np.empty(0, np.int64), np.random.default_rng(0)
    while len(order) < count * case.batch:
        order = np.concatenate([order, draw.permutation(len(data.x_train))])
    samples = torch.from_numpy(order[: count * case.batch])
    wall, points = 0.0, []
    for part in torch.tensor_split(samples, POINTS):
        start, losses = time.perf_counter(), []
        for some in torch.split(part, 16 * case.batch):
            losses.append(pipe.step(as_input(data.x_train[some]), data.y_train[some]))
        losses.append(pipe.drain())
        wall += time.perf_counter() - start
        right, test_loss = evaluate(pipe, data.x_test, data.y_test)
        done = (points[-1]["samples"] if points else 0) + len(part)
        loss = float(torch.cat(losses).mean())
        points.append(
            {"samples": done, "seconds": wall, "loss": loss, "accuracy": right, "test": test_loss}
        )
        said = f"{done:8d} samples {wall:7.1f} s  loss {loss:.3f}  test {test_loss:.4f} nats"
        print(f"  {case.name:7s}{name:11s}{said}  {right:.2f} %", flush=True)
    return {"arm": name, "seconds": wall, "cycles": pipe.cycles, "points": points}


def measure(case: Case, root: Path, seconds: float, count: int | None) -> dict[str, Any]:
    """All arms of a network; ``count`` micro-batches, or what ``seconds`` allow."""
    data = read(case, root)
    error = ideal_error(case, data)
    first = learns(case, data)
    took = times(case, data, min(10.0, seconds / 10))
    base = statistics.median(took["digital"])
    if count is None:
        slowest = max(statistics.median(one) for one in took.values())
        most = case.epochs * (len(data.x_train) // case.batch)
        count = max(4 * POINTS, min(most, int(seconds / slowest)))
    print(
        f"{case.name}: {case.data}, {len(data.x_train)} training samples of {data.shape}, {count} "
        f"micro-batches of {case.batch}, error on ideal crossbars {error:.1e}"
    )
    for line, nats in data.references:
        print(f"  {line} {nats:.3f} nats")
    rows = []
    for name in took:
        step = statistics.median(took[name])
        row = {"network": case.name, "error": error, "learns": first[name]}
        row |= {"step_s": step, "spread": spread(took[name]), "ratio": step / base}
        rows.append(row | run(case, data, name, count))
    tell(case, data, rows)
    case_told = asdict(case) | {"rule": repr(case.rule()), "references": data.references}
    return {"case": case_told, "micro_batches": count, "rows": rows}


def tell(case: Case, data: DataSet, rows: list[dict[str, Any]]) -> None:
    """What was reached, and by how much the bar is met or missed."""
    ends = [row["points"][-1] for row in rows]
    for row, end in zip(rows, ends, strict=True):
        print(
            f"{case.name:7s}{row['arm']:11s}{row['step_s'] * 1e3:8.2f} ms/step  ratio "
            f"{row['ratio']:5.2f}  spread {row['spread']:.2f}  error {row['error']:.1e}  test "
            f"{end['test']:.4f} nats  {end['accuracy']:.2f} %  {row['seconds']:.0f} s"
        )
        if data.is_text:
            over = end["test"] - dict(data.references)["bigram"]
            tokens = end["samples"] * case.context
            bar = f"{over:+.3f} nats to the bigram line, {tokens} tokens"
            print(f"  {bar}, {row['seconds'] / 3600:.3f} h: {'missed' if over > 0 else 'reached'}")
        elif row["arm"] != "digital":
            less = end["accuracy"] - ends[0]["accuracy"]
            met = "" if case.bar is None else ": " + ("reached" if less >= -case.bar else "missed")
            print(f"  {less:+.2f} points to digital{met}")


def draw(found: list[dict[str, Any]], file: str) -> None:
    """Test loss over samples, a panel per network, with the lines of counted n-grams."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(found), figsize=(4 * len(found), 3.5), squeeze=False)
    for axis, one in zip(axes[0], found, strict=True):
        for row in one["rows"]:
            points = row["points"]
            x = [point["samples"] for point in points]
            axis.plot(x, [point["test"] for point in points], "o-", label=row["arm"])
        for name, nats in one["case"]["references"]:
            axis.axhline(nats, color="grey", lw=0.8)
            axis.annotate(name, (0, nats), fontsize=7)
        axis.set(title=one["case"]["name"], xlabel="samples", ylabel="test loss (nats)")
    axes[0][0].legend()
    figure.tight_layout()
    figure.savefig(file)
    plt.close(figure)


def write(one: dict[str, Any], path: Path) -> None:
    """Put a network into a file of several, in the place of what it held of it."""
    name = one["case"]["name"]
    held = json.loads(path.read_text()) if path.exists() else []
    kept = {case["case"]["name"]: case for case in held} | {name: one}
    write_results([kept[known] for known in CASES if known in kept], path)


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--root", type=Path, default=Path("data"), help="of mnist, cifar10 and text")
    p.add_argument("--only", help=f"of {', '.join(CASES)}, separated by commas")
    p.add_argument("--seconds", type=float, default=110.0, help="per arm, of a GPT 2.7 times that")
    p.add_argument("--micro-batches", type=int, help="per arm, instead of --seconds")
    p.add_argument("--threads", type=int, default=1, help="of torch")
    p.add_argument("--set", nargs="*", default=[], metavar="FIELD=N", help="such as lr=0.1")
    p.add_argument("--json", metavar="FILE", help="its other networks stay")
    p.add_argument("--figure", metavar="FILE", help="test losses, with the lines of n-grams")
    args = p.parse_args()
    torch.set_num_threads(args.threads)
    found = []
    for name in (args.only or ",".join(CASES)).split(","):
        case = CASES[name]()
        given = dict(one.split("=", 1) for one in args.set)
        case = replace(case, **{k: type(getattr(case, k))(float(v)) for k, v in given.items()})
        found.append(measure(case, args.root, args.seconds * case.share, args.micro_batches))
        if args.json:
            write(found[-1], Path(args.json))
        if args.figure:
            draw(found, args.figure)


if __name__ == "__main__":
    main()

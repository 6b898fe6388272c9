"""Executors of the pipeline against `sim` on equal work: 4 layers of 1024x1024, micro-batch 32, or
a GPT of bytes, cut where measured times balance.

Checked first: every executor ends with the digest of `sim` on as many stages, noise on. Then the
time per micro-batch of a filled pipeline with one flush, runs of all executors in turn; `dist`
runs 2 processes with two layers each under torchrun, by itself: messages through shared memory and
by gloo, in turn. The baseline is `sim` with one intra-op thread; two threads are printed beside it.

What is lost is printed under it, from one more run of each: `balance` (mean over slowest stage of
the operations' time in `sim`), `work` (processor time over that of `sim`: what waiting, memory and
switching cost) and `bound` (workers x balance / work x n / (n + stages - 1) with min(stages, cores)
workers and n micro-batches: the speed-up on cores that are free). On a machine with other work
these say more than the speed-up.

    python bench/pipeline.py
    python bench/pipeline.py --executors threads --size 256 --repeats 3 --json out/pipeline.json
    python bench/pipeline.py --model gpt --size 256 --layers 6 --batch 2 --context 128
    python bench/pipeline.py --operations --size 128 --batch 1

With ``--operations`` it prints instead what forward, backward and update of one inner stage take
(`sim`, one thread, bookkeeping of the stage included).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from common import machine, spread
from torch import Tensor, nn

import pulseline as pl
from pulseline.models import Sizes, digital, on_crossbars
from pulseline.pipeline.executors import dist
from pulseline.train import loss_of

HERE = Path(__file__).resolve()


@dataclass
class Row:
    """One executor; seconds per micro-batch: median and half the interquartile range over it."""

    executor: str
    stages: int
    threads: int
    seconds: float
    spread: float
    speedup: float
    digest: str
    balance: float | None = None
    work: float | None = None
    bound: float | None = None


def model(args: argparse.Namespace) -> nn.Module:
    """Square analog layers with tanh between them, or a GPT; always with the same weights."""
    if args.model == "gpt":
        sizes = Sizes((args.context,), 256, args.size, args.layers, 4)
        return on_crossbars(digital("gpt", 1, sizes), "soft_bounds", 1)
    device = pl.devices.SoftBounds(w_max=1.0, w_min=-1.0, dw_min=0.001)
    layers: list[nn.Module] = []
    for tile_id in range(args.layers):
        layer = pl.nn.AnalogLinear(
            args.size, args.size, bias=False, device=device, seed=1, tile_id=tile_id
        )
        layers += [layer, nn.Tanh()]
    return nn.Sequential(*layers)


def optimizer(parameters: Iterable[nn.Parameter]) -> pl.optim.AnalogSGD:
    return pl.optim.AnalogSGD(parameters, lr=0.01)


def loss(args: argparse.Namespace) -> Callable[[Tensor, Tensor], Tensor]:
    return loss_of if args.model == "gpt" else nn.functional.mse_loss


def counts(args: argparse.Namespace, stages: int) -> list[int] | None:
    """Layers per stage: those given, or measured for a GPT; None: equal numbers."""
    if args.counts:
        return [int(n) for n in args.counts.split(",")]
    if args.model != "gpt":
        return None
    x, y = (one[: 6 * args.batch] for one in samples(args))
    found = pl.pipeline.measured_balance(
        *(model(args), stages, x, y),
        optimizer=optimizer,
        loss=loss(args),
        micro_batch_size=args.batch,
    )
    print(f"{stages} stages: layers {found.counts}, imbalance {found.imbalance:.3f}")
    return [*found.counts]


def pipeline(args: argparse.Namespace, executor: str, stages: int) -> pl.Pipeline:
    if stages not in args.cuts:
        args.cuts[stages] = counts(args, stages)
    return pl.Pipeline(
        model(args),
        stages,
        optimizer=optimizer,
        loss=loss(args),
        schedule="async",
        executor=executor,
        micro_batch_size=args.batch,
        balance=args.cuts[stages],
        measure=True,
        seed=0,
        stage_threads=1 if args.model == "gpt" and executor != "sim" else None,
    )


def samples(args: argparse.Namespace) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    if args.model == "gpt":
        shape = (args.batch * args.micro_batches, args.context + 1)
        ids = torch.randint(256, shape, generator=generator)
        return ids[:, :-1], ids[:, 1:]
    x, y = torch.randn(2, args.batch * args.micro_batches, args.size, generator=generator)
    return x, y.tanh()


class Contender:
    """An executor that has run once: its digest is taken, everything is warm."""

    def __init__(self, args: argparse.Namespace, executor: str, stages: int, threads: int) -> None:
        self.executor, self.stages, self.threads = executor, stages, threads
        self.count = args.micro_batches
        self.x, self.y = samples(args)
        torch.set_num_threads(threads)
        self.pipe = pipeline(args, executor, stages)
        self.times: list[float] = []
        self.run()
        self.digest = self.pipe.digest()

    def run(self) -> float:
        """Seconds per micro-batch of one pass over the samples, with a flush at its end."""
        torch.set_num_threads(self.threads)
        self.pipe.share(None)  # processes start together
        start = time.perf_counter()
        self.pipe.step(self.x, self.y)
        self.pipe.drain()
        self.pipe.share(None)
        return (time.perf_counter() - start) / self.count

    def row(self, baseline: float) -> Row:
        seconds = statistics.median(self.times)
        name = (self.executor, self.stages, self.threads)
        return Row(*name, seconds, spread(self.times), baseline / seconds, self.digest[:16])


def explain(row: Row, contender: Contender, sim: Contender) -> None:
    """Balance, work and bound from one more run of each, in turn."""
    first, cpu = sim.pipe.micro_batches, []
    for one in (sim, contender):
        start = time.process_time()
        one.run()
        cpu.append(time.process_time() - start)
    took: dict[tuple[int, str], list[float]] = {}
    for span in sim.pipe.spans():
        if span.mb >= first:
            took.setdefault((span.stage, span.kind), []).append(span.end - span.start)
    m = sim.stages
    stages = [sum(statistics.median(took[n, kind]) for kind in "FBU") for n in range(1, m + 1)]
    row.balance = sum(stages) / m / max(stages)
    row.work = cpu[1] / cpu[0]
    workers = min(m, os.cpu_count() or 1)
    # fewer workers than stages: the slowest stage no longer decides
    even = row.balance if workers == m else 1.0
    row.bound = workers * even / row.work * sim.count / (sim.count + m - 1)


def race(contenders: list[Contender], repeats: int) -> None:
    """All in turn, so that a slow moment of the machine hits everybody."""
    for _ in range(repeats):
        for contender in contenders:
            contender.times.append(contender.run())


def worker(args: argparse.Namespace) -> None:
    """One process of `dist`; rank 0 leaves times and digests in ``args.worker``."""
    contenders = {"dist": Contender(args, "dist", args.dist_stages, 1)}
    with gloo():
        contenders["dist, gloo"] = Contender(args, "dist", args.dist_stages, 1)
    race(list(contenders.values()), args.repeats)
    if contenders["dist"].pipe.rank == 0:
        found = {name: (one.times, one.digest) for name, one in contenders.items()}
        Path(args.worker).write_text(json.dumps(found))
    for one in contenders.values():
        one.pipe.close()


@contextmanager
def gloo() -> Iterator[None]:
    """Pipelines that are built here send messages by gloo, also on one machine."""
    original = dist.Distributed
    dist.Distributed = lambda *given: original(*given, "gloo")  # type: ignore[assignment, misc]
    try:
        yield
    finally:
        dist.Distributed = original  # type: ignore[misc]


def distributed(args: argparse.Namespace) -> dict[str, tuple[list[float], str]]:
    """Times and digest of both kinds of `dist`, from processes under torchrun."""
    names = ("size", "layers", "batch", "micro_batches", "repeats", "dist_stages")
    names += ("model", "context")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "times.json"
        options = [f"--{n.replace('_', '-')}={getattr(args, n)}" for n in names]
        if cut := args.cuts[args.dist_stages]:
            options.append(f"--counts={','.join(map(str, cut))}")
        run = ["-m", "torch.distributed.run", "--standalone"]
        run += ["--nproc-per-node", str(args.dist_stages), str(HERE)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, *run, *options, f"--worker={file}"]
        subprocess.run(command, env=environment, check=True, timeout=600)
        found = json.loads(file.read_text())
    return {name: (times, digest) for name, (times, digest) in found.items()}


def check(name: str, digest: str, expected: str) -> None:
    """Correctness first: no time is printed for wrong bits."""
    if digest != expected:
        raise SystemExit(f"{name} ends with digest {digest[:16]}, sim with {expected[:16]}")


def measure(args: argparse.Namespace) -> list[Row]:
    executors = args.executors.split(",")
    stage_counts = [int(n) for n in args.stages.split(",")] if "threads" in executors else []
    both = sorted({*stage_counts, *([args.dist_stages] if "dist" in executors else [])})
    # a GPT's normalisations have other last bits on another number of torch's threads
    alone = (1,) if args.model == "gpt" else (1, 2)
    contenders = [Contender(args, "sim", n, threads) for n in both for threads in alone]
    sims = {(c.stages, c.threads): c for c in contenders}
    for stages in stage_counts:
        contenders.append(Contender(args, "threads", stages, 1))
    for contender in contenders:
        name = f"{contender.executor} on {contender.stages} stages, {contender.threads} threads"
        check(name, contender.digest, sims[contender.stages, 1].digest)
    race(contenders, args.repeats)
    base = {n: statistics.median(sims[n, 1].times) for n in both}
    rows = [contender.row(base[contender.stages]) for contender in contenders]
    for contender, row in zip(contenders, rows, strict=True):
        if contender.executor == "threads":
            explain(row, contender, sims[contender.stages, 1])
    for contender in contenders:
        contender.pipe.close()
    if "dist" in executors:
        n = args.dist_stages
        found = distributed(args)
        # what sim takes now, with nothing else of ours running
        again = statistics.median([sims[n, 1].run() for _ in range(args.repeats)])
        for name, (times, digest) in found.items():
            check(f"{name} on {n} processes", digest, sims[n, 1].digest)
            seconds = statistics.median(times)
            speedup = min(base[n], again) / seconds
            rows.append(Row(name, n, 1, seconds, spread(times), speedup, digest[:16]))
    return rows


def operations(args: argparse.Namespace) -> None:
    """Microseconds of F, B and U of the second stage: neither end of the pipeline."""
    torch.set_num_threads(1)
    pipe = pipeline(args, "sim", args.layers)
    x, y = samples(args)
    stage, times = pipe.stages[1], {name: [] for name in ("forward", "backward", "update")}

    def timed(name: str) -> Callable[..., object]:
        call, found = getattr(stage, name), times[name]

        def run(*given: object) -> object:
            start = time.perf_counter()
            result = call(*given)
            found.append(time.perf_counter() - start)
            return result

        return run

    for name in times:
        setattr(stage, name, timed(name))
    pipe.step(x, y)  # warm
    for found in times.values():
        found.clear()
    for _ in range(args.repeats):
        pipe.step(x, y)
    pipe.drain()
    pipe.close()
    print(f"a stage of {args.size}x{args.size} of {args.layers}, micro-batches of {args.batch}")
    for name, found in times.items():
        low, median = min(found) * 1e6, statistics.median(found) * 1e6
        print(f"{name:10s}{median:8.1f} us (median of {len(found)}), least {low:.1f}")


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--operations", action="store_true", help="time F, B and U of a stage")
    p.add_argument("--executors", default="threads,dist")
    p.add_argument("--model", choices=("mlp", "gpt"), default="mlp")
    p.add_argument("--size", type=int, default=1024, help="units of a layer, width of a token")
    p.add_argument("--layers", type=int, default=4, help="layers, or blocks of the GPT")
    p.add_argument("--context", type=int, default=128, help="tokens of a sample of the GPT")
    p.add_argument("--counts", help="layers with parameters of each stage (default: measured)")
    p.add_argument("--batch", type=int, default=32, help="samples per micro-batch")
    p.add_argument(
        "--micro-batches", type=int, default=64, help="per run: fill and flush count in it"
    )
    p.add_argument("--repeats", type=int, default=5)
    p.add_argument("--stages", default="2,4", help="stages of threads")
    p.add_argument("--dist-stages", type=int, default=2)
    p.add_argument("--json", metavar="FILE")
    p.add_argument("--worker", help=argparse.SUPPRESS)
    args = p.parse_args()
    args.cuts = {}
    if args.worker:
        worker(args)
        return
    if args.operations:
        operations(args)
        return
    where = machine()
    print(
        f"{args.model}: {args.layers} layers of {args.size}, micro-batches of {args.batch}, on "
        f"{where['processor']}, {where['cores']} cores, {where['isa']}"
    )
    rows = measure(args)
    print(f"{'executor':10s}{'stages':>7s}{'threads':>9s}{'ms/micro-batch':>16s}{'spread':>8s}")
    for row in rows:
        own = f"{row.stages} x {row.threads}" if row.executor != "sim" else str(row.threads)
        print(
            f"{row.executor:10s}{row.stages:7d}{own:>9s}{row.seconds * 1e3:16.2f}"
            f"{row.spread:8.2f}  {row.speedup:5.2f} x sim with 1 thread, digest {row.digest}"
        )
        if row.bound is not None:
            print(f"{'':10s}balance {row.balance:.3f}, work {row.work:.3f}, bound {row.bound:.2f}")
    if args.json:
        path = Path(args.json)
        path.parent.mkdir(parents=True, exist_ok=True)
        found = {"machine": where, "rows": [asdict(row) for row in rows]}
        path.write_text(json.dumps(found, indent=1) + "\n")
        print(f"wrote {path}")


if __name__ == "__main__":
    main()

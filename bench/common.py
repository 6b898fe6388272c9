"""What the benchmarks share: interleaved timing, profiles of inputs, rows, the machine's name."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

import pulseline as pl

LR = {"mnistlike": 4e-4, "gauss_bl1": 1e-4, "gauss_bl31": 1e-2, "uniform_k5": 5e-3}


@dataclass
class Row:
    """One measurement: medians; spread is half the interquartile range over the median."""

    op: str
    device: str
    fidelity: str
    profile: str
    rows: int
    cols: int
    batch: int
    threads: int
    isa: str
    seconds: float
    baseline_seconds: float
    ratio: float
    crosspoint_samples_per_s: float
    error: float | None
    spread: float
    baseline_spread: float


def inputs(profile: str, batch: int, rows: int, cols: int) -> tuple[torch.Tensor, torch.Tensor]:
    """x (batch, cols) and d (batch, rows).

    mnistlike: blobs of non-zero x, heavy-tailed half-zero d; gauss_*: normal x and d; uniform_k5:
    uniform x and normal d, each scaled to a largest magnitude of 1 per sample.
    """
    g = torch.Generator().manual_seed(1)

    def normal(n: int) -> torch.Tensor:
        return torch.randn(batch, n, generator=g)

    if profile == "mnistlike":
        seeds = (torch.rand(batch, 1, cols, generator=g) < 0.02).float()
        blobs = torch.nn.functional.max_pool1d(seeds, 9, 1, 4)[:, 0]
        x = torch.rand(batch, cols, generator=g) * blobs
        half = (torch.rand(batch, rows, generator=g) < 0.5).float()
        return x, normal(rows) * torch.exp(0.7 * normal(rows)) * half
    if profile == "uniform_k5":
        x, d = torch.rand(batch, cols, generator=g), normal(rows)
        return x / x.amax(1, keepdim=True), d / d.abs().amax(1, keepdim=True)
    return normal(cols), normal(rows)


Clock = Callable[[], float]


def race(
    ours: Callable[[], object],
    baseline: Callable[[], object],
    seconds: float,
    clock: Clock = time.perf_counter,
) -> tuple[list[float], list[float]]:
    """Run both in turn until ``seconds`` have passed (at least 7 times each)."""
    a: list[float] = []
    b: list[float] = []
    for f in (ours, baseline, ours, baseline):
        f()
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(a) < 7:
        inner = 1 if not a or min(a[0], b[0]) > 2e-4 else 20  # short ones in runs, caches warm
        a.append(_mean(ours, inner, clock))
        b.append(_mean(baseline, inner, clock))
        if len(a) > 4000:
            break
    return a, b


def _mean(f: Callable[[], object], n: int, clock: Clock) -> float:
    start = clock()
    for _ in range(n):
        f()
    return (clock() - start) / n


def spread(times: list[float]) -> float:
    """Half the interquartile range, relative to the median."""
    q = statistics.quantiles(times, n=4)
    return (q[2] - q[0]) / 2 / statistics.median(times)


def machine() -> dict[str, str]:
    """Where and with what this ran."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = [s for s in info.read_text().splitlines() if s.startswith("model name")]
        model = lines[0].split(":", 1)[1].strip() if lines else model
    return {
        "processor": model,
        "cores": str(os.cpu_count()),
        "isa": str(pl.ops.info()["isa"]),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "date": time.strftime("%Y-%m-%d"),
        "command": " ".join(["python", *sys.argv]),
    }


def gpu_machine() -> dict[str, str]:
    """The GPU and the CUDA that torch brings."""
    if not torch.cuda.is_available():
        return {}
    return {"gpu": torch.cuda.get_device_name(0), "cuda": str(torch.version.cuda)}


def parser(text: str) -> argparse.ArgumentParser:
    """Options that every benchmark has."""
    p = argparse.ArgumentParser(description=text)
    p.add_argument("--json", metavar="FILE", help="write the rows there")
    p.add_argument("--sizes", default="128,256,512,1024,2048")
    p.add_argument("--batches", default="1,16,64,256")
    p.add_argument("--threads", default="1,2")
    p.add_argument("--compare", metavar="aihwkit", help="add its rows if it can be imported")
    p.add_argument("--isa", help="force this instruction set, see `pulseline info`")
    p.add_argument("--seconds", type=float, default=0.4, help="time per measurement")
    return p


def numbers(text: str) -> list[int]:
    """1,2,3 as a list."""
    return [int(t) for t in text.split(",") if t]


def write(rows: list[Row], file: str | None) -> None:
    """Rows to a JSON list, the machine beside them."""
    if file:
        write_results([asdict(r) for r in rows], Path(file))
        print(f"wrote {file}")


def write_results(found: list[dict[str, Any]], path: Path) -> None:
    """What was found to a JSON list, the machine beside it."""
    path.write_text(json.dumps(found, indent=1) + "\n")
    path.with_suffix(".machine.json").write_text(json.dumps(machine(), indent=1) + "\n")


HEADER = (
    f"{'op':9s}{'device':13s}{'fidelity':10s}{'profile':11s}{'shape':>11s}{'batch':>6s}{'thr':>4s}"
    f"{'ours us':>10s}{'torch us':>10s}{'ratio':>7s}{'spread':>8s}{'Gcps/s':>8s}{'error':>9s}"
)


def show(r: Row) -> None:
    """One line of the table."""
    print(
        f"{r.op:9s}{r.device:13s}{r.fidelity:10s}{r.profile:11s}{f'{r.rows}x{r.cols}':>11s}"
        f"{r.batch:6d}{r.threads:4d}{r.seconds * 1e6:10.1f}{r.baseline_seconds * 1e6:10.1f}"
        f"{r.ratio:7.2f}{r.spread:8.2f}{r.crosspoint_samples_per_s / 1e9:8.2f}"
        + ("        -" if r.error is None else f"{r.error:9.1e}"),
        flush=True,
    )


def measure(
    names: tuple[str, str, str, str],
    shape: tuple[int, int, int],
    threads: int,
    ours: Callable[[], object],
    baseline: Callable[[], object],
    error: float,
    seconds: float,
    clock: Clock = time.perf_counter,
) -> Row:
    """Time both: names are op, device, fidelity, profile; shape is rows, cols, batch."""
    a, b = race(ours, baseline, seconds, clock)
    t, t0 = statistics.median(a), statistics.median(b)
    work = shape[0] * shape[1] * shape[2]
    isa = str(pl.ops.info()["isa"])
    row = Row(*names, *shape, threads, isa, t, t0, t / t0, work / t, error, spread(a), spread(b))
    show(row)
    return row

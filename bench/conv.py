"""Training steps of convolutions: torch's against analog ones, in one run.

Forward, backward to the input, and SGD of one layer, batch 32, at ResNet's shapes: 64 channels on
32 x 32, 128 on 16 x 16, 256 on 8 x 8, all 3 x 3; pointwise, and depthwise for comparison. Inputs
are normals behind a ReLU, errors normals over samples and positions, as behind a mean loss and a
global mean; lr is ResNet's .1 at batch 128. Columns: torch; our kernels with the ideal device and
perfect converters; SoftBounds with perfect converters, and with all converters and noise on.

Checked first: after one step the ideal layer's weights equal torch's to rounding (error column).

    python bench/conv.py --threads 1,2 --json bench/results/conv.json
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import torch
from common import machine, numbers, spread
from torch import nn

import pulseline as pl

SOFT = pl.devices.SoftBounds(w_max=1.0, w_min=-1.0)
ARMS = {
    "digital": None,
    "ideal": (pl.devices.Ideal(), pl.configs.IOConfig.perfect()),
    "soft_bounds, perfect": (SOFT, pl.configs.IOConfig.perfect()),
    "soft_bounds": (SOFT, pl.configs.IOConfig()),
}
# channels, image, kernel, groups
SHAPES = {
    "64x32": (64, 32, 3, 1),
    "128x16": (128, 16, 3, 1),
    "256x8": (256, 8, 3, 1),
    "pointwise": (256, 8, 1, 1),
    "depthwise": (64, 32, 3, 64),
}
LR = 0.025


def workload(name: str, batch: int) -> tuple[nn.Conv2d, torch.Tensor, torch.Tensor]:
    """Layer, input, errors."""
    channels, size, kernel, groups = SHAPES[name]
    torch.manual_seed(0)
    layer = nn.Conv2d(channels, channels, kernel, padding=kernel // 2, groups=groups, bias=False)
    x = torch.randn(batch, channels, size, size).relu()
    return layer, x, torch.randn_like(x) / (batch * size * size)


class Steps:
    """One column: forward, backward and update, timed one by one."""

    def __init__(self, name: str, arm: str, batch: int) -> None:
        self.layer, self.x, self.d = workload(name, batch)
        self.x.requires_grad_()
        kind = ARMS[arm]
        if kind is None:
            self.optimizer: torch.optim.Optimizer = torch.optim.SGD(self.layer.parameters(), LR)
        else:
            device, io = kind
            self.layer = pl.to_analog(self.layer, device, io=io, seed=0)
            self.optimizer = pl.optim.AnalogSGD(self.layer.parameters(), lr=LR)

    def step(self) -> tuple[float, float, float]:
        """Seconds of the three."""
        self.optimizer.zero_grad()
        self.x.grad = None
        t0 = time.perf_counter()
        y = self.layer(self.x)
        t1 = time.perf_counter()
        y.backward(self.d)
        t2 = time.perf_counter()
        self.optimizer.step()
        return t1 - t0, t2 - t1, time.perf_counter() - t2


def ideal_error(name: str, batch: int) -> float:
    """Largest difference between torch's and the ideal layer's weights after one step."""
    weights = []
    for arm in ("digital", "ideal"):
        one = Steps(name, arm, batch)
        one.step()
        weights.append(one.layer.weight.detach().clone())
    return float((weights[0] - weights[1]).abs().max())


def measure(name: str, threads: int, batch: int, seconds: float) -> list[dict[str, object]]:
    """All columns of one shape, in turn, until the time is up."""
    torch.set_num_threads(threads)
    error = ideal_error(name, batch)
    steps = {arm: Steps(name, arm, batch) for arm in ARMS}
    times: dict[str, list[tuple[float, float, float]]] = {arm: [] for arm in ARMS}
    for one in steps.values():
        one.step()
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times["digital"]) < 7:
        for arm, one in steps.items():
            times[arm].append(one.step())
    base = statistics.median(sum(t) for t in times["digital"])
    rows = []
    for arm, found in times.items():
        whole = [sum(t) for t in found]
        parts = [statistics.median(t[n] for t in found) * 1e3 for n in range(3)]
        row: dict[str, object] = {
            "shape": name,
            "threads": threads,
            "arm": arm,
            "forward_ms": parts[0],
            "backward_ms": parts[1],
            "update_ms": parts[2],
            "ratio": statistics.median(whole) / base,
            "spread": spread(whole),
            "ideal_error": error,
        }
        rows.append(row)
        text = " ".join(f"{p:8.2f}" for p in parts)
        print(
            f"{name:10s} threads {threads} {arm:21s} {text} ms  ratio {row['ratio']:5.2f}  "
            f"spread {row['spread']:.2f}  ideal error {error:.1e}",
            flush=True,
        )
    return rows


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--shapes", default=",".join(SHAPES))
    p.add_argument("--threads", default="1,2")
    p.add_argument("--batch", type=int, default=32)
    p.add_argument("--seconds", type=float, default=10.0, help="time per shape and thread count")
    p.add_argument("--json", metavar="FILE")
    args = p.parse_args()
    rows = []
    for name in args.shapes.split(","):
        for threads in numbers(args.threads):
            rows += measure(name, threads, args.batch, args.seconds)
    if args.json:
        found = {"machine": machine(), "rows": rows}
        Path(args.json).write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()

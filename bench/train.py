"""Whole training steps: digital torch against analog tiles, in one run.

MLP 784-256-128-10 with tanh (batch 10 and 64) and the six linear layers of a transformer block
(d = 512, 128 tokens), on SGD. Columns: digital torch; the same on our kernels with the ideal device
and perfect converters; SoftBounds and ExpStep with all converters and noise on.

Checked first: after one step the ideal network's weights equal torch's to rounding (error column).

    python bench/train.py --threads 1
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import time
from pathlib import Path

import torch
from common import machine, numbers, spread

import pulseline as pl

ARMS = {
    "digital": None,
    "ideal": (pl.devices.Ideal(), pl.configs.IOConfig.perfect()),
    "soft_bounds": (pl.devices.SoftBounds(w_max=1.0, w_min=-1.0), pl.configs.IOConfig()),
    "exp_step": (pl.devices.ExpStep(w_max=1.0, w_min=-1.0), pl.configs.IOConfig()),
}


class Block(torch.nn.Module):
    """The linear layers of a transformer block: q, k, v, output, and the two of the MLP."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.q, self.k, self.v, self.o = (torch.nn.Linear(width, width) for _ in range(4))
        self.up, self.down = torch.nn.Linear(width, 4 * width), torch.nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x + self.o(torch.tanh(self.q(x)) * torch.sigmoid(self.k(x)) + self.v(x))
        return y + self.down(torch.relu(self.up(y)))


def mlp() -> torch.nn.Module:
    """784-256-128-10 with tanh."""
    sizes = (784, 256, 128, 10)
    layers: list[torch.nn.Module] = []
    for i, o in itertools.pairwise(sizes):
        layers += [torch.nn.Linear(i, o), torch.nn.Tanh()]
    return torch.nn.Sequential(*layers[:-1])


def workload(name: str) -> tuple[torch.nn.Module, torch.Tensor, torch.Tensor, float]:
    """Model, input, target and learning rate."""
    torch.manual_seed(0)
    if name == "block":
        return Block(512), torch.randn(128, 512), torch.randn(128, 512), 0.01
    batch = int(name.removeprefix("mlp"))
    blobs = torch.nn.functional.max_pool1d((torch.rand(batch, 1, 784) < 0.02).float(), 9, 1, 4)
    x = torch.rand(batch, 784) * blobs[:, 0]
    return mlp(), x, torch.randint(0, 10, (batch,)), 0.05


def stepper(model: torch.nn.Module, x: torch.Tensor, y: torch.Tensor, optimizer):
    """One step of SGD as a function."""
    f = torch.nn.functional
    loss = f.cross_entropy if y.dtype == torch.int64 else f.mse_loss

    def step() -> None:
        optimizer.zero_grad()
        loss(model(x), y).backward()
        optimizer.step()

    return step


def build(name: str, arm: str):
    """(step function, model) of one column."""
    model, x, y, lr = workload(name)
    if arm == "digital":
        return stepper(model, x, y, torch.optim.SGD(model.parameters(), lr=lr)), model
    device, io = ARMS[arm]
    model = pl.nn.to_analog(model, device=device, io=io, seed=0)
    return stepper(model, x, y, pl.optim.AnalogSGD(model.parameters(), lr=lr)), model


def ideal_error(name: str) -> float:
    """Largest difference between torch's and the ideal network's weights after one step."""
    pairs = []
    for arm in ("digital", "ideal"):
        step, model = build(name, arm)
        step()
        pairs.append([p.detach().clone() for p in model.parameters()])
    return max(float((a - b).abs().max()) for a, b in zip(*pairs, strict=True))


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--workloads", default="mlp10,mlp64,block")
    p.add_argument("--threads", default="1,2")
    p.add_argument("--seconds", type=float, default=2.0, help="time per workload and thread count")
    p.add_argument("--json", metavar="FILE")
    args = p.parse_args()
    rows = []
    for name in args.workloads.split(","):
        for threads in numbers(args.threads):
            rows += measure(name, threads, args.seconds)
    if args.json:
        found = {"machine": machine(), "rows": rows}
        Path(args.json).write_text(json.dumps(found, indent=1) + "\n")


def measure(name: str, threads: int, seconds: float) -> list[dict[str, object]]:
    """All columns of one workload, in turn, until the time is up."""
    torch.set_num_threads(threads)
    error = ideal_error(name)
    steps = {arm: build(name, arm)[0] for arm in ARMS}
    times: dict[str, list[float]] = {arm: [] for arm in ARMS}
    for step in steps.values():
        step()
        step()
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times["digital"]) < 7:
        for arm, step in steps.items():
            start = time.perf_counter()
            step()
            times[arm].append(time.perf_counter() - start)
    base = statistics.median(times["digital"])
    rows = []
    for arm, t in times.items():
        median = statistics.median(t)
        rows.append(
            {
                "workload": name,
                "threads": threads,
                "arm": arm,
                "steps_per_s": 1 / median,
                "ratio": median / base,
                "spread": spread(t),
                "ideal_error": error,
            }
        )
        print(
            f"{name:7s} threads {threads} {arm:12s} {1 / median:9.1f} steps/s  ratio "
            f"{median / base:5.2f}  spread {spread(t):.2f}  ideal error {error:.1e}",
            flush=True,
        )
    return rows


if __name__ == "__main__":
    main()

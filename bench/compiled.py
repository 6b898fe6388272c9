"""Training steps under torch.compile against eager ones, of analog models and their digital twins.

An MLP 784-256-128-10 and a small convolutional network with ReLU, and a pre-norm GPT block (width
256, 4 heads, 64 tokens); forward, backward and step, default backend. What torch itself adds to
every compiled call (guards, wrappers of its autograd, buffers) is what the digital twin loses in
the same run: columns are the times of compiled parts, their ratio to eager ones, and the
microseconds that lie between.

Checked first: outputs of the compiled and the eager model before training (error column; 0 where
the digital operations are sums and maxima: those that inductor rounds otherwise, as in a block,
take other steps of converters behind them).

    python bench/compiled.py --json bench/results/compiled.json
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from common import machine, numbers, spread
from torch import Tensor, nn
from torch.nn.functional import gelu, mse_loss, scaled_dot_product_attention

import pulseline as pl

LR = 0.01
BLOCK = 10  # steps of an arm in a row: as in a training loop its code stays in caches


class Block(nn.Module):
    """A block of a GPT: causal attention and two layers, pre-norm."""

    def __init__(self, width: int = 256, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        parts = self.qkv(self.norm1(x)).chunk(3, -1)
        q, k, v = (t.view(batch, length, self.heads, -1).transpose(1, 2) for t in parts)
        y = scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(y.transpose(1, 2).reshape(batch, length, width))
        return x + self.down(gelu(self.up(self.norm2(x))))


def mlp() -> nn.Module:
    """784-256-128-10."""
    first, second = (nn.Linear(784, 256), nn.ReLU()), (nn.Linear(256, 128), nn.ReLU())
    return nn.Sequential(*first, *second, nn.Linear(128, 10))


def conv() -> nn.Module:
    """Two strided convolutions on 28 x 28, and a layer; inductor's max pool is slow: none."""
    first = nn.Conv2d(1, 16, 3, stride=2, padding=1), nn.ReLU()
    second = nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.ReLU()
    return nn.Sequential(*first, *second, nn.Flatten(), nn.Linear(32 * 49, 10))


# model, shape of a sample, batches
MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], tuple[int, ...]]] = {
    "mlp": (mlp, (784,), (64, 256)),
    "conv": (conv, (1, 28, 28), (16,)),
    "block": (Block, (64, 256), (4,)),
}


class Steps:
    """One arm: a model, eager or compiled, digital or analog."""

    def __init__(self, name: str, analog: bool, backend: str | None, batch: int) -> None:
        torch.manual_seed(0)
        make, shape, _ = MODELS[name]
        model = make()
        self.x = torch.rand(batch, *shape)
        self.optimizer: torch.optim.Optimizer = torch.optim.SGD(model.parameters(), LR)
        if analog:
            device = pl.devices.SoftBounds(w_max=1.0, w_min=-1.0)
            model = pl.to_analog(model, device, seed=0)
            self.optimizer = pl.optim.AnalogSGD(model.parameters(), lr=LR)
        self.model = model if backend is None else torch.compile(model, backend=backend)
        self.first = self.model(self.x).detach()
        self.target = torch.zeros_like(self.first)

    def step(self) -> tuple[float, float, float]:
        """Seconds of forward, backward, update."""
        self.optimizer.zero_grad()
        t0 = time.perf_counter()
        y = self.model(self.x)
        t1 = time.perf_counter()
        loss = mse_loss(y, self.target)
        t2 = time.perf_counter()
        loss.backward()
        t3 = time.perf_counter()
        self.optimizer.step()
        return t1 - t0, t3 - t2, time.perf_counter() - t3

    def block(self) -> tuple[float, float, float]:
        """Medians of several steps."""
        found = [self.step() for _ in range(BLOCK)]
        forward, backward, update = (statistics.median(part) for part in zip(*found, strict=True))
        return forward, backward, update


def measure(name: str, batch: int, seconds: float, backend: str) -> list[dict[str, object]]:
    """Both kinds of model, eager and compiled in turn, until the time is up."""
    kinds = {"digital": False, "analog": True}
    pairs = {
        kind: [Steps(name, analog, how, batch) for how in (None, backend)]
        for kind, analog in kinds.items()
    }
    for pair in pairs.values():
        for one in pair:
            one.block()
    times = {kind: [[one.block()] for one in pair] for kind, pair in pairs.items()}
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times["analog"][0]) < 7:
        for kind, pair in pairs.items():
            for held, one in zip(times[kind], pair, strict=True):
                held.append(one.block())
    rows = []
    for kind, (eager, compiled) in times.items():
        both = list(zip(eager, compiled, strict=True))
        ratios = [sum(c) / sum(e) for e, c in both]
        parts = [statistics.median(part) * 1e6 for part in zip(*compiled, strict=True)]
        first = [one.first for one in pairs[kind]]
        row: dict[str, object] = {
            "model": name,
            "batch": batch,
            "kind": kind,
            "forward_us": parts[0],
            "backward_us": parts[1],
            "update_us": parts[2],
            "ratio": statistics.median(ratios),
            "more_us": statistics.median(sum(c) - sum(e) for e, c in both) * 1e6,
            "spread": spread(ratios),
            "error": float((first[0] - first[1]).abs().max()),
        }
        rows.append(row)
        text = " ".join(f"{part:7.0f}" for part in parts)
        print(
            f"{name:6s} batch {batch:4d} {kind:8s} {text} us  compiled / eager "
            f"{row['ratio']:5.3f}, {row['more_us']:+6.0f} us  spread {row['spread']:.3f}  "
            f"error {row['error']:.1e}",
            flush=True,
        )
    return rows


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--models", default=",".join(MODELS))
    p.add_argument("--batches", help="instead of each model's own")
    p.add_argument("--threads", type=int, default=1)
    p.add_argument("--seconds", type=float, default=15.0, help="time per model and batch")
    p.add_argument("--backend", default="inductor")
    p.add_argument("--json", metavar="FILE")
    args = p.parse_args()
    torch.set_num_threads(args.threads)
    rows = []
    for name in args.models.split(","):
        for batch in numbers(args.batches or "") or MODELS[name][2]:
            torch.compiler.reset()
            rows += measure(name, batch, args.seconds, args.backend)
    if args.json:
        found = {"machine": machine(), "rows": rows}
        Path(args.json).write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()

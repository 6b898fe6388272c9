"""One training step of the linear layers of GPT-2 shapes, from 1e6 to 1.5e9 crosspoints.

A block of width d has matrices 3d x d, d x d, 4d x d and d x 4d; forward, backward and pulsed
update of 128 tokens go through all blocks, without attention and embeddings, on soft bounds with
all their variations and default converters. Every case is a process of its own: memory is what
/proc/self/statm and VmHWM say above the process before the model, after the allocator gave back
what it keeps for reuse; "peak" is of the steps, "make MB" that of making the model above what it
then holds. ``figure`` is what the model on torch's meta device says that it will take. Cases whose
weights, gradients and crosspoints would not fit into free memory are left out, digital ones
(nn.Linear, torch.optim.SGD) too. "moved" is the part of the first matrix that the first update
changes. Checked first: one block with drawn crosspoints has the bits of one with stored ones.

    python bench/scale.py --models 2x208,12x768 --crosspoints drawn,stored
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import itertools
import json
import subprocess
import sys
import time
from pathlib import Path

import torch
from common import write_results
from torch import nn

import pulseline as pl

LR = 0.01  # one or two pulses where input and error are largest
MODELS = "2x208,6x384,12x768,24x1024,36x1280,48x1600"
COLUMNS = (
    ("model", 9),
    ("crosspoints", 14),
    ("mode", 9),
    ("bytes/cp", 9),
    ("figure", 8),
    ("make s", 8),
    ("make MB", 9),
    ("fwd s", 8),
    ("bwd s", 8),
    ("update s", 9),
    ("moved", 7),
    ("GMAC/s", 8),
    ("step MB", 9),
    ("peak MB", 9),
    ("ratio", 7),
)


class Block(nn.Module):
    """The linear layers of a block of width d, with what lets a signal through."""

    def __init__(self, d: int, linear) -> None:
        super().__init__()
        self.qkv, self.out = linear(d, 3 * d), linear(d, d)
        self.up, self.down = linear(d, 4 * d), linear(4 * d, d)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        d = x.shape[-1]
        three = self.qkv(nn.functional.layer_norm(x, (d,))).unflatten(-1, (3, d))
        x = x + self.out(three.sum(-2))
        return x + self.down(nn.functional.gelu(self.up(nn.functional.layer_norm(x, (d,)))))


def network(layers: int, width: int, mode: str) -> nn.Module:
    """The blocks on crossbars with stored or drawn crosspoints, or digital."""
    if mode == "digital":
        return nn.Sequential(
            *(Block(width, lambda i, o: nn.Linear(i, o, bias=False)) for _ in range(layers))
        )
    mapping = pl.configs.Mapping(crosspoints=mode)
    pl.manual_seed(0)

    def linear(i: int, o: int) -> nn.Module:
        return pl.nn.AnalogLinear(i, o, bias=False, device="soft_bounds", mapping=mapping)

    return nn.Sequential(*(Block(width, linear) for _ in range(layers)))


def resident() -> int:
    """Bytes in memory, without what the allocator keeps for reuse."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def peak() -> int:
    """Most bytes that were in memory since the last reset."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(s for s in lines if s.startswith("VmHWM")).split()[1]) * 1024


def optimizer_of(net: nn.Module, mode: str) -> torch.optim.Optimizer:
    if mode == "digital":
        return torch.optim.SGD(net.parameters(), lr=LR)
    return pl.optim.AnalogSGD(net.parameters(), lr=LR)


def clock() -> float:
    """Seconds; on one thread those of the processor, so that others on the machine do not count."""
    return time.process_time() if torch.get_num_threads() == 1 else time.perf_counter()


def step(net: nn.Module, optimizer: torch.optim.Optimizer, x: torch.Tensor) -> list[float]:
    """Seconds of forward, backward and update."""
    marks = [clock()]
    loss = net(x).square().sum(1).mean()
    marks.append(clock())
    loss.backward()
    marks.append(clock())
    optimizer.step()
    optimizer.zero_grad()
    marks.append(clock())
    return [b - a for a, b in itertools.pairwise(marks)]


def case(layers: int, width: int, mode: str, tokens: int, steps: int) -> dict[str, float]:
    """One model in this process."""
    x = torch.randn(tokens, width, generator=torch.Generator().manual_seed(1))
    small = network(1, 32, mode)
    step(small, optimizer_of(small, mode), x[:, :32].contiguous())
    del small
    count = 12 * layers * width * width
    figure = 4.0
    if mode != "digital":
        with pl.arrays.on_meta():
            figure = nbytes(network(layers, width, mode)) / count
    before = resident()
    start = clock()
    net = network(layers, width, mode)
    made = clock() - start
    held, made_peak = resident(), peak()
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    optimizer = optimizer_of(net, mode)
    first = next(net.parameters())
    before_step = first.detach().clone()
    times = [step(net, optimizer, x)]
    moved = float((first.detach() != before_step).float().mean())
    del before_step
    times += [step(net, optimizer, x) for _ in range(steps - 1)]
    forward, backward, update = min(times, key=sum)
    return {
        "crosspoints": count,
        "bytes_per_crosspoint": (held - before) / count,
        "figure": figure,
        "make_seconds": made,
        "make_extra_bytes": made_peak - held,
        "forward_seconds": forward,
        "backward_seconds": backward,
        "update_seconds": update,
        "moved": moved,
        "gmac_per_second": 2 * count * tokens / (forward + backward) / 1e9,
        "step_peak_bytes": peak() - held,
        "peak_bytes": peak() - before,
        "process_peak_bytes": peak(),
    }


def nbytes(net: nn.Module) -> int:
    """Of parameters and buffers."""
    return sum(t.nbytes for t in (*net.parameters(), *net.buffers()))


def check(tokens: int) -> None:
    """Drawn crosspoints give the bits of stored ones, forward, backward and update."""
    x = torch.randn(tokens, 96, generator=torch.Generator().manual_seed(1))
    digests = []
    for mode in ("stored", "drawn"):
        net = network(1, 96, mode)
        step(net, optimizer_of(net, mode), x)
        digests.append(pl.digest(net.state_dict()))
    if digests[0] != digests[1]:
        sys.exit("drawn and stored crosspoints differ")


def free_bytes() -> int:
    lines = Path("/proc/meminfo").read_text().splitlines()
    return int(next(s for s in lines if s.startswith("MemAvailable")).split()[1]) * 1024


def show(row: dict[str, float | str], digital: float | None) -> None:
    seconds = sum(float(row[f"{part}_seconds"]) for part in ("forward", "backward", "update"))
    ratio = "-" if not digital or row["mode"] == "digital" else f"{seconds / digital:.2f}"
    values = (
        row["model"],
        f"{row['crosspoints']:,}",
        row["mode"],
        f"{row['bytes_per_crosspoint']:.3f}",
        f"{row['figure']:.3f}",
        f"{row['make_seconds']:.2f}",
        f"{row['make_extra_bytes'] / 1e6:.0f}",
        *(f"{row[f'{part}_seconds']:.2f}" for part in ("forward", "backward", "update")),
        f"{row['moved']:.2f}",
        f"{row['gmac_per_second']:.1f}",
        f"{row['step_peak_bytes'] / 1e6:.0f}",
        f"{row['peak_bytes'] / 1e6:.0f}",
        ratio,
    )
    print("".join(str(v).rjust(w) for v, (_, w) in zip(values, COLUMNS, strict=True)), flush=True)


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--models", default=MODELS, help="layers x width, separated by commas")
    p.add_argument("--crosspoints", default="drawn,stored", help="drawn, stored or both")
    p.add_argument("--tokens", type=int, default=128)
    p.add_argument("--steps", type=int, default=3, help="of which the fastest counts")
    p.add_argument("--threads", type=int, default=1)
    p.add_argument("--no-digital", action="store_true", help="leave the digital step out")
    p.add_argument("--json", metavar="FILE", help="add the rows there")
    p.add_argument("--case", metavar="MODE", help="run one model in this process")
    args = p.parse_args()
    torch.set_num_threads(args.threads)
    if args.case:
        layers, width = map(int, args.models.split("x"))
        print(json.dumps(case(layers, width, args.case, args.tokens, args.steps)))
        return
    check(args.tokens)
    print("".join(name.rjust(width) for name, width in COLUMNS))
    rows = []
    for model in args.models.split(","):
        layers, width = map(int, model.split("x"))
        weights = 4 * 12 * layers * width * width
        modes = [] if args.no_digital else ["digital"]
        digital = None
        for mode in (*modes, *args.crosspoints.split(",")):
            needed = {"digital": 2, "stored": 4, "drawn": 1}[mode] * weights
            if 1.3 * needed > free_bytes():
                continue
            row = run(model, mode, args)
            if mode == "digital":
                parts = ("forward", "backward", "update")
                digital = sum(float(row[f"{part}_seconds"]) for part in parts)
            rows.append(row | {"digital_seconds": digital})
            show(row, digital)
    if args.json:
        path = Path(args.json)
        old = json.loads(path.read_text()) if path.exists() else []
        write_results([*old, *rows], path)


def run(model: str, mode: str, args: argparse.Namespace) -> dict[str, float | str]:
    """A case in a process of its own."""
    words = ("--models", model, "--case", mode, "--tokens", str(args.tokens))
    more = ("--steps", str(args.steps), "--threads", str(args.threads))
    command = [sys.executable, "-W", "ignore", __file__, *words, *more]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    threads = {"tokens": args.tokens, "threads": args.threads}
    return {"model": model, "mode": mode, **threads, **json.loads(said.splitlines()[-1])}


if __name__ == "__main__":
    main()

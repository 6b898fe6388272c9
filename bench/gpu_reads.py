"""Analog reads and training steps on a GPU against the same digital work: sections of gpu.py.

Products: the sums of a read without converters, torch's and the fused kernel's, beside torch.mm in
float32, tf32 and bfloat16; the error is the largest, relative to sum |w x|, in units of 2^-24.
Reads: forward and backward of one matrix, 7-bit DAC, 9-bit ADC, noise, 512-wide tiles, with both
kinds of products, against torch.mm in float32. The error of a read is the part of its outputs that
differ from the CPU's (whose sums are in another order) and the largest difference in steps of the
ADC. Steps: forward, backward and update of a stack with the layers of GPT-2 small and of an MLP,
against the same stack of nn.Linear with SGD, in float32. Their error is the mean square of the
outputs before the first step beside the digital one's; what pulses did is checked by gpu.py. Beside
it the work of the last step: slots of a train, pulses of a crosspoint.

    python bench/gpu_reads.py [products reads steps] [--device cpu --tiny]    (CPU: to try it)
"""

from __future__ import annotations

import argparse
import copy
import functools
import itertools
import json
import signal
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from common import gpu_machine, machine
from torch import Tensor, nn

import pulseline as pl
from pulseline.configs import IOConfig, Mapping, ReadConfig, UpdateConfig
from pulseline.configs.mapping import CUDA_PRODUCTS

READS = {
    "default": IOConfig(),
    "no bound management": IOConfig(ReadConfig(bound_management="none")),
    "weight noise": IOConfig(ReadConfig(w_noise=0.01, bound_management="none")),
    "input noise": IOConfig(ReadConfig(inp_noise=0.01, bound_management="none")),
}
SHAPES = ((4096, 4096, 512), (3072, 768, 8192), (512, 512, 256), (768, 768, 2048))


@dataclass(frozen=True)
class Run:
    """Where to run, on what sizes, seconds per measurement."""

    device: str = "cuda"
    tiny: bool = False
    seconds: float = 0.3


Row = dict[str, Any]


def times(f: Callable[[], object], run: Run) -> list[float]:
    """Seconds of every run, after warming up; at least 7, of slow ones at least 3."""
    start = time.perf_counter()
    for _ in range(3):
        f()
    if run.device != "cpu":
        torch.cuda.synchronize()
    result: list[float] = []
    end = time.perf_counter() + run.seconds
    least = 7 if end - start < 10 * run.seconds else 3
    while len(result) < least or (time.perf_counter() < end and len(result) < 2000):
        if run.device == "cpu":
            start = time.perf_counter()
            f()
            result.append(time.perf_counter() - start)
            continue
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        first.record()
        f()
        last.record()
        last.synchronize()
        result.append(first.elapsed_time(last) * 1e-3)
    return result


def measure(
    name: str,
    ours: Callable[[], object],
    baseline: Callable[[], object],
    error: str,
    ok: bool,
    run: Run,
) -> Row:
    """Time both, one after the other; print a line."""
    a, b = times(ours, run), times(baseline, run)
    t, t0 = statistics.median(a), statistics.median(b)
    q = statistics.quantiles(a, n=4)
    row: Row = {"name": name, "seconds": t, "baseline_seconds": t0, "ratio": t / t0}
    row |= {"spread": (q[2] - q[0]) / 2 / t, "error": error, "ok": ok}
    print(f"{name:52}{t * 1e3:10.3f}{t0 * 1e3:10.3f}{t / t0:8.2f}{row['spread']:7.2f}  {error}")
    return row


def head(title: str) -> None:
    print(f"{title:52}{'ours ms':>10}{'torch ms':>10}{'ratio':>8}{'spread':>7}  error", flush=True)


# ---- products ----


def product_errors(y: Tensor, x: Tensor, w: Tensor) -> tuple[str, float]:
    """Of the first 64 samples, against sums in double."""
    x, y = x[:64].double().cpu(), y[:64].double().cpu()
    w = w.double().cpu()
    error = float(((y - x @ w).abs() / (x.abs() @ w.abs())).max()) * 2.0**24
    return f"{error:.1f} x 2^-24 sum |w x|", error


def product_rows(run: Run, found: list[Row]) -> None:
    """What multiplies, and how well; one tile, so that all sum over all inputs at once."""
    head("product")
    perfect = ReadConfig.perfect()
    config = IOConfig(perfect, perfect)
    for rows, cols, batch in ((48, 33, 17),) if run.tiny else SHAPES:
        tiles = [
            tile_of(rows, cols, config, run.device, Mapping(1 << 20, 1 << 20, cuda_products=kind))
            for kind in CUDA_PRODUCTS
        ]
        w = tiles[0].weight.data.clone()
        for back in (False, True):
            x = torch.randn(batch, rows if back else cols, device=run.device)
            reads = [functools.partial(tile.read, transposed=back) for tile in tiles]
            other = w if back else w.t()
            for name, product, limit in products(reads, x, other):
                error, size = product_errors(product(), x, other)
                label = f"{'W^T' if back else 'W'} {rows}x{cols}x{batch} {name}"
                base = lambda x=x, other=other: torch.mm(x, other)  # noqa: E731
                found.append(measure(label, product, base, error, size <= limit, run))


def products(
    reads: list[Callable[[Tensor], Tensor]], x: Tensor, w: Tensor
) -> list[tuple[str, Callable[[], Tensor], float]]:
    """Name, product and largest error in 2^-24 sum |w x|; reads: in the order of CUDA_PRODUCTS."""
    inputs = x.shape[1]

    def tf32() -> Tensor:
        torch.backends.cuda.matmul.allow_tf32 = True
        try:
            return torch.mm(x, w)
        finally:
            torch.backends.cuda.matmul.allow_tf32 = False

    def bf16() -> Tensor:
        return torch.mm(x16, w16)

    x16, w16 = x.bfloat16(), w.bfloat16()
    in_order = inputs + 2.0  # float32; on tensor cores 48 + inputs / 16
    fused = 48 + inputs / 16 + 2 if x.is_cuda else in_order
    return [
        ("read, torch's product", lambda: reads[0](x), in_order),
        ("read, fused", lambda: reads[1](x), fused),
        ("torch float32", lambda: torch.mm(x, w), in_order),
        ("torch tf32", tf32, 2.0**16),
        ("torch bfloat16", bf16, 2.0**18),
    ]


# ---- reads ----


@functools.lru_cache(1)
def weights(rows: int, cols: int) -> Tensor:
    """Drawing 4096 x 4096 weights takes seconds: once for all reads of a shape."""
    tile = pl.Array(rows, cols, pl.devices.Ideal(), seed=3, tile_id=1)
    tile.initialise()
    return tile.effective_weight()


def tile_of(rows: int, cols: int, io: IOConfig, device: str, mapping: Mapping) -> pl.Array:
    tile = pl.Array(rows, cols, pl.devices.Ideal(), io=io, mapping=mapping, seed=3, tile_id=1)
    tile.to(device).program(weights(rows, cols).to(device))
    return tile


def read_error(
    rows: int, cols: int, io: IOConfig, back: bool, device: str, kind: str
) -> tuple[str, bool]:
    """Outputs of 33 samples that differ from the CPU's, by how many steps of the ADC at most.

    Another order of summation rounds an output to the next step where it lay on the edge (a part of
    about 1e-6 sqrt(n) / step); now and then it saves a saturated sample.
    """
    v = torch.randn(33, rows if back else cols, generator=torch.Generator().manual_seed(2))
    results = []
    for where in ("cpu", device):
        tile = tile_of(rows, cols, io, where, Mapping(cuda_products=kind))
        results.append(tile.read(v.to(where), back).cpu())
    config = io.backward if back else io.forward
    step = 2 * config.out_bound * config.out_res * v.abs().amax(1, keepdim=True)
    difference = (results[0] - results[1]).abs()
    part = float((difference > 0.5 * step).double().mean())
    return f"{part:.1e} of outputs, {float((difference / step).max()):.1f} steps", part < 1e-2


def read_rows(run: Run, found: list[Row]) -> None:
    head("read")
    for rows, cols, batch in ((48, 33, 17),) if run.tiny else SHAPES:
        for name, io in READS.items():
            for back in (False, True) if name in ("default", "weight noise") else (False,):
                v = torch.randn(batch, rows if back else cols, device=run.device)
                for kind in CUDA_PRODUCTS:
                    tile = tile_of(rows, cols, io, run.device, Mapping(cuda_products=kind))
                    w = tile.weight.data.clone()
                    other = w if back else w.t()
                    found.append(
                        measure(
                            f"{'W^T' if back else 'W'} {rows}x{cols}x{batch} {name}, {kind}",
                            lambda tile=tile, back=back, v=v: tile.read(v, back),
                            lambda other=other, v=v: torch.mm(v, other),
                            *read_error(rows, cols, io, back, run.device, kind),
                            run,
                        )
                    )


# ---- training steps ----


class Block(nn.Module):
    """A block of GPT-2: causal attention and a perceptron, before each a normalisation."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.mix = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        qkv = self.qkv(self.norm1(x)).view(batch, length, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        y = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.mix(y.transpose(1, 2).reshape(batch, length, width))
        return x + self.down(nn.functional.gelu(self.up(self.norm2(x))))


def stacks(tiny: bool) -> dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], int]]:
    """Name to model, shape of its input and number of its outputs."""

    def mlp() -> nn.Module:
        widths = (20, 16, 10) if tiny else (784, 1024, 1024, 10)
        layers: list[nn.Module] = []
        for n, (a, b) in enumerate(itertools.pairwise(widths)):
            layers += [nn.ReLU()] * (n > 0) + [nn.Linear(a, b)]
        return nn.Sequential(*layers)

    def gpt() -> nn.Module:
        width, depth, heads = (32, 2, 2) if tiny else (768, 12, 12)
        return nn.Sequential(*(Block(width, heads) for _ in range(depth)))

    shape = (2, 8, 32) if tiny else (8, 1024, 768)
    return {
        "GPT-2-small stack": (gpt, shape, shape[-1]),
        "MLP": (mlp, (16, 20) if tiny else (256, 784), 10),
    }


# Of a sum over samples: 6 slots where |x| and |d| reach 3.5 and a step is 0.001.
STEP_LR = 5e-4
STEP_UPDATES = (("moments", "iid"), ("exact", "iid"), ("grouped", "iid"), ("grouped", "lowrank"))


def trainer(model: nn.Module, x: Tensor, errors: Tensor, optimizer: Any) -> Callable[[], None]:
    """One step. The errors of the outputs are given, their signs turned from step to step: no step
    has less to do than the first, as it would when the model has learnt."""
    d = errors.clone()

    def step() -> None:
        optimizer.zero_grad()
        model(x).backward(d)
        optimizer.step()
        d.neg_()

    return step


def power(model: nn.Module, x: Tensor) -> float:
    with torch.no_grad():
        return float(model(x).square().mean())


def pulses(tiles: list[pl.Array], step: Callable[[], None]) -> Row:
    """Slots of a sample and pulses of a crosspoint, means of one step."""
    for tile in tiles:
        tile.count_pulses()
    step()
    fired = torch.stack([tile.fired for tile in tiles if tile.fired is not None]).sum(0).tolist()
    for tile in tiles:
        tile.fired = None
    cells = sum(tile.weight.numel() for tile in tiles)
    return {"slots": fired[1] / max(fired[2], 1), "pulses": fired[0] / cells}


def step_row(
    name: str, digital: nn.Module, analog: nn.Module, x: Tensor, errors: Tensor, run: Run
) -> Row:
    tiles = [
        layer.cell.array for layer in analog.modules() if isinstance(layer, pl.nn.AnalogLinear)
    ]
    a, b = power(analog, x), power(digital, x)
    ours = trainer(analog, x, errors, pl.optim.AnalogSGD(analog.parameters(), lr=STEP_LR))
    sgd = torch.optim.SGD(digital.parameters(), lr=STEP_LR)
    base = trainer(digital, x, errors, sgd)
    row = measure(name, ours, base, f"power {a:.3g}, {b:.3g}", abs(a / b - 1) < 0.25, run)
    row |= pulses(tiles, ours)
    print(f"    {row['slots']:.1f} slots a train, {row['pulses']:.1f} pulses a crosspoint and step")
    return row


def step_rows(run: Run, found: list[Row]) -> None:
    head("training step")
    for name, (make, shape, outputs) in stacks(run.tiny).items():
        g = torch.Generator().manual_seed(4)
        x = torch.randn(shape, generator=g).to(run.device)
        errors = torch.randn((*shape[:-1], outputs), generator=g).to(run.device)
        torch.manual_seed(0)
        model = make()
        # Once: drawing the devices of 85 million crosspoints takes a while.
        converted = pl.nn.to_analog(model, device=pl.devices.SoftBounds(), seed=1)
        for fidelity, noise in STEP_UPDATES:
            digital, analog = copy.deepcopy(model), copy.deepcopy(converted)
            pl.nn.reconfigure(analog, update=UpdateConfig(fidelity=fidelity, noise=noise))
            digital, analog = digital.to(run.device), analog.to(run.device)
            label = f"{name}, {fidelity}, {noise}"
            found.append(step_row(label, digital, analog, x, errors, run))


SECTIONS: dict[str, Callable[[Run, list[Row]], None]] = {
    "products": product_rows,
    "reads": read_rows,
    "steps": step_rows,
}


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("sections", nargs="*", metavar="section", help="products, reads, steps: all")
    p.add_argument("--device", default="cuda")
    p.add_argument("--tiny", action="store_true", help="small shapes: tries the script")
    p.add_argument("--seconds", type=float, default=0.3, help="time per measurement")
    p.add_argument("--json", metavar="FILE", help="write the rows there")
    args = p.parse_args()
    if unknown := set(args.sections) - set(SECTIONS):
        p.error(f"no section {', '.join(sorted(unknown))}; there are {', '.join(SECTIONS)}")
    torch.backends.cuda.matmul.allow_tf32 = False
    run = Run(args.device, args.tiny, args.seconds)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # from `timeout`
    rows: dict[str, list[Row]] = {name: [] for name in args.sections or SECTIONS}
    try:
        for name, found in rows.items():
            SECTIONS[name](run, found)
    finally:  # what was measured until the time was up
        if args.json:
            results = {"machine": machine() | gpu_machine(), **rows}
            Path(args.json).write_text(json.dumps(results, indent=1) + "\n")
    return 0 if all(row["ok"] for found in rows.values() for row in found) else 1


if __name__ == "__main__":
    sys.exit(main())

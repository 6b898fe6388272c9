"""Correctness and speed of the CUDA backend: ``python bench/gpu.py equality behaviour update``.

equality  every device model and fidelity against the CPU backend, at odd sizes: equal bits
          (moments: within ``moments_limit``); what happens between pulses, reads through wires that
          are solved, and reads whose sums are exact in every order, with both kinds of products:
          equal bits. ``--small``: few samples, for a sanitizer.
behaviour refusals, side streams, captures, shared launches: against the CPU backend as well.
update    sweep of fidelities and shapes, beside torch's digital rank-B update in float32 (addmm_)
          and the gradient GEMM of the same shape in bfloat16. The error is that of the first
          samples: weights that differ in any bit; moments, the largest difference in steps.

A section is a function that adds rows to a list and a name in SECTIONS; ``gpu.sh`` runs them in
turn, and reads and training steps by ``gpu_reads.py``. What was measured is written also if the
time is up; ``--small`` writes nothing.
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
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from common import LR, gpu_machine, inputs, machine

import pulseline as pl
from pulseline.configs import (
    CUDA_PRODUCTS,
    FIDELITIES,
    IOConfig,
    Mapping,
    ReadConfig,
    UpdateConfig,
)
from pulseline.configs.update import LOWRANK_FIDELITIES
from pulseline.devices import DEVICES, Ideal, SoftBounds
from pulseline.errors import ConfigError
from pulseline.reference.devices import DEVICES as STEPS
from pulseline.reference.devices import Crosspoints, Stored

Row = dict[str, Any]
GPU = "cuda"
LOWRANK = [(fidelity, "lowrank") for fidelity in LOWRANK_FIDELITIES]


once = functools.lru_cache(1)(inputs)  # for all updates of a shape


@functools.lru_cache(1)
def fresh(rows: int, cols: int, device: Any) -> pl.nn.AnalogLinear:
    """Drawing 4096 x 4096 crosspoints takes seconds: once for all updates of a shape."""
    return pl.nn.AnalogLinear(cols, rows, bias=False, device=device, seed=3)


def pair(
    rows: int, cols: int, device: Any, config: UpdateConfig
) -> tuple[pl.nn.AnalogLinear, pl.nn.AnalogLinear]:
    """The same layer on the CPU and on the GPU."""
    cpu = copy.deepcopy(fresh(rows, cols, device))
    pl.nn.reconfigure(cpu, update=config)
    return cpu, copy.deepcopy(cpu).to(GPU)


def difference(cpu: pl.nn.AnalogLinear, gpu: pl.nn.AnalogLinear) -> tuple[int, float]:
    """Weights that differ in any bit, and the largest difference."""
    a, b = cpu.cell.array.weight.detach(), gpu.cell.array.weight.detach().cpu()
    wrong = int((a.view(torch.int32) != b.view(torch.int32)).sum())
    return wrong, float((a - b).abs().max())


def moments_limit(tile: pl.Array, x: torch.Tensor, d: torch.Tensor, lr: float) -> torch.Tensor:
    """Largest difference of ``moments`` from the CPU's, per weight; call it before the update.

    Its counts come from tensor cores with relative errors below 2^-10 (update_moments.cu): of n
    pulses' steps, and of their noise, below 5 (sigma + 1/2) sqrt(n) steps; a count that is 0 on one
    side alone adds 1e-3 steps a group. n: lr |d|^T |x| / granularity on average. The
    largest step is that of the first 256 rows.
    """
    device, groups = tile.device, -(-len(x) // 256)
    mean = lr / device.granularity * (d.abs().T.double() @ x.abs().double())
    n = mean + 6 * mean.sqrt() + 6
    stored = Stored(
        *(t[:256] for t in (tile.crosspoints.step, tile.crosspoints.slope, tile.crosspoints.bound))
    )
    model, cells = STEPS[device.name], Crosspoints.of(device, stored)
    up = torch.ones_like(cells.hi, dtype=torch.bool)
    weights = (cells.lo + (cells.hi - cells.lo) * t for t in torch.linspace(0, 1, 9))
    steps = [model.step(device, cells, w, m).abs().max() for w in weights for m in (up, ~up)]
    noise = 5 * (device.dw_min_std + 0.5) * n.sqrt()
    return (2.0**-10 * (n + noise) + 1e-3 * groups) * float(max(steps)) + 2.0**-22


def live(tile: pl.Array, where: str, batch: int) -> None:
    """Programming, pulses with write noise, decay, drift, diffusion, a reset of some columns."""
    rows, cols = tile.shape
    tile.program(
        0.3 * torch.randn(rows, cols, generator=torch.Generator().manual_seed(5)).to(where)
    )
    for n in range(3):
        x, d = inputs("gauss_bl31", batch + n, rows, cols)
        tile.pulse(x.to(where), d.to(where), 1e-4)
        if n == 1:
            tile.reset(torch.arange(0, cols, 3, device=where))


def within(cpu: pl.nn.AnalogLinear, gpu: pl.nn.AnalogLinear, limit: torch.Tensor) -> bool:
    a, b = cpu.cell.array.weight.detach(), gpu.cell.array.weight.detach().cpu()
    return bool(((a - b).abs() <= limit).all())


def between_pulses(shapes: list[tuple[int, int, int]], found: list[Row]) -> None:
    ageing: dict[str, Any] = {"batch": 100, "lifetime": 40.0, "lifetime_dtod": 0.3, "reset": 0.05}
    ageing |= {"reset_std": 0.02, "diffusion": 0.004, "drift_nu": 0.06, "drift_nu_dtod": 0.3}
    device = SoftBounds(**ageing, write_noise_std=5.0, corrupt_devices_prob=0.1)
    for fidelity, desired_bl in (("exact", 31), ("grouped", 70), ("expected", 31)):
        for rows, cols, batch in shapes:
            config = UpdateConfig(
                fidelity=fidelity, desired_bl=desired_bl, update_bl_management=False
            )
            cpu, gpu = pair(rows, cols, device, config)
            live(cpu.cell.array, "cpu", batch)
            live(gpu.cell.array, GPU, batch)
            gpu.cell.array.check_updates()
            wrong, largest = difference(cpu, gpu)
            hidden = int((cpu.cell.array.pulsed != gpu.cell.array.pulsed.cpu()).sum())
            row = {"device": "ageing", "fidelity": fidelity, "shape": [rows, cols, batch]}
            row |= {"differing": wrong, "differing_hidden": hidden, "largest": largest}
            found.append(row | {"ok": wrong == hidden == 0})


def solved_reads(shapes: list[tuple[int, int, int]], found: list[Row]) -> None:
    wires: dict[str, Any] = {"ir_drop": "exact", "wire_resistance": 1e-3, "out_bound": 1.0}
    config = ReadConfig(inp_noise=0.01, w_noise=0.02, **wires)
    io, mapping = IOConfig(config, config), Mapping(tile_in=64, tile_out=48)
    for rows, cols, batch in shapes:
        options: dict[str, Any] = {"device": Ideal(), "io": io, "mapping": mapping}
        cpu = pl.nn.AnalogLinear(cols, rows, bias=False, seed=0, **options)
        gpu = copy.deepcopy(cpu).to(GPU)
        x, d = inputs("gauss_bl31", min(batch, 40), rows, cols)
        want = (cpu.cell.array.read(x), cpu.cell.array.read(d, True))
        got = (
            gpu.cell.array.read(x.to(GPU)).cpu(),
            gpu.cell.array.read(d.to(GPU), True).cpu(),
        )
        wrong = [int((a != b).sum()) for a, b in zip(want, got, strict=True)]
        row: Row = {"read": "solved wires", "shape": [rows, cols, len(x)], "differing": wrong}
        found.append(row | {"ok": not any(wrong)})


# Steps of 1/64: with weights on a grid of 2^-7 every sum of 1000 products fits 24 bits.
GRID = ReadConfig(inp_res=1 / 128)
EXACT_READS = {
    "default": GRID,
    "saturated": replace(GRID, out_bound=1.5, w_noise=0.02),
    "two passes": replace(GRID, mv_type="pos_neg_separate_digital_sum", out_asymmetry=0.125),
}


def exact_reads(small: bool, found: list[Row]) -> None:
    shapes = (
        [(65, 132, 140)] if small else [(1, 1, 1), (33, 65, 40), (256, 512, 300), (130, 900, 9)]
    )
    for (rows, cols, batch), (name, config) in itertools.product(shapes, EXACT_READS.items()):
        weights = fresh(rows, cols, Ideal()).cell.effective_weight()
        weights = weights.mul_(512).round_().clamp_(-127, 127).div_(128)
        io = IOConfig(config, config)
        for back, products in itertools.product((False, True), CUDA_PRODUCTS):
            mapping = Mapping(300, 100, cuda_products=products)
            v = torch.randn(
                batch, rows if back else cols, generator=torch.Generator().manual_seed(1)
            )
            results = []
            for where in ("cpu", GPU):
                tile = pl.Array(rows, cols, Ideal(), io=io, mapping=mapping, seed=3).to(where)
                tile.program(weights.to(where))
                results.append(tile.read(v.to(where), back).cpu())
            bits = [y.view(torch.int32) for y in results]
            row = {"read": name, "products": products, "back": back, "shape": [rows, cols, batch]}
            row["differing"] = int((bits[0] != bits[1]).sum())
            row["ok"] = row["differing"] == 0
            found.append(row)


def equality(small: bool, found: list[Row]) -> None:
    shapes = [(33, 65, 40)] if small else [(1, 1, 1), (33, 65, 40), (257, 129, 33), (65, 300, 1100)]
    names = ["SoftBounds", "PiecewiseStep"] if small else list(DEVICES)
    for name in names:
        for fidelity, noise in [*((f, "iid") for f in FIDELITIES), *LOWRANK]:
            for rows, cols, batch in shapes:
                size = 8 if fidelity == "grouped" else 0
                config = UpdateConfig(fidelity=fidelity, group_size=size, noise=noise)
                device = DEVICES[name]()
                cpu, gpu = pair(rows, cols, device, config)
                x, d = inputs("gauss_bl31", batch, rows, cols)
                limit = moments_limit(cpu.cell.array, x, d, 1e-2) if fidelity == "moments" else None
                cpu.cell.array.pulse(x, d, 1e-2)
                gpu.cell.array.pulse(x.to(GPU), d.to(GPU), 1e-2)
                gpu.cell.array.check_updates()
                wrong, largest = difference(cpu, gpu)
                row = {"device": name, "fidelity": fidelity, "noise": noise}
                row["shape"] = [rows, cols, batch]
                row |= {"differing": wrong, "largest": largest}
                row["ok"] = wrong == 0 if limit is None else within(cpu, gpu, limit)
                found.append(row)
    between_pulses(shapes, found)
    solved_reads(shapes, found)
    exact_reads(small, found)
    bad = [row for row in found if not row["ok"]]
    for row in bad:
        print("DIFFERS", row)
    print(f"equality: {len(found) - len(bad)} of {len(found)} as they must be")


# ---- what only a GPU has: streams, captures, outcomes that come later ----


def refused() -> bool:
    """A NaN leaves the weights alone and is reported by the next check."""
    cpu, gpu = pair(65, 129, SoftBounds(), UpdateConfig())
    x, d = inputs("gauss_bl31", 40, 65, 129)
    x[7, 128] = float("nan")
    gpu.cell.array.pulse(x.to(GPU), d.to(GPU), 1e-2)
    try:
        gpu.cell.array.check_updates()
    except ConfigError as error:
        return "x[7]" in str(error) and difference(cpu, gpu)[0] == 0
    return False


def on_side_stream() -> bool:
    """Inputs made, used and forgotten on another stream."""
    cpu, gpu = pair(257, 300, SoftBounds(), UpdateConfig())
    x, d = inputs("gauss_bl31", 700, 257, 300)
    xg, dg, stream = x.to(GPU), d.to(GPU), torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(5):
            gpu.cell.array.pulse(xg * 2.0, dg * 0.5, 1e-2)
    torch.cuda.current_stream().wait_stream(stream)
    for _ in range(5):
        cpu.cell.array.pulse(x * 2.0, d * 0.5, 1e-2)
    return difference(cpu, gpu)[0] == 0


def captured_update() -> bool:
    """An update before the capture, one within, replayed once."""
    cpu, gpu = pair(65, 129, SoftBounds(), UpdateConfig(fidelity="grouped"))
    x, d = inputs("gauss_bl31", 700, 65, 129)
    xg, dg, graph = x.to(GPU), d.to(GPU), torch.cuda.CUDAGraph()
    gpu.cell.array.pulse(xg, dg, 1e-2)
    with torch.cuda.graph(graph):
        gpu.cell.array.pulse(xg, dg, 1e-2)
    graph.replay()
    for _ in range(2):
        cpu.cell.array.pulse(x, d, 1e-2)
    return difference(cpu, gpu)[0] == 0


def captured_ageing() -> bool:
    """Write noise, decay, drift and diffusion of 700 samples, replayed once."""
    ageing: dict[str, Any] = {"batch": 700, "lifetime": 9.0, "diffusion": 0.01, "drift_nu": 0.1}
    device = SoftBounds(**ageing, write_noise_std=5.0)
    cpu, gpu = pair(65, 129, device, UpdateConfig())
    x, d = inputs("gauss_bl31", 700, 65, 129)
    xg, dg, graph = x.to(GPU), d.to(GPU), torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        gpu.cell.array.pulse(xg, dg, 1e-4)
    graph.replay()
    cpu.cell.array.pulse(x, d, 1e-4)
    return difference(cpu, gpu)[0] == 0


def captured_read() -> bool:
    """A replay gives what the same read gives without a graph (but for the order of sums)."""
    _, gpu = pair(300, 700, SoftBounds(), UpdateConfig())
    x, graph = torch.randn(33, 700, device=GPU), torch.cuda.CUDAGraph()
    want = gpu.cell.array.read(x)
    gpu.cell.array.counters.zero_()
    with torch.cuda.graph(graph):
        got = gpu.cell.array.read(x)
    graph.replay()
    return float((got != want).double().mean()) < 1e-2


def shared_launches() -> bool:
    """Tiles of different sizes in one launch, more than one holds, with pulses counted."""
    pairs = [pair(17 * n + 3, 300 - 29 * n, SoftBounds(), UpdateConfig()) for n in range(10)]
    data = [
        inputs("gauss_bl31", 90 * n + 1, *cpu.cell.array.shape) for n, (cpu, _) in enumerate(pairs)
    ]
    for layer in (layer for both in pairs for layer in both):
        layer.cell.array.count_pulses()
    with pl.ops.Batch() as batch:
        for (cpu, gpu), (x, d) in zip(pairs, data, strict=True):
            cpu.cell.array.pulse(x, d, 1e-2)
            gpu.cell.array.pulse(x.to(GPU), d.to(GPU), 1e-2, batch)
    same = [torch.equal(cpu.cell.array.fired, gpu.cell.array.fired.cpu()) for cpu, gpu in pairs]
    return all(same) and not any(difference(*both)[0] for both in pairs)


def default_device() -> bool:
    """A tile built where tensors go to the GPU by default."""
    cpu, _ = pair(65, 129, SoftBounds(), UpdateConfig())
    x, d = inputs("gauss_bl31", 40, 65, 129)
    with torch.device(GPU):
        gpu = pl.nn.AnalogLinear(129, 65, bias=False, device=SoftBounds(), seed=3)
        gpu.cell.array.pulse(x.to(GPU), d.to(GPU), 1e-2)
    cpu.cell.array.pulse(x, d, 1e-2)
    return difference(cpu, gpu)[0] == 0


CASES = (
    refused,
    on_side_stream,
    captured_update,
    captured_ageing,
    captured_read,
    shared_launches,
    default_device,
)


def behaviour(small: bool, found: list[Row]) -> None:
    for case in CASES:
        try:
            row: Row = {"case": case.__name__, "ok": case()}
        except Exception as error:  # the others still tell something
            row = {"case": case.__name__, "ok": False, "error": str(error)}
        print("behaviour", row)
        found.append(row)


def seconds(run: Callable[[], object]) -> tuple[float, float]:
    """Median and relative spread of seven to fifty runs, by events."""
    times: list[float] = []
    for n in range(52):
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        first.record()
        run()
        last.record()
        last.synchronize()
        if n > 1:
            times.append(first.elapsed_time(last) * 1e-3)
        if len(times) >= 7 and sum(times) > 0.3:
            break
    q = statistics.quantiles(times, n=4)
    return statistics.median(times), (q[2] - q[0]) / 2 / statistics.median(times)


SHAPES = ((4096, 4096, 512), (768, 3072, 8192), (512, 512, 256), (768, 768, 2048))
UPDATES = (
    ("exact", 0, "iid"),
    ("exact", 0, "lowrank"),
    ("moments", 0, "iid"),
    *(("grouped", size, noise) for size in (4, 8, 16) for noise in ("iid", "lowrank")),
)
LINE = "{:12} {:8} {:>16} {:10} {:>9} {:>9} {:>5} {:>8} {:>9} {:>7} {:>9} {:>7}"


def first_samples(
    rows: int, cols: int, config: UpdateConfig, x: torch.Tensor, d: torch.Tensor, lr: float
) -> tuple[pl.nn.AnalogLinear, Row]:
    """The layer on the GPU after some samples, and how it differs from the CPU's."""
    # Small steps: the weights stay in the middle, groups close by number.
    device = replace(SoftBounds(), dw_min=1e-4)
    cpu, gpu = pair(rows, cols, device, config)
    few = 8 if rows * cols > 1 << 21 else 64
    moments = config.fidelity == "moments"
    limit = moments_limit(cpu.cell.array, x[:few], d[:few], lr) if moments else None
    cpu.cell.array.pulse(x[:few], d[:few], lr)
    gpu.cell.array.pulse(x[:few].to(GPU), d[:few].to(GPU), lr)
    wrong, largest = difference(cpu, gpu)
    row: Row = {"differing": wrong, "largest_steps": largest / device.dw_min}
    row["ok"] = wrong == 0 if limit is None else within(cpu, gpu, limit)
    return gpu, row


def update_row(shape: tuple[int, int, int], profile: str, config: UpdateConfig, base: Row) -> Row:
    """Check, time and print one configuration; ``base``: what torch took for the same shape."""
    rows, cols, batch = shape
    x, d = once(profile, batch, rows, cols)
    lr = LR[profile] * 0.1
    gpu, checked = first_samples(rows, cols, config, x, d, lr)
    xg, dg = x.to(GPU), d.to(GPU)
    t, spread = seconds(lambda: gpu.cell.array.pulse(xg, dg, lr))
    rate = rows * cols * batch / t
    row: Row = {"fidelity": config.fidelity, "group_size": config.group_size}
    row |= {"noise": config.noise, "profile": profile, "shape": list(shape)}
    row |= {"seconds": t, "spread": spread, "crosspoint_samples_per_s": rate, **checked, **base}
    size, moments = config.group_size, config.fidelity == "moments"
    print(
        LINE.format(
            f"{config.fidelity}({size})" if size else config.fidelity,
            config.noise,
            "x".join(map(str, shape)),
            profile,
            f"{row['largest_steps']:.1e}" if moments else row["differing"],
            f"{t * 1e3:.3f}",
            f"{100 * spread:.1f}",
            f"{rate * 1e-9:.0f}",
            f"{base['addmm_seconds'] * 1e3:.3f}",
            f"{t / base['addmm_seconds']:.2f}",
            f"{base['bf16_gemm_seconds'] * 1e3:.3f}",
            f"{t / base['bf16_gemm_seconds']:.2f}",
        ),
        flush=True,
    )
    return row


def update(small: bool, found: list[Row]) -> None:
    heads = ("update", "noise", "shape", "profile", "error", "ms", "+-%", "Gcps/s")
    print(LINE.format(*heads, "addmm ms", "ratio", "bf16 ms", "ratio"))
    for rows, cols, batch in SHAPES[2:3] if small else SHAPES:
        # One word of 31 slots a sample in every sample: the dense case.
        for profile, managed in (("gauss_bl31", False), ("mnistlike", True)):
            x, d = (v.to(GPU) for v in once(profile, batch, rows, cols))
            x16, d16 = x.bfloat16(), d.bfloat16()
            digital = torch.zeros(rows, cols, device=GPU)
            single, _ = seconds(lambda w=digital, x=x, d=d: w.addmm_(d.T, x, alpha=-1e-9))
            half, _ = seconds(lambda x=x16, d=d16: torch.mm(d.T, x))
            base = {"addmm_seconds": single, "bf16_gemm_seconds": half}
            for fidelity, size, noise in UPDATES:
                config = UpdateConfig(
                    fidelity=fidelity,
                    group_size=size,
                    noise=noise,
                    update_bl_management=managed,
                )
                found.append(update_row((rows, cols, batch), profile, config, base))


SECTIONS: dict[str, Callable[[bool, list[Row]], None]] = {
    "equality": equality,
    "behaviour": behaviour,
    "update": update,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sections", nargs="+", choices=list(SECTIONS))
    parser.add_argument("--small", action="store_true", help="for a sanitizer")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    info = pl.ops.info()
    if not info["cuda"]:
        print(f"CUDA cannot be used: {info['cuda_reason']}", file=sys.stderr)
        return 1
    torch.backends.cuda.matmul.allow_tf32 = False
    path = options.out / "gpu.json"
    results = json.loads(path.read_text()) if path.exists() else {}
    results.setdefault("machine", {})
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # from `timeout`
    ok = True
    for name in options.sections:
        rows: list[Row] = []
        try:
            SECTIONS[name](options.small, rows)
        finally:
            if not options.small:
                results[name] = rows
                results["machine"][name] = machine() | gpu_machine()
                path.write_text(json.dumps(results, indent=1) + "\n")
        ok &= all(row["ok"] for row in rows)
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())

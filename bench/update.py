"""Pulsed update against torch.addmm_ of the same shape (rank-B digital update).

Checked first: the kernels give the same bits as the baseline ISA on the first samples; the error
column is the largest difference. Cycle noise on, pulse generation included.

    python bench/update.py --sizes 512 --batches 64 --profiles mnistlike --fidelities exact

With ``--crosspoints`` the baseline is the same update of stored crosspoints, ours draws them anew,
and the error is the largest difference of their weights behind the whole batch. One thread is timed
by the processor's clock, so that others on the machine do not count.
"""

from __future__ import annotations

import time

import peer
import torch
from common import HEADER, LR, Row, inputs, measure, numbers, parser, write

import pulseline as pl
from pulseline import presets

SHORT = {presets.snake(name): cls() for name, cls in pl.devices.DEVICES.items()}
SHORT["linear_step"] = pl.devices.LinearStep(gamma_up=0.2, gamma_down=0.2)  # its default is flat


def tile_of(
    device: str, fidelity: str, rows: int, cols: int, crosspoints: str = "stored"
) -> pl.Array:
    """A tile with small random weights, the same at every call."""
    config = pl.configs.UpdateConfig(fidelity=fidelity)
    mapping = pl.configs.Mapping(crosspoints=crosspoints)
    tile = pl.Array(rows, cols, SHORT[device], update=config, mapping=mapping, seed=0)
    tile.initialise()
    return tile


def check(device: str, fidelity: str, x: torch.Tensor, d: torch.Tensor, lr: float) -> float:
    """Largest difference to the baseline instruction set on at most four samples."""
    results = []
    isa = str(pl.ops.info()["isa"])
    for name in ("baseline", isa):
        pl.ops.use_isa(name)
        tile = tile_of(device, fidelity, d.shape[1], x.shape[1])
        tile.pulse(x[:4].contiguous(), d[:4].contiguous(), lr)
        results.append(tile.weight.data.clone())
    return float((results[0] - results[1]).abs().max())


def main() -> None:
    p = parser(__doc__.splitlines()[0])
    p.add_argument("--profiles", default="mnistlike,gauss_bl1,gauss_bl31,uniform_k5")
    p.add_argument("--fidelities", default="exact")
    p.add_argument("--devices", default="soft_bounds")
    p.add_argument("--crosspoints", action="store_true", help="drawn against stored crosspoints")
    args = peer.arguments(p)
    rows: list[Row] = []
    print(HEADER)
    for device in args.devices.split(","):
        for fidelity in args.fidelities.split(","):
            for profile in args.profiles.split(","):
                for size in numbers(args.sizes):
                    for batch in numbers(args.batches):
                        run = drawn if args.crosspoints else cases
                        rows += run(device, fidelity, profile, size, batch, args)
    write(rows, args.json)


def cases(device: str, fidelity: str, profile: str, size: int, batch: int, args) -> list[Row]:
    """One shape on every thread count."""
    x, d = inputs(profile, batch, size, size)
    lr = LR[profile]
    error = check(device, fidelity, x, d, lr)
    rows = []
    for threads in numbers(args.threads):
        torch.set_num_threads(threads)
        tile = tile_of(device, fidelity, size, size)
        w = torch.randn(size, size)
        names = ("update", device, fidelity, profile)
        rows.append(
            measure(
                names,
                (size, size, batch),
                threads,
                lambda tile=tile: tile.pulse(x, d, lr),
                lambda w=w: w.addmm_(d.t(), x, alpha=-1e-6),
                error,
                args.seconds,
            )
        )
        if args.compare and fidelity in ("exact", "strict"):
            theirs = peer.tile(device, size, size)
            theirs.set_learning_rate(lr)
            rows.append(
                peer.measure(
                    names,
                    (size, size, batch),
                    lambda theirs=theirs: theirs.update(x, d),
                    lambda w=w: w.addmm_(d.t(), x, alpha=-1e-6),
                    args.seconds,
                )
            )
    return rows


def drawn(device: str, fidelity: str, profile: str, size: int, batch: int, args) -> list[Row]:
    """One shape on every thread count: crosspoints drawn anew against stored ones."""
    x, d = inputs(profile, batch, size, size)
    lr, rows = LR[profile], []
    for threads in numbers(args.threads):
        torch.set_num_threads(threads)
        anew, stored = (tile_of(device, fidelity, size, size, how) for how in ("drawn", "stored"))
        for tile in (anew, stored):
            tile.pulse(x, d, lr)
        error = float((anew.held - stored.held).abs().max())
        rows.append(
            measure(
                ("drawn", device, fidelity, profile),
                (size, size, batch),
                threads,
                lambda tile=anew: tile.pulse(x, d, lr),
                lambda tile=stored: tile.pulse(x, d, lr),
                error,
                args.seconds,
                time.process_time if threads == 1 else time.perf_counter,
            )
        )
    return rows


if __name__ == "__main__":
    main()

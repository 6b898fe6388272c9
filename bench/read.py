"""Analog read against torch.mm of the same shape: 7-bit DAC, 9-bit ADC, noise, 512-wide tiles.

The error column is the largest difference of the bare product (all converters off) to float64,
relative to the largest output.

    python bench/read.py --sizes 512 --batches 64
"""

from __future__ import annotations

import peer
import torch
from common import HEADER, Row, measure, numbers, parser, write

import pulseline as pl
from pulseline.configs import IOConfig, ReadConfig

IO = {
    "analog": IOConfig(
        ReadConfig(w_noise=0.01),
        ReadConfig(w_noise=0.01, bound_management="none"),
    ),
    "perfect": IOConfig.perfect(),
}


def error_of(v: torch.Tensor, transposed: bool, size: int) -> float:
    """Bare product against float64."""
    tile = pl.Array(size, size, pl.devices.Ideal(), io=IO["perfect"], seed=0)
    tile.initialise()
    w = tile.weight.data.double()
    exact = v.double() @ (w if transposed else w.t())
    got = tile.read(v, transposed)
    return float((got - exact).abs().max() / exact.abs().max())


def main() -> None:
    p = parser(__doc__.splitlines()[0])
    p.add_argument("--ops", default="forward,backward")
    p.add_argument("--profiles", default="analog,perfect", help="converters on or off")
    args = peer.arguments(p)
    rows: list[Row] = []
    print(HEADER)
    for op in args.ops.split(","):
        for profile in args.profiles.split(","):
            for size in numbers(args.sizes):
                for batch in numbers(args.batches):
                    for threads in numbers(args.threads):
                        rows += cases(op, profile, size, batch, threads, args)
    write(rows, args.json)


def cases(op: str, profile: str, size: int, batch: int, threads: int, args) -> list[Row]:
    """One shape on one thread count."""
    torch.set_num_threads(threads)
    v = torch.randn(batch, size, generator=torch.Generator().manual_seed(1))
    tile = pl.Array(size, size, pl.devices.Ideal(), io=IO[profile], seed=0)
    tile.initialise()
    w, out = tile.weight.data.clone(), torch.empty(batch, size)
    backward = op == "backward"
    other = w if backward else w.t()
    names, shape = (op, "-", "-", profile), (size, size, batch)

    def digital() -> torch.Tensor:
        return torch.mm(v, other, out=out)

    error = error_of(v, backward, size)
    rows = [
        measure(names, shape, threads, lambda: tile.read(v, backward), digital, error, args.seconds)
    ]
    if args.compare:
        theirs = peer.tile("constant_step", size, size, profile == "perfect")
        call = theirs.backward if backward else theirs.forward
        rows.append(peer.measure(names, shape, lambda: call(v), digital, args.seconds))
    return rows


if __name__ == "__main__":
    main()

"""Algorithms of several arrays against plain pulsed SGD of the same shape, and their memory.

Checked first: the same samples cut into single ones give the same bits; the error column is the
largest difference of the effective weight. The baseline is ``pulse`` of one array, exact, in
the same run; rates are such that transfers pulse.

    python bench/algorithms.py --sizes 512,1024 --batches 1,16,64 --every 1,4,16
    python bench/algorithms.py --memory    bytes per crosspoint of each cell, stored and drawn
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
from common import HEADER, LR, Row, inputs, measure, numbers, parser, write

import pulseline as pl
from pulseline import algorithms as al

DEVICE = pl.devices.SoftBounds()


def rules(every: int, lr: float) -> dict[str, al.Rule]:
    """Every algorithm, at the rate of the profile.

    Args:
        every: samples between transfers. lr: of the array that takes gradients.
    """
    fast = {"every": every, "lr_fast": lr, "scale_transfer": False}
    return {
        "TikiTaka1": al.TikiTaka1(**fast, lr_transfer=0.05),
        "Residual1": al.Residual1(**fast, lr_transfer=0.05),
        "MultiTile": al.MultiTile(**fast),
        "TikiTaka2": al.TikiTaka2(**fast, lr_transfer=0.05),
        "ChoppedTikiTaka2": al.ChoppedTikiTaka2(**fast, lr_transfer=0.05),
        "AGAD": al.AGAD(**fast, lr_transfer=0.05),
        "ERIDER": al.ERIDER(**fast, lr_transfer=0.05),
        "RIDER": al.RIDER(**fast, lr_transfer=0.05),
        "Residual2": al.Residual2(**fast, lr_transfer=0.05),
        "MixedPrecision": al.MixedPrecision(every=every, units="samples"),
        "OneSided": al.OneSided(refresh_every=64 * every),
        "Vector": al.Vector(),
    }


def cell_of(rule: al.Rule | None, size: int, crosspoints: str = "stored") -> Any:
    """A cell with small random weights, the same at every call; None: one array."""
    mapping = pl.configs.Mapping(crosspoints=crosspoints)
    crossbar = pl.Crossbar(DEVICE, algorithm=rule, mapping=mapping)
    made: Any = pl.cells.make_cell(size, size, crossbar, pl.Identity(0))
    made.initialise()
    return made


def check(rule: al.Rule, x: torch.Tensor, d: torch.Tensor, lr: float) -> float:
    """Largest difference between a call and single samples, on at most eight."""
    whole, cut = cell_of(rule, x.shape[1]), cell_of(rule, x.shape[1])
    some = slice(0, min(len(x), 8))
    whole.update(x[some], d[some], lr)
    for n in range(some.stop):
        cut.update(x[n : n + 1], d[n : n + 1], lr)
    return float((whole.effective_weight() - cut.effective_weight()).abs().max())


def cases(name: str, every: int, profile: str, size: int, batch: int, args: Any) -> list[Row]:
    """One algorithm and shape on every thread count."""
    x, d = inputs(profile, batch, size, size)
    lr = LR[profile]
    rule = rules(every, lr)[name]
    error, rows = check(rule, x, d, lr), []
    for threads in numbers(args.threads):
        torch.set_num_threads(threads)
        cell, plain = cell_of(rule, size), cell_of(None, size).array
        for _ in range(2):  # transfers have pulsed, buffers are full
            cell.update(x, d, lr)
        rows.append(
            measure(
                (f"{name}, every {every}", DEVICE.name, "exact", profile),
                (size, size, batch),
                threads,
                lambda cell=cell: cell.update(x, d, lr),
                lambda plain=plain: plain.pulse(x, d, lr),
                error,
                args.seconds,
            )
        )
    return rows


def memory(size: int) -> None:
    """Bytes per crosspoint of everything that a cell owns: arrays, buffers, device parameters."""
    print(f"bytes per crosspoint at {size} x {size}\n{'algorithm':18s} stored  drawn")
    for name, rule in {"SGD": None, **rules(1, 0.01)}.items():
        owned = []
        for crosspoints in ("stored", "drawn"):
            cell = cell_of(rule, size, crosspoints)
            tensors = [*cell.parameters(), *cell.buffers()]
            found = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
            owned.append(sum(found.values()) / size**2)
        print(f"{name:18s} {owned[0]:6.2f} {owned[1]:6.2f}")


def main() -> None:
    """Run what was asked for."""
    p: argparse.ArgumentParser = parser(__doc__.splitlines()[0])
    p.add_argument("--profiles", default="mnistlike,gauss_bl1,gauss_bl31")
    p.add_argument("--every", default="1,4,16")
    p.add_argument("--algorithms", default="TikiTaka1,TikiTaka2,ChoppedTikiTaka2,AGAD,ERIDER")
    p.add_argument("--memory", action="store_true", help="bytes per crosspoint instead of times")
    args = p.parse_args()
    if args.memory:
        for size in numbers(args.sizes):
            memory(size)
        return
    rows: list[Row] = []
    print(HEADER)
    for name in args.algorithms.split(","):
        for every in numbers(args.every):
            for profile in args.profiles.split(","):
                for size in numbers(args.sizes):
                    for batch in numbers(args.batches):
                        rows += cases(name, every, profile, size, batch, args)
    write(rows, args.json)


if __name__ == "__main__":
    main()

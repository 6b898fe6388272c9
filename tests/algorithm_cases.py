"""Rules on which the matrices of tests run, and what the specification runs on.

Every option of every rule is in one of the cases; values are such that each branch is taken within
two dozen samples on matrices of 7 x 5.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

import pulseline as pl
from pulseline import algorithms as al
from pulseline.pipeline import Pipeline
from pulseline.reference.algorithms import Buffered, Chained, Mixed

READ = pl.configs.ReadConfig(out_noise=0.02)
LONG = pl.configs.UpdateConfig(desired_bl=40, update_bl_management=False)

RULES: dict[str, al.Rule] = {
    "TikiTaka1": al.TikiTaka1(lr_fast=0.3),
    "TikiTaka1 trains": al.TikiTaka1(
        every=3,
        reads=2,
        order="random",
        scale_fast=True,
        scale_transfer=False,
        lr_fast=0.5,
        transfer_update=LONG,
        read=READ,
    ),
    "TikiTaka1 batches": al.TikiTaka1(units="batches", reads=3),
    "Residual1": al.Residual1(every=2),
    "MultiTile": al.MultiTile(arrays=3, every=1, every_factor=2, lr_fast=0.3),
    "MultiTile warm": al.MultiTile(warm_start=True),
    "TikiTaka2": al.TikiTaka2(lr_fast=0.3, lr_transfer=2.0),
    "TikiTaka2 forgets": al.TikiTaka2(
        every=2,
        forget=True,
        momentum=0.1,
        scale_fast=True,
        lr_fast=1.0,
        threshold=0.5,
        max_pulses=2,
        warm_up=1,
    ),
    "TikiTaka2 leaks": al.TikiTaka2(leak=0.1, momentum=0.3, units="batches", reads=9),
    "ChoppedTikiTaka2": al.ChoppedTikiTaka2(chop=0.3, chop_rows=0.3, lr_fast=0.3),
    "ChoppedTikiTaka2 scaled": al.ChoppedTikiTaka2(
        chop=0.5,
        auto_scale=True,
        auto_momentum=0.9,
        lr_fast=0.2,
        granularity="fast",
        auto_granularity=20.0,
        scale_transfer=False,
        order="random",
    ),
    "AGAD": al.AGAD(chop=0.5, lr_fast=0.3, tail=0.5),
    "AGAD random": al.AGAD(chop=0.4, regular_chop=False, every=2, reads=3, read=READ),
    "ERIDER": al.ERIDER(chop=0.5, gamma=0.3, chop_rows=0.2),
    "RIDER": al.RIDER(smoothing=0.2, lr_fast=0.3),
    "Residual2": al.Residual2(),
    "MixedPrecision": al.MixedPrecision(),
    "MixedPrecision samples": al.MixedPrecision(
        units="samples", every=5, max_pulses=3, threshold=0.5, bins_x=15, bins_d=7
    ),
    "OneSided": al.OneSided(refresh_every=7, full=0.4, both=0.1),
    "ReferencePair": al.ReferencePair(pulses=30),
    "ReferencePair random": al.ReferencePair(pulses=30, cyclic=False),
    "Vector": al.Vector(arrays=3),
    "Vector first": al.Vector(pulsed="first"),
    "Vector sequential": al.Vector(arrays=2, pulsed="sequential", weights=(1, 3)),
    "Vector random": al.Vector(arrays=3, pulsed="random"),
}
# What the specification states: those that transfer after samples.
STATED = {
    name: rule
    for name, rule in RULES.items()
    if isinstance(rule, (al.Transfer, al.Chain))
    and rule.units == "samples"
    and not getattr(rule, "warm_start", False)
} | {"MixedPrecision samples": al.MixedPrecision(units="samples", every=5, max_pulses=3)}

DEVICE = pl.devices.SoftBounds(dw_min=0.01, w_min=-0.8, up_down=0.1)


def normals(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def crossbar(rule: al.Rule, **settings: Any) -> pl.Crossbar:
    return pl.Crossbar(settings.pop("device", DEVICE), algorithm=rule, **settings)


def cell_of(rule: al.Rule, rows: int = 7, cols: int = 5, **settings: Any) -> Any:
    """A cell with weights of some size, tile 3 of seed 5."""
    made: Any = rule(rows, cols, crossbar(rule, **settings), pl.Identity(5, 3))
    made.program(normals(rows, cols, seed=9) * 0.2)
    return made


def network(rule: al.Rule, widths: Sequence[int] = (7, 5, 6, 5, 3), **settings: Any) -> Any:
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for n, m in itertools.pairwise(widths):
        layers += [nn.Linear(n, m, bias=False), nn.Hardtanh()]
    model = nn.Sequential(*layers[:-1])
    return pl.to_analog(model, crossbar(rule, **settings), seed=1)


def train(model: nn.Module, cuts: int = 1, samples: int = 24, seed: int = 0) -> None:
    """Samples in steps of 12, each of so many micro-batches."""
    optimizer = pl.optim.AnalogSGD(model.parameters(), lr=0.2)
    batches = (normals(samples, size, seed=seed + size).split(12) for size in (7, 3))
    for x, y in zip(*batches, strict=True):
        optimizer.zero_grad()
        for part, target in zip(x.chunk(cuts), y.chunk(cuts), strict=True):
            (0.5 * (model(part) - target) ** 2).sum().backward()
        optimizer.step()


class Lonely:
    """Arrays of a cell's devices that stand alone, one sample and one column at a time."""

    def __init__(self, cell: Any, read: Any) -> None:
        self.read = read
        self.arrays = []
        for array in cell.arrays:
            alone = pl.Array(*array.shape, array.crossbar, seed=array.identity)
            alone.write(array.pulsed.clone())
            self.arrays.append(alone)

    def pulse(self, array: int, x: Tensor, d: Tensor, lr: float) -> None:
        self.arrays[array].pulse(x[None], d[None], lr)

    def column(self, array: int, j: int) -> Tensor:
        held = self.arrays[array].held[:, j : j + 1].contiguous()
        return self.arrays[array].convert(held, self.read)[:, 0]

    def step(self, array: int, j: int, pulses: Tensor) -> None:
        column = torch.tensor([j], dtype=torch.int32)
        self.arrays[array].step(column, pulses[:, None].contiguous())


def drawn(key: tuple[int, int], purpose: str, number: int, line: int) -> float:
    """One uniform of choppers and of where sweeps start."""
    draw = int(purpose == "chopper_rows")
    name = purpose.removesuffix("_rows")
    return float(
        pl.ops.uniforms(
            pl.ops.DrawKey(*key), name, torch.tensor([number]), torch.tensor([line]), draw
        )
    )


def specification(rule: Any, cell: Any) -> Any:
    """The reference of a rule, for the devices of a cell."""
    shape = tuple(cell.shape)
    keys = [array.identity.key for array in cell.arrays]
    if isinstance(rule, al.MixedPrecision):
        unit = rule.threshold * cell.array.device.granularity
        return Mixed(rule.every, shape, unit, rule.max_pulses)
    if isinstance(rule, al.Chain):
        return Chained(rule, shape, lambda array, *draw: drawn(keys[array], *draw))
    reference = "none"
    if isinstance(rule, al.AGAD):
        reference = "read" if isinstance(rule, al.RIDER) else "flip"
    steps = tuple(array.device.granularity for array in cell.arrays)
    bl = cell.fast.update_config.desired_bl
    return Buffered(rule, shape, steps, lambda *draw: drawn(keys[1], *draw), reference, bl)


def pipelined(rule: al.Rule, executor: str, stages: int = 4, micro_batch: int = 1) -> str:
    """Digest of a pipeline of so many layers behind 24 samples."""
    widths = (7, *range(5, 5 + stages - 1), 3)
    with Pipeline(
        network(rule, widths),
        stages=stages,
        schedule="async",
        optimizer=lambda p: pl.optim.AnalogSGD(p, lr=0.1),
        loss=nn.functional.mse_loss,
        micro_batch_size=micro_batch,
        executor=executor,
    ) as pipe:
        pipe.step(normals(24, 7), normals(24, 3, seed=1))
        pipe.drain()
        digest = pipe.digest()
    return digest

"""Block-diagonal arrays: each block has the bits that it has in the whole matrix.

The oracle is a dense array of the same identity whose other weights are 0: it is read and pulsed
with the lines of one block alone, since each block is managed on its own. Where physical tiles lie
side by side the dense array has converters with noise beside a block, which do not exist here; they
are compared without output noise.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

import pulseline as pl
from pulseline.configs import IOConfig, Mapping, ReadConfig, UpdateConfig
from pulseline.devices import Ideal, LinearStep, PulsedDevice, SoftBounds
from pulseline.errors import ConfigError

# (blocks, rows of one, columns of one): borders within and at groups of 16 and 32 lines
SHAPES = [(3, 2, 7), (2, 32, 32), (5, 1, 9), (2, 17, 49), (4, 3, 16)]
AGEING: dict[str, Any] = {"lifetime": 300.0, "diffusion": 1e-3, "drift_nu": 0.05, "batch": 7}
DEVICES: dict[str, PulsedDevice] = {
    "soft": SoftBounds(dw_min=0.01),
    "additive": LinearStep(dw_min=0.01, mult_noise=False),
    "written": SoftBounds(dw_min=0.01, write_noise_std=0.5, **AGEING),
}


def normals(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class Both:
    """An array of blocks, and the dense one."""

    def __init__(self, shape: tuple[int, int, int], device: Any = None, **settings: Any) -> None:
        self.blocks, self.each, self.inputs = shape
        self.rows, self.cols = self.blocks * self.each, self.blocks * self.inputs
        crossbar = pl.Crossbar(device or SoftBounds(), **settings)
        one: dict[str, Any] = {"seed": 5, "tile_id": 3}
        stored = replace(crossbar, mapping=replace(crossbar.mapping, crosspoints="stored"))
        self.ours = pl.Array(self.rows, self.cols, crossbar, blocks=self.blocks, **one)
        self.dense = pl.Array(self.rows, self.cols, stored, **one)
        weights = 0.2 * normals(self.rows, self.inputs, seed=1)
        self.ours.program(weights)
        self.dense.program(self.whole(weights))

    def whole(self, blocks: Tensor) -> Tensor:
        """Blocks as a matrix."""
        return torch.block_diag(*blocks.split(self.each))

    def part(self, n: int, matrix: Tensor) -> Tensor:
        return matrix[n * self.each :][: self.each, n * self.inputs :][:, : self.inputs]

    def alone(self, n: int, lines: Tensor, transposed: bool = False) -> Tensor:
        """What goes into one block."""
        width = self.each if transposed else self.inputs
        kept = torch.zeros_like(lines)
        kept[:, n * width :][:, :width] = lines[:, n * width :][:, :width]
        return kept

    def equal(self, dense: Any, n: int) -> None:
        for ours, theirs in ((self.ours.held, dense.held), (self.ours.pulsed, dense.pulsed)):
            mine = ours[n * self.each :][: self.each]
            assert torch.equal(mine, self.part(n, theirs))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("device", DEVICES)
def test_devices_and_weights_are_those_of_the_whole_matrix(
    shape: tuple[int, int, int], device: str
) -> None:
    both = Both(shape, DEVICES[device])
    for name in ("step", "slope", "bound", "words"):
        ours, dense = (getattr(one.crosspoints, name) for one in (both.ours, both.dense))
        assert (ours is None) == (dense is None)
        if ours is None:
            continue
        for n in range(both.blocks):
            mine = ours[..., n * both.each :, :][..., : both.each, :]
            theirs = dense if dense.dim() == 3 else dense[None]
            assert torch.equal(mine, torch.stack([both.part(n, t) for t in theirs]).view_as(mine))
    for n in range(both.blocks):
        both.equal(both.dense, n)
    both.ours.initialise()
    normals = pl.ops.initial_normals(both.rows, both.cols, 5, 3)
    both.dense.program(normals / both.inputs**0.5)
    for n in range(both.blocks):
        both.equal(both.dense, n)


NOISE = {"out_noise": 0.05, "inp_noise": 0.02}
READS: dict[str, tuple[dict[str, Any], int]] = {
    "plain": (NOISE, 512),
    "weight noise": ({"out_noise": 0.05, "w_noise": 0.03}, 512),
    "tiles": ({"inp_noise": 0.02, "out_noise": 0.0}, 8),
    "no management": ({**NOISE, "noise_management": "none", "bound_management": "none"}, 512),
    "rounding": ({**NOISE, "inp_sto_round": True, "out_sto_round": True}, 512),
    "two passes": ({**NOISE, "mv_type": "pos_neg_separate"}, 512),
    "lines": ({**NOISE, "out_noise_std": 0.3, "out_nonlinearity": 0.1}, 512),
    "tiles with options": ({"inp_noise": 0.02, "out_noise": 0.0, "inp_sto_round": True}, 8),
    "pcm": ({"out_noise": 0.05, "w_noise": 0.03, "w_noise_type": "pcm_read"}, 512),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", READS)
@pytest.mark.parametrize("transposed", [False, True])
def test_a_read_of_a_block(shape: tuple[int, int, int], name: str, transposed: bool) -> None:
    fields, tile = READS[name]
    config = ReadConfig(**fields)
    both = Both(shape, io=IOConfig(config, config), mapping=Mapping(tile_in=tile, tile_out=tile))
    lines = both.rows if transposed else both.cols
    x = normals(37, lines, seed=2)
    x[3] = 0.0
    start = copy.deepcopy(both.dense)
    y = both.ours.read(x, transposed)
    width = both.inputs if transposed else both.each
    for n in range(both.blocks):
        expected = copy.deepcopy(start).read(both.alone(n, x, transposed), transposed)
        assert torch.equal(y[:, n * width :][:, :width], expected[:, n * width :][:, :width])
    assert both.ours.counts()[int(transposed)] == 37
    again = both.ours.evaluate(x, transposed)[:3]
    both.ours.begin_evaluation()
    assert torch.equal(both.ours.evaluate(x[:3], transposed), again)


UPDATES = [
    *(UpdateConfig(fidelity=f) for f in ("strict", "exact", "expected", "grouped", "moments")),
    UpdateConfig(fidelity="exact", noise="lowrank"),
    UpdateConfig(fidelity="grouped", noise="lowrank"),
    UpdateConfig(fidelity="exact", desired_bl=70, update_bl_management=False),
]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("update", UPDATES, ids=lambda u: f"{u.fidelity}-{u.noise}-{u.desired_bl}")
def test_an_update_of_a_block(
    shape: tuple[int, int, int], device: str, update: UpdateConfig, kernels: Any
) -> None:
    for isa in {kernels.isas[0], kernels.isas[-1]}:
        kernels.use(isa)
        how = Mapping(crosspoints="drawn" if isa == "baseline" else "stored")
        both = Both(shape, DEVICES[device], update=update, mapping=how)
        x, d = normals(45, both.cols, seed=3), normals(45, both.rows, seed=4)
        x[7], d[9] = 0.0, 0.0
        start = copy.deepcopy(both.dense)
        both.ours.count_pulses()
        both.ours.pulse(x, d, 0.1)
        for n in range(both.blocks):
            dense = copy.deepcopy(start)
            dense.pulse(both.alone(n, x), both.alone(n, d, transposed=True), 0.1)
            both.equal(dense, n)
        assert both.ours.counts().update == 45


def test_the_ideal_device_and_what_is_refused() -> None:
    both = Both((3, 2, 7), Ideal(), io=IOConfig.perfect())
    x, d = normals(6, 21, seed=1), normals(6, 6, seed=2)
    before = both.ours.held.clone()
    d[5, 5] = float("nan")
    with pytest.raises(ConfigError, match=r"d\[5\] holds a NaN"):
        both.ours.pulse(x, d, 0.1)
    assert torch.equal(both.ours.held, before)
    d[5, 5] = 0.0
    both.ours.pulse(x, d, 0.1)
    both.dense.pulse(x, d, 0.1)
    for n in range(3):
        mine = both.ours.held[2 * n :][:2]
        torch.testing.assert_close(mine, both.part(n, both.dense.held), rtol=0, atol=2**-20)
    with pytest.raises(ConfigError, match=r"x has shape \(6, 7\); use \(samples, 21\)"):
        both.ours.read(x[:, :7])
    settings = SoftBounds(lifetime=9.0).retention()
    with pytest.raises(ConfigError, match="block_rows is 4 of a matrix of 6 rows; use a divisor"):
        pl.ops.construct_retention(settings, 6, 3, 0, 0, 4)


@pytest.mark.parametrize("device", DEVICES)
def test_threads_change_no_bit_of_blocks(device: str, kernels: Any) -> None:
    """Many blocks share threads, few blocks use all of them."""
    isa = str(pl.ops.info()["isa"])
    for shape in ((40, 4, 36), (2, 64, 96)):
        found = []
        for threads in (1, 2, 3):
            kernels.use(isa, threads)
            both = Both(shape, DEVICES[device], io=IOConfig())
            x, d = normals(300, both.cols, seed=3), normals(300, both.rows, seed=4)
            y, g = both.ours.read(x), both.ours.read(d, transposed=True)
            both.ours.pulse(x, d, 0.1)
            found.append((y, g, both.ours.held.clone()))
        for others in found[1:]:
            assert all(torch.equal(a, b) for a, b in zip(found[0], others, strict=True))

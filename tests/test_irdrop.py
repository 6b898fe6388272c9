"""IR drop: the nodal solve against a dense one, reciprocity, CG iterations, the closed form.

The oracle (:func:`pulseline.reference.wires.nodal`) solves all 2 n m node voltages in float64. CG
stops at a relative energy error of the tolerance; currents are allowed ten times that, plus float32
rounding. eta = n^2 r <G> is the severity of a square array.
"""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

import pulseline as pl
from conftest import Kernels
from pulseline import ops
from pulseline.configs import IOConfig, Mapping, ReadConfig
from pulseline.errors import ConfigError
from pulseline.reference import wires

PERFECT = ReadConfig.perfect()


def array(rows: int, cols: int, signed: bool = True, seed: int = 1) -> Tensor:
    """Conductances between .05 and 1, of both signs on request."""
    g = torch.Generator().manual_seed(seed)
    w = 0.05 + 0.95 * torch.rand(rows, cols, generator=g)
    return w * (torch.randint(0, 2, (rows, cols), generator=g) * 2 - 1) if signed else w


def error(a: Tensor, b: Tensor) -> float:
    return float((a.double() - b.double()).norm() / b.double().norm())


def resistance(eta: float, n: int, mean: float = 0.525) -> float:
    return eta / (n * n * mean)


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (2, 2), (7, 13), (20, 11)])
@pytest.mark.parametrize("transposed", [False, True])
def test_nodal_solve(shape: tuple[int, int], transposed: bool) -> None:
    w = array(*shape)
    w[0, 0] = 0.0
    oracle = wires.nodal(w, 0.02)
    matrix = oracle if transposed else oracle.t()
    q = torch.randn(6, matrix.shape[0], generator=torch.Generator().manual_seed(2))
    for tolerance in (1e-4, 1e-9):
        y, _ = ops.wire_currents(q, w, 0.02, tolerance, transposed)
        exact = q.double() @ matrix
        assert ((y - exact).abs() <= (10 * tolerance + 1e-6) * exact.abs().max()).all()


def test_no_resistance_is_the_plain_product() -> None:
    w, q = array(12, 17), torch.randn(3, 17)
    y, _ = ops.wire_currents(q, w, 1e-9)
    assert error(y, q @ w.t()) < 1e-5


def test_reciprocity() -> None:
    """The matrix of the backward read is the transpose of the forward one to 1e-5."""
    for rows, cols, r in ((24, 29, 5e-4), (40, 12, 0.05)):
        w = array(rows, cols)
        forward, _ = ops.wire_currents(torch.eye(cols), w, r, 1e-8)
        backward, _ = ops.wire_currents(torch.eye(rows), w, r, 1e-8, transposed=True)
        assert (forward - backward.t()).abs().max() < 1e-5 * forward.abs().max()
        assert error(forward.t(), w) > 0.02  # the wires matter


@pytest.mark.parametrize("eta", [0.07, 0.5, 2.0, 8.0, 34.0])
@pytest.mark.parametrize("n", [64, 128])
def test_iterations(eta: float, n: int) -> None:
    """At most 12 to 1e-6 over the range of the design's measurements."""
    w, r = array(n, n, signed=False), resistance(eta, n)
    g = torch.Generator().manual_seed(3)
    q = torch.rand(4, n, generator=g) * (torch.rand(4, n, generator=g) < 0.5)
    y, most = ops.wire_currents(q, w, r, 1e-6)
    assert 1 <= most <= 12
    finer, _ = ops.wire_currents(q, w, r, 1e-11)
    assert error(y, finer) < 1e-5


@pytest.mark.parametrize("eta", [0.05, 0.2, 0.5])
@pytest.mark.parametrize("n", [16, 32])
def test_closed_form(eta: float, n: int) -> None:
    """Within 1 % of the currents up to eta = .5, far better than no model."""
    w, r = array(n, n, signed=False), resistance(eta, n)
    q = torch.rand(8, n, generator=torch.Generator().manual_seed(4))
    exact = q.double() @ wires.nodal(w, r).t()
    closed = q @ wires.approximate(w, r).t()
    assert error(closed, exact) < 0.01
    assert error(closed, exact) < error(q @ w.t(), exact) / 5


def test_closed_form_is_exact_to_first_order() -> None:
    """Halving a small resistance quarters what is left."""
    w = array(10, 14)
    left = [float((wires.approximate(w, r) - wires.nodal(w, r)).norm()) for r in (4e-4, 2e-4)]
    assert 3.0 < left[0] / left[1] < 5.0


def tile(ir_drop: str, mapping: Mapping, r: float) -> pl.Array:
    config = dataclasses.replace(PERFECT, ir_drop=ir_drop, wire_resistance=r, ir_tolerance=1e-9)
    result = pl.Array(30, 40, pl.devices.Ideal(), io=IOConfig(config, config), mapping=mapping)
    result.program(array(30, 40))
    return result


@pytest.mark.parametrize("ir_drop", ["approx", "exact"])
def test_tiles(kernels: Kernels, ir_drop: str) -> None:
    """A tile of its own wires per physical tile; backward is the transpose; bits as always."""
    mapping, r = Mapping(tile_in=24, tile_out=16), 2e-3
    model = wires.approximate if ir_drop == "approx" else wires.nodal
    w = array(30, 40)
    effective = torch.zeros(30, 40, dtype=torch.float64)
    for i in range(0, 30, 16):
        for j in range(0, 40, 24):
            effective[i : i + 16, j : j + 24] = model(w[i : i + 16, j : j + 24], r)
    assert error(effective, w) > 0.01
    g = torch.Generator().manual_seed(5)
    x, d = torch.randn(9, 40, generator=g), torch.randn(9, 30, generator=g)
    answers = {}
    for isa, _ in kernels.each():
        t = tile(ir_drop, mapping, r)
        y, back = t.read(x), t.read(d, True)
        assert error(y, x.double() @ effective.t()) < 1e-5
        assert error(back, d.double() @ effective) < 1e-5
        t = tile(ir_drop, mapping, r)
        assert torch.equal(torch.cat([t.read(part) for part in x.split([1, 5, 3])]), y)
        fused = isa in kernels.fused  # segments add up by fma, or not
        y0, back0 = answers.setdefault(fused, (y, back))
        assert torch.equal(y, y0)
        assert torch.equal(back, back0)


def test_refusals() -> None:
    with pytest.raises(ConfigError, match=r"^resistance is 0; use a number from "):
        ops.wire_currents(torch.zeros(1, 2), torch.zeros(3, 2), 0)
    with pytest.raises(ConfigError, match=r"^q has shape \(1, 3\); use \(samples, 2\)"):
        ops.wire_currents(torch.zeros(1, 3), torch.zeros(3, 2), 0.1)

"""Low-rank cycle noise: known answers, equal bits of reference and every instruction set, its law.

xi_ij = c sum_{r<8} U_ir V_jr with independent symmetric U, V, so odd moments and all correlations
of two crosspoints vanish. Let u, v be the mean squares, a = E U^4 / u^2 and b = E V^4 / v^2 (exact
fractions below, from the sixteen bits). With c = (8 u v)^(-1/2):

    E xi^2 = 1              E xi_ij xi_kl = 0           E xi^4 = 3 + (a b - 3) / 8
    E xi_ij xi_il xi_kj xi_kl = 1/8  (two rows, two columns; iid: 0)
    cov(xi_ij^2, xi_il^2) = (a - 1)/8,   cov(xi_ij^2, xi_kj^2) = (b - 1)/8,   else 0

the last by E(sum_r U_ir V_jr)^2 (sum_r U_ir V_lr)^2 = v^2 E(sum_r U_ir^2)^2. Hence the mean of xi^2
over one draw of (R, C) crosspoints has the variance

    ((E xi^4 - 1) + (C - 1)(a - 1)/8 + (R - 1)(b - 1)/8) / (R C)

Draws are independent of each other: a mean over draws gets 5 standard errors, estimated from the
draws themselves (7 numbers exceed that by chance once in 200,000 runs; seeds are fixed).
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from fractions import Fraction
from typing import Any

import pytest
import torch
from torch import Tensor

from conftest import Kernels
from operators import replaced, update_arguments
from pulseline import Array, _cpu, ops, reference
from pulseline.configs import FIDELITIES, UpdateConfig
from pulseline.devices import ConstantStep, ExpStep, Ideal, SoftBounds
from pulseline.errors import ConfigError
from pulseline.reference import rng
from test_relaxed_statistics import DEVICES, LR, increments, ratios, stated
from test_update import MODELS, SEED, TILE_ID, K, Problem, bits, problem
from test_update_statistics import SIGMA, STEP, Law, constant

fidelities = pytest.mark.parametrize("fidelity", ["exact", "grouped"])
ANSWERS = (
    ("0x1.b70f4p+2", "-0x1.13354p+2", "0x1.34e68p+0", "0x1.6f064p+2"),
    ("0x1.9a23p+2", "0x1.2fb8p+0", "-0x1.af5p-4", "0x1.dabp-3"),
)
SIZES = (0, 1, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 129, 257)
BATCHES = (3, 70, 1, 2, 64, 40, 33, 5, 31, 0, 13, 65, 7, 32)
SHAPES = [
    (rows, SIZES[(n + 7) % len(SIZES)], batch)
    for n, (rows, batch) in enumerate(zip(SIZES, BATCHES, strict=True))
]


def kernel(p: Problem, cuts: tuple[int, ...] = ()) -> Tensor:
    """Run the kernels in use, the batch cut after these samples."""
    w = p.weight.clone()
    for first, last in itertools.pairwise((0, *cuts, len(p.x))):
        pair = (p.x[first:last], p.d[first:last])
        rest = (p.device, p.config, p.lr, (SEED, TILE_ID, K + first))
        ops.update_(*update_arguments(w, p.stored, *pair, *rest))
    return w


def check(kernels: Kernels, p: Problem) -> Tensor:
    """Reference == every instruction set, 1 and 2 threads; exact: whole and in pieces."""
    expected = p.reference()
    batch = len(p.x)
    cuts = tuple(sorted({n for n in (1, 2, 7, batch // 2, batch - 1) if 0 < n < batch}))
    for isa, threads in kernels.each():
        for pieces in ((), cuts) if p.config.fidelity == "exact" else ((),):
            wrong = int((bits(kernel(p, pieces)) != bits(expected)).sum())
            assert wrong == 0, f"{isa}, {threads} threads, cut at {pieces}: {wrong} differ"
    return expected


# ---- draws ----


def test_known_answers() -> None:
    assert (rng.ROW_RANK, rng.COLUMN_RANK) == (16, 17)
    stream = rng.Stream(0x0123456789ABCDEF, 7)
    k = 2**32 + 3
    for draw, answer in ((0, ANSWERS[0]), (2, ANSWERS[1])):
        drawn = rng.rank_noise(3, 130, stream, k, draw)
        places = ((0, 0), (0, 1), (1, 0), (2, 129))
        assert [float(drawn[place]) for place in places] == [float.fromhex(a) for a in answer]
        compiled = [
            [_cpu.core.rank_sum(*stream, k, i, j, draw) for j in range(130)] for i in (0, 2)
        ]
        assert torch.equal(drawn[[0, 2]], torch.tensor(compiled, dtype=torch.float32))


def factors(purpose: int, k: int, lines: int) -> Tensor:
    """(lines, 8) by the masks of the kernels: bf16 numbers, widened."""
    words = torch.stack(rng.draw4(rng.Stream(1, 2), purpose, k, torch.arange(lines), 0), 1)
    halves = torch.stack([words & 0xFFFF, words >> 16], 2).flatten(1)
    keep, put = (0x81FF, 0x3E00) if purpose == rng.ROW_RANK else (0x807F, 0x3F80)
    return torch.from_numpy(((halves & keep | put) << 16).numpy().astype("uint32")).view(
        torch.float32
    )


def test_sums_are_exact_in_any_order() -> None:
    """Products lie on a grid of 2^-17, sums below 32: float32 adds them exactly, as bf16 factors
    on a tensor core do; so order cannot show."""
    u, v = factors(rng.ROW_RANK, 3, 64), factors(rng.COLUMN_RANK, 3, 96)
    for t in (u, v):
        assert torch.equal(t, t.bfloat16().float())
    exact = u.double() @ v.double().t()
    assert torch.equal(exact * 2**17, (exact * 2**17).round())
    assert exact.abs().max() < 32
    assert u.abs().max() * v.abs().max() * 8 < 32
    assert torch.equal(rng.rank_noise(64, 96, rng.Stream(1, 2), 3, 0).double(), exact)
    for order in (range(8), reversed(range(8)), (3, 0, 7, 5, 1, 6, 2, 4)):
        total = torch.zeros(64, 96)
        for r in order:
            total = total + u[:, r, None] * v[:, r]
        assert torch.equal(total.double(), exact)


# ---- equal bits ----


@fidelities
@pytest.mark.parametrize(("rows", "cols", "batch"), SHAPES)
def test_sizes(kernels: Kernels, rows: int, cols: int, batch: int, fidelity: str) -> None:
    models = list(MODELS.values())
    device = models[(SIZES.index(rows) + 5 * (fidelity == "grouped")) % len(models)]
    p = problem(rows, cols, batch, device, fidelity, noise="lowrank")
    after = check(kernels, p)
    assert after.shape == (rows, cols)
    assert batch < 5 or rows * cols == 0 or not torch.equal(after, p.weight)


@fidelities
@pytest.mark.parametrize("model", MODELS)
def test_models(kernels: Kernels, model: str, fidelity: str) -> None:
    """Every model; 204,750 crosspoint samples, so that two threads share the rows."""
    p = problem(70, 65, 45, MODELS[model], fidelity, noise="lowrank")
    after = check(kernels, p)
    iid = problem(70, 65, 45, MODELS[model], fidelity)
    noisy = MODELS[model].dw_min_std > 0
    assert torch.equal(bits(after), bits(iid.reference())) != noisy


@fidelities
def test_more_samples_than_a_slice(kernels: Kernels, fidelity: str) -> None:
    check(kernels, problem(3, 257, 600, MODELS["SoftBounds"], fidelity, noise="lowrank"))


@fidelities
@pytest.mark.parametrize("desired_bl", [31, 32, 63, 150])
def test_long_trains(kernels: Kernels, fidelity: str, desired_bl: int) -> None:
    """More than 31 slots: exact draws anew for every word."""
    settings: dict[str, Any] = {"desired_bl": desired_bl, "noise": "lowrank"}
    check(kernels, problem(17, 40, 9, MODELS["SoftBounds"], fidelity, lr=0.5, **settings))


@pytest.mark.parametrize("density", [0.02, 1.0])
@pytest.mark.parametrize("group_size", [1, 7, 0])
def test_groups(kernels: Kernels, group_size: int, density: float) -> None:
    """Packed and plain counts; silent samples, lines that a whole group leaves alone."""
    p = problem(33, 65, 40, MODELS["SoftBounds"], "grouped", group_size=group_size, noise="lowrank")
    g = torch.Generator().manual_seed(group_size)
    x, d = (v * (torch.rand(v.shape, generator=g) < density**0.5) for v in (p.x, p.d))
    x[[0, 7, 8]] = 0
    check(kernels, p._replace(x=x, d=d))


def test_default_is_iid() -> None:
    assert UpdateConfig().noise == "iid"
    for fidelity in ("exact", "grouped"):
        p = problem(17, 33, 12, MODELS["SoftBounds"], fidelity)
        named = p._replace(config=UpdateConfig(fidelity=fidelity, noise="iid"))
        assert torch.equal(bits(kernel(p)), bits(kernel(named)))
        lowrank = p._replace(config=UpdateConfig(fidelity=fidelity, noise="lowrank"))
        assert not torch.equal(kernel(p), kernel(lowrank))


# ---- the law ----


def moments() -> tuple[Fraction, Fraction, Fraction, Fraction]:
    """u, v, a, b of the header, exact."""
    fraction = [Fraction(128 + f, 128) for f in range(128)]
    m2, m4 = (sum(f**n for f in fraction) / 128 for n in (2, 4))
    e2, e4 = (sum(Fraction(2) ** (-n * e) for e in range(4)) / 4 for n in (2, 4))
    return e2 * m2, m2, e4 * m4 / (e2 * m2) ** 2, m4 / m2**2


def agree(values: Tensor, expected: float) -> None:
    """``values``: one number of every draw."""
    standard = float(values.std()) / math.sqrt(len(values))
    assert abs(float(values.mean()) - expected) < 5 * standard, (values.mean(), expected, standard)


def test_unit() -> None:
    """float32(c) = (8 u v)^(-1/2), rounded to nearest."""
    u, v, _, _ = moments()
    unit = torch.tensor(rng.RANK_UNIT)
    assert float(unit) == float(torch.tensor(1 / math.sqrt(8 * u * v)))


def test_law_of_the_draws() -> None:
    """1,000 draws of 32 x 48 crosspoints: the header's numbers, and white in k and draw."""
    draws, rows, cols = 1000, 32, 48
    xi = torch.stack(
        [rng.rank_noise(rows, cols, rng.Stream(5, 6), n // 2, n % 2) for n in range(draws)]
    )
    xi = xi.double() * rng.RANK_UNIT
    _, _, a, b = moments()
    kurtosis = 3 + float(a * b - 3) / 8
    assert 0.015 < kurtosis - 3 < 0.025
    agree(xi.mean((1, 2)), 0)
    square = (xi**2).mean((1, 2))
    agree(square, 1)
    agree((xi**4).mean((1, 2)), kurtosis)
    agree((xi[:, :, 1:] * xi[:, :, :-1]).mean((1, 2)), 0)
    agree((xi[:, 1:] * xi[:, :-1]).mean((1, 2)), 0)
    agree((xi[1:] * xi[:-1]).mean((1, 2)), 0)
    agree(
        (xi[:, :16, :24] * xi[:, :16, 24:] * xi[:, 16:, :24] * xi[:, 16:, 24:]).mean((1, 2)), 1 / 8
    )
    spread = kurtosis - 1 + (cols - 1) * float(a - 1) / 8 + (rows - 1) * float(b - 1) / 8
    agree((square - 1) ** 2, spread / (rows * cols))
    # beyond 3 and 4 sigma: a normal has .0027 and 6.3e-5
    assert 0.0025 < (xi.abs() > 3).double().mean() < 0.0031
    assert 3e-5 < (xi.abs() > 4).double().mean() < 1.2e-4


@fidelities
def test_noise_alone(isa: str, fidelity: str) -> None:
    """Every line fires in all 31 slots: dw (31 + sigma sqrt(31) xi), in the kernels."""
    rows, cols = 12, 25
    sample = Law(torch.ones(cols).double(), -torch.ones(rows).double(), 31 * STEP, 31)
    x, d = sample.x.float()[None], sample.d.float()[None]
    device = constant()
    stored = reference.construct(device, rows, cols, 7, 1)
    config = UpdateConfig(update_bl_management=False, fidelity=fidelity, noise="lowrank")
    result = torch.zeros(500, rows, cols)
    for k, w in enumerate(result):
        rest = (x, d, device, config, sample.lr, (7, 1, k))
        ops.update_(*update_arguments(w, stored, *rest))
    xi = (result.double() / STEP - 31) / (SIGMA * math.sqrt(31))
    _, _, a, b = moments()
    agree(xi.mean((1, 2)), 0)
    agree((xi**2).mean((1, 2)), 1)
    agree((xi**4).mean((1, 2)), 3 + float(a * b - 3) / 8)
    agree((xi[:, :, 1:] * xi[:, :, :-1]).mean((1, 2)), 0)
    agree((xi[:, 1:] * xi[:, :-1]).mean((1, 2)), 0)


@fidelities
@pytest.mark.parametrize("profile", LR)
@pytest.mark.parametrize("model", DEVICES)
def test_against_strict(model: str, profile: str, fidelity: str) -> None:
    """Slope, spread and variances of the sums of rows and columns, as test_relaxed_statistics
    demands them of iid noise: low-rank noise has the covariances of iid noise."""
    strict = increments(model, profile, "strict", 0)
    steps = increments(model, profile, fidelity, 0, noise="lowrank")
    assert not torch.equal(steps, increments(model, profile, fidelity, 0))
    errors = stated(model, profile, fidelity)
    for name, ratio in ratios(steps, strict, profile).items():
        assert abs(ratio.error) <= errors[name] + 5 * ratio.standard, (name, ratio)


# ---- configuration ----


@pytest.mark.parametrize("fidelity", ["strict", "expected", "moments"])
def test_other_fidelities_refuse(fidelity: str) -> None:
    message = rf"^UpdateConfig: noise is 'lowrank'; use it with .* not {fidelity}$"
    with pytest.raises(ConfigError, match=message):
        UpdateConfig(fidelity=fidelity, noise="lowrank")
    p = problem(3, 5, 2, MODELS["SoftBounds"])
    w = p.weight.clone()
    config = dataclasses.replace(p.config, noise="lowrank")
    arguments = update_arguments(w, p.stored, p.x, p.d, p.device, config, p.lr, (0, 0, 0))
    arguments = replaced(arguments, ops.UpdateKey, fidelity=FIDELITIES.index(fidelity))
    with pytest.raises(ConfigError, match=r"^noise is lowrank with fidelity"):
        ops.update_(*arguments)
    assert torch.equal(w, p.weight)


def test_unknown_noise() -> None:
    with pytest.raises(ConfigError, match=r"^UpdateConfig: noise is 'white'; use one of iid, low"):
        UpdateConfig(noise="white")


def test_tiles() -> None:
    """A tile draws it; a device whose default is strict refuses, by name."""
    config = UpdateConfig(noise="lowrank")
    coarse = ConstantStep(dw_min=0.1)
    assert coarse.default_fidelity == "strict"
    with pytest.raises(ConfigError, match=r"not strict$"):
        Array(3, 5, coarse, update=config)
    Array(3, 5, Ideal(), update=config)
    for device in (SoftBounds(), ExpStep()):
        p = problem(9, 33, 8, device, "exact", lr=0.01, noise="lowrank")
        tile = Array(9, 33, device, update=config, seed=7, tile_id=TILE_ID)
        tile.program(p.weight)
        tile.counters.fill_(K)
        stored = reference.construct(device, 9, 33, 7, TILE_ID)
        start = (tile.weight.data.clone(), stored, p.x, p.d, device, p.config)
        tile.pulse(p.x, p.d, 0.01)
        want = reference.update(*start, lr=0.01, seed=7, tile_id=TILE_ID, k=K)
        assert torch.equal(bits(tile.weight.data), bits(want))

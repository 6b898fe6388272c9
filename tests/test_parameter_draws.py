"""What a crosspoint draws for life: distribution, and independence of everything else.

Each parameter hashes the crosspoint's place with keys of its own (csrc/core/parameters.h); that the
kernels draw what the reference draws is tests/test_devices.py. Tolerances: 5 standard errors of N
independent normals (seeds are fixed): mean 1/sqrt(N), variance sqrt(2/N), skewness sqrt(6/N),
kurtosis sqrt(24/N), correlations 1/sqrt(N), of squares too; Kolmogorov distance 2/sqrt(N) above the
generator's own .0005; counts beyond z: sqrt of the count.
"""

from __future__ import annotations

import itertools
import math
from statistics import NormalDist

import pytest
import torch
from torch import Tensor

from pulseline import ops
from pulseline.devices import SoftBoundsReference
from pulseline.reference import rng
from pulseline.reference.devices import construct, initial_normals
from test_core import kolmogorov

ROWS, COLS = 512, 1024
N = ROWS * COLS
PARAMETERS = (*range(7), *range(10, 14))
# Of parameters 0 to 13 at row 69, column 199 of seed 2^32 - 3, array 2 of tile 5.
KNOWN_WORDS = [0xF4DBF52C, 0x85F93063, 0xBF4302D5, 0x7C115FC6, 0x2DDE608C, 0x9696A249, 0xA7A78444]
KNOWN_WORDS += [0x877A52CD, 0x04D2BAE9, 0xA67CB61E, 0x6D23CC0C, 0x031E13A5, 0x751254EF, 0xD46DA638]
KNOWN_PAIRS = [0x3A71BA73, 0xBA8ABAC9, 0x3F5FBF1C]  # step, slope, bound there
DEVICE = SoftBoundsReference(slope_up_dtod=0.1, slope_down_dtod=0.1, reference_std=0.05)


def normals(parameter: int, seed: int = 7, tile_id: int = 1) -> Tensor:
    return rng.ParameterDraws(rng.Stream(seed, tile_id), ROWS, COLS).normal(parameter).double()


def correlation(a: Tensor, b: Tensor) -> float:
    """Of two sets of standard normals, in units of its standard error."""
    return float((a * b).mean()) * math.sqrt(a.numel())


@pytest.mark.parametrize("parameter", PARAMETERS)
def test_they_are_normal(parameter: int) -> None:
    z = normals(parameter)
    assert abs(float(z.mean())) < 5 / math.sqrt(N)
    assert abs(float(z.var()) - 1) < 5 * math.sqrt(2 / N)
    assert abs(float((z**3).mean())) < 5 * math.sqrt(15 / N)  # of the raw third moment
    assert abs(float((z**4).mean()) - 3) < 5 * math.sqrt(96 / N) + 0.001  # its own excess
    assert kolmogorov(z.numpy()) < 0.0005 + 2 / math.sqrt(N)
    assert float(z.abs().max()) <= 4.85


def test_tails() -> None:
    """Counts beyond 2, 3 and 4 sigma of 5.8e6 draws; beyond 4.5 the generator ends."""
    z = torch.cat([normals(n).flatten() for n in PARAMETERS])
    for sigma in (2.0, 3.0, 4.0):
        expected = 2 * NormalDist().cdf(-sigma) * len(z)
        count = int((z.abs() > sigma).sum())
        assert abs(count - expected) < 5 * math.sqrt(expected) + 0.02 * expected, sigma


def test_parameters_of_a_crosspoint_are_independent() -> None:
    drawn = {n: normals(n) for n in PARAMETERS}
    for a, b in itertools.combinations(PARAMETERS, 2):
        assert abs(correlation(drawn[a], drawn[b])) < 5, (a, b)
        squares = (drawn[a] ** 2 - 1) / math.sqrt(2), (drawn[b] ** 2 - 1) / math.sqrt(2)
        assert abs(correlation(*squares)) < 5, (a, b)


@pytest.mark.parametrize("parameter", PARAMETERS)
def test_neighbours_are_independent(parameter: int) -> None:
    z = normals(parameter)
    for lag in (1, 2, 4, 8, 16, 17, 32, 64, 128, 256):
        assert abs(correlation(z[:, lag:], z[:, :-lag])) < 5, lag
        assert abs(correlation(z[lag:], z[:-lag])) < 5, lag
    assert abs(correlation(z[1:, 1:], z[:-1, :-1])) < 5
    assert abs(correlation(z[1:, :-1], z[:-1, 1:])) < 5
    # Means of lines scatter as those of independent numbers: chi-squared of as many lines.
    for dim, lines in ((0, COLS), (1, ROWS)):
        chi2 = float((z.mean(dim) ** 2).sum()) * (N // lines)
        assert abs(chi2 - lines) < 6 * math.sqrt(2 * lines), dim


def test_arrays_are_independent() -> None:
    """Of other tiles, other arrays of a cell (n << 24) and other seeds."""
    first = normals(0)
    for seed, tile_id in ((7, 2), (7, 1 | 1 << 24), (8, 1), (7 | 1 << 20, 1), (2**32 - 1, 1)):
        assert abs(correlation(first, normals(0, seed, tile_id))) < 5, (seed, tile_id)


def test_initial_weights_are_independent_of_devices() -> None:
    z = initial_normals(ROWS, COLS, 7, 1).double()
    assert kolmogorov(z.numpy()) < 0.0005 + 2 / math.sqrt(N)
    for n in PARAMETERS:
        assert abs(correlation(z, normals(n))) < 5, n


def test_known_answers() -> None:
    """The numbering of draws (kNumbering): one word of every parameter, never to change."""
    draws = rng.ParameterDraws(rng.Stream(2**32 - 3, 5 | 2 << 24), 70, 200)
    words = [int(draws._words(n)[69, 199]) for n in range(14)]
    assert words == KNOWN_WORDS
    device, stream = DEVICE, (2**32 - 3, 5 | 2 << 24)
    stored = ops.construct(device.name, device.parameters(), 70, 200, *stream)
    assert [int(t[69, 199]) & 0xFFFFFFFF for t in stored] == KNOWN_PAIRS
    for ours, theirs in zip(stored, construct(device, 70, 200, *stream), strict=True):
        assert torch.equal(ours, theirs)

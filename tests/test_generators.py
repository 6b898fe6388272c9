"""The hash of the inner loops and the gaussians made of it, as kernels draw them.

Where a number lies: samples have keys of their own (Philox), rows and columns one hash base each,
pulses of ``strict`` (steps) keys of their own again, groups the key of their first sample. Noise of
successive samples and of reads is tested in test_core.py. A battery: bench/generators.py.

Tolerances are 5 standard errors of N independent numbers (one wrong alarm in 1.7 million, seeds
are fixed): mean sd/sqrt(N); k-th moment sqrt((m_2k - m_k^2)/N); correlation 1/sqrt(N), of squares
of normals 2/sqrt(N), of uniforms' .8/sqrt(N); chi-squared of n cells n - 1 +- sqrt(2 n), 6 of them
as its upper tail is longer; Kolmogorov distance 2/sqrt(N) above the generator's own.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pulseline import _cpu
from pulseline.reference import rng
from test_core import SEED, kolmogorov, sample_keys

core = _cpu.core
Array = NDArray[Any]
SHAPE = (16, 256, 256)
ROW, COLUMN = np.mgrid[0 : SHAPE[1], 0 : SHAPE[2]].astype(np.uint32)
LAGS = [(0, 0, n) for n in (1, 2, 4, 8, 15, 16, 17, 31, 32, 33, 64, 128)]
LAGS += [(0, n, 0) for n in (1, 2, 4, 16, 32, 128)] + [(n, 0, 0) for n in (1, 2, 8)]
LAGS += [(0, 1, 1), (0, 1, -1), (0, 1, 16), (0, 1, 32), (1, 1, 1), (1, 0, 1), (1, 1, 0)]


def bases() -> Array:
    with np.errstate(over="ignore"):
        return ROW * np.uint32(rng.ROW_STRIDE) + COLUMN * np.uint32(rng.COLUMN_STRIDE)


@functools.cache
def words() -> Array:
    """(samples, rows, columns) of 32-bit words."""
    keys = sample_keys(rng.CYCLE_NOISE, SHAPE[0])
    return np.stack([core.hash(bases(), *key) for key in keys])


def uniforms(bits: int) -> Array:
    """Words as numbers of mean 0 and variance 1: of all bits, or of the lower or upper 16."""
    w = words()
    part, size = {32: (w, 32), 16: (w & 0xFFFF, 16), -16: (w >> 16, 16)}[bits]
    return (part.astype(np.float64) + 0.5) * (math.sqrt(12) / 2.0**size) - math.sqrt(3)


def shifted(z: Array, lag: Iterable[int]) -> tuple[Array, Array]:
    """z and z moved by a lag, where both exist."""
    later = tuple(np.s_[max(n, 0) : min(n, 0) or None] for n in lag)
    first = tuple(np.s_[max(-n, 0) : -n if n > 0 else None] for n in lag)
    return z[later], z[first]


def uncorrelated(z: Array, square: Array, variance: float, lags: list[tuple[int, ...]]) -> None:
    """Numbers of variance 1, and their squares (mean 0, this variance), along every lag."""
    for lag in lags:
        for values, size in ((z, 1.0), (square, variance)):
            a, b = shifted(values, lag)
            assert abs((a * b).mean()) < 5 * size / math.sqrt(a.size), lag


def chi_squared(counts: Array, expected: Array | float) -> float:
    """How many standard deviations the statistic lies from its mean."""
    cells = counts.size
    statistic = float(((counts - expected) ** 2 / expected).sum())
    return (statistic - (cells - 1)) / math.sqrt(2 * cells)


# ---- words ----


def test_bits_are_even_and_uncorrelated() -> None:
    w = words().ravel()
    signs = np.stack([(w >> b & 1).astype(np.float32) * 2 - 1 for b in range(32)])
    root = math.sqrt(w.size)
    assert np.abs(signs.mean(1, dtype=np.float64)).max() < 5 / root
    correlation = (signs @ signs.T).astype(np.float64) / w.size
    np.fill_diagonal(correlation, 0)
    assert np.abs(correlation).max() < 5.5 / root  # 496 pairs


def test_bytes_and_set_bits() -> None:
    """Each byte is uniform; the number of set bits in each half is Binomial(16, 1/2)."""
    w = words().ravel()
    for shift in (0, 8, 16, 24):
        counts = np.bincount(w >> shift & 255, minlength=256)
        assert abs(chi_squared(counts, w.size / 256)) < 6
    binomial = np.array([math.comb(16, n) for n in range(17)]) / 2.0**16 * w.size
    pairs = np.array([math.comb(32, n) for n in range(33)]) / 2.0**32 * w.size
    half = np.unpackbits(words().view(np.uint8).reshape(-1, 2), axis=1).sum(1)
    for part in (half[::2], half[1::2]):
        assert abs(chi_squared(np.bincount(part, minlength=17), binomial)) < 6
    common = pairs > 10
    whole = np.bincount(half[::2] + half[1::2], minlength=33)
    assert abs(chi_squared(whole[common], pairs[common])) < 6


@pytest.mark.parametrize("shift", [0, 12, 24])
def test_pairs_of_neighbours_are_uniform(shift: int) -> None:
    """Two bytes of neighbours along columns, rows and samples: 65,536 cells of 15 each."""
    byte = (words() >> shift & 255).astype(np.int64)
    for lag in ((0, 0, 1), (0, 0, 16), (0, 1, 0), (1, 0, 0), (0, 1, 1)):
        a, b = shifted(byte, lag)
        counts = np.bincount((a * 256 + b).ravel(), minlength=1 << 16)
        assert abs(chi_squared(counts, a.size / 65536)) < 6, lag


@pytest.mark.parametrize("bits", [32, 16, -16])
def test_words_are_uncorrelated(bits: int) -> None:
    """Along columns, rows and samples, and around rectangles, which a sum of hashes would fail."""
    z = uniforms(bits)
    uncorrelated(z, z**2 - 1, 0.8, LAGS)
    for rows, columns in itertools.product((1, 16, 128), (1, 16, 128)):
        a, b = shifted(z, (0, rows, columns))
        c, d = shifted(z, (0, rows, -columns))
        assert abs((a * b * c * d).mean()) < 5 / math.sqrt(a.size), (rows, columns)


def test_sums_vary_as_sums_do() -> None:
    """Variance of sums over columns, rows and samples: 1 per number, sqrt(2 / sums)."""
    z = uniforms(32)
    for axis in range(3):
        sums = z.sum(axis) / math.sqrt(z.shape[axis])
        assert abs(sums.var() - 1) < 5 * math.sqrt(2 / sums.size), axis


def test_words_repeat_as_often_as_chance_has_it() -> None:
    """Never within a sample (the hash is a bijection of the base), by chance across samples."""
    each = [np.unique(sample).size for sample in words()]
    assert each == [SHAPE[1] * SHAPE[2]] * SHAPE[0]
    base = np.arange(1 << 20, dtype=np.uint32)
    assert np.unique(core.hash(base, 0x12345678, 0x9ABCDEF0)).size == base.size
    n = words().size
    expected = n**2 / 2 * (1 - 1 / SHAPE[0]) / 2.0**32
    assert abs(n - np.unique(words()).size - expected) < 5 * math.sqrt(expected)


# ---- draws of trains ----


def test_draws_of_a_line_are_uncorrelated() -> None:
    """16 words and the rounding of the probability: 17 draws of 65,536 lines, in columns' keys and
    in rows' keys, with the noise of the crosspoints of row 0, whose bases are the same."""
    line = np.arange(1 << 16, dtype=np.uint32)
    draws = []
    pulses, cycle = core.draw(SEED, 3, rng.PULSES, 5, 0, 0), sample_keys(rng.CYCLE_NOISE, 6)[5]
    with np.errstate(over="ignore"):
        base = line * np.uint32(rng.COLUMN_STRIDE)
        for key in (pulses[:2], pulses[2:]):
            for draw in range(17):
                draws.append(core.hash(base + np.uint32(draw) * np.uint32(rng.ROW_STRIDE), *key))
    z = np.stack(draws).astype(np.float64) * (math.sqrt(12) / 2.0**32) - math.sqrt(3)
    z = np.concatenate([z, core.cycle_normal(np.uint32(0), line, *cycle)[None]])
    correlation = z @ z.T / line.size
    np.fill_diagonal(correlation, 0)
    assert np.abs(correlation).max() < 5.5 / math.sqrt(line.size)  # 595 pairs
    for lag in (1, 16, 32):
        a, b = shifted(z, (0, lag))
        assert np.abs((a * b).mean(1)).max() < 5.5 / math.sqrt(a.shape[1])


# ---- gaussians ----


def step_cube() -> Array:
    """Noise of ``strict``: pulses of one sample's slots, words of 31 one after the other."""
    draws = [word << 5 | slot for word in range(2) for slot in range(31)]
    keys = [core.draw(SEED, 3, rng.SLOT_NOISE, 9, 0, draw)[:2] for draw in draws]
    return np.stack([core.cycle_normal(ROW[:64], COLUMN[:64], *key) for key in keys])


def call_cube() -> Array:
    """Noise of ``exact``: the first sample of successive calls of 64 samples."""
    keys = [core.draw(SEED, 3, rng.CYCLE_NOISE, 64 * call, 0, 0)[:2] for call in range(16)]
    return np.stack([core.cycle_normal(ROW, COLUMN, *key) for key in keys])


def group_cube() -> Array:
    """Noise of ``grouped`` and ``moments``: groups of 7 samples."""
    keys = [core.draw(SEED, 3, rng.GROUP_NOISE, 7 * group, 0, 0)[:2] for group in range(16)]
    return np.stack([core.byte_sum_normal(core.hash(bases(), *key)) for key in keys])


# Moments 2, 4 and 6 of the two constructions, exactly: a binomial through the cubic plus a uniform
# dither, a weighted sum of four uniform bytes through the polynomial. A normal has 1, 3, 15.
CYCLE = (1.0, 3.0, 14.90316)
BYTES = (0.99999963, 2.999503, 14.97089)


@pytest.mark.parametrize(
    ("cube", "even", "distance", "largest"),
    [
        (step_cube, CYCLE, 0.005, 4.65),
        (call_cube, CYCLE, 0.005, 4.65),
        (group_cube, BYTES, 0.0005, 4.86),
    ],
)
def test_gaussians(
    cube: Callable[[], Array], even: tuple[float, ...], distance: float, largest: float
) -> None:
    """Moments to the 6th, those of a normal to .7 %; Kolmogorov distance; lags, squares too."""
    z = cube().astype(np.float64)
    moments = {1: 0.0, 2: even[0], 3: 0.0, 4: even[1], 5: 0.0, 6: even[2]}
    for k, exact in moments.items():
        spread = math.prod(range(1, 2 * k, 2)) - exact**2  # (2k - 1)!! = m_2k of a normal
        assert abs((z**k).mean() - exact) < 5 * math.sqrt(spread / z.size), k
    assert kolmogorov(z) < distance + 2 / math.sqrt(z.size)
    assert 4 < np.abs(z).max() < largest
    uncorrelated(z, z**2 - 1, 2.0, [lag for lag in LAGS if lag[1] < z.shape[1] // 2])


def test_moments_of_the_constructions() -> None:
    """The numbers above, from the definitions in core/rng.h."""
    count = np.arange(17) - 8.0
    cubic = count * (0.00075407764 * count**2 + 0.486047105) - 0.75
    weight = np.array([math.comb(16, n) for n in range(17)]) / 2.0**16
    total = np.array([1.0])
    for factor in (32, 31, 29, 27):
        byte = np.zeros(255 * factor + 1)
        byte[::factor] = 1 / 256
        total = np.convolve(total, byte)
    y = (np.arange(total.size) - 15172) * 2.1744084e-4 - 1.087e-4
    p = ((4.27348e-4 * y**2 - 2.45236e-3) * y**2 + 1.91013e-2) * y**2 + 1.0
    for k, cycle, of_bytes in zip((2, 4, 6), CYCLE, BYTES, strict=True):
        # the mean of (cubic + dither)^k over a dither in [1/2, 1)
        dithered = 2 * ((cubic + 1) ** (k + 1) - (cubic + 0.5) ** (k + 1)) / (k + 1)
        assert float((weight * dithered).sum()) == pytest.approx(cycle, rel=1e-6)
        assert float((total * (y * p) ** k).sum()) == pytest.approx(of_bytes, rel=1e-6)
        assert cycle == pytest.approx(math.prod(range(1, k, 2)) or 1, rel=0.007)
        assert of_bytes == pytest.approx(math.prod(range(1, k, 2)) or 1, rel=0.007)

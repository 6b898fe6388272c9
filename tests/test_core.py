"""Random numbers and arithmetic of the core.

Known answers freeze the draw numbering: a change here changes every result and needs a new
``NUMBERING``. Tolerances of sampled moments are 5 standard errors of N independent normals: mean
1/sqrt(N), variance sqrt(2/N), fourth moment sqrt(96/N), correlation 1/sqrt(N), correlation of
squares 2/sqrt(N); of a Kolmogorov distance 2/sqrt(N) (exceeded once in 1,500) above the distance
of the generator itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from pulseline import _cpu, ops
from pulseline.configs import UpdateConfig
from pulseline.reference import arithmetic as ar
from pulseline.reference import manage, pulse_train, rng

core = _cpu.core
Array = NDArray[Any]
SEED = 0x0123456789ABCDEF
KEY = (0x12345678, 0x9ABCDEF0)
REF_KEY = rng.Keys(torch.tensor(KEY[0]), torch.tensor(KEY[1]))
WORDS = np.random.default_rng(0).integers(0, 2**32, 1 << 16, dtype=np.uint32)


def words(u: Array) -> torch.Tensor:
    return torch.from_numpy(u.astype(np.int64))


def same(compiled: Any, reference: torch.Tensor) -> bool:
    a, b = np.asarray(compiled, dtype=np.float32), reference.numpy()
    return bool((a.view(np.uint32) == b.view(np.uint32)).all())


# ---- draw numbering known answers ----


def test_philox_published_vectors() -> None:
    """Random123's kat_vectors for philox4x32-10: zeros, ones, digits of pi."""
    cases = (
        ([0] * 2, [0] * 4, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
        ([0xFFFFFFFF] * 2, [0xFFFFFFFF] * 4, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
        (
            [0xA4093822, 0x299F31D0],
            [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
            [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
        ),
    )
    for key, counter, answer in cases:
        assert core.philox(key, counter) == answer
        c0, c1, c2, c3 = (torch.tensor(c) for c in counter)
        assert [int(v) for v in rng.philox((key[0], key[1]), (c0, c1, c2, c3))] == answer


def test_draws() -> None:
    cases = (
        ((0, 0, 0, 0, 0, 0), [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
        ((SEED, 7, 8, 5, 0, 0), [0x5C98D634, 0xC8795792, 0xB58B2135, 0x00D94BB0]),
        ((SEED, 7, 10, 2**32 + 3, 0, 33), [0x01251FF7, 0x69E8AA40, 0xFF0CBDC3, 0xE5471F14]),
        (
            (SEED, 0xFFFFFFFF, 2, 2**40, 0, 0x123456),
            [0x17BE5254, 0x0FCAE50A, 0xF9E43002, 0xBFF3215B],
        ),
        ((SEED, 1, 0, 129, 257, 1), [0x20C5497B, 0x8DFABC55, 0x6A3DF0D2, 0xE1E779C1]),
        ((SEED, 7, 24, 5, 0, 1 << 23 | 16), [0xBA30916E, 0xA8326566, 0x8FC1825C, 0xA465E425]),
        ((SEED, 7, 25, 2**32 + 3, 0, 0x30), [0x48252598, 0x0434A837, 0x2E2A78C2, 0x00F5297F]),
        ((SEED, 7, 26, 2**40, 0, 1 << 23), [0xD50C91BB, 0x4CABC02A, 0x231A5392, 0xE5030663]),
        ((SEED, 7, 27, 3, 129, 1), [0x9373945A, 0xCEE9CFF9, 0xDC3DEC95, 0x9672C7F1]),
        ((SEED, 7, 28, 2**33, 0, 0), [0x297209C2, 0xD0B31824, 0x362863DA, 0xA9F66DC2]),
    )
    for (seed, tile_id, purpose, k, index, draw), answer in cases:
        assert core.draw(seed, tile_id, purpose, k, index, draw) == answer
        drawn = rng.draw4(rng.Stream(seed, tile_id), purpose, k, index, draw)
        assert [int(v) for v in drawn] == answer


def test_numbering() -> None:
    assert ops.NUMBERING == 2
    assert ops.PURPOSES == {
        "forward": rng.FORWARD,
        "backward": rng.BACKWARD,
        "evaluation": rng.EVALUATION,
    }
    assert (rng.DEVICE_PARAMETERS, rng.INITIALISATION) == (0, 1)
    assert (rng.FORWARD, rng.BACKWARD, rng.EVALUATION) == (2, 4, 6)
    assert (rng.PULSES, rng.CYCLE_NOISE, rng.SLOT_NOISE) == (8, 9, 10)
    assert (rng.GROUP_NOISE, rng.ROW_RANK, rng.COLUMN_RANK) == (11, 16, 17)


def test_hash_known_answers() -> None:
    base = np.array([0, 1, 31, 0x9E3779B1, 0x85EBCA77, 0xFFFFFFFF], dtype=np.uint32)
    answer = [0xAF322F13, 0xDBF9B2AD, 0x292E3337, 0x9261742C, 0xC36F2735, 0x33B58B36]
    assert core.hash(base, *KEY).tolist() == answer
    assert rng.hash32(words(base), REF_KEY).tolist() == answer


def exactly(values: Array, answer: str) -> bool:
    return bool((values == np.array([float.fromhex(v) for v in answer.split()])).all())


def test_normals_known_answers() -> None:
    row = np.array([0, 0, 0, 1, 129, 70000], dtype=np.uint32)
    column = np.array([0, 1, 16, 33, 257, 48], dtype=np.uint32)
    answer = (
        "-0x1.44a7dp-4 -0x1.d415e4p-2 0x1.6ae9b6p-1 -0x1.1afc1ep+0 -0x1.8c98a4p-2 -0x1.ed9c1cp-1"
    )
    assert exactly(core.cycle_normal(row, column, *KEY), answer)
    h = np.array([0, 1, 0x80808080, 0x12345678, 0xFFFFFFFF], dtype=np.uint32)
    answer = "-0x1.360b7cp+2 -0x1.34427cp+2 0x1.a7f212p-7 -0x1.7fcd7ap+0 0x1.360b7cp+2"
    assert exactly(core.byte_sum_normal(h), answer)


def packed(slots: torch.Tensor) -> list[int]:
    """Words of bool (slots, lines)."""
    return [sum(1 << s for s, fires in enumerate(line) if fires) for line in slots.t().tolist()]


@pytest.mark.parametrize(
    ("bl", "answer"),
    [
        (1, [0, 0, 0, 0, 0x1, 0x1]),
        (2, [0, 0, 0, 0, 0x3, 0x3]),
        (9, [0, 0, 0, 0xF4, 0x1FF, 0x1FF]),
        (10, [0, 0, 0, 0x2F4, 0x3FF, 0x3FF]),
        (11, [0, 0, 0x8, 0x551, 0x7FF, 0x7FF]),
        (31, [0, 0, 0x40010008, 0x1C79B551, 0x7FFFFFFF, 0x7FFFFFFF]),
    ],
)
def test_train_words_known_answers(bl: int, answer: list[int]) -> None:
    p16 = np.array([0, 1, 6000, 32768, 65535, 65536], dtype=np.uint32)
    line = np.arange(6, dtype=np.uint32)
    assert core.train_word(p16, line, *KEY, bl).tolist() == answer
    assert packed(pulse_train(words(p16), words(line), REF_KEY, bl)) == answer


def pulses(*flags: float) -> ops.PulseSettings:
    """granularity, desired_bl, fixed_bl, update_management, update_bl_management"""
    return ops.PulseSettings(*flags, group_size=0.0, coarseness=1.0, noise=0.0)


# lr, then the pulses
MANAGED: list[tuple[list[float], float, float, tuple[int, str, str]]] = [
    ([0.01, 0.001, 31, 1, 1, 1], 1.0, 0.5, (5, "0x1.fffffcp-1", "0x1.fffffcp+0")),
    ([0.01, 0.001, 31, 1, 1, 1], 3.0, 0.001, (1, "0x1.d8f722p-5", "0x1.5a68fcp+7")),
    ([0.5, 0.001, 31, 1, 1, 1], 1.0, 1.0, (31, "0x1.p+0", "0x1.021084p+4")),
    ([0.5, 0.001, 31, 1, 0, 0], 2.0, 0.3, (31, "0x1.0107bap+2", "0x1.0107bap+2")),
    ([0.5, 0.001, 31, 0, 1, 0], 2.0, 0.3, (500, "0x1.fdf2aap-4", "0x1.0107bap+3")),
    ([0.01, 0.001, 5, 1, 1, 0], 0.7, 0.11, (5, "0x1.1f0884p-1", "0x1.c8a4d4p+1")),
    ([0.01, 0.001, 31, 1, 1, 1], 0.0, 1.0, (0, "0x0.0p+0", "0x0.0p+0")),
]


@pytest.mark.parametrize(("settings", "x_max", "d_max", "answer"), MANAGED)
def test_management_known_answers(
    settings: list[float], x_max: float, d_max: float, answer: tuple[int, str, str]
) -> None:
    expected = (answer[0], *(float.fromhex(v) for v in answer[1:]))
    lr, *flags = settings
    assert core.manage(lr, pulses(*flags), x_max, d_max) == expected


@given(
    st.floats(2.0**-10, 2.0**10, width=32),
    st.floats(2.0**-13, 2.0**7, width=32),
    st.floats(2.0**-13, 8, width=32),
    st.integers(1, 100),
    st.booleans(),
    st.booleans(),
    st.booleans(),
)
def test_management_equals_reference(
    x: float, d: float, lr: float, bl: int, fixed: bool, um: bool, ublm: bool
) -> None:
    config = UpdateConfig(bl, fixed, um, ublm)
    train = manage(torch.tensor(x), torch.tensor(d), lr, 0.001, config)
    compiled = core.manage(lr, pulses(0.001, bl, fixed, um, ublm), x, d)
    assert compiled == tuple(v.item() for v in train)
    # BL A B x d = lr x d / g unless a probability is clipped
    k = lr * x * d / 0.001
    if k <= bl or not um:
        product = compiled[0] * compiled[1] * compiled[2] * x * d
        if fixed or ublm or 0.001 * bl >= lr:
            assert product == pytest.approx(k, rel=1e-5)


# ---- the reference draws the same bits ----


def test_reference_draws_the_same_bits() -> None:
    u = words(WORDS)
    row, column = WORDS & 0xFFFF, WORDS >> 16
    assert same(core.byte_sum_normal(WORDS), rng.byte_sum_normal(u))
    drawn = rng.cycle_normal(words(row), words(column), REF_KEY)
    assert same(core.cycle_normal(row, column, *KEY), drawn)
    assert core.hash(WORDS, *KEY).tolist() == rng.hash32(u, REF_KEY).tolist()
    x = (WORDS.astype(np.float32) * 2.0**-32 - 0.5) * 300
    assert same(core.exp2(x), ar.exp2_poly(torch.from_numpy(x)))
    positive = np.exp2(x / 2).astype(np.float32)
    assert same(core.log(positive), ar.log_poly(torch.from_numpy(positive)))
    positive, powers = np.minimum(positive, np.float32(1.1)), np.float32(np.abs(x) / 40)
    want = ar.power_poly(torch.from_numpy(positive), torch.from_numpy(powers))
    assert same(core.power(positive, powers), want)


# ---- elementary functions against float64 ----


def test_exp2_accuracy() -> None:
    """Relative error below 2e-7 for |t| <= 120, clamped beyond."""
    t = np.linspace(-120, 120, 200_001).astype(np.float32)
    exact = np.exp2(t.astype(np.float64))
    assert np.max(np.abs(core.exp2(t) / exact - 1)) < 2e-7
    whole = np.arange(-120, 121).astype(np.float32)
    assert (core.exp2(whole) == np.exp2(whole)).all()
    edge = np.array([1e30, -1e30], dtype=np.float32)
    assert core.exp2(edge).tolist() == [2.0**120, 2.0**-120]


def test_log_accuracy() -> None:
    """Error below 2e-7 max(1, |ln x|) over all exponents; ln 1 = 0."""
    x = np.exp2(np.linspace(-126, 127, 300_001)).astype(np.float32)
    x = np.concatenate([x, np.linspace(0.5, 2, 100_001).astype(np.float32)])
    exact = np.log(x.astype(np.float64))
    assert np.max(np.abs(core.log(x) - exact) / np.maximum(1, np.abs(exact))) < 2e-7
    assert core.log(np.float32(1)) == 0


def test_power_accuracy() -> None:
    """Relative error below 4e-7 (1 + |log2 x^p|); 1^p = x^0 = 1; never below 2^-120."""
    x = np.exp2(np.linspace(-99, 0.5, 200_001)).astype(np.float32)
    x = np.concatenate([x, np.linspace(0.5, 1.2, 100_001).astype(np.float32)])
    for p in np.array([0.05, 0.7, 1, 1.1, 2.5, 20], dtype=np.float32):
        log2 = np.log2(x.astype(np.float64)) * float(p)
        exact = np.exp2(np.maximum(log2, -120))
        error = np.abs(core.power(x, p) / exact - 1) / (1 + np.abs(log2))
        assert np.max(error) < 4e-7, p
        assert core.power(np.float32(1), p) == 1
        floor = 2.0 ** max(-120.0, -100.0 * float(p))
        assert core.power(np.float32(0), p) == pytest.approx(floor, rel=4e-5)
    assert (core.power(x, np.float32(0)) == 1).all()


# ---- fma ----


def rounded(value: Fraction) -> float:
    """The float32 nearest to a rational number, ties to even, subnormals included."""
    if value == 0:
        return 0.0
    size = abs(value)
    exponent = size.numerator.bit_length() - size.denominator.bit_length()
    if Fraction(2) ** exponent > size:
        exponent -= 1
    quantum = Fraction(2) ** (max(exponent, -126) - 23)
    return float(round(value / quantum) * quantum)


def fma_cases() -> list[tuple[float, float, float]]:
    """Random triples, near-cancellations, and sums a hair beside a tie of float32."""
    random = np.random.default_rng(1)
    cases: list[tuple[float, float, float]] = []
    for _ in range(600):
        a, b, c = random.normal(size=3) * np.exp2(random.integers(-30, 30, 3))
        cases.append((a, b, c))
        product = float(np.float32(a)) * float(np.float32(b))
        cases.append((a, b, -product))
        cases.append((a, b, -product * (1 + 2.0**-20)))
    for m in (1 + 2.0**-12, 1 + 3 * 2.0**-12, 1 + 2.0**-12 + 2.0**-11):
        for tiny in (30, 31, 55, 80, 120):  # m m lies half an ulp (2^-24) beside a float
            for s in (1.0, -1.0):
                for scale in (1.0, 2.0**-40, 2.0**40):
                    cases += [(s * m, m * scale, t * scale * 2.0**-tiny) for t in (1.0, -1.0)]
    for c in (0.0, 2.0**-149, -(2.0**-149), 2.0**-126):  # subnormal results and their ties
        cases += [(2.0**-75, s * 2.0**-75, c) for s in (1.0, -1.0, 1.5, -1.5)]
        cases += [(2.0**-70, s * 2.0**-79 * (1 + 2.0**-22), c) for s in (1.0, -1.0, 3.0)]
    return cases


def test_fma_is_rounded_once() -> None:
    """Against exact rational arithmetic; some cases defeat a plain float64 sum."""
    a, b, c = np.array(fma_cases()).astype(np.float32).T
    exact = np.array(
        [
            rounded(Fraction(float(p)) * Fraction(float(q)) + Fraction(float(r)))
            for p, q, r in zip(a, b, c, strict=True)
        ]
    ).astype(np.float32)
    naive = (a.astype(np.float64) * b + c).astype(np.float32)
    assert (naive != exact).sum() > 20  # the cases are hard
    assert (core.fma(a, b, c) == exact).all()
    arguments = (torch.from_numpy(np.ascontiguousarray(v)) for v in (a, b, c))
    assert (ar.fma(*arguments).numpy() == exact).all()


def test_square_root_is_rounded_once() -> None:
    x = WORDS.view(np.float32)
    x = np.abs(x[np.isfinite(x)])
    assert (ar.square_root(torch.from_numpy(x)).numpy() == np.sqrt(x)).all()


# ---- distributions ----


def kolmogorov(z: Array) -> float:
    """Largest distance of the empirical distribution from the standard normal's."""
    z = np.sort(z.ravel())
    normal = 0.5 * (1 + torch.erf(torch.from_numpy(z) / math.sqrt(2)).numpy())
    grid = np.arange(len(z) + 1) / len(z)
    return float(max((grid[1:] - normal).max(), (normal - grid[:-1]).max()))


def sample_keys(purpose: int, samples: int) -> list[tuple[int, int]]:
    drawn = (core.draw(SEED, 3, purpose, k, 0, 0) for k in range(samples))
    return [(d[0], d[1]) for d in drawn]


SHAPE = (16, 256, 256)


def cycle_cube() -> Array:
    row, column = np.mgrid[0 : SHAPE[1], 0 : SHAPE[2]].astype(np.uint32)
    keys = sample_keys(rng.CYCLE_NOISE, SHAPE[0])
    return np.stack([core.cycle_normal(row, column, *key) for key in keys]).astype(np.float64)


def byte_cube() -> Array:
    """Read noise has one line: rows are segments with keys of their own."""
    line = (np.arange(SHAPE[2], dtype=np.uint32) * np.uint32(rng.COLUMN_STRIDE)).astype(np.uint32)
    keys = sample_keys(rng.FORWARD, SHAPE[0] * SHAPE[1])
    z = np.stack([core.byte_sum_normal(core.hash(line, *key)) for key in keys])
    return z.astype(np.float64).reshape(SHAPE)


# KS distance and largest magnitude as stated in core/rng.h
@pytest.mark.parametrize(
    ("cube", "distance", "largest"), [(cycle_cube, 0.005, 4.65), (byte_cube, 0.0005, 4.86)]
)
def test_inner_loop_gaussians(cube: Callable[[], Array], distance: float, largest: float) -> None:
    z = cube()
    root = math.sqrt(z.size)
    assert abs(z.mean()) < 5 / root
    assert abs((z**2).mean() - 1) < 5 * math.sqrt(2) / root
    assert abs((z**3).mean()) < 5 * math.sqrt(15) / root
    assert abs((z**4).mean() - 3) < 5 * math.sqrt(96) / root
    assert kolmogorov(z) < distance + 2 / root
    assert 4 < np.abs(z).max() < largest
    square = z**2 - 1
    lags = [(0, 0, n) for n in (1, 2, 8, 15, 16, 17, 32, 64)]
    lags += [(0, n, 0) for n in (1, 2, 16, 32)] + [(n, 0, 0) for n in (1, 2, 8)]
    lags += [(0, 1, 16), (1, 1, 1), (0, 1, -1)]
    for lag in lags:
        moved = tuple(np.s_[max(n, 0) : min(n, 0) or None] for n in lag)
        rest = tuple(np.s_[max(-n, 0) : -n if n > 0 else None] for n in lag)
        count = math.sqrt(z[moved].size)
        assert abs((z[moved] * z[rest]).mean()) < 5 / count, lag
        assert abs((square[moved] * square[rest]).mean()) < 5 * 2 / count, lag


def test_keys_differ() -> None:
    """Seed, tile, purpose, k and draw all matter: 6,480 draws without a repeated key.

    A tile's number is folded into the upper half of the seed, so seeds that differ only there can
    share tiles; seeds below 2^32 cannot.
    """
    seeds, tiles = (0, 1, 2**32 - 1, 2**63 - 1), (0, 1, 2**31)
    keys = {
        tuple(core.draw(seed, tile, purpose, k, 0, draw)[:2])
        for seed in seeds
        for tile in tiles
        for purpose in range(9)
        for k in (0, 1, 2, 3, 2**32, 2**32 + 1)
        for draw in range(10)
    }
    assert len(keys) == 4 * 3 * 9 * 6 * 10


# ---- trains ----


@pytest.mark.parametrize("bl", [1, 7, 10, 11, 20, 31])
def test_trains_fire_at_their_rate(bl: int) -> None:
    """Every slot of 65,536 lines fires p16 / 65536 of the time, slots uncorrelated."""
    line = np.arange(1 << 16, dtype=np.uint32)
    for p16 in (655, 20000, 65000):
        word = core.train_word(np.uint32(p16), line, *KEY, bl)
        p = p16 / 65536
        fires = np.stack([word >> s & 1 for s in range(bl)]).astype(np.float64)
        z = (fires - p) / math.sqrt(p * (1 - p))
        assert np.abs(z.mean(1)).max() < 5 / 256
        correlation = z @ z.T / z.shape[1]
        np.fill_diagonal(correlation, 0)
        # products of rare events have heavy tails: 6 standard errors
        assert np.abs(correlation).max() < 6 / 256
        assert not (word >> bl).any()


@pytest.mark.parametrize("bl", [5, 10, 11, 31])
def test_trains_grow_with_their_probability(bl: int) -> None:
    """The slots that fire at p16 also fire at a larger one; 0 fires none, 65536 all."""
    line = np.arange(100, dtype=np.uint32)
    before = np.zeros(100, dtype=np.uint32)
    for p16 in (0, 1, 2, 100, 30000, 30001, 65535, 65536):
        word = core.train_word(np.uint32(p16), line, *KEY, bl)
        assert ((word & before) == before).all()
        assert p16 > 0 or not word.any()
        before = word
    assert (before == 2**bl - 1).all()

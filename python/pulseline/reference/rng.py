"""Randomness as a function of (seed, tile_id, purpose, k, index, draw); see csrc/core/rng.h.

Philox4x32-10 (Salmon et al., SC'11) gives keys, a keyed hash everything that is drawn
per crosspoint. Words are int64 tensors in [0, 2^32).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .arithmetic import MASK32, f32, fma, from_bits

__all__ = [
    "ASYMMETRY",
    "BACKWARD",
    "CHOPPER",
    "COLUMN_CHOICE",
    "COLUMN_RANK",
    "COLUMN_STRIDE",
    "CORRUPT",
    "COUNTED_PULSES",
    "CYCLE_NOISE",
    "DEVICE_PARAMETERS",
    "DIFFUSIVITY",
    "DRIFT_EXPONENT",
    "EVALUATION",
    "FORWARD",
    "FORWARD_ROUNDING",
    "GAIN",
    "GROUP_NOISE",
    "INITIALISATION",
    "LIFETIME",
    "LOWER_BOUND",
    "MODEL_DOWN",
    "MODEL_UP",
    "PULSES",
    "RANK_UNIT",
    "READ_LINES",
    "REFERENCE",
    "RESET_POINT",
    "ROW_RANK",
    "ROW_STRIDE",
    "SLOT_NOISE",
    "STUCK_AT",
    "TRANSFER_OUTPUT",
    "TRANSFER_ROUNDING",
    "UPPER_BOUND",
    "WRITTEN",
    "Keys",
    "ParameterDraws",
    "Stream",
    "Words",
    "byte_sum_normal",
    "cycle_normal",
    "draw4",
    "draw_keys",
    "hash32",
    "philox",
    "rank_noise",
    "uniform24",
]

DEVICE_PARAMETERS, INITIALISATION = 0, 1
# Numbers of the parameters of a crosspoint; see csrc/core/parameters.h.
UPPER_BOUND, LOWER_BOUND, GAIN, ASYMMETRY, MODEL_UP, MODEL_DOWN, REFERENCE = range(7)
CORRUPT, STUCK_AT, LIFETIME, RESET_POINT, DIFFUSIVITY, DRIFT_EXPONENT = range(8, 14)
FORWARD, BACKWARD, EVALUATION = 2, 4, 6  # outputs; + 1: inputs
PULSES, CYCLE_NOISE, SLOT_NOISE, GROUP_NOISE = 8, 9, 10, 11
ROW_RANK, COLUMN_RANK = 16, 17
FORWARD_ROUNDING, READ_LINES = 20, 23  # rounding: + 1 backward, + 2 evaluation
TRANSFER_OUTPUT, TRANSFER_ROUNDING, COUNTED_PULSES, CHOPPER, COLUMN_CHOICE = range(24, 29)
WRITTEN = 1 << 23  # draw of COUNTED_PULSES: noise of the write

ROW_STRIDE = 0x85EBCA77  # multiplies a row, a slot or a word number
COLUMN_STRIDE = 0x9E3779B1  # multiplies a column or an output line
RANK_UNIT = 0.2642856  # 1 / sqrt(8 E[U^2] E[V^2]) of rank_noise

Words = tuple[Tensor, Tensor, Tensor, Tensor]


class Stream(NamedTuple):
    """Whose randomness: one crossbar of one run."""

    seed: int
    tile_id: int


class Keys(NamedTuple):
    """Two key words of the hash."""

    k0: Tensor
    k1: Tensor


def _high_low(a: int, b: Tensor) -> tuple[Tensor, Tensor]:
    product = b * a  # the low 64 bits, as a signed number
    return (product >> 32) & MASK32, product & MASK32


def philox(key: tuple[int, int], counter: Words) -> Words:
    """Philox4x32-10.

    Args:
        key: two words. counter: four, of shapes that broadcast.
    """
    (k0, k1), (c0, c1, c2, c3) = key, counter
    for _ in range(10):
        high0, low0 = _high_low(0xD2511F53, c0)
        high1, low1 = _high_low(0xCD9E8D57, c2)
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + 0x9E3779B9) & MASK32, (k1 + 0xBB67AE85) & MASK32
    return c0, c1, c2, c3


def draw4(stream: Stream, purpose: int, k: Tensor | int, index: Tensor | int, draw: int) -> Words:
    """Four words of one draw.

    Args:
        stream: whose. purpose: see above. k: vector (64 bits). index: line or crosspoint (32 bits);
            both broadcast. draw: number of the draw.
    """
    k, index, word = (torch.as_tensor(v) for v in (k, index, purpose << 24 | draw))
    key = (stream.seed & MASK32, (stream.seed >> 32 & MASK32) ^ stream.tile_id)
    return philox(key, (index, k & MASK32, word, (k >> 32) & MASK32))


def draw_keys(stream: Stream, purpose: int, k: Tensor | int, draw: int) -> Keys:
    """Hash keys of vector k.

    Args:
        stream: whose. purpose: see above. k: vector. draw: number of the draw.
    """
    return Keys(*draw4(stream, purpose, k, 0, draw)[:2])


def _hash_rounds(base: Tensor, key: Keys) -> tuple[Tensor, Tensor]:
    x = (base & MASK32) ^ key.k0
    x = x ^ (x >> 16)
    x = (x * 0x7FEB352D) & MASK32
    inner = x ^ (x >> 15) ^ key.k1
    x = (inner * 0x846CA68B) & MASK32
    return inner, x ^ (x >> 16)


def hash32(base: Tensor, key: Keys) -> Tensor:
    """Hash of a place.

    Args:
        base: row ROW_STRIDE + column COLUMN_STRIDE, modulo 2^32. key: of the vector.

    Returns:
        Words of the shape of ``base``.
    """
    return _hash_rounds(base, key)[1]


def uniform24(x: Tensor) -> Tensor:
    """[0, 1) on a grid of 2^-24."""
    return (x >> 8).to(torch.float32) * 2.0**-24


def cycle_normal(row: Tensor, column: Tensor, key: Keys) -> Tensor:
    """Cycle noise: popcount of 16 hash bits through a cubic, plus a dither in [1/2, 1).

    One hash serves two columns: those of a group of 32 that differ in bit 4 take its two halves.

    Args:
        row, column: of shapes that broadcast. key: of the vector.
    """
    high = column & 16
    inner, outer = _hash_rounds(row * ROW_STRIDE + (column - high) * COLUMN_STRIDE, key)
    bits = torch.where(high > 0, outer >> 16, outer & 0xFFFF)
    dither = torch.where(high > 0, inner >> 9, inner & 0x7FFFFF)
    count = torch.stack([bits >> b & 1 for b in range(16)]).sum(0)
    v = count.to(torch.float32) - 8.0
    cubic = fma(v, fma(f32(0.00075407764), v * v, f32(0.486047105)), f32(-0.75))
    return cubic + from_bits(dither | 0x3F000000)


def _rank_factors(words: Words, lowest: int, exponents: int) -> Tensor:
    """(8, n) numbers ``+-2^e (1 + f/128)`` of the 16-bit halves, low half first.

    Bits from the lowest: f (7), e - lowest (as many as 2^bits = ``exponents``), and 15 the sign.
    """
    halves = torch.stack([half for w in words for half in (w & 0xFFFF, w >> 16)])
    sign = 1.0 - 2.0 * (halves >> 15)
    exponent = (halves >> 7) % exponents + lowest
    return (sign * (1.0 + (halves & 127) / 128.0) * 2.0**exponent).double()


def rank_noise(rows: int, cols: int, stream: Stream, k: int, draw: int) -> Tensor:
    """Low-rank noise: ``sum_{r<8} U_ir V_jr``, float32 (rows, cols), variance RANK_UNIT^-2.

    |U| in [1/8, 2) with a random exponent, |V| in [1, 2); the sum is exact.

    Args:
        rows, cols: of the matrix. stream: whose. k: vector. draw: number of the draw.
    """
    u = draw4(stream, ROW_RANK, k, torch.arange(rows), draw)
    v = draw4(stream, COLUMN_RANK, k, torch.arange(cols), draw)
    return (_rank_factors(u, -3, 4).t() @ _rank_factors(v, 0, 1)).float()


def byte_sum_normal(h: Tensor) -> Tensor:
    """A normal: weighted sum of the four bytes of a hash through an odd polynomial."""
    total = sum((h >> 8 * i & 255) * weight for i, weight in enumerate((32, 31, 29, 27)))
    y = fma((total - torch.tensor(15172)).to(torch.float32), f32(2.1744084e-4), f32(-1.087e-4))
    z = y * y
    p = f32(4.27348e-4)
    for coefficient in (-2.45236e-3, 1.91013e-2, 1.0):
        p = fma(p, z, f32(coefficient))
    return y * p


class ParameterDraws:
    """What a crossbar draws per crosspoint, each parameter with keys of its own.

    Args:
        stream: whose. rows, cols: of the matrix. purpose: devices, or initial weights.
    """

    def __init__(self, stream: Stream, rows: int, cols: int, purpose: int = DEVICE_PARAMETERS):
        self._stream, self._purpose = stream, purpose
        self._place = torch.arange(rows)[:, None] * ROW_STRIDE + torch.arange(cols) * COLUMN_STRIDE

    def _words(self, parameter: int) -> Tensor:
        return hash32(self._place, draw_keys(self._stream, self._purpose, 0, parameter))

    def normal(self, parameter: int) -> Tensor:
        """Standard normals, float32 (rows, cols)."""
        return byte_sum_normal(self._words(parameter))

    def uniform(self, parameter: int) -> Tensor:
        """Uniform in [0, 1), float32 (rows, cols)."""
        return uniform24(self._words(parameter))

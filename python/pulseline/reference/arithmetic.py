"""Scalar arithmetic of csrc/core/math.h, elementwise: the same polynomials, the same rounding.

float32 tensors unless said otherwise; +, -, * and / of torch are IEEE operations.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = [
    "LOG2E",
    "MASK32",
    "bf16_nearest",
    "exp2_poly",
    "f32",
    "fma",
    "from_bits",
    "log_poly",
    "power_poly",
    "round_even",
    "square_root",
    "to_bits",
]

MASK32 = 0xFFFFFFFF

_EXP2 = "1 0x1.62e43p-1 0x1.ebfbdap-3 0x1.c6aed4p-5 0x1.3b2dbcp-7 0x1.5f456ap-10 0x1.41d32cp-13"
_LOG = (
    "-0x1.41f35ap-4 0x1.07cf7ep-3 -0x1.0cdebcp-3 0x1.226e6ep-3",
    "-0x1.5478c2p-3 0x1.99a596p-3 -0x1.00021ep-2 0x1.55554ap-2",
)
_LOG2 = (
    "0x1.715472p+0 -0x1.7155b8p-1 0x1.ec7b4p-2 -0x1.70baf6p-2 0x1.2598f2p-2 -0x1.0011a2p-2",
    "0x1.e50d78p-3 -0x1.2a63f8p-3",
)
_EXP2_SHORT = "1 0x1.62e42ap-1 0x1.ebf9c2p-3 0x1.c6b6dap-5 0x1.3ce8b2p-7 0x1.5bd97ap-10"
LOG2E = float.fromhex("0x1.715476p+0")
_LN2 = float.fromhex("0x1.62e43p-1")


def f32(value: float) -> Tensor:
    """A float32 scalar."""
    return torch.tensor(value, dtype=torch.float32)


def to_bits(x: Tensor) -> Tensor:
    """The 32 bits of each float, as int64 in [0, 2^32)."""
    return x.contiguous().view(torch.int32).to(torch.int64) & MASK32


def from_bits(u: Tensor) -> Tensor:
    """The float of each 32-bit word."""
    return u.to(torch.int32).view(torch.float32)


def fma(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """``a b + c`` rounded once.

    The product is exact in float64. The sum is rounded to odd there (an inexact result gets an odd
    last bit), so that the rounding to float32 cannot meet a false tie.

    Args:
        a, b, c: float32, of shapes that broadcast.
    """
    product, addend = a.double() * b.double(), c.double()
    total = product + addend
    back = total - product
    error = (product - (total - back)) + (addend - back)
    bits = total.view(torch.int64)
    odd = bits + torch.where((error > 0) == (total > 0), 1, -1)
    return torch.where((error != 0) & (bits & 1 == 0), odd, bits).view(torch.float64).float()


def square_root(x: Tensor) -> Tensor:
    """Correctly rounded.

    torch's float32 sqrt is not on every machine (one ulp off in 18 % with torch 2.13), and no root
    of a float32 lies within 4 float64 ulps of a rounding boundary.
    """
    return torch.sqrt(x.double()).float()


def _polynomial(coefficients: Sequence[str], t: Tensor) -> Tensor:
    """Horner's scheme by fma, highest power first."""
    terms = [f32(float.fromhex(c)) for c in " ".join(coefficients).split()]
    result = terms[0].expand_as(t)
    for term in terms[1:]:
        result = fma(result, t, term)
    return result


def round_even(x: Tensor) -> Tensor:
    """Nearest integer, ties to even, for |x| < 2^22."""
    return (x + 12582912.0) - 12582912.0


def exp2_poly(t: Tensor) -> Tensor:
    """``2^t``, t clamped to [-120, 120]; relative error below 2e-7."""
    return _exp2(t.clamp(-120.0, 120.0), _EXP2)


def _exp2(t: Tensor, coefficients: str) -> Tensor:
    """``2^t`` by a polynomial of degree 5 or 6 in Estrin's order, ascending powers."""
    n = round_even(t)
    r = t - n
    z = r * r
    c = [f32(float.fromhex(v)) for v in coefficients.split()]
    high = fma(c[5], r, c[4])
    high = fma(c[6], z, high) if len(c) > 6 else high
    p = fma(fma(high, z, fma(c[3], r, c[2])), z, fma(c[1], r, c[0]))
    return p * from_bits((n.to(torch.int64) + 127) << 23)


def _split(x: Tensor) -> tuple[Tensor, Tensor]:
    """e and m - 1 of ``x = m 2^e``, m in [sqrt(1/2), sqrt(2))."""
    u = to_bits(x)
    exponent = (u - 0x3F3504F3) >> 23
    return exponent.to(torch.float32), from_bits(u - (exponent << 23)) - 1.0


def log_poly(x: Tensor) -> Tensor:
    """``ln x`` of normal positive x; error below 2e-7 max(1, |ln x|)."""
    exponent, t = _split(x)
    z = t * t
    y = fma(t * z, _polynomial(_LOG, t), z * -0.5) + t
    return fma(exponent, f32(_LN2), y)


def power_poly(x: Tensor, p: Tensor) -> Tensor:
    """``x^p`` with a relative error below 4e-7 (1 + |log2 x^p|).

    Args:
        x: at least 2^-100. p: >= 0, of the shape of x; the result is at least 2^-120.
    """
    exponent, t = _split(x.clamp(min=2.0**-100))
    z = t * t
    c = [f32(float.fromhex(v)) for v in " ".join(_LOG2).split()]  # of t, t^2, .. in Estrin's order
    pairs = [fma(c[n + 1], t, c[n]) for n in range(0, 8, 2)]
    high, low = fma(pairs[3], z, pairs[2]), fma(pairs[1], z, pairs[0])
    log2 = fma(fma(high, z * z, low), t, exponent)
    return _exp2((p * log2).clamp(min=-120.0), _EXP2_SHORT)


def bf16_nearest(x: Tensor) -> Tensor:
    """Upper 16 bits of x, rounded to nearest, ties to even."""
    u = to_bits(x)
    return (u + 0x7FFF + ((u >> 16) & 1)) >> 16

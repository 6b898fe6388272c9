"""The crossbar read: noise management, converters, noise, bound management, physical tiles."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import ConfigError
from ..io import Mapping, ReadConfig
from .arithmetic import f32, fma, round_even, square_root
from .rng import COLUMN_STRIDE, FORWARD, Keys, Stream, byte_sum_normal, draw_keys, hash32


def convert(v: Tensor, resolution: float, bound: float) -> Tensor:
    """``clip(round(v / s) s, +-bound)``, s = 2 bound resolution; see :class:`ReadConfig`."""
    if resolution > 0:
        r = f32(resolution)
        step = (1.0 / r if r > 1 else r) * (2.0 * f32(bound))
        v = round_even(v * (1.0 / step)) * step
    return v.clamp(-f32(bound), f32(bound)) if bound > 0 else v


def line_noise(keys: Keys, first: int, last: int) -> Tensor:
    """Standard normals (samples, last - first) of lines first..last."""
    line = torch.arange(first, last) * COLUMN_STRIDE
    return byte_sum_normal(hash32(line, Keys(keys.k0[:, None], keys.k1[:, None])))


def norm_squared(q: Tensor) -> Tensor:
    """|q|^2 of (samples, n): 16 strided partial sums by fma, then halves added."""
    parts = torch.zeros(q.shape[0], 16)
    padded = torch.nn.functional.pad(q, (0, -q.shape[1] % 16))
    for i in range(0, q.shape[1], 16):
        parts = fma(padded[:, i : i + 16], padded[:, i : i + 16], parts)
    while parts.shape[1] > 1:
        half = parts.shape[1] // 2
        parts = parts[:, :half] + parts[:, half:]
    return parts[:, 0]


class _Reader:
    """One call: everything but the position of the physical tile."""

    def __init__(
        self,
        x: Tensor,
        matrix: Tensor,
        config: ReadConfig,
        stream: Stream,
        k: int,
        purpose: int,
        out_scale: float,
        fused: bool,
    ) -> None:
        self.x, self.matrix, self.config = x, matrix, config
        self.stream, self.k, self.purpose = stream, k, purpose
        self.out_scale, self.fused = f32(out_scale), fused
        ones = torch.ones(x.shape[0])
        self.alpha = x.abs().amax(1) if config.noise_management == "abs_max" else ones
        iterative = config.bound_management == "iterative" and config.out_bound > 0
        self.rounds = config.max_rounds if iterative else 0

    def multiply_add(self, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
        return fma(a, b, c) if self.fused else a * b + c

    def keys(self, purpose: int, sample: Tensor, draw: int) -> Keys:
        return draw_keys(self.stream, purpose, self.k + sample, draw)

    def scale(self, sample: Tensor, n: int) -> Tensor:
        """alpha beta of round n, (samples, 1): beta doubles with every round."""
        return (self.alpha[sample] * 2.0**n)[:, None]

    def lines(self, sample: Tensor, row_block: int, n: int) -> Tensor:
        """What the input lines carry in round n, after DAC and noise: (samples, inputs)."""
        c = self.config
        q = convert(self.x[sample] / self.scale(sample, n), c.inp_res, c.inp_bound)
        if c.inp_noise > 0:
            keys = self.keys(self.purpose + 1, sample, row_block << 4 | n)
            xi = line_noise(keys, 0, q.shape[1])
            q = fma(f32(c.inp_noise), xi, q)
        return torch.where(self.alpha[sample][:, None] > 0, q, f32(0.0))

    def tile(
        self, sample: Tensor, row_block: int, outs: range, segment: int, ins: range, n: int
    ) -> tuple[Tensor, Tensor]:
        """Converted outputs (samples, outs) of a tile in round n, and which samples saturate."""
        c = self.config
        q = self.lines(sample, row_block, n)[:, ins.start : ins.stop]
        y = torch.zeros(len(sample), len(outs))
        for i, column in enumerate(ins):  # in order, from zero
            y = self.multiply_add(q[:, i : i + 1], self.matrix[outs.start : outs.stop, column], y)
        variance = f32(c.out_noise) * f32(c.out_noise)
        deviation = f32(c.out_noise).expand(len(sample))
        if c.w_noise > 0:
            square = f32(c.w_noise) * f32(c.w_noise)
            deviation = square_root(fma(square, norm_squared(q), variance))
        deviation = torch.where(self.alpha[sample] > 0, deviation, f32(0.0))[:, None]
        keys = self.keys(self.purpose, sample, segment << 4 | n)
        noisy = fma(deviation, line_noise(keys, outs.start, outs.stop), y)
        y = torch.where(deviation > 0, noisy, y)
        return convert(y, c.out_res, c.out_bound), ~(y.abs() < f32(c.out_bound)).all(1)

    def block(self, row_block: int, outs: range, segments: list[range]) -> Tensor:
        """Outputs of a row of physical tiles; each doubles its own beta while it saturates."""
        total = torch.zeros(self.x.shape[0], len(outs))
        for segment, ins in enumerate(segments):
            converted, scale = torch.zeros_like(total), torch.zeros(len(total), 1)
            sample = torch.arange(len(total))
            for n in range(self.rounds + 1):
                y, saturated = self.tile(sample, row_block, outs, segment, ins, n)
                converted[sample] = y
                scale[sample] = self.scale(sample, n) * self.out_scale
                sample = sample[saturated]
                if len(sample) == 0:
                    break
            first = segment == 0
            total = converted * scale if first else self.multiply_add(converted, scale, total)
        return total


def read(
    x: Tensor,
    weight: Tensor,
    config: ReadConfig,
    *,
    mapping: Mapping | None = None,
    transposed: bool = False,
    seed: int = 0,
    tile_id: int = 0,
    k: int = 0,
    purpose: int = FORWARD,
    out_scale: float = 1.0,
    fused: bool = True,
) -> Tensor:
    """``y = out_scale W x`` of every sample (``W^T x`` if transposed) through physical tiles.

    Every output of a physical tile is one chain of fma over its inputs in order, from zero.

    Args:
        x: (samples, inputs). weight: (rows, cols). k: running number of the first sample.
        fused: multiply-adds of the sum are rounded once (kernels with FMA) or twice (baseline).

    Returns:
        (samples, outputs).

    Raises:
        ConfigError: x is not finite.
    """
    if not torch.isfinite(x).all():
        raise ConfigError("x holds a NaN or an infinity; pass finite values")
    matrix = weight.t() if transposed else weight
    outputs, inputs = matrix.shape
    if x.numel() == 0 or outputs == 0:
        return torch.zeros(x.shape[0], outputs)
    mapping = Mapping() if mapping is None else mapping
    tile_in, tile_out = mapping.tile_in, mapping.tile_out
    if transposed:
        tile_in, tile_out = tile_out, tile_in
    reader = _Reader(x, matrix, config, Stream(seed, tile_id), k, purpose, out_scale, fused)
    segments = [range(i, min(i + tile_in, inputs)) for i in range(0, inputs, tile_in)]
    blocks = [range(o, min(o + tile_out, outputs)) for o in range(0, outputs, tile_out)]
    return torch.cat([reader.block(n, outs, segments) for n, outs in enumerate(blocks)], dim=1)

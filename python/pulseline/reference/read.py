"""The crossbar read: noise management, converters, noise, bound management, physical tiles."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..configs import Mapping, ReadConfig
from ..errors import ConfigError
from . import wires
from .arithmetic import f32, fma, round_even, square_root
from .rng import (
    COLUMN_STRIDE,
    EVALUATION,
    FORWARD,
    FORWARD_ROUNDING,
    READ_LINES,
    TRANSFER_OUTPUT,
    TRANSFER_ROUNDING,
    Keys,
    Stream,
    byte_sum_normal,
    draw4,
    draw_keys,
    hash32,
    uniform24,
)

__all__ = ["convert", "convert_column", "line_hash", "line_noise", "manage", "norm_squared", "read"]


def convert(v: Tensor, resolution: float, bound: float, u: Tensor | None = None) -> Tensor:
    """``clip(round(v / s) s, +-bound)``, s = 2 bound resolution; see :class:`ReadConfig`.

    Args:
        v: of any shape. resolution: relative to the range; 0: none. bound: 0: none.
        u: uniform in [0, 1): up with the probability of the remainder; None: to the nearest.
    """
    if resolution > 0:
        r = f32(resolution)
        step = (1.0 / r if r > 1 else r) * (2.0 * f32(bound))
        t = v * (1.0 / step)
        nearest = round_even(t)
        if u is not None:
            low = torch.where(t < nearest, nearest - 1.0, nearest)
            nearest = torch.where(u < t - low, low + 1.0, low)
        v = nearest * step
    return v.clamp(-f32(bound), f32(bound)) if bound > 0 else v


def line_hash(keys: Keys, first: int, last: int) -> Tensor:
    """Hash words of lines.

    Args:
        keys: of every sample. first, last: lines, the last one not included.

    Returns:
        (samples, last - first).
    """
    line = torch.arange(first, last) * COLUMN_STRIDE
    return hash32(line, Keys(keys.k0[:, None], keys.k1[:, None]))


def line_noise(keys: Keys, first: int, last: int) -> Tensor:
    """Standard normals of lines.

    Args:
        keys: of every sample. first, last: lines, the last one not included.

    Returns:
        (samples, last - first).
    """
    return byte_sum_normal(line_hash(keys, first, last))


def manage(
    x: Tensor, config: ReadConfig, average: float = 0.0, advance: bool = True
) -> tuple[Tensor, float]:
    """Noise management of samples in order.

    Args:
        x: (samples, inputs). config: how. average: the running one before, <= 0: none yet.
        advance: whether it moves.

    Returns:
        alpha of every sample, and the running average afterwards.
    """
    largest = x.abs().amax(1)
    if config.noise_management == "none":
        return torch.ones(x.shape[0]), average
    if config.noise_management == "constant":
        return f32(config.nm_thres).expand(x.shape[0]), average
    if config.noise_management == "average_abs_max":
        running, alpha = f32(average), largest.clone()
        for n, value in enumerate(largest):
            first = not running > 0
            if advance:
                running = value if first else fma(f32(config.nm_decay), value - running, running)
            if advance or not first:
                alpha[n] = running
        largest, average = alpha, float(running)
    limit = f32(config.nm_thres)
    return torch.minimum(largest, limit) if limit > 0 else largest, average


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


@dataclass
class _Reader:
    """One call: everything but the position of the physical tile."""

    x: Tensor
    matrix: Tensor
    config: ReadConfig
    stream: Stream
    k: int
    purpose: int
    out_scale: float
    transposed: bool
    average: float
    fused: bool

    def __post_init__(self) -> None:
        config = self.config
        self.alpha = manage(self.x, config, self.average, self.purpose != EVALUATION)[0]
        iterative = config.bound_management == "iterative" and config.out_bound > 0
        self.rounds = config.max_rounds if iterative else 0
        self.passes = 1 if config.mv_type == "one_pass" else 2

    def multiply_add(self, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
        return fma(a, b, c) if self.fused else a * b + c

    def keys(self, purpose: int, sample: Tensor, draw: int) -> Keys:
        return draw_keys(self.stream, purpose, self.k + sample, draw)

    def scale(self, sample: Tensor, n: int) -> Tensor:
        """alpha beta of round n, (samples, 1): beta doubles with every round."""
        return (self.alpha[sample] * 2.0**n)[:, None]

    def convert(
        self, v: Tensor, res: float, bound: float, sample: Tensor, draw: int, first: int
    ) -> Tensor:
        """Stochastic conversion of lines first.. of some samples."""
        purpose = FORWARD_ROUNDING + (self.purpose - FORWARD) // 2
        keys = self.keys(purpose, sample, draw)
        return convert(v, res, bound, uniform24(line_hash(keys, first, first + v.shape[1])))

    def lines(self, sample: Tensor, row_block: int, n: int) -> list[Tensor]:
        """What the input lines carry in round n, after DAC and noise: (samples, inputs) a pass."""
        c = self.config
        v = self.x[sample] / self.scale(sample, n)
        if c.inp_sto_round:
            v = self.convert(v, c.inp_res, c.inp_bound, sample, row_block << 6 | n, 0)
        else:
            v = convert(v, c.inp_res, c.inp_bound)
        passes = [v]
        if self.passes == 2:
            passes = [v.clamp(min=0.0), v.clamp(max=0.0) * f32(1.0 - c.inp_asymmetry)]
        for number, q in enumerate(passes):
            if c.inp_noise > 0:
                draw = row_block << 4 | n | number << 23
                xi = line_noise(self.keys(self.purpose + 1, sample, draw), 0, q.shape[1])
                passes[number] = fma(f32(c.inp_noise), xi, q)
        return [torch.where(self.alpha[sample][:, None] > 0, q, f32(0.0)) for q in passes]

    def product(self, w: Tensor, q: Tensor) -> Tensor:
        """(samples, outputs): inputs in order, from zero."""
        y = torch.zeros(len(q), len(w))
        for i in range(w.shape[1]):
            y = self.multiply_add(q[:, i : i + 1], w[:, i], y)
        return y

    def currents(self, w: Tensor, q: Tensor) -> Tensor:
        """The product with wires; seen forward: a backward read shares the line ends."""
        c = self.config
        if c.ir_drop == "none":
            return self.product(w, q)
        seen = w.t() if self.transposed else w
        if c.ir_drop == "approx":
            effective = wires.approximate(seen, c.wire_resistance)
            return self.product(effective.t() if self.transposed else effective, q)
        matrix = wires.nodal(seen, c.wire_resistance)
        return (q.double() @ (matrix if self.transposed else matrix.t())).float()

    def own(self, segment: int, outs: range) -> tuple[Tensor, Tensor]:
        """Noise and non-linearity of the outputs of a tile."""
        c, index = self.config, torch.arange(outs.start, outs.stop)
        k = segment << 1 | int(self.transposed)
        words = draw4(self.stream, READ_LINES, k, index, 0)
        spread = fma(f32(c.out_noise_std), byte_sum_normal(words[0]), f32(1.0))
        noise = (f32(c.out_noise) * spread).abs() if c.out_noise_std > 0 else f32(c.out_noise)
        if c.out_nonlinearity == 0:
            return noise, torch.zeros(len(outs))
        spread = fma(f32(c.out_nonlinearity_std), byte_sum_normal(words[1]), f32(1.0))
        return noise, (f32(c.out_nonlinearity / c.out_bound) * spread).abs()

    def finish(
        self, y: Tensor, variance: Tensor, sample: Tensor, segment: int, outs: range, draw: int
    ) -> tuple[Tensor, Tensor]:
        """Noise, non-linearity and ADC; ``variance`` is that of the weights over w_noise^2."""
        c = self.config
        deviation, bend = self.own(segment, outs)
        deviation = deviation.expand_as(y)
        if c.w_noise > 0:
            square = f32(c.w_noise) * f32(c.w_noise)
            deviation = square_root(fma(square, variance, deviation * deviation))
        deviation = torch.where(self.alpha[sample][:, None] > 0, deviation, f32(0.0))
        number = draw >> 4 & 1
        keys = self.keys(self.purpose, sample, segment << 4 | draw & 15 | number << 23)
        noisy = fma(deviation, line_noise(keys, outs.start, outs.stop), y)
        y = torch.where(deviation > 0, noisy, y)
        if c.out_nonlinearity > 0:
            y = y / (1.0 + bend * y.abs())
        saturated = (y.abs() >= f32(c.out_bound)).any(1)
        if c.out_sto_round:
            draw |= segment << 6 | 1 << 5
            converted = self.convert(y, c.out_res, c.out_bound, sample, draw, outs.start)
        else:
            converted = convert(y, c.out_res, c.out_bound)
        return torch.where(y.isfinite(), converted, y), saturated  # what is not finite is seen

    def tile(
        self, sample: Tensor, row_block: int, outs: range, segment: int, ins: range, n: int
    ) -> tuple[Tensor, Tensor]:
        """Converted outputs (samples, outs) of a tile in round n, and which samples saturate."""
        c = self.config
        w = self.matrix[outs.start : outs.stop, ins.start : ins.stop]
        sums, variances = [], []
        for number, line in enumerate(self.lines(sample, row_block, n)):
            q, gain = line[:, ins.start : ins.stop], f32(1.0 - c.out_asymmetry)
            y, variance = self.currents(w, q), norm_squared(q)[:, None]
            if c.w_noise_type == "pcm_read":
                variance = self.product(w.abs(), q * q)
            sums.append(y * gain if number else y)
            variances.append((variance * (gain * gain) if number else variance).expand_as(y))
        if c.mv_type != "pos_neg_separate_digital_sum":
            total, variance = sums[0], variances[0]
            if self.passes == 2:
                total, variance = sums[0] + sums[1], variances[0] + variances[1]
            return self.finish(total, variance, sample, segment, outs, n)
        parts = [
            self.finish(y, variance, sample, segment, outs, number << 4 | n)
            for number, (y, variance) in enumerate(zip(sums, variances, strict=True))
        ]
        return parts[0][0] + parts[1][0], parts[0][1] | parts[1][1]

    def block(self, row_block: int, outs: range, segments: list[range]) -> Tensor:
        """Outputs of a row of physical tiles; each doubles its own beta while it saturates."""
        total = torch.zeros(len(self.x), len(outs))
        for segment, ins in enumerate(segments):
            converted, scale = torch.zeros_like(total), torch.zeros(len(total), 1)
            sample = torch.arange(len(total))
            for n in range(self.rounds + 1):
                y, saturated = self.tile(sample, row_block, outs, segment, ins, n)
                converted[sample] = y
                scale[sample] = self.scale(sample, n) * f32(self.out_scale)
                sample = sample[saturated]
                if len(sample) == 0:
                    break
            added = self.multiply_add(converted, scale, total)
            total = added if segment else converted * scale
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
    average: float = 0.0,
    fused: bool = True,
) -> Tensor:
    """``y = out_scale W x`` of every sample (``W^T x`` if transposed) through physical tiles.

    Every output of a physical tile is one chain of fma over its inputs in order, from zero.

    Args:
        x: (samples, inputs). weight: (rows, cols). config: converters and noise.
        mapping: physical tiles; None: the defaults. transposed: inputs are rows.
        seed, tile_id: whose random numbers. k: running number of the first sample.
        purpose: of the draws: FORWARD, BACKWARD or EVALUATION. out_scale: of the weights.
        average: running average before the call, for ``average_abs_max``; see :func:`manage`.
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
    tile_in, tile_out = (tile_out, tile_in) if transposed else (tile_in, tile_out)
    reader = _Reader(
        x,
        matrix,
        config,
        Stream(seed, tile_id),
        k,
        purpose,
        out_scale,
        transposed,
        average,
        fused,
    )
    segments = [range(i, min(i + tile_in, inputs)) for i in range(0, inputs, tile_in)]
    blocks = [range(o, min(o + tile_out, outputs)) for o in range(0, outputs, tile_out)]
    return torch.cat([reader.block(n, outs, segments) for n, outs in enumerate(blocks)], dim=1)


# ---- one-hot reads ----


class _OneHot(_Reader):
    """Reads of one driven line: draws of their own, the line apart from the outputs."""

    def keys(self, purpose: int, sample: Tensor, draw: int) -> Keys:
        return draw_keys(self.stream, TRANSFER_OUTPUT, self.k + sample, draw)

    def convert(
        self, v: Tensor, res: float, bound: float, sample: Tensor, draw: int, first: int
    ) -> Tensor:
        keys = draw_keys(self.stream, TRANSFER_ROUNDING, self.k + sample, draw)
        return convert(v, res, bound, uniform24(line_hash(keys, first, first + v.shape[1])))


def convert_column(
    values: Tensor, config: ReadConfig, *, number: int, seed: int = 0, tile_id: int = 0
) -> Tensor:
    """What reads of one driven line give of values that are there.

    Args:
        values: (rows, reads). config: converters and noise; managements and DAC have no part.
        number: of the first read. seed, tile_id: whose random numbers.

    Returns:
        (rows, reads).
    """
    w = values.t()
    one = torch.ones(len(w), 1)
    stream, c = Stream(seed, tile_id), config
    reader = _OneHot(one, w, config, stream, number, FORWARD, 1.0, False, 0.0, True)
    reader.alpha = one[:, 0]
    sample, outs, gain = torch.arange(len(w)), range(w.shape[1]), f32(1.0 - c.out_asymmetry)
    sums, variances = [], []
    for n in range(reader.passes):
        q = one if n == 0 else one * 0.0
        if c.inp_noise > 0:  # of line 0, apart from the outputs by bit 4
            keys = reader.keys(0, sample, 1 << 4 | n << 23)
            xi = byte_sum_normal(hash32(torch.zeros(len(w), dtype=torch.int64), keys))
            q = fma(f32(c.inp_noise), xi[:, None], q)
        y, variance = w * q, (q * q).expand_as(w)
        if c.w_noise_type == "pcm_read":
            variance = w.abs() * (q * q)
        sums.append(y * gain if n else y)
        variances.append(variance * (gain * gain) if n else variance)
    if c.mv_type == "pos_neg_separate":
        sums, variances = [sums[0] + sums[1]], [variances[0] + variances[1]]
    parts = [
        reader.finish(y, v, sample, 0, outs, n << 4)[0]
        for n, (y, v) in enumerate(zip(sums, variances, strict=True))
    ]
    return sum(parts[1:], parts[0]).t().contiguous()

"""Converters on values that are there, and single draws: the bits of the reference, on every
instruction set and 1 and 2 threads.

Sampled moments are within 5 standard errors.
"""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from conftest import Kernels
from pulseline import _cpu, ops, reference
from pulseline.configs import ReadConfig
from pulseline.errors import ConfigError
from pulseline.reference import rng
from pulseline.reference.read import convert_column
from test_transfer import KEY, generator
from test_update import SEED, TILE_ID, K, bits

NAN, INF = math.nan, math.inf

READS = {
    "default": ReadConfig(),
    "noise": ReadConfig(w_noise=0.1, out_noise=0.02, inp_noise=0.05, out_bound=0.5),
    "weights": ReadConfig(w_noise=0.1, out_noise=0.0, out_res=0.0),
    "pcm": ReadConfig(w_noise=0.1, w_noise_type="pcm_read", out_sto_round=True),
    "lines": ReadConfig(out_noise_std=0.3, out_nonlinearity=0.5, out_nonlinearity_std=0.3),
    "two passes": ReadConfig(
        mv_type="pos_neg_separate", inp_noise=0.1, inp_asymmetry=0.1, out_asymmetry=0.2
    ),
    "digital sum": ReadConfig(
        mv_type="pos_neg_separate_digital_sum", w_noise=0.1, w_noise_type="pcm_read",
        inp_noise=0.1, out_sto_round=True, out_asymmetry=0.2,
    ),
    "perfect": ReadConfig.perfect(),
}  # fmt: skip


def converted(values: Tensor, config: ReadConfig, number: int = K) -> Tensor:
    settings = (ops.ReadSettings.of(config), ops.ConverterSettings.of(config))
    return ops.convert(values, number, ops.DrawKey(*KEY), *settings)


@pytest.mark.parametrize("config", READS.values(), ids=READS.keys())
@pytest.mark.parametrize(
    ("rows", "reads"), [(0, 3), (3, 0), (1, 1), (15, 2), (16, 15), (17, 16), (33, 17), (600, 70)]
)
def test_converters(kernels: Kernels, rows: int, reads: int, config: ReadConfig) -> None:
    values = 0.4 * torch.randn(rows, reads, generator=generator())
    want = convert_column(values, config, number=K, seed=SEED, tile_id=TILE_ID)
    half = reads // 2
    for isa, threads in kernels.each():
        got = converted(values, config)
        assert torch.equal(bits(got), bits(want)), (isa, threads)
        parts = converted(values[:, :half], config), converted(values[:, half:], config, K + half)
        assert torch.equal(bits(torch.cat(parts, 1)), bits(want)), (isa, threads)
    if config == ReadConfig.perfect():
        assert torch.equal(bits(want), bits(values))
    elif values.numel():
        assert not torch.equal(want, values)


def test_converters_are_those_of_a_read() -> None:
    """Without noise a read of one column gives the same: DAC(1) is 1."""
    for config in (ReadConfig(out_noise=0.0), ReadConfig(out_noise=0.0, out_nonlinearity=0.5)):
        w = 0.4 * torch.randn(17, 5, generator=generator())
        read = reference.read(torch.eye(5), w, config)
        assert torch.equal(converted(w, config), read.t())


def test_noise_of_converters_is_normal() -> None:
    """Deviation of 40,000 draws within 5 standard errors, out_noise^2 + w_noise^2."""
    config = ReadConfig(out_noise=0.03, w_noise=0.04, out_res=0.0, out_bound=0.0)
    noise = converted(torch.zeros(200, 200), config)
    assert abs(noise.var() / 0.0025 - 1) < 5 * math.sqrt(2 / 40000)
    assert abs(noise.mean()) < 5 * 0.05 / 200


def test_values_that_are_not_finite_are_seen(isa: str) -> None:
    values = torch.tensor([[NAN, INF], [-INF, 0.1]])
    assert torch.equal(converted(values, ReadConfig()).isfinite(), values.isfinite())


def test_bad_converters() -> None:
    values = torch.ones(3, 4)
    for drop in ("approx", "exact"):
        config = ReadConfig(ir_drop=drop, wire_resistance=0.01)
        with pytest.raises(ConfigError, match=r"^ir_drop is on, where a crosspoint depends on all"):
            converted(values, config)
    with pytest.raises(ConfigError, match=r"^number is -1; use that of the first read"):
        converted(values, ReadConfig(), -1)
    with pytest.raises(ConfigError, match=r"^values have dtype torch\.float64 and shape \(3, 4\)"):
        converted(values.double(), ReadConfig())
    with pytest.raises(ConfigError, match=r"^values have dtype torch\.float32 and shape \(4,\)"):
        converted(values[0], ReadConfig())


# ---- single draws ----


def test_uniforms() -> None:
    """The first word's 24 bits of any draw, broadcast."""
    k = torch.tensor([[0], [7], [2**33 + 1]])
    index = torch.tensor([0, 1, 2**32 - 1])
    for purpose, number in ops.DRAWS.items():
        for draw in (0, 1, (1 << 24) - 1):
            words = rng.draw4(rng.Stream(*KEY), number, k, index, draw)[0]
            got = ops.uniforms(ops.DrawKey(*KEY), purpose, k, index, draw)
            assert torch.equal(got, rng.uniform24(words))
    assert ops.uniforms(ops.DrawKey(*KEY), "chopper", k[:0], index).shape == (0, 3)


def test_bad_uniforms() -> None:
    one, key = torch.tensor([1]), ops.DrawKey(*KEY)
    for match, call in (
        ("^purpose is 'nobody'; use one of transfer, ", (key, "nobody", one, one)),
        ("^draw is -1; ", (key, "chopper", one, one, -1)),
        (r"^numbers are torch\.float32 on cpu; use int64", (key, "chopper", one.float(), one)),
        ("^numbers reach from -1 to -1; ", (key, "chopper", -one, one)),
        ("^indices reach from 4294967296 to ", (key, "chopper", one, one << 32)),
        ("^DrawKey has 2 numbers", (key[:2], "chopper", one, one)),
    ):
        with pytest.raises(ConfigError, match=match):
            ops.uniforms(*call)


def test_purposes_are_numbered_once() -> None:
    """They follow those of reads and updates, and stay."""
    assert dict(ops.DRAWS) == {
        "transfer": rng.TRANSFER_OUTPUT,
        "transfer_rounding": rng.TRANSFER_ROUNDING,
        "counted_pulses": rng.COUNTED_PULSES,
        "chopper": rng.CHOPPER,
        "column_choice": rng.COLUMN_CHOICE,
    }
    assert list(ops.DRAWS.values()) == [24, 25, 26, 27, 28]
    assert ops.NUMBERING == 2
    assert _cpu.MOST_COUNTED == 2**20 == ops.MOST_COUNTED

"""The converter chain: every option bit for bit as the reference, on every instruction set, with 1
and 2 threads and any cut of a batch; converters idempotent, symmetric, saturating; noise managed by
a running average; moments of what is random.

Sampled moments get 5 standard errors of N independent draws.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import pulseline as pl
from conftest import Kernels
from operators import chain_arguments, read_arguments
from pulseline import ops, reference
from pulseline.configs import IOConfig, Mapping, ReadConfig
from pulseline.errors import ConfigError
from pulseline.reference import rng
from pulseline.reference.read import manage

SEED, TILE_ID, K = 0x3210FEDCBA, 9, 2**32 - 5
U = 2.0**-24
PERFECT = ReadConfig.perfect()
TWO, DIGITAL = "pos_neg_separate", "pos_neg_separate_digital_sum"
CONFIGS = {
    "constant": ReadConfig(noise_management="constant", nm_thres=1.7),
    "average": ReadConfig(noise_management="average_abs_max", nm_decay=0.2),
    "limited": ReadConfig(nm_thres=0.8, inp_noise=0.01),
    "stochastic": ReadConfig(inp_sto_round=True, out_sto_round=True, w_noise=0.02),
    "analog sum": ReadConfig(mv_type=TWO, inp_asymmetry=0.1, out_asymmetry=-0.2, w_noise=0.02),
    "digital sum": ReadConfig(mv_type=DIGITAL, inp_asymmetry=0.1, out_asymmetry=0.2),
    "pcm": ReadConfig(w_noise=0.05, w_noise_type="pcm_read"),
    "lines": ReadConfig(out_noise_std=0.3, out_nonlinearity=0.4, out_nonlinearity_std=0.2),
    "wires": ReadConfig(ir_drop="approx", wire_resistance=1e-4, inp_noise=0.02),
    "everything": ReadConfig(
        inp_noise=0.01,
        out_bound=2.0,
        w_noise=0.05,
        noise_management="average_abs_max",
        nm_decay=0.3,
        nm_thres=2.0,
        inp_sto_round=True,
        out_sto_round=True,
        mv_type=DIGITAL,
        inp_asymmetry=0.1,
        out_asymmetry=0.05,
        w_noise_type="pcm_read",
        out_noise_std=0.3,
        out_nonlinearity=0.2,
        out_nonlinearity_std=0.2,
        ir_drop="approx",
        wire_resistance=1e-4,
    ),
}


class Problem(NamedTuple):
    """What one read call needs."""

    weight: Tensor
    x: Tensor
    config: ReadConfig
    transposed: bool = False
    mapping: Mapping = Mapping()
    purpose: int = rng.FORWARD
    average: float = 0.0

    def kernel(self, *sizes: int) -> Tensor:
        """Run the kernels in use, the batch cut into ``sizes``."""
        average, pieces = torch.tensor([self.average]), []
        for x, first in zip(
            self.x.split(list(sizes) or [len(self.x)]),
            itertools.accumulate((0, *sizes)),
            strict=False,
        ):
            pieces.append(ops.read_chain_(*self.arguments(x, average, K + first)))
        return torch.cat(pieces)

    def arguments(self, x: Tensor, average: Tensor, k: int = K) -> tuple[Any, ...]:
        """Of the operator."""
        return chain_arguments(
            x,
            self.weight,
            average,
            self.config,
            (SEED, TILE_ID, k),
            transposed=self.transposed,
            mapping=self.mapping,
            purpose=self.purpose,
            out_scale=1.7,
        )

    def reference(self, fused: bool = True) -> Tensor:
        return reference.read(
            self.x,
            self.weight,
            self.config,
            mapping=self.mapping,
            transposed=self.transposed,
            seed=SEED,
            tile_id=TILE_ID,
            k=K,
            purpose=self.purpose,
            out_scale=1.7,
            average=self.average,
            fused=fused,
        )


def problem(rows: int, cols: int, batch: int, config: ReadConfig, **options: Any) -> Problem:
    """Weights of both signs, samples of different size, one of them zero."""
    g = torch.Generator().manual_seed(1000 * rows + cols)
    weight = torch.randn(rows, cols, generator=g) * 0.3
    x = torch.randn(batch, rows if options.get("transposed") else cols, generator=g)
    x *= 10 ** (torch.rand(batch, 1, generator=g) - 0.5)
    if batch > 4:
        x[3] = 0
    return Problem(weight, x, config, **options)


def bits(t: Tensor) -> Tensor:
    return t.view(torch.int32)


def check(kernels: Kernels, p: Problem, *cuts: tuple[int, ...]) -> None:
    answers = {fused: bits(p.reference(fused)) for fused in (True, False)}
    for isa, threads in kernels.each():
        for sizes in ((len(p.x),), *cuts):
            wrong = int((bits(p.kernel(*sizes)) != answers[isa in kernels.fused]).sum())
            assert wrong == 0, f"{isa}, {threads} threads, batches of {sizes}: {wrong} differ"


# ---- equal bits ----


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
@pytest.mark.parametrize("transposed", [False, True])
def test_equal_bits(kernels: Kernels, config: ReadConfig, transposed: bool) -> None:
    """33 x 50 on tiles of 20 outputs and 32 inputs, all ragged."""
    if transposed:
        config = dataclasses.replace(config, bound_management="none")
    mapping = Mapping(tile_in=32, tile_out=20)
    p = problem(33, 50, 9, config, transposed=transposed, mapping=mapping)
    check(kernels, p, (1, 2, 6), (1,) * 9)


@pytest.mark.parametrize("purpose", [rng.BACKWARD, rng.EVALUATION])
def test_purposes_draw_for_themselves(kernels: Kernels, purpose: int) -> None:
    p = problem(18, 40, 5, CONFIGS["everything"], purpose=purpose, average=0.9)
    check(kernels, p, (2, 3))
    assert not torch.equal(p.kernel(), p._replace(purpose=rng.FORWARD).kernel())


@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 65])
def test_sizes(kernels: Kernels, size: int) -> None:
    for rows, cols, batch in ((size, 7, 3), (7, size, 3), (7, 9, size)):
        check(kernels, problem(rows, cols, batch, CONFIGS["everything"]))


def test_without_options_it_is_the_plain_read(isa: str) -> None:
    """Forced through the chain: the same bits; rounds of bound management included."""
    for out_bound in (12.0, 1.5):
        config = ReadConfig(inp_noise=0.01, w_noise=0.02, out_bound=out_bound)
        assert config.plain
        p = problem(70, 90, 67, config)
        for transposed in (False, True):
            x = p.weight.t().contiguous() if transposed else p.x
            options: dict[str, Any] = {"transposed": transposed, "mapping": Mapping(64, 48)}
            key = (SEED, TILE_ID, K)
            plain = ops.read_(*read_arguments(x, p.weight, config, key, **options))
            chain = ops.read_chain_(*chain_arguments(x, p.weight, None, config, key, **options))
            assert torch.equal(bits(plain), bits(chain))


# ---- converters: idempotent, symmetric, saturating ----


def converted(values: list[float], config: ReadConfig) -> Tensor:
    """Through one crosspoint of weight 1, one sample a value: only the converters act."""
    x = torch.tensor(values)[:, None]
    return Problem(torch.ones(1, 1), x, config).kernel()[:, 0] / 1.7


floats = st.lists(st.floats(-20, 20, width=32), min_size=1, max_size=30)
resolutions = st.one_of(st.integers(2, 500).map(float), st.floats(2.0**-10, 0.5))


@given(floats, resolutions, st.sampled_from([0.5, 1.0, 4.0]), st.booleans(), st.booleans())
def test_stochastic_rounding(
    values: list[float], resolution: float, bound: float, dac: bool, two: bool
) -> None:
    """Saturates at the bound, moves by less than a step, is idempotent on its own levels."""
    part = "inp" if dac else "out"
    options: dict[str, Any] = {
        f"{part}_res": resolution,
        f"{part}_bound": bound,
        f"{part}_sto_round": True,
        "mv_type": DIGITAL if two else "one_pass",
    }
    config = dataclasses.replace(PERFECT, **options)
    step = 2 * bound * (1 / resolution if resolution > 1 else resolution)
    x, q = torch.tensor(values), converted(values, config)
    assert (q.abs() <= bound * (1 + 4 * U)).all()
    assert (q[x.abs() > bound + step].abs() >= bound * (1 - 4 * U)).all()
    inside = x.abs() <= bound - step
    assert ((q - x).abs() <= step * (1 + 1e-4))[inside].all()
    levels = (q[q.abs() < bound * (1 - 1e-6)] / step).round() * step
    if len(levels):
        assert ((converted(levels.tolist(), config) - levels).abs() <= 4 * U * bound).all()


@given(floats, st.sampled_from([TWO, DIGITAL]), st.floats(-0.5, 0.5), st.floats(0, 2))
def test_passes_and_bend_are_monotone(
    values: list[float], mv_type: str, asymmetry: float, bend: float
) -> None:
    """Positive inputs as in one pass, negative ones times both gains; odd without asymmetry."""
    config = dataclasses.replace(PERFECT, mv_type=mv_type, out_bound=40.0, out_nonlinearity=bend)
    uneven = dataclasses.replace(config, inp_asymmetry=asymmetry)
    values = sorted(values)
    x = torch.tensor(values)
    even, skew = converted(values, config), converted(values, uneven)
    assert torch.equal(even, -converted([-v for v in values], config))
    assert (even.diff() >= 0).all()
    assert (skew.diff() >= 0).all()
    assert torch.equal(even[x >= 0], skew[x >= 0])
    torch.testing.assert_close(even, x / (1 + bend / 40 * x.abs()))
    y = x * torch.where(x < 0, 1 - asymmetry, 1.0)
    torch.testing.assert_close(skew, y / (1 + bend / 40 * y.abs()))


def test_stochastic_rounding_is_unbiased(isa: str) -> None:
    """.3 of the way between two levels: up with probability .3, for DAC and ADC."""
    n = 20000
    for part in ("inp", "out"):
        options: dict[str, Any] = {
            f"{part}_res": 1 / 8,
            f"{part}_bound": 1.0,
            f"{part}_sto_round": 1,
        }
        config = dataclasses.replace(PERFECT, **options)
        weight = torch.eye(100)
        y = Problem(weight, torch.full((n // 100, 100), 0.325), config).kernel() / 1.7
        up = (y > 0.4).double().mean()
        assert abs(up - 0.3) < 5 * math.sqrt(0.21 / n)


# ---- noise ----


def deviation(p: Problem) -> Tensor:
    """Standard deviation of each output over the samples."""
    return (p.kernel() / 1.7).double().std(0)


def test_pcm_noise(isa: str) -> None:
    """Variance w_noise^2 sum |w| q^2, both passes with noise of their own."""
    n = 4000
    g = torch.Generator().manual_seed(2)
    weight, x = torch.randn(20, 30, generator=g), torch.randn(1, 30, generator=g)
    expected = (0.1**2 * (weight.abs().double() @ (x.double() ** 2).t()))[:, 0].sqrt()
    for mv_type in ("one_pass", TWO, DIGITAL):
        config = dataclasses.replace(PERFECT, w_noise=0.1, w_noise_type="pcm_read", mv_type=mv_type)
        got = deviation(Problem(weight, x.expand(n, 30).contiguous(), config))
        assert ((got / expected - 1).abs() < 5 / math.sqrt(2 * n)).all(), mv_type


def test_every_output_has_its_own_noise(isa: str) -> None:
    """Spread 30 % of the size, the same in training and evaluation, another one backward."""
    n, m = 2000, 400
    config = dataclasses.replace(PERFECT, out_noise=0.05, out_noise_std=0.3)
    p = Problem(torch.zeros(m, 2), torch.ones(n, 2), config)
    train, still = deviation(p), deviation(p._replace(purpose=rng.EVALUATION))
    assert abs(train.mean() / 0.05 - 1) < 5 * 0.3 / math.sqrt(m)
    assert abs(train.std() / 0.05 - 0.3) < 5 * 0.3 / math.sqrt(2 * m)
    assert ((train - still).abs() < 5 * train * math.sqrt(1 / n)).all()
    other = deviation(Problem(torch.zeros(2, m), torch.ones(n, 2), config, transposed=True))
    assert abs(torch.corrcoef(torch.stack([train, other]))[0, 1]) < 5 / math.sqrt(m)


def test_every_output_has_its_own_bend(isa: str) -> None:
    """y = 8 / (1 + 8 n), n = .5 / 16 (1 + .2 xi): mean and spread of n over 900 outputs."""
    m, n = 900, 0.5 / 16
    config = dataclasses.replace(
        PERFECT, out_bound=16.0, out_nonlinearity=0.5, out_nonlinearity_std=0.2
    )
    p = Problem(torch.full((m, 1), 8.0), torch.ones(2, 1), config)
    y = p.kernel().double() / 1.7
    assert torch.equal(y[0], y[1])  # of the line, not of the sample
    bend = (8 / y[0] - 1) / 8
    assert abs(bend.mean() / n - 1) < 5 * 0.2 / math.sqrt(m)
    assert abs(bend.std() / n - 0.2) < 5 * 0.2 / math.sqrt(2 * m)


# ---- noise management ----


@given(st.lists(st.floats(0, 50, width=32), min_size=1, max_size=20), st.floats(0.01, 1))
def test_running_average(largest: list[float], decay: float) -> None:
    """An average of what came before: within its range, equal to it if constant."""
    config = ReadConfig(noise_management="average_abs_max", nm_decay=decay)
    alpha, average = manage(torch.tensor(largest)[:, None], config)
    seen = [v for v in largest if v > 0]
    if seen:
        low, high = min(largest), max(largest)
        slack = len(largest) * 2.0**-22 * high  # a + decay (max|x| - a): three roundings a sample
        assert low - slack <= average <= high + slack
    assert (alpha <= max(largest) * (1 + 1e-5)).all()
    assert manage(torch.full((5, 1), 2.5), config)[0].tolist() == [2.5] * 5


def test_the_average_is_the_tiles_state() -> None:
    """Cutting a batch changes nothing; evaluation leaves it; state_dict continues bit for bit."""
    forward = ReadConfig(noise_management="average_abs_max", nm_decay=0.1)
    io = IOConfig(forward, forward)
    x, d = torch.randn(12, 7), torch.randn(12, 5)

    def tile() -> pl.Array:
        t = pl.Array(5, 7, pl.devices.Ideal(), io=io, seed=3)
        t.initialise()
        return t

    whole, cut = tile(), tile()
    y, g = whole.read(x), whole.read(d, True)
    assert torch.equal(y, torch.cat([cut.read(part) for part in x.split(5)]))
    assert torch.equal(g, torch.cat([cut.read(part, True) for part in d.split(1)]))
    assert torch.equal(whole.averages, cut.averages)
    assert (whole.averages > 0).all()
    before = whole.averages.clone()
    whole.evaluate(100 * x)
    assert torch.equal(whole.averages, before)
    other = tile()
    other.load_state(whole.state())
    assert torch.equal(other.read(x), cut.read(x))
    assert torch.equal(other.read(d, True), cut.read(d, True))
    x[3, 2] = math.nan
    before = other.averages.clone()
    with pytest.raises(ConfigError, match=r"^x\[3\] holds a NaN"):
        other.read(x)
    assert torch.equal(other.averages, before)


def test_forward_and_backward_have_their_own_settings() -> None:
    io = IOConfig(PERFECT, dataclasses.replace(PERFECT, out_bound=4.0, out_nonlinearity=0.5))
    tile = pl.Array(3, 4, pl.devices.Ideal(), io=io)
    tile.initialise()
    w = tile.effective_weight()
    x, d = torch.randn(2, 4), torch.randn(2, 3)
    torch.testing.assert_close(tile.read(x), x @ w.t())
    torch.testing.assert_close(tile.read(d, True), (d @ w) / (1 + 0.125 * (d @ w).abs()))


# ---- refusals ----


@pytest.mark.parametrize(
    ("field", "options"),
    [
        ("nm_thres", {"noise_management": "constant"}),
        ("nm_decay", {"nm_decay": 0.0}),
        ("mv_type", {"mv_type": "twice"}),
        ("w_noise_type", {"w_noise_type": "pink"}),
        ("inp_asymmetry", {"inp_asymmetry": 0.1}),
        ("out_nonlinearity", {"out_nonlinearity": 0.1, "out_bound": 0.0, "out_res": 0.0}),
        ("out_noise_std", {"out_noise_std": -1.0}),
        ("ir_drop", {"ir_drop": "some"}),
        ("wire_resistance", {"ir_drop": "exact"}),
        ("ir_tolerance", {"ir_tolerance": 0.0}),
    ],
)
def test_bad_options(field: str, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=rf"^ReadConfig: {field} is .+; .+$"):
        ReadConfig(**options)

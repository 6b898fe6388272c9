"""The crossbar read: equal bits of reference, instruction sets with FMA, threads and any cut of a
batch; close to float64; converters, saturation, noise and refusals.

Bound against exact arithmetic, converters off: an output is a chain of n fused (or n + n) roundings
per physical tile and one or two more per tile for scale and sum, each at most u = 2^-24 of partial
sums that stay below S = sum |w| |x|: with s tiles the error is below (2 n + 2 s) u S, and half of
that where products are not rounded. Sampled moments get 5 standard errors of N independent normals.
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

from conftest import Kernels
from operators import read_arguments
from pulseline import ops, reference
from pulseline.configs import IOConfig, Mapping, ReadConfig
from pulseline.errors import ConfigError
from pulseline.reference import rng

SEED, TILE_ID, K = 0x3210FEDCBA, 9, 2**32 - 5
U = 2.0**-24
PERFECT = ReadConfig.perfect()
QUIET = ReadConfig(out_noise=0.0)
CONFIGS = {
    "default": ReadConfig(),
    "perfect": PERFECT,
    "quiet": QUIET,
    "noisy": ReadConfig(inp_noise=0.01, w_noise=0.02),
    "saturating": ReadConfig(inp_noise=0.01, w_noise=0.02, out_bound=1.5),
    "saturated": ReadConfig(out_bound=0.3, max_rounds=2),
    "clipped": ReadConfig(out_bound=1.5, bound_management="none", noise_management="none"),
}
SIZES = (0, 1, 15, 16, 17, 31, 32, 33, 127, 128, 129, 255, 256, 257)
BATCHES = (3, 65, 1, 2, 16, 40, 33, 5, 31, 0, 47, 65, 63, 32)
SHAPES = [
    (rows, SIZES[(n + 7) % len(SIZES)], batch)
    for n, (rows, batch) in enumerate(zip(SIZES, BATCHES, strict=True))
]


class Problem(NamedTuple):
    """What one read call needs."""

    weight: Tensor
    x: Tensor
    config: ReadConfig = PERFECT
    transposed: bool = False
    mapping: Mapping = Mapping()
    out_scale: float = 1.0
    purpose: int = rng.FORWARD
    seed: int = SEED
    k: int = K

    def kernel(self, first: int = 0, last: int | None = None) -> Tensor:
        """Run the kernels in use on samples first..last."""
        return ops.read_(
            *read_arguments(
                self.x[first:last],
                self.weight,
                self.config,
                (self.seed, TILE_ID, self.k + first),
                transposed=self.transposed,
                mapping=self.mapping,
                purpose=self.purpose,
                out_scale=self.out_scale,
            )
        )

    def reference(self, fused: bool = True) -> Tensor:
        return reference.read(
            self.x,
            self.weight,
            self.config,
            mapping=self.mapping,
            transposed=self.transposed,
            seed=self.seed,
            tile_id=TILE_ID,
            k=self.k,
            purpose=self.purpose,
            out_scale=self.out_scale,
            fused=fused,
        )

    def exact(self) -> tuple[Tensor, Tensor]:
        """Product and sum of magnitudes in float64."""
        w = (self.weight if self.transposed else self.weight.t()).double()
        return self.x.double() @ w, self.x.double().abs() @ w.abs()


def problem(rows: int, cols: int, batch: int, transposed: bool = False, **options: Any) -> Problem:
    """Weights of both signs, samples of different size, one of them zero."""
    g = torch.Generator().manual_seed(1000 * rows + cols)
    weight = torch.randn(rows, cols, generator=g) * 0.3
    x = torch.randn(batch, rows if transposed else cols, generator=g)
    x *= 10 ** (torch.rand(batch, 1, generator=g) - 0.5)
    if batch > 4:
        x[3] = 0
    return Problem(weight, x, transposed=transposed, **options)


def bits(t: Tensor) -> Tensor:
    return t.view(torch.int32)


def check(kernels: Kernels, p: Problem, cuts: tuple[tuple[int, ...], ...] = ()) -> Tensor:
    """Reference == every ISA, 1 and 2 threads, whole and cut into batches of these sizes.

    Without FMA a sum rounds products too, and the reference follows on request.
    """
    answers = {fused: p.reference(fused) for fused in (True, False)}
    for isa, threads in kernels.each():
        expected = answers[isa in kernels.fused]
        for sizes in ((len(p.x),), *cuts):
            edges = [0, *itertools.accumulate(sizes)]
            assert edges[-1] == len(p.x)
            pieces = [p.kernel(first, last) for first, last in itertools.pairwise(edges)]
            got = torch.cat(pieces)
            wrong = int((bits(got) != bits(expected)).sum())
            assert wrong == 0, f"{isa}, {threads} threads, batches of {sizes}: {wrong} differ"
    return answers[True]


# ---- equal bits ----


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize(("rows", "cols", "batch"), SHAPES)
def test_sizes(kernels: Kernels, rows: int, cols: int, batch: int, transposed: bool) -> None:
    config = list(CONFIGS.values())[SIZES.index(rows) % len(CONFIGS)]
    p = problem(rows, cols, batch, transposed, config=config, out_scale=1.7)
    cuts = ((batch // 3, batch - batch // 3),)
    assert check(kernels, p, cuts).shape == (batch, cols if transposed else rows)


@pytest.mark.parametrize("transposed", [False, True])
def test_a_batch_can_be_cut_anywhere(kernels: Kernels, transposed: bool) -> None:
    cuts = (
        (1,) * 65,
        (1, 2, 5, 7, 8, 9, 13, 16, 4),
        (16, 13, 9, 8, 7, 5, 2, 1, 4),
        (17, 17, 17, 14),
        (64, 1),
    )
    p = problem(65, 129, 65, transposed, config=CONFIGS["saturating"])
    check(kernels, p, cuts)


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
@pytest.mark.parametrize("transposed", [False, True])
def test_physical_tiles(kernels: Kernels, transposed: bool, config: ReadConfig) -> None:
    """70 x 90 on tiles of 48 outputs and 32 inputs: both dimensions cut, the last tiles ragged."""
    mapping = Mapping(tile_in=32, tile_out=48)
    p = problem(70, 90, 13, transposed, config=config, mapping=mapping, out_scale=0.7)
    check(kernels, p, ((5, 8), (1, 2, 10)))


@pytest.mark.parametrize("tile", [1, 7, 16, 90])
def test_tile_sizes(kernels: Kernels, tile: int) -> None:
    mapping = Mapping(tile_in=tile, tile_out=91 - tile)
    check(kernels, problem(33, 90, 9, config=CONFIGS["saturating"], mapping=mapping))


def test_many_inputs_and_many_samples(kernels: Kernels) -> None:
    """Panels of 512 packed inputs continue a sum; few panels: threads share the samples."""
    long = Mapping(tile_in=4096, tile_out=4096)
    for transposed in (False, True):
        shape = (1030, 24) if transposed else (24, 1030)
        check(kernels, problem(*shape, 10, transposed, config=QUIET, mapping=long))
        shape = (60, 33) if transposed else (33, 60)
        p = problem(*shape, 131, transposed, config=CONFIGS["saturating"])
        check(kernels, p, ((128, 3), (50, 81)))


def test_strided_input() -> None:
    p = problem(33, 65, 9)
    strided = p._replace(x=p.x.t().contiguous().t())
    assert not strided.x.is_contiguous()
    assert torch.equal(strided.kernel(), p.kernel())


# ---- close to exact arithmetic ----


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("mapping", [Mapping(), Mapping(tile_in=32, tile_out=48)])
@pytest.mark.parametrize(("rows", "cols"), [(1, 1), (70, 90), (129, 257)])
def test_perfect_io(
    isa: str, kernels: Kernels, rows: int, cols: int, mapping: Mapping, transposed: bool
) -> None:
    """Close to float64 and to torch's matmul; the instruction sets are close to each other."""
    p = problem(rows, cols, 17, transposed, mapping=mapping)
    n = p.x.shape[1]
    s = -(-n // (mapping.tile_out if transposed else mapping.tile_in))
    product, size = p.exact()
    y = p.kernel()
    fused = isa in kernels.fused
    assert ((y - product).abs() <= ((n if fused else 2 * n) + 2 * s) * U * size).all()
    matrix = p.weight if transposed else p.weight.t()
    assert ((y - p.x @ matrix).double().abs() <= (4 * n + 2 * s) * U * size).all()
    kernels.use("baseline")
    assert ((y - p.kernel()).double().abs() <= (3 * n + 4 * s) * U * size).all()


def test_out_scale(isa: str) -> None:
    p = problem(33, 65, 9, config=ReadConfig())
    assert torch.equal(p._replace(out_scale=4.0).kernel(), 4 * p.kernel())


@pytest.mark.parametrize("transposed", [False, True])
def test_converters_limit_the_error(isa: str, transposed: bool) -> None:
    """Off by alpha (s_out / 2 per tile + s_in / 2 sum |w|) at most, noise off; on the grid."""
    mapping = Mapping(tile_in=32, tile_out=48)
    p = problem(70, 90, 13, transposed, config=QUIET, mapping=mapping)
    product, _ = p.exact()
    alpha = p.x.abs().amax(1, keepdim=True).double()
    weights = p.weight.abs().double().sum(0 if transposed else 1)
    s_in, s_out = 2 / 126, 2 * 12 / 510
    n = -(-p.x.shape[1] // (48 if transposed else 32))
    slack = alpha * (s_in / 2 * weights + n * s_out / 2)
    y = p.kernel()
    assert ((y - product).abs() <= slack * (1 + 1e-5)).all()
    assert ((y - product).abs() > slack / 100).any()
    levels = y[alpha[:, 0] > 0] / alpha[alpha[:, 0] > 0] / s_out
    # a level below 500 is off by its own roundings: 4 n u 500
    assert (levels - levels.round()).abs().max() < 4 * n * U * 500


# ---- converters ----


def converted(values: list[float], config: ReadConfig) -> Tensor:
    """Through one crosspoint of weight 1: only the converters act."""
    return Problem(torch.ones(1, 1), torch.tensor(values)[:, None], config).kernel()[:, 0]


resolutions = st.one_of(
    st.integers(2, 2000).map(float), st.floats(2.0**-12, 0.5), st.just(1 / 126), st.just(1 / 510)
)


@given(
    st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=40),
    resolutions,
    st.sampled_from([0.5, 1.0, 3.0, 12.0]),
    st.booleans(),
)
def test_converter_properties(
    values: list[float], resolution: float, bound: float, dac: bool
) -> None:
    """DAC and ADC are symmetric, monotone, saturate, round to the nearest level, are idempotent."""
    if dac:
        config = dataclasses.replace(PERFECT, inp_res=resolution, inp_bound=bound)
    else:
        config = dataclasses.replace(PERFECT, out_res=resolution, out_bound=bound)
    step = 2 * bound * (1 / resolution if resolution > 1 else resolution)
    values = sorted(values)
    x, q = torch.tensor(values), converted(values, config)
    assert torch.equal(q, -converted([-v for v in values], config))
    assert (q.diff() >= 0).all()
    assert (q.abs() <= bound).all()
    assert (q[x.abs() > bound + step].abs() == bound).all()
    inside = x.abs() < bound
    nearest = (q - x).abs() <= step / 2 + 4 * U * x.abs()
    assert (nearest | ~inside | (q.abs() == bound)).all()
    kept = q.abs() < bound  # a bound that is no level is kept by saturation only
    assert torch.equal(converted(q[kept].tolist(), config), q[kept]) or not kept.any()


def test_converter_levels() -> None:
    """Ties go to even levels; a resolution above 1 counts levels; <= 0 is off."""
    config = dataclasses.replace(PERFECT, inp_res=0.25, inp_bound=1.0)
    values = [0.0, 0.24, 0.25, 0.26, 0.75, 0.76, 1.2, -0.25, -0.75, -5.0]
    levels = [0.0, 0.0, 0.0, 0.5, 1.0, 1.0, 1.0, 0.0, -1.0, -1.0]
    assert converted(values, config).tolist() == levels
    assert converted(values, dataclasses.replace(config, inp_res=4.0)).tolist() == levels
    off = dataclasses.replace(config, inp_res=0.0)
    assert converted(values, off).tolist() == torch.tensor(values).clamp(-1, 1).tolist()
    assert torch.equal(converted(values, PERFECT), torch.tensor(values))


# ---- noise management, saturation ----


def test_noise_management_scales(isa: str) -> None:
    """abs_max: a sample times a power of two gives the same levels; none: inputs clip at 1."""
    p = problem(33, 65, 9, config=ReadConfig())
    assert torch.equal(p._replace(x=p.x * 8).kernel(), p.kernel() * 8)
    clipped = p._replace(config=dataclasses.replace(QUIET, noise_management="none"))
    assert torch.equal(clipped.kernel(), clipped._replace(x=p.x.clamp(-1, 1)).kernel())


def saturating() -> tuple[Problem, Tensor]:
    """40 outputs on two row blocks; samples 1, 4, 5 saturate the first block only."""
    g = torch.Generator().manual_seed(5)
    weight = torch.rand(40, 60, generator=g)
    weight[20:] *= 0.01
    x = torch.zeros(7, 60)
    x[:, 0] = 3.0  # alpha
    x[1, :], x[4, :50], x[5, 5:] = 3.0, -3.0, 1.5
    config = ReadConfig(out_bound=2.0)
    saturated = torch.tensor([False, True, False, False, True, True, False])
    return Problem(weight, x, config, mapping=Mapping(60, 20)), saturated


def test_bound_management_repeats_saturated_samples_only(kernels: Kernels) -> None:
    """Same bits elsewhere; results unsaturated, within the converters' and the noise's error.

    beta is the first power of two that fits, at most 2 (max |y| / alpha + noise) / bound; noise
    stays below 4.86 x .06, the ADC errs by s_out / 2, the DAC by s_in / 2 per unit of weight.
    """
    p, saturated = saturating()
    once = p._replace(config=dataclasses.replace(p.config, bound_management="none"))
    check(kernels, p, ((1,) * 7, (2, 5)))
    for _ in kernels.each():
        y, clipped = p.kernel(), once.kernel()
        assert torch.isfinite(y).all()
        assert torch.equal(bits(y[~saturated]), bits(clipped[~saturated]))
        assert torch.equal(bits(y[:, 20:]), bits(clipped[:, 20:]))  # the other tile does not repeat
        assert (clipped[saturated, :20].abs() == 2.0 * 3.0).any(1).all()
        assert (y[saturated, :20] != clipped[saturated, :20]).all()
        product, _ = p.exact()
        noise = 4.86 * 0.06
        beta = 2 * (product[:, :20].abs().amax(1, keepdim=True) / 3 + noise) / 2.0
        slack = noise + 2 * 2.0 / 510 / 2 + p.weight[:20].sum(1) / 126
        assert ((y - product)[:, :20].abs() <= 3 * beta.clamp(min=1) * slack).all()
        assert (y[saturated, :20].abs().amax(1) > 2.0 * 3.0).all()


def test_bound_management_gives_up(isa: str) -> None:
    """After max_rounds a saturated output stays at bound x alpha x beta."""
    p, _ = saturating()
    p = p._replace(config=dataclasses.replace(p.config, max_rounds=1))
    assert p.kernel()[1, 0] == 2.0 * 3.0 * 2
    assert p._replace(config=dataclasses.replace(p.config, max_rounds=0)).kernel()[1, 0] == 2.0 * 3


def test_bound_management_is_forward_only() -> None:
    assert IOConfig(backward=ReadConfig()).backward.bound_management == "none"
    assert IOConfig().forward.bound_management == "iterative"


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
def test_zero_input_gives_zero(isa: str, config: ReadConfig) -> None:
    """Exactly +0 with noise management; without it the output noise remains."""
    p = problem(33, 40, 5, config=config)._replace(x=torch.zeros(5, 40), mapping=Mapping(16, 16))
    for transposed in (False, True):
        x = torch.zeros(5, 33) if transposed else torch.full((5, 40), -0.0)
        y = p._replace(x=x, transposed=transposed).kernel()
        if config.noise_management == "abs_max" or config.out_noise == 0:
            assert (bits(y) == 0).all()
        else:
            assert (y != 0).any()


# ---- noise ----


def standardised(z: Tensor) -> None:
    """Mean 0, variance 1, kurtosis 3, no correlation of neighbours in either dimension."""
    z = z.double()
    root = math.sqrt(z.numel())
    assert abs(z.mean()) < 5 / root
    assert abs((z**2).mean() - 1) < 5 * math.sqrt(2) / root
    assert abs((z**4).mean() - 3) < 5 * math.sqrt(96) / root
    for lag in (1, 2, 16):
        assert abs((z[lag:] * z[:-lag]).mean()) < 5 / root
        assert abs((z[:, lag:] * z[:, :-lag]).mean()) < 5 / root


def test_output_noise(isa: str) -> None:
    """std out_noise x alpha; each segment adds its own, so four segments double it."""
    config = dataclasses.replace(PERFECT, out_noise=0.06, noise_management="abs_max")
    p = Problem(torch.zeros(256, 4), torch.full((400, 4), -3.0), config)
    standardised(p.kernel() / (3 * 0.06))
    standardised(p._replace(mapping=Mapping(1, 64)).kernel() / (3 * 0.06 * 2))


def test_input_noise(isa: str) -> None:
    """std inp_noise behind the DAC; each row of physical tiles draws its own."""
    config = dataclasses.replace(PERFECT, inp_noise=0.05)
    p = Problem(torch.eye(128).repeat(2, 1), torch.full((400, 128), 0.5), config)
    together = (p.kernel() - 0.5) / 0.05
    assert torch.equal(together[:, :128], together[:, 128:])
    apart = (p._replace(mapping=Mapping(128, 128)).kernel() - 0.5) / 0.05
    assert torch.equal(apart[:, :128], together[:, :128])
    standardised(apart)
    root = math.sqrt(apart[:, :128].numel())
    assert abs((apart[:, :128] * apart[:, 128:]).double().mean()) < 5 / root


def test_weight_noise(isa: str) -> None:
    """std w_noise |q|_2, beside the output noise."""
    g = torch.Generator().manual_seed(3)
    x = torch.randn(400, 100, generator=g)
    config = dataclasses.replace(PERFECT, w_noise=0.02)
    p = Problem(torch.zeros(256, 100), x, config)
    norm = x.double().norm(dim=1, keepdim=True)
    standardised(p.kernel() / (0.02 * norm))
    p = p._replace(config=dataclasses.replace(config, out_noise=0.1))
    standardised(p.kernel() / ((0.02 * norm) ** 2 + 0.1**2).sqrt())
    cut = p._replace(mapping=Mapping(25, 64))  # squares of the norms add up over segments
    standardised(cut.kernel() / ((0.02 * norm) ** 2 + 4 * 0.1**2).sqrt())


def test_draws_differ() -> None:
    """Purpose, seed and counter matter, and so do sample and round."""
    p = problem(33, 65, 3, config=ReadConfig())
    p = p._replace(x=p.x[:1].expand(3, 65))
    y = p.kernel()
    assert not torch.equal(y[0], y[1])
    others = [
        p._replace(purpose=rng.EVALUATION),
        p._replace(purpose=rng.BACKWARD),
        p._replace(seed=SEED + 1),
        p._replace(k=K + 7),
    ]
    results = [y, *(other.kernel() for other in others)]
    for a, b in itertools.combinations(results, 2):
        assert not torch.equal(a, b)
    assert torch.equal(p._replace(k=K + 1).kernel()[:2], y[1:])


# ---- refusals ----


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", [(0, 0), (4, 16), (8, 64)])
def test_values_that_are_not_finite(isa: str, value: float, place: tuple[int, int]) -> None:
    """An error that names the sample; the weights and the input keep their bits."""
    for transposed in (False, True):
        p = problem(65, 65, 9, transposed, config=ReadConfig())
        before = p.weight.clone()
        p.x[place] = value
        name = "d" if transposed else "x"
        with pytest.raises(ConfigError, match=rf"^{name}\[{place[0]}\] holds a NaN or an inf"):
            p.kernel()
        assert torch.equal(bits(p.weight), bits(before))
        with pytest.raises(ConfigError, match=r"^x holds a NaN"):
            p.reference()


def test_bad_arguments() -> None:
    p = problem(5, 7, 3)
    for x, match in (
        (p.x[:, :6], r"^x has shape \(3, 6\); use \(samples, 7\)$"),
        (p.x[0], r"^x has shape \(7,\); "),
        (p.x.double(), r"^x has dtype torch\.float64; convert it with \.float\(\)$"),
    ):
        with pytest.raises(ConfigError, match=match):
            p._replace(x=x).kernel()
    for weight in (p.weight.half(), p.weight.t()):
        with pytest.raises(ConfigError, match=r"^weight has dtype "):
            p._replace(weight=weight, x=torch.zeros(3, weight.shape[1])).kernel()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("out_noise", -0.1),
        ("inp_noise", math.nan),
        ("inp_res", 1e-9),
        ("out_bound", 0.0),
        ("noise_management", "max"),
        ("bound_management", "always"),
        ("max_rounds", 16),
    ],
)
def test_bad_configurations(field: str, value: Any) -> None:
    arguments: dict[str, Any] = {field: value}
    with pytest.raises(ConfigError, match=rf"^ReadConfig: {field} is {value!r}; .+$"):
        ReadConfig(**arguments)

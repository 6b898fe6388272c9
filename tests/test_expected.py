"""``expected``: the recursion of the theory, and the mean of what trains do, saturation included.

Theory (Wu et al. 2024), soft bounds of +-tau without variation:
``W' = W - lr d x^T - |lr d x^T| W / tau``. With powers of two for dw_min and tau every stored
number is exact, so that what is left are float32 roundings: of the weight, one each step (2^-24 of
at most tau), and of the increment, which is five operations on it.
"""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import pulseline as pl
from conftest import Kernels
from pulseline.configs import UpdateConfig

TAU, STEP = 0.5, 2.0**-9
THEORY = pl.devices.SoftBounds(
    dw_min=STEP,
    w_max=TAU,
    w_min=-TAU,
    dw_min_dtod=0,
    dw_min_std=0,
    up_down_dtod=0,
    w_max_dtod=0,
    w_min_dtod=0,
)
# Trains too short, too long, of a length that follows the learning rate, with and without balance.
TRAINS = {
    "default": {},
    "one slot": {"desired_bl": 1},
    "long": {"desired_bl": 200},
    "no length": {"update_bl_management": False},
    "no balance": {"update_management": False},
    "plain": {"update_bl_management": False, "update_management": False},
    "stretched": {"update_bl_management": False, "fixed_bl": False, "desired_bl": 5},
    "stretched, no balance": {
        "update_bl_management": False,
        "fixed_bl": False,
        "update_management": False,
        "desired_bl": 5,
    },
}


def tile(rows: int, cols: int, device: pl.devices.Device, **config: object) -> pl.Array:
    update = UpdateConfig(**config)  # type: ignore[arg-type]
    return pl.Array(rows, cols, device, update=update, seed=3, tile_id=1)


def samples(count: int, size: int, seed: int) -> Tensor:
    return torch.randn(count, size, generator=torch.Generator().manual_seed(seed))


def test_theory_device_follows_its_recursion(kernels: Kernels) -> None:
    steps, rows, cols, lr = 300, 7, 33, 0.01
    x, d = samples(steps, cols, 1) * 0.3, samples(steps, rows, 2) * 0.3
    start = (samples(rows, cols, 3) * 0.1).clamp(-TAU, TAU)
    w, slack = start.double(), torch.zeros(rows, cols, dtype=torch.float64)
    for xs, ds in zip(x.double(), d.double(), strict=True):
        move = -lr * ds[:, None] * xs
        w = w + move - move.abs() * w / TAU
        slack += 2.0**-24 * (TAU + 5 * move.abs() * 2)
    for _ in kernels.each():
        analog = tile(rows, cols, THEORY, fidelity="expected")
        analog.program(start)
        analog.pulse(x, d, lr)
        assert ((analog.weight.data - w).abs() <= slack).all()
    assert float((w - start).abs().max()) > 1000 * float(slack.max())  # it went somewhere


def mean_count(x: Tensor, d: Tensor, lr: float, config: UpdateConfig, g: float) -> Tensor:
    """BL p_x p_d of one sample in float64, from the rules of Gokmen & Vlasov 2016."""
    x_max, d_max = float(x.abs().max()), float(d.abs().max())
    k, bl = lr * x_max * d_max / g, float(config.desired_bl)
    a = b = math.sqrt(lr / (g * bl))
    if config.update_bl_management:
        bl = min(max(math.ceil(k), 1), config.desired_bl)
        a = b = math.sqrt(lr / (g * bl))
    elif not config.fixed_bl and g * bl < lr:
        bl, a, b = float(math.ceil(lr / g)), 1.0, 1.0
    if config.update_management:
        d_max *= min(1.0, config.desired_bl / k)
        a, b = a * math.sqrt(x_max / d_max), b * math.sqrt(d_max / x_max)
    p_x, p_d = (b * x.abs()).clamp(max=1.0), (a * d.abs()).clamp(max=1.0)
    return bl * p_d[:, None] * p_x


@pytest.mark.parametrize("lr", [0.002, 0.03, 0.9])
@pytest.mark.parametrize("trains", TRAINS)
def test_it_is_the_mean_of_the_trains(trains: str, lr: float) -> None:
    """Steps that do not depend on the weight: the move is the mean count times the step.

    Tolerance: a dozen float32 roundings of the count; one of the weight.
    """
    config = UpdateConfig(fidelity="expected", **TRAINS[trains])  # type: ignore[arg-type]
    device = pl.devices.ConstantStep(
        dw_min=2.0**-10, w_max=64.0, w_min=-64.0, dw_min_dtod=0, up_down_dtod=0
    )
    x, d = samples(1, 33, 4), samples(1, 17, 5)
    analog = tile(17, 33, device, fidelity="expected", **TRAINS[trains])
    analog.pulse(x, d, lr)
    count = mean_count(x[0].double(), d[0].double(), lr, config, device.granularity)
    want = -torch.sign(d[0])[:, None] * torch.sign(x[0]) * count * 2.0**-10
    slack = 12 * 2.0**-24 * want.abs() + 2.0**-24 * want.abs()
    assert ((analog.weight.data - want).abs() <= slack).all()


@pytest.mark.parametrize("lr", [0.002, 0.9])
@pytest.mark.parametrize("trains", ["default", "one slot", "plain", "stretched, no balance"])
def test_strict_pulses_scatter_about_it(trains: str, lr: float) -> None:
    """n samples of real trains: every crosspoint within 5.5 standard errors of n times the mean.

    The count of a sample is binomial in BL slots, so its variance is at most its mean; one of 561
    crosspoints outside 5.5 standard errors would be one run in 47,000. p is on a grid of 2^-16,
    which random rounding makes exact on average.
    """
    n, device = (
        400,
        pl.devices.ConstantStep(
            dw_min=2.0**-10, w_max=512.0, w_min=-512.0, dw_min_dtod=0, dw_min_std=0, up_down_dtod=0
        ),
    )
    x, d = samples(1, 33, 4), samples(1, 17, 5)
    results = []
    for fidelity in ("expected", "strict"):
        analog = tile(17, 33, device, fidelity=fidelity, **TRAINS[trains])
        analog.pulse(x.expand(n, -1).contiguous(), d.expand(n, -1).contiguous(), lr)
        results.append(analog.weight.data.double() * 2.0**10)
    mean, count = results
    assert ((count - mean).abs() <= 5.5 * mean.abs().sqrt() + 1e-3 * mean.abs().clamp(min=1)).all()
    assert float(count.abs().sum()) > 0


def test_saturated_trains_deliver_less_than_the_product() -> None:
    """31 slots of 1e-4 cannot deliver lr |d x| = .05: what arrives is 31 steps."""
    device = pl.devices.ConstantStep(dw_min=2.0**-13, dw_min_dtod=0, up_down_dtod=0)
    analog = tile(1, 1, device, fidelity="expected")
    analog.pulse(torch.ones(1, 1), -torch.ones(1, 1), 0.05)
    assert float(analog.weight.data) == pytest.approx(31 * 2.0**-13, rel=2**-21)

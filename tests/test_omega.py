"""``Mapping(omega="auto")``: weights are scaled where bounds would cut them, and no further."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

import pulseline as pl
from pulseline.arrays.crosspoints import FITTING_LOSS
from pulseline.configs import IOConfig, Mapping
from pulseline.devices import PulsedDevice, SoftBounds
from pulseline.errors import ConfigError
from pulseline.nn import conversion, to_analog

AUTO = Mapping(omega="auto")
ROWS, COLS = 20, 30


def normals(scale: float, seed: int = 0) -> Tensor:
    return scale * torch.randn(ROWS, COLS, generator=torch.Generator().manual_seed(seed))


def array(device: PulsedDevice | str, target: Tensor, mapping: Mapping = AUTO) -> pl.Array:
    made = pl.Array(*target.shape, device, seed=3, mapping=mapping, io=IOConfig.perfect())
    made.program(target)
    return made


def lost(made: pl.Array, target: Tensor, scale: float) -> float:
    """Part of the norm that the bounds of an array cut at a scale."""
    held = made.crosspoints.clipped(target / scale).double() * scale
    return float((held - target).norm() / target.double().norm())


def test_weights_that_fit_keep_their_bits() -> None:
    target = normals(0.05)
    made, plain = array("soft_bounds", target), array("soft_bounds", target, Mapping())
    assert made.out_scale == 1.0
    assert torch.equal(made.weight, plain.weight)


@pytest.mark.parametrize("scale", [0.5, 1.0, 30.0])
@pytest.mark.parametrize("device", ["soft_bounds", "reram_es", "ecram", "reram_array_om"])
def test_the_smallest_scale_of_its_grid(device: str, scale: float) -> None:
    target = normals(scale)
    made = array(device, target)
    lo, hi = made.bounds
    target = torch.where(torch.where(target < 0, -lo, hi) > 0, target, 0.0)  # can take the sign
    assert made.out_scale == 2 ** (round(8 * torch.tensor(made.out_scale).log2().item()) / 8)
    # What counts is compared in float64 there and cut in float32 here: 2^-24 of the norm.
    assert lost(made, target, made.out_scale) <= FITTING_LOSS + 1e-6
    assert lost(made, target, made.out_scale * 2**-0.125) > FITTING_LOSS - 1e-6


def test_an_ideal_device_needs_no_scale() -> None:
    target = normals(1e3)
    made = array("ideal", target)
    assert made.out_scale == 1.0
    assert torch.equal(made.weight, target)


@pytest.mark.parametrize("part", [0.3, 1.0])
def test_what_is_stuck_does_not_count(part: float) -> None:
    """No scale brings a stuck crosspoint its weight; with all of them stuck there is none."""
    device = SoftBounds(corrupt_devices_prob=part, w_max_dtod=0.0, w_min_dtod=0.0)
    target = normals(0.1)
    assert array(device, target).out_scale == 1.0
    zero = array(device, torch.zeros(ROWS, COLS))
    assert zero.out_scale == 1.0


def test_reads_and_updates_are_in_units_of_the_layer() -> None:
    target = normals(1.0)
    made = array("soft_bounds", target)
    x = torch.linspace(-1, 1, COLS).repeat(2, 1)
    assert made.out_scale > 1.0
    # 30 products of weights below 4: 32 eps times the sum of magnitudes, below 30 x 4
    y = x @ made.effective_weight().T
    torch.testing.assert_close(made.read(x), y, rtol=0.0, atol=32 * 120 * 2**-24)


def test_a_state_holds_scale_and_setting() -> None:
    target = normals(1.0)
    made, other = array("soft_bounds", target), array("soft_bounds", normals(0.05))
    other.load_state(copy.deepcopy(made.state()))
    assert other.out_scale == made.out_scale
    with pytest.raises(ConfigError, match=r"omega .*'auto'.* 0\.0"):
        array("soft_bounds", target, Mapping()).load_state(made.state())


def test_a_pretrained_network_survives() -> None:
    """Digits: perfect reads lose at most .01 of the digital accuracy; unscaled, twice that."""
    datasets = pytest.importorskip("sklearn.datasets")
    images, labels = datasets.load_digits(return_X_y=True)
    x, y = torch.tensor(images / 16, dtype=torch.float32), torch.tensor(labels)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 10))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.03)
    for _ in range(300):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x[:1500]), y[:1500]).backward()
        optimizer.step()

    def accuracy(net: nn.Module) -> float:
        return (net.eval()(x[1500:]).argmax(1) == y[1500:]).float().mean().item()

    digital, worst = accuracy(model), {}
    assert digital > 0.88
    for omega in (0.0, "auto"):
        mapping = Mapping(omega=omega)  # type: ignore[arg-type]
        analog = [
            to_analog(model, "soft_bounds", seed=s, io=IOConfig.perfect(), mapping=mapping)
            for s in range(8)
        ]
        worst[omega] = max(abs(digital - accuracy(net)) for net in analog)
        for one in conversion(analog[0]).layers:
            assert (one.clipping.lost > FITTING_LOSS + 1e-6) == (omega == 0.0)
    assert worst["auto"] <= 0.01
    assert worst[0.0] > 0.02

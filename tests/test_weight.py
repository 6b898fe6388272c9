"""A layer answers for its weight: what is written is programmed, settings are not assigned.

Idioms of torch with a digital twin are in ``test_torch_idioms.py``; these have none.
"""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import pulseline as pl
from pulseline.configs import IOConfig, Mapping
from tiki_taka import TikiTaka

NOISY = pl.devices.SoftBounds(w_max=0.6, w_min=-0.6, write_noise_std=5.0)


def layer(device: Any = NOISY, **settings: Any) -> pl.nn.AnalogLinear:
    return pl.nn.AnalogLinear(7, 5, device=device, seed=3, **settings)


def numbers(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def _under_no_grad(one: pl.nn.AnalogLinear, value: Tensor) -> None:
    one.weight.copy_(value)


def _assign_data(one: pl.nn.AnalogLinear, value: Tensor) -> None:
    one.weight.data = value


WRITES: dict[str, Callable[[pl.nn.AnalogLinear, Tensor], Any]] = {
    "copy_": _under_no_grad,
    "data.copy_": lambda one, value: one.weight.data.copy_(value),
    "data": _assign_data,
    "detach.copy_": lambda one, value: one.weight.detach().copy_(value),
    "lerp_": lambda one, value: one.weight.data.lerp_(value, 1.0),
    "vector": lambda one, value: nn.utils.vector_to_parameters(value.reshape(-1), [one.weight]),
}


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("omega", [0.0, 0.5])
def test_a_write_is_programming(write: str, omega: float) -> None:
    """The bits of ``program``: within bounds, in the hidden state, and lasting."""
    one, other = (layer(mapping=Mapping(omega=omega)) for _ in range(2))
    value = 2 * numbers(5, 7)  # outside the bounds
    WRITES[write](one, value)
    other.cell.program(value)
    lo, hi = other.cell.bounds
    assert (other.cell.array.pulsed == lo).any() or omega
    x, d = numbers(3, 7), numbers(3, 5)
    for n in range(3):
        assert torch.equal(one(x), other(x)), n
        assert torch.equal(one.cell.array.pulsed, other.cell.array.pulsed)
        assert torch.equal(one.cell.array.held, other.cell.array.held)
        for each in (one, other):
            each.cell.update(x, d, 0.01)
    assert ((one.cell.array.pulsed >= lo) & (one.cell.array.pulsed <= hi)).all()


def test_parts_can_be_written() -> None:
    device = pl.devices.SoftBounds()
    one, other, value = layer(device), layer(device), 2 * numbers(5, 7)
    for n, row in enumerate(value):
        one.weight.data[n].copy_(row)
        one(torch.ones(1, 7))
        other(torch.ones(1, 7))
    other.cell.program(value)
    assert torch.equal(one.cell.array.held, other.cell.array.held)


def test_a_write_before_anything_else_touches_the_array() -> None:
    """Whatever is called first sees the programmed weights."""
    touches: list[Callable[[pl.nn.AnalogLinear], Any]] = [
        lambda one: one.cell.array.pulsed.clone(),
        lambda one: one.cell.effective_weight(),
        lambda one: one.weight.max(),
        lambda one: one.state_dict()["cell.arrays.0.weight"].clone(),
        lambda one: copy.deepcopy(one).cell.array.held.max(),
        lambda one: one.cell.evaluate(torch.ones(1, 7)),
        lambda one: one.cell.update(torch.zeros(1, 7), torch.zeros(1, 5), 0.1),
    ]
    want = layer(pl.devices.SoftBounds())
    want.cell.program(torch.full((5, 7), 5.0))
    for n, touch in enumerate(touches):
        one = layer(pl.devices.SoftBounds())
        one.weight.data.fill_(5.0)
        touch(one)
        assert torch.equal(one.cell.array.held, want.cell.array.held), n


def test_a_written_nan_is_refused_until_it_is_gone() -> None:
    one = layer()
    before = one.cell.array.held.clone()
    one.weight.data.fill_(float("nan"))
    for _ in range(2):
        with pytest.raises(pl.ConfigError, match="NaN"):
            one(torch.ones(1, 7))
    one.cell.program(before)
    assert torch.isfinite(one(torch.ones(1, 7))).all()


def test_an_optimizer_that_writes_into_data_is_noticed() -> None:
    """At the latest by the zero_grad behind its step; the layer then works."""
    one = layer()
    one(torch.ones(2, 7)).sum().backward()
    one.weight.data.add_(torch.sign(one.weight.grad), alpha=-0.01)
    with pytest.raises(pl.ConfigError, match=r"matrix 0 .*AnalogSGD"):
        one.zero_grad()
    one.zero_grad()
    lo, hi = one.cell.bounds
    one(torch.ones(2, 7))
    assert ((one.cell.array.pulsed >= lo) & (one.cell.array.pulsed <= hi)).all()


SETTINGS = ("io", "device", "mapping", "update_config", "seed", "tile_id", "crossbar")


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_cannot_be_assigned(name: str) -> None:
    one = layer()
    for owner in (one, one.cell, one.cell.array):
        before = getattr(owner, name)
        with pytest.raises(pl.ConfigError, match=f"^{name} of {type(owner).__name__} is assigned"):
            setattr(owner, name, copy.deepcopy(before))
        assert getattr(owner, name) is before
    assert one.seed == one.cell.seed == 3
    assert one.device is NOISY


def test_a_weight_has_the_units_of_its_layer() -> None:
    scaled = layer(pl.devices.Ideal(), io=IOConfig.perfect(), mapping=Mapping(omega=0.25))
    value = numbers(5, 7)
    scaled.cell.program(value)
    # One division and one product, each rounded once.
    torch.testing.assert_close(scaled.weight.detach() + 0, value, rtol=2**-22, atol=0.0)
    assert abs(float(scaled.cell.array.held.abs().max()) - 0.25) <= 2**-24
    copies = copy.deepcopy(scaled.weight.data), pickle.loads(pickle.dumps(scaled.weight.data))
    for copied in copies:
        assert type(copied) is Tensor
        assert torch.equal(copied, scaled.cell.effective_weight())
    assert torch.equal(scaled.state_dict()["cell.arrays.0.weight"], scaled.cell.array.held)


def test_encoder_layers_do_not_take_torchs_fused_path() -> None:
    """In evaluation torch would multiply by the weights itself, without reads."""
    torch.manual_seed(0)
    digital = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True).eval()
    model = pl.to_analog(digital, pl.devices.SoftBounds(), seed=0).eval()
    with torch.no_grad():
        model(torch.randn(2, 5, 8))
    for part in (model.linear1, model.linear2):
        assert int(part.cell.array.counts().evaluation) == 10


def test_arrays_of_a_cell_are_in_one_group() -> None:
    one = layer(pl.devices.SoftBounds(), algorithm=TikiTaka)
    first, second = (array.weight for array in one.cell.arrays)
    with pytest.raises(pl.ConfigError, match="group 1 holds an array behind the first of matrix 0"):
        pl.optim.AnalogSGD([{"params": [first]}, {"params": [second], "lr": 0.5}])
    optimizer = pl.optim.AnalogSGD([first, second], lr=0.1)
    one(torch.ones(2, 7)).sum().backward()
    assert first.grad is not None
    assert second.grad is None
    optimizer.step()
    assert one.cell.samples == 2  # once, not once for every array


def test_many_pending_passes_are_said_once() -> None:
    one = pl.nn.AnalogLinear(1, 1, device=pl.devices.Ideal(), io=IOConfig.perfect())

    def backward(times: int) -> None:
        for _ in range(times):
            one(torch.ones(1, 1)).sum().backward()

    with pytest.warns(RuntimeWarning, match="1000 backward passes are pending"):
        backward(1000)
    backward(100)  # a second warning would be an error


def test_an_analog_state_is_none_of_the_digital_twin() -> None:
    digital = nn.Sequential(nn.Linear(7, 5))
    analog = pl.to_analog(digital, pl.devices.SoftBounds(), seed=0, mapping=Mapping(omega=0.3))
    before = copy.deepcopy(digital.state_dict())
    with pytest.raises(RuntimeError, match="Missing key"):  # torch's own, about names
        digital.load_state_dict(analog.state_dict())
    for name, t in before.items():
        assert torch.equal(digital.state_dict()[name], t)


def test_a_pending_gradient_reads_as_its_matrix() -> None:
    one = layer(pl.devices.Ideal(), io=IOConfig.perfect())
    x, d = numbers(3, 7), numbers(3, 5)
    one(x).backward(d)
    g = one.weight.grad
    assert g is not None
    assert torch.equal(g + 0, d.T @ x)
    assert "1 pending pairs" in repr(g)
    kept, (pair,) = copy.deepcopy(g), one.cell.pending
    g.mul_(0.5)
    assert torch.equal(one.cell.pending[0][1], 0.5 * d)
    assert torch.equal(pair[1], d)  # whoever holds the errors keeps them
    one.zero_grad()
    assert one.weight.grad is None
    assert torch.equal(kept + 0, d.T @ x)

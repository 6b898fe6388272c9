"""AnalogLinear and to_analog: autograd without a stash, modes, conversion, state_dict."""

from __future__ import annotations

import copy
import io as bytesio
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import pulseline as pl
from pulseline.configs import IOConfig, Mapping
from pulseline.devices import ConstantStep, Ideal, SoftBounds
from pulseline.digest import digest
from pulseline.nn import AnalogLinear, to_analog
from pulseline.optim import AnalogSGD

PERFECT = IOConfig.perfect()


def normals(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def network(seed: int | None = 0, **options: Any) -> nn.Sequential:
    """Two tiles, biases and digital layers, as to_analog makes them."""
    digital = nn.Sequential(nn.Linear(7, 6), nn.LayerNorm(6), nn.Tanh(), nn.Linear(6, 3))
    for i, p in enumerate(digital.parameters()):
        p.data = 0.4 * normals(*p.shape, seed=i)
    model = to_analog(digital, seed=seed, **options)
    assert isinstance(model, nn.Sequential)
    return model


def train(model: nn.Module, steps: int, seed: int, lr: float = 0.1) -> None:
    optimizer = AnalogSGD(model.parameters(), lr=lr)
    x, y = normals(steps, 4, 7, seed=seed), normals(steps, 4, 3, seed=seed + 1)
    for inputs, targets in zip(x, y, strict=True):
        optimizer.zero_grad()
        nn.functional.mse_loss(model(inputs), targets).backward()
        optimizer.step()


# ---- autograd ----


def test_forward_backward_and_pending() -> None:
    layer = AnalogLinear(7, 5, io=PERFECT)
    layer.bias.data.copy_(normals(5, seed=1))
    x = normals(3, 7).requires_grad_()
    d = normals(3, 5, seed=2)
    y = layer(x)
    y.backward(d)
    w = layer.weight.data.double()
    # Sums of 7 and 5 products: error below 8 eps times the sum of magnitudes (here < 16).
    close = {"rtol": 0.0, "atol": 8 * 16 * 2**-24}
    torch.testing.assert_close(y.double(), x.double() @ w.T + layer.bias.double(), **close)
    torch.testing.assert_close(x.grad.double(), d.double() @ w, **close)
    torch.testing.assert_close(layer.bias.grad, d.sum(0))
    torch.testing.assert_close(layer.weight.grad.clone().dense(), d.T @ x)
    ((kept_x, kept_d),) = layer.cell.pending
    assert torch.equal(kept_x, x)
    assert torch.equal(kept_d, d)


def test_pending_pairs_hold_no_graph() -> None:
    model = network()
    model(normals(2, 7)).sum().backward()
    for layer in (model[0], model[3]):
        for x, d in layer.cell.pending:
            assert x.grad_fn is None
            assert d.grad_fn is None


def test_backward_reads_the_weights_of_its_own_moment() -> None:
    """An update between F and B: no stash, no version error; B sees the new weights."""
    layer = AnalogLinear(7, 5, seed=3)
    x = normals(3, 7).requires_grad_()
    d = normals(3, 5, seed=1)
    y = layer(x)
    old = copy.deepcopy(layer.cell.array)
    layer.cell.array.pulse(normals(4, 7, seed=2), normals(4, 5, seed=3), 0.1)
    new = copy.deepcopy(layer.cell.array)
    y.backward(d)
    assert torch.equal(x.grad, new.read(d, True))
    assert not torch.equal(x.grad, old.read(d, True))


def test_step_between_forward_and_backward_with_digital_layers() -> None:
    """LayerNorm saves its weight for backward; AnalogSGD moves it unseen by autograd."""
    model = network()
    optimizer = AnalogSGD(model.parameters(), lr=0.1)
    first, second = model(normals(2, 7)), model(normals(2, 7, seed=1))
    first.sum().backward()
    optimizer.step()
    optimizer.zero_grad()
    second.sum().backward()
    optimizer.step()
    assert model[0].cell.array.counts().update == 4


def test_pairs_accumulate_in_the_order_of_backward() -> None:
    layer = AnalogLinear(7, 5)
    a, b = layer(normals(2, 7, seed=1)), layer(normals(3, 7, seed=2))
    b.sum().backward()
    a.sum().backward()
    assert [len(x) for x, _ in layer.cell.pending] == [3, 2]


def test_frozen_weights_leave_nothing_pending() -> None:
    layer = AnalogLinear(7, 5)
    layer.weight.requires_grad_(False)
    x = normals(3, 7).requires_grad_()
    layer(x).sum().backward()
    assert x.grad is not None
    assert not layer.cell.pending


def test_no_grad_in_training_mode_is_a_training_read() -> None:
    a, b = AnalogLinear(7, 5, seed=0), AnalogLinear(7, 5, seed=0)
    with torch.no_grad():
        quiet = a(normals(3, 7))
    assert torch.equal(quiet, b(normals(3, 7)))
    assert a.cell.array.counts().forward == 3


@pytest.mark.parametrize("lead", [(), (1,), (4,), (2, 3), (2, 1, 2), (0,), (0, 3), (3, 0)])
def test_leading_dimensions(lead: tuple[int, ...]) -> None:
    count = torch.Size(lead).numel()
    flat, shaped = AnalogLinear(7, 5, seed=1), AnalogLinear(7, 5, seed=1)
    x = normals(count, 7)
    y = shaped(x.reshape(*lead, 7))
    assert y.shape == (*lead, 5)
    assert torch.equal(y.reshape(count, 5), flat(x))
    y.sum().backward()
    assert [tuple(p.shape) for p in shaped.cell.pending[0]] == [(count, 7), (count, 5)]


def test_not_contiguous_input() -> None:
    a, b = AnalogLinear(7, 5, seed=0), AnalogLinear(7, 5, seed=0)
    x = normals(7, 3).T
    assert torch.equal(a(x), b(x.contiguous()))


# ---- modes ----


def test_evaluation_is_reproducible_and_independent_of_batches() -> None:
    model = network()
    train(model, 2, seed=0)
    x = normals(6, 7)
    before = digest(model.state_dict())
    model.eval()
    y = model(x).detach()
    y.requires_grad_()
    assert not torch.equal(model(x), y)
    for cuts in ((6,), (1, 5), (2, 2, 2)):
        model.eval()
        with torch.no_grad():
            assert torch.equal(torch.cat([model(part) for part in x.split(cuts)]), y)
    left = len(model[0].cell.pending)
    model(x).sum().backward()  # as in torch: eval() changes reads, not what is trained
    assert len(model[0].cell.pending) == left + 1
    assert digest(model.state_dict()) == before


def test_evaluation_does_not_change_training() -> None:
    quiet, watched = network(), network()
    train(quiet, 2, seed=0)
    train(quiet, 2, seed=5)
    train(watched, 2, seed=0)
    watched.eval()
    watched(normals(9, 7))
    watched.train()
    train(watched, 2, seed=5)
    assert digest(watched.state_dict()) == digest(quiet.state_dict())


# ---- conversion ----


class Nested(nn.Module):
    """Registered out of calling order, one module used twice, one list."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(4, 2, bias=False)
        self.shared = nn.Linear(4, 4)
        self.blocks = nn.ModuleList([nn.Sequential(nn.Linear(4, 4), self.shared) for _ in range(2)])

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = torch.tanh(block(x))
        y: Tensor = self.last(x)
        return y


def test_tile_ids_follow_the_order_of_parameters() -> None:
    digital = Nested()
    analog = to_analog(digital, device=Ideal(), io=PERFECT)
    assert isinstance(analog, Nested)
    ids = {
        name: m.cell.identity.tile_id for name, m in analog.named_modules() if hasattr(m, "cell")
    }
    assert ids == {"last": 0, "shared": 1, "blocks.0.0": 2, "blocks.1.0": 3}
    assert analog.blocks[0][1] is analog.shared is analog.blocks[1][1]
    assert analog.last.bias is None
    assert torch.equal(analog.shared.bias, digital.shared.bias)
    assert isinstance(digital.last, nn.Linear)  # the original stays as it was
    x = normals(3, 4)
    # Depth 5, sums of 4: well within 1e-5 of values of order 1.
    torch.testing.assert_close(analog(x), digital(x), rtol=0.0, atol=1e-5)
    analog(x).sum().backward()
    assert [len(m.cell.pending) for m in (analog.last, analog.shared)] == [1, 2]


def test_conversion_copies_all_but_the_linear_layers() -> None:
    digital = nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3), nn.Linear(3, 3).eval())
    analog = to_analog(digital)
    assert analog[1] is not digital[1]
    assert torch.equal(analog[1].weight, digital[1].weight)
    assert [m.training for m in analog] == [True, True, False]


def test_root_may_be_the_layer() -> None:
    layer = nn.Linear(4, 3)
    analog = to_analog(layer, seed=5)
    assert isinstance(analog, AnalogLinear)
    assert (analog.cell.identity.seed, analog.cell.identity.tile_id) == (5, 0)


def test_weights_are_clipped_into_bounds() -> None:
    layer = nn.Linear(30, 20)
    layer.weight.data = normals(20, 30)
    analog = to_analog(layer, device=SoftBounds(w_max=0.5, w_min=-0.5))
    lo, hi = analog.cell.array.bounds
    assert torch.equal(analog.weight.data, layer.weight.data.clamp(lo, hi))
    assert (analog.weight.data == hi).any()


def test_omega_of_a_converted_model() -> None:
    layer = nn.Linear(30, 20, bias=False)
    layer.weight.data = 3 * normals(20, 30)
    device = ConstantStep(w_max=1.0, w_min=-1.0, w_max_dtod=0.0, w_min_dtod=0.0)
    analog = to_analog(layer, device=device, io=PERFECT, mapping=Mapping(omega=0.9))
    assert float(analog.cell.array.held.abs().max()) <= 0.9 * (1 + 2**-23)
    x = normals(4, 30)
    # 30 products: 32 eps times the sum of magnitudes, below 30 * 12 * 4.
    torch.testing.assert_close(analog(x), layer(x), rtol=0.0, atol=32 * 1440 * 2**-24)


def test_layers_that_own_a_linear_subclass_stay_digital() -> None:
    """Their owner multiplies by the weight itself and would bypass a tile."""

    class Own(nn.MultiheadAttention):
        pass

    model = nn.ModuleList([Own(4, 2), nn.Linear(4, 4)])
    analog = to_analog(model)
    assert not any(isinstance(m, AnalogLinear) for m in analog[0].modules())
    assert analog[1].cell.identity.tile_id == 4  # behind q, k, v and out_proj


def test_devices_do_not_depend_on_the_rest_of_the_model() -> None:
    """A cut model has the devices of the whole one: they follow (seed, tile_id) alone."""
    whole = to_analog(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2)), seed=3)
    alone = pl.Array(2, 4, seed=3, tile_id=1)
    for name in ("step", "slope", "bound"):
        assert torch.equal(*(getattr(a.crosspoints, name) for a in (whole[1].cell.array, alone)))


# ---- copies ----


def test_deepcopy_gives_independent_tiles() -> None:
    model = network()
    train(model, 2, seed=0)
    model(normals(2, 7)).sum().backward()
    copied = copy.deepcopy(model)
    before = digest(model.state_dict())
    train(copied, 2, seed=3)
    assert digest(model.state_dict()) == before
    train(model, 2, seed=3)
    assert digest(model.state_dict()) == digest(copied.state_dict())
    for layer in (copied[0], copied[3]):
        assert layer.weight is layer.cell.array.weight
        assert layer.weight.cell is layer.cell


def whole_model(model: nn.Module) -> nn.Module:
    buffer = bytesio.BytesIO()
    torch.save(model, buffer)
    buffer.seek(0)
    loaded: nn.Module = torch.load(buffer, weights_only=False)
    return loaded


@pytest.mark.parametrize("clone", [copy.deepcopy, whole_model])
def test_a_copy_trains_like_its_original(clone: Callable[[nn.Module], nn.Module]) -> None:
    model = network()
    train(model, 2, seed=0)
    copied = clone(model)
    for m in (model, copied):
        train(m, 2, seed=3)
    assert digest(copied.state_dict()) == digest(model.state_dict())

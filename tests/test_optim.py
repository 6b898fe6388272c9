"""AnalogSGD: pending pairs, schedulers, groups, digital parameters; ideal tiles against torch.

Tolerances of the ideal tile with perfect reads, eps = 2^-24. Training is a sequence of products
and sums in float32, in another order than torch's; errors are against the same run in float64.

One linear layer, squared error, batch 1: W' = W - lr (W x - y) x^T. An error E of W becomes
E (1 - lr x x^T), which is no larger in norm while lr |x|^2 <= 2, plus what one step rounds off:
- W x: n products summed, at most n eps sum|w x| per output, plus eps |d| for the subtraction;
  it enters W times lr |x|;
- lr d, its product with x and the new W: 2 eps |lr d x| + eps |W|.
So after T steps |E| is at most the sum of these T terms, which the test adds up as it goes.

A tanh network: no closed bound; there its deviation from float64 is compared with that of torch's
own float32 run, the yardstick of what rounding does to this very training.
"""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import pulseline as pl
from pulseline.configs import IOConfig
from pulseline.devices import Ideal
from pulseline.digest import digest
from pulseline.errors import ConfigError
from pulseline.nn import AnalogLinear, to_analog
from pulseline.optim import AnalogSGD

EPS = 2.0**-24
PERFECT: dict[str, Any] = {"device": Ideal(), "io": IOConfig.perfect()}


def normals(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def network(**options: Any) -> nn.Sequential:
    model = nn.Sequential(
        AnalogLinear(7, 6, seed=1, tile_id=0, **options),
        nn.Tanh(),
        AnalogLinear(6, 3, bias=False, seed=1, tile_id=1, **options),
    )
    return model


def backward(model: nn.Module, seed: int, count: int = 4) -> None:
    y = model(normals(count, 7, seed=seed))
    nn.functional.mse_loss(y, normals(count, 3, seed=seed + 100)).backward()


# ---- ideal tiles train like nn.Linear ----


def test_ideal_layer_equals_linear_within_rounding() -> None:
    n, outputs, steps, lr = 12, 5, 200, 0.02
    x = normals(steps, n).clamp(-2, 2)  # lr |x|^2 <= .02 * 12 * 4 < 2
    target = normals(steps, outputs, seed=1)
    digital = nn.Linear(n, outputs, bias=False)
    digital.weight.data = normals(outputs, n, seed=2)
    analog = to_analog(digital, **PERFECT)
    optimizer = AnalogSGD(analog.parameters(), lr=lr)
    w = digital.weight.data.double()
    bound = 0.0
    for inputs, targets in zip(x, target, strict=True):
        optimizer.zero_grad()
        (analog(inputs[None]) - targets).square().sum().div(2).backward()
        optimizer.step()
        xd = inputs.double()
        d = w @ xd - targets.double()
        lr32 = float(torch.tensor(lr))  # the rate that the tile uses
        read = n * EPS * (w.abs() @ xd.abs()) + EPS * d.abs()
        w = w - lr32 * torch.outer(d, xd)
        rounding = 2 * EPS * lr32 * torch.outer(d, xd).abs() + EPS * w.abs()
        bound += float(lr * read.norm() * xd.norm() + rounding.norm())
    error = float((analog.weight.data.double() - w).norm())
    assert error <= 1.01 * bound  # second-order terms, EPS times the bound
    assert error > 0
    assert bound < 1e-3 * float(w.norm())  # the bound says something


def test_ideal_network_trains_as_closely_as_torch_float32() -> None:
    digital = nn.Sequential(
        nn.Linear(7, 12), nn.Tanh(), nn.Linear(12, 12), nn.Tanh(), nn.Linear(12, 3)
    )
    for i, p in enumerate(digital.parameters()):
        p.data = 0.4 * normals(*p.shape, seed=i)
    exact = copy.deepcopy(digital).double()
    analog = to_analog(digital, **PERFECT)
    runs: list[tuple[nn.Module, torch.optim.Optimizer, torch.dtype]] = [
        (digital, torch.optim.SGD(digital.parameters(), lr=0.1), torch.float32),
        (exact, torch.optim.SGD(exact.parameters(), lr=0.1), torch.float64),
        (analog, AnalogSGD(analog.parameters(), lr=0.1), torch.float32),
    ]
    for model, optimizer, dtype in runs:
        for step in range(50):
            x, y = normals(8, 7, seed=step).to(dtype), normals(8, 3, seed=1000 + step).to(dtype)
            optimizer.zero_grad()
            nn.functional.mse_loss(model(x), y).backward()
            optimizer.step()

    def deviation(model: nn.Module) -> float:
        held = (
            [t for m in net if not isinstance(m, nn.Tanh) for t in (m.weight, m.bias)]
            for net in (model, exact)
        )
        return max(float((a - b).detach().abs().max()) for a, b in zip(*held, strict=True))

    assert 0 < deviation(analog) <= 8 * deviation(digital)
    assert deviation(digital) < 1e-5


# ---- pending pairs ----


def test_two_pending_pairs_equal_their_concatenation() -> None:
    """Two micro-batches, then one step; against one backward over both with the same loss."""
    apart, together = network(), network()
    for model, size in ((apart, 2), (together, 4)):
        for x in normals(4, 7).split(size):
            (model(x) * 0.5).square().sum().backward()
        AnalogSGD(model.parameters(), lr=0.1).step()
    for a, b in ((apart[0], together[0]), (apart[2], together[2])):
        assert torch.equal(a.weight.data, b.weight.data)
        assert a.cell.array.counts().update == b.cell.array.counts().update == 4
    # The bias gradient sums 4 numbers in another order: 4 eps of values below 8.
    torch.testing.assert_close(apart[0].bias, together[0].bias, rtol=0.0, atol=4 * 8 * EPS)


def test_zero_grad_forgets_and_step_does_not() -> None:
    model = network()
    optimizer = AnalogSGD(model.parameters(), lr=0.1)
    before = model[0].weight.data.clone()
    backward(model, 1)
    optimizer.zero_grad()
    assert not model[0].cell.pending
    assert model[0].bias.grad is None
    optimizer.step()
    assert torch.equal(model[0].weight.data, before)
    backward(model, 2)
    optimizer.step()
    assert len(model[0].cell.pending) == 1
    assert not torch.equal(model[0].weight.data, before)


def test_zero_grad_without_set_to_none() -> None:
    model = network()
    optimizer = AnalogSGD(model.parameters(), lr=0.1)
    backward(model, 1)
    optimizer.zero_grad(set_to_none=False)
    assert not model[0].cell.pending
    assert torch.equal(model[0].bias.grad, torch.zeros(6))


def test_every_tile_gets_its_own_pair() -> None:
    """The step is Cell.update of what backward saw, on each tile."""
    model = network()
    by_hand = copy.deepcopy(model)
    for one in (model, by_hand):
        backward(one, 1)
    AnalogSGD(model.parameters(), lr=0.1).step()
    for layer, expected in ((model[0], by_hand[0]), (model[2], by_hand[2])):
        ((x, d),) = expected.cell.pending
        expected.cell.array.pulse(x, d, 0.1)
        assert torch.equal(layer.weight.data, expected.weight.data)


# ---- digital parameters ----


def test_digital_parameters_move_by_plain_sgd() -> None:
    model = nn.Sequential(nn.Linear(7, 5), nn.LayerNorm(5), nn.Linear(5, 3))
    twin = copy.deepcopy(model)
    ours = AnalogSGD(model.parameters(), lr=0.1)
    theirs = torch.optim.SGD(twin.parameters(), lr=0.1)
    for seed in range(3):
        for m, optimizer in ((model, ours), (twin, theirs)):
            optimizer.zero_grad()
            backward(m, seed)
            optimizer.step()
    for a, b in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.equal(a, b)


def test_digital_parameters_move_unseen_by_autograd() -> None:
    model = nn.Sequential(nn.LayerNorm(7), nn.Linear(7, 3))
    optimizer = AnalogSGD(model.parameters(), lr=0.1)
    backward(model, 0)
    versions = [p._version for p in model.parameters()]
    optimizer.step()
    assert [p._version for p in model.parameters()] == versions


def test_closure() -> None:
    model, twin = network(), network()
    optimizer = AnalogSGD(model.parameters(), lr=0.1)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss: Tensor = model(normals(2, 7)).square().sum()
        loss.backward()
        return loss

    loss = optimizer.step(closure)
    twin(normals(2, 7)).square().sum().backward()
    AnalogSGD(twin.parameters(), lr=0.1).step()
    assert loss is not None
    assert digest(model.state_dict()) == digest(twin.state_dict())


# ---- learning rates ----


def test_learning_rate_schedulers() -> None:
    scheduled, by_hand = network(), network()
    optimizer = AnalogSGD(scheduled.parameters(), lr=0.2)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, gamma=0.5)
    for step in range(4):
        for model in (scheduled, by_hand):
            backward(model, step)
        optimizer.step()
        optimizer.zero_grad()
        scheduler.step()
        AnalogSGD(by_hand.parameters(), lr=0.2 * 0.5**step).step()
        by_hand.zero_grad()
    assert optimizer.param_groups[0]["lr"] == 0.2 * 0.5**4
    assert digest(scheduled.state_dict()) == digest(by_hand.state_dict())


def test_parameter_groups_have_their_own_rates() -> None:
    grouped, by_hand = network(), network()
    groups = [
        {"params": [grouped[0].weight], "lr": 0.3},
        {"params": [grouped[0].bias], "lr": 0.0},
        {"params": grouped[2].parameters()},
    ]
    bias = grouped[0].bias.data.clone()
    backward(grouped, 0)
    AnalogSGD(groups, lr=0.1).step()
    backward(by_hand, 0)
    by_hand[0].cell.update_pending(0.3)
    by_hand[2].cell.update_pending(0.1)
    assert torch.equal(grouped[0].weight.data, by_hand[0].weight.data)
    assert torch.equal(grouped[2].weight.data, by_hand[2].weight.data)
    assert torch.equal(grouped[0].bias.data, bias)


def test_tensor_learning_rate() -> None:
    model, twin = network(), network()
    for m, lr in ((model, torch.tensor(0.25)), (twin, 0.25)):
        backward(m, 0)
        AnalogSGD(m.parameters(), lr=lr).step()  # type: ignore[arg-type]
    assert digest(model.state_dict()) == digest(twin.state_dict())


def test_optimizer_state_round_trip() -> None:
    optimizer = AnalogSGD(network().parameters(), lr=0.3)
    other = AnalogSGD(network().parameters(), lr=0.1)
    other.load_state_dict(optimizer.state_dict())
    assert other.param_groups[0]["lr"] == 0.3


# ---- refusals ----


@pytest.mark.parametrize("lr", [-0.1, float("nan"), float("inf"), 1e39, "fast", None])
def test_bad_learning_rate_moves_nothing(lr: Any) -> None:
    model = network()
    with pytest.raises(ConfigError, match="lr is"):
        AnalogSGD(model.parameters(), lr=lr)
    optimizer = AnalogSGD([{"params": [p]} for p in model.parameters()], lr=0.1)
    backward(model, 0)
    before = digest(model.state_dict())
    optimizer.param_groups[-1]["lr"] = lr
    with pytest.raises(ConfigError, match="lr is"):
        optimizer.step()
    assert digest(model.state_dict()) == before


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("first", [True, False])
def test_a_bad_error_is_refused_before_anything_is_pending(value: float, first: bool) -> None:
    """A pair that waits is finite, so that a step does not fail between two tiles."""
    layer = AnalogLinear(7, 6)
    x = normals(2, 7).requires_grad_(not first)
    d = torch.zeros(2, 6)
    d[1, 3] = value
    y = layer(x)
    before = digest(layer.state_dict())
    with pytest.raises(ConfigError, match=r"^d\b.*NaN or an infinity"):
        y.backward(d)
    assert not layer.cell.pending
    assert digest(layer.state_dict()) == before


def test_a_large_but_finite_error_is_taken() -> None:
    layer = AnalogLinear(2, 2, bias=False, **PERFECT)
    d = torch.full((1, 2), 3e38)  # its sum overflows
    layer(torch.ones(1, 2)).backward(d)
    assert len(layer.cell.pending) == 1


def test_a_refused_pair_leaves_the_tile_and_its_pairs() -> None:
    t = pl.nn.AnalogLinear(7, 5).cell
    before = t.weight.data.clone()
    bad = torch.full((1, 5), float("nan"))
    t.pending += [(normals(2, 7), normals(2, 5)), (normals(1, 7), bad)]
    with pytest.raises(ConfigError, match=r"d\[2\]"):
        t.update_pending(0.1)
    assert torch.equal(t.weight.data, before)
    assert len(t.pending) == 2
    assert t.array.counts().update == 0


@pytest.mark.parametrize("lr", [torch.tensor([0.1]), torch.tensor(0.1), 0.1])
def test_a_rate_of_any_kind_moves_everything_or_nothing(lr: object) -> None:
    """A tensor as torch's optimizers take one: the same step as the number it holds."""
    moved = []
    for rate in (lr, float(lr)):  # type: ignore[arg-type]
        layer = AnalogLinear(3, 2, device=Ideal(), io=IOConfig.perfect(), seed=1)
        optimizer = AnalogSGD(layer.parameters(), lr=0.1)
        optimizer.param_groups[0]["lr"] = rate
        layer(torch.ones(2, 3)).sum().backward()
        optimizer.step()
        assert layer.bias is not None
        moved.append((layer.cell.effective_weight(), layer.bias.detach().clone()))
    assert all(torch.equal(a, b) for a, b in zip(*moved, strict=True))


def test_errors_are_owned() -> None:
    """Who calls backward with a buffer of his own may use it again."""
    layer = AnalogLinear(3, 2, False, device=Ideal(), io=IOConfig.perfect(), seed=1)
    before = layer.cell.effective_weight()
    x, buffer = torch.ones(1, 3), torch.ones(1, 2)
    layer(x).backward(buffer)
    buffer.zero_()
    x.zero_()
    AnalogSGD(layer.parameters(), lr=0.5).step()
    assert torch.equal(before - layer.cell.effective_weight(), torch.full((2, 3), 0.5))

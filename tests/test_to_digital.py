"""to_digital, the inverse of to_analog; layers of other packages; stacked experts by a builder."""

from __future__ import annotations

import copy
import pickle
import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import pulseline as pl
from pulseline.errors import ConfigError
from pulseline.nn import AnalogLinear, conversion, register
from pulseline.nn.registry import _BUILDERS
from twin_modules import NOISY, ORACLE, numbers, same_as_torch


class Conv1D(nn.Module):
    """The linear layer of a language-model package: a weight of (inputs, outputs)."""

    def __init__(self, nf: int, nx: int) -> None:
        super().__init__()
        self.nf, self.nx = nf, nx
        self.weight = nn.Parameter(numbers(nx, nf) / 2)
        self.bias = nn.Parameter(numbers(nf, seed=1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.addmm(self.bias, x.view(-1, x.size(-1)), self.weight).view(*x.shape[:-1], -1)


class Net(nn.Module):
    """Every kind of layer that converts, a shared one, and some that do not."""

    def __init__(self) -> None:
        super().__init__()
        self.emb = nn.Embedding(9, 8)
        self.conv = nn.Conv1d(8, 6, 3, padding=1, dilation=1)
        self.back = nn.ConvTranspose1d(6, 8, 2, stride=2, output_padding=1)
        self.enc = nn.TransformerEncoderLayer(8, 2, 12, dropout=0.0, batch_first=True)
        self.lstm = nn.LSTM(8, 6, num_layers=2, bidirectional=True, batch_first=True)
        self.cell = nn.GRUCell(12, 8)
        self.mid = Conv1D(8, 8)
        shared = nn.Linear(8, 8)
        self.twice = nn.Sequential(shared, nn.Tanh(), shared)
        self.head = nn.Linear(8, 3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        drawn = self.back(self.conv(self.emb(x).mT)).mT
        y, _ = self.lstm(self.enc(drawn))
        out: Tensor = self.head(self.twice(self.mid(self.cell(y[:, -1]))))
        return out


TOKENS = torch.tensor([[1, 2, 3, 4], [5, 6, 7, 8]])


def net() -> Net:
    torch.manual_seed(0)
    return Net()


# ---- there and back ----


@pytest.mark.parametrize("inplace", [False, True])
def test_there_and_back_is_the_model(inplace: bool) -> None:
    """Ideal devices keep every bit: names, order and values of the state, classes, results."""
    model = net()
    model.cell.weight_hh.requires_grad_(False)
    model.lstm.eval()
    want, y = copy.deepcopy(model.state_dict()), model(TOKENS)
    grads = {name: p.requires_grad for name, p in model.named_parameters()}
    analog = pl.to_analog(model, ORACLE, seed=0)
    assert conversion(analog).left == ()
    kept = analog.state_dict()
    back = pl.to_digital(analog, inplace=inplace)
    assert (back is analog) == inplace
    assert not any(isinstance(m, pl.Cell) for m in back.modules())
    kinds = [(name, type(m)) for name, m in model.named_modules()]
    assert [(name, type(m)) for name, m in back.named_modules()] == kinds
    assert list(back.state_dict()) == list(want)
    for name, value in back.state_dict().items():
        assert torch.equal(value, want[name]), name
    assert {name: p.requires_grad for name, p in back.named_parameters()} == grads
    assert not back.lstm.training
    assert back.enc.training
    # torch's LSTM sums in an order of its own when its weights lie elsewhere: 30 roundings below 1
    torch.testing.assert_close(back(TOKENS), y, rtol=0, atol=30 * 2.0**-24)
    assert back.twice[0] is back.twice[2]
    for name in vars(model.lstm):
        assert name in vars(back.lstm)
    assert not any(key.startswith("_pulseline") for m in back.modules() for key in vars(m))
    assert not back._load_state_dict_pre_hooks
    pickle.dumps(back)
    again = pl.to_analog(back, ORACLE, seed=0)
    assert pl.digest(again.state_dict()) == pl.digest(kept)
    back.load_state_dict(want)


@pytest.mark.parametrize("kind", [nn.Conv2d, nn.ConvTranspose2d])
@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("wide", [1, 3])
def test_kernels_of_groups_come_back(kind: Any, groups: int, wide: int) -> None:
    """In torch's shape, whatever shape the array has; and into it again."""
    torch.manual_seed(0)
    given, other = (kind(4, 4 * wide, (3, 2), stride=2, groups=groups) for _ in range(2))
    analog = pl.to_analog(given, ORACLE, seed=0)
    back = pl.to_digital(analog)
    assert repr(back) == repr(given)
    assert torch.equal(back.weight, given.weight)
    analog.load_state_dict(other.state_dict())
    assert torch.equal(pl.to_digital(analog).weight, other.weight)


def test_weights_come_back_as_they_are_read() -> None:
    """Scaled, clipped, with write noise: what a perfect read multiplies by."""
    mapping = pl.configs.Mapping(omega="auto")
    device = pl.devices.SoftBounds(write_noise_std=1.0)
    perfect = pl.configs.IOConfig.perfect()
    layer = AnalogLinear(8, 5, device=device, io=perfect, mapping=mapping, seed=0)
    layer.cell.program(numbers(5, 8))
    assert layer.cell.array.out_scale > 1
    digital = pl.to_digital(layer)
    assert isinstance(digital, nn.Linear)
    assert torch.equal(digital.weight, layer.cell.effective_weight())
    x = numbers(4, 8)
    # sums of 8 products within 4 in another order, twice rounded by the scale: 16 roundings
    torch.testing.assert_close(layer(x), digital(x), rtol=0, atol=16 * 16 * 2.0**-24)
    layer(x).sum().backward()
    assert pl.to_digital(layer).weight.grad is None
    assert len(layer.cell.pending) == 1


def test_the_root_hooks_and_attributes() -> None:
    layer = nn.Linear(3, 3)
    layer.note = "kept"
    seen: list[str] = []
    layer.register_forward_hook(lambda m, *_: seen.append(type(m).__name__))
    analog = pl.to_analog(layer, "ideal")
    back = pl.to_digital(analog, inplace=True)
    back(torch.ones(1, 3))
    assert (back.note, seen) == ("kept", ["Linear"])
    plain = nn.Tanh()
    assert pl.to_digital(plain, inplace=True) is plain


def test_what_does_not_say_what_it_is_is_refused() -> None:
    class Own(AnalogLinear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + 1

    class Bare(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = AnalogLinear(2, 2).cell

    class Recurrent(pl.nn.AnalogLSTM):
        pass

    for odd in (Own(2, 2), Bare(), Recurrent(2, 2)):
        model = nn.Sequential(AnalogLinear(2, 2), odd)
        modules = list(model.modules())
        words = rf"layer '1' is a {type(odd).__name__}, which does not say what torch layer it is"
        with pytest.raises(ConfigError, match=words):
            pl.to_digital(model, inplace=True)
        assert list(model.modules()) == modules


def test_copies_are_the_same_devices() -> None:
    """deepcopy, pickle and a state: the same bits from then on."""
    model = pl.to_analog(net(), NOISY, seed=0)
    fresh = pl.to_analog(net(), NOISY)
    fresh.load_state_dict(model.state_dict())
    copies = [copy.deepcopy(model), pickle.loads(pickle.dumps(model)), fresh]
    for one in (model, *copies):
        optimizer = pl.optim.AnalogSGD(one.parameters(), lr=0.1)
        one(TOKENS).square().mean().backward()
        optimizer.step()
    for one in copies:
        assert pl.digest(one.state_dict()) == pl.digest(model.state_dict())
        assert list(one.state_dict()) == list(model.state_dict())


def test_transformer_layers_are_stages_of_a_pipeline() -> None:
    """Executors of one process agree on their bits."""
    digests = []
    for executor in ("sim", "threads"):
        torch.manual_seed(0)
        layer = nn.TransformerEncoderLayer(8, 2, 12, dropout=0.0, batch_first=True)
        stages = [nn.Linear(5, 8), layer, nn.Flatten(), nn.Linear(32, 3)]
        pipe = pl.Pipeline(
            pl.to_analog(nn.Sequential(*stages), NOISY, seed=0),
            stages=2,
            schedule="async",
            executor=executor,
            optimizer=lambda p: pl.optim.AnalogSGD(p, lr=0.1),
            loss=nn.functional.cross_entropy,
        )
        pipe.step(numbers(6, 4, 5), torch.tensor([0, 1, 2, 0, 1, 2]))
        pipe.drain()
        digests.append(pl.digest(pipe.state_dict()))
    assert digests[0] == digests[1]


# ---- states of the digital model ----


def test_a_digital_state_is_loaded_by_any_layer() -> None:
    other = net()
    with torch.no_grad():
        for p in other.parameters():
            p.mul_(0.5)
    state = other.state_dict()
    analog = pl.to_analog(net(), NOISY, seed=0)
    analog.load_state_dict(state)
    assert list(state) == list(other.state_dict())
    assert pl.digest(analog.state_dict()) == pl.digest(
        pl.to_analog(other, NOISY, seed=0).state_dict()
    )
    alone = pl.nn.AnalogLSTM(8, 6, num_layers=2, bidirectional=True, crossbar=ORACLE)
    alone.load_state_dict({k[5:]: v for k, v in state.items() if k.startswith("lstm.")})
    assert torch.equal(alone.hh_l1_reverse.cell.effective_weight(), other.lstm.weight_hh_l1_reverse)


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("enc.self_attn.in_proj_weight", lambda t: t[:5], r"holds enc\.self_attn\.in_proj_weight"),
        ("lstm.weight_ih_l0", lambda t: t * float("nan"), r"NaN or an infinity in lstm\.ih_l0"),
        ("conv.weight", lambda t: t.flatten(1), r"holds conv\.weight of shape \(6, 24\)"),
        ("mid.weight", lambda t: t[:3], r"holds mid\.weight of shape \(3, 8\)"),
        ("head.weight", None, "state lacks head"),
        ("lstm.weight_hh_l1", None, r"state lacks lstm\.hh_l1"),
    ],
)
def test_a_digital_state_that_does_not_fit_changes_nothing(
    name: str, change: Any, words: str
) -> None:
    analog, state = pl.to_analog(net(), NOISY, seed=0), net().state_dict()
    before = pl.digest(analog.state_dict())
    value = state.pop(name)
    if change is not None:
        state[name] = change(value)
    with pytest.raises(ConfigError, match=words):
        analog.load_state_dict(state)
    assert pl.digest(analog.state_dict()) == before


# ---- weights of (inputs, outputs) ----


def test_a_linear_layer_of_inputs_by_outputs() -> None:
    # 8 inputs: 8 products within 2, 16 roundings of sums within 8 and of a step behind them
    analog = same_as_torch(Conv1D(5, 8), (numbers(2, 3, 8),), atol=16 * 8 * 2.0**-24)
    assert isinstance(analog, AnalogLinear)
    assert (analog.nf, analog.cell.shape) == (5, (5, 8))
    (row,) = conversion(analog).layers
    assert (row.kind, row.shapes) == ("Conv1D", ((5, 8),))


def test_square_ones_are_reported_as_they_lie() -> None:
    """What bounds cut is counted on the matrix that was programmed, not on its transpose."""
    module = Conv1D(8, 8).requires_grad_(False)
    analog = pl.to_analog(module, pl.devices.SoftBounds(), seed=0)
    held = analog.cell.effective_weight()
    clip = conversion(analog).layers[0].clipping
    assert clip.share == int((held != module.weight.T).sum()) / 64
    assert clip.excess == float((held - module.weight.T).abs().max())


def test_what_only_looks_like_one_stays_digital() -> None:
    class Scaled(Conv1D):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * super().forward(x)

    Scaled.__name__ = "Conv1D"
    other = Conv1D(8, 8)
    other.nf = 7
    third = Conv1D(8, 8)
    third.extra = nn.Parameter(torch.ones(3))
    for odd in (Scaled(8, 8), other, third):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            made = pl.to_analog(nn.Sequential(nn.Linear(8, 8), odd), "ideal")
        assert type(made[1]) is type(odd)
        assert "nothing is registered" in conversion(made).layers[1].why


# ---- stacked experts ----


class Experts(nn.Module):
    """Linear experts in one parameter; every sample goes to one of them."""

    def __init__(self, experts: int, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(numbers(experts, inputs, outputs) / 2)

    def forward(self, x: Tensor, expert: Tensor) -> Tensor:
        return torch.einsum("bi,bio->bo", x, self.weight[expert])


class AnalogExperts(nn.Module):
    def __init__(self, experts: list[AnalogLinear]) -> None:
        super().__init__()
        self.experts = nn.ModuleList(experts)

    def forward(self, x: Tensor, expert: Tensor) -> Tensor:
        y = x.new_zeros(len(x), self.experts[0].out_features)
        for n, layer in enumerate(self.experts):
            (rows,) = torch.where(expert == n)
            y = y.index_add(0, rows, layer(x[rows]))
        return y

    def to_digital(self) -> Experts:
        weights = [layer.cell.effective_weight().T for layer in self.experts]
        made = Experts(len(weights), *weights[0].shape)
        made.weight.data.copy_(torch.stack(weights))
        return made


def build(
    module: Experts, crossbar: pl.Crossbar, identities: Mapping[str, pl.Identity]
) -> AnalogExperts:
    first, made = identities["weight"], []
    for n, weight in enumerate(module.weight.detach()):
        identity = replace(first, tile_id=first.tile_id + n)
        layer = AnalogLinear(*weight.shape, bias=False, crossbar=crossbar, seed=identity)
        layer.cell.program(weight.T)
        made.append(layer)
    return AnalogExperts(made)


def test_stacked_experts_are_one_array_each() -> None:
    model = nn.ModuleList([nn.Linear(4, 4), Experts(3, 4, 5), nn.Linear(5, 2)])
    register(Experts, build)
    try:
        analog: Any = pl.to_analog(model, ORACLE, seed=0)
        x, expert = numbers(6, 4), torch.tensor([2, 0, 0, 2, 0, 2])
        # 4 products within 4: 8 roundings of 16
        same_as_torch(model[1], (x, expert), atol=8 * 16 * 2.0**-24)
    finally:
        del _BUILDERS[Experts]
    ids = [m.identity.tile_id for m in analog.modules() if isinstance(m, pl.Cell)]
    assert ids == [0, 1, 2, 3, 4]
    assert [one.shapes for one in conversion(analog).layers][1] == ((5, 4),) * 3
    analog[1](x, expert)
    reads = [layer.cell.counts()[0].forward for layer in analog[1].experts]
    assert reads == [3, 0, 3]


# ---- a trained network ----


def test_digits_keep_their_accuracy_through_conversion() -> None:
    """A digital network, trained, on crossbars with perfect reads, and back: within a point."""
    from pulseline.data import load_digits
    from pulseline.models import mlp

    data, model = load_digits(), mlp(0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    torch.manual_seed(0)
    for _ in range(4):
        for rows in torch.randperm(len(data.x_train)).split(16):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(data.x_train[rows]), data.y_train[rows]).backward()
            optimizer.step()

    def accuracy(net: nn.Module) -> float:
        with torch.no_grad():
            return float((net.eval()(data.x_test).argmax(1) == data.y_test).float().mean())

    digital = accuracy(model)
    assert digital > 0.9
    perfect = pl.configs.IOConfig.perfect()
    for device in ("soft_bounds", "ecram", "exp_step"):  # those that write without noise
        mapping = pl.configs.Mapping(omega="auto")
        analog = pl.to_analog(model, device, io=perfect, mapping=mapping, seed=0)
        assert abs(accuracy(analog) - digital) <= 0.01
        assert abs(accuracy(pl.to_digital(analog)) - digital) <= 0.01

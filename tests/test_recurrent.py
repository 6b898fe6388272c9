"""Recurrent layers and cells: torch's numbers on the oracle, noise in every mode elsewhere.

Tolerance of the oracle. States are within 1 (LSTM cells within 6 steps: 6), inputs within 2,
weights within 1/2, sums have at most 12 products: each step rounds at most 40 numbers below 8, so
40 * 8 * 2^-24 < 2^-15.6 in a step, were all roundings to add up. They do not: their signs are
random, sqrt(40) of them count, 2^-18.2; a step hands on at most 1.5 times the difference before it
(4 hidden units of weights within 1/2, slopes below 1, forgetting), and the loss is a mean of
numbers in [-1, 1]. Two layers of 6 steps: below 2^-18.2 * sqrt(12) < 2^-16.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune
from torch.nn.utils.rnn import pack_padded_sequence, pack_sequence

import pulseline as pl
from pulseline.errors import ConfigError
from twin_modules import NOISY, ORACLE, floats, numbers, same_as_torch

LAYERS = (nn.RNN, nn.LSTM, nn.GRU)
CELLS = (nn.RNNCell, nn.LSTMCell, nn.GRUCell)
STEPS, BATCH, INPUTS, HIDDEN = 6, 3, 5, 4
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "no bias": {"bias": False},
    "two layers": {"num_layers": 2},
    "both directions": {"bidirectional": True},
    "batch first": {"batch_first": True, "num_layers": 2, "bidirectional": True},
    "dropout": {"num_layers": 3, "dropout": 0.4},
}


def made(kind: Any, **options: Any) -> Any:
    torch.manual_seed(1)
    return kind(INPUTS, HIDDEN, **options)


def state(module: Any, *batch: int) -> Any:
    """An initial state, not zero."""
    number = module.num_layers * (2 if module.bidirectional else 1)
    h = numbers(number, *batch, module.proj_size or HIDDEN, seed=3)
    return (h, numbers(number, *batch, HIDDEN, seed=4)) if isinstance(module, nn.LSTM) else h


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
@pytest.mark.parametrize("kind", LAYERS)
def test_sequences(kind: Any, options: dict[str, Any]) -> None:
    module = made(kind, **options)
    shape = (BATCH, STEPS) if options.get("batch_first") else (STEPS, BATCH)
    x = numbers(*shape, INPUTS)
    same_as_torch(module, (x,))
    same_as_torch(module, (x, state(module, BATCH)))
    if not options.get("dropout"):  # torch drops a sequence without batch in another order
        same_as_torch(module, (numbers(STEPS, INPUTS), state(module)))
    same_as_torch(module, (numbers(1, 1, INPUTS),))


@pytest.mark.parametrize("options", [{}, {"num_layers": 2, "bidirectional": True}])
@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("lengths", [[6, 4, 4], [2, 6, 1], [3, 3, 3]])
def test_packed_sequences(kind: Any, options: dict[str, Any], lengths: list[int]) -> None:
    module = made(kind, **options)
    x = numbers(STEPS, BATCH, INPUTS)
    packed = pack_padded_sequence(x, torch.tensor(lengths), enforce_sorted=False)
    same_as_torch(module, (packed, state(module, BATCH)))
    if lengths == sorted(lengths, reverse=True):
        packed = pack_sequence([x[:n, b] for b, n in enumerate(lengths)])
        same_as_torch(module, (packed,))


@pytest.mark.filterwarnings("ignore:LSTM with projections")
def test_projected_states() -> None:
    module = made(nn.LSTM, proj_size=2, num_layers=2, bidirectional=True)
    same_as_torch(module, (numbers(STEPS, BATCH, INPUTS), state(module, BATCH)))
    same_as_torch(module, (numbers(STEPS, INPUTS), state(module)))
    x = pack_padded_sequence(numbers(STEPS, BATCH, INPUTS), torch.tensor([6, 2, 1]))
    same_as_torch(module, (x,))


@pytest.mark.parametrize("nonlinearity", ["tanh", "relu"])
def test_nonlinearities(nonlinearity: str) -> None:
    same_as_torch(made(nn.RNN, nonlinearity=nonlinearity), (numbers(STEPS, BATCH, INPUTS),))
    same_as_torch(made(nn.RNNCell, nonlinearity=nonlinearity), (numbers(BATCH, INPUTS),))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", CELLS)
def test_cells(kind: Any, bias: bool) -> None:
    module = made(kind, bias=bias)
    for batch in ((BATCH,), ()):
        h = numbers(*batch, HIDDEN, seed=3)
        hx: Any = (h, numbers(*batch, HIDDEN, seed=4)) if kind is nn.LSTMCell else h
        same_as_torch(module, (numbers(*batch, INPUTS),))
        same_as_torch(module, (numbers(*batch, INPUTS), hx))


# ---- what is read, and when ----


@pytest.mark.parametrize("kind", LAYERS)
def test_inputs_are_one_read_and_states_one_a_step(kind: Any) -> None:
    analog = pl.to_analog(made(kind, bidirectional=True), NOISY, seed=0)
    calls: list[tuple[str, int]] = []
    for name in ("ih_l0", "hh_l0", "ih_l0_reverse", "hh_l0_reverse"):
        layer = analog.get_submodule(name)
        layer.register_forward_hook(lambda m, i, y, name=name: calls.append((name, len(y))))
    analog(numbers(STEPS, BATCH, INPUTS))
    want = []
    for end in ("", "_reverse"):
        want += [(f"ih_l0{end}", STEPS * BATCH), *[(f"hh_l0{end}", BATCH)] * STEPS]
    assert calls == want
    calls.clear()
    lengths = [6, 4, 1]
    analog(pack_padded_sequence(numbers(STEPS, BATCH, INPUTS), torch.tensor(lengths)))
    sizes = [sum(n > t for n in lengths) for t in range(STEPS)]
    want = [("ih_l0", sum(sizes)), *(("hh_l0", n) for n in sizes)]
    want += [("ih_l0_reverse", sum(sizes)), *(("hh_l0_reverse", n) for n in reversed(sizes))]
    assert calls == want


def test_updates_are_pulsed_from_the_last_step_to_the_first() -> None:
    """The pairs in the order in which a pass backward through time meets them."""
    analog = pl.to_analog(made(nn.RNN), ORACLE, seed=0)
    x = numbers(STEPS, BATCH, INPUTS)
    y, _ = analog(x)
    y.square().sum().backward()
    cell = analog.hh_l0.cell
    states = [torch.zeros(BATCH, HIDDEN), *y.detach().unbind(0)][:-1]
    got = [pair[0] for pair in cell.pending]
    assert len(got) == STEPS
    for one, other in zip(got, reversed(states), strict=True):
        assert torch.equal(one, other)
    (pair,) = analog.ih_l0.cell.pending
    assert torch.equal(pair[0], x.view(-1, INPUTS))


@pytest.mark.parametrize("kind", [*LAYERS, *CELLS])
def test_noise_in_every_mode(kind: Any) -> None:
    module = made(kind)
    analog = pl.to_analog(module, NOISY, seed=0)
    x = numbers(BATCH, INPUTS) if kind in CELLS else numbers(STEPS, BATCH, INPUTS)

    def differ(a: Any, b: Any) -> bool:
        pairs = zip(floats(a), floats(b), strict=True)
        return all(bool((one != other).any()) for one, other in pairs)

    first = analog(x)
    assert differ(first, module(x))
    assert differ(first, analog(x))  # new draws
    analog.eval()
    kept = analog(x)
    assert differ(kept, first)
    assert differ(kept, module(x))
    assert not differ(kept, analog.eval()(x))  # restarted
    with torch.no_grad():
        assert not differ(kept, analog.eval()(x))


# ---- torch's names ----


def test_weights_go_by_torchs_names() -> None:
    analog = pl.to_analog(made(nn.LSTM), ORACLE, seed=0)
    assert analog.weight_hh_l0 is analog.hh_l0.weight
    with torch.no_grad():
        nn.init.orthogonal_(analog.weight_hh_l0)
    gram = analog.hh_l0.cell.effective_weight().T @ analog.hh_l0.cell.effective_weight()
    # 16 products of numbers within 1, and the rounding of the decomposition, as much again
    torch.testing.assert_close(gram, torch.eye(HIDDEN), rtol=0, atol=32 * 2.0**-24)
    for change in (
        lambda: setattr(analog, "weight_hh_l0", nn.Parameter(torch.zeros(16, 4))),
        lambda: setattr(analog, "weight_hh_l0", torch.zeros(16, 4)),
        lambda: analog.register_parameter("weight_ih_l0", None),
        lambda: delattr(analog, "weight_ih_l0"),
        lambda: prune.l1_unstructured(analog, "weight_ih_l0", 0.5),
        lambda: parametrizations.weight_norm(analog, "weight_hh_l0"),
        lambda: torch.func.functional_call(
            analog, {"weight_hh_l0": torch.zeros(16, 4)}, (numbers(STEPS, INPUTS),)
        ),
    ):
        with pytest.raises(ConfigError, match=r"weight_.h_l0 of AnalogLSTM is on crossbars"):
            change()
    analog.flatten_parameters()
    assert "4" in repr(analog)
    assert not hasattr(analog, "weight_hh_l1")


@pytest.mark.parametrize("kind", [*LAYERS, *CELLS])
def test_made_directly(kind: Any) -> None:
    """Sizes and options as torch's, crossbar and seed as of any analog layer."""
    analog_kind = getattr(pl.nn, f"Analog{kind.__name__}")
    a = analog_kind(INPUTS, HIDDEN, bias=False, device="reram_es", seed=4, tile_id=7)
    ids = [m.identity.tile_id for m in a.modules() if isinstance(m, pl.Cell)]
    assert ids == [7, 8]
    assert {m.device.name for m in a.modules() if isinstance(m, pl.Cell)} == {"ExpStep"}
    with pytest.raises(ConfigError, match="seed is -1"):
        analog_kind(INPUTS, HIDDEN, seed=-1)
    with pytest.raises(TypeError, match="devise"):
        analog_kind(INPUTS, HIDDEN, devise="reram_es")
    before = pl.digest(a.state_dict())
    a.reset_parameters()
    assert pl.digest(a.state_dict()) != before
    digital = pl.to_digital(a)
    assert type(digital) is kind
    assert (digital.input_size, digital.hidden_size, digital.bias) == (INPUTS, HIDDEN, False)


BAD: dict[str, tuple[Any, str]] = {
    "features": (lambda m: m(numbers(6, 3, 4)), r"input has shape \(6, 3, 4\); use \(time, batch"),
    "dimensions": (lambda m: m(numbers(5)), r"input has shape \(5,\)"),
    "no steps": (lambda m: m(numbers(0, 3, 5)), "input has 0 time steps"),
    "state": (lambda m: m(numbers(6, 3, 5), numbers(1, 2, 4)), r"hx has shape .*use \(1, 3, 4\)"),
    "two states": (lambda m: m(numbers(6, 3, 5), (numbers(1, 3, 4),) * 2), "hx is tuple; use 1"),
    "no tensor": (lambda m: m([1.0]), "an argument is a list"),
    "nan": (lambda m: m(torch.full((6, 3, 5), float("nan"))), "holds a NaN"),
}


@pytest.mark.parametrize(("call", "words"), BAD.values(), ids=BAD.keys())
def test_bad_input_is_one_sentence(call: Any, words: str) -> None:
    analog = pl.to_analog(made(nn.GRU), ORACLE, seed=0)
    with pytest.raises(ConfigError, match=words) as error:
        call(analog)
    assert "\n" not in str(error.value)


def test_computed_and_shared_weights_are_refused() -> None:
    shared = made(nn.LSTM, num_layers=2)
    shared.weight_hh_l1 = shared.weight_hh_l0
    words = "weight_hh_l1 of the LSTM is no parameter of its own"
    with pytest.raises(ConfigError, match=words):
        pl.to_analog(shared)
    normed = nn.Sequential(made(nn.GRU))
    nn.utils.parametrizations.weight_norm(normed[0], "weight_hh_l0")
    with pytest.raises(ConfigError, match=r"weight_hh_l0 of layer 0|computed from others"):
        pl.to_analog(normed)

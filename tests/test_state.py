"""state_dict: a round trip continues bit for bit; what does not fit is refused, nothing changed."""

from __future__ import annotations

import io as bytesio
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pulseline.devices import ConstantStep, Ideal, SoftBounds
from pulseline.digest import digest
from pulseline.errors import ConfigError
from pulseline.io import IOConfig, Mapping, UpdateConfig
from pulseline.nn import AnalogLinear
from test_nn import network, normals, train

SETTINGS: dict[str, dict[str, Any]] = {
    "default": {},
    "constant": {"device": ConstantStep()},
    "ideal": {"device": Ideal(), "io": IOConfig.perfect()},
    "tiled": {"mapping": Mapping(tile_in=3, tile_out=2, omega=0.4)},
    "strict": {"update": UpdateConfig(fidelity="strict", desired_bl=7)},
}


def saved(model: nn.Module) -> dict[str, Tensor]:
    """The state as it comes back from a file, with nothing but tensors allowed."""
    buffer = bytesio.BytesIO()
    torch.save(model.state_dict(), buffer)
    buffer.seek(0)
    state: dict[str, Tensor] = torch.load(buffer, weights_only=True)
    return state


@pytest.mark.parametrize("assign", [False, True])
@pytest.mark.parametrize("options", SETTINGS.values(), ids=SETTINGS.keys())
def test_round_trip_continues_bit_for_bit(options: dict[str, Any], assign: bool) -> None:
    original = network(seed=1, **options)
    train(original, 4, seed=0)
    fresh = network(seed=2, **options)
    fresh.load_state_dict(saved(original), assign=assign)
    assert digest(fresh.state_dict()) == digest(original.state_dict())
    for model in (original, fresh):
        train(model, 4, seed=9)
    assert digest(fresh.state_dict()) == digest(original.state_dict())
    x = normals(5, 7)
    assert torch.equal(fresh.eval()(x), original.eval()(x))


def test_training_differs_without_the_counters() -> None:
    """The digest above is not blind: weights alone do not continue a run."""
    original, fresh = network(seed=1), network(seed=1)
    train(original, 4, seed=0)
    for mine, theirs in zip(fresh.parameters(), original.parameters(), strict=True):
        mine.data.copy_(theirs.data)
    for model in (original, fresh):
        train(model, 1, seed=9)
    assert not torch.equal(fresh[0].weight.data, original[0].weight.data)


def test_loading_forgets_pending_pairs() -> None:
    model = network()
    state = saved(model)
    model(normals(2, 7)).sum().backward()
    model.load_state_dict(state)
    assert not model[0].tile.pending


def test_loaded_weights_are_clipped() -> None:
    model = network()
    state = saved(model)
    state["0.weight"] = torch.full_like(state["0.weight"], 5.0)
    model.load_state_dict(state)
    assert torch.equal(model[0].weight.data, model[0].tile.bounds[1])


@pytest.mark.parametrize("options", [*SETTINGS.values()][1:], ids=[*SETTINGS][1:])
def test_another_configuration_is_refused(options: dict[str, Any]) -> None:
    model = network(**options)
    train(model, 1, seed=0)
    before = digest(model.state_dict())
    with pytest.raises(ConfigError, match="another device or io configuration"):
        model.load_state_dict(saved(network()))
    assert digest(model.state_dict()) == before


EXTRA = "3._extra_state"


def field(index: int, value: int) -> dict[str, Tensor]:
    extra = saved(network())[EXTRA]
    extra[index] = value
    return {EXTRA: extra}


NAN_BITS = torch.tensor(float("nan"), dtype=torch.float64).view(torch.int64).item()
DAMAGE: dict[str, tuple[dict[str, Any], str]] = {
    "truncated": ({EXTRA: torch.zeros(5, dtype=torch.int64)}, r"shape \(5,\)"),
    "not a state": ({EXTRA: torch.zeros(10)}, "no tile's state"),
    "a list": ({EXTRA: [1, 2]}, "list"),
    "no counters": ({EXTRA: None}, "3._extra_state"),
    "no weight": ({"3.weight": None}, "3.weight"),
    "wrong shape": ({"3.weight": torch.zeros(2, 2)}, r"3.weight.*\(2, 2\)"),
    "wrong bias": ({"3.bias": torch.zeros(2)}, r"3.bias.*\(2,\)"),
    "not finite": ({"3.weight": torch.full((3, 6), float("nan"))}, "3.weight"),
    "format": (field(0, 99), "format 99"),
    "numbering": (field(1, 99), "draw numbering 99"),
    "negative seed": (field(2, -5), "-5"),
    "negative id": (field(3, -5), "-5"),
    "large id": (field(3, 1 << 32), str(1 << 32)),
    "negative counter": (field(6, -7), "-7"),
    "no scale": (field(9, 0), "damaged"),
    "scale not a number": (field(9, int(NAN_BITS)), "damaged"),
}


@pytest.mark.parametrize(("changes", "message"), DAMAGE.values(), ids=DAMAGE.keys())
def test_damaged_state_is_refused_whole(changes: dict[str, Any], message: str) -> None:
    """The damage is in the last tile; the first keeps its weights too."""
    source = network(seed=1)
    train(source, 2, seed=0)
    state: dict[str, Any] = {**saved(source), **changes}
    model = network(seed=2)
    before = digest(model.state_dict())
    with pytest.raises(ConfigError, match=message) as error:
        model.load_state_dict({k: v for k, v in state.items() if v is not None})
    assert "\n" not in str(error.value)
    assert digest(model.state_dict()) == before


@pytest.mark.parametrize("strict", [True, False])
def test_a_digital_state_is_refused(strict: bool) -> None:
    """Its weights would miss the tile's scale; to_analog programs them."""
    digital = nn.Sequential(nn.Linear(7, 6), nn.LayerNorm(6), nn.Tanh(), nn.Linear(6, 3))
    model = network()
    before = digest(model.state_dict())
    with pytest.raises(ConfigError, match=r"0\._extra_state.*to_analog"):
        model.load_state_dict(digital.state_dict(), strict=strict)
    assert digest(model.state_dict()) == before


def test_a_shortened_state_is_refused() -> None:
    model = network()
    before = digest(model.state_dict())
    first = {k: v for k, v in saved(network(seed=3)).items() if k.startswith("0.")}
    with pytest.raises(ConfigError, match=r"3\.weight"):
        model.load_state_dict(first)
    assert digest(model.state_dict()) == before


def test_a_single_layer_is_loaded_whole_or_not_at_all() -> None:
    """A layer made by hand checks itself, inside any module."""
    source = AnalogLinear(7, 5, device=SoftBounds(dw_min=0.002), seed=3)
    layer = AnalogLinear(7, 5, seed=4)
    before = digest(layer.state_dict())
    with pytest.raises(ConfigError, match="another device"):
        nn.Sequential(layer).load_state_dict(saved(nn.Sequential(source)))
    assert digest(layer.state_dict()) == before

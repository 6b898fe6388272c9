"""state_dict: a round trip continues bit for bit; what does not fit is refused, nothing changed."""

from __future__ import annotations

import io as bytesio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

import pulseline as pl
from pulseline.arrays.state import check, pack
from pulseline.configs import IOConfig, Mapping, ReadConfig, UpdateConfig
from pulseline.devices import ConstantStep, Ideal, SoftBounds
from pulseline.digest import digest
from pulseline.errors import ConfigError
from pulseline.identity import Identity
from pulseline.nn import AnalogLinear
from test_nn import network, normals, train

SETTINGS: dict[str, dict[str, Any]] = {
    "default": {},
    "constant": {"device": ConstantStep()},
    "ideal": {"device": Ideal(), "io": IOConfig.perfect()},
    "tiled": {"mapping": Mapping(tile_in=3, tile_out=2, omega=0.4)},
    "strict": {"update": UpdateConfig(fidelity="strict", desired_bl=7)},
}


def saved(model: nn.Module) -> dict[str, Any]:
    """The state as it comes back from a file, with nothing but tensors and plain values allowed."""
    buffer = bytesio.BytesIO()
    torch.save(model.state_dict(), buffer)
    buffer.seek(0)
    state: dict[str, Any] = torch.load(buffer, weights_only=True)
    return state


@pytest.mark.parametrize("assign", [False, True])
@pytest.mark.parametrize("options", SETTINGS.values(), ids=SETTINGS.keys())
def test_round_trip_continues_bit_for_bit(options: dict[str, Any], assign: bool) -> None:
    original = network(seed=1, **options)
    train(original, 4, seed=0)
    fresh = network(seed=None, **options)
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


def test_loading_keeps_pending_pairs() -> None:
    """As torch keeps gradients: the next step applies them to the loaded weights."""
    model = network()
    state = saved(model)
    model(normals(2, 7)).sum().backward()
    model.load_state_dict(state)
    assert len(model[0].cell.pending) == 1


def test_loaded_weights_are_clipped() -> None:
    model = network()
    state = saved(model)
    state["0.cell.arrays.0.weight"] = torch.full_like(state["0.cell.arrays.0.weight"], 5.0)
    model.load_state_dict(state)
    assert torch.equal(model[0].weight.data, model[0].cell.array.bounds[1])


# What is refused, for a model of default settings that loads a state of these.
OTHER: dict[str, tuple[dict[str, Any], str]] = {
    "model": (SETTINGS["constant"], "device was saved as 'ConstantStep' and is 'SoftBounds' here"),
    "device": (
        {"device": SoftBounds(dw_min=0.002)},
        "device.dw_min was saved as 0.002 and is 0.001",
    ),
    "forward": (
        {"io": IOConfig(ReadConfig(out_noise=0.0))},
        "io.forward.out_noise was saved as 0.0 and is 0.06 here",
    ),
    "backward": (
        {"io": IOConfig(backward=ReadConfig(inp_res=0.0))},
        "io.backward.inp_res was saved as 0.0 and is 0.00793",
    ),
    "update": (
        {"update": UpdateConfig(desired_bl=7)},
        "update.desired_bl was saved as 7 and is 31 here",
    ),
    "tile sizes": (
        {"mapping": Mapping(tile_in=3)},
        "mapping.tile_in was saved as 3 and is 512 here",
    ),
    "seed": ({"seed": 1}, "seed was saved as 1 and is 0 here.*without seed="),
}


@pytest.mark.parametrize(("options", "message"), OTHER.values(), ids=OTHER.keys())
def test_another_configuration_is_refused_by_name(options: dict[str, Any], message: str) -> None:
    model = network()
    train(model, 1, seed=0)
    before = digest(model.state_dict())
    with pytest.raises(ConfigError, match=rf"^layer 0: {message}") as error:
        model.load_state_dict(saved(network(**options)))
    assert "\n" not in str(error.value)
    assert digest(model.state_dict()) == before


# ---- identities ----


def test_a_request_for_devices_is_kept_and_no_request_takes_over_the_saved_ones() -> None:
    source = AnalogLinear(7, 5, seed=3, tile_id=2)
    state = source.state_dict()
    for same in ({}, {"tile_id": 2}, {"seed": 3, "tile_id": 2}):
        layer = AnalogLinear(7, 5, **same)
        layer.load_state_dict(state)
        assert layer.cell.array.identity.key == source.cell.array.identity.key
        assert torch.equal(layer.cell.array.bounds[0], source.cell.array.bounds[0])
    for other, name in (({"seed": 3}, "tile_id"), ({"seed": 4, "tile_id": 2}, "seed")):
        with pytest.raises(ConfigError, match=f"layer: {name} was saved as"):
            AnalogLinear(7, 5, **other).load_state_dict(state)
    with pytest.raises(ConfigError, match="layer: tile_id was saved as 2 and is 1 here"):
        AnalogLinear(7, 5, tile_id=1).load_state_dict(state)


def test_an_array_of_another_number_is_refused() -> None:
    state = pl.Array(2, 3, seed=Identity(1, 2, array=1)).state()
    with pytest.raises(ConfigError, match="array: array was saved as 1 and is 0 here"):
        pl.Array(2, 3).load_state(state)
    tile = pl.Array(2, 3, seed=Identity(8, 8, array=1))  # nobody asked for this seed and id
    tile.load_state(state)
    assert tile.identity == Identity(1, 2, 1)


# ---- damage ----

EXTRA = "3.cell._extra_state"


def changed(*path: str, to: Any) -> Callable[[], dict[str, Any]]:
    """The last tile's state with one entry changed."""

    def make() -> dict[str, Any]:
        extra = saved(network(seed=None))[EXTRA]
        part = extra["arrays"][0]
        for name in path[:-1]:
            part = part[name]
        part[path[-1]] = to
        return {EXTRA: extra}

    return make


def cell(**entries: Any) -> Callable[[], dict[str, Any]]:
    """The last cell's state with entries changed."""
    return lambda: {EXTRA: {**saved(network(seed=None))[EXTRA], **entries}}


def just(name: str, value: Any) -> Callable[[], dict[str, Any]]:
    return lambda: {name: value}


DAMAGE: dict[str, tuple[Callable[[], dict[str, Any]], str]] = {
    "empty": (just(EXTRA, {}), "layer 3: a dict is no cell's state"),
    "a tensor": (just(EXTRA, torch.zeros(10)), "a Tensor is no cell's state"),
    "a list": (just(EXTRA, [1, 2]), "a list is no"),
    "no counters": (just(EXTRA, None), "3.cell._extra_state"),
    "no arrays": (cell(arrays=[]), "its state has 0 arrays and this cell 1"),
    "two arrays": (cell(arrays=[{}, {}]), "its state has 2 arrays and this cell 1"),
    "a bad array": (cell(arrays=[3]), "layer 3: a int is no array's state"),
    "other algorithm": (cell(algorithm="TikiTaka"), "algorithm was saved as 'TikiTaka' and is"),
    "other settings": (cell(settings={"every": 2}), "every was saved as 2 and is None"),
    "negative samples": (cell(samples=-1), "its state has samples = -1; it is damaged"),
    "no weight": (just("3.cell.arrays.0.weight", None), "3.cell.arrays.0.weight"),
    "wrong shape": (
        just("3.cell.arrays.0.weight", torch.zeros(2, 2)),
        r"3.cell.arrays.0.weight.*\(2, 2\)",
    ),
    "wrong bias": (just("3.bias", torch.zeros(2)), r"3.bias.*\(2,\)"),
    "not finite": (
        just("3.cell.arrays.0.weight", torch.full((3, 6), float("nan"))),
        "3.cell.arrays.0.weight",
    ),
    "format": (changed("format", to=99), "format 99"),
    "numbering": (changed("numbering", to=99), "draw numbering 99"),
    "rows": (changed("identity", "rows", to=4), "layer 3: rows was saved as 4 and is 3 here"),
    "cols": (changed("identity", "cols", to=7), "layer 3: cols was saved as 7 and is 6 here"),
    "negative seed": (changed("identity", "seed", to=-5), "seed is -5"),
    "large seed": (changed("identity", "seed", to=1 << 32), "seed is 4294967296"),
    "negative id": (changed("identity", "tile_id", to=-5), "tile_id is -5"),
    "large id": (changed("identity", "tile_id", to=1 << 24), "tile_id is 16777216"),
    "no identity": (changed("identity", to=None), "identity = None; it is damaged"),
    "no device": (changed("device", to=3), "device = 3; it is damaged"),
    "no settings": (changed("update", to={}), "update.desired_bl is not in the state"),
    "negative counter": (changed("counters", "update", to=-7), "counters.update = -7"),
    "fraction of a read": (changed("counters", "forward", to=1.5), "counters.forward = 1.5"),
    "no scale": (changed("out_scale", to=0.0), "out_scale = 0.0; it is damaged"),
    "scale not a number": (changed("out_scale", to=float("nan")), "out_scale = nan"),
    "averages": (changed("averages", to=[1.0]), r"averages = \[1.0\]"),
    "newer": (changed("algorithm", to={"name": "new"}), "algorithm = .*does not know"),
    "newer device": (changed("device", "leak", to=0.5), "3: device: its state has leak = 0.5"),
    "newer read": (changed("forward", "jitter", to=0), "io.forward: its state has jitter = 0"),
    "newer counter": (changed("counters", "column", to=0), "counters: its state has column"),
    "newer identity": (changed("identity", "die", to=0), "identity: its state has die = 0"),
    "tensor in a setting": (
        changed("device", "dw_min", to=torch.ones(2)),
        "device.dw_min was saved as tensor",
    ),
}


@pytest.mark.parametrize(("changes", "message"), DAMAGE.values(), ids=DAMAGE.keys())
def test_damaged_state_is_refused_whole(
    changes: Callable[[], dict[str, Any]], message: str
) -> None:
    """The damage is in the last tile; the first keeps its weights too."""
    source = network(seed=1)
    train(source, 2, seed=0)
    state: dict[str, Any] = {**saved(source), **changes()}
    model = network(seed=None)
    before = digest(model.state_dict())
    with pytest.raises(ConfigError, match=message) as error:
        model.load_state_dict({k: v for k, v in state.items() if v is not None})
    assert "\n" not in str(error.value)
    assert digest(model.state_dict()) == before


def test_counters_and_averages_that_a_state_lacks_have_not_begun() -> None:
    tile = pl.Array(2, 3)
    tile.read(torch.ones(4, 3))
    state = tile.state()
    assert state["counters"]["forward"] == 4
    del state["counters"]["forward"], state["averages"]
    tile.load_state(state)
    assert tile.state()["counters"]["forward"] == 0
    assert tile.averages.tolist() == [0.0, 0.0]


def test_checking_changes_nothing_and_gives_what_is_saved() -> None:
    tile = pl.Array(2, 3, seed=5, tile_id=6)
    own = tile.check_state(tile.state())
    older = replace(own, out_scale=2.5, counters={**own.counters, "update": 9})
    assert check(pack(older), own, "tile") == older
    assert tile.out_scale == 1.0


@pytest.mark.parametrize("mapping", [Mapping(), Mapping(omega=0.3)], ids=["plain", "omega"])
def test_a_digital_state_is_programmed(mapping: Mapping) -> None:
    """The model is what to_analog makes of that digital model: scale, clipping and counters."""
    digital = nn.Sequential(nn.Linear(7, 6), nn.LayerNorm(6), nn.Tanh(), nn.Linear(6, 3))
    model, want = network(mapping=mapping), pl.to_analog(digital, seed=0, mapping=mapping)
    for prefix in ("", "net."):
        state = {prefix + name: value for name, value in digital.state_dict().items()}
        (nn.ModuleDict({"net": model}) if prefix else model).load_state_dict(state)
        assert digest(model.state_dict()) == digest(want.state_dict())
        model.load_state_dict(network(mapping=mapping).state_dict())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: s.pop("3.bias"), r"state lacks 3\.bias"),
        (lambda s: s.update({"3.weight": torch.zeros(3, 5)}), r"holds 3\.weight of shape \(3, 5\)"),
        (lambda s: s["3.weight"].fill_(float("nan")), r"NaN or an infinity in 3\.weight"),
    ],
)
def test_a_digital_state_comes_whole_or_not_at_all(change: Any, words: str) -> None:
    digital = nn.Sequential(nn.Linear(7, 6), nn.LayerNorm(6), nn.Tanh(), nn.Linear(6, 3))
    model, state = network(), digital.state_dict()
    before = digest(model.state_dict())
    change(state)
    with pytest.raises(ConfigError, match=words):
        model.load_state_dict(state)
    assert digest(model.state_dict()) == before


def test_a_shortened_state_is_refused() -> None:
    model = network()
    before = digest(model.state_dict())
    first = {k: v for k, v in saved(network()).items() if k.startswith("0.")}
    with pytest.raises(ConfigError, match=r"state lacks 3\.bias"):
        model.load_state_dict(first)
    assert digest(model.state_dict()) == before


def test_a_single_layer_is_loaded_whole_or_not_at_all() -> None:
    """A layer made by hand checks itself, inside any module."""
    source = AnalogLinear(7, 5, device=SoftBounds(dw_min=0.002), seed=3)
    layer = AnalogLinear(7, 5)
    before = digest(layer.state_dict())
    with pytest.raises(ConfigError, match=r"layer 0: device\.dw_min was saved as 0\.002"):
        nn.Sequential(layer).load_state_dict(saved(nn.Sequential(source)))
    assert digest(layer.state_dict()) == before

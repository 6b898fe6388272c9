"""Identities: never equal by accident, equal on request, and counted in the digital model."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import prune, spectral_norm

import pulseline as pl
from pulseline import Array
from pulseline.devices import Ideal, SoftBounds
from pulseline.errors import ConfigError
from pulseline.identity import Identity, identify, refuse_twins
from pulseline.nn import AnalogLinear, tile_ids, to_analog
from pulseline.optim import AnalogSGD
from pulseline.pipeline import Pipeline, Stage
from pulseline.reference.rng import Stream, draw4
from pulseline.schedules import named


def same(a: AnalogLinear, b: AnalogLinear) -> bool:
    """Equal weights, devices and noise."""
    x = torch.linspace(-1, 1, a.in_features).repeat(3, 1)
    pairs = (
        (a.weight.data, b.weight.data),
        (a.cell.array.bounds[1], b.cell.array.bounds[1]),
    )
    return all(torch.equal(p, q) for p, q in pairs) and torch.equal(a(x), b(x))


# ---- the process's seeds ----


def test_layers_of_the_same_arguments_are_independent() -> None:
    layers = [AnalogLinear(16, 16) for _ in range(2)]
    models = [to_analog(nn.Linear(16, 16)) for _ in range(2)]
    x = torch.ones(256, 16)
    for a, b in (layers, models):
        assert a.cell.array.identity.key != b.cell.array.identity.key
        assert not torch.equal(a.cell.array.bounds[1], b.cell.array.bounds[1])
        noise = torch.stack([(m(x) - m(x)).flatten().detach() for m in (a, b)])
        # 4096 differences: standard deviation 1/64 of the correlation of independent ones.
        assert abs(torch.corrcoef(noise)[0, 1]) < 6 / 64


def test_manual_seed_restarts_what_is_drawn_without_a_seed() -> None:
    pl.manual_seed(7)
    first = [AnalogLinear(5, 4), to_analog(nn.Linear(5, 4)), AnalogLinear(5, 4)]
    pl.manual_seed(7)
    again = [AnalogLinear(5, 4), to_analog(nn.Linear(5, 4)), AnalogLinear(5, 4)]
    for a, b in zip(first, again, strict=True):
        assert a.cell.array.identity == b.cell.array.identity
    assert same(first[0], again[0])
    pl.manual_seed(8)
    assert AnalogLinear(5, 4).cell.identity.seed != first[0].cell.identity.seed


def test_explicit_seeds_do_not_advance_the_stream_and_ask_for_the_same_devices() -> None:
    seeds = []
    for explicit in (False, True):
        pl.manual_seed(1)
        if explicit:
            a, b = AnalogLinear(5, 4, seed=3), AnalogLinear(5, 4, seed=3, tile_id=0)
            assert same(a, b)
            assert not same(AnalogLinear(5, 4, seed=3), AnalogLinear(5, 4, seed=3, tile_id=1))
            assert not same(AnalogLinear(5, 4, seed=3), AnalogLinear(5, 4, seed=4))
        seeds.append(AnalogLinear(5, 4).cell.identity.seed)
    assert seeds[0] == seeds[1]


def test_a_refused_layer_takes_no_seed() -> None:
    pl.manual_seed(1)
    expected = identify(None).seed
    pl.manual_seed(1)
    with pytest.raises(ConfigError):
        AnalogLinear(5, -4)
    with pytest.raises(ConfigError):
        AnalogLinear(5, 4, tile_id=-1)
    assert identify(None).seed == expected


def test_the_first_seeds_are_known() -> None:
    """They decide everybody's devices: a change of these numbers changes all results."""
    found = []
    for seed in (0, 1, (1 << 32) - 1):
        pl.manual_seed(seed)
        found.append([identify(None).seed for _ in range(3)])
    assert found == [
        [3508692831, 1392495567, 708778401],
        [1973196199, 4110624297, 3658236692],
        [2768407664, 2403297670, 3798898972],
    ]


def test_no_seed_comes_twice_in_any_number_of_threads() -> None:
    """Draws are a permutation: none of 20 000 is repeated, and threads share one sequence."""
    pl.manual_seed(3)
    alone = [identify(None).seed for _ in range(20_000)]
    assert len(set(alone)) == len(alone)
    assert 0 <= min(alone) < 1 << 24 < 255 << 24 < max(alone) < 1 << 32
    pl.manual_seed(3)
    with ThreadPoolExecutor(8) as pool:
        shared = list(pool.map(lambda _: identify(None).seed, range(20_000)))
    assert sorted(shared) == sorted(alone)


def test_torch_has_no_part_in_it() -> None:
    pl.manual_seed(3)
    first = identify(None).seed
    before = torch.get_rng_state()
    pl.manual_seed(3)
    torch.manual_seed(99)
    moved = torch.get_rng_state()
    assert identify(None).seed == first
    assert torch.equal(torch.get_rng_state(), moved)
    torch.set_rng_state(before)


# ---- keys ----


def test_identity_is_the_philox_key_and_plain_numbers_keep_their_draws() -> None:
    one = Identity(0xFFFFFFFF, 0xFFFFFF, 255)
    assert one.key == (0xFFFFFFFF, 0xFFFFFFFF)
    assert Identity(3, 5, 2).key == (3, 5 + (2 << 24))
    layer, whole = AnalogLinear(5, 4, seed=3, tile_id=9), AnalogLinear(5, 4, seed=Identity(3, 9))
    assert same(layer, whole)
    assert Stream(*one.key) != Stream(*Identity(0xFFFFFFFF, 0xFFFFFF, 254).key)
    a, b = (draw4(Stream(*Identity(3, 5, n).key), 0, 0, torch.arange(4), 0) for n in (0, 1))
    assert not torch.equal(torch.stack(list(a)), torch.stack(list(b)))


def test_arrays_of_a_matrix_have_devices_and_noise_of_their_own() -> None:
    arrays = [Array(5, 6, seed=Identity(3, 9, n)) for n in (0, 1, 255)]
    for array in arrays:
        array.initialise()
    layer = AnalogLinear(6, 5, seed=3, tile_id=9)
    assert torch.equal(arrays[0].weight.data, layer.weight.data)
    assert torch.equal(arrays[0].bounds[1], layer.cell.bounds[1])
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert not torch.equal(arrays[a].bounds[1], arrays[b].bounds[1])
        assert not torch.equal(arrays[a].weight.data, arrays[b].weight.data)
    for array in arrays[1:]:  # the same weights, another noise
        array.weight.data.copy_(arrays[0].weight.data)
    x = torch.ones(2, 6)
    assert len({tuple(array.read(x).flatten().tolist()) for array in arrays}) == 3
    assert len({tuple(array.evaluate(x).flatten().tolist()) for array in arrays}) == 3


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: pl.manual_seed(-1), "seed is -1; use an integer from 0 to 2^32 - 1"),
        (lambda: pl.manual_seed(1 << 32), "seed is 4294967296"),
        (lambda: pl.manual_seed(True), "seed is True"),
        (lambda: Identity(0, 0, 256), "array is 256; use an integer from 0 to 2^8 - 1"),
        (lambda: Identity(0, 1 << 24), "tile_id is 16777216; use an integer from 0 to 2^24 - 1"),
        (lambda: pl.Array(2, 2, seed=1 << 32), "seed is 4294967296"),
        (lambda: pl.Array(2, 2, seed=Identity(1), tile_id=2), "tile_id is 2; leave it out"),
        (lambda: to_analog(nn.Linear(2, 2), seed=1 << 32), "seed is 4294967296"),
        (lambda: AnalogLinear(2, 2).cell.array.reseed(-3), "seed is -3"),
    ],
)
def test_numbers_out_of_range_are_one_sentence(make: Callable[[], Any], words: str) -> None:
    with pytest.raises(ConfigError) as error:
        make()
    assert words in str(error.value)
    assert "\n" not in str(error.value)


# ---- the numbers of a digital model ----


class Experts(nn.Module):
    """Stacked experts: one parameter of three dimensions."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(4))
        self.up = nn.Parameter(torch.zeros(4, 6, 5))
        self.conv = nn.Conv1d(3, 2, 5)


def expect(model: nn.Module, *found: tuple[str, int]) -> None:
    """Names and numbers of matrices; each begins where the last one ends."""
    ids = tile_ids(model)
    assert [(one.name, one.number) for one in ids] == list(found)
    first = 0
    for one in ids:
        assert one.first == first
        first += one.number


def test_every_parameter_of_two_dimensions_counts() -> None:
    expect(
        nn.Sequential(nn.Embedding(5, 4), nn.LayerNorm(4), nn.Linear(4, 3), nn.PReLU()),
        ("0.weight", 1),
        ("2.weight", 1),
    )
    expect(nn.Conv2d(3, 4, 3), ("weight", 1))
    expect(nn.ReLU())
    expect(Experts(), ("up", 4), ("conv.weight", 1))


def test_a_computed_kernel_counts_its_parameters_not_its_channels() -> None:
    conv = nn.utils.parametrizations.weight_norm(nn.Conv1d(4, 6, 3))
    names = [f"0.parametrizations.weight.original{n}" for n in (0, 1)]
    expect(nn.Sequential(conv), *((name, 1) for name in names))
    expect(conv, *((name[2:], 1) for name in names))


def test_attention_counts_its_projections() -> None:
    expect(nn.MultiheadAttention(4, 2), ("in_proj_weight", 3), ("out_proj.weight", 1))
    apart = nn.MultiheadAttention(4, 2, kdim=3, vdim=5)
    names = ("q_proj_weight", "k_proj_weight", "v_proj_weight", "out_proj.weight")
    expect(apart, *((name, 1) for name in names))


@pytest.mark.parametrize("kind", [nn.RNN, nn.LSTM, nn.GRU])
def test_recurrent_weights_count_one_each(kind: Any) -> None:
    names = [f"weight_{a}_l{n}{d}" for n in (0, 1) for d in ("", "_reverse") for a in ("ih", "hh")]
    expect(kind(4, 3, num_layers=2, bidirectional=True), *((name, 1) for name in names))


def test_a_shared_parameter_counts_once_under_its_first_name() -> None:
    tied = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 4), nn.Linear(4, 5, bias=False))
    tied[2].weight = tied[0].weight
    expect(tied, ("0.weight", 1), ("1.weight", 1))
    layer = nn.Linear(4, 4)
    expect(nn.Sequential(layer, nn.Linear(4, 4), layer), ("0.weight", 1), ("1.weight", 1))


def test_a_lazy_model_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"1\.weight has no shape yet; run the model once"):
        tile_ids(nn.Sequential(nn.Linear(2, 2), nn.LazyConv1d(2, 1)))


def mixed() -> nn.Sequential:
    return nn.Sequential(
        nn.Embedding(5, 4),
        nn.MultiheadAttention(4, 2),
        nn.Linear(4, 4),
        nn.Conv1d(4, 4, 1),
        nn.Linear(4, 2),
    )


def test_converted_layers_get_these_numbers_whatever_is_converted_or_frozen() -> None:
    ids = {one.name: one.first for one in tile_ids(mixed())}
    model = mixed()
    model.requires_grad_(False)
    analog = to_analog(model, seed=2)
    assert [analog[n].cell.identity.tile_id for n in (2, 3, 4)] == [5, 6, 7]
    for n in (2, 3, 4):
        assert analog[n].cell.identity.tile_id == ids[f"{n}.weight"]
    assert tile_ids(analog) == tile_ids(model)  # converted or not


def test_plain_linear_networks_are_numbered_from_zero() -> None:
    """As before there were other matrices: recorded bits rely on it."""
    layers = [nn.Linear(3, 3, bias=n % 2 == 0) for n in range(4)]
    analog = to_analog(nn.Sequential(*layers), seed=0)
    assert [(m.cell.identity.seed, m.cell.identity.tile_id) for m in analog] == [
        (0, n) for n in range(4)
    ]


def test_a_second_conversion_keeps_the_numbers_of_the_first() -> None:
    half = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    half[0] = to_analog(half[0])
    whole = to_analog(half)
    assert [m.cell.identity.tile_id for m in whole] == [0, 1]
    assert whole[0].cell.array.identity.key == half[0].cell.array.identity.key
    AnalogSGD(whole.parameters())


@pytest.mark.parametrize("change", [prune.identity, spectral_norm])
def test_a_weight_that_is_computed_is_refused(change: Any) -> None:
    layer = nn.Linear(3, 3)
    change(layer, "weight")
    with pytest.raises(ConfigError, match="the weight of '0' is computed from others"):
        to_analog(nn.Sequential(layer))


# ---- twins ----

PARTS = {
    "equal requests": lambda: [AnalogLinear(3, 3, seed=1), AnalogLinear(3, 3, seed=1, tile_id=0)],
    "another shape": lambda: [AnalogLinear(3, 3, seed=1), AnalogLinear(3, 2, seed=1)],
    "ideal devices": lambda: [AnalogLinear(3, 3, device=Ideal(), seed=1) for _ in range(2)],
    "two models": lambda: [to_analog(nn.Linear(3, 3), seed=4) for _ in range(2)],
    "deep copies": lambda: [layer := AnalogLinear(3, 3), copy.deepcopy(layer)],
    "loaded": lambda: loaded(),
}


def loaded() -> list[nn.Module]:
    layers: list[nn.Module] = [AnalogLinear(3, 3) for _ in range(2)]
    layers[1].load_state_dict(layers[0].state_dict())
    return layers


def refused(make: Callable[[], Any], *words: str) -> None:
    with pytest.raises(ConfigError) as error:
        make()
    text = str(error.value)
    assert "\n" not in text
    for word in (
        *words,
        "are the same devices with the same noise",
        "layer.cell.reseed()",
    ):
        assert word in text, f"{word!r} is not in {text!r}"


@pytest.mark.parametrize("make", PARTS.values(), ids=PARTS.keys())
def test_twins_are_refused_in_an_optimizer(make: Callable[[], list[nn.Module]]) -> None:
    model = nn.Sequential(*make(), nn.Linear(3, 3))
    refused(lambda: AnalogSGD(model.parameters()), "parameter 0 of group 0 (3 x 3)", "parameter 2")
    refused(lambda: AnalogSGD(model.named_parameters()), "layer 0 and layer 1 are")
    groups = [{"params": [model[n].weight]} for n in (0, 1)]
    refused(lambda: AnalogSGD(groups), "parameter 0 of group 0 (3 x 3)", "of group 1")
    optimizer = AnalogSGD([model[0].weight])
    refused(lambda: optimizer.add_param_group(groups[1]), "of group 0", "of group 1")
    assert len(optimizer.param_groups) == 1
    model[1].cell.reseed()
    optimizer.add_param_group(groups[1])
    AnalogSGD(model.parameters())


def test_twins_made_later_are_refused_at_the_next_step() -> None:
    """Loading one layer's state into another makes them equal behind the optimizer's back."""
    layers = [AnalogLinear(3, 3) for _ in range(2)]
    optimizer = AnalogSGD(nn.Sequential(*layers).named_parameters(), lr=0.1)
    state, weights = layers[0].state_dict(), layers[0].weight.data.clone()
    own = copy.deepcopy(layers[1].state_dict())
    layers[1].load_state_dict(state)
    layers[0](torch.ones(1, 3)).sum().backward()
    refused(optimizer.step, "layer 0 and layer 1 are")
    assert torch.equal(layers[0].weight.data, weights)
    layers[1].load_state_dict(own)
    optimizer.step()
    assert not torch.equal(layers[0].weight.data, weights)
    layers[1].cell.reseed(layers[0].cell.identity.seed)
    refused(optimizer.step, "layer 0 and layer 1 are")
    again = pickle.loads(pickle.dumps(optimizer))  # compares when it is used
    refused(again.step, "layer 0 and layer 1 are")


@pytest.mark.parametrize("executor", ["sim", "threads"])
@pytest.mark.parametrize("make", PARTS.values(), ids=PARTS.keys())
def test_twins_are_refused_in_a_pipeline(
    make: Callable[[], list[nn.Module]], executor: str
) -> None:
    parts = make()

    def build() -> Pipeline:
        stages = [nn.Sequential(nn.Tanh(), part) for part in parts]
        optimizers = [AnalogSGD(stage.parameters()) for stage in stages]
        losses = [None, lambda y, t: y.sum() - t.sum()]
        made = [Stage(s, o, loss) for s, o, loss in zip(stages, optimizers, losses, strict=True)]
        return Pipeline(made, schedule="sequential", executor=executor)

    refused(build, "layer 1.1 of stage 1 and layer 2.1 of stage 2")
    parts[1].cell.array.reseed()
    build().close()


def test_twins_are_refused_on_conversion() -> None:
    model = nn.Sequential(AnalogLinear(3, 3, seed=4, tile_id=1), nn.Linear(3, 3))
    refused(lambda: to_analog(model, seed=4), "layer 0 and layer 1 are")
    assert [m.cell.identity.tile_id for m in to_analog(model, seed=5)] == [1, 1]
    to_analog(model)


def test_a_shared_layer_is_no_twin() -> None:
    layer = AnalogLinear(3, 3, seed=1)
    model = nn.Sequential(layer, nn.Tanh(), layer)
    AnalogSGD(model.parameters())
    to_analog(nn.Sequential(model, nn.Linear(3, 3)))
    stage = Stage(model, AnalogSGD(model.parameters()), lambda y, t: y.sum() - t.sum())
    Pipeline([stage], schedule=named("sequential", 1)).close()


def test_models_that_never_meet_may_be_equal() -> None:
    """A request made twice, a copy, a target network: each with its own optimizer."""
    online = to_analog(nn.Linear(3, 3), seed=1)
    for other in (to_analog(nn.Linear(3, 3), seed=1), copy.deepcopy(online)):
        AnalogSGD(other.parameters())


def test_refused_twins_name_the_first_two() -> None:
    with pytest.raises(ConfigError, match=r"^b and d are the same devices .*seed 1, tile_id 7\)"):
        refuse_twins([("a", Identity(1, 6)), ("b", Identity(1, 7)), ("d", Identity(1, 7))])


# ---- reseed ----


@pytest.mark.parametrize("device", [SoftBounds(), SoftBounds(write_noise_std=4.0), Ideal()])
def test_reseed_moves_the_weights_onto_other_devices(device: Any) -> None:
    pl.manual_seed(11)
    layer = AnalogLinear(20, 30, device=device, tile_id=3)
    layer(torch.ones(2, 20)).sum().backward()
    layer.cell.array.pulse(torch.ones(2, 20), torch.ones(2, 30), 0.01)
    twin = copy.deepcopy(layer)
    held: Tensor = twin.cell.array.pulsed.clone()
    twin.cell.array.reseed()
    assert twin.cell.identity.tile_id == 3
    assert twin.cell.identity.seed != layer.cell.identity.seed
    assert set(twin.cell.array.state()["counters"].values()) == {0}
    lo, hi = twin.cell.array.bounds
    assert torch.equal(twin.cell.array.pulsed, held.clamp(lo, hi))
    fresh = AnalogLinear(20, 30, device=device, seed=Identity(twin.cell.identity.seed, 3))
    assert torch.equal(fresh.cell.array.bounds[1], hi)
    fresh.cell.array.program(held)
    assert torch.equal(fresh.weight.data, twin.weight.data)  # write noise included
    x = torch.ones(2, 20)
    assert torch.equal(fresh(x) - fresh.bias, twin(x) - twin.bias)
    twin.cell.array.reseed(5)
    assert twin.cell.array.identity == Identity(5, 3, requested=("seed", "tile_id"))

"""Every way of making several layers, models or stages: independent devices, one array, or a
sentence; equal ones only where a seed asked for them."""

from __future__ import annotations

import copy
import io
import multiprocessing
import pickle
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import pytest
import torch
from torch import nn

import pulseline as pl
from pulseline.arrays import arrays_of
from pulseline.errors import ConfigError
from pulseline.nn import AnalogLinear, to_analog
from pulseline.optim import AnalogSGD
from pulseline.pipeline import Pipeline

SIZE = 8


def layer(**options: Any) -> AnalogLinear:
    return AnalogLinear(SIZE, SIZE, **options)


def analog(*seeds: int | None) -> list[nn.Module]:
    return [to_analog(nn.Linear(SIZE, SIZE), seed=seed) for seed in seeds]


def saved(model: nn.Module) -> nn.Module:
    """Through a file, whole."""
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    loaded: nn.Module = torch.load(file, weights_only=False)
    return loaded


def loaded(state: dict[str, Any]) -> nn.Module:
    made = layer()
    made.load_state_dict(state)
    return made


def seeded() -> AnalogLinear:
    pl.manual_seed(11)
    return layer()


def in_process(_: int) -> bytes:
    """A layer made in a fresh process, by its state."""
    return pickle.dumps(layer().state_dict())


def in_processes() -> list[nn.Module]:
    """Every process that is started anew has the same sequence of seeds."""
    context = multiprocessing.get_context("spawn")
    found = []
    for _ in range(2):
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            found.append(loaded(pickle.loads(pool.submit(in_process, 0).result())))
    return found


def parts(seed: int | None) -> list[nn.Module]:
    """Halves of one model, converted apart."""
    model = nn.Sequential(nn.Linear(SIZE, SIZE), nn.Tanh(), nn.Linear(SIZE, SIZE))
    return [to_analog(model[:1], seed=seed), to_analog(model[2:], seed=seed)]


class Block(nn.Module):
    """What torch's containers copy: a layer of an encoder."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.self_attn = nn.MultiheadAttention(SIZE, 1, batch_first=True)

    def forward(self, x: torch.Tensor, **_: Any) -> torch.Tensor:
        y: torch.Tensor = self.inner(x)
        return y


def encoder(inner: nn.Module) -> list[nn.Module]:
    """torch.nn.TransformerEncoder deep-copies the layer that it is given."""
    made = nn.TransformerEncoder(Block(inner), 2, enable_nested_tensor=False)
    return [block.inner for block in made.layers]


INDEPENDENT: dict[str, Callable[[], list[nn.Module]]] = {
    "two calls": lambda: [layer(), layer()],
    "an id alone": lambda: [layer(tile_id=3), layer(tile_id=3)],
    "two conversions": lambda: analog(None, None),
    "two conversions of one model": lambda: [to_analog(m) for m in [nn.Linear(SIZE, SIZE)] * 2],
    "copies, then converted": lambda: [
        *to_analog(nn.Sequential(*(copy.deepcopy(m) for m in [nn.Linear(SIZE, SIZE)] * 3)))
    ],
    "torch's encoder, then converted": lambda: [
        *to_analog(nn.ModuleList(encoder(nn.Linear(SIZE, SIZE))))
    ],
    "one seed, several ids": lambda: [layer(seed=1, tile_id=n) for n in range(3)],
    "different seeds": lambda: analog(1, 2),
    "halves of a model": lambda: parts(None),
    "converted twice": lambda: [
        *to_analog(to_analog(nn.Sequential(*analog_pair()), include="0"), include="1")
    ],
    "in place twice": lambda: in_place(),
    "copies with seeds of their own": lambda: reseeded(),
    "two algorithms": lambda: [layer(algorithm=two_arrays) for _ in range(2)],
}


def analog_pair() -> list[nn.Module]:
    return [nn.Linear(SIZE, SIZE) for _ in range(2)]


def in_place() -> list[nn.Module]:
    model = nn.Sequential(*analog_pair())
    to_analog(model, include="0", inplace=True)
    to_analog(model, include="1", inplace=True)
    return [*model]


def reseeded() -> list[nn.Module]:
    first = layer()
    others = [copy.deepcopy(first) for _ in range(2)]
    for one in others:
        one.cell.reseed()
    return [first, *others]


def two_arrays(*arguments: Any) -> pl.Cell:
    class Two(pl.Cell):
        def __init__(self, *given: Any) -> None:
            super().__init__(*given)
            self.add_array()

    return Two(*arguments)


def noise(module: nn.Module) -> torch.Tensor:
    """Two reads of one input: what differs is noise."""
    x = torch.ones(256, SIZE)
    y = module(x) - module(x)
    return y.detach().flatten()


@pytest.mark.parametrize("make", INDEPENDENT.values(), ids=INDEPENDENT.keys())
def test_independent_devices(make: Callable[[], list[nn.Module]]) -> None:
    found = make()
    model = nn.Sequential(*found)
    arrays = [array for _, array in arrays_of(model.named_parameters())]
    assert len(arrays) >= len(found) >= 2
    assert len({array.identity.key for array in arrays}) == len(arrays)
    for n, one in enumerate(arrays):
        for other in arrays[:n]:
            assert not torch.equal(one.crosspoints.step, other.crosspoints.step)
    drawn = torch.stack([noise(one) for one in found])
    matrix = torch.corrcoef(drawn) - torch.eye(len(found))
    # 2048 differences: standard deviation 1/45 of the correlation of independent ones.
    assert float(matrix.abs().max()) < 6 / 45
    AnalogSGD(model.parameters())


# ---- the same ones: a sentence wherever two of them meet ----

TWINS: dict[str, Callable[[], list[nn.Module]]] = {
    "deep copies": lambda: [one := layer(), copy.deepcopy(one)],
    "deep copies of models": lambda: [one := analog(None)[0], copy.deepcopy(one)],
    "pickled": lambda: [one := layer(), pickle.loads(pickle.dumps(one))],
    "saved whole": lambda: [one := layer(), saved(one)],
    "one state in two layers": lambda: [loaded(state) for state in [layer().state_dict()] * 2],
    "a state beside its layer": lambda: [one := layer(), loaded(one.state_dict())],
    "torch's encoder": lambda: encoder(layer()),
    "a copy by conversion": lambda: [one := nn.Sequential(layer()), to_analog(one)],
    "a seed asked twice": lambda: [layer(seed=1), layer(seed=1)],
    "models of one seed": lambda: analog(4, 4),
    "halves of one seed": lambda: parts(4),
    "manual_seed before each": lambda: [seeded(), seeded()],
    "spawned processes": in_processes,
    "reseeded alike": lambda: [one := layer(), twin_of(one)],
}


def twin_of(one: AnalogLinear) -> AnalogLinear:
    made = layer()
    made.cell.reseed(one.cell.identity.seed)
    return made


def refused(call: Callable[[], Any]) -> None:
    with pytest.raises(ConfigError, match=r"are the same devices .*; build them without seed="):
        call()


@pytest.mark.parametrize("make", TWINS.values(), ids=TWINS.keys())
def test_twins_meet_nowhere(make: Callable[[], list[nn.Module]]) -> None:
    """One optimizer, one pipeline, one model that is converted; alone each of them works."""
    twins = make()
    model = nn.Sequential(*twins)
    refused(lambda: AnalogSGD(model.parameters()))
    refused(lambda: AnalogSGD([{"params": [*part.parameters()]} for part in twins]))
    refused(
        lambda: Pipeline(
            nn.Sequential(*(nn.Sequential(part, nn.Tanh()) for part in twins)),
            stages=2,
            schedule="sequential",
            optimizer=AnalogSGD,
            loss=nn.functional.mse_loss,
        )
    )
    refused(lambda: to_analog(nn.Sequential(model, nn.Linear(3, 3))))
    refused(lambda: to_analog(nn.Sequential(model, nn.Linear(3, 3)), inplace=True))
    refused(lambda: to_analog(model, dry_run=True))
    for part in twins:
        AnalogSGD(part.parameters())
    for module in twins[1].modules():
        if isinstance(module, AnalogLinear):
            module.cell.reseed()
    AnalogSGD(model.parameters())


# ---- one array ----

SHARED: dict[str, Callable[[], list[nn.Module]]] = {
    "a list of one": lambda: [layer()] * 3,
    "a shallow copy": lambda: [one := layer(), copy.copy(one)],
    "a shared layer, converted": lambda: [*to_analog(nn.Sequential(*[nn.Linear(SIZE, SIZE)] * 2))],
    "a shared layer, copied": lambda: [*copy.deepcopy(nn.ModuleList([layer()] * 2))],
}


@pytest.mark.parametrize("make", SHARED.values(), ids=SHARED.keys())
def test_one_array_is_no_twin(make: Callable[[], list[nn.Module]]) -> None:
    """It is pulsed once by a step, for all places that it has."""
    found = make()
    model = nn.Sequential(*found)
    cells = {id(one.cell) for one in found}  # type: ignore[arg-type]
    assert len(cells) == 1
    optimizer = AnalogSGD(model.parameters(), lr=0.1)
    model(torch.ones(2, SIZE)).sum().backward()
    optimizer.step()
    (counts,) = found[0].cell.counts()  # type: ignore[operator, union-attr]
    assert counts.update == 2 * len(found)

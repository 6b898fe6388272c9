"""Where a model can be cut, what it says where not, stages by hand, and what stages pass on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import delayed
import families
import pulseline as pl
from pulseline import cost
from pulseline.digest import digest
from pulseline.errors import ConfigError, StageFailed
from pulseline.nn import AnalogLinear
from pulseline.pipeline import Pipeline, Stage, messages
from pulseline.pipeline.split import split, units
from pulseline.schedules import Schedule, asynchronous

LR, SIZE, COUNT = 0.05, 4, 16

# ---- a skip over all stages, against training written out by hand ----


class Skipping(nn.Module):
    """h_1 = tanh(W_1 x) goes through every layer, and beside all of them to the end."""

    def __init__(self, kind: Any, stages: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(kind.linear(m) for m in range(stages))

    def forward(self, x: Tensor) -> Tensor:
        skip = x = self.layers[0](x).tanh()
        for layer in self.layers[1:]:  # type: ignore[union-attr]
            x = layer(x).tanh()
        return x + skip


def by_hand(kind: Any, stages: int, x: Tensor, y: Tensor) -> str:
    """F on W_{max(0, k-(M-m))}, B on W_k, from a history of weights: no stages, no autograd."""
    layers = [kind.linear(m) for m in range(stages)]
    history = [[kind.weights(layer)] for layer in layers]
    xs, ys = x.split(SIZE), y.split(SIZE)
    outputs: dict[tuple[int, int], Tensor] = {}
    done = [0] * stages
    for k in range(len(xs)):
        for m in range(stages):
            stale = stages - 1 - m
            while done[m] <= min(k + stale, len(xs) - 1):
                j = done[m]
                w = history[m][max(0, j - stale)]
                outputs[j, m] = kind.read(layers[m], w, outputs[j, m - 1] if m else xs[j]).tanh()
                done[m] += 1
        out = outputs[k, stages - 1] + outputs[k, 0]
        error = torch.ops.aten.mse_loss_backward(torch.ones(()), out, ys[k], 1)
        skipped = error
        for m in reversed(range(stages)):
            w = history[m][k]
            error = error if m else error + skipped
            d = torch.ops.aten.tanh_backward(error, outputs[k, m])
            if m:
                error = kind.read_transposed(layers[m], w, d)
            history[m].append(kind.moved(layers[m], w, outputs[k, m - 1] if m else xs[k], d, LR))
    return digest({str(m): history[m][-1] for m in range(stages)})


def skipping(kind: Any, stages: int, plan: Schedule | str = "async", **options: Any) -> Pipeline:
    return Pipeline(
        Skipping(kind, stages),
        stages,
        plan,
        optimizer=lambda parameters: kind.optimizer(parameters, LR),
        loss=functional.mse_loss,
        micro_batch_size=SIZE,
        **options,
    )


def weights(kind: Any, pipe: Pipeline) -> str:
    layers = [next(iter(stage.module.layers.children())) for stage in pipe.stages]  # type: ignore[union-attr,operator]
    return digest({str(m): kind.weights(layer) for m, layer in enumerate(layers)})


def fed(pipe: Pipeline) -> Pipeline:
    x, y = delayed.samples(COUNT, SIZE)
    for some, its in zip(x.split(5 * SIZE), y.split(5 * SIZE), strict=True):
        pipe.step(some, its)
    pipe.drain()
    return pipe


@pytest.mark.parametrize("kind", [delayed.Digital(), delayed.Analog()], ids=["digital", "analog"])
@pytest.mark.parametrize("stages", [2, 3, 4])
def test_a_skip_over_all_stages(kind: Any, stages: int) -> None:
    want = by_hand(kind, stages, *delayed.samples(COUNT, SIZE))
    assert weights(kind, fed(skipping(kind, stages))) == want
    with skipping(kind, stages, executor="threads") as pipe:
        assert weights(kind, fed(pipe)) == want


class _Old(nn.Module):
    """The mutant: the skip of the micro-batch before."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.kept = inner, None

    def forward(self, value: Any) -> Any:
        x, skip = self.inner(value)
        old, self.kept = self.kept, skip
        return x, skip if old is None else old.detach() + 0 * skip


class _Detached(_Old):
    """The mutant: the skip's gradient goes nowhere."""

    def forward(self, value: Any) -> Any:
        x, skip = self.inner(value)
        return x, skip.detach()


def _around(kind: type[_Old]) -> Callable[[Any], Pipeline]:
    def made(of: Any) -> Pipeline:
        pipe = skipping(of, 4)
        for stage in pipe.stages[1:2]:
            stage.module = kind(stage.module)
        return pipe

    return made


@pytest.mark.parametrize("kind", [delayed.Digital(), delayed.Analog()], ids=["digital", "analog"])
@pytest.mark.parametrize(
    "mutant",
    [
        lambda kind: skipping(kind, 4, asynchronous(inflight=[5, 4, 3, 1])),
        lambda kind: skipping(kind, 4, asynchronous(inflight=[3, 2, 1, 1])),
        _around(_Old),
        _around(_Detached),
    ],
    ids=["stale by one more", "by one less", "a skip of another micro-batch", "detached"],
)
def test_mutants_differ(kind: Any, mutant: Callable[[Any], Pipeline]) -> None:
    pipe = fed(mutant(kind))
    for stage in pipe.stages:
        stage.module = getattr(stage.module, "inner", stage.module)
    assert weights(kind, pipe) != by_hand(kind, 4, *delayed.samples(COUNT, SIZE))


# ---- where ----


def test_by_number_a_layer_starts_a_stage() -> None:
    model = families.analog("lstm")
    assert units(model, 2) == ["tokens", "first", "second", "head"]
    parts = split(model, 3)
    assert [[*dict(part.named_children())] for part in parts] == [
        ["tokens", "first", "dropout"],
        ["second"],
        ["head"],
    ]
    found = [[*dict(part.named_children())] for part in split(model, 2, [1, 3])]
    assert found == [["tokens"], ["first", "dropout", "second", "head"]]


def test_by_modelled_time() -> None:
    """Convolutions count by their output positions; normalisations cost nothing."""
    model, x = families.analog("resnet"), torch.zeros(2, 1, 6, 6)
    found = cost.balance(model, 2, example=x)
    names = units(model, 2)
    assert sum(found.counts) == len(names) == 14
    per = cost.stage_costs([nn.Conv2d(4, 4, 3, padding=1)], example=torch.zeros(2, 4, 6, 6))
    assert found.slowest == pytest.approx(sum(per[0].times()) * 4)
    parts = split(model, 2, found)
    assert len(parts) == 2
    example = {"ids": torch.zeros(1, 5, dtype=torch.int64), "padding": torch.ones(1, 5).bool()}
    assert len(cost.balance(families.analog("gpt"), 4, example=example).counts) == 4
    with pytest.raises(ConfigError, match="give an example input"):
        cost.balance(families.digital("resnet"), 2)


def test_a_sequential_is_cut_inside_where_it_must() -> None:
    """Two children, four layers."""
    kind = delayed.Digital()
    inner = [nn.Sequential(kind.linear(m), nn.Tanh(), kind.linear(m + 1)) for m in (0, 2)]
    model = nn.Sequential(*inner)
    assert [len([*part.parameters()]) for part in split(model, 2)] == [2, 2]
    assert [type(part) for part in split(model, 2)] == [nn.Sequential] * 2
    parts = split(model, 4)
    assert [name for part in parts for name in part.state_dict()] == [*model.state_dict()]
    assert [[*part.state_dict()] for part in split(model, ["1.2"])][1] == ["1.2.weight"]
    x = torch.randn(2, delayed.WIDTH)
    value = x
    for part in parts:
        value = part(value)
    assert torch.equal(value, model(x))


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.middle = nn.Embedding(5, 4), nn.Linear(4, 4)
        self.head = nn.Linear(4, 4)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.middle(self.tokens(ids))) @ self.tokens.weight.T


class Loops(nn.Module):
    """What it does depends on the data; ``deep``: a submodule of it does."""

    def __init__(self, deep: bool) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 4), nn.Linear(4, 4)
        self.deep = Loops(False) if deep else None

    def forward(self, x: Tensor) -> Tensor:
        if self.deep is not None:
            return self.last(self.deep(self.first(x)))  # type: ignore[no-any-return]
        while x.abs().max() > 1:
            x = x / 2
        return self.last(self.first(x))  # type: ignore[no-any-return]


class Mode(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor, scale: float = 1.0) -> Tensor:
        x = functional.dropout(self.first(x), 0.5, self.training)
        return self.last(x) * scale  # type: ignore[no-any-return]


class Auxiliary(nn.Module):
    """A layer more in training; ``deep``: a submodule of it has."""

    def __init__(self, deep: bool) -> None:
        super().__init__()
        self.first, self.more, self.last = (nn.Linear(4, 4) for _ in range(3))
        self.deep = Auxiliary(False) if deep else None

    def forward(self, x: Tensor) -> Tensor:
        if self.deep is not None:
            return self.last(self.deep(self.first(x)))  # type: ignore[no-any-return]
        x = self.first(x)
        return self.last(self.more(x) if self.training else x)  # type: ignore[no-any-return]


def test_what_does_something_else_in_training_stays_whole() -> None:
    """Layers of its own in one of the modes: the submodule whose forward chooses is not cut."""
    model = Auxiliary(True)
    parts = split(model, 2)
    x = torch.randn(3, 4)
    for training in (True, False):
        model.train(training)
        for part in parts:
            part.train(training)
        assert torch.equal(parts[1](parts[0](x)), model(x))
    with pytest.raises(ConfigError, match="model is a Auxiliary whose own forward does something"):
        split(Auxiliary(False), 2)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: split(Loops(False), 2),
            r"model is a Loops whose forward cannot be followed without data, so it cannot be cut "
            r"\(symbolically traced .*\); give the stages by hand: Pipeline\(\[first, second, ",
        ),
        (
            lambda: split(Mode(), 2),
            "model is a Mode whose own forward does something else in training, so it cannot be "
            "cut; put that into a submodule, or give the stages by hand",
        ),
        (
            lambda: split(Tied(), 3),
            "tokens.weight is used in stages 1 and 3, and a stage has its own; cut so that one "
            "stage has all its uses",
        ),
        (
            lambda: split(families.digital("gpt"), ["blocks.9"]),
            "stages names 'blocks.9', which the model has not; use names of its submodules",
        ),
        (
            lambda: split(families.digital("gpt"), ["blocks.0.attention.out"]),
            "stages names 'blocks.0.attention.out', which is not called, or is inside a module "
            "that stays whole; name another one",
        ),
        (
            lambda: split(families.digital("gpt"), ["blocks.1", "blocks.0"]),
            r"stages is \['blocks.1', 'blocks.0'\]; name the first submodules of the second",
        ),
        (lambda: families.build("gpt", ["tokens"]), "stage 1 has no parameters; give it at least"),
        (lambda: split(families.digital("gpt"), 20), "stages is 20, more than the 14 layers"),
        (
            lambda: split(families.digital("gpt"), 2, inputs=["ids", "mask"]),
            r"inputs is \['ids', 'mask'\]; use names of GPT.forward's arguments \(ids, padding\)",
        ),
        (lambda: split(families.digital("gpt"), ["norm"], [3]), "balance belongs to a number of"),
        (lambda: split(families.digital("gpt"), 2.5), "stages is 2.5; use an integer >= 1, or a"),
    ],
)
def test_what_cannot_be_cut_says_so(make: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        make()
    assert "\n" not in str(error.value)


def test_what_cannot_be_followed_stays_whole() -> None:
    model = pl.to_analog(Loops(True), seed=0)
    assert units(model, 2) == ["first", "deep", "last"]
    before = set(vars(model))
    parts = split(model, 3)
    assert set(vars(model)) == before
    assert model.training
    assert [[*part.state_dict()] for part in parts][1][0].startswith("deep.first")


class Noisy(nn.Module):
    """Makes tensors: noise anew for every micro-batch, constants, a count of the samples."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = AnalogLinear(4, 4, seed=0), AnalogLinear(4, 4, seed=1)
        self.scale = torch.ones(1)  # no buffer

    def forward(self, x: Tensor) -> Tensor:
        n = x.size(0)
        x = self.first(x) + 0.1 * torch.randn(n, 4, device=x.device, dtype=x.dtype)
        return self.last(x * self.scale + torch.zeros(4)) / n  # type: ignore[no-any-return]


def test_makers_of_tensors_are_calls() -> None:
    digests = []
    for executor in ("sim", "threads"):
        pipe = Pipeline(
            Noisy(),
            2,
            optimizer=families.optimizer,
            loss=functional.mse_loss,
            micro_batch_size=3,
            executor=executor,
            seed=4,
        )
        with pipe:
            losses = [pipe.step(torch.ones(10, 4), torch.ones(10, 4)), pipe.drain()]
            digests.append((pipe.digest(), torch.cat(losses).tolist()))
    assert digests[0] == digests[1]
    value = torch.ones(2, 4)
    first, _ = split(Noisy(), 2)
    n, x = first(value)
    assert n == 2
    assert not torch.equal(x, first(value)[1])


# ---- by hand ----


class Front(nn.Module):
    def __init__(self, model: Any) -> None:
        super().__init__()
        self.layer = model.layers[0]

    def forward(self, x: Tensor) -> dict[str, Any]:
        skip = self.layer(x).tanh()
        return {"x": skip, "more": [skip, None, x.argmax(1)]}


class Back(nn.Module):
    def __init__(self, model: Any) -> None:
        super().__init__()
        self.layer = model.layers[1]

    def forward(self, message: dict[str, Any]) -> Tensor:
        skip, nothing, most = message["more"]
        assert nothing is None
        assert most.dtype == torch.int64
        return self.layer(message["x"]).tanh() + skip  # type: ignore[no-any-return]


@pytest.mark.parametrize("executor", ["sim", "threads"])
def test_stages_by_hand(executor: str) -> None:
    """Modules pass dicts and lists on; the same bits as the model that was cut."""
    kind = delayed.Analog()
    want = weights(kind, fed(skipping(kind, 2)))
    model = Skipping(kind, 2)
    pipe = Pipeline(
        [Front(model), Back(model)],
        optimizer=lambda parameters: kind.optimizer(parameters, LR),
        loss=functional.mse_loss,
        micro_batch_size=SIZE,
        executor=executor,
    )
    with fed(pipe):
        layers = [stage.module.layer for stage in pipe.stages]
        assert digest({str(m): kind.weights(one) for m, one in enumerate(layers)}) == want
        assert next(iter(pipe.state_dict())).startswith("1.layer.")
    with pytest.raises(ConfigError, match="optimizer is missing; modules need optimizer= and"):
        Pipeline([Front(model), Back(model)], loss=functional.mse_loss)
    mixed: Any = [Stage(Front(model), torch.optim.SGD(model.parameters())), Back(model)]
    with pytest.raises(ConfigError, match="stages hold a Back beside a Stage; use one kind"):
        Pipeline(mixed)


def test_what_cannot_be_passed_on() -> None:
    class Odd(nn.Linear):
        def forward(self, x: Tensor) -> Any:
            return super().forward(x), object()

    pipe = Pipeline([Odd(4, 4), nn.Linear(4, 4)], optimizer=families.optimizer, loss=torch.dist)
    with pytest.raises(StageFailed, match="a stage passes on a object; use tensors and plain"):
        pipe.step(torch.ones(1, 4), torch.ones(1, 4))


@pytest.mark.parametrize("frozen", [("tokens", "positions"), ("blocks.0", "blocks.1"), ("",)])
def test_frozen_parts(frozen: tuple[str, ...]) -> None:
    """They stay as they are, errors pass through, threads and sim agree."""
    ends = []
    for executor in ("sim", "threads"):
        model = families.analog("gpt")
        for name, parameter in model.named_parameters():
            if name.startswith(frozen) and not name.startswith("head"):
                parameter.requires_grad_(False)
        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        with families.build("gpt", 4, model, executor=executor) as pipe:
            ends.append(families.outcome(pipe, "gpt"))
        for name, p in model.named_parameters():
            assert torch.equal(p.detach(), before[name]) != p.requires_grad, name
    assert ends[0] == ends[1]


# ---- messages ----


def test_bytes_and_back() -> None:
    value = {
        "a": (torch.randn(2, 3, requires_grad=True), [torch.arange(5), None, 2, 1.5, "x"]),
        "b": torch.tensor([True, False]),
        "c": torch.zeros(0, 3, dtype=torch.float16),
        "d": [torch.tensor(1.0, dtype=torch.float64), torch.bfloat16, torch.device("cpu")],
        "e": torch.randn(4, 2).T,
        "f": (),
    }
    bundle, outs = messages.pack(value)
    assert bundle.takes == (0,)
    assert outs[0] is value["a"][0]
    got = messages.decode(messages.encode(bundle))
    assert (got.form, got.takes) == (bundle.form, bundle.takes)
    for one, other in zip(got.tensors, bundle.tensors, strict=True):
        assert (one.dtype, one.shape) == (other.dtype, other.shape)
        assert torch.equal(one, other)
        assert one.is_contiguous()
    opened, leaves = got.open()
    assert opened["a"][1][1:] == [None, 2, 1.5, "x"]
    assert opened["d"][1:] == [torch.bfloat16, torch.device("cpu")]
    assert opened["f"] == ()
    assert [leaf.requires_grad for leaf in leaves] == [True]
    empty = messages.decode(messages.encode(messages.errors(leaves)))
    assert empty == messages.Bundle((), None, ())


@pytest.mark.parametrize(
    ("x", "message"),
    [
        ({"ids": torch.ones(2), "padding": torch.ones(3)}, r"samples are x\['ids'\] 2, x\['padd"),
        ({}, "x is a dict; stack the samples"),
        ((torch.ones(2), 3), r"x\[1\] is a int; stack the samples"),
        ((torch.ones(2), torch.tensor(float("nan"))), r"x\[1\] has shape \(\); use \(samples"),
        ((torch.ones(2), torch.full((2,), float("nan"))), "x or y holds a NaN or an infinity"),
    ],
)
def test_inputs_get_one_sentence(x: Any, message: str) -> None:
    pipe = families.build("gpt", 2)
    with pytest.raises(ConfigError, match=message):
        pipe.step(x, torch.ones(2))

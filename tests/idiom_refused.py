"""Idioms of torch that a crossbar cannot follow: each is answered by one sentence.

At most 15 rows; ``test_torch_idioms.py`` counts them.
"""

from __future__ import annotations

import copy
import os
import tempfile
import warnings
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.func import functional_call, grad, vmap
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grad_value_, parametrizations, parametrize, prune, spectral_norm

import pulseline as pl
from idiom_world import LR, World, refused


def each(*attempts: Any) -> None:
    """Every one of these is refused; the last answer is raised for the table."""
    for attempt in attempts:
        try:
            attempt()
        except pl.ConfigError as error:
            answer = error
        else:
            raise AssertionError(f"{attempt} was not refused")
    raise answer


@refused
def pruned(w: World) -> None:
    each(
        lambda: prune.l1_unstructured(w.layer, "weight", 0.75),
        lambda: prune.ln_structured(w.layer, "weight", 0.5, n=2, dim=0),
        lambda: prune.custom_from_mask(w.layer, "weight", torch.ones(w.layer.weight.shape)),
        lambda: prune.global_unstructured(
            [(layer, "weight") for layer in w.layers], prune.L1Unstructured, amount=0.5
        ),
    )


@refused
def spectrally_normed(w: World) -> None:
    spectral_norm(w.layer)


@refused
def weight_normed(w: World) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        nn.utils.weight_norm(w.layer)


@refused
def parametrized(w: World) -> None:
    each(
        lambda: parametrize.register_parametrization(w.layer, "weight", nn.Identity()),
        lambda: parametrizations.weight_norm(w.layer),
        lambda: parametrizations.orthogonal(w.layer),
        lambda: parametrizations.spectral_norm(w.layer),
    )


@refused
def functional_call_with_another_weight(w: World) -> None:
    named = dict(w.net.named_parameters())
    first = next(name for name in named if name.endswith("weight"))
    other = copy.deepcopy(w.net)
    each(
        lambda: functional_call(w.layer, {"weight": torch.zeros(w.layer.weight.shape)}, (w.x,)),
        lambda: functional_call(w.net, {first: torch.zeros(w.layer.weight.shape)}, (w.x,)),
        lambda: functional_call(w.net, dict(other.named_parameters()), (w.x,)),
    )


@refused
def weight_assigned_or_tied(w: World) -> None:
    embedding = nn.Embedding(*w.layer.weight.shape[:2])

    def assign(value: Any) -> None:
        w.layer.weight = value

    each(
        lambda: assign(nn.Parameter(torch.zeros(w.layer.weight.shape))),
        lambda: assign(torch.zeros(w.layer.weight.shape)),
        lambda: assign(embedding.weight),
        lambda: assign(copy.deepcopy(w.layer.weight)),
        lambda: setattr(w.layer.cell.array, "weight", embedding.weight),
    )


@refused
def product_with_the_raw_weight(w: World) -> None:
    weight = w.layer.weight
    each(
        lambda: nn.functional.linear(w.x, weight),
        lambda: w.x @ weight.T,
        lambda: weight @ w.x.T,
        lambda: torch.einsum("bi,oi->bo", w.x, weight),
        lambda: nn.functional.embedding(torch.tensor([0]), weight),
    )


MADE: list[Any] = [
    lambda p: torch.optim.SGD(p, LR),
    lambda p: torch.optim.SGD(p, LR, momentum=0.9),
    lambda p: torch.optim.SGD(p, LR, momentum=0.9, nesterov=True, weight_decay=0.1),
    lambda p: torch.optim.SGD(p, LR, maximize=True),
    *(
        getattr(torch.optim, name)
        for name in ("Adam", "AdamW", "Adagrad", "Adadelta", "Adamax", "ASGD", "NAdam")
    ),
    *(getattr(torch.optim, name) for name in ("RAdam", "RMSprop", "Rprop")),
    lambda p: torch.optim.SGD(p, LR, foreach=True),
    lambda p: torch.optim.Adam(p, foreach=True),
    lambda p: torch.optim.Adam(p, fused=True),
    lambda p: torch.optim.SGD(p, LR, fused=True),
    lambda p: torch.optim.SGD(p, LR, weight_decay=0.1),
]


@refused
def foreign_optimizer(w: World) -> None:
    """Refused at its first step, or at the latest by the zero_grad behind it."""

    def attempt(make: Any) -> None:
        w.zero_grad()
        optimizer = make(list(w.net.parameters()))
        w.loss().backward()
        optimizer.step()
        optimizer.zero_grad()

    def by_hand(write: Any) -> None:
        w.zero_grad()
        w.loss().backward()
        with torch.no_grad():
            for p in w.parameters:
                write(p)

    def assign(p: Any) -> None:
        p.data = p.data - LR * p.grad

    def returned() -> None:
        grads = torch.autograd.grad(w.loss(), w.parameters)
        with torch.no_grad():
            for p, g in zip(w.parameters, grads, strict=True):
                p.copy_(p - LR * g)

    def lbfgs() -> None:
        optimizer = torch.optim.LBFGS(w.net.parameters())

        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = w.loss()
            loss.backward()
            return loss

        optimizer.step(closure)

    writes = (
        lambda p: p.sub_(LR * p.grad),
        lambda p: p.data.sub_(p.grad, alpha=LR),
        lambda p: p.copy_(p - LR * p.grad),
        assign,
    )
    each(
        lbfgs,
        returned,
        *(lambda write=write: by_hand(write) for write in writes),
        *(lambda make=make: attempt(make) for make in MADE),
    )


@refused
def settings_of_other_optimizers(w: World) -> None:
    def later(key: str, value: float) -> None:
        w.optimizers[0].param_groups[0][key] = value
        try:
            w.loss().backward()
            w.optimizers[0].step()
        finally:
            del w.optimizers[0].param_groups[0][key]

    each(
        lambda: w.sgd([{"params": w.weights, "weight_decay": 0.5}]),
        lambda: w.sgd([{"params": w.weights, "momentum": 0.9, "nesterov": True}]),
        lambda: w.sgd([{"params": w.weights, "maximize": True}]),
        lambda: later("weight_decay", 0.1),
    )


@refused
def penalty_on_the_weight(w: World) -> None:
    """Refused by the step, whether or not the layer was read."""

    def attempt(read: bool) -> None:
        w.net.zero_grad()
        penalty = 0.5 * sum(weight.square().sum() for weight in w.weights)
        (penalty + w.loss() if read else penalty).backward()
        for optimizer in w.optimizers:
            optimizer.step()

    each(lambda: attempt(False), lambda: attempt(True))


@refused
def gradient_clipped_by_value(w: World) -> None:
    w.loss().backward()
    each(
        lambda: clip_grad_value_(w.net.parameters(), 0.1),
        lambda: clip_grad_value_(w.net.parameters(), 0.1, foreach=True),
        lambda: w.layer.weight.grad.clamp_(-1, 1),
        lambda: w.layer.weight.grad.add_(torch.randn(w.layer.weight.shape)),
        lambda: w.layer.weight.grad.data.clamp_(-1, 1),
        lambda: torch._foreach_clamp_max_([p.grad for p in w.parameters], 1.0),
        lambda: w.layer.weight.grad.nan_to_num_(),
        lambda: setattr(w.layer.weight, "grad", torch.zeros(w.layer.weight.shape)),
        lambda: setattr(w.layer.weight.grad, "data", torch.zeros(w.layer.weight.shape)),
        lambda: w.layer.weight.grad.__setitem__(0, 0.0),
        lambda: w.layer.weight.grad.__setitem__((slice(None), slice(2)), 0.0),
        lambda: w.layer.weight.grad.view(-1).mul_(0.5),
        lambda: w.layer.weight.grad.transpose(0, 1).mul_(0.5),
        lambda: w.layer.weight.grad.flatten()[3:].zero_(),
        lambda: [row.div_(2) for row in w.layer.weight.grad],
        lambda: w.layer.weight.grad.fill_diagonal_(0.0),
        lambda: w.layer.weight.grad.apply_(abs),
        lambda: w.layer.weight.grad.share_memory_(),
    )


@refused
def derivative_of_the_weight_gradient(w: World) -> None:
    each(
        lambda: w.loss().backward(create_graph=True),
        lambda: torch.autograd.grad(w.loss(), w.weights, create_graph=True),
    )


@refused
def converted_to_another_type(w: World) -> None:
    kinds = (torch.float64, torch.float16, torch.bfloat16)
    each(
        *(lambda kind=kind: w.net.to(kind) for kind in kinds),
        w.net.double,
        w.net.half,
        w.net.bfloat16,
        lambda: w.net.type(torch.float64),
    )


@refused
def traced_or_transformed(w: World) -> None:
    warnings.simplefilter("ignore")  # pytest restores the filters
    named = dict(w.net.named_parameters())
    each(
        lambda: torch.jit.trace(w.net, w.x),
        lambda: vmap(w.net)(w.x),
        lambda: grad(lambda x: w.net(x).sum())(w.x),
        lambda: torch.func.jvp(w.net, (w.x,), (w.x,)),
        lambda: grad(lambda named: functional_call(w.net, named, (w.x,)).sum())(named),
        lambda: torch.export.export(w.net, (w.x,), strict=False),
    )


def wrapped(w: World) -> None:
    net = DistributedDataParallel(w.net)
    nn.functional.mse_loss(net(w.x), w.y).backward()
    w.step()


def reduced(w: World) -> None:
    w.net.zero_grad()
    w.loss().backward()
    for p in w.parameters:
        torch.distributed.all_reduce(p.grad)


def sharded(w: World) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        net = fully_shard(copy.deepcopy(w.net))
        net(w.x)


@refused
def distributed_data_parallel(w: World) -> None:
    """A process group of one: the reducer does what it does with many."""
    with tempfile.TemporaryDirectory() as directory:
        torch.distributed.init_process_group(
            "gloo", init_method=f"file://{os.path.join(directory, 'store')}", rank=0, world_size=1
        )
        try:
            each(lambda: wrapped(w), lambda: reduced(w), lambda: sharded(w))
        finally:
            torch.distributed.destroy_process_group()

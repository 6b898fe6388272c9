"""Recipes of training loops that use torch in passing; see ``idiom_world.py``."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import register_multi_grad_hook
from torch.nn.functional import mse_loss
from torch.optim import lr_scheduler
from torch.optim.swa_utils import SWALR

from idiom_world import World, plain, row


@row()
def best_weights_restored(w: World) -> None:
    best = copy.deepcopy(w.net.state_dict())
    w.train(2)
    w.net.load_state_dict(best)
    w.train(1)


@row()
def rewound_by_data(w: World) -> None:
    best = [p.data.clone() for p in w.parameters]
    w.train(2)
    for p, values in zip(w.parameters, best, strict=True):
        p.data.copy_(values)
    w.train(1)


@row()
def averaged_state_dicts(w: World) -> None:
    one = copy.deepcopy(w.net.state_dict())
    w.train(1)
    other = w.net.state_dict()
    for name, value in one.items():
        one[name] = (value + other[name]) / 2 if torch.is_tensor(value) else other[name]
    w.net.load_state_dict(one)


@row()
def target_network(w: World) -> Tensor:
    target = copy.deepcopy(w.net).requires_grad_(False)
    for _ in range(2):
        w.zero_grad()
        with torch.no_grad():
            y = 0.5 * target(w.x)
        mse_loss(w.net(w.x), y).backward()
        w.step()
        for t, p in zip(target.parameters(), w.net.parameters(), strict=True):
            t.data.copy_(0.9 * t.data + 0.1 * p.data)
    with torch.no_grad():
        return target(w.x)


@row()
def masked_weights(w: World) -> None:
    mask = (w.layer.weight.abs() > 0.1).float()
    w.train(1)
    w.layer.weight.data *= mask
    w.layer.weight.data[w.layer.weight.data.abs() < 0.05] = 0
    w.train(1)


@row()
def clipped_by_hand(w: World) -> float:
    w.loss().backward()
    total = sum(p.grad.detach().data.norm(2).item() ** 2 for p in w.parameters) ** 0.5
    for p in w.parameters:
        p.grad.data.mul_(0.1 / (total + 1e-6))
    w.step()
    return total


@row()
def gradients_of_two_losses_added(w: World) -> None:
    w.loss().backward()
    kept = [p.grad.clone() for p in w.parameters]
    w.zero_grad()
    w.net(w.x).square().mean().backward()
    for p, g in zip(w.parameters, kept, strict=True):
        p.grad = p.grad - 0.5 * g
    w.step()


@row()
def gradients_handed_over(w: World) -> None:
    grads = torch.autograd.grad(w.loss(), w.parameters)
    for p, g in zip(w.parameters, grads, strict=True):
        p.grad = g
    w.step()


@row()
def importance_of_weights(w: World) -> list[Any]:
    w.loss().backward()
    found = [(p.grad * p.data).sum().item() for p in w.parameters]
    found += [(p.grad.norm() / p.norm()).item() for p in w.parameters]
    found += [torch.histc(p.grad, 5) for p in w.parameters]
    w.step()
    return found


@row()
def adversarial_example(w: World) -> Tensor:
    x = w.x.clone().requires_grad_()
    w.loss()
    w.net(x).square().sum().backward()
    w.zero_grad()
    assert x.grad is not None
    mse_loss(w.net(w.x + 0.1 * x.grad.sign()), w.y).backward()
    w.step()
    return x.grad


@row()
def jacobian_row_by_row(w: World) -> Tensor:
    x = w.x.clone().requires_grad_()
    y = w.net(x)
    rows = [torch.autograd.grad(y[:, i].sum(), x, retain_graph=True)[0] for i in range(3)]
    y.square().sum().backward()
    w.step()
    return torch.stack(rows)


@row(plain)
def hook_on_all_gradients(w: World) -> list[int]:
    counted: list[int] = []
    handle = register_multi_grad_hook(
        tuple(w.net.parameters()), lambda grads: counted.append(sum(g is not None for g in grads))
    )
    w.train(2)
    handle.remove()
    return counted


@row()
def swa_and_cosine_rates(w: World) -> None:
    cosine = [lr_scheduler.CosineAnnealingWarmRestarts(one, 2) for one in w.optimizers]
    swa = [SWALR(one, swa_lr=0.02, anneal_epochs=2) for one in w.optimizers]
    for schedulers in (cosine, swa, cosine):
        w.train(1)
        for scheduler in schedulers:
            scheduler.step()
    w.train(1)


@row(plain, hosts=("bare", "converted"))
def groups_with_names(w: World) -> None:
    optimizers = [w.sgd(list(w.net.named_parameters()))]
    optimizers.append(w.sgd([{"params": w.parameters, "name": "all"}]))
    for optimizer in optimizers:
        optimizer.zero_grad()
        w.loss().backward()
        optimizer.step()


@row(plain)
def anomaly_detection(w: World) -> None:
    with torch.autograd.set_detect_anomaly(True, check_nan=True):
        w.train(2)


@row(plain)
def saved_tensors_elsewhere(w: World) -> None:
    with torch.autograd.graph.save_on_cpu():
        w.train(2)


@row()
def more_initialisers(w: World) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(5)
        for layer in w.layers:
            nn.init.orthogonal_(layer.weight)
            nn.init.kaiming_normal_(layer.weight)
            nn.init.trunc_normal_(layer.weight, std=0.1)
    w.train(2)

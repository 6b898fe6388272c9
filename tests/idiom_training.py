"""Idioms of torch around gradients and optimizers; see ``idiom_world.py``."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss
from torch.nn.utils import clip_grad_norm_
from torch.optim import lr_scheduler

from idiom_world import LR, World, plain, row

# ---- forgetting and accumulating ----


@row(plain)
def plain_training(w: World) -> None:
    w.train(2)


def discarded(w: World) -> None:
    """The own road of a backward pass that is forgotten: its reads happen."""
    w.loss().backward()
    w.zero_grad()
    w.train(2)


@row(discarded)
def zero_grad_of_the_model(w: World) -> None:
    w.loss().backward()
    w.net.zero_grad()
    w.train(2)


@row(discarded)
def zero_grad_of_the_optimizer_to_zero(w: World) -> None:
    w.loss().backward()
    for optimizer in w.optimizers:
        optimizer.zero_grad(set_to_none=False)
    w.train(2)


@row(discarded)
def zero_grad_of_the_model_to_zero(w: World) -> None:
    w.loss().backward()
    w.net.zero_grad(set_to_none=False)
    w.train(2)


@row(discarded)
def grad_set_to_none(w: World) -> None:
    w.loss().backward()
    for p in w.net.parameters():
        p.grad = None
    w.train(2)


@row(discarded)
def grad_deleted(w: World) -> None:
    w.loss().backward()
    for p in w.net.parameters():
        del p.grad
    w.train(2)


@row(plain)
def no_gradient_before_backward(w: World) -> list[bool]:
    found = [p.grad is None for p in w.net.parameters()]
    w.zero_grad()
    w.train(2)
    w.zero_grad()
    return found + [p.grad is None for p in w.net.parameters()]


def accumulated(w: World) -> None:
    w.loss().backward()
    w.loss().backward()
    w.step()


@row(accumulated)
def accumulation(w: World) -> list[Any]:
    w.zero_grad()
    for _ in range(2):
        w.loss().backward()
    found = [p.grad.clone() for p in w.parameters]
    w.step()
    return found


@row()
def accumulation_of_scaled_losses(w: World) -> None:
    for part in (slice(0, 4), slice(4, 6)):
        (mse_loss(w.net(w.x[part]), w.y[part]) * len(w.x[part]) / 6).backward()
    w.step()


@row()
def backward_twice_through_one_graph(w: World) -> None:
    loss = w.loss()
    loss.backward(retain_graph=True)
    loss.backward()
    w.step()


@row()
def layer_used_twice(w: World) -> None:
    (w.loss() + 2 * w.net(w.x.flip(0)).square().mean()).backward()
    w.step()


@row(plain)
def closure(w: World) -> list[float]:
    losses = []
    for _ in range(2):
        w.zero_grad()
        loss = w.loss()
        loss.backward()
        for optimizer in w.optimizers[:-1]:
            optimizer.step()
        losses.append(w.optimizers[-1].step(lambda loss=loss: loss.item()))
    return losses


@row()
def step_without_zero_grad(w: World) -> list[Any]:
    """Torch's gradients stay behind a step, and the next one applies them again."""
    for _ in range(2):
        w.loss().backward()
        w.step()
    found = [p.grad.clone() for p in w.parameters]
    w.step()
    w.zero_grad()
    w.step()
    return found


# ---- learning rates and groups ----


def with_rates(w: World, rates: tuple[float, ...]) -> None:
    for rate in rates:
        for optimizer in w.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
        w.train(1)


@row(lambda w: with_rates(w, (LR, LR / 4, LR / 16)))
def step_lr(w: World) -> None:
    schedulers = [lr_scheduler.StepLR(one, 1, 0.25) for one in w.optimizers]
    for _ in range(3):
        w.train(1)
        for scheduler in schedulers:
            scheduler.step()


@row()
def one_cycle_lr(w: World) -> None:
    schedulers = [
        lr_scheduler.OneCycleLR(one, LR, total_steps=4, cycle_momentum=False)
        for one in w.optimizers
    ]
    for _ in range(3):
        w.train(1)
        for scheduler in schedulers:
            scheduler.step()


@row()
def plateau_and_warm_up(w: World) -> None:
    warm = [lr_scheduler.LambdaLR(one, lambda k: min(1.0, (k + 1) / 3)) for one in w.optimizers]
    plateau = [lr_scheduler.ReduceLROnPlateau(one, patience=0) for one in w.optimizers]
    w.train(1)
    for one, other in zip(warm, plateau, strict=True):
        one.step()
        other.step(1.0)
        other.step(2.0)
    w.train(2)


@row()
def groups_of_their_own_rate(w: World) -> None:
    optimizer = w.sgd([{"params": w.weights, "lr": 0.05}])
    optimizer.add_param_group({"params": [layer.bias for layer in w.layers], "weight_decay": 0.0})
    for _ in range(2):
        optimizer.zero_grad()
        w.loss().backward()
        optimizer.step()


@row(plain)
def parameter_is_the_one_in_the_model(w: World) -> list[bool]:
    held = {id(p) for p in w.net.parameters()}
    w.train(2)
    same = [id(weight) in held and isinstance(weight, nn.Parameter) for weight in w.weights]
    return [
        *same,
        *(weight is layer.weight for weight, layer in zip(w.weights, w.layers, strict=True)),
    ]


# ---- changing gradients ----


def scaled(w: World, factor: float) -> None:
    def between(parameters: list[Any]) -> None:
        for p in parameters:
            if hasattr(p, "cell"):
                p.cell.forget([(x, d * factor) for x, d in p.cell.pending])
            else:
                p.grad.mul_(factor)

    w.train(2, between)


@row(lambda w: scaled(w, 0.5))
def gradients_halved(w: World) -> None:
    w.train(2, lambda parameters: [p.grad.mul_(0.5) for p in parameters])


@row(lambda w: scaled(w, 0.5))
def gradients_divided(w: World) -> None:
    def between(parameters: list[Any]) -> None:
        for p in parameters:
            p.grad /= 2

    w.train(2, between)


@row(lambda w: scaled(w, 0.5))
def gradients_replaced_by_their_half(w: World) -> None:
    def between(parameters: list[Any]) -> None:
        for p in parameters:
            p.grad = 0.5 * p.grad

    w.train(2, between)


@row()
def clip_of_the_norm(w: World) -> list[Tensor]:
    norms: list[Tensor] = []
    w.train(2, lambda parameters: norms.append(clip_grad_norm_(parameters, 0.05)))
    return norms


@row()
def clip_of_the_norm_foreach(w: World) -> list[Tensor]:
    norms: list[Tensor] = []
    w.train(
        2, lambda parameters: norms.append(clip_grad_norm_(parameters, 0.01, math.inf, True, True))
    )
    return norms


@row(plain)
def gradients_read(w: World) -> list[Any]:
    found: list[Any] = []

    def between(parameters: list[Any]) -> None:
        flat = torch.cat([p.grad.view(-1) for p in parameters])
        found.extend([flat.norm(), flat.abs().max(), bool(torch.isfinite(flat).all())])
        for p in parameters:
            found.extend([p.grad.clone().sum(), p.grad.detach().square().mean(), p.grad.shape])
            found.append(torch.tensor(p.grad.tolist()))
            found.append(torch.from_numpy(p.grad.numpy().copy()))
            found.append(p.grad.is_sparse or p.grad.dtype is not torch.float32)

    w.train(2, between)
    return found


def scaler(w: World) -> Any:
    return torch.amp.GradScaler("cpu", init_scale=1024.0)


@row(plain)
def grad_scaler(w: World) -> None:
    amp = scaler(w)
    for _ in range(2):
        w.zero_grad()
        amp.scale(w.loss()).backward()
        for optimizer in w.optimizers:
            amp.step(optimizer)
        amp.update()


@row()
def grad_scaler_and_clip(w: World) -> list[Tensor]:
    amp, norms = scaler(w), []
    for _ in range(2):
        w.zero_grad()
        amp.scale(w.loss()).backward()
        for optimizer in w.optimizers:
            amp.unscale_(optimizer)
        norms.append(clip_grad_norm_(w.net.parameters(), 0.05))
        for optimizer in w.optimizers:
            amp.step(optimizer)
        amp.update()
    return norms


@row()
def grad_scaler_skips_what_overflows(w: World) -> float:
    """Finite errors whose product with the inputs is not."""
    amp = torch.amp.GradScaler("cpu", init_scale=2.0**127)
    w.x[0] = 2e3 * w.x[0]
    amp.scale(w.net(w.x).mean()).backward()
    for optimizer in w.optimizers:
        amp.step(optimizer)
    amp.update()
    w.x[0] = w.x[0] / 2e3
    w.zero_grad()
    w.train(1)
    return float(amp.get_scale())


# ---- hooks ----


@row(plain)
def forward_hooks(w: World) -> list[Tensor]:
    seen: list[Tensor] = []
    handles = [
        w.layer.register_forward_hook(lambda m, inputs, y: seen.append(y.detach().sum())),
        w.layer.register_forward_pre_hook(lambda m, inputs: seen.append(inputs[0].sum())),
    ]
    w.train(2)
    for handle in handles:
        handle.remove()
    return [seen[0], seen[2]]


@row()
def forward_hook_that_changes_the_output(w: World) -> None:
    handle = w.layer.register_forward_hook(lambda m, inputs, y: 2 * y)
    w.train(2)
    handle.remove()


@row(plain, hosts=("converted", "staged"))
def full_backward_hooks(w: World) -> list[Tensor]:
    seen: list[Tensor] = []
    layer = w.layers[-1]
    handles = [
        layer.register_full_backward_hook(lambda m, g, d: seen.append(d[0].sum())),
        layer.register_full_backward_pre_hook(lambda m, d: seen.append(d[0].norm())),
    ]
    w.train(2)
    for handle in handles:
        handle.remove()
    return seen


@row()
def hook_on_an_activation(w: World) -> None:
    def forward(module: nn.Module, inputs: Any, y: Tensor) -> None:
        if y.requires_grad:
            y.register_hook(lambda d: 0.5 * d)

    handle = w.layer.register_forward_hook(forward)
    w.train(2)
    handle.remove()


@row(lambda w: halved_first_weight(w))
def hook_on_the_weight(w: World) -> list[Tensor]:
    seen: list[Tensor] = []

    def hook(g: Tensor) -> Tensor:
        seen.append(g)
        return 0.5 * g

    handle = w.layer.weight.register_hook(hook)
    w.train(2)
    handle.remove()
    w.train(1)
    return [g.norm() for g in seen]


def halved_first_weight(w: World) -> None:
    def between(parameters: list[Any]) -> None:
        for p in parameters:
            if p is w.layer.weight:
                p.cell.forget([(x, 0.5 * d) for x, d in p.cell.pending])

    w.train(2, between)
    w.train(1)


@row(plain, hosts=("bare", "converted"))
def optimizer_in_the_backward_pass(w: World) -> None:
    own = {p: w.sgd([p]) for p in w.net.parameters()}

    def step(p: Any) -> None:
        own[p].step()
        own[p].zero_grad()

    handles = [p.register_post_accumulate_grad_hook(step) for p in own]
    for _ in range(2):
        w.loss().backward()
    for handle in handles:
        handle.remove()


# ---- backward passes for something else ----


@row()
def gradient_of_the_input(w: World) -> Tensor:
    x = w.x.clone().requires_grad_()
    (g,) = torch.autograd.grad(w.net(x).square().sum(), x)
    w.step()  # nothing is pending
    w.train(1)
    return g


@row()
def gradient_of_the_weight_returned(w: World) -> list[Any]:
    found = torch.autograd.grad(w.loss(), w.weights)
    w.step()
    w.train(1)
    return [g.clone() + 0 for g in found]


@row()
def backward_for_some_inputs(w: World) -> list[bool]:
    w.loss().backward(inputs=[w.layers[-1].bias])
    found = [p.grad is None for p in w.parameters]
    w.step()
    return found


@row()
def gradient_penalty(w: World) -> Tensor:
    z = w.x.clone().requires_grad_()
    y = w.net(z)
    (g,) = torch.autograd.grad(y.square().sum(), z, create_graph=True)
    penalty = (g.norm(dim=1) - 1).square().mean()
    (mse_loss(y, w.y) + 0.1 * penalty).backward()
    w.step()
    return penalty.detach()


@row()
def hessian_times_vector(w: World) -> Any:
    def f(x: Tensor) -> Tensor:
        return w.net(x).tanh().square().sum()

    found = torch.autograd.functional.vhp(f, w.x, w.y.sum(1, keepdim=True).expand(6, 8))[1]
    w.zero_grad()
    w.train(1)
    return found


@row()
def third_derivative(w: World) -> Tensor:
    x = w.x.clone().requires_grad_()
    g = w.net(x).tanh().sum()
    for _ in range(2):
        (g,) = torch.autograd.grad(g.sum(), x, create_graph=True)
    g.square().sum().backward()
    w.step()
    return g.detach()

"""Idioms that somebody found who had not seen the others; see ``idiom_world.py``."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from idiom_world import World, row


def numbers(values: Tensor) -> Tensor:
    """A copy that is nobody's view."""
    return values.detach().clone()


@row()
def order_of_parameters(w: World) -> list[Any]:
    """Weight before bias, layer by layer: vectors of one model fit the other."""
    vector = parameters_to_vector(w.net.parameters()).detach().clone()
    with torch.no_grad():
        vector_to_parameters(vector * 0.5, w.net.parameters())
    w.train(1)
    return [vector, [tuple(p.shape) for p in w.net.parameters()]]


@row()
def state_loaded_while_gradients_wait(w: World) -> list[bool]:
    w.loss().backward()
    w.net.load_state_dict(w.net.state_dict())
    found = [p.grad is not None for p in w.parameters]
    w.step()
    return found


@row()
def frozen_between_forward_and_backward(w: World) -> bool:
    loss = w.loss()
    w.layer.weight.requires_grad_(False)
    loss.backward()
    found = w.layer.weight.grad is None
    w.step()
    w.layer.weight.requires_grad_(True)
    w.train(1)
    return found


@row()
def parameters_drawn_anew(w: World) -> None:
    """As between the folds of a cross validation."""
    w.train(1)
    torch.manual_seed(7)
    for module in w.net.modules():
        if isinstance(module, nn.Linear) or hasattr(module, "reset_parameters"):
            module.reset_parameters()  # type: ignore[operator]
    w.train(1)


@row()
def parts_of_gradients_read(w: World) -> list[Any]:
    w.loss().backward()
    g = w.layer.weight.grad
    found = [numbers(g[0].norm()), numbers(g[:, 1].sum()), numbers(g.view(-1).abs().max())]
    found += [
        numbers(torch.cat([row.flatten() for row in g])),
        numbers(torch.zeros(g.shape).copy_(g[:])),
    ]
    found.append(float(g[0, 0].sum()))
    w.step()
    return found

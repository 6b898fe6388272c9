"""Idioms of torch around weights, modes, copies and states; see ``idiom_world.py``."""

from __future__ import annotations

import copy
import io
import pickle
import warnings
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils import parameters_to_vector, vector_to_parameters
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.checkpoint import checkpoint

from idiom_world import World, numbers, plain, row

# ---- modes ----


@row()
def frozen_layer(w: World) -> bool:
    w.layer.weight.requires_grad_(False)
    w.train(2)
    without = w.layer.weight.grad is None
    w.layer.requires_grad_(True)
    w.train(1)
    return without


@row()
def frozen_by_the_attribute(w: World) -> None:
    w.layers[-1].weight.requires_grad = False
    w.train(2)


@row()
def training_in_eval(w: World) -> None:
    w.net.eval()
    for _ in range(2):
        w.zero_grad()
        w.loss().backward()
        w.step()


@row(plain)
def evaluation_between(w: World) -> Tensor:
    w.train(1)
    w.net.eval()
    with torch.no_grad():
        y = w.net(w.x)
    with torch.inference_mode():
        z = w.net(w.x).clone()
    w.net.train()
    w.train(1)
    return torch.stack([y, z])


@row()
def activation_checkpoint(w: World) -> None:
    for reentrant in (False, True):
        w.zero_grad()
        x = w.x.clone().requires_grad_()
        y = checkpoint(w.net, x, use_reentrant=reentrant)
        nn.functional.mse_loss(y, w.y).backward()
        w.step()


# bfloat16 keeps 8 bits of a product that torch computes in it: 2^-9 of values below 4, twice.
@row(plain, atol=2**-6)
def autocast(w: World) -> Tensor:
    for _ in range(2):
        w.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            y = w.net(w.x)
        nn.functional.mse_loss(y.float(), w.y).backward()
        w.step()
    with torch.autocast("cpu", torch.bfloat16):
        return w.net(w.x.bfloat16()).detach().float()


@row(plain)
def compiled(w: World) -> None:
    warnings.simplefilter("ignore")  # about torch's own calls; pytest restores the filters
    torch.compiler.reset()
    net = torch.compile(w.net, backend="aot_eager")
    w.zero_grad()
    nn.functional.mse_loss(net(w.x), w.y).backward()
    w.step()

    def step() -> None:
        w.zero_grad()
        w.loss().backward()
        w.step()

    torch.compile(step, backend="eager")()


@row(plain)
def moved_and_typed_as_it_is(w: World) -> None:
    w.net.cpu().float().to("cpu").to(torch.float32).share_memory()
    w.train(2)


@row()
def inputs_of_three_dimensions(w: World) -> Tensor:
    y = w.net(w.x.reshape(2, 3, 8))
    y.square().mean().backward()
    w.step()
    return y.detach()


# ---- copies and states ----


@row(plain)
def deep_copy(w: World) -> list[bool]:
    w.train(1)
    w.adopt(copy.deepcopy(w.net))
    without = [p.grad is None for p in w.net.parameters()]
    w.train(1)
    return without


@row()
def deep_copy_forgets_gradients(w: World) -> list[bool]:
    w.zero_grad()
    w.loss().backward()
    w.adopt(copy.deepcopy(w.net))
    without = [p.grad is None for p in w.net.parameters()]
    w.step()
    return without


@row(plain)
def pickled(w: World) -> None:
    w.train(1)
    w.adopt(pickle.loads(pickle.dumps(w.net)))
    w.train(1)


@row(plain)
def whole_model_saved(w: World) -> None:
    w.train(1)
    file = io.BytesIO()
    torch.save(w.net, file)
    file.seek(0)
    w.adopt(torch.load(file, weights_only=False))
    w.train(1)


@row(plain)
def state_dict_loaded(w: World) -> None:
    w.train(1)
    file = io.BytesIO()
    torch.save(w.net.state_dict(), file)
    file.seek(0)
    w.adopt(w.fresh())
    w.net.load_state_dict(torch.load(file, weights_only=True))
    w.train(1)


@row(plain)
def state_dict_assigned(w: World) -> None:
    w.train(1)
    state = copy.deepcopy(w.net.state_dict())
    w.adopt(w.fresh())
    w.net.load_state_dict(state, assign=True)
    w.adopt(w.net)
    w.train(1)


@row(plain)
def optimizer_state_loaded(w: World) -> None:
    w.train(1)
    for optimizer in w.optimizers:
        optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    w.train(1)


@row(hosts=("bare",))
def copied_back_to_a_digital_layer(w: World) -> list[Tensor]:
    w.train(1)
    found = []
    for n in range(2):
        layer = nn.Linear(8, 3)
        if n:
            layer.weight = nn.Parameter(w.layer.weight.detach().clone())
            layer.bias.data = w.layer.bias.data.clone()
        else:
            layer.weight.data.copy_(w.layer.weight)
            layer.bias.data.copy_(w.layer.bias)
        found.append(layer(w.x).detach())
    return found


# ---- averages of models ----


def averaged_by(w: World, averaged: AveragedModel) -> list[Tensor]:
    for _ in range(3):
        w.train(1)
        averaged.update_parameters(w.net)
    return outputs(averaged, w.x)


@row()
def ema(w: World) -> list[Tensor]:
    return averaged_by(w, AveragedModel(w.net, multi_avg_fn=get_ema_multi_avg_fn(0.5)))


@row()
def swa(w: World) -> list[Tensor]:
    return averaged_by(w, AveragedModel(w.net))


@row()
def ema_by_hand(w: World) -> list[Tensor]:
    averaged = copy.deepcopy(w.net).requires_grad_(False)
    for _ in range(2):
        w.train(1)
        with torch.no_grad():
            for a, p in zip(averaged.parameters(), w.net.parameters(), strict=True):
                a.lerp_(p, 0.5)
                a.data.mul_(0.5).add_(p.data, alpha=0.5)
    return outputs(averaged, w.x)


def outputs(model: nn.Module, x: Tensor) -> list[Tensor]:
    model.eval()
    with torch.no_grad():
        return [model(x)]


# ---- writing and reading weights ----


def programmed(values: Any) -> Any:
    """The own road of a write: program every layer, then train."""

    def run(w: World) -> None:
        for n, layer in enumerate(w.layers):
            layer.cell.program(values(n, layer))
        w.train(2)

    return run


def constant(n: int, layer: Any) -> Tensor:
    return torch.full(layer.weight.shape, 0.125)


def drawn(n: int, layer: Any) -> Tensor:
    return numbers(*layer.weight.shape, seed=n) / 4


@row(programmed(constant))
def init_constant(w: World) -> None:
    for layer in w.layers:
        nn.init.constant_(layer.weight, 0.125)
    w.train(2)


@row()
def init_by_apply(w: World) -> None:
    def init(module: nn.Module) -> None:
        if hasattr(module, "in_features"):
            generator = torch.Generator().manual_seed(3)
            nn.init.xavier_uniform_(module.weight, generator=generator)
            nn.init.zeros_(module.bias)

    w.net.apply(init)
    w.train(2)


@row(programmed(drawn))
def copy_into_the_weight(w: World) -> None:
    with torch.no_grad():
        for n, layer in enumerate(w.layers):
            layer.weight.copy_(drawn(n, layer))
    w.train(2)


@row(programmed(drawn))
def copy_into_data(w: World) -> None:
    for n, layer in enumerate(w.layers):
        layer.weight.data.copy_(drawn(n, layer))
    w.train(2)


@row(programmed(drawn))
def data_assigned(w: World) -> None:
    for n, layer in enumerate(w.layers):
        layer.weight.data = drawn(n, layer)
    w.train(2)


@row()
def parts_written(w: World) -> None:
    for layer in w.layers:
        with torch.no_grad():
            layer.weight[0, 0] = 0.25
            layer.weight.view(-1)[1:3].fill_(-0.125)
            layer.weight.mul_(0.5)
        layer.weight.data[1].zero_()
        for line in layer.weight.detach():
            line[-1] = 0.375
        layer.weight.data.chunk(2, dim=1)[0].add_(0.0625)
        layer.weight.detach()[:, 2:4] += 0.125
    w.train(2)


@row(programmed(lambda n, layer: 0.5 * layer.cell.effective_weight()))
def weights_scaled_in_a_list(w: World) -> None:
    with torch.no_grad():
        torch._foreach_mul_(w.weights, 0.5)
    w.train(2)


@row()
def weights_clamped_after_steps(w: World) -> None:
    for _ in range(2):
        w.train(1)
        w.zero_grad()
        for p in w.net.parameters():
            p.data.clamp_(-0.125, 0.125)


@row(programmed(drawn))
def vector_into_parameters(w: World) -> Tensor:
    before = parameters_to_vector(w.net.parameters()).detach().clone()
    with torch.no_grad():
        parts = [t.reshape(-1) for n, layer in enumerate(w.layers) for t in ordered(n, layer)]
    vector_to_parameters(torch.cat(parts).detach().clone(), w.net.parameters())
    w.train(2)
    return before.sort().values


def ordered(n: int, layer: Any) -> list[Tensor]:
    """In the order of the layer's own parameters: nn.Linear has its weight first."""
    return [drawn(n, layer) if p is layer.weight else p.detach() for p in layer.parameters()]


@row(plain)
def weights_read(w: World) -> list[Any]:
    weight = w.layer.weight
    found = [
        weight.norm(),
        weight.abs().mean(),
        weight.sum(),
        weight[0].clone(),
        weight.detach().transpose(0, 1).clone(),
    ]
    found += [torch.linalg.svdvals(weight), torch.stack([weight, weight]), weight.detach() * 2]
    found += [torch.tensor(weight.tolist()), torch.from_numpy(weight.detach().numpy().copy())]
    found += [weight.shape, weight.numel(), weight.is_leaf, weight.requires_grad, weight.dtype]
    found += [(weight > 0).sum(), weight.double(), sum(p.numel() for p in w.net.parameters())]
    found = [t.detach() if isinstance(t, Tensor) else t for t in found]
    w.train(2)
    return found


@row(plain)
def weights_in_a_logged_loss(w: World) -> list[Tensor]:
    penalties = []
    for _ in range(2):
        w.zero_grad()
        loss = w.loss()
        penalties.append(sum(weight.detach().square().sum() for weight in w.weights))
        (loss + penalties[-1]).backward()
        w.step()
    return penalties


@row(plain)
def functional_call_with_its_own_parameters(w: World) -> Tensor:
    y = functional_call(w.net, dict(w.net.named_parameters()), (w.x,))
    nn.functional.mse_loss(y, w.y).backward()
    w.step()
    w.zero_grad()
    w.train(1)
    return y.detach()

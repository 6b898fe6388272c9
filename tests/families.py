"""Three families that are no nn.Sequential, on noisy crossbars: a ResNet, a GPT and an LSTM.

Small, but with all that a cut must respect: skips, batch statistics, token ids, masks, positions,
dropout as a layer and as a function, branches on ``self.training``, in-place operations.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

import pulseline as pl
from pulseline.pipeline import Pipeline

TOKENS, LENGTH, WIDTH, CLASSES = 12, 5, 8, 3
SIZE = 3
LR = 0.05


class Residual(nn.Module):
    """Two convolutions and a skip; the sum and what follows happen in place."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.norm1(self.conv1(x)))
        y = self.norm2(self.conv2(y))
        y += x
        return self.relu(y)  # type: ignore[no-any-return]


class ResNet(nn.Module):
    """A stem, three residual blocks, a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3, padding=1)
        self.blocks = nn.ModuleList(Residual(4) for _ in range(3))
        self.head = nn.Linear(4, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean((2, 3)))  # type: ignore[no-any-return]


class Attention(nn.Module):
    """Stays whole: what it does depends on ``self.training``."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.out = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        samples, length, _ = x.shape
        q, k, v = self.qkv(x).view(samples, length, 3, 2, WIDTH // 2).permute(2, 0, 3, 1, 4)
        y = functional.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, dropout_p=0.1 if self.training else 0.0
        )
        return self.out(y.transpose(1, 2).reshape(x.shape))  # type: ignore[no-any-return]


class Block(nn.Module):
    """Of a transformer, cut open by the graph: two skips."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.attention = Attention()
        self.wide = nn.Sequential(
            nn.Linear(WIDTH, 2 * WIDTH), nn.GELU(), nn.Linear(2 * WIDTH, WIDTH), nn.Dropout(0.1)
        )

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x), mask)
        return x + self.wide(self.norm2(x))


class GPT(nn.Module):
    """Token ids in, a mask that rides with them, positions, digital embeddings."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(TOKENS, WIDTH)
        self.positions = nn.Parameter(torch.randn(LENGTH, WIDTH) * 0.1)
        self.blocks = nn.ModuleList(Block() for _ in range(2))
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, TOKENS)
        self.register_buffer("causal", torch.ones(LENGTH, LENGTH).tril().bool())

    def forward(self, ids: Tensor, padding: Tensor | None = None) -> Tensor:
        length = ids.shape[1]
        mask: Any = self.causal[:length, :length]  # type: ignore[index]
        if padding is not None:
            mask = mask & padding[:, None, None, :]
        x = self.tokens(ids) + self.positions[torch.arange(length, device=ids.device)]
        for block in self.blocks:
            x = block(x, mask)
        return self.head(self.norm(x))  # type: ignore[no-any-return]


class Recurrent(nn.Module):
    """Two LSTMs; the last state is classified."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(TOKENS, WIDTH)
        self.first = nn.LSTM(WIDTH, WIDTH, batch_first=True)
        self.dropout = nn.Dropout(0.1)
        self.second = nn.LSTM(WIDTH, WIDTH, batch_first=True)
        self.head = nn.Linear(WIDTH, CLASSES)

    def forward(self, ids: Tensor) -> Tensor:
        y, _ = self.first(self.tokens(ids))
        y, (state, _) = self.second(self.dropout(y))
        return self.head(state[-1])  # type: ignore[no-any-return]


def next_token(out: Tensor, ids: Tensor) -> Tensor:
    """Cross entropy of every next token."""
    return functional.cross_entropy(out[:, :-1].flatten(0, 1), ids[:, 1:].flatten())


class Family(NamedTuple):
    """A model's class, its loss, and names at which four stages begin."""

    kind: type[nn.Module]
    loss: Any
    names: tuple[str, str, str]


FAMILIES = {
    "resnet": Family(
        ResNet, functional.cross_entropy, ("blocks.0.conv2", "blocks.1", "blocks.2.conv2")
    ),
    "gpt": Family(GPT, next_token, ("blocks.0", "blocks.0.norm2", "blocks.1.wide")),
    "lstm": Family(Recurrent, functional.cross_entropy, ("first", "second", "head")),
}


def digital(name: str) -> nn.Module:
    """The model, always with the same weights."""
    torch.manual_seed(0)
    return FAMILIES[name].kind()


def analog(name: str) -> nn.Module:
    """... on SoftBounds crosspoints: converters, noise and pulses on."""
    device = pl.devices.SoftBounds(w_max=1.0, w_min=-1.0, dw_min=0.002)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # small layers have large weights
        return pl.to_analog(digital(name), device, seed=3)  # type: ignore[no-any-return]


def samples(name: str, count: int) -> tuple[Any, Tensor]:
    """``count`` micro-batches, the last one shorter; a GPT's are ids and padding."""
    generator = torch.Generator().manual_seed(9)
    n = count * SIZE - 1
    ids = torch.randint(TOKENS, (n, LENGTH), generator=generator)
    if name == "resnet":
        x = torch.randn(n, 1, 6, 6, generator=generator)
        return x, torch.randint(CLASSES, (n,), generator=generator)
    if name == "gpt":
        return {"ids": ids, "padding": torch.arange(LENGTH) < 5 - ids[:, :1] % 2}, ids
    return ids, torch.randint(CLASSES, (n,), generator=generator)


def taken(x: Any, part: slice) -> Any:
    """Some samples of an input."""
    return {k: v[part] for k, v in x.items()} if isinstance(x, dict) else x[part]


def optimizer(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    return pl.optim.AnalogSGD(parameters, lr=LR)


def build(name: str, stages: Any, model: nn.Module | None = None, **options: Any) -> Pipeline:
    """A pipeline of an analog model of the family."""
    return Pipeline(
        analog(name) if model is None else model,
        stages,
        optimizer=optimizer,
        loss=FAMILIES[name].loss,
        inputs=("ids", "padding") if name == "gpt" else None,
        **({"micro_batch_size": SIZE, "seed": 1} | options),
    )


def trained(
    pipe: Pipeline,
    name: str,
    count: int = 8,
    cut: int = 3,
    snapshots: list[Any] | None = None,
) -> list[float]:
    """Train, ``cut`` micro-batches per step; the losses. Snapshots, taken in between where there
    is a list for them, change nothing."""
    x, y = samples(name, count)
    losses = []
    for at in range(0, len(y), cut * SIZE):
        losses.append(pipe.step(taken(x, slice(at, at + cut * SIZE)), y[at : at + cut * SIZE]))
        if snapshots is not None:
            snapshots.append(pipe.eval(x, snapshot=True).tolist())
            assert not pipe.flushed
    return torch.cat([*losses, pipe.drain()]).tolist()  # type: ignore[no-any-return]


class Outcome(NamedTuple):
    """All that must not depend on the executor."""

    digest: str
    losses: list[float]
    events: list[Any]
    output: list[Any]


def outcome(pipe: Pipeline, name: str, snapshots: list[Any] | None = None) -> Outcome:
    """Train, evaluate, and look at everything."""
    losses = trained(pipe, name, snapshots=snapshots)
    x, _ = samples(name, 2)
    return Outcome(pipe.digest(), losses, pipe.events(), pipe.eval(x).tolist())

"""Networks in plain torch: an MLP, LeNet-5, a ResNet of ten layers, a GPT of bytes.

They hold what a pipeline can cut and :func:`pulseline.to_analog` converts: modules that are called
as a whole, no branch on values.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..errors import ConfigError

__all__ = ["GPT", "WIDTHS", "Block", "CausalAttention", "ResNet", "Residual", "lenet", "mlp"]

WIDTHS = (64, 128, 128, 64, 10)


def mlp(seed: int, widths: Sequence[int] = WIDTHS) -> nn.Sequential:
    """A digital tanh network without bias, weights normal with std 2/sqrt(n_in).

    Args:
        seed: of torch's generator that draws them. widths: units of every layer, inputs first.
    """
    generator = torch.Generator().manual_seed(seed)
    layers: list[nn.Module] = []
    for n_in, n_out in pairwise(widths):
        layer = nn.Linear(n_in, n_out, bias=False)
        with torch.no_grad():
            layer.weight.normal_(0.0, 2 / math.sqrt(n_in), generator=generator)
        layers += [layer, nn.Tanh()]
    return nn.Sequential(*layers[:-1])


def lenet(shape: Sequence[int] = (1, 28, 28), classes: int = 10) -> nn.Sequential:
    """LeNet-5 (LeCun et al. 1998) with maximum pooling: 6 and 16 filters of 5 x 5, 120, 84.

    Args:
        shape: of an image, (channels, rows, columns); the second convolution is padded where rows
            or columns are fewer than 16. classes: outputs.

    Raises:
        ConfigError: images are smaller than 4 x 4.
    """
    channels, rows, columns = shape
    if min(rows, columns) < 4:
        raise ConfigError(f"images are {rows} x {columns}; use at least 4 x 4 for lenet")
    padding = 2 if min(rows, columns) < 16 else 0
    left = [(n // 2 - 4 + 2 * padding) // 2 for n in (rows, columns)]
    return nn.Sequential(
        *(nn.Conv2d(channels, 6, 5, padding=2), nn.Tanh(), nn.MaxPool2d(2)),
        *(nn.Conv2d(6, 16, 5, padding=padding), nn.Tanh(), nn.MaxPool2d(2), nn.Flatten()),
        *(nn.Linear(16 * left[0] * left[1], 120), nn.Tanh()),
        *(nn.Linear(120, 84), nn.Tanh(), nn.Linear(84, classes)),
    )


class Residual(nn.Module):
    """Two convolutions of 3 x 3, each with batch statistics, and a skip.

    Args:
        inputs, outputs: channels. stride: of the first convolution; where it is not 1, or channels
            differ, the skip is a convolution of 1 x 1.
    """

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.skip: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.skip = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        """(samples, inputs, rows, columns) to (samples, outputs, rows / stride, ..)."""
        y = functional.relu(self.norm1(self.conv1(x)))
        return functional.relu(self.norm2(self.conv2(y)) + self.skip(x))


class ResNet(nn.Module):
    """Ten layers after He et al. 2015, section 4.2: a stem, four blocks, a linear layer.

    Args:
        channels: of an image. classes: outputs. width: channels of the first block; the third and
            fourth have twice and four times as many, on half and a quarter of the rows.
    """

    def __init__(self, channels: int = 3, classes: int = 10, width: int = 16) -> None:
        super().__init__()
        self.stem = nn.Conv2d(channels, width, 3, 1, 1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.blocks = nn.Sequential(
            Residual(width, width),
            Residual(width, width),
            Residual(width, 2 * width, 2),
            Residual(2 * width, 4 * width, 2),
        )
        self.head = nn.Linear(4 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """(samples, channels, rows, columns) to (samples, classes)."""
        x = self.blocks(functional.relu(self.norm(self.stem(x))))
        y: Tensor = self.head(x.mean((2, 3)))
        return y


class CausalAttention(nn.Module):
    """Attention of every token to those before it; queries, keys and values of one matrix.

    Args:
        width: of a token. heads: that share it.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(samples, length, width) to the same."""
        samples, length, width = x.shape
        split = self.qkv(x).view(samples, length, 3, self.heads, width // self.heads)
        q, k, v = split.permute(2, 0, 3, 1, 4)
        y = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        out: Tensor = self.out(y.transpose(1, 2).reshape(samples, length, width))
        return out


class Block(nn.Module):
    """Attention and two linear layers, each behind a LayerNorm and beside a skip.

    Args:
        width: of a token. heads: of the attention.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = CausalAttention(width, heads)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(samples, length, width) to the same."""
        x = x + self.attention(self.norm1(x))
        y: Tensor = x + self.down(functional.gelu(self.up(self.norm2(x))))
        return y


class GPT(nn.Module):
    """A transformer that predicts the next token (Radford et al. 2019), positions learned.

    Args:
        tokens: that there are. context: tokens of a sample. width: of a token, a multiple of
            ``heads``. layers: blocks. heads: of each attention.

    Raises:
        ConfigError: the width is no multiple of the heads.
    """

    def __init__(
        self,
        tokens: int = 256,
        context: int = 128,
        width: int = 128,
        layers: int = 4,
        heads: int = 4,
    ) -> None:
        super().__init__()
        if width % heads:
            raise ConfigError(f"width is {width}; use a multiple of the {heads} heads")
        self.tokens = nn.Embedding(tokens, width)
        self.positions = nn.Embedding(context, width)
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(layers)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, tokens)
        nn.init.normal_(self.tokens.weight, std=0.1)
        nn.init.normal_(self.positions.weight, std=0.1)

    def forward(self, ids: Tensor) -> Tensor:
        """(samples, length) int64 to (samples, length, tokens)."""
        places = self.positions(torch.arange(ids.shape[1], dtype=torch.int64, device=ids.device))
        y: Tensor = self.head(self.norm(self.blocks(self.tokens(ids) + places)))
        return y

"""Windows: which elements of an image a convolution multiplies at which position.

Per dimension, with kernel element k of output o, stride s, dilation d, padding p and input size n:

    convolution   i = o s + k d - p, beyond the image 0 or what its padding says
    transposed    i = (o + p - k d) / s, where that is an element of the image, else 0

A transposed convolution is so read as any other, one read per output position.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import ConfigError
from ..ops import Unfolding

__all__ = ["PADDINGS", "Windows", "unfoldings"]

PADDINGS = ("zeros", "reflect", "replicate", "circular")
_Sizes = tuple[int, ...]


class Windows(NamedTuple):
    """A convolution without its weights; every tuple has a number per dimension.

    Attributes:
        channels, outputs: of the images before and behind it.
        padding: elements in front and behind.
        mode: one of PADDINGS. transposed: see the module. extra: output_padding, then.
    """

    channels: int
    outputs: int
    kernel: _Sizes
    stride: _Sizes
    dilation: _Sizes
    padding: tuple[tuple[int, int], ...]
    mode: str = "zeros"
    transposed: bool = False
    extra: _Sizes = ()

    @property
    def text(self) -> str:
        """All of it, for an operator; :meth:`of` takes it back."""
        extra = self.extra or (0,) * len(self.kernel)
        fields = (self.kernel, self.stride, self.dilation, *zip(*self.padding, strict=True), extra)
        numbers = [n for field in fields for n in field]
        first = (self.channels, self.outputs, int(self.transposed))
        return " ".join([self.mode, *[str(n) for n in (*first, *numbers)]])

    @property
    def least(self) -> _Sizes:
        """Sizes below which :meth:`shape` refuses images."""
        found = []
        for n, (front, behind) in enumerate(self.padding):
            more = front + behind - self.dilation[n] * (self.kernel[n] - 1)
            size = 1 - more
            if self.transposed:
                size = 1 + -(-(more - self.extra[n]) // self.stride[n])
            elif self.mode in ("reflect", "circular"):
                size = max(size, max(front, behind) + (self.mode == "reflect"))
            found.append(max(size, 1))
        return tuple(found)

    @staticmethod
    @lru_cache(maxsize=64)
    def of(text: str) -> Windows:
        """The windows that :attr:`text` is of."""
        mode, *words = text.split()
        channels, outputs, transposed, *rest = map(int, words)
        dims = len(rest) // 6
        fields = [tuple(rest[n : n + dims]) for n in range(0, 6 * dims, dims)]
        kernel, stride, dilation, front, behind, extra = fields
        padding = tuple(zip(front, behind, strict=True))
        sizes = (kernel, stride, dilation, padding)
        return Windows(channels, outputs, *sizes, mode, bool(transposed), extra)

    def sizes(self, sizes: _Sizes) -> _Sizes:
        """Sizes of the output.

        Args:
            sizes: of the input.

        Raises:
            ConfigError: the input is too small.
        """
        found = []
        for n, size in enumerate(sizes):
            reach = self.dilation[n] * (self.kernel[n] - 1)
            pad = sum(self.padding[n])
            if self.transposed:
                out = (size - 1) * self.stride[n] - pad + reach + self.extra[n] + 1
            else:
                out = (size + pad - reach - 1) // self.stride[n] + 1
            if size < 1 or out < 1:
                raise ConfigError(
                    f"x has sizes {sizes}, of which {size} leaves no output position under a kernel"
                    f" of {self.kernel[n]}; use larger images or more padding"
                )
            found.append(out)
        return tuple(found)

    def shape(self, sizes: _Sizes) -> _Sizes:
        """Channels and sizes of a sample of the output.

        Args:
            sizes: of the input.

        Raises:
            ConfigError: the input is too small, for the kernel or for its padding.
        """
        self.check_padding(sizes)
        return (self.outputs, *self.sizes(sizes))

    def source(self, n: int, size: int, out: int) -> Tensor:
        """Where the elements of a dimension come from.

        Args:
            n: the dimension. size: of the input. out: of the output.

        Returns:
            (outputs, kernel), -1 where there is nothing.
        """
        o = torch.arange(out, dtype=torch.int64, device="cpu")[:, None]
        k = torch.arange(self.kernel[n], dtype=torch.int64, device="cpu") * self.dilation[n]
        front, _ = self.padding[n]
        if self.transposed:
            at = o + front - k
            whole = at % self.stride[n] == 0
            at = torch.where(whole, at // self.stride[n], -1)
            return torch.where((at < 0) | (at >= size), -1, at)
        at = o * self.stride[n] + k - front
        if self.mode == "circular":
            return at % size
        if self.mode == "replicate":
            return at.clamp(0, size - 1)
        if self.mode == "reflect":
            return (size - 1) - ((size - 1) - at.abs()).abs()
        return torch.where((at < 0) | (at >= size), -1, at)

    def check_padding(self, sizes: _Sizes) -> None:
        """Refuse padding that an image cannot give.

        Raises:
            ConfigError: there is more of it than the image has elements to reflect or repeat.
        """
        for n, size in enumerate(sizes):
            most = {"reflect": size - 1, "circular": size}.get(self.mode)
            if most is not None and max(self.padding[n]) > most:
                raise ConfigError(
                    f"padding is {max(self.padding[n])} with padding_mode {self.mode!r} on a size "
                    f"of {size}; use at most {most}"
                )


@lru_cache(maxsize=64)
def unfoldings(windows: Windows, sizes: _Sizes) -> tuple[Unfolding, Unfolding, _Sizes]:
    """What a convolution unfolds from images of one size.

    Args:
        windows: the convolution. sizes: of its input.

    Returns:
        That of its input, that of its output (every element once), and the output's sizes.

    Raises:
        ConfigError: the images are too small.
    """
    _, *outs = windows.shape(sizes)
    pairs = zip(sizes, outs, strict=True)
    tables = [windows.source(n, size, out) for n, (size, out) in enumerate(pairs)]
    every = [torch.arange(out, dtype=torch.int64, device="cpu")[:, None] for out in outs]
    return (
        Unfolding.of(windows.channels, sizes, tables),
        Unfolding.of(windows.outputs, outs, every, once=True),
        tuple(outs),
    )

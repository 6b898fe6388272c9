"""Patches of images as rows of a matrix (im2col), and the sum of such rows into an image.

``row[position][channel K + k] = image[sample][channel][source]``, 0 where there is no source;
positions in raster order, samples one after the other. Where an element comes from is a table per
dimension, which holds stride, dilation and padding of every kind. CPU tensors take our kernels,
all others torch's indexing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .. import _cpu
from ..errors import ConfigError
from .checks import refuse_memory
from .layout import UnfoldSizes
from .library import direct

__all__ = ["Unfolding", "fold_", "unfold"]

_I32 = torch.int32
_threads = torch.get_num_threads


class Unfolding(NamedTuple):
    """Where the elements of patches come from.

    Attributes:
        channels: of the image. sizes: its last three dimensions.
        outputs: positions of the three. kernel: elements of a patch in each.
        source: int32 tables (outputs, kernel) of the three, one behind the other; -1: nowhere.
        once: whether every element of the image comes exactly once.
    """

    channels: int
    sizes: tuple[int, ...]
    outputs: tuple[int, ...]
    kernel: tuple[int, ...]
    source: Tensor
    once: bool

    @classmethod
    def of(
        cls, channels: int, sizes: Sequence[int], tables: Sequence[Tensor], once: bool = False
    ) -> Unfolding:
        """That of images of one to three dimensions.

        Args:
            channels: of the image. sizes: of its dimensions.
            tables: of each dimension (outputs, kernel), the source of every element.
            once: whether every element of the image comes exactly once.

        Raises:
            ConfigError: an element comes from outside of the image.
        """
        missing = 3 - len(sizes)
        sizes = (*(1,) * missing, *sizes)
        tables = [*(torch.zeros(1, 1, dtype=_I32, device="cpu"),) * missing, *tables]
        for n, (size, table) in enumerate(zip(sizes, tables, strict=True)):
            if table.numel() and not -1 <= int(table.min()) <= int(table.max()) < size:
                raise ConfigError(f"table {n} has elements outside of 0 to {size - 1}; use -1")
        return cls(
            channels,
            tuple(sizes),
            tuple(table.shape[0] for table in tables),
            tuple(table.shape[1] for table in tables),
            torch.cat([table.to(_I32).flatten() for table in tables]),
            once,
        )

    @property
    def positions(self) -> int:
        """Rows of one sample."""
        return math.prod(self.outputs)

    @property
    def columns(self) -> int:
        """Of a row."""
        return self.channels * math.prod(self.kernel)


def _sizes(image: Tensor, how: Unfolding) -> UnfoldSizes:
    if image.dim() > 5 or image.shape[1] != how.channels:
        raise ConfigError(f"image has shape {tuple(image.shape)}; use {how.channels} channels")
    sizes, strides = tuple(image.shape[2:]), image.stride()
    missing = 3 - len(sizes)
    if (1,) * missing + sizes != how.sizes:
        raise ConfigError(f"image has shape {tuple(image.shape)}; use sizes {how.sizes}")
    inner = (0,) * missing + strides[2:]
    return UnfoldSizes(how.channels, *strides[:2], *inner, *how.outputs, *how.kernel)


def unfold(image: Tensor, how: Unfolding, first: int, last: int) -> Tensor:
    """Rows of positions, counted over all samples.

    Args:
        image: (samples, channels, ...) float32, with any strides.
        how: where their elements come from. first, last: positions.

    Returns:
        (last - first, columns) float32.

    Raises:
        ConfigError: the image is not the one of ``how``, or has no such positions.
    """
    sizes = _sizes(image, how)
    _check_positions(image, how, first, last)
    if not direct(image):
        return _gathered(image, how, first, last)
    image = image.resolve_neg()
    refuse_memory("image", image)
    rows = torch.empty((last - first, how.columns), dtype=torch.float32, device="cpu")
    source = how.source.data_ptr()
    _cpu.unfold(image.data_ptr(), rows.data_ptr(), source, sizes, first, last, _threads())
    return rows


def fold_(image: Tensor, rows: Tensor, how: Unfolding, first: int) -> None:
    """Add rows to the elements that they came from, in the order of positions.

    Where every element comes once they are stored instead: the image need not have been cleared.

    Args:
        image: (samples, channels, ...) float32. rows: (positions, columns) float32, contiguous.
        how: where their elements came from. first: position of the first row.

    Raises:
        ConfigError: as of :func:`unfold`.
    """
    sizes = _sizes(image, how)
    last = first + rows.shape[0]
    _check_positions(image, how, first, last)
    if not direct(image):
        _scatter(image, rows, how, first, last)
        return
    refuse_memory("image", image)
    refuse_memory("rows", rows)
    source = how.source.data_ptr()
    where = (image.data_ptr(), rows.data_ptr(), source)
    _cpu.fold(*where, sizes, first, last, how.once, _threads())


def _check_positions(image: Tensor, how: Unfolding, first: int, last: int) -> None:
    if image.dtype is not torch.float32:
        raise ConfigError(f"image has dtype {image.dtype}; convert it with .float()")
    most = image.shape[0] * how.positions
    if not 0 <= first <= last <= most:
        raise ConfigError(f"positions are {first} to {last}; use some of 0 to {most}")


# ---- the same by torch's indexing ----


def _sources(how: Unfolding, first: int, last: int, where: torch.device) -> tuple[Tensor, Tensor]:
    """Sample of every position; (positions, K) element of a channel, -1: nowhere."""
    position = torch.arange(first, last, dtype=torch.int64, device=where)
    sample = position // max(how.positions, 1)
    left, found = position % max(how.positions, 1), []
    parts = [n * k for n, k in zip(how.outputs, how.kernel, strict=True)]
    tables = how.source.to(where).long().split(parts)
    for size, table in reversed(list(zip(how.outputs, tables, strict=True))):
        found.append(table.view(size, -1)[left % max(size, 1)])
        left = left // max(size, 1)
    s0, s1, s2 = found[2][:, :, None, None], found[1][:, None, :, None], found[0][:, None, None]
    at = (s0 * how.sizes[1] + s1) * how.sizes[2] + s2
    at = torch.where((s0 < 0) | (s1 < 0) | (s2 < 0), -1, at)
    return sample, at.flatten(1)


def _gathered(image: Tensor, how: Unfolding, first: int, last: int) -> Tensor:
    sample, at = _sources(how, first, last, image.device)
    found = image.flatten(2)[sample[:, None], :, at.clamp(min=0)]  # (positions, K, channels)
    found = torch.where((at < 0)[:, :, None], 0.0, found)
    return found.transpose(1, 2).reshape(last - first, how.columns)


def _scatter(image: Tensor, rows: Tensor, how: Unfolding, first: int, last: int) -> None:
    sample, at = _sources(how, first, last, image.device)
    channel = torch.arange(how.channels, dtype=torch.int64, device=image.device)
    values = rows.reshape(last - first, how.channels, at.shape[1])
    values = torch.where((at < 0)[:, None, :], 0.0, values)
    where = (sample[:, None, None], channel[None, :, None], at.clamp(min=0)[:, None, :])
    # Deterministic on a GPU too: equal indices are sorted.
    image.view(*image.shape[:2], -1).index_put_(where, values, accumulate=not how.once)

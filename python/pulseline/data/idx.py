"""The idx format of MNIST and Fashion-MNIST: four files, compressed or not.

An idx file is ``0 0 type dimensions``, the sizes as big-endian int32, then the values (Y. LeCun, C.
Cortes and C. Burges, "The MNIST database"); these files hold unsigned bytes, type 8.
"""

from __future__ import annotations

import math
import struct
from pathlib import Path

import torch
from torch import Tensor

from ..errors import ConfigError
from .sets import DataSet, content, find, first

__all__ = ["IDX_FILES", "load_idx", "read_idx"]

IDX_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
_UNSIGNED_BYTE = 8


def read_idx(path: Path, dimensions: int) -> Tensor:
    """One file as uint8.

    Args:
        path: of the file; ``.gz`` is unpacked. dimensions: that it must have.

    Raises:
        ConfigError: it is no such file, or is cut short.
    """
    data = content(path)
    start = 4 + 4 * dimensions
    if len(data) < start or data[:4] != bytes((0, 0, _UNSIGNED_BYTE, dimensions)):
        raise ConfigError(
            f"{path} begins with {data[:4].hex(' ')!r}, no idx file of {dimensions} dimensions; "
            "get it again"
        )
    sizes = struct.unpack(f">{dimensions}i", data[4:start])
    if min(sizes) < 1 or len(data) != start + math.prod(sizes):
        told = " x ".join(map(str, sizes))
        raise ConfigError(f"{path} has {len(data) - start} values of {told}; get it again")
    return torch.frombuffer(bytearray(data[start:]), dtype=torch.uint8).reshape(sizes)


def load_idx(
    root: Path, samples: int | None = None, test_samples: int | None = None, origin: str = ""
) -> DataSet:
    """Images of one channel and their labels.

    Args:
        root: directory of the four files. samples, test_samples: to take, the first ones; None:
            all. origin: where the files come from, for the message.

    Returns:
        Images (n, 1, rows, columns) as uint8.

    Raises:
        ConfigError: a file is missing, damaged, or of another length than its partner.
    """
    names = ", ".join(IDX_FILES)
    origin = origin or f"the four files are {names}"
    paths = [find(root, name, origin) for name in IDX_FILES]
    found = _part(paths[0], paths[1], samples, "samples")
    found += _part(paths[2], paths[3], test_samples, "test_samples")
    shape = tuple(found[0].shape[1:])
    if tuple(found[2].shape[1:]) != shape:
        raise ConfigError(f"images of {root} are {shape} and {tuple(found[2].shape[1:])}; use one")
    classes = 1 + int(max(found[1].max(), found[3].max()))
    return DataSet.of(found, shape)._replace(classes=max(10, classes))


def _part(images: Path, labels: Path, samples: int | None, name: str) -> list[Tensor]:
    x, y = read_idx(images, 3), read_idx(labels, 1).long()
    if len(x) != len(y):
        raise ConfigError(f"{images} has {len(x)} images and {labels} {len(y)}; get them again")
    part = first(samples, len(x), name)
    return [x[part].unsqueeze(1), y[part]]

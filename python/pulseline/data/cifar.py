"""CIFAR-10, binary version: ``data_batch_1.bin`` to ``data_batch_5.bin`` and ``test_batch.bin``.

A record is a label and 3 x 32 x 32 bytes, channels first (A. Krizhevsky, "Learning multiple layers
of features from tiny images", 2009; the archive is ``cifar-10-binary.tar.gz``).
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from ..errors import ConfigError
from .sets import DataSet, content, find, first

__all__ = ["CIFAR_FILES", "load_cifar10"]

CIFAR_FILES = (*(f"data_batch_{n}.bin" for n in range(1, 6)), "test_batch.bin")
_SHAPE = (3, 32, 32)
_RECORD = 1 + 3 * 32 * 32


def load_cifar10(
    root: Path, samples: int | None = None, test_samples: int | None = None, origin: str = ""
) -> DataSet:
    """The files that there are; of the training ones the first is needed.

    Args:
        root: directory of the files. samples, test_samples: to take, the first ones; None: all.
        origin: where the files come from, for the message.

    Returns:
        Images (n, 3, 32, 32) as uint8.

    Raises:
        ConfigError: a file is missing or damaged, or there are fewer images.
    """
    origin = origin or f"the files are {', '.join(CIFAR_FILES)}"
    paths = [find(root, CIFAR_FILES[0], origin)]
    for name in CIFAR_FILES[1:-1]:
        paths += [path for path in (root / name, root / f"{name}.gz") if path.is_file()][:1]
    train = torch.cat([_read(path) for path in paths])
    test = _read(find(root, CIFAR_FILES[-1], origin))
    train = train[first(samples, len(train))]
    test = test[first(test_samples, len(test), "test_samples")]
    parts = [
        part
        for one in (train, test)
        for part in (one[:, 1:].reshape(-1, *_SHAPE), one[:, 0].long())
    ]
    return DataSet.of(parts, _SHAPE)


def _read(path: Path) -> Tensor:
    data = content(path)
    if not data or len(data) % _RECORD:
        raise ConfigError(
            f"{path} has {len(data)} bytes, no multiple of {_RECORD}; use the binary version, or "
            "get it again"
        )
    found = torch.frombuffer(bytearray(data), dtype=torch.uint8).reshape(-1, _RECORD)
    if int(found[:, 0].max()) > 9:
        raise ConfigError(f"{path} has label {int(found[:, 0].max())} of ten; get it again")
    return found

"""What every reader gives, and reading files that may be compressed."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import ConfigError, os_failure

__all__ = ["DataSet", "as_input", "content", "find", "first"]


class DataSet(NamedTuple):
    """Training and test samples.

    Attributes:
        x_train, x_test: (n, ...) float32 in [0, 1]; images as uint8, which :func:`as_input` turns
            into that; tokens (n, length) as int64.
        y_train, y_test: labels (n,) or next tokens (n, length), int64.
        shape: of one image, (channels, rows, columns); of one sequence, (length,).
        classes: labels, or tokens, that there are.
        references: (name, nats per token of the test part) of models that were counted.
    """

    x_train: Tensor
    y_train: Tensor
    x_test: Tensor
    y_test: Tensor
    shape: tuple[int, ...] = ()
    classes: int = 10
    references: tuple[tuple[str, float], ...] = ()

    @classmethod
    def of(cls, parts: Sequence[Tensor], shape: tuple[int, ...]) -> DataSet:
        """A set of ten classes.

        Args:
            parts: inputs and labels for training, then for the test. shape: of a sample.
        """
        x_train, y_train, x_test, y_test = parts
        return cls(x_train, y_train, x_test, y_test, shape)

    @property
    def is_text(self) -> bool:
        """Whether samples are sequences of tokens, every one of which has a target."""
        return self.y_train.dim() == 2

    def flat(self) -> DataSet:
        """The same with images as vectors."""
        return self._replace(x_train=self.x_train.flatten(1), x_test=self.x_test.flatten(1))

    def shaped(self) -> DataSet:
        """The same with images as (channels, rows, columns)."""
        train, test = (x.reshape(len(x), *self.shape) for x in (self.x_train, self.x_test))
        return self._replace(x_train=train, x_test=test)


def as_input(x: Tensor) -> Tensor:
    """Samples as a network takes them: bytes of images as float32 from 0 to 1."""
    return x.float() / 255 if x.dtype is torch.uint8 else x


def first(samples: int | None, there: int, name: str = "samples") -> slice:
    """The first samples of a part.

    Args:
        samples: how many; None: all. there: how many there are. name: for the message.

    Raises:
        ConfigError: there are fewer.
    """
    if samples is not None and samples > there:
        what = "training" if name == "samples" else "test"
        raise ConfigError(f"{name} is {samples}; use at most the {there} {what} samples")
    return slice(samples)


def find(root: Path, name: str, origin: str) -> Path:
    """A file, or the same with ``.gz``.

    Args:
        root: directory. name: of the file. origin: where such files come from, for the message.

    Raises:
        ConfigError: neither is there.
    """
    for path in (root / name, root / f"{name}.gz"):
        if path.is_file():
            return path
    raise ConfigError(f"{root / name} is missing, with and without .gz; {origin}")


def content(path: Path) -> bytes:
    """What a file holds, unpacked if its name ends in ``.gz``.

    Raises:
        ConfigError: it cannot be read, or is no gzip file. BackendError: the disk is broken.
    """
    try:
        data = path.read_bytes()
        return gzip.decompress(data) if path.suffix == ".gz" else data
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ConfigError(f"{path} is damaged ({error}); get it again") from None
    except OSError as error:
        raise os_failure(f"{path} cannot be read", error) from None

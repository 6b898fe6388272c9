"""Text as bytes: the first nine tenths of a file train, the rest tests; n-grams as reference.

A sample is ``context`` bytes and, as targets, each one's next byte; samples do not overlap.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..errors import ConfigError
from .sets import DataSet, content, first

__all__ = ["TOKENS", "load_text", "ngrams"]

TOKENS = 256
_TRAINED = 0.9
_NAMES = ("unigram", "bigram", "trigram", "4-gram")

_Numbers = npt.NDArray[np.int64]


def load_text(
    path: Path, context: int = 128, samples: int | None = None, test_samples: int | None = None
) -> DataSet:
    """Bytes of a file.

    Args:
        path: of the file; ``.gz`` is unpacked. context: bytes of a sample.
        samples, test_samples: to take, the first ones; None: all.

    Returns:
        Samples (n, context) and targets as int64, 256 tokens, and the n-gram lines, counted on the
        whole training part and read on the whole test part.

    Raises:
        ConfigError: the file cannot be read, or is too short for one sample of each part.
    """
    data = np.frombuffer(content(path), np.uint8).astype(np.int64)
    cut = int(_TRAINED * len(data))
    parts = [data[:cut], data[cut:]]
    if min(map(len, parts)) <= context:
        raise ConfigError(
            f"{path} has {len(data)} bytes, too few for samples of {context}; use a longer text, "
            "or a smaller context"
        )
    found: list[Tensor] = []
    for part, count, name in zip(
        parts, (samples, test_samples), ("samples", "test_samples"), strict=True
    ):
        there = (len(part) - 1) // context
        for shift in (0, 1):
            whole = torch.from_numpy(part[shift : shift + there * context].copy())
            found.append(whole.reshape(there, context)[first(count, there, name)])
    lines = tuple(zip(_NAMES, ngrams(parts[0], parts[1]), strict=True))
    return DataSet.of(found, (context,))._replace(classes=TOKENS, references=lines)


def ngrams(train: _Numbers, test: _Numbers, longest: int = len(_NAMES)) -> list[float]:
    """Mean nats per byte of n-gram models, n = 1, 2, ..

    Counts of each length are interpolated with those of the next shorter one by the number of
    different bytes that followed (Witten and Bell 1991, method C): ``p = (c + t p_shorter) / (n +
    t)``, from uniform upwards.

    Args:
        train: bytes to count. test: bytes to be read. longest: largest n.

    Returns:
        One number for every n; the first n - 1 bytes of ``test`` are not counted for n.
    """
    found, shorter = [], np.full(len(test), 1 / TOKENS)
    for before in range(longest):
        grams, counts = np.unique(_grams(train, before), return_counts=True)
        contexts, where = np.unique(grams // TOKENS, return_inverse=True)
        total, kinds = np.bincount(where, counts), np.bincount(where)
        seen = _grams(test, before)
        shorter = shorter[len(shorter) - len(seen) :]
        count = _look_up(grams, counts, seen)
        whole = _look_up(contexts, total, seen // TOKENS)
        types = _look_up(contexts, kinds, seen // TOKENS)
        mixed = (count + types * shorter) / np.maximum(whole + types, 1)
        shorter = np.where(whole == 0, shorter, mixed)
        found.append(float(-np.log(shorter).mean()))
    return found


def _grams(values: _Numbers, before: int) -> _Numbers:
    """Each byte with the ``before`` bytes before it, as one number."""
    length = max(0, len(values) - before)
    found = np.zeros(length, np.int64)
    for shift in range(before + 1):
        found = found * TOKENS + values[shift : shift + length]
    return found


def _look_up(keys: _Numbers, values: npt.NDArray[np.generic], wanted: _Numbers) -> _Numbers:
    """The value of each key, 0 where it is none."""
    where = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[where] == wanted, values[where], 0)

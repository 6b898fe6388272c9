"""Data sets: each reader gives training and test tensors."""

from __future__ import annotations

from .cifar import load_cifar10
from .digits import load_digits
from .idx import load_idx, read_idx
from .named import DATA, load
from .sets import DataSet, as_input
from .text import load_text, ngrams

__all__ = [
    "DATA",
    "DataSet",
    "as_input",
    "load",
    "load_cifar10",
    "load_digits",
    "load_idx",
    "load_text",
    "ngrams",
    "read_idx",
]

"""What the commands share: converters of arguments, directories, files that are written."""

from __future__ import annotations

import argparse
import math
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import os_failure

__all__ = [
    "directory",
    "folder",
    "not_negative",
    "positive",
    "seed_number",
    "seed_numbers",
    "whole",
    "writing",
]


def whole(least: int, most: int = (1 << 63) - 1) -> Callable[[str], int]:
    """Converter for integers from ``least`` to ``most``."""

    def convert(text: str) -> int:
        try:
            value = int(text)
        except ValueError:  # no number, or one of thousands of digits
            value = most + 1 if text.isdigit() else least - 1
        if not least <= value <= most:
            limit = f" and <= {most}" if value > most or most < 1 << 62 else ""
            raise argparse.ArgumentTypeError(f"is {text!r:.60}; use an integer >= {least}{limit}")
        return value

    return convert


seed_number = whole(0, (1 << 32) - 1)


def seed_numbers(text: str) -> tuple[int, ...]:
    """Converter for seeds with commas between them."""
    found = tuple(map(seed_number, text.split(",")))
    if len(set(found)) < len(found):
        raise argparse.ArgumentTypeError(f"is {text!r:.60}; give every seed once")
    return found


def positive(text: str) -> float:
    """Converter for finite numbers > 0."""
    value = _number(text)
    if not (math.isfinite(value) and value > 0):
        raise argparse.ArgumentTypeError(f"is {text!r}; use a positive number")
    return value


def not_negative(text: str) -> float:
    """Converter for finite numbers >= 0."""
    value = _number(text)
    if not (math.isfinite(value) and value >= 0):
        raise argparse.ArgumentTypeError(f"is {text!r}; use a number >= 0")
    return value


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def folder(text: str) -> Path:
    """Converter for the name of a directory."""
    if not text:
        raise argparse.ArgumentTypeError("is ''; name a directory, or use '.'")
    return Path(text)


def directory(path: Path, option: str = "--out") -> Path:
    """Make a directory before the work whose results go there.

    Args:
        path: of the directory. option: that names it.

    Raises:
        ConfigError: it cannot be one, or nothing can be written there.
        BackendError: the disk is full or broken.
    """
    what = "be a directory"
    try:
        path.mkdir(parents=True, exist_ok=True)
        what = "be written"
        with tempfile.NamedTemporaryFile(dir=path, prefix=".pulseline-") as probe:
            probe.write(bytes(4096))
    except OSError as error:
        raise os_failure(f"{option} {path} cannot {what}", error) from None
    return path


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Say which file it was where the system refuses one, which it does not on a full disk.

    Args:
        path: that is written.

    Raises:
        ConfigError: it cannot be written.
        BackendError: the disk is full or broken.
    """
    try:
        yield
    except OSError as error:
        raise os_failure(f"{error.filename or path} cannot be written", error) from None

"""What the commands share: converters of arguments, the output directory."""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Callable
from pathlib import Path

from ..errors import ConfigError

__all__ = ["directory", "not_negative", "positive", "seed_number", "whole"]


def whole(least: int, most: int = (1 << 63) - 1) -> Callable[[str], int]:
    """Converter for integers from ``least`` to ``most``."""

    def convert(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if not least <= value <= most:
            limit = f" and <= {most}" if most < 1 << 62 else ""
            raise argparse.ArgumentTypeError(f"is {text!r}; use an integer >= {least}{limit}")
        return value

    return convert


seed_number = whole(0, (1 << 32) - 1)


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


def directory(path: Path) -> Path:
    """Make the directory of ``--out``.

    Raises:
        ConfigError: that is impossible.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / f".pulseline-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ConfigError(
            f"--out {path} cannot be a directory ({error.strerror}); use another"
        ) from None
    return path

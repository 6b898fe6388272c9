"""What runs here: instruction sets of the CPU kernels, threads, CUDA."""

from __future__ import annotations

import os
import warnings

import torch

from .. import _cpu
from ..errors import ConfigError
from .cuda import module

__all__ = ["check_environment", "info", "use_isa"]


def use_isa(name: str) -> None:
    """Run the CPU kernels of one instruction set: baseline, avx2, avx512f or avx512.

    Raises:
        ConfigError: the name is unknown or this processor lacks the instructions.
    """
    if not _cpu.use_isa(name):
        known = ", ".join(_cpu.isas())
        raise ConfigError(f"PULSELINE_ISA is {name!r}; this machine runs {known}")


def check_environment() -> None:
    """Apply PULSELINE_ISA.

    Raises:
        ConfigError: see :func:`use_isa`.
    """
    if isa := os.environ.get("PULSELINE_ISA"):
        use_isa(isa)


def info() -> dict[str, object]:
    """What runs here: isa, isas, threads, cuda (yes or no) and cuda_reason."""
    return {
        "isa": _cpu.isa(),
        "isas": list(_cpu.isas()),
        "threads": torch.get_num_threads(),
        "cuda": not (why := module.reason()),
        "cuda_reason": why,
    }


try:
    check_environment()
except ConfigError as error:  # the command line says it in one sentence and stops
    warnings.warn(f"{error}; using {_cpu.isa()}", RuntimeWarning, stacklevel=2)

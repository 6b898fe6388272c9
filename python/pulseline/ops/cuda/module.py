"""The compiled CUDA kernels, loaded when they are first asked for."""

from __future__ import annotations

import functools
import importlib
from typing import Any

import torch

from ... import _cpu
from ...errors import BackendError
from ..layout import LAYOUT

__all__ = ["kernels", "load", "reason"]


def load() -> tuple[Any, str]:
    """The compiled module, and why it cannot be used ('': it can)."""
    try:
        module = importlib.import_module("..._cuda", __package__)
    except ModuleNotFoundError:
        return None, "this build has no CUDA kernels, build it with PULSELINE_CUDA=ON"
    except ImportError as error:
        return None, f"the CUDA kernels do not load ({error}), build them again"
    ours = (_cpu.NUMBERING, _cpu.DEVICES, LAYOUT)
    if ours != (module.NUMBERING, module.DEVICES, module.LAYOUT):
        return module, "the CUDA kernels were built from other sources, build both again"
    if torch.version.cuda is None:
        return module, "this torch is a build without CUDA"
    return module, module.reason()


def reason() -> str:
    """Why CUDA cannot be used here, in a clause; empty if it can. Loads the kernels."""
    return load()[1]


@functools.cache
def kernels() -> Any:
    """The compiled module.

    Raises:
        BackendError: it was not built, or no GPU can be used.
    """
    module, why = load()
    if why:
        raise BackendError(f"a CUDA tensor came in, but {why}; move it to the CPU")
    return module

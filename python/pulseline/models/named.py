"""Networks by name, or a class of a user's file, for data of some shape."""

from __future__ import annotations

import importlib.util
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..errors import ConfigError
from .nets import GPT, WIDTHS, ResNet, lenet, mlp

__all__ = ["MODELS", "Sizes", "digital", "from_file", "is_file"]

MODELS = ("mlp", "lenet", "resnet", "gpt")


@dataclass(frozen=True)
class Sizes:
    """What a network is made for.

    Attributes:
        shape: of a sample, see :class:`pulseline.data.DataSet`. classes: outputs.
        width, layers, heads: of a GPT; width: channels of a ResNet's first block too. None: its
            own.
    """

    shape: tuple[int, ...]
    classes: int
    width: int | None = None
    layers: int | None = None
    heads: int | None = None


def digital(name: str, seed: int, sizes: Sizes) -> nn.Module:
    """A network in plain torch.

    Args:
        name: one of MODELS, or ``FILE.py:Class``, whose class takes no arguments.
        seed: of its weights. sizes: that it is made for.

    Raises:
        ConfigError: there is no such network, or it does not fit the data.
    """
    if is_file(name):
        return from_file(name, seed)
    if name not in MODELS:
        raise ConfigError(
            f"model is {name!r:.60}; use one of {', '.join(MODELS)}, or FILE.py:Class"
        )
    is_text = len(sizes.shape) == 1
    if is_text != (name == "gpt"):
        fits = "gpt" if is_text else "mlp, lenet or resnet"
        raise ConfigError(f"model is {name!r} for {'text' if is_text else 'images'}; use {fits}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        given: dict[str, Any] = {
            key: value
            for key in ("width", "layers", "heads")
            if (value := getattr(sizes, key)) is not None
        }
        if name == "gpt":
            return GPT(sizes.classes, sizes.shape[0], **given)
        if name == "resnet":
            return ResNet(sizes.shape[0], sizes.classes, **_only(given, ("width",), name))
        _only(given, (), name)
        if name == "lenet":
            return lenet(sizes.shape, sizes.classes)
        pixels = math.prod(sizes.shape)
        return mlp(seed, WIDTHS if pixels == WIDTHS[0] else (pixels, 256, 128, sizes.classes))


def _only(given: dict[str, Any], taken: Sequence[str], name: str) -> dict[str, Any]:
    for key in given:
        if key not in taken:
            raise ConfigError(f"{key} is {given[key]} for {name}, which has none; leave it out")
    return given


def is_file(name: str) -> bool:
    """Whether a name is ``FILE.py:Class``."""
    return name.partition(":")[0].endswith(".py")


def from_file(name: str, seed: int) -> nn.Module:
    """An instance of a class of a user's file, made without arguments.

    Args:
        name: ``FILE.py:Class``; a function that gives a module serves too.
        seed: of torch's generator while it is made.

    Raises:
        ConfigError: there is no such file or class, it cannot be run or made, or is no module.
    """
    file, _, what = name.partition(":")
    path = Path(file)
    if not path.is_file():
        raise ConfigError(f"model is {name!r:.100} and there is no file {file}; use FILE.py:Class")
    spec = importlib.util.spec_from_file_location(path.stem, path.resolve())
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    kept = sys.modules.get(path.stem)
    sys.modules[path.stem] = module  # for classes that look up where they are from
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            spec.loader.exec_module(module)
            make = getattr(module, what, None) if what else None
            if not callable(make):
                known = [n for n, v in vars(module).items() if _is_model(v, path.stem)]
                raise ConfigError(
                    f"model is {name!r:.100}, and {file} has no such class; use one of "
                    f"{', '.join(known) or 'its classes'}"
                )
            made = make()
    except ConfigError:
        raise
    except Exception as error:
        text = (str(error) or "no message").splitlines()[0]
        raise ConfigError(
            f"model {name!r:.100} raises {type(error).__name__} ({text:.200}); make it run without "
            "arguments"
        ) from error
    finally:
        if kept is not None:
            sys.modules[path.stem] = kept
    if not isinstance(made, nn.Module):
        raise ConfigError(f"model {name!r:.100} gives a {type(made).__name__}; give an nn.Module")
    return made


def _is_model(value: object, home: str) -> bool:
    return isinstance(value, type) and issubclass(value, nn.Module) and value.__module__ == home

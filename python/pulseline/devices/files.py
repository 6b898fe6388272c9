"""Device files: one device as JSON, every field by name.

    {"model": "PiecewiseStep", "dw_min": 0.0329, "piecewise_up": [1.85, 1.1, 0.11], ...}

A field that a file lacks has its inert value, as in a saved state: no noise, no spread.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from ..settings import inert_values
from .pulsed import PulsedDevice

__all__ = ["ENDING", "is_file_name", "read", "save"]

ENDING = ".json"


def is_file_name(name: str) -> bool:
    """Whether a name of a device means a device file."""
    return name.lower().endswith(ENDING)


def save(device: PulsedDevice, path: str | Path) -> None:
    """Write a device file, for ``devices.load`` and ``pulseline train --device FILE``.

    Args:
        device: any pulsed device.
        path: a file whose name ends in ``.json``.

    Raises:
        ConfigError: the name ends otherwise, or the file cannot be written.
    """
    path = Path(path)
    if not is_file_name(path.name):
        raise ConfigError(f"path is {str(path)!r}; use a name that ends in {ENDING}")
    try:
        path.write_text(json.dumps({"model": device.name, **asdict(device)}, indent=2) + "\n")
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be written ({error.strerror}); use another path"
        ) from None


def read(path: str | Path, models: Mapping[str, type[PulsedDevice]]) -> PulsedDevice:
    """The device of a file that :func:`save` wrote.

    Args:
        path: the file.
        models: classes by name.

    Returns:
        The device.

    Raises:
        ConfigError: the file cannot be read, is no JSON, or is no device; says where.
    """
    try:
        values = json.loads(Path(path).read_bytes())
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror}); use another path") from None
    except json.JSONDecodeError as error:
        raise ConfigError(
            f"{path}, line {error.lineno}: {error.msg}; use a file of pl.devices.save"
        ) from None
    except (UnicodeDecodeError, RecursionError):
        raise ConfigError(f"{path} is no JSON; use a file of pl.devices.save") from None
    return _device(values, models, str(path))


def _device(values: Any, models: Mapping[str, type[PulsedDevice]], where: str) -> PulsedDevice:
    if not isinstance(values, dict) or values.get("model") not in models:
        found = values.get("model") if isinstance(values, dict) else None
        raise ConfigError(f"{where}: model is {found!r}; use one of {', '.join(models)}")
    kind = models[values["model"]]
    given = {name: value for name, value in values.items() if name != "model"}
    known = [field.name for field in fields(kind)]
    for name in given:
        if name not in known:
            raise ConfigError(f"{where}: {kind.__name__} has no field {name!r}; remove it")
    inert = inert_values(kind)
    for name in known:
        if name not in given and name not in inert:
            raise ConfigError(f"{where}: {kind.__name__} needs {name}; add it")
    try:
        return kind(**inert | given)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None

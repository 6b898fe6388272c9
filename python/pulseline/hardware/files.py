"""Hardware of one's own from a file, TOML or JSON: every number by name, with its source.

    name = "mine"
    base = "pcm_14nm"        # what the file does not say is taken from this preset; may be absent
    t_pulse_ns = 10.0

    [sources]
    t_pulse_ns = "abs: table 2 of ..."    # a kind of ``model.KINDS``, and the reference

A number without a source is shown as unverified.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import MISSING, fields
from importlib import import_module
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from .model import KINDS, Hardware, Source
from .presets import PRESETS, preset

__all__ = ["ENDINGS", "content", "find", "read", "save"]

ENDINGS = (".toml", ".json")


def find(name: str) -> Hardware:
    """Hardware by the name of a preset, or of a file.

    Args:
        name: of ``PRESETS``, or a file that ends in ``.toml`` or ``.json``.

    Raises:
        ConfigError: there is no such preset, or the file is none of hardware.
    """
    if Path(name).suffix.lower() in ENDINGS:
        return read(name)
    if name not in PRESETS:
        raise ConfigError(
            f"hardware is {name!r:.60}; use one of {', '.join(PRESETS)}, or a file "
            "(.toml, .json; pulseline hardware NAME --save FILE.toml makes one)"
        )
    return preset(name)


def read(path: str | Path) -> Hardware:
    """The hardware of a file.

    Args:
        path: of the file.

    Raises:
        ConfigError: it cannot be read, or does not say what hardware it is.
    """
    values = content(Path(path))
    sources = values.pop("sources", {})
    base = values.pop("base", None)
    if base is not None and base not in PRESETS:
        raise ConfigError(f"{path}: base is {base!r:.60}; use one of {', '.join(PRESETS)}")
    numbers = {field.name: field for field in fields(Hardware) if field.name != "sources"}
    known: dict[str, Source] = {}
    given: dict[str, Any] = {}
    if base is not None:
        given = {name: getattr(PRESETS[base], name) for name in numbers}
        known = {k: v for k, v in PRESETS[base].sources if k not in values}
    for name, value in values.items():
        _check(path, name, value, numbers)
    given |= values
    for name, field in numbers.items():
        if field.default is MISSING and name not in given:
            raise ConfigError(f'{path} has no {name}; add it, or base = "NAME" of a preset')
    known |= _sources(path, sources, numbers)
    try:
        return Hardware(**given, sources=tuple(known.items()))
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def content(path: Path) -> dict[str, Any]:
    """Names and values of a TOML or JSON file.

    Args:
        path: ends in ``.json``, or holds TOML.

    Raises:
        ConfigError: it cannot be read or understood, or holds no names.
    """
    try:
        text = path.read_bytes().decode()
        values = json.loads(text) if path.suffix.lower() == ".json" else _toml(path, text)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror}); use another path") from None
    except ValueError as error:  # of JSON, of TOML, of an encoding
        raise ConfigError(f"{path} cannot be understood ({error}); correct it") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path} is a {type(values).__name__}; use names with values")
    return values


def _toml(path: Path, text: str) -> Any:
    for name in ("tomllib", "tomli"):  # the first is in Python 3.11 and later
        try:
            return import_module(name).loads(text)
        except ModuleNotFoundError:
            pass
    raise ConfigError(f"{path} needs Python 3.11 or the package tomli; use a .json file")


def _check(path: str | Path, name: str, value: object, numbers: Mapping[str, Any]) -> None:
    if name not in numbers:
        raise ConfigError(f"{path} has {name!r:.60}; use base, sources, {', '.join(numbers)}")
    kind = str(numbers[name].type)
    fits = {"str": (str,), "int": (int,), "float": (int, float)}[kind]
    if isinstance(value, bool) or not isinstance(value, fits):
        what = {"str": "a text", "int": "an integer", "float": "a number"}[kind]
        raise ConfigError(f"{path}: {name} is {value!r:.60}; use {what}")


def _sources(path: str | Path, sources: object, numbers: Mapping[str, Any]) -> dict[str, Source]:
    if not isinstance(sources, dict):
        raise ConfigError(f"{path}: sources is {sources!r:.60}; use a text for each number")
    found = {}
    for name, text in sources.items():
        kind, colon, reference = str(text).partition(":")
        if name not in numbers or not colon or kind.strip() not in KINDS:
            raise ConfigError(
                f'{path}: source {name} is {text!r:.60}; use NUMBER = "KIND: REFERENCE", KIND one '
                f"of {', '.join(KINDS)}"
            )
        found[name] = Source(kind.strip(), reference.strip())
    return found


def save(hardware: Hardware, path: str | Path) -> None:
    """Write a file that :func:`read` takes, TOML or JSON by its ending.

    Args:
        hardware: to be written. path: of the file.

    Raises:
        ConfigError: the ending is another, or the file cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() not in ENDINGS:
        raise ConfigError(f"path is {str(path)!r}; use a name that ends in {' or '.join(ENDINGS)}")
    values = {f.name: getattr(hardware, f.name) for f in fields(Hardware) if f.name != "sources"}
    sources = {name: f"{source.kind}: {source.text}" for name, source in hardware.sources}
    if path.suffix.lower() == ".json":
        text = json.dumps(values | {"sources": sources}, indent=2) + "\n"
    else:  # a JSON string or number is one of TOML
        lines = [f"{name} = {json.dumps(value)}" for name, value in values.items()]
        lines += ["", "[sources]"]
        lines += [f"{n} = {json.dumps(t, ensure_ascii=False)}" for n, t in sources.items()]
        text = "\n".join(lines) + "\n"
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be written ({error.strerror}); use another path"
        ) from None

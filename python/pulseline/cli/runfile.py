"""Run files: the options of a command in a TOML or JSON file, so that a run can be repeated.

A key is an option without its dashes, a flag is true, settings are a table::

    data = "mnist"
    batch-size = 8
    set = { dw_min = 0.001 }

Options of the command line come after those of the file.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from ..hardware.files import content

__all__ = ["OPTION", "file_of", "toml", "words"]

OPTION = "--config"


class _Quiet(argparse.ArgumentParser):
    def error(self, message: str) -> Any:
        raise ValueError(message)


def file_of(argv: Sequence[str]) -> Path | None:
    """The run file that a command line names; None: none, or it is for the parser to complain.

    Args:
        argv: options of the command.
    """
    parser = _Quiet(add_help=False, allow_abbrev=False)
    parser.add_argument(OPTION)
    try:
        found = parser.parse_known_args([*argv])[0].config
    except ValueError:
        return None
    return Path(found) if found else None


def words(path: Path, actions: Sequence[argparse.Action], argv: Sequence[str]) -> list[str]:
    """What a run file says, as words of a command line.

    Args:
        path: of the file. actions: options of the command.
        argv: given beside it: lists that it holds replace those of the file.

    Raises:
        ConfigError: the file cannot be read or understood, or has a key that is no option.
    """
    known = {
        option[2:]: action
        for action in actions
        for option in action.option_strings
        if option.startswith("--") and option not in (OPTION, "--help")
    }
    found: list[str] = []
    for key, value in content(path).items():
        name = key.replace("_", "-")
        if name not in known:
            raise ConfigError(f"{path} has {key!r:.60}; use one of {', '.join(known)}")
        found += _words(path, name, value, known[name], argv)
    return found


def _words(
    path: Path, name: str, value: Any, action: argparse.Action, argv: Sequence[str]
) -> list[str]:
    """One key as words."""
    option = f"--{name}"
    if action.nargs == 0:
        if not isinstance(value, bool):
            raise ConfigError(f"{path} has {name} = {value!r:.60}; use true or false")
        return [option] if value else []
    if action.nargs == "+":
        if not isinstance(value, Mapping):
            raise ConfigError(f"{path} has {name} = {value!r:.60}; use a table of settings")
        given = any(word.partition("=")[0] == option for word in argv)
        settings = [f"{field}={_text(one)}" for field, one in value.items()]
        return [option, *settings] if settings and not given else []
    if isinstance(value, (Mapping, list, bool)) or value is None:
        raise ConfigError(f"{path} has {name} = {value!r:.60}; use one number or one text")
    return [f"{option}={_text(value)}"]


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(map(_text, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return repr(value) if isinstance(value, float) else str(value)


def toml(values: Mapping[str, Any]) -> str:
    """Names and values as TOML, one a line; those that are None, or empty, are left out.

    Args:
        values: strings, numbers, booleans, lists of them, and mappings of those.
    """
    lines = [
        f"{name.replace('_', '-')} = {_value(value)}"
        for name, value in values.items()
        if value is not None and value != {}
    ]
    return "\n".join(lines) + "\n"


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{name} = {_value(one)}" for name, one in value.items()) + " }"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, float):
        if not math.isfinite(value):
            return str(value)
        text = repr(value)
        return text if set(text) & {".", "e"} else f"{text}.0"
    if isinstance(value, (bool, int)):
        return json.dumps(value)
    # what JSON escapes, TOML does too; above U+FFFF it writes them otherwise
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")

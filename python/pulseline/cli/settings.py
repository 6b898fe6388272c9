"""``FIELD=VALUE`` of the command line as fields of a settings class."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from ..algorithms import rule_named
from ..errors import ConfigError

__all__ = ["changes", "rule_changes"]

_KINDS = {
    "int": (int, "use an integer"),
    "float": (float, "use a number"),
    "str": (str, ""),
}
_TRUE, _FALSE = ("1", "true", "yes", "on"), ("0", "false", "no", "off")


def changes(texts: Sequence[str], config: Any, option: str = "--set") -> dict[str, Any]:
    """The fields that settings name, with values of the fields' types.

    Args:
        texts: such as ``dw_min=0.01``, a list as ``stages=1,4,16``. config: a dataclass instance.
        option: of the command line, for messages.

    Returns:
        Values by field, for ``dataclasses.replace``.

    Raises:
        ConfigError: there is no such field, or a value is of another type.
    """
    kinds = {field.name: str(field.type) for field in fields(config)}
    kinds = {name: kind for name, kind in kinds.items() if _parts(kind)}
    found: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or name not in kinds:
            raise ConfigError(
                f"{option} is {text!r:.60}; use FIELD=VALUE, FIELD one of {', '.join(kinds)}"
            )
        if name in found:
            raise ConfigError(f"{option} gives {name} twice; give it once")
        found[name] = _value(value, kinds[name], f"{option} {name}")
    return found


def _parts(kind: str) -> tuple[str, bool] | None:
    """Type of an element, and whether the field holds several; None: no text can be it."""
    several = re.fullmatch(r"tuple\[(\w+), \.\.\.\]", kind)
    one = several[1] if several else kind
    return (one, bool(several)) if one in (*_KINDS, "bool") else None


def _value(text: str, kind: str, where: str) -> Any:
    parts = _parts(kind)
    assert parts is not None
    one, several = parts
    if several:
        return tuple(_value(part, one, where) for part in text.split(",") if part)
    if one == "bool":
        if text.lower() not in (*_TRUE, *_FALSE):
            raise ConfigError(f"{where} is {text!r:.60}; use yes or no")
        return text.lower() in _TRUE
    make, remedy = _KINDS[one]
    try:
        return make(text)
    except ValueError:
        raise ConfigError(f"{where} is {text!r:.60}; {remedy}") from None


def rule_changes(name: str, texts: Sequence[str]) -> dict[str, Any]:
    """The fields of an algorithm that ``--rule`` gives.

    Args:
        name: of the algorithm. texts: such as ``lr_fast=0.1``.

    Raises:
        ConfigError: there is no such algorithm or field, or a value is of another type.
    """
    rule = rule_named(name)
    if rule is None and texts:
        raise ConfigError(
            f"--rule is {texts[0]!r:.60} of sgd, which has no settings; add --algorithm"
        )
    return changes(texts, rule, "--rule") if texts else {}

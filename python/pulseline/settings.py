"""Fields of settings: what a state means that was saved before a field existed.

A state holds every field of every settings class by name. One that lacks a field was saved by a
version without it, so its run had the field's inert value: the one that changes nothing. That is
often not the default (noise is on by default, and inert at 0); some have none (a step size).
"""

from __future__ import annotations

from dataclasses import Field, field, fields
from typing import Any

from .errors import ConfigError

__all__ = ["check_kind", "inert_values", "saved_fields", "setting"]

_NONE = object()


def setting(default: Any, *, inert: Any = _NONE, physics: bool = True) -> Any:
    """A dataclass field.

    Args:
        default: the value it has where none is given.
        inert: the value of states that lack it; without one such a state is refused.
        physics: False for what only says how a result is computed, which no state holds.

    Returns:
        What stands behind ``=`` in the class.
    """
    what = {} if inert is _NONE else {"inert": inert}
    return field(default=default, metadata={**what, "physics": physics})


def check_kind(name: str, value: object, *kinds: type) -> None:
    """Refuse an object of another class.

    Args:
        name: what the message calls it. value: None, or to be looked at. kinds: classes allowed.

    Raises:
        ConfigError: it is an instance of none of them.
    """
    if value is not None and not isinstance(value, kinds):
        what = " or ".join(kind.__name__ for kind in kinds)
        raise ConfigError(f"{name} is {value!r:.60}; use an instance of {what}")


def saved_fields(kind: Any) -> list[Field[Any]]:
    """The fields of a settings class, or of one of its instances, that a state holds."""
    return [one for one in fields(kind) if one.metadata.get("physics", True)]


def inert_values(kind: Any) -> dict[str, Any]:
    """The inert value of every field of a settings class that has one."""
    found: tuple[Field[Any], ...] = fields(kind)
    return {one.name: one.metadata["inert"] for one in found if "inert" in one.metadata}

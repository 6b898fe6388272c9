"""Fields of settings: what a state means that was saved before a field existed.

A state holds every field of every settings class by name. One that lacks a field was saved by a
version without it, so its run had the field's inert value: the one that changes nothing. That is
often not the default (noise is on by default, and inert at 0); some have none (a step size).
"""

from __future__ import annotations

from dataclasses import Field, field, fields
from typing import Any

__all__ = ["inert_values", "setting"]

_NONE = object()


def setting(default: Any, *, inert: Any = _NONE) -> Any:
    """A dataclass field.

    Args:
        default: the value it has where none is given.
        inert: the value of states that lack it; without one such a state is refused.
    """
    return field(default=default, metadata={} if inert is _NONE else {"inert": inert})


def inert_values(kind: Any) -> dict[str, Any]:
    """The inert value of every field of a settings class that has one."""
    found: tuple[Field[Any], ...] = fields(kind)
    return {one.name: one.metadata["inert"] for one in found if "inert" in one.metadata}

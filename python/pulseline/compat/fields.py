"""Settings of another package by attribute names: what goes over, what is off, what is refused."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from collections.abc import Mapping as Table
from typing import Any

from ..errors import ConfigError

__all__ = ["Off", "attributes", "choice", "plain", "refusal", "same"]

# Values at which a field without counterpart does nothing; None: it does nothing by itself.
Off = Table[str, Collection[Any] | None]


def refusal(field: str, value: object, fix: str) -> ConfigError:
    """The error of a field without counterpart.

    Args:
        field: its name there. value: that it has. fix: what to do about it.
    """
    return ConfigError(f"aihwkit: {field} is {value!r}, which has no counterpart here; {fix}")


def plain(value: object) -> Any:
    """The value of an enumeration's member; other values as they are."""
    return getattr(value, "value", value)


def attributes(part: object) -> dict[str, Any]:
    """Public settings: of a dataclass, or whatever classes and instance hold."""
    if dataclasses.is_dataclass(part) and not isinstance(part, type):
        return {f.name: getattr(part, f.name) for f in dataclasses.fields(part)}
    names = {name for cls in type(part).__mro__[:-1] for name in vars(cls)} | set(vars(part))
    skipped = ("bindings_class", "bindings_module", "bindings_ignore")
    found = {n: getattr(part, n) for n in sorted(names) if n[0] != "_" and n not in skipped}
    return {name: value for name, value in found.items() if not callable(value)}


def same(part: object, name: str, ours: Collection[str], off: Off) -> dict[str, Any]:
    """Fields that we have too, under our spelling; refuses what we lack and is not off.

    Args:
        part: whose fields. name: of the part, for messages. ours: what goes over, whatever its
            case. off: where the rest does nothing.

    Raises:
        ConfigError: a field that is neither.
    """
    spelling = {field.lower(): field for field in ours}
    result = {}
    for field, value in attributes(part).items():
        if value is None:
            continue  # derived from other fields
        if field.lower() in spelling:
            result[spelling[field.lower()]] = plain(value)
        elif field not in off:
            raise refusal(f"{name}.{field}", value, "leave it out")
        else:
            values = off[field]
            if values is not None and plain(value) not in values:
                known = " or ".join(map(str, values))
                raise refusal(f"{name}.{field}", value, f"set it to {known}")
    return result


def choice(part: object, name: str, field: str, known: Table[str, str]) -> str | None:
    """Our word for a member of one of their enumerations.

    Args:
        part: whose field. name: of the part, for messages. field: its name. known: their words ->
            ours.

    Returns:
        The word; None where the field is absent or None.

    Raises:
        ConfigError: one that we lack.
    """
    value = getattr(part, field, None)
    if value is None:
        return None
    if plain(value) not in known:
        raise refusal(f"{name}.{field}", value, f"use one of {', '.join(known)}")
    return known[plain(value)]

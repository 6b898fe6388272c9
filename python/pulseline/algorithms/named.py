"""Algorithms by the names of the command line."""

from __future__ import annotations

from typing import Any

from ..errors import ConfigError
from .buffered import AGAD, ERIDER, RIDER, ChoppedTikiTaka2, Residual2, TikiTaka2
from .chain import MultiTile, Residual1, TikiTaka1
from .mixed import MixedPrecision
from .pairs import OneSided, ReferencePair
from .rule import Rule
from .vector import Vector

__all__ = ["NAMES", "rule_named"]

NAMES: dict[str, type[Rule]] = {
    "ttv1": TikiTaka1,
    "ttv2": TikiTaka2,
    "c-ttv2": ChoppedTikiTaka2,
    "agad": AGAD,
    "rider": RIDER,
    "e-rider": ERIDER,
    "residual1": Residual1,
    "residual2": Residual2,
    "multi-tile": MultiTile,
    "mixed": MixedPrecision,
    "one-sided": OneSided,
    "reference": ReferencePair,
    "vector": Vector,
}


def rule_named(name: str, **fields: Any) -> Rule | None:
    """A rule by its name.

    Args:
        name: one of NAMES; "sgd": None, one array that every update pulses.
        fields: of the rule; the others have their defaults.

    Raises:
        ConfigError: there is no such algorithm.
    """
    if name == "sgd":
        return None
    if not isinstance(name, str) or name not in NAMES:
        raise ConfigError(f"algorithm is {name!r:.60}; use sgd or one of {', '.join(NAMES)}")
    return NAMES[name](**fields)

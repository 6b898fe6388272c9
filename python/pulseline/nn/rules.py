"""Rules of a conversion: which crossbar a module with matrices gets, or why it stays digital.

A rule's key is a pattern of names or a class of modules. It matches a module if it fits its name,
the name of one of its parameters, or one of the modules around it: ``"head"``, ``"head.*"`` and
``nn.TransformerEncoderLayer`` reach whatever is inside. ``*`` fits any characters, dots included.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from torch import nn

from ..configs import Crossbar
from ..errors import ConfigError
from ..presets import advice

__all__ = ["Choice", "Key", "Place", "Rules"]

Key = str | type[nn.Module]


class Place(NamedTuple):
    """A module and where it is.

    Attributes:
        module: the module.
        names: every name that it has in its model; a shared one has several.
        around: modules that contain it, itself included, under any of its names.
        parameters: names of its parameters, without its own.
    """

    module: nn.Module
    names: tuple[str, ...]
    around: tuple[nn.Module, ...]
    parameters: tuple[str, ...]

    def fits(self, key: Key) -> bool:
        """Whether a rule of this key is about it."""
        if isinstance(key, type):
            return any(isinstance(one, key) for one in self.around)
        return any(fnmatchcase(text, key) for text in self._texts())

    def _texts(self) -> Iterator[str]:
        for name in self.names:
            yield name
            parts = name.split(".")
            for n in range(1, len(parts)):
                yield ".".join(parts[:n])
            for parameter in self.parameters:
                yield f"{name}.{parameter}" if name else parameter


class Choice(NamedTuple):
    """What rules say of a module: its crossbar, or why it stays digital."""

    crossbar: Crossbar | None
    why: str = ""
    key: Key | None = None


class Rules:
    """The rules of one conversion.

    Args:
        given: what ``to_analog`` takes: a crossbar or device for all, or a mapping of keys to them
            or None; the first that matches wins.
        settings: fields that they replace in every crossbar.
        include: keys outside of which all stays digital; None: nothing is outside.
        exclude: keys of what stays digital.

    Raises:
        ConfigError: a key, a crossbar or a field is none.
    """

    def __init__(
        self,
        given: Any,
        settings: Mapping[str, Any],
        include: Any = None,
        exclude: Any = None,
    ) -> None:
        table = given if isinstance(given, Mapping) else {"*": given}
        explicit = isinstance(given, Mapping)
        self.rules: list[tuple[Key, Crossbar | None]] = []
        for key, value in table.items():
            digital = explicit and value is None
            made = None if digital else Crossbar.of(value, **settings)
            self.rules.append((_key("rules", key), made))
        self.include = None if include is None else _keys("include", include)
        self.exclude = _keys("exclude", () if exclude is None else exclude)

    def choose(self, place: Place) -> Choice:
        """The crossbar of a module, or the reason why it has none."""
        if self.include is not None and not any(place.fits(key) for key in self.include):
            return Choice(None, "not in include")
        for key in self.exclude:
            if place.fits(key):
                return Choice(None, f"excluded by {_text(key)}", key)
        for key, crossbar in self.rules:
            if place.fits(key):
                why = "" if crossbar is not None else f"rule {_text(key)} is None"
                return Choice(crossbar, why, key)
        return Choice(None, "no rule is about it")

    def refuse_idle(self, places: Iterable[Place]) -> None:
        """Refuse keys that are about nothing.

        Args:
            places: modules with a matrix.

        Raises:
            ConfigError: a key is about none of them.
        """
        found = list(places)
        lists: tuple[tuple[str, list[Key]], ...] = (
            ("rules", [key for key, _ in self.rules if key != "*"]),
            ("include", self.include or []),
            ("exclude", self.exclude),
        )
        for argument, keys in lists:
            for key in keys:
                if not any(place.fits(key) for place in found):
                    raise ConfigError(
                        f"{argument} names {_text(key)}, which is no module with a matrix here; "
                        f"{_others(key, found)}"
                    )


def _others(key: Key, places: list[Place]) -> str:
    if isinstance(key, type):
        known = list(dict.fromkeys(type(place.module).__name__ for place in places))
        return advice(key.__name__, known[:12]) if known else "leave it out"
    texts = [text for place in places for text in (*place.names, *place._texts()) if text]
    return advice(key, list(dict.fromkeys(texts))[:2000], 12) if texts else "leave it out"


def _text(key: Key) -> str:
    return repr(key) if isinstance(key, str) else key.__name__


def _key(argument: str, key: Any) -> Key:
    if isinstance(key, str) or (isinstance(key, type) and issubclass(key, nn.Module)):
        return key
    raise ConfigError(f"{argument} holds {key!r:.60}; use patterns of names or classes of modules")


def _keys(argument: str, given: Any) -> list[Key]:
    if isinstance(given, (str, type)):
        given = (given,)
    if not isinstance(given, Iterable):
        raise ConfigError(f"{argument} is {given!r:.60}; use a pattern, a class or a list of them")
    return [_key(argument, key) for key in given]

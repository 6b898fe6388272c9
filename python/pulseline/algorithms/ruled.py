"""RuledCell: a cell that a rule describes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..cells import Cell
from ..configs import Crossbar
from ..identity import Identity

__all__ = ["RuledCell"]


class RuledCell(Cell):
    """A cell whose algorithm and settings are those of a rule.

    Args:
        rows, cols: of the matrix. crossbar: its settings. identity: whose draws.
        rule: that describes it.

    Raises:
        ConfigError: the rule cannot work on these devices.
    """

    rule: Any

    def __init__(
        self, rows: int, cols: int, crossbar: Crossbar, identity: Identity, rule: Any
    ) -> None:
        super().__init__(rows, cols, crossbar, identity)
        self.rule = rule
        self.build()
        self.refresh()

    def build(self) -> None:
        """Make the arrays beside array 0, and what else the rule keeps."""

    @property
    def algorithm(self) -> str:
        """The rule's name."""
        name: str = self.rule.name
        return name

    def settings(self) -> Mapping[str, object]:
        """The rule's fields."""
        fields: Mapping[str, object] = self.rule.settings()
        return fields

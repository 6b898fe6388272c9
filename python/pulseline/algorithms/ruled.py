"""RuledCell: a cell that a rule describes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..cells import Cell
from ..configs import Crossbar
from ..identity import Identity
from ..ops import Batch, check_tensor

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
        self.__dict__["updating"] = True  # nothing is summed before all is there
        super().__init__(rows, cols, crossbar, identity)
        self.rule = rule
        self.build()
        for array in self.arrays:
            array.leave_time()
        self.ages = any(getattr(array.device, "ages", False) for array in self.arrays)
        self.__dict__["updating"] = False
        self.refresh()

    def build(self) -> None:
        """Make the arrays beside array 0, and what else the rule keeps."""

    # ---- time passes on all arrays by the samples of the cell ----

    def update(self, x: Tensor, d: Tensor, lr: float, batch: Batch | None = None) -> None:
        """See :meth:`pulseline.Cell.update`; cut where an event of an array falls.

        With lr = 0 time passes, and nothing else happens: no pulse, no transfer, no flip.

        Args:
            x, d, lr, batch: see there.
        """
        self.check_update(x, d, lr)
        self.apply_update(x, d, lr, batch)

    def apply_update(self, x: Tensor, d: Tensor, lr: float, batch: Batch | None) -> None:
        """:meth:`update` of what was looked at.

        Args:
            x, d, lr, batch: see there.
        """
        held = self.__dict__  # not by attribute: torch looks at each
        held["updating"] = True
        try:
            for part in self._between_events(x.shape[0]) if self.ages else [slice(0, x.shape[0])]:
                if lr == 0:
                    held["samples"] += part.stop - part.start
                elif self.ages:
                    self.pulse(x[part], d[part], lr, batch)
                else:
                    self.pulse(x, d, lr, batch)
                for array in self.arrays if self.ages else ():
                    array.age(part.stop - part.start, batch)
        finally:
            held["updating"] = False
        if self.ages:
            self.refresh()

    def apply_pending(self, lr: float, batch: Batch | None = None) -> None:
        """As :meth:`pulseline.Cell.apply_pending`; with ``units="batches"`` a step is counted.

        Args:
            lr, batch: see there.
        """
        waits = bool(self.pending)
        super().apply_pending(lr, batch)
        if waits and lr > 0 and getattr(self.rule, "units", "samples") == "batches":
            self.progress["steps"] += 1
            self.behind_step(int(self.progress["steps"]), lr, batch)

    def behind_step(self, steps: int, lr: float, batch: Batch | None) -> None:
        """What is due by steps of the optimizer, of a rule with such units.

        Args:
            steps: so far. lr: of the optimizer. batch: on a GPU.
        """

    def read(self, v: Tensor, transposed: bool = False) -> Tensor:
        """See :meth:`pulseline.Cell.read`; a frozen weight ages.

        Args:
            v, transposed: see there.
        """
        if transposed or not self.ages or self.weight.requires_grad:
            return super().read(v, transposed)
        check_tensor(v)
        read = []
        for part in self._between_events(len(v)):
            read.append(super().read(v[part]))
            self.age(len(read[-1]))
        return read[0] if len(read) == 1 else torch.cat(read)

    def _between_events(self, samples: int) -> list[slice]:
        ends = sorted({end for array in self.arrays for end in array.until_events(samples)})
        return [slice(a, b) for a, b in zip([0, *ends], ends, strict=False)]

    @property
    def algorithm(self) -> str:
        """The rule's name."""
        name: str = self.rule.name
        return name

    def settings(self) -> Mapping[str, object]:
        """The rule's fields."""
        fields: Mapping[str, object] = self.rule.settings()
        return fields

"""Aged: what happens to an array's crosspoints between pulses.

Decay, drift, diffusion and resets, see :mod:`pulseline.devices.pulsed`. What they need of a
crosspoint is stored beside the array or drawn anew, see :mod:`.crosspoints`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .. import ops
from ..devices import PulsedDevice
from ..errors import ConfigError
from ..identity import Identity
from .crosspoints import Crosspoints
from .packed import Packed
from .shown import Shown

__all__ = ["Aged"]


class Aged(Shown):
    """An array that time passes on.

    Attributes:
        hidden: what pulses move where the weight, which is read, carries write noise; else None.
        age_count: samples that passed, on the host, which cuts calls at events.
        timed: whether its own updates, and reads of a frozen weight, let time pass.
    """

    timed: bool = True

    hidden: Tensor | None
    age_count: int
    crosspoints: Crosspoints
    _packed: Packed
    _identity: Identity
    _name: str
    _params: tuple[float, ...]
    _ages: bool
    _block_rows: int

    def age(self, samples: int, batch: ops.Batch | None = None) -> None:
        """Let decay, drift and diffusion happen as often as ``samples`` more samples make due.

        Updates, and training reads of a frozen weight, do so themselves. Event n falls behind
        sample n ``device.batch``; its number keys its draws and is the time of the drift. Nothing
        for devices that do not age.

        Args:
            samples: how many, >= 0.
            batch: on a GPU, what is launched before.

        Raises:
            ConfigError: samples is negative.
        """
        if samples < 0:
            raise ConfigError(f"samples is {samples}; use a number >= 0")
        device = self.crossbar.device
        if not isinstance(device, PulsedDevice) or not device.ages:
            return
        first = self.age_count // device.batch
        self.age_count += samples
        for event in range(first, self.age_count // device.batch):
            if batch is not None:
                batch.launch()
            self._pass_time(event)

    def leave_time(self) -> None:
        """Let time pass by :meth:`age` alone: of a cell of several arrays, by its samples."""
        self.timed = self._ages = False

    def until_events(self, samples: int) -> list[int]:
        """Behind which of so many samples an event falls, and the last one: their numbers + 1.

        Args:
            samples: of a call.
        """
        device = self.crossbar.device
        if not isinstance(device, PulsedDevice) or not device.ages:
            return [samples]
        return [part.stop for part in self._until_events(samples)]

    def _settled(self) -> Tensor:
        """What pulses move, with what was written into the weight."""
        self.settle()
        return self.held if self.hidden is None else self.hidden

    def _pass_time(self, event: int) -> None:
        """Decay, drift and diffusion, once."""
        drift, held = ops.drift_log2(event + 1), self._settled()
        before = None if self.hidden is None else held.clone()
        ops.retain_(*(held, *self._between(), drift, event, self._packed.draws, *self._anew))
        if before is not None:  # the noise of the last write stays as it is
            self.held.add_(held - before)
        self._tell()

    def _between(self) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Step, bound and words; None, to be drawn anew, unless all are stored."""
        cells = self.crosspoints
        if cells.words is None:
            return None, None, None
        return cells.step, cells.bound, cells.words

    @property
    def _anew(self) -> tuple[str, tuple[float, ...], tuple[float, ...]]:
        """What words of crosspoints are drawn with: model, parameters, what acts between pulses."""
        device = self.crossbar.device
        between = device.retention() if isinstance(device, PulsedDevice) else ()
        return self._name, self._params, between

    def _until_events(self, samples: int) -> list[slice]:
        """The samples of a call, cut where an event falls between two of them."""
        device = self.crossbar.device
        assert isinstance(device, PulsedDevice)
        edges = [*range(device.batch - self.age_count % device.batch, samples, device.batch)]
        edges.append(samples)
        return [slice(a, b) for a, b in zip([0, *edges], edges, strict=False)]

    @torch.no_grad()
    def reset(
        self,
        columns: Tensor | None = None,
        where: Tensor | None = None,
        number: int | None = None,
    ) -> None:
        """Set crosspoints to ``b + reset_std xi``, within their bounds; stuck ones stay.

        Two resets of one number draw the same noise.

        Args:
            columns: indices of the columns; None: all.
            where: (rows, cols) bool, which crosspoints of them; None: all.
            number: of the reset; None: samples that passed so far.

        Raises:
            ConfigError: the device is ideal, or columns are given of a matrix of several blocks.
        """
        device = self.crossbar.device
        if not isinstance(device, PulsedDevice):
            raise ConfigError("device is Ideal, which has no reset; program the weights instead")
        if columns is not None and self._block_rows:
            raise ConfigError("columns are given of a matrix of several blocks; leave them out")
        fresh = self._settled().clone()
        number = self.age_count if number is None else number
        ops.reset_(
            *(fresh, *self._between(), device.reset_std, number, self._packed.draws),
            *self._anew,
        )
        some = slice(None) if columns is None else columns
        for held in {id(t): t for t in (self._settled(), self.held)}.values():
            written = fresh if where is None else torch.where(where, fresh, held)
            held[:, some] = written[:, some]
        self._tell()

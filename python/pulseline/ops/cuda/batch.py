"""Updates of several arrays together: small layers fill the GPU when they share their launches."""

from __future__ import annotations

import contextlib
from collections.abc import Hashable, Iterator, Sequence
from types import TracebackType
from typing import TypeVar

from torch import Tensor

from ...errors import ConfigError
from . import module
from .launch import Redraw, Status, Update, launch_redraws, launch_tapped, launch_updates
from .outcomes import Outcomes, note

__all__ = ["Batch"]

_MOST_LINES = 65535 * 16  # of a matrix: the grid has no more blocks of rows
T = TypeVar("T")


class Batch:
    """Updates and write noise whose launches come together; a ``with`` block launches at its end.

    Whoever makes it hands it to :meth:`pulseline.Array.pulse`; nobody else sees what it holds. Its
    x and d must stay as they are until the launch, and whoever reads or changes the weights before
    calls :meth:`launch` first. What was added is launched, even if the block fails. Updates of CPU
    tensors do not wait for it, nor do those with taps, whose values are read at once.
    """

    def __init__(self) -> None:
        self._updates: list[Update] = []
        self._redraws: list[Redraw] = []

    def __enter__(self) -> Batch:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # A block that failed has its own error to tell.
        with contextlib.suppress(ConfigError) if error else contextlib.nullcontext():
            self.launch()

    def add(self, update: Update) -> None:
        """Keep an update; those of one array are launched in order, one with taps at once.

        Raises:
            ConfigError: the matrix has more lines than a grid; see :meth:`launch`.
        """
        if max(update.weight.shape) > _MOST_LINES:
            raise ConfigError(
                f"weight is {tuple(update.weight.shape)}; an update on a GPU takes up to "
                f"{_MOST_LINES} rows and columns, split the layer"
            )
        where = update.weight.data_ptr()
        if any(other.weight.data_ptr() == where for other in self._updates):
            self.launch()
        if update.taps is None:
            self._updates.append(update)
        else:  # others may still come together
            note(*launch_tapped(update))

    def redraw(self, redraw: Redraw) -> None:
        """Keep the write noise of an update; it comes after all updates."""
        self._redraws.append(redraw)

    def launch(self) -> None:
        """Launch everything that was added.

        Raises:
            ConfigError: an update met a value that is not finite and waiting was asked for, see
                :mod:`.outcomes`; all others are done.
        """
        updates, self._updates = self._updates, []
        redraws, self._redraws = self._redraws, []
        if not updates and not redraws:
            return
        most = module.kernels().MOST_TASKS
        said: list[Status] = []
        keys = [(u.model, u.key.fidelity, u.pulses.noise, u.weight.device) for u in updates]
        for group in _groups(updates, keys, most):
            said += launch_updates(group)
        kinds = [(r.update.weight.device, r.update.key.fidelity) for r in redraws]
        for kind in _groups(redraws, kinds, most):
            launch_redraws(kind)
        errors = [error for status in said if (error := _said(*status)) is not None]
        if errors:
            raise errors[0]


def _said(status: Tensor, outcomes: Outcomes | None) -> ConfigError | None:
    try:
        note(status, outcomes)
    except ConfigError as error:
        return error
    return None


def _groups(entries: Sequence[T], keys: Sequence[Hashable], most: int) -> Iterator[list[T]]:
    """Entries of equal keys in order, at most so many at a time."""
    groups: dict[Hashable, list[T]] = {}
    for entry, key in zip(entries, keys, strict=True):
        groups.setdefault(key, []).append(entry)
    for group in groups.values():
        for n in range(0, len(group), most):
            yield group[n : n + most]

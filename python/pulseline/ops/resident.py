"""Operators on the tensors of one array, which are looked at once.

``update_`` and the reads look at every tensor of every call: 7 us, where a small update takes 3.
What an array owns stays where it is, so that a call only asks whether its memory still does. Eager
calls on CPU tensors, see :func:`.library.direct`; the same bits and the same sentences.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from .checks import check_counters, check_fired, check_tapped, operand, weight_address
from .read import run_read
from .transfer import run_counted
from .update import device_arguments, run_update

__all__ = ["Resident"]


class Resident:
    """Where the tensors of an array lie.

    Args:
        weight: that is pulsed, (rows, cols). counters: of the array.
        pairs: step, slope, bound of ``construct``, or None where there are none.
        device, params: name and parameters of the model.

    Raises:
        ConfigError: a tensor that no operator takes.
    """

    def __init__(
        self,
        weight: Tensor,
        counters: Tensor,
        pairs: tuple[Tensor | None, Tensor | None, Tensor | None],
        device: str,
        params: Sequence[float],
    ) -> None:
        self._weight, self._counters, self._pairs = weight, counters, pairs
        self._at = weight_address(weight, "cpu")
        self._counters_at = check_counters(counters, weight)
        self._shape = weight.shape
        self._sizes: tuple[int, int] = tuple(weight.shape)  # type: ignore[assignment]
        index, self._pairs_at = device_arguments(device, params, weight, *pairs)
        self._held = (self._at, *self._pairs_at, index, params, self._counters_at)

    def holds(
        self,
        weight: Tensor,
        counters: Tensor,
        step: Tensor | None,
        slope: Tensor | None,
        bound: Tensor | None,
    ) -> bool:
        """Whether these are the tensors, and lie where they lay.

        Storage that torch resizes, frees or exchanges lies elsewhere afterwards, or nowhere.

        Args:
            weight, counters, step, slope, bound: of the array now.
        """
        step_at, slope_at, bound_at = self._pairs_at
        pairs = self._pairs
        return (
            weight is self._weight
            and counters is self._counters
            and step is pairs[0]
            and slope is pairs[1]
            and bound is pairs[2]
            and weight.data_ptr() == self._at
            and weight.shape == self._shape
            and counters.data_ptr() == self._counters_at
            and (step is None or step.data_ptr() == step_at)
            and (slope is None or slope.data_ptr() == slope_at)
            and (bound is None or bound.data_ptr() == bound_at)
        )

    def update(
        self,
        x: Tensor,
        d: Tensor,
        lr: float,
        pulses: Any,
        key: Any,
        fired: Tensor | None,
        taps: tuple[Tensor, Tensor] | None = None,
    ) -> int:
        """:func:`.update.update_` of the array.

        Args:
            x, d, lr, pulses, key, fired: see there. taps: and ``tapped``, see there.

        Returns:
            How many lines saturated.
        """
        rows, cols = self._sizes
        weight = self._weight
        columns = cols if key.block_rows == 0 else cols * (rows // key.block_rows)
        x, d = operand("x", x, columns, weight), operand("d", d, rows, weight)
        fired_at = 0 if fired is None else check_fired(fired, weight)
        taps_at = None if taps is None else check_tapped(*taps, weight)
        return run_update(self._held, self._sizes, x, d, lr, (pulses, key, fired_at, taps_at))

    def step(
        self,
        columns: Tensor,
        counts: Tensor,
        number: int,
        key: Any,
        fired: Tensor | None,
        visible: Tensor | None,
        deviation: float,
    ) -> None:
        """:func:`.transfer.pulse_` of the array, whose device is not ideal.

        Args:
            columns, counts, number, key, fired, visible, deviation: see there.
        """
        rest = (fired, visible, deviation)
        run_counted(self._held, self._weight, columns, counts, number, key, rest)

    def read(
        self,
        x: Tensor,
        transposed: bool,
        key: Any,
        settings: Any,
        converters: Any = None,
        average: Tensor | None = None,
    ) -> Tensor:
        """:func:`.read.read_` or :func:`.read.read_chain_` of the array.

        Args:
            x, transposed, key, settings, converters, average: see there.

        Returns:
            (samples, outputs) float32.
        """
        held = (self._at, self._counters_at)
        chain = None if converters is None else (converters, average)
        return run_read(x, self._weight, held, transposed, key, settings, chain)

"""The rule of a buffered transfer in one pass, where its buffers are on the CPU.

Eager calls alone: elsewhere a rule's tensor operations do the same, with the same bits.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .. import _cpu
from .checks import address, weight_address
from .layout import CountAddresses

__all__ = ["count_columns_"]

_F32 = torch.float32
_threads = torch.get_num_threads


def count_columns_(
    held: Tensor,
    values: Tensor,
    column: int,
    signs: tuple[Tensor, Tensor | None],
    settings: Sequence[float],
    mean: Tensor | None = None,
    rho: Tensor | None = None,
) -> Tensor:
    """Count columns that were read in a digital buffer, in place, and take whole pulses out.

    ``h = (1 - leak) held + rate sign (z - rho)``; ``n = trunc(h)`` within +-max_pulses;
    ``held = h - (1 - momentum) n``, with ``forget`` ``momentum h`` where n is not 0; at last
    ``mean += beta (z - mean)``. Each operation is rounded on its own.

    Args:
        held: (rows, cols) float32 on the CPU. values: (rows, reads) float32, z.
        column: that was read first; the others follow.
        signs: of columns, (cols,), and of rows, (rows,) or None: 1.
        settings: :class:`.layout.CountSettings`.
        mean, rho: (rows, cols) float32, or None: neither.

    Returns:
        (rows, reads) float32, n.

    Raises:
        ConfigError: shapes, dtypes, devices, columns that there are not, settings out of their
            range; nothing was written.
    """
    held_at = weight_address(held, "cpu")
    rows, cols = shape = held.shape
    reads = values.shape[1] if values.dim() == 2 else 0
    pulses = torch.empty((rows, reads), dtype=_F32, device=held.device)
    columns, lines = signs
    at = CountAddresses(
        held_at,
        0 if mean is None else address("mean", mean, _F32, shape, held),
        0 if rho is None else address("rho", rho, _F32, shape, held),
        address("values", values, _F32, (rows, reads), held),
        address("signs", columns, _F32, (cols,), held),
        0 if lines is None else address("signs", lines, _F32, (rows,), held),
        pulses.data_ptr(),
    )
    _cpu.count_columns(at, rows, cols, column, reads, settings, _threads())
    return pulses

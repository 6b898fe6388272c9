"""Updates whose rows are unfolded in chunks: those of convolutions.

Every position is a sample of the arrays, in raster order. Updates that take samples one by one have
the same bits however they are cut; those that join samples (grouped, moments) close their groups
between images and every 512 rows of one, so that chunks and batches change no bit of them either.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from ..arrays import Patches, check_lr, parts
from ..ops import Batch, check_finite
from ..torch_private import not_compiled_within

__all__ = ["update_patches"]

_ROWS = 512  # a slice of an update: with fewer every crosspoint is fetched more often


class _Updated(Protocol):
    arrays: Any

    def update(self, x: Tensor, d: Tensor, lr: float, batch: Batch | None = None) -> None:
        """See :meth:`pulseline.Cell.update`."""


@not_compiled_within
def update_patches(
    cell: _Updated, pairs: Sequence[tuple[Patches, Tensor]], lr: float, batch: Batch | None
) -> None:
    """Pulse pairs in order, all of them or none.

    Args:
        cell: whose. pairs: patches and (positions, rows) errors. lr: learning rate >= 0.
        batch: on a GPU, whose launches it shares.

    Raises:
        ConfigError: a value that is not finite, or lr < 0; weights untouched.
    """
    check_lr(lr)
    finite = _finite(pairs)
    joins = any(array._packed.joins for array in cell.arrays)
    for x, d in pairs:
        for part in x.groups() if joins else parts(x, _ROWS):
            rows = x[part]
            if finite is not None:
                rows = torch.where(finite, rows, float("nan"))
            cell.update(rows, d[part], lr, batch)
            if batch is not None:
                batch.launch()  # or it would hold the rows of all chunks


def _finite(pairs: Sequence[tuple[Patches, Tensor]]) -> Tensor | None:
    """Refuse what is not finite; on a GPU the host does not wait: whether all is, as a tensor."""
    found: Tensor | None = None
    for x, d in pairs:
        if not d.is_cpu:
            both = torch.isfinite(x.image).all() & torch.isfinite(d).all()
            found = both if found is None else found & both
            continue
        for source, values in enumerate((x.image, d), 1):
            check_finite(source, values)
    return found

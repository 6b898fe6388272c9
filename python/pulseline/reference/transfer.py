"""Counted pulses on single crosspoints, in plain torch."""

from __future__ import annotations

import torch
from torch import Tensor

from ..devices import Device, PulsedDevice
from .arithmetic import f32
from .devices import Crosspoints, Stored
from .rng import COUNTED_PULSES, Stream, cycle_normal, draw_keys
from .trains import SLOTS_PER_WORD
from .update import pulse

__all__ = ["pulse_counted"]


def pulse_counted(
    weight: Tensor,
    stored: Stored | None,
    columns: Tensor,
    counts: Tensor,
    device: Device,
    fidelity: str,
    *,
    number: int,
    seed: int = 0,
    tile_id: int = 0,
    granularity: float = 1.0,
) -> Tensor:
    """``n`` signed pulses of every crosspoint, at most 31 of which are joined; one line a column.

    Args:
        weight: (rows, cols). stored: see :func:`construct`; None if ideal.
        columns: (lines,), all different. counts: (rows, lines) whole numbers, > 0: up.
        device: the crosspoints' model. fidelity: strict: one by one; expected: without noise.
        number: of the first line. seed, tile_id: whose random numbers.
        granularity: of the ideal device.

    Returns:
        The new weights.
    """
    out = weight.clone()
    for line, column in enumerate(columns.tolist()):
        n = counts[:, line : line + 1]
        w = weight[:, column : column + 1]
        if isinstance(device, PulsedDevice):
            assert stored is not None
            c = Crosspoints.of(device, Stored(*(p[:, column : column + 1] for p in stored)))
            stream = Stream(seed, tile_id)
            moved = _pulse_line(w, c, n, device, fidelity, (stream, number + line, column))
        else:
            moved = w + n * f32(granularity)
        out[:, column : column + 1] = torch.where(n != 0, moved + 0.0, w)
    return out


def _pulse_line(
    w: Tensor,
    c: Crosspoints,
    n: Tensor,
    device: PulsedDevice,
    fidelity: str,
    place: tuple[Stream, int, int],
) -> Tensor:
    stream, k, column = place
    rows, columns = torch.arange(len(w))[:, None], torch.tensor([column])
    each = 1 if fidelity == "strict" else SLOTS_PER_WORD
    size = n.abs()
    for first in range(0, int(size.max()) if len(w) else 0, each):
        word, slot = divmod(first, SLOTS_PER_WORD)
        draw = word << 5 | slot if fidelity == "strict" else word
        xi = cycle_normal(rows, columns, draw_keys(stream, COUNTED_PULSES, k, draw))
        joined = (size - first).clamp(0, each).to(torch.int64)
        w = pulse(device, c, w, n > 0, joined, xi, 0.0 if fidelity == "expected" else 1.0)
    return w

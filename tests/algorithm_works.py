"""What each rule asks of hardware, derived by hand.

m = 20 rows and n = 30 columns everywhere, so that m n = 600; float32 takes 4 bytes, and a transfer
moves its column of a buffer in and out, 2 * 4 * m = 160 bytes.
"""

from __future__ import annotations

from typing import Any

import pulseline as pl
from pulseline import algorithms as rules
from pulseline.cells import Cell, make_cell
from pulseline.devices import ConstantStep
from pulseline.hardware import Work
from pulseline.identity import Identity

M, N = 20, 30
DEVICE = ConstantStep(dw_min=0.002)


def cell(rule: Any, **settings: Any) -> Cell:
    """A cell of 20 x 30 by a rule."""
    crossbar = pl.Crossbar(DEVICE, algorithm=rule, **settings)
    return make_cell(M, N, crossbar, Identity(seed=3, tile_id=0))


SLOW = {"crossbars": 2, "takers": (1,)}
OWN = {**SLOW, "update_array": True}
WORKS: dict[str, tuple[Any, Work]] = {
    # One array, one update a sample: the numbers of always.
    "plain": (None, Work()),
    # A column each 2 samples, at most 31 pulses; 3 m operations; H.
    "TTv2": (
        rules.TikiTaka2(every=2),
        Work(
            **OWN,
            reads=0.5,
            writes=0.5,
            write_slots=31,
            operations=0.5 * 3 * 20,
            traffic_bytes=0.5 * 160,
            buffer_bytes=600 * 4,
        ),
    ),
    # Two columns each 4 samples; a leak multiplies H; one pulse.
    "TTv2 leaks": (
        rules.TikiTaka2(every=4, reads=2, leak=0.1, max_pulses=1),
        Work(
            **OWN,
            reads=0.5,
            writes=0.5,
            write_slots=1,
            operations=0.5 * 4 * 20,
            traffic_bytes=0.5 * 160,
            buffer_bytes=600 * 4,
        ),
    ),
    # One bit a column more.
    "c-TTv2": (
        rules.ChoppedTikiTaka2(),
        Work(
            **OWN,
            reads=1,
            writes=1,
            write_slots=31,
            operations=3 * 20,
            traffic_bytes=160,
            buffer_bytes=600 * 4 + 30 / 8,
        ),
    ),
    # Rows have bits too; two maxima of m + n values a sample, kept as two float32.
    "c-TTv2 by rows, scaled": (
        rules.ChoppedTikiTaka2(chop_rows=0.1, auto_scale=True),
        Work(
            **OWN,
            reads=1,
            writes=1,
            write_slots=31,
            operations=3 * 20 + 50,
            traffic_bytes=160,
            buffer_bytes=600 * 4 + 50 / 8 + 8,
        ),
    ),
    # z - rho and three for the mean: 4 m more; H, mean, rho.
    "AGAD": (
        rules.AGAD(),
        Work(
            **OWN,
            reads=1,
            writes=1,
            write_slots=31,
            operations=7 * 20,
            traffic_bytes=3 * 160,
            buffer_bytes=3 * 600 * 4 + 30 / 8,
        ),
    ),
    # A is read too: nothing overlaps.
    "residual 2": (
        rules.Residual2(every=2),
        Work(
            **SLOW,
            arrays=2,
            reads=0.5,
            writes=0.5,
            write_slots=31,
            operations=0.5 * 3 * 20,
            traffic_bytes=0.5 * 160,
            buffer_bytes=600 * 4,
        ),
    ),
    # A and a copy of rho are read; all columns of it change every 1 / .05 = 20 sweeps.
    "E-RIDER": (
        rules.ERIDER(),
        Work(
            crossbars=3,
            takers=(1,),
            arrays=3,
            reads=1,
            writes=1 + 1 / 20,
            write_slots=31,
            operations=7 * 20,
            traffic_bytes=3 * 160,
            buffer_bytes=3 * 600 * 4 + 30 / 8,
        ),
    ),
    # The same at random: with probability .1 behind each read.
    "E-RIDER at random": (
        rules.ERIDER(chop=0.1, regular_chop=False, every=2),
        Work(
            crossbars=3,
            takers=(1,),
            arrays=3,
            reads=0.5,
            writes=0.5 * 1.1,
            write_slots=31,
            operations=0.5 * 7 * 20,
            traffic_bytes=0.5 * 3 * 160,
            buffer_bytes=3 * 600 * 4 + 30 / 8,
        ),
    ),
    # rho changes at every read, and nothing has a sign.
    "RIDER": (
        rules.RIDER(),
        Work(
            crossbars=3,
            takers=(1,),
            arrays=3,
            reads=1,
            writes=2,
            write_slots=31,
            operations=7 * 20,
            traffic_bytes=3 * 160,
            buffer_bytes=3 * 600 * 4,
        ),
    ),
    # Trains of one column, BL 31.
    "TTv1": (
        rules.TikiTaka1(every=2),
        Work(crossbars=2, update_array=True, reads=0.5, writes=0.5, write_slots=31),
    ),
    "residual 1": (
        rules.Residual1(every=2),
        Work(crossbars=2, arrays=2, reads=0.5, writes=0.5, write_slots=31),
    ),
    # 4 arrays, columns each 2, 10 and 50 samples: .5 + .1 + .02.
    "multi-tile": (
        rules.MultiTile(),
        Work(
            crossbars=4,
            arrays=4,
            reads=0.5 + 0.1 + 0.02,
            writes=0.5 + 0.1 + 0.02,
            write_slots=31,
        ),
    ),
    # Its warm start: the last one feeds array 0 alone.
    "multi-tile warm": (
        rules.MultiTile(warm_start=True),
        Work(crossbars=4, arrays=4, reads=0.5, writes=0.5, write_slots=31),
    ),
    # A multiply and an add for each of 600, chi in and out; each 5 samples 20 rows are written,
    # with 3 operations for each of 600 and chi in and out once more.
    "mixed": (
        rules.MixedPrecision(every=5, units="samples", max_pulses=3),
        Work(
            takers=(),
            driven=0,
            struck=0,
            writes=20 / 5,
            by_rows=True,
            write_slots=3,
            operations=2 * 600 + 3 * 600 / 5,
            traffic_bytes=8 * 600 * (1 + 1 / 5),
            buffer_bytes=600 * 4,
        ),
    ),
    "one-sided": (
        rules.OneSided(),
        Work(crossbars=2, arrays=2, takers=(0, 1), driven=2),
    ),
    # Each 100 samples 30 columns of both are read, and written with up to .75 / .002 pulses, the
    # most that is left of a pair whose smaller part exceeds .25 (w_max is .6: 225).
    "one-sided, refreshed": (
        rules.OneSided(refresh_every=100),
        Work(
            crossbars=2,
            arrays=2,
            takers=(0, 1),
            driven=2,
            reads=0.6,
            writes=0.3,
            write_slots=225,
            operations=3 * 600 / 100,
        ),
    ),
    "reference pair": (rules.ReferencePair(), Work(crossbars=2, arrays=2, takers=(0,))),
    "vector": (
        rules.Vector(arrays=3),
        Work(crossbars=3, arrays=3, takers=(0, 1, 2), driven=3, struck=3),
    ),
    "vector, first": (
        rules.Vector(arrays=3, pulsed="first"),
        Work(crossbars=3, arrays=3, takers=(0,)),
    ),
    "vector, in turns": (
        rules.Vector(arrays=3, pulsed="sequential"),
        Work(crossbars=3, arrays=3, takers=(0, 1, 2)),
    ),
}

"""What a stage costs per sample: its matrices on the tiles of some hardware."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

from ..errors import ConfigError
from .model import Hardware
from .work import Work

__all__ = ["Matrix", "StageCost", "matrix_cost", "stage_cost"]

_PLAIN = Work()


@dataclass(frozen=True)
class Matrix:
    """A weight matrix and how often a sample uses it.

    Attributes:
        rows, cols: its shape.
        positions: products per sample; a convolution on a crossbar takes one per output position.
        bl: slots of its pulse trains; None: the hardware's.
        work: of its algorithm, per position; a plain array's by default.

    Raises:
        ConfigError: a size is negative.
    """

    rows: int
    cols: int
    positions: float = 1
    bl: float | None = None
    work: Work = _PLAIN

    def __post_init__(self) -> None:
        if min(self.rows, self.cols, self.positions, self.bl or 0) < 0:
            raise ConfigError(f"{self} has a negative size; use numbers >= 0")


@dataclass(frozen=True)
class StageCost:
    """Time and energy of F, B and U of one sample at one stage, with the transfers of algorithms.

    Attributes:
        forward_ns, backward_ns, update_ns: t_F, t_B, t_U; t_U is what keeps F and B waiting, the
            reads and writes of transfers included.
        forward_pj, backward_pj: energies of the reads.
        update_pj: a bound: every slot of both signs a pulse on every line and, for one sign, a
            coincidence at every crosspoint; of writes too.
        line_pj: the part of it that line pulses take.
        beside_ns: pulses and column reads on crossbars of their own, beside F and B.
        transfer_pj: of column reads. digital_pj: of digital operations and buffers.
        reads, writes, operations: columns read, lines written and digital operations per sample.
        crossbars, crosspoints, buffer_bytes: that the stage consists of.
    """

    forward_ns: float = 0.0
    backward_ns: float = 0.0
    update_ns: float = 0.0
    forward_pj: float = 0.0
    backward_pj: float = 0.0
    update_pj: float = 0.0
    line_pj: float = 0.0
    beside_ns: float = 0.0
    transfer_pj: float = 0.0
    digital_pj: float = 0.0
    reads: float = 0.0
    writes: float = 0.0
    operations: float = 0.0
    crossbars: int = 0
    crosspoints: int = 0
    buffer_bytes: float = 0.0

    def times(
        self, samples: int = 1
    ) -> tuple[float, float, float] | tuple[float, float, float, float]:
        """(t_F, t_B, t_U) in ns of a micro-batch of so many samples, one after the other.

        Args:
            samples: of the micro-batch.

        Returns:
            With a fourth, what runs beside them, where there is something.
        """
        three = (self.forward_ns * samples, self.backward_ns * samples, self.update_ns * samples)
        return (*three, self.beside_ns * samples) if self.beside_ns else three

    @property
    def busy_ns(self) -> float:
        """max(t_F + t_B + t_U, what runs beside them) of one sample."""
        return max(self.forward_ns + self.backward_ns + self.update_ns, self.beside_ns)


def matrix_cost(hardware: Hardware, matrix: Matrix) -> StageCost:
    """Cost of one matrix: ``positions`` products each way and as many rank-1 updates.

    Transfers of its algorithm: a column read takes t_F, a write ``2 slots t_pulse``. If updates
    pulse a crossbar of their own, pulses and column reads are on it, beside F and B, and writes are
    not; otherwise all of them keep F and B waiting. Digital work takes energy and no time.

    Args:
        hardware: that it lies on. matrix: its sizes.

    Returns:
        Per sample.
    """
    rows, cols, n, work = matrix.rows, matrix.cols, matrix.positions, matrix.work
    slots = hardware.bl if matrix.bl is None else matrix.bl
    empty = rows == 0 or cols == 0
    lines = 2 * slots * hardware.lines(rows, cols) * work.driven
    pulses_ns = 0.0 if empty or not work.driven else n * hardware.update_ns(matrix.bl)
    n_reads, n_writes = (0.0, 0.0) if empty else (n * work.reads, n * work.writes)
    reads_ns = n_reads * hardware.forward_ns(rows)
    writes_ns = n_writes * hardware.update_ns(work.write_slots)
    write, write_lines = _write(hardware, matrix)
    beside = pulses_ns + reads_ns if work.update_array else 0.0
    digital = work.operations * hardware.op_pj + work.traffic_bytes * hardware.byte_pj
    return StageCost(
        forward_ns=n * hardware.forward_ns(rows),
        backward_ns=n * hardware.backward_ns(cols),
        update_ns=(0.0 if beside else pulses_ns + reads_ns) + writes_ns,
        forward_pj=n * hardware.read_pj(rows, cols, arrays=work.arrays),
        backward_pj=n * hardware.read_pj(rows, cols, transposed=True, arrays=work.arrays),
        update_pj=n * hardware.update_pj(slots * rows * cols * work.struck, lines)
        + n_writes * hardware.update_pj(write, write_lines),
        line_pj=n * hardware.update_pj(0, lines) + n_writes * hardware.update_pj(0, write_lines),
        beside_ns=beside,
        transfer_pj=n_reads * hardware.column_pj(rows),
        digital_pj=n * digital,
        reads=n_reads,
        writes=n_writes,
        operations=n * work.operations,
        crossbars=work.crossbars,
        crosspoints=work.crossbars * rows * cols,
        buffer_bytes=work.buffer_bytes,
    )


def _write(hardware: Hardware, matrix: Matrix) -> tuple[float, float]:
    """Most coincidences and line pulses of one write."""
    work = matrix.work
    across = math.ceil(matrix.cols / hardware.tile_cols)
    down = math.ceil(matrix.rows / hardware.tile_rows)
    crosspoints, line = (matrix.cols, across) if work.by_rows else (matrix.rows, down)
    return work.write_slots * crosspoints, 2 * work.write_slots * (crosspoints + line)


def stage_cost(hardware: Hardware, matrices: Sequence[Matrix]) -> StageCost:
    """Cost of a stage: its matrices are read one after the other and updated at the same time.

    Every matrix is read in both directions, also the very first one, whose input gradient nobody
    needs; work between the matrices is not counted.

    Args:
        hardware: that they lie on. matrices: of the stage.

    Returns:
        Per sample.
    """
    costs = [matrix_cost(hardware, matrix) for matrix in matrices]
    found = {
        one.name: (max if one.name in ("update_ns", "beside_ns") else sum)(
            [getattr(cost, one.name) for cost in costs]
        )
        for one in (fields(StageCost) if costs else ())
    }
    return StageCost(**found)

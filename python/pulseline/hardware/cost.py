"""What a stage costs per sample: its matrices on the tiles of some hardware."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import ConfigError
from .model import Hardware

__all__ = ["Matrix", "StageCost", "matrix_cost", "stage_cost"]


@dataclass(frozen=True)
class Matrix:
    """A weight matrix and how often a sample uses it.

    Attributes:
        rows, cols: its shape.
        positions: products per sample; a convolution on a crossbar takes one per output position.
        bl: slots of its pulse trains; None: the hardware's.

    Raises:
        ConfigError: a size is negative.
    """

    rows: int
    cols: int
    positions: float = 1
    bl: float | None = None

    def __post_init__(self) -> None:
        if min(self.rows, self.cols, self.positions, self.bl or 0) < 0:
            raise ConfigError(f"{self} has a negative size; use numbers >= 0")


@dataclass(frozen=True)
class StageCost:
    """Time and energy of F, B and U of one sample at one stage.

    Attributes:
        forward_ns, backward_ns, update_ns: t_F, t_B, t_U.
        forward_pj, backward_pj: energies of the reads.
        update_pj: a bound: every slot of both signs a pulse on every line and, for one sign, a
            coincidence at every crosspoint.
        line_pj: the part of it that line pulses take.
    """

    forward_ns: float = 0.0
    backward_ns: float = 0.0
    update_ns: float = 0.0
    forward_pj: float = 0.0
    backward_pj: float = 0.0
    update_pj: float = 0.0
    line_pj: float = 0.0

    def times(self, samples: int = 1) -> tuple[float, float, float]:
        """(t_F, t_B, t_U) in ns of a micro-batch of so many samples, one after the other."""
        return (self.forward_ns * samples, self.backward_ns * samples, self.update_ns * samples)

    @property
    def busy_ns(self) -> float:
        """t_F + t_B + t_U of one sample."""
        return self.forward_ns + self.backward_ns + self.update_ns


def matrix_cost(hardware: Hardware, matrix: Matrix) -> StageCost:
    """Cost of one matrix: ``positions`` products each way and as many rank-1 updates.

    Args:
        hardware: that it lies on. matrix: its sizes.

    Returns:
        Per sample.
    """
    rows, cols, n = matrix.rows, matrix.cols, matrix.positions
    slots = hardware.bl if matrix.bl is None else matrix.bl
    empty = rows == 0 or cols == 0
    lines = 2 * slots * hardware.lines(rows, cols)
    return StageCost(
        n * hardware.forward_ns(rows),
        n * hardware.backward_ns(cols),
        0.0 if empty else n * hardware.update_ns(matrix.bl),
        n * hardware.read_pj(rows, cols),
        n * hardware.read_pj(rows, cols, transposed=True),
        n * hardware.update_pj(slots * rows * cols, lines),
        n * hardware.update_pj(0, lines),
    )


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
    return StageCost(
        sum(c.forward_ns for c in costs),
        sum(c.backward_ns for c in costs),
        max((c.update_ns for c in costs), default=0.0),
        sum(c.forward_pj for c in costs),
        sum(c.backward_pj for c in costs),
        sum(c.update_pj for c in costs),
        sum(c.line_pj for c in costs),
    )

"""A crossbar tile with its converters and pulse drivers, as time and energy.

A read of a physical tile, forward or backward, takes ::

    t = steps (t_in + t_int + ceil(lines / ADCs) t_conv)

where ``lines`` are the outputs of that direction and ``steps`` the phases in which an input is
applied (1: pulse width; 8: eight bits, one after the other). Physical tiles of one matrix work at
the same time. A stochastic update of any size takes ``t_U = 2 BL t_pulse``: BL slots for each
sign. Energy of a read: every crosspoint, every input line and every conversion of every step; of
an update: every coincidence (V^2 G t_pulse) and every line pulse (C V^2 / 2). A read of a single
column takes the time of a product and drives one column; a write of whole pulses to a line takes as
long as an update of as many slots.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from ..errors import ConfigError

__all__ = ["KINDS", "UNVERIFIED", "Hardware", "Source"]

# abs: abstract or published table; file: constants of a public simulator; derived: computed from
# those; definition; mem: recalled; assumed. The last two are shown as unverified.
KINDS = ("abs", "file", "derived", "definition", "mem", "assumed")
UNVERIFIED = ("mem", "assumed")


@dataclass(frozen=True)
class Source:
    """Where a number comes from.

    Attributes:
        kind: one of ``KINDS``. text: the reference.

    Raises:
        ConfigError: there is no such kind.
    """

    kind: str
    text: str

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ConfigError(f"kind of source is {self.kind!r}; use one of {', '.join(KINDS)}")

    @property
    def verified(self) -> bool:
        """Whether the number was looked up or computed, not recalled or assumed."""
        return self.kind not in UNVERIFIED


@dataclass(frozen=True)
class Hardware:
    """Times in ns, energies in pJ and fJ of one kind of tile; presets: :func:`preset`.

    Attributes:
        tile_rows, tile_cols: outputs and inputs of a physical tile (forward direction).
        t_in_ns, t_int_ns, t_conv_ns: input pulse, integration and one conversion, per step.
        adcs: converters that share the output lines of a tile; 0: one for each line.
        input_steps: phases of an input.
        t_pulse_ns, bl: length of an update pulse; slots where a layer does not say.
        mac_fj: per crosspoint and step. dac_pj: per input line and step. adc_pj, digital_pj: per
            conversion and for what follows it. A hand-made one with dac_pj = adc_pj = 0 has them
            in mac_fj, which makes small matrices too cheap.
        pulse_fj: per coincidence at a crosspoint. line_fj: per pulse of a whole line of a tile.
        row_write_ns: programming one row with verify; 0: unknown.
        op_pj: per digital operation of an algorithm. byte_pj: per byte to or from its buffers.
        endurance: pulses that a crosspoint bears; 0: unknown.
        sources: of each number, by field name; one without is shown as unverified.

    Raises:
        ConfigError: a number is negative, not finite or, for sizes, below 1.
    """

    name: str
    tile_rows: int
    tile_cols: int
    t_in_ns: float
    t_int_ns: float
    t_conv_ns: float
    t_pulse_ns: float
    bl: int
    adcs: int = 0
    input_steps: int = 1
    mac_fj: float = 0.0
    dac_pj: float = 0.0
    adc_pj: float = 0.0
    digital_pj: float = 0.0
    pulse_fj: float = 0.0
    line_fj: float = 0.0
    row_write_ns: float = 0.0
    op_pj: float = 0.0
    byte_pj: float = 0.0
    endurance: float = 0.0
    sources: tuple[tuple[str, Source], ...] = ()

    def __post_init__(self) -> None:
        least = {"tile_rows": 1, "tile_cols": 1, "input_steps": 1, "bl": 1}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, (str, tuple)):
                continue
            if not (math.isfinite(value) and value >= least.get(field.name, 0)):
                raise ConfigError(
                    f"{field.name} of {self.name} is {value}; use a number >= "
                    f"{least.get(field.name, 0)}"
                )

    @property
    def unverified(self) -> tuple[str, ...]:
        """Names of the numbers that are recalled, assumed or without a source."""
        known = dict(self.sources)
        return tuple(n for n in self.numbers if n not in known or not known[n].verified)

    @property
    def numbers(self) -> dict[str, int | float]:
        """Every constant by name."""
        held = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in held.items() if name not in ("name", "sources")}

    def read_ns(self, outputs: int, tile: int) -> float:
        """Time of one matrix-vector product.

        Args:
            outputs: of the matrix. tile: largest number of them on a physical tile.

        Returns:
            In ns; physical tiles work at the same time.
        """
        lines = min(outputs, tile)
        conversions = math.ceil(lines / self.adcs) if self.adcs else min(lines, 1)
        step = self.t_in_ns + self.t_int_ns + conversions * self.t_conv_ns
        return self.input_steps * step if outputs else 0.0

    def forward_ns(self, rows: int) -> float:
        """t_F in ns of a matrix with so many rows (outputs)."""
        return self.read_ns(rows, self.tile_rows)

    def backward_ns(self, cols: int) -> float:
        """t_B in ns of a matrix with so many columns."""
        return self.read_ns(cols, self.tile_cols)

    def update_ns(self, bl: float | None = None) -> float:
        """t_U = 2 BL t_pulse in ns, any matrix size.

        Args:
            bl: slots of a train; None: the hardware's.
        """
        return 2 * (self.bl if bl is None else bl) * self.t_pulse_ns

    def write_ns(self, rows: int) -> float:
        """Time in ns of programming so many rows one after the other."""
        return rows * self.row_write_ns

    def read_pj(self, rows: int, cols: int, transposed: bool = False, arrays: int = 1) -> float:
        """Energy of one product.

        Args:
            rows, cols: of the matrix. transposed: read with its transpose.
            arrays: whose currents add up on the lines: all are driven, their sum is converted.

        Returns:
            In pJ.
        """
        array, converters = self._read_parts(rows, cols, transposed, arrays)
        return array + converters

    def column_pj(self, rows: int) -> float:
        """Energy of reading one column: its crosspoints, its line, and a conversion of each row.

        Args:
            rows: of the matrix.

        Returns:
            In pJ.
        """
        down = math.ceil(rows / self.tile_rows)
        edges = down * self.dac_pj + rows * (self.adc_pj + self.digital_pj)
        return self.input_steps * (rows * self.mac_fj / 1000 + edges)

    def converter_share(self, rows: int, cols: int) -> float | None:
        """Share of DACs and ADCs in the energy of a forward read.

        Args:
            rows, cols: of the matrix.

        Returns:
            From 0 to 1; None: they are part of ``mac_fj``.
        """
        if not self.dac_pj and not self.adc_pj:
            return None
        array, converters = self._read_parts(rows, cols, False)
        return converters / (array + converters)

    def _read_parts(
        self, rows: int, cols: int, transposed: bool, arrays: int = 1
    ) -> tuple[float, float]:
        """Energies in pJ of the crosspoints and of everything at the edges."""
        across, down = math.ceil(cols / self.tile_cols), math.ceil(rows / self.tile_rows)
        inputs, outputs = cols * down, rows * across
        if transposed:
            inputs, outputs = rows * across, cols * down
        array = arrays * self.input_steps * rows * cols * self.mac_fj / 1000
        edges = arrays * inputs * self.dac_pj + outputs * (self.adc_pj + self.digital_pj)
        return array, self.input_steps * edges

    def lines(self, rows: int, cols: int) -> int:
        """Lines, rows and columns, of the physical tiles of a matrix.

        Args:
            rows, cols: of the matrix.
        """
        across, down = math.ceil(cols / self.tile_cols), math.ceil(rows / self.tile_rows)
        return rows * across + cols * down

    def update_pj(self, pulses: float, line_pulses: float = 0.0) -> float:
        """Energy of pulses.

        Args:
            pulses: coincidences at crosspoints. line_pulses: of whole lines of a tile.

        Returns:
            In pJ.
        """
        return (pulses * self.pulse_fj + line_pulses * self.line_fj) / 1000

    def table(self) -> str:
        """Every constant with its source, one line each; what nobody verified is marked."""
        known = dict(self.sources)
        lines = [f"{self.name}: {self.tile_rows}x{self.tile_cols} crosspoints per tile"]
        for name, value in self.numbers.items():
            source = known.get(name)
            text = "UNVERIFIED, no source" if source is None else f"{source.kind}: {source.text}"
            mark = "" if source is None or source.verified else "UNVERIFIED, "
            lines.append(f"  {name:13s}{value:>10.4g}  ({mark}{text})")
        return "\n".join(lines)

"""What a run would cost on the modelled hardware."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["RunReport", "Wear"]

_SHOWN = 8  # arrays whose wear the text names, those with most pulses


@dataclass(frozen=True)
class Wear:
    """Pulses that an array took in a run.

    Attributes:
        name: of the array in its model. crosspoints: that it has.
        pulses: at all of them together; None: not counted.
    """

    name: str
    crosspoints: int
    pulses: int | None

    @property
    def per_crosspoint(self) -> float | None:
        """Their mean; None: not counted."""
        return None if self.pulses is None else self.pulses / max(self.crosspoints, 1)


@dataclass(frozen=True)
class RunReport:
    """Modelled time and energy of a training run.

    Attributes:
        hardware, schedule: their names. samples: trained on.
        total_ns: time. read_pj, update_pj: energies of the whole run.
        update_is_bound: no pulses were counted, so every slot is taken as a coincidence at every
            crosspoint, or lines cost energy: every slot is taken as a pulse on every line.
        utilisation: share of the time that each stage computes.
        pulses: coincidences really fired, None if nobody counted.
        unverified: numbers of the hardware that are recalled, assumed or without a source.
        not_counted: operations beside the matrices, which take neither time nor energy here.
        arrays, crosspoints: of all crossbars.
        buffer_bytes: of digital memory that algorithms keep.
        transfers: columns that algorithms have moved from array to array, as their cells counted.
        reads, writes, operations: of the run, as modelled: columns read and lines written by
            transfers, and digital operations.
        transfer_pj, digital_pj: energies of these reads, and of operations and buffers.
        wear: pulses of each array; empty: nobody counted.
        endurance: pulses that a crosspoint bears; 0: unknown.
    """

    hardware: str
    schedule: str
    samples: int
    total_ns: float
    read_pj: float
    update_pj: float
    update_is_bound: bool
    utilisation: tuple[float, ...]
    pulses: int | None = None
    unverified: tuple[str, ...] = ()
    not_counted: tuple[str, ...] = ()
    arrays: int = 0
    crosspoints: int = 0
    buffer_bytes: float = 0.0
    transfers: int = 0
    reads: float = 0.0
    writes: float = 0.0
    operations: float = 0.0
    transfer_pj: float = 0.0
    digital_pj: float = 0.0
    wear: tuple[Wear, ...] = ()
    endurance: float = 0.0

    @property
    def time_per_sample_ns(self) -> float:
        """Total time over samples; 0 without samples."""
        return self.total_ns / self.samples if self.samples else 0.0

    @property
    def energy_per_sample_pj(self) -> float:
        """Reads, updates, transfers and digital work; at most that if ``update_is_bound``."""
        total = self.read_pj + self.update_pj + self.transfer_pj + self.digital_pj
        return total / self.samples if self.samples else 0.0

    @property
    def lifetime_samples(self) -> float | None:
        """Samples until the most worn array has taken, on average, what a crosspoint bears.

        None: the hardware does not say what that is, or nobody counted, or nothing was pulsed.
        """
        most = max((one.per_crosspoint or 0.0 for one in self.wear), default=0.0)
        return self.samples * self.endurance / most if self.endurance and most else None

    def as_dict(self) -> dict[str, Any]:
        """Numbers per sample and names, as JSON can hold them."""
        return {
            "hardware": self.hardware,
            "schedule": self.schedule,
            "samples": self.samples,
            "time_per_sample_ns": self.time_per_sample_ns,
            "energy_per_sample_pj": self.energy_per_sample_pj,
            "energy_is_upper_bound": self.update_is_bound,
            "utilisation": list(self.utilisation),
            "pulses": self.pulses,
            "unverified": list(self.unverified),
            "not_counted": list(self.not_counted),
            "arrays": self.arrays,
            "crosspoints": self.crosspoints,
            "buffer_bytes": self.buffer_bytes,
            "transfers": self.transfers,
            "transfer_reads": self.reads,
            "transfer_writes": self.writes,
            "digital_operations": self.operations,
            "pulses_per_crosspoint": {one.name: one.per_crosspoint for one in self.wear},
            "endurance": self.endurance or None,
            "lifetime_samples": self.lifetime_samples,
        }

    def __str__(self) -> str:
        at_most = "at most " if self.update_is_bound else ""
        busy = " ".join(f"{share:.2f}" for share in self.utilisation)
        fired = "not counted" if self.pulses is None else f"{self.pulses:,}"
        lines = [
            f"modelled on {self.hardware} ({self.schedule}, {self.samples:,} samples)",
            f"time per sample: {_scaled(self.time_per_sample_ns, ('ns', 'us', 'ms', 's'))}",
            f"energy per sample: {at_most}"
            f"{_scaled(self.energy_per_sample_pj, ('pJ', 'nJ', 'uJ', 'mJ', 'J'))}",
            f"utilisation per stage: {busy}",
            f"pulses fired: {fired}",
            *self._algorithm_lines(),
            *self._wear_lines(),
        ]
        if self.unverified:
            lines.append(f"unverified numbers: {', '.join(self.unverified)}")
        if self.not_counted:
            lines.append(f"not counted: {', '.join(self.not_counted)}")
        return "\n".join(lines)

    def _algorithm_lines(self) -> list[str]:
        """What there is beside F, B and U of one array a matrix."""
        lines = [f"arrays: {self.arrays:,}, {self.crosspoints:,} crosspoints"]
        if self.transfers or self.reads or self.writes:
            lines.append(
                f"transfers: {self.transfers:,} columns moved; modelled: {self.reads:,.0f} column "
                f"reads, {self.writes:,.0f} writes"
            )
        if self.operations or self.buffer_bytes:
            lines.append(
                f"digital: {self.operations:,.0f} operations, {self.buffer_bytes:,.0f} bytes of "
                "buffers"
            )
        return lines

    def _wear_lines(self) -> list[str]:
        """Pulses per crosspoint, most first, and how long that can go on."""
        if not self.wear:
            return []
        most = sorted(self.wear, key=lambda one: -(one.per_crosspoint or 0.0))
        named = [
            f"{one.name} {'not counted' if one.pulses is None else f'{one.per_crosspoint:.4g}'}"
            for one in most[:_SHOWN]
        ]
        rest = [f"{len(most) - _SHOWN} arrays less"] if len(most) > _SHOWN else []
        lines = [f"pulses per crosspoint: {', '.join([*named, *rest])}"]
        lasts = self.lifetime_samples
        if lasts is None:
            lines.append("endurance: unknown; a hardware file may say endurance = PULSES")
        else:
            lines.append(
                f"endurance: {self.endurance:.3g} pulses, reached after {lasts:.3g} samples at the "
                f"mean of {most[0].name}"
            )
        return lines


def _scaled(value: float, units: tuple[str, ...]) -> str:
    """Three digits with the unit that fits, each a thousand of the one before."""
    for unit in units[:-1]:
        if value < 999.5:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:.3g} {units[-1]}"

"""What a run would cost on the modelled hardware."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["RunReport"]


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

    @property
    def time_per_sample_ns(self) -> float:
        """Total time over samples; 0 without samples."""
        return self.total_ns / self.samples if self.samples else 0.0

    @property
    def energy_per_sample_pj(self) -> float:
        """Reads and updates; an upper bound if ``update_is_bound``."""
        return (self.read_pj + self.update_pj) / self.samples if self.samples else 0.0

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
        ]
        if self.unverified:
            lines.append(f"unverified numbers: {', '.join(self.unverified)}")
        if self.not_counted:
            lines.append(f"not counted: {', '.join(self.not_counted)}")
        return "\n".join(lines)


def _scaled(value: float, units: tuple[str, ...]) -> str:
    """Three digits with the unit that fits, each a thousand of the one before."""
    for unit in units[:-1]:
        if value < 999.5:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:.3g} {units[-1]}"

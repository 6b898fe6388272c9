"""Pulse trains of updates, and how closely they are simulated."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

from ..devices import Device
from ..errors import require
from ..settings import setting

__all__ = ["FIDELITIES", "LOWRANK_FIDELITIES", "NOISES", "UpdateConfig"]

FIDELITIES = ("strict", "exact", "expected", "grouped", "moments")  # order of the compiled enum
NOISES = ("iid", "lowrank")  # order of the compiled enum
LOWRANK_FIDELITIES = ("exact", "grouped")


@dataclass(frozen=True)
class UpdateConfig:
    """Pulse trains and fidelity of the update (Gokmen & Vlasov 2016).

    Attributes:
        desired_bl: slots in a pulse train; the cap of ``update_bl_management``.
        fixed_bl: keep ``desired_bl`` slots when the learning rate asks for more.
        update_management: balance the probabilities of rows and columns.
        update_bl_management: shorten the train to what the sample needs.
        fidelity: ``strict`` (every pulse on its own), ``exact`` (one step per sample and
            crosspoint), ``grouped`` (pulses of consecutive samples in one relaxation step),
            ``moments`` (mean and variance of the counts of up to 256 samples), ``expected`` (the
            mean of the trains, saturation included, without noise) or ``auto`` (the device's
            default). Domains, against ``strict``, one call of 64 to 256 samples:

            * ``exact``: slope within 1 %; up to 2.1 % above on coarse steps and 60 slots (ReRamSB).
            * ``grouped``: mean and spread within 1 %; on ReRamES 1.6 to 4.8 % above in mean, 7 %
              in spread.
            * ``moments``: right while a call moves weights by less than a tenth of their range.
              With .6 of the range in one direction on soft bounds the mean is right, the spread
              1.38 times too wide; with 64 samples of mixed signs the move is .95 of the right one
              at 31 slots, .84 with long trains, .72 with 100 % device variation. PowStep moves 11
              to 13 % too far, the ReRamES preset 9 % too short. Tiles warn, see :meth:`doubt`.
        group_size: grouped: most samples of a group; 0: as many as the rule allows (256, or an
            expected travel of 30 % of the weight range).
        noise: cycle-to-cycle noise of ``exact`` and ``grouped``. ``iid``: a normal of its own for
            every crosspoint and sample. ``lowrank``: the sum of eight products of a random number
            of the row and one of the column, a fraction of the work on a tensor core. Unit
            variance, no correlation between any two crosspoints or samples, excess kurtosis .02:
            what differs from ``iid`` are joint moments of fourth and higher order inside a
            sample: 1/8 instead of 0 for two rows by two columns, squares correlated by .11 along a
            row and .01 along a column.

    Raises:
        ConfigError: desired_bl < 1, group_size < 0, an unknown fidelity or noise, or ``lowrank``
            with a fidelity that draws other noise.
    """

    desired_bl: int = setting(31)
    fixed_bl: bool = setting(True)
    update_management: bool = setting(True, inert=False)
    update_bl_management: bool = setting(True, inert=False)
    fidelity: str = setting("auto")
    group_size: int = setting(0, inert=0)
    noise: str = setting("iid", inert="iid")

    def __post_init__(self) -> None:
        for name in ("fixed_bl", "update_management", "update_bl_management"):
            require(isinstance(getattr(self, name), bool), self, name, "use True or False")
        ok = isinstance(self.group_size, int) and 0 <= self.group_size <= 256
        require(ok, self, "group_size", "use an integer from 0 to 256")
        ok = isinstance(self.desired_bl, int) and 1 <= self.desired_bl <= 1 << 20
        require(ok, self, "desired_bl", "use an integer from 1 to 1048576")
        known = ", ".join(("auto", *FIDELITIES))
        require(self.fidelity in ("auto", *FIDELITIES), self, "fidelity", f"use one of {known}")
        require(self.noise in NOISES, self, "noise", f"use one of {', '.join(NOISES)}")
        if self.fidelity != "auto":
            self.resolve(self.fidelity)

    def doubt(self, device: Device) -> str:
        """Why the fidelity would be off by more than a few percent on a device; else empty.

        Args:
            device: whose default fidelity is "auto".
        """
        if self.resolve(device.default_fidelity) != "moments":
            return ""
        off = device.moments_error or (device.long_moments_error if self.desired_bl > 31 else "")
        if not off:
            return ""
        return (
            f"fidelity is 'moments', which on {device.name} moves weights {off} where a call moves "
            "them far; use 'grouped' or 'exact'"
        )

    def warn(self, device: Device) -> None:
        """Warn of :meth:`doubt`, on behalf of whoever builds an array."""
        if doubt := self.doubt(device):
            warnings.warn(doubt, stacklevel=3)

    def resolve(self, default: str) -> str:
        """The fidelity of a device whose default this is.

        Raises:
            ConfigError: ``lowrank`` noise with a fidelity that draws other noise.
        """
        fidelity = default if self.fidelity == "auto" else self.fidelity
        ok = self.noise == "iid" or fidelity in LOWRANK_FIDELITIES
        known = " or ".join(LOWRANK_FIDELITIES)
        require(ok, self, "noise", f"use it with fidelity {known}, not {fidelity}")
        return fidelity

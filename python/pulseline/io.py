"""Converters, noise and pulse settings of a tile, as frozen dataclasses."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace

from .devices.pulsed import require

NOISE_MANAGEMENTS = ("none", "abs_max")
BOUND_MANAGEMENTS = ("none", "iterative")
FIDELITIES = ("strict", "exact", "expected", "grouped", "moments")  # order of the compiled enum


@dataclass(frozen=True)
class ReadConfig:
    """One direction of the analog matrix-vector product. For every physical tile::

        q = clip(round(x / (alpha beta) / s_in) s_in, +-inp_bound) + inp_noise xi
        y = W q + sqrt(out_noise^2 + w_noise^2 |q|^2) xi
        out += clip(round(y / s_out) s_out, +-out_bound) alpha beta

    with ``s = 2 bound res`` and ties rounded to even.

    Attributes:
        inp_res, out_res: resolution of DAC and ADC as a fraction of the full range;
            <= 0 off, > 1 a number of levels.
        inp_bound, out_bound: largest magnitude, in input units and weight x input units; <= 0 none.
        inp_noise, out_noise: additive gaussian noise, in the same units.
        w_noise: weight read noise, referred to the output as w_noise |q|_2.
        noise_management: ``abs_max`` (alpha = largest |x| of the sample) or ``none`` (alpha = 1).
        bound_management: ``iterative`` repeats a saturated sample in its tile with beta doubled and
            fresh noise, at most ``max_rounds`` times; ``none``.

    Raises:
        ConfigError: a value is not finite, negative where it must not be, or unknown.
    """

    inp_res: float = 1 / 126
    inp_bound: float = 1.0
    inp_noise: float = 0.0
    out_res: float = 1 / 510
    out_bound: float = 12.0
    out_noise: float = 0.06
    w_noise: float = 0.0
    noise_management: str = "abs_max"
    bound_management: str = "iterative"
    max_rounds: int = 10

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, str):
                continue
            require(math.isfinite(value), self, field.name, "use a finite number (0: off)")
            if field.name.endswith("_noise"):
                require(value >= 0, self, field.name, "use a value >= 0")
        known = " or ".join(NOISE_MANAGEMENTS)
        require(self.noise_management in NOISE_MANAGEMENTS, self, "noise_management", f"use {known}")
        known = " or ".join(BOUND_MANAGEMENTS)
        require(self.bound_management in BOUND_MANAGEMENTS, self, "bound_management", f"use {known}")
        require(0 <= self.max_rounds <= 15, self, "max_rounds", "use an integer from 0 to 15")
        for res, bound in (("inp_res", "inp_bound"), ("out_res", "out_bound")):
            if getattr(self, res) > 0:
                require(getattr(self, bound) > 0, self, bound, f"use a bound > 0 or set {res} to 0")
                fine = 2.0**-22
                require(
                    fine <= getattr(self, res) <= 2.0**22, self, res, "use a resolution >= 2^-22"
                )

    def values(self, out_scale: float) -> tuple[float, ...]:
        """The settings in the order of the compiled read."""
        rounds = self.max_rounds if self.bound_management == "iterative" else 0
        return (
            max(self.inp_bound, 0.0),
            self.inp_res,
            self.inp_noise,
            max(self.out_bound, 0.0),
            self.out_res,
            self.out_noise,
            self.w_noise,
            out_scale,
            float(NOISE_MANAGEMENTS.index(self.noise_management)),
            float(rounds),
        )

    @classmethod
    def perfect(cls) -> ReadConfig:
        """No quantisation, no bounds, no noise, no scaling."""
        return cls(
            inp_res=0,
            inp_bound=0,
            out_res=0,
            out_bound=0,
            out_noise=0,
            noise_management="none",
            bound_management="none",
        )


@dataclass(frozen=True)
class IOConfig:
    """Reads of a tile: ``forward`` (y = W x) and ``backward`` (g = W^T d).

    Bound management never repeats a backward read (a saturated error is clipped).
    """

    forward: ReadConfig = ReadConfig()
    backward: ReadConfig = ReadConfig(bound_management="none")

    def __post_init__(self) -> None:
        if self.backward.bound_management != "none":
            object.__setattr__(self, "backward", replace(self.backward, bound_management="none"))

    @classmethod
    def perfect(cls) -> IOConfig:
        """Both directions without any non-ideality."""
        return cls(ReadConfig.perfect(), ReadConfig.perfect())


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
            ``moments`` (mean and variance of the counts of a batch), ``expected`` (no trains, no
            noise) or ``auto`` (the device's default).
        group_size: grouped: most samples of a group; 0: as many as the rule allows (256, or an
            expected travel of 30 % of the weight range).

    Raises:
        ConfigError: desired_bl < 1, group_size < 0 or an unknown fidelity.
    """

    desired_bl: int = 31
    fixed_bl: bool = True
    update_management: bool = True
    update_bl_management: bool = True
    fidelity: str = "auto"
    group_size: int = 0

    def __post_init__(self) -> None:
        ok = isinstance(self.group_size, int) and 0 <= self.group_size <= 256
        require(ok, self, "group_size", "use an integer from 0 to 256")
        ok = isinstance(self.desired_bl, int) and 1 <= self.desired_bl <= 1 << 20
        require(ok, self, "desired_bl", "use an integer from 1 to 1048576")
        known = ", ".join(("auto", *FIDELITIES))
        require(self.fidelity in ("auto", *FIDELITIES), self, "fidelity", f"use one of {known}")


@dataclass(frozen=True)
class Mapping:
    """How one weight matrix lies on physical tiles.

    Attributes:
        tile_in, tile_out: largest number of inputs (columns) and outputs (rows) of a physical
            tile; each tile has its own converters.
        omega: 0 programs weights as they are; > 0 scales them so that the largest magnitude is
            omega, and multiplies every read by the inverse (``out_scale``).

    Raises:
        ConfigError: a size < 1 or omega < 0.
    """

    tile_in: int = 512
    tile_out: int = 512
    omega: float = 0.0

    def __post_init__(self) -> None:
        for field in ("tile_in", "tile_out"):
            value = getattr(self, field)
            require(isinstance(value, int) and value >= 1, self, field, "use an integer >= 1")
        require(math.isfinite(self.omega) and self.omega >= 0, self, "omega", "use a value >= 0")

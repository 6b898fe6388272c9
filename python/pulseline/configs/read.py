"""Converters, noise, lines and wires of reads."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace

from ..errors import require
from ..settings import setting

__all__ = [
    "BOUND_MANAGEMENTS",
    "IR_DROPS",
    "MV_TYPES",
    "NOISE_MANAGEMENTS",
    "WEIGHT_NOISES",
    "IOConfig",
    "ReadConfig",
]

NOISE_MANAGEMENTS = ("none", "abs_max", "constant", "average_abs_max")  # order of compiled enums
BOUND_MANAGEMENTS = ("none", "iterative")
MV_TYPES = ("one_pass", "pos_neg_separate", "pos_neg_separate_digital_sum")
WEIGHT_NOISES = ("additive_constant", "pcm_read")
IR_DROPS = ("none", "approx", "exact")


@dataclass(frozen=True)
class ReadConfig:
    """One direction of the analog matrix-vector product. For every physical tile::

        q = clip(round(x / (alpha beta) / s_in) s_in, +-inp_bound) + inp_noise xi
        y = W q + sqrt(out_noise^2 + w_noise^2 |q|^2) xi
        out += clip(round(y / s_out) s_out, +-out_bound) alpha beta

    with ``s = 2 bound res`` and ties rounded to even. Stochastic rounding, two passes, lines that
    differ from each other, non-linearity and wires come in between as the attributes say.

    Attributes:
        inp_res, out_res: resolution of DAC and ADC as a fraction of the full range;
            <= 0 off, > 1 a number of levels.
        inp_bound, out_bound: largest magnitude, in input units and weight x input units; <= 0 none.
        inp_noise, out_noise: additive gaussian noise, in the same units.
        w_noise: weight read noise, referred to the output as w_noise |q|_2, or with
            ``w_noise_type="pcm_read"`` as w_noise sqrt(sum |w| q^2).
        noise_management: ``abs_max`` (alpha = largest |x| of the sample), ``none`` (alpha = 1),
            ``constant`` (alpha = nm_thres) or ``average_abs_max`` (running average of the largest
            |x|: ``a += nm_decay (max|x| - a)`` at every sample, starting at the first; evaluation
            reads use it and leave it).
        bound_management: ``iterative`` repeats a saturated sample in its tile with beta doubled and
            fresh noise, at most ``max_rounds`` times; ``none``.
        nm_thres: the constant of ``constant``; else an upper limit of alpha if > 0.
        nm_decay: weight of a new sample in ``average_abs_max``.
        inp_sto_round, out_sto_round: DAC, ADC round up with the probability of the remainder.
        mv_type: ``one_pass``; ``pos_neg_separate`` reads positive and negative inputs one after the
            other and sums before the ADC, ``pos_neg_separate_digital_sum`` behind it.
        inp_asymmetry, out_asymmetry: inputs, outputs of the negative pass times (1 - asymmetry).
        out_noise_std: spread of out_noise from output to output, relative.
        out_nonlinearity: ``y / (1 + n |y|)`` before the ADC, n = out_nonlinearity / out_bound times
            (1 + out_nonlinearity_std xi) of each output.
        ir_drop: wire resistance: ``none``, ``approx`` (closed form, within 1 % while
            n^2 wire_resistance <G> < .5) or ``exact`` (nodal equations to ``ir_tolerance``).
            Weights are differences of two arrays; a backward read shares the line ends.
        wire_resistance: of a wire from one crosspoint to the next, times the conductance of a
            weight of 1.

    Raises:
        ConfigError: a value is not finite, negative where it must not be, or unknown.
    """

    inp_res: float = setting(1 / 126, inert=0.0)
    inp_bound: float = setting(1.0, inert=0.0)
    inp_noise: float = setting(0.0, inert=0.0)
    out_res: float = setting(1 / 510, inert=0.0)
    out_bound: float = setting(12.0, inert=0.0)
    out_noise: float = setting(0.06, inert=0.0)
    w_noise: float = setting(0.0, inert=0.0)
    noise_management: str = setting("abs_max", inert="none")
    bound_management: str = setting("iterative", inert="none")
    max_rounds: int = setting(10, inert=0)
    nm_thres: float = setting(0.0, inert=0.0)
    nm_decay: float = setting(0.001)
    inp_sto_round: bool = setting(False, inert=False)
    out_sto_round: bool = setting(False, inert=False)
    mv_type: str = setting("one_pass", inert="one_pass")
    inp_asymmetry: float = setting(0.0, inert=0.0)
    out_asymmetry: float = setting(0.0, inert=0.0)
    w_noise_type: str = setting("additive_constant", inert="additive_constant")
    out_noise_std: float = setting(0.0, inert=0.0)
    out_nonlinearity: float = setting(0.0, inert=0.0)
    out_nonlinearity_std: float = setting(0.0, inert=0.0)
    ir_drop: str = setting("none", inert="none")
    wire_resistance: float = setting(0.0, inert=0.0)
    ir_tolerance: float = setting(1e-6)

    def __post_init__(self) -> None:
        for field, known in _NAMES.items():
            require(getattr(self, field) in known, self, field, f"use {' or '.join(known)}")
        for one in fields(self):
            value = getattr(self, one.name)
            if one.name in _NAMES:
                continue
            finite = isinstance(value, (int, float)) and math.isfinite(value)
            require(finite, self, one.name, "use a finite number (0: off)")
            if one.name.endswith(("_noise", "_std", "_resistance", "_nonlinearity", "_thres")):
                require(value >= 0, self, one.name, "use a value >= 0")
        self._check_options()
        whole = isinstance(self.max_rounds, int) and 0 <= self.max_rounds <= 15
        require(whole, self, "max_rounds", "use an integer from 0 to 15")
        for res, bound in (("inp_res", "inp_bound"), ("out_res", "out_bound")):
            if getattr(self, res) > 0:
                require(getattr(self, bound) > 0, self, bound, f"use a bound > 0 or set {res} to 0")
                fine = 2.0**-22
                require(
                    fine <= getattr(self, res) <= 2.0**22, self, res, "use a resolution >= 2^-22"
                )

    def _check_options(self) -> None:
        if self.noise_management == "constant":
            require(self.nm_thres > 0, self, "nm_thres", "use the constant alpha > 0")
        require(0 < self.nm_decay <= 1, self, "nm_decay", "use a weight above 0, at most 1")
        for field in ("inp_asymmetry", "out_asymmetry"):
            require(
                getattr(self, field) == 0 or self.mv_type != "one_pass",
                self,
                field,
                "use a pos_neg_separate mv_type, on whose negative pass it acts",
            )
        ok = self.out_nonlinearity == 0 or self.out_bound > 0
        require(ok, self, "out_nonlinearity", "use an out_bound > 0, to which it is relative")
        ok = self.ir_drop == "none" or self.wire_resistance > 0
        require(ok, self, "wire_resistance", 'use a value > 0 or ir_drop="none"')
        ok = 1e-12 <= self.ir_tolerance < 1
        require(ok, self, "ir_tolerance", "use a value from 1e-12 to 1")

    @property
    def plain(self) -> bool:
        """Whether the plain read does it all; otherwise options come in between."""
        off = ReadConfig()
        return self.noise_management in ("none", "abs_max") and all(
            getattr(self, field) == getattr(off, field) for field in _OPTIONS
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


_NAMES = {
    "noise_management": NOISE_MANAGEMENTS,
    "bound_management": BOUND_MANAGEMENTS,
    "mv_type": MV_TYPES,
    "w_noise_type": WEIGHT_NOISES,
    "ir_drop": IR_DROPS,
}
# What leaves the plain read when it differs from its default.
_OPTIONS = (
    "nm_thres",
    "inp_sto_round",
    "out_sto_round",
    "mv_type",
    "w_noise_type",
    "out_noise_std",
    "out_nonlinearity",
    "ir_drop",
)


@dataclass(frozen=True)
class IOConfig:
    """Reads of a tile: ``forward`` (y = W x) and ``backward`` (g = W^T d).

    Bound management never repeats a backward read (a saturated error is clipped).

    Attributes:
        forward, backward: converters, noise and bounds of either direction.

    Raises:
        ConfigError: one of them is no ReadConfig.
    """

    forward: ReadConfig = ReadConfig()
    backward: ReadConfig = ReadConfig(bound_management="none")

    def __post_init__(self) -> None:
        for name in ("forward", "backward"):
            ok = isinstance(getattr(self, name), ReadConfig)
            require(ok, self, name, "use an instance of ReadConfig")
        if self.backward.bound_management != "none":
            object.__setattr__(self, "backward", replace(self.backward, bound_management="none"))

    @classmethod
    def perfect(cls) -> IOConfig:
        """Both directions without any non-ideality."""
        return cls(ReadConfig.perfect(), ReadConfig.perfect())

"""Converters, noise and pulse settings of a tile, as frozen dataclasses."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, fields, replace

from .devices.pulsed import require
from .settings import setting

NOISE_MANAGEMENTS = ("none", "abs_max", "constant", "average_abs_max")  # order of compiled enums
BOUND_MANAGEMENTS = ("none", "iterative")
MV_TYPES = ("one_pass", "pos_neg_separate", "pos_neg_separate_digital_sum")
WEIGHT_NOISES = ("additive_constant", "pcm_read")
IR_DROPS = ("none", "approx", "exact")
FIDELITIES = ("strict", "exact", "expected", "grouped", "moments")  # order of the compiled enum
NOISES = ("iid", "lowrank")  # order of the compiled enum
CUDA_PRODUCTS = ("torch", "fused")
LOWRANK_FIDELITIES = ("exact", "grouped")


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
                "it acts on the pass of negative inputs: choose a pos_neg_separate mv_type",
            )
        ok = self.out_nonlinearity == 0 or self.out_bound > 0
        require(ok, self, "out_nonlinearity", "it is relative to out_bound: use a bound > 0")
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


# Measured against strict: calls that move weights by .6 of their range.
_OFF_BY = {
    "PowStep": "11 to 13 % too far",
    "PowStepReference": "11 to 13 % too far",
    "ExpStep": "up to 9 % too short or 7 % too far",
}
_NO_SLOPE = ("ConstantStep", "Ideal")


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

    def doubt(self, device: str, fidelity: str) -> str:
        """Why a fidelity would be off by more than a few percent on a device; empty: it would not.

        Args:
            device: name of the device model. fidelity: as :meth:`resolve` returns it.
        """
        if fidelity != "moments":
            return ""
        off = _OFF_BY.get(device)
        if off is None and self.desired_bl > 31 and device not in _NO_SLOPE:
            off = "5 to 28 % too short with trains of more than 31 slots"
        if off is None:
            return ""
        return (
            f"fidelity is 'moments', which on {device} moves weights {off} where a call moves them "
            "far; use 'grouped' or 'exact'"
        )

    def warn(self, device: str, default: str) -> None:
        """Warn of :meth:`doubt`, on behalf of whoever builds an array; arguments as there."""
        if doubt := self.doubt(device, self.resolve(default)):
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


@dataclass(frozen=True)
class Mapping:
    """How one weight matrix lies on physical tiles.

    Attributes:
        tile_in, tile_out: largest number of inputs (columns) and outputs (rows) of a physical
            tile; each tile has its own converters.
        omega: 0 programs weights as they are; > 0 scales them so that the largest magnitude is
            omega, and multiplies every read by the inverse (``out_scale``).
        cuda_products: what multiplies in reads of CUDA tensors: ``torch`` (cuBLAS, then a kernel
            per segment of inputs) or ``fused``, one kernel for both on tensor cores. Its float32
            factors are split into parts that tensor cores take (3xTF32); with S = sum |w q| over
            the n inputs of a physical tile its sums are within (48 + ceil(n / 16)) 2^-24 S, float32
            in order within n 2^-24 S. A sample's sums do not depend on its batch, and
            ``torch.backends`` settings do not apply. Reads with ``w_noise_type="pcm_read"``, which
            sum squares as well, stay with torch. It has not run on hardware yet: measure with
            ``bench/gpu_reads.py``. The CPU ignores it, and so does a state_dict.

    Raises:
        ConfigError: a size < 1, omega < 0 or unknown products.
    """

    tile_in: int = setting(512)
    tile_out: int = setting(512)
    omega: float = setting(0.0, inert=0.0)
    cuda_products: str = setting("torch", physics=False)

    def __post_init__(self) -> None:
        for field in ("tile_in", "tile_out"):
            value = getattr(self, field)
            require(isinstance(value, int) and value >= 1, self, field, "use an integer >= 1")
        number = isinstance(self.omega, (int, float)) and 0 <= self.omega < 1e30
        require(number, self, "omega", "use a finite number >= 0")
        known = ", ".join(CUDA_PRODUCTS)
        require(self.cuda_products in CUDA_PRODUCTS, self, "cuda_products", f"use one of {known}")

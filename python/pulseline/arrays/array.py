"""Array: one matrix on the crosspoints of one device population."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from .. import ops
from ..configs import Crossbar
from ..devices import PulsedDevice
from ..errors import ConfigError
from ..identity import Identity, changed, check_integer, identify
from .crosspoints import Crosspoints
from .meta import where
from .packed import Packed
from .parameter import AnalogParameter, check_lr
from .saturation import Saturation
from .state import Saved, check, pack
from .transfers import Transfers

__all__ = ["Array"]

_COUNTERS = ("forward", "backward", "update")  # in a state; evaluation restarts
_ON_HOST = {"age": "age_count", "stepped": "stepped", "transferred": "transferred"}
_EVALUATED = ops.Counters._fields.index("evaluation")
_EXPECTED = ops.FIDELITY_INDEX["expected"]


class Array(Transfers):
    """One matrix ``W[rows, cols]`` on crosspoints of one device population.

    Every random number is a function of its identity and running counters: the same bits on any
    instruction set, thread count or executor. Rows are outputs, columns are inputs. A read is
    ``y = out_scale W x`` or, transposed, ``g = out_scale W^T d``; pulses do
    ``W <- W - lr/out_scale d x^T``.

    Args:
        rows, cols: shape of the matrix.
        crossbar: devices, reads, update and mapping; a device: with the defaults of the rest.
        seed: below 2^32: a request for certain devices and noise, the same ones when asked again.
            None: the next of the process, see :func:`pulseline.manual_seed`. An
            :class:`pulseline.Identity`: that.
        tile_id: below 2^24, by default 0; draws of different ids are independent.
        blocks: of a block-diagonal matrix; ``weight`` and ``held`` are them, one behind the other.
        settings: ``io``, ``update``, ``mapping`` of the crossbar, instead of its own.

    Attributes:
        weight: (rows, cols) float32 parameter, see :class:`pulseline.arrays.AnalogParameter`.
        held: what it holds, in normalised conductance units: what is read.
        hidden: what pulses move where the weight, which is read, carries write noise; else None.
        counters: samples so far, see :class:`pulseline.ops.Counters`: operators advance them.
        averages: running averages of the inputs, forward and backward; 0: none yet.
        shown: (rows, cols) what is read instead of what it holds, see :meth:`show`; or None.
        fired: what was counted since :meth:`count_pulses`, or None.

    Raises:
        ConfigError: a size, seed or id out of range.
    """

    weight: AnalogParameter
    hidden: Tensor | None
    counters: Tensor
    averages: Tensor
    fired: Tensor | None

    def __init__(
        self,
        rows: int,
        cols: int,
        crossbar: Crossbar | Any = None,
        *,
        seed: int | Identity | None = None,
        tile_id: int | None = None,
        blocks: int = 1,
        **settings: Any,
    ) -> None:
        super().__init__()
        check_integer("rows", rows, 31)
        check_integer("cols", cols, 31)
        self.blocks, shape = blocks, (rows, cols // blocks)
        self._block_rows = rows // blocks if blocks > 1 else 0
        self._made_with = Crossbar.of(crossbar, **settings)
        self._identity = identify(seed, tile_id)
        self.age_count = 0  # on the host, which cuts calls at events
        self.out_scale = 1.0
        self._outcomes, self._saturation = ops.Outcomes(), Saturation(rows + cols)
        with torch.inference_mode(False):
            zeros = torch.zeros(shape, dtype=torch.float32, device=where())
            self._hold(AnalogParameter(zeros))
            self._register(zeros)
        self.crosspoints = Crosspoints(
            self.crossbar.device,
            shape,
            self._identity.key,
            self.crossbar.mapping.crosspoints,
            where(),
            self._block_rows,
        )
        self._pack()
        self.crossbar.update.warn(self.crossbar.device)

    def _register(self, zeros: Tensor) -> None:
        device = self.crossbar.device
        noisy = isinstance(device, PulsedDevice) and device.write_noise_std > 0
        self.register_buffer("hidden", torch.zeros_like(zeros) if noisy else None)
        counters = zeros.new_zeros(len(ops.Counters._fields), dtype=torch.int64)
        self.register_buffer("counters", counters, persistent=False)
        self.register_buffer("averages", zeros.new_zeros(2), persistent=False)
        self.register_buffer("fired", None, persistent=False)
        self.register_buffer("shown", None, persistent=False)

    # ---- configuration ----

    @property
    def _stored(self) -> dict[str, Tensor | None]:
        """Tensors of the crosspoints; not by attribute, which torch looks up in Python."""
        return self._modules["crosspoints"]._buffers  # type: ignore[union-attr]

    def _pack(self) -> None:
        device = self.crossbar.device
        self._name = device.name
        self._params: tuple[float, ...] = ()
        self._deviation, self._ages = 0.0, False
        if isinstance(device, PulsedDevice):
            self._params, self._ages = device.parameters(), device.ages and self.timed
            self._deviation = device.write_noise_std * device.dw_min
        rest = (self.crossbar, self.out_scale, self._block_rows, self._trains)
        self._packed = Packed.of(self._identity.key, *rest)
        self._residents.clear()

    def take(self, crossbar: Crossbar) -> None:
        """Take other reads, pulses and physical tiles; devices stay as they were drawn."""
        self._made_with = crossbar
        self._pack()
        crossbar.update.warn(crossbar.device)

    def _set_scale(self, out_scale: float) -> None:
        self.out_scale = out_scale
        self._pack()

    @property
    def identity(self) -> Identity:
        """Whose random numbers the array draws."""
        return self._identity

    def reseed(self, seed: int | Identity | None = None) -> None:
        """Give the array devices and noise of its own, which a copy lacks.

        The weights are programmed onto them; they have read and pulsed nothing yet.

        Args:
            seed: as in the constructor; the number of the matrix and of the array stay.

        Raises:
            ConfigError: a seed out of range; nothing is changed.
        """
        old, weights = self._identity, self.pulsed * self.out_scale
        self._identity = replace(identify(seed), tile_id=old.tile_id, array=old.array)
        self._count({})
        self._redraw()
        self.program(weights)

    def _redraw(self) -> None:
        changed()
        self.crosspoints.draw(self._identity.key, self.held.device)
        self._pack()

    def counts(self) -> ops.Counters:
        """Samples read and pulsed so far, of each purpose; waits for a GPU."""
        return ops.Counters(*self.counters.tolist())

    @property
    def shape(self) -> torch.Size:
        """(rows, cols) of the matrix."""
        return torch.Size((self.held.shape[0], self.held.shape[1] * self.blocks))

    @property
    def bounds(self) -> tuple[Tensor, Tensor]:
        """(lo, hi) of every crosspoint as float32; infinite for the ideal device."""
        return self.crosspoints.bounds(self.held)

    # ---- weights ----

    @property
    def pulsed(self) -> Tensor:
        """What pulses move: the hidden weight of devices with write noise, else the weight."""
        return self._settled()

    @property
    def _pulsed(self) -> Tensor:
        hidden = self._buffers["hidden"]
        return self.held if hidden is None else hidden

    @torch.no_grad()
    def program(self, target: Tensor) -> None:
        """Write ``target / out_scale``, clipped to each crosspoint's bounds.

        A stuck crosspoint keeps its value; devices with write noise get it on top.
        ``out_scale`` becomes ``max|target| / omega`` if ``mapping.omega`` > 0, and with "auto" what
        :meth:`Crosspoints.fitting_scale` finds; else it stays 1.

        Args:
            target: (rows, cols) weights in the units of the layer, or of the parameter's shape.

        Raises:
            ConfigError: wrong shape, or a value that is not finite.
        """
        target = self.as_matrix(target)
        if target.shape != self.held.shape:
            shape = tuple(self.weight.shape)
            raise ConfigError(f"weights have shape {tuple(target.shape)}; this array holds {shape}")
        if target.device != self.held.device:
            raise ConfigError(f"weights are on {target.device}; move them to {self.held.device}")
        if self.held.is_meta:
            return
        self._program(lambda part: target[part].to(self.held.dtype))

    def _program(self, values: Callable[[slice], Tensor]) -> None:
        """:meth:`program` of what ``values`` says of some rows at a time."""
        largest = 0.0
        for part in self.crosspoints.parts():
            some = values(part)
            if not ops.is_finite(some):
                raise ConfigError(
                    "weights hold a NaN or an infinity; program finite float32 values"
                )
            if some.numel():
                least, most = torch.aminmax(some)
                largest = max(largest, float(most), -float(least))
        omega = self.crossbar.mapping.omega
        if omega == "auto":
            self._set_scale(self.crosspoints.fitting_scale(values))
        elif float(omega) > 0 and largest > 0:
            self._set_scale(largest / float(omega))
        self._write(lambda part: values(part) / self.out_scale)

    def _write(self, values: Callable[[slice], Tensor]) -> None:
        """Have crosspoints hold normalised values, within their bounds."""
        for part in self.crosspoints.parts():
            self._pulsed[part].copy_(self.crosspoints.clipped(values(part), part))
        self._watch()
        if self.hidden is not None:
            ops.disturb_(
                *(self.held, self.hidden, self.crosspoints.step, self._deviation, self.counters),
                *(self._packed.draws, self._name, self._params),
            )
        self._tell()

    @torch.no_grad()
    def clip(self) -> None:
        """Bring every weight into its crosspoint's bounds (as programming does)."""
        for part in self.crosspoints.parts():
            some = self._pulsed[part]
            some.copy_(self.crosspoints.clipped(some, part))
        self._tell()

    @torch.no_grad()
    def initialise(self) -> None:
        """Program normals of standard deviation 1/sqrt(cols), a function of the identity."""
        if self.held.is_meta:
            return
        cols = self.held.shape[1]
        key, scale = self._identity.key, max(cols, 1) ** 0.5

        def values(part: slice) -> Tensor:
            rows = part.stop - part.start
            normals = ops.initial_normals(rows, cols, *key, part.start, self._block_rows)
            scaled: Tensor = normals / scale
            return scaled.to(self.held.device)

        self._program(values)

    # ---- reads: (samples, features) in, (samples, features) out ----

    def _read(self, v: Tensor, transposed: bool, key: ops.ReadKey) -> Tensor:
        if self._watched._version != self._seen:
            self.settle()
        packed, counters, shown = self._packed, self._buffers["counters"], self._buffers["shown"]
        assert counters is not None
        weight = self.held if shown is None else shown
        settings, options = packed.reads[transposed], packed.converters[transposed]
        near = ops.direct(v) and weight.is_cpu
        if options is None:
            if near:
                return self._near(weight, counters).read(v, transposed, key, settings)
            return ops.read_(v, weight, transposed, counters, key, settings)
        average = self.averages[int(transposed) : int(transposed) + 1]
        rest = (settings, options[key is packed.evaluation[transposed]], average)
        if near:
            return self._near(weight, counters).read(v, transposed, key, *rest)
        return ops.read_chain_(v, weight, transposed, counters, key, *rest)

    def _near(self, weight: Tensor, counters: Tensor) -> ops.Resident:
        """The operators on what the array holds; ``weight``: that which they take."""
        cells = self._stored
        pairs = cells["step"], cells["slope"], cells["bound"]
        of = self._residents
        found = of.get(weight is self.held)
        if found is None or not found.holds(weight, counters, *pairs):
            found = ops.Resident(weight, counters, pairs, self._name, self._params)
            of[weight is self.held] = found
        return found

    def read(self, v: Tensor, transposed: bool = False) -> Tensor:
        """``y = out_scale W v`` of every sample, in training; advances its direction's counter.

        A frozen weight (``requires_grad`` is False) ages with reads that are not transposed.

        Args:
            v: (samples, cols). transposed: ``out_scale W^T v`` of (samples, rows).

        Returns:
            (samples, rows); transposed: (samples, cols).

        Raises:
            ConfigError: shape, dtype or device, or a value that is not finite.
        """
        if transposed:
            return self._read(v, True, self._packed.backward)
        if not self._ages or self.weight.requires_grad:
            return self._forward(v)
        ops.check_tensor(v)
        parts = []
        for part in self._until_events(v.shape[0]):
            parts.append(self._forward(v[part]))
            self.age(parts[-1].shape[0])
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _forward(self, x: Tensor) -> Tensor:
        return self._read(x, False, self._packed.forward)

    def evaluate(self, v: Tensor, transposed: bool = False) -> Tensor:
        """A read that advances no training counter, with draws of its own; see :meth:`read`.

        Draws restart with :meth:`begin_evaluation`, so that an evaluation is reproducible and does
        not depend on how its samples are cut into batches.
        """
        return self._read(v, transposed, self._packed.evaluation[transposed])

    def begin_evaluation(self) -> None:
        """Restart the draws of :meth:`evaluate`."""
        self.counters[_EVALUATED] = 0

    # ---- pulses ----

    def pulse(self, x: Tensor, d: Tensor, lr: float, batch: ops.Batch | None = None) -> None:
        """Pulse ``W <- W - lr/out_scale d x^T``, samples in order; advances update counter and age.

        On a GPU, values that are not finite are found later: the update writes nothing, and the
        ConfigError comes with a later one or with :meth:`check_updates`.

        Args:
            x: (samples, cols) inputs. d: (samples, rows) errors. lr: learning rate >= 0.
            batch: on a GPU, whose launches this update shares.

        Raises:
            ConfigError: shapes, dtypes, lr < 0 or values that are not finite; weights untouched.
        """
        rate = check_lr(lr) / self.out_scale
        if not self._ages:
            self._pulse(x, d, rate, batch)
            return
        ops.check_tensor(x)
        ops.check_tensor(d)
        parts = self._until_events(x.shape[0])
        if len(parts) == 1 or x.shape[0] != d.shape[0]:
            self._pulse(x, d, rate, batch)
            self.age(x.shape[0], batch)
            return
        x, d = self._all_or_nothing(x, d, rate)
        for part in parts:
            self._pulse(x[part], d[part], rate, batch)
            self.age(part.stop - part.start, batch)

    def _all_or_nothing(self, x: Tensor, d: Tensor, rate: float) -> tuple[Tensor, Tensor]:
        """Inputs of an update in several calls, such that all are refused or none."""
        finite = torch.isfinite(x).all() & torch.isfinite(d).all()
        if x.is_cpu and not finite:  # the whole call says which sample it is
            self._pulse(x, d, rate, None)
        # On a GPU the host does not wait: a NaN in the last sample is one in every sample.
        return (x, d) if x.is_cpu else (torch.where(finite, x, float("nan")), d)

    def _pulse(
        self,
        x: Tensor,
        d: Tensor,
        rate: float,
        batch: ops.Batch | None,
        taps: tuple[Tensor, Tensor] | None = None,
    ) -> None:
        """Pulses of samples between which nothing else happens."""
        if self._watched._version != self._seen:
            self.settle()
        packed, held, cells = self._packed, self._buffers, self._stored
        hidden, fired, counters = held["hidden"], held["fired"], held["counters"]
        assert counters is not None
        weight = self.held if hidden is None else hidden
        if ops.direct(x) and weight.is_cpu:
            near = self._near(weight, counters)
            lines = near.update(x, d, rate, packed.pulses, packed.update, fired, taps)
        else:
            pairs = (cells["step"], cells["slope"], cells["bound"])
            lines = ops.update_(
                *(weight, *pairs, x, d, rate, self._name, self._params, packed.pulses, counters),
                *(packed.update, fired, *(taps or (None, None)), batch, self._outcomes),
            )
        if lines and self._saturation.suspect(lines):
            self._saturation.judge(self.counts().update, self.crossbar, rate * self.out_scale)
        if hidden is not None:
            ops.redraw_(
                *(self.held, hidden, cells["step"], x, d, rate, packed.pulses),
                *(self._deviation, counters, packed.update, self._name, self._params, batch),
            )
        if fired is not None:
            fired[2] += x.shape[0]

    def check_updates(self, wait: bool = True) -> None:
        """Say what the GPU has found in earlier updates of this array.

        Args:
            wait: for all updates so far; otherwise only those that have ended are looked at, and
                none while a CUDA graph captures.

        Raises:
            ConfigError: an update held a NaN or an infinity; it wrote nothing.
        """
        self._outcomes.check(wait)

    def count_pulses(self) -> None:
        """Count pulses from now on: ``fired`` holds what :mod:`.fired` says."""
        counts = self._params and self._packed.update.fidelity != _EXPECTED
        where = self.held.device
        self.fired = torch.zeros(5, dtype=torch.int64, device=where) if counts else None

    # ---- state ----

    def _count(self, counts: Any) -> None:
        """Set the counters; those that are not given begin at 0."""
        numbers = ops.Counters(**{name: counts.get(name, 0) for name in _COUNTERS})
        self.counters.copy_(torch.tensor(numbers, dtype=torch.int64, device="cpu"))
        for name, attribute in _ON_HOST.items():
            setattr(self, attribute, counts.get(name, 0))

    def _saved(self) -> Saved:
        numbers = ops.Counters() if self.counters.is_meta else self.counts()
        counts = {name: getattr(numbers, name) for name in _COUNTERS}
        counts |= {name: getattr(self, attribute) for name, attribute in _ON_HOST.items()}
        return Saved(
            ops.NUMBERING,
            tuple(self.shape),
            self._identity,
            self.crossbar.settings(),
            counts,
            self.out_scale,
            [0.0, 0.0] if self.averages.is_meta else self.averages.tolist(),
        )

    def state(self) -> dict[str, Any]:
        """Identity, settings and counters: what, beside the weights, continues a run."""
        self.check_updates()  # a refused one would be saved as if it had been done
        return pack(self._saved())

    def check_state(self, state: object, name: str = "array") -> Saved:
        """What ``state`` holds, see :func:`pulseline.arrays.state.check`."""
        return check(state, self._saved(), name)

    def load_state(self, state: object) -> None:
        """Take over identity and counters of :meth:`state`; crosspoints follow the identity.

        A seed or id that was asked for must be the saved one.

        Raises:
            ConfigError: see :func:`pulseline.arrays.state.check`; nothing is changed.
        """
        saved = self.check_state(state)
        moved = self._identity.key != saved.identity.key
        self._identity = saved.identity
        self._count(saved.counters)
        self._set_scale(saved.out_scale)
        self.averages.copy_(torch.tensor(saved.averages, dtype=torch.float32, device="cpu"))
        if moved:
            self._redraw()

    def extra_repr(self) -> str:
        """Shape, device and identity."""
        (rows, cols), one = self.shape, self._identity
        return f"{rows}, {cols}, {self.crossbar.device}, seed={one.seed}, tile_id={one.tile_id}"

"""Tile: one weight matrix on simulated crossbars: weights, device state, settings, counters."""

from __future__ import annotations

from collections.abc import Mapping as Table
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from . import ops
from .devices import Device, Ideal, PulsedDevice, SoftBounds
from .errors import ConfigError
from .identity import Identity, changed, check_integer, identify
from .io import IOConfig, Mapping, UpdateConfig
from .packed import Packed
from .parameter import AnalogParameter, check_lr
from .settings import check_kind
from .state import Saved, check, pack

_COUNTERS = ("forward", "backward", "update", "age")
_EXPECTED = ops.FIDELITY_INDEX["expected"]


class Tile:
    """One matrix ``W[rows, cols]`` on crossbars of one device population.

    Every random number is a function of its identity and running counters: the same bits on any
    instruction set, thread count or executor. Rows are outputs, columns are inputs. Forward
    ``y = out_scale W x``, backward ``g = out_scale W^T d``, update ``W <- W - lr/out_scale d x^T``
    by pulses.

    Args:
        rows, cols: shape of the matrix.
        device: device model, see :mod:`pulseline.devices`.
        io, update, mapping: see :mod:`pulseline.io`.
        seed: below 2^32: a request for certain devices and noise, the same ones when asked again.
            None: the next of the process, see :func:`pulseline.manual_seed`. An
            :class:`pulseline.Identity`: that.
        tile_id: below 2^24, by default 0; draws of different ids are independent.

    Raises:
        ConfigError: a size, seed or id out of range.
    """

    def __init__(
        self,
        rows: int,
        cols: int,
        device: Device | None = None,
        io: IOConfig | None = None,
        update: UpdateConfig | None = None,
        mapping: Mapping | None = None,
        *,
        seed: int | Identity | None = None,
        tile_id: int | None = None,
    ) -> None:
        check_integer("rows", rows, 31)
        check_integer("cols", cols, 31)
        check_kind("device", device, PulsedDevice, Ideal)
        check_kind("io", io, IOConfig)
        check_kind("update", update, UpdateConfig)
        check_kind("mapping", mapping, Mapping)
        self.device: Device = SoftBounds() if device is None else device
        self.io = IOConfig() if io is None else io
        self.update_config = UpdateConfig() if update is None else update
        self.mapping = Mapping() if mapping is None else mapping
        self._identity = identify(seed, tile_id)
        self.forward_count = self.backward_count = self.evaluation_count = 0
        self.update_count = self.age_count = 0
        self.out_scale = 1.0
        # Of average_abs_max: forward, backward; 0: none yet.
        self.averages = torch.zeros(2, dtype=torch.float32, device="cpu")
        self.pending: list[tuple[Tensor, Tensor]] = []
        self.fired: Tensor | None = None
        self._outcomes = ops.Outcomes()
        self.weight = AnalogParameter(torch.zeros(rows, cols, dtype=torch.float32, device="cpu"))
        self.weight.analog_tile = self
        # What pulses move if what is read (the weight) carries write noise.
        self.hidden: Tensor | None = None
        if isinstance(self.device, PulsedDevice) and self.device.write_noise_std > 0:
            self.hidden = torch.zeros_like(self.weight.data)
        self._build()

    # ---- configuration ----

    def _build(self) -> None:
        """Derive device state and the packed settings from the configuration."""
        rows, cols = self.weight.shape
        self.step: Tensor | None = None
        self.slope: Tensor | None = None
        self.bound: Tensor | None = None
        self._params: tuple[float, ...] = ()
        self._corrupt = isinstance(self.device, PulsedDevice) and (
            self.device.corrupt_devices_prob > 0
        )
        self._retention: Tensor | None = None
        self._deviation = 0.0
        if isinstance(self.device, PulsedDevice):
            self._params = self.device.parameters()
            pairs = ops.construct(self.device.name, self._params, rows, cols, *self._identity.key)
            self.step, self.slope, self.bound = (t.to(self.weight.device) for t in pairs)
            self._deviation = self.device.write_noise_std * self.device.dw_min
            if self.device.ages:
                self._retention = self._build_retention()
        self._pack()
        self.update_config.warn(self.device.name, self.device.default_fidelity)

    def _pack(self) -> None:
        configs = (self.device, self.io, self.update_config, self.mapping)
        self._packed = Packed.of(self._identity.key, *configs, self.out_scale)

    def _set_update(self, config: UpdateConfig) -> None:
        """Take other settings of the update; the devices stay as they were drawn."""
        self.update_config = config
        self._pack()
        config.warn(self.device.name, self.device.default_fidelity)

    def _build_retention(self) -> Tensor:
        assert isinstance(self.device, PulsedDevice)
        rows, cols = self.weight.shape
        values = self.device.retention()
        words: Tensor = ops.construct_retention(values, rows, cols, *self._identity.key)
        return words.to(self.weight.device)

    def _set_scale(self, out_scale: float) -> None:
        self.out_scale = out_scale
        self._pack()

    @property
    def identity(self) -> Identity:
        """Whose random numbers the tile draws."""
        return self._identity

    @property
    def seed(self) -> int:
        """Seed of the tile."""
        return self._identity.seed

    @property
    def tile_id(self) -> int:
        """Number of the matrix in its model."""
        return self._identity.tile_id

    def reseed(self, seed: int | None = None) -> None:
        """Give the tile devices and noise of its own, which a copy of a layer lacks.

        The weights are programmed onto them; they have read and pulsed nothing yet.

        Args:
            seed: as in the constructor; ``tile_id`` stays.

        Raises:
            ConfigError: a seed out of range; nothing is changed.
        """
        old, weights = self._identity, self.cells * self.out_scale
        self._identity = replace(identify(seed), tile_id=old.tile_id, array=old.array)
        changed()
        self._count({})
        self._build()
        self.program(weights)

    @property
    def shape(self) -> torch.Size:
        """(rows, cols) of the matrix."""
        return self.weight.shape

    @property
    def bounds(self) -> tuple[Tensor, Tensor]:
        """(lo, hi) of every crosspoint as float32; infinite for the ideal device."""
        if self.bound is None:
            infinite = torch.full_like(self.weight.data, float("inf"))
            return -infinite, infinite
        lo = (self.bound << 16).view(torch.float32)
        hi = (self.bound & -65536).view(torch.float32)
        return lo, hi

    # ---- weights ----

    @property
    def cells(self) -> Tensor:
        """What pulses move: the hidden weight of devices with write noise, else the weight."""
        return self.weight.data if self.hidden is None else self.hidden

    @torch.no_grad()
    def program(self, target: Tensor) -> None:
        """Write ``target / out_scale``, clipped to each crosspoint's bounds.

        A stuck crosspoint keeps its value; devices with write noise get it on top.
        ``out_scale`` becomes ``max|target| / omega`` if ``mapping.omega`` > 0, else stays 1.

        Args:
            target: (rows, cols) weights in the units of the layer.

        Raises:
            ConfigError: wrong shape, or a value that is not finite.
        """
        if target.shape != self.weight.shape:
            shape = tuple(self.weight.shape)
            raise ConfigError(f"weights have shape {tuple(target.shape)}; this tile holds {shape}")
        if target.device != self.weight.device:
            raise ConfigError(f"weights are on {target.device}; move them to {self.weight.device}")
        target = target.to(self.weight.dtype)
        if not torch.isfinite(target).all():
            raise ConfigError("weights hold a NaN or an infinity; program finite float32 values")
        largest = float(target.abs().max()) if target.numel() else 0.0
        if self.mapping.omega > 0 and largest > 0:
            self._set_scale(largest / self.mapping.omega)
        self.cells.copy_(target / self.out_scale if self.out_scale != 1.0 else target)
        self.clip()
        if self.hidden is not None:
            ops.disturb_(
                *(self.weight.data, self.hidden, self.step),
                *(self._deviation, self.update_count, self._packed.draws),
            )

    def adopt(self, parameter: nn.Parameter) -> AnalogParameter:
        """Take over the storage of a parameter that torch put in the place of the weight."""
        self.weight = AnalogParameter(parameter.data, parameter.requires_grad)
        self.weight.analog_tile = self
        return self.weight

    @torch.no_grad()
    def clip(self) -> None:
        """Bring every weight into its crosspoint's bounds (as programming does)."""
        lo, hi = self.bounds
        cells = self.cells
        w = torch.minimum(torch.maximum(cells, lo), hi)
        if self.step is not None and self._corrupt:
            stuck = (self.step & 0x7FFF7FFF) == 0  # both steps 0: one bound is the value
            w = torch.where(stuck, hi + lo, w)
        cells.copy_(w + 0.0)  # -0 becomes +0

    def initialise(self) -> None:
        """Program normals of standard deviation 1/sqrt(cols), a function of (seed, tile_id)."""
        rows, cols = self.weight.shape
        normals = ops.initial_normals(rows, cols, *self._identity.key)
        self.program((normals / max(cols, 1) ** 0.5).to(self.weight.device))

    def effective_weight(self) -> Tensor:
        """``out_scale W``: a copy in the units of the layer."""
        return self.weight.data * self.out_scale

    def _read(self, v: Tensor, transposed: bool, k: int, key: ops.ReadKey) -> Tensor:
        packed = self._packed
        options = packed.converters[transposed]
        if options is None:
            return ops.read(v, self.weight, transposed, k, key, packed.reads[transposed])
        average = self.averages[int(transposed) : int(transposed) + 1]
        converters = options[key is packed.evaluation[transposed]]
        rest = (packed.reads[transposed], converters, average)
        return ops.read_chain_(v, self.weight, transposed, k, key, *rest)

    # ---- operations: (samples, features) in, (samples, features) out ----

    def forward(self, x: Tensor) -> Tensor:
        """Analog ``y = out_scale W x`` of every sample; advances the forward counter.

        A frozen weight (``requires_grad`` is False) ages with them.
        """
        if self._retention is None or self.weight.requires_grad:
            return self._forward(x)
        ops.check_tensor(x)
        parts = []
        for part in self._until_events(x.shape[0]):
            parts.append(self._forward(x[part]))
            self.age(parts[-1].shape[0])
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _forward(self, x: Tensor) -> Tensor:
        y = self._read(x, False, self.forward_count, self._packed.forward)
        self.forward_count += x.shape[0]
        return y

    def backward(self, d: Tensor) -> Tensor:
        """Analog ``g = out_scale W^T d``; advances the backward counter."""
        g = self._read(d, True, self.backward_count, self._packed.backward)
        self.backward_count += d.shape[0]
        return g

    def evaluate(self, v: Tensor, transposed: bool = False) -> Tensor:
        """A read that advances no training counter, with draws of its own.

        Draws restart with :meth:`begin_evaluation`, so that an evaluation is reproducible and does
        not depend on how its samples are cut into batches.
        """
        y = self._read(v, transposed, self.evaluation_count, self._packed.evaluation[transposed])
        self.evaluation_count += v.shape[0]
        return y

    def begin_evaluation(self) -> None:
        """Restart the draws of :meth:`evaluate`."""
        self.evaluation_count = 0

    def update(self, x: Tensor, d: Tensor, lr: float, batch: ops.Batch | None = None) -> None:
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
        if self._retention is None:
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

    def _pulse(self, x: Tensor, d: Tensor, rate: float, batch: ops.Batch | None) -> None:
        """Pulses of samples between which nothing else happens."""
        packed, k = self._packed, self.update_count
        ops.update_(
            self.weight if self.hidden is None else self.hidden,
            *(self.step, self.slope, self.bound, x, d, rate, self.device.name, self._params),
            *(packed.pulses, k, packed.update, self.fired, batch, self._outcomes),
        )
        if self.hidden is not None and self.step is not None:
            ops.redraw_(
                *(self.weight.data, self.hidden, self.step, x, d, rate, packed.pulses),
                *(self._deviation, k, packed.update, batch),
            )
        if self.fired is not None:
            self.fired[2] += x.shape[0]
        self.update_count += x.shape[0]

    def check_updates(self, wait: bool = True) -> None:
        """Say what the GPU has found in earlier updates of this tile.

        Args:
            wait: for all updates so far; otherwise only those that have ended are looked at, and
                none while a CUDA graph captures.

        Raises:
            ConfigError: an update held a NaN or an infinity; it wrote nothing.
        """
        self._outcomes.check(wait)

    def age(self, samples: int, batch: ops.Batch | None = None) -> None:
        """Let decay, drift and diffusion happen as often as ``samples`` more samples make due.

        Updates, and training reads of a frozen weight, do so themselves. Event n falls behind
        sample n ``device.batch``; its number keys its draws and is the time of the drift. Nothing
        for devices that do not age.

        Args:
            samples: how many, >= 0.
            batch: on a GPU, what is launched before.

        Raises:
            ConfigError: samples is negative.
        """
        if samples < 0:
            raise ConfigError(f"samples is {samples}; use a number >= 0")
        if self._retention is None or not isinstance(self.device, PulsedDevice):
            return
        first = self.age_count // self.device.batch
        self.age_count += samples
        for event in range(first, self.age_count // self.device.batch):
            if batch is not None:
                batch.launch()
            self._pass_time(event)

    def _pass_time(self, event: int) -> None:
        """Decay, drift and diffusion, once."""
        drift = ops.drift_log2(event + 1)
        cells = self.cells
        before = None if self.hidden is None else cells.clone()
        ops.retain_(
            *(cells, self.step, self.bound, self._retention),
            *(drift, event, self._packed.draws),
        )
        if before is not None:  # the noise of the last write stays as it is
            self.weight.data.add_(cells - before)

    def _until_events(self, samples: int) -> list[slice]:
        """The samples of a call, cut where an event falls between two of them."""
        if self._retention is None or not isinstance(self.device, PulsedDevice):
            return [slice(0, samples)]
        batch = self.device.batch
        edges = [*range(batch - self.age_count % batch, samples, batch), samples]
        return [slice(a, b) for a, b in zip([0, *edges], edges, strict=False)]

    @torch.no_grad()
    def reset(self, columns: Tensor | None = None) -> None:
        """Set crosspoints to ``b + reset_std xi``, within their bounds; stuck ones stay.

        Two resets without a sample of :meth:`age` between them draw the same noise.

        Args:
            columns: indices of the columns; None: all.

        Raises:
            ConfigError: the device is ideal.
        """
        if not isinstance(self.device, PulsedDevice):
            raise ConfigError("device is Ideal, which has no reset; program the weights instead")
        words = self._build_retention() if self._retention is None else self._retention
        fresh = self.cells.clone()
        ops.reset_(
            *(fresh, self.step, self.bound, words),
            *(self.device.reset_std, self.age_count, self._packed.draws),
        )
        where = slice(None) if columns is None else columns
        for held in {id(t): t for t in (self.cells, self.weight.data)}.values():
            held[:, where] = fresh[:, where]

    def count_pulses(self) -> None:
        """Count from now on: ``fired`` holds coincidences, slots and samples of pulsed updates."""
        counts = isinstance(self.device, PulsedDevice) and self._packed.update.fidelity != _EXPECTED
        where = self.weight.device
        self.fired = torch.zeros(3, dtype=torch.int64, device=where) if counts else None

    def step_pending(self, lr: float, batch: ops.Batch | None = None) -> None:
        """Pulse every pair that backward left, in order, and forget them; see :meth:`update`.

        If a pair is refused (see :meth:`update`) nothing of it is written and all pairs stay.
        """
        pending = self.pending
        if not pending:
            return
        if len(pending) == 1:
            x, d = pending[0]
        else:
            x, d = torch.cat([p[0] for p in pending]), torch.cat([p[1] for p in pending])
        self.update(x, d, lr, batch)
        pending.clear()

    # ---- state ----

    def _count(self, counts: Table[str, int]) -> None:
        """Set the counters; those that are not given begin at 0."""
        values = [counts.get(name, 0) for name in _COUNTERS]
        self.forward_count, self.backward_count, self.update_count, self.age_count = values

    def _saved(self) -> Saved:
        reads = (self.io.forward, self.io.backward)
        counts = (self.forward_count, self.backward_count, self.update_count, self.age_count)
        settings = (self.device, *reads, self.update_config, self.mapping)
        counters = dict(zip(_COUNTERS, counts, strict=True))
        averages = [0.0, 0.0] if self.averages.is_meta else self.averages.tolist()
        head = (ops.NUMBERING, tuple(self.weight.shape), self._identity)
        return Saved(*head, settings, counters, self.out_scale, averages)

    def state(self) -> dict[str, Any]:
        """Identity, settings and counters: what, beside the weights, continues a run."""
        self.check_updates()  # a refused one would be saved as if it had been done
        return pack(self._saved())

    def check_state(self, state: object, name: str = "tile") -> Saved:
        """What ``state`` holds, see :func:`pulseline.state.check`; ``name`` is for its sentence."""
        return check(state, self._saved(), name)

    def load_state(self, state: object) -> None:
        """Take over identity and counters of :meth:`state`; device parameters follow the identity.

        A seed or id that was asked for must be the saved one.

        Raises:
            ConfigError: see :func:`pulseline.state.check`; nothing is changed.
        """
        saved = self.check_state(state)
        moved = self._identity.key != saved.identity.key
        self._identity = saved.identity
        self._count(saved.counters)
        self.pending.clear()
        self._set_scale(saved.out_scale)
        self.averages.copy_(torch.tensor(saved.averages, dtype=torch.float32, device="cpu"))
        if moved:
            changed()
            self._build()

    def __repr__(self) -> str:
        rows, cols = self.weight.shape
        return f"Tile({rows}, {cols}, {self.device}, seed={self.seed}, tile_id={self.tile_id})"

"""Tile: one weight matrix on simulated crossbars: weights, device state, settings, counters."""

from __future__ import annotations

import copy
import struct
import zlib
from typing import Any

import torch
from torch import Tensor, nn

from . import ops
from .devices import Device, Ideal, PulsedDevice, SoftBounds
from .errors import ConfigError
from .io import IOConfig, Mapping, UpdateConfig

_FORMAT = 1
_FORWARD, _BACKWARD, _EVALUATION = (
    ops.PURPOSES[name] for name in ("forward", "backward", "evaluation")
)
_STATE = ("format", "numbering", "seed", "tile_id", "forward", "backward", "update", "calls", "crc")


class AnalogParameter(nn.Parameter):
    """The weight of a tile, in normalised conductance units; only its tile may move it."""

    tile: Tile

    def __deepcopy__(self, memo: dict[int, Any]) -> AnalogParameter:
        if id(self) in memo:
            copied: AnalogParameter = memo[id(self)]
            return copied
        result = AnalogParameter(self.data.clone(), self.requires_grad)
        memo[id(self)] = result
        result.tile = copy.deepcopy(self.tile, memo)
        return result


class Tile:
    """One matrix ``W[rows, cols]`` on crossbars of one device population.

    Every random number is a function of (seed, tile_id, running counters): the same bits on any
    instruction set, thread count or executor. Rows are outputs, columns are inputs. Forward
    ``y = out_scale W x``, backward ``g = out_scale W^T d``, update ``W <- W - lr/out_scale d x^T``
    by pulses.

    Args:
        rows, cols: shape of the matrix.
        device: device model, see :mod:`pulseline.devices`.
        io, update, mapping: see :mod:`pulseline.io`.
        seed: 64-bit seed of the run.
        tile_id: number of the tile in its model; draws of different ids are independent.

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
        seed: int = 0,
        tile_id: int = 0,
    ) -> None:
        if rows < 0 or cols < 0:
            raise ConfigError(f"shape is ({rows}, {cols}); use sizes >= 0")
        if not 0 <= tile_id < 1 << 32:
            raise ConfigError(f"tile_id is {tile_id}; use an integer from 0 to 2^32 - 1")
        if not 0 <= seed < 1 << 63:
            raise ConfigError(f"seed is {seed}; use an integer from 0 to 2^63 - 1")
        self.device: Device = SoftBounds() if device is None else device
        self.io = IOConfig() if io is None else io
        self.update_config = UpdateConfig() if update is None else update
        self.mapping = Mapping() if mapping is None else mapping
        self.seed, self.tile_id = seed, tile_id
        self.forward_count = self.backward_count = self.update_count = self.update_calls = 0
        self.evaluation_count = 0
        self.out_scale = 1.0
        self.averages = torch.zeros(2)  # of average_abs_max: forward, backward; 0: none yet
        self.pending: list[tuple[Tensor, Tensor]] = []
        self.weight = AnalogParameter(torch.zeros(rows, cols))
        self.weight.tile = self
        self._build()

    # ---- configuration ----

    def _build(self) -> None:
        """Derive device state and the packed settings from the configuration."""
        rows, cols = self.weight.shape
        self._sizes = (self.mapping.tile_in, self.mapping.tile_out)
        self.step: Tensor | None = None
        self.slope: Tensor | None = None
        self.bound: Tensor | None = None
        self._params: tuple[float, ...] = ()
        granularity = coarseness = 1.0
        if isinstance(self.device, PulsedDevice):
            self._params = self.device.parameters()
            granularity = self.device.granularity
            coarseness = granularity / (self.device.w_max - self.device.w_min)
            pairs = ops.construct(
                self.device.name, self._params, rows, cols, self.seed, self.tile_id
            )
            self.step, self.slope, self.bound = pairs
        config = self.update_config
        fidelity = config.fidelity
        if fidelity == "auto":
            fidelity = self.device.default_fidelity
        self._fidelity = ops.FIDELITY_INDEX[fidelity]
        self._train = [
            0.0,
            granularity,
            float(config.desired_bl),
            float(config.fixed_bl),
            float(config.update_management),
            float(config.update_bl_management),
            float(config.group_size),
            coarseness,
        ]
        self._set_scale(self.out_scale)

    def _set_scale(self, out_scale: float) -> None:
        self.out_scale = out_scale
        self._forward_io = self.io.forward.values(out_scale)
        self._backward_io = self.io.backward.values(out_scale)
        chains = [config.chain() for config in (self.io.forward, self.io.backward)]
        self._chains = [(chain, (*chain[:2], 0.0, *chain[3:])) for chain in chains]

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

    @torch.no_grad()
    def program(self, target: Tensor) -> None:
        """Write ``target / out_scale``, clipped to each crosspoint's bounds.

        ``out_scale`` becomes ``max|target| / omega`` if ``mapping.omega`` > 0, else stays 1.

        Args:
            target: (rows, cols) weights in the units of the layer.

        Raises:
            ConfigError: wrong shape, or a value that is not finite.
        """
        if target.shape != self.weight.shape:
            shape = tuple(self.weight.shape)
            raise ConfigError(f"weights have shape {tuple(target.shape)}; this tile holds {shape}")
        if not torch.isfinite(target).all():
            raise ConfigError("weights hold a NaN or an infinity; program finite values")
        target = target.to(self.weight.dtype)
        largest = float(target.abs().max()) if target.numel() else 0.0
        if self.mapping.omega > 0 and largest > 0:
            self._set_scale(largest / self.mapping.omega)
        self.weight.copy_(target / self.out_scale if self.out_scale != 1.0 else target)
        self.clip()

    @torch.no_grad()
    def clip(self) -> None:
        """Bring every weight into its crosspoint's bounds (as programming does)."""
        lo, hi = self.bounds
        w = torch.minimum(torch.maximum(self.weight.data, lo), hi) + 0.0  # -0 becomes +0
        self.weight.data.copy_(w)

    def initialise(self) -> None:
        """Program normals of standard deviation 1/sqrt(cols), a function of (seed, tile_id)."""
        rows, cols = self.weight.shape
        normals = ops.initial_normals(rows, cols, self.seed, self.tile_id)
        self.program(normals / max(cols, 1) ** 0.5)

    def effective_weight(self) -> Tensor:
        """``out_scale W``: a copy in the units of the layer."""
        return self.weight.data * self.out_scale

    def _read(
        self, v: Tensor, transposed: bool, key: tuple[int, ...], io: tuple[float, ...]
    ) -> Tensor:
        chain, still = self._chains[transposed]
        if not chain:
            return ops.read(v, self.weight, transposed, key, io)
        average = self.averages[int(transposed) : int(transposed) + 1]
        evaluation = key[3] == _EVALUATION
        chain = still if evaluation else chain
        return ops.read_chain_(v, self.weight, average, transposed, key, io, chain)

    # ---- operations: (samples, features) in, (samples, features) out ----

    def forward(self, x: Tensor) -> Tensor:
        """Analog ``y = out_scale W x`` of every sample; advances the forward counter."""
        key = (self.seed, self.tile_id, self.forward_count, _FORWARD, *self._sizes)
        y = self._read(x, False, key, self._forward_io)
        self.forward_count += x.shape[0]
        return y

    def backward(self, d: Tensor) -> Tensor:
        """Analog ``g = out_scale W^T d``; advances the backward counter."""
        key = (self.seed, self.tile_id, self.backward_count, _BACKWARD, *self._sizes[::-1])
        g = self._read(d, True, key, self._backward_io)
        self.backward_count += d.shape[0]
        return g

    def evaluate(self, v: Tensor, transposed: bool = False) -> Tensor:
        """A read that advances no training counter, with draws of its own.

        Draws restart with :meth:`begin_evaluation`, so that an evaluation is reproducible and does
        not depend on how its samples are cut into batches.
        """
        sizes = self._sizes[::-1] if transposed else self._sizes
        key = (self.seed, self.tile_id, self.evaluation_count, _EVALUATION, *sizes)
        io = self._backward_io if transposed else self._forward_io
        y = self._read(v, transposed, key, io)
        self.evaluation_count += v.shape[0]
        return y

    def begin_evaluation(self) -> None:
        """Restart the draws of :meth:`evaluate`."""
        self.evaluation_count = 0

    def update(self, x: Tensor, d: Tensor, lr: float) -> None:
        """Pulse ``W <- W - lr/out_scale d x^T``, samples in order; advances the update counter.

        Args:
            x: (samples, cols) inputs. d: (samples, rows) errors. lr: learning rate >= 0.

        Raises:
            ConfigError: shapes, dtypes, lr < 0 or values that are not finite; weights untouched.
        """
        lr = float(lr)
        if lr < 0:
            raise ConfigError(f"lr is {lr}; use a finite learning rate >= 0")
        self._train[0] = lr / self.out_scale
        key = (self.seed, self.tile_id, self.update_count, self._fidelity)
        ops.update_(
            self.weight,
            self.step,
            self.slope,
            self.bound,
            x,
            d,
            self.device.name,
            self._params,
            self._train,
            key,
        )
        self.update_count += x.shape[0]
        self.update_calls += 1

    def step_pending(self, lr: float) -> None:
        """Pulse every pair that backward left, in order, and forget them.

        If a pair is refused (see :meth:`update`) nothing of it is written and all pairs stay.
        """
        pending = self.pending
        if not pending:
            return
        if len(pending) == 1:
            x, d = pending[0]
        else:
            x, d = torch.cat([p[0] for p in pending]), torch.cat([p[1] for p in pending])
        self.update(x, d, lr)
        pending.clear()

    # ---- state ----

    def fingerprint(self) -> int:
        """A number that differs between device and read configurations."""
        text = repr((self.device, self.io, self.update_config, self.mapping))
        return zlib.crc32(text.encode())

    def state(self) -> Tensor:
        """Identity and counters as int64: what, beside the weights, continues a run."""
        scale = struct.unpack("<q", struct.pack("<d", self.out_scale))[0]
        counts = (self.forward_count, self.backward_count, self.update_count, self.update_calls)
        head = (_FORMAT, ops.NUMBERING, self.seed, self.tile_id)
        values = [*head, *counts, self.fingerprint(), scale]
        if self._averages():
            values += self.averages.view(torch.int32).tolist()
        return torch.tensor(values, dtype=torch.int64)

    def _averages(self) -> bool:
        """Whether a direction manages its inputs by a running average."""
        managements = (self.io.forward.noise_management, self.io.backward.noise_management)
        return "average_abs_max" in managements

    def load_state(self, state: Tensor) -> None:
        """Take over identity and counters of :meth:`state`; device parameters follow the identity.

        Raises:
            ConfigError: another format, draw numbering or configuration; nothing is changed.
        """
        size = len(_STATE) + 1 + 2 * self._averages()
        if state.dtype is not torch.int64 or state.shape != (size,):
            raise ConfigError(f"tile state has shape {tuple(state.shape)}; it is no tile's state")
        values = dict(zip(_STATE, state.tolist(), strict=False))
        if values["format"] != _FORMAT or values["numbering"] != ops.NUMBERING:
            raise ConfigError(
                f"tile state has format {values['format']} and draw numbering "
                f"{values['numbering']}; this version reads {_FORMAT} and {ops.NUMBERING}"
            )
        if values["crc"] != self.fingerprint():
            raise ConfigError(
                f"tile {values['tile_id']} was saved with another device or io configuration; "
                "build the model with the one it was trained with"
            )
        moved = (self.seed, self.tile_id) != (values["seed"], values["tile_id"])
        self.seed, self.tile_id = values["seed"], values["tile_id"]
        self.forward_count, self.backward_count = values["forward"], values["backward"]
        self.update_count, self.update_calls = values["update"], values["calls"]
        self.pending.clear()
        self._set_scale(struct.unpack("<d", struct.pack("<q", int(state[len(_STATE)])))[0])
        if self._averages():
            self.averages.copy_(state[-2:].to(torch.int32).view(torch.float32))
        if moved:
            self._build()

    def __repr__(self) -> str:
        rows, cols = self.weight.shape
        return f"Tile({rows}, {cols}, {self.device}, seed={self.seed}, tile_id={self.tile_id})"

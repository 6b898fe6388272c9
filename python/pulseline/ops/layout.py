"""Settings of every operator by name, as they cross into the compiled modules.

A NamedTuple of numbers is a ``float[]`` or ``int[]`` of torch's schemas; ``csrc/bind/layout.h`` has
the same names in the same order, which is compared when a compiled module is loaded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

from torch import Tensor

from .. import _cpu
from ..configs import Mapping as TileMapping
from ..configs import ReadConfig, UpdateConfig
from ..configs.read import IR_DROPS, MV_TYPES, NOISE_MANAGEMENTS
from ..configs.update import FIDELITIES, NOISES
from ..devices import Device, PulsedDevice
from ..devices.pulsed import RETENTION
from ..errors import BackendError, ConfigError

__all__ = [
    "FIDELITY_INDEX",
    "LAYOUT",
    "NUMBERING",
    "PURPOSES",
    "ConverterSettings",
    "CountAddresses",
    "CountSettings",
    "CountedAddresses",
    "Counters",
    "DrawKey",
    "PulseSettings",
    "ReadKey",
    "ReadSettings",
    "UnfoldSizes",
    "UpdateAddresses",
    "UpdateKey",
    "UpdateSizes",
    "check_layout",
    "checked",
    "columns_of",
    "refuse_blocks",
]

T = TypeVar("T")


class ReadKey(NamedTuple):
    """Whose draws a read takes, and the physical tiles that it lies on.

    Attributes:
        seed, tile_id: of the array.
        purpose: one of ``PURPOSES``.
        tile_in, tile_out: inputs and outputs of a physical tile in this direction.
        fused: whether a GPU makes the products in the kernel that converts them.
        block_rows: of a block-diagonal matrix, whose blocks lie one behind the other; x, or the
            result, has the columns of all. 0: it is dense.
    """

    seed: int
    tile_id: int
    purpose: int
    tile_in: int
    tile_out: int
    fused: int
    block_rows: int = 0

    @classmethod
    def of(
        cls,
        seed: int,
        tile_id: int,
        purpose: int,
        mapping: TileMapping,
        transposed: bool,
        block_rows: int = 0,
    ) -> ReadKey:
        """Of a matrix on physical tiles.

        Args:
            seed, tile_id: of the array. purpose: one of ``PURPOSES``.
            mapping: largest physical tile. transposed: read from its outputs.
            block_rows: of it.
        """
        sizes = (mapping.tile_in, mapping.tile_out)
        sizes = sizes[::-1] if transposed else sizes
        fused = int(mapping.cuda_products == "fused")
        return cls(seed, tile_id, purpose, *sizes, fused, block_rows)


class UpdateKey(NamedTuple):
    """Whose draws an update takes: array and fidelity; ``block_rows`` as of :class:`ReadKey`.

    ``trains``: the ``tile_id`` whose pulse trains it takes; -1: its own.
    """

    seed: int
    tile_id: int
    fidelity: int
    block_rows: int = 0
    trains: int = -1


class DrawKey(NamedTuple):
    """Whose draws are taken between pulses; ``block_rows`` as of :class:`ReadKey`."""

    seed: int
    tile_id: int
    block_rows: int = 0


class ReadSettings(NamedTuple):
    """A plain read, see :class:`pulseline.configs.ReadConfig`; bounds of 0: none."""

    inp_bound: float
    inp_res: float
    inp_noise: float
    out_bound: float
    out_res: float
    out_noise: float
    w_noise: float
    out_scale: float
    noise_management: float
    max_rounds: float

    @classmethod
    def of(cls, config: ReadConfig, out_scale: float = 1.0) -> ReadSettings:
        """Those of a configuration.

        Args:
            config: of the read. out_scale: what outputs are multiplied by.
        """
        return cls(
            inp_bound=max(config.inp_bound, 0.0),
            inp_res=max(config.inp_res, 0.0),
            inp_noise=config.inp_noise,
            out_bound=max(config.out_bound, 0.0),
            out_res=max(config.out_res, 0.0),
            out_noise=config.out_noise,
            w_noise=config.w_noise,
            out_scale=out_scale,
            noise_management=float(NOISE_MANAGEMENTS.index(config.noise_management)),
            max_rounds=float(config.max_rounds if config.bound_management == "iterative" else 0),
        )


class ConverterSettings(NamedTuple):
    """Options of a read, see :class:`pulseline.configs.ReadConfig`; the defaults: a plain one.

    Attributes:
        advance: whether a running average moves.
        passes: place in ``MV_TYPES``. inp_gain, out_gain: of the pass of negative inputs.
        nonlinearity: per unit of the output. ir_drop: place in ``IR_DROPS``.
    """

    nm_thres: float = 0.0
    nm_decay: float = 0.0
    advance: float = 0.0
    inp_sto_round: float = 0.0
    out_sto_round: float = 0.0
    passes: float = 0.0
    inp_gain: float = 1.0
    out_gain: float = 1.0
    pcm: float = 0.0
    out_noise_std: float = 0.0
    nonlinearity: float = 0.0
    nonlinearity_std: float = 0.0
    ir_drop: float = 0.0
    wire_resistance: float = 0.0
    ir_tolerance: float = 1e-6

    @classmethod
    def of(cls, config: ReadConfig, advance: bool = True) -> ConverterSettings:
        """Those of a configuration.

        Args:
            config: of the read. advance: whether it moves the running average; evaluation does not.
        """
        nonlinear = config.out_nonlinearity > 0
        return cls(
            nm_thres=config.nm_thres,
            nm_decay=config.nm_decay,
            advance=float(advance),
            inp_sto_round=float(config.inp_sto_round),
            out_sto_round=float(config.out_sto_round),
            passes=float(MV_TYPES.index(config.mv_type)),
            inp_gain=1.0 - config.inp_asymmetry,
            out_gain=1.0 - config.out_asymmetry,
            pcm=float(config.w_noise_type == "pcm_read"),
            out_noise_std=config.out_noise_std,
            nonlinearity=config.out_nonlinearity / config.out_bound if nonlinear else 0.0,
            nonlinearity_std=config.out_nonlinearity_std,
            ir_drop=float(IR_DROPS.index(config.ir_drop)),
            wire_resistance=config.wire_resistance,
            ir_tolerance=config.ir_tolerance,
        )


class PulseSettings(NamedTuple):
    """Pulse trains of an update, see :class:`pulseline.configs.UpdateConfig`.

    Attributes:
        granularity: mean nominal step at w = 0.
        coarseness: granularity / (w_max - w_min). noise: place in ``NOISES``.
    """

    granularity: float
    desired_bl: float
    fixed_bl: float
    update_management: float
    update_bl_management: float
    group_size: float
    coarseness: float
    noise: float

    @classmethod
    def of(cls, config: UpdateConfig, device: Device) -> PulseSettings:
        """Those of a configuration for a device.

        Args:
            config: of the update. device: whose granularity counts.
        """
        granularity = coarseness = 1.0
        if isinstance(device, PulsedDevice):
            granularity = device.granularity
            coarseness = granularity / (device.w_max - device.w_min)
        return cls(
            granularity=granularity,
            desired_bl=float(config.desired_bl),
            fixed_bl=float(config.fixed_bl),
            update_management=float(config.update_management),
            update_bl_management=float(config.update_bl_management),
            group_size=float(config.group_size),
            coarseness=coarseness,
            noise=float(NOISES.index(config.noise)),
        )


class UpdateAddresses(NamedTuple):
    """Where one tile's update in a launch of several is (CUDA); fired 0: not counted.

    Attributes:
        counter: of the array's updates; 0: they are numbered from 0.
    """

    w: int
    step: int
    slope: int
    bound: int
    x: int
    d: int
    workspace: int
    fired: int
    counter: int


class CountedAddresses(NamedTuple):
    """Where counted pulses on single crosspoints are; 0: not there."""

    w: int
    step: int
    slope: int
    bound: int
    columns: int
    counts: int
    fired: int
    visible: int


class CountAddresses(NamedTuple):
    """Where a buffered transfer counts what was read; 0: not there."""

    held: int
    mean: int
    rho: int
    values: int
    sign_columns: int
    sign_rows: int
    pulses: int


class CountSettings(NamedTuple):
    """How a buffered transfer counts, see :func:`.buffered.count_columns_`."""

    rate: float
    max_pulses: int = 31
    leak: float = 0.0
    momentum: float = 0.0
    forget: bool = False
    beta: float = 0.0


class Counters(NamedTuple):
    """Samples that an array has read and pulsed: the int64 buffer beside it, by name."""

    forward: int = 0
    backward: int = 0
    evaluation: int = 0
    update: int = 0


class UpdateSizes(NamedTuple):
    """Its matrix and its samples."""

    rows: int
    cols: int
    batch: int


class UnfoldSizes(NamedTuple):
    """An image (samples, channels, ...) and its patches; images of fewer dimensions lead with 1.

    Attributes:
        sample_stride, channel_stride, stride0, stride1, stride2: of the image, in elements.
        outputs0, outputs1, outputs2: positions. kernel0, kernel1, kernel2: of a patch.
    """

    channels: int
    sample_stride: int
    channel_stride: int
    stride0: int
    stride1: int
    stride2: int
    outputs0: int
    outputs1: int
    outputs2: int
    kernel0: int
    kernel1: int
    kernel2: int


_KINDS = (
    ReadKey,
    UpdateKey,
    DrawKey,
    ReadSettings,
    ConverterSettings,
    PulseSettings,
    UpdateAddresses,
    CountedAddresses,
    CountAddresses,
    CountSettings,
    UpdateSizes,
    UnfoldSizes,
    Counters,
)
# Fields of every kind of settings, as a compiled module tells them.
LAYOUT = MappingProxyType(
    {kind.__name__: ", ".join(kind._fields) for kind in _KINDS}
    | {"RetentionSettings": ", ".join(RETENTION)}
)
NUMBERING: int = _cpu.NUMBERING
PURPOSES: Mapping[str, int] = MappingProxyType(dict(_cpu.PURPOSES))
FIDELITY_INDEX = MappingProxyType({name: i for i, name in enumerate(FIDELITIES)})


def check_layout(module: Any) -> None:
    """Compare names and order of all settings with those of a compiled module.

    Raises:
        ImportError: they differ.
    """
    if module.LAYOUT != LAYOUT:
        pairs = (LAYOUT.items() ^ module.LAYOUT.items()) or {("settings", "")}
        kind = min(pairs)[0]
        raise ImportError(
            f"{module.__name__} takes {kind} as {module.LAYOUT.get(kind)!r}, this package has "
            f"{LAYOUT.get(kind)!r}; build both again"
        )


def columns_of(weight: Tensor, key: Sequence[int], place: int) -> int:
    """Columns of all blocks of a matrix.

    Args:
        weight: (rows, columns of a block). key: of an operator; a compiled module looks at the
            rest of it. place: of ``block_rows`` in it.
    """
    rows, cols = weight.shape
    each = key[place] if len(key) > place else 0
    return cols * (rows // each) if each > 0 else cols


def refuse_blocks(weight: Tensor, key: Sequence[int], place: int) -> None:
    """Refuse a block-diagonal matrix on a GPU.

    Args:
        weight, key, place: as of :func:`columns_of`.

    Raises:
        BackendError: it has several blocks.
    """
    rows, cols = weight.shape
    if columns_of(weight, key, place) != cols:
        raise BackendError(
            f"a layer of {rows // key[place]} groups is on a GPU, for which there is no kernel; "
            "keep it on the CPU, or digital"
        )


def checked(kind: type[T], values: Sequence[float]) -> T:
    """What torch's dispatcher hands on as a list, by name again.

    Args:
        kind: the NamedTuple. values: its numbers in order.

    Raises:
        ConfigError: another number of values.
    """
    if isinstance(values, kind):
        return values
    fields: tuple[str, ...] = kind._fields  # type: ignore[attr-defined]
    if len(values) != len(fields):
        raise ConfigError(
            f"{kind.__name__} has {len(values)} numbers; use its {len(fields)} fields: "
            f"{', '.join(fields)}"
        )
    return kind(*values)


check_layout(_cpu)

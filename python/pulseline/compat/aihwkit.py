"""Settings of IBM's aihwkit in terms of this package, by attribute names and without importing it.

A field of the same name goes over as it is. A field that has no counterpart is refused by name,
unless it has the value that switches it off. Compounds become rules of
:mod:`pulseline.algorithms`::

    TransferCompound                   TikiTaka1; with gamma Residual1, of 3 or more MultiTile
    BufferedTransferCompound           TikiTaka2; with gamma Residual2
    ChoppedTransferCompound            ChoppedTikiTaka2; without choppers as the buffered one
    DynamicTransferCompound            AGAD
    MixedPrecisionCompound             MixedPrecision
    OneSidedUnitCell                   OneSided
    VectorUnitCell, ReferenceUnitCell  Vector, ReferencePair
"""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

from .. import devices
from ..algorithms import Rule
from ..configs import IOConfig, Mapping, UpdateConfig
from . import pairs, transfers
from .compounds import Compound
from .differences import sentences
from .fields import plain, refusal
from .periphery import io, mapping, update
from .single import known_class, single_device

__all__ = ["COMPOUNDS", "Configuration", "differences", "from_aihwkit"]

# Parts of a whole configuration that must be switched off: attribute, then what says so.
_OFF_PARTS = {"modifier": "type", "clip": "type", "remap": "type"}
# Their classes of several devices a crosspoint; one derives from another, so the nearest counts.
COMPOUNDS = (
    *("TransferCompound", "BufferedTransferCompound", "ChoppedTransferCompound"),
    *("DynamicTransferCompound", "MixedPrecisionCompound", "OneSidedUnitCell"),
    *("VectorUnitCell", "ReferenceUnitCell"),
)


class Configuration(NamedTuple):
    """The fields of a :class:`pulseline.Crossbar`: ``Crossbar(*configuration)`` is one."""

    device: devices.Device
    io: IOConfig
    update: UpdateConfig
    mapping: Mapping
    algorithm: Rule | None = None
    fast_device: devices.Device | None = None


def from_aihwkit(rpu_config: object, batch: int | None = None) -> Configuration:
    """What a training configuration of aihwkit is here.

    ``ir_drop`` becomes the closed form (``ir_drop="approx"``) with a wire resistance of
    ``ir_drop / ir_drop_g_ratio``; the limits ``max_bm_factor`` and ``max_bm_res`` become rounds.
    Compounds of devices become an ``algorithm`` with their own numbers, not with our defaults;
    where their first device, which takes the gradients, differs from the others it is
    ``fast_device``. What means something else here although it has the same name comes as a warning
    each: see :func:`differences`.

    Args:
        rpu_config: a configuration of a single device, a unit cell or a digital rank update.
        batch: samples of a mini-batch in the training that it is for; needed where something
            happens once per mini-batch there and is counted in samples here: weights decay or
            diffuse, means of ``auto_scale``, a refresh, parts of a mini-batch between transfers.

    Returns:
        What they are here; ``pl.Crossbar(*found)`` is what layers and models take.

    Raises:
        ConfigError: a field has no counterpart here (the message names it), or its value is bad.
    """
    theirs = getattr(rpu_config, "device", None)
    if theirs is None:
        raise refusal("device", None, "pass a configuration with a device")
    trains = update(getattr(rpu_config, "update", None))
    made = _compound(theirs, batch, trains)
    device = made.device if made else single_device(theirs, batch, more=COMPOUNDS)
    _refuse_parts(rpu_config)
    found = Configuration(
        device,
        io(getattr(rpu_config, "forward", None), getattr(rpu_config, "backward", None)),
        trains,
        mapping(getattr(rpu_config, "mapping", None)),
        made.algorithm if made else None,
        made.fast_device if made else None,
    )
    names = made.names if made else (type(theirs).__name__,)
    for sentence in differences(found, *names):
        warnings.warn(f"aihwkit: {sentence}", stacklevel=2)
    return found


def _compound(theirs: Any, batch: int | None, trains: UpdateConfig) -> Compound | None:
    """What a class of several devices becomes; None: it is none."""
    kind = known_class(theirs, COMPOUNDS)
    if kind == "MixedPrecisionCompound":
        return pairs.mixed_precision(theirs, batch, trains)
    makers = {
        "TransferCompound": transfers.chain,
        "BufferedTransferCompound": transfers.buffered,
        "ChoppedTransferCompound": transfers.chopped,
        "DynamicTransferCompound": transfers.dynamic,
        "OneSidedUnitCell": pairs.one_sided,
        "VectorUnitCell": pairs.vector,
        "ReferenceUnitCell": pairs.reference,
    }
    return None if kind is None else makers[kind](theirs, batch)


def _refuse_parts(rpu_config: Any) -> None:
    for part, word in _OFF_PARTS.items():
        kind = getattr(getattr(rpu_config, part, None), word, None)
        if kind is not None and plain(kind) != "None":
            raise refusal(f"{part}.{word}", kind, "switch it off")
    ranges = getattr(getattr(rpu_config, "pre_post", None), "input_range", None)
    if getattr(ranges, "enable", False):
        raise refusal("pre_post.input_range.enable", True, "switch it off")
    if getattr(rpu_config, "noise_model", None) is not None:
        raise refusal("noise_model", rpu_config.noise_model, "this is no model of inference")


def differences(configuration: Configuration, *names: str) -> list[str]:
    """Where the same numbers mean something else here, one sentence each.

    Args:
        configuration: what :func:`from_aihwkit` made.
        names: the classes of their devices: of ``device``, then of ``fast_device``.

    Returns:
        The sentences; none where all means the same. Figures in them were measured side by side.
    """
    return list(sentences(configuration, names))

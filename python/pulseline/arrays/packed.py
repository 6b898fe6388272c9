"""The settings of a tile as its operators take them, packed once."""

from __future__ import annotations

from typing import NamedTuple

from .. import ops
from ..configs import Crossbar, ReadConfig

__all__ = ["Options", "Packed"]

_FORWARD, _BACKWARD, _EVALUATION = (
    ops.PURPOSES[name] for name in ("forward", "backward", "evaluation")
)
_JOINING = frozenset(ops.FIDELITY_INDEX[name] for name in ("grouped", "moments"))
Options = tuple[ops.ConverterSettings, ops.ConverterSettings]  # in training, in evaluation


class Packed(NamedTuple):
    """Whose draws, and by which settings; pairs are forward and backward.

    Attributes:
        converters: None: a plain read.
    """

    forward: ops.ReadKey
    backward: ops.ReadKey
    evaluation: tuple[ops.ReadKey, ops.ReadKey]
    draws: ops.DrawKey
    update: ops.UpdateKey
    reads: tuple[ops.ReadSettings, ops.ReadSettings]
    converters: tuple[Options | None, Options | None]
    pulses: ops.PulseSettings

    @property
    def joins(self) -> bool:
        """Whether updates join samples."""
        return self.update.fidelity in _JOINING

    @classmethod
    def of(
        cls,
        key: tuple[int, int],
        crossbar: Crossbar,
        out_scale: float,
        block_rows: int = 0,
        trains: int = -1,
    ) -> Packed:
        """Those of an array.

        Args:
            key: Philox key, seed and stream. crossbar: its settings. out_scale: of its reads.
            block_rows: of its matrix. trains: the stream whose trains it takes; -1: its own.
        """
        device, io, update = crossbar.device, crossbar.io, crossbar.update
        mapping = crossbar.mapping
        fidelity = ops.FIDELITY_INDEX[update.resolve(device.default_fidelity)]
        return cls(
            forward=ops.ReadKey.of(*key, _FORWARD, mapping, False, block_rows),
            backward=ops.ReadKey.of(*key, _BACKWARD, mapping, True, block_rows),
            evaluation=(
                ops.ReadKey.of(*key, _EVALUATION, mapping, False, block_rows),
                ops.ReadKey.of(*key, _EVALUATION, mapping, True, block_rows),
            ),
            draws=ops.DrawKey(*key, block_rows),
            update=ops.UpdateKey(*key, fidelity, block_rows, trains),
            reads=(
                ops.ReadSettings.of(io.forward, out_scale),
                ops.ReadSettings.of(io.backward, out_scale),
            ),
            converters=(_options(io.forward), _options(io.backward)),
            pulses=ops.PulseSettings.of(update, device),
        )


def _options(config: ReadConfig) -> Options | None:
    if config.plain:
        return None
    return ops.ConverterSettings.of(config), ops.ConverterSettings.of(config, advance=False)

"""What a conversion did: which matrices became analog, which stayed digital and why, what was cut.

The report lies on the converted model, ``pulseline.nn.conversion(model)``, and is what a dry run
returns. It prints as a table.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..cells import Cell
from ..errors import ConfigError

__all__ = [
    "WORTH_A_WARNING",
    "Clipping",
    "ConversionReport",
    "LayerReport",
    "conversion",
    "forget",
    "keep",
    "tiles_of",
]

_KEPT = "_pulseline_conversion"  # beside the parameters of a model: what its conversion said
_CHECK = "_pulseline_check"  # and what looks at states
# Of the norm of a matrix: networks of digits keep their accuracy within a point up to here.
WORTH_A_WARNING = 0.1


@dataclass(frozen=True)
class Clipping:
    """What the bounds of crosspoints took from matrices.

    Attributes:
        share: of the weights lie outside the bounds of their crosspoints, 0 to 1.
        excess: the largest distance to a bound, in units of the layer.
        lost: Frobenius norm of what was cut over that of the matrices: the relative error of the
            programmed weights.
    """

    share: float = 0.0
    excess: float = 0.0
    lost: float = 0.0

    @classmethod
    def of(cls, pairs: Iterable[tuple[Tensor, Cell]]) -> Clipping:
        """That of cells which were programmed with these matrices."""
        count, outside, excess, cut, norm = 0, 0, 0.0, 0.0, 0.0
        for target, cell in pairs:
            lo, hi = cell.bounds
            scale = cell.array.out_scale
            scaled = cell.array.as_matrix(target).to(torch.float32) / scale
            over = torch.maximum(scaled - hi, lo - scaled).clamp_(min=0.0) * scale
            count += over.numel()
            outside += int((over > 0).sum())
            excess = max(excess, float(over.max()) if over.numel() else 0.0)
            cut += float(over.double().square().sum())
            norm += float(target.double().square().sum())
        return cls(outside / max(count, 1), excess, (cut / norm) ** 0.5 if norm > 0 else 0.0)


def tiles_of(cell: Cell) -> int:
    """Physical tiles that hold crosspoints of a matrix; of blocks, those that a block lies on."""
    mapping, blocks = cell.crossbar.mapping, cell.array.blocks
    rows, cols = (size // blocks for size in cell.shape)
    found: set[tuple[int, int]] = set()
    for n in range(blocks if rows and cols else 0):
        out = range(n * rows // mapping.tile_out, ((n + 1) * rows - 1) // mapping.tile_out + 1)
        inside = range(n * cols // mapping.tile_in, ((n + 1) * cols - 1) // mapping.tile_in + 1)
        found |= {(i, j) for i in out for j in inside}
    return len(found)


@dataclass(frozen=True)
class LayerReport:
    """A module that holds matrices.

    Attributes:
        name: in its model, empty for the model itself. kind: its class.
        shapes: of its matrices, (rows, columns) where it is a linear layer.
        tile_id: number of its first matrix, see :func:`pulseline.nn.tile_ids`.
        why: it stayed digital; empty: it is analog.
        asked: that it stays digital is what a rule, ``include`` or ``exclude`` says, or it holds
            no matrix that is multiplied with (an embedding).
        device: name of its crosspoint model, empty if digital.
        tiles: physical tiles it takes. utilisation: the part of their crosspoints that it uses.
        bytes: of weights, crosspoints and counters, 0 if digital.
        out_scale: factor behind its reads. clipping: see :class:`Clipping`.
    """

    name: str
    kind: str
    shapes: tuple[tuple[int, ...], ...]
    tile_id: int
    why: str = ""
    asked: bool = False
    device: str = ""
    tiles: int = 0
    utilisation: float = 0.0
    bytes: int = 0
    out_scale: float = 1.0
    clipping: Clipping = Clipping()

    @property
    def analog(self) -> bool:
        """Whether its matrices are on crossbars."""
        return not self.why

    @property
    def weights(self) -> int:
        """Elements of its matrices."""
        return sum(map(math.prod, self.shapes))


@dataclass(frozen=True)
class ConversionReport:
    """What :func:`pulseline.nn.to_analog` did with the matrices of a model, or would do.

    Attributes:
        layers: every module that holds matrices, in order. seed: of the new analog layers.
    """

    layers: tuple[LayerReport, ...]
    seed: int

    @property
    def analog(self) -> tuple[LayerReport, ...]:
        """Layers on crossbars."""
        return tuple(one for one in self.layers if one.analog)

    @property
    def digital(self) -> tuple[LayerReport, ...]:
        """Modules whose matrices stayed digital."""
        return tuple(one for one in self.layers if not one.analog)

    @property
    def left(self) -> tuple[LayerReport, ...]:
        """Digital ones that no rule asked to be."""
        return tuple(one for one in self.digital if not one.asked)

    @property
    def share(self) -> float:
        """Analog part of all elements of matrices, 0 to 1."""
        every = sum(one.weights for one in self.layers)
        return sum(one.weights for one in self.analog) / every if every else 0.0

    def warnings(self) -> list[str]:
        """What a user should know without asking, a sentence each."""
        found = []
        cut = [one for one in self.analog if one.clipping.lost > WORTH_A_WARNING]
        if cut:
            most = max(cut, key=lambda one: one.clipping.lost)
            clip, scaled = most.clipping, most.out_scale != 1.0
            fix = "" if scaled else "pass mapping=Mapping(omega='auto'), which scales them, or "
            found.append(
                f"weights of {len(cut)} of {len(self.analog)} analog layers exceed the bounds of "
                f"their crosspoints and were clipped: {_called(most)} lost {clip.lost:.1%} of its "
                f"norm ({clip.share:.1%} of the weights, by up to {clip.excess:.3g}); {fix}use a "
                "device of wider bounds"
            )
        left = self.left
        if left:
            every = max(sum(one.weights for one in self.layers), 1)
            part = sum(one.weights for one in left) / every
            kinds = ", ".join(sorted({one.kind for one in left}))
            found.append(
                f"{part:.1%} of the weights stay digital: there is no analog layer for "
                f"{kinds:.80}; print pulseline.nn.conversion(model) for names and reasons, and "
                "exclude them to silence this"
            )
        return found

    def __str__(self) -> str:
        head = ("layer", "type", "matrices", "id", "device", "tiles", "used", "bytes", "remark")
        rows = [head, *(_row(one) for one in self.layers)]
        width = [max(len(row[n]) for row in rows) for n in range(len(head))]
        lines = ["  ".join(t.ljust(w) for t, w in zip(row, width, strict=True)) for row in rows]
        matrices = sum(len(one.shapes) for one in self.layers)
        analog = sum(len(one.shapes) for one in self.analog)
        lines.append(
            f"{analog} of {matrices} matrices analog, {self.share:.1%} of the weights; "
            f"seed {self.seed}, {sum(one.bytes for one in self.layers):,} bytes"
        )
        return "\n".join(line.rstrip() for line in lines)


def _called(one: LayerReport) -> str:
    return f"layer {one.name}" if one.name else "the layer"


def _row(one: LayerReport) -> tuple[str, ...]:
    counted: dict[str, int] = {}
    for shape in one.shapes:
        text = " x ".join(map(str, shape))
        counted[text] = counted.get(text, 0) + 1
    shapes = ", ".join(f"{n} of {text}" if n > 1 else text for text, n in counted.items())
    named = (one.name or "(model)", one.kind, shapes, str(one.tile_id))
    if not one.analog:
        return (*named, "-", "-", "-", "-", f"digital: {one.why}")
    clip, remarks = one.clipping, []
    if one.out_scale != 1.0:
        remarks.append(f"scaled by {one.out_scale:.4g}")
    if clip.share > 0:
        remarks.append(
            f"{clip.share:.2%} clipped, by up to {clip.excess:.3g}, norm {clip.lost:.2%}"
        )
    rest = (one.device, str(one.tiles), f"{one.utilisation:.0%}", f"{one.bytes:,}")
    return (*named, *rest, "; ".join(remarks))


def keep(model: nn.Module, report: ConversionReport, check: Callable[..., None]) -> None:
    """Leave the report on the model.

    Args:
        model: that was converted. report: of it.
        check: what looks at a state before the model loads it, once however often it is converted.
    """
    if _KEPT not in vars(model):
        model.register_load_state_dict_pre_hook(check)
    vars(model)[_KEPT] = report
    vars(model)[_CHECK] = check


def forget(model: nn.Module) -> None:
    """Take from a model, and from all in it, what :func:`keep` has left there."""
    for module in model.modules():
        held = vars(module)
        check = held.pop(_CHECK, None)
        held.pop(_KEPT, None)
        hooks: Any = module._load_state_dict_pre_hooks
        for key in [key for key, one in hooks.items() if check and one.hook is check]:
            del hooks[key]


def conversion(model: nn.Module) -> ConversionReport:
    """The report of the conversion that made ``model``.

    Args:
        model: what :func:`pulseline.nn.to_analog` returned, or a copy of it.

    Returns:
        What it said; later changes of the model are not in it.

    Raises:
        ConfigError: the model was not converted as a whole.
    """
    found: Any = vars(model).get(_KEPT)
    if not isinstance(found, ConversionReport):
        raise ConfigError(
            f"{type(model).__name__} holds no report of a conversion; pass the model that "
            "to_analog returned"
        )
    return found

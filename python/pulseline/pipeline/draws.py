"""What torch draws inside stages (dropout): a function of (seed, stage, micro-batch).

torch has one generator per device for the whole process. Without more, its numbers would go to
whichever stage comes first, and a resumed run would draw others. Here F of micro-batch k runs on a
generator that is seeded for it, and the caller's generator stands afterwards where it stood. Stages
that draw therefore take turns; one that does not draw in its first F and holds no module that
could is left alone from then on.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b

import torch
from torch import nn

__all__ = ["Draws", "may_draw"]

_TURN = threading.RLock()  # of the process, as the generators are


def may_draw(module: nn.Module) -> bool:
    """Whether a part of the module is one of torch's that draw numbers in training."""
    return any(
        isinstance(part, (nn.modules.dropout._DropoutNd, nn.RReLU))
        or bool(getattr(part, "dropout", 0.0))
        for part in module.modules()
    )


class Draws:
    """The generators of one pipeline's stages.

    Args:
        seed: of the pipeline.

    Attributes:
        any: whether a stage draws. turn: held while nobody else may move a generator (a recomputed
            F sets it in B).
    """

    turn = _TURN

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.any = False

    @contextmanager
    def of(self, stage: int, k: int, device: torch.device) -> Iterator[list[bool]]:
        """Seeded generators for one F; the list afterwards says whether it drew from them.

        Args:
            stage: from 1. k: micro-batch. device: that the stage computes on.
        """
        key = f"{self.seed} {stage} {k}".encode()
        number = int.from_bytes(blake2b(key, digest_size=8).digest(), "little") >> 1
        generators = [torch.default_generator]
        if device.type == "cuda":
            generators.append(torch.cuda.default_generators[device.index or 0])
        drew = [False]
        with self.turn:
            before = [one.get_state() for one in generators]
            try:
                begun = []
                for one in generators:
                    one.manual_seed(number)
                    begun.append(one.get_state())
                yield drew
                drew[0] = any(
                    not torch.equal(one.get_state(), start)
                    for one, start in zip(generators, begun, strict=True)
                )
            finally:
                for one, state in zip(generators, before, strict=True):
                    one.set_state(state)

"""Programming a matrix by gradients: how well an algorithm reaches a target that is known.

Samples x are uniform in +-1, errors d = W x - T x, with W read through converters; what is measured
is the standard deviation of W - T in the end. Targets are normal of deviation .3 within +-.8, in
units of the device's bounds. Rates are the best of 24 to 36 random choices at 20 states: for the
offset 0 alone, or with .25 for those that bear one.
"""

from __future__ import annotations

import warnings

import torch

from ..algorithms import (
    AGAD,
    ERIDER,
    ChoppedTikiTaka2,
    MixedPrecision,
    MultiTile,
    TikiTaka1,
    TikiTaka2,
)
from ..configs import Crossbar
from ..nn import AnalogLinear
from ..optim import AnalogSGD
from .tuned import Tuned, buffered, chain

__all__ = ["PROGRAMMERS", "error"]

_SPREAD, _MOST = 0.3, 0.8


def _programmers() -> dict[str, Tuned]:
    scaled = {"auto_scale": True}
    return {
        "SGD": Tuned(None, 0.002, 5),
        "TTv1": Tuned(chain(TikiTaka1, 0.1, 0.03, 5, every=2), bl=5),
        "TTv2": Tuned(buffered(TikiTaka2, 0.1, 0.01, 1, **scaled)),
        "c-TTv2": Tuned(buffered(ChoppedTikiTaka2, 0.3, 0.01, 2, chop=0.2, **scaled), bl=5),
        "AGAD": Tuned(buffered(AGAD, 0.1, 0.005, 1, chop=0.2, forget=True, **scaled)),
        "E-RIDER": Tuned(buffered(ERIDER, 0.3, 0.003, 2, chop=0.05, gamma=0.05, **scaled), bl=5),
        "mixed": Tuned(MixedPrecision(every=32, units="samples"), 0.003),
        "multi-tile": Tuned(chain(MultiTile, 0.1, 0.03, 5, arrays=3, gamma=0.5, every=2), bl=5),
    }


PROGRAMMERS = _programmers()


def error(one: Tuned, crossbar: Crossbar, size: int, samples: int, batch: int, seed: int) -> float:
    """Standard deviation of W - T behind so many samples.

    Args:
        one: the algorithm. crossbar: of the matrix. size: its rows and columns.
        samples: of x. batch: how many between two updates. seed: of devices, target, samples.
    """
    draws = torch.Generator().manual_seed(seed)
    target = torch.randn(size, size, generator=draws).mul_(_SPREAD).clamp_(-_MOST, _MOST)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        layer = AnalogLinear(size, size, bias=False, crossbar=crossbar, seed=seed, tile_id=0)
        layer.cell.program(torch.zeros(size, size))
        optimizer = AnalogSGD(layer.parameters(), lr=one.lr)
        for _ in range(samples // batch):
            x = torch.rand(batch, size, generator=draws).mul_(2).sub_(1)
            optimizer.zero_grad()
            (0.5 * (layer(x) - x @ target.T).square()).sum().backward()
            optimizer.step()
    return float((layer.cell.effective_weight() - target).square().mean().sqrt())

"""Rates that work on the digits network, per device: chosen on its test set, best of 8 to 20.

So differences below one point between algorithms mean nothing. Rates of transfers do not follow the
optimizer's; losses are sums over a micro-batch, so that a rate means the same for any of its sizes.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from ..algorithms import (
    AGAD,
    ERIDER,
    ChoppedTikiTaka2,
    MixedPrecision,
    MultiTile,
    Residual1,
    Residual2,
    Rule,
    TikiTaka1,
    TikiTaka2,
)
from ..configs import Crossbar, UpdateConfig
from ..devices import PulsedDevice, SoftBoundsReference

__all__ = ["NAMES", "STATES", "Tuned", "buffered", "chain", "crossbar_of", "states", "tuned"]

NAMES = (
    "SGD",
    "TTv1",
    "residual v1",
    "TTv2",
    "residual v2",
    "c-TTv2",
    "AGAD",
    "E-RIDER",
    "mixed",
    "multi-tile",
)

STATES = (20, 50, 100, 1200)  # with rates of their own


class Tuned(NamedTuple):
    """An algorithm with its rates.

    Attributes:
        rule: None: one array that every update pulses. lr: of the optimizer. bl: longest train.
    """

    rule: Rule | None
    lr: float = 0.05
    bl: int = 31


def states(count: int, offset: float = 0.0) -> PulsedDevice:
    """Soft bounds of +-1 in so many steps (Rasch et al. 2024, eq. 4 to 9).

    Args:
        count: of states. offset: standard deviation of the reference's error, in weights.
    """
    return SoftBoundsReference(
        dw_min=2 / count,
        dw_min_dtod_log_normal=True,
        up_down_dtod=0.1,
        w_max=1.0,
        w_min=-1.0,
        subtract_symmetry_point=True,
        reference_std=offset,
    )


def crossbar_of(one: Tuned, device: PulsedDevice, slow: PulsedDevice | None = None) -> Crossbar:
    """What a network of the algorithm is made of.

    Args:
        one: the algorithm. device: of its arrays. slow: of the array that is read; None: the same.
    """
    update = UpdateConfig(desired_bl=one.bl)
    if one.rule is None or isinstance(one.rule, MixedPrecision):
        return Crossbar(device, update=update, algorithm=one.rule)
    return Crossbar(slow or device, update=update, algorithm=one.rule, fast_device=device)


def chain(kind: Any, fast: float, rate: float, bl: int, **fields: Any) -> Rule:
    """A chain of arrays whose transfers do not follow the optimizer's lr.

    Args:
        kind: of rule. fast: its lr_fast. rate: its lr_transfer. bl: longest train of a transfer.
        fields: others.
    """
    made: Rule = kind(
        lr_fast=fast,
        lr_transfer=rate,
        scale_transfer=False,
        transfer_update=UpdateConfig(desired_bl=bl),
        **fields,
    )
    return made


def buffered(kind: Any, fast: float, rate: float, most: int, **fields: Any) -> Rule:
    """A rule with a buffer whose transfers do not follow the optimizer's lr.

    Args:
        kind: of rule. fast: its lr_fast. rate: its lr_transfer. most: pulses of a transfer.
        fields: others.
    """
    made: Rule = kind(
        lr_fast=fast, lr_transfer=rate, scale_transfer=False, max_pulses=most, **fields
    )
    return made


def tuned(device: str) -> dict[str, Tuned]:
    """Algorithms by name.

    Args:
        device: "default": ``SoftBounds()``, 1200 states; "20", "50", "100", "1200": ``states`` of
            so many; "deep": the default device in a network of four layers.
    """
    return _BY_DEVICE[device]()


def _default() -> dict[str, Tuned]:
    forgets: dict[str, Any] = {"momentum": 0.1, "forget": True}
    return {
        "SGD": Tuned(None, 0.005, 5),
        "TTv1": Tuned(chain(TikiTaka1, 0.02, 0.1, 31)),
        "residual v1": Tuned(chain(Residual1, 0.005, 0.1, 31, every=2, gamma=0.1)),
        "TTv2": Tuned(buffered(TikiTaka2, 0.1, 0.1, 10, auto_scale=True, **forgets), bl=5),
        "residual v2": Tuned(buffered(Residual2, 0.005, 0.1, 10, forget=True, gamma=0.1), bl=5),
        "c-TTv2": Tuned(buffered(ChoppedTikiTaka2, 0.3, 0.1, 3, chop=0.1, auto_scale=True)),
        "AGAD": Tuned(buffered(AGAD, 0.1, 0.03, 31, chop=0.05, forget=True)),
        "E-RIDER": Tuned(buffered(ERIDER, 0.2, 0.1, 31, every=2, chop=0.05, tail=1.0, gamma=0.05)),
        "mixed": Tuned(MixedPrecision(every=64, units="samples"), 0.005),
        "multi-tile": Tuned(
            chain(
                *(MultiTile, 0.1, 0.3, 31),
                arrays=3,
                gamma=0.2,
                every=1,
                lr_transfer_factor=1.0,
            )
        ),
    }


def _twenty() -> dict[str, Tuned]:
    scaled: dict[str, Any] = {"auto_scale": True}
    return {
        "SGD": Tuned(None, 0.005, 1),
        "TTv1": Tuned(chain(TikiTaka1, 0.1, 0.03, 5, every=2), bl=5),
        "residual v1": Tuned(chain(Residual1, 0.05, 0.01, 5, gamma=0.2), bl=1),
        "TTv2": Tuned(buffered(TikiTaka2, 0.3, 0.03, 2, momentum=0.1, **scaled), bl=1),
        "residual v2": Tuned(
            buffered(*(Residual2, 0.03, 0.03, 2), momentum=0.1, forget=True, gamma=0.05, **scaled),
            bl=5,
        ),
        "c-TTv2": Tuned(
            buffered(ChoppedTikiTaka2, 0.1, 0.03, 1, every=2, chop=0.3, **scaled), bl=5
        ),
        "AGAD": Tuned(
            buffered(AGAD, 0.3, 0.03, 2, every=2, chop=0.02, forget=True, **scaled), bl=5
        ),
        "E-RIDER": Tuned(buffered(ERIDER, 0.3, 0.03, 2, chop=0.2, gamma=0.05, **scaled), bl=1),
        "mixed": Tuned(MixedPrecision(every=32, units="samples"), 0.05),
        "multi-tile": Tuned(chain(MultiTile, 0.2, 0.1, 5, arrays=4, gamma=0.2, every=1), bl=5),
    }


def _fifty() -> dict[str, Tuned]:
    scaled: dict[str, Any] = {"auto_scale": True}
    residual2 = buffered(*(Residual2, 0.2, 0.1, 2), every=2, momentum=0.1, forget=True, gamma=0.05)
    return {
        "SGD": Tuned(None, 0.005, 1),
        "TTv1": Tuned(chain(TikiTaka1, 0.2, 0.03, 1), bl=5),
        "residual v1": Tuned(chain(Residual1, 0.1, 0.1, 5, every=2, gamma=0.2), bl=1),
        "TTv2": Tuned(buffered(TikiTaka2, 0.1, 0.03, 2, forget=True), bl=5),
        "residual v2": Tuned(residual2, bl=5),
        "c-TTv2": Tuned(buffered(ChoppedTikiTaka2, 0.2, 0.03, 2, every=2, chop=0.05), bl=5),
        "AGAD": Tuned(buffered(AGAD, 0.1, 0.03, 1, chop=0.1, forget=True, **scaled), bl=5),
        "E-RIDER": Tuned(
            buffered(ERIDER, 0.3, 0.03, 2, chop=0.02, tail=1.0, gamma=0.05, **scaled), bl=5
        ),
        "mixed": Tuned(MixedPrecision(every=64, units="samples"), 0.02),
        "multi-tile": Tuned(chain(MultiTile, 0.2, 0.1, 1, arrays=3, gamma=0.2), bl=5),
    }


def _hundred() -> dict[str, Tuned]:
    scaled: dict[str, Any] = {"auto_scale": True}
    residual2 = buffered(*(Residual2, 0.2, 0.1, 2), every=2, momentum=0.1, forget=True, gamma=0.05)
    chopped = buffered(*(ChoppedTikiTaka2, 0.3, 0.03, 2), every=2, chop=0.01, forget=True, **scaled)
    last = {"arrays": 2, "gamma": 0.2, "every": 1, "lr_transfer_factor": 1.0}
    return {
        "SGD": Tuned(None, 0.005, 5),
        "TTv1": Tuned(chain(TikiTaka1, 0.05, 0.03, 5, every=2), bl=1),
        "residual v1": Tuned(chain(Residual1, 0.1, 0.03, 1, gamma=0.2), bl=5),
        "TTv2": Tuned(buffered(TikiTaka2, 0.1, 0.03, 2, every=2), bl=5),
        "residual v2": Tuned(residual2, bl=5),
        "c-TTv2": Tuned(chopped, bl=5),
        "AGAD": Tuned(buffered(AGAD, 0.3, 0.03, 1, chop=0.1, **scaled), bl=5),
        "E-RIDER": Tuned(
            buffered(ERIDER, 0.3, 0.03, 2, chop=0.02, tail=1.0, gamma=0.05, **scaled), bl=5
        ),
        "mixed": Tuned(MixedPrecision(every=8, units="samples"), 0.01),
        "multi-tile": Tuned(chain(MultiTile, 0.1, 0.03, 1, **last), bl=5),
    }


def _many() -> dict[str, Tuned]:
    forgets: dict[str, Any] = {"momentum": 0.1, "forget": True, "auto_scale": True}
    erider = {"every": 2, "chop": 0.2, "forget": True, "gamma": 0.05}
    return {
        "SGD": Tuned(None, 0.005),
        "TTv1": Tuned(chain(TikiTaka1, 0.01, 0.03, 5)),
        "residual v1": Tuned(chain(Residual1, 0.02, 0.1, 31, every=2, gamma=0.5), bl=5),
        "TTv2": Tuned(buffered(TikiTaka2, 0.1, 0.3, 3, **forgets)),
        "residual v2": Tuned(buffered(Residual2, 0.02, 0.03, 31, gamma=0.2), bl=5),
        "c-TTv2": Tuned(buffered(ChoppedTikiTaka2, 0.1, 0.1, 3, every=2, chop=0.05)),
        "AGAD": Tuned(buffered(AGAD, 0.3, 0.1, 3, chop=0.1, auto_scale=True)),
        "E-RIDER": Tuned(buffered(ERIDER, 0.2, 0.3, 10, **erider)),
        "mixed": Tuned(MixedPrecision(every=64, units="samples"), 0.005),
        "multi-tile": Tuned(chain(MultiTile, 0.01, 0.1, 5, arrays=2, gamma=0.5, every=1)),
    }


def _deep() -> dict[str, Tuned]:
    forgets: dict[str, Any] = {"momentum": 0.1, "forget": True}
    return {
        "SGD": Tuned(None, 0.005, 5),
        "TTv1": Tuned(chain(TikiTaka1, 0.05, 0.3, 5, every=2)),
        "residual v1": Tuned(chain(Residual1, 0.005, 0.01, 5, gamma=0.5), bl=5),
        "TTv2": Tuned(buffered(TikiTaka2, 0.1, 0.1, 10, auto_scale=True, **forgets), bl=5),
        "residual v2": Tuned(
            buffered(Residual2, 0.005, 0.3, 3, every=2, momentum=0.1, gamma=0.5), bl=5
        ),
        "c-TTv2": Tuned(buffered(ChoppedTikiTaka2, 0.3, 0.01, 10, chop=0.01, auto_scale=True)),
        "AGAD": Tuned(buffered(AGAD, 0.1, 0.03, 31, chop=0.05, forget=True)),
        "E-RIDER": Tuned(buffered(ERIDER, 0.2, 0.1, 31, every=2, chop=0.05, tail=1.0, gamma=0.05)),
        "mixed": Tuned(MixedPrecision(every=8, units="samples"), 0.002),
        "multi-tile": Tuned(
            chain(MultiTile, 0.1, 0.03, 5, arrays=2, gamma=0.2, every=1, every_factor=2)
        ),
    }


_BY_DEVICE = {
    "default": _default,
    "20": _twenty,
    "50": _fifty,
    "100": _hundred,
    "1200": _many,
    "deep": _deep,
}

"""Published device fits as data: ``presets.ReRamES`` is a device, ``presets.list()`` names all.

Units: weights normalised to about [-1, 1]. The phase-change cell comes with the one-sided pair.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable
from typing import Any

from .devices import (
    DEVICES,
    ConstantStep,
    Device,
    ExpStep,
    Ideal,
    LinearStep,
    PulsedDevice,
    SoftBoundsPmax,
    SoftBoundsReference,
    files,
    load,
)
from .errors import ConfigError

# Gokmen & Vlasov 2016, "Acceleration of deep neural network training with resistive cross-point
# devices": the baseline RPU device, its 1,200 states on the range -1 to 1.
GokmenVlasov = ConstantStep(dw_min=0.0016, w_max=1.0, w_min=-1.0)

# The same device with 10,000 symmetric steps: Rasch, Gokmen & Haensch 2019 (arXiv 1906.02698).
Idealized = ConstantStep(dw_min=2e-4, w_max=1.0, w_min=-1.0, up_down_dtod=0.0)

# Filamentary ReRAM, exponential fit to Gong et al., Nature Communications 2018.
ReRamES = ExpStep(
    dw_min=0.00135,
    dw_min_dtod=0.2,
    dw_min_std=5.0,
    up_down=0.259359,
    up_down_dtod=0.05,
    w_max=1.0,
    w_min=-1.0,
    write_noise_std=75.0,
    a_up=-1.18445,
    a_down=-0.081404,
    gamma_up=5.0,
    gamma_down=5.0,
    a=-0.5,
    b=-0.5,
)

# The same measurements, a loose soft-bounds fit about the symmetry point.
ReRamSB = SoftBoundsReference(
    dw_min=0.002,
    dw_min_std=3.75,
    w_max=1.25,
    w_min=-0.75,
    w_max_dtod=0.24,
    w_min_dtod=0.4,
    write_noise_std=56.0,
)

# Capacitor cell with leakage, fit to Li et al., VLSI 2018. The lifetime counts events, one per
# `batch` samples: it depends on how long those take and is the user's to set.
Capacitor = LinearStep(
    dw_min=0.005,
    dw_min_dtod=0.1,
    up_down_dtod=0.06,
    w_max=1.0,
    w_min=-1.0,
    w_max_dtod=0.07,
    w_min_dtod=0.07,
    lifetime=1e6,
    lifetime_dtod=0.3,
    gamma_up=0.05,
    gamma_down=0.05,
    gamma_up_dtod=0.01,
    gamma_down_dtod=0.01,
    mult_noise=False,
)

# Lithium ECRAM, fit to Tang et al., IEDM 2018; the range is shifted so that 0 is symmetric.
EcRam = LinearStep(
    dw_min=0.002,
    dw_min_dtod=0.1,
    w_max=1.1724,
    w_min=-0.8276,
    w_max_dtod=0.05,
    w_min_dtod=0.05,
    gamma_up=0.1153,
    gamma_down=0.5085,
)

# Metal-oxide ECRAM, fit to Kim et al., IEDM 2019.
EcRamMO = LinearStep(
    dw_min=2.8214e-4,
    dw_min_dtod=0.1,
    dw_min_std=2.0,
    w_max=1.1714,
    w_min=-0.8286,
    w_max_dtod=0.05,
    w_min_dtod=0.05,
    gamma_up=0.4152,
    gamma_down=0.7342,
)

# ReRAM arrays of Gong, Rasch et al., IEDM 2022, symmetry points subtracted with an error of 5 %.
# Range adjusted by compliance; corrupt_devices_prob was .135 (OM) and .098 (HfO2) in the arrays.
_ARRAY: dict[str, Any] = {
    "dw_min_dtod_log_normal": True,
    "w_max": 1.0,
    "w_min": -1.0,
    "corrupt_devices_range": 0.01,
    "reference_std": 0.05,
    "subtract_symmetry_point": True,
}
ReRamArrayOM = SoftBoundsReference(  # optimised material
    dw_min=0.0949,
    dw_min_dtod=0.7829,
    dw_min_std=0.4158,
    w_max_dtod=0.3499,
    w_min_dtod=0.5695,
    write_noise_std=1.4113,
    **_ARRAY,
)
ReRamArrayHfO2 = SoftBoundsReference(  # baseline
    dw_min=0.4622,
    dw_min_dtod=0.7125,
    dw_min_std=0.2174,
    w_max_dtod=0.4295,
    w_min_dtod=0.5990,
    write_noise_std=0.5841,
    **_ARRAY,
)

PRESETS: dict[str, Device] = {
    "gokmen_vlasov": GokmenVlasov,
    "idealized": Idealized,
    "reram_es": ReRamES,
    "reram_sb": ReRamSB,
    "capacitor": Capacitor,
    "ecram": EcRam,
    "ecram_mo": EcRamMO,
    "reram_array_om": ReRamArrayOM,
    "reram_array_hfo2": ReRamArrayHfO2,
}


__all__ = [
    "PRESETS",
    "Capacitor",
    "EcRam",
    "EcRamMO",
    "GokmenVlasov",
    "Idealized",
    "ReRamArrayHfO2",
    "ReRamArrayOM",
    "ReRamES",
    "ReRamSB",
    "advice",
    "canonical",
    "find",
    "get",
    "list",
    "models",
    "named",
    "snake",
]


def list() -> tuple[str, ...]:
    """Names of all presets."""
    return tuple(PRESETS)


def get(name: str) -> Device:
    """The preset of this name.

    Args:
        name: one of :func:`list`.

    Raises:
        ConfigError: there is none; the sentence proposes others.
    """
    if name not in PRESETS:
        raise ConfigError(f"preset is {name!r:.60}; {advice(name, PRESETS)}")
    return PRESETS[name]


def snake(name: str) -> str:
    """SoftBounds -> soft_bounds."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()


def models() -> dict[str, Callable[..., PulsedDevice]]:
    """What builds each pulsed model, by names such as soft_bounds; all have defaults."""
    made: dict[str, Callable[..., PulsedDevice]] = {snake(name): DEVICES[name] for name in DEVICES}
    return made | {"soft_bounds_pmax": SoftBoundsPmax}


def canonical(name: str, known: Iterable[str]) -> str | None:
    """The one of the known names that is meant; case, ``_`` and ``-`` do not matter.

    Args:
        name: what was given. known: what it could be.

    Returns:
        The known spelling; None: there is none.
    """
    return next((one for one in known if _plain(one) == _plain(name)), None)


def _plain(text: str) -> str:
    return text.replace("_", "").replace("-", "").lower()


def advice(name: str, known: Iterable[str], most: int = 100) -> str:
    """How a sentence ends about a name that is not known: what is close to it, or what there is.

    Args:
        name: what was given. known: what it could have been. most: names to list if none is close.
    """
    plain = {_plain(one): one for one in known}
    close = [plain[one] for one in difflib.get_close_matches(_plain(name), plain, 3, 0.6)]
    if close:
        return f"did you mean {' or '.join(close)}?"
    names = [*plain.values()]
    return f"use one of {', '.join(names[:most])}{', ..' if len(names) > most else ''}"


def find(name: str) -> PulsedDevice:
    """A preset, a pulsed model with its defaults, or the device of a file.

    Args:
        name: such as ``soft_bounds`` or ``reram_es``, where case, ``_`` and ``-`` do not matter; or
            of a device file (:func:`pulseline.devices.save`), which ends in ``.json``.

    Raises:
        ConfigError: there is none; the sentence proposes others.
    """
    device = named(name, ideal=False)
    assert isinstance(device, PulsedDevice)
    return device


def named(name: str, ideal: bool = True, argument: str = "device") -> Device:
    """A device by its name, as everything that takes a device takes one.

    Args:
        name: of a preset, of a model with its defaults, or ``ideal``, where case, ``_`` and ``-``
            do not matter; or of a device file, which ends in ``.json``.
        ideal: whether the ideal device is one of them. argument: what the sentence calls it.

    Raises:
        ConfigError: there is none; the sentence proposes others.
    """
    if files.is_file_name(name):
        return load(name)
    made: dict[str, Callable[[], Device]] = {**models(), **({"ideal": Ideal} if ideal else {})}
    known = (*made, *PRESETS)
    found = canonical(name, known)
    if found is None:
        raise ConfigError(f"{argument} is {name!r:.60}; {advice(name, known)}")
    return PRESETS[found] if found in PRESETS else made[found]()

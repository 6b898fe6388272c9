"""The devices on which every matrix of tests runs: those of ``pulseline.devices.DEVICES``.

Nothing here or in a test names models one by one: what a model lists in ``examples()`` is tested.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from pulseline.devices import DEVICES, PulsedDevice

# "SoftBounds" is its defaults, "SoftBounds-1" the next example.
EXAMPLES: dict[str, PulsedDevice] = {
    f"{name}-{n}" if n else name: device
    for name, cls in DEVICES.items()
    for n, device in enumerate(cls.examples())
}
# One of each model, for matrices that are about something else: never the plain one.
LAST: dict[str, PulsedDevice] = {name: cls.examples()[-1] for name, cls in DEVICES.items()}

QUIET: dict[str, Any] = {"dw_min_std": 0.0, "dw_min_dtod": 0.1}


def still(device: PulsedDevice, **values: Any) -> PulsedDevice:
    """The same device at every crosspoint: no spread, none stuck."""
    spreads = [f.name for f in dataclasses.fields(device) if f.name.endswith("_dtod")]
    same = dict.fromkeys((*spreads, *device.other_spreads, "corrupt_devices_prob"), 0.0)
    return dataclasses.replace(device, **{**same, **values})


def silent(device: PulsedDevice) -> PulsedDevice:
    """Without cycle noise, none stuck."""
    return dataclasses.replace(device, corrupt_devices_prob=0.0, **QUIET)


SILENT: dict[str, PulsedDevice] = {}
for _name, _device in EXAMPLES.items():
    if silent(_device) not in SILENT.values():
        SILENT[_name] = silent(_device)

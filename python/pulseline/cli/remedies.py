"""What to change where training ended near chance: the numbers of the device that can be why."""

from __future__ import annotations

from ..devices import Device, PulsedDevice

__all__ = ["FEW", "NOISY", "POOR", "WILD", "remedies"]

POOR = 60.0  # percent right of ten classes
FEW = 200  # states from bound to bound
NOISY = 0.02  # write noise, part of the range
WILD = 1.0  # cycle noise of a step, relative


def remedies(device: Device, lr: float, accuracy: float, algorithm: str = "sgd") -> str:
    """A sentence with an option for each number that can be why.

    Args:
        device: that was trained. lr: learning rate of epoch 1. accuracy: in percent.
        algorithm: that trained it.
    """
    found = []
    if isinstance(device, PulsedDevice):
        width = device.w_max - device.w_min
        states, noise = width / device.dw_min, device.write_noise_std * device.dw_min
        if states < FEW:
            found.append(f"{states:.0f} states between the bounds (--set dw_min=0.001: more)")
        if noise > NOISY * width:
            found.append(
                f"write noise of {noise:.2g} on weights from {device.w_min:g} to {device.w_max:g} "
                "(--set write_noise_std=0: none)"
            )
        if device.dw_min_std > WILD:
            found.append(
                f"pulses that scatter by {device.dw_min_std:g} times their mean "
                "(--set dw_min_std=0.3: less)"
            )
        if algorithm == "sgd":
            found.append("plain pulsed SGD (--algorithm mixed, ttv2 or agad)")
        found.append(
            f"lr {lr:g}, {lr / device.dw_min:.2g} times dw_min (--lr {3 * lr:.3g} or {lr / 3:.3g})"
        )
    else:
        found.append(f"lr {lr:g} (--lr {3 * lr:.3g} or {lr / 3:.3g})")
    return (
        f"test accuracy of {accuracy:.0f} % is low (chance: 10 %); change one of these to see "
        f"which it is: {'; '.join(found)}"
    )

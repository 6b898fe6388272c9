"""Published device fits as data; each name is a function of nothing that returns a device."""

from __future__ import annotations

from .devices import ConstantStep

# Gokmen & Vlasov 2016, "Acceleration of deep neural network training with resistive cross-point
# devices": the baseline RPU device.
GokmenVlasov = ConstantStep(dw_min=0.0016, w_max=1.0, w_min=-1.0)

# The same device with fine, symmetric steps.
Idealized = ConstantStep(dw_min=2e-4, w_max=1.0, w_min=-1.0, up_down_dtod=0.0)

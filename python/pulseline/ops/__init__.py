"""Operators on crossbars, registered with torch; the only importers of the compiled modules.

Schemas, checks, dispatch and fake kernels (for torch.compile and FakeTensor). Settings cross by
name (:mod:`.layout`). Nothing is kept between calls: what one call leaves to another belongs to an
object of the caller, a :class:`Batch`, :class:`Outcomes` or :class:`Resident`.
"""

from __future__ import annotations

from .buffered import count_columns_
from .checks import (
    check_finite,
    check_taps,
    check_tensor,
    is_finite,
    refuse_matrix,
    refuse_traced,
    refuse_value,
)
from .crosspoints import (
    DEVICE_INDEX,
    FIELDS,
    FLAT,
    construct,
    construct_pairs,
    construct_retention,
    initial_normals,
)
from .cuda.batch import Batch
from .cuda.outcomes import Outcomes
from .environment import check_environment, info, use_isa
from .layout import (
    FIDELITY_INDEX,
    NUMBERING,
    PURPOSES,
    ConverterSettings,
    Counters,
    CountSettings,
    DrawKey,
    PulseSettings,
    ReadKey,
    ReadSettings,
    UpdateKey,
)
from .library import direct
from .read import read_, read_chain_
from .resident import Resident
from .retention import disturb_, drift_log2, redraw_, reset_, retain_
from .transfer import DRAWS, MOST_COUNTED, convert, pulse_, uniforms
from .unfold import Unfolding, fold_, unfold
from .update import update_
from .wires import wire_currents

__all__ = [
    "DEVICE_INDEX",
    "DRAWS",
    "FIDELITY_INDEX",
    "FIELDS",
    "FLAT",
    "MOST_COUNTED",
    "NUMBERING",
    "PURPOSES",
    "Batch",
    "ConverterSettings",
    "CountSettings",
    "Counters",
    "DrawKey",
    "Outcomes",
    "PulseSettings",
    "ReadKey",
    "ReadSettings",
    "Resident",
    "Unfolding",
    "UpdateKey",
    "check_environment",
    "check_finite",
    "check_taps",
    "check_tensor",
    "construct",
    "construct_pairs",
    "construct_retention",
    "convert",
    "count_columns_",
    "direct",
    "disturb_",
    "drift_log2",
    "fold_",
    "info",
    "initial_normals",
    "is_finite",
    "pulse_",
    "read_",
    "read_chain_",
    "redraw_",
    "refuse_matrix",
    "refuse_traced",
    "refuse_value",
    "reset_",
    "retain_",
    "unfold",
    "uniforms",
    "update_",
    "use_isa",
    "wire_currents",
]

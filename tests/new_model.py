"""A device model that nobody needs, as the four things that CONTRIBUTING.md asks for.

ParabolicStep: ``s (1 - c z^2)``, z from -1 to 1 over a crosspoint's own range.
"""

from __future__ import annotations

from pathlib import Path

HEADER = """#pragma once
// ParabolicStep: the step is largest in the middle of the range.
//   up:   w += s_up   (1 - c z^2) (1 + sigma xi)      down: w -= s_down (1 - c z^2) (1 + sigma xi)
//   z = 2 (w - w_min_ij) / (w_max_ij - w_min_ij) - 1
#include "core/devices/pulsed.h"

namespace pulseline {

struct ParabolicStep : ProportionalNoise {
  static constexpr const char* kName = "ParabolicStep";
  static constexpr const char* kFields = PULSELINE_PULSED_FIELDS ",curvature";
  static constexpr bool kAffine = false;
  static constexpr bool kLongStep = false;
  static constexpr bool kSlopes = false;
  struct Params {
    PulsedParams pulsed;
    float curvature;
  } p;

  template <class U>
  PL_HD Stored<U> construct(const ParameterDraws<U>& draws) const {
    return construct_pulsed(p.pulsed, draws);
  }
  template <class F>
  PL_HD void prepare(Crosspoint<F>& c) const {
    c.extra_up = F(2.0f) / max(c.hi - c.lo, F(0x1p-40f));
  }
  template <class F, class Up>
  PL_HD F step(const Crosspoint<F>& c, F w, Up up) const {
    const F z = fma(w - c.lo, c.extra_up, F(-1.0f));
    return fma(F(-p.curvature) * z, z, F(1.0f)) * select(up, c.up, c.down);
  }
};

}  // namespace pulseline
"""

DATACLASS = '''"""ParabolicStep: steps that are largest in the middle of the range."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..settings import setting
from .pulsed import PulsedDevice, require


@dataclass(frozen=True)
class ParabolicStep(PulsedDevice):
    """``s (1 - curvature z^2)``, z from -1 to 1 over [lo, hi]."""

    affine: ClassVar[bool] = False

    curvature: float = setting(0.75, inert=0.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 <= self.curvature < 1, self, "curvature", "use a value from 0 to 1")

    def nominal_steps(self) -> tuple[float, float]:
        """Sizes of the mean up and down step at weight 0."""
        up, down = super().nominal_steps()
        z = (self.w_max + self.w_min) / (self.w_max - self.w_min)
        part = 1 - self.curvature * z * z
        return up * part, down * part

    @classmethod
    def examples(cls) -> tuple[PulsedDevice, ...]:
        """The defaults, and a flatter curve with some stuck."""
        return (cls(), cls(curvature=0.5, up_down=0.1, corrupt_devices_prob=0.1))
'''

REFERENCE = '''"""ParabolicStep in plain torch."""

from __future__ import annotations

import torch
from torch import Tensor

from ...devices import ParabolicStep
from ..arithmetic import f32, fma
from .model import Crosspoints, Model, positive


def parabolic_step(device: ParabolicStep, c: Crosspoints, w: Tensor, up: Tensor) -> Tensor:
    """``s (1 - curvature z^2)``."""
    z = fma(w - c.lo, 2.0 / positive(c.hi - c.lo), f32(-1.0))
    part = fma(-f32(device.curvature) * z, z, f32(1.0))
    return part * torch.where(up, c.up, c.down)


MODEL = Model(parabolic_step)
'''

CLOSED_FORM = '''

def parabolic_step(device: Any, c: Crosspoints, w: Tensor, n: int, up: bool) -> Expected:
    """``s (1 - curvature z^2)``; z is good to 4e-7."""

    def step(w: Tensor) -> Tensor:
        z = 2 * (w - c.lo) / (c.hi - c.lo) - 1
        return (c.up if up else c.down) * (1 - device.curvature * z * z)

    return repeated(step, c, w, n, 2e-6 * device.dw_min)
'''


def _line(file: Path, after: str, text: str) -> None:
    """Put a line below the only one that begins with ``after``."""
    lines = file.read_text().splitlines()
    (at,) = [i for i, line in enumerate(lines) if line.startswith(after)]
    file.write_text("\n".join([*lines[: at + 1], text, *lines[at + 1 :], ""]))


def add(root: Path) -> None:
    """The four things, in a copy of the tree."""
    core, python = root / "csrc" / "core" / "devices", root / "python" / "pulseline"
    # 1. a header and its name in list.h
    (core / "parabolic_step.h").write_text(HEADER)
    models = core / "list.h"
    _line(
        models, '#include "core/devices/linear_step.h"', '#include "core/devices/parabolic_step.h"'
    )
    text = models.read_text()
    assert text.count("X(PiecewiseStep)") == 1
    models.write_text(text.replace("X(PiecewiseStep)", "X(PiecewiseStep) X(ParabolicStep)"))
    # 2. a dataclass, listed beside the others
    (python / "devices" / "parabolic_step.py").write_text(DATACLASS)
    listed = python / "devices" / "__init__.py"
    _line(listed, "from .measured import", "from .parabolic_step import ParabolicStep")
    _line(listed, "        PiecewiseStep,", "        ParabolicStep,")
    _line(listed, '    "LinearStep",', '    "ParabolicStep",')
    # 3. the same step in plain torch
    (python / "reference" / "devices" / "parabolic_step.py").write_text(REFERENCE)
    # 4. what n pulses do
    forms = root / "tests" / "closed_forms.py"
    forms.write_text(forms.read_text() + CLOSED_FORM)

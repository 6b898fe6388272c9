"""Figures of one device and of one read (matplotlib, imported where used)."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ..devices import MeasuredFit
from .measured import Sweeps

__all__ = ["Product", "Response", "device_figure", "measured_figure", "read_figure"]

_UP, _DOWN, _GREY = "#1f6fb4", "#c8553d", "0.55"


class Response(NamedTuple):
    """What pulses do to some devices.

    weights: (2 pulses + 1, devices), up pulses first. grid: weights at which steps (2, grid,
    devices; up, down; NaN outside a device's bounds) were taken.
    """

    weights: Tensor
    pulses: int
    grid: Tensor
    steps: Tensor

    def symmetry_points(self) -> Tensor:
        """Weights at which up and down step are equal, of the devices that have one inside."""
        difference = self.steps[0] - self.steps[1]
        found = []
        for column in difference.t():
            known = torch.isfinite(column)
            w, d = self.grid[known], column[known]
            turns = torch.nonzero((d[:-1] > 0) & (d[1:] <= 0))
            if len(turns):
                n = int(turns[0])
                part = float(d[n] / (d[n] - d[n + 1]))
                found.append(float(w[n]) + part * float(w[n + 1] - w[n]))
        return torch.tensor(found, dtype=torch.float32, device="cpu")


class Product(NamedTuple):
    """Outputs (samples, outputs) in float64."""

    ideal: Tensor
    analog: Tensor


def device_figure(found: Response, title: str, path: Path) -> None:
    """Response curves on the left, the step against the weight on the right."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.4), layout="constrained")
    curves, steps = figure.subplots(1, 2)
    figure.suptitle(title)
    pulses = found.pulses
    number = list(range(2 * pulses + 1))
    parts = ((_UP, "up", slice(pulses + 1)), (_DOWN, "down", slice(pulses, None)))
    for n, device in enumerate(found.weights.t().tolist()):
        # one device stands out: in a crowd of noisy ones no curve could be followed
        look = {"linewidth": 0.6, "zorder": 3} if n == 0 else {"linewidth": 0.4, "alpha": 0.2}
        for colour, name, part in parts:
            label = f"{name}, one device" if n == 0 else None
            curves.plot(number[part], device[part], color=colour, label=label, **look)
    mean = found.weights.mean(1).tolist()
    curves.plot(number, mean, color="black", linewidth=1.8, label="mean", zorder=4)
    curves.axvline(pulses, color=_GREY, linewidth=0.8, linestyle=":")
    curves.set_xlim(0, 2 * pulses)
    curves.set_xlabel(f"pulses ({pulses:,} up, then {pulses:,} down)")
    curves.set_ylabel("weight that is read (normalised)")
    _steps(steps, found)
    points = found.symmetry_points()
    if len(points):
        middle = float(points.mean())
        steps.axvline(
            middle,
            color="black",
            linewidth=1,
            linestyle="--",
            label=f"symmetry point {middle:+.3f}",
        )
        curves.axhline(middle, color="black", linewidth=1, linestyle="--", label="symmetry point")
    for axes in (curves, steps):
        axes.grid(alpha=0.25)
        axes.legend(loc="best", framealpha=0.9)
    figure.savefig(path, dpi=150, format="png")


def _steps(axes: object, found: Response) -> None:
    """Up and down steps of every device, and their means where nearly all devices have one."""
    grid = found.grid.tolist()
    known = torch.isfinite(found.steps)
    for row, (colour, label) in enumerate(((_UP, "up"), (_DOWN, "down"))):
        for device in found.steps[row].t().tolist():
            axes.plot(grid, device, color=colour, linewidth=0.6, alpha=0.3)  # type: ignore[attr-defined]
        many = known[row].float().mean(1) >= 0.8
        mean = torch.where(many, found.steps[row].nanmean(1), float("nan"))
        axes.plot(grid, mean.tolist(), color=colour, linewidth=2.2, label=label)  # type: ignore[attr-defined]
    axes.set_xlabel("weight (normalised)")  # type: ignore[attr-defined]
    axes.set_ylabel("size of one pulse's step")  # type: ignore[attr-defined]
    sizes = found.steps[known]
    top = 1.25 * float(sizes.quantile(0.98)) if len(sizes) else 0.0  # a few devices stand out
    axes.set_ylim(0, top or 1.0)  # type: ignore[attr-defined]


def measured_figure(fit: MeasuredFit, sides: tuple[Sweeps, Sweeps], title: str, path: Path) -> None:
    """Measured sweeps under the fit's simulated spread, and steps against the weight."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 4.4), layout="constrained")
    figure.suptitle(title)
    rises, falls, steps = figure.subplots(1, 3)
    rises.sharey(falls)
    for axes, side, colour, word in zip(
        (rises, falls), sides, (_UP, _DOWN), ("up", "down"), strict=True
    ):
        for n, (pulses, weights) in enumerate(side.measured):
            label = f"measured, {len(side.measured)} sweeps" if n == 0 else None
            axes.plot(pulses, weights, color=colour, linewidth=0.5, alpha=0.4, label=label)
        band = {"color": "black", "alpha": 0.15, "linewidth": 0, "zorder": 3}
        label = "simulated, 5 to 95 % of devices"
        axes.fill_between(side.pulses, side.low, side.high, label=label, **band)
        axes.plot(side.pulses, side.mean, color="black", linewidth=1.6, label="their mean")
        axes.set_xlabel(f"{word} pulses")
        axes.set_ylabel("weight, -1 to 1 over the mean range")
        look = {"color": colour, "markersize": 3, "linewidth": 0.8}
        steps.errorbar(
            side.places, side.steps, side.errors, fmt="o", label=f"{word}, measured", **look
        )
        last = len(side.curve) - 1
        nodes = [2 * n / last - 1 for n in range(last + 1)]
        steps.plot(nodes, side.curve, color=colour, linewidth=2, label=f"{word}, fitted")
    if fit.symmetry_point is not None:
        label = f"symmetry point {fit.symmetry_point:+.3f}"
        steps.axvline(fit.symmetry_point, color="black", linewidth=1, linestyle="--", label=label)
    steps.axhline(0, color=_GREY, linewidth=0.8)
    top = max(float(side.curve.max()) for side in sides)
    steps.set_ylim(-0.2 * top, 1.8 * top)
    steps.set_xlabel("weight")
    steps.set_ylabel("step of one pulse")
    steps.legend(loc="upper center", ncols=2, fontsize=8)
    for axes in (rises, falls):
        axes.legend(loc="best", framealpha=0.9)
    for axes in (rises, falls, steps):
        axes.grid(alpha=0.25)
    figure.savefig(path, dpi=150, format="png")


def read_figure(found: Product, title: str, path: Path) -> None:
    """Analog against ideal outputs, and the histogram of the difference."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.4), layout="constrained")
    figure.suptitle(title)
    cloud, errors = figure.subplots(1, 2)
    ideal, analog = found.ideal.flatten(), found.analog.flatten()
    error = analog - ideal
    every = max(1, len(ideal) // 5000)
    reach = 1.05 * float(torch.cat([ideal.abs(), analog.abs()]).max()) or 1.0
    cloud.plot(
        [-reach, reach], [-reach, reach], color="black", linewidth=1, zorder=3, label="ideal"
    )
    cloud.plot(
        ideal[::every].tolist(),
        analog[::every].tolist(),
        ".",
        color=_UP,
        markersize=3,
        alpha=0.35,
        markeredgewidth=0,
        label="analog",
    )
    cloud.set_xlim(-reach, reach)
    cloud.set_ylim(-reach, reach)
    cloud.set_aspect("equal")
    cloud.set_xlabel("ideal output (weight x input)")
    cloud.set_ylabel("analog output (weight x input)")
    cloud.legend(loc="upper left", markerscale=3)
    rms, mean = float(error.square().mean().sqrt()), float(error.mean())
    errors.hist(error.tolist(), bins=60, color=_UP, alpha=0.8)
    errors.axvline(0, color="black", linewidth=1)
    errors.set_xlabel("error (analog - ideal)")
    errors.set_ylabel("outputs")
    part = 100 * rms / (float(ideal.square().mean().sqrt()) or 1.0)
    errors.set_title(
        f"rms {rms:.3g} ({part:.3g} % of the ideal outputs' rms), mean {mean:+.2g}", fontsize=10
    )
    for axes in (cloud, errors):
        axes.grid(alpha=0.25)
    figure.savefig(path, dpi=150, format="png")

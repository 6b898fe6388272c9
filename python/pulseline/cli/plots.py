"""Figures: accuracy curves and Gantt charts (matplotlib, imported where used)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ..schedules.timeline import COLOURS, gantt
from ..train import Run

__all__ = ["accuracy_figure", "gantt_figure"]


def accuracy_figure(runs: Mapping[str, Run], path: Path) -> None:
    """Two panels, test accuracy in percent against samples and against clock cycles."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    by_samples, by_cycles = figure.subplots(1, 2, sharey=True)
    for name, run in runs.items():
        right = [epoch.accuracy for epoch in run.epochs]
        by_samples.plot([epoch.samples for epoch in run.epochs], right, marker=".", label=name)
        by_cycles.plot([epoch.cycles for epoch in run.epochs], right, marker=".", label=name)
    by_samples.set_xlabel("samples")
    by_cycles.set_xlabel("clock cycles")
    by_samples.set_ylabel("test accuracy (%)")
    for axes in (by_samples, by_cycles):
        axes.grid(alpha=0.3)
    by_cycles.legend()
    figure.savefig(path, dpi=150)


def gantt_figure(runs: Mapping[str, Run], path: Path) -> None:
    """One Gantt per run over its first clock cycles, on a common clock."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    figure = Figure(figsize=(12, 2 + 1.6 * len(runs)), layout="constrained")
    panels = figure.subplots(len(runs), 1, sharex=True, squeeze=False)[:, 0]
    for axes, (name, run) in zip(panels, runs.items(), strict=True):
        gantt(axes, run.events, name)
        axes.label_outer()
    names = {"F": "forward", "B": "backward", "U": "update"}
    handles = [Patch(color=COLOURS[kind], label=label) for kind, label in names.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    figure.savefig(path, dpi=150)

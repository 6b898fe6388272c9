"""Figures: accuracy curves and Gantt charts (matplotlib, imported where used)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..schedules.timeline import COLOURS, gantt
from ..train import Run

__all__ = ["accuracy_figure", "gantt_figure"]


_TICKS = [10, 50, 80, 90, 95, 98, 99, 99.5]  # percent


def _even(accuracy: Any) -> Any:
    """-log10 of the error in percent, at least .1 %."""
    return -np.log10(np.maximum(100 - np.asarray(accuracy, float), 0.1))


def accuracy_figure(runs: Mapping[str, Sequence[Run]], path: Path) -> None:
    """Two panels, test accuracy in percent against samples and against clock cycles.

    Several runs of a name, of one seed each, are their mean in a band from the lowest to the
    highest.
    """
    from matplotlib.figure import Figure

    best = max(
        (e.accuracy for held in runs.values() for run in held for e in run.epochs), default=0
    )
    figure = Figure(figsize=(10, 4), layout="constrained")
    by_samples, by_cycles = figure.subplots(1, 2, sharey=True)
    for name, seeds in runs.items():
        right = [[epoch.accuracy for epoch in run.epochs] for run in seeds]
        samples, cycles = ([e[n] for e in seeds[0].epochs] for n in range(2))
        starts = [run.start for run in seeds if run.start is not None]
        if len(starts) == len(seeds):
            right = [[start, *rest] for start, rest in zip(starts, right, strict=True)]
            samples, cycles = [0, *samples], [0, *cycles]
        columns = [*zip(*right, strict=True)]
        for axes, x in ((by_samples, samples), (by_cycles, cycles)):
            mean = [sum(column) / len(column) for column in columns]
            (line,) = axes.plot(x, mean, marker=".", label=name)
            if len(seeds) > 1:
                low, high = [min(c) for c in columns], [max(c) for c in columns]
                axes.fill_between(x, low, high, color=line.get_color(), alpha=0.25, linewidth=0)
    by_samples.set_xlabel("samples")
    by_cycles.set_xlabel("clock cycles")
    by_samples.set_ylabel("test accuracy (%)")
    for axes in (by_samples, by_cycles):
        axes.grid(alpha=0.3)
        # even in the logarithm of the error: chance and the last digits in one picture
        axes.set_yscale("function", functions=(_even, lambda y: 100 - 10**-y))
        axes.set_yticks([one for one in _TICKS if one <= best] or _TICKS[:1])
        axes.set_yticklabels([f"{tick:g}" for tick in axes.get_yticks()])
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

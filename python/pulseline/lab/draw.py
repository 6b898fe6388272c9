"""What the figures share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .statistics import Interval

__all__ = ["bars", "new_figure", "plain_ticks"]


def plain_ticks(axis: Any, values: Sequence[float]) -> None:
    """Label a logarithmic axis at these values, as plain numbers, and nowhere else."""
    from matplotlib.ticker import FixedLocator, FormatStrFormatter, NullLocator

    axis.set_major_locator(FixedLocator(list(values)))
    axis.set_major_formatter(FormatStrFormatter("%g"))
    axis.set_minor_locator(NullLocator())


def new_figure(title: str, panels: int = 2, rows: int = 1) -> tuple[Any, Any]:
    """A figure with a title and ``rows`` of panels side by side, each with a grid; flat axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.5 * panels, 1 + 3.2 * rows), layout="constrained")
    figure.suptitle(title)
    axes = figure.subplots(rows, panels, squeeze=False).ravel()
    for one in axes:
        one.grid(alpha=0.3)
    return figure, axes


def bars(axis: Any, x: Sequence[float], found: Sequence[Interval], style: str, **kind: Any) -> None:
    """Means with their 95 % intervals."""
    means = [one.mean for one in found]
    below = [min(one.mean - one.low, abs(one.mean)) for one in found]
    above = [min(one.high - one.mean, abs(one.mean)) for one in found]
    axis.errorbar(x, means, yerr=[below, above], fmt=style, capsize=2, **kind)

"""One event list, three views: a text grid, a Gantt chart, a Perfetto/Chrome trace.

Events come from ``Schedule.events`` (planned) or ``Pipeline.events`` (recorded) in clock cycles,
or as spans with start and end: measured in seconds (``Pipeline.spans``) or modelled in
nanoseconds (``timing.modelled_spans``). All views take both kinds.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from .ops import Event, Span

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["COLOURS", "chrome_trace", "gantt", "text_grid", "write_gantt", "write_timelines"]

# Okabe and Ito (2008): blue, orange and green that colour-blind readers tell apart.
COLOURS = {"F": "#56B4E9", "B": "#E69F00", "U": "#009E73"}

_DIGITS = 160  # of micro-batch numbers that stand apart from each other in a row
_UPDATE = 0.1  # share of its cycle in which an update is drawn


class _Bar(NamedTuple):
    """An operation as it is drawn; ``cycle`` is -1 for spans."""

    start: float
    end: float
    stage: int
    kind: str
    mb: int
    version: int
    cycle: int


def _bars(events: Iterable[Event | Span]) -> list[_Bar]:
    """Everything as bars, by start; spans count from the first one's start."""
    bars = []
    for event in events:
        if isinstance(event, Event):
            t, stage, kind, mb, version = event
            start, end = (t + 1 - _UPDATE, t + 1.0) if kind == "U" else (t, t + 1 - _UPDATE)
            bars.append(_Bar(start, end, stage, kind, mb, version, t))
        else:
            stage, kind, mb, version, t0, t1 = event
            bars.append(_Bar(t0, t1, stage, kind, mb, version, -1))
    bars.sort(key=lambda bar: bar.start)
    if bars and bars[0].cycle < 0:
        zero = bars[0].start
        bars = [bar._replace(start=bar.start - zero, end=bar.end - zero) for bar in bars]
    return bars


def _beside(bars: Sequence[_Bar]) -> set[int]:
    """Stages whose updates overlap with their passes: those on a crossbar of their own."""
    found: set[int] = set()
    ends: dict[tuple[int, bool], float] = {}
    for bar in bars:
        is_update = bar.kind == "U"
        if bar.cycle < 0 and bar.start < ends.get((bar.stage, not is_update), bar.start):
            found.add(bar.stage)
        ends[bar.stage, is_update] = bar.end
    return found


def text_grid(events: Iterable[Event]) -> str:
    """One row per stage, one column per clock cycle: ``F3``, ``B0``, ``.`` for idle.

    ``*`` after a backward pass: the stage updates its weights at the end of that cycle. A stage
    that does both passes in one cycle shows ``F3/B0``.
    """
    cells: dict[tuple[int, int], str] = {}
    stages = cycles = 0
    for cycle, stage, kind, mb, _ in sorted(events, key=lambda e: (e.cycle, e.stage)):
        stages, cycles = max(stages, stage), max(cycles, cycle + 1)
        here = cells.get((stage, cycle), "")
        if kind == "U":
            cells[stage, cycle] = here + "*"
        else:
            cells[stage, cycle] = f"{here}/{kind}{mb}" if here else f"{kind}{mb}"
    rows = [["cycle", *map(str, range(cycles))]]
    for m in range(1, stages + 1):
        rows.append([f"stage {m}", *(cells.get((m, t), ".") for t in range(cycles))])
    widths = [max(len(row[column]) for row in rows) for column in range(cycles + 1)]
    lines = (
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    )
    return "\n".join(line.rstrip() for line in lines)


def gantt(
    axes: Axes,
    events: Iterable[Event | Span],
    title: str = "",
    scale: float = 1.0,
    unit: str = "clock cycle",
) -> None:
    """Draw the events: a bar per F, B and U, with micro-batch numbers where bars hold them.

    An update closes its cycle as a narrow bar. A stage that does both passes in one cycle shows
    them on two half rows, and so does one whose updates run beside its passes.

    Args:
        axes: of matplotlib. events: in clock cycles, or spans in time. title: above the axes.
        scale: what the times of spans are multiplied with to be in ``unit``.
        unit: written below the axis.
    """
    from matplotlib.patches import Rectangle

    bars = _bars(events)
    beside = _beside(bars)
    busy: dict[tuple[int, int], set[str]] = {}
    for bar in bars:
        busy.setdefault((bar.stage, bar.cycle), set()).add(bar.kind)
    stages = max((bar.stage for bar in bars), default=1)
    last = max((bar.end for bar in bars), default=1.0) * scale
    for bar in bars:
        both = bar.cycle >= 0 and {"F", "B"} <= busy[bar.stage, bar.cycle]
        height = 0.4 if both and bar.kind != "U" else 0.8
        bottom = bar.stage - 0.4 + (0.4 if both and bar.kind == "B" else 0.0)
        if bar.stage in beside:
            height, bottom = 0.4, bar.stage - (0.0 if bar.kind == "U" else 0.4)
        left, right = bar.start * scale, bar.end * scale
        if bar.cycle >= 0 and bar.kind != "U":
            right += _UPDATE
        box = Rectangle((left, bottom), right - left, height)
        box.set(facecolor=COLOURS[bar.kind], edgecolor="white", linewidth=0.5)
        axes.add_patch(box)
        if bar.kind != "U" and right - left > last * len(str(bar.mb)) / _DIGITS:
            middle = left + (right - left) * (0.45 if bar.cycle >= 0 else 0.5)
            axes.text(
                middle, bottom + height / 2, str(bar.mb), ha="center", va="center", fontsize=7
            )
    axes.set_xlim(0, last)
    axes.set_ylim(stages + 0.5, 0.5)
    axes.set_yticks(range(1, stages + 1))
    axes.set_xlabel(unit if unit == "clock cycle" else f"time ({unit})")
    axes.set_ylabel("stage")
    axes.set_title(title)


def chrome_trace(
    events: Iterable[Event | Span], unit_us: float = 1.0, process: str = "", pid: int = 0
) -> dict[str, Any]:
    """The events as a Chrome trace object; ``json.dump`` it and open it in Perfetto.

    One track per stage, and another for updates that run beside its passes. The arguments of a
    slice hold the weight version and, for a B, the staleness (updates since the F of the same
    micro-batch); flow arrows follow each message between neighbouring stages; a counter per stage
    shows the micro-batches in flight.

    Args:
        events: in clock cycles, or spans in time.
        unit_us: microseconds that a clock cycle, or a unit of time, takes in the trace.
        process, pid: name and number of the process that the tracks belong to.

    Returns:
        A mapping that JSON can hold.
    """
    bars = _bars(events)
    tracks = {m: f"stage {m}" for m in sorted({bar.stage for bar in bars})}
    updates = {m: len(tracks) + m for m in sorted(_beside(bars))}
    tracks |= {track: f"stage {m}, updates" for m, track in updates.items()}
    trace: list[dict[str, Any]] = [
        {"ph": "M", "name": "thread_name", "pid": pid, "tid": m, "args": {"name": name}}
        for m, name in tracks.items()
    ]
    if process:
        trace.append({"ph": "M", "name": "process_name", "pid": pid, "args": {"name": process}})
    version_f = {(bar.stage, bar.mb): bar.version for bar in bars if bar.kind == "F"}
    passes = {(bar.kind, bar.stage, bar.mb): bar for bar in bars if bar.kind != "U"}
    for bar in bars:
        args: dict[str, int] = {"micro_batch": bar.mb, "version": bar.version}
        if bar.cycle >= 0:
            args["cycle"] = bar.cycle
        if bar.kind == "B" and (bar.stage, bar.mb) in version_f:
            args["staleness"] = bar.version - version_f[bar.stage, bar.mb]
        trace.append(
            {
                "ph": "X",
                "name": f"{bar.kind}{bar.mb}",
                "cat": bar.kind,
                "pid": pid,
                "tid": updates.get(bar.stage, bar.stage) if bar.kind == "U" else bar.stage,
                "ts": bar.start * unit_us,
                "dur": (bar.end - bar.start) * unit_us,
                "args": args,
            }
        )
        if bar.kind != "U":
            arrival = passes.get((bar.kind, bar.stage + (1 if bar.kind == "F" else -1), bar.mb))
            if arrival is not None:
                trace += _flow(bar, arrival, unit_us, pid)
    return {"traceEvents": trace + _in_flight(bars, unit_us, pid), "displayTimeUnit": "ms"}


def _flow(sent: _Bar, got: _Bar, unit_us: float, pid: int) -> list[dict[str, Any]]:
    """The arrow from one pass to the neighbour's pass of the same micro-batch."""
    name = f"{sent.kind}{sent.mb}"
    flow = {"name": name, "cat": sent.kind, "pid": pid, "id": f"{pid}.{sent.stage}{name}"}
    start, end = ((bar.start + bar.end) / 2 * unit_us for bar in (sent, got))
    return [
        {"ph": "s", "tid": sent.stage, "ts": start, **flow},
        {"ph": "f", "bp": "e", "tid": got.stage, "ts": end, **flow},
    ]


def _in_flight(bars: Sequence[_Bar], unit_us: float, pid: int) -> list[dict[str, Any]]:
    """Counters: micro-batches between their F and the end of their B, per stage."""
    steps = [(bar.start, 1, bar.stage) for bar in bars if bar.kind == "F"]
    steps += [(bar.end, -1, bar.stage) for bar in bars if bar.kind == "B"]
    count: dict[int, int] = {}
    rows = []
    for time, step, stage in sorted(steps):
        count[stage] = count.get(stage, 0) + step
        name, args = f"in flight at stage {stage}", {"micro-batches": count[stage]}
        rows.append({"ph": "C", "name": name, "pid": pid, "ts": time * unit_us, "args": args})
    return rows


def write_timelines(
    directory: Path,
    events: Sequence[Event | Span],
    modelled: Sequence[Span] = (),
    hardware: str = "hardware",
    micro_batches: int = 16,
) -> list[Path]:
    """Write ``timeline.json`` (Perfetto), ``timeline.png`` and ``timeline.svg``.

    Args:
        directory: that exists.
        events: of the run, in clock cycles or, as spans, in seconds.
        modelled: the same micro-batches on hardware, in ns.
        hardware: its name.
        micro_batches: first ones that the figures show; the trace holds everything.

    Returns:
        The paths.
    """
    cycles = bool(events) and isinstance(events[0], Event)
    own = ("run, clock cycles", 1.0, 1.0, "clock cycle") if cycles else ("run", 1e6, 1e3, "ms")
    panels = [(events, *own)] if events else []
    if modelled:
        panels.append((modelled, f"modelled, {hardware}", 1e-3, 1e-3, "us"))
    rows: list[dict[str, Any]] = []
    for pid, (found, name, unit_us, _, _) in enumerate(panels):
        rows += chrome_trace(found, unit_us, name, pid)["traceEvents"]
    path = directory / "timeline.json"
    path.write_text(json.dumps({"traceEvents": rows, "displayTimeUnit": "ms"}) + "\n")
    first = [
        ([event for event in found if event.mb < micro_batches], name, scale, unit)
        for found, name, _, scale, unit in panels
    ]
    return [path, *write_gantt(directory / "timeline", first)]


def write_gantt(
    stem: Path, panels: Sequence[tuple[Sequence[Event | Span], str, float, str]]
) -> list[Path]:
    """Draw one Gantt chart below the other, as ``stem``.png and .svg.

    Args:
        stem: path without ending. panels: (events, title, scale, unit) each, see :func:`gantt`.

    Returns:
        The paths.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    stages = [max((event.stage for event in events), default=1) for events, *_ in panels]
    height = sum(1.2 + 0.28 * count for count in stages)
    figure = Figure(figsize=(12, 0.8 + height), layout="constrained")
    grid = figure.subplots(max(len(panels), 1), 1, squeeze=False, height_ratios=stages or [1])
    for axes, (events, title, scale, unit) in zip(grid[:, 0], panels, strict=False):
        gantt(axes, events, title, scale, unit)
    names = {"F": "forward", "B": "backward", "U": "update"}
    handles = [Patch(color=COLOURS[kind], label=label) for kind, label in names.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    paths = [stem.with_name(f"{stem.name}{suffix}") for suffix in (".png", ".svg")]
    with rc_context({"svg.hashsalt": "pulseline"}):
        figure.savefig(paths[0], dpi=150)
        figure.savefig(paths[1], metadata={"Date": None})
    return paths

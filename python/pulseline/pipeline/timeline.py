"""One event list, three views: a text grid, a Gantt chart, a Perfetto/Chrome trace.

Events come from ``Schedule.events`` (planned) or ``Pipeline.events`` (recorded).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from .clock import Event

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito (2008): blue, orange and green that colour-blind readers tell apart.
COLOURS = {"F": "#56B4E9", "B": "#E69F00", "U": "#009E73"}


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


def gantt(axes: Axes, events: Iterable[Event], title: str = "") -> None:
    """Draw the events on matplotlib ``axes``: a bar per F and B with its micro-batch number.

    An update is a narrow bar at the end of its cycle. A stage that does both passes in one cycle
    shows them on two half rows.
    """
    from matplotlib.patches import Rectangle

    events = list(events)
    busy: dict[tuple[int, int], set[str]] = {}
    for event in events:
        busy.setdefault((event.stage, event.cycle), set()).add(event.kind)
    stages = max((event.stage for event in events), default=1)
    cycles = max((event.cycle for event in events), default=0) + 1
    for cycle, stage, kind, mb, _ in events:
        both = {"F", "B"} <= busy[stage, cycle]
        height = 0.4 if both and kind != "U" else 0.8
        bottom = stage - 0.4 + (0.4 if both and kind == "B" else 0.0)
        left, width = (cycle + 0.86, 0.14) if kind == "U" else (cycle, 1.0)
        axes.add_patch(
            Rectangle(
                (left, bottom), width, height, facecolor=COLOURS[kind], edgecolor="white", lw=0.5
            )
        )
        if kind != "U":
            axes.text(
                cycle + 0.45, bottom + height / 2, str(mb), ha="center", va="center", fontsize=7
            )
    axes.set_xlim(0, cycles)
    axes.set_ylim(stages + 0.5, 0.5)
    axes.set_yticks(range(1, stages + 1))
    axes.set_xlabel("clock cycle")
    axes.set_ylabel("stage")
    axes.set_title(title)


def chrome_trace(events: Iterable[Event], cycle_us: float = 1.0) -> dict[str, Any]:
    """The events as a Chrome trace object; ``json.dump`` it and open it in Perfetto.

    One track per stage, ``cycle_us`` microseconds per clock cycle. The arguments of a slice hold
    the weight version and, for a B, the staleness (updates since the F of the same micro-batch);
    flow arrows follow each message between neighbouring stages.
    """
    events = sorted(events)
    stages = sorted({event.stage for event in events})
    version_f = {(e.stage, e.mb): e.version for e in events if e.kind == "F"}
    cycle_of = {(e.kind, e.stage, e.mb): e.cycle for e in events}
    trace: list[dict[str, Any]] = [
        {"ph": "M", "name": "thread_name", "pid": 0, "tid": m, "args": {"name": f"stage {m}"}}
        for m in stages
    ]
    for cycle, stage, kind, mb, version in events:
        args: dict[str, int] = {"micro_batch": mb, "version": version, "cycle": cycle}
        if kind == "B" and (stage, mb) in version_f:
            args["staleness"] = version - version_f[stage, mb]
        start, length = (cycle + 0.9, 0.1) if kind == "U" else (float(cycle), 0.9)
        name = f"{kind}{mb}"
        trace.append(
            {
                "ph": "X",
                "name": name,
                "cat": kind,
                "pid": 0,
                "tid": stage,
                "ts": start * cycle_us,
                "dur": length * cycle_us,
                "args": args,
            }
        )
        neighbour = stage + {"F": 1, "B": -1, "U": 0}[kind]
        arrival = cycle_of.get((kind, neighbour, mb))
        if kind != "U" and arrival is not None:
            flow = {"name": name, "cat": kind, "pid": 0, "id": f"{stage}{kind}{mb}"}
            sent, got = (cycle + 0.45) * cycle_us, (arrival + 0.45) * cycle_us
            trace.append({"ph": "s", "tid": stage, "ts": sent, **flow})
            trace.append({"ph": "f", "bp": "e", "tid": neighbour, "ts": got, **flow})
    return {"traceEvents": trace, "displayTimeUnit": "ms"}

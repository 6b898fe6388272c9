"""The ``schedule`` command: a schedule as text grid, Gantt, Perfetto trace, CSV and table."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError
from ..schedules import (
    NAMES,
    Event,
    Schedule,
    Times,
    asynchronous,
    check_times,
    modelled_spans,
    named,
    text_grid,
    to_torch_csv,
    write_timelines,
)
from .arguments import directory, folder, not_negative, whole, writing
from .parser import add_command

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[Any]

__all__ = [
    "TABLE_STAGES",
    "TALLEST",
    "WIDEST",
    "add_parser",
    "grid",
    "parse_depths",
    "parse_times",
    "run",
    "schedule_of",
    "staleness_lines",
    "table",
]

TABLE_STAGES = range(1, 17)
WIDEST, TALLEST = 32, 32  # clock cycles and stages that are printed unless all are asked for


def add_parser(subparsers: Subparsers) -> None:
    """Add ``schedule`` to the commands."""
    show = add_command(
        subparsers,
        "schedule",
        "print and draw a schedule: who computes what in which clock cycle",
        """pulseline schedule --stages 4 --micro-batches 8 --schedule sync
        pulseline schedule --stages 8 --inflight auto --times 100,100,50 --out figures
        pulseline schedule --table""",
        "A cell is a pass of a micro-batch: F3 forward, B3 backward, * an update after it, . idle.",
    )
    show.set_defaults(run=run)
    show.add_argument("--schedule", choices=NAMES, default="async", help="which")
    show.add_argument("--stages", type=whole(1), default=4, metavar="M", help="number of stages")
    show.add_argument(
        "--micro-batches",
        type=whole(1),
        default=8,
        metavar="B",
        help="micro-batches to show, of one update where it is synchronous",
    )
    asyn = show.add_argument_group("asynchronous schedules only")
    asyn.add_argument(
        "--inflight",
        metavar="D,D,..|auto",
        help="most micro-batches between F and B, of each stage; auto: by --times "
        "(default: as many as fill the pipeline)",
    )
    asyn.add_argument(
        "--flush-every",
        type=whole(1),
        metavar="K",
        help="micro-batches between two flushes (default: none)",
    )
    asyn.add_argument(
        "--warmup", type=whole(0), default=0, metavar="K", help="micro-batches run synchronously"
    )
    time = show.add_argument_group("modelled time")
    time.add_argument(
        "--times",
        metavar="F,B,U[/F,B,U..]",
        help="ns of forward, backward and update, for all stages or each (default: clock cycles)",
    )
    time.add_argument(
        "--latency", type=not_negative, default=0.0, metavar="NS", help="ns per message"
    )
    show.add_argument("--table", action="store_true", help="cycles and speed-ups of 1 to 16 stages")
    show.add_argument(
        "--all", action="store_true", help=f"print all of a grid wider than {WIDEST} cells"
    )
    show.add_argument("--json", action="store_true", help="print JSON instead of text")
    show.add_argument(
        "--out",
        type=folder,
        metavar="DIR",
        help="directory of figures, a Perfetto trace (timeline.json) and schedule.csv in torch's "
        "format (default: nothing is written)",
    )


def run(args: argparse.Namespace) -> None:
    """Print the schedule; with ``--out`` also draw it."""
    if args.table:
        print(json.dumps(_rows(args.micro_batches)) if args.json else table(args.micro_batches))
        return
    stages, count = args.stages, args.micro_batches
    times = None if args.times is None else parse_times(args.times, stages)
    plan = schedule_of(args, times)
    out = None if args.out is None else directory(args.out)
    events = plan.events(stages, count)
    spans = [] if times is None else modelled_spans(plan, times, count, args.latency)
    total = max((span.end for span in spans), default=None)
    if args.json:
        print(json.dumps(_facts(plan, stages, count, total), indent=2))
    else:
        print(_text(plan, stages, count, grid(events, args.all), not args.all))
        if total is not None:
            print(f"modelled: {total:g} ns, {total / count:g} ns per micro-batch")
    if out is not None:
        with writing(out / "timeline.json"):
            paths = write_timelines(out, events, spans, micro_batches=count)
        if not plan.full_duplex:
            paths.append(out / "schedule.csv")
            with writing(paths[-1]):
                paths[-1].write_text(to_torch_csv(plan.ops(stages, count)))
        if not args.json:
            print(f"wrote {', '.join(map(str, paths))}")


def grid(events: list[Event], everything: bool = False) -> str:
    """The schedule as text, its first cycles and stages, and how many there are besides."""
    cycles = max((event.cycle for event in events), default=-1) + 1
    stages = max((event.stage for event in events), default=0)
    if everything or (cycles <= WIDEST and stages <= TALLEST):
        return text_grid(events)
    shown = [event for event in events if event.cycle < WIDEST and event.stage <= TALLEST]
    return (
        f"{text_grid(shown)}\n.. the first {min(cycles, WIDEST)} of {cycles} clock cycles and "
        f"{min(stages, TALLEST)} of {stages} stages; --all prints the rest, --out draws it"
    )


def _text(plan: Schedule, stages: int, count: int, cells: str, bounded: bool) -> str:
    numbers = (
        f"{plan.cycles(stages, count)} clock cycles, computation density "
        f"{plan.density(stages, count):.3f}, speed-up {plan.speedup(stages, count):.2f} "
        "(* = update)"
    )
    shown = TALLEST if bounded else stages
    return "\n".join([cells, numbers, staleness_lines(plan, stages, count, shown)])


def _facts(plan: Schedule, stages: int, count: int, total: float | None) -> dict[str, Any]:
    """What is printed, as JSON holds it."""
    return {
        "stages": stages,
        "micro_batches": count,
        "clock_cycles": plan.cycles(stages, count),
        "density": plan.density(stages, count),
        "speedup": plan.speedup(stages, count),
        "in_flight": [plan.inflight(stages, m, count) for m in range(1, stages + 1)],
        "staleness": [plan.staleness(stages, m) for m in range(1, stages + 1)],
        "modelled_ns": total,
    }


def schedule_of(args: argparse.Namespace, times: list[Times] | None) -> Schedule:
    """The schedule that the arguments ask for.

    Args:
        args: of the command line. times: (t_F, t_B, t_U) of every stage; None: not known.

    Raises:
        ConfigError: arguments that do not go together.
    """
    name = args.schedule
    if args.inflight is None and args.flush_every is None and not args.warmup:
        return named(name, args.micro_batches)
    if name not in ("async", "duplex"):
        raise ConfigError(
            f"--schedule is {name} with --inflight, --flush-every or --warmup; use them with async"
        )
    return asynchronous(
        name == "duplex",
        parse_depths(args.inflight),
        args.flush_every,
        warmup=args.warmup,
        micro_batches=args.micro_batches,
        times=times,
        latency=args.latency,
    )


def parse_depths(text: str | None) -> str | list[int] | None:
    """``4,3,2,1`` or ``auto``.

    Raises:
        ConfigError: it is neither.
    """
    if text is None or text == "auto":
        return text
    try:
        return [int(depth) for depth in text.split(",")]
    except ValueError:
        raise ConfigError(f"--inflight is {text!r}; use numbers like 4,3,2,1 or auto") from None


def parse_times(text: str, stages: int) -> list[Times]:
    """``F,B,U`` for all stages, or one such triple per stage with ``/`` between them.

    Args:
        text: of the command line, in ns. stages: how many.

    Raises:
        ConfigError: other numbers of triples or times, or a time that cannot be.
    """
    try:
        found = [tuple(float(t) for t in part.split(",")) for part in text.split("/")]
    except ValueError:
        found = []
    if any(len(triple) != 3 for triple in found) or len(found) not in (1, stages):
        raise ConfigError(
            f"--times is {text!r}; use F,B,U in ns, one for all stages or {stages} with / between"
        )
    times: list[Times] = [(f, b, u) for f, b, u in found]
    times = times * stages if len(times) == 1 else times
    check_times(times)
    return times


def staleness_lines(plan: Schedule, stages: int, count: int, shown: int | None = None) -> str:
    """Per stage: peak of the micro-batches in flight, and how stale its forward passes are."""
    return "\n".join(
        f"stage {m}: in flight {plan.inflight(stages, m, count)}, staleness "
        f"{plan.staleness(stages, m)}"
        for m in range(1, min(stages, shown or stages) + 1)
    )


def _rows(micro_batches: int) -> list[dict[str, Any]]:
    """Cycles per 100 mini-batches and speed-ups over sequential, for 1 to 16 stages."""
    count = 100 * micro_batches
    plans = {name: named(name, micro_batches) for name in NAMES}
    return [
        {"stages": m, "micro_batches": count}
        | {name: [plan.cycles(m, count), plan.speedup(m, count)] for name, plan in plans.items()}
        for m in TABLE_STAGES
    ]


def table(micro_batches: int) -> str:
    """The same as text."""
    rows = [
        f"{100 * micro_batches} micro-batches, clock cycles and speed-up over sequential",
        f"{'stages':>6}" + "".join(f"{name:>20}" for name in NAMES),
    ]
    for row in _rows(micro_batches):
        cells = "".join(f"{f'{row[name][0]:,} ({row[name][1]:.2f})':>20}" for name in NAMES)
        rows.append(f"{row['stages']:6d}{cells}")
    return "\n".join(rows)

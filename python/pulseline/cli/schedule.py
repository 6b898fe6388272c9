"""The ``schedule`` command: a schedule as text grid, Gantt, Perfetto trace, CSV and table."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError
from ..schedules import (
    NAMES,
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

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[Any]

__all__ = [
    "TABLE_STAGES",
    "add_parser",
    "parse_depths",
    "parse_times",
    "run",
    "schedule_of",
    "staleness_lines",
    "table",
]

TABLE_STAGES = range(1, 17)


def add_parser(subparsers: Subparsers) -> None:
    """Add ``schedule`` to the commands."""
    show = subparsers.add_parser("schedule", help="print and draw a schedule")
    show.set_defaults(run=run)
    show.add_argument("--schedule", choices=NAMES, default="async")
    show.add_argument("--stages", type=whole(1), default=4)
    show.add_argument("--micro-batches", type=whole(1), default=8)
    asyn = show.add_argument_group("asynchronous schedules only")
    asyn.add_argument("--inflight", metavar="D,D,..|auto", help="depth per stage, or by --times")
    asyn.add_argument("--flush-every", type=whole(1), metavar="K")
    asyn.add_argument("--warmup", type=whole(0), default=0, help="micro-batches run synchronously")
    time = show.add_argument_group("modelled time")
    time.add_argument(
        "--times", metavar="F,B,U[/F,B,U..]", help="ns per stage, one for all or each"
    )
    time.add_argument("--latency", type=not_negative, default=0.0, help="ns per message")
    show.add_argument("--table", action="store_true", help="cycles and speed-ups of 1 to 16 stages")
    show.add_argument(
        "--out", type=folder, metavar="DIR", help="write figures, trace and torch CSV"
    )


def run(args: argparse.Namespace) -> None:
    """Print the schedule; with ``--out`` also draw it."""
    if args.table:
        print(table(args.micro_batches))
        return
    stages, count = args.stages, args.micro_batches
    times = None if args.times is None else parse_times(args.times, stages)
    plan = schedule_of(args, times)
    out = None if args.out is None else directory(args.out)
    events = plan.events(stages, count)
    print(text_grid(events))
    print(
        f"{plan.cycles(stages, count)} clock cycles, computation density "
        f"{plan.density(stages, count):.3f}, speed-up {plan.speedup(stages, count):.2f} "
        "(* = update)"
    )
    print(staleness_lines(plan, stages, count))
    spans = [] if times is None else modelled_spans(plan, times, count, args.latency)
    if spans:
        total = max(span.end for span in spans)
        print(f"modelled: {total:g} ns, {total / count:g} ns per micro-batch")
    if out is not None:
        with writing(out / "timeline.json"):
            paths = write_timelines(out, events, spans, micro_batches=count)
        if not plan.full_duplex:
            paths.append(out / "schedule.csv")
            with writing(paths[-1]):
                paths[-1].write_text(to_torch_csv(plan.ops(stages, count)))
        print(f"wrote {', '.join(map(str, paths))}")


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


def staleness_lines(plan: Schedule, stages: int, count: int) -> str:
    """Per stage: peak of the micro-batches in flight, and how stale its forward passes are."""
    return "\n".join(
        f"stage {m}: in flight {plan.inflight(stages, m, count)}, staleness "
        f"{plan.staleness(stages, m)}"
        for m in range(1, stages + 1)
    )


def table(micro_batches: int) -> str:
    """Cycles per 100 mini-batches and speed-ups over sequential, for 1 to 16 stages."""
    count = 100 * micro_batches
    rows = [
        f"{count} micro-batches, clock cycles and speed-up over sequential",
        f"{'stages':>6}" + "".join(f"{name:>20}" for name in NAMES),
    ]
    for stages in TABLE_STAGES:
        cells = ""
        for name in NAMES:
            plan = named(name, micro_batches)
            cycles, gain = plan.cycles(stages, count), plan.speedup(stages, count)
            cells += f"{f'{cycles:,} ({gain:.2f})':>20}"
        rows.append(f"{stages:6d}{cells}")
    return "\n".join(rows)

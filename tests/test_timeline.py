"""The three views of an event list, of clock cycles and of spans in time."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest

import pulseline.cli
from pulseline.schedules import Span, asynchronous, sequential, synchronous
from pulseline.schedules.timeline import chrome_trace, gantt, text_grid, write_timelines
from pulseline.schedules.timing import modelled_spans

ASYNC_3_4 = """\
cycle    0   1   2   3    4    5    6    7    8    9    10   11
stage 1  F0  .   F1  .    F2   B0*  F3   B1*  .    B2*  .    B3*
stage 2  .   F0  .   F1   B0*  F2   B1*  F3   B2*  .    B3*  .
stage 3  .   .   F0  B0*  F1   B1*  F2   B2*  F3   B3*  .    ."""

DUPLEX_2_2 = """\
cycle    0   1       2       3
stage 1  F0  F1      B0*     B1*
stage 2  .   F0/B0*  F1/B1*  ."""


def test_text_grid() -> None:
    assert text_grid(asynchronous().events(3, 4)) == ASYNC_3_4
    assert text_grid(asynchronous(full_duplex=True).events(2, 2)) == DUPLEX_2_2
    assert text_grid(synchronous(2, "gpipe").events(1, 2)).endswith("F0  F1  B0  B1*")
    assert text_grid([]) == "cycle"


def test_gantt_draws_every_event() -> None:
    from matplotlib.figure import Figure

    for plan in (asynchronous(), sequential(), asynchronous(full_duplex=True)):
        events = plan.events(3, 4)
        axes = Figure().subplots()
        gantt(axes, events, "title")
        assert len(axes.patches) == len(events) == 3 * 4 * 3
        labels = sorted(text.get_text() for text in axes.texts)
        assert labels == sorted(str(event.mb) for event in events if event.kind != "U")
        assert axes.get_xlim() == (0, plan.cycles(3, 4))
    gantt(Figure().subplots(), [])


@pytest.mark.parametrize("count", [8, 32, 60])
def test_numbers_of_micro_batches_stand_apart(count: int) -> None:
    """As drawn: in no row does a number touch the next one."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 5), layout="constrained")
    axes = figure.subplots()
    gantt(axes, asynchronous().events(12, count))
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    rows: dict[float, list[tuple[float, float]]] = {}
    for text in axes.texts:
        box = text.get_window_extent(canvas.get_renderer())
        rows.setdefault(text.get_position()[1], []).append((box.x0, box.x1))
    assert len(rows) == 12
    for spans in rows.values():
        spans.sort()
        assert all(left[1] < right[0] for left, right in pairwise(spans))
    axes = Figure().subplots()
    gantt(axes, asynchronous().events(2, 100))
    assert not axes.texts  # too narrow for any


def test_chrome_trace() -> None:
    stages, count = 3, 6
    trace = json.loads(json.dumps(chrome_trace(asynchronous().events(stages, count), 2.0)))
    rows = trace["traceEvents"]
    slices = [row for row in rows if row["ph"] == "X"]
    assert len(slices) == 3 * stages * count
    named = [row["args"]["name"] for row in rows if row["ph"] == "M"]
    assert named == ["stage 1", "stage 2", "stage 3"]
    for row in slices:
        m, args = row["tid"], row["args"]
        k = args["micro_batch"]
        assert row["name"] == f"{row['cat']}{k}"
        assert row["ts"] // 2.0 == args["cycle"]
        if row["cat"] == "F":
            assert args["version"] == max(0, k - (stages - m))
        if row["cat"] == "B":
            assert args["version"] == k
            assert args["staleness"] == min(k, stages - m)
    starts = {row["id"]: row for row in rows if row["ph"] == "s"}
    ends = {row["id"]: row for row in rows if row["ph"] == "f"}
    assert starts.keys() == ends.keys()
    assert len(starts) == 2 * (stages - 1) * count
    for key, start in starts.items():
        assert abs(start["tid"] - ends[key]["tid"]) == 1
        assert ends[key]["ts"] >= start["ts"] + 2.0


TIMES = [(130.0, 130.0, 310.0), (70.0, 90.0, 310.0), (50.0, 60.0, 70.0)]


def test_counters_show_what_is_in_flight() -> None:
    for events in (asynchronous().events(3, 8), modelled_spans(asynchronous(), TIMES, 8)):
        rows = chrome_trace(events)["traceEvents"]
        for m in (1, 2, 3):
            name = f"in flight at stage {m}"
            counts = [
                row["args"]["micro-batches"]
                for row in rows
                if row["ph"] == "C" and row["name"] == name
            ]
            assert max(counts) == asynchronous().inflight(3, m)
            assert min(counts) >= 0
            assert counts[-1] == 0


def test_spans_give_the_same_trace_in_time() -> None:
    """Times count from the first span; versions, staleness and arrows as for cycles."""
    stages, count = 3, 6
    spans = modelled_spans(asynchronous(), TIMES, count)
    late = [span._replace(start=span.start + 1e4, end=span.end + 1e4) for span in spans]
    trace = chrome_trace(late, 1e-3, "chip", 5)
    assert trace == chrome_trace(spans, 1e-3, "chip", 5)
    rows = trace["traceEvents"]
    assert {row["pid"] for row in rows} == {5}
    assert [row["args"]["name"] for row in rows if row["name"] == "process_name"] == ["chip"]
    slices = {(row["tid"], row["name"]): row for row in rows if row["ph"] == "X"}
    assert len(slices) == 3 * stages * count
    for span in spans:
        row = slices[span.stage, f"{span.kind}{span.mb}"]
        assert row["ts"] == pytest.approx(span.start / 1000)
        assert row["dur"] == pytest.approx((span.end - span.start) / 1000)
        assert row["args"]["version"] == span.version
        assert "cycle" not in row["args"]
        if span.kind == "B":
            assert row["args"]["staleness"] == min(span.mb, stages - span.stage)
    arrows = {(row["id"], row["ph"]): row for row in rows if row["ph"] in "sf"}
    assert len(arrows) == 2 * 2 * (stages - 1) * count
    for (key, phase), row in arrows.items():
        if phase == "s":
            assert row["ts"] < arrows[key, "f"]["ts"]


def test_gantt_of_spans() -> None:
    from matplotlib.figure import Figure

    spans = modelled_spans(synchronous(4), TIMES, 4)
    axes = Figure().subplots()
    gantt(axes, spans, "modelled", 1e-3, "us")
    assert len(axes.patches) == len(spans)
    assert axes.get_xlim()[1] == pytest.approx(max(span.end for span in spans) / 1000)
    assert axes.get_xlabel() == "time (us)"


@pytest.mark.parametrize("measured", [False, True], ids=["cycles", "seconds"])
def test_write_timelines(tmp_path: Path, measured: bool) -> None:
    """The run and the modelled hardware side by side, as two processes of one trace."""
    plan = asynchronous()
    events = plan.events(3, 6)
    spans = [Span(e.stage, e.kind, e.mb, e.version, 7.0 + e.cycle, 7.5 + e.cycle) for e in events]
    modelled = modelled_spans(plan, TIMES, 6)
    paths = write_timelines(tmp_path, spans if measured else events, modelled, "chip", 4)
    assert [path.name for path in paths] == ["timeline.json", "timeline.png", "timeline.svg"]
    rows = json.loads(paths[0].read_text())["traceEvents"]
    names = {row["pid"]: row["args"]["name"] for row in rows if row["name"] == "process_name"}
    assert names == {0: "run" if measured else "run, clock cycles", 1: "modelled, chip"}
    for pid in (0, 1):
        assert sum(row["ph"] == "X" and row["pid"] == pid for row in rows) == 3 * 3 * 6
    first = min(row["ts"] for row in rows if row["ph"] == "X" and row["pid"] == 0)
    assert first == 0
    assert paths[1].read_bytes().startswith(b"\x89PNG")
    drawn = paths[2].read_text()
    assert "<svg" in drawn
    write_timelines(tmp_path, spans if measured else events, modelled, "chip", 4)
    assert paths[2].read_text() == drawn


def test_schedule_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`pulseline schedule --out` prints the grid and writes figures, trace and CSV."""
    words = "schedule --stages 4 --micro-batches 8 --schedule async --times 130,130,310 --out"
    assert pulseline.cli.main([*words.split(), str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "stage 4  .   .   .   F0  B0*" in out
    assert "22 clock cycles, computation density 0.727, speed-up 2.91" in out
    assert "stage 1: in flight 4, staleness 3" in out
    assert "modelled: 5340 ns, 667.5 ns per micro-batch" in out
    names = ("timeline.json", "timeline.png", "timeline.svg", "schedule.csv")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)
    assert all(str(tmp_path / name) in out for name in names)


def test_schedule_command_options(capsys: pytest.CaptureFixture[str]) -> None:
    def run(words: str) -> str:
        assert pulseline.cli.main(["schedule", *words.split()]) == 0
        return capsys.readouterr().out

    auto = run("--inflight auto --times 1,1,0 --latency 1 --stages 3")
    assert "stage 1: in flight 5, staleness 4" in auto
    assert "in flight 7" in run("--inflight 7,4,1 --stages 3")
    assert "28 clock cycles" in run("--warmup 3")
    assert "in flight 2, staleness 3" in run("--flush-every 2")
    assert "6,400 (1.00)" in run("--table")
    assert "1,606 (3.99)" in run("--table")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--inflight 4,x", "--inflight is '4,x'; use numbers like 4,3,2,1 or auto"),
        ("--inflight auto", "inflight is 'auto'"),
        ("--inflight 1,2,3,4", "do not grow towards the last stage"),
        (
            "--schedule sync --warmup 3",
            "--schedule is sync with --inflight, --flush-every or --warmup; use",
        ),
        ("--times 1,2", "--times is '1,2'; use F,B,U in ns"),
        ("--times 1,2,3/4,5,6", "one for all stages or 4 with / between"),
        ("--times 1,2,-3", "use three finite numbers >= 0"),
        ("--latency -1", "--latency: is '-1'; use a number >= 0"),
    ],
)
def test_schedule_command_errors(
    capsys: pytest.CaptureFixture[str], words: str, message: str
) -> None:
    try:
        code = pulseline.cli.main(["schedule", *words.split()])
    except SystemExit as stop:  # argparse's own checks
        code = int(str(stop.code))
    error = capsys.readouterr().err
    assert code == 2
    assert message in error
    assert error.count("\n") == 1

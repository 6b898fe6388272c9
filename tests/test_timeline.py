"""The three views of an event list."""

from __future__ import annotations

import json

from pulseline.pipeline import asynchronous, sequential, synchronous
from pulseline.pipeline.timeline import chrome_trace, gantt, text_grid

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

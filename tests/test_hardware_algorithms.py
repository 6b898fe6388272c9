"""Algorithms on modelled hardware: what cells ask for, by hand; overlap; wear.

Matrices are those of ``algorithm_works.py``, 20 x 30.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from algorithm_works import DEVICE, WORKS, M, N, cell
from pulseline import algorithms as rules
from pulseline import cost
from pulseline.arrays import Array
from pulseline.cells import Cell
from pulseline.configs import UpdateConfig
from pulseline.errors import ConfigError
from pulseline.hardware import (
    Balance,
    Hardware,
    Matrix,
    RunReport,
    StageCost,
    Wear,
    Work,
    asynchronous_ns,
    balance,
    preset,
    sequential_ns,
    stage_cost,
)
from pulseline.nn import AnalogLinear, to_analog
from pulseline.optim import AnalogSGD
from pulseline.pipeline import Pipeline
from pulseline.schedules import (
    Times,
    asynchronous,
    auto_depths,
    chrome_trace,
    modelled_spans,
    run_time,
    sequential,
    stage_time,
    synchronous,
)

# Reads of 130 ns, pulses of 5 ns; a matrix of 20 x 30 lies on 2 x 2 tiles.
CHIP = Hardware(
    name="chip",
    tile_rows=16,
    tile_cols=16,
    t_in_ns=0.0,
    t_int_ns=130.0,
    t_conv_ns=0.0,
    t_pulse_ns=5.0,
    bl=31,
    mac_fj=2.0,
    dac_pj=0.5,
    adc_pj=1.5,
    digital_pj=0.25,
    pulse_fj=4.0,
    line_fj=10.0,
    op_pj=2.0,
    byte_pj=0.5,
)


# ---- what cells ask for ----


@pytest.mark.parametrize("name", WORKS)
def test_work_by_hand(name: str) -> None:
    rule, expected = WORKS[name]
    found = cell(rule).work()
    for field in Work.__dataclass_fields__:
        assert getattr(found, field) == pytest.approx(getattr(expected, field), rel=1e-12), field


def test_every_rule_is_here() -> None:
    known = {type(rule) for rule, _ in WORKS.values()}
    bases = {rules.Chain, rules.Periodic, rules.Rule, rules.Transfer}
    named = {value for name in rules.__all__ if isinstance(value := getattr(rules, name), type)}
    assert {rule for rule in named - bases if issubclass(rule, rules.Rule)} <= known


def test_transfers_that_count_steps() -> None:
    """A transfer each 3 steps of 8 samples, or of 8 x 50 samples: a convolution's positions."""
    one = cell(rules.TikiTaka2(every=3, units="batches"))
    assert one.work().reads == 1 / 3
    assert one.work(8).reads == 1 / 24
    assert cell(rules.TikiTaka1(every=3, units="batches")).work(8).writes == 1 / 24
    assert cell(rules.TikiTaka2(every=3)).work(8).reads == 1 / 3
    assert cell(rules.MixedPrecision(every=3)).work(8).writes == 20 / 24
    conv = to_analog(
        nn.Sequential(nn.Conv2d(2, 3, 1)), DEVICE, algorithm=rules.MixedPrecision(), seed=0
    )
    (found,) = cost.matrices([conv], torch.zeros(4, 2, 5, 10), step=8)[0]
    assert (found.positions, found.work.writes) == (50, 3 / (8 * 50))


def test_a_cell_of_ones_own_counts_as_one_array() -> None:
    class Two(Cell):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            self.add_array()

    assert cell(Two).work() == Work(crossbars=2)
    assert stage_cost(CHIP, [Matrix(M, N, work=Work(crossbars=2))]).busy_ns == 260 + 310


def test_work_is_checked() -> None:
    with pytest.raises(ConfigError, match=r"reads is -1; use a finite number >= 0"):
        Work(reads=-1)
    with pytest.raises(ConfigError, match=r"operations is inf; use a finite number >= 0"):
        Work(operations=float("inf"))


# ---- time and energy ----


def test_plain_numbers_are_those_of_always() -> None:
    """Written down before cells were asked: 3 -> 8 convolution of 256 positions, 512 -> 300."""
    chip = preset("pcm_14nm")
    names = ("forward_ns", "backward_ns", "update_ns")
    names += ("forward_pj", "backward_pj", "update_pj", "line_pj")
    first = stage_cost(chip, [Matrix(8, 27, 256, 31.0, cell(None).work())])
    assert [getattr(first, name) for name in names] == [
        34048.0,
        34048.0,
        79360.0,
        99394.5,
        191050.5,
        99930.112,
        14221.312,
    ]
    second = stage_cost(chip, [Matrix(300, 512, 1, 5.5)])
    assert [getattr(second, name) for name in names] == [
        133.0,
        133.0,
        55.0,
        34069.5,
        42059.25,
        42697.3184,
        457.3184,
    ]
    assert len(second.times()) == 3
    assert second.busy_ns == 133 + 133 + 55


def test_overlap_of_the_update() -> None:
    """max(t_F + t_B + t_write/s, t_U + t_read/s): reads 130 ns, BL 31 of 5 ns, s = 2.

    TTv2 with one pulse a transfer: max(260 + 2*1*5/2, 310 + 130/2) = 375, against 570 of SGD. BL 5:
    max(265, 50 + 65) = 265 against 310. Up to 31 pulses a transfer: 260 + 310/2 = 415.
    """
    plain = stage_cost(CHIP, [Matrix(M, N)])
    assert plain.busy_ns == 570
    assert stage_cost(CHIP, [Matrix(M, N, bl=5)]).busy_ns == 310
    single = cell(rules.TikiTaka2(every=2, max_pulses=1)).work()
    found = stage_cost(CHIP, [Matrix(M, N, bl=31, work=single)])
    assert found.times() == (130, 130, 5, 375)
    assert found.busy_ns == 375
    assert stage_cost(CHIP, [Matrix(M, N, bl=5, work=single)]).busy_ns == 265
    most = cell(rules.TikiTaka2(every=2)).work()
    assert stage_cost(CHIP, [Matrix(M, N, bl=31, work=most)]).busy_ns == 415
    counted = cell(rules.TikiTaka2(every=2)).work(slots={0: 1.5})
    assert stage_cost(CHIP, [Matrix(M, N, bl=31, work=counted)]).update_ns == 7.5
    shown = cell(rules.Residual2(every=2, max_pulses=1)).work()
    assert stage_cost(CHIP, [Matrix(M, N, bl=31, work=shown)]).times() == (130, 130, 380)
    # a plain matrix of the same stage keeps its reads waiting, and the other's crossbar goes on
    both = stage_cost(CHIP, [Matrix(M, N, bl=5), Matrix(M, N, bl=31, work=single)])
    assert both.times() == (260, 260, 50, 375)
    assert found.times(3) == (390, 390, 15, 1125)


def test_energy_of_transfers() -> None:
    """TTv2, s = 2, 3 pulses. On 2 x 2 tiles: 20 rows of two lines, 30 columns of two lines."""
    work = cell(rules.TikiTaka2(every=2, max_pulses=3)).work()
    found = stage_cost(CHIP, [Matrix(M, N, bl=7, work=work)])
    plain = stage_cost(CHIP, [Matrix(M, N, bl=7)])
    # m crosspoints, the two pieces of the column's line, m conversions
    column = 20 * 2.0 / 1000 + 2 * 0.5 + 20 * (1.5 + 0.25)
    assert found.transfer_pj == pytest.approx(column / 2)
    # m coincidences in each of 3 slots; lines in both signs: the column's 2, and 20 rows
    lines = 2 * 3 * (2 + 20) * 10 / 1000
    assert found.line_pj - plain.line_pj == pytest.approx(lines / 2)
    assert found.update_pj - plain.update_pj == pytest.approx((3 * 20 * 4 / 1000 + lines) / 2)
    assert found.digital_pj == pytest.approx(30 * 2.0 + 80 * 0.5)
    assert (found.forward_pj, found.backward_pj) == (plain.forward_pj, plain.backward_pj)
    assert (found.crossbars, found.crosspoints, found.buffer_bytes) == (2, 1200, 2400)
    assert (plain.crossbars, plain.crosspoints, plain.buffer_bytes) == (1, 600, 0)
    assert (plain.transfer_pj, plain.digital_pj, plain.reads, plain.writes) == (0, 0, 0, 0)


def test_energy_of_several_arrays() -> None:
    """Two arrays on one line: crosspoints and drivers twice, conversions once."""
    pair = stage_cost(CHIP, [Matrix(M, N, work=cell(rules.ReferencePair()).work())])
    assert pair.forward_pj == pytest.approx(2 * 600 * 0.002 + 2 * 60 * 0.5 + 40 * 1.75)
    assert pair.backward_pj == pytest.approx(2 * 600 * 0.002 + 2 * 40 * 0.5 + 60 * 1.75)
    plain = stage_cost(CHIP, [Matrix(M, N)])
    assert (pair.update_pj, pair.busy_ns) == (plain.update_pj, plain.busy_ns)
    three = stage_cost(CHIP, [Matrix(M, N, work=cell(rules.Vector(arrays=3)).work())])
    assert three.update_pj == pytest.approx(3 * plain.update_pj)
    assert three.busy_ns == plain.busy_ns
    sided = stage_cost(CHIP, [Matrix(M, N, work=cell(rules.OneSided()).work())])
    assert sided.line_pj == pytest.approx(2 * plain.line_pj)
    assert sided.update_pj - sided.line_pj == pytest.approx(plain.update_pj - plain.line_pj)


def test_cost_of_mixed_precision() -> None:
    """No pulses a sample; each 5 samples 20 rows of up to 3 pulses, 30 ns and 30 crosspoints each.

    Lines in both signs: a row's 2 pieces and 30 columns.
    """
    work = cell(rules.MixedPrecision(every=5, units="samples", max_pulses=3)).work()
    found = stage_cost(CHIP, [Matrix(M, N, work=work)])
    assert found.times() == pytest.approx((130, 130, 4 * 30))
    lines = 2 * 3 * (2 + 30) * 10 / 1000
    assert found.line_pj == pytest.approx(4 * lines)
    assert found.update_pj == pytest.approx(4 * (3 * 30 * 4 / 1000 + lines))
    assert found.digital_pj == pytest.approx((1200 + 360) * 2.0 + 5760 * 0.5)
    assert stage_cost(CHIP, [Matrix(0, N, work=work)]).update_ns == 0


# ---- in the pipeline ----

OWN_UPDATE: Times = (130.0, 130.0, 5.0, 375.0)  # its own crossbar is the slower part
OWN_READS: Times = (130.0, 130.0, 5.0, 115.0)  # its reads are
SHARED: Times = (130.0, 130.0, 310.0)


def period(times: Sequence[Times], count: int = 60, **plan: Any) -> float:
    """Time per micro-batch in the second half of an asynchronous run."""
    spans = modelled_spans(asynchronous(**plan), times, count)
    ends = [span.end for span in spans if (span.stage, span.kind) == (1, "B")]
    return (ends[-1] - ends[count // 2 - 1]) / (count - count // 2)


@pytest.mark.parametrize("stages", [1, 2, 4, 8])
def test_the_longer_part_sets_the_pace(stages: int) -> None:
    """Of an asynchronous pipeline, as the closed form says; alone, all parts follow each other."""
    for stage, slowest in ((OWN_UPDATE, 375), (OWN_READS, 265), (SHARED, 570)):
        times = [stage] * stages
        assert stage_time(stage) == asynchronous_ns(times) == slowest
        assert period(times) == pytest.approx(slowest)
        t_f, t_b, t_u, *beside = stage
        total = run_time(sequential(), times, [1] * 10)
        assert total / 10 == pytest.approx(sequential_ns(stages, t_f, t_b, t_u + sum(beside)))
        # a mini-batch of 8: passes of B + M - 1 samples, then 8 updates and their writes
        passes = (8 + stages - 1) * 260
        total = run_time(synchronous(8), times, [8])
        assert total == pytest.approx(passes + 8 * (t_u + sum(beside)))


def test_modelled_speed_of_two_and_four_stages() -> None:
    """M stages of 375 ns against one after the other, M 260 + 380: 900/375 and 1420/375."""
    for stages, speed in ((2, 900 / 375), (4, 1420 / 375)):
        times = [OWN_UPDATE] * stages
        alone = run_time(sequential(), times, [1] * 100) / 100
        assert alone / period(times) == pytest.approx(speed)
        report = cost.run_report(
            asynchronous(), [StageCost(130, 130, 5, beside_ns=375)] * stages, [400], CHIP
        )
        # 400 samples at 375 ns and the filling: less than 2 M passes more
        assert 375 <= report.time_per_sample_ns <= 375 + (2 * stages * 130 + 380) / 400
        assert max(report.utilisation) == pytest.approx(375 / report.time_per_sample_ns)


def test_spans_of_an_update_on_its_own_crossbar() -> None:
    """Two samples, one stage: pulses of 0 beside F and B of 1; its write; at the end, the other's.

    F 0-2, B 2-4, U 4-9 beside F 4-6, B 6-8; at 9 U of 1 begins, 9-14, with the write of 0 from 9 to
    10; at the flush the write of 1 from 14 to 15.
    """
    spans = modelled_spans(asynchronous(), [(2.0, 2.0, 1.0, 5.0)], 2)
    assert [(s.kind, s.mb, s.start, s.end) for s in spans] == [
        ("F", 0, 0, 2),
        ("B", 0, 2, 4),
        ("U", 0, 4, 9),
        ("F", 1, 4, 6),
        ("B", 1, 6, 8),
        ("U", 1, 9, 15),
    ]
    third = modelled_spans(asynchronous(), [(2.0, 2.0, 1.0, 5.0)], 3)
    assert [(s.start, s.end) for s in third if s.kind == "F"][2] == (10, 12)  # behind that write
    rows = chrome_trace(spans)["traceEvents"]
    tracks = {row["args"]["name"]: row["tid"] for row in rows if row["name"] == "thread_name"}
    assert tracks == {"stage 1": 1, "stage 1, updates": 2}
    assert {row["tid"] for row in rows if row.get("cat") == "U"} == {2}
    plain = chrome_trace(modelled_spans(asynchronous(), [(2.0, 2.0, 1.0)], 2))["traceEvents"]
    assert {row["tid"] for row in plain if row["ph"] in "MX"} == {1}


def test_depths_that_keep_the_slowest_stage_busy() -> None:
    """The least of all depths whose period is the slowest stage's, by trying smaller ones."""
    draw = random.Random(7)
    for _ in range(25):
        times: list[Times] = []
        for _ in range(3):
            t_f, t_b, t_u, beside = (float(draw.randint(1, 9)) for _ in range(4))
            times.append((t_f, t_b, t_u, 2 * beside) if draw.random() < 0.7 else (t_f, t_b, t_u))
        depths = auto_depths(times)
        slowest = max(map(stage_time, times))
        # 200 samples: what is left of the start is below 1 / 100 of a period
        assert period(times, 200, inflight=depths) == pytest.approx(slowest, rel=0.01)
        for m in range(2):
            fewer = list(depths)
            fewer[m] -= 1
            if fewer[m] >= depths[m + 1]:
                assert period(times, 200, inflight=fewer) > slowest * 1.01


def test_balance_with_updates_beside() -> None:
    """A stage takes max(sum of passes and writes, longest of its own crossbars)."""
    times = [(2.0, 2.0, 1.0, 30.0), (3.0, 3.0, 1.0, 4.0), (9.0, 9.0, 2.0), (1.0, 1.0, 1.0, 40.0)]
    assert balance(times, 1) == Balance((4,), (1, 1, 1, 1), (40.0,))
    assert balance(times, 2).slowest == 40
    assert balance(times[:3], 3) == Balance((1, 1, 1), (1, 1, 1), (30.0, 7.0, 20.0))
    assert balance(times[1:3], 1).stage_times == (27.0,)
    # copies shorten passes, not what is beside them
    assert balance(times[:1], 1, replicate=3).stage_times == (30.0,)
    assert balance([(9.0, 9.0, 2.0, 6.0)], 1, replicate=2).stage_times == (8.0,)


# ---- what a run reports ----


def network(rule: Any) -> nn.Sequential:
    layers = [nn.Linear(30, 20), nn.Tanh(), nn.Linear(20, 10)]
    update = UpdateConfig(desired_bl=7)
    net = to_analog(nn.Sequential(*layers), DEVICE, algorithm=rule, update=update, seed=0)
    assert isinstance(net, nn.Sequential)
    return net


def pipeline(rule: Any, stages: int = 2, size: int = 4) -> Pipeline:
    return Pipeline(
        network(rule),
        stages,
        optimizer=lambda parameters: AnalogSGD(parameters, 0.01),
        loss=nn.functional.cross_entropy,
        micro_batch_size=size,
    )


def test_report_of_a_run_with_transfers(monkeypatch: pytest.MonkeyPatch) -> None:
    """TTv2, a transfer each 2 samples, 100 samples of 4: 20 x 30 and 10 x 20.

    Counted: A had 5 slots a sample at the first layer and 3 at the second, C writes of 1.2 and 1.4
    slots. Reads of 130 ns. First stage: max(260 + 2*5*1.2/2, 2*5*5 + 65) = 266.
    """
    pipe = pipeline(rules.TikiTaka2(every=2))
    fired = {
        "0.cell": [[600, 0, 0, 60, 50], [9000, 500, 100, 0, 0]],
        "2.cell": [[100, 0, 0, 70, 50], [3000, 300, 100, 0, 0]],
    }
    monkeypatch.setattr(Pipeline, "segments", property(lambda _: [(25, 0)]), raising=False)
    monkeypatch.setattr(Pipeline, "check_flushed", lambda *_: None)
    for stage in pipe.stages:
        for name, one in stage.module.named_modules():
            if isinstance(one, Cell):
                one.progress["transfers"] = 50
                for array, counts in zip(one.arrays, fired[stage.full_name(name)], strict=True):
                    array.count_pulses()
                    array.fired.copy_(torch.tensor(counts))
    chip = replace(CHIP, endurance=1e6)
    found = cost.report(pipe, chip, torch.zeros(1, 30))
    costs = cost.stage_costs([stage.module for stage in pipe.stages], chip, torch.zeros(1, 30))
    assert [c.times() for c in costs] == [(130, 130, 6, 115), (130, 130, 7, 95)]
    assert found.total_ns == run_time(asynchronous(), [c.times(4) for c in costs], [25])
    assert (found.samples, found.arrays, found.crosspoints) == (100, 4, 2 * 600 + 2 * 200)
    assert (found.transfers, found.reads, found.writes) == (100, 100, 100)
    assert found.operations == 50 * 3 * (20 + 10)
    assert found.buffer_bytes == 4 * (600 + 200)
    assert found.pulses == 600 + 9000 + 100 + 3000
    assert found.update_pj == pytest.approx(
        found.pulses * 4 / 1000 + 100 * sum(c.line_pj for c in costs)
    )
    assert found.wear == (
        Wear("0.cell.arrays.0", 600, 600),
        Wear("0.cell.arrays.1", 600, 9000),
        Wear("2.cell.arrays.0", 200, 100),
        Wear("2.cell.arrays.1", 200, 3000),
    )
    assert [one.per_crosspoint for one in found.wear] == [1, 15, 0.5, 15]
    # 15 pulses in 100 samples, of a million
    assert found.lifetime_samples == pytest.approx(1e6 / 15 * 100)
    text = str(found)
    assert "arrays: 4, 1,600 crosspoints" in text
    assert "transfers: 100 columns moved; modelled: 100 column reads, 100 writes" in text
    assert "digital: 4,500 operations, 3,200 bytes of buffers" in text
    assert (
        "pulses per crosspoint: 0.cell.arrays.1 15, 2.cell.arrays.1 15, 0.cell.arrays.0 1" in text
    )
    assert "endurance: 1e+06 pulses, reached after 6.67e+06 samples" in text
    facts = json.loads(json.dumps(found.as_dict()))
    assert facts["pulses_per_crosspoint"]["0.cell.arrays.1"] == 15
    assert (facts["transfers"], facts["transfer_reads"], facts["transfer_writes"]) == (100,) * 3
    assert (facts["arrays"], facts["digital_operations"], facts["buffer_bytes"]) == (4, 4500, 3200)
    assert facts["endurance"] == 1e6
    spans = cost.timeline(pipe, chip, 4, torch.zeros(1, 30))
    assert spans == modelled_spans(asynchronous(), [c.times(4) for c in costs], 4)


def test_text_of_wear() -> None:
    """The most worn ones by name, and no more of them than a line holds."""
    wear = tuple(Wear(f"a{n}", 10, 10 * n) for n in range(1, 11))
    base = RunReport("chip", "asynchronous", 10, 1.0, 1.0, 1.0, True, (1.0,), wear=wear)
    line = "pulses per crosspoint: a10 10, a9 9, a8 8, a7 7, a6 6, a5 5, a4 4, a3 3, 2 arrays less"
    assert line in str(base)
    assert "endurance: unknown" in str(base)
    assert base.lifetime_samples is None
    some = replace(base, wear=(Wear("c", 10, None), Wear("a", 10, 20)))
    assert "pulses per crosspoint: a 2, c not counted" in str(some)
    assert "pulses per crosspoint" not in str(replace(base, wear=()))
    assert "transfers" not in str(base)


def test_what_arrays_count_of_writes() -> None:
    """Columns of 0, 3 and 2 pulses at most; 7 in all."""
    array = Array(2, 3, DEVICE, seed=0)
    array.count_pulses()
    columns = torch.arange(3, dtype=torch.int32)
    pulses = torch.tensor([[0.0, 3.0, -1.0], [0.0, -1.0, 2.0]])
    array.step(columns, pulses)
    assert array.fired is not None
    assert array.fired.tolist() == [7, 0, 0, 5, 3]
    array.step(columns[:0], pulses[:, :0])
    array.pulse(torch.ones(2, 3), -torch.ones(2, 2), 0.01)
    assert array.fired.tolist()[2:] == [2, 5, 3]


def test_slots_of_the_array_that_takes_updates() -> None:
    """Not of those that are written or stay as they are."""
    pair = AnalogLinear(30, 20, device=DEVICE, algorithm=rules.ReferencePair(), seed=0)
    pair.cell.array.fired = torch.tensor([17, 55, 10, 0, 0])  # type: ignore[attr-defined]
    pair.cell.arrays[1].fired = torch.zeros(5, dtype=torch.int64)
    assert cost.slots(pair.cell, cost.count([pair])) == 5.5
    assert cost.pulses_fired([pair], cost.count([pair])) == 17  # the reference took none
    ttv2 = AnalogLinear(30, 20, device=DEVICE, algorithm=rules.TikiTaka2(), seed=0)
    slow, fast = ttv2.cell.arrays
    fast.fired, slow.fired = torch.tensor([40, 30, 10, 0, 0]), torch.zeros(5, dtype=torch.int64)
    assert cost.slots(ttv2.cell, cost.count([ttv2])) == 3
    assert cost.pulses_fired([ttv2], cost.count([ttv2])) is None  # writes that nobody counted
    assert cost.write_slots(ttv2.cell, cost.count([ttv2])) == {}
    slow.fired = torch.tensor([5, 0, 0, 8, 5])
    assert cost.pulses_fired([ttv2], cost.count([ttv2])) == 45
    assert cost.write_slots(ttv2.cell, cost.count([ttv2])) == {0: 1.6}
    chain = AnalogLinear(30, 20, device=DEVICE, algorithm=rules.TikiTaka1(), seed=0)
    for array, counts in zip(chain.cell.arrays, ([6, 20, 10], [40, 30, 10]), strict=True):
        array.fired = torch.tensor(counts)
    assert cost.slots(chain.cell, cost.count([chain])) == 3
    assert cost.write_slots(chain.cell, cost.count([chain])) == {0: 2.0}


def test_a_layer_that_is_used_twice_has_its_crossbars_once() -> None:
    layer = AnalogLinear(8, 8, device=DEVICE, algorithm=rules.TikiTaka2(), seed=0)
    first, second = cost.matrices([layer, layer], torch.zeros(1, 8))
    assert (first[0].work.crossbars, first[0].work.buffer_bytes) == (2, 256)
    assert (second[0].work.crossbars, second[0].work.buffer_bytes) == (0, 0)
    assert second[0].work.reads == first[0].work.reads


def test_balance_of_a_model_with_algorithms() -> None:
    """By the overlapped times: 30 -> 20 and 20 -> 10 take max(260 + .., ..) each."""
    net = network(rules.TikiTaka2(every=2, max_pulses=1))
    found = cost.balance(net, 2, CHIP)
    assert found.stage_times == (265, 265)  # BL 7: 70 + 65 beside
    plain = cost.balance(network(None), 2, CHIP)
    assert plain.stage_times == (330, 330)
    steps = cost.balance(network(rules.TikiTaka2(units="batches", max_pulses=1)), 2, CHIP, step=10)
    assert steps.stage_times == (261, 261)

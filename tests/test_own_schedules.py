"""Schedules of one's own: lists of operations, and delays that no clock would give."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import delayed
import families
import launch
from executor_cases import outcome
from pulseline.errors import ConfigError
from pulseline.pipeline import Pipeline, checkpoint, staleness
from pulseline.schedules import Delayed, Schedule, asynchronous, from_ops, synchronous
from test_pipeline import COUNT, LR, SIZE, build, trained, weights

KINDS = {"digital": delayed.Digital(), "analog": delayed.Analog()}
SCRIPT = str(Path(__file__).with_name("dist_rank.py"))
# Two stages; the first fills up, the second updates once for two passes.
TWO = ["F0 F1 F2 B0 U0 B1 F3 U1 B2 B3 U3", "F0 B0 F1 B1 U1 F2 B2 U2 F3 B3 U3"]


@pytest.fixture(params=KINDS.values(), ids=KINDS.keys())
def kind(request: pytest.FixtureRequest) -> Any:
    return request.param


def orders(pipe: Pipeline) -> list[list[tuple[str, int]]]:
    """What each stage did, in order."""
    events = pipe.events()
    return [[(e.kind, e.mb) for e in events if e.stage == s.index] for s in pipe.stages]


# ---- lists of operations ----


@pytest.mark.parametrize("stages", [1, 2, 3, 4])
@pytest.mark.parametrize("cut", [1, 5, COUNT])
def test_the_list_of_a_schedule_is_that_schedule(kind: Any, stages: int, cut: int) -> None:
    """As text or as operations, for the whole run or for one of its segments."""
    x, y = delayed.samples(COUNT, SIZE)
    for plan, size in (
        (asynchronous(), COUNT),
        (asynchronous(flush_every=6), 6),
        (asynchronous(full_duplex=True), COUNT),
        (synchronous(8), 8),
        (synchronous(8, "gpipe"), 8),
    ):
        want = trained(build(kind, stages, plan), x, y)
        programs = plan.ops(stages, size)
        texts = [" ".join(f"{op.kind}{op.mb}" for op in p if op.kind != "flush") for p in programs]
        for given in (programs, texts):
            mine = from_ops(given)
            got = trained(build(kind, stages, mine), x, y, cut)
            assert weights(kind, got) == weights(kind, want)
            assert orders(got) == orders(want)
            assert staleness(got) == staleness(want)
            assert [n for n, _ in got.segments] == [n for n, _ in want.segments]
            assert got.cycles == mine.cycles(stages, COUNT)


def any_program(stages: int, size: int, random: random.Random) -> list[str]:
    """An order that some clock could give: whatever can run next, one at a time, by chance."""
    done = [{"F": 0, "B": 0, "U": 0} for _ in range(stages)]
    found: list[list[str]] = [[] for _ in range(stages)]
    while any(one["U"] < size for one in done):
        choices = []
        for m, one in enumerate(done):
            if one["F"] < size and (m == 0 or done[m - 1]["F"] > one["F"]):
                choices.append((m, "F"))
            last = m == stages - 1
            if one["B"] < one["F"] and (last or done[m + 1]["B"] > one["B"]):
                choices.append((m, "B"))
            if one["U"] < one["B"]:
                choices.append((m, "U"))
        m, kind = random.choice(choices)
        number = done[m]["B"] - 1 if kind == "U" else done[m][kind]
        found[m].append(f"{kind}{number}")
        done[m][kind] = number + 1
    return [" ".join(words) for words in found]


@pytest.mark.parametrize("seed", range(12))
def test_any_order_runs_and_is_what_was_asked_for(kind: Any, seed: int) -> None:
    """Versions, staleness, peak and cycles, as recorded, are those of the list; feeding in parts,
    a short rest at the drain and threads included."""
    chance = random.Random(seed)
    stages, size = chance.randint(1, 4), chance.randint(1, 7)
    plan = from_ops(any_program(stages, size, chance))
    x, y = delayed.samples(COUNT, SIZE)
    with build(kind, stages, plan, executor="threads") as pipe:
        threads = weights(kind, trained(pipe, x, y))
    for cut in (1, 5, COUNT):
        pipe = trained(build(kind, stages, plan), x, y, cut)
        assert weights(kind, pipe) == threads
        assert pipe.cycles == plan.cycles(stages, COUNT)
        assert [n for n, _ in pipe.segments] == plan.segments(COUNT)
        for stage, program in zip(pipe.stages, plan.ops(stages, COUNT), strict=True):
            m = stage.index
            assert orders(pipe)[m - 1] == [(op.kind, op.mb) for op in program if op.kind != "flush"]
            assert stage.peak == plan.inflight(stages, m)
            for one in stage.records:
                if one.mb < COUNT - COUNT % size:
                    used = (one.version_f, one.version_b)
                    assert used == plan.versions(stages, m, one.mb)
            assert max(staleness(pipe)[m - 1]) == plan.staleness(stages, m)
        assert sorted(pipe.events()) == sorted(plan.events(stages, COUNT))


def test_a_step_runs_what_is_decided() -> None:
    """F3 of the first stage waits for micro-batch 3; what comes behind it does too."""
    kind = KINDS["digital"]
    x, y = delayed.samples(COUNT, SIZE)
    pipe = build(kind, 2, from_ops(TWO))
    pipe.step(x[: 3 * SIZE], y[: 3 * SIZE])
    assert orders(pipe)[0] == [("F", 0), ("F", 1), ("F", 2), ("B", 0), ("U", 0), ("B", 1)]
    assert not pipe.flushed
    pipe.drain()  # the rest without micro-batch 3
    assert orders(pipe)[0][6:] == [("U", 1), ("B", 2), ("U", 2)]
    assert orders(pipe)[1][-2:] == [("B", 2), ("U", 2)]
    assert pipe.flushed
    assert staleness(pipe) == [{0: 1, 1: 1, 2: 1}, {0: 3}]


def test_a_short_micro_batch_in_an_update_of_several_counts_by_its_samples() -> None:
    """As in the synchronous schedule of the same order."""
    kind = KINDS["digital"]
    x, y = delayed.samples(4, SIZE)
    plan = synchronous(4)
    want = build(kind, 2, plan)
    want.step(x[:-2], y[:-2])
    want.drain()
    got = build(kind, 2, from_ops(plan.ops(2, 4)))
    got.step(x[:-2], y[:-2])
    got.drain()
    assert weights(kind, got) == weights(kind, want)


@pytest.mark.parametrize(
    ("programs", "told"),
    [
        ([], "programs is empty; give at least one stage"),
        ("F0 B0 U0", "programs is 'F0 B0 U0'; use a list with one text per stage"),
        (["F0 B0 X0"], "stage 1 has operation 'X0'; use F, B or U and a micro-batch, such as F0"),
        (["2F0 B0 U0"], "stage 1 has operation '2F0'"),
        ([""], "stage 1 has no F0; give every stage F and B of the same micro-batches, and a U"),
        (["F1 F0 B0 U0"], "stage 1 has F1 where F0 is due; use another order"),
        (["F0 F0 B0 U0"], "stage 1 has F0 where F1 is due"),
        (["B0 F0 U0"], "stage 1 has B0 before F0"),
        (["F0 F1 B1 B0 U1"], "stage 1 has B1 where B0 is due"),
        (["F0 B0 U1"], "stage 1 has U1 after B0, whose micro-batch it has to name"),
        (["F0 U0 B0"], "stage 1 has U0 after no B, whose micro-batch it has to name"),
        (["F0 B0 U0 U0"], "stage 1 has U0 with nothing to apply"),
        (["F0 B0"], "stage 1 has no U after B0; give every stage"),
        (["F0 F1 B0 U0"], "stage 1 has no B1; give every stage"),
        (["F0 F1 B0 B1 U1", "F0 B0 U0"], "stage 2 has no F1; give every stage"),
        (
            ["F0 B0 U0 F1 B1 U1", "F0 F1 B0 B1 U1"],
            "wait for each other: stage 1 with B0 for stage 2, stage 2 with F1 for stage 1; use",
        ),
    ],
)
def test_wrong_lists_are_refused(programs: Any, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        from_ops(programs)


def test_lists_fit_their_pipeline(tmp_path: Path) -> None:
    kind, plan = KINDS["digital"], from_ops(TWO)
    with pytest.raises(ConfigError, match="lists operations of 2 stages and there are 3; use one"):
        build(kind, 3, plan)
    with pytest.raises(ConfigError, match="operation 1F0 has no closed form"):
        plan.cycle(2, plan.ops(2, 4)[0][0], 4)
    x, y = delayed.samples(4, SIZE)
    pipe = build(kind, 2, plan)
    pipe.step(x, y)
    checkpoint.save(pipe, tmp_path, 1)
    again = build(kind, 2, from_ops(TWO))
    assert checkpoint.load(again, tmp_path) is not None
    assert again.digest() == pipe.digest()
    with pytest.raises(ConfigError, match="was written with programs="):
        checkpoint.load(build(kind, 2, from_ops([TWO[0]] * 2)), tmp_path)


# ---- delays ----


def by_hand(
    kind: Any, stages: int, x: Tensor, y: Tensor, delay: Callable[[int, int], int], start: int = 0
) -> str:
    """Digest after training with F on version max(start, k - delay) and B on k, nothing swapped."""
    layers = [kind.linear(m) for m in range(stages)]
    history = [[kind.weights(layer)] for layer in layers]
    for k, (a, target) in enumerate(zip(x.split(SIZE), y.split(SIZE), strict=True)):
        ins = []
        for m, layer in enumerate(layers):
            ins.append(a)
            w = history[m][max(0, k - delay(m + 1, k))]
            a = kind.read(layer, w, a).tanh()
        error = torch.ops.aten.mse_loss_backward(torch.ones(()), a, target, 1)
        for m in reversed(range(stages)):
            w = history[m][k]
            d = torch.ops.aten.tanh_backward(error, ins[m + 1] if m + 1 < stages else a)
            error = kind.read_transposed(layers[m], w, d)
            history[m].append(kind.moved(layers[m], w, ins[m], d, LR))
    return delayed.digest({str(2 * m): history[m][-1] for m in range(stages)})


def varying(m: int, k: int) -> int:
    """Grows and shrinks at once: no clock gives it."""
    return (5 * k + 3 * m) % 7


@pytest.mark.parametrize("stages", [1, 3, 4])
def test_constant_delays_are_the_asynchronous_schedule(kind: Any, stages: int) -> None:
    """To the bit, drains included; one update more or fewer is another training."""
    x, y = delayed.samples(COUNT, SIZE)

    def drained(plan: Schedule) -> Pipeline:
        pipe = build(kind, stages, plan)
        for part in (slice(0, 11 * SIZE), slice(11 * SIZE, None)):
            trained(pipe, x[part], y[part], 5)
        return pipe

    want = drained(asynchronous())
    got = drained(Delayed(lambda m, k: stages - m))
    assert weights(kind, got) == weights(kind, want)
    assert staleness(got) == staleness(want)
    assert [s.records[3][:3] for s in got.stages] == [s.records[3][:3] for s in want.stages]
    mutants = [lambda m, k: stages - m + 1]
    if stages > 1:
        mutants += [lambda m, k: max(0, stages - m - 1), lambda m, k: 0]
    for mutant in mutants:
        assert weights(kind, drained(Delayed(mutant))) != weights(kind, want)


@pytest.mark.parametrize("executor", ["sim", "threads"])
def test_delays_that_vary(kind: Any, executor: str) -> None:
    x, y = delayed.samples(COUNT, SIZE)
    want = by_hand(kind, 3, x, y, varying)
    for cut in (1, 5, COUNT):
        with build(kind, 3, Delayed(varying, longest=6), executor=executor) as pipe:
            assert weights(kind, trained(pipe, x, y, cut)) == want
            for stage in pipe.stages:
                for one in stage.records:
                    late = min(varying(stage.index, one.mb), one.mb)
                    assert (one.version_f, one.version_b) == (one.mb - late, one.mb)
    with build(kind, 3, Delayed(lambda m, k: varying(m, k) + (k == 9)), executor=executor) as pipe:
        assert weights(kind, trained(pipe, x, y)) != want


@pytest.mark.parametrize("name", families.FAMILIES)
def test_whole_models_are_delayed(name: str) -> None:
    """Batch statistics, dropout, embeddings, recurrent layers: the asynchronous bits."""
    with families.build(name, 4) as pipe:
        want = families.trained(pipe, name), pipe.digest()
    with families.build(name, 4, schedule=Delayed(lambda m, k: 4 - m)) as pipe:
        assert (families.trained(pipe, name), pipe.digest()) == want


def test_delays_end_at_a_drain(tmp_path: Path) -> None:
    """Evaluation drains; a snapshot does not; a checkpoint wants one; a resumed run goes on."""
    kind = KINDS["analog"]
    x, y = delayed.samples(COUNT, SIZE)
    half = x[: 12 * SIZE], y[: 12 * SIZE]

    def fresh() -> Pipeline:
        return build(kind, 3, Delayed(varying))

    pipe = fresh()
    pipe.step(*half)
    assert not pipe.flushed
    with pytest.raises(ConfigError, match="a checkpoint needs a flush point; call drain"):
        checkpoint.save(pipe, tmp_path, 1)
    pipe.eval(x, snapshot=True)
    assert not pipe.flushed
    pipe.eval(x)
    assert pipe.flushed
    checkpoint.save(pipe, tmp_path, 1)
    again = fresh()
    checkpoint.load(again, tmp_path)
    for one in (pipe, again):
        one.step(*half)
        one.drain()
    assert pipe.digest() == again.digest()
    with pytest.raises(ConfigError, match=r"was written with kind='Delayed\(varying, longest=64"):
        checkpoint.load(build(kind, 3, "sequential"), tmp_path)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (-1, "delay gives -1 for stage 2 and micro-batch 7; use an integer from 0 to 4, or raise"),
        (5, "delay gives 5 for stage 2 and micro-batch 7"),
        (0.5, "delay gives 0.5 for stage 2 and micro-batch 7"),
        (True, "delay gives True for stage 2 and micro-batch 7"),
    ],
)
def test_wrong_delays_are_refused_before_anything_moves(wrong: Any, told: str) -> None:
    kind = KINDS["digital"]
    x, y = delayed.samples(COUNT, SIZE)
    given: list[Any] = []
    plan = Delayed(lambda m, k: given[0] if given and (m, k) == (2, 7) else 2, longest=4)
    pipe = build(kind, 3, plan)
    pipe.step(x[: 5 * SIZE], y[: 5 * SIZE])
    given.append(wrong)
    with pytest.raises(ConfigError, match=told):
        pipe.step(x[5 * SIZE :], y[5 * SIZE :])
    given.clear()
    pipe.step(x[5 * SIZE :], y[5 * SIZE :])
    assert weights(kind, pipe) == by_hand(kind, 3, x, y, lambda m, k: 2)
    with pytest.raises(ConfigError, match="delay is 3; use a function of stage and micro-batch"):
        Delayed(3)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="longest is -1; use an integer >= 0"):
        Delayed(varying, longest=-1)


def test_a_failure_leaves_todays_weights() -> None:
    """The forward pass on old weights raises; what the stage holds is what it held."""
    kind = KINDS["digital"]
    x, y = delayed.samples(COUNT, SIZE)
    pipe = build(kind, 3, Delayed(lambda m, k: 3))
    pipe.step(x[: 8 * SIZE], y[: 8 * SIZE])
    before = weights(kind, pipe)
    handle = pipe.stages[1].module.register_forward_hook(lambda *_: 1 / 0)
    with pytest.raises(Exception, match="ZeroDivisionError"):
        pipe.step(x[:SIZE], y[:SIZE])
    handle.remove()
    assert weights(kind, pipe) == before


def test_processes_run_them_too() -> None:
    done = launch.ranks(2, SCRIPT, "own_schedules")
    assert [rank.code for rank in done] == [0, 0], done


def test_with_rates_of_micro_batches() -> None:
    """Delays and rates per micro-batch together, against training written out by hand."""
    x, y = delayed.samples(COUNT, SIZE)
    kind = KINDS["digital"]
    want = delayed.delayed_gradients(
        *(kind, 3, x, y, SIZE), lambda m, k: LR / (1 + k), lambda m: 3 - m
    )
    for plan in (Delayed(lambda m, k: 3 - m), from_ops(asynchronous().ops(3, COUNT))):
        pipe = build(kind, 3, plan, lr=lambda k: LR / (1 + k))
        assert weights(kind, trained(pipe, x, y)) == want


def test_outcomes_of_threads() -> None:
    """Losses, events and outputs too."""
    for plan in (from_ops(TWO), Delayed(varying)):
        with _noisy(plan) as one, _noisy(plan, executor="threads") as other:
            assert outcome(one) == outcome(other)


def _noisy(plan: Schedule, **options: Any) -> Pipeline:
    return Pipeline(
        delayed.network(KINDS["analog"], 2),
        2,
        optimizer=lambda parameters: KINDS["analog"].optimizer(parameters, LR),
        loss=nn.functional.mse_loss,
        schedule=plan,
        micro_batch_size=SIZE,
        **options,
    )

"""The lab's engine and command: resume, damage, settings, processes, pages, refusals.

The verdicts themselves are tried on rows bent so that the claim is false: they must notice.
Intervals are compared with scipy's quantiles: the table is rounded to 3 decimals (1e-3 of t).
"""

from __future__ import annotations

import csv
import math
import multiprocessing
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from lab_quick import COMMAND, SEEDS, Lab
from pulseline.cli import main
from pulseline.errors import BackendError, ConfigError, StageFailed
from pulseline.lab import experiments
from pulseline.lab.accuracy import Accuracy
from pulseline.lab.clock import Clock
from pulseline.lab.devices import Devices
from pulseline.lab.engine import Experiment, Row, Rows, Summary, run_of, settings_digest
from pulseline.lab.experiments import EXPERIMENTS, QUICK, named, perform
from pulseline.lab.probe import Probe
from pulseline.lab.statistics import Interval, Verdict, crossing, exponent, interval
from pulseline.lab.teacher import Teacher, pairs_of_gradient, squared_gradient, weights_of


@dataclass(frozen=True)
class Counting:
    """A cheap experiment that counts its runs."""

    rows: int = 3
    breaks_at: int = -1

    name = "counting"
    title = "Counting"
    seeded = True
    ran: ClassVar[list[int]] = []

    @property
    def source(self) -> Experiment:
        return self

    def steps(self) -> int:
        return self.rows

    def run(self, seed: int) -> Iterator[Row]:
        self.ran.append(seed)
        for n in range(self.rows):
            if n == self.breaks_at:
                raise KeyboardInterrupt
            yield {"n": n, "value": 0.1 * n + seed}

    def summarise(self, rows: Rows) -> Summary:
        return Summary(f"{len(rows)} rows", [Verdict("many", "there are rows", True, "some")])

    def figure(self, rows: Rows) -> Any:
        from matplotlib.figure import Figure

        return Figure()


@pytest.fixture(autouse=True)
def nothing_ran() -> None:
    Counting.ran.clear()


# ---- resume ----


def test_finished_seeds_are_not_run_again(tmp_path: Path) -> None:
    perform([Counting()], tmp_path, seeds=2)
    assert Counting.ran == [0, 1]
    first = (tmp_path / "counting.csv").read_bytes()
    perform([Counting()], tmp_path, seeds=2)
    assert Counting.ran == [0, 1]
    assert (tmp_path / "counting.csv").read_bytes() == first
    perform([Counting()], tmp_path, seeds=3)
    assert Counting.ran == [0, 1, 2]


def test_other_settings_are_computed(tmp_path: Path) -> None:
    perform([Counting()], tmp_path, seeds=1)
    perform([Counting(rows=4)], tmp_path, seeds=1)
    assert Counting.ran == [0, 0]
    assert settings_digest(Counting()) != settings_digest(Counting(rows=4))
    with (tmp_path / "counting.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 4


@pytest.mark.parametrize("damage", ["cut", "half a line", "empty", "no rows", "a list"])
def test_damaged_files_are_computed_again(tmp_path: Path, damage: str) -> None:
    perform([Counting()], tmp_path, seeds=1)
    path = run_of(Counting(), 0, tmp_path).path
    whole = path.read_text()
    lines = whole.splitlines(keepends=True)
    path.write_text(
        {
            "cut": "".join(lines[:-1]),
            "half a line": whole[:-5],
            "empty": "",
            "no rows": lines[0],
            "a list": "[1]\n",
        }[damage]
    )
    notices: list[str] = []
    perform([Counting()], tmp_path, seeds=1, notice=notices.append)
    assert Counting.ran == [0, 0]
    assert notices == [f"{path} is damaged: computing counting seed 0 again"]
    assert path.read_text() == whole


def test_an_interrupted_run_leaves_nothing_behind(tmp_path: Path) -> None:
    broken = Counting(breaks_at=2)
    with pytest.raises(KeyboardInterrupt):
        perform([broken], tmp_path, seeds=1)
    assert not list(tmp_path.rglob("*.jsonl"))
    assert torch.get_num_threads() == 1


def test_processes_give_the_same_bytes(tmp_path: Path) -> None:
    """Two seeds of a small experiment in one process and in two."""
    small = replace(Devices().quick(), epochs=1, batch=480)
    written = []
    for jobs in (1, 2):
        perform([small], tmp_path / str(jobs), seeds=2, jobs=jobs)
        written.append((tmp_path / str(jobs) / "devices.csv").read_bytes())
    assert written[0] == written[1]


@dataclass(frozen=True)
class Failing(Counting):
    """Fails in whatever process runs it."""

    how: str = "raise"

    def run(self, seed: int) -> Iterator[Row]:
        if self.how == "exit":
            os._exit(3)
        raise StageFailed(2, "F", seed, "its output is NaN or infinite")
        yield {}


@pytest.mark.parametrize(
    ("how", "error", "message"),
    [
        ("raise", StageFailed, "stage 2 failed at operation F"),
        ("exit", BackendError, "a process of the lab was killed: run it again"),
    ],
)
def test_failures_in_processes(
    tmp_path: Path, how: str, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        perform([Failing(how=how)], tmp_path, seeds=2, jobs=2)
    assert not list(tmp_path.rglob("*.jsonl"))
    assert not multiprocessing.active_children()


def test_another_experiments_runs_are_shared(tmp_path: Path) -> None:
    accuracy, speedup = QUICK["accuracy"], QUICK["speedup"]
    assert run_of(accuracy, 1, tmp_path) == run_of(speedup.source, 1, tmp_path)


def test_every_row_was_announced(lab: Lab) -> None:
    """What the progress bar expects is what comes."""
    for name, experiment in QUICK.items():
        seeds = SEEDS if experiment.source.seeded else 1
        assert len(lab.rows(name)) == seeds * experiment.steps()


# ---- files ----


def test_pages_and_index(lab: Lab) -> None:
    for name in QUICK:
        page = (lab.out / f"{name}.md").read_text()
        assert page.startswith(f"# {name}: ")
        assert COMMAND in page
        assert re.search(r"pulseline \S+, torch \S+, numpy \S+, Python \S+, kernels \w+", page)
        assert ("Seeds: 0, 1, 2." in page) == QUICK[name].source.seeded
        for verdict in lab.reports[name].verdicts:
            assert str(verdict) in page
        assert (lab.out / f"{name}.png").read_bytes()[:4] == b"\x89PNG"
        with (lab.out / f"{name}.csv").open() as file:
            assert len(list(csv.DictReader(file))) == len(lab.rows(name))
    index = (lab.out / "index.md").read_text()
    linked = set(re.findall(r"\(([a-z]+\.(?:md|png))\)", index))
    assert linked == {f"{name}.{kind}" for name in QUICK for kind in ("md", "png")}
    for report in lab.reports.values():
        for verdict in report.verdicts:
            assert verdict.claim in index


def test_command(lab: Lab, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    shutil.copytree(lab.out / "runs", tmp_path / "runs")
    words = ["lab", "clock", "--out", str(tmp_path), "--quick", "--seeds", "2", "--jobs", "1"]
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "holds: the synchronous speed-up is 8M/(M+7), exactly" in out
    command = "pulseline lab clock --out DIR --seeds 2 --quick"
    assert command in (tmp_path / "clock.md").read_text()
    assert not (tmp_path / "index.md").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("lab nonsense --out {}", "invalid choice: 'nonsense'"),
        ("lab clock", "required: --out"),
        ("lab clock --out {} --seeds 0", "must be an integer >= 1 and <= 1000, got '0'"),
        ("lab clock --out {} --jobs two", "must be an integer >= 1 and <= 1024, got 'two'"),
        ("lab clock --out /dev/null", "cannot be a directory"),
    ],
)
def test_bad_arguments(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, words: str, message: str
) -> None:
    try:
        code = main(words.format(tmp_path / "new").split())
    except SystemExit as stop:
        code = stop.code
    error = capsys.readouterr().err
    assert code == 2
    assert message in error
    assert error.count("\n") == 1


def test_unknown_names() -> None:
    with pytest.raises(ConfigError, match="experiment is 'x'; use all or one of clock"):
        named(["x"], quick=True)
    assert named(["all"], quick=False) == list(EXPERIMENTS.values())


def test_without_tqdm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(experiments, "find_spec", lambda _: None)
    monkeypatch.setitem(sys.modules, "tqdm", None)
    perform([Counting()], tmp_path, seeds=1)
    assert Counting.ran == [0]


def test_without_matplotlib_nothing_is_computed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ModuleNotFoundError):
        perform([Counting()], tmp_path, seeds=1)
    assert Counting.ran == []


# ---- statistics ----


@pytest.mark.parametrize("count", [2, 3, 5, 11, 12, 20, 50])
def test_intervals_are_students(count: int) -> None:
    from scipy import stats

    values = [math.sin(n) for n in range(count)]
    found = interval(values)
    low, high = stats.t.interval(0.95, count - 1, loc=sum(values) / count, scale=stats.sem(values))
    slack = 1e-3 if count <= 11 else 0.03  # of the half width; the tail formula is too wide
    half = (high - low) / 2
    assert -1e-3 * half <= (found.high - found.low) / 2 - half <= slack * half
    assert found.mean == pytest.approx(sum(values) / count)


def test_one_seed_decides_nothing() -> None:
    found = interval([1.0])
    assert found == (1.0, -math.inf, math.inf)
    assert found.within(0.9, 1.1) is found.contains(1.0) is None
    assert Interval(1.0, 0.95, 1.05).contains(1.04) is True
    assert Interval(1.0, 0.95, 1.05).contains(1.06) is False
    assert Interval(1.0, 0.95, 1.05).within(0.9, 1.1) is True
    assert Interval(1.0, 0.95, 1.05).within(2.0, 3.0) is False


def test_exponent_and_crossing() -> None:
    x = [1.0, 2.0, 4.0]
    assert exponent(x, [3 * v**-1.5 for v in x]) == pytest.approx(-1.5)
    assert crossing(x, [8.0, 4.0, 2.0], 3.0) == 3.0
    assert crossing(x, [8.0, 4.0, 2.0], 9.0) == 1.0
    assert crossing(x, [8.0, 4.0, 2.0], 1.0) is None


# ---- the problem and the probe ----


def test_gradient_is_autograds() -> None:
    """float64 against float64: rounding of sums over 256 samples only."""
    problem = Teacher(layers=3, width=5)
    weights = [w.double().requires_grad_() for w in problem.matrices()[1]]
    x, target = problem.questions()
    out = x
    for w in weights:
        out = (out @ w.t()).tanh()
    loss = 0.5 * (out - target).square().sum() / len(x)
    grads = torch.autograd.grad(loss, weights)
    expected = sum(float(g.square().sum()) for g in grads)
    plain = [w.detach() for w in weights]
    assert squared_gradient(plain, (x, target)) == pytest.approx(expected, rel=1e-12)


def test_probe_sees_the_stale_versions() -> None:
    """Bias of two stages by hand: F of stage 1 uses version k-1, everything else version k.

    The pipeline computes in float32 (eps 6e-8) on numbers of order 1, the bias is of order a = .05:
    1e-5 leaves a factor 10 for the few sums of 8 terms.
    """
    problem = Teacher(layers=2, seed=3)
    model = problem.model("expected")
    pipe = problem.pipeline(model, 2, 0.05)
    probe = Probe(pipe, lambda k: True)
    x, target = problem.samples(12)
    pipe.step(x, target=target)
    pipe.drain()
    found = probe.biases(x, target)
    assert len(found) == 12
    seen = [[held for _, held in sorted(one.items())] for _, one in sorted(probe._seen.items())]
    for k in range(12):
        first_old, first, second = seen[max(k - 1, 0)][0][0][0], seen[k][0][0][0], seen[k][1][0][0]
        inputs, wanted = x[k].double(), target[k].double()
        hidden = (first_old @ inputs).tanh()
        out = (second @ hidden).tanh()
        d2 = (out - wanted) * (1 - out.square())
        d1 = (second.t() @ d2) * (1 - hidden.square())
        stale = [torch.outer(d1, inputs), torch.outer(d2, hidden)]
        true = pairs_of_gradient([first, second], inputs[None], wanted[None])
        squares = [
            (s - errors.t() @ ins).square().sum()
            for s, (ins, errors) in zip(stale, true, strict=True)
        ]
        assert found[k].bias == pytest.approx(math.sqrt(sum(map(float, squares))), abs=1e-5)
    assert found[0].bias < 1e-5 < max(one.bias for one in found)


def test_probe_sees_no_bias_without_staleness() -> None:
    """Float32 against float64: 1e-5 as above."""
    problem = Teacher(layers=3, seed=1)
    model = problem.model("expected")
    pipe = problem.pipeline(model, 3, 0.05, schedule="sequential")
    probe = Probe(pipe, lambda k: k > 2)
    x, target = problem.samples(8)
    pipe.step(x, target=target)
    biases = [one.bias for one in probe.biases(x, target)]
    assert len(biases) == 5
    assert max(biases) < 1e-5
    moved = [w - s.double() for w, s in zip(weights_of(model), problem.matrices()[1], strict=True)]
    assert max(float(m.abs().max()) for m in moved) > 1e-3


# ---- verdicts notice what is false ----

Bend = Callable[[Row], None]


def bent(rows: Rows, bend: Bend) -> Rows:
    """A copy of the rows, each changed in place."""
    copies = [dict(row) for row in rows]
    for row in copies:
        bend(row)
    return copies


def times(name: str, factor: float, power: float = 1.0, **where: Any) -> Bend:
    """Change a column of the rows with these values: factor y^power."""

    def bend(row: Row) -> None:
        value = row[name]
        if all(row[key] == wanted for key, wanted in where.items()) and value is not None:
            assert isinstance(value, (int, float))
            row[name] = factor * value**power

    return bend


@pytest.mark.parametrize(
    ("name", "claim", "bend"),
    [
        ("clock", "sync", times("cycles", 1.5, schedule="sync", stages=5)),
        ("clock", "async", times("cycles", 1.5, schedule="async", stages=16)),
        ("clock", "clock", times("trained_cycles", 1.5, schedule="sync", stages=2)),
        ("clock", "published", times("cycles", 1.01, schedule="sync", stages=8)),
        ("staleness", "window", times("bias", 1.0, 0.5, part="window", stages=4)),
        ("staleness", "along", times("bias", 1.0, 0.5, part="along")),
        ("staleness", "floor", times("gradient2", 1.1, part="floor", schedule="async")),
        ("staleness", "digital", times("gradient2", 3.0, part="floor", update="digital")),
        ("floor", "law", times("bias", 1.0, 2.0)),
        ("floor", "prediction", times("bias", 1.4)),
        ("complexity", "exponent", times("iterations", 1.0, 1.5, method="asynchronous")),
        ("complexity", "extra", times("iterations", 1.3, method="asynchronous")),
        ("accuracy", "accuracy", times("accuracy", 0.9, method="asynchronous", stages=8)),
        ("accuracy", "one_stage", times("samples", 1.01, method="asynchronous", stages=1)),
        ("accuracy", "time", times("modelled_us", 3.0, method="asynchronous", stages=8)),
        ("speedup", "samples_8", times("samples", 1.2, method="asynchronous", stages=8)),
        ("speedup", "cycles", times("cycles", 3.0, method="asynchronous", stages=8)),
        ("cliff", "safe", times("loss", 2.0, stages=2, mitigation="none")),
        ("cliff", "lost", times("loss", 0.3, stages=8, mitigation="none")),
        ("cliff", "half the depth", times("loss", 3.0, mitigation="half the depth")),
        ("devices", "enough", times("accuracy", 0.8, property="slope", value=1.0)),
        ("devices", "too_much", times("accuracy", 1.3, property="slope", value=3.0)),
        ("devices", "same", times("accuracy", 0.9, property="slope", value=1.0, schedule="async")),
    ],
)
def test_verdicts_notice(lab: Lab, name: str, claim: str, bend: Bend) -> None:
    experiment, rows = QUICK[name], lab.rows(name)
    (before,) = [one for one in experiment.summarise(rows).verdicts if one.name == claim]
    (after,) = [one for one in experiment.summarise(bent(rows, bend)).verdicts if one.name == claim]
    assert before == lab.verdict(name, claim)
    assert after.holds is False, str(after)


def test_one_seed_decides_no_claim_with_scatter(lab: Lab) -> None:
    for name, experiment in QUICK.items():
        rows = [row for row in lab.rows(name) if row["seed"] == 0]
        decided = {one.name for one in experiment.summarise(rows).verdicts if one.holds is not None}
        exact = {"accuracy": {"one_stage"}, "clock": {"sync", "async", "clock", "published"}}
        assert decided == exact.get(name, set())


def test_quick_settings_are_smaller() -> None:
    for name, experiment in EXPERIMENTS.items():
        assert QUICK[name].steps() <= experiment.steps()
        assert QUICK[name].name == name
    assert Clock().quick().count < Clock().count
    assert Accuracy().quick().epochs < Accuracy().epochs

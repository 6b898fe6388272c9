"""The lab's engine and command: resume, damage, settings, processes, pages, refusals.

Intervals are compared with scipy's. What the verdicts notice is in test_lab_claims.py.
"""

from __future__ import annotations

import csv
import math
import os
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from lab_quick import COMMAND, Lab
from pulseline.cli import main
from pulseline.data import load_digits
from pulseline.errors import BackendError, ConfigError, StageFailed
from pulseline.lab import deep, experiments
from pulseline.lab.devices import Devices
from pulseline.lab.engine import Settings, Summary, run_of, settings_digest
from pulseline.lab.experiments import EXPERIMENTS, QUICK, named, perform
from pulseline.lab.mutants import Mutant, Row, Rows, plus
from pulseline.lab.probe import Probe
from pulseline.lab.recursion import Block, Fleet, drawn, full
from pulseline.lab.report import tried
from pulseline.lab.statistics import (
    Cell,
    decide,
)
from pulseline.lab.teacher import Teacher, pairs_of_gradient, squared_gradient, weights_of
from pulseline.schedules import sequential, synchronous


@dataclass(frozen=True)
class Counting(Settings):
    """A cheap experiment that counts its runs."""

    seeds: int = 2
    rows: int = 3
    breaks_at: int = 99

    name: ClassVar[str] = "counting"
    title: ClassVar[str] = "Counting"
    ran: ClassVar[list[int]] = []

    def steps(self) -> int:
        return self.rows

    def run(self, seeds: range) -> Iterator[Row]:
        for seed in seeds:
            self.ran.append(seed)
            for n in range(self.rows):
                if n == self.breaks_at:
                    raise KeyboardInterrupt
                yield {"seed": seed, "n": n, "value": 0.1 * n + seed}

    def summarise(self, rows: Rows) -> Summary:
        cell = Cell("n = 0", [float(row["value"] or 0) for row in rows if row["n"] == 0])
        return Summary(f"{len(rows)} rows", [decide("low", "values are low", [cell], high=1e3)])

    def mutants(self) -> tuple[Mutant, ...]:
        return (Mutant("low", "values + 1e6", plus("value", 1e6)),)

    def figure(self, rows: Rows) -> Any:
        from matplotlib.figure import Figure

        return Figure()


@pytest.fixture(autouse=True)
def nothing_ran() -> None:
    Counting.ran.clear()


# ---- resume ----


def test_finished_seeds_are_not_run_again(tmp_path: Path) -> None:
    perform([Counting()], tmp_path)
    assert Counting.ran == [0, 1]
    first = (tmp_path / "counting.csv").read_bytes()
    perform([Counting()], tmp_path)
    assert Counting.ran == [0, 1]
    assert (tmp_path / "counting.csv").read_bytes() == first
    perform([Counting().with_seeds(3)], tmp_path)
    assert Counting.ran == [0, 1, 2]


def test_other_settings_are_computed(tmp_path: Path) -> None:
    one = Counting(seeds=1)
    perform([one], tmp_path)
    perform([replace(one, rows=4)], tmp_path)
    assert Counting.ran == [0, 0]
    assert settings_digest(one) != settings_digest(replace(one, rows=4))
    assert settings_digest(one) == settings_digest(Counting())
    with (tmp_path / "counting.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 4


@dataclass(frozen=True)
class Grouped(Counting):
    """Two seeds in one run."""

    group: ClassVar[int] = 2


def test_seeds_of_a_group_share_a_run(tmp_path: Path) -> None:
    perform([Grouped(seeds=3)], tmp_path)
    names = sorted(path.name.split("-", 2)[2] for path in tmp_path.rglob("*.jsonl"))
    assert names == ["0-1.jsonl", "2.jsonl"]


@pytest.mark.parametrize("damage", ["cut", "half a line", "empty", "no rows", "a list"])
def test_damaged_files_are_computed_again(tmp_path: Path, damage: str) -> None:
    one = Counting(seeds=1)
    perform([one], tmp_path)
    path = run_of(one, range(1), tmp_path).path
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
    perform([one], tmp_path, notice=notices.append)
    assert Counting.ran == [0, 0]
    assert notices == [f"{path} is damaged: computing it again"]
    assert path.read_text() == whole


def test_an_interrupted_run_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        perform([Counting(seeds=1, breaks_at=2)], tmp_path)
    assert not list(tmp_path.rglob("*.jsonl"))
    assert torch.get_num_threads() == 1


def test_processes_give_the_same_bytes(tmp_path: Path) -> None:
    """Two seeds of a small experiment in one process and in two."""
    small = replace(Devices().quick(), seeds=2, epochs=1, per_epoch=2, batch=480)
    written = []
    for jobs in (1, 2):
        perform([small], tmp_path / str(jobs), jobs=jobs)
        written.append((tmp_path / str(jobs) / "devices.csv").read_bytes())
    assert written[0] == written[1]


@dataclass(frozen=True)
class Failing(Counting):
    """Fails in whatever process runs it."""

    how: str = "raise"

    def run(self, seeds: range) -> Iterator[Row]:
        if self.how == "exit":
            os._exit(3)
        raise StageFailed(2, "F", seeds[0], "its output is NaN or infinite")
        yield {}


@pytest.mark.parametrize(
    ("how", "error", "message"),
    [
        ("raise", StageFailed, "stage 2 failed at operation F"),
        ("exit", BackendError, "a process of the lab was killed; run it again"),
    ],
)
def test_failures_in_processes(
    tmp_path: Path, how: str, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        perform([Failing(how=how)], tmp_path, jobs=2)
    assert not list(tmp_path.rglob("*.jsonl"))


def test_another_experiments_runs_are_shared(tmp_path: Path) -> None:
    accuracy, speedup = QUICK["accuracy"], QUICK["speedup"]
    one = range(1, 2)
    assert run_of(accuracy, one, tmp_path) == run_of(speedup.source, one, tmp_path)
    assert speedup.with_seeds(5).source == accuracy.with_seeds(5)


def test_every_row_was_announced(lab: Lab) -> None:
    """What the progress bar expects is what comes."""
    for name, experiment in QUICK.items():
        assert len(lab.rows(name)) == max(1, experiment.seeds) * experiment.steps()


# ---- files ----


def test_pages_and_index(lab: Lab) -> None:
    for name, experiment in QUICK.items():
        page = (lab.out / f"{name}.md").read_text()
        assert page.startswith(f"# {name}: ")
        assert COMMAND in page
        assert re.search(r"pulseline \S+, torch \S+, numpy \S+, Python \S+, kernels \w+", page)
        seeds = experiment.source.seeds
        assert (f"Seeds: 0 to {seeds - 1}." if seeds else "Seeds: none needed.") in page
        for verdict in lab.reports[name].verdicts:
            assert str(verdict) in page
        for trial in lab.reports[name].trials:
            assert trial.what in page.replace("\\|", "|")
        assert (lab.out / f"{name}.png").read_bytes()[:4] == b"\x89PNG"
        with (lab.out / f"{name}.csv").open() as file:
            assert len(list(csv.DictReader(file))) == len(lab.rows(name))
    index = (lab.out / "index.md").read_text()
    linked = set(re.findall(r"\(([a-z-]+\.(?:md|png))\)", index))
    assert linked == {f"{name}.{kind}" for name in QUICK for kind in ("md", "png")}
    for report in lab.reports.values():
        for verdict in report.verdicts:
            assert verdict.claim.replace("|", "\\|") in index


def test_command(lab: Lab, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    shutil.copytree(lab.out / "runs", tmp_path / "runs")
    words = ["lab", "clock", "--out", str(tmp_path), "--quick", "--seeds", "2", "--jobs", "1"]
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "holds: the synchronous speed-up is 8M/(M+7), exactly" in out
    assert "no power here" not in out
    command = "pulseline lab clock --out DIR --quick --seeds 2"
    assert command in (tmp_path / "clock.md").read_text()
    assert not (tmp_path / "index.md").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("lab nonsense --out {}", "invalid choice: 'nonsense'"),
        ("lab clock", "required: --out"),
        ("lab clock --out {} --seeds 0", "is '0'; use an integer >= 1 and <= 1000"),
        ("lab clock --out {} --jobs two", "is 'two'; use an integer >= 1 and <= 1024"),
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
    perform([Counting(seeds=1)], tmp_path)
    assert Counting.ran == [0]


def test_without_matplotlib_nothing_is_computed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ModuleNotFoundError):
        perform([Counting(seeds=1)], tmp_path)
    assert Counting.ran == []


# ---- the recursion is the pipeline ----


@pytest.mark.parametrize(
    ("schedule", "kind", "stale", "batch"),
    [
        ("sequential", "digital", False, 1),
        ("sequential", "expected", False, 1),
        ("sync", "expected", False, 8),
        ("async", "digital", True, 1),
        ("async", "expected", True, 1),
    ],
)
def test_recursion_is_the_pipeline(schedule: str, kind: str, stale: bool, batch: int) -> None:
    """Weights after 160 samples with a = .05, one stage per layer.

    float64 against float32 tiles whose steps, powers of two, are stored exactly: 160 updates of
    weights of order 1, each rounded to 2^-24 = 6e-8, random in sign: sqrt(160) 6e-8 = 8e-7, and as
    much again for passes of 4 layers; the digital optimizer rounds twice. 3e-6 is twice that; a
    staleness wrong by one sample makes 1e-2 (checked below).
    """
    problem = Teacher(layers=4, noise=0.5)
    model = problem.model(kind, 2.0)
    pipe = problem.pipeline(model, 4, 0.05, schedule=schedule, micro_batches=8)
    x, target = problem.samples(160, stream=3)
    pipe.step(x, target)
    pipe.drain()
    found = torch.stack(weights_of(model)).numpy()

    def recursion(stale: bool) -> Any:
        tau = 2.0 if kind == "expected" else math.inf
        held = drawn(problem, range(3, 4), 160)
        more = np.zeros((1, 8, problem.width))  # so that there is a look behind the last sample
        samples = tuple(np.concatenate([one, more], axis=1) for one in held)
        blocks = [Block(0.05, 168, 160)]
        fleet = Fleet(problem, samples, blocks, tau, stale=stale, batch=batch)
        looks = list(fleet.run())
        assert [look.k for look in looks] == [0, 160]
        return full(found[:, None], *(q.numpy() for q in problem.questions())), looks[-1]

    (gradient2, loss), look = recursion(stale)
    assert look.gradient2[0] == pytest.approx(gradient2[0], rel=1e-4)
    assert look.loss[0] == pytest.approx(loss[0], rel=1e-4)
    assert look.norm[0] == pytest.approx(float(np.linalg.norm(found)), rel=1e-6)
    if stale:
        (gradient2, _), look = recursion(False)
        assert look.gradient2[0] != pytest.approx(gradient2[0], rel=1e-3)


def test_runs_of_a_fleet_are_runs_alone() -> None:
    """A seed does not depend on who else is computed, nor on longer and shorter runs: equal but for
    the order of sums in batched products (2^-53 relative, 64 samples).
    """
    problem = Teacher(layers=3, width=5)
    blocks = [Block(0.05, 32, 8), Block(0.02, 64, 16)]
    many = list(Fleet(problem, drawn(problem, range(4), 64), blocks, 2.0, stale=True).run())
    alone = Fleet(problem, drawn(problem, range(2, 3), 64), [blocks[0]], 2.0, stale=True).run()
    for look in alone:
        (same,) = [one for one in many if one.n == 1 and one.k == look.k]
        assert same.gradient2[2] == pytest.approx(look.gradient2[0], rel=1e-11)


def test_gradient_of_a_fleet_is_that_of_a_network() -> None:
    problem = Teacher(layers=3, width=5)
    weights = [w.double() for w in problem.matrices()[1]]
    x, target = problem.questions()
    found, _ = full(np.stack([w.numpy() for w in weights])[:, None], x.numpy(), target.numpy())
    assert found[0] == pytest.approx(squared_gradient(weights, (x, target)), rel=1e-12)


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
    pipe.step(x, target)
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
    pipe.step(x, target)
    biases = [one.bias for one in probe.biases(x, target)]
    assert len(biases) == 5
    assert max(biases) < 1e-5
    moved = [w - s.double() for w, s in zip(weights_of(model), problem.matrices()[1], strict=True)]
    assert max(float(m.abs().max()) for m in moved) > 1e-3


def test_quick_settings_are_smaller() -> None:
    for name, experiment in EXPERIMENTS.items():
        assert QUICK[name].steps() <= experiment.steps()
        assert QUICK[name].seeds <= experiment.seeds
        assert QUICK[name].name == name


def test_trials_are_of_verdicts_that_exist(lab: Lab) -> None:
    for name, experiment in QUICK.items():
        verdicts = {verdict.name for verdict in lab.reports[name].verdicts}
        assert {trial.verdict for trial in tried(experiment, lab.rows(name))} == verdicts


def test_synchronous_updates_are_those_of_one_large_micro_batch() -> None:
    """What ``accuracy`` trains in the place of the synchronous schedule, B = 8: the same bits."""
    data = load_digits(32)
    weights = []
    for batch, plan in ((1, synchronous(8)), (8, sequential())):
        model = deep.network(0)
        pipe = deep.pipeline(model, 1, 0.004, batch, plan)
        pipe.step(data.x_train, data.y_train)
        pipe.drain()
        weights.append([parameter.detach().clone() for parameter in model.parameters()])
    assert all(map(torch.equal, *weights))

"""Checkpoints: a run that was killed, wherever it was, ends with the bits of one that was not."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import delayed
import executor_cases as cases
import killed_train
import launch
from checkpoint_cases import (
    CONFIG,
    PER_STEP,
    STAGES,
    STEPS,
    content,
    damage,
    fresh,
    resumed,
    train,
    whole,
)
from pulseline import cost
from pulseline.cli import main
from pulseline.errors import BackendError, ConfigError
from pulseline.nn import AnalogLinear
from pulseline.pipeline import Pipeline, checkpoint
from pulseline.schedules import Schedule, asynchronous, synchronous

KILLED = str(Path(killed_train.__file__))


@pytest.mark.parametrize("writer", ["sim", "threads"])
@pytest.mark.parametrize("reader", ["sim", "threads"])
def test_continues_bit_for_bit(tmp_path: Path, writer: str, reader: str) -> None:
    with fresh(executor=writer) as pipe:
        train(pipe, tmp_path, last=2)
        versions = [stage.version for stage in pipe.stages]
    with fresh(executor=reader) as pipe:
        loaded = checkpoint.load(pipe, tmp_path, config={"seed": 1})
        assert loaded == (2, {"done": 2}, ())
        assert [stage.version for stage in pipe.stages] == versions
        assert pipe.micro_batches == 2 * PER_STEP
        lrs = {group["lr"] for stage in pipe.stages for group in stage.optimizer.param_groups}
        assert lrs == {cases.LR * 0.9}
    assert resumed(tmp_path, executor=reader) == whole()


def counting(plan: Schedule, **options: Any) -> Pipeline:
    """A run that counts pulses."""
    pipe = fresh(plan, **options)
    for array in cost.arrays(stage.module for stage in pipe.stages):
        array.count_pulses()
    return pipe


@pytest.mark.parametrize("plan", [asynchronous(), asynchronous(flush_every=2), synchronous(2)])
def test_a_resumed_run_reports_the_whole(tmp_path: Path, plan: Schedule) -> None:
    """Segments, pulses, time and energy of a run in two halves are those of the run in one."""
    with counting(plan) as pipe:
        train(pipe, None)
        segments, counted = pipe.segments, cost.count(stage.module for stage in pipe.stages)
        report = cost.report(pipe)
    assert len(counted) == STAGES
    assert sum(size for size, _ in segments) == STEPS * PER_STEP
    with counting(plan) as pipe:
        train(pipe, tmp_path, last=2)
    with counting(plan, executor="threads") as pipe:
        train(pipe, None, last=1)  # of which nothing stays
        checkpoint.load(pipe, tmp_path, config=CONFIG)
        train(pipe, None, 2)
        assert pipe.segments == segments
        assert cost.count(stage.module for stage in pipe.stages) == counted
        assert cost.report(pipe) == report


def test_whether_pulses_are_counted_is_part_of_the_run(tmp_path: Path) -> None:
    """A count that began half way is no count of the run."""
    train(fresh(), tmp_path / "without", last=1)
    train(counting(asynchronous()), tmp_path / "with", last=1)
    for name, kind in (("without", counting), ("with", fresh)):
        pipe = kind(asynchronous())
        checkpoint.load(pipe, tmp_path / name, config=CONFIG)
        arrays = cost.arrays(stage.module for stage in pipe.stages)
        assert [array.fired is not None for array in arrays] == [name == "with"] * STAGES


def test_only_the_newest_two_stay(tmp_path: Path) -> None:
    train(fresh(), tmp_path)
    assert checkpoint.steps(tmp_path) == [4, 3]
    assert len(list(tmp_path.iterdir())) == 2 * (STAGES + 1)


def test_nothing_to_load(tmp_path: Path) -> None:
    pipe = fresh()
    before = pipe.digest()
    for root in (tmp_path, tmp_path / "absent"):
        assert checkpoint.load(pipe, root) is None
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "checkpoint-1.json").write_text("not ours either")
    assert checkpoint.load(pipe, tmp_path) is None
    assert pipe.digest() == before


class Crash(BaseException):
    """Stands for the end of the process."""


@pytest.mark.parametrize("phase", ["before", "during", "unnamed", "after"])
@pytest.mark.parametrize("number", range(1, STAGES + 2))
def test_a_crash_in_every_phase_of_the_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, phase: str
) -> None:
    """Files 1..3 of a checkpoint are the shards, file 4 is the manifest."""

    def crash() -> None:
        raise Crash

    files = STAGES + 1
    for first in (0, 1):  # no checkpoint before, one before
        root = tmp_path / str(first)
        with monkeypatch.context() as patch:
            fsync, replace = killed_train.faulty(first * files + number, phase, crash)
            patch.setattr("os.fsync", fsync)
            patch.setattr("os.replace", replace)
            with pytest.raises(Crash):
                train(fresh(), root)
        complete = first + (number == files and phase == "after")
        assert checkpoint.steps(root)[:1] == ([complete] if complete else [])
        assert resumed(root) == whole()
        assert not list(root.glob("*.tmp"))


@pytest.mark.parametrize("failing", ["replace", "fsync"])
def test_a_full_disk_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    pipe = fresh()
    train(pipe, tmp_path, last=1)
    before = content(tmp_path)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(f"os.{failing}", full)
        with pytest.raises(BackendError, match=r"cannot be written \(No space left") as error:
            checkpoint.save(pipe, tmp_path, 2, config={"seed": 1})
    assert "\n" not in str(error.value)
    after = content(tmp_path)
    assert {name: after[name] for name in before} == before
    assert resumed(tmp_path) == whole()


# ---- what is refused ----


@pytest.mark.parametrize("name", ["checkpoint-000002-stage2.pt", "checkpoint-000002.json"])
def test_the_older_one_does_when_the_newest_is_damaged(tmp_path: Path, name: str) -> None:
    train(fresh(), tmp_path, last=2)
    damage(tmp_path, name)
    copy = tmp_path / "copy"
    shutil.copytree(tmp_path, copy)
    with fresh() as pipe:
        loaded = checkpoint.load(pipe, copy, config={"seed": 1})
        assert loaded == (1, {"done": 1}, (f"{name} is damaged",))
    assert resumed(tmp_path) == whole()


@pytest.mark.parametrize(
    ("pipe", "config", "message"),
    [
        (lambda: cases.build(2, asynchronous()), {"seed": 1}, "stages=3 and this run has 2"),
        (lambda: fresh(synchronous(8)), {"seed": 1}, "kind='asynchronous' and this run has 'sync"),
        (lambda: fresh(), {"seed": 2}, "seed=1 and this run has 2"),
        (lambda: fresh(), {}, "seed=1 and this run has None"),
    ],
)
def test_another_run_is_refused(
    tmp_path: Path, pipe: Any, config: dict[str, Any], message: str
) -> None:
    """... for reading, and for writing into the same directory."""
    train(fresh(), tmp_path, last=1)
    files = content(tmp_path)
    for call in (checkpoint.load, lambda *a, **k: checkpoint.save(*a, 9, **k)):
        with pytest.raises(ConfigError, match=message):
            call(pipe(), tmp_path, config=config)
    assert content(tmp_path) == files


class Seeded(delayed.Analog):
    """Layers of another seed, or of none."""

    def __init__(self, seed: int | None) -> None:
        self.seed = seed

    def linear(self, m: int) -> torch.nn.Module:
        return AnalogLinear(delayed.WIDTH, delayed.WIDTH, bias=False, seed=self.seed, tile_id=m)


def test_devices_nobody_asked_for_come_from_the_checkpoint(tmp_path: Path) -> None:
    """A run without seeds continues in a process that has drawn others."""
    train(fresh(kind=Seeded(None)), tmp_path / "run", last=1)
    shutil.copytree(tmp_path / "run", tmp_path / "copy")
    digests = []
    for root in ("run", "copy"):
        pipe = fresh(kind=Seeded(None))
        before = [stage.module[0].cell.identity.seed for stage in pipe.stages]  # type: ignore[index,union-attr]
        assert checkpoint.load(pipe, tmp_path / root, config={"seed": 1}) is not None
        after = [stage.module[0].cell.identity.seed for stage in pipe.stages]  # type: ignore[index,union-attr]
        assert not {*before} & {*after}
        train(pipe, None, 1)
        digests.append(pipe.digest())
    assert digests[0] == digests[1]


def test_devices_that_were_asked_for_are_not_given_up(tmp_path: Path) -> None:
    train(fresh(kind=Seeded(3)), tmp_path, last=1)
    pipe = fresh(kind=Seeded(4))
    before = pipe.digest()
    with pytest.raises(ConfigError, match="seed was saved as 3 and is 4 here"):
        checkpoint.load(pipe, tmp_path, config={"seed": 1})
    assert pipe.digest() == before


def test_only_at_flush_points_and_forward(tmp_path: Path) -> None:
    pipe = fresh()
    x, y = delayed.samples(6, cases.SIZE)
    pipe.step(x, y)
    for call in (
        lambda: checkpoint.save(pipe, tmp_path, 1),
        lambda: checkpoint.load(pipe, tmp_path),
    ):
        with pytest.raises(ConfigError, match="needs a flush point"):
            call()
    pipe.drain()
    checkpoint.save(pipe, tmp_path, 5)
    with pytest.raises(ConfigError, match="holds the later step 5"):
        checkpoint.save(pipe, tmp_path, 4)
    with pytest.raises(ConfigError, match="holds step 5; load it"):
        checkpoint.save(pipe, tmp_path, 5)
    with pytest.raises(ConfigError, match="step is -1; use an integer >= 0"):
        checkpoint.save(pipe, tmp_path, -1)
    with pytest.raises(ConfigError, match="state cannot be JSON"):
        checkpoint.save(pipe, tmp_path, 6, state={"a": torch.zeros(1)})
    with pytest.raises(ConfigError, match="cannot be a directory"):
        checkpoint.save(pipe, tmp_path / "checkpoint-000005.json", 6)
    assert checkpoint.steps(tmp_path) == [5]


# ---- the command, really killed ----

WORDS = ["train", "--samples", "40", "--batch-size", "4", "--epochs", "3"]


def printed(capsys: pytest.CaptureFixture[str], *more: str) -> tuple[str, str]:
    """stdout and stderr of the command, which must succeed."""
    code = main([*WORDS, *more])
    out, err = capsys.readouterr()
    assert code == 0, err
    return out, err


def report_of(err: str) -> str:
    """What a command says of the hardware, without what it says of resuming and of its epochs."""
    other = ("pulseline: ", "epoch ")
    return "".join(line for line in err.splitlines(True) if not line.startswith(other))


@pytest.mark.parametrize(
    ("executor", "when", "code", "epoch"),
    [
        ("sim", "write:8:during", 77, 1),  # stage 3 of the second checkpoint
        ("threads", "update:60", -9, 1),  # 40 updates an epoch
    ],
)
def test_a_killed_command_resumes(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    executor: str,
    when: str,
    code: int,
    epoch: int,
) -> None:
    more = ["--executor", executor, "--checkpoint", str(tmp_path)]
    done = launch.run(KILLED, when, *WORDS, *more)
    assert done.code == code, done
    out, err = printed(capsys, *more, "--resume")
    assert f"resumed after epoch {epoch}" in err
    whole, its_err = printed(capsys)
    assert "modelled on" in report_of(its_err)
    assert (out, report_of(err)) == (whole, report_of(its_err))
    again, err = printed(capsys, *more, "--resume")  # nothing is left to do
    assert (again, report_of(err)) == (whole, report_of(its_err))


def test_torchrun_restarts_a_killed_rank(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Rank 1 is killed in epoch 2; torchrun starts both again and the bits are the same."""
    more = ["--stages", "2", "--checkpoint", str(tmp_path), "--resume"]
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    done = launch.run(
        *torchrun, "--max-restarts", "1", KILLED, "update:15", *WORDS, *more, "--executor", "dist"
    )
    assert done.code == 0, done
    assert "starting with epoch 1" in done.err
    assert "resumed after epoch 1" in done.err
    out, err = printed(capsys, "--stages", "2")
    report = report_of(err)
    assert done.out == out
    assert report in done.err
    again, err = printed(capsys, *more)
    assert (again, report_of(err)) == (out, report)


def test_the_command_refuses_to_overwrite(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = ["--checkpoint", str(tmp_path)]
    printed(capsys, *root)
    files = content(tmp_path)
    for more, message in (
        (root, "holds a checkpoint; add --resume"),
        ([*root, "--resume", "--seed", "1"], "seed=0 and this run has 1"),
        ([*root, "--resume", "--epochs", "2"], "later epoch than 2; raise --epochs"),
        (["--resume"], "--resume comes without a directory; add --checkpoint DIR"),
        (["--checkpoint-every", "2"], "--checkpoint-every comes without a directory"),
        (["--samples", "2000"], "samples is 2000; use at most the 1437"),
        (["--checkpoint", f"{__file__}/below"], "cannot be a directory"),
    ):
        code = main([*WORDS, *more])
        out, err = capsys.readouterr()
        assert (code, out) == (2, "")
        assert message in err
        assert err.count("\n") == 1
    assert content(tmp_path) == files


def test_every_n_epochs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    printed(capsys, "--checkpoint", str(tmp_path), "--checkpoint-every", "2")
    assert checkpoint.steps(tmp_path) == [3, 2]

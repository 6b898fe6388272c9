"""The command line and the file system: names, huge numbers, full disks. One sentence, one code.

0 done, 1 a stage, a kernel or a disk failed, 2 bad arguments.
"""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import launch
from pulseline.pipeline import checkpoint
from test_cli import run

QUICK = ("train", "--samples", "8", "--batch-size", "8", "--device", "digital", "--epochs")
LONG = "a" * 300
TOO_LONG = "cannot be a directory (File name too long); use another"
LARGEST = "'; use an integer >= 1 and <= 9223372036854775807"
FULL = "cannot be written (File too large); use another directory"


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Files of this process cannot grow beyond so many bytes: a full disk without a disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize(
    "words",
    [
        "train --out=",
        "train --checkpoint=",
        "demo --out=",
        "schedule --out=",
        "lab clock --out=",
    ],
)
def test_an_empty_name_is_not_this_directory(
    capsys: pytest.CaptureFixture[str],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = run(capsys, *words.split())
    option = words.split()[-1][:-1]
    message = f"pulseline: error: argument {option}: is ''; name a directory, or use '.'"
    assert (code, out, err) == (2, "", message + "\n")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (f"train --out {LONG}", TOO_LONG),
        (f"train --checkpoint {LONG}", TOO_LONG),
        (
            f"train --resume --checkpoint {LONG}",
            TOO_LONG,
        ),
        (f"demo --out {LONG}", TOO_LONG),
        (f"schedule --out {LONG}", TOO_LONG),
        (f"train --device {LONG}", "device is 'aaa"),
        (
            "train --epochs 99999999999999999999",
            f"999{LARGEST}",
        ),
        (f"train --epochs {'9' * 5000}", LARGEST[1:]),
        (
            "train --samples 99999999999999999999",
            f"999{LARGEST}",
        ),
        (
            "train --stages 99999999999999999999",
            f"999{LARGEST}",
        ),
        ("train --batch-size 99999999999999999999", "999'; use an integer >= 1 and <= 2147483648"),
        ("train --seed 99999999999999999999", "999'; use an integer >= 0 and <= 4294967295"),
        ("train --lr 1e400", "is '1e400'; use a positive number"),
        (
            "train --samples 9223372036854775807",
            "7; use at most the 1437",
        ),
    ],
    ids=lambda value: value[:45],
)
def test_long_names_and_huge_numbers(
    capsys: pytest.CaptureFixture[str], words: str, message: str
) -> None:
    code, out, err = run(capsys, *words.split())
    assert (code, out) == (2, "")
    assert message in err
    assert err.startswith("pulseline: error: ")
    assert err.count("\n") == 1
    assert len(err) < 1200


@pytest.mark.parametrize("option", ["--out", "--checkpoint"])
def test_a_full_disk_is_noticed_before_the_training(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, option: str
) -> None:
    with largest_file(1000):
        code, out, err = run(capsys, *QUICK, "1", option, str(tmp_path / "run"))
    message = f"pulseline: error: {option} {tmp_path / 'run'} {FULL}\n"
    assert (code, out, err) == (1, "", message)
    assert not list((tmp_path / "run").iterdir())


@pytest.mark.parametrize(
    ("words", "file", "size"),
    [
        ((*QUICK, "1"), "accuracy.png", 8192),
        ((*QUICK, "1", "--timeline"), "timeline.json", 60_000),
        (("schedule", "--stages", "4", "--micro-batches", "64"), "timeline.json", 8192),
        (("demo", "--epochs", "1", "--seeds", "1"), "", 8192),
    ],
)
def test_a_disk_that_fills_up(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    words: tuple[str, ...],
    file: str,
    size: int,
) -> None:
    """What was computed has been printed by then."""
    with largest_file(size):
        code, out, err = run(capsys, *words, "--out", str(tmp_path))
    assert code == 1
    where = tmp_path / file if file else tmp_path
    assert err.splitlines()[-1] == (f"pulseline: error: {where} {FULL}")
    assert ("digest: " in out) == (words[0] == "train")


def test_a_result_is_whole_or_the_old_one(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, _, _ = run(capsys, *QUICK, "1", "--out", str(tmp_path))
    before = (tmp_path / "result.json").read_bytes()
    assert code == 0

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    code, out, err = run(capsys, *QUICK, "2", "--out", str(tmp_path))
    assert code == 1
    assert "digest: " in out
    assert err.splitlines()[-1] == (
        f"pulseline: error: {tmp_path / 'result.json'} "
        "cannot be written (No space left on device); use another directory"
    )
    assert (tmp_path / "result.json").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "accuracy.png",
        "result.json",
        "run.toml",
    ]


def test_a_disk_that_is_full_at_a_checkpoint(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Nothing of it stays in the way; with space again the run goes on to the same digest."""
    root = ["--checkpoint", str(tmp_path)]
    assert run(capsys, *QUICK, "1", *root)[0] == 0
    files = {path.name for path in tmp_path.iterdir()}
    with largest_file(20_000):  # a shard of 64 x 128 weights has 33 kB
        code, out, err = run(capsys, *QUICK, "3", *root, "--resume")
    assert (code, out) == (1, "")
    assert "stage1.pt cannot be written (File too large); use" in err.splitlines()[-1]
    assert {path.name for path in tmp_path.iterdir()} == files
    code, out, err = run(capsys, *QUICK, "3", *root, "--resume")
    assert code == 0
    assert "resumed after epoch 1" in err
    assert out == run(capsys, *QUICK, "3")[1]
    assert checkpoint.steps(tmp_path) == [3, 2]


def test_standard_output_that_is_full_or_gone() -> None:
    """/dev/full refuses every byte; a reader that has seen enough is no error."""
    command = "'{}' -m pulseline schedule --all --stages 64 --micro-batches 64"
    script = (
        "import subprocess, sys;"
        f"command = {command!r}.format(sys.executable);"
        "sys.exit(subprocess.run(['bash', '-c', sys.argv[1].format(command)]).returncode)"
    )
    done = launch.run("-c", script, "{} > /dev/full")
    message = "standard output cannot be read or written (No space left on device); use another"
    assert (done.code, done.err) == (1, f"pulseline: error: {message}\n")
    done = launch.run("-c", script, "set -o pipefail; {} | head -c 9")
    assert (done.code, done.err) == (0, "")


def test_a_checkpoint_of_somebody_elses_state(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another program wrote the same run's checkpoints, with a state of its own."""
    root = ["--checkpoint", str(tmp_path)]
    with monkeypatch.context() as patch:
        patch.setattr("pulseline.train._save", _save_another)
        assert run(capsys, *QUICK, "1", *root)[0] == 0
    code, out, err = run(capsys, *QUICK, "2", *root, "--resume")
    assert (code, out) == (2, "")
    assert "the checkpoint of step 1 holds state = {'mine': 1}, no 1 epochs of a training" in err
    assert err.count("\n") == 1


def _save_another(pipe: object, _: object, saving: object) -> None:
    checkpoint.save(pipe, saving.directory, 1, config=saving.config, state={"mine": 1})  # type: ignore[arg-type,attr-defined]

"""Damaged files of a checkpoint: whatever happened to a byte, the newest intact one is taken."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from checkpoint_cases import (
    CONFIG,
    STAGES,
    content,
    damage,
    flip,
    fresh,
    refused,
    train,
)
from pulseline.errors import ConfigError
from pulseline.pipeline import Pipeline, checkpoint
from pulseline.pipeline.manifest import Damaged, read

MANIFEST = "checkpoint-000002.json"
FILES = [MANIFEST, *(f"checkpoint-000002-stage{m}.pt" for m in range(1, STAGES + 1))]
# Bytes in a sample, of the size of every file; 7 is no divisor of 8, so all bits come.
SAMPLE = 40


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with steps 1 and 2."""
    root = tmp_path_factory.mktemp("saved")
    train(fresh(), root, last=2)
    return root


@pytest.fixture
def root(saved: Path, tmp_path: Path) -> Path:
    """A copy that may be spoilt."""
    shutil.copytree(saved, tmp_path / "copy")
    return tmp_path / "copy"


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Digest at step 1."""
    pipe = fresh()
    train(pipe, None, last=1)
    return pipe.digest()


def falls_back(root: Path, first: str, name: str, pipe: Pipeline | None = None) -> None:
    """Step 1 is taken, and one sentence names the file."""
    pipe = pipe or fresh()
    loaded = checkpoint.load(pipe, root, config=CONFIG)
    assert loaded is not None
    assert (loaded.step, loaded.state, len(loaded.skipped)) == (1, {"done": 1}, 1)
    assert loaded.skipped[0].startswith(f"{name} ")
    assert pipe.digest() == first


def bits(size: int, count: int) -> Iterator[tuple[int, int]]:
    """(byte, bit) of ``count`` bytes at equal distances, the first and the last among them."""
    for n in range(count):
        byte = n * (size - 1) // (count - 1)
        yield byte, (3 * n + byte) % 8


def sweep(root: Path, first: str, name: str, count: int | None) -> None:
    """Flip bits of a file one after the other; None: one bit of every byte."""
    path = root / name
    whole = path.read_bytes()
    aside = root / f"{MANIFEST}.damaged"
    pipe = fresh()
    for byte, bit in bits(len(whole), count or len(whole)):
        flip(path, byte, bit)
        falls_back(root, first, name, pipe)
        aside.replace(root / MANIFEST)
        path.write_bytes(whole)


@pytest.mark.parametrize("name", FILES)
def test_a_flipped_bit_costs_one_checkpoint(root: Path, first: str, name: str) -> None:
    sweep(root, first, name, SAMPLE)


@pytest.mark.full
@pytest.mark.parametrize("name", FILES)
def test_a_flipped_bit_of_every_byte(root: Path, first: str, name: str) -> None:
    sweep(root, first, name, None)


def test_every_bit_of_the_seal(root: Path, first: str) -> None:
    """The 78 bytes in front of what they seal, and the line's end."""
    path, pipe = root / MANIFEST, fresh()
    whole = path.read_bytes()
    for byte in range(whole.index(b"\n") + 1):
        for bit in range(8):
            flip(path, byte, bit)
            with pytest.raises(Damaged):
                read(path, 2)
            path.write_bytes(whole)
    assert checkpoint.load(pipe, root, config=CONFIG) is not None


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("keep", [0.0, 0.001, 0.5, 0.9999])
def test_truncation(root: Path, first: str, name: str, keep: float) -> None:
    damage(root, name, keep)
    falls_back(root, first, name)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
    "spoil",
    ["nested", "missing", "directory", "pipe", "dangling link", "older", "longer", "foreign"],
)
def test_other_damage(root: Path, first: str, name: str, spoil: str) -> None:
    path = root / name
    whole = path.read_bytes()
    path.unlink()
    if spoil == "nested":
        path.write_bytes(b"[" * 1_000_000)
    elif spoil == "directory":
        path.mkdir()
    elif spoil == "pipe":
        os.mkfifo(path)
    elif spoil == "dangling link":
        path.symlink_to(root / "nowhere")
    elif spoil == "older":
        shutil.copyfile(root / name.replace("000002", "000001"), path)
    elif spoil == "longer":
        path.write_bytes(whole + b"\n")
    elif spoil == "foreign":
        path.write_text('{"kind": "other"}')
    if name == MANIFEST and spoil == "missing":
        loaded = checkpoint.load(fresh(), root, config=CONFIG)
        assert loaded == (1, {"done": 1}, ())
    elif name == MANIFEST and spoil == "older":  # sealed, so somebody did it on purpose
        refused(root, "has step = 1, which pulseline does not write; delete it")
    else:
        falls_back(root, first, name)


def test_shards_that_changed_places(root: Path, first: str) -> None:
    one, two = (root / f"checkpoint-000002-stage{m}.pt" for m in (1, 2))
    data = one.read_bytes()
    one.write_bytes(two.read_bytes())
    two.write_bytes(data)
    falls_back(root, first, one.name)


def test_damage_to_the_older_one_is_not_looked_at(root: Path) -> None:
    damage(root, "checkpoint-000001.json")
    damage(root, "checkpoint-000001-stage1.pt")
    assert checkpoint.load(fresh(), root, config=CONFIG) == (2, {"done": 2}, ())
    assert (root / "checkpoint-000001.json").exists()


def test_one_that_is_damaged_does_not_count_as_kept(root: Path) -> None:
    """Of step 2, damaged, and 1, both stay beside 3 until two whole ones are there."""
    pipe = fresh()
    checkpoint.load(pipe, root, config=CONFIG)
    damage(root, MANIFEST)
    train(pipe, root, 2, 3)
    assert checkpoint.steps(root) == [3, 2, 1]
    train(pipe, root, 3, 4)
    assert checkpoint.steps(root) == [4, 3, 2]


@pytest.mark.parametrize("name", ["checkpoint-000001-stage2.pt", "checkpoint-000001.json"])
def test_none_is_complete(tmp_path: Path, name: str) -> None:
    train(fresh(), tmp_path, last=1)
    damage(tmp_path, name)
    refused(
        tmp_path, f"no checkpoint in .* is complete .{name} is damaged.; use another directory$"
    )
    (tmp_path / name).unlink()
    if name.endswith("pt"):
        refused(tmp_path, f"is complete .{name} cannot be read")


def test_where_nothing_can_be_renamed(
    root: Path, first: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A read-only directory: it is loaded all the same."""

    def deny(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    damage(root, MANIFEST)
    monkeypatch.setattr(Path, "replace", deny)
    falls_back(root, first, MANIFEST)
    assert checkpoint.steps(root) == [2, 1]


def test_other_spellings_are_other_files(tmp_path: Path) -> None:
    for name in ("checkpoint-0000007.json", "checkpoint-00000\uff17.json", "checkpoint-7.json"):
        (tmp_path / name).write_text("mine")
    assert checkpoint.steps(tmp_path) == []


# ---- what is written ----


def test_temporary_names_are_random_and_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are not followed: not even one that was guessed."""
    victim = tmp_path / "victim"
    victim.write_text("precious")
    root = tmp_path / "run"
    train(fresh(), root, last=1)
    old = root / "checkpoint-000002-stage1.pt.tmp"
    old.symlink_to(victim)
    seen: list[str] = []
    replace = os.replace

    def watch(source: Path, target: Path) -> None:
        seen.append(Path(source).name.removeprefix(Path(target).name))
        replace(source, target)

    monkeypatch.setattr(os, "replace", watch)
    pipe = fresh()
    checkpoint.load(pipe, root, config=CONFIG)
    train(pipe, root, 1, 2)
    assert len({*seen}) == len(seen) == STAGES + 1
    assert victim.read_text() == "precious"
    monkeypatch.setattr("secrets.token_hex", lambda n: "0" * 2 * n)
    guessed = root / f"checkpoint-000003-stage1.pt.{'0' * 16}.tmp"
    guessed.symlink_to(victim)
    with pytest.raises(RuntimeError, match=r"stage1\.pt cannot be written .File exists"):
        train(pipe, root, 2, 3)
    assert victim.read_text() == "precious"
    assert checkpoint.steps(root) == [2, 1]


def test_a_link_in_the_place_of_a_file_is_replaced(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    root = tmp_path / "run"
    root.mkdir()
    (root / "checkpoint-000001-stage1.pt").symlink_to(victim)
    train(fresh(), root, last=1)
    assert victim.read_text() == "precious"
    assert not (root / "checkpoint-000001-stage1.pt").is_symlink()


def test_what_killed_processes_left_goes(tmp_path: Path) -> None:
    """Temporary files and shards without a manifest; nothing of anybody else's."""
    kept = ["notes.txt", "checkpoint-000009-stage7.pt", "checkpoint-000009.json.damaged", "a.tmp"]
    lost = [
        f"checkpoint-000001-stage2.pt.{'ab' * 8}.tmp",
        f"checkpoint-000001.json.{'cd' * 8}.tmp",
        "checkpoint-000009-stage3.pt",
    ]
    for name in (*kept, *lost):
        (tmp_path / name).write_text("x")
    train(fresh(), tmp_path, last=2)
    assert {*kept} <= {*content(tmp_path)}
    assert not {*lost} & {*content(tmp_path)}
    assert len(content(tmp_path)) == len(kept) + 2 * (STAGES + 1)


def test_a_damaged_manifest_is_not_written_over(tmp_path: Path) -> None:
    """It may be somebody else's; load sets it aside if it is not."""
    train(fresh(), tmp_path, last=1)
    (tmp_path / MANIFEST).write_text('{"kind": "other"}')
    pipe = fresh()
    train(pipe, None, last=2)
    with pytest.raises(ConfigError, match="holds step 2; load it, or use another directory"):
        checkpoint.save(pipe, tmp_path, 2, config=CONFIG)
    assert (tmp_path / MANIFEST).read_text() == '{"kind": "other"}'

"""Runs that are killed again and again, anywhere, and resumed: the digest of one that was not.

``pytest -m full``. Moments come from a generator with a fixed seed: SIGKILL in an update, or an
exit around a file of a checkpoint, see ``killed_train``.
"""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

import killed_train
import launch
from checkpoint_cases import content
from pulseline.pipeline import checkpoint

RUNS = int(os.environ.get("PULSELINE_KILLED_RUNS", "20"))
STAGES, EPOCHS = 2, 4
WORDS = ["train", "--samples", "24", "--batch-size", "4", "--stages", "2", "--epochs", str(EPOCHS)]
KILLED = str(Path(killed_train.__file__))
# Updates of both stages, in one process, and files of all checkpoints.
UPDATES, FILES = STAGES * 6 * EPOCHS, (STAGES + 1) * EPOCHS


def moment(chance: random.Random, processes: int) -> str:
    """When to be killed next; in one of several processes fewer things happen."""
    if chance.random() < 0.5:
        return f"update:{chance.randint(1, UPDATES // processes)}"
    phase = chance.choice(["before", "during", "unnamed", "after"])
    return f"write:{chance.randint(1, FILES // processes)}:{phase}"


def once(executor: str, *argv: str) -> launch.Done:
    """One attempt; under "dist" both ranks, of which rank 1 dies."""
    if executor == "dist":
        return launch.ranks(STAGES, *argv)[0]
    return launch.run(*argv)


@pytest.mark.full
@pytest.mark.parametrize("executor", ["sim", "threads", "dist"])
def test_killed_until_done(tmp_path: Path, executor: str) -> None:
    """Every run ends with the output of the one in peace, and leaves whole checkpoints alone.

    Two of them, or three if the last kill came between the last manifest and the pruning.
    """
    chance = random.Random(executor)
    processes = STAGES if executor == "dist" else 1
    whole = launch.run("-m", "pulseline", *WORDS).out
    assert "digest: " in whole
    kills = 0
    for number in range(RUNS):
        root = tmp_path / str(number)
        more = ["--executor", executor, "--checkpoint", str(root), "--resume"]
        done, attempts = None, 0
        while done is None or done.code:
            done = once(executor, KILLED, moment(chance, processes), *WORDS, *more)
            kills += done.code != 0
            attempts += 1
            assert attempts < 40, done.err
            assert "Traceback" not in done.err or executor == "dist", done.err
        assert done.out == whole
        left = checkpoint.steps(root)
        assert left in ([EPOCHS, EPOCHS - 1], [EPOCHS, EPOCHS - 1, EPOCHS - 2])
        assert len(content(root)) == len(left) * (STAGES + 1)
    assert kills >= RUNS

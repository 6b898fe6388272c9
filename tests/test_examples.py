"""The scripts of ``docs/examples``: short, run as they are, and they learn."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

HOME = Path(__file__).resolve().parents[1] / "docs" / "examples"
SCRIPTS = sorted(HOME.glob("*.py"))


def test_there_is_one_of_every_family() -> None:
    assert [one.stem for one in SCRIPTS] == [
        *("mlp", "own_algorithm"),
        *(f"pipeline_{family}" for family in ("gpt", "lstm", "resnet", "schedules")),
        *("recurrent", "transformer"),
    ]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda one: one.stem)
def test_script(script: Path) -> None:
    """At most 25 lines that do something; the last line of the output is an accuracy."""
    lines = [line for line in script.read_text().splitlines() if line.strip()]
    assert len(lines) <= 25
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}  # small layers: threads cost more
    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr
    found = re.fullmatch(r"\w+: ([\d.]+)%", done.stdout.splitlines()[-1])
    assert found, done.stdout
    assert float(found[1]) > 85

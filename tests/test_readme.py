"""README.md: its commands are where .ci/run finds them, its examples run as they stand."""

from __future__ import annotations

import contextlib
import io
import re
import subprocess
from pathlib import Path

import pytest
import torch

import pulseline as pl

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
EXAMPLES = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
COMMANDS = [
    "pip install torch==2.13.0 '.[lab]' && pulseline demo",
    "pip install torch==2.13.0 '.[test]' && pytest",
]


def run(source: str) -> str:
    """What an example prints."""
    state, out = torch.get_rng_state(), io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(source, "README.md", "exec"), {"__name__": "__main__"})
    torch.set_rng_state(state)
    return out.getvalue()


def test_commands() -> None:
    blocks = re.findall(r"```\n(pip install [^\n]*)\n```", README)
    assert blocks == COMMANDS


def test_continuous_integration_runs_the_same_commands() -> None:
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & 0o111
    result = subprocess.run(
        ["bash", str(script), "--print"], capture_output=True, text=True, check=True
    )
    assert result.stdout.splitlines() == COMMANDS[::-1]


def test_the_long_run_names_its_steps() -> None:
    """``.ci/full --print``: one line a step, each with a function; no other step is accepted."""
    script = ROOT / ".ci" / "full"
    assert script.stat().st_mode & 0o111

    def call(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["bash", str(script), *words], capture_output=True, text=True)

    printed = call("--print")
    assert printed.returncode == 0, printed
    named = re.findall(r"^(\w+): \S.*$", printed.stdout, re.MULTILINE)
    assert len(named) == len(printed.stdout.splitlines())
    assert {"wheel", "baseline", "asan", "tsan", "full", "golden", "kills"} <= {*named}
    functions = re.findall(r"^(\w+)\(\) \{", script.read_text(), re.MULTILINE)
    assert [name for name in functions if name in named] == named
    wrong = call("nothing")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert wrong.stderr == f"nothing is no step; use {' '.join(named)}\n"


def test_pipeline_example() -> None:
    """Two passes suffice for far more than chance, on whatever kernels this machine has."""
    assert len(EXAMPLES[0].splitlines()) < 35
    printed = re.fullmatch(r"(\d+)% of 297 unseen digits, (\d+) clock cycles\n", run(EXAMPLES[0]))
    assert printed
    assert int(printed[1]) > 70
    # One filled pipeline of 4 stages: 2 (samples + stages - 1) clock cycles.
    assert int(printed[2]) == 2 * (3000 + 4 - 1)


def test_layer_example() -> None:
    assert len(EXAMPLES) == 6
    assert run(EXAMPLES[1]) == ""


def test_conversion_example() -> None:
    """Its table, and the 32 x 64 weights of the one layer that is analog among all three."""
    *table, share = run(EXAMPLES[2]).splitlines()
    assert [line.split()[0] for line in table] == ["layer", "0", "1", "3", "1"]
    assert "1 of 3 matrices analog" in table[-1]
    assert float(share) == 32 * 64 / (50 * 32 + 32 * 64 + 64 * 50)


def test_builder_example() -> None:
    """Four experts of one parameter on four arrays, by a builder of fewer than 25 lines."""
    _, row, total = run(EXAMPLES[3]).splitlines()
    assert "Experts" in row
    assert "4 of 3 x 8" in row
    assert total.startswith("4 of 4 matrices analog")
    builder = EXAMPLES[3].partition("class AnalogExperts")[2].partition("analog =")[0]
    assert len([line for line in builder.splitlines() if line.strip()]) < 25


@pytest.mark.parametrize("number", [4, 5])
def test_pipeline_examples(number: int) -> None:
    """A model cut by names, and stages by hand."""
    assert "pl.Pipeline(" in EXAMPLES[number]
    assert run(EXAMPLES[number]) == ""


@pytest.mark.parametrize("fidelity", pl.configs.FIDELITIES)
def test_every_fidelity_is_explained(fidelity: str) -> None:
    assert f"| `{fidelity}` |" in README


def test_devices_that_are_named_exist() -> None:
    """README.md names models for its readers; a new one need not be told to it."""
    (line,) = re.findall(r"- \*\*Devices\*\*(.*?)\n- ", README, re.DOTALL)
    named = set(re.findall(r"`([A-Z]\w+)`", line))
    assert len(named) > 5
    assert named <= {*pl.devices.DEVICES, "Ideal"}
    assert "`pl.devices.DEVICES`" in line

"""Four things make a device model: a copy of the tree gets one more, and its matrices run on it.

Compiled for the baseline instruction set alone; the CUDA kernels run in the emulator. Nothing but
``new_model.add`` touches the copy, so that a list which had to be told would show here.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

import new_model

pytestmark = pytest.mark.full
ROOT = Path(__file__).resolve().parents[1]
FLAGS = [
    *("-std=gnu++17", "-O1", "-fPIC", "-shared", "-fvisibility=hidden", "-Wall", "-Wextra"),
    *("-Werror", "-Wno-unknown-pragmas", "-ffp-contract=off", "-DPULSELINE_BASELINE_ONLY"),
]
# An editable install would go before PYTHONPATH.
RUN = """import sys, pytest
sys.meta_path[:] = [f for f in sys.meta_path if "editable" not in type(f).__module__]
sys.exit(pytest.main(sys.argv[1:]))"""
# Matrices of models, whose cases bear its name, and what only compares lists.
MATRICES = (
    *("devices", "update", "relaxed", "relaxed_statistics", "lowrank", "zoo", "ops", "bad_input"),
    *("degradation", "cli", "cli_device", "state_fields", "cuda_update", "cuda_retention"),
)
LISTS = (
    *("compat", "device_lists", "readme", "presets", "golden", "ops", "devices", "layout"),
    *("state_fields", "guards"),
)


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tree with the new model, compiled."""
    gcc = next(filter(None, map(shutil.which, ("g++", "c++", "clang++"))), None)
    if gcc is None:
        pytest.skip("no C++ compiler on this machine")
    root = tmp_path_factory.mktemp("tree") / "pulseline"
    ignored = shutil.ignore_patterns(".git", "build", "dist", ".*_cache", "__pycache__", "*.so")
    shutil.copytree(ROOT, root, ignore=ignored)
    new_model.add(root)
    csrc = root / "csrc"
    sources = [p for p in (csrc / "bind").glob("*.cpp") if not p.name.startswith("cuda")]
    sources += [
        p for p in (csrc / "cpu").glob("*.cpp") if not re.match(r"isa_(?!baseline)", p.name)
    ]
    paths = (sysconfig.get_path("include"), str(Path(torch.__file__).parent / "include"))
    command = [gcc, *FLAGS, *(f"-isystem{path}" for path in paths), f"-I{csrc}"]

    def compile_one(source: Path) -> str:
        out = root / f"{source.stem}_{source.parent.name}.o"
        subprocess.run([*command, "-c", str(source), "-o", str(out)], check=True)
        return str(out)

    with ThreadPoolExecutor(2) as pool:
        objects = list(pool.map(compile_one, sources))
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    module = root / "python" / "pulseline" / f"_cpu{suffix}"
    subprocess.run([*command, *objects, "-o", str(module)], check=True)
    return root


def run(root: Path, *words: str) -> str:
    """What pytest prints in the copy."""
    environment = {**os.environ, "PYTHONPATH": str(root / "python")}
    environment.pop("PULSELINE_ISA", None)
    done = subprocess.run(
        [sys.executable, "-c", RUN, "-q", "-rf", *words],
        cwd=root,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout + done.stderr


def files(names: tuple[str, ...]) -> list[str]:
    return [f"tests/test_{name}.py" for name in names]


def test_the_copy_is_what_runs(copy: Path) -> None:
    code = RUN.splitlines()[1]
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\n{code}\nimport pulseline; print(pulseline.__file__)"],
        env={**os.environ, "PYTHONPATH": str(copy / "python")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith(str(copy))


@pytest.mark.parametrize("name", MATRICES)
def test_matrices_take_it_in(copy: Path, name: str) -> None:
    said = run(copy, *files((name,)), "-k", "ParabolicStep or parabolic_step")
    assert re.search(r"^[0-9]+ passed", said, re.MULTILINE), said[-3000:]
    assert not re.search(r"\d+ (failed|error)", said), said[-3000:]


def test_no_list_misses_it(copy: Path) -> None:
    """Tests that name no model: lists that agree, documents, recorded bits, what compat knows."""
    quick = "not exported and not isa and not alone and not every_model_draws and not bits_on"
    said = run(copy, *files(LISTS), "-k", f"{quick} and not kernels")
    assert re.search(r"^[0-9]+ passed", said, re.MULTILINE), said[-3000:]
    assert not re.search(r"\d+ (failed|error)", said), said[-3000:]


def test_without_its_closed_form_it_fails(copy: Path) -> None:
    forms = copy / "tests" / "closed_forms.py"
    whole = forms.read_text()
    forms.write_text(whole.replace(new_model.CLOSED_FORM, ""))
    try:
        said = run(copy, "tests/test_update.py", "-x", "-k", "closed_form and ParabolicStep")
    finally:
        forms.write_text(whole)
    assert "tests/closed_forms.py has no parabolic_step" in said

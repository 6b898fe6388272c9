"""The CUDA kernels of csrc/cuda compiled for the CPU against tests/emulator, as a module with the
functions of ``pulseline._cuda`` that takes addresses of CPU tensors.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sysconfig
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
EMULATOR = ROOT / "tests" / "emulator"
FLAGS = [
    *("-std=gnu++17", "-O2", "-march=native", "-fPIC", "-fvisibility=hidden"),
    *("-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas", "-ffp-contract=off"),
]


def _sources() -> list[Path]:
    kernels = sorted((ROOT / "csrc" / "cuda").glob("*.cu"))
    bindings = sorted((ROOT / "csrc" / "bind").glob("cuda*.cpp"))
    return [*kernels, *bindings, EMULATOR / "emulator.cpp"]


def _digest(command: list[str]) -> str:
    """Of everything that the module depends on."""
    version = subprocess.run([command[0], "--version"], capture_output=True, check=True).stdout
    seed = hashlib.sha256(version + repr(command).encode())
    for folder in (EMULATOR, ROOT / "csrc"):
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                seed.update(path.read_bytes())
    return seed.hexdigest()[:16]


def build(folder: Path, defines: tuple[str, ...] = ()) -> Path:
    """Compile the module into a folder, unless it is there; skips without a compiler."""
    gcc = next(filter(None, map(shutil.which, ("g++", "c++", "clang++"))), None)
    if gcc is None:
        pytest.skip("no C++ compiler on this machine: the CUDA kernels are not emulated")
    # torch brings pybind11's headers along.
    paths = [EMULATOR, ROOT / "csrc", sysconfig.get_path("include")]
    paths.append(Path(torch.__file__).parent / "include")
    command = [gcc, *FLAGS, *(f"-isystem{p}" for p in paths[2:]), *(f"-I{p}" for p in paths[:2])]
    home = folder / _digest(command)
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    module = home / "-".join(["module", *defines]) / f"_cuda{suffix}"
    if module.exists():
        return module
    module.parent.mkdir(parents=True, exist_ok=True)

    def compile_one(source: Path) -> tuple[Path, str]:
        """The object file, of its own where the source names a define; what the compiler says."""
        own = [d for d in defines if d.partition("=")[0] in source.read_text()]
        out = home / "-".join([source.name, *own, "o"])
        if out.exists():
            return out, ""
        partial = f"{out}.{os.getpid()}"
        line = [*command, *(f"-D{d}" for d in own), "-x", "c++", "-c", str(source), "-o", partial]
        done = subprocess.run(line, capture_output=True, text=True, check=False)
        if done.returncode:
            return out, done.stderr
        os.replace(partial, out)
        return out, ""

    with ThreadPoolExecutor(2) as pool:
        objects = list(pool.map(compile_one, _sources()))
    errors = [text for _, text in objects if text]
    assert not errors, errors[0]
    partial = f"{module}.{os.getpid()}"
    subprocess.run([gcc, "-shared", "-o", partial, *(str(o) for o, _ in objects)], check=True)
    os.replace(partial, module)
    return module


class Emulated:
    """The module, and the emulator's settings."""

    def __init__(self, path: Path) -> None:
        spec = importlib.util.spec_from_file_location("_cuda", path)
        assert spec is not None
        assert spec.loader is not None
        self.module: Any = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(self.module)
        self._set: Callable[..., None] = ctypes.CDLL(str(path)).emulator_set
        self._set.argtypes = [ctypes.c_int] * 2 + [ctypes.c_int64] * 4  # type: ignore[attr-defined]

    @contextmanager
    def settings(
        self,
        reverse: bool = False,
        eager: bool = False,
        launch: int = -1,
        skip: int = -1,
        every: int = 0,
        early: int = 0,
    ) -> Iterator[None]:
        """See Settings in tests/emulator/emulator.h."""
        self._set(reverse, eager, launch, skip, every, early)
        try:
            yield
        finally:
            self._set(False, False, -1, -1, 0, 0)


class Serial:
    """The module for several threads: the emulator runs one call at a time."""

    def __init__(self, module: Any) -> None:
        self._module, self._lock = module, threading.Lock()
        self.calls: Counter[str] = Counter()

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._module, name)
        if not callable(found):
            return found

        def alone(*arguments: Any) -> Any:
            with self._lock:
                self.calls[name] += 1
                return found(*arguments)

        return alone

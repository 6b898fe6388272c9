"""Guards of the house: who may import whom, what an object exports, what documents name.

They read the source tree that the tests lie in, whatever package is installed.
"""

from __future__ import annotations

import ast
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "python" / "pulseline"
CSRC = ROOT / "csrc"

# ---- imports between the parts of the package ----

# Lowest first. A part may import those of earlier rows, never its own row's other parts.
ROWS = (
    ("errors",),
    ("digest", "identity", "settings"),
    ("devices",),
    ("io",),
    ("state", "parameter"),
    ("presets", "reference", "hardware", "ops", "compat"),
    ("tile",),
    ("mapping",),
    ("nn",),
    ("optim", "algorithms"),
    ("pipeline",),
    ("lab",),
    ("plots",),
    ("cli",),
    ("__main__", "__init__"),
)
LEVEL = {part: level for level, row in enumerate(ROWS) for part in row}
# What is written against torch alone, or without it, stays that way.
ONLY = {
    "devices": {"errors", "settings"},
    "state": {"errors", "settings", "identity"},
    "presets": {"errors", "devices", "io"},
    "compat": {"errors", "devices", "io"},
    "reference": {"errors", "devices", "io"},
    "hardware": {"errors", "devices", "io"},
    "ops": {"errors", "devices", "io", "_cpu", "_cuda"},
}
NO_TORCH = ("errors", "settings", "identity", "state", "devices", "io", "presets", "compat")
NO_TORCH += ("hardware",)
COMPILED = {"_cpu", "_cuda"}


def part_of(name: str) -> str:
    """cli_schedule.py is a piece of cli, plots_device.py of plots, ops_retention.py of ops."""
    part = name.removesuffix(".py")
    return next((whole for whole in ("cli", "plots", "ops") if part.startswith(f"{whole}_")), part)


def sources() -> Iterator[tuple[str, Path]]:
    """(part, file) of every module of the package."""
    for path in sorted(PACKAGE.rglob("*.py")):
        yield part_of(path.relative_to(PACKAGE).parts[0]), path


def imports(path: Path) -> set[str]:
    """Full dotted names that a file imports anywhere, functions and annotations included."""
    package = ["pulseline", *path.relative_to(PACKAGE).parts[:-1]]
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            base = [*base, *(node.module.split(".") if node.module else [])]
            found |= {".".join([*base, alias.name]) for alias in node.names}
    return found


def parts_of(path: Path) -> set[str]:
    """Parts of the package that a file imports."""
    names = (name.split(".") for name in imports(path))
    return {part_of(name[1]) for name in names if name[0] == "pulseline" and len(name) > 1}


def test_every_part_has_its_place() -> None:
    assert {part for part, _ in sources()} <= set(LEVEL)


def test_import_direction() -> None:
    for part, path in sources():
        for other in parts_of(path) - {part} - COMPILED:
            if part in ("cli", "lab") and other == "__version__":
                continue
            assert other in LEVEL, f"{path} imports {other}, which has no place in ROWS"
            assert LEVEL[other] < LEVEL[part], f"{path} imports {other}, which lies above {part}"


@pytest.mark.parametrize("part", ONLY)
def test_closed_parts(part: str) -> None:
    """In particular: reference and ops never see each other."""
    for found, path in sources():
        if found == part:
            assert parts_of(path) - {part} <= ONLY[part], path


def test_ops_is_the_only_importer_of_compiled_modules() -> None:
    importers = {part for part, path in sources() if parts_of(path) & COMPILED}
    assert importers == {"ops"}


@pytest.mark.parametrize("part", NO_TORCH)
def test_configuration_imports_no_torch(part: str) -> None:
    for found, path in sources():
        if found == part:
            assert not any(name.split(".")[0] == "torch" for name in imports(path)), path


def test_import_is_cheap_and_touches_no_gpu() -> None:
    """Checked in a fresh interpreter; optional packages are imported where they are used."""
    code = (
        "import sys, pulseline, torch\n"
        "assert not torch.cuda.is_initialized()\n"
        "heavy = {'matplotlib', 'sklearn', 'tqdm', 'scipy', 'pandas', 'hypothesis', 'pytest'}\n"
        "loaded = {name.partition('.')[0] for name in sys.modules}\n"
        "print('loaded:', *sorted((heavy & loaded) - before))"
    )
    # What torch itself brings along does not count.
    before = "import sys, torch; before = {name.partition('.')[0] for name in sys.modules}\n"
    result = subprocess.run(
        [sys.executable, "-c", before + code], capture_output=True, text=True, check=True
    )
    assert result.stdout.splitlines()[-1].strip() == "loaded:"


# ---- C++ ----


def includes(path: Path) -> list[str]:
    return re.findall(r'^\s*#\s*include\s*[<"]([^>"]+)[>"]', path.read_text(), re.MULTILINE)


def files(folder: str, *suffixes: str) -> list[Path]:
    found = sorted(p for p in (CSRC / folder).rglob("*") if p.suffix in suffixes)
    assert found
    return found


def test_core_includes_nothing_but_cstdint_and_itself() -> None:
    for path in files("core", ".h"):
        for name in includes(path):
            assert name == "cstdint" or name.startswith("core/"), f"{path} includes {name}"


def test_backends_do_not_see_each_other_nor_the_bindings() -> None:
    for folder, others in (("cpu", ("cuda/", "bind/")), ("cuda", ("cpu/", "bind/"))):
        if (CSRC / folder).exists():
            for path in files(folder, ".h", ".inl", ".cpp", ".cu"):
                for name in includes(path):
                    assert not name.startswith(others), f"{path} includes {name}"


def test_compiled_code_knows_no_torch() -> None:
    for path in (p for p in CSRC.rglob("*") if p.is_file()):
        assert not any(re.match(r"(torch|ATen|c10)/", n) for n in includes(path)), path


def cmake_list(variable: str) -> list[str]:
    """Words of ``set(variable ...)`` in CMakeLists.txt."""
    text = (ROOT / "CMakeLists.txt").read_text()
    found = re.search(rf"\bset\({variable}\s+([^)]*)\)", text)
    assert found, variable
    return found[1].split()


def isa_flags(source: str) -> list[str]:
    """Flags that CMakeLists.txt adds for one source of an instruction set."""
    text = (ROOT / "CMakeLists.txt").read_text()
    pattern = rf'{re.escape(source)}\s+PROPERTIES\s+COMPILE_OPTIONS\s+"([^"]*)"'
    found = re.search(pattern, text)
    options = found[1].split(";") if found else []
    flags: list[str] = []
    for option in options:
        variable = re.fullmatch(r"\$\{(\w+)\}", option)
        flags += cmake_list(variable[1]) if variable else [option]
    return flags


def compiler() -> list[str]:
    """The command of a C++ compiler as the build sets it up, but for optimisation."""
    names = (os.environ.get("CXX"), "c++", "g++", "clang++")
    found = next((path for path in map(shutil.which, filter(None, names)) if path), None)
    if found is None:
        pytest.skip("no C++ compiler on this machine")
    flags = [f for f in cmake_list("PULSELINE_FLAGS") if not f.startswith("-O")]
    openmp = [found, "-fopenmp", "-fsyntax-only", "-include", "omp.h", "-x", "c++", os.devnull]
    if subprocess.run(openmp, capture_output=True, check=False).returncode == 0:
        flags.append("-fopenmp")
    else:  # it is optional
        flags += ["-Wno-unknown-pragmas", "-Wno-unused-parameter"]
    return [found, "-std=gnu++17", "-fPIC", "-fvisibility=hidden", *flags, f"-I{CSRC}"]


def on_x86() -> bool:
    return platform.machine().lower() in ("x86_64", "amd64")


def runs(commands: list[list[str]]) -> Iterator[tuple[list[str], subprocess.CompletedProcess[str]]]:
    """Run commands two at a time."""

    def run(command: list[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, capture_output=True, text=True, check=False)

    with ThreadPoolExecutor(2) as pool:
        yield from zip(commands, pool.map(run, commands), strict=True)


def test_every_header_compiles_alone() -> None:
    gcc, x86 = compiler(), on_x86()
    commands = []
    for path in [*files("core", ".h"), *files("cpu", ".h")]:
        isa = re.fullmatch(r"simd_(avx\w+)\.h", path.name)
        if isa and not x86:
            continue
        flags = isa_flags(f"csrc/cpu/isa_{isa[1]}.cpp") if isa else []
        alone = ["-fsyntax-only", "-Werror", "-include", str(path), "-x", "c++", os.devnull]
        commands.append([*gcc, *flags, *alone])
    assert len(commands) > 10
    for command, result in runs(commands):
        assert result.returncode == 0, f"{command[-4]}\n{result.stderr}"


def test_isa_objects_export_one_symbol(tmp_path: Path) -> None:
    """Their kernel table. A weak symbol would let the linker keep one ISA's copy for everybody."""
    gcc = compiler()
    if shutil.which("nm") is None:
        pytest.skip("no nm on this machine")
    units = sorted((CSRC / "cpu").glob("isa_*.cpp"))
    assert len(units) >= 3
    if not on_x86():
        units = [unit for unit in units if unit.stem == "isa_baseline"]
    commands = []
    for unit in units:
        flags = isa_flags(f"csrc/cpu/{unit.name}")
        assert flags or unit.stem == "isa_baseline"
        out = str(tmp_path / f"{unit.stem}.o")
        # Unoptimised is quick and strict: what is inline but not always inlined shows up as weak.
        commands.append([*gcc, *flags, "-O0", "-fno-exceptions", "-c", str(unit), "-o", out])
    for command, result in runs(commands):
        assert result.returncode == 0, result.stderr
        nm = ["nm", "--defined-only", "--extern-only", command[-1]]
        symbols = subprocess.run(nm, capture_output=True, text=True, check=True).stdout.split("\n")
        table = f"table_{Path(command[-1]).stem.removeprefix('isa_')}"
        (symbol,) = [line.split() for line in symbols if line.strip()]
        assert symbol[1] in "DBR", symbol  # data, neither weak (W, V) nor code
        assert re.fullmatch(rf"_?_ZN9pulseline3cpu{len(table)}{table}E", symbol[2]), symbol


# ---- sizes and documents ----


def test_files_are_short() -> None:
    suffixes = {".py", ".pyi", ".h", ".inl", ".cpp", ".cu"}
    for folder in ("python", "csrc", "tests", "bench"):
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in suffixes:
                lines = len(path.read_text().splitlines())
                assert lines <= 500, f"{path} has {lines} lines: split it"


DOCUMENTS = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")


def named_files(text: str) -> set[str]:
    """Paths in backticks or links: with a slash or a known ending, and no placeholder."""
    words = {w for quoted in re.findall(r"(?<!`)`([^`\n]+)`(?!`)", text) for w in quoted.split()}
    words |= set(re.findall(r"\]\(([^)#\s]+)\)", text))
    ending = re.compile(r"\.(py|pyi|h|inl|cpp|cu|md|toml|txt|png|svg)$")
    return {
        word
        for word in words
        if ("/" in word or ending.search(word)) and not re.search(r"[<>{}*'\"$:=]", word)
    }


@pytest.mark.parametrize("document", DOCUMENTS)
def test_documents_name_files_that_exist(document: str) -> None:
    for name in named_files((ROOT / document).read_text()):
        places = (ROOT / name, PACKAGE / name, CSRC / name)
        assert any(place.exists() for place in places), f"{document} names {name}"


def test_the_search_for_names_finds_them() -> None:
    text = (
        "see `csrc/core/none.h`, [this](docs/none.md), `ops.py`, `pip install '.[lab]'`, `a = b/c`"
    )
    assert named_files(text) == {"csrc/core/none.h", "docs/none.md", "ops.py", "b/c"}

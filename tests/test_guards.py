"""Guards of the house: who may import whom, what an object exports, what documents name.

They read the source tree that the tests lie in, whatever package is installed.
"""

from __future__ import annotations

import ast
import importlib
import os
import platform
import re
import shutil
import subprocess
import sys
import types
import typing
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "python" / "pulseline"
CSRC = ROOT / "csrc"

# ---- imports between the parts of the package ----

# Lowest first: files and packages by their own names. A part may import those of earlier rows,
# never its own row's other parts.
ROWS = (
    ("errors", "torch_private"),
    ("digest", "identity", "settings", "schedules", "uncounted"),
    ("devices", "hardware"),
    ("presets",),
    ("configs",),
    ("reference", "ops"),
    ("arrays",),
    ("cells",),
    ("algorithms", "nn", "counted"),
    ("optim", "compat"),
    ("pipeline",),
    ("cost", "data", "models"),
    ("train",),
    ("lab",),
    ("cli",),
    ("__main__", "__init__"),
)
# The same inside ops.
OPS_ROWS = (
    ("layout",),
    ("checks",),
    ("library", "cuda.module", "cuda.outcomes"),
    ("environment", "cuda.launch", "crosspoints", "wires", "unfold", "buffered"),
    ("cuda.batch", "cuda.read"),
    ("read", "update", "retention"),
    ("transfer", "buffered"),
    ("resident",),
    ("__init__",),
)
LEVEL = {part: level for level, row in enumerate(ROWS) for part in row}
OPS_LEVEL = {part: level for level, row in enumerate(OPS_ROWS) for part in row}
# What is written against torch alone, or without it, stays that way.
ONLY = {
    "devices": {"errors", "settings"},
    "schedules": {"errors"},
    "hardware": {"errors"},
    "configs": {"errors", "settings", "devices", "presets"},
    "presets": {"errors", "devices"},
    "compat": {"errors", "devices", "configs", "algorithms"},
    "reference": {"errors", "devices", "configs"},
    "ops": {"errors", "torch_private", "devices", "configs", "_cpu", "_cuda"},
    "data": {"errors"},
    "train": {"data", "errors", "optim", "pipeline", "schedules"},
}
NO_TORCH = ("errors", "settings", "identity", "configs", "devices", "presets", "compat")
NO_TORCH += ("hardware", "schedules")
COMPILED = {"_cpu", "_cuda"}
IMPORTERS = {
    "checks",
    "layout",
    "environment",
    "crosspoints",
    "read",
    "update",
    "retention",
    "transfer",
    "buffered",
    "wires",
    "unfold",
}
IMPORTERS |= {"cuda.module"}


def sources() -> Iterator[tuple[str, Path]]:
    """(part, file) of every module of the package."""
    for path in sorted(PACKAGE.rglob("*.py")):
        yield path.relative_to(PACKAGE).parts[0].removesuffix(".py"), path


def ops_sources() -> Iterator[tuple[str, Path]]:
    """(dotted name inside ops, file)."""
    home = PACKAGE / "ops"
    for path in sorted(home.rglob("*.py")):
        yield ".".join(path.relative_to(home).with_suffix("").parts), path


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
    return {name[1] for name in names if name[0] == "pulseline" and len(name) > 1}


def ops_parts_of(path: Path) -> set[str]:
    """Files of ops that a file imports."""
    names = (name.removeprefix("pulseline.ops.") for name in imports(path))
    known = {known for known, _ in ops_sources()}
    return {part for name in names for part in known if f"{name}.".startswith(f"{part}.")}


def test_every_part_has_its_place() -> None:
    assert {part for part, _ in sources()} <= set(LEVEL)


def test_import_direction() -> None:
    for part, path in sources():
        for other in parts_of(path) - {part} - COMPILED:
            if part in ("cli", "lab") and other == "__version__":
                continue
            assert other in LEVEL, f"{path} imports {other}, which has no place in ROWS"
            assert LEVEL[other] < LEVEL[part], f"{path} imports {other}, which lies above {part}"


def file_graph() -> dict[str, set[str]]:
    """Dotted name of every file of the package -> files that it imports; compiled modules aside."""
    paths = {".".join(p.relative_to(PACKAGE).with_suffix("").parts): p for _, p in sources()}
    graph = {}
    for file, path in paths.items():
        found = set()
        for name in imports(path):
            top, *words = name.split(".")
            if top != "pulseline" or words[:1] in ([one] for one in COMPILED):
                continue
            tries = (words, words[:-1], [*words, "__init__"], [*words[:-1], "__init__"])
            known = [w for words in tries if (w := ".".join(words)) in paths]
            found |= set(known[:1])
        graph[file] = found - {file}
    return graph


def longest_chain(graph: Mapping[str, Collection[str]]) -> int:
    """Length of the longest path; CycleError if there is a circle."""
    longest: dict[str, int] = {}
    for name in TopologicalSorter(graph).static_order():
        longest[name] = 1 + max((longest[other] for other in graph.get(name, ())), default=0)
    return max(longest.values())


def test_no_circles() -> None:
    longest_chain(file_graph())
    with pytest.raises(CycleError):
        longest_chain({"a": {"b"}, "b": {"c"}, "c": {"a"}})


def test_few_floors() -> None:
    """From the front door to the ground floor, counted in parts of the package."""
    graph: dict[str, set[str]] = {}
    for part, path in sources():
        graph.setdefault(part, set()).update(parts_of(path) - {part, "__version__"} - COMPILED)
    assert len(graph) == len(LEVEL)
    assert longest_chain(graph) <= 14


@pytest.mark.parametrize("part", ONLY)
def test_closed_parts(part: str) -> None:
    """In particular: reference and ops never see each other."""
    for found, path in sources():
        if found == part:
            assert parts_of(path) - {part} <= ONLY[part], path


def test_import_direction_inside_ops() -> None:
    assert {part for part, _ in ops_sources()} == {*OPS_LEVEL, "cuda.__init__"}
    for part, path in ops_sources():
        for other in ops_parts_of(path) - {part}:
            assert OPS_LEVEL[other] < OPS_LEVEL[part], f"{path} imports {other}, which lies above"
    assert "checks" in ops_parts_of(PACKAGE / "ops" / "read.py")  # the search finds them


def test_importers_of_compiled_modules() -> None:
    importers = {path for _, path in sources() if parts_of(path) & COMPILED}
    assert importers == {path for part, path in ops_sources() if part in IMPORTERS}


# ---- no state in modules ----

# Registrations with torch, and caches of what is the same whenever it is asked.
STATE = {"library.LIBRARY", "cuda.module.kernels"}
FIXED = (
    *(type(None), bool, int, float, str, tuple, frozenset, type, types.ModuleType),
    *(types.FunctionType, types.BuiltinFunctionType, types.MappingProxyType, types.GenericAlias),
    *(
        types.UnionType,
        typing.TypeVar,
        torch.dtype,
        torch.layout,
        torch.device,
        torch._ops.OpOverload,
    ),
)


def states(module: types.ModuleType, imported: Collection[str] = ()) -> set[str]:
    """Names of a module, and of its classes, whose values can change."""
    found = set()
    for name, value in vars(module).items():
        if name.startswith("__") or name in imported or typing.get_origin(value) is not None:
            continue
        if not isinstance(value, FIXED):
            found.add(name)
        if isinstance(value, type) and value.__module__ == module.__name__:
            held = (
                n for n, v in vars(value).items() if isinstance(v, (list, dict, set, bytearray))
            )
            found |= {f"{name}.{n}" for n in held if not n.startswith(("__", "_field"))}
    return found


def test_ops_keep_nothing_between_calls() -> None:
    """What one call leaves to another belongs to an object of the caller."""
    found: set[str] = set()
    for part, path in ops_sources():
        tree = ast.parse(path.read_text())
        assert not any(isinstance(n, (ast.Global, ast.Nonlocal)) for n in ast.walk(tree)), path
        name = f"pulseline.ops.{part}".removesuffix(".__init__")
        importlib.import_module(name)
        found |= {f"{part}.{n}" for n in states(sys.modules[name], _aliases(tree))}
    assert found == STATE


def _aliases(tree: ast.Module) -> set[str]:
    """Names that imports of a module give."""
    froms = (n for n in tree.body if isinstance(n, (ast.Import, ast.ImportFrom)))
    return {alias.asname or alias.name.partition(".")[0] for n in froms for alias in n.names}


def test_the_search_for_state_finds_it() -> None:
    module = types.ModuleType("found")
    exec("kept, table, count, lock = [], {}, 0, object()\nclass C:\n    seen = {}\n", vars(module))
    vars(module)["C"].__module__ = "found"
    assert states(module) == {"kept", "table", "lock", "C.seen"}


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

# Registered operators take tensors and numbers one by one, and so do the functions that state or
# write out their arguments.
OPERATORS = {"ops/update.py", "ops/retention.py", "ops/transfer.py", "tests/operators.py"}
OPERATORS |= {f"reference/{name}.py" for name in ("read", "update", "retention", "transfer")}


def python_files() -> Iterator[tuple[str, ast.Module]]:
    """(name in its folder, tree) of every Python file."""
    for folder in (PACKAGE, ROOT / "tests", ROOT / "bench"):
        for path in sorted(folder.rglob("*.py")):
            home = folder if folder == PACKAGE else ROOT
            yield path.relative_to(home).as_posix(), ast.parse(path.read_text())


def functions(tree: ast.AST) -> Iterator[tuple[str, int, int]]:
    """(name, lines, arguments but self) of every function."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            given = node.args
            names = [a.arg for a in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
            count = len(names) - (names[:1] in (["self"], ["cls"]))
            yield node.name, (node.end_lineno or node.lineno) - node.lineno + 1, count


def test_files_are_short() -> None:
    suffixes = {".py", ".pyi", ".h", ".inl", ".cpp", ".cu"}
    for folder in ("python", "csrc", "tests", "bench"):
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in suffixes:
                lines = len(path.read_text().splitlines())
                assert lines <= 500, f"{path} has {lines} lines: split it"


def test_functions_are_short() -> None:
    for file, tree in python_files():
        for name, lines, _ in functions(tree):
            assert lines <= 60, f"{file}: {name} has {lines} lines: split it"


def test_signatures_are_short() -> None:
    long = set()
    for file, tree in python_files():
        for name, _, count in functions(tree):
            if count > 8:
                long.add(file)
                assert file in OPERATORS, f"{file}: {name} has {count} arguments: make a struct"
    assert long == OPERATORS  # nothing is excused that need not be


def test_the_searches_for_sizes_find_them() -> None:
    tree = ast.parse("class A:\n  def f(self, a, *, b, **c):\n    pass\nasync def g(self, a): pass")
    assert sorted(functions(tree)) == [("f", 2, 2), ("g", 1, 1)]


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
        "see `csrc/core/none.h`, [this](docs/none.md), `tile.py`, `pip install '.[lab]'`, `a = b/c`"
    )
    assert named_files(text) == {"csrc/core/none.h", "docs/none.md", "tile.py", "b/c"}

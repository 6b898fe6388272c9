"""Guards of what a user reads: ``__all__``, docstrings with Args, Returns and Raises, messages.

They read the source tree. A part whose name begins with an underscore is nobody's but its file's.
"""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).resolve().parents[1] / "python" / "pulseline"
ERRORS = ("ConfigError", "BackendError", "StageFailed")
SECTIONS = ("Args", "Attributes", "Returns", "Yields", "Raises")
# What others are rewriting now.
NOT_YET = (
    *("nn/", "optim.py", "arrays/", "cells/", "configs/crossbar.py", "presets.py", "compat/"),
    *("identity.py", "devices/", "cli/"),
)

Function = ast.FunctionDef | ast.AsyncFunctionDef
Documented = Function | ast.ClassDef


# ---- what is public ----


def public(name: str) -> bool:
    return not name.startswith("_")


@dataclass
class Module:
    """A file of the package, by its path there."""

    path: str
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)

    @property
    def house(self) -> bool:
        """An ``__init__.py``: it exports what it imports from the rooms of the package."""
        return self.path.rpartition("/")[2] == "__init__.py"

    @cached_property
    def exported(self) -> list[str] | None:
        """``__all__``; None if there is none, or if it is not written out."""
        for node in self.tree.body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
                return [str(ast.literal_eval(name)) for name in getattr(node.value, "elts", ())]
        return None

    @cached_property
    def defined(self) -> set[str]:
        """Public names that the module makes; in a house also those that it brings together."""
        found: set[str] = set()
        for node in self.tree.body:
            if isinstance(node, Documented):
                found.add(node.name)
            elif isinstance(node, (ast.Assign, ast.AnnAssign)) and not _is_variable(node.value):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                names = (n for target in targets for n in ast.walk(target))
                found |= {n.id for n in names if isinstance(n, ast.Name)}
            elif isinstance(node, ast.ImportFrom) and node.level == 1 and self.house:
                found |= {alias.asname or alias.name for alias in node.names}
        return set(filter(public, found))

    @cached_property
    def origins(self) -> dict[str, str]:
        """Imported name -> where it is from, dotted; from the package: without its name."""
        found: dict[str, str] = {}
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                for one in node.names:
                    top = one.asname or one.name.partition(".")[0]
                    found[top] = one.name if one.asname else top
            elif isinstance(node, ast.ImportFrom):
                home = self.path.split("/")[: -node.level] if node.level else []
                base = ".".join([*home, node.module or ""]).strip(".")
                found |= {a.asname or a.name: f"{base}.{a.name}" for a in node.names}
        return found

    def documented(self) -> Iterator[tuple[str, Documented, ast.ClassDef | None]]:
        """(name, node, class that holds it) of every public function, class and method."""
        yield from _inside(self.tree.body, "", None)


def _is_variable(value: ast.expr | None) -> bool:
    """A TypeVar: a name of the type checker's."""
    return isinstance(value, ast.Call) and ast.unparse(value.func) in ("TypeVar", "ParamSpec")


def _inside(
    body: list[ast.stmt], prefix: str, owner: ast.ClassDef | None
) -> Iterator[tuple[str, Documented, ast.ClassDef | None]]:
    for node in body:
        if isinstance(node, Documented) and public(node.name):
            yield prefix + node.name, node, owner
            if isinstance(node, ast.ClassDef):
                yield from _inside(node.body, f"{prefix}{node.name}.", node)


def modules() -> list[Module]:
    """Every public module of the package."""
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        if path.name == "__init__.py" or public(path.name):
            name = path.relative_to(PACKAGE).as_posix()
            found.append(Module(name, path.read_text()))
    return found


MODULES = modules()
CLASSES = [(m, n) for m in MODULES for n in ast.walk(m.tree) if isinstance(n, ast.ClassDef)]


def waits(module: Module) -> bool:
    return module.path.startswith(NOT_YET)


# ---- what a docstring must say ----


def sections(text: str | None) -> dict[str, str]:
    """Section -> its text; "" -> what comes before the first."""
    pattern = rf"^({'|'.join(SECTIONS)}):"
    parts = re.split(pattern, text or "", flags=re.MULTILINE)
    return {"": parts[0]} | dict(zip(parts[1::2], parts[2::2], strict=True))


def parameters(node: Function) -> list[str]:
    """Names of the arguments; ``self`` and unused ones, which begin with ``_``, aside."""
    given = node.args
    found = [*given.posonlyargs, *given.args, given.vararg, *given.kwonlyargs, given.kwarg]
    names = [one.arg for one in found if one is not None]
    return [name for name in names if name not in ("self", "cls") and public(name)]


def decorated(node: Documented, *names: str) -> bool:
    given = (one.func if isinstance(one, ast.Call) else one for one in node.decorator_list)
    return any(ast.unparse(one).rpartition(".")[2] in names for one in given)


def bases(module: Module, node: ast.ClassDef) -> Iterator[tuple[Module, ast.ClassDef] | Any]:
    """Classes above, nearest first: (module, node) in the package, objects outside it."""
    for base in node.bases:
        text = ast.unparse(base).partition("[")[0]
        first, *rest = text.split(".")
        here = module.path.removesuffix(".py").replace("/", ".")
        words = [*module.origins.get(first, f"{here}.{first}").split("."), *rest]
        room = "/".join(words[:-1])
        own = [(m, n) for m, n in CLASSES if n.name == words[-1] and m.path.startswith(room)]
        if own:
            yield own[0]
            yield from bases(*own[0])
            continue
        words = words if first in module.origins else ["builtins", first]
        for cut in range(len(words) - 1, 0, -1):
            try:
                found = importlib.import_module(".".join(words[:cut]))
                for word in words[cut:]:
                    found = getattr(found, word)
            except (ImportError, AttributeError):
                continue
            yield found
            break


def protocols(module: Module) -> list[tuple[Module, ast.ClassDef]]:
    """The protocols of a module's folder: who follows one need not inherit it."""
    folder = module.path.rpartition("/")[0]
    return [
        (m, n)
        for m, n in CLASSES
        if m.path.rpartition("/")[0] == folder and "Protocol" in map(ast.unparse, n.bases)
    ]


def inherits(module: Module, owner: ast.ClassDef | None, name: str) -> bool:
    """Whether a class above, or a protocol beside it, says what the method is for."""
    if owner is None:
        return False
    above_all = [*bases(module, owner), *(p for p in protocols(module) if p[1] is not owner)]
    for above in above_all:
        if isinstance(above, tuple):
            methods = (n for n in above[1].body if isinstance(n, Function) and n.name == name)
            if any(ast.get_docstring(method) for method in methods):
                return True
        elif hasattr(above, name):
            return True
    return False


def made_with(module: Module, node: ast.ClassDef) -> tuple[list[str], list[ast.AST]]:
    """What making an instance takes, and the code that runs then."""
    bodies = [n for n in node.body if isinstance(n, Function)]
    code = [n for n in bodies if n.name in ("__init__", "__post_init__", "__new__")]
    init = next((n for n in bodies if n.name == "__init__"), None)
    names = parameters(init) if init else []
    if decorated(node, "dataclass"):
        fields = (n for n in node.body if isinstance(n, ast.AnnAssign))
        names = [
            ast.unparse(n.target) for n in fields if "ClassVar" not in ast.unparse(n.annotation)
        ]
        names = list(filter(public, names))
    return names, list(code)


def raised(code: list[ast.AST]) -> set[str]:
    """Errors of the package that the code itself raises; functions inside it aside."""
    found: set[str] = set()
    for node in code:
        inner = [c for c in ast.iter_child_nodes(node) if not isinstance(c, (Function, ast.Lambda))]
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            found |= {ast.unparse(node.exc.func)} & {*ERRORS}
        found |= raised(inner)
    return found


def lacks(module: Module, node: Documented, owner: ast.ClassDef | None) -> list[str]:
    """What the docstring does not say."""
    text = ast.get_docstring(node)
    if text is None:
        if not isinstance(node, ast.ClassDef) and inherits(module, owner, node.name):
            return []
        return ["a docstring"]
    if isinstance(node, ast.ClassDef):
        names, code = made_with(module, node)
    elif decorated(node, "overload"):
        return []
    else:
        names, code = parameters(node), [node]
    if not isinstance(node, ast.ClassDef) and inherits(module, owner, node.name):
        names = []
    said = sections(text)
    missing = []
    if not re.match(r"\S.*?[.:?](\s|$)", said[""], re.DOTALL):
        missing.append("a sentence that begins it")
    listed = said.get("Args", "") + said.get("Attributes", "")
    if len(names) > 1:
        missing += [f"{n} in Args" for n in names if not re.search(rf"(?<![\w.]){n}\b", listed)]
    found = raised([*code] if isinstance(node, ast.ClassDef) else list(node.body))
    missing += [f"{e} in Raises" for e in sorted(found) if e not in said.get("Raises", "")]
    return missing

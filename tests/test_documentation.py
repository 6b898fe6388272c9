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
MESSAGES = (*ERRORS, "argparse.ArgumentTypeError")
SECTIONS = ("Args", "Attributes", "Returns", "Yields", "Raises")

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

    @cached_property
    def exported(self) -> list[str] | None:
        """``__all__``; None if there is none, or if it is not written out."""
        for node in self.tree.body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
                return [str(ast.literal_eval(name)) for name in getattr(node.value, "elts", ())]
        return None

    @cached_property
    def defined(self) -> set[str]:
        """Public names that the module makes."""
        found: set[str] = set()
        for node in self.tree.body:
            if isinstance(node, Documented):
                found.add(node.name)
            elif isinstance(node, (ast.Assign, ast.AnnAssign)) and not _is_variable(node.value):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                names = (n for target in targets for n in ast.walk(target))
                found |= {n.id for n in names if isinstance(n, ast.Name)}
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


# Parts that nobody builds on; what other parts import from them are their entry points.
INNER = ("lab", "cli")
ENTRIES = {
    name
    for m in MODULES
    for name, origin in m.origins.items()
    if origin.startswith(INNER) and not m.path.startswith(origin.partition(".")[0] + "/")
}


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


def called_within(module: Module, name: str) -> bool:
    """Whether nobody outside the lab, or the command line, calls what is theirs."""
    room = module.path.partition("/")[0]
    return room in INNER and name.partition(".")[0] not in ENTRIES


def made_with(module: Module, node: ast.ClassDef) -> tuple[list[str], list[ast.AST]]:
    """What making an instance takes, and the code that runs then."""
    bodies = [n for n in node.body if isinstance(n, Function)]
    code = [n for n in bodies if n.name in ("__init__", "__post_init__", "__new__")]
    init = next((n for n in bodies if n.name == "__init__"), None)
    names = parameters(init) if init else []
    if decorated(node, "dataclass"):
        fields = [n for n in node.body if isinstance(n, ast.AnnAssign)]
        taken = (n for n in fields if "ClassVar" not in ast.unparse(n.annotation))
        names = list(filter(public, (ast.unparse(n.target) for n in taken)))
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


def lacks(module: Module, name: str, node: Documented, owner: ast.ClassDef | None) -> list[str]:
    """What the docstring of a public function or class does not say."""
    text = ast.get_docstring(node)
    if decorated(node, "overload", "setter"):
        return []
    if text is None:
        if not isinstance(node, ast.ClassDef) and inherits(module, owner, node.name):
            return []
        return ["a docstring"]
    if isinstance(node, ast.ClassDef):
        names, code = made_with(module, node)
    else:
        names, code = parameters(node), [node]
    said = sections(text)
    described = not isinstance(node, ast.ClassDef) and inherits(module, owner, node.name)
    sent_on = re.search(r"\bsee :(func|meth):", said[""])  # to where the same is said
    if described or sent_on or called_within(module, name):
        names = []
    missing = []
    if not re.match(r"\S.*?[.:?](\s|$)", said[""], re.DOTALL):
        missing.append("a sentence that begins it")
    listed = said.get("Args", "") + said.get("Attributes", "")
    if len(names) > 1:
        missing += [f"{n} in Args" for n in names if not re.search(rf"(?<![\w.]){n}\b", listed)]
    found = raised([*code] if isinstance(node, ast.ClassDef) else list(node.body))
    missing += [f"{e} in Raises" for e in sorted(found) if e not in said.get("Raises", "")]
    return missing


def test_every_module_says_what_it_exports() -> None:
    """What it defines, and of what it imports what is meant for others."""
    for module in MODULES:
        if len(module.tree.body) == 1:
            continue  # a docstring alone
        assert module.exported is not None, f"{module.path} has no __all__"
        names = set(module.exported)
        assert len(names) == len(module.exported), f"{module.path}: __all__ names something twice"
        assert module.defined <= names, f"{module.path}: __all__ lacks {module.defined - names}"
        ghosts = names - module.defined - set(module.origins)
        assert not ghosts, f"{module.path}: __all__ names {ghosts}, which is not there"


def test_docstrings_say_what_a_user_needs() -> None:
    found = [
        f"{module.path}:{node.lineno} {name} lacks {', '.join(missing)}"
        for module in MODULES
        for name, node, owner in module.documented()
        if (missing := lacks(module, name, node, owner))
    ]
    assert not found, "\n".join(found)


# ---- messages ----


def literal(node: ast.expr) -> str:
    """A string as it is written; what is filled in is ``{}``."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(map(literal, node.values))
    return "{}"


def messages(tree: ast.AST) -> Iterator[tuple[int, str, str]]:
    """(line, error, text) of every message that is written out where it is raised."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and node.args:
            error = ast.unparse(node.func)
            if error in MESSAGES and re.search(r"[a-z]", text := literal(node.args[-1])):
                yield node.lineno, error, text


def faults(error: str, text: str) -> list[str]:
    """What is not of the dialect "x is V; use F"."""
    found = [f"{word!r}" for word in (" must be ", " got ", "\n") if word in f" {text}"]
    if re.search(r"[.!]$", text):
        found.append("a full stop")
    # The end of a StageFailed is a reason; the beginning says where.
    if error != "StageFailed" and "; " not in text:
        found.append("no remedy after a semicolon")
    return found


def test_messages_are_of_one_dialect() -> None:
    found = [
        f"{module.path}:{line} {text!r} has {', '.join(wrong)}"
        for module in MODULES
        for line, error, text in messages(module.tree)
        if (wrong := faults(error, text))
    ]
    assert not found, "\n".join(found)


# ---- the searches find what they look for ----

SOURCE = '''
"""A module."""
from torch import nn
from .errors import ConfigError

__all__ = ["Layer", "both", "ghost"]

T = TypeVar("T")
a, _b = 1, 2

def both(x, y):
    """What both do.

    Args:
        x: one. xy: another.
    """
    raise ConfigError(f"x must be {x}, got {y}")

def same(x, y):
    """The same, see :func:`both`."""

def _hidden(x, y):
    raise ConfigError("x")

@dataclass
class Settings:
    """Two fields."""
    kind: ClassVar[int]
    first: int
    second: int

    def __post_init__(self):
        raise ConfigError("first is 1; use 2")

class Layer(nn.Linear):
    """A layer."""

    def forward(self, x):
        return x

    def backward(self, d):
        return d
'''


def test_the_search_for_names_finds_them() -> None:
    module = Module("layer.py", SOURCE)
    assert module.defined == {"a", "both", "same", "Settings", "Layer"}
    assert module.exported == ["Layer", "both", "ghost"]
    assert module.origins["ConfigError"] == "errors.ConfigError"
    assert Module("empty.py", "").exported is None


def test_the_search_for_docstrings_finds_what_they_lack() -> None:
    module = Module("layer.py", SOURCE)
    found = {name: lacks(module, name, node, owner) for name, node, owner in module.documented()}
    assert found == {
        "both": ["y in Args", "ConfigError in Raises"],
        "same": [],
        "Settings": ["first in Args", "second in Args", "ConfigError in Raises"],
        "Layer": [],
        "Layer.forward": [],
        "Layer.backward": ["a docstring"],
    }


def test_the_search_for_messages_finds_them() -> None:
    found = [text for _, _, text in messages(ast.parse(SOURCE))]
    assert sorted(found) == ["first is 1; use 2", "x", "x must be {}, got {}"]
    assert [len(faults("ConfigError", text)) for text in sorted(found)] == [0, 1, 3]
    assert not faults("StageFailed", "its output is NaN")

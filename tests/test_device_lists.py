"""No list of device models by hand: matrices follow ``pulseline.devices.DEVICES``.

A dict, list, tuple or set that names four models or more is such a list, wherever it stands in
tests and benchmarks, unless it is one of ``ALLOWED``.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from pulseline.devices import DEVICES

ROOT = Path(__file__).resolve().parents[1]
MOST = 3
# (file, what is assigned or the function around it): why a new model need not be told to it.
ALLOWED = {
    ("tests/golden_cases.py", "devices"): "what recorded bits are of; a new model adds none",
    ("tests/test_compat.py", "CHANGED"): "the classes of aihwkit, as compat.single.MODELS",
    ("tests/test_devices.py", "test_bad_values_are_refused"): "ranges of single fields",
    ("tests/test_array.py", "test_moments_outside_its_domain_is_said"): "where moments is off",
    ("tests/test_zoo.py", "test_bad_values"): "ranges of single fields",
    ("tests/test_zoo.py", "OWN"): "wider ranges than the examples, which stand in",
    ("tests/test_state_fields.py", "NEEDED"): "fields without an inert value",
    ("tests/test_relaxed_statistics.py", "MEASURED"): "those whose errors the header states; "
    "the others join with their last example",
}


def named(node: ast.AST) -> set[str]:
    """Models that occur below a node: as names, attributes or strings."""
    found = set()
    for child in ast.walk(node):
        for word in ("id", "attr", "value"):
            value = getattr(child, word, None)
            if isinstance(value, str):
                found.add(value)
    return found & set(DEVICES)


def lists(tree: ast.AST, place: str = "") -> Iterator[tuple[str, int, set[str]]]:
    """(place, line, models) of every outermost literal that names too many."""
    for node in ast.iter_child_nodes(tree):
        inside = place
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            inside = place or node.name
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            inside = place or ast.unparse(target)
        literal = isinstance(node, (ast.Dict, ast.List, ast.Tuple, ast.Set))
        models = named(node) if literal else set()
        if len(models) > MOST:
            yield inside, node.lineno, models  # type: ignore[attr-defined]
        else:
            yield from lists(node, inside)


def test_no_list_of_models_by_hand() -> None:
    used = set()
    for path in sorted([*(ROOT / "tests").glob("*.py"), *(ROOT / "bench").glob("*.py")]):
        file = path.relative_to(ROOT).as_posix()
        if path == Path(__file__).resolve():
            continue
        for place, line, models in lists(ast.parse(path.read_text())):
            what = f"{file}:{line} lists {', '.join(sorted(models))}"
            assert (file, place) in ALLOWED, f"{what}; take pulseline.devices.DEVICES"
            used.add((file, place))
    assert used == set(ALLOWED), f"allowed without need: {set(ALLOWED) - used}"


def test_the_search_finds_lists() -> None:
    source = """
A = {"a": SoftBounds(), "b": d.ExpStep(x=1), "c": PowStep}
B = [SoftBounds(), *[ExpStep, PowStep], ("LinearStep",)]
@parametrize("d", ["ConstantStep", SoftBounds, ExpStep, PowStep])
def f(): ...
def g():
    for d in (ConstantStep(), SoftBounds(), ExpStep(), PowStep()): ...
"""
    assert [place for place, *_ in lists(ast.parse(source))] == ["B", "f", "g"]

"""Where the matrices of a model are: the modules that hold them, whatever can become of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from torch import Tensor, nn
from torch.nn.utils.parametrize import ParametrizationList, is_parametrized

from ..cells import Cell
from .registry import CONVOLUTIONS, builder_of
from .rules import Place
from .tile_ids import MATRICES, TileIds, tile_ids

__all__ = ["Matrices", "find"]

_PRODUCTS: tuple[type[nn.Module], ...] = (nn.Linear, *CONVOLUTIONS)
_LOOKUPS = (nn.Embedding, nn.EmbeddingBag)
_ROWS_OF_ATTENTION = (
    "bias_k",
    "bias_v",
)  # numbered by their dimensions, but nothing multiplies them


class Matrices(NamedTuple):
    """A module that holds matrices, or computes one from others.

    Attributes:
        place: the module and where it is.
        parameters: those that hold matrices, by their names in it; an analog layer has none.
        ids: first number and count of the matrices of each of them.
        shapes: of all matrices.
        cells: of an analog layer; else none.
    """

    place: Place
    parameters: Mapping[str, Tensor]
    ids: Mapping[str, TileIds]
    shapes: tuple[tuple[int, ...], ...]
    cells: list[Cell]

    @property
    def called(self) -> str:
        """What a user calls it."""
        name = self.place.names[0]
        return f"layer {name}" if name else f"the {type(self.place.module).__name__}"

    @property
    def computed(self) -> bool:
        """Whether torch computes the weight before every forward pass."""
        module = self.place.module
        pruned = isinstance(module, _PRODUCTS) and ("weight" not in module._parameters)
        return pruned or is_parametrized(module)

    @property
    def valueless(self) -> bool:
        """Whether its matrices are on torch's meta device."""
        return bool(self.parameters) and all(p.is_meta for p in self.parameters.values())

    @property
    def lookup(self) -> bool:
        """Whether its matrix is a table, from which rows are taken."""
        return isinstance(self.place.module, _LOOKUPS)

    @property
    def why(self) -> str:
        """Why it stays digital if no rule says so."""
        module = self.place.module
        kind = type(module).__name__
        if self.lookup:
            return "a table, no product"
        for one in _PRODUCTS:
            if isinstance(module, one):
                name = one.__name__
                return f"{kind} is a subclass of nn.{name}, whose owner may read its weight itself"
        if not type(module).__module__.startswith("torch."):
            return f"parameters of {kind} itself, for which nothing is registered"
        return f"no analog layer for {kind}"

    def targets(self) -> dict[int, Tensor]:
        """The matrices by their numbers; those of convolutions as they are."""
        found: dict[int, Tensor] = {}
        for name, parameter in self.parameters.items():
            one = self.ids[name]
            parts = _split(parameter.detach(), one.number)
            found |= {one.first + n: part for n, part in enumerate(parts)}
        return found


def _split(parameter: Tensor, count: int) -> tuple[Tensor, ...]:
    if count == 1 and parameter.dim() == 2:
        return (parameter,)
    if parameter.dim() == 3 and count == parameter.shape[0]:
        return parameter.unbind(0)
    return tuple(parameter.chunk(count)) if count > 1 else (parameter,)


def find(model: nn.Module) -> Iterator[Matrices]:
    """Every module that holds matrices, in order; what belongs to one with a builder is its."""
    numbers = {one.name: one for one in tile_ids(model)}
    by_id = {id(p): numbers[name] for name, p in model.named_parameters() if name in numbers}
    names: dict[int, list[str]] = {}
    modules: dict[str, nn.Module] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        names.setdefault(id(module), []).append(name)
        modules[name] = module
    taken: set[int] = set()
    for module in model.modules():
        if id(module) in taken:
            continue
        own = builder_of(module)
        several = vars(module).get(MATRICES, ())  # their names in the digital model
        inside = module.modules() if several else module.children()
        cells = [child for child in inside if isinstance(child, Cell)]
        if isinstance(module, (Cell, ParametrizationList)):
            continue
        if cells or own or is_parametrized(module):
            taken |= set(map(id, module.modules()))
        parameters = dict(module.named_parameters(recurse=bool(own) or is_parametrized(module)))
        place = _place(module, names[id(module)], modules, tuple(parameters))
        if cells:
            ids = {name: numbers[_joined(place.names[0], name)] for name in several or ("weight",)}
            yield Matrices(place, {}, ids, tuple(tuple(cell.shape) for cell in cells), cells)
            continue
        matrices = {name: p for name, p in parameters.items() if id(p) in by_id}
        held = {name: p for name, p in matrices.items() if name not in _ROWS_OF_ATTENTION}
        if held:
            ids = {name: by_id[id(p)] for name, p in held.items()}
            parts = [part for name, p in held.items() for part in _split(p, ids[name].number)]
            yield Matrices(place, held, ids, tuple(tuple(part.shape) for part in parts), [])


def _joined(name: str, parameter: str) -> str:
    return f"{name}.{parameter}" if name else parameter


def _place(
    module: nn.Module, names: list[str], modules: dict[str, nn.Module], parameters: tuple[str, ...]
) -> Place:
    around: dict[int, nn.Module] = {id(module): module}
    for name in names:
        parts = name.split(".") if name else []
        for n in range(len(parts)):
            one = modules[".".join(parts[:n])]
            around[id(one)] = one
    return Place(module, tuple(names), tuple(around.values()), parameters)

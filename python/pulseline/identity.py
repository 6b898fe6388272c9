"""Identities: whose random numbers a crossbar draws, and how nobody gets another's by accident.

All draws of a crossbar are keyed by the two 32-bit words of a Philox key (``csrc/core/rng.h``)::

    key = (seed, tile_id | array << 24)      seed < 2^32, tile_id < 2^24, array < 256

so different identities never share a draw. ``tile_id`` numbers the matrices of a model
(``pulseline.nn.tile_ids``), ``array`` the crossbars that one matrix is made of. Array 0 has the
devices that plain SGD has at the same seed and id. The numbers of the others are frozen:

    algorithm                                array
    Tiki-Taka 1 and 2, c-TTv2, AGAD, RIDER   0: C, slow; 1: A, fast
    residual learning, several tiles         0: the largest weight, ascending; last: the gradient's
    one-sided                                0: G+; 1: G-
    pair with a reference                    0: main; 1: reference
    mixed precision                          0
    any                                      254: a reference made of devices; 255: scratch

Arrays that share pulse trains draw those as array 0.

Who gives a seed asks for certain devices, and for the same ones when asking again. Who gives none
gets the next seed of the process: no two of 2^32 are equal. That sequence is a function of
:func:`manual_seed` alone, which restarts it; a process that never calls it starts as after
``manual_seed(0)``. Torch's generator has no part in it.
"""

from __future__ import annotations

import hashlib
import struct
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from .errors import ConfigError

__all__ = [
    "Identity",
    "changed",
    "changes",
    "check_integer",
    "identify",
    "manual_seed",
    "refuse_twins",
    "upcoming",
]

_SEED_BITS, _ID_BITS, _ARRAY_BITS = 32, 24, 8


def check_integer(name: str, value: object, bits: int) -> None:
    """Refuse what is no integer of so many bits.

    Args:
        name: what the message calls it. value: to be looked at. bits: how many.

    Raises:
        ConfigError: it is no integer from 0 to 2^bits - 1.
    """
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << bits:
        raise ConfigError(f"{name} is {value!r}; use an integer from 0 to 2^{bits} - 1")


@dataclass(frozen=True)
class Identity:
    """Whose random numbers a crossbar draws.

    Args:
        seed: below 2^32.
        tile_id: number of the matrix in its model, below 2^24.
        array: number of the crossbar in its matrix, below 256.
        requested: which of seed and tile_id somebody asked for; a saved state replaces the others.

    Raises:
        ConfigError: a number out of its range.
    """

    seed: int
    tile_id: int = 0
    array: int = 0
    requested: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_integer("seed", self.seed, _SEED_BITS)
        check_integer("tile_id", self.tile_id, _ID_BITS)
        check_integer("array", self.array, _ARRAY_BITS)

    @cached_property
    def key(self) -> tuple[int, int]:
        """(seed, tile_id | array << 24): the Philox key, one for every identity."""
        return self.seed, self.tile_id | self.array << _ID_BITS


class _Seeds:
    """Seeds for those who give none: 0, 1, 2, .. through a permutation of 32-bit numbers."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.restart(0)

    def restart(self, key: int) -> None:
        with self._lock:
            self._key, self._count = key, 0

    def draw(self, keep: bool = False) -> int:
        with self._lock:
            key, count = self._key, self._count
            self._count += not keep
        return _permuted(count & 0xFFFFFFFF, key)


def _permuted(number: int, key: int) -> int:
    """Four Feistel rounds of sha256: a permutation for every key, so that no seed comes twice."""
    left, right = number >> 16, number & 0xFFFF
    for turn in range(4):
        mixed = hashlib.sha256(struct.pack("<IBH", key, turn, right)).digest()
        left, right = right, left ^ int.from_bytes(mixed[:2], "little")
    return left << 16 | right


_seeds = _Seeds()
_changes = 0


def manual_seed(seed: int) -> None:
    """Restart the seeds of layers, tiles and models that are made without one.

    What follows draws the same devices in the same order after every call with the same ``seed``,
    in every process and thread count; a process that never calls it starts as after
    ``manual_seed(0)``. It does not touch what exists, nor torch's generator.

    Args:
        seed: an integer below 2^32.

    Raises:
        ConfigError: another value.
    """
    check_integer("seed", seed, _SEED_BITS)
    _seeds.restart(seed)


def identify(seed: int | Identity | None, tile_id: int | None = None) -> Identity:
    """The identity that ``seed`` and ``tile_id`` ask for.

    Args:
        seed: None: the next of the process; an Identity: that.
        tile_id: None: 0.

    Returns:
        An identity in which ``requested`` names what was given; a seed asks for its id as well.

    Raises:
        ConfigError: a value out of its range, or an Identity and a ``tile_id``.
    """
    if isinstance(seed, Identity):
        if tile_id is not None:
            raise ConfigError(f"tile_id is {tile_id}; leave it out, seed is a whole Identity")
        return seed
    number = 0 if tile_id is None else tile_id
    check_integer("tile_id", number, _ID_BITS)
    if seed is not None:
        return Identity(seed, number, requested=("seed", "tile_id"))
    return Identity(_seeds.draw(), number, requested=() if tile_id is None else ("tile_id",))


def upcoming() -> int:
    """The seed that who gives none gets next, which stays the next."""
    return _seeds.draw(keep=True)


def changed() -> None:
    """Say that an existing tile has taken another identity."""
    global _changes
    _changes += 1


def changes() -> int:
    """Number that grows when an existing tile takes another identity: time to compare again."""
    return _changes


def refuse_twins(named: Iterable[tuple[str, Identity]]) -> None:
    """Refuse crossbars that draw the same random numbers.

    Args:
        named: (what a user calls it, its identity), each crossbar once.

    Raises:
        ConfigError: two of them do.
    """
    seen: dict[tuple[int, int], str] = {}
    for name, one in named:
        if one.key in seen:
            raise ConfigError(
                f"{seen[one.key]} and {name} are the same devices with the same noise (seed "
                f"{one.seed}, tile_id {one.tile_id}); build them without seed=, or with different "
                "ones, or give a copy its own by layer.cell.reseed()"
            )
        seen[one.key] = name

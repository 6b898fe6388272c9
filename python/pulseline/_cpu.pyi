from collections.abc import Sequence
from typing import Any

NUMBERING: int
DEVICES: list[tuple[str, str, bool]]  # name, fields, affine
PURPOSES: dict[str, int]
core: Any

def isa() -> str: ...
def isas() -> list[str]: ...
def use_isa(isa: str) -> bool: ...
def update(
    w: int,
    step: int,
    slope: int,
    bound: int,
    x: int,
    d: int,
    rows: int,
    cols: int,
    batch: int,
    seed: int,
    tile: int,
    k: int,
    train: Sequence[float],
    device: int,
    params: Sequence[float],
    fidelity: int,
    threads: int,
    fired: int,
) -> tuple[int, int]: ...
def read(
    w: int,
    x: int,
    y: int,
    rows: int,
    cols: int,
    batch: int,
    transposed: bool,
    tile_in: int,
    tile_out: int,
    seed: int,
    tile: int,
    k: int,
    purpose: int,
    io: Sequence[float],
    threads: int,
) -> tuple[int, int]: ...
def read_chain(
    w: int,
    x: int,
    y: int,
    average: int,
    rows: int,
    cols: int,
    batch: int,
    transposed: bool,
    tile_in: int,
    tile_out: int,
    seed: int,
    tile: int,
    k: int,
    purpose: int,
    io: Sequence[float],
    chain: Sequence[float],
    threads: int,
) -> tuple[int, int]: ...
def wire_currents(
    w: int,
    rows: int,
    cols: int,
    transposed: bool,
    r: float,
    tolerance: float,
    q: int,
    samples: int,
    y: int,
) -> int: ...
def construct(
    device: int,
    params: Sequence[float],
    seed: int,
    tile: int,
    rows: int,
    cols: int,
    step: int,
    slope: int,
    bound: int,
    threads: int,
) -> None: ...
def initial_normals(seed: int, tile: int, rows: int, cols: int, out: int, threads: int) -> None: ...
def construct_retention(
    params: Sequence[float], seed: int, tile: int, rows: int, cols: int, words: int, threads: int
) -> None: ...
def retain(
    w: int,
    step: int,
    bound: int,
    words: int,
    rows: int,
    cols: int,
    seed: int,
    tile: int,
    k: int,
    reset: bool,
    amount: float,
    threads: int,
) -> None: ...
def disturb(
    hidden: int,
    step: int,
    visible: int,
    rows: int,
    cols: int,
    seed: int,
    tile: int,
    k: int,
    deviation: float,
    threads: int,
) -> None: ...
def redraw(
    hidden: int,
    step: int,
    visible: int,
    x: int,
    d: int,
    rows: int,
    cols: int,
    batch: int,
    seed: int,
    tile: int,
    k: int,
    train: Sequence[float],
    deviation: float,
    threads: int,
) -> None: ...

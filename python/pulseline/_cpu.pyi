from collections.abc import Sequence
from typing import Any

NUMBERING: int
LAYOUT: dict[str, str]  # fields of every kind of settings, see csrc/bind/layout.h
DEVICES: list[tuple[str, str, bool, bool]]  # name, fields, affine, slopes
PURPOSES: dict[str, int]
DRAWS: dict[str, int]
MOST_COUNTED: int
core: Any

def isa() -> str: ...
def isas() -> list[str]: ...
def use_isa(isa: str) -> bool: ...
def is_finite(values: int, count: int) -> bool: ...
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
    lr: float,
    device: int,
    params: Sequence[float],
    pulses: Sequence[float],
    counters: int,
    key: Sequence[int],
    threads: int,
    fired: int,
) -> int: ...
def update_tapped(
    w: int,
    step: int,
    slope: int,
    bound: int,
    x: int,
    d: int,
    rows: int,
    cols: int,
    batch: int,
    lr: float,
    device: int,
    params: Sequence[float],
    pulses: Sequence[float],
    counters: int,
    key: Sequence[int],
    threads: int,
    fired: int,
    taps: int,
    tap_count: int,
    tapped: int,
) -> int: ...
def check_tapped(
    at: Sequence[int],
    sizes: Sequence[int],
    key: Sequence[int],
    device: int,
    taps: int,
    count: int,
    tapped: int,
) -> None: ...
def check_taps(taps: int, count: int, batch: int, cols: int) -> None: ...
def read(
    w: int,
    x: int,
    y: int,
    rows: int,
    cols: int,
    batch: int,
    transposed: bool,
    counters: int,
    key: Sequence[int],
    settings: Sequence[float],
    threads: int,
) -> int: ...
def read_chain(
    w: int,
    x: int,
    y: int,
    average: int,
    rows: int,
    cols: int,
    batch: int,
    transposed: bool,
    counters: int,
    key: Sequence[int],
    settings: Sequence[float],
    converters: Sequence[float],
    threads: int,
) -> int: ...
def unfold(
    image: int, rows: int, source: int, sizes: Sequence[int], first: int, last: int, threads: int
) -> None: ...
def fold(
    image: int,
    rows: int,
    source: int,
    sizes: Sequence[int],
    first: int,
    last: int,
    store: bool,
    threads: int,
) -> None: ...
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
def check_wires(r: float, tolerance: float) -> None: ...
def check_update(
    addresses: Sequence[int],
    sizes: Sequence[int],
    key: Sequence[int],
    lr: float,
    pulses: Sequence[float],
    params: Sequence[float],
    device: int,
) -> None: ...
def check_redraw(
    addresses: Sequence[int],
    sizes: Sequence[int],
    key: Sequence[int],
    lr: float,
    pulses: Sequence[float],
    params: Sequence[float],
    hidden: int,
    deviation: float,
) -> None: ...
def check_key(key: Sequence[int]) -> None: ...
def construct(
    device: int,
    params: Sequence[float],
    key: Sequence[int],
    first: int,
    rows: int,
    cols: int,
    step: int,
    slope: int,
    bound: int,
    threads: int,
) -> None: ...
def initial_normals(
    key: Sequence[int], first: int, rows: int, cols: int, out: int, threads: int
) -> None: ...
def construct_retention(
    settings: Sequence[float],
    key: Sequence[int],
    rows: int,
    cols: int,
    words: int,
    threads: int,
) -> None: ...
def retain(
    w: int,
    step: int,
    bound: int,
    words: int,
    rows: int,
    cols: int,
    reset: bool,
    amount: float,
    k: int,
    key: Sequence[int],
    device: int,
    params: Sequence[float],
    retention: Sequence[float],
    threads: int,
) -> None: ...
def disturb(
    hidden: int,
    step: int,
    visible: int,
    rows: int,
    cols: int,
    deviation: float,
    counters: int,
    key: Sequence[int],
    device: int,
    params: Sequence[float],
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
    lr: float,
    deviation: float,
    pulses: Sequence[float],
    counters: int,
    key: Sequence[int],
    device: int,
    params: Sequence[float],
    threads: int,
) -> int: ...
def pulse_counted(
    at: Sequence[int],
    rows: int,
    cols: int,
    count: int,
    number: int,
    device: int,
    params: Sequence[float],
    deviation: float,
    key: Sequence[int],
    threads: int,
) -> None: ...
def convert(
    values: int,
    out: int,
    rows: int,
    count: int,
    number: int,
    key: Sequence[int],
    settings: Sequence[float],
    converters: Sequence[float],
    threads: int,
) -> None: ...
def count_columns(
    at: Sequence[int],
    rows: int,
    cols: int,
    column: int,
    count: int,
    settings: Sequence[float],
    threads: int,
) -> None: ...
def uniforms(
    key: Sequence[int],
    purpose: int,
    numbers: int,
    indices: int,
    draw: int,
    count: int,
    out: int,
) -> None: ...
def check_counted(
    at: Sequence[int],
    rows: int,
    cols: int,
    count: int,
    number: int,
    device: int,
    params: Sequence[float],
    deviation: float,
    key: Sequence[int],
) -> None: ...

from collections.abc import Sequence

NUMBERING: int
ARCHS: str
LAYOUT: dict[str, str]  # fields of every kind of settings, see csrc/bind/layout.h
DEVICES: list[tuple[str, str, bool, bool]]  # name, fields, affine, slopes
MOST_TASKS: int

# UpdateAddresses, UpdateSizes, UpdateKey, lr, PulseSettings, parameters of the device
_Task = tuple[Sequence[int], Sequence[int], Sequence[int], float, Sequence[float], Sequence[float]]

def reason() -> str: ...
def update_workspace(task: _Task) -> int: ...

# tasks of one device model and fidelity
def update(tasks: Sequence[_Task], device: int, gpu: int, stream: int) -> None: ...

# addresses of taps on the host and on the GPU, their number, address of their values
def update_tapped(
    task: _Task, host: int, taps: int, count: int, tapped: int, device: int, gpu: int, stream: int
) -> None: ...
def construct(
    device: int,
    params: Sequence[float],
    key: Sequence[int],
    rows: int,
    cols: int,
    step: int,
    slope: int,
    bound: int,
    gpu: int,
    stream: int,
) -> None: ...
def construct_retention(
    settings: Sequence[float],
    key: Sequence[int],
    rows: int,
    cols: int,
    words: int,
    gpu: int,
    stream: int,
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
    gpu: int,
    stream: int,
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
    gpu: int,
    stream: int,
) -> None: ...

# a task whose w is what is read, address of the hidden weight, deviation
def redraw(tasks: Sequence[tuple[_Task, int, float]], gpu: int, stream: int) -> None: ...

class Read:
    """One read: arguments, then addresses, then launches on a stream."""

    inputs: int
    outputs: int
    segments: int
    blocks: int
    passes: int
    pcm: bool
    fusable: bool
    repeats: bool
    block_inputs: bool
    wired: bool
    nodal: bool
    largest_tile: int
    def __init__(
        self,
        rows: int,
        cols: int,
        batch: int,
        transposed: bool,
        counters: int,
        key: Sequence[int],
        settings: Sequence[float],
        converters: Sequence[float],
        average: int,
    ) -> None: ...
    def advance(self, gpu: int, stream: int) -> None: ...
    def place(
        self,
        w: int,
        x: int,
        y: int,
        alpha: int,
        q: tuple[int, int],
        square: tuple[int, int],
        norm: tuple[int, int],
        saturated: int,
    ) -> None: ...
    def wires(
        self, word: int, bit: int, level: int, end: int, effective: int, gpu: int, stream: int
    ) -> None: ...
    def nodal_bytes(self, blocks: int, memory: int) -> int: ...
    def solve(self, blocks: int, memory: int, address: int, gpu: int, stream: int) -> None: ...
    def input(self, block: int, gpu: int, stream: int) -> None: ...
    def output(
        self,
        segment: int,
        out0: int,
        out1: int,
        sums: tuple[int, int],
        squares: tuple[int, int],
        gpu: int,
        stream: int,
    ) -> None: ...
    def fused(self, out0: int, out1: int, gpu: int, stream: int) -> None: ...
    def repeat(self, converted: int, gpu: int, stream: int) -> None: ...

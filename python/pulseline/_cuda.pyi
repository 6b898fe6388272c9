from collections.abc import Sequence

NUMBERING: int
ARCHS: str
DEVICES: list[tuple[str, str]]
MOST_TASKS: int

# addresses (w, step, slope, bound, x, d, workspace, fired), sizes (rows, cols, batch),
# key (seed, tile, k), train (8 numbers), params
_Task = tuple[Sequence[int], Sequence[int], Sequence[int], Sequence[float], Sequence[float]]

def reason() -> str: ...
def update_workspace(task: _Task, fidelity: int) -> int: ...
def update(tasks: Sequence[_Task], device: int, fidelity: int, gpu: int, stream: int) -> None: ...
def moments_begin(task: _Task, device: int, gpu: int, stream: int) -> None: ...
def factors(
    task: _Task,
    device: int,
    columns: int,
    rows: int,
    first: int,
    count: int,
    gpu: int,
    stream: int,
) -> None: ...
def moments(task: _Task, device: int, sums: int, first: int, gpu: int, stream: int) -> None: ...

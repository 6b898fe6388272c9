"""The update on CUDA tensors: loads the compiled kernels at first use and launches them.

Calls are asynchronous, as torch's are: they allocate from torch's pool, run on torch's current
stream and never wait for the GPU, so that a CUDA graph may capture them. A value of x or d that is
not finite is found on the GPU: that update writes nothing, and the :class:`ConfigError` comes with
a later update or :func:`check_updates`, at once with CUDA_LAUNCH_BLOCKING=1. Replays of a graph
repeat the draws and report nothing.

Bits are those of the CPU backend, except the ideal device, a matrix product of torch's, and
``moments``, whose sums come from tensor cores: their factors are rounded to 11 bits, and their
order is the GPU's.
"""

from __future__ import annotations

import contextlib
import importlib
import os
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from . import _cpu
from .errors import BackendError, ConfigError
from .ops_layout import LAYOUT, PulseSettings, UpdateAddresses, UpdateKey, UpdateSizes

_MOST_LINES = 65535 * 16  # of a matrix: the grid has no more blocks of rows
_torch_cuda: Any = torch.cuda  # streams and events are not in the stubs

# One tile's update, as a launch of several takes it.
_Task = tuple[UpdateAddresses, UpdateSizes, int, UpdateKey, float, PulseSettings, Sequence[float]]


def _load() -> tuple[Any, str]:
    """The compiled module, and why it cannot be used ('': it can)."""
    try:
        module = importlib.import_module(f"{__package__}._cuda")
    except ModuleNotFoundError:
        return None, "this build has no CUDA kernels, build it with PULSELINE_CUDA=ON"
    except ImportError as error:
        return None, f"the CUDA kernels do not load ({error}), build them again"
    ours = (_cpu.NUMBERING, _cpu.DEVICES, LAYOUT)
    if ours != (module.NUMBERING, module.DEVICES, module.LAYOUT):
        return module, "the CUDA kernels were built from other sources, build both again"
    if torch.version.cuda is None:
        return module, "this torch is a build without CUDA"
    return module, module.reason()


def reason() -> str:
    """Why CUDA cannot be used here, in a clause; empty if it can. Loads the kernels."""
    return _load()[1]


_ready: Any = None  # the module, once it was found to work


def kernels() -> Any:
    """The compiled module.

    Raises:
        BackendError: it was not built, or no GPU can be used.
    """
    global _ready
    if _ready is None:
        module, why = _load()
        if why:
            raise BackendError(f"a CUDA tensor came in, but {why}; move it to the CPU")
        _ready = module
    return _ready


class Update(NamedTuple):
    """One call of ``pulseline::update_`` with its tensors checked."""

    weight: Tensor
    pairs: tuple[Tensor, Tensor, Tensor]  # step, slope, bound
    x: Tensor
    d: Tensor
    lr: float
    model: int  # number of the compiled device model; < 0: ideal
    params: Sequence[float]
    pulses: PulseSettings
    k: int  # running number of the first sample
    key: UpdateKey
    fired: Tensor | None

    def task(self, workspace: int) -> _Task:
        step, slope, bound = self.pairs
        addresses = UpdateAddresses(
            w=self.weight.data_ptr(),
            step=step.data_ptr(),
            slope=slope.data_ptr(),
            bound=bound.data_ptr(),
            x=self.x.data_ptr(),
            d=self.d.data_ptr(),
            workspace=workspace,
            fired=0 if self.fired is None else self.fired.data_ptr(),
        )
        rows, cols = self.weight.shape
        return (
            addresses,
            UpdateSizes(rows, cols, len(self.x)),
            self.k,
            self.key,
            self.lr,
            self.pulses,
            self.params,
        )


class Redraw(NamedTuple):
    """One call of ``pulseline::redraw_`` with its tensors checked."""

    update: Update  # of what is read; no model, no parameters; fidelity exact or expected
    hidden: Tensor  # what the update has moved
    deviation: float


# ---- values that are not finite ----


class _Outcome(NamedTuple):
    status: Tensor  # on the host, once `event` has happened
    event: Any


_outcomes: list[_Outcome] = []


def _refuse(code: int) -> None:
    if code != -1:
        sample, source = divmod(code, 2)
        raise ConfigError(
            f"{'xd'[source]}[{sample}] held a NaN or an infinity; that update wrote nothing, "
            "check the learning rate and the loss"
        )


def _note(status: Tensor) -> None:
    """Remember to look at the outcome of a launch; at once where that costs no waiting."""
    if not status.is_cuda:
        _refuse(int(status))
    elif _torch_cuda.is_current_stream_capturing():
        return
    elif os.environ.get("CUDA_LAUNCH_BLOCKING") == "1":
        _refuse(int(status.cpu()))
    else:
        host = torch.empty((), dtype=torch.int64, device="cpu", pin_memory=True)
        host.copy_(status, non_blocking=True)
        event = _torch_cuda.Event()
        event.record()
        _outcomes.append(_Outcome(host, event))


def check_updates(wait: bool = True) -> None:
    """Raise the ConfigError of an earlier update on the GPU, if there was one.

    Args:
        wait: for all updates so far; otherwise only those that have ended are looked at, and none
            while a CUDA graph captures: to query an event would break the capture.
    """
    if not wait and _outcomes and _torch_cuda.is_current_stream_capturing():
        return
    while _outcomes and (wait or _outcomes[0].event.query()):
        outcome = _outcomes.pop(0)
        if wait:
            outcome.event.synchronize()
        _refuse(int(outcome.status))


# ---- launches ----


def place_of(t: Tensor) -> tuple[int, int]:
    """Number of the GPU and handle of torch's current stream."""
    if not t.is_cuda:
        return 0, 0
    stream: int = _torch_cuda.current_stream(t.device).cuda_stream
    return t.get_device(), stream


@contextlib.contextmanager
def on_device_of(t: Tensor) -> Iterator[None]:
    """The GPU of ``t`` is current; products stay float32 and record nothing for autograd."""
    kind = t.device.type
    with contextlib.ExitStack() as stack:
        if t.is_cuda:
            stack.enter_context(torch.cuda.device(t.device))
        stack.enter_context(torch.no_grad())
        if torch.is_autocast_enabled(kind):
            stack.enter_context(torch.autocast(kind, enabled=False))
        yield


class _Workspace:
    """Working memory of one call. Its first 8 bytes are the outcome."""

    def __init__(self, module: Any, update: Update) -> None:
        size = module.update_workspace(update.task(0))
        self.memory = torch.empty(size, dtype=torch.uint8, device=update.weight.device)
        self.status = self.memory[:8].view(torch.int64)[0]
        self.task = update.task(self.memory.data_ptr())


def _ideal(u: Update) -> None:
    """W -= lr d x^T in one product; unchanged if a value is not finite."""
    finite = torch.stack((torch.isfinite(u.x).all(1), torch.isfinite(u.d).all(1)), 1).flatten()
    if not finite.numel():
        return
    everything = finite.all()
    zero = torch.zeros((), dtype=torch.float32, device=u.x.device)
    x, d = torch.where(everything, u.x, zero), torch.where(everything, u.d, zero)
    u.weight.addmm_(d.T, x, alpha=-u.lr)
    first = (~finite).to(torch.int8).argmax()
    _note(torch.where(everything, torch.full_like(first, -1), first))


def _launch(module: Any, updates: Sequence[Update]) -> None:
    """One grid for updates of the same device model, fidelity and GPU."""
    first = updates[0]
    with on_device_of(first.weight):
        if first.model < 0:
            for u in updates:
                _ideal(u)
        else:
            works = [_Workspace(module, u) for u in updates]
            tasks = [work.task for work in works]
            module.update(tasks, first.model, *place_of(first.weight))
            for work in works:
                _note(work.status)


def launch_on(t: Tensor, name: str, arguments: Sequence[Any]) -> None:
    """Call a function of the kernels on the GPU of ``t`` and its current stream."""
    module = kernels()
    with on_device_of(t):
        getattr(module, name)(*arguments, *place_of(t))


def _launch_redraws(module: Any, redraws: Sequence[Redraw]) -> None:
    """One grid for redraws of one GPU; a sample that is not finite is for the update to say."""
    first = redraws[0].update.weight
    with on_device_of(first):
        works = [_Workspace(module, r.update) for r in redraws]
        tasks = [
            (work.task, r.hidden.data_ptr(), r.deviation)
            for work, r in zip(works, redraws, strict=True)
        ]
        module.redraw(tasks, *place_of(first))


# ---- updates of several tiles together ----

_gathered: list[Update] | None = None
_redraws: list[Redraw] = []  # that follow them


def _flush(module: Any) -> None:
    assert _gathered is not None
    groups: dict[tuple[Any, ...], list[Update]] = {}
    for u in _gathered:
        groups.setdefault((u.model, u.key.fidelity, u.pulses.noise, u.weight.device), []).append(u)
    _gathered.clear()
    for group in groups.values():
        for n in range(0, len(group), module.MOST_TASKS):
            _launch(module, group[n : n + module.MOST_TASKS])
    kinds: dict[tuple[Any, ...], list[Redraw]] = {}
    for r in _redraws:
        kinds.setdefault((r.update.weight.device, r.update.key.fidelity), []).append(r)
    _redraws.clear()
    for kind in kinds.values():
        for n in range(0, len(kind), module.MOST_TASKS):
            _launch_redraws(module, kind[n : n + module.MOST_TASKS])


@contextlib.contextmanager
def together() -> Iterator[None]:
    """CUDA updates of different tiles inside share their launches, which come at the end.

    Small layers then fill the GPU together. Nothing changes on the CPU. Their x and d must stay as
    they are until the end; whoever reads or changes the weights inside calls :func:`settle` first.
    """
    global _gathered
    if _gathered is not None:  # an inner block
        yield
        return
    _gathered = []
    try:
        yield
        settle()
    finally:
        _gathered = None
        _redraws.clear()


def settle() -> None:
    """Launch what :func:`together` keeps so far."""
    if _gathered or _redraws:
        _flush(kernels())


def update(u: Update) -> None:
    """Launch an update, or keep it for the end of :func:`together`."""
    module = kernels()
    if max(u.weight.shape) > _MOST_LINES:
        raise ConfigError(
            f"weight is {tuple(u.weight.shape)}; an update on a GPU takes up to {_MOST_LINES} rows "
            "and columns, split the layer"
        )
    check_updates(wait=False)
    if _gathered is None:
        _launch(module, [u])
        return
    if any(other.weight.data_ptr() == u.weight.data_ptr() for other in _gathered):
        _flush(module)  # of the same tile: in order
    _gathered.append(u)


def redraw(r: Redraw) -> None:
    """Launch the write noise of an update that was launched or kept, after it."""
    module = kernels()
    if _gathered is None:
        _launch_redraws(module, [r])
    else:
        _redraws.append(r)

"""Launches of updates and write noise: one grid for several tiles.

A value that is not finite makes its update write nothing; see :mod:`.outcomes`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..layout import Counters, DrawKey, PulseSettings, UpdateAddresses, UpdateKey, UpdateSizes
from . import module
from .outcomes import Outcomes

__all__ = [
    "Pairs",
    "Redraw",
    "Status",
    "Update",
    "launch_on",
    "launch_redraws",
    "launch_tapped",
    "launch_updates",
    "on_device_of",
    "pairs_anew",
    "place_of",
]

_UPDATE = Counters._fields.index("update")
_torch_cuda: Any = torch.cuda  # streams are not in the stubs

# One tile's update, as a launch of several takes it.
_Task = tuple[UpdateAddresses, UpdateSizes, UpdateKey, float, PulseSettings, Sequence[float]]
# What a launch will say, and who wants to hear it.
Status = tuple[Tensor, Outcomes | None]


Pairs = tuple[Tensor | None, Tensor | None, Tensor | None]  # step, slope, bound


class Update(NamedTuple):
    """One call of ``pulseline::update_`` with its tensors checked; fields as of the operator."""

    weight: Tensor
    pairs: Pairs  # all None: drawn anew
    x: Tensor
    d: Tensor
    lr: float
    model: int  # number of the compiled device model; < 0: ideal
    params: Sequence[float]
    pulses: PulseSettings
    counters: Tensor
    key: UpdateKey
    fired: Tensor | None
    outcomes: Outcomes | None = None
    taps: Tensor | None = None  # on the CPU, at least one; neither ideal nor joining samples
    tapped: Tensor | None = None

    def task(self, workspace: int) -> _Task:
        """What the kernels take of it.

        Args:
            workspace: address of its working memory; 0: not known yet.
        """
        step, slope, bound = (0 if t is None else t.data_ptr() for t in self.pairs)
        addresses = UpdateAddresses(
            w=self.weight.data_ptr(),
            step=step,
            slope=slope,
            bound=bound,
            x=self.x.data_ptr(),
            d=self.d.data_ptr(),
            workspace=workspace,
            fired=0 if self.fired is None else self.fired.data_ptr(),
            counter=self.counters[_UPDATE].data_ptr(),
        )
        rows, cols = self.weight.shape
        return (
            addresses,
            UpdateSizes(rows, cols, len(self.x)),
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


def pairs_anew(like: Tensor, model: int, params: Sequence[float], key: Sequence[int]) -> Pairs:
    """Pairs of crosspoints that nobody stores, drawn for one launch.

    Args:
        like: (rows, cols), where they are needed. model, params: of the devices.
        key: seed and tile_id.

    Raises:
        BackendError: there are no kernels, or no GPU.
    """
    step, slope, bound = (torch.empty_like(like, dtype=torch.int32) for _ in range(3))
    addresses = (step.data_ptr(), slope.data_ptr(), bound.data_ptr())
    launch_on(like, "construct", (model, params, key, *like.shape, *addresses))
    return step, slope, bound


class _Workspace:
    """Working memory of one call, words of crosspoints too; the first 8 bytes are the outcome."""

    def __init__(self, kernels: Any, update: Update) -> None:
        if update.model >= 0 and update.pairs[0] is None:
            key = DrawKey(update.key.seed, update.key.tile_id)
            pairs = pairs_anew(update.weight, update.model, update.params, key)
            update = update._replace(pairs=pairs)
        self.pairs = update.pairs
        size = kernels.update_workspace(update.task(0))
        self.memory = torch.empty(size, dtype=torch.uint8, device=update.weight.device)
        self.status = self.memory[:8].view(torch.int64)[0]
        self.task = update.task(self.memory.data_ptr())


def _ideal(u: Update) -> list[Status]:
    """W -= lr d x^T in one product; unchanged if a value is not finite."""
    finite = torch.stack((torch.isfinite(u.x).all(1), torch.isfinite(u.d).all(1)), 1).flatten()
    if not finite.numel():
        return []
    everything = finite.all()
    zero = torch.zeros((), dtype=torch.float32, device=u.x.device)
    x, d = torch.where(everything, u.x, zero), torch.where(everything, u.d, zero)
    u.weight.addmm_(d.T, x, alpha=-u.lr)
    u.counters[_UPDATE] += everything * len(x)
    first = (~finite).to(torch.int8).argmax()
    return [(torch.where(everything, torch.full_like(first, -1), first), u.outcomes)]


def launch_updates(updates: Sequence[Update]) -> list[Status]:
    """One grid for updates of the same device model, fidelity, noise and GPU."""
    first, kernels = updates[0], module.kernels()
    with on_device_of(first.weight):
        if first.model < 0:
            return [status for u in updates for status in _ideal(u)]
        works = [_Workspace(kernels, u) for u in updates]
        kernels.update([work.task for work in works], first.model, *place_of(first.weight))
        return [(work.status, u.outcomes) for work, u in zip(works, updates, strict=True)]


def launch_tapped(update: Update) -> Status:
    """A grid of its own for an update with taps; the host does not wait for their copy."""
    taps, tapped, kernels = update.taps, update.tapped, module.kernels()
    assert taps is not None
    assert tapped is not None
    with on_device_of(update.weight):
        work = _Workspace(kernels, update)
        there = taps.to(update.weight.device, non_blocking=True)
        at = (taps.data_ptr(), there.data_ptr(), len(taps), tapped.data_ptr())
        kernels.update_tapped(work.task, *at, update.model, *place_of(update.weight))
        return work.status, update.outcomes


def launch_redraws(redraws: Sequence[Redraw]) -> None:
    """One grid for redraws of one GPU; a sample that is not finite is for the update to say."""
    first, kernels = redraws[0].update.weight, module.kernels()
    with on_device_of(first):
        works = [_Workspace(kernels, r.update) for r in redraws]
        tasks = [
            (work.task, r.hidden.data_ptr(), r.deviation)
            for work, r in zip(works, redraws, strict=True)
        ]
        kernels.redraw(tasks, *place_of(first))


def launch_on(t: Tensor, name: str, arguments: Sequence[Any]) -> None:
    """Call a function of the kernels on the GPU of a tensor and its current stream.

    Args:
        t: the tensor. name: of the function. arguments: before device and stream.

    Raises:
        BackendError: there are no kernels, or no GPU.
    """
    kernels = module.kernels()
    with on_device_of(t):
        getattr(kernels, name)(*arguments, *place_of(t))

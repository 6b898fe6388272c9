"""Schemas of all operators, and what decides whether a call needs torch's dispatcher.

``key``, ``settings``, ``converters`` and ``pulses`` are NamedTuples of :mod:`.layout`. ``counters``
is the array's int64 buffer (:class:`.layout.Counters`), which numbers the samples: reads and
updates advance it, what is refused does not. ``k`` numbers the events between pulses. Where the
pairs of the crosspoints (step, slope, bound, words) are all None, the kernels draw them anew from
the key and ``device``, ``params``, ``retention``: the same bits.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..torch_private import dispatch_modes
from .checks import check_tensor

__all__ = ["LIBRARY", "direct", "eager", "implement"]

LIBRARY = torch.library.Library("pulseline", "DEF")
for schema in (
    "read_(Tensor x, Tensor weight, bool transposed, Tensor(a!) counters, int[] key, "
    "float[] settings) -> Tensor",
    "read_chain_(Tensor x, Tensor weight, bool transposed, Tensor(a!) counters, int[] key, "
    "float[] settings, float[] converters, Tensor(b!)? average) -> Tensor",
    "update_(Tensor(a!) weight, Tensor? step, Tensor? slope, Tensor? bound, Tensor x, Tensor d, "
    "float lr, str device, float[] params, float[] pulses, Tensor(b!) counters, int[] key, "
    "Tensor(c!)? fired=None, Tensor? taps=None, Tensor(d!)? tapped=None) -> ()",
    "pulse_(Tensor(a!) weight, Tensor? step, Tensor? slope, Tensor? bound, Tensor columns, "
    "Tensor counts, int number, str device, float[] params, int[] key, Tensor(b!)? fired=None, "
    "Tensor(c!)? visible=None, float deviation=0.) -> ()",
    "convert(Tensor values, int number, int[] key, float[] settings, float[] converters) -> Tensor",
    "construct(str device, float[] params, int rows, int cols, int seed, int tile_id, int first=0, "
    "int block_rows=0) -> (Tensor, Tensor, Tensor)",
    "initial_normals(int rows, int cols, int seed, int tile_id, int first=0, int block_rows=0) "
    "-> Tensor",
    "construct_retention(float[] settings, int rows, int cols, int seed, int tile_id, "
    "int block_rows=0) -> Tensor",
    "retain_(Tensor(a!) weight, Tensor? step, Tensor? bound, Tensor? words, float drift, int k, "
    "int[] key, str device='', float[] params=[], float[] retention=[]) -> ()",
    "reset_(Tensor(a!) weight, Tensor? step, Tensor? bound, Tensor? words, float std, int k, "
    "int[] key, str device='', float[] params=[], float[] retention=[]) -> ()",
    "disturb_(Tensor(a!) visible, Tensor hidden, Tensor? step, float deviation, Tensor counters, "
    "int[] key, str device='', float[] params=[]) -> ()",
    "redraw_(Tensor(a!) visible, Tensor hidden, Tensor? step, Tensor x, Tensor d, float lr, "
    "float[] pulses, float deviation, Tensor counters, int[] key, str device='', "
    "float[] params=[]) -> ()",
):
    LIBRARY.define(schema)

# Tensors without strides come to the CPU kernel too, and lazy ones as they are: it says so.
_KINDS = (
    *("CPU", "SparseCPU", "SparseCsrCPU", "SparseMeta", "SparseCsrMeta"),
    *("MkldnnCPU", "QuantizedCPU", "NestedTensorCPU"),
)
_LAZY = ("Negative", "Conjugate", "ZeroTensor")


def implement(name: str, cpu: Callable[..., object], cuda: Callable[..., object]) -> None:
    """Register an operator's kernels.

    Args:
        name: of the operator. cpu, cuda: what runs it on tensors there.
    """
    for kind in _KINDS:
        LIBRARY.impl(name, cpu, kind)
    for kind in _LAZY:
        LIBRARY.impl(name, torch.library.fallthrough_kernel, kind)
    LIBRARY.impl(name, cuda, "CUDA")


def eager(t: Tensor) -> bool:
    """Whether nobody but the kernel wants to see a call with this tensor."""
    if type(t) is not Tensor:
        check_tensor(t)
        return False
    return not torch.compiler.is_compiling() and not dispatch_modes()


def direct(t: Tensor) -> bool:
    """Plain eager CPU tensors skip torch's dispatcher: it costs as much as a small read."""
    if type(t) is not Tensor:
        check_tensor(t)
        return False
    return not torch.compiler.is_compiling() and t.is_cpu and not dispatch_modes()

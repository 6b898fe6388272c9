"""Reads of CUDA tensors: torch multiplies, our kernels convert.

Per physical tile a read is ``ADC(W DAC(x))``; the segments of inputs are products of torch (cuBLAS;
its settings, ``torch.backends.cuda.matmul``, apply), everything else is three kernels that give the
bits of the CPU for the same sums: one for the inputs, one for each segment's outputs, one that
repeats saturated samples. With ``Mapping(cuda_products="fused")`` one kernel makes the products
too, on tensor cores and as exact as float32, and converts them before they leave its registers.
Wires that are solved (``ir_drop="exact"``) take a kernel for all of it, with the CPU's bits. A
sample that holds a NaN or an infinity comes out as NaN, where the CPU refuses it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ...errors import ConfigError
from ..checks import check_average, check_counters, operand, weight_address
from ..layout import ConverterSettings, ReadKey, checked, refuse_blocks
from . import module
from .launch import on_device_of, place_of

__all__ = ["read"]

# Wires that are solved: blocks that keep a GPU busy, bytes that they may work in.
_NODAL = (128, 1 << 31)


def read(
    x: Tensor,
    weight: Tensor,
    transposed: bool,
    counters: Tensor,
    key: Sequence[int],
    settings: Sequence[float],
    converters: Sequence[float] | None = None,
    average: Tensor | None = None,
) -> Tensor:
    """Both reads of CUDA tensors, on the current stream of the weight's device.

    Args:
        x, weight, transposed, counters, key, settings, converters, average: see :func:`.read.read_`
            and :func:`.read.read_chain_`.

    Returns:
        (samples, outputs) float32.

    Raises:
        ConfigError: dtype, shape or device.
        BackendError: there are no kernels, or no GPU.
    """
    weight_address(weight, weight.device.type)
    refuse_blocks(weight, key, ReadKey._fields.index("block_rows"))
    name, inputs = ("d", weight.shape[0]) if transposed else ("x", weight.shape[1])
    x = operand(name, x, inputs, weight)
    held, kept = check_counters(counters, weight), check_average(average, weight)
    kernels = module.kernels()
    with on_device_of(weight):
        job = kernels.Read(
            *weight.shape,
            x.shape[0],
            transposed,
            held,
            key,
            settings,
            ConverterSettings() if converters is None else converters,
            kept,
        )
        y = _compose(job, x, weight, transposed, checked(ReadKey, key))
        job.advance(*place_of(weight))
        return y


def _compose(job: Any, x: Tensor, weight: Tensor, transposed: bool, key: ReadKey) -> Tensor:
    outputs = job.outputs
    if x.numel() == 0 or outputs == 0:
        return x.new_zeros((x.shape[0], outputs))
    where = place_of(weight)
    work = _Workspace(job, x.contiguous(), weight, transposed)
    if job.nodal:
        return work.solved(job, where)
    if job.wired:
        work.wire(job, weight, transposed, key, where)
    fused = key.fused and job.fusable
    for block in range(job.blocks if job.block_inputs else 1):
        first = block * key.tile_out
        last = min(first + key.tile_out, outputs) if job.block_inputs else outputs
        job.input(block, *where)
        if fused:
            job.fused(first, last, *where)
            continue
        for segment in range(job.segments):
            ins = slice(segment * key.tile_in, (segment + 1) * key.tile_in)
            sums, squares = work.products(ins, slice(first, last))
            job.output(segment, first, last, _addresses(sums), _addresses(squares), *where)
    if job.repeats:
        converted = torch.empty_like(work.y)
        job.repeat(converted.data_ptr(), *where)
    return work.y


def _addresses(tensors: Sequence[Tensor]) -> tuple[int, int]:
    """Of both passes; 0: not there."""
    found = [t.data_ptr() for t in tensors]
    return (found[0] if found else 0, found[1] if len(found) > 1 else 0)


class _Workspace:
    """Tensors of one call. torch hands their memory to later work of the same stream only."""

    def __init__(self, job: Any, x: Tensor, weight: Tensor, transposed: bool) -> None:
        batch, passes = x.shape[0], range(job.passes)
        self.x, self.w = x, weight if transposed else weight.t()  # (inputs, outputs)
        self.y = x.new_empty((batch, job.outputs))
        self.alpha = x.new_empty(batch)
        self.q = [torch.empty_like(x) for _ in passes]
        self.squares = [torch.empty_like(x) for _ in passes] if job.pcm else []
        self.magnitudes = self.w.abs() if job.pcm else None
        self.norm = [x.new_empty((job.segments, batch)) for _ in passes]
        self.saturated = None
        if job.repeats:
            self.saturated = x.new_zeros((job.blocks, batch), dtype=torch.uint8)
        job.place(
            weight.data_ptr(),
            x.data_ptr(),
            self.y.data_ptr(),
            self.alpha.data_ptr(),
            _addresses(self.q),
            _addresses(self.squares),
            _addresses(self.norm),
            0 if self.saturated is None else self.saturated.data_ptr(),
        )

    def wire(
        self, job: Any, weight: Tensor, transposed: bool, key: ReadKey, where: tuple[int, int]
    ) -> None:
        """Multiply by the effective weights behind wires; pcm noise keeps the programmed ones."""
        rows, cols = weight.shape
        tile_rows, tile_cols = key.tile_out, key.tile_in
        if transposed:
            tile_rows, tile_cols = tile_cols, tile_rows
        shapes = ((rows, cols), (rows, cols), (-(-rows // tile_rows), cols))
        profiles = [
            weight.new_empty((2, *shape), dtype=torch.float64)
            for shape in (*shapes, (rows, -(-cols // tile_cols)))
        ]
        self.effective = torch.empty_like(weight)
        addresses = [t.data_ptr() for t in (*profiles, self.effective)]
        job.wires(*addresses, *where)
        self.w = self.effective if transposed else self.effective.t()

    def solved(self, job: Any, where: tuple[int, int]) -> Tensor:
        """The read through wires whose nodal equations are solved, bound management included.

        Works in ``_NODAL`` bytes and 32 a crosspoint.
        """
        tile = job.largest_tile
        if tile >= 1 << 31:
            raise ConfigError(
                f'a tile has {tile} crosspoints, ir_drop="exact" solves fewer than 2^31 on CUDA; '
                "use a Mapping of smaller tiles"
            )
        size = job.nodal_bytes(*_NODAL)
        memory = torch.empty(size, dtype=torch.uint8, device=self.x.device)
        job.input(0, *where)  # noise management
        job.solve(*_NODAL, memory.data_ptr(), *where)
        return self.y

    def products(self, ins: slice, outs: slice) -> tuple[list[Tensor], list[Tensor]]:
        """Sums of a segment and, for pcm noise, of the squares; per pass."""
        sums = [torch.mm(q[:, ins], self.w[ins, outs]) for q in self.q]
        if self.magnitudes is None:
            return sums, []
        return sums, [torch.mm(q[:, ins], self.magnitudes[ins, outs]) for q in self.squares]

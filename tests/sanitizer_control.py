"""``sanitizer_control.py address | undefined | thread``: a fault that the sanitizer has to report.

address: initial weights written behind the end of a tensor. undefined: more of them than 2^63.
thread: two threads pulse one array.
Without this, a build without instruments, or one whose reports get lost, would pass everything.
"""

from __future__ import annotations

import sys
import threading

import torch

import pulseline as pl
from pulseline import _cpu, ops


def address() -> None:
    """300 numbers into the memory of 100."""
    weight = torch.empty(100)
    _cpu.initial_normals(ops.DrawKey(1, 0), 0, 15, 20, weight.data_ptr(), 1)


def undefined() -> None:
    """Rows times columns overflow before anything is written."""
    _cpu.initial_normals(ops.DrawKey(1, 0), 0, 2**62, 8, torch.empty(100).data_ptr(), 1)


def thread() -> None:
    """The operator releases Python's lock; whose pulses come first is anybody's guess."""
    device = pl.devices.SoftBounds()
    array = pl.nn.AnalogLinear(64, 64, bias=False, device=device, seed=1, tile_id=0).cell.array

    def pulse() -> None:
        for _ in range(200):
            array.pulse(torch.ones(8, 64), torch.ones(8, 64), 0.01)

    both = [threading.Thread(target=pulse) for _ in range(2)]
    for one in both:
        one.start()
    for one in both:
        one.join()


if __name__ == "__main__":
    torch.set_num_threads(1)
    {"address": address, "undefined": undefined, "thread": thread}[sys.argv[1]]()

"""``interrupted.py TIMES``: Ctrl-C at those seconds of a step of the threads executor, then on.

Prints one JSON line: interrupts seen, losses of a run afterwards, digest, digest of a run of a
pipeline that was never interrupted, and whether the pipeline says that it is closed.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time

import torch
from torch import Tensor, nn

from pulseline.errors import BackendError
from pulseline.optim import AnalogSGD
from pulseline.pipeline import Pipeline

COUNT = 12


class Slow(nn.Linear):
    """Forward passes that take a while once they are told to."""

    nap = 0.0

    def forward(self, x: Tensor) -> Tensor:
        time.sleep(Slow.nap)
        return super().forward(x)


def build() -> Pipeline:
    torch.manual_seed(0)
    return Pipeline(
        nn.Sequential(*(Slow(4, 4) for _ in range(4))),
        4,
        executor="threads",
        timeout=20.0,
        optimizer=lambda parameters: AnalogSGD(parameters, lr=0.1),
        loss=nn.functional.mse_loss,
    )


def main() -> None:
    generator = torch.Generator().manual_seed(1)
    x, y = torch.randn(2, COUNT, 4, generator=generator)
    pipe, seen = build(), 0
    start = {name: value.clone() for name, value in pipe.state_dict().items()}
    Slow.nap = 0.4
    for at in map(float, sys.argv[1:]):
        threading.Timer(at, os.kill, (os.getpid(), signal.SIGINT)).start()
    end = time.monotonic() + 1.0 + max(map(float, sys.argv[1:]))
    while time.monotonic() < end:  # whatever an interrupt leaves: the next call must answer
        try:
            pipe.step(x[:4], y[:4])
        except KeyboardInterrupt:
            seen += 1
    while True:
        try:
            time.sleep(0.1)
            break
        except KeyboardInterrupt:
            seen += 1
    Slow.nap = 0.0
    found: dict[str, object] = {"seen": seen, "closed": False}
    try:
        pipe.drain()
        for stage in pipe.stages:
            stage.load({name: start[name] for name in stage.state()})
        found["losses"] = len(torch.cat([pipe.step(x, y), pipe.drain()]))
        found["digest"] = pipe.digest()
    except BackendError as error:
        found["closed"] = str(error)
    other = build()
    other.step(x, y)
    other.drain()
    found["expected"] = other.digest()
    print(json.dumps(found))


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # shells ignore it in the background
    main()

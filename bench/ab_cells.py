"""What ``ab.py`` measures: twelve cells, and the worker that runs them with one pulseline.

A worker is told cells and repetitions on stdin and answers times on stdout, one JSON line each. It
imports pulseline from the directory it is given, wherever else one is installed. Old and new
versions run the same cells: what they call is looked up where names may differ.
"""

from __future__ import annotations

import gc
import itertools
import json
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

Step = Callable[[], object]

UPDATES = {  # fidelity, rows, cols, samples, profile of common.inputs
    "update exact, small": ("exact", 64, 64, 1, "gauss_bl31"),
    "update exact, medium": ("exact", 256, 256, 16, "mnistlike"),
    "update exact, large": ("exact", 512, 1024, 64, "mnistlike"),
    "update strict, medium": ("strict", 256, 256, 16, "mnistlike"),
    "update grouped, medium": ("grouped", 256, 256, 64, "gauss_bl1"),
    "update moments, large": ("moments", 512, 1024, 64, "mnistlike"),
}
READS = ("read forward", "read backward")  # 512 x 512, 16 samples, default converters
STEPS = {"step, batch 1": 1, "step, batch 16": 16, "step, batch 64": 64}  # MLP 784-256-128-10
PIPELINE = "pipeline, async"  # 8 micro-batches of 1 through 4 layers of 64 x 64
CELLS = (*UPDATES, *READS, *STEPS, PIPELINE)


def array(layer: Any) -> Any:
    """What holds the matrix of an analog layer and reads and updates it."""
    return layer.cell if hasattr(layer, "cell") else layer.tile


def layer(rows: int, cols: int, fidelity: str = "exact") -> Any:
    """An analog layer of soft bounds with noise and default converters, without bias."""
    import pulseline as pl

    device = pl.devices.SoftBounds(w_max=1.0, w_min=-1.0, dw_min=0.001)
    home = pl.configs if hasattr(pl.configs, "UpdateConfig") else pl.io
    update = home.UpdateConfig(fidelity=fidelity)
    return pl.nn.AnalogLinear(cols, rows, False, device=device, update=update, seed=1)


def update(fidelity: str, rows: int, cols: int, samples: int, profile: str) -> Step:
    """Updates to and fro, so that the weights stay where they are however many there are."""
    from common import LR, inputs

    x, d = inputs(profile, samples, rows, cols)
    move, errors = array(layer(rows, cols, fidelity)).update, itertools.cycle((d, -d))
    return lambda: move(x, next(errors), LR[profile])


def read(transposed: bool) -> Step:
    """One analog product."""
    import torch

    crossbar = array(layer(512, 512))
    v = torch.randn(16, 512, generator=torch.Generator().manual_seed(1))
    if hasattr(crossbar, "read"):
        return partial(crossbar.read, v, transposed)
    return partial(crossbar.backward if transposed else crossbar.forward, v)


def step(samples: int) -> Step:
    """A training step of an MLP: forward, backward, AnalogSGD."""
    import torch
    from common import inputs

    import pulseline as pl

    torch.manual_seed(0)
    sizes = (784, 256, 128, 10)
    pairs = [(torch.nn.Linear(i, o), torch.nn.Tanh()) for i, o in itertools.pairwise(sizes)]
    model = pl.nn.to_analog(torch.nn.Sequential(*itertools.chain(*pairs))[:-1], seed=1)
    optimizer = pl.optim.AnalogSGD(model.parameters(), lr=0.01)
    x, _ = inputs("mnistlike", samples, 1, 784)
    labels = torch.arange(samples) % 10

    def run() -> None:
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(x), labels).backward()
        optimizer.step()

    return run


def pipeline() -> Step:
    """Eight micro-batches through a filled asynchronous pipeline of four stages, one thread."""
    import torch

    import pulseline as pl

    torch.manual_seed(0)
    pairs = [(torch.nn.Linear(64, 64, bias=False), torch.nn.Tanh()) for _ in range(4)]
    make = pl.pipeline.Pipeline
    pipe = getattr(make, "from_model", make)(
        pl.nn.to_analog(torch.nn.Sequential(*itertools.chain(*pairs)), seed=1),
        stages=4,
        schedule="async",
        optimizer=lambda parameters: pl.optim.AnalogSGD(parameters, lr=0.01),
        loss=torch.nn.functional.mse_loss,
    )
    x, target = torch.rand(2, 8, 64).unbind()
    if hasattr(make, "from_model"):
        return lambda: pipe.step(x, target=target)
    return lambda: pipe.step(x, target)


def build(name: str) -> Step:
    """The cell of that name."""
    if name in UPDATES:
        return update(*UPDATES[name])
    if name in READS:
        return read(transposed=name == READS[1])
    return step(STEPS[name]) if name in STEPS else pipeline()


def measure(run: Step, repeats: int, clock: Callable[[], float]) -> float:
    """Seconds for so many runs."""
    gc.collect()
    gc.disable()
    start = clock()
    for _ in range(repeats):
        run()
    seconds = clock() - start
    gc.enable()
    return seconds


def calibrate(run: Step, seconds: float, clock: Callable[[], float]) -> int:
    """How many runs take that long; warms up on the way."""
    repeats = 1
    while (took := measure(run, repeats, clock)) < seconds:
        repeats = max(repeats + 1, int(1.1 * repeats * seconds / max(took, seconds / 16)))
    return repeats


def serve(directory: str, threads: int) -> None:
    """Answer commands until stdin ends."""
    sys.path.insert(0, directory)
    sys.meta_path.insert(0, PathFinder)  # type: ignore[arg-type]  # before hooks of editable installs
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print goes elsewhere
    import torch
    from common import machine

    import pulseline as pl

    found = Path(str(pl.__file__)).resolve()
    if not found.is_relative_to(Path(directory).resolve()):
        sys.exit(f"pulseline came from {found.parent}; install a wheel into {directory}")
    torch.set_num_threads(threads)
    gc.freeze()  # what was imported is not looked through before every measurement
    # On one thread the time of the processor: others on the machine do not count.
    clock = time.process_time if threads == 1 else time.perf_counter
    cells: dict[str, Step] = {}
    print(json.dumps(machine()), file=answers, flush=True)
    for line in sys.stdin:
        command = json.loads(line)
        name = command["cell"]
        run = cells[name] if name in cells else cells.setdefault(name, build(name))
        if "repeats" in command:
            answer: float = measure(run, command["repeats"], clock)
        else:
            answer = calibrate(run, command["seconds"], clock)
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]))

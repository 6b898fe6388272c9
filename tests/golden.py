"""Golden bits: what 50 micro-batches leave in the weights, as sha256, for all the physics there is.

``golden.json`` holds one line per run of ``golden_cases.py``: the hash of the bytes of all weights,
layer by layer, and of all hidden weights (of devices with write noise), no names.

The file is the same on every machine whose kernels sum by fma: the numbers that go in come from an
integer hash, settings are written out instead of left to defaults, and what torch computes in
between (clamps, products and differences of single numbers) has one correct result.

    python tests/golden.py                        compare, on this instruction set
    python tests/golden.py --executor threads     ... one thread per stage
    python tests/golden.py --everywhere           ... on all of them, 1 and 2 threads, two executors
    python tests/golden.py --write                add runs that the file lacks
    python tests/golden.py --write --reason TEXT  replace: bits have changed, and this is why

The reasons stay in the file; a test looks for each of them in CHANGELOG.md.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

import pulseline as pl
from golden_cases import NETWORKS, SCHEDULES, Case, cases, devices, reads, updates

FILE = Path(__file__).with_name("golden.json")
MICRO_BATCHES = 50

# ---- the one place that knows how to build, train and look inside ----


def fixed(stream: int, *shape: int) -> Tensor:
    """float32 in [-1, 1), multiples of 2^-23: an integer hash (splitmix64) of stream and index."""
    n = np.arange(int(np.prod(shape)), dtype=np.uint64) + np.uint64(stream << 32)
    z = (n + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    top = (z ^ (z >> np.uint64(31))) >> np.uint64(40)
    return torch.from_numpy(top.astype(np.float32) * np.float32(2**-23) - np.float32(1)).view(shape)


def half_square(y: Tensor, target: Tensor) -> Tensor:
    """Half the mean square; its gradient (y - target) / n is one difference and one product."""
    difference = y - target
    return (difference * difference).sum() * (0.5 / difference.numel())


def model(case: Case) -> nn.Module:
    """Four linear layers without bias on crossbars, clamps between them."""
    network = NETWORKS[case.network]
    layers: list[nn.Module] = []
    for n, (cols, rows) in enumerate(itertools.pairwise(network.widths)):
        linear = nn.Linear(cols, rows, bias=False)
        linear.weight.data.copy_(fixed(n, rows, cols) * network.scale)
        layers += [linear, nn.ReLU() if n == 1 else nn.Hardtanh()]
    io, mapping = reads()[case.read]
    return pl.nn.to_analog(
        nn.Sequential(*layers[:-1]),
        device=devices()[case.device],
        io=io,
        update=updates()[case.update],
        mapping=mapping,
        seed=20,
    )


def train(case: Case, executor: str = "sim") -> dict[str, Tensor]:
    """The state after 50 micro-batches on four stages."""
    network = NETWORKS[case.network]
    count = MICRO_BATCHES * network.samples
    x = fixed(100, count, network.widths[0])
    x = x * (fixed(101, *x.shape) < 0.5)  # a quarter is 0: lines without a pulse
    target = fixed(102, count, network.widths[-1]) * 0.5
    with pl.Pipeline(
        model(case),
        stages=4,
        optimizer=lambda parameters: pl.optim.AnalogSGD(parameters, lr=network.lr),
        loss=half_square,
        micro_batch_size=network.samples,
        executor=executor,
        **SCHEDULES[case.schedule],
    ) as pipe:
        pipe.step(x, target)
        pipe.drain()
        state: dict[str, Tensor] = pipe.state_dict()
    return state


def arrays(state: dict[str, Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """Weights and hidden weights, in the order of the layers."""

    def named(what: str) -> list[Tensor]:
        return [value for name, value in state.items() if name.rpartition(".")[2] == what]

    return named("weight"), named("hidden")


def run(case: Case, executor: str = "sim") -> list[str]:
    """The hash of all weights and, where there are any, of all hidden weights."""
    hashes = []
    for tensors in arrays(train(case, executor)):
        total = hashlib.sha256()
        for tensor in tensors:
            assert tensor.dtype is torch.float32
            total.update(tensor.detach().contiguous().numpy().astype("<f4").tobytes())
        hashes += [total.hexdigest()] * bool(tensors)
    return hashes


# ---- the file ----


def load() -> tuple[dict[str, list[str]], list[str]]:
    """The runs with their hashes, and why they were written."""
    held = json.loads(FILE.read_text()) if FILE.exists() else {"history": [], "runs": {}}
    return held["runs"], held["history"]


def save(runs: dict[str, list[str]], history: list[str]) -> None:
    """One run a line, so that a diff shows what changed."""
    why = ",\n".join(f"  {json.dumps(text)}" for text in history)
    lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(runs[name])}" for name in runs)
    FILE.write_text(f'{{"history": [\n{why}\n],\n"runs": {{\n{lines}\n}}}}\n')


def differing(
    want: dict[str, list[str]], executor: str = "sim", every: int = 1
) -> Iterator[tuple[str, str]]:
    """(run, what differs) of every run, or every n-th, that is not as the file has it."""
    for case in cases()[::every]:
        name = str(case)
        if name not in want:
            yield name, "not in the file"
            continue
        found = run(case, executor)
        if found != want[name]:
            hidden = len(found) == 2 and found[1] != want[name][-1]
            yield name, "hidden weights" if hidden else "weights"


def fused() -> bool:
    """Whether the kernels in use sum reads by fma, as those that wrote the file."""
    return str(pl.ops.info()["isa"]) != "baseline"


def write(reason: str | None) -> None:
    """Add what is new; change what is there only for a reason.

    Raises:
        SystemExit: runs of the file differ or are gone, and no reason is given.
    """
    old, history = load()
    new = {str(case): run(case) for case in cases()}
    changed = [name for name in old if new.get(name) != old[name]]
    if changed and not reason:
        sys.exit(
            f"{len(changed)} of {len(old)} runs differ from {FILE.name} or are gone, the first is "
            f"{changed[0]!r}; if that is meant, say why with --reason and in CHANGELOG.md"
        )
    if not old and not reason:
        sys.exit(f"{FILE.name} does not exist; say with --reason what the first one holds")
    save(new, [*history, reason] if reason else history)
    print(f"{FILE}: {len(new)} runs, {len(changed)} changed, {len(new.keys() - old.keys())} new")


def _everywhere() -> Iterator[tuple[str, int, str]]:
    """Instruction sets that sum by fma, thread counts, executors; in use meanwhile."""
    isas = [isa for isa in pl.ops.info()["isas"] if isa != "baseline"]  # type: ignore[attr-defined]
    for isa, threads, executor in itertools.product(isas, (1, 2), ("sim", "threads")):
        pl.ops.use_isa(isa)
        torch.set_num_threads(threads)
        yield isa, threads, executor


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--everywhere", action="store_true", help="compare on all kernels")
    parser.add_argument("--executor", choices=("sim", "threads"), default="sim")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="only every N-th run")
    parser.add_argument("--write", action="store_true", help="add new runs to the file")
    parser.add_argument("--reason", help="with --write: replace runs that differ, and say why")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if not fused():
        sys.exit("the file holds bits of kernels that sum by fma; this machine runs baseline")
    if args.write:
        return write(args.reason)
    wrong = 0
    here = [(str(pl.ops.info()["isa"]), 1, args.executor)]
    for isa, threads, executor in _everywhere() if args.everywhere else here:
        found = list(differing(load()[0], executor, args.every))
        wrong += len(found)
        count = len(cases()[:: args.every])
        print(f"{isa}, {threads} threads, {executor}: {len(found)} of {count} differ", flush=True)
        for name, what in found[:5]:
            print(f"  {what}: {name}")
    return sys.exit(wrong > 0)


if __name__ == "__main__":
    main()

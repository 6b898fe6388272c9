"""The hash of the inner loops as a raw stream of 32-bit words, and dieharder on it.

    python bench/generators.py --order columns | head -c 1G > stream
    python bench/generators.py --battery --seconds 180 --report bench/results/generators.md

Words are hash(row ROW_STRIDE + column COLUMN_STRIDE) under the keys of cycle noise (core/rng.h), of
a matrix with --size rows and columns. What varies fastest: ``columns``: crosspoints row by row,
then the next sample; ``rows``: column by column; ``samples``: 65,536 samples of a crosspoint, then
the next crosspoint. Checked first: the words are those of the compiled routine.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from common import machine
from numpy.typing import NDArray

from pulseline import _cpu
from pulseline.reference import rng

Words = NDArray[np.uint32]
SEED, TILE_ID, SAMPLES = 20250607, 3, 1 << 16
ORDERS = ("columns", "rows", "samples")
VERDICTS = ("PASSED", "WEAK", "FAILED")

# dieharder's number, size parameter (-n) and p-samples (-p; 0: its default). Left out: those that
# its own list calls suspect or not to be used, and those that read more than 10 GB.
TESTS = (
    (0, 0, 0),
    (1, 0, 0),
    (2, 0, 0),
    (3, 0, 0),
    (4, 0, 0),
    (8, 0, 0),
    (9, 0, 0),
    (10, 0, 0),
    (15, 0, 0),
    (16, 0, 0),
    (100, 0, 0),
    (101, 0, 0),
    (200, 4, 0),
    (202, 5, 0),
    (203, 0, 0),
    (203, 1, 0),
    (203, 15, 25),
    (203, 31, 25),
    (205, 0, 0),
    (206, 0, 0),
    (207, 0, 0),
    (208, 0, 0),
    (209, 0, 0),
    (102, 0, 0),
    (11, 0, 0),
    (12, 0, 0),
    (13, 0, 0),
    (204, 0, 0),
)


def hash_words(base: Words, k0: Words | np.uint32, k1: Words | np.uint32) -> Words:
    """csrc/core/rng.h in numpy: three times as fast as a call per word."""
    x = base ^ k0
    x ^= x >> np.uint32(16)
    x *= np.uint32(0x7FEB352D)
    x ^= x >> np.uint32(15)
    x ^= k1
    x *= np.uint32(0x846CA68B)
    x ^= x >> np.uint32(16)
    return x


def keys(sample: int) -> tuple[int, int]:
    """Keys of the cycle noise of one sample."""
    k0, k1 = _cpu.core.draw(SEED, TILE_ID, rng.CYCLE_NOISE, sample, 0, 0)[:2]
    return k0, k1


def bases(size: int, by_column: bool) -> Words:
    """Bases of all crosspoints, row by row or column by column."""
    line = np.arange(size, dtype=np.uint32)
    rows, columns = line * np.uint32(rng.ROW_STRIDE), line * np.uint32(rng.COLUMN_STRIDE)
    matrix = rows[:, None] + columns
    return np.ascontiguousarray(matrix.T if by_column else matrix).ravel()


def stream(order: str, size: int) -> Iterator[Words]:
    """The stream in pieces, without end (until the counter of samples would repeat)."""
    base = bases(size, order == "rows")
    if order == "samples":
        drawn = np.array([keys(k) for k in range(SAMPLES)], dtype=np.uint32)
        k0, k1 = np.ascontiguousarray(drawn.T)
        check(hash_words(base[7], k0[:100], k1[:100]), [base[7]] * 100, drawn[:100])
        for one in base:
            yield hash_words(one, k0, k1)
        return
    for sample in range(1 << 32):
        key = keys(sample)
        for first in range(0, len(base), SAMPLES):
            part = base[first : first + SAMPLES]
            words = hash_words(part, np.uint32(key[0]), np.uint32(key[1]))
            if sample == first == 0:
                check(words[:100], part[:100], [key] * 100)
            yield words


def check(words: Words, base: Iterable[Any], drawn: Iterable[Any]) -> None:
    """Stop unless these are the words of the compiled routine."""
    for word, b, (k0, k1) in zip(words, base, drawn, strict=True):
        if int(word) != int(_cpu.core.hash(b, int(k0), int(k1))):
            raise SystemExit("the stream differs from the compiled hash")


def feed(order: str, size: int, pipe: int) -> None:
    """Write the stream until nobody reads."""
    try:
        for words in stream(order, size):
            view = memoryview(words.tobytes())
            while view:
                view = view[os.write(pipe, view) :]
    except BrokenPipeError:
        pass
    finally:
        os.close(pipe)


def seconds_used() -> float:
    """Processor seconds of this process and its children."""
    used = [resource.getrusage(w) for w in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)


class Result(NamedTuple):
    """dieharder's lines, the tests that found no time, processor seconds."""

    lines: list[str]
    skipped: list[str]
    seconds: float


def battery(order: str, size: int, budget: float) -> Result:
    """The tests one after the other on one continuous stream."""
    read_end, write_end = os.pipe()
    threading.Thread(target=feed, args=(order, size, write_end), daemon=True).start()
    lines: list[str] = []
    skipped: list[str] = []
    start = seconds_used()
    for number, size_parameter, samples in TESTS:
        command = ["dieharder", "-g", "200", "-d", str(number)]
        command += ["-n", str(size_parameter)] if size_parameter or number == 203 else []
        command += ["-p", str(samples)] if samples else []
        if seconds_used() - start > budget:
            skipped.append(" ".join(command[3:]))
            continue
        run = subprocess.run(command, stdin=read_end, capture_output=True, text=True, check=True)
        found = [s.strip() for s in run.stdout.splitlines() if any(v in s for v in VERDICTS)]
        lines += found
        print(order, f"{seconds_used() - start:6.0f} s", *found, sep="\n  ", flush=True)
    os.close(read_end)
    return Result(lines, skipped, seconds_used() - start)


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--order", default="columns,rows,samples", help="one without --battery")
    p.add_argument("--size", type=int, default=1024, help="rows and columns of the matrix")
    p.add_argument("--battery", action="store_true", help="run dieharder instead of writing words")
    p.add_argument("--seconds", type=float, default=180.0, help="processor time for each order")
    p.add_argument("--report", metavar="FILE", help="write the battery's results there")
    args = p.parse_args()
    orders = args.order.split(",")
    if any(o not in ORDERS for o in orders) or not (args.battery or len(orders) == 1):
        raise SystemExit(f"--order is {args.order}; use one of {', '.join(ORDERS)}")
    if not args.battery:
        sys.stdout.flush()
        feed(orders[0], args.size, os.dup(sys.stdout.fileno()))
        return
    results = {order: battery(order, args.size, args.seconds) for order in orders}
    if args.report:
        Path(args.report).write_text(report(results, args.size))


def report(results: dict[str, Result], size: int) -> str:
    """Markdown: where, how, every line as dieharder printed it."""
    where = machine()
    text = ["# Battery on the hash of the inner loops", ""]
    text += [f"- {name}: {where[name]}" for name in ("date", "processor", "cores", "command")]
    version = subprocess.run(["dieharder", "-V"], capture_output=True, text=True, check=False)
    text += [f"- dieharder {version.stdout.strip()}"]
    text += [f"- {size} x {size} crosspoints; what varies fastest heads each table", ""]
    everything = [line for r in results.values() for line in r.lines]
    counted = ", ".join(f"{sum(v in line for line in everything)} {v}" for v in VERDICTS)
    text += [f"{len(everything)} p-values: {counted}. WEAK means p below .005 or above .995: one"]
    text += ["in a hundred p-values of a perfect generator. Columns: test, size parameter,"]
    text += ["t-samples, p-samples, p-value, verdict.", ""]
    for order, (lines, skipped, seconds) in results.items():
        text += [f"## {order}, {seconds:.0f} s of processor time", "", "```", *lines, "```", ""]
        if skipped:
            text += [f"Not run, the time was used up: {'; '.join(skipped)}", ""]
    return "\n".join(text)


if __name__ == "__main__":
    main()

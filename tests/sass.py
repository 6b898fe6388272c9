"""Machine code of the CUDA module: what a kernel uses and how many instructions its loops take.

The code comes from ``cuobjdump``: of a CUDA toolkit or of the package nvidia-cuda-cuobjdump.
A kernel is a graph of basic blocks. What one round of a loop costs is counted along the cheapest
way from the loop's head through a chosen block back to the head.
"""

from __future__ import annotations

import heapq
import itertools
import os
import re
import shutil
import subprocess
import sysconfig
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path


def find_tool(name: str) -> str | None:
    """Path of a CUDA tool, on the path, beside nvcc or in an installed package."""
    nvcc = shutil.which("nvcc")
    packages = Path(sysconfig.get_path("purelib")) / "nvidia"
    places = [os.environ.get("CUDA_HOME", "/usr/local/cuda") + "/bin"]
    places += [str(Path(nvcc).resolve().parent)] if nvcc else []
    places += [str(folder) for folder in packages.glob("*/bin")]
    return shutil.which(name) or shutil.which(name, path=os.pathsep.join(places))


@dataclass
class Block:
    """Instructions without a branch among them, by opcode; where control may go next."""

    start: int
    opcodes: list[str] = field(default_factory=list)
    after: list[int] = field(default_factory=list)

    def count(self, *names: str) -> int:
        """Instructions whose opcode begins with one of the names; all without names."""
        return sum(not names or op.split(".")[0] in names for op in self.opcodes)


@dataclass
class Kernel:
    """One compiled kernel as a graph of basic blocks by address."""

    name: str
    blocks: dict[int, Block]

    def count(self, *names: str) -> int:
        return sum(block.count(*names) for block in self.blocks.values())

    def distance(self, start: int, goal: int, first: bool) -> float:
        """Least instructions from block start up to, not including, block goal.

        ``first``: a way of at least one block, for the way around a loop.
        """
        queue = [(0, start, first)]
        seen: set[int] = set()
        while queue:
            cost, at, moving = heapq.heappop(queue)
            if at == goal and not moving:
                return cost
            if at in seen and not moving:
                continue
            seen |= set() if moving else {at}
            block = self.blocks[at]
            for following in block.after:
                heapq.heappush(queue, (cost + block.count(), following, False))
        return float("inf")

    def round_through(self, block: int) -> float:
        """Instructions of the cheapest cycle through a block."""
        return self.distance(block, block, True)

    def largest(self, weight: Callable[[Block], int]) -> int:
        """Address of the block with the largest weight."""
        return max(self.blocks, key=lambda at: weight(self.blocks[at]))


_LINE = re.compile(r"\s+/\*([0-9a-f]{4,6})\*/\s+(.*?);")
_TARGET = re.compile(r"0x([0-9a-f]+)")


def _blocks(code: list[tuple[int, str]]) -> dict[int, Block]:
    addresses = [at for at, _ in code]
    following = dict(itertools.pairwise(addresses))
    leaders, edges = {addresses[0]}, {}
    for at, text in code:
        guarded = text.startswith("@")
        words = re.sub(r"^@!?U?P\w+\s+", "", text).split()
        op = words[0].split(".")[0]
        targets: list[int] = []
        if op == "BRA":
            targets = [int(_TARGET.findall(text)[-1], 16)]
        elif op not in ("EXIT", "RET", "BRX", "JMX"):
            continue
        # `BRA P0, target` is guarded too.
        guarded = guarded or (op == "BRA" and len(words) > 2)
        if guarded and at in following:
            targets.append(following[at])
        edges[at] = targets
        leaders |= set(targets) | ({following[at]} if at in following else set())
    blocks: dict[int, Block] = {}
    for at, text in code:
        if at in leaders:
            block = blocks[at] = Block(at)
        block.opcodes.append(re.sub(r"^@!?U?P\w+\s+", "", text).split()[0])
        if at in edges:
            block.after = edges[at]
        elif following.get(at) in leaders:
            block.after = [following[at]]
    return blocks


def kernels(module: Path, arch: str, tool: str) -> Iterable[Kernel]:
    """Kernels of a module for one architecture, for example sm_90."""
    command = [tool, "-sass", "-arch", arch, str(module)]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    for part in text.split("Function : ")[1:]:
        name, _, body = part.partition("\n")
        found = [m for m in map(_LINE.match, body.splitlines()) if m]
        code = [(int(m[1], 16), m[2].strip()) for m in found]
        yield Kernel(name.strip(), _blocks(code))


@dataclass
class Usage:
    """Registers, shared and local memory of a kernel."""

    registers: int
    shared: int
    stack: int
    local: int


def usages(module: Path, tool: str) -> dict[tuple[str, str], Usage]:
    """By (architecture, kernel)."""
    command = [tool, "-res-usage", str(module)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    result, arch, name = {}, "", ""
    for line in (done.stdout + done.stderr).splitlines():
        if found := re.search(r"arch = (sm_\w+)", line):
            arch = found[1]
        elif found := re.search(r"Function (\S+):", line):
            name = found[1]
        elif found := re.search(r"REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)", line):
            registers, stack, shared, local = map(int, found.groups())
            result[arch, name] = Usage(registers, shared, stack, local)
    return result

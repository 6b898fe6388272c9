"""torch's own pipeline schedules on our stages, one process per rank; for test_torch_schedules.py.

    python torch_ranks.py FOLDER

Imports once and forks the ranks. For every case the first M of them form a group and train a
digital network with torch's schedule; rank 0 writes the digests of all weights to
FOLDER/result.json.
"""

from __future__ import annotations

import datetime
import json
import multiprocessing
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.pipelining import Schedule1F1B, ScheduleGPipe
from torch.distributed.pipelining.schedules import _PipelineScheduleRuntime

import delayed
from pulseline.digest import digest
from pulseline.optim import AnalogSGD
from pulseline.pipeline.torch_adapter import to_torch_stage
from pulseline.schedules import synchronous, to_torch_csv

RANKS = 3
SIZE, MICRO_BATCHES, MINI_BATCHES, LR = 3, 5, 2, 0.05
CASES = [
    (stages, name, scale)
    for stages in (2, 3)
    for name in ("gpipe", "1f1b", "csv")
    for scale in (True, False)
]


def schedule(name: str, stage: Any, scale: bool, folder: Path) -> Any:
    """torch's schedule of that name; "csv": its runtime, on our 1F1B loaded from a file."""
    options: dict[str, Any] = {"loss_fn": nn.functional.mse_loss, "scale_grads": scale}
    if name == "csv":
        runtime = _PipelineScheduleRuntime([stage], MICRO_BATCHES, **options)
        file = folder / f"schedule{stage.num_stages}.{stage.stage_index}.csv"
        file.write_text(
            to_torch_csv(synchronous(MICRO_BATCHES).ops(stage.num_stages, MICRO_BATCHES))
        )
        runtime._load_csv(str(file), format="compute_only")
        return runtime
    kind = ScheduleGPipe if name == "gpipe" else Schedule1F1B
    return kind(stage, MICRO_BATCHES, **options)


def train(rank: int, stages: int, name: str, scale: bool, folder: Path, group: Any) -> str:
    """Digest of all weights after some mini-batches."""
    model = delayed.network(delayed.Digital(), stages)
    modules = [nn.Sequential(model[2 * m], model[2 * m + 1]) for m in range(stages)]
    x, y = delayed.samples(MICRO_BATCHES * MINI_BATCHES, SIZE)
    plan = schedule(name, to_torch_stage(modules, rank, x[:SIZE], group), scale, folder)
    optimizer = AnalogSGD(modules[rank].parameters(), LR)
    step = MICRO_BATCHES * SIZE
    for inputs, targets in zip(x.split(step), y.split(step), strict=True):
        feed: tuple[Tensor, ...] = (inputs,) if rank == 0 else ()
        plan.step(*feed, **({"target": targets} if rank == stages - 1 else {}))
        optimizer.step()
        optimizer.zero_grad()
    gathered: list[Any] = [None] * stages
    dist.all_gather_object(gathered, modules[rank][0].weight.detach(), group=group)
    return digest({str(2 * m): weight for m, weight in enumerate(gathered)})


def run(rank: int, folder: Path) -> None:
    """All cases, as one rank."""
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/store",
        rank=rank,
        world_size=RANKS,
        timeout=datetime.timedelta(seconds=40),
    )
    groups = {stages: dist.new_group(list(range(stages))) for stages in (2, 3)}
    found = {
        f"{stages} {name} {scale}": train(rank, stages, name, scale, folder, groups[stages])
        for stages, name, scale in CASES
        if rank < stages
    }
    if rank == 0:
        (folder / "result.json").write_text(json.dumps(found))
    dist.barrier()
    dist.destroy_process_group()


def main() -> int:
    torch.set_num_threads(1)
    fork = multiprocessing.get_context("fork")
    folder = Path(sys.argv[1])
    ranks = [fork.Process(target=run, args=(rank, folder), daemon=True) for rank in range(RANKS)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(80)
    return max(1 if process.exitcode is None else abs(process.exitcode) for process in ranks)


if __name__ == "__main__":
    sys.exit(main())

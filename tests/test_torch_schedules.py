"""Our schedules against torch.distributed.pipelining: CSV both ways, the same bits, and a trap."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import delayed
import torch_ranks
from clock import parse
from pulseline.errors import ConfigError
from pulseline.nn import to_analog
from pulseline.pipeline import Pipeline, Stage
from pulseline.pipeline.split import split
from pulseline.pipeline.torch_adapter import to_torch_stage
from pulseline.schedules import Schedule, asynchronous, sequential, synchronous, to_torch_csv
from torch_csv import from_torch_csv, recognise

HERE = Path(__file__).parent


def torch_rows(text: str) -> dict[int, list[Any]]:
    """What torch makes of a CSV."""
    from torch.distributed.pipelining.schedules import _Action

    rows = csv.reader(io.StringIO(text))
    return {rank: [_Action.from_str(cell) for cell in row] for rank, row in enumerate(rows)}


PLANS = {
    "sync": synchronous(8),
    "gpipe": synchronous(8, "gpipe"),
    "async": asynchronous(),
    "depths": asynchronous(inflight=[7, 4, 2]),
    "sequential": sequential(8),
}


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS.keys())
def test_csv_there_and_back(plan: Schedule) -> None:
    stages, count = 3, 8
    programs = plan.ops(stages, count)
    text = to_torch_csv(programs)
    update = "flush" if plan.updates_at_flush else "each"
    assert from_torch_csv(text, update) == programs
    if plan.kind != "sequential":
        assert recognise(programs) == plan
    from torch.distributed.pipelining.schedules import _validate_schedule

    assert _validate_schedule(torch_rows(text), stages, stages, count) == {m: m for m in range(3)}


def test_csv_of_torch_schedules() -> None:
    """torch's own GPipe and 1F1B are ours; idle clocks and communication are dropped.

    torch 2.13 numbers the passes of the last rank of its drawn 1F1B from 1, so numbers are left
    out there; the runs below compare the real thing.
    """
    name = "torch.distributed.pipelining._schedule_visualizer"
    get_schedule_ops = pytest.importorskip(name).get_schedule_ops

    for stages, count in ((2, 4), (3, 8), (4, 4)):
        for name, plan in (("1F1B", synchronous(count)), ("GPipe", synchronous(count, "gpipe"))):
            rows = get_schedule_ops(name, stages, count)
            cells = [["" if a is None else str(a) for a in row] for row in rows]
            programs = plan.ops(stages, count)
            if name == "1F1B":
                drawn = ["".join(c.strip("0123456789")[:1] for c in row) for row in cells]
                own = ["".join(op.kind for op in p if op.kind in "FB") for p in programs]
                assert [row.replace("R", "") for row in drawn] == own
                continue
            text = io.StringIO()
            csv.writer(text).writerows(cells)
            assert from_torch_csv(text.getvalue()) == programs
            assert recognise(programs) == plan
    assert from_torch_csv("0F0,0SEND_F0,0RECV_B0,0B0\n1RECV_F0,1F0,1B0,1SEND_B0\n") == (
        synchronous(1).ops(2, 1)
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the schedule is empty"),
        ("0F0,0I0,0W0\n", "splits or joins passes"),
        ("0F0,1F0\n", "one stage per rank"),
        ("0F0,0B\n", "lacks its micro-batch"),
        ("0F0,junk\n", "not of the form 1F3"),
        ("0F0,0B0\n1F0,1F1,1B0,1B1\n", "stage 2 must run F of micro-batches 0 to 0"),
        ("0F0,0B0,0B0\n", "stage 1 must run B"),
        ("0F1,0F0,0B0,0B1\n", "in order"),
        ("0F0,0B0,0F1,0B1\n1F0,1F1,1B0,1B1\n", "deadlocks"),
        ("0B0,0F0\n", "deadlocks"),
    ],
)
def test_csv_errors(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        from_torch_csv(text)
    assert "\n" not in str(caught.value)


def test_unknown_orders_are_not_recognised() -> None:
    loose = [parse(text) for text in ("1F0", "1F1", "1B0", "1B1", "1F2", "1B2", "1U2")]
    with pytest.raises(ConfigError, match="fixed number of micro-batches in flight"):
        recognise([loose])
    with pytest.raises(ConfigError, match="use 'flush' or 'each'"):
        from_torch_csv("0F0,0B0\n", "never")


def ours(stages: int, plan: Schedule) -> str:
    """Digest of our pipeline on the work of torch_ranks.py."""
    kind = delayed.Digital()
    model = delayed.network(kind, stages)
    count = torch_ranks.MICRO_BATCHES * torch_ranks.MINI_BATCHES
    x, y = delayed.samples(count, torch_ranks.SIZE)
    pipe = Pipeline(
        model,
        stages,
        optimizer=lambda parameters: kind.optimizer(parameters, torch_ranks.LR),
        loss=nn.functional.mse_loss,
        schedule=plan,
        micro_batch_size=torch_ranks.SIZE,
    )
    pipe.step(x, y)
    pipe.drain()
    return delayed.weights_digest(kind, model)


@pytest.fixture(scope="module")
def torch_digests(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Digests of torch's schedules, from three processes on gloo over loopback."""
    folder = tmp_path_factory.mktemp("ranks")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    environment["PYTHONPATH"] = os.pathsep.join(p for p in (str(HERE), *sys.path) if p)
    done = subprocess.run(
        [sys.executable, str(HERE / "torch_ranks.py"), str(folder)],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, str] = json.loads((folder / "result.json").read_text())
    return found


@pytest.mark.parametrize("stages", [2, 3])
@pytest.mark.parametrize("order", ["gpipe", "1f1b"])
@pytest.mark.parametrize("scale", [True, False], ids=["averaged", "pulsed"])
def test_synchronous_equals_torch(
    torch_digests: dict[str, str], stages: int, order: str, scale: bool
) -> None:
    """scale_grads=True is update="averaged", False is "pulsed"; B = 5 is no power of two."""
    plan = synchronous(torch_ranks.MICRO_BATCHES, order, update="averaged" if scale else "pulsed")
    mine = ours(stages, plan)
    assert torch_digests[f"{stages} {order} {scale}"] == mine
    assert torch_digests[f"{stages} csv {scale}"] == mine


def test_averaged_and_pulsed_differ(torch_digests: dict[str, str]) -> None:
    assert len(set(torch_digests.values())) == 2 * 2


def test_adapter_runs_no_tile_in_training() -> None:
    """Static metadata come from eval mode: no counter moves, modes stay."""
    model = delayed.network(delayed.Analog(), 3)
    modules = split(model, 3)
    modules[1].eval()
    before = [model[2 * m].cell.array.state() for m in range(3)]  # type: ignore[union-attr,operator]
    example = torch.zeros(2, delayed.WIDTH)
    store = torch.distributed.HashStore()
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        stage = to_torch_stage(modules, 2, example)
        assert (stage.stage_index, stage.num_stages) == (2, 3)
    finally:
        torch.distributed.destroy_process_group()
    after = [model[2 * m].cell.array.state() for m in range(3)]  # type: ignore[union-attr,operator]
    assert after == before
    assert [part.training for part in modules] == [True, False, True]


def traced(model: nn.Module) -> Any:
    """torch's traced Pipe of a model with two cuts."""
    from torch.distributed.pipelining import SplitPoint, pipeline

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cuts = {"2": SplitPoint.BEGINNING, "4": SplitPoint.BEGINNING}
        return pipeline(model, (torch.zeros(2, delayed.WIDTH),), split_spec=cuts)


def test_torch_cannot_trace_tiles() -> None:
    """If it ever can, its Pipe is refused like any other."""
    with pytest.raises(RuntimeError, match="cannot capture your model"):
        traced(to_analog(delayed.network(delayed.Digital(), 3)))


class LayersAreLeaves(torch.fx.Tracer):
    """A tracer that keeps analog layers as they are."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return True


def test_traced_graphs_with_analog_layers_are_refused() -> None:
    model = to_analog(delayed.network(delayed.Digital(), 3))
    graph = torch.fx.GraphModule(model, LayersAreLeaves().trace(model))
    assert any(hasattr(part, "cell") for part in graph.modules())
    nested = nn.Sequential(graph, nn.Linear(delayed.WIDTH, delayed.WIDTH))
    for refused in (
        lambda: split(graph, 3),
        lambda: split(nested, 2),
        lambda: Stage(graph, delayed.PlainSGD(graph.parameters(), 0.1)),
        lambda: to_torch_stage([nested], 0, torch.zeros(2, delayed.WIDTH)),
    ):
        with pytest.raises(ConfigError, match="traced"):
            refused()


def test_a_traced_pipe_is_refused_everywhere() -> None:
    pipe = traced(delayed.network(delayed.Digital(), 3))
    part = pipe.get_stage_module(1)
    parts = [pipe.get_stage_module(m) for m in range(3)]
    optimizer = delayed.PlainSGD(nn.Linear(1, 1).parameters(), 0.1)
    for refused in (
        lambda: split(pipe, 3),
        lambda: split(part, 1),
        lambda: to_analog(pipe),
        lambda: Stage(part, optimizer),
        lambda: to_torch_stage(parts, 0, torch.zeros(2, delayed.WIDTH)),
    ):
        with pytest.raises(ConfigError, match="traced") as caught:
            refused()
        assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match="rank is 3; use 0 to 2"):
        to_torch_stage(parts, 3, torch.zeros(2, delayed.WIDTH))

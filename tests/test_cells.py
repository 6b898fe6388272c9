"""The cell protocol is enough for an algorithm of a user's own: Tiki-Taka from tiki_taka.py.

Equality of bits throughout: cuts of a batch, executors, state, copies.
"""

from __future__ import annotations

import ast
import copy
import io as bytesio
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import pulseline as pl
import tiki_taka
from pulseline import ConfigError
from pulseline.cells import Single
from pulseline.pipeline import Pipeline

WIDTHS = ((7, 5), (5, 6), (6, 5), (5, 3))


def normals(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def digital(bias: bool) -> nn.Sequential:
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for n, m in WIDTHS:
        layers += [nn.Linear(n, m, bias), nn.Hardtanh()]
    return nn.Sequential(*layers[:-1])


def network(seed: int | None = 1, bias: bool = True, **settings: Any) -> nn.Sequential:
    model = pl.nn.to_analog(digital(bias), tiki_taka.crossbar(**settings), seed=seed)
    assert isinstance(model, nn.Sequential)
    return model


def train(model: nn.Module, cuts: int, samples: int = 24, seed: int = 0) -> None:
    """Samples in updates of 24, each of so many micro-batches."""
    optimizer = pl.optim.AnalogSGD(model.parameters(), lr=0.2)
    batches = (normals(samples, size, seed=seed + size).split(24) for size in (7, 3))
    for x, y in zip(*batches, strict=True):
        optimizer.zero_grad()
        for part, target in zip(x.chunk(cuts), y.chunk(cuts), strict=True):
            (0.5 * (model(part) - target) ** 2).sum().backward()
        optimizer.step()


def test_it_is_a_page() -> None:
    """Under 60 lines, and of the package only names of ``pl.Cell`` and what configures it."""
    path = Path(tiki_taka.__file__)
    (written,) = (n for n in ast.parse(path.read_text()).body if isinstance(n, ast.ClassDef))
    assert written.end_lineno is not None
    assert written.end_lineno - written.lineno < 60
    assert "_" not in {name[:1] for name in dir(tiki_taka.TikiTaka) if name in path.read_text()} - {
        "_"
    }


def test_both_arrays_move_and_the_slow_one_is_read() -> None:
    model = network()
    slow, fast = (a.weight.data.clone() for a in model[0].cell.arrays)
    train(model, 3, 72)
    after = [a.weight.data for a in model[0].cell.arrays]
    assert not torch.equal(after[0], slow)
    assert not torch.equal(after[1], fast)
    assert model[0].cell.transfers() == 36
    model.eval()
    x = normals(4, 7)
    y = model[0](x)
    model[0].cell.begin_evaluation()
    assert torch.equal(y, model[0].cell.array.evaluate(x) + model[0].bias)


def test_arrays_have_devices_and_draws_of_their_own() -> None:
    cell = network()[0].cell
    slow, fast = cell.arrays
    assert [a.identity.array for a in cell.arrays] == [0, 1]
    assert not torch.equal(slow.bounds[0], fast.bounds[0])
    plain = pl.Array(5, 7, tiki_taka.crossbar(), seed=1, tile_id=0)  # plain SGD at the same seed
    assert torch.equal(slow.bounds[0], plain.bounds[0])


@pytest.mark.parametrize("every", [1, 2, 5, 100])
@pytest.mark.parametrize("cuts", [1, 3, 8])
def test_cuts_change_no_bit(cuts: int, every: int) -> None:
    """Without digital biases, whose gradients torch sums in the order of the micro-batches."""
    whole, cut = (network(bias=False, every=every) for _ in range(2))
    train(whole, 1, 48)
    train(cut, cuts, 48)
    assert pl.digest(cut.state_dict()) == pl.digest(whole.state_dict())


def test_updates_cut_anywhere_change_no_bit() -> None:
    x, d = normals(23, 7), normals(23, 5, seed=1)
    cells = [network(every=4)[0].cell for _ in range(4)]
    for cell, cuts in zip(cells, ([23], [1] * 23, [3, 0, 20], [8, 8, 7]), strict=True):
        for part_x, part_d in zip(x.split(cuts), d.split(cuts), strict=True):
            cell.update(part_x, part_d, 0.1)
    for cell in cells[1:]:
        for a, b in zip(cell.arrays, cells[0].arrays, strict=True):
            assert torch.equal(a.weight.data, b.weight.data)


def pipelined(executor: str, micro_batch: int = 1) -> str:
    with Pipeline(
        network(),
        stages=4,
        schedule="async",
        optimizer=lambda p: pl.optim.AnalogSGD(p, lr=0.1),
        loss=nn.functional.mse_loss,
        micro_batch_size=micro_batch,
        executor=executor,
    ) as pipe:
        pipe.step(normals(24, 7), normals(24, 3, seed=1))
        pipe.drain()
        digest = pipe.digest()
    return digest


@pytest.mark.parametrize("micro_batch", [1, 3, 8])
def test_threads_equal_sim(micro_batch: int) -> None:
    assert pipelined("threads", micro_batch) == pipelined("sim", micro_batch)


def pickled(model: Any) -> Any:
    return pickle.loads(pickle.dumps(model))


@pytest.mark.parametrize("clone", [copy.deepcopy, pickled])
def test_copies_continue(clone: Callable[[nn.Module], nn.Module]) -> None:
    model = network()
    train(model, 2, 24)
    copied = clone(model)
    before = pl.digest(model.state_dict())
    train(copied, 1, 24, seed=5)
    assert pl.digest(model.state_dict()) == before
    train(model, 1, 24, seed=5)
    assert pl.digest(copied.state_dict()) == pl.digest(model.state_dict())


@pytest.mark.parametrize("clone", [copy.deepcopy, pickled])
def test_an_optimizer_finds_its_cells_in_a_copy(clone: Callable[[Any], Any]) -> None:
    """Copied with the model, and alone: then the cells come with it."""
    model = network()
    optimizer = pl.optim.AnalogSGD(model.parameters(), lr=0.2)
    for both in (clone((model, optimizer)), (None, clone(optimizer))):
        net, copied = both
        cells = [p.cell for p in copied.param_groups[0]["params"] if hasattr(p, "cell")]
        assert len(cells) == 8
        if net is not None:
            assert cells[0] is net[0].cell
        before = cells[0].arrays[1].weight.data.clone()
        cells[0].pending.append((normals(3, 7), normals(3, 5)))
        copied.step()
        assert not torch.equal(cells[0].arrays[1].weight.data, before)
    assert model[0].cell.samples == 0


@pytest.mark.parametrize("assign", [False, True])
def test_a_state_resumes_between_two_transfers(assign: bool) -> None:
    model, fresh = network(every=5), network(seed=None, every=5)
    train(model, 1, 24)  # 24 is no multiple of 5
    file = bytesio.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    fresh.load_state_dict(torch.load(file, weights_only=True), assign=assign)
    for one in (model, fresh):
        train(one, 2, 24, seed=9)
    assert pl.digest(fresh.state_dict()) == pl.digest(model.state_dict())


def test_keys_of_a_state() -> None:
    """The frozen names: arrays by number, the cell's own state once."""
    names = set(network()[0].state_dict())
    held = {f"cell.arrays.{n}.{what}" for n in (0, 1) for what in ("weight", "hidden")}
    assert names == {"bias", "cell._extra_state", *held}


def test_another_algorithm_or_setting_is_refused_whole() -> None:
    model = network(every=2)
    before = pl.digest(model.state_dict())
    for other, words in (
        (
            network(seed=None, every=3),
            r"every was saved as 3 and is 2",
        ),
        (
            pl.nn.to_analog(digital(True)),
            "layer 0: algorithm was saved as 'Single' and is 'TikiTaka' here|state lacks",
        ),
    ):
        with pytest.raises(ConfigError, match=words):
            model.load_state_dict(other.state_dict())
        assert pl.digest(model.state_dict()) == before


def test_moving_keeps_the_cell() -> None:
    model = network()
    before = pl.digest(model.state_dict())
    assert pl.digest(model.to("cpu").state_dict()) == before
    layer = copy.deepcopy(model[0]).to("meta")
    for array in layer.cell.arrays:
        assert array.weight.is_meta
        assert array.crosspoints.step.is_meta
        assert array.weight.cell is layer.cell


@pytest.mark.parametrize("which", ["x", "d"])
def test_a_bad_sample_leaves_both_arrays(which: str) -> None:
    cell = network()[0].cell
    before = [a.weight.data.clone() for a in cell.arrays]
    x, d = normals(9, 7), normals(9, 5, seed=1)
    (x if which == "x" else d)[8, 2] = float("inf")
    with pytest.raises(ConfigError, match=rf"{which}\[8\] holds a NaN or an infinity"):
        cell.update(x, d, 0.1)
    with pytest.raises(ConfigError, match="x has 9 samples and d has 8"):
        cell.update(normals(9, 7), normals(8, 5), 0.1)
    with pytest.raises(ConfigError, match="lr is -1"):
        cell.update(normals(9, 7), normals(9, 5), -1)
    assert cell.samples == 0
    for array, weight in zip(cell.arrays, before, strict=True):
        assert torch.equal(array.weight.data, weight)


def test_twins_among_arrays_are_refused() -> None:
    model = nn.Sequential(*(pl.nn.AnalogLinear(3, 3, tiki_taka.crossbar(), seed=4) for _ in "ab"))
    with pytest.raises(ConfigError, match="are the same devices with the same noise"):
        pl.optim.AnalogSGD(model.parameters())
    model[1].cell.reseed()
    pl.optim.AnalogSGD(model.parameters())


def test_columns_are_reads_of_one_input() -> None:
    array = pl.Array(5, 7, pl.devices.Ideal(), io=pl.configs.IOConfig.perfect())
    array.initialise()
    assert torch.equal(array.column(3), array.weight.data[:, 3])
    with pytest.raises(ConfigError, match="column is 7; this array has columns 0 to 6"):
        array.column(7)


def test_spans_count_the_samples_of_the_cell() -> None:
    cell = Single(2, 3, pl.Crossbar(), pl.Identity(0))
    found = [(s.start, s.stop, border) for s, border in cell.spans(7, 3)]
    assert found == [(0, 3, 0), (3, 6, 1), (6, 7, None)]
    found = [(s.start, s.stop, border) for s, border in cell.spans(2, 3)]
    assert found == [(0, 2, 2)]
    assert list(cell.spans(0, 3)) == []


def test_bad_crossbars() -> None:
    for make, words in (
        (lambda: pl.Crossbar(device=3), "device is 3; use a device of pulseline.devices"),
        (lambda: pl.Crossbar(algorithm=3), "algorithm is 3; leave it out for the default"),
        (lambda: pl.Crossbar(io=None), "io is None; leave it out for the default"),
        (lambda: pl.Array(2, 3, jo=1), "jo is no setting of a crossbar; use one of device, io"),
        (
            lambda: pl.Array(2, 3, pl.devices.Ideal(), device=pl.devices.Ideal()),
            "device is given twice",
        ),
        (
            lambda: pl.nn.AnalogLinear(2, 3, algorithm=lambda *_: 3),
            "algorithm made a int; use one that makes a Cell",
        ),
    ):
        with pytest.raises(ConfigError, match=words):
            make()  # type: ignore[no-untyped-call]

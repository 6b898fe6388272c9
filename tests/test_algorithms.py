"""Algorithms of several arrays: equality of bits throughout.

The specification, sample by sample; cuts of updates; executors; states, copies, moves.
"""

from __future__ import annotations

import copy
import dataclasses
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import pulseline as pl
from algorithm_cases import (
    DEVICE,
    RULES,
    STATED,
    Lonely,
    cell_of,
    crossbar,
    network,
    normals,
    pipelined,
    specification,
    train,
)
from pulseline import ConfigError, reference
from pulseline import algorithms as al

EVERY = pytest.mark.parametrize("name", RULES)


def buffers(cell: Any) -> dict[str, Tensor]:
    """What a state holds beside devices' own numbers."""
    return {k: v for k, v in cell.state_dict().items() if isinstance(v, Tensor)}


def same(one: Any, other: Any) -> bool:
    return pl.digest(one.state_dict()) == pl.digest(other.state_dict())


@pytest.mark.parametrize("name", STATED)
@pytest.mark.parametrize("fidelity", ["exact", "strict", "grouped"])
def test_specification_sample_by_sample(name: str, fidelity: str) -> None:
    """A cell's updates of 58 samples against plain torch on arrays of the same devices."""
    rule: Any = STATED[name]
    update = pl.configs.UpdateConfig(
        fidelity=fidelity, group_size=1 if fidelity == "grouped" else 0
    )
    cell = cell_of(rule, update=update)
    stated, arrays = specification(rule, cell), Lonely(cell, getattr(rule, "read", None))
    x, d = normals(58, 5), normals(58, 7, seed=1) * 0.3
    start = [array.held.clone() for array in cell.arrays]
    for first in range(0, 58, 20):
        cell.update(x[first : first + 20], d[first : first + 20], 0.1)
    for n in range(58):
        stated.sample(arrays, x[n], d[n], 0.1)
    for mine, alone, before in zip(cell.arrays, arrays.arrays, start, strict=True):
        assert torch.equal(mine.held, alone.held)
        assert not torch.equal(mine.held, before)
    for buffer, own in (
        ("H", "H"),
        ("mean", "mean"),
        ("rho", "rho"),
        ("c", "sign_columns"),
        ("e", "sign_rows"),
        ("chi", "chi"),
    ):
        if hasattr(cell, own):
            assert torch.equal(getattr(cell, own), getattr(stated, buffer)), own
    if isinstance(rule, al.Transfer):
        assert torch.equal(
            cell.effective_weight(), stated.read_weight(*(a.held for a in arrays.arrays))
        )
        assert (stated.c.min() < 0) == (rule.chop > 0)
        assert (stated.e.min() < 0) == (rule.chop_rows > 0)
    assert cell.transfers() == {
        "TikiTaka1 trains": 38,
        "MultiTile": 87,
        "AGAD random": 87,
        "MixedPrecision samples": 55,
    }.get(name, 58 // rule.every)


@EVERY
def test_updates_cut_anywhere_change_no_bit(name: str) -> None:
    x, d = normals(41, 5), normals(41, 7, seed=1) * 0.3
    cells = [cell_of(RULES[name]) for _ in range(4)]
    for cell, cuts in zip(cells, ([41], [1] * 41, [3, 0, 38], [16, 16, 9]), strict=True):
        for part_x, part_d in zip(x.split(cuts), d.split(cuts), strict=True):
            cell.update(part_x, part_d, 0.1)
    assert len({pl.digest(cell.state_dict()) for cell in cells}) == 1
    assert pl.digest(cells[0].state_dict()) != pl.digest(cell_of(RULES[name]).state_dict())


@EVERY
@pytest.mark.parametrize("cuts", [3, 12])
def test_micro_batches_change_no_bit(name: str, cuts: int) -> None:
    whole, cut = network(RULES[name]), network(RULES[name])
    train(whole)
    train(cut, cuts)
    assert same(whole, cut)
    assert whole[0].cell.transfers() > 0 or isinstance(RULES[name], (al.ReferencePair, al.Vector))


@EVERY
def test_what_is_read_is_the_sum(name: str) -> None:
    """A digital layer with the effective weight gives what perfect reads give."""
    cell = cell_of(RULES[name], io=pl.configs.IOConfig.perfect())
    cell.update(normals(20, 5), normals(20, 7, seed=1) * 0.3, 0.1)
    x = normals(4, 5, seed=2)
    y = x.double() @ cell.effective_weight().double().T
    # float32 sums of 5 products below 4: 5 roundings of at most 2^-24 of 8 each
    assert float((cell.read(x) - y).abs().max()) < 5 * 8 * 2.0**-24
    assert torch.equal(cell.read(x), cell.evaluate(x))


@EVERY
def test_programming_is_read_back(name: str) -> None:
    """Also behind updates, whatever the other arrays hold; within the bounds of array 0."""
    cell = cell_of(RULES[name])
    cell.update(normals(20, 5), normals(20, 7, seed=1) * 0.1, 0.1)
    target = normals(7, 5, seed=3) * 0.02
    cell.program(target)
    # one rounding of a difference and one of a sum of numbers below 1
    assert float((cell.effective_weight() - target).abs().max()) <= 2 * 2.0**-24


@EVERY
def test_writes_to_arrays_are_read(name: str) -> None:
    """Counted pulses, symmetry points, write and verify from outside: the sum follows."""
    cell = cell_of(RULES[name], io=pl.configs.IOConfig.perfect())
    cell.update(normals(20, 5), normals(20, 7, seed=1) * 0.3, 0.1)
    eye = torch.eye(5)
    for write in (
        lambda: cell.arrays[-1].step(torch.arange(5, dtype=torch.int32), torch.ones(7, 5)),
        lambda: al.write_verify(cell, rounds=3),
        lambda: al.find_symmetry_point(cell.arrays[0], 3),
        lambda: cell.arrays[-1].program(normals(7, 5, seed=4) * 0.1),
    ):
        before = cell.read(eye)
        write()
        assert float((cell.read(eye).T - cell.effective_weight()).abs().max()) < 1e-6
        hidden = len(cell.arrays) > 1 and not list(getattr(cell, "summands", tuple)())
        assert hidden or not torch.equal(cell.read(eye), before)


@EVERY
def test_stuck_crosspoints_of_all_arrays_are_stuck_from_the_start(name: str) -> None:
    device = dataclasses.replace(DEVICE, corrupt_devices_prob=0.3)
    model, other = (network(RULES[name], device=device) for _ in range(2))
    other.load_state_dict(model.state_dict())
    for one, two in zip(model.modules(), other.modules(), strict=True):
        if isinstance(one, pl.Array):
            assert torch.equal(one.held, two.held)
    train(model)
    train(other)
    assert same(model, other)


@EVERY
def test_lr_zero_moves_nothing(name: str) -> None:
    """Behind a training too: samples are counted, and nothing else changes."""
    model = network(RULES[name])
    train(model)
    before = model.state_dict()
    cells = [one for one in model.modules() if isinstance(one, pl.Cell)]
    seen = [cell.samples for cell in cells]
    optimizer = pl.optim.AnalogSGD(model.parameters(), lr=0.0)
    optimizer.zero_grad()
    reads = [cell.effective_weight() for cell in cells]
    (0.5 * model(normals(12, 7)) ** 2).sum().backward()
    optimizer.step()
    assert [cell.samples for cell in cells] == [number + 12 for number in seen]
    for name_of, tensor in model.state_dict().items():
        if isinstance(tensor, Tensor):
            assert torch.equal(tensor, before[name_of]), name_of
    for cell, old in zip(cells, reads, strict=True):
        assert torch.equal(cell.effective_weight(), old)


@EVERY
def test_refused_input_changes_nothing(name: str) -> None:
    cell = cell_of(RULES[name])
    before = pl.digest(cell.state_dict())
    d = normals(20, 7)
    d[13, 2] = float("nan")
    with pytest.raises(ConfigError, match=r"d\[13\] holds a NaN"):
        cell.update(normals(20, 5), d, 0.1)
    assert pl.digest(cell.state_dict()) == before


# ---- states, copies, moves ----


@EVERY
def test_states_resume_in_the_middle_of_a_sweep(name: str) -> None:
    model, other = network(RULES[name]), network(RULES[name])
    train(model, samples=36)
    state = copy.deepcopy(model.state_dict())
    other.load_state_dict(state)
    assert same(model, other)
    for one in (model, other):
        train(one, 3, seed=4)
    assert same(model, other)
    x = normals(3, 7)
    assert torch.equal(model.eval()(x), other.eval()(x))


@EVERY
@pytest.mark.parametrize("clone", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_continue(name: str, clone: Any) -> None:
    model = network(RULES[name])
    train(model)
    copied = clone(model).to("cpu")
    before = pl.digest(model.state_dict())
    train(copied, seed=5)
    assert pl.digest(model.state_dict()) == before
    train(model, seed=5)
    assert same(model, copied)
    x = normals(3, 7)
    assert torch.equal(model.eval()(x), copied.eval()(x))


def test_states_are_plain() -> None:
    """torch.load with weights_only takes them."""
    import io

    file = io.BytesIO()
    model = network(RULES["ERIDER"])
    torch.save(model.state_dict(), file)
    file.seek(0)
    model.load_state_dict(torch.load(file, weights_only=True))


@pytest.mark.parametrize("name", list(RULES)[:-1])
def test_states_of_other_rules_are_refused(name: str) -> None:
    names = list(RULES)
    other = RULES[names[names.index(name) + 1]]
    with pytest.raises(ConfigError, match=r"was saved as|holds|lacks|arrays"):
        network(other).load_state_dict(network(RULES[name]).state_dict())


def test_a_refusal_names_the_field() -> None:
    one, other = (network(al.AGAD(chop=chop)) for chop in (0.05, 0.1))
    with pytest.raises(ConfigError, match=r"chop was saved as 0\.05 and is 0\.1 here"):
        other.load_state_dict(one.state_dict())
    state = one.state_dict()
    state["0.cell._extra_state"]["progress"]["transfers"] = -1
    with pytest.raises(ConfigError, match="it is damaged"):
        one.load_state_dict(state)


# ---- pipelines ----


@pytest.mark.filterwarnings("ignore:signs of matrix:UserWarning")
@EVERY
@pytest.mark.parametrize("stages", [2, 4, 8])
def test_threads_equal_sim(name: str, stages: int) -> None:
    rule = RULES[name]
    assert pipelined(rule, "threads", stages) == pipelined(rule, "sim", stages)


@pytest.mark.parametrize(
    ("rule", "warns"),
    [
        (al.AGAD(chop=0.05), True),  # 5 x 20 samples against 50 x 3
        (al.AGAD(chop=0.01), False),
        (al.TikiTaka2(), False),
    ],
)
def test_fast_choppers_on_stale_gradients_are_warned_of(rule: Any, warns: bool) -> None:
    import warnings

    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        pipelined(rule, "sim", 4)
    said = [str(one.message) for one in found if "signs of matrix" in str(one.message)]
    assert bool(said) == warns
    if warns:
        assert "in stage 1 flip every 140 samples" in said[0]
        assert "3 samples stale" in said[0]


# ---- time ----

AGES = pl.devices.SoftBounds(dw_min=0.01, lifetime=50.0, diffusion=0.001, batch=3)


@EVERY
def test_time_passes_on_all_arrays_by_the_samples_of_the_cell(name: str) -> None:
    """However updates are cut, also where the arrays' events fall on other samples."""
    slower = dataclasses.replace(AGES, batch=4, write_noise_std=1.0)
    rule = RULES[name]
    fast = None if isinstance(rule, al.MixedPrecision) else slower  # which has one array
    cells = [cell_of(rule, device=AGES, fast_device=fast) for _ in range(3)]
    x, d = normals(25, 5), normals(25, 7, seed=1) * 0.3
    for cell, cuts in zip(cells, ([25], [1] * 25, [7, 0, 18]), strict=True):
        for part_x, part_d in zip(x.split(cuts), d.split(cuts), strict=True):
            cell.update(part_x, part_d, 0.1)
        assert [array.age_count for array in cell.arrays] == [25] * len(cell.arrays)
    assert len({pl.digest(cell.state_dict()) for cell in cells}) == 1
    still = cell_of(rule, device=dataclasses.replace(AGES, lifetime=0.0, diffusion=0.0))
    still.update(x, d, 0.1)
    assert not torch.equal(cells[0].array.held, still.array.held)


def test_frozen_weights_age_by_what_is_read() -> None:
    for rule in (al.ERIDER(), al.MixedPrecision()):
        whole, cut = (cell_of(rule, device=AGES) for _ in range(2))
        x = normals(10, 5)
        for cell in (whole, cut):
            cell.weight.requires_grad_(False)
        y = whole.read(x)
        assert torch.equal(y, torch.cat([cut.read(part) for part in x.split([4, 6])]))
        assert [array.age_count for array in whole.arrays] == [10] * len(whole.arrays)
        assert same(whole, cut)


def test_vectors_pulse_all_arrays_by_the_same_trains() -> None:
    """Each on devices of its own: the specification of one array with the trains of array 0."""
    quiet = dataclasses.replace(DEVICE, dw_min_std=0.0)
    x, d = normals(20, 5), normals(20, 7, seed=1) * 0.3
    cell = cell_of(al.Vector(arrays=3), device=quiet)
    before = [array.held.clone() for array in cell.arrays]
    cell.update(x, d, 0.1)
    seed, stream = cell.array.identity.key
    for array, old in zip(cell.arrays, before, strict=True):
        stored = reference.construct(quiet, *array.shape, *array.identity.key)
        config = array.update_config
        trained = reference.update(
            old, stored, x, d, quiet, config, lr=0.1, seed=seed, tile_id=stream
        )
        assert torch.equal(array.held, trained)
    alone = pl.Array(7, 5, quiet, seed=cell.arrays[1].identity)
    alone.write(before[1])
    alone.pulse(x, d, 0.1)
    assert not torch.equal(alone.held, cell.arrays[1].held)  # its own trains


# ---- what is built, what is refused ----


def test_fast_device() -> None:
    fast = pl.devices.ConstantStep(dw_min=0.02)
    cell = cell_of(al.TikiTaka2(), fast_device=fast)
    assert cell.slow.device is DEVICE
    assert cell.fast.device is fast
    chain = cell_of(al.MultiTile(arrays=4), fast_device=fast)
    assert [one.device is fast for one in chain.arrays] == [False, False, False, True]
    with pytest.raises(ConfigError, match=r"fast_device is .* without an algorithm"):
        pl.Crossbar(DEVICE, fast_device=fast)


def test_layers_take_an_algorithm_by_rule() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    analog: Any = pl.to_analog(
        model, {"0": crossbar(al.TikiTaka2()), "*": pl.Crossbar(DEVICE)}, seed=1
    )
    assert analog[0].cell.algorithm == "TikiTaka2"
    assert analog[1].cell.algorithm == "Single"
    layer = pl.nn.AnalogLinear(4, 3, device=DEVICE, algorithm=al.AGAD())
    assert layer.cell.algorithm == "AGAD"


@dataclasses.dataclass(frozen=True)
class Own(al.Transfer):
    answer: Any = None

    def transfer(self, cell: Any, columns: slice, z: Tensor, rate: float) -> Any:
        return self.answer if not callable(self.answer) else self.answer(z)


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (None, r"Own.transfer returned None; return a \(7, 1\) tensor of whole pulses"),
        (3, "Own.transfer returned 3"),
        (torch.ones(2, 2), r"Own.transfer returned a \(2, 2\) tensor"),
        (lambda z: torch.full_like(z, 0.5), "whole number"),
        (lambda z: torch.full_like(z, float("nan")), "counts"),
    ],
)
def test_rules_that_answer_nonsense(answer: Any, told: str) -> None:
    cell = cell_of(Own(answer=answer))
    with pytest.raises(ConfigError, match=told):
        cell.update(normals(1, 5), normals(1, 7), 0.1)


@pytest.mark.parametrize("kind", [torch.float64, torch.int64, torch.bool])
def test_rules_answer_in_any_kind_of_number(kind: Any) -> None:
    cells = [cell_of(Own(answer=lambda z, k=k: torch.ones_like(z, dtype=k))) for k in (kind, None)]
    for cell in cells:
        cell.update(normals(9, 5), normals(9, 7), 0.1)
    assert torch.equal(cells[0].slow.held, cells[1].slow.held)


def test_rules_that_cannot_be() -> None:
    with pytest.raises(ConfigError, match="rule Transfer has no transfer"):
        cell_of(al.Transfer())
    with pytest.raises(ConfigError, match="name is 'sign_columns', which is no free name"):
        cell_of(al.TikiTaka2()).zeros("sign_columns")
    with pytest.raises(
        ConfigError, match=r"algorithm is the class AGAD; use an instance, AGAD\(\)"
    ):
        pl.Crossbar(DEVICE, algorithm=al.AGAD)
    with pytest.raises(ConfigError, match=r"algorithm is 'agad'; use a rule of pulseline"):
        pl.Crossbar(DEVICE, algorithm="agad")  # type: ignore[arg-type]
    for weights in (1, None, float("nan"), (1.0, float("inf"))):
        with pytest.raises(ConfigError, match="weights is"):
            al.Vector(weights=weights)  # type: ignore[arg-type]


WRONG = {
    "every": 0,
    "reads": 1.5,
    "lr_fast": -1.0,
    "lr_transfer": float("nan"),
    "gamma": -0.1,
    "chop": 1.5,
    "chop_rows": -0.1,
    "max_pulses": 0,
    "threshold": 0.0,
    "granularity": "both",
    "units": "epochs",
    "order": "backwards",
    "auto_scale": 1,
    "momentum": 2.0,
    "warm_up": -1,
    "read": "perfect",
    "forget": None,
    "leak": 1.1,
}


@pytest.mark.parametrize("field", WRONG)
def test_fields_out_of_range(field: str) -> None:
    with pytest.raises(ConfigError, match=rf"{field} is .*; use "):
        al.TikiTaka2(**{field: WRONG[field]})


@pytest.mark.parametrize(
    ("rule", "field", "value"),
    [
        (al.AGAD, "tail", 0.0),
        (al.AGAD, "chop", 0.0),
        (al.RIDER, "smoothing", 2.0),
        (al.MultiTile, "arrays", 1),
        (al.MultiTile, "every_factor", 0),
        (al.MultiTile, "lr_transfer_factor", 0.0),
        (al.TikiTaka1, "transfer_update", 31),
        (al.MixedPrecision, "bins_x", -1),
        (al.OneSided, "full", 1.2),
        (al.ReferencePair, "pulses", -1),
        (al.Vector, "weights", (1.0,)),
        (al.Vector, "pulsed", "none"),
        (al.TikiTaka2, "regular_chop", True),
    ],
)
def test_fields_of_other_rules_out_of_range(rule: Any, field: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=rf"{field} is .*; use "):
        rule(**{field: value})


def test_every_rule_and_option_has_a_case() -> None:
    rules = {getattr(al, name) for name in al.__all__ if isinstance(getattr(al, name), type)}
    concrete = {r for r in rules if dataclasses.is_dataclass(r) and issubclass(r, al.Rule)}
    concrete -= {al.Rule, al.Periodic, al.Chain, al.Transfer}
    assert concrete == {type(rule) for rule in RULES.values()}
    for kind in concrete:
        for field in dataclasses.fields(kind):
            values = [getattr(r, field.name) for r in RULES.values() if hasattr(r, field.name)]
            assert any(value != field.default for value in values), f"{kind.__name__}.{field.name}"

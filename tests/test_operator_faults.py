"""What once crashed an operator or gave wrong numbers without a word, one case each.

Memory that is not there or lies under two arguments, settings that no configuration holds, NaN and
infinities that converters and bounds would hide, on every instruction set and in the emulator.
"""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import pulseline as pl
from emulated import Emulated
from operators import chain_arguments, counted, read_arguments, replaced, update_arguments
from pulseline import devices, ops
from pulseline.configs import Mapping, ReadConfig, UpdateConfig
from pulseline.configs.update import FIDELITIES
from pulseline.devices import ConstantStep, Ideal, SoftBounds
from pulseline.errors import ConfigError
from pulseline.ops import update
from pulseline.ops.cuda import module
from pulseline.ops.cuda import read as cuda_read
from test_update import MODELS, problem

ROWS, COLS = 5, 7
NAN, INF = float("nan"), float("inf")
PULSED = [device for model in devices.DEVICES.values() for device in model.examples()[:1]]


def normals(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def array(device: Any = None, **options: Any) -> pl.Array:
    made = pl.Array(ROWS, COLS, device or Ideal(), seed=0, **options)
    made.initialise()
    return made


# ---- A2: a tile without a limit ----


@pytest.mark.parametrize("size", [sys.maxsize, 1 << 31, 1 << 64, True])
def test_tiles_have_a_limit(size: int) -> None:
    with pytest.raises(
        ConfigError, match=f"tile_in is {size}; use an integer from 1 to 2147483647"
    ):
        Mapping(size, size)
    whole = array(io=pl.configs.IOConfig.perfect(), mapping=Mapping(2**31 - 1, 2**31 - 1))
    one = array(io=pl.configs.IOConfig.perfect(), mapping=Mapping(COLS, ROWS))
    assert torch.equal(whole.read(normals(3, COLS)), one.read(normals(3, COLS)))


# ---- A3: settings at the operators ----

READ_SETTINGS: dict[str, tuple[type, dict[str, float], str]] = {
    "no tile": (ops.ReadKey, {"tile_in": 0}, "tile_in is 0; use a whole number from 1 to"),
    "negative tile": (ops.ReadKey, {"tile_out": -1}, "tile_out is -1; use"),
    "purpose": (ops.ReadKey, {"purpose": 99}, "purpose is 99; use one of PURPOSES"),
    "seed": (ops.ReadKey, {"seed": -1}, "seed is -1; use"),
    "rounds": (ops.ReadSettings, {"max_rounds": 32.0}, "max_rounds is 32.0; use"),
    "management": (ops.ReadSettings, {"noise_management": 7.0}, "noise_management is 7.0; use"),
    "plain": (ops.ReadSettings, {"noise_management": 3.0}, "in a plain read; use read_chain_"),
    "no bound": (ops.ReadSettings, {"inp_bound": 0.0}, "of inp_bound 0; use a bound > 0"),
    "NaN": (ops.ReadSettings, {"out_noise": NAN}, "out_noise is nan; use a number from 0"),
}


@pytest.mark.parametrize("name", READ_SETTINGS)
def test_settings_of_reads(name: str) -> None:
    kind, changes, match = READ_SETTINGS[name]
    arguments = read_arguments(
        normals(3, COLS), normals(ROWS, COLS), ReadConfig(), (0, 0, 4), mapping=Mapping(8, 8)
    )
    wrong = replaced(arguments, kind, **changes)
    for read in (ops.read_, torch.ops.pulseline.read_.default):
        with pytest.raises(ConfigError, match=match):
            read(*wrong)
    assert torch.equal(arguments[3], counted(4))


CHAIN_SETTINGS: dict[str, tuple[dict[str, float], str]] = {
    "wires": ({"ir_drop": 5.0}, "ir_drop is 5.0; use a whole number from 0 to 2"),
    "no resistance": ({"ir_drop": 1.0}, "wire_resistance is 0; use"),
    "E6: resistance": (
        {"ir_drop": 2.0, "wire_resistance": 1e-310},
        "wire_resistance is 1e-310; use",
    ),
    "passes": ({"passes": 3.0}, "passes is 3.0; use"),
    "tolerance": ({"ir_tolerance": 0.0}, "ir_tolerance is 0.0; use"),
}


@pytest.mark.parametrize("name", CHAIN_SETTINGS)
def test_settings_of_reads_with_options(name: str) -> None:
    changes, match = CHAIN_SETTINGS[name]
    arguments = chain_arguments(
        normals(3, COLS), normals(ROWS, COLS), torch.zeros(1), ReadConfig(), (0, 0, 4)
    )
    with pytest.raises(ConfigError, match=match):
        ops.read_chain_(*replaced(arguments, ops.ConverterSettings, **changes))
    assert arguments[-1].item() == 0
    assert torch.equal(arguments[3], counted(4))


def test_lists_of_another_length() -> None:
    arguments = read_arguments(normals(3, COLS), normals(ROWS, COLS), ReadConfig(), (0, 0, 0))
    for n, name in ((4, "ReadKey"), (5, "ReadSettings")):
        short = list(arguments)
        short[n] = list(arguments[n])[:-1]
        with pytest.raises(ConfigError, match=f"{name} has {len(short[n])} numbers; use its"):
            torch.ops.pulseline.read_.default(*short)


SOFT = list(SoftBounds().parameters())
BETWEEN: dict[str, tuple[Callable[[], object], str]] = {
    "rows": (lambda: ops.construct("SoftBounds", SOFT, -1, 3, 0, 0), "rows is -1; use"),
    "cols": (lambda: ops.initial_normals(3, 1 << 31, 0, 0), "cols is 2147483648; use"),
    "seed": (lambda: ops.construct("SoftBounds", SOFT, 2, 3, -1, 0), "seed is -1; use"),
    "tile": (lambda: ops.initial_normals(2, 3, 0, -1), "tile_id is -1; use"),
    "params": (
        lambda: ops.construct("SoftBounds", [NAN, *SOFT[1:]], 2, 3, 0, 0),
        "params.0. is nan",
    ),
    "lifetime": (lambda: ops.construct_retention([-1.0] * 9, 2, 3, 0, 0), "lifetime is -1.0; use"),
    "numbers": (lambda: ops.construct_retention([0.0] * 8, 2, 3, 0, 0), "has 8 numbers; use its 9"),
    "k": (lambda: retain(ops.retain_, k=-1), "k is -1; use the number of the event"),
    "drift": (lambda: retain(ops.retain_, amount=NAN), "the amount is nan; use"),
    "std": (lambda: retain(ops.reset_, amount=-1.0), "the amount is -1; use"),
    "key": (lambda: retain(ops.reset_, key=(0,)), "DrawKey has 1 numbers; use its 3 fields"),
    "deviation": (lambda: disturb(INF), "deviation is inf; use"),
}


def retain(
    operator: Any, k: int = 0, amount: float = 0.1, key: tuple[int, ...] = ops.DrawKey(0, 0)
) -> None:
    step, _, bound = ops.construct("SoftBounds", SOFT, 2, 3, 0, 0)
    words = ops.construct_retention([0.0] * 9, 2, 3, 0, 0)
    operator(torch.zeros(2, 3), step, bound, words, amount, k, key)


def disturb(deviation: float) -> None:
    step = ops.construct("SoftBounds", SOFT, 2, 3, 0, 0)[0]
    ops.disturb_(
        torch.zeros(2, 3), torch.zeros(2, 3), step, deviation, counted(0), ops.DrawKey(0, 0)
    )


@pytest.mark.parametrize("name", BETWEEN)
def test_settings_of_other_operators(name: str) -> None:
    call, match = BETWEEN[name]
    with pytest.raises(ConfigError, match=match):
        call()


# ---- A4, A6, A9: memory ----


def freed(t: Tensor) -> Tensor:
    t.untyped_storage().resize_(0)
    return t


GONE: dict[str, Callable[[int], Tensor]] = {
    "freed": lambda n: freed(normals(3, n)),
    "half": lambda n: (t := normals(3, n), t.untyped_storage().resize_(16))[0],
    "zero tensor": lambda n: torch._efficientzerotensor((3, n)),
}


@pytest.mark.parametrize("make", GONE.values(), ids=GONE)
def test_tensors_without_memory(make: Callable[[int], Tensor]) -> None:
    one = array(SoftBounds())
    before = one.state()
    for call in (
        lambda: one.read(make(COLS)),
        lambda: one.pulse(make(COLS), normals(3, ROWS), 0.1),
        lambda: one.pulse(normals(3, COLS), make(ROWS), 0.1),
        lambda: ops.wire_currents(make(COLS), normals(ROWS, COLS), 0.1),
    ):
        with pytest.raises(ConfigError, match=r"^[xdq] has no memory, its storage was freed"):
            call()
    assert one.state() == before


def test_lazily_negated_inputs() -> None:
    one = array(io=pl.configs.IOConfig.perfect())
    x = torch.view_as_complex(normals(3, COLS, 2)).conj().imag
    assert x.is_neg()
    assert torch.equal(one.read(x), one.read(x.resolve_neg()))
    assert torch.equal(one.read(torch._neg_view(normals(3, COLS))), one.read(-normals(3, COLS)))
    weight = torch._neg_view(normals(ROWS, COLS))
    with pytest.raises(ConfigError, match=r"^weight is negated lazily; use weight.resolve_neg"):
        ops.read_(*read_arguments(normals(3, COLS), weight, ReadConfig(), (0, 0, 0)))


@pytest.mark.parametrize("device", [Ideal(), SoftBounds()])
def test_an_input_that_is_the_weight(device: Any) -> None:
    weight = normals(5, 5) / 10
    cells = ops.construct(device.name, SOFT, 5, 5, 0, 0) if device.name != "Ideal" else None
    before = weight.clone()
    for x, d in ((weight, normals(5, 5)), (normals(5, 5), weight), (weight[1:], normals(4, 5))):
        rest = (device, UpdateConfig(fidelity="exact"), 0.5, (0, 0, 0))
        with pytest.raises(ConfigError, match="shares memory with weight, which is written; use a"):
            ops.update_(*update_arguments(weight, cells, x, d, *rest))
        assert torch.equal(weight, before)
    other = weight.clone()
    rest = (normals(5, 5), device, UpdateConfig(fidelity="exact"), 0.5, (0, 0, 0))
    ops.update_(*update_arguments(weight, cells, weight.t(), *rest))  # which is copied
    ops.update_(*update_arguments(other, cells, before.t(), *rest))
    assert torch.equal(weight, other)


# ---- A5, E6: wires ----


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_wires_of_another_dtype(dtype: torch.dtype) -> None:
    with pytest.raises(ConfigError, match="weight has dtype"):
        ops.wire_currents(normals(2, COLS), normals(ROWS, COLS).to(dtype), 0.1)


def test_wires_that_do_not_converge() -> None:
    x, w = normals(1, 96, seed=1), normals(96, 96)
    with pytest.raises(ConfigError, match="tolerance is 1e-12, which the nodal equations do not"):
        ops.wire_currents(x, w, 1e4, 1e-12)
    config = ReadConfig(
        ir_drop="exact", wire_resistance=1e4, ir_tolerance=1e-12,
        noise_management="average_abs_max",
    )  # fmt: skip
    arguments = chain_arguments(x, w, torch.zeros(1), config, (0, 0, 0))
    with pytest.raises(ConfigError, match="ir_tolerance is 1e-12, which the nodal equations do"):
        ops.read_chain_(*arguments)
    assert arguments[-1].item() == 0
    assert torch.equal(arguments[3], counted(0))


@pytest.mark.parametrize("resistance", [1e-310, 0.0, -1.0, NAN, INF])
def test_wires_out_of_range(resistance: float) -> None:
    with pytest.raises(ConfigError, match=r"^resistance is .*; use a number from 1.17549"):
        ops.wire_currents(normals(2, COLS), normals(ROWS, COLS), resistance)


@pytest.mark.parametrize("wrong", [None, 3.0, normals(5, 7).cfloat(), torch.ones(5, 7).int()])
def test_states_of_another_kind(wrong: Any) -> None:
    layer = pl.nn.AnalogLinear(COLS, ROWS, seed=0)
    state = layer.state_dict()
    key = next(name for name in state if name.endswith("0.weight"))
    before = state[key].clone()
    with pytest.raises(ConfigError, match=f"{key}"):
        layer.load_state_dict({**state, key: wrong})
    assert torch.equal(layer.state_dict()[key], before)


# ---- A8: out of memory in a loop over threads ----

OUT_OF_MEMORY = """
import resource, torch, pulseline as pl
from pulseline.configs import ReadConfig
torch.set_num_threads(2)
config = ReadConfig({options})
array = pl.Array({size}, {size}, pl.devices.Ideal(), io=pl.configs.IOConfig(config), seed=0)
array.initialise()
small = torch.ones(1, {size})
if {warm}: array.read(small)
x = torch.ones({samples}, {size})
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + ({room} << 20), resource.RLIM_INFINITY))
try:
    array.read(x)
except MemoryError:
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    array.read(small)
    print("refused", array.counts().forward)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits of memory are Linux's")
@pytest.mark.parametrize(
    "case",
    [
        {"options": "", "size": 1000, "samples": 4000, "room": 24, "warm": True},
        {
            "options": "ir_drop='exact', wire_resistance=.001",
            "size": 400,
            "samples": 16,
            "room": 40,
            "warm": False,
        },
    ],
    ids=["workspaces", "nodal"],
)
def test_out_of_memory(case: dict[str, Any]) -> None:
    code = OUT_OF_MEMORY.format(**case)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.split()[:1]) == (0, ["refused"]), done.stderr[-2000:]


# ---- E3: numbers beyond float32 ----


def test_rates_beyond_float32() -> None:
    p = problem(ROWS, COLS, 3, MODELS["SoftBounds"])
    device = dataclasses.replace(p.device, dw_min=2e-7, w_max=1.0, w_min=-1.0)
    for fidelity in FIDELITIES:
        w = p.weight.clone()
        rest = (device, UpdateConfig(fidelity=fidelity), 1e38, (0, 0, 0))
        with pytest.raises(ConfigError, match=r"^lr is .*, more than .* steps of .*; lower it"):
            ops.update_(*update_arguments(w, p.stored, p.x, p.d, *rest))
        assert torch.equal(w, p.weight)


@pytest.mark.parametrize("x_scale", [1e-44, 1e-20, 1e20, 3e38])
@pytest.mark.parametrize("d_scale", [1e-44, 1e-20, 1e20, 3e38])
def test_expected_updates_of_extreme_values(isa: str, x_scale: float, d_scale: float) -> None:
    """A crosspoint whose x or d is 0 stays, and the others are finite."""
    p = problem(ROWS, COLS, 2, MODELS["SoftBounds"])
    x, d = torch.zeros(2, COLS), torch.zeros(2, ROWS)
    x[:, ::2], d[:, ::2] = x_scale, -d_scale
    config, w = UpdateConfig(fidelity="expected"), p.weight.clone()
    ops.update_(*update_arguments(w, p.stored, x, d, p.device, config, 1e20, (0, 0, 0)))
    still = (x[0] == 0)[None, :] | (d[0] == 0)[:, None]
    assert torch.equal(w[still], p.weight[still])
    assert w.isfinite().all()


@pytest.mark.parametrize("fidelity", ["grouped", "moments"])
def test_steps_beyond_the_range_cannot_be_joined(fidelity: str) -> None:
    device = ConstantStep(dw_min=1e20, w_max=1.0, w_min=-1.0)
    cells = ops.construct(device.name, device.parameters(), ROWS, COLS, 0, 0)
    w, x, d = normals(ROWS, COLS) / 9, normals(3, COLS), normals(3, ROWS)
    before = w.clone()
    rest = (device, UpdateConfig(fidelity=fidelity), 0.1, (0, 0, 0))
    with pytest.raises(ConfigError, match="pulses cannot be joined; use fidelity strict or exact"):
        ops.update_(*update_arguments(w, cells, x, d, *rest))
    assert torch.equal(w, before)


# ---- E4: NaN and infinities are seen ----

CONFIGS = {
    "plain": ReadConfig(),
    "plain, no rounds": ReadConfig(bound_management="none"),
    "noisy": ReadConfig(w_noise=0.1, out_bound=1.0, max_rounds=2),
    "stochastic": ReadConfig(out_sto_round=True),
    "two passes": ReadConfig(mv_type="pos_neg_separate_digital_sum"),
    "wires": ReadConfig(ir_drop="approx", wire_resistance=1e-3),
    "nodal wires": ReadConfig(ir_drop="exact", wire_resistance=1e-3),
}


def read_of(weight: Tensor, config: ReadConfig, cuda: bool = False, **options: Any) -> Tensor:
    x = normals(3, weight.shape[0 if options.get("transposed") else 1])
    if cuda:
        return cuda_read.read(*chain_arguments(x, weight, None, config, (0, 0, 0), **options))
    if config.plain:
        return ops.read_(*read_arguments(x, weight, config, (0, 0, 0), **options))
    return ops.read_chain_(*chain_arguments(x, weight, None, config, (0, 0, 0), **options))


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("value", [NAN, INF])
def test_reads_show_what_is_not_finite(isa: str, value: float, name: str, transposed: bool) -> None:
    weight = normals(ROWS, COLS) / 9
    weight[2, 3] = value
    y = read_of(weight, CONFIGS[name], transposed=transposed)
    assert not y[:, 3 if transposed else 2].isfinite().any()
    if CONFIGS[name].ir_drop == "none":  # wires carry it on
        y[:, 3 if transposed else 2] = 0
        assert y.isfinite().all()


def test_an_ideal_array_that_overflows_is_seen(isa: str) -> None:
    one = array(Ideal())
    one.pulse(torch.full((1, COLS), 1e30), torch.full((1, ROWS), 1e30), 1.0)
    assert not one.read(normals(2, COLS)).isfinite().any()


@pytest.mark.parametrize("fidelity", FIDELITIES)
@pytest.mark.parametrize("device", PULSED, ids=lambda device: str(device.name))
def test_updates_keep_nan(isa: str, device: Any, fidelity: str) -> None:
    keeps_nan(update.update_cpu, device, fidelity)


def keeps_nan(operator: Callable[..., object], device: Any, fidelity: str) -> None:
    """NaN weights stay NaN, the others have the bits that they have beside finite ones."""
    rows, cols = 19, 37
    cells = ops.construct(device.name, device.parameters(), rows, cols, 0, 0)
    weight, x, d = normals(rows, cols) / 99, normals(9, cols), normals(9, rows)
    broken = weight.clone()
    holes = torch.arange(rows * cols).view(rows, cols) % 5 == 0
    broken[holes] = NAN
    broken[0, 0] = -broken[0, 0]
    rest = (x, d, device, UpdateConfig(fidelity=fidelity), 0.1, (0, 0, 0))
    operator(*update_arguments(weight, cells, *rest))
    operator(*update_arguments(broken, cells, *rest))
    assert broken[holes].isnan().all()
    assert torch.equal(broken[~holes], weight[~holes])


def test_events_between_pulses_keep_nan(isa: str) -> None:
    device = devices.LinearStep(lifetime=20.0, diffusion=0.01, drift_nu=0.05)
    step, _, bound = ops.construct(device.name, device.parameters(), ROWS, COLS, 0, 0)
    words = ops.construct_retention(device.retention(), ROWS, COLS, 0, 0)
    weight = torch.full((ROWS, COLS), NAN)
    ops.retain_(weight, step, bound, words, 0.2, 0, ops.DrawKey(0, 0))
    assert weight.isnan().all()
    ops.reset_(weight, step, bound, words, 0.01, 0, ops.DrawKey(0, 0))  # writes what was not there
    assert weight.isfinite().all()


@pytest.fixture
def emulated(emulated: Emulated, monkeypatch: pytest.MonkeyPatch) -> Emulated:
    monkeypatch.setattr(module, "kernels", lambda: emulated.module)
    return emulated


@pytest.mark.parametrize("fidelity", FIDELITIES)
def test_emulated_updates_keep_nan(emulated: Emulated, fidelity: str) -> None:
    for device in PULSED:
        keeps_nan(update.update_cuda, device, fidelity)


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("value", [NAN, INF])
def test_emulated_reads_show_it(emulated: Emulated, value: float, name: str) -> None:
    weight = normals(ROWS, COLS) / 9
    weight[2, 3] = value
    assert not read_of(weight, CONFIGS[name], cuda=True)[:, 2].isfinite().any()


def test_emulated_settings_are_refused(emulated: Emulated) -> None:
    arguments = chain_arguments(
        normals(3, COLS), normals(ROWS, COLS), None, ReadConfig(), (0, 0, 0)
    )
    with pytest.raises(ConfigError, match="tile_in is 0; use"):
        cuda_read.read(*replaced(arguments, ops.ReadKey, tile_in=0))
    w, rest = normals(5, 5), (normals(5, 5), Ideal(), UpdateConfig(), 0.5, (0, 0, 0))
    with pytest.raises(ConfigError, match="shares memory with weight"):
        update.update_cuda(*update_arguments(w, None, w, *rest))
    assert torch.equal(w, normals(5, 5))


# ---- E7: steps below the resolution of a weight ----


@pytest.mark.parametrize("model", devices.DEVICES.values())
def test_steps_that_rounding_swallows(model: Any) -> None:
    with pytest.raises(ConfigError, match=r"dw_min is 1e-09; use a step >= 5.96e-08, below which"):
        model(dw_min=1e-9, w_max=1.0, w_min=-0.5)
    finest = dataclasses.replace(
        ConstantStep(dw_min=2.0**-24, w_max=1.0, w_min=-1.0),
        **{name: 0.0 for name in ConstantStep.field_names() if name.endswith(("_dtod", "_std"))},
    )
    weight = torch.full((1, 1), 1 - 2.0**-10)
    cells = ops.construct(finest.name, finest.parameters(), 1, 1, 0, 0)
    rest = (finest, UpdateConfig(fidelity="exact", desired_bl=1), 2.0**-24, (0, 0, 0))
    ops.update_(*update_arguments(weight, cells, torch.ones(1, 1), -torch.ones(1, 1), *rest))
    assert weight.item() == 1 - 2.0**-10 + 2.0**-24


@pytest.mark.parametrize(("rows", "cols"), [(0, 0), (0, 1), (1, 0), (7, 0)])
def test_events_between_pulses_of_nothing(rows: int, cols: int) -> None:
    """Pairs without an element have no address: they are not taken for pairs to draw anew."""
    weight, step = torch.zeros(rows, cols), torch.zeros(rows, cols, dtype=torch.int32)
    words, key = torch.zeros(2, rows, cols, dtype=torch.int32), ops.DrawKey(0, 0)
    ops.retain_(weight, step, step.clone(), words, 0.2, 0, key)
    ops.reset_(weight, step, step.clone(), words, 0.01, 0, key)
    ops.disturb_(weight, weight.clone(), step, 0.01, counted(0), key)
    assert weight.shape == (rows, cols)

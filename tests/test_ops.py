"""The operators as torch sees them: schema, fake kernels, compilation; and what runs here."""

from __future__ import annotations

import copy
import json
import math
import os
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

import pulseline as pl
from operators import chain_arguments as chain_operator
from operators import counted
from pulseline import ops
from pulseline.configs import IOConfig, Mapping, ReadConfig, UpdateConfig
from pulseline.devices import DEVICES, SoftBounds
from pulseline.errors import ConfigError
from pulseline.nn import AnalogLinear

ROWS, COLS = 5, 7
IO = list(ops.ReadSettings.of(ReadConfig()))
PULSES = list(ops.PulseSettings.of(UpdateConfig(), SoftBounds()))
LR = 0.05
DRAW_KEY, UPDATE_KEY = list(ops.DrawKey(1, 2)), list(ops.UpdateKey(1, 2, 1))
OPS = torch.ops.pulseline


def normals(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


READ_KEY = list(ops.ReadKey.of(1, 2, ops.PURPOSES["forward"], Mapping(), False))


def update_arguments(device: str) -> tuple[Any, ...]:
    weight, x, d = 0.1 * normals(ROWS, COLS), normals(3, COLS, seed=1), normals(3, ROWS, seed=2)
    if device == "Ideal":
        return weight, None, None, None, x, d, LR, device, [], PULSES, counted(0), UPDATE_KEY
    params = list(DEVICES[device]().parameters())
    pairs = OPS.construct.default(device, params, ROWS, COLS, 1, 2)
    return weight, *pairs, x, d, LR, device, params, PULSES, counted(0), UPDATE_KEY


# ---- torch.library ----


@pytest.mark.parametrize("transposed", [False, True])
def test_opcheck_read(transposed: bool) -> None:
    x = normals(3, ROWS if transposed else COLS)
    arguments = (x, normals(ROWS, COLS, seed=1), transposed, counted(0), READ_KEY, IO)
    torch.library.opcheck(OPS.read_.default, arguments)


@pytest.mark.parametrize("device", [*DEVICES, "Ideal"])
def test_opcheck_update(device: str) -> None:
    torch.library.opcheck(OPS.update_.default, update_arguments(device))


@pytest.mark.parametrize("device", DEVICES)
def test_opcheck_construct(device: str) -> None:
    params = list(DEVICES[device]().parameters())
    torch.library.opcheck(OPS.construct.default, (device, params, ROWS, COLS, 1, 2))


def test_opcheck_initial_normals() -> None:
    torch.library.opcheck(OPS.initial_normals.default, (ROWS, COLS, 1, 2))


def chain_arguments(average: bool) -> tuple[Any, ...]:
    config = ReadConfig(
        noise_management="average_abs_max" if average else "abs_max",
        inp_sto_round=True,
        mv_type="pos_neg_separate",
    )
    running = torch.zeros(1) if average else None
    x, w = normals(3, COLS), normals(ROWS, COLS, seed=1)
    return chain_operator(x, w, running, config, (1, 2, 0))


def ageing() -> tuple[Tensor, ...]:
    """Weight, step, bound and retention words of a device that ages."""
    device = SoftBounds(lifetime=9.0, diffusion=0.01, drift_nu=0.1)
    params = list(device.parameters())
    step, _, bound = OPS.construct.default("SoftBounds", params, ROWS, COLS, 1, 2)
    words = OPS.construct_retention.default(list(device.retention()), ROWS, COLS, 1, 2)
    return 0.1 * normals(ROWS, COLS), step, bound, words


def redraw_arguments() -> tuple[Any, ...]:
    weight, step, *_ = ageing()
    x, d = normals(3, COLS, seed=1), normals(3, ROWS, seed=2)
    return weight, weight + 0.1, step, x, d, LR, PULSES, 0.01, counted(3), UPDATE_KEY


def counted_arguments() -> tuple[Any, ...]:
    weight, step, slope, bound, *_, device, params, _, _, key = update_arguments("SoftBounds")
    columns = torch.tensor([3, 0], dtype=torch.int32)
    rest = (columns, normals(ROWS, 2).round(), 5, device, params, key)
    return weight, step, slope, bound, *rest, counted(0), weight + 0.1, 0.01


# Arguments of every operator that is not checked above.
OTHERS: dict[str, Any] = {
    "read_chain_": lambda: chain_arguments(True),
    "construct_retention": lambda: (list(SoftBounds(lifetime=9.0).retention()), ROWS, COLS, 1, 2),
    "retain_": lambda: (*ageing(), 0.3, 3, DRAW_KEY),
    "reset_": lambda: (*ageing(), 0.01, 3, DRAW_KEY),
    "disturb_": lambda: (ageing()[0], *ageing()[:2], 0.01, counted(3), DRAW_KEY),
    "redraw_": redraw_arguments,
    "pulse_": counted_arguments,
    "convert": lambda: (normals(ROWS, 3), 5, DRAW_KEY, IO, list(ops.ConverterSettings())),
}


@pytest.mark.parametrize("name", OTHERS)
def test_opcheck_others(name: str) -> None:
    torch.library.opcheck(getattr(OPS, name).default, OTHERS[name]())


def test_opcheck_read_chain_without_an_average() -> None:
    torch.library.opcheck(OPS.read_chain_.default, chain_arguments(False))


def test_every_operator_is_checked() -> None:
    """Whatever is registered appears in one of the tests above; what ends in _ writes."""
    names = torch._C._dispatch_get_all_op_names()
    found = {name.split("::")[1].split(".")[0] for name in names if name.startswith("pulseline::")}
    assert found == {"read_", "update_", "construct", "initial_normals", *OTHERS}
    for name in found:
        written = [a.alias_info for a in getattr(OPS, name).default._schema.arguments]
        assert any(i is not None and i.is_write for i in written) is name.endswith("_"), name


@pytest.mark.parametrize("name", [name for name in OTHERS if name.endswith("_")])
def test_operators_write_what_they_say(name: str) -> None:
    arguments = OTHERS[name]()
    before = [copy.deepcopy(a) for a in arguments]
    getattr(OPS, name).default(*arguments)
    schema = getattr(OPS, name).default._schema.arguments
    for argument, a, b in zip(schema[: len(before)], arguments, before, strict=True):
        if isinstance(a, Tensor):
            writes = argument.alias_info is not None and argument.alias_info.is_write
            assert torch.equal(a, b) is not writes, argument.name


def test_functions_and_operators_agree() -> None:
    """ops.read and ops.update_ may take a shorter way in; the bits are the operator's."""
    x, w = normals(3, COLS), normals(ROWS, COLS, seed=1)
    a, b = (
        ops.read_(x, w, False, counted(0), READ_KEY, IO),
        OPS.read_.default(x, w, False, counted(0), READ_KEY, IO),
    )
    assert torch.equal(a, b)
    first, second = update_arguments("SoftBounds"), update_arguments("SoftBounds")
    before = first[0].clone()
    ops.update_(*first)
    OPS.update_.default(*second)
    assert not torch.equal(first[0], before)
    assert torch.equal(first[0], second[0])


def test_device_and_fidelity_lists_agree() -> None:
    assert list(DEVICES) == list(ops.DEVICE_INDEX)
    assert list(ops.FIDELITY_INDEX) == list(pl.configs.FIDELITIES)
    for name, cls in DEVICES.items():
        assert ops.FIELDS[name] == cls.field_names()


# ---- FakeTensor and torch.compile ----


def test_fake_tensors_have_the_shapes_of_real_ones() -> None:
    with FakeTensorMode() as mode:
        x, d, w = (
            mode.from_tensor(t) for t in (normals(3, COLS), normals(3, ROWS), normals(ROWS, COLS))
        )
        counters = mode.from_tensor(counted(0))
        y = ops.read_(x, w, False, counters, READ_KEY, IO)
        g = ops.read_(d, w, True, counters, READ_KEY, IO)
        assert (y.shape, g.shape) == ((3, ROWS), (3, COLS))
        params = list(SoftBounds().parameters())
        pairs = ops.construct("SoftBounds", params, ROWS, COLS, 0, 0)
        assert [(p.shape, p.dtype) for p in pairs] == [((ROWS, COLS), torch.int32)] * 3
        ops.update_(w, *pairs, x, d, LR, "SoftBounds", params, PULSES, counters, UPDATE_KEY)
        assert ops.initial_normals(ROWS, COLS, 0, 0).shape == (ROWS, COLS)


@pytest.fixture
def _fresh_compiler() -> Any:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.mark.usefixtures("_fresh_compiler")
def test_compiled_read_is_one_graph_with_the_same_bits() -> None:
    w = normals(ROWS, COLS)

    def read(x: Tensor, k: int) -> Tensor:
        return torch.tanh(ops.read_(x, w, False, counted(k), READ_KEY, IO))

    compiled = torch.compile(read, backend="aot_eager", fullgraph=True)
    for k in (0, 3, 5):
        x = normals(3, COLS, seed=k)
        assert torch.equal(compiled(x, k), read(x, k))


@pytest.mark.filterwarnings("ignore")  # Dynamo's own, about what it does with the layer's frames
@pytest.mark.usefixtures("_fresh_compiler")
def test_compiled_layer_trains_with_the_same_bits() -> None:
    plain = AnalogLinear(COLS, ROWS, seed=1)
    twin = copy.deepcopy(plain)
    compiled = torch.compile(twin, backend="aot_eager")
    for step in range(3):
        x = normals(4, COLS, seed=step)
        for layer, module in ((plain, plain), (twin, compiled)):
            module(x).square().sum().backward()
            layer.cell.update_pending(0.05)
    assert twin.cell.array.counts().update == plain.cell.array.counts().update == 12
    assert torch.equal(twin.weight.data, plain.weight.data)
    assert twin.cell.array.state() == plain.cell.array.state()


# ---- what runs here ----


def test_info() -> None:
    facts = pl.ops.info()
    assert facts["isa"] in facts["isas"]  # type: ignore[operator]
    assert "baseline" in facts["isas"]  # type: ignore[operator]
    assert facts["cuda"] is False
    assert facts["cuda_reason"]


def test_use_isa_refuses_unknown_names(kernels: Any) -> None:
    before = ops.info()["isa"]
    with pytest.raises(ConfigError, match=r"'sse'.*baseline"):
        ops.use_isa("sse")
    assert ops.info()["isa"] == before
    ops.use_isa("baseline")
    assert ops.info()["isa"] == "baseline"


@pytest.mark.parametrize(("isa", "code", "word"), [("baseline", 0, ""), ("sse", 2, "'sse'")])
def test_environment_chooses_the_instruction_set(isa: str, code: int, word: str) -> None:
    """The library warns and runs on; the command refuses in one sentence."""
    result = subprocess.run(
        [sys.executable, "-m", "pulseline", "info", "--json"],
        env={**os.environ, "PULSELINE_ISA": isa},
        capture_output=True,
        text=True,
    )
    assert result.returncode == code, result.stderr
    assert word in result.stderr
    assert "Traceback" not in result.stderr
    assert code or json.loads(result.stdout)["isa"] == isa


@pytest.mark.parametrize("options", [{}, {"out_nonlinearity": 0.1}])
def test_another_default_device(options: dict[str, Any]) -> None:
    """Reads of CPU tensors stay on the CPU where ``torch.device(...)`` says otherwise."""
    tile = AnalogLinear(COLS, ROWS, io=IOConfig(ReadConfig(**options)), seed=1).cell.array
    x = normals(3, COLS)
    want = tile.read(x)
    tile.counters.zero_()
    with torch.device("meta"):
        got = tile.read(x)
        drawn = ops.construct("SoftBounds", tile._params, ROWS, COLS, *tile.identity.key)
    assert torch.equal(got, want)
    assert torch.equal(drawn[0], tile.crosspoints.step)


def test_addresses_of_other_devices_are_refused() -> None:
    """C++ would write there."""
    a = update_arguments("SoftBounds")
    with pytest.raises(ConfigError, match=r"fired is on meta and the weight on the CPU"):
        ops.update_(*a, fired=torch.zeros(3, dtype=torch.int64, device="meta"))
    config = ReadConfig(noise_management="average_abs_max")
    average = torch.zeros(1, device="meta")
    with pytest.raises(ConfigError, match=r"average is on meta and the weight on the CPU"):
        ops.read_chain_(*chain_operator(a[4], a[0], average, config, (1, 2, 0)))
    with pytest.raises(ConfigError, match=r"weight has .* on meta; use"):
        ops.wire_currents(a[4], a[0].to("meta"), 0.1)


@pytest.mark.parametrize("value", [1.0, 3e38, float("inf"), float("-inf"), float("nan")])
@pytest.mark.parametrize("size", [1, 7, 8, 31, 32, 33, 1000])
def test_is_finite(value: float, size: int) -> None:
    """Wherever the value stands, in any tensor: plain ones are looked at by our own kernel."""
    expected = math.isfinite(value)
    for place in {0, size // 2, size - 1}:
        t = torch.zeros(size)
        t[place] = value
        strided = torch.zeros(2 * size)[::2]
        strided.copy_(t)
        kinds = (t, t[None], strided, torch._neg_view(t), t.double(), nn.Parameter(t))
        assert [ops.is_finite(kind) for kind in kinds] == [expected] * len(kinds), place


def test_is_finite_of_nothing() -> None:
    assert ops.is_finite(torch.zeros(0))
    assert ops.is_finite(torch.arange(3))

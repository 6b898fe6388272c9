"""Bad input: one sentence that names the value, and nothing is written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import pulseline as pl
from operators import read_arguments, update_arguments
from pulseline import devices
from pulseline.configs import IOConfig, Mapping, ReadConfig, UpdateConfig
from pulseline.devices import ExpStep, Ideal, LinearStep, SoftBounds
from pulseline.errors import BackendError, ConfigError, StageFailed
from pulseline.nn import AnalogLinear, to_analog

ROWS, COLS = 5, 7
NAN, INF = float("nan"), float("inf")
DEVICES = {**devices.DEVICES, "Ideal": Ideal}


def normals(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def spoiled(rows: int, cols: int, value: float) -> Tensor:
    """Sample 1 of ``rows`` holds ``value``."""
    t = normals(rows, cols)
    t[1, cols - 1] = value
    return t


def refused(call: Callable[[], object], *words: str) -> None:
    """ConfigError in one line with all ``words``."""
    with pytest.raises(ConfigError) as error:
        call()
    text = str(error.value)
    assert "\n" not in text
    assert len(text) < 300
    for word in words:
        assert word in text, f"{word!r} is not in {text!r}"


@pytest.fixture(params=DEVICES)
def tile(request: pytest.FixtureRequest) -> Any:
    """A tile that has worked; afterwards: its weights, counters and pending pairs are the same."""
    t = pl.Array(ROWS, COLS, DEVICES[request.param]())
    t.initialise()
    t.read(normals(2, COLS))
    t.pulse(normals(2, COLS), normals(2, ROWS), 0.1)
    weight, state = t.weight.data.clone(), t.state()
    yield t
    assert torch.equal(t.weight.data, weight)
    assert t.state() == state


# ---- reads and updates ----

# name: the tensor instead of (3, COLS), and what the sentence names
BAD: dict[str, tuple[Callable[[int], Tensor], str]] = {
    "one column less": (lambda n: normals(3, n - 1), "(3, "),
    "one dimension": (lambda n: normals(n), "shape"),
    "three dimensions": (lambda n: normals(2, 3, n), "(2, 3, "),
    "float64": (lambda n: normals(3, n).double(), "torch.float64"),
    "bfloat16": (lambda n: normals(3, n).bfloat16(), "torch.bfloat16"),
    "int64": (lambda n: torch.ones(3, n, dtype=torch.int64), "torch.int64"),
    "bool": (lambda n: torch.ones(3, n, dtype=torch.bool), "torch.bool"),
    "complex": (lambda n: normals(3, n).cfloat(), "torch.complex64"),
    "meta": (lambda n: normals(3, n).to("meta"), "meta"),
    "nan": (lambda n: spoiled(3, n, NAN), "[1]"),
    "inf": (lambda n: spoiled(3, n, INF), "[1]"),
    "-inf": (lambda n: spoiled(3, n, -INF), "[1]"),
}
bad = pytest.mark.parametrize(("make", "word"), BAD.values(), ids=BAD.keys())


@bad
def test_forward(tile: pl.Array, make: Callable[[int], Tensor], word: str) -> None:
    refused(lambda: tile.read(make(COLS)), "x", word)
    refused(lambda: tile.evaluate(make(COLS)), "x", word)


@bad
def test_backward(tile: pl.Array, make: Callable[[int], Tensor], word: str) -> None:
    refused(lambda: tile.read(make(ROWS), True), "d", word)


@bad
def test_update(tile: pl.Array, make: Callable[[int], Tensor], word: str) -> None:
    refused(lambda: tile.pulse(make(COLS), normals(3, ROWS), 0.1), "x", word)
    refused(lambda: tile.pulse(normals(3, COLS), make(ROWS), 0.1), "d", word)


@bad
def test_operators(make: Callable[[int], Tensor], word: str) -> None:
    """torch.ops.pulseline checks as the functions do."""
    w = normals(ROWS, COLS)
    before = w.clone()
    read, update = torch.ops.pulseline.read_.default, torch.ops.pulseline.update_.default
    refused(lambda: read(*read_arguments(make(COLS), w, ReadConfig(), (0, 0, 0))), "x", word)
    rest = (make(COLS), normals(3, ROWS), Ideal(), UpdateConfig(), 0.1, (0, 0, 0))
    refused(lambda: update(*update_arguments(w, None, *rest)), "x", word)
    assert torch.equal(w, before)


def test_update_of_unequal_batches(tile: pl.Array) -> None:
    refused(lambda: tile.pulse(normals(3, COLS), normals(2, ROWS), 0.1), "3 samples", "2")


@pytest.mark.parametrize("lr", [-1.0, -1e-30, NAN, INF, -INF, 1e39, "fast", None])
def test_learning_rate(tile: pl.Array, lr: Any) -> None:
    refused(lambda: tile.pulse(normals(3, COLS), normals(3, ROWS), lr), "lr", str(lr))


def test_program(tile: pl.Array) -> None:
    refused(lambda: tile.program(normals(COLS, ROWS)), "(7, 5)", "(5, 7)")
    refused(lambda: tile.program(spoiled(ROWS, COLS, NAN)), "NaN")
    refused(lambda: tile.program(normals(ROWS, COLS).double() * 1e300), "infinity")
    refused(lambda: tile.program(normals(ROWS, COLS).to("meta")), "meta")


@pytest.mark.parametrize("change", ["double", "half", "bfloat16"])
def test_a_converted_layer(change: str) -> None:
    model = nn.Sequential(nn.ReLU(), AnalogLinear(COLS, ROWS))
    refused(getattr(model, change), {"double": "float64", "half": "float16"}.get(change, change))
    assert {t.dtype for t in model.state_dict().values() if torch.is_tensor(t)} == {torch.float32}
    model(normals(3, COLS))


def test_a_layer_on_another_device() -> None:
    layer = AnalogLinear(COLS, ROWS).to("meta")
    refused(lambda: layer(normals(3, COLS)), "meta")
    refused(lambda: layer.cell.array.read(normals(3, ROWS), True), "meta")
    refused(lambda: layer.cell.array.pulse(normals(3, COLS), normals(3, ROWS), 0.1), "meta")


# ---- layers ----


@pytest.mark.parametrize("shape", [(), (6,), (3, 6), (2, 3, 6), (0, 8)])
def test_layer_shapes(shape: tuple[int, ...]) -> None:
    layer = AnalogLinear(COLS, ROWS)
    before = layer.weight.data.clone()
    refused(lambda: layer(torch.ones(shape)), "x", str(shape), "7")
    assert layer.cell.array.counts().forward == 0
    assert torch.equal(layer.weight.data, before)


def tied() -> nn.Module:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    return model


def test_what_a_recurrent_layer_returns_is_named() -> None:
    model = to_analog(nn.Sequential(nn.LSTM(3, 4), nn.Linear(4, 2)))
    refused(lambda: model(torch.ones(5, 1, 3)), "a tuple of tensors", "argument[0]")


MODELS: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "no linear layer": (nn.Tanh, "no layer that can be analog"),
    "float64": (lambda: nn.Linear(3, 2).double(), "float64"),
    "meta": (lambda: nn.Linear(3, 2, device="meta"), "meta"),
    "shared weight": (tied, "shares"),
    "traced": (lambda: torch.fx.symbolic_trace(nn.Sequential(nn.Linear(3, 2))), "traced"),
}


@pytest.mark.parametrize(("make", "word"), MODELS.values(), ids=MODELS.keys())
def test_to_analog(make: Callable[[], nn.Module], word: str) -> None:
    refused(lambda: to_analog(make()), word)


def test_to_analog_refuses_weights_that_are_not_finite() -> None:
    layer = nn.Linear(3, 2)
    layer.weight.data[0, 0] = NAN
    refused(lambda: to_analog(layer), "NaN")


# ---- construction ----

OPTIONS: list[tuple[str, Any]] = [
    *(("seed", v) for v in (-1, 1 << 32, 1.5, "one", True)),
    *(("tile_id", v) for v in (-1, 1 << 24, 0.0)),
    ("device", SoftBounds.examples),
    ("device", "soft_bound"),
    ("device", "cuda"),
    ("device", torch.device("cpu")),
    ("io", ReadConfig()),
    ("update", IOConfig()),
    ("mapping", 512),
]


@pytest.mark.parametrize(("name", "value"), OPTIONS)
def test_tile_options(name: str, value: Any) -> None:
    refused(lambda: pl.Array(ROWS, COLS, **{name: value}), name, str(value)[:20])


@pytest.mark.parametrize(
    ("name", "shape"), [("rows", (-1, 2)), ("cols", (2, -1)), ("rows", (1.5, 2))]
)
def test_tile_sizes(name: str, shape: tuple[Any, Any]) -> None:
    refused(lambda: pl.Array(*shape), name, str(shape[0] if name == "rows" else shape[1]))


PULSED = tuple(devices.DEVICES.values())
OWN = [  # numbers that only one model has
    (cls, field)
    for cls in PULSED
    for field in cls.field_names()
    if field not in devices.PulsedDevice.field_names() and isinstance(getattr(cls(), field), float)
]
SETTINGS: list[tuple[Callable[..., object], str, Any]] = [
    *((cls, "w_max", -1.0) for cls in PULSED),
    *((cls, "w_min", 0.5) for cls in PULSED),
    *(
        (cls, "dw_min", v)
        for cls in PULSED
        for v in (0.0, -0.001, NAN, INF, 1e39, 1e-50, "a", None)
    ),
    *((cls, "dw_min_std", -1.0) for cls in PULSED),
    *((cls, "w_max_dtod", -1.0) for cls in PULSED),
    *((cls, "up_down", v) for cls in PULSED for v in (1.0, -1.5)),
    (LinearStep, "w_max", 0.0),
    (SoftBounds, "w_min", 0.0),
    *((cls, field, NAN) for cls, field in OWN),
    (ExpStep, "a_up", 5.0),
    (ExpStep, "gamma_up", 5000.0),
    (ReadConfig, "inp_res", NAN),
    (ReadConfig, "out_res", 1e-9),
    (ReadConfig, "inp_bound", 0.0),
    (ReadConfig, "out_bound", "a"),
    (ReadConfig, "inp_noise", -1.0),
    (ReadConfig, "out_noise", INF),
    (ReadConfig, "w_noise", -0.1),
    (ReadConfig, "noise_management", "absmax"),
    (ReadConfig, "noise_management", 1),
    (ReadConfig, "bound_management", None),
    (ReadConfig, "max_rounds", 16),
    (ReadConfig, "max_rounds", -1),
    (ReadConfig, "max_rounds", 1.5),
    (IOConfig, "forward", 3),
    (IOConfig, "backward", "none"),
    (UpdateConfig, "desired_bl", 0),
    (UpdateConfig, "desired_bl", 1.5),
    (UpdateConfig, "fidelity", "precise"),
    (UpdateConfig, "noise", "white"),
    (UpdateConfig, "fixed_bl", "no"),
    (Mapping, "tile_in", 0),
    (Mapping, "tile_out", 1.5),
    (Mapping, "omega", -1.0),
    (Mapping, "omega", NAN),
    (Mapping, "omega", "a"),
]


@pytest.mark.parametrize(("cls", "name", "value"), SETTINGS)
def test_settings(cls: Callable[..., object], name: str, value: Any) -> None:
    kind = getattr(cls, "__name__", "")
    refused(lambda: cls(**{name: value}), f"{kind}: {name} is", repr(value)[:30])


@pytest.mark.parametrize("cls", PULSED)
def test_inconsistent_bounds(cls: type[devices.PulsedDevice]) -> None:
    refused(lambda: cls(w_max=-0.5, w_min=-0.9), "w_max", "-0.5")
    refused(lambda: cls(w_max=0.9, w_min=0.5), "w_min", "0.5")
    refused(lambda: cls(w_max=0.0, w_min=0.0), "w_max")


# ---- the family of errors ----


def test_errors_are_of_standard_kinds() -> None:
    assert issubclass(ConfigError, ValueError)
    assert issubclass(BackendError, RuntimeError)
    error = StageFailed(2, "B", 7, "its output is NaN")
    assert isinstance(error, RuntimeError)
    assert (error.stage, error.op, error.k) == (2, "B", 7)
    assert str(error) == "stage 2 failed at operation B7: its output is NaN"


@pytest.mark.parametrize("make", [lambda: [[0.0] * COLS], lambda: normals(1, COLS).numpy()])
def test_no_tensors(tile: pl.Array, make: Callable[[], Any]) -> None:
    words = (type(make()).__name__, "torch.as_tensor")
    refused(lambda: tile.read(make()), *words)
    refused(lambda: tile.pulse(make(), normals(1, ROWS), 0.1), *words)
    refused(lambda: AnalogLinear(COLS, ROWS)(make()), *words)


def test_numpy_rates_are_numbers() -> None:
    tiles = [pl.Array(ROWS, COLS, SoftBounds(), seed=0) for _ in range(2)]
    for t, lr in zip(tiles, (0.125, normals(1).numpy()[0] * 0 + 0.125), strict=True):
        t.pulse(normals(2, COLS), normals(2, ROWS), lr)
    assert torch.equal(tiles[0].weight.data, tiles[1].weight.data)
    for wrong in ("0.1", None, NAN, -1.0):
        refused(lambda wrong=wrong: tiles[0].pulse(normals(2, COLS), normals(2, ROWS), wrong), "lr")

"""Settings of the process change nothing in a tile: every buffer names its dtype and device.

The same bits under every default dtype and default device, number of threads, deterministic mode,
autocast and inference mode, and a guard over the sources.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import pulseline as pl

SOURCES = Path(pl.__file__).parent
FACTORIES = {"empty", "zeros", "ones", "full", "tensor", "arange", "rand", "randn", "linspace"}
FACTORIES |= {"eye", "as_tensor", "randperm", "scalar_tensor"}
# Programs of their own, which run in a process of their own, and what tests compare with.
OWN = ("lab", "reference")
AVERAGE = pl.configs.ReadConfig(
    noise_management="average_abs_max", out_noise_std=0.2, out_nonlinearity=0.1, inp_sto_round=True
)
WIRES = pl.configs.ReadConfig(ir_drop="approx", wire_resistance=0.02)
DEVICES = {
    "soft_bounds": pl.devices.SoftBounds(write_noise_std=3.0, corrupt_devices_prob=0.1),
    "ages": pl.devices.LinearStep(lifetime=20.0, diffusion=0.01, drift_nu=0.05, reset_dtod=0.1),
    "ideal": pl.devices.Ideal(),
}


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextmanager
def deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


@contextmanager
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        yield
    finally:
        torch.set_num_threads(before)


SETTINGS: dict[str, Callable[[], object]] = {
    "float64": lambda: default_dtype(torch.float64),
    "bfloat16": lambda: default_dtype(torch.bfloat16),
    "float16": lambda: default_dtype(torch.float16),
    "meta": lambda: torch.device("meta"),
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "deterministic": deterministic,
    "threads": two_threads,
}


def numbers(*shape: int) -> Tensor:
    """Fixed float32 inputs, whatever the process prefers."""
    count = torch.Size(shape).numel()
    n = torch.arange(count, dtype=torch.float32, device="cpu")
    return ((n * 0.37) % 2 - 1).reshape(shape)


def trained(device: pl.devices.Device) -> tuple[dict[str, Tensor], str]:
    """Everything that six steps of two layers leave behind, made under the settings of now.

    Tensors by name, and the digest of the state, counters and settings included.
    """
    return train(made(device))


def made(device: pl.devices.Device) -> nn.Sequential:
    io = pl.configs.IOConfig(AVERAGE, WIRES)
    mapping = pl.configs.Mapping(tile_in=40, tile_out=30)
    sizes = ((70, 50), (50, 3))
    layers = [
        pl.nn.AnalogLinear(n, m, device=device, io=io, mapping=mapping, seed=5, tile_id=i)
        for i, (n, m) in enumerate(sizes)
    ]
    return nn.Sequential(layers[0], nn.ReLU(), layers[1])


def train(net: nn.Sequential) -> tuple[dict[str, Tensor], str]:
    optimizer = pl.optim.AnalogSGD(net.parameters(), lr=0.1)
    x = numbers(4, 70)
    for _ in range(6):
        optimizer.zero_grad()
        (net(x) ** 2).sum().backward()
        optimizer.step()
    net.eval()
    state = net.state_dict()
    left = {name: t for name, t in state.items() if isinstance(t, Tensor)}
    return {**left, "y": net(x).detach()}, pl.digest(state)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("setting", SETTINGS)
def test_same_bits_under_any_default(setting: str, device: str) -> None:
    want, digest = trained(DEVICES[device])
    with SETTINGS[setting]():  # type: ignore[attr-defined]
        got, its_digest = trained(DEVICES[device])
    assert its_digest == digest
    assert got.keys() == want.keys()
    for name, t in want.items():
        assert got[name].dtype == t.dtype, name
        assert torch.equal(got[name], t), name


@pytest.mark.parametrize("device", DEVICES)
def test_made_and_loaded_in_inference_mode(device: str) -> None:
    """Its tensors cannot be trained: none of a layer's is one."""
    want, digest = trained(DEVICES[device])
    with torch.inference_mode():
        net = made(DEVICES[device])
        net.load_state_dict(made(DEVICES[device]).state_dict())
        y = net.eval()(numbers(4, 70)).clone()
    assert torch.equal(net.eval()(numbers(4, 70)), y)
    got, its_digest = train(net.train())
    assert its_digest == digest
    assert got.keys() == want.keys()
    for name, t in want.items():
        assert torch.equal(got[name], t), name


@pytest.mark.parametrize("setting", SETTINGS)
def test_pipeline_and_conversion_under_any_default(setting: str) -> None:
    torch.manual_seed(0)
    digital = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 2)).float()

    def run() -> str:
        model = pl.nn.to_analog(digital, pl.devices.SoftBounds(), seed=1)
        pipe = pl.Pipeline(
            model,
            stages=2,
            schedule="async",
            optimizer=lambda p: pl.optim.AnalogSGD(p, lr=0.1),
            loss=nn.functional.mse_loss,
        )
        pipe.step(numbers(8, 6), numbers(8, 2))
        pipe.drain()
        return pipe.digest()

    want = run()
    with SETTINGS[setting]():  # type: ignore[attr-defined]
        assert run() == want


@pytest.mark.parametrize("setting", SETTINGS)
def test_states_load_under_any_default(setting: str) -> None:
    io = pl.configs.IOConfig(AVERAGE, AVERAGE)
    layer = pl.nn.AnalogLinear(7, 5, device=DEVICES["soft_bounds"], io=io)
    layer(numbers(3, 7)).sum().backward()
    state, y = copy.deepcopy(layer.state_dict()), layer.eval()(numbers(3, 7))
    with SETTINGS[setting]():  # type: ignore[attr-defined]
        other = pl.nn.AnalogLinear(7, 5, device=DEVICES["soft_bounds"], io=io)
        other.load_state_dict(state)
        assert pl.digest(other.state_dict()) == pl.digest(state)
        assert torch.equal(other.eval()(numbers(3, 7)), y)
        other.cell.array.reseed(9)
    assert other.cell.array.weight.dtype == torch.float32


def test_devices_drawn_under_any_default() -> None:
    device = DEVICES["ages"]
    want = pl.Array(9, 8, device, seed=1, tile_id=2)
    for setting in SETTINGS.values():
        with setting():  # type: ignore[attr-defined]
            got = pl.Array(9, 8, device, seed=1, tile_id=2)
            got.initialise()
        assert got.weight.dtype == torch.float32
        assert got.weight.device.type == "cpu"
        for a, b in zip(got.bounds, want.bounds, strict=True):
            assert torch.equal(a, b)


def test_every_buffer_names_dtype_and_device() -> None:
    """A factory call that leaves one out takes the process's, where a kernel counts on 4 bytes."""
    found = []
    for path in sorted(SOURCES.rglob("*.py")):
        if path.relative_to(SOURCES).parts[0] in OWN:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            module = node.func.value
            if not (isinstance(module, ast.Name) and module.id == "torch"):
                continue
            named = {keyword.arg for keyword in node.keywords}
            if node.func.attr in FACTORIES and not {"dtype", "device"} <= named:
                found.append(f"{path.name}:{node.lineno} torch.{node.func.attr}")
    assert not found, found

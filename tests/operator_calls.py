"""Calls of every registered operator: legal ones, and what a careless caller makes of them.

``MAKERS`` make arguments of random sizes and settings; :func:`spoil` changes some: another dtype,
shape, layout or device, no memory, overlaps, NaN and infinities, settings that no configuration
holds.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from operators import chain_arguments, counted, read_arguments, redraw_arguments, update_arguments
from pulseline import devices, ops
from pulseline.configs import Mapping, ReadConfig, UpdateConfig
from pulseline.configs.update import FIDELITIES

SIZES = (0, 1, 2, 7, 8, 17, 33)
NAN, INF = float("nan"), float("inf")
NUMBERS = (NAN, INF, -INF, -1.0, 0.0, 0.5, 1.0, 3.0, 7.0, 40.0, 1e-320, 1e-39, 1e30, 1e39, 1e300)
WHOLE = (-(1 << 63), -1, 0, 1, 2, 3, 5, 31, 1 << 31, 1 << 32, (1 << 63) - 1)
MODELS = [device for model in devices.DEVICES.values() for device in model.examples()]
READS = (
    ReadConfig(),
    ReadConfig.perfect(),
    ReadConfig(inp_noise=0.1, w_noise=0.02, out_bound=1.0, max_rounds=3),
)
OPTIONS = (
    ReadConfig(noise_management="average_abs_max", out_sto_round=True, out_noise_std=0.3),
    ReadConfig(mv_type="pos_neg_separate", out_nonlinearity=0.1, w_noise_type="pcm_read"),
    ReadConfig(ir_drop="approx", wire_resistance=0.01, inp_sto_round=True),
    ReadConfig(ir_drop="exact", wire_resistance=0.01, max_rounds=2),
)
RETENTION = devices.LinearStep(lifetime=20.0, diffusion=0.01, drift_nu=0.05, reset_dtod=0.1)
Arguments = list[Any]


class Maker:
    """Random tensors and sizes of one call."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.generator = torch.Generator().manual_seed(seed)
        self.rows, self.cols, self.batch = (self.random.choice(SIZES) for _ in range(3))
        self.key = (self.random.choice((0, 5, 1 << 32)), self.random.choice((0, 3)))
        self.k = self.random.choice((0, 1, 1 << 40))

    def normals(self, *shape: int, scale: float = 1.0) -> Tensor:
        return torch.randn(*shape, generator=self.generator) * scale

    def cells(self, device: Any) -> tuple[Tensor, Tensor, Tensor]:
        made = ops.construct(device.name, device.parameters(), self.rows, self.cols, *self.key)
        return made[0], made[1], made[2]

    def mapping(self) -> Mapping:
        return Mapping(self.random.choice((1, 3, 16, 512)), self.random.choice((2, 16, 512)))


def _read(make: Maker) -> Arguments:
    transposed = make.random.random() < 0.5
    x = make.normals(make.batch, make.rows if transposed else make.cols)
    weight = make.normals(make.rows, make.cols, scale=0.3)
    options = {"transposed": transposed, "mapping": make.mapping()}
    return list(
        read_arguments(x, weight, make.random.choice(READS), (*make.key, make.k), **options)
    )


def _read_chain(make: Maker) -> Arguments:
    transposed = make.random.random() < 0.5
    x = make.normals(make.batch, make.rows if transposed else make.cols)
    weight = make.normals(make.rows, make.cols, scale=0.3)
    average = torch.zeros(1) if make.random.random() < 0.7 else None
    options = {"transposed": transposed, "mapping": make.mapping()}
    config = make.random.choice(OPTIONS)
    return list(chain_arguments(x, weight, average, config, (*make.key, make.k), **options))


def _update(make: Maker) -> Arguments:
    device = make.random.choice([*MODELS, devices.Ideal()])
    pulsed = isinstance(device, devices.PulsedDevice)
    fidelity = make.random.choice(FIDELITIES)
    config = UpdateConfig(fidelity=fidelity, desired_bl=make.random.choice((1, 10, 31, 40)))
    weight = make.normals(make.rows, make.cols, scale=0.1)
    x, d = make.normals(make.batch, make.cols), make.normals(make.batch, make.rows)
    fired = torch.zeros(2, dtype=torch.int64) if make.random.random() < 0.5 else None
    lr = make.random.choice((0.0, 0.01, 0.3))
    cells = make.cells(device) if pulsed else None
    key = (*make.key, make.k)
    call = list(update_arguments(weight, cells, x, d, device, config, lr, key, fired))
    ordered = not pulsed or fidelity not in ("grouped", "moments")
    if not ordered or not make.batch * make.cols or make.random.random() < 0.5:
        return call
    taps = [(make.random.randrange(make.batch), make.random.randrange(make.cols)) for _ in range(5)]
    return [*call, torch.tensor(sorted(taps), dtype=torch.int32), torch.zeros(make.rows, 5)]


def _pulse(make: Maker) -> Arguments:
    device = make.random.choice([*MODELS, devices.Ideal()])
    pulsed = isinstance(device, devices.PulsedDevice)
    weight = make.normals(make.rows, make.cols, scale=0.1)
    lines = make.random.sample(range(make.cols), make.random.randint(0, make.cols))
    counts = make.normals(make.rows, len(lines), scale=make.random.choice((1.0, 30.0))).round()
    fired = torch.zeros(2, dtype=torch.int64) if make.random.random() < 0.5 else None
    visible = make.normals(make.rows, make.cols) if make.random.random() < 0.5 else None
    return [
        *(weight, *(make.cells(device) if pulsed else (None, None, None))),
        *(torch.tensor(lines, dtype=torch.int32), counts, make.k, device.name),
        list(device.parameters()) if isinstance(device, devices.PulsedDevice) else [0.1],
        ops.UpdateKey(*make.key, make.random.randrange(len(FIDELITIES))),
        *(fired, visible, 0.01),
    ]


def _convert(make: Maker) -> Arguments:
    config = make.random.choice([*READS, *OPTIONS[:2]])
    settings = (ops.ReadSettings.of(config), ops.ConverterSettings.of(config))
    return [make.normals(make.rows, make.cols), make.k, ops.DrawKey(*make.key), *settings]


def _construct(make: Maker) -> Arguments:
    device = make.random.choice(MODELS)
    return [device.name, list(device.parameters()), make.rows, make.cols, *make.key]


def _normals(make: Maker) -> Arguments:
    return [make.rows, make.cols, *make.key]


def _construct_retention(make: Maker) -> Arguments:
    return [list(RETENTION.retention()), make.rows, make.cols, *make.key]


def _retain(make: Maker) -> Arguments:
    step, _, bound = make.cells(RETENTION)
    words = ops.construct_retention(RETENTION.retention(), make.rows, make.cols, *make.key)
    weight = make.normals(make.rows, make.cols, scale=0.1)
    return [weight, step, bound, words, 0.2, make.k, ops.DrawKey(*make.key)]


def _disturb(make: Maker) -> Arguments:
    visible, hidden = (make.normals(make.rows, make.cols, scale=0.1) for _ in range(2))
    step = make.cells(RETENTION)[0]
    return [visible, hidden, step, 0.01, counted(make.k), ops.DrawKey(*make.key)]


def _redraw(make: Maker) -> Arguments:
    device, config = make.random.choice(MODELS), UpdateConfig(desired_bl=10)
    visible, hidden = (make.normals(make.rows, make.cols, scale=0.1) for _ in range(2))
    x, d = make.normals(make.batch, make.cols), make.normals(make.batch, make.rows)
    step, key = make.cells(device)[0], (*make.key, make.k)
    return list(redraw_arguments(visible, hidden, step, x, d, device, config, 0.1, 0.01, key))


MAKERS: dict[str, Callable[[Maker], Arguments]] = {
    "read_": _read,
    "read_chain_": _read_chain,
    "update_": _update,
    "pulse_": _pulse,
    "convert": _convert,
    "construct": _construct,
    "initial_normals": _normals,
    "construct_retention": _construct_retention,
    "retain_": _retain,
    "reset_": _retain,
    "disturb_": _disturb,
    "redraw_": _redraw,
}

# ---- what becomes of a tensor ----


def _inside(t: Tensor) -> Tensor:
    """The same values in the middle of other memory."""
    room = torch.zeros(t.numel() + 5, dtype=t.dtype)
    room[3 : 3 + t.numel()] = t.flatten()
    return room[3 : 3 + t.numel()].view(t.shape)


def _freed(t: Tensor) -> Tensor:
    t = t.clone()
    t.untyped_storage().resize_(0)
    return t


def _shrunk(t: Tensor) -> Tensor:
    t = t.clone()
    t.untyped_storage().resize_(t.untyped_storage().nbytes() // 2)
    return t


def _with(value: float) -> Callable[[Tensor], Tensor]:
    def change(t: Tensor) -> Tensor:
        t = t.clone()
        if t.numel() and t.is_floating_point():
            t.view(-1)[t.numel() // 2] = value
        return t

    return change


SAME: dict[str, Callable[[Tensor], Tensor]] = {  # the values of before
    "inside": _inside,
    "strided": lambda t: torch.stack((t, t), -1)[..., 0],
    "transposed": lambda t: t.mT.contiguous().mT if t.dim() > 1 else t,
    "negated": lambda t: torch._neg_view(-t) if t.is_floating_point() else t,
}
OTHER: dict[str, Callable[[Tensor], Tensor]] = {
    "float64": Tensor.double,
    "float16": Tensor.half,
    "bfloat16": Tensor.bfloat16,
    "int64": lambda t: t.nan_to_num().long(),
    "int32": lambda t: t.nan_to_num().int(),
    "complex": lambda t: t.cfloat(),
    "bool": Tensor.bool,
    "flat": Tensor.flatten,
    "deeper": lambda t: t[None],
    "shorter": lambda t: t[..., : max(t.shape[-1] - 1, 0)] if t.dim() else t,
    "empty": lambda t: t[:0],
    "scalar": lambda t: t.new_zeros(()),
    "expanded": lambda t: t.new_zeros(1).expand(t.shape),
    "sparse": lambda t: t.to_sparse(),
    "csr": lambda t: t.to_sparse_csr() if t.dim() == 2 else t.to_sparse(),
    "mkldnn": lambda t: t.to_mkldnn() if t.dtype == torch.float32 and t.numel() else t,
    "meta": lambda t: t.to("meta"),
    "freed": _freed,
    "shrunk": _shrunk,
    "zero tensor": lambda t: torch._efficientzerotensor(t.shape, dtype=t.dtype),
    "NaN": _with(NAN),
    "inf": _with(INF),
    "huge": _with(3e38),
    "tiny": _with(1e-44),
}


def spoil(make: Maker, arguments: Arguments, changes: int) -> list[str]:
    """Change so many arguments; says how."""
    places = make.random.sample(range(len(arguments)), changes)
    return [_change(make, arguments, n) for n in places]


def _change(make: Maker, arguments: Arguments, n: int) -> str:
    value = arguments[n]
    if isinstance(value, Tensor):
        how = make.random.choice((*SAME, *OTHER, "alias"))
        if how == "alias":
            others = [t for t in arguments if isinstance(t, Tensor)]
            other = make.random.choice(others)
            try:
                arguments[n] = other.view(value.dtype).view(-1)[: value.numel()].view(value.shape)
            except RuntimeError:  # not as large, or no such view
                arguments[n] = other
        else:
            arguments[n] = {**SAME, **OTHER}[how](value)
        return f"argument {n}: {how}"
    if isinstance(value, (tuple, list)):
        numbers = list(value)
        i = make.random.randrange(len(numbers) + 1)
        if i == len(numbers):
            arguments[n] = numbers[:-1] if make.random.random() < 0.5 else [*numbers, 1]
            return f"argument {n}: {len(arguments[n])} numbers"
        whole = isinstance(value, (ops.ReadKey, ops.UpdateKey, ops.DrawKey))
        numbers[i] = make.random.choice(WHOLE if whole else NUMBERS)
        arguments[n] = numbers
        return f"argument {n}[{i}]: {numbers[i]}"
    if isinstance(value, bool):
        arguments[n] = not value
    elif isinstance(value, int):
        arguments[n] = make.random.choice(WHOLE)
    elif isinstance(value, float):
        arguments[n] = make.random.choice(NUMBERS)
    elif isinstance(value, str):
        arguments[n] = make.random.choice(("SoftBounds", "Ideal", "PiecewiseStep", "", "nobody"))
    return f"argument {n}: {arguments[n]!r}"

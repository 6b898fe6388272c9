"""``pulseline device`` and ``pulseline mvm``: what a device and a read do, as figures."""

from __future__ import annotations

import argparse
import csv
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch

from .. import devices, presets
from ..arrays import Array
from ..configs import IOConfig, Mapping, ReadConfig, UpdateConfig
from ..devices import PulsedDevice
from ..errors import ConfigError
from . import plots_device
from .arguments import seed_number, whole
from .plots_device import Product, Response

GRID = 121  # weights at which the step is shown


def add_parser(commands: argparse._SubParsersAction[Any]) -> None:
    """Add both commands."""
    device = commands.add_parser("device", help="draw the response of a device to pulses")
    device.set_defaults(run=_device)
    device.add_argument("name", metavar="NAME", help="a model or a preset, such as soft_bounds")
    device.add_argument("--pulses", type=whole(1), default=1000, help="up, then as many down")
    device.add_argument("--devices", type=whole(1), default=20)
    device.add_argument("--seed", type=seed_number, default=0)
    device.add_argument("--out", type=Path, default=Path("curve.png"), metavar="PNG")
    device.add_argument(
        "--csv",
        type=Path,
        default=None,
        metavar="FILE",
        help="for devices.from_measurements",
    )

    mvm = commands.add_parser("mvm", help="draw analog products against ideal ones")
    mvm.set_defaults(run=_mvm)
    mvm.add_argument("--inputs", type=whole(1), default=256)
    mvm.add_argument("--outputs", type=whole(1), default=256)
    mvm.add_argument("--samples", type=whole(1), default=50)
    mvm.add_argument("--tile", type=whole(1), default=512, help="largest side of a physical tile")
    mvm.add_argument("--backward", action="store_true", help="the transposed product")
    mvm.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help="a setting of the read, such as out_noise=0.1 or ir_drop=approx; repeatable",
    )
    mvm.add_argument("--seed", type=seed_number, default=0)
    mvm.add_argument("--out", type=Path, default=Path("mvm.png"), metavar="PNG")


def _pulser(device: PulsedDevice, count: int, seed: int, fidelity: str) -> Array:
    """A column of devices in which every update is one pulse, and no time passes."""
    device = replace(device, lifetime=0.0, diffusion=0.0, drift_nu=0.0)
    one = UpdateConfig(
        desired_bl=1, update_management=False, update_bl_management=False, fidelity=fidelity
    )
    return Array(count, 1, device, io=IOConfig.perfect(), update=one, seed=seed)


def _pulse(array: Array, device: PulsedDevice, up: bool) -> None:
    d = torch.full((1, array.shape[0]), -1.0 if up else 1.0, dtype=torch.float32, device="cpu")
    array.pulse(d.new_ones(1, 1), d, device.granularity)


def response(device: PulsedDevice, pulses: int, count: int, seed: int) -> Response:
    """Weights over ``pulses`` up pulses from the low bound, then as many down; steps on a grid.

    Steps are those without noise, one ``expected`` pulse from each weight; NaN where a bound cuts
    them.
    """
    array = _pulser(device, count, seed, "strict")
    low, high = array.bounds
    array.program(torch.where(torch.isfinite(low), low, torch.zeros_like(low)))
    weights = [array.weight.data[:, 0].clone()]
    for n in range(2 * pulses):
        _pulse(array, device, n < pulses)
        weights.append(array.weight.data[:, 0].clone())
    probe = _pulser(replace(device, write_noise_std=0.0), count, seed, "expected")
    edge = float(torch.cat([low.abs(), high.abs()]).max()) or 1.0
    grid = torch.linspace(-edge, edge, GRID, dtype=torch.float32, device="cpu")
    steps = grid.new_full((2, GRID, count), float("nan"))
    for i, w in enumerate(grid):
        inside = ((low <= w) & (w <= high))[:, 0]
        for row, up in enumerate((True, False)):
            probe.program(grid.new_full((count, 1), float(w)))
            before = probe.weight.data[:, 0].clone()
            _pulse(probe, device, up)
            after = probe.weight.data[:, 0]
            whole_step = inside & ((after < high[:, 0]) if up else (after > low[:, 0]))
            steps[row, i] = torch.where(whole_step, (after - before).abs(), steps[row, i])
    return Response(torch.stack(weights), pulses, grid, steps)


def _device(args: argparse.Namespace) -> None:
    device = presets.find(args.name)
    path = _file(args.out, "--out")
    table = None if args.csv is None else _file(args.csv, "--csv")
    found = response(device, args.pulses, args.devices, args.seed)
    plots_device.device_figure(found, f"{args.name} ({device.name}), {args.devices} devices", path)
    points = found.symmetry_points()
    middle = f"{float(points.mean()):+.4f} (mean of {len(points)})" if len(points) else "none"
    top, end = found.weights[args.pulses], found.weights[-1]
    print(f"{device}")
    print(f"{device.name}: {device.fidelity_note}")
    print(
        f"{args.devices} devices, {args.pulses} pulses up and down: weight "
        f"{float(found.weights[0].mean()):+.4f} -> {float(top.mean()):+.4f} -> "
        f"{float(end.mean()):+.4f} on average; symmetry point {middle}"
    )
    if table is not None:
        _write(found, table)
    print("wrote " + " and ".join(str(p) for p in (path, table) if p is not None))


def _write(found: Response, path: Path) -> None:
    """What :func:`pulseline.devices.from_measurements` reads: both curves of every device."""
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["device", "direction", "pulse", "conductance"])
        for n, weights in enumerate(found.weights.t().tolist()):
            up, down = weights[: found.pulses + 1], weights[found.pulses :]
            for direction, curve in (("up", up), ("down", down)):
                rows.writerows([n, direction, pulse, w] for pulse, w in enumerate(curve))


def _file(path: Path, option: str) -> Path:
    """A file that can be written, its directory made."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise IsADirectoryError(21, "it is a directory")
        with path.open("ab"):
            pass
    except OSError as error:
        raise ConfigError(f"{option} {path} cannot be written: {error.strerror}") from None
    return path


def read_config(settings: list[str]) -> ReadConfig:
    """The default read with ``FIELD=VALUE`` settings."""
    kinds = {field.name: type(getattr(ReadConfig(), field.name)) for field in fields(ReadConfig)}
    values: dict[str, bool | int | float | str] = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals or name not in kinds:
            raise ConfigError(
                f"--set is {setting!r}; use FIELD=VALUE, FIELD one of {', '.join(kinds)}"
            )
        kind = kinds[name]
        try:
            values[name] = text.lower() in ("1", "true", "yes") if kind is bool else kind(text)
        except ValueError:
            raise ConfigError(f"--set {name} is {text!r}; use a number") from None
    return ReadConfig(**values)  # type: ignore[arg-type]


def product(args: argparse.Namespace, config: ReadConfig) -> Product:
    """Analog and float64 products of random weights and inputs (both normal)."""
    array = Array(
        args.outputs,
        args.inputs,
        devices.Ideal(),
        io=IOConfig(config, config),
        mapping=Mapping(args.tile, args.tile),
        seed=args.seed,
    )
    array.initialise()
    generator = torch.Generator("cpu").manual_seed(args.seed)
    shape = (args.samples, args.outputs if args.backward else args.inputs)
    v = torch.randn(shape, generator=generator, dtype=torch.float32, device="cpu")
    w = array.effective_weight().double()
    ideal = v.double() @ (w if args.backward else w.t())
    return Product(ideal, array.read(v, transposed=args.backward).double())


def _mvm_title(args: argparse.Namespace) -> str:
    settings = ", ".join(args.set) or "default read"
    matrix = f"{args.outputs} x {args.inputs} matrix{', transposed' if args.backward else ''}"
    return f"{args.samples} products of a {matrix}: {settings}"


def _mvm(args: argparse.Namespace) -> None:
    config = read_config(args.set)
    path = _file(args.out, "--out")
    found = product(args, config)
    plots_device.mvm_figure(found, _mvm_title(args), path)
    error = found.analog - found.ideal
    rms, scale = float(error.square().mean().sqrt()), float(found.ideal.square().mean().sqrt())
    print(
        f"{args.samples} products of a {args.outputs} x {args.inputs} matrix"
        f"{', transposed' if args.backward else ''}: error {rms:.4g} rms, "
        f"{100 * rms / scale:.2f} % of the outputs' rms; mean {float(error.mean()):+.2g}, "
        f"largest {float(error.abs().max()):.3g}"
    )
    print(f"wrote {path}")

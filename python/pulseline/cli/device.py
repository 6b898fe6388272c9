"""``pulseline device`` and ``pulseline read``: what a device and a read do, as figures."""

from __future__ import annotations

import argparse
import csv
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from .. import devices, presets
from ..arrays import Array
from ..configs import IOConfig, Mapping, ReadConfig
from ..devices import PulsedDevice
from ..errors import ConfigError
from . import plots_device
from .arguments import seed_number, whole
from .measured import TABLES, compare
from .parser import add_command, add_set
from .plots_device import Product, Response
from .pulser import pulse, pulser
from .settings import changes

__all__ = ["GRID", "add_parser", "product", "read_config", "response"]

GRID = 121  # weights at which the step is shown


def add_parser(commands: argparse._SubParsersAction[Any]) -> None:
    """Add both commands."""
    _add_device(commands)
    _add_read(commands)


def _add_device(commands: Any) -> None:
    device = add_command(
        commands,
        "device",
        "draw the response of a device to pulses, or fit one to measured curves",
        """pulseline device reram_es --out curve.png
        pulseline device soft_bounds --set up_down=0.3 dw_min=0.01 --save mine.json
        pulseline device measured.csv --save mine.json    # fit, figure, summary
        pulseline train --device mine.json""",
    )
    device.set_defaults(run=_device)
    device.add_argument(
        "name",
        metavar="NAME",
        help="a model or a preset, such as soft_bounds; a device file (.json); or a table of "
        f"measured curves ({', '.join(TABLES)}), to which a device is fitted",
    )
    add_set(device, "the device, such as dw_min=0.01 (weights in [-1, 1])")
    device.add_argument(
        "--pulses",
        type=whole(1),
        default=1000,
        metavar="N",
        help="pulses up, then as many down (default: 1000; measured curves: as measured)",
    )
    device.add_argument(
        "--devices",
        type=whole(1),
        default=None,
        metavar="N",
        help="simulated devices (default: 20; beside measured curves 200)",
    )
    device.add_argument(
        "--seed", type=seed_number, default=0, metavar="S", help="of the simulated devices"
    )
    device.add_argument("--out", type=Path, default=Path("curve.png"), metavar="PNG", help="figure")
    device.add_argument(
        "--save",
        type=Path,
        default=None,
        metavar="JSON",
        help="device file for train --device (default: none is written)",
    )
    device.add_argument(
        "--csv",
        type=Path,
        default=None,
        metavar="FILE",
        help="table of the response, which devices.from_measurements reads (default: none)",
    )
    device.add_argument("--json", action="store_true", help="print JSON instead of text")


def _add_read(commands: Any) -> None:
    read = add_command(
        commands,
        "read",
        "draw analog products against ideal ones",
        """pulseline read --set out_res=64 out_noise=0
        pulseline read --set ir_drop=exact wire_resistance=1e-4 --inputs 128""",
    )
    read.set_defaults(run=_read)
    read.add_argument(
        "--inputs", type=whole(1), default=256, metavar="N", help="columns of the matrix"
    )
    read.add_argument(
        "--outputs", type=whole(1), default=256, metavar="N", help="rows of the matrix"
    )
    read.add_argument(
        "--samples", type=whole(1), default=50, metavar="N", help="products, one a sample"
    )
    read.add_argument(
        "--tile",
        type=whole(1),
        default=512,
        metavar="N",
        help="crosspoints along the largest side of a physical tile",
    )
    read.add_argument("--backward", action="store_true", help="the transposed product")
    add_set(read, "the converters, such as out_noise=0.1 (in units of the output)")
    read.add_argument(
        "--seed", type=seed_number, default=0, metavar="S", help="of matrix, inputs and noise"
    )
    read.add_argument("--out", type=Path, default=Path("read.png"), metavar="PNG", help="figure")
    read.add_argument("--json", action="store_true", help="print JSON instead of text")


def response(device: PulsedDevice, pulses: int, count: int, seed: int) -> Response:
    """Weights over ``pulses`` up pulses from the low bound, then as many down; steps on a grid.

    Steps are those without noise, one ``expected`` pulse from each weight; NaN where a bound cuts
    them.
    """
    array = pulser(device, count, seed, "strict")
    low, high = array.bounds
    array.program(torch.where(torch.isfinite(low), low, torch.zeros_like(low)))
    weights = [array.weight.data[:, 0].clone()]
    for n in range(2 * pulses):
        pulse(array, device, n < pulses)
        weights.append(array.weight.data[:, 0].clone())
    probe = pulser(replace(device, write_noise_std=0.0), count, seed, "expected")
    edge = float(torch.cat([low.abs(), high.abs()]).max()) or 1.0
    grid = torch.linspace(-edge, edge, GRID, dtype=torch.float32, device="cpu")
    steps = grid.new_full((2, GRID, count), float("nan"))
    for i, w in enumerate(grid):
        inside = ((low <= w) & (w <= high))[:, 0]
        for row, up in enumerate((True, False)):
            probe.program(grid.new_full((count, 1), float(w)))
            before = probe.weight.data[:, 0].clone()
            pulse(probe, device, up)
            after = probe.weight.data[:, 0]
            whole_step = inside & ((after < high[:, 0]) if up else (after > low[:, 0]))
            steps[row, i] = torch.where(whole_step, (after - before).abs(), steps[row, i])
    return Response(torch.stack(weights), pulses, grid, steps)


def _device(args: argparse.Namespace) -> None:
    measured = Path(args.name).suffix.lower() in TABLES
    if measured:
        for option, what in (("csv", "writes the response of"), ("set", "changes the settings of")):
            if getattr(args, option):
                raise ConfigError(
                    f"--{option} {what} a device and {args.name} is a table; leave it out"
                )
    fit = devices.fit_measurements(args.name) if measured else None
    device = presets.find(args.name) if fit is None else fit.device
    device = replace(device, **changes(args.set, device))
    path = _file(args.out, "--out")
    table = None if args.csv is None else _file(args.csv, "--csv")
    saved = None if args.save is None else _device_file(args.save)
    count = args.devices or (20 if fit is None else 200)
    facts: dict[str, Any] = {"model": device.name, "device": asdict(device)}
    if fit is None:
        found = response(device, args.pulses, count, args.seed)
        title = ", ".join([f"{args.name} ({device.name})", *args.set, f"{count} devices"])
        plots_device.device_figure(found, title, path)
        facts |= _described(found)
        text = _description(device, facts)
        if table is not None:
            _write(found, table)
    else:
        sides = compare(fit, True, count, args.seed), compare(fit, False, count, args.seed)
        plots_device.measured_figure(fit, sides, f"{args.name}: measured and simulated", path)
        facts["summary"] = fit.summary().splitlines()
        text = f"{fit.summary()}\n{device.name}: {device.fidelity_note}"
    if saved is not None:
        devices.save(device, saved)
    facts["files"] = [str(p) for p in (path, table, saved) if p is not None]
    print(json.dumps(facts, indent=2) if args.json else text)
    if not args.json:
        print("wrote " + " and ".join(facts["files"]))


def _described(found: Response) -> dict[str, Any]:
    """Weights at the ends of the response and where steps up and down are equal."""
    points = found.symmetry_points()
    ends = (found.weights[0], found.weights[found.pulses], found.weights[-1])
    return {
        "devices": found.weights.shape[1],
        "pulses": found.pulses,
        "weights": [float(one.mean()) for one in ends],
        "symmetry_point": float(points.mean()) if len(points) else None,
        "symmetric_devices": len(points),
    }


def _description(device: PulsedDevice, facts: dict[str, Any]) -> str:
    point, count = facts["symmetry_point"], facts["symmetric_devices"]
    middle = "none" if point is None else f"{point:+.4f} (mean of {count})"
    way = " -> ".join(f"{w:+.4f}" for w in facts["weights"])
    return (
        f"{device}\n{device.name}: {device.fidelity_note}\n"
        f"{facts['devices']} devices, {facts['pulses']} pulses up and down: weight {way} on "
        f"average; symmetry point {middle}"
    )


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
        raise ConfigError(
            f"{option} {path} cannot be written ({error.strerror}); use another path"
        ) from None
    return path


def _device_file(path: Path) -> Path:
    if not devices.files.is_file_name(path.name):
        raise ConfigError(
            f"--save is {str(path)!r}; use a name that ends in {devices.files.ENDING}"
        )
    return _file(path, "--save")


def read_config(settings: list[str]) -> ReadConfig:
    """The default read with ``FIELD=VALUE`` settings.

    Raises:
        ConfigError: a setting is none, or its value cannot be.
    """
    return replace(ReadConfig(), **changes(settings, ReadConfig()))


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


def _read_title(args: argparse.Namespace) -> str:
    settings = ", ".join(args.set) or "default read"
    matrix = f"{args.outputs} x {args.inputs} matrix{', transposed' if args.backward else ''}"
    return f"{args.samples} products of a {matrix}: {settings}"


def _read(args: argparse.Namespace) -> None:
    config = read_config(args.set)
    path = _file(args.out, "--out")
    found = product(args, config)
    plots_device.read_figure(found, _read_title(args), path)
    error = found.analog - found.ideal
    rms, scale = float(error.square().mean().sqrt()), float(found.ideal.square().mean().sqrt())
    if args.json:
        facts = {"rms": rms, "relative_rms": rms / scale, "mean": float(error.mean())}
        print(json.dumps(facts | {"largest": float(error.abs().max()), "files": [str(path)]}))
        return
    print(
        f"{args.samples} products of a {args.outputs} x {args.inputs} matrix"
        f"{', transposed' if args.backward else ''}: error {rms:.4g} rms, "
        f"{100 * rms / scale:.2f} % of the outputs' rms; mean {float(error.mean()):+.2g}, "
        f"largest {float(error.abs().max()):.3g}"
    )
    print(f"wrote {path}")

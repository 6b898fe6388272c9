"""``pulseline device`` and ``pulseline read``: figures, tables, closed forms, refusals."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import pytest
import torch

import pulseline as pl
from pulseline import presets
from pulseline.cli import main
from pulseline.cli.device import read_config, response

PNG = b"\x89PNG"


def test_response_of_a_perfect_device() -> None:
    """Soft bounds without spread or noise: w_n = hi - (hi - lo) (1 - s / hi)^n, and its mirror."""
    device = pl.devices.SoftBounds(
        dw_min=0.01, dw_min_dtod=0, dw_min_std=0, up_down_dtod=0, w_max_dtod=0, w_min_dtod=0
    )
    found = response(device, 50, 3, seed=0)
    n = torch.arange(51)[:, None]
    w = found.weights[:51]
    hi, step = 0.6, 0.01
    # stored as bfloat16, the parameters are off by 2^-9 relative, the travel by three times that
    assert (w - (hi - 2 * hi * (1 - step / hi) ** n)).abs().max() < 1.2 * 3 * 2**-8
    assert (w.diff(dim=0) > 0).all()
    assert (found.weights[50:].diff(dim=0) < 0).all()
    inside = torch.isfinite(found.steps)
    expected = step * (1 - found.grid / hi)[:, None].expand(-1, 3)
    assert (found.steps[0] - expected)[inside[0]].abs().max() < step * 2**-6
    points = found.symmetry_points()
    assert len(points) == 3
    assert points.abs().max() < 0.01


def test_device(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, table = tmp_path / "new" / "curve.png", tmp_path / "curve.csv"
    command = f"device soft_bounds --pulses 30 --devices 4 --out {out} --csv {table}"
    assert main(command.split()) == 0
    assert out.read_bytes().startswith(PNG)
    rows = list(csv.reader(table.read_text().splitlines()))
    assert rows[0] == ["device", "direction", "pulse", "conductance"]
    names = [(str(n), way, str(k)) for n in range(4) for way in ("up", "down") for k in range(31)]
    assert [tuple(row[:3]) for row in rows[1:]] == names
    weights = response(presets.find("SoftBounds"), 30, 4, 0).weights
    got = torch.tensor([float(row[3]) for row in rows[1:]]).view(4, 2, 31)
    assert torch.equal(got[:, 0], weights[:31].t())
    assert torch.equal(got[:, 1], weights[30:].t())
    printed = capsys.readouterr().out
    assert "SoftBounds: grouped and moments follow the closed form of its affine step" in printed
    assert "symmetry point" in printed
    assert f"wrote {out} and {table}" in printed


def test_the_table_makes_a_device(tmp_path: Path) -> None:
    """The table of a response, read back by from_measurements, gives the device's own numbers.

    24 capacitor cells: the range within 5 standard errors of its spread (7 % / sqrt 24, both ends),
    likewise dw_min (10 % / sqrt 24 beside the range's), sigma from 24 x 1,400 noisy steps within
    10 %; the slope along the curve (gamma .05) within .05 of dw_min.
    """
    device = presets.Capacitor
    table, out = tmp_path / "curve.csv", str(tmp_path / "curve.png")
    size = ["--pulses", "700", "--devices", "24", "--seed", "2"]
    assert main(["device", "capacitor", *size, "--out", out, "--csv", str(table)]) == 0
    fitted = pl.devices.from_measurements(table, nodes=3)
    lo, hi = (v.mean() for v in pl.Array(24, 1, device, seed=2).bounds)
    scale = float(hi - lo) / 2
    assert scale == pytest.approx(1.0, abs=5 * 0.07 / math.sqrt(48))
    slack = 5 * math.hypot(0.1, 0.07) / math.sqrt(24)
    assert fitted.dw_min * scale == pytest.approx(device.dw_min, rel=slack)
    assert fitted.dw_min_std == pytest.approx(device.dw_min_std, rel=0.1)
    assert fitted.dw_min_dtod == pytest.approx(device.dw_min_dtod, abs=5 * 0.1 / math.sqrt(48))
    for nodes, slope in ((fitted.piecewise_up, -0.05), (fitted.piecewise_down, 0.05)):
        assert nodes[1] == pytest.approx(1.0, abs=0.1)
        assert (nodes[2] - nodes[0]) / 2 == pytest.approx(slope, abs=0.05)
    again = response(fitted, 700, 24, 0).weights
    travel = float(again[700].mean() - again[0].mean())
    assert travel == pytest.approx(2.0, abs=0.2)  # the whole range, -1 to 1


@pytest.mark.parametrize("name", presets.list())
def test_every_preset_draws(name: str, tmp_path: Path) -> None:
    out = tmp_path / "curve.png"
    assert main(["device", name, "--pulses", "3", "--devices", "2", "--out", str(out)]) == 0
    assert out.read_bytes().startswith(PNG)


@pytest.mark.parametrize("name", [*sorted(pl.devices.DEVICES), "soft_bounds_pmax"])
def test_every_model_draws(name: str, tmp_path: Path) -> None:
    out = tmp_path / "curve.png"
    assert main(["device", name, "--pulses", "3", "--devices", "2", "--out", str(out)]) == 0
    assert out.read_bytes().startswith(PNG)


def test_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "read.png"
    size = ["--inputs", "40", "--outputs", "30", "--samples", "20", "--out", str(out)]
    assert main(["read", *size]) == 0
    assert out.read_bytes().startswith(PNG)
    assert "20 products of a 30 x 40 matrix: error" in capsys.readouterr().out
    options = ["--set", "ir_drop=approx", "--set", "wire_resistance=1e-4", "--backward"]
    assert main(["read", *size, *options]) == 0
    assert "transposed" in capsys.readouterr().out


def test_settings() -> None:
    config = read_config(["out_noise=0.1", "max_rounds=3", "inp_sto_round=yes", "ir_drop=none"])
    assert config == pl.configs.ReadConfig(out_noise=0.1, max_rounds=3, inp_sto_round=True)


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("device memristor", "device is 'memristor'; use one of constant_step, "),
        ("device", "the following arguments are required: NAME"),
        ("device soft_bounds --pulses 0", "is '0'; use an integer >= 1"),
        ("device soft_bounds --out /dev/null/a.png", "--out /dev/null/a.png cannot be written"),
        ("read --samples x", "is 'x'; use an integer >= 1"),
        ("read --set noise=1", "--set is 'noise=1'; use FIELD=VALUE"),
        ("read --set out_noise=much", "--set out_noise is 'much'; use a number"),
        ("read --set out_noise=-1", "ReadConfig: out_noise is -1.0; use a value >= 0"),
        ("read --set ir_drop=exact", "ReadConfig: wire_resistance is 0.0; use a value > 0"),
    ],
)
def test_bad_arguments(command: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    """One sentence on stderr, exit code 2."""
    try:
        code = main(command.split())
    except SystemExit as leave:
        code = int(leave.code or 0)
    printed = capsys.readouterr()
    assert code == 2
    assert message in printed.err
    assert printed.err.count("\n") == 1
    assert printed.out == ""

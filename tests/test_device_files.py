"""Device files, and ``pulseline device TABLE``: figure, summary, a device that train takes."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch

import pulseline as pl
from device_cases import EXAMPLES
from pulseline import ConfigError, devices, presets
from pulseline.cli import main
from pulseline.cli.measured import compare
from pulseline.settings import inert_values
from synthetic_curves import Truth, measure, write


@pytest.mark.parametrize("device", EXAMPLES.values(), ids=EXAMPLES.keys())
def test_what_is_saved_is_loaded(device: devices.PulsedDevice, tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    devices.save(device, path)
    assert devices.load(path) == device
    assert presets.find(str(path)) == device


def test_absent_fields_are_inert(tmp_path: Path) -> None:
    """As in a saved state: no noise and no spread, not the defaults."""
    path = tmp_path / "mine.json"
    inert = inert_values(devices.SoftBounds)
    fields = asdict(devices.SoftBounds(dw_min=0.25))
    needed = {name: value for name, value in fields.items() if name not in inert}
    path.write_text(json.dumps({"model": "SoftBounds", **needed}))
    loaded = devices.load(path)
    assert loaded.dw_min == 0.25
    assert {name: getattr(loaded, name) for name in inert} == inert


BAD = {
    "json": ("{\n'x'", "line 2: Expecting property name"),
    "bytes": ("\udcff", "is no JSON; use a file of pl.devices.save"),
    "list": ("[]", "model is None; use one of ConstantStep"),
    "model": ('{"model": "Wood"}', "model is 'Wood'; use one of ConstantStep"),
    "field": ('{"model": "ConstantStep", "colour": 1}', "has no field 'colour'; remove it"),
    "lacking": ('{"model": "ConstantStep"}', "ConstantStep needs dw_min; add it"),
    "value": (
        json.dumps({"model": "ConstantStep", **asdict(devices.ConstantStep()), "dw_min": -1}),
        "ConstantStep: dw_min is -1; use a step > 0",
    ),
    "kind": (
        json.dumps({"model": "ConstantStep", **asdict(devices.ConstantStep()), "dw_min": "1"}),
        "ConstantStep: dw_min is '1'; use a finite number",
    ),
}


@pytest.mark.parametrize(("text", "message"), BAD.values(), ids=BAD.keys())
def test_bad_files_are_refused(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ConfigError, match=message) as refused:
        devices.load(path)
    assert str(path) in str(refused.value)


def test_bad_paths_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.json cannot be read \(No such file"):
        devices.load(tmp_path / "none.json")
    with pytest.raises(ConfigError, match=r"use a name that ends in \.json"):
        devices.save(devices.SoftBounds(), tmp_path / "mine.txt")
    with pytest.raises(ConfigError, match=r"cannot be written \(Not a directory"):
        devices.save(devices.SoftBounds(), "/dev/null/mine.json")


def test_a_table_becomes_a_device(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = write(tmp_path / "mine.csv", measure(Truth(devices=3, cycles=2, pulses=40), 0))
    out, saved = tmp_path / "mine.png", tmp_path / "mine.json"
    words = [str(table), "--out", str(out), "--save", str(saved), "--devices", "5"]
    assert main(["device", *words]) == 0
    printed = capsys.readouterr().out
    fit = pl.devices.fit_measurements(table)
    assert fit.summary() in printed
    assert f"wrote {out} and {saved}" in printed
    assert out.read_bytes().startswith(b"\x89PNG")
    assert devices.load(saved) == fit.device
    quick = "--epochs 1 --samples 32 --batch-size 8 --stages 2"
    assert main(["train", "--device", str(saved), *quick.split()]) == 0
    assert "digest" in capsys.readouterr().out
    assert main(["device", str(saved), "--pulses", "3", "--out", str(out)]) == 0
    assert "PiecewiseStep(dw_min=" in capsys.readouterr().out


def test_the_simulation_follows_the_measurement(tmp_path: Path) -> None:
    """Mean curves of measured and simulated sweeps agree.

    The mean of 24 measured sweeps wanders by cycle noise sigma s sqrt(1 / (2 s)) / sqrt(24) = .008,
    the fitted curve turns steps of 2 % error into .02 of the way of 1 at most; five of both.
    """
    truth = Truth(cycles=3, read=0.02)
    fit = devices.fit_measurements(write(tmp_path / "mine.csv", measure(truth, 1)))
    for up in (True, False):
        side = compare(fit, up, 200, 0)
        measured = np.mean([weights for _, weights in side.measured], 0)
        assert np.abs(measured - side.mean).max() < 5 * np.hypot(0.008, 0.02)
        inside = [(side.low <= w) & (w <= side.high) for _, w in side.measured]
        assert 0.75 < np.mean(inside) < 0.99  # 90 % by its definition
        known = np.isfinite(side.steps)
        nodes = np.linspace(-1, 1, len(side.curve))
        off = side.steps - np.interp(side.places, nodes, side.curve)
        assert np.abs(off[known] / side.errors[known]).max() < 5


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("none.csv", "none.csv cannot be read (No such file"),
        ("none.json", "none.json cannot be read (No such file"),
        ("{table} --csv {table}", "--csv writes the response of a device and "),
        ("soft_bounds --save x.txt", "--save is 'x.txt'; use a name that ends in .json"),
    ],
)
def test_bad_arguments(
    words: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = write(tmp_path / "mine.csv", measure(Truth(devices=1, pulses=9), 0))
    args = words.format(table=table).split()
    assert main(["device", *args, "--out", str(tmp_path / "x.png")]) == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert printed.err.count("\n") == 1
    assert printed.out == ""


def test_a_table_is_no_device(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--device", "mine.csv"]) == 2
    assert "pulseline device TABLE --save FILE makes one" in capsys.readouterr().err


def test_loading_needs_no_process_settings(tmp_path: Path) -> None:
    """The same device under another default dtype."""
    devices.save(devices.SoftBounds(), tmp_path / "mine.json")
    torch.set_default_dtype(torch.float64)
    try:
        assert devices.load(tmp_path / "mine.json") == devices.SoftBounds()
    finally:
        torch.set_default_dtype(torch.float32)

"""The command line: what it prints, what it writes, how it refuses."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from pulseline import presets
from pulseline.cli import main
from pulseline.cli.plots import accuracy_figure
from pulseline.data import load_digits
from pulseline.models import DEVICES, mlp, network
from pulseline.train import Epoch, Recipe, Run, pipeline, train

SAMPLES = 1437


def run(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of one command."""
    try:
        code = main(argv)
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else -1
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def results(out: str) -> tuple[float, int, str]:
    """Accuracy, clock cycles and digest from what ``train`` printed."""
    found = re.fullmatch(
        r"test accuracy: ([\d.]+) % \(after 1 epoch\)\n"
        r"clock cycles: (\d+)\ndigest: ([0-9a-f]{64})\n(wrote .*\n)?",
        out,
    )
    assert found, out
    return float(found[1]), int(found[2]), found[3]


def test_train_prints_accuracy_cycles_and_digest(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    words = "train --data digits --model mlp --stages 4 --schedule async --device soft_bounds"
    argv = [*words.split(), "--epochs", "1", "--seed", "3"]
    code, out, err = run(capsys, *argv, "--out", str(tmp_path / "run"))
    assert code == 0
    said = ("epoch 1 of 1: loss ", "modelled on", "time per sample", "energy per sample")
    said += ("utilisation", "pulses fired")
    assert [line.startswith(word) for line, word in zip(err.splitlines(), said, strict=False)] == (
        [True] * len(said)
    )
    right, cycles, total = results(out)
    assert right > 85
    assert cycles == 2 * (SAMPLES + 3)
    saved = json.loads((tmp_path / "run" / "result.json").read_text())
    assert (saved["digest"], saved["clock_cycles"]) == (total, cycles)
    assert (tmp_path / "run" / "accuracy.png").stat().st_size > 1000


def test_the_digest_is_a_function_of_the_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", "--epochs", "1", "--batch-size", "16", "--seed"]
    first, again, other = (results(run(capsys, *words, seed)[1]) for seed in ("3", "3", "4"))
    assert first == again
    assert first[2] != other[2]


@pytest.mark.parametrize(
    ("words", "cycles"),
    [
        ("--schedule sequential --stages 3 --batch-size 8", 2 * 3 * 180),
        ("--schedule sync --batch-size 8", 22 * 2 * (4 + 7) + 2 * (4 + 3)),
        ("--schedule sync --batch-size 8 --micro-batches 5", 36 * 2 * (4 + 4)),
        ("--schedule async --batch-size 8 --stages 2", 2 * (180 + 1)),
        ("--schedule async --batch-size 2000 --stages 1 --lr 0.5", 2),
    ],
)
def test_train_cycles(capsys: pytest.CaptureFixture[str], words: str, cycles: int) -> None:
    """1,437 samples in micro-batches of 8 are 180 micro-batches, the last of them short."""
    code, out, _ = run(capsys, "train", "--device", "digital", "--epochs", "1", *words.split())
    assert code == 0
    assert results(out)[1] == cycles


OWN_CURVES = (*presets.PRESETS, "soft_bounds_pmax")


@pytest.mark.parametrize("device", [name for name in DEVICES if name not in OWN_CURVES])
def test_every_model_learns(capsys: pytest.CaptureFixture[str], device: str) -> None:
    code, out, _ = run(
        capsys, "train", "--device", device, "--epochs", "1", "--batch-size", "8", "--lr", "0.05"
    )
    assert code == 0
    assert results(out)[0] > 70


@pytest.mark.parametrize("device", [*OWN_CURVES, "ReRam-ES", "SoftBounds"])
def test_devices_with_own_curves_train(capsys: pytest.CaptureFixture[str], device: str) -> None:
    """By any spelling; what a coarse, noisy or skewed device learns is another matter."""
    words = ["train", "--device", device, "--epochs", "1", "--batch-size", "8", "--samples", "64"]
    code, out, err = run(capsys, *words)
    assert code == 0, err
    assert results(out)[0] >= 0


def test_schedules_agree_where_they_must(capsys: pytest.CaptureFixture[str]) -> None:
    """One stage: asynchronous is sequential; one micro-batch per update: synchronous is too."""
    words = ["train", "--epochs", "1", "--batch-size", "16"]
    async_1 = results(run(capsys, *words, "--stages", "1")[1])[2]
    sequential = results(run(capsys, *words, "--schedule", "sequential")[1])[2]
    sync_1 = results(run(capsys, *words, "--schedule", "sync", "--micro-batches", "1")[1])[2]
    async_4 = results(run(capsys, *words)[1])[2]
    assert async_1 == sequential == sync_1
    assert async_4 != sequential


@pytest.mark.parametrize("seeds", [1, 2])
def test_demo_prints_the_table_and_writes_two_figures(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, seeds: int
) -> None:
    words = ["demo", "--epochs", "1", "--seeds", str(seeds), "--out", str(tmp_path)]
    code, out, err = run(capsys, *words)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    head = next(i for i, line in enumerate(lines) if line.startswith("schedule "))
    columns = ("test accuracy", "samples", "clock cycles", "computation density", "wall time")
    for column in (*columns, "speed-up over sequential"):
        assert column in lines[head]
    rows = {line.split("  ")[0]: line for line in lines[head + 2 : head + 8]}
    names = ["digital sequential", "analog sequential", "analog synchronous", "analog asynchronous"]
    names += ["20 states, SGD", "20 states, mixed precision"]
    assert list(rows) == names
    cycles = {}
    for name, row in rows.items():
        told = re.findall(rf"^{name}, seed \d: ([\d.]+) % in [\d.]+ s$", out, re.MULTILINE)
        right = [float(one) for one in told]
        assert len(right) == seeds
        found = re.search(r" ([\d.]+) %( \(([\d.]+)-([\d.]+)\))? +1,437 +([\d,]+) ", row)
        assert found, row
        assert abs(float(found[1]) - sum(right) / seeds) <= 0.1 + 1e-9  # two roundings to .1
        assert not found[2] if seeds == 1 else [float(found[3]), float(found[4])] == sorted(right)
        cycles[name] = int(found[5].replace(",", ""))
    assert cycles["digital sequential"] == cycles["analog sequential"] == 2 * 4 * SAMPLES
    assert cycles["analog synchronous"] == 179 * 2 * (4 + 7) + 2 * (4 + 4)
    assert cycles["analog asynchronous"] == 2 * (SAMPLES + 3)
    for file in ("accuracy.png", "schedules.png"):
        assert (tmp_path / file).stat().st_size > 1000
        assert str(tmp_path / file) in out


def test_curves_of_several_seeds_are_a_mean_in_a_band(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the lowest to the highest, from the start on; one seed has a line alone."""
    drawn: list[Any] = []
    figure = pytest.importorskip("matplotlib.figure").Figure
    monkeypatch.setattr(figure, "savefig", lambda self, *_, **__: drawn.append(self))
    runs = [
        Run([Epoch(10, 20, 50.0 + n, 1.0, 1.1), Epoch(20, 40, 90.0 + n, 0.5, 0.6)], start=10.0 - n)
        for n in (0, 2)
    ]
    accuracy_figure({"several": runs, "one": runs[:1]}, tmp_path / "accuracy.png")
    for axes, ends in zip(drawn[0].axes, ([0, 10, 20], [0, 20, 40]), strict=True):
        means = [line.get_ydata().tolist() for line in axes.lines]
        assert means == [[9.0, 51.0, 91.0], [10.0, 50.0, 90.0]]
        (band,) = axes.collections
        corners = {tuple(point) for point in band.get_paths()[0].vertices.tolist()}
        low, high = (8.0, 50.0, 90.0), (10.0, 52.0, 92.0)
        assert corners == {*zip(ends, low, strict=True), *zip(ends, high, strict=True)}


def test_info(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "info", "--json")
    assert code == 0
    facts = json.loads(out)
    assert {"version", "isa", "threads", "cuda", "cuda_reason"} <= facts.keys()
    code, out, _ = run(capsys, "info")
    assert code == 0
    for name in facts:
        assert f"{name}: " in out


def test_schedule(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "schedule", "--stages", "3", "--micro-batches", "4")
    assert code == 0
    assert "stage 3  .   .   F0  B0*" in out
    assert "12 clock cycles, computation density 0.667, speed-up 2.00" in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("fly", "invalid choice: 'fly'"),
        ("train --epochs 0", "--epochs: is '0'; use an integer >= 1"),
        ("train --epochs two", "--epochs: is 'two'; use an integer >= 1"),
        ("train --seed -1", "--seed: is '-1'; use an integer >= 0 and <= 4294967295"),
        (
            "train --seed 4294967296",
            "--seed: is '4294967296'; use an integer >= 0 and <= 4294967295",
        ),
        ("train --lr -0.1", "--lr: is '-0.1'; use a positive number"),
        ("train --lr nan", "--lr: is 'nan'; use a positive number"),
        ("train --batch-size 0", "--batch-size: is '0'; use an integer >= 1"),
        ("train --stages 5", "stages is 5, more than the 4 layers with parameters"),
        ("train --device wood", "device is 'wood'; use one of constant_step, "),
        ("train --schedule fast", "invalid choice: 'fast'"),
        ("train --data mnist", "train-images-idx3-ubyte is missing, with and without .gz; the"),
        ("train --set colour=red", "--set is 'colour=red'; use FIELD=VALUE, FIELD one of dw_min, "),
        ("train --set dw_min", "--set is 'dw_min'; use FIELD=VALUE"),
        ("train --set dw_min=0.1 dw_min=0.2", "--set gives dw_min twice; give it once"),
        ("train --set dw_min=small", "--set dw_min is 'small'; use a number"),
        ("train --set dw_min=-1", "SoftBounds: dw_min is -1.0; use a step > 0"),
        ("train --set batch=1.5", "--set batch is '1.5'; use an integer"),
        ("train --set dw_min_dtod_log_normal=maybe", "is 'maybe'; use yes or no"),
        ("train --device digital --set dw_min=1", "'digital', which has no settings; use another"),
        ("train --device digital --io out_res=64", "'digital', which has no settings; use another"),
        ("train --device ideal --set dw_min=1", "--set is 'dw_min=1'; use FIELD=VALUE"),
        ("train --io out_noise=-1", "ReadConfig: out_noise is -1.0; use a value >= 0"),
        ("train --hardware abacus", "hardware is 'abacus'; use one of pcm_14nm"),
        ("train --hardware no.toml", "no.toml cannot be read (No such file or directory); use"),
        ("hardware abacus", "hardware is 'abacus'; use one of pcm_14nm"),
        ("hardware --save mine.txt", "use a name that ends in .toml or .json"),
        ("train --colour red", "unrecognized arguments: --colour red"),
        (f"train --out {__file__}", "cannot be a directory"),
        (f"demo --out {__file__}/below", "cannot be a directory"),
        ("schedule --stages 0", "--stages: is '0'; use an integer >= 1"),
    ],
)
def test_bad_arguments_give_one_sentence_and_code_2(
    capsys: pytest.CaptureFixture[str], words: str, message: str
) -> None:
    code, out, err = run(capsys, *words.split())
    assert (code, out) == (2, "")
    assert err.startswith("pulseline: error: ")
    assert message in err
    assert err.count("\n") == 1


def test_a_diverging_run_says_where(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, "train", "--device", "digital", "--lr", "1e30")
    assert code == 1
    assert re.match(r"pulseline: error: stage \d failed at operation [FBU]\d+: ", err)
    assert err.count("\n") == 1


def test_a_missing_lab_package_says_what_to_install(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    code, _, err = run(capsys, "train", "--epochs", "1")
    assert code == 2
    assert "pip install 'pulseline[lab]'" in err
    assert err.count("\n") == 1


def test_module_runs_as_a_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pulseline", "train", "--epochs", "none"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_data_and_initial_weights() -> None:
    data = load_digits()
    assert data.x_train.shape == (SAMPLES, 64)
    assert data.x_test.shape == (360, 64)
    assert data.x_train.dtype is torch.float32
    assert (data.x_train.min(), data.x_train.max()) == (0, 1)
    model = mlp(0)
    weights = [p.detach() for p in model.parameters()]
    assert [tuple(w.shape) for w in weights] == [(128, 64), (128, 128), (64, 128), (10, 64)]
    for w in weights:
        # the estimate of a standard deviation from n normals scatters by 1/sqrt(2n): 5 sigma
        n = w.numel()
        assert abs(w.std().item() * w.shape[1] ** 0.5 / 2 - 1) < 5 / (2 * n) ** 0.5
    assert all(torch.equal(a, b) for a, b in zip(weights, mlp(0).parameters(), strict=True))


def test_asynchronous_keeps_accuracy_in_a_quarter_of_the_cycles() -> None:
    """The claim of the demo on its first three epochs (fixed seed, so no tolerance for luck)."""
    data = load_digits()
    runs = {}
    for schedule in ("sequential", "async"):
        pipe = pipeline(network("soft_bounds", 0), 4, schedule=schedule)
        runs[schedule] = train(pipe, data, Recipe(3))
    assert runs["sequential"].accuracy > 90
    assert abs(runs["async"].accuracy - runs["sequential"].accuracy) < 2
    assert runs["async"].cycles == 3 * 2 * (SAMPLES + 3)
    assert runs["sequential"].cycles == 3 * 2 * 4 * SAMPLES
    assert runs["async"].speedup == runs["sequential"].cycles / runs["async"].cycles

"""``pulseline train`` on files of data, models, run files, tables, TensorBoard."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from pulseline.cli.runfile import toml
from pulseline.errors import ConfigError
from pulseline.hardware import files
from test_cli import run
from test_data import REAL, write_cifar, write_idx
from test_models import FILE

SHORT = ("train", "--device", "digital", "--epochs", "2", "--batch-size", "2")


def digest(out: str) -> str:
    return next(line for line in out.splitlines() if line.startswith("digest: "))


@pytest.mark.parametrize("model", ["mlp", "lenet", "resnet", "file"])
@pytest.mark.parametrize("data", ["mnist", "cifar10", "digits"])
def test_images(capsys: pytest.CaptureFixture[str], tmp_path: Path, data: str, model: str) -> None:
    """Every network on every kind of images; analog where it is quick."""
    write_idx(tmp_path / "mnist", True)
    write_cifar(tmp_path / "cifar10", batches=1)
    words = ["--data", data, "--root", str(tmp_path), "--model", model, "--epochs", "1"]
    words += ["--samples", "3", "--test-samples", "2", "--batch-size", "1"]
    if model == "file":
        (tmp_path / "net.py").write_text(FILE)
        if data != "digits":
            pytest.skip("the file's class is made for digits")
        words[5] = f"{tmp_path / 'net.py'}:Net"
    code, out, err = run(capsys, "train", *words, "--device", "soft_bounds")
    assert code == 0, err
    assert "test accuracy: " in out
    assert out == run(capsys, "train", *words, "--executor", "threads")[1]


def test_text(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """The loss falls below that of counted bytes; the lines stand beside it."""
    (tmp_path / "own.txt").write_bytes(b"abcabcabd" * 400)
    words = ["--data", str(tmp_path / "own.txt"), "--context", "16", "--width", "16", "--heads"]
    words += ["2", "--layers", "1", "--lr", "0.3", "--lr-decay", "1", "--json"]
    code, out, err = run(capsys, *SHORT, *words)
    assert code == 0, err
    facts = json.loads(out)
    assert facts["options"]["model"] == "gpt"
    assert facts["test_loss"] < facts["epochs"][0]["test_loss"] < 3.0
    assert err.count("(unigram 1.") == 2
    code, out, _ = run(capsys, *SHORT, *words[:-1])
    assert f"test loss: {facts['test_loss']:.4f} nats per byte (unigram 1." in out


@pytest.mark.parametrize("end", ["toml", "json"])
def test_a_run_file_repeats_the_run(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, end: str
) -> None:
    """What --out leaves, or the same as JSON; what is given beside it counts."""
    words = ["train", "--samples", "40", "--epochs", "1", "--batch-size", "8", "--seed", "4"]
    words += ["--set", "up_down=0.3", "dw_min=0.002", "--io", "out_res=64", "--schedule", "sync"]
    code, out, err = run(capsys, *words, "--out", str(tmp_path))
    assert code == 0, err
    file = tmp_path / "run.toml"
    if end == "json":
        values = files.content(file)
        file = tmp_path / "run.json"
        file.write_text(json.dumps(values))
    again = run(capsys, "train", "--config", str(file))
    assert again[0] == 0, again[2]
    assert digest(again[1]) == digest(out)
    for more in (["--seed", "5"], ["--set", "up_down=0.2"], ["--io", "out_res=32"]):
        changed = run(capsys, "train", *more, "--config", str(file))[1]
        assert digest(changed) != digest(out)
        assert digest(changed) == digest(run(capsys, "train", f"--config={file}", *more)[1])


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('colour = "red"', "has 'colour'; use one of data, root, samples,"),
        ("epochs = 0", "--epochs: is '0'; use an integer >= 1"),
        ("resume = 1", "has resume = 1; use true or false"),
        ("set = 3", "has set = 3; use a table of settings"),
        ("epochs = [1, 2]", "has epochs = [1, 2]; use one number or one text"),
        ("epochs = ", "cannot be understood"),
        ('config = "other.toml"', "has 'config'; use one of"),
        ("lr = -1", "--lr: is '-1'; use a positive number"),
    ],
)
def test_wrong_run_files(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, text: str, told: str
) -> None:
    file = tmp_path / "run.toml"
    file.write_text(text)
    code, out, err = run(capsys, "train", "--config", str(file))
    assert (code, out) == (2, "")
    assert told in err
    assert err.count("\n") == 1
    code, _, err = run(capsys, "train", "--config", str(tmp_path / "none.toml"))
    assert (code, "none.toml cannot be read" in err) == (2, True)


def test_toml_is_read_as_it_was_written(tmp_path: Path) -> None:
    values: dict[str, Any] = {
        "text": 'a "quoted" \\ path\twith é and 🎲',
        "number": 1e-7,
        "whole": 3,
        "large": 1e22,
        "yes": True,
        "table": {"a": 0.5, "b": [1, 2]},
    }
    file = tmp_path / "a.toml"
    file.write_text(toml(values | {"none": None, "empty": {}}), encoding="utf-8")
    assert files.content(file) == values


def test_python_without_a_reader_of_toml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """3.10 without tomli: a sentence with the way out."""
    (tmp_path / "a.toml").write_text("a = 1")
    monkeypatch.setitem(sys.modules, "tomllib", None)
    monkeypatch.setitem(sys.modules, "tomli", None)
    with pytest.raises(ConfigError, match=r"needs Python 3.11 or the package tomli; use a \.json"):
        files.content(tmp_path / "a.toml")


def test_tables(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """A row per epoch; after a resumption those before it too."""
    words = [*SHORT, "--samples", "20", "--checkpoint", str(tmp_path / "ck")]
    one, other = tmp_path / "a.csv", tmp_path / "b.csv"
    code, out, err = run(capsys, *words, "--csv", str(one))
    assert code == 0, err
    with one.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["epoch"], row["samples"]) for row in rows] == [("1", "20"), ("2", "40")]
    assert f"test accuracy: {sum(float(row['accuracy']) for row in rows) / 2:.2f} %" in out
    words[4] = "3"
    code, _, err = run(capsys, *words, "--resume", "--csv", str(other))
    assert code == 0, err
    assert other.read_text().startswith(one.read_text())
    assert len(other.read_text().splitlines()) == 4


def test_tensorboard(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    words = [*SHORT, "--samples", "20", "--json", "--tensorboard", str(tmp_path / "tb")]
    code, out, err = run(capsys, *words)
    assert code == 0, err
    found = reader.EventAccumulator(str(tmp_path / "tb"))
    found.Reload()
    for name in ("loss", "test_loss", "accuracy", "cycles"):
        points = [(event.step, event.value) for event in found.Scalars(name)]
        want = [(epoch["samples"], epoch[name]) for epoch in json.loads(out)["epochs"]]
        assert points == [(step, pytest.approx(value, rel=1e-6)) for step, value in want]


def test_tensorboard_that_is_missing(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything is trained."""
    for name in [one for one in sys.modules if one.startswith(("tensorboard", "torch.utils.tens"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    code, out, err = run(capsys, *SHORT, "--tensorboard", str(tmp_path))
    assert (code, out) == (2, "")
    told = "pulseline: error: tensorboard is missing: pip install 'pulseline[tensorboard]'\n"
    assert err.splitlines(keepends=True)[-1] == told
    assert "epoch" not in err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("--data mnist --root nowhere", "nowhere/mnist/train-images-idx3-ubyte is missing, with"),
        ("--data nothing", "data is 'nothing'; use one of digits, mnist, fashion-mnist, cifar10"),
        ("--model vgg", "model is 'vgg'; use one of mlp, lenet, resnet, gpt, or FILE.py:Class"),
        ("--model gpt", "model is 'gpt' for images; use mlp, lenet or resnet"),
        ("--model net.py:Net", "model is 'net.py:Net' and there is no file net.py; use FILE.py:Cl"),
        ("--layers 3", "layers is 3 for mlp, which has none; leave it out"),
        ("--samples 1438", "samples is 1438; use at most the 1437 training images"),
        ("--csv /dev/null/a.csv", "--csv /dev/null cannot be a directory"),
    ],
)
def test_wrong_words(capsys: pytest.CaptureFixture[str], words: str, told: str) -> None:
    code, out, err = run(capsys, "train", *words.split())
    assert (code, out) == (2, "")
    assert told in err
    assert err.count("\n") == 1


def test_the_real_mnist(capsys: pytest.CaptureFixture[str]) -> None:
    if not (REAL / "mnist").is_dir():
        pytest.skip("no MNIST at hand (PULSELINE_DATA names the directory of the data)")
    words = ["train", "--data", "mnist", "--root", str(REAL), "--epochs", "1", "--batch-size", "8"]
    words += ["--samples", "4000", "--test-samples", "1000", "--lr", "0.05"]
    code, out, err = run(capsys, *words)
    assert code == 0, err
    assert float(out.split()[2]) > 75


def test_algorithms(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """By name, with settings; run files repeat them; the report says what they moved."""
    words = ["train", "--epochs", "1", "--samples", "64", "--schedule", "sequential"]
    words += ["--algorithm", "agad", "--rule", "chop=0.2", "every=2", "regular_chop=no"]
    code, out, err = run(capsys, *words, "--out", str(tmp_path))
    assert code == 0, err
    assert "transfers: " in err
    options = json.loads((tmp_path / "result.json").read_text())["options"]
    assert options["algorithm"] == "agad"
    assert options["rule"] == {"chop": 0.2, "every": 2, "regular_chop": False}
    again = run(capsys, "train", "--config", str(tmp_path / "run.toml"))
    assert digest(again[1]) == digest(out)
    assert digest(run(capsys, *words[:-4], "--algorithm", "agad")[1]) != digest(out)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("--algorithm adam", "algorithm is 'adam'; use sgd or one of ttv1, ttv2"),
        ("--rule every=2", "--rule is 'every=2' of sgd, which has no settings; add --algorithm"),
        ("--algorithm ttv2 --rule foo=1", "--rule is 'foo=1'; use FIELD=VALUE, FIELD one of every"),
        ("--algorithm ttv2 --rule every=0", "TikiTaka2: every is 0; use a whole number >= 1"),
        ("--algorithm ttv2 --device digital", "which has no crossbars; leave it out"),
    ],
)
def test_algorithms_that_are_none(
    capsys: pytest.CaptureFixture[str], words: str, told: str
) -> None:
    code, _, err = run(capsys, *SHORT[:1], *words.split(), "--epochs", "1", "--samples", "8")
    assert code == 2
    assert told in err

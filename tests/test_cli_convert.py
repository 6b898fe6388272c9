"""``pulseline convert``, and dry runs on torch's meta device: memory told before it is taken."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import pulseline as pl
from pulseline.nn import conversion, to_analog
from test_cli import run

SOURCE = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.emb, self.lstm = nn.Embedding(10, 8), nn.LSTM(8, 16)
        self.head = nn.Linear(16, 4)


def grown(): return nn.Sequential(*(nn.Linear(4096, 4096) for _ in range(64)))
def broken(): raise ValueError("no")
def number(): return 3
class Sized(nn.Module):
    def __init__(self, n): super().__init__()
ready = nn.Linear(3, 3)
"""


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "nets.py"
    path.write_text(SOURCE)
    return str(path)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.emb = nn.Embedding(10, 8)
        self.enc = nn.TransformerEncoderLayer(8, 2, 12, batch_first=True)
        self.conv, self.lstm = nn.Conv2d(3, 4, 3), nn.LSTM(8, 6, bidirectional=True)
        self.head = nn.Linear(8, 3)


@pytest.mark.parametrize("device", ["soft_bounds", "reram_es", "exp_step", "ideal", "capacitor"])
@pytest.mark.parametrize("options", [{}, {"exclude": "enc"}, {"include": nn.LSTM}])
def test_a_dry_run_without_memory_is_that_of_the_model(device: str, options: Any) -> None:
    """But for what is clipped and scaled, of which the meta device knows nothing."""
    with torch.device("meta"):
        model = Net()
    dry = to_analog(model, device, dry_run=True, seed=3, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        real = to_analog(Net(), device, seed=3, **options)
    for one, other in zip(dry.layers, conversion(real).layers, strict=True):
        assert one == pl.nn.LayerReport(
            **{**vars(other), "out_scale": 1.0, "clipping": pl.nn.Clipping()}
        )
    assert all(p.is_meta for p in model.parameters())
    assert dry.warnings() == [s for s in conversion(real).warnings() if "clipped" not in s]


def test_told_memory_is_what_the_process_takes() -> None:
    """Within 2 %, of 67 MB; torch's allocator is kept from pooling by its threshold."""
    script = """
        import torch, warnings
        from torch import nn
        import pulseline as pl
        def taken():
            return int(open("/proc/self/statm").read().split()[1]) * 4096
        warnings.simplefilter("ignore")
        torch.set_num_threads(1)
        pl.to_analog(nn.Sequential(nn.Linear(256, 256)), "soft_bounds")
        with torch.device("meta"):
            told = pl.to_analog(nn.Linear(2048, 2048, bias=False), "soft_bounds", dry_run=True)
        digital = nn.Linear(2048, 2048, bias=False)
        before = taken()
        analog = pl.to_analog(digital, "soft_bounds")
        print((taken() - before) / told.layers[0].bytes)
    """
    if not Path("/proc/self/statm").exists():
        pytest.skip("no /proc on this system")
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"},
    )
    assert float(done.stdout) == pytest.approx(1.0, abs=0.02)


def test_the_table(file: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, dry, _ = run(capsys, "convert", f"{file}:Net", "--dry-run", "--device", "ecram")
    assert code == 0
    assert "lstm" in dry
    assert "a table, no product" in dry
    state = tmp_path / "net.pt"
    code, out, _ = run(capsys, "convert", f"{file}:Net", "--device", "ecram", "--out", str(state))
    assert code == 0
    lines = [line.partition("  scaled")[0] for line in out.splitlines()]
    assert [line.split()[:4] for line in lines[:4]] == [
        line.split()[:4] for line in dry.splitlines()[:4]
    ]
    assert lines[-1] == f"wrote {state}"
    assert "lstm.hh_l0.cell._extra_state" in torch.load(state, weights_only=True)


def test_sixteen_gigabytes_are_told_without_taking_them(
    file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = run(capsys, "convert", f"{file}:grown", "--dry-run")
    assert code == 0
    assert "64 of 64 matrices analog" in out
    assert int(out.splitlines()[-1].split()[-2].replace(",", "")) > 4 * 64 * 4096**2


def test_memory_of_an_algorithm(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What a model of these settings takes: arrays, buffers and the fast device's parameters."""
    words = ("--algorithm", "agad", "--rule", "every=3", "--fast-device", "exp_step")
    code, out, _ = run(capsys, "convert", f"{file}:ready", "--dry-run", *words)
    assert code == 0
    rule = pl.algorithms.AGAD(every=3)
    made = to_analog(nn.Linear(3, 3), "soft_bounds", algorithm=rule, fast_device="exp_step", seed=0)
    assert str(conversion(made)).splitlines()[-1] == out.splitlines()[-1]
    code, _, err = run(capsys, "convert", f"{file}:ready", "--dry-run", "--rule", "every=3")
    assert code == 2
    assert "--rule is 'every=3' of sgd, which has no settings; add --algorithm" in err


def test_include_exclude_and_a_ready_module(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "convert", f"{file}:Net", "--dry-run", "--exclude", "head")
    assert code == 0
    assert "excluded by 'head'" in out
    code, out, _ = run(capsys, "convert", f"{file}:ready", "--tile", "2", "--omega", "none")
    assert code == 0
    assert out.splitlines()[1].split()[7] == "4"  # tiles


BAD = {
    "no name": ("", "use FILE.py:NAME"),
    "unknown": (":Nat", "has no Nat; it has"),
    "needs arguments": (":Sized", "cannot be made without arguments"),
    "fails": (":broken", "cannot be made without arguments .ValueError: no"),
    "no module": (":number", "makes a int; name what makes a torch module"),
}


@pytest.mark.parametrize(("name", "words"), BAD.values(), ids=BAD.keys())
def test_bad_models(name: str, words: str, file: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, "convert", f"{file}{name}", "--dry-run")
    assert code == 2
    assert words.replace(" .", " (") in err or words in err
    assert err.count("\n") == 1


def test_bad_files(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert "there is no file" in run(capsys, "convert", str(tmp_path / "no.py:Net"))[2]
    bad = tmp_path / "bad.py"
    bad.write_text("1 / 0")
    assert "cannot be run (ZeroDivisionError" in run(capsys, "convert", f"{bad}:Net")[2]
    bad.write_text("from torch import nn\nNet = nn.Tanh")
    code, _, err = run(capsys, "convert", f"{bad}:Net", "--dry-run", "--out", "x.pt")
    assert code == 2
    assert "--dry-run, which makes nothing" in err

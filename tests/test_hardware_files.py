"""Hardware files: what is written is read back, what is missing or wrong is one sentence."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from pulseline.errors import ConfigError
from pulseline.hardware import PRESETS, find, read, save
from test_cli import run

ENDINGS = (".json", ".toml")
needs_toml = pytest.mark.skipif(sys.version_info < (3, 11), reason="TOML is in Python 3.11")


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("ending", [".json", pytest.param(".toml", marks=needs_toml)])
def test_what_is_saved_is_read_back(name: str, ending: str, tmp_path: Path) -> None:
    for hardware in (PRESETS[name], replace(PRESETS[name], sources=())):
        path = tmp_path / f"mine{ending}"
        save(hardware, path)
        assert find(str(path)) == hardware


@needs_toml
def test_a_base_and_what_differs(tmp_path: Path) -> None:
    """A number of one's own loses the source of the base's."""
    path = tmp_path / "mine.toml"
    path.write_text(
        'name = "mine"\nbase = "pcm_14nm"\nt_conv_ns = 10\nt_pulse_ns = 2.5\n'
        '[sources]\nt_pulse_ns = "abs: table 2: pulses"\n'
    )
    found, base = read(path), PRESETS["pcm_14nm"]
    assert found.numbers == base.numbers | {"t_conv_ns": 10, "t_pulse_ns": 2.5}
    assert dict(found.sources)["t_pulse_ns"].text == "table 2: pulses"
    assert set(found.unverified) == {*base.unverified, "t_conv_ns"} - {"t_pulse_ns"}


GOOD = {"name": "mine", "base": "reram_32nm"}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"name": "mine"}, 'has no tile_rows; add it, or base = "NAME" of a preset'),
        ([], "is a list; use names with values"),
        (GOOD | {"base": "abacus"}, "base is 'abacus'; use one of pcm_14nm"),
        (GOOD | {"colour": 1}, "has 'colour'; use base, sources, name, tile_rows"),
        (GOOD | {"bl": 1.5}, "bl is 1.5; use an integer"),
        (GOOD | {"mac_fj": "much"}, "mac_fj is 'much'; use a number"),
        (GOOD | {"mac_fj": True}, "mac_fj is True; use a number"),
        (GOOD | {"mac_fj": -1}, "mac_fj of mine is -1; use a number >= 0"),
        (GOOD | {"sources": 3}, "sources is 3; use a text for each number"),
        (GOOD | {"sources": {"mac_fj": "rumour: x"}}, 'use NUMBER = "KIND: REFERENCE"'),
        (GOOD | {"sources": {"mac": "abs: x"}}, 'use NUMBER = "KIND: REFERENCE"'),
    ],
)
def test_bad_files(values: object, message: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(values))
    with pytest.raises(ConfigError) as refusal:
        read(path)
    assert message in str(refusal.value)
    assert str(path) in str(refusal.value)


@pytest.mark.parametrize("ending", [".json", pytest.param(".toml", marks=needs_toml)])
def test_what_is_no_file_of_its_kind(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"mine{ending}"
    for content in (b"{[", b"\xff\xfe"):
        path.write_bytes(content)
        with pytest.raises(ConfigError, match="cannot be understood"):
            read(path)
    with pytest.raises(ConfigError, match="cannot be read"):
        read(tmp_path / f"none{ending}")
    with pytest.raises(ConfigError, match="cannot be written"):
        save(PRESETS["pcm_14nm"], tmp_path / "none" / f"mine{ending}")


def test_the_command(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for name, hardware in PRESETS.items():
        assert run(capsys, "hardware", name) == (0, hardware.table() + "\n", "")
        assert f"{name} " in run(capsys, "hardware")[1]
        facts = json.loads(run(capsys, "hardware", name, "--json")[1])
        assert facts["numbers"] == hardware.numbers
        assert facts["unverified"] == list(hardware.unverified)
    path = tmp_path / "mine.json"
    code, out, err = run(capsys, "hardware", "reram_32nm", "--save", str(path))
    assert (code, err) == (0, "")
    assert out.endswith(f"wrote {path}\n")
    path.write_text(path.read_text().replace('"reram_32nm"', '"mine"'))
    words = [
        "train",
        "--device",
        "digital",
        "--epochs",
        "1",
        "--samples",
        "64",
        "--batch-size",
        "8",
        "--hardware",
    ]
    code, out, err = run(capsys, *words, str(path))
    assert code == 0
    assert "modelled on mine (asynchronous, 64 samples)" in err
    assert "unverified numbers: line_fj" in err

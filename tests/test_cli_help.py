"""What the command line says of itself: every option with meaning, unit and default."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import pulseline
from pulseline import presets
from pulseline.cli.main import build_parser
from pulseline.cli.remedies import remedies
from pulseline.devices import Ideal
from test_cli import results, run

# What a number counts or is measured in.
UNITS = (
    *("epochs", "samples", "images", "stages", "micro-batch", "products", "seeds", "processes"),
    *("pulses", "devices", "crosspoints", "columns", "rows", " ns ", "ns per", "weight per unit"),
    *("of weights, devices", "of data order", "of the simulated devices", "of matrix, inputs"),
)


def commands() -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Every command by name, and the top."""

    def below(name: str, parser: argparse.ArgumentParser) -> Iterator[tuple[str, object]]:
        yield name, parser
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                for word, one in action.choices.items():
                    yield from below(f"{name} {word}", one)

    return below("pulseline", build_parser())  # type: ignore[return-value]


COMMANDS = dict(commands())
OPTIONS = [
    pytest.param(parser, action, id=f"{name} {'/'.join(action.option_strings) or action.dest}")
    for name, parser in COMMANDS.items()
    for action in parser._actions
    if not isinstance(action, (argparse._HelpAction, argparse._SubParsersAction))
]


def shown(parser: argparse.ArgumentParser, action: argparse.Action) -> str:
    """What the help prints of an option."""
    formatter = parser._get_formatter()
    return " ".join((formatter._expand_help(action) if action.help else "").split())


@pytest.mark.parametrize(("parser", "action"), OPTIONS)
def test_every_option_says_what_it_is(
    parser: argparse.ArgumentParser, action: argparse.Action
) -> None:
    text = shown(parser, action)
    assert len(re.sub(r"\(.*?\)", "", text).split()) >= 1, "no meaning"
    takes = bool(action.option_strings) and action.nargs != 0
    if takes:
        assert re.search(r"\((default: .+|required)\)", text), "no default"
        assert "None" not in text
        assert action.metavar or action.choices, "no name for its value"
    default = action.default
    number = isinstance(default, (int, float)) and not isinstance(default, bool)
    if takes and (number or action.metavar in ("N", "M", "B", "K", "S", "NS", "RATE")):
        assert any(unit in f"{text} " for unit in UNITS), f"no unit in {text!r}"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_and_examples(
    capsys: pytest.CaptureFixture[str],
    name: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.toml").write_text("epochs = 2")  # which an example takes
    words = name.split()[1:]
    code, out, err = run(capsys, *words, "--help")
    assert (code, err) == (0, "")
    assert all(len(line) <= 100 for line in out.splitlines())
    if words:
        examples = out.partition("\nexamples:\n")[2].splitlines()
        assert examples
        mine = [line.partition("#")[0].split() for line in examples]
        assert any(word[:2] == ["pulseline", words[0]] for word in mine)
        for line in mine:  # every example parses
            if line[:1] == ["pulseline"]:
                build_parser().parse_args(line[1:])


def test_alone_it_helps(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys)
    assert (code, err) == (0, "")
    assert out == run(capsys, "--help")[1]
    for name in COMMANDS:
        assert name.split()[-1] in out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "--version") == (0, f"pulseline {pulseline.__version__}\n", "")


def test_settings_change_the_run(capsys: pytest.CaptureFixture[str]) -> None:
    """A setting equal to what is there changes no bit, another one does; --io likewise."""
    words = ["train", "--epochs", "1", "--batch-size", "16", "--samples", "160"]
    plain = results(run(capsys, *words)[1])
    assert results(run(capsys, *words, "--set", "dw_min=0.001", "w_max=1")[1]) == plain
    assert results(run(capsys, *words, "--io", "out_noise=0.06")[1]) == plain
    assert results(run(capsys, *words, "--set", "up_down=0.3")[1])[2] != plain[2]
    assert results(run(capsys, *words, "--io", "out_res=64")[1])[2] != plain[2]


def test_json_is_what_is_printed(capsys: pytest.CaptureFixture[str], tmp_path: object) -> None:
    words = f"train --epochs 1 --batch-size 16 --samples 160 --out {tmp_path} --set".split()
    words += ["up_down=0.3", "--io", "out_res=64"]
    right, cycles, digest = results(run(capsys, *words)[1])
    code, out, _ = run(capsys, *words, "--json")
    facts = json.loads(out)
    assert code == 0
    assert facts["digest"] == digest
    assert facts["clock_cycles"] == cycles
    assert round(facts["accuracy_percent"], 2) == right
    assert (facts["options"]["set"], facts["options"]["io"]) == ({"up_down": 0.3}, {"out_res": 64})
    for command in ("info", "hardware", "hardware rpu_4096", "schedule", "schedule --table"):
        assert json.loads(run(capsys, *command.split(), "--json")[1])
    words = f"device ecram --pulses 5 --devices 2 --set dw_min=0.01 --out {tmp_path}/a.png".split()
    facts = json.loads(run(capsys, *words, "--json")[1])
    assert (facts["model"], facts["device"]["dw_min"], facts["pulses"]) == ("LinearStep", 0.01, 5)
    words = f"read --inputs 8 --outputs 8 --samples 2 --out {tmp_path}/b.png --json".split()
    assert json.loads(run(capsys, *words)[1])["rms"] > 0


def test_an_epoch_is_a_line_that_stays(capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "train",
        "--device",
        "digital",
        "--epochs",
        "3",
        "--samples",
        "64",
        "--batch-size",
        "8",
    ]
    lines = run(capsys, *words)[2].splitlines()
    pattern = (
        r"epoch (\d) of 3: loss \d\.\d{4}, test accuracy [\d.]+ %, (\d+) samples, "
        r"(\d+) clock cycles, [\d.]+ s"
    )
    found = [re.fullmatch(pattern, line) for line in lines[:3]]
    assert [one and tuple(map(int, one.groups())) for one in found] == [
        (n, 64 * n, n * 2 * (8 + 3)) for n in (1, 2, 3)
    ]


@pytest.mark.parametrize(
    ("device", "options"),
    [
        ("reram_es", ["write_noise_std=0", "dw_min_std=0.3", "--lr 0.03"]),
        ("reram_sb", ["write_noise_std=0", "dw_min_std=0.3"]),
        ("reram_array_om", ["dw_min=0.001", "write_noise_std=0"]),
        ("reram_array_hfo2", ["dw_min=0.001", "write_noise_std=0"]),
    ],
)
def test_low_accuracy_says_what_to_change(device: str, options: list[str]) -> None:
    text = remedies(presets.find(device), 0.01, 17.0)
    assert text.startswith("test accuracy of 17 % is low (chance: 10 %)")
    for option in options:
        assert option in text


def test_a_good_device_is_not_blamed() -> None:
    assert "--set" not in remedies(presets.GokmenVlasov, 0.01, 17.0)
    assert remedies(Ideal(), 0.01, 17.0).endswith("which it is: lr 0.01 (--lr 0.03 or 0.00333)")


def test_the_advice_helps(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", "--device", "reram_array_om", "--epochs", "1"]
    code, out, err = run(capsys, *words)
    assert code == 0
    assert results(out)[0] < 30
    assert "--set dw_min=0.001" in err
    code, out, err = run(capsys, *words, "--set", "dw_min=0.001")
    assert results(out)[0] > 60
    assert "is low" not in err


def test_a_wide_schedule_is_cut(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["schedule", "--stages", "40", "--micro-batches", "1000"]
    out = run(capsys, *words)[1]
    assert len(out) < 10_000
    assert ".. the first 32 of 2078 clock cycles and 32 of 40 stages; --all prints the rest" in out
    everything = run(capsys, *words, "--all")[1]
    assert ".. the first" not in everything
    assert [line[:200] for line in out.splitlines()[1:30]] == [
        line.rstrip()[: len(short)]
        for line, short in zip(everything.splitlines()[1:30], out.splitlines()[1:30], strict=True)
    ]


def test_crowded_cores_are_mentioned(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.getloadavg", lambda: (0.1, 0.1, 0.1))
    monkeypatch.setattr("pulseline.ops.info", lambda: {"threads": 1})
    assert json.loads(run(capsys, "info", "--json")[1])["advice"] == ""
    monkeypatch.setattr("os.getloadavg", lambda: (5000.0, 0.1, 0.1))
    assert "5000.0 threads want to run on" in run(capsys, "info")[1]
    monkeypatch.setattr("pulseline.ops.info", lambda: {"threads": 4096})
    assert "4096 threads on " in run(capsys, "info")[1]
    assert "OMP_NUM_THREADS=1" in run(capsys, "info")[1]

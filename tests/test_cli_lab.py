"""``pulseline lab``: own seeds and settings, formats, estimated times, a line per run."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from pulseline.cli.lab import _asked
from pulseline.cli.main import build_parser
from pulseline.errors import ConfigError
from pulseline.lab import experiments
from pulseline.lab.engine import Summary, run_of
from pulseline.lab.experiments import EXPERIMENTS, QUICK, left, perform, seconds
from test_cli import run
from test_lab import Counting, Grouped, nothing_ran  # noqa: F401  # a fixture


def test_own_seeds(tmp_path: Path) -> None:
    one = Counting().with_seeds([101, 7])
    assert left(one, tmp_path) == 2
    perform([one], tmp_path)
    assert sorted(Counting.ran) == [7, 101]
    assert left(one, tmp_path) == 0
    assert "Seeds: 101, 7. " in (tmp_path / "counting.md").read_text()
    facts = json.loads((tmp_path / "counting.machine.json").read_text())
    assert Counting().with_seeds(facts["seeds"]) == one
    perform([Counting().with_seeds([7])], tmp_path)
    assert len(Counting.ran) == 2  # one file per seed: no seed is computed again
    with pytest.raises(ConfigError, match="seeds is empty; give one at least"):
        Counting().with_seeds([])


def test_groups_of_own_seeds_have_files_of_their_own(tmp_path: Path) -> None:
    one = Grouped()
    paths = {run_of(one, seeds, tmp_path).path for seeds in ((1, 3), (1, 2, 3), (3, 1), (1,))}
    assert len(paths) == 4
    assert run_of(one, (1, 2, 3), tmp_path).path == run_of(one, range(1, 4), tmp_path).path


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cheap experiment as one of the lab's."""
    monkeypatch.setitem(EXPERIMENTS, "counting", Counting())
    monkeypatch.setitem(QUICK, "counting", Counting(seeds=1))
    monkeypatch.setitem(experiments._MEASURED, "counting", (60.0, 600.0))


@pytest.mark.usefixtures("counting")
@pytest.mark.parametrize("picture", ["pdf", "svg"])
def test_the_command(capsys: pytest.CaptureFixture[str], tmp_path: Path, picture: str) -> None:
    words = f"lab counting --out {tmp_path} --jobs 1 --set rows=4 --format {picture}".split()
    code, out, err = run(capsys, *words, "--seed-list", "5,3")
    assert code == 0
    assert Counting.ran == [3, 5]
    assert err.splitlines() == [
        "counting: 2 runs to compute, about 27 min on 1 core",  # 2 x 10 min x 4 rows / 3
        "counting seed 3: run 1 of 2 done after 0 s",
        "counting seed 5: run 2 of 2 done after 0 s",
    ]
    assert f"counting.{picture}" in out
    assert (tmp_path / f"counting.{picture}").stat().st_size > 500
    page = (tmp_path / "counting.md").read_text()
    assert f"![counting](counting.{picture})" in page
    asked = f"pulseline lab counting --out DIR --seed-list 5,3 --set rows=4 --format {picture}"
    assert f"```\n{asked}\n```" in page
    assert "Settings: rows 4, " in page
    assert run(capsys, *words, "--seed-list", "5,3")[2] == ""


class Narrow(Counting):
    """Its claims need a fourth row."""

    def summarise(self, rows: list) -> Summary:  # type: ignore[type-arg]
        rows[0]["absent"]
        return super().summarise(rows)


@pytest.mark.usefixtures("counting")
def test_settings_that_leave_nothing_to_judge(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(EXPERIMENTS, "counting", Narrow())
    words = f"lab counting --out {tmp_path} --jobs 1".split()
    code, _, err = run(capsys, *words, "--set", "rows=1")
    assert code == 2
    assert "the claims of counting cannot be judged with --set rows=1 (KeyError: 'absent')" in err
    assert (tmp_path / "counting.csv").exists()
    with pytest.raises(KeyError):  # without a setting it is an error of ours
        run(capsys, *words)


def test_settings_reach_the_source() -> None:
    words = ["lab", "speedup", "--out", "o", "--set", "stages=4", "fewer=", "steps_of_a=0.01,.02"]
    (one,) = _asked(build_parser().parse_args([*words, "--seed-list", "3"]))
    plain = EXPERIMENTS["speedup"].source
    changed = replace(plain, stages=4, fewer=(), steps_of_a=(0.01, 0.02), seeds=(3,))  # type: ignore[type-var]
    assert one.source == changed


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("all --set stages=1", "--set comes with all; name the experiment whose settings they"),
        ("speedup --stages 16", "arguments: --stages 16; --help lists the options, --set takes"),
        ("speedup --set stages=16", "stages holds 16; use 1 to 8, the layers there are"),
        ("accuracy --set fewer=1,2,16", "stages holds 16; use 1 to 8, the layers there are"),
        ("cliff --set stages=2,4", "stages is (2, 4); add 1, with which others are compared"),
        ("staleness --set stages=2,9", "stages is (2, 9); use 1 to 8, the layers"),
        ("accuracy --set colours=3", "--set is 'colours=3'; use FIELD=VALUE, FIELD one of stages"),
        ("accuracy --set seeds=3", "--set is 'seeds=3'; use FIELD=VALUE, FIELD one of stages"),
        ("cliff --set epochs=1.5", "--set epochs is '1.5'; use an integer"),
        ("cliff --set stages=1,x", "--set stages is 'x'; use an integer"),
        ("cliff --set steps_of_a=-1", "steps_of_a of Cliff holds -1.0; use numbers >= 0"),
        ("cliff --set small=nan", "small of Cliff holds nan; use numbers >= 0"),
        ("cliff --seed-list 1,1", "--seed-list: is '1,1'; give every seed once"),
        ("cliff --seed-list 1,,2", "--seed-list: is ''; use an integer >= 0"),
        ("cliff --seed-list 1 --seeds 2", "--seeds: not allowed with argument --seed-list"),
        ("cliff --format gif", "invalid choice: 'gif'"),
    ],
)
def test_refusals(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, words: str, message: str
) -> None:
    code, out, err = run(capsys, "lab", *words.split(), "--out", str(tmp_path / "new"))
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1
    assert not (tmp_path / "new").exists()


def test_every_experiment_was_timed(capsys: pytest.CaptureFixture[str]) -> None:
    for quick, all_of_them in ((True, QUICK), (False, EXPERIMENTS)):
        assert all(seconds(one, quick) > 0 for one in all_of_them.values())
    out = run(capsys, "lab", "--help")[1]
    for name in EXPERIMENTS:
        assert any(line.split()[:1] == [name] and "quick" in line for line in out.splitlines())

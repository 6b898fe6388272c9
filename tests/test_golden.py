"""Bits that stay: every run of ``golden.json`` again, and that the runs touch all there is.

Equality, no tolerance. A test that fails here names the runs; if bits were meant to change, then
``golden.py`` says how the file is replaced, and its reason belongs into CHANGELOG.md.
"""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import fields
from pathlib import Path

import pytest

import golden
import golden_cases
import pulseline as pl
from conftest import Kernels
from pulseline.settings import saved_fields

ADVICE = (
    "bits of results have changed: undo that, or, if it was meant, say why in CHANGELOG.md and in "
    "`python tests/golden.py --write --reason`"
)
EVERY = 47  # run of a kernel that this machine would not choose
AGEING = {"reset_std"}  # of a reset, which no run asks for


def named(found: list[tuple[str, str]], of: int) -> str:
    """What differs, the first five of it."""
    lines = [f"{what}: {run}" for run, what in found[:5]]
    return "\n".join([f"{len(found)} of {of} runs differ, {ADVICE}", *lines])


def test_bits() -> None:
    if not golden.fused():
        pytest.skip("the file holds the bits of reads that sum by fma; baseline sums without it")
    runs, _ = golden.load()
    found = list(golden.differing(runs))
    assert not found, named(found, len(runs))
    assert {*runs} == {str(case) for case in golden_cases.cases()}


def test_bits_of_other_kernels(kernels: Kernels) -> None:
    """A part of the runs, by another executor; all of both: ``tests/golden.py --everywhere``."""
    if not kernels.fused:
        pytest.skip(
            "this machine has no kernels that sum by fma; those of baseline have other bits"
        )
    runs, _ = golden.load()
    for isa in kernels.fused:
        kernels.use(isa)
        found = list(golden.differing(runs, "threads", every=EVERY))
        assert not found, f"{isa}: {named(found, len(golden_cases.cases()[::EVERY]))}"


def test_bits_on_two_threads(kernels: Kernels) -> None:
    if not kernels.fused:
        pytest.skip(
            "this machine has no kernels that sum by fma; those of baseline have other bits"
        )
    runs, _ = golden.load()
    kernels.use(kernels.fused[0], threads=2)
    found = list(golden.differing(runs, every=EVERY))
    assert not found, named(found, len(golden_cases.cases()[::EVERY]))


def test_every_pair_occurs() -> None:
    cases = golden_cases.grid()
    for a, b in itertools.combinations(range(len(golden_cases.Case._fields)), 2):
        pairs = Counter((case[a], case[b]) for case in cases)
        levels = [{case[n] for case in cases} for n in (a, b)]
        assert len(pairs) == len(levels[0]) * len(levels[1])


def test_every_model_and_setting_is_touched() -> None:
    devices = list(golden_cases.devices().values())
    # A model that is not recorded has its equalities and closed form; nothing changes unseen.
    assert {device.name for device in devices} <= {"Ideal", *pl.devices.DEVICES}
    for device in devices:
        same = [d for d in devices if type(d) is type(device)]
        for field in {f.name for f in fields(device)} - AGEING:
            values = [getattr(one, field) for one in same]
            assert any(values) or any(getattr(d, field, 0) for d in devices), f"{device}: {field}"
    reads, maps = zip(*golden_cases.reads().values(), strict=True)
    groups = [maps, golden_cases.updates().values(), [r.forward for r in reads]]
    groups.append([r.backward for r in reads])
    for group in groups:
        settings = list(group)
        for field in saved_fields(settings[0]):  # what is no physics has no bits
            found = {getattr(one, field.name) for one in settings}
            backward = group is groups[-1] and field.name == "bound_management"  # never repeats
            assert len(found) > 1 or backward, f"{type(settings[0]).__name__}: {field.name}"


def test_runs_differ() -> None:
    """Two runs with equal bits would be one; the ideal device knows no fidelity."""
    runs, _ = golden.load()
    count = Counter(hashes[0] for name, hashes in runs.items() if not name.startswith("Ideal"))
    assert set(count.values()) == {1}
    for case in golden_cases.cases():
        written = "written" in case.device and case.update != "expected"  # which has no noise
        hashes = runs[str(case)]
        assert len({*hashes}) == 1 + written, case


def test_changelog_gives_the_reasons() -> None:
    words = " ".join((Path(__file__).parents[1] / "CHANGELOG.md").read_text().split())
    _, history = golden.load()
    assert history
    for reason in history:
        assert reason in words, f"CHANGELOG.md does not say why golden bits changed: {reason}"


def test_the_file_is_not_overwritten_without_a_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    some = golden_cases.cases()[:3]
    monkeypatch.setattr(golden, "FILE", tmp_path / "golden.json")
    monkeypatch.setattr(golden, "cases", lambda: some[:2])
    with pytest.raises(SystemExit, match="say with --reason what the first one holds"):
        golden.write(None)
    golden.write("the first")
    first = golden.load()
    monkeypatch.setattr(golden, "cases", lambda: some)
    golden.write(None)  # one more run changes none
    runs, history = golden.load()
    assert history == ["the first"]
    assert list(runs) == [str(case) for case in some]
    assert [runs[name] for name in first[0]] == list(first[0].values())

    monkeypatch.setattr(golden, "MICRO_BATCHES", 40)
    with pytest.raises(SystemExit, match=r"3 of 3 runs differ .* 'Ideal \| strict"):
        golden.write(None)
    assert golden.load() == (runs, history)
    assert [what for _, what in golden.differing(runs)] == ["weights"] * 3
    golden.write("shorter")
    changed, history = golden.load()
    assert history == ["the first", "shorter"]
    assert all(changed[name] != runs[name] for name in runs)

"""How many presets of aihwkit convert: of the stand-ins, and of aihwkit where it is installed."""

from __future__ import annotations

import contextlib
import importlib

import pytest

import pulseline as pl
from aihwkit_presets import presets
from pulseline.compat import from_aihwkit
from pulseline.errors import ConfigError

pytestmark = pytest.mark.filterwarnings("ignore:aihwkit")

BATCH = 10
PRESETS = dict(presets())
# Those that do not convert, and why.
REFUSED = {"MixedPrecisionPCMPreset": r"^aihwkit: device\.device is 'OneSidedUnitCell', which has"}
RULES = {
    "TikiTaka": pl.algorithms.TikiTaka1,
    "ChoppedTTv2": pl.algorithms.ChoppedTikiTaka2,
    "TTv2": pl.algorithms.TikiTaka2,
    "AGAD": pl.algorithms.AGAD,
    "MixedPrecision": pl.algorithms.MixedPrecision,
    "PCM": pl.algorithms.OneSided,
}


def test_51_of_52_convert() -> None:
    converted = 0
    for config in PRESETS.values():
        with contextlib.suppress(ConfigError):
            from_aihwkit(config, batch=BATCH)
            converted += 1
    assert (converted, len(PRESETS)) == (51, 52)
    assert len(REFUSED) == 52 - 51


@pytest.mark.parametrize("name", sorted(set(PRESETS) - set(REFUSED)))
def test_it_converts(name: str) -> None:
    """To a crossbar of the rule that its name tells."""
    found = from_aihwkit(PRESETS[name], batch=BATCH)
    pl.Crossbar(*found)
    rule = next((rule for start, rule in RULES.items() if name.startswith(start)), None)
    if rule is None and name[-7] in "24":
        rule = pl.algorithms.Vector
        assert found.algorithm == rule(arrays=int(name[-7]), pulsed="random")
    assert type(found.algorithm) is (type(None) if rule is None else rule)
    assert found.fast_device is None


@pytest.mark.parametrize("name", REFUSED)
def test_it_does_not(name: str) -> None:
    with pytest.raises(ConfigError, match=REFUSED[name]):
        from_aihwkit(PRESETS[name], batch=BATCH)


def test_without_a_minibatch() -> None:
    """Weights of capacitors decay, ``auto_scale`` averages, pairs are refreshed once in each."""
    needed = set()
    for name in set(PRESETS) - set(REFUSED):
        try:
            from_aihwkit(PRESETS[name])
        except ConfigError:
            needed.add(name)
            with pytest.raises(ConfigError, match=r"^batch is None, but .*mini-batch"):
                from_aihwkit(PRESETS[name])
    means = {name for name in PRESETS if "TTv2" in name or name.startswith("AGAD")}
    assert needed == means | {name for name in PRESETS if "Capacitor" in name} | {"PCMPreset"}


def test_numbers_of_one() -> None:
    """AGAD on EcRam: every field that the preset sets, at a mini-batch of 10."""
    rule = from_aihwkit(PRESETS["AGADEcRamPreset"], batch=BATCH).algorithm
    io = from_aihwkit(PRESETS["EcRamPreset"]).io.forward
    assert rule == pl.algorithms.AGAD(
        lr_fast=0.1,
        chop=0.005,
        tail=50.0,
        warm_up=201,
        max_pulses=1,
        forget=True,
        granularity="fast",
        auto_granularity=750.0,
        auto_scale=True,
        auto_momentum=1 - (1 - 0.99) / BATCH,
        read=pl.configs.ReadConfig(
            out_bound=io.out_bound,
            out_noise=io.out_noise,
            noise_management="none",
            bound_management="none",
            max_rounds=io.max_rounds,
        ),
    )


def test_the_real_ones() -> None:
    """The same conversions as of the stand-ins, which so are what they say."""
    try:
        module = importlib.import_module("aihwkit.simulator.presets.configs")
    except ImportError:
        pytest.skip("aihwkit is not installed, so its own presets cannot be converted")
    names = {n for n, v in vars(module).items() if getattr(v, "__module__", "") == module.__name__}
    assert names == set(PRESETS)
    for name in names - set(REFUSED):
        theirs = from_aihwkit(getattr(module, name)(), batch=BATCH)
        assert theirs == from_aihwkit(PRESETS[name], batch=BATCH), name
    for name in REFUSED:
        with pytest.raises(ConfigError, match=r"^aihwkit: device\.device is 'PCMPreset"):
            from_aihwkit(getattr(module, name)(), batch=BATCH)

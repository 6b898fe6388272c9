"""to_analog: rules by name and type, what stays digital and why, in place, the report, dry runs."""

from __future__ import annotations

import copy
import pickle
import warnings
import weakref
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

import pulseline as pl
from pulseline.configs import IOConfig, Mapping
from pulseline.devices import ExpStep, Ideal, LinearStep, SoftBounds
from pulseline.errors import ConfigError
from pulseline.nn import AnalogLinear, conversion, register, tile_ids, to_analog
from pulseline.nn.registry import _BUILDERS, analog_linear

PERFECT = IOConfig.perfect()
DIGITAL = "ignore:.* stay digital"


class OwnConv1d(nn.Conv1d):
    """A subclass, which has no counterpart."""


class Net(nn.Module):
    """A little of everything; two layers of the same block are one."""

    def __init__(self) -> None:
        super().__init__()
        self.emb = nn.Embedding(10, 8)
        self.enc = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.conv = OwnConv1d(8, 8, 3)
        shared = nn.Linear(8, 8)
        self.blocks = nn.ModuleList([nn.Sequential(nn.Linear(8, 8), shared) for _ in range(2)])
        self.head = nn.Linear(8, 4)


ATTENTION = [f"enc.self_attn.{name}_proj" for name in ("q", "k", "v", "out")]
BLOCKS = ["blocks.0.0", "blocks.0.1", "blocks.1.0"]
LINEAR = [*ATTENTION, "enc.linear1", "enc.linear2", *BLOCKS, "head"]


def devices_of(model: nn.Module) -> dict[str, str]:
    """Layer -> device of everything that is analog."""
    return {
        name: m.cell.crossbar.device.name
        for name, m in model.named_modules()
        if isinstance(m, AnalogLinear)
    }


def convert(rules: Any = None, **options: Any) -> dict[str, str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return devices_of(to_analog(Net(), rules, **options))


# ---- rules ----


@pytest.mark.parametrize(
    ("rules", "name"),
    [
        (None, "SoftBounds"),
        ("reram_es", "ExpStep"),
        ("Soft-Bounds", "SoftBounds"),
        ("ideal", "Ideal"),
        (Ideal, "Ideal"),
        (LinearStep(), "LinearStep"),
        (pl.presets.EcRam, "LinearStep"),
        (pl.Crossbar("ecram"), "LinearStep"),
        ({"*": "reram_es"}, "ExpStep"),
        ({nn.Linear: ExpStep, nn.MultiheadAttention: "reram_es"}, "ExpStep"),
        ({nn.Module: "ecram"}, "LinearStep"),
    ],
)
def test_one_crossbar_for_all(rules: Any, name: str) -> None:
    assert convert(rules) == dict.fromkeys(LINEAR, name)


@pytest.mark.parametrize(
    ("rules", "found"),
    [
        ({"head": None, "*": "ideal"}, dict.fromkeys(LINEAR[:-1], "Ideal")),
        ({"head.*": None, "*": "ideal"}, dict.fromkeys(LINEAR[:-1], "Ideal")),
        ({"*": "ideal", "head": None}, dict.fromkeys(LINEAR, "Ideal")),  # the first wins
        ({"head": "ecram"}, {"head": "LinearStep"}),
        ({"blocks": "ecram"}, dict.fromkeys(BLOCKS, "LinearStep")),
        ({"blocks.?.0": "ecram"}, {"blocks.0.0": "LinearStep", "blocks.1.0": "LinearStep"}),
        ({"blocks.1.1": "ecram"}, {"blocks.0.1": "LinearStep"}),  # any name of a shared layer
        ({"*.weight": "ideal"}, dict.fromkeys(LINEAR, "Ideal")),
        (
            {nn.TransformerEncoderLayer: None, nn.Linear: "ideal"},
            dict.fromkeys([*BLOCKS, "head"], "Ideal"),
        ),
        ({nn.Sequential: "ideal"}, dict.fromkeys(BLOCKS, "Ideal")),
        ({nn.MultiheadAttention: "ideal"}, dict.fromkeys(ATTENTION, "Ideal")),
        ({"*.in_proj_weight": "ideal"}, dict.fromkeys(ATTENTION, "Ideal")),
    ],
)
def test_the_first_rule_that_fits_wins(rules: Any, found: dict[str, str]) -> None:
    assert convert(rules) == found


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({"include": "blocks"}, BLOCKS),
        ({"include": ["head", "blocks.0"]}, [*BLOCKS[:2], "head"]),
        ({"exclude": "head"}, LINEAR[:-1]),
        ({"exclude": (nn.TransformerEncoderLayer, "head")}, BLOCKS),
        ({"include": nn.Sequential, "exclude": "*.0.0"}, BLOCKS[1:]),
    ],
)
def test_include_and_exclude(options: dict[str, Any], kept: list[str]) -> None:
    assert list(convert("ideal", **options)) == kept
    ids = {one.name.removesuffix(".weight"): one.first for one in tile_ids(Net())}
    first = ids["enc.self_attn.in_proj_weight"]
    ids |= {name: first + n for n, name in enumerate(ATTENTION[:3])}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = to_analog(Net(), seed=0, **options)
    for name in kept:  # rules never shift an id
        assert model.get_submodule(name).cell.identity.tile_id == ids[name]


def test_settings_replace_fields_of_every_crossbar() -> None:
    rules = {"0": pl.Crossbar("ideal", io=IOConfig()), "*": "ecram"}
    model = to_analog(nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3)), rules, io=PERFECT)
    assert [m.cell.crossbar.io for m in model] == [PERFECT, PERFECT]
    assert [m.cell.crossbar.device.name for m in model] == ["Ideal", "LinearStep"]


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "pattern": ({"rules": {"haed": None}}, "rules names 'haed'.*did you mean head"),
    "include": ({"include": "block.0"}, "include names 'block.0'.*did you mean blocks.0"),
    "exclude": ({"exclude": ["head", "x1"]}, "exclude names 'x1', which is no module with"),
    "module without matrix": ({"exclude": "enc.norm1"}, "exclude names 'enc.norm1'"),
    "type": ({"rules": {nn.Conv2d: "ideal"}}, "rules names Conv2d.*did you mean OwnConv1d"),
    "no counterpart": ({"rules": {nn.Conv1d: "ideal"}}, "layer for OwnConv1d; give it None"),
    "key": ({"rules": {3: None}}, "rules holds 3; use patterns of names or classes of modules"),
    "class": ({"rules": {SoftBounds: None}}, "rules holds <class"),
    "device": ({"rules": {"*": "reram_se"}}, "device is 'reram_se'; did you mean .*reram_es"),
    "cuda": ({"rules": "cuda"}, r"device is 'cuda', but device is the crosspoint.*\.to\('cuda'\)"),
    "mapping": ({"rules": Mapping(omega=1.0)}, "device is Mapping"),
    "twice": ({"rules": "ecram", "device": "ecram"}, "device is given twice"),
    "setting": ({"devise": "ecram"}, "devise is no setting of a crossbar; did you mean device"),
    "list": ({"include": 3}, "include is 3; use a pattern, a class or a list of them"),
}


@pytest.mark.parametrize(("options", "words"), REFUSED.values(), ids=REFUSED.keys())
@pytest.mark.parametrize("inplace", [False, True])
def test_what_is_refused_changes_nothing(
    options: dict[str, Any], words: str, inplace: bool
) -> None:
    model = Net()
    before, modules = copy.deepcopy(model.state_dict()), list(model.modules())
    pl.manual_seed(5)
    expected = pl.identity.upcoming()
    with pytest.raises(ConfigError, match=words) as error:
        to_analog(model, inplace=inplace, **options)
    assert "\n" not in str(error.value)
    assert list(model.modules()) == modules
    assert all(torch.equal(v, before[name]) for name, v in model.state_dict().items())
    assert pl.identity.upcoming() == expected


# ---- what stays digital ----


def test_everything_that_stays_digital_is_named_with_its_reason() -> None:
    with pytest.warns(UserWarning, match=r"stay digital: there is no analog layer for") as said:
        model = to_analog(Net(), {"head": None, "*": "ideal"}, exclude="enc.linear1")
    report = conversion(model)
    assert [one.name for one in report.analog] == ["enc.self_attn", "enc.linear2", *BLOCKS]
    assert report.analog[0].shapes == ((8, 8),) * 4
    why = {one.name: one.why for one in report.digital}
    assert list(why) == [
        "emb",
        "enc.linear1",
        "conv",
        "head",
    ]
    assert why["emb"] == "a table, no product"
    assert why["enc.linear1"] == "excluded by 'enc.linear1'"
    assert "OwnConv1d is a subclass of nn.Conv1d" in why["conv"]
    assert why["head"] == "rule 'head' is None"
    assert [one.name for one in report.left] == ["conv"]
    (text,) = (str(one.message) for one in said)
    # a kernel of 8 x 24 of all weights
    every = 80 + 4 * 64 + 2 * 128 + 192 + 3 * 64 + 32
    assert text.startswith(f"{192 / every:.1%} of the weights stay digital")
    assert report.share == (4 * 64 + 128 + 3 * 64) / every
    assert "OwnConv1d" in text


def test_a_matrix_of_a_users_own_module_is_named() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.gain = nn.Linear(3, 3), nn.Parameter(torch.ones(3, 3))

    with pytest.warns(UserWarning, match=r"50\.0% of the weights .* for Scaled; print"):
        report = conversion(to_analog(nn.Sequential(Scaled()), "ideal"))
    (one,) = report.digital
    assert (one.name, one.tile_id, one.shapes) == ("0", 0, ((3, 3),))
    assert one.why == "parameters of Scaled itself, for which nothing is registered"
    for key in ("0.gain", "*gain"):
        asked = conversion(to_analog(nn.Sequential(Scaled()), {key: None, "*": "ideal"}))
        assert [one.asked for one in asked.digital] == [True]


def test_what_is_asked_to_stay_digital_is_no_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        to_analog(Net(), {"enc": None, nn.Conv1d: None, "*": "ideal"})
        to_analog(nn.Sequential(nn.Embedding(3, 4), nn.Linear(4, 4)), "ideal")


def test_a_model_of_which_nothing_can_become_analog() -> None:
    with pytest.raises(ConfigError, match=r"model has no layer that can be analog but OwnConv1d;"):
        to_analog(OwnConv1d(3, 3, 1))
    with pytest.raises(ConfigError, match=r"model has no layer that can be analog; give"):
        to_analog(nn.Tanh())
    assert to_analog(OwnConv1d(3, 3, 1), dry_run=True).share == 0.0
    digital = nn.Linear(3, 3)
    kept = to_analog(digital, {"*": None})  # asked for: a baseline
    assert type(kept) is nn.Linear
    assert kept is not digital
    assert torch.equal(kept.weight, digital.weight)


def test_a_tied_weight_is_a_sentence_or_stays_digital() -> None:
    class LM(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tok, self.mid = nn.Embedding(6, 4), nn.Linear(4, 4)
            self.head = nn.Linear(4, 6, bias=False)
            self.head.weight = self.tok.weight

    words = (
        "layer head shares its weight with 'tok', which a crossbar would untie; .*exclude='head'"
    )
    for inplace in (False, True):
        with pytest.raises(ConfigError, match=words):
            to_analog(LM(), inplace=inplace)
    model = to_analog(LM(), exclude="head")
    assert model.head.weight is model.tok.weight
    assert isinstance(model.mid, AnalogLinear)
    pair = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    pair[1].bias = pair[0].bias
    with pytest.raises(ConfigError, match="shares its bias with '1'"):
        to_analog(pair)


def test_a_computed_weight_and_a_replaced_forward_are_refused_unless_excluded() -> None:
    for change, words in (
        (weight_norm, "the weight of '1' is computed from others"),
        (lambda m: setattr(m, "forward", m.forward), "forward of layer 1 was replaced"),
    ):
        model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
        change(model[1])
        with pytest.raises(ConfigError, match=words):
            to_analog(model)
        assert list(devices_of(to_analog(model, exclude="1"))) == ["0"]


def test_a_traced_model_is_refused() -> None:
    model = nn.Sequential(nn.Linear(3, 3))
    made = [torch.fx.symbolic_trace(model)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch would rather see torch.compile
        made += [torch.jit.trace(model, torch.ones(1, 3)), torch.jit.script(model)]
    for traced in made:
        with pytest.raises(
            ConfigError, match=r"module '0' is a traced \w+, which would bypass noise"
        ):
            to_analog(nn.Sequential(traced))


# ---- what the layers take over ----


def test_hooks_attributes_modes_and_requires_grad_come_along() -> None:
    seen: list[str] = []
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3).eval()).requires_grad_(False)
    model[1].bias.requires_grad_(True)
    model[0].register_forward_hook(lambda m, *_: seen.append(type(m).__name__))
    model[0].register_forward_pre_hook(lambda m, *_: seen.append("before"))
    model[0].SCALE_INIT = 3
    model[1].partner = (model[0],)  # seen from elsewhere
    for inplace in (False, True):
        analog = to_analog(model, "ideal", inplace=inplace)
        seen.clear()
        analog(torch.ones(1, 3))
        assert seen == ["before", "AnalogLinear"]
        assert analog[0].SCALE_INIT == 3
        assert [m.training for m in analog] == [True, False]
        assert [p.requires_grad for p in analog.parameters()] == [False, False, False, True]
        if not inplace:
            assert analog[1].partner[0] is analog[0]


def test_in_place_replaces_every_slot_and_a_copy_leaves_the_model_alone() -> None:
    model = Net()
    names = ["enc.self_attn", *LINEAR[4:]]
    layers = {name: model.get_submodule(name) for name in names}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        other = to_analog(model, "ideal", seed=3)
        assert all(model.get_submodule(name) is layer for name, layer in layers.items())
        same = to_analog(model, "ideal", seed=3, inplace=True)
    assert same is model
    assert other.blocks[0][1] is other.blocks[1][1]
    assert model.blocks[0][1] is model.blocks[1][1]
    assert list(devices_of(model)) == LINEAR
    assert other.conv is not model.conv
    assert pl.digest(other.state_dict()) == pl.digest(model.state_dict())
    layer = nn.Linear(3, 3)
    assert isinstance(to_analog(layer, inplace=True), AnalogLinear)


def test_in_place_holds_one_digital_layer_less_with_every_analog_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = nn.Sequential(*(nn.Linear(3, 3) for _ in range(3)))
    alive = [weakref.ref(layer) for layer in model]
    counts: list[int] = []

    def build(*arguments: Any) -> nn.Module:
        counts.append(sum(one() is not None for one in alive))
        return analog_linear(*arguments)

    monkeypatch.setitem(_BUILDERS, nn.Linear, build)
    to_analog(model, "ideal", inplace=True)
    assert counts == [3, 2, 1]
    assert all(one() is None for one in alive)


def test_a_second_conversion_goes_on_where_the_first_ended() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3))
    once = to_analog(model, "ideal", include="1", seed=4)
    twice = to_analog(once, "ecram", seed=5)
    found = [(m.cell.crossbar.device.name, m.cell.identity.tile_id) for m in twice]
    assert found == [("LinearStep", 0), ("Ideal", 1), ("LinearStep", 2)]
    assert [one.device for one in conversion(twice).layers] == ["LinearStep", "Ideal", "LinearStep"]
    assert len(twice._load_state_dict_pre_hooks) == 1
    twice.load_state_dict(copy.deepcopy(twice.state_dict()))


# ---- report ----


def test_the_report_says_what_the_layers_are() -> None:
    mapping = Mapping(tile_in=4, tile_out=3)
    model = to_analog(nn.Sequential(nn.Linear(6, 5), nn.Tanh()), "ecram", mapping=mapping, seed=2)
    report = conversion(model)
    (one,) = report.layers
    cell = model[0].cell
    assert (one.name, one.kind, one.shapes, one.device) == ("0", "Linear", ((5, 6),), "LinearStep")
    assert (one.tile_id, one.tiles, one.utilisation) == (0, 4, 30 / 48)
    held = [*cell.parameters(), *cell.buffers()]
    assert one.bytes == sum(t.numel() * t.element_size() for t in held)
    assert report.seed == cell.identity.seed == 2
    assert (report.share, report.digital, report.left) == (1.0, (), ())
    text = str(report)
    assert "LinearStep" in text.splitlines()[1]
    assert text.endswith(
        f"1 of 1 matrices analog, 100.0% of the weights; seed 2, {one.bytes:,} bytes"
    )
    for copied in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert conversion(copied) == report
    with pytest.raises(ConfigError, match="Tanh holds no report of a conversion; pass the model"):
        conversion(model[1])


def test_clipping_is_what_programming_cut() -> None:
    layer = nn.Linear(30, 20, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(20, 30, generator=torch.Generator().manual_seed(0)))
    words = r"weights of 1 of 1 analog layers exceed .* clipped: the layer lost (.*)% of its norm"
    with pytest.warns(UserWarning, match=words) as said:
        analog = to_analog(layer, "soft_bounds")
    w, held = layer.weight.detach(), analog.weight.data
    clip = conversion(analog).layers[0].clipping
    assert clip.share == int((w != held).sum()) / 600
    assert clip.excess == float((w - held).abs().max())
    # float32 differences, added in float64: 600 squares
    assert clip.lost == pytest.approx(float((w - held).norm() / w.norm()), rel=1e-5)
    (text,) = (str(one.message) for one in said)
    assert f"{clip.share:.1%} of the weights" in text
    assert "Mapping(omega='auto')" in text


def test_small_losses_are_no_warning_and_ideal_devices_lose_nothing() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(256, 64)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        clip = conversion(to_analog(layer, "soft_bounds", seed=0)).layers[0].clipping
        assert 0 < clip.lost < 0.1
        layer.weight.data *= 1e3
        clip = conversion(to_analog(layer, "ideal", seed=0)).layers[0].clipping
        assert (clip.share, clip.excess, clip.lost) == (0.0, 0.0, 0.0)


@pytest.mark.filterwarnings(DIGITAL)
@pytest.mark.parametrize("seed", [None, 7])
def test_a_dry_run_is_the_report_of_the_conversion(seed: int | None) -> None:
    pl.manual_seed(1)
    model = Net()
    modules = list(model.modules())
    dry = to_analog(model, {"head": None, "*": "ecram"}, seed=seed, dry_run=True)
    assert list(model.modules()) == modules
    assert conversion(to_analog(model, {"head": None, "*": "ecram"}, seed=seed)) == dry


# ---- registry ----


def test_a_module_of_a_users_own() -> None:
    class Own(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + 1

    class OwnAnalog(AnalogLinear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + 1

    def build(module: Own, crossbar: pl.Crossbar, identities: Any) -> nn.Module:
        made = OwnAnalog(3, 3, True, crossbar, seed=identities["weight"])
        made.cell.program(module.weight.data)
        made.bias.data.copy_(module.bias.data)
        return made

    model = nn.Sequential(nn.Linear(3, 3), Own(3, 3))
    register(Own, build)
    try:
        analog = to_analog(model, "ideal", io=PERFECT, seed=0)
    finally:
        del _BUILDERS[Own]
    assert [m.cell.identity.tile_id for m in analog] == [0, 1]
    x = torch.ones(2, 3)
    # sums of 3 of numbers below 1, twice
    torch.testing.assert_close(analog(x), model(x), rtol=0.0, atol=1e-6)
    assert _BUILDERS[nn.Linear] is analog_linear
    for bad in ((3, build), (int, build), (Own, 3)):
        with pytest.raises(ConfigError, match=r"kind is|builder is"):
            register(*bad)

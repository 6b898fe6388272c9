"""Checkpoints that are whole and wrong: another run's, another version's, sealed nonsense."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import delayed
import executor_cases as cases
from checkpoint_cases import (
    CONFIG,
    STAGES,
    body_of,
    content,
    fresh,
    look,
    refused,
    replace_shard,
    reseal,
    seal,
    shard_of,
    train,
)
from pulseline.devices import Ideal, SoftBounds
from pulseline.errors import ConfigError
from pulseline.nn import AnalogLinear
from pulseline.pipeline import Pipeline, checkpoint
from pulseline.schedules import asynchronous, sequential

MANIFEST = "checkpoint-000001.json"
NOTHING = object()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A directory with step 1 of a run that counts pulses."""
    train(counting(), tmp_path, last=1)
    return tmp_path


def counting() -> Pipeline:
    pipe = fresh()
    for stage in pipe.stages:
        stage.module[0].cell.count_pulses()  # type: ignore[index,union-attr,operator]
    return pipe


# ---- manifests ----

NESTED = "[" * 100_000 + "]" * 100_000
FIELDS: dict[str, tuple[Any, str]] = {
    "kind": ("other", "is no checkpoint of pulseline"),
    "format": (5, "has format 5 .* use the version that wrote it"),
    "no format": (None, "has format None"),
    "numbering": (99, "draw numbering 99"),
    "step": ("../../x", r"has step = '\.\./\.\./x', which"),
    "step of another": (7, "has step = 7"),
    "step true": (True, "has step = True"),
    "micro_batches": (-5, "has micro_batches = -5"),
    "micro_batches a": ("a", "has micro_batches = 'a'"),
    "micro_batches 2**63": (1 << 63, "has micro_batches = 9223372036854775808"),
    "cycles": (1.5, r"has cycles = 1\.5"),
    "seed": (None, "has seed = None"),
    "run": (None, "has run = None"),
    "config": ([], r"has config = \[\]"),
    "model": ("a", "has model = 'a'"),
    "seeds": (3, "has seeds = 3"),
    "state": (None, "has state = None"),
    "shards": ({"1": "../../x"}, "has shards = "),
    "segments": ([[1, 2]], r"has segments = \[\[1, 2\]\]"),
    "segments of nothing": ([["a", 1, 1]], "has segments = "),
    "segments without end": ([[1 << 62, 1, 1]], "has segments = "),
}


@pytest.mark.parametrize(("value", "message"), FIELDS.values(), ids=FIELDS.keys())
def test_a_sealed_manifest_of_nonsense(
    root: Path, value: Any, message: str, request: pytest.FixtureRequest
) -> None:
    name = request.node.callspec.id.split()[-1 if "no format" in request.node.callspec.id else 0]
    reseal(root, 1, {name: value})
    refused(root, message)
    files = content(root)
    pipe = fresh()
    train(pipe, None, last=1)
    with pytest.raises(ConfigError, match=message):  # and nothing is written beside it
        checkpoint.save(pipe, root, 2, config=CONFIG)
    assert content(root) == files


@pytest.mark.parametrize(
    "field", list(json.loads("{}")) or sorted({n.split()[0] for n in FIELDS} - {"no", "kind"})
)
def test_a_sealed_manifest_without_a_field(root: Path, field: str) -> None:
    body = body_of(root / MANIFEST)
    del body[field]
    (root / MANIFEST).write_bytes(seal(json.dumps(body)))
    refused(root, "draw numbering None" if field == "numbering" else f"has {field}")


@pytest.mark.parametrize("text", ["{", "{}", "{]", '{"a": ' + NESTED + "}", "{\0", "{\xff"])
def test_sealed_text_that_is_no_manifest(root: Path, text: str) -> None:
    (root / MANIFEST).write_bytes(seal(text))
    refused(root, "is no checkpoint of pulseline; use another directory")


def test_a_sealed_manifest_without_a_shard(root: Path) -> None:
    shas = body_of(root / MANIFEST)["shards"]
    reseal(root, 1, {"shards": {stage: sha for stage, sha in shas.items() if stage != "2"}})
    refused(root, "is complete .checkpoint-000001-stage2.pt is damaged")


# ---- shards ----


def changed(*path: Any, to: Any) -> Any:
    """A change of one entry of a shard."""

    def change(shard: dict[str, Any]) -> dict[str, Any]:
        held: Any = shard
        for name in path[:-1]:
            held = held[name]
        if to is NOTHING:
            del held[path[-1]]
        else:
            held[path[-1]] = to
        return shard

    return change


WEIGHT = "2.cell.arrays.0.weight"
EXTRA = "2.cell._extra_state"
ARRAY = "2.cell.arrays.0"
SHARDS: dict[str, tuple[Any, str]] = {
    "list": (lambda _: [], "holds a list, no stage"),
    "tensor": (lambda _: torch.zeros(3), "holds a Tensor, no stage"),
    "None": (lambda _: None, "holds a NoneType"),
    "empty": (lambda _: {}, "it lacks version"),
    "no bytes": (lambda _: b"", "does not fit stage 2"),
    "text": (lambda _: b"hello", "does not fit stage 2"),
    "zip": (lambda _: b"PK\x03\x04" + b"\0" * 60, "does not fit stage 2"),
    "one more": (lambda s: {**s, "more": 1}, "it has 'more', which nothing here is called"),
    "no version": (changed("version", to=NOTHING), "it lacks version"),
    "version a": (changed("version", to="a"), "version is 'a'"),
    "version -1": (changed("version", to=-1), "version is -1"),
    "state None": (changed("state", to=None), "state is None"),
    "weight gone": (changed("state", WEIGHT, to=NOTHING), f"its state lacks {WEIGHT}"),
    "weight None": (changed("state", WEIGHT, to=None), f"{WEIGHT} is None"),
    "weight small": (changed("state", WEIGHT, to=torch.zeros(2, 2)), r"weight is \(2, 2\)"),
    "weight of doubles": (
        changed("state", WEIGHT, to=torch.zeros(16, 16, dtype=torch.float64)),
        "weight is",
    ),
    "weight NaN": (
        changed("state", WEIGHT, to=torch.full((16, 16), float("nan"))),
        "holds a NaN or an infinity",
    ),
    "array None": (changed("state", EXTRA, to=None), "NoneType is no cell's state"),
    "array's counters": (
        changed("state", EXTRA, "arrays", 0, "counters", "update", to=-3),
        r"counters\.update = -3",
    ),
    "optimizer None": (changed("optimizer", to=None), "optimizer is None"),
    "optimizer empty": (changed("optimizer", to={}), "its optimizer lacks state"),
    "optimizer's state": (changed("optimizer", "state", to=[]), r"optimizer\.state is \[\]"),
    "groups None": (changed("optimizer", "param_groups", to=None), "param_groups is None"),
    "two groups": (changed("optimizer", "param_groups", to=[{}, {}]), "param_groups is"),
    "group None": (changed("optimizer", "param_groups", 0, to=None), "param_groups is"),
    "lr NaN": (changed("optimizer", "param_groups", 0, "lr", to=float("nan")), "lr is nan"),
    "lr -1": (changed("optimizer", "param_groups", 0, "lr", to=-1.0), r"lr is -1\.0"),
    "lr a": (changed("optimizer", "param_groups", 0, "lr", to="a"), "lr is 'a'"),
    "lr None": (changed("optimizer", "param_groups", 0, "lr", to=None), "lr is None"),
    "lr list": (changed("optimizer", "param_groups", 0, "lr", to=[0.1]), "lr is "),
    "params": (changed("optimizer", "param_groups", 0, "params", to=[5]), "params is"),
    "fired None": (changed("fired", to=None), "fired is None"),
    "fired gone": (changed("fired", to={}), f"fired lacks {ARRAY}"),
    "fired -1": (changed("fired", ARRAY, to=[-1, 0, 0]), r"fired of .* is \[-1, 0, 0\]"),
    "fired short": (changed("fired", ARRAY, to=[1, 2]), r"is \[1, 2\]"),
}


@pytest.mark.parametrize(("change", "message"), SHARDS.values(), ids=SHARDS.keys())
def test_a_sealed_shard_of_nonsense(root: Path, change: Any, message: str) -> None:
    """Of stage 2, so that stage 1 must be given back what it had."""
    replace_shard(root, 1, 2, change(shard_of(root, 1, 2)))
    for pipe in (counting(), trained()):
        refused(
            root,
            f"checkpoint-000001-stage2.pt does not fit stage 2 .*{message}"
            if "does not fit" not in message
            else message,
            pipe,
        )


@pytest.mark.parametrize("protocol", ["bare", "saved"])
def test_a_shard_is_no_program(root: Path, protocol: str) -> None:
    """A pickle that calls something, by itself and in torch's format: refused, and not called."""
    mark = root.parent / f"{root.name}-was-here"

    class Touch:
        def __reduce__(self) -> Any:
            return os.system, (f"touch {mark}",)

    replace_shard(root, 1, 2, pickle.dumps(Touch()) if protocol == "bare" else Touch())
    refused(root, "stage2.pt does not fit stage 2 ", counting())
    assert not mark.exists()


def trained() -> Pipeline:
    """A pipeline that has already done something else."""
    pipe = counting()
    train(pipe, None, 1, 2)
    return pipe


def test_pulses_of_an_array_that_counts_none(tmp_path: Path) -> None:
    """An ideal device has no pulses to be counted."""

    class Perfect(delayed.Analog):
        def linear(self, m: int) -> nn.Module:
            return AnalogLinear(16, 16, bias=False, device=Ideal(), seed=5, tile_id=m)

    train(fresh(kind=Perfect()), tmp_path, last=1)
    shard = shard_of(tmp_path, 1, 2)
    replace_shard(tmp_path, 1, 2, {**shard, "fired": {ARRAY: [1, 2, 3]}})
    refused(tmp_path, r"fired is \[1, 2, 3\] for 2.cell.arrays.0", fresh(kind=Perfect()))


# ---- another run ----


class Other(delayed.Analog):
    """Layers that differ from those of the run in one thing."""

    def __init__(self, width: int = 16, seed: int | None = 5, lr: float = 0.0, **device: Any):
        self.width, self.seed = width, seed
        self.device = SoftBounds(**{"w_max": 1.0, "w_min": -1.0, "dw_min": 0.002, **device})

    def linear(self, m: int) -> nn.Module:
        tile_id = None if self.seed is None else m
        return AnalogLinear(
            *(self.width, self.width),
            bias=False,
            device=self.device,
            seed=self.seed,
            tile_id=tile_id,
        )


class Momentum(delayed.Digital):
    """torch's own optimizer, with a state."""

    def optimizer(self, parameters: Any, lr: float) -> torch.optim.Optimizer:
        return torch.optim.SGD(parameters, lr, momentum=0.5)


class OfAnotherType(delayed.Digital):
    def linear(self, m: int) -> nn.Module:
        return super().linear(m).double()


MODELS: dict[str, tuple[Any, str]] = {
    "width": (Other(width=8), "weight='16 x 16 torch.float32' and this run has '8 x 8"),
    "device": (Other(dw_min=0.003), r"device.dw_min=0.002 and this run has 0.003"),
    "device's noise": (Other(dw_min_dtod=0.5), "device.dw_min_dtod="),
    "digital": (delayed.Digital(), "device='SoftBounds' and this run has None"),
}


@pytest.mark.parametrize(("kind", "message"), MODELS.values(), ids=MODELS.keys())
def test_a_directory_belongs_to_one_model(root: Path, kind: Any, message: str) -> None:
    """Same stages, schedule and configuration: another one neither reads it nor writes there."""
    pipe = cases.build(STAGES, asynchronous(), kind)
    refused(root, message, pipe)
    files = content(root)
    with pytest.raises(ConfigError, match=message) as error:
        checkpoint.save(pipe, root, 9, config=CONFIG, keep=1)
    assert "\n" not in str(error.value)
    assert content(root) == files


@pytest.mark.parametrize("seed", [6, None])
def test_a_directory_belongs_to_one_seed(root: Path, seed: int | None) -> None:
    pipe = cases.build(STAGES, asynchronous(), Other(seed=seed))
    files = content(root)
    with pytest.raises(ConfigError, match=r"seed=5 and this run has \d+; use the same"):
        checkpoint.save(pipe, root, 9, config=CONFIG)
    assert content(root) == files


def test_devices_nobody_asked_for_are_a_run_of_their_own(tmp_path: Path) -> None:
    """A process that did not load what is there may not write there; one that did may."""
    train(cases.build(STAGES, asynchronous(), Other(seed=None)), tmp_path, last=1)
    other = cases.build(STAGES, asynchronous(), Other(seed=None))
    with pytest.raises(ConfigError, match=r"arrays\.0\.seed="):
        checkpoint.save(other, tmp_path, 2, config=CONFIG)
    assert checkpoint.load(other, tmp_path, config=CONFIG) is not None
    checkpoint.save(other, tmp_path, 2, config=CONFIG)


def test_the_seed_of_a_pipeline_is_part_of_the_run(root: Path) -> None:
    """It decides what dropout drops."""
    pipe = fresh(seed=77)
    with pytest.raises(ConfigError, match=r"with seed=\d+ and this run has 77"):
        checkpoint.save(pipe, root, 9, config=CONFIG)
    assert checkpoint.load(pipe, root, config=CONFIG) is not None
    checkpoint.save(pipe, root, 9, config=CONFIG)


def test_a_name_in_config_hides_nothing(root: Path) -> None:
    """The number of stages is compared whatever the caller calls so."""
    pipe = cases.build(2, asynchronous())
    with pytest.raises(ConfigError, match="stages=3 and this run has 2"):
        checkpoint.load(pipe, root, config={**CONFIG, "stages": 3})


def test_the_types_of_digital_weights_count(tmp_path: Path) -> None:
    train(fresh(kind=delayed.Digital()), tmp_path, last=1)
    refused(tmp_path, "float32' and this run has '.*float64", fresh(kind=OfAnotherType()))


def test_an_optimizer_with_a_state_continues(tmp_path: Path) -> None:
    """... and is refused by one that has other settings."""
    whole = fresh(sequential(), kind=Momentum())
    train(whole, None)
    train(fresh(sequential(), kind=Momentum()), tmp_path, last=2)
    other = fresh(sequential(), kind=delayed.Digital())
    refused(tmp_path, "optimizer of stage 1='SGD' and this run has 'PlainSGD'", other)
    pipe = fresh(sequential(), kind=Momentum())
    assert checkpoint.load(pipe, tmp_path, config=CONFIG) is not None
    train(pipe, None, 2)
    assert pipe.digest() == whole.digest()


class Picky(nn.Module):
    """Takes back its own state and no other."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number

    def get_extra_state(self) -> int:
        return self.number

    def set_extra_state(self, state: Any) -> None:
        if state != self.number:
            raise TypeError("not this one\nreally")

    def forward(self, x: Tensor) -> Tensor:
        return x


class Picking(delayed.Analog):
    """A layer of stage 3 refuses at last, when the others have taken their state over."""

    def __init__(self, number: int) -> None:
        self.number = number

    def linear(self, m: int) -> nn.Module:
        layer = super().linear(m)
        return nn.Sequential(layer, Picky(self.number)) if m == 2 else layer


def test_a_stage_that_refuses_gives_all_of_them_back(tmp_path: Path) -> None:
    train(fresh(kind=Picking(1)), tmp_path, last=1)
    pipe = fresh(kind=Picking(2))
    train(pipe, None, 1, 2)
    refused(
        tmp_path,
        r"stage3\.pt does not fit stage 3 .not this one.; use the model",
        pipe,
    )


# ---- arguments ----


@pytest.mark.parametrize("keep", [1.5, 0, -1, True, "2", None, float("nan")])
def test_keep_is_looked_at_before_anything_is_written(tmp_path: Path, keep: Any) -> None:
    with pytest.raises(ConfigError, match=r"keep is .*; use an integer >= 1"):
        checkpoint.save(fresh(), tmp_path / "run", 1, keep=keep)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("step", [-1, 1.0, True, "1", None, 1 << 63, "../../x"])
def test_steps_are_numbers(tmp_path: Path, step: Any) -> None:
    with pytest.raises(ConfigError, match=r"step is .*; use an integer >= 0"):
        checkpoint.save(fresh(), tmp_path / "run", step)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["", "a" * 300, "a\0b"])
def test_names_that_are_no_directory(name: str, tmp_path: Path) -> None:
    where = name if not name else str(tmp_path / name)
    for call in (
        lambda: checkpoint.save(fresh(), where, 1),
        lambda: checkpoint.load(fresh(), where),
    ):
        with pytest.raises(ConfigError, match=r"directory|cannot be read") as error:
            call()
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("value", [torch.zeros(1), {1, 2}, [[]]])
def test_state_and_config_are_json(tmp_path: Path, value: Any) -> None:
    if isinstance(value, list):
        for _ in range(100_000):
            value = [value]
    for name in ("state", "config"):
        with pytest.raises(ConfigError, match=f"{name} cannot be JSON"):
            checkpoint.save(fresh(), tmp_path / "run", 1, **{name: {"a": value}})
    assert not (tmp_path / "run").exists()


def test_a_caller_refuses_before_anything_is_changed(root: Path) -> None:
    pipe = counting()
    before, files = look(pipe), content(root)
    seen = []

    def accept(step: int, state: dict[str, Any]) -> None:
        seen.append((step, state))
        raise ConfigError("not mine")

    with pytest.raises(ConfigError, match="not mine"):
        checkpoint.load(pipe, root, config=CONFIG, accept=accept)
    assert seen == [(1, {"done": 1})]
    assert (look(pipe), content(root)) == (before, files)

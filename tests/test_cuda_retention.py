"""What happens between pulses on CUDA tensors, without a GPU: the kernels run in the emulator (see
test_cuda_update.py) and must give the bits of the CPU backend: decay, drift, diffusion, resets and
write noise, alone and in layers that train.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from emulated import Emulated
from operators import counted, redraw_arguments
from pulseline import Array, nn, ops, optim, presets, reference
from pulseline.configs import FIDELITIES, UpdateConfig
from pulseline.devices import DEVICES, ConstantStep, SoftBounds
from pulseline.errors import BackendError, ConfigError
from pulseline.ops import retention as between
from pulseline.ops import update
from pulseline.ops.cuda import module
from test_cuda_update import install
from test_update import MODELS, SEED, TILE_ID, K, Problem, bits, problem

AGEING: dict[str, dict[str, float]] = {
    "decay": {"lifetime": 40.0, "lifetime_dtod": 0.3},
    "decay to a bias": {"lifetime": 7.0, "reset": 0.05, "reset_dtod": 0.02},
    "drift": {"drift_nu": 0.06, "drift_nu_dtod": 0.3},
    "diffusion": {"diffusion": 0.004, "diffusion_dtod": 0.5},
}
ALL = {name: value for options in AGEING.values() for name, value in options.items()}
# One below and above lanes and blocks of 32 columns and 8 rows, and more rows than a grid has.
SHAPES = [(0, 5), (5, 0), (1, 1), (7, 33), (8, 32), (9, 31), (65, 97), (3, 257), (8200, 3)]


@pytest.fixture
def backend(emulated: Emulated, monkeypatch: pytest.MonkeyPatch) -> Emulated:
    """CUDA's functions run on the emulator; new memory holds NaN."""
    install(emulated, monkeypatch)
    return emulated


def normals(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# ---- decay, drift, diffusion, resets ----


def cells(device: Any, rows: int, cols: int) -> tuple[Tensor, ...]:
    """Weight, step, bound and retention words; some weights are at a bound."""
    step, _, bound = reference.construct(device, rows, cols, SEED, TILE_ID)
    lo, hi = (bound << 16).view(torch.float32), (bound & -65536).view(torch.float32)
    weight = torch.minimum(torch.maximum(normals(rows, cols), lo), hi) + 0.0
    words = ops.construct_retention(device.retention(), rows, cols, SEED, TILE_ID)
    return weight, step, bound, words


def check_between(backend: Emulated, device: Any, rows: int, cols: int) -> None:
    """Three mini-batches and a reset, in both orders of threads."""
    weight, *rest = cells(device, rows, cols)
    amounts = (ops.drift_log2(1), ops.drift_log2(5), 0.02)
    for n, amount in enumerate(amounts):
        key = (K + n, ops.DrawKey(SEED, TILE_ID))
        reset = n == 2
        want = weight.clone()
        (between.reset_ if reset else between.retain_)(want, *rest, amount, *key)
        for opposite in (False, True):
            got = weight.clone()
            with backend.settings(reverse=opposite):
                (between.reset_cuda if reset else between.retain_cuda)(got, *rest, amount, *key)
            assert torch.equal(bits(got), bits(want)), (n, opposite)
        assert weight.numel() < 50 or (want != weight).float().mean() > 0.3
        weight = want


@pytest.mark.parametrize("options", AGEING.values(), ids=AGEING.keys())
def test_options(backend: Emulated, options: dict[str, float]) -> None:
    check_between(backend, SoftBounds(**options, corrupt_devices_prob=0.2), 33, 65)


@pytest.mark.parametrize(("rows", "cols"), SHAPES)
def test_sizes(backend: Emulated, rows: int, cols: int) -> None:
    check_between(backend, ConstantStep(**ALL, corrupt_devices_prob=0.1), rows, cols)


@pytest.mark.parametrize("name", DEVICES)
def test_models(backend: Emulated, name: str) -> None:
    """Bounds and stuck devices are all that a model has to do with it."""
    check_between(backend, DEVICES[name](**ALL, corrupt_devices_prob=0.1), 9, 33)


def test_everything_stuck(backend: Emulated) -> None:
    weight, *rest = cells(SoftBounds(**ALL, corrupt_devices_prob=1.0), 9, 33)
    got = weight.clone()
    between.retain_cuda(got, *rest, 1.0, K, ops.DrawKey(SEED, TILE_ID))
    between.reset_cuda(got, *rest, 0.1, K, ops.DrawKey(SEED, TILE_ID))
    assert torch.equal(bits(got), bits(weight))


# ---- write noise ----


@pytest.mark.parametrize(("rows", "cols"), SHAPES)
def test_programming(backend: Emulated, rows: int, cols: int) -> None:
    hidden, step, *_ = cells(SoftBounds(corrupt_devices_prob=0.2), rows, cols)
    got, want = (torch.full_like(hidden, 9.0) for _ in range(2))
    for t, disturb in ((got, between.disturb_cuda), (want, between.disturb_)):
        disturb(t, hidden, step, 0.01, counted(K), ops.DrawKey(SEED, TILE_ID))
    assert torch.equal(bits(got), bits(want))
    assert hidden.numel() < 50 or 0.7 < (want != hidden).float().mean() < 0.95


def redrawing(p: Problem, visible: Tensor) -> tuple[Any, ...]:
    rest = (p.x, p.d, p.device, p.config, p.lr, 0.01, (SEED, TILE_ID, K))
    return redraw_arguments(visible, p.weight, p.stored.step, *rest)


def redrawn(p: Problem) -> Tensor:
    """By the CPU, from a matrix of nines."""
    visible = torch.full_like(p.weight, 9.0)
    between.redraw_(*redrawing(p, visible))
    return visible


def check_redraw(backend: Emulated, p: Problem) -> Tensor:
    want = redrawn(p)
    for opposite in (False, True):
        got = torch.full_like(p.weight, 9.0)
        with backend.settings(reverse=opposite, eager=opposite):
            between.redraw_cuda(*redrawing(p, got))
        wrong = int((bits(got) != bits(want)).sum())
        assert wrong == 0, f"{wrong} of {want.numel()} differ, reversed {opposite}"
    return want


def reached(visible: Tensor) -> float:
    return float((visible != 9.0).float().mean())


# Both sides of warps, blocks and padding, and of a slice of 512 words.
WRITES = [(1, 1, 1), (31, 33, 33), (33, 31, 2), (16, 129, 31), (129, 16, 7), (17, 33, 1030)]


@pytest.mark.parametrize(("rows", "cols", "batch"), WRITES)
def test_writes(backend: Emulated, rows: int, cols: int, batch: int) -> None:
    """A low rate, so that some crosspoints are reached by early samples or by none."""
    for lr in (2e-4, 0.02):
        device = SoftBounds(corrupt_devices_prob=0.1)
        check_redraw(backend, problem(rows, cols, batch, device, lr=lr))


@pytest.mark.parametrize("name", MODELS)
def test_writes_of_models(backend: Emulated, name: str) -> None:
    """A model has its granularity, its stuck devices, and nothing else."""
    assert reached(check_redraw(backend, problem(20, 37, 9, MODELS[name]))) > 0.1


@pytest.mark.parametrize(
    ("lr", "config"),
    [
        (0.002, {"desired_bl": 70, "update_bl_management": False}),  # three words a sample
        (0.02, {"desired_bl": 3, "fixed_bl": False, "update_bl_management": False}),  # 20 slots
        (0.1, {"desired_bl": 3, "fixed_bl": False, "update_bl_management": False}),  # 100 slots
        (0.002, {"update_management": False}),
        (0.002, {"desired_bl": 1}),
    ],
)
def test_trains(backend: Emulated, lr: float, config: dict[str, Any]) -> None:
    want = check_redraw(backend, problem(20, 37, 12, MODELS["SoftBounds"], lr=lr, **config))
    assert reached(want) > 0.1


@pytest.mark.parametrize("fidelity", FIDELITIES)
def test_fidelities(backend: Emulated, fidelity: str) -> None:
    """All with trains have the same; ``expected`` has neither trains nor noise."""
    want = check_redraw(backend, problem(20, 37, 5, MODELS["SoftBounds"], fidelity, lr=0.002))
    if fidelity == "expected":
        assert torch.equal(want, problem(20, 37, 5, MODELS["SoftBounds"]).weight)
    else:
        assert torch.equal(want, redrawn(problem(20, 37, 5, MODELS["SoftBounds"], lr=0.002)))
        assert 0.01 < reached(want) < 0.99


@pytest.mark.parametrize("fidelity", ["exact", "expected"])
@pytest.mark.parametrize(("rows", "cols", "batch"), [(0, 3, 4), (3, 0, 4), (3, 4, 0), (0, 0, 0)])
def test_nothing_to_write(
    backend: Emulated, rows: int, cols: int, batch: int, fidelity: str
) -> None:
    want = check_redraw(backend, problem(rows, cols, batch, SoftBounds(), fidelity))
    assert (want == 9.0).all()


def test_no_rate_no_pulses(backend: Emulated) -> None:
    assert reached(check_redraw(backend, problem(20, 37, 5, SoftBounds(), lr=0.0))) == 0.0


@pytest.mark.parametrize("fidelity", ["exact", "grouped", "expected"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_refused_update_writes_no_noise(backend: Emulated, fidelity: str, value: float) -> None:
    """Who says so is the update."""
    p = problem(20, 37, 5, SoftBounds(), fidelity)
    p.d[3, 19] = value
    got = torch.full_like(p.weight, 9.0)
    between.redraw_cuda(*redrawing(p, got))
    assert reached(got) == 0.0


@pytest.mark.parametrize("barrier", [0, 1])
def test_a_missing_barrier_shows(backend: Emulated, barrier: int) -> None:
    """Launch 3, after begin, plan and trains: words that are not there yet, or no more.

    Pulses are so rare that the last ones of many crosspoints lie far back."""
    p = problem(33, 65, 200, SoftBounds(), lr=1e-5, update_bl_management=False)
    assert 0.1 < reached(redrawn(p)) < 0.9
    got = torch.full_like(p.weight, 9.0)
    with backend.settings(launch=3, skip=barrier, every=2, eager=barrier == 1):
        between.redraw_cuda(*redrawing(p, got))
    assert not torch.equal(bits(got), bits(redrawn(p)))


# ---- tiles and layers ----


@pytest.fixture
def as_cuda(backend: Emulated, monkeypatch: pytest.MonkeyPatch) -> Emulated:
    """Operators that write CPU tensors are those of CUDA tensors. Reads have sums of their own."""
    monkeypatch.setattr(ops, "direct", lambda _: False)
    monkeypatch.setattr(ops, "update_", update.update_cuda)
    for name in ("retain", "reset", "disturb", "redraw"):
        monkeypatch.setattr(ops, f"{name}_", getattr(between, f"{name}_cuda"))
    return backend


def tile(n: int, fidelity: str = "exact") -> Array:
    """Number n of some tiles of different sizes and devices; all age and have write noise."""
    device = SoftBounds(**ALL, batch=100, write_noise_std=5.0, corrupt_devices_prob=0.05)
    rows, cols = 9 + 7 * n, 40 - 3 * n
    made = Array(rows, cols, device, update=UpdateConfig(fidelity=fidelity), seed=3, tile_id=n)
    made.program(0.3 * normals(rows, cols, seed=n))
    return made


def pulse(t: Array, n: int, batch: ops.Batch) -> None:
    rows, cols = t.shape
    t.pulse(normals(6 + n, cols, seed=n), 0.1 * normals(6 + n, rows, seed=n + 1), 0.02, batch)


def held(t: Array) -> list[Tensor]:
    assert t.hidden is not None
    return [bits(t.weight.data).clone(), bits(t.hidden).clone()]


KINDS = ["exact", "grouped", "expected"] * 4  # of twelve tiles


def lived() -> list[list[Tensor]]:
    """Updates, ageing, a reset of some columns, all in the life of twelve tiles."""
    tiles = [tile(n, kind) for n, kind in enumerate(KINDS)]
    with ops.Batch() as batch:
        for n, t in enumerate(tiles):
            pulse(t, n, batch)
    for n, t in enumerate(tiles):
        t.age(94 - n)  # to 100: an event
    with ops.Batch() as batch:  # of one tile twice, and what needs the weights in between
        for n, t in enumerate(tiles):
            pulse(t, n + 20, batch)
            if n % 4 == 0:
                t.age(74 - n, batch)
            if n % 4 == 1:
                batch.launch()
                t.reset(torch.tensor([0, 3]))
            if n % 4 == 2:
                t.age(60, batch)  # the event falls between two samples of the next update
            pulse(t, n + 30, batch)
    return [held(t) for t in tiles]


def test_tiles_share_launches(as_cuda: Emulated, monkeypatch: pytest.MonkeyPatch) -> None:
    """Noise comes after the pulses of its own tile, whatever shares a launch."""
    launched: list[tuple[int, int]] = []
    redraw = as_cuda.module.redraw

    def counted(tasks: list[Any], *rest: int) -> None:
        ((_, _, key, *_), *_), *_ = tasks
        launched.append((len(tasks), key.fidelity))
        redraw(tasks, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(as_cuda.module, "redraw", counted)
        got = lived()
    exact, expected = ops.FIDELITY_INDEX["exact"], ops.FIDELITY_INDEX["expected"]
    assert launched[:2] == [(8, exact), (4, expected)]
    monkeypatch.undo()
    for ours, theirs in zip(got, lived(), strict=True):
        for a, b in zip(ours, theirs, strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize("device", [SoftBounds(**ALL, write_noise_std=8.0), presets.ReRamES])
def test_layers_train_to_the_same_bits(
    as_cuda: Emulated, monkeypatch: pytest.MonkeyPatch, device: Any
) -> None:
    """Pulses, write noise and ageing of two layers, three steps."""
    x = normals(9, 20)

    def trained() -> list[Tensor]:
        layers = [nn.AnalogLinear(20, 33, device=device, seed=1)]
        layers.append(nn.AnalogLinear(33, 5, device=device, seed=1, tile_id=1))
        model = torch.nn.Sequential(layers[0], torch.nn.Tanh(), layers[1])
        optimizer = optim.AnalogSGD(model.parameters(), lr=0.1)
        for _ in range(3):
            optimizer.zero_grad()
            (model(x) - 1).square().mean().backward()
            optimizer.step()
        return [t.clone() for t in model.state_dict().values() if isinstance(t, Tensor)]

    got = trained()
    monkeypatch.undo()
    for a, b in zip(got, trained(), strict=True):
        assert torch.equal(bits(a), bits(b))


def test_layers_move_with_all_they_hold() -> None:
    layer = nn.AnalogLinear(5, 3, device=SoftBounds(**ALL, write_noise_std=1.0), seed=4)
    layer.to("meta")
    tile_ = layer.cell.array
    cells = tile_.crosspoints
    kept = (tile_.weight, tile_.hidden, cells.step, cells.bound, cells.words)
    assert all(t is not None and t.is_meta for t in kept)


# ---- refusals ----


def test_refusals() -> None:
    weight, step, bound, words = cells(SoftBounds(**ALL), 3, 4)
    key = (0, ops.DrawKey(SEED, TILE_ID))
    with pytest.raises(
        ConfigError, match=r"^words has shape \(2, 4, 3\) and dtype torch\.int32; u"
    ):
        between.retain_cuda(weight, step, bound, words.reshape(2, 4, 3), 1.0, *key)
    with pytest.raises(ConfigError, match=r"^step is on meta and the weight on the CPU; move it w"):
        between.reset_cuda(weight, step.to("meta"), bound, words, 1.0, *key)
    with pytest.raises(ConfigError, match=r"^hidden is on meta and the weight on the CPU"):
        between.disturb_cuda(weight, weight.to("meta"), step, 1.0, counted(0), key[1])
    p = problem(3, 4, 2, SoftBounds())
    p = p._replace(d=p.d.to("meta"))
    with pytest.raises(ConfigError, match=r"^d is on meta and the weight on the CPU"):
        between.redraw_cuda(*redrawing(p, p.weight.clone()))


def test_without_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    module.kernels.cache_clear()
    monkeypatch.setattr(module, "load", lambda: (None, "this build has no CUDA kernels"))
    weight, *rest = cells(SoftBounds(**ALL), 3, 4)
    with pytest.raises(BackendError, match=r"^a CUDA tensor came in, but this build has no CUDA"):
        between.retain_cuda(weight, *rest, 1.0, 0, ops.DrawKey(SEED, TILE_ID))

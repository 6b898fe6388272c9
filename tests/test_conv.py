"""Convolutions: torch's numbers on the ideal device, and the bits of their rows read one by one.

Tolerances: sums of n products in another order differ by at most 2 n 2^-24 times the sum of their
magnitudes; every comparison with torch uses that bound, of its own sums.
"""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import pulseline as pl
from pulseline import cells
from pulseline.arrays import patches
from pulseline.configs import IOConfig, Mapping, UpdateConfig
from pulseline.devices import Ideal, SoftBounds
from pulseline.errors import ConfigError
from pulseline.nn import to_analog, to_digital
from pulseline.nn.registry import CONVOLUTIONS
from pulseline.optim import AnalogSGD

PERFECT = IOConfig.perfect()
F = nn.functional


def normals(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# (digital layer, shape of its input)
Case = tuple[Callable[[], nn.Module], tuple[int, ...]]
CASES: dict[str, Case] = {
    "1d": (lambda: nn.Conv1d(4, 5, 3), (3, 4, 11)),
    "1d of one": (lambda: nn.Conv1d(1, 1, 1), (1, 1, 1)),
    "1d strided": (lambda: nn.Conv1d(4, 5, 3, stride=2, padding=2, dilation=2), (3, 4, 11)),
    "1d pointwise": (lambda: nn.Conv1d(17, 15, 1), (2, 17, 9)),
    "2d": (lambda: nn.Conv2d(3, 4, 3, padding=1), (2, 3, 9, 10)),
    "2d lanes": (lambda: nn.Conv2d(4, 16, 2, bias=False), (3, 4, 18, 5)),
    "2d uneven": (
        lambda: nn.Conv2d(4, 5, (3, 2), stride=(2, 1), padding=(2, 1), dilation=(1, 2)),
        (3, 4, 11, 9),
    ),
    "2d same": (lambda: nn.Conv2d(3, 4, (4, 3), padding="same", dilation=(1, 2)), (2, 3, 8, 7)),
    "2d valid": (lambda: nn.Conv2d(3, 4, 3, padding="valid"), (2, 3, 8, 7)),
    "2d pointwise, strided": (lambda: nn.Conv2d(3, 4, 1, stride=2), (2, 3, 7, 8)),
    "2d single": (lambda: nn.Conv2d(3, 4, 3), (3, 8, 7)),
    "2d empty": (lambda: nn.Conv2d(3, 4, 3), (0, 3, 8, 7)),
    "3d": (
        lambda: nn.Conv3d(3, 4, (3, 2, 3), stride=(2, 1, 2), padding=(2, 1, 0)),
        (2, 3, 5, 6, 7),
    ),
    "transposed 1d": (
        lambda: nn.ConvTranspose1d(4, 5, 3, 2, padding=2, output_padding=1, dilation=2),
        (3, 4, 11),
    ),
    "transposed 2d": (
        lambda: nn.ConvTranspose2d(4, 5, (3, 2), (2, 3), (1, 0), output_padding=(1, 2)),
        (3, 4, 7, 6),
    ),
    "transposed 2d, stride 1": (lambda: nn.ConvTranspose2d(3, 2, 3, padding=1), (2, 3, 5, 6)),
    "transposed 3d": (
        lambda: nn.ConvTranspose3d(3, 4, (3, 2, 3), (2, 1, 3), 1, output_padding=(1, 0, 2)),
        (2, 3, 4, 3, 5),
    ),
}
CASES |= {
    "groups": (lambda: nn.Conv2d(4, 6, 3, padding=1, groups=2), (2, 4, 6, 7)),
    "depthwise": (lambda: nn.Conv2d(5, 5, 3, padding=1, groups=5), (2, 5, 6, 7)),
    "depthwise of two": (lambda: nn.Conv1d(3, 6, 3, stride=2, groups=3), (2, 3, 9)),
    "grouped 3d": (lambda: nn.Conv3d(4, 4, 2, groups=2, bias=False), (2, 4, 3, 4, 5)),
    "depthwise, transposed": (lambda: nn.ConvTranspose2d(4, 4, 3, 2, groups=4), (2, 4, 5, 6)),
    "groups, transposed": (lambda: nn.ConvTranspose1d(6, 4, 3, 2, groups=2), (2, 6, 7)),
    "groups, transposed 3d": (
        lambda: nn.ConvTranspose3d(4, 6, 2, (1, 2, 1), groups=2),
        (2, 4, 3, 2, 4),
    ),
}
for _mode in ("reflect", "replicate", "circular"):
    CASES |= {
        f"1d {_mode}": (
            lambda mode=_mode: nn.Conv1d(4, 5, 5, stride=2, padding=3, padding_mode=mode),
            (3, 4, 8),
        ),
        f"2d {_mode}": (
            lambda mode=_mode: nn.Conv2d(3, 4, 3, padding=(2, 1), padding_mode=mode),
            (2, 3, 5, 9),
        ),
        f"2d {_mode}, same": (
            lambda mode=_mode: nn.Conv2d(3, 4, (4, 3), padding="same", padding_mode=mode),
            (2, 3, 5, 6),
        ),
        f"3d {_mode}": (
            lambda mode=_mode: nn.Conv3d(2, 3, 3, padding=1, dilation=1, padding_mode=mode),
            (2, 2, 4, 5, 3),
        ),
    }


def pair(case: str, **options: Any) -> tuple[Any, Any, Tensor]:
    """Digital layer, its counterpart, an input."""
    make, shape = CASES[case]
    torch.manual_seed(0)
    digital = make()
    options = {"device": Ideal(), "io": PERFECT, "seed": 3} | options
    return digital, to_analog(digital, **options), normals(*shape)


def close(found: Tensor, expected: Tensor, terms: int, magnitudes: Tensor) -> None:
    """Sums of so many products of which the magnitudes are these."""
    assert found.shape == expected.shape
    assert ((found - expected).abs() <= 2 * (terms + 2) * 2.0**-24 * magnitudes).all()


def absolute(digital: Any) -> Any:
    """The layer with the magnitudes of its weights."""
    one = copy.deepcopy(digital)
    for p in one.parameters():
        p.data.abs_()
        p.grad = None
    return one


def in_shape_of(digital: Any, analog: Any, matrix: Tensor) -> Tensor:
    """What a parameter shows, in torch's shape: transposed layers of groups show their matrix."""
    if not (digital.transposed and digital.groups > 1 and digital.weight.shape[1] > 1):
        assert matrix.shape == digital.weight.shape
        return matrix
    groups, (inputs, outputs, *kernel) = digital.groups, digital.weight.shape
    assert analog.weight.shape == (groups * outputs, inputs // groups * math.prod(kernel))
    split = matrix.view(groups, outputs, inputs // groups, *kernel)
    return split.transpose(1, 2).flatten(0, 1)


def weight_of(analog: Any) -> Tensor:
    digital = next(kind for kind, one in CONVOLUTIONS.items() if one is type(analog))
    torch_like = digital(
        analog.in_channels, analog.out_channels, analog.kernel_size, groups=analog.groups
    )
    return in_shape_of(torch_like, analog, analog.weight.detach().clone())


# ---- torch's numbers ----


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@pytest.mark.parametrize("case", CASES)
def test_a_step_on_the_ideal_device_is_torchs(case: str) -> None:
    digital, analog, x = pair(case)
    assert type(analog) is CONVOLUTIONS[type(digital)]
    assert torch.equal(weight_of(analog), digital.weight)
    large = absolute(digital)
    outs = []
    for layer, inputs in ((digital, x), (analog, x), (large, x.abs())):
        inputs = inputs.clone().requires_grad_()
        y = layer(inputs)
        d = normals(*y.shape, seed=1)
        y.backward(d.abs() if layer is large else d)
        outs.append((y.detach(), inputs.grad))
    (y, g), (ours, ours_g), (y_large, g_large) = outs
    columns = digital.weight.numel() // digital.out_channels
    close(ours, y, columns, y_large)
    close(ours_g, g, digital.weight.numel() // digital.in_channels, g_large)
    positions = y.numel() // digital.out_channels
    grad = in_shape_of(digital, analog, analog.weight.grad.dense())
    close(grad, digital.weight.grad, positions, large.weight.grad)
    if digital.bias is not None:
        close(analog.bias.grad, digital.bias.grad, positions, large.bias.grad)
    torch.optim.SGD(digital.parameters(), lr=0.1).step()
    AnalogSGD(analog.parameters(), lr=0.1).step()
    moved = digital.weight.abs() + 0.1 * large.weight.grad
    close(weight_of(analog), digital.weight, positions, moved.detach())


@pytest.mark.parametrize("case", CASES)
def test_there_and_back(case: str) -> None:
    """to_digital gives torch's layer; a state of it is programmed."""
    digital, analog, x = pair(case)
    back = to_digital(analog)
    assert type(back) is type(digital)
    assert repr(back) == repr(digital)
    for name, value in digital.state_dict().items():
        assert torch.equal(back.state_dict()[name], value)
    others = to_analog(CASES[case][0](), Ideal(), io=PERFECT, seed=3)
    others.load_state_dict(digital.state_dict())
    assert torch.equal(others(x), analog(x))
    again = copy.deepcopy(others)
    again.load_state_dict(pickle.loads(pickle.dumps(analog.state_dict())))
    assert torch.equal(again(x), analog(x))


def test_layouts_of_an_image_change_no_bit() -> None:
    for case in ("2d", "2d uneven", "transposed 2d", "2d pointwise, strided"):
        _, analog, x = pair(case, device=SoftBounds(), io=IOConfig())
        found = []
        for image in (
            x,
            x.contiguous(memory_format=torch.channels_last),
            x.transpose(2, 3).contiguous().transpose(2, 3),
            torch.cat([x, x], 1)[:, : x.shape[1]],
        ):
            layer = copy.deepcopy(analog)
            inputs = image.detach().requires_grad_()
            y = layer(inputs)
            y.backward(normals(*y.shape, seed=1).contiguous(memory_format=torch.channels_last))
            layer.cell.update_pending(0.1)
            found.append((y.detach(), inputs.grad, layer.weight.detach().clone()))
        for others in found[1:]:
            assert all(torch.equal(a, b) for a, b in zip(found[0], others, strict=True))


def test_output_size_of_transposed_layers() -> None:
    digital, analog, x = pair("transposed 2d")
    for size in ([14, 17], [13, 19], (2, 5, 14, 18)):
        size = list(size)
        y = digital(x[:2], output_size=size)
        assert analog(x[:2], output_size=size).shape == y.shape
    for size in ([16, 17], [14], [14, 17, 1, 1, 1]):
        with pytest.raises(ConfigError, match=r"output_size is .*; use sizes from \(13, 17\) "):
            analog(x, output_size=size)


# ---- the bits of rows ----


def rows_of(case: str, x: Tensor) -> Tensor:
    """(positions, columns) by torch's own unfold."""
    conv: Any = CASES[case][0]()
    args = (conv.kernel_size, conv.dilation, conv.padding, conv.stride)
    return F.unfold(x, *args).transpose(1, 2).flatten(0, 1)


@pytest.mark.parametrize("case", ["2d", "2d lanes", "2d uneven"])
@pytest.mark.parametrize("fidelity", ["strict", "exact", "expected"])
def test_every_position_is_a_read_and_an_update_of_the_array(case: str, fidelity: str) -> None:
    _, layer, x = pair(
        case,
        device=SoftBounds(dw_min=0.01),
        io=IOConfig(),
        update=UpdateConfig(fidelity=fidelity),
        mapping=Mapping(tile_in=7, tile_out=3),
    )
    array = copy.deepcopy(layer.cell.array)
    inputs = x.clone().requires_grad_()
    y = layer(inputs)
    rows = rows_of(case, x)
    bias = 0.0 if layer.bias is None else layer.bias.detach()
    assert torch.equal(y.flatten(2).transpose(1, 2).flatten(0, 1), array.read(rows) + bias)
    d = normals(*y.shape, seed=1)
    y.backward(d)
    errors = d.flatten(2).transpose(1, 2).flatten(0, 1).contiguous()
    back = array.read(errors, transposed=True)
    ((kept, kept_d),) = layer.cell.pending
    assert torch.equal(kept.image, x)
    assert torch.equal(kept[:], rows)
    assert torch.equal(kept_d, errors)
    torch.testing.assert_close(inputs.grad, folded(case, back, x))
    layer.cell.update_pending(0.1)
    array.pulse(rows, errors, 0.1)
    assert torch.equal(layer.cell.array.held, array.held)
    assert layer.cell.array.counts() == array.counts()
    assert array.counts().update == len(rows)


def folded(case: str, rows: Tensor, x: Tensor) -> Tensor:
    conv: Any = CASES[case][0]()
    args = (conv.kernel_size, conv.dilation, conv.padding, conv.stride)
    return F.fold(rows.view(len(x), -1, rows.shape[1]).transpose(1, 2), x.shape[2:], *args)


def trained(layer: Any, x: Tensor, cuts: list[int]) -> tuple[Tensor, ...]:
    """Outputs, gradients and weights after a step of the parts of a batch."""
    layer = copy.deepcopy(layer)
    outs, grads = [], []
    for part in x.split(cuts):
        inputs = part.clone().requires_grad_()
        outs.append(layer(inputs))
        grads.append(inputs)
    ys = torch.cat([y.detach() for y in outs])
    d = normals(*ys.shape, seed=1) / 8
    for y, part in zip(outs, d.split(cuts), strict=True):
        y.backward(part)
    AnalogSGD(layer.parameters(), lr=0.05).step()
    return ys, torch.cat([one.grad for one in grads]), layer.weight.detach().clone()


@pytest.mark.parametrize("fidelity", ["strict", "exact", "expected", "grouped", "moments"])
@pytest.mark.parametrize(("mode", "groups"), [("zeros", 1), ("circular", 1), ("zeros", 3)])
def test_chunks_threads_and_cuts_change_no_bit(
    fidelity: str, mode: str, groups: int, monkeypatch: pytest.MonkeyPatch, kernels: Any
) -> None:
    """23 x 24 positions: more than 512 in an image, and no multiple."""
    torch.manual_seed(1)
    device = SoftBounds(dw_min=0.001, write_noise_std=0.2, lifetime=300.0, batch=100)
    layer = to_analog(
        nn.Conv2d(6, 9, 3, padding=1, padding_mode=mode, groups=groups),
        device,
        io=IOConfig(),
        update=UpdateConfig(fidelity=fidelity),
        seed=1,
    )
    x = normals(3, 6, 23, 24, seed=2).relu()
    expected = trained(layer, x, [3])
    for threads, floats, least, cuts in (
        (2, 1 << 19, 512, [3]),
        (1, 63, 1, [3]),
        (2, 63 * 100, 100, [1, 2]),
        (1, 1 << 19, 512, [1, 1, 1]),
    ):
        kernels.use(str(pl.ops.info()["isa"]), threads)
        monkeypatch.setattr(patches, "_FLOATS", floats)
        monkeypatch.setattr(patches, "_FEW", min(least, 128))
        monkeypatch.setattr(cells.patched, "_ROWS", least)
        found = trained(layer, x, cuts)
        for name, a, b in zip(("y", "g", "w"), found, expected, strict=True):
            assert torch.equal(a, b), (name, threads, floats, cuts)


def test_groups_close_between_images_and_every_512_rows() -> None:
    """As the array does when it is called for each of them."""
    for fidelity in ("grouped", "moments"):
        update = UpdateConfig(fidelity=fidelity)
        layer = to_analog(nn.Conv2d(2, 3, 1), SoftBounds(), update=update, seed=1)
        x, d = normals(2, 2, 30, 20).relu(), normals(2, 3, 30, 20, seed=1) / 8
        array = copy.deepcopy(layer.cell.array)
        layer(x).backward(d)
        layer.cell.update_pending(0.1)
        for image, errors in zip(x, d, strict=True):
            rows, back = (t.flatten(1).T.contiguous() for t in (image, errors))
            array.pulse(rows[:512], back[:512], 0.1)
            array.pulse(rows[512:], back[512:], 0.1)
        assert torch.equal(layer.cell.array.held, array.held)

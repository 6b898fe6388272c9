"""A converted CNN: trained like any other, in a pipeline, with bounded memory."""

from __future__ import annotations

import copy
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import pulseline as pl
from pulseline.digest import digest
from pulseline.errors import ConfigError


def digits() -> tuple[Tensor, Tensor]:
    """Images of 8 x 8 and their labels."""
    load = pytest.importorskip("sklearn.datasets").load_digits
    images, labels = load(return_X_y=True)
    return torch.tensor(images / 16, dtype=torch.float32).view(-1, 1, 8, 8), torch.tensor(labels)


def cnn() -> nn.Sequential:
    """A convolution, one of four groups, and a linear layer."""
    torch.manual_seed(0)
    grouped = nn.Conv2d(8, 8, 3, stride=2, padding=1, groups=4)
    layers = (nn.Conv2d(1, 8, 3, padding=1), nn.Tanh(), grouped, nn.Tanh())
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(128, 10))


def test_a_converted_cnn_learns_digits() -> None:
    x, y = digits()
    device = pl.devices.SoftBounds(w_max=1.0, w_min=-1.0, dw_min=0.001)
    net = pl.to_analog(cnn(), device, seed=0)
    assert [one.tile_id for one in pl.nn.conversion(net).layers] == [0, 1, 2]
    assert pl.nn.conversion(net).share == 1.0
    optimizer = pl.optim.AnalogSGD(net.parameters(), lr=0.1)
    order = torch.randperm(1500, generator=torch.Generator().manual_seed(0))
    for _ in range(3):
        for batch in order.split(10):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(x[batch]), y[batch]).backward()
            torch.nn.utils.clip_grad_norm_(net.parameters(), 5.0)
            optimizer.step()
    net.eval()
    with torch.no_grad():
        right = net(x[1500:]).argmax(dim=1) == y[1500:]
    assert right.float().mean() > 0.5  # of 297: 20 standard errors above chance


def test_the_report_counts_matrices_and_physical_tiles() -> None:
    mapping = pl.configs.Mapping(tile_in=16, tile_out=4)
    found = pl.to_analog(cnn(), "ideal", mapping=mapping, dry_run=True).layers
    assert [one.shapes for one in found[:2]] == [((8, 1, 3, 3),), ((8, 2, 3, 3),)]
    # 8 x 9: 2 x 1. Of 8 x 72 four blocks of 2 x 18 exist: rows 0 to 3 on columns 0 to 35, which are
    # on 3 tiles, rows 4 to 7 on 36 to 71, 3 more. 10 x 128: 3 x 8.
    assert [one.tiles for one in found] == [2, 6, 24]


@pytest.mark.parametrize("schedule", ["sequential", "async"])
def test_executors_of_a_pipeline_have_the_same_bits(schedule: str) -> None:
    x, y = torch.randn(24, 1, 8, 8), torch.randint(0, 10, (24,))
    found = []
    for executor in ("sim", "threads"):
        pipe = pl.Pipeline(
            pl.to_analog(cnn(), seed=0),
            stages=3,
            schedule=schedule,
            micro_batch_size=3,
            executor=executor,
            optimizer=lambda p: pl.optim.AnalogSGD(p, lr=0.05),
            loss=nn.functional.cross_entropy,
        )
        for part in (slice(0, 12), slice(12, 24)):
            pipe.step(x[part], y[part])
        pipe.drain()
        found.append(digest({k: v for s in pipe.stages for k, v in s.state().items()}))
    assert found[0] == found[1]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_leave_everything_as_it_was(value: float) -> None:
    layer = pl.nn.AnalogConv2d(2, 3, 3, padding=1, seed=0)
    x = torch.randn(3, 2, 5, 5, requires_grad=True)
    bad = x.detach().clone()
    bad[1, 1, 4, 4] = value
    before = copy.deepcopy(layer.state_dict())
    with pytest.raises(ConfigError, match=r"x\[1\] holds a NaN or an infinity"):
        layer(bad)
    y = layer(x)
    d = torch.ones_like(y)
    d[2, 0, 0, 0] = value
    with pytest.raises(ConfigError, match=r"d\[2\] holds a NaN or an infinity"):
        y.backward(d)
    assert not layer.cell.pending
    layer(x).sum().backward()
    layer.cell.pending[0][0].image[0, 0, 0, 0] = value
    with pytest.raises(ConfigError, match=r"x\[0\] holds a NaN or an infinity"):
        layer.cell.update_pending(0.1)
    after = layer.state_dict()
    assert torch.equal(after["cell.arrays.0.weight"], before["cell.arrays.0.weight"])
    assert layer.cell.array.counts().update == 0


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "channels": ({"in_channels": 0}, "in_channels is 0; use an integer >= 1"),
    "groups": ({"groups": 3}, "in_channels is 4; use a multiple of groups = 3"),
    "kernel": ({"kernel_size": 0}, r"kernel_size is 0; use an integer >= 1 or 2 of them"),
    "stride": ({"stride": (1, 2, 3)}, r"stride is \(1, 2, 3\); use an integer >= 1 or 2"),
    "padding": ({"padding": "some"}, "padding is 'some'; use integers >= 0, 'same' or 'valid'"),
    "same": ({"padding": "same", "stride": 2}, "padding is 'same' with stride"),
    "mode": ({"padding_mode": "mirror"}, "padding_mode is 'mirror'; use one of zeros, reflect"),
    "setting": ({"devise": "ideal"}, "devise is no setting of a crossbar"),
    "averages": (
        {
            "groups": 2,
            "io": pl.configs.IOConfig(
                pl.configs.ReadConfig(noise_management="average_abs_max"),
                pl.configs.ReadConfig(),
            ),
        },
        "noise_management is 'average_abs_max' with groups = 2; use 'abs_max', or one group",
    ),
}


@pytest.mark.parametrize(("changes", "words"), BAD.values(), ids=BAD.keys())
def test_bad_arguments(changes: dict[str, Any], words: str) -> None:
    given = {"in_channels": 4, "out_channels": 6, "kernel_size": 3} | changes
    with pytest.raises(ConfigError, match=words) as raised:
        pl.nn.AnalogConv2d(**given)
    assert "\n" not in str(raised.value)


def test_bad_images() -> None:
    layer = pl.nn.AnalogConv2d(4, 6, 3, padding=1, padding_mode="reflect")
    for x, words in (
        (torch.zeros(2, 3, 5, 5), r"x has shape \(2, 3, 5, 5\); use \(samples, 4, height, width\)"),
        (torch.zeros(5), r"x has shape \(5,\)"),
        (torch.zeros(1, 4, 5, 5).double(), "x has dtype torch.float64; convert it with .float"),
        (torch.zeros(1, 4, 1, 5), "padding is 1 with padding_mode 'reflect' on a size of 1"),
    ):
        with pytest.raises(ConfigError, match=words):
            layer(x)
    with pytest.raises(ConfigError, match="leaves no output position under a kernel of 3"):
        pl.nn.AnalogConv2d(1, 1, 3)(torch.zeros(1, 1, 2, 5))


MEMORY = """
import resource, torch, pulseline as pl
torch.set_num_threads(1)
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
layer = pl.nn.AnalogConv2d(64, 16, 3, padding=1, bias=False, seed=0)
x = torch.randn(2, 64, 16, 16, requires_grad=True)
layer(x).sum().backward(); layer.cell.update_pending(0.01)  # scratch, libraries
x = torch.randn(8, 64, 112, 112).relu_().requires_grad_()
d = torch.randn(8, 16, 112, 112) / 1e5
image, errors = x.numel() / 2**18, d.numel() / 2**18
before = peak()
y = layer(x); forward = peak() - before - errors  # y
y.backward(d); backward = peak() - before - 2 * image - 2 * errors  # grad, and the pending pair
layer.cell.update_pending(0.01); update = peak() - before - 2 * image - 2 * errors
print(forward, backward, update, image * 9)
"""


def test_no_unfolded_copy_exists() -> None:
    """Beyond what stays: y, the gradient, image and errors that are pending; MB."""
    run = [sys.executable, "-c", MEMORY]
    out = subprocess.run(run, capture_output=True, text=True, check=True).stdout
    *extra, unfolded = map(float, out.split())
    assert unfolded > 200
    assert max(extra) <= 64, extra

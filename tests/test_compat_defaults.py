"""What classes of aihwkit set by themselves converts, limits of bound management included."""

from __future__ import annotations

import pytest
import torch

import aihwkit_standins as theirs
import pulseline as pl
from pulseline.compat import from_aihwkit
from pulseline.compat.single import MODELS

pytestmark = pytest.mark.filterwarnings("ignore:aihwkit")


@pytest.mark.parametrize("name", MODELS)
def test_every_device_of_theirs_converts_with_its_defaults(name: str) -> None:
    """Whatever a class sets by itself cannot be left out, so it must mean something here."""
    device = from_aihwkit(theirs.SingleRPUConfig(device=getattr(theirs, name)())).device
    tile = pl.Array(3, 4, device)
    tile.pulse(torch.ones(2, 4), torch.ones(2, 3), 0.01)
    assert (tile.weight.data < 0).any()


def test_a_curve_of_one_node_is_constant() -> None:
    curve = theirs.PiecewiseStepDevice(piecewise_up=[1.5], piecewise_down=[0.5, 1.0])
    device = from_aihwkit(theirs.SingleRPUConfig(device=curve)).device
    assert isinstance(device, pl.devices.PiecewiseStep)
    assert (device.piecewise_up, device.piecewise_down) == ((1.5, 1.5), (0.5, 1.0))


def test_bound_management_takes_the_first_scale_above_the_limit() -> None:
    """512 inputs of 1 on weights of .45 at the limit .25 x 126 = 31.5: beta = 32 passes.

    The range is then 32 x 12 = 384 and holds them; 16 x 12 = 192 would cut them. Between them and
    230.4 lie the converters: an input 1/32 is 2 of the steps 2/126, outputs are multiples of 2/510
    of 384: 512 x .45 x 32 x 4/126 = 234.06 is 155 of these.
    """
    config = theirs.SingleRPUConfig(forward=theirs.IOParameters(out_noise=0.0))
    io, update, mapping = from_aihwkit(config)[1:4]
    array = pl.Array(1, 512, "ideal", io=io, update=update, mapping=mapping)
    array.program(torch.full((1, 512), 0.45))
    assert array.read(torch.ones(1, 512)).item() == pytest.approx(155 * 2 / 510 * 384, rel=1e-6)
    for most, rounds in ((1000, 10), (1024, 11), (1, 1)):  # 2^rounds is the first above
        limits = theirs.IOParameters(max_bm_factor=most, max_bm_res=0.0)
        found = from_aihwkit(theirs.SingleRPUConfig(forward=limits))
        assert found.io.forward.max_rounds == rounds


def test_what_comes_back_is_a_crossbar() -> None:
    found = from_aihwkit(theirs.SingleRPUConfig(device=theirs.SoftBoundsDevice()))
    crossbar = pl.Crossbar(*found)
    assert (crossbar.device, crossbar.io) == (found.device, found.io)
    assert (crossbar.update, crossbar.mapping) == (found.update, found.mapping)
    pl.to_analog(torch.nn.Linear(3, 3), crossbar)

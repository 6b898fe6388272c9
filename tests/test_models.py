"""Networks by name: shapes, cuts, conversion, classes of a user's file."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
from torch import nn

import pulseline as pl
from pulseline.errors import ConfigError
from pulseline.models import Sizes, digital, lenet, mlp, on_crossbars
from pulseline.pipeline import Pipeline, staleness
from pulseline.pipeline.split import split
from pulseline.train import loss_of

IMAGES, TEXT = Sizes((1, 8, 8), 10), Sizes((12,), 256, 16, 2, 2)
CASES = {
    "mlp": Sizes((1, 6, 6), 5),
    "lenet": IMAGES,
    "resnet": Sizes((3, 8, 8), 10, 4),
    "gpt": TEXT,
}


def example(name: str, sizes: Sizes, count: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    if name == "gpt":
        x = torch.randint(256, (count, *sizes.shape), generator=generator)
        return x, x
    x = torch.rand(count, *sizes.shape, generator=generator)
    labels = torch.randint(sizes.classes, (count,), generator=generator)
    return x.flatten(1) if name == "mlp" else x, labels


@pytest.mark.parametrize("name", CASES)
def test_they_convert_and_are_cut_anywhere(name: str) -> None:
    """The parts are the model; asynchronous training on four stages with audited staleness."""
    sizes = CASES[name]
    model = digital(name, 3, sizes)
    x, y = example(name, sizes, 8)
    stages = 3 if name == "mlp" else 4
    model.eval()
    value, want = x, model(x)
    for part in split(model, stages):
        value = part(value)
    assert torch.equal(value, want)
    assert want.shape == (*y.shape, sizes.classes)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        analog = on_crossbars(model.train(), "soft_bounds", 3)
    matrices = {id(m) for m in model.modules() if isinstance(m, (nn.Linear, nn.Conv2d))}
    assert sum(isinstance(m, pl.Array) for m in analog.modules()) == len(matrices)
    with Pipeline(
        analog,
        stages,
        optimizer=lambda parameters: pl.optim.AnalogSGD(parameters, lr=0.05),
        loss=loss_of,
        micro_batch_size=1,
    ) as pipe:
        pipe.step(x, y)
        pipe.drain()
        assert [max(counts) for counts in staleness(pipe)] == [*range(stages - 1, -1, -1)]


@pytest.mark.parametrize("name", CASES)
def test_weights_are_a_function_of_the_seed(name: str) -> None:
    sizes = CASES[name]
    torch.manual_seed(1)
    before = torch.get_rng_state()
    one = pl.digest(digital(name, 3, sizes).state_dict())
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert pl.digest(digital(name, 3, sizes).state_dict()) == one
    assert pl.digest(digital(name, 4, sizes).state_dict()) != one


def test_sizes() -> None:
    assert pl.digest(digital("mlp", 2, IMAGES).state_dict()) == pl.digest(mlp(2).state_dict())
    # LeNet-5: 61,706 parameters on images of 28 x 28 (156, 2,416, 48,120, 10,164, 850)
    assert sum(p.numel() for p in lenet().parameters()) == 61_706
    for shape in ((1, 4, 4), (1, 8, 8), (3, 16, 17), (3, 32, 32)):
        assert lenet(shape)(torch.zeros(2, *shape)).shape == (2, 10)
    layers = list(digital("resnet", 0, Sizes((3, 32, 32), 10)).modules())
    convolutions = [m for m in layers if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
    assert len(convolutions) + sum(isinstance(m, nn.Linear) for m in layers) == 10
    gpt = digital("gpt", 0, TEXT)
    x, _ = example("gpt", TEXT)
    other = x.clone()
    other[:, 7] = 255 - other[:, 7]
    assert torch.equal(gpt(x)[:, :7], gpt(other)[:, :7])  # nobody sees what comes later
    assert not torch.equal(gpt(x)[:, 7:], gpt(other)[:, 7:])


@pytest.mark.parametrize(
    ("name", "sizes", "told"),
    [
        ("vgg", IMAGES, "model is 'vgg'; use one of mlp, lenet, resnet, gpt, or FILE.py:Class"),
        ("gpt", IMAGES, "model is 'gpt' for images; use mlp, lenet or resnet"),
        ("mlp", TEXT, "model is 'mlp' for text; use gpt"),
        ("lenet", Sizes((1, 8, 8), 10, 16), "width is 16 for lenet, which has none; leave it out"),
        ("resnet", Sizes((1, 8, 8), 10, None, 3), "layers is 3 for resnet, which has none"),
        ("lenet", Sizes((1, 3, 9), 10), "images are 3 x 9; use at least 4 x 4"),
        ("gpt", Sizes((8,), 256, 10, 1, 4), "width is 10; use a multiple of the 4 heads"),
    ],
)
def test_networks_that_do_not_fit(name: str, sizes: Sizes, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        digital(name, 0, sizes)


FILE = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(64, 12), nn.Linear(12, 10)

    def forward(self, x):
        return self.two(torch.tanh(self.one(x.flatten(1))))

class Wants(nn.Module):
    def __init__(self, size):
        super().__init__()

def number():
    return 7
"""


def test_a_class_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "own_net.py"
    file.write_text(FILE)
    made = digital(f"{file}:Net", 1, IMAGES)
    assert made(torch.zeros(2, 1, 8, 8)).shape == (2, 10)
    again = digital(f"{file}:Net", 1, IMAGES)
    assert pl.digest(made.state_dict()) == pl.digest(again.state_dict())
    (tmp_path / "broken.py").write_text("import nothing_of_that_name")
    for name, told in (
        (f"{file}:Nat", "has no such class; use one of Net, Wants"),
        (str(file), "has no such class; use one of Net, Wants"),
        (f"{file}:Wants", "raises TypeError .*; make it run without arguments"),
        (f"{file}:number", "gives a int; give an nn.Module"),
        (f"{tmp_path}/none.py:Net", "and there is no file .*none.py; use FILE.py:Class"),
        (f"{tmp_path}/broken.py:Net", "raises ModuleNotFoundError .No module named"),
    ):
        with pytest.raises(ConfigError, match=told):
            digital(name, 0, IMAGES)

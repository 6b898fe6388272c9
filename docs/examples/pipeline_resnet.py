"""Digits by a residual network on crossbars, asynchronously on five stages."""

from functools import partial

import torch
from torch import nn

import pulseline as pl
from pulseline.data import load_digits


class Residual(nn.Sequential):
    def forward(self, x):
        return torch.relu(x + super().forward(x))  # the skip rides across the cuts inside


torch.manual_seed(0)
data = load_digits()
x, x_test = data.x_train.view(-1, 1, 8, 8), data.x_test.view(-1, 1, 8, 8)
blocks = [Residual(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8)) for _ in range(3)]
head = [nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8 * 16, 10)]
digital = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), *blocks, *head)
model = pl.to_analog(digital, "ecram", seed=0)
balance = pl.cost.balance(model, 5, example=x[:1])  # by modelled time
loss = nn.functional.cross_entropy
make = partial(pl.optim.AnalogSGD, lr=0.05)
pipe = pl.Pipeline(model, 5, balance=balance, optimizer=make, loss=loss, micro_batch_size=8)
for rows in (torch.randperm(len(x)) for _ in range(10)):
    pipe.step(x[rows], data.y_train[rows])
print(f"test: {(pipe.eval(x_test).argmax(1) == data.y_test).float().mean():.1%}")

"""Digits read row by row by two LSTMs on crossbars, asynchronously on three stages."""

from functools import partial

import torch
from torch import nn

import pulseline as pl
from pulseline.data import load_digits


class Reader(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = (nn.LSTM(n, 32, batch_first=True) for n in (8, 32))
        self.head = nn.Linear(32, 10)

    def forward(self, rows):
        states, (last, _) = self.first(rows)
        return self.head(self.second(states)[0][:, -1] + last[0])  # last rides past the second


torch.manual_seed(0)
data = load_digits()
make = partial(pl.optim.AnalogSGD, lr=0.2)
loss, where = nn.functional.cross_entropy, ["second", "head"]  # what stages 2 and 3 begin with
model = pl.to_analog(Reader(), "capacitor", seed=0)
pipe = pl.Pipeline(model, where, optimizer=make, loss=loss, micro_batch_size=8)
for rows in (torch.randperm(len(data.x_train)) for _ in range(8)):
    pipe.step(data.x_train[rows].view(-1, 8, 8), data.y_train[rows])
right = pipe.eval(data.x_test.view(-1, 8, 8)).argmax(1) == data.y_test
print(f"test: {right.float().mean():.1%}")

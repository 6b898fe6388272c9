"""Digits read row by row by an LSTM on crossbars."""

import torch
from torch import nn

import pulseline as pl
from pulseline.data import load_digits

torch.manual_seed(0)
data = load_digits()
digital = nn.ModuleDict({"lstm": nn.LSTM(8, 32, batch_first=True), "head": nn.Linear(32, 10)})
model = pl.to_analog(digital, "capacitor", seed=0)
optimizer = pl.optim.AnalogSGD(model.parameters(), lr=0.3)
for _ in range(8):
    for rows in torch.randperm(len(data.x_train)).split(16):
        optimizer.zero_grad()
        states, _ = model["lstm"](data.x_train[rows].view(-1, 8, 8))
        nn.functional.cross_entropy(model["head"](states[:, -1]), data.y_train[rows]).backward()
        optimizer.step()
states, _ = model.eval()["lstm"](data.x_test.view(-1, 8, 8))
right = model["head"](states[:, -1]).argmax(1) == data.y_test
print(f"test: {right.float().mean():.1%}")

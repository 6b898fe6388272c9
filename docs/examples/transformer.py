"""Digits as sequences of eight rows by a transformer whose projections are on crossbars."""

import torch
from torch import nn

import pulseline as pl
from pulseline.data import load_digits

torch.manual_seed(0)
data = load_digits()
layer = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.0, batch_first=True)
digital = nn.Sequential(nn.Linear(8, 32), nn.TransformerEncoder(layer, 2), nn.Flatten())
digital.append(nn.Linear(8 * 32, 10))
model = pl.to_analog(digital, "ecram", seed=0)
print(pl.nn.conversion(model))
optimizer = pl.optim.AnalogSGD(model.parameters(), lr=0.02)
for _ in range(4):
    for rows in torch.randperm(len(data.x_train)).split(16):
        optimizer.zero_grad()
        y = model(data.x_train[rows].view(-1, 8, 8))
        nn.functional.cross_entropy(y, data.y_train[rows]).backward()
        optimizer.step()
right = model.eval()(data.x_test.view(-1, 8, 8)).argmax(1) == data.y_test
print(f"test: {right.float().mean():.1%}")

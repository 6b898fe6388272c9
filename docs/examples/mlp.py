"""Digits by a network of three linear layers on crossbars, and back to torch."""

import torch
from torch import nn

import pulseline as pl
from pulseline.data import load_digits

torch.manual_seed(0)
data = load_digits()
digital = nn.Sequential(nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 10))
model = pl.to_analog(digital, "ecram", seed=0)
optimizer = pl.optim.AnalogSGD(model.parameters(), lr=0.05)
for _ in range(6):
    for rows in torch.randperm(len(data.x_train)).split(16):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(data.x_train[rows]), data.y_train[rows]).backward()
        optimizer.step()
for bits in (4, 6, 8):  # the same weights under other converters
    read = pl.configs.ReadConfig(inp_res=2.0**-bits, out_res=2.0**-bits)
    pl.nn.reconfigure(model, io=pl.configs.IOConfig(forward=read)).eval()
    right = model(data.x_test).argmax(1) == data.y_test
    print(f"{bits} bits: {right.float().mean():.1%}")
print(f"torch: {(pl.to_digital(model)(data.x_test).argmax(1) == data.y_test).float().mean():.1%}")

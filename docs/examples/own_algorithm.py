"""Digits by an algorithm of one's own: Tiki-Taka whose buffer forgets a little at each read."""

from dataclasses import dataclass

import torch
from torch import nn

import pulseline as pl
from pulseline.data import load_digits


@dataclass(frozen=True)
class Leaky(pl.algorithms.Transfer):
    keep: float = 0.9

    def start(self, cell):
        cell.zeros("H")  # (rows, cols), which states and copies take along

    def transfer(self, cell, columns, z, rate):  # z: reads of these columns of the fast array
        h = self.keep * cell.H[:, columns] + rate * z
        n = h.trunc().clamp(-self.max_pulses, self.max_pulses)
        cell.H[:, columns] = h - n
        return n  # whole pulses of the slow array


if __name__ == "__main__":
    torch.manual_seed(0)
    data, rule = load_digits(), Leaky(lr_fast=0.5, lr_transfer=2.0)
    model = nn.Sequential(nn.Linear(64, 36), nn.Tanh(), nn.Linear(36, 10))
    model = pl.to_analog(model, pl.devices.SoftBounds(), algorithm=rule, seed=0)
    optimizer = pl.optim.AnalogSGD(model.parameters(), lr=0.5)
    for _ in range(8):
        for rows in torch.randperm(len(data.x_train)).split(8):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(data.x_train[rows]), data.y_train[rows]).backward()
            optimizer.step()
    right = model.eval()(data.x_test).argmax(1) == data.y_test
    print(f"own: {right.float().mean():.1%}")

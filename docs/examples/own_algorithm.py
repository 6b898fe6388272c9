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
    data, device = load_digits(), pl.devices.SoftBounds()
    model = nn.Sequential(nn.Linear(64, 36), nn.Tanh(), nn.Linear(36, 10))
    model = pl.to_analog(model, device, algorithm=Leaky(lr_fast=0.5, lr_transfer=2.0), seed=0)
    make = lambda p: pl.optim.AnalogSGD(p, lr=0.5)
    pipe = pl.Pipeline(
        model,
        2,
        optimizer=make,
        loss=nn.functional.cross_entropy,
        micro_batch_size=8,
        executor="threads",
    )
    for _ in range(8):
        order = torch.randperm(len(data.x_train))
        pipe.step(data.x_train[order], data.y_train[order])
    pipe.drain()
    print(f"own: {(pipe.eval(data.x_test).argmax(1) == data.y_test).float().mean():.1%}")

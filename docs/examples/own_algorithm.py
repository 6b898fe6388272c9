"""Digits by an algorithm of one's own: Tiki-Taka whose buffer forgets a little at each read."""

from dataclasses import dataclass

import torch
from torch import nn

import pulseline as pl
from pulseline import data, train


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
    rule = Leaky(lr_fast=0.1)
    model = nn.Sequential(nn.Linear(64, 36), nn.Tanh(), nn.Linear(36, 10))
    model = pl.to_analog(model, pl.devices.SoftBounds(), algorithm=rule, seed=0)
    pipe = train.pipeline(model, 2, lr=0.5, micro_batch_size=8, executor="threads")
    run = train.train(pipe, data.load_digits(), train.Recipe(epochs=8, lr=0.5, decay=1.0))
    print(f"own: {run.accuracy:.1f}%")

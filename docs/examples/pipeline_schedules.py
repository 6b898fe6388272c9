"""Digits with a rate for every micro-batch, on a schedule of one's own, with delays that vary."""

from functools import partial

from torch import nn

import pulseline as pl
from pulseline.data import load_digits

data = load_digits()
first, middle = "F0 F1 B0 U0 F2 B1 U1 F3 B2 U2 B3 U3", "F0 B0 U0 F1 B1 U1 F2 B2 U2 F3 B3 U3"
last = "F0 B0 F1 B1 U1 F2 B2 F3 B3 U3"  # an update for two micro-batches
own = pl.schedules.from_ops([first, middle, last])
late = pl.schedules.Delayed(lambda stage, k: (3 - stage) * (k % 3))
make, loss = partial(pl.optim.AnalogSGD, lr=0.1), nn.functional.cross_entropy
rate = {"lr_factor": lambda k: 1 / (1 + k / 1000)}
for plan in ("async", own, late):
    layers = nn.Linear(64, 48), nn.Tanh(), nn.Linear(48, 32), nn.Tanh(), nn.Linear(32, 10)
    model = pl.to_analog(nn.Sequential(*layers), "ecram", seed=0)
    pipe = pl.Pipeline(model, 3, plan, optimizer=make, loss=loss, micro_batch_size=2, **rate)
    pipe.step(data.x_train, data.y_train)
    moment = pipe.eval(data.x_test, snapshot=True)  # what is in flight goes on
    print(pl.pipeline.staleness(pipe))
    right = (pipe.eval(data.x_test).argmax(1) == data.y_test).float().mean()
    print(f"test: {right:.1%}")

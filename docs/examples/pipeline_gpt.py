"""A GPT on crossbars learns to count on in steps of 1, 2 or 3, asynchronously on four stages."""

from functools import partial

import torch
from torch import nn

import pulseline as pl


class GPT(nn.Module):
    def __init__(self, width=32, make=nn.TransformerEncoderLayer):
        super().__init__()
        self.tokens, self.positions = nn.Embedding(10, width), nn.Embedding(8, width)
        self.blocks = nn.ModuleList(make(width, 4, 64, 0.0, batch_first=True) for _ in "ab")
        self.head = nn.Linear(width, 10)

    def forward(self, ids):
        mask = nn.Transformer.generate_square_subsequent_mask(ids.shape[1])
        x = self.tokens(ids) + self.positions(torch.arange(ids.shape[1]))
        x = self.blocks[1](self.blocks[0](x, mask), mask)  # the mask rides along
        return self.head(x).transpose(1, 2)


torch.manual_seed(0)
start, step = torch.randint(10, (2, 3000, 1))
ids = (start + (1 + step % 3) * torch.arange(9)) % 10
make, loss = partial(pl.optim.AnalogSGD, lr=0.05), nn.functional.cross_entropy
model, where = pl.to_analog(GPT(), "ecram", seed=0), ["blocks.0", "blocks.1", "head"]
pipe = pl.Pipeline(model, where, optimizer=make, loss=loss, micro_batch_size=8)
pipe.step(ids[:2800, :-1], ids[:2800, 1:])
right = pipe.eval(ids[2800:, :-1]).argmax(1)[:, 1:] == ids[2800:, 2:]
print(f"test: {right.float().mean():.1%}")

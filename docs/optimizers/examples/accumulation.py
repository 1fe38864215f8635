"""Gradient accumulation with unequal microbatches: weights are the numbers of tokens."""

import torch

from deltabias.microbatch import MicrobatchStats
from deltabias.optim import AdamW

torch.manual_seed(0)
model = torch.nn.Linear(8, 1)
stats = MicrobatchStats(model.parameters())
optimizer = AdamW(model.parameters(), lr=1e-2, betas=(0.9, 0.95))
optimizer.attach(stats)

for _ in range(5):
    optimizer.zero_grad()
    parts = [torch.randn(tokens, 8) for tokens in (7, 12, 9, 4)]
    total = sum(len(part) for part in parts)
    for part in parts:
        with stats.microbatch(weight=len(part)):
            (model(part).square().sum() / total).backward()
    optimizer.step()

print("steps corrected:", optimizer.validity().corrected)

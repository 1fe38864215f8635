"""A plain loop: the optimizer looks at the microbatches of each step."""

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
    batch = torch.randn(32, 8)
    for part in batch.chunk(4):  # one batch, four microbatches
        with stats.microbatch():
            (model(part).square().mean() / 4).backward()
    optimizer.step()

print("steps corrected:", optimizer.validity().corrected)

"""Hugging Face Accelerate: attach before `prepare`, one `microbatch` around each backward."""

import torch
from accelerate import Accelerator

from deltabias.microbatch import MicrobatchStats
from deltabias.optim import AdamW

torch.manual_seed(0)
accelerator = Accelerator(cpu=True, gradient_accumulation_steps=4)
model = torch.nn.Linear(8, 1)
stats = MicrobatchStats(model.parameters())
optimizer = AdamW(model.parameters(), lr=1e-2, betas=(0.9, 0.95))
optimizer.attach(stats)
prepared_model, prepared_optimizer = accelerator.prepare(model, optimizer)

for part in torch.randn(20, 8, 8):  # 20 microbatches, 5 steps
    with accelerator.accumulate(prepared_model):
        loss = prepared_model(part).square().mean()
        with stats.microbatch():
            accelerator.backward(loss)
        prepared_optimizer.step()
        prepared_optimizer.zero_grad()

print("steps corrected:", optimizer.validity().corrected)

"""Optimizers whose mean update is the one their rule is meant to make.

Drop-in replacements for their namesakes, with ``correction=`` and microbatch statistics:

    stats = MicrobatchStats(model.parameters())
    optimizer = AdamW(model.parameters(), lr=1e-3)
    optimizer.attach(stats)                      # once, before any wrapper
    for batch in microbatches:
        with stats.microbatch():
            (loss(batch) / len(microbatches)).backward()
    optimizer.step()
    optimizer.zero_grad()
"""

from deltabias.optim.adamw import AdamW
from deltabias.optim.fused import SlowStepWarning
from deltabias.optim.meter import Validity
from deltabias.optim.muon import Muon
from deltabias.optim.rmsprop import RMSprop
from deltabias.optim.shampoo import Shampoo
from deltabias.optim.shampoo_meter import MatrixValidity
from deltabias.optim.sophia import SophiaG

__all__ = [
    "AdamW",
    "MatrixValidity",
    "Muon",
    "RMSprop",
    "Shampoo",
    "SlowStepWarning",
    "SophiaG",
    "Validity",
]

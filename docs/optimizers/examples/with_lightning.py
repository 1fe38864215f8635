"""Lightning: the module's `backward` is a microbatch."""

import lightning
import torch

from deltabias.microbatch import MicrobatchStats
from deltabias.optim import AdamW


class Module(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = torch.nn.Linear(8, 1)

    def configure_optimizers(self):
        self.stats = MicrobatchStats(self.parameters())
        optimizer = AdamW(self.parameters(), lr=1e-2, betas=(0.9, 0.95))
        optimizer.attach(self.stats)
        return optimizer

    def training_step(self, batch, index):
        return self.net(batch).square().mean()

    def backward(self, loss):
        with self.stats.microbatch():
            loss.backward()


torch.manual_seed(0)
data = torch.utils.data.DataLoader(torch.randn(160, 8), batch_size=8)
trainer = lightning.Trainer(
    max_epochs=1, accumulate_grad_batches=4, accelerator="cpu", logger=False,
    enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
)  # fmt: skip
module = Module()
trainer.fit(module, data)
print("steps corrected:", module.optimizers().optimizer.validity().corrected)

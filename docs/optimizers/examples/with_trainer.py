"""The Hugging Face Trainer: each `training_step` is a microbatch."""

import tempfile

import torch
from transformers import Trainer, TrainingArguments

from deltabias.microbatch import MicrobatchStats
from deltabias.optim import AdamW


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.net = torch.nn.Linear(8, 1)

    def forward(self, x, labels=None):
        return {"loss": self.net(x).square().mean()}


class CorrectedTrainer(Trainer):
    def create_optimizer(self, *arguments, **keywords):
        if self.optimizer is None:
            self.stats = MicrobatchStats(self.model.parameters())
            self.optimizer = AdamW(self.model.parameters(), lr=1e-2, betas=(0.9, 0.95))
            self.optimizer.attach(self.stats)
            self.corrected = self.optimizer  # the Trainer wraps what it holds
        return self.optimizer

    def training_step(self, *arguments, **keywords):
        with self.stats.microbatch():
            return super().training_step(*arguments, **keywords)


torch.manual_seed(0)
data = [{"x": row, "labels": row[:1]} for row in torch.randn(160, 8)]
with tempfile.TemporaryDirectory() as folder:
    settings = TrainingArguments(
        folder, max_steps=5, per_device_train_batch_size=8, gradient_accumulation_steps=4,
        max_grad_norm=0, use_cpu=True, report_to=[], save_strategy="no", disable_tqdm=True,
        logging_strategy="no",
    )  # fmt: skip
    trainer = CorrectedTrainer(model=Model(), args=settings, train_dataset=data)
    trainer.train()
print("steps corrected:", trainer.corrected.validity().corrected)

"""A small byte-level transformer in plain torch: pre-norm, untied, no dropout."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

BYTES = 256


class Block(nn.Module):
    """Causal self-attention and a four times wider perceptron, each on a normalized copy."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_attention = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.project = nn.Linear(width, width, bias=False)
        self.norm_perceptron = nn.LayerNorm(width)
        self.up = nn.Linear(width, 4 * width, bias=False)
        self.down = nn.Linear(4 * width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        shape = (batch, length, 3, self.heads, width // self.heads)
        query, key, value = self.qkv(self.norm_attention(x)).view(shape).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.project(attended.transpose(1, 2).reshape(batch, length, width))
        return x + self.down(F.gelu(self.up(self.norm_perceptron(x))))


class ByteTransformer(nn.Module):
    """Logits of the next byte: int64 ``[batch, length]`` to ``[batch, length, 256]``.

    With the defaults 0.86 million parameters. Weights are drawn with variance 1/inputs, those that
    write into the residual stream with 1/(2 · blocks) of that; the head starts near zero, so that
    the first loss is log 256.
    """

    def __init__(
        self, *, width: int = 128, blocks: int = 4, heads: int = 4, context: int = 64
    ) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"{width=} is not a multiple of {heads=}; choose one that is.")
        self.context = context
        self.embedding = nn.Embedding(BYTES, width)
        self.position = nn.Embedding(context, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(blocks))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, BYTES, bias=False)
        for name, parameter in self.named_parameters():
            if parameter.dim() >= 2:
                nn.init.normal_(parameter, std=self._scale(name, parameter.shape[1], blocks))

    @staticmethod
    def _scale(name: str, inputs: int, blocks: int) -> float:
        fixed = {"embedding.weight": 1.0, "position.weight": 0.3, "head.weight": 0.02}
        if name in fixed:
            return fixed[name]
        writes = name.endswith(("project.weight", "down.weight"))
        return (2 * blocks) ** -0.5 * inputs**-0.5 if writes else inputs**-0.5

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens) + self.position.weight[: tokens.shape[1]]
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))

    def loss(self, windows: Tensor) -> Tensor:
        """Mean cross-entropy in nats per byte over int64 ``[batch, context + 1]``."""
        logits = self(windows[:, :-1])
        return F.cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten())


def build(seed: int, **shape: int) -> ByteTransformer:
    """A model whose weights depend on the seed alone; the global generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return ByteTransformer(**shape)

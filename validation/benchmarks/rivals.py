"""A step of our optimizers beside what a user would pick instead, in turn within one run.

The parameters are those of a small transformer. Gradients, and the statistics of their
microbatches where an optimizer takes them, are ready before the clock starts: what is timed is
``step()``. A package that is not installed is skipped by name.
"""

import statistics
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from deltabias.microbatch import MicrobatchStats
from deltabias.optim import AdamW, Shampoo
from validation.benchmarks.pairs import interleaved, ratio

CLAIM = "a step beside torch's, heavyball's and pytorch-optimizer's, reported, nothing claimed"
PACKAGES = ("heavyball", "pytorch-optimizer")
WIDTH, LAYERS = 256, 4
MICROBATCHES = 4
LR = 1e-4
Make = Callable[[list[Tensor]], torch.optim.Optimizer]


def shapes() -> list[tuple[int, ...]]:
    """A transformer's: 3.4 million parameters, 52 tensors."""
    layer = [(3 * WIDTH, WIDTH), (WIDTH, WIDTH), (4 * WIDTH, WIDTH), (WIDTH, 4 * WIDTH)]
    vectors = [(3 * WIDTH,), (WIDTH,), (4 * WIDTH,), (WIDTH,)] + [(WIDTH,)] * 4
    return [(256, WIDTH), (128, WIDTH), *(s for _ in range(LAYERS) for s in (*layer, *vectors))]


def elementwise() -> dict[str, Make]:
    """AdamW, by everybody; torch's fused one is what the others are compared with."""

    def of_torch(**flag: bool) -> Make:
        return lambda params: torch.optim.AdamW(params, lr=LR, **flag)

    def of_ours(**options: Any) -> Make:
        return lambda params: AdamW(params, lr=LR, **options)

    made = {
        "torch fused": of_torch(fused=True),
        "torch foreach": of_torch(foreach=True),
        "torch for-loop": of_torch(foreach=False),
        "deltabias off, fused": of_ours(correction="none", fused=True),
        "deltabias off": of_ours(correction="none"),
        "deltabias delta, fused": of_ours(fused=True),
        "deltabias closed_form, fused": of_ours(correction="closed_form", fused=True),
        "deltabias delta": of_ours(),
    }
    if find_spec("heavyball"):
        import heavyball

        made["heavyball AdamW"] = lambda params: heavyball.AdamW(params, lr=LR)
    return made


def of_matrices() -> dict[str, Make]:
    """Shampoo and SOAP, preconditioners renewed at every tenth step."""

    def of_ours(correction: str, **more: int) -> Make:
        return lambda params: Shampoo(
            params, lr=LR, correction=correction, refresh=10, block_size=WIDTH, damping=1e-6, **more
        )

    made = {
        "deltabias Shampoo off": of_ours("plug_in"),
        "deltabias Shampoo full": of_ours("full"),
        "deltabias Shampoo full, spread_every=10": of_ours("full", spread_every=10),
        "deltabias Shampoo diagonal": of_ours("diagonal"),
    }
    if find_spec("pytorch_optimizer"):
        import pytorch_optimizer

        made["pytorch-optimizer Shampoo"] = lambda params: pytorch_optimizer.ScalableShampoo(
            params, lr=LR, preconditioning_compute_steps=10, block_size=WIDTH
        )
        made["pytorch-optimizer SOAP"] = lambda params: pytorch_optimizer.SOAP(
            params, lr=LR, precondition_frequency=10
        )
    if find_spec("heavyball"):
        import heavyball

        made["heavyball SOAP"] = lambda params: heavyball.SOAP(
            params, lr=LR, precondition_frequency=10
        )
    return made


LIKE = {
    "pytorch-optimizer Shampoo": "as ours: blocks, fp32, statistics each step, root 4 each 10th; "
    "besides, SGD grafting and Nesterov; iterated roots, where ours are eigh's",
    "pytorch-optimizer SOAP": "another rule: Adam in the eigenbasis, QR each 10th step",
    "heavyball SOAP": "another rule: Adam in the eigenbasis, QR each 10th step",
}
"""What is the same in a rival of Shampoo, and what is not."""


def with_renewals(times: dict[str, list[float]], name: str) -> dict[str, Any]:
    """A median sees the steps between renewals alone; the mean over all rounds sees those, too."""
    mean = round(1e3 * statistics.fmean(times[name]), 4)
    return {"mean_milliseconds": mean, "compared": LIKE.get(name, "")}


class _Runner:
    """Parameters, an optimizer, and gradients that are ready before each step."""

    def __init__(self, make: Make, generator: torch.Generator):
        self.params = [
            torch.nn.Parameter(0.02 * torch.randn(s, generator=generator)) for s in shapes()
        ]
        self.grads = [
            [1e-3 * torch.randn(p.shape, generator=generator) for p in self.params]
            for _ in range(MICROBATCHES)
        ]
        self.optimizer = make(self.params)
        self.stats = None
        if isinstance(self.optimizer, AdamW) and self.optimizer.defaults["correction"] != "none":
            self.stats = MicrobatchStats(self.params, moments=3)
            self.optimizer.attach(self.stats)

    def prepare(self) -> None:
        for param in self.params:
            param.grad = None
        for grads in self.grads:
            loss = sum((p * g).sum() for p, g in zip(self.params, grads, strict=True))
            if self.stats is None:
                (loss / MICROBATCHES).backward()
            else:
                with self.stats.microbatch():
                    (loss / MICROBATCHES).backward()

    def step(self) -> None:
        self.optimizer.step()


def rows() -> Iterator[dict[str, Any]]:
    """One line for each optimizer, with its time over that of the first of its kind."""
    torch.set_num_threads(1)
    for kind, makes in (("AdamW", elementwise()), ("matrices", of_matrices())):
        runners = {
            name: _Runner(make, torch.Generator().manual_seed(0)) for name, make in makes.items()
        }
        base = next(iter(makes))
        times = interleaved(
            {name: r.step for name, r in runners.items()},
            rounds=30,
            limit=60,
            warm=11,
            before=lambda name, runners=runners: runners[name].prepare(),
        )
        for name in makes:
            more = with_renewals(times, name) if kind == "matrices" else {}
            found = ratio(times, name, base)
            yield {"kind": kind, "optimizer": name, "beside": base, **found, **more}
    for package in ("heavyball", "pytorch_optimizer"):
        if not find_spec(package):
            yield {"kind": "skipped", "optimizer": f"{package} is not installed"}

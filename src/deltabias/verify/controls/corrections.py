"""Wrong corrections, one line from right ones: what `check_bias` is shown to reject.

Every update maps float64 [replicates, microbatches] to [replicates] and claims a bias of second
order. Three rules: 1/x and x^(−1/2) of the mean of a positive statistic, and one step of Adam fed
with the mean of squares, g/(√v + ε).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from deltabias.truth import Law, law

EPS = 0.5
MICROBATCHES = 16

Update = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Correction:
    """An update that claims to be corrected.

    ``removed`` is the share of the plug-in's leading bias that it takes away where that is known
    beforehand: 1 where it is right.
    """

    name: str
    update: Update
    rule: str
    law: Law
    hypers: dict[str, float]
    removed: float | None = None
    microbatches: int = MICROBATCHES


# -- maps of one mean -----------------------------------------------------------------------------


def inverse(x: Tensor, *, share: float = 1.0, power: int = 3, variance=None) -> Tensor:
    """1/x̄ less ``share`` of Var x̄ / x̄³."""
    mean = x.mean(dim=1)
    return 1 / mean - share * (variance or var_of_mean)(x) / mean**power


def inverse_sqrt(x: Tensor, *, coefficient: float = 3 / 8, power: float = 2.5) -> Tensor:
    """x̄^(−1/2) less ⅜ Var x̄ / x̄^(5/2)."""
    mean = x.mean(dim=1)
    return mean**-0.5 - coefficient * var_of_mean(x) / mean**power


def var_of_mean(x: Tensor) -> Tensor:
    """The unbiased estimate of Var x̄."""
    return x.var(dim=1) / x.shape[1]


def of_the_root(x: Tensor) -> Tensor:
    """1/p for p = √x̄, corrected for the variance of p, as if p were unbiased: ¼ in place of ⅜."""
    root = x.mean(dim=1).sqrt()
    var_of_root = var_of_mean(x) / (4 * root**2)
    return 1 / root - var_of_root / root**3


def _first_half(x: Tensor) -> Tensor:
    return var_of_mean(x[:, : x.shape[1] // 2])


def _not_halved(x: Tensor) -> Tensor:
    return 2 * var_of_mean(x)


def _spread_of_mean(x: Tensor) -> Tensor:
    return x.std(dim=1) / x.shape[1]


def _mean_square(x: Tensor) -> Tensor:
    return x.square().mean(dim=1) / x.shape[1]


def _successive(x: Tensor) -> Tensor:
    return (x[:, 1:] - x[:, :-1]).square().mean(dim=1) / x.shape[1]


def leave_one_out(x: Tensor, *, weight: float = 1.0, constant: float = 0.0) -> Tensor:
    """The jackknife of 1/x̄: u + weight (m − 1)(u − mean of u without one)."""
    m = x.shape[1]
    total = x.sum(dim=1, keepdim=True)
    without = ((m - 1) / (total - x)).mean(dim=1)
    whole = m / total[:, 0]
    return whole + weight * (m - 1) * (whole - without) + constant


# -- one step of Adam -----------------------------------------------------------------------------


def adam(
    x: Tensor,
    *,
    coupling: float = 1.0,
    inversion: float = 1.0,
    eps: float = EPS,
    cov_size: float | None = None,
    var_size: float | None = None,
    squares: Callable[[Tensor], Tensor] = torch.square,
    outer: bool = False,
) -> Tensor:
    """g/(√v + ε) less coupling and inversion, each times its weight; see `deltabias.rules.adam`."""
    m, square = x.shape[1], x.square()
    g, v = x.mean(dim=1), square.mean(dim=1)
    root = v.sqrt()
    measured = squares(x)
    cov = ((x - g[:, None]) * (square - v[:, None])).sum(dim=1) / (m - 1) / (cov_size or m)
    var = measured.var(dim=1) / (var_size or m)
    if outer:  # Var ḡ², the other statistic's
        var = 4 * g**2 * x.var(dim=1) / m
    bias = -coupling * cov / (2 * root * (root + eps) ** 2)
    bias = bias + inversion * g * (eps + 3 * root) / (8 * root**3 * (root + eps) ** 3) * var
    return g / (root + EPS) - bias


def cross_fitted(x: Tensor) -> Tensor:
    """Numerator and preconditioner from two halves, averaged: the coupling is gone, no more."""
    halves = x.chunk(2, dim=1)
    pairs = (halves, halves[::-1])
    return sum(a.mean(dim=1) / (b.square().mean(dim=1).sqrt() + EPS) for a, b in pairs) / 2


GAMMA = law("gamma", mean=2, sd="4/5")
SKEWED = law("skewed", mean=1, sd="1/2")
NORMAL = law("normal", mean=1, sd="1/2")
_POWER, _ROOT, _ADAM = "1/x", "x**(-1/2)", "g/(sqrt(v)+eps)"


def _scalar(name: str, update: Update, removed: float | None = None, rule: str = _POWER, of=GAMMA):
    return Correction(name, update, rule, of, {}, removed)


def _adam(name: str, update: Update, removed: float | None = None, of: Law = NORMAL):
    return Correction(name, update, _ADAM, of, {"eps": EPS}, removed)


RIGHT: tuple[Correction, ...] = (
    _scalar("inverse", inverse, 1.0),
    _scalar("inverse, jackknife", leave_one_out, 1.0),
    _scalar("inverse square root", inverse_sqrt, 1.0, _ROOT),
    _adam("adam step", adam, 1.0),
    _adam("adam step, skewed", adam, 1.0, SKEWED),
)

WRONG: tuple[Correction, ...] = (
    _scalar("nothing", partial(inverse, share=0.0), 0.0),
    _scalar("half of it", partial(inverse, share=0.5), 0.5),
    _scalar("twice", partial(inverse, share=2.0), 2.0),
    _scalar("wrong sign", partial(inverse, share=-1.0), -1.0),
    _scalar("5 % short", partial(inverse, share=0.95), 0.95),
    _scalar("5 % too much", partial(inverse, share=1.05), 1.05),
    _scalar("33 % short", partial(inverse, share=0.67), 0.67),
    _scalar("two thirds too much", partial(inverse, share=5 / 3), 5 / 3),
    _scalar("sample variance for the variance of the mean",
            partial(inverse, variance=lambda x: x.var(dim=1))),
    _scalar("a power too low", partial(inverse, power=2), 2.0),
    _scalar("a power too high", partial(inverse, power=4), 0.5),
    _scalar("variance of half of the batch", partial(inverse, variance=_first_half), 2.0),
    _scalar("f'' in place of f''/2", partial(inverse, variance=_not_halved), 2.0),
    _scalar("standard deviation for the variance", partial(inverse, variance=_spread_of_mean)),
    _scalar("mean square for the variance", partial(inverse, variance=_mean_square), 7.25),
    _scalar("squared differences, not halved", partial(inverse, variance=_successive), 2.0),
    _scalar("half a jackknife", partial(leave_one_out, weight=0.5), 0.5),
    _scalar("leave one out, averaged", partial(leave_one_out, weight=-1 / (MICROBATCHES - 1))),
    _scalar("a constant left over", partial(leave_one_out, constant=1e-3)),
    _scalar("variance of the root", of_the_root, 2 / 3, _ROOT),
    _scalar("1/x's coefficient for the root", partial(inverse_sqrt, coefficient=1.0), 8 / 3, _ROOT),
    _scalar("fourth root's coefficient", partial(inverse_sqrt, coefficient=5 / 32), 5 / 12, _ROOT),
    _adam("no coupling", partial(adam, coupling=0.0)),
    _adam("no inversion", partial(adam, inversion=0.0)),
    _adam("coupling of the wrong sign", partial(adam, coupling=-1.0)),
    _adam("half of the coupling", partial(adam, coupling=0.5)),
    _adam("covariance of a microbatch, not of the mean", partial(adam, cov_size=1)),
    _adam("variance of a microbatch, not of the mean", partial(adam, var_size=1)),
    _adam("variance of g for that of its square", partial(adam, squares=lambda x: x)),
    _adam("variance of the squared mean", partial(adam, outer=True), None, SKEWED),
    _adam("eps forgotten in the derivatives", partial(adam, eps=0.0)),
    _adam("cross-fitted, inversion left", cross_fitted),
)  # fmt: skip

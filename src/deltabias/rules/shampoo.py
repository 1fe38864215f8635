r"""``shampoo`` and its kin: inverse roots of gradient second moments, on both sides of it.

.. math:: U = (L + \delta I)^{-1/p}\, M\, (R + \delta I)^{-1/p}, \qquad
          L = \mathrm{avg}\, G G^T, \quad R = \mathrm{avg}\, G^T G

with p = 4, or p = 2 on one side alone, ``shampoo_one_sided``. Published Shampoo feeds the factors
with the *mean* gradient of the batch; the mean of the microbatches' own products is another rule
with another target, ``…_mean_of_squares``. ``shampoo_sum`` keeps running totals, as its paper
did. ``full_matrix_adagrad`` is the one-sided rule on the flattened gradient, a column.
"""

from deltabias.matrix_rule import DAMPING, MatrixRule, MatrixState, MatrixStatistic
from deltabias.rule import BETA1, BETA2

_SHAMPOO = "Gupta, Koren & Singer, Shampoo, arXiv 1802.09568, algorithm 1"
_ONE_SIDED = "Anil et al., Scalable second order optimization, arXiv 2002.09018"
_ADAGRAD = "Duchi, Hazan & Singer, Adaptive subgradient methods, JMLR 12 (2011), algorithm 1"
_LEFT, _RIGHT = "inv_root(L + damping*I, {p})", "inv_root(R + damping*I, {p})"


def _states(*names: str, of_mean: bool, total: bool = False) -> tuple[MatrixState, ...]:
    samples = {"M": "G", "L": "G*G.T", "R": "G.T*G"}
    memory = {"total": True} if total else {"beta": BETA2}
    return tuple(
        MatrixState("M", MatrixStatistic("gradient", "G"), BETA1)
        if n == "M"
        else MatrixState(n, MatrixStatistic(f"factor_{n.lower()}", samples[n], of_mean), **memory)
        for n in names
    )


def _shampoo(name: str, *, of_mean: bool, title: str, total: bool = False) -> MatrixRule:
    update = f"{_LEFT} * M * {_RIGHT}".format(p=4)
    states = _states("L", "M", "R", of_mean=of_mean, total=total)
    return MatrixRule(name, update, states, (DAMPING,), title, (_SHAMPOO,))


def _one_sided(name: str, *, of_mean: bool, title: str) -> MatrixRule:
    update = f"{_LEFT} * M".format(p=2)
    return MatrixRule(
        name, update, _states("L", "M", of_mean=of_mean), (DAMPING,), title, (_ONE_SIDED,)
    )


SHAMPOO = _shampoo("shampoo", of_mean=True, title="Shampoo")
SHAMPOO_SUM = _shampoo("shampoo_sum", of_mean=True, total=True, title="Shampoo, running totals")
SHAMPOO_MEAN_OF_SQUARES = _shampoo(
    "shampoo_mean_of_squares", of_mean=False, title="Shampoo, mean of the microbatches' products"
)
ONE_SIDED = _one_sided("shampoo_one_sided", of_mean=True, title="One-sided Shampoo")
ONE_SIDED_MEAN_OF_SQUARES = _one_sided(
    "shampoo_one_sided_mean_of_squares",
    of_mean=False,
    title="One-sided Shampoo, mean of the microbatches' products",
)
FULL_MATRIX_ADAGRAD = MatrixRule(
    "full_matrix_adagrad",
    f"{_LEFT} * M".format(p=2),
    (
        MatrixState("L", MatrixStatistic("factor_l", "G*G.T", of_mean=True), total=True),
        MatrixState("M", MatrixStatistic("gradient", "G")),
    ),
    (DAMPING,),
    "Full-matrix Adagrad, G the flattened gradient, a column",
    (_ADAGRAD,),
)
RULES = (
    SHAMPOO,
    SHAMPOO_SUM,
    SHAMPOO_MEAN_OF_SQUARES,
    ONE_SIDED,
    ONE_SIDED_MEAN_OF_SQUARES,
    FULL_MATRIX_ADAGRAD,
)

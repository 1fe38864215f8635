r"""``adagrad``: the newest gradient over the root of everything squared so far.

.. math:: s_t = \sum_{k \le t} \bar g_k^2, \qquad u_t = \bar g_t / (\sqrt{s_t} + \epsilon)

A total never forgets: there is no steady state, only a step t.
"""

from deltabias.rule import MEAN_GRADIENT, SQUARE_OF_MEAN, Fresh, Hyper, Total, UpdateRule

ADAGRAD = UpdateRule(
    "adagrad",
    "gradient/(sqrt(sum)+eps)",
    states=(Fresh("gradient", MEAN_GRADIENT), Total("sum", SQUARE_OF_MEAN)),
    hypers=(Hyper("eps", 1e-10),),
    title="Adagrad",
    sources=("Duchi, Hazan & Singer, JMLR 12 (2011) 2121-2159", "torch.optim.Adagrad"),
)
RULES = (ADAGRAD,)

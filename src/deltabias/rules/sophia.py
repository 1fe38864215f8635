r"""``sophia``: a gradient average over a curvature average, clipped elementwise.

.. math:: u_t = \mathrm{clip}\!\left(\frac{m_t}{\max(\rho\, h_t, \epsilon)},\, -1,\, 1\right)

Neither average is debiased. The expansion holds inside the clip and above the floor, which the
derivation states as its domain; a clipped coordinate has a constant update and no bias of this
kind. One microbatch's curvature estimate is opaque: its variance and its covariance with the
gradient are what has to be measured.
"""

from deltabias.rule import Ema, Hyper, Statistic, UpdateRule

SOPHIA = UpdateRule(
    "sophia",
    "clip(exp_avg/max(rho*hessian, eps), -1, 1)",
    states=(
        Ema("exp_avg", Statistic("gradient"), Hyper("beta1", 0.965, high=1.0), debias=False),
        Ema(
            "hessian",
            Statistic("curvature", positive=True),
            Hyper("beta2", 0.99, high=1.0),
            debias=False,
        ),
    ),
    hypers=(Hyper("rho", 0.04), Hyper("eps", 1e-15)),
    title="Sophia",
    sources=("Liu et al., Sophia, arXiv 2305.14342, algorithm 3",),
)
RULES = (SOPHIA,)

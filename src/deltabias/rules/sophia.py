r"""``sophia``: a gradient average over a curvature average, clipped elementwise.

.. math:: u_t = \mathrm{clip}\!\left(\frac{m_t}{\max(\rho\, h_t, \epsilon)},\, -1,\, 1\right)

Neither average is debiased. The expansion holds inside the clip and above the floor, which the
derivation states as its domain; a clipped coordinate has a constant update and no bias of this
kind. One microbatch's curvature estimate is opaque: its variance and its covariance with the
gradient are what has to be measured. ``sophia_g`` is the published estimate: the squared mean
gradient for labels drawn from the model, which is independent of the gradient of the data given
the parameters, so that only the inversion is biased.
"""

from deltabias.rule import LABEL_GRADIENT, MEAN, MEAN_GRADIENT, Ema, Hyper, Statistic, UpdateRule

BETA1 = Hyper("beta1", 0.965, high=1.0)
BETA2 = Hyper("beta2", 0.99, high=1.0)
RHO = Hyper("rho", 0.04)
EPS = Hyper("eps", 1e-15)

SOPHIA = UpdateRule(
    "sophia",
    "clip(exp_avg/max(rho*hessian, eps), -1, 1)",
    states=(
        Ema("exp_avg", Statistic("gradient"), BETA1, debias=False),
        Ema("hessian", Statistic("curvature", positive=True), BETA2, debias=False),
    ),
    hypers=(RHO, EPS),
    title="Sophia",
    sources=("Liu et al., Sophia, arXiv 2305.14342, algorithm 3",),
)

SOPHIA_G = UpdateRule(
    "sophia_g",
    "clip(exp_avg/max(rho*hessian, eps), -1, 1)",
    states=(
        Ema("exp_avg", MEAN_GRADIENT, BETA1, debias=False),
        Ema(
            "hessian",
            Statistic("square_of_label_gradient", LABEL_GRADIENT, outer=MEAN**2, positive=True),
            BETA2,
            debias=False,
        ),
    ),
    hypers=(RHO, EPS),
    title="Sophia with the Gauss-Newton-Bartlett estimate",
    sources=("Liu et al., Sophia, arXiv 2305.14342, algorithms 2 and 3",),
)
RULES = (SOPHIA, SOPHIA_G)

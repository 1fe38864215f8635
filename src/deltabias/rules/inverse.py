r"""``inverse``: a gradient divided by a noisy curvature, diagonal Newton's step.

.. math:: u = g / h, \qquad E\,\hat g/\hat h - g/h = -\frac{\mathrm{cov}(g,h)}{h^2}
          + \frac{g\,\mathrm{var}(h)}{h^3} + O(m^{-2})

Sophia's denominator is this map before clipping.
"""

from deltabias.rule import Fresh, Statistic, UpdateRule

INVERSE = UpdateRule(
    "inverse",
    "g/h",
    states=(Fresh("g", Statistic("g")), Fresh("h", Statistic("h", positive=True))),
    title="Diagonal Newton",
    sources=("Liu et al., Sophia, arXiv 2305.14342, eq. 4",),
)
RULES = (INVERSE,)

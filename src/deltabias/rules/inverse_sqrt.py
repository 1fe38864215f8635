r"""``inverse_sqrt``: a gradient divided by the root of a noisy second moment, within one step.

.. math:: u = g\,v^{-1/2}, \qquad
          E\,\hat g \hat v^{-1/2} - g v^{-1/2} = -\tfrac12 \mathrm{cov}(g,v)\,v^{-3/2}
          + \tfrac38\, g\,\mathrm{var}(v)\,v^{-5/2} + O(m^{-2})
"""

from deltabias.rule import Fresh, Statistic, UpdateRule

INVERSE_SQRT = UpdateRule(
    "inverse_sqrt",
    "g/sqrt(v)",
    states=(Fresh("g", Statistic("g")), Fresh("v", Statistic("v", positive=True))),
    title="Inverse square root",
)
RULES = (INVERSE_SQRT,)

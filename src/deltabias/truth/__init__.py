"""The ground truth: laws with exact moments, and four ways to an expectation under them.

In order of trust: closed forms and exact enumeration of finite laws, the Laplace-transform route
for Adam-type updates (one smooth integral, with an error estimate), rigorous enclosures by ball
arithmetic, and Monte Carlo with a stated standard error.

This package judges the rest of the library, so it imports nothing of it.
"""

from .adam_mean import (
    adam_population_update,
    adam_update_mean,
    adam_update_mean_float64,
    relative_bias_adam,
)
from .base_law import Law
from .closed_forms import expectation_of_mean_normal, inverse_moment, law_of_mean
from .ema_weights import ema_weights, steps_to_steady_state
from .enclosures import HolomorphicMap, enclose, inverse_power, inverse_root_plus_eps
from .enumeration import (
    Sample,
    enumerate_samples,
    expectation,
    expectation_over_groups,
    expectation_over_history,
    multiset_count,
)
from .errors import (
    DivergentExpectation,
    MissingDependency,
    MomentDoesNotExist,
    NonFiniteSample,
    NotConverged,
    TooManySamples,
)
from .finite_laws import Discrete, Empirical, FiniteLaw, TwoPoint, skewed_discrete
from .law_catalogue import LAWS, law
from .laws import (
    Gamma,
    Laplace,
    LogNormal,
    Normal,
    ScaledChiSquare,
    Shifted,
    StudentT,
)
from .monte_carlo import Estimate, Sampler, estimate
from .quadrature import Quadrature

__all__ = [
    "LAWS",
    "Discrete",
    "DivergentExpectation",
    "Empirical",
    "Estimate",
    "FiniteLaw",
    "Gamma",
    "HolomorphicMap",
    "Laplace",
    "Law",
    "LogNormal",
    "MissingDependency",
    "MomentDoesNotExist",
    "NonFiniteSample",
    "Normal",
    "NotConverged",
    "Quadrature",
    "Sample",
    "Sampler",
    "ScaledChiSquare",
    "Shifted",
    "StudentT",
    "TooManySamples",
    "TwoPoint",
    "adam_population_update",
    "adam_update_mean",
    "adam_update_mean_float64",
    "ema_weights",
    "enclose",
    "enumerate_samples",
    "estimate",
    "expectation",
    "expectation_of_mean_normal",
    "expectation_over_groups",
    "expectation_over_history",
    "inverse_moment",
    "inverse_power",
    "inverse_root_plus_eps",
    "law",
    "law_of_mean",
    "multiset_count",
    "relative_bias_adam",
    "skewed_discrete",
    "steps_to_steady_state",
]

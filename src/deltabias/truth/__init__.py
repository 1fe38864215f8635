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
from .arb_growth import Growth
from .arb_remainder import derivative_bound, enclose_remainder, remainder_constant
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
    UnboundedRemainder,
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
from .matrix_catalogue import MATRIX_LAWS, matrix_law, orthogonal, spectrum
from .matrix_closed_forms import (
    PowerMean,
    wishart_inverse_mean,
    wishart_inverse_sandwich_mean,
    wishart_log_det_mean,
    wishart_power_mean_identity,
    wishart_power_mean_two,
    wishart_trace_mean,
)
from .matrix_enumeration import MatrixSample, every_batch, matrix_expectation
from .matrix_functions import (
    batched_power,
    exact_matrix,
    first_order_along,
    first_order_term,
    inverse_root,
    polar_factor,
    second_order_along,
    second_order_term,
    symmetric_function,
    to_float64,
)
from .matrix_laws import (
    FiniteMatrixLaw,
    KroneckerLaw,
    MatrixLaw,
    MatrixNormal,
    MatrixSkewed,
    MatrixStudentT,
)
from .matrix_monte_carlo import LinearControl, MatrixBias, Share, estimate_matrix_bias
from .monte_carlo import Estimate, Part, Sampler, estimate
from .quadrature import Quadrature

__all__ = [
    "LAWS",
    "MATRIX_LAWS",
    "Discrete",
    "DivergentExpectation",
    "Empirical",
    "Estimate",
    "FiniteLaw",
    "FiniteMatrixLaw",
    "Gamma",
    "Growth",
    "HolomorphicMap",
    "KroneckerLaw",
    "Laplace",
    "Law",
    "LinearControl",
    "LogNormal",
    "MatrixBias",
    "MatrixLaw",
    "MatrixNormal",
    "MatrixSample",
    "MatrixSkewed",
    "MatrixStudentT",
    "MissingDependency",
    "MomentDoesNotExist",
    "NonFiniteSample",
    "Normal",
    "NotConverged",
    "Part",
    "PowerMean",
    "Quadrature",
    "Sample",
    "Sampler",
    "ScaledChiSquare",
    "Share",
    "Shifted",
    "StudentT",
    "TooManySamples",
    "TwoPoint",
    "UnboundedRemainder",
    "adam_population_update",
    "adam_update_mean",
    "adam_update_mean_float64",
    "batched_power",
    "derivative_bound",
    "ema_weights",
    "enclose",
    "enclose_remainder",
    "enumerate_samples",
    "estimate",
    "estimate_matrix_bias",
    "every_batch",
    "exact_matrix",
    "expectation",
    "expectation_of_mean_normal",
    "expectation_over_groups",
    "expectation_over_history",
    "first_order_along",
    "first_order_term",
    "inverse_moment",
    "inverse_power",
    "inverse_root",
    "inverse_root_plus_eps",
    "law",
    "law_of_mean",
    "matrix_expectation",
    "matrix_law",
    "multiset_count",
    "orthogonal",
    "polar_factor",
    "relative_bias_adam",
    "remainder_constant",
    "second_order_along",
    "second_order_term",
    "skewed_discrete",
    "spectrum",
    "steps_to_steady_state",
    "symmetric_function",
    "to_float64",
    "wishart_inverse_mean",
    "wishart_inverse_sandwich_mean",
    "wishart_log_det_mean",
    "wishart_power_mean_identity",
    "wishart_power_mean_two",
    "wishart_trace_mean",
]

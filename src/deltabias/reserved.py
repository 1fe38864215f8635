"""Names that corrected forms and generated code use themselves; a rule cannot have them."""

# fmt: off
RESERVED = frozenset({
    "t", "microbatches", "ratio", "share", "denominator", "numerator", "inversion", "coupling",
    "update", "plug_in", "delta_bias", "trust", "warm", "enough", "covariance", "variance",
    "noise", "third", "third_mean", "noise_share", "signal", "skewness", "skew_variance", "root",
    "root_mean_square", "root_debiased", "unit", "remembered_noise", "remembered_third",
    "remembered_third_mean", "overlap", "spread", "step_mean", "step_cov", "step_var",
    "relative_unit", "unit_of_c", "debias_numerator", "debias_preconditioner", "average",
    "average_debiased", "gradient_now", "second_now", "safe_second", "old", "param", "grad",
    "direction", "c2", "c3", "c4", "relative_c2", "relative_c3", "relative_c4", "torch", "math",
    "module",
})

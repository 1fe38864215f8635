"""Benchmarks: a module each, with its ``CLAIM``, its ``PACKAGES`` and its ``rows()``.

``missing()``, where a module has it, says what this machine lacks; ``DEVICE`` is what is timed.
"""

BENCHMARKS = (
    "cpu_step",
    "training_step",
    "growth",
    "memory",
    "monte_carlo",
    "rivals",
    "matrix_roots",
    "ranks",
    "gpu_step",
)

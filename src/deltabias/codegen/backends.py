"""Backends for one rule's files, beside the plain module with its eager and foreach functions."""

from collections.abc import Callable, Mapping

from deltabias.codegen.backend_tests import backend_test
from deltabias.codegen.compiled_emit import emit_compiled
from deltabias.codegen.coq.subject import Subject
from deltabias.codegen.emit import MARK, digest, format_source
from deltabias.codegen.kernels import rule_programs
from deltabias.codegen.triton import emit_triton
from deltabias.errors import GenerateError
from deltabias.rule import UpdateRule

BACKENDS: Mapping[str, Callable[..., str]] = {"compiled": emit_compiled, "triton": emit_triton}
"""``compiled``: one pass each, for ``torch.compile``; ``triton``: a fused kernel each."""

# fmt: off
TAKEN = {
    "compiled": frozenset({
        "scalars", "dtype", "known", "slight", "slight_square", "lifted_second", "fall",
        "whole_fall",
    }),
    "triton": frozenset({
        "table", "chunks", "rows", "stride", "seed", "chunk", "tensor", "first", "entry", "size",
        "row", "turn", "offsets", "within", "draw", "tl", "triton", "counts", "given", "index",
        "count", "ragged", "exact", "negate", "coupled", "dither", "block", "turns", "width",
    }),
}
"""Names that a backend's functions have themselves; a statistic of that name would be lost."""

TAKEN_PARTS = {"compiled": (("into_", "over_", "inverse_"), ()), "triton": ((), ("_at",))}
"""What their other names begin and end with."""
# fmt: on


def emit_backend(subject: Subject, backend: str) -> str:
    """The module of a rule's updates and steps for a backend, formatted.

    Raises
    ------
    GenerateError
        for a backend that is not known, a rule of matrices, an operation that the backend has no
        instruction for, or a name that its functions use themselves.

    Examples
    --------
    >>> emit_backend(UpdateRule.parse("g*atan(v)"), "triton")
    Traceback (most recent call last):
        ...
    deltabias.errors.GenerateError: rule 'custom' has no triton form: atan has no Triton operation
    in the table; known are abs, add, clamp_max, clamp_min, div, erf, exp, log, log1p, maximum,
    minimum, mul, neg, reciprocal, root, sign, sqrt, sub, tanh. Leave that backend out; the plain
    module is complete without it.
    """
    if backend not in BACKENDS:
        raise GenerateError(
            f"{backend=} is not known; use {' or '.join(BACKENDS)}. Eager and foreach functions "
            "are in the plain module, which is always written."
        )
    try:
        return _emitted(subject, backend)
    except GenerateError as error:
        raise GenerateError(
            f"rule {subject.name!r} has no {backend} form: {error} Leave that backend out; the "
            "plain module is complete without it."
        ) from error


def emit_backend_test(rule: UpdateRule, backend: str, import_line: str) -> str:
    """The test of `emit_backend`'s module, formatted."""
    mark = f"{MARK} Rule {rule.name}, digest {digest(rule)}."
    return format_source(backend_test(rule_programs(rule), backend, import_line, mark))


def _emitted(subject: Subject, backend: str) -> str:
    if not isinstance(subject, UpdateRule):
        raise GenerateError(
            "it works on matrices, by products and eigendecompositions, which are not one pass "
            "over elements."
        )
    _check_names(subject, backend)
    return BACKENDS[backend](subject, updates=True)


def _check_names(rule: UpdateRule, backend: str) -> None:
    starts, ends = TAKEN_PARTS[backend]
    for name in (*(s.name for s in rule.states), *(h.name for h in rule.all_hypers)):
        if name in TAKEN[backend] or name.startswith(starts) or name.endswith(ends):
            raise GenerateError(
                f"its functions use the name {name!r} themselves; call the statistic or "
                "hyperparameter something else."
            )

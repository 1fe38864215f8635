"""Whether an optimizer computes its rule: the optimizer and the rule over the same histories."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from deltabias.errors import DeltabiasError, RuleError
from deltabias.verify.constructor import Constructor, TargetError, inspect_target
from deltabias.verify.distance import Distance, coarsely_differs, distance
from deltabias.verify.drive import DTYPES, Refused, Run, drive, rounded
from deltabias.verify.histories import History, Scope, draw_histories, search
from deltabias.verify.interpret import (
    SINGLE_SCALARS,
    SLACK,
    Trajectory,
    make_adjust,
    run_rule,
)
from deltabias.verify.record import ERROR, FAIL, INCONCLUSIVE, PASS, SKIPPED, Check, Report
from deltabias.verify.step_rule import StepRule
from deltabias.verify.step_rule_file import matrix_rule_of, resolve_step_rule

HISTORIES = 50
FEWER = 10
SHRINKS = 150


@dataclass(frozen=True)
class Trial:
    """A history, what the optimizer did, what the rule does, and how far apart they are."""

    history: History
    run: Run
    truth: Trajectory
    distance: Distance


@dataclass(frozen=True)
class Subject:
    """An optimizer, its rule, and the histories that it is told from others by."""

    constructor: Constructor
    rule: StepRule
    scope: Scope
    seed: int = 0
    dtype: str = "float64"
    single_scalars: bool = False  # its scalars are seen to be rounded to single precision

    def attempt(self, history: History, dtype: str = "float64", **options) -> Trial:
        """One history, by both.

        Raises
        ------
        Refused, TargetError
            as `drive` does.
        """
        held = rounded(history, dtype)
        run = drive(self.constructor, held, dtype=dtype, **options)
        truth = run_rule(self.rule, held, dtype=dtype)
        return Trial(
            held, run, truth, distance(run.values, truth.values, truth.bounds, held, dtype)
        )


def make_subject(
    make: Callable, rule: StepRule, hypers: Mapping[str, object] | None, seed: int
) -> Subject:
    """What is to be checked, with the ranges that may be drawn.

    Raises
    ------
    TargetError, RuleError
        as `inspect_target` does.
    """
    constructor = inspect_target(make, rule, hypers)
    ranges, fixed = [], dict(constructor.fixed)
    for hyper in constructor.ranges(rule):
        match (hypers or {}).get(hyper.name):
            case bool() | int() | float() as value:
                ranges.append(_held(hyper, value, value))
            case (low, high):
                ranges.append(_held(hyper, low, high))
            case _:
                ranges.append(hyper)
    for name, value in (hypers or {}).items():
        if name in fixed and isinstance(value, int | float):
            fixed[name] = float(value)
    scope = Scope(
        tuple(ranges),
        fixed,
        constructor.per_group,
        constructor.scheduled,
        missing=False,
        adjust=make_adjust(rule),
    )
    return Subject(constructor, rule, scope, seed)


def _held(hyper, low: float, high: float):
    kind = "linear" if low <= 0 or hyper.is_flag else hyper.kind
    if not low <= high:
        raise RuleError(f"hypers: {hyper.name}=({low}, {high}) is an empty range.")
    return type(hyper)(
        hyper.name, hyper.default, float(low), float(high), kind, hyper.absent, hyper.arguments
    )


def check_optimizer(
    make: Callable,
    rule: StepRule | str | object,
    *,
    hypers: Mapping[str, object] | None = None,
    dtype: object = "float64",
    histories: int | None = None,
    seed: int = 0,
    features: bool | Sequence[str] = True,
    time_limit: float | None = None,
) -> Report:
    """Every check of an optimizer against a rule.

    The optimizer agrees if every entry of every parameter is, after every step of every history,
    within the rounding that the rule's own operations allow (see `deltabias.verify.interpret`).

    Parameters
    ----------
    make : a torch.optim.Optimizer class, or a factory ``make(params, **arguments)``
    rule : StepRule, UpdateRule, a name ("adamw", "sgd", …), a path to a TOML file, or assignments
        such as ``"param = param - lr*grad"``; a rule of matrices ("shampoo", "muon", …) is checked
        for its direction and its symmetries, see `deltabias.verify.matrix_step`
    hypers : rule's name -> a number to hold it at, (low, high) to draw it from, or the name of
        the constructor's argument that it is
    dtype : torch dtype or its name: float64, float32 or bfloat16
    histories : how many to draw; 50 unless said
    seed : of the draw
    features : whether to check resume, foreach, clipping, order, … and the rule's symmetries too;
        with names among them, such as ("compiled",), those that are left out as slow
    time_limit : seconds after which no further check begins; what is left is inconclusive

    Returns
    -------
    Report
        a bad target gives a report with an error in it, never an exception.

    Raises
    ------
    RuleError, ParseError
        for a rule that is none, or fewer than one history.

    Examples
    --------
    >>> import torch
    >>> check_optimizer(torch.optim.SGD, "sgd", histories=5, features=False).verdict
    'pass'
    """
    if (matrix := matrix_rule_of(rule)) is not None:
        if histories is not None or str(dtype).removeprefix("torch.") != "float64":
            raise RuleError(
                f"{matrix.name!r} is a rule of matrices, checked in float64 on rotated gradients "
                f"of its own; leave out histories={histories!r} and dtype={dtype!r}."
            )
        from deltabias.verify.matrix_step import check_matrix_optimizer

        return check_matrix_optimizer(make, matrix, hypers=hypers, seed=seed)
    began = time.perf_counter()
    count = HISTORIES if histories is None else histories
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise RuleError(f"{histories=} tries nothing; pass 1 or more, or leave it out for 50.")
    resolved = resolve_step_rule(rule)
    name, kind = _name(make), _dtype(dtype)
    checks: list[Check] = []
    try:
        subject = make_subject(make, resolved, hypers, seed)
        for check in _checks(subject, kind, count, features):
            checks.append(check())
            if time_limit is not None and time.perf_counter() - began > time_limit:
                checks.append(_out_of_time(time_limit))
                break
    except TargetError as error:
        checks.append(Check("target", ERROR, detail=str(error)))
    except (RuleError, ImportError):
        raise
    except Exception as error:  # a stranger's code may do anything; it is never a pass
        checks.append(Check("target", ERROR, detail=f"{type(error).__name__}: {error}"))
    return Report(name, resolved.name, tuple(checks), time.perf_counter() - began, seed)


def _checks(subject: Subject, dtype: str, histories: int, features: bool | Sequence[str]):
    """Every check, not yet begun."""
    seen: list[Check] = []

    def conformance() -> Check:
        seen.append(check_conformance(subject, dtype, histories))
        return seen[0]

    yield conformance
    if not features:
        return
    from deltabias.verify.features import feature_checks
    from deltabias.verify.properties import property_checks

    if seen[0].verdict == ERROR:
        return
    sound = seen[0].verdict == PASS
    single = sound and seen[0].diagnosis == SINGLE_SCALARS
    subject = replace(subject, dtype=dtype, single_scalars=single)
    if dtype == "float64":
        for other in ("float32", "bfloat16"):
            yield lambda other=other: _low_precision(subject, other, sound)
    yield lambda: _missing(subject, sound)
    yield from feature_checks(subject, () if features is True else features, sound)
    yield from property_checks(subject)


def _missing(subject: Subject, sound: bool) -> Check:
    """Steps in which some parameters have no gradient: they and their states stay as they are."""
    name = "missing gradients"
    if not sound:
        return Check(name, SKIPPED, detail="conformance fails without them")
    scope = replace(subject.scope, missing=True)
    return check_conformance(replace(subject, scope=scope), subject.dtype, FEWER, name)


def _out_of_time(limit: float) -> Check:
    return Check(
        "time limit",
        INCONCLUSIVE,
        expected=limit,
        detail=f"the checks that are not listed were not begun within {limit:g} s.",
    )


def _name(make: object) -> str:
    return getattr(make, "__qualname__", None) or repr(make)


def _dtype(dtype: object) -> str:
    name = str(dtype).removeprefix("torch.")
    if name not in DTYPES:
        raise DeltabiasError(f"dtype={dtype!r} is not checked; use {', '.join(DTYPES)}.")
    return name


def check_conformance(
    subject: Subject, dtype: str = "float64", count: int = HISTORIES, name: str = "conformance"
) -> Check:
    """Rule and optimizer over `count` histories, with the smallest counterexample if any."""
    bank = []
    refused: list[Exception] = []
    for history in draw_histories(subject.scope, count, subject.seed):
        try:
            bank.append(subject.attempt(history, dtype))
        except Refused as error:
            refused.append(error)
        except TargetError as error:
            return _raised(subject, name, dtype, error)
    if len(refused) > len(bank):
        return Check(
            name, ERROR, detail=f"the constructor refused {len(refused)} of {count} draws of "
            f"hyperparameters; the last: {refused[-1]}. Say their ranges in hypers=.",
        )  # fmt: skip
    failed = [t for t in bank if not t.distance.agrees]
    if failed:
        return _failed(subject, name, dtype, bank, failed)
    return _passed(subject, name, dtype, bank, len(refused))


def _passed(subject: Subject, name: str, dtype: str, bank: list[Trial], refused: int) -> Check:
    if not sum(t.distance.compared for t in bank):
        return Check(name, INCONCLUSIVE, detail="nothing could be compared: the rule is undefined "
                     "or undecidable by rounding in every history.")  # fmt: skip
    worst = max((t.distance for t in bank), key=lambda d: d.ulps)
    said = [f"{len(bank)} histories, bound {SLACK[dtype]:g} times the rule's own rounding"]
    if refused:
        said.append(f"{refused} draws refused by the constructor")
    if subject.constructor.assumed:
        known = subject.constructor.fixed
        said.append(
            "not arguments, taken as the rule has them: "
            + ", ".join(f"{n}={known[n]:g}" for n in subject.constructor.assumed)
        )
    return Check(name, PASS, worst.ulps, worst.bound, detail="; ".join(said))


def _failed(subject: Subject, name: str, dtype: str, bank: list[Trial], failed: list[Trial]):
    from deltabias.verify.diagnose import diagnose

    smallest = _smallest(subject, dtype) or min(failed, key=lambda t: t.history.size)
    found = diagnose(subject, bank, smallest, dtype)
    worst = max((t.distance for t in failed), key=lambda d: d.ulps)
    if found.rounding_only:
        return Check(name, PASS, worst.ulps, worst.bound, found.name, found.detail)
    return Check(
        name,
        FAIL,
        worst.ulps,
        worst.bound,
        found.name,
        f"{len(failed)} of {len(bank)} histories differ; {found.detail}",
        {**smallest.history.as_data(), "dtype": dtype, "differs": smallest.distance.as_data()},
    )


def _smallest(subject: Subject, dtype: str) -> Trial | None:
    """The smallest counterexample; looked for in float64, which is quick, and then made sure."""

    def differs(history: History) -> bool:
        try:
            run = drive(subject.constructor, history)
        except (Refused, TargetError):
            return False
        return coarsely_differs(
            run.values, run_rule(subject.rule, history, exact=False).values, history
        )

    def differs_exactly(history: History) -> bool:
        try:
            return not subject.attempt(history, dtype).distance.agrees
        except (Refused, TargetError):
            return False

    tests = [differs, differs_exactly] if dtype == "float64" else [differs_exactly]
    for fails in tests:
        found = search(subject.scope, subject.seed, fails, examples=HISTORIES, shrinks=SHRINKS)
        if found is not None:
            trial = subject.attempt(found, dtype)
            if not trial.distance.agrees:
                return trial
    return None


def _raised(subject: Subject, name: str, dtype: str, error: TargetError) -> Check:
    def raises(history: History) -> bool:
        try:
            drive(subject.constructor, rounded(history, dtype), dtype=dtype)
        except Refused:
            return False
        except TargetError:
            return True
        return False

    found = search(subject.scope, subject.seed, raises, examples=HISTORIES, shrinks=SHRINKS)
    return Check(name, ERROR, detail=str(error), counterexample=found and found.as_data())


def _low_precision(subject: Subject, dtype: str, sound: bool) -> Check:
    if not sound:
        return Check(f"conformance in {dtype}", SKIPPED, detail="float64 fails already")
    try:
        check = check_conformance(subject, dtype, FEWER, f"conformance in {dtype}")
    except Exception as error:  # a dtype that is not offered is no wrong update
        return Check(f"conformance in {dtype}", SKIPPED, detail=f"{type(error).__name__}: {error}")
    return check

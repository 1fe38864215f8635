"""What a matrix report is about: one step of a rule, a law of its gradients, and every number.

One step has no history, so each factor is the mean over the microbatches of G_r G_rᵀ. The product
of the mean gradient with itself is another statistic: in one step it has rank at most that of one
gradient and no small parameter (its relative variance does not fall with the microbatches), and
its averaging over the history is what `deltabias.optim.Shampoo` corrects.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from math import isfinite

import numpy as np

from deltabias.calculus.matrix import Spectral
from deltabias.errors import DeltabiasError, RuleError
from deltabias.matrix_rule import MatrixRule, MatrixState, MatrixStatistic, bare_symbol
from deltabias.report.matrix_population import PopulationMap, population_map
from deltabias.report.scenario import FEWEST_MICROBATCHES, MOST_MICROBATCHES
from deltabias.truth import MATRIX_LAWS, MatrixLaw, matrix_law

MOST_ROWS = 64
STATISTICS = ("mean_of_squares", "square_of_mean")
OBJECTS = ("preconditioner", "update")

MEAN, LEFT, RIGHT = range(3)
SAMPLES = {"G": MEAN, "G*G.T": LEFT, "G.T*G": RIGHT}
"""What a state may be fed with, and its place among the law's moments."""

BY_NAME = {"M": MEAN, "G": MEAN, "L": LEFT, "R": RIGHT}
"""How the matrices of a typed rule are read, which says nothing of what they are made of."""

COLUMNS_ARE_ONE = ("full_matrix_adagrad",)
"""Rules of the flattened gradient."""


@dataclass(frozen=True)
class MatrixScenario:
    """A rule with numbers for everything in it.

    ``rule`` is what is simulated: the whole update, or its preconditioner alone. ``roles`` maps
    its matrices to E G, E G Gᵀ, E Gᵀ G. ``notes`` are sentences: what was chosen or read.
    """

    asked: MatrixRule
    rule: MatrixRule
    of: str
    roles: Mapping[str, int]
    law: MatrixLaw
    law_name: str
    condition: float
    microbatches: int
    hypers: Mapping[str, float]
    notes: tuple[str, ...] = ()

    @cached_property
    def names(self) -> list[str]:
        """The matrices in the order in which generated functions take them."""
        return [s.name for s in self.rule.states if s.name in self.rule.update.symbols]

    @property
    def population(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """E G, E G Gᵀ, E Gᵀ G."""
        return self.law.mean, self.law.left_moment, self.law.right_moment

    @cached_property
    def population_map(self) -> PopulationMap:
        """The rule as a map of stacks of these, see `matrix_population`."""
        return population_map(self.rule.update, self.roles, self.hypers)

    @property
    def target(self) -> np.ndarray:
        """The rule at the population."""
        return self.population_map(*(a[None] for a in self.population))[0]


def matrix_scenario(
    rule: MatrixRule,
    *,
    dim: int = 8,
    columns: int | None = None,
    microbatches: int = 16,
    law: str = "normal",
    condition: float = 20.0,
    of: str | None = None,
    statistic: str = "mean_of_squares",
    hypers: Mapping[str, float] | None = None,
    seed: int = 0,
) -> MatrixScenario:
    """Check everything and put the numbers together.

    Raises
    ------
    DeltabiasError
        naming the argument, its value, what is allowed and what to do.
    """
    _check_statistic(statistic)
    if law not in MATRIX_LAWS:
        raise DeltabiasError(f"law {law!r} is unknown; choose one of {', '.join(MATRIX_LAWS)}.")
    _check_microbatches(microbatches)
    columns = _columns(rule, dim, columns)
    roles, notes = roles_of(rule)
    of = _of(rule, roles, law, of)
    simulated = _preconditioner(rule, roles) if of == "preconditioner" else rule
    values = _hypers(simulated, rule, hypers or {})
    if law != "wishart" and RIGHT in {roles[s] for s in simulated.update.symbols}:
        sides = condition
    else:
        sides = 1.0  # the law is then that of Wishart factors
    try:
        found = matrix_law(
            law, dim, columns, condition=condition, column_condition=sides, seed=seed
        )
    except ValueError as error:
        raise DeltabiasError(str(error)) from error
    kept = {s: roles[s] for s in simulated.update.symbols}
    return MatrixScenario(
        rule, simulated, of, kept, found, law, float(condition), microbatches, values, notes
    )


# -- what the rule is made of ---------------------------------------------------------------------


def roles_of(rule: MatrixRule) -> tuple[dict[str, int], tuple[str, ...]]:
    """The place of each matrix among the moments, and sentences on what was read into the rule."""
    roles, notes = {}, []
    for state in rule.states:
        if state.name not in rule.update.symbols:
            continue
        roles[state.name] = _role(rule, state)
        if state.statistic.sample is None:
            sample = ("G", "G*G.T", "G.T*G")[roles[state.name]]
            notes.append(f"{state.name} is read as the mean over microbatches of {sample}")
    squares = [s.name for s in rule.states if s.statistic.of_mean and roles.get(s.name)]
    if squares:
        notes.append(
            f"{rule.name} feeds {', '.join(squares)} with the product of the mean gradient with "
            "itself; in one step that has no small parameter, so here its formula is fed with "
            "the mean of the microbatches' products (mean_of_squares)"
        )
    if any(s.beta or s.total for s in rule.states):
        notes.append("one step, no history: averages over the steps have a single term")
    return roles, tuple(notes)


def _role(rule: MatrixRule, state: MatrixState) -> int:
    sample = state.statistic.sample
    if sample is None and state.name in BY_NAME:
        return BY_NAME[state.name]
    for text, role in SAMPLES.items():
        if sample is not None and sample == MatrixStatistic("x", text).sample:
            return role
    said = "nothing says what it is made of" if sample is None else "its sample has no known law"
    raise RuleError(
        f"rule {rule.name!r}, matrix {state.name!r}: {said}. Read are M or G (the mean gradient), "
        "L (the mean of G*G.T), R (the mean of G.T*G), and states with these samples; report an "
        "entrywise rule such as soap as the scalar rule it applies, 'adam'."
    )


def _preconditioner(rule: MatrixRule, roles: Mapping[str, int]) -> MatrixRule:
    """The inverse root of the left factor, or of the first factor that has one."""
    nodes = _of_factors(rule, roles)
    node = next((n for n in nodes if roles[bare_symbol(n.body)] == LEFT), nodes[0])
    name = bare_symbol(node.body)
    state = next(s for s in rule.states if s.name == name)
    hypers = tuple(h for h in rule.hypers if h.name in node.hypers)
    title = f"Preconditioner of {rule.title or rule.name}"
    return MatrixRule("preconditioner", node, (state,), hypers, title)


def _of_factors(rule: MatrixRule, roles: Mapping[str, int]) -> list[Spectral]:
    return [n for n in rule.spectral if roles.get(bare_symbol(n.body) or "") in (LEFT, RIGHT)]


def _of(rule: MatrixRule, roles: Mapping[str, int], law: str, of: str | None) -> str:
    centered = law == "wishart"
    if of is None:
        of = "preconditioner" if centered else "update"
    if of not in OBJECTS:
        raise DeltabiasError(f"{of=} is unknown; choose one of {', '.join(OBJECTS)}.")
    if of == "preconditioner" and not _of_factors(rule, roles):
        raise DeltabiasError(
            f"rule {rule.name!r} has no function of a factor alone, so no preconditioner to report "
            f"on{'; law wishart has zero mean: take --law normal' if centered else ''}."
        )
    if of == "update" and centered and MEAN in roles.values():
        raise DeltabiasError(
            "law 'wishart' has zero mean: the update's target is zero and no share of its bias "
            "exists. Take --of preconditioner, or --law normal, which has a mean."
        )
    return of


# -- the numbers ----------------------------------------------------------------------------------


def _hypers(
    simulated: MatrixRule, rule: MatrixRule, given: Mapping[str, float]
) -> dict[str, float]:
    known = {h.name: h for h in rule.hypers}
    if unknown := sorted(set(given) - set(known)):
        raise RuleError(
            f"rule {rule.name!r} has no hyperparameter {', '.join(unknown)} in its update; it has "
            f"{', '.join(known) or 'none'}."
        )
    for name, value in given.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
            raise RuleError(f"{name}={value!r} must be a finite number.")
    wanted = simulated.update.hypers
    return {n: float(h.check(given.get(n, h.default))) for n, h in known.items() if n in wanted}


def _check_statistic(statistic: str) -> None:
    if statistic == "square_of_mean":
        raise DeltabiasError(
            "statistic='square_of_mean' has no expansion in one step: the product of the mean "
            "gradient with itself is noise of its own size however many microbatches there are. "
            "Its average over the history is corrected by deltabias.optim.Shampoo; here take "
            "mean_of_squares."
        )
    if statistic not in STATISTICS:
        raise DeltabiasError(f"{statistic=} is unknown; choose {STATISTICS[0]}.")


def _check_microbatches(microbatches: int) -> None:
    whole = isinstance(microbatches, int) and not isinstance(microbatches, bool)
    if not (whole and FEWEST_MICROBATCHES <= microbatches <= MOST_MICROBATCHES):
        raise DeltabiasError(
            f"{microbatches=} cannot be reported on: one microbatch gives no variance estimate to "
            f"correct with. Pass {FEWEST_MICROBATCHES} to {MOST_MICROBATCHES}."
        )


def _columns(rule: MatrixRule, dim: int, columns: int | None) -> int:
    if rule.name in COLUMNS_ARE_ONE:
        if columns not in (None, 1):
            raise DeltabiasError(f"{columns=}: {rule.name} is of the flattened gradient, 1 column.")
        columns = 1
    columns = dim if columns is None else columns
    for name, value in (("dim", dim), ("columns", columns)):
        whole = isinstance(value, int) and not isinstance(value, bool)
        if not (whole and 1 <= value <= MOST_ROWS):
            raise DeltabiasError(f"{name}={value!r} must be an integer from 1 to {MOST_ROWS}.")
    return columns

"""Whether an optimizer's direction is that of a matrix rule, and has the symmetries of one.

Optimizers of this kind agree on the formula and differ in the rest: averages or totals, momentum
before or after, Nesterov's, grafting to another optimizer's length. So what is held against the
rule is each step's *direction*, up to its length, under each of the memories in use; which one
fits is said. Inputs are full, rotated and not square: a wrong root cannot hide in diagonal ones.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, replace

import numpy as np
import sympy as sp
import torch

from deltabias.calculus.matrix import MatrixExpr
from deltabias.calculus.spectral import EIGENVALUE, inverse_root
from deltabias.errors import DeltabiasError
from deltabias.matrix_rule import MatrixRule
from deltabias.report.matrix_population import population_map
from deltabias.report.matrix_scenario import roles_of
from deltabias.verify.constructor import TargetError, check_optimizer_interface
from deltabias.verify.record import ERROR, FAIL, INCONCLUSIVE, PASS, SKIPPED, Check, Report

ROWS, COLUMNS, STEPS = 4, 3, 6
EXACT = 1e-6
"""Of the step's length: float64 with an eigensolver in between."""

COARSE = 0.03
"""What an iteration in bfloat16 leaves; to agree so, every mistake has to fit three times worse."""

COARSE_SYMMETRY = 0.1
"""What it leaves of a symmetry: two runs, each with its own rounding."""

ROOTS = (1, 2, 3, 4, 8)
SYMMETRIES = ("left rotation", "right rotation", "sign flip", "scale of the gradient")


@dataclass(frozen=True)
class Memory:
    """How gradients become the rule's matrices over the steps."""

    name: str
    total: bool = False
    nesterov: bool = False
    momentum_last: bool = False


MEMORIES = (
    Memory("averages of gradients and factors"),
    Memory("averages, Nesterov's momentum", nesterov=True),
    Memory("totals of the factors", total=True),
    Memory("totals, momentum of the preconditioned gradient", total=True, momentum_last=True),
    Memory("averages, momentum of the preconditioned gradient", momentum_last=True),
)


def check_matrix_optimizer(
    make: Callable,
    rule: MatrixRule,
    *,
    hypers: Mapping[str, object] | None = None,
    seed: int = 0,
) -> Report:
    """Direction and symmetries of an optimizer of matrices.

    Parameters
    ----------
    make : a torch.optim.Optimizer class, or a factory ``make(params, **arguments)``
    rule : whose states are read as the mean gradient, G Gᵀ and Gᵀ G
    hypers : arguments of the constructor
    seed : of the gradients

    Returns
    -------
    Report
        a bad target gives a report with an error in it, never an exception.

    Examples
    --------
    >>> from deltabias.optim import Shampoo
    >>> from deltabias.rules import get_rule
    >>> report = check_matrix_optimizer(
    ...     Shampoo, get_rule("shampoo"), hypers={"correction": "plug_in", "betas": (0.9, 0.95)}
    ... )
    >>> report.verdict
    'pass'
    """
    began, checks = time.perf_counter(), []
    roles, _ = roles_of(rule)
    try:
        subject = Subject(make, dict(hypers or {}), rule, roles)
        gradients = _gradients(seed)
        moved = subject.directions(gradients)
        _predicted(subject, rule.update, gradients, MEMORIES[0])  # or an error that says why not
        direction = _direction(subject, gradients, moved)
        # only what agrees with its rule coarsely may have its symmetries coarsely
        allowed = COARSE_SYMMETRY if direction.expected == COARSE else EXACT
        checks.append(direction)
        checks += [_symmetry(subject, name, gradients, moved, allowed) for name in SYMMETRIES]
    except TargetError as error:
        checks.append(Check("target", ERROR, detail=str(error)))
    except DeltabiasError as error:
        checks.append(Check("rule", ERROR, detail=f"{rule}: {error}"))
    except Exception as error:  # a stranger's code may do anything; it is never a pass
        checks.append(Check("target", ERROR, detail=f"{type(error).__name__}: {error}"))
    name = getattr(make, "__name__", type(make).__name__)
    return Report(name, rule.name, tuple(checks), time.perf_counter() - began, seed)


def _gradients(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((STEPS, ROWS, COLUMNS)) + 0.5 * rng.standard_normal((ROWS, COLUMNS))


@dataclass(frozen=True)
class Subject:
    """An optimizer and the rule it is held against."""

    make: Callable
    arguments: dict
    rule: MatrixRule
    roles: Mapping[str, int]

    def optimizer(self, parameter: torch.Tensor):
        """Without decay, which is no part of a direction.

        Raises
        ------
        TargetError
            for what is no optimizer, or does not take the arguments.
        """
        said = {"lr": 0.5, **self.arguments}
        for extra in ({"weight_decay": 0.0}, {}):
            try:
                made = self.make([parameter], **{**extra, **said})
                break
            except TypeError as error:
                last = error
        else:
            raise TargetError(f"cannot be constructed with {said}: {last}")
        check_optimizer_interface(made)
        return made

    def directions(self, gradients: np.ndarray) -> np.ndarray:
        """What each step adds to the parameter, [steps, rows, columns].

        Raises
        ------
        TargetError
            for steps that are not finite.
        """
        parameter = torch.nn.Parameter(torch.zeros(gradients.shape[1:], dtype=torch.float64))
        optimizer, moved = self.optimizer(parameter), []
        for gradient in gradients:
            before = parameter.detach().clone()
            parameter.grad = torch.from_numpy(gradient.copy())
            optimizer.step()
            moved.append((parameter.detach() - before).numpy().copy())
        found = np.stack(moved)
        if not np.isfinite(found).all():
            raise TargetError("a step is not finite, for gradients that are.")
        if not np.abs(found).max() > 0:
            raise TargetError("no step moves the parameter.")
        return found

    def hypers(self) -> dict[str, float]:
        """The rule's hyperparameters, from the constructor's defaults and arguments."""
        group = self.optimizer(torch.nn.Parameter(torch.zeros(ROWS, COLUMNS))).param_groups[0]
        found = {}
        for hyper in self.rule.hypers:
            names = (hyper.name, "damping", "eps", "epsilon", "matrix_eps")
            known = [group[n] for n in names if isinstance(group.get(n), int | float)]
            found[hyper.name] = float(known[0]) if known else 0.0
        return found

    def betas(self) -> tuple[float, float]:
        """Of the momentum and of the factors."""
        group = self.optimizer(torch.nn.Parameter(torch.zeros(ROWS, COLUMNS))).param_groups[0]
        betas = group.get("betas") or (group.get("momentum", 0.0), group.get("beta2", 0.999))
        return float(betas[0]), float(betas[1])


def _predicted(subject: Subject, update: MatrixExpr, gradients: np.ndarray, memory: Memory):
    """The rule's directions under a memory, [steps, rows, columns]."""
    function = population_map(update, subject.roles, subject.hypers())
    beta1, beta2 = subject.betas()
    mean, left, right, last = (0.0,) * 4
    found = []
    for t, g in enumerate(gradients, start=1):
        mean = beta1 * mean + (1 - beta1) * g
        weights = (1.0, 1.0) if memory.total else (beta2, 1 - beta2)
        left = weights[0] * left + weights[1] * g @ g.T
        right = weights[0] * right + weights[1] * g.T @ g
        scale = 1.0 if memory.total else 1 - beta2**t
        top = beta1 * mean + (1 - beta1) * g if memory.nesterov else mean
        top = g if memory.momentum_last else top
        value = function(top[None], left[None] / scale, right[None] / scale)[0]
        last = beta1 * last + (1 - beta1) * value if memory.momentum_last else value
        found.append(-last)
    return np.stack(found)


def _apart(moved: np.ndarray, predicted: np.ndarray) -> float:
    """The worst step's distance from the direction, as a share of its length; 1 if opposite."""
    worst = 0.0
    for a, b in zip(moved, predicted, strict=True):
        if not np.isfinite(b).all() or not np.abs(b).max() > 0:
            return 1.0
        along = max(0.0, float(np.vdot(a, b) / np.vdot(b, b)))
        worst = max(worst, float(np.linalg.norm(a - along * b) / max(np.linalg.norm(a), 1e-300)))
    return worst


def _best(subject: Subject, update: MatrixExpr, gradients, moved) -> tuple[float, Memory]:
    tries = []
    for memory in MEMORIES:
        try:
            predicted = _predicted(subject, update, gradients, memory)
        except (DeltabiasError, ValueError, np.linalg.LinAlgError):
            continue  # shapes that do not fit, or a singular factor: not this one
        tries.append((_apart(moved, predicted), memory))
    return min(tries, key=lambda t: t[0]) if tries else (1.0, MEMORIES[0])


def _direction(subject: Subject, gradients: np.ndarray, moved: np.ndarray) -> Check:
    distance, memory = _best(subject, subject.rule.update, gradients, moved)
    if distance <= EXACT:
        return Check("direction", PASS, distance, EXACT, detail=f"with {memory.name}")
    others = [(_best(subject, u, gradients, moved)[0], name) for name, u in mistakes(subject.rule)]
    nearest, diagnosis = min(others, default=(1.0, ""))
    if nearest <= EXACT:
        return Check("direction", FAIL, distance, EXACT, diagnosis)
    if distance <= COARSE and nearest > 3 * distance:
        return Check(
            "direction", PASS, distance, COARSE,
            detail=f"with {memory.name}; to the digits of an iteration in low precision",
        )  # fmt: skip
    if distance <= COARSE:
        said = f"a mistake fits as well: {diagnosis}, {nearest:.2g}"
        return Check("direction", INCONCLUSIVE, distance, EXACT, detail=said)
    close = nearest < distance / 10
    detail = "" if close else "no known mistake fits"
    return Check("direction", FAIL, distance, EXACT, diagnosis if close else "", detail)


# -- mistakes -----------------------------------------------------------------------------------


def mistakes(rule: MatrixRule) -> Iterator[tuple[str, MatrixExpr]]:
    """The rule's update with one thing wrong, by name."""
    of_roots = [n for n in rule.spectral if n.map.expression.as_base_exp()[0] == EIGENVALUE]
    for root in ROOTS:
        wrong = inverse_root(sp.Integer(root))
        exchanged = {n: replace(n, map=wrong) for n in of_roots if n.map != wrong}
        if exchanged:
            yield f"wrong root: {root}", _rebuilt(rule.update, exchanged)
        if len(of_roots) < 2:
            continue
        for node, side in zip(of_roots, ("first", "second", "third"), strict=False):
            if node in exchanged:
                yield (
                    f"wrong root of the {side} factor: {root}",
                    _rebuilt(rule.update, {node: exchanged[node]}),
                )
            said = f"the {side} factor is missing"
            if exchanged:
                said += f", and the root is {root}"
            yield said, _rebuilt(rule.update, {**exchanged, node: None})


def _rebuilt(root: MatrixExpr, exchanged: Mapping[MatrixExpr, MatrixExpr | None]) -> MatrixExpr:
    """With nodes exchanged, and factors of products left out where the other is None."""
    made: dict[MatrixExpr, MatrixExpr | None] = {}
    for node in root.walk():
        own = exchanged.get(node, node)
        if own is None:
            made[node] = None
            continue
        changes = {}
        for f in fields(own):
            value = getattr(own, f.name)
            if isinstance(value, MatrixExpr):
                changes[f.name] = made[value]
            elif isinstance(value, tuple) and value and isinstance(value[0], MatrixExpr):
                changes[f.name] = tuple(m for v in value if (m := made[v]) is not None)
        made[node] = replace(own, **changes) if changes else own
    return made[root]


# -- symmetries ---------------------------------------------------------------------------------


def _turns(name: str) -> tuple[Callable, Callable]:
    """What is done to gradients, and what a symmetric rule then does to its update."""
    rng = np.random.default_rng(5)
    left = np.linalg.qr(rng.standard_normal((ROWS, ROWS)))[0]
    right = np.linalg.qr(rng.standard_normal((COLUMNS, COLUMNS)))[0]
    match name:
        case "left rotation":
            return (lambda g: left @ g), (lambda u: left @ u)
        case "right rotation":
            return (lambda g: g @ right), (lambda u: u @ right)
        case "sign flip":
            return (lambda g: -g), (lambda u: -u)
    return (lambda g: 4.0 * g), (lambda u: u)  # up to its length, as every direction here


def _symmetry(subject: Subject, name: str, gradients, moved, allowed: float) -> Check:
    """A symmetry that the rule is seen to have is asked of the optimizer; others are not."""
    before, after = _turns(name)
    memory = MEMORIES[0]
    rule = _predicted(subject, subject.rule.update, gradients, memory)
    turned = _predicted(subject, subject.rule.update, before(gradients), memory)
    if _apart(turned, after(rule)) > EXACT:
        return Check(name, SKIPPED, detail="the rule itself has no such symmetry")
    distance = _apart(subject.directions(before(gradients)), after(moved))
    if distance <= allowed:
        detail = "" if allowed == EXACT else "to the digits of an iteration in low precision"
        return Check(name, PASS, distance, allowed, detail=detail)
    diagnosis = {
        "left rotation": "the rows' basis matters",
        "right rotation": "the columns' basis matters",
        "sign flip": "a sign matters",
    }.get(name, "the gradient's scale matters")
    return Check(name, FAIL, distance, allowed, diagnosis)

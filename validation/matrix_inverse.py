"""E W⁻¹ of the inverse against its closed form n/(n − d − 1) Σ⁻¹: the order of what is left.

One column a microbatch, so n = m, for Wishart W. With the law's own covariance the full second
order of W⁻¹ at Σ is (d + 1)/n Σ⁻¹ exactly, and what is left is of second order in 1/n:
no simulation. With its estimates from the same microbatches, in the form that stays positive
definite, the mean is simulated.
"""

from dataclasses import replace

import mpmath
import numpy as np
import torch

from deltabias.generated import inverse_root_1
from deltabias.matrix_rule import MatrixRule
from deltabias.report.matrix_modes import Modes
from deltabias.report.matrix_record import simulate
from deltabias.report.matrix_scenario import matrix_scenario
from deltabias.truth import matrix_law, to_float64, wishart_inverse_mean
from validation.slopes import slope
from validation.study import Row

DIM, CONDITION = 4, 20.0
EXACT = (64, 128, 256, 512, 1024)
SIMULATED = ((32, 32_768), (64, 32_768), (128, 16_384))
SLOPE_ERROR = 0.05


def deviations_of_wishart(covariance: np.ndarray) -> torch.Tensor:
    """Directions E_r [d(d + 1)/2, d, d] with Σ_r E_r ⊗ E_r = Cov of xxᵀ, x ~ N(0, Σ).

    Cov(x_i x_j, x_k x_l) = Σ_ik Σ_jl + Σ_il Σ_jk; with Σ = A A the matrices A S A for S
    orthogonal symmetric, of variance 2.
    """
    eigenvalues, basis = np.linalg.eigh(covariance)
    root = (basis * np.sqrt(eigenvalues)) @ basis.T
    directions = []
    for i in range(len(root)):
        for j in range(i, len(root)):
            unit = np.zeros_like(root)
            unit[i, j] = unit[j, i] = np.sqrt(2) if i == j else 1.0
            directions.append(root @ unit @ root)
    return torch.tensor(np.array(directions))


def exact_rows() -> tuple[list[Row], list[dict]]:
    """E W⁻¹ − (1 + second order) Σ⁻¹ with the law's covariance; slope 2 in 1/n."""
    sigma = matrix_law("wishart", DIM, 1, condition=CONDITION).left_moment
    eigenvalues, basis = torch.linalg.eigh(torch.tensor(sigma))
    turned = basis.mT @ deviations_of_wishart(sigma) @ basis
    second = inverse_root_1.second_order(inverse_root_1.roots(eigenvalues), turned)
    second = (basis @ second @ basis.mT).numpy()
    inverse = np.linalg.inv(sigma)
    table = []
    for n in EXACT:
        mean = to_float64(wishart_inverse_mean(sigma, n))
        table.append({"n": n, "bias": _size(mean - inverse, inverse),
                      "left": _size(mean - inverse - second / n, inverse)})  # fmt: skip
    rows = []
    for key, order, said in (("bias", 1, "the plug-in's bias"), ("left", 2, "what full leaves")):
        found = slope([1 / n for n in EXACT], [mpmath.mpf(x[key]) for x in table]).extrapolated
        rows.append(Row(
            f"E W⁻¹ against n/(n − d − 1) Σ⁻¹: {said} has slope {order} in 1/n", found, order,
            passed=bool(abs(found - order) < SLOPE_ERROR), note="exact, no simulation",
        ))  # fmt: skip
    return rows, table


def estimated_rows(seed: int) -> tuple[list[Row], list[dict]]:
    """The same with the covariance estimated from the microbatches: a slope with an error."""
    torch.set_num_threads(1)
    rule, table = MatrixRule.parse("inv_root(L, 1)"), []
    for number, (n, replicates) in enumerate(SIMULATED):
        scene = matrix_scenario(rule, dim=DIM, columns=1, microbatches=n, law="wishart",
                                condition=CONDITION)  # fmt: skip
        law = matrix_law("wishart", DIM, 1, condition=CONDITION)
        scene = replace(scene, law=law)
        modes = Modes(scene, seed=seed)
        estimators = {m: modes.estimators[m] for m in ("plug_in", "full")}
        found = simulate(scene, estimators, replicates, seed + number)
        target = np.linalg.inv(law.left_moment)
        line = {"n": n, "replicates": replicates}
        for name in estimators:
            bias = found.bias(name)
            along = float((bias.mean * target).sum() / (target**2).sum())
            blocks = found.blocks[found.names.index(name)]
            each = (blocks * target).sum(axis=(1, 2)) / (target**2).sum()
            line[name] = along
            line[f"{name}_error"] = float(each.std(ddof=1) / np.sqrt(len(each)))
        line["closed_form"] = (DIM + 1) / (n - DIM - 1)
        table.append(line)
    return [*_plug_in_rows(table), _slope_row(table)], table


def _plug_in_rows(table: list[dict]) -> list[Row]:
    return [
        Row(f"simulated bias of W⁻¹ is (d + 1)/(n − d − 1), n = {x['n']}", x["plug_in"],
            x["closed_form"], x["plug_in_error"],
            bool(abs(x["plug_in"] - x["closed_form"]) < 5 * x["plug_in_error"]), "five errors")
        for x in table
    ]  # fmt: skip


def _slope_row(table: list[dict]) -> Row:
    """The least-squares slope of what is left, and its error by the delta method."""
    x = np.log([1 / line["n"] for line in table])
    left = np.array([line["full"] for line in table])
    relative = np.array([line["full_error"] for line in table]) / np.abs(left)
    weights = (x - x.mean()) / ((x - x.mean()) ** 2).sum()
    found = float(weights @ np.log(np.abs(left)))
    error = float(np.sqrt((weights**2) @ relative**2))
    return Row(
        "corrected W⁻¹ with estimated deviations: what is left has slope 2 or more in 1/n", found,
        2, error, bool(found + 2 * error >= 2 - 0.3),
        "passed from 1.7 on, within two errors: at these n the next order still shows",
    )  # fmt: skip


def inverse_rows(seed: int) -> tuple[list[Row], list[dict]]:
    """Exact and simulated."""
    exact, table = exact_rows()
    estimated, simulated = estimated_rows(seed)
    return [*exact, *estimated], [*table, *simulated]


def _size(error: np.ndarray, unit: np.ndarray) -> float:
    return float(np.linalg.norm(error) / np.linalg.norm(unit))

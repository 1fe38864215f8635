"""The error of every generated function in fp32 and bf16, in units in the last place.

The emitted tests hold the functions to 4 units in float64 against 50-digit references that are
printed next to them; the same references judge the shorter types here, decade by decade of the
preconditioner's statistic from 1e-30 to 1e10. Inputs are exact numbers of the type; a unit is that
of the largest term, because a sum that cancels is no better in any arithmetic.

A dropped coefficient or a wrong last bit would hide in bf16, which is why float64 is tested first:
this study is about the arithmetic of the short types.
"""

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import torch

from deltabias.codegen.ulps import grid, worst_ulps
from deltabias.rules import CATALOGUE, get_rule
from validation.figures import panels, save, styled
from validation.study import Findings, Progress, Row, Study, no_progress
from validation.tasks import run_tasks

EMITTED = Path(__file__).parent.parent / "tests" / "generated"
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
DECADES = tuple(range(-30, 10))
SAMPLES = 40
SEED = 12
ALLOWED = 4.0
"""Units in the last place: what the emitted tests allow in float64."""


def cases(rule_name: str) -> tuple:
    """(the generated module, its (function name, reference, ranges, scalars))."""
    path = EMITTED / f"test_{rule_name}.py"
    spec = spec_from_file_location(f"emitted_{rule_name}", path)
    emitted = module_from_spec(spec)
    spec.loader.exec_module(emitted)
    return emitted.module, emitted.CASES


def preconditioner(rule_name: str) -> str:
    """The state whose decades are walked through: the positive one."""
    return next(s.name for s in get_rule(rule_name).states if s.statistic.positive)


def decade_errors(rule_name: str, dtype_name: str, samples: int = SAMPLES) -> list[dict]:
    """The worst error of each function in each decade, and where."""
    module, found = cases(rule_name)
    walked, lines = preconditioner(rule_name), []
    for name, reference, ranges, scalars in found:
        for decade in DECADES:
            narrowed = {**ranges, walked: (10.0**decade, 10.0 ** (decade + 1))}
            tensors = grid(narrowed, DTYPES[dtype_name], samples=samples, seed=SEED)
            ulps, where = worst_ulps(getattr(module, name), reference, tensors, scalars)
            lines.append(
                {
                    "rule": rule_name,
                    "function": name,
                    "dtype": dtype_name,
                    "decade": decade,
                    "ulps": ulps,
                    "where": where,
                }
            )
    return lines


def rows_of(lines: list[dict]) -> list[Row]:
    """One row for each rule, function and type: the worst of all decades."""
    groups: dict[tuple, list] = {}
    for line in lines:
        groups.setdefault((line["rule"], line["function"], line["dtype"]), []).append(line)
    rows = []
    for key, mine in groups.items():
        worst = max(mine, key=lambda x: x["ulps"])
        where = ", ".join(f"{k} = {v:.3g}" for k, v in worst["where"].items())
        rows.append(
            Row(
                f"at most {ALLOWED:g} units in the last place for v in 1e-30 … 1e10: "
                + ", ".join(key),
                worst["ulps"],
                0.0,
                passed=bool(worst["ulps"] <= ALLOWED),
                note=f"worst at {where}",
            )
        )
    return rows


def control_row(samples: int = SAMPLES) -> Row:
    """A function that is wrong by one part in 2^19 in fp32 must be seen."""
    module, found = cases("inverse_sqrt")
    name, reference, ranges, scalars = found[1]
    tensors = grid(ranges, torch.float32, samples=samples, seed=SEED)

    def wrong(*arguments, **keywords):
        return getattr(module, name)(*arguments, **keywords) * (1 + 2**-19)

    ulps, _ = worst_ulps(wrong, reference, tensors, scalars)
    return Row("negative control caught: off by 2^-19 in fp32", ulps, 16.0,
               passed=bool(ulps > ALLOWED))  # fmt: skip


def study(
    *,
    workers: int = 1,
    progress: Progress = no_progress,
    samples: int = SAMPLES,
    rules: tuple[str, ...] = tuple(CATALOGUE),
) -> Findings:
    """Every rule of the catalogue in both types."""
    tasks = [(rule, dtype, samples) for rule in rules for dtype in DTYPES]
    parts = run_tasks(decade_errors, tasks, workers=workers, progress=progress)
    lines = [line for part in parts for line in part]
    table = [{k: v for k, v in line.items() if k != "where"} for line in lines]
    return Findings(
        [*rows_of(lines), control_row(samples)],
        {"units_in_the_last_place": table},
        {"random arguments a decade, besides the corners": samples},
        {"arguments": SEED},
    )


@styled
def draw(findings: Findings, path: Path) -> None:
    """The worst rule of each decade, for both functions and both types."""
    lines = findings.tables["units_in_the_last_place"]
    figure, axes = panels(1, len(DTYPES), width=4.0)
    for axis, dtype in zip(axes[0], DTYPES, strict=True):
        for name in dict.fromkeys(x["function"] for x in lines):
            worst = [
                max(x["ulps"] for x in lines
                    if (x["dtype"], x["function"], x["decade"]) == (dtype, name, decade))
                for decade in DECADES
            ]  # fmt: skip
            axis.step(DECADES, worst, where="post", label=name)
        axis.axhline(ALLOWED, color="black", ls="--", lw=0.8)
        axis.set(title=dtype, xlabel="log10 of v", ylabel="units in the last place, worst rule")
        axis.legend()
    save(figure, path)


STUDY = Study(
    "precision",
    "generated functions stay within 4 units in the last place in fp32 and bf16",
    study,
    draw,
)

"""Does `check_bias` cry wolf? A thousand fresh seeds of right subjects at a false alarm of 1e-3.

Two questions. *Alarms*: of 1,000 runs, ten right subjects with a hundred seeds each, no more may
fail than a binomial variable of rate 1e-3 exceeds with probability 1e-3. That allowance includes
the tolerance of 1 % of the plug-in's bias, so few are expected at all. *Calibration*: for subjects
whose bias is zero exactly the standardized estimate must be Student's t, tolerance or not; of
1,000 of them the share beyond its two-sided 5 % points is held against 5 % by the same test, from
both sides.
"""

import math
from collections.abc import Callable
from functools import partial

from scipy.stats import binom

from deltabias.truth import law
from deltabias.verify.bias import BiasVerdict, check_bias
from deltabias.verify.bias_ladder import t_quantile
from deltabias.verify.bias_measure import BLOCKS
from deltabias.verify.controls.corrections import NORMAL, adam, inverse, inverse_sqrt, leave_one_out
from validation.study import Findings, Progress, Row, Study, no_progress
from validation.tasks import run_tasks

FALSE_ALARM, TEST_LEVEL, TAIL = 1e-3, 1e-3, 0.05
SEEDS, FIRST_SEED = 100, 10_000
CALIBRATION_SEEDS, CALIBRATION_FIRST = 500, 20_000
SAMPLES = 2**19
GAMMA = law("gamma", mean=1, sd="1/2")


def _sampler(rng, shape):
    return rng.gamma(4.0, 0.25, shape)


def _exact(x):
    """1/x̄ of a gamma law of shape 4 has the mean 4m/(4m − 1)."""
    return (1 - 1 / (4 * x.shape[1])) / x.mean(dim=1)


def _exponential(x):
    """exp x̄ of a normal law of variance ¼ has the mean exp(μ + ¼/(2m))."""
    return (x.mean(dim=1) - 0.125 / x.shape[1]).exp()


def _under(name: str) -> Callable[..., BiasVerdict]:
    return partial(check_bias, inverse, "1/x", law=law(name, mean=1, sd="1/5"), microbatches=16)


SUBJECTS: dict[str, Callable[..., BiasVerdict]] = {
    "1/x, normal": _under("normal"),
    "1/x, laplace": _under("laplace"),
    "1/x, student_t": _under("student_t"),
    "1/x, skewed": _under("skewed"),
    "1/x, gamma": partial(check_bias, inverse, "1/x", law=GAMMA, microbatches=16),
    "1/x, gamma, m = 4": partial(check_bias, inverse, "1/x", law=GAMMA, microbatches=4),
    "jackknife, gamma": partial(check_bias, leave_one_out, "1/x", law=GAMMA, microbatches=16),
    "x^(-1/2), gamma": partial(check_bias, inverse_sqrt, "x**(-1/2)", law=GAMMA, microbatches=16),
    "adam step, normal": partial(
        check_bias, adam, "g/(sqrt(v)+eps)", law=NORMAL, microbatches=16, hypers={"eps": 0.5}
    ),
    "1/x, a sampler": partial(check_bias, inverse, 1.0, law=_sampler, microbatches=16),
}
"""Right second-order corrections, claim 2."""

UNBIASED: dict[str, Callable[..., BiasVerdict]] = {
    "exact factor, gamma": partial(check_bias, _exact, 1.0, law=GAMMA, microbatches=8),
    "exact factor, normal": partial(check_bias, _exponential, math.e, law=NORMAL, microbatches=8),
}
"""Of no bias at all, at any size."""


def verdict_of(name: str, seed: int) -> str:
    """One run at `FALSE_ALARM`."""
    return SUBJECTS[name](false_alarm=FALSE_ALARM, seed=seed, samples=SAMPLES).verdict


def standardized(name: str, seed: int) -> float:
    """Estimate over standard error of the part that the claim rules out."""
    found = UNBIASED[name](false_alarm=FALSE_ALARM, seed=seed, samples=SAMPLES, claim=2)
    return found.left / found.left_error


def run(*, workers: int = 1, progress: Progress = no_progress) -> Findings:
    """The study."""
    tasks = [(n, FIRST_SEED + i) for n in SUBJECTS for i in range(SEEDS)]
    verdicts = run_tasks(verdict_of, tasks, workers=workers, progress=progress)
    more = [(n, CALIBRATION_FIRST + i) for n in UNBIASED for i in range(CALIBRATION_SEEDS)]
    scores = run_tasks(standardized, more, workers=workers, progress=progress)
    table = [_line(n, [v for (m, _), v in zip(tasks, verdicts, strict=True) if m == n])
             for n in SUBJECTS]  # fmt: skip
    return Findings(
        [_alarms(verdicts), _calibration(scores)], {"subjects": table},
        {"runs": len(tasks), "calibration_runs": len(more), "numbers_per_run": SAMPLES},
        {"first": FIRST_SEED, "calibration_first": CALIBRATION_FIRST},
    )  # fmt: skip


def _line(name: str, verdicts: list[str]) -> dict:
    return {
        "subject": name,
        **{v: verdicts.count(v) for v in ("pass", "fail", "inconclusive", "error")},
    }


def _alarms(verdicts: list[str]) -> Row:
    runs, failed = len(verdicts), verdicts.count("fail") + verdicts.count("error")
    most = int(binom.isf(TEST_LEVEL, runs, FALSE_ALARM))
    return Row(
        f"at most {most} of {runs} right subjects fail at false_alarm={FALSE_ALARM:g}",
        failed, runs * FALSE_ALARM, math.sqrt(runs * FALSE_ALARM), passed=failed <= most,
        note=f"{verdicts.count('inconclusive')} inconclusive at {SAMPLES} numbers",
    )  # fmt: skip


def _calibration(scores: list[float]) -> Row:
    runs, limit = len(scores), t_quantile(TAIL / 2, BLOCKS - 1)
    beyond = sum(abs(z) > limit for z in scores)
    low, high = binom.ppf(TEST_LEVEL / 2, runs, TAIL), binom.isf(TEST_LEVEL / 2, runs, TAIL)
    return Row(
        f"{low:.0f} to {high:.0f} of {runs} unbiased estimates lie beyond the 5 % points",
        beyond, runs * TAIL, math.sqrt(runs * TAIL * (1 - TAIL)),
        passed=bool(low <= beyond <= high),
    )  # fmt: skip


STUDY = Study("false_alarms", "check_bias fails right subjects no more often than it says", run)

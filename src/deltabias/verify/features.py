"""What an optimizer must do besides its arithmetic: resume, be copied, take gradients as they come.

Each check drives the optimizer through the same histories in another way that must not matter,
and holds the parameters against the plain run, within twice the rounding that the rule allows.
What an optimizer does not offer is skipped, with the reason.
"""

from collections.abc import Callable, Iterator, Sequence

from deltabias.verify.baseline import Baseline, Feature, Unoffered, Wrong
from deltabias.verify.constructor import IMPLEMENTATIONS, TargetError
from deltabias.verify.distance import Distance
from deltabias.verify.drive import Refused
from deltabias.verify.feature_copies import (
    accumulation_feature,
    clipping_feature,
    closure_feature,
    compiled_feature,
    deepcopy_feature,
    flag_feature,
    no_gradient_feature,
    pickle_feature,
    resume_feature,
    zero_grad_feature,
)
from deltabias.verify.feature_parameters import (
    added_group_feature,
    empty_feature,
    frozen_feature,
    gradient_unchanged_feature,
    late_start_feature,
    non_contiguous_feature,
    order_feature,
    repeatable_feature,
    scheduler_feature,
)
from deltabias.verify.record import ERROR, FAIL, PASS, SKIPPED, Check

SLOW = ("compiled",)


def feature_checks(
    subject, wanted: Sequence[str] = (), sound: bool = True
) -> Iterator[Callable[[], Check]]:
    """Every feature's check, not yet begun.

    Parameters
    ----------
    wanted : names of slow ones to take in
    sound : whether the optimizer follows its rule; if not, nothing more is held against the rule
    """
    made: list[Baseline] = []

    def baseline() -> Baseline:
        if not made:
            made.append(Baseline(subject))
        return made[0]

    for name, feature in FEATURES.items():
        if name in SLOW and name not in wanted:
            yield lambda name=name: Check(
                name, SKIPPED, detail=f"takes long; ask for it with features=({name!r},)"
            )
        elif name in AGAINST_THE_RULE and not sound:
            yield lambda name=name: Check(name, SKIPPED, detail="conformance fails without it")
        else:
            yield lambda name=name, feature=feature: _check(name, feature, baseline)


def _check(name: str, feature: Feature, baseline: Callable[[], Baseline]) -> Check:
    try:
        found = feature(baseline())
    except Unoffered as reason:
        return Check(name, SKIPPED, detail=str(reason))
    except Wrong as error:
        return Check(name, FAIL, diagnosis=f"{name}: {MEANING[name]}", detail=str(error))
    except (TargetError, Refused) as error:
        # a loud refusal computes nothing wrong, and is only wrong where it may not refuse
        if name in MUST:
            return Check(name, FAIL, diagnosis=f"{name}: {MEANING[name]}", detail=str(error))
        return Check(name, SKIPPED, detail=f"refused: {error}")
    except Exception as error:
        return Check(name, ERROR, detail=f"{type(error).__name__}: {error}")
    said = MEANING[name]
    if found.agrees:
        return Check(name, PASS, found.ulps, found.bound)
    return Check(name, FAIL, found.ulps, found.bound, f"{name}: {said}", _where(found))


def _where(found: Distance) -> str:
    return (
        f"step {found.step}, parameter {found.parameter}, entry {found.entry}: "
        f"{found.got!r} instead of {found.expected!r}"
    )


FEATURES: dict[str, Feature] = {
    "repeatable": repeatable_feature,
    "gradient unchanged": gradient_unchanged_feature,
    **{flag: flag_feature(flag) for flag in IMPLEMENTATIONS},
    "compiled": compiled_feature,
    "resume": resume_feature,
    "deepcopy": deepcopy_feature,
    "pickle": pickle_feature,
    "lr scheduler": scheduler_feature,
    "clipping": clipping_feature,
    "accumulation": accumulation_feature,
    "closure": closure_feature,
    "step without gradients": no_gradient_feature,
    "zero_grad": zero_grad_feature,
    "parameter order": order_feature,
    "frozen parameter": frozen_feature,
    "late first gradient": late_start_feature,
    "added group": added_group_feature,
    "empty parameter": empty_feature,
    "non-contiguous parameter": non_contiguous_feature,
}
AGAINST_THE_RULE = ("late first gradient", "added group")
MUST = ("resume", "deepcopy", "parameter order", "clipping", "accumulation", "frozen parameter")
MEANING = {
    "repeatable": "two runs differ",
    "gradient unchanged": "step() changes the gradient",
    "foreach": "differs from the single-tensor implementation",
    "fused": "differs from the single-tensor implementation",
    "capturable": "differs from the plain implementation",
    "differentiable": "differs from the plain implementation",
    "compiled": "differs under torch.compile",
    "resume": "a checkpoint does not hold the whole state",
    "deepcopy": "a copy goes on otherwise",
    "pickle": "a pickled copy goes on otherwise",
    "lr scheduler": "the scheduler's learning rate does not arrive",
    "clipping": "a gradient scaled in place after backward does not reach every statistic",
    "accumulation": "four backward passes of a quarter are not one",
    "closure": "a step with a closure differs",
    "step without gradients": "a step without any gradient leaves a trace",
    "zero_grad": "zero_grad() leaves a trace",
    "parameter order": "the order of parameters and groups matters",
    "frozen parameter": "a parameter that has no gradient matters to the others",
    "late first gradient": "a parameter's steps are not counted from its own first",
    "added group": "a group added later is not treated as the rule treats it",
    "empty parameter": "an empty parameter matters to the others",
    "non-contiguous parameter": "a parameter's layout in memory matters",
}

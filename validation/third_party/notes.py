"""What reading the code confirmed, check by check: file:line in the version named in the subjects.

A note speaks of one optimizer, or (name None) of everything in its package.
"""

from validation.third_party.subject import BUG, DEVIATION, Note

TORCH, PYTORCH, HEAVY = "torch-optimizer", "pytorch_optimizer", "heavyball"

_IN_PLACE = (
    "adds the weight decay to (or, maximizing, negates) param.grad in place: who reads the "
    "gradient after the step, or accumulates into it without zero_grad, has another one. "
    "torch.optim leaves it alone."
)
_LOST = (
    "options are attributes of the optimizer, which torch.optim.Optimizer.__getstate__ does not "
    "keep; the first step of a deep copy (and of an unpickled one) raises AttributeError."
)
_GROUP_STEP = (
    "the step is counted in the group, once a call, whoever has a gradient; the paper's t (and "
    "torch.optim's) is that of the parameter's own moments, so that a parameter that joins late is "
    "debiased as if its moments were old."
)
_EPS_FIRST = (
    "eps is added before the debias, lr*sqrt(1 - beta2**t)/(1 - beta1**t)*m/(sqrt(v) + eps), as "
    "in the remark at the end of section 2 of Adam's paper: the eps that algorithm 1 means "
    "grows from step to step."
)
_SHARED_BUFFERS = (
    "the momentum buffers are kept in a dictionary whose keys are the betas, so that two equal "
    "betas share one buffer, which is fed twice a step."
)
_RATE_INSIDE = (
    "the smoothed rate contains 1/(1 - beta1**t), and eps is added before the debias, as in the "
    "authors' own code; the paper smooths lr/(sqrt(v_hat) + eps) and debiases m apart from it."
)
_YOGI = (
    "both moments begin at initial_accumulator and both are debiased, as if they began at 0; the "
    "paper's first moment begins at 0, and neither is debiased. The code says that it follows "
    "TensorFlow Addons."
)
_LR_EPS = "eps is added to the learning rate as well; algorithm 1 adds it to the root alone."

NOTES: dict[tuple[str, str | None], dict[str, Note]] = {
    (TORCH, None): {
        "gradient unchanged": Note(DEVIATION, "grad.add_/d_p.add_ in step", _IN_PLACE),
    },
    (TORCH, "RAdam"): {
        "conformance": Note(
            DEVIATION,
            "radam.py:109, 154, 177",
            "everything is computed in float32, float64 parameters too; the rectified step begins "
            "at rho_t >= 5 (the paper: > 4), as a comment says and as the authors' code does; eps "
            "is added to the root before the debias (the paper has none).",
        ),
        "late first gradient": Note(
            BUG,
            "radam.py:143-170",
            "the step size, learning rate included, is cached in the group under the parameter's "
            "step: a parameter that is at step 2 when others were there some calls ago gets the "
            "learning rate of then.",
        ),
        "added group": Note(
            BUG,
            "radam.py:59",
            "groups without betas of their own share one cache, so that a group with another "
            "learning rate takes the step size of the first.",
        ),
    },
    (TORCH, "AdaBound"): {
        "conformance": Note(
            DEVIATION,
            "adabound.py:159-176",
            "debias and eps are added, the division by sqrt(t) is left out, gamma stands for "
            "1 - beta2 in the bounds, which follow the learning rate's schedule (lr/base_lr), as "
            "in the authors' code. Algorithm 2 has none of that. (The rule as found is held "
            "against it at a constant learning rate.)",
        ),
        "deepcopy": Note(BUG, "adabound.py:87", _LOST),
        "added group": Note(
            BUG,
            "adabound.py:87, 104",
            "zip(self.param_groups, self.base_lrs) stops at the groups that the constructor had: a "
            "group that is added later is never stepped.",
        ),
    },
    (TORCH, "AdaMod"): {
        "conformance": Note(DEVIATION, "adamod.py:124-148", _RATE_INSIDE),
    },
    (TORCH, "DiffGrad"): {
        "conformance": Note(DEVIATION, "diffgrad.py:124-143", _EPS_FIRST),
    },
    (TORCH, "Yogi"): {"conformance": Note(DEVIATION, "yogi.py:107-146", _YOGI)},
    (TORCH, "AdaBelief"): {"deepcopy": Note(BUG, "adabelief.py:91", _LOST)},
    (TORCH, "SGDW"): {
        "conformance": Note(
            BUG,
            "sgdw.py:121",
            "p.add_(weight_decay, alpha=-lr) subtracts the constant lr*weight_decay from every "
            "entry; the paper subtracts lr*weight_decay*param. Every weight drifts to minus "
            "infinity, none is decayed.",
        ),
    },
    (TORCH, "PID"): {
        "conformance": Note(
            BUG,
            "pid.py:103-107",
            "at the first step the gradient is bound to a local name and not kept: grad_buffer "
            "stays 0, and the second step's difference is the whole gradient, times derivative "
            "(10). The authors' code never keeps the gradient at all.",
        ),
    },
    (TORCH, "AggMo"): {"conformance": Note(BUG, "aggmo.py:93-104", _SHARED_BUFFERS)},
    (TORCH, "MADGRAD"): {
        "conformance": Note(DEVIATION, "madgrad.py:93", _LR_EPS),
        "missing gradients": Note(DEVIATION, "madgrad.py:92, 184", _GROUP_STEP),
        "step without gradients": Note(DEVIATION, "madgrad.py:184", _GROUP_STEP),
        "late first gradient": Note(DEVIATION, "madgrad.py:92", _GROUP_STEP),
    },
    (PYTORCH, None): {
        "gradient unchanged": Note(DEVIATION, "base/optimizer.py:209, 713", _IN_PLACE),
        "deepcopy": Note(BUG, "self.maximize, self.foreach, … in __init__", _LOST),
        "missing gradients": Note(DEVIATION, "group['step'] += 1 in step", _GROUP_STEP),
        "step without gradients": Note(DEVIATION, "group['step'] += 1 in step", _GROUP_STEP),
        "late first gradient": Note(DEVIATION, "group['step'] += 1 in step", _GROUP_STEP),
    },
    (PYTORCH, "RAdam"): {
        "conformance": Note(
            BUG,
            "radam.py:38, 110, 151",
            "where the variance is not tractable there is no step and no decay "
            "(degenerated_to_sgd=False is the default; the paper takes the momentum step); "
            "threshold 5 for 4; eps before the debias (deviations). The bug: with "
            "weight_decouple=False the decay is dropped without a word (grad=None).",
        ),
    },
    (PYTORCH, "AdaMod"): {"conformance": Note(DEVIATION, "adamod.py:183-187", _RATE_INSIDE)},
    (PYTORCH, "DiffGrad"): {"conformance": Note(DEVIATION, "diffgrad.py:245", _EPS_FIRST)},
    (PYTORCH, "Yogi"): {"conformance": Note(DEVIATION, "yogi.py:96-97", _YOGI)},
    (PYTORCH, "QHAdam"): {
        "resume": Note(
            DEVIATION,
            "qhadam.py, beta1_weight",
            "the debias weights are float32 tensors, which load_state_dict turns into the "
            "parameters' float64: a resumed run goes on with other roundings, 1e-10 apart.",
        ),
    },
    (PYTORCH, "PID"): {
        "conformance": Note(
            DEVIATION,
            "pid.py:107-108",
            "the integral's first gradient is dampened too; in the authors' code (and in "
            "torch.optim.SGD, which it follows) it is not. The derivative's bug of "
            "torch-optimizer is mended here.",
        ),
    },
    (PYTORCH, "AggMo"): {"conformance": Note(BUG, "aggmo.py:75, 148", _SHARED_BUFFERS)},
    (PYTORCH, "MADGRAD"): {
        "conformance": Note(DEVIATION, "madgrad.py:167", _LR_EPS),
        "added group": Note(DEVIATION, "madgrad.py:162", "k is the optimizer's, " + _GROUP_STEP),
    },
    (PYTORCH, "Adan"): {
        "conformance": Note(
            BUG,
            "adan.py:90, 171",
            "the moments begin at 0 and are debiased (the paper's begin at the first gradient; the "
            "authors' code debiases too: a deviation). The bug: previous_grad is set before "
            "maximize negates the gradient, so that with maximize=True the first difference is "
            "-2*grad instead of 0.",
        ),
    },
    (PYTORCH, "ADOPT"): {
        "conformance": Note(
            BUG,
            "adopt.py:180, 213",
            "the clip takes the count that includes the step that only begins the second moment: "
            "the first update is clipped at 2**0.25, where algorithm 2 clips at 1.",
        ),
    },
    (PYTORCH, "LaProp"): {
        "conformance": Note(
            DEVIATION,
            "laprop.py:107, 214",
            "eps before the debias and 1e-15 inside the root (the authors' code: neither); the "
            "learning rate is averaged into the momentum and divided out again, as in the authors' "
            "code: a schedule acts late.",
        ),
    },
    (PYTORCH, "PAdam"): {
        "conformance": Note(
            DEVIATION,
            "padam.py:97",
            "no running maximum of the second moment (algorithm 1 is amsgrad's), a debias and an "
            "eps that it does not have.",
        ),
    },
    (PYTORCH, "PNM"): {
        "missing gradients": Note(
            BUG,
            "pnm.py, group['step'] % 2",
            "which of the two buffers is the newer is read off the group's step: a parameter that "
            "misses one gradient takes them in the wrong order.",
        ),
    },
    (PYTORCH, "Kate"): {
        "conformance": Note(
            DEVIATION,
            "kate.py:100, 154",
            "eps is added to the sum of squares at every step, so that it grows as t*eps; the "
            "authors' code adds it once.",
        ),
    },
    (PYTORCH, "Grams"): {
        "conformance": Note(
            BUG,
            "grams.py:108, 162",
            "with weight_decouple=False the decay is added to a gradient that is not read any "
            "more: it has no effect.",
        ),
    },
    (HEAVY, None): {
        "deepcopy": Note(BUG, "utils.py:1561", _LOST),
        "step without gradients": Note(DEVIATION, "group['step'] in chainable.py", _GROUP_STEP),
        "late first gradient": Note(DEVIATION, "group['step'] in chainable.py", _GROUP_STEP),
        "missing gradients": Note(DEVIATION, "group['step'] in chainable.py", _GROUP_STEP),
    },
    (HEAVY, "AdamW"): {
        "conformance": Note(
            DEVIATION,
            "utils.py:420",
            "the root is clamped at eps instead of eps being added.",
        ),
    },
    (HEAVY, "RMSprop"): {
        "conformance": Note(
            DEVIATION,
            "utils.py:420",
            "debiased, as its documentation says; the root is clamped at eps.",
        ),
    },
    (HEAVY, "LaProp"): {
        "conformance": Note(
            BUG,
            "chainable.py, update_by_laprop",
            "the argument eps is taken and never handed on: "
            "the kernel's default, 1e-8, is used whatever eps is. Besides, the root is clamped at "
            "it (a deviation).",
        ),
    },
}


def notes_of(package: str, name: str) -> dict[str, Note]:
    """The package's notes, overruled by the optimizer's own."""
    return {**NOTES.get((package, None), {}), **NOTES.get((package, name), {})}

"""heavyball: what it has that is elementwise, without torch.compile, its states in float64."""

from validation.third_party.subject import Subject

PACKAGE, READ = "heavyball", "3.2.1"
# what is kept is the debiased average: the debias is a decay rate that changes with t
FAST = "fast = 1 - (1 - beta1)/(1 - beta1**t)"
SLOW = "slow = 1 - (1 - beta2)/(1 - beta2**t)"


def _uncompiled(module: object) -> None:
    module.utils.compile_mode = None


def _subject(name: str, rule: str, **more) -> Subject:
    return Subject(
        PACKAGE,
        name,
        rule,
        READ,
        arguments={"storage_dtype": "float64"},
        prepare=_uncompiled,
        **more,
    )


SUBJECTS = (
    _subject(
        "AdamW",
        "adamw",
        found={
            "exp_avg = beta1*exp_avg + (1 - beta1)*grad": (
                FAST,
                "exp_avg = fast*exp_avg + (1 - fast)*grad",
            ),
            "exp_avg_sq = beta2*exp_avg_sq + (1 - beta2)*grad**2": (
                SLOW,
                "exp_avg_sq = slow*exp_avg_sq + (1 - slow)*grad**2",
            ),
            "param = param - lr*(exp_avg/(1 - beta1**t))/(sqrt(exp_avg_sq/(1 - beta2**t)) + eps)": (
                "param = param - lr*exp_avg/max(sqrt(exp_avg_sq), eps)",
            ),
        },
    ),
    _subject(
        "RMSprop",
        "rmsprop",
        found={
            "square_avg = beta2*square_avg + (1 - beta2)*grad**2": (
                SLOW,
                "square_avg = slow*square_avg + (1 - slow)*grad**2",
            ),
            "param = param - lr*grad/(sqrt(square_avg) + eps)": (
                "param = param - lr*grad/max(sqrt(square_avg), eps)",
            ),
        },
    ),
    _subject(
        "LaProp",
        "laprop",
        found={
            "exp_avg_sq = beta2*exp_avg_sq + (1 - beta2)*grad**2": (
                FAST,
                SLOW,
                "exp_avg_sq = slow*exp_avg_sq + (1 - slow)*grad**2",
            ),
            "exp_avg = beta1*exp_avg + (1 - beta1)*grad/(sqrt(exp_avg_sq/(1 - beta2**t)) + eps)": (
                "exp_avg = fast*exp_avg + (1 - fast)*grad/max(sqrt(exp_avg_sq), 1e-8)",
            ),
            "param = param - lr*exp_avg/(1 - beta1**t)": (
                "param = param*(1 - lr*weight_decay) - lr*exp_avg",
            ),
            "param = param*(1 - lr*weight_decay)": (),
        },
    ),
)

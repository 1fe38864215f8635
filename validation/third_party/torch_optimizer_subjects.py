"""torch-optimizer: what it has that is elementwise."""

from validation.third_party.subject import Subject

PACKAGE, READ = "torch-optimizer", "0.3.0"
DECOUPLED = {"decoupled_weight_decay": 1}


def _subject(name: str, rule: str, **more) -> Subject:
    return Subject(PACKAGE, name, rule, READ, **more)


SUBJECTS = (
    _subject(
        "RAdam",
        "radam",
        hypers=DECOUPLED,
        found={
            "adaptive = sqrt((1 - beta2**t)/exp_avg_sq)": (
                "adaptive = sqrt(1 - beta2**t)/(sqrt(exp_avg_sq) + eps)",
            ),
            "param = param - lr*exp_avg/(1 - beta1**t)*where(rho_t - 4, rect*adaptive, 1)": (
                "param = param - lr*exp_avg/(1 - beta1**t)*where(rho_t - 5, rect*adaptive, 1)",
            ),
        },
        found_dtype="float32",
    ),
    _subject(
        "AdaBound",
        "adabound",
        # the bounds follow lr/base_lr; without a name `lr` no schedule is drawn, and that is 1
        found={
            "param = where(decoupled_weight_decay, param*(1 - lr*weight_decay), param)": (),
            "grad = where(decoupled_weight_decay, grad, grad + weight_decay*param)": (
                "grad = grad + weight_decay*param",
            ),
            "lower = final_lr*(1 - 1/((1 - beta2)*t + 1))": (
                "lower = final_lr*(1 - 1/(gamma*t + 1))",
            ),
            "upper = final_lr*(1 + 1/((1 - beta2)*t))": ("upper = final_lr*(1 + 1/(gamma*t))",),
            "rate = clip(lr/sqrt(exp_avg_sq), lower, upper)/sqrt(t)": (
                "debiased = constant_lr*sqrt(1 - beta2**t)/(1 - beta1**t)",
                "rate = clip(debiased/(sqrt(exp_avg_sq) + eps), lower, upper)",
            ),
        },
        ranges={"gamma": 1e-3, "eps": 1e-8, "constant_lr": 1e-3},
        found_hypers={"constant_lr": "lr"},
    ),
    _subject(
        "AdaMod",
        "adamod",
        hypers=DECOUPLED,
        found={
            "rate = lr/(sqrt(exp_avg_sq/(1 - beta2**t)) + eps)": (
                "rate = lr*sqrt(1 - beta2**t)/(1 - beta1**t)/(sqrt(exp_avg_sq) + eps)",
            ),
            "param = param - min(rate, exp_avg_lr)*exp_avg/(1 - beta1**t)": (
                "param = param - min(rate, exp_avg_lr)*exp_avg",
            ),
        },
    ),
    _subject(
        "DiffGrad",
        "diffgrad",
        found={
            "param = param - lr*friction*exp_avg/(1 - beta1**t)"
            "/(sqrt(exp_avg_sq/(1 - beta2**t)) + eps)": (
                "rate = lr*sqrt(1 - beta2**t)/(1 - beta1**t)",
                "param = param - rate*friction*exp_avg/(sqrt(exp_avg_sq) + eps)",
            ),
        },
    ),
    _subject(
        "Yogi",
        "yogi",
        found={
            "param = param - lr*exp_avg/(sqrt(exp_avg_sq) + eps)": (
                "param = param - lr*exp_avg/(1 - beta1**t)/(sqrt(exp_avg_sq/(1 - beta2**t)) + eps)",
            ),
        },
        initial={"exp_avg": "initial_accumulator"},
    ),
    _subject("AdaBelief", "adabelief"),
    _subject("QHAdam", "qhadam", hypers={"decoupled_weight_decay": "decouple_weight_decay"}),
    _subject("QHM", "qhm"),
    _subject(
        "SGDW",
        "sgdw",
        hypers={"nesterov": 0},
        found={
            "param = param - lr*direction - lr*weight_decay*param": (
                "param = param - lr*direction - lr*weight_decay",
            ),
        },
    ),
    _subject(
        "PID",
        "pid",
        found={"previous = grad": ("previous = where(t - 1, grad, 0)",)},
    ),
    _subject(
        "AggMo",
        "aggmo",
        found_hypers={"beta1": (0.1, 0.3), "beta2": (0.4, 0.6), "beta3": (0.7, 0.95)},
    ),
    _subject("AccSGD", "accsgd"),
    _subject(
        "MADGRAD",
        "madgrad",
        found={"weight = lr*sqrt(t)": ("weight = (lr + eps)*sqrt(t)",)},
    ),
)

"""pytorch-optimizer: what it has that is elementwise."""

from validation.third_party.subject import Subject

PACKAGE, READ = "pytorch_optimizer", "4.1.0"


def _subject(name: str, rule: str, **more) -> Subject:
    return Subject(PACKAGE, name, rule, READ, **more)


SUBJECTS = (
    _subject(
        "RAdam",
        "radam",
        found={
            "param = where(decoupled_weight_decay, param*(1 - lr*weight_decay), param)": (),
            "grad = where(decoupled_weight_decay, grad, grad + weight_decay*param)": (),
            "rho_t = rho_inf - 2*t*beta2**t/(1 - beta2**t)": (
                "rho_t = rho_inf - 2*t*beta2**t/(1 - beta2**t)",
                "decay = where(decoupled_weight_decay, lr*weight_decay, 0)",
                "param = where(rho_t - 5, param*(1 - decay), param)",
            ),
            "adaptive = sqrt((1 - beta2**t)/exp_avg_sq)": (
                "adaptive = sqrt(1 - beta2**t)/(sqrt(exp_avg_sq) + eps)",
            ),
            "param = param - lr*exp_avg/(1 - beta1**t)*where(rho_t - 4, rect*adaptive, 1)": (
                "param = param - lr*exp_avg/(1 - beta1**t)*where(rho_t - 5, rect*adaptive, 0)",
            ),
        },
    ),
    _subject(
        "AdaMod",
        "adamod",
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
                "param = param - rate*friction*exp_avg/(sqrt(exp_avg_sq + 1e-15) + eps)",
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
    _subject("QHAdam", "qhadam"),
    _subject("QHM", "qhm"),
    _subject("SGDW", "sgdw"),
    _subject(
        "PID",
        "pid",
        found={
            "integral_buffer = "
            "where(t - 1, momentum*integral_buffer + (1 - dampening)*grad, grad)": (
                "integral_buffer = momentum*integral_buffer + (1 - dampening)*grad",
            ),
        },
    ),
    _subject(
        "AggMo",
        "aggmo",
        found_hypers={"beta1": (0.1, 0.3), "beta2": (0.4, 0.6), "beta3": (0.7, 0.95)},
    ),
    _subject("AccSGD", "accsgd", hypers={"small_const": "constant"}),
    _subject(
        "MADGRAD",
        "madgrad",
        found={"weight = lr*sqrt(t)": ("weight = (lr + eps)*sqrt(t)",)},
    ),
    _subject("Lion", "lion"),
    _subject("Tiger", "tiger"),
    _subject("SignSGD", "signum"),
    _subject(
        "Adan",
        "adan",
        found={
            "exp_avg = where(t - 1, beta1*exp_avg + (1 - beta1)*grad, grad)": (
                "exp_avg = beta1*exp_avg + (1 - beta1)*grad",
            ),
            "exp_avg_sq = where(t - 1, beta3*exp_avg_sq + (1 - beta3)*nesterov_sq, nesterov_sq)": (
                "exp_avg_sq = beta3*exp_avg_sq + (1 - beta3)*nesterov_sq",
            ),
            "rate = lr/(sqrt(exp_avg_sq) + eps)": (
                "rate = lr/(sqrt(exp_avg_sq/(1 - beta3**t)) + eps)",
                "direction = exp_avg/(1 - beta1**t) + beta2*exp_avg_diff/(1 - beta2**t)",
            ),
            "param = (param - rate*(exp_avg + beta2*exp_avg_diff))/(1 + lr*weight_decay)": (
                "param = (param - rate*direction)/(1 + lr*weight_decay)",
            ),
        },
        found_hypers={"maximize": 0},
    ),
    _subject(
        "ADOPT",
        "adopt",
        found={
            "clipped = clip(grad/max(sqrt(exp_avg_sq), eps), -(t - 1)**(1/4), (t - 1)**(1/4))": (
                "clipped = clip(grad/max(sqrt(exp_avg_sq), eps), -t**(1/4), t**(1/4))",
            ),
        },
    ),
    _subject(
        "LaProp",
        "laprop",
        found={
            "exp_avg = beta1*exp_avg + (1 - beta1)*grad/(sqrt(exp_avg_sq/(1 - beta2**t)) + eps)": (
                "rate = (1 - beta1)*lr*sqrt(1 - beta2**t)",
                "exp_avg = beta1*exp_avg + rate*grad/(sqrt(exp_avg_sq + 1e-15) + eps)",
                "exp_avg_lr = beta1*exp_avg_lr + (1 - beta1)*lr",
            ),
            "param = param - lr*exp_avg/(1 - beta1**t)": ("param = param - lr/exp_avg_lr*exp_avg",),
        },
    ),
    _subject(
        "PAdam",
        "padam",
        found={
            "max_exp_avg_sq = max(max_exp_avg_sq, exp_avg_sq)": (),
            "param = param - lr*exp_avg/max_exp_avg_sq**partial": (
                "rate = lr*sqrt(1 - beta2**t)/(1 - beta1**t)",
                "param = param - rate*exp_avg/(sqrt(exp_avg_sq) + eps)**(2*partial)",
            ),
        },
    ),
    _subject("PNM", "pnm"),
    _subject("AdEMAMix", "ademamix"),
    _subject(
        "Kate",
        "kate",
        found={
            "square_sum = square_sum + grad**2": ("square_sum = square_sum + grad**2 + eps",),
        },
        initial={"square_sum": "0"},
    ),
    _subject(
        "Grams",
        "grams",
        found={"grad = where(decoupled_weight_decay, grad, grad + weight_decay*param)": ()},
    ),
)

"""The step rules of torch.optim, as its single-tensor implementations have them.

Each is a page of mathematics: the assignments are in the order in which torch makes them.
Options that are flags (maximize, nesterov, amsgrad, …) are hyperparameters that are 0 or 1.
``lion`` stands for a rule that a user wrote.
"""

from deltabias.verify.hyper_range import HyperRange, usual_range
from deltabias.verify.step_rule import StepRule

MAXIMIZE = "grad = where(maximize, -grad, grad)"
COUPLED = "grad = grad + weight_decay*param"
DECOUPLED = "param = param*(1 - lr*weight_decay)"
EITHER = (
    "param = where(decoupled_weight_decay, param*(1 - lr*weight_decay), param)",
    "grad = where(decoupled_weight_decay, grad, grad + weight_decay*param)",
)
FIRST = "exp_avg = beta1*exp_avg + (1 - beta1)*grad"
SECOND = "exp_avg_sq = beta2*exp_avg_sq + (1 - beta2)*grad**2"
LARGEST = "max_exp_avg_sq = max(max_exp_avg_sq, exp_avg_sq)"
CHOSEN = "second_moment = where(amsgrad, max_exp_avg_sq, exp_avg_sq)"
ADAM_STEP = "param = param - lr*(exp_avg/(1 - beta1**t))/(sqrt(second_moment/(1 - beta2**t)) + eps)"
ADAM_LINES = (FIRST, SECOND, LARGEST, CHOSEN, ADAM_STEP)


def _hypers(**defaults: float) -> tuple[HyperRange, ...]:
    return tuple(usual_range(name, default) for name, default in defaults.items())


ADAM = StepRule(
    "adam",
    (MAXIMIZE, COUPLED, *ADAM_LINES),
    title="Adam, optionally amsgrad",
    source="Kingma & Ba, arXiv 1412.6980, algorithm 1; torch.optim.Adam",
)
ADAMW = StepRule(
    "adamw",
    (MAXIMIZE, DECOUPLED, *ADAM_LINES),
    _hypers(weight_decay=1e-2),
    title="AdamW, optionally amsgrad",
    source="Loshchilov & Hutter, arXiv 1711.05101, algorithm 2; torch.optim.AdamW",
)
SGD = StepRule(
    "sgd",
    (
        MAXIMIZE,
        COUPLED,
        # the buffer begins as the first gradient, undampened
        "momentum_buffer = where(t - 1, momentum*momentum_buffer + (1 - dampening)*grad, grad)",
        "direction = where(nesterov, grad + momentum*momentum_buffer, momentum_buffer)",
        "param = param - lr*where(momentum, direction, grad)",
    ),
    adjust=(
        "dampening = where(nesterov, 0, dampening)",
        "momentum = where(nesterov, max(momentum, 1/10), momentum)",
    ),
    title="SGD with momentum, dampening, Nesterov",
    source="Sutskever et al., ICML 2013, as torch.optim.SGD has it",
)
ADAGRAD = StepRule(
    "adagrad",
    (
        MAXIMIZE,
        COUPLED,
        "sum = sum + grad**2",
        "param = param - lr/(1 + (t - 1)*lr_decay)*grad/(sqrt(sum) + eps)",
    ),
    _hypers(lr=1e-2, eps=1e-10),
    initial={"sum": "initial_accumulator_value"},
    title="Adagrad",
    source="Duchi, Hazan & Singer, JMLR 12 (2011); torch.optim.Adagrad",
)
RMSPROP = StepRule(
    "rmsprop",
    (
        MAXIMIZE,
        COUPLED,
        "square_avg = alpha*square_avg + (1 - alpha)*grad**2",
        "grad_avg = alpha*grad_avg + (1 - alpha)*grad",
        "second_moment = where(centered, square_avg - grad_avg**2, square_avg)",
        "direction = grad/(sqrt(second_moment) + eps)",
        "momentum_buffer = momentum*momentum_buffer + direction",
        "param = param - lr*where(momentum, momentum_buffer, direction)",
    ),
    _hypers(lr=1e-2),
    title="RMSprop, optionally centered, with momentum",
    source="Tieleman & Hinton, Lecture 6.5 (2012); torch.optim.RMSprop",
)
NADAM = StepRule(
    "nadam",
    (
        MAXIMIZE,
        *EITHER,
        "mu = beta1*(1 - 1/2*(96/100)**(t*momentum_decay))",
        "mu_next = beta1*(1 - 1/2*(96/100)**((t + 1)*momentum_decay))",
        "mu_product = mu_product*mu",
        FIRST,
        SECOND,
        "denominator = sqrt(exp_avg_sq/(1 - beta2**t)) + eps",
        "param = param - lr*(1 - mu)/(1 - mu_product)*grad/denominator",
        "param = param - lr*mu_next/(1 - mu_product*mu_next)*exp_avg/denominator",
    ),
    _hypers(lr=2e-3),
    initial={"mu_product": 1},
    title="NAdam",
    source="Dozat, ICLR workshop 2016; torch.optim.NAdam",
)
RADAM = StepRule(
    "radam",
    (
        MAXIMIZE,
        *EITHER,
        FIRST,
        SECOND,
        "debiased = exp_avg/(1 - beta1**t)",
        "rho_inf = 2/(1 - beta2) - 1",
        "rho_t = rho_inf - 2*t*beta2**t/(1 - beta2**t)",
        "rect = sqrt((rho_t - 4)*(rho_t - 2)*rho_inf/((rho_inf - 4)*(rho_inf - 2)*rho_t))",
        # torch adds eps before the debias
        "adaptive = sqrt(1 - beta2**t)/(sqrt(exp_avg_sq) + eps)",
        "param = param - lr*debiased*where(rho_t - 5, rect*adaptive, 1)",
    ),
    # below 0.67 the variance is never tractable and the rectified branch never taken
    (HyperRange("beta2", 0.999, 0.7, 0.999, arguments=("betas[1]", "beta2", "b2")),),
    title="RAdam",
    source="Liu et al., arXiv 1908.03265, algorithm 2; torch.optim.RAdam",
)
ADAMAX = StepRule(
    "adamax",
    (
        MAXIMIZE,
        COUPLED,
        FIRST,
        "exp_inf = max(beta2*exp_inf, abs(grad) + eps)",
        "param = param - lr/(1 - beta1**t)*exp_avg/exp_inf",
    ),
    _hypers(lr=2e-3),
    title="Adamax",
    source="Kingma & Ba, arXiv 1412.6980, algorithm 2; torch.optim.Adamax",
)
ADADELTA = StepRule(
    "adadelta",
    (
        MAXIMIZE,
        COUPLED,
        "square_avg = rho*square_avg + (1 - rho)*grad**2",
        "delta = sqrt(acc_delta + eps)/sqrt(square_avg + eps)*grad",
        "acc_delta = rho*acc_delta + (1 - rho)*delta**2",
        "param = param - lr*delta",
    ),
    _hypers(lr=1.0, eps=1e-6),
    title="Adadelta",
    source="Zeiler, arXiv 1212.5701; torch.optim.Adadelta",
)
LION = StepRule(
    "lion",
    (
        MAXIMIZE,
        DECOUPLED,
        "update = sign(beta1*exp_avg + (1 - beta1)*grad)",
        "exp_avg = beta2*exp_avg + (1 - beta2)*grad",
        "param = param - lr*update",
    ),
    (usual_range("lr", 1e-4), usual_range("beta2", 0.99)),
    title="Lion",
    source="Chen et al., arXiv 2302.06675, program 1",
)

STEP_RULES: dict[str, StepRule] = {
    rule.name: rule
    for rule in (SGD, ADAGRAD, RMSPROP, ADAM, ADAMW, NADAM, RADAM, ADAMAX, ADADELTA, LION)
}

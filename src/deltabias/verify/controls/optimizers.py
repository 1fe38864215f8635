"""Wrong optimizers, each one line from a right one, and what a check should say of them."""

import inspect
from dataclasses import dataclass
from textwrap import dedent

from torch.optim import Optimizer

from deltabias.verify.controls import optimizer_twins as twins
from deltabias.verify.controls.optimizer_twins import TWINS


@dataclass(frozen=True)
class WrongOptimizer:
    """A twin with one line replaced.

    Parameters
    ----------
    twin : the right optimizer
    line, wrong : text of its source, and what stands there instead
    diagnosis : what a check should say; empty where no mutation of the rule describes it
    check : the check that should fail
    """

    twin: type[Optimizer]
    line: str
    wrong: str
    diagnosis: str = ""
    check: str = "conformance"

    @property
    def rule(self) -> str:
        """The rule that the twin follows and this one does not."""
        return TWINS[self.twin]

    @property
    def name(self) -> str:
        return f"{self.twin.__name__}: {self.wrong.strip()}"

    def build(self) -> type[Optimizer]:
        """The class.

        Raises
        ------
        ValueError
            if the line is not in the twin's source, or more than once.
        """
        source = dedent(inspect.getsource(self.twin))
        if source.count(self.line) != 1:
            raise ValueError(f"{self.line!r} occurs {source.count(self.line)} times, not once.")
        scope = dict(vars(twins))
        exec(source.replace(self.line, self.wrong), scope)
        return scope[self.twin.__name__]


def _adamw(line: str, wrong: str, diagnosis: str, **more: str) -> WrongOptimizer:
    return WrongOptimizer(twins.ReadableAdamW, line, wrong, diagnosis, **more)


def _adam(line: str, wrong: str, diagnosis: str) -> WrongOptimizer:
    return WrongOptimizer(twins.ReadableAdam, line, wrong, diagnosis)


def _sgd(line: str, wrong: str, diagnosis: str) -> WrongOptimizer:
    return WrongOptimizer(twins.ReadableSGD, line, wrong, diagnosis)


def _rmsprop(line: str, wrong: str, diagnosis: str) -> WrongOptimizer:
    return WrongOptimizer(twins.ReadableRMSprop, line, wrong, diagnosis)


_DENOMINATOR = "(second / debias2).sqrt() + eps"
_SHRINK = "param.mul_(1 - lr * decay)"
_STEP = "param.sub_(lr * (m / debias1) / denominator)"
_FIRST = "m.mul_(beta1).add_(grad, alpha=1 - beta1)"
_SECOND = "v.mul_(beta2).addcmul_(grad, grad, value=1 - beta2)"
_COUNTS = "debias1, debias2 = 1 - beta1**t, 1 - beta2**t"
_OPTIONS = 'lr, eps, decay, t = group["lr"], group["eps"], group["weight_decay"], state["step"]'
_BETAS = 'beta1, beta2 = group["betas"]'
_MAXIMIZE = 'grad = -grad if group["maximize"] else grad'
_COUPLED = "grad = grad + decay * param"
_ADAM = f"""{_FIRST}
        {_SECOND}
        denominator = (v / (1 - beta2**t)).sqrt() + eps
        param.sub_(lr * (m / (1 - beta1**t)) / denominator)"""

WRONG_OPTIMIZERS: tuple[WrongOptimizer, ...] = (
    _adamw(_DENOMINATOR, "(second / debias2 + eps).sqrt()", "eps inside the root"),
    _adamw(_DENOMINATOR, "(second + eps).sqrt() / debias2**0.5",
           "eps inside the root, before the debias"),
    _adamw(_DENOMINATOR, "(second.sqrt() + eps) / debias2**0.5", "eps added before the debias"),
    _adamw(_DENOMINATOR, "(second / debias2).sqrt()", "eps missing"),
    _adamw(_DENOMINATOR, "(second / debias2).sqrt().clamp(min=eps)",
           "eps as a floor instead of a sum"),
    _adamw(_DENOMINATOR, "(second / debias2).sqrt() + 1e-8", "eps ignored"),
    _adamw(_DENOMINATOR, "(second / debias2) ** (1 / 3) + eps", "wrong root"),
    _adamw(_DENOMINATOR, "second / debias2 + eps", "root missing"),
    _adamw(_DENOMINATOR, "second.sqrt() + eps", "no debias of the second moment"),
    _adamw(_DENOMINATOR, "second.sqrt() / debias2 + eps", "debias outside the root"),
    _adamw(_STEP, "param.sub_(lr * m / denominator)", "no debias of the first moment"),
    _adamw(_COUNTS, "debias2, debias1 = 1 - beta1**t, 1 - beta2**t", "debias swapped"),
    _adamw(_COUNTS, "debias1, debias2 = 1 - beta1 ** (t + 1), 1 - beta2 ** (t + 1)",
           "step off by one"),
    _adamw(_COUNTS, "t = max(t - 1, 1); debias1, debias2 = 1 - beta1**t, 1 - beta2**t",
           "step off by one"),
    _adamw(_COUNTS, "debias1, debias2 = 1 - beta1, 1 - beta2", "step never counted"),
    _adamw(_SHRINK, _COUPLED, "decay coupled"),
    _adamw(_SHRINK, "pass", "decay missing"),
    _adamw(_SHRINK, "param.mul_(1 - decay)", "decay not scaled by lr"),
    _adamw(_STEP, f"param.div_(1 - lr * decay); {_STEP}; param.mul_(1 - lr * decay)",
           "decay after the step"),
    _adamw(_BETAS, 'beta2, beta1 = group["betas"]', "betas swapped"),
    _adamw(_FIRST, "m.mul_(beta2).add_(grad, alpha=1 - beta2)", "betas swapped in exp_avg"),
    _adamw(_FIRST, "m.mul_(beta1).add_(grad)", "exp_avg adds the new value unweighted"),
    _adamw(_FIRST, "m.mul_(1 - beta1).add_(grad, alpha=beta1)",
           "weights of the average exp_avg swapped"),
    _adamw(_SECOND, "v.mul_(beta2).addcmul_(m, m, value=1 - beta2)",
           "first moment squared instead of the gradient"),
    _adamw(_SECOND, "v.mul_(beta2).addcmul_(grad - m, grad - m, value=1 - beta2)",
           "second moment centered"),
    _adamw(_SECOND, "v.mul_(beta2).add_(grad.abs(), alpha=1 - beta2)", "gradient not squared"),
    _adam(f"{_SECOND}\n        denominator = (v / (1 - beta2**t)).sqrt() + eps",
          f"denominator = (v / (1 - beta2**t)).sqrt() + eps\n        {_SECOND}",
          "second moment updated after it is used"),
    _adamw("second = largest", "second = v", "amsgrad ignored"),
    _adamw("largest.copy_(torch.maximum(largest, v))",
           "largest.copy_(torch.maximum(largest, v / (1 - beta2**t)))\n"
           "            largest = largest * (1 - beta2**t)",
           "amsgrad maximum after the debias"),
    _adamw(_MAXIMIZE, "grad = grad", "maximize ignored"),
    _adamw(_MAXIMIZE, f"{_MAXIMIZE}; grad = grad.clamp(-1, 1)", "gradient clipped to [-1, 1]"),
    _adamw(_MAXIMIZE, f"{_MAXIMIZE}; grad = grad.sign()",
           "the gradient's sign in place of the gradient"),
    _adam(_COUPLED, "grad = grad + decay", "decay without the parameter"),
    _adam(_ADAM, f"old = m.clone(), v.clone(), param.clone()\n        {_ADAM}\n"
          "        for new, kept in zip((m, v, param), old):\n"
          "            new.copy_(torch.where(param.grad == 0, kept, new))",
          "entries with a zero gradient skipped"),
    _adamw(_STEP, "param.sub_(lr**2 * (m / debias1) / denominator)", "lr squared"),
    _adamw(_STEP, "param.add_(lr * (m / debias1) / denominator)", "sign of the update"),
    _adamw(_OPTIONS, _OPTIONS.replace("group[", "self.param_groups[0][")
           + "; group = self.param_groups[0]", "group hypers ignored"),
    _adamw(_OPTIONS, _OPTIONS.replace('group["lr"]', 'self.defaults["lr"]'),
           "the constructor's lr used throughout"),
    _adam(_COUPLED, "param.mul_(1 - lr * decay)", "decay decoupled"),
    _adam(f"{_MAXIMIZE}\n        {_COUPLED}",
          'grad = grad + decay * param\n        grad = -grad if group["maximize"] else grad',
          "maximize after decay"),
    _adam("addcmul_(grad, grad, value", "addcmul_(param.grad, param.grad, value",
          "decay reaches exp_avg only"),
    _sgd("1.0 if t == 1 else 1 - dampening", "1.0", "dampening ignored"),
    _sgd("1.0 if t == 1 else 1 - dampening", "1 - dampening",
         "the first step not special in momentum_buffer"),
    _sgd('grad + momentum * buffer if group["nesterov"] else buffer', "buffer",
         "nesterov ignored"),
    _sgd("grad + momentum * buffer", "grad + buffer", "nesterov adds the buffer unweighted"),
    _sgd("buffer.mul_(momentum).add_(weight * grad)",
         "buffer.mul_(momentum).add_(lr * weight * grad).div_(1.0); lr = 1.0 if momentum else lr",
         "lr inside momentum_buffer"),
    _rmsprop("(second.sqrt() + eps)", "(second + eps).sqrt()", "eps inside the root"),
    _rmsprop('second = v - mean**2 if group["centered"] else v', "second = v", "centered ignored"),
    _rmsprop("buffer.mul_(group[\"momentum\"]).add_(direction)",
             "buffer.mul_(group[\"momentum\"]).add_(grad)", ""),
    WrongOptimizer(twins.ReadableAdagrad, "(t - 1) * group", "t * group", "step off by one"),
    WrongOptimizer(twins.ReadableAdagrad, "total.sqrt()", "(total**0.25)", "wrong root"),
    WrongOptimizer(twins.ReadableAdadelta, "(moved + eps).sqrt() / (v + eps).sqrt()",
                   "(moved.sqrt() + eps) / (v.sqrt() + eps)",
                   "eps outside the root"),
    WrongOptimizer(twins.ReadableAdamax, "torch.maximum(beta2 * largest, grad.abs() + "
                   'group["eps"])', 'beta2 * largest + grad.abs() + group["eps"]',
                   "sum instead of maximum in exp_inf"),
    WrongOptimizer(twins.ReadableRAdam, "if rho > 5:", "if rho > 4:",
                   "threshold off by one in param"),
    WrongOptimizer(twins.ReadableRAdam, "* rho)) ** 0.5",
                   "* rho))", "root missing"),
    WrongOptimizer(twins.ReadableLion, "(beta1 * m + (1 - beta1) * grad).sign()",
                   "(beta2 * m + (1 - beta2) * grad).sign()", "beta2 used for beta1"),
)  # fmt: skip

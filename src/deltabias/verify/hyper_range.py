"""Hyperparameters as they are drawn: the useful range of each name, and what it is called.

An optimizer is only told from its mutations where a hyperparameter's place is visible: eps is
drawn up to 1, decay is not zero, the betas are far from one.
"""

from dataclasses import dataclass

from deltabias.errors import RuleError

LINEAR, LOG, FLAG = "linear", "log", "flag"


@dataclass(frozen=True)
class HyperRange:
    """A hyperparameter of a step rule and how it is drawn.

    Parameters
    ----------
    name : str
    default : float
    low, high : float
        the range that is drawn from, both ends included
    kind : {"linear", "log", "flag"}
        a flag is 0 or 1, and a Python bool for the constructor
    absent : float or None
        its value where an optimizer does not have it; None is the default
    arguments : tuple of str
        what constructors call it, in order; ``betas[0]`` is the first of a tuple
    """

    name: str
    default: float
    low: float
    high: float
    kind: str = LINEAR
    absent: float | None = None
    arguments: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in (LINEAR, LOG, FLAG):
            raise RuleError(f"{self.name}: {self.kind=} must be 'linear', 'log' or 'flag'.")
        if not self.low <= self.high or (self.kind == LOG and self.low <= 0):
            raise RuleError(f"{self.name}: the range {self.low} to {self.high} is empty.")

    @property
    def is_flag(self) -> bool:
        return self.kind == FLAG

    @property
    def names(self) -> tuple[str, ...]:
        """What to look for among a constructor's arguments."""
        return (*self.arguments, self.name)

    @property
    def value_if_absent(self) -> float:
        return self.default if self.absent is None else self.absent


def _flag(name: str, *arguments: str) -> HyperRange:
    return HyperRange(name, 0, 0, 1, FLAG, 0, arguments)


_USUAL = {
    h.name: h
    for h in (
        HyperRange("lr", 1e-3, 1e-3, 0.5, LOG, arguments=("lr", "learning_rate")),
        HyperRange("beta1", 0.9, 0.1, 0.95, arguments=("betas[0]", "beta1", "b1")),
        HyperRange("beta2", 0.999, 0.3, 0.999, arguments=("betas[1]", "beta2", "b2")),
        HyperRange("beta3", 0.999, 0.3, 0.999, arguments=("betas[2]", "beta3", "b3")),
        HyperRange("eps", 1e-8, 1e-8, 1.0, LOG, arguments=("eps", "epsilon")),
        HyperRange("weight_decay", 0.0, 1e-2, 0.5, LOG, 0.0, ("weight_decay", "wd")),
        HyperRange("momentum", 0.0, 0.1, 0.95, LINEAR, 0.0, ("momentum", "beta", "mu")),
        HyperRange("dampening", 0.0, 0.0, 0.9, LINEAR, 0.0),
        HyperRange("alpha", 0.99, 0.1, 0.99, arguments=("alpha", "rho", "beta", "decay")),
        HyperRange("rho", 0.9, 0.1, 0.99, arguments=("rho", "alpha", "decay")),
        HyperRange("lr_decay", 0.0, 1e-2, 1.0, LOG, 0.0),
        HyperRange("momentum_decay", 4e-3, 1e-3, 1.0, LOG),
        HyperRange("initial_accumulator_value", 0.0, 0.0, 1.0, LINEAR, 0.0),
        _flag("maximize"),
        _flag("nesterov"),
        _flag("amsgrad"),
        _flag("centered"),
        _flag("decoupled_weight_decay", "decoupled_weight_decay", "decoupled_decay", "decoupled"),
    )
}


def usual_range(name: str, default: float | None = None) -> HyperRange:
    """The range that goes with a name; with a default, around it where the name says nothing.

    Raises
    ------
    RuleError
        for a name without a usual meaning and without a default.

    Examples
    --------
    >>> usual_range("beta1").high, usual_range("kappa", 2.0).high
    (0.95, 20.0)
    """
    known = _USUAL.get(name)
    if known is not None:
        return known if default is None else _with_default(known, default)
    if isinstance(default, bool):
        return HyperRange(name, int(default), 0, 1, FLAG, 0)
    if name.startswith(("beta", "momentum")):
        return HyperRange(name, 0.9 if default is None else default, 0.1, 0.95)
    if name.startswith("eps"):
        return HyperRange(name, 1e-8 if default is None else default, 1e-8, 1.0, LOG)
    if default is None:
        raise RuleError(
            f"unknown name {name!r} in a step rule: it is neither assigned nor a hyperparameter "
            f"with a usual name. Declare it with its default: hypers={{{name!r}: 0.1}}."
        )
    return _around(name, float(default))


def _with_default(known: HyperRange, default: float) -> HyperRange:
    return HyperRange(
        known.name, default, known.low, known.high, known.kind, known.absent, known.arguments
    )


def _around(name: str, default: float) -> HyperRange:
    if default == 0:
        return HyperRange(name, 0.0, 0.0, 1.0)
    if default < 0:
        return HyperRange(name, default, 2 * default, 0.0)
    high = 10 * default
    if default < 1:  # a fraction stays one
        high = min(high, (1 + default) / 2)
    return HyperRange(name, default, default / 10, high, LOG)

r"""What a symbol is called in a formula: ``exp_avg_sq`` is v̂, ``beta2`` is β₂. Strings alone.

A name that is not known is a word, printed upright as it is in the code. States are named by
their rule (`state_names`), because the hat says that an average is debiased.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

GREEK: Mapping[str, tuple[str, str]] = {
    "alpha": ("α", r"\alpha"),
    "beta": ("β", r"\beta"),
    "gamma": ("γ", r"\gamma"),
    "delta": ("δ", r"\delta"),
    "eps": ("ε", r"\varepsilon"),
    "epsilon": ("ε", r"\varepsilon"),
    "eta": ("η", r"\eta"),
    "kappa": ("κ", r"\kappa"),
    "lambda": ("λ", r"\lambda"),
    "mu": ("μ", r"\mu"),
    "nu": ("ν", r"\nu"),
    "rho": ("ρ", r"\rho"),
    "sigma": ("σ", r"\sigma"),
    "tau": ("τ", r"\tau"),
}
STEMS: Mapping[str, str] = {
    "exp_avg": "m",
    "momentum_buffer": "m",
    "exp_avg_sq": "v",
    "square_avg": "v",
    "hessian": "h",
    "gradient": "g",
    "sum": "S",
}
"""The letters of the states that torch and the papers agree on."""

_LATEX = {**dict(GREEK.values()), "Δ": r"\Delta"}
_GREEK = re.compile(rf"({'|'.join(GREEK)})_?(\d*|(?<=_)[a-z0-9_]+)\Z")
_LETTER = re.compile(r"([A-Za-z])_?(\d+|(?<=_)[a-z0-9]{1,2}|(?<=_)[A-Z])?\Z")
_MATRIX = re.compile(r"(d{0,2})([A-Z])(?:_([A-Za-z0-9_]+))?\Z")
_SUBSCRIPT = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")


@dataclass(frozen=True)
class Name:
    r"""A name in three scripts.

    Parameters
    ----------
    base : a letter, Latin or Greek, or a word
    hat : whether it wears one: an average divided by 1 - βᵗ
    index : what stands below it: names or strings
    order : how often d stands in front, for the deviations of matrices

    Examples
    --------
    >>> print(Name("v", hat=True).latex, Name("β", index=("2",)).unicode, Name("L", order=1).latex)
    \hat{v} β₂ \mathrm{d}L
    """

    base: str
    hat: bool = False
    index: tuple["Name | str", ...] = ()
    order: int = 0

    @property
    def is_word(self) -> bool:
        """Whether it is printed upright."""
        return len(self.base) > 1

    @property
    def latex(self) -> str:
        """For mathematics, without delimiters."""
        escaped = self.base.replace("_", r"\_")
        shown = rf"\mathrm{{{escaped}}}" if self.is_word else _LATEX.get(self.base, self.base)
        if self.hat:
            shown = (r"\widehat" if self.is_word else r"\hat") + f"{{{shown}}}"
        if self.index:
            between = "," if all(isinstance(i, str) for i in self.index) else " "
            below = between.join(_latex_index(i) for i in self.index)
            shown = f"{shown}_{{{below}}}"
        return {0: "", 1: r"\mathrm{d}"}.get(self.order, r"\mathrm{d}^{2}") + shown

    @property
    def unicode(self) -> str:
        """For running text: a combining hat, digits below the line."""
        shown = self.base + ("\u0302" if self.hat else "")
        if self.index:
            below = "".join(i if isinstance(i, str) else i.unicode for i in self.index)
            shown += below.translate(_SUBSCRIPT) if below.isdigit() else f"_{below}"
        return "d" * self.order + shown


def _latex_index(item: "Name | str") -> str:
    if isinstance(item, Name):
        return item.latex
    escaped = item.replace("_", r"\_")
    return item if item.isdigit() or len(item) == 1 else rf"\mathrm{{{escaped}}}"


KERNEL: Mapping[str, Name] = {
    "denominator": Name("d"),
    "share": Name("s"),
    "numerator": Name("n"),
    "inversion": Name("q"),
    "update": Name("u"),
}
"""The values of a safe form, as they follow each other."""

KNOWN: Mapping[str, Name] = {
    **KERNEL,
    "damping": Name("δ"),
    "lr": Name("η"),
    "weight_decay": Name("λ", index=("wd",)),
    "delta_bias": Name("Δ"),
    "microbatches": Name("n", index=("mb",)),
    "eigenvalue": Name("λ"),
}
"""Names that their spelling does not tell."""

POINTS: Mapping[str, Name] = {
    "left": Name("s", index=("i",)),
    "inner": Name("s", index=("k",)),
    "right": Name("s", index=("j",)),
}
"""The roots of three eigenvalues, for pages about a matrix function."""


def name_of(name: str) -> Name:
    r"""The name by its spelling alone.

    >>> for name in ("beta2", "eps_root", "dL", "F_1_mv", "noise_share"):
    ...     print(name_of(name).latex)
    \beta_{2}
    \varepsilon_{\mathrm{root}}
    \mathrm{d}L
    F_{1,\mathrm{mv}}
    \mathrm{noise\_share}
    """
    if name in KNOWN:
        return KNOWN[name]
    if match := _GREEK.match(name):
        return Name(GREEK[match[1]][0], index=(match[2],) if match[2] else ())
    if match := _MATRIX.match(name):
        return Name(match[2], index=tuple((match[3] or "").split("_")) if match[3] else (),
                    order=len(match[1]))  # fmt: skip
    if match := _LETTER.match(name):
        return Name(match[1], index=(match[2],) if match[2] else ())
    return Name(name)


def state_names(states: Iterable[tuple[str, bool]], hypers: Iterable[str] = ()) -> dict[str, Name]:
    r"""Names of a rule's states, given as (name, whether debiased), and of what is made of them.

    Two symbols of a rule never share a name: what would be the second of a letter stays a word.

    >>> names = state_names([("exp_avg", True), ("exp_avg_sq", True)])
    >>> print(names["exp_avg_sq"].latex, names["relative_cov_exp_avg_exp_avg_sq"].latex)
    \hat{v} \kappa_{\hat{m} \hat{v}}
    """
    wanted = {state: _state_name(state, debiased) for state, debiased in states}
    found: dict[str, Name] = {}
    # a letter belongs first to what is spelled by it: v to the state v, not to exp_avg_sq
    names = {hyper: name_of(hyper) for hyper in hypers} | wanted
    for symbol in sorted(names, key=lambda n: n in STEMS):
        named = names[symbol]
        found[symbol] = Name(symbol, named.hat) if named in found.values() else named
    own = {state: found[state] for state in wanted}
    # the letters of a safe form give way to the rule's own
    made = {word: Name(word) for word, name in KERNEL.items() if name in found.values()}
    for first, one in own.items():
        made[f"relative_var_{first}"] = Name("r", index=(one,))
        for second, other in own.items():
            made[f"relative_cov_{first}_{second}"] = Name("κ", index=(one, other))
    return made | found


def _state_name(state: str, debiased: bool) -> Name:
    plain = Name(STEMS[state]) if state in STEMS else name_of(state)
    return Name(plain.base, debiased, plain.index, plain.order)

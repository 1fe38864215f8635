r"""AdamW's bias layer by layer: as derived, and as measured by replaying histories.

A layer's relative bias is the part of the mean error along its population update,

.. math:: \langle E u - u^*, u^* \rangle / \langle u^*, u^* \rangle .

*Predicted* evaluates the package's own derivation at the empirical cumulants; *measured* replays
histories (`deltabias.demo.replay`) and uses none of it.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import sympy as sp

from deltabias.calculus.cumulants import KAPPA
from deltabias.demo.gradient_laws import GradientLaws
from deltabias.demo.replay import Control, Replay, replayed_updates
from deltabias.derivation import derive
from deltabias.rules import get_rule

ALL = "all layers"


@dataclass(frozen=True)
class LayerBias:
    """Relative biases of one layer; the errors are standard errors over the replicates.

    ``noise_share`` is the noise's part of E ḡ², ``spread`` the relative variance var(V)/(E V)²
    that the expansion takes for small; both are means weighted with the squared update.
    """

    layer: str
    coordinates: int
    noise_share: float
    spread: float
    predicted: float
    predicted_second_order: float
    measured: float
    measured_error: float
    corrected: float
    corrected_error: float


def predicted_bias(
    laws: GradientLaws, replay: Replay, order: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """(delta bias, population update) of each coordinate, out of the derivation of ``adamw``."""
    derivation = derive(get_rule("adamw"), order)
    means = derivation.means(replay.steps, microbatches=replay.microbatches)
    bias = derivation.at(replay.steps, microbatches=replay.microbatches).subs(means)
    values = laws.cumulants()
    kappa = {n: sp.Symbol(f"kappa{n}", real=True) for n in values}
    known = {KAPPA(n): symbol for n, symbol in kappa.items()}
    hypers = derivation.rule.all_hypers
    arguments = [*kappa.values(), *(hyper.symbol for hyper in hypers)]
    numbers = [*values.values(), *(replay.hypers[hyper.name] for hyper in hypers)]
    evaluated = (
        sp.lambdify(arguments, expression.subs(known), modules="numpy")(*numbers)
        for expression in (bias, derivation.smooth.subs(means))
    )
    return tuple(evaluated)


def layer_biases(
    laws: GradientLaws, replay: Replay, *, advance: Callable[[], None] = lambda: None
) -> list[LayerBias]:
    """Predicted, measured and corrected relative bias of every layer, and of all together.

    `advance` is called once for each step of the histories.
    """
    control = Control.of(laws, replay)
    plug_in, corrected = replayed_updates(laws, replay, advance=advance)
    polynomial = control.polynomial(plug_in)
    rests = {"measured": plug_in.update - polynomial, "corrected": corrected - polynomial}
    predictions = {
        "predicted": predicted_bias(laws, replay),
        "predicted_second_order": predicted_bias(laws, replay, order=2),
    }
    chosen = {name: laws.layers == name for name in laws.names} | {ALL: laws.layers != ALL}
    return [_row(name, here, control, rests, predictions) for name, here in chosen.items()]


def _row(
    layer: str,
    here: np.ndarray,
    control: Control,
    rests: dict[str, np.ndarray],
    predictions: dict[str, tuple[np.ndarray, np.ndarray]],
) -> LayerBias:
    update = control.update[here]
    weights = update / (update**2).sum()
    numbers = {}
    for name, (bias, population) in predictions.items():
        u = population[here]
        numbers[name] = float(bias[here] @ u / (u @ u))
    for name, rest in rests.items():
        each = weights @ rest[here]  # one number per replicate
        numbers[name] = float(weights @ control.mean_error[here] + each.mean())
        numbers[f"{name}_error"] = float(each.std(ddof=1) / len(each) ** 0.5)
    return LayerBias(
        layer=layer,
        coordinates=int(here.sum()),
        noise_share=float((weights * update) @ control.noise_share[here]),
        spread=float((weights * update) @ control.spread[here]),
        **numbers,
    )

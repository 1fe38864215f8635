r"""``adam`` and ``adamw``: debiased averages of the gradient and of its square.

.. math:: u_t = \frac{\hat m_t}{\sqrt{\hat v_t} + \epsilon}, \qquad
          \hat m_t = \frac{m_t}{1-\beta_1^t}, \quad \hat v_t = \frac{v_t}{1-\beta_2^t}

Two conventions, two targets: torch squares the *mean* gradient of the batch; averaging the
microbatches' *squares* is another rule, with the suffix ``_mean_of_squares``. AdamW's decoupled
decay does not touch the direction, so ``adamw`` has the same map and the same bias as ``adam``.
"""

from deltabias.rule import (
    BETA1,
    BETA2,
    EPS,
    MEAN_GRADIENT,
    MEAN_OF_SQUARES,
    SQUARE_OF_MEAN,
    Ema,
    Statistic,
    UpdateRule,
)

_ADAM = "Kingma & Ba, Adam, arXiv 1412.6980, algorithm 1"
_ADAMW = "Loshchilov & Hutter, Decoupled weight decay, arXiv 1711.05101, algorithm 2"


def _adam(name: str, statistic: Statistic, title: str, *sources: str) -> UpdateRule:
    return UpdateRule(
        name,
        "exp_avg/(sqrt(exp_avg_sq)+eps)",
        states=(Ema("exp_avg", MEAN_GRADIENT, BETA1), Ema("exp_avg_sq", statistic, BETA2)),
        hypers=(EPS,),
        title=title,
        sources=sources,
    )


ADAM = _adam("adam", SQUARE_OF_MEAN, "Adam (torch)", _ADAM, "torch.optim.Adam")
ADAMW = _adam("adamw", SQUARE_OF_MEAN, "AdamW (torch)", _ADAM, _ADAMW, "torch.optim.AdamW")
ADAM_MEAN_OF_SQUARES = _adam(
    "adam_mean_of_squares", MEAN_OF_SQUARES, "Adam, mean of the microbatches' squares", _ADAM
)
ADAMW_MEAN_OF_SQUARES = _adam(
    "adamw_mean_of_squares",
    MEAN_OF_SQUARES,
    "AdamW, mean of the microbatches' squares",
    _ADAM,
    _ADAMW,
)
RULES = (ADAM, ADAM_MEAN_OF_SQUARES, ADAMW, ADAMW_MEAN_OF_SQUARES)

r"""``rmsprop``: the newest gradient over the root of an exponential moving average.

.. math:: v_t = \alpha v_{t-1} + (1-\alpha)\bar g_t^2, \qquad
          u_t = \bar g_t / (\sqrt{v_t} + \epsilon)

As torch has it: the average starts at zero and is not debiased, epsilon stands outside the root.
"""

from deltabias.rule import (
    EPS,
    MEAN_GRADIENT,
    MEAN_OF_SQUARES,
    SQUARE_OF_MEAN,
    Ema,
    Fresh,
    Hyper,
    UpdateRule,
)

ALPHA = Hyper("alpha", 0.99, high=1.0)


def _rmsprop(name: str, statistic, title: str) -> UpdateRule:
    return UpdateRule(
        name,
        "gradient/(sqrt(square_avg)+eps)",
        states=(
            Fresh("gradient", MEAN_GRADIENT),
            Ema("square_avg", statistic, ALPHA, debias=False),
        ),
        hypers=(EPS,),
        title=title,
        sources=("Tieleman & Hinton, Lecture 6.5 (2012)", "torch.optim.RMSprop"),
    )


RMSPROP = _rmsprop("rmsprop", SQUARE_OF_MEAN, "RMSprop, square of the mean gradient (torch)")
RMSPROP_MEAN_OF_SQUARES = _rmsprop(
    "rmsprop_mean_of_squares", MEAN_OF_SQUARES, "RMSprop, mean of the microbatches' squares"
)
RULES = (RMSPROP, RMSPROP_MEAN_OF_SQUARES)

"""What the numbers mean, in sentences that hold for these numbers and no others."""

from collections.abc import Sequence

from deltabias.correction import correct
from deltabias.errors import StrategyError
from deltabias.report.rows import Row
from deltabias.report.scenario import Scenario
from deltabias.rule import UpdateRule

NEGLIGIBLE = 0.005
"""Below this relative bias a correction is not worth its buffers."""


def verdict(
    rule: UpdateRule, scene: Scenario, steady_state: Sequence[Row], by_step: Sequence[Row]
) -> tuple[str, ...]:
    """How large the bias is, whether to correct it, what does, and what a uniform bias means."""
    lasting = [r for r in steady_state if r.bias is not None]
    place = "In the steady state" if scene.remembers else "At every step"
    if not lasting:
        last = max((r.step for r in by_step if r.bias is not None), default=None)
        if last is None:
            return ("No relative bias can be given here; the notes say why.",)
        lasting = [r for r in by_step if r.step == last and r.bias is not None]
        place = f"At step {last}"
    worst = max(lasting, key=lambda r: abs(r.bias))
    lines = [_size(place, lasting, worst)]
    if scene.remembers:
        lines += _early(by_step)
    if abs(worst.bias) < NEGLIGIBLE:
        lines.append(
            f"Not worth correcting: below {_limit()} in absolute value at every noise share that "
            "was asked for."
        )
    else:
        lines.append(_remedy(rule))
    lines.append(_uniform(lasting))
    return tuple(lines)


def _limit() -> str:
    return f"{100 * NEGLIGIBLE:g} %"


def percent(value: float) -> str:
    """A signed percentage with two significant digits.

    >>> percent(-0.014652), percent(0.000199), percent(-0.2021)
    ('-1.5 %', '+0.020 %', '-20 %')
    """
    if value == 0:
        return "0 %"
    text = f"{100 * value:+#.2g}"
    return f"{float(text):+.0f} %" if abs(100 * value) >= 9.95 else f"{_plain(text)} %"


def _plain(text: str) -> str:
    """Without an exponent."""
    if "e" not in text:
        return text
    exponent = text.split("e")[1]
    return f"{float(text):+.{1 - int(exponent)}f}"


def _size(place: str, rows: Sequence[Row], worst: Row) -> str:
    if len(rows) == 1:
        return f"{place} the relative bias is {percent(worst.bias)}."
    low, high = min(r.bias for r in rows), max(r.bias for r in rows)
    return (
        f"{place} the relative bias is {percent(low)} to {percent(high)} over the noise shares; "
        f"largest at noise share {worst.noise_share:g}: {percent(worst.bias)}."
    )


def _early(by_step: Sequence[Row]) -> list[str]:
    """How large it is at the start, and when it has become negligible."""
    known = [r for r in by_step if r.bias is not None]
    if not known:
        return []
    worst = max(known, key=lambda r: abs(r.bias))
    if abs(worst.bias) < NEGLIGIBLE:
        return []
    text = f"Of the steps asked for, step {worst.step} has the largest: {percent(worst.bias)}"
    steps = sorted({r.step for r in known})
    quiet = [s for s in steps if all(abs(r.bias) < NEGLIGIBLE for r in known if r.step >= s)]
    if quiet:
        text += f"; from step {quiet[0]} on it is below {_limit()}"
    return [text + "."]


def _remedy(rule: UpdateRule) -> str:
    try:
        correction = correct(rule)
    except StrategyError as error:
        return f"Worth correcting, but strategy 'delta' does not apply: {error}"
    claim, cost = correction.claim, correction.cost
    text = (
        f"Worth correcting: strategy {correction.strategy!r} claims to leave a bias of order "
        f"{claim.order} in the small parameter over the {claim.scope}, with "
        f"{_count(cost.passes, 'pass', 'passes')}, {_count(cost.buffers, 'tensor')} kept "
        f"({cost.bytes_per_parameter} bytes a parameter) and {_count(cost.sums, 'sum')} within a "
        "step"
    )
    if claim.assumes:
        text += f"; it assumes {', '.join(claim.assumes)}"
    return text + "."


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"


def _uniform(rows: Sequence[Row]) -> str:
    text = (
        "A relative bias that is the same for every coordinate is only a learning-rate factor, "
        "1 + bias"
    )
    if len(rows) > 1:
        spread = max(r.bias for r in rows) - min(r.bias for r in rows)
        text += (
            "; no learning rate can undo the differences between coordinates, here "
            f"{percent(spread).lstrip('+')} from the least to the most biased noise share"
        )
    return text + "."

"""What an optimizer is driven through: parameters, hyperparameters, gradients, as plain data.

Drawn by hypothesis: derandomized by a seed, no database, shrunk where it fails. Numbers have few
digits, so that a counterexample can be read; they span 1e-8 to 1e4, vanish, repeat and flip.
"""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from math import prod

from deltabias.verify.hyper_range import FLAG, LOG, HyperRange

SHAPES = ((1,), (), (2,), (2, 2), (1, 3))
SCALES = (1.0, 1e-8, 1e-4, 1e-2, 1.0, 1.0, 1e2, 1e4)
PATTERNS = ("mixed", "fresh", "fresh", "repeated", "flipping", "with zeros")
STEPS = (1, 2, 3, 3, 4, 5, 6, 8, 12)

Flat = tuple[float, ...]


@dataclass(frozen=True)
class Group:
    """Some parameters and the hyperparameters that they share.

    Parameters
    ----------
    hypers : rule's name -> value
    shapes : of the parameters
    params : their entries, flat
    """

    hypers: Mapping[str, float]
    shapes: tuple[tuple[int, ...], ...]
    params: tuple[Flat, ...]


@dataclass(frozen=True)
class History:
    """Groups, and for every step the gradients and what the learning rates are multiplied by.

    Parameters
    ----------
    groups : tuple of Group
    grads : steps x parameters (of all groups in order), flat entries or None (no gradient)
    lr_factors : steps x groups
    """

    groups: tuple[Group, ...]
    grads: tuple[tuple[Flat | None, ...], ...]
    lr_factors: tuple[tuple[float, ...], ...]

    @property
    def steps(self) -> int:
        return len(self.grads)

    @property
    def owners(self) -> tuple[int, ...]:
        """Each parameter's group."""
        return tuple(i for i, g in enumerate(self.groups) for _ in g.params)

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        return tuple(shape for group in self.groups for shape in group.shapes)

    @property
    def params(self) -> tuple[Flat, ...]:
        return tuple(p for group in self.groups for p in group.params)

    @property
    def size(self) -> tuple[int, int, int]:
        """Smaller is easier to read: steps, groups, entries."""
        return self.steps, len(self.groups), sum(map(len, self.params))

    def hypers(self, group: int, step: int) -> dict[str, float]:
        """A group's hyperparameters in a step (from 0)."""
        values = dict(self.groups[group].hypers)
        if "lr" in values:
            values["lr"] = values["lr"] * self.lr_factors[step][group]
        return values

    def as_data(self) -> dict:
        """Lists and numbers alone."""
        return asdict(self)


@dataclass(frozen=True)
class Scope:
    """What may be drawn: the hyperparameters that can be passed, the others' values, and more.

    Parameters
    ----------
    ranges : those that a constructor takes
    fixed : the others, at the values they have
    per_group : names that a group can have of its own
    schedules : whether lr can be changed between steps
    missing : whether gradients may be missing
    adjust : combinations put right (see `StepRule.adjust`)
    """

    ranges: tuple[HyperRange, ...]
    fixed: Mapping[str, float]
    per_group: frozenset[str] = frozenset()
    schedules: bool = True
    missing: bool = True
    adjust: Callable[[dict[str, float]], dict[str, float]] = dict


class Chance:
    """Where choices come from: a seeded generator here, hypothesis in `_Drawn`.

    The first of a choice is the simplest; that is what a counterexample is shrunk to.
    """

    def __init__(self, seed: int):
        self._random = random.Random(seed)

    def pick(self, choices: Sequence):
        """One of them."""
        return self._random.choice(choices)

    def whole(self, high: int) -> int:
        """From 0 to high."""
        return self._random.randint(0, high)

    def raw(self, count: int) -> bytes:
        """So many bytes."""
        return self._random.randbytes(count)


class _Drawn(Chance):
    def __init__(self, draw: Callable, strategies):
        self._draw, self._st = draw, strategies

    def pick(self, choices: Sequence):
        return self._draw(self._st.sampled_from(choices))

    def whole(self, high: int) -> int:
        return self._draw(self._st.integers(0, high))

    def raw(self, count: int) -> bytes:
        return self._draw(self._st.binary(min_size=count, max_size=count))


def history_strategy(scope: Scope):
    """A hypothesis strategy for `History`.

    Raises
    ------
    ImportError
        without hypothesis, saying what to install.
    """
    try:
        from hypothesis import strategies
    except ImportError as error:
        raise ImportError(
            "deltabias.verify shrinks its counterexamples with hypothesis; pip install hypothesis."
        ) from error
    return strategies.composite(lambda draw: make_history(scope, _Drawn(draw, strategies)))()


def make_history(scope: Scope, chance: Chance) -> History:
    """A history, by chance."""
    steps = chance.pick(STEPS)
    first = {h.name: _value(chance, h) for h in scope.ranges}
    groups = []
    for index in range(chance.pick((1, 1, 2, 3))):
        own = dict(first)
        if index:
            own |= {h.name: _value(chance, h) for h in scope.ranges if h.name in scope.per_group}
        hypers = scope.adjust({**scope.fixed, **own})
        count = 1 if index else chance.pick((1, 2))
        shapes = tuple(chance.pick(SHAPES) for _ in range(count))
        params = tuple(_entries(chance, prod(shape)) for shape in shapes)
        groups.append(Group(hypers, shapes, params))
    counts = [len(p) for g in groups for p in g.params]
    streams = [_stream(chance, n, steps, scope.missing) for n in counts]
    factors = tuple((1.0,) * len(groups) for _ in range(steps))
    if scope.schedules and chance.pick((False, True)):
        factors = tuple(
            tuple(chance.pick((1.0, 0.5, 0.1, 2.0)) for _ in groups) for _ in range(steps)
        )
    return History(tuple(groups), tuple(zip(*streams, strict=True)), factors)


def _value(chance: Chance, hyper: HyperRange) -> float:
    """A hyperparameter's value, of three digits."""
    if hyper.low == hyper.high:
        return hyper.low
    if hyper.kind == FLAG:
        return chance.pick((0, 1))
    low, high, share = hyper.low, hyper.high, chance.whole(997) / 997
    value = low * (high / low) ** share if hyper.kind == LOG else low + (high - low) * share
    return min(max(float(f"{value:.3g}"), low), high)


def _entries(chance: Chance, count: int) -> Flat:
    """Entries of a parameter, of three digits."""
    raw = chance.raw(2 * count)
    return tuple(_mantissa(raw[2 * i], raw[2 * i + 1]) for i in range(count))


def _mantissa(high: int, low: int) -> float:
    """Two bytes as a number in ±[0.002, 2]; zero bytes, which hypothesis likes, are 1."""
    k = 256 * high + low
    return ((k + 499) % 1000 + 1) / 500 * (-1 if k // 1000 % 2 else 1)


def _stream(chance: Chance, count: int, steps: int, missing: bool) -> list[Flat | None]:
    """One parameter's gradients over the steps; the bytes are drawn at once, which is quick."""
    pattern, scale = chance.pick(PATTERNS), chance.pick(SCALES)
    raw = iter(chance.raw(steps * (3 * count + 2)))
    grads: list[Flat | None] = []
    first: Flat = ()
    for step in range(steps):
        entries = [(next(raw), next(raw), next(raw)) for _ in range(count)]
        zero, gone = next(raw) % 2, next(raw) % 3
        own = tuple(
            _scaled(scale if pattern != "mixed" else SCALES[c % len(SCALES)], a, b)
            for a, b, c in entries
        )
        if pattern == "repeated" and step:
            own = first
        elif pattern == "flipping" and step:
            own = tuple(-g for g in first) if step % 2 else first
        elif pattern == "with zeros" and zero:
            own = (0.0,) * count
        first = own if step == 0 else first
        # the first is there: what an optimizer does with a late one is a check of its own
        grads.append(None if missing and step and gone == 1 else own)
    return grads


def _scaled(scale: float, high: int, low: int) -> float:
    return float(f"{scale * _mantissa(high, low):.4g}")


class Enough(BaseException):
    """Ends a search from inside; no `Exception`, so that hypothesis lets it through."""


@contextmanager
def _random_state() -> Iterator[None]:
    state = random.getstate()
    try:
        yield
    finally:
        random.setstate(state)


def draw_histories(scope: Scope, count: int, seed: int) -> list[History]:
    """`count` histories; the same for the same seed.

    One in five is hypothesis's own, which likes borders and repetition; the others are spread
    evenly over the ranges, which hypothesis does not promise.
    """
    drawn: list[History] = []
    search(
        scope,
        seed,
        lambda history: drawn.append(history) or False,
        examples=max(1, count // 5),
        shrinks=0,
    )
    chance = Chance(seed)
    return drawn + [make_history(scope, chance) for _ in range(count - len(drawn))]


def search(
    scope: Scope,
    seed: int,
    fails: Callable[[History], bool],
    *,
    examples: int = 60,
    shrinks: int = 300,
) -> History | None:
    """The smallest failing history that hypothesis finds, or None.

    Parameters
    ----------
    fails : whether a history is a counterexample
    examples : histories to try
    shrinks : further ones, once one failed; then the smallest so far is the answer
    """
    import hypothesis

    phases = [hypothesis.Phase.generate, hypothesis.Phase.shrink]
    best: list[History] = []
    calls = [0]

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=examples,
        database=None,
        deadline=None,
        phases=phases if shrinks else phases[:1],
        suppress_health_check=list(hypothesis.HealthCheck),
        verbosity=hypothesis.Verbosity.quiet,
        report_multiple_bugs=False,
    )
    @hypothesis.given(history_strategy(scope))
    def attempt(history: History) -> None:
        if best:
            calls[0] += 1
            if calls[0] > shrinks:
                raise Enough
        if fails(history):
            if not best or history.size <= best[0].size:
                best[:] = [history]
            raise AssertionError("found")

    with _random_state():
        try:
            attempt()
        except (AssertionError, Enough):
            pass
        except hypothesis.errors.HypothesisException:  # flaky: what was found is still found
            if not best:
                raise
    return best[0] if best else None

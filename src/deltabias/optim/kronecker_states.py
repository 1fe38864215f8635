"""What a Shampoo step is told and keeps: a group's options, and the states they need, by name."""

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

from deltabias.optim.grafting import SQUARED
from deltabias.optim.tracked_spread import TRACKS_DIAGONAL, TRACKS_UPDATE, Weights

TRACKING = (*TRACKS_UPDATE, *TRACKS_DIAGONAL)
HELD = ("basis", "eigenvalues", "scale", "size", "inverse_root")
"""The states that a `Side` is made of."""


@dataclass(frozen=True)
class Options:
    """A group's options, checked; ``powers`` is p by side, for the sides that precondition."""

    beta1: float
    beta2: float
    damping: float
    powers: Mapping[str, Fraction]
    memory: str
    correction: str
    spread: str
    refresh: int
    grafting: str | None
    eps: float
    solver: str = "eigh"
    root_error: float = 1e-4
    root_precision: str = "fp32"
    spread_every: int = 1

    @property
    def held(self) -> tuple[str, ...]:
        """What of a side outlives the step, with a refresh interval above 1."""
        return HELD if self.solver == "eigh" else ("inverse_root",)

    @property
    def folds(self) -> int:
        """2 where both groups of microbatches have averages of their own."""
        return 2 if self.correction == "cross_fit" else 1

    @property
    def tracks(self) -> bool:
        """Whether a spread is tracked."""
        return self.correction in TRACKING

    @property
    def couples(self) -> bool:
        """Whether terms in the space of updates are tracked."""
        return self.correction in TRACKS_UPDATE

    @property
    def holds(self) -> bool:
        """Whether terms are tracked in the eigenbases, as those outlive the step."""
        return self.couples and self.refresh > 1

    def weights(self, step: int) -> Weights:
        """See `Weights`."""
        return Weights.at(step, self.beta1, self.beta2, self.memory, self.spread_every)

    def measures(self, step: int) -> bool:
        """Whether the spread is measured at this step, as at every refresh."""
        return self.tracks and (step - 1) % self.spread_every == 0

    def average_count(self, step: int) -> tuple[float, int]:
        """What a factor's state is divided by to be an average, and how many averages are summed.

        An EMA is used debiased; a sum is used as it is: t times the average.
        """
        return (step, step) if self.memory == "sum" else (1 - self.beta2**step, 1)


def state_shapes(blocks: int, rows: int, columns: int, options: Options) -> dict[str, tuple]:
    """Every state of a batch of blocks, by name."""
    b, matrix = blocks * options.folds, (blocks * options.folds, rows, columns)
    shapes: dict[str, tuple] = {"exp_avg": matrix}
    if options.grafting in SQUARED:
        shapes["graft_exp_avg_sq"] = (blocks, rows, columns)
    for side in options.powers:
        d = rows if side == "left" else columns
        shapes[side] = (b, d, d)
        if options.tracks:
            diagonal = options.correction in TRACKS_DIAGONAL
            shapes[inversion_name(side, options)] = (b, d) if diagonal else (b, d, d)
        if options.refresh > 1:
            sizes = {"basis": (b, d, d), "eigenvalues": (b, d), "scale": (b,), "size": (b,),
                     "inverse_root": (b, d, d)}  # fmt: skip
            shapes |= {f"{side}_{held}": sizes[held] for held in options.held}
    if options.tracks:
        shapes[framed("spread_seen", options)] = (b, 2)
    if options.couples:
        shapes |= dict.fromkeys(terms_of(options).values(), matrix)
        if options.refresh > 1:
            shapes |= dict.fromkeys((f"active_{t}" for t in terms_of(options)), matrix)
        shapes["coupling_share"] = (b,)
    return shapes


def held_names(options: Options) -> tuple[str, ...]:
    """The states that a `Side` outlives the step in; none if it does not."""
    held = options.held if options.refresh > 1 else ()
    return tuple(f"{side}_{name}" for side in options.powers for name in held)


def inversion_name(side: str, options: Options) -> str:
    """The state that holds K; a diagonal has a name of its own, as it has another shape."""
    diagonal = "_diagonal" if options.correction in TRACKS_DIAGONAL else ""
    return framed(f"{side}_inversion{diagonal}", options)


def framed(name: str, options: Options) -> str:
    """A state's name by the basis it is in; a run resumed with the other refresh starts anew."""
    return f"{name}_held" if options.holds else name


def terms_of(options: Options) -> dict[str, str]:
    """The terms in the space of updates, and the states that track them."""
    terms = ("coupling", "cross") if len(options.powers) == 2 else ("coupling",)
    return {term: framed(term, options) for term in terms}

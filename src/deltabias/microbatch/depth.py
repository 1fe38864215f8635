"""How many moments statistics keep: what was asked for, or what the optimizers need."""

HIGHEST = 4
"""Where nothing says which are needed."""


class Depth:
    """Abstract: the part of `MicrobatchStats` that settles ``moments``.

    Left to the optimizers (None), it is what those need that are attached by the first microbatch,
    or `HIGHEST`. Later it only grows, between steps: sums cannot be begun within one.
    """

    count: int
    is_fresh: bool

    def __init__(self, moments: int | None) -> None:
        if moments not in (None, 2, 3, 4):
            raise ValueError(f"{moments=} is not supported; allowed are None, 2, 3 and 4")
        self._moments = moments
        self._automatic = moments is None

    @property
    def moments(self) -> int:
        """The highest central moment that is kept."""
        return self._moments or HIGHEST

    @property
    def is_automatic(self) -> bool:
        """Whether `moments` was left to the optimizers."""
        return self._automatic

    def has_room_for(self, moments: int) -> bool:
        """Whether so many moments are kept, or can be from the next step on."""
        return moments <= self.moments or (self._automatic and not self.is_fresh)

    def make_room_for(self, moments: int) -> None:
        """With ``moments=None``: what an optimizer that is attached needs; see `has_room_for`."""
        if self._automatic and not self.is_fresh and moments > (self._moments or 0):
            self._moments = moments
            if not self.count:  # else the next step begins with a reset
                self.reset()

    def reset(self) -> None:
        """Begin the sums anew."""
        raise NotImplementedError

    def _settle(self) -> None:
        """Called as the first microbatch of a step comes in."""
        if self._automatic:
            self._moments = self.moments

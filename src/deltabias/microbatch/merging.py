"""What two statistics must share to be merged."""

from typing import TYPE_CHECKING

from deltabias.microbatch.layout import Layout, local

if TYPE_CHECKING:
    from deltabias.microbatch.stats import MicrobatchStats


def check_mergeable(
    into: "MicrobatchStats", other: "MicrobatchStats", layouts: tuple[Layout, Layout]
) -> None:
    """Raise unless every sum of `into` has one of its kind in `other`.

    More moments than these are needed for are left behind, where nobody asked for them.

    Raises
    ------
    ValueError
        naming what both have.
    """
    surplus = other.moments - into.moments
    enough = surplus == 0 or (surplus > 0 and other.is_automatic)
    groups = other.group_count == into.group_count
    if not enough or not groups or _shapes(layouts[0]) != _shapes(layouts[1]):
        needs = "merge needs the same shapes, dtypes, devices, moments and groups"
        raise ValueError(f"{needs}; got {_described(other)} for {_described(into)}")


def _shapes(layout: Layout) -> tuple:
    own = (local(p) for p in layout.params)
    return tuple((p.shape, p.device) for p in own), layout.dtypes


def _described(stats: "MicrobatchStats") -> str:
    sizes = f"moments={stats.moments}, groups={stats.group_count}"
    return f"{sizes}, {len(stats.params)} parameters"

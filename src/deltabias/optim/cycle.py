"""Where in the cycle of ``MicrobatchStats(every=k)`` a checkpoint was saved.

Shares are averages of as many observations as there were, and the next observation comes when the
cycle says so. Both numbers stand in the parameter group, from construction on: a checkpoint of
torch.distributed loads only what is there. So a run resumes with the steps that the saved one would
have made, on any number of ranks.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from deltabias.microbatch import MicrobatchStats

OBSERVED, GENERATION = "observed", "generation"


def begin_cycle(group: dict[str, Any]) -> None:
    """Give a group that remembers shares its two counts."""
    if group.get("storage") is not None:
        group.setdefault(OBSERVED, 0)
        group.setdefault(GENERATION, 0)


def save_cycle(groups: Iterable[dict[str, Any]], stats: MicrobatchStats | None) -> None:
    """Note how many steps the statistics have begun; one that is under way begins again."""
    for group in groups:
        if stats is not None and group.get("storage") is not None:
            group[GENERATION] = stats.generation - stats.is_fresh


def restore_cycle(groups: Iterable[Mapping[str, Any]], stats: MicrobatchStats | None) -> None:
    """Let the statistics go on where they were; from the start after an older checkpoint."""
    begun = [group[GENERATION] for group in groups if group.get(GENERATION) is not None]
    if begun and stats is not None:
        stats.continue_from(max(begun))

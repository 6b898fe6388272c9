"""How stale the weights of forward passes were, as the stages recorded it."""

from __future__ import annotations

from collections import Counter

from .pipeline import Pipeline

__all__ = ["staleness"]


def staleness(pipe: Pipeline) -> list[dict[int, int]]:
    """Updates between F and B of a micro-batch, as recorded; under "dist" all processes call it.

    Args:
        pipe: that has run.

    Returns:
        For each stage, first one first: how many micro-batches, by staleness.
    """
    mine = {
        stage.index: dict(
            sorted(Counter(one.version_b - one.version_f for one in stage.records).items())
        )
        for stage in pipe.local
    }
    all_of = {m: counts for part in pipe.share(mine) for m, counts in part.items()}
    return [all_of[m] for m in sorted(all_of)]

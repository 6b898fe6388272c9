"""Cut a chain of layers into stages so that the slowest stage is as fast as possible.

Contiguous cuts, optimal by dynamic programming. A layer can be *replicated*: c copies of its
tiles share the output positions, so that its passes take (t_F + t_B) / c; its update is not
divided, since every copy must receive every pulse to stay equal to the others. Crossbars that only
updates pulse work at the same time, beside all of this: a stage takes the longer of the two.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

from ..errors import ConfigError

__all__ = ["Balance", "LayerTime", "balance"]

# One layer: its time as a whole, or (t_F, t_B, t_U), or with a fourth that runs beside them.
LayerTime = float | tuple[float, float, float] | tuple[float, float, float, float]
_Parts = tuple[float, float, float]


@dataclass(frozen=True)
class Balance:
    """Layers per stage, copies of each layer, time of each stage; ``str`` prints them.

    Attributes:
        counts: layers per stage. copies: of each layer.
        stage_times: in the unit of the layers' times.
    """

    counts: tuple[int, ...]
    copies: tuple[int, ...]
    stage_times: tuple[float, ...]

    @property
    def slowest(self) -> float:
        """Time of the slowest stage: the period of the asynchronous pipeline."""
        return max(self.stage_times)

    @property
    def imbalance(self) -> float:
        """Slowest stage over the mean; 1 is perfect balance."""
        total = sum(self.stage_times)
        return self.slowest * len(self.stage_times) / total if total else 1.0

    def __str__(self) -> str:
        ends = list(accumulate(self.counts))
        rows = []
        for m, (end, time) in enumerate(zip(ends, self.stage_times, strict=True), start=1):
            first = end - self.counts[m - 1]
            copies = self.copies[first:end]
            extra = f", copies {' '.join(map(str, copies))}" if max(copies) > 1 else ""
            layers = f"layer {end}" if end - first == 1 else f"layers {first + 1}-{end}"
            rows.append(f"stage {m}: {layers}, {time:.4g}{extra}")
        return "\n".join([*rows, f"imbalance {self.imbalance:.3f} (slowest stage over mean)"])


def _parts(time: LayerTime) -> _Parts:
    """What copies share, what they do not, and what runs beside both."""
    if isinstance(time, tuple):
        t_f, t_b, t_u, *beside = time
        return t_f + t_b, t_u, beside[0] if beside else 0.0
    return float(time), 0.0, 0.0


def _with_copies(layers: Sequence[_Parts], spare: int) -> list[float]:
    """Least time of the layers as one stage with 0, 1, .., ``spare`` extra copies.

    Each copy goes where it saves most; the savings of one layer shrink, so this is optimal.
    """
    copies = [1] * len(layers)
    times = [sum(shared + own for shared, own, _ in layers)]
    for _ in range(spare):
        best = _best_copy(layers, copies)
        shared = layers[best][0]
        times.append(times[-1] - shared / copies[best] + shared / (copies[best] + 1))
        copies[best] += 1
    beside = max(time for *_, time in layers)
    return [max(time, beside) for time in times]


def _best_copy(layers: Sequence[_Parts], copies: Sequence[int]) -> int:
    saved = [shared / (c * (c + 1)) for (shared, *_), c in zip(layers, copies, strict=True)]
    return saved.index(max(saved))


def _fits(times: list[list[list[float]]], stages: int, spare: int, limit: float) -> list[int]:
    """Cuts of a partition into ``stages`` stages of at most ``limit``; empty if there is none."""
    layers = len(times)
    never = spare + 1
    extras = [[bisect_left(cell, -limit, key=lambda t: -t) for cell in row] for row in times]
    need = [0] + [never] * layers  # extra copies for the first n layers in m stages
    choices: list[list[int]] = []
    for _ in range(stages):
        after = [never] * (layers + 1)
        chosen = [0] * (layers + 1)
        for a in range(layers):
            if need[a] > spare:
                continue
            for b in range(a + 1, layers + 1):
                total = need[a] + extras[a][b - a - 1]
                if total < after[b]:
                    after[b], chosen[b] = total, a
        need = after
        choices.append(chosen)
    if need[layers] > spare:
        return []
    cuts = [layers]
    for chosen in reversed(choices):
        cuts.append(chosen[cuts[-1]])
    return cuts[::-1]


def balance(times: Sequence[LayerTime], stages: int, replicate: int = 0) -> Balance:
    """The contiguous cut of ``times`` into ``stages`` non-empty stages with the fastest slowest.

    Args:
        times: per layer, in any unit: a number, or (t_F, t_B, t_U), or with a fourth that runs
            beside them on a crossbar of its own.
        stages: number of stages, at most the number of layers.
        replicate: extra copies of layers to hand out; what does not help is not used.

    Raises:
        ConfigError: counts that do not fit, or a negative time.
    """
    if isinstance(stages, bool) or not 1 <= stages <= len(times):
        raise ConfigError(f"stages is {stages}; use 1 to {len(times)}, the number of layers")
    if replicate < 0:
        raise ConfigError(f"replicate is {replicate}; use an integer >= 0")
    layers = [_parts(time) for time in times]
    for time, parts in zip(times, layers, strict=True):
        if not all(0 <= part < float("inf") for part in parts):
            raise ConfigError(f"times hold {time}; use finite numbers >= 0")
    n = len(layers)
    table = [[_with_copies(layers[a:b], replicate) for b in range(a + 1, n + 1)] for a in range(n)]
    limits = sorted({time for row in table for cell in row for time in cell})
    low, high = 0, len(limits) - 1
    while low < high:
        middle = (low + high) // 2
        if _fits(table, stages, replicate, limits[middle]):
            high = middle
        else:
            low = middle + 1
    cuts = _fits(table, stages, replicate, limits[low])
    return _result(layers, table, cuts, limits[low])


def _result(
    layers: Sequence[_Parts],
    table: list[list[list[float]]],
    cuts: Sequence[int],
    limit: float,
) -> Balance:
    copies: list[int] = []
    stage_times: list[float] = []
    for a, b in pairwise(cuts):
        times = table[a][b - a - 1]
        extra = next(i for i, time in enumerate(times) if time <= limit)
        own = [1] * (b - a)
        for _ in range(extra):
            own[_best_copy(layers[a:b], own)] += 1
        copies += own
        stage_times.append(times[extra])
    counts = tuple(b - a for a, b in pairwise(cuts))
    return Balance(counts, tuple(copies), tuple(stage_times))

"""Time per sample of M equal stages, closed forms; all times in one unit.

Sources: costs of the three schedules of Analog-SGD-AP (arXiv 2410.15155), one micro-batch = one
sample. Unequal stages, link latency and short runs: ``pulseline.schedules.timing``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

__all__ = ["asynchronous_ns", "sequential_ns", "synchronous_ns"]


def sequential_ns(stages: int, t_f: float, t_b: float, t_u: float) -> float:
    """``M (t_F + t_B) + t_U``: one sample at a time, earlier stages update behind later ones.

    Args:
        stages: M. t_f, t_b, t_u: times of a stage; t_u with its transfers, also those on a crossbar
            of its own, beside which there is nothing to read here.
    """
    return stages * (t_f + t_b) + t_u


def synchronous_ns(stages: int, micro_batches: int, t_f: float, t_b: float, t_u: float) -> float:
    """``((B + M - 1)(t_F + t_B) + B t_U) / B``: B pulsed updates in a row at every flush.

    Args:
        stages: M. micro_batches: B. t_f, t_b, t_u: times of a stage.
    """
    passes = (micro_batches + stages - 1) * (t_f + t_b)
    return (passes + micro_batches * t_u) / micro_batches


def asynchronous_ns(times: Iterable[Sequence[float]]) -> float:
    """``max_m max(t_F + t_B + t_U, t_beside)``: the slowest stage sets the pace in steady state.

    Args:
        times: (t_F, t_B, t_U) of every stage; where updates pulse a crossbar of their own, what
            runs there beside F and B is a fourth, and t_U the rest.
    """
    return max(max(sum(stage[:3]), *stage[3:], 0.0) for stage in times)

"""What a network, and a run of it, would cost on hardware: from modules to numbers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..arrays import Array
from ..cells import Cell
from ..devices import Ideal
from ..errors import ConfigError
from ..hardware import Balance, Hardware, Matrix, RunReport, StageCost, balance, preset, stage_cost
from ..hardware.presets import DEFAULT
from .clock import Span
from .timing import modelled_spans, run_time

if TYPE_CHECKING:
    from .pipeline import Pipeline
    from .plan import Schedule


def matrices(modules: Sequence[nn.Module], example: Tensor | None = None) -> list[list[Matrix]]:
    """The weight matrices of modules that follow each other; digital ones as if on tiles.

    ``example``: an input (samples, ...) of the first module. With it the modules run once, in
    eval mode (no training counter moves), and every product that was taken is counted: a
    convolution takes one per output position. Without it each matrix is used once per sample,
    and convolutions raise ConfigError.
    """
    if example is None:
        return [
            [_matrix(layer, 1) for layer in module.modules() if _holds_matrix(layer)]
            for module in modules
        ]
    found: list[list[Matrix]] = []
    samples = len(example)

    def count(layer: nn.Module, _inputs: Any, output: Tensor) -> None:
        rows, _ = _shape(layer)
        found[-1].append(_matrix(layer, output.numel() / max(samples * rows, 1), known=True))

    layers = [layer for module in modules for layer in module.modules()]
    hooks = [layer.register_forward_hook(count) for layer in layers if _holds_matrix(layer)]
    x = example
    try:
        with evaluating(modules), torch.no_grad():
            for module in modules:
                found.append([])
                x = module(x)
    finally:
        for hook in hooks:
            hook.remove()
    return found


@contextmanager
def evaluating(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Modules in eval mode, where no training counter moves; afterwards each as it was."""
    modules = list(modules)
    modes = [(layer, layer.training) for module in modules for layer in module.modules()]
    try:
        for module in modules:
            module.eval()
        yield
    finally:
        for layer, mode in modes:
            layer.training = mode


def _holds_matrix(layer: nn.Module) -> bool:
    known = isinstance(layer, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d)
    return known or _cell(layer) is not None


def _cell(layer: nn.Module) -> Cell | None:
    cell = getattr(layer, "cell", None)
    return cell if isinstance(cell, Cell) else None


def _shape(layer: Any) -> tuple[int, int]:
    weight: Tensor = layer.weight
    return weight.shape[0], weight.numel() // max(weight.shape[0], 1)


def _matrix(layer: nn.Module, positions: float, known: bool = False) -> Matrix:
    if not known and not hasattr(layer, "in_features"):
        raise ConfigError(
            f"{type(layer).__name__} takes one product per output position: give an example input"
        )
    cell = _cell(layer)
    return Matrix(*_shape(layer), positions, None if cell is None else slots(cell))


def _fired(array: Array) -> tuple[int, int, int] | None:
    """(coincidences, slots, samples) that the array counted; None if it counts nothing."""
    fired = array.fired
    if fired is None or not int(fired[2]):
        return None
    pulses, used, samples = fired.tolist()
    return pulses, used, samples


def slots(cell: Cell) -> float:
    """Mean pulse slots per update: counted by its last array, else ``desired_bl``."""
    array: Array = cell.arrays[-1]
    fired = _fired(array)
    return float(array.crossbar.update.desired_bl) if fired is None else fired[1] / fired[2]


def arrays(modules: Iterable[nn.Module]) -> list[Array]:
    """Every array of the modules."""
    held = (layer for module in modules for layer in module.modules())
    return [array for array in held if isinstance(array, Array)]


def pulses_fired(modules: Iterable[nn.Module]) -> int | None:
    """Coincidences that updates of pulsed arrays fired; None if one of them does not count."""
    pulsed = (a for a in arrays(modules) if not isinstance(a.crossbar.device, Ideal))
    counts = [_fired(array) for array in pulsed]
    known = [fired[0] for fired in counts if fired is not None]
    return sum(known) if known and len(known) == len(counts) else None


def stage_costs(
    modules: Sequence[nn.Module],
    hardware: str | Hardware = DEFAULT,
    example: Tensor | None = None,
) -> list[StageCost]:
    """Cost per sample of modules that follow each other; see :func:`matrices`."""
    kind = preset(hardware)
    return [stage_cost(kind, held) for held in matrices(modules, example)]


def modelled_balance(
    model: nn.Sequential,
    stages: int,
    hardware: str | Hardware = DEFAULT,
    example: Tensor | None = None,
    replicate: int = 0,
) -> Balance:
    """Stages of ``model`` balanced by modelled time; print it to see the imbalance it leaves.

    ``replicate``: extra copies of layers, see :func:`pulseline.hardware.balance`.
    """
    layers = list(model.children())
    costs = stage_costs(layers, hardware, example)
    times = [
        cost.times()
        for layer, cost in zip(layers, costs, strict=True)
        if next(layer.parameters(), None) is not None
    ]
    return balance(times, stages, replicate)


def report(
    pipe: Pipeline,
    hardware: str | Hardware = DEFAULT,
    example: Tensor | None = None,
    latency_ns: float = 0.0,
) -> RunReport:
    """What the pipeline's run so far would have cost; at a flush point only.

    Every micro-batch counts as full. Time comes from the schedule's programs with the stages'
    modelled durations; pulses and slots are those that the arrays counted (``Array.count_pulses``
    before the run), else every train has ``desired_bl`` slots, which update management hardly ever
    uses.
    """
    pipe.check_flushed("report")
    kind = preset(hardware)
    modules = [stage.module for stage in pipe.stages]
    costs = stage_costs(modules, kind, example)
    return run_report(
        pipe.schedule,
        costs,
        [size for size, _ in pipe.segments],
        kind,
        pipe.micro_batch_size,
        pulses_fired(modules),
        latency_ns,
    )


def timeline(
    pipe: Pipeline,
    hardware: str | Hardware = DEFAULT,
    micro_batches: int = 16,
    example: Tensor | None = None,
    latency_ns: float = 0.0,
) -> list[Span]:
    """The first micro-batches of the pipeline's schedule on the hardware, times in ns."""
    costs = stage_costs([stage.module for stage in pipe.stages], hardware, example)
    times = [cost.times(pipe.micro_batch_size) for cost in costs]
    return modelled_spans(pipe.schedule, times, micro_batches, latency_ns)


def run_report(
    plan: Schedule,
    costs: Sequence[StageCost],
    segments: Sequence[int],
    hardware: Hardware,
    size: int = 1,
    pulses: int | None = None,
    latency_ns: float = 0.0,
) -> RunReport:
    """The report of a run with micro-batches of ``size`` and flushes after those segments."""
    samples = size * sum(segments)
    total = run_time(plan, [cost.times(size) for cost in costs], segments, latency_ns)
    update = samples * sum(cost.update_pj for cost in costs)
    if pulses is not None:
        update = hardware.update_pj(pulses) + samples * sum(cost.line_pj for cost in costs)
    return RunReport(
        hardware=hardware.name,
        schedule=label(plan),
        samples=samples,
        total_ns=total,
        read_pj=samples * sum(cost.forward_pj + cost.backward_pj for cost in costs),
        update_pj=update,
        update_is_bound=pulses is None or hardware.line_fj > 0,
        utilisation=tuple(samples * cost.busy_ns / total if total else 0.0 for cost in costs),
        pulses=pulses,
        unverified=hardware.unverified,
    )


def label(plan: Schedule) -> str:
    """A schedule in a few words."""
    words = [plan.kind]
    if plan.updates_at_flush and plan.micro_batches > 1:
        words.append(f"{plan.order}, {plan.micro_batches} micro-batches, {plan.update}")
    if plan.full_duplex:
        words.append("full duplex")
    if plan.depths is not None:
        words.append(f"in flight {' '.join(map(str, plan.depths))}")
    if plan.flush_every is not None:
        words.append(f"flush every {plan.flush_every}")
    if plan.warmup:
        words.append(f"first {plan.warmup} synchronous")
    return ", ".join(words)

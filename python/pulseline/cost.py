"""What a network, and a run of it, would cost on hardware: from modules to numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from .cells import Cell
from .counted import (
    Counted,
    Fired,
    arrays,
    count,
    pulses_fired,
    slots,
    transfers,
    write_slots,
)
from .errors import ConfigError
from .hardware import Balance, Hardware, Matrix, RunReport, StageCost, Wear, preset, stage_cost
from .hardware import balance as balance_times
from .hardware.presets import DEFAULT
from .nn.registry import CONVOLUTIONS
from .pipeline import Pipeline
from .pipeline.messages import tensors_of
from .pipeline.shard import arrays_of
from .pipeline.split import units
from .pipeline.stage import evaluating
from .schedules import Schedule, Span, modelled_spans, run_time
from .uncounted import watched

__all__ = [
    "Counted",
    "Fired",
    "arrays",
    "balance",
    "count",
    "label",
    "matrices",
    "pulses_fired",
    "report",
    "run_report",
    "slots",
    "stage_costs",
    "timeline",
    "transfers",
    "write_slots",
]


def matrices(
    modules: Sequence[nn.Module],
    example: Any = None,
    counted: Counted | None = None,
    step: float = 1.0,
) -> list[list[Matrix]]:
    """The weight matrices of modules that follow each other; digital ones as if on tiles.

    Args:
        modules: in order.
        example: an input (samples, ...) of the first module, or a tuple or dict of tensors. With it
            the modules run once, in eval mode (no training counter moves), and every product that
            was taken is counted: a convolution takes one per output position. Without it each
            matrix is used once per sample.
        counted: pulses of arrays, see :func:`count`; None: as the modules' own arrays counted.
        step: samples per step of the optimizer, which some algorithms count.

    Returns:
        Those of each module; one that is used again has no crossbars of its own then.

    Raises:
        ConfigError: a convolution without an example.
    """
    counted = count(modules) if counted is None else counted
    found: list[list[Matrix]] = [[] for _ in modules]
    if example is None:
        for here, module in zip(found, modules, strict=True):
            held = (layer for layer in module.modules() if _holds_matrix(layer))
            here += [_matrix(layer, 1, counted, step) for layer in held]
        return found
    now = 0
    seen: set[nn.Module] = set()

    def take(layer: nn.Module, matrix: Matrix) -> None:
        if layer in seen:
            work = replace(matrix.work, crossbars=0, buffer_bytes=0.0)
            matrix = replace(matrix, work=work)
        seen.add(layer)
        found[now].append(matrix)

    with _taking(modules, example, take, counted, step):
        x = example
        for now, module in enumerate(modules):  # noqa: B007 - the hooks read it
            x = module(x)
    return found


@contextmanager
def _taking(
    modules: Sequence[nn.Module],
    example: Any,
    take: Callable[[nn.Module, Matrix], None],
    counted: Counted,
    step: float,
) -> Iterator[None]:
    """Modules in eval mode that tell every product of theirs: (layer, its matrix)."""
    samples = len(tensors_of(example)[0])

    def hook(layer: nn.Module, _inputs: Any, output: Tensor) -> None:
        rows, _ = _shape(layer)
        positions = output.numel() / max(samples * rows, 1)
        take(layer, _matrix(layer, positions, counted, step, known=True))

    layers = [layer for module in modules for layer in module.modules()]
    hooks = [layer.register_forward_hook(hook) for layer in layers if _holds_matrix(layer)]
    try:
        with evaluating(modules), torch.no_grad():
            yield
    finally:
        for one in hooks:
            one.remove()


def _holds_matrix(layer: nn.Module) -> bool:
    return isinstance(layer, (nn.Linear, *CONVOLUTIONS)) or _cell(layer) is not None


def _cell(layer: nn.Module) -> Cell | None:
    cell = getattr(layer, "cell", None)
    return cell if isinstance(cell, Cell) else None


def _shape(layer: Any) -> tuple[int, int]:
    cell = _cell(layer)
    if cell is not None:
        return cell.shape[0], cell.shape[1] // cell.array.blocks
    weight: Tensor = layer.weight
    rows: int = getattr(layer, "out_channels", weight.shape[0])
    return rows, weight.numel() // max(rows, 1)


def _matrix(
    layer: nn.Module, positions: float, counted: Counted, step: float, known: bool = False
) -> Matrix:
    if not known and not hasattr(layer, "in_features"):
        raise ConfigError(
            f"{type(layer).__name__} takes one product per output position; give an example input"
        )
    cell = _cell(layer)
    if cell is None:
        return Matrix(*_shape(layer), positions)
    work = cell.work(max(step * positions, 1.0), write_slots(cell, counted))
    return Matrix(*_shape(layer), positions, slots(cell, counted), work)


def stage_costs(
    modules: Sequence[nn.Module],
    hardware: str | Hardware = DEFAULT,
    example: Any = None,
    counted: Counted | None = None,
    step: float = 1.0,
) -> list[StageCost]:
    """Cost per sample of modules that follow each other.

    Args:
        modules: in order. hardware: a name of ``pulseline.hardware.PRESETS``, or one of one's own.
        example: an input (samples, ...), see :func:`matrices`.
        counted: pulses of arrays, see :func:`count`; None: as the modules' own arrays counted.
        step: samples per step of the optimizer, see :func:`matrices`.

    Returns:
        Times in ns and energies in pJ, one entry per module.

    Raises:
        ConfigError: there is no such hardware, or a convolution comes without an example.
    """
    kind = preset(hardware)
    return [stage_cost(kind, held) for held in matrices(modules, example, counted, step)]


def balance(
    model: nn.Module,
    stages: int,
    hardware: str | Hardware = DEFAULT,
    example: Any = None,
    replicate: int = 0,
    step: float = 1.0,
) -> Balance:
    """Stages of ``model`` balanced by modelled time; print it to see the imbalance it leaves.

    Args:
        model: to be cut, see :func:`pulseline.pipeline.split.split`. stages: how many.
        hardware: see :func:`stage_costs`.
        example: an input (samples, ...), see :func:`matrices`; a tuple or dict of the arguments of
            the model's forward: those that ``Pipeline(inputs=)`` names.
        replicate: extra copies of layers, see :func:`pulseline.hardware.balance`.
        step: samples per step of the optimizer, see :func:`matrices`.

    Returns:
        Layers per stage, copies, times in ns.

    Raises:
        ConfigError: see :func:`stage_costs` and :func:`pulseline.hardware.balance`.
    """
    kind, counted = preset(hardware), count([model])
    names = units(model, stages, [*example] if isinstance(example, dict) else None)
    found: dict[str, list[Matrix]] = {name: [] for name in names}
    layers = _layers_of(model, names)
    if example is None:
        for layer, name in layers.items():
            if _holds_matrix(layer):
                found[name].append(_matrix(layer, 1, counted, step))
    else:

        def take(layer: nn.Module, matrix: Matrix) -> None:
            if layer in layers:
                found[layers[layer]].append(matrix)

        with _taking([model], example, take, counted, step):
            if isinstance(example, dict):
                model(**example)
            else:
                model(*example if isinstance(example, tuple) else (example,))
    return balance_times(
        [stage_cost(kind, held).times() for held in found.values()], stages, replicate
    )


def _layers_of(model: nn.Module, names: Sequence[str]) -> dict[nn.Module, str]:
    """All modules inside the layers of those names -> the name."""
    known = dict(model.named_modules(remove_duplicate=False))
    return {inner: name for name in names if name in known for inner in known[name].modules()}


def report(
    pipe: Pipeline,
    hardware: str | Hardware = DEFAULT,
    example: Any = None,
    latency_ns: float = 0.0,
) -> RunReport:
    """What the pipeline's run so far would have cost; at a flush point only, in all processes.

    Every micro-batch counts as full. Time comes from the schedule's programs with the stages'
    modelled durations; pulses and slots are those that the arrays counted (``Array.count_pulses``
    before the run), else every train has ``desired_bl`` slots, which update management hardly ever
    uses, and every write the most that its algorithm allows. Updates that pulse a crossbar of their
    own overlap with the reads of their stage.

    Args:
        pipe: that ran. hardware: see :func:`stage_costs`.
        example: an input (samples, ...), see :func:`matrices`; None: the first sample that was fed,
            whose number of positions all others are taken to have.
        latency_ns: of a message between stages.

    Returns:
        Time and energy, transfers, pulses per crosspoint of each array, and what else was computed,
        which is not counted; print it.

    Raises:
        ConfigError: micro-batches are in flight; nothing was fed since a checkpoint was loaded and
            samples had several positions; see :func:`stage_costs`.
    """
    pipe.check_flushed("report")
    kind = preset(hardware)
    modules = [stage.module for stage in pipe.stages]
    local = [stage.module for stage in pipe.local]
    shared = pipe.share((count(local), transfers(local)))
    counted = {key: fired for part, _ in shared for key, fired in part.items()}
    moved = {key: n for _, part in shared for key, n in part.items()}
    segments = [size for size, _ in pipe.segments]
    example = _seen(pipe) if example is None else example
    if example is None:
        _check_positions(counted, pipe.micro_batch_size * sum(segments))
    with watched(modules, _holds_matrix) as names:
        costs = stage_costs(modules, kind, example, counted, _step(pipe))
    found = run_report(
        pipe.schedule,
        costs,
        segments,
        kind,
        pipe.micro_batch_size,
        pulses_fired(modules, counted),
        latency_ns,
    )
    wear = _wear(pipe, counted)
    return replace(found, not_counted=tuple(names), transfers=sum(moved.values()), wear=wear)


def _step(pipe: Pipeline) -> float:
    """Samples per step of a pipeline's optimizers, in the steady state."""
    plan = pipe.schedule
    return pipe.micro_batch_size * (plan.micro_batches if plan.updates_at_flush else 1)


def _wear(pipe: Pipeline, counted: Counted) -> tuple[Wear, ...]:
    """Pulses of all arrays under their names in the model; empty if nobody counted."""
    named = [one for stage in pipe.stages for one in arrays_of(stage).items()]
    found = [(name, array, counted.get(array.identity.key)) for name, array in named]
    if all(fired is None for *_, fired in found):
        return ()
    return tuple(
        Wear(name, array.held.numel(), None if fired is None else fired.pulses)
        for name, array, fired in found
    )


def _seen(pipe: Pipeline) -> Any:
    """The first sample that the pipeline was fed, if all its stages can take it where it is."""
    example = pipe.example
    devices = {p.device for stage in pipe.stages for p in stage.module.parameters()}
    there = {one.device for one in tensors_of(example)}
    return example if devices <= there else None


def _check_positions(counted: Counted, samples: int) -> None:
    """Refuse to take samples for one position each that arrays were updated more often for."""
    most = max((fired.samples for fired in counted.values()), default=0)
    if most > samples:
        raise ConfigError(
            f"example is None and arrays took {most:,} updates for {samples:,} samples, several "
            "positions each; give an example input"
        )


def timeline(
    pipe: Pipeline,
    hardware: str | Hardware = DEFAULT,
    micro_batches: int = 16,
    example: Any = None,
    latency_ns: float = 0.0,
) -> list[Span]:
    """The first micro-batches of the pipeline's schedule on the hardware.

    Args:
        pipe: whose schedule and stages they are. hardware: see :func:`stage_costs`.
        micro_batches: how many. example: an input (samples, ...), see :func:`report`.
        latency_ns: of a message between stages.

    Returns:
        Spans in ns, by start.

    Raises:
        ConfigError: see :func:`stage_costs`.
    """
    example = _seen(pipe) if example is None else example
    modules = [stage.module for stage in pipe.stages]
    costs = stage_costs(modules, hardware, example, step=_step(pipe))
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
    """The report of a run, from its schedule and the cost of its stages.

    Args:
        plan: schedule of the run. costs: of each stage, per sample.
        segments: micro-batches between flushes. hardware: whose pulses and lines are paid.
        size: samples per micro-batch. pulses: coincidences fired; None: a bound.
        latency_ns: of a message between stages.

    Returns:
        Time in ns and energy in pJ.
    """
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
        arrays=sum(cost.crossbars for cost in costs),
        crosspoints=sum(cost.crosspoints for cost in costs),
        buffer_bytes=sum(cost.buffer_bytes for cost in costs),
        reads=samples * sum(cost.reads for cost in costs),
        writes=samples * sum(cost.writes for cost in costs),
        operations=samples * sum(cost.operations for cost in costs),
        transfer_pj=samples * sum(cost.transfer_pj for cost in costs),
        digital_pj=samples * sum(cost.digital_pj for cost in costs),
        endurance=hardware.endurance,
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

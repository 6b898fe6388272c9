"""The experiments by name, and one call that does everything with some of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from ..errors import ConfigError
from .accuracy import Accuracy
from .algorithms import Algorithms
from .cliff import Cliff
from .clock import Clock
from .complexity import Complexity
from .devices import Devices
from .engine import Experiment, Notice, Progress, Run, finish, load, rows_of, runs_of
from .floor import Floor
from .report import Report, write, write_index
from .speedup import Speedup
from .stale_algorithms import StaleAlgorithms
from .staleness import Staleness

__all__ = ["EXPERIMENTS", "QUICK", "left", "named", "perform", "seconds"]

_ALL = (
    *(Clock(), Staleness(), Floor(), Complexity(), Accuracy(), Speedup(), Cliff(), Devices()),
    *(Algorithms(), StaleAlgorithms()),
)
EXPERIMENTS: dict[str, Experiment] = {one.name: one for one in _ALL}
QUICK: dict[str, Experiment] = {one.name: one.quick() for one in _ALL}

# Processor seconds of one run (of one seed, or of a group of seeds), quick and at full size:
# AMD EPYC, AVX-512, one thread, torch 2.13.0+cpu, 2026-11-30. ``seconds`` scales them by rows.
_MEASURED = {
    "clock": (2.6, 5.1),
    "staleness": (4.4, 35.1),
    "floor": (0.7, 14.3),
    "complexity": (5.7, 26.1),
    "accuracy": (14.5, 77.8),
    "cliff": (7.2, 16.8),
    "devices": (9.2, 35.2),
    "algorithms": (3.4, 270.0),
    "staleness-algorithms": (2.0, 300.0),
}


def seconds(experiment: Experiment, quick: bool) -> float:
    """About what one of its runs takes on one core, for its number of rows.

    Args:
        experiment: with any settings. quick: whether it began as a quick one.
    """
    name = experiment.source.name
    usual = (QUICK if quick else EXPERIMENTS)[name]
    return _MEASURED[name][0 if quick else 1] * experiment.steps() / usual.steps()


def left(experiment: Experiment, out: Path) -> int:
    """Runs that ``out`` does not hold yet.

    Args:
        experiment: whose. out: directory of runs.
    """
    return sum(load(run, lambda _: None) is None for run in runs_of([experiment], out))


def named(names: Sequence[str], quick: bool) -> list[Experiment]:
    """The experiments of these names, in their order.

    Args:
        names: of EXPERIMENTS; ["all"]: all of them. quick: with settings that take seconds.

    Raises:
        ConfigError: there is no such experiment.
    """
    known = QUICK if quick else EXPERIMENTS
    names = list(known) if list(names) == ["all"] else names
    for name in names:
        if name not in known:
            raise ConfigError(f"experiment is {name!r}; use all or one of {', '.join(known)}")
    return [known[name] for name in names]


@contextmanager
def _bar(total: int) -> Iterator[Progress]:
    """A progress bar on a terminal, if tqdm is there."""
    if not total or find_spec("tqdm") is None:
        yield lambda *_: None
        return
    from tqdm import tqdm

    with tqdm(total=total, unit=" rows", disable=None, leave=False) as line:

        def progress(run: Run) -> None:
            line.set_description(run.experiment.name, refresh=False)
            line.update(len(run.seeds) * run.experiment.steps())

        yield progress


def perform(
    experiments: Sequence[Experiment],
    out: Path,
    *,
    jobs: int = 1,
    command: str = "",
    notice: Notice = lambda _: None,
    ran: Progress = lambda _: None,
    finished: Callable[[Report], None] = lambda _: None,
    picture: str = "png",
) -> list[Report]:
    """Compute what is not kept yet, then write the files of each experiment.

    More than one experiment: also ``index.md``.

    Args:
        experiments: in the order of the reports. out: directory of runs and files.
        jobs: processes. command: what the summaries name as their origin.
        notice: called with a sentence when a kept run is damaged.
        ran: called with each run that was computed.
        finished: called with each report when its files are written.
        picture: format of the figures, one of ``report.FORMATS``.

    Returns:
        The reports.

    Raises:
        BackendError: a process ended without a word.
    """
    import matplotlib.figure  # noqa: F401  # missing packages show before hours of work, not after

    runs = runs_of(experiments, out)
    total = sum(
        len(run.seeds) * run.experiment.steps() for run in runs if load(run, lambda _: None) is None
    )
    with _bar(total) as progress:

        def both(run: Run) -> None:
            ran(run)
            progress(run)

        finish(runs, jobs, both, notice)
    reports = []
    for experiment in experiments:
        reports.append(write(experiment, rows_of(experiment, out), command, out, picture))
        finished(reports[-1])
    if len(experiments) > 1:
        write_index(reports, command, out, picture)
    return reports

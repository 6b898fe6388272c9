"""The experiments by name, and one call that does everything with some of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from ..errors import ConfigError
from .accuracy import Accuracy
from .cliff import Cliff
from .clock import Clock
from .complexity import Complexity
from .devices import Devices
from .engine import Experiment, Notice, Progress, finish, load, rows_of, runs_of
from .floor import Floor
from .report import Report, write, write_index
from .speedup import Speedup
from .staleness import Staleness

__all__ = ["EXPERIMENTS", "QUICK", "named", "perform"]

_ALL = (Clock(), Staleness(), Floor(), Complexity(), Accuracy(), Speedup(), Cliff(), Devices())
EXPERIMENTS: dict[str, Experiment] = {one.name: one for one in _ALL}
QUICK: dict[str, Experiment] = {one.name: one.quick() for one in _ALL}


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

        def progress(name: str, rows: int) -> None:
            line.set_description(name, refresh=False)
            line.update(rows)

        yield progress


def perform(
    experiments: Sequence[Experiment],
    out: Path,
    *,
    jobs: int = 1,
    command: str = "",
    notice: Notice = lambda _: None,
    finished: Callable[[Report], None] = lambda _: None,
) -> list[Report]:
    """Compute what is not kept yet, then write the files of each experiment.

    More than one experiment: also ``index.md``.

    Args:
        experiments: in the order of the reports. out: directory of runs and files.
        jobs: processes. command: what the summaries name as their origin.
        notice: called with a sentence when a kept run is damaged.
        finished: called with each report when its files are written.

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
        finish(runs, jobs, progress, notice)
    reports = []
    for experiment in experiments:
        reports.append(write(experiment, rows_of(experiment, out), command, out))
        finished(reports[-1])
    if len(experiments) > 1:
        write_index(reports, command, out)
    return reports

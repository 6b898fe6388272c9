"""The experiments' common engine: runs kept in files, and what is made of them.

A run is one experiment with one seed, or with a group of seeds that one tensor program computes.
Its rows go to ``runs/NAME-DIGEST-SEEDS.jsonl`` in one piece (a temporary name, then a rename); the
digest covers name, settings, version and draws, so a later call takes what is there and computes
the rest. A file that is damaged is computed again.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol, TypeVar

import torch

from .. import __version__, ops
from ..errors import BackendError, ConfigError
from .mutants import Mutant, Row, Rows
from .statistics import Verdict

__all__ = [
    "Experiment",
    "Notice",
    "Progress",
    "Run",
    "Seeds",
    "Settings",
    "Summary",
    "compute",
    "finish",
    "load",
    "rows_of",
    "run_of",
    "runs_of",
    "seeds_of",
    "settings_digest",
]

Notice = Callable[[str], None]
Progress = Callable[["Run"], None]  # called with a run that is done
Seeds = int | tuple[int, ...]  # so many from 0 on, or these
Self = TypeVar("Self", bound="Settings")


class Summary(NamedTuple):
    """What an experiment found: paragraphs and tables in Markdown, and a verdict per claim."""

    text: str
    verdicts: list[Verdict]


class Experiment(Protocol):
    """Settings of one experiment, a frozen dataclass, and what is done with them."""

    @property
    def name(self) -> str:
        """What files and the command line call it."""
        ...

    @property
    def title(self) -> str:
        """The heading of its page."""
        ...

    @property
    def seeds(self) -> Seeds:
        """So many from 0 on, or a tuple of them; 0: results depend on none."""
        ...

    @property
    def group(self) -> int:
        """Most seeds of one run."""
        ...

    @property
    def source(self) -> Experiment:
        """The experiment whose runs are used: itself, or another's."""
        ...

    def with_seeds(self, seeds: int | Sequence[int]) -> Experiment:
        """The same with so many seeds, or with these; itself if it depends on none."""
        ...

    def with_settings(self, values: Mapping[str, Any]) -> Experiment:
        """The same with other settings of its source, by field."""
        ...

    def steps(self) -> int:
        """Rows of each seed."""
        ...

    def run(self, seeds: Sequence[int]) -> Iterator[Row]:
        """Compute the rows of these seeds, all with the same columns, "seed" among them."""
        ...

    def summarise(self, rows: Rows) -> Summary:
        """Tables and verdicts from the rows of all seeds."""
        ...

    def mutants(self) -> Sequence[Mutant]:
        """Errors that the verdicts must notice."""
        ...

    def figure(self, rows: Rows) -> Any:
        """A matplotlib Figure."""
        ...


@dataclass(frozen=True)
class Settings:
    """What most experiments share: they are their own source, one seed a run, no mutants.

    Raises:
        ConfigError: a number is negative or not finite.
    """

    seeds: Seeds = 3

    group: ClassVar[int] = 1

    def __post_init__(self) -> None:
        for one in fields(self):
            held = getattr(self, one.name)
            for value in held if isinstance(held, tuple) else (held,):
                number = isinstance(value, (int, float))
                if number and not (math.isfinite(value) and value >= 0):
                    raise ConfigError(
                        f"{one.name} of {type(self).__name__} holds {value}; use numbers >= 0"
                    )

    @property
    def source(self) -> Any:
        """The experiment whose runs are used: itself."""
        return self

    def with_seeds(self: Self, seeds: int | Sequence[int]) -> Self:
        """The same with so many seeds, or with these; itself if it depends on none.

        Raises:
            ConfigError: there is none.
        """
        if not self.seeds:
            return self
        if not isinstance(seeds, int) and not seeds:
            raise ConfigError("seeds is empty; give one at least")
        return replace(self, seeds=seeds if isinstance(seeds, int) else tuple(seeds))

    def with_settings(self: Self, values: Mapping[str, Any]) -> Self:
        """The same with other settings, by field."""
        return replace(self, **values)

    def mutants(self) -> Sequence[Mutant]:
        """Errors that the verdicts must notice."""
        return ()


class Run(NamedTuple):
    """One experiment with some seeds, and the file that keeps its rows."""

    experiment: Experiment
    seeds: Sequence[int]
    path: Path


def seeds_of(experiment: Experiment) -> Sequence[int]:
    """The seeds of its runs; seed 0 alone where results depend on none."""
    seeds = experiment.source.seeds
    return range(max(seeds, 1)) if isinstance(seeds, int) else seeds


def settings_digest(experiment: Experiment) -> str:
    """Ten hex digits over name, settings but for the seeds, version and numbering of draws."""
    settings = {k: v for k, v in asdict(experiment).items() if k != "seeds"}  # type: ignore[call-overload]
    text = json.dumps([experiment.name, __version__, ops.NUMBERING, settings], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def run_of(experiment: Experiment, seeds: Sequence[int], out: Path) -> Run:
    """The run and where it is kept."""
    which = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]}-{seeds[-1]}"
    if list(seeds) != list(range(seeds[0], seeds[0] + len(seeds))):
        which += f"-{hashlib.sha256(str(list(seeds)).encode()).hexdigest()[:8]}"
    name = f"{experiment.name}-{settings_digest(experiment)}-{which}.jsonl"
    return Run(experiment, seeds, out / "runs" / name)


def load(run: Run, notice: Notice) -> Rows | None:
    """The rows of a finished run; None if there is no intact file."""
    try:
        lines = run.path.read_text().splitlines()
    except FileNotFoundError:
        return None
    try:
        head, *rows = [json.loads(line) for line in lines]
        whole = isinstance(head, dict) and head.get("rows") == len(rows)
        if whole and all(isinstance(row, dict) for row in rows):
            return rows
    except ValueError:
        pass
    notice(f"{run.path} is damaged: computing it again")
    return None


def compute(run: Run) -> Run:
    """Run with one thread, so that digital layers give the same bits everywhere; keep the rows."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        rows = list(run.experiment.run(run.seeds))
    finally:
        torch.set_num_threads(threads)
    head = {"experiment": run.experiment.name, "seeds": list(run.seeds), "rows": len(rows)}
    text = "".join(json.dumps(line) + "\n" for line in (head, *rows))
    run.path.parent.mkdir(parents=True, exist_ok=True)
    temporary = run.path.with_suffix(f".{os.getpid()}.tmp")
    temporary.write_text(text)
    os.replace(temporary, run.path)
    return run


def runs_of(experiments: Sequence[Experiment], out: Path) -> list[Run]:
    """The runs that these experiments need, each once, by first seed."""
    found: dict[Path, Run] = {}
    for experiment in experiments:
        source, seeds = experiment.source, seeds_of(experiment)
        for first in range(0, len(seeds), source.group):
            run = run_of(source, seeds[first : first + source.group], out)
            found.setdefault(run.path, run)
    return sorted(found.values(), key=lambda run: run.seeds[0])


def rows_of(experiment: Experiment, out: Path) -> Rows:
    """The rows of all seeds, from their files.

    Raises:
        ConfigError: a run was not computed yet.
    """
    rows: Rows = []
    for run in runs_of([experiment], out):
        kept = load(run, lambda _: None)
        if kept is None:
            raise ConfigError(f"{run.path} is missing; run the experiment again")
        rows += kept
    return rows


def finish(runs: Sequence[Run], jobs: int, progress: Progress, notice: Notice) -> None:
    """Compute the runs that are not kept yet, in ``jobs`` processes.

    Raises:
        BackendError: a process ended without a word.
        Exception: whatever a run raised.
    """
    from joblib import Parallel, delayed
    from joblib.externals.loky.process_executor import TerminatedWorkerError

    left = [run for run in runs if load(run, notice) is None]
    pool = Parallel(n_jobs=min(jobs, max(len(left), 1)), return_as="generator_unordered")
    try:
        for run in pool(delayed(compute)(run) for run in left):
            progress(run)
    except TerminatedWorkerError:
        raise BackendError("a process of the lab was killed; run it again") from None

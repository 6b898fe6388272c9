"""The experiments' common engine: runs by seed, kept in files, and what is made of them.

A run is one experiment with one seed. Its rows go to ``runs/NAME-DIGEST-SEED.jsonl`` in one piece
(a temporary name, then a rename); the digest covers name, settings, version and draws, so a later
call takes what is there and computes the rest. A file that is damaged is computed again.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import queue
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch

from .. import __version__, ops
from ..errors import BackendError, ConfigError
from .statistics import Verdict

Value = str | int | float | None
Row = dict[str, Value]
Rows = list[Row]
Notice = Callable[[str], None]
Progress = Callable[[str], None]  # called with a name after each row


class Summary(NamedTuple):
    """What an experiment found: paragraphs and tables in Markdown, and a verdict per claim."""

    text: str
    verdicts: list[Verdict]


class Experiment(Protocol):
    """Settings of one experiment, a frozen dataclass, and what is done with them."""

    @property
    def name(self) -> str: ...

    @property
    def title(self) -> str: ...

    @property
    def source(self) -> Experiment:
        """The experiment whose runs are used: itself, or another's."""
        ...

    @property
    def seeded(self) -> bool:
        """Whether results depend on the seed; if not, one run suffices."""
        ...

    def steps(self) -> int:
        """Rows of one run."""
        ...

    def run(self, seed: int) -> Iterator[Row]:
        """Compute the rows of one seed, all with the same columns."""
        ...

    def summarise(self, rows: Rows) -> Summary:
        """Tables and verdicts from the rows of all seeds."""
        ...

    def figure(self, rows: Rows) -> Any:
        """A matplotlib Figure."""
        ...


class Run(NamedTuple):
    """One experiment with one seed, and the file that keeps its rows."""

    experiment: Experiment
    seed: int
    path: Path


def settings_digest(experiment: Experiment) -> str:
    """Ten hex digits over name, settings, version and numbering of the draws."""
    settings = asdict(experiment)  # type: ignore[call-overload]
    text = json.dumps([experiment.name, __version__, ops.NUMBERING, settings], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def run_of(experiment: Experiment, seed: int, out: Path) -> Run:
    """The run and where it is kept."""
    name = f"{experiment.name}-{settings_digest(experiment)}-{seed}.jsonl"
    return Run(experiment, seed, out / "runs" / name)


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
    notice(f"{run.path} is damaged: computing {run.experiment.name} seed {run.seed} again")
    return None


def compute(run: Run, progress: Progress) -> None:
    """Run with one thread, so that digital layers give the same bits everywhere; keep the rows."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    rows: Rows = []
    try:
        for row in run.experiment.run(run.seed):
            rows.append({"seed": run.seed, **row})
            progress(run.experiment.name)
    finally:
        torch.set_num_threads(threads)
    head = {"experiment": run.experiment.name, "seed": run.seed, "rows": len(rows)}
    text = "".join(json.dumps(line) + "\n" for line in (head, *rows))
    run.path.parent.mkdir(parents=True, exist_ok=True)
    temporary = run.path.with_suffix(f".{os.getpid()}.tmp")
    temporary.write_text(text)
    os.replace(temporary, run.path)


def runs_of(experiments: Sequence[Experiment], seeds: int, out: Path) -> list[Run]:
    """The runs that these experiments need, each once, by seed."""
    found: dict[Path, Run] = {}
    for seed in range(seeds):
        for experiment in experiments:
            source = experiment.source
            if seed == 0 or source.seeded:
                run = run_of(source, seed, out)
                found.setdefault(run.path, run)
    return list(found.values())


def rows_of(experiment: Experiment, seeds: int, out: Path) -> Rows:
    """The rows of all seeds, from their files."""
    rows: Rows = []
    for run in runs_of([experiment], seeds, out):
        kept = load(run, lambda _: None)
        if kept is None:
            raise ConfigError(f"{run.path} is missing: run the experiment again")
        rows += kept
    return rows


def finish(runs: Sequence[Run], jobs: int, progress: Progress, notice: Notice) -> None:
    """Compute the runs that are not kept yet, in ``jobs`` processes."""
    open_runs = [run for run in runs if load(run, notice) is None]
    if jobs == 1 or len(open_runs) < 2:
        for run in open_runs:
            compute(run, progress)
        return
    context = multiprocessing.get_context("spawn")
    tasks, done = context.Queue(), context.Queue()
    workers = [
        context.Process(target=_work, args=(tasks, done), daemon=True)
        for _ in range(min(jobs, len(open_runs)))
    ]
    for task in (*open_runs, *(None for _ in workers)):
        tasks.put(task)
    for worker in workers:
        worker.start()
    try:
        _follow(len(open_runs), workers, done, progress)
    finally:
        for worker in workers:
            worker.terminate()
            worker.join()


def _follow(left: int, workers: Sequence[Any], done: Any, progress: Progress) -> None:
    """Report rows until so many runs are finished; raise what a worker raised."""
    while left:
        try:
            name, failure = done.get(timeout=1.0)
        except queue.Empty:
            if any(worker.exitcode not in (None, 0) for worker in workers):
                raise BackendError("a process of the lab was killed: run it again") from None
            continue
        if failure is not None:
            raise failure
        if name is None:
            left -= 1
        else:
            progress(name)


def _work(tasks: Any, done: Any) -> None:
    """A worker: runs until there are no more; Ctrl-C and the end are the parent's business."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    while (run := tasks.get()) is not None:
        try:
            compute(run, lambda name: done.put((name, None)))
        except Exception as error:
            done.put((None, error))
        else:
            done.put((None, None))


def _end_with_parent() -> None:
    """A parent that was killed cannot end its workers."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)

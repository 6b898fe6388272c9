"""What a training run tells while it goes: lines, a progress bar, a table, TensorBoard."""

from __future__ import annotations

import csv
import io
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..data import DataSet
from ..pipeline.manifest import write
from ..train import Epoch, Progress

__all__ = ["bar", "board", "epochs_said", "say", "table"]


@contextmanager
def bar(label: str, samples: int, show: bool = True) -> Iterator[Progress]:
    """A progress bar on a terminal, nothing elsewhere: samples/s, time left, the newest loss.

    Args:
        label: in front. samples: in all. show: False: nothing anywhere.
    """
    from tqdm import tqdm

    hidden = None if show else True
    with tqdm(total=samples, desc=label, unit=" samples", disable=hidden, leave=False) as line:

        def progress(done: int, note: str) -> None:
            line.set_postfix_str(note, refresh=False)
            line.update(done)

        yield progress


def say(text: str) -> None:
    """A line on standard error that stays, above a progress bar if there is one."""
    from tqdm import tqdm

    tqdm.write(text, file=sys.stderr)
    sys.stderr.flush()


def epochs_said(epochs: int, data: DataSet) -> Callable[[Epoch], None]:
    """What says each epoch in a line that stays, on a terminal and elsewhere.

    Args:
        epochs: of the run. data: that it trains on.
    """
    start, samples = time.perf_counter(), len(data.x_train)
    lines = ", ".join(f"{name} {nats:.3f}" for name, nats in data.references)
    test = f"test loss {{:.4f}} ({lines}), " if lines else ""

    def finished(epoch: Epoch) -> None:
        say(
            f"epoch {epoch.samples // samples} of {epochs}: loss {epoch.loss:.4f}, "
            f"{test.format(epoch.test_loss)}test accuracy {epoch.accuracy:.2f} %, "
            f"{epoch.samples:,} samples, {epoch.cycles:,} clock cycles, "
            f"{time.perf_counter() - start:.1f} s"
        )

    return finished


def table(path: Path, epochs: Sequence[Epoch], samples: int) -> None:
    """Write a CSV with a row per epoch: the old table or the new one, never half of it.

    Args:
        path: of the file. epochs: so far. samples: of one epoch.

    Raises:
        BackendError: the disk is full or broken.
    """
    text = io.StringIO(newline="")
    rows = csv.writer(text)
    rows.writerow(["epoch", *Epoch._fields])
    rows.writerows([one.samples // samples, *one] for one in epochs)
    write(path, text.getvalue().encode())


@contextmanager
def board(folder: Path | None, samples: int) -> Iterator[Callable[[Epoch], Any]]:
    """What writes each epoch for TensorBoard; the package is looked for before the training.

    Args:
        folder: of the event files; None: nothing is written. samples: of one epoch.

    Raises:
        ModuleNotFoundError: the package tensorboard is missing.
    """
    if folder is None:
        yield lambda _: None
        return
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(folder)) as writer:

        def finished(epoch: Epoch) -> None:
            for name in ("loss", "test_loss", "accuracy", "cycles"):
                value, at = getattr(epoch, name), epoch.samples
                writer.add_scalar(name, value, at)
            writer.flush()

        yield finished

"""Data sets by name, below a directory, or by the path of their files."""

from __future__ import annotations

from pathlib import Path

from ..errors import ConfigError
from .cifar import CIFAR_FILES, load_cifar10
from .digits import load_digits
from .idx import IDX_FILES, load_idx
from .sets import DataSet, first
from .text import load_text

__all__ = ["DATA", "load"]

DATA = ("digits", "mnist", "fashion-mnist", "cifar10", "text")
_ORIGIN = {
    "mnist": "the four idx files of MNIST come from https://yann.lecun.com/exdb/mnist or a mirror",
    "fashion-mnist": "the four idx files come from "
    "https://github.com/zalandoresearch/fashion-mnist",
    "cifar10": "cifar-10-binary.tar.gz of https://www.cs.toronto.edu/~kriz/cifar.html holds "
    "data_batch_1.bin to data_batch_5.bin and test_batch.bin",
}
_TEXTS = ("tinyshakespeare.txt", "input.txt")


def load(
    name: str,
    root: str | Path = "data",
    samples: int | None = None,
    test_samples: int | None = None,
    context: int = 128,
) -> DataSet:
    """A data set.

    Args:
        name: one of DATA; or a directory with the files of MNIST or CIFAR-10, or a text file.
        root: directory of the data, one below it for each name; "digits" needs none.
        samples, test_samples: to take, the first ones; None: all.
        context: bytes of a sample of text.

    Returns:
        Images as (channels, rows, columns), or tokens.

    Raises:
        ConfigError: there is no such data set, or files are missing or damaged.
    """
    if name == "digits":
        found = load_digits(samples)
        part = first(test_samples, len(found.x_test), "test_samples")
        return found._replace(x_test=found.x_test[part], y_test=found.y_test[part]).shaped()
    if name == "text":
        return load_text(_text(Path(root)), context, samples, test_samples)
    if name in DATA:
        folder = next((one for one in (Path(root) / name, Path(root)) if _has_files(one)), None)
        folder = Path(root) / name if folder is None else folder
        inner = folder / "cifar-10-batches-bin"
        if name == "cifar10":
            where = inner if inner.is_dir() else folder
            return load_cifar10(where, samples, test_samples, _ORIGIN[name])
        return load_idx(folder, samples, test_samples, _ORIGIN[name])
    path = Path(name)
    if path.is_file():
        return load_text(path, context, samples, test_samples)
    if not path.is_dir():
        raise ConfigError(
            f"data is {name!r}; use one of {', '.join(DATA)}, a directory of idx or CIFAR files, "
            "or a text file"
        )
    inner = path / "cifar-10-batches-bin"
    for one in (path, inner):
        if any((one / f"{CIFAR_FILES[0]}{end}").is_file() for end in ("", ".gz")):
            return load_cifar10(one, samples, test_samples)
    return load_idx(path, samples, test_samples)


def _has_files(folder: Path) -> bool:
    """Whether there is a file of a set of images."""
    names = (IDX_FILES[0], CIFAR_FILES[0])
    inner = (folder, folder / "cifar-10-batches-bin")
    return any((one / f"{n}{end}").is_file() for one in inner for n in names for end in ("", ".gz"))


def _text(root: Path) -> Path:
    if root.is_file():
        return root
    for folder in (root / "text", root):
        for name in _TEXTS:
            if (folder / name).is_file():
                return folder / name
    raise ConfigError(
        f"{root / 'text' / _TEXTS[0]} is missing; it is "
        "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt,"
        " or give the path of any text as the data"
    )

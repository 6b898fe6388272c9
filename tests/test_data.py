"""Readers of data, on files that are generated here; the real ones where they are at hand."""

from __future__ import annotations

import gzip
import math
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pulseline.data import DATA, as_input, load, load_digits, load_text, ngrams, read_idx
from pulseline.data.cifar import CIFAR_FILES
from pulseline.data.idx import IDX_FILES
from pulseline.errors import ConfigError

REAL = Path(os.environ.get("PULSELINE_DATA", Path(__file__).parents[2] / "shared" / "data"))


def idx(values: np.ndarray[Any, Any]) -> bytes:
    """An idx file of unsigned bytes."""
    head = bytes((0, 0, 8, values.ndim)) + struct.pack(f">{values.ndim}i", *values.shape)
    return head + values.astype(np.uint8).tobytes()


def put(path: Path, data: bytes, packed: bool) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    name = f"{path.name}.gz" if packed else path.name
    (path.parent / name).write_bytes(gzip.compress(data) if packed else data)


def write_idx(root: Path, packed: bool = False, sizes: tuple[int, int] = (6, 4)) -> list[Any]:
    """The four files; their arrays."""
    random = np.random.default_rng(1)
    arrays = []
    for count in sizes:
        arrays.append(random.integers(0, 256, (count, 5, 7)))
        arrays.append(random.integers(0, 10, count))
    for name, values in zip(IDX_FILES, arrays, strict=True):
        put(root / name, idx(values), packed)
    return arrays


def write_cifar(root: Path, packed: bool = False, batches: int = 5) -> list[Any]:
    """Batches of three images and a test batch; labels and images of each."""
    random = np.random.default_rng(2)
    found = []
    for name in (*CIFAR_FILES[:batches], CIFAR_FILES[-1]):
        labels, images = random.integers(0, 10, 3), random.integers(0, 256, (3, 3, 32, 32))
        rows = np.concatenate([labels[:, None], images.reshape(3, -1)], axis=1)
        put(root / name, rows.astype(np.uint8).tobytes(), packed)
        found.append((labels, images))
    return found


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name", ["mnist", "fashion-mnist", "path", "root"])
def test_idx(tmp_path: Path, packed: bool, name: str) -> None:
    """Below the root in a folder of its name, in the root itself, or by the path."""
    folder = tmp_path / name if name in DATA else tmp_path
    x, y, x_test, y_test = write_idx(folder, packed)
    given = {"path": str(tmp_path), "root": "mnist"}.get(name, name)
    found = load(given, tmp_path)
    assert found.shape == (1, 5, 7)
    assert torch.equal(found.x_train, torch.from_numpy(x).to(torch.uint8)[:, None])
    assert torch.equal(found.x_test, torch.from_numpy(x_test).to(torch.uint8)[:, None])
    assert (found.y_train.tolist(), found.y_test.tolist()) == (y.tolist(), y_test.tolist())
    assert torch.equal(as_input(found.x_train), found.x_train.float() / 255)
    assert torch.equal(found.flat().shaped().x_train, found.x_train)
    assert found.flat().x_train.shape == (6, 35)
    few = load(given, tmp_path, samples=2, test_samples=3)
    assert torch.equal(few.x_train, found.x_train[:2])
    assert torch.equal(few.y_test, found.y_test[:3])


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("inner", ["", "cifar-10-batches-bin"])
@pytest.mark.parametrize("batches", [1, 5])
def test_cifar(tmp_path: Path, packed: bool, inner: str, batches: int) -> None:
    parts = write_cifar(tmp_path / "cifar10" / inner, packed, batches)
    for found in (load("cifar10", tmp_path), load(str(tmp_path / "cifar10"))):
        assert found.shape == (3, 32, 32)
        x = np.concatenate([images for _, images in parts[:-1]])
        assert torch.equal(found.x_train, torch.from_numpy(x).to(torch.uint8))
        assert found.y_train.tolist() == [int(n) for labels, _ in parts[:-1] for n in labels]
        assert torch.equal(found.x_test, torch.from_numpy(parts[-1][1]).to(torch.uint8))
        assert found.y_test.tolist() == parts[-1][0].tolist()
    assert len(load("cifar10", tmp_path, samples=2, test_samples=1).x_train) == 2


@pytest.mark.parametrize("packed", [False, True])
def test_text(tmp_path: Path, packed: bool) -> None:
    """Every byte of a part is the target of the one before it, in samples that do not overlap."""
    text = bytes(range(256)) * 4 + b"the end"
    put(tmp_path / "text" / "tinyshakespeare.txt", text, False)
    put(tmp_path / "own.txt", text, packed)
    path = tmp_path / ("own.txt.gz" if packed else "own.txt")
    for found in (load("text", tmp_path, context=10), load(str(path), context=10)):
        cut = int(0.9 * len(text))
        for x, y, part in (
            (found.x_train, found.y_train, text[:cut]),
            (found.x_test, found.y_test, text[cut:]),
        ):
            whole = (len(part) - 1) // 10 * 10
            assert bytes(x.flatten().tolist()) == part[:whole]
            assert bytes(y.flatten().tolist()) == part[1 : whole + 1]
        assert (found.shape, found.classes, found.is_text) == ((10,), 256, True)
        assert [name for name, _ in found.references] == ["unigram", "bigram", "trigram", "4-gram"]
    assert load(str(path), context=10, samples=3, test_samples=2).x_train.shape == (3, 10)


def test_ngrams_against_counting_by_hand() -> None:
    """Witten-Bell, in dictionaries, one byte after the other."""
    random = np.random.default_rng(3)
    train, test = random.integers(97, 101, 300), random.integers(96, 102, 80)

    def probability(context: tuple[int, ...], byte: int, n: int) -> float:
        if n == 0:
            return 1 / 256
        context = context[len(context) - n + 1 :]
        follow: dict[int, int] = {}
        for at in range(n - 1, len(train)):
            if tuple(train[at - n + 1 : at]) == context:
                follow[int(train[at])] = follow.get(int(train[at]), 0) + 1
        shorter = probability(context, byte, n - 1)
        if not follow:
            return shorter
        total = sum(follow.values())
        return (follow.get(byte, 0) + len(follow) * shorter) / (total + len(follow))

    for n, got in enumerate(ngrams(train, test, 3), start=1):
        nats = [
            -math.log(probability(tuple(test[max(0, at - n + 1) : at]), int(test[at]), n))
            for at in range(n - 1, len(test))
        ]
        # sums of 80 numbers in double precision
        assert got == pytest.approx(sum(nats) / len(nats), rel=1e-12)


def test_digits_are_images_or_vectors() -> None:
    found, plain = load("digits", samples=100, test_samples=50), load_digits(100)
    assert found.x_train.shape == (100, 1, 8, 8)
    assert torch.equal(found.flat().x_train, plain.x_train)
    assert torch.equal(found.x_test.flatten(1), plain.x_test[:50])


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("mnist", "train-images-idx3-ubyte is missing, with and without .gz; the four idx files"),
        ("fashion-mnist", "come from https://github.com/zalandoresearch/fashion-mnist"),
        ("cifar10", "data_batch_1.bin is missing, .* cifar-10-binary.tar.gz of https"),
        ("text", "tinyshakespeare.txt is missing; it is https://raw"),
        ("nothing", "data is 'nothing'; use one of digits, mnist, fashion-mnist, cifar10, text, a"),
    ],
)
def test_missing_files_are_named_with_their_origin(tmp_path: Path, name: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        load(name, tmp_path)


def test_damaged_files_are_named(tmp_path: Path) -> None:
    write_idx(tmp_path)
    images, labels = (tmp_path / name for name in IDX_FILES[:2])
    whole = images.read_bytes()
    for data, told in (
        (whole[:-1], "has 209 values of 6 x 5 x 7; get it again"),
        (b"\0\0\x0d" + whole[3:], "begins with '00 00 0d 03', no idx file of 3 dimensions"),
        (whole[:6], "begins with '00 00 08 03', no idx file"),
        (b"", "begins with '', no idx file"),
    ):
        images.write_bytes(data)
        with pytest.raises(ConfigError, match=told):
            load(str(tmp_path))
    images.write_bytes(whole)
    labels.write_bytes(idx(np.arange(5)))
    with pytest.raises(ConfigError, match=r"has 6 images and .* 5; get them again"):
        load(str(tmp_path))
    packed = tmp_path / "broken.gz"
    packed.write_bytes(gzip.compress(whole)[:-9])
    with pytest.raises(ConfigError, match=r"broken\.gz is damaged .*; get it again"):
        read_idx(packed, 3)
    write_cifar(tmp_path / "c")
    first = tmp_path / "c" / CIFAR_FILES[0]
    first.write_bytes(first.read_bytes()[:-1])
    with pytest.raises(ConfigError, match="has 9218 bytes, no multiple of 3073; use the binary"):
        load(str(tmp_path / "c"))
    first.write_bytes(bytes([77]) * 3073)
    with pytest.raises(ConfigError, match="has label 77 of ten"):
        load(str(tmp_path / "c"))


def test_more_than_there_is(tmp_path: Path) -> None:
    write_idx(tmp_path)
    with pytest.raises(ConfigError, match="samples is 7; use at most the 6 training samples"):
        load(str(tmp_path), samples=7)
    with pytest.raises(ConfigError, match="test_samples is 5; use at most the 4 test samples"):
        load(str(tmp_path), test_samples=5)
    (tmp_path / "short.txt").write_bytes(b"ab")
    with pytest.raises(ConfigError, match="has 2 bytes, too few for samples of 128; use a longer"):
        load_text(tmp_path / "short.txt")


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist", "text"])
def test_real_data(name: str) -> None:
    if not (REAL / name).is_dir():
        pytest.skip(f"no {name} at hand (PULSELINE_DATA names the directory of the data)")
    found = load(name, REAL)
    if name == "text":
        assert len(found.x_train) == (int(0.9 * 1_115_394) - 1) // 128
        # counted by other means, published to three digits with another smoothing
        for (_, nats), line in zip(found.references, (3.347, 2.485, 2.050, 1.777), strict=True):
            assert nats == pytest.approx(line, abs=0.004)
        return
    assert (found.x_train.shape, found.x_test.shape) == ((60000, 1, 28, 28), (10000, 1, 28, 28))
    assert found.y_train.bincount().sum() == 60000
    assert found.y_test.unique().tolist() == list(range(10))

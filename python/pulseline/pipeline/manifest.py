"""Files of a checkpoint: their names, how they get onto the disk whole, how a manifest is read.

The first line of a manifest, which is JSON, is the sha256 of all bytes that follow. Nothing is
interpreted before that is right: whatever happened to a file, it is one sentence and no more.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import secrets
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from .. import ops
from ..errors import BackendError, ConfigError, os_failure
from ..schedules.planner import KEPT

__all__ = [
    "FORMAT",
    "Damaged",
    "content_of",
    "is_count",
    "leftovers",
    "manifest_path",
    "read",
    "sealed",
    "shard_path",
    "steps",
    "write",
]

FORMAT = 4
_KIND = "pulseline checkpoint"
_HEAD = re.compile(rb'\{"sha256": "([0-9a-f]{64})",')
_HEAD_SIZE = len('{"sha256": "') + 64 + len('",')
_FILE = re.compile(
    r"checkpoint-(?P<step>[0-9]{6,})(-stage(?P<stage>[0-9]+)\.pt|\.json)(?P<temporary>\.[0-9a-f]{16}\.tmp)?"
)


class Damaged(Exception):
    """A file is incomplete; an older checkpoint may do."""


# ---- names ----


def steps(directory: str | Path) -> list[int]:
    """Steps of the manifests in a directory, newest first, complete or not.

    Args:
        directory: of the checkpoints; there are none in one that does not exist.

    Raises:
        ConfigError: it cannot be read.
    """
    found = []
    for name in _names(Path(directory)):
        parts = _FILE.fullmatch(name)
        if parts and not parts["temporary"] and parts["stage"] is None:
            found.append(int(parts["step"]))
    return sorted(found, reverse=True)


def _names(root: Path) -> list[str]:
    try:
        return [name for name in os.listdir(root) if _is_canonical(name)]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise os_failure(f"{root} cannot be read", error) from None
    except ValueError as error:  # a null byte
        raise ConfigError(f"{str(root)!r} cannot be a directory ({error}); use another") from None


def _is_canonical(name: str) -> bool:
    """Whether a file has a name that we give; 0000001 is another spelling of 000001."""
    parts = _FILE.fullmatch(name)
    return parts is not None and f"{int(parts['step']):06d}" == parts["step"]


def manifest_path(root: Path, step: int) -> Path:
    """Where the manifest of a checkpoint is.

    Args:
        root: directory. step: of the checkpoint.
    """
    return root / f"checkpoint-{step:06d}.json"


def shard_path(root: Path, step: int, stage: int) -> Path:
    """Where the state of a stage is.

    Args:
        root: directory. step: of the checkpoint. stage: from 1.
    """
    return root / f"checkpoint-{step:06d}-stage{stage}.pt"


def leftovers(root: Path, owned: Collection[int], kept: Collection[int]) -> list[Path]:
    """What a process that was killed left: temporary files, shards without a manifest.

    Args:
        root: directory. owned: stages whose files are looked at; 0: manifests.
        kept: steps that have a manifest.
    """
    found = []
    for name in _names(root):
        parts = _FILE.fullmatch(name)
        assert parts is not None
        stage = int(parts["stage"] or 0)
        lost = stage > 0 and int(parts["step"]) not in kept
        if stage in owned and (parts["temporary"] or lost):
            found.append(root / name)
    return found


# ---- writing ----


def write(path: Path, data: bytes) -> None:
    """All of the file or nothing: temporary name, fsync, rename, fsync of the directory.

    The temporary name is random and must not exist, as a link neither.

    Args:
        path: of the file. data: all of it.

    Raises:
        BackendError: it cannot be written.
    """
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
        handle = os.open(temporary, flags | getattr(os, "O_NOFOLLOW", 0), 0o666)
        with open(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        if os.name == "posix":
            handle = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise BackendError(
            f"{path} cannot be written ({error.strerror}); use another directory"
        ) from None


def sealed(content: Mapping[str, Any]) -> bytes:
    """A manifest's text: the sha256 of the rest, kind, format, draw numbering, the content."""
    head = {"kind": _KIND, "format": FORMAT, "numbering": ops.NUMBERING}
    rest = json.dumps({**head, **content}, indent=1)[1:].encode() + b"\n"
    return b'{"sha256": "%s",' % hashlib.sha256(rest).hexdigest().encode() + rest


# ---- reading ----


def content_of(path: Path) -> bytes:
    """All bytes of a file.

    Raises:
        Damaged: it cannot be read, or is no file.
    """
    try:
        if not path.is_file():  # to open a pipe is to wait for somebody who writes
            raise Damaged(f"{path.name} cannot be read (no such file)")
        return path.read_bytes()
    except OSError as error:
        raise Damaged(f"{path.name} cannot be read ({error.strerror})") from None


def read(path: Path, step: int) -> dict[str, Any]:
    """A manifest's content.

    Args:
        path: of the file. step: of the checkpoint.

    Raises:
        Damaged: a byte of it is wrong.
        ConfigError: this version of pulseline did not write it.
    """
    data = content_of(path)
    head = _HEAD.fullmatch(data[:_HEAD_SIZE])
    if not head or head[1].decode() != hashlib.sha256(data[_HEAD_SIZE:]).hexdigest():
        raise Damaged(f"{path.name} is damaged")
    try:
        body = json.loads(data)
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict) or body.get("kind") != _KIND:
        raise ConfigError(f"{path} is no checkpoint of pulseline; use another directory")
    form, numbering = body.get("format"), body.get("numbering")
    if form != FORMAT or numbering != ops.NUMBERING:
        raise ConfigError(
            f"{path} has format {form!r:.60} and draw numbering {numbering!r:.60}, this version of "
            f"pulseline reads {FORMAT} and {ops.NUMBERING}; use the version that wrote it"
        )
    for name, holds in _FIELDS.items():
        if name not in body or not holds(body[name]) or (name == "step" and body[name] != step):
            raise ConfigError(
                f"{path} has {name} = {body.get(name)!r:.60}, which pulseline does not write; "
                "delete it, or use another directory"
            )
    return body


def is_count(value: object) -> bool:
    """Whether a value that was read is a whole number from 0 on that fits in 63 bits."""
    return type(value) is int and 0 <= value < 1 << 63


def _is_mapping(value: object) -> bool:
    return isinstance(value, dict)


def _is_seed(value: object) -> bool:
    return type(value) is int and -(1 << 63) <= value < 1 << 64


def _are_shards(value: object) -> bool:
    return isinstance(value, dict) and all(
        isinstance(sha, str) and re.fullmatch("[0-9a-f]{64}", sha) for sha in value.values()
    )


def _are_segments(value: object) -> bool:
    """[how often, micro-batches, clock cycles] of segments that follow each other."""
    return (
        isinstance(value, list)
        and all(isinstance(one, list) and len(one) == 3 for one in value)
        and all(is_count(number) for one in value for number in one)
        and sum(one[0] for one in value) <= KEPT
    )


_FIELDS: dict[str, Callable[[Any], bool]] = {
    "step": is_count,
    "run": _is_mapping,
    "config": _is_mapping,
    "model": _is_mapping,
    "seeds": _is_mapping,
    "state": _is_mapping,
    "shards": _are_shards,
    "micro_batches": is_count,
    "cycles": is_count,
    "segments": _are_segments,
    "seed": _is_seed,
}

"""Files of a checkpoint: their names, how they get onto the disk whole, how a manifest is read."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .. import ops
from ..errors import BackendError, ConfigError

__all__ = ["FORMAT", "Damaged", "manifest_path", "read", "sealed", "shard_path", "steps", "write"]

FORMAT = 3
_KIND = "pulseline checkpoint"
_NAME = re.compile(r"checkpoint-(\d{6,})\.json")


class Damaged(Exception):
    """A file is incomplete; an older checkpoint may do."""


def steps(directory: str | Path) -> list[int]:
    """Steps of the manifests in ``directory``, newest first, complete or not."""
    root = Path(directory)
    if not root.is_dir():
        return []
    names = (_NAME.fullmatch(path.name) for path in root.iterdir())
    return sorted((int(name[1]) for name in names if name), reverse=True)


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


def write(path: Path, data: bytes) -> None:
    """All of the file or nothing: temporary name, fsync, rename, fsync of the directory.

    Args:
        path: of the file. data: all of it.

    Raises:
        BackendError: it cannot be written.
    """
    temporary = path.with_name(path.name + ".tmp")
    try:
        with temporary.open("wb") as file:
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
        raise BackendError(
            f"checkpoint {path} cannot be written ({error.strerror}); use another directory"
        ) from None


def _sha_of(body: Mapping[str, Any]) -> str:
    text = json.dumps({k: v for k, v in body.items() if k != "sha256"}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def sealed(content: Mapping[str, Any]) -> bytes:
    """A manifest's text: kind, format, draw numbering, the content, and its sha256."""
    head = {"kind": _KIND, "format": FORMAT, "numbering": ops.NUMBERING}
    body = {**head, **content}
    return (json.dumps({**body, "sha256": _sha_of(body)}, indent=1) + "\n").encode()


def read(path: Path) -> dict[str, Any]:
    """A manifest's content.

    Raises:
        Damaged: it is incomplete.
        ConfigError: this version of pulseline did not write it.
    """
    try:
        body = json.loads(path.read_bytes())
    except (OSError, ValueError):
        raise Damaged(f"{path.name} is damaged") from None
    if not isinstance(body, dict) or body.get("kind") != _KIND:
        raise ConfigError(f"{path} is no checkpoint of pulseline; use another directory")
    form, numbering = body.get("format"), body.get("numbering")
    if form != FORMAT or numbering != ops.NUMBERING:
        raise ConfigError(
            f"{path} has format {form} and draw numbering {numbering}, this version of pulseline "
            f"reads {FORMAT} and {ops.NUMBERING}; use the version that wrote it"
        )
    if body.get("sha256") != _sha_of(body):
        raise Damaged(f"{path.name} is damaged")
    return body

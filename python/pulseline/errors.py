"""The exceptions that pulseline raises on purpose; each message is one sentence with a remedy."""

from __future__ import annotations

import errno

__all__ = ["BackendError", "ConfigError", "StageFailed", "os_failure", "require"]

# What no other argument would help against.
_OF_THE_DISK = {
    getattr(errno, name, 0) for name in ("ENOSPC", "EDQUOT", "EFBIG", "EIO", "EROFS", "EMFILE")
}


class ConfigError(ValueError):
    """An argument or a configuration is wrong; nothing was changed."""


class BackendError(RuntimeError):
    """A kernel is missing, cannot run here, or reported a failure; or a disk did."""


class StageFailed(RuntimeError):
    """A pipeline stage stopped.

    Args:
        stage: from 1. op: "F", "B" or "U", or "flush", "eval". k: micro-batch, -1: of none.
        reason: what went wrong.
    """

    def __init__(self, stage: int, op: str, k: int, reason: str) -> None:
        name = f"{op}{k}" if k >= 0 else op
        super().__init__(f"stage {stage} failed at operation {name}: {reason}")
        self.stage = stage
        self.op = op
        self.k = k
        self.reason = reason

    def __reduce__(self) -> tuple[type[StageFailed], tuple[int, str, int, str]]:
        return type(self), (self.stage, self.op, self.k, self.reason)


def os_failure(
    sentence: str, error: OSError, remedy: str = "use another directory"
) -> ConfigError | BackendError:
    """What to raise where the system refuses a file.

    Args:
        sentence: what cannot be done, with the path. error: of the system.
        remedy: the end of the sentence.

    Returns:
        BackendError where the disk is full, read-only or broken, else ConfigError.
    """
    kind = BackendError if error.errno in _OF_THE_DISK else ConfigError
    return kind(f"{sentence} ({error.strerror or error}); {remedy}")


def require(condition: bool, owner: object, field: str, fix: str) -> None:
    """Refuse a value of a settings object.

    Args:
        condition: what holds if the value is right. owner: the settings. field: its name there.
        fix: what to use instead, the end of the sentence.

    Raises:
        ConfigError: the condition does not hold.
    """
    if not condition:
        value = getattr(owner, field)
        raise ConfigError(f"{type(owner).__name__}: {field} is {value!r}; {fix}")

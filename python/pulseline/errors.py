"""The exceptions that pulseline raises on purpose; each message is one sentence with a remedy."""

from __future__ import annotations

__all__ = ["BackendError", "ConfigError", "StageFailed", "require"]


class ConfigError(ValueError):
    """An argument or a configuration is wrong; nothing was changed."""


class BackendError(RuntimeError):
    """A compiled kernel is missing, cannot run here, or reported a failure."""


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

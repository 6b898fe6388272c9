"""The exceptions that pulseline raises on purpose; each message is one sentence with a remedy."""

from __future__ import annotations

__all__ = ["BackendError", "ConfigError", "StageFailed", "require"]


class ConfigError(ValueError):
    """An argument or a configuration is wrong; nothing was changed."""


class BackendError(RuntimeError):
    """A compiled kernel is missing, cannot run here, or reported a failure."""


class StageFailed(RuntimeError):
    """A pipeline stage stopped; says which stage, operation and micro-batch, and why."""

    def __init__(self, stage: int, op: str, k: int, reason: str) -> None:
        super().__init__(f"stage {stage} failed at operation {op}{k}: {reason}")
        self.stage = stage
        self.op = op
        self.k = k
        self.reason = reason

    def __reduce__(self) -> tuple[type[StageFailed], tuple[int, str, int, str]]:
        return type(self), (self.stage, self.op, self.k, self.reason)


def require(condition: bool, owner: object, field: str, fix: str) -> None:
    """Raise a ConfigError that names the field of a settings object, its value and the remedy."""
    if not condition:
        value = getattr(owner, field)
        raise ConfigError(f"{type(owner).__name__}: {field} is {value!r}; {fix}")

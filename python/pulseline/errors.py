"""The exceptions that pulseline raises on purpose; each message is one sentence with a remedy."""

from __future__ import annotations


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

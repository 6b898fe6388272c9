"""Saving: what a cell saves beside its tensors, and what it refuses to take over."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from ..errors import ConfigError
from ..identity import Identity
from ..ops import refuse_traced

__all__ = ["Saving", "check_entry"]


class Saving(nn.Module):
    """States of a cell, a torch.nn.Module with arrays.

    Attributes:
        arrays, samples, progress: see :class:`pulseline.Cell`.
    """

    arrays: Any
    samples: int
    progress: dict[str, int | float]
    array: Any
    _identity: Identity

    @property
    def algorithm(self) -> str:
        """Its name: a state of another is refused."""
        return type(self).__name__

    def settings(self) -> Mapping[str, Any]:
        """What an algorithm was made with, as plain values: a state of others is refused."""
        return {}

    def __prepare_scriptable__(self) -> NoReturn:  # what torch.jit.script asks of every module
        refuse_traced("an analog layer is compiled by torch.jit.script")

    def get_extra_state(self) -> dict[str, Any]:
        """Algorithm, its settings and count, and the state of every array."""
        if torch.onnx.is_in_onnx_export():  # which would take this for a tensor
            refuse_traced("an analog layer is exported to ONNX")
        return {
            "algorithm": self.algorithm,
            "settings": dict(self.settings()),
            "samples": self.samples,
            "progress": dict(self.progress),
            "arrays": [array.state() for array in self.arrays],
        }

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Take over count and arrays of :meth:`get_extra_state`; what is pending stays pending.

        Raises:
            ConfigError: see :meth:`check_state`; nothing is changed.
        """
        self._check_extra_state(state, "cell")
        self.samples = state["samples"]
        self.progress.update(state.get("progress", {}))
        for array, saved in zip(self.arrays, state["arrays"], strict=True):
            array.load_state(saved)
        self._identity = replace(self.array.identity, array=0)

    def _check_extra_state(self, state: object, name: str) -> None:
        if not isinstance(state, dict) or "arrays" not in state:
            raise ConfigError(f"{name}: a {type(state).__name__} is no cell's state; load another")
        settings = state.get("settings")
        found = {"algorithm": state.get("algorithm")}
        found |= settings if isinstance(settings, dict) else {"settings": settings}
        own = {"algorithm": self.algorithm, **self.settings()}
        for field in (*own, *found):
            if found.get(field) != own.get(field):
                raise ConfigError(
                    f"{name}: {field} was saved as {found.get(field)!r:.60} and is "
                    f"{own.get(field)!r:.60} here; build the model as it was when saved"
                )
        self._check_progress(state.get("progress", self.progress), name)
        samples, arrays = state.get("samples"), state["arrays"]
        if type(samples) is not int or samples < 0 or not isinstance(arrays, list):
            raise ConfigError(f"{name}: its state has samples = {samples!r:.60}; it is damaged")
        if len(arrays) != len(self.arrays):
            raise ConfigError(
                f"{name}: its state has {len(arrays)} arrays and this cell {len(self.arrays)}; "
                "build the model as it was when saved"
            )
        for array, saved in zip(self.arrays, arrays, strict=True):
            array.check_state(saved, name)

    def _check_progress(self, found: Any, name: str) -> None:
        ok = isinstance(found, dict) and found.keys() <= self.progress.keys()
        for field, value in found.items() if ok else ():
            ok &= type(value) is type(self.progress[field]) and 0 <= value < math.inf
        if not ok:
            raise ConfigError(
                f"{name}: its state has progress = {found!r:.60}; it is damaged, load another"
            )

    def check_state(self, state: Mapping[str, Any], prefix: str, whole: bool, name: str) -> None:
        """Refuse entries of a state_dict that this cell cannot take over; changes nothing.

        A weight means nothing without its scale and identity, so the entries come together.

        Args:
            state: a state_dict. prefix: of this cell's names in it. name: what users call it.
            whole: False: all entries may be absent.

        Raises:
            ConfigError: an entry is missing, misshapen, not finite, or of another configuration.
        """
        own: dict[str, Tensor | None] = {"_extra_state": None, **self.state_dict(keep_vars=True)}
        own = {name: None if name.endswith("_extra_state") else own[name] for name in own}
        missing = [prefix + name for name in own if prefix + name not in state]
        if missing and (whole or len(missing) < len(own)):
            raise ConfigError(
                f"state lacks {missing[0]}; load the whole state_dict() of an analog model, "
                "or convert a digital one with to_analog"
            )
        if missing:
            return
        for entry, held in own.items():
            value = state[prefix + entry]
            if held is None:
                self._check_extra_state(value, name)
            else:
                check_entry(prefix + entry, value, held)

    def _load_from_state_dict(self, state: dict[str, Any], prefix: str, *rest: Any) -> None:
        self.check_state(state, prefix, False, f"layer {prefix[:-6]}" if prefix[:-5] else "layer")
        super()._load_from_state_dict(state, prefix, *rest)


def check_entry(name: str, value: Any, held: Tensor) -> None:
    """Refuse an entry of a state_dict that a tensor cannot take over.

    Args:
        name: what the message calls it. value: the entry. held: the tensor.

    Raises:
        ConfigError: it has another shape, or is not finite.
    """
    if not isinstance(value, Tensor) or value.shape != held.shape:
        found = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise ConfigError(
            f"state holds {name} of shape {found}; this layer holds {tuple(held.shape)}"
        )
    if not torch.isfinite(value).all():
        raise ConfigError(f"state holds a NaN or an infinity in {name}; load another")

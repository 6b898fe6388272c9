"""Recurrent layers and their cells on crossbars; equations and gates of torch.nn.RNN, LSTM, GRU.

Per layer and direction two matrices, of the inputs and of the state (three with ``proj_size``)::

    RNN   h = tanh(a)                       a = read(W_ih, x) + b_ih + read(W_hh, h) + b_hh
    LSTM  c = f c + i g, h = o tanh(c)      i, f, g, o = sigmoid, sigmoid, tanh, sigmoid of a
    GRU   h = n + z (h - n)                 r, z = sigmoid(a), n = tanh(a_ih + r a_hh)

The order of reads is physics, since noise is numbered by read and pulses follow each other:

- the inputs of all time steps are one read of T x B rows, step by step, in a step sample by sample;
  the reverse direction reads the same rows in the same order,
- the state is one read of B rows per step, in the order in which the direction walks; a sequence of
  a PackedSequence that has ended is not read any more,
- backward passes read and leave updates from the last step walked to the first, and AnalogSGD
  pulses them in that order: the state's matrix T updates of B samples, the inputs' one of T x B.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import PackedSequence

from ..errors import ConfigError
from ..ops import check_tensor
from .composite import Composite

__all__ = [
    "AnalogGRU",
    "AnalogGRUCell",
    "AnalogLSTM",
    "AnalogLSTMCell",
    "AnalogRNN",
    "AnalogRNNCell",
]

_State = tuple[Tensor, ...]  # (h,), or (h, c) of an LSTM


class _Step(Composite):
    """One step of the state: what a recurrent layer and its cell have in common."""

    states = 1  # tensors that one step hands to the next
    bias: bool

    @classmethod
    def layers_of(cls, name: str) -> tuple[str, ...]:
        """``weight_ih_l0`` is the layer ``ih_l0``."""
        return (name.removeprefix("weight_"),) if name.startswith("weight_") else ()

    def _product(self, name: str, x: Tensor) -> Tensor:
        """One of the two products with its bias."""
        y: Tensor = self._modules[name](x)  # type: ignore[misc]
        b = self._parameters.get(f"bias_{name}")
        return y if b is None else y + b

    def _step(self, inputs: Tensor, recurrent: Tensor, state: _State) -> _State:
        """The state behind a step.

        Args:
            inputs, recurrent: products of the gates, (samples, gates x hidden).
            state: before it.
        """
        raise NotImplementedError

    def extra_repr(self) -> str:
        """As torch's."""
        text: str = self.digital.extra_repr(self)
        return text


class _Rnn(_Step):
    nonlinearity: str

    def _step(self, inputs: Tensor, recurrent: Tensor, state: _State) -> _State:
        a = inputs + recurrent
        return (torch.relu(a) if self.nonlinearity == "relu" else torch.tanh(a),)


class _Lstm(_Step):
    states = 2

    def _step(self, inputs: Tensor, recurrent: Tensor, state: _State) -> _State:
        i, f, g, o = (inputs + recurrent).chunk(4, dim=1)
        c = torch.sigmoid(f) * state[1] + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(c), c


class _Gru(_Step):
    def _step(self, inputs: Tensor, recurrent: Tensor, state: _State) -> _State:
        gates = zip(inputs.chunk(3, dim=1), recurrent.chunk(3, dim=1), strict=True)
        (ri, rh), (zi, zh), (ni, nh) = gates
        n = torch.tanh(ni + torch.sigmoid(ri + rh) * nh)
        return (n + torch.sigmoid(zi + zh) * (state[0] - n),)


# ---- cells: one step ----


class _OneStep(_Step):
    input_size: int
    hidden_size: int

    def _run(self, x: Tensor, hx: Any) -> _State:
        check_tensor(x)
        if x.dim() not in (1, 2) or x.shape[-1] != self.input_size:
            raise ConfigError(f"x has shape {tuple(x.shape)}; use (samples, {self.input_size})")
        rows = x if x.dim() == 2 else x.unsqueeze(0)
        given = (hx,) if isinstance(hx, Tensor) else hx
        if given is None:
            given = (rows.new_zeros(len(rows), self.hidden_size),) * self.states
        shape = (*x.shape[:-1], self.hidden_size)
        _check_state(given, self.states, None if hx is None else shape)
        state: _State = tuple(one.reshape(len(rows), self.hidden_size) for one in given)
        made = self._step(self._product("ih", rows), self._product("hh", state[0]), state)
        return made if x.dim() == 2 else tuple(one.squeeze(0) for one in made)


class AnalogRNNCell(_OneStep, _Rnn):
    """torch.nn.RNNCell on two crossbars, see :mod:`pulseline.nn.recurrent`.

    Args and shapes as torch's; crossbars as of :class:`pulseline.nn.Composite`.
    """

    digital = nn.RNNCell
    names = ("input_size", "hidden_size", "bias", "nonlinearity")

    def forward(self, x: Tensor, hx: Tensor | None = None) -> Tensor:
        return self._run(x, hx)[0]


class AnalogGRUCell(_OneStep, _Gru):
    """torch.nn.GRUCell on two crossbars, see :mod:`pulseline.nn.recurrent`.

    Args and shapes as torch's; crossbars as of :class:`pulseline.nn.Composite`.
    """

    digital = nn.GRUCell
    names = ("input_size", "hidden_size", "bias")

    def forward(self, x: Tensor, hx: Tensor | None = None) -> Tensor:
        return self._run(x, hx)[0]


class AnalogLSTMCell(_OneStep, _Lstm):
    """torch.nn.LSTMCell on two crossbars, see :mod:`pulseline.nn.recurrent`.

    Args and shapes as torch's; crossbars as of :class:`pulseline.nn.Composite`.
    """

    digital = nn.LSTMCell
    names = ("input_size", "hidden_size", "bias")

    def forward(self, x: Tensor, hx: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, Tensor]:
        h, c = self._run(x, hx)
        return h, c


def _check_state(state: Any, number: int, shape: tuple[int, ...] | None) -> None:
    ok = isinstance(state, (tuple, list)) and len(state) == number
    if not ok or not all(isinstance(one, Tensor) for one in state):
        raise ConfigError(f"hx is {type(state).__name__}; use {number} tensors of shape {shape}")
    for one in state:
        if shape is not None and tuple(one.shape) != shape:
            raise ConfigError(f"hx has shape {tuple(one.shape)}; use {shape}")


# ---- layers: sequences ----


class _Sequence(_Step):
    """All steps of all layers, on rows of one step after the other, as a PackedSequence has them.

    Rows of a step are samples, the longest sequences first, so that fewer of them may follow.
    """

    names: ClassVar[tuple[str, ...]] = (
        *("input_size", "hidden_size", "num_layers", "bias", "batch_first", "dropout"),
        "bidirectional",
    )
    input_size: int
    hidden_size: int
    num_layers: int
    batch_first: bool
    dropout: float
    bidirectional: bool
    proj_size = 0

    def flatten_parameters(self) -> None:
        """Nothing: crossbars are no memory that cuDNN could have in one piece."""

    def forward(self, input: Tensor | PackedSequence, hx: Any = None) -> Any:
        """As torch's, on tensors and on a PackedSequence."""
        if isinstance(input, PackedSequence):
            return self._packed(input, hx)
        check_tensor(input)
        if input.dim() not in (2, 3) or input.shape[-1] != self.input_size:
            shape = "(batch, time," if self.batch_first else "(time, batch,"
            raise ConfigError(
                f"input has shape {tuple(input.shape)}; use {shape} {self.input_size}), or without "
                "batch"
            )
        alone = input.dim() == 2
        steps = input.unsqueeze(1) if alone else input
        if self.batch_first and not alone:
            steps = input.transpose(0, 1)
        length, batch, _ = steps.shape
        if length == 0:
            raise ConfigError("input has 0 time steps; use one or more")
        state = self._initial(hx, batch, input, alone)
        rows, last = self._layers(steps.reshape(length * batch, -1), [batch] * length, state)
        y = rows.view(length, batch, -1)
        if alone:
            return y.squeeze(1), self._returned([one.squeeze(1) for one in last])
        return y.transpose(0, 1) if self.batch_first else y, self._returned(last)

    def _packed(self, packed: PackedSequence, hx: Any) -> Any:
        data, batch_sizes, order, back = packed
        if data.shape[-1] != self.input_size:
            raise ConfigError(f"input has {data.shape[-1]} features; use {self.input_size}")
        sizes: list[int] = batch_sizes.tolist()
        state = self._initial(hx, sizes[0], data, False)
        if hx is not None and order is not None:
            state = tuple(one.index_select(1, order) for one in state)
        rows, last = self._layers(data, sizes, state)
        if back is not None:
            last = [one.index_select(1, back) for one in last]
        return PackedSequence(rows, batch_sizes, order, back), self._returned(last)

    def _returned(self, last: Sequence[Tensor]) -> Any:
        return last[0] if self.states == 1 else tuple(last)

    def _initial(self, hx: Any, batch: int, like: Tensor, alone: bool) -> _State:
        """(layers x directions, batch, size) of every tensor of the state."""
        number = self.num_layers * (2 if self.bidirectional else 1)
        sizes = (self.proj_size or self.hidden_size, self.hidden_size)[: self.states]
        if hx is None:
            return tuple(like.new_zeros(number, batch, size) for size in sizes)
        given = (hx,) if isinstance(hx, Tensor) else hx
        _check_state(given, self.states, None)
        for one, size in zip(given, sizes, strict=True):
            _check_state((one,), 1, (number, size) if alone else (number, batch, size))
        return tuple(one.unsqueeze(1) for one in given) if alone else tuple(given)

    def _layers(self, rows: Tensor, sizes: list[int], state: _State) -> tuple[Tensor, list[Tensor]]:
        """Outputs of the last layer, and the last state of all."""
        ends: list[_State] = []
        for layer in range(self.num_layers):
            outputs = []
            for reverse in (False, True)[: 2 if self.bidirectional else 1]:
                first = tuple(one[len(ends)] for one in state)
                name = f"_l{layer}{'_reverse' if reverse else ''}"
                y, end = self._walk(name, rows, sizes, first)
                outputs.append(y)
                ends.append(end)
            rows = torch.cat(outputs, dim=1) if len(outputs) > 1 else outputs[0]
            if self.dropout and self.training and layer + 1 < self.num_layers:
                rows = functional.dropout(rows, self.dropout)
        return rows, [torch.stack(one) for one in zip(*ends, strict=True)]

    def _walk(
        self, name: str, rows: Tensor, sizes: list[int], first: _State
    ) -> tuple[Tensor, _State]:
        """One layer in one direction: outputs of all rows, and the state behind its last steps."""
        reverse = name.endswith("_reverse")
        steps = self._product("ih" + name, rows).split(sizes)
        walk = range(len(sizes))[::-1] if reverse else range(len(sizes))
        state = tuple(one[: sizes[walk[0]]] for one in first)
        outputs: list[Tensor] = [rows] * len(sizes)
        ended: list[_State] = []
        for t in walk:
            now, size = len(state[0]), sizes[t]
            if size < now:  # sequences end
                ended.append(tuple(one[size:] for one in state))
                state = tuple(one[:size] for one in state)
            elif size > now:  # sequences begin, at their ends
                more = tuple(one[now:size] for one in first)
                state = tuple(map(torch.cat, zip(state, more, strict=True)))
            state = self._step(steps[t], self._product("hh" + name, state[0]), state)
            if self.proj_size:
                state = (self._modules["hr" + name](state[0]), *state[1:])  # type: ignore[misc]
            outputs[t] = state[0]
        if ended:
            state = tuple(map(torch.cat, zip(state, *reversed(ended), strict=True)))
        return torch.cat(outputs), state


class AnalogRNN(_Sequence, _Rnn):
    """torch.nn.RNN on crossbars: options, shapes and PackedSequence as torch's.

    Order of reads and updates: :mod:`pulseline.nn.recurrent`. Crossbars as of
    :class:`pulseline.nn.Composite`.
    """

    digital = nn.RNN
    names = (*_Sequence.names, "nonlinearity")


class AnalogGRU(_Sequence, _Gru):
    """torch.nn.GRU on crossbars: options, shapes and PackedSequence as torch's.

    Order of reads and updates: :mod:`pulseline.nn.recurrent`. Crossbars as of
    :class:`pulseline.nn.Composite`.
    """

    digital = nn.GRU


class AnalogLSTM(_Sequence, _Lstm):
    """torch.nn.LSTM on crossbars: options, ``proj_size``, shapes and PackedSequence as torch's.

    Order of reads and updates: :mod:`pulseline.nn.recurrent`. Crossbars as of
    :class:`pulseline.nn.Composite`.
    """

    digital = nn.LSTM
    names = (*_Sequence.names, "proj_size")

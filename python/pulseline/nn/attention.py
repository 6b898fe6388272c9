"""AnalogMultiheadAttention: four projections on crossbars, scores between them digital.

    q, k, v = read(W_q, query) + b_q, read(W_k, key) + b_k, read(W_v, value) + b_v
    y = read(W_o, softmax(q k^T / sqrt(head_dim) + masks) v) + b_o

Rows are read in the order of the tensors given, as a linear layer reads them: sample by sample with
``batch_first``, else position by position. Query, key and value are three arrays, also where torch
has one parameter for them.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..errors import ConfigError
from ..ops import check_tensor
from .composite import Composite

__all__ = ["AnalogMultiheadAttention"]

_PACKED = ("q_proj", "k_proj", "v_proj")
_SEPARATE = tuple(f"{name}_weight" for name in _PACKED)


class AnalogMultiheadAttention(Composite):
    """torch.nn.MultiheadAttention with ``q_proj``, ``k_proj``, ``v_proj``, ``out_proj`` analog.

    Options, shapes, masks and results as torch's; crossbars as of :class:`pulseline.nn.Composite`.
    Torch's fast path for evaluation, which would read weights behind the layer, is never taken by
    transformer layers, which see a module of separate weights (``in_proj_weight`` is None,
    ``q_proj_weight`` a parameter), nor are its nested tensors: as in training, positions that
    ``src_key_padding_mask`` hides have outputs that nobody attends to, instead of 0. Where masks
    hide all keys from a query it attends to nothing (0, not NaN, which no crossbar reads).
    """

    digital = nn.MultiheadAttention
    names = (
        *("embed_dim", "num_heads", "dropout", "add_zero_attn", "kdim", "vdim", "batch_first"),
        "head_dim",
    )
    aliases = (*_SEPARATE, "in_proj_weight")
    embed_dim: int
    num_heads: int
    head_dim: int
    dropout: float
    add_zero_attn: bool
    batch_first: bool

    @classmethod
    def layers_of(cls, name: str) -> tuple[str, ...]:
        """``in_proj_weight`` holds three."""
        if name == "in_proj_weight":
            return _PACKED
        if name in (*_SEPARATE, "out_proj.weight"):
            return (name[:-7],)
        return ()

    @classmethod
    def options_of(cls, module: Any) -> dict[str, Any]:
        """The arguments that torch's module, or its counterpart, was made with."""
        made = super().options_of(module)
        del made["head_dim"]
        return made | {
            "bias": module.in_proj_bias is not None,
            "add_bias_kv": module.bias_k is not None,
        }

    def _build(self, shell: nn.Module, crossbar: Any, identities: Any) -> None:
        super()._build(shell, crossbar, identities)
        # What torch's transformer layers ask before they read in_proj_weight themselves.
        self._qkv_same_embed_dim = False
        for name in ("in_proj_bias", "bias_k", "bias_v"):
            if name not in self._parameters:
                self.register_parameter(name, None)

    def __getattr__(self, name: str) -> Any:
        if name in _SEPARATE:
            return self._linear(name[:-7]).weight
        return None if name == "in_proj_weight" else super().__getattr__(name)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """As torch's.

        Returns:
            (output, weights of attention or None).

        Raises:
            ConfigError: shapes that do not go together, or ``is_causal`` without ``attn_mask``.
        """
        alone = self._check(query, key, value)
        if is_causal and attn_mask is None:
            raise ConfigError(
                "is_causal says what attn_mask is, and there is none; pass it as well"
            )
        q, k, v = self._projected(query, key, value)
        if alone:
            q, k, v = (one.unsqueeze(0) for one in (q, k, v))
            if key_padding_mask is not None:
                key_padding_mask = key_padding_mask.unsqueeze(0)
        elif not self.batch_first:
            q, k, v = (one.transpose(0, 1) for one in (q, k, v))
        (batch, length, _), keys = q.shape, k.shape[1]
        mask = self._mask((batch, length, keys), key_padding_mask, attn_mask, q.dtype)
        k, v, more = self._extended(k, v)
        if mask is not None and more:
            mask = functional.pad(mask, (0, more))
        q, k, v = (self._heads(one) for one in (q, k, v))
        if self.add_zero_attn:
            zeros = k.new_zeros(batch, self.num_heads, 1, self.head_dim)
            k, v = torch.cat([k, zeros], 2), torch.cat([v, zeros], 2)
        y, weights = self._attend(q, k, v, mask, need_weights)
        y = y.transpose(1, 2).reshape(batch, length, self.embed_dim)
        if not (alone or self.batch_first):
            y = y.transpose(0, 1)
        out = self.out_proj(y.squeeze(0) if alone else y)
        if weights is not None:
            weights = weights.mean(dim=1) if average_attn_weights else weights
            weights = weights.squeeze(0) if alone else weights
        return out, weights

    def _check(self, query: Tensor, key: Tensor, value: Tensor) -> bool:
        """Whether the inputs have no batch."""
        for one in (query, key, value):
            check_tensor(one)
            if one.is_nested:
                raise ConfigError("an input is a nested tensor; use a dense one with a mask")
        shapes = [tuple(one.shape) for one in (query, key, value)]
        many = len(shapes[0]) == 3
        batch = 0 if self.batch_first else 1
        if (
            any(len(shape) != len(shapes[0]) for shape in shapes)
            or len(shapes[0]) not in (2, 3)
            or shapes[1][:-1] != shapes[2][:-1]
            or (many and shapes[0][batch] != shapes[1][batch])
        ):
            raise ConfigError(
                f"query, key and value have shapes {shapes[0]}, {shapes[1]} and {shapes[2]}; use "
                "three dimensions, or two without batch, key and value of one length"
            )
        return not many

    def _projected(self, query: Tensor, key: Tensor, value: Tensor) -> list[Tensor]:
        biases: Any = (None, None, None)
        if self.in_proj_bias is not None:
            biases = self.in_proj_bias.chunk(3)
        made = []
        for name, x, b in zip(_PACKED, (query, key, value), biases, strict=True):
            y: Tensor = self._modules[name](x)  # type: ignore[misc]
            made.append(y if b is None else y + b)
        return made

    def _extended(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, int]:
        """Keys and values with ``bias_k`` and ``bias_v``, and how many zeros and they add."""
        more = int(self.add_zero_attn)
        if self.bias_k is None or self.bias_v is None:
            return k, v, more
        shape = (len(k), 1, self.embed_dim)
        k = torch.cat([k, self.bias_k.expand(shape)], dim=1)
        v = torch.cat([v, self.bias_v.expand(shape)], dim=1)
        return k, v, more + 1

    def _mask(
        self,
        shape: tuple[int, int, int],
        padding: Tensor | None,
        attn_mask: Tensor | None,
        dtype: torch.dtype,
    ) -> Tensor | None:
        """What is added to scores: (samples or 1, heads or 1, queries or 1, keys)."""
        batch, length, keys = shape
        made = None
        if attn_mask is not None:
            shapes = ((length, keys), (batch * self.num_heads, length, keys))
            if tuple(attn_mask.shape) not in shapes:
                raise ConfigError(
                    f"attn_mask has shape {tuple(attn_mask.shape)}; use {shapes[0]} or {shapes[1]}"
                )
            two = attn_mask.dim() == 2
            heads = (1, 1) if two else (batch, self.num_heads)
            made = _additive("attn_mask", attn_mask, dtype).view(*heads, length, keys)
        if padding is not None:
            if tuple(padding.shape) != (batch, keys):
                raise ConfigError(
                    f"key_padding_mask has shape {tuple(padding.shape)}; use {(batch, keys)}"
                )
            hidden = _additive("key_padding_mask", padding, dtype).view(batch, 1, 1, keys)
            made = hidden if made is None else made + hidden
        return made

    def _heads(self, x: Tensor) -> Tensor:
        """(samples, heads, positions, head_dim)."""
        return x.view(*x.shape[:2], self.num_heads, self.head_dim).transpose(1, 2)

    def _attend(
        self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, need_weights: bool
    ) -> tuple[Tensor, Tensor | None]:
        dropped = self.dropout if self.training else 0.0
        if not need_weights:
            y = functional.scaled_dot_product_attention(q, k, v, mask, dropped)
            return y, None
        scores = (q * math.sqrt(1.0 / self.head_dim)) @ k.transpose(-2, -1)
        weights = torch.softmax(scores, dim=-1) if mask is None else _softmax(scores + mask)
        if dropped:
            weights = functional.dropout(weights, dropped)
        return weights @ v, weights


def _softmax(scores: Tensor) -> Tensor:
    """Softmax that is 0 where nothing may be attended to."""
    hidden = scores.amax(dim=-1, keepdim=True) == -math.inf
    return torch.softmax(scores.masked_fill(hidden, 0.0), dim=-1).masked_fill(hidden, 0.0)


def _additive(name: str, mask: Tensor, dtype: torch.dtype) -> Tensor:
    """A mask to be added; True hides."""
    if mask.dtype is torch.bool:
        return torch.zeros_like(mask, dtype=dtype).masked_fill_(mask, -math.inf)
    if not mask.is_floating_point():
        raise ConfigError(f"{name} is {mask.dtype}; use bool or floating point")
    return mask

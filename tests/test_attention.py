"""Attention and transformer layers: torch's numbers on the oracle, noise elsewhere, no fast path.

Tolerance of the oracle. Inputs are within 2, weights within 1, sums have at most 8 products and a
softmax of 6 scores; layer norms divide by a deviation above 1/4. A projection rounds numbers below
8 about 10 times, 10 * 8 * 2^-24 were all to add up; random signs count sqrt(10) of them: 2^-19.3.
The four products of attention and the two behind it hand on at most 4 times what comes in:
6 * 4 * 2^-19.3 < 2^-14.7 is what atol allows in a block, a quarter of it without norms.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import pulseline as pl
from pulseline.errors import ConfigError
from twin_modules import NOISY, ORACLE, numbers, same_as_torch

BLOCK = 2.0**-14.7
BATCH, TARGETS, SOURCES, WIDTH, HEADS = 2, 3, 4, 8, 2
PARTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "no bias": {"bias": False},
    "other sizes": {"kdim": 5, "vdim": 7},
    "bias_kv": {"add_bias_kv": True},
    "zero attention": {"add_zero_attn": True},
    "all": {"kdim": 5, "vdim": 7, "add_bias_kv": True, "add_zero_attn": True, "bias": False},
    "dropout": {"dropout": 0.3},
}
PADDED = torch.tensor([[0, 0, 0, 1], [0, 1, 1, 1]]).bool()
CAUSAL = torch.ones(TARGETS, SOURCES, dtype=torch.bool).triu(1)
MASKS: dict[str, dict[str, Any]] = {
    "none": {},
    "causal": {"attn_mask": CAUSAL},
    "padding": {"key_padding_mask": PADDED},
    "both": {"attn_mask": CAUSAL, "key_padding_mask": PADDED},
    "added": {"attn_mask": numbers(TARGETS, SOURCES, seed=8)},
    "each head": {"attn_mask": numbers(BATCH * HEADS, TARGETS, SOURCES, seed=9)},
    "hint": {"attn_mask": CAUSAL, "is_causal": True},
}


def made(**options: Any) -> nn.MultiheadAttention:
    torch.manual_seed(1)
    return nn.MultiheadAttention(WIDTH, HEADS, **options)


def tensors(module: nn.MultiheadAttention, batch_first: bool) -> tuple[Tensor, ...]:
    sizes = ((TARGETS, WIDTH), (SOURCES, module.kdim), (SOURCES, module.vdim))
    made = [numbers(BATCH, *size, seed=n) for n, size in enumerate(sizes)]
    return tuple(made if batch_first else [t.transpose(0, 1).contiguous() for t in made])


@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize("masks", MASKS.values(), ids=MASKS.keys())
@pytest.mark.parametrize("parts", PARTS.values(), ids=PARTS.keys())
@pytest.mark.parametrize("batch_first", [True, False])
def test_attention(
    parts: dict[str, Any], masks: dict[str, Any], need_weights: bool, batch_first: bool
) -> None:
    module = made(batch_first=batch_first, **parts)
    options = {"need_weights": need_weights, **masks}
    if masks.get("is_causal"):  # torch's own hint asks for square scores
        if parts.get("add_bias_kv") or parts.get("add_zero_attn"):
            options["need_weights"] = True  # else torch hides what it has appended itself
        options["attn_mask"] = torch.ones(TARGETS, TARGETS, dtype=torch.bool).triu(1)
        q, k, v = tensors(module, batch_first)
        cut = 1 if batch_first else 0
        arguments = (q, k.narrow(cut, 0, TARGETS), v.narrow(cut, 0, TARGETS))
    else:
        arguments = tensors(module, batch_first)
    same_as_torch(module, arguments, options, BLOCK / 4)


@pytest.mark.parametrize("parts", PARTS.values(), ids=PARTS.keys())
@pytest.mark.parametrize("average", [True, False])
def test_without_batch_and_with_weights_of_each_head(parts: dict[str, Any], average: bool) -> None:
    module = made(**parts)
    alone = tuple(t[0] for t in tensors(module, True))
    same_as_torch(module, alone, {"average_attn_weights": average}, BLOCK / 4)
    padded = {"key_padding_mask": PADDED[0], "average_attn_weights": average}
    same_as_torch(module, alone, padded, BLOCK / 4)
    same_as_torch(module, tensors(module, False), {"average_attn_weights": average}, BLOCK / 4)


def test_a_query_without_keys_attends_to_nothing() -> None:
    analog = pl.to_analog(made(batch_first=True), ORACLE, seed=0)
    hidden = torch.zeros(TARGETS, SOURCES, dtype=torch.bool)
    hidden[1] = True
    inputs = [t.requires_grad_() for t in tensors(made(), True)]
    y, weights = analog(*inputs, attn_mask=hidden)
    assert torch.equal(y[:, 1], analog.out_proj.bias.expand(BATCH, WIDTH))
    assert (weights[:, 1] == 0).all()
    y.sum().backward()
    assert all(torch.isfinite(t.grad).all() for t in inputs if t.grad is not None)


def test_identities_of_the_projections() -> None:
    model = nn.Sequential(nn.Linear(WIDTH, WIDTH), made(add_bias_kv=True), nn.Linear(WIDTH, 2))
    analog = pl.to_analog(model, "ideal", seed=0)
    assert pl.nn.tile_ids(analog) == pl.nn.tile_ids(model)
    ids = [m.identity.tile_id for m in analog.modules() if isinstance(m, pl.Cell)]
    assert ids == [0, 1, 2, 3, 6, 7]  # 4 and 5 are bias_k and bias_v
    own = pl.nn.AnalogMultiheadAttention(WIDTH, HEADS, add_bias_kv=True, seed=3, tile_id=20)
    layers = (own.q_proj, own.k_proj, own.v_proj, own.out_proj)
    assert [one.cell.identity.tile_id for one in layers] == [20, 21, 22, 25]


def test_torch_sees_separate_weights() -> None:
    for options in ({}, {"kdim": 5}):
        analog = pl.to_analog(made(**options), "ideal", seed=0)
        assert analog.in_proj_weight is None
        assert analog.k_proj_weight is analog.k_proj.weight
    with pytest.raises(ConfigError, match=r"in_proj_weight of .* is on crossbars: it cannot be"):
        pl.to_analog(made(), "ideal").in_proj_weight = nn.Parameter(torch.zeros(24, 8))


BAD: dict[str, tuple[Any, str]] = {
    "hint": (lambda m, q: m(q, q, q, is_causal=True), "is_causal says what attn_mask is"),
    "mask": (lambda m, q: m(q, q, q, attn_mask=CAUSAL), r"attn_mask has shape \(3, 4\); use"),
    "padding": (lambda m, q: m(q, q, q, key_padding_mask=CAUSAL), "key_padding_mask has shape"),
    "dtype": (lambda m, q: m(q, q, q, attn_mask=torch.ones(3, 3).int()), "attn_mask is torch.int"),
    "lengths": (lambda m, q: m(q, q, q[:2]), "query, key and value have shapes"),
    "features": (lambda m, q: m(q, q, q[..., :5]), r"x has shape .*; use \(\.\.\., 8\)"),
}


@pytest.mark.parametrize(("call", "words"), BAD.values(), ids=BAD.keys())
def test_bad_input_is_one_sentence(call: Any, words: str) -> None:
    analog = pl.to_analog(made(), ORACLE, seed=0)
    with pytest.raises(ConfigError, match=words) as error:
        call(analog, numbers(TARGETS, BATCH, WIDTH))
    assert "\n" not in str(error.value)


# ---- transformer layers ----


def encoder_layer(**options: Any) -> nn.TransformerEncoderLayer:
    torch.manual_seed(1)
    options = {"dropout": 0.0, "batch_first": True, **options}
    return nn.TransformerEncoderLayer(WIDTH, HEADS, 12, **options)


def decoder_layer(**options: Any) -> nn.TransformerDecoderLayer:
    torch.manual_seed(1)
    options = {"dropout": 0.0, "batch_first": True, **options}
    return nn.TransformerDecoderLayer(WIDTH, HEADS, 12, **options)


@pytest.mark.parametrize("options", [{}, {"norm_first": True}, {"activation": "gelu"}])
def test_layers(options: dict[str, Any]) -> None:
    x, memory = numbers(BATCH, SOURCES, WIDTH), numbers(BATCH, 5, WIDTH, seed=2)
    mask = nn.Transformer.generate_square_subsequent_mask(SOURCES)
    same_as_torch(encoder_layer(**options), (x,), {"src_key_padding_mask": PADDED}, BLOCK)
    same_as_torch(encoder_layer(**options), (x,), {"src_mask": mask, "is_causal": True}, BLOCK)
    same_as_torch(decoder_layer(**options), (x, memory), {"tgt_mask": mask}, 2 * BLOCK)


@pytest.mark.filterwarnings("ignore:enable_nested_tensor")
@pytest.mark.parametrize("batch_first", [True, False])
def test_whole_transformer(batch_first: bool) -> None:
    torch.manual_seed(1)
    model = nn.Transformer(WIDTH, HEADS, 1, 1, 12, dropout=0.0, batch_first=batch_first)
    report = pl.to_analog(model, ORACLE, dry_run=True)
    assert (report.share, report.left) == (1.0, ())
    x, y = numbers(BATCH, SOURCES, WIDTH), numbers(BATCH, TARGETS, WIDTH, seed=2)
    if not batch_first:
        x, y = x.transpose(0, 1).contiguous(), y.transpose(0, 1).contiguous()
    # an encoder, then a decoder of two attentions: three blocks, each behind the other
    analog = same_as_torch(model, (x, y), {"src_key_padding_mask": PADDED}, 3 * BLOCK)
    assert pl.nn.tile_ids(analog) == pl.nn.tile_ids(model)


@contextmanager
def fast_path(enabled: bool) -> Iterator[None]:
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(enabled)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize(
    "keep", [None, "*.self_attn", "*.linear?"], ids=["all", "ffn", "attention"]
)
def test_evaluation_without_torchs_fast_path(frozen: bool, grad: bool, keep: Any) -> None:
    """Every read is made, whatever part of the layers is analog; positions that count are equal."""
    model = nn.TransformerEncoder(encoder_layer(), 2, nn.LayerNorm(WIDTH)).requires_grad_(
        not frozen
    )
    exclude = () if keep is None else keep
    analog = pl.to_analog(model, ORACLE, seed=0, exclude=exclude)
    model.eval()
    analog.eval()
    x = numbers(BATCH, SOURCES, WIDTH)
    seen = ~PADDED
    with fast_path(True), torch.set_grad_enabled(grad):
        got = analog(x, src_key_padding_mask=PADDED)
        fast = model(x, src_key_padding_mask=PADDED)
    with fast_path(False), torch.set_grad_enabled(grad):
        slow = model(x, src_key_padding_mask=PADDED)
    torch.testing.assert_close(got, slow, rtol=0, atol=2 * BLOCK)
    torch.testing.assert_close(got[seen], fast[seen], rtol=0, atol=2 * BLOCK)
    for cell in (m for m in analog.modules() if isinstance(m, pl.Cell)):
        assert cell.counts()[0].evaluation == BATCH * SOURCES


@pytest.mark.parametrize("training", [True, False])
def test_noise_in_every_mode(training: bool) -> None:
    module = encoder_layer().train(training)
    analog = pl.to_analog(module, NOISY, seed=0).train(training)
    x = numbers(BATCH, SOURCES, WIDTH)
    for grad in (True, False):
        with torch.set_grad_enabled(grad):
            first, second = (analog.train(training)(x) for _ in range(2))
            assert (first != module(x)).any()
            assert bool((first != second).any()) == training

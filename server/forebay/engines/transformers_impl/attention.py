"""Attention over the paged cache for a packed batch, in the place of the model's own.

The rows of a step stand one after another in a batch of one, [1, tokens], so that every other layer works without
padding; only attention knows where a row begins. Transformers hands our function what it hands any attention function
(https://huggingface.co/docs/transformers/attention_interface) and passes the plan of the step through.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from forebay.engines.transformers_impl.kv import PagedCache

NAME = "forebay_paged"
PLAN = "forebay_plan"


class Plan(Protocol):
    def attend(
        self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, scale: float | None, extra: dict[str, Any]
    ) -> Tensor:
        """`query`, `key`, `value` are [tokens, heads, dim]; returns [tokens, query heads, value dim]."""


def register() -> None:
    """Make the function known to Transformers under `NAME`; no mask is made for it."""
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, _paged_attention)


def _paged_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **extra: Any,
) -> tuple[Tensor, None]:
    """`query` is [1, heads, tokens, dim], the result [1, tokens, heads, dim]."""
    plan: Plan = extra.pop(PLAN)
    attended = plan.attend(
        module, query[0].transpose(0, 1), key[0].transpose(0, 1), value[0].transpose(0, 1), scaling, extra
    )
    return attended.unsqueeze(0), None


@dataclass(frozen=True, slots=True)
class DecodeGroup:
    """Rows of one token each, the packed tokens `start` to `stop`. `mask` [rows, 1, 1, num_tokens] adds to scores."""

    start: int
    stop: int
    blocks: Tensor
    num_tokens: int
    mask: Tensor | None


@dataclass(frozen=True, slots=True)
class FreshGroup:
    """Rows that begin here: they attend to themselves alone.

    `padded` says which packed token stands at each place of [rows, longest]; None if the rows are equally long. Padding
    comes last in a row, where a causal mask hides it.
    """

    start: int
    stop: int
    num_rows: int
    padded: Tensor | None = None
    unpadded: Tensor | None = None


@dataclass(frozen=True, slots=True)
class ChunkRow:
    """A later chunk of a long prompt: it attends to what is cached and to itself."""

    start: int
    stop: int
    blocks: Tensor
    num_tokens: int
    mask: Tensor


@dataclass(frozen=True, slots=True)
class StepPlan:
    """How the rows of one step attend. `places` are the tokens' places in the cache."""

    cache: PagedCache
    places: Tensor
    decode: list[DecodeGroup] = field(default_factory=list)
    fresh: list[FreshGroup] = field(default_factory=list)
    chunks: list[ChunkRow] = field(default_factory=list)

    def attend(
        self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, scale: float | None, extra: dict[str, Any]
    ) -> Tensor:
        layer: int = module.layer_idx  # type: ignore[assignment]  # nn.Module: every attribute is a tensor or module
        self.cache.write(layer, self.places, key, value)
        attended = query.new_empty((*query.shape[:2], value.shape[-1]))
        for group in self.decode:
            attended[group.start : group.stop] = _decode(
                self.cache, layer, group, query[group.start : group.stop], scale
            )
        for fresh in self.fresh:
            rows = slice(fresh.start, fresh.stop)
            attended[rows] = _fresh(fresh, query[rows], key[rows], value[rows], scale)
        for chunk in self.chunks:
            keys, values = self.cache.read(layer, chunk.blocks, 1, chunk.num_tokens)
            rows = slice(chunk.start, chunk.stop)
            attended[rows] = _attend(query[rows].unsqueeze(0), keys, values, scale, mask=chunk.mask)[0]
        return attended


def _decode(cache: PagedCache, layer: int, group: DecodeGroup, query: Tensor, scale: float | None) -> Tensor:
    num_rows = group.stop - group.start
    keys, values = cache.read(layer, group.blocks, num_rows, group.num_tokens)
    # The query heads that share a key head stand in the place of queries: no repeated keys, one call for all rows.
    grouped = query.reshape(num_rows, keys.shape[1], -1, query.shape[-1])
    attended = scaled_dot_product_attention(grouped, keys, values, attn_mask=group.mask, scale=scale)
    return attended.reshape(num_rows, query.shape[1], values.shape[-1])


def _fresh(group: FreshGroup, query: Tensor, key: Tensor, value: Tensor, scale: float | None) -> Tensor:
    if group.padded is not None:
        query, key, value = (packed.index_select(0, group.padded) for packed in (query, key, value))
    query, key, value = (packed.view(group.num_rows, -1, *packed.shape[1:]) for packed in (query, key, value))
    attended = _attend(query, key.transpose(1, 2), value.transpose(1, 2), scale).flatten(0, 1)
    return attended if group.unpadded is None else attended.index_select(0, group.unpadded)


def _attend(query: Tensor, keys: Tensor, values: Tensor, scale: float | None, mask: Tensor | None = None) -> Tensor:
    """`query` [rows, tokens, heads, dim], `keys` and `values` [rows, key heads, tokens, dim]; causal without a mask."""
    num_sharing = query.shape[2] // keys.shape[1]
    if num_sharing > 1 and not _shares_heads(query.device, mask):
        keys, values = keys.repeat_interleave(num_sharing, 1), values.repeat_interleave(num_sharing, 1)
        num_sharing = 1
    return scaled_dot_product_attention(
        query.transpose(1, 2),
        keys,
        values,
        attn_mask=mask,
        is_causal=mask is None and query.shape[1] > 1,
        scale=scale,
        enable_gqa=num_sharing > 1,
    ).transpose(1, 2)


def _shares_heads(device: torch.device, mask: Tensor | None) -> bool:
    """Whether a fast kernel reads shared key heads as they are; the fall-back would hold all scores in memory."""
    return device.type == "cpu" or (device.type == "cuda" and mask is None)


def lower_right_causal(num_queries: int, num_keys: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """[1, 1, queries, keys], added to scores: the last query sees all keys, each earlier one sees one less."""
    mask = torch.full((num_queries, num_keys), float("-inf"), dtype=dtype, device=device)
    return mask.triu_(num_keys - num_queries + 1)[None, None]

"""Drawing one token a row by inverting the cumulative distribution, with top_k and top_p or without.

A draw takes one uniform number a row instead of noise for the whole vocabulary, so that seeded rows do not depend on
what else is in the batch and no row pays for a generator of its own.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_GROUP = 64
"""Tokens whose probabilities are summed first: a cumulative sum over groups, then within one, is much faster."""

_CANDIDATES = (256, 4096)
"""How many of the most likely tokens are sorted before the whole vocabulary has to be."""


def draw_all(logits: Tensor, uniform: Tensor) -> list[int]:
    """Draw from softmax(`logits`) [rows, vocab] float32; `uniform` [rows, 1] in [0, 1)."""
    num_rows, vocab_size = logits.shape
    probs = torch.nn.functional.pad(logits.softmax(-1), (0, -vocab_size % _GROUP)).view(num_rows, -1, _GROUP)
    group_sums = probs.sum(-1)
    cumulative = group_sums.cumsum(-1)
    target = uniform * cumulative[:, -1:]
    group = _first_above(cumulative, target, group_sums > 0)
    before = torch.where(group > 0, cumulative.gather(1, (group - 1).clamp(min=0)), 0.0)
    inside = probs.gather(1, group.unsqueeze(-1).expand(-1, 1, _GROUP)).squeeze(1)
    token = group * _GROUP + _first_above(inside.cumsum(-1), target - before, inside > 0)
    token_ids: list[int] = token.clamp(max=vocab_size - 1).squeeze(1).tolist()
    return token_ids


def draw_truncated(logits: Tensor, uniform: Tensor, top_k: list[int], top_p: list[float]) -> list[int]:
    """Draw from softmax(`logits`) cut to the `top_k` most likely tokens, and of those to the fewest whose probability
    reaches `top_p` (nucleus sampling, arXiv:1904.09751)."""
    vocab_size = logits.shape[1]
    token_ids = [0] * len(top_k)
    rows = list(range(len(top_k)))
    for num_candidates in (*_CANDIDATES, vocab_size):
        num_candidates = min(num_candidates, vocab_size)
        drawn, enough = _draw_candidates(
            logits[rows], uniform[rows], [top_k[row] for row in rows], [top_p[row] for row in rows], num_candidates
        )
        for row, token_id, is_enough in zip(rows, drawn, enough, strict=True):
            if is_enough:
                token_ids[row] = token_id
        rows = [row for row, is_enough in zip(rows, enough, strict=True) if not is_enough]
        if not rows or num_candidates == vocab_size:
            break
    return token_ids


def _draw_candidates(
    logits: Tensor, uniform: Tensor, top_k: list[int], top_p: list[float], num_candidates: int
) -> tuple[list[int], list[bool]]:
    """Token ids, and whether the `num_candidates` most likely tokens hold all that top_k and top_p keep."""
    device = logits.device
    k = torch.tensor(top_k, device=device).unsqueeze(1)
    p = torch.tensor(top_p, dtype=torch.float32, device=device).unsqueeze(1)
    top, token_ids = logits.topk(num_candidates)
    within_k = torch.arange(num_candidates, device=device) < k
    top = top.masked_fill(~within_k, -math.inf)
    is_k_enough = k <= num_candidates
    total = torch.where(is_k_enough, top.logsumexp(-1, keepdim=True), logits.logsumexp(-1, keepdim=True))
    probs = (top - total).exp()
    cumulative = probs.cumsum(-1)
    is_enough = is_k_enough | ((k >= logits.shape[1]) & (cumulative[:, -1:] >= p))
    kept = torch.where((cumulative - probs < p) | (p >= 1.0), probs, 0.0)
    cumulative = kept.cumsum(-1)
    place = _first_above(cumulative, uniform * cumulative[:, -1:], kept > 0)
    return token_ids.gather(1, place).squeeze(1).tolist(), is_enough.squeeze(1).tolist()


def _first_above(cumulative: Tensor, target: Tensor, possible: Tensor) -> Tensor:
    """The first place [rows, 1] where `cumulative` exceeds `target`, at most the last place that is `possible`.

    Rounding may put `target` at the end of the sum; such a draw must not fall on a token of probability 0.
    """
    last = possible.shape[-1] - 1 - possible.flip(-1).to(torch.int8).max(-1, keepdim=True).indices
    return torch.minimum(torch.searchsorted(cumulative, target, right=True), last)

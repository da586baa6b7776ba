"""Logits to token ids, for a whole batch at once.

Steps and their order as in vLLM's V1 sampler: raw log-probabilities are taken first; then min_tokens and logit_bias,
penalties, the greedy choice; for rows that draw, temperature, min_p, top_k, top_p, and one draw.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence as Rows

import torch
from torch import Tensor

from forebay.engines.transformers_impl.penalties import Penalties, is_penalised
from forebay.engines.transformers_impl.sequence import Sequence
from forebay.engines.transformers_impl.truncation import draw_all, draw_truncated

_LEAST_TEMPERATURE = 0.01
"""Below it softmax overflows; vLLM raises smaller temperatures to it as well."""


class Sampler:
    """Chooses the next token of each row. `logits` are [batch, vocab] on `device`, of any dtype, and left unchanged."""

    def __init__(self, num_slots: int, device: torch.device) -> None:
        self.device = device
        self._penalties = Penalties(num_slots)

    def sample(self, logits: Tensor, sequences: Rows[Sequence]) -> list[int]:
        """One token id for each of `sequences`, which are the rows of `logits`."""
        if all(is_plain_greedy(sequence) for sequence in sequences):
            return greedy(logits)
        logits = logits.to(torch.float32, copy=True)
        self._shape(logits, sequences)
        drawing = [row for row, sequence in enumerate(sequences) if not sequence.sampling.greedy]
        token_ids = greedy(logits) if len(drawing) < len(sequences) else [0] * len(sequences)
        if drawing:
            drawn = self._draw(
                logits if len(drawing) == len(sequences) else logits[drawing], [sequences[row] for row in drawing]
            )
            for row, token_id in zip(drawing, drawn, strict=True):
                token_ids[row] = token_id
        return token_ids

    def _shape(self, logits: Tensor, sequences: Rows[Sequence]) -> None:
        """What may change even the most likely token: min_tokens, logit_bias, penalties. In place."""
        masked = [
            (row, token_id)
            for row, sequence in enumerate(sequences)
            if len(sequence.output_ids) < sequence.sampling.min_tokens
            for token_id in sequence.masked_until_min
        ]
        if masked:
            rows, ids = self._index(masked)
            logits[rows, ids] = -math.inf
        biased = [
            (row, token_id, bias)
            for row, sequence in enumerate(sequences)
            for token_id, bias in sequence.sampling.logit_bias.items()
        ]
        if biased:
            rows, ids = self._index([(row, token_id) for row, token_id, _ in biased])
            logits[rows, ids] += torch.tensor([bias for _, _, bias in biased], device=self.device)
        penalised = [row for row, sequence in enumerate(sequences) if is_penalised(sequence)]
        if penalised:
            self._penalties.apply(logits, penalised, [sequences[row] for row in penalised])

    def _index(self, pairs: list[tuple[int, int]]) -> tuple[Tensor, Tensor]:
        index = torch.tensor(pairs, device=self.device)
        return index[:, 0], index[:, 1]

    def _draw(self, logits: Tensor, sequences: Rows[Sequence]) -> list[int]:
        """One draw a row from `logits` [rows, vocab] float32, changed in place; each row has its own random numbers."""
        sampling = [sequence.sampling for sequence in sequences]
        logits /= self._column([max(s.temperature, _LEAST_TEMPERATURE) for s in sampling])
        if any(s.min_p > 0.0 for s in sampling):
            # p < min_p * max(p) in logits; log(0) = -inf keeps everything.
            margin = self._column([math.log(s.min_p) if s.min_p > 0.0 else -math.inf for s in sampling])
            logits.masked_fill_(logits < logits.amax(-1, keepdim=True) + margin, -math.inf)
        uniform = self._column([sequence.rng.random() for sequence in sequences])
        vocab_size = logits.shape[-1]
        top_k = [min(s.top_k or vocab_size, vocab_size) for s in sampling]
        top_p = [s.top_p for s in sampling]
        truncated = [row for row, (k, p) in enumerate(zip(top_k, top_p, strict=True)) if k < vocab_size or p < 1.0]
        if not truncated:
            return draw_all(logits, uniform)
        token_ids = [0] * len(sequences)
        whole = sorted(set(range(len(sequences))) - set(truncated))
        if whole:
            for row, token_id in zip(whole, draw_all(logits[whole], uniform[whole]), strict=True):
                token_ids[row] = token_id
        drawn = draw_truncated(
            logits[truncated], uniform[truncated], [top_k[row] for row in truncated], [top_p[row] for row in truncated]
        )
        for row, token_id in zip(truncated, drawn, strict=True):
            token_ids[row] = token_id
        return token_ids

    def _column(self, values: list[float]) -> Tensor:
        return torch.tensor(values, dtype=torch.float32, device=self.device).unsqueeze(1)


def greedy(logits: Tensor) -> list[int]:
    """The most likely token of each row, the lowest id of equals. (`max` is several times faster than `argmax`.)"""
    token_ids: list[int] = logits.max(-1).indices.tolist()
    return token_ids


def is_plain_greedy(sequence: Sequence) -> bool:
    """Nothing but the logits decides."""
    sampling = sequence.sampling
    return (
        sampling.greedy
        and not sampling.logit_bias
        and len(sequence.output_ids) >= sampling.min_tokens
        and not is_penalised(sequence)
    )


def random_source(seed: int | None, index: int) -> random.Random:
    """A choice's random numbers: of its own seed (the request's plus its index, as in vLLM), else unpredictable."""
    return random.Random() if seed is None else random.Random(str(seed + index))

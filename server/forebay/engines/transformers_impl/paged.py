"""One forward pass for rows at any stage: decoding, beginning, in the middle of a prompt."""

from __future__ import annotations

from collections.abc import Sequence as Rows
from typing import Any

import numpy as np
import torch
from torch import Tensor

from forebay.engines.transformers_impl.attention import (
    PLAN,
    ChunkRow,
    DecodeGroup,
    FreshGroup,
    StepPlan,
    lower_right_causal,
)
from forebay.engines.transformers_impl.blocks import BLOCK_SIZE
from forebay.engines.transformers_impl.kv import PagedCache
from forebay.engines.transformers_impl.scheduler import ScheduledRow
from forebay.engines.transformers_impl.sequence import Sequence

_ALWAYS_TOGETHER = 256
"""Decoding rows up to this many tokens share one attention call; longer ones with rows of at least half the length."""


class PagedRunner:
    """Packs rows into one call of `model.forward` over a PagedCache."""

    def __init__(self, model: Any, cache: PagedCache, dtype: torch.dtype, device: torch.device) -> None:
        self._model = model
        self._cache = cache
        self._dtype = dtype
        self._device = device

    def run(self, rows: Rows[ScheduledRow]) -> Tensor:
        """Logits [sampling rows, vocab]; see `Runner`."""
        decode = sorted((row for row in rows if row.length == 1), key=_end, reverse=True)
        fresh = sorted((row for row in rows if row.length > 1 and row.start == 0), key=_end, reverse=True)
        chunks = [row for row in rows if row.length > 1 and row.start > 0]
        packed = [*decode, *fresh, *chunks]
        plan = StepPlan(
            self._cache,
            self._tensor(np.concatenate([_places(row) for row in packed])),
            self._decode_groups(decode),
            self._fresh_groups(fresh, len(decode)),
            self._chunk_rows(chunks, sum(row.length for row in decode) + sum(row.length for row in fresh)),
        )
        token_ids = [token for row in packed for token in row.sequence.token_ids(row.start, _end(row))]
        positions = np.concatenate([np.arange(row.start, _end(row)) for row in packed])
        ends = dict(zip(map(id, packed), np.cumsum([row.length for row in packed]).tolist(), strict=True))
        last = [ends[id(row)] - 1 for row in rows if row.samples]
        output = self._model(
            input_ids=torch.tensor([token_ids], device=self._device),
            position_ids=self._tensor(positions).unsqueeze(0),
            use_cache=False,
            logits_to_keep=torch.tensor(last, dtype=torch.long, device=self._device),
            **{PLAN: plan},
        )
        logits: Tensor = output.logits[0]
        return logits

    def copy_prompt(self, leader: Sequence, follower: Sequence) -> None:
        """Copy the block that the prompt ends in, if it ends within one."""
        if leader.num_computed % BLOCK_SIZE:
            place = leader.num_computed // BLOCK_SIZE
            self._cache.copy_block(leader.blocks[place], follower.blocks[place])

    def _decode_groups(self, rows: Rows[ScheduledRow]) -> list[DecodeGroup]:
        """`rows` are sorted by length, longest first."""
        groups = []
        start = 0
        while start < len(rows):
            longest = _end(rows[start])
            least = 0 if longest <= _ALWAYS_TOGETHER else longest // 2
            stop = next((place for place in range(start, len(rows)) if _end(rows[place]) < least), len(rows))
            members = rows[start:stop]
            groups.append(DecodeGroup(start, stop, self._blocks(members), longest, self._mask(members, longest)))
            start = stop
        return groups

    def _mask(self, rows: Rows[ScheduledRow], longest: int) -> Tensor | None:
        """[rows, 1, 1, longest], added to scores; None if the rows are equally long."""
        if _end(rows[-1]) == longest:
            return None
        lengths = torch.tensor([[_end(row)] for row in rows], device=self._device)
        hidden = torch.arange(longest, device=self._device) >= lengths
        return torch.zeros(hidden.shape, dtype=self._dtype, device=self._device).masked_fill_(hidden, float("-inf"))[
            :, None, None
        ]

    def _blocks(self, rows: Rows[ScheduledRow]) -> Tensor:
        """The rows' block tables, one after another; shorter ones end in a block that the mask hides."""
        num_blocks = -(-_end(rows[0]) // BLOCK_SIZE)
        table = np.zeros((len(rows), num_blocks), dtype=np.int64)
        for place, row in enumerate(rows):
            owned = row.sequence.blocks[: -(-_end(row) // BLOCK_SIZE)]
            table[place, : len(owned)] = owned
        return self._tensor(table.reshape(-1))

    def _fresh_groups(self, rows: Rows[ScheduledRow], offset: int) -> list[FreshGroup]:
        """`rows` are sorted by length, longest first; rows of similar length go together: padding stays small."""
        groups = []
        first = 0
        while first < len(rows):
            longest = rows[first].length
            after = next(
                (place for place in range(first, len(rows)) if rows[place].length * 4 < longest * 3), len(rows)
            )
            lengths = np.array([row.length for row in rows[first:after]])
            stop = offset + int(lengths.sum())
            padded = unpadded = None
            if lengths[-1] != longest:
                column = np.arange(longest)
                inside = column < lengths[:, None]
                begins = np.cumsum(lengths) - lengths
                padded = self._tensor((begins[:, None] + np.minimum(column, lengths[:, None] - 1)).reshape(-1))
                unpadded = self._tensor(np.flatnonzero(inside))
            groups.append(FreshGroup(offset, stop, after - first, padded, unpadded))
            first, offset = after, stop
        return groups

    def _chunk_rows(self, rows: Rows[ScheduledRow], offset: int) -> list[ChunkRow]:
        chunks = []
        for row in rows:
            mask = lower_right_causal(row.length, _end(row), self._dtype, self._device)
            chunks.append(ChunkRow(offset, offset + row.length, self._blocks([row]), _end(row), mask))
            offset += row.length
        return chunks

    def _tensor(self, array: np.ndarray[Any, np.dtype[np.int64]]) -> Tensor:
        return torch.from_numpy(array).to(self._device)


def _end(row: ScheduledRow) -> int:
    """How many tokens the row attends to once this step is done."""
    return row.start + row.length


def _places(row: ScheduledRow) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The cache places of the row's tokens in this step."""
    first = row.start // BLOCK_SIZE
    blocks = np.array(row.sequence.blocks[first : -(-_end(row) // BLOCK_SIZE)], dtype=np.int64)
    positions = np.arange(row.start, _end(row))
    places: np.ndarray[Any, np.dtype[np.int64]] = (
        blocks[positions // BLOCK_SIZE - first] * BLOCK_SIZE + positions % BLOCK_SIZE
    )
    return places

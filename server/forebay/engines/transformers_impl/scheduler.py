"""Which rows take the next step: first come, first served, by priority, within a token budget and KV memory."""

from __future__ import annotations

import time
from bisect import insort
from collections.abc import Iterable
from dataclasses import dataclass

from forebay.engines.transformers_impl.blocks import BLOCK_SIZE, BlockPool, blocks_for
from forebay.engines.transformers_impl.sequence import Sequence


@dataclass(frozen=True, slots=True)
class Limits:
    """`max_rows`: rows at once. `max_tokens`: tokens a step. `mixed_prefill`: prompt tokens in a step that also
    decodes, which bounds how long a prompt may stall running streams. `chunked`: a prompt may take several steps."""

    max_rows: int
    max_tokens: int
    mixed_prefill: int
    chunked: bool = True


@dataclass(frozen=True, slots=True)
class ScheduledRow:
    """`sequence` reads its tokens at positions `start` to `start + length` in this step; samples if none is left."""

    sequence: Sequence
    start: int
    length: int

    @property
    def samples(self) -> bool:
        return self.start + self.length == self.sequence.num_tokens


class Scheduler:
    """Waiting and running sequences and the blocks they own.

    A row is admitted when its tokens so far fit, and grows block by block. When no block is left, the row that came
    last gives up its blocks and waits in its old place; it later reads prompt and answer again (preemption by
    recomputation, as in vLLM, arXiv:2309.06180).
    """

    def __init__(self, pool: BlockPool, limits: Limits) -> None:
        self.pool = pool
        self.limits = limits
        self.waiting: list[Sequence] = []
        self.running: list[Sequence] = []
        self._free_slots = list(range(limits.max_rows - 1, -1, -1))

    @property
    def has_work(self) -> bool:
        return bool(self.running or self.waiting)

    def add(self, sequence: Sequence) -> None:
        insort(self.waiting, sequence, key=lambda waiting: waiting.rank)

    def remove(self, request_id: str) -> list[Sequence]:
        """Forget a request's sequences wherever they are; returns those that were running, their memory freed."""
        self.waiting = [sequence for sequence in self.waiting if sequence.request_id != request_id]
        gone = [sequence for sequence in self.running if sequence.request_id == request_id]
        for sequence in gone:
            self.finish(sequence)
        return gone

    def finish(self, sequence: Sequence) -> None:
        """A running sequence leaves the batch; its slot and blocks are free at once."""
        self.running.remove(sequence)
        self._release(sequence)

    def schedule(self) -> list[ScheduledRow]:
        """The rows of the next step, decoding ones first. Empty only when nothing is running and nothing waits."""
        rows = self._decode_rows()
        budget = self.limits.max_tokens - len(rows)
        if rows:
            budget = min(budget, self.limits.mixed_prefill)
        for sequence in self._prefilling():
            if budget <= 0:
                break
            length = min(sequence.num_pending, budget) if self.limits.chunked else sequence.num_pending
            budget -= length
            rows.append(ScheduledRow(sequence, sequence.num_computed, length))
        return rows

    def fork(self, leader: Sequence) -> list[Sequence]:
        """Choices that wait for `leader`'s prompt, which the cache now holds: they start with a copy of it.

        Those that find room are running on return, sharing the full blocks of the prompt; the partial one is theirs and
        has to be copied by the caller. The others wait on and will read the prompt themselves.
        """
        followers = [sequence for sequence in self.waiting if sequence.leader is leader]
        forked = []
        num_full = leader.num_computed // BLOCK_SIZE
        for sequence in followers:
            sequence.leader = None
            num_own = blocks_for(leader.num_computed + 1) - num_full
            if not self._free_slots or self.pool.num_free < num_own + len(self.running):
                continue
            self.waiting.remove(sequence)
            shared = leader.blocks[:num_full]
            self.pool.share(shared)
            sequence.blocks = shared + self.pool.take(num_own)
            sequence.num_computed = leader.num_computed
            self._start(sequence)
            forked.append(sequence)
        return forked

    def _decode_rows(self) -> list[ScheduledRow]:
        rows = []
        for sequence in list(self.running):
            if sequence.slot is None or sequence.num_pending != 1:
                continue
            if self._grow(sequence):
                rows.append(ScheduledRow(sequence, sequence.num_computed, 1))
        return rows

    def _grow(self, sequence: Sequence) -> bool:
        """Make room for one more token; False if the sequence itself had to give way."""
        if len(sequence.blocks) * BLOCK_SIZE >= sequence.num_tokens:
            return True
        while self.pool.num_free == 0:
            victim = max(self.running, key=lambda running: running.rank)
            self._preempt(victim)
            if victim is sequence:
                return False
        sequence.blocks += self.pool.take(1)
        return True

    def _preempt(self, sequence: Sequence) -> None:
        self.finish(sequence)
        sequence.num_computed = 0
        self.add(sequence)

    def _prefilling(self) -> Iterable[Sequence]:
        """Running sequences that still read, then waiting ones as they are admitted."""
        yield from [sequence for sequence in self.running if sequence.num_pending > 1]
        for sequence in list(self.waiting):
            if sequence.leader is not None and sequence.leader.slot is not None:
                continue  # it will copy what its sibling reads now
            if not self._admit(sequence):
                return
            yield sequence

    def _admit(self, sequence: Sequence) -> bool:
        needed = blocks_for(sequence.num_tokens + 1)
        # One block to spare for every running row, or admission would only cause preemption.
        if not self._free_slots or self.pool.num_free < needed + len(self.running):
            return False
        self.waiting.remove(sequence)
        sequence.blocks = self.pool.take(needed)
        self._start(sequence)
        return True

    def _start(self, sequence: Sequence) -> None:
        sequence.leader = None
        sequence.slot = self._free_slots.pop()
        if sequence.started_at is None:
            sequence.started_at = time.perf_counter()
        insort(self.running, sequence, key=lambda running: running.rank)

    def _release(self, sequence: Sequence) -> None:
        assert sequence.slot is not None
        self._free_slots.append(sequence.slot)
        sequence.slot = None
        self.pool.give_back(sequence.blocks)
        sequence.blocks = []

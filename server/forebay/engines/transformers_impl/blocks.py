"""Who owns which block of KV memory: counting only, no tensors."""

from __future__ import annotations

BLOCK_SIZE = 32
"""Tokens in a block. Rows waste half a block on average; smaller blocks make longer tables to gather through."""


def blocks_for(num_tokens: int) -> int:
    """How many blocks hold `num_tokens` tokens."""
    return -(-num_tokens // BLOCK_SIZE)


class BlockPool:
    """A fixed number of blocks, handed out whole and shared by reference count (choices share their prompt's)."""

    def __init__(self, num_blocks: int) -> None:
        self.num_blocks = num_blocks
        self._free = list(range(num_blocks - 1, -1, -1))
        self._references = [0] * num_blocks

    @property
    def num_free(self) -> int:
        return len(self._free)

    @property
    def use(self) -> float:
        """The used share, 0..1."""
        return 1.0 - len(self._free) / self.num_blocks

    def take(self, count: int) -> list[int]:
        """`count` blocks of one owner each; the caller has checked `num_free`."""
        assert count <= len(self._free)
        taken = [self._free.pop() for _ in range(count)]
        for block in taken:
            self._references[block] = 1
        return taken

    def share(self, blocks: list[int]) -> None:
        """One more owner of each."""
        for block in blocks:
            self._references[block] += 1

    def give_back(self, blocks: list[int]) -> None:
        """One owner less of each; blocks without owners are free again."""
        for block in blocks:
            self._references[block] -= 1
            if self._references[block] == 0:
                self._free.append(block)

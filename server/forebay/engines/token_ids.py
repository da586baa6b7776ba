"""Whether token ids are a model's own."""

from __future__ import annotations

from collections.abc import Collection

from forebay.errors import InvalidRequest


def check_token_ids(token_ids: Collection[int], vocab_size: int, param: str) -> None:
    """Raises InvalidRequest that names `param` and an id outside 0 to `vocab_size` - 1.

    A prompt may hold a million ids and this runs on the event loop, so nothing here is a loop of Python's.
    """
    if not token_ids:
        return
    largest, smallest = max(token_ids), min(token_ids)
    if smallest < 0 or largest >= vocab_size:
        wrong = largest if not 0 <= largest < vocab_size else smallest
        raise InvalidRequest(f"Token id {wrong} is outside the vocabulary of {vocab_size} tokens.", param=param)

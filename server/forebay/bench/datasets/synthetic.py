"""Sessions that are made up: random, with shared prefixes, conversations, and repetitions for caches."""

from __future__ import annotations

import random

from forebay.bench.datasets.prompts import PromptMaker, joined
from forebay.bench.datasets.session import Session, Turn


def random_sessions(
    maker: PromptMaker, num: int, input_len: int, output_len: int, range_ratio: float, prefix_len: int = 0
) -> list[Session]:
    """Nothing in common but a prefix of `prefix_len` tokens."""
    prefix = maker.draw(prefix_len) if prefix_len else None
    sessions = []
    for _ in range(num):
        prompt = maker.draw(maker.length(input_len, range_ratio))
        turn = Turn(prompt if prefix is None else joined(prefix, prompt), maker.length(output_len, range_ratio))
        sessions.append(Session((turn,)))
    return sessions


def prefix_repetition(
    maker: PromptMaker,
    rng: random.Random,
    num: int,
    *,
    prefixes: int,
    prefix_len: int,
    suffix_len: int,
    output_len: int,
) -> list[Session]:
    """`prefixes` system prompts, as it were, each before as many questions of its own, in a random order."""
    starts = [maker.draw(prefix_len) for _ in range(prefixes)]
    sessions = [
        Session((Turn(joined(starts[number % prefixes], maker.draw(suffix_len)), output_len),)) for number in range(num)
    ]
    rng.shuffle(sessions)
    return sessions


def multi_turn(
    maker: PromptMaker, num: int, *, turns: int, input_len: int, output_len: int, range_ratio: float
) -> list[Session]:
    """`num` requests in conversations of `turns` turns, the last one shorter if it does not come out even."""

    def turn() -> Turn:
        return Turn(maker.draw(maker.length(input_len, range_ratio)), maker.length(output_len, range_ratio))

    return [Session(tuple(turn() for _ in range(min(turns, num - begun)))) for begun in range(0, num, turns)]


def cache_replay(
    maker: PromptMaker, rng: random.Random, num: int, *, distinct: int, skew: float, input_len: int, output_len: int
) -> list[Session]:
    """`num` requests out of `distinct` prompts, the k-th of them with the weight k ** -skew (Zipf), word for word."""
    pool = [Session((Turn(maker.draw(input_len), output_len),)) for _ in range(distinct)]
    return rng.choices(pool, [(rank + 1) ** -skew for rank in range(distinct)], k=num)

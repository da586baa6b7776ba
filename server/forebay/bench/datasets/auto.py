"""Which dataset: its name and options -> sessions."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from forebay.bench.datasets import files, synthetic
from forebay.bench.datasets.prompts import PromptMaker
from forebay.bench.datasets.session import Session
from forebay.errors import ConfigurationError

DATASETS = ("random", "prefix_repetition", "multi_turn", "cache_replay", "custom", "sharegpt", "burstgpt")


@dataclass(frozen=True, slots=True)
class DatasetOptions:
    """Lengths are tokens; each dataset takes what means something to it. `output_len` None: the dataset's own."""

    name: str = "random"
    path: Path | None = None
    num_prompts: int = 1000
    input_len: int = 128
    output_len: int | None = None
    range_ratio: float = 0.0
    prefix_len: int = 0
    num_prefixes: int = 10
    num_turns: int = 4
    num_distinct: int = 100
    skew: float = 1.0
    token_ids: range = range(1000, 30_000)

    @property
    def made_output_len(self) -> int:
        """For prompts that are made up."""
        return self.output_len or 128


def make_sessions(options: DatasetOptions, seed: int, *, as_text: bool) -> list[Session]:
    """`options.num_prompts` requests; fewer only where a file says when they came and has no more.

    Raises ConfigurationError for a file that is missing or not in its form.
    """
    rng = random.Random(seed)
    maker = PromptMaker(rng, as_text, options.token_ids)
    if options.name in ("custom", "sharegpt", "burstgpt"):
        return _from_file(options, maker, rng, as_text=as_text)
    num, input_len, output_len = options.num_prompts, options.input_len, options.made_output_len
    match options.name:
        case "random":
            return synthetic.random_sessions(maker, num, input_len, output_len, options.range_ratio, options.prefix_len)
        case "prefix_repetition":
            return synthetic.prefix_repetition(
                maker,
                rng,
                num,
                prefixes=options.num_prefixes,
                prefix_len=options.prefix_len or input_len,
                suffix_len=input_len,
                output_len=output_len,
            )
        case "multi_turn":
            return synthetic.multi_turn(
                PromptMaker(rng, True, options.token_ids),  # answers, which are text, come between
                num,
                turns=options.num_turns,
                input_len=input_len,
                output_len=output_len,
                range_ratio=options.range_ratio,
            )
        case "cache_replay":
            return synthetic.cache_replay(
                maker,
                rng,
                num,
                distinct=options.num_distinct,
                skew=options.skew,
                input_len=input_len,
                output_len=output_len,
            )
    raise ConfigurationError(f"There is no dataset {options.name!r}; there are {', '.join(DATASETS)}.")


def _from_file(options: DatasetOptions, maker: PromptMaker, rng: random.Random, *, as_text: bool) -> list[Session]:
    """Those of the file in the order of its times where it has them, else in a random one, from the start again if it
    is short."""
    if options.path is None:
        raise ConfigurationError(f"The dataset {options.name} needs --dataset-path.")
    if options.name == "custom":
        found = files.custom(options.path, options.output_len, as_text=as_text)
    elif options.name == "sharegpt":
        found = files.sharegpt(options.path, options.output_len)
    else:
        found = files.burstgpt(options.path, maker, options.num_prompts, options.output_len)
    if all(session.at_s is not None for session in found):
        return _cut(_from_zero(found), options.num_prompts)
    rng.shuffle(found)
    return _cut(itertools.cycle(found), options.num_prompts)


def _cut(sessions: Iterable[Session], num_requests: int) -> list[Session]:
    """As many as hold `num_requests`, the last without the turns that are too many."""
    kept: list[Session] = []
    for session in sessions:
        kept.append(replace(session, turns=session.turns[:num_requests]))
        num_requests -= len(kept[-1].turns)
        if not num_requests:
            break
    return kept


def _from_zero(sessions: Sequence[Session]) -> list[Session]:
    """The first begins at once."""
    ordered = sorted(sessions, key=lambda session: session.at_s or 0.0)
    first_s = ordered[0].at_s or 0.0
    return [replace(session, at_s=(session.at_s or 0.0) - first_s) for session in ordered]

"""The step loop's counters beside what it delivers."""

from __future__ import annotations

import torch
from making import RowMaker
from tiny_models import EOS, VOCAB_SIZE, byte_tokenizer
from torch import Tensor

from forebay.engines.transformers_impl.blocks import BlockPool
from forebay.engines.transformers_impl.loop import Outputs, StepLoop
from forebay.engines.transformers_impl.sampler import Sampler
from forebay.engines.transformers_impl.scheduler import Limits, ScheduledRow, Scheduler
from forebay.engines.transformers_impl.sequence import Sequence
from forebay.engines.vocabulary import Vocabulary


class Evenly:
    """A runner to whom all tokens are equally likely."""

    def run(self, rows: list[ScheduledRow]) -> Tensor:
        return torch.zeros(len([row for row in rows if row.samples]), VOCAB_SIZE)

    def copy_prompt(self, leader: Sequence, follower: Sequence) -> None:
        raise AssertionError("one choice has no siblings")


def test_a_step_is_counted_before_its_tokens_are_delivered() -> None:
    """Who sees the tokens of a step finds the step, its prompt tokens and its generated tokens in the counters."""
    seen = []

    def deliver(outputs: Outputs) -> None:
        seen.append((loop.num_steps, loop.num_prompt_tokens, loop.num_generated_tokens))
        if outputs[0][1].finish_reason is not None:
            loop.stop()

    loop = StepLoop(
        Evenly(),
        Scheduler(BlockPool(8), Limits(max_rows=1, max_tokens=64, mixed_prefill=64)),
        Sampler(1, torch.device("cpu")),
        Vocabulary(byte_tokenizer()),
        eos_id=EOS,
        max_model_len=100,
        deliver=deliver,
    )
    loop.submit(RowMaker().rows(4, max_tokens=3, ignore_eos=True))
    loop.run()
    assert seen == [(1, 4, 1), (2, 4, 2), (3, 4, 3)]

"""A request, checked against the model, to the rows that answer it."""

from __future__ import annotations

import itertools

from forebay.engines.stopping import StopMatcher
from forebay.engines.token_ids import check_token_ids
from forebay.engines.transformers_impl.detokenize import Detokenizer
from forebay.engines.transformers_impl.loading import LoadedModel
from forebay.engines.transformers_impl.sampler import random_source
from forebay.engines.transformers_impl.sequence import Sequence
from forebay.errors import ContextTooLong, InvalidRequest
from forebay.types import GenerationRequest


class SequenceFactory:
    """Makes rows; numbers them in the order of arrival."""

    def __init__(self, loaded: LoadedModel, max_model_len: int) -> None:
        self._tokenizer = loaded.tokenizer.backend_tokenizer
        self._vocab_size = loaded.vocab_size
        self._end_ids = loaded.other_end_ids | ({loaded.eos_id} if loaded.eos_id is not None else set())
        self._max_model_len = max_model_len
        self._order = itertools.count()

    def make(self, request: GenerationRequest) -> list[Sequence]:
        """One row for each choice; all but the first wait for its prefill and copy it.

        Raises what `check` raises.
        """
        self.check(request)
        sampling = request.sampling
        stop_ids = frozenset(sampling.stop_token_ids)
        sequences: list[Sequence] = []
        for index in range(request.num_choices):
            sequence = Sequence(
                order=next(self._order),
                request_id=request.request_id,
                index=index,
                prompt_ids=request.prompt.token_ids,
                sampling=sampling,
                priority=request.priority,
                # min_tokens holds back the model's own end tokens even where they would not end the answer, as in vLLM
                masked_until_min=tuple(self._end_ids | stop_ids) if sampling.min_tokens else (),
                end_ids=stop_ids if sampling.ignore_eos else stop_ids | self._end_ids,
                detokenizer=Detokenizer(self._tokenizer, request.prompt.token_ids, sampling.skip_special_tokens),
                matcher=StopMatcher(sampling.stop, sampling.include_stop_str_in_output),
                rng=random_source(sampling.seed, index),
                leader=sequences[0] if sequences else None,
            )
            sequences.append(sequence)
        return sequences

    def check(self, request: GenerationRequest) -> None:
        """Raises ContextTooLong, and InvalidRequest for an empty prompt or ids outside the vocabulary."""
        prompt, sampling = request.prompt.token_ids, request.sampling
        if not prompt:
            raise InvalidRequest("The prompt is empty.", param="prompt")
        if len(prompt) >= self._max_model_len:
            raise ContextTooLong(
                f"The prompt has {len(prompt)} tokens; with one token of answer the context holds "
                f"{self._max_model_len}.",
                param="prompt",
            )
        for token_ids, param in (
            (prompt, "prompt"),
            (sampling.stop_token_ids, "stop_token_ids"),
            (sampling.logit_bias, "logit_bias"),
        ):
            check_token_ids(token_ids, self._vocab_size, param)

"""Reasoning models: what they write between their markers goes to `Delta.reasoning`, never to `Delta.text`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import replace

from forebay.chat.reasoning_families import FAMILIES, ReasoningFamily, choose_family
from forebay.chat.reasoning_history import prepare_history
from forebay.chat.reasoning_split import ReasoningSplitter
from forebay.engines.base import Engine
from forebay.types import Delta, Deltas, Prompt, TokenLogprob

TokenStrings = Callable[[list[int]], list[str]]

__all__ = ["FAMILIES", "ReasoningFamily", "bind_family", "choose_family", "prepare_history", "split_reasoning"]


async def bind_family(family: ReasoningFamily, engine: Engine) -> ReasoningFamily:
    """The family as the engine's tokenizer has it: with `end_id` where one token is the closing marker, and with
    `markers_are_special` where one of the special tokens is a marker."""
    token_ids = await engine.tokenize(family.end, add_special_tokens=False)
    return replace(
        family,
        end_id=token_ids[0] if len(token_ids) == 1 else None,
        markers_are_special=family.hidden_by_skipping(engine.info.special_tokens),
    )


async def split_reasoning(
    deltas: Deltas,
    family: ReasoningFamily,
    prompt: Prompt,
    include: bool,
    token_strings: TokenStrings | None = None,
) -> AsyncGenerator[Delta, None]:
    """The same deltas with reasoning told from answer; one that holds both leaves as two, reasoning first.

    Tokens, log-probabilities, finish and times are passed on at once, also while text is held back because it may be
    part of a marker. `num_reasoning_tokens` counts the tokens from a choice's first up to the one that completes the
    closing marker, markers included; they are counted with the delta that settles that they are reasoning, so that one
    delta may count more tokens than it carries. In a delta of several tokens that one is found by `family.end_id`, else
    by the length of the texts that `token_strings` (the engine's) gives for them; without either the delta counts
    whole.

    With `include=False` reasoning text is left out, and so are the log-probabilities that would spell it: those of
    tokens that may yet become a marker wait for the delta that settles it. The tokens are still passed on and counted.
    Closing the result closes `deltas`.
    """
    choices: dict[int, _Choice] = {}
    async with aclosing(deltas) as source:
        async for delta in source:
            choice = choices.get(delta.index)
            if choice is None:
                choice = choices[delta.index] = _Choice(family, prompt, include, token_strings)
            for part in choice.split(delta):
                yield part
    for index, choice in choices.items():  # a choice that never said it had finished
        for part in choice.split(Delta(index), last=True):
            if part.text or part.reasoning:
                yield part


class _Choice:
    """The state of one choice: where its text stands, and how many of its tokens are not settled yet."""

    __slots__ = (
        "_end_id",
        "_ended_by_id",
        "_include",
        "_num_unsettled",
        "_text",
        "_token_strings",
        "_unsettled_logprobs",
    )

    def __init__(
        self, family: ReasoningFamily, prompt: Prompt, include: bool, token_strings: TokenStrings | None
    ) -> None:
        self._text = ReasoningSplitter(family, prompt)
        self._end_id = family.end_id
        self._include = include
        self._token_strings = token_strings
        self._num_unsettled = 0
        self._unsettled_logprobs: tuple[TokenLogprob, ...] = ()
        self._ended_by_id = False

    def split(self, delta: Delta, *, last: bool = False) -> tuple[Delta, ...]:
        """One delta, or two if it holds the border. `last` releases all that is held, as a finish does."""
        if self._text.settled:
            return (delta,)
        was_answer = not (self._text.undecided or self._text.reasoning)
        reasoning, text = self._text.push(delta.text)
        inside, undecided = self._text.reasoning, self._text.undecided
        opened = inside or self._text.opened
        finished = last or delta.finish_reason is not None
        if finished:
            rest = self._text.flush()
            reasoning, text = reasoning + rest[0], text + rest[1]
        if was_answer:
            return (replace(delta, text=text),)
        if not self._include:
            delta = self._withhold_logprobs(delta, undecided=undecided and not finished, opened=opened)
        if undecided:
            self._num_unsettled += len(delta.token_ids)
            return (replace(delta, text=text),)
        num_inside = self._num_inside(delta, ended=not inside) if opened else 0
        num_reasoning = num_inside + self._num_unsettled if opened else 0
        self._num_unsettled = 0
        return self._cut(delta, num_inside, num_reasoning, reasoning, text)

    def _withhold_logprobs(self, delta: Delta, *, undecided: bool, opened: bool) -> Delta:
        """Keeps those of tokens that are not settled; gives them back once the text is no reasoning after all."""
        if undecided:
            self._unsettled_logprobs += delta.logprobs
            return replace(delta, logprobs=())
        held, self._unsettled_logprobs = self._unsettled_logprobs, ()
        return delta if opened or not held else replace(delta, logprobs=held + delta.logprobs)

    def _num_inside(self, delta: Delta, *, ended: bool) -> int:
        """How many of the delta's tokens, from its first, are reasoning."""
        if self._ended_by_id:  # the token came before its text, which was held back for a stop string
            return 0
        num_tokens = len(delta.token_ids)
        if self._end_id is not None and self._end_id in delta.token_ids:
            self._ended_by_id = True
            return delta.token_ids.index(self._end_id) + 1
        if not ended or num_tokens <= 1 or self._token_strings is None:
            return num_tokens
        num_chars = len(delta.text) - self._text.num_after_end
        for position, string in enumerate(self._token_strings(list(delta.token_ids)), 1):
            num_chars -= len(string)
            if num_chars <= 0:
                return position
        return num_tokens

    def _cut(self, delta: Delta, num_inside: int, num_reasoning: int, reasoning: str, text: str) -> tuple[Delta, ...]:
        if not num_reasoning and not reasoning:
            return (replace(delta, text=text),)
        ids, logprobs = delta.token_ids, delta.logprobs
        whole = num_inside == len(ids) and not text
        head = Delta(
            delta.index,
            "",
            ids[:num_inside],
            logprobs[:num_inside] if self._include else (),
            delta.finish_reason if whole else None,
            delta.stop_reason if whole else None,
            delta.num_cached_tokens,
            reasoning if self._include else "",
            num_reasoning,
            delta.times if whole else None,
        )
        if whole:
            return (head,)
        tail = replace(
            delta, text=text, token_ids=ids[num_inside:], logprobs=logprobs[num_inside:], num_cached_tokens=0
        )
        return head, tail

"""Tokens pass through the stage at once and whole, and those of the reasoning are counted."""

from __future__ import annotations

from itertools import groupby

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forebay.chat.reasoning import FAMILIES, ReasoningFamily, bind_family, split_reasoning
from forebay.engines.scripted import ScriptedEngine
from forebay.settings import Settings
from forebay.types import Alternative, Delta, EngineTimes, Prompt, TokenLogprob
from support.deltas import Source, pieces, split, stream_of

UNTIMED = settings(deadline=None)
THINK, R1, OLMO = FAMILIES["think"], FAMILIES["deepseek_r1"], FAMILIES["olmo3"]
OPEN = Prompt((1,), "assistant\n<think>\n")
TOKENS = ["\n", "<think>", "\n", "Two", " and", " two", "\n", "</think>", "\n\n", "Four", "."]
END = TOKENS.index("</think>")
GROUPS = st.lists(st.integers(1, 4), min_size=len(TOKENS), max_size=len(TOKENS))


def logprob(text: str) -> TokenLogprob:
    return TokenLogprob(Alternative(0, text, text.encode(), -0.5))


def merged(sizes: list[int]) -> list[Delta]:
    """TOKENS in deltas of the given sizes, as an engine merges them while its consumer is slow."""
    of_delta = [delta for delta, size in enumerate(sizes) for _ in range(size)][: len(TOKENS)]
    deltas = []
    for _, group in groupby(range(len(TOKENS)), key=lambda token: of_delta[token]):
        ids = tuple(group)
        texts = [TOKENS[token] for token in ids]
        finish = "stop" if ids[-1] == len(TOKENS) - 1 else None
        deltas.append(
            Delta(
                0,
                "".join(texts),
                ids,
                tuple(map(logprob, texts)),
                finish,
                times=EngineTimes(0, 1, 2) if finish else None,
            )
        )
    return deltas


def with_end(family: ReasoningFamily, end_id: int) -> ReasoningFamily:
    return ReasoningFamily(family.name, family.start, family.end, family.starts_inside, end_id=end_id)


@UNTIMED
@given(GROUPS)
def test_the_count_is_exact_however_deltas_merge(sizes: list[int]) -> None:
    """From the first token to the closing marker, by the marker's id or by the texts of the tokens."""
    by_id = split(merged(sizes), with_end(THINK, END))[0]
    by_text = split(merged(sizes), THINK, token_strings=lambda ids: [TOKENS[token] for token in ids])[0]
    assert by_id.num_reasoning_tokens == by_text.num_reasoning_tokens == END + 1


@UNTIMED
@given(GROUPS)
def test_without_ids_or_texts_a_delta_counts_whole(sizes: list[int]) -> None:
    """Then the delta with the border may count up to its own end, and never beyond it."""
    deltas = merged(sizes)
    at_border = next(delta for delta in deltas if END in delta.token_ids)
    assert split(deltas, THINK)[0].num_reasoning_tokens == at_border.token_ids[-1] + 1


@UNTIMED
@given(GROUPS)
def test_tokens_and_logprobs_stay_aligned(sizes: list[int]) -> None:
    """Every token leaves once, in order, with its own log-probability; a delta is reasoning or answer, never both."""
    out = split(merged(sizes), with_end(THINK, END))[0]
    assert out.token_ids == tuple(range(len(TOKENS)))
    assert [item.chosen.token for item in out.logprobs] == TOKENS
    assert (out.reasoning, out.text) == ("\n\nTwo and two\n", "\n\nFour.")
    for delta in out.deltas:
        assert [item.chosen.token for item in delta.logprobs] == [TOKENS[token] for token in delta.token_ids]
        assert not (delta.reasoning and delta.text)
        assert all(token > END for token in delta.token_ids) or not delta.text
    assert [delta.finish_reason for delta in out.deltas] == [None] * (len(out.deltas) - 1) + ["stop"]
    assert [delta.times for delta in out.deltas if delta.times] == [EngineTimes(0, 1, 2)]


@UNTIMED
@given(GROUPS)
def test_hidden_reasoning_is_hidden_and_counted(sizes: list[int]) -> None:
    """Without reasoning its text is nowhere, log-probabilities included, but its tokens are all there."""
    out = split(merged(sizes), with_end(THINK, END), include=False)[0]
    assert (out.reasoning, out.text) == ("", "\n\nFour.")
    assert out.num_reasoning_tokens == END + 1
    assert out.token_ids == tuple(range(len(TOKENS)))
    spelled = "".join(item.chosen.token for item in out.logprobs)
    assert spelled.endswith("\n\nFour.")
    assert "Two" not in spelled


def test_a_delta_that_is_held_back_passes_its_tokens_at_once() -> None:
    """A partial marker keeps its text, not its tokens; what it turns out to be is counted when it is known."""
    out = split(stream_of(["<th", "ink>", "a", "</th", "ink>", "b"]), THINK)[0]
    assert [delta.token_ids for delta in out.deltas] == [(0,), (1,), (2,), (3,), (4,), (5,), ()]
    assert [delta.num_reasoning_tokens for delta in out.deltas] == [0, 2, 1, 1, 1, 0, 0]


@pytest.mark.parametrize(
    ("texts", "family", "prompt", "count"),
    [
        (["\n", "Hi"], THINK, Prompt((1,)), 0),
        (["\n", "<think", "er", ">"], THINK, Prompt((1,)), 0),
        (["<thi"], THINK, Prompt((1,)), 0),
        (["a", "</think>", "b"], THINK, Prompt((1,)), 0),
        (["a", "</think>", "b"], R1, Prompt((1,)), 2),
        (["a", "</think>", "b"], THINK, OPEN, 2),
        (["\n", "a", "b"], THINK, OPEN, 3),
        (["</think>", "b"], THINK, OPEN, 1),
        (["<think>", "</think>", "b"], THINK, Prompt((1,)), 2),
        (["a"], THINK, Prompt((1,), "assistant\n<think>\n\n</think>\n\n"), 0),
    ],
)
def test_what_counts(texts: list[str], family: ReasoningFamily, prompt: Prompt, count: int) -> None:
    """Markers count; an answer without a block has no reasoning tokens, whatever it holds."""
    assert split(stream_of(texts), family, prompt)[0].num_reasoning_tokens == count


def test_a_marker_whose_text_comes_later_than_its_token() -> None:
    """An engine that holds text back for a stop string has sent the token already: the id says where reasoning ends."""
    deltas = [
        Delta(0, "a", (0,)),
        Delta(0, "", (9,)),
        Delta(0, "", (1,)),
        Delta(0, "</think>\n\nb", (2,), finish_reason="stop"),
    ]
    out = split(deltas, with_end(R1, 9))[0]
    assert (out.reasoning, out.text, out.num_reasoning_tokens) == ("a", "\n\nb", 2)
    assert out.token_ids == (0, 9, 1, 2)


def test_cached_tokens_are_reported_once() -> None:
    """A delta that leaves as two does not double what it says of the prompt."""
    delta = Delta(0, "a</think>b", (1, 2, 3), finish_reason="stop", num_cached_tokens=64)
    out = split([delta], with_end(R1, 2))[0]
    assert [part.num_cached_tokens for part in out.deltas] == [64, 0]


async def test_closing_the_result_closes_the_source() -> None:
    """The engine's work is let go of at once, in the midst of the reasoning."""
    source = Source(stream_of("<think>a long time</think>b"))
    parts = split_reasoning(source.stream(), THINK, Prompt((1,)), True)
    await anext(parts)
    await parts.aclose()
    assert source.closed


async def test_an_error_of_the_source_is_passed_on() -> None:
    """What the engine raises leaves the stage as it is."""

    def fail() -> None:
        raise RuntimeError("engine")

    source = Source(delta or fail() for delta in [Delta(0, "<think>a", (1,)), None])
    with pytest.raises(RuntimeError, match="engine"):
        [delta async for delta in split_reasoning(source.stream(), THINK, Prompt((1,)), True)]
    assert source.closed


async def test_binding_finds_a_marker_that_is_one_token() -> None:
    """The scripted engine's `<|im_end|>` is one token, `</think>` several."""
    engine = ScriptedEngine(Settings(engine="scripted"))
    (end_id,) = await engine.tokenize("<|im_end|>")
    assert (await bind_family(ReasoningFamily("x", "a", "<|im_end|>"), engine)).end_id == end_id
    assert (await bind_family(THINK, engine)).end_id is None


@UNTIMED
@given(st.lists(st.integers(0, 100), max_size=10))
def test_texts_of_tokens_find_a_marker_of_several_tokens(cuts: list[int]) -> None:
    """OLMo writes `</think>` in several tokens, the last of which may hold text of the answer too."""
    text = "Two and two.</think>\nFour."
    texts = pieces(text, cuts)
    delta = Delta(0, text, tuple(range(len(texts))), finish_reason="stop")
    out = split([delta], OLMO, token_strings=lambda ids: [texts[token] for token in ids])[0]
    expected, end = 0, text.index("</think>") + len("</think>")
    while sum(map(len, texts[:expected])) < end:
        expected += 1
    assert out.num_reasoning_tokens == expected

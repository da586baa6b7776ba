"""The mailbox between an engine and the consumer of one request."""

from __future__ import annotations

import asyncio
import weakref

import pytest

from forebay.engines.mailbox import GATHERED, RELEASE_S, DeltaMailbox, merge_deltas
from forebay.errors import EngineUnavailable
from forebay.types import Alternative, Delta, EngineTimes, TokenLogprob


def piece(text: str, index: int = 0) -> Delta:
    return Delta(index, text, (ord(text[0]),), (TokenLogprob(Alternative(ord(text[0]), text, text.encode(), -1.0)),))


async def test_a_consumer_that_keeps_up_gets_every_delta_as_it_was_put() -> None:
    """One put, one delta, the same object."""
    mailbox = DeltaMailbox(lambda: None)
    for text in "abc":
        put = piece(text)
        mailbox.put(put)
        assert await anext(mailbox) is put
    mailbox.close()
    with pytest.raises(StopAsyncIteration):
        await anext(mailbox)


async def test_deltas_of_a_choice_merge_while_nobody_takes_them() -> None:
    """Texts, tokens and logprobs are joined in order, the end and its cause survive, and choices stay apart."""
    mailbox, times = DeltaMailbox(lambda: None), EngineTimes(0.1, 0.2, 0.3)
    mailbox.put(piece("a"))
    mailbox.put(piece("x", index=1))
    mailbox.put(piece("b"))
    mailbox.put(Delta(0, "c", (99,), finish_reason="stop", stop_reason="!", num_cached_tokens=4, times=times))
    mailbox.close()
    first, second = [delta async for delta in mailbox]
    assert (first.index, first.text, first.token_ids) == (0, "abc", (97, 98, 99))
    assert [logprob.chosen.token for logprob in first.logprobs] == ["a", "b"]
    assert (first.finish_reason, first.stop_reason, first.num_cached_tokens, first.times) == ("stop", "!", 4, times)
    assert (second.index, second.text) == (1, "x")


def test_merging_adds_up_reasoning() -> None:
    """Reasoning text and its token count are joined like the answer's."""
    merged = merge_deltas(
        [Delta(0, reasoning="a", num_reasoning_tokens=1), Delta(0, reasoning="b", num_reasoning_tokens=2)]
    )
    assert (merged.reasoning, merged.num_reasoning_tokens) == ("ab", 3)


async def test_the_choice_that_waited_longest_is_taken_first() -> None:
    """A chatty choice does not starve another."""
    mailbox = DeltaMailbox(lambda: None)
    for text, index in (("a", 0), ("x", 1), ("b", 0)):
        mailbox.put(piece(text, index))
    assert (await anext(mailbox)).index == 0
    mailbox.put(piece("c", 0))
    assert (await anext(mailbox)).index == 1
    assert (await anext(mailbox)).text == "c"


async def test_a_failure_is_raised_after_what_was_put_before_it() -> None:
    """Generated tokens reach the consumer, then the error, then the end."""
    mailbox = DeltaMailbox(lambda: None)
    mailbox.put(piece("a"))
    mailbox.fail(EngineUnavailable("gone"))
    mailbox.put(piece("b"))
    assert (await anext(mailbox)).text == "a"
    with pytest.raises(EngineUnavailable, match="gone"):
        await anext(mailbox)
    with pytest.raises(StopAsyncIteration):
        await anext(mailbox)


async def test_a_failure_wakes_a_waiting_consumer() -> None:
    """A consumer that waits for the next delta gets the error at once."""
    mailbox = DeltaMailbox(lambda: None)
    waiting = asyncio.create_task(anext(mailbox))
    await asyncio.sleep(0)
    mailbox.fail(EngineUnavailable("gone"))
    with pytest.raises(EngineUnavailable):
        await asyncio.wait_for(waiting, 1)


async def test_closing_early_aborts_the_producer_once() -> None:
    """`aclose` calls back once; what is put later is dropped."""
    aborts: list[str] = []
    mailbox = DeltaMailbox(lambda: aborts.append("abort"))
    mailbox.put(piece("a"))
    await mailbox.aclose()
    await mailbox.aclose()
    mailbox.put(piece("b"))
    mailbox.close()
    assert aborts == ["abort"]
    assert [delta async for delta in mailbox] == []


async def test_a_producer_that_has_ended_is_let_go_of() -> None:
    """The mailbox of an answer that is read late, or never, keeps nothing else alive; nor is it part of a cycle."""

    class Producer:
        def leave(self) -> None: ...

    for end in (DeltaMailbox.close, lambda mailbox: mailbox.fail(EngineUnavailable("gone"))):
        producer = Producer()
        mailbox, alive = DeltaMailbox(producer.leave), weakref.ref(producer)
        mailbox.put(piece("a"))
        end(mailbox)
        del producer
        assert alive() is None


async def test_closing_after_the_end_aborts_nothing() -> None:
    """Where the producer has ended there is nothing to abort."""
    aborts: list[str] = []
    mailbox = DeltaMailbox(lambda: aborts.append("abort"))
    mailbox.close()
    await mailbox.aclose()
    assert aborts == []


async def test_cancelling_a_waiting_consumer_aborts_the_producer() -> None:
    """As with an async generator, a consumer cancelled while it waits has left for good."""
    aborts: list[str] = []
    mailbox = DeltaMailbox(lambda: aborts.append("abort"))
    waiting = asyncio.create_task(anext(mailbox))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert aborts == ["abort"]


async def test_a_second_consumer_is_an_error() -> None:
    """Two consumers would each miss what the other took."""
    mailbox = DeltaMailbox(lambda: None)
    waiting = asyncio.create_task(anext(mailbox))
    await asyncio.sleep(0)
    with pytest.raises(RuntimeError, match="one consumer"):
        await anext(mailbox)
    mailbox.close()
    with pytest.raises(StopAsyncIteration):
        await waiting


async def test_counts_what_was_generated_whoever_took_it() -> None:
    """Taken, waiting, put as the consumer left and put while the producer let go; `aclose` waits for that."""
    released = asyncio.get_running_loop().create_future()
    mailbox = DeltaMailbox(lambda: released)
    mailbox.put(piece("a"))
    await anext(mailbox)
    mailbox.put(piece("b"))
    mailbox.put(piece("x", index=1))
    closing = asyncio.ensure_future(mailbox.aclose())
    await asyncio.sleep(0)
    mailbox.put(piece("c"))
    assert not closing.done()
    released.set_result(None)
    await closing
    await mailbox.aclose()
    assert mailbox.num_tokens == 4


async def test_counts_the_delta_that_comes_with_a_cancellation() -> None:
    """It is handed to nobody."""
    mailbox = DeltaMailbox(lambda: None)
    waiting = asyncio.ensure_future(anext(mailbox))
    await asyncio.sleep(0)
    mailbox.put(piece("c"))
    waiting.cancel()
    await asyncio.wait((waiting,))
    assert waiting.cancelled()
    assert mailbox.num_tokens == 1


async def test_a_producer_that_never_lets_go_is_not_waited_for() -> None:
    """Who closes has an error to deliver, or a place to give back."""
    never = asyncio.get_running_loop().create_future()
    mailbox = DeltaMailbox(lambda: never)
    async with asyncio.timeout(RELEASE_S + 2):
        await mailbox.aclose()
    assert not never.done()


async def test_a_consumer_that_wants_them_whole_is_seldom_woken() -> None:
    """The first delta comes at once; then those of `GATHERED` tokens together, and what is left with the end."""
    mailbox = DeltaMailbox(lambda: None, whole=True)
    read: list[Delta] = []

    async def consume() -> None:
        async for delta in mailbox:
            read.append(delta)  # noqa: PERF401 - what was read before the end is looked at, too

    consumer = asyncio.create_task(consume())
    for number in range(2 * GATHERED + 4):
        await asyncio.sleep(0)
        mailbox.put(piece("a") if number else piece("b"))
        await asyncio.sleep(0)
    assert [delta.text for delta in read] == ["b", "a" * GATHERED, "a" * GATHERED]
    mailbox.put(Delta(0, "!", (33,), finish_reason="stop"))
    mailbox.close()
    await consumer
    assert (read[-1].text, read[-1].finish_reason) == ("aaa!", "stop")
    assert mailbox.num_tokens == sum(len(delta.token_ids) for delta in read) == 2 * GATHERED + 5


async def test_what_has_gathered_comes_before_a_failure() -> None:
    """An error ends the wait, and hides nothing that came before it."""
    mailbox = DeltaMailbox(lambda: None, whole=True)
    mailbox.put(piece("a"))
    assert (await anext(mailbox)).text == "a"
    waiting = asyncio.ensure_future(anext(mailbox))
    await asyncio.sleep(0)
    mailbox.put(piece("b"))
    mailbox.fail(EngineUnavailable("gone"))
    assert (await waiting).text == "b"
    with pytest.raises(EngineUnavailable):
        await anext(mailbox)


async def test_what_is_taken_wakes_nobody() -> None:
    """A waiting consumer's `take` is offered each delta; it is woken for one that is not taken, and misses none."""
    mailbox, taken = DeltaMailbox(lambda: None), list[str]()

    def take(delta: Delta) -> bool:
        if delta.text == "c":
            return False
        taken.append(delta.text)
        return True

    mailbox.take = take
    mailbox.put(piece("_"))
    assert not taken, "nobody waited"
    assert (await anext(mailbox)).text == "_"
    waiting = asyncio.ensure_future(anext(mailbox))
    await asyncio.sleep(0)
    for text in "abcde":
        mailbox.put(piece(text))
    assert taken == ["a", "b"]
    assert (await waiting).text == "c"
    assert (await anext(mailbox)).text == "de"
    assert mailbox.num_tokens == 6


async def test_what_goes_wrong_with_a_delta_is_its_consumers(caplog: pytest.LogCaptureFixture) -> None:
    """The producer hears nothing of it; a reader that has left is offered nothing more."""
    aborts: list[str] = []
    mailbox = DeltaMailbox(lambda: aborts.append("abort"))
    offered: list[str] = []

    def take(delta: Delta) -> bool:
        offered.append(delta.text)
        raise ZeroDivisionError

    mailbox.take = take
    waiting = asyncio.ensure_future(anext(mailbox))
    await asyncio.sleep(0)
    mailbox.put(piece("a"))
    with pytest.raises(ZeroDivisionError):
        await waiting
    await mailbox.aclose()
    mailbox.put(piece("b"))
    assert (offered, aborts, mailbox.num_tokens) == (["a"], ["abort"], 2)

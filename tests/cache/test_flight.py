"""Single-flight: identical work runs once, and everybody gets a whole answer."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forebay.cache.flight import MAX_PIECES, MAX_STARTS, Flights
from forebay.engines.mailbox import merge_deltas
from forebay.errors import EngineUnavailable, ShuttingDown
from forebay.types import Delta
from support.flying import Engine, join, read_all, read_some, script, settle

SCRIPT = script("A dam holds water back.", "Think about rivers.")
WHOLE = merge_deltas(SCRIPT)
GONE = EngineUnavailable("The engine has died.")


async def test_a_hundred_requests_run_the_engine_once() -> None:
    """Those that come at once, in the middle, and before the end: all get every token."""
    engine, flights = Engine(SCRIPT), Flights()
    reading = []
    for i in range(100):
        reading.append(asyncio.create_task(read_all(join(flights, engine))))
        if i % 12 == 0:
            await asyncio.sleep(0)
    assert await asyncio.gather(*reading) == [WHOLE] * 100
    assert (engine.num_runs, engine.num_closed) == (1, 1)
    assert (flights.num_started, flights.num_joined, len(flights)) == (1, 99, 0)


async def test_a_reader_alone_gets_the_deltas_as_they_come() -> None:
    """Nothing is held back, and nothing merged for who keeps up."""
    engine = Engine(SCRIPT)
    reader = join(Flights(), engine)
    assert [delta async for delta in reader] == list(SCRIPT)
    await reader.aclose()


async def test_who_wants_it_whole_is_not_woken_for_every_token() -> None:
    """He is told the first delta and the rest as one, whoever else reads it bit by bit; also where it fails midway."""
    engine, flights = Engine(SCRIPT, {2: (4, GONE)}), Flights()
    for _ in range(2):
        whole, other = join(flights, engine, whole=True), join(flights, engine)
        by_bits = asyncio.create_task(read_all(other))
        read = [delta async for delta in whole]
        await whole.aclose()
        assert len(read) == 2
        assert merge_deltas(read) == await by_bits == WHOLE
    assert engine.num_runs == 3
    alone = join(flights, Engine(SCRIPT, {1: (4, GONE)}), whole=True)
    with pytest.raises(EngineUnavailable):
        await read_all(alone)


async def test_other_work_is_other_work() -> None:
    """Another key is another flight; so is the same key once the answer has ended."""
    engine, flights = Engine(SCRIPT), Flights()
    one, other = flights.join("a", engine.start), flights.join("b", engine.start)
    assert await read_all(one) == await read_all(other) == WHOLE
    assert await read_all(flights.join("a", engine.start)) == WHOLE
    assert engine.num_runs == 3


@pytest.mark.parametrize("num_tokens", range(len(WHOLE.token_ids) + 1))
async def test_whoever_began_it_may_leave_at_any_token(num_tokens: int) -> None:
    """Those who read along get it all, from the same run."""
    engine, flights = Engine(SCRIPT), Flights()
    leader, ahead, behind = (join(flights, engine) for _ in range(3))
    await read_some(leader, num_tokens)
    first = await read_some(ahead, num_tokens // 2)
    await leader.aclose()
    assert await read_all(ahead, *first) == WHOLE
    assert await read_all(behind) == WHOLE
    assert (engine.num_runs, engine.num_closed) == (1, 1)


async def test_a_task_that_is_cancelled_harms_nobody() -> None:
    """As when a client leaves while it waits for the next token."""
    engine, flights = Engine(SCRIPT, paused=asyncio.Event()), Flights()
    leading = asyncio.create_task(read_all(join(flights, engine)))
    following = asyncio.create_task(read_all(join(flights, engine)))
    await settle()
    leading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leading
    assert engine.paused is not None
    engine.paused.set()
    assert await following == WHOLE


async def test_the_last_one_to_leave_ends_it() -> None:
    """The engine has let go when closing returns, the rest is not generated, and who comes then begins anew."""
    engine, flights = Engine(SCRIPT), Flights()
    first, second = join(flights, engine), join(flights, engine)
    await read_some(first, 2)
    await first.aclose()
    assert engine.num_closed == 0
    await second.aclose()
    await second.aclose()
    assert engine.num_closed == 1
    assert engine.num_said < len(SCRIPT)
    assert await read_all(join(flights, engine)) == WHOLE
    assert engine.num_runs == 2


async def test_slow_readers_slow_nobody() -> None:
    """One that reads nothing keeps neither the engine nor the others; it finds everything when it comes back."""
    engine, flights = Engine(SCRIPT), Flights()
    slow = join(flights, engine)
    assert await read_all(join(flights, engine)) == WHOLE
    await settle()
    assert engine.num_closed == 1
    assert await read_all(slow) == WHOLE


async def test_what_is_kept_is_bounded_by_the_tokens() -> None:
    """A long answer with readers all over it is some pieces, not one object a token; nothing of it is lost."""
    deltas = [Delta(0, "x", (i % 50_000,)) for i in range(80 * MAX_PIECES)] + [Delta(0, finish_reason="stop")]
    engine, flights = Engine(deltas), Flights()
    still, *moving = [join(flights, engine) for _ in range(5)]
    read: list[list[Delta]] = [[] for _ in moving]
    for i, reader in enumerate(moving):
        read[i] += await read_some(reader, 3000 * (i + 1))
        assert len(reader._flight._deltas) <= MAX_PIECES + len(moving) + 2
    for i, reader in enumerate(moving):
        assert await read_all(reader, *read[i]) == merge_deltas(deltas)
    assert await read_all(still) == merge_deltas(deltas)


async def test_a_whole_answer_is_kept_before_anybody_could_begin_it_again() -> None:
    """Once, by who began it, also where he has left meanwhile; a run that failed or ended early is not kept."""
    flights, kept = Flights(), []

    def keep(deltas: Sequence[Delta]) -> None:
        kept.append((list(deltas), len(flights)))

    engine = Engine(SCRIPT, {1: (4, GONE)})
    leader, follower = join(flights, engine, keep=keep), join(flights, engine, keep=keep)
    reading = asyncio.create_task(read_all(follower))
    await read_some(leader, 1)
    await leader.aclose()
    await reading
    assert kept == [(list(SCRIPT), 1)]
    abandoned = join(flights, engine, keep=keep)
    await read_some(abandoned, 1)
    await abandoned.aclose()
    assert len(kept) == 1


async def test_an_answer_that_cannot_be_kept_is_an_answer() -> None:
    """What goes wrong in keeping it is for the log."""

    def keep(deltas: Sequence[Delta]) -> None:
        raise ValueError("a disk")

    assert await read_all(join(Flights(), Engine(SCRIPT), keep=keep)) == WHOLE


@pytest.mark.parametrize("turns", [0, 50])
async def test_closing_ends_all(turns: int) -> None:
    """Engines are let go of, and who still reads is told why, however early."""
    engine, flights = Engine(SCRIPT, paused=asyncio.Event()), Flights()
    reader = join(flights, engine)
    await settle(turns)
    await flights.close()
    with pytest.raises(ShuttingDown):
        await read_all(reader)
    assert engine.num_closed == engine.num_runs


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 12), st.one_of(st.none(), st.integers(0, 12)), st.integers(0, 3), st.booleans()),
        min_size=1,
        max_size=6,
    ),
    st.lists(st.integers(0, len(SCRIPT)), max_size=MAX_STARTS - 1),
)
def test_whoever_stays_gets_a_whole_answer(
    readers: list[tuple[int, int | None, int, bool]], failures: list[int]
) -> None:
    """Whoever joins and leaves when, reads however slowly, and wherever runs fail, as long as somebody is left to begin
    again; nobody gets a token twice or out of order, and the engine is let go of."""

    async def one(
        flights: Flights, engine: Engine, joins_at: int, leaves_at: int | None, pace: int, whole: bool
    ) -> None:
        await settle(joins_at)
        reader = join(flights, engine, whole=whole)
        read: list[Delta] = []
        try:
            async for delta in reader:
                read.append(delta)
                got = merge_deltas(read)
                assert got.token_ids == WHOLE.token_ids[: len(got.token_ids)]
                assert WHOLE.text.startswith(got.text)
                if leaves_at is not None and len(got.token_ids) >= leaves_at:
                    return
                await settle(pace)
            assert merge_deltas(read) == WHOLE
        except EngineUnavailable:
            assert all(other.began for other in reader._flight._readers)
        finally:
            await reader.aclose()

    async def all_of_them() -> None:
        engine = Engine(SCRIPT, {number + 1: (place, GONE) for number, place in enumerate(failures)})
        flights = Flights()
        await asyncio.gather(*(one(flights, engine, *given_reader) for given_reader in readers))
        assert engine.num_closed == engine.num_runs
        assert len(flights) == 0

    asyncio.run(all_of_them())

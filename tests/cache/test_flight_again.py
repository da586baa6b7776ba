"""Single-flight where a run fails: a reader begins it again, and nobody gets half an answer of each."""

from __future__ import annotations

import asyncio

import pytest

from forebay.cache.flight import MAX_STARTS, FlightReader, Flights, NotBegun
from forebay.engines.mailbox import merge_deltas
from forebay.errors import EngineUnavailable, InvalidRequest, Overloaded, RateLimited
from forebay.types import Delta
from support.flying import KEY, Engine, join, read_all, read_some, script, settle

SCRIPT = script("A dam holds water back.", "Think about rivers.")
WHOLE = merge_deltas(SCRIPT)
GONE = EngineUnavailable("The engine has died.")


@pytest.mark.parametrize("ends_at", range(len(SCRIPT) + 1))
@pytest.mark.parametrize("merged", [1, 2, 100])
async def test_a_run_that_fails_at_any_token_is_begun_again(ends_at: int, merged: int) -> None:
    """By a reader that has not; whoever was told some of it goes on where it was, however the second run is cut."""
    again = [merge_deltas(SCRIPT[i : i + merged]) for i in range(0, len(SCRIPT), merged)]
    engine = Engine(SCRIPT, {1: (ends_at, GONE)}, {2: again}, paused=asyncio.Event())
    flights = Flights()
    assert engine.paused is not None
    engine.paused.set()
    leader, ahead, behind = (join(flights, engine) for _ in range(3))
    reading = [asyncio.create_task(read_all(reader)) for reader in (leader, ahead)]
    late = asyncio.create_task(read_all(behind))
    assert await asyncio.gather(*reading, late) == [WHOLE] * 3
    assert (engine.num_runs, engine.num_closed) == (2, 2)
    assert (leader.began, ahead.began, behind.began) == (True, True, False)


@pytest.mark.parametrize("ends_at", range(1, len(SCRIPT)))
async def test_a_second_run_that_says_something_else(ends_at: int) -> None:
    """Who was told of the first gets its error, never half of each; who was told nothing gets the second's whole."""
    other = script("Something quite different.", "Think about rivers.")
    engine, flights = Engine(SCRIPT, {1: (ends_at, GONE)}, {2: other}), Flights()
    told, untold = join(flights, engine), join(flights, engine)
    telling = asyncio.create_task(read_all(told))
    await settle()
    assert await read_all(untold) == merge_deltas(other)
    if SCRIPT[:ends_at] == other[:ends_at]:
        assert await telling == merge_deltas(other)
    else:
        with pytest.raises(EngineUnavailable):
            await telling


async def test_who_was_told_nothing_waits_until_the_second_run_has_caught_up() -> None:
    """It comes while the second run says again what the first one said, and then something else."""
    other = [*SCRIPT[:4], *script("different.")]
    engine = Engine(SCRIPT, {1: (6, GONE)}, {2: other}, asyncio.Event(), {2: 4})
    flights = Flights()
    told, second = join(flights, engine), join(flights, engine)
    telling = asyncio.create_task(read_all(told))
    await settle()
    late = join(flights, engine)
    reading = [asyncio.create_task(read_all(reader)) for reader in (second, late)]
    await settle()
    assert engine.paused is not None
    engine.paused.set()
    assert await asyncio.gather(*reading) == [merge_deltas(other)] * 2
    with pytest.raises(EngineUnavailable):
        await telling


async def test_what_nobody_was_told_binds_nobody() -> None:
    """The first run was ahead of its readers when it failed: the second need only say what they have read."""
    other = [*SCRIPT[:3], *script("different.")]
    engine, flights = Engine(SCRIPT, {1: (6, GONE)}, {2: other}, asyncio.Event(), {1: 3}), Flights()
    reader, _ = join(flights, engine), join(flights, engine)
    before = await read_some(reader, 3)
    assert engine.paused is not None
    engine.paused.set()
    await settle()
    assert await read_all(reader, *before) == merge_deltas(other)


@pytest.mark.parametrize("end", [[Delta(0, finish_reason="stop")], []], ids=["finish", "no finish"])
async def test_a_second_run_that_ends_too_early(end: list[Delta]) -> None:
    """It does not make the first one's beginning whole."""
    engine = Engine(SCRIPT, {1: (6, GONE)}, {2: [*SCRIPT[:4], *end]})
    flights = Flights()
    told, _ = join(flights, engine), join(flights, engine)
    read = await read_some(told, 6)
    with pytest.raises(EngineUnavailable):
        await anext(told)
    assert merge_deltas(read) == merge_deltas(SCRIPT[:6])


async def test_what_fails_for_one_alone_fails() -> None:
    """With nobody to begin it again, after what was read of it."""
    engine = Engine(SCRIPT, {1: (3, GONE)})
    reader = join(Flights(), engine)
    assert len(await read_some(reader, 3)) == 3
    with pytest.raises(EngineUnavailable):
        await anext(reader)
    await reader.aclose()
    assert engine.num_runs == 1


async def test_what_fails_again_and_again_fails_for_all() -> None:
    """A dead engine is not asked by each of a hundred."""
    engine = Engine(SCRIPT, dict.fromkeys(range(1, 200), (2, GONE)))
    flights = Flights()
    results = await asyncio.gather(*(read_all(join(flights, engine)) for _ in range(100)), return_exceptions=True)
    assert results == [GONE] * 100
    assert engine.num_runs == MAX_STARTS


async def test_what_the_client_sent_is_wrong_for_all() -> None:
    """Nobody tries it again."""
    error = InvalidRequest("No.")
    engine, flights = Engine(SCRIPT, {1: (0, error)}), Flights()
    results = await asyncio.gather(*(read_all(join(flights, engine)) for _ in range(5)), return_exceptions=True)
    assert results == [error] * 5
    assert engine.num_runs == 1


async def test_a_beginning_that_fails_is_tried_by_the_next() -> None:
    """Its own limits may refuse the one who would begin."""
    engine, flights = Engine(SCRIPT), Flights()

    def refused() -> Engine:
        raise RateLimited("Not you.")

    first, second = flights.join(KEY, refused), join(flights, engine)  # type: ignore[arg-type]
    assert await asyncio.gather(read_all(first), read_all(second)) == [WHOLE, WHOLE]


async def test_where_nobody_can_begin_each_gets_his_own_reason() -> None:
    """Whose client is gone has none, and it is nobody else's; one that began well afterwards answers all of them."""
    reasons = [None, Overloaded("The queue is full."), RateLimited("Not you.")]

    def refusing(reason: Exception | None) -> FlightReader:
        def refused() -> Engine:
            raise NotBegun(reason)

        return flights.join(KEY, refused)  # type: ignore[arg-type]

    flights = Flights()
    gone, *others = [refusing(reason) for reason in reasons]
    await gone.aclose()
    assert await asyncio.gather(*map(read_all, others), return_exceptions=True) == reasons[1:]
    gone, *others = [refusing(reason) for reason in reasons]
    assert await read_all(join(flights, Engine(SCRIPT))) == WHOLE
    assert await asyncio.gather(*map(read_all, others)) == [WHOLE] * 2
    await gone.aclose()

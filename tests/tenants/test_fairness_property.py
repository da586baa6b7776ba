"""The fair queue under arrivals, ends and cancellations in any order: no slot is lost, and nobody waits for nothing."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from fair_play import caller, fair_queue
from hypothesis import given, settings
from hypothesis import strategies as st

from forebay.tenants.fairness import Turn
from forebay.types import Caller

KEYS = [caller("a"), caller("b"), caller("c"), caller("d"), caller("e", "batch"), caller("f", "batch")]
NUMBERS = st.integers(0, 10**6)
JOIN = st.tuples(st.just("join"), NUMBERS, st.sampled_from([1, 1, 1, 2, 3, 8]))
OTHER = st.tuples(st.sampled_from(["token", "token", "end", "end", "cancel", "leave"]), NUMBERS, st.integers(0, 3))


@dataclass(eq=False)
class Asked:
    who: Caller
    turn: Turn
    waiter: asyncio.Task[None]

    @property
    def waits(self) -> bool:
        return not self.waiter.done()


@dataclass
class Play:
    """One queue, and all that is in it."""

    num_slots: int
    num_kept: int
    here: list[Asked] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.queue = fair_queue(self.num_slots, self.num_kept)
        self.most = self.num_slots - self.queue.num_kept

    def do(self, what: str, number: int, amount: int) -> None:
        if what == "join":
            who = KEYS[number % len(KEYS)]
            turn = self.queue.join(who, amount, number % 50)
            self.here.append(Asked(who, turn, asyncio.create_task(turn.wait())))
        elif chosen := [one for one in self.here if one.waits == (what == "cancel")]:
            one = chosen[number % len(chosen)]
            if what == "cancel":
                one.waiter.add_done_callback(lambda _: one.turn.leave())
                one.waiter.cancel()
                self.here.remove(one)
            elif what == "token":
                one.turn.generated(amount)
            elif what == "leave" or one.turn.num_sequences == 1:
                one.turn.leave()
                self.here.remove(one)
            else:
                one.turn.ended()

    def check(self) -> None:
        queue = self.queue
        running, waiting = ([one for one in self.here if one.waits == waits] for waits in (False, True))
        assert queue.num_running == sum(one.turn.num_slots for one in running) <= self.num_slots
        assert queue.num_waiting == sum(one.turn.num_sequences for one in waiting)
        assert all(one.turn.num_slots == min(one.turn.num_sequences, one.turn.num_slots) > 0 for one in running)
        num_free = self.num_slots - queue.num_running
        singles = [one for one in waiting if one.turn.num_sequences == 1]
        if len(singles) == len(waiting):
            assert not waiting or num_free <= queue.num_kept
            for one in waiting if num_free else []:
                own = sum(other.turn.num_slots for other in running if other.who == one.who)
                assert one.who.priority == "batch" or own >= queue.num_kept

    async def drain(self) -> None:
        """With no more arrivals everybody gets a turn, as long as those who run end."""
        while self.here:
            running = [one for one in self.here if not one.waits]
            assert running
            running[0].turn.leave()
            self.here.remove(running[0])
            await settle()
            self.check()
        assert (self.queue.num_running, self.queue.num_waiting) == (0, 0)


async def settle() -> None:
    """Those who were told have heard."""
    for _ in range(3):
        await asyncio.sleep(0)


@settings(max_examples=300, deadline=None)
@given(
    st.integers(1, 12),
    st.integers(0, 4),
    st.lists(st.tuples(st.one_of(JOIN, JOIN, OTHER, OTHER, OTHER), st.booleans()), max_size=80),
)
def test_no_slot_is_lost_and_none_is_idle(
    num_slots: int, num_kept: int, steps: list[tuple[tuple[str, int, int], bool]]
) -> None:
    """Slots are never exceeded, nobody waits while a slot is free that is not kept from him, those who are cancelled
    leave nothing behind, even in the moment in which they were told to go on, and all get their turn."""

    async def scenario() -> None:
        play = Play(num_slots, num_kept)
        for step, pause in steps:
            play.do(*step)
            if pause:
                await settle()
                play.check()
        await settle()
        play.check()
        await play.drain()

    asyncio.run(scenario())

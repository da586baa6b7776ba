"""The fair queue in lockstep with an engine: shares between keys and classes, kept slots, requests of many
sequences."""

from __future__ import annotations

import asyncio
import random

import pytest
from fair_play import Engine, caller, fair_queue

from forebay.tenants.fairness import FairQueue
from forebay.tenants.virtual_counters import SWEEP_AT, VirtualCounters

MOST_TOKENS, MOST_PROMPT = 60, 100


@pytest.mark.parametrize("num_slots", [1, 4, 32])
async def test_keys_that_wait_are_served_alike(num_slots: int) -> None:
    """However many requests a key has waiting, counters stay within the paper's bound of each other (twice the
    tokens that the engine can hold), and service within twice that, from any moment to any other."""
    bound = 2 * num_slots * (MOST_PROMPT + MOST_TOKENS)
    engine, rng = Engine(fair_queue(num_slots)), random.Random(num_slots)
    depths = {"five": 5, "ten": 10, "hundred": 100}
    seen = []
    for _ in range(3000):
        for key, depth in depths.items():
            engine.keep_waiting(key, depth, rng)
        engine.step()
        counters = {job.key: job.turn.flow.counter for job in engine.jobs}
        assert max(counters.values()) - min(counters.values()) <= bound
        seen.append([engine.served[one] - engine.served["hundred"] for one in ("five", "ten")])
    for differences in zip(*seen, strict=True):
        assert max(differences) - min(differences) <= 2 * bound


async def test_time_without_requests_gives_no_credit() -> None:
    """A key that comes back after a long pause shares from then on, and does not go first until it has caught up."""
    engine, rng = Engine(fair_queue(8)), random.Random(1)
    for _ in range(2000):
        engine.keep_waiting("busy", 5, rng)
        engine.step()
    before = engine.served["busy"]
    for _ in range(2000):
        engine.keep_waiting("busy", 5, rng)
        engine.keep_waiting("back", 50, rng)
        engine.step()
    assert engine.served["back"] == pytest.approx(engine.served["busy"] - before, rel=0.15)


async def test_leaving_the_queue_sheds_no_debt() -> None:
    """A key that was served more than one that waited, and comes back, waits until that one has caught up."""
    engine = Engine(fair_queue(1))
    engine.ask("greedy", 1000)
    patient = [engine.ask("patient", 10) for _ in range(50)]
    engine.run(1000)
    again = engine.ask("greedy", 10)
    engine.run(10 * 50)
    assert not any(job in engine.jobs for job in patient)
    assert again.runs


async def test_a_newcomer_starts_at_once() -> None:
    """The kept slots are for keys that run little: one with hundreds of long jobs leaves them free, alone on the engine
    too, and takes no more than the others leave while they are in use."""
    engine = Engine(fair_queue(64, 4))
    hog = [engine.ask("hog", 1000) for _ in range(200)]
    assert sum(job.runs for job in hog) == 60
    chats = [engine.ask("chat", 5) for _ in range(6)]
    assert [job.runs for job in chats] == [True] * 4 + [False] * 2
    engine.run(5)
    assert all(job.runs for job in chats[4:])
    for _ in range(300):
        newcomer = engine.ask("chat", 5)
        assert newcomer.runs
        engine.run(5)
    assert engine.queue.num_running == 60


async def test_two_who_run_much_keep_the_slots_free_too() -> None:
    """And those who run little share all of them."""
    engine = Engine(fair_queue(64, 4))
    for number in range(200):
        engine.ask(f"hog {number % 2}", 500)
    assert engine.queue.num_running == 60
    small = [engine.ask(f"key {number}", 100) for number in range(10)]
    assert sum(job.runs for job in small) == 4
    assert engine.queue.num_running == 64


async def test_without_kept_slots_a_newcomer_is_the_next() -> None:
    """It waits for the first sequence to end, not for the queue."""
    engine = Engine(fair_queue(4, 0))
    for number in range(100):
        engine.ask("hog", 50 + number)
    engine.run(10)
    newcomer = engine.ask("chat", 5)
    assert not newcomer.runs
    engine.run(40)
    assert newcomer.runs


@pytest.mark.parametrize(("num_slots", "num_kept"), [(1, 0), (4, 0), (15, 0), (16, 1), (64, 4), (256, 8)])
async def test_kept_slots_by_themselves(num_slots: int, num_kept: int) -> None:
    """A sixteenth, at most eight; none where there are few."""
    assert fair_queue(num_slots, None).num_kept == num_kept


async def test_one_slot_is_left_to_those_who_run_much() -> None:
    """More kept slots than slots would be an engine that serves nobody but newcomers."""
    engine = Engine(fair_queue(4, 100))
    jobs = [engine.ask("hog", 10) for _ in range(8)]
    assert engine.queue.num_kept == 3
    while any(not job.runs for job in jobs if job in engine.jobs):
        engine.step()


async def test_batch_gets_a_tenth_while_chats_wait() -> None:
    """However many keys there are in either class; alone, it gets all."""
    engine, rng = Engine(fair_queue(16, 0)), random.Random(2)
    for _ in range(4000):
        engine.keep_waiting("chat", 10, rng)
        for number in range(5):
            engine.keep_waiting(f"batch {number}", 30, rng, "batch")
        engine.step()
    batch = sum(engine.served[f"batch {number}"] for number in range(5))
    assert batch / engine.served.total() == pytest.approx(0.1, abs=0.02)
    engine.jobs = [job for job in engine.jobs if job.runs or job.key != "chat" or job.turn.leave()]
    engine.run(60)
    assert {job.key.partition(" ")[0] for job in engine.jobs if job.runs} == {"batch"}
    assert engine.queue.num_running == 16


async def test_batch_has_no_claim_to_the_time_before_it_came() -> None:
    """Nor have chats: each class begins with the other, whatever either was served alone."""
    for first, second in (("interactive", "batch"), ("batch", "interactive")):
        engine, rng = Engine(fair_queue(16, 0)), random.Random(4)
        for _ in range(2000):
            engine.keep_waiting(first, 20, rng, first)
            engine.step()
        engine.served.clear()
        for _ in range(2000):
            engine.keep_waiting(first, 20, rng, first)
            engine.keep_waiting(second, 20, rng, second)
            engine.step()
        assert engine.served["batch"] / engine.served.total() == pytest.approx(0.1, abs=0.04)


async def test_chats_go_before_batch() -> None:
    """A chat takes the next free slot although much batch work was there before it, and leaves the kept ones to
    chats."""
    engine = Engine(fair_queue(16, 1))
    for _ in range(50):
        engine.ask("batch", 100, priority="batch")
    engine.ask("other batch", 100, priority="batch")
    assert engine.queue.num_running == 15
    engine.run(50)
    first, *more = [engine.ask(f"chat {number}", 20) for number in range(4)]
    assert first.runs
    engine.run(21)
    assert more[0].runs
    engine.run(40)
    assert not any(job in engine.jobs for job in more[:2])


async def test_batch_is_not_starved_by_many_small_keys() -> None:
    """Keys that run little keep the kept slots busy without end; a class behind its share may use them as well."""
    engine, rng = Engine(fair_queue(32, 2)), random.Random(3)
    for _ in range(4000):
        for number in range(40):
            engine.keep_waiting(f"chat {number}", 1, rng)
        engine.keep_waiting("batch", 5, rng, "batch")
        engine.step()
    assert engine.served["batch"] / engine.served.total() == pytest.approx(0.1, abs=0.02)


@pytest.mark.parametrize("num_kept", [0, 4])
async def test_many_sequences_are_not_starved_by_single_ones(num_kept: int) -> None:
    """A request that needs eight slots at once gets them although newcomers with one never stop to come."""
    engine = Engine(fair_queue(16, num_kept))
    for number in range(40):
        engine.ask(f"first {number}", 7 + number % 5)
    wide = engine.ask("wide", 10, n=8)
    for number in range(400):
        engine.ask(f"newcomer {number}", 8)
        engine.ask(f"another {number}", 8)
        engine.step()
        if wide.runs:
            break
    assert wide.runs
    assert number < 60


async def test_what_comes_free_is_held_for_the_next_in_order() -> None:
    """Neither another key nor batch takes the slots that a request of several sequences waits for, and when it leaves
    they can be had at once."""
    queue = fair_queue(4)
    running = queue.join(caller("one"), 2, 1)
    wide = queue.join(caller("wide"), 4, 1)
    others = [queue.join(caller("other"), 1, 1), queue.join(caller("batch", "batch"), 1, 1)]
    assert queue.num_waiting == 6
    wide.leave()
    assert queue.num_waiting == 0
    for turn in (running, *others):
        turn.leave()
    assert queue.num_running == 0


@pytest.mark.parametrize(("num_slots", "num_kept", "held"), [(1, 0, 1), (8, 2, 6)])
async def test_more_sequences_than_slots_still_run(num_slots: int, num_kept: int, held: int) -> None:
    """They hold all that one request may have until fewer of them are left."""
    queue = fair_queue(num_slots, num_kept)
    turn = queue.join(caller("wide"), 20, 1)
    assert (turn.num_slots, queue.num_running, queue.num_waiting) == (held, held, 0)
    waiting = queue.join(caller("wide"), 1, 1)
    for left in range(19, -1, -1):
        turn.ended()
        assert turn.num_slots == min(left, held)
        assert bool(waiting.num_slots) == (left < held)
    turn.leave()
    waiting.leave()
    assert queue.num_running == 0


async def test_the_engine_runs_first_whose_key_runs_least() -> None:
    """In the engine's own queue, where its memory is what lacks, a newcomer passes the hog's, and chats pass batch."""
    queue = fair_queue(8)
    hog = [queue.join(caller("hog"), 1, 1).priority for _ in range(3)]
    batch = [queue.join(caller("batch", "batch"), 1, 1).priority for _ in range(2)]
    newcomer = queue.join(caller("new"), 1, 1).priority
    assert newcomer <= hog[0] < hog[1] < hog[2] < batch[0] < batch[1]


async def test_what_nobody_reads_holds_no_slot() -> None:
    """The engine has finished with a sequence whose client does not read: the slot goes to the next, and is not counted
    twice when the client does."""
    num_open = 2
    queue = FairQueue(num_slots=lambda: 2, num_kept=0, num_open=lambda: num_open)
    unread = [queue.join(caller("slow"), 1, 1) for _ in range(2)]
    waiting = [queue.join(caller(f"key {number}"), 1, 1) for number in range(3)]
    num_open = 1
    async with asyncio.timeout(5):
        await waiting[0].wait()
    num_open = 2
    await asyncio.sleep(0.2)
    assert not waiting[1].num_slots
    unread[0].leave()
    assert not waiting[1].num_slots
    unread[1].leave()
    assert waiting[1].num_slots
    for turn in waiting:
        turn.leave()
    assert (queue.num_running, queue.num_waiting) == (0, 0)


async def test_what_was_just_handed_over_is_no_idle_slot() -> None:
    """An engine that has not counted it yet has fewer sequences in one look, and is not given another for it."""
    looks: list[int] = []
    enough = asyncio.Event()

    def num_open() -> int:
        looks.append(1 + len(looks) % 2)
        if len(looks) == 6:
            enough.set()
        return looks[-1]

    queue = FairQueue(num_slots=lambda: 2, num_kept=0, num_open=num_open)
    turns = [queue.join(caller("key"), 1, 1) for _ in range(3)]
    async with asyncio.timeout(5):
        await enough.wait()
    assert queue.num_running == 2
    for turn in turns:
        turn.leave()


async def test_keys_that_went_are_forgotten() -> None:
    """Those whose counters would be lifted anyway; users of an identity provider are keys without end."""
    counters: VirtualCounters[int] = VirtualCounters()
    for number in range(20 * SWEEP_AT):
        flow = counters.join(f"key {number}", number)
        flow.counter += 10
        counters.leave(flow, number)
    assert len(counters) <= 2 * SWEEP_AT


async def test_passing_through_is_joining_and_leaving_at_once() -> None:
    """While nobody waits: the same counters, for keys that come back and for new ones."""
    passed, joined = VirtualCounters[int](), VirtualCounters[int]()
    rng = random.Random(1)
    for number in range(500):
        key, cost = rng.randrange(20), rng.randrange(100)
        ours, theirs = passed.pass_through(key), joined.join(key, number)
        joined.leave(theirs, number)
        assert ours.counter == theirs.counter
        ours.counter += cost
        theirs.counter += cost

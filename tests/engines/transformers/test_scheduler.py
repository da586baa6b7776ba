"""Who takes the next step, with how many tokens, and who gives way when memory is short."""

from __future__ import annotations

from making import RowMaker

from forebay.engines.transformers_impl.blocks import BLOCK_SIZE, BlockPool
from forebay.engines.transformers_impl.scheduler import Limits, ScheduledRow, Scheduler
from forebay.engines.transformers_impl.sequence import Sequence

MAKER = RowMaker()


def scheduler(num_blocks: int = 1000, *, max_rows: int = 8, max_tokens: int = 256, mixed: int = 64) -> Scheduler:
    return Scheduler(BlockPool(num_blocks), Limits(max_rows=max_rows, max_tokens=max_tokens, mixed_prefill=mixed))


def step(of: Scheduler) -> list[ScheduledRow]:
    """One step with a model that always says token 1."""
    rows = of.schedule()
    for row in rows:
        sampling = row.samples
        row.sequence.num_computed += row.length
        if sampling:
            row.sequence.output_ids.append(1)
    return rows


def who(rows: list[ScheduledRow]) -> list[Sequence]:
    return [row.sequence for row in rows]


def test_first_come_first_served_within_a_priority() -> None:
    """With one slot, lower priority numbers go first, and of equals the one that came first."""
    of = scheduler(max_rows=1)
    later, low, first, urgent = (MAKER.row(priority=priority) for priority in (1, 2, 1, -1))
    for sequence in (first, later, low, urgent):
        of.add(sequence)
    served = []
    for _ in range(4):
        [row] = step(of)
        served.append(row.sequence)
        of.finish(row.sequence)
    assert served == [urgent, later, first, low]


def test_a_long_prompt_leaves_room_for_running_rows() -> None:
    """While a row decodes it takes part in every step; the prompt beside it is read in chunks of the mixed limit."""
    of = scheduler()
    running, long = MAKER.row(10), MAKER.row(300)
    of.add(running)
    step(of)
    of.add(long)
    lengths = []
    while not long.output_ids:
        rows = step(of)
        assert rows[0].sequence is running
        assert rows[0].length == 1
        lengths.append(rows[1].length)
    assert lengths == [64, 64, 64, 64, 44]


def test_alone_a_prompt_takes_the_whole_budget() -> None:
    """Where nothing decodes, a step reads as many prompt tokens as the budget allows, of several prompts if need be."""
    of = scheduler()
    first, second = MAKER.row(300), MAKER.row(100)
    of.add(first)
    of.add(second)
    assert [(row.sequence, row.start, row.length) for row in step(of)] == [(first, 0, 256)]
    assert [(row.sequence, row.start, row.length) for row in step(of)] == [(first, 256, 44), (second, 0, 100)]


def test_rows_beyond_the_slots_wait() -> None:
    """No more rows run than there are slots; one that ends makes room for the next at the following step."""
    of = scheduler(max_rows=2)
    rows = [MAKER.row() for _ in range(3)]
    for sequence in rows:
        of.add(sequence)
    assert who(step(of)) == rows[:2]
    of.finish(rows[0])
    assert who(step(of)) == [rows[1], rows[2]]


def test_a_request_without_memory_waits_and_holds_the_line() -> None:
    """A prompt that does not fit now waits for blocks; later, smaller ones do not overtake it."""
    of = scheduler(num_blocks=9)
    first, large, small = MAKER.row(4 * BLOCK_SIZE), MAKER.row(6 * BLOCK_SIZE), MAKER.row(3)
    for sequence in (first, large, small):
        of.add(sequence)
    assert who(step(of)) == [first]
    of.finish(first)
    assert who(step(of)) == [large, small]


def test_the_last_comer_gives_way_when_memory_runs_out() -> None:
    """When rows outgrow the pool, the one that came last loses its blocks, waits, and later reads its tokens again."""
    of = scheduler(num_blocks=6)
    first, last = MAKER.row(2 * BLOCK_SIZE - 2), MAKER.row(2 * BLOCK_SIZE - 2)
    of.add(first)
    of.add(last)
    assert who(step(of)) == [first, last]
    while last in of.running:
        rows = step(of)
    assert who(rows) == [first]
    assert (last.slot, last.blocks, last.num_computed) == (None, [], 0)
    num_generated = len(last.output_ids)
    of.finish(first)
    [row] = of.schedule()
    assert (row.sequence, row.start, row.length) == (last, 0, 2 * BLOCK_SIZE - 2 + num_generated)
    assert row.samples


def test_removed_requests_free_slots_and_blocks() -> None:
    """A request that is removed takes its waiting and running choices with it, and all memory comes back."""
    of = scheduler(max_rows=2)
    leaving, staying = MAKER.rows(40, n=3), MAKER.row(40)
    for sequence in (*leaving, staying):
        of.add(sequence)
    step(of)
    of.fork(leaving[0])
    assert len(of.running) == 2
    of.remove(leaving[0].request_id)
    assert who(step(of)) == [staying]
    of.finish(staying)
    assert not of.has_work
    assert of.pool.num_free == of.pool.num_blocks


def test_choices_wait_for_their_sibling_and_share_its_prompt() -> None:
    """The prompt is read once; its full blocks are shared by the choices, the partial one is each choice's own."""
    of = scheduler()
    first, second, third = MAKER.rows(2 * BLOCK_SIZE + 3, n=3)
    for sequence in (first, second, third):
        of.add(sequence)
    assert who(step(of)) == [first]
    assert of.fork(first) == [second, third]
    assert first.blocks[:2] == second.blocks[:2] == third.blocks[:2]
    assert len({first.blocks[2], second.blocks[2], third.blocks[2]}) == 3
    for sequence in (second, third):
        sequence.output_ids.append(1)
    assert [(row.start, row.length) for row in step(of)] == [(2 * BLOCK_SIZE + 3, 1)] * 3
    for sequence in (first, second, third):
        of.finish(sequence)
    assert of.pool.num_free == of.pool.num_blocks


def test_choices_without_room_beside_their_sibling_read_the_prompt_themselves() -> None:
    """With fewer slots than choices, those left over wait like any other request."""
    of = scheduler(max_rows=2)
    first, second, third = MAKER.rows(40, n=3)
    for sequence in (first, second, third):
        of.add(sequence)
    step(of)
    assert of.fork(first) == [second]
    second.output_ids.append(1)
    of.finish(first)
    assert [(row.sequence, row.length) for row in step(of)] == [(second, 1), (third, 40)]

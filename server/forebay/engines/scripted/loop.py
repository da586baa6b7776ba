"""The scripted engine's step loop: admits choices into slots, steps those that are due, frees slots."""

from __future__ import annotations

import asyncio
import heapq
import time
from itertools import count

from forebay.engines.base import EngineLoad
from forebay.engines.scripted.choice import Choice
from forebay.engines.scripted.job import Job
from forebay.engines.scripted.journal import Event, Journal
from forebay.engines.scripted.prefix import PrefixIndex
from forebay.errors import ApiError, InternalError

TICK_S = 0.001
"""uvloop's timers count milliseconds: a shorter wait would be none at all, over and over."""


class ScriptedDeath(Exception):
    """The failpoint `die`: it ends the loop as any defect would."""


class StepLoop:
    """One task of the event loop steps every running choice; work and closures take effect at its next step."""

    def __init__(self, max_num_seqs: int, max_model_len: int, journal: Journal | None) -> None:
        self.num_steps = 0
        self.num_prompt_tokens = 0
        self.num_generated_tokens = 0
        self._num_slots = max_num_seqs
        self._kv_tokens = max_num_seqs * max_model_len
        self._journal = journal
        self._prefixes = PrefixIndex()
        self._order = count()
        self._waiting: list[tuple[int, int, Choice, Job]] = []
        self._due: list[tuple[float, int, Choice, Job]] = []
        self._running: dict[Choice, Job] = {}
        self._closing: list[Job] = []
        self._hung_by: Job | None = None
        self._wake = asyncio.Event()

    def submit(self, job: Job) -> None:
        for choice in job.choices:
            heapq.heappush(self._waiting, (job.request.priority, next(self._order), choice, job))
        self._wake.set()

    def abort(self, job: Job) -> None:
        """At the next step."""
        self._closing.append(job)
        job.closed = True
        self._wake.set()

    def load(self) -> EngineLoad:
        num_kv_tokens = sum(
            len(job.request.prompt.token_ids) + choice.num_tokens for choice, job in self._running.items()
        )
        return EngineLoad(
            running=len(self._running),
            waiting=len(self._waiting),
            kv_use=min(1.0, num_kv_tokens / self._kv_tokens),
            num_prompt_tokens=self.num_prompt_tokens,
            num_generated_tokens=self.num_generated_tokens,
            num_steps=self.num_steps,
        )

    def fail_all(self, error: ApiError) -> None:
        """Ends every request there is, after the loop has ended."""
        jobs = {*self._running.values(), *(job for *_, job in self._waiting)}
        self._running.clear()
        self._waiting.clear()
        self._due.clear()
        for job in jobs:
            job.mailbox.fail(error)

    async def run(self) -> None:
        """Until cancelled; raises ScriptedDeath at the failpoint."""
        while True:
            self._wake.clear()
            if self._hung_by is not None and self._hung_by.closed:
                self._hung_by = None
            if self._hung_by is None:
                self._free_closed()
                self._admit()
                self._step()
            await self._until_due()

    async def _until_due(self) -> None:
        """Lets others run, and sleeps where nothing can be done before the next token is due or work arrives."""
        due_at = self._due[0][0] if self._due and self._hung_by is None else None
        delay = None if due_at is None else due_at - time.monotonic()
        if self._wake.is_set() or (delay is not None and delay <= 0):
            await asyncio.sleep(0)
            return
        timer = None if delay is None else asyncio.get_running_loop().call_later(max(delay, TICK_S), self._wake.set)
        try:
            await self._wake.wait()
        finally:
            if timer is not None:
                timer.cancel()

    def _free_closed(self) -> None:
        if not self._closing:
            return
        closing = set(self._closing)
        self._closing.clear()
        for job in closing:
            for choice in job.choices:
                self._free(choice, job, "abort")
        self._waiting = [entry for entry in self._waiting if entry[3] not in closing]
        heapq.heapify(self._waiting)

    def _admit(self) -> None:
        while self._waiting and len(self._running) < self._num_slots:
            *_, choice, job = heapq.heappop(self._waiting)
            prompt = job.request.prompt.token_ids
            choice.num_cached_tokens = self._prefixes.match_and_add(job.request.cache_salt, prompt)
            choice.admitted_at = time.monotonic()
            self._running[choice] = job
            due_at = choice.admitted_at + job.directives.first_token_s
            heapq.heappush(self._due, (due_at, next(self._order), choice, job))
            if self._journal is not None:
                self._journal.write(job.request.request_id, choice.index, "start", len(prompt))

    def _step(self) -> None:
        now = time.monotonic()
        batch = []
        while self._due and self._due[0][0] <= now:
            batch.append(heapq.heappop(self._due))
        self.num_steps += bool(batch)
        for position, (due_at, _, choice, job) in enumerate(batch):
            if job.closed:
                continue
            if choice.failing:
                self._fail(choice, job)
                if self._hung_by is not None:
                    for entry in batch[position:]:
                        heapq.heappush(self._due, entry)
                    return
                continue
            if choice.num_tokens == 0:
                num_computed = len(job.request.prompt.token_ids) - choice.num_cached_tokens
                self.num_prompt_tokens += num_computed
                job.mailbox.num_prompt_tokens += num_computed
            delta = choice.advance(job.directives.burst)
            self.num_generated_tokens += len(delta.token_ids)
            if self._journal is not None:
                self._journal.write(job.request.request_id, choice.index, "tokens", len(delta.token_ids))
            if choice.finish_reason is None:
                next_at = due_at + job.directives.inter_token_s
                heapq.heappush(self._due, (next_at, next(self._order), choice, job))
            else:
                self._free(choice, job, "finish")
            job.mailbox.put(delta)
            if job.num_open == 0:
                job.mailbox.close()

    def _fail(self, choice: Choice, job: Job) -> None:
        kind = choice.failure.kind if choice.failure is not None else "raise"
        if kind == "die":
            raise ScriptedDeath
        if kind == "hang":
            self._hung_by = job
        else:
            job.mailbox.fail(InternalError("The engine failed on this request."))
            self.abort(job)

    def _free(self, choice: Choice, job: Job, event: Event) -> None:
        if self._running.pop(choice, None) is None:
            return
        job.num_open -= 1
        if self._waiting:  # somebody can have the slot at the next step, due or not
            self._wake.set()
        if self._journal is not None:
            self._journal.write(job.request.request_id, choice.index, event, choice.num_tokens)

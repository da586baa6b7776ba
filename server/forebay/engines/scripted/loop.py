"""The scripted engine's step loop: admits choices into slots, steps those that are due, frees slots."""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import time
from collections.abc import Callable
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
    """Steps every running choice, a step a turn of the event loop; work and closures take effect at its next step.

    Between steps others run; where nothing can be done before a token is due or work arrives, none is scheduled.
    """

    def __init__(
        self, max_num_seqs: int, max_model_len: int, journal: Journal | None, on_death: Callable[[Exception], ApiError]
    ) -> None:
        """`on_death` gets what a step has raised, and says what those who wait are told."""
        self.num_steps = 0
        self.num_prompt_tokens = 0
        self.num_generated_tokens = 0
        self._num_slots = max_num_seqs
        self._kv_tokens = max_num_seqs * max_model_len
        self._journal = journal
        self._on_death = on_death
        self._prefixes = PrefixIndex()
        self._order = count()
        self._waiting: list[tuple[int, int, Choice]] = []
        """A heap: priority, then order of arrival."""
        self._running: dict[Choice, None] = {}
        self._ready: list[Choice] = []
        """Of those that run, the ones of the next step."""
        self._due: list[tuple[float, int, Choice]] = []
        """A heap, by `due_at`: the others that run."""
        self._any_closed = False
        self._hung_by: Job | None = None
        self._loop = asyncio.get_running_loop()
        self._context = contextvars.copy_context()
        """Its log lines must not carry the id of the request that wakes it."""
        self._next: asyncio.Handle | None = None
        self._timer: asyncio.TimerHandle | None = None

    def submit(self, choice: Choice) -> None:
        heapq.heappush(self._waiting, (choice.job.request.priority, next(self._order), choice))
        self._wake()

    def abort(self, job: Job) -> None:
        """At the next step."""
        job.closed = self._any_closed = True
        self._wake()

    def load(self) -> EngineLoad:
        num_kv_tokens = sum(len(choice.job.request.prompt.token_ids) + choice.num_tokens for choice in self._running)
        return EngineLoad(
            running=len(self._running),
            waiting=len(self._waiting),
            kv_use=min(1.0, num_kv_tokens / self._kv_tokens),
            num_prompt_tokens=self.num_prompt_tokens,
            num_generated_tokens=self.num_generated_tokens,
            num_steps=self.num_steps,
        )

    def end(self, error: ApiError) -> None:
        """No further step; `error` ends every request there is. Idempotent."""
        for handle in (self._next, self._timer):
            if handle is not None:
                handle.cancel()
        self._next = self._timer = None
        choices = [*self._running, *(choice for *_, choice in self._waiting)]
        for of in (self._running, self._waiting, self._ready, self._due):
            of.clear()
        for choice in choices:
            choice.job.mailbox.fail(error)

    def _wake(self) -> None:
        if self._next is None:
            self._next = self._loop.call_soon(self._turn, context=self._context)

    def _turn(self) -> None:
        self._next = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._hung_by is not None and self._hung_by.closed:
            self._hung_by = None
        try:
            if self._hung_by is None:
                if self._any_closed:
                    self._free_closed()
                if self._waiting:
                    self._admit()
                self._step()
        except Exception as exc:
            self.end(self._on_death(exc))
        else:
            self._plan()

    def _plan(self) -> None:
        """When the next turn is, if there is anything to wait for. Those who got a Delta read it before."""
        if self._hung_by is not None:
            return
        can_admit = self._waiting and len(self._running) < self._num_slots
        if self._ready or self._any_closed or can_admit:
            self._wake()
        elif self._due:
            delay = self._due[0][0] - time.monotonic()
            if delay <= 0:
                self._wake()
            else:
                self._timer = self._loop.call_later(max(delay, TICK_S), self._wake)

    def _free_closed(self) -> None:
        self._any_closed = False
        for choice in [choice for choice in self._running if choice.job.closed]:
            self._free(choice, "abort")
        self._waiting = [entry for entry in self._waiting if not entry[2].job.closed]
        heapq.heapify(self._waiting)

    def _admit(self) -> None:
        while self._waiting and len(self._running) < self._num_slots:
            *_, choice = heapq.heappop(self._waiting)
            job = choice.job
            prompt = job.request.prompt.token_ids
            choice.num_cached_tokens = self._prefixes.match_and_add(job.request.cache_salt, prompt)
            choice.due_at = choice.admitted_at = time.monotonic()
            self._running[choice] = None
            if job.directives.first_token_s:
                self._put_off(choice, job.directives.first_token_s)
            else:
                self._ready.append(choice)
            if self._journal is not None:
                self._journal.write(job.request.request_id, choice.index, "start", len(prompt))

    def _put_off(self, choice: Choice, delay_s: float) -> None:
        """Steps it so long after its last step was due."""
        choice.due_at += delay_s
        heapq.heappush(self._due, (choice.due_at, next(self._order), choice))

    def _step(self) -> None:
        batch, self._ready = self._ready, []
        if self._due:
            now = time.monotonic()
            while self._due and self._due[0][0] <= now:
                batch.append(heapq.heappop(self._due)[2])
        self.num_steps += bool(batch)
        for position, choice in enumerate(batch):
            job = choice.job
            if job.closed:
                continue
            if choice.failure is not None and choice.failing:
                self._fail(choice)
                if self._hung_by is not None:
                    self._ready += batch[position:]
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
            if choice.finish_reason is not None:
                self._free(choice, "finish")
            elif job.directives.inter_token_s:
                self._put_off(choice, job.directives.inter_token_s)
            else:
                self._ready.append(choice)
            job.mailbox.put(delta)
            if job.num_open == 0:
                job.mailbox.close()

    def _fail(self, choice: Choice) -> None:
        kind = choice.failure.kind if choice.failure is not None else "raise"
        if kind == "die":
            raise ScriptedDeath
        if kind == "hang":
            self._hung_by = choice.job
        else:
            choice.job.mailbox.fail(InternalError("The engine failed on this request."))
            choice.job.closed = self._any_closed = True

    def _free(self, choice: Choice, event: Event) -> None:
        if choice not in self._running:
            return
        del self._running[choice]
        choice.job.num_open -= 1
        if self._journal is not None:
            self._journal.write(choice.job.request.request_id, choice.index, event, choice.num_tokens)

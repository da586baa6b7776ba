"""The step loop: one thread that owns the model, from waiting requests to Deltas."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from queue import Empty, SimpleQueue

import structlog
import torch
from torch import Tensor

from forebay.engines.transformers_impl.logprobs import report_logprobs
from forebay.engines.transformers_impl.output import append_token
from forebay.engines.transformers_impl.runner import Runner
from forebay.engines.transformers_impl.sampler import Sampler
from forebay.engines.transformers_impl.scheduler import ScheduledRow, Scheduler
from forebay.engines.transformers_impl.sequence import Sequence
from forebay.engines.vocabulary import Vocabulary
from forebay.types import Delta

log = structlog.get_logger(__name__)

Outputs = list[tuple[str, Delta | None, int]]
"""Request ids, what their clients get, of one step, and the prompt tokens that were computed for them since the last;
None for a request that was cancelled and has left."""


@dataclass(frozen=True, slots=True)
class Submit:
    sequences: list[Sequence]


@dataclass(frozen=True, slots=True)
class Cancel:
    request_id: str


@dataclass(frozen=True, slots=True)
class Stop:
    pass


Message = Submit | Cancel | Stop


class StepLoop:
    """Steps as long as there is work and sleeps otherwise. `run` is the thread; all else may be called from others.

    Counters only grow and are read without a lock: each is one integer, written by one thread. They count a step before
    what it generated is delivered.
    """

    def __init__(
        self,
        runner: Runner,
        scheduler: Scheduler,
        sampler: Sampler,
        vocabulary: Vocabulary,
        *,
        eos_id: int | None,
        max_model_len: int,
        deliver: Callable[[Outputs], None],
    ) -> None:
        self._runner = runner
        self._scheduler = scheduler
        self._sampler = sampler
        self._vocabulary = vocabulary
        self._eos_id = eos_id
        self._max_model_len = max_model_len
        self._deliver = deliver
        self._inbox: SimpleQueue[Message] = SimpleQueue()
        self._num_submitted = 0
        self._num_received = 0
        self._undelivered: dict[str, int] = {}
        self.num_prompt_tokens = 0
        self.num_generated_tokens = 0
        self.num_steps = 0

    @property
    def num_running(self) -> int:
        return len(self._scheduler.running)

    @property
    def num_waiting(self) -> int:
        return len(self._scheduler.waiting) + self._num_submitted - self._num_received

    @property
    def kv_use(self) -> float:
        return self._scheduler.pool.use

    def submit(self, sequences: list[Sequence]) -> None:
        """The choices of one request, in order; called on one thread only."""
        self._num_submitted += len(sequences)
        self._inbox.put(Submit(sequences))

    def cancel(self, request_id: str) -> None:
        """Takes effect before the next step."""
        self._inbox.put(Cancel(request_id))

    def stop(self) -> None:
        """`run` returns before its next step."""
        self._inbox.put(Stop())

    @torch.inference_mode()
    def run(self) -> None:
        """Returns after `stop`. Raises what the model raises: the engine is then dead."""
        while self._receive():
            self._step()

    def _receive(self) -> bool:
        """Take in what was sent, waiting for it if there is nothing to do; False to end."""
        while True:
            try:
                message = self._inbox.get(block=not self._scheduler.has_work)
            except Empty:
                return True
            match message:
                case Submit(sequences):
                    for sequence in sequences:
                        self._scheduler.add(sequence)
                    self._num_received += len(sequences)
                case Cancel(request_id):
                    self._scheduler.remove(request_id)
                    self._deliver([(request_id, None, self._undelivered.pop(request_id, 0))])
                case Stop():
                    return False

    def _step(self) -> None:
        rows = self._scheduler.schedule()
        if not rows:
            raise RuntimeError("the scheduler has work but no row that can step")
        logits = self._runner.run(rows)
        sampling = [row.sequence for row in rows if row.samples]
        self.num_steps += 1
        self._advance(rows)
        logits, sampling = self._fork(logits, sampling)
        if sampling:
            self._emit(logits.to(self._sampler.device), sampling)

    def _advance(self, rows: list[ScheduledRow]) -> None:
        for row in rows:
            row.sequence.num_computed += row.length
            num_prompt = len(row.sequence.prompt_ids)
            if row.start < num_prompt:
                num_read = min(row.start + row.length, num_prompt) - row.start
                request_id = row.sequence.request_id
                self.num_prompt_tokens += num_read
                self._undelivered[request_id] = self._undelivered.get(request_id, 0) + num_read

    def _fork(self, logits: Tensor, sampling: list[Sequence]) -> tuple[Tensor, list[Sequence]]:
        """Choices that waited for a sibling to read their prompt draw from the same logits as it does."""
        if not self._scheduler.waiting:
            return logits, sampling
        sources = list(range(len(sampling)))
        joined = list(sampling)
        for source, leader in enumerate(sampling):
            if leader.output_ids:
                continue
            for follower in self._scheduler.fork(leader):
                self._runner.copy_prompt(leader, follower)
                sources.append(source)
                joined.append(follower)
        return (logits if len(joined) == len(sampling) else logits[sources]), joined

    def _emit(self, logits: Tensor, sampling: list[Sequence]) -> None:
        token_ids = self._sampler.sample(logits, sampling)
        logprobs = report_logprobs(logits, sampling, token_ids, self._vocabulary)
        outputs: Outputs = []
        for row, (sequence, token_id) in enumerate(zip(sampling, token_ids, strict=True)):
            delta = append_token(sequence, token_id, logprobs.get(row), self._eos_id, self._max_model_len)
            if delta.finish_reason is not None:
                self._scheduler.finish(sequence)
            outputs.append((sequence.request_id, delta, self._undelivered.pop(sequence.request_id, 0)))
        self.num_generated_tokens += len(token_ids)
        self._deliver(outputs)

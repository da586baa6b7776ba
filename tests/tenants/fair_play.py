"""A fair queue with an engine that steps in lockstep: each running sequence gets one token a step."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field

from forebay.tenants.fairness import FairQueue, Turn
from forebay.types import Caller, Priority


def caller(key: str, priority: Priority = "interactive") -> Caller:
    return Caller(tenant="t", key_id=key, priority=priority)


def fair_queue(num_slots: int, num_kept: int | None = 0) -> FairQueue:
    """On an engine that has what the books say."""
    queue: FairQueue = FairQueue(num_slots=lambda: num_slots, num_kept=num_kept, num_open=lambda: queue.num_running)
    return queue


@dataclass
class Job:
    """`num_left`: tokens that its sequences still get, each; `num_unread`: those of a prompt that is still to be
    read."""

    key: str
    turn: Turn
    num_unread: int
    num_left: int

    @property
    def runs(self) -> bool:
        return self.turn.num_slots > 0


@dataclass
class Engine:
    """`served` weighs tokens as the counters do."""

    queue: FairQueue
    jobs: list[Job] = field(default_factory=list)
    served: Counter[str] = field(default_factory=Counter)

    def ask(self, key: str, num_tokens: int, *, prompt: int = 1, n: int = 1, priority: Priority = "interactive") -> Job:
        job = Job(key, self.queue.join(caller(key, priority), n, prompt), prompt, num_tokens)
        self.jobs.append(job)
        return job

    def step(self) -> None:
        for job in [job for job in self.jobs if job.runs]:
            num_sequences = job.turn.num_sequences
            job.turn.generated(num_sequences)
            self.served[job.key] += job.num_unread + 2 * num_sequences
            job.num_unread = 0
            job.num_left -= 1
            if not job.num_left:
                self.jobs.remove(job)
                for _ in range(num_sequences):
                    job.turn.ended()
                job.turn.leave()

    def run(self, num_steps: int) -> None:
        for _ in range(num_steps):
            self.step()

    def keep_waiting(self, key: str, depth: int, rng: random.Random, priority: Priority = "interactive") -> None:
        """Tops up what waits of a key to `depth` requests of 1 to 60 tokens behind prompts of 1 to 100."""
        for _ in range(depth - sum(job.key == key and not job.runs for job in self.jobs)):
            self.ask(key, rng.randint(1, 60), prompt=rng.randint(1, 100), priority=priority)

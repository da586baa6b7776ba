"""Sources for tests of single-flight: scripts that stop where they are told to, and readers at their own pace."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field

from forebay.cache.flight import FlightReader, Flights
from forebay.engines.mailbox import merge_deltas
from forebay.types import Delta

KEY = ("acme", "question")


def script(text: str = "A dam holds water back.", reasoning: str = "") -> list[Delta]:
    """One token a word, reasoning first."""
    deltas = [
        Delta(0, reasoning=f"{word} ", token_ids=(900 + i,), num_reasoning_tokens=1)
        for i, word in enumerate(reasoning.split())
    ]
    deltas += [Delta(0, f"{word} ", (i,)) for i, word in enumerate(text.split())]
    return [*deltas, Delta(0, token_ids=(7,), finish_reason="stop", stop_reason=7)]


@dataclass
class Engine:
    """Runs a script again and again. `fails`: after so many deltas of the n-th run, with this error."""

    deltas: Sequence[Delta] = field(default_factory=script)
    fails: dict[int, tuple[int, Exception]] = field(default_factory=dict)
    others: dict[int, Sequence[Delta]] = field(default_factory=dict)
    """What the n-th run says instead."""
    paused: asyncio.Event | None = None
    paused_at: dict[int, int] = field(default_factory=dict)
    """Where the n-th run waits for `paused`; unset: everywhere."""
    num_runs: int = 0
    num_closed: int = 0
    num_said: int = 0

    def start(self) -> AsyncGenerator[Delta, None]:
        self.num_runs += 1
        return self._run(self.num_runs)

    async def _run(self, number: int) -> AsyncGenerator[Delta, None]:
        ends_at, error = self.fails.get(number, (None, None))
        try:
            for i, delta in enumerate(self.others.get(number, self.deltas)):
                await asyncio.sleep(0)
                if self.paused is not None and self.paused_at.get(number, i if not self.paused_at else -1) == i:
                    await self.paused.wait()
                if i == ends_at and error is not None:
                    raise error
                self.num_said += 1
                yield delta
            if error is not None:
                raise error
        finally:
            try:
                await asyncio.sleep(0)
            finally:
                self.num_closed += 1


def join(flights: Flights, engine: Engine, **options: object) -> FlightReader:
    return flights.join(KEY, engine.start, **options)  # type: ignore[arg-type]


async def read_all(reader: FlightReader, *before: Delta) -> Delta:
    """The whole answer as one delta, with what was read of it before; it leaves."""
    try:
        return merge_deltas([*before, *[delta async for delta in reader]])
    finally:
        await reader.aclose()


async def read_some(reader: FlightReader, num_tokens: int) -> list[Delta]:
    """At least so many tokens of it; it stays."""
    read: list[Delta] = []
    while sum(len(delta.token_ids) for delta in read) < num_tokens:
        read.append(await anext(reader))
    return read


async def settle(num: int = 50) -> None:
    """Lets every task run as far as it can."""
    for _ in range(num):
        await asyncio.sleep(0)

"""The engine seam: what a model backend owes the pipeline, at the level of tokens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from forebay.types import Chat, CountedDeltas, GenerationRequest, Prompt
from forebay.values import value


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What runs.

    `num_slots`: sequences that it steps together. `special_tokens` are those that `skip_special_tokens` hides.
    `step_cpus`: where a thread of the engine's own prepares each step; empty where it may run anywhere.
    `details` holds what the backend chose by itself (thread binding, block size, ...), for /model/info and the log.
    """

    engine: str
    model_id: str
    revision: str | None
    max_model_len: int
    vocab_size: int
    num_slots: int
    device: str
    dtype: str
    chat_template: str | None = None
    special_tokens: frozenset[str] = frozenset()
    step_cpus: tuple[int, ...] = ()
    details: Mapping[str, Any] = field(default_factory=dict)


@value
class EngineHealth:
    """`alive`: the engine can still step. `progressing`: with work present, counters moved within the stall limit."""

    alive: bool
    progressing: bool = True
    reason: str | None = None

    @property
    def ok(self) -> bool:
        return self.alive and self.progressing


@dataclass(frozen=True, slots=True)
class EngineLoad:
    """`running` and `waiting` count choices (sequences); `kv_use` is the used share of KV memory, 0..1.

    The counters only grow, from the start of the engine: prompt tokens computed, tokens generated, engine steps.
    """

    running: int
    waiting: int
    kv_use: float
    num_prompt_tokens: int
    num_generated_tokens: int
    num_steps: int = 0


class Engine(Protocol):
    """A model behind token-level calls. Every implementation passes tests/engines/test_conformance_*.py.

    Errors that leave an engine are `forebay.errors`: `InvalidRequest` and its children for what the client sent,
    `EngineUnavailable` when the engine is dead, starting or closed, `Overloaded` where it bounds its own queue and that
    is full.
    """

    @property
    def info(self) -> EngineInfo: ...

    async def start(self) -> None:
        """Load and warm up; returns when the first request would be served at full speed."""

    async def close(self, timeout_s: float) -> None:
        """Abort what runs, release the device. Idempotent; safe on an engine that is dead or never started."""

    def health(self) -> EngineHealth: ...

    def load(self) -> EngineLoad: ...

    async def render(self, chat: Chat) -> Prompt:
        """Messages through the model's own chat template, off the event loop."""

    async def tokenize(self, text: str, add_special_tokens: bool = True) -> list[int]: ...

    async def detokenize(self, token_ids: list[int]) -> str: ...

    def token_strings(self, token_ids: list[int]) -> list[str]:
        """The text of each token by itself, for `return_token_strs`; a part of a character shows as U+FFFD."""

    def check(self, request: GenerationRequest) -> None:
        """Raises what `generate` raises for what the client sent, before anybody has waited for it."""

    def generate(self, request: GenerationRequest) -> CountedDeltas:
        """Deltas of all choices, interleaved; ends after every choice has finished.

        Closing the iterator aborts the engine's work at its next step. Deltas merge while the consumer is slow.
        """

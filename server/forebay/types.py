"""The values that cross layers: slotted, never assigned to once they are made, free of any model library."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from forebay.values import value

FinishReason = Literal["stop", "length"]
Role = Literal["owner", "admin", "member", "service"]
Scope = Literal["chat", "completions", "tokens", "models", "usage", "metrics", "admin"]
"""What a route asks of its caller."""
Priority = Literal["interactive", "batch"]
CachePolicy = Literal["default", "semantic", "exact", "off"]
"""Which answers may come from the cache: as the server is set for keys that say nothing, to requests that mean the
same, to the very same request only, none."""
Message = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Budget:
    """The most that may be spent in a window: UTC day, week from Monday, calendar month, or in `total`, ever.

    `amount` is in tokens (prompt and completion) or in micro-units of money. A hard budget is never exceeded; a soft
    one is told of.
    """

    amount: int
    unit: Literal["tokens", "money"]
    window: Literal["day", "week", "month", "total"]
    hard: bool = True


@dataclass(frozen=True, slots=True)
class Policy:
    """What a key, or a tenant, may use; None and empty: no limit of its own.

    `queue_share` is the part (0, 1] of the waiting places that it may hold.
    """

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    max_concurrency: int | None = None
    queue_share: float | None = None
    budgets: tuple[Budget, ...] = ()


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks. `tenant` separates prefix caches, limits and bills; `key_id` names the key, never its secret.

    `strict`: its unknown fields are refused. `scopes`: the routes it may use, its role and its key taken together.
    `models`: the names it may use, None for all. `priority`: who goes first where both wait.
    `cache_any_temperature`: it takes a stored answer also where a new one would be drawn by chance. `gateway`: it may
    say in a header for whom it asks. `expires_at`: when its key does, Unix milliseconds.
    """

    tenant: str
    key_id: str
    strict: bool = True
    role: Role = "member"
    scopes: frozenset[Scope] = frozenset()
    models: frozenset[str] | None = None
    priority: Priority = "interactive"
    cache_policy: CachePolicy = "default"
    cache_any_temperature: bool = False
    gateway: bool = False
    key_policy: Policy = Policy()
    tenant_policy: Policy = Policy()
    expires_at: int | None = None

    def can_use(self, model: str) -> bool:
        return self.models is None or model in self.models


@value
class Chat:
    """A conversation before the model's template: canonical messages of `system|user|assistant|tool`, text content."""

    messages: tuple[Message, ...]
    add_generation_prompt: bool = True
    continue_final_message: bool = False
    template_kwargs: Mapping[str, Any] = field(default_factory=dict)

    @property
    def prefill(self) -> str:
        """The beginning of the answer that the last message gives, where it is continued."""
        return str(self.messages[-1]["content"]) if self.continue_final_message else ""


@value
class Prompt:
    """What the model reads. `text` is the rendered prompt where there is one; prompts given as token ids have none.

    `prefill` is the end of `text` that begins the answer already: the last message's content where it is continued.
    """

    token_ids: tuple[int, ...]
    text: str | None = None
    prefill: str = ""


@value
class Sampling:
    """How one choice is drawn; already validated, so every engine honours every field.

    `top_k=None` keeps the whole vocabulary. `num_logprobs=None` returns none, 0 the chosen token's only, k adds the k
    most likely. `logit_bias` adds to logits before temperature. `temperature=0` is greedy.
    Penalties follow OpenAI (presence, frequency: over generated tokens) and CTRL, arXiv:1909.05858 (repetition: over
    prompt and generated tokens), as vLLM applies them.
    """

    max_tokens: int
    min_tokens: int = 0
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int | None = None
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    include_stop_str_in_output: bool = False
    ignore_eos: bool = False
    skip_special_tokens: bool = True
    num_logprobs: int | None = None
    logit_bias: Mapping[int, float] = field(default_factory=dict)

    @property
    def greedy(self) -> bool:
        return self.temperature == 0.0


@value
class GenerationRequest:
    """One prompt, `num_choices` answers.

    `request_id` is ours and unique. `cache_salt` separates prefix caches between tenants. `priority`: lower runs first.
    `metadata` is the client's, read by the scripted engine alone. `whole`: nobody sees it before its end, so that its
    deltas may gather.
    """

    request_id: str
    prompt: Prompt
    sampling: Sampling
    num_choices: int = 1
    cache_salt: str | None = None
    priority: int = 0
    metadata: Mapping[str, str] = field(default_factory=dict)
    whole: bool = False

    def dispatched(self, priority: int, cache_salt: str) -> GenerationRequest:
        """The same as the engine gets it, once its turn has come."""
        return GenerationRequest(
            self.request_id,
            self.prompt,
            self.sampling,
            self.num_choices,
            cache_salt,
            priority,
            self.metadata,
            self.whole,
        )


@value
class Alternative:
    """A token that could have stood at a position. `token_bytes` is the UTF-8 it adds, maybe part of a character."""

    token_id: int
    token: str
    token_bytes: bytes
    logprob: float


@value
class TokenLogprob:
    """The chosen token at one position and the most likely ones there, best first.

    Log-probabilities are of the model's raw distribution, before penalties and temperature: vLLM's `raw_logprobs`.
    """

    chosen: Alternative
    top: tuple[Alternative, ...] = ()


@value
class EngineTimes:
    """Seconds a choice spent in the engine: waiting for its first step, until its first token, from it to its last."""

    queue_s: float
    prefill_s: float
    decode_s: float


@value
class Delta:
    """A piece of one choice.

    `token_ids` are the tokens this piece adds, counted even when `text` is held back for a stop string or an unfinished
    character. `logprobs` is aligned with `token_ids`, or empty. The last delta of a choice carries `finish_reason`.
    `stop_reason` is the matched stop string or stop token id, None at end of sequence. `times` come with it.
    `reasoning` is text that belongs to the model's reasoning and not to its answer; engines leave it empty,
    `chat.reasoning` fills it.
    """

    index: int
    text: str = ""
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()
    finish_reason: FinishReason | None = None
    stop_reason: str | int | None = None
    num_cached_tokens: int = 0
    reasoning: str = ""
    num_reasoning_tokens: int = 0
    times: EngineTimes | None = None


class Deltas(Protocol):
    """A stream of deltas; an async generator is one. `aclose()` ends it early and waits until its work is let go of."""

    def __aiter__(self) -> AsyncIterator[Delta]: ...

    async def __anext__(self) -> Delta: ...

    async def aclose(self) -> None: ...


@value
class EngineWork:
    """What an engine's counters have grown by: prompt tokens computed, which cached ones are not, and generated tokens.

    `untold_prompt_tokens`: that many more may have been computed for a request, of which the engine does not tell.
    """

    prompt_tokens: int = 0
    generated_tokens: int = 0
    untold_prompt_tokens: int = 0


NO_WORK = EngineWork()


Take = Callable[[Delta], bool]
"""Offered a delta; whether it has taken it. It does not wait."""


class CountedDeltas(Deltas, Protocol):
    """What an engine gives. It is closed in any case, also when it was never read."""

    take: Take | None
    """A consumer's that waits for a delta: it is woken only for one that this does not take. None takes none."""

    @property
    def num_tokens(self) -> int:
        """Tokens generated so far, all choices together, handed out or not; final once it has ended or is closed."""

    @property
    def work(self) -> EngineWork:
        """The same as the engine's own counters have it, with what it has read of the prompt."""


@value
class Usage:
    """Tokens of a request, all choices together; the prompt counts once."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0
    reasoning_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens

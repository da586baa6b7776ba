"""What tokens cost: integer micro-units of money per million tokens, by model and kind, in versioned tables."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from forebay.errors import ConfigurationError
from forebay.types import Usage

Micros = Annotated[int, Field(ge=0, le=10**15, strict=True)]
ANY_MODEL = "*"
PER = 1_000_000


class Price(BaseModel):
    """Micro-units per million tokens: 150_000 is 0.15 of the currency for a million.

    `cached`: prompt tokens that the prefix cache held, `reasoning`: completion tokens of the model's reasoning,
    `cache_hit`: all tokens of an answer from the cache. Unset, the first two cost what prompt and completion cost, and
    the last nothing.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    prompt: Micros
    completion: Micros
    cached: Micros | None = None
    reasoning: Micros | None = None
    cache_hit: Micros = 0

    def cost(self, usage: Usage) -> int:
        """Micro-units of a whole request, rounded up once."""
        cached = self.prompt if self.cached is None else self.cached
        reasoning = self.completion if self.reasoning is None else self.reasoning
        total = (
            (usage.prompt_tokens - usage.cached_tokens) * self.prompt
            + usage.cached_tokens * cached
            + (usage.completion_tokens - usage.reasoning_tokens) * self.completion
            + usage.reasoning_tokens * reasoning
        )
        return -(-total // PER)

    def cost_of_hit(self, prompt_tokens: int, completion_tokens: int) -> int:
        """Of an answer from the cache."""
        return -(-(prompt_tokens + completion_tokens) * self.cache_hit // PER)

    def charge(self, usage: Usage, *, is_hit: bool) -> int:
        """Micro-units of a request, whose answer is the engine's, or comes from the cache."""
        return self.cost_of_hit(usage.prompt_tokens, usage.completion_tokens) if is_hit else self.cost(usage)

    def dearest(self, prompt_tokens: int, completion_tokens: int) -> int:
        """The most that so many tokens may come to, generated or from the cache."""
        return max(self.most(prompt_tokens, completion_tokens), self.cost_of_hit(prompt_tokens, completion_tokens))

    def most(self, prompt_tokens: int, completion_tokens: int) -> int:
        """The most that so many tokens may come to, whatever their kinds turn out to be."""
        total = prompt_tokens * max(self.prompt, self.cached or 0)
        total += completion_tokens * max(self.completion, self.reasoning or 0)
        return -(-total // PER)

    def least(self, usage: Usage, *, is_hit: bool) -> int:
        """The least that so many tokens come to, where it is not known which were cached and which reasoning."""
        kinds = replace(
            usage,
            cached_tokens=usage.prompt_tokens if self.cached is not None and self.cached < self.prompt else 0,
            reasoning_tokens=(
                usage.completion_tokens if self.reasoning is not None and self.reasoning < self.completion else 0
            ),
        )
        return self.charge(kinds, is_hit=is_hit)


class PriceTable(BaseModel):
    """The file that `FOREBAY_PRICES_FILE` names. `*` prices the models that have no entry of their own."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: str = Field(min_length=1, max_length=64)
    currency: str = Field("usd", pattern=r"^[a-z]{3}$")
    models: dict[str, Price] = Field(min_length=1)

    def of(self, model: str) -> Price | None:
        """None where the table says nothing of the model."""
        return self.models.get(model) or self.models.get(ANY_MODEL)


def read_prices(path: Path) -> PriceTable:
    """Raises ConfigurationError with the field at fault."""
    try:
        return PriceTable.model_validate_json(path.read_bytes())
    except OSError as exc:
        raise ConfigurationError(f"The price table {path} cannot be read: {exc.strerror}.") from exc
    except ValidationError as exc:
        first = exc.errors(include_url=False)[0]
        field = ".".join(map(str, first["loc"])) or "the file"
        raise ConfigurationError(f"The price table {path} is not valid at {field}: {first['msg']}.") from exc

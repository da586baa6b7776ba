"""Refusals of limits and budgets, in words: which one, whose, and when it is worth trying again."""

from __future__ import annotations

from forebay.errors import BudgetUnavailable, QuotaExceeded, RateLimited
from forebay.tenants.limit_headers import RawHeaders, as_text
from forebay.tenants.limits import LimitName
from forebay.tenants.windows import end_of
from forebay.types import Budget, Policy

ADJECTIVES = {"day": "daily", "week": "weekly", "month": "monthly", "total": "total"}
CLOSED_RETRY_S = 2
NO_RETRY = {"x-should-retry": "false"}


def rate_limited(whose: str, policy: Policy, limit: LimitName, retry_s: int, headers: RawHeaders) -> RateLimited:
    """`whose`: "key" or "tenant"."""
    what = {
        "requests": f"{policy.requests_per_minute} requests per minute",
        "tokens": f"{policy.tokens_per_minute} tokens per minute",
        "concurrency": f"{policy.max_concurrency} requests at a time",
    }[limit]
    return RateLimited(
        f"Rate limit reached for {whose}: {what}. Try again in {retry_s} s.",
        retry_after_s=retry_s,
        headers={**as_text(headers), "retry-after-ms": str(retry_s * 1000)},
    )


def too_large(whose: str, num_tokens: int, limit: int) -> RateLimited:
    """Waiting does not help, so no time is told."""
    return RateLimited(
        f"The request is too large for {whose}: requested {num_tokens} tokens, limit {limit} tokens per minute. "
        "Shorten the prompt or lower the number of tokens to generate.",
        headers=NO_RETRY,
    )


def budget_exceeded(whose: str, budget: Budget, left: int, need: int, day: int) -> QuotaExceeded:
    """`left` and `need` in the budget's unit; `day` is the UTC day of the refusal."""
    end = end_of(budget.window, day)
    renewal = "It is not renewed." if end is None else f"It is renewed at {end:%Y-%m-%dT%H:%M:%SZ}."
    return QuotaExceeded(
        f"The {whose}'s {ADJECTIVES[budget.window]} budget of {_amount(budget, budget.amount)} has "
        f"{_amount(budget, max(left, 0))} left, and this request needs up to {_amount(budget, need)}. {renewal}"
    )


def budget_closed(whose: str, budget: Budget) -> BudgetUnavailable:
    return BudgetUnavailable(
        f"The {whose}'s {ADJECTIVES[budget.window]} budget is shared between servers, and what is left of it cannot be "
        "known right now.",
        retry_after_s=CLOSED_RETRY_S,
    )


def unpriced(whose: str) -> QuotaExceeded:
    return QuotaExceeded(f"The {whose} has a budget in money, and this model has no price (FOREBAY_PRICES_FILE).")


def _amount(budget: Budget, amount: int) -> str:
    """Money in units of its currency, exact to the micro-unit."""
    if budget.unit == "tokens":
        return f"{amount} tokens"
    whole, micro = divmod(amount, 1_000_000)
    return f"{whole}.{micro:06}".rstrip("0").rstrip(".")

"""The bodies of the admin API, which the command line fills, too."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Field, StringConstraints, field_validator
from pydantic_core import PydanticCustomError

from forebay.api.schemas import Body
from forebay.types import Budget, CachePolicy, Priority, Role, Scope

MOST = 10**15
MAX_MODELS_CHARS = 4096
MAX_GRACE_S = 30 * 86_400
DAY_S = 86_400
MAX_QUESTION_CHARS = 4000


def _printable(name: str) -> str:
    """Names are shown on operators' terminals, which would obey control characters."""
    if not name.isprintable():
        raise PydanticCustomError("printable", "Only printable characters may be used")
    return name


Count = Annotated[int, Field(ge=1, le=MOST)]
ModelName = Annotated[str, StringConstraints(min_length=1, max_length=256), AfterValidator(_printable)]


class AdminBody(Body):
    """Unknown fields are refused, whoever asks: what is misspelt here would be a limit that is not there."""

    model_config = ConfigDict(extra="forbid", strict=True)


class BudgetBody(AdminBody):
    """`amount` is in tokens, or in millionths of the currency. `window` is in UTC; `total` never ends."""

    amount: Annotated[int, Field(ge=0, le=MOST)]
    unit: Literal["tokens", "money"]
    window: Literal["day", "week", "month", "total"]
    hard: bool = True


class LimitsBody(AdminBody):
    """null: no limit of its own. `queue_share` is the part of the waiting places."""

    requests_per_minute: Count | None = None
    tokens_per_minute: Count | None = None
    max_concurrency: Count | None = None
    queue_share: Annotated[float, Field(gt=0, le=1)] | None = None
    budgets: list[BudgetBody] = Field(default_factory=list, max_length=8)

    def changes(self) -> dict[str, Any]:
        """What was given, as fields of `Policy`."""
        given = self.model_dump(exclude_unset=True)
        if "budgets" in given:
            given["budgets"] = tuple(Budget(**budget.model_dump()) for budget in self.budgets)
        return given


class KeyChanges(AdminBody):
    """What is left out stays as it is; of a new key it is the default. `expires_at` is Unix time in seconds."""

    name: Annotated[str, StringConstraints(max_length=128), AfterValidator(_printable)] = ""
    role: Role = "member"
    scopes: list[Scope] = Field(default_factory=list, max_length=16, description="Empty: all that the role allows.")
    models: Annotated[list[ModelName], Field(min_length=1, max_length=64)] | None = Field(
        None, description="null: all."
    )
    limits: LimitsBody = LimitsBody()
    priority: Priority = "interactive"
    cache_policy: CachePolicy = "default"
    cache_any_temperature: bool = Field(
        False, description="It takes stored answers at any temperature, without a seed."
    )
    strict: bool | None = Field(None, description="Refuse unknown request fields; null: as the server is set.")
    gateway: bool = Field(False, description="It may say in the trusted header for whom it asks.")
    expires_at: Annotated[int, Field(ge=0, le=2**40)] | None = None

    @field_validator("models")
    @classmethod
    def _check_sum(cls, models: list[str] | None) -> list[str] | None:
        if sum(map(len, models or ())) > MAX_MODELS_CHARS:
            raise PydanticCustomError("too_long", f"Together the names may have {MAX_MODELS_CHARS} characters")
        return models

    def changes(self) -> dict[str, Any]:
        """What was given, as `KeyFields.with_changes` takes it."""
        given = self.model_dump(exclude_unset=True, exclude={"tenant", "limits"})
        if "scopes" in given:
            given["scopes"] = tuple(sorted(set(self.scopes)))
        if given.get("models") is not None:
            given["models"] = tuple(dict.fromkeys(given["models"]))
        if given.get("expires_at") is not None:
            given["expires_at"] *= 1000
        if "limits" in self.model_fields_set:
            given["policy"] = self.limits.changes()
        return given


class NewKey(KeyChanges):
    """`POST /admin/keys`."""

    tenant: str = "default"


class Rotation(AdminBody):
    """`POST /admin/keys/{key_id}/rotate`. For `grace_s` seconds the older secrets work, too."""

    grace_s: Annotated[int, Field(ge=0, le=MAX_GRACE_S)] = DAY_S


class TenantBody(AdminBody):
    """`PUT /admin/tenants/{name}`: all of its limits, for all its keys together."""

    limits: LimitsBody


class CachePurge(AdminBody):
    """What goes: all that is of the tenant, of the model, of an epoch before `epoch`, as far as these are given."""

    tenant: ModelName | None = None
    model: ModelName | None = None
    epoch: Annotated[int, Field(ge=0, le=MOST)] | None = None


class CacheQuestion(AdminBody):
    """Whether the answer to `stored` may be given to `asked`: for the tenant of the key, or another owner of answers, a
    tenant or `group:NAME`."""

    asked: Annotated[str, StringConstraints(min_length=1, max_length=MAX_QUESTION_CHARS)]
    stored: Annotated[str, StringConstraints(min_length=1, max_length=MAX_QUESTION_CHARS)]
    owner: ModelName | None = None


class CacheLabels(AdminBody):
    """What a server has exported of an owner's labels; null: forget them, and observe anew."""

    state: dict[str, Any] | None


ADMIN_BODIES = (NewKey, KeyChanges, Rotation, TenantBody, CachePurge, CacheQuestion, CacheLabels)

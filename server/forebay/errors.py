"""Everything that may go wrong and reach a client, in one tree.

    ForebayError
    |-- ConfigurationError           ends the process with a sentence, never crosses HTTP
    `-- ApiError                     status  type                    code
        |-- InvalidRequest           400     invalid_request_error   invalid_value
        |   |-- UnsupportedParameter 400     invalid_request_error   unsupported_parameter
        |   `-- ContextTooLong       400     invalid_request_error   context_length_exceeded
        |-- Unauthenticated          401     authentication_error    invalid_api_key
        |-- PermissionDenied         403     permission_error        permission_denied
        |-- NotFound                 404     not_found_error         not_found
        |   `-- ModelNotFound        404     not_found_error         model_not_found
        |-- MethodNotAllowed         405     invalid_request_error   method_not_allowed
        |-- RequestHeadTimeout       408     invalid_request_error   request_head_timeout
        |-- AnswerNotStored          409     invalid_request_error   idempotency_answer_not_stored
        |-- BodyTooLarge             413     invalid_request_error   request_too_large
        |-- UnsupportedMediaType     415     invalid_request_error   unsupported_media_type
        |-- IdempotencyConflict      422     invalid_request_error   idempotency_conflict
        |-- RateLimited              429     rate_limit_error        rate_limit_exceeded
        |   `-- QuotaExceeded        429     insufficient_quota      insufficient_quota
        |-- HeadersTooLarge          431     invalid_request_error   headers_too_large
        |-- InternalError            500     server_error            internal_error
        |-- Unavailable              503     server_error
        |   |-- Overloaded                                           overloaded
        |   |-- ShuttingDown                                         shutting_down
        |   |-- StorageUnavailable                                   storage_unavailable
        |   |-- BudgetUnavailable                                    budget_unavailable
        |   |-- IdentityUnavailable                                  identity_unavailable
        |   `-- EngineUnavailable                                    engine_unavailable
        |-- RequestTimeout           504     server_error            timeout
        `-- NotCached                504     invalid_request_error   not_cached

Messages are written for the client: no exception text, path or address of ours may enter them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar


class ForebayError(Exception):
    """Root of our own errors."""


class ConfigurationError(ForebayError):
    """The settings, the machine or the installation cannot serve; the message says what to change."""


class ApiError(ForebayError):
    """An answer other than success. `param` names the request field at fault; `retry_after_s` becomes Retry-After.

    `headers` go with the answer; `can_retry` False tells the SDKs (`x-should-retry`) not to repeat the request.
    """

    status: ClassVar[int] = 500
    type: ClassVar[str] = "server_error"
    code: ClassVar[str] = "internal_error"
    can_retry: ClassVar[bool] = True

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        retry_after_s: float | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after_s = retry_after_s
        self.headers = headers or {}


class InvalidRequest(ApiError):
    status, type, code = 400, "invalid_request_error", "invalid_value"


class UnsupportedParameter(InvalidRequest):
    code = "unsupported_parameter"


class ContextTooLong(InvalidRequest):
    code = "context_length_exceeded"


class Unauthenticated(ApiError):
    status, type, code = 401, "authentication_error", "invalid_api_key"


class PermissionDenied(ApiError):
    status, type, code = 403, "permission_error", "permission_denied"


class NotFound(ApiError):
    status, type, code = 404, "not_found_error", "not_found"


class ModelNotFound(NotFound):
    code = "model_not_found"


class MethodNotAllowed(ApiError):
    status, type, code = 405, "invalid_request_error", "method_not_allowed"


class BodyTooLarge(ApiError):
    status, type, code = 413, "invalid_request_error", "request_too_large"


class UnsupportedMediaType(ApiError):
    status, type, code = 415, "invalid_request_error", "unsupported_media_type"


class IdempotencyConflict(ApiError):
    status, type, code = 422, "invalid_request_error", "idempotency_conflict"
    can_retry = False


class AnswerNotStored(ApiError):
    """The key's request was answered and billed; its answer cannot be given again."""

    status, type, code = 409, "invalid_request_error", "idempotency_answer_not_stored"
    can_retry = False


class RateLimited(ApiError):
    """More than a limit admits; waiting as told helps."""

    status, type, code = 429, "rate_limit_error", "rate_limit_exceeded"


class QuotaExceeded(RateLimited):
    """A hard budget has too little left; trying again before its window ends does not help."""

    type, code = "insufficient_quota", "insufficient_quota"
    can_retry = False


class RequestHeadTimeout(ApiError):
    status, type, code = 408, "invalid_request_error", "request_head_timeout"


class HeadersTooLarge(ApiError):
    status, type, code = 431, "invalid_request_error", "headers_too_large"


class InternalError(ApiError):
    """Ours to fix; the client learns the request id only."""


class Unavailable(ApiError):
    """Worth another try: clients are always told when."""

    status = 503

    def __init__(self, message: str, *, param: str | None = None, retry_after_s: float = 1.0) -> None:
        super().__init__(message, param=param, retry_after_s=retry_after_s)


class Overloaded(Unavailable):
    code = "overloaded"


class ShuttingDown(Unavailable):
    code = "shutting_down"


class StorageUnavailable(Unavailable):
    """What must be written down cannot be, so nothing may begin."""

    code = "storage_unavailable"


class BudgetUnavailable(Unavailable):
    """A budget is shared, and what is left of it cannot be known."""

    code = "budget_unavailable"


class IdentityUnavailable(Unavailable):
    """Who issued a token cannot be asked for the keys that it is checked with."""

    code = "identity_unavailable"


class EngineUnavailable(Unavailable):
    code = "engine_unavailable"


class RequestTimeout(ApiError):
    status, code = 504, "timeout"


class NotCached(ApiError):
    """The client wanted a stored answer or none (`only-if-cached`; RFC 9111, 5.2.1.7), and there is none."""

    status, type, code = 504, "invalid_request_error", "not_cached"
    can_retry = False


def error_body(error: ApiError) -> dict[str, Any]:
    """The one error body, for JSON answers and for SSE frames alike."""
    return {"error": {"message": error.message, "type": error.type, "param": error.param, "code": error.code}}

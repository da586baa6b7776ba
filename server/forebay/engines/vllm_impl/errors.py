"""vLLM's exceptions into ours, in one table; nothing of their text reaches a client."""

from __future__ import annotations

from collections.abc import Callable

import structlog

from forebay.engines.memory import explain_out_of_memory
from forebay.engines.vllm_impl.names import ERRORS, load
from forebay.errors import (
    ApiError,
    EngineUnavailable,
    InternalError,
    InvalidRequest,
    NotFound,
    Overloaded,
)

logger = structlog.get_logger(__name__)

PARAMETERS = {
    "logprobs": "top_logprobs",
    "logit_bias": "logit_bias",
    "stop_token_ids": "stop_token_ids",
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "min_p": "min_p",
    "seed": "seed",
    "prompt_token_ids": "prompt",
}
"""vLLM's parameter names that a client may have sent, by the name it sent them under."""


COMPILERS = ("TORCHDYNAMO_VERBOSE", "torch._dynamo", "torch._inductor", "InductorError", "CppCompileError")
"""In what torch says when code for a model cannot be made."""
EAGER_ADVICE = "FOREBAY_ENFORCE_EAGER=true runs the model without compiling it."
KV_CACHE_ADVICE = "Raise FOREBAY_KV_CACHE_MEMORY_MIB or lower FOREBAY_MAX_MODEL_LEN."


def explain_start(error: Exception, cause: str | None = None) -> str:
    """Why vLLM did not start, for the operator. `cause` is the last error of its process, where there was one."""
    advice = explain_out_of_memory(error) or (cause and explain_out_of_memory(RuntimeError(cause)))
    if advice:
        return advice
    text = cause or str(error)
    if any(name in text for name in COMPILERS):
        return f"vLLM did not start: the model could not be compiled, and the log says why. {EAGER_ADVICE}"
    _, mark, quoted = text.partition("Value error, ")  # pydantic's, among the input it quotes
    if mark:
        text = quoted.partition(" [type=")[0]
    hint = f" {KV_CACHE_ADVICE}" if "gpu_memory_utilization" in text else ""
    return f"vLLM did not start: {text}{hint}"


def engine_died() -> EngineUnavailable:
    return EngineUnavailable("The model's engine stopped while it worked on this request.", retry_after_s=5)


def _invalid(error: Exception) -> ApiError:
    parameter = getattr(error, "parameter", None)
    return InvalidRequest("The model's engine does not accept this request.", param=PARAMETERS.get(str(parameter)))


def _not_found(_: Exception) -> ApiError:
    return NotFound("The model's engine does not know what this request names.")


def _overloaded(_: Exception) -> ApiError:
    return Overloaded("The model's engine has no room for this request now.", retry_after_s=1)


def _retry(_: Exception) -> ApiError:
    return EngineUnavailable("The model's engine lost this request; it may be sent again.", retry_after_s=1)


def _internal(_: Exception) -> ApiError:
    return InternalError("The model's engine failed on this request.")


def _dead(_: Exception) -> ApiError:
    return engine_died()


TABLE: dict[str, Callable[[Exception], ApiError]] = {
    "VLLMError": _internal,
    "VLLMClientError": _invalid,
    "VLLMServerError": _internal,
    "VLLMValidationError": _invalid,
    "VLLMNotFoundError": _not_found,
    "LoRAAdapterNotFoundError": _not_found,
    "VLLMUnprocessableEntityError": _invalid,
    "GenerationError": _internal,
    "RetryableRequestError": _retry,
    "GracefulHTTPError": _internal,
    "QueueOverflowError": _overloaded,
    "MaxQueuedTokensError": _overloaded,
    "ProfilerAlreadyActiveError": _internal,
    "EngineDeadError": _dead,
    "EngineGenerateError": _internal,
}


class ErrorTable:
    """The table with vLLM's classes in place of their names; made once vLLM is imported."""

    def __init__(self) -> None:
        self._by_class: dict[type, Callable[[Exception], ApiError]] = {
            load(name): TABLE[name.attribute] for name in ERRORS
        }
        self._classes = tuple(self._by_class)

    def translate(self, error: Exception) -> ApiError | None:
        """Our error for one of vLLM's, by its nearest known class; None for an exception that is not vLLM's."""
        for kind in type(error).__mro__:
            make = self._by_class.get(kind)
            if make is not None:
                return make(error)
        return None

    def ours(self, error: Exception, request_id: str, *, dead: bool) -> Exception:
        """Our error for one of vLLM's, any other as it is. Any failure of a `dead` engine is its death."""
        ours = engine_died() if dead and not isinstance(error, ApiError) else self.translate(error)
        if ours is None:
            return error
        level = logger.info if ours.status < 500 else logger.error
        level("vllm_error", request_id=request_id, kind=type(error).__name__, cause=type(error.__cause__).__name__)
        ours.__cause__ = error
        return ours

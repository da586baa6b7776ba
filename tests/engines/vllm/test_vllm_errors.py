"""vLLM's exceptions never leave the engine as they are."""

from __future__ import annotations

import importlib
import inspect

import pytest

from forebay.engines.vllm_impl.errors import TABLE, ErrorTable, explain_start
from forebay.errors import (
    ApiError,
    EngineUnavailable,
    InternalError,
    InvalidRequest,
    NotFound,
    Overloaded,
)

pytestmark = pytest.mark.usefixtures("imported_vllm")

SECRET = "/srv/models/secret/path"


@pytest.fixture(scope="module")
def table(imported_vllm: str) -> ErrorTable:
    return ErrorTable()


def classes_of_vllm() -> list[type[Exception]]:
    found = []
    for name in ("vllm.exceptions", "vllm.v1.engine.exceptions"):
        module = importlib.import_module(name)
        found += [kind for kind in vars(module).values() if inspect.isclass(kind) and issubclass(kind, Exception)]
    return found


def instance(kind: type[Exception]) -> Exception:
    """With text that must not reach a client, whatever arguments the class wants."""
    error = kind.__new__(kind, SECRET)
    error.args = (SECRET,)
    return error


def test_every_class_of_vllm_is_in_the_table() -> None:
    """Each exception that vLLM defines is mapped by name, not only through its parents."""
    assert {kind.__name__ for kind in classes_of_vllm()} == set(TABLE)


def test_no_text_of_vllm_reaches_a_client(table: ErrorTable) -> None:
    """The message is ours for every class."""
    for kind in classes_of_vllm():
        ours = table.translate(instance(kind))
        assert isinstance(ours, ApiError)
        assert SECRET not in ours.message


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("VLLMValidationError", InvalidRequest),
        ("VLLMUnprocessableEntityError", InvalidRequest),
        ("LoRAAdapterNotFoundError", NotFound),
        ("QueueOverflowError", Overloaded),
        ("MaxQueuedTokensError", Overloaded),
        ("RetryableRequestError", EngineUnavailable),
        ("EngineDeadError", EngineUnavailable),
        ("EngineGenerateError", InternalError),
        ("GenerationError", InternalError),
    ],
)
def test_the_kind_of_error_is_kept(table: ErrorTable, name: str, expected: type[ApiError]) -> None:
    """Faults of the request stay 4xx, lack of room and death 503, the rest 500."""
    (kind,) = [kind for kind in classes_of_vllm() if kind.__name__ == name]
    assert type(table.translate(instance(kind))) is expected


def test_a_new_subclass_goes_as_its_parent(table: ErrorTable) -> None:
    """What a later vLLM derives from a known class is translated like it."""
    (parent,) = [kind for kind in classes_of_vllm() if kind.__name__ == "VLLMValidationError"]
    novel = type("NovelError", (parent,), {})
    assert type(table.translate(instance(novel))) is InvalidRequest


def test_a_validation_error_names_our_field(table: ErrorTable) -> None:
    """vLLM's `logprobs` is the client's `top_logprobs`; parameters that no client sends are not named."""
    (kind,) = [kind for kind in classes_of_vllm() if kind.__name__ == "VLLMValidationError"]
    named = [table.translate(kind("no", parameter=name)) for name in ("logprobs", "kv_transfer_params")]
    assert [error and error.param for error in named] == ["top_logprobs", None]


def test_they_are_raised_as_ours(table: ErrorTable) -> None:
    """The original is the cause; ours pass through; what is no one's stays, unless the engine is dead."""
    (dead,) = [kind for kind in classes_of_vllm() if kind.__name__ == "EngineDeadError"]
    with pytest.raises(EngineUnavailable) as raised:
        raise table.ours(dead(), "r", dead=False)
    assert isinstance(raised.value.__cause__, dead)
    for engine_is_dead in (False, True):
        with pytest.raises(Overloaded):
            raise table.ours(Overloaded("full"), "r", dead=engine_is_dead)
    with pytest.raises(ZeroDivisionError):
        raise table.ours(ZeroDivisionError(), "r", dead=False)
    with pytest.raises(EngineUnavailable):
        raise table.ours(ZeroDivisionError(), "r", dead=True)


@pytest.mark.parametrize(
    ("error", "cause", "said"),
    [
        (RuntimeError("see above"), "RuntimeError: out of memory", "FOREBAY_MAX_MODEL_LEN"),
        (RuntimeError("see above"), "ValueError: raise `gpu_memory_utilization`", "FOREBAY_KV_CACHE_MEMORY_MIB"),
        (RuntimeError("see above"), "torch._inductor.exc.InductorError: CppCompileError", "FOREBAY_ENFORCE_EAGER"),
        (RuntimeError("see above"), "OSError: no config.json", "no config.json"),
        (
            ValueError("1 error\n  Value error, length is too great [type=v, input_value=X]"),
            None,
            "length is too great",
        ),
    ],
    ids=["memory", "KV cache", "compiler", "other", "pydantic"],
)
def test_a_failed_start_says_why(error: Exception, cause: str | None, said: str) -> None:
    """The operator reads the engine process's last error, and what to change where we know it."""
    sentence = explain_start(error, cause)
    assert said in sentence
    assert "input_value" not in sentence

"""The installed vLLM has what the engine uses, and one that has not is named."""

from __future__ import annotations

import pytest

from forebay.engines.vllm_impl import check_vllm
from forebay.engines.vllm_impl.names import USED, VllmName
from forebay.errors import ConfigurationError

pytestmark = pytest.mark.usefixtures("imported_vllm")


def test_the_installed_vllm_has_every_name() -> None:
    """Each class, function, parameter and member that the engine uses is there."""
    assert check_vllm().startswith("0.3")


@pytest.mark.parametrize(
    ("used", "missing"),
    [
        (VllmName("vllm.nowhere", "Engine"), "vllm.nowhere.Engine"),
        (VllmName("vllm.sampling_params", "NoSuchParams"), "vllm.sampling_params.NoSuchParams"),
        (VllmName("vllm.sampling_params", "SamplingParams", ("n", "luck")), "SamplingParams(luck=)"),
        (VllmName("vllm.v1.engine.async_llm", "AsyncLLM", (), ("generate", "divine")), "AsyncLLM.divine"),
    ],
    ids=["module", "name", "parameter", "member"],
)
def test_what_is_missing_is_named(used: VllmName, missing: str) -> None:
    """A release that moved something is refused with a sentence that says what, and which releases fit."""
    with pytest.raises(ConfigurationError) as refusal:
        check_vllm((*USED, used))
    assert missing in str(refusal.value)
    assert "vllm>=0.32,<0.34" in str(refusal.value)


def test_no_more_than_needed_is_used() -> None:
    """The exposure to vLLM's internals stays small: classes and functions, its exceptions aside."""
    objects = {str(name) for name in USED if "exceptions" not in name.module and "forebay" not in name.module}
    assert len(objects) <= 21

"""Which questions are the same one, and which may ever be compared."""

from __future__ import annotations

import dataclasses
import itertools
import json
import unicodedata
from datetime import date
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay.cache.scope import Keys, Question, ScopeKeys, chat_question, completion_question, model_of
from forebay.cache.sharing import read_groups
from forebay.engines.base import EngineInfo
from forebay.errors import ConfigurationError
from forebay.types import Chat, Prompt, Sampling

SECRET = b"s" * 32
INFO = EngineInfo("scripted", "m", "r1", 4096, 1000, 4, "cpu", "float32")
GREEDY = Sampling(16, temperature=0.0)
SYSTEM = {"role": "system", "content": "Be brief."}
KEYS = ScopeKeys(SECRET)


def user(text: str, **fields: str) -> dict[str, str]:
    return {"role": "user", "content": text, **fields}


def asked(
    text: str = "What is a dam?", *, earlier: Any = (SYSTEM,), sampling: Sampling = GREEDY, **chat: Any
) -> Question:
    question = chat_question(Chat((*earlier, user(text)), **chat), sampling, max_tokens=None)
    assert question is not None
    return question


def keys(question: Question, *, tenant: str = "acme", info: EngineInfo = INFO, makes: ScopeKeys = KEYS) -> Keys:
    return makes.of(tenant, model_of(info), question)


def other(field: dataclasses.Field[Any]) -> Any:
    """A value of the field that is not `GREEDY`'s."""
    value = getattr(GREEDY, field.name)
    return {"int": 7, "float": 0.25, "bool": not value, "int | None": 7}.get(
        str(field.type), ("x",) if field.name == "stop" else (7,) if field.name == "stop_token_ids" else {7: 1.0}
    )


@pytest.mark.parametrize(
    "same", ["What is a dam?", "  What is a dam?\n", "\n\nWhat is a dam?\t", "What is a dam?\u00a0"]
)
def test_spaces_at_the_ends_of_a_users_text_do_not_count(same: str) -> None:
    """A question is the same one however it was pasted."""
    assert keys(asked(same)) == keys(asked())


@given(st.text(max_size=30))
def test_composed_and_decomposed_characters_are_the_same(text: str) -> None:
    """Unicode's canonical equivalence: the bytes differ by the keyboard alone."""
    assert keys(asked("x" + unicodedata.normalize("NFD", text))) == keys(
        asked("x" + unicodedata.normalize("NFC", text))
    )


@pytest.mark.parametrize(
    ("one", "another"),
    [
        ("Is US tax due?", "Is us tax due?"),
        ("if a:\n    b()", "if a:\nb()"),
        ("  a:\n  b: 1", "a:\n  b: 1"),
        ("let's eat, grandma", "let's eat grandma"),
        ("what is x²", "what is x2"),
        ("a  b", "a b"),
    ],
)
def test_nothing_else_is_made_equal(one: str, another: str) -> None:
    """Case, spaces inside, indentation, punctuation and compatibility characters tell questions apart."""
    assert keys(asked(one)).exact != keys(asked(another)).exact
    assert keys(asked(one)).scope == keys(asked(another)).scope


@pytest.mark.parametrize("field", dataclasses.fields(Sampling), ids=lambda field: field.name)
def test_every_parameter_that_changes_an_answer_is_in_the_scope(field: dataclasses.Field[Any]) -> None:
    """All of `Sampling` but the number of log-probabilities, and the limit, for which the client's word stands."""
    seeded = dataclasses.replace(GREEDY, temperature=0.5, seed=1)
    changed = dataclasses.replace(seeded, **{field.name: other(field)})
    left_out = field.name in ("max_tokens", "num_logprobs")
    assert (keys(asked(sampling=changed)).scope == keys(asked(sampling=seeded)).scope) is left_out


@pytest.mark.parametrize("change", [{"seed": 5}, {"top_p": 0.5}, {"top_k": 3}, {"min_p": 0.1}])
def test_a_greedy_answer_does_not_depend_on_what_shapes_chance(change: dict[str, Any]) -> None:
    """A client that sends a seed with temperature 0 asks for the same as one that does not."""
    assert keys(asked(sampling=dataclasses.replace(GREEDY, **change))) == keys(asked())


def test_the_limit_is_the_clients_not_what_the_prompt_left_of_the_context() -> None:
    """Texts of different lengths without a limit are of one scope; with different limits they are not."""
    chat = Chat((user("Why?"),))

    def scope(room: int, max_tokens: int | None) -> str:
        question = chat_question(chat, dataclasses.replace(GREEDY, max_tokens=room), max_tokens=max_tokens)
        assert question is not None
        return keys(question).scope

    assert scope(100, None) == scope(90, None)
    assert len({scope(100, None), scope(100, 100), scope(90, 90)}) == 3


def test_scopes_are_told_apart_by_all_that_surrounds_the_text() -> None:
    """Tenant, model, revision, adapter, template, earlier turns, their order and roles, template variables, epoch."""
    turns = ({"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"})
    found = [
        keys(asked()),
        keys(asked(), tenant="acme2"),
        keys(asked(), info=dataclasses.replace(INFO, model_id="n")),
        keys(asked(), info=dataclasses.replace(INFO, revision="r2")),
        keys(asked(), info=dataclasses.replace(INFO, chat_template="{{ messages }}")),
        KEYS.of("acme", model_of(INFO, adapter="lora"), asked()),
        KEYS.of("acme", model_of(INFO, family="deepseek"), asked()),
        keys(asked(), makes=ScopeKeys(SECRET, epoch=1)),
        keys(asked(), makes=ScopeKeys(b"t" * 32)),
        keys(asked(earlier=())),
        keys(asked(earlier=turns)),
        keys(asked(earlier=(SYSTEM, *turns))),
        keys(asked(earlier=(*turns, SYSTEM))),
        keys(asked(earlier=({"role": "user", "content": "Be brief."},))),
        keys(asked(template_kwargs={"enable_thinking": False})),
        keys(asked(template_kwargs={"enable_thinking": 0})),
        keys(asked(template_kwargs={"thinking_budget": 2**70})),
        keys(asked(template_kwargs={"thinking_budget": float("nan")})),
    ]
    named = chat_question(Chat((SYSTEM, user("What is a dam?", name="Ann"))), GREEDY, max_tokens=None)
    without = chat_question(Chat((SYSTEM, user("What is a dam?"))), GREEDY, max_tokens=None, include_reasoning=False)
    found += [keys(question) for question in (named, without) if question is not None]
    for one, another in itertools.combinations(found, 2):
        assert one.scope != another.scope
        assert one.exact != another.exact


@pytest.mark.parametrize("sampling", [GREEDY, Sampling(16, seed=7, stop=("x",)), Sampling(9, logit_bias={7: 1.0})])
def test_a_first_message_is_asked_like_a_later_one(sampling: Sampling) -> None:
    """What its answer depends on is written down in the same way, whether it was looked up or made anew."""
    first, later = (json.loads(asked(earlier=earlier, sampling=sampling).rest) for earlier in ((), (SYSTEM,)))
    assert first.pop("earlier") == []
    assert later.pop("earlier") == [SYSTEM]
    assert first == later
    assert asked(earlier=(), sampling=sampling) == asked(earlier=(), sampling=sampling)


def test_another_embedder_searches_a_scope_of_its_own() -> None:
    """Vectors of two embedders are never compared; the very same question is found all the same."""
    one, other = (keys(asked(), makes=ScopeKeys(SECRET, embedder=name)) for name in ("minilm", "another"))
    assert one.scope != other.scope
    assert one.exact == other.exact


def test_a_text_cannot_pretend_to_be_another_scopes() -> None:
    """What is moved from the text into the turn before it, or back, makes other keys."""
    split = {
        keys(asked(text, earlier=({"role": "user", "content": before},))).exact
        for before, text in (("ab", "cd"), ("a", "bcd"), ("abc", "d"))
    }
    assert len(split) == 3


def test_a_template_that_shows_the_date_makes_a_scope_a_day() -> None:
    """Otherwise yesterday's answer would be given to a prompt that says another day."""
    dated = dataclasses.replace(INFO, chat_template="{{ strftime_now('%d %b %Y') }}")
    assert date.today().isoformat() in model_of(dated)
    assert date.today().isoformat() not in model_of(dataclasses.replace(INFO, chat_template="{{ today }}"))


def test_what_is_no_question() -> None:
    """An answer that has begun, one that no user asked for, and token ids without a text."""
    last = {"role": "assistant", "content": "It is"}
    assert chat_question(Chat((user("a"), last), False, True), GREEDY, max_tokens=None) is None
    assert chat_question(Chat((user("a"), last)), GREEDY, max_tokens=None) is None
    assert chat_question(Chat((SYSTEM,)), GREEDY, max_tokens=None) is None
    assert completion_question(Prompt((1, 2)), GREEDY, max_tokens=None) is None


def test_spaces_count_in_a_completion() -> None:
    """The model goes on where the prompt stops; and a completion is never a chat's answer."""

    def of(text: str) -> Keys:
        question = completion_question(Prompt((1,), text), GREEDY, max_tokens=None)
        assert question is not None
        return keys(question)

    assert of("Once").exact != of("Once ").exact
    assert of("Once").scope == of("Once ").scope != keys(asked("Once", earlier=())).scope
    assert of("e\u0301") == of("\u00e9")
    assert of("\ud800") != of("\ud801")


def test_tenants_share_by_setting_only() -> None:
    """A group's tenants have one scope; nobody else has it, not even a tenant of the group's name."""
    sharing = ScopeKeys(SECRET, groups=read_groups(["eu=acme+globex", "us=initech"]))
    scopes = {
        tenant: keys(asked(), tenant=tenant, makes=sharing) for tenant in ("acme", "globex", "initech", "eu", "x")
    }
    assert scopes["acme"] == scopes["globex"]
    assert len(set(scopes.values())) == 4
    assert scopes["x"] == keys(asked(), tenant="x")
    assert len({keys(asked(), tenant=tenant) for tenant in scopes}) == 5


@pytest.mark.parametrize(
    "given_groups", [["eu"], ["eu="], ["eu=a+"], ["eu=a b"], ["=a"], ["x=a", "y=a"], ["x=a", "x=b"]]
)
def test_sharing_that_cannot_be_meant_is_refused(given_groups: list[str]) -> None:
    """With a sentence that names the setting."""
    with pytest.raises(ConfigurationError, match="FOREBAY_CACHE_SHARING"):
        read_groups(given_groups)

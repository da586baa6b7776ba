"""What a request's metadata tells the scripted engine, and only it; other engines ignore metadata.

    forebay_script          text of which the answer consists, token by token, then the end of sequence
    forebay_script_json     the same with every detail, as a JSON object
                              tokens    list; an item is a text or a token id, and shares no delta when the burst is 1
                              logprobs  list of numbers <= 0, one an item: reported for the item's tokens
                              finish    "stop" (default): the end of sequence follows; "length": the answer ends cut off
                              choices   list of such objects in place of the above, for choice 0, 1, ..., again from 0
    forebay_fail            "raise@K", "hang@K" or "die@K", after K tokens of a choice: this request fails; the engine
                            makes no step until this request is closed; the engine dies as in a crash
    forebay_first_token_ms  in place of the settings' delay
    forebay_inter_token_ms  in place of the settings' delay
    forebay_burst           tokens that one step may give a choice (default: 16 without a delay between tokens, else 1)

Any other key that begins with `forebay_` is refused.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, cast

from forebay.engines.scripted.tokenizer import encode_plain
from forebay.engines.scripted.vocabulary import VOCAB_SIZE
from forebay.errors import InvalidRequest

T = TypeVar("T")
FailureKind = Literal["raise", "hang", "die"]

PREFIX = "forebay_"
FREE_BURST = 16
KEYS = ("script", "script_json", "fail", "first_token_ms", "inter_token_ms", "burst")


@dataclass(frozen=True, slots=True)
class Script:
    """`token_ids` and, aligned, the number of the item each belongs to and the log-probability to report, if any."""

    token_ids: tuple[int, ...]
    items: tuple[int, ...]
    logprobs: tuple[float | None, ...]
    cut_off: bool = False


@dataclass(frozen=True, slots=True)
class Failure:
    kind: FailureKind
    num_tokens: int


@dataclass(frozen=True, slots=True)
class Directives:
    """One request's wishes; `scripts` is empty where the model speaks."""

    scripts: tuple[Script, ...]
    failure: Failure | None
    first_token_s: float
    inter_token_s: float
    burst: int


def plain_directives(first_token_ms: float, inter_token_ms: float) -> Directives:
    """Those of a request that asks for nothing."""
    return Directives((), None, first_token_ms / 1000, inter_token_ms / 1000, _burst_after(inter_token_ms))


def read_directives(metadata: Mapping[str, str], plain: Directives) -> Directives:
    """`plain` with what `metadata` overrides. Raises InvalidRequest naming the key at fault."""
    given = {key[len(PREFIX) :]: value for key, value in metadata.items() if key.startswith(PREFIX)}
    for key in given:
        if key not in KEYS:
            raise _refusal(key, f"is unknown; known are {', '.join(PREFIX + known for known in KEYS)}")
    if not given:
        return plain
    inter_token_s = _read(given, "inter_token_ms", _delay, plain.inter_token_s)
    script: tuple[Script, ...] = (
        (_script_of_items(encode_plain(given["script"]), None, False),) if "script" in given else ()
    )
    return Directives(
        scripts=_read(given, "script_json", _scripts, script),
        failure=_read(given, "fail", _failure, None),
        first_token_s=_read(given, "first_token_ms", _delay, plain.first_token_s),
        inter_token_s=inter_token_s,
        burst=_read(given, "burst", _burst, _burst_after(inter_token_s)),
    )


def _read(given: Mapping[str, str], key: str, parse: Callable[[str], T], default: T) -> T:
    if key not in given:
        return default
    try:
        return parse(given[key])
    except (ValueError, TypeError, KeyError, AttributeError) as exc:
        raise _refusal(key, "is not in the documented form") from exc


def _refusal(key: str, why: str) -> InvalidRequest:
    return InvalidRequest(f"Metadata {PREFIX}{key} {why}.", param="metadata")


def _burst_after(inter_token_delay: float) -> int:
    return 1 if inter_token_delay else FREE_BURST


def _delay(text: str) -> float:
    """Seconds."""
    value = float(text)
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(text)
    return value / 1000


def _burst(text: str) -> int:
    if int(text) < 1:
        raise ValueError(text)
    return int(text)


def _failure(text: str) -> Failure | None:
    kind, _, num_tokens = text.partition("@")
    if kind not in ("raise", "hang", "die") or not num_tokens.isdigit():
        raise ValueError(text)
    return Failure(cast(FailureKind, kind), int(num_tokens))


def _scripts(text: str) -> tuple[Script, ...]:
    value = json.loads(text)
    return tuple(_script(choice) for choice in value.get("choices", [value]))


def _script(value: Any) -> Script:
    if value.keys() - {"tokens", "logprobs", "finish"} or value.get("finish", "stop") not in ("stop", "length"):
        raise ValueError(value)
    logprobs = value.get("logprobs")
    if logprobs is not None and len(logprobs) != len(value["tokens"]):
        raise ValueError(value)
    return _script_of_items(value["tokens"], logprobs, value.get("finish") == "length")


def _script_of_items(values: Sequence[str | int], logprobs: list[Any] | None, cut_off: bool) -> Script:
    token_ids: list[int] = []
    items: list[int] = []
    reported: list[float | None] = []
    for number, value in enumerate(values):
        ids = [_token_id(value)] if isinstance(value, int) else encode_plain(value)
        token_ids += ids
        items += [number] * len(ids)
        reported += [None if logprobs is None else _logprob(logprobs[number])] * len(ids)
    if cut_off and not token_ids:
        raise ValueError(values)
    return Script(tuple(token_ids), tuple(items), tuple(reported), cut_off)


def _token_id(value: int) -> int:
    if not 0 <= value < VOCAB_SIZE:
        raise ValueError(value)
    return value


def _logprob(value: Any) -> float:
    number = float(value)
    if not (math.isfinite(number) and number <= 0):
        raise ValueError(value)
    return number

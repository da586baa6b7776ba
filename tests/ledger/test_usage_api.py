"""GET /v1/organization/usage/completions and /v1/organization/costs, against sums made by hand."""

from __future__ import annotations

import json
import random
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import httpx
import openai
import pytest

from forebay.ledger.prices import PriceTable
from forebay.ledger.rows import Entry
from forebay.ledger.usage import MAX_RESULTS
from support.door import KEY
from support.ledger import LedgerFile
from support.past import make_key, settled, write_past
from support.server import ServerProcess

DAY = 86_400
FIRST = 1_789_948_800  # a midnight, UTC
TOKENS, COSTS = "/v1/organization/usage/completions", "/v1/organization/costs"
PRICES = [
    PriceTable.model_validate(
        {"version": version, "currency": currency, "models": {"*": {"prompt": 1, "completion": 1}}}
    )
    for version, currency in (("1", "usd"), ("2", "usd"), ("3", "eur"))
]


@dataclass(frozen=True)
class Past:
    """A server with six days behind it, and the keys of its people."""

    server: ServerProcess
    requests: list[Entry]
    keys: dict[str, str]
    ids: dict[str, str]

    def get(self, who: str, path: str, **query: Any) -> httpx.Response:
        headers = {"authorization": f"Bearer {self.keys[who]}"}
        return httpx.get(self.server.url + path, params=query, headers=headers, timeout=30)

    def sdk(self, who: str) -> openai.OpenAI:
        return openai.OpenAI(
            base_url=self.server.base_url,
            api_key="unused",
            admin_api_key=self.keys[who],
            max_retries=0,
            _strict_response_validation=True,
        )


@pytest.fixture(scope="module")
def past(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Past]:
    folder = tmp_path_factory.mktemp("past")
    keys, ids = {"owner": KEY}, {}
    for who, tenant in (("admin", "red"), ("member", "red"), ("service", "red"), ("blue", "blue")):
        ids[who], keys[who] = make_key(folder / "data", tenant, role="member" if who == "blue" else who)
    draw = random.Random(7)
    pairs = (("red", ids["member"]), ("red", "r2"), ("blue", ids["blue"]))
    holders = [{"tenant": tenant, "key_id": key_id} for tenant, key_id in pairs]
    requests = [
        settled(
            (FIRST + draw.randrange(6 * DAY)) * 1000 + draw.randrange(1000),
            **draw.choice(holders),
            user_id=draw.choice([None, "ann", "bob"]),
            model=draw.choice(["small", "large"]),
            prompt_tokens=draw.randrange(50, 90),
            cached_tokens=draw.randrange(40),
            completion_tokens=draw.randrange(50, 90),
            reasoning_tokens=draw.randrange(40),
            cost=draw.randrange(10**7),
            price_version=draw.choice([None, "1", "2", "3"]),
            metadata=draw.choice([None, '{"team":"web","a.\\"b":"x"}', '{"team":"ops"}', '{"other":"1"}']),
        )
        for _ in range(500)
    ]
    midnight = (FIRST + DAY) * 1000
    requests += [settled(at, tenant="red", key_id="r2") for at in (midnight - 1, midnight)]
    requests += [settled((FIRST - 9 * DAY) * 1000, user_id=f"u{number}") for number in range(MAX_RESULTS + 1)]
    write_past(folder / "data", sorted(requests, key=lambda request: request.at), PRICES)
    server = ServerProcess(folder / "log", ["--engine", "scripted"], {"FOREBAY_API_KEYS": KEY}).start()
    yield Past(server, requests, keys, ids)
    server.stop()


Group = tuple[str | None, ...]


def summed(
    requests: list[Entry],
    start: int,
    end: int,
    width: int,
    group: Callable[[Entry], Group],
    values: Callable[[Entry], Any],
) -> dict[int, dict[Group, list[int]]]:
    """By bucket and group, the sums of several values."""
    buckets: dict[int, dict[Group, list[int]]] = defaultdict(dict)
    for request in requests:
        if start * 1000 <= request.reserved_at < end * 1000:
            bucket = max(start, request.reserved_at // 1000 // width * width)
            sums = buckets[bucket].setdefault(group(request), [0] * len(values(request)))
            buckets[bucket][group(request)] = [have + more for have, more in zip(sums, values(request), strict=True)]
    return buckets


def token_values(request: Entry) -> tuple[int, ...]:
    return (
        request.prompt_tokens,
        request.cached_tokens,
        request.completion_tokens,
        request.reasoning_tokens,
        1,
    )


def token_results(bucket: dict[str, Any], *names: str) -> dict[Group, list[int]]:
    fields = ("input_tokens", "input_cached_tokens", "output_tokens", "output_reasoning_tokens", "num_model_requests")
    return {tuple(one[name] for name in names): [one[field] for field in fields] for one in bucket["results"]}


def test_the_official_client_reads_days(past: Past) -> None:
    """Six days by tenant and model, to the token; days without requests are empty buckets."""
    with past.sdk("owner") as client:
        page = client.admin.organization.usage.completions(
            start_time=FIRST - DAY, end_time=FIRST + 7 * DAY, limit=31, group_by=["project_id", "model"]
        )
    assert (page.has_more, page.next_page, len(page.data)) == (False, None, 8)
    buckets = page.to_dict()["data"]
    expected = summed(
        past.requests, FIRST - DAY, FIRST + 7 * DAY, DAY, lambda one: (one.tenant, one.model), token_values
    )
    for number, bucket in enumerate(buckets):
        assert (bucket["start_time"], bucket["end_time"]) == (FIRST + (number - 1) * DAY, FIRST + number * DAY)
        assert token_results(bucket, "project_id", "model") == expected.get(bucket["start_time"], {})
        assert all(one["user_id"] is None and one["api_key_id"] is None for one in bucket["results"])


@pytest.mark.parametrize(("width", "limit"), [("1d", 1), ("1h", 7), ("1h", 168), ("1m", 1440)])
def test_pages_hold_every_bucket_once(past: Past, width: str, limit: int) -> None:
    """Ranges that begin and end within a bucket, in pages of any size: the sums of exactly that range."""
    seconds = {"1m": 60, "1h": 3600, "1d": DAY}[width]
    start, end = FIRST + 1234, FIRST + 3 * DAY + 17
    expected = summed(past.requests, start, end, seconds, lambda one: (one.user_id,), token_values)
    query = {"start_time": start, "end_time": end, "bucket_width": width, "limit": limit, "group_by": "user_id"}
    buckets: list[dict[str, Any]] = []
    while True:
        page = past.get("owner", TOKENS, **query).json()
        assert len(page["data"]) <= limit
        buckets += page["data"]
        if not page["has_more"]:
            break
        query = {"page": page["next_page"], "bucket_width": width, "limit": limit, "group_by": "user_id"}
    assert page["next_page"] is None
    assert [bucket["start_time"] for bucket in buckets[1:]] == [bucket["end_time"] for bucket in buckets[:-1]]
    assert (buckets[0]["start_time"], buckets[-1]["end_time"]) == (start, end)
    assert all(bucket["start_time"] % seconds == 0 for bucket in buckets[1:])
    assert {
        bucket["start_time"]: found for bucket in buckets if (found := token_results(bucket, "user_id"))
    } == expected


def test_costs_are_exact_and_of_one_currency_each(past: Past) -> None:
    """Two tables in one currency add up; another currency, and what had no price, are results of their own."""
    answer = past.get("owner", COSTS, start_time=FIRST, end_time=FIRST + 6 * DAY, **{"group_by[]": "line_item"})
    currencies = {None: "engine_seconds", "1": "usd", "2": "usd", "3": "eur"}
    expected = summed(
        past.requests, FIRST, FIRST + 6 * DAY, DAY,
        lambda one: (one.model, currencies[one.price_version]),
        lambda one: (one.cost, one.prompt_tokens + one.completion_tokens),
    )  # fmt: skip
    for bucket in json.loads(answer.content, parse_float=Decimal)["data"]:
        found = {
            (one["line_item"], one["amount"]["currency"]): [one["amount"]["value"] * 10**6, one["quantity"]]
            for one in bucket["results"]
        }
        assert found == expected[bucket["start_time"]]
    with past.sdk("owner") as client:
        page = client.admin.organization.usage.costs(start_time=FIRST, group_by=["line_item"], line_items=["small"])
    results = [one for bucket in page.to_dict()["data"] for one in bucket["results"]]
    assert {one["line_item"] for one in results} == {"small"}
    assert {one["quantity_unit"] for one in results} == {"tokens"}


def test_filters_hold_together(past: Past) -> None:
    """Of each list any value, of several lists all."""
    with past.sdk("owner") as client:
        page = client.admin.organization.usage.completions(
            start_time=FIRST, user_ids=["ann", "bob"], models=["small"], project_ids=["red"], api_key_ids=["r2", "no"]
        )
    wanted = [
        one
        for one in past.requests
        if one.user_id and one.model == "small" and (one.tenant, one.key_id) == ("red", "r2")
    ]
    expected = summed(wanted, FIRST, FIRST + 7 * DAY, DAY, lambda one: (), token_values)
    assert len(expected) == 6
    for bucket in page.to_dict()["data"]:
        assert token_results(bucket) == expected.get(bucket["start_time"], {})


@pytest.mark.parametrize("key", ["team", 'a."b'])
def test_metadata_is_a_group(past: Past, key: str) -> None:
    """The values of a key of the requests' metadata, None for requests without; keys of any characters."""
    (bucket,) = past.get(
        "owner", TOKENS, start_time=FIRST + DAY, end_time=FIRST + 2 * DAY, group_by=f"metadata.{key}"
    ).json()["data"]
    expected = summed(
        past.requests, FIRST + DAY, FIRST + 2 * DAY, DAY,
        lambda one: (json.loads(one.metadata or "{}").get(key),), token_values,
    )[FIRST + DAY]  # fmt: skip
    assert len(expected) >= 2
    assert {(one["metadata"][key],): one["num_model_requests"] for one in bucket["results"]} == {
        group: values[-1] for group, values in expected.items()
    }


@pytest.mark.parametrize("path", [TOKENS, COSTS])
def test_who_sees_what(past: Past, path: str) -> None:
    """An owner every tenant, an admin its own, a member its own key, a service nothing; asking for more is refused."""
    by = {"start_time": FIRST, "group_by": ["project_id", "api_key_id"]}

    def seen(who: str, **query: Any) -> set[tuple[str, str]]:
        answer = past.get(who, path, **by, **query)
        assert answer.status_code == 200, answer.text
        results = [one for bucket in answer.json()["data"] for one in bucket["results"]]
        return {(one["project_id"], one["api_key_id"]) for one in results}

    member, blue = ("red", past.ids["member"]), ("blue", past.ids["blue"])
    assert seen("owner") == {member, ("red", "r2"), blue}
    assert seen("admin") == {member, ("red", "r2")}
    assert seen("member") == seen("member", api_key_ids=member[1], project_ids="red") == {member}
    assert seen("blue") == {blue}
    for who, param, values in (
        ("admin", "project_ids", "blue"), ("admin", "project_ids", ["red", "blue"]),
        ("member", "api_key_ids", "r2"), ("blue", "project_ids", "red"),
    ):  # fmt: skip
        answer = past.get(who, path, **by, **{param: values})
        assert (answer.status_code, answer.json()["error"]["param"]) == (403, param)
    assert past.get("service", path, **by).status_code == 403


def test_more_than_an_answer_may_hold_is_refused(past: Past) -> None:
    """With advice, instead of an answer without bounds."""
    long_ago = {"start_time": FIRST - 10 * DAY, "end_time": FIRST - 8 * DAY}
    for path in (TOKENS, COSTS):
        answer = past.get("owner", path, **long_ago, group_by="user_id")
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "limit")
        (_, bucket) = past.get("owner", path, **long_ago, group_by="user_id", user_ids="u1").json()["data"]
        assert [one["user_id"] for one in bucket["results"]] == ["u1"]


def test_a_request_is_in_the_hour_in_which_it_came(past: Past) -> None:
    """Without a range the answer ends now: what was just asked is in its last bucket, of the key that asked."""
    began = int(time.time())
    with openai.OpenAI(base_url=past.server.base_url, api_key=past.keys["blue"], max_retries=0) as client:
        answer = client.chat.completions.create(
            model="scripted", messages=[{"role": "user", "content": "hi"}], user="zoe"
        )
    assert answer.usage is not None
    LedgerFile(past.server.data_dir).settled(answer.id.partition("-")[2])
    page = past.get("blue", TOKENS, bucket_width="1h", group_by=["user_id", "model"]).json()
    assert len(page["data"]) <= 24
    assert page["data"][-1]["end_time"] >= began
    (found,) = [one for bucket in page["data"] for one in bucket["results"] if one["user_id"] == "zoe"]
    assert (found["input_tokens"], found["output_tokens"], found["num_model_requests"]) == (
        answer.usage.prompt_tokens,
        answer.usage.completion_tokens,
        1,
    )

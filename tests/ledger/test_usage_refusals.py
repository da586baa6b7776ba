"""What the usage API does not take, each named in its refusal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from support.server import ServerProcess

TOKENS, COSTS = "/v1/organization/usage/completions", "/v1/organization/costs"


@pytest.fixture(scope="module")
def raw(server: ServerProcess) -> Iterator[httpx.Client]:
    """Without keys whoever asks sees everything."""
    with httpx.Client(base_url=server.url) as client:
        yield client


REFUSED = [
    ({"start_time": "soon"}, "start_time"),
    ({"start_time": "-1"}, "start_time"),
    ({"start_time": "10", "end_time": "10"}, "end_time"),
    ({"start_time": ["1", "2"]}, "start_time"),
    ({"limit": "0"}, "limit"),
    ({"limit": "32"}, "limit"),
    ({"limit": "169", "bucket_width": "1h"}, "limit"),
    ({"bucket_width": "1w"}, "bucket_width"),
    ({"group_by": "service_tier"}, "group_by"),
    ({"group_by": "batch"}, "group_by"),
    ({"group_by": "metadata."}, "group_by"),
    ({"group_by": [f"metadata.{number}" for number in range(9)]}, "group_by"),
    ({"batch": "true"}, "batch"),
    ({"models": ""}, "models"),
    ({"user_ids": ["u"] * 101}, "user_ids"),
    ({"page": "page_1_2_3"}, "page"),
    ({"page": f"page_1_2_{'0' * 16}"}, "page"),
    ({"colour": "red"}, "colour"),
]


@pytest.mark.parametrize(("query", "param"), REFUSED, ids=range(len(REFUSED)))
def test_what_cannot_be_honoured_is_refused_by_name(raw: httpx.Client, query: dict[str, Any], param: str) -> None:
    """Values out of range, groups that the ledger does not have, pages of other queries, unknown names."""
    answer = raw.get(TOKENS, params=query)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param), answer.text


def test_costs_are_by_day(raw: httpx.Client) -> None:
    """As OpenAI's are; a group by model is called a line item there."""
    for query, param in (({"bucket_width": "1h"}, "bucket_width"), ({"group_by": "model"}, "group_by")):
        answer = raw.get(COSTS, params=query)
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


def test_a_page_belongs_to_its_query(raw: httpx.Client) -> None:
    """Its cursor continues that query alone; how many buckets the next page has may change."""
    query = {"start_time": 0, "bucket_width": "1h", "limit": 2, "group_by": "model", "project_ids": "default"}
    page = raw.get(TOKENS, params=query).json()["next_page"]
    assert raw.get(TOKENS, params=query | {"page": page, "limit": 5}).json()["data"][0]["start_time"] == 7200
    for change in ({"group_by": "user_id"}, {"bucket_width": "1d"}, {"project_ids": "other"}):
        answer = raw.get(TOKENS, params=query | {"page": page} | change)
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "page")

"""Servers with the semantic tier for tests, and labels that let it serve."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from forebay.cache.aims import Aims
from forebay.cache.assurance import Assurance
from support.administrator import OWNER, AdminClient
from support.cached import cached_server
from support.server import ServerProcess
from support.wire import eventually


@contextmanager
def semantic_server(folder: Path, **env: str) -> Iterator[ServerProcess]:
    """Its embedder loaded; generating takes so long that looking up pays."""
    defaults = {
        "FOREBAY_CACHE": "semantic",
        "FOREBAY_CACHE_MAX_ERROR_RATE": "0.05",
        "FOREBAY_SCRIPTED_FIRST_TOKEN_MS": "30",
    }
    with cached_server(folder, **(defaults | env)) as server:
        with AdminClient(server, OWNER) as owner:
            eventually(lambda: owner.get("GET", "/cache")["semantic"]["state"] == "on", timeout_s=30)
        yield server


def source_of(owner: AdminClient) -> str:
    return str(owner.get("GET", "/cache")["semantic"]["source"])


def serving_state(source: str, *, shadow_rate: float = 0.02) -> dict[str, Any]:
    """Labels of 1,000 rephrased questions, all of them right, with scores from 0.85 on."""
    draw = random.Random(7)
    aims = Aims(0.02, hit_rate=shadow_rate, suspicious_rate=min(1.0, 10 * shadow_rate))
    assurance = Assurance(aims, source, draw)
    for _ in range(1000):
        ruling = assurance.decide(0.85 + 0.15 * draw.random())
        if ruling.labelled:
            assurance.learn(ruling, same=True)
    assert assurance.threshold is not None
    assert assurance.threshold < 0.9
    return assurance.export()


def let_serve(owner: AdminClient, *tenants: str, shadow_rate: float = 0.02) -> None:
    """Imports labels for them."""
    state = serving_state(source_of(owner), shadow_rate=shadow_rate)
    for tenant in tenants:
        owner.get("PUT", f"/cache/labels/{tenant}", {"state": state})


def standing(owner: AdminClient, tenant: str) -> dict[str, Any]:
    found = owner.get("GET", "/cache")["standings"]
    return next((one for one in found if one["owner"] == tenant), {})

"""Labels of the semantic tier over HTTP: hits that are generated again, what they cost and change, what is kept."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from support.administrator import OWNER, AdminClient
from support.cached import Asker, request_id_of, text_of
from support.command import forebay
from support.semantic import let_serve, semantic_server, serving_state, source_of, standing
from support.server import ServerProcess
from support.wire import eventually
from support.witness import Witness

ASKED, REPHRASED = "How do I reset my password?", "hi, how can I reset my password please"
GREETINGS = ("Hello", "Hi", "Hey", "Good morning", "Good evening", "Dear all", "Excuse me", "Sorry")
NO_DRIFT = {"prompt": 0, "generated": 0}


def script(text: str) -> dict[str, Any]:
    return {"metadata": {"forebay_script": text}}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """Every hit is generated again, while at most one of its two slots is in use."""
    env = {"FOREBAY_CACHE_SHADOW_RATE": "1", "FOREBAY_MAX_NUM_SEQS": "2"}
    with semantic_server(tmp_path_factory.mktemp("shadow"), **env) as running:
        yield running


@pytest.fixture(scope="module")
def owner(server: ServerProcess) -> Iterator[AdminClient]:
    with AdminClient(server, OWNER) as client:
        yield client


@pytest.fixture
def tenant(request: pytest.FixtureRequest) -> str:
    return request.node.name.removeprefix("test_").replace("_", "-")[:50]


@pytest.fixture
def asker(server: ServerProcess, owner: AdminClient, tenant: str) -> Iterator[Asker]:
    let_serve(owner, tenant, shadow_rate=1.0)
    with closing(Asker(server, owner.make(tenant=tenant).key)) as made:
        yield made


def counted(owner: AdminClient, tenant: str) -> dict[str, int]:
    return dict(standing(owner, tenant)["labels"])


def shadows(asker: Asker, tenant: str) -> list[dict[str, Any]]:
    """Their settlements."""
    return [row for row in asker.ledger.rows("settle") if (row["cache_kind"], row["tenant"]) == ("shadow", tenant)]


def is_counted(owner: AdminClient, tenant: str, label: str, number: int) -> bool:
    return counted(owner, tenant)[label] == number


def test_a_hit_is_generated_again_and_nobody_pays(asker: Asker, owner: AdminClient, tenant: str) -> None:
    """After its client has it: a label, a row of 0 tokens, the engine's work uncharged; then its answer is stored."""
    before = counted(owner, tenant)
    asker.ask(ASKED)
    hit = asker.ask(REPHRASED)
    assert hit.headers["x-cache-tier"] == "semantic"
    eventually(lambda: counted(owner, tenant)["hit_same"] == before["hit_same"] + 1)
    shadow = eventually(lambda: next(iter(shadows(asker, tenant)), None))
    assert (shadow["key_id"], shadow["prompt_tokens"], shadow["completion_tokens"]) == ("cache-shadow", 0, 0)
    assert (shadow["cost"], shadow["outcome"], shadow["route"]) == (0, "complete", "shadow")
    (free,) = [row for row in asker.ledger.rows("uncharged") if row["request_id"] == shadow["request_id"]]
    assert free["completion_tokens"] == asker.row(hit)["completion_tokens"]
    assert free["prompt_tokens"] > 0
    again = asker.ask(REPHRASED)
    assert again.headers["x-cache-tier"] == "exact"
    assert again.headers["x-cache-id"] != hit.headers["x-cache-id"]
    assert asker.drift() == NO_DRIFT
    assert not asker.ledger.faults()


def test_wrong_hits_end_serving(asker: Asker, owner: AdminClient, tenant: str) -> None:
    """What their own answers say differs from what was served: labels say so, until hits are only observed."""
    asker.ask(ASKED, **script("Press the blue button."))
    assert standing(owner, tenant)["serving"]
    served = 0
    for greeting in GREETINGS:
        answer = asker.ask(f"{greeting}, how do I reset my password?", **script(f"{greeting} is no word of bananas."))
        if answer.headers["x-cache"] == "miss":
            break
        served += 1
        assert text_of(answer) == "Press the blue button."
        eventually(partial(is_counted, owner, tenant, "hit_wrong", served))
    assert 1 < served < len(GREETINGS)
    told = standing(owner, tenant)
    assert (told["serving"], told["num_alarms"]) == (False, 1)


def test_under_load_it_waits(asker: Asker, owner: AdminClient, tenant: str, witness: Witness) -> None:
    """While others use more than half of the engine no hit is generated again; a client does not notice any of it."""
    before = counted(owner, tenant)["hit_same"]
    asker.ask(ASKED)
    slow = {"metadata": {"forebay_inter_token_ms": "2"}, "max_tokens": 4000, "ignore_eos": True}
    with asker.stream("Tell me everything.", **slow) as stream:
        pieces = stream.iter_raw()
        assert next(pieces)
        assert asker.outcome(REPHRASED) == "hit"
        assert witness.load().running == 1
        assert counted(owner, tenant)["hit_same"] == before
    eventually(lambda: counted(owner, tenant)["hit_same"] == before + 1)


def test_labels_outlive_the_process_and_move(tmp_path: Path) -> None:
    """Stopped and begun again it serves at once; exported by route or command, they let another server serve; they are
    forgotten where that is asked for. Every act is in the audit."""
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    rarely = {"FOREBAY_CACHE_SHADOW_RATE": "0.000001"}  # so that no label comes in between
    with semantic_server(here, **rarely) as server, AdminClient(server, OWNER) as owner:
        let_serve(owner, "default")
        with closing(Asker(server)) as asker:
            assert [asker.outcome(text) for text in (ASKED, REPHRASED)] == ["miss", "hit"]
            told = standing(owner, "default")
            exported = owner.get("GET", "/cache/labels/default")["state"]
            assert exported["num_hits"] == told["num_hits"]
    with (
        semantic_server(here, **rarely) as server,
        AdminClient(server, OWNER) as owner,
        closing(Asker(server)) as asker,
    ):
        assert standing(owner, "default") == told
        assert asker.outcome("please, how can I reset my password") == "hit"
        by_command = forebay("cache", "export", "default", data_dir=server.data_dir)
        assert json.loads(by_command.stdout) == exported
        at_five = {"FOREBAY_CACHE_MAX_ERROR_RATE": "0.05"}
        said = forebay("cache", "status", data_dir=server.data_dir, **at_five).stdout
        assert "served from" in said
        assert exported["source"] in said
        # In another epoch they would count for nothing, and the command knows that without the server.
        later = {**at_five, "FOREBAY_CACHE_EPOCH": "1"}
        assert "observed: of another source" in forebay("cache", "status", data_dir=server.data_dir, **later).stdout
        for epoch, is_other in ((at_five, False), (later, True)):
            ran = forebay("cache", "status", "--json", data_dir=server.data_dir, **epoch)
            assert json.loads(ran.stdout)["standings"]["default"]["of_another_source"] == is_other
    (tmp_path / "labels.json").write_text(by_command.stdout)
    with semantic_server(there) as server, AdminClient(server, OWNER) as owner, closing(Asker(server)) as asker:
        assert asker.outcome(ASKED) == "miss"
        ran = forebay("cache", "import", "default", str(tmp_path / "labels.json"), data_dir=server.data_dir)
        assert ran.stdout.startswith("Labels of default imported"), ran.stderr
        eventually(lambda: standing(owner, "default").get("serving"))
        assert asker.outcome(REPHRASED) == "hit"
        assert forebay("cache", "forget", "default", data_dir=server.data_dir).returncode == 0
        eventually(lambda: not standing(owner, "default"))
        assert asker.outcome(f"{REPHRASED}, thanks") == "miss"
        assert [row["act"] for row in owner.get("GET", "/audit")["data"][:2]] == ["cache.forget", "cache.import"]


def test_an_import_that_does_not_fit(server: ServerProcess, owner: AdminClient, tenant: str, tmp_path: Path) -> None:
    """What no server exported is refused; labels made with another model are kept and let nothing be served."""
    refused = owner.ask("PUT", f"/cache/labels/{tenant}", {"state": {"format": 1, "source": "x"}})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "state")
    assert owner.ask("PUT", "/cache/labels/group:no%20name", {"state": None}).status_code == 400
    strange = serving_state(source_of(owner).replace("scripted", "another"))
    owner.get("PUT", f"/cache/labels/{tenant}", {"state": strange})
    told = standing(owner, tenant)
    assert (told["serving"], told["why"], told["threshold"]) == (False, "of another source", None)
    pair = {"asked": REPHRASED, "stored": ASKED, "owner": tenant}
    assert owner.get("POST", "/cache/explain", pair)["action"] == "observe"
    with closing(Asker(server, owner.make(tenant=tenant).key)) as asker:
        assert [asker.outcome(text) for text in (ASKED, REPHRASED)] == ["miss", "miss"]
    (tmp_path / "file").write_text("[]")
    ran = forebay("cache", "import", "default", str(tmp_path / "file"), data_dir=server.data_dir)
    assert (ran.returncode, "cannot be imported" in ran.stderr) == (2, True)


def test_admins_have_their_own_tenants_labels(server: ServerProcess, owner: AdminClient, tenant: str) -> None:
    """Another tenant's do not exist for them. Labels decide how often answers may be wrong, so that only an owner
    imports any."""
    let_serve(owner, tenant, f"{tenant}-other")
    key = owner.make(tenant=tenant, role="admin").key
    with AdminClient(server, key) as admin:
        assert [one["owner"] for one in admin.get("GET", "/cache")["standings"]] == [tenant]
        assert admin.get("GET", f"/cache/labels/{tenant}")["owner"] == tenant
        for other in (f"{tenant}-other", "group:eu"):
            assert admin.ask("GET", f"/cache/labels/{other}").status_code == 404
            assert admin.ask("PUT", f"/cache/labels/{other}", {"state": None}).status_code == 404
        state = admin.get("GET", f"/cache/labels/{tenant}")["state"]
        refused = admin.ask("PUT", f"/cache/labels/{tenant}", {"state": state})
        assert (refused.status_code, refused.json()["error"]["param"]) == (403, "state")
        assert admin.get("PUT", f"/cache/labels/{tenant}", {"state": None})["state"] is None
        assert admin.ask("POST", "/cache/explain", {"asked": "a", "stored": "b", "owner": "other"}).status_code == 404


def test_explain_says_what_speaks_for_and_against(asker: Asker, owner: AdminClient, tenant: str) -> None:
    """The guard that refused, or the features and what the score would lead to; the command says the same."""
    trap = {"asked": "How do I enable 2FA?", "stored": "How do I disable 2FA?", "owner": tenant}
    told = owner.get("POST", "/cache/explain", trap)
    assert (told["action"], told["refused_by"]["guard"]) == ("miss", "opposites")
    pair = {"asked": REPHRASED, "stored": ASKED, "owner": tenant}
    told = owner.get("POST", "/cache/explain", pair)
    assert (told["action"], told["refused_by"], told["volatile"]) == ("serve", None, None)
    assert told["threshold"] <= told["score"] <= told["probability"]
    assert told["contributions"]
    bound = owner.get("POST", "/cache/explain", {"asked": "Where is my order?", "stored": "Where is my order"})
    assert bound["volatile"]["depends_on"] == "person"
    ran = forebay("cache", "explain", trap["asked"], trap["stored"], data_dir=asker.server.data_dir)
    assert "refused by the guard `opposites`" in ran.stdout
    ran = forebay("cache", "explain", REPHRASED, ASKED, "--json", data_dir=asker.server.data_dir)
    assert json.loads(ran.stdout)["score"] == told["score"]
    assert json.loads(ran.stdout)["action"] == "observe"  # of the tenant `default`, of which no labels are known


def test_metrics_tell_how_the_tier_stands(asker: Asker, witness: Witness, owner: AdminClient, tenant: str) -> None:
    """Look-ups, labels, the bound on the errors, and what a look-up takes; no tenant's name."""
    asker.ask(ASKED)
    hit = asker.ask(REPHRASED)
    eventually(lambda: counted(owner, tenant)["hit_same"] >= 1)
    assert request_id_of(hit)
    assert witness.value('forebay_cache_lookups_total{outcome="hit",tier="semantic"}') >= 1
    assert witness.value('forebay_cache_semantic_state{state="on"}') == 1
    assert witness.value('forebay_cache_label_owners{state="serving"}') >= 1
    assert 0 < witness.value("forebay_cache_false_hit_upper95") <= 0.05
    assert witness.value('forebay_cache_labels_total{label="same"}') >= 1
    assert witness.value('forebay_cache_shadows_total{outcome="done"}') >= 1
    assert 0 < witness.value("forebay_cache_semantic_lookup_seconds_sum") < 60
    assert 0 < witness.value("forebay_cache_semantic_break_even") <= 1

"""Whether the time that an answer takes tells one tenant what another has asked."""

from __future__ import annotations

import random
import statistics
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from proofs.conftest import Proof
from support.administrator import OWNER, AdminClient
from support.cached import CHAT, cached_server
from support.semantic import semantic_server
from support.server import ServerProcess
from support.wire import connect, post, read_answer
from support.witness import Witness

SAMPLES = 1500
"""A side; the proof asks for 1,000. The AUC of two like samples of this size has a standard error of 0.011, of half
the size of 0.015."""
AT_ONCE = 10
"""Questions that are stored before they are probed, in the half that is probed right after storing."""
MOST_AUC = 0.55
CONTROL_AUC = 0.9
ENGINE_MS = 6
"""Of each generation, so that a hit is told from a miss with ease by whoever may."""

THINGS = [
    "router",
    "invoice",
    "password",
    "parcel",
    "printer",
    "contract",
    "holiday",
    "meter",
    "licence",
    "account",
    "boiler",
    "garden",
]
ACTS = ["reset", "renew", "cancel", "print", "move", "insure", "clean", "order", "close", "open", "check", "repair"]


def questions(rng: random.Random, num: int) -> list[str]:
    """Of one kind, each with names that no list and no other question has: words that are looked at for slips."""
    names = sorted({invented(rng) for _ in range(3 * num)})
    rng.shuffle(names)
    return [
        f"How do I {rng.choice(ACTS)} {first} {second} in the {third} {rng.choice(THINGS)}?"
        for first, second, third in zip(names[:num], names[num : 2 * num], names[2 * num :], strict=False)
    ]


def invented(rng: random.Random) -> str:
    """A name that can be said, of 8 to 12 letters."""
    return "".join(rng.choice("bdfghklmnprstvz") + rng.choice("aeiou") for _ in range(rng.randint(4, 6))).title()


class Timed:
    """Asks over one connection, one question after the other."""

    def __init__(self, server: ServerProcess, key: str) -> None:
        self._sock = connect(server.port)
        self._authorization = f"Authorization: Bearer {key}"

    def ask(self, question: str) -> tuple[str, float]:
        """What the cache did, and seconds."""
        body = {
            "messages": [{"role": "user", "content": question}],
            "temperature": 0,
            # Another one for each question, or labels would show that any answer does for all.
            "metadata": {"forebay_script": f"{zlib.crc32(question.encode())} times."},
        }
        message = post(CHAT, body, self._authorization)
        began = time.perf_counter()
        self._sock.sendall(message)
        answer = read_answer(self._sock)
        took_s = time.perf_counter() - began
        assert answer.status == 200, answer.body
        return answer.headers["x-cache"], took_s

    def close(self) -> None:
        self._sock.close()


def auc(ones: Sequence[float], others: Sequence[float]) -> float:
    """How probable it is that one of the first is below one of the second (Mann and Whitney). Times have no ties."""
    marked = sorted([(value, True) for value in ones] + [(value, False) for value in others])
    below, num_ones = 0.0, 0
    for _, is_one in marked:
        if is_one:
            num_ones += 1
        else:
            below += num_ones
    return below / (len(ones) * len(others))


@contextmanager
def two_tenants(folder: Path, tier: str) -> Iterator[tuple[Timed, Timed]]:
    """Every request is looked up, whether that pays or not."""
    start = semantic_server if tier == "semantic" else cached_server
    with start(folder, FOREBAY_CACHE_COST_RULE="false", FOREBAY_SCRIPTED_FIRST_TOKEN_MS=str(ENGINE_MS)) as server:
        with AdminClient(server, OWNER) as owner:
            north, south = (
                Timed(server, owner.make(tenant=name, cache_policy=tier).key)  # type: ignore[arg-type]
                for name in ("north", "south")
            )
        yield north, south
        if tier == "semantic":
            with closing(Witness(server)) as witness:
                assert witness.value("forebay_cache_semantic_lookup_seconds_count") >= 3 * SAMPLES
        north.close()
        south.close()


@pytest.mark.parametrize("tier", ["exact", "semantic"])
def test_time_does_not_tell_what_another_tenant_has_asked(tier: str, tmp_path: Path, proof: Proof) -> None:
    """A tenant asks, word for word, what another one has stored and what nobody has, and cannot tell them apart; what
    he has stored himself he can, so that the method is shown to see a difference where there is one."""
    rng = random.Random(f"timing {tier}")
    pool = questions(rng, 3 * SAMPLES + 200)
    sides = {"theirs": pool[:SAMPLES], "nobodys": pool[SAMPLES : 2 * SAMPLES], "own": pool[2 * SAMPLES : 3 * SAMPLES]}
    with two_tenants(tmp_path, tier) as (north, south):
        for question in sides["theirs"][SAMPLES // 2 :]:
            north.ask(question)
        for question in (*sides["own"], *pool[3 * SAMPLES :]):
            south.ask(question)
        took: dict[str, list[float]] = {side: [] for side in sides}

        def probe(asked: list[tuple[str, str]]) -> None:
            rng.shuffle(asked)
            for side, question in asked:
                outcome, took_s = south.ask(question)
                assert outcome == ("hit" if side == "own" else "miss"), (side, question)
                took[side].append(took_s)

        # Half of it right after storing, before whatever is remembered of a few questions has given way to others.
        for at in range(0, SAMPLES // 2, AT_ONCE):
            for question in sides["theirs"][at : at + AT_ONCE]:
                north.ask(question)
            probe([(side, question) for side in ("theirs", "nobodys") for question in sides[side][at : at + AT_ONCE]])
        time.sleep(1)  # all of it is written
        at_once = {side: list(each) for side, each in took.items()}
        probe([(side, text) for side, each in sides.items() for text in each[len(took[side]) :]])
        # Both directions: north did store them.
        assert {north.ask(question)[0] for question in sides["theirs"][:50]} == {"hit"}
    theirs, own = auc(took["theirs"], took["nobodys"]), auc(took["own"], took["nobodys"])
    soon = auc(at_once["theirs"], at_once["nobodys"])
    proof(
        f"cache-timing-{tier}",
        f"With the {tier} tier, the time of an answer does not tell a tenant whether another one has asked the same: "
        f"an AUC of at most {MOST_AUC} either way.",
        samples_a_side=SAMPLES,
        auc_anothers_against_nobodys=round(theirs, 4),
        auc_of_them_right_after_storing=round(soon, 4),
        auc_ones_own_against_nobodys=round(own, 4),
        median_ms={side: round(1000 * statistics.median(each), 3) for side, each in took.items()},
    )
    assert own >= CONTROL_AUC
    assert 1 - MOST_AUC <= theirs <= MOST_AUC
    assert 1 - MOST_AUC <= soon <= MOST_AUC


def test_the_measure_is_what_it_says() -> None:
    """1 where all are below, 0 where all are above, and what counting pairs gives in between."""
    rng = random.Random(1)
    ones, others = ([rng.random() for _ in range(40)] for _ in range(2))
    pairs = [one < other for one in ones for other in others]
    assert auc([0.0], [1.0]) == 1
    assert auc([1.0], [0.0]) == 0
    assert auc(ones, others) == pytest.approx(sum(pairs) / len(pairs))

"""Tokens of an identity provider beside keys (RFC 7519, RFC 8725)."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from forebay.errors import ConfigurationError, IdentityUnavailable, Unauthenticated
from forebay.settings import Settings
from forebay.tenants.directory import Directory
from support.administrator import OWNER, AdminClient
from support.door import MESSAGES
from support.identity import AUDIENCE, ISSUER, IdentityProvider, Signer
from support.ledger import LedgerFile
from support.server import ServerProcess
from support.wire import eventually

RSA, EC, ED = (Signer(algorithm, algorithm.lower()) for algorithm in ("RS256", "ES256", "EdDSA"))
STRANGER = Signer("ES256", "stranger")
IMPOSTOR = Signer("ES256", "es256")
"""Another key under a known name."""


@pytest.fixture(scope="module")
def provider() -> Iterator[IdentityProvider]:
    with IdentityProvider(RSA, EC, ED) as running:
        running.extra = [
            {"kty": "oct", "kid": "secret", "alg": "HS256", "k": "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlY3JldA"},
            {"kty": "nonsense", "kid": "x"},
            {**EC.jwk, "kid": "for-encryption", "use": "enc"},
        ]
        yield running


def settings_of(provider: IdentityProvider) -> dict[str, str]:
    return {
        "FOREBAY_JWT_JWKS_URL": provider.url,
        "FOREBAY_JWT_AUDIENCE": AUDIENCE,
        "FOREBAY_JWT_ISSUER": ISSUER,
        "FOREBAY_JWT_TENANT_CLAIM": "tenant",
        "FOREBAY_JWT_ROLE_CLAIM": "roles",
    }


@pytest.fixture(scope="module")
def trusting(provider: IdentityProvider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """Takes the provider's tokens, and the owner's key."""
    running = ServerProcess(
        tmp_path_factory.mktemp("trusting") / "log",
        ["--engine", "scripted"],
        {"FOREBAY_API_KEYS": OWNER, **settings_of(provider)},
    ).start()
    yield running
    running.stop()


def ask(server: ServerProcess, token: str, path: str = "/v1/models", *, admin: bool = False) -> httpx.Response:
    url = (server.admin_url if admin else server.url) + path
    return httpx.get(url, headers={"authorization": f"Bearer {token}"}, timeout=30)


@pytest.mark.parametrize("signer", [RSA, EC, ED], ids=lambda signer: signer.algorithm)
def test_a_token_is_as_good_as_a_key(trusting: ServerProcess, signer: Signer) -> None:
    """Signed by the provider, for this audience: its bearer is a member of the tenant that it names."""
    token = signer.token(sub="somebody")
    assert ask(trusting, token).status_code == 200
    assert ask(trusting, token, "/stats").status_code == 403
    body = {"messages": MESSAGES, "max_tokens": 2}
    headers = {"authorization": f"Bearer {token}"}
    for _ in range(2):
        answer = httpx.post(f"{trusting.base_url}/chat/completions", json=body, headers=headers)
        assert answer.status_code == 200, answer.text
    row = LedgerFile(trusting.data_dir).settled(answer.json()["id"].partition("-")[2])
    assert row["tenant"] == "acme"
    assert row["key_id"].startswith("jwt:")
    assert len(row["key_id"]) == 16
    assert "somebody" not in trusting.log
    assert token.split(".")[2] not in trusting.log


def test_a_person_has_one_key_id(trusting: ServerProcess) -> None:
    """By issuer and subject, whichever token."""
    for expiry in (100, 200):
        assert ask(trusting, EC.token(sub="twice", exp=int(time.time()) + expiry)).status_code == 200
    assert ask(trusting, EC.token(sub="once")).status_code == 200
    lines = [json.loads(line) for line in trusting.log.splitlines() if '"key_id":"jwt:' in line]
    assert len({line["key_id"] for line in lines[-3:]}) == 2


def encoded(part: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode()


def unsigned() -> str:
    claims = EC.token().split(".")[1]
    return f"{encoded({'alg': 'none', 'kid': EC.kid})}.{claims}."


def signed_with_the_public_key() -> str:
    """CVE-2015-9235: an HMAC whose secret is the published key."""
    pem = RSA.private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    signed = f"{encoded({'alg': 'HS256', 'kid': RSA.kid})}.{RSA.token().split('.')[1]}"
    mac = hmac.new(pem, signed.encode(), hashlib.sha256).digest()
    return f"{signed}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}"


def tampered() -> str:
    head, _, signature = EC.token().split(".")
    return (
        f"{head}.{encoded({'tenant': 'other', 'exp': 2**40, 'aud': AUDIENCE, 'iss': ISSUER, 'sub': 'x'})}.{signature}"
    )


def test_people_of_a_tenant_do_not_share_idempotency_keys(trusting: ServerProcess) -> None:
    """The same key and body of another subject is another request; of the same one, with a newer token, it is not."""
    body = {"messages": MESSAGES, "max_tokens": 2}
    ids = [
        httpx.post(
            f"{trusting.base_url}/chat/completions",
            json=body,
            headers={"authorization": f"Bearer {EC.token(sub=sub, nonce=number)}", "idempotency-key": "order-1"},
        ).json()["id"]
        for number, sub in enumerate(("ann", "bob", "ann"))
    ]
    assert ids[0] == ids[2] != ids[1]


BAD = {
    "expired": lambda: EC.token(exp=int(time.time()) - 60),
    "without an end": lambda: EC.token(exp=None),
    "not yet": lambda: EC.token(nbf=int(time.time()) + 600),
    "another audience": lambda: EC.token(aud="other"),
    "without an audience": lambda: EC.token(aud=None),
    "another issuer": lambda: EC.token(iss="https://evil.example"),
    "without an issuer": lambda: EC.token(iss=None),
    "without a subject": lambda: EC.token(sub=None),
    "without a tenant": lambda: EC.token(tenant=None),
    "a tenant that is none": lambda: EC.token(tenant="../x"),
    "a tenant of another type": lambda: EC.token(tenant=["acme"]),
    "an unknown signer": lambda: STRANGER.token(),
    "an impostor": lambda: IMPOSTOR.token(),
    "another signer's name": lambda: EC.token(kid="rs256"),
    "no signer's name": lambda: EC.token(kid=None),
    "a key for encryption": lambda: EC.token(kid="for-encryption"),
    "unsigned": unsigned,
    "signed with the public key": signed_with_the_public_key,
    "signed with a published secret": lambda: jwt.encode(
        {"exp": int(time.time()) + 100, "aud": AUDIENCE, "iss": ISSUER, "sub": "x", "tenant": "acme"},
        "secret-secret-secret-secret-secret",
        "HS256",
        headers={"kid": "secret"},
    ),
    "tampered": tampered,
    "an unknown critical header": lambda: EC.token(headers={"crit": ["x"], "x": 1}),
    "its own key": lambda: STRANGER.token(headers={"jwk": STRANGER.jwk}),
    "two dots": lambda: "..",
    "three words": lambda: "a.b.c",
    "too long": lambda: EC.token(filler="x" * 9000),
}


@pytest.mark.parametrize("why", BAD)
def test_a_bad_token_opens_nothing(trusting: ServerProcess, why: str) -> None:
    """401 in our form, on both listeners; the refusal tells nothing of the token."""
    token = BAD[why]()
    for admin, path in ((False, "/v1/models"), (True, "/admin/keys")):
        answer = ask(trusting, token, path, admin=admin)
        assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key"), answer.text


@pytest.mark.parametrize(
    ("roles", "stats", "keys", "tenant"),
    [
        (None, 403, 403, 403),
        ("member", 403, 403, 403),
        (["viewer"], 403, 403, 403),
        ("admin", 403, 200, 403),
        (["viewer", "service", "admin"], 403, 200, 403),
        (["owner"], 200, 200, 200),
        ({"owner": True}, 403, 403, 403),
    ],
)
def test_a_claim_names_the_role(trusting: ServerProcess, roles: Any, stats: int, keys: int, tenant: int) -> None:
    """The highest of ours that it names, alone or in a list; a member where it names none."""
    token = RSA.token(roles=roles)
    assert ask(trusting, token, "/stats").status_code == stats
    assert ask(trusting, token, "/admin/keys", admin=True).status_code == keys
    headers = {"authorization": f"Bearer {token}"}
    put = httpx.put(f"{trusting.admin_url}/admin/tenants/acme", json={"limits": {}}, headers=headers)
    assert put.status_code == tenant


def test_an_admins_token_makes_keys_of_his_tenant(trusting: ServerProcess) -> None:
    """And of no other; the audit has the token's id, not the person."""
    token = ED.token(roles="admin", sub="the-admin@example")
    with AdminClient(trusting, token) as admin:
        made = admin.make(tenant="acme")
        assert admin.ask("POST", "/keys", {"tenant": "default"}).status_code == 403
        (row,) = (row for row in admin.get("GET", "/audit")["data"] if row["target"] == made.id)
    assert row["actor"].startswith("jwt:")
    assert ask(trusting, made.key).status_code == 200


def test_a_token_ends_while_it_is_remembered(trusting: ServerProcess) -> None:
    """A verified token is not verified again, but never outlives its end; 10 s are for clocks that differ."""
    token = EC.token(exp=int(time.time()) - 9)
    assert ask(trusting, token).status_code == 200
    deadline = time.monotonic() + 3
    while ask(trusting, token).status_code == 200:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_keys_work_without_the_provider_and_tokens_do_not(make_server: Callable[..., ServerProcess]) -> None:
    """503 with Retry-After for tokens, nothing for keys; many tokens ask the provider once."""
    with IdentityProvider(EC) as provider:
        provider.failing = True
        server = make_server("--engine", "scripted", FOREBAY_API_KEYS=OWNER, **settings_of(provider))
        for _ in range(3):
            answer = ask(server, EC.token())
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "identity_unavailable")
            assert answer.headers["retry-after"] == "10"
            assert ask(server, OWNER).status_code == 200
        assert provider.num_asked == 1
        eventually(lambda: server.log.count("jwks_unreadable") == 1)
    assert httpx.get(f"{server.url}/v1/models").status_code == 401


async def test_a_new_key_is_asked_for_once_in_a_while() -> None:
    """An unknown key id makes the server look again, but not for everybody who makes one up."""
    with IdentityProvider(EC) as provider:
        directory = Directory(Settings(jwt_jwks_url=provider.url, jwt_audience=AUDIENCE))
        assert (await directory.authenticate(f"Bearer {EC.token()}")).tenant == "default"
        assert provider.num_asked == 1
        for number in range(20):
            with pytest.raises(Unauthenticated, match="unknown key"):
                await directory.authenticate(f"Bearer {EC.token(kid=f'made-up-{number}')}")
        assert provider.num_asked == 1


async def test_the_only_key_needs_no_name(tmp_path: Path) -> None:
    """A provider with one key may leave its name out of tokens. Keys may come from a file."""
    path = tmp_path / "jwks.json"
    path.write_text(json.dumps({"keys": [EC.jwk]}))
    directory = Directory(Settings(jwt_jwks_url=str(path), jwt_audience=AUDIENCE, jwt_tenant_claim="tenant"))
    caller = await directory.authenticate(f"Bearer {EC.token(kid=None)}")
    assert (caller.tenant, caller.role) == ("acme", "member")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"jwt_jwks_url": "https://login.example/jwks"}, "FOREBAY_JWT_AUDIENCE"),
        ({"jwt_jwks_url": "http://login.example/jwks", "jwt_audience": "x"}, "https"),
        ({"jwt_jwks_url": "http://127.0.0.1.evil.example/", "jwt_audience": "x"}, "https"),
        ({"jwt_jwks_url": "ftp://login.example/jwks", "jwt_audience": "x"}, "https"),
        ({"jwt_jwks_url": "/no/such/file", "jwt_audience": "x"}, "/no/such/file"),
        ({"jwt_jwks_url": "https://x.example/", "jwt_audience": "x", "api_keys": "aaaaaaaa.bbbbbbbb.c"}, "two dots"),
    ],
    ids=str,
)
def test_what_could_let_anybody_in_refuses_to_start(fields: dict[str, Any], said: str) -> None:
    """No audience, keys over a wire that others write on, keys that look like tokens."""
    with pytest.raises(ConfigurationError, match=said):
        Directory(Settings(**fields))


async def test_a_redirect_is_not_followed() -> None:
    """It could lead to where anybody publishes keys."""
    with IdentityProvider(EC) as provider, IdentityProvider(EC) as elsewhere:
        provider.moved_to = elsewhere.url
        directory = Directory(Settings(jwt_jwks_url=provider.url, jwt_audience=AUDIENCE))
        with pytest.raises(IdentityUnavailable):
            await directory.authenticate(f"Bearer {EC.token()}")
        assert (provider.num_asked, elsewhere.num_asked) == (1, 0)

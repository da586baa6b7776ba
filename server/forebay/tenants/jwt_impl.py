"""Tokens of an identity provider (RFC 7519, RFC 8725), checked against its published keys."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jwt
import structlog

from forebay.engines.threads import DaemonThreads
from forebay.errors import ConfigurationError, IdentityUnavailable, Unauthenticated
from forebay.settings import Settings
from forebay.tenants.jwks import JwksUnreadable, jwks_reader
from forebay.tenants.keys import DEFAULT_TENANT, PERSON, TENANT_NAME
from forebay.tenants.roles import ROLES
from forebay.types import Role

ALGORITHMS = ("RS256", "ES256", "EdDSA")
"""Signatures only: with `none` or HS256 whoever knows the public key could sign (CVE-2015-9235)."""
MAX_CHARS = 8192
LEEWAY_S = 10
"""By how much our clock and the provider's may differ."""
FRESH_S = 300.0
"""After this the keys are fetched again before anything is believed, so that one that was withdrawn stops counting."""
STALE_S = 3600.0
"""After this without an answer of the provider no token is believed."""
RETRY_S = 10.0
"""The provider is asked at most so often, whatever key ids callers make up."""
MAX_FETCH_S = 5.0
"""What callers wait for the provider, the look-up of its address included."""
MAX_VERIFIED = 10_000

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Claims:
    """What a token says of its bearer. `key_id` names issuer and subject without saying who that is."""

    tenant: str
    role: Role
    key_id: str
    until: float
    """Unix time in seconds from which on the token is looked at again."""


class JwtVerifier:
    """Lives on the event loop; fetches keys in a thread. Verified tokens are remembered by their SHA-256."""

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock`: seconds that only go on. Raises ConfigurationError."""
        if not settings.jwt_audience:
            raise ConfigurationError(
                "FOREBAY_JWT_JWKS_URL needs FOREBAY_JWT_AUDIENCE: else tokens for other services would count here."
            )
        assert settings.jwt_jwks_url is not None
        self._read = jwks_reader(settings.jwt_jwks_url)
        self._settings = settings
        self._clock = clock
        self._found: list[dict[str, Any]] = []
        self._keys: list[jwt.PyJWK] = []
        self._fetched = self._asked = float("-inf")
        self._fetching: asyncio.Task[None] | None = None
        self._threads = DaemonThreads(1, "jwks")
        self._verified: dict[bytes, Claims] = {}

    async def verify(self, token: str) -> Claims:
        """Raises `Unauthenticated`, and `IdentityUnavailable` where the provider's keys cannot be had."""
        digest = hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
        known = self._verified.get(digest)
        if known is not None and time.time() < known.until and self._age() <= FRESH_S:
            return known
        if len(token) > MAX_CHARS:
            raise Unauthenticated(f"The token is longer than {MAX_CHARS} characters.")
        try:
            header = jwt.get_unverified_header(token)
            if header.get("alg") not in ALGORITHMS:
                raise Unauthenticated(f"The token must be signed with {', '.join(ALGORITHMS)}.")
            claims = self._decode(token, await self._key(header.get("kid")))
        except jwt.ExpiredSignatureError as exc:
            raise Unauthenticated("The token has expired.") from exc
        except jwt.PyJWTError as exc:
            raise Unauthenticated("The token is not valid here.") from exc
        if len(self._verified) >= MAX_VERIFIED:
            del self._verified[next(iter(self._verified))]
        found = self._verified[digest] = self._claims(claims)
        return found

    def _decode(self, token: str, key: jwt.PyJWK) -> dict[str, Any]:
        return jwt.decode(
            token,
            key,
            algorithms=list(ALGORITHMS),
            audience=self._settings.jwt_audience,
            issuer=self._settings.jwt_issuer,
            leeway=LEEWAY_S,
            options={"require": ["exp", "sub", "aud"], "enforce_minimum_key_length": True},
        )

    def _claims(self, claims: dict[str, Any]) -> Claims:
        name = self._settings.jwt_tenant_claim
        tenant = claims.get(name) if name else DEFAULT_TENANT
        if not isinstance(tenant, str) or not TENANT_NAME.fullmatch(tenant):
            raise Unauthenticated(f"The token's claim `{name}` names no tenant.")
        subject = hashlib.sha256(f"{claims.get('iss', '')}\0{claims['sub']}".encode("utf-8", "replace")).hexdigest()
        until = min(int(claims["exp"]) + LEEWAY_S, time.time() + FRESH_S)
        return Claims(tenant, self._role(claims), f"{PERSON}{subject[:12]}", until)

    def _role(self, claims: dict[str, Any]) -> Role:
        """The highest that the claim names; a member where it names none of ours."""
        name = self._settings.jwt_role_claim
        found = claims.get(name) if name else None
        names = found if isinstance(found, list) else [found]
        return max((role for role in ROLES if role in names), key=ROLES.index, default="member")

    async def _key(self, kid: str | None) -> jwt.PyJWK:
        """The provider's key of this id; a token without one is signed with its only key."""
        # Where the provider does not answer, what is known goes on for a while.
        if (self._age() > FRESH_S or self._find(kid) is None) and (fetching := self._begin_fetch()) is not None:
            await asyncio.shield(fetching)
        if self._age() > STALE_S:
            raise IdentityUnavailable("The keys that tokens are checked with cannot be had.", retry_after_s=RETRY_S)
        key = self._find(kid)
        if key is None:
            raise Unauthenticated("The token is signed with an unknown key.")
        return key

    def _find(self, kid: str | None) -> jwt.PyJWK | None:
        if kid is None and len(self._keys) == 1:
            return self._keys[0]
        return next((key for key in self._keys if key.key_id == kid and kid is not None), None)

    def _age(self) -> float:
        return self._clock() - self._fetched

    def _begin_fetch(self) -> asyncio.Task[None] | None:
        """The one that is under way, or a new one unless the last was a moment ago."""
        if self._fetching is None and self._clock() - self._asked > RETRY_S:
            self._asked = self._clock()
            self._fetching = asyncio.create_task(self._fetch(), name="jwks")
        return self._fetching

    async def _fetch(self) -> None:
        try:
            async with asyncio.timeout(MAX_FETCH_S):
                found = await (await self._threads.begin(self._read))
        except (JwksUnreadable, TimeoutError) as exc:
            log.warning("jwks_unreadable", error=str(exc)[:200] or "it takes too long")
        else:
            if found != self._found:
                self._found, self._keys = found, _usable(found)
                self._verified.clear()
            self._fetched = self._clock()
            log.info("jwks_read", num_keys=len(self._keys))
        finally:
            self._fetching = None


def _usable(found: list[dict[str, Any]]) -> list[jwt.PyJWK]:
    """Public keys for signatures that are accepted here; others, for encryption for example, are left out."""
    keys = []
    for data in found:
        try:
            key = jwt.PyJWK(data)
        except (jwt.PyJWTError, TypeError, ValueError, KeyError, AttributeError):  # members of another type
            continue
        if key.algorithm_name in ALGORITHMS and data.get("use", "sig") == "sig":
            keys.append(key)
    return keys

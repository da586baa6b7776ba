"""Who is behind a bearer token: a key of the data file, one of the settings, or a token of the identity provider."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from hmac import compare_digest
from typing import TYPE_CHECKING

from forebay.errors import ConfigurationError, Unauthenticated
from forebay.settings import Settings
from forebay.tenants.key_format import digest_of
from forebay.tenants.key_store import Changes
from forebay.tenants.keys import DEFAULT_TENANT, UNLIMITED, Key
from forebay.tenants.roles import EVERYTHING, scopes_for
from forebay.tenants.static_keys import MAX_KEY_CHARS, read_static_keys
from forebay.types import Caller, Policy

if TYPE_CHECKING:
    from forebay.tenants.jwt_impl import JwtVerifier

ANONYMOUS = "anonymous"
JWT_DOTS = 2


@dataclass(frozen=True, slots=True)
class _Entry:
    """`ends_at` is Unix time in seconds."""

    digest: bytes
    caller: Caller
    ends_at: float = float("inf")
    revoked: bool = False


class Directory:
    """Everything in memory, by digest; `apply` brings what changed in the file. Lives on the event loop.

    The keys of the settings are owners' in the tenant `default`, so that an installation that has only these can
    administrate itself. Without any key, now or ever in the file, and without an identity provider, every caller is the
    anonymous one: `exposure.check_exposure` allows that on loopback only.
    """

    def __init__(self, settings: Settings) -> None:
        """Raises ConfigurationError for keys and an identity provider that cannot be used."""
        self._strict = settings.strict
        self._jwt = _verifier(settings)
        self._keys: dict[str, Key] = {}
        self._policies: dict[str, Policy] = {}
        self._from_file: dict[bytes, _Entry] = {}
        self._from_settings: dict[bytes, _Entry] = {}
        for text in read_static_keys(settings):
            if self._jwt is not None and text.count(".") == JWT_DOTS:
                raise ConfigurationError("With FOREBAY_JWT_JWKS_URL no API key may have two dots: tokens have them.")
            digest = digest_of(text)
            self._from_settings[digest] = _Entry(digest, self._static_caller(digest.hex()[:12]))
        self._anonymous = self._anonymous_caller()
        self.asks_for_keys = bool(self._from_settings or self._jwt)
        """Revoked and expired keys count: ending the last one opens nothing."""
        self.version = 0
        """Of the file's keys and tenants, as last applied."""

    async def authenticate(self, authorization: str | None) -> Caller:
        """The caller behind an `Authorization` header. Raises `Unauthenticated`, and `IdentityUnavailable` for tokens
        of an identity provider that does not answer."""
        return self.known(authorization) or await self._caller_of_token(_bearer(authorization))

    def known(self, authorization: str | None) -> Caller | None:
        """The caller whose API key the header gives; None for a token, which `authenticate` has to wait for. Raises
        `Unauthenticated`."""
        if not self.asks_for_keys:
            return self._anonymous
        token = _bearer(authorization)
        if self._jwt is not None and token.count(".") == JWT_DOTS:
            return None
        if len(token) > MAX_KEY_CHARS:
            raise Unauthenticated("The API key is not valid.")
        # The look-up may take longer for digests that begin like one that is kept, and that tells nothing useful: who
        # does not hold the key cannot choose its digest. What is found is compared in constant time (CVE-2025-59425).
        digest = digest_of(token)
        entry = self._from_settings.get(digest) or self._from_file.get(digest)
        if entry is None or not compare_digest(entry.digest, digest):
            raise Unauthenticated("The API key is not valid.")
        if entry.revoked:
            raise Unauthenticated("The API key was revoked.")
        if entry.ends_at <= time.time():
            raise Unauthenticated("The API key has expired.")
        return entry.caller

    async def _caller_of_token(self, token: str) -> Caller:
        assert self._jwt is not None
        claims = await self._jwt.verify(token)
        return Caller(
            claims.tenant,
            claims.key_id,
            strict=self._strict,
            role=claims.role,
            scopes=scopes_for(claims.role, ()),
            tenant_policy=self._policies.get(claims.tenant, UNLIMITED),
        )

    def apply(self, changes: Changes) -> None:
        """Brings in what was read from the file."""
        for tenant in changes.tenants:
            self._policies[tenant.name] = tenant.policy
        for key in changes.keys:
            if (before := self._keys.get(key.id)) is not None:
                for secret in before.secrets:  # of which some may be gone
                    del self._from_file[secret.digest]
            self._keys[key.id] = key
            self.asks_for_keys = True
        changed = {tenant.name for tenant in changes.tenants}
        self._enter(changes.keys)
        self._enter(key for key in self._keys.values() if key.tenant in changed)
        if DEFAULT_TENANT in changed:
            for digest, entry in self._from_settings.items():
                self._from_settings[digest] = replace(entry, caller=self._static_caller(entry.caller.key_id))
            self._anonymous = self._anonymous_caller()
        self.version = changes.version

    def _enter(self, keys: Iterable[Key]) -> None:
        for key in keys:
            caller = self._caller_of(key)
            for secret in key.secrets:
                ends = [at for at in (secret.ends_at, key.fields.expires_at) if at is not None]
                self._from_file[secret.digest] = _Entry(
                    secret.digest,
                    caller,
                    ends_at=min(ends) / 1000 if ends else float("inf"),
                    revoked=key.revoked_at is not None,
                )

    def _caller_of(self, key: Key) -> Caller:
        fields = key.fields
        return Caller(
            key.tenant,
            key.id,
            strict=self._strict if fields.strict is None else fields.strict,
            role=fields.role,
            scopes=scopes_for(fields.role, fields.scopes),
            models=None if fields.models is None else frozenset(fields.models),
            priority=fields.priority,
            cache_policy=fields.cache_policy,
            gateway=fields.gateway,
            key_policy=fields.policy,
            tenant_policy=self._policies.get(key.tenant, UNLIMITED),
            expires_at=fields.expires_at,
        )

    def _static_caller(self, key_id: str) -> Caller:
        policy = self._policies.get(DEFAULT_TENANT, UNLIMITED)
        return Caller(
            DEFAULT_TENANT,
            key_id,
            strict=self._strict,
            role="owner",
            scopes=EVERYTHING,
            gateway=True,
            tenant_policy=policy,
        )

    def _anonymous_caller(self) -> Caller:
        """Nobody yet holds a key, so it may look at everything there is, but make no keys."""
        policy = self._policies.get(DEFAULT_TENANT, UNLIMITED)
        scopes = EVERYTHING - {"admin"}
        return Caller(DEFAULT_TENANT, ANONYMOUS, strict=self._strict, role="admin", scopes=scopes, tenant_policy=policy)


def _bearer(authorization: str | None) -> str:
    if authorization is None:
        raise Unauthenticated("No API key was given: send it as `Authorization: Bearer <key>`.")
    scheme, _, token = authorization.partition(" ")
    if scheme.lower() != "bearer" or not (token := token.strip()):
        raise Unauthenticated("The Authorization header must be `Bearer <key>`.")
    return token


def _verifier(settings: Settings) -> JwtVerifier | None:
    if settings.jwt_jwks_url is None:
        return None
    from forebay.tenants.jwt_impl import JwtVerifier

    return JwtVerifier(settings)

"""An identity provider whose keys change, that is slow on purpose, or publishes nonsense beside its keys."""

from __future__ import annotations

import time

import pytest

from forebay.errors import IdentityUnavailable, Unauthenticated
from forebay.settings import Settings
from forebay.tenants.jwt_impl import FRESH_S, JwtVerifier
from support.identity import AUDIENCE, IdentityProvider, Signer

FIRST, SECOND = Signer("EdDSA", "first"), Signer("EdDSA", "second")


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def settings_of(provider: IdentityProvider) -> Settings:
    return Settings(jwt_jwks_url=provider.url, jwt_audience=AUDIENCE)


async def test_a_withdrawn_key_ends_with_the_keys_age() -> None:
    """Its tokens, remembered ones too, are refused as soon as the keys are older than five minutes; while the provider
    does not answer they count."""
    clock = Clock()
    with IdentityProvider(FIRST, SECOND) as provider:
        verifier = JwtVerifier(settings_of(provider), clock)
        tokens = FIRST.token(), SECOND.token()
        for token in tokens:
            await verifier.verify(token)
        provider.signers.remove(FIRST)
        provider.failing = True
        clock.now += FRESH_S + 1
        for token in tokens:
            await verifier.verify(token)
        provider.failing = False
        clock.now += 60
        with pytest.raises(Unauthenticated, match="unknown key"):
            await verifier.verify(tokens[0])
        await verifier.verify(tokens[1])
        assert provider.num_asked == 3


async def test_what_was_verified_is_forgotten_when_keys_change() -> None:
    """An unknown key id makes the server look, and what it then finds counts for tokens that it knew."""
    clock = Clock()
    with IdentityProvider(FIRST) as provider:
        verifier = JwtVerifier(settings_of(provider), clock)
        token = FIRST.token()
        await verifier.verify(token)
        provider.signers = [SECOND]
        clock.now += 60
        await verifier.verify(SECOND.token())
        with pytest.raises(Unauthenticated, match="unknown key"):
            await verifier.verify(token)


async def test_a_provider_that_drips_holds_nobody() -> None:
    """A byte now and then keeps a socket from timing out, but not the whole; the next fetch finds a free thread."""
    clock = Clock()
    with IdentityProvider(FIRST) as provider:
        provider.drip_s = 0.2
        verifier = JwtVerifier(settings_of(provider), clock)
        began = time.monotonic()
        with pytest.raises(IdentityUnavailable):
            await verifier.verify(FIRST.token())
        assert time.monotonic() - began < 10
        provider.drip_s = 0.0
        clock.now += 60
        await verifier.verify(FIRST.token())


async def test_a_key_that_is_none_costs_only_itself() -> None:
    """Members of any type, as JSON may have them."""
    with IdentityProvider(FIRST) as provider:
        odd = [None, 1, 1.5, True, "", "?", [], ["x"], {}, {"x": 1}]
        for key in (FIRST.jwk, Signer("ES256", "odd").jwk, Signer("RS256", "odd").jwk):
            provider.extra += [{**key, "kid": "odd", name: value} for name in (*key, "alg", "d") for value in odd]
        await JwtVerifier(settings_of(provider)).verify(FIRST.token())

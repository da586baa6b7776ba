"""An identity provider: keys that are made for a test, their public halves over HTTP, tokens signed with them."""

from __future__ import annotations

import json
import threading
import time
from contextlib import AbstractContextManager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

AUDIENCE, ISSUER = "forebay-tests", "https://login.example"


class Signer:
    """One private key, known to others as `kid`."""

    def __init__(self, algorithm: str, kid: str) -> None:
        self.algorithm, self.kid = algorithm, kid
        self.jwk: dict[str, Any]
        match algorithm:
            case "RS256":
                self.private: Any = rsa.generate_private_key(public_exponent=65537, key_size=2048)
                public: Any = RSAAlgorithm.to_jwk(self.private.public_key(), as_dict=True)
            case "ES256":
                self.private = ec.generate_private_key(ec.SECP256R1())
                public = ECAlgorithm.to_jwk(self.private.public_key(), as_dict=True)
            case _:
                self.private = ed25519.Ed25519PrivateKey.generate()
                public = OKPAlgorithm.to_jwk(self.private.public_key(), as_dict=True)
        self.jwk = {**public, "kid": kid, "use": "sig"}

    def token(self, *, kid: str | None = "", headers: dict[str, Any] | None = None, **claims: Any) -> str:
        """Good for an hour, of tenant `acme`; a claim of None is left out, and so is the header `kid` where it is."""
        given = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": "somebody@example",
            "exp": int(time.time()) + 3600,
            "tenant": "acme",
            **claims,
        }
        head = {"kid": self.kid if kid == "" else kid, **(headers or {})}
        return jwt.encode(
            {name: value for name, value in given.items() if value is not None},
            self.private,
            self.algorithm,
            headers={name: value for name, value in head.items() if value is not None},
        )


class IdentityProvider(AbstractContextManager["IdentityProvider"]):
    """Serves the public keys of `signers`; `num_asked` counts how often. Where `failing`, it answers 500,
    where `moved_to` another place, with a redirect; with `drip_s` it sends its head a byte at a time, so far apart."""

    def __init__(self, *signers: Signer) -> None:
        self.signers = list(signers)
        self.extra: list[dict[str, Any]] = []
        self.num_asked = 0
        self.failing = False
        self.moved_to = ""
        self.drip_s = 0.0
        self._gone = threading.Event()
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                provider.num_asked += 1
                body = json.dumps({"keys": [*(signer.jwk for signer in provider.signers), *provider.extra]}).encode()
                while provider.drip_s and not provider._gone.wait(provider.drip_s):
                    self.wfile.write(b"H")
                self.send_response(500 if provider.failing else 302 if provider.moved_to else 200)
                self.send_header("location", provider.moved_to)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/jwks"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._gone.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

"""Where an identity provider's public keys come from: https, a file, or http on this machine."""

from __future__ import annotations

import contextlib
import socket
import threading
import urllib.request
from collections.abc import Callable
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit

import orjson

from forebay.errors import ConfigurationError
from forebay.settings import is_loopback

TIMEOUT_S = 3.0
"""For all of an answer: its sender may be slow on purpose."""
MAX_BYTES = 1024 * 1024


class JwksUnreadable(Exception):
    """The provider does not answer, or not with a JSON Web Key Set (RFC 7517)."""


def jwks_reader(place: str) -> Callable[[], list[dict[str, Any]]]:
    """What reads the key set, blocking for seconds. Raises ConfigurationError for a place that nobody can vouch for."""
    url = urlsplit(place)
    if url.scheme == "https" or (url.scheme == "http" and is_loopback(url.hostname or "")):
        proxies = () if url.scheme == "https" else (_no_proxies(),)
        opener = urllib.request.build_opener(_NoRedirects, _Http, _Https, *proxies)
        return lambda: _keys_in(_fetch(opener, place))
    if url.scheme == "http":
        raise ConfigurationError("FOREBAY_JWT_JWKS_URL must be https: whoever is on the way could put keys in.")
    path = Path(place)
    if not path.is_file():
        raise ConfigurationError(
            f"FOREBAY_JWT_JWKS_URL is neither https, nor http on this machine, nor a file: {place}."
        )
    return lambda: _keys_in(_read(path))


def _fetch(opener: urllib.request.OpenerDirector, url: str) -> bytes:
    try:
        with opener.open(url, timeout=TIMEOUT_S) as answer:
            return bytes(answer.read(MAX_BYTES + 1))
    except HTTPError as exc:
        exc.close()
        raise JwksUnreadable(f"it answers with status {exc.code}") from exc
    except (OSError, HTTPException, ValueError) as exc:
        raise JwksUnreadable(type(exc).__name__) from exc


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as exc:
        raise JwksUnreadable(str(exc)) from exc


def _keys_in(raw: bytes) -> list[dict[str, Any]]:
    if len(raw) > MAX_BYTES:
        raise JwksUnreadable("it is too large")
    try:
        document = orjson.loads(raw)
    except orjson.JSONDecodeError as exc:
        raise JwksUnreadable("it is not JSON") from exc
    keys = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(keys, list):
        raise JwksUnreadable("it has no list `keys`")
    return [key for key in keys if isinstance(key, dict)]


def _no_proxies() -> urllib.request.ProxyHandler:
    return urllib.request.ProxyHandler({})


class _EndsInTime(HTTPConnection):
    """A socket's own time limit begins anew with each byte."""

    def connect(self) -> None:
        super().connect()
        timer = threading.Timer(TIMEOUT_S, _shut, (self.sock,))
        timer.daemon = True
        timer.start()


class _EndsInTimeToo(_EndsInTime, HTTPSConnection):
    pass


def _shut(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):  # it ended long ago
        socket.socket.shutdown(sock, socket.SHUT_RDWR)


class _Http(urllib.request.HTTPHandler):
    def http_open(self, req: urllib.request.Request) -> HTTPResponse:
        return self.do_open(_EndsInTime, req)


class _Https(urllib.request.HTTPSHandler):
    def https_open(self, req: urllib.request.Request) -> HTTPResponse:
        return self.do_open(_EndsInTimeToo, req)


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirect could lead to a place that nobody has vouched for."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None

"""The listening socket: bound before anything is loaded, and set to notice peers that vanish."""

from __future__ import annotations

import errno
import socket

import structlog

from forebay.errors import ConfigurationError
from forebay.settings import Settings

_log = structlog.get_logger(__name__)

BACKLOG = 2048
KEEPALIVE_INTERVAL_S = 5
KEEPALIVE_PROBES = 3


def bind_socket(settings: Settings) -> socket.socket:
    """A listening socket on `host` and `port`; port 0 takes a free one.

    Its keepalive and TCP_USER_TIMEOUT (RFC 5482) settings are inherited by the sockets it accepts, where the system has
    them. Raises ConfigurationError where it cannot listen.
    """
    return _bind(settings, settings.host, settings.port, "--")


def bind_admin_socket(settings: Settings) -> socket.socket | None:
    """The same on `admin_host` and `admin_port`; None where the default port is taken and nobody asked for it."""
    try:
        return _bind(settings, settings.admin_host, settings.admin_port, "--admin-")
    except ConfigurationError as exc:
        if settings.model_fields_set & {"admin_host", "admin_port"}:
            raise
        _log.warning("no_admin_listener", reason=str(exc))
        return None


def _bind(settings: Settings, host: str, port: int, flag: str) -> socket.socket:
    family, address = _resolve(host, port, flag)
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        _notice_lost_peers(sock, settings)
        sock.bind(address)
        # Listening now and not when the server is up: two binds of a port that nobody listens on both succeed.
        sock.listen(BACKLOG)
    except OSError as exc:
        sock.close()
        raise ConfigurationError(_explain(exc, host, port, flag)) from exc
    sock.setblocking(False)
    return sock


def base_url(sock: socket.socket) -> str:
    """Where a client on this machine reaches the service: "http://127.0.0.1:8000"."""
    host, port = sock.getsockname()[:2]
    if host == "0.0.0.0":  # noqa: S104
        host = "127.0.0.1"
    elif host == "::":
        host = "::1"
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def _resolve(host: str, port: int, flag: str) -> tuple[socket.AddressFamily, tuple[str, int]]:
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as exc:
        raise ConfigurationError(f"The address {host} to bind is not known here: choose another {flag}host.") from exc
    # "localhost" is both; clients that are told 127.0.0.1 need IPv4.
    family, _, _, _, address = min(found, key=lambda info: info[0] != socket.AF_INET)
    return family, address  # type: ignore[return-value]  # IPv6 adds flow and scope


def _notice_lost_peers(sock: socket.socket, settings: Settings) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (
        ("TCP_KEEPIDLE" if hasattr(socket, "TCP_KEEPIDLE") else "TCP_KEEPALIVE", settings.tcp_keepalive_s),
        ("TCP_KEEPINTVL", KEEPALIVE_INTERVAL_S),
        ("TCP_KEEPCNT", KEEPALIVE_PROBES),
        ("TCP_USER_TIMEOUT", settings.tcp_user_timeout_s * 1000),
    ):
        if hasattr(socket, name):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _explain(exc: OSError, host: str, port: int, flag: str) -> str:
    where = f"Port {port} on {host or 'every address'}"
    if exc.errno == errno.EADDRINUSE:
        return f"{where} is in use: stop what listens there or choose another {flag}port."
    if exc.errno == errno.EACCES:
        return f"{where} may not be bound by this user: choose a {flag}port above 1023."
    if exc.errno == errno.EADDRNOTAVAIL:
        return f"The address {host} is not one of this machine's: choose another {flag}host."
    return f"{where} cannot be bound: {exc.strerror}."

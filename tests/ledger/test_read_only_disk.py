"""A disk that turns read-only, as a failing one does: new work is refused, what was written stays readable and whole,
and the start after it settles what was open."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from support.full_disk import CHAT, body
from support.read_only_disk import Disk, alone, forebay, new_disk, settled, turn_read_only
from support.server import ServerProcess


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    made = new_disk(tmp_path)
    if isinstance(made, str):
        pytest.skip(made)
    return made


@pytest.fixture
def server(disk: Disk, tmp_path: Path) -> Iterator[ServerProcess]:
    env = {"FOREBAY_DATA_DIR": str(disk.folder), "FOREBAY_CACHE": "exact"}
    running = ServerProcess(tmp_path / "log", ["--engine", "scripted"], env, within=disk.within()).start()
    yield running
    running.stop()


async def test_new_work_is_refused_and_what_was_written_is_whole(
    server: ServerProcess, disk: Disk, tmp_path: Path
) -> None:
    """503 `storage_unavailable`, once in the log; a stream stops within 16 tokens. The ledger can be read, checked and
    backed up meanwhile, and after the stop. A start is refused in a sentence while the disk is read-only; one on the
    mended disk settles the stream, of which its client had at most 16 tokens more."""
    streamed = body(
        stream=True,
        max_tokens=4000,
        stream_options={"include_usage": True, "continuous_usage_stats": True},
        metadata={"forebay_inter_token_ms": "5"},
    )
    async with httpx.AsyncClient(base_url=server.url, timeout=30) as client:
        answers = [await client.post(CHAT, json=body(user=f"{number}")) for number in range(3)]
        answered = {answer.json()["id"].partition("-")[2] for answer in answers}
        delivered, request_id, error = 0, "", None
        async with client.stream("POST", CHAT, json=streamed) as answer:
            async for line in answer.aiter_lines():
                if not line.startswith("data: {"):
                    continue
                chunk = json.loads(line.removeprefix("data: "))
                if "error" in chunk:
                    error = chunk["error"]["code"]
                    break
                delivered, request_id = chunk["usage"]["completion_tokens"], chunk["id"].partition("-")[2]
                if delivered == 20:
                    await asyncio.to_thread(turn_read_only, server, disk)
        assert error == "storage_unavailable"
        for _ in range(3):
            refused = await client.post(CHAT, json=body(user="new"))
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "storage_unavailable")
            assert int(refused.headers["retry-after"]) >= 1
        assert (await client.get("/live")).status_code == 200
    rows = await asyncio.to_thread(settled, server)
    assert rows.keys() == answered
    assert forebay(server, "ledger", "verify") == "3 rows, 0 signed heads: whole.\n"
    forebay(server, "ledger", "backup", str(tmp_path / "saved"))
    assert server.log.count('"event":"storage_refuses"') == 1
    assert await asyncio.to_thread(server.stop) == 0
    assert '"event":"ledger_not_flushed"' in server.log

    refused_start = alone(server, disk, "serve")
    assert refused_start.returncode == 2
    assert f"The data folder {disk.folder} cannot be used (its file system is read-only)" in refused_start.stderr
    assert alone(server, disk, "ledger", "verify").stdout == "3 rows, 0 signed heads: whole.\n"
    backup = alone(server, disk, "ledger", "backup", str(tmp_path / "again"))
    assert (backup.returncode, "in the audit of the copy alone" in backup.stderr) == (0, True)
    with closing(sqlite3.connect(tmp_path / "again")) as copy:
        assert copy.execute("SELECT act, target FROM audit").fetchall() == [("data.backup", "forebay.sqlite3")]

    server.start()
    rows = await asyncio.to_thread(settled, server)
    assert rows.keys() == answered | {request_id}
    assert rows[request_id]["recovered"] == 1
    assert 0 < delivered - 16 <= rows[request_id]["completion_tokens"] <= delivered
    assert "whole" in forebay(server, "ledger", "verify")
    assert "Traceback" not in server.log

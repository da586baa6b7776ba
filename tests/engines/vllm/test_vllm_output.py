"""What the engine process writes, and how it ends."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from forebay.engines.vllm_impl.output import RECORD_MARK, ProcessOutput

CHILD = Path(__file__).with_name("guarded_child.py")


@pytest.fixture
def output() -> Iterator[ProcessOutput]:
    made = ProcessOutput()
    yield made
    made.close()


def write(output: ProcessOutput, *lines: str) -> None:
    """As the process does, to the end: returns when all has been read."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(output.address)
        connection.sendall("".join(line + "\n" for line in lines).encode())
    output.close(timeout_s=5)


def record(level: int, message: str) -> str:
    return RECORD_MARK + json.dumps([level, "vllm.deep", message])


def test_records_keep_their_level_and_logger(output: ProcessOutput, caplog: pytest.LogCaptureFixture) -> None:
    """A record of the process is one of ours, whatever stands before it on its line."""
    output.starting = False
    write(output, "loading 50%\r" + record(logging.WARNING, "first\nsecond"))
    assert ("vllm.deep", logging.WARNING, "first\nsecond") in caplog.record_tuples


def test_warnings_of_the_start_are_for_debugging(output: ProcessOutput, caplog: pytest.LogCaptureFixture) -> None:
    """vLLM warns of what we chose on purpose; its errors are errors at any time."""
    caplog.set_level(logging.DEBUG, logger="vllm")
    write(output, record(logging.WARNING, "not the default"), record(logging.ERROR, "broken"))
    assert ("vllm.deep", logging.DEBUG, "not the default") in caplog.record_tuples
    assert ("vllm.deep", logging.ERROR, "broken") in caplog.record_tuples


def test_the_last_error_is_kept(output: ProcessOutput) -> None:
    """Of a traceback its last line, which is the exception; plain text is kept apart."""
    write(output, record(logging.ERROR, "Traceback\n  File\nValueError: too small\n"), "Segmentation fault", "")
    assert output.last_error == "ValueError: too small"
    assert output.tail == ["Segmentation fault"]


def test_a_record_cut_short_is_plain_text(output: ProcessOutput, caplog: pytest.LogCaptureFixture) -> None:
    """A process that died while it wrote one leaves its beginning; what follows is read all the same."""
    output.starting = False
    write(output, RECORD_MARK + '[40, "vllm.deep", "half', record(logging.WARNING, "whole"))
    assert output.tail == ['[40, "vllm.deep", "half']
    assert ("vllm.deep", logging.WARNING, "whole") in caplog.record_tuples


def test_closed_without_a_process_it_leaves_nothing() -> None:
    """A start that failed early: closing returns at once, twice, and the directory is gone."""
    output = ProcessOutput()
    output.close()
    output.close()
    assert not output.folder.exists()


def test_sockets_have_room_under_a_long_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path longer than a socket's may be is gone round, and one that fits is used."""
    (long := tmp_path / ("a" * 80)).mkdir()
    with TemporaryDirectory(dir="/tmp") as short:
        for folder, is_used in ((long, False), (Path(short), True)):
            monkeypatch.setattr("tempfile.tempdir", str(folder))
            output = ProcessOutput()
            try:
                assert (output.folder.parent == folder) == is_used
                with socket.socket(socket.AF_UNIX) as vllms:
                    vllms.bind(str(output.folder / str(uuid.uuid4())))
            finally:
                output.close()


@pytest.fixture
def family(output: ProcessOutput) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A parent with a guarded child, and the child's process id."""
    command = [sys.executable, str(CHILD), output.address, str(output.folder)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment) as parent:
        assert parent.stdout is not None
        yield parent, int(parent.stdout.readline())
        parent.kill()


def runs(pid: int) -> bool:
    """Whether the process is more than an entry that nobody has waited for."""
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_signals_of_strangers_do_not_end_it(family: tuple[subprocess.Popen[str], int], output: ProcessOutput) -> None:
    """Ctrl-C and a service manager's SIGTERM reach the whole group: the child goes on until its parent ends it."""
    parent, child = family
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(child, number)
    time.sleep(0.3)
    assert runs(child)
    assert parent.communicate("end\n", timeout=10)[0].strip() == "0"
    output.close(timeout_s=5)
    assert output.last_error == "a record of the child"
    assert output.tail == ["plain text of the child"]


def test_it_ends_with_its_parent(family: tuple[subprocess.Popen[str], int], output: ProcessOutput) -> None:
    """Killed without a chance to clean up, the parent takes the child and its directory along."""
    parent, child = family
    parent.kill()
    deadline = time.monotonic() + 5
    while runs(child) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not runs(child)
    assert not output.folder.exists()
